//! Values of options as people type them, within their bounds. A refusal says what the value must be.

#[cfg(feature = "clap")]
use clap::builder::{PossibleValuesParser, TypedValueParser};

/// A finite number.
///
/// # Errors
/// Anything else.
pub fn finite(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(v) if v.is_finite() => Ok(v),
        Ok(_) => Err("must be finite".into()),
        Err(e) => Err(e.to_string()),
    }
}

/// A number above 0.
///
/// # Errors
/// Anything else.
pub fn positive(text: &str) -> Result<f64, String> {
    finite(text).and_then(|v| {
        if v > 0.0 {
            Ok(v)
        } else {
            Err("must be above 0".into())
        }
    })
}

/// How plain drawn defects are, as [`crate::synth::SEVERITY_RANGE`] has it.
///
/// # Errors
/// Anything else.
pub fn severity(text: &str) -> Result<f32, String> {
    let range = crate::synth::SEVERITY_RANGE;
    finite(text).and_then(|value| {
        let value = value as f32;
        if range.contains(&value) {
            Ok(value)
        } else {
            Err(format!("must be from {} to {}", range.start(), range.end()))
        }
    })
}

/// A share, also in percent: `0.05`, `5%`.
///
/// # Errors
/// Anything else.
pub fn share(text: &str) -> Result<f64, String> {
    match text.trim().strip_suffix('%') {
        Some(percent) => finite(percent.trim_end()).map(|v| v / 100.0),
        None => finite(text),
    }
}

/// A share from 0 to below 1.
///
/// # Errors
/// Anything else.
pub fn part(text: &str) -> Result<f64, String> {
    share(text).and_then(|v| {
        if (0.0..1.0).contains(&v) {
            Ok(v)
        } else {
            Err("must be from 0 to below 1".into())
        }
    })
}

/// A share above 0 and at most 1.
///
/// # Errors
/// Anything else.
pub fn part_above_zero(text: &str) -> Result<f64, String> {
    share(text).and_then(|v| {
        if v > 0.0 && v <= 1.0 {
            Ok(v)
        } else {
            Err("must be above 0 and at most 1".into())
        }
    })
}

/// A share above 0 and below 1.
///
/// # Errors
/// Anything else.
pub fn rate(text: &str) -> Result<f64, String> {
    share(text).and_then(|v| {
        if v > 0.0 && v < 1.0 {
            Ok(v)
        } else {
            Err("must be above 0 and below 1".into())
        }
    })
}

/// A number of bytes: `800M`, `2G`, `1.5GiB`, `123456`; K, M and G are powers of 1024.
///
/// # Errors
/// Anything else.
pub fn bytes(text: &str) -> Result<usize, String> {
    let text = text.trim();
    let end = text
        .find(|c: char| c.is_ascii_alphabetic())
        .unwrap_or(text.len());
    let factor: u64 = match text[end..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        _ => return Err("must be a number of bytes, such as 800M or 2G".into()),
    };
    let bytes = positive(text[..end].trim())? * factor as f64;
    if bytes < u64::MAX as f64 {
        Ok(bytes as usize)
    } else {
        Err("is too large".into())
    }
}

/// A number from 0.
///
/// # Errors
/// Anything else.
pub fn not_negative(text: &str) -> Result<f64, String> {
    finite(text).and_then(|v| {
        if v >= 0.0 {
            Ok(v)
        } else {
            Err("must be 0 or more".into())
        }
    })
}

/// `all`, which is `None`, or a number from 1.
///
/// # Errors
/// Anything else.
pub fn all_or_number(text: &str) -> Result<Option<usize>, String> {
    if text == "all" {
        return Ok(None);
    }
    match text.parse() {
        Ok(n) if n > 0 => Ok(Some(n)),
        _ => Err("must be all, or a number from 1".into()),
    }
}

/// A number of things.
#[cfg(feature = "clap")]
pub fn count(range: impl std::ops::RangeBounds<i64>) -> impl TypedValueParser<Value = usize> {
    // 32 bits on every machine, so that a line means the same everywhere
    clap::value_parser!(u32).range(range).map(|n| n as usize)
}

/// One of two words, as whether it is `yes`.
#[cfg(feature = "clap")]
pub fn either(words: [&'static str; 2], yes: &'static str) -> impl TypedValueParser<Value = bool> {
    PossibleValuesParser::new(words).map(move |text| text == yes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_may_be_in_percent() {
        for parse in [rate, part, part_above_zero] {
            assert_eq!(parse("5%"), Ok(0.05));
            assert_eq!(parse(" 0.5 %"), Ok(0.005));
            assert_eq!(parse("0.05"), Ok(0.05));
            assert!(parse("101%").is_err() && parse("%").is_err() && parse("-1%").is_err());
        }
        assert!(rate("100%").is_err() && part("100%").is_err());
        assert_eq!(part_above_zero("100%"), Ok(1.0));
    }
}
