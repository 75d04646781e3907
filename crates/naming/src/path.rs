//! A path: the segments of a name, `/svc/web`. Owns their storage, their order and their two text forms (what is read
//! and what is shown); the grammar's errors come from `parse.rs`.
//!
//! Contract with Linkerd: a segment is any non-empty run of bytes; a segment with a byte outside
//! `0-9 A-Z a-z _ : . # $ % -` is shown with *every* byte escaped (`web/x` prints `\x77\x65\x62\x2f\x78`), because
//! metric keys, client names and headers are made from that text.

use std::cmp::Ordering;
use std::fmt::{self, Write as _};
use std::str::FromStr;
use std::sync::Arc;

use crate::parse::{ParseError, Parser};

/// A name's segments. Cloning copies a pointer.
///
/// The segments lie one after the other in one buffer, each behind its length, so that equality, hashing and
/// [`Path::starts_with`] are comparisons of bytes: paths are the keys of the binding caches.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Path(Arc<[u8]>);

impl Path {
    /// The path without segments, shown as `/`.
    pub fn empty() -> Self {
        Self::default()
    }

    /// Reads `/svc/web`; bytes that can't stand for themselves are written `\x2f`.
    pub fn read(text: &str) -> Result<Self, ParseError> {
        let mut parser = Parser::new(text);
        let path = parser.path()?;
        parser.end()?;
        Ok(path)
    }

    /// A path of these segments, taken literally. Empty ones are left out: the grammar can't express them.
    pub fn from_segments(segments: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Self {
        let mut buffer = Buffer::default();
        for segment in segments {
            push(&mut buffer, segment.as_ref());
        }
        Self(buffer.as_slice().into())
    }

    /// The segments in order.
    pub fn segments(&self) -> impl Iterator<Item = &[u8]> + Clone {
        Segments(&self.0)
    }

    /// The segment at this place, if there is one and it is UTF-8.
    pub fn segment_str(&self, at: usize) -> Option<&str> {
        self.segments().nth(at).and_then(|segment| std::str::from_utf8(segment).ok())
    }

    /// How many segments there are.
    pub fn len(&self) -> usize {
        self.segments().count()
    }

    /// Whether this is the path without segments.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `prefix`'s segments are the first of this path.
    pub fn starts_with(&self, prefix: &Self) -> bool {
        self.0.starts_with(&prefix.0)
    }

    /// The first `n` segments, or all of them.
    #[must_use]
    pub fn take(&self, n: usize) -> Self {
        let at = self.offset(n);
        if at == self.0.len() { self.clone() } else { Self(self.0[..at].into()) }
    }

    /// What is left behind the first `n` segments.
    #[must_use]
    pub fn drop(&self, n: usize) -> Self {
        let at = self.offset(n);
        if at == 0 { self.clone() } else { Self(self.0[at..].into()) }
    }

    /// This path's segments, then the other's.
    #[must_use]
    pub fn concat(&self, other: &Self) -> Self {
        match (self.is_empty(), other.is_empty()) {
            (_, true) => self.clone(),
            (true, _) => other.clone(),
            _ => {
                let mut both = Buffer::default();
                both.extend(&self.0);
                both.extend(&other.0);
                Self(both.as_slice().into())
            }
        }
    }

    /// The text form, `/svc/web`; `/` when empty.
    pub fn show(&self) -> String {
        self.to_string()
    }

    /// One segment in its text form.
    pub fn show_segment(segment: &[u8]) -> String {
        let mut text = String::with_capacity(segment.len());
        // Writing to a string can't fail.
        let _ = write_segment(segment, &mut text);
        text
    }

    /// Whether this byte of a segment stands for itself in the text form.
    pub fn is_showable(byte: u8) -> bool {
        byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':' | b'.' | b'#' | b'$' | b'%' | b'-')
    }

    /// The place in the buffer behind the first `n` segments.
    fn offset(&self, n: usize) -> usize {
        let mut rest = Segments(&self.0);
        for _ in 0..n {
            if rest.next().is_none() {
                break;
            }
        }
        self.0.len() - rest.0.len()
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_char('/');
        }
        for segment in self.segments() {
            f.write_char('/')?;
            write_segment(segment, f)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Path({self})")
    }
}

impl FromStr for Path {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::read(text)
    }
}

impl Ord for Path {
    /// Segment by segment, so that listings sort as people expect.
    fn cmp(&self, other: &Self) -> Ordering {
        self.segments().cmp(other.segments())
    }
}

impl PartialOrd for Path {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Bytes of a length in the buffer.
const LENGTH: usize = size_of::<u32>();

/// Where a path is put together: names are short, so that this needs no memory of its own nearly always. Every request
/// makes one.
enum Buffer {
    Short([u8; Self::SHORT], usize),
    Long(Vec<u8>),
}

impl Buffer {
    const SHORT: usize = 120;

