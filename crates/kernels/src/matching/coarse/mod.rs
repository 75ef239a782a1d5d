//! Exact matching by a coarse pass in integers that re-checks the contenders only.
//!
//! A matching needs, for each patch, the largest of many products; nearly all of them are far from being it. So products are
//! computed first with digits of eight bits, four times as fast as in f32, and with a bound on how far each is off. Only patches
//! whose coarse product comes within the bounds of the largest are multiplied again, as the plain search multiplies them.
//! What is found is the same to the last bit.
//!
//! # The digits
//! All patches of a kind of image point nearly the same way (their mean has a norm of 0.9 to 0.98 on DINOv2 features), and what
//! tells them apart is what is left after the mean is taken away. With any common vector `m`, the [`Frame`]'s centre,
//!
//! `a·b = (a − m)·(b − m) + m·a + m·b − m·m`
//!
//! and the last three terms are exact sums of one number a patch. Eight features at a time (those 16 apart) are then mixed by an
//! orthogonal matrix, so that no feature is much larger than the others; that changes no product. Each patch is rounded to
//! whole multiples of its largest feature / 127.
//!
//! # The bound
//! Write `y = √8·H(a − m)` for what is rounded, `ŷ` for its digits times their scale, `r ≥ ‖y − ŷ‖` and `n ≥ ‖ŷ‖`. Then
//! `|y_a·y_b − ŷ_a·ŷ_b| ≤ r_a·n_b + n_a·r_b + r_a·r_b ≤ N_a·(r_b(1 + ρ_A) + ρ_A·n_b)` with `N_a = max(n_a, 16·r_a)` and `ρ_A` the
//! largest `r_a / N_a` of an image: one product of a number for each lane with one for each row.
//!
//! With `u = 2⁻²⁴`: taking away the centre and three stages of sums, each rounded once, move `y` by at most `((1 + u)⁴ − 1)·‖y‖`,
//! which is added to `r`. The coarse product, its offsets and its bound are put together in five f32 steps, off by at most `4u`
//! times each of their sizes. The plain f32 product is off by at most `γ_D·‖a‖‖b‖`, `γ_n = n·u/(1 − n·u)`. Both are taken for the
//! largest patches of an image and added to every comparison ([`margin`]). Patches whose norm lies outside [`NORMS`], where
//! numbers could overflow or vanish, are matched by the plain path.
//!
//! Contenders are first multiplied in f32 in the fastest order, whose error bound is smaller still, and only those that are left
//! (nearly always one) in the order of the plain path.

mod contest;
mod digits;
mod sweep;

use std::ops::RangeInclusive;
use std::sync::Arc;

pub(super) use contest::{Contest, Room, Winners};

use super::PackedPatches;
use crate::buffer::Buffer;
use crate::kernels::Kernels;
use crate::lanes::Lanes;
use digits::{Digits, GROUP};
use sweep::{Chosen, Contender, Passes};

/// Norms of patches that are not zero.
const NORMS: RangeInclusive<f32> = 1e-6..=1e6;
/// Images of fewer patches than this are compared as they are.
const WORTHWHILE: usize = 16;
/// Patches that a centre is the mean of, at most.
const SAMPLES: usize = 4096;
/// Unit roundoff of f32.
const U: f64 = 1.0 / (1 << 24) as f64;

/// What patches have in common that are to be compared coarsely first, see [`PackedPatches::sketch`].
///
/// Any frame gives the same matches; one whose centre is the mean of the patches gives them fastest.
#[derive(Debug)]
pub struct Frame {
    centre: Vec<f32>,
    /// `m·m / 2`.
    half_square: f64,
    passes: &'static Passes,
}

/// One image's patches in digits, and as they are.
#[derive(Debug, Clone)]
pub(super) struct Sketch {
    frame: Arc<Frame>,
    /// As given, `[patches, dim]`.
    pub(super) rows: Buffer,
    digits: Digits,
}

impl Frame {
    /// Around the mean of some rows (`[patches, dim]`, several thousand of them are looked at). None if a coarse pass is not
    /// worth it: on this machine, for so few features, or for these numbers.
    pub fn around(rows: &[f32], dim: usize) -> Option<Arc<Self>> {
        Self::around_with(crate::dispatch::active(), rows, dim)
    }

    pub(super) fn around_with(kernels: &Kernels, rows: &[f32], dim: usize) -> Option<Arc<Self>> {
        let passes = Passes::of(kernels.isa)?;
        if dim == 0 || !dim.is_multiple_of(GROUP) || dim > 8192 {
            return None;
        }
        let count = rows.len() / dim;
        let step = count.div_ceil(SAMPLES).max(1);
        let mut sums = vec![0.0f64; dim];
        for row in rows.chunks_exact(dim).step_by(step) {
            sums.iter_mut()
                .zip(row)
                .for_each(|(s, &x)| *s += f64::from(x));
        }
        let samples = count.div_ceil(step).max(1) as f64;
        let centre: Vec<f32> = sums.iter().map(|s| (s / samples) as f32).collect();
        let square: f64 = centre.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
        (square <= 1e12).then(|| {
            Arc::new(Self {
                centre,
                half_square: 0.5 * square,
                passes,
            })
        })
    }

