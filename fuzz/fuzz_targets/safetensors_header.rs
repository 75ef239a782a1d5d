//! A safetensors header of the fuzzer's making over a body of zeros: loading must end in weights or an error.
#![no_main]

use std::fs;

use flawtune_backbone::weights;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let dir = tempfile::tempdir().expect("a folder for temporary files");
    let path = dir.path().join("model.safetensors");
    let mut file = (data.len() as u64).to_le_bytes().to_vec();
    file.extend(data);
    file.extend([0; 4096]);
    fs::write(&path, &file).expect("a file for the fuzzer");
    let _ = weights::load(&path, None);
    let _ = weights::describe(&path);
});
