//! Spans: an `ExportTraceServiceRequest`.
//!
//! What OpenTelemetry's conventions have a name for is called by it; what is Linkerd's keeps Linkerd's.

use std::net::SocketAddr;

use super::wire::{Buffer, bytes, fixed32, fixed64, message, text, varint_field};
use super::{Resource, push_int, push_resource, push_scope, push_text};
use crate::trace::{Span, SpanKind, Value};

const SERVER: u64 = 2;
const CLIENT: u64 = 3;
const STATUS_ERROR: u64 = 2;
/// The flags of W3C that say `sampled`.
const SAMPLED: u32 = 1;

/// Appends the request that exports these spans. Those with ids of zero must not be among them: they are not valid.
pub fn push_traces<'a>(out: &mut Vec<u8>, resource: &Resource, spans: impl IntoIterator<Item = &'a Span<'a>>) {
    message(out, 1, |out| {
        push_resource(out, resource);
        message(out, 2, |out| {
            push_scope(out);
            for span in spans {
                message(out, 2, |out| push_span(out, span));
            }
        });
    });
}

fn push_span(out: &mut Buffer, span: &Span<'_>) {
    let trace = [span.id.trace_high.unwrap_or(0).to_be_bytes(), span.id.trace.to_be_bytes()].concat();
    bytes(out, 1, &trace);
    bytes(out, 2, &span.id.span.to_be_bytes());
    if let Some(parent) = span.id.parent() {
        bytes(out, 4, &parent.to_be_bytes());
    }
    text(out, 5, span.name);
    varint_field(out, 6, if span.kind == SpanKind::Server { SERVER } else { CLIENT });
    fixed64(out, 7, nanos(span.start_us));
    fixed64(out, 8, nanos(span.start_us + span.duration_us));
    if !span.service.is_empty() {
        message(out, 9, |out| push_text(out, "l5d.label", span.service));
    }
    for (key, value) in &span.tags {
        message(out, 9, |out| push_fact(out, key, value));
    }
    let (local, remote) = match span.kind {
        SpanKind::Server => (("server.address", "server.port"), ("client.address", "client.port")),
        SpanKind::Client => (("network.local.address", "network.local.port"), ("server.address", "server.port")),
    };
    push_addr(out, local, span.local);
    push_addr(out, remote, span.remote);
    for (at, event) in &span.events {
        message(out, 11, |out| {
            fixed64(out, 1, nanos(*at));
            text(out, 2, event);
        });
    }
    if span.failed() {
        message(out, 15, |out| {
            if let Some(Value::Text(message)) = span.tag("exception.message") {
                text(out, 2, message);
            }
            varint_field(out, 3, STATUS_ERROR);
        });
    }
    fixed32(out, 16, SAMPLED);
}

fn push_addr(out: &mut Buffer, (address, port): (&str, &str), addr: Option<SocketAddr>) {
    if let Some(addr) = addr {
        message(out, 9, |out| push_text(out, address, &addr.ip().to_canonical().to_string()));
        message(out, 9, |out| push_int(out, port, addr.port().into()));
    }
}

/// The two fields of a `KeyValue`.
fn push_fact(out: &mut Buffer, key: &str, value: &Value) {
    let key = match key {
        "http.method" => "http.request.method",
        "http.uri" => "url.path",
        "http.status_code" => "http.response.status_code",
        "srv/request_payload_bytes" | "clnt/request_payload_bytes" => "http.request.body.size",
        "srv/response_payload_bytes" | "clnt/response_payload_bytes" => "http.response.body.size",
        key => key,
    };
    match value {
        Value::Text(value) => push_text(out, key, value),
        Value::Int(value) => push_int(out, key, *value),
        Value::Bool(value) => {
            text(out, 1, key);
            message(out, 2, |out| varint_field(out, 2, u64::from(*value)));
        }
        Value::Double(value) => {
            text(out, 1, key);
            message(out, 2, |out| fixed64(out, 4, value.to_bits()));
        }
    }
}

fn nanos(us: u64) -> u64 {
    us.saturating_mul(1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::otlp::wire::tests::{Found, fields, messages};
    use crate::trace::tests::trace;

    #[test]
    fn a_request_holds_resource_scope_and_spans() {
        let trace = trace();
        let resource = Resource { attributes: vec![("service.name".to_owned(), "edge".to_owned())] };
        let mut out = Vec::new();
        push_traces(&mut out, &resource, &trace.spans());
        let of_resource = messages(&out, 1);
        assert_eq!(of_resource.len(), 1);
        let name = messages(&messages(&of_resource[0], 1)[0], 1);
        assert_eq!(fields(&name[0])[0], (1, Found::Bytes(b"service.name".to_vec())));
        let of_scope = messages(&of_resource[0], 2);
        assert_eq!(fields(&messages(&of_scope[0], 1)[0])[0], (1, Found::Bytes(b"l5d".to_vec())));
        let spans = messages(&of_scope[0], 2);
        assert_eq!(spans.len(), 2);
        let server = fields(&spans[0]);
        let trace_id = [&[0; 15][..], &[1]].concat();
        let id = |n: u8| Found::Bytes(vec![0, 0, 0, 0, 0, 0, 0, n]);
        let expected = [
            (1, Found::Bytes(trace_id)),
            (2, id(2)),
            (4, id(1)),
            (5, Found::Bytes(b"http /svc/web".to_vec())),
            (6, Found::Number(2)),
            (7, Found::Number(1_000_000)),
            (8, Found::Number(2_000_000)),
        ];
        assert_eq!(server[..7], expected);
        assert!(!server.iter().any(|(field, _)| *field == 15), "it did not fail");
        let facts: Vec<Vec<u8>> = messages(&spans[1], 9);
        let status = facts.iter().find(|fact| messages(fact, 1)[0] == b"http.response.status_code").unwrap();
        assert_eq!(fields(&messages(status, 2)[0]), [(3, Found::Number(200))]);
        let success = facts.iter().find(|fact| messages(fact, 1)[0] == b"l5d.success").unwrap();
        assert_eq!(fields(&messages(success, 2)[0]), [(4, Found::Number(1.0_f64.to_bits()))]);
        let events: Vec<_> = messages(&spans[1], 11).iter().map(|event| messages(event, 2)[0].clone()).collect();
        assert_eq!(events, [b"cs", b"ws", b"wr", b"cr"]);
    }

    #[test]
    fn a_failed_span_says_so() {
        let mut trace = trace();
        let id = trace.id;
        for annotation in [
            crate::trace::Annotation::Binary("error", Value::Bool(true)),
            crate::trace::Annotation::Binary("exception.message", "it broke".into()),
        ] {
            trace.records.push(crate::trace::Record { span: id, at_us: 2000, annotation });
        }
        let mut out = Vec::new();
        push_traces(&mut out, &Resource::default(), &trace.spans()[..1]);
        let span = messages(&messages(&messages(&out, 1)[0], 2)[0], 2);
        let status = fields(&messages(&span[0], 15)[0]);
        assert_eq!(status, [(2, Found::Bytes(b"it broke".to_vec())), (3, Found::Number(2))]);
    }
}
