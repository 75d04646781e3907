//! The headers a Linkerd proxy reads, writes and takes away, as prebuilt names and values, and the rules that concern
//! headers alone: what is hop-by-hop, how `Via` grows, how an error becomes `l5d-err` (http-behaviour §6, §7.1).

use http::{
    HeaderMap, HeaderName, HeaderValue, Version,
    header::{CONNECTION, Entry, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, VIA},
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

/// `l5d-ctx-trace`: the span of the caller, base64.
pub(crate) const CTX_TRACE: HeaderName = HeaderName::from_static("l5d-ctx-trace");
/// `l5d-ctx-dtab`: the dtab that travels with a request.
pub(crate) const CTX_DTAB: HeaderName = HeaderName::from_static("l5d-ctx-dtab");
/// `l5d-ctx-deadline`: until when the caller waits.
pub(crate) const CTX_DEADLINE: HeaderName = HeaderName::from_static("l5d-ctx-deadline");
/// `l5d-dtab`: a user's dtab for this request.
pub(crate) const DTAB: HeaderName = HeaderName::from_static("l5d-dtab");
/// `l5d-sample`: a user's sampling rate for this request.
pub(crate) const SAMPLE: HeaderName = HeaderName::from_static("l5d-sample");
/// `l5d-reqid`: the root trace id, 16 hex digits.
pub(crate) const REQID: HeaderName = HeaderName::from_static("l5d-reqid");
/// `l5d-dst-service`: the logical name.
pub(crate) const DST_SERVICE: HeaderName = HeaderName::from_static("l5d-dst-service");
/// `l5d-dst-client`: the bound name.
pub(crate) const DST_CLIENT: HeaderName = HeaderName::from_static("l5d-dst-client");
/// `l5d-dst-residual`: what of the logical name was not used for binding.
pub(crate) const DST_RESIDUAL: HeaderName = HeaderName::from_static("l5d-dst-residual");
/// `l5d-err`: the reason of a response that the proxy made itself.
pub(crate) const ERR: HeaderName = HeaderName::from_static("l5d-err");
/// `l5d-retryable`: the failure is known to be safe to retry.
pub(crate) const RETRYABLE: HeaderName = HeaderName::from_static("l5d-retryable");
/// `l5d-success-class`: the classifier's verdict for whoever is in front.
pub(crate) const SUCCESS_CLASS: HeaderName = HeaderName::from_static("l5d-success-class");
/// `l5d-add-context`: asks a TRACE for the context block.
pub(crate) const ADD_CONTEXT: HeaderName = HeaderName::from_static("l5d-add-context");
/// Finagle's marks on a response that refuses a request unprocessed.
pub(crate) const NACK: HeaderName = HeaderName::from_static("finagle-http-nack");
/// The same for a request that must not be sent again.
pub(crate) const NONRETRYABLE_NACK: HeaderName = HeaderName::from_static("finagle-http-nonretryable-nack");
/// Finagle's mark on a request that may be sent again; never forwarded.
pub(crate) const RETRYABLE_REQUEST: HeaderName = HeaderName::from_static("finagle-http-retryable-request");
/// `x-forwarded-client-cert`.
pub(crate) const FORWARDED_CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");

const PROXY_AUTHENTICATE: HeaderName = HeaderName::from_static("proxy-authenticate");
const PROXY_AUTHORIZATION: HeaderName = HeaderName::from_static("proxy-authorization");

/// Which of the headers that some layer looks for a message has.
///
/// Nearly every message has none of nearly all of them, and a look-up in the map hashes a name. One pass over the names
/// tells which are worth it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Present(u16);

impl Present {
    /// Something between proxies: `l5d-…`, `finagle-…`.
    pub(crate) const CONTEXT: u16 = 1;
    pub(crate) const VIA: u16 = 1 << 1;
    pub(crate) const EXPECT: u16 = 1 << 2;
    pub(crate) const ACCEPT_ENCODING: u16 = 1 << 3;
    pub(crate) const CONTENT_LENGTH: u16 = 1 << 4;
    pub(crate) const TRANSFER_ENCODING: u16 = 1 << 5;
    const CONNECTION: u16 = 1 << 6;
    const KEEP_ALIVE: u16 = 1 << 7;
    const TE: u16 = 1 << 8;
    const TRAILER: u16 = 1 << 9;
    const UPGRADE: u16 = 1 << 10;
    const PROXY_AUTHENTICATE: u16 = 1 << 11;
    const PROXY_AUTHORIZATION: u16 = 1 << 12;

    /// Those of `headers`.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        Self(headers.keys().fold(0, |all, name| all | Self::kind(name.as_str())))
    }

    /// Whether one of these is there.
    pub(crate) fn has(self, any: u16) -> bool {
        self.0 & any != 0
    }

    /// By length first, and by the whole name only where that fits.
    fn kind(name: &str) -> u16 {
        if name.starts_with("l5d-") || name.starts_with("finagle-") {
            return Self::CONTEXT;
        }
        let is = |what: &str, kind: u16| if name == what { kind } else { 0 };
        match name.len() {
            2 => is("te", Self::TE),
            3 => is("via", Self::VIA),
            6 => is("expect", Self::EXPECT),
            7 => is("trailer", Self::TRAILER) | is("upgrade", Self::UPGRADE),
            10 => is("connection", Self::CONNECTION) | is("keep-alive", Self::KEEP_ALIVE),
            14 => is("content-length", Self::CONTENT_LENGTH),
            15 => is("accept-encoding", Self::ACCEPT_ENCODING),
            17 => is("transfer-encoding", Self::TRANSFER_ENCODING),
            18 => is("proxy-authenticate", Self::PROXY_AUTHENTICATE),
            19 => is("proxy-authorization", Self::PROXY_AUTHORIZATION),
            _ => 0,
        }
    }
}

