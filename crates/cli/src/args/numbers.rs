//! Numbers on the command line, within their bounds.

pub(super) fn number(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(v) if v.is_finite() => Ok(v),
        Ok(_) => Err("must be finite".into()),
        Err(e) => Err(e.to_string()),
    }
}

pub(super) fn finite(text: &str) -> Result<f64, String> {
    number(text)
}

pub(super) fn positive(text: &str) -> Result<f64, String> {
    number(text).and_then(|v| {
        if v > 0.0 {
            Ok(v)
        } else {
            Err("must be above 0".into())
        }
    })
}

/// How plain drawn defects are, as [`flawtune::synth::SEVERITY_RANGE`] has it.
pub(super) fn severity(text: &str) -> Result<f32, String> {
    let range = flawtune::synth::SEVERITY_RANGE;
    number(text).and_then(|value| {
        let value = value as f32;
        if range.contains(&value) {
            Ok(value)
        } else {
            Err(format!("must be from {} to {}", range.start(), range.end()))
        }
    })
}

/// A share, also in percent: `0.05`, `5%`.
pub(super) fn share(text: &str) -> Result<f64, String> {
    match text.trim().strip_suffix('%') {
        Some(percent) => number(percent.trim_end()).map(|v| v / 100.0),
        None => number(text),
    }
}

pub(super) fn part(text: &str) -> Result<f64, String> {
    share(text).and_then(|v| {
        if (0.0..1.0).contains(&v) {
            Ok(v)
        } else {
            Err("must be from 0 to below 1".into())
        }
    })
}

pub(super) fn part_above_zero(text: &str) -> Result<f64, String> {
    share(text).and_then(|v| {
        if v > 0.0 && v <= 1.0 {
            Ok(v)
        } else {
            Err("must be above 0 and at most 1".into())
        }
    })
}

/// A share above 0 and below 1.
pub(super) fn rate(text: &str) -> Result<f64, String> {
    share(text).and_then(|v| {
        if v > 0.0 && v < 1.0 {
            Ok(v)
        } else {
            Err("must be above 0 and below 1".into())
        }
    })
}

/// A number of bytes: `800M`, `2G`, `1.5GiB`, `123456`; K, M and G are powers of 1024.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
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
        Ok(bytes as u64)
    } else {
        Err("is too large".into())
    }
}

pub(super) fn not_negative(text: &str) -> Result<f64, String> {
    number(text).and_then(|v| {
        if v >= 0.0 {
            Ok(v)
        } else {
            Err("must be 0 or more".into())
        }
    })
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
