//! Linear layers on bytes: activations become bytes token by token, products are summed in whole numbers.
//!
//! A token `x` is kept as `offset + scale · byte` with `offset` its smallest and `scale` a 255th of its range, so a
//! product with a row of weights `w = row_scale · weight_byte` is
//! `row_scale · (scale · Σ byte·weight_byte + offset · Σ weight_byte)`: one exact sum of whole numbers, and a correction
//! that is known when the weights are packed.

use std::ops::Range;

use super::linear::{Epilogue, Gated, Gelu, Residual, WriteBack, with_vectors4};
use super::norm::mean;
use super::weight::{Bytes, PackedLinear, Weight};
use crate::dispatch::Isa;
use crate::kernels::Kernels;
use crate::lanes::{Lanes, Panel};
use crate::simd::Simd;
use crate::simd::dot::{Dot, Portable};
use crate::tile::{Target, with_vectors};

/// The byte kernels beside the f32 kernels of an instruction set. All variants give the same bits.
pub(crate) struct ByteKernels {
    /// What runs, for messages.
    pub(crate) name: &'static str,
    /// Features of a word, see [`Dot::GROUP`].
    pub(crate) group: usize,
    /// Makes bytes of a panel, see [`Quantise`].
    pub(crate) quantise: unsafe fn(Quantise<'_>),
    /// Tiles of a linear layer, see [`ByteLinear`].
    pub(crate) linear: unsafe fn(ByteLinear<'_>),
}

impl Kernels {
    /// The fastest byte kernels that this machine has beside these f32 kernels.
    pub(crate) fn bytes(&self) -> &'static ByteKernels {
        self.all_bytes().next().unwrap_or(&SCALAR)
    }

    /// Every variant of the byte kernels that this machine has beside these f32 kernels, fastest first.
    pub(crate) fn all_bytes(&self) -> impl Iterator<Item = &'static ByteKernels> {
        let variants: [Option<&'static ByteKernels>; 3] = match self.isa {
            Isa::Scalar => [Some(&SCALAR), None, None],
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => [Some(&PAIRS256), Some(&PORTABLE_AVX2), None],
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => {
                let wide = std::arch::is_x86_feature_detected!("avx512bw");
                let vnni = wide && std::arch::is_x86_feature_detected!("avx512vnni");
                [
                    vnni.then_some(&VNNI),
                    wide.then_some(&PAIRS512),
                    Some(&PORTABLE_AVX512),
                ]
            }
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => {
                let sdot = std::arch::is_aarch64_feature_detected!("dotprod");
                [sdot.then_some(&SDOT), Some(&PORTABLE_NEON), None]
            }
            #[allow(unreachable_patterns)]
            _ => [None, None, None],
        };
        variants.into_iter().flatten()
    }
}

