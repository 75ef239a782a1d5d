//! A slab of exposed gravel that fills the frame, cut from a photograph (see `assets/README.md`).
//!
//! Lengths are in pixels of a 192-pixel image whatever the size drawn. Training images are cut
//! from the left half of the photograph, all others from the right half, so no tested stone was ever
//! learned from. Good slabs differ in the cut, the way round they lie, distance, tilt, light, colour
//! and dampness, and carry straws and pale chips; the defects are of the same size and contrast.

use super::noise::{cos_sin, fractal, mix, perlin, smoothstep};
use super::photograph::Photograph;
use super::random::Chance;
use super::scene::{FRAME, Scene, lit, paint};
use super::shape::{Blob, Stroke};
use super::{DefectType, Drawing};

/// Half the edge of the ground that an image shows, in pixels of the photograph.
const HALF_EDGE: (f32, f32) = (74.0, 94.0);
/// Most that one side of the image is nearer than its middle, a part of the distance.
const TILT: f32 = 0.04;

/// A stone where none should be, or none where one should.
struct Intruder {
    shape: Blob,
    kind: IntruderKind,
}

enum IntruderKind {
    /// the stone broke out: dark grit at the bottom of its bed
    Missing { grit: (f32, f32) },
    /// a smooth pebble of another quarry
    Pebble { colour: [f32; 3], grain: u32 },
    /// a stone of the right kind, too large
    Coarse { from: (f32, f32), gain: f32 },
}

/// What dried on the stones.
struct Stain {
    shape: Blob,
    /// change of the light that the ground sends back, channel by channel
    gain: [f32; 3],
    /// how far a pale crust hides the ground
    crust: f32,
}

/// One slab.
pub(super) struct Slab {
    photograph: Photograph,
    /// middle of the cut, in pixels of the photograph
    centre: (f32, f32),
    axis: (f32, f32),
    mirror: f32,
    half_edge: f32,
    tilt: (f32, f32),
    lamp: (f32, f32),
    gradient: (f32, f32),
    contrast: f32,
    tone: [f32; 3],
    tone_seed: u32,
    damp_seed: u32,
    damp: f32,
    straws: Vec<(Stroke, f32)>,
    chips: Vec<(Blob, f32)>,
    scratches: Vec<(Stroke, f32)>,
    holes: Vec<(Blob, f32)>,
    stains: Vec<Stain>,
    intruder: Option<Intruder>,
}

impl Slab {
    /// A sound one.
    pub(super) fn draw(photograph: Photograph, chance: &mut Chance) -> Self {
        // a square slab: four ways to lie, each within 7°
        let axis = cos_sin(0.25 * chance.below(4) as f32 + chance.range(-0.02, 0.02));
        let half_edge = chance.range(HALF_EDGE.0, HALF_EDGE.1);
        let tilt = (chance.range(-TILT, TILT), chance.range(-TILT, TILT));
        // the furthest that the cut can reach from its middle, along either edge of the photograph
        let reach = half_edge * (axis.0.abs() + axis.1.abs()) / (1.0 - tilt.0.abs() - tilt.1.abs());
        let (width, height) = photograph.extent();
        let mut slab = Self {
            photograph,
            centre: (
                chance.range(reach, width - reach),
                chance.range(reach, height - reach),
            ),
            axis,
            mirror: chance.sign(),
            half_edge,
            tilt,
            lamp: (chance.range(-1.0, 1.0), chance.range(-1.0, 1.0)),
            gradient: (chance.range(-0.12, 0.12), chance.range(-0.12, 0.12)),
            contrast: chance.range(0.92, 1.08),
            tone: [chance.range(0.99, 1.05), 1.0, chance.range(0.93, 1.01)],
            tone_seed: chance.bits(),
            damp_seed: chance.bits(),
            damp: chance.range(0.04, 0.14),
            straws: Vec::new(),
            chips: Vec::new(),
            scratches: Vec::new(),
            holes: Vec::new(),
            stains: Vec::new(),
            intruder: None,
        };
        for _ in 0..chance.below(4) {
            let place = (chance.range(5.0, 187.0), chance.range(5.0, 187.0));
            let (turn, length, half_width) = (
                chance.unit(),
                chance.range(14.0, 44.0),
                chance.range(0.35, 0.65),
            );
            let straw = Stroke::draw(chance, place, turn, length, half_width, 0.08);
            slab.straws.push((straw, chance.range(0.15, 0.4)));
        }
        for _ in 0..chance.below(5) {
            let place = (chance.range(5.0, 187.0), chance.range(5.0, 187.0));
            let radius = chance.range(1.2, 2.6);
            slab.chips.push((
                Blob::draw(chance, place, radius, 0.5),
                chance.range(0.2, 0.5),
            ));
        }
        slab
    }

    /// A place of the image on the photograph.
    fn on_photograph(&self, x: f32, y: f32) -> (f32, f32) {
        let (u, v) = (2.0 * x / FRAME - 1.0, 2.0 * y / FRAME - 1.0);
        let near = self.half_edge / (1.0 + self.tilt.0 * u + self.tilt.1 * v);
        let (u, v) = (u * near * self.mirror, v * near);
        (
            self.centre.0 + u * self.axis.0 - v * self.axis.1,
            self.centre.1 + u * self.axis.1 + v * self.axis.0,
        )
    }

