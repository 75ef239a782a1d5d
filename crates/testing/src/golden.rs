//! Reference vectors, from the folder that `FLAWTUNE_GOLDEN` names, by default the one of the repository. Every size comes
//! from the files, so that another set of the same layout runs unchanged.

use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};

/// A file or folder of the reference vectors.
pub fn golden(name: impl AsRef<Path>) -> PathBuf {
    std::env::var_os("FLAWTUNE_GOLDEN")
        .map_or_else(
            || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../golden")),
            PathBuf::from,
        )
        .join(name)
}

/// A JSON file of the reference vectors.
///
/// # Panics
/// There is none of that name.
pub fn golden_json(name: &str) -> serde_json::Value {
    let path = golden(name);
    let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_slice(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A safetensors file of numbers.
#[derive(Debug)]
pub struct Golden(Vec<u8>);

impl Golden {
    /// A file of the reference vectors.
    ///
    /// # Panics
    /// There is none of that name.
    pub fn open(name: impl AsRef<Path>) -> Self {
        let path = golden(name);
        Self(std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
    }

    /// Its tensors as they are stored.
    ///
    /// # Panics
    /// It is not a safetensors file.
    pub fn tensors(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.0).expect("a safetensors file")
    }

    /// Names of its tensors.
    pub fn names(&self) -> Vec<String> {
        let tensors = self.tensors();
        tensors.names().into_iter().map(str::to_owned).collect()
    }

    /// Whether it has a tensor of that name.
    pub fn has(&self, name: &str) -> bool {
        self.tensors().tensor(name).is_ok()
    }

    /// Shape and values of a tensor of F64, F32 or I64.
    ///
    /// # Panics
    /// There is none, or it holds something else.
    pub fn f64s(&self, name: &str) -> (Vec<usize>, Vec<f64>) {
        let file = self.tensors();
        let t = file.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
        let values = match t.dtype() {
            Dtype::F64 => words(t.data(), f64::from_le_bytes).collect(),
            Dtype::F32 => words(t.data(), f32::from_le_bytes).map(f64::from).collect(),
            Dtype::I64 => words(t.data(), i64::from_le_bytes)
                .map(|v| v as f64)
                .collect(),
            other => panic!("{name}: {other:?}"),
        };
        (t.shape().to_vec(), values)
    }

    /// As [`Self::f64s`], rounded.
    ///
    /// # Panics
    /// As there.
    pub fn f32s(&self, name: &str) -> (Vec<usize>, Vec<f32>) {
        let (shape, values) = self.f64s(name);
        (shape, values.into_iter().map(|v| v as f32).collect())
    }

    /// The first value of a tensor.
    ///
    /// # Panics
    /// As [`Self::f64s`].
    pub fn number(&self, name: &str) -> f64 {
        self.f64s(name).1[0]
    }
}

fn words<const N: usize, T>(bytes: &[u8], read: fn([u8; N]) -> T) -> impl Iterator<Item = T> + '_
where
    T: 'static,
{
    bytes.as_chunks::<N>().0.iter().map(move |word| read(*word))
}
