//! Patches as digits of eight bits, with what bounds need to know about them.

use super::{Frame, NORMS};
use crate::buffer::Buffer;
use crate::lanes::Lanes;

/// Features that are mixed together: eight times [`APART`].
pub(super) const GROUP: usize = 128;
/// Distance of features that are mixed.
const APART: usize = 16;
/// Rows of an integer tile.
pub(super) const TILE: usize = 8;
/// Digits of one feature group in a 32-bit lane.
pub(super) const QUAD: usize = 4;
/// Largest digit.
const TOP: f32 = 127.0;
/// Added to a number below 2^22, rounds it to a whole one and leaves that in the low bits.
const ROUNDER: f32 = 12_582_912.0;

/// One image in digits, both as lanes (patches that ask) and as rows (patches that answer).
#[derive(Debug, Clone, Default)]
pub(super) struct Digits {
    /// `[panel][dim/4][lanes][4]` bytes, digits + 128.
    pub(super) lanes: Buffer,
    /// `[tile of 8][dim/4][8][4]` signed bytes; rows past the last are 0.
    pub(super) rows: Buffer,
    /// Scale of each patch; of lanes, padding included, with the mixing's 1/8.
    pub(super) lane_scale: Vec<f32>,
    pub(super) row_scale: Vec<f32>,
    /// `N` of the module's text, of lanes, with the mixing's 1/8.
    pub(super) lane_reach: Vec<f32>,
    /// `r` and `n`, of rows.
    pub(super) residual: Vec<f32>,
    pub(super) length: Vec<f32>,
    /// `m·a − m·m/2`, padding far below every product.
    pub(super) offsets: Vec<f32>,
    /// −128 · the sum of the digits.
    pub(super) start: Vec<i32>,
    /// `ρ`.
    pub(super) ratio: f32,
    /// At least any `N + r`, offset, and norm.
    pub(super) size: f32,
    pub(super) offset: f32,
    pub(super) norm: f32,
}

/// Offset of lanes that are padding.
const FAR_BELOW: f32 = -1e30;

impl Digits {
    /// Takes in rows (`[columns, dim]`). False if they can't be bounded.
    pub(super) fn fill(&mut self, frame: &Frame, rows: &[f32], lanes: Lanes) -> bool {
        let dim = frame.centre.len();
        let (count, padded) = (lanes.columns, lanes.padded());
        self.lanes.resize(padded * dim / QUAD);
        self.rows.resize(count.div_ceil(TILE) * TILE * dim / QUAD);
        for list in [
            &mut self.lane_scale,
            &mut self.lane_reach,
            &mut self.offsets,
        ] {
            list.clear();
            list.resize(padded, 0.0);
        }
        for list in [&mut self.row_scale, &mut self.residual, &mut self.length] {
            list.clear();
            list.resize(count, 0.0);
        }
        self.start.clear();
        self.start.resize(count, 0);
        self.offsets[count..].fill(FAR_BELOW);
        (self.ratio, self.size, self.offset, self.norm) = (0.0, 0.0, 0.0, 0.0);
        let fill = Fill {
            frame,
            rows,
            layout: lanes,
            out: self,
        };
        // SAFETY: a frame holds the passes of an instruction set that is present.
        unsafe { (frame.passes.fill)(fill) }
    }
}

/// Rows to turn into digits.
pub(super) struct Fill<'a> {
    frame: &'a Frame,
    rows: &'a [f32],
    layout: Lanes,
    out: &'a mut Digits,
}

/// Runs a [`Fill`]; plain loops, compiled once per instruction set.
#[inline(always)]
pub(super) fn fill(f: Fill<'_>) -> bool {
    let Fill {
        frame,
        rows,
        layout,
        out,
    } = f;
    let dim = frame.centre.len();
    let (quads, width) = (dim / QUAD, layout.width);
    let mut mixed = vec![0.0f32; dim];
    let mut words = vec![0u32; quads];
    let mut panel = layout.panel(0);
    for (p, row) in rows.chunks_exact(dim).enumerate() {
        let measure = measure(row, &frame.centre);
        let norm = measure.square.sqrt() * 1.0001;
        // an infinity or NaN anywhere makes the sum of squares one
        let good = if measure.square == 0.0 {
            measure.top == 0.0
        } else {
            NORMS.contains(&norm)
        };
        if !good {
            return false;
        }
        let offset = (measure.along - frame.half_square) as f32;
        let top = mix(row, &frame.centre, &mut mixed);
        let (scale, square, lost, sum) = if top > 1e-12 {
            round(&mixed, TOP / top, top / TOP, &mut words)
        } else {
            words.fill(0);
            (0.0, 0.0, top * top * dim as f32 * 1.01, 0)
        };
        let length = scale * square.sqrt() * 1.00001;
        let lost = lost.sqrt();
        // the last terms: rounding before the digits, and numbers that vanished
        let residual = lost * 1.0001 + 4e-7 * (length + lost) + 1e-15;
        let reach = length.max(16.0 * residual);
        out.ratio = out.ratio.max(residual / reach * 1.00001);
        out.size = out.size.max(reach + residual);
        out.offset = out.offset.max(offset.abs());
        out.norm = out.norm.max(norm);
        (out.lane_scale[p], out.row_scale[p]) = (scale / 8.0, scale);
        out.lane_reach[p] = reach / 8.0 * 1.00001;
        (out.residual[p], out.length[p], out.offsets[p]) = (residual, length, offset);
        out.start[p] = -128 * sum;

        if p / width >= panel.first + panel.vectors {
            panel = layout.panel(layout.panel_of(p / width));
        }
        let wide = panel.vectors * width;
        let lane = &mut out.lanes[panel.first * width * quads..][..wide * quads];
        let lane = lane[p - panel.first * width..].iter_mut().step_by(wide);
        // flipping the top bit of a signed byte adds 128
        lane.zip(&words)
            .for_each(|(to, &w)| *to = f32::from_bits(w ^ 0x8080_8080));
        let tile = &mut out.rows[p / TILE * TILE * quads..][..TILE * quads];
        let row = tile[p % TILE..].iter_mut().step_by(TILE);
        row.zip(&words).for_each(|(to, &w)| *to = f32::from_bits(w));
    }
    pad(out, layout, quads);
    true
}

