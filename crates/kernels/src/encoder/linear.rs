//! Linear layers on panels, each with its epilogue fused into the write-back of the register tile.

use std::ops::Range;

use crate::encoder::pointer::Pointer;
use crate::encoder::weight::{Halves, PackedLinear, Weight};
use crate::lanes::{Lanes, Panel};
use crate::math;
use crate::simd::Simd;
use crate::tile::{Ahead, Target, tile_ahead};

/// Some tiles of a linear layer applied to some panels.
pub(crate) struct Linear<'a> {
    pub(crate) layer: &'a PackedLinear,
    pub(crate) tiles: Range<usize>,
    pub(crate) lanes: Lanes,
    pub(crate) panels: Range<usize>,
    /// Packed input with `layer.inputs` features.
    pub(crate) input: *const f32,
    /// Scratch of `rows · layer.inputs` numbers, for weights that have to be widened.
    pub(crate) widened: *mut f32,
    pub(crate) epilogue: Epilogue,
}

/// What happens to a product before it is written.
#[derive(Clone, Copy)]
pub(crate) enum Epilogue {
    /// `out += product + bias`
    Residual(Rows),
    /// `out = gelu(product + bias)`
    Gelu(Rows),
    /// `out = silu(gate) · up`; a tile holds half gate rows, half up rows.
    Gated(Rows),
    /// Queries, keys and values, see [`Heads`].
    Heads(Heads),
}

/// A packed output of `features` features.
#[derive(Clone, Copy)]
pub(crate) struct Rows {
    pub(crate) out: Pointer,
    pub(crate) features: usize,
}

/// Where queries, keys and values of all heads go. Row tiles come in the order q, k, v, head by head.
#[derive(Clone, Copy)]
pub(crate) struct Heads {
    /// Packed queries: panels of `heads · rotary_dim` features.
    pub(crate) q: Pointer,
    /// Keys as left operand: `[head][key/rows][rotary_dim][rows]`.
    pub(crate) k: Pointer,
    /// Values as left operand: `[head][dim/rows][key][rows]`.
    pub(crate) v: Pointer,
    /// Cosines, packed with `rotary_dim / 2` features, and sines; null for no rotation.
    pub(crate) cos: Pointer,
    pub(crate) sin: Pointer,
    pub(crate) heads: usize,
    /// Padded width of a head of q and k.
    pub(crate) rotary_dim: usize,
    /// Keys with padding.
    pub(crate) keys: usize,
}

/// As `with_vectors!` with a write-back.
macro_rules! with_vectors4 {
    ($vectors:expr, $f:ident :: <$S:ty, $M:tt, $W:ty> ( $($arg:expr),* )) => {
        match $vectors {
            1 => $f::<$S, $M, 1, $W>($($arg),*),
            2 => $f::<$S, $M, 2, $W>($($arg),*),
            _ => $f::<$S, $M, 3, $W>($($arg),*),
        }
    };
}
pub(super) use with_vectors4;

/// Runs a [`Linear`].
///
/// # Safety
/// `S` must be available and `M = S::ROWS`; the buffers must have the sizes their layout says for `lanes`, and
/// no other thread may touch the outputs of these tiles and panels.
#[inline(always)]
pub(crate) unsafe fn linear<S: Simd, const M: usize>(args: Linear<'_>) {
    // SAFETY: passed on from the caller.
    unsafe {
        match args.epilogue {
            Epilogue::Residual(to) => panels::<S, M, _>(&args, Residual(to)),
            Epilogue::Gelu(to) => panels::<S, M, _>(&args, Gelu(to)),
            Epilogue::Gated(to) => panels::<S, M, _>(&args, Gated(to)),
            Epilogue::Heads(to) => panels::<S, M, _>(&args, to),
        }
    }
}

#[inline(always)]
unsafe fn panels<S: Simd, const M: usize, W: WriteBack>(args: &Linear<'_>, write: W) {
    if let Weight::Halves(halves) = &args.layer.weight {
        // SAFETY: passed on from the caller.
        return unsafe { widened_tiles::<S, M, W>(args, halves, &write) };
    }
    for p in args.panels.clone() {
        let panel = args.lanes.panel(p);
        // SAFETY: passed on from the caller.
        unsafe { with_vectors4!(panel.vectors, panel_tiles::<S, M, W>(args, panel, &write)) }
    }
}

