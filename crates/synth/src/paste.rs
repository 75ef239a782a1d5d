//! Puts a synthetic defect on a user's own image: to test a line, or to train without defects.
//!
//! `CutPaste` follows the idea of Li et al., CVPR 2021 (arXiv:2104.04015): a piece of the image
//! moved to where it does not belong. `Blend` follows DRAEM, Zavrtanik et al., ICCV 2021
//! (arXiv:2108.07610): a foreign texture let in where Perlin noise is high. The other kinds imitate
//! what they are named after.

use std::fmt;
use std::str::FromStr;

use image::{GrayImage, Luma, Rgb, RgbImage};

use super::SynthError;
use super::noise::{cos_sin, fractal, mix, perlin, smoothstep};
use super::random::Chance;
use super::shape::{Blob, Stroke};

/// Shortest edge that has room for a defect, in pixels.
pub(super) const SMALLEST_EDGE: u32 = 8;

/// What is put on an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PasteKind {
    /// A thin bent line, lighter or darker than what it crosses.
    Scratch,
    /// A dark pit with a lit rim.
    Hole,
    /// A tinted, cloudy patch with a tide mark.
    Stain,
    /// A turned, recoloured rectangle of the same image in a wrong place.
    CutPaste,
    /// A foreign texture blended in through a noise-shaped window.
    Blend,
}

impl PasteKind {
    /// Every kind.
    pub const ALL: [Self; 5] = [
        Self::Scratch,
        Self::Hole,
        Self::Stain,
        Self::CutPaste,
        Self::Blend,
    ];

    /// Name on the command line and of the defect type's folder.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scratch => "scratch",
            Self::Hole => "hole",
            Self::Stain => "stain",
            Self::CutPaste => "cut-paste",
            Self::Blend => "blend",
        }
    }
}

impl fmt::Display for PasteKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for PasteKind {
    type Err = SynthError;

    fn from_str(text: &str) -> Result<Self, SynthError> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == text)
            .ok_or_else(|| SynthError::UnknownName {
                what: "defect kind",
                found: text.to_owned(),
                known: "scratch, hole, stain, cut-paste, blend",
            })
    }
}

/// Returns the image with one synthetic defect, and the defect's mask (0 sound, 255 defect).
///
/// Lengths follow the shorter edge of the image; a scratch is never thinner than a pixel. Every
/// pixel outside the mask's neighbourhood stays as it was. The result depends on the arguments
/// alone, to the bit. An image with an edge under 8 pixels has no room: it comes back unchanged,
/// with an empty mask; otherwise the mask is never empty.
///
/// ```
/// use flawtune_synth::{PasteKind, paste_defects};
///
/// let sound = image::RgbImage::from_pixel(64, 48, image::Rgb([120, 120, 120]));
/// let (flawed, mask) = paste_defects(&sound, PasteKind::Scratch, 7);
/// assert_ne!(flawed, sound);
/// assert!(mask.pixels().any(|pixel| pixel.0 == [255]));
/// ```
pub fn paste_defects(picture: &RgbImage, kind: PasteKind, seed: u64) -> (RgbImage, GrayImage) {
    let (width, height) = picture.dimensions();
    if width.min(height) < SMALLEST_EDGE {
        return (picture.clone(), GrayImage::new(width, height));
    }
    let mut chance = Chance::named(&[b"paste", kind.name().as_bytes(), &seed.to_le_bytes()]);
    let mut canvas = Canvas::over(picture);
    match kind {
        PasteKind::Scratch => scratch(&mut canvas, &mut chance),
        PasteKind::Hole => hole(&mut canvas, &mut chance),
        PasteKind::Stain => stain(&mut canvas, &mut chance),
        PasteKind::CutPaste => cut_paste(&mut canvas, &mut chance),
        PasteKind::Blend => blend(&mut canvas, &mut chance),
    }
    canvas.finish()
}

/// The image being changed, and how much of each pixel the defect covers.
struct Canvas<'a> {
    sound: &'a RgbImage,
    flawed: RgbImage,
    coverage: Vec<f32>,
    width: f32,
    height: f32,
    /// shorter edge, in pixels
    edge: f32,
}

