//! The bytes of a body, out of its framing and into it (RFC 9112 §7.1).
//!
//! Trailers end with their hop; extensions of chunks are passed over. Both are limited: what is not data costs its receiver
//! more than its sender.

use bytes::{Buf, Bytes, BytesMut};

use super::parse::Length;

/// How many bytes of extensions and trailers a body may have.
const MOST_BESIDES: usize = 16 * 1024;

/// What is left of a body.
#[derive(Debug)]
pub(crate) enum Decoder {
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked(Chunks),
    /// All until the connection ends.
    UntilClose,
}

/// Where in a chunked body we are, and how much of it was neither data nor size.
#[derive(Debug)]
pub(crate) struct Chunks {
    state: State,
    besides: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In a chunk's size, behind so many digits.
    Size(u64, u8),
    /// Behind it: blanks, or an extension.
    Blank(u64),
    Extension(u64),
    SizeEnd(u64),
    Data(u64),
    DataEnd,
    DataEndLf,
    /// At the beginning of a line behind the last chunk.
    Line,
    TrailerName,
    TrailerValue,
    TrailerEnd,
    LastLf,
    Done,
}

/// What came of the bytes that are there.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A piece of the body, not empty.
    Data(Bytes),
    /// More is needed.
    More,
    /// The body has ended.
    End,
}

/// The chunks are none.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadChunk;

impl Decoder {
    pub(crate) fn new(length: Length) -> Self {
        match length {
            Length::Known(n) => Self::Length(n),
            Length::Chunked => Self::Chunked(Chunks { state: State::Size(0, 0), besides: 0 }),
            Length::UntilClose => Self::UntilClose,
        }
    }

    /// How many bytes of the body there may be in the next read, at most `most`.
    pub(crate) fn wanted(&self, most: usize) -> usize {
        match self {
            Self::Length(left) => usize::try_from(*left).map_or(most, |left| left.min(most)),
            Self::Chunked(_) | Self::UntilClose => most,
        }
    }

    /// Whether nothing of the body is left.
    pub(crate) fn is_done(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(chunks) => chunks.state == State::Done,
            Self::UntilClose => false,
        }
    }

    /// Whether the body ends well where the connection does.
    pub(crate) fn ends_with_connection(&self) -> bool {
        matches!(self, Self::UntilClose)
    }

    /// Takes what it can use from `input`.
    pub(crate) fn decode(&mut self, input: &mut BytesMut) -> Result<Step, BadChunk> {
        match self {
            Self::Length(0) => Ok(Step::End),
            _ if input.is_empty() && !self.is_done() => Ok(Step::More),
            Self::Length(left) => Ok(Step::Data(take(input, left))),
            Self::Chunked(chunks) => chunks.decode(input),
            Self::UntilClose => Ok(Step::Data(input.split().freeze())),
        }
    }
}

/// As much of `input` as belongs to a piece of which `left` bytes are left.
fn take(input: &mut BytesMut, left: &mut u64) -> Bytes {
    let length = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
    *left -= length as u64;
    if length == input.len() { input.split().freeze() } else { input.split_to(length).freeze() }
}

impl Chunks {
    fn decode(&mut self, input: &mut BytesMut) -> Result<Step, BadChunk> {
        loop {
            if let State::Data(left) = &mut self.state {
                if input.is_empty() {
                    return Ok(Step::More);
                }
                let data = take(input, left);
                if *left == 0 {
                    self.state = State::DataEnd;
                    // What follows the data most often is there: then the end of the body is known with its last piece.
                    self.pass(input)?;
                }
                return Ok(Step::Data(data));
            }
            self.pass(input)?;
            match self.state {
                State::Done => return Ok(Step::End),
                State::Data(_) => {}
                _ => return Ok(Step::More),
            }
        }
    }

    /// Goes on to the next data, or the end.
    fn pass(&mut self, input: &mut BytesMut) -> Result<(), BadChunk> {
        let mut used = 0;
        for &byte in &input[..] {
            if matches!(self.state, State::Data(_) | State::Done) {
                break;
            }
            self.state = self.next(byte).ok_or(BadChunk)?;
            used += 1;
        }
        input.advance(used);
        Ok(())
    }

