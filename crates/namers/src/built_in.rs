//! The names under `/$`, which need no configuration: `/$/inet/<host>/<port>` and helpers that rewrite names.
//!
//! Contract: Linkerd found these by the name of a JVM class, hence their look, and that an unknown one is a failure and
//! not a negative. A rewriting name that does not match its pattern is negative, so that alternatives apply.

use std::net::{Ipv4Addr, SocketAddr};

use l5d_naming::{Activity, Addr, AddrWatch, Address, Bound, Name, NameTree, Namer, Path};
use tokio::runtime::Handle;

use crate::dns::Resolver;

/// The namer of `/$`.
pub struct BuiltIn {
    prefix: Path,
    resolver: Resolver,
}

impl BuiltIn {
    /// Host names are resolved on this runtime.
    pub fn new(runtime: Handle) -> Self {
        Self { prefix: Path::from_segments(["$"]), resolver: Resolver::new(runtime) }
    }

    /// A name whose first `consumed` segments (without `/$`) are bound to these addresses.
    fn bound(&self, rest: &Path, consumed: usize, addr: AddrWatch) -> Bound {
        Bound::new(self.prefix.concat(&rest.take(consumed)), rest.drop(consumed), addr)
    }

    fn address(
        &self,
        rest: &Path,
        consumed: usize,
        host: Option<&str>,
        port: &str,
        once: bool,
    ) -> Activity<NameTree<Name>> {
        let Ok(port) = port.parse::<u16>() else { return Activity::failed(format!("port out of range: {port}")) };
        let addr = match host {
            Some(host) => self.resolver.watch(host, port, once),
            None => AddrWatch::value(Addr::bound([Address::new(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))])),
        };
        leaf(self.bound(rest, consumed, addr))
    }
}

impl Namer for BuiltIn {
    fn prefix(&self) -> &Path {
        &self.prefix
    }

    fn lookup(&self, rest: &Path) -> Activity<NameTree<Name>> {
        let segment = |at| rest.segment_str(at);
        let Some(kind) = segment(0) else {
            return match rest.is_empty() {
                true => Activity::value(NameTree::Neg),
                false => self.unknown(rest),
            };
        };
        match (kind, segment(1), segment(2)) {
            ("inet" | "fixedinet", Some(host), Some(port)) if is_number(port) => {
                self.address(rest, 3, Some(host), port, kind == "fixedinet")
            }
            ("inet" | "fixedinet", Some(port), _) if is_number(port) => self.address(rest, 2, None, port, true),
            ("fail", ..) => Activity::value(NameTree::Fail),
            ("nil", ..) => Activity::value(NameTree::Empty),
            ("io.buoyant.rinet", Some(port), Some(host)) if is_number(port) => {
                self.address(rest, 3, Some(host), port, false)
            }
            ("io.buoyant.rinet", Some(port), Some(_)) => Activity::failed(format!("\"{port}\" is no port")),
            ("io.buoyant.rinet", ..) => Activity::value(NameTree::Neg),
            ("io.buoyant.http.status", code, _) => match code.and_then(status) {
                // Nobody is asked for the answer, so there is no address.
                Some(code) => {
                    leaf(Bound { synthetic: Some(code), ..self.bound(rest, 2, AddrWatch::value(Addr::bound([]))) })
                }
                None => Activity::value(NameTree::Neg),
            },
            _ => match rewrite(kind) {
                Some(rewrite) => Activity::value(match rewrite(&rest.drop(1)) {
                    Some(path) => NameTree::Leaf(Name::Path(path)),
                    None => NameTree::Neg,
                }),
                None => self.unknown(rest),
            },
        }
    }
}

impl BuiltIn {
    fn unknown(&self, rest: &Path) -> Activity<NameTree<Name>> {
        let kind = rest.segments().next().map(Path::show_segment).unwrap_or_default();
        Activity::failed(format!("Unknown namer: {kind} for path: {}", self.prefix.concat(rest)))
    }
}

fn leaf(bound: Bound) -> Activity<NameTree<Name>> {
    Activity::value(NameTree::Leaf(Name::Bound(bound)))
}

/// What Java reads as an `int` where a port stands; whether it is one is another question.
fn is_number(text: &str) -> bool {
    text.parse::<i32>().is_ok()
}

fn status(code: &str) -> Option<u16> {
    code.parse().ok().filter(|code| (100..600).contains(code))
}

/// Makes another name of a name, or none if it does not match.
type Rewrite = fn(&Path) -> Option<Path>;

