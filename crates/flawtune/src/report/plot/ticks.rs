//! Where an axis is marked, and how a number is written there.

/// Marks of an axis: round values, their labels, and the range they may have widened.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ticks {
    pub(super) low: f64,
    pub(super) high: f64,
    pub(super) marks: Vec<(f64, String)>,
}

/// Marks for `[low, high]`: the step is 1, 2 or 5 times a power of ten, the largest that gives at
/// least `about / 2` marks. With `widen` the range grows outward to the next marks.
///
/// A range that is empty or not finite becomes one around its value, or `[0, 1]`.
pub(super) fn linear(low: f64, high: f64, about: usize, widen: bool) -> Ticks {
    let (low, high) = sound_range(low, high);
    let rough = (high - low) / about.max(1) as f64;
    let (mantissa, exponent) = split(rough);
    // the next round step at or above the rough one; a rounding error above it does not count
    let (mantissa, exponent) = if mantissa <= 1.0 + 1e-9 {
        (1, exponent)
    } else if mantissa <= 2.0 + 1e-9 {
        (2, exponent)
    } else if mantissa <= 5.0 + 1e-9 {
        (5, exponent)
    } else {
        (1, exponent + 1)
    };
    // parsed, not multiplied: the step, and with it every label, is the nearest f64 to a decimal
    let step = decimal(mantissa, exponent);
    // a value within a millionth of a step of a mark counts as on it
    let first = low / step + if widen { 1e-6 } else { -1e-6 };
    let last = high / step + if widen { -1e-6 } else { 1e-6 };
    let (first, last) = if widen {
        (first.floor(), last.ceil())
    } else {
        (first.ceil(), last.floor())
    };
    let mut marks = Vec::new();
    let mut index = first;
    while index <= last && marks.len() < 200 {
        let value = decimal(index as i64 * mantissa, exponent);
        marks.push((value, label(value, exponent)));
        index += 1.0;
    }
    let (low, high) = match (widen, marks.first(), marks.last()) {
        (true, Some(start), Some(end)) => (low.min(start.0), high.max(end.0)),
        _ => (low, high),
    };
    Ticks { low, high, marks }
}

/// Marks of a logarithmic axis: 1, 2 and 5 in each decade, or the decades alone when those are many.
pub(super) fn logarithmic(low: f64, high: f64) -> Ticks {
    let low = if low.is_finite() && low > 0.0 {
        low
    } else {
        1.0
    };
    let high = if high.is_finite() && high > low {
        high
    } else {
        low * 10.0
    };
    let (_, first) = split(low);
    let (_, last) = split(high);
    let mantissas: &[i64] = if last - first > 3 { &[1] } else { &[1, 2, 5] };
    let mut marks = Vec::new();
    for exponent in first..=last {
        for &mantissa in mantissas {
            let value = decimal(mantissa, exponent);
            if value >= low * (1.0 - 1e-9) && value <= high * (1.0 + 1e-9) {
                marks.push((value, label(value, exponent)));
            }
        }
    }
    Ticks { low, high, marks }
}

/// Marks at given values, each written as short as it can be.
pub(super) fn given(values: &[f64], low: f64, high: f64) -> Ticks {
    let (low, high) = sound_range(low, high);
    let marks = values
        .iter()
        .filter(|v| v.is_finite())
        .map(|&v| (v, format!("{v}")))
        .collect();
    Ticks { low, high, marks }
}

fn sound_range(low: f64, high: f64) -> (f64, f64) {
    if !low.is_finite() || !high.is_finite() || low > high {
        return (0.0, 1.0);
    }
    // narrower than this, f64 cannot tell the marks apart
    if high - low > 1e-9 * low.abs().max(high.abs()) {
        return (low, high);
    }
    let room = if low == 0.0 { 0.5 } else { 0.05 * low.abs() };
    (low - room, high + room)
}

/// `value = mantissa · 10^exponent`, mantissa in `[1, 10)`; taken from the decimal text, which is exact.
fn split(value: f64) -> (f64, i32) {
    let text = format!("{value:e}");
    let mut parts = text.split('e');
    let mantissa = parts.next().and_then(|m| m.parse().ok()).unwrap_or(1.0);
    let exponent = parts.next().and_then(|e| e.parse().ok()).unwrap_or(0);
    (mantissa, exponent)
}

/// The f64 nearest to `mantissa · 10^exponent`.
fn decimal(mantissa: i64, exponent: i32) -> f64 {
    format!("{mantissa}e{exponent}").parse().unwrap_or(0.0)
}

/// A mark's label with as many decimals as its step has.
fn label(value: f64, exponent: i32) -> String {
    if value == 0.0 {
        "0".to_owned()
    } else if value.abs() >= 1e6 || exponent < -5 {
        format!("{value:e}")
    } else {
        format!("{value:.*}", exponent.min(0).unsigned_abs() as usize)
    }
    .replace('-', "\u{2212}")
}

#[cfg(test)]
mod tests {
    use super::{given, linear, logarithmic};

    fn labels(ticks: &super::Ticks) -> Vec<&str> {
        ticks
            .marks
            .iter()
            .map(|(_, label)| label.as_str())
            .collect()
    }

    #[test]
    fn steps_are_round() {
        assert_eq!(
            labels(&linear(0.0, 1.0, 5, false)),
            ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]
        );
        assert_eq!(
            labels(&linear(0.0, 100.0, 5, false)),
            ["0", "20", "40", "60", "80", "100"]
        );
        assert_eq!(
            labels(&linear(0.913, 0.987, 4, false)),
            ["0.92", "0.94", "0.96", "0.98"]
        );
        assert_eq!(
            labels(&linear(-3.0, 3.0, 6, false)),
            ["−3", "−2", "−1", "0", "1", "2", "3"]
        );
        assert_eq!(
            labels(&linear(0.0, 3e7, 3, false)),
            ["0", "1e7", "2e7", "3e7"]
        );
    }

    #[test]
    fn values_are_the_decimals_they_say() {
        for (value, label) in linear(0.0, 1.0, 10, false).marks {
            assert_eq!(value, label.parse::<f64>().unwrap());
        }
    }

    #[test]
    fn widening_ends_on_marks() {
        let ticks = linear(0.13, 0.87, 5, true);
        assert_eq!((ticks.low, ticks.high), (0.0, 1.0));
        let ticks = linear(0.2, 0.8, 3, true);
        assert_eq!((ticks.low, ticks.high), (0.2, 0.8));
    }

    #[test]
    fn hopeless_ranges_still_give_marks() {
        for (low, high) in [
            (f64::NAN, 1.0),
            (1.0, 0.0),
            (0.0, 0.0),
            (5.0, 5.0),
            (1e300, 1e300),
            (f64::NEG_INFINITY, 0.0),
            (-1e308, 1e308),
            (1.0, 1.0 + 1e-15),
        ] {
            for widen in [false, true] {
                let ticks = linear(low, high, 5, widen);
                assert!(ticks.low < ticks.high, "{low} {high}");
                assert!(
                    (1..=200).contains(&ticks.marks.len()),
                    "{low} {high}: {ticks:?}"
                );
            }
        }
    }

    #[test]
    fn logarithmic_marks() {
        assert_eq!(
            labels(&logarithmic(1.0, 50.0)),
            ["1", "2", "5", "10", "20", "50"]
        );
        assert_eq!(
            labels(&logarithmic(0.0001, 10.0)),
            ["0.0001", "0.001", "0.01", "0.1", "1", "10"]
        );
        assert_eq!(
            labels(&given(&[1.0, 5.0, 20.0], 1.0, 20.0)),
            ["1", "5", "20"]
        );
    }
}
