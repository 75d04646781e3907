//! The scalar types of a configuration that belong to no plug-in: ports, durations, log levels.

use std::{fmt, str::FromStr, time::Duration};

use crate::{Cx, FromNode, Node, from_node, parsed};

/// A TCP or UDP port; 0 asks the system for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port(pub u16);

impl FromNode for Port {
    fn from_node(node: &Node, cx: &mut Cx) -> Option<Self> {
        let number = from_node::any_whole(node, cx)?;
        match u16::try_from(number) {
            Ok(port) => Some(Self(port)),
            Err(_) => {
                cx.error(node, format!("{number} outside valid range for ports"));
                None
            }
        }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A duration written as a whole number of milliseconds, 0 or more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Millis(pub Duration);

/// A timeout written as a whole number of milliseconds; 0 and less mean that there is none, as Finagle had it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timeout(pub Option<Duration>);

/// A duration written as a whole number of seconds, 0 or more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Secs(pub Duration);

impl FromNode for Millis {
    fn from_node(node: &Node, cx: &mut Cx) -> Option<Self> {
        not_negative(node, cx).map(|ms| Self(Duration::from_millis(ms)))
    }
}

impl FromNode for Secs {
    fn from_node(node: &Node, cx: &mut Cx) -> Option<Self> {
        not_negative(node, cx).map(|secs| Self(Duration::from_secs(secs)))
    }
}

impl FromNode for Timeout {
    fn from_node(node: &Node, cx: &mut Cx) -> Option<Self> {
        let ms = from_node::whole(node, cx, i128::from(i64::MIN), MAX_DURATION)?;
        Some(Self(u64::try_from(ms).ok().filter(|ms| *ms > 0).map(Duration::from_millis)))
    }
}

/// Durations reach as far as Java's `long` did; more can only be a slip, and could overflow a clock.
const MAX_DURATION: i128 = i64::MAX as i128 / 1_000_000;

fn not_negative(node: &Node, cx: &mut Cx) -> Option<u64> {
    from_node::whole(node, cx, 0, MAX_DURATION).and_then(|n| u64::try_from(n).ok())
}

/// The levels of Linkerd's log, least important first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogLevel {
    /// Everything.
    All,
    /// TRACE.
    Trace,
    /// DEBUG.
    Debug,
    /// INFO, the default.
    Info,
    /// WARNING.
    Warning,
    /// ERROR.
    Error,
    /// CRITICAL.
    Critical,
    /// FATAL.
    Fatal,
    /// Nothing.
    Off,
}

impl LogLevel {
    /// Every level, in order.
    pub const ALL: [Self; 9] = [
        Self::All,
        Self::Trace,
        Self::Debug,
        Self::Info,
        Self::Warning,
        Self::Error,
        Self::Critical,
        Self::Fatal,
        Self::Off,
    ];

    /// The level's name, as the log and the admin pages write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::All => "ALL",
            Self::Trace => "TRACE",
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warning => "WARNING",
            Self::Error => "ERROR",
            Self::Critical => "CRITICAL",
            Self::Fatal => "FATAL",
            Self::Off => "OFF",
        }
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for LogLevel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let level = Self::ALL.into_iter().find(|level| level.name().eq_ignore_ascii_case(text));
        level.ok_or_else(|| {
            let known: Vec<&str> = Self::ALL.iter().map(|level| level.name()).collect();
            format!("Illegal log level: {text}; known: {}", known.join(", "))
        })
    }
}

impl FromNode for LogLevel {
    fn from_node(node: &Node, cx: &mut Cx) -> Option<Self> {
        parsed(node, cx, str::parse)
    }
}

