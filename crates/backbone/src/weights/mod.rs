//! The weights of a vision transformer, in one canonical form whatever file they came from.
//!
//! [`load`] reads safetensors (one file, or shards with their index) and the `.pth`/`.pt` files of `PyTorch`, in the
//! key schemes of the Hugging Face hub, of timm and of the models' authors. It tells them apart by their keys; names
//! of files do not matter. Big matrices stay in the mapped file until the forward pass packs them.

mod assemble;
mod describe;
mod error;
mod infer;
mod keys;
mod load;
mod random;
mod source;
mod tensors;

pub use describe::{Description, Kind, describe};
pub use error::{Mismatch, ShapeDifference, WeightsError};
pub use keys::Scheme;
pub use load::{Loaded, load, load_embedded};
pub use random::random;
pub(crate) use source::shards;
pub use tensors::{
    BlockWeights, DType, FeedForwardWeights, Linear, Norm, Storage, StoredTensor, VitWeights,
};