/// Removes what concerns one hop only: the fixed list and every header named in the first `Connection` line
/// (`StripHopByHopHeadersFilter`). `Keep-Alive` goes only when it is named, `Proxy-Connection` never.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let present = Present::of(headers);
    if present.has(Present::CONNECTION)
        && let Some(connection) = headers.remove(CONNECTION)
        // Nearly always that, and without such a header.
        && (present.has(Present::KEEP_ALIVE) || !connection.as_bytes().eq_ignore_ascii_case(b"keep-alive"))
        && let Ok(listed) = connection.to_str()
    {
        for name in listed.split(',') {
            headers.remove(name.trim());
        }
    }
    for (kind, name) in [
        (Present::PROXY_AUTHENTICATE, PROXY_AUTHENTICATE),
        (Present::PROXY_AUTHORIZATION, PROXY_AUTHORIZATION),
        (Present::TE, TE),
        (Present::TRAILER, TRAILER),
        (Present::TRANSFER_ENCODING, TRANSFER_ENCODING),
        (Present::UPGRADE, UPGRADE),
    ] {
        if present.has(kind) {
            headers.remove(name);
        }
    }
}

/// Appends this proxy to `Via`: `<old>, 1.1 linkerd`. Only the first existing line survives (`ViaHeaderFilter`).
pub(crate) fn append_via(headers: &mut HeaderMap, version: Version) {
    let mine = if version == Version::HTTP_10 { "1.0 linkerd" } else { "1.1 linkerd" };
    match headers.entry(VIA) {
        Entry::Vacant(none) => {
            none.insert(HeaderValue::from_static(mine));
        }
        Entry::Occupied(mut old) => {
            let joined = [old.get().as_bytes(), b", ", mine.as_bytes()].concat();
            old.insert(HeaderValue::from_bytes(&joined).unwrap_or_else(|_| HeaderValue::from_static("1.1 linkerd")));
        }
    }
}

/// How many hops the first `Via` line names.
pub(crate) fn via_depth(headers: &HeaderMap) -> usize {
    headers.get(VIA).map_or(0, |v| if v.is_empty() { 0 } else { v.as_bytes().split(|b| *b == b',').count() })
}

/// What `application/x-www-form-urlencoded` leaves as it is.
const FORM: &AsciiSet = &NON_ALPHANUMERIC.remove(b'*').remove(b'-').remove(b'.').remove(b'_').remove(b' ');

