//! `io.l5d.methodAndHost`: `/1.1/<METHOD>/<host>`, the naming of Linkerd's first releases. The host is lower-cased and
//! keeps its port; HTTP/1.0 has none. With `httpUriInDst` the path follows.

use http::Version;
use l5d_config::{Cx, Fields, Kind, Node};
use l5d_naming::Path;

use super::{Identification, Identifier, IdentifierConfig};
use crate::{codec::RequestHead, headers::HOST};

/// The section: `httpUriInDst`, default false.
#[derive(Clone, Debug)]
struct MethodAndHost {
    uri_in_dst: bool,
}

pub(crate) const KIND: Kind<dyn IdentifierConfig> = Kind {
    id: "io.l5d.methodAndHost",
    experimental: false,
    summary: "names a request by its version, method and host",
    example: "kind: io.l5d.methodAndHost\nhttpUriInDst: true",
    parse,
};

fn parse(node: &Node, cx: &mut Cx) -> Option<Box<dyn IdentifierConfig>> {
    let mut f = Fields::of(node, cx)?;
    f.skip_kind();
    let uri_in_dst = f.or("httpUriInDst", false, cx);
    f.finish(cx);
    Some(Box::new(MethodAndHost { uri_in_dst }))
}

impl IdentifierConfig for MethodAndHost {
    fn build(&self) -> Box<dyn Identifier> {
        Box::new(self.clone())
    }
}

impl Identifier for MethodAndHost {
    fn identify(&self, head: &mut RequestHead) -> Identification {
        let method = head.method.as_str().as_bytes();
        let mut segments: Vec<Vec<u8>> = match head.version {
            Version::HTTP_10 => vec![b"1.0".to_vec(), method.to_vec()],
            Version::HTTP_11 => match head.headers.get(HOST) {
                Some(host) if !host.is_empty() => {
                    vec![b"1.1".to_vec(), method.to_vec(), host.to_ascii_lowercase()]
                }
                _ => return Identification::Unidentified("HTTP/1.1 request missing hostname".to_owned()),
            },
            other => return Identification::Unidentified(format!("Unknown HTTP version {other:?}")),
        };
        if self.uri_in_dst {
            let path = head.target.path();
            if path != "/" {
                match Path::read(path) {
                    Ok(path) => segments.extend(path.segments().map(<[u8]>::to_vec)),
                    Err(e) => return Identification::Unidentified(e.to_string()),
                }
            }
        }
        Identification::Identified(Path::from_segments(segments))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identify(uri_in_dst: bool, version: Version, host: Option<&str>, target: &str) -> Identification {
        let host: Vec<_> = host.iter().map(|host| (HOST, *host)).collect();
        let mut head = RequestHead { version, ..RequestHead::of("GET", target, &host) };
        MethodAndHost { uri_in_dst }.identify(&mut head)
    }

    #[test]
    fn version_method_host_and_perhaps_path() {
        let named = |p: &str| Identification::Identified(Path::read(p).unwrap());
        assert_eq!(identify(false, Version::HTTP_11, Some("FOO:8080"), "/x"), named("/1.1/GET/foo:8080"));
        assert_eq!(identify(false, Version::HTTP_10, Some("foo"), "/x"), named("/1.0/GET"));
        assert_eq!(identify(true, Version::HTTP_11, Some("foo"), "/a/b?c"), named("/1.1/GET/foo/a/b"));
        assert_eq!(identify(true, Version::HTTP_11, Some("foo"), "/"), named("/1.1/GET/foo"));
        assert!(matches!(identify(false, Version::HTTP_11, None, "/x"), Identification::Unidentified(_)));
        assert!(matches!(identify(true, Version::HTTP_11, Some("foo"), "/a/"), Identification::Unidentified(_)));
    }
}
