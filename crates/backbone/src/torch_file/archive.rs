//! Where pickle and storages lie in a torch file: a zip archive, or the older run of pickles.

use std::collections::HashMap;
use std::io::Cursor;
use std::ops::Range;

use zip::CompressionMethod;
use zip::read::ZipArchive;

use super::error::Problem;
use super::pickle::{self, Node, Objects};

/// The pickled magic number that opens a file of `torch.save` before version 1.6.
const LEGACY_MAGIC: [u8; 15] = [
    0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, b'.',
];
/// Most entries a zip may have: a tensor each, and a few more.
const MAX_ENTRIES: usize = 1 << 17;

/// Bytes of a storage in the file.
#[derive(Debug, Clone)]
pub(super) struct Extent {
    pub(super) range: Range<usize>,
    /// CRC-32 of them, where the file says.
    pub(super) crc: Option<u32>,
}

/// A torch file taken apart; nothing but the pickle has been read.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) objects: Objects,
    pub(super) storages: HashMap<String, Extent>,
}

/// Takes the file `bytes` apart.
pub(super) fn open(bytes: &[u8]) -> Result<Layout, Problem> {
    if bytes.starts_with(&LEGACY_MAGIC) {
        legacy(bytes)
    } else if bytes.starts_with(b"PK") {
        zipped(bytes)
    } else {
        Err(Problem::NotTorch(sniff(bytes).into()))
    }
}

/// What a file that is not a torch file looks like.
fn sniff(bytes: &[u8]) -> &'static str {
    if bytes.is_empty() {
        "the file is empty"
    } else if bytes.get(8) == Some(&b'{') {
        "it looks like a safetensors file, which holds weights and no checkpoint; weights are read from it \
         if its name ends in .safetensors"
    } else if bytes.get(257..262) == Some(b"ustar") {
        "it is a tar archive, as PyTorch before 0.1.10 wrote them\nhint: save it again with a current PyTorch"
    } else if bytes[0] == 0x80 {
        "it is a bare pickle, not written by torch.save"
    } else if bytes.starts_with(b"version https://git-lfs") {
        "it is a Git LFS pointer, not the file itself\nhint: run `git lfs pull` or download it again"
    } else if bytes
        .iter()
        .take(512)
        .all(|b| b.is_ascii_graphic() || b.is_ascii_whitespace())
    {
        "it is a text file"
    } else {
        "it is neither a zip archive nor a pickle"
    }
}

fn zipped(bytes: &[u8]) -> Result<Layout, Problem> {
    let damaged =
        |e: zip::result::ZipError| Problem::Damaged(format!("its zip archive is unreadable ({e})"));
    let mut zip = ZipArchive::new(Cursor::new(bytes)).map_err(damaged)?;
    if zip.len() > MAX_ENTRIES {
        return Err(Problem::TooLarge(format!(
            "a zip archive of {} entries",
            zip.len()
        )));
    }
    let mut entries = HashMap::with_capacity(zip.len());
    for i in 0..zip.len() {
        let entry = zip.by_index_raw(i).map_err(damaged)?;
        let name = String::from_utf8_lossy(entry.name_raw()).into_owned();
        if entry.compression() != CompressionMethod::Stored {
            return Err(Problem::Unsupported(format!(
                "entry '{name}' is compressed, which torch.save never does; the archive was repacked\nhint: save it again"
            )));
        }
        let range = entry.data_start().and_then(|start| {
            let start = usize::try_from(start).ok()?;
            let end = start.checked_add(usize::try_from(entry.size()).ok()?)?;
            (end <= bytes.len()).then_some(start..end)
        });
        let range = range.ok_or_else(|| {
            Problem::Damaged(format!("entry '{name}' runs past the end of the file"))
        })?;
        entries.insert(
            name,
            Extent {
                range,
                crc: Some(entry.crc32()),
            },
        );
    }
    // all entries lie in one folder, named after the file or `archive`
    let Some(root) = entries
        .keys()
        .filter_map(|n| n.strip_suffix("data.pkl"))
        .min_by_key(|r| r.len())
    else {
        return Err(Problem::NotTorch(
            "it is a zip archive without data.pkl".into(),
        ));
    };
    let root = root.to_owned();
    if entries.contains_key(&format!("{root}constants.pkl")) {
        return Err(Problem::Unsupported(
            "it is a TorchScript program\nhint: save the state_dict instead: torch.save(model.state_dict(), path)"
                .into(),
        ));
    }
    if let Some(order) = entries.get(&format!("{root}byteorder"))
        && &bytes[order.range.clone()] != b"little"
    {
        return Err(Problem::Unsupported(
            "it was written on a big-endian machine\nhint: save it again on a little-endian one"
                .into(),
        ));
    }
    let data = &entries[&format!("{root}data.pkl")];
    if data.range.len() > pickle::MAX_PICKLE {
        return Err(Problem::TooLarge(format!(
            "a pickle of {} bytes",
            data.range.len()
        )));
    }
    check_crc(bytes, data, "data.pkl")?;
    let objects = pickle::parse(&bytes[data.range.clone()])?;
    let folder = format!("{root}data/");
    let storages = entries
        .into_iter()
        .filter_map(|(name, extent)| Some((name.strip_prefix(&folder)?.to_owned(), extent)));
    Ok(Layout {
        objects,
        storages: storages.collect(),
    })
}

