//! The weight of a linear layer, packed for the register tile in the precision that was asked for.

use std::fmt;
use std::str::FromStr;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::buffer::{Buffer, Memory};
use crate::kernels::Kernels;
use crate::simd::dot::weight_word;

/// How the weights of the linear layers are kept, and with what they are multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum Precision {
    /// 32-bit numbers throughout
    #[default]
    F32,
    /// 16-bit weights in f32 products: half the memory
    ///
    /// They are kept as IEEE halves with one power of two a row, and widened on their way into the products.
    F16,
    /// As f16, in bfloat16
    Bf16,
    /// 8-bit weights and activations: a quarter of the memory, the fastest, features change a little
    ///
    /// Weights are signed bytes with one scale a row, activations unsigned bytes with one scale and offset a token, summed
    /// exactly. Attention, norms, activation functions and the residual stream stay f32.
    Int8,
}

impl Precision {
    /// Every precision, widest first.
    pub const ALL: [Self; 4] = [Self::F32, Self::F16, Self::Bf16, Self::Int8];

    /// Its name: `f32`, `f16`, `bf16` or `int8`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that no precision has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownPrecision(pub String);

impl fmt::Display for UnknownPrecision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = Precision::ALL.map(Precision::name).join(", ");
        write!(
            f,
            "there is no precision '{}'\nhint: name one of {names}",
            self.0
        )
    }
}

impl std::error::Error for UnknownPrecision {}

impl FromStr for Precision {
    type Err = UnknownPrecision;
    fn from_str(name: &str) -> Result<Self, UnknownPrecision> {
        Self::ALL
            .into_iter()
            .find(|p| p.name() == name)
            .ok_or_else(|| UnknownPrecision(name.to_owned()))
    }
}

/// A linear layer: its weight in tiles of `rows` outputs, and its bias.
#[derive(Debug, Clone)]
pub(crate) struct PackedLinear {
    pub(crate) weight: Weight,
    pub(crate) bias: Buffer,
    pub(crate) inputs: usize,
    pub(crate) tiles: usize,
}

/// The numbers of a weight.
#[derive(Debug, Clone)]
pub(crate) enum Weight {
    /// `[tiles][inputs][rows]`
    F32(Buffer),
    /// See [`Halves`].
    Halves(Halves),
    /// See [`Bytes`].
    Bytes(Bytes),
}

/// A weight in 16-bit numbers.
#[derive(Debug, Clone)]
pub(crate) struct Halves {
    words: Words,
    /// What a row's products are multiplied by: powers of two, `[tiles · rows]`.
    pub(crate) powers: Vec<f32>,
}

/// `[tiles][inputs][rows]`
#[derive(Debug, Clone)]
enum Words {
    Ieee(Vec<f16>),
    Brain(Vec<bf16>),
}

/// A weight in signed bytes.
#[derive(Debug, Clone)]
pub(crate) struct Bytes {
    /// Words of `group` weights, `[tiles][inputs/group][rows]`, see [`crate::simd::dot`].
    pub(crate) words: Buffer<u32>,
    /// `⌈inputs/group⌉`
    pub(crate) groups: usize,
    /// Scale of a row, `[tiles · rows]`.
    pub(crate) scales: Buffer,
    /// Sum of a row's bytes, `[tiles · rows]`.
    pub(crate) sums: Vec<i32>,
    /// `scale · sum` of a row.
    pub(crate) scaled_sums: Buffer,
    /// What every input is multiplied by before it becomes a byte (the weights are divided by it); empty for 1.
    pub(crate) balance: Buffer,
}

/// What is folded into a weight while it is packed.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    /// Row-major `[outputs, inputs]`.
    pub(crate) weight: &'a [f32],
    /// `[outputs]`
    pub(crate) bias: &'a [f32],
    /// Gain and bias of the layer norm in front, `[inputs]` each: the norm itself then only centres and scales.
    pub(crate) norm: Option<(&'a [f32], &'a [f32])>,
}

