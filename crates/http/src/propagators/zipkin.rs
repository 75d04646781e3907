//! `io.l5d.zipkin`: the B3 headers `X-B3-TraceId`, `-SpanId`, `-ParentSpanId`, `-Sampled`, `-Flags`.
//!
//! 128-bit trace ids are kept whole, where Linkerd 1 cuts them to their lower half (docs/compatibility.md).

use http::{HeaderMap, HeaderName, HeaderValue};
use l5d_config::{Cx, Fields, Kind, Node};

use super::{Propagator, PropagatorConfig, sampled};
use crate::{
    ctx::{Ctx, TraceId, hex16},
    headers,
};

const TRACE_ID: HeaderName = HeaderName::from_static("x-b3-traceid");
const SPAN_ID: HeaderName = HeaderName::from_static("x-b3-spanid");
const PARENT_SPAN_ID: HeaderName = HeaderName::from_static("x-b3-parentspanid");
const SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");
const FLAGS: HeaderName = HeaderName::from_static("x-b3-flags");

/// The propagator; the salt differs from process to process.
#[derive(Clone, Debug)]
struct Zipkin {
    salt: u64,
}

pub(crate) const KIND: Kind<dyn PropagatorConfig> = Kind {
    id: "io.l5d.zipkin",
    experimental: false,
    summary: "the B3 headers of Zipkin",
    example: "kind: io.l5d.zipkin",
    parse,
};

fn parse(node: &Node, cx: &mut Cx) -> Option<Box<dyn PropagatorConfig>> {
    let mut f = Fields::of(node, cx)?;
    f.skip_kind();
    f.finish(cx);
    Some(Box::new(Zipkin { salt: fastrand::u64(..) }))
}

impl PropagatorConfig for Zipkin {
    fn build(&self) -> std::sync::Arc<dyn Propagator> {
        std::sync::Arc::new(self.clone())
    }
}

/// A hex number of at most 16 digits.
fn id(text: &str) -> Option<u64> {
    (!text.is_empty() && text.len() <= 16).then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

impl Zipkin {
    /// The caller's span; without a span id there is none.
    fn parent(&self, headers: &HeaderMap) -> Option<TraceId> {
        let text = |name: &HeaderName| headers.get(name).and_then(|v| v.to_str().ok()).map(str::trim);
        let span = text(&SPAN_ID).and_then(id)?;
        let (trace, trace_high) = match text(&TRACE_ID) {
            None => (span, None),
            Some(t) if t.len() > 16 && t.is_ascii() => {
                let (high, low) = t.split_at(t.len() - 16);
                (id(low)?, id(high))
            }
            Some(t) => (id(t).unwrap_or(span), None),
        };
        let parent = text(&PARENT_SPAN_ID).and_then(id).unwrap_or(span);
        let flags = text(&FLAGS).and_then(|f| f.parse().ok()).unwrap_or(0);
        let found = TraceId { span, parent, trace, trace_high, flags };
        Some(match text(&SAMPLED) {
            None => found,
            Some("true" | "1") => found.with_sampled(true),
            Some("false" | "0") => found.with_sampled(false),
            Some(rate) => match rate.parse::<f64>() {
                Ok(rate) => found.with_sampled(sampled(trace, self.salt, rate)),
                Err(_) => found,
            },
        })
    }
}

impl Propagator for Zipkin {
    fn read(&self, headers: &mut HeaderMap, ctx: &mut Ctx, trusted: bool) {
        ctx.trace = match self.parent(headers) {
            Some(parent) if trusted => parent.child(),
            _ => TraceId::root(),
        };
        headers.remove(headers::CTX_TRACE);
        headers.remove(headers::SAMPLE);
    }

    fn write(&self, trace: &TraceId, headers: &mut HeaderMap) {
        let hex = |n: u64| HeaderValue::from_bytes(&hex16(n)).expect("hex digits are a header value");
        let trace_id = match trace.trace_high {
            None => hex(trace.trace),
            Some(high) => {
                let both = [hex16(high), hex16(trace.trace)].concat();
                HeaderValue::from_bytes(&both).expect("hex digits are a header value")
            }
        };
        headers.insert(TRACE_ID, trace_id);
        headers.insert(SPAN_ID, hex(trace.span));
        headers.insert(PARENT_SPAN_ID, hex(trace.parent));
        // Undecided is written as 0, as Linkerd does: whoever samples behind must be told.
        let yes = trace.sampled() == Some(true);
        headers.insert(SAMPLED, HeaderValue::from_static(if yes { "1" } else { "0" }));
        headers.insert(FLAGS, HeaderValue::from(trace.flags));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b3_in_b3_out() {
        let zipkin = Zipkin { salt: 1 };
        let mut h = HeaderMap::new();
        h.insert(TRACE_ID, HeaderValue::from_static("463ac35c9f6413ad48485a3953bb6124"));
        h.insert(SPAN_ID, HeaderValue::from_static("a2fb4a1d1a96d312"));
        h.insert(SAMPLED, HeaderValue::from_static("1"));
        h.insert(headers::CTX_TRACE, HeaderValue::from_static("x"));
        let mut ctx = Ctx::take(&mut HeaderMap::new()).unwrap();
        zipkin.read(&mut h, &mut ctx, true);
        assert_eq!(ctx.trace.parent, 0xa2fb_4a1d_1a96_d312);
        assert_ne!(ctx.trace.span, ctx.trace.parent);
        let attempt = ctx.trace.child();
        zipkin.write(&attempt, &mut h);
        assert_eq!(h[TRACE_ID], "463ac35c9f6413ad48485a3953bb6124");
        assert_eq!(h[PARENT_SPAN_ID].to_str().unwrap(), format!("{:016x}", ctx.trace.span));
        assert_eq!(h[SAMPLED], "1");
        assert!(!h.contains_key(headers::CTX_TRACE));
    }
}
