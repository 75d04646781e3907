//! `io.l5d.w3c`: takes part in W3C Trace Context, `traceparent` and `tracestate`.
//!
//! The span that is forwarded is this proxy's; `tracestate` goes on as it came, since l5d keeps nothing there. Trace ids are
//! of 128 bits. Other propagators leave both headers alone, so that they pass through.

use l5d_config::{Cx, Fields, Kind, Node};
use l5d_telemetry::trace::{TraceId, hex16};

use super::{Propagator, PropagatorConfig, hex, linkerd::take_wish};
use crate::{
    codec::{Headers, headers::text},
    ctx::Ctx,
    headers,
};

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";

/// The propagator; the salt differs from process to process.
#[derive(Clone, Debug)]
struct W3c {
    salt: u64,
}

pub(crate) const KIND: Kind<dyn PropagatorConfig> = Kind {
    id: "io.l5d.w3c",
    experimental: false,
    summary: "W3C Trace Context: traceparent and tracestate",
    example: "kind: io.l5d.w3c",
    parse,
};

fn parse(node: &Node, cx: &mut Cx) -> Option<Box<dyn PropagatorConfig>> {
    let mut f = Fields::of(node, cx)?;
    f.skip_kind();
    f.finish(cx);
    Some(Box::new(W3c { salt: fastrand::u64(..) }))
}

impl PropagatorConfig for W3c {
    fn build(&self) -> std::sync::Arc<dyn Propagator> {
        std::sync::Arc::new(self.clone())
    }
}

/// `{version}-{trace id}-{parent id}-{flags}`, lower-case hex. Of a later version only these first four are read, as the
/// recommendation asks.
fn span(text: &str) -> Option<TraceId> {
    let lower = |part: &str, digits: usize| {
        part.len() == digits && part.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    let mut parts = text.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let known = lower(version, 2) && lower(trace, 32) && lower(span, 16) && lower(flags, 2);
    if !known || version == "ff" || (version == "00" && parts.next().is_some()) {
        return None;
    }
    let (high, low) = trace.split_at(16);
    let (span, sampled) = (hex(span)?, hex(flags)? & 1 == 1);
    let id = TraceId { span, parent: span, trace: hex(low)?, trace_high: Some(hex(high)?), flags: 0 };
    id.is_valid().then(|| id.with_sampled(sampled))
}

impl Propagator for W3c {
    fn read(&self, headers: &mut Headers, ctx: &mut Ctx, trusted: bool) {
        let mut given = headers.all(TRACEPARENT);
        let parent = match (given.next(), given.next()) {
            (Some(one), None) if trusted => text(one).and_then(|text| span(text.trim())),
            _ => None,
        };
        drop(given);
        headers.remove(TRACEPARENT);
        ctx.trace = match parent {
            Some(parent) => parent.child(),
            None => {
                headers.remove(TRACESTATE); // it belongs to a trace that ends here
                TraceId::root_128()
            }
        };
        headers.remove(headers::CTX_TRACE);
        take_wish(headers, ctx, self.salt);
    }

    fn write(&self, trace: &TraceId, headers: &mut Headers) {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        text[3..19].copy_from_slice(&hex16(trace.trace_high.unwrap_or(0)));
        text[19..35].copy_from_slice(&hex16(trace.trace));
        text[36..52].copy_from_slice(&hex16(trace.span));
        if trace.sampled() == Some(true) {
            text[54] = b'1';
        }
        headers.set(TRACEPARENT, text);
        headers.set(headers::REQID, hex16(trace.trace));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The recommendation's own example.
    const EXAMPLE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn read(headers: &[(&str, &str)], trusted: bool) -> (TraceId, Headers) {
        let mut map: Headers = headers.iter().copied().collect();
        let mut ctx = Ctx::cleared(&mut Headers::new());
        W3c { salt: 1 }.read(&mut map, &mut ctx, trusted);
        (ctx.trace, map)
    }

    #[test]
    fn the_trace_goes_on_with_a_span_of_ours() {
        let (id, mut h) = read(&[(TRACEPARENT, EXAMPLE), (TRACESTATE, "congo=t61rcWkgMzE"), (TRACESTATE, "b=2")], true);
        assert_eq!((id.parent, id.sampled()), (0xb7ad_6b71_6920_3331, Some(true)));
        assert_eq!(h.all(TRACESTATE).count(), 2);
        W3c { salt: 1 }.write(&id, &mut h);
        assert_eq!(h.text(TRACEPARENT).unwrap(), format!("00-0af7651916cd43dd8448eb211c80319c-{:016x}-01", id.span));
        let (id, _) = read(&[(TRACEPARENT, &EXAMPLE.replace("-01", "-02"))], true);
        assert_eq!(id.sampled(), Some(false), "other flags do not sample");
    }

    #[test]
    fn what_is_no_traceparent_starts_a_new_trace_without_the_old_state() {
        let bad = [
            String::new(),
            EXAMPLE.to_uppercase(),
            EXAMPLE.replacen("00", "ff", 1),
            format!("{EXAMPLE}-more"),
            EXAMPLE.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            EXAMPLE.replace("b7ad6b7169203331", &"0".repeat(16)),
            EXAMPLE.replace("b7ad6b7169203331", "b7ad6b716920333"),
            EXAMPLE.replace("-01", "-1"),
        ];
        for text in &bad {
            let (id, left) = read(&[(TRACEPARENT, text), (TRACESTATE, "a=1")], true);
            assert_eq!((id.parent(), id.sampled()), (None, None), "{text}");
            assert!(left.is_empty() && id.trace_high.is_some(), "{text}");
        }
        assert_eq!(read(&[(TRACEPARENT, EXAMPLE), (TRACEPARENT, EXAMPLE)], true).0.parent(), None, "two of them");
        assert_eq!(read(&[(TRACEPARENT, EXAMPLE)], false).0.parent(), None, "not trusted");
        let later = format!("{}-more", EXAMPLE.replacen("00", "cc", 1));
        assert_eq!(read(&[(TRACEPARENT, &later)], true).0.parent(), Some(0xb7ad_6b71_6920_3331));
    }

    #[test]
    fn ids_of_64_bits_are_padded() {
        let mut h = Headers::new();
        let id = TraceId { span: 2, parent: 1, trace: 1, trace_high: None, flags: 0 };
        W3c { salt: 1 }.write(&id, &mut h);
        assert_eq!(h.text(TRACEPARENT), Some("00-00000000000000000000000000000001-0000000000000002-00"));
    }

    proptest! {
        #[test]
        fn no_value_is_too_strange(text in "[0-9a-f-]{0,80}|.{0,60}") {
            let _ = span(&text);
        }
    }
}
