//! What the tests of the telemeters share.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderMap, Method, Version};
use l5d_admin::{Body, Request};
use l5d_config::Cx;
use l5d_telemetry::MetricsTree;

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
