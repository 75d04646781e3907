//! The header lines of one message, as bytes.
//!
//! One buffer holds the text as it came in, with names in the case and lines in the order that the sender chose (Linkerd's
//! Netty keeps both); a short list tells where each line's name and value are in it. What is added is written behind. To
//! send the head again is then nearly one copy, and a message costs two allocations however many lines it has. Looking a
//! name up compares its length and three of its letters with those of each line, in one number ([`tag`]): a message has few
//! lines, and a real hash would cost more.

use std::fmt;

/// Spare room for what a proxy adds to a head: names, trace, `Via`.
const ROOM: usize = 512;
const ROOM_FOR_LINES: usize = 8;

/// Header lines in order. Names are compared without regard to case, and given in lower case by this program.
#[derive(Default)]
pub struct Headers {
    text: Vec<u8>,
    lines: Vec<Line>,
    seen: Present,
}

#[derive(Clone, Copy)]
struct Line {
    name: u32,
    value: u32,
    value_len: u32,
    name_len: u32,
    tag: u32,
    /// Whether the text around is `name: value CRLF`, so that it can be copied as it is.
    plain: bool,
}

impl Line {
    fn name<'a>(&self, text: &'a [u8]) -> &'a [u8] {
        &text[self.name as usize..][..self.name_len as usize]
    }

    fn value<'a>(&self, text: &'a [u8]) -> &'a [u8] {
        &text[self.value as usize..][..self.value_len as usize]
    }

    #[inline]
    fn is(&self, text: &[u8], name: &str, tag: u32) -> bool {
        self.tag == tag && self.name(text).eq_ignore_ascii_case(name.as_bytes())
    }

    /// Where the line ends, if it is plain.
    fn end(&self) -> usize {
        (self.value + self.value_len) as usize + 2
    }
}

/// What names have in common that are the same but for case: length and three letters.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "names that differ by 256 bytes are told apart by the names")]
const fn tag(name: &[u8]) -> u32 {
    let length = name.len();
    if length == 0 {
        return 0;
    }
    let letters = [name[0], name[length - 1], name[length / 2]];
    u32::from_le_bytes([length as u8, letters[0] | 0x20, letters[1] | 0x20, letters[2] | 0x20])
}

impl Headers {
    /// No lines.
    pub fn new() -> Self {
        Self::default()
    }

    /// The lines that were read out of `text`, which is no longer than `u32` can tell.
    pub(super) fn received(text: &[u8], lines: &[httparse::Header<'_>]) -> Self {
        let mut this = Self {
            text: Vec::with_capacity(text.len() + ROOM),
            lines: Vec::with_capacity(lines.len() + ROOM_FOR_LINES),
            seen: Present::default(),
        };
        this.text.extend_from_slice(text);
        let offset = |part: *const u8| part.addr() - text.as_ptr().addr();
        for line in lines {
            let (name, value) = (offset(line.name.as_ptr()), offset(line.value.as_ptr()));
            let value = if line.value.is_empty() { (name + line.name.len() + 2).min(text.len()) } else { value };
            let end = value + line.value.len();
            let plain = value == name + line.name.len() + 2
                && text.get(value - 1) == Some(&b' ')
                && text.get(end..end + 2) == Some(b"\r\n");
            let line = this.line(name, line.name.len(), value, line.value.len(), plain);
            this.lines.push(line);
        }
        this
    }

    #[expect(clippy::cast_possible_truncation, reason = "heads are shorter: HeadLimits sees to it")]
    fn line(&mut self, name: usize, name_len: usize, value: usize, value_len: usize, plain: bool) -> Line {
        let shown = &self.text[name..name + name_len];
        let tag = tag(shown);
        self.seen.note(shown, tag);
        Line {
            name: name as u32,
            value: value as u32,
            value_len: value_len as u32,
            name_len: name_len as u32,
            tag,
            plain,
        }
    }

    /// A line that is written behind what there is.
    fn written(&mut self, name: &[u8], value: &[u8]) -> Line {
        let at = self.text.len();
        self.text.reserve(name.len() + value.len() + 4);
        self.text.extend_from_slice(name);
        self.text.extend_from_slice(b": ");
        let from = self.text.len();
        self.text.extend_from_slice(value);
        if may_have_control(value) {
            // Nothing that a value is made of can end its line.
            self.text[from..].iter_mut().filter(|b| is_control(**b)).for_each(|b| *b = b' ');
        }
        self.text.extend_from_slice(b"\r\n");
        self.line(at, name.len(), from, value.len(), true)
    }

    /// How many lines there are.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Which of the headers that some layer looks for may be there: what has once been there counts.
    pub(crate) fn present(&self) -> Present {
        self.seen
    }

    /// The value of the first line of that name, which is in lower case.
    #[inline]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        let tag = tag(name.as_bytes());
        self.lines.iter().find(|line| line.is(&self.text, name, tag)).map(|line| line.value(&self.text))
    }

