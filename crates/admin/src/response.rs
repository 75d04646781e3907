//! What a handler answers.

use std::fmt;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_LANGUAGE, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use l5d_telemetry::Page;

/// An answer. The server adds what is about the transfer: length, compression, date.
#[derive(Debug)]
pub struct Response {
    /// 200, 404, …
    pub status: StatusCode,
    /// Without those about the transfer.
    pub headers: HeaderMap,
    /// What follows.
    pub body: Body,
}

/// The body of an answer.
pub enum Body {
    /// All of it.
    Full(Bytes),
    /// A page that is written while it is sent.
    Page(Box<dyn Page>),
}

impl Response {
    /// An answer without a body and without a type, as Linkerd 1 gives for what it doesn't have.
    pub fn empty(status: StatusCode) -> Self {
        Self { status, headers: HeaderMap::new(), body: Body::Full(Bytes::new()) }
    }

    /// 200 with this type.
    pub fn of(content_type: &'static str, body: impl Into<Bytes>) -> Self {
        let mut this = Self::empty(StatusCode::OK);
        this.headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        this.body = Body::Full(body.into());
        this
    }

    /// Text in English, with the headers of twitter-server's pages.
    pub fn text(body: impl Into<String>) -> Self {
        Self::of("text/plain;charset=UTF-8", body.into()).with_header(CONTENT_LANGUAGE, HeaderValue::from_static("en"))
    }

    /// A JSON document.
    pub fn json(body: impl Into<String>) -> Self {
        Self::of("application/json", body.into())
    }

    /// An HTML document.
    pub fn html(body: impl Into<String>) -> Self {
        Self::of("text/html;charset=UTF-8", body.into())
    }

    /// 404 without a body.
    pub fn not_found() -> Self {
        Self::empty(StatusCode::NOT_FOUND)
    }

    /// 405; `allow` names the methods that are.
    pub fn method_not_allowed(allow: &'static str) -> Self {
        Self::empty(StatusCode::METHOD_NOT_ALLOWED).with_header(ALLOW, HeaderValue::from_static(allow))
    }

    /// A page of metrics: never cached, for it is old when it arrives.
    pub fn page(content_type: &'static str, page: Box<dyn Page>) -> Self {
        let mut this =
            Self::of(content_type, Bytes::new()).with_header(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        this.body = Body::Page(page);
        this
    }

    /// Gives it what every answer of a page of metrics has, an error too.
    pub(crate) fn complete_as_metrics(&mut self, content_type: &'static str) {
        self.headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static(content_type));
        self.headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    }

    /// The same answer, not to be kept by anybody: it is old when it arrives.
    #[must_use]
    pub fn not_stored(self) -> Self {
        self.with_header(CACHE_CONTROL, HeaderValue::from_static("no-store"))
    }

    /// The same answer with another status.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// The same answer with a header more (or another value of it).
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(bytes) => f.debug_tuple("Full").field(bytes).finish(),
            Self::Page(_) => f.write_str("Page"),
        }
    }
}
