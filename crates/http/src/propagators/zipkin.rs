//! `io.l5d.zipkin`: the B3 headers, `X-B3-TraceId`, `-SpanId`, `-ParentSpanId`, `-Sampled`, `-Flags`.
//!
//! Read is the single header `b3` too, and before the five; written are the five, as Linkerd 1 does. 128-bit trace ids are
//! kept whole, where Linkerd 1 cuts them to their lower half. Both are in docs/compatibility.md.

use l5d_config::{Cx, Fields, Kind, Node};
use l5d_telemetry::trace::{TraceId, hex16};

use super::{Propagator, PropagatorConfig, asked_for, hex, trace_hex};
use crate::{
    codec::{Headers, headers::text as shown},
    ctx::Ctx,
    headers,
};

const SINGLE: &str = "b3";
const TRACE_ID: &str = "x-b3-traceid";
const SPAN_ID: &str = "x-b3-spanid";
const PARENT_SPAN_ID: &str = "x-b3-parentspanid";
const SAMPLED: &str = "x-b3-sampled";
const FLAGS: &str = "x-b3-flags";

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

/// What a caller says: a span, a decision, or both.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Told {
    span: Option<TraceId>,
    sampled: Option<bool>,
    debug: bool,
}

impl Told {
    /// `{trace}-{span}[-{sampled}[-{parent}]]` or `{sampled}`, with 0, 1 or d for `sampled`.
    fn from_single(text: &str) -> Option<Self> {
        let decision = |text: &str| match text {
            "0" | "false" => Some(Self { sampled: Some(false), ..Self::default() }),
            "1" | "true" => Some(Self { sampled: Some(true), ..Self::default() }),
            "d" => Some(Self { debug: true, ..Self::default() }),
            _ => None,
        };
        let mut parts = text.split('-');
        let first = parts.next()?;
        let Some(span) = parts.next() else { return decision(first) };
        let told = parts.next().map_or_else(|| Some(Self::default()), decision)?;
        let span = hex(span)?;
        let parent = parts.next().map_or(Some(span), hex)?;
        let (trace, trace_high) = trace_hex(first)?;
        let id = TraceId { span, parent, trace, trace_high, flags: 0 };
        (parts.next().is_none() && id.is_valid()).then_some(Self { span: Some(id), ..told })
    }

    fn from_five(headers: &Headers, salt: u64) -> Self {
        let text = |name: &str| headers.text(name).map(str::trim);
        let id = |span: u64| {
            let (trace, trace_high) = match text(TRACE_ID) {
                None => (span, None),
                Some(t) => trace_hex(t)?,
            };
            let parent = text(PARENT_SPAN_ID).and_then(hex).unwrap_or(span);
            let flags = text(FLAGS).and_then(|f| f.parse().ok()).unwrap_or(0);
            Some(TraceId { span, parent, trace, trace_high, flags }).filter(TraceId::is_valid)
        };
        let span = text(SPAN_ID).and_then(hex).and_then(id);
        let sampled = match text(SAMPLED) {
            Some("true" | "1") => Some(true),
            Some("false" | "0") => Some(false),
            // Linkerd takes any other number for a rate.
            Some(_) => headers.get(SAMPLED).and_then(|r| asked_for(r, &span.unwrap_or_else(TraceId::root), salt)),
            None => None,
        };
        Self { span, sampled, debug: span.is_none() && text(FLAGS) == Some("1") }
    }
}

impl Propagator for Zipkin {
    fn read(&self, headers: &mut Headers, ctx: &mut Ctx, trusted: bool) {
        let single = headers.get(SINGLE).and_then(|v| Told::from_single(shown(v)?.trim()));
        let told =
            if trusted { single.unwrap_or_else(|| Told::from_five(headers, self.salt)) } else { Told::default() };
        ctx.trace = told.span.map_or_else(TraceId::root, |span| span.child());
        if let Some(yes) = told.sampled {
            ctx.trace = ctx.trace.with_sampled(yes);
        }
        if told.debug {
            ctx.trace = ctx.trace.with_debug();
        }
        // The next hop must not find the caller's span beside this one's.
        for name in [SINGLE, headers::CTX_TRACE, headers::SAMPLE] {
            headers.remove(name);
        }
    }