#[inline(always)]
unsafe fn panel_tiles<S: Simd, const M: usize, const NV: usize, W: WriteBack>(
    args: &Linear<'_>,
    panel: Panel,
    write: &W,
) {
    let inputs = args.layer.inputs;
    let Weight::F32(weight) = &args.layer.weight else {
        return;
    };
    let weight = weight.as_ptr();
    // after the last panel comes the next task, most likely on the tiles after these
    let last = args.lanes.panel(args.panels.end - 1) == panel;
    // SAFETY: `linear`'s contract.
    unsafe {
        let b = args.input.add(args.lanes.offset(panel, inputs));
        for t in args.tiles.clone() {
            let next = if t + 1 < args.tiles.end || last {
                (t + 1) % args.layer.tiles
            } else {
                args.tiles.start
            };
            let out = write.target::<S, M, NV>(args.lanes, panel, t);
            let ahead = Ahead {
                rows: weight.wrapping_add(next * M * inputs),
                out,
            };
            let mut acc =
                tile_ahead::<S, M, NV>(inputs, weight.add(t * M * inputs), b, NV * S::LANES, ahead);
            add_bias::<S, M, NV>(&args.layer.bias[t * M..], &mut acc);
            write.tile::<S, M, NV>(args.lanes, panel, t, &acc);
        }
    }
}

/// Tiles of weights of 16-bit numbers: each is widened into scratch memory, where it stays near for all panels.
///
/// # Safety
/// As [`linear`].
#[inline(always)]
unsafe fn widened_tiles<S: Simd, const M: usize, W: WriteBack>(
    args: &Linear<'_>,
    halves: &Halves,
    write: &W,
) {
    // SAFETY: `linear`'s contract.
    let widened = unsafe { std::slice::from_raw_parts_mut(args.widened, args.layer.inputs * M) };
    for t in args.tiles.clone() {
        halves.widen(t, widened);
        for p in args.panels.clone() {
            let panel = args.lanes.panel(p);
            let powers = &halves.powers[t * M..];
            // SAFETY: as above.
            unsafe {
                with_vectors4!(
                    panel.vectors,
                    widened_tile::<S, M, W>(args, widened, powers, panel, t, write)
                );
            }
        }
    }
}

#[inline(always)]
unsafe fn widened_tile<S: Simd, const M: usize, const NV: usize, W: WriteBack>(
    args: &Linear<'_>,
    widened: &[f32],
    powers: &[f32],
    panel: Panel,
    t: usize,
    write: &W,
) {
    let inputs = args.layer.inputs;
    // SAFETY: `linear`'s contract.
    unsafe {
        let b = args.input.add(args.lanes.offset(panel, inputs));
        let out = write.target::<S, M, NV>(args.lanes, panel, t);
        let ahead = Ahead {
            rows: widened.as_ptr(),
            out,
        };
        let mut acc = tile_ahead::<S, M, NV>(inputs, widened.as_ptr(), b, NV * S::LANES, ahead);
        for (row, &power) in acc.iter_mut().zip(powers) {
            for x in row {
                *x = S::mul(*x, S::splat(power));
            }
        }
        add_bias::<S, M, NV>(&args.layer.bias[t * M..], &mut acc);
        write.tile::<S, M, NV>(args.lanes, panel, t, &acc);
    }
}

/// Adds the bias of every row.
///
/// # Safety
/// `S` must be available.
#[inline(always)]
unsafe fn add_bias<S: Simd, const M: usize, const NV: usize>(
    bias: &[f32],
    acc: &mut [[S::V; NV]; M],
) {
    for (row, &bias) in acc.iter_mut().zip(bias) {
        for x in row {
            // SAFETY: the caller vouches for the instruction set.
            *x = unsafe { S::add(*x, S::splat(bias)) };
        }
    }
}

/// Writes one tile (bias already added) where it belongs.
pub(super) trait WriteBack {
    /// Where [`Self::tile`] will write.
    fn target<S: Simd, const M: usize, const NV: usize>(
        &self,
        lanes: Lanes,
        panel: Panel,
        t: usize,
    ) -> Target;
    /// # Safety
    /// As [`linear`].
    unsafe fn tile<S: Simd, const M: usize, const NV: usize>(
        &self,
        lanes: Lanes,
        panel: Panel,
        t: usize,
        acc: &[[S::V; NV]; M],
    );
}

