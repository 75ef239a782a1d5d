//! Elementary functions on vectors, with their measured errors.

use crate::simd::{Eight, Simd};

/// `2^x` for `x ≤ 0`; below -126 it stays at `2^-126`. Maximum relative error 1.8e-7.
///
/// # Safety
/// `S` must be available.
#[inline(always)]
pub(crate) unsafe fn exp2<S: Simd>(x: S::V) -> S::V {
    // minimax polynomial of (2^f - 1)/f on [-1/2, 1/2]
    const C: [f32; 6] = [
        0.6931471824645996,
        0.24022647738456726,
        0.055503323674201965,
        0.00961843691766262,
        0.0013398875016719103,
        0.00015353361959569156,
    ];
    // adding and taking away 1.5·2^23 rounds to a whole number
    const ROUND: f32 = 12_582_912.0;
    // SAFETY: the caller vouches for the instruction set.
    unsafe {
        let x = S::max(x, S::splat(-126.0));
        let whole = S::sub(S::add(x, S::splat(ROUND)), S::splat(ROUND));
        let f = S::sub(x, whole);
        let mut p = S::splat(C[5]);
        for &c in C[..5].iter().rev() {
            p = S::fma(p, f, S::splat(c));
        }
        S::scale_by_power_of_two(S::fma(p, f, S::splat(1.0)), whole)
    }
}

/// `Φ(y)`, the normal distribution, for `|y| ≤ 5.6`. Maximum absolute error 1.2e-6 times `min(1, 1/|y|)`.
///
/// # Safety
/// `S` must be available.
#[inline(always)]
unsafe fn normal<S: Simd>(y: S::V) -> S::V {
    // Φ(y) - 1/2 = y·P(y²)/Q(y²) on |y| ≤ 5.6, minimax, 2.5e-8 before rounding
    const P: [f32; 7] = [
        0.39894211292266846,
        0.03711463138461113,
        0.004587692674249411,
        0.0001824903447413817,
        3.361872131790733e-06,
        -2.199763393662124e-08,
        1.0802317373936887e-10,
    ];
    const Q: [f32; 4] = [
        0.25969669222831726,
        0.029787225648760796,
        0.0019016030710190535,
        6.625580135732889e-05,
    ];
    // SAFETY: the caller vouches for the instruction set.
    unsafe {
        let t = S::mul(y, y);
        let mut p = S::splat(P[6]);
        for &c in P[..6].iter().rev() {
            p = S::fma(p, t, S::splat(c));
        }
        let mut q = S::splat(Q[3]);
        for &c in Q[..3].iter().rev() {
            q = S::fma(q, t, S::splat(c));
        }
        q = S::fma(q, t, S::splat(1.0));
        S::add(S::div(S::mul(y, p), q), S::splat(0.5))
    }
}

/// Where [`normal`] ends; beyond it the distribution is 0 or 1 to f32.
const LIMIT: f32 = 5.6;

