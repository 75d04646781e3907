//! From bytes to heads, and what tells how long a body is (RFC 9112 §6, http-behaviour §2.1, §2.2).
//!
//! httparse reads the lines. Beyond it: the limits, also of a head that does not end; a doubt about a body's length, which is
//! refused in a request (it is how requests are smuggled) and an error in a response.

use std::mem::MaybeUninit;

use http::{Method, StatusCode, Version};
use httparse::{Error as ParseError, Header, Status};

use super::{
    Headers,
    headers::Present,
    message::{RequestHead, Target},
};

/// Nearly every head has fewer lines; others are read with a list on the heap.
const USUAL_LINES: usize = 64;
/// What a head may be longer than its headers' limit while it is incomplete: blanks around values do not count for that.
const SLACK: usize = 32 * 1024;

/// How long heads may be, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeadLimits {
    line: usize,
    headers: usize,
}

impl HeadLimits {
    /// More than any head has, and little enough for [`Headers`] to count in 32 bits.
    const MOST: usize = 1 << 30;

    /// Of a request's first line (`maxInitialLineKB`) and of header lines (`maxHeadersKB`).
    pub(crate) fn new(line: usize, headers: usize) -> Self {
        Self { line: line.min(Self::MOST), headers: headers.min(Self::MOST) }
    }
}

/// How a message tells the end of its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Length {
    /// So many bytes.
    Known(u64),
    /// The last chunk.
    Chunked,
    /// The end of the connection.
    UntilClose,
}

impl Length {
    pub(crate) const NONE: Self = Self::Known(0);
}

/// What a head says of its message and connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Framing {
    pub(crate) length: Length,
    /// Whether another message may follow on the connection.
    pub(crate) keep_alive: bool,
    /// Whether the sender of a body waits for `100 Continue`.
    pub(crate) expects_continue: bool,
}

/// A head, how its message is framed, and how many bytes it took.
pub(crate) type Parsed<H> = (H, Framing, usize);

/// Reads the head of a request. `None` if it is not there as a whole.
///
/// # Errors
/// With the status that tells the sender what is wrong.
pub(crate) fn request(bytes: &[u8], limits: HeadLimits) -> Result<Option<Parsed<RequestHead>>, StatusCode> {
    let read = with_lines(bytes, |lines| {
        let mut request = httparse::Request::new(&mut []);
        Ok(match request.parse_with_uninit_headers(bytes, lines)? {
            Status::Complete(length) => Some(complete_request(&request, bytes, length, limits)),
            Status::Partial => None,
        })
    });
    match read {
        Ok(Some(parsed)) => parsed.map(Some),
        Ok(None) => incomplete(bytes, limits).map(|()| None),
        Err(_) => {
            // A line that is too long is told as that, also where it is wrong later on.
            incomplete(bytes, limits)?;
            Err(StatusCode::BAD_REQUEST)
        }
    }
}