    /// The same as text, if it is ASCII.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(text)
    }

    /// The values of all lines of that name.
    #[inline]
    pub fn all(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        let tag = tag(name.as_bytes());
        self.lines.iter().filter(move |line| line.is(&self.text, name, tag)).map(|line| line.value(&self.text))
    }

    /// Whether there is a line of that name.
    #[inline]
    pub fn contains(&self, name: &str) -> bool {
        let tag = tag(name.as_bytes());
        self.lines.iter().any(|line| line.is(&self.text, name, tag))
    }

    /// Each line's name, in the case it has, and value.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.lines
            .iter()
            .map(|line| (std::str::from_utf8(line.name(&self.text)).unwrap_or_default(), line.value(&self.text)))
    }

    /// Makes `value` the only one of that name. Control characters in it become blanks.
    pub fn set(&mut self, name: &str, value: impl AsRef<[u8]>) {
        let tag = tag(name.as_bytes());
        let Some(first) = self.lines.iter().position(|line| line.is(&self.text, name, tag)) else {
            return self.add(name, value);
        };
        self.lines[first] = self.written(name.as_bytes(), value.as_ref());
        let text = &self.text;
        let mut at = 0;
        self.lines.retain(|line| {
            at += 1;
            at - 1 <= first || !line.is(text, name, tag)
        });
    }

    /// Adds a line. Control characters in its value become blanks.
    pub fn add(&mut self, name: &str, value: impl AsRef<[u8]>) {
        let line = self.written(name.as_bytes(), value.as_ref());
        self.lines.push(line);
    }

    /// Removes all lines of that name.
    pub fn remove(&mut self, name: &str) {
        let (text, tag) = (&self.text, tag(name.as_bytes()));
        if let Some(first) = self.lines.iter().position(|line| line.is(text, name, tag)) {
            self.lines.remove(first);
            // What follows has hardly ever a second one.
            if self.lines[first..].iter().any(|line| line.is(text, name, tag)) {
                self.lines.retain(|line| !line.is(text, name, tag));
            }
        }
    }

    /// Removes all lines whose name begins with `prefix`, which is in lower case.
    pub fn remove_prefixed(&mut self, prefix: &str) {
        let text = &self.text;
        self.lines.retain(|line| {
            let name = line.name(text);
            !name.get(..prefix.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(prefix.as_bytes()))
        });
    }

    /// What the lines take in HTTP/1.1's form.
    pub fn wire_len(&self) -> usize {
        self.lines.iter().map(|line| (line.name_len + line.value_len) as usize + 4).sum()
    }

    /// Writes the lines in HTTP/1.1's form.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let mut lines = self.lines.iter().peekable();
        while let Some(line) = lines.next() {
            if !line.plain {
                out.extend_from_slice(line.name(&self.text));
                out.extend_from_slice(b": ");
                out.extend_from_slice(line.value(&self.text));
                out.extend_from_slice(b"\r\n");
                continue;
            }
            // Lines that stand one behind the other are one copy.
            let mut end = line.end();
            while let Some(next) = lines.next_if(|next| next.plain && next.name as usize == end) {
                end = next.end();
            }
            out.extend_from_slice(&self.text[line.name as usize..end]);
        }
    }
}

impl Clone for Headers {
    /// With room for what is added to a copy.
    fn clone(&self) -> Self {
        let mut text = Vec::with_capacity(self.text.len() + ROOM / 2);
        text.extend_from_slice(&self.text);
        let mut lines = Vec::with_capacity(self.lines.len() + ROOM_FOR_LINES);
        lines.extend_from_slice(&self.lines);
        Self { text, lines, seen: self.seen }
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().map(|(name, value)| (name, String::from_utf8_lossy(value)))).finish()
    }
}

impl<N: AsRef<str>, V: AsRef<[u8]>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(lines: I) -> Self {
        let mut this = Self::new();
        for (name, value) in lines {
            this.add(name.as_ref(), value);
        }
        this
    }
}

