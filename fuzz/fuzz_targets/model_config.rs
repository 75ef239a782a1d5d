//! A `config.json` of the fuzzer's making beside good weights.
#![no_main]

use std::fs;
use std::path::Path;

use flawtune_backbone::weights;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let model =
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../golden/ckpt/tiny_nobias/timm.safetensors"));
    let dir = tempfile::tempdir().expect("a folder for temporary files");
    let path = dir.path().join("model.safetensors");
    fs::copy(model, &path).expect("the golden model");
    fs::write(dir.path().join("config.json"), data).expect("a file for the fuzzer");
    if let Ok(loaded) = weights::load(&path, None) {
        assert_eq!(loaded.config.dim % loaded.config.heads, 0);
    }
});
