//! What a torch file holds: plain values and tensors.

use half::{bf16, f16};

use crate::weights;

/// Element type of a [`Tensor`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DType {
    /// 64-bit float.
    F64,
    /// 32-bit float.
    F32,
    /// IEEE half.
    F16,
    /// bfloat16.
    Bf16,
    /// 64-bit signed integer.
    I64,
    /// 32-bit signed integer.
    I32,
    /// 16-bit signed integer.
    I16,
    /// 8-bit signed integer.
    I8,
    /// 8-bit unsigned integer.
    U8,
    /// One byte, 0 or 1.
    Bool,
}

impl DType {
    /// All of them with the name of their storage class in module `torch`.
    pub(super) const STORAGES: [(Self, &'static str); 10] = [
        (Self::F64, "DoubleStorage"),
        (Self::F32, "FloatStorage"),
        (Self::F16, "HalfStorage"),
        (Self::Bf16, "BFloat16Storage"),
        (Self::I64, "LongStorage"),
        (Self::I32, "IntStorage"),
        (Self::I16, "ShortStorage"),
        (Self::I8, "CharStorage"),
        (Self::U8, "ByteStorage"),
        (Self::Bool, "BoolStorage"),
    ];

    /// Bytes per element.
    pub fn size(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::Bf16 | Self::I16 => 2,
            Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }

    /// The element type of weights it corresponds to; none for integers.
    pub fn float(self) -> Option<weights::DType> {
        match self {
            Self::F64 => Some(weights::DType::F64),
            Self::F32 => Some(weights::DType::F32),
            Self::F16 => Some(weights::DType::F16),
            Self::Bf16 => Some(weights::DType::Bf16),
            Self::I64 | Self::I32 | Self::I16 | Self::I8 | Self::U8 | Self::Bool => None,
        }
    }

    /// Its name in `PyTorch`, `float32`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F64 => "float64",
            Self::F32 => "float32",
            Self::F16 => "float16",
            Self::Bf16 => "bfloat16",
            Self::I64 => "int64",
            Self::I32 => "int32",
            Self::I16 => "int16",
            Self::I8 => "int8",
            Self::U8 => "uint8",
            Self::Bool => "bool",
        }
    }
}

/// A tensor in memory, row-major and contiguous.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// Element type.
    pub dtype: DType,
    /// Shape; empty for a scalar.
    pub shape: Vec<usize>,
    /// Elements, little-endian, `product(shape) · dtype.size()` bytes.
    pub data: Vec<u8>,
}

impl Tensor {
    /// A float tensor of `shape` from its row-major elements.
    ///
    /// # Panics
    /// When `elements` does not have as many elements as `shape` says.
    pub fn from_f32(shape: impl Into<Vec<usize>>, elements: &[f32]) -> Self {
        let shape = shape.into();
        assert_eq!(
            shape.iter().product::<usize>(),
            elements.len(),
            "elements of a tensor of shape {shape:?}"
        );
        Self {
            dtype: DType::F32,
            shape,
            data: elements.iter().flat_map(|x| x.to_le_bytes()).collect(),
        }
    }

    /// An integer tensor of `shape` from its row-major elements.
    ///
    /// # Panics
    /// When `elements` does not have as many elements as `shape` says.
    pub fn from_i64(shape: impl Into<Vec<usize>>, elements: &[i64]) -> Self {
        let shape = shape.into();
        assert_eq!(
            shape.iter().product::<usize>(),
            elements.len(),
            "elements of a tensor of shape {shape:?}"
        );
        Self {
            dtype: DType::I64,
            shape,
            data: elements.iter().flat_map(|x| x.to_le_bytes()).collect(),
        }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All elements as f64, row-major; exact but for 64-bit integers beyond 2⁵³.
    pub fn to_f64(&self) -> Vec<f64> {
        let d = &self.data;
        match self.dtype {
            DType::F64 => d
                .chunks_exact(8)
                .map(|c| f64::from_le_bytes(array(c)))
                .collect(),
            DType::F32 => d
                .chunks_exact(4)
                .map(|c| f64::from(f32::from_le_bytes(array(c))))
                .collect(),
            DType::F16 => d
                .chunks_exact(2)
                .map(|c| f16::from_le_bytes(array(c)).to_f64())
                .collect(),
            DType::Bf16 => d
                .chunks_exact(2)
                .map(|c| bf16::from_le_bytes(array(c)).to_f64())
                .collect(),
            DType::I64 => d
                .chunks_exact(8)
                .map(|c| i64::from_le_bytes(array(c)) as f64)
                .collect(),
            DType::I32 => d
                .chunks_exact(4)
                .map(|c| f64::from(i32::from_le_bytes(array(c))))
                .collect(),
            DType::I16 => d
                .chunks_exact(2)
                .map(|c| f64::from(i16::from_le_bytes(array(c))))
                .collect(),
            DType::I8 => d.iter().map(|&b| f64::from(b.cast_signed())).collect(),
            DType::U8 | DType::Bool => d.iter().map(|&b| f64::from(b)).collect(),
        }
    }

    /// All elements as f32, row-major, rounded to nearest where the type is wider.
    pub fn to_f32(&self) -> Vec<f32> {
        self.to_f64().into_iter().map(|x| x as f32).collect()
    }
}

/// The first `N` bytes of `chunk`, which has exactly as many.
fn array<const N: usize>(chunk: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(chunk);
    out
}

/// A value of a torch file. Dictionaries keep their order; an `OrderedDict` is a [`Value::Dict`].
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Python's `None`.
    None,
    /// `True`, `False`, `numpy.bool`.
    Bool(bool),
    /// An integer of up to 64 bits.
    Int(i64),
    /// A float, `numpy` ones included.
    Float(f64),
    /// Text.
    Str(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// A list.
    List(Vec<Value>),
    /// A tuple.
    Tuple(Vec<Value>),
    /// A dictionary, in the order of insertion.
    Dict(Vec<(Value, Value)>),
    /// A tensor or parameter.
    Tensor(Tensor),
}

impl Value {
    /// A dictionary with text keys, in the order given.
    pub fn dict<K: Into<String>>(entries: impl IntoIterator<Item = (K, Self)>) -> Self {
        Self::Dict(
            entries
                .into_iter()
                .map(|(k, v)| (Self::Str(k.into()), v))
                .collect(),
        )
    }