    /// Light of the bare ground at a place of the image, linear.
    fn ground(&self, x: f32, y: f32) -> f32 {
        let (px, py) = self.on_photograph(x, y);
        let tone = self.photograph.tone(px, py);
        // brightness stands in for height: a slope turned to the lamp is lit a little more
        let slope = (self.photograph.tone(px + 1.0, py) - self.photograph.tone(px - 1.0, py))
            * self.lamp.0
            + (self.photograph.tone(px, py + 1.0) - self.photograph.tone(px, py - 1.0))
                * self.lamp.1;
        let tone = (0.5 + (tone - 0.5) * self.contrast + 0.10 * slope).max(0.0);
        // the camera's tone curve is √
        tone * tone
    }

    /// The ground about `from`, `zoom` times as large, as seen at `(dx, dy)` from a place; mirrored at the frame.
    fn piece(&self, from: (f32, f32), dx: f32, dy: f32, zoom: f32) -> f32 {
        let fold = |v: f32| {
            let v = v.abs();
            if v > FRAME {
                (2.0 * FRAME - v).max(0.0)
            } else {
                v
            }
        };
        self.ground(fold(from.0 + dx / zoom), fold(from.1 + dy / zoom))
    }

    /// Puts the misplaced stone over the ground and returns how much of the place it covers.
    fn intrude(&self, rgb: &mut [f32; 3], x: f32, y: f32, soft: f32) -> f32 {
        let Some(Intruder { shape, kind }) = &self.intruder else {
            return 0.0;
        };
        if !shape.near(x, y, 6.0) {
            return 0.0;
        }
        let inside = shape.inside(x, y);
        let on = smoothstep(-0.5 * soft, 0.5 * soft, inside);
        let (dx, dy) = shape.offset(x, y);
        let depth = (inside / shape.radius()).clamp(0.0, 1.0);
        // a stone shades the bed about it
        let shadow = 1.0 - 0.45 * smoothstep(-5.0, 0.0, inside);
        match kind {
            IntruderKind::Missing { grit } => {
                let fine = self.piece(*grit, dx, dy, 0.35);
                let wall = 0.12 + 0.26 * smoothstep(0.0, 0.7, depth);
                for (value, tone) in rgb.iter_mut().zip(self.tone) {
                    *value = mix(*value, fine * tone * wall, on);
                }
            }
            IntruderKind::Pebble { colour, grain } => {
                let height = (depth * (2.0 - depth)).sqrt();
                let facing = (dx * self.lamp.0 + dy * self.lamp.1) / shape.radius();
                let skin = 1.0 + 0.14 * fractal(x / 2.5, y / 2.5, 3, *grain);
                let lit = (0.45 + 0.6 * height + 0.12 * facing) * skin;
                for (value, c) in rgb.iter_mut().zip(colour) {
                    *value = mix(*value * shadow, c * lit, on);
                }
            }
            IntruderKind::Coarse { from, gain } => {
                // magnified, the photograph lacks the finest grain
                let grain = 1.0 + 0.2 * fractal(x / 2.0, y / 2.0, 2, self.tone_seed ^ 7);
                let large = self.piece(*from, dx, dy, 2.0) * gain * grain;
                for (value, tone) in rgb.iter_mut().zip(self.tone) {
                    *value = mix(*value * shadow, large * tone, on);
                }
            }
        }
        on
    }

    /// Light of a place, and how much of it the defect covers.
    fn at(&self, x: f32, y: f32, soft: f32) -> ([f32; 3], f32) {
        let bare = self.ground(x, y);
        // stones come in slightly different greys
        let warm = 0.05 * perlin(x / 13.0, y / 13.0, self.tone_seed);
        let mut rgb = [
            bare * self.tone[0] * (1.0 + warm),
            bare * self.tone[1],
            bare * self.tone[2] * (1.0 - warm),
        ];
        let damp = smoothstep(-0.1, 0.5, fractal(x / 60.0, y / 60.0, 3, self.damp_seed));
        for value in &mut rgb {
            *value *= 1.0 - self.damp * damp;
        }
        let mut cover = self.intrude(&mut rgb, x, y, soft);
        for (chip, strength) in &self.chips {
            if chip.near(x, y, soft) {
                let on = chip.coverage(x, y, soft) * strength;
                for value in &mut rgb {
                    *value = mix(*value, 0.5, on);
                }
            }
        }
        for (line, strength) in &self.scratches {
            let on = line.coverage(x, y, soft);
            if on > 0.0 {
                cover = cover.max(on);
                // what scrapes over stones reaches their tops, hardly the gaps
                let top = 0.4 + 0.6 * smoothstep(0.06, 0.22, bare);
                for value in &mut rgb {
                    *value = mix(*value, 0.85, on * strength * top);
                }
            }
        }
        for stain in &self.stains {
            if stain.shape.near(x, y, soft) {
                cover = cover.max(stain.shape.coverage(x, y, soft));
                let wet = stain.shape.tide(x, y, soft * 5.0);
                for (value, gain) in rgb.iter_mut().zip(stain.gain) {
                    *value = mix(
                        *value * (1.0 + gain * wet).max(0.05),
                        0.75,
                        stain.crust * wet.min(1.0),
                    );
                }
            }
        }
        for (hole, depth) in &self.holes {
            if hole.near(x, y, soft * 2.0) {
                let inside = hole.inside(x, y);
                cover = cover.max(smoothstep(-0.5 * soft, 0.5 * soft, inside));
                let open = smoothstep(-0.4, 1.2, inside);
                // what was drilled out lies about it as dust
                let dust = 0.5 * smoothstep(-3.2, -0.8, inside) * (1.0 - open);
                for value in &mut rgb {
                    *value = mix(mix(*value, 0.42, dust * depth), 0.015, open * depth);
                }
            }
        }
        for (line, strength) in &self.straws {
            let on = line.coverage(x, y, soft) * strength;
            for (value, straw) in rgb.iter_mut().zip([0.50, 0.45, 0.33]) {
                *value = mix(*value, straw, on);
            }
        }
        let lit = lit(self.gradient, x, y);
        (rgb.map(|value| value * lit), cover)
    }
}

