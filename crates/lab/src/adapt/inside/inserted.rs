//! Inserted tensors as a checkpoint keeps them.

use flawtune_backbone::torch_file::{Tensor, Value};
use flawtune_backbone::vjp::Insertions;

use super::InsideOptions;

/// Key of the dictionary that says what is inserted; the tensors lie beside it under their own names.
const OPTIONS: &str = "insertions";
/// Starts of the tensors' names.
const PREFIXES: [&str; 2] = ["vpt.", "adapters."];

/// The tensors that training put into the transformer, and how they were asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Inserted {
    /// What was asked for.
    pub options: InsideOptions,
    /// The tensors.
    pub tensors: Insertions,
}

impl Inserted {
    /// Whether a key of a checkpoint belongs to inserted tensors.
    pub(in crate::adapt) fn is_key(key: &str) -> bool {
        key == OPTIONS || PREFIXES.iter().any(|p| key.starts_with(p))
    }

    /// The keys of a checkpoint: a dictionary `insertions`, then each tensor under its name.
    pub(in crate::adapt) fn entries(&self) -> Vec<(String, Value)> {
        let spec = self.tensors.spec();
        let mut out = vec![(
            OPTIONS.to_owned(),
            self.options.to_value(spec.dim, spec.depth),
        )];
        out.extend(self.tensors.tensors().iter().map(|t| {
            (
                t.name.to_owned(),
                Value::Tensor(Tensor::from_f32(t.shape.clone(), &t.data)),
            )
        }));
        out
    }

    /// From a checkpoint; none if nothing was inserted. An error says which key is wrong.
    pub(in crate::adapt) fn from_value(value: &Value) -> Result<Option<Self>, String> {
        let Some(saved) = value.get(OPTIONS).filter(|v| !matches!(v, Value::None)) else {
            return Ok(None);
        };
        let (options, dim, depth) = InsideOptions::from_value(saved)
            .map_err(|key| format!("'{OPTIONS}.{key}' is missing or wrong"))?;
        let spec = options.spec_of(dim, depth);
        let mut named = Vec::new();
        // by the layout, so that a size read from the file reserves no memory before its tensor is seen
        for (name, shape) in spec.layout() {
            let t = value
                .get(name)
                .and_then(Value::as_tensor)
                .ok_or_else(|| format!("'{name}' is missing or no tensor"))?;
            if t.shape != shape {
                return Err(format!(
                    "'{name}' has shape {:?}, wanted {shape:?}",
                    t.shape
                ));
            }
            let data = t.to_f32();
            if data.iter().any(|v| !v.is_finite()) {
                return Err(format!("'{name}' has a value that is not finite"));
            }
            named.push((name, shape, data));
        }
        let tensors =
            Insertions::from_named(spec, named.iter().map(|(n, s, d)| (*n, &s[..], &d[..])))
                .map_err(|e| e.to_string())?;
        Ok(Some(Self { options, tensors }))
    }

    /// A hash of the tensors' names, shapes and values: equal only for equal insertions.
    pub fn hash(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        for t in self.tensors.tensors() {
            hasher.update(t.name.as_bytes());
            hasher.update(format!("{:?}", t.shape).as_bytes());
            t.data.iter().for_each(|v| {
                hasher.update(&v.to_le_bytes());
            });
        }
        hasher.finalize()
    }

    /// Names and sizes of the tensors.
    pub fn sizes(&self) -> Vec<(String, usize)> {
        self.tensors
            .tensors()
            .iter()
            .map(|t| (t.name.to_owned(), t.data.len()))
            .collect()
    }
}