    /// A list of floats.
    pub fn floats(items: impl IntoIterator<Item = f64>) -> Self {
        Self::List(items.into_iter().map(Self::Float).collect())
    }

    /// The entry `key` of a dictionary; none where it has no such key or this is not a dictionary.
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.as_dict()?
            .iter()
            .find(|(k, _)| k.as_str() == Some(key))
            .map(|(_, v)| v)
    }

    /// The entries, if this is a dictionary.
    pub fn as_dict(&self) -> Option<&[(Self, Self)]> {
        if let Self::Dict(d) = self {
            Some(d)
        } else {
            None
        }
    }

    /// The items, if this is a list or a tuple.
    pub fn as_list(&self) -> Option<&[Self]> {
        if let Self::List(l) | Self::Tuple(l) = self {
            Some(l)
        } else {
            None
        }
    }

    /// The text, if this is one.
    pub fn as_str(&self) -> Option<&str> {
        if let Self::Str(s) = self {
            Some(s)
        } else {
            None
        }
    }

    /// The truth value, if this is one.
    pub fn as_bool(&self) -> Option<bool> {
        if let Self::Bool(b) = self {
            Some(*b)
        } else {
            None
        }
    }

    /// The integer, if this is one; a float that is a whole number counts.
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Self::Int(i) => Some(*i),
            // 2^53: beyond it a float no longer tells neighbouring integers apart
            Self::Float(f) if f.fract() == 0.0 && f.abs() <= 9_007_199_254_740_992.0 => {
                Some(*f as i64)
            }
            _ => None,
        }
    }

    /// The integer, if this is one and not negative.
    pub fn as_usize(&self) -> Option<usize> {
        usize::try_from(self.as_i64()?).ok()
    }

    /// The number, if this is a float or an integer.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Float(f) => Some(*f),
            Self::Int(i) => Some(*i as f64),
            _ => None,
        }
    }

    /// The tensor, if this is one.
    pub fn as_tensor(&self) -> Option<&Tensor> {
        if let Self::Tensor(t) = self {
            Some(t)
        } else {
            None
        }
    }

    /// The numbers of a list of floats and integers; none if this is not a list or holds anything else.
    pub fn to_f64s(&self) -> Option<Vec<f64>> {
        self.as_list()?.iter().map(Self::as_f64).collect()
    }

    /// What it is, in a word: `dictionary`, `float`, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Bool(_) => "truth value",
            Self::Int(_) => "integer",
            Self::Float(_) => "float",
            Self::Str(_) => "text",
            Self::Bytes(_) => "bytes",
            Self::List(_) => "list",
            Self::Tuple(_) => "tuple",
            Self::Dict(_) => "dictionary",
            Self::Tensor(_) => "tensor",
        }
    }
}

impl From<&str> for Value {
    fn from(s: &str) -> Self {
        Self::Str(s.to_owned())
    }
}

impl From<String> for Value {
    fn from(s: String) -> Self {
        Self::Str(s)
    }
}

impl From<bool> for Value {
    fn from(b: bool) -> Self {
        Self::Bool(b)
    }
}

impl From<i64> for Value {
    fn from(i: i64) -> Self {
        Self::Int(i)
    }
}

impl From<f64> for Value {
    fn from(f: f64) -> Self {
        Self::Float(f)
    }
}

impl From<Tensor> for Value {
    fn from(t: Tensor) -> Self {
        Self::Tensor(t)
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(o: Option<T>) -> Self {
        o.map_or(Self::None, Into::into)
    }
}