    /// Around the patches of some images. None if a coarse pass is not worth it for them.
    pub fn around_images(images: &[PackedPatches]) -> Option<Arc<Self>> {
        let first = images.first()?;
        let worth = Passes::of(first.kernels.isa).is_some() && first.dim.is_multiple_of(GROUP);
        if !worth
            || images
                .iter()
                .any(|i| i.dim != first.dim || i.patches() < WORTHWHILE)
        {
            return None;
        }
        let count: usize = images.iter().map(PackedPatches::patches).sum();
        let step = count.div_ceil(SAMPLES).max(1);
        let mut rows = Vec::new();
        for image in images {
            (0..image.patches())
                .step_by(step)
                .for_each(|p| image.copy_row(p, &mut rows));
        }
        Self::around_with(first.kernels, &rows, first.dim)
    }

    /// Numbers per patch.
    pub fn dim(&self) -> usize {
        self.centre.len()
    }
}

impl Sketch {
    fn empty(frame: &Arc<Frame>) -> Self {
        Self {
            frame: Arc::clone(frame),
            rows: Buffer::default(),
            digits: Digits::default(),
        }
    }

    /// Whether both are in one frame.
    pub(super) fn comparable(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.frame, &other.frame)
    }

    /// Takes in other rows. False if they can't be bounded: the sketch is no use then.
    fn fill(&mut self, rows: &[f32], lanes: Lanes) -> bool {
        if lanes.columns == 0 {
            return false;
        }
        self.rows.resize(rows.len());
        self.rows.copy_from_slice(rows);
        self.digits.fill(&self.frame, rows, lanes)
    }
}

impl PackedPatches {
    /// Also lays the patches out for a coarse first pass, in a frame that all images to compare have in common. It changes how
    /// fast matches are found, not what is found.
    ///
    /// # Panics
    /// If the frame is for another dim.
    pub fn sketch(&mut self, frame: &Arc<Frame>) {
        let rows = self.rows();
        self.repack_in(frame, &rows, self.dim);
    }

    /// [`PackedPatches::repack`] with a coarse first pass, see [`PackedPatches::sketch`].
    ///
    /// # Panics
    /// As [`PackedPatches::pack`], and if the frame is for another dim.
    pub fn repack_in(&mut self, frame: &Arc<Frame>, rows: &[f32], dim: usize) {
        assert!(
            dim > 0 && rows.len().is_multiple_of(dim),
            "rows must be [patches, dim]"
        );
        assert_eq!(
            frame.dim(),
            dim,
            "the frame must be for patches of this dim"
        );
        let lanes = Lanes::panels_of(rows.len() / dim, self.lanes.width);
        let ours = self.sketch.take().filter(|s| Arc::ptr_eq(&s.frame, frame));
        let mut sketch = ours.unwrap_or_else(|| Box::new(Sketch::empty(frame)));
        if frame.passes.isa == self.kernels.isa && sketch.fill(rows, lanes) {
            (self.dim, self.lanes) = (dim, lanes);
            self.data = Buffer::default();
            self.sketch = Some(sketch);
        } else {
            self.repack(rows, dim);
        }
    }

    /// Packs other patches the way `like` is packed: for a coarse first pass in its frame, if it is.
    ///
    /// # Panics
    /// As [`PackedPatches::pack`], and if `like` is sketched for another dim.
    pub fn repack_like(&mut self, like: &Self, rows: &[f32], dim: usize) {
        match &like.sketch {
            Some(sketch) => self.repack_in(&sketch.frame, rows, dim),
            None => self.repack(rows, dim),
        }
    }

    /// Whether it is sketched in a frame.
    pub(super) fn is_in(&self, frame: &Arc<Frame>) -> bool {
        self.sketch
            .as_ref()
            .is_some_and(|s| Arc::ptr_eq(&s.frame, frame))
    }
}

/// `out[p] = a_p · b_index[p]` by the pass that brings sixteen pairs of rows into lanes. False, and nothing written, where there is none;
/// indices must be in range.
pub(super) fn chosen_products(
    kernels: &Kernels,
    (a, b): (&[f32], &[f32]),
    dim: usize,
    index: &[u32],
    out: &mut [f32],
) -> bool {
    let Some(passes) = Passes::of(kernels.isa).filter(|_| dim.is_multiple_of(4)) else {
        return false;
    };
    let pair = |(lane, &row): (usize, &u32)| Contender {
        lane: lane as u32,
        row,
        asks: 0,
        upper: 0.0,
    };
    let pairs: Vec<Contender> = index.iter().enumerate().map(pair).collect();
    // SAFETY: `Passes::of` checks that the instruction set is present; the pass checks indices.
    unsafe {
        (passes.exact)(Chosen {
            dim,
            lanes: a,
            rows: b,
            pairs: &pairs,
            out,
        });
    };
    true
}

/// What every comparison of a coarse product with a plain one allows for: rounding of both.
fn margin(a: &Digits, b: &Digits, dim: usize) -> f32 {
    let sizes = f64::from(a.size) * f64::from(b.size) / GROUP_SCALE
        + f64::from(a.offset)
        + f64::from(b.offset);
    let product = gamma(dim) * f64::from(a.norm) * f64::from(b.norm);
    ((product + 16.0 * U * sizes) * 1.001) as f32
}

/// `√8` squared: what mixing multiplies products by.
const GROUP_SCALE: f64 = 8.0;

/// How far two f32 products of the same patches may lie apart, one in the plain order, one in the fast order of
/// [`Passes::dots`].
fn spread(a: &Digits, b: &Digits, dim: usize) -> f32 {
    let norms = f64::from(a.norm) * f64::from(b.norm);
    ((gamma(dim) + gamma(dim / sweep::STRIDE + 20)) * norms * 1.001) as f32
}

/// `γ_n` of the module's text.
fn gamma(n: usize) -> f64 {
    let nu = n as f64 * U;
    nu / (1.0 - nu)
}

#[cfg(test)]
mod tests;
