//! Numbers as the page writes them.

use super::Estimate;

/// `± deviation` and `[low, high]`, as far as known.
pub(super) fn uncertainty(estimate: &Estimate) -> Option<String> {
    let mut parts = Vec::new();
    parts.extend(
        estimate
            .deviation
            .filter(|v| v.is_finite())
            .map(|v| format!("± {}", number(v, 3))),
    );
    if let Some([low, high]) = estimate
        .interval
        .filter(|ends| ends.iter().all(|v| v.is_finite()))
    {
        parts.push(format!("[{}, {}]", number(low, 3), number(high, 3)));
    }
    (!parts.is_empty()).then(|| parts.join(" "))
}

pub(super) fn value(value: Option<f64>) -> String {
    value
        .filter(|v| v.is_finite())
        .map_or_else(|| "–".to_owned(), |v| number(v, 3))
}

/// A number of unknown kind: whole as it is, else at most four decimals.
pub(super) fn plain(value: f64) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    let text = number(value, 4);
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

pub(super) fn number(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    // −0.000 says more than is known
    if text.bytes().all(|b| matches!(b, b'-' | b'0' | b'.')) {
        return text.trim_start_matches('-').to_owned();
    }
    text.replace('-', "\u{2212}")
}
