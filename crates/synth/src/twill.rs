//! A 2/2 twill cloth, blue warp and grey weft, filling the frame.
//!
//! Lengths are in pixels of a 192-pixel image whatever the size drawn. Good cloth differs in the
//! angle and tension on the table, in light, in every yarn's thickness and shade, and carries slubs
//! and lint; the defects are of the same size and contrast.

use super::noise::{cos_sin, fractal, lattice, mix, perlin, smoothstep};
use super::random::Chance;
use super::scene::{FRAME, Scene, paint};
use super::shape::{Blob, Stroke};
use super::{DefectType, Drawing};

const PITCH: f32 = 7.4;
const WARP: [f32; 3] = [0.150, 0.195, 0.300];
const WEFT: [f32; 3] = [0.330, 0.335, 0.325];

/// A stretch of one weft yarn, in yarn coordinates.
struct Pick {
    yarn: i32,
    from: f32,
    to: f32,
}

impl Pick {
    fn covers(&self, yarn: i32, along: f32) -> bool {
        yarn == self.yarn && along >= self.from && along < self.to
    }
}

enum Misweave {
    /// the yarn is absent: the warp floats over a dark gap
    Gone,
    /// the yarn passes over where it should pass under
    Shifted,
}

/// One piece of cloth.
pub(super) struct Cloth {
    axis: (f32, f32),
    pitch: f32,
    offset: (f32, f32),
    tension: f32,
    warp_seed: u32,
    yarn_seed: u32,
    fibre_seed: u32,
    lamp: (f32, f32),
    gradient: (f32, f32),
    fold_seed: u32,
    slubs: Vec<(Pick, bool, f32)>,
    lint: Vec<(Stroke, f32)>,
    scratches: Vec<(Stroke, f32)>,
    holes: Vec<(Blob, f32)>,
    stains: Vec<(Blob, [f32; 3])>,
    misweave: Option<(Vec<Pick>, Misweave)>,
}

/// What a yarn sample looks like.
struct Thread {
    yarn: i32,
    /// place along the yarn, in pitches
    along: f32,
    /// −1 to 1 across the yarn
    across: f32,
    /// 0 to 1 along the float
    float: f32,
    is_warp: bool,
}

impl Cloth {
    /// A sound one.
    pub(super) fn draw(chance: &mut Chance) -> Self {
        let mut cloth = Self {
            axis: cos_sin(chance.range(-0.016, 0.016)),
            pitch: PITCH * chance.range(0.96, 1.05),
            offset: (chance.range(0.0, 40.0), chance.range(0.0, 40.0)),
            tension: chance.range(0.5, 1.7),
            warp_seed: chance.bits(),
            yarn_seed: chance.bits(),
            fibre_seed: chance.bits(),
            lamp: (chance.range(-0.25, 0.25), chance.range(-0.25, 0.25)),
            gradient: (chance.range(-0.16, 0.16), chance.range(-0.16, 0.16)),
            fold_seed: chance.bits(),
            slubs: Vec::new(),
            lint: Vec::new(),
            scratches: Vec::new(),
            holes: Vec::new(),
            stains: Vec::new(),
            misweave: None,
        };
        for _ in 0..=chance.below(5) {
            let from = chance.range(-2.0, 24.0);
            let pick = Pick {
                yarn: 8 + chance.below(24) as i32,
                from: from + 6.0,
                to: from + 6.0 + chance.range(2.0, 8.0),
            };
            cloth.slubs.push((
                pick,
                chance.chance(0.5),
                chance.range(0.06, 0.20) * if chance.chance(0.7) { 1.0 } else { -0.7 },
            ));
        }
        for _ in 0..chance.below(4) {
            let place = (chance.range(5.0, 187.0), chance.range(5.0, 187.0));
            let (turn, length, half_width) = (
                chance.unit(),
                chance.range(7.0, 20.0),
                chance.range(0.35, 0.6),
            );
            let fibre = Stroke::draw(chance, place, turn, length, half_width, 0.5);
            cloth.lint.push((fibre, chance.range(0.10, 0.24)));
        }
        cloth
    }

