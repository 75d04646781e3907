//! A request as a handler sees it: whole, its body bounded, its parameters decoded.

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST, ORIGIN};
use http::{HeaderMap, Method, Uri, Version};
use percent_encoding::percent_decode;

/// A request. The server has read its body, and refused it if it was too long.
#[derive(Clone, Debug)]
pub struct Request {
    /// GET, POST, …
    pub method: Method,
    /// As sent.
    pub uri: Uri,
    /// HTTP/1.0 or 1.1.
    pub version: Version,
    /// As sent.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

impl Request {
    /// The path with duplicate slashes collapsed: what handlers and security rules are matched against.
    pub fn path(&self) -> String {
        collapse(self.uri.path())
    }

    /// The first value of a query parameter, decoded.
    pub fn query(&self, name: &str) -> Option<String> {
        first(self.uri.query().unwrap_or_default().as_bytes(), name)
    }

    /// All values of a query parameter, decoded, in order.
    pub fn queries(&self, name: &str) -> Vec<String> {
        all(self.uri.query().unwrap_or_default().as_bytes(), name).collect()
    }

    /// Whether the request may change something. What a page of another origin makes a browser send may not; what is no
    /// browser tells no origin.
    pub fn is_of_this_origin(&self) -> bool {
        let site = self.headers.get("sec-fetch-site").map(|site| site.as_bytes());
        if site.is_some_and(|site| site != b"same-origin" && site != b"none") {
            return false;
        }
        let Some(origin) = self.headers.get(ORIGIN) else { return true };
        let host = self.headers.get(HOST).map(|host| host.as_bytes());
        let authority = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
        authority.is_some_and(|(_, authority)| host == Some(authority.as_bytes()))
    }

    /// The first value of a parameter: of the query, or else of a form in the body.
    pub fn param(&self, name: &str) -> Option<String> {
        self.query(name).or_else(|| if self.has_form() { first(&self.body, name) } else { None })
    }

    /// Whether a query parameter says yes: `1`, `t` or `true`, in any case.
    pub fn flag(&self, name: &str) -> bool {
        self.query(name).is_some_and(|value| ["1", "t", "true"].iter().any(|yes| value.eq_ignore_ascii_case(yes)))
    }

    /// Whether somebody looks at the answer with a browser.
    pub fn wants_html(&self) -> bool {
        self.headers
            .get_all(ACCEPT)
            .iter()
            .any(|accept| String::from_utf8_lossy(accept.as_bytes()).contains("text/html"))
    }

    fn has_form(&self) -> bool {
        let form = |value: &http::HeaderValue| {
            let media = value.as_bytes().split(|&byte| byte == b';').next().unwrap_or_default();
            media.trim_ascii().eq_ignore_ascii_case(b"application/x-www-form-urlencoded")
        };
        self.headers.get(CONTENT_TYPE).is_some_and(form)
    }
}

/// `a=1&b=2`: the first value of `name`, decoded; a name without `=` has the empty value.
fn first(encoded: &[u8], name: &str) -> Option<String> {
    all(encoded, name).next()
}

/// All of its values.
fn all(encoded: &[u8], name: &str) -> impl Iterator<Item = String> {
    encoded.split(|&byte| byte == b'&').filter(|pair| !pair.is_empty()).filter_map(move |pair| {
        let at = pair.iter().position(|&byte| byte == b'=').unwrap_or(pair.len());
        let (key, value) = pair.split_at(at);
        (decoded(key) == name).then(|| decoded(value.strip_prefix(b"=").unwrap_or_default()))
    })
}

/// Form decoding; what is no UTF-8 becomes U+FFFD.
fn decoded(text: &[u8]) -> String {
    let spaced: Vec<u8> = text.iter().map(|&byte| if byte == b'+' { b' ' } else { byte }).collect();
    percent_decode(&spaced).decode_utf8_lossy().into_owned()
}

fn collapse(path: &str) -> String {
    let mut collapsed = String::with_capacity(path.len());
    for c in path.chars() {
        if c != '/' || !collapsed.ends_with('/') {
            collapsed.push(c);
        }
    }
    collapsed
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn request(method: Method, uri: &str) -> Request {
        Request {
            method,
            uri: uri.parse().unwrap(),
            version: Version::HTTP_11,
            headers: HeaderMap::new(),
            body: Bytes::new(),
        }
    }

    #[test]
    fn parameters_are_decoded_and_the_first_one_counts() {
        let get = request(Method::GET, "/x?q=a%2Fb+c&q=second&empty&caf%C3%A9=%ff&a=b=c");
        assert_eq!(get.query("q").unwrap(), "a/b c");
        assert_eq!(get.queries("q"), ["a/b c", "second"]);
        assert_eq!(get.query("empty").unwrap(), "");
        assert_eq!(get.query("café").unwrap(), "\u{fffd}");
        assert_eq!(get.query("a").unwrap(), "b=c");
        assert_eq!(get.query("b"), None);
        assert_eq!(request(Method::GET, "/x?&&").query(""), None);
    }

    #[test]
    fn a_form_in_the_body_gives_parameters_too() {
        let mut post = request(Method::POST, "/x?level=INFO");
        post.body = Bytes::from_static(b"logger=com.twitter&level=DEBUG");
        assert_eq!(post.param("logger"), None, "not a form");
        post.headers.insert(CONTENT_TYPE, "application/x-www-form-urlencoded; charset=UTF-8".parse().unwrap());
        assert_eq!(post.param("logger").unwrap(), "com.twitter");
        assert_eq!(post.param("level").unwrap(), "INFO");
    }

    #[test]
    fn a_parameter_may_come_more_than_once() {
        let get = request(Method::GET, "/x?a=1&b=2&a=%2F");
        assert_eq!(get.queries("a"), ["1", "/"]);
        assert!(get.queries("c").is_empty());
    }

    #[test]
    fn only_pages_of_the_same_origin_may_change_things() {
        for (origin, site, allowed) in [
            (None, None, true),
            (Some("http://l5d:9990"), None, true),
            (Some("https://l5d:9990"), Some("same-origin"), true),
            (None, Some("none"), true),
            (Some("http://evil"), None, false),
            (Some("http://l5d"), None, false),
            (Some("null"), None, false),
            (Some("http://l5d:9990"), Some("cross-site"), false),
            (None, Some("same-site"), false),
        ] {
            let mut post = request(Method::POST, "/x");
            post.headers.insert(HOST, "l5d:9990".parse().unwrap());
            origin.map(|origin| post.headers.insert(ORIGIN, origin.parse().unwrap()));
            site.map(|site| post.headers.insert("sec-fetch-site", site.parse().unwrap()));
            assert_eq!(post.is_of_this_origin(), allowed, "{origin:?} {site:?}");
        }
    }

    #[test]
    fn a_flag_is_one_of_three_words() {
        for (text, set) in [("1", true), ("T", true), ("True", true), ("yes", false), ("", false), ("0", false)] {
            assert_eq!(request(Method::GET, &format!("/x?pretty={text}")).flag("pretty"), set, "{text}");
        }
        assert!(!request(Method::GET, "/x").flag("pretty"));
    }

    #[test]
    fn duplicate_slashes_are_one() {
        assert_eq!(request(Method::GET, "//admin///ping").path(), "/admin/ping");
        assert_eq!(request(Method::GET, "http://host//admin//").path(), "/admin/");
    }
}
