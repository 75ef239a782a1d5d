//! Activation functions on slices, with the gradients that a backward pass needs.

use crate::dispatch;
use crate::math;
use crate::simd::Simd;

/// What to do with which slices; all of one [`Pointwise`] are equally long.
pub(crate) enum Pointwise<'a> {
    Gelu {
        x: &'a [f32],
        out: &'a mut [f32],
    },
    GeluBackward {
        x: &'a [f32],
        grad: &'a mut [f32],
    },
    Gated {
        gate: &'a [f32],
        up: &'a [f32],
        out: &'a mut [f32],
    },
    GatedBackward {
        gate: &'a mut [f32],
        up: &'a mut [f32],
        grad: &'a [f32],
    },
    Exp {
        x: &'a mut [f32],
        shift: f32,
    },
}

fn run(what: Pointwise<'_>) {
    // SAFETY: `dispatch` hands out only kernels of an instruction set that is present.
    unsafe { (dispatch::active().pointwise)(what) }
}

/// `out = x·Φ(x)`, the exact (erf) GELU. Maximum absolute error 1.2e-6 relative to `max(1, |x|)`.
///
/// # Panics
/// If the lengths differ.
pub fn gelu(x: &[f32], out: &mut [f32]) {
    assert_eq!(x.len(), out.len(), "one result a number");
    run(Pointwise::Gelu { x, out });
}

/// `grad ← grad · (Φ(x) + x·φ(x))`, the gradient through [`gelu`]. Maximum absolute error of the factor 1e-6.
///
/// # Panics
/// If the lengths differ.
pub fn gelu_backward(x: &[f32], grad: &mut [f32]) {
    assert_eq!(x.len(), grad.len(), "one gradient a number");
    run(Pointwise::GeluBackward { x, grad });
}

/// `out = silu(gate) · up`. Maximum absolute error of the `SiLU` 4e-7 relative to `max(1, |gate|)`.
///
/// # Panics
/// If the lengths differ.
pub fn gated(gate: &[f32], up: &[f32], out: &mut [f32]) {
    assert!(
        gate.len() == up.len() && up.len() == out.len(),
        "one result a pair"
    );
    run(Pointwise::Gated { gate, up, out });
}

/// Replaces `gate` and `up` by the gradients with respect to them, `grad` being that of the result of [`gated`].
///
/// # Panics
/// If the lengths differ.
pub fn gated_backward(gate: &mut [f32], up: &mut [f32], grad: &[f32]) {
    assert!(
        gate.len() == up.len() && up.len() == grad.len(),
        "one gradient a pair"
    );
    run(Pointwise::GatedBackward { gate, up, grad });
}

/// `x ← exp(x − shift)` for `x ≤ shift`; below `shift − 87` it stays at about 1e-38. Maximum relative error 2e-7 near
/// the shift; every unit below it adds 1.4e-7 (the difference and its product with log₂ e are each rounded, and log₂ e
/// itself is).
pub fn exp(x: &mut [f32], shift: f32) {
    run(Pointwise::Exp { x, shift });
}

/// Runs a [`Pointwise`].
///
/// # Safety
/// `S` must be available and the slices equally long.
#[inline(always)]
pub(crate) unsafe fn pointwise<S: Simd>(what: Pointwise<'_>) {
    // SAFETY: passed on from the caller.
    unsafe {
        match what {
            Pointwise::Gelu { x, out } => each::<S, _, 1, 1>([x], [out], &Gelu),
            Pointwise::GeluBackward { x, grad } => each::<S, _, 1, 1>([x], [grad], &GeluBackward),
            Pointwise::Gated { gate, up, out } => each::<S, _, 2, 1>([gate, up], [out], &Gated),
            Pointwise::GatedBackward { gate, up, grad } => {
                each::<S, _, 1, 2>([grad], [gate, up], &GatedBackward);
            }
            Pointwise::Exp { x, shift } => each::<S, _, 0, 1>([], [x], &Exp { shift }),
        }
    }
}

/// A function of `IN` numbers and of the `OUT` numbers that its results replace. A trait and not a closure: a closure
/// is compiled without the instruction set of the kernel around it and may not be inlined into that.
trait Function<S: Simd, const IN: usize, const OUT: usize> {
    /// On vectors.
    ///
    /// # Safety
    /// `S` must be available.
    unsafe fn apply(&self, x: [S::V; IN], y: [S::V; OUT]) -> [S::V; OUT];
}

struct Gelu;
struct GeluBackward;
struct Gated;
struct GatedBackward;
struct Exp {
    shift: f32,
}

// SAFETY of every block below: the trait's contract says that the instruction set is present.
impl<S: Simd> Function<S, 1, 1> for Gelu {
    #[inline(always)]
    unsafe fn apply(&self, [x]: [S::V; 1], _: [S::V; 1]) -> [S::V; 1] {
        // SAFETY: see above.
        unsafe { [math::gelu::<S>(x)] }
    }
}

