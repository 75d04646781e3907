//! The context that travels with a request: trace, deadline, local dtab (http-behaviour §6.1, §6.8, §12).
//!
//! [`Ctx::take`] reads and removes what a caller sent; the client stack writes the headers of the next hop from it. A
//! plain struct, made once per request; nothing here is looked up by name later.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use http::{HeaderMap, HeaderValue};
use l5d_naming::{Dtab, ParseError};

use crate::headers;

/// The flag that says the caller's tracer wants everything.
const DEBUG: u64 = 1;
/// The flag that says the sampling decision has been made.
const SAMPLING_KNOWN: u64 = 2;
/// The flag that says it was yes.
const SAMPLED: u64 = 4;

/// A span's ids, as `l5d-ctx-trace` carries them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TraceId {
    /// This span.
    pub span: u64,
    /// Its parent; equal to `span` at the root.
    pub parent: u64,
    /// The lower 64 bits of the trace's id.
    pub trace: u64,
    /// The upper 64 bits, for 128-bit trace ids.
    pub trace_high: Option<u64>,
    /// Bit 0 debug, bit 1 sampling known, bit 2 sampled.
    pub flags: u64,
}

impl TraceId {
    /// A new trace with a random id that is not zero.
    pub fn root() -> Self {
        let id = random_id();
        Self { span: id, parent: id, trace: id, trace_high: None, flags: 0 }
    }

    /// A new span beneath this one.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { span: random_id(), parent: self.span, ..*self }
    }

    /// The sampling decision, if it has been made.
    pub fn sampled(&self) -> Option<bool> {
        if self.flags & DEBUG != 0 {
            Some(true)
        } else {
            (self.flags & SAMPLING_KNOWN != 0).then_some(self.flags & SAMPLED != 0)
        }
    }

    /// The same span with a decision.
    #[must_use]
    pub fn with_sampled(mut self, yes: bool) -> Self {
        self.flags = (self.flags & !SAMPLED) | SAMPLING_KNOWN | if yes { SAMPLED } else { 0 };
        self
    }

    /// From the value of `l5d-ctx-trace`: base64 of big-endian span, parent, trace, flags and, for 128-bit ids, the
    /// upper half. Anything else is `None` (the caller starts a new trace).
    pub fn decode(value: &[u8]) -> Option<Self> {
        let mut bytes = [0u8; 48];
        let n = BASE64.decode_slice(value, &mut bytes).ok()?;
        let word = |i: usize| u64::from_be_bytes(bytes[i * 8..i * 8 + 8].try_into().expect("eight bytes"));
        match n {
            32 => Some(Self { span: word(0), parent: word(1), trace: word(2), trace_high: None, flags: word(3) }),
            40 => {
                Some(Self { span: word(0), parent: word(1), trace: word(2), trace_high: Some(word(4)), flags: word(3) })
            }
            _ => None,
        }
    }

    /// As the value of `l5d-ctx-trace`.
    pub fn encode(&self) -> HeaderValue {
        let mut bytes = [0u8; 40];
        let words = [self.span, self.parent, self.trace, self.flags, self.trace_high.unwrap_or(0)];
        for (i, w) in words.iter().enumerate() {
            bytes[i * 8..i * 8 + 8].copy_from_slice(&w.to_be_bytes());
        }
        let len = if self.trace_high.is_some() { 40 } else { 32 };
        let mut text = [0u8; 56];
        let n = BASE64.encode_slice(&bytes[..len], &mut text).expect("56 characters hold 40 bytes");
        HeaderValue::from_bytes(&text[..n]).expect("base64 is a header value")
    }

    /// The trace id as `l5d-reqid`: 16 hex digits of the lower half.
    pub fn reqid(&self) -> HeaderValue {
        HeaderValue::from_bytes(&hex16(self.trace)).expect("hex digits are a header value")
    }

    /// `<trace>.<span><:<parent>` as Finagle prints an id.
    pub fn show(&self) -> String {
        format!("{:016x}.{:016x}<:{:016x}", self.trace, self.span, self.parent)
    }
}

/// A number as 16 lower-case hex digits.
pub(crate) fn hex16(n: u64) -> [u8; 16] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    std::array::from_fn(|i| DIGITS[(n >> (60 - 4 * i)) as usize & 15])
}

fn random_id() -> u64 {
    loop {
        let id = fastrand::u64(..);
        if id != 0 {
            return id;
        }
    }
}

/// From when until when a request is worth anything, in nanoseconds since 1970.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Deadline {
    /// When the caller set it.
    pub at: u64,
    /// When it passes.
    pub until: u64,
}

impl Deadline {
    /// From now on for `timeout`.
    pub fn after(timeout: Duration) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let nanos = |d: Duration| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
        Self { at: nanos(now), until: nanos(now.saturating_add(timeout)) }
    }

    /// The stricter of two: the later stamp, the earlier end.
    #[must_use]
    pub fn combined(self, other: Self) -> Self {
        Self { at: self.at.max(other.at), until: self.until.min(other.until) }
    }

    fn decode(value: &str) -> Option<Self> {
        let (at, until) = value.split_once(' ')?;
        Some(Self { at: at.parse().ok()?, until: until.parse().ok()? })
    }

    fn encode(self) -> HeaderValue {
        HeaderValue::from_str(&format!("{} {}", self.at, self.until)).expect("digits are a header value")
    }
}

