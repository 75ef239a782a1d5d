//! A turned steel flange with six socket screws on a foam tray, under one lamp.
//!
//! Coordinates are the part's own: the image spans −1 to 1, the flange has radius 0.8 before pose.
//! Good parts differ in pose, light, finish, handling marks, dust and smudges; every screw is driven
//! to its own angle. The defects are close in size and contrast to those benign marks.

use super::camera::SAMPLES;
use super::noise::{cos_sin, fractal, lattice, mix, perlin, smoothstep};
use super::random::Chance;
use super::scene::{Scene, drawing};
use super::shape::{Blob, Stroke};
use super::{DefectType, Drawing};

const OUTER: f32 = 0.80;
const CHAMFER: f32 = 0.035;
const HUB_OUTER: f32 = 0.33;
const HUB_INNER: f32 = 0.30;
const BORE: f32 = 0.20;
const SCREW_CIRCLE: f32 = 0.565;
const POCKET: f32 = 0.118;
const HEAD: f32 = 0.094;
const SOCKET: f32 = 0.046;

/// One screw: where its head lies in its pocket and which way its drive points.
struct Screw {
    pocket: (f32, f32),
    head: (f32, f32),
    drive: (f32, f32),
    state: ScrewState,
}

#[derive(Clone, Copy, PartialEq)]
enum ScrewState {
    Fitted,
    Missing,
    /// a slotted screw where a hexagon socket belongs
    Wrong,
}

/// A small foreign grain that every part may carry.
struct Speck {
    x: f32,
    y: f32,
    radius: f32,
    shade: f32,
}

/// What a mark does to the brightness of each channel.
struct Mark<S> {
    shape: S,
    gain: [f32; 3],
}

/// One flange.
pub(super) struct Part {
    centre: (f32, f32),
    axis: (f32, f32),
    scale: f32,
    lamp: [f32; 3],
    half: [f32; 3],
    finish: u32,
    finish_depth: f32,
    tray: u32,
    room: u32,
    screws: Vec<Screw>,
    specks: Vec<Speck>,
    handling: Vec<Mark<Stroke>>,
    smudges: Vec<Mark<Blob>>,
    scratches: Vec<Mark<Stroke>>,
    pits: Vec<Blob>,
    pit_depth: f32,
    stains: Vec<Mark<Blob>>,
    misplaced: Option<usize>,
}

impl Part {
    /// A sound one.
    pub(super) fn draw(chance: &mut Chance) -> Self {
        // a fixture holds the part: it lies within 5° of the same way round
        let turn = chance.range(-0.014, 0.014);
        let (lx, ly) = cos_sin(chance.range(0.52, 0.72));
        let slope = chance.range(0.55, 0.85);
        let lamp = unit([lx * slope, ly * slope, 1.0]);
        let half = unit([lamp[0], lamp[1], lamp[2] + 1.0]);
        let screws = (0..6)
            .map(|index| {
                let (c, s) = cos_sin(index as f32 / 6.0);
                let pocket = (c * SCREW_CIRCLE, s * SCREW_CIRCLE);
                let play = 0.008;
                Screw {
                    pocket,
                    head: (
                        pocket.0 + chance.range(-play, play),
                        pocket.1 + chance.range(-play, play),
                    ),
                    drive: cos_sin(chance.unit()),
                    state: ScrewState::Fitted,
                }
            })
            .collect();
        let specks = (0..chance.below(6))
            .map(|_| Speck {
                x: chance.range(-0.9, 0.9),
                y: chance.range(-0.9, 0.9),
                radius: chance.range(0.006, 0.017),
                shade: if chance.chance(0.6) {
                    chance.range(0.45, 0.8)
                } else {
                    chance.range(1.25, 1.6)
                },
            })
            .collect();
        let mut part = Self {
            centre: (chance.range(-0.03, 0.03), chance.range(-0.03, 0.03)),
            axis: cos_sin(turn),
            scale: chance.range(0.98, 1.02),
            lamp,
            half,
            finish: chance.bits(),
            finish_depth: chance.range(0.05, 0.11),
            tray: chance.bits(),
            room: chance.bits(),
            screws,
            specks,
            handling: Vec::new(),
            smudges: Vec::new(),
            scratches: Vec::new(),
            pits: Vec::new(),
            pit_depth: 0.0,
            stains: Vec::new(),
            misplaced: None,
        };
        for _ in 0..chance.below(5) {
            // short, faint marks of handling that run with the turning grooves
            let place = part.on_face(chance);
            let radius = (place.0 * place.0 + place.1 * place.1).sqrt();
            let (tx, ty) = (-place.1 / radius, place.0 / radius);
            let length = chance.range(0.05, 0.16);
            let points = (-4..=4_i32)
                .map(|i| {
                    let along = i as f32 / 8.0 * length;
                    // a parabola follows the circle closely enough at this length
                    let sink = 0.5 * along * along / radius;
                    (
                        place.0 + tx * along - place.0 / radius * sink,
                        place.1 + ty * along - place.1 / radius * sink,
                    )
                })
                .collect();
            let gain = 1.0 + chance.sign() * chance.range(0.08, 0.2);
            part.handling.push(Mark {
                shape: Stroke::through(points, chance.range(0.004, 0.008)),
                gain: [gain; 3],
            });
        }
        for _ in 0..chance.below(3) {
            let place = part.on_face(chance);
            let radius = chance.range(0.08, 0.2);
            let gain = 1.0 - chance.range(0.03, 0.075);
            part.smudges.push(Mark {
                shape: Blob::draw(chance, place, radius, 0.5),
                gain: [gain, gain, gain * chance.range(0.98, 1.01)],
            });
        }
        part
    }

