use super::message::Event;
use super::record::framed;
use super::*;

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::new(), |text, b| text + &format!("{b:02x}"))
}

/// Records that the Python package wrote: `expected.py` beside this file, tensorboard 2.21.0 on protobuf 7.36.2.
#[test]
fn records_are_those_of_the_python_package() {
    for (event, expected) in [
        (
            Event::file_version(1_700_000_000.25, FILE_VERSION),
            "1800000000000000a37f4b220900001040fc54d9411a0d627261696e2e4576656e743a32338d2fe9",
        ),
        (
            Event::start(1_700_000_000.25, 13),
            "0f000000000000006d532b090900001040fc54d941100d3a02080194270020",
        ),
        (
            Event::scalars(1_700_000_001.5, 300, &[("loss", -1.25), ("hold_out", 0.0)]),
            "2c00000000000000f4aecc450900006040fc54d94110ac022a1e0a0b0a046c6f7373150000a0bf0a0f0a08686f6c645f\
             6f7574150000000085c29cee",
        ),
        (
            Event::text(1_700_000_001.5, 0, "settings", "α | 1"),
            "3500000000000000d6c55de60900006040fc54d9412a2a0a280a0873657474696e677342100807120412020801\
             4206ceb1207c20314a0a0a060a0474657874200248275f57",
        ),
    ] {
        assert_eq!(hex(&framed(event.bytes())), expected);
    }
}

/// The records of a file, with their checksums taken for granted: the test above has checked them.
fn records(path: &Path) -> Vec<Vec<u8>> {
    let bytes = std::fs::read(path).unwrap();
    let (mut found, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let length = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
        found.push(bytes[at + 12..at + 12 + length].to_vec());
        assert_eq!(framed(&found[found.len() - 1]), bytes[at..at + 16 + length]);
        at += 16 + length;
    }
    found
}

#[test]
fn every_file_is_new_and_holds_each_step_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("runs/screw");
    let mut first = EventFile::create(&place, 1).unwrap();
    let second = EventFile::create(&place, 8).unwrap();
    // read in this order, though they began in the same second
    let seconds = |file: &EventFile| -> u64 {
        file.path()
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .split('.')
            .nth(3)
            .unwrap()
            .parse()
            .unwrap()
    };
    assert_eq!(seconds(&second), seconds(&first) + 1);
    let name = first.path().file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with("events.out.tfevents."), "{name}");
    assert!((now() - seconds(&first) as f64).abs() < 60.0, "{name}");
    std::fs::write(place.join(format!("{PREFIX}99999999999")), "no time").unwrap();
    assert_eq!(
        seconds(&EventFile::create(&place, 9).unwrap()),
        seconds(&second) + 1
    );
    // the time apart, which is 9 bytes of every event
    let ends = |path: &Path| {
        records(path)
            .iter()
            .map(|r| hex(&r[9..]))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        ends(second.path()),
        ["1a0d627261696e2e4576656e743a32", "10083a020801"]
    );
    first.scalars(1, &[("loss", 0.5)]).unwrap();
    assert_eq!(ends(first.path())[2], "10012a0d0a0b0a046c6f7373150000003f");
    first.text(0, "settings", "x").unwrap();
    assert_eq!(records(first.path()).len(), 4);
}

#[test]
fn a_folder_that_cannot_be_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let error = EventFile::create(&file.join("below"), 1)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("below") && error.contains("choose a folder"),
        "{error}"
    );
}
