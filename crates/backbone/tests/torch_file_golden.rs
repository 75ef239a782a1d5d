//! Torch files against files that `PyTorch` wrote, and ours against `PyTorch` where it is installed.

#![allow(clippy::unwrap_used)] // a test may stop

use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use flawtune_backbone::torch_file::{self, DType, Entry, Problem, Tensor, Value};
use flawtune_testing::golden;
use serde_json::Value as Json;
use zip::write::{SimpleFileOptions, ZipWriter};

/// Compares a value with its description in `contents.json`, exactly: numbers were printed with all their digits.
fn assert_matches(found: &Value, wanted: &Json, at: &str) {
    match wanted {
        Json::Object(o) if o.contains_key("__tensor__") => {
            let t = found
                .as_tensor()
                .unwrap_or_else(|| panic!("{at}: a {} instead of a tensor", found.kind()));
            assert_eq!(t.dtype.name(), o["dtype"].as_str().unwrap(), "{at}: dtype");
            let shape: Vec<usize> = o["shape"]
                .as_array()
                .unwrap()
                .iter()
                .map(|n| n.as_u64().unwrap() as usize)
                .collect();
            assert_eq!(t.shape, shape, "{at}: shape");
            let wanted: Vec<f64> = o["data"]
                .as_array()
                .unwrap()
                .iter()
                .map(|x| x.as_f64().unwrap())
                .collect();
            assert_eq!(t.to_f64(), wanted, "{at}: elements");
        }
        Json::Object(o) => {
            let keys: Vec<_> = found
                .as_dict()
                .unwrap()
                .iter()
                .map(|(k, _)| k.as_str().unwrap())
                .collect();
            assert_eq!(keys, o.keys().collect::<Vec<_>>(), "{at}: keys in order");
            for (key, value) in o {
                assert_matches(found.get(key).unwrap(), value, &format!("{at}.{key}"));
            }
        }
        Json::Array(items) => {
            let list = found.as_list().unwrap();
            assert_eq!(list.len(), items.len(), "{at}: length");
            for (i, (f, w)) in list.iter().zip(items).enumerate() {
                assert_matches(f, w, &format!("{at}[{i}]"));
            }
        }
        Json::Null => assert_eq!(*found, Value::None, "{at}"),
        Json::Bool(b) => assert_eq!(found.as_bool(), Some(*b), "{at}"),
        Json::String(s) => assert_eq!(found.as_str(), Some(s.as_str()), "{at}"),
        Json::Number(n) if n.is_f64() => {
            assert_eq!(*found, Value::Float(n.as_f64().unwrap()), "{at}");
        }
        Json::Number(n) => assert_eq!(*found, Value::Int(n.as_i64().unwrap()), "{at}"),
    }
}

#[test]
fn reads_every_golden_checkpoint() {
    let folder = golden("pt");
    let contents: Json =
        serde_json::from_slice(&fs::read(folder.join("contents.json")).unwrap()).unwrap();
    for (file, wanted) in contents.as_object().unwrap() {
        let found = torch_file::read(&folder.join(file)).unwrap_or_else(|e| panic!("{e}"));
        assert_matches(&found, wanted, file);
    }
    assert!(!contents.as_object().unwrap().is_empty());
}

#[test]
fn a_golden_checkpoint_survives_writing() {
    let folder = golden("pt");
    let dir = tempfile::tempdir().unwrap();
    let contents: Json =
        serde_json::from_slice(&fs::read(folder.join("contents.json")).unwrap()).unwrap();
    for (file, wanted) in contents.as_object().unwrap() {
        let value = torch_file::read(&folder.join(file)).unwrap();
        let path = dir.path().join(file);
        torch_file::write(&path, &value).unwrap();
        let again = torch_file::read(&path).unwrap();
        assert_eq!(again, value, "{file}");
        assert_matches(&again, wanted, file);
        assert_eq!(
            fs::read(&path).unwrap(),
            torch_file::to_bytes(&value).unwrap(),
            "{file}: the same bytes again"
        );
    }
    let names: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(
        names.len(),
        contents.as_object().unwrap().len(),
        "no temporary file stays: {names:?}"
    );
}

