//! Durations, sizes and rates as people write them.

use crate::workload::Rate;

/// `250us`, `10ms`, `30s`, `2m`, `1h` in nanoseconds. A number without a unit is an error.
pub fn parse_duration(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text)?;
    let scale = match unit {
        "ns" => 1.0,
        "us" | "µs" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        "m" | "min" => 60e9,
        "h" => 3600e9,
        _ if number == 0.0 => 0.0,
        _ => {
            return Err(format!("a duration as 250us, 10ms, 30s or 2m, not {text:?}"));
        }
    };
    Ok((number * scale).round() as u64)
}

/// `100`, `16KiB`, `1MB` in bytes.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text)?;
    let scale = byte_scale(unit).ok_or_else(|| format!("a size as 100, 16KiB or 1MB, not {text:?}"))?;
    Ok((number * scale).round() as u64)
}

/// `max`, `5000` or `5k` records a second, `50MB/s` bytes a second.
pub fn parse_rate(text: &str) -> Result<Rate, String> {
    if text == "max" {
        return Ok(Rate::Max);
    }
    let error = || format!("rate: max, records a second as 5000 or 50k, or bytes as 50MB/s, not {text:?}");
    let (number, unit) = split(text).map_err(|_| error())?;
    if number <= 0.0 {
        return Err(error());
    }
    let rate = match unit.strip_suffix("/s") {
        Some("" | "records") => Rate::RecordsPerSecond(number),
        Some(unit) => Rate::BytesPerSecond(number * byte_scale(unit).ok_or_else(error)?),
        None => match unit {
            "" => Rate::RecordsPerSecond(number),
            "k" => Rate::RecordsPerSecond(number * 1e3),
            "M" => Rate::RecordsPerSecond(number * 1e6),
            _ => return Err(error()),
        },
    };
    Ok(rate)
}

fn byte_scale(unit: &str) -> Option<f64> {
    let scale = match unit {
        "" | "B" => 1.0,
        "kB" | "KB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        "KiB" => 1024.0,
        "MiB" => 1024.0 * 1024.0,
        "GiB" => 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    Some(scale)
}

fn split(text: &str) -> Result<(f64, &str), String> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..end].parse().map_err(|_| format!("a number, not {text:?}"))?;
    Ok((number, text[end..].trim()))
}

/// A duration for people: `1.25 ms`.
pub fn show_ns(ns: f64) -> String {
    let (value, unit) = match ns {
        ns if ns < 1e3 => (ns, "ns"),
        ns if ns < 1e6 => (ns / 1e3, "µs"),
        ns if ns < 1e9 => (ns / 1e6, "ms"),
        _ => (ns / 1e9, "s"),
    };
    let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.digits$} {unit}")
}

/// A count with thousands separated: `1,234,567`.
pub fn show_count(count: u64) -> String {
    let digits = count.to_string();
    let mut shown = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units() {
        assert_eq!(parse_duration("250us"), Ok(250_000));
        assert_eq!(parse_duration("1.5s"), Ok(1_500_000_000));
        assert!(parse_duration("10").is_err());
        assert_eq!(parse_bytes("16KiB"), Ok(16_384));
        assert_eq!(parse_rate("50MB/s"), Ok(Rate::BytesPerSecond(50e6)));
        assert_eq!(parse_rate("20k"), Ok(Rate::RecordsPerSecond(20e3)));
        assert!(parse_rate("0").is_err() && parse_rate("-5").is_err());
        assert_eq!(show_count(1_234_567), "1,234,567");
        assert_eq!(show_ns(1_250_000.0), "1.25 ms");
    }
}