    /// A place on the flat face, clear of hub, screws and rim.
    fn on_face(&self, chance: &mut Chance) -> (f32, f32) {
        let mut place = (0.0, SCREW_CIRCLE);
        // a third of the square qualifies: 64 tries fail once in 10^11, and then the last one stands
        for _ in 0..64 {
            place = (chance.range(-0.74, 0.74), chance.range(-0.74, 0.74));
            let radius = (place.0 * place.0 + place.1 * place.1).sqrt();
            let clear = self.screws.iter().all(|screw| {
                let (dx, dy) = (place.0 - screw.pocket.0, place.1 - screw.pocket.1);
                dx * dx + dy * dy > (POCKET + 0.03) * (POCKET + 0.03)
            });
            if clear && radius > HUB_OUTER + 0.03 && radius < OUTER - CHAMFER - 0.03 {
                break;
            }
        }
        place
    }

    /// Height of the surface and what it is made of; lengths in part units.
    fn surface(&self, x: f32, y: f32, soft: f32) -> Surface {
        let r = (x * x + y * y).sqrt();
        // a keyway opens the bore on one side
        let bore = (r - BORE).min((x.abs() - 0.045).max(r - BORE - 0.065).max(-y));
        let body = smoothstep(-0.5 * soft, 0.5 * soft, OUTER - r)
            * smoothstep(-0.5 * soft, 0.5 * soft, bore);
        let mut height = -0.6 * CHAMFER * (1.0 - smoothstep(0.0, CHAMFER, OUTER - r));
        height += 0.030 * (1.0 - smoothstep(HUB_INNER, HUB_OUTER, r));
        height -= 0.02 * (1.0 - smoothstep(0.0, 0.02, bore));
        let mut surface = Surface {
            height,
            body,
            steel: 1.0,
            shade: 1.0,
            depth: 0.0,
        };
        for screw in &self.screws {
            screw.cut(&mut surface, x, y, soft);
        }
        for pit in &self.pits {
            if pit.near(x, y, soft) {
                let inside = pit.coverage(x, y, soft * 1.5);
                surface.height -= 0.02 * inside;
                surface.depth = surface.depth.max(inside * self.pit_depth);
            }
        }
        surface
    }