#[test]
fn lazy_tensors_equal_the_copied_ones() {
    let mut files: Vec<PathBuf> = Vec::new();
    for config in fs::read_dir(golden("ckpt")).unwrap() {
        files.extend(Some(config.unwrap().path().join("official.pth")).filter(|p| p.exists()));
    }
    files.extend(
        ["ckpt_views.pt", "ckpt_noncontig.pt", "ckpt_legacy.pt"].map(|f| golden("pt").join(f)),
    );
    for file in files {
        let (lazy, whole) = (
            torch_file::open_lazy(&file).unwrap(),
            torch_file::read(&file).unwrap(),
        );
        let mut tensors = 0;
        for (name, tensor) in &lazy.tensors {
            let wanted = whole
                .get(name)
                .and_then(Value::as_tensor)
                .unwrap_or_else(|| panic!("{name}"));
            assert_eq!(tensor.shape, wanted.shape, "{name}");
            assert_eq!(tensor.to_f32(), wanted.to_f32(), "{name}");
            tensors += 1;
        }
        let wanted = whole
            .as_dict()
            .unwrap()
            .iter()
            .filter(|(_, v)| v.as_tensor().is_some())
            .count();
        assert_eq!(tensors, wanted, "{}", file.display());
        assert!(tensors > 0);
    }
}

/// Every kind of value a checkpoint may hold.
fn sample() -> Value {
    Value::dict([
        ("model_name", Value::from("dinov3_vits16")),
        ("unicode", Value::from("é–テスト")),
        ("none", Value::None),
        (
            "truth",
            Value::List(vec![Value::Bool(true), Value::Bool(false)]),
        ),
        (
            "integers",
            Value::List(
                [0, 255, 256, 65535, 65536, -1, i64::MAX, i64::MIN]
                    .map(Value::Int)
                    .to_vec(),
            ),
        ),
        (
            "floats",
            Value::floats([0.1, -0.0, f64::MAX, f64::MIN_POSITIVE, f64::INFINITY]),
        ),
        ("bytes", Value::Bytes((0..=255).collect())),
        ("no_bytes", Value::Bytes(Vec::new())),
        (
            "tuples",
            Value::List(
                (0..5)
                    .map(|n| Value::Tuple((0..n).map(Value::Int).collect()))
                    .collect(),
            ),
        ),
        (
            "empty",
            Value::List(vec![Value::List(Vec::new()), Value::Dict(Vec::new())]),
        ),
        (
            "prompts",
            Tensor::from_f32([3, 4], &(0..12).map(|i| i as f32 / 7.0).collect::<Vec<_>>()).into(),
        ),
        ("scalar", Tensor::from_f32([], &[2.5]).into()),
        ("no_rows", Tensor::from_f32([0, 4], &[]).into()),
        (
            "steps",
            Tensor::from_i64([2, 1, 1, 2], &[1, -2, i64::MAX, 4]).into(),
        ),
        (
            "half",
            Value::Tensor(Tensor {
                dtype: DType::F16,
                shape: vec![2],
                data: vec![0, 0x3c, 0, 0xc0],
            }),
        ),
        (
            "bf16",
            Value::Tensor(Tensor {
                dtype: DType::Bf16,
                shape: vec![1],
                data: vec![0x80, 0x3f],
            }),
        ),
        (
            "mask",
            Value::Tensor(Tensor {
                dtype: DType::Bool,
                shape: vec![3],
                data: vec![0, 1, 1],
            }),
        ),
        (
            "keys",
            Value::Dict(vec![
                (Value::Int(1), Value::from("one")),
                (Value::from("two"), Value::Float(2.0)),
            ]),
        ),
    ])
}

#[test]
fn every_kind_of_value_comes_back() {
    let value = sample();
    assert_eq!(
        torch_file::read_bytes(&torch_file::to_bytes(&value).unwrap()).unwrap(),
        value
    );
}

/// What Python must find in [`sample`].
const CHECK: &str = r#"
import sys
try:
    import torch
except ImportError:
    sys.exit(77)
d = torch.load(sys.argv[1], weights_only=True)
assert list(d) == ["model_name", "unicode", "none", "truth", "integers", "floats", "bytes", "no_bytes", "tuples", "empty",
    "prompts", "scalar", "no_rows", "steps", "half", "bf16", "mask", "keys"], list(d)
