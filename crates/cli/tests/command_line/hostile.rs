//! Data sets and images that are wrong: one message, exit code 2, nothing written.

use std::fs;

use crate::world::{World, crc32, data_and_backbone};

/// A PNG that announces 50,000×50,000 pixels and holds none.
fn huge_header() -> Vec<u8> {
    let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut chunk = b"IHDR".to_vec();
    chunk.extend(50_000_u32.to_be_bytes());
    chunk.extend(50_000_u32.to_be_bytes());
    chunk.extend([8, 2, 0, 0, 0]);
    bytes.extend(13_u32.to_be_bytes());
    let crc = crc32(&chunk);
    bytes.extend(chunk);
    bytes.extend(crc.to_be_bytes());
    bytes
}

#[test]
fn folders_that_are_not_a_data_set() {
    let w = World::new();
    let all = ["train --output-dir {}/out", "baseline --output-dir {}/out"];
    for command in all {
        let with = |from: &str, to: &str| {
            let line = format!("{command} {}", data_and_backbone()).replace(from, to);
            w.run(&line)
        };
        with("{}/data", "{}/none").refuses(&["none: no such folder", "--root-dir"]);
        with("--category cloth", "--category clott").refuses(&[
            "clott",
            "Did you mean 'cloth'",
            "cloth",
        ]);
        with("{}/data", "{}/data/cloth").refuses(&["--root-dir"]);
    }
    fs::create_dir_all(w.root().join("plain/train/good")).unwrap();
    fs::create_dir_all(w.root().join("plain/test/good")).unwrap();
    let plain = |command: &str| {
        w.run(
            &format!("{command} {}", data_and_backbone())
                .replace("--category cloth", "--category plain"),
        )
    };
    plain(all[0]).refuses(&["plain", "no images"]);
    for i in 0..3 {
        fs::copy(
            w.sample(&format!("train/good/{i:03}.png")),
            w.root().join(format!("plain/train/good/{i}.png")),
        )
        .unwrap();
        fs::copy(
            w.sample(&format!("test/good/{i:03}.png")),
            w.root().join(format!("plain/test/good/{i}.png")),
        )
        .unwrap();
    }
    for command in all {
        plain(command).refuses(&["plain", "defect"]);
    }
    assert!(w.written().is_empty(), "{:?}", w.written());
}

#[test]
fn more_shots_than_there_are() {
    let w = World::new();
    let train = |rest: &str| w.job("train", &format!("--output-dir {{}}/out {rest}"));
    train("--num-defect-samples 11").refuses(&["cloth", "11", "10", "14"]);
    train("--num-defect-samples 15 --protocol leaky").refuses(&["cloth", "15", "14"]);
    train("--num-defect-samples 5 --pool-size 14").refuses(&["cloth", "14"]);
    train("--num-defect-samples 0").refuses(&["--num-defect-samples"]);
    train("--num-defect-samples 8 --protocol hard --defect-type hole").refuses(&["cloth", "7"]);
    assert!(w.written().is_empty(), "{:?}", w.written());
}