/// A value as text, if it is ASCII without control characters but tabs.
pub(crate) fn text(value: &[u8]) -> Option<&str> {
    value.is_ascii().then(|| std::str::from_utf8(value).ok()).flatten()
}

/// What may not be in a value (RFC 9110 §5.5).
fn is_control(byte: u8) -> bool {
    (byte < b' ' && byte != b'\t') || byte == 0x7f
}

/// Whether there is a control character, or a tab, in it: eight bytes at a time.
fn may_have_control(value: &[u8]) -> bool {
    const ONES: u64 = u64::MAX / 0xff;
    const HIGH: u64 = ONES * 0x80;
    let below = |x: u64, than: u64| x.wrapping_sub(ONES * than) & !x & HIGH;
    let (eights, rest) = value.as_chunks::<8>();
    let found = eights.iter().fold(0, |found, eight| {
        let x = u64::from_ne_bytes(*eight);
        found | below(x, 0x20) | below(x ^ (ONES * 0x7f), 1)
    });
    found != 0 || rest.iter().any(|b| is_control(*b))
}

/// Which of the headers that some layer looks for a message has.
///
/// Nearly every message has none of nearly all of them. The names are looked at once, when they come in, and whoever would
/// look for one asks here first.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Present(u16);

impl Present {
    /// Something between proxies: `l5d-…`, `finagle-…`.
    pub(crate) const CONTEXT: u16 = 1;

    /// Whether one of these is there.
    pub(crate) fn has(self, any: u16) -> bool {
        self.0 & any != 0
    }

    fn note(&mut self, name: &[u8], tag: u32) {
        let begins = |what: &str| name.get(..what.len()).is_some_and(|n| n.eq_ignore_ascii_case(what.as_bytes()));
        self.0 |= match name {
            [b'l' | b'L' | b'f' | b'F', ..] if begins("l5d-") || begins("finagle-") => Self::CONTEXT,
            _ => Self::known(name, tag),
        };
    }
}

/// Gives each name its bit, and [`Present`] the look for them: by tag first, and by the whole name only where that fits.
macro_rules! present {
    ($($kind:ident = $bit:literal: $name:literal),* $(,)?) => {
        impl Present {
            $(pub(crate) const $kind: u16 = 1 << $bit;)*

            fn known(name: &[u8], of_name: u32) -> u16 {
                $(const $kind: u32 = tag($name.as_bytes());)*
                match of_name {
                    $($kind if name.eq_ignore_ascii_case($name.as_bytes()) => Self::$kind,)*
                    _ => 0,
                }
            }
        }
    };
}

present! {
    VIA = 1: "via",
    EXPECT = 2: "expect",
    ACCEPT_ENCODING = 3: "accept-encoding",
    CONTENT_LENGTH = 4: "content-length",
    TRANSFER_ENCODING = 5: "transfer-encoding",
    CONNECTION = 6: "connection",
    KEEP_ALIVE = 7: "keep-alive",
    TE = 8: "te",
    TRAILER = 9: "trailer",
    UPGRADE = 10: "upgrade",
    PROXY_AUTHENTICATE = 11: "proxy-authenticate",
    PROXY_AUTHORIZATION = 12: "proxy-authorization",
    FORWARDED_CLIENT_CERT = 13: "x-forwarded-client-cert",
}

