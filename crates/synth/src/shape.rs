//! Shapes that defects are made of: strokes and blobs, as anti-aliased coverage.

use super::noise::{cos_sin, fractal, perlin, smoothstep};
use super::random::Chance;

/// A curved line that tapers to its ends.
pub(super) struct Stroke {
    points: Vec<(f32, f32)>,
    half_width: f32,
    low: (f32, f32),
    high: (f32, f32),
}

impl Stroke {
    /// A line of `length` centred on `centre`, leaving it at `turns`, bending by up to `bend` turns
    /// from end to end.
    pub(super) fn draw(
        chance: &mut Chance,
        centre: (f32, f32),
        turns: f32,
        length: f32,
        half_width: f32,
        bend: f32,
    ) -> Self {
        const STEPS: usize = 14;
        let step = length / STEPS as f32;
        let bend = chance.range(-bend, bend) / STEPS as f32;
        let mut points = vec![centre];
        for direction in [0.0, 0.5] {
            let (mut x, mut y) = centre;
            let mut heading = turns + direction;
            // bending both halves the same way round makes one arc, not an S
            let turn_by = if direction == 0.0 { bend } else { -bend };
            for _ in 0..STEPS / 2 {
                heading += turn_by + chance.range(-0.004, 0.004);
                let (c, s) = cos_sin(heading);
                x += c * step;
                y += s * step;
                points.push((x, y));
            }
            if direction == 0.0 {
                points.reverse();
            }
        }
        Self::through(points, half_width)
    }

    /// A line through given points.
    pub(super) fn through(points: Vec<(f32, f32)>, half_width: f32) -> Self {
        let mut low = (f32::MAX, f32::MAX);
        let mut high = (f32::MIN, f32::MIN);
        for &(x, y) in &points {
            low = (low.0.min(x), low.1.min(y));
            high = (high.0.max(x), high.1.max(y));
        }
        Self {
            points,
            half_width,
            low,
            high,
        }
    }

    /// Signed distance over the soft edge: coverage in `[0, 1]` at a point; `soft` is the width of
    /// one pixel.
    pub(super) fn coverage(&self, x: f32, y: f32, soft: f32) -> f32 {
        let reach = self.half_width + soft;
        if x < self.low.0 - reach
            || y < self.low.1 - reach
            || x > self.high.0 + reach
            || y > self.high.1 + reach
        {
            return 0.0;
        }
        let last = (self.points.len() - 1) as f32;
        let mut best = 0.0_f32;
        for (index, pair) in self.points.windows(2).enumerate() {
            let ((ax, ay), (bx, by)) = (pair[0], pair[1]);
            let (ex, ey) = (bx - ax, by - ay);
            let along =
                (((x - ax) * ex + (y - ay) * ey) / (ex * ex + ey * ey).max(1e-12)).clamp(0.0, 1.0);
            let (dx, dy) = (x - ax - along * ex, y - ay - along * ey);
            let distance = (dx * dx + dy * dy).sqrt();
            let place = (index as f32 + along) / last;
            let taper = (4.0 * place * (1.0 - place)).sqrt();
            let edge = self.half_width * taper - distance;
            // a line thinner than a pixel covers less of it
            let share = (2.0 * self.half_width * taper / soft).min(1.0);
            best = best.max(smoothstep(-0.5 * soft, 0.5 * soft, edge) * share);
        }
        best
    }
}

/// A round patch with an uneven outline.
pub(super) struct Blob {
    x: f32,
    y: f32,
    radius: f32,
    wobble: f32,
    stretch: f32,
    axis: (f32, f32),
    seed: u32,
}

impl Blob {
    /// A blob about `centre`; `wobble` is the relative unevenness of its outline.
    pub(super) fn draw(chance: &mut Chance, centre: (f32, f32), radius: f32, wobble: f32) -> Self {
        Self {
            x: centre.0,
            y: centre.1,
            radius,
            wobble,
            stretch: chance.range(1.0, 1.5),
            axis: cos_sin(chance.unit()),
            seed: chance.bits(),
        }
    }

