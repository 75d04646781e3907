//! A StatsD server's ear: a UDP socket that remembers datagrams.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A UDP socket on 127.0.0.1 that keeps what it is sent, until it is dropped.
#[derive(Debug)]
pub struct StatsdSink {
    addr: SocketAddr,
    datagrams: Arc<Mutex<Vec<Vec<u8>>>>,
    stopped: Arc<AtomicBool>,
}

impl StatsdSink {
    /// A sink on a free port.
    ///
    /// # Panics
    /// When it can't be bound.
    pub fn start() -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port of loopback can be bound");
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("50 ms is a timeout");
        let addr = socket.local_addr().expect("a bound socket has an address");
        let (datagrams, stopped) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (ours, until) = (Arc::clone(&datagrams), Arc::clone(&stopped));
        std::thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            while !until.load(Ordering::Acquire) {
                if let Ok(length) = socket.recv(&mut buffer) {
                    ours.lock().expect("no holder panics").push(buffer[..length].to_vec());
                }
            }
        });
        Self { addr, datagrams, stopped }
    }

    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        self.addr.port()
    }

    /// Every datagram so far.
    pub fn datagrams(&self) -> Vec<Vec<u8>> {
        self.datagrams.lock().expect("no holder panics").clone()
    }

    /// Every line of every datagram so far.
    ///
    /// # Panics
    /// When a datagram is not UTF-8.
    pub fn lines(&self) -> Vec<String> {
        let text = |datagram: Vec<u8>| String::from_utf8(datagram).expect("datagrams are text");
        self.datagrams().into_iter().flat_map(|one| text(one).lines().map(str::to_owned).collect::<Vec<_>>()).collect()
    }

    /// The values of the lines of that name and type (`c`, `g`, `ms`), in order, each with its sample rate (1 where none is told).
    pub fn values(&self, name: &str, kind: &str) -> Vec<(f64, f64)> {
        self.lines()
            .iter()
            .filter_map(|line| {
                let mut parts = line.strip_prefix(name)?.strip_prefix(':')?.split('|');
                let value = parts.next()?.parse().ok()?;
                (parts.next()? == kind).then_some(())?;
                let rate = parts.next().and_then(|rate| rate.strip_prefix('@')?.parse().ok()).unwrap_or(1.0);
                Some((value, rate))
            })
            .collect()
    }

    /// What a StatsD server would have counted under that name: each value divided by its rate.
    pub fn counted(&self, name: &str) -> f64 {
        self.values(name, "c").iter().map(|(value, rate)| value / rate).sum()
    }
}

impl Drop for StatsdSink {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_added_up_as_statsd_would() {
        let sink = StatsdSink::start();
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        for datagram in ["a.b:1|c|@0.500000\na.b:3|c\na.bc:9|c", "a.b:7|g"] {
            socket.send_to(datagram.as_bytes(), ("127.0.0.1", sink.port())).unwrap();
        }
        crate::wait_until("two datagrams", || sink.datagrams().len() == 2);
        assert!((sink.counted("a.b") - 5.0).abs() < 1e-9);
        assert_eq!(sink.values("a.b", "g"), [(7.0, 1.0)]);
    }
}