impl<'a> Canvas<'a> {
    fn over(sound: &'a RgbImage) -> Self {
        let (width, height) = sound.dimensions();
        Self {
            sound,
            flawed: sound.clone(),
            coverage: vec![0.0; width as usize * height as usize],
            width: width as f32,
            height: height as f32,
            edge: width.min(height) as f32,
        }
    }

    /// A place that keeps a tenth of the image's edge from its border.
    fn place(&self, chance: &mut Chance) -> (f32, f32) {
        (
            self.width * chance.range(0.1, 0.9),
            self.height * chance.range(0.1, 0.9),
        )
    }

    /// Mean brightness about a place, 0 to 255.
    fn brightness(&self, place: (f32, f32)) -> f32 {
        let mut sum = 0.0;
        for dy in -2..=2_i32 {
            for dx in -2..=2_i32 {
                let rgb = self.sample(
                    place.0 + dx as f32 * self.edge / 32.0,
                    place.1 + dy as f32 * self.edge / 32.0,
                );
                sum += rgb[0] + rgb[1] + rgb[2];
            }
        }
        sum / 75.0
    }

    /// The sound image at a place, nearest pixel, clamped to the frame.
    fn sample(&self, x: f32, y: f32) -> [f32; 3] {
        let x = x.floor().clamp(0.0, self.width - 1.0) as u32;
        let y = y.floor().clamp(0.0, self.height - 1.0) as u32;
        self.sound.get_pixel(x, y).0.map(f32::from)
    }

    /// Calls `change(x, y, sound colour)` for each pixel within `reach` of `place`; where it returns
    /// a colour and a coverage above 0, both are written.
    fn change(
        &mut self,
        place: (f32, f32),
        reach: f32,
        change: impl Fn(&Self, f32, f32, [f32; 3]) -> ([f32; 3], f32),
    ) {
        let low = |v: f32| (v - reach).floor().max(0.0) as u32;
        let high = |v: f32, end: f32| (v + reach).floor().clamp(0.0, end - 1.0) as u32;
        for y in low(place.1)..=high(place.1, self.height) {
            for x in low(place.0)..=high(place.0, self.width) {
                let (cx, cy) = (x as f32 + 0.5, y as f32 + 0.5);
                let (colour, cover) =
                    change(self, cx, cy, self.sound.get_pixel(x, y).0.map(f32::from));
                if cover > 0.0 {
                    let bytes = colour.map(|v| (v + 0.5).floor().clamp(0.0, 255.0) as u8);
                    self.flawed.put_pixel(x, y, Rgb(bytes));
                    let index = y as usize * self.width as usize + x as usize;
                    self.coverage[index] = self.coverage[index].max(cover);
                }
            }
        }
    }

    fn finish(self) -> (RgbImage, GrayImage) {
        let (width, height) = self.sound.dimensions();
        let top = self.coverage.iter().copied().fold(0.0_f32, f32::max);
        // a defect fainter than the bar everywhere still marks its strongest pixels
        let bar = if top >= 0.3 { 0.3 } else { 0.5 * top };
        let mask = GrayImage::from_fn(width, height, |x, y| {
            let cover = self.coverage[y as usize * width as usize + x as usize];
            Luma([if cover > 0.0 && cover >= bar { 255 } else { 0 }])
        });
        (self.flawed, mask)
    }
}

fn scratch(canvas: &mut Canvas<'_>, chance: &mut Chance) {
    let place = canvas.place(chance);
    let (turn, length) = (chance.unit(), canvas.edge * chance.range(0.10, 0.35));
    let half_width = (canvas.edge * chance.range(0.0025, 0.006)).max(0.5);
    let line = Stroke::draw(chance, place, turn, length, half_width, 0.15);
    // away from the end of the scale that the place is near
    let light = if canvas.brightness(place) > 150.0 {
        -1.0
    } else {
        1.0
    };
    let strength = light * chance.range(35.0, 90.0);
    let seed = chance.bits();
    canvas.change(place, length + half_width + 2.0, |_, x, y, sound| {
        let cover = line.coverage(x, y, 1.0);
        let press = 0.8 + 0.3 * perlin(x / (4.0 * half_width), y / (4.0 * half_width), seed);
        (sound.map(|v| v + strength * press * cover), cover)
    });
}

