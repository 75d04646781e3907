//! Zipkin's JSON v2: the body of `POST /api/v2/spans`.

use std::net::SocketAddr;

use super::{canonical, is_core, is_server};
use crate::format::labels::push_json;
use crate::format::number::push_u64;
use crate::trace::{Span, Value, hex16};

/// Appends a list of spans. Those that a collector would refuse must not be among them ([`super::is_acceptable`]).
pub fn push_spans<'a>(out: &mut Vec<u8>, spans: impl IntoIterator<Item = &'a Span<'a>>) {
    out.push(b'[');
    for (i, span) in spans.into_iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        push_span(out, span);
    }
    out.push(b']');
}

fn push_span(out: &mut Vec<u8>, span: &Span<'_>) {
    let (digits, n) = span.id.trace_hex();
    out.extend_from_slice(b"{\"traceId\":\"");
    out.extend_from_slice(&digits[..n]);
    if let Some(parent) = span.id.parent() {
        out.extend_from_slice(b"\",\"parentId\":\"");
        out.extend_from_slice(&hex16(parent));
    }
    out.extend_from_slice(b"\",\"id\":\"");
    out.extend_from_slice(&hex16(span.id.span));
    let kind: &[u8] = if is_server(span) { b"\",\"kind\":\"SERVER\"" } else { b"\",\"kind\":\"CLIENT\"" };
    out.extend_from_slice(kind);
    if !span.name.is_empty() {
        push_text(out, ",\"name\":", span.name);
    }
    push_number(out, ",\"timestamp\":", span.start_us);
    push_number(out, ",\"duration\":", span.duration_us);
    push_endpoint(out, ",\"localEndpoint\":", span.service, span.local);
    push_endpoint(out, ",\"remoteEndpoint\":", "", span.remote);
    let mut between = ",\"annotations\":[";
    for (at, event) in span.events.iter().filter(|(_, event)| !is_core(event)) {
        out.extend_from_slice(between.as_bytes());
        push_number(out, "{\"timestamp\":", *at);
        push_text(out, ",\"value\":", event);
        out.push(b'}');
        between = ",";
    }
    out.extend_from_slice(if between == "," { b"]" } else { b"" });
    let mut between = ",\"tags\":{";
    for (key, tag) in &span.tags {
        push_text(out, between, key);
        match tag {
            Value::Text(text) => push_text(out, ":", text),
            other => push_text(out, ":", &other.to_string()),
        }
        between = ",";
    }
    out.extend_from_slice(if between == "," { b"}" } else { b"" });
    if span.id.is_debug() {
        out.extend_from_slice(b",\"debug\":true");
    }
    out.push(b'}');
}

fn push_text(out: &mut Vec<u8>, before: &str, text: &str) {
    out.extend_from_slice(before.as_bytes());
    out.push(b'"');
    push_json(out, text);
    out.push(b'"');
}

fn push_number(out: &mut Vec<u8>, before: &str, number: u64) {
    out.extend_from_slice(before.as_bytes());
    push_u64(out, number);
}

fn push_endpoint(out: &mut Vec<u8>, before: &str, service: &str, addr: Option<SocketAddr>) {
    if service.is_empty() && addr.is_none() {
        return;
    }
    out.extend_from_slice(before.as_bytes());
    let mut between = "{";
    if !service.is_empty() {
        out.extend_from_slice(between.as_bytes());
        push_text(out, "\"serviceName\":", service);
        between = ",";
    }
    if let Some((ip, port)) = addr.map(canonical) {
        out.extend_from_slice(between.as_bytes());
        let text = ip.to_string();
        push_text(out, if ip.is_ipv4() { "\"ipv4\":" } else { "\"ipv6\":" }, &text);
        push_number(out, ",\"port\":", port.into());
    }
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::{Annotation, Trace, tests::trace};

    fn json(trace: &Trace) -> String {
        let mut out = Vec::new();
        push_spans(&mut out, &trace.spans());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn spans_are_written_as_zipkin_documents_them() {
        let server = "{\"traceId\":\"0000000000000001\",\"parentId\":\"0000000000000001\",\"id\":\"0000000000000002\",\
            \"kind\":\"SERVER\",\"name\":\"http /svc/web\",\"timestamp\":1000,\"duration\":1000,\
            \"localEndpoint\":{\"serviceName\":\"127.0.0.1/4140\",\"ipv4\":\"127.0.0.1\",\"port\":4140},\
            \"remoteEndpoint\":{\"ipv4\":\"127.0.0.2\",\"port\":5000},\
            \"annotations\":[{\"timestamp\":1000,\"value\":\"wr\"},{\"timestamp\":2000,\"value\":\"bye \\\"\\u0001ü\"},\
            {\"timestamp\":2000,\"value\":\"ws\"}],\
            \"tags\":{\"service\":\"/svc/web\",\"http.status_code\":\"200\"}}";
        let client = "{\"traceId\":\"0000000000000001\",\"parentId\":\"0000000000000002\",\"id\":\"0000000000000003\",\
            \"kind\":\"CLIENT\",\"timestamp\":1100,\"duration\":850,\
            \"localEndpoint\":{\"serviceName\":\"$/inet/127.1/80\"},\"remoteEndpoint\":{\"ipv6\":\"::1\",\"port\":80},\
            \"annotations\":[{\"timestamp\":1100,\"value\":\"ws\"},{\"timestamp\":1900,\"value\":\"wr\"}],\
            \"tags\":{\"http.status_code\":\"200\",\"l5d.success\":\"1.0\"}}";
        assert_eq!(json(&trace()), format!("[{server},{client}]"));
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let mut trace = trace();
        trace.records.truncate(1);
        let id = trace.id.with_debug();
        trace.records[0].span = crate::trace::TraceId { trace_high: Some(0xab), parent: id.span, ..id };
        trace.records[0].annotation = Annotation::ServerRecv;
        let expected = "[{\"traceId\":\"00000000000000ab0000000000000001\",\"id\":\"0000000000000002\",\"kind\":\"SERVER\",\
            \"timestamp\":1000,\"duration\":1,\"debug\":true}]";
        assert_eq!(json(&trace), expected);
        let mut out = Vec::new();
        push_spans(&mut out, &[]);
        assert_eq!(out, b"[]");
    }
}
