//! Durations as Twitter's libraries write them: `5.seconds`, `1.minute+30.seconds`.

use std::time::Duration;

/// Reads a duration such as `5.seconds` or `1.minute + 30.seconds`; `None` if it is none. Units go from nanoseconds to days,
/// in singular or plural.
pub fn parse_duration(text: &str) -> Option<Duration> {
    text.split('+').try_fold(Duration::ZERO, |sum, term| sum.checked_add(parse_term(term.trim())?))
}

fn parse_term(term: &str) -> Option<Duration> {
    let (number, unit) = term.split_once('.')?;
    // `parse` would take a sign.
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = number.parse().ok()?;
    let unit = unit.to_ascii_lowercase();
    let seconds = |each: u64| number.checked_mul(each).map(Duration::from_secs);
    match unit.strip_suffix('s').unwrap_or(&unit) {
        "nanosecond" => Some(Duration::from_nanos(number)),
        "microsecond" => Some(Duration::from_micros(number)),
        "millisecond" => Some(Duration::from_millis(number)),
        "second" => seconds(1),
        "minute" => seconds(60),
        "hour" => seconds(3600),
        "day" => seconds(86400),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_number_and_a_unit() {
        for (text, expected) in [
            ("5.seconds", Some(Duration::from_secs(5))),
            ("1.second", Some(Duration::from_secs(1))),
            ("0.days", Some(Duration::ZERO)),
            ("250.milliseconds", Some(Duration::from_millis(250))),
            ("7.MICROSECONDS", Some(Duration::from_micros(7))),
            ("1.minute+30.seconds", Some(Duration::from_secs(90))),
            ("1.hour + 1.day", Some(Duration::from_secs(90_000))),
            ("x", None),
            ("", None),
            ("5", None),
            ("5seconds", None),
            (".seconds", None),
            ("-5.seconds", None),
            ("+5.seconds", None),
            ("5.fortnights", None),
            ("5.secondss", None),
            ("1.second+", None),
            ("99999999999999999999.seconds", None),
            ("18446744073709551615.days", None),
        ] {
            assert_eq!(parse_duration(text), expected, "{text}");
        }
    }
}