/// A message as the value of `l5d-err`: form encoding (a blank is `+`), ISO-8859-1 where it has the character and `?`
/// where it does not, cut to `max_bytes`.
pub(crate) fn err_value(message: &str, max_bytes: usize) -> HeaderValue {
    let latin: Vec<u8> = message.chars().map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?')).collect();
    let mut text = percent_encode(&latin, FORM).to_string().replace(' ', "+");
    text.truncate(max_bytes);
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("error"))
}

/// Whether a header's value has `wanted` as one of its comma-separated tokens, in any case.
pub(crate) fn has_token(value: &HeaderValue, wanted: &str) -> bool {
    value.to_str().is_ok_and(|v| v.split(',').any(|t| t.trim().eq_ignore_ascii_case(wanted)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strips_the_fixed_list_and_what_connection_names() {
        let mut h = HeaderMap::new();
        h.insert(CONNECTION, HeaderValue::from_static("close, Foo"));
        h.insert("foo", HeaderValue::from_static("a"));
        h.insert(TE, HeaderValue::from_static("x"));
        h.insert("proxy-authorization", HeaderValue::from_static("y"));
        h.insert("keep-alive", HeaderValue::from_static("timeout=5"));
        h.insert("proxy-connection", HeaderValue::from_static("keep-alive"));
        strip_hop_by_hop(&mut h);
        let mut left: Vec<_> = h.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["keep-alive", "proxy-connection"]);
    }

    #[test]
    fn one_pass_tells_what_is_there() {
        for (name, kind) in [
            ("connection", Present::CONNECTION),
            ("te", Present::TE),
            ("trailer", Present::TRAILER),
            ("upgrade", Present::UPGRADE),
            ("proxy-authenticate", Present::PROXY_AUTHENTICATE),
            ("proxy-authorization", Present::PROXY_AUTHORIZATION),
            ("transfer-encoding", Present::TRANSFER_ENCODING),
            ("content-length", Present::CONTENT_LENGTH),
            ("accept-encoding", Present::ACCEPT_ENCODING),
            ("expect", Present::EXPECT),
            ("via", Present::VIA),
            ("l5d-dtab", Present::CONTEXT),
            ("l5d-reqid-x", Present::CONTEXT),
            ("l5d-sample", Present::CONTEXT),
            ("l5d-retryable", Present::CONTEXT),
            ("l5d-ctx-deadline", Present::CONTEXT),
            ("l5d-success-class", Present::CONTEXT),
            ("l5d-ctx-aaaaaaa", Present::CONTEXT),
            ("finagle-http-retryable-request", Present::CONTEXT),
            ("host", 0),
            ("keep-alive", Present::KEEP_ALIVE),
            ("date", 0),
        ] {
            let mut h = HeaderMap::new();
            assert_eq!(Present::of(&h), Present(0));
            h.insert("x-other", HeaderValue::from_static("x"));
            h.insert(name, HeaderValue::from_static("x"));
            assert_eq!(Present::of(&h), Present(kind), "{name}");
        }
    }

    #[test]
    fn via_grows_at_its_end() {
        let mut h = HeaderMap::new();
        append_via(&mut h, Version::HTTP_11);
        assert_eq!(h[VIA], "1.1 linkerd");
        h.insert(VIA, HeaderValue::from_static("1.0 bob, 1.1 mary"));
        assert_eq!(via_depth(&h), 2);
        append_via(&mut h, Version::HTTP_10);
        assert_eq!(h[VIA], "1.0 bob, 1.1 mary, 1.0 linkerd");
    }

    #[test]
    fn errors_are_form_encoded() {
        assert_eq!(
            err_value("'/' expected but 'b' found at '[b]ogus'", 8192),
            "%27%2F%27+expected+but+%27b%27+found+at+%27%5Bb%5Dogus%27"
        );
        assert_eq!(err_value("a\nb c-é", 8192), "a%0Ab+c-%E9");
        assert_eq!(err_value("abcdef", 3), "abc");
    }
}