    fn write(&self, trace: &TraceId, headers: &mut Headers) {
        let (digits, n) = trace.trace_hex();
        headers.set(TRACE_ID, &digits[..n]);
        headers.set(SPAN_ID, hex16(trace.span));
        headers.set(PARENT_SPAN_ID, hex16(trace.parent));
        // Undecided is written as 0, as Linkerd does: whoever samples behind must be told.
        let yes = trace.sampled() == Some(true);
        headers.set(SAMPLED, if yes { "1" } else { "0" });
        headers.set(FLAGS, trace.flags.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(headers: &[(&str, &str)], trusted: bool) -> (TraceId, Headers) {
        let mut map: Headers = headers.iter().copied().collect();
        let mut ctx = Ctx::cleared(&mut Headers::new());
        Zipkin { salt: 1 }.read(&mut map, &mut ctx, trusted);
        (ctx.trace, map)
    }

    #[test]
    fn b3_in_b3_out() {
        let (id, mut h) = read(
            &[
                (TRACE_ID, "463ac35c9f6413ad48485a3953bb6124"),
                (SPAN_ID, "a2fb4a1d1a96d312"),
                (SAMPLED, "1"),
                (headers::CTX_TRACE, "x"),
                (headers::SAMPLE, "0.0"),
            ],
            true,
        );
        assert_eq!((id.parent, id.sampled()), (0xa2fb_4a1d_1a96_d312, Some(true)));
        assert_ne!(id.span, id.parent);
        Zipkin { salt: 1 }.write(&id.child(), &mut h);
        assert_eq!(h.text(TRACE_ID), Some("463ac35c9f6413ad48485a3953bb6124"));
        assert_eq!(h.text(PARENT_SPAN_ID).unwrap(), format!("{:016x}", id.span));
        assert_eq!(h.text(SAMPLED), Some("1"));
        assert!(!h.contains(headers::CTX_TRACE) && !h.contains(headers::SAMPLE));
    }

    #[test]
    fn the_single_header_says_the_same_as_four_and_comes_first() {
        let single = "80f198ee56343ba864fe8b2a57d3eff7-05e3ac9a4f6e3b90-1-e457b5a2e4d86bd1";
        let four = [
            (TRACE_ID, "80f198ee56343ba864fe8b2a57d3eff7"),
            (SPAN_ID, "05e3ac9a4f6e3b90"),
            (SAMPLED, "1"),
            (PARENT_SPAN_ID, "e457b5a2e4d86bd1"),
        ];
        let (by_four, _) = read(&four, true);
        let (by_one, left) = read(&[(SINGLE, single)], true);
        let known = |id: TraceId| (id.trace, id.trace_high, id.parent, id.sampled());
        assert_eq!(known(by_one), known(by_four));
        assert_eq!(by_one.parent, 0x05e3_ac9a_4f6e_3b90);
        assert!(left.is_empty(), "the next hop must not find the caller's span");
        let both = [(SINGLE, single), (TRACE_ID, "1"), (SPAN_ID, "2"), (SAMPLED, "0")];
        assert_eq!(known(read(&both, true).0), known(by_four));
        let broken = [(SINGLE, "no-such-thing"), four[0], four[1], four[2]];
        assert_eq!(known(read(&broken, true).0), known(by_four), "a broken one is as good as none");
        assert_eq!(read(&[(SINGLE, single)], false).0.parent(), None);
    }

    #[test]
    fn a_decision_needs_no_span() {
        for (name, text, sampled) in [
            (SINGLE, "0", Some(false)),
            (SINGLE, "1", Some(true)),
            (SINGLE, "d", Some(true)),
            (SINGLE, "2", None),
            (SAMPLED, "0", Some(false)),
            (SAMPLED, "1.0", Some(true)),
            (SAMPLED, "x", None),
            (FLAGS, "1", Some(true)),
        ] {
            let (id, _) = read(&[(name, text)], true);
            assert_eq!((id.sampled(), id.parent()), (sampled, None), "{text}");
        }
    }

    #[test]
    fn ids_of_zero_or_of_no_digits_are_none() {
        for (trace, span) in
            [("0", "1"), ("1", "0"), ("x", "1"), ("1", "+1"), ("00000000000000000000000000000000", "1")]
        {
            assert_eq!(read(&[(TRACE_ID, trace), (SPAN_ID, span)], true).0.parent(), None, "{trace} {span}");
            assert_eq!(read(&[(SINGLE, &format!("{trace}-{span}-1"))], true).0.parent(), None, "{trace}-{span}");
        }
        assert_eq!(read(&[(SPAN_ID, "ab")], true).0.trace, 0xab, "without a trace's id the span's stands for it");
    }

    proptest! {
        #[test]
        fn no_single_header_is_too_strange(text in "[0-9a-fd-]{0,80}|.{0,40}") {
            let _ = Told::from_single(&text);
        }
    }
}
