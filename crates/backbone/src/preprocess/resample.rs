//! Antialiased resizing, to the last bit as Pillow and torchvision do it.
//!
//! Every output pixel is a weighted sum over a window of input pixels, first along the columns of a row, then
//! along the rows. The windows and weights are the same everywhere:
//!
//! ```text
//! scale   = input / output            stretch = max(scale, 1)
//! centre  = (i + 0.5) · scale         support = radius · stretch     (radius 1 bilinear, 2 bicubic)
//! window  = [⌊centre − support + 0.5⌋, ⌊centre + support + 0.5⌋), clipped to the image
//! weight  = filter((j − centre + 0.5) / stretch), divided by the window's sum
//! ```
//!
//! What differs between libraries is the arithmetic ([`Arithmetic`]): Pillow rounds the weights to 22 fractional
//! bits and every pass to bytes; torchvision on byte tensors takes as many bits as fit 16-bit weights; on float
//! tensors nothing is rounded. Pillow 13 swaps the passes for images whose height shrinks much more than their
//! width; we follow Pillow up to 12, as the reference vectors do.

use serde::{Deserialize, Serialize};

use super::image::RgbImage8;

/// The interpolation kernel; both are stretched when shrinking (antialias).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum Filter {
    /// Cubic convolution with a = −0.5, radius 2
    Bicubic,
    /// Triangle, radius 1
    Bilinear,
}

impl Filter {
    fn radius(self) -> f64 {
        match self {
            Self::Bicubic => 2.0,
            Self::Bilinear => 1.0,
        }
    }

    fn at(self, x: f64) -> f64 {
        const A: f64 = -0.5;
        let x = x.abs();
        match self {
            Self::Bilinear => (1.0 - x).max(0.0),
            Self::Bicubic if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
            Self::Bicubic if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
            Self::Bicubic => 0.0,
        }
    }
}

/// Whose rounding a resize follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arithmetic {
    /// Pillow (up to 12): weights with 22 fractional bits, each pass rounded and clipped to bytes.
    Pillow,
    /// torchvision on byte tensors: 16-bit weights, each pass rounded and clipped to bytes.
    TensorU8,
    /// torchvision on float tensors: no rounding and no clipping; bicubic overshoots 0..1.
    Float,
}

/// Input windows and weights of one axis; every window is padded with zero weights to `taps`.
struct Windows {
    start: Vec<usize>,
    length: Vec<usize>,
    /// `[outputs, taps]`
    weights: Vec<f64>,
    taps: usize,
}

/// Window lengths are rounded up to this, so that the inner loops have whole vectors.
const LANES: usize = 8;

impl Windows {
    fn new(input: usize, output: usize, filter: Filter) -> Self {
        let scale = input as f64 / output as f64;
        let stretch = scale.max(1.0);
        let support = filter.radius() * stretch;
        let bounds = |i: usize| {
            let centre = (i as f64 + 0.5) * scale;
            // both ends are truncated towards zero; the first may be below it and is clipped
            let first = (centre - support + 0.5).max(0.0) as usize;
            let last = ((centre + support + 0.5) as usize).min(input);
            (centre, first, last)
        };
        let longest = (0..output)
            .map(bounds)
            .map(|(_, a, b)| b - a)
            .max()
            .unwrap_or(0);
        let taps = longest.next_multiple_of(LANES);
        let mut windows = Self {
            start: Vec::with_capacity(output),
            length: Vec::with_capacity(output),
            weights: vec![0.0; output * taps],
            taps,
        };
        for (i, row) in windows.weights.chunks_exact_mut(taps.max(1)).enumerate() {
            let (centre, first, last) = bounds(i);
            let row = &mut row[..last - first];
            for (k, w) in row.iter_mut().enumerate() {
                *w = filter.at(((k + first) as f64 - centre + 0.5) / stretch);
            }
            let sum: f64 = row.iter().sum();
            if sum != 0.0 {
                for w in row {
                    *w /= sum;
                }
            }
            windows.start.push(first);
            windows.length.push(last - first);
        }
        windows
    }
}

/// Windows with fixed-point weights, each split as `weight = high · 2048 + low` so that both parts fit 16 bits
/// and the products with bytes can use 16-bit multipliers; the recombined sums are exact.
struct FixedWindows {
    start: Vec<usize>,
    length: Vec<usize>,
    high: Vec<i16>,
    low: Vec<i16>,
    taps: usize,
    /// Fractional bits of the weights.
    bits: u32,
}

const SPLIT: u32 = 11;

impl FixedWindows {
    fn new(windows: Windows, arithmetic: Arithmetic) -> Self {
        let bits = match arithmetic {
            Arithmetic::Pillow | Arithmetic::Float => 22,
            Arithmetic::TensorU8 => {
                // the most bits with which the largest weight still fits a signed 16-bit integer
                let largest = windows.weights.iter().copied().fold(0.0, f64::max);
                (0..22)
                    .find(|b| (0.5 + largest * f64::from(1u32 << (b + 1))) >= 32768.0)
                    .unwrap_or(22)
            }
        };
        let one = f64::from(1u32 << bits);
        let fixed = windows
            .weights
            .iter()
            .map(|w| (w * one + 0.5f64.copysign(*w)) as i32);
        let (mut high, mut low) = (Vec::new(), Vec::new());
        for w in fixed {
            high.push((w >> SPLIT) as i16);
            low.push((w & ((1 << SPLIT) - 1)) as i16);
        }
        Self {
            start: windows.start,
            length: windows.length,
            high,
            low,
            taps: windows.taps,
            bits,
        }
    }

