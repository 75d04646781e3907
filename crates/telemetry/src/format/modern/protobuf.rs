//! The modern face in protobuf: `io.prometheus.client.MetricFamily`, each message with its length before it.
//!
//! A histogram is written twice in one message, natively and with classic buckets: a reader takes the one it knows. A family
//! is put together whole before it is written, as its length stands before it.

use crate::catalogue::Unit;
use crate::collide::Kind;
use crate::format::modern::native::Native;
use crate::format::modern::{Bound, Encode, Exemplar, Head, Samples};

#[derive(Default)]
pub(super) struct Protobuf {
    /// The family's message, once it has a metric.
    family: Vec<u8>,
    labels: Vec<u8>,
    any: bool,
}

/// Values up to this are in the bucket of zeros: the narrowest that Prometheus itself uses.
const ZERO_THRESHOLD: f64 = 2.938_735_877_055_719e-39;

impl Protobuf {
    fn metric(&mut self, field: u32, value: &[u8]) {
        let mut metric = self.labels.clone();
        push_bytes(&mut metric, field, value);
        push_bytes(&mut self.family, 4, &metric);
        self.any = true;
    }
}

impl Encode for Protobuf {
    fn begin(&mut self, head: &Head<'_>, _out: &mut Vec<u8>) {
        self.family.clear();
        self.any = false;
        let total = if head.kind == Kind::Counter { "_total" } else { "" };
        push_bytes(&mut self.family, 1, format!("{}{total}", head.name).as_bytes());
        push_bytes(&mut self.family, 2, head.help.as_bytes());
        let kind = match head.kind {
            Kind::Counter => 0,
            Kind::Gauge => 1,
            Kind::Stat => 4,
        };
        push_varint_field(&mut self.family, 3, kind);
        if !head.unit.name().is_empty() {
            push_bytes(&mut self.family, 5, head.unit.name().as_bytes());
        }
    }

    fn labels(&mut self, labels: &mut dyn Iterator<Item = (&str, &str)>) {
        self.labels.clear();
        for (name, value) in labels {
            push_label_pair(&mut self.labels, 1, name, value);
        }
    }

    fn counter(&mut self, unit: Unit, value: u64, _out: &mut Vec<u8>) {
        let mut counter = Vec::new();
        push_double(&mut counter, 1, unit.of(value as f64));
        self.metric(3, &counter);
    }

    fn gauge(&mut self, unit: Unit, value: f64, _out: &mut Vec<u8>) {
        let mut gauge = Vec::new();
        push_double(&mut gauge, 1, unit.of(value));
        self.metric(2, &gauge);
    }

    fn histogram(&mut self, unit: Unit, samples: &Samples<'_>, _out: &mut Vec<u8>) {
        let mut histogram = Vec::new();
        push_varint_field(&mut histogram, 1, samples.count());
        push_double(&mut histogram, 2, unit.of(samples.sum as f64));
        let mut lower = f64::NEG_INFINITY;
        samples.cumulative(|bound, n| {
            let upper = match bound {
                Bound::At(bound) => bound,
                Bound::Infinite => f64::INFINITY,
            };
            let mut bucket = Vec::new();
            push_varint_field(&mut bucket, 1, n);
            push_double(&mut bucket, 2, unit.of(upper));
            if let Some(exemplar) = samples.exemplar(lower, upper) {
                push_bytes(&mut bucket, 3, &exemplar_message(unit, exemplar));
            }
            push_bytes(&mut histogram, 3, &bucket);
            lower = upper;
        });
        let native = Native::new(samples.values().map(|(value, n)| (unit.of(value), n)));
        push_varint_field(&mut histogram, 5, zigzag(native.schema.into()));
        push_double(&mut histogram, 6, ZERO_THRESHOLD);
        push_varint_field(&mut histogram, 7, native.zero);
        let spans = native.spans();
        // Without any span a reader would take it for a classic one.
        let none = [(0, 0)];
        for &(offset, length) in if spans.is_empty() { &none[..] } else { &spans } {
            let mut span = Vec::new();
            push_varint_field(&mut span, 1, zigzag(offset.into()));
            push_varint_field(&mut span, 2, length.into());
            push_bytes(&mut histogram, 12, &span);
        }
        let mut deltas = Vec::new();
        native.deltas().for_each(|delta| push_varint(&mut deltas, zigzag(delta)));
        push_bytes(&mut histogram, 13, &deltas);
        for exemplar in samples.exemplars {
            push_bytes(&mut histogram, 16, &exemplar_message(unit, exemplar));
        }
        self.metric(7, &histogram);
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        if self.any {
            push_varint(out, self.family.len() as u64);
            out.append(&mut self.family);
        }
    }
}

fn exemplar_message(unit: Unit, exemplar: &Exemplar) -> Vec<u8> {
    let mut message = Vec::new();
    push_label_pair(&mut message, 1, "trace_id", &exemplar.trace_id());
    push_double(&mut message, 2, unit.of(exemplar.value as f64));
    let mut at = Vec::new();
    push_varint_field(&mut at, 1, exemplar.at.as_secs());
    push_varint_field(&mut at, 2, exemplar.at.subsec_nanos().into());
    push_bytes(&mut message, 3, &at);
    message
}

fn push_label_pair(out: &mut Vec<u8>, field: u32, name: &str, value: &str) {
    let mut pair = Vec::new();
    push_bytes(&mut pair, 1, name.as_bytes());
    push_bytes(&mut pair, 2, value.as_bytes());
    push_bytes(out, field, &pair);
}

fn push_varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn push_varint_field(out: &mut Vec<u8>, field: u32, n: u64) {
    push_varint(out, u64::from(field << 3));
    push_varint(out, n);
}

fn push_double(out: &mut Vec<u8>, field: u32, x: f64) {
    push_varint(out, u64::from(field << 3 | 1));
    out.extend_from_slice(&x.to_le_bytes());
}

fn push_bytes(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    push_varint(out, u64::from(field << 3 | 2));
    push_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Signed numbers with small ones short.
fn zigzag(n: i64) -> u64 {
    ((n << 1) ^ (n >> 63)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_protobuf_has_them() {
        let varint = |n| {
            let mut out = Vec::new();
            push_varint(&mut out, n);
            out
        };
        assert_eq!(varint(0), [0]);
        assert_eq!(varint(300), [0xac, 0x02]);
        assert_eq!(varint(u64::MAX).len(), 10);
        assert_eq!([0, -1, 1, -2, 2].map(zigzag), [0, 1, 2, 3, 4]);
        assert_eq!(zigzag(i64::MIN), u64::MAX);
    }
}
