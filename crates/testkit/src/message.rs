//! HTTP/1.1 messages as a test wants to look at them, and the reading of them from a socket.
//!
//! Nothing is corrected or normalised: names keep their case, values their bytes, so that a test sees what was on the wire.

use std::io::{self, BufRead, Read};

/// The header lines of a message, in order, names in the case that was on the wire.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// The first value of `name`, whatever its case.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// All values of `name`, in order.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Every line as it came.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    fn length(&self) -> io::Result<Option<usize>> {
        let Some(text) = self.get("content-length") else { return Ok(None) };
        text.trim().parse().map(Some).map_err(|_| bad(format!("content-length {text:?}")))
    }

    fn is_chunked(&self) -> bool {
        self.all("transfer-encoding").any(|value| value.to_ascii_lowercase().contains("chunked"))
    }
}

/// A request that an [`Upstream`](crate::Upstream) was sent.
#[derive(Clone, Debug)]
pub struct Request {
    /// `GET`
    pub method: String,
    /// The target as it was on the wire.
    pub target: String,
    /// `HTTP/1.1`
    pub version: String,
    /// The header lines.
    pub headers: Headers,
    /// The body, without its chunk sizes.
    pub body: Vec<u8>,
    /// The trailer lines of a chunked body.
    pub trailers: Headers,
}

/// A response that a [`Downstream`](crate::Downstream) got.
#[derive(Clone, Debug)]
pub struct Reply {
    /// 200
    pub status: u16,
    /// `OK`
    pub reason: String,
    /// `HTTP/1.1`
    pub version: String,
    /// The header lines.
    pub headers: Headers,
    /// The body, without its chunk sizes.
    pub body: Vec<u8>,
    /// The sizes of the chunks, in order; empty when the body was not chunked.
    pub chunks: Vec<usize>,
    /// The trailer lines of a chunked body.
    pub trailers: Headers,
}

impl Reply {
    /// The body as text.
    ///
    /// # Panics
    /// When it is not UTF-8.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is text")
    }
}

pub(crate) fn bad(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

/// A line without its end; `None` when the stream ended before its first byte.
fn line(from: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut bytes = Vec::new();
    if from.read_until(b'\n', &mut bytes)? == 0 {
        return Ok(None);
    }
    if bytes.pop() != Some(b'\n') {
        return Err(bad("the stream ended within a line"));
    }
    if bytes.last() == Some(&b'\r') {
        bytes.pop();
    }
    Ok(Some(match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(not_utf8) => not_utf8.into_bytes().iter().map(|byte| char::from(*byte)).collect(),
    }))
}

fn headers(from: &mut impl BufRead) -> io::Result<Headers> {
    let mut lines = Vec::new();
    loop {
        let text = line(from)?.ok_or_else(|| bad("the stream ended within the headers"))?;
        if text.is_empty() {
            return Ok(Headers(lines));
        }
        let (name, value) =
            text.split_once(':').ok_or_else(|| bad(format!("a header line without a colon: {text:?}")))?;
        lines.push((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()));
    }
}

struct Body {
    bytes: Vec<u8>,
    chunks: Vec<usize>,
    trailers: Headers,
}

fn body(from: &mut impl BufRead, headers_read: &Headers, until_close: bool) -> io::Result<Body> {
    let mut body = Body { bytes: Vec::new(), chunks: Vec::new(), trailers: Headers::default() };
    if headers_read.is_chunked() {
        loop {
            let text = line(from)?.ok_or_else(|| bad("the stream ended within a chunked body"))?;
            let digits = text.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(digits, 16).map_err(|_| bad(format!("chunk size {text:?}")))?;
            if size == 0 {
                body.trailers = headers(from)?;
                return Ok(body);
            }
            read_exactly(from, size, &mut body.bytes)?;
            body.chunks.push(size);
            if line(from)?.as_deref() != Some("") {
                return Err(bad("a chunk is longer than its size"));
            }
        }
    }
    match headers_read.length()? {
        Some(length) => read_exactly(from, length, &mut body.bytes)?,
        None if until_close => {
            from.read_to_end(&mut body.bytes)?;
        }
        None => {}
    }
    Ok(body)
}

