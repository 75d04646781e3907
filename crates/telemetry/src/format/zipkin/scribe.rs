//! Scribe over framed Thrift, as Linkerd 1 sends spans: `Log` with the category `zipkin`, each message the base64 of a span in
//! `TBinaryProtocol` and a newline.
//!
//! Finagle leaves a span's own time and duration to be guessed from its annotations, by which a collector takes each
//! server's span for one that its caller shares. Here they are told.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::{canonical, is_server};
use crate::trace::{Span, Value};

const BOOL: u8 = 2;
const I16: u8 = 6;
const I32: u8 = 8;
const I64: u8 = 10;
const STRING: u8 = 11;
const STRUCT: u8 = 12;
const LIST: u8 = 15;

/// `VERSION_1` of the binary protocol, for a call.
const CALL: u32 = 0x8001_0001;
/// Zipkin's `AnnotationType`s.
const ANNOTATION_BOOL: i32 = 0;
const ANNOTATION_STRING: i32 = 6;

/// A span as the message of a log entry.
pub fn message(span: &Span<'_>) -> Vec<u8> {
    let mut thrift = Vec::with_capacity(1024);
    push_span(&mut thrift, span);
    let mut message = BASE64.encode(thrift).into_bytes();
    message.push(b'\n');
    message
}

/// Appends the call that logs these messages, in its frame.
pub fn push_log<'a>(out: &mut Vec<u8>, sequence: i32, messages: impl ExactSizeIterator<Item = &'a [u8]>) {
    let start = out.len();
    push_i32(out, 0);
    out.extend_from_slice(&CALL.to_be_bytes());
    push_bytes(out, b"Log");
    push_i32(out, sequence);
    push_field(out, LIST, 1);
    push_list(out, STRUCT, messages.len());
    for message in messages {
        push_field(out, STRING, 1);
        push_bytes(out, b"zipkin");
        push_field(out, STRING, 2);
        push_bytes(out, message);
        out.push(0);
    }
    out.push(0);
    let length = length(out.len() - start - 4);
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

fn push_span(out: &mut Vec<u8>, span: &Span<'_>) {
    push_field(out, I64, 1);
    push_i64(out, span.id.trace.cast_signed());
    push_field(out, STRING, 3);
    push_bytes(out, span.name.as_bytes());
    push_field(out, I64, 4);
    push_i64(out, span.id.span.cast_signed());
    if let Some(parent) = span.id.parent() {
        push_field(out, I64, 5);
        push_i64(out, parent.cast_signed());
    }
    push_field(out, LIST, 6);
    push_list(out, STRUCT, span.events.len());
    for (at, event) in &span.events {
        push_field(out, I64, 1);
        push_i64(out, at.cast_signed());
        push_field(out, STRING, 2);
        push_bytes(out, event.as_bytes());
        push_field(out, STRUCT, 3);
        push_endpoint(out, span.service, span.local);
        out.push(0);
    }
    push_field(out, LIST, 8);
    push_list(out, STRUCT, span.tags.len() + usize::from(span.remote.is_some()));
    for (key, value) in &span.tags {
        push_field(out, STRING, 1);
        push_bytes(out, key.as_bytes());
        push_field(out, STRING, 2);
        push_value(out, value);
        push_field(out, I32, 3);
        push_i32(out, ANNOTATION_STRING);
        // Without an endpoint: it is the span's, which its events have told.
        out.push(0);
    }
    if let Some(remote) = span.remote {
        push_remote(out, if is_server(span) { "ca" } else { "sa" }, remote);
    }
    if span.id.is_debug() {
        push_field(out, BOOL, 9);
        out.push(1);
    }
    push_field(out, I64, 10);
    push_i64(out, span.start_us.cast_signed());
    push_field(out, I64, 11);
    push_i64(out, span.duration_us.cast_signed());
    if let Some(high) = span.id.trace_high {
        push_field(out, I64, 12);
        push_i64(out, high.cast_signed());
    }
    out.push(0);
}

/// A fact as text, behind its length.
fn push_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Text(text) => push_bytes(out, text.as_bytes()),
        Value::Bool(yes) => push_bytes(out, if *yes { b"true" } else { b"false" }),
        Value::Int(n) => push_bytes(out, itoa::Buffer::new().format(*n).as_bytes()),
        Value::Double(_) => push_bytes(out, value.to_string().as_bytes()),
    }
}

/// The other end, as Zipkin wants to be told of it.
fn push_remote(out: &mut Vec<u8>, key: &str, addr: SocketAddr) {
    push_field(out, STRING, 1);
    push_bytes(out, key.as_bytes());
    push_field(out, STRING, 2);
    push_bytes(out, &[1]);
    push_field(out, I32, 3);
    push_i32(out, ANNOTATION_BOOL);
    push_field(out, STRUCT, 4);
    push_endpoint(out, "", Some(addr));
    out.push(0);
}

