//! Which format of the modern face a scraper asks for.
//!
//! By the `Accept` header: the format with the highest weight, of those with one weight the first named. What can't be
//! satisfied gets text, which every scraper reads; the answer always says what it is. `escaping` says how names that are not
//! plain would be written; ours all are, so that any promise holds, and `underscores` is one that every reader knows.

use http::HeaderMap;
use http::header::ACCEPT;
use l5d_telemetry::format::modern::Format;

/// The format and the type that the answer has.
pub(crate) fn negotiated(headers: &HeaderMap) -> (Format, &'static str) {
    let mut best: (f32, (Format, &'static str)) = (0.0, TEXT);
    for value in headers.get_all(ACCEPT) {
        let Ok(value) = value.to_str() else { continue };
        for range in value.split(',') {
            if let Some((weight, answer)) = offered(range)
                && weight > best.0
            {
                best = (weight, answer);
            }
        }
    }
    best.1
}

/// What a scraper that asks for nothing gets.
pub(crate) const TEXT: (Format, &str) = (Format::Text, "text/plain; version=0.0.4; charset=utf-8");

/// What we have for a media range, and its weight.
fn offered(range: &str) -> Option<(f32, (Format, &'static str))> {
    let mut parts = range.split(';');
    let media = parts.next()?.trim().to_ascii_lowercase();
    let (mut weight, mut version, mut escaping, mut proto, mut encoding) = (1.0, None, false, None, None);
    for part in parts {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        let value = value.trim().trim_matches('"');
        match key.trim().to_ascii_lowercase().as_str() {
            // A weight that can't be read is no consent.
            "q" => weight = value.parse::<f32>().unwrap_or(0.0),
            "version" => version = Some(value),
            "escaping" => escaping = true,
            "proto" => proto = Some(value),
            "encoding" => encoding = Some(value),
            _ => {}
        }
    }
    if weight.is_nan() {
        return None;
    }
    let escaped = |plain, escaped| if escaping { escaped } else { plain };
    let answer = match (media.as_str(), version) {
        ("application/vnd.google.protobuf", _)
            if proto == Some("io.prometheus.client.MetricFamily") && encoding == Some("delimited") =>
        {
            (Format::Protobuf, escaped(PROTOBUF, PROTOBUF_ESCAPED))
        }
        ("application/openmetrics-text", None | Some("1.0.0")) => {
            (Format::OpenMetrics, escaped(OPENMETRICS, OPENMETRICS_ESCAPED))
        }
        ("application/openmetrics-text", Some("0.0.1")) => (Format::OpenMetrics, OPENMETRICS_OLD),
        ("text/plain", None | Some("0.0.4" | "1.0.0")) | ("text/*" | "*/*", _) => TEXT,
        _ => return None,
    };
    Some((weight, answer))
}

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const OPENMETRICS_ESCAPED: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores";
const OPENMETRICS_OLD: &str = "application/openmetrics-text; version=0.0.1; charset=utf-8";
const PROTOBUF: &str = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";
const PROTOBUF_ESCAPED: &str = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited; escaping=underscores";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heaviest_that_we_have_is_answered() {
        const PROM2: &str = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                             text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        const PROM3: &str = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.7,\
                             application/openmetrics-text;version=0.0.1;q=0.6,text/plain;version=1.0.0;escaping=allow-utf-8;\
                             q=0.5,text/plain;version=0.0.4;q=0.4,*/*;q=0.3";
        const NATIVE: &str = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;\
                              escaping=allow-utf-8;q=0.7,text/plain;version=0.0.4;q=0.3";
        for (accept, expected) in [
            ("", TEXT.1),
            ("*/*", TEXT.1),
            ("text/html", TEXT.1),
            (PROM2, OPENMETRICS),
            (PROM3, OPENMETRICS_ESCAPED),
            (NATIVE, PROTOBUF_ESCAPED),
            ("text/plain;version=0.0.4;q=0.5, application/openmetrics-text;version=1.0.0;q=0.9", OPENMETRICS),
            ("text/plain;version=0.0.4;q=0.9, application/openmetrics-text;version=1.0.0;q=0.5", TEXT.1),
            ("application/openmetrics-text;version=2.0.0", TEXT.1),
            ("application/openmetrics-text;version=0.0.1", OPENMETRICS_OLD),
            ("application/openmetrics-text; version=\"1.0.0\"", OPENMETRICS),
            ("APPLICATION/OpenMetrics-Text", OPENMETRICS),
            ("application/openmetrics-text;q=0", TEXT.1),
            ("application/openmetrics-text;q=x", TEXT.1),
            ("application/openmetrics-text;q=NaN", TEXT.1),
            ("application/vnd.google.protobuf", TEXT.1),
            ("application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=text", TEXT.1),
            (",;,;=;", TEXT.1),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, accept.parse().unwrap());
            let (format, answer) = negotiated(&headers);
            assert_eq!(answer, expected, "{accept}");
            let of_type = match format {
                Format::Text => "text/plain",
                Format::OpenMetrics => "application/openmetrics-text",
                Format::Protobuf => "application/vnd.google.protobuf",
            };
            assert!(answer.starts_with(of_type), "{accept}");
        }
        assert_eq!(negotiated(&HeaderMap::new()).1, TEXT.1);
    }
}
