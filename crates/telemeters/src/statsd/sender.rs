//! Sending datagrams, and knowing what became of them.
//!
//! UDP tells little: a send succeeds when the packet has left, and if nobody listens the kernel may say so at a later call.
//! So before the first datagram a line without effect (a counter's increment by 0) goes ahead, and after a refusal such lines
//! go alone until one of them has stayed unrefused for a flush. While the collector is away nothing else is sent, and the
//! pusher keeps the counts: on loopback, where a refusal comes at once, a collector that starts late misses no count.
//!
//! Everything is counted under `statsd/`: `datagrams`, `lines` and `bytes` that were sent, `dropped/<cause>` datagrams that
//! were not (their counts are sent later, their timings and gauges are lost), `dropped/oversize` lines that fit into no
//! datagram. A change for the worse or the better is logged once.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use l5d_telemetry::format::statsd::Pusher;
use l5d_telemetry::{Counter, Scope};
use tracing::{info, warn};

pub(super) struct Sender {
    /// As configured, for the log.
    collector: String,
    /// The line without effect.
    probe: Vec<u8>,
    socket: Option<(SocketAddr, UdpSocket)>,
    trust: Trust,
    told: Told,
    counts: Counts,
}

struct Counts {
    datagrams: Counter,
    lines: Counter,
    bytes: Counter,
    resolve_failures: Counter,
    unresolved: Counter,
    refused: Counter,
    full: Counter,
    failed: Counter,
    oversize: Counter,
}

/// What is believed of whoever listens at the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    /// Nothing was sent yet.
    New,
    /// Nothing has spoken against it.
    Good,
    /// The last thing sent was refused.
    Refused,
    /// A probe was sent after a refusal; if it isn't refused before the next flush, all is well again.
    Probed,
}

/// Why a datagram was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// There is no address.
    Unresolved,
    /// Nobody listens.
    Refused,
    /// The system has no room for it now.
    Full,
    /// Anything else: no route, not allowed, …
    Failed,
}

/// What was last logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Nothing,
    Sending,
    Not(Cause),
}

impl Sender {
    pub(super) fn new(scope: &Scope, prefix: &str, collector: String) -> Self {
        // As the pusher writes it.
        let clean = |c: char| if c.is_ascii_alphanumeric() || "_.-".contains(c) { c } else { '_' };
        let prefix: String = prefix.chars().map(clean).collect();
        let point = if prefix.is_empty() { "" } else { "." };
        let dropped = scope.scope("dropped");
        let counts = Counts {
            datagrams: scope.counter("datagrams"),
            lines: scope.counter("lines"),
            bytes: scope.counter("bytes"),
            resolve_failures: scope.counter("resolve_failures"),
            unresolved: dropped.counter("unresolved"),
            refused: dropped.counter("refused"),
            full: dropped.counter("full"),
            failed: dropped.counter("failed"),
            oversize: dropped.counter("oversize"),
        };
        Self {
            collector,
            probe: format!("{prefix}{point}statsd.datagrams:0|c").into_bytes(),
            socket: None,
            trust: Trust::New,
            told: Told::Nothing,
            counts,
        }
    }