/// Digits of lanes and rows that do not exist: 0.
fn pad(out: &mut Digits, layout: Lanes, quads: usize) {
    let (count, width) = (layout.columns, layout.width);
    for p in count..layout.padded() {
        let panel = layout.panel(layout.panel_of(p / width));
        let wide = panel.vectors * width;
        let lane = &mut out.lanes[panel.first * width * quads..][..wide * quads];
        let lane = lane[p - panel.first * width..].iter_mut().step_by(wide);
        lane.for_each(|to| *to = f32::from_bits(0x8080_8080));
    }
    for p in count..count.next_multiple_of(TILE) {
        let tile = &mut out.rows[p / TILE * TILE * quads..][..TILE * quads];
        tile[p % TILE..]
            .iter_mut()
            .step_by(TILE)
            .for_each(|to| *to = 0.0);
    }
}

struct Measure {
    square: f32,
    top: f32,
    along: f64,
}

/// Squared norm, largest feature, and product with the centre.
#[inline(always)]
fn measure(row: &[f32], centre: &[f32]) -> Measure {
    let (mut squares, mut tops, mut along) = ([0.0f32; 16], [0.0f32; 16], [0.0f64; 16]);
    for (x, m) in row.chunks_exact(16).zip(centre.chunks_exact(16)) {
        for l in 0..16 {
            squares[l] += x[l] * x[l];
            tops[l] = if x[l].abs() > tops[l] {
                x[l].abs()
            } else {
                tops[l]
            };
            along[l] += f64::from(x[l]) * f64::from(m[l]);
        }
    }
    Measure {
        square: squares.iter().sum(),
        top: tops.iter().copied().fold(0.0, f32::max),
        along: along.iter().sum(),
    }
}

/// `√8·H(row − centre)`; gives its largest feature.
#[inline(always)]
fn mix(row: &[f32], centre: &[f32], out: &mut [f32]) -> f32 {
    let mut tops = [0.0f32; APART];
    let groups = row.chunks_exact(GROUP).zip(centre.chunks_exact(GROUP));
    for ((row, centre), out) in groups.zip(out.chunks_exact_mut(GROUP)) {
        let mut x = [[0.0f32; APART]; 8];
        for (i, x) in x.iter_mut().enumerate() {
            for l in 0..APART {
                x[l] = row[i * APART + l] - centre[i * APART + l];
            }
        }
        for half in [1, 2, 4] {
            for i in 0..8 {
                if i & half == 0 {
                    for l in 0..APART {
                        let (a, b) = (x[i][l], x[i + half][l]);
                        (x[i][l], x[i + half][l]) = (a + b, a - b);
                    }
                }
            }
        }
        for (i, x) in x.iter().enumerate() {
            for l in 0..APART {
                out[i * APART + l] = x[l];
                tops[l] = if x[l].abs() > tops[l] {
                    x[l].abs()
                } else {
                    tops[l]
                };
            }
        }
    }
    tops.iter().copied().fold(0.0, f32::max)
}

/// Digits four to a word. Gives the scale, the sum of their squares, the squared norm of what was lost, and their sum.
#[inline(always)]
fn round(mixed: &[f32], inverse: f32, scale: f32, words: &mut [u32]) -> (f32, f32, f32, i32) {
    let (mut squares, mut lost, mut sums) = ([0.0f32; 16], [0.0f32; 16], [0i32; 16]);
    for (x, words) in mixed.chunks_exact(16).zip(words.chunks_exact_mut(4)) {
        let mut digits = [0i32; 16];
        for l in 0..16 {
            let shifted = x[l] * inverse + ROUNDER;
            let digit = shifted - ROUNDER;
            let off = digit.mul_add(-scale, x[l]);
            squares[l] += digit * digit;
            lost[l] += off * off;
            digits[l] = (shifted.to_bits() as i32) - (ROUNDER.to_bits() as i32);
            sums[l] += digits[l];
        }
        for (w, d) in words.iter_mut().zip(digits.chunks_exact(4)) {
            *w = u32::from_le_bytes([d[0] as u8, d[1] as u8, d[2] as u8, d[3] as u8]);
        }
    }
    (
        scale,
        squares.iter().sum(),
        lost.iter().sum(),
        sums.iter().sum(),
    )
}
