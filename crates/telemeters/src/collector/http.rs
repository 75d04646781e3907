//! `POST` over HTTP/1.1, as much of it as a collector needs: where to, what to send, what the answer says.
//!
//! An answer's body is read to its end, so that the connection can be used again, and bounded like everything that comes
//! from outside; nobody looks at it but for a log.

use std::time::Duration;

use l5d_net::{ClientTls, ClientTlsConfig};

use super::Parsed;

/// Where requests go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) tls: bool,
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Begins with a slash.
    pub(crate) path: String,
}

impl Endpoint {
    /// `http://host:4318/path`; without a port, this one.
    pub(crate) fn parse(url: &str, port: u16) -> Result<Self, String> {
        let bad = |why: &str| format!("\"{url}\" is no URL of a collector: {why}");
        let (scheme, rest) = url.split_once("://").ok_or_else(|| bad("it must start with http:// or https://"))?;
        let tls = match scheme {
            "http" => false,
            "https" => true,
            _ => return Err(bad("it must start with http:// or https://")),
        };
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        if authority.contains('@') || path.contains(['?', '#', ' ']) || !path.is_ascii() {
            return Err(bad("a host, a port and a path are all that it can have"));
        }
        let (host, port) = host_and_port(authority, port).map_err(|why| bad(&why))?;
        Ok(Self { tls, host, port, path: if path.is_empty() { "/" } else { path }.to_owned() })
    }

    /// What TLS needs to know, if TLS is to be spoken.
    pub(crate) fn client_tls(&self) -> Result<Option<ClientTls>, String> {
        let config = ClientTlsConfig { common_name: Some(self.host.clone()), ..ClientTlsConfig::default() };
        self.tls.then(|| ClientTls::new(config)).transpose().map_err(|error| error.to_string())
    }

    /// As a `Host` header and a log show it.
    pub(crate) fn authority(&self) -> String {
        let (host, port) = (&self.host, self.port);
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }
}

/// `host`, `host:port`, `[::1]:port`.
pub(crate) fn host_and_port(text: &str, default: u16) -> Result<(String, u16), String> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or("a bracket is not closed")?;
            let port = if rest.is_empty() { Some("") } else { rest.strip_prefix(':') };
            (host, port.ok_or("something follows the bracket")?)
        }
        None => text.split_once(':').unwrap_or((text, "")),
    };
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:%".contains(&byte);
    if host.is_empty() || !host.bytes().all(known) {
        return Err("a host is needed".to_owned());
    }
    let port = match port {
        "" => default,
        port => port.parse().ok().filter(|&port| port != 0).ok_or_else(|| format!("\"{port}\" is no port"))?,
    };
    Ok((host.to_owned(), port))
}

/// A request, all but its body.
pub(crate) struct Post {
    head: String,
}

impl Post {
    /// `headers` are written as they are; their names and values have been checked.
    pub(crate) fn new(path: &str, host: &str, content_type: &str, headers: &[(String, String)]) -> Self {
        let mut head = format!(
            "POST {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: l5d/{}\r\nContent-Type: {content_type}\r\n",
            env!("CARGO_PKG_VERSION")
        );
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        Self { head }
    }

    /// The request with this body.
    pub(crate) fn with(&self, body: &[u8]) -> Vec<u8> {
        let mut request = Vec::with_capacity(self.head.len() + body.len() + 32);
        request.extend_from_slice(self.head.as_bytes());
        request.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
        request.extend_from_slice(body);
        request
    }
}

/// What a collector answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// `Retry-After`, in seconds.
    pub(crate) retry_after: Option<Duration>,
    /// The beginning of a body, for a log.
    pub(crate) text: String,
    /// The body, if its length was told.
    pub(crate) body: Vec<u8>,
}

/// A longer head is none.
const LONGEST_HEAD: usize = 8 * 1024;
/// How many answers may say that the answer is to come.
const MOST_INTERIM: usize = 4;