    /// Image place to yarn coordinates, in pitches: the cloth is turned, scaled and unevenly pulled.
    fn to_cloth(&self, x: f32, y: f32) -> (f32, f32) {
        let pull = |seed: u32| self.tension * fractal(x / 55.0, y / 55.0, 2, seed) * 2.2;
        let (u, v) = (
            x + pull(self.warp_seed) + self.offset.0,
            y + pull(self.warp_seed ^ 5) + self.offset.1,
        );
        (
            (u * self.axis.0 + v * self.axis.1) / self.pitch,
            (v * self.axis.0 - u * self.axis.1) / self.pitch,
        )
    }

    /// How the weft yarn `row` is misrouted at `along`, if it is.
    fn misweave_at(&self, row: i32, along: f32) -> Option<&Misweave> {
        let (picks, kind) = self.misweave.as_ref()?;
        picks
            .iter()
            .any(|pick| pick.covers(row, along))
            .then_some(kind)
    }

    /// The yarn on top at a place of the cloth.
    fn top(&self, u: f32, v: f32) -> (Thread, bool) {
        let (column, row) = (u.floor() as i32, v.floor() as i32);
        let (fu, fv) = (u - u.floor(), v - v.floor());
        let mut phase = column.wrapping_add(row) & 3;
        let mut gap = false;
        match self.misweave_at(row, u) {
            Some(Misweave::Gone) => {
                gap = phase >= 2;
                phase &= 1;
            }
            Some(Misweave::Shifted) => phase = (phase + 2) & 3,
            None => {}
        }
        let thread = if phase < 2 {
            Thread {
                yarn: column,
                along: v,
                across: 2.0 * fu - 1.0,
                float: 0.5 * (phase as f32 + fv),
                is_warp: true,
            }
        } else {
            Thread {
                yarn: row,
                along: u,
                across: 2.0 * fv - 1.0,
                float: 0.5 * ((phase - 2) as f32 + fu),
                is_warp: false,
            }
        };
        (thread, gap)
    }

    fn colour(&self, thread: &Thread, gap: bool) -> [f32; 3] {
        let side = i32::from(thread.is_warp);
        let seed = self.yarn_seed ^ (side as u32 * 0x1234_5671);
        // each yarn has its shade and thickness, and both drift along it
        let shade = 0.07 * lattice(thread.yarn, 0, seed)
            + 0.08 * perlin(thread.along * 0.35, thread.yarn as f32 * 3.7, seed ^ 1);
        let thick = 0.90
            + 0.05 * lattice(thread.yarn, 1, seed)
            + 0.06 * perlin(thread.along * 0.5, thread.yarn as f32 * 5.3, seed ^ 2);
        let mut slub = 0.0;
        for (pick, warp, strength) in &self.slubs {
            if *warp == thread.is_warp && pick.yarn == thread.yarn {
                let middle = 0.5 * (pick.from + pick.to);
                let far = (thread.along - middle).abs() / (0.5 * (pick.to - pick.from));
                slub += strength * (1.0 - smoothstep(0.5, 1.0, far));
            }
        }
        let across = thread.across / (thick + 0.3 * slub);
        let round = (1.0 - across * across).max(0.0).sqrt();
        let arch = 1.0 - (2.0 * thread.float - 1.0) * (2.0 * thread.float - 1.0);
        // fibres twist around the yarn
        let twist = thread.across * 2.6 + thread.along * if thread.is_warp { 1.4 } else { -1.4 };
        let fibre = perlin(
            twist * 1.8,
            thread.along * 0.5 + thread.yarn as f32 * 9.1,
            self.fibre_seed,
        );
        let tilt = if thread.is_warp {
            self.lamp.0
        } else {
            self.lamp.1
        } * thread.across;
        let mut value = (0.30 + 0.52 * round + 0.26 * arch)
            * (1.0 + 0.16 * fibre + shade + slub + tilt * round);
        if gap {
            value *= 0.72;
        }
        let base = if thread.is_warp { WARP } else { WEFT };
        [base[0] * value, base[1] * value, base[2] * value]
    }

