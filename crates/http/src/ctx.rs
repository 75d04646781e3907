//! The context that travels with a request: trace, deadline, local dtab (http-behaviour §6.1, §6.8, §12).
//!
//! [`Ctx::take`] reads and removes what a caller sent; the client stack writes the headers of the next hop from it. A
//! plain struct, made once per request; nothing here is looked up by name later.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use l5d_naming::{Dtab, ParseError};
use l5d_telemetry::trace::{Recording, TraceId};

use crate::{
    codec::{
        Headers,
        headers::{Present, text},
    },
    filters::client_cert::ClientCertificate,
    headers,
};

/// The span in a value of `l5d-ctx-trace`: base64 of [`TraceId::from_bytes`]. Anything else is `None` (the caller starts a
/// new trace).
pub(crate) fn decode_trace(value: &[u8]) -> Option<TraceId> {
    let mut bytes = [0u8; 48];
    let n = BASE64.decode_slice(value, &mut bytes).ok()?;
    TraceId::from_bytes(&bytes[..n])
}

/// Gives a span to `write` as the value of `l5d-ctx-trace`.
pub(crate) fn with_trace<R>(id: &TraceId, write: impl FnOnce(&[u8]) -> R) -> R {
    let (bytes, len) = id.to_bytes();
    let mut text = [0u8; 56];
    let n = BASE64.encode_slice(&bytes[..len], &mut text).expect("56 characters hold 40 bytes");
    write(&text[..n])
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

    fn encode(self) -> String {
        format!("{} {}", self.at, self.until)
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
    pub fn take(headers: &mut Headers) -> Result<Self, ParseError> {
        if !headers.present().has(Present::CONTEXT) {
            return Ok(Self::new());
        }
        let deadlines = headers.all(headers::CTX_DEADLINE).filter_map(|value| Deadline::decode(text(value)?));
        let deadline = deadlines.reduce(Deadline::combined);
        headers.remove(headers::CTX_DEADLINE);
        let mut local_dtab = Dtab::empty();
        for name in [headers::CTX_DTAB, headers::DTAB] {
            for line in headers.all(name) {
                local_dtab = local_dtab.concat(&Dtab::read(&String::from_utf8_lossy(line))?);
            }
            headers.remove(name);
        }
        headers.remove(headers::RETRYABLE_REQUEST);
        Ok(Self { deadline, local_dtab, ..Self::new() })
    }

    /// A context for a request whose own is not trusted (`clearContext`): removes every `l5d-*` header.
    pub fn cleared(headers: &mut Headers) -> Self {
        headers.remove_prefixed("l5d-");
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
    pub fn write(&self, headers: &mut Headers) {
        if let Some(d) = self.deadline {
            headers.set(headers::CTX_DEADLINE, d.encode());
        }
        if !self.local_dtab.is_empty() {
            headers.set(headers::CTX_DTAB, self.local_dtab.to_string());
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
        with_trace(&id, |text| assert_eq!(text, b"AAAAAAAAAAMAAAAAAAAAAgAAAAAAAAABAAAAAAAAAAY="));
        assert_eq!(with_trace(&id, decode_trace), Some(id));
        assert_eq!(decode_trace(b"garbage"), None);
        assert_eq!(with_trace(&TraceId { trace: 0, ..id }, decode_trace), None, "zero is no id");
    }

    #[test]
    fn deadlines_only_get_stricter() {
        let mut h: Headers = ["5 100", "9 200", "nonsense"].map(|v| (headers::CTX_DEADLINE, v)).into_iter().collect();
        let ctx = Ctx::take(&mut h).unwrap();
        assert_eq!(ctx.deadline, Some(Deadline { at: 9, until: 100 }));
        assert!(h.is_empty());
    }

    #[test]
    fn dtabs_are_joined_in_order() {
        let mut h: Headers = [(headers::DTAB, "/c=>/d"), (headers::CTX_DTAB, "/a=>/b")].into_iter().collect();
        let ctx = Ctx::take(&mut h).unwrap();
        ctx.write(&mut h);
        assert_eq!(h.text(headers::CTX_DTAB), Some("/a=>/b;/c=>/d"));
        h.set(headers::DTAB, "bogus");
        assert_eq!(Ctx::take(&mut h).unwrap_err().to_string(), "'/' expected but 'b' found at '[b]ogus'");
    }

    proptest! {
        #[test]
        fn any_id_survives_the_header(span in 1u64.., parent: u64, trace in 1u64.., high: Option<u64>, flags in 0u64..8) {
            let id = TraceId { span, parent, trace, trace_high: high, flags };
            prop_assert_eq!(with_trace(&id, decode_trace), Some(id));
        }
    }
}