#[test]
fn pictures_that_cannot_be_read() {
    let w = World::new();
    let good = fs::read(w.sample("train/good/000.png")).unwrap();
    let bad: [(&str, Vec<u8>); 4] = [
        ("train/good/001.png", good[..good.len() / 2].to_vec()),
        (
            "train/good/002.png",
            b"this is a text, not an image\n".to_vec(),
        ),
        ("test/good/001.png", Vec::new()),
        ("test/hole/003.png", huge_header()),
    ];
    for (id, bytes) in &bad {
        let path = w.sample(id);
        let kept = fs::read(&path).unwrap();
        fs::write(&path, bytes).unwrap();
        // pool size 13 of 14 defects, so that a bad one is met whatever the seed draws
        let name = path.to_str().unwrap();
        let command = if id.starts_with("train") {
            "train"
        } else {
            "baseline"
        };
        let rest = if command == "train" {
            "--num-epochs 1"
        } else {
            "--bootstrap 100 --protocol leaky"
        };
        let rest = format!("{rest} --output-dir {{}}/out");
        w.job(command, &rest)
            .refuses(&[name, "1 of", "--skip-bad-images"]);
        assert!(w.written().is_empty(), "{id}: {:?}", w.written());
        let run = w
            .job(command, &format!("{rest} --skip-bad-images"))
            .succeeds();
        assert!(run.stderr.contains(name), "{}", run.stderr);
        // named even when quiet: it changes what the result means
        let run = w
            .job(command, &format!("{rest} --skip-bad-images --quiet"))
            .succeeds();
        assert!(run.stderr.contains(name), "{}", run.stderr);
        fs::remove_dir_all(w.out()).unwrap();
        fs::write(&path, kept).unwrap();
    }
    // several at once: every one is named
    for (id, bytes) in &bad[..2] {
        fs::write(w.sample(id), bytes).unwrap();
    }
    let names = bad[..2]
        .iter()
        .map(|(id, _)| w.sample(id).display().to_string())
        .collect::<Vec<_>>();
    w.job("train", "--output-dir {}/out")
        .refuses(&[&names[0], &names[1], "2 of"]);
    // all of them: nothing is left to learn from
    for i in 0..8 {
        fs::write(
            w.sample(&format!("train/good/{i:03}.png")),
            format!("text {i}"),
        )
        .unwrap();
    }
    w.job("train", "--output-dir {}/out --skip-bad-images")
        .refuses(&["train/good/007.png"]);
    assert!(w.written().is_empty(), "{:?}", w.written());
}

/// Every place of a JSON value, by its pointer.
fn places(value: &serde_json::Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        serde_json::Value::Array(list) => {
            for (i, inner) in list.iter().enumerate().take(3) {
                places(inner, &format!("{at}/{i}"), found);
            }
        }
        serde_json::Value::Object(map) => {
            for (key, inner) in map {
                places(inner, &format!("{at}/{key}"), found);
            }
        }
        _ => {}
    }
}

/// Whatever stands in any field of a detector's header: it is read, or refused with the file's name, and never more.
#[test]
fn every_field_of_a_header_may_say_anything() {
    let w = World::new();
    w.job("fit", "--output {}/cloth.flaw").succeeds();
    let bytes = fs::read(w.path("cloth.flaw")).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let (head, data) = bytes[8..].split_at(length);
    let head: serde_json::Value = serde_json::from_slice(head).unwrap();
    let text = head["__metadata__"]["header"].as_str().unwrap();
    let header: serde_json::Value = serde_json::from_str(text).unwrap();
    let mut all = Vec::new();
    places(&header, "", &mut all);
    let strange = [
        serde_json::json!(null),
        serde_json::json!(-1),
        serde_json::json!(0),
        serde_json::json!(u64::MAX),
        serde_json::json!(1e300),
        serde_json::json!("x"),
        serde_json::json!([]),
        serde_json::json!({}),
    ];
    let (mut read, mut refused) = (0, 0);
    for place in &all {
        for value in &strange {
            let mut header = header.clone();
            *header.pointer_mut(place).unwrap() = value.clone();
            let mut head = head.clone();
            head["__metadata__"]["header"] = header.to_string().into();
            let head = head.to_string().into_bytes();
            let length = (head.len() as u64).to_le_bytes();
            let file = w.path("edited.flaw");
            fs::write(&file, [&length[..], &head, data].concat()).unwrap();
            match flawtune::bundle::Bundle::read(&file) {
                Ok(_) => read += 1,
                Err(e) => {
                    refused += 1;
                    assert!(e.to_string().contains("edited.flaw"), "{place}: {e}");
                }
            }
        }
    }
    assert!(
        all.len() > 50 && refused > read,
        "{read} read, {refused} refused"
    );
}