    /// Coverage of the defect at a point, for the mask.
    fn flaw_at(&self, x: f32, y: f32, soft: f32) -> f32 {
        let mut cover = 0.0_f32;
        for scratch in &self.scratches {
            cover = cover.max(scratch.shape.coverage(x, y, soft));
        }
        for pit in &self.pits {
            cover = cover.max(pit.coverage(x, y, soft));
        }
        for stain in &self.stains {
            cover = cover.max(stain.shape.coverage(x, y, soft));
        }
        if let Some(index) = self.misplaced {
            let screw = &self.screws[index];
            let at = if screw.state == ScrewState::Wrong {
                screw.head
            } else {
                screw.pocket
            };
            let radius = if screw.state == ScrewState::Wrong {
                HEAD
            } else {
                POCKET
            };
            let (dx, dy) = (x - at.0, y - at.1);
            cover = cover.max(smoothstep(
                -0.5 * soft,
                0.5 * soft,
                radius - (dx * dx + dy * dy).sqrt(),
            ));
        }
        cover
    }

    /// Light that the part sends to the camera.
    fn steel(&self, x: f32, y: f32, normal: [f32; 3], surface: &Surface) -> [f32; 3] {
        let r = (x * x + y * y).sqrt().max(1e-4);
        // grooves of the lathe: rings of uneven depth, and a slower waviness of the finish
        let ring =
            perlin(r * 95.0, 0.5, self.finish) + 0.6 * perlin(r * 31.0, 7.5, self.finish ^ 1);
        let grain = lattice(
            (x * 700.0).floor() as i32,
            (y * 700.0).floor() as i32,
            self.finish ^ 2,
        );
        let mut albedo = 0.40 * (1.0 + self.finish_depth * ring + 0.02 * grain);
        // across the grooves light spreads in a fan: bright where the groove is square to the lamp
        let (tx, ty) = (
            (-y * self.axis.0 - x * self.axis.1) / r,
            (x * self.axis.0 - y * self.axis.1) / r,
        );
        let along = tx * self.half[0] + ty * self.half[1];
        let fan = 1.0 - (along * along * 4.5).min(1.0);
        let fan = fan * fan;
        let facing =
            (normal[0] * self.lamp[0] + normal[1] * self.lamp[1] + normal[2] * self.lamp[2])
                .max(0.0);
        let shine =
            (normal[0] * self.half[0] + normal[1] * self.half[1] + normal[2] * self.half[2])
                .max(0.0);
        let shine = power(shine, 5);
        let room = 0.5
            + 0.5
                * fractal(
                    normal[0] * 0.8 + x * 0.6,
                    normal[1] * 0.8 + y * 0.6,
                    2,
                    self.room,
                );
        let black = 1.0 - surface.steel;
        albedo = mix(albedo, 0.055, black);
        let gloss = mix(0.30 * fan, 0.10 * shine, black);
        let mut value = albedo * (0.22 + 0.5 * facing + 0.28 * room)
            + gloss * (0.75 + 0.25 * ring * self.finish_depth * 8.0);
        value *= surface.shade * (1.0 - surface.depth);
        let mut rgb = [value * 0.985, value, value * 1.015];
        let soft = 0.011;
        if surface.steel > 0.5 {
            for mark in self.handling.iter().chain(&self.scratches) {
                let cover = mark.shape.coverage(x, y, soft);
                if cover > 0.0 {
                    // uneven pressure
                    let press = 0.75 + 0.25 * perlin(x * 25.0, y * 25.0, self.finish ^ 3);
                    scale_by(&mut rgb, mark.gain, cover * press);
                }
            }
        }
        for mark in self.smudges.iter().chain(&self.stains) {
            if mark.shape.near(x, y, soft) {
                scale_by(&mut rgb, mark.gain, mark.shape.tide(x, y, soft * 2.5));
            }
        }
        self.dust(&mut rgb, x, y);
        rgb
    }

    fn dust(&self, rgb: &mut [f32; 3], x: f32, y: f32) {
        for speck in &self.specks {
            let (dx, dy) = (x - speck.x, y - speck.y);
            let cover = smoothstep(-0.006, 0.006, speck.radius - (dx * dx + dy * dy).sqrt());
            scale_by(rgb, [speck.shade; 3], cover);
        }
    }