/// The answer in these bytes; `ended` when no more will come.
pub(crate) fn answer(mut bytes: &[u8], ended: bool) -> Parsed<Answer> {
    for _ in 0..=MOST_INTERIM {
        let Some(end) = bytes.windows(4).take(LONGEST_HEAD).position(|window| window == b"\r\n\r\n") else {
            return if bytes.len() > LONGEST_HEAD {
                Parsed::Bad("its head is too long".to_owned())
            } else {
                Parsed::More
            };
        };
        let (head, body) = (&bytes[..end], &bytes[end + 4..]);
        let Ok(head) = std::str::from_utf8(head) else { return Parsed::Bad("its head is no text".to_owned()) };
        match status(head) {
            None => return Parsed::Bad("it is not HTTP".to_owned()),
            Some(100..200) => bytes = body,
            Some(status) => return last(status, head, body, ended),
        }
    }
    Parsed::Bad("it does not come".to_owned())
}

fn status(head: &str) -> Option<u16> {
    let rest = head.strip_prefix("HTTP/1.1 ").or_else(|| head.strip_prefix("HTTP/1.0 "))?;
    let digits = rest.get(..3).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    digits.parse().ok().filter(|status| (100..600).contains(status))
}

fn last(status: u16, head: &str, body: &[u8], ended: bool) -> Parsed<Answer> {
    let (mut length, mut chunked, mut keep, mut retry_after) = (None, false, !head.starts_with("HTTP/1.0"), None);
    for line in head.split("\r\n").skip(1) {
        let Some((name, value)) = line.split_once(':') else {
            return Parsed::Bad("a header without a colon".to_owned());
        };
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => match value.parse::<usize>() {
                Ok(n) if length.is_none_or(|length| length == n) => length = Some(n),
                _ => return Parsed::Bad("a bad Content-Length".to_owned()),
            },
            "transfer-encoding" => chunked = value.to_ascii_lowercase().contains("chunked"),
            "connection" => keep &= !value.to_ascii_lowercase().contains("close"),
            "retry-after" => retry_after = value.parse().ok().map(Duration::from_secs),
            _ => {}
        }
    }
    let (body, keep) = match (status, chunked, length) {
        (204 | 304, _, _) => (Vec::new(), keep),
        (_, true, _) => match chunks(body) {
            Chunks::All(body) => (body, keep),
            Chunks::Bad => return Parsed::Bad("a bad chunk".to_owned()),
            Chunks::More => return Parsed::More,
        },
        (_, false, Some(length)) if body.len() >= length => (body[..length].to_vec(), keep && body.len() == length),
        (_, false, None) if ended => (body.to_vec(), false),
        _ => return Parsed::More,
    };
    let text = String::from_utf8_lossy(&body[..body.len().min(200)]).trim().to_owned();
    let failure = (!(200..300).contains(&status))
        .then_some("com.twitter.finagle.service.ResponseClassificationSyntheticException");
    Parsed::Done { answer: Answer { status, retry_after, text, body }, failure, keep }
}

enum Chunks {
    More,
    All(Vec<u8>),
    Bad,
}