/// Reads a duration as Twitter's libraries write it: `1.minute`, `30.seconds`, `1.minute+30.seconds`.
///
/// Units go from nanoseconds to days, singular or plural, in any case. The total must fit a clock and can't be negative.
pub fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("invalid duration \"{text}\"; expected for example 30.seconds or 1.minute+30.seconds");
    let compact: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    let mut nanos: i128 = 0;
    let mut rest = compact.as_str();
    let mut first = true;
    while first || !rest.is_empty() {
        let (negative, term) = match rest.strip_prefix('-') {
            Some(term) => (true, term),
            None => match rest.strip_prefix('+') {
                Some(term) => (false, term),
                None if first => (false, rest),
                None => return Err(bad()),
            },
        };
        first = false;
        let (term, after) = term.split_at(term.find(['+', '-']).unwrap_or(term.len()));
        rest = after;
        let (count, unit) = term.split_once('.').ok_or_else(bad)?;
        if count.is_empty() || !count.bytes().all(|b| b.is_ascii_digit()) {
            return Err(bad());
        }
        let count: i64 = count.parse().map_err(|_| bad())?;
        let unit = unit.to_ascii_lowercase();
        let unit_nanos: i128 = match unit.strip_suffix('s').unwrap_or(&unit) {
            "nanosecond" => 1,
            "microsecond" => 1_000,
            "millisecond" => 1_000_000,
            "second" => 1_000_000_000,
            "minute" => 60_000_000_000,
            "hour" => 3_600_000_000_000,
            "day" => 86_400_000_000_000,
            _ => return Err(bad()),
        };
        let term_nanos = i128::from(count) * unit_nanos;
        nanos = if negative { nanos.checked_sub(term_nanos) } else { nanos.checked_add(term_nanos) }.ok_or_else(bad)?;
    }
    // Finagle's durations are nanoseconds in a long.
    match i64::try_from(nanos).map(u64::try_from) {
        Ok(Ok(nanos)) => Ok(Duration::from_nanos(nanos)),
        _ => Err(bad()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value<T: FromNode>(yaml: &str) -> Result<T, String> {
        let node = crate::read(&format!("v: {yaml}")).unwrap();
        let mut cx = Cx::new();
        T::from_node(node.get("v").unwrap(), &mut cx).ok_or_else(|| cx.finish().remove(0).what)
    }

    #[test]
    fn ports_end_at_65535() {
        assert_eq!(value::<Port>("0"), Ok(Port(0)));
        assert_eq!(value::<Port>("65535"), Ok(Port(65535)));
        assert_eq!(value::<Port>("\"4140\""), Ok(Port(4140)));
        assert_eq!(value::<Port>("65536"), Err("65536 outside valid range for ports".to_owned()));
        assert_eq!(value::<Port>("-1"), Err("-1 outside valid range for ports".to_owned()));
        assert_eq!(value::<Port>("http"), Err("expected a whole number, got \"http\"".to_owned()));
    }

    #[test]
    fn durations_are_whole_and_not_negative() {
        assert_eq!(value::<Millis>("500"), Ok(Millis(Duration::from_millis(500))));
        assert_eq!(value::<Secs>("2"), Ok(Secs(Duration::from_secs(2))));
        assert!(value::<Millis>("-1").is_err());
        assert!(value::<Secs>("99999999999999999999").is_err());
    }

    #[test]
    fn a_timeout_of_nothing_or_less_is_none() {
        assert_eq!(value::<Timeout>("500"), Ok(Timeout(Some(Duration::from_millis(500)))));
        assert_eq!(value::<Timeout>("0"), Ok(Timeout(None)));
        assert_eq!(value::<Timeout>("-5"), Ok(Timeout(None)));
        assert!(value::<Timeout>("5s").is_err());
    }

    #[test]
    fn levels_are_read_in_any_case() {
        assert_eq!(value::<LogLevel>("warning"), Ok(LogLevel::Warning));
        assert!(value::<LogLevel>("loud").unwrap_err().starts_with("Illegal log level: loud"));
    }

    #[test]
    fn twitter_durations_are_sums_of_counted_units() {
        assert_eq!(duration("1.minutes"), Ok(Duration::from_secs(60)));
        assert_eq!(duration("1.minute"), Ok(Duration::from_secs(60)));
        assert_eq!(duration("1.minute+30.seconds"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1.minute-30.seconds"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("250.MILLISECONDS"), Ok(Duration::from_millis(250)));
        for bad in [
            "",
            "1",
            "1.",
            ".seconds",
            "1.fortnight",
            "-1.second",
            "1.second2.seconds",
            "1.5.seconds",
            "+",
            "1.secondss",
        ] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        assert!(duration("9223372036854775807.days").is_err());
    }
}
