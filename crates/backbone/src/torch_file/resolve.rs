//! From the objects of a pickle to values and tensors.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use flawtune_kernels::mapped::MappedFile;

use super::archive::{Extent, Layout, check_crc};
use super::error::Problem;
use super::pickle::{Id, Node, View};
use super::value::{Tensor, Value};
use super::{Entry, StateDict};
use crate::weights::{Storage, StoredTensor};

/// Deepest nesting of lists and dictionaries.
const MAX_DEPTH: usize = 64;
/// Most values after shared objects are written out.
const MAX_VALUES: usize = 4 << 20;
/// Tensor and text bytes a file may expand to: this many times its size, views and shared objects included…
const MAX_GROWTH: usize = 16;
/// …plus this.
const FREE_BYTES: usize = 16 << 20;

/// What is left of the limits.
struct Budget {
    values: usize,
    bytes: usize,
}

impl Budget {
    fn new(file: &[u8]) -> Self {
        Self {
            values: MAX_VALUES,
            bytes: file
                .len()
                .saturating_mul(MAX_GROWTH)
                .saturating_add(FREE_BYTES),
        }
    }

    fn values(&mut self, n: usize) -> Result<(), Problem> {
        self.values = self.values.checked_sub(n).ok_or_else(|| {
            Problem::TooLarge(format!(
                "more than {MAX_VALUES} values once shared ones are written out"
            ))
        })?;
        Ok(())
    }

    fn bytes(&mut self, n: usize) -> Result<(), Problem> {
        self.bytes = self.bytes.checked_sub(n).ok_or_else(|| {
            Problem::TooLarge(format!(
                "its tensors expand to more than {MAX_GROWTH} times the size of the file"
            ))
        })?;
        Ok(())
    }
}

/// The whole file as a value, tensors copied out.
pub(super) fn value(file: &[u8], layout: &Layout) -> Result<Value, Problem> {
    let mut reader = Reader {
        file,
        layout,
        budget: Budget::new(file),
        checked: HashSet::new(),
    };
    reader.value(layout.objects.root, 0)
}

struct Reader<'a> {
    file: &'a [u8],
    layout: &'a Layout,
    budget: Budget,
    /// Storages whose checksum has been compared.
    checked: HashSet<Id>,
}

impl Reader<'_> {
    fn value(&mut self, id: Id, depth: usize) -> Result<Value, Problem> {
        if depth > MAX_DEPTH {
            return Err(Problem::TooLarge(format!(
                "lists and dictionaries nested deeper than {MAX_DEPTH}"
            )));
        }
        self.budget.values(1)?;
        Ok(match self.layout.objects.node(id) {
            Node::None => Value::None,
            Node::Bool(b) => Value::Bool(*b),
            Node::Int(i) => Value::Int(*i),
            Node::BigInt => return Err(Problem::Unsupported("an integer beyond 64 bits".into())),
            Node::Float(f) => Value::Float(*f),
            Node::Str(s) => {
                self.budget.bytes(s.len())?;
                Value::Str(s.clone())
            }
            Node::Bytes(b) => {
                self.budget.bytes(b.len())?;
                Value::Bytes(b.clone())
            }
            Node::List(items) => Value::List(self.items(items, depth)?),
            Node::Tuple(items) => Value::Tuple(self.items(items, depth)?),
            Node::Dict(pairs) => Value::Dict(self.pairs(pairs, depth)?),
            Node::View(view) => Value::Tensor(self.tensor(view)?),
            Node::Global(_) | Node::Storage { .. } | Node::NumpyDtype { .. } => {
                return Err(Problem::Unsupported(
                    "a class or a bare storage where a value should be".into(),
                ));
            }
        })
    }

    fn items(&mut self, items: &[Id], depth: usize) -> Result<Vec<Value>, Problem> {
        items.iter().map(|&i| self.value(i, depth + 1)).collect()
    }

    fn pairs(&mut self, pairs: &[(Id, Id)], depth: usize) -> Result<Vec<(Value, Value)>, Problem> {
        let mut out: Vec<(Value, Value)> = Vec::new();
        let mut places: HashMap<String, usize> = HashMap::new();
        for &(k, v) in pairs {
            let (key, value) = (self.value(k, depth + 1)?, self.value(v, depth + 1)?);
            if let Value::Str(text) = &key {
                // as in Python: a key set twice keeps its place and its last value
                if let Some(&place) = places.get(text) {
                    out[place].1 = value;
                    continue;
                }
                places.insert(text.clone(), out.len());
            }
            out.push((key, value));
        }
        Ok(out)
    }

    fn tensor(&mut self, view: &View) -> Result<Tensor, Problem> {
        let place = locate(self.layout, view)?;
        if self.checked.insert(view.key) {
            check_crc(self.file, place.extent, place.key)?;
        }
        self.budget
            .bytes(place.elements.saturating_mul(view.dtype.size()))?;
        let data = gather(&self.file[place.extent.range.clone()], view, &place);
        Ok(Tensor {
            dtype: view.dtype,
            shape: place.shape,
            data,
        })
    }
}

/// The tensors of a state dict, left in the mapped file where they are contiguous.
pub(super) fn state_dict(file: &Arc<MappedFile>, layout: &Layout) -> Result<StateDict, Problem> {
    let mut out = StateDict {
        tensors: Vec::new(),
        others: Vec::new(),
    };
    let mut walk = Walk {
        file,
        layout,
        budget: Budget::new(file.bytes()),
        out: &mut out,
    };
    match layout.objects.node(layout.objects.root) {
        Node::Dict(_) => walk.visit(layout.objects.root, String::new(), 0)?,
        _ => {
            return Err(Problem::Unsupported(
                "it holds no dictionary; for weights save the state_dict: torch.save(model.state_dict(), path)".into(),
            ));
        }
    }
    Ok(out)
}

