//! Smooth noise and the few curves the drawings need, from +, −, ×, ÷, √ and integers alone.
//!
//! `sin`, `exp` and `powf` come from the platform's maths library and differ in the last bit between
//! systems; a differing last bit becomes a differing pixel, then a differing file. The five basic
//! operations are defined to the bit by IEEE 754, and rustc never fuses them.

/// Mixes lattice coordinates and a seed into 32 bits.
fn hash(x: i32, y: i32, seed: u32) -> u32 {
    let mut h = seed
        ^ (x as u32).wrapping_mul(0x9e37_79b1)
        ^ (y as u32).wrapping_mul(0x85eb_ca77).rotate_left(13);
    h ^= h >> 16;
    h = h.wrapping_mul(0x7feb_352d);
    h ^= h >> 15;
    h = h.wrapping_mul(0x846c_a68b);
    h ^ (h >> 16)
}

/// A fixed random number in `[-1, 1)` for a lattice point.
pub(super) fn lattice(x: i32, y: i32, seed: u32) -> f32 {
    (hash(x, y, seed) >> 8) as f32 * (2.0 / 16_777_216.0) - 1.0
}

/// 0 below `low`, 1 above `high`, `3t² − 2t³` between.
pub(super) fn smoothstep(low: f32, high: f32, value: f32) -> f32 {
    let t = ((value - low) / (high - low)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

/// Linear blend from `a` to `b`.
pub(super) fn mix(a: f32, b: f32, t: f32) -> f32 {
    a + (b - a) * t
}

/// Perlin gradient noise, about `[-1, 1]`, one feature per unit of length.
pub(super) fn perlin(x: f32, y: f32, seed: u32) -> f32 {
    let (fx, fy) = (x.floor(), y.floor());
    let (ix, iy) = (fx as i32, fy as i32);
    let (dx, dy) = (x - fx, y - fy);
    let corner = |ox: i32, oy: i32| {
        let h = hash(ix.wrapping_add(ox), iy.wrapping_add(oy), seed);
        let gx = (h & 0xffff) as f32 * (2.0 / 65_536.0) - 1.0;
        let gy = (h >> 16) as f32 * (2.0 / 65_536.0) - 1.0;
        gx * (dx - ox as f32) + gy * (dy - oy as f32)
    };
    let fade = |t: f32| t * t * t * (t * (t * 6.0 - 15.0) + 10.0);
    let (u, v) = (fade(dx), fade(dy));
    mix(
        mix(corner(0, 0), corner(1, 0), u),
        mix(corner(0, 1), corner(1, 1), u),
        v,
    ) * 1.6
}

/// `octaves` layers of [`perlin`], each twice as fine and half as strong.
pub(super) fn fractal(x: f32, y: f32, octaves: u32, seed: u32) -> f32 {
    let (mut sum, mut scale, mut weight, mut total) = (0.0, 1.0, 1.0, 0.0);
    for octave in 0..octaves {
        sum += weight
            * perlin(
                x * scale,
                y * scale,
                seed.wrapping_add(octave.wrapping_mul(0x632b_e5ab)),
            );
        total += weight;
        scale *= 2.0;
        weight *= 0.5;
    }
    sum / total
}

/// Cosine and sine of an angle in turns (1 = 360°). Maximum absolute error 4e-6 (f32).
pub(super) fn cos_sin(turns: f32) -> (f32, f32) {
    (sine(turns + 0.25), sine(turns))
}

fn sine(turns: f32) -> f32 {
    // fold to [-1/4, 1/4] turn, where a short Taylor series in f64 is far better than f32 needs
    let mut t = f64::from(turns) - (f64::from(turns) + 0.5).floor();
    if t > 0.25 {
        t = 0.5 - t;
    } else if t < -0.25 {
        t = -0.5 - t;
    }
    let a = t * std::f64::consts::TAU;
    let a2 = a * a;
    let series = 1.0
        - a2 / 6.0 * (1.0 - a2 / 20.0 * (1.0 - a2 / 42.0 * (1.0 - a2 / 72.0 * (1.0 - a2 / 110.0))));
    (a * series) as f32
}

#[cfg(test)]
mod tests {
    use super::{cos_sin, fractal, lattice, perlin, smoothstep};

    #[test]
    fn cos_sin_agrees_with_the_maths_library() {
        let mut worst = 0.0_f64;
        for step in -4000..4000 {
            let turns = step as f32 / 1000.0;
            let (c, s) = cos_sin(turns);
            let angle = f64::from(turns) * std::f64::consts::TAU;
            worst = worst
                .max((f64::from(c) - angle.cos()).abs())
                .max((f64::from(s) - angle.sin()).abs());
        }
        assert!(worst < 4e-6, "{worst}");
    }

    #[test]
    fn perlin_is_zero_on_the_lattice_smooth_and_bounded() {
        for i in -5..5 {
            assert_eq!(perlin(i as f32, (i * 3) as f32, 7), 0.0);
        }
        let mut extreme = 0.0_f32;
        for i in 0..4000 {
            let (x, y) = (i as f32 * 0.137, i as f32 * 0.071);
            extreme = extreme.max(perlin(x, y, 3).abs());
            assert!((perlin(x, y, 3) - perlin(x + 1e-3, y, 3)).abs() < 0.02);
            assert!(fractal(x, y, 4, 3).abs() <= 1.6);
        }
        assert!((0.5..1.6).contains(&extreme), "{extreme}");
    }

    #[test]
    fn lattice_is_fixed_for_ever() {
        // committed images depend on these bits
        assert_eq!(lattice(0, 0, 0), -1.0);
        assert_eq!(lattice(1, 2, 3).to_bits(), lattice(1, 2, 3).to_bits());
        assert_ne!(lattice(1, 2, 3), lattice(2, 1, 3));
        assert_eq!(smoothstep(0.0, 1.0, 0.5), 0.5);
    }
}
