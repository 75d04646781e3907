//! Responses compressed on their way out (§13.6).

use std::io::Write;
use std::process::{Command, Stdio};

use l5d_testkit::{Response, Upstream};

use crate::proxy::{Proxy, Setup};

/// What gzip makes of these bytes.
fn gunzip(bytes: &[u8]) -> String {
    let mut gzip =
        Command::new("gzip").arg("-dc").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("gzip runs");
    let mut input = gzip.stdin.take().expect("it is piped");
    let bytes = bytes.to_vec();
    let writing = std::thread::spawn(move || input.write_all(&bytes));
    let output = gzip.wait_with_output().expect("gzip ends");
    writing.join().expect("no panic").expect("gzip reads");
    assert!(output.status.success(), "gzip refuses it");
    String::from_utf8(output.stdout).expect("text")
}

const TEXT: &str = "to be compressed, to be compressed, to be compressed, to be compressed";

fn upstream() -> Upstream {
    Upstream::start(|request| match request.target.as_str() {
        "/plain" => Response::ok(TEXT).header("Content-Type", "text/plain"),
        "/json" => Response::ok(TEXT).header("Content-Type", "application/json;charset=utf-8"),
        "/chunks" => Response::ok(TEXT).header("Content-Type", "text/html").chunked(10),
        "/long" => Response::ok(TEXT.repeat(1_000)).header("Content-Type", "text/css"),
        "/image" => Response::ok(TEXT).header("Content-Type", "image/png"),
        "/encoded" => Response::ok(TEXT).header("Content-Type", "text/plain").header("Content-Encoding", "br"),
        _ => Response::ok(TEXT),
    })
}

fn ask(proxy: &Proxy, method: &str, target: &str, accepted: &str) -> l5d_testkit::Reply {
    proxy.request(method, target, &[("host", "foo"), ("accept-encoding", accepted)], b"")
}

/// A74.
#[test]
fn texts_are_compressed_for_those_who_take_it() {
    let upstream = upstream();
    let proxy = Setup::to(&upstream).start();
    for target in ["/plain", "/json"] {
        let reply = ask(&proxy, "GET", target, "gzip");
        assert_eq!(reply.headers.get("content-encoding"), Some("gzip"), "{target}");
        assert_eq!(reply.headers.get("content-length"), Some(reply.body.len().to_string().as_str()), "{target}");
        assert!(reply.body.len() < TEXT.len() && gunzip(&reply.body) == TEXT, "{target}");
    }
    for target in ["/chunks", "/long"] {
        let reply = ask(&proxy, "GET", target, "deflate, gzip;q=1.0");
        assert_eq!((reply.headers.get("content-encoding"), reply.headers.get("content-length")), (Some("gzip"), None));
        assert!(!reply.chunks.is_empty() && gunzip(&reply.body).starts_with(TEXT), "{target}");
    }
    for (method, target, accepted) in [
        ("GET", "/plain", "identity"),
        ("GET", "/plain", "gzip;q=0"),
        ("GET", "/image", "gzip"),
        ("GET", "/encoded", "gzip"),
        ("GET", "/untyped", "gzip"),
    ] {
        let reply = ask(&proxy, method, target, accepted);
        let encoding = (target == "/encoded").then_some("br");
        assert_eq!((reply.headers.get("content-encoding"), reply.text()), (encoding, TEXT), "{target} {accepted}");
    }
    let head = ask(&proxy, "HEAD", "/plain", "gzip");
    let length = TEXT.len().to_string();
    assert_eq!(
        (head.headers.get("content-encoding"), head.headers.get("content-length")),
        (None, Some(length.as_str()))
    );
}

/// A74: `compressionLevel: 0`.
#[test]
fn compression_can_be_turned_off() {
    let upstream = upstream();
    let proxy = Setup::to(&upstream).and("compressionLevel: 0").start();
    let reply = ask(&proxy, "GET", "/plain", "gzip");
    assert_eq!((reply.headers.get("content-encoding"), reply.text()), (None, TEXT));
}
