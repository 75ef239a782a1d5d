//! Tensors of the protocol, as JSON and as bytes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flawtune::Image;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::refusal::Refusal;

/// Largest number of pixels of an image that comes as pixels.
const PIXELS: usize = 1 << 28;

/// A request.
#[derive(Debug, Deserialize)]
pub(super) struct InferRequest {
    /// What the answer repeats.
    #[serde(default)]
    pub(super) id: Option<String>,
    inputs: Vec<Input>,
    #[serde(default)]
    outputs: Option<Vec<Asked>>,
    #[serde(default)]
    parameters: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
struct Input {
    name: String,
    datatype: String,
    shape: Vec<usize>,
    #[serde(default)]
    data: Option<Value>,
    #[serde(default)]
    parameters: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
struct Asked {
    name: String,
    #[serde(default)]
    parameters: Map<String, Value>,
}

/// An image that was given.
#[derive(Debug)]
pub(super) enum Given {
    /// As a file.
    File(Vec<u8>),
    /// As pixels.
    Pixels(Image),
}

/// The JSON and what comes after it, by the length that the header of a request names.
pub(super) fn split<'a>(
    body: &'a [u8],
    length: Option<&str>,
) -> Result<(&'a [u8], &'a [u8]), Refusal> {
    let Some(length) = length else {
        return Ok((body, &[]));
    };
    let length: Option<usize> = length.parse().ok();
    length
        .and_then(|length| body.split_at_checked(length))
        .ok_or_else(|| {
            Refusal::wrong(format!(
                "Inference-Header-Content-Length does not fit a body of {} bytes",
                body.len()
            ))
        })
}

impl InferRequest {
    /// The images, of which there are `most` at most.
    pub(super) fn images(&self, binary: &[u8], most: usize) -> Result<Vec<Given>, Refusal> {
        let [input] = self.inputs.as_slice() else {
            return Err(Refusal::wrong(format!(
                "{} inputs, wanted one: 'image'",
                self.inputs.len()
            )));
        };
        if input.name != "image" {
            return Err(Refusal::wrong(format!(
                "there is no input '{}', wanted 'image'",
                input.name
            )));
        }
        let size = input.parameters.get("binary_data_size");
        let bytes = match size.map(Value::as_u64) {
            None => None,
            Some(size) => Some(
                size.and_then(|size| binary.get(..usize::try_from(size).ok()?))
                    .ok_or_else(|| {
                        Refusal::wrong("'binary_data_size' is more than the body has")
                    })?,
            ),
        };
        let images = match input.datatype.as_str() {
            "BYTES" => input.files(bytes)?,
            "UINT8" => input.pixels(bytes)?,
            other => {
                return Err(Refusal::wrong(format!(
                    "'image' is {other}, wanted BYTES (image files) or UINT8 (pixels)"
                )));
            }
        };
        if images.is_empty() || images.len() > most {
            return Err(Refusal::wrong(format!(
                "{} images, wanted 1 to {most}",
                images.len()
            )));
        }
        Ok(images)
    }

    /// Whether an output is named.
    pub(super) fn wants(&self, name: &str) -> bool {
        let mut named = self.outputs.iter().flatten();
        named.any(|output| output.name == name)
    }

    /// Whether an output is to come as bytes.
    pub(super) fn wants_binary(&self, name: &str) -> bool {
        let truth = |map: &Map<String, Value>, key: &str| map.get(key).and_then(Value::as_bool);
        let mut named = self.outputs.iter().flatten();
        let own = named
            .find(|output| output.name == name)
            .and_then(|output| truth(&output.parameters, "binary_data"));
        own.or_else(|| truth(&self.parameters, "binary_data_output"))
            .unwrap_or(false)
    }

    /// The outputs that are named, or all.
    pub(super) fn chosen(&self, all: Vec<Output>) -> Result<Vec<Output>, Refusal> {
        let Some(named) = &self.outputs else {
            return Ok(all);
        };
        let known = |name: &str| all.iter().any(|output| output.name == name);
        if let Some(unknown) = named.iter().find(|output| !known(&output.name)) {
            return Err(
                Refusal::wrong(format!("there is no output '{}'", unknown.name))
                    .hint("score, probability, flaw, kind, drift, map"),
            );
        }
        Ok(all.into_iter().filter(|o| self.wants(o.name)).collect())
    }
}

impl Input {
    /// Image files: each after its length in the binary extension, in base64 otherwise.
    fn files(&self, binary: Option<&[u8]>) -> Result<Vec<Given>, Refusal> {
        let mut files = Vec::new();
        let Some(mut rest) = binary else {
            for text in self.flat()? {
                let text = text
                    .as_str()
                    .ok_or_else(|| Refusal::wrong("BYTES in JSON are texts, in base64"))?;
                let bytes = STANDARD
                    .decode(text)
                    .map_err(|e| Refusal::wrong(format!("an image is not base64: {e}")))?;
                files.push(Given::File(bytes));
            }
            return self.counted(files);
        };
        let cut = || Refusal::wrong("the bytes of 'image' end in the middle of an image");
        while !rest.is_empty() {
            let (length, more) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
            let length = u32::from_le_bytes(*length) as usize;
            let (file, more) = more.split_at_checked(length).ok_or_else(cut)?;
            files.push(Given::File(file.to_vec()));
            rest = more;
        }
        self.counted(files)
    }

    fn counted(&self, files: Vec<Given>) -> Result<Vec<Given>, Refusal> {
        let wanted = self.shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
        if wanted == Some(files.len()) {
            return Ok(files);
        }
        Err(Refusal::wrong(format!(
            "'image' has {} elements, but its shape is {:?}",
            files.len(),
            self.shape
        )))
    }

