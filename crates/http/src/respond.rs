//! The responses that the proxy makes itself (http-behaviour §7.1, §7.2): kind of error → status, the message as body
//! and as `l5d-err`, `l5d-retryable` where the failure is known to be safe.

use bytes::Bytes;
use http::{
    HeaderValue, Response, StatusCode, Version,
    header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE},
};
use hyper::ext::ReasonPhrase;
use l5d_router::error::{Error, Kind};

use crate::{body::Body, headers};

/// How long generated responses may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ErrorLimits {
    /// Of `l5d-err`, in bytes (`maxHeadersKB`).
    pub(crate) header_bytes: usize,
    /// Of the body, in characters (`maxErrResponseKB`).
    pub(crate) body_chars: usize,
}

/// Gives a response the reason phrase that Linkerd writes where that is not ours anyway: Netty has the names of RFC 2616
/// for a few codes, and one made of class and code for those it does not know (§2.2).
pub(crate) fn say_reason(response: &mut Response<Body>) {
    let status = response.status().as_u16();
    let reason = match status {
        413 => ReasonPhrase::from_static(b"Request Entity Too Large"),
        414 => ReasonPhrase::from_static(b"Request-URI Too Long"),
        416 => ReasonPhrase::from_static(b"Requested Range Not Satisfiable"),
        425 => ReasonPhrase::from_static(b"Unordered Collection"),
        103 | 208 | 226 | 418 | 451 | 508 => unnamed(status),
        _ if response.status().canonical_reason().is_none() => unnamed(status),
        _ => return,
    };
    response.extensions_mut().insert(reason);
}

fn unnamed(status: u16) -> ReasonPhrase {
    let class = match status / 100 {
        1 => "Informational",
        2 => "Success",
        3 => "Redirection",
        4 => "Client Error",
        5 => "Server Error",
        _ => "Unknown Status",
    };
    ReasonPhrase::try_from(format!("{class} ({status})")).expect("words and digits are a reason phrase")
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
pub(crate) fn error(e: &Error, limits: ErrorLimits) -> Response<Body> {
    let mut body = e.message.as_str();
    if let Some((cut, _)) = body.char_indices().nth(limits.body_chars) {
        body = &body[..cut];
    }
    let mut response = Response::new(Body::full(Bytes::copy_from_slice(body.as_bytes())));
    *response.status_mut() = status(e.kind);
    let h = response.headers_mut();
    h.insert(headers::ERR, headers::err_value(&e.message, limits.header_bytes));
    h.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    h.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    if e.safe_to_retry && !matches!(e.kind, Kind::ConnectFailed | Kind::NoBrokers) {
        h.insert(headers::RETRYABLE, HeaderValue::from_static("true"));
    }
    response
}

/// The refusal of a server that has enough to do (`maxConcurrentRequests`): another Linkerd in front reads it as a
/// nack and sends the request elsewhere.
pub(crate) fn nack() -> Response<Body> {
    const TEXT: &str = "Request was not processed by the server due to an error and is safe to retry";
    let mut response = Response::new(Body::full(Bytes::from_static(TEXT.as_bytes())));
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    let h = response.headers_mut();
    h.insert(headers::NACK, HeaderValue::from_static("true"));
    h.insert(http::header::RETRY_AFTER, HeaderValue::from_static("0"));
    h.insert(CONTENT_LENGTH, HeaderValue::from(TEXT.len()));
    response
}

/// The answer of the wire level to what is not a request, or is beyond the limits: `HTTP/1.0`, no body, then close.
pub(crate) fn wire(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    *response.version_mut() = Version::HTTP_10;
    let h = response.headers_mut();
    h.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    h.insert(CONNECTION, HeaderValue::from_static("close"));
    say_reason(&mut response);
    response
}
