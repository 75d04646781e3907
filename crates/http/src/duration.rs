//! Durations as Twitter's `Duration` prints them, since messages are compared by users and tests: `150.milliseconds`,
//! `1.second+500.milliseconds`.

use std::time::Duration;

/// The parts of a duration, largest first, joined by `+`.
pub(crate) fn show_duration(d: Duration) -> String {
    const UNITS: [(u128, &str); 7] = [
        (86_400_000_000_000, "day"),
        (3_600_000_000_000, "hour"),
        (60_000_000_000, "minute"),
        (1_000_000_000, "second"),
        (1_000_000, "millisecond"),
        (1_000, "microsecond"),
        (1, "nanosecond"),
    ];
    let mut rest = d.as_nanos();
    let mut parts = Vec::new();
    for (size, name) in UNITS {
        let n = rest / size;
        rest %= size;
        if n > 0 {
            parts.push(format!("{n}.{name}{}", if n == 1 { "" } else { "s" }));
        }
    }
    if parts.is_empty() { "0.seconds".to_owned() } else { parts.join("+") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_twitter_prints_them() {
        assert_eq!(show_duration(Duration::from_millis(150)), "150.milliseconds");
        assert_eq!(show_duration(Duration::from_secs(10)), "10.seconds");
        assert_eq!(show_duration(Duration::from_millis(1500)), "1.second+500.milliseconds");
        assert_eq!(show_duration(Duration::from_secs(60)), "1.minute");
        assert_eq!(show_duration(Duration::ZERO), "0.seconds");
    }
}
