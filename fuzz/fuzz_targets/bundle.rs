//! Any bytes as a bundle of `flawtune fit`, and tokens scored with what is read. Start from small bundles, with
//! `--index approximate` and without.
#![no_main]

use std::io::Write as _;

use flawtune::bundle::{Bundle, TokenScorer};
use flawtune::features::{ImageTokens, TokenSet};
use flawtune::score::Scorer as _;
use libfuzzer_sys::fuzz_target;

/// Numbers of an image that are scored, at most.
const MOST: usize = 1 << 16;

/// Makes the hash over the tensors that of the tensors, or nothing behind it would ever be reached.
fn mend(bytes: &mut [u8]) {
    let Some(length) = bytes.first_chunk().map(|b| u64::from_le_bytes(*b)) else { return };
    let start = usize::try_from(length).ok().and_then(|n| n.checked_add(8));
    let Some(data) = start.and_then(|start| bytes.get(start..)) else { return };
    let hash = blake3::hash(data).to_hex();
    let key = br#"\"data_hash\":\""#;
    let Some(at) = bytes.windows(key.len()).position(|w| w == key) else { return };
    if let Some(place) = bytes.get_mut(at + key.len()..).and_then(|rest| rest.get_mut(..hash.len())) {
        place.copy_from_slice(hash.as_bytes());
    }
}

fuzz_target!(|data: &[u8]| {
    let mut bytes = data.to_vec();
    mend(&mut bytes);
    let Ok(mut file) = tempfile::NamedTempFile::new() else { return };
    if file.write_all(&bytes).is_err() {
        return;
    }
    let Ok(bundle) = Bundle::read(file.path()) else { return };
    let (header, path) = (bundle.header, file.path());
    let (grid, dim) = (header.grid, header.dim);
    let patches = grid.0.saturating_mul(grid.1);
    if patches.saturating_add(1).saturating_mul(dim) > MOST {
        return;
    }
    let (bank, parts) = (&bundle.bank, &header.bank.parts);
    let scorer = TokenScorer::new(path, header.scorer, header.patches, grid, bank, parts, bundle.ensemble);
    let Ok(mut scorer) = scorer else { return };
    if let (Some(cells), Some(index)) = (bundle.cells, &header.bank.index) {
        scorer = scorer.with_cells(cells, index.probes, Vec::new());
    }
    let tokens = (0..(patches + 1) * dim).map(|i| ((i * 37) % 89) as f32 - 44.0).collect();
    let images = vec![ImageTokens::owned(tokens, patches, dim)];
    let _ = scorer.score(&TokenSet { grid, dim, images });
});