assert d["model_name"] == "dinov3_vits16" and d["unicode"] == "é–テスト" and d["none"] is None
assert d["truth"] == [True, False] and all(type(x) is bool for x in d["truth"])
assert d["integers"] == [0, 255, 256, 65535, 65536, -1, 2**63 - 1, -2**63]
assert repr(d["floats"]) == repr([0.1, -0.0, sys.float_info.max, sys.float_info.min, float("inf")])
assert all(type(x) is float for x in d["floats"])
assert d["bytes"] == bytes(range(256)) and d["no_bytes"] == b""
assert d["tuples"] == [tuple(range(n)) for n in range(5)] and d["empty"] == [[], {}]
assert d["keys"] == {1: "one", "two": 2.0}
f32 = torch.tensor([i for i in range(12)], dtype=torch.float32) / torch.tensor(7.0)
assert d["prompts"].dtype == torch.float32 and torch.equal(d["prompts"], f32.reshape(3, 4)) and d["prompts"].is_contiguous()
assert d["scalar"].shape == () and d["scalar"].item() == 2.5 and d["no_rows"].shape == (0, 4)
assert d["steps"].shape == (2, 1, 1, 2) and d["steps"].flatten().tolist() == [1, -2, 2**63 - 1, 4]
assert d["half"].dtype == torch.float16 and d["half"].tolist() == [1.0, -2.0]
assert d["bf16"].dtype == torch.bfloat16 and d["bf16"].tolist() == [1.0]
assert d["mask"].dtype == torch.bool and d["mask"].tolist() == [False, True, True]
mapped = torch.load(sys.argv[1], weights_only=True, mmap=True)
assert torch.equal(mapped["prompts"], d["prompts"])
d["prompts"].add_(1)
torch.save(d, sys.argv[2])
torch.save(d, sys.argv[3], _use_new_zipfile_serialization=False)
print("torch", torch.__version__)
"#;

#[test]
fn pytorch_reads_ours_and_we_read_its_answer() {
    let python = std::env::var_os("FLAWTUNE_PYTHON").unwrap_or_else(|| "python3".into());
    let dir = tempfile::tempdir().unwrap();
    let [ours, zipped, legacy] = ["ours.pt", "zipped.pt", "legacy.pt"].map(|f| dir.path().join(f));
    torch_file::write(&ours, &sample()).unwrap();
    let run = Command::new(python)
        .arg("-c")
        .arg(CHECK)
        .args([&ours, &zipped, &legacy])
        .output();
    let out = match run {
        Ok(out) if out.status.code() != Some(77) => out,
        _ => {
            println!(
                "skipped: pytorch_reads_ours_and_we_read_its_answer (no python3 with torch; name one in FLAWTUNE_PYTHON)"
            );
            return;
        }
    };
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    let Value::Dict(mut wanted) = sample() else {
        unreachable!()
    };
    let prompts = wanted
        .iter_mut()
        .find(|(k, _)| k.as_str() == Some("prompts"))
        .unwrap();
    let moved: Vec<f32> = prompts
        .1
        .as_tensor()
        .unwrap()
        .to_f32()
        .iter()
        .map(|x| x + 1.0)
        .collect();
    prompts.1 = Tensor::from_f32([3, 4], &moved).into();
    for file in [zipped, legacy] {
        assert_eq!(
            torch_file::read(&file).unwrap(),
            Value::Dict(wanted.clone()),
            "{}",
            file.display()
        );
    }
}

// ---- hostile files

