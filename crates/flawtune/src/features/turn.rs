//! Images turned about their middle, for parts that lie in any direction.

use std::f64::consts::FRAC_1_SQRT_2;

use flawtune_backbone::preprocess::RgbImage8;

/// An angle in eighths of a full turn, counter-clockwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Turn(u8);

impl Turn {
    /// The eight angles 0°, 45°, … 315°, as `AnomalyDINO` turns its support.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..8).map(Self)
    }

    /// In degrees.
    pub fn degrees(self) -> u32 {
        45 * u32::from(self.0)
    }

    /// Whether it leaves images as they are.
    pub fn is_none(self) -> bool {
        self.0 == 0
    }

    /// Cosine and sine, exact to the last bit on every machine.
    fn direction(self) -> (f64, f64) {
        const H: f64 = FRAC_1_SQRT_2;
        [
            (1.0, 0.0),
            (H, H),
            (0.0, 1.0),
            (-H, H),
            (-1.0, 0.0),
            (-H, -H),
            (0.0, -1.0),
            (H, -H),
        ][usize::from(self.0 % 8)]
    }

    /// Where the point (`x`, `y`) of a turned image of `width`×`height` lies in the image itself.
    fn source(self, (x, y): (f64, f64), (height, width): (usize, usize)) -> (f64, f64) {
        let (cos, sin) = self.direction();
        let (middle_x, middle_y) = (width as f64 / 2.0, height as f64 / 2.0);
        let (dx, dy) = (x - middle_x, y - middle_y);
        // rows grow downwards
        (
            middle_x + cos * dx - sin * dy,
            middle_y + sin * dx + cos * dy,
        )
    }

    /// The image turned on a canvas of its own size, bilinear; what would come from outside is mirrored at the edge.
    pub fn apply(self, picture: RgbImage8) -> RgbImage8 {
        if self.is_none() {
            return picture;
        }
        let (height, width) = (picture.height(), picture.width());
        let pixels = picture.pixels();
        let mut out = Vec::with_capacity(pixels.len());
        for y in 0..height {
            for x in 0..width {
                let (from_x, from_y) =
                    self.source((x as f64 + 0.5, y as f64 + 0.5), (height, width));
                let (left, top) = ((from_x - 0.5).floor(), (from_y - 0.5).floor());
                let (right_share, lower_share) = (from_x - 0.5 - left, from_y - 0.5 - top);
                let at = |dy: f64, dx: f64| {
                    &pixels[(mirrored(top + dy, height) * width + mirrored(left + dx, width)) * 3..]
                        [..3]
                };
                let corners = [
                    (at(0.0, 0.0), (1.0 - lower_share) * (1.0 - right_share)),
                    (at(0.0, 1.0), (1.0 - lower_share) * right_share),
                    (at(1.0, 0.0), lower_share * (1.0 - right_share)),
                    (at(1.0, 1.0), lower_share * right_share),
                ];
                for channel in 0..3 {
                    let value: f64 = corners
                        .iter()
                        .map(|(pixel, share)| share * f64::from(pixel[channel]))
                        .sum();
                    out.push(value.round() as u8);
                }
            }
        }
        RgbImage8::from_pixels(height, width, out)
    }

    /// Whether the point (`x`, `y`) of the turned image shows the image itself, and not what is mirrored.
    pub fn shows(self, point: (f64, f64), (height, width): (usize, usize)) -> bool {
        let (x, y) = self.source(point, (height, width));
        (0.0..=width as f64).contains(&x) && (0.0..=height as f64).contains(&y)
    }
}

/// The position inside of `0..len` that `at` falls on when the line is mirrored at its ends.
fn mirrored(at: f64, len: usize) -> usize {
    let period = 2 * len as i64;
    let at = (at as i64).rem_euclid(period);
    (if at < len as i64 { at } else { period - 1 - at }) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(height: usize, width: usize) -> RgbImage8 {
        RgbImage8::from_pixels(
            height,
            width,
            (0..height * width * 3)
                .map(|i| (i * 31 % 256) as u8)
                .collect(),
        )
    }

    #[test]
    fn quarters_are_exact_and_four_of_them_are_none() {
        let square = picture(5, 5);
        let pixel = |p: &RgbImage8, y: usize, x: usize| p.pixels()[(y * 5 + x) * 3..][..3].to_vec();
        let quarter = Turn(2).apply(square.clone());
        // counter-clockwise: the right edge becomes the top
        assert_eq!(pixel(&quarter, 0, 0), pixel(&square, 0, 4));
        assert_eq!(pixel(&quarter, 4, 0), pixel(&square, 0, 0));
        let mut turned = square.clone();
        for _ in 0..4 {
            turned = Turn(2).apply(turned);
        }
        assert_eq!(turned, square);
        let half = Turn(4).apply(picture(4, 7));
        let back: Vec<u8> = half.pixels().chunks(3).rev().flatten().copied().collect();
        assert_eq!(back, picture(4, 7).pixels());
    }

    #[test]
    fn an_eighth_keeps_the_middle_and_mirrors_the_corners() {
        let flat = RgbImage8::from_pixels(9, 9, vec![77; 243]);
        assert_eq!(Turn(1).apply(flat.clone()), flat);
        let turned = Turn(3).apply(picture(9, 9));
        assert_eq!(
            turned.pixels()[40 * 3..][..3],
            picture(9, 9).pixels()[40 * 3..][..3]
        );
        assert!(Turn(1).shows((4.5, 4.5), (9, 9)) && !Turn(1).shows((0.5, 0.5), (9, 9)));
        assert!(Turn::all().all(|t| t.shows((4.5, 1.0), (9, 9))));
        assert_eq!(Turn::all().map(Turn::degrees).sum::<u32>(), 1260);
    }

    #[test]
    fn mirrors_repeat() {
        let found: Vec<usize> = (-4..8).map(|i| mirrored(f64::from(i), 3)).collect();
        assert_eq!(found, [2, 2, 1, 0, 0, 1, 2, 2, 1, 0, 0, 1]);
    }
}