fn rewrite(kind: &str) -> Option<Rewrite> {
    Some(match kind {
        "io.buoyant.hostportPfx" => |path| {
            let (host, port) = host_and_port(path.segment_str(1)?)?;
            Some(pushed(&path.take(1), [host, port], &path.drop(2)))
        },
        "io.buoyant.porthostPfx" => |path| {
            let (host, port) = host_and_port(path.segment_str(1)?)?;
            Some(pushed(&path.take(1), [port, host], &path.drop(2)))
        },
        "io.buoyant.http.anyMethod" => |path| is_method(path.segment_str(0)?).then(|| path.drop(1)),
        "io.buoyant.http.anyMethodPfx" => {
            |path| is_method(path.segment_str(1)?).then(|| path.take(1).concat(&path.drop(2)))
        }
        "io.buoyant.http.anyHost" => |path| is_host(path.segment_str(0)?).then(|| path.drop(1)),
        "io.buoyant.http.anyHostPfx" => {
            |path| is_host(path.segment_str(1)?).then(|| path.take(1).concat(&path.drop(2)))
        }
        "io.buoyant.http.subdomainOf" => |path| {
            let sub = subdomain(path.segment_str(0)?, path.segment_str(1)?)?;
            Some(pushed(&Path::empty(), [sub], &path.drop(2)))
        },
        "io.buoyant.http.subdomainOfPfx" => |path| {
            let sub = subdomain(path.segment_str(0)?, path.segment_str(2)?)?;
            Some(pushed(&path.drop(1).take(1), [sub], &path.drop(3)))
        },
        "io.buoyant.http.domainToPath" => |path| {
            let host = path.segment_str(0).filter(|host| is_host(host))?;
            Some(pushed(&Path::empty(), host.rsplit('.'), &path.drop(1)))
        },
        "io.buoyant.http.domainToPathPfx" => |path| {
            let host = path.segment_str(1).filter(|host| is_host(host))?;
            Some(pushed(&path.take(1), host.rsplit('.'), &path.drop(2)))
        },
        _ => return None,
    })
}

fn pushed<'a>(prefix: &Path, segments: impl IntoIterator<Item = &'a str>, rest: &Path) -> Path {
    prefix.concat(&Path::from_segments(segments)).concat(rest)
}

/// `host:port`, where the port looks like a DNS label, so that `http` is one. Not for IPv6 addresses.
fn host_and_port(text: &str) -> Option<(&str, &str)> {
    let (host, port) = text.split_once(':')?;
    let first = port.bytes().next()?;
    let label = port.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    (!host.is_empty() && label && first != b'-' && port.len() <= 63).then_some((host, port))
}

fn is_method(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_uppercase())
}

/// Very coarse, so that it takes names and addresses of all sorts.
fn is_host(text: &str) -> bool {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b':' | b'_' | b'-');
    !text.is_empty() && text.bytes().all(good)
}

/// What is before `.domain` in a host, whose port does not matter.
fn subdomain<'a>(domain: &str, host: &'a str) -> Option<&'a str> {
    if !is_host(domain) || !is_host(host) {
        return None;
    }
    // An IPv6 address that begins with a colon has no port to drop.
    let host = match host.find(':') {
        Some(at) if at > 0 => &host[..at],
        _ => host,
    };
    let sub = host.strip_suffix(domain)?.strip_suffix('.')?;
    (!sub.is_empty()).then_some(sub)
}

#[cfg(test)]
mod tests {
    use super::*;
    use l5d_naming::State;

    /// What a `/$` name becomes.
    fn looked_up(name: &str) -> String {
        let namer = BuiltIn::new(Handle::current());
        let path = Path::read(name).unwrap();
        assert!(path.starts_with(namer.prefix()));
        match namer.lookup(&path.drop(1)).current() {
            State::Pending => "pending".to_owned(),
            State::Failed(why) => format!("failed: {why}"),
            State::Ok(tree) => tree
                .map(&mut |name| match name {
                    Name::Path(path) => path.show(),
                    Name::Bound(bound) => {
                        let addr = match bound.addr.current() {
                            Addr::Bound(set) => set.endpoints.iter().map(ToString::to_string).collect(),
                            other => vec![format!("{other:?}")],
                        };
                        let synthetic = bound.synthetic.map(|code| format!(" answers {code}")).unwrap_or_default();
                        format!("{}[{}] at {}{synthetic}", bound.id, bound.residual, addr.join(" "))
                    }
                })
                .to_string(),
        }
    }

