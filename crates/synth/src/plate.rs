//! A brushed steel plate with four drilled holes, as it comes from the machine: oily and dusty.
//!
//! Lengths are in pixels of a 192-pixel image whatever the size drawn. Good plates differ in where they lie, in
//! the brushing, in light, and in the oil and chips on them, which are plain to see and harmless: what is odd is not
//! what is wrong. At twice their usual severity the defects are as plain.

use super::noise::{fractal, lattice, mix, perlin, smoothstep};
use super::random::Chance;
use super::scene::{FRAME, Scene, lit, paint};
use super::shape::{Blob, Stroke};
use super::{DefectType, Drawing};

/// Where the holes are drilled, from either edge.
const HOLE_AT: f32 = 40.0;
const HOLE: f32 = 11.5;
const CHAMFER: f32 = 3.5;

/// A washer that was left on the plate, bright.
struct Washer {
    at: (f32, f32),
    radius: f32,
}

/// What liquid does to the light of each channel.
struct Film {
    shape: Blob,
    gain: [f32; 3],
}

/// A small thing that lies about.
struct Chip {
    x: f32,
    y: f32,
    radius: f32,
    shade: f32,
}

/// One plate.
pub(super) struct Plate {
    offset: (f32, f32),
    brushing: u32,
    depth: f32,
    gradient: (f32, f32),
    room: u32,
    oil: Vec<Film>,
    chips: Vec<Chip>,
    scratches: Vec<(Stroke, f32)>,
    pits: Vec<Blob>,
    rust: Vec<Film>,
    washer: Option<Washer>,
}

impl Plate {
    /// A sound one.
    pub(super) fn draw(chance: &mut Chance) -> Self {
        let mut plate = Self {
            offset: (chance.range(-3.0, 3.0), chance.range(-3.0, 3.0)),
            brushing: chance.bits(),
            depth: chance.range(0.16, 0.22),
            gradient: (chance.range(-0.16, 0.16), chance.range(-0.16, 0.16)),
            room: chance.bits(),
            oil: Vec::new(),
            chips: Vec::new(),
            scratches: Vec::new(),
            pits: Vec::new(),
            rust: Vec::new(),
            washer: None,
        };
        for _ in 0..chance.below(4) {
            let place = (chance.range(15.0, 177.0), chance.range(15.0, 177.0));
            let radius = chance.range(11.0, 24.0);
            let depth = chance.range(0.3, 0.62);
            plate.oil.push(Film {
                shape: Blob::draw(chance, place, radius, 0.15),
                gain: [-depth * 0.95, -depth, -depth * 1.04],
            });
        }
        for _ in 0..chance.below(9) {
            plate.chips.push(Chip {
                x: chance.range(3.0, 189.0),
                y: chance.range(3.0, 189.0),
                radius: chance.range(0.8, 2.0),
                shade: if chance.chance(0.5) { 0.75 } else { 0.05 },
            });
        }
        plate
    }

    fn hole(&self, index: usize) -> (f32, f32) {
        let place = |high: bool| if high { FRAME - HOLE_AT } else { HOLE_AT };
        (
            place(index % 2 == 1) + self.offset.0,
            place(index / 2 == 1) + self.offset.1,
        )
    }

    /// A place on the plate, clear of its holes.
    fn on_plate(&self, chance: &mut Chance) -> (f32, f32) {
        let mut place = (0.5 * FRAME, 0.5 * FRAME);
        // nine tenths of the square qualify: 32 tries fail once in 10^32, and then the last one stands
        for _ in 0..32 {
            place = (chance.range(28.0, 164.0), chance.range(28.0, 164.0));
            let clear = (0..4).all(|index| {
                let (x, y) = self.hole(index);
                let (dx, dy) = (place.0 - x, place.1 - y);
                dx * dx + dy * dy > (HOLE + 16.0) * (HOLE + 16.0)
            });
            if clear {
                break;
            }
        }
        place
    }

    /// Light of the bare steel.
    fn steel(&self, x: f32, y: f32) -> f32 {
        // brushed along the rows: streaks that are long and thin, over slower ones
        let streak = perlin(x / 26.0, y * 1.7, self.brushing)
            + 0.6 * perlin(x / 11.0, y * 3.1, self.brushing ^ 1);
        let grain = lattice((x * 2.0) as i32, (y * 2.0) as i32, self.brushing ^ 2);
        let room = fractal(x / 120.0, y / 120.0, 2, self.room);
        0.30 * (1.0 + self.depth * streak + 0.03 * grain + 0.10 * room)
    }