impl Rows {
    /// Row `row` of a panel.
    ///
    /// # Safety
    /// The row must exist in the buffer.
    #[inline(always)]
    unsafe fn at(&self, lanes: Lanes, panel: Panel, row: usize) -> *mut f32 {
        // SAFETY: the caller vouches for it.
        unsafe {
            self.out
                .get()
                .add(lanes.offset(panel, self.features) + row * panel.vectors * lanes.width)
        }
    }

    /// `rows` rows from `row` on.
    #[inline(always)]
    fn target<const M: usize>(
        &self,
        lanes: Lanes,
        panel: Panel,
        row: usize,
        rows: usize,
    ) -> Target {
        let width = panel.vectors * lanes.width;
        let start = self
            .out
            .get()
            .wrapping_add(lanes.offset(panel, self.features) + row * width);
        Target::dense::<M>(start, rows * width)
    }
}

/// See [`Epilogue::Residual`].
pub(super) struct Residual(pub(super) Rows);

impl WriteBack for Residual {
    #[inline(always)]
    fn target<S: Simd, const M: usize, const NV: usize>(
        &self,
        lanes: Lanes,
        panel: Panel,
        t: usize,
    ) -> Target {
        self.0.target::<M>(lanes, panel, t * M, M)
    }

    #[inline(always)]
    unsafe fn tile<S: Simd, const M: usize, const NV: usize>(
        &self,
        lanes: Lanes,
        panel: Panel,
        t: usize,
        acc: &[[S::V; NV]; M],
    ) {
        // SAFETY: rows past `features` are weight padding and not written; the rest is `linear`'s contract.
        unsafe {
            let out = self.0.at(lanes, panel, t * M);
            for (r, row) in acc.iter().enumerate() {
                if t * M + r < self.0.features {
                    for (v, &x) in row.iter().enumerate() {
                        let p = out.add((r * NV + v) * S::LANES);
                        S::store(p, S::add(S::load(p), x));
                    }
                }
            }
        }
    }
}

/// See [`Epilogue::Gelu`].
pub(super) struct Gelu(pub(super) Rows);

impl WriteBack for Gelu {
    #[inline(always)]
    fn target<S: Simd, const M: usize, const NV: usize>(
        &self,
        lanes: Lanes,
        panel: Panel,
        t: usize,
    ) -> Target {
        self.0.target::<M>(lanes, panel, t * M, M)
    }

    #[inline(always)]
    unsafe fn tile<S: Simd, const M: usize, const NV: usize>(
        &self,
        lanes: Lanes,
        panel: Panel,
        t: usize,
        acc: &[[S::V; NV]; M],
    ) {
        // SAFETY: as `Residual`.
        unsafe {
            let out = self.0.at(lanes, panel, t * M);
            for (r, row) in acc.iter().enumerate() {
                if t * M + r < self.0.features {
                    for (v, &x) in row.iter().enumerate() {
                        S::store(out.add((r * NV + v) * S::LANES), math::gelu::<S>(x));
                    }
                }
            }
        }
    }
}

/// See [`Epilogue::Gated`].
pub(super) struct Gated(pub(super) Rows);

impl WriteBack for Gated {
    #[inline(always)]
    fn target<S: Simd, const M: usize, const NV: usize>(
        &self,
        lanes: Lanes,
        panel: Panel,
        t: usize,
    ) -> Target {
        self.0.target::<M>(lanes, panel, t * M / 2, M / 2)
    }

    #[inline(always)]
    unsafe fn tile<S: Simd, const M: usize, const NV: usize>(
        &self,
        lanes: Lanes,
        panel: Panel,
        t: usize,
        acc: &[[S::V; NV]; M],
    ) {
        // SAFETY: as `Residual`.
        unsafe {
            let out = self.0.at(lanes, panel, t * M / 2);
            for r in 0..M / 2 {
                if t * M / 2 + r < self.0.features {
                    for v in 0..NV {
                        let x = S::mul(math::silu::<S>(acc[r][v]), acc[r + M / 2][v]);
                        S::store(out.add((r * NV + v) * S::LANES), x);
                    }
                }
            }
        }
    }
}

