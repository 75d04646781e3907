//! Spans, put together from records: what collectors want to have.

use std::net::SocketAddr;

use super::{Annotation, Trace, TraceId, Value};

/// Which side of a call a span is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanKind {
    /// The caller.
    Client,
    /// The called.
    Server,
}

/// A piece of work, with everything that is known of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Span<'a> {
    /// Its ids.
    pub id: TraceId,
    /// Which side it is.
    pub kind: SpanKind,
    /// The service it is of: the label of a server or a client.
    pub service: &'a str,
    /// What it does; empty when nothing said so.
    pub name: &'a str,
    /// When it began, in microseconds since 1970.
    pub start_us: u64,
    /// How long it took: at least 1, since 0 means unknown to collectors.
    pub duration_us: u64,
    /// Where it was.
    pub local: Option<SocketAddr>,
    /// Who was at the other end.
    pub remote: Option<SocketAddr>,
    /// What happened in it, and when: the two letters of Zipkin, or words.
    pub events: Vec<(u64, &'a str)>,
    /// What holds for all of it; of two with one key, the later.
    pub tags: Vec<(&'static str, &'a Value)>,
}

impl<'a> Span<'a> {
    /// The value of a tag.
    pub fn tag(&self, key: &str) -> Option<&'a Value> {
        self.tags.iter().find(|(k, _)| *k == key).map(|(_, value)| *value)
    }

    /// Whether it went wrong: it says so, or a server answered with a status of its own fault.
    pub fn failed(&self) -> bool {
        let status = matches!(self.tag("http.status_code"), Some(Value::Int(500..)));
        status || self.tag("error").is_some() || self.tag("io.buoyant.router.Failure").is_some()
    }

    /// When the event of that name was, the first of them.
    pub fn event(&self, name: &str) -> Option<u64> {
        self.events.iter().find(|(_, event)| *event == name).map(|(at, _)| *at)
    }

    fn set(&mut self, key: &'static str, value: &'a Value) {
        match self.tags.iter_mut().find(|(k, _)| *k == key) {
            Some((_, old)) => *old = value,
            None => self.tags.push((key, value)),
        }
    }
}

/// The spans of a trace in the order in which they began.
pub(super) fn spans(trace: &Trace) -> Vec<Span<'_>> {
    let mut spans: Vec<Span<'_>> = Vec::with_capacity(2);
    for record in &trace.records {
        let at = spans.iter().rposition(|span| span.id.span == record.span.span).unwrap_or_else(|| {
            let server = record.span.span == trace.id.span;
            spans.push(Span {
                id: record.span,
                kind: if server { SpanKind::Server } else { SpanKind::Client },
                service: "",
                name: "",
                start_us: record.at_us,
                duration_us: 1,
                local: None,
                remote: None,
                events: Vec::with_capacity(8),
                tags: Vec::with_capacity(16),
            });
            spans.len() - 1
        });
        let span = &mut spans[at];
        // A clock that is set back gives no span a negative length.
        span.duration_us = span.duration_us.max(record.at_us.saturating_sub(span.start_us));
        match &record.annotation {
            Annotation::Message(text) => span.events.push((record.at_us, text)),
            Annotation::ServiceName(text) => span.service = text,
            Annotation::Rpc(text) => span.name = text,
            Annotation::Binary(key, value) => span.set(key, value),
            Annotation::ClientAddr(addr) => match span.kind {
                SpanKind::Server => span.remote = Some(*addr),
                SpanKind::Client => span.local = Some(*addr),
            },
            Annotation::ServerAddr(addr) => match span.kind {
                SpanKind::Server => span.local = Some(*addr),
                SpanKind::Client => span.remote = Some(*addr),
            },
            Annotation::LocalAddr(addr) => span.local = Some(*addr),
            event => span.events.extend(event.code().map(|code| (record.at_us, code))),
        }
    }
    spans
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::trace::Record;

    /// One request with one attempt, the ids 1 to 3, all hex digits told apart.
    pub(crate) fn trace() -> Trace {
        let id = TraceId { span: 2, parent: 1, trace: 1, trace_high: None, flags: 6 };
        let child = TraceId { span: 3, parent: 2, ..id };
        let at = |at_us, span, annotation| Record { span, at_us, annotation };
        let records = vec![
            at(1000, id, Annotation::WireRecv),
            at(1000, id, Annotation::ServiceName("127.0.0.1/4140".into())),
            at(1000, id, Annotation::Rpc("GET".into())),
            at(1000, id, Annotation::ServerRecv),
            at(1000, id, Annotation::LocalAddr(([127, 0, 0, 1], 4140).into())),
            at(1000, id, Annotation::ServerAddr(([127, 0, 0, 1], 4140).into())),
            at(1000, id, Annotation::ClientAddr(([127, 0, 0, 2], 5000).into())),
            at(1010, id, Annotation::Binary("service", "/svc/web".to_owned().into())),
            at(1010, id, Annotation::Rpc("http /svc/web".into())),
            at(1100, child, Annotation::ServiceName("$/inet/127.1/80".into())),
            at(1100, child, Annotation::ClientSend),
            at(1100, child, Annotation::WireSend),
            at(1100, child, Annotation::ServerAddr("[::1]:80".parse().unwrap())),
            at(1900, child, Annotation::WireRecv),
            at(1900, child, Annotation::Binary("http.status_code", Value::Int(200))),
            at(1950, child, Annotation::Binary("l5d.success", Value::Double(1.0))),
            at(1950, child, Annotation::ClientRecv),
            at(2000, id, Annotation::Binary("http.status_code", Value::Int(200))),
            at(2000, id, Annotation::Message("bye \"\u{1}ü".into())),
            at(2000, id, Annotation::ServerSend),
            at(2000, id, Annotation::WireSend),
        ];
        Trace { id, records }
    }

    #[test]
    fn records_become_spans() {
        let trace = trace();
        let spans = trace.spans();
        assert_eq!(spans.len(), 2);
        let (server, client) = (&spans[0], &spans[1]);
        assert_eq!((server.kind, server.service, server.name), (SpanKind::Server, "127.0.0.1/4140", "http /svc/web"));
        assert_eq!((server.start_us, server.duration_us), (1000, 1000));
        assert_eq!(server.remote.unwrap().port(), 5000);
        assert_eq!((client.kind, client.start_us, client.duration_us), (SpanKind::Client, 1100, 850));
        assert_eq!(client.remote.unwrap().port(), 80);
        assert_eq!((client.event("ws"), client.event("wr")), (Some(1100), Some(1900)));
        assert!(!server.failed());
    }

    #[test]
    fn failures_are_told_by_status_or_mark() {
        let mut trace = trace();
        let id = trace.id;
        trace.records.push(Record {
            span: id,
            at_us: 1,
            annotation: Annotation::Binary("http.status_code", Value::Int(502)),
        });
        assert!(trace.spans()[0].failed());
        assert_eq!(trace.spans()[0].duration_us, 1000, "a clock that was set back");
    }
}