    /// Pixels.
    fn pixels(&self, binary: Option<&[u8]>) -> Result<Vec<Given>, Refusal> {
        let (n, height, width) = match *self.shape.as_slice() {
            [n, height, width, 3] => (n, height, width),
            [height, width, 3] => (1, height, width),
            _ => {
                return Err(Refusal::wrong(format!(
                    "UINT8 of shape {:?}, wanted [n, height, width, 3]",
                    self.shape
                )));
            }
        };
        let each = height
            .checked_mul(width)
            .filter(|p| (1..=PIXELS).contains(p));
        let each = each.and_then(|pixels| pixels.checked_mul(3));
        let all = each.and_then(|each| each.checked_mul(n));
        let read;
        let bytes = if let Some(bytes) = binary {
            bytes
        } else {
            let number = |v: &Value| v.as_u64().and_then(|v| u8::try_from(v).ok());
            let all: Option<Vec<u8>> = self.flat()?.into_iter().map(number).collect();
            read = all.ok_or_else(|| Refusal::wrong("UINT8 are numbers from 0 to 255"))?;
            &read
        };
        let Some(each) = each.filter(|_| all == Some(bytes.len())) else {
            return Err(Refusal::wrong(format!(
                "'image' has {} numbers, but its shape is {:?}",
                bytes.len(),
                self.shape
            )));
        };
        let image = |pixels: &[u8]| Given::Pixels(Image::from_pixels(height, width, pixels.into()));
        Ok(bytes.chunks_exact(each).map(image).collect())
    }

    /// The data, however it is nested.
    fn flat(&self) -> Result<Vec<&Value>, Refusal> {
        let data = self
            .data
            .as_ref()
            .ok_or_else(|| Refusal::wrong("'image' has neither 'data' nor 'binary_data_size'"))?;
        let mut flat = Vec::new();
        let mut open = vec![data];
        while let Some(value) = open.pop() {
            match value {
                Value::Array(values) => open.extend(values.iter().rev()),
                value => flat.push(value),
            }
        }
        Ok(flat)
    }
}

/// A tensor of the answer.
#[derive(Debug)]
pub(super) struct Output {
    /// Its name.
    pub(super) name: &'static str,
    datatype: &'static str,
    shape: Vec<usize>,
    data: Value,
    bytes: Vec<u8>,
}

impl Output {
    pub(super) fn new(
        name: &'static str,
        datatype: &'static str,
        shape: Vec<usize>,
        data: Value,
        bytes: Vec<u8>,
    ) -> Self {
        Self {
            name,
            datatype,
            shape,
            data,
            bytes,
        }
    }

    /// As JSON; its bytes go to `binary` where they are wanted so.
    pub(super) fn json(mut self, as_bytes: bool, binary: &mut Vec<u8>) -> Value {
        let mut tensor = json!({"name": self.name, "datatype": self.datatype, "shape": self.shape});
        if as_bytes {
            tensor["parameters"] = json!({"binary_data_size": self.bytes.len()});
            binary.append(&mut self.bytes);
        } else {
            tensor["data"] = self.data;
        }
        tensor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(value: Value) -> InferRequest {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn images_come_as_files_and_as_pixels() {
        let text = request(json!({"inputs": [
            {"name": "image", "datatype": "BYTES", "shape": [2], "data": ["QUI=", "Qw=="]}
        ]}));
        let files = text.images(&[], 8).unwrap();
        assert!(matches!(&files[..], [Given::File(a), Given::File(b)] if a == b"AB" && b == b"C"));
        let binary = request(json!({"inputs": [
            {"name": "image", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": 11}}
        ]}));
        let bytes = b"\x02\0\0\0AB\x01\0\0\0Cmore";
        let files = binary.images(bytes, 8).unwrap();
        assert!(matches!(&files[..], [Given::File(a), Given::File(b)] if a == b"AB" && b == b"C"));
        let pixels = request(json!({"inputs": [
            {"name": "image", "datatype": "UINT8", "shape": [1, 1, 2, 3], "data": [[[[1, 2, 3], [4, 5, 6]]]]}
        ]}));
        let images = pixels.images(&[], 8).unwrap();
        assert!(matches!(&images[..], [Given::Pixels(i)] if i.pixels() == [1, 2, 3, 4, 5, 6]));
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        for input in [
            json!({"name": "image", "datatype": "BYTES", "shape": [3], "data": ["QUI="]}),
            json!({"name": "image", "datatype": "BYTES", "shape": [1], "data": ["?"]}),
            json!({"name": "image", "datatype": "BYTES", "shape": [1]}),
            json!({"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 99}}),
            json!({"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 6}}),
            json!({"name": "image", "datatype": "UINT8", "shape": [1, 2, 2, 3], "data": [1]}),
            json!({"name": "image", "datatype": "UINT8", "shape": [0, 0, 2, 3], "data": []}),
            json!({"name": "image", "datatype": "UINT8", "shape": [usize::MAX, 4, 4, 3], "data": [1]}),
            json!({"name": "image", "datatype": "UINT8", "shape": [1, 1, 3], "data": [1, 2, 300]}),
            json!({"name": "image", "datatype": "FP32", "shape": [1], "data": [1.0]}),
            json!({"name": "other", "datatype": "BYTES", "shape": [1], "data": ["QUI="]}),
        ] {
            let request = request(json!({ "inputs": [input] }));
            assert!(request.images(b"\xff\xff\0\0AB", 8).is_err(), "{request:?}");
        }
        assert!(split(b"abc", Some("4")).is_err());
        assert!(split(b"abc", Some("-1")).is_err());
        assert_eq!(split(b"abc", Some("1")).unwrap(), (&b"a"[..], &b"bc"[..]));
    }
}