fn chunks(mut left: &[u8]) -> Chunks {
    let mut body = Vec::new();
    loop {
        let Some(end) = left.windows(2).position(|window| window == b"\r\n") else {
            return if left.len() > 64 { Chunks::Bad } else { Chunks::More };
        };
        let size = std::str::from_utf8(&left[..end]).ok().and_then(|line| {
            let digits = line.split(';').next()?.trim();
            usize::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+'))
        });
        let Some(size) = size else { return Chunks::Bad };
        left = &left[end + 2..];
        if size == 0 {
            // Trailers would follow; nobody sends any here.
            return if left.len() >= 2 { Chunks::All(body) } else { Chunks::More };
        }
        let Some(total) = size.checked_add(2) else { return Chunks::Bad };
        if left.len() < total {
            return Chunks::More;
        }
        body.extend_from_slice(&left[..size]);
        left = &left[total..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read() {
        let parsed = |url: &str| Endpoint::parse(url, 4318);
        let endpoint = |tls, host: &str, port, path: &str| {
            Ok(Endpoint { tls, host: host.to_owned(), port, path: path.to_owned() })
        };
        assert_eq!(parsed("http://localhost"), endpoint(false, "localhost", 4318, "/"));
        assert_eq!(parsed("https://a.b-c:443/x/y"), endpoint(true, "a.b-c", 443, "/x/y"));
        assert_eq!(parsed("http://[::1]:80/"), endpoint(false, "::1", 80, "/"));
        assert_eq!(parsed("http://[::1]").unwrap().authority(), "[::1]:4318");
        for bad in [
            "localhost:4318",
            "ftp://x",
            "http://",
            "http://x:0",
            "http://x:99999",
            "http://u@x",
            "http://x/?q",
            "http://[::1",
            "http://x\r\ny",
            "http://x/\u{e9}",
        ] {
            assert!(parsed(bad).is_err(), "{bad}");
        }
    }

    fn read(text: &str, ended: bool) -> Option<(u16, String, bool)> {
        match answer(text.as_bytes(), ended) {
            Parsed::Done { answer, keep, .. } => Some((answer.status, answer.text, keep)),
            Parsed::More => None,
            Parsed::Bad(why) => Some((0, why, false)),
        }
    }

    #[test]
    fn answers_are_read_to_their_end() {
        let full = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        for n in 0..full.len() {
            assert_eq!(read(&full[..n], false), None, "{n}");
        }
        assert_eq!(read(full, false), Some((200, "hello".to_owned(), true)));
        let chunked = "HTTP/1.1 429 Slow Down\r\nTransfer-Encoding: chunked\r\nRetry-After: 7\r\n\r\n3\r\nabc\r\n1;x=y\r\nd\r\n0\r\n\r\n";
        for n in 0..chunked.len() {
            assert_eq!(read(&chunked[..n], false), None, "{n}");
        }
        assert_eq!(read(chunked, false), Some((429, "abcd".to_owned(), true)));
        let Parsed::Done { answer: told, .. } = answer(chunked.as_bytes(), false) else { panic!("an answer") };
        assert_eq!(told.retry_after, Some(Duration::from_secs(7)));
        assert_eq!(read("HTTP/1.0 200 OK\r\n\r\nall", false), None);
        assert_eq!(read("HTTP/1.0 200 OK\r\n\r\nall", true), Some((200, "all".to_owned(), false)));
        assert_eq!(
            read(
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 202 Accepted\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
                false
            ),
            Some((202, String::new(), false))
        );
        assert_eq!(read("HTTP/1.1 204 No Content\r\n\r\n", false), Some((204, String::new(), true)));
    }

    #[test]
    fn what_is_no_answer_is_told() {
        for bad in [
            "SSH-2.0-x\r\n\r\n",
            "HTTP/1.1 999 x\r\n\r\n",
            "HTTP/1.1 +20 x\r\n\r\n",
            "HTTP/1.1 20\r\n\r\n",
            "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
        ] {
            assert_eq!(read(bad, false).map(|(status, ..)| status), Some(0), "{bad}");
        }
        assert!(matches!(answer(b"HTTP/1.1 200 \xff\r\n\r\n", false), Parsed::Bad(_)));
    }

    #[test]
    fn a_request_is_written_as_http_asks() {
        let post = Post::new("/v1/traces", "here:1", "text/x", &[("A".to_owned(), "b".to_owned())]);
        let text = String::from_utf8(post.with(b"body")).unwrap();
        assert!(text.starts_with("POST /v1/traces HTTP/1.1\r\nHost: here:1\r\nUser-Agent: l5d/"), "{text}");
        assert!(text.ends_with("\r\nContent-Type: text/x\r\nA: b\r\nContent-Length: 4\r\n\r\nbody"), "{text}");
    }
}
