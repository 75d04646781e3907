//! The headers a Linkerd proxy reads, writes and takes away, and the rules that concern
//! headers alone: what is hop-by-hop, how `Via` grows, how an error becomes `l5d-err` (http-behaviour §6, §7.1).

use http::Version;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

use crate::codec::{
    Headers,
    headers::{Present, text},
};

/// `l5d-ctx-trace`: the span of the caller, base64.
pub(crate) const CTX_TRACE: &str = "l5d-ctx-trace";
/// `l5d-ctx-dtab`: the dtab that travels with a request.
pub(crate) const CTX_DTAB: &str = "l5d-ctx-dtab";
/// `l5d-ctx-deadline`: until when the caller waits.
pub(crate) const CTX_DEADLINE: &str = "l5d-ctx-deadline";
/// `l5d-dtab`: a user's dtab for this request.
pub(crate) const DTAB: &str = "l5d-dtab";
/// `l5d-sample`: a user's sampling rate for this request.
pub(crate) const SAMPLE: &str = "l5d-sample";
/// `l5d-reqid`: the root trace id, 16 hex digits.
pub(crate) const REQID: &str = "l5d-reqid";
/// `l5d-dst-service`: the logical name.
pub(crate) const DST_SERVICE: &str = "l5d-dst-service";
/// `l5d-dst-client`: the bound name.
pub(crate) const DST_CLIENT: &str = "l5d-dst-client";
/// `l5d-dst-residual`: what of the logical name was not used for binding.
pub(crate) const DST_RESIDUAL: &str = "l5d-dst-residual";
/// `l5d-err`: the reason of a response that the proxy made itself.
pub(crate) const ERR: &str = "l5d-err";
/// `l5d-retryable`: the failure is known to be safe to retry.
pub(crate) const RETRYABLE: &str = "l5d-retryable";
/// `l5d-success-class`: the classifier's verdict for whoever is in front.
pub(crate) const SUCCESS_CLASS: &str = "l5d-success-class";
/// `l5d-add-context`: asks a TRACE for the context block.
pub(crate) const ADD_CONTEXT: &str = "l5d-add-context";
/// Finagle's marks on a response that refuses a request unprocessed.
pub(crate) const NACK: &str = "finagle-http-nack";
/// The same for a request that must not be sent again.
pub(crate) const NONRETRYABLE_NACK: &str = "finagle-http-nonretryable-nack";
/// Finagle's mark on a request that may be sent again; never forwarded.
pub(crate) const RETRYABLE_REQUEST: &str = "finagle-http-retryable-request";
/// `x-forwarded-client-cert`.
pub(crate) const FORWARDED_CLIENT_CERT: &str = "x-forwarded-client-cert";

/// `host`.
pub(crate) const HOST: &str = "host";
/// `connection`.
pub(crate) const CONNECTION: &str = "connection";
/// `content-length`.
pub(crate) const CONTENT_LENGTH: &str = "content-length";
/// `content-type`.
pub(crate) const CONTENT_TYPE: &str = "content-type";
/// `content-encoding`.
pub(crate) const CONTENT_ENCODING: &str = "content-encoding";
/// `transfer-encoding`.
pub(crate) const TRANSFER_ENCODING: &str = "transfer-encoding";
/// `accept-encoding`.
pub(crate) const ACCEPT_ENCODING: &str = "accept-encoding";
/// `expect`.
pub(crate) const EXPECT: &str = "expect";
/// `via`.
pub(crate) const VIA: &str = "via";
/// `forwarded`.
pub(crate) const FORWARDED: &str = "forwarded";
/// `retry-after`.
pub(crate) const RETRY_AFTER: &str = "retry-after";
/// `max-forwards`.
pub(crate) const MAX_FORWARDS: &str = "max-forwards";

