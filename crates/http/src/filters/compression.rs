//! Compression of responses (`compressionLevel`): Netty's rules as Finagle sets them up (http-behaviour §13.6).
//!
//! A response that is held whole is encoded whole and gets a new length; a streamed one is encoded as it passes and
//! becomes chunked. Bodies that come encoded, and bodies of requests, are never touched.

use std::io::Write;

use bytes::Bytes;
use flate2::{Compression as Level, write::GzEncoder, write::ZlibEncoder};
use http::Method;

use crate::{
    body::Body,
    codec::{Headers, RequestHead, Response, headers::text},
    headers::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE},
};

/// When to compress.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Compression {
    /// None when off.
    level: Option<Level>,
    textual_only: bool,
}

/// What the requester takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Accepted {
    Gzip,
    Deflate,
}

impl Compression {
    /// From the configured level: -1 textual types at level 6, 0 never, 1–9 all types.
    pub(crate) fn new(level: i32) -> Self {
        match u32::try_from(level) {
            Err(_) => Self { level: Some(Level::new(6)), textual_only: true },
            Ok(0) => Self { level: None, textual_only: false },
            Ok(n) => Self { level: Some(Level::new(n.min(9))), textual_only: false },
        }
    }

    /// The encoding that a request asks for, if this server compresses at all.
    pub(crate) fn accepted(&self, head: &RequestHead) -> Option<Accepted> {
        self.level?;
        accepted(&head.headers)
    }

    /// Encodes a response if everything speaks for it.
    pub(crate) fn apply(&self, accepted: Option<Accepted>, method: &Method, response: &mut Response) {
        let (Some(level), Some(accepted)) = (self.level, accepted) else { return };
        let h = &response.headers;
        if *method == Method::HEAD
            || h.contains(CONTENT_ENCODING)
            || (self.textual_only && !h.get(CONTENT_TYPE).is_some_and(is_textual))
        {
            return;
        }
        match response.body.as_full() {
            Some(bytes) if bytes.is_empty() => return,
            Some(bytes) => {
                let mut encoder = Encoder::new(accepted, level);
                let mut encoded = encoder.encode(bytes).to_vec();
                encoded.extend_from_slice(&encoder.finish());
                response.headers.set(CONTENT_LENGTH, encoded.len().to_string());
                response.body = Body::full(encoded.into());
            }
            None => {
                response.headers.remove(CONTENT_LENGTH);
                response.body.encode(Encoder::new(accepted, level));
            }
        }
        let name = match accepted {
            Accepted::Gzip => "gzip",
            Accepted::Deflate => "deflate",
        };
        response.headers.set(CONTENT_ENCODING, name);
    }
}

/// The better of gzip and deflate by the request's weights; gzip when they are equal.
fn accepted(headers: &Headers) -> Option<Accepted> {
    let (mut star, mut gzip, mut deflate) = (None, None, None);
    for line in headers.all(ACCEPT_ENCODING) {
        for item in text(line).unwrap_or_default().split(',') {
            let (name, params) = item.split_once(';').unwrap_or((item, ""));
            let q = params.split(';').find_map(|p| p.trim().strip_prefix("q=")?.trim().parse().ok()).unwrap_or(1.0_f32);
            match name.trim().to_ascii_lowercase().as_str() {
                "*" => star = Some(q),
                "gzip" | "x-gzip" => gzip = Some(q),
                "deflate" => deflate = Some(q),
                _ => {}
            }
        }
    }
    let gzip = gzip.or(star).unwrap_or(0.0);
    let deflate = deflate.or(star).unwrap_or(0.0);
    if gzip > 0.0 && gzip >= deflate { Some(Accepted::Gzip) } else { (deflate > 0.0).then_some(Accepted::Deflate) }
}

fn is_textual(content_type: &[u8]) -> bool {
    const TEXTUAL: [&str; 9] = [
        "application/json",
        "application/javascript",
        "application/x-javascript",
        "application/xml",
        "application/xhtml+xml",
        "application/rss+xml",
        "application/atom+xml",
        "image/svg+xml",
        "text/",
    ];
    let Some(text) = text(content_type) else { return false };
    let kind = text.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    TEXTUAL.iter().any(|t| if t.ends_with('/') { kind.starts_with(t) } else { kind == *t })
}

/// An encoder under way.
pub(crate) enum Encoder {
    Gzip(GzEncoder<Vec<u8>>),
    Deflate(ZlibEncoder<Vec<u8>>),
}

impl Encoder {
    fn new(accepted: Accepted, level: Level) -> Self {
        match accepted {
            Accepted::Gzip => Self::Gzip(GzEncoder::new(Vec::new(), level)),
            Accepted::Deflate => Self::Deflate(ZlibEncoder::new(Vec::new(), level)),
        }
    }

    /// What a chunk comes to, flushed: a streamed response must not wait for more input.
    pub(crate) fn encode(&mut self, data: &[u8]) -> Bytes {
        const IN_MEMORY: &str = "writing to memory does not fail";
        match self {
            Self::Gzip(e) => {
                e.write_all(data).expect(IN_MEMORY);
                e.flush().expect(IN_MEMORY);
                std::mem::take(e.get_mut()).into()
            }
            Self::Deflate(e) => {
                e.write_all(data).expect(IN_MEMORY);
                e.flush().expect(IN_MEMORY);
                std::mem::take(e.get_mut()).into()
            }
        }
    }

    /// What is left at the end.
    pub(crate) fn finish(self) -> Bytes {
        match self {
            Self::Gzip(e) => e.finish(),
            Self::Deflate(e) => e.finish(),
        }
        .unwrap_or_default()
        .into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn response(content_type: &str) -> Response {
        let mut response = Response::new(http::StatusCode::OK, Body::full(Bytes::from(vec![b'x'; 300])));
        response.headers = [(CONTENT_TYPE, content_type), (CONTENT_LENGTH, "300")].into_iter().collect();
        response
    }

    #[test]
    fn weights_decide() {
        for (value, expected) in [
            ("gzip", Some(Accepted::Gzip)),
            ("deflate, gzip", Some(Accepted::Gzip)),
            ("gzip;q=0.5, deflate", Some(Accepted::Deflate)),
            ("gzip;q=0", None),
            ("*", Some(Accepted::Gzip)),
            ("br", None),
            ("", None),
        ] {
            let h: Headers = [(ACCEPT_ENCODING, value)].into_iter().collect();
            assert_eq!(accepted(&h), expected, "{value}");
        }
    }

    #[test]
    fn a_whole_body_is_encoded_whole() {
        let mut r = response("text/plain; charset=utf-8");
        Compression::new(-1).apply(Some(Accepted::Gzip), &Method::GET, &mut r);
        assert_eq!(r.headers.text(CONTENT_ENCODING), Some("gzip"));
        let body = r.body.as_full().unwrap();
        assert_eq!(r.headers.text(CONTENT_LENGTH), Some(body.len().to_string().as_str()));
        let mut text = String::new();
        flate2::read::GzDecoder::new(&body[..]).read_to_string(&mut text).unwrap();
        assert_eq!(text, "x".repeat(300));
    }

    #[test]
    fn what_is_left_alone() {
        for (level, kind, method) in
            [(-1, "image/png", Method::GET), (0, "text/plain", Method::GET), (-1, "text/plain", Method::HEAD)]
        {
            let mut r = response(kind);
            Compression::new(level).apply(Some(Accepted::Gzip), &method, &mut r);
            assert!(!r.headers.contains(CONTENT_ENCODING), "{level} {kind} {method}");
        }
    }
}
