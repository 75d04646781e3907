//! Host names to addresses. Owns which texts are addresses already, and the tasks that ask the system's resolver again
//! and again, one for each host and port that somebody watches.
//!
//! Contract: every address of a name is used; a name is asked for again every five seconds; a name that does not exist
//! has no addresses. `127.1` and other short forms are addresses, as they are for the JVM. Deliberately different: when
//! the resolver can't be reached, a name keeps the addresses it had.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use l5d_naming::{Addr, AddrUpdater, AddrWatch, Address};
use tokio::runtime::Handle;

/// How long a name's addresses are believed.
const INTERVAL: Duration = Duration::from_secs(5);

type Ips = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>>;

/// Resolves names for as long as they are watched.
#[derive(Clone)]
pub(crate) struct Resolver {
    runtime: Handle,
    /// The system's resolver, or a test's.
    lookup: Arc<dyn Fn(String) -> Ips + Send + Sync>,
    watched: Arc<Mutex<HashMap<Key, Arc<AddrUpdater>>>>,
}

/// Host, port, and whether the first answer is for ever.
type Key = (Arc<str>, u16, bool);

impl Resolver {
    pub(crate) fn new(runtime: Handle) -> Self {
        Self::with_lookup(runtime, |host| Box::pin(async move { system(&host).await }))
    }

    fn with_lookup(runtime: Handle, lookup: impl Fn(String) -> Ips + Send + Sync + 'static) -> Self {
        Self { runtime, lookup: Arc::new(lookup), watched: Arc::default() }
    }

    /// The addresses of a host: at once and for ever if it is an address, else asked for while they are watched. With
    /// `once`, what was found first stays.
    pub(crate) fn watch(&self, host: &str, port: u16, once: bool) -> AddrWatch {
        if let Some(ip) = literal(host) {
            return AddrWatch::value(Addr::bound([Address::new(SocketAddr::new(ip, port))]));
        }
        let key: Key = (host.into(), port, once);
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(updater) = watched.get(&key) {
            return updater.watch();
        }
        let (updater, watch) = AddrWatch::channel(Addr::Pending);
        let updater = Arc::new(updater);
        watched.insert(key.clone(), updater.clone());
        drop(watched);
        self.runtime.spawn(self.clone().keep(key, updater));
        watch
    }

    async fn keep(self, key: Key, updater: Arc<AddrUpdater>) {
        let (host, port, once) = key.clone();
        loop {
            let found = (self.lookup)(host.to_string()).await;
            let resolved = matches!(&found, Ok(ips) if !ips.is_empty());
            match found {
                Ok(ips) if resolved => updater.set(Addr::bound(
                    ips.into_iter()
                        .map(|ip| Address { host: Some(host.clone()), ..Address::new(SocketAddr::new(ip, port)) }),
                )),
                Err(error) if is_temporary(&error) && matches!(updater.current(), Addr::Bound(_)) => {
                    tracing::warn!(%host, %error, "resolver does not answer, keeping the addresses");
                }
                _ => updater.set(Addr::Neg),
            }
            if once && resolved {
                updater.closed().await;
            } else {
                tokio::select! {
                    () = updater.closed() => {}
                    () = tokio::time::sleep(INTERVAL) => {}
                }
            }
            // Somebody may have come between the last watcher's leaving and this: the lock decides.
            let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
            if updater.readers() == 0 {
                watched.remove(&key);
                return;
            }
        }
    }
}

/// Asks the system's resolver. IPv4 first, then by number: the order must not change from one answer to the next.
pub(crate) async fn system(host: &str) -> io::Result<Vec<IpAddr>> {
    let mut ips: Vec<IpAddr> = tokio::net::lookup_host((host, 0)).await?.map(|addr| addr.ip()).collect();
    ips.sort();
    ips.dedup();
    Ok(ips)
}

/// Which of several addresses the JVM would take for a host that may have only one.
pub(crate) fn first(ips: &[IpAddr]) -> Option<IpAddr> {
    ips.iter().find(|ip| ip.is_ipv4()).or_else(|| ips.first()).copied()
}

/// `getaddrinfo`'s `EAI_AGAIN`, of which only the text is left (glibc's and musl's).
fn is_temporary(error: &io::Error) -> bool {
    let text = error.to_string();
    text.contains("Temporary failure") || text.contains("Try again")
}

