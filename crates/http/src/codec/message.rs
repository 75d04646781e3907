//! Requests and responses as the stacks pass them on.

use std::fmt;

use http::{Method, StatusCode, Uri, Version};

use super::Headers;
use crate::body::Body;

/// The head of a request.
#[derive(Clone, Debug)]
pub struct RequestHead {
    /// The method.
    pub method: Method,
    /// What is asked for.
    pub target: Target,
    /// HTTP/1.0 or HTTP/1.1.
    pub version: Version,
    /// The header lines.
    pub headers: Headers,
}

/// The target of a request (RFC 9112 §3.2), all of it printable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    text: String,
    /// Where the path ends in it.
    path_end: usize,
    /// What it says besides a path.
    absolute: Option<Box<Absolute>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Absolute {
    scheme: Option<String>,
    authority: String,
    /// The same target without both.
    rooted: String,
}

impl Target {
    /// Reads a target. A fragment is left out, which belongs to nobody but the caller.
    ///
    /// `None` if it has a byte that no target may have: a blank, a control character, one of `<>"` and the backquote but
    /// where the path may have it, or a path that is not ASCII (http-behaviour §2.1).
    pub fn read(text: &str) -> Option<Self> {
        let text = text.split('#').next()?;
        if text.starts_with('/') || text == "*" {
            let path_end = text.bytes().position(|b| b == b'?').unwrap_or(text.len());
            let (path, query) = text.as_bytes().split_at(path_end);
            let path_ok =
                path.iter().fold(true, |ok, b| ok & matches!(b, 0x21..=0x7e) & !matches!(b, b'<' | b'>' | b'`'));
            let query_ok =
                query.iter().fold(true, |ok, &b| ok & (b > b' ' && b != 0x7f && !matches!(b, b'"' | b'<' | b'>')));
            return (path_ok && query_ok).then(|| Self { text: text.to_owned(), path_end, absolute: None });
        }
        let uri: Uri = text.parse().ok()?;
        let rooted = match uri.path_and_query().map_or("", http::uri::PathAndQuery::as_str) {
            rooted if rooted.starts_with('/') => rooted.to_owned(),
            rest => format!("/{rest}"),
        };
        let absolute = Absolute {
            scheme: uri.scheme_str().map(str::to_owned),
            authority: uri.authority()?.as_str().to_owned(),
            rooted,
        };
        uri.path().is_ascii().then(|| Self {
            text: text.to_owned(),
            path_end: text.len(),
            absolute: Some(Box::new(absolute)),
        })
    }

    /// As it is sent.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The path, without the query; of a target that is absolute, too.
    pub fn path(&self) -> &str {
        match &self.absolute {
            None => &self.text[..self.path_end],
            Some(absolute) => absolute.rooted.split('?').next().unwrap_or_default(),
        }
    }

    /// The query, without its `?`.
    pub fn query(&self) -> Option<&str> {
        match &self.absolute {
            None => self.text.get(self.path_end + 1..),
            Some(absolute) => absolute.rooted.split_once('?').map(|(_, query)| query),
        }
    }

    /// The scheme of an absolute target.
    pub fn scheme(&self) -> Option<&str> {
        self.absolute.as_ref()?.scheme.as_deref()
    }

    /// Of a target that says where it leads: the authority, and the target there.
    pub fn authority(&self) -> Option<(&str, Self)> {
        let absolute = self.absolute.as_ref()?;
        let path_end = absolute.rooted.find('?').unwrap_or(absolute.rooted.len());
        let rooted = Self { text: absolute.rooted.clone(), path_end, absolute: None };
        Some((&absolute.authority, rooted))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A response.
#[derive(Debug)]
pub struct Response {
    /// The status.
    pub status: StatusCode,
    /// HTTP/1.0 or HTTP/1.1.
    pub version: Version,
    /// The header lines.
    pub headers: Headers,
    /// The body.
    pub body: Body,
    /// The length of a body whose end was the end of its connection: to the statistics it is a stream, though it is held
    /// whole.
    pub(crate) closed_stream: Option<usize>,
}

impl Response {
    /// A response of HTTP/1.1 without header lines.
    pub fn new(status: StatusCode, body: Body) -> Self {
        Self { status, version: Version::HTTP_11, headers: Headers::new(), body, closed_stream: None }
    }
}

#[cfg(test)]
impl RequestHead {
    /// A request for a test.
    pub(crate) fn of(method: &str, target: &str, headers: &[(&str, &str)]) -> Self {
        Self {
            method: method.parse().unwrap(),
            target: Target::read(target).unwrap(),
            version: Version::HTTP_11,
            headers: headers.iter().copied().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_have_parts() {
        for (text, path, query) in [
            ("/", "/", None),
            ("/a?b", "/a", Some("b")),
            ("/?", "/", Some("")),
            ("*", "*", None),
            ("/a?b?c#d", "/a", Some("b?c")),
        ] {
            let target = Target::read(text).unwrap();
            assert_eq!((target.path(), target.query()), (path, query), "{text}");
            assert_eq!((target.scheme(), target.authority()), (None, None), "{text}");
        }
        for (text, scheme, authority, rooted) in [
            ("http://foo", Some("http"), "foo", "/"),
            ("http://foo?q", Some("http"), "foo", "/?q"),
            ("https://foo:8080/p?q=%20&r", Some("https"), "foo:8080", "/p?q=%20&r"),
            ("foo:443", None, "foo:443", "/"),
        ] {
            let target = Target::read(text).unwrap();
            let (to, left) = target.authority().unwrap();
            assert_eq!((target.scheme(), to, left.as_str(), target.as_str()), (scheme, authority, rooted, text));
            assert_eq!(Target::read(rooted), Some(left));
        }
        for text in ["", "/<", "/a b", "/\u{e9}", "/?<", "/?\"", "/\u{7f}", "http://", "//a b", "?"] {
            assert_eq!(Target::read(text), None, "{text:?}");
        }
        assert!(Target::read("/?\u{e9}").is_some());
    }
}