impl<S: Simd> Function<S, 1, 1> for GeluBackward {
    #[inline(always)]
    unsafe fn apply(&self, [x]: [S::V; 1], [g]: [S::V; 1]) -> [S::V; 1] {
        // SAFETY: see above.
        unsafe { [S::mul(g, math::gelu_slope::<S>(x))] }
    }
}

impl<S: Simd> Function<S, 2, 1> for Gated {
    #[inline(always)]
    unsafe fn apply(&self, [gate, up]: [S::V; 2], _: [S::V; 1]) -> [S::V; 1] {
        // SAFETY: see above.
        unsafe { [S::mul(math::silu::<S>(gate), up)] }
    }
}

impl<S: Simd> Function<S, 1, 2> for GatedBackward {
    #[inline(always)]
    unsafe fn apply(&self, [d]: [S::V; 1], [gate, up]: [S::V; 2]) -> [S::V; 2] {
        // SAFETY: see above.
        unsafe {
            let (one, s) = (S::splat(1.0), math::sigmoid::<S>(gate));
            let silu = S::mul(gate, s);
            let slope = S::fma(silu, S::sub(one, s), s);
            [S::mul(S::mul(d, up), slope), S::mul(d, silu)]
        }
    }
}

impl<S: Simd> Function<S, 0, 1> for Exp {
    #[inline(always)]
    unsafe fn apply(&self, _: [S::V; 0], [x]: [S::V; 1]) -> [S::V; 1] {
        // SAFETY: see above.
        unsafe {
            let scaled = S::mul(
                S::sub(x, S::splat(self.shift)),
                S::splat(std::f32::consts::LOG2_E),
            );
            [math::exp2::<S>(scaled)]
        }
    }
}