    #[tokio::test]
    async fn every_built_in_name_is_what_the_reference_says() {
        let long = "a".repeat(63);
        for (name, result) in [
            ("/$/inet/127.1/80/foo", "/$/inet/127.1/80[/foo] at 127.0.0.1:80"),
            ("/$/inet/127.0.0.1/0", "/$/inet/127.0.0.1/0[/] at 127.0.0.1:0"),
            ("/$/inet/::1/80", "/$/inet/::1/80[/] at [::1]:80"),
            ("/$/inet/8080", "/$/inet/8080[/] at 127.0.0.1:8080"),
            ("/$/inet/8080/foo", "/$/inet/8080[/foo] at 127.0.0.1:8080"),
            ("/$/fixedinet/10.1/80/foo", "/$/fixedinet/10.1/80[/foo] at 10.0.0.1:80"),
            ("/$/inet/localhost/80", "/$/inet/localhost/80[/] at Pending"),
            ("/$/inet/127.1/65536", "failed: port out of range: 65536"),
            ("/$/inet/127.1/-1", "failed: port out of range: -1"),
            ("/$/inet/127.1", "failed: Unknown namer: inet for path: /$/inet/127.1"),
            ("/$/inet/foo/http", "failed: Unknown namer: inet for path: /$/inet/foo/http"),
            ("/$/nil/a", "$"),
            ("/$/fail", "!"),
            ("/$", "~"),
            ("/$/nope/a", "failed: Unknown namer: nope for path: /$/nope/a"),
            ("/$/io.buoyant.rinet/80/127.1/foo", "/$/io.buoyant.rinet/80/127.1[/foo] at 127.0.0.1:80"),
            ("/$/io.buoyant.rinet/http/127.1", "failed: \"http\" is no port"),
            ("/$/io.buoyant.rinet/80", "~"),
            ("/$/io.buoyant.http.status/418/foo", "/$/io.buoyant.http.status/418[/foo] at  answers 418"),
            ("/$/io.buoyant.http.status/600", "~"),
            ("/$/io.buoyant.http.status/99", "~"),
            ("/$/io.buoyant.http.status", "~"),
            ("/$/io.buoyant.hostportPfx/pfx/host:80/etc", "/pfx/host/80/etc"),
            ("/$/io.buoyant.porthostPfx/pfx/host:http/etc", "/pfx/http/host/etc"),
            ("/$/io.buoyant.porthostPfx/pfx/host:Http", "~"),
            ("/$/io.buoyant.porthostPfx/pfx/host:-a", "~"),
            ("/$/io.buoyant.porthostPfx/pfx/host", "~"),
            ("/$/io.buoyant.porthostPfx/pfx/host:", "~"),
            ("/$/io.buoyant.porthostPfx/pfx/:80", "~"),
            ("/$/io.buoyant.porthostPfx/pfx/a:b:c", "~"),
            ("/$/io.buoyant.porthostPfx/pfx", "~"),
            (&format!("/$/io.buoyant.porthostPfx/pfx/a:{long}"), &format!("/pfx/{long}/a")),
            (&format!("/$/io.buoyant.porthostPfx/pfx/a:{long}a"), "~"),
            ("/$/io.buoyant.http.anyMethod/GET/svc/a", "/svc/a"),
            ("/$/io.buoyant.http.anyMethod/get/svc/a", "~"),
            ("/$/io.buoyant.http.anyMethodPfx/pfx/GET/svc", "/pfx/svc"),
            ("/$/io.buoyant.http.anyHost/a.b:80/svc", "/svc"),
            (r"/$/io.buoyant.http.anyHost/a\x20b/svc", "~"),
            ("/$/io.buoyant.http.anyHostPfx/pfx/a.b/svc", "/pfx/svc"),
            ("/$/io.buoyant.http.subdomainOf/buoyant.io/foo.buoyant.io:80/rest", "/foo/rest"),
            ("/$/io.buoyant.http.subdomainOf/buoyant.io/a.b.buoyant.io", "/a.b"),
            ("/$/io.buoyant.http.subdomainOf/buoyant.io/buoyant.io", "~"),
            ("/$/io.buoyant.http.subdomainOf/buoyant.io/.buoyant.io", "~"),
            ("/$/io.buoyant.http.subdomainOf/buoyant.io/foobuoyant.io", "~"),
            ("/$/io.buoyant.http.subdomainOfPfx/buoyant.io/pfx/foo.buoyant.io/rest", "/pfx/foo/rest"),
            ("/$/io.buoyant.http.domainToPath/foo.buoyant.io/rest", "/io/buoyant/foo/rest"),
            ("/$/io.buoyant.http.domainToPath/foo.com:80", "/com:80/foo"),
            ("/$/io.buoyant.http.domainToPathPfx/pfx/foo.buoyant.io/rest", "/pfx/io/buoyant/foo/rest"),
            ("/$/io.buoyant.http.domainToPathPfx/pfx", "~"),
        ] {
            assert_eq!(looked_up(name), result, "{name}");
        }
    }

    #[tokio::test]
    async fn the_systems_own_name_is_resolved() {
        let namer = BuiltIn::new(Handle::current());
        let name = namer.lookup(&Path::read("/inet/localhost/80").unwrap()).settled().await.unwrap();
        let NameTree::Leaf(Name::Bound(mut bound)) = name else { panic!("bound") };
        let Addr::Bound(set) = bound.addr.settled().await else { panic!("resolved") };
        assert!(set.endpoints.iter().all(|address| address.addr.ip().is_loopback()));
        assert!(set.endpoints[0].to_string().starts_with("localhost/"));
    }
}