impl Scene for Slab {
    fn damage(&mut self, defect: DefectType, severity: f32, chance: &mut Chance) {
        let place = (chance.range(24.0, 168.0), chance.range(24.0, 168.0));
        match defect {
            DefectType::Scratch => {
                let (turn, length, half_width) = (
                    chance.unit(),
                    chance.range(45.0, 100.0) * severity,
                    chance.range(1.2, 2.2) * severity,
                );
                let line = Stroke::draw(chance, place, turn, length, half_width, 0.06);
                let strength = (chance.range(0.55, 1.0) * severity).min(1.0);
                self.scratches.push((line, strength));
            }
            DefectType::Hole => {
                for _ in 0..=chance.below(3) {
                    let at = (
                        place.0 + chance.range(-18.0, 18.0),
                        place.1 + chance.range(-18.0, 18.0),
                    );
                    let radius = chance.range(5.0, 9.5) * severity;
                    self.holes
                        .push((Blob::draw(chance, at, radius, 0.2), chance.range(0.85, 1.0)));
                }
            }
            DefectType::Stain => {
                let radius = chance.range(14.0, 28.0) * severity;
                let depth = (chance.range(0.30, 0.60) * severity).min(0.7);
                let (gain, crust) = match chance.below(3) {
                    // rust
                    0 => ([-0.45 * depth, -depth, -1.6 * depth], 0.0),
                    // oil
                    1 => ([-1.7 * depth, -1.6 * depth, -1.45 * depth], 0.0),
                    // lime bloom
                    _ => ([0.0; 3], 1.3 * depth),
                };
                self.stains.push(Stain {
                    shape: Blob::draw(chance, place, radius, 0.6),
                    gain,
                    crust,
                });
            }
            DefectType::Misplaced => {
                let elsewhere = (chance.range(30.0, 162.0), chance.range(30.0, 162.0));
                let (radius, kind) = match chance.below(3) {
                    0 => (
                        chance.range(8.5, 13.0),
                        IntruderKind::Missing { grit: elsewhere },
                    ),
                    1 => {
                        let shade = chance.range(0.16, 0.34);
                        let warm = chance.range(-0.15, 0.35);
                        let colour = [shade * (1.0 + warm), shade, shade * (1.0 - warm)];
                        (
                            chance.range(7.5, 11.5),
                            IntruderKind::Pebble {
                                colour,
                                grain: chance.bits(),
                            },
                        )
                    }
                    _ => {
                        let gain = if chance.chance(0.5) {
                            chance.range(0.6, 0.8)
                        } else {
                            chance.range(1.15, 1.45)
                        };
                        (
                            chance.range(13.0, 19.0),
                            IntruderKind::Coarse {
                                from: elsewhere,
                                gain,
                            },
                        )
                    }
                };
                self.intruder = Some(Intruder {
                    shape: Blob::draw(chance, place, radius * severity, 0.3),
                    kind,
                });
            }
        }
    }

    fn render(&self, size: u32) -> Drawing {
        paint(size, |x, y, soft| self.at(x, y, soft))
    }
}

#[cfg(test)]
mod tests {
    use super::super::photograph;
    use super::{Chance, FRAME, Slab};

    #[test]
    fn a_picture_never_reaches_the_edge_of_its_half() {
        for index in 0..300_u32 {
            let slab = Slab::draw(
                photograph::left(),
                &mut Chance::named(&[b"slab", &index.to_le_bytes()]),
            );
            let (width, height) = slab.photograph.extent();
            // a tilted square stays a quadrangle: its corners are its furthest points
            for (x, y) in [(0.0, 0.0), (FRAME, 0.0), (0.0, FRAME), (FRAME, FRAME)] {
                let (px, py) = slab.on_photograph(x, y);
                assert!(
                    (0.0..=width).contains(&px) && (0.0..=height).contains(&py),
                    "{index}: {px} {py}"
                );
            }
        }
    }
}
