//! Any bytes as a torch file: zip archive, pickle and storages together.
#![no_main]

use flawtune_backbone::torch_file;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = torch_file::read_bytes(data);
});