    /// Light that the foam tray sends to the camera at image place `(u, v)`, part place `(x, y)`.
    fn tray(&self, u: f32, v: f32, x: f32, y: f32) -> [f32; 3] {
        let cells = fractal(u * 34.0, v * 34.0, 2, self.tray);
        let cloud = fractal(u * 1.5, v * 1.5, 2, self.tray ^ 9);
        let mut value = 0.085 * (1.0 + 0.35 * cells + 0.12 * cloud);
        // the shadow is the part moved away from the lamp, soft with distance
        let (sx, sy) = (-self.lamp[0] * 0.12, -self.lamp[1] * 0.12);
        let (px, py) = (
            x - (sx * self.axis.0 + sy * self.axis.1),
            y - (sy * self.axis.0 - sx * self.axis.1),
        );
        let r = (px * px + py * py).sqrt();
        value *= 1.0
            - 0.6 * smoothstep(-0.07, 0.05, OUTER - r) * smoothstep(-0.12, 0.03, r - BORE + 0.06);
        let mut rgb = [value * 0.80, value * 0.95, value * 1.25];
        self.dust(&mut rgb, x, y);
        rgb
    }
}

impl Scene for Part {
    fn damage(&mut self, defect: DefectType, severity: f32, chance: &mut Chance) {
        match defect {
            DefectType::Scratch => {
                for _ in 0..=chance.below(2) {
                    let place = self.on_face(chance);
                    let length = chance.range(0.12, 0.34) * severity;
                    let half_width = chance.range(0.005, 0.010) * severity;
                    let turn = chance.unit();
                    let shape = Stroke::draw(chance, place, turn, length, half_width, 0.12);
                    let gain = if chance.chance(0.7) {
                        chance.range(1.3, 1.6)
                    } else {
                        chance.range(0.5, 0.72)
                    };
                    self.scratches.push(Mark {
                        shape,
                        gain: [(1.0 + (gain - 1.0) * severity).max(0.1); 3],
                    });
                }
            }
            DefectType::Hole => {
                self.pit_depth = (chance.range(0.5, 0.8) * severity).min(0.95);
                for _ in 0..=chance.below(3) {
                    let place = self.on_face(chance);
                    let radius = chance.range(0.016, 0.036) * severity;
                    self.pits.push(Blob::draw(chance, place, radius, 0.35));
                }
            }
            DefectType::Stain => {
                let place = self.on_face(chance);
                let radius = chance.range(0.06, 0.14) * severity;
                let depth = (chance.range(0.11, 0.24) * severity).min(0.6);
                // thin oil goes blue, rust and old coolant go brown
                let tint = if chance.chance(0.5) {
                    [1.25, 1.0, 0.7]
                } else {
                    [0.7, 0.95, 1.35]
                };
                let gain = [
                    1.0 - depth * tint[0],
                    1.0 - depth * tint[1],
                    1.0 - depth * tint[2],
                ];
                self.stains.push(Mark {
                    shape: Blob::draw(chance, place, radius, 0.55),
                    gain,
                });
            }
            DefectType::Misplaced => {
                let index = chance.below(6) as usize;
                self.misplaced = Some(index);
                let screw = &mut self.screws[index];
                match chance.below(4) {
                    0 => screw.state = ScrewState::Missing,
                    1 => screw.state = ScrewState::Wrong,
                    _ => {
                        let (c, s) = cos_sin(chance.unit());
                        let off = chance.range(0.04, 0.062) * severity.min(1.6);
                        screw.head = (screw.pocket.0 + c * off, screw.pocket.1 + s * off);
                    }
                }
            }
        }
    }