/// The address that a text stands for without a resolver: IPv6, or IPv4 with one to four parts of which the last fills
/// what is left. `127.1` is 127.0.0.1.
pub(crate) fn literal(host: &str) -> Option<IpAddr> {
    if host.contains(':') {
        return host.parse().ok();
    }
    let mut parts = Vec::new();
    for part in host.split('.') {
        if part.is_empty() || parts.len() == 4 || !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        parts.push(part.parse::<u32>().ok()?);
    }
    let last = parts.pop()?;
    let high = parts.iter().try_fold(0_u32, |bits, part| (*part <= 0xff).then(|| bits << 8 | part))?;
    let left = 32 - 8 * parts.len() as u32;
    if left < 32 && last >> left != 0 {
        return None;
    }
    // All four bytes are the last part's if it is alone; shifting by 32 is no shift.
    let high = high.checked_shl(left).unwrap_or(0);
    Some(IpAddr::V4(Ipv4Addr::from(high | last)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    #[test]
    fn short_forms_are_addresses() {
        for (text, ip) in [
            ("127.1", Some("127.0.0.1")),
            ("127.0.0.1", Some("127.0.0.1")),
            ("10.1.258", Some("10.1.1.2")),
            ("8080", Some("0.0.31.144")),
            ("4294967295", Some("255.255.255.255")),
            ("010.1", Some("10.0.0.1")),
            ("::1", Some("::1")),
            ("fe80::1", Some("fe80::1")),
            ("4294967296", None),
            ("127.16777216", None),
            ("256.1", None),
            ("1.2.3.256", None),
            ("1.2.3.4.5", None),
            ("1..2", None),
            ("1.2.", None),
            ("", None),
            ("localhost", None),
            ("0x7f.1", None),
            ("a:b", None),
        ] {
            assert_eq!(literal(text), ip.map(|ip| ip.parse().unwrap()), "{text}");
        }
    }

    fn ip(n: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, n])
    }

    fn refused(text: &str) -> io::Result<Vec<IpAddr>> {
        Err(io::Error::other(format!("failed to lookup address information: {text}")))
    }

    type Answers = Arc<Mutex<VecDeque<io::Result<Vec<IpAddr>>>>>;

    /// A resolver that gives these answers, then none any more, and how often it was asked.
    fn scripted(answers: Vec<io::Result<Vec<IpAddr>>>) -> (Resolver, Answers) {
        let answers = Arc::new(Mutex::new(VecDeque::from(answers)));
        let left = answers.clone();
        let resolver = Resolver::with_lookup(Handle::current(), move |host| {
            assert_eq!(host, "web");
            let answer = left.lock().unwrap().pop_front();
            Box::pin(async move {
                match answer {
                    Some(answer) => answer,
                    None => std::future::pending().await,
                }
            })
        });
        (resolver, answers)
    }

    fn shown(watch: &AddrWatch) -> String {
        match watch.current() {
            Addr::Bound(set) => set.endpoints.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
            other => format!("{other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_is_asked_for_every_five_seconds() {
        let (resolver, _) = scripted(vec![
            Ok(vec![ip(1), ip(2)]),
            Ok(vec![ip(2)]),
            refused("Temporary failure in name resolution"),
            refused("Name or service not known"),
            Ok(vec![ip(3)]),
        ]);
        let start = tokio::time::Instant::now();
        let mut watch = resolver.watch("web", 80, false);
        assert_eq!(shown(&watch), "Pending");
        let mut states = Vec::new();
        while states.len() < 4 {
            assert!(watch.changed().await);
            states.push(format!("{} after {}", shown(&watch), start.elapsed().as_secs()));
        }
        assert_eq!(
            states,
            [
                "web/10.0.0.1:80 web/10.0.0.2:80 after 0",
                "web/10.0.0.2:80 after 5",
                "Neg after 15",
                "web/10.0.0.3:80 after 20"
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_fixed_name_is_asked_for_until_it_is_known() {
        let (resolver, answers) = scripted(vec![refused("no"), Ok(vec![ip(1)]), Ok(vec![ip(2)])]);
        let mut watch = resolver.watch("web", 80, true);
        assert!(watch.changed().await);
        assert_eq!(shown(&watch), "Neg");
        assert!(watch.changed().await);
        assert_eq!(shown(&watch), "web/10.0.0.1:80");
        assert!(tokio::time::timeout(Duration::from_secs(100), watch.changed()).await.is_err());
        assert_eq!(answers.lock().unwrap().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn watchers_share_a_task_which_ends_with_the_last() {
        let (resolver, answers) = scripted(vec![Ok(vec![ip(1)]), Ok(vec![ip(1)]), Ok(vec![ip(1)])]);
        let mut one = resolver.watch("web", 80, false);
        let two = resolver.watch("web", 80, false);
        assert!(one.same(&two));
        assert!(one.changed().await);
        drop((one, two));
        tokio::time::sleep(Duration::from_secs(100)).await;
        assert_eq!(answers.lock().unwrap().len(), 2, "asked once, and never for nobody");
        assert!(resolver.watched.lock().unwrap().is_empty());
    }
}
