//! Whether an answer may be compressed.
//!
//! Only gzip is spoken: no scraper asks for anything else. A page is compressed when `Accept-Encoding` names gzip, or `*`,
//! with a weight above 0; a coding that is named is judged by its own weight, whatever `*` has.

use http::HeaderMap;
use http::header::ACCEPT_ENCODING;

/// Whether gzip is asked for.
pub(crate) fn accepts_gzip(headers: &HeaderMap) -> bool {
    let (mut named, mut any) = (None, None);
    for value in headers.get_all(ACCEPT_ENCODING) {
        let Ok(value) = value.to_str() else { continue };
        for coding in value.split(',') {
            let mut parts = coding.split(';');
            let name = parts.next().unwrap_or_default().trim();
            let weight = parts.find_map(|part| {
                let (key, weight) = part.split_once('=')?;
                // A weight that can't be read is no consent.
                key.trim().eq_ignore_ascii_case("q").then(|| weight.trim().parse::<f32>().unwrap_or(0.0))
            });
            let wanted = weight.unwrap_or(1.0) > 0.0;
            if name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip") {
                named = Some(named.unwrap_or(false) || wanted);
            } else if name == "*" {
                any = Some(wanted);
            }
        }
    }
    named.or(any).unwrap_or(false)
}

/// Whether compressing this type gains anything.
pub(crate) fn is_text(content_type: &[u8]) -> bool {
    let starts =
        |prefix: &[u8]| content_type.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    // Metrics in protobuf are as repetitive as text.
    let metrics = starts(b"application/openmetrics-text") || starts(b"application/vnd.google.protobuf");
    metrics
        || starts(b"text/")
        || starts(b"application/json")
        || starts(b"application/javascript")
        || starts(b"image/svg+xml")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_taken_when_its_weight_is_above_zero() {
        for (accept, expected) in [
            ("", false),
            ("gzip", true),
            ("GZip", true),
            ("x-gzip", true),
            ("gzip;q=0", false),
            ("gzip;q=0.000", false),
            ("gzip; q=0.001", true),
            ("gzip;q=1.0;x=y", true),
            ("gzip;Q=0", false),
            ("gzip;q=abc", false),
            ("gzip;q=NaN", false),
            ("x-gzip-foo", false),
            ("gzip, deflate", true),
            ("deflate, br", false),
            ("deflate, gzip;q=0.5", true),
            ("*", true),
            ("*;q=0", false),
            ("*;q=0, gzip", true),
            ("gzip;q=0, *", false),
            ("identity", false),
            (",,;q=1,", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, accept.parse().unwrap());
            assert_eq!(accepts_gzip(&headers), expected, "{accept}");
        }
        assert!(!accepts_gzip(&HeaderMap::new()));
        let mut headers = HeaderMap::new();
        headers.append(ACCEPT_ENCODING, "deflate".parse().unwrap());
        headers.append(ACCEPT_ENCODING, "gzip".parse().unwrap());
        assert!(accepts_gzip(&headers), "the field may come in several lines");
    }

    #[test]
    fn text_is_worth_compressing() {
        assert!(is_text(b"text/plain; version=0.0.4") && is_text(b"application/json;charset=UTF-8"));
        assert!(is_text(b"application/vnd.google.protobuf; encoding=delimited"));
        assert!(!is_text(b"image/png") && !is_text(b""));
    }
}