    /// Radius before it is stretched and made uneven.
    pub(super) fn radius(&self) -> f32 {
        self.radius
    }

    /// A point as seen from the centre.
    pub(super) fn offset(&self, x: f32, y: f32) -> (f32, f32) {
        (x - self.x, y - self.y)
    }

    /// Distance to the outline, positive inside.
    pub(super) fn inside(&self, x: f32, y: f32) -> f32 {
        let (dx, dy) = (x - self.x, y - self.y);
        let (c, s) = self.axis;
        let (u, v) = (
            (dx * c + dy * s) / self.stretch,
            (dy * c - dx * s) * self.stretch,
        );
        let distance = (u * u + v * v).sqrt();
        let (ux, uy) = if distance > 1e-6 {
            (u / distance, v / distance)
        } else {
            (1.0, 0.0)
        };
        let outline = 1.0 + self.wobble * fractal(ux * 1.3 + 5.0, uy * 1.3 + 5.0, 3, self.seed);
        self.radius * outline - distance
    }

    /// Coverage in `[0, 1]` with an edge `soft` wide.
    pub(super) fn coverage(&self, x: f32, y: f32, soft: f32) -> f32 {
        smoothstep(-0.5 * soft, 0.5 * soft, self.inside(x, y))
    }

    /// How strong a dried liquid is at a point: even inside, darker at its rim, cloudy.
    pub(super) fn tide(&self, x: f32, y: f32, soft: f32) -> f32 {
        let inside = self.inside(x, y);
        let body = smoothstep(-0.5 * soft, 0.5 * soft, inside);
        let rim = body * (1.0 - smoothstep(0.0, 0.35 * self.radius, inside));
        let cloud = perlin(
            x * 2.2 / self.radius,
            y * 2.2 / self.radius,
            self.seed ^ 0x51ed,
        );
        body * (0.75 + 0.25 * cloud) + 0.45 * rim
    }

    /// The furthest the blob can reach from its centre.
    pub(super) fn reach(&self) -> f32 {
        self.radius * self.stretch * (1.0 + self.wobble * 1.6)
    }

    /// Quick test before the exact one.
    pub(super) fn near(&self, x: f32, y: f32, soft: f32) -> bool {
        let reach = self.reach() + soft;
        (x - self.x).abs() < reach && (y - self.y).abs() < reach
    }
}

#[cfg(test)]
mod tests {
    use super::{Blob, Chance, Stroke};

    #[test]
    fn a_straight_stroke_covers_its_own_area() {
        let stroke = Stroke::through(vec![(10.0, 10.0), (50.0, 10.0)], 2.0);
        assert!(stroke.coverage(30.0, 10.0, 1.0) > 0.99);
        assert_eq!(stroke.coverage(30.0, 14.0, 1.0), 0.0);
        assert_eq!(stroke.coverage(90.0, 10.0, 1.0), 0.0);
        let area: f32 = (0..20)
            .flat_map(|y| (0..60).map(move |x| (x, y)))
            .map(|(x, y)| stroke.coverage(x as f32, y as f32, 1.0))
            .sum();
        // a half ellipse profile: width 4 · length 40 · π/4
        assert!((area - 125.7).abs() < 6.0, "{area}");
    }

    #[test]
    fn a_blob_stays_within_its_reach() {
        let mut chance = Chance::named(&[b"blob"]);
        for _ in 0..20 {
            let blob = Blob::draw(&mut chance, (0.0, 0.0), 5.0, 0.4);
            assert!(blob.coverage(0.0, 0.0, 1.0) > 0.99);
            let reach = blob.reach() + 1.0;
            for i in 0..360 {
                let (c, s) = super::cos_sin(i as f32 / 360.0);
                assert_eq!(blob.coverage(c * reach * 1.01, s * reach * 1.01, 1.0), 0.0);
            }
        }
    }
}