    fn render(&self, size: u32) -> Drawing {
        let n = size as usize * SAMPLES;
        let step = 2.0 / n as f32;
        let soft = 2.0 / size as f32;
        let to_part = |px: usize, py: usize| {
            let (u, v) = (
                ((px as f32 + 0.5) * step - 1.0 - self.centre.0) / self.scale,
                ((py as f32 + 0.5) * step - 1.0 - self.centre.1) / self.scale,
            );
            (
                u * self.axis.0 + v * self.axis.1,
                v * self.axis.0 - u * self.axis.1,
            )
        };
        let surfaces: Vec<Surface> = (0..n * n)
            .map(|index| {
                let (x, y) = to_part(index % n, index / n);
                self.surface(x, y, soft)
            })
            .collect();
        let mut coverage = vec![0.0_f32; n * n];
        let mut light = vec![[0.0_f32; 3]; n * n];
        for index in 0..n * n {
            let (px, py) = (index % n, index / n);
            let (x, y) = to_part(px, py);
            let here = &surfaces[index];
            coverage[index] = self.flaw_at(x, y, soft) * here.body;
            // slope by central difference, one-sided at the frame
            let (left, right) = (px.saturating_sub(1), (px + 1).min(n - 1));
            let (up, down) = (py.saturating_sub(1), (py + 1).min(n - 1));
            let slope_x = (surfaces[py * n + right].height - surfaces[py * n + left].height)
                / ((right - left) as f32 * step);
            let slope_y = (surfaces[down * n + px].height - surfaces[up * n + px].height)
                / ((down - up) as f32 * step);
            let normal = unit([-slope_x, -slope_y, 1.0]);
            let steel = self.steel(x, y, normal, here);
            let tray = self.tray(px as f32 * step - 1.0, py as f32 * step - 1.0, x, y);
            for c in 0..3 {
                light[index][c] = mix(tray[c], steel[c], here.body);
            }
        }
        drawing(light, &coverage, size)
    }
}

/// One point of the part.
struct Surface {
    height: f32,
    /// 1 on the part, 0 on the tray
    body: f32,
    /// 1 bright steel, 0 black oxide
    steel: f32,
    /// ambient light that reaches it
    shade: f32,
    /// how far a pit swallows the light
    depth: f32,
}

impl Screw {
    /// Cuts the pocket and sets the screw in it.
    fn cut(&self, surface: &mut Surface, x: f32, y: f32, soft: f32) {
        let (dx, dy) = (x - self.pocket.0, y - self.pocket.1);
        let distance = (dx * dx + dy * dy).sqrt();
        if distance > POCKET + 0.05 {
            return;
        }
        let edge = |inside: f32| smoothstep(-0.5 * soft, 0.5 * soft, inside);
        let pocket = edge(POCKET - distance);
        surface.height -= 0.02 * smoothstep(-0.012, 0.012, POCKET - distance);
        surface.shade *= 1.0 - 0.55 * pocket;
        if self.state == ScrewState::Missing {
            // bare seat, and the tapped hole in it
            let hole = edge(0.06 - distance);
            let thread = smoothstep(0.0, 0.012, (distance - 0.066).abs());
            surface.shade *= (1.0 - 0.25 * (1.0 - thread)) * (1.0 - 0.9 * hole);
            return;
        }
        let (hx, hy) = (x - self.head.0, y - self.head.1);
        let from_head = (hx * hx + hy * hy).sqrt();
        let head = edge(HEAD - from_head).min(pocket);
        surface.height += head * 0.018 * smoothstep(0.0, 0.03, HEAD - from_head);
        surface.steel = surface.steel.min(1.0 - head);
        surface.shade = mix(surface.shade, 1.0, head);
        let (u, v) = (
            hx * self.drive.0 + hy * self.drive.1,
            hy * self.drive.0 - hx * self.drive.1,
        );
        let drive = if self.state == ScrewState::Wrong {
            edge(0.013 - v.abs()).min(edge(HEAD * 0.92 - u.abs()))
        } else {
            // a hexagon: the three distances to its pairs of sides
            let tilt = 0.866_025_4;
            let across = u
                .abs()
                .max((0.5 * u + tilt * v).abs())
                .max((0.5 * u - tilt * v).abs());
            edge(SOCKET - across)
        };
        surface.shade *= 1.0 - 0.75 * drive * head;
        surface.height -= 0.012 * drive * head;
    }
}

fn unit(v: [f32; 3]) -> [f32; 3] {
    let norm = (v[0] * v[0] + v[1] * v[1] + v[2] * v[2]).sqrt();
    [v[0] / norm, v[1] / norm, v[2] / norm]
}

/// `value` to the power `2^doublings`.
fn power(value: f32, doublings: u32) -> f32 {
    (0..doublings).fold(value, |v, _| v * v)
}

fn scale_by(rgb: &mut [f32; 3], gain: [f32; 3], strength: f32) {
    for (value, g) in rgb.iter_mut().zip(gain) {
        *value *= 1.0 + (g - 1.0) * strength;
    }
}