/// `x·Φ(x)`, the exact (erf) GELU. Maximum absolute error 6e-7 on all of f32, relative to `max(1, |x|)`.
///
/// # Safety
/// `S` must be available.
#[inline(always)]
pub(crate) unsafe fn gelu<S: Simd>(x: S::V) -> S::V {
    // max(0, x) - |x|·Φ(-|x|); the second term is a minimax polynomial of the distance of |x|·SCALE from the nearest
    // whole number, one for each of 0 to 7, 4e-7 before rounding: half the multiplications of a rational function, and no
    // division
    const SCALE: f32 = 1.36;
    // beyond it the second term is below 1.1e-7; SCALE·END rounds to 7
    const END: f32 = 5.5;
    // adding 1.5·2^23 rounds to a whole number and leaves it in the lowest bits
    const ROUND: f32 = 12_582_912.0;
    static C: [Eight; 6] = [
        Eight::new([
            0.0,
            0.16991205513477325,
            0.10397282242774963,
            0.030211910605430603,
            0.004808284342288971,
            0.0004347216454334557,
            2.2623104086960666e-05,
            6.816499080741778e-07,
        ]),
        Eight::new([
            0.36764657497406006,
            0.005312756169587374,
            -0.09431722015142441,
            -0.046727504581213,
            -0.01021225843578577,
            -0.0011654506670311093,
            -7.30633910279721e-05,
            -2.5724648367031477e-06,
        ]),
        Eight::new([
            -0.2156732678413391,
            -0.12011488527059555,
            0.005919977556914091,
            0.027138320729136467,
            0.009494210593402386,
            0.0014415971236303449,
            0.0001113821126637049,
            4.618560978997266e-06,
        ]),
        Eight::new([
            -0.00020329319522716105,
            0.051285650581121445,
            0.024234358221292496,
            -0.004427280277013779,
            -0.0047865333035588264,
            -0.0010743254097178578,
            -0.00010684506560210139,
            -5.368947768147336e-06,
        ]),
        Eight::new([
            0.0204025711864233,
            0.0020031265448778868,
            -0.01034427061676979,
            -0.0028159511275589466,
            0.0011196616105735302,
            0.0005275005241855979,
            7.561533857369795e-05,
            4.98934196002665e-06,
        ]),
        Eight::new([
            -0.002029907424002886,
            -0.004788683261722326,
            0.00031626076088286936,
            0.0016087698750197887,
            8.648072252981365e-05,
            -0.00015629139670636505,
            -3.557878153515048e-05,
            -3.0444957701547537e-06,
        ]),
    ];
    // SAFETY: the caller vouches for the instruction set.
    unsafe {
        let y = S::mul(S::min(S::abs(x), S::splat(END)), S::splat(SCALE));
        let index = S::add(y, S::splat(ROUND));
        let f = S::sub(y, S::sub(index, S::splat(ROUND)));
        let mut p = S::look_up(&C[5], index);
        for c in C[..5].iter().rev() {
            p = S::fma(p, f, S::look_up(c, index));
        }
        S::sub(S::max(S::splat(0.0), x), p)
    }
}

/// `Φ(x) + x·φ(x)`, the derivative of the exact GELU. Maximum absolute error 1e-6.
///
/// # Safety
/// `S` must be available.
#[inline(always)]
pub(crate) unsafe fn gelu_slope<S: Simd>(x: S::V) -> S::V {
    const INV_SQRT_TAU: f32 = 0.398_942_3;
    // SAFETY: the caller vouches for the instruction set.
    unsafe {
        let y = S::min(S::max(x, S::splat(-LIMIT)), S::splat(LIMIT));
        let exponent = S::mul(S::mul(y, y), S::splat(-0.5 * std::f32::consts::LOG2_E));
        let density = S::mul(exp2::<S>(exponent), S::splat(INV_SQRT_TAU));
        S::fma(y, density, normal::<S>(y))
    }
}

/// `1 / (1 + e^-x)`. Maximum absolute error 4e-7.
///
/// # Safety
/// `S` must be available.
#[inline(always)]
pub(crate) unsafe fn sigmoid<S: Simd>(x: S::V) -> S::V {
    // SAFETY: the caller vouches for the instruction set.
    unsafe {
        // e^-|x| never overflows; sigmoid(-|x|) = e/(1+e), sigmoid(|x|) = 1/(1+e)
        let zero = S::splat(0.0);
        let negative = S::sub(zero, S::max(x, S::sub(zero, x)));
        let e = exp2::<S>(S::mul(negative, S::splat(std::f32::consts::LOG2_E)));
        let numerator = S::select_gt(x, zero, S::splat(1.0), e);
        S::div(numerator, S::add(e, S::splat(1.0)))
    }
}

/// `x / (1 + e^-x)`. Maximum absolute error 4e-7 relative to `max(1, |x|)`.
///
/// # Safety
/// `S` must be available.
#[inline(always)]
pub(crate) unsafe fn silu<S: Simd>(x: S::V) -> S::V {
    // SAFETY: the caller vouches for the instruction set.
    unsafe { S::mul(x, sigmoid::<S>(x)) }
}