/// Compiles the byte kernels of `$dot` with tiles of `$m` rows under the given attributes.
macro_rules! table {
    ($table:ident, $module:ident, $name:literal, $dot:ty, $m:literal, $(#[$attr:meta])*) => {
        mod $module {
            #[allow(clippy::wildcard_imports)]
            use super::*;
            $(#[$attr])*
            pub(super) unsafe fn quantise(args: Quantise<'_>) {
                // SAFETY: the caller's contract is that of the generic kernel.
                unsafe { super::quantise::<$dot, $m>(args) }
            }
            $(#[$attr])*
            pub(super) unsafe fn linear(args: ByteLinear<'_>) {
                // SAFETY: as above.
                unsafe { super::linear::<$dot, $m>(args) }
            }
        }
        static $table: ByteKernels = ByteKernels {
            name: $name,
            group: <$dot as Dot>::GROUP,
            quantise: $module::quantise,
            linear: $module::linear,
        };
    };
}

table!(
    SCALAR,
    scalar,
    "portable",
    Portable<crate::simd::scalar::Scalar>,
    4,
);
#[cfg(target_arch = "x86_64")]
table!(
    PORTABLE_AVX2, portable_avx2, "portable beside AVX2", Portable<crate::simd::avx2::Avx2>, 4,
    #[target_feature(enable = "avx2,fma")]
);
#[cfg(target_arch = "x86_64")]
table!(
    PAIRS256, pairs256, "AVX2 (16-bit pairs)", crate::simd::dot_x86::Pairs256, 4,
    #[target_feature(enable = "avx2,fma")]
);
#[cfg(target_arch = "x86_64")]
table!(
    PORTABLE_AVX512, portable_avx512, "portable beside AVX-512", Portable<crate::simd::avx512::Avx512>, 8,
    #[target_feature(enable = "avx512f")]
);
#[cfg(target_arch = "x86_64")]
table!(
    PAIRS512, pairs512, "AVX-512 BW (16-bit pairs)", crate::simd::dot_x86::Pairs512, 8,
    #[target_feature(enable = "avx512f,avx512bw")]
);
#[cfg(target_arch = "x86_64")]
table!(
    VNNI, vnni, "AVX-512 VNNI", crate::simd::dot_x86::Vnni, 8,
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
);
#[cfg(target_arch = "aarch64")]
table!(
    PORTABLE_NEON, portable_neon, "portable beside NEON", Portable<crate::simd::neon::Neon>, 8,
    #[target_feature(enable = "neon")]
);
#[cfg(target_arch = "aarch64")]
table!(
    SDOT, sdot, "NEON dot product", crate::simd::dot_neon::Sdot, 8,
    #[target_feature(enable = "neon,dotprod")]
);

/// One panel of tokens to be made bytes.
pub(crate) struct Quantise<'a> {
    /// `[features][vectors·LANES]`
    pub(crate) x: *const f32,
    pub(crate) features: usize,
    pub(crate) vectors: usize,
    /// Epsilon of the layer norm that the tokens go through first.
    pub(crate) norm: Option<f32>,
    /// What each feature is multiplied by, `[features]`; empty for 1.
    pub(crate) balance: &'a [f32],
    /// Words `[⌈features/GROUP⌉][vectors·LANES]`; missing features of the last are 0.
    pub(crate) words: *mut u32,
    /// A 255th of every token's range, `[vectors·LANES]`.
    pub(crate) scale: *mut f32,
    /// Every token's smallest feature, `[vectors·LANES]`.
    pub(crate) offset: *mut f32,
}

/// Runs a [`Quantise`].
///
/// # Safety
/// `D` must be available, all buffers as long as [`Quantise`] says, the outputs not touched by other threads.
#[inline(always)]
unsafe fn quantise<D: Dot, const M: usize>(q: Quantise<'_>) {
    // SAFETY: passed on from the caller.
    unsafe { with_vectors!(q.vectors, quantise_panel::<D, M>(&q)) }
}

/// Adding 1.5 · 2^23 leaves a number up to 255, rounded to nearest even, in the low byte.
const ROUND: f32 = 12_582_912.0;
/// Keeps the range of a constant token above zero.
const LEAST_RANGE: f32 = 1e-30;

#[inline(always)]
unsafe fn quantise_panel<D: Dot, const M: usize, const NV: usize>(q: &Quantise<'_>) {
    let width = NV * D::S::LANES;
    let balance = |f: usize| {
        if q.balance.is_empty() {
            1.0
        } else {
            q.balance[f]
        }
    };
    // SAFETY: `quantise`'s contract.
    unsafe {
        let zero = [D::S::splat(0.0); NV];
        let mean = if q.norm.is_some() {
            mean::<D::S, NV>(q.x, q.features)
        } else {
            zero
        };
        // the range is that of the balanced, centred token; the norm's factor is positive and comes in at the end
        let mut low = [D::S::splat(f32::INFINITY); NV];
        let mut high = [D::S::splat(f32::NEG_INFINITY); NV];
        let value = |f: usize, v: usize| {
            let x = D::S::load(q.x.add(f * width + v * D::S::LANES));
            D::S::mul(D::S::sub(x, mean[v]), D::S::splat(balance(f)))
        };
        let mut factor = [D::S::splat(1.0); NV];
        if let Some(eps) = q.norm {
            // two partial sums per lane, so that additions do not wait for each other
            let (mut even, mut odd) = (zero, zero);
            for f in (0..q.features / 2 * 2).step_by(2) {
                look::<D::S, NV>(
                    q.x.add(f * width),
                    balance(f),
                    &mean,
                    &mut even,
                    &mut low,
                    &mut high,
                );
                let (x, balance) = (q.x.add((f + 1) * width), balance(f + 1));
                look::<D::S, NV>(x, balance, &mean, &mut odd, &mut low, &mut high);
            }
            if q.features % 2 == 1 {
                let (x, balance) = (q.x.add((q.features - 1) * width), balance(q.features - 1));
                look::<D::S, NV>(x, balance, &mean, &mut even, &mut low, &mut high);
            }
            let count = D::S::splat(q.features as f32);
            for v in 0..NV {
                let variance = D::S::div(D::S::add(even[v], odd[v]), count);
                let deviation = D::S::sqrt(D::S::add(variance, D::S::splat(eps)));
                factor[v] = D::S::div(D::S::splat(1.0), deviation);
            }
        } else {
            for f in 0..q.features {
                for v in 0..NV {
                    let x = value(f, v);
                    low[v] = D::S::min(x, low[v]);
                    high[v] = D::S::max(x, high[v]);
                }
            }
        }
        let mut inverse = zero;
        for v in 0..NV {
            let range = D::S::max(D::S::sub(high[v], low[v]), D::S::splat(LEAST_RANGE));
            inverse[v] = D::S::div(D::S::splat(255.0), range);
            let scale = D::S::mul(D::S::mul(range, D::S::splat(1.0 / 255.0)), factor[v]);
            D::S::store(q.scale.add(v * D::S::LANES), scale);
            D::S::store(q.offset.add(v * D::S::LANES), D::S::mul(low[v], factor[v]));
        }
        for (g, first) in (0..q.features).step_by(D::GROUP).enumerate() {
            for v in 0..NV {
                let mut bytes = [D::S::splat(ROUND); 4];
                for (i, byte) in bytes
                    .iter_mut()
                    .enumerate()
                    .take(D::GROUP.min(q.features - first))
                {
                    *byte = D::S::fma(D::S::sub(value(first + i, v), low[v]), inverse[v], *byte);
                }
                D::store(q.words.add(g * width + v * D::S::LANES), D::join(bytes));
            }
        }
    }
}

/// Takes one feature of every lane into the sum of squares, and its balanced value into the range.
///
/// # Safety
/// `S` must be available and `x` valid for `NV · LANES` numbers.
#[inline(always)]
unsafe fn look<S: Simd, const NV: usize>(
    x: *const f32,
    balance: f32,
    mean: &[S::V; NV],
    squares: &mut [S::V; NV],
    low: &mut [S::V; NV],
    high: &mut [S::V; NV],
) {
    // SAFETY: passed on from the caller.
    unsafe {
        let balance = S::splat(balance);
        for v in 0..NV {
            let centred = S::sub(S::load(x.add(v * S::LANES)), mean[v]);
            squares[v] = S::fma(centred, centred, squares[v]);
            let x = S::mul(centred, balance);
            low[v] = S::min(x, low[v]);
            high[v] = S::max(x, high[v]);
        }
    }
}

/// Some tiles of a byte layer applied to some panels.
pub(crate) struct ByteLinear<'a> {
    pub(crate) layer: &'a PackedLinear,
    pub(crate) tiles: Range<usize>,
    pub(crate) lanes: Lanes,
    pub(crate) panels: Range<usize>,
    /// Words of the tokens, panels of `⌈inputs/GROUP⌉` words.
    pub(crate) words: *const u32,
    /// Scale of every token.
    pub(crate) scale: *const f32,
    /// Offset of every token.
    pub(crate) offset: *const f32,
    pub(crate) epilogue: Epilogue,
}

/// Runs a [`ByteLinear`].
///
/// # Safety
/// `D` must be available and `M` the rows of its f32 tiles; the layer must hold bytes in words of `D::GROUP`; the
/// buffers must have the sizes their layout says for `lanes`, and no other thread may touch the outputs of these tiles
/// and panels.
#[inline(always)]
unsafe fn linear<D: Dot, const M: usize>(args: ByteLinear<'_>) {
    let Weight::Bytes(bytes) = &args.layer.weight else {
        return;
    };
    // SAFETY: passed on from the caller.
    unsafe {
        match args.epilogue {
            Epilogue::Residual(to) => panels::<D, M, _>(&args, bytes, Residual(to)),
            Epilogue::Gelu(to) => panels::<D, M, _>(&args, bytes, Gelu(to)),
            Epilogue::Gated(to) => panels::<D, M, _>(&args, bytes, Gated(to)),
            Epilogue::Heads(to) => panels::<D, M, _>(&args, bytes, to),
        }
    }
}

#[inline(always)]
unsafe fn panels<D: Dot, const M: usize, W: WriteBack>(
    args: &ByteLinear<'_>,
    bytes: &Bytes,
    write: W,
) {
    for p in args.panels.clone() {
        let panel = args.lanes.panel(p);
        // SAFETY: passed on from the caller.
        unsafe {
            with_vectors4!(
                panel.vectors,
                panel_tiles::<D, M, W>(args, bytes, panel, &write)
            );
        }
    }
}

#[inline(always)]
unsafe fn panel_tiles<D: Dot, const M: usize, const NV: usize, W: WriteBack>(
    args: &ByteLinear<'_>,
    bytes: &Bytes,
    panel: Panel,
    write: &W,
) {
    let groups = bytes.groups;
    let bias = &args.layer.bias;
    // SAFETY: `linear`'s contract.
    unsafe {
        let b = args.words.add(args.lanes.offset(panel, groups));
        let first = panel.first * args.lanes.width;
        let mut scale = [D::S::splat(0.0); NV];
        let mut offset = scale;
        for v in 0..NV {
            scale[v] = D::S::load(args.scale.add(first + v * D::S::LANES));
            offset[v] = D::S::load(args.offset.add(first + v * D::S::LANES));
        }
        for t in args.tiles.clone() {
            let sums = byte_tile::<D, M, NV>(
                groups,
                bytes.words.as_ptr().add(t * groups * M),
                b,
                bytes.sums.as_ptr().add(t * M),
                write.target::<D::S, M, NV>(args.lanes, panel, t),
            );
            let mut acc = [[D::S::splat(0.0); NV]; M];
            for r in 0..M {
                let row = t * M + r;
                let row_scale = D::S::splat(bytes.scales[row]);
                let row_sum = D::S::splat(bytes.scaled_sums[row]);
                let row_bias = D::S::splat(bias[row]);
                for v in 0..NV {
                    let base = D::S::fma(offset[v], row_sum, row_bias);
                    let product = D::S::mul(D::to_float(sums[r][v]), row_scale);
                    acc[r][v] = D::S::fma(product, scale[v], base);
                }
            }
            write.tile::<D::S, M, NV>(args.lanes, panel, t, &acc);
        }
    }
}

/// `Σ_g Σ_i a[g][r].i · b[g][v].i`, exactly; the lines of `out`, where the result goes, are fetched meanwhile.
///
/// # Safety
/// `D` must be available; `a` valid for `groups · M` words, `b` for `groups · NV · LANES`, `sums` for `M`.
#[inline(always)]
unsafe fn byte_tile<D: Dot, const M: usize, const NV: usize>(
    groups: usize,
    a: *const u32,
    b: *const u32,
    sums: *const i32,
    out: Target,
) -> [[D::W; NV]; M] {
    // SAFETY: passed on from the caller; the parts lie side by side in the panel.
    unsafe {
        if NV <= D::AT_ONCE {
            return byte_part::<D, M, NV>(groups, a, b, NV * D::S::LANES, sums, out);
        }
        let mut acc = [[D::splat(0); NV]; M];
        let mut out = out;
        for first in (0..NV).step_by(2) {
            let b = b.add(first * D::S::LANES);
            let stride = NV * D::S::LANES;
            if first + 1 < NV {
                let part = byte_part::<D, M, 2>(groups, a, b, stride, sums, out);
                for r in 0..M {
                    acc[r][first] = part[r][0];
                    acc[r][first + 1] = part[r][1];
                }
            } else {
                let part = byte_part::<D, M, 1>(groups, a, b, stride, sums, out);
                for r in 0..M {
                    acc[r][first] = part[r][0];
                }
            }
            // once is enough
            out.lines = 0;
        }
        acc
    }
}

/// As [`byte_tile`], for `NV` vectors of a panel whose groups lie `stride` words apart.
///
/// # Safety
/// As [`byte_tile`].
#[inline(always)]
unsafe fn byte_part<D: Dot, const M: usize, const NV: usize>(
    groups: usize,
    a: *const u32,
    b: *const u32,
    stride: usize,
    sums: *const i32,
    out: Target,
) -> [[D::W; NV]; M] {
    // SAFETY: passed on from the caller.
    unsafe {
        let mut acc = [[D::splat(0); NV]; M];
        if D::OFFSET != 0 {
            for (r, row) in acc.iter_mut().enumerate() {
                *row = [D::splat(D::OFFSET * *sums.add(r)); NV];
            }
        }
        let fetching = groups.min(out.lines);
        for g in 0..fetching {
            D::S::prefetch_near(out.line::<M>(g));
            byte_step::<D, M, NV>(&mut acc, a.add(g * M), b.add(g * stride));
        }
        for g in fetching..groups {
            byte_step::<D, M, NV>(&mut acc, a.add(g * M), b.add(g * stride));
        }
        acc
    }
}

/// One group of features: `NV` loads, `M` broadcasts, `M · NV` dot products.
///
/// # Safety
/// As [`byte_part`], for one group.
#[inline(always)]
unsafe fn byte_step<D: Dot, const M: usize, const NV: usize>(
    acc: &mut [[D::W; NV]; M],
    a: *const u32,
    b: *const u32,
) {
    // SAFETY: the caller vouches for `M` words at `a` and `NV` vectors at `b`.
    unsafe {
        let mut column = [D::splat(0); NV];
        for (v, c) in column.iter_mut().enumerate() {
            *c = D::load(b.add(v * D::S::LANES));
        }
        for (r, row) in acc.iter_mut().enumerate() {
            for (sum, c) in row.iter_mut().zip(&column) {
                *sum = D::dot(*sum, *c, a.add(r));
            }
        }
    }
}

#[cfg(test)]
mod tests;