impl PackedLinear {
    /// Packs `tiles` tiles; `row(i)` says which source row lies in packed row `i` and what it is multiplied by
    /// (`None`: a row of zeros).
    pub(crate) fn pack<'a>(
        kernels: &Kernels,
        precision: Precision,
        inputs: usize,
        tiles: usize,
        row: impl Fn(usize) -> Option<(Source<'a>, usize, f32)>,
    ) -> Self {
        let rows = kernels.rows;
        let mut weight = Buffer::mapped(tiles * rows * inputs);
        let mut bias = Buffer::zeroed(tiles * rows);
        let mut normed = false;
        for i in 0..tiles * rows {
            let Some((source, from, scale)) = row(i) else {
                continue;
            };
            let tile = &mut weight[i / rows * rows * inputs..][..rows * inputs];
            let values = &source.weight[from * inputs..][..inputs];
            let mut offset = f64::from(source.bias[from]);
            for (k, &w) in values.iter().enumerate() {
                let (gain, beta) = source
                    .norm
                    .map_or((1.0, 0.0), |(gain, beta)| (gain[k], beta[k]));
                tile[k * rows + i % rows] = w * gain * scale;
                offset += f64::from(w) * f64::from(beta);
            }
            bias[i] = (offset * f64::from(scale)) as f32;
            normed |= source.norm.is_some();
        }
        let weight = match precision {
            Precision::F32 => Weight::F32(weight),
            Precision::F16 => Weight::Halves(Halves::ieee(&weight, rows, inputs)),
            Precision::Bf16 => Weight::Halves(Halves::brain(&weight, tiles * rows)),
            Precision::Int8 => {
                let group = kernels.bytes().group;
                Weight::Bytes(Bytes::pack(&weight, rows, inputs, group, normed))
            }
        };
        Self {
            weight,
            bias,
            inputs,
            tiles,
        }
    }

    /// The memory of its weight, to lie beside that of others.
    pub(crate) fn memory(&mut self) -> Option<(&mut Memory, usize)> {
        match &mut self.weight {
            Weight::F32(w) => Some(w.part(w.len())),
            Weight::Bytes(b) => Some(b.words.part(b.words.len())),
            Weight::Halves(_) => None,
        }
    }

    /// Bytes of memory that it holds.
    pub(crate) fn bytes(&self) -> usize {
        let weight = match &self.weight {
            Weight::F32(w) => 4 * w.len(),
            Weight::Halves(h) => 2 * h.len() + 4 * h.powers.len(),
            Weight::Bytes(b) => 4 * (b.words.len() + b.balance.len() + 3 * b.sums.len()),
        };
        weight + 4 * self.bias.len()
    }
}

/// Largest IEEE half.
const HALF_MAX: f32 = 65504.0;

impl Halves {
    /// IEEE halves, each row divided by the power of two of its largest weight: none is rounded more coarsely than 2^-11 of
    /// that one, however small a layer scale made the row.
    fn ieee(weight: &[f32], rows: usize, inputs: usize) -> Self {
        let tiles = weight.len() / (rows * inputs).max(1);
        let mut powers = vec![1.0; tiles * rows];
        let mut words = vec![f16::ZERO; weight.len()];
        for (i, stored) in powers.iter_mut().enumerate() {
            let (start, step) = (i / rows * rows * inputs + i % rows, rows);
            let row = weight[start..].iter().step_by(step).take(inputs);
            let top = row.clone().fold(0.0f32, |top, w| top.max(w.abs()));
            let power = f32::from_bits(top.to_bits() & 0x7f80_0000);
            // a row of zeros has none
            let power = if power.is_normal() { power } else { 1.0 };
            for (word, w) in words[start..].iter_mut().step_by(step).zip(row) {
                *word = f16::from_f32((w / power).clamp(-HALF_MAX, HALF_MAX));
            }
            *stored = power;
        }
        Self {
            words: Words::Ieee(words),
            powers,
        }
    }

