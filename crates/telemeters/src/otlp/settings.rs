//! What is configured, and what OpenTelemetry's environment variables say of what is not.
//!
//! The variables are those of the specification, "OTLP Exporter" and "SDK environment variables". What the configuration
//! says comes first: it was written for this process.

use std::time::Duration;

use l5d_telemetry::format::otlp::{Histograms, Resource, Temporality};

use super::Config;
use crate::collector::Endpoint;

/// Everything that is to be known.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) traces: Signal,
    pub(super) metrics: Signal,
    pub(super) interval: Duration,
    pub(super) temporality: Temporality,
    pub(super) histograms: Histograms,
    pub(super) resource: Resource,
}

/// Where and how one signal is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Signal {
    pub(super) endpoint: Endpoint,
    pub(super) headers: Vec<(String, String)>,
    pub(super) gzip: bool,
    pub(super) timeout: Duration,
}

impl Settings {
    pub(super) fn new(config: &Config, env: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let read = |name: &str| env(name).map(|value| (name.to_owned(), value));
        /// What a variable says, or why it says nothing.
        fn parsed<T>(
            found: Option<(String, String)>,
            parse: impl Fn(&str) -> Result<T, String>,
        ) -> Result<Option<T>, String> {
            found.map(|(name, value)| parse(&value).map_err(|why| format!("{name}: {why}"))).transpose()
        }
        let signal = |name: &str, path: &str| -> Result<Signal, String> {
            let either = |what: &str| {
                let own = read(&format!("OTEL_EXPORTER_OTLP_{name}_{what}"));
                own.or_else(|| read(&format!("OTEL_EXPORTER_OTLP_{what}")))
            };
            let base = |url: Endpoint| Endpoint { path: format!("{}{path}", url.path.trim_end_matches('/')), ..url };
            let url = |text: &str| Endpoint::parse(text, 4318);
            let endpoint = match &config.endpoint {
                Some(endpoint) => base(endpoint.clone()),
                None => match parsed(read(&format!("OTEL_EXPORTER_OTLP_{name}_ENDPOINT")), url)? {
                    Some(endpoint) => endpoint,
                    None => base(match parsed(read("OTEL_EXPORTER_OTLP_ENDPOINT"), url)? {
                        Some(endpoint) => endpoint,
                        None => url("http://localhost:4318")?,
                    }),
                },
            };
            let headers = match &config.headers {
                Some(headers) => headers.clone(),
                None => parsed(either("HEADERS"), headers)?.unwrap_or_default(),
            };
            parsed(either("PROTOCOL"), |protocol| match protocol {
                "http/protobuf" => Ok(()),
                other => Err(format!("\"{other}\" is not supported; supported: http/protobuf")),
            })?;
            let gzip = parsed(either("COMPRESSION"), |compression| match compression {
                "gzip" => Ok(true),
                "none" => Ok(false),
                other => Err(format!("unknown compression \"{other}\"; known: gzip, none")),
            })?;
            let timeout = parsed(either("TIMEOUT"), millis)?;
            Ok(Signal {
                endpoint,
                headers,
                gzip: gzip.unwrap_or(false),
                timeout: timeout.unwrap_or(Duration::from_secs(10)),
            })
        };
        let temporality = match config.temporality {
            Some(temporality) => temporality,
            None => parsed(read("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"), |text| {
                match text.to_ascii_lowercase().as_str() {
                    "cumulative" => Ok(Temporality::Cumulative),
                    // Low memory wants deltas of what is counted here, too.
                    "delta" | "lowmemory" => Ok(Temporality::Delta),
                    _ => Err(format!("unknown preference \"{text}\"; known: cumulative, delta, lowmemory")),
                }
            })?
            .unwrap_or_default(),
        };
        let histograms = match config.histograms {
            Some(histograms) => histograms,
            None => parsed(read("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION"), |text| {
                match text.to_ascii_lowercase().as_str() {
                    "explicit_bucket_histogram" => Ok(Histograms::Explicit),
                    "base2_exponential_bucket_histogram" => Ok(Histograms::Exponential),
                    _ => Err(format!(
                        "unknown aggregation \"{text}\"; known: explicit_bucket_histogram, \
                         base2_exponential_bucket_histogram"
                    )),
                }
            })?
            .unwrap_or_default(),
        };
        let interval = match config.interval {
            Some(interval) => interval,
            None => parsed(read("OTEL_METRIC_EXPORT_INTERVAL"), millis)?.unwrap_or(Duration::from_secs(60)),
        };
        let mut attributes = parsed(read("OTEL_RESOURCE_ATTRIBUTES"), pairs)?.unwrap_or_default();
        let name = env("OTEL_SERVICE_NAME")
            .or_else(|| attributes.iter().rev().find(|(key, _)| key == "service.name").map(|(_, value)| value.clone()));
        attributes.retain(|(key, _)| key != "service.name");
        let mut all = vec![
            ("service.name".to_owned(), name.unwrap_or_else(|| "l5d".to_owned())),
            ("service.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
            ("service.instance.id".to_owned(), uuid()),
        ];
        all.retain(|(key, _)| !attributes.iter().any(|(own, _)| own == key));
        all.append(&mut attributes);
        Ok(Self {
            traces: signal("TRACES", "/v1/traces")?,
            metrics: signal("METRICS", "/v1/metrics")?,
            interval,
            temporality,
            histograms,
            resource: Resource { attributes: all },
        })
    }
}

/// Tells this process from every other: a random UUID.
fn uuid() -> String {
    let random = fastrand::u128(..) & !(0xf << 76) & !(0xc << 60) | 4 << 76 | 8 << 60;
    let hex = format!("{random:032x}");
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

/// A number of milliseconds, or a duration as the command line has it: `10.seconds`.
pub(super) fn interval(text: &str) -> Result<Duration, String> {
    match text.parse::<u64>() {
        Ok(_) => millis(text),
        Err(_) => l5d_config::duration(text).and_then(at_least_a_millisecond),
    }
}

fn millis(text: &str) -> Result<Duration, String> {
    let millis = text.parse().map_err(|_| format!("\"{text}\" is no number of milliseconds"))?;
    at_least_a_millisecond(Duration::from_millis(millis))
}

fn at_least_a_millisecond(interval: Duration) -> Result<Duration, String> {
    // What is longer than a year can only be a slip, and could overflow a clock.
    let year = Duration::from_secs(365 * 24 * 3600);
    match interval.as_millis() {
        0 => Err("the interval must be at least 1 ms".to_owned()),
        _ => Ok(interval.min(year)),
    }
}

pub(super) fn temporality(text: &str) -> Result<Temporality, String> {
    match text {
        "cumulative" => Ok(Temporality::Cumulative),
        "delta" => Ok(Temporality::Delta),
        _ => Err(format!("unknown temporality \"{text}\"; known: cumulative, delta")),
    }
}

pub(super) fn histograms(text: &str) -> Result<Histograms, String> {
    match text {
        "explicit" => Ok(Histograms::Explicit),
        "exponential" => Ok(Histograms::Exponential),
        _ => Err(format!("unknown kind of histograms \"{text}\"; known: explicit, exponential")),
    }
}

/// A header that can be sent.
pub(super) fn header(name: &str, value: &str) -> Result<(String, String), String> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let own = ["host", "content-length", "content-type", "content-encoding", "transfer-encoding", "connection"];
    if name.is_empty() || !name.bytes().all(token) {
        Err(format!("\"{name}\" is no name of a header"))
    } else if value.chars().any(|c| c.is_control() && c != '\t') {
        Err("the value of a header can't hold control characters".to_owned())
    } else if own.iter().any(|own| name.eq_ignore_ascii_case(own)) {
        Err("l5d sets this header itself".to_owned())
    } else {
        Ok((name.to_owned(), value.to_owned()))
    }
}

/// `a=1,b=2`, with percent-encoded values.
fn headers(text: &str) -> Result<Vec<(String, String)>, String> {
    pairs(text)?.into_iter().map(|(name, value)| header(&name, &value)).collect()
}

fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let pairs = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
    let read = pairs.map(|pair| {
        let (key, value) = pair.split_once('=').ok_or_else(|| format!("\"{pair}\" is no key=value"))?;
        Ok((key.trim().to_owned(), decoded(value.trim())))
    });
    read.collect()
}

