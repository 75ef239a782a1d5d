//! Tensors of a file, and the weights of a vision transformer made of them.

use std::sync::Arc;

use flawtune_kernels::mapped::MappedFile;
use half::{bf16, f16};

/// Element type of a stored tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DType {
    /// 32-bit float.
    F32,
    /// IEEE half.
    F16,
    /// bfloat16.
    Bf16,
    /// 64-bit float.
    F64,
}

impl DType {
    /// Its name, `float16`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::F16 => "float16",
            Self::Bf16 => "bfloat16",
            Self::F64 => "float64",
        }
    }

    /// Bytes per element.
    pub fn size(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }
}

/// Bytes a tensor is read from.
#[derive(Debug, Clone)]
pub enum Storage {
    /// A memory-mapped file, shared by all its tensors.
    Mapped(Arc<MappedFile>),
    /// Bytes in memory.
    Owned(Arc<Vec<u8>>),
    /// Bytes of the program.
    Embedded(&'static [u8]),
}

impl Storage {
    /// All bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Mapped(m) => m.bytes(),
            Self::Owned(v) => v,
            Self::Embedded(bytes) => bytes,
        }
    }
}

/// A contiguous tensor of a file, still in the file's element type.
#[derive(Debug, Clone)]
pub struct StoredTensor {
    /// Where the bytes are.
    pub storage: Storage,
    /// First byte.
    pub offset: usize,
    /// Element type, little-endian.
    pub dtype: DType,
    /// Shape, row-major.
    pub shape: Vec<usize>,
}

impl StoredTensor {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Rows `start..start + rows` of the first axis; no bytes are copied.
    ///
    /// # Panics
    /// When the tensor has no axis or fewer rows.
    #[must_use]
    pub fn rows(&self, start: usize, rows: usize) -> Self {
        assert!(
            start + rows <= self.shape[0],
            "rows {start}..{} of shape {:?}",
            start + rows,
            self.shape
        );
        let row: usize = self.shape[1..].iter().product();
        let mut part = self.clone();
        part.offset += start * row * self.dtype.size();
        part.shape[0] = rows;
        part
    }

    /// Gives the memory of its bytes back to the system until they are read again, where they are mapped from a file.
    pub fn release(&self) {
        if let Storage::Mapped(file) = &self.storage {
            file.release(self.offset..self.offset + self.len() * self.dtype.size());
        }
    }

    /// Decodes elements `start..start + out.len()` into `out`.
    pub fn decode(&self, start: usize, out: &mut [f32]) {
        let size = self.dtype.size();
        let bytes = &self.storage.bytes()[self.offset + start * size..][..out.len() * size];
        match self.dtype {
            DType::F32 => {
                for (o, c) in out.iter_mut().zip(bytes.chunks_exact(4)) {
                    *o = f32::from_le_bytes([c[0], c[1], c[2], c[3]]);
                }
            }
            DType::F16 => {
                for (o, c) in out.iter_mut().zip(bytes.chunks_exact(2)) {
                    *o = f16::from_le_bytes([c[0], c[1]]).to_f32();
                }
            }
            DType::Bf16 => {
                for (o, c) in out.iter_mut().zip(bytes.chunks_exact(2)) {
                    *o = bf16::from_le_bytes([c[0], c[1]]).to_f32();
                }
            }
            DType::F64 => {
                for (o, c) in out.iter_mut().zip(bytes.chunks_exact(8)) {
                    *o =
                        f64::from_le_bytes([c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7]]) as f32;
                }
            }
        }
    }

    /// Whether no element is infinite or no number.
    pub fn is_finite(&self) -> bool {
        let size = self.dtype.size();
        let bytes = &self.storage.bytes()[self.offset..][..self.len() * size];
        // the exponent, in the two upper bytes of an element, is all ones
        let mask = match self.dtype {
            DType::F32 | DType::Bf16 => 0x7f80,
            DType::F16 => 0x7c00,
            DType::F64 => 0x7ff0,
        };
        bytes
            .chunks_exact(size)
            .all(|c| u16::from_le_bytes([c[size - 2], c[size - 1]]) & mask != mask)
    }

    /// All elements as f32.
    pub fn to_f32(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.len()];
        self.decode(0, &mut out);
        out
    }
}

/// A linear layer `y = x Wᵀ + b`; the weight may be stored in several files' tensors stacked along the outputs.
#[derive(Debug, Clone)]
pub struct Linear {
    /// Tensors `[out_i, in]`, stacked in this order (q, k, v where a file keeps them apart).
    pub weight: Vec<StoredTensor>,
    /// `[out]`; all zeros where the file has none.
    pub bias: Vec<f32>,
    /// Inputs.
    pub inputs: usize,
    /// Outputs, the sum over `weight`.
    pub outputs: usize,
}

impl Linear {
    /// The whole weight `[out, in]` as f32.
    pub fn weight_f32(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.outputs * self.inputs];
        let mut at = 0;
        for t in &self.weight {
            t.decode(0, &mut out[at..at + t.len()]);
            t.release();
            at += t.len();
        }
        out
    }
}

/// Gain and bias of a layer norm, `[dim]` each.
#[derive(Debug, Clone)]
pub struct Norm {
    /// Gain.
    pub weight: Vec<f32>,
    /// Bias.
    pub bias: Vec<f32>,
}

/// Feed-forward weights.
#[derive(Debug, Clone)]
pub enum FeedForwardWeights {
    /// Two linears around a GELU.
    Mlp {
        /// `[hidden, dim]`
        fc1: Linear,
        /// `[dim, hidden]`
        fc2: Linear,
    },
    /// Gated: `down(silu(gate(x)) * up(x))`.
    SwiGlu {
        /// `[hidden, dim]`, the activated one
        gate: Linear,
        /// `[hidden, dim]`
        up: Linear,
        /// `[dim, hidden]`
        down: Linear,
    },
}

/// The weights of one block.
#[derive(Debug, Clone)]
pub struct BlockWeights {
    /// Norm before attention.
    pub norm1: Norm,
    /// `[3·dim, dim]`, rows q, k, v.
    pub qkv: Linear,
    /// `[dim, dim]`
    pub proj: Linear,
    /// `LayerScale` after attention `[dim]`.
    pub scale1: Vec<f32>,
    /// Norm before the feed-forward part.
    pub norm2: Norm,
    /// Feed-forward part.
    pub feed_forward: FeedForwardWeights,
    /// `LayerScale` after it `[dim]`.
    pub scale2: Vec<f32>,
}

/// All weights of a vision transformer.
#[derive(Debug, Clone)]
pub struct VitWeights {
    /// Class token `[dim]`.
    pub cls: Vec<f32>,
    /// Register tokens `[registers, dim]`.
    pub registers: Vec<f32>,
    /// Patch embedding; inputs are `[3, patch, patch]` flattened.
    pub patch: Linear,
    /// Learned position table `[1 + grid², dim]`, DINOv2 only.
    pub positions: Option<Vec<f32>>,
    /// Blocks in order.
    pub blocks: Vec<BlockWeights>,
    /// Final norm.
    pub norm: Norm,
    /// BLAKE3 of the weight files' bytes in the order of their names, 64 hex digits: it depends on neither path nor
    /// thread count. The same weights in another file format or key scheme have another hash.
    pub content_hash: String,
}
