//! What is recorded: one thing that happened to one span at one time, in Finagle's words.

use std::fmt;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;

use super::TraceId;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// The span it happened to.
    pub span: TraceId,
    /// When, in microseconds since 1970.
    pub at_us: u64,
    /// What.
    pub annotation: Annotation,
}

/// What can happen to a span. Displayed as Finagle's `Annotation`s are.
#[derive(Clone, Debug, PartialEq)]
pub enum Annotation {
    /// A client begins to send.
    ClientSend,
    /// A client has the response.
    ClientRecv,
    /// A server begins to respond.
    ServerSend,
    /// A server begins to work on a request.
    ServerRecv,
    /// A message goes to the wire.
    WireSend,
    /// A message comes from the wire.
    WireRecv,
    /// Anything else, in words.
    Message(Text),
    /// The service that the span is of.
    ServiceName(Text),
    /// What it does; of several the last one counts.
    Rpc(Text),
    /// Who asked.
    ClientAddr(SocketAddr),
    /// Who answers.
    ServerAddr(SocketAddr),
    /// Where the span is.
    LocalAddr(SocketAddr),
    /// A fact that holds for the whole span.
    Binary(&'static str, Value),
}

/// The value of a fact.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Words.
    Text(Text),
    /// Yes or no.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number.
    Double(f64),
}

/// Text that costs nothing to hold again: of the program itself, or shared.
#[derive(Clone)]
pub enum Text {
    /// Of the program itself.
    Static(&'static str),
    /// Shared.
    Shared(Arc<str>),
}

impl Annotation {
    /// The two letters that Zipkin calls the core annotations and those of the wire by.
    pub fn code(&self) -> Option<&'static str> {
        Some(match self {
            Self::ClientSend => "cs",
            Self::ClientRecv => "cr",
            Self::ServerSend => "ss",
            Self::ServerRecv => "sr",
            Self::WireSend => "ws",
            Self::WireRecv => "wr",
            _ => return None,
        })
    }
}

/// `MMdd HH:mm:ss.SSS <trace>.<span><:<parent>] <annotation>`, in UTC: the line of Finagle's `Record`.
impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (month, day) = month_and_day(self.at_us / 86_400_000_000);
        let ms = self.at_us / 1000 % 86_400_000;
        let (hours, minutes, seconds) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
        write!(f, "{month:02}{day:02} {hours:02}:{minutes:02}:{seconds:02}.{:03} ", ms % 1000)?;
        write!(f, "{}] {}", self.span, self.annotation)
    }
}

/// Of a day counted from 1970 (Howard Hinnant's `civil_from_days`).
fn month_and_day(days: u64) -> (u64, u64) {
    let era_day = (days + 719_468) % 146_097;
    let year_of_era = (era_day - era_day / 1460 + era_day / 36_524 - era_day / 146_096) / 365;
    let day_of_year = era_day - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (month, day_of_year - (153 * shifted + 2) / 5 + 1)
}

impl fmt::Display for Annotation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClientSend => f.write_str("ClientSend"),
            Self::ClientRecv => f.write_str("ClientRecv"),
            Self::ServerSend => f.write_str("ServerSend"),
            Self::ServerRecv => f.write_str("ServerRecv"),
            Self::WireSend => f.write_str("WireSend"),
            Self::WireRecv => f.write_str("WireRecv"),
            Self::Message(text) => write!(f, "Message({text})"),
            Self::ServiceName(text) => write!(f, "ServiceName({text})"),
            Self::Rpc(text) => write!(f, "Rpc({text})"),
            Self::ClientAddr(addr) => write!(f, "ClientAddr(/{addr})"),
            Self::ServerAddr(addr) => write!(f, "ServerAddr(/{addr})"),
            Self::LocalAddr(addr) => write!(f, "LocalAddr(/{addr})"),
            Self::Binary(key, value) => write!(f, "BinaryAnnotation({key},{value})"),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Bool(yes) => write!(f, "{yes}"),
            Self::Int(n) => write!(f, "{n}"),
            // As Java prints it: `1.0`.
            Self::Double(n) => write!(f, "{n:?}"),
        }
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::Static(text) => text,
            Self::Shared(text) => text,
        }
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl From<&'static str> for Text {
    fn from(text: &'static str) -> Self {
        Self::Static(text)
    }
}

impl From<Arc<str>> for Text {
    fn from(text: Arc<str>) -> Self {
        Self::Shared(text)
    }
}

impl From<&Arc<str>> for Text {
    fn from(text: &Arc<str>) -> Self {
        Self::Shared(Arc::clone(text))
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self::Shared(text.into())
    }
}

impl<T: Into<Text>> From<T> for Value {
    fn from(text: T) -> Self {
        Self::Text(text.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_as_finagles() {
        let span = TraceId { span: 3, parent: 2, trace: 1, trace_high: None, flags: 0 };
        let show = |at_us, annotation| Record { span, at_us, annotation }.to_string();
        let ids = "0000000000000001.0000000000000003<:0000000000000002]";
        assert_eq!(show(784_111_777_012_345, Annotation::ServerRecv), format!("1106 08:49:37.012 {ids} ServerRecv"));
        let leap = 951_782_400_000_000; // 2000-02-29
        assert_eq!(show(leap, Annotation::Message("a".into())), format!("0229 00:00:00.000 {ids} Message(a)"));
        assert_eq!(show(leap - 1, Annotation::WireSend), format!("0228 23:59:59.999 {ids} WireSend"));
        let value = Annotation::Binary("l5d.success", Value::Double(1.0));
        assert!(show(0, value).starts_with("0101 00:00:00.000"));
        let text = |a: Annotation| a.to_string();
        assert_eq!(text(Annotation::Binary("l5d.success", Value::Double(1.0))), "BinaryAnnotation(l5d.success,1.0)");
        assert_eq!(
            text(Annotation::Binary("http.status_code", Value::Int(200))),
            "BinaryAnnotation(http.status_code,200)"
        );
        assert_eq!(text(Annotation::ClientAddr(([127, 0, 0, 1], 80).into())), "ClientAddr(/127.0.0.1:80)");
    }
}
