//! The names a pickle may use. None is imported: each is a tag that the machine knows how to apply.

use super::value::DType;

/// What `torch`, `numpy` and Python names stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Global {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    Storage(DType),
    Size,
    NumpyScalar,
    NumpyDtype,
    Encode,
    Bytes,
}

impl Global {
    /// The one of this module and name; none means foreign.
    pub(super) fn find(module: &str, name: &str) -> Option<Self> {
        Some(match (module, name) {
            ("collections", "OrderedDict") => Self::OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2") => Self::RebuildTensor,
            ("torch._utils", "_rebuild_parameter") => Self::RebuildParameter,
            ("torch", "Size") => Self::Size,
            ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar") => Self::NumpyScalar,
            ("numpy", "dtype") => Self::NumpyDtype,
            ("_codecs", "encode") => Self::Encode,
            ("__builtin__" | "builtins", "bytes") => Self::Bytes,
            ("torch", storage) => Self::Storage(DType::STORAGES.iter().find(|s| s.1 == storage)?.0),
            _ => return None,
        })
    }
}
