//! `io.l5d.default`: `l5d-ctx-trace`, `l5d-reqid`, and `l5d-sample` as the caller's wish.

use http::{HeaderMap, HeaderValue};
use l5d_config::{Cx, Fields, Kind, Node};
use l5d_telemetry::trace::{TraceId, hex16};

use super::{Propagator, PropagatorConfig, asked_for};
use crate::{
    ctx::{Ctx, decode_trace, encode_trace},
    headers::{self, Present},
};

/// The propagator; the salt differs from process to process.
#[derive(Clone, Debug)]
pub(super) struct Linkerd {
    salt: u64,
}

impl Linkerd {
    pub(super) fn new() -> Self {
        Self { salt: fastrand::u64(..) }
    }
}

pub(crate) const KIND: Kind<dyn PropagatorConfig> = Kind {
    id: "io.l5d.default",
    experimental: false,
    summary: "Linkerd's own trace header",
    example: "kind: io.l5d.default",
    parse,
};

fn parse(node: &Node, cx: &mut Cx) -> Option<Box<dyn PropagatorConfig>> {
    let mut f = Fields::of(node, cx)?;
    f.skip_kind();
    f.finish(cx);
    Some(Box::new(Linkerd::new()))
}

impl PropagatorConfig for Linkerd {
    fn build(&self) -> std::sync::Arc<dyn Propagator> {
        std::sync::Arc::new(self.clone())
    }
}

impl Propagator for Linkerd {
    fn read(&self, headers: &mut HeaderMap, ctx: &mut Ctx, trusted: bool) {
        if !Present::of(headers).has(Present::CONTEXT) {
            ctx.trace = TraceId::root();
            return;
        }
        let parent = headers.remove(headers::CTX_TRACE).and_then(|v| decode_trace(v.as_bytes()));
        ctx.trace = match parent {
            Some(parent) if trusted => parent.child(),
            _ => TraceId::root(),
        };
        if let Some(rate) = headers.remove(headers::SAMPLE)
            && let Some(yes) = asked_for(&rate, &ctx.trace, self.salt)
        {
            ctx.trace = ctx.trace.with_sampled(yes);
        }
    }

    fn write(&self, trace: &TraceId, headers: &mut HeaderMap) {
        headers.insert(headers::CTX_TRACE, encode_trace(trace));
        headers.insert(headers::REQID, reqid(trace));
    }
}

/// The trace id as `l5d-reqid`: 16 hex digits of the lower half.
pub(super) fn reqid(trace: &TraceId) -> HeaderValue {
    HeaderValue::from_bytes(&hex16(trace.trace)).expect("hex digits are a header value")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(headers: &[(http::HeaderName, &str)], trusted: bool) -> (TraceId, HeaderMap) {
        let mut map: HeaderMap = headers.iter().map(|(k, v)| (k.clone(), v.parse().unwrap())).collect();
        let mut ctx = Ctx::cleared(&mut HeaderMap::new());
        Linkerd::new().read(&mut map, &mut ctx, trusted);
        (ctx.trace, map)
    }

    #[test]
    fn the_callers_span_is_the_parent_and_its_wish_overrides_its_decision() {
        let known = TraceId { span: 3, parent: 2, trace: 1, trace_high: Some(9), flags: 6 };
        let value = encode_trace(&known);
        let value = value.to_str().unwrap();
        let (id, left) = read(&[(headers::CTX_TRACE, value)], true);
        assert_eq!((id.parent, id.trace, id.trace_high, id.sampled()), (3, 1, Some(9), Some(true)));
        assert!(left.is_empty() && id.span != 3);
        let (id, _) = read(&[(headers::CTX_TRACE, value), (headers::SAMPLE, "0.0")], true);
        assert_eq!((id.parent, id.sampled()), (3, Some(false)));
        let (id, left) = read(&[(headers::CTX_TRACE, value), (headers::SAMPLE, " 7")], false);
        assert_eq!((id.parent(), id.sampled()), (None, Some(true)), "a rate beyond 1 is 1, a parent is not trusted");
        assert!(left.is_empty());
        assert_eq!(read(&[(headers::SAMPLE, "often")], true).0.sampled(), None);
        let zero = encode_trace(&TraceId { span: 0, ..known });
        assert_eq!(read(&[(headers::CTX_TRACE, zero.to_str().unwrap())], true).0.parent(), None);
    }
}