/// Everything a request brings along or collects on its way.
#[derive(Clone, Debug)]
pub struct Ctx {
    /// The server's span for this request.
    pub trace: TraceId,
    /// The caller's deadline, tightened by the time-outs passed on the way.
    pub deadline: Option<Deadline>,
    /// The request's own dtab: the context's entries, then the user's.
    pub local_dtab: Dtab,
    /// Raised when the server's own time-out gives the request up; only where one is configured.
    pub(crate) server_gave_up: Option<Arc<AtomicBool>>,
}

impl Ctx {
    /// Reads the context out of a request's headers and removes what is not to be passed on as it is.
    ///
    /// # Errors
    /// When one of the dtab headers is not a dtab.
    pub fn take(headers: &mut HeaderMap) -> Result<Self, ParseError> {
        let mut deadline: Option<Deadline> = None;
        if headers.contains_key(headers::CTX_DEADLINE) {
            for d in headers.get_all(headers::CTX_DEADLINE) {
                if let Some(d) = d.to_str().ok().and_then(Deadline::decode) {
                    deadline = Some(deadline.map_or(d, |x| x.combined(d)));
                }
            }
            headers.remove(headers::CTX_DEADLINE);
        }
        let mut local_dtab = Dtab::empty();
        for name in [headers::CTX_DTAB, headers::DTAB] {
            if headers.contains_key(&name) {
                for line in headers.get_all(&name) {
                    local_dtab = local_dtab.concat(&Dtab::read(&String::from_utf8_lossy(line.as_bytes()))?);
                }
                headers.remove(&name);
            }
        }
        headers.remove(headers::RETRYABLE_REQUEST);
        Ok(Self { trace: TraceId::root(), deadline, local_dtab, server_gave_up: None })
    }

    /// A context for a request whose own is not trusted (`clearContext`): removes every `l5d-*` header.
    pub fn cleared(headers: &mut HeaderMap) -> Self {
        let mine: Vec<_> = headers.keys().filter(|k| k.as_str().starts_with("l5d-")).cloned().collect();
        for name in mine {
            headers.remove(name);
        }
        headers.remove(headers::RETRYABLE_REQUEST);
        Self { trace: TraceId::root(), deadline: None, local_dtab: Dtab::empty(), server_gave_up: None }
    }

    /// Tightens the deadline by a time-out that starts now.
    pub fn limit(&mut self, timeout: Duration) {
        let mine = Deadline::after(timeout);
        self.deadline = Some(self.deadline.map_or(mine, |d| d.combined(mine)));
    }

    /// Writes the deadline and the dtab for the next hop. The trace is the propagator's.
    pub fn write(&self, headers: &mut HeaderMap) {
        if let Some(d) = self.deadline {
            headers.insert(headers::CTX_DEADLINE, d.encode());
        }
        if !self.local_dtab.is_empty()
            && let Ok(v) = HeaderValue::from_str(&self.local_dtab.to_string())
        {
            headers.insert(headers::CTX_DTAB, v);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_known_vector() {
        let id = TraceId { span: 3, parent: 2, trace: 1, trace_high: None, flags: 6 };
        assert_eq!(id.encode(), "AAAAAAAAAAMAAAAAAAAAAgAAAAAAAAABAAAAAAAAAAY=");
        assert_eq!(TraceId::decode(id.encode().as_bytes()), Some(id));
        assert_eq!(id.sampled(), Some(true));
        assert_eq!(TraceId::decode(b"garbage"), None);
    }

    #[test]
    fn deadlines_only_get_stricter() {
        let mut h = HeaderMap::new();
        h.append(headers::CTX_DEADLINE, HeaderValue::from_static("5 100"));
        h.append(headers::CTX_DEADLINE, HeaderValue::from_static("9 200"));
        h.append(headers::CTX_DEADLINE, HeaderValue::from_static("nonsense"));
        let ctx = Ctx::take(&mut h).unwrap();
        assert_eq!(ctx.deadline, Some(Deadline { at: 9, until: 100 }));
        assert!(h.is_empty());
    }

    #[test]
    fn dtabs_are_joined_in_order() {
        let mut h = HeaderMap::new();
        h.insert(headers::DTAB, HeaderValue::from_static("/c=>/d"));
        h.insert(headers::CTX_DTAB, HeaderValue::from_static("/a=>/b"));
        let ctx = Ctx::take(&mut h).unwrap();
        ctx.write(&mut h);
        assert_eq!(h[headers::CTX_DTAB], "/a=>/b;/c=>/d");
        h.insert(headers::DTAB, HeaderValue::from_static("bogus"));
        assert_eq!(Ctx::take(&mut h).unwrap_err().to_string(), "'/' expected but 'b' found at '[b]ogus'");
    }

    proptest! {
        #[test]
        fn any_id_survives_the_header(span: u64, parent: u64, trace: u64, high: Option<u64>, flags in 0u64..8) {
            let id = TraceId { span, parent, trace, trace_high: high, flags };
            prop_assert_eq!(TraceId::decode(id.encode().as_bytes()), Some(id));
        }
    }
}
