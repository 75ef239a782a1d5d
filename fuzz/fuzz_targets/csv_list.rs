//! A CSV list of images: rows or an error that names a line of the file.
#![no_main]

use flawtune::dataset::parse_list;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    // a line may end with CR, LF or both
    let lines = 1 + data.iter().filter(|b| matches!(b, b'\n' | b'\r')).count() as u64;
    match parse_list(data) {
        Ok(rows) => {
            for row in rows {
                assert!((1..=lines).contains(&row.line), "{row:?}");
                assert!(row.defect_type.is_some() || row.masks.is_empty(), "{row:?}");
            }
        }
        Err(error) => assert!((1..=lines).contains(&error.line), "{error}"),
    }
});