    fn extend(&mut self, bytes: &[u8]) {
        match self {
            Self::Short(buffer, len) => match buffer.get_mut(*len..*len + bytes.len()) {
                Some(place) => {
                    place.copy_from_slice(bytes);
                    *len += bytes.len();
                }
                None => *self = Self::Long([self.as_slice(), bytes].concat()),
            },
            Self::Long(buffer) => buffer.extend_from_slice(bytes),
        }
    }

    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Short(buffer, len) => &buffer[..*len],
            Self::Long(buffer) => buffer,
        }
    }
}

impl Default for Buffer {
    fn default() -> Self {
        Self::Short([0; Self::SHORT], 0)
    }
}

fn push(buffer: &mut Buffer, segment: &[u8]) {
    if segment.is_empty() {
        return;
    }
    let length = u32::try_from(segment.len()).expect("whoever reads names bounds them far below 4 GiB");
    buffer.extend(&length.to_le_bytes());
    buffer.extend(segment);
}

#[derive(Clone)]
struct Segments<'a>(&'a [u8]);

impl<'a> Iterator for Segments<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.0.split_first_chunk::<LENGTH>()?;
        let (segment, rest) = rest.split_at(u32::from_le_bytes(*length) as usize);
        self.0 = rest;
        Some(segment)
    }
}

pub(crate) fn write_segment(segment: &[u8], to: &mut impl fmt::Write) -> fmt::Result {
    match std::str::from_utf8(segment) {
        Ok(text) if segment.iter().all(|byte| Path::is_showable(*byte)) => to.write_str(text),
        _ => segment.iter().try_for_each(|byte| write!(to, "\\x{byte:02x}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn path(text: &str) -> Path {
        Path::read(text).unwrap()
    }

    fn error(text: &str) -> String {
        Path::read(text).unwrap_err().to_string()
    }

    #[test]
    fn reads_and_shows_what_linkerd_does() {
        assert_eq!(path("/").show(), "/");
        assert!(path("/").is_empty());
        assert_eq!(path(" /svc/web # the web\n").show(), "/svc/web");
        assert_eq!(path("/$/inet/127.1/80").len(), 4);
        assert_eq!(path(r"/a\x20b").segments().collect::<Vec<_>>(), [b"a b"]);
        assert_eq!(Path::from_segments(["svc", "web/x"]).show(), r"/svc/\x77\x65\x62\x2f\x78");
        assert_eq!(path("/a#b").show(), "/a#b");
    }

    #[test]
    fn errors_are_linkerds() {
        assert_eq!(error("bogus"), "'/' expected but 'b' found at '[b]ogus'");
        assert_eq!(error(""), "'/' expected but end of input found at '[]'");
        assert_eq!(error("/svc/"), "label char expected but end of input found at '/svc/[]'");
        assert_eq!(error("/svc//a"), "label char expected but '/' found at '/svc/[/]a'");
        assert_eq!(error("/a b"), "end of input expected but 'b' found at '/a [b]'");
        assert_eq!(error(r"/a\y"), r"'x' expected but 'y' found at '/a\[y]'");
        assert_eq!(error(r"/a\x0g"), r"hex char expected but 'g' found at '/a\x0[g]'");
        assert_eq!(error("/é"), "end of input expected but 'é' found at '/[é]'");
    }

    #[test]
    fn prefixes_are_whole_segments() {
        assert!(path("/svc/web").starts_with(&path("/svc")));
        assert!(path("/svc/web").starts_with(&Path::empty()));
        assert!(!path("/svcs/web").starts_with(&path("/svc")));
        assert!(!path("/svc").starts_with(&path("/svc/web")));
    }

    proptest! {
        #[test]
        fn read_undoes_show(segments in vec(vec(any::<u8>(), 1..60), 0..6)) {
            let path = Path::from_segments(&segments);
            prop_assert_eq!(path.segments().collect::<Vec<_>>(), segments.iter().map(|s| &s[..]).collect::<Vec<_>>());
            prop_assert_eq!(&Path::read(&path.show()).unwrap(), &path);
            prop_assert_eq!(path.len(), segments.len());
        }

        #[test]
        fn take_and_drop_are_parts_of_the_whole(segments in vec("[a-c]{1,3}", 0..6), n in 0_usize..8) {
            let path = Path::from_segments(&segments);
            prop_assert_eq!(&path.take(n).concat(&path.drop(n)), &path);
            prop_assert_eq!(path.take(n).len(), n.min(segments.len()));
            prop_assert!(path.starts_with(&path.take(n)));
        }

        #[test]
        fn order_is_by_segments(a in vec("[a-c/]{1,3}", 0..4), b in vec("[a-c/]{1,3}", 0..4)) {
            prop_assert_eq!(Path::from_segments(&a).cmp(&Path::from_segments(&b)), a.cmp(&b));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC*") {
            let _ = Path::read(&text);
        }
    }
}
