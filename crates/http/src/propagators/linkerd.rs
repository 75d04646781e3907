//! `io.l5d.default`: `l5d-ctx-trace`, `l5d-reqid`, and `l5d-sample` as the caller's wish.

use http::HeaderMap;
use l5d_config::{Cx, Fields, Kind, Node};

use super::{Propagator, PropagatorConfig, sampled};
use crate::{
    ctx::{Ctx, TraceId},
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
    fn read(&self, headers: &mut HeaderMap, ctx: &mut Ctx, trusted: bool) {
        let parent = headers.remove(headers::CTX_TRACE).and_then(|v| TraceId::decode(v.as_bytes()));
        ctx.trace = match parent {
            Some(parent) if trusted => parent.child(),
            _ => TraceId::root(),
        };
        let rate = headers.remove(headers::SAMPLE);
        if let Some(rate) = rate.and_then(|r| r.to_str().ok()?.trim().parse::<f64>().ok()) {
            ctx.trace = ctx.trace.with_sampled(sampled(ctx.trace.trace, self.salt, rate));
        }
    }

    fn write(&self, trace: &TraceId, headers: &mut HeaderMap) {
        headers.insert(headers::CTX_TRACE, trace.encode());
        headers.insert(headers::REQID, trace.reqid());
    }
}