    /// The byte of a weighted sum, given as its two parts.
    fn round(&self, high: i32, low: i32) -> u8 {
        // wrapping: `low` alone may pass 2³¹ for windows of thousands of pixels, the true sum cannot
        let sum = (high << SPLIT)
            .wrapping_add(low)
            .wrapping_add(1 << (self.bits - 1));
        (sum >> self.bits).clamp(0, 255) as u8
    }
}

/// `Σ row·weight` in wrapping 32-bit arithmetic; the lengths are equal.
fn dot(row: &[i16], weights: &[i16]) -> i32 {
    row.iter().zip(weights).fold(0i32, |sum, (x, w)| {
        sum.wrapping_add(i32::from(*x) * i32::from(*w))
    })
}

/// One pass along the columns: `[height, width, 3]` to `[height, out_width, 3]`.
fn resize_columns(source: &[u8], width: usize, windows: &FixedWindows) -> Vec<u8> {
    let out_width = windows.start.len();
    let height = source.len() / (width * 3);
    let mut out = vec![0; height * out_width * 3];
    // one row, channel by channel, with room for the padding of the last windows
    let padded = width + windows.taps;
    let mut planes = vec![0i16; 3 * padded];
    for (row, out) in source
        .chunks_exact(width * 3)
        .zip(out.chunks_exact_mut(out_width * 3))
    {
        let (r, rest) = planes.split_at_mut(padded);
        let (g, b) = rest.split_at_mut(padded);
        for (((pixel, r), g), b) in row
            .chunks_exact(3)
            .zip(r.iter_mut())
            .zip(g.iter_mut())
            .zip(b.iter_mut())
        {
            (*r, *g, *b) = (
                i16::from(pixel[0]),
                i16::from(pixel[1]),
                i16::from(pixel[2]),
            );
        }
        let weights = windows
            .high
            .chunks_exact(windows.taps)
            .zip(windows.low.chunks_exact(windows.taps));
        for ((pixel, start), (high, low)) in
            out.chunks_exact_mut(3).zip(&windows.start).zip(weights)
        {
            for (value, plane) in pixel.iter_mut().zip([&*r, &*g, &*b]) {
                let window = &plane[*start..][..windows.taps];
                *value = windows.round(dot(window, high), dot(window, low));
            }
        }
    }
    out
}

/// One pass along the rows: `[height, width, 3]` to `[out_height, width, 3]`.
fn resize_rows(source: &[u8], width: usize, windows: &FixedWindows) -> Vec<u8> {
    let out_height = windows.start.len();
    let stride = width * 3;
    let mut out = vec![0; out_height * stride];
    let (mut high, mut low) = (vec![0i32; stride], vec![0i32; stride]);
    for (i, out) in out.chunks_exact_mut(stride).enumerate() {
        high.fill(0);
        low.fill(0);
        let (start, length) = (windows.start[i], windows.length[i]);
        let rows = source[start * stride..][..length * stride].chunks_exact(stride);
        for (k, row) in rows.enumerate() {
            let (wh, wl) = (
                windows.high[i * windows.taps + k],
                windows.low[i * windows.taps + k],
            );
            for ((h, l), x) in high.iter_mut().zip(&mut low).zip(row) {
                let x = i16::from(*x);
                *h = h.wrapping_add(i32::from(x) * i32::from(wh));
                *l = l.wrapping_add(i32::from(x) * i32::from(wl));
            }
        }
        for ((value, h), l) in out.iter_mut().zip(&high).zip(&low) {
            *value = windows.round(*h, *l);
        }
    }
    out
}

/// Resizes to `height`×`width` with byte results; an axis that keeps its length is left alone.
///
/// `arithmetic` is [`Arithmetic::Pillow`] or [`Arithmetic::TensorU8`]; `Float` has no byte result and is treated as
/// Pillow's ([`resize_f32`] is its function).
///
/// # Panics
/// If `height` or `width` is 0.
pub fn resize_u8(
    image: &RgbImage8,
    height: usize,
    width: usize,
    filter: Filter,
    arithmetic: Arithmetic,
) -> RgbImage8 {
    assert!(height > 0 && width > 0, "an image has at least one pixel");
    let fixed = |input, output| FixedWindows::new(Windows::new(input, output, filter), arithmetic);
    let columns = (image.width() != width)
        .then(|| resize_columns(image.pixels(), image.width(), &fixed(image.width(), width)));
    let source = columns.as_deref().unwrap_or(image.pixels());
    let rows = (image.height() != height)
        .then(|| resize_rows(source, width, &fixed(image.height(), height)));
    let pixels = rows.or(columns).unwrap_or_else(|| image.pixels().to_vec());
    RgbImage8::from_pixels(height, width, pixels)
}

