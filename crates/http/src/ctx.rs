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
use l5d_telemetry::trace::{Recording, TraceId};

use crate::{
    filters::client_cert::ClientCertificate,
    headers::{self, Present},
};

/// The span in a value of `l5d-ctx-trace`: base64 of [`TraceId::from_bytes`]. Anything else is `None` (the caller starts a
/// new trace).
pub(crate) fn decode_trace(value: &[u8]) -> Option<TraceId> {
    let mut bytes = [0u8; 48];
    let n = BASE64.decode_slice(value, &mut bytes).ok()?;
    TraceId::from_bytes(&bytes[..n])
}

/// A span as the value of `l5d-ctx-trace`.
pub(crate) fn encode_trace(id: &TraceId) -> HeaderValue {
    let (bytes, len) = id.to_bytes();
    let mut text = [0u8; 56];
    let n = BASE64.encode_slice(&bytes[..len], &mut text).expect("56 characters hold 40 bytes");
    HeaderValue::from_bytes(&text[..n]).expect("base64 is a header value")
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
        let at = wall_ns();
        Self { at, until: at.saturating_add(nanos(timeout)) }
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

/// Now, as deadlines have it.
pub(crate) fn wall_ns() -> u64 {
    nanos(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}

/// Everything a request brings along or collects on its way.
#[derive(Clone, Debug)]
pub struct Ctx {
    /// The server's span for this request.
    pub trace: TraceId,
    /// Where what happens to the request is written down, if anybody wants to know.
    pub recording: Recording,
    /// The caller's deadline, tightened by the time-outs passed on the way.
    pub deadline: Option<Deadline>,
    /// The request's own dtab: the context's entries, then the user's.
    pub local_dtab: Dtab,
    /// Raised when the server's own time-out gives the request up; only where one is configured.
    pub(crate) server_gave_up: Option<Arc<AtomicBool>>,
    /// The certificate that the caller showed, if it was asked for one.
    pub(crate) client_certificate: Option<Arc<ClientCertificate>>,
}

impl Ctx {
    /// Reads the context out of a request's headers and removes what is not to be passed on as it is.
    ///
    /// # Errors
    /// When one of the dtab headers is not a dtab.
    pub fn take(headers: &mut HeaderMap) -> Result<Self, ParseError> {
        if !Present::of(headers).has(Present::CONTEXT) {
            return Ok(Self::new());
        }
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
        Ok(Self { deadline, local_dtab, ..Self::new() })
    }

    /// A context for a request whose own is not trusted (`clearContext`): removes every `l5d-*` header.
    pub fn cleared(headers: &mut HeaderMap) -> Self {
        let mine: Vec<_> = headers.keys().filter(|k| k.as_str().starts_with("l5d-")).cloned().collect();
        for name in mine {
            headers.remove(name);
        }
        headers.remove(headers::RETRYABLE_REQUEST);
        Self::new()
    }

    fn new() -> Self {
        Self {
            trace: TraceId::root(),
            recording: Recording::OFF,
            deadline: None,
            local_dtab: Dtab::empty(),
            server_gave_up: None,
            client_certificate: None,
        }
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
        assert_eq!(encode_trace(&id), "AAAAAAAAAAMAAAAAAAAAAgAAAAAAAAABAAAAAAAAAAY=");
        assert_eq!(decode_trace(encode_trace(&id).as_bytes()), Some(id));
        assert_eq!(decode_trace(b"garbage"), None);
        let zero = encode_trace(&TraceId { trace: 0, ..id });
        assert_eq!(decode_trace(zero.as_bytes()), None, "zero is no id");
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
        fn any_id_survives_the_header(span in 1u64.., parent: u64, trace in 1u64.., high: Option<u64>, flags in 0u64..8) {
            let id = TraceId { span, parent, trace, trace_high: high, flags };
            prop_assert_eq!(decode_trace(encode_trace(&id).as_bytes()), Some(id));
        }
    }
}