/// Has a head read with room for as many lines as it may have.
fn with_lines<'b, T>(
    bytes: &'b [u8],
    mut read: impl FnMut(&mut [MaybeUninit<Header<'b>>]) -> Result<T, ParseError>,
) -> Result<T, ParseError> {
    match read(&mut [const { MaybeUninit::uninit() }; USUAL_LINES]) {
        Err(ParseError::TooManyHeaders) => {
            let lines = bytes.iter().filter(|b| **b == b'\n').count();
            read(&mut vec![MaybeUninit::uninit(); lines])
        }
        read => read,
    }
}

/// Whether what there is of a head is within its limits.
pub(super) fn incomplete(bytes: &[u8], limits: HeadLimits) -> Result<(), StatusCode> {
    let begin = bytes.iter().position(|b| !matches!(b, b'\r' | b'\n')).unwrap_or(bytes.len());
    let line = bytes[begin..].iter().position(|b| *b == b'\n');
    if line.unwrap_or(bytes.len() - begin) > limits.line + "\r".len() {
        return Err(StatusCode::URI_TOO_LONG);
    }
    if bytes.len() > limits.line + limits.headers + SLACK {
        return Err(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    }
    Ok(())
}

fn complete_request(
    request: &httparse::Request<'_, '_>,
    bytes: &[u8],
    length: usize,
    limits: HeadLimits,
) -> Result<Parsed<RequestHead>, StatusCode> {
    const BAD: StatusCode = StatusCode::BAD_REQUEST;
    let (method, target) = (request.method.ok_or(BAD)?, request.path.ok_or(BAD)?);
    if method.len() + target.len() + " ".len() * 2 + "HTTP/1.1".len() > limits.line {
        return Err(StatusCode::URI_TOO_LONG);
    }
    let version = version(request.version);
    let mut headers = lines(bytes, length, request.headers);
    if headers.wire_len() > limits.headers {
        return Err(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    }
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| BAD)?;
    let target = Target::read(target).ok_or(BAD)?;
    let mut keep_alive = stays_open(&headers, version);
    let present = headers.present();
    let mut body = Length::NONE;
    if present.has(Present::TRANSFER_ENCODING) {
        if version == Version::HTTP_10 || !is_chunked(&headers) {
            return Err(BAD);
        }
        body = Length::Chunked;
        if present.has(Present::CONTENT_LENGTH) {
            headers.remove("content-length");
            keep_alive = false;
        }
    } else if present.has(Present::CONTENT_LENGTH) {
        let (length, form) = content_length(&headers).ok_or(BAD)?;
        match form {
            LengthForm::Repeated if version == Version::HTTP_11 => return Err(BAD),
            LengthForm::Plain => {}
            LengthForm::Repeated | LengthForm::Odd => headers.set("content-length", length.to_string()),
        }
        body = Length::Known(length);
    }
    let expects_continue = present.has(Present::EXPECT)
        && version == Version::HTTP_11
        && headers.get("expect").is_some_and(|v| v.eq_ignore_ascii_case(b"100-continue"));
    let framing = Framing { length: body, keep_alive, expects_continue };
    Ok((RequestHead { method, target, version, headers }, framing, length))
}

/// The head of a response, before it has a body.
#[derive(Debug)]
pub(crate) struct ResponseHead {
    pub(crate) status: StatusCode,
    pub(crate) version: Version,
    /// How long its first line was.
    pub(crate) line_len: usize,
    pub(crate) headers: Headers,
}

/// Reads the head of the response to a request of `method`. `None` if it is not there as a whole.
///
/// # Errors
/// With what is wrong.
pub(crate) fn response(
    bytes: &[u8],
    method: &Method,
    header_bytes: usize,
) -> Result<Option<Parsed<ResponseHead>>, String> {
    let config = httparse::ParserConfig::default();
    let read = with_lines(bytes, |lines| {
        let mut response = httparse::Response::new(&mut []);
        Ok(match config.parse_response_with_uninit_headers(&mut response, bytes, lines)? {
            Status::Complete(length) => Some(complete_response(&response, bytes, length, method)),
            Status::Partial => None,
        })
    });
    match read {
        Ok(Some(parsed)) => parsed.map(Some),
        Ok(None) if bytes.len() > header_bytes + SLACK => Err(too_long(header_bytes)),
        Ok(None) => Ok(None),
        Err(e) => Err(format!("the response can't be read: {e}")),
    }
}

/// What is said of a response whose headers are beyond the limit.
pub(crate) fn too_long(header_bytes: usize) -> String {
    format!("the response's headers are longer than {header_bytes} bytes")
}

fn complete_response(
    response: &httparse::Response<'_, '_>,
    bytes: &[u8],
    length: usize,
    method: &Method,
) -> Result<Parsed<ResponseHead>, String> {
    let status = response.code.and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.ok_or_else(|| "the response has no status".to_owned())?;
    let version = version(response.version);
    let mut headers = lines(bytes, length, response.headers);
    let mut keep_alive = stays_open(&headers, version);
    let present = headers.present();
    let bodiless = *method == Method::HEAD
        || status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let body = if bodiless {
        Length::NONE
    } else if present.has(Present::TRANSFER_ENCODING) {
        keep_alive &= version == Version::HTTP_11 && !present.has(Present::CONTENT_LENGTH);
        headers.remove("content-length");
        if is_chunked(&headers) { Length::Chunked } else { Length::UntilClose }
    } else if present.has(Present::CONTENT_LENGTH) {
        match content_length(&headers) {
            Some((length, LengthForm::Plain)) => Length::Known(length),
            Some((length, LengthForm::Repeated | LengthForm::Odd)) => {
                headers.set("content-length", length.to_string());
                Length::Known(length)
            }
            None => return Err("the response has more than one length, or one that is no number".to_owned()),
        }
    } else {
        Length::UntilClose
    };
    keep_alive &= body != Length::UntilClose;
    let framing = Framing { length: body, keep_alive, expects_continue: false };
    let line_end = if response.headers.is_empty() { "\r\n\r\n" } else { "\r\n" };
    let line_len = lines_from(bytes, length, response.headers).saturating_sub(line_end.len());
    Ok((ResponseHead { status, version, line_len, headers }, framing, length))
}

fn version(minor: Option<u8>) -> Version {
    if minor == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 }
}

/// The header lines of a head of `length` bytes.
fn lines(bytes: &[u8], length: usize, lines: &[Header<'_>]) -> Headers {
    Headers::received(&bytes[lines_from(bytes, length, lines)..length], lines)
}

/// Where they begin.
fn lines_from(bytes: &[u8], length: usize, lines: &[Header<'_>]) -> usize {
    lines.first().map_or(length, |first| first.name.as_ptr().addr() - bytes.as_ptr().addr())
}

/// Whether the sender leaves its connection open after this message (RFC 9112 §9.3).
fn stays_open(headers: &Headers, version: Version) -> bool {
    let says = |wanted: &str| headers.all("connection").any(|value| has_token(value, wanted));
    match version {
        Version::HTTP_10 => headers.present().has(Present::CONNECTION) && says("keep-alive"),
        _ => !(headers.present().has(Present::CONNECTION) && says("close")),
    }
}

/// Whether a value has `wanted` as one of its comma-separated tokens, in any case.
pub(crate) fn has_token(value: &[u8], wanted: &str) -> bool {
    value.split(|b| *b == b',').any(|token| token.trim_ascii().eq_ignore_ascii_case(wanted.as_bytes()))
}

/// Whether the last coding is `chunked`.
fn is_chunked(headers: &Headers) -> bool {
    let last = headers.all("transfer-encoding").last().and_then(|value| value.rsplit(|b| *b == b',').next());
    last.is_some_and(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"chunked"))
}

/// In which form a message declares its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LengthForm {
    Plain,
    /// With a nought in front.
    Odd,
    /// More than once, the same.
    Repeated,
}

/// The length that a message declares; `None` if that is no number, or there are several that differ.
fn content_length(headers: &Headers) -> Option<(u64, LengthForm)> {
    let mut lengths = headers.all("content-length");
    let first = lengths.next()?;
    let length = number(first)?;
    let mut form = if first.len() > 1 && first[0] == b'0' { LengthForm::Odd } else { LengthForm::Plain };
    for other in lengths {
        if number(other) != Some(length) {
            return None;
        }
        form = LengthForm::Repeated;
    }
    Some((length, form))
}

fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |n, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        n.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// What is read of a head is the same however much follows it, and nothing is too strange.
        #[test]
        fn a_head_ends_where_it_ends(
            line in "(GET|P[A-Z]{0,3}) (/[!-~]{0,9}|[!-~ ]{0,9}) HTTP/1.[01]",
            lines in prop::collection::vec("[A-Za-z-]{1,8}[: ]{1,2}[ -~\\x00\u{e9}]{0,9}", 0..5),
            known in prop::sample::select(vec!["", "Content-Length: 4\r\n", "Transfer-Encoding: chunked\r\n", "Connection: close\r\n"]),
            more in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let head = format!("{line}\r\n{known}{}\r\n", lines.iter().map(|l| format!("{l}\r\n")).collect::<String>());
            let all = [head.as_bytes(), &more].concat();
            let alone = request(head.as_bytes(), LIMITS);
            let followed = request(&all, LIMITS);
            match (&alone, &followed) {
                (Ok(Some((_, a, used))), Ok(Some((_, b, also)))) => {
                    prop_assert_eq!((a, *used, used), (b, head.len(), also));
                    for at in 0..head.len() {
                        prop_assert!(!matches!(request(&head.as_bytes()[..at], LIMITS), Ok(Some(_))), "{}", at);
                    }
                }
                (Err(a), Err(b)) => prop_assert_eq!(a, b),
                other => prop_assert!(false, "{:?}", other),
            }
            let _ = response(&more, &Method::GET, 8192);
        }
    }

    const LIMITS: HeadLimits = HeadLimits { line: 4096, headers: 8192 };

    #[test]
    fn lengths_are_passed_on_in_one_form() {
        for (text, length) in [("4\r\nContent-Length: 4", "4"), ("007", "7"), ("0", "0")] {
            let text = format!("HTTP/1.1 200 OK\r\nContent-Length: {text}\r\n\r\n");
            let (head, ..) = response(text.as_bytes(), &Method::GET, 8192).unwrap().unwrap();
            assert_eq!(head.headers.all("content-length").collect::<Vec<_>>(), [length.as_bytes()]);
        }
    }

    fn of(headers: &str) -> Result<Framing, u16> {
        let text = format!("POST / HTTP/1.1\r\nHost: a\r\n{headers}\r\nbody");
        match request(text.as_bytes(), LIMITS) {
            Ok(Some((_, framing, used))) => {
                assert_eq!(&text[used..], "body");
                Ok(framing)
            }
            Ok(None) => panic!("{headers:?} is not there as a whole"),
            Err(status) => Err(status.as_u16()),
        }
    }

    fn framing(length: Length, keep_alive: bool) -> Framing {
        Framing { length, keep_alive, expects_continue: false }
    }

    #[test]
    fn a_request_tells_how_long_it_is() {
        for (headers, length, keep_alive) in [
            ("", Length::NONE, true),
            ("Content-Length: 4\r\n", Length::Known(4), true),
            ("content-length:4\r\nConnection: foo, Close\r\n", Length::Known(4), false),
            ("Transfer-Encoding: Chunked\r\n", Length::Chunked, true),
            ("Transfer-Encoding: gzip\r\ntransfer-encoding: x, chunked\r\n", Length::Chunked, true),
            ("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", Length::Chunked, false),
        ] {
            assert_eq!(of(headers), Ok(framing(length, keep_alive)), "{headers:?}");
        }
        for headers in [
            "Content-Length: 4\r\nContent-Length: 4\r\n",
            "Content-Length: 4, 4\r\n",
            "Content-Length: +4\r\n",
            "Content-Length:\r\n",
            "Content-Length: 18446744073709551616\r\n",
            "Transfer-Encoding: chunked, gzip\r\n",
            "Transfer-Encoding:\r\n",
            "X : y\r\n",
            "X: y\r\n folded\r\n",
        ] {
            assert_eq!(of(headers), Err(400), "{headers:?}");
        }
        assert!(of("Expect: 100-Continue\r\nContent-Length: 1\r\n").unwrap().expects_continue);
    }

    #[test]
    fn an_old_request_closes_and_has_no_chunks() {
        let old = |headers: &str| request(format!("GET / HTTP/1.0\r\n{headers}\r\n").as_bytes(), LIMITS);
        assert_eq!(old("").unwrap().unwrap().1, framing(Length::NONE, false));
        assert_eq!(old("Connection: Keep-Alive\r\n").unwrap().unwrap().1, framing(Length::NONE, true));
        assert_eq!(old("Transfer-Encoding: chunked\r\n").unwrap_err(), 400);
        assert_eq!(old("Content-Length: 1\r\nContent-Length: 1\r\n").unwrap().unwrap().1.length, Length::Known(1));
        assert_eq!(old("Content-Length: 1\r\nContent-Length: 2\r\n").unwrap_err(), 400);
    }

    #[test]
    fn limits_hold_before_the_end_and_at_it() {
        let long = "x".repeat(4096);
        for text in [format!("GET /{long}"), format!("GET /{long} HTTP/1.1\r\n\r\n"), format!("\r\n{long}{long}")] {
            assert_eq!(request(text.as_bytes(), LIMITS).unwrap_err(), 414, "{}", text.len());
        }
        let line = "GET / HTTP/1.1\r\n";
        for lines in [format!("X: {long}{long}\r\n\r\n"), format!("X: {}", long.repeat(12)), "X: y\r\n".repeat(8000)] {
            assert_eq!(request(format!("{line}{lines}").as_bytes(), LIMITS).unwrap_err(), 431, "{}", lines.len());
        }
        let many = format!("{line}{}\r\n", "X: y\r\n".repeat(1000));
        assert_eq!(
            request(many.as_bytes(), LIMITS).unwrap().unwrap().0.headers.len(),
            1000,
            "as many as there is room for"
        );
        assert!(request(&many.as_bytes()[..many.len() - 1], LIMITS).unwrap().is_none());
    }

    #[test]
    fn a_response_tells_how_long_it_is() {
        let of = |method: Method, text: &str| {
            response(format!("{text}\r\n").as_bytes(), &method, 8192).map(|parsed| parsed.unwrap().1)
        };
        for (text, length, keep_alive) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n", Length::Known(4), true),
            ("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 4\r\n", Length::Known(4), true),
            ("HTTP/1.1 200\r\n", Length::UntilClose, false),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n", Length::Chunked, true),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n", Length::Chunked, false),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nContent-Length: 4\r\n", Length::UntilClose, false),
            ("HTTP/1.1 204 No Content\r\n", Length::NONE, true),
            ("HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n", Length::NONE, true),
            ("HTTP/1.0 200 OK\r\nContent-Length: 4\r\n", Length::Known(4), false),
            ("HTTP/1.0 200 OK\r\nContent-Length: 4\r\nConnection: keep-alive\r\n", Length::Known(4), true),
            ("HTTP/1.0 200 OK\r\n", Length::UntilClose, false),
        ] {
            assert_eq!(of(Method::GET, text), Ok(framing(length, keep_alive)), "{text:?}");
        }
        let head = of(Method::HEAD, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n");
        assert_eq!(head, Ok(framing(Length::NONE, true)));
        for text in
            ["HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n", "HTTP/2.1 200 OK\r\n", "nonsense\r\n"]
        {
            assert!(of(Method::GET, text).is_err(), "{text:?}");
        }
    }
}
