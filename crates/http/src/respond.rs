//! The responses that the proxy makes itself (http-behaviour §7.1, §7.2): kind of error → status, the message as body
//! and as `l5d-err`, `l5d-retryable` where the failure is known to be safe.

use std::borrow::Cow;

use bytes::Bytes;
use http::{StatusCode, Version};
use l5d_router::error::{Error, Kind};

use crate::{
    body::Body,
    codec::Response,
    headers::{self, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE},
};

/// How long generated responses may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ErrorLimits {
    /// Of `l5d-err`, in bytes (`maxHeadersKB`).
    pub(crate) header_bytes: usize,
    /// Of the body, in characters (`maxErrResponseKB`).
    pub(crate) body_chars: usize,
}

/// The reason phrase that Linkerd writes: Netty has the names of RFC 2616 for a few codes, and one made of class and code for
/// those it does not know (§2.2).
pub(crate) fn reason(status: StatusCode) -> Cow<'static, str> {
    let code = status.as_u16();
    match code {
        413 => "Request Entity Too Large".into(),
        414 => "Request-URI Too Long".into(),
        416 => "Requested Range Not Satisfiable".into(),
        425 => "Unordered Collection".into(),
        103 | 208 | 226 | 418 | 451 | 508 => unnamed(code).into(),
        _ => status.canonical_reason().map_or_else(|| unnamed(code).into(), Cow::Borrowed),
    }
}

fn unnamed(status: u16) -> String {
    let class = match status / 100 {
        1 => "Informational",
        2 => "Success",
        3 => "Redirection",
        4 => "Client Error",
        5 => "Server Error",
        _ => "Unknown Status",
    };
    format!("{class} ({status})")
}

/// The status that tells a requester of this kind of error. There is no 504 in Linkerd.
pub(crate) fn status(kind: Kind) -> StatusCode {
    match kind {
        Kind::Unidentified | Kind::BadDtab | Kind::CallDepth | Kind::Framing | Kind::BrokenRequest => {
            StatusCode::BAD_REQUEST
        }
        Kind::TotalTimeout | Kind::IndividualTimeout | Kind::Rejected => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::BAD_GATEWAY,
    }
}

/// The response for an error.
pub(crate) fn error(e: &Error, limits: ErrorLimits) -> Response {
    let mut body = e.message.as_str();
    if let Some((cut, _)) = body.char_indices().nth(limits.body_chars) {
        body = &body[..cut];
    }
    let mut response = Response::new(status(e.kind), Body::full(Bytes::copy_from_slice(body.as_bytes())));
    let h = &mut response.headers;
    h.add(headers::ERR, headers::err_value(&e.message, limits.header_bytes));
    h.add(CONTENT_TYPE, "text/plain");
    h.add(CONTENT_LENGTH, body.len().to_string());
    if e.safe_to_retry && !matches!(e.kind, Kind::ConnectFailed | Kind::NoBrokers) {
        h.add(headers::RETRYABLE, "true");
    }
    response
}

/// The refusal of a server that has enough to do (`maxConcurrentRequests`): another Linkerd in front reads it as a
/// nack and sends the request elsewhere.
pub(crate) fn nack() -> Response {
    const TEXT: &str = "Request was not processed by the server due to an error and is safe to retry";
    let mut response = Response::new(StatusCode::SERVICE_UNAVAILABLE, Body::full(Bytes::from_static(TEXT.as_bytes())));
    let h = &mut response.headers;
    h.add(headers::NACK, "true");
    h.add(headers::RETRY_AFTER, "0");
    h.add(CONTENT_LENGTH, TEXT.len().to_string());
    response
}

/// The answer of the wire level to what is not a request, or is beyond the limits: `HTTP/1.0`, no body, then close.
pub(crate) fn wire(status: StatusCode) -> Response {
    let mut response = Response::new(status, Body::empty());
    response.version = Version::HTTP_10;
    response.headers.add(CONTENT_LENGTH, "0");
    response.headers.add(CONNECTION, "close");
    response
}
