//! What all drawn scenes have in common.

use super::camera::{SAMPLES, mask};
use super::random::Chance;
use super::{DefectType, Drawing};

/// Side of an image that lengths are given in, in pixels, whatever the size drawn.
pub(super) const FRAME: f32 = 192.0;

/// Share of a pixel that a defect must cover for its mask to have it.
const MARKED: f32 = 0.3;

/// A part or a texture, sound until it is damaged.
pub(super) trait Scene {
    /// Gives it one kind of defect, as large and strong as `severity` says.
    fn damage(&mut self, defect: DefectType, severity: f32, chance: &mut Chance);

    /// Draws it, `size` × `size` pixels.
    fn render(&self, size: u32) -> Drawing;
}

/// Light of each sample, row by row, and how much of it the defect covers, as a drawing.
pub(super) fn drawing(light: Vec<[f32; 3]>, coverage: &[f32], size: u32) -> Drawing {
    Drawing {
        light,
        mask: mask(coverage, size, MARKED),
    }
}

/// Paints an image place by place: `at` gives for (x, y) and the width of a pixel, in pixels of [`FRAME`], the light and how
/// much of the place the defect covers.
pub(super) fn paint(size: u32, at: impl Fn(f32, f32, f32) -> ([f32; 3], f32)) -> Drawing {
    let n = size as usize * SAMPLES;
    let step = FRAME / n as f32;
    let soft = FRAME / size as f32;
    let middle = |index: usize| (index as f32 + 0.5) * step;
    let (light, coverage): (Vec<_>, Vec<_>) = (0..n * n)
        .map(|index| at(middle(index % n), middle(index / n), soft))
        .unzip();
    drawing(light, &coverage, size)
}

/// Light under a lamp to one side: 1 in the middle, and more or less towards the edges by `gradient`.
pub(super) fn lit(gradient: (f32, f32), x: f32, y: f32) -> f32 {
    let (cx, cy) = (x / FRAME - 0.5, y / FRAME - 0.5);
    1.0 + 2.0 * (gradient.0 * cx + gradient.1 * cy)
}
