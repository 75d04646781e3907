//! Where the collector is.
//!
//! An address is what it is. A name is looked up at once, every 30 seconds while that works, and with growing pauses from 10
//! seconds on while it doesn't. There is never more than one lookup at a time. Names are asked for on another thread: a
//! resolver that hangs holds up nobody.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use l5d_admin::BoxFuture;
use tokio::time::{Instant, sleep_until};

/// Finds the addresses of a host and port.
pub(super) type Lookup = Arc<dyn Fn((String, u16)) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync>;

/// The system's resolver.
pub(super) fn by_system() -> Lookup {
    Arc::new(|name| Box::pin(async move { Ok(tokio::net::lookup_host(name).await?.collect()) }))
}

/// Between two lookups when the first one worked.
const AGAIN: Duration = Duration::from_secs(30);
/// Between two lookups when the first one failed; doubled each time, up to [`AGAIN`].
const RETRY: Duration = Duration::from_secs(10);

/// A collector that may move.
pub(super) struct Target {
    name: (String, u16),
    lookup: Lookup,
    state: State,
    retry: Duration,
}

enum State {
    /// An address that was never a name; told once.
    Fixed(Option<SocketAddr>),
    Waiting(Instant),
    Asking(BoxFuture<'static, io::Result<Vec<SocketAddr>>>),
}

impl Target {
    pub(super) fn new(host: String, port: u16, lookup: Lookup) -> Self {
        let state = match host.parse::<IpAddr>() {
            Ok(ip) => State::Fixed(Some((ip, port).into())),
            Err(_) => State::Waiting(Instant::now()),
        };
        Self { name: (host, port), lookup, state, retry: RETRY }
    }

    /// The next thing to be known about the collector's addresses. May be dropped and called again: nothing is lost.
    pub(super) async fn next(&mut self) -> io::Result<Vec<SocketAddr>> {
        loop {
            match &mut self.state {
                State::Fixed(addr) => match addr.take() {
                    Some(addr) => return Ok(vec![addr]),
                    None => std::future::pending().await,
                },
                State::Waiting(until) => {
                    sleep_until(*until).await;
                    self.state = State::Asking((self.lookup)(self.name.clone()));
                }
                State::Asking(answer) => {
                    let answer = match answer.await {
                        Ok(none) if none.is_empty() => Err(io::Error::other("the name has no addresses")),
                        answer => answer,
                    };
                    let pause = if answer.is_ok() { AGAIN } else { self.retry };
                    self.retry = if answer.is_ok() { RETRY } else { (self.retry * 2).min(AGAIN) };
                    self.state = State::Waiting(Instant::now() + pause);
                    return answer;
                }
            }
        }
    }
}