/// Applies `f` to the vectors of `IN` inputs and of `OUT` slices that are replaced by its results; what is left at the
/// end goes through padded copies.
///
/// # Safety
/// `S` must be available and the slices equally long.
#[inline(always)]
unsafe fn each<S: Simd, F: Function<S, IN, OUT>, const IN: usize, const OUT: usize>(
    inputs: [&[f32]; IN],
    mut outputs: [&mut [f32]; OUT],
    f: &F,
) {
    let len = outputs.first().map_or(0, |o| o.len());
    let whole = len / S::LANES * S::LANES;
    // SAFETY: every vector lies inside its slice, or inside a padded copy of LANES ≤ 16 numbers.
    unsafe {
        for i in (0..whole).step_by(S::LANES) {
            let mut x = [S::splat(0.0); IN];
            for (x, p) in x.iter_mut().zip(&inputs) {
                *x = S::load(p.as_ptr().add(i));
            }
            let mut y = [S::splat(0.0); OUT];
            for (y, p) in y.iter_mut().zip(&outputs) {
                *y = S::load(p.as_ptr().add(i));
            }
            for (p, y) in outputs.iter_mut().zip(f.apply(x, y)) {
                S::store(p.as_mut_ptr().add(i), y);
            }
        }
        if whole < len {
            let mut lanes = [0.0f32; 16];
            let mut x = [S::splat(0.0); IN];
            for (x, p) in x.iter_mut().zip(&inputs) {
                lanes[..len - whole].copy_from_slice(&p[whole..]);
                *x = S::load(lanes.as_ptr());
            }
            let mut y = [S::splat(0.0); OUT];
            for (y, p) in y.iter_mut().zip(&outputs) {
                lanes[..len - whole].copy_from_slice(&p[whole..]);
                *y = S::load(lanes.as_ptr());
            }
            for (p, y) in outputs.iter_mut().zip(f.apply(x, y)) {
                S::store(lanes.as_mut_ptr(), y);
                p[whole..].copy_from_slice(&lanes[..len - whole]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::Isa;

    /// Φ by Simpson's rule on the density, in f64.
    fn distribution(x: f64) -> f64 {
        let (n, width) = (if cfg!(miri) { 200 } else { 2000 }, x.abs());
        let h = width / f64::from(n);
        let inner: f64 = (1..n)
            .map(|i| if i % 2 == 1 { 4.0 } else { 2.0 } * density(f64::from(i) * h))
            .sum();
        0.5 + ((density(0.0) + inner + density(width)) * h / 3.0).copysign(x)
    }

    fn density(t: f64) -> f64 {
        (-0.5 * t * t).exp() / std::f64::consts::TAU.sqrt()
    }

    fn on_all(run: impl Fn(&dyn Fn(Pointwise<'_>))) {
        for kernels in Isa::available().filter_map(Isa::kernels) {
            // SAFETY: `available` lists only instruction sets that are present.
            run(&|what| unsafe { (kernels.pointwise)(what) });
        }
    }

    /// −12 to 12 in steps of 1/32, not a whole number of vectors; under Miri 17 of them.
    fn arguments() -> Vec<f32> {
        (-384..=384)
            .step_by(if cfg!(miri) { 48 } else { 1 })
            .map(|i| i as f32 / 32.0)
            .collect()
    }

    #[test]
    fn the_gelu_and_its_slope_are_as_exact_as_promised() {
        let x = arguments();
        on_all(|run| {
            let (mut value, mut slope) = (vec![0.0; x.len()], vec![1.0; x.len()]);
            run(Pointwise::Gelu {
                x: &x,
                out: &mut value,
            });
            run(Pointwise::GeluBackward {
                x: &x,
                grad: &mut slope,
            });
            for ((&x, value), slope) in x.iter().zip(value).zip(slope) {
                let x = f64::from(x);
                let phi = distribution(x);
                assert!(
                    (f64::from(value) - x * phi).abs() < 1.2e-6 * x.abs().max(1.0),
                    "gelu({x})"
                );
                assert!(
                    (f64::from(slope) - phi - x * density(x)).abs() < 1e-6,
                    "gelu'({x})"
                );
            }
        });
    }

    #[test]
    fn the_gate_and_its_gradients_are_as_exact_as_promised() {
        let x = arguments();
        let (up, grad): (Vec<_>, Vec<_>) =
            x.iter().map(|x| (0.7 - x / 20.0, 1.3 + x / 30.0)).unzip();
        on_all(|run| {
            let (mut out, mut a, mut b) = (vec![0.0; x.len()], x.clone(), up.clone());
            run(Pointwise::Gated {
                gate: &x,
                up: &up,
                out: &mut out,
            });
            run(Pointwise::GatedBackward {
                gate: &mut a,
                up: &mut b,
                grad: &grad,
            });
            for i in 0..x.len() {
                let (x, u, d) = (f64::from(x[i]), f64::from(up[i]), f64::from(grad[i]));
                let s = 1.0 / (1.0 + (-x).exp());
                let near = |found: f32, wanted: f64| {
                    (f64::from(found) - wanted).abs() < 1e-6 * x.abs().max(1.0)
                };
                assert!(near(out[i], x * s * u), "gate {x}");
                assert!(near(a[i], d * u * (s + x * s * (1.0 - s))), "d gate {x}");
                assert!(near(b[i], d * x * s), "d up {x}");
            }
        });
    }

    #[test]
    fn the_exponential_is_as_exact_as_promised() {
        let step = if cfg!(miri) { 150 } else { 1 };
        let x: Vec<f32> = (0..2700)
            .step_by(step)
            .map(|i| 3.0 - i as f32 / 32.0)
            .collect();
        on_all(|run| {
            let mut y = x.clone();
            run(Pointwise::Exp {
                x: &mut y,
                shift: 3.0,
            });
            for (&x, y) in x.iter().zip(y) {
                let t = f64::from(x) - 3.0;
                let exact = t.exp();
                assert!(
                    (f64::from(y) - exact).abs() < (2e-7 - 1.4e-7 * t) * exact,
                    "exp({t})"
                );
            }
            let mut low = [-1e30, f32::NEG_INFINITY];
            run(Pointwise::Exp {
                x: &mut low,
                shift: 0.0,
            });
            assert!(low.iter().all(|&v| v < 2e-38));
        });
    }

    #[test]
    fn every_instruction_set_gives_the_same_bits() {
        let x = arguments();
        let first = std::cell::OnceCell::new();
        on_all(|run| {
            let many = || [0.5, -0.25, 1.0, 0.75, 2.0].map(|y| vec![y; x.len()]);
            let [mut gelu, mut slope, mut gated, mut up, mut gate] = many();
            run(Pointwise::Gelu {
                x: &x,
                out: &mut gelu,
            });
            run(Pointwise::GeluBackward {
                x: &x,
                grad: &mut slope,
            });
            run(Pointwise::Gated {
                gate: &x,
                up: &up,
                out: &mut gated,
            });
            gate.copy_from_slice(&x);
            run(Pointwise::GatedBackward {
                gate: &mut gate,
                up: &mut up,
                grad: &gelu,
            });
            let mut exp = x.clone();
            run(Pointwise::Exp {
                x: &mut exp,
                shift: 12.5,
            });
            let all = [gelu, slope, gated, up, gate, exp];
            assert!(*first.get_or_init(|| all.clone()) == all);
        });
    }

    #[test]
    fn every_length_is_covered_to_its_end() {
        // also run under Miri: no vector, a part of one, one, and one with a rest
        for len in [0, 1, 7, 8, 16, 19] {
            let x: Vec<f32> = (0..len).map(|i| i as f32 / 4.0 - 2.0).collect();
            on_all(|run| {
                let mut out = vec![f32::NAN; len];
                run(Pointwise::Gated {
                    gate: &x,
                    up: &vec![2.0; len],
                    out: &mut out,
                });
                for (&x, out) in x.iter().zip(out) {
                    assert!(
                        (out - 2.0 * x / (1.0 + (-x).exp())).abs() < 1e-5,
                        "{x} of {len}"
                    );
                }
            });
        }
    }
}