fn push_endpoint(out: &mut Vec<u8>, service: &str, addr: Option<SocketAddr>) {
    let addr = addr.map(canonical);
    let v4 = match addr {
        Some((IpAddr::V4(ip), _)) => u32::from(ip),
        _ => 0,
    };
    push_field(out, I32, 1);
    out.extend_from_slice(&v4.to_be_bytes());
    push_field(out, I16, 2);
    out.extend_from_slice(&addr.map_or(0, |(_, port)| port).to_be_bytes());
    push_field(out, STRING, 3);
    push_bytes(out, service.as_bytes());
    if let Some((IpAddr::V6(ip), _)) = addr {
        push_field(out, STRING, 4);
        push_bytes(out, &ip.octets());
    }
    out.push(0);
}

fn push_field(out: &mut Vec<u8>, kind: u8, id: u16) {
    out.push(kind);
    out.extend_from_slice(&id.to_be_bytes());
}

fn push_list(out: &mut Vec<u8>, kind: u8, len: usize) {
    out.push(kind);
    push_i32(out, length(len));
}

fn push_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    push_i32(out, length(bytes.len()));
    out.extend_from_slice(bytes);
}

fn push_i32(out: &mut Vec<u8>, n: i32) {
    out.extend_from_slice(&n.to_be_bytes());
}

fn push_i64(out: &mut Vec<u8>, n: i64) {
    out.extend_from_slice(&n.to_be_bytes());
}

fn length(n: usize) -> i32 {
    i32::try_from(n).expect("a batch is far smaller than 2 GiB")
}

/// What a collector says to a `Log`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// All of it was taken.
    Ok,
    /// None of it was taken, and it shall come again.
    TryLater,
    /// None of it was taken: the collector stumbled over a part of it.
    Exception,
}

/// The bytes are not the reply to this call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused(&'static str);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Refused {}

/// Longer replies are none.
const LONGEST: usize = 16 * 1024;

/// The reply to the call of this number, in the bytes that have come so far; `None` when there are more to come.
pub fn reply(bytes: &[u8], sequence: i32) -> Result<Option<Reply>, Refused> {
    let Some(length) = bytes.first_chunk::<4>() else { return Ok(None) };
    let length = usize::try_from(i32::from_be_bytes(*length)).map_err(|_| Refused("a frame of negative length"))?;
    if length > LONGEST {
        return Err(Refused("a frame that is too long"));
    }
    if bytes.len() < 4 + length {
        return Ok(None);
    }
    if bytes.len() > 4 + length {
        return Err(Refused("more than one reply"));
    }
    let mut left = &bytes[4..];
    read(&mut left, sequence).ok_or(Refused("not the reply to the call")).map(Some)
}

/// The message in a frame. Anything that is not understood is `None`.
fn read(left: &mut &[u8], sequence: i32) -> Option<Reply> {
    let head = take_i32(left)?;
    let kind = if head < 0 {
        // Strict: the version, then the kind.
        if head.cast_unsigned() & 0xffff_0000 != 0x8001_0000 || take_bytes(left)? != b"Log" {
            return None;
        }
        head & 0xff
    } else {
        // The old header begins with the name.
        let name = left.split_off(..usize::try_from(head).ok()?)?;
        if name != b"Log" {
            return None;
        }
        i32::from(*left.split_off_first()?)
    };
    if take_i32(left)? != sequence {
        return None;
    }
    match kind {
        3 => Some(Reply::Exception),
        2 => loop {
            match *left.split_off_first()? {
                0 => break None,
                I32 => {
                    let id = take_i16(left)?;
                    let value = take_i32(left)?;
                    if id == 0 {
                        break match value {
                            0 => Some(Reply::Ok),
                            1 => Some(Reply::TryLater),
                            _ => None,
                        };
                    }
                }
                // `Log` has no other result.
                _ => break None,
            }
        },
        _ => None,
    }
}

fn take_i16(left: &mut &[u8]) -> Option<i16> {
    left.split_off(..2).map(|bytes| i16::from_be_bytes(bytes.try_into().expect("two bytes")))
}

fn take_i32(left: &mut &[u8]) -> Option<i32> {
    left.split_off(..4).map(|bytes| i32::from_be_bytes(bytes.try_into().expect("four bytes")))
}