fn read_exactly(from: &mut impl BufRead, length: usize, into: &mut Vec<u8>) -> io::Result<()> {
    let got = from.by_ref().take(length as u64).read_to_end(into)?;
    if got == length { Ok(()) } else { Err(bad(format!("the stream ended after {got} of {length} bytes of a body"))) }
}

/// The next request, body included; `None` when the peer closed before its first byte.
pub(crate) fn read_request(
    from: &mut impl BufRead,
    go_on: impl FnOnce() -> io::Result<()>,
) -> io::Result<Option<Request>> {
    let Some(first) = line(from)? else { return Ok(None) };
    let mut words = first.splitn(3, ' ');
    let (Some(method), Some(target), Some(version)) = (words.next(), words.next(), words.next()) else {
        return Err(bad(format!("request line {first:?}")));
    };
    let (method, target, version) = (method.to_owned(), target.to_owned(), version.to_owned());
    let headers = headers(from)?;
    if headers.get("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue")) {
        go_on()?;
    }
    let body = body(from, &headers, false)?;
    Ok(Some(Request { method, target, version, headers, body: body.bytes, trailers: body.trailers }))
}

/// The next final response to a request of that method; informational ones are passed over.
pub(crate) fn read_reply(from: &mut impl BufRead, method: &str) -> io::Result<Reply> {
    loop {
        let first =
            line(from)?.ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "closed without a response"))?;
        let mut words = first.splitn(3, ' ');
        let (Some(version), Some(status)) = (words.next(), words.next()) else {
            return Err(bad(format!("status line {first:?}")));
        };
        let (version, reason) = (version.to_owned(), words.next().unwrap_or_default().to_owned());
        let status: u16 = status.parse().map_err(|_| bad(format!("status line {first:?}")))?;
        let headers = headers(from)?;
        if (100..200).contains(&status) && status != 101 {
            continue;
        }
        let bare = method == "HEAD" || status == 101 || status == 204 || status == 304;
        let body = if bare {
            Body { bytes: Vec::new(), chunks: Vec::new(), trailers: Headers::default() }
        } else {
            body(from, &headers, true)?
        };
        let Body { bytes, chunks, trailers } = body;
        return Ok(Reply { status, reason, version, headers, body: bytes, chunks, trailers });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunked_reply_is_put_together_and_its_sizes_kept() {
        let mut wire: &[u8] =
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nX-A: 1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1;x=y\r\nd\r\n0\r\nT: 9\r\n\r\n";
        let reply = read_reply(&mut wire, "GET").unwrap();
        assert_eq!((reply.status, reply.text(), reply.chunks.as_slice()), (200, "abcd", [3, 1].as_slice()));
        assert_eq!((reply.headers.get("x-a"), reply.trailers.get("t")), (Some("1"), Some("9")));
        assert!(wire.is_empty());
    }

    #[test]
    fn a_reply_that_is_cut_off_is_an_error() {
        for wire in
            ["HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", "HTTP/1.1 200", "HTTP/1.1 200 OK\r\nA: b\r\n", ""]
        {
            assert!(read_reply(&mut wire.as_bytes(), "GET").is_err(), "{wire:?}");
        }
    }

    #[test]
    fn a_head_reply_has_no_body_whatever_its_length_says() {
        let mut wire: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n";
        assert_eq!(read_reply(&mut wire, "HEAD").unwrap().body, b"");
    }

    #[test]
    fn a_request_keeps_the_case_and_order_of_its_lines() {
        let mut wire: &[u8] = b"POST /a?b HTTP/1.1\r\nHoSt: web\r\ncontent-length: 2\r\n\r\nhi";
        let request = read_request(&mut wire, || Ok(())).unwrap().unwrap();
        let lines: Vec<_> = request.headers.iter().collect();
        assert_eq!(lines, [("HoSt", "web"), ("content-length", "2")]);
        assert_eq!(
            (request.method.as_str(), request.target.as_str(), request.body.as_slice()),
            ("POST", "/a?b", b"hi".as_slice())
        );
        assert!(read_request(&mut wire, || Ok(())).unwrap().is_none());
    }
}
