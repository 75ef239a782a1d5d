//! The photograph that drawn gravel is cut from, and reading it between its pixels.

use std::sync::OnceLock;

/// Gravel from above, CC0; its origin is told in `assets/README.md`.
static GRAVEL: &[u8] = include_bytes!("../assets/gravel.png");

/// Pixels on either side that a value between two pixels is made of, and that a slope looks further.
const MARGIN: usize = 3;

/// A part of the photograph. Places are in pixels from its upper left corner.
pub(super) struct Photograph {
    levels: &'static Levels,
    from: usize,
    width: usize,
}

struct Levels {
    values: Vec<u8>,
    width: usize,
    height: usize,
}

fn gravel() -> &'static Levels {
    static DECODED: OnceLock<Levels> = OnceLock::new();
    DECODED.get_or_init(|| {
        let picture = image::load_from_memory_with_format(GRAVEL, image::ImageFormat::Png)
            .expect("the photograph is a part of the program and decodes")
            .into_rgb8();
        let (width, height) = (picture.width() as usize, picture.height() as usize);
        // grey: the three channels agree
        Levels {
            values: picture.pixels().map(|pixel| pixel.0[0]).collect(),
            width,
            height,
        }
    })
}

/// The half that the images of a split are cut from: no tested stone was ever learned from.
pub(super) fn of(split: &str) -> Photograph {
    if split == "train" { left() } else { right() }
}

/// The left half: training images are cut from it.
pub(super) fn left() -> Photograph {
    let levels = gravel();
    Photograph {
        levels,
        from: 0,
        width: levels.width / 2,
    }
}

/// The right half: all other images are cut from it.
pub(super) fn right() -> Photograph {
    let levels = gravel();
    let from = levels.width / 2;
    Photograph {
        levels,
        from,
        width: levels.width - from,
    }
}

impl Photograph {
    /// Width and height of the places that [`tone`](Self::tone) reads without meeting an edge.
    pub(super) fn extent(&self) -> (f32, f32) {
        (
            (self.width - 2 * MARGIN) as f32,
            (self.levels.height - 2 * MARGIN) as f32,
        )
    }

    /// Brightness in `[0, 1]` on the photograph's own scale, by cubic interpolation (Catmull–Rom). A pixel of
    /// another part is never read: places outside get the value at the edge.
    pub(super) fn tone(&self, x: f32, y: f32) -> f32 {
        let margin = MARGIN as f32 - 0.5;
        let (x, y) = (x + margin, y + margin);
        let (fx, fy) = (x.floor(), y.floor());
        let (across, down) = (weights(x - fx), weights(y - fy));
        let mut sum = 0.0;
        for (j, wy) in down.into_iter().enumerate() {
            let row = (fy as i32 + j as i32 - 1).clamp(0, self.levels.height as i32 - 1) as usize;
            let mut line = 0.0;
            for (i, wx) in across.into_iter().enumerate() {
                let column = (fx as i32 + i as i32 - 1).clamp(0, self.width as i32 - 1) as usize;
                line += wx
                    * f32::from(self.levels.values[row * self.levels.width + self.from + column]);
            }
            sum += wy * line;
        }
        (sum * (1.0 / 255.0)).clamp(0.0, 1.0)
    }
}

/// Weights of the four pixels about a place `t` of the way from the second to the third.
fn weights(t: f32) -> [f32; 4] {
    [
        0.5 * t * (-1.0 + t * (2.0 - t)),
        0.5 * (2.0 + t * t * (3.0 * t - 5.0)),
        0.5 * t * (1.0 + t * (4.0 - 3.0 * t)),
        0.5 * t * t * (t - 1.0),
    ]
}

#[cfg(test)]
mod tests {
    use super::{MARGIN, left, right, weights};

    #[test]
    fn between_pixels_the_weights_sum_to_one_and_at_pixels_one_counts() {
        assert_eq!(weights(0.0), [0.0, 1.0, 0.0, 0.0]);
        assert_eq!(weights(1.0), [0.0, 0.0, 1.0, 0.0]);
        for step in 0..=16 {
            let sum: f32 = weights(step as f32 / 16.0).iter().sum();
            assert!((sum - 1.0).abs() < 1e-6, "{sum}");
        }
    }

    #[test]
    fn the_photograph_is_what_it_was() {
        // every drawn gravel depends on these bytes
        let levels = left().levels;
        assert_eq!((levels.width, levels.height), (512, 512));
        assert!(levels.values.iter().all(|v| v % 3 == 0));
        let sum: u64 = levels.values.iter().map(|v| u64::from(*v)).sum();
        assert_eq!(sum, SUM);
    }

    const SUM: u64 = 33_173_340;

    #[test]
    fn the_halves_have_no_pixel_in_common() {
        let (left, right) = (left(), right());
        assert_eq!(
            (left.from, left.width, right.from, right.width),
            (0, 256, 256, 256)
        );
        // pixel centres read as they are stored, in their own half
        let stored = |half: &super::Photograph, x: usize, y: usize| {
            f32::from(half.levels.values[y * 512 + half.from + x]) / 255.0
        };
        for half in [&left, &right] {
            for (x, y) in [(0, 0), (10, 20), (249, 505)] {
                let read = half.tone(x as f32 + 0.5, y as f32 + 0.5);
                assert!((read - stored(half, x + MARGIN, y + MARGIN)).abs() < 1e-6);
            }
            // far outside: the edge, not the neighbour
            assert!((half.tone(1000.0, 10.5) - stored(half, 255, 10 + MARGIN)).abs() < 1e-6);
            assert!((half.tone(-1000.0, 10.5) - stored(half, 0, 10 + MARGIN)).abs() < 1e-6);
        }
    }
}