/// Writes a `content-length` line.
pub(super) fn push_length(text: &mut Vec<u8>, length: usize) {
    text.extend_from_slice(b"content-length: ");
    text.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
    text.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Headers {
        let mut lines = [httparse::EMPTY_HEADER; 32];
        let (_, lines) = httparse::parse_headers(text.as_bytes(), &mut lines).unwrap().unwrap();
        Headers::received(text.as_bytes(), lines)
    }

    fn written(headers: &Headers) -> String {
        let mut out = Vec::new();
        headers.encode(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn order_and_case_are_kept() {
        let mut headers = read("Host: a\r\nX-One:  1 \r\nCookie: a=b\r\nx-one: 2\r\nEmpty:\r\nETag: \"x\"\r\n\r\n");
        assert_eq!(written(&headers), "Host: a\r\nX-One: 1\r\nCookie: a=b\r\nx-one: 2\r\nEmpty: \r\nETag: \"x\"\r\n");
        assert_eq!(headers.wire_len(), written(&headers).len());
        assert_eq!(headers.get("x-one"), Some(b"1".as_slice()));
        assert_eq!(headers.all("x-one").collect::<Vec<_>>(), [b"1", b"2"]);
        assert_eq!(headers.get("empty"), Some(b"".as_slice()));
        headers.set("x-one", "3");
        headers.add("via", "1.1 linkerd");
        headers.remove("host");
        assert_eq!(written(&headers), "x-one: 3\r\nCookie: a=b\r\nEmpty: \r\nETag: \"x\"\r\nvia: 1.1 linkerd\r\n");
        assert_eq!(headers.len(), 5);
    }

    #[test]
    fn a_value_cannot_end_its_line() {
        let mut headers = Headers::new();
        headers.add("x", "a\r\nb: c\0\u{7f}\td");
        assert_eq!(written(&headers), "x: a  b: c  \td\r\n");
    }

    #[test]
    fn prefixes_are_removed_in_any_case() {
        let mut headers = read("L5d-A: 1\r\nHost: a\r\nl5d-b: 2\r\nl5\r: \r\n\r\n".replace("l5\r: \r\n", "").as_str());
        headers.remove_prefixed("l5d-");
        assert_eq!(written(&headers), "Host: a\r\n");
    }

    #[test]
    fn one_look_tells_what_is_there() {
        for (name, kind) in [
            ("connection", Present::CONNECTION),
            ("te", Present::TE),
            ("trailer", Present::TRAILER),
            ("upgrade", Present::UPGRADE),
            ("proxy-authenticate", Present::PROXY_AUTHENTICATE),
            ("proxy-authorization", Present::PROXY_AUTHORIZATION),
            ("transfer-encoding", Present::TRANSFER_ENCODING),
            ("content-length", Present::CONTENT_LENGTH),
            ("accept-encoding", Present::ACCEPT_ENCODING),
            ("expect", Present::EXPECT),
            ("via", Present::VIA),
            ("x-forwarded-client-cert", Present::FORWARDED_CLIENT_CERT),
            ("l5d-dtab", Present::CONTEXT),
            ("l5d-reqid-x", Present::CONTEXT),
            ("finagle-http-retryable-request", Present::CONTEXT),
            ("host", 0),
            ("keep-alive", Present::KEEP_ALIVE),
            ("date", 0),
            ("forwarded", 0),
        ] {
            for name in [name.to_owned(), name.to_ascii_uppercase()] {
                let headers: Headers = [("x-other", "x"), (name.as_str(), "x")].into_iter().collect();
                assert_eq!(headers.present(), Present(kind), "{name}");
            }
        }
    }

    proptest! {
        /// Against the plainest list that does the same.
        #[test]
        fn is_a_list_of_lines(
            received in prop::collection::vec(("[a-cA-C]{1,2}", "[x-z ]{0,3}"), 0..8),
            changes in prop::collection::vec((0..4u8, "[a-c]{1,2}", "[x-z]{0,3}"), 0..8),
        ) {
            let text: String = received.iter().map(|(n, v)| format!("{n}: {v}\r\n")).collect();
            let mut headers = read(&format!("{text}\r\n"));
            let mut plain: Vec<(String, String)> =
                received.iter().map(|(n, v)| (n.clone(), v.trim().to_owned())).collect();
            for (what, name, value) in &changes {
                let same = |(n, _): &(String, String)| n.eq_ignore_ascii_case(name);
                match what {
                    0 => headers.add(name, value),
                    1 => headers.set(name, value),
                    2 => headers.remove(name),
                    _ => headers.remove_prefixed(name),
                }
                match what {
                    0 => plain.push((name.clone(), value.clone())),
                    1 => match plain.iter().position(same) {
                        None => plain.push((name.clone(), value.clone())),
                        Some(at) => {
                            plain[at] = (name.clone(), value.clone());
                            let mut index = 0;
                            plain.retain(|line| { index += 1; index - 1 <= at || !same(line) });
                        }
                    },
                    2 => plain.retain(|line| !same(line)),
                    _ => plain.retain(|(n, _)| !n.to_ascii_lowercase().starts_with(name.as_str())),
                }
            }
            let expected: String = plain.iter().map(|(n, v)| format!("{n}: {v}\r\n")).collect();
            prop_assert_eq!(written(&headers), expected);
            for name in ["a", "b", "ab", "ca"] {
                let first = plain.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_bytes());
                prop_assert_eq!(headers.get(name), first);
                prop_assert_eq!(headers.contains(name), first.is_some());
            }
        }
    }
}