/// Removes what concerns one hop only: the fixed list and every header named in the first `Connection` line
/// (`StripHopByHopHeadersFilter`). `Keep-Alive` goes only when it is named, `Proxy-Connection` never.
pub(crate) fn strip_hop_by_hop(headers: &mut Headers) {
    let present = headers.present();
    if present.has(Present::CONNECTION)
        && let Some(connection) = headers.get(CONNECTION)
    {
        // Nearly always that, and without such a header.
        let listed = if connection.eq_ignore_ascii_case(b"keep-alive") && !present.has(Present::KEEP_ALIVE) {
            None
        } else {
            text(connection).map(str::to_ascii_lowercase)
        };
        headers.remove(CONNECTION);
        for name in listed.iter().flat_map(|listed| listed.split(',')) {
            headers.remove(name.trim());
        }
    }
    for (kind, name) in [
        (Present::PROXY_AUTHENTICATE, "proxy-authenticate"),
        (Present::PROXY_AUTHORIZATION, "proxy-authorization"),
        (Present::TE, "te"),
        (Present::TRAILER, "trailer"),
        (Present::TRANSFER_ENCODING, TRANSFER_ENCODING),
        (Present::UPGRADE, "upgrade"),
    ] {
        if present.has(kind) {
            headers.remove(name);
        }
    }
}

/// Appends this proxy to `Via`: `<old>, 1.1 linkerd`. Only the first existing line survives (`ViaHeaderFilter`).
pub(crate) fn append_via(headers: &mut Headers, version: Version) {
    let mine = if version == Version::HTTP_10 { "1.0 linkerd" } else { "1.1 linkerd" };
    if !headers.present().has(Present::VIA) {
        return headers.add(VIA, mine);
    }
    match headers.get(VIA) {
        None => headers.add(VIA, mine),
        Some(old) => {
            let joined = [old, b", ", mine.as_bytes()].concat();
            headers.set(VIA, joined);
        }
    }
}

/// How many hops the first `Via` line names, as `MaxCallDepthFilter` counts them: an empty line is one, and commas at the
/// end are none (Java's `split`).
pub(crate) fn via_depth(headers: &Headers) -> usize {
    let Some(line) = headers.get(VIA) else { return 0 };
    match line.iter().rposition(|b| *b != b',') {
        Some(last) => line[..=last].split(|b| *b == b',').count(),
        None => usize::from(line.is_empty()),
    }
}

/// What `application/x-www-form-urlencoded` leaves as it is.
const FORM: &AsciiSet = &NON_ALPHANUMERIC.remove(b'*').remove(b'-').remove(b'.').remove(b'_').remove(b' ');

/// A message as the value of `l5d-err`: form encoding (a blank is `+`), ISO-8859-1 where it has the character and `?`
/// where it does not, cut to `max_bytes`.
pub(crate) fn err_value(message: &str, max_bytes: usize) -> String {
    let latin: Vec<u8> = message.chars().map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?')).collect();
    let mut text = percent_encode(&latin, FORM).to_string().replace(' ', "+");
    text.truncate(max_bytes);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strips_the_fixed_list_and_what_connection_names() {
        let mut h: Headers = [
            ("Connection", "close, Foo"),
            ("foo", "a"),
            ("TE", "x"),
            ("proxy-authorization", "y"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
        ]
        .into_iter()
        .collect();
        strip_hop_by_hop(&mut h);
        let left: Vec<_> = h.iter().map(|(name, _)| name).collect();
        assert_eq!(left, ["keep-alive", "proxy-connection"]);
        let mut h: Headers = [("Connection", "Keep-Alive"), ("Keep-Alive", "timeout=5")].into_iter().collect();
        strip_hop_by_hop(&mut h);
        assert!(h.is_empty());
    }

    #[test]
    fn via_grows_at_its_end() {
        let mut h = Headers::new();
        append_via(&mut h, Version::HTTP_11);
        assert_eq!(h.text(VIA), Some("1.1 linkerd"));
        h.set(VIA, "1.0 bob, 1.1 mary");
        assert_eq!(via_depth(&h), 2);
        append_via(&mut h, Version::HTTP_10);
        assert_eq!(h.text(VIA), Some("1.0 bob, 1.1 mary, 1.0 linkerd"));
    }

    #[test]
    fn hops_are_counted_as_java_splits() {
        for (line, hops) in [("", 1), (",", 0), ("a", 1), ("a,", 1), ("a,,b,,", 3), (", a", 2)] {
            let mut h = Headers::new();
            h.add(VIA, line);
            h.add(VIA, "c, d, e");
            assert_eq!(via_depth(&h), hops, "{line:?}");
        }
        assert_eq!(via_depth(&Headers::new()), 0);
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