    /// Draws the holes over the steel.
    fn drill(&self, rgb: &mut [f32; 3], x: f32, y: f32, soft: f32) {
        for index in 0..4 {
            let inside = |radius| round((x, y), self.hole(index), radius, soft);
            for value in rgb.iter_mut() {
                *value = mix(
                    mix(*value, 0.17, inside(HOLE + CHAMFER)),
                    0.008,
                    inside(HOLE),
                );
            }
        }
    }

    /// Puts the washer over what is there and returns how much of the place it covers.
    fn leave(&self, rgb: &mut [f32; 3], x: f32, y: f32, soft: f32) -> f32 {
        let Some(Washer { at, radius }) = self.washer else {
            return 0.0;
        };
        let on = round((x, y), at, radius, soft) * (1.0 - round((x, y), at, 0.42 * radius, soft));
        for (value, shade) in rgb.iter_mut().zip([0.62, 0.64, 0.68]) {
            *value = mix(*value, shade, on);
        }
        on
    }

    /// Light of a place, and how much of it the defect covers.
    fn at(&self, x: f32, y: f32, soft: f32) -> ([f32; 3], f32) {
        let steel = self.steel(x, y);
        let mut rgb = [steel * 0.97, steel, steel * 1.05];
        self.drill(&mut rgb, x, y, soft);
        let mut cover = 0.0_f32;
        for (films, flawed) in [(&self.rust, true), (&self.oil, false)] {
            for Film { shape, gain } in films {
                if shape.near(x, y, soft) {
                    if flawed {
                        cover = cover.max(shape.coverage(x, y, soft));
                    }
                    // a film thins out to its rim
                    let wet = shape.coverage(x, y, 7.0);
                    for (value, gain) in rgb.iter_mut().zip(gain) {
                        *value *= (1.0 + gain * wet).max(0.05);
                    }
                }
            }
        }
        for (line, shade) in &self.scratches {
            let on = line.coverage(x, y, soft);
            cover = cover.max(on);
            for value in &mut rgb {
                *value = mix(*value, *shade, on);
            }
        }
        for pit in &self.pits {
            if pit.near(x, y, soft) {
                let inside = pit.coverage(x, y, soft);
                cover = cover.max(inside);
                for value in &mut rgb {
                    *value = mix(*value, 0.012, inside);
                }
            }
        }
        cover = cover.max(self.leave(&mut rgb, x, y, soft));
        for chip in &self.chips {
            let on = round((x, y), (chip.x, chip.y), chip.radius, soft);
            for value in &mut rgb {
                *value = mix(*value, chip.shade, on);
            }
        }
        let lit = lit(self.gradient, x, y);
        (rgb.map(|value| value * lit), cover)
    }
}

impl Scene for Plate {
    fn damage(&mut self, defect: DefectType, severity: f32, chance: &mut Chance) {
        match defect {
            DefectType::Scratch => {
                let place = self.on_plate(chance);
                let (turn, length, half_width) = (
                    chance.unit(),
                    chance.range(34.0, 60.0) * severity,
                    chance.range(0.9, 1.4) * severity,
                );
                let line = Stroke::draw(chance, place, turn, length, half_width, 0.1);
                let shade = if chance.chance(0.7) { 0.85 } else { 0.03 };
                self.scratches.push((line, shade));
            }
            DefectType::Hole => {
                let place = self.on_plate(chance);
                for _ in 0..=chance.below(2) {
                    let at = (
                        place.0 + chance.range(-14.0, 14.0),
                        place.1 + chance.range(-14.0, 14.0),
                    );
                    let radius = chance.range(3.4, 4.8) * severity;
                    self.pits.push(Blob::draw(chance, at, radius, 0.12));
                }
            }
            DefectType::Stain => {
                let place = self.on_plate(chance);
                let radius = chance.range(8.0, 13.0) * severity;
                let depth = (chance.range(0.4, 0.5) * severity).min(0.95);
                self.rust.push(Film {
                    shape: Blob::draw(chance, place, radius, 0.3),
                    gain: [-0.15 * depth, -0.7 * depth, -depth],
                });
            }
            DefectType::Misplaced => {
                // on a hole, or anywhere else
                let at = if chance.chance(0.4) {
                    self.hole(chance.below(4) as usize)
                } else {
                    self.on_plate(chance)
                };
                let radius = chance.range(6.5, 8.5) * severity;
                self.washer = Some(Washer { at, radius });
            }
        }
    }

    fn render(&self, size: u32) -> Drawing {
        paint(size, |x, y, soft| self.at(x, y, soft))
    }
}

/// Coverage of a disc at a place, with an edge `soft` wide.
fn round(place: (f32, f32), centre: (f32, f32), radius: f32, soft: f32) -> f32 {
    let (dx, dy) = (place.0 - centre.0, place.1 - centre.1);
    smoothstep(-0.5 * soft, 0.5 * soft, radius - (dx * dx + dy * dy).sqrt())
}
