//! What the tests of the telemeters share.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderMap, Method, Version};
use l5d_admin::{Body, Request};
use l5d_config::Cx;
use l5d_telemetry::MetricsTree;
use l5d_telemetry::trace::{Annotation, Record, Trace, TraceId, Value};

use crate::{Telemeter, TelemeterContext, parse};

/// The telemeter of a section.
pub(crate) fn telemeter(yaml: &str, tree: &MetricsTree) -> Arc<dyn Telemeter> {
    let mut cx = Cx::new();
    let parsed = parse(&l5d_config::read(yaml).unwrap(), &mut cx);
    assert_eq!(cx.finish(), []);
    parsed.unwrap().1.build(&TelemeterContext { tree: tree.clone() }).unwrap()
}

/// Content type and text of a telemeter's page.
pub(crate) async fn get(telemeter: &dyn Telemeter, path: &str, host: Option<&str>) -> (String, String) {
    let handlers = telemeter.handlers();
    let handler = handlers.iter().find(|handler| handler.path == path).unwrap();
    let mut headers = HeaderMap::new();
    headers.extend(host.map(|host| (HOST, host.parse().unwrap())));
    let uri = path.parse().unwrap();
    let request = Request { method: Method::GET, uri, version: Version::HTTP_11, headers, body: Bytes::new() };
    let response = (handler.serve)(request).await;
    let mut text = Vec::new();
    match response.body {
        Body::Full(bytes) => text.extend_from_slice(&bytes),
        Body::Page(mut page) => while page.fill(&mut text) {},
    }
    (response.headers[CONTENT_TYPE].to_str().unwrap().to_owned(), String::from_utf8(text).unwrap())
}

/// A telemeter whose metrics nobody looks at.
pub(crate) fn built(yaml: &str) -> Arc<dyn Telemeter> {
    telemeter(yaml, &MetricsTree::new())
}

/// A request that had this trace id, this status, and one attempt and a retry; it took 10 ms.
pub(crate) fn trace(n: u64, status: i64) -> Trace {
    let id = TraceId { span: n, parent: n, trace: n, trace_high: None, flags: 0 };
    let child = TraceId { span: n + 0x1000_0000, parent: n, ..id };
    let mut records = Vec::new();
    let mut at = |us: u64, span, annotations: &[Annotation]| {
        let annotations = annotations.iter().cloned();
        records.extend(annotations.map(|annotation| Record { span, at_us: 1_000_000 + us, annotation }));
    };
    let fact = |key, value: &'static str| Annotation::Binary(key, value.into());
    at(
        0,
        id,
        &[
            Annotation::WireRecv,
            Annotation::ServiceName("127.0.0.1/4140".into()),
            Annotation::ServerRecv,
            Annotation::LocalAddr(([127, 0, 0, 1], 4140).into()),
            Annotation::ClientAddr(([127, 0, 0, 2], 5000).into()),
            fact("router.label", "http"),
            fact("service", "/svc/web"),
            fact("dtab.base", "/svc=>/$/inet/127.1/80"),
            Annotation::Rpc("http /svc/web".into()),
            Annotation::Message("finagle.retry".into()),
            fact("client", "/$/inet/127.1/80"),
            fact("residual", "/"),
        ],
    );
    at(
        1000,
        child,
        &[
            Annotation::ServiceName("$/inet/127.1/80".into()),
            Annotation::Rpc("GET".into()),
            Annotation::ClientSend,
            Annotation::ServerAddr(([127, 0, 0, 1], 80).into()),
            Annotation::Binary("l5d.queue_us", Value::Int(30)),
            Annotation::Binary("l5d.connect_us", Value::Int(70)),
            Annotation::WireSend,
        ],
    );
    at(7000, child, &[Annotation::WireRecv, Annotation::ClientRecv]);
    let status = Annotation::Binary("http.status_code", Value::Int(status));
    at(10_000, id, &[status, Annotation::ServerSend, Annotation::WireSend]);
    Trace { id, records }
}