struct Walk<'a> {
    file: &'a Arc<MappedFile>,
    layout: &'a Layout,
    budget: Budget,
    out: &'a mut StateDict,
}

impl Walk<'_> {
    fn visit(&mut self, id: Id, name: String, depth: usize) -> Result<(), Problem> {
        if depth > MAX_DEPTH {
            return Err(Problem::TooLarge(format!(
                "dictionaries nested deeper than {MAX_DEPTH}"
            )));
        }
        self.budget.values(1)?;
        self.budget.bytes(name.len())?;
        let objects = &self.layout.objects;
        let kind = match objects.node(id) {
            Node::Dict(pairs) => {
                for &(k, v) in pairs {
                    if let Node::Str(key) = objects.node(k) {
                        let full = if name.is_empty() {
                            key.clone()
                        } else {
                            format!("{name}.{key}")
                        };
                        self.visit(v, full, depth + 1)?;
                    }
                }
                return Ok(());
            }
            Node::View(view) => {
                if let Some(dtype) = view.dtype.float() {
                    let tensor = self.tensor(view, dtype)?;
                    self.out.tensors.push((name, tensor));
                    return Ok(());
                }
                let shape = view.shape.iter().map(|&n| n as usize).collect();
                self.out.others.push((
                    name,
                    Entry::IntegerTensor {
                        dtype: view.dtype,
                        shape,
                    },
                ));
                return Ok(());
            }
            Node::None => "None",
            Node::Bool(_) => "truth value",
            Node::Int(_) | Node::BigInt => "integer",
            Node::Float(_) => "float",
            Node::Str(_) => "text",
            Node::Bytes(_) => "bytes",
            Node::List(_) => "list",
            Node::Tuple(_) => "tuple",
            Node::Global(_) | Node::Storage { .. } | Node::NumpyDtype { .. } => "class",
        };
        self.out.others.push((name, Entry::Plain(kind)));
        Ok(())
    }

    fn tensor(
        &mut self,
        view: &View,
        dtype: crate::weights::DType,
    ) -> Result<StoredTensor, Problem> {
        let place = locate(self.layout, view)?;
        if place.contiguous {
            let offset = place.extent.range.start + place.first * dtype.size();
            return Ok(StoredTensor {
                storage: Storage::Mapped(Arc::clone(self.file)),
                offset,
                dtype,
                shape: place.shape,
            });
        }
        self.budget
            .bytes(place.elements.saturating_mul(dtype.size()))?;
        let data = gather(&self.file.bytes()[place.extent.range.clone()], view, &place);
        Ok(StoredTensor {
            storage: Storage::Owned(Arc::new(data)),
            offset: 0,
            dtype,
            shape: place.shape,
        })
    }
}

/// Where a view lies, checked against its storage.
struct Place<'a> {
    key: &'a str,
    extent: &'a Extent,
    /// First element.
    first: usize,
    shape: Vec<usize>,
    elements: usize,
    contiguous: bool,
}

fn locate<'a>(layout: &'a Layout, view: &View) -> Result<Place<'a>, Problem> {
    let Node::Str(key) = layout.objects.node(view.key) else {
        return Err(Problem::Tensor("its storage has no name".into()));
    };
    let extent = layout
        .storages
        .get(key)
        .ok_or_else(|| Problem::Damaged(format!("storage '{key}' is missing from the archive")))?;
    let Range { start, end } = extent.range;
    let stored = (end - start) as u64;
    if view.storage_len.checked_mul(view.dtype.size() as u64) != Some(stored) {
        return Err(Problem::Damaged(format!(
            "storage '{key}' has {stored} bytes, not {} {} elements",
            view.storage_len,
            view.dtype.name()
        )));
    }
    let outside = || {
        Problem::Tensor(format!(
            "shape {:?}, strides {:?}, offset {} reach outside storage '{key}' of {} elements",
            view.shape, view.strides, view.offset, view.storage_len
        ))
    };
    let (mut elements, mut last, mut dense, mut contiguous) = (1u64, view.offset, 1u64, true);
    for (&n, &stride) in view.shape.iter().zip(&view.strides).rev() {
        elements = elements.checked_mul(n).ok_or_else(outside)?;
        if n > 1 {
            contiguous &= stride == dense;
            last = stride
                .checked_mul(n - 1)
                .and_then(|d| last.checked_add(d))
                .ok_or_else(outside)?;
        }
        dense = dense.saturating_mul(n);
    }
    if elements > 0 && last >= view.storage_len {
        return Err(outside());
    }
    Ok(Place {
        key,
        extent,
        // an empty tensor may sit anywhere: nothing is read
        first: if elements == 0 {
            0
        } else {
            view.offset as usize
        },
        shape: view.shape.iter().map(|&n| n as usize).collect(),
        elements: usize::try_from(elements).map_err(|_| outside())?,
        contiguous,
    })
}

/// Copies the elements of `view` out of its storage, row-major.
fn gather(storage: &[u8], view: &View, place: &Place<'_>) -> Vec<u8> {
    let size = view.dtype.size();
    if place.contiguous {
        return storage[place.first * size..][..place.elements * size].to_vec();
    }
    let mut out = Vec::with_capacity(place.elements * size);
    let mut index = vec![0usize; place.shape.len()];
    let mut at = place.first;
    for _ in 0..place.elements {
        out.extend_from_slice(&storage[at * size..][..size]);
        for axis in (0..index.len()).rev() {
            index[axis] += 1;
            at += view.strides[axis] as usize;
            if index[axis] < place.shape[axis] {
                break;
            }
            at -= index[axis] * view.strides[axis] as usize;
            index[axis] = 0;
        }
    }
    out
}