fn hole(canvas: &mut Canvas<'_>, chance: &mut Chance) {
    let place = canvas.place(chance);
    let radius = (canvas.edge * chance.range(0.012, 0.04)).max(1.2);
    let blob = Blob::draw(chance, place, radius, 0.4);
    let depth = chance.range(0.6, 0.9);
    let (lx, ly) = cos_sin(chance.unit());
    // in a dark place the floor of the pit cannot be darker: light dust settles in it
    let floor = if canvas.brightness(place) > 60.0 {
        12.0
    } else {
        120.0
    };
    canvas.change(place, blob.reach() + radius + 3.0, |_, x, y, sound| {
        let inside = blob.inside(x, y);
        let open = smoothstep(-0.6, 0.6 + 0.25 * radius, inside);
        // the rim turned to the lamp is lit, the one turned away lies in shade
        let rim = 1.0 - smoothstep(0.0, 0.35 * radius + 1.0, inside.abs());
        let facing = ((x - place.0) * lx + (y - place.1) * ly) / radius;
        let lit = rim * facing.clamp(-1.0, 1.0) * 28.0;
        (
            sound.map(|v| mix(v, floor, open * depth) + lit),
            smoothstep(-0.6, 0.6, inside),
        )
    });
}

fn stain(canvas: &mut Canvas<'_>, chance: &mut Chance) {
    let place = canvas.place(chance);
    let radius = (canvas.edge * chance.range(0.04, 0.12)).max(2.0);
    let blob = Blob::draw(chance, place, radius, 0.55);
    let depth = chance.range(0.12, 0.32);
    let tint = [
        chance.range(0.5, 1.2),
        chance.range(0.7, 1.2),
        chance.range(0.7, 1.4),
    ];
    // a liquid darkens; on black it can only dull
    let dull = canvas.brightness(place) < 60.0;
    canvas.change(place, blob.reach() + 4.0, |_, x, y, sound| {
        let wet = blob.tide(x, y, 3.0);
        let mut colour = sound;
        for (value, t) in colour.iter_mut().zip(tint) {
            *value = if dull {
                *value + 90.0 * depth * t * wet
            } else {
                *value * (1.0 - depth * t * wet)
            };
        }
        (colour, blob.coverage(x, y, 1.0))
    });
}

fn cut_paste(canvas: &mut Canvas<'_>, chance: &mut Chance) {
    // 0.5 to 4 % of the image, at most 4 times as long as wide: √ keeps the area
    let area = canvas.width * canvas.height * chance.range(0.005, 0.04);
    let aspect = chance.range(0.5, 2.0);
    let (half_w, half_h) = (0.5 * area.sqrt() * aspect, 0.5 * area.sqrt() / aspect);
    let (from, place) = (canvas.place(chance), canvas.place(chance));
    let (c, s) = cos_sin(chance.range(-0.125, 0.125));
    let gain = [
        chance.range(0.9, 1.1),
        chance.range(0.9, 1.1),
        chance.range(0.9, 1.1),
    ];
    // a uniform surface would hide its own piece: the piece is also a little lighter or darker
    let lift = chance.range(8.0, 22.0)
        * if canvas.brightness(place) > 128.0 {
            -1.0
        } else {
            1.0
        };
    canvas.change(place, half_w + half_h + 1.0, |canvas, x, y, sound| {
        let (dx, dy) = (x - place.0, y - place.1);
        let (u, v) = (dx * c + dy * s, dy * c - dx * s);
        let inside = (half_w - u.abs()).min(half_h - v.abs());
        let cover = smoothstep(-0.5, 0.5, inside);
        let piece = canvas.sample(from.0 + u, from.1 + v);
        let mut colour = sound;
        for (index, value) in colour.iter_mut().enumerate() {
            *value = mix(*value, piece[index] * gain[index] + lift, cover);
        }
        (colour, cover)
    });
}