    /// Light of a place, and how much of it the defect covers.
    fn at(&self, x: f32, y: f32, soft: f32) -> ([f32; 3], f32) {
        let (u, v) = self.to_cloth(x, y);
        let (thread, gap) = self.top(u, v);
        let mut rgb = self.colour(&thread, gap);
        let mut cover = f32::from(u8::from(self.misweave_at(v.floor() as i32, u).is_some()));
        let fuzz = perlin(x * 0.6, y * 0.6, self.fibre_seed ^ 3);
        for (line, strength) in &self.lint {
            let on = line.coverage(x, y, soft) * strength;
            for value in &mut rgb {
                *value = mix(*value, 0.62, on);
            }
        }
        for (line, strength) in &self.scratches {
            let on = line.coverage(x, y, soft);
            cover = cover.max(on);
            // rubbed fibres catch the light, in tufts
            let tuft = on * strength * (0.8 + 0.5 * fuzz);
            for value in &mut rgb {
                *value = mix(*value, 0.55, tuft);
            }
        }
        for (blob, gain) in &self.stains {
            if blob.near(x, y, soft) {
                cover = cover.max(blob.coverage(x, y, soft));
                // liquid wicks along the yarns, so its edge is soft
                let wet = blob.tide(x, y, soft * 3.0);
                for (value, g) in rgb.iter_mut().zip(gain) {
                    *value *= 1.0 + g * wet;
                }
            }
        }
        for (blob, depth) in &self.holes {
            if blob.near(x, y, soft * 2.0) {
                let open = smoothstep(-0.6, 0.9, blob.inside(x, y) + 0.7 * fuzz);
                cover = cover.max(smoothstep(-0.5, 0.5, blob.inside(x, y)));
                for value in &mut rgb {
                    *value = mix(*value, 0.028, open * depth);
                }
            }
        }
        let (cx, cy) = (x / FRAME - 0.5, y / FRAME - 0.5);
        let fold = 0.07 * fractal(x / 90.0, y / 90.0, 2, self.fold_seed);
        let lit = 1.0 + self.gradient.0 * cx * 2.0 + self.gradient.1 * cy * 2.0 + fold;
        (rgb.map(|value| value * lit), cover)
    }
}

impl Scene for Cloth {
    fn damage(&mut self, defect: DefectType, severity: f32, chance: &mut Chance) {
        let place = (chance.range(22.0, 170.0), chance.range(22.0, 170.0));
        match defect {
            DefectType::Scratch => {
                let (turn, length, half_width) = (
                    chance.unit(),
                    chance.range(20.0, 52.0) * severity,
                    chance.range(0.6, 1.15) * severity,
                );
                let line = Stroke::draw(chance, place, turn, length, half_width, 0.12);
                let strength = (chance.range(0.24, 0.42) * severity).min(1.0);
                self.scratches.push((line, strength));
            }
            DefectType::Hole => {
                for _ in 0..=chance.below(2) {
                    let at = (
                        place.0 + chance.range(-16.0, 16.0),
                        place.1 + chance.range(-16.0, 16.0),
                    );
                    let radius = chance.range(2.0, 4.2) * severity;
                    self.holes
                        .push((Blob::draw(chance, at, radius, 0.5), chance.range(0.55, 0.9)));
                }
            }
            DefectType::Stain => {
                let radius = chance.range(7.0, 16.0) * severity;
                let depth = (chance.range(0.10, 0.24) * severity).min(0.6);
                let tint = if chance.chance(0.6) {
                    [0.6, 1.0, 1.4]
                } else {
                    [1.0, 1.0, 1.0]
                };
                let gain = [-depth * tint[0], -depth * tint[1], -depth * tint[2]];
                self.stains
                    .push((Blob::draw(chance, place, radius, 0.55), gain));
            }
            DefectType::Misplaced => {
                let (u, v) = self.to_cloth(place.0, place.1);
                let yarn = v.floor() as i32;
                let length = chance.range(4.0, 9.0) * severity;
                let from = (u - 0.5 * length).floor();
                let kind = if chance.chance(0.5) {
                    Misweave::Gone
                } else {
                    Misweave::Shifted
                };
                let picks = (0..=chance.below(2) as i32)
                    .map(|extra| Pick {
                        yarn: yarn + extra,
                        from,
                        to: from + length.floor(),
                    })
                    .collect();
                self.misweave = Some((picks, kind));
            }
        }
    }

    fn render(&self, size: u32) -> Drawing {
        paint(size, |x, y, soft| self.at(x, y, soft))
    }
}