/// What to apply, for tests.
#[cfg(test)]
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Function {
    Exp2,
    Gelu,
    Silu,
    /// One operation of [`Simd`], by its place in [`operations`].
    Operation(usize),
}

/// Every arithmetic operation of [`Simd`] on the vectors `a`, `b`, `c`.
///
/// # Safety
/// `S` must be available.
#[cfg(test)]
#[inline(always)]
unsafe fn operations<S: Simd>([a, b, c]: [S::V; 3]) -> [S::V; 11] {
    // SAFETY: the caller vouches for the instruction set.
    unsafe {
        [
            S::add(a, b),
            S::sub(a, b),
            S::mul(a, b),
            S::div(a, b),
            S::sqrt(a),
            S::fma(a, b, c),
            S::fnma(a, b, c),
            S::max(a, b),
            S::min(a, b),
            S::select_gt(a, b, c, b),
            S::splat(0.1),
        ]
    }
}

/// Applies a function to whole vectors of `values`; an operation takes its operands from the thirds of `values` and
/// replaces the first.
///
/// # Safety
/// `S` must be available.
#[cfg(test)]
#[inline(always)]
pub(crate) unsafe fn map<S: Simd>(f: Function, values: &mut [f32]) {
    let len = if matches!(f, Function::Operation(_)) {
        values.len() / 3
    } else {
        values.len()
    };
    let mut lanes = [0.0f32; 16];
    for first in (0..len / S::LANES * S::LANES).step_by(S::LANES) {
        // SAFETY: LANES numbers follow `first`, and in an operation both of its copies `len` and `2·len` further; `lanes`
        // holds at least LANES.
        unsafe {
            let x = S::load(values[first..first + S::LANES].as_ptr());
            let y = match f {
                Function::Exp2 => exp2::<S>(x),
                Function::Gelu => gelu::<S>(x),
                Function::Silu => silu::<S>(x),
                Function::Operation(which) => {
                    let third = |i: usize| S::load(values[first + i * len..][..S::LANES].as_ptr());
                    operations::<S>([x, third(1), third(2)])[which]
                }
            };
            S::store(lanes.as_mut_ptr(), y);
        }
        values[first..first + S::LANES].copy_from_slice(&lanes[..S::LANES]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::Isa;

    /// erf by its Taylor series below 3 and by its continued fraction above, in f64: better than 1e-15.
    fn erf(x: f64) -> f64 {
        let a = x.abs();
        let value = if a < 3.0 {
            let (mut term, mut sum, mut n) = (a, a, 0.0);
            while term.abs() > 1e-18 {
                n += 1.0;
                term *= -a * a / n;
                sum += term / (2.0 * n + 1.0);
            }
            sum * 2.0 / std::f64::consts::PI.sqrt()
        } else {
            let mut f = 0.0;
            for k in (1..=80).rev() {
                f = f64::from(k) / 2.0 / (a + f);
            }
            1.0 - (-a * a).exp() / std::f64::consts::PI.sqrt() / (a + f)
        };
        value.copysign(x)
    }

    /// A dense sample of f32: every `step`-th bit pattern of both signs up to `limit`.
    fn sample(limit: f32, step: usize) -> Vec<f32> {
        let mut values: Vec<f32> = (0..=limit.to_bits())
            .step_by(step)
            .flat_map(|b| [f32::from_bits(b), -f32::from_bits(b)])
            .collect();
        values.resize(values.len().next_multiple_of(16), 0.0);
        values
    }

    fn errors(
        f: Function,
        values: &[f32],
        wanted: impl Fn(f64) -> f64,
        scale: impl Fn(f64, f64) -> f64,
    ) {
        let limit = match f {
            Function::Exp2 => 1.8e-7,
            Function::Gelu => 6e-7,
            Function::Silu => 4e-7,
            Function::Operation(_) => unreachable!("an operation is exact"),
        };
        let mut first: Option<Vec<f32>> = None;
        // the series cost more than the kernels
        let exact: Vec<f64> = values.iter().map(|&x| wanted(f64::from(x))).collect();
        for kernels in Isa::available().filter_map(Isa::kernels) {
            let mut got = values.to_vec();
            // SAFETY: `available` lists only sets that are present.
            unsafe { (kernels.map)(f, &mut got) };
            let mut worst = (0.0, 0.0);
            for ((&x, &y), &exact) in values.iter().zip(&got).zip(&exact) {
                let error = (f64::from(y) - exact).abs() / scale(f64::from(x), exact);
                if error > worst.0 || error.is_nan() {
                    worst = (error, x);
                }
            }
            assert!(
                worst.0 <= limit,
                "{}: error {} at {}",
                kernels.isa,
                worst.0,
                worst.1
            );
            let first = first.get_or_insert_with(|| got.clone());
            assert_eq!(*first, got, "{} differs in bits", kernels.isa);
        }
    }

    const STEP: usize = if cfg!(miri) { 50_000_017 } else { 997 };

    #[test]
    fn exp2_keeps_its_error() {
        let values: Vec<f32> = sample(126.0, STEP).into_iter().map(|x| -x.abs()).collect();
        errors(Function::Exp2, &values, f64::exp2, |_, exact| exact);
    }

    #[test]
    fn gelu_keeps_its_error() {
        let exact = |x: f64| x * 0.5 * (1.0 + erf(x / 2f64.sqrt()));
        errors(Function::Gelu, &sample(f32::MAX, STEP), exact, |x, _| {
            x.abs().max(1.0)
        });
    }

    #[test]
    fn silu_keeps_its_error() {
        errors(
            Function::Silu,
            &sample(f32::MAX, STEP),
            |x| x / (1.0 + (-x).exp()),
            |x, _| x.abs().max(1.0),
        );
    }

    #[test]
    fn every_operation_is_that_of_the_scalar_numbers() {
        let special = [
            0.0,
            -0.0,
            1.0,
            -1.5,
            0.1,
            16_777_217.0,
            1e-40,
            -1e-45,
            f32::MIN_POSITIVE,
            f32::MAX,
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::NAN,
            1.0 + f32::EPSILON,
        ];
        let mut columns: [Vec<f32>; 3] = Default::default();
        let step = if cfg!(miri) { 3 } else { 1 };
        for &a in special.iter().step_by(step) {
            for &b in special.iter().step_by(step) {
                for &c in if cfg!(miri) {
                    &special[2..4]
                } else {
                    &special[..]
                } {
                    columns
                        .iter_mut()
                        .zip([a, b, c])
                        .for_each(|(column, x)| column.push(x));
                }
            }
        }
        for column in &mut columns {
            column.resize(column.len().next_multiple_of(16), 2.0);
        }
        let wanted: [fn(f32, f32, f32) -> f32; 11] = [
            |a, b, _| a + b,
            |a, b, _| a - b,
            |a, b, _| a * b,
            |a, b, _| a / b,
            |a, _, _| a.sqrt(),
            |a, b, c| a.mul_add(b, c),
            |a, b, c| (-a).mul_add(b, c),
            |a, b, _| if a > b { a } else { b },
            |a, b, _| if a < b { a } else { b },
            |a, b, c| if a > b { c } else { b },
            |_, _, _| 0.1,
        ];
        for kernels in Isa::available().filter_map(Isa::kernels) {
            for (which, wanted) in wanted.iter().enumerate() {
                let mut got = columns.concat();
                // SAFETY: `available` lists only sets that are present.
                unsafe { (kernels.map)(Function::Operation(which), &mut got) };
                for (i, &got) in got[..columns[0].len()].iter().enumerate() {
                    let [a, b, c] = [0, 1, 2].map(|k| columns[k][i]);
                    let wanted = wanted(a, b, c);
                    // which NaN comes out is left open
                    let same =
                        got.to_bits() == wanted.to_bits() || (got.is_nan() && wanted.is_nan());
                    assert!(
                        same,
                        "{} operation {which} of {a}, {b}, {c}: {got}, not {wanted}",
                        kernels.isa
                    );
                }
            }
        }
    }
}
