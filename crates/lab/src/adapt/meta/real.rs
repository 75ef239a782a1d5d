//! Numbers for formulas that are written once and computed with or without a derivative along one direction.

use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub};

/// What the formulas need of a number.
pub(super) trait Real:
    Copy
    + Send
    + Sync
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
{
    /// A constant.
    fn from_f64(v: f64) -> Self;
    /// The number without its derivative.
    fn value(self) -> f64;
    fn sqrt(self) -> Self;
    fn exp(self) -> Self;
    /// The error function.
    fn erf(self) -> Self;
}

impl Real for f64 {
    fn from_f64(v: f64) -> Self {
        v
    }

    fn value(self) -> f64 {
        self
    }

    fn sqrt(self) -> Self {
        Self::sqrt(self)
    }

    fn exp(self) -> Self {
        Self::exp(self)
    }

    fn erf(self) -> Self {
        libm::erf(self)
    }
}

/// A number and its derivative along a direction: forward-mode differentiation, exact to rounding.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Dual {
    pub(super) value: f64,
    pub(super) slope: f64,
}

impl Add for Dual {
    type Output = Self;

    fn add(self, o: Self) -> Self {
        Self {
            value: self.value + o.value,
            slope: self.slope + o.slope,
        }
    }
}

impl Sub for Dual {
    type Output = Self;

    fn sub(self, o: Self) -> Self {
        Self {
            value: self.value - o.value,
            slope: self.slope - o.slope,
        }
    }
}

impl Mul for Dual {
    type Output = Self;

    fn mul(self, o: Self) -> Self {
        Self {
            value: self.value * o.value,
            slope: self.slope * o.value + self.value * o.slope,
        }
    }
}

impl Div for Dual {
    type Output = Self;

    fn div(self, o: Self) -> Self {
        let value = self.value / o.value;
        Self {
            value,
            slope: (self.slope - value * o.slope) / o.value,
        }
    }
}

impl Neg for Dual {
    type Output = Self;

    fn neg(self) -> Self {
        Self {
            value: -self.value,
            slope: -self.slope,
        }
    }
}

impl AddAssign for Dual {
    fn add_assign(&mut self, o: Self) {
        *self = *self + o;
    }
}

impl Real for Dual {
    fn from_f64(value: f64) -> Self {
        Self { value, slope: 0.0 }
    }

    fn value(self) -> f64 {
        self.value
    }

    fn sqrt(self) -> Self {
        let value = self.value.sqrt();
        Self {
            value,
            slope: if value > 0.0 {
                0.5 * self.slope / value
            } else {
                0.0
            },
        }
    }

    fn exp(self) -> Self {
        let value = self.value.exp();
        Self {
            value,
            slope: value * self.slope,
        }
    }

    fn erf(self) -> Self {
        let density = std::f64::consts::FRAC_2_SQRT_PI * (-self.value * self.value).exp();
        Self {
            value: libm::erf(self.value),
            slope: density * self.slope,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Central differences with a step of 1e-6: truncation and rounding stay below 1e-8.
    #[test]
    fn slopes_are_those_of_the_functions() {
        let f = |x: Dual| {
            let c = Dual::from_f64(0.7);
            ((x * x + c).sqrt() / (x - c).exp() - x.erf() * c) * -x
        };
        for at in [-1.3, 0.2, 2.5] {
            let value = |x: f64| f(Dual::from_f64(x)).value;
            let slope = (value(at + 1e-6) - value(at - 1e-6)) / 2e-6;
            let found = f(Dual {
                value: at,
                slope: 1.0,
            });
            assert!(
                (found.slope - slope).abs() < 1e-8,
                "{at}: {found:?} {slope}"
            );
            assert_eq!(found.value, value(at));
        }
    }
}