fn blend(canvas: &mut Canvas<'_>, chance: &mut Chance) {
    let place = canvas.place(chance);
    let radius = (canvas.edge * chance.range(0.06, 0.16)).max(3.0);
    let (window, texture) = (chance.bits(), chance.bits());
    let grain = radius * chance.range(0.3, 0.8);
    let opacity = chance.range(0.3, 0.8);
    let own = chance.chance(0.5);
    let (c, s) = cos_sin(chance.unit());
    let shift = canvas.place(chance);
    let base = [
        chance.range(40.0, 215.0),
        chance.range(40.0, 215.0),
        chance.range(40.0, 215.0),
    ];
    let fineness = chance.range(1.5, 6.0);
    let lift = if canvas.brightness(place) > 128.0 {
        -30.0
    } else {
        30.0
    };
    canvas.change(place, radius + 1.0, |canvas, x, y, sound| {
        let (dx, dy) = (x - place.0, y - place.1);
        let far = (dx * dx + dy * dy).sqrt() / radius;
        // the noise is lifted in the middle, so that the window never closes, and ends at the radius
        let level = fractal(x / grain, y / grain, 3, window) + 0.9 * (1.0 - far) - 0.25;
        let cover = smoothstep(-0.06, 0.06, level) * (1.0 - smoothstep(0.9, 1.0, far));
        let foreign = if own {
            // the image itself, turned and moved, a little off in brightness
            canvas
                .sample(shift.0 + dx * c - dy * s, shift.1 + dx * s + dy * c)
                .map(|v| v + lift)
        } else {
            let wave = fractal(x * fineness / radius, y * fineness / radius, 3, texture);
            base.map(|v| v + 90.0 * wave)
        };
        let mut colour = sound;
        for (value, f) in colour.iter_mut().zip(foreign) {
            *value = mix(*value, f, cover * opacity);
        }
        (colour, cover)
    });
}

#[cfg(test)]
mod tests {
    use image::{Rgb, RgbImage};

    use super::{PasteKind, paste_defects};

    fn pattern(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| {
            Rgb([
                (x * 5 % 200) as u8,
                (y * 7 % 180) as u8,
                ((x + y) * 3 % 220) as u8,
            ])
        })
    }

    #[test]
    fn every_kind_leaves_a_mask_that_tells_where_it_changed_the_picture() {
        for (width, height) in [(8, 8), (33, 90), (192, 160)] {
            for base in [
                pattern(width, height),
                RgbImage::from_pixel(width, height, Rgb([0, 0, 0])),
                RgbImage::from_pixel(width, height, Rgb([255, 255, 255])),
            ] {
                for kind in PasteKind::ALL {
                    for seed in 0..12 {
                        let (flawed, mask) = paste_defects(&base, kind, seed);
                        let marked = mask.pixels().filter(|p| p.0[0] == 255).count();
                        let what = format!("{kind} {width}x{height} seed {seed}");
                        assert!(marked > 0, "{what}: empty mask");
                        assert!(
                            marked < (width * height) as usize / 2,
                            "{what}: {marked} pixels"
                        );
                        assert!(mask.pixels().all(|p| p.0[0] == 0 || p.0[0] == 255));
                        let changed_inside = mask
                            .enumerate_pixels()
                            .filter(|(x, y, p)| {
                                p.0[0] == 255 && flawed.get_pixel(*x, *y) != base.get_pixel(*x, *y)
                            })
                            .count();
                        assert!(
                            2 * changed_inside >= marked,
                            "{what}: {changed_inside} of {marked} changed"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn the_seed_alone_decides() {
        let base = pattern(64, 64);
        for kind in PasteKind::ALL {
            assert_eq!(paste_defects(&base, kind, 5), paste_defects(&base, kind, 5));
            assert_ne!(
                paste_defects(&base, kind, 5).0,
                paste_defects(&base, kind, 6).0
            );
        }
    }

    #[test]
    fn pictures_without_room_come_back_unchanged() {
        for (width, height) in [(0, 0), (1, 1), (7, 100)] {
            let base = pattern(width, height);
            let (same, mask) = paste_defects(&base, PasteKind::Hole, 1);
            assert_eq!(same, base);
            assert!(mask.pixels().all(|p| p.0[0] == 0));
        }
    }

    #[test]
    fn names_round_trip() {
        for kind in PasteKind::ALL {
            assert_eq!(kind.name().parse::<PasteKind>().unwrap(), kind);
        }
        assert!(
            "dent"
                .parse::<PasteKind>()
                .unwrap_err()
                .to_string()
                .contains("cut-paste")
        );
    }
}
