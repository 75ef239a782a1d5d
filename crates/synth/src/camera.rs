//! From light to an image: exposure, vignette, optics, sensor noise, tone curve.

use image::{GrayImage, Luma, Rgb, RgbImage};

use super::random::Chance;

/// Drawn samples per pixel edge: edges are smoothed by averaging 2 × 2 samples.
pub(super) const SAMPLES: usize = 2;

/// What differs from one exposure to the next.
pub(super) struct Camera {
    exposure: f32,
    tint: [f32; 3],
    blur: f32,
    vignette: f32,
    centre: (f32, f32),
    noise: f32,
}

impl Camera {
    /// An exposure of a fixed camera: gain within ±8 %, white point within ±2 %.
    pub(super) fn draw(chance: &mut Chance) -> Self {
        Self {
            exposure: chance.range(0.92, 1.08),
            tint: [chance.range(0.98, 1.02), 1.0, chance.range(0.98, 1.02)],
            blur: chance.range(0.06, 0.16),
            vignette: chance.range(0.08, 0.2),
            centre: (chance.range(-0.2, 0.2), chance.range(-0.2, 0.2)),
            noise: chance.range(0.006, 0.011),
        }
    }

    /// Develops `light` (`[size·2, size·2]` linear RGB, row by row) into an image of `size` pixels.
    pub(super) fn develop(&self, light: &[[f32; 3]], size: u32, chance: &mut Chance) -> RgbImage {
        let n = size as usize;
        let fine = n * SAMPLES;
        let mut pixels = vec![[0.0_f32; 3]; n * n];
        for (y, row) in pixels.chunks_exact_mut(n).enumerate() {
            for (x, pixel) in row.iter_mut().enumerate() {
                for (c, value) in pixel.iter_mut().enumerate() {
                    let mut sum = 0.0;
                    for sy in 0..SAMPLES {
                        for sx in 0..SAMPLES {
                            sum += light[(y * SAMPLES + sy) * fine + x * SAMPLES + sx][c];
                        }
                    }
                    *value = sum / (SAMPLES * SAMPLES) as f32;
                }
            }
        }
        // a 3-tap binomial across, then down
        let blurred = self.blur_once(&self.blur_once(&pixels, n, 1), n, n);
        let mut picture = RgbImage::new(size, size);
        for (index, value) in blurred.iter().enumerate() {
            let (x, y) = (index % n, index / n);
            let u = 2.0 * (x as f32 + 0.5) / n as f32 - 1.0 - self.centre.0;
            let v = 2.0 * (y as f32 + 0.5) / n as f32 - 1.0 - self.centre.1;
            let falloff = self.exposure * (1.0 - self.vignette * 0.5 * (u * u + v * v));
            let mut rgb = [0_u8; 3];
            // most of the noise is shared by the channels, as after demosaicing
            let shared = chance.bell();
            for (c, out) in rgb.iter_mut().enumerate() {
                let level = (value[c] * falloff * self.tint[c]).max(0.0);
                let grain = self.noise * (0.8 * shared + 0.35 * chance.bell());
                // shot noise grows with √light, which after the √ tone curve is a constant
                let tone = level.sqrt() + grain;
                *out = (tone * 255.0 + 0.5).floor().clamp(0.0, 255.0) as u8;
            }
            picture.put_pixel(x as u32, y as u32, Rgb(rgb));
        }
        picture
    }

    fn blur_once(&self, pixels: &[[f32; 3]], n: usize, stride: usize) -> Vec<[f32; 3]> {
        let mut out = pixels.to_vec();
        for (index, value) in out.iter_mut().enumerate() {
            let place = if stride == 1 { index % n } else { index / n };
            let before = if place == 0 { index } else { index - stride };
            let after = if place + 1 == n {
                index
            } else {
                index + stride
            };
            for (c, channel) in value.iter_mut().enumerate() {
                *channel = (1.0 - 2.0 * self.blur) * pixels[index][c]
                    + self.blur * (pixels[before][c] + pixels[after][c]);
            }
        }
        out
    }
}

/// Turns defect coverage (`[size·2, size·2]`, 0 to 1) into a mask of 0 and 255: a pixel belongs to
/// the defect when at least `share` of it does; when none reaches that, the strongest pixels do.
pub(super) fn mask(coverage: &[f32], size: u32, share: f32) -> GrayImage {
    let n = size as usize;
    let fine = n * SAMPLES;
    let mut means = vec![0.0_f32; n * n];
    for (index, mean) in means.iter_mut().enumerate() {
        let (x, y) = (index % n, index / n);
        let mut sum = 0.0;
        for sy in 0..SAMPLES {
            for sx in 0..SAMPLES {
                sum += coverage[(y * SAMPLES + sy) * fine + x * SAMPLES + sx];
            }
        }
        *mean = sum / (SAMPLES * SAMPLES) as f32;
    }
    let top = means.iter().copied().fold(0.0_f32, f32::max);
    let bar = if top >= share { share } else { 0.5 * top };
    GrayImage::from_fn(size, size, |x, y| {
        let value = means[y as usize * n + x as usize];
        Luma([if top > 0.0 && value >= bar { 255 } else { 0 }])
    })
}