/// A torch zip with this pickle and these storages.
fn archive(pickle: &[u8], storages: &[&[u8]]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    zip.start_file("a/data.pkl", options).unwrap();
    zip.write_all(pickle).unwrap();
    for (i, s) in storages.iter().enumerate() {
        zip.start_file(format!("a/data/{i}"), options).unwrap();
        zip.write_all(s).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn problem(pickle: &[u8], storages: &[&[u8]]) -> Problem {
    torch_file::read_bytes(&archive(pickle, storages)).unwrap_err()
}

/// The pickle of a tensor: shape and strides of one axis, on a storage of `len` floats.
fn one_tensor(len: u8, offset: u8, size: u32, stride: u8) -> Vec<u8> {
    let mut p = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK".to_vec();
    p.extend([len, b't', b'Q', b'K', offset, b'J']);
    p.extend(size.to_le_bytes());
    p.extend([0x85, b'K', stride, 0x85, 0x89, b'N', b't', b'R', b'.']);
    p
}

#[test]
fn foreign_globals_are_named_and_not_run() {
    for (pickle, name) in [
        (
            &b"\x80\x02cos\nsystem\nX\x04\0\0\0true\x85R."[..],
            "os.system",
        ),
        (
            b"\x80\x02c__builtin__\neval\nX\x01\0\0\x001\x85R.",
            "__builtin__.eval",
        ),
        (b"\x80\x02cargparse\nNamespace\n)R.", "argparse.Namespace"),
        (b"\x80\x04\x8c\x05posix\x8c\x06system\x93.", "posix.system"),
        (b"\x80\x02ctorch\nload\n.", "torch.load"),
    ] {
        let Problem::ForeignGlobal(found) = problem(pickle, &[]) else {
            panic!("{name}")
        };
        assert_eq!(found, name);
    }
    assert!(
        matches!(
            problem(b"\x80\x02ios\nsystem\n.", &[]),
            Problem::Unsupported(_)
        ),
        "INST is not executed"
    );
}

#[test]
fn tensors_outside_their_storage_are_refused() {
    let storage = [0u8; 16];
    let good = torch_file::read_bytes(&archive(&one_tensor(4, 1, 3, 1), &[&storage])).unwrap();
    assert_eq!(good.as_tensor().unwrap().shape, [3]);
    for (pickle, why) in [
        (one_tensor(4, 1, 4, 1), "one element past the end"),
        (one_tensor(4, 0, 3, 2), "a stride past the end"),
        (
            one_tensor(4, 0, 0x7fff_ffff, 0),
            "a huge tensor of one element",
        ),
        (one_tensor(5, 0, 4, 1), "more elements than the storage has"),
        (one_tensor(4, 0, 0xffff_ffff, 1), "a negative size"),
    ] {
        let p = problem(&pickle, &[&storage]);
        assert!(
            matches!(
                p,
                Problem::Tensor(_)
                    | Problem::Damaged(_)
                    | Problem::TooLarge(_)
                    | Problem::Pickle { .. }
            ),
            "{why}: {p}"
        );
    }
    assert!(
        matches!(problem(&one_tensor(4, 0, 4, 1), &[]), Problem::Damaged(_)),
        "a missing storage"
    );
    // expanded tensors (stride 0) are legitimate
    let expanded =
        torch_file::read_bytes(&archive(&one_tensor(4, 0, 1000, 0), &[&storage])).unwrap();
    assert_eq!(expanded.as_tensor().unwrap().data.len(), 4000);
}

#[test]
fn shared_and_nested_objects_cannot_explode() {
    // 40 lists, each holding the one before twice: 2^40 values if written out
    let mut bomb = b"\x80\x02]q\0".to_vec();
    for i in 0..40u8 {
        bomb.extend([
            b']',
            b'q',
            i + 1,
            b'(',
            b'h',
            i,
            b'h',
            i,
            b'e',
            b'0',
            b'h',
            i + 1,
        ]);
    }
    bomb.push(b'.');
    assert!(matches!(problem(&bomb, &[]), Problem::TooLarge(_)));
    let cycle = b"\x80\x02]q\0h\0a.";
    assert!(
        matches!(problem(cycle, &[]), Problem::TooLarge(_)),
        "a list that holds itself"
    );
    let mut deep = b"\x80\x02".to_vec();
    deep.extend(std::iter::repeat_n(b']', 100_000));
    deep.extend(std::iter::repeat_n(b'a', 99_999));
    deep.push(b'.');
    assert!(
        matches!(problem(&deep, &[]), Problem::TooLarge(_)),
        "100,000 lists deep"
    );
    let claim = b"\x80\x02\x8d\xff\xff\xff\xff\xff\xff\xff\x7f.";
    assert!(
        matches!(problem(claim, &[]), Problem::Pickle { .. }),
        "a text of 2^63 bytes"
    );
}

#[test]
fn malformed_pickles_are_errors() {
    for pickle in [
        &b""[..],
        b"\x80\x02",
        b"a.",
        b".",
        b"(.",
        b"h\0.",
        b"q\0.",
        b"\x85.",
        b"NNs.",
        b"}(Nu.",
        b")R.",
        b"]Q.",
        b"\x80\x09N.",
    ] {
        let p = problem(pickle, &[]);
        assert!(
            matches!(p, Problem::Pickle { .. } | Problem::Unsupported(_)),
            "{pickle:?}: {p}"
        );
    }
}

#[test]
fn no_prefix_and_no_flipped_byte_of_a_checkpoint_panics() {
    for file in ["ckpt_main.pt", "ckpt_legacy.pt"] {
        let bytes = fs::read(golden("pt").join(file)).unwrap();
        for n in 0..bytes.len() {
            let _ = torch_file::read_bytes(&bytes[..n]);
            let mut flipped = bytes.clone();
            flipped[n] ^= 0x5a;
            let _ = torch_file::read_bytes(&flipped);
        }
        assert!(torch_file::read_bytes(&bytes[..bytes.len() / 2]).is_err());
    }
}

#[test]
fn a_flipped_element_is_noticed() {
    let value = Value::dict([("w", Value::from(Tensor::from_f32([64], &[1.0; 64])))]);
    let mut bytes = torch_file::to_bytes(&value).unwrap();
    let at = bytes
        .windows(8)
        .position(|w| w == [0, 0, 0x80, 0x3f, 0, 0, 0x80, 0x3f])
        .unwrap();
    assert_eq!(
        at % 64,
        0,
        "storages start on 64-byte boundaries, as those of torch.save"
    );
    bytes[at] ^= 1;
    let p = torch_file::read_bytes(&bytes).unwrap_err();
    assert!(matches!(p, Problem::Damaged(_)), "{p}");
}

#[test]
fn wrong_files_say_what_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.pt");
    for (bytes, wanted) in [
        (&b""[..], "the file is empty"),
        (b"hello, this is not a checkpoint\n", "it is a text file"),
        (b"\x80\x04N.", "it is a bare pickle"),
        (
            b"\x10\0\0\0\0\0\0\0{\"a\":1}",
            "it looks like a safetensors file",
        ),
        (b"PK\x05\x06", "its zip archive is unreadable"),
    ] {
        fs::write(&path, bytes).unwrap();
        let message = torch_file::read(&path).unwrap_err().to_string();
        assert!(
            message.contains(wanted) && message.contains("x.pt"),
            "{message}"
        );
    }
    assert!(
        torch_file::read(dir.path())
            .unwrap_err()
            .to_string()
            .contains("folder")
    );
    assert!(matches!(
        torch_file::read(&dir.path().join("none.pt"))
            .unwrap_err()
            .problem,
        Problem::Io(_)
    ));
}

#[test]
fn a_failed_write_leaves_the_old_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.pt");
    torch_file::write(&path, &Value::Int(1)).unwrap();
    let broken = Value::Tensor(Tensor {
        dtype: DType::F32,
        shape: vec![2, 2],
        data: vec![0; 7],
    });
    assert!(matches!(
        torch_file::write(&path, &broken).unwrap_err().problem,
        Problem::Tensor(_)
    ));
    assert_eq!(torch_file::read(&path).unwrap(), Value::Int(1));
    assert!(matches!(
        torch_file::write(&dir.path().join("none/x.pt"), &Value::None)
            .unwrap_err()
            .problem,
        Problem::Io(_)
    ));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let plain = dir.path().join("plain");
        fs::write(&plain, b"").unwrap();
        let mode = |p: &Path| fs::metadata(p).unwrap().permissions().mode() & 0o777;
        assert_eq!(
            mode(&path),
            mode(&plain),
            "permissions of an ordinary new file"
        );
    }
}

#[test]
fn a_state_dict_may_be_nested_and_mixed() {
    let inner = Value::dict([("w", Value::from(Tensor::from_f32([2], &[1.0, 2.0])))]);
    let value = Value::dict([
        ("teacher", inner),
        ("batches", Tensor::from_i64([], &[3]).into()),
        ("epoch", Value::Int(3)),
    ]);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.pth");
    torch_file::write(&path, &value).unwrap();
    let dict = torch_file::open_lazy(&path).unwrap();
    assert_eq!(dict.tensors.len(), 1);
    assert_eq!(
        (dict.tensors[0].0.as_str(), dict.tensors[0].1.to_f32()),
        ("teacher.w", vec![1.0, 2.0])
    );
    assert_eq!(
        dict.others,
        [
            (
                "batches".into(),
                Entry::IntegerTensor {
                    dtype: DType::I64,
                    shape: vec![]
                }
            ),
            ("epoch".into(), Entry::Plain("integer"))
        ]
    );
    torch_file::write(&path, &Value::List(Vec::new())).unwrap();
    assert!(
        torch_file::open_lazy(&path)
            .unwrap_err()
            .to_string()
            .contains("state_dict")
    );
}