    fn brain(weight: &[f32], rows: usize) -> Self {
        let words = weight.iter().map(|&w| bf16::from_f32(w)).collect();
        Self {
            words: Words::Brain(words),
            powers: vec![1.0; rows],
        }
    }

    /// Numbers kept.
    fn len(&self) -> usize {
        match &self.words {
            Words::Ieee(w) => w.len(),
            Words::Brain(w) => w.len(),
        }
    }

    /// Writes tile `t` as f32 `[inputs][rows]` to `out`, to be multiplied by [`Halves::powers`]. Widening is exact, so it
    /// gives the same bits on every machine.
    #[inline(always)]
    pub(crate) fn widen(&self, t: usize, out: &mut [f32]) {
        let tile = t * out.len()..(t + 1) * out.len();
        match &self.words {
            // by the machine's own instruction where it has one
            Words::Ieee(words) => words[tile].convert_to_f32_slice(out),
            Words::Brain(words) => {
                for (out, word) in out.iter_mut().zip(&words[tile]) {
                    *out = f32::from_bits(u32::from(word.to_bits()) << 16);
                }
            }
        }
    }
}

/// Largest byte of a weight.
const TOP: f32 = 127.0;

impl Bytes {
    /// Rounds `weight` (`[tiles][inputs][rows]`) to bytes.
    ///
    /// Behind a layer norm, whose outputs are alike in size but for its gain (which is part of `weight`), the error of
    /// a product is spread best when weights and activations share the unevenness of the columns: each column is
    /// divided by the square root of its largest weight, relative to the largest of the weight's row.
    pub(crate) fn pack(
        weight: &[f32],
        rows: usize,
        inputs: usize,
        group: usize,
        normed: bool,
    ) -> Self {
        let tiles = weight.len() / (rows * inputs).max(1);
        let at = |row: usize, k: usize| weight[row / rows * rows * inputs + k * rows + row % rows];
        let mut balance: Buffer = Buffer::zeroed(if normed { inputs } else { 0 });
        if normed {
            for row in 0..tiles * rows {
                let top = (0..inputs).fold(0.0f32, |top, k| top.max(at(row, k).abs()));
                if top > 0.0 {
                    for (k, b) in balance.iter_mut().enumerate() {
                        *b = b.max(at(row, k).abs() / top);
                    }
                }
            }
            for b in balance.iter_mut() {
                *b = if *b > 0.0 {
                    b.max(LEAST_BALANCE).sqrt()
                } else {
                    1.0
                };
            }
        }
        let groups = inputs.div_ceil(group);
        let mut words = Buffer::mapped(tiles * groups * rows);
        let (mut scales, mut scaled_sums) =
            (Buffer::zeroed(tiles * rows), Buffer::zeroed(tiles * rows));
        let mut sums = vec![0; tiles * rows];
        let mut values = vec![0.0f32; inputs];
        let mut bytes = vec![0i8; groups * group];
        for row in 0..tiles * rows {
            let mut top = 0.0f32;
            for (k, v) in values.iter_mut().enumerate() {
                *v = at(row, k) / balance.get(k).copied().unwrap_or(1.0);
                top = top.max(v.abs());
            }
            let scale = if top > 0.0 { top / TOP } else { 1.0 };
            for (byte, v) in bytes.iter_mut().zip(&values) {
                *byte = (v / scale).round_ties_even().clamp(-TOP, TOP) as i8;
            }
            let tile = &mut words[row / rows * groups * rows..][..groups * rows];
            for (g, bytes) in bytes.chunks_exact(group).enumerate() {
                tile[g * rows + row % rows] = weight_word(group, bytes);
            }
            let sum: i32 = bytes.iter().map(|&b| i32::from(b)).sum();
            (sums[row], scales[row], scaled_sums[row]) = (sum, scale, scale * sum as f32);
        }
        Self {
            words,
            groups,
            scales,
            sums,
            scaled_sums,
            balance,
        }
    }
}