fn take_bytes<'a>(left: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(take_i32(left)?).ok()?;
    left.split_off(..length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::tests::trace;
    use proptest::prelude::*;

    fn framed(body: &[u8]) -> Vec<u8> {
        [&length(body.len()).to_be_bytes(), body].concat()
    }

    fn answer(kind: u8, sequence: i32, result: &[u8]) -> Vec<u8> {
        framed(&[&[0x80, 1, 0, kind][..], &[0, 0, 0, 3], b"Log", &sequence.to_be_bytes(), result].concat())
    }

    #[test]
    fn a_call_is_written_as_thrift_asks() {
        let mut out = Vec::new();
        push_log(&mut out, 7, [&b"ab"[..], b"c"].into_iter());
        let expected = [
            &[0x80, 1, 0, 1, 0, 0, 0, 3][..],
            b"Log",
            &[0, 0, 0, 7, 15, 0, 1, 12, 0, 0, 0, 2, 11, 0, 1, 0, 0, 0, 6],
            b"zipkin",
            &[11, 0, 2, 0, 0, 0, 2],
            b"ab",
            &[0, 11, 0, 1, 0, 0, 0, 6],
            b"zipkin",
            &[11, 0, 2, 0, 0, 0, 1],
            b"c",
            &[0, 0],
        ];
        assert_eq!(out, framed(&expected.concat()));
    }

    #[test]
    fn a_span_carries_its_ids_times_and_facts() {
        let trace = trace();
        let spans = trace.spans();
        let text = message(&spans[1]);
        assert_eq!(text.last(), Some(&b'\n'));
        let thrift = BASE64.decode(&text[..text.len() - 1]).unwrap();
        let starts = [&[I64, 0, 1][..], &[0, 0, 0, 0, 0, 0, 0, 1], &[STRING, 0, 3, 0, 0, 0, 0], &[I64, 0, 4]].concat();
        assert!(thrift.starts_with(&starts), "{thrift:?}");
        let holds = |part: &[u8]| thrift.windows(part.len()).any(|window| window == part);
        assert!(holds(
            &[
                &[STRING, 0, 1, 0, 0, 0, 16][..],
                b"http.status_code",
                &[STRING, 0, 2, 0, 0, 0, 3],
                b"200",
                &[I32, 0, 3, 0, 0, 0, 6]
            ]
            .concat()
        ));
        assert!(holds(
            &[&[STRING, 0, 1, 0, 0, 0, 2][..], b"sa", &[STRING, 0, 2, 0, 0, 0, 1, 1, I32, 0, 3, 0, 0, 0, 0]].concat()
        ));
        assert!(holds(&[&[STRING, 0, 4, 0, 0, 0, 16][..], &[0; 15], &[1, 0]].concat()), "IPv6 of the server");
        assert!(thrift.ends_with(&[&[I64, 0, 11][..], &850_i64.to_be_bytes(), &[0]].concat()));
    }

    #[test]
    fn replies_are_told_apart() {
        let ok = answer(2, 7, &[I32, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(reply(&ok, 7), Ok(Some(Reply::Ok)));
        for n in 0..ok.len() {
            assert_eq!(reply(&ok[..n], 7), Ok(None), "{n}");
        }
        assert_eq!(reply(&answer(2, 7, &[I32, 0, 0, 0, 0, 0, 1, 0]), 7), Ok(Some(Reply::TryLater)));
        assert_eq!(reply(&answer(3, 7, &[I32, 0, 2, 0, 0, 0, 6, 0]), 7), Ok(Some(Reply::Exception)));
        let old = framed(&[&[0, 0, 0, 3][..], b"Log", &[2, 0, 0, 0, 7, I32, 0, 0, 0, 0, 0, 0, 0]].concat());
        assert_eq!(reply(&old, 7), Ok(Some(Reply::Ok)));
        let other = Err(Refused("not the reply to the call"));
        assert_eq!(reply(&ok, 8), other);
        assert_eq!(reply(&answer(2, 7, &[0]), 7), other);
        assert_eq!(reply(&answer(2, 7, &[I32, 0, 0, 0, 0, 0, 9, 0]), 7), other);
        assert_eq!(reply(&framed(b""), 7), other);
        assert_eq!(reply(&[0xff; 8], 7), Err(Refused("a frame of negative length")));
        assert_eq!(reply(b"HTTP/1.1 400", 7), Err(Refused("a frame that is too long")));
        assert_eq!(reply(&[&ok[..], &ok[..]].concat(), 7), Err(Refused("more than one reply")));
    }

    proptest! {
        #[test]
        fn no_reply_is_too_strange(bytes: Vec<u8>, sequence: i32) {
            let _ = reply(&bytes, sequence);
            let _ = reply(&framed(&bytes), sequence);
        }
    }
}
