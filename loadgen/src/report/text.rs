//! Numbers as people read them. The same number looks the same in every output.

use crate::stats::Interval;

/// Milliseconds with three significant digits and their unit: `0.412 ms`, `12.3 ms`, `1.24 s`.
pub fn ms(value_ms: f64) -> String {
    if value_ms >= 1_000.0 {
        return format!("{} s", significant(value_ms / 1_000.0));
    }
    format!("{} ms", significant(value_ms))
}

/// Microseconds per something, three significant digits.
pub fn us(value_us: f64) -> String {
    format!("{} µs", significant(value_us))
}

/// A number at an axis: three significant digits without idle zeros, thousands grouped.
pub fn tick(value: f64) -> String {
    if value.abs() >= 1_000.0 {
        return count(value.round() as u64);
    }
    let text = significant(value);
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// A ratio: `2.3×`.
pub fn ratio(value: f64) -> String {
    if value >= 100.0 { format!("{value:.0}×") } else { format!("{value:.2}×").replace(".00×", "×") }
}

/// A share in percent.
pub fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// A part of a whole in percent, with enough digits that some is never shown as none.
pub fn share(part: u64, whole: u64) -> String {
    let percent = part as f64 / whole.max(1) as f64 * 100.0;
    match part {
        0 => "0 %".to_owned(),
        _ if percent < 0.001 => "under 0.001 %".to_owned(),
        _ => format!("{} %", significant(percent)),
    }
}

/// A whole number with thin groups: `1,234,567`.
pub fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut grouped = String::with_capacity(digits.len() * 4 / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A rate: `1,234/s`.
pub fn per_s(value: f64) -> String {
    format!("{}/s", count(value.round().max(0.0) as u64))
}

/// Bytes in binary units.
pub fn bytes(value: u64) -> String {
    let value = value as f64;
    match value {
        _ if value >= 1024.0 * 1024.0 * 1024.0 => format!("{:.1} GiB", value / (1024.0 * 1024.0 * 1024.0)),
        _ if value >= 1024.0 * 1024.0 => format!("{:.0} MiB", value / (1024.0 * 1024.0)),
        _ if value >= 1024.0 => format!("{:.0} KiB", value / 1024.0),
        _ => format!("{value:.0} B"),
    }
}

/// A median with its interval, `1.20 ms (1.10–1.30)`; the median alone where one run gives no spread.
pub fn with_interval(interval: &Interval, unit: fn(f64) -> String) -> String {
    if interval.samples < 2 {
        return unit(interval.median);
    }
    let (low, high) = (unit(interval.low), unit(interval.high));
    // The unit is said once, unless the ends have different ones.
    let shared = low.split_once(' ').zip(high.split_once(' ')).filter(|(low, high)| low.1 == high.1);
    match shared {
        Some(((low, low_unit), (high, _))) if unit(interval.median).ends_with(low_unit) => {
            format!("{} ({low}–{high})", unit(interval.median))
        }
        _ => format!("{} ({low}–{high})", unit(interval.median)),
    }
}

/// Three significant digits, never in exponent form.
pub fn significant(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_people_read_them() {
        assert_eq!(ms(0.412_3), "0.412 ms");
        assert_eq!(ms(12.34), "12.3 ms");
        assert_eq!(ms(1_240.0), "1.24 s");
        assert_eq!(count(0), "0");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(count(123_456), "123,456");
        assert_eq!([tick(10.0), tick(0.1), tick(2.5), tick(20_000.0)], ["10", "0.1", "2.5", "20,000"]);
        assert_eq!(ratio(2.0), "2×");
        assert_eq!(ratio(2.345), "2.35×");
        assert_eq!(percent(0.995), "99.5 %");
        assert_eq!([share(0, 9), share(1, 1_000_000), share(3, 2_000)], ["0 %", "under 0.001 %", "0.150 %"]);
        assert_eq!(bytes(5 * 1024 * 1024), "5 MiB");
    }

    #[test]
    fn an_interval_says_its_unit_once() {
        let interval = Interval { low: 1.0, median: 1.5, high: 2.0, samples: 5 };
        assert_eq!(with_interval(&interval, ms), "1.50 ms (1.00–2.00)");
        let interval = Interval { low: 1.0, median: 1.5, high: 2_000.0, samples: 5 };
        assert_eq!(with_interval(&interval, ms), "1.50 ms (1.00 ms–2.00 s)");
        let interval = Interval { samples: 1, ..interval };
        assert_eq!(with_interval(&interval, ms), "1.50 ms");
    }
}