    /// The collector's addresses, or why they aren't known. The one in use stays in use while it is among them.
    pub(super) fn aim(&mut self, found: io::Result<Vec<SocketAddr>>) {
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                self.counts.resolve_failures.incr();
                if self.socket.is_none() {
                    self.tell_not(Cause::Unresolved, &error);
                }
                return;
            }
        };
        if self.socket.as_ref().is_some_and(|(addr, _)| found.contains(addr)) {
            return;
        }
        let Some(&addr) = found.first() else { return };
        match open(addr) {
            Ok(socket) => {
                info!(collector = %self.collector, %addr, "statsd: found the collector");
                self.socket = Some((addr, socket));
                self.trust = Trust::New;
            }
            Err(error) => self.tell_not(Cause::Failed, &error),
        }
    }

    /// Sends what there is to send, as far as it goes.
    pub(super) fn flush(&mut self, pusher: &mut Pusher, gauges: bool) {
        let mut away = self.away();
        let mut failed = false;
        let flushed = pusher.flush(gauges, &mut |datagram| {
            let cause = match away {
                Some(cause) => cause,
                None => match self.send(datagram) {
                    Ok(()) => return true,
                    Err(cause) => cause,
                },
            };
            match cause {
                // The next datagram would fare no better.
                Cause::Unresolved | Cause::Refused => away = Some(cause),
                Cause::Failed => failed = true,
                Cause::Full => {}
            }
            self.counts.dropped(cause).incr();
            false
        });
        self.counts.oversize.add(flushed.oversize);
        if away.is_none() && !failed && self.told != Told::Sending {
            info!(collector = %self.collector, "statsd: sending");
            self.told = Told::Sending;
        }
    }

    /// Whether it is known that nothing can be sent now, and why.
    fn away(&mut self) -> Option<Cause> {
        if self.socket.is_none() {
            return Some(Cause::Unresolved);
        }
        self.heard_refusal();
        match self.trust {
            Trust::Good | Trust::Probed => self.trust = Trust::Good,
            Trust::New => {
                if !self.probe() {
                    return Some(Cause::Refused);
                }
                self.trust = Trust::Good;
            }
            Trust::Refused => {
                if self.probe() {
                    self.trust = Trust::Probed;
                }
                return Some(Cause::Refused);
            }
        }
        None
    }

    /// Sends a line without effect; false if that was refused at once.
    fn probe(&mut self) -> bool {
        let probe = std::mem::take(&mut self.probe);
        let sent = self.send(&probe);
        self.probe = probe;
        sent != Err(Cause::Refused) && !self.heard_refusal()
    }

    /// Whether the kernel has heard in the meantime that nobody listens; if so, that is believed.
    fn heard_refusal(&mut self) -> bool {
        let heard = self.socket.as_ref().and_then(|(_, socket)| socket.take_error().ok().flatten());
        match heard {
            Some(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                self.trust = Trust::Refused;
                self.tell_not(Cause::Refused, &error);
                true
            }
            _ => false,
        }
    }

    fn send(&mut self, datagram: &[u8]) -> Result<(), Cause> {
        let Some((_, socket)) = &self.socket else { return Err(Cause::Unresolved) };
        match socket.send(datagram) {
            Ok(_) => {
                self.counts.datagrams.incr();
                self.counts.lines.add(datagram.split(|&byte| byte == b'\n').count() as u64);
                self.counts.bytes.add(datagram.len() as u64);
                Ok(())
            }
            Err(error) => {
                let cause = match error.kind() {
                    io::ErrorKind::WouldBlock => return Err(Cause::Full),
                    io::ErrorKind::ConnectionRefused => {
                        self.trust = Trust::Refused;
                        Cause::Refused
                    }
                    _ => Cause::Failed,
                };
                self.tell_not(cause, &error);
                Err(cause)
            }
        }
    }

    /// Logs that nothing is sent and why, unless that is what was logged last.
    fn tell_not(&mut self, cause: Cause, error: &io::Error) {
        if self.told != Told::Not(cause) {
            warn!(collector = %self.collector, %error, "statsd: cannot send, counts are kept until it works");
            self.told = Told::Not(cause);
        }
    }
}

impl Counts {
    fn dropped(&self, cause: Cause) -> &Counter {
        match cause {
            Cause::Unresolved => &self.unresolved,
            Cause::Refused => &self.refused,
            Cause::Full => &self.full,
            Cause::Failed => &self.failed,
        }
    }
}

/// A socket that only knows this address, so that refusals find their way back to it, and that never waits.
fn open(addr: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = if addr.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_nonblocking(true)?;
    socket.connect(addr)?;
    Ok(socket)
}