/// Columns whose weights are smaller than this part of their rows' largest are not made larger any more.
const LEAST_BALANCE: f32 = 1e-4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::Isa;

    fn widened(precision: Precision, weight: &[f32], inputs: usize) -> Vec<f32> {
        let outputs = weight.len() / inputs;
        let bias = vec![0.0; outputs];
        let source = Source {
            weight,
            bias: &bias,
            norm: None,
        };
        let scalar = Isa::Scalar.kernels().unwrap();
        let tiles = outputs.div_ceil(scalar.rows);
        let packed = PackedLinear::pack(scalar, precision, inputs, tiles, |i| {
            (i < outputs).then_some((source, i, 1.0))
        });
        let Weight::Halves(halves) = &packed.weight else {
            panic!("{precision:?} keeps halves")
        };
        let mut out = vec![0.0; weight.len()];
        let mut tile = vec![0.0; 4 * inputs];
        for t in 0..tiles {
            halves.widen(t, &mut tile);
            for (i, w) in tile.iter().enumerate() {
                let row = t * 4 + i % 4;
                if row < outputs {
                    out[row * inputs + i / 4] = w * halves.powers[row];
                }
            }
        }
        out
    }

    #[test]
    fn halves_round_to_nearest_relative_to_their_row() {
        // rows of very different size, as layer scales make them, and a row of zeros
        let mut weight = vec![];
        for size in [1.0f32, 3e-7, 7e30, 0.0, 0.02] {
            weight.extend((0..9).map(|i| size * (i as f32 - 4.0) / 4.1));
        }
        for (row, found) in weight
            .chunks_exact(9)
            .zip(widened(Precision::F16, &weight, 9).chunks_exact(9))
        {
            let top = row.iter().fold(0.0f32, |m, w| m.max(w.abs()));
            for (w, f) in row.iter().zip(found) {
                assert!(
                    (w - f).abs() <= w.abs() / 2048.0 + top * 2f32.powi(-25),
                    "{w} became {f}"
                );
            }
        }
        for (w, f) in weight.iter().zip(widened(Precision::Bf16, &weight, 9)) {
            assert_eq!(bf16::from_f32(*w).to_f32(), f);
        }
    }

    #[test]
    fn halves_that_fit_come_back_exactly() {
        let weight: Vec<f32> = (0..24)
            .map(|i| f16::from_f32(0.01 * i as f32 - 0.1).to_f32())
            .collect();
        assert_eq!(widened(Precision::F16, &weight, 6), weight);
        let weight: Vec<f32> = (0..24)
            .map(|i| bf16::from_f32(0.01 * i as f32 - 0.1).to_f32())
            .collect();
        assert_eq!(widened(Precision::Bf16, &weight, 6), weight);
    }

    #[test]
    fn balanced_columns_multiply_back_to_the_weight() {
        // one column a thousand times larger than the others
        let (rows, inputs) = (4, 8);
        let weight: Vec<f32> = (0..rows * inputs)
            .map(|i| (i as f32 * 0.37).sin() * if i / rows == 3 { 1000.0 } else { 1.0 })
            .collect();
        let bytes = Bytes::pack(&weight, rows, inputs, 4, true);
        let plain = Bytes::pack(&weight, rows, inputs, 4, false);
        let error = |b: &Bytes| {
            let mut worst = 0.0f32;
            for row in 0..rows {
                for k in (0..inputs).filter(|&k| k != 3) {
                    let word = b.words[k / 4 * rows + row].to_le_bytes()[k % 4] as i8;
                    let back =
                        f32::from(word) * b.scales[row] * b.balance.get(k).copied().unwrap_or(1.0);
                    worst = worst.max((back - weight[k * rows + row]).abs());
                }
            }
            worst
        };
        assert!(
            error(&plain) > 0.5 && error(&bytes) < 0.15,
            "{} {}",
            error(&plain),
            error(&bytes)
        );
        assert_eq!(plain.balance.len(), 0);
    }
}
