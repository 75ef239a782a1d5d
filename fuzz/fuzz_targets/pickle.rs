//! A pickle after a good start of the old format: the machine must build data or name an error, in bounded time and
//! memory.
#![no_main]

use flawtune_backbone::torch_file::{self, Problem};
use libfuzzer_sys::fuzz_target;

/// Magic number, version and system of the old format; the objects follow. No checksum stands in the fuzzer's way.
const START: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.\x80\x02}.";

fuzz_target!(|data: &[u8]| {
    let file = [START, data].concat();
    let Ok(value) = torch_file::read_bytes(&file) else { return };
    // what was read can be written unless shared objects grow too large, and what was written can be read
    match torch_file::to_bytes(&value) {
        Ok(again) => drop(torch_file::read_bytes(&again).expect("what was written can be read")),
        Err(problem) => assert!(matches!(problem, Problem::TooLarge(_)), "{problem}"),
    }
});
