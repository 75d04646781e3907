//! `io.l5d.default`: `l5d-ctx-trace`, `l5d-reqid`, and `l5d-sample` as the caller's wish.

use l5d_config::{Cx, Fields, Kind, Node};
use l5d_telemetry::trace::{TraceId, hex16};

use super::{Propagator, PropagatorConfig, asked_for};
use crate::{
    codec::{Headers, headers::Present},
    ctx::{Ctx, decode_trace, with_trace},
    headers,
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
    fn read(&self, headers: &mut Headers, ctx: &mut Ctx, trusted: bool) {
        if !headers.present().has(Present::CONTEXT) {
            ctx.trace = TraceId::root();
            return;
        }
        let parent = headers.get(headers::CTX_TRACE).and_then(decode_trace);
        headers.remove(headers::CTX_TRACE);
        ctx.trace = match parent {
            Some(parent) if trusted => parent.child(),
            _ => TraceId::root(),
        };
        take_wish(headers, ctx, self.salt);
    }

    fn write(&self, trace: &TraceId, headers: &mut Headers) {
        with_trace(trace, |value| headers.set(headers::CTX_TRACE, value));
        headers.set(headers::REQID, hex16(trace.trace));
    }
}

/// Takes the caller's wish for a share of traces, `l5d-sample`, and decides by it.
pub(super) fn take_wish(headers: &mut Headers, ctx: &mut Ctx, salt: u64) {
    if let Some(yes) = headers.get(headers::SAMPLE).and_then(|rate| asked_for(rate, &ctx.trace, salt)) {
        ctx.trace = ctx.trace.with_sampled(yes);
    }
    headers.remove(headers::SAMPLE);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(headers: &[(&str, &str)], trusted: bool) -> (TraceId, Headers) {
        let mut map: Headers = headers.iter().copied().collect();
        let mut ctx = Ctx::cleared(&mut Headers::new());
        Linkerd::new().read(&mut map, &mut ctx, trusted);
        (ctx.trace, map)
    }

    #[test]
    fn the_callers_span_is_the_parent_and_its_wish_overrides_its_decision() {
        let known = TraceId { span: 3, parent: 2, trace: 1, trace_high: Some(9), flags: 6 };
        let encoded = |id: &TraceId| with_trace(id, |text| String::from_utf8(text.to_vec()).unwrap());
        let value = &encoded(&known);
        let (id, left) = read(&[(headers::CTX_TRACE, value)], true);
        assert_eq!((id.parent, id.trace, id.trace_high, id.sampled()), (3, 1, Some(9), Some(true)));
        assert!(left.is_empty() && id.span != 3);
        let (id, _) = read(&[(headers::CTX_TRACE, value), (headers::SAMPLE, "0.0")], true);
        assert_eq!((id.parent, id.sampled()), (3, Some(false)));
        let (id, left) = read(&[(headers::CTX_TRACE, value), (headers::SAMPLE, " 7")], false);
        assert_eq!((id.parent(), id.sampled()), (None, Some(true)), "a rate beyond 1 is 1, a parent is not trusted");
        assert!(left.is_empty());
        assert_eq!(read(&[(headers::SAMPLE, "often")], true).0.sampled(), None);
        let zero = encoded(&TraceId { span: 0, ..known });
        assert_eq!(read(&[(headers::CTX_TRACE, &zero)], true).0.parent(), None);
    }
}