/// What a tile of [`Heads`] belongs to.
#[derive(Clone, Copy)]
enum Part {
    Query,
    Key,
    Value,
}

impl Heads {
    /// What tile `t` belongs to, and which tile of that it is.
    #[inline(always)]
    fn part<const M: usize>(&self, t: usize) -> (Part, usize) {
        let each = self.heads * self.rotary_dim / M;
        match t / each {
            0 => (Part::Query, t),
            1 => (Part::Key, t - each),
            _ => (Part::Value, t - 2 * each),
        }
    }
}

impl WriteBack for Heads {
    #[inline(always)]
    fn target<S: Simd, const M: usize, const NV: usize>(
        &self,
        lanes: Lanes,
        panel: Panel,
        t: usize,
    ) -> Target {
        let numbers = M * NV * S::LANES;
        let first_lane = panel.first * lanes.width;
        match self.part::<M>(t) {
            (Part::Query, t) => {
                let at = lanes.offset(panel, self.heads * self.rotary_dim) + t * numbers;
                Target::dense::<M>(self.q.get().wrapping_add(at), numbers)
            }
            (Part::Key, t) => {
                let per_head = self.rotary_dim / M;
                let row = t / per_head * self.keys * self.rotary_dim + t % per_head * M * M;
                let start = self
                    .k
                    .get()
                    .wrapping_add(row + first_lane * self.rotary_dim);
                Target {
                    stride: self.rotary_dim * M,
                    ..Target::dense::<M>(start, numbers)
                }
            }
            (Part::Value, t) => {
                let at = (t * self.keys + first_lane) * M;
                Target::dense::<M>(self.v.get().wrapping_add(at), numbers)
            }
        }
    }

    #[inline(always)]
    unsafe fn tile<S: Simd, const M: usize, const NV: usize>(
        &self,
        lanes: Lanes,
        panel: Panel,
        t: usize,
        acc: &[[S::V; NV]; M],
    ) {
        let per_head = self.rotary_dim / M;
        let first_lane = panel.first * lanes.width;
        let (part, t) = self.part::<M>(t);
        // SAFETY: `linear`'s contract; the tile number decides the head and the rows inside it.
        unsafe {
            if matches!(part, Part::Value) {
                for v in 0..NV {
                    let mut rows = [S::splat(0.0); M];
                    for r in 0..M {
                        rows[r] = acc[r][v];
                    }
                    let key = first_lane + v * S::LANES;
                    S::store_transposed(self.v.get().add((t * self.keys + key) * M), &rows);
                }
                return;
            }
            // where row `r` of vector `v` of this tile goes, as query or as key
            let is_key = matches!(part, Part::Key);
            let store = |r: usize, v: usize, x: S::V| {
                if is_key {
                    let (head, d) = (t / per_head, t % per_head * M);
                    let base = self
                        .k
                        .get()
                        .add(head * self.keys * self.rotary_dim + (d + r) * M);
                    S::store_grouped(base, first_lane + v * S::LANES, self.rotary_dim * M, x);
                } else {
                    let features = self.heads * self.rotary_dim;
                    let q = self
                        .q
                        .get()
                        .add(lanes.offset(panel, features) + t * M * NV * S::LANES);
                    S::store(q.add((r * NV + v) * S::LANES), x);
                }
            };
            if self.cos.get().is_null() {
                for (r, row) in acc.iter().enumerate() {
                    for (v, &x) in row.iter().enumerate() {
                        store(r, v, x);
                    }
                }
                return;
            }
            let row = t % per_head * (M / 2);
            let at = lanes.offset(panel, self.rotary_dim / 2) + row * NV * S::LANES;
            let (cos, sin) = (self.cos.get().add(at), self.sin.get().add(at));
            for r in 0..M / 2 {
                for v in 0..NV {
                    let c = S::load(cos.add((r * NV + v) * S::LANES));
                    let s = S::load(sin.add((r * NV + v) * S::LANES));
                    // see `Shape::rotary_source`
                    let (first, second) = (r / 2 * 4 + r % 2, r / 2 * 4 + r % 2 + 2);
                    let (x, y) = (acc[first][v], acc[second][v]);
                    store(first, v, S::fnma(y, s, S::mul(x, c)));
                    store(second, v, S::fma(x, s, S::mul(y, c)));
                }
            }
        }
    }
}