/// Percent-decoding; what is no UTF-8 then, or no percent-encoding, stays what it may mean.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match (bytes[at], hex) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use l5d_config::{Cx, Fields};

    /// What a section says, in the form that the build gets it.
    pub(in crate::otlp) fn config(yaml: &str) -> Config {
        let node = l5d_config::read(&format!("kind: io.l5d.otlp\n{yaml}")).unwrap();
        let mut cx = Cx::new();
        let mut fields = Fields::of(&node, &mut cx).unwrap();
        fields.skip_kind();
        let config = super::super::read(&mut fields, &mut cx);
        fields.finish(&mut cx);
        assert_eq!(cx.finish(), []);
        config
    }

    pub(in crate::otlp) fn settings(config: &Config, env: &[(&str, &str)]) -> Result<Settings, String> {
        let found = |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Settings::new(config, found)
    }

    fn with(yaml: &str, env: &[(&str, &str)]) -> Result<Settings, String> {
        settings(&config(yaml), env)
    }

    fn shown(signal: &Signal) -> String {
        format!("{} {}", signal.endpoint.authority(), signal.endpoint.path)
    }

    #[test]
    fn defaults_are_opentelemetrys() {
        let settings = with("", &[]).unwrap();
        assert_eq!(shown(&settings.traces), "localhost:4318 /v1/traces");
        assert_eq!(shown(&settings.metrics), "localhost:4318 /v1/metrics");
        assert_eq!((settings.interval, settings.traces.timeout), (Duration::from_secs(60), Duration::from_secs(10)));
        assert_eq!((settings.temporality, settings.histograms), (Temporality::Cumulative, Histograms::Explicit));
        assert!(!settings.traces.gzip && settings.traces.headers.is_empty());
        assert_eq!(settings.resource.attributes[0], ("service.name".to_owned(), "l5d".to_owned()));
    }

    #[test]
    fn the_environment_fills_in_what_is_not_configured() {
        let env = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://all:1/base/"),
            ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://metrics/own"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=a%20b, x=y"),
            ("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "z=1"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "250"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
            ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "Delta"),
            ("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "base2_exponential_bucket_histogram"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "1500"),
            ("OTEL_SERVICE_NAME", "edge"),
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=other,zone=a%2Cb"),
        ];
        let settings = with("", &env).unwrap();
        assert_eq!(shown(&settings.traces), "all:1 /base/v1/traces");
        assert!(settings.traces.endpoint.tls && settings.traces.gzip);
        assert_eq!(shown(&settings.metrics), "metrics:4318 /own");
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(settings.traces.headers, [header("api-key", "a b"), header("x", "y")]);
        assert_eq!(settings.metrics.headers, [header("z", "1")]);
        assert_eq!(
            (settings.interval, settings.traces.timeout),
            (Duration::from_millis(1500), Duration::from_millis(250))
        );
        assert_eq!((settings.temporality, settings.histograms), (Temporality::Delta, Histograms::Exponential));
        let attributes = &settings.resource.attributes;
        assert_eq!(attributes.iter().filter(|(key, _)| key == "service.name").count(), 1);
        assert!(attributes.contains(&header("service.name", "edge")) && attributes.contains(&header("zone", "a,b")));

        let configured = "endpoint: http://mine/x\nheaders: {a: b}\ninterval: 2.seconds\ntemporality: cumulative\nhistograms: explicit";
        let settings = with(configured, &env).unwrap();
        assert_eq!(shown(&settings.traces), "mine:4318 /x/v1/traces");
        assert_eq!(shown(&settings.metrics), "mine:4318 /x/v1/metrics");
        assert_eq!(settings.metrics.headers, [header("a", "b")]);
        assert_eq!(settings.interval, Duration::from_secs(2));
        assert_eq!((settings.temporality, settings.histograms), (Temporality::Cumulative, Histograms::Explicit));
    }

    #[test]
    fn each_process_has_an_id_of_its_own() {
        let (one, other) = (uuid(), uuid());
        assert_ne!(one, other);
        let parts: Vec<usize> = one.split('-').map(str::len).collect();
        assert_eq!(parts, [8, 4, 4, 4, 12]);
        assert!(one.as_bytes()[14] == b'4' && b"89ab".contains(&one.as_bytes()[19]), "{one}");
    }

    #[test]
    fn variables_that_say_nothing_are_told_by_name() {
        for (name, value, why) in [
            (
                "OTEL_EXPORTER_OTLP_ENDPOINT",
                "here",
                "\"here\" is no URL of a collector: it must start with http:// or https://",
            ),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "\"grpc\" is not supported; supported: http/protobuf"),
            ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "zip", "unknown compression \"zip\"; known: gzip, none"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon", "\"soon\" is no number of milliseconds"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a", "\"a\" is no key=value"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=b%0Ac", "the value of a header can't hold control characters"),
        ] {
            assert_eq!(with("", &[(name, value)]).unwrap_err(), format!("{name}: {why}"));
        }
    }
}
