//! The modern face as text: 0.0.4, which every Prometheus reads, and OpenMetrics 1.0.
//!
//! They differ in what stands above a family, in the end, and in exemplars, which only OpenMetrics has. Values and bounds
//! are written alike, so that a series is the same whichever was asked for.

use crate::catalogue::Unit;
use crate::collide::Kind;
use crate::format::labels::push_label;
use crate::format::modern::{Bound, Encode, Exemplar, Head, Samples};
use crate::format::number::push_u64;

pub(super) struct Text {
    openmetrics: bool,
    /// The family's name, with `_total` if its samples have it.
    name: Vec<u8>,
    /// `a="x",b="y"`
    labels: Vec<u8>,
}

impl Text {
    pub(super) fn new(openmetrics: bool) -> Self {
        Self { openmetrics, name: Vec::new(), labels: Vec::new() }
    }

    fn sample(&self, suffix: &str, more: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(&self.name);
        out.extend_from_slice(suffix.as_bytes());
        if !self.labels.is_empty() || !more.is_empty() {
            out.push(b'{');
            out.extend_from_slice(&self.labels);
            if !self.labels.is_empty() && !more.is_empty() {
                out.push(b',');
            }
            out.extend_from_slice(more);
            out.push(b'}');
        }
        out.push(b' ');
    }
}

impl Encode for Text {
    fn begin(&mut self, head: &Head<'_>, out: &mut Vec<u8>) {
        self.name.clear();
        self.name.extend_from_slice(head.name.as_bytes());
        let (kind, total) = match head.kind {
            Kind::Counter => (&b"counter"[..], &b"_total"[..]),
            Kind::Gauge => (&b"gauge"[..], &b""[..]),
            Kind::Stat => (&b"histogram"[..], &b""[..]),
        };
        if !self.openmetrics {
            self.name.extend_from_slice(total);
        }
        let mut line = |what: &[u8], text: &[u8]| {
            for part in [b"# ", what, b" ", &self.name, b" ", text, b"\n"] {
                out.extend_from_slice(part);
            }
        };
        if self.openmetrics {
            line(b"TYPE", kind);
            if !head.unit.name().is_empty() {
                line(b"UNIT", head.unit.name().as_bytes());
            }
            line(b"HELP", head.help.as_bytes());
            self.name.extend_from_slice(total);
        } else {
            line(b"HELP", head.help.as_bytes());
            line(b"TYPE", kind);
        }
    }

    fn labels(&mut self, labels: &mut dyn Iterator<Item = (&str, &str)>) {
        self.labels.clear();
        for (name, value) in labels {
            if !self.labels.is_empty() {
                self.labels.push(b',');
            }
            self.labels.extend_from_slice(name.as_bytes());
            self.labels.extend_from_slice(b"=\"");
            push_label(&mut self.labels, value);
            self.labels.push(b'"');
        }
    }

    fn counter(&mut self, unit: Unit, value: u64, out: &mut Vec<u8>) {
        self.sample("", b"", out);
        push_counted(out, unit, value);
        out.push(b'\n');
    }

    fn gauge(&mut self, unit: Unit, value: f64, out: &mut Vec<u8>) {
        self.sample("", b"", out);
        push_float(out, unit.of(value));
        out.push(b'\n');
    }

    fn histogram(&mut self, unit: Unit, samples: &Samples<'_>, out: &mut Vec<u8>) {
        let mut le = Vec::new();
        let mut lower = f64::NEG_INFINITY;
        samples.cumulative(|bound, n| {
            le.clear();
            le.extend_from_slice(b"le=\"");
            let upper = match bound {
                Bound::At(bound) => {
                    push_bound(&mut le, unit.of(bound));
                    bound
                }
                Bound::Infinite => {
                    le.extend_from_slice(b"+Inf");
                    f64::INFINITY
                }
            };
            le.push(b'"');
            self.sample("_bucket", &le, out);
            push_u64(out, n);
            if self.openmetrics
                && let Some(exemplar) = samples.exemplar(lower, upper)
            {
                push_exemplar(out, unit, exemplar);
            }
            out.push(b'\n');
            lower = upper;
        });
        self.sample("_sum", b"", out);
        push_counted(out, unit, samples.sum);
        out.push(b'\n');
        self.sample("_count", b"", out);
        push_u64(out, samples.count());
        out.push(b'\n');
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        if self.openmetrics {
            out.extend_from_slice(b"# EOF\n");
        }
    }
}

fn push_exemplar(out: &mut Vec<u8>, unit: Unit, exemplar: &Exemplar) {
    out.extend_from_slice(format!(" # {{trace_id=\"{}\"}} ", exemplar.trace_id()).as_bytes());
    push_float(out, unit.of(exemplar.value as f64));
    let since = exemplar.at.as_millis();
    out.extend_from_slice(format!(" {}.{:03}", since / 1000, since % 1000).as_bytes());
}

/// A count, whole where the unit leaves it whole.
fn push_counted(out: &mut Vec<u8>, unit: Unit, value: u64) {
    match unit {
        Unit::None | Unit::Bytes => push_u64(out, value),
        unit => push_float(out, unit.of(value as f64)),
    }
}

fn push_float(out: &mut Vec<u8>, x: f64) {
    if x.is_nan() {
        out.extend_from_slice(b"NaN");
    } else if x.is_infinite() {
        out.extend_from_slice(if x > 0.0 { b"+Inf" } else { b"-Inf" });
    } else if x == x.trunc() && x.abs() < 1e15 {
        out.extend_from_slice(itoa::Buffer::new().format(x as i64).as_bytes());
    } else {
        out.extend_from_slice(zmij::Buffer::new().format_finite(x).as_bytes());
    }
}

/// A bucket's bound as OpenMetrics wants it: with a point or an exponent, the latter from a million on.
pub(super) fn push_bound(out: &mut Vec<u8>, x: f64) {
    if x >= 1e6 {
        let text = format!("{x:e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        out.extend_from_slice(format!("{mantissa}e+{exponent:0>2}").as_bytes());
    } else if x == x.trunc() {
        out.extend_from_slice(format!("{x:.1}").as_bytes());
    } else {
        out.extend_from_slice(zmij::Buffer::new().format_finite(x).as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_written_as_openmetrics_wants_them() {
        for (x, text) in [
            (0.0, "0.0"),
            (0.001, "0.001"),
            (0.005, "0.005"),
            (0.0001, "0.0001"),
            (1.0, "1.0"),
            (2.5, "2.5"),
            (999_999.0, "999999.0"),
            (1e6, "1e+06"),
            (1_048_576.0, "1.048576e+06"),
            (1e10, "1e+10"),
        ] {
            let mut out = Vec::new();
            push_bound(&mut out, x);
            assert_eq!(String::from_utf8(out).unwrap(), text);
        }
    }

    #[test]
    fn values_read_back() {
        for x in [0.0, -1.5, 1e300, 5e-324, 0.1, 123_456_789.125, -7.0, 1e15, 9e15] {
            let mut out = Vec::new();
            push_float(&mut out, x);
            assert_eq!(String::from_utf8(out).unwrap().parse::<f64>().unwrap(), x);
        }
    }
}