/// The run of pickles: magic, version, system, objects, storage keys; then each storage's length and elements.
fn legacy(bytes: &[u8]) -> Result<Layout, Problem> {
    let mut at = LEGACY_MAGIC.len();
    let mut next = || -> Result<Objects, Problem> {
        let objects = pickle::parse(&bytes[at..])?;
        at += objects.used;
        Ok(objects)
    };
    let version = next()?;
    if !matches!(version.node(version.root), Node::Int(1001)) {
        return Err(Problem::Unsupported(
            "an unknown version of the old torch format\nhint: save it again".into(),
        ));
    }
    let system = next()?;
    if let Node::Dict(entries) = system.node(system.root)
        && entries.iter().any(|&(k, v)| {
            matches!(system.node(k), Node::Str(s) if s == "little_endian")
                && matches!(system.node(v), Node::Bool(false))
        })
    {
        return Err(Problem::Unsupported(
            "it was written on a big-endian machine\nhint: save it again on a little-endian one"
                .into(),
        ));
    }
    let objects = next()?;
    let keys = next()?;

    let mut sizes = HashMap::new();
    for node in &objects.nodes {
        if let Node::Storage { dtype, key, .. } = node
            && let Node::Str(key) = objects.node(*key)
        {
            sizes.insert(key.as_str(), dtype.size());
        }
    }
    let Node::List(order) = keys.node(keys.root) else {
        return Err(Problem::Damaged("it has no list of storages".into()));
    };
    let mut storages = HashMap::with_capacity(order.len());
    for &key in order {
        let Node::Str(key) = keys.node(key) else {
            return Err(Problem::Damaged(
                "its list of storages holds something other than names".into(),
            ));
        };
        let size = *sizes
            .get(key.as_str())
            .ok_or_else(|| Problem::Damaged(format!("storage '{key}' has no type")))?;
        let range = bytes
            .get(at..)
            .and_then(|rest| rest.first_chunk::<8>())
            .and_then(|len| {
                let start = at + 8;
                let end = start.checked_add(
                    usize::try_from(u64::from_le_bytes(*len))
                        .ok()?
                        .checked_mul(size)?,
                )?;
                (end <= bytes.len()).then_some(start..end)
            });
        let range =
            range.ok_or_else(|| Problem::Damaged(format!("it ends inside storage '{key}'")))?;
        at = range.end;
        storages.insert(key.clone(), Extent { range, crc: None });
    }
    Ok(Layout { objects, storages })
}

/// Compares the bytes of `extent` with their checksum.
pub(super) fn check_crc(bytes: &[u8], extent: &Extent, name: &str) -> Result<(), Problem> {
    match extent.crc {
        Some(crc) if crc32fast::hash(&bytes[extent.range.clone()]) != crc => Err(Problem::Damaged(
            format!("entry '{name}' does not match its checksum"),
        )),
        _ => Ok(()),
    }
}
