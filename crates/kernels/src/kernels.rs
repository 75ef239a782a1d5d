//! The table of kernels of each instruction set: every generic kernel, compiled once per set.

use crate::dispatch::Isa;
use crate::encoder::{self, Attention, Columns, Linear, Norm};
use crate::matching::{self, Both, Products, Pulls, Search};
use crate::matmul::{self, Block};
use crate::pointwise::{self, Pointwise};
use crate::prepacked::{self, Product};

/// The kernels of one instruction set.
///
/// Calling one is sound only where the set is present, which `dispatch` checks before it hands a table out.
pub(crate) struct Kernels {
    /// Which set.
    pub(crate) isa: Isa,
    /// f32 lanes of a vector.
    pub(crate) lanes: usize,
    /// Rows of a register tile.
    pub(crate) rows: usize,
    /// Rows of a product, see [`Block`].
    pub(crate) matmul: unsafe fn(Block<'_>),
    /// Rows of a serial product, see [`Product`].
    pub(crate) product: unsafe fn(Product<'_>),
    /// Activation functions and their gradients, see [`Pointwise`].
    pub(crate) pointwise: unsafe fn(Pointwise<'_>),
    /// Maxima of a panel, see [`Search`].
    pub(crate) search: unsafe fn(Search<'_>),
    /// Maxima both ways, see [`Both`].
    pub(crate) both: unsafe fn(Both<'_>),
    /// Chosen dot products, see [`Products`].
    pub(crate) products: unsafe fn(Products<'_>),
    /// Sums of weighted patches, see [`Pulls`].
    pub(crate) pulls: unsafe fn(Pulls<'_>),
    /// Tiles of a linear layer, see [`Linear`].
    pub(crate) linear: unsafe fn(Linear<'_>),
    /// Layer norm of a panel, see [`Norm`].
    pub(crate) norm: unsafe fn(Norm),
    /// Attention of a panel of queries, see [`Attention`].
    pub(crate) attention: unsafe fn(Attention),
    /// Tokens as rows, see [`Columns`].
    pub(crate) read_columns: unsafe fn(Columns<'_>),
    /// Register-only multiply-adds, see [`peak`](crate::peak).
    pub(crate) fma_loop: unsafe fn(usize) -> f32,
    /// The register tile alone, see [`peak`](crate::peak).
    pub(crate) tile_loop: unsafe fn(usize, usize, &[f32], &[f32]) -> f32,
    /// An elementary function on whole vectors.
    #[cfg(test)]
    pub(crate) map: unsafe fn(crate::math::Function, &mut [f32]),
}

impl std::fmt::Debug for Kernels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Kernels({})", self.isa)
    }
}

/// Compiles all kernels for `$simd` with tiles of `$m` rows under the given attributes.
macro_rules! table {
    ($(#[$doc:meta])* $table:ident, $module:ident, $isa:expr, $simd:ty, $m:literal, $h:literal, $(#[$attr:meta])*) => {
        mod $module {
            #[allow(clippy::wildcard_imports)]
            use super::*;
            // SAFETY of each: the caller's contract is that of the generic kernel.
            $(#[$attr])*
            pub(super) unsafe fn matmul(args: Block<'_>) {
                // SAFETY: see above.
                unsafe { matmul::matmul_block::<$simd, $m>(args) }
            }
            $(#[$attr])*
            pub(super) unsafe fn product(args: Product<'_>) {
                // SAFETY: see above.
                unsafe { prepacked::product::<$simd, $m>(args) }
            }
            $(#[$attr])*
            pub(super) unsafe fn pointwise(args: Pointwise<'_>) {
                // SAFETY: see above.
                unsafe { pointwise::pointwise::<$simd>(args) }
            }
            $(#[$attr])*
            pub(super) unsafe fn search(args: Search<'_>) {
                // SAFETY: see above.
                unsafe { matching::search::<$simd, $m, $h>(args) }
            }
            $(#[$attr])*
            pub(super) unsafe fn both(args: Both<'_>) {
                // SAFETY: see above.
                unsafe { matching::both::<$simd, $m, $h>(args) }
            }
            $(#[$attr])*
            pub(super) unsafe fn products(args: Products<'_>) {
                matching::products(args);
            }
            $(#[$attr])*
            pub(super) unsafe fn pulls(args: Pulls<'_>) {
                matching::add_rows(args);
            }
            $(#[$attr])*
            pub(super) unsafe fn linear(args: Linear<'_>) {
                // SAFETY: see above.
                unsafe { encoder::linear::<$simd, $m>(args) }
            }
            $(#[$attr])*
            pub(super) unsafe fn norm(args: Norm) {
                // SAFETY: see above.
                unsafe { encoder::norm::<$simd, $m>(args) }
            }
            $(#[$attr])*
            pub(super) unsafe fn attention(args: Attention) {
                // SAFETY: see above.
                unsafe { encoder::attention::<$simd, $m>(args) }
            }
            $(#[$attr])*
            pub(super) unsafe fn read_columns(args: Columns<'_>) {
                // SAFETY: see above.
                unsafe { encoder::read_columns(args) }
            }
            $(#[$attr])*
            pub(super) unsafe fn fma_loop(turns: usize) -> f32 {
                // SAFETY: see above.
                unsafe { crate::peak::fma_loop::<$simd>(turns) }
            }
            $(#[$attr])*
            pub(super) unsafe fn tile_loop(turns: usize, k: usize, a: &[f32], b: &[f32]) -> f32 {
                // SAFETY: see above.
                unsafe { crate::peak::tile_loop::<$simd, $m>(turns, k, a, b) }
            }
            #[cfg(test)]
            $(#[$attr])*
            pub(super) unsafe fn map(f: crate::math::Function, values: &mut [f32]) {
                // SAFETY: see above.
                unsafe { crate::math::map::<$simd>(f, values) }
            }
        }
        $(#[$doc])*
        pub(crate) static $table: Kernels = Kernels {
            isa: $isa,
            lanes: <$simd as crate::simd::Simd>::LANES,
            rows: <$simd as crate::simd::Simd>::ROWS,
            matmul: $module::matmul,
            product: $module::product,
            pointwise: $module::pointwise,
            search: $module::search,
            both: $module::both,
            products: $module::products,
            pulls: $module::pulls,
            linear: $module::linear,
            norm: $module::norm,
            attention: $module::attention,
            read_columns: $module::read_columns,
            fma_loop: $module::fma_loop,
            tile_loop: $module::tile_loop,
            #[cfg(test)]
            map: $module::map,
        };
    };
}

table!(
    /// Portable.
    SCALAR, scalar, Isa::Scalar, crate::simd::scalar::Scalar, 4, 2,
);
#[cfg(target_arch = "x86_64")]
table!(
    /// AVX2 and FMA.
    AVX2, avx2, Isa::Avx2, crate::simd::avx2::Avx2, 4, 2, #[target_feature(enable = "avx2,fma")]
);
#[cfg(target_arch = "x86_64")]
table!(
    /// AVX-512 F.
    AVX512, avx512, Isa::Avx512, crate::simd::avx512::Avx512, 8, 4, #[target_feature(enable = "avx512f")]
);
#[cfg(target_arch = "aarch64")]
table!(
    /// NEON.
    NEON, neon, Isa::Neon, crate::simd::neon::Neon, 8, 4, #[target_feature(enable = "neon")]
);
