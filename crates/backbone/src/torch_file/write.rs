//! Writing a value as a torch file.

use std::io::{Cursor, Write};

use zip::CompressionMethod;
use zip::write::{SimpleFileOptions, ZipWriter};

use super::error::Problem;
use super::pickle::MAX_PICKLE;
use super::value::{DType, Tensor, Value};

/// The one folder of the archive; `torch.load` accepts any name.
const ROOT: &str = "archive";
/// Alignment of storages, the one `torch.save` uses.
const ALIGNMENT: u16 = 64;
/// Deepest nesting that is written: what the reader accepts.
const MAX_DEPTH: usize = 64;

/// The bytes of the file for `value`: the same value gives the same bytes.
pub(super) fn to_bytes(value: &Value) -> Result<Vec<u8>, Problem> {
    let mut pickler = Pickler {
        out: vec![0x80, 2],
        storages: Vec::new(),
    };
    pickler.value(value, 0)?;
    pickler.out.push(b'.');
    if pickler.out.len() > MAX_PICKLE {
        return Err(Problem::TooLarge(format!(
            "a pickle of {} bytes\nhint: put long lists of numbers into tensors",
            pickler.out.len()
        )));
    }

    let failed = |e: zip::result::ZipError| {
        Problem::Unsupported(format!("the archive cannot be built ({e})"))
    };
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    // no clock in the file: the default time of the format, 1980-01-01
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(zip::DateTime::default())
        .unix_permissions(0o644)
        .with_alignment(ALIGNMENT);
    let mut entry = |name: &str, data: &[u8]| -> Result<(), Problem> {
        zip.start_file(
            format!("{ROOT}/{name}"),
            options.large_file(data.len() > u32::MAX as usize),
        )
        .map_err(failed)?;
        Ok(zip.write_all(data)?)
    };
    entry("data.pkl", &pickler.out)?;
    entry("byteorder", b"little")?;
    for (i, tensor) in pickler.storages.iter().enumerate() {
        entry(&format!("data/{i}"), &tensor.data)?;
    }
    entry("version", b"3\n")?;
    Ok(zip.finish().map_err(failed)?.into_inner())
}

struct Pickler<'a> {
    out: Vec<u8>,
    storages: Vec<&'a Tensor>,
}

impl<'a> Pickler<'a> {
    fn value(&mut self, value: &'a Value, depth: usize) -> Result<(), Problem> {
        if depth > MAX_DEPTH {
            return Err(Problem::TooLarge(format!(
                "lists and dictionaries nested deeper than {MAX_DEPTH}"
            )));
        }
        match value {
            Value::None => self.out.push(b'N'),
            Value::Bool(b) => self.out.push(if *b { 0x88 } else { 0x89 }),
            Value::Int(i) => self.int(*i),
            Value::Float(f) => {
                self.out.push(b'G');
                self.out.extend(f.to_be_bytes());
            }
            Value::Str(s) => self.text(s)?,
            Value::Bytes(b) => {
                // what protocol 2 has for bytes: their latin-1 text, encoded on loading
                let text: String = b.iter().map(|&b| char::from(b)).collect();
                self.global("_codecs", "encode");
                self.text(&text)?;
                self.text("latin1")?;
                self.out.extend([0x86, b'R']);
            }
            Value::List(items) => {
                self.out.push(b']');
                if !items.is_empty() {
                    self.out.push(b'(');
                    for item in items {
                        self.value(item, depth + 1)?;
                    }
                    self.out.push(b'e');
                }
            }
            Value::Tuple(items) => {
                if items.len() > 3 {
                    self.out.push(b'(');
                }
                for item in items {
                    self.value(item, depth + 1)?;
                }
                self.end_tuple(items.len());
            }
            Value::Dict(pairs) => {
                self.out.push(b'}');
                if !pairs.is_empty() {
                    self.out.push(b'(');
                    for (k, v) in pairs {
                        self.value(k, depth + 1)?;
                        self.value(v, depth + 1)?;
                    }
                    self.out.push(b'u');
                }
            }
            Value::Tensor(t) => self.tensor(t)?,
        }
        Ok(())
    }

    fn int(&mut self, i: i64) {
        if let Ok(b) = u8::try_from(i) {
            self.out.extend([b'K', b]);
        } else if let Ok(h) = u16::try_from(i) {
            self.out.push(b'M');
            self.out.extend(h.to_le_bytes());
        } else if let Ok(w) = i32::try_from(i) {
            self.out.push(b'J');
            self.out.extend(w.to_le_bytes());
        } else {
            self.out.extend([0x8a, 8]);
            self.out.extend(i.to_le_bytes());
        }
    }

    fn text(&mut self, s: &str) -> Result<(), Problem> {
        let len = u32::try_from(s.len())
            .map_err(|_| Problem::TooLarge("a text of more than 4 GiB".into()))?;
        self.out.push(b'X');
        self.out.extend(len.to_le_bytes());
        self.out.extend(s.as_bytes());
        Ok(())
    }

    fn global(&mut self, module: &str, name: &str) {
        self.out.push(b'c');
        for part in [module, name] {
            self.out.extend(part.as_bytes());
            self.out.push(b'\n');
        }
    }

    /// Closes a tuple of `n` items; one of more than three was opened with a mark.
    fn end_tuple(&mut self, n: usize) {
        self.out.push(match n {
            0 => b')',
            1 => 0x85,
            2 => 0x86,
            3 => 0x87,
            _ => b't',
        });
    }

    fn sizes(&mut self, sizes: &[usize]) {
        if sizes.len() > 3 {
            self.out.push(b'(');
        }
        for &n in sizes {
            self.int(n as i64);
        }
        self.end_tuple(sizes.len());
    }

    /// `_rebuild_tensor_v2(storage, offset, shape, strides, requires_grad, OrderedDict())`
    fn tensor(&mut self, t: &'a Tensor) -> Result<(), Problem> {
        let elements = t.data.len() / t.dtype.size();
        if t.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)) != Some(elements)
            || !t.data.len().is_multiple_of(t.dtype.size())
        {
            return Err(Problem::Tensor(format!(
                "shape {:?} does not fit {} bytes of {}",
                t.shape,
                t.data.len(),
                t.dtype.name()
            )));
        }
        let mut strides = vec![1; t.shape.len()];
        for axis in (1..t.shape.len()).rev() {
            strides[axis - 1] = strides[axis] * t.shape[axis].max(1);
        }
        self.global("torch._utils", "_rebuild_tensor_v2");
        self.out.extend(b"((");
        self.text("storage")?;
        let storage = DType::STORAGES
            .iter()
            .find(|s| s.0 == t.dtype)
            .map_or("FloatStorage", |s| s.1);
        self.global("torch", storage);
        self.text(&self.storages.len().to_string())?;
        self.storages.push(t);
        self.text("cpu")?;
        self.int(elements as i64);
        self.out.extend(b"tQK\0");
        self.sizes(&t.shape);
        self.sizes(&strides);
        self.out.push(0x89);
        self.global("collections", "OrderedDict");
        self.out.extend(b")RtR");
        Ok(())
    }
}