    fn next(&mut self, byte: u8) -> Option<State> {
        Some(match (self.state, byte) {
            (State::Size(size, digits @ 0..16), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = char::from(byte).to_digit(16)?;
                State::Size(size << 4 | u64::from(digit), digits + 1)
            }
            (State::Size(size, 1..) | State::Blank(size), b' ' | b'\t') => {
                self.count()?;
                State::Blank(size)
            }
            (State::Size(size, 1..) | State::Blank(size), b';') => State::Extension(size),
            (State::Size(size, 1..) | State::Blank(size) | State::Extension(size), b'\r') => State::SizeEnd(size),
            (State::Extension(size), _) if byte != b'\n' => {
                self.count()?;
                State::Extension(size)
            }
            (State::SizeEnd(0), b'\n') => State::Line,
            (State::SizeEnd(size), b'\n') => State::Data(size),
            (State::DataEnd, b'\r') => State::DataEndLf,
            (State::DataEndLf, b'\n') => State::Size(0, 0),
            (State::Line, b'\r') => State::LastLf,
            (State::LastLf, b'\n') => State::Done,
            (State::TrailerName, b':') => State::TrailerValue,
            (State::Line | State::TrailerName, 0x21..=0x7e) => {
                self.count()?;
                (byte != b':').then_some(State::TrailerName)?
            }
            (State::TrailerValue, b'\r') => State::TrailerEnd,
            (State::TrailerValue, _) if byte != b'\n' && byte != 0 => {
                self.count()?;
                State::TrailerValue
            }
            (State::TrailerEnd, b'\n') => State::Line,
            _ => return None,
        })
    }

    fn count(&mut self) -> Option<()> {
        self.besides += 1;
        (self.besides <= MOST_BESIDES).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What a body comes to that arrives in these pieces, and what is left behind it.
    fn decoded<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<(Vec<u8>, bool, Vec<u8>), BadChunk> {
        let (mut decoder, mut input, mut body) = (Decoder::new(Length::Chunked), BytesMut::new(), Vec::new());
        for piece in pieces {
            input.extend_from_slice(piece);
            while let Step::Data(data) = decoder.decode(&mut input)? {
                body.extend_from_slice(&data);
            }
        }
        Ok((body, decoder.is_done(), input.to_vec()))
    }

    #[test]
    fn chunks_with_all_that_may_be_in_them() {
        for (text, body) in [
            ("0\r\n\r\n", ""),
            ("4\r\nbody\r\n0\r\n\r\n", "body"),
            ("0004 \r\nbody\r\n1;a=\"b\"\r\n!\r\n00\r\n\r\n", "body!"),
            ("A\r\n0123456789\r\n0\r\nX-Sum: 1\r\nY:\r\n\r\n", "0123456789"),
        ] {
            let all = format!("{text}GET");
            assert_eq!(decoded([all.as_bytes()]), Ok((body.into(), true, b"GET".to_vec())), "{text:?}");
            for at in 0..text.len() {
                assert_eq!(decoded([&all.as_bytes()[..at]]).map(|d| d.1), Ok(false), "{text:?} {at}");
            }
        }
    }

    #[test]
    fn what_is_no_chunk() {
        let long = format!("1;{}", "x".repeat(MOST_BESIDES + 1));
        let trailer = format!("0\r\nX: {}", "x".repeat(MOST_BESIDES + 1));
        for text in [
            "zz\r\n",
            "\r\n",
            "4\nbody",
            "4\r\nbodyx",
            "-1\r\n",
            "1 1\r\n",
            "10000000000000000\r\n",
            "00000000000000001\r\n",
            "4;\nx",
            "0\r\n\n",
            "0\r\n: x\r\n",
            "0\r\nnocolon\r\n",
            "0\r\nx: a\nb: c\r\n",
            &long,
            &trailer,
        ] {
            assert_eq!(decoded([text.as_bytes()]), Err(BadChunk), "{text:?}");
        }
    }

    #[test]
    fn a_length_is_that_many_bytes() {
        let mut decoder = Decoder::new(Length::Known(6));
        let mut input = BytesMut::from("bod");
        assert_eq!(decoder.decode(&mut input), Ok(Step::Data("bod".into())));
        assert_eq!(decoder.decode(&mut input), Ok(Step::More));
        input.extend_from_slice(b"y!!GET");
        assert_eq!(decoder.decode(&mut input), Ok(Step::Data("y!!".into())));
        assert!(decoder.is_done());
        assert_eq!(decoder.decode(&mut input), Ok(Step::End));
        assert_eq!(input, "GET");
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..6),
            cuts in prop::collection::vec(1..20_usize, 1..60),
        ) {
            let mut text = Vec::new();
            for chunk in &chunks {
                text.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                text.extend_from_slice(chunk);
                text.extend_from_slice(b"\r\n");
            }
            text.extend_from_slice(b"0\r\n\r\nrest");
            let (mut pieces, mut left) = (Vec::new(), &text[..]);
            for cut in cuts {
                let (piece, rest) = left.split_at(cut.min(left.len()));
                pieces.push(piece);
                left = rest;
            }
            pieces.push(left);
            prop_assert_eq!(decoded(pieces), Ok((chunks.concat(), true, b"rest".to_vec())));
        }

        #[test]
        fn nothing_is_too_strange(text in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decoded([&text[..]]);
        }
    }
}