/// Resizes `pixel / 255` to `height`×`width` without rounding; returns `[3, height, width]`.
///
/// # Panics
/// If `height` or `width` is 0.
pub fn resize_f32(image: &RgbImage8, height: usize, width: usize, filter: Filter) -> Vec<f32> {
    assert!(height > 0 && width > 0, "an image has at least one pixel");
    let columns = Windows::new(image.width(), width, filter);
    let rows = Windows::new(image.height(), height, filter);
    let weights = |w: &Windows| w.weights.iter().map(|x| *x as f32).collect::<Vec<_>>();
    let (column_weights, row_weights) = (weights(&columns), weights(&rows));
    let mut narrow = vec![0.0f32; image.height() * width];
    let mut out = vec![0.0f32; 3 * height * width];
    for (channel, plane) in out.chunks_exact_mut(height * width).enumerate() {
        let sources = image.pixels().chunks_exact(image.width() * 3);
        for (source, narrow) in sources.zip(narrow.chunks_exact_mut(width)) {
            for (x, value) in narrow.iter_mut().enumerate() {
                let window = source[columns.start[x] * 3..]
                    .chunks_exact(3)
                    .take(columns.length[x]);
                let weights = &column_weights[x * columns.taps..];
                *value = window
                    .zip(weights)
                    .map(|(p, w)| f32::from(p[channel]) / 255.0 * w)
                    .sum();
            }
        }
        for (y, line) in plane.chunks_exact_mut(width).enumerate() {
            for k in 0..rows.length[y] {
                let weight = row_weights[y * rows.taps + k];
                let source = &narrow[(rows.start[y] + k) * width..][..width];
                line.iter_mut()
                    .zip(source)
                    .for_each(|(o, s)| *o += s * weight);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, written as plainly as possible: one output byte from 64-bit sums.
    fn plain_pass(line: &[u8], output: usize, filter: Filter) -> Vec<u8> {
        let windows = Windows::new(line.len(), output, filter);
        (0..output)
            .map(|i| {
                let sum: i64 = (0..windows.length[i])
                    .map(|k| {
                        let w = windows.weights[i * windows.taps + k] * f64::from(1 << 22);
                        let w = (if w < 0.0 { w - 0.5 } else { w + 0.5 }) as i64;
                        w * i64::from(line[windows.start[i] + k])
                    })
                    .sum();
                ((sum + (1 << 21)) >> 22).clamp(0, 255) as u8
            })
            .collect()
    }

    fn noise(n: usize) -> Vec<u8> {
        let mut noise = flawtune_testing::SmallNoise(12345);
        (0..n)
            .map(|_| {
                let state = noise.word();
                // mostly extremes: they make bicubic overshoot
                if state >> 30 == 0 {
                    (state >> 16) as u8
                } else {
                    ((state >> 29) as u8 & 1) * 255
                }
            })
            .collect()
    }

    #[test]
    fn split_weights_lose_nothing_at_any_ratio() {
        for (input, output) in [
            (1, 1),
            (1, 7),
            (5, 3),
            (300, 224),
            (33, 224),
            (1024, 16),
            (40_000, 2),
            (9000, 1),
        ] {
            for filter in [Filter::Bicubic, Filter::Bilinear] {
                let line = noise(input);
                let expected = if input == output {
                    line.clone()
                } else {
                    plain_pass(&line, output, filter)
                };
                let pixels: Vec<u8> = line.iter().flat_map(|v| [*v, 255 - *v, *v]).collect();
                let wide = RgbImage8::from_pixels(1, input, pixels.clone());
                let out = resize_u8(&wide, 1, output, filter, Arithmetic::Pillow);
                let red: Vec<u8> = out.pixels().iter().step_by(3).copied().collect();
                assert_eq!(red, expected, "columns {input} -> {output} {filter:?}");
                let tall = RgbImage8::from_pixels(input, 1, pixels);
                let out = resize_u8(&tall, output, 1, filter, Arithmetic::Pillow);
                let red: Vec<u8> = out.pixels().iter().step_by(3).copied().collect();
                assert_eq!(red, expected, "rows {input} -> {output} {filter:?}");
            }
        }
    }

    #[test]
    fn a_flat_picture_stays_flat() {
        let image = RgbImage8::from_pixels(37, 53, [10, 128, 255].repeat(37 * 53));
        for arithmetic in [Arithmetic::Pillow, Arithmetic::TensorU8] {
            for filter in [Filter::Bicubic, Filter::Bilinear] {
                let out = resize_u8(&image, 64, 16, filter, arithmetic);
                assert_eq!(
                    out.pixels(),
                    [10, 128, 255].repeat(64 * 16),
                    "{arithmetic:?} {filter:?}"
                );
            }
        }
        let out = resize_f32(&image, 64, 16, Filter::Bicubic);
        assert!(
            out[..64 * 16]
                .iter()
                .all(|v| (v - 10.0 / 255.0).abs() < 1e-6)
        );
        assert!(out[2 * 64 * 16..].iter().all(|v| (v - 1.0).abs() < 1e-6));
    }
}
