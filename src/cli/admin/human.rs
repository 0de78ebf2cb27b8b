//! Numbers, sizes and times for people.

use std::time::Duration;

use crate::types::Timestamp;

/// A size: `512 B`, `4.1 KiB`, `2.0 GiB`.
pub fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

/// A number with its thousands apart: `1,234,567`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A duration by its two largest units: `340ms`, `12s`, `4m05s`, `2h10m`, `3d4h`.
pub fn span(duration: Duration) -> String {
    let ms = duration.as_millis();
    let s = duration.as_secs();
    match s {
        0 => format!("{ms}ms"),
        1..60 => format!("{s}s"),
        60..3_600 => format!("{}m{:02}s", s / 60, s % 60),
        3_600..86_400 => format!("{}h{:02}m", s / 3_600, s % 3_600 / 60),
        _ => format!("{}d{}h", s / 86_400, s % 86_400 / 3_600),
    }
}

/// How long ago, or how long until: `4m05s ago`, `in 2h10m`, `now`.
pub fn relative(at: Timestamp, now: Timestamp) -> String {
    if at == Timestamp::NEVER {
        return "never".into();
    }
    match (now.since(at), at.since(now)) {
        (ago, _) if ago >= Duration::from_secs(1) => format!("{} ago", span(ago)),
        (_, until) if until >= Duration::from_secs(1) => format!("in {}", span(until)),
        _ => "now".into(),
    }
}

/// A time in UTC to the second: `2026-11-23 17:55:49Z`.
pub fn time(at: Timestamp) -> String {
    let text = at.rfc3339();
    let seconds = text.split('.').next().unwrap_or(&text);
    format!("{}Z", seconds.replace('T', " "))
}
