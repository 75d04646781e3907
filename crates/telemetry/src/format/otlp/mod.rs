//! OTLP: the bodies of `POST /v1/traces` and `POST /v1/metrics` in protobuf.
//!
//! The few messages that are needed are written by hand (`wire.rs`): field numbers are contract, and they are the official
//! protos'.

mod metrics;
mod spans;
mod wire;

pub(crate) use metrics::Ledger;
pub use metrics::{Histograms, Metrics, Options, Request, Temporality};
pub use spans::push_traces;

use wire::{Buffer, bytes, message, text, varint_field};

/// Who tells: the resource of everything that is sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resource {
    /// `service.name` and the like.
    pub attributes: Vec<(String, String)>,
}

/// What the spans and metrics were made by.
const SCOPE: &str = "l5d";

fn push_resource(out: &mut Buffer, resource: &Resource) {
    message(out, 1, |out| {
        for (key, value) in &resource.attributes {
            message(out, 1, |out| push_text(out, key, value));
        }
    });
}

fn push_scope(out: &mut Buffer) {
    message(out, 1, |out| {
        text(out, 1, SCOPE);
        text(out, 2, env!("CARGO_PKG_VERSION"));
    });
}

/// The two fields of a `KeyValue`, for text.
fn push_text(out: &mut Buffer, key: &str, value: &str) {
    text(out, 1, key);
    message(out, 2, |out| {
        // An empty text is one, too: it is written although it is the default.
        bytes(out, 1, value.as_bytes());
    });
}

/// The same for a whole number.
fn push_int(out: &mut Buffer, key: &str, value: i64) {
    text(out, 1, key);
    message(out, 2, |out| varint_field(out, 3, value.cast_unsigned()));
}

/// How many spans or points a collector says that it left out, in the answer to a request that it took.
pub fn left_out(answer: &[u8]) -> u64 {
    let partial_success = wire::field(answer, 1).and_then(|message| wire::field(message.bytes()?, 1)?.number());
    partial_success.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_partial_success_tells_how_many() {
        let mut answer = Buffer::new();
        assert_eq!(left_out(&answer), 0);
        message(&mut answer, 1, |out| {
            varint_field(out, 1, 300);
            text(out, 2, "too many");
        });
        assert_eq!(left_out(&answer), 300);
        assert_eq!(left_out(&[0x0a, 0x00]), 0);
    }

    proptest! {
        #[test]
        fn no_answer_is_too_strange(bytes: Vec<u8>) {
            let _ = left_out(&bytes);
        }
    }
}
