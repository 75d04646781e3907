//! Ports that nobody uses.
//!
//! They come from below the range that the kernel hands to outgoing connections, so that no client of another test can take one
//! between our look and its use. Two tests of one process never get the same one; two processes start their search at different
//! places.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};

const LOWEST: u32 = 20_000;
const COUNT: u32 = 12_000; // up to 31 999; Linux' outgoing connections start at 32 768

/// How many ports this process has looked at. Global on purpose: it is what keeps parallel tests of one process apart.
static TRIED: AtomicU32 = AtomicU32::new(0);

/// A TCP port that is free on 127.0.0.1.
///
/// # Panics
/// When no port of the range is free.
pub fn free_port() -> u16 {
    free_port_on(&[IpAddr::V4(Ipv4Addr::LOCALHOST)])
}

/// A TCP port that is free on every one of `ips`, such as 127.0.0.1, 127.0.0.2 and 127.0.0.3.
///
/// # Panics
/// When no port of the range is free on all of them.
pub fn free_port_on(ips: &[IpAddr]) -> u16 {
    search(|port| ips.iter().all(|ip| TcpListener::bind(SocketAddr::new(*ip, port)).is_ok()))
}

/// A UDP port that is free on 127.0.0.1.
///
/// # Panics
/// When no port of the range is free.
pub fn free_udp_port() -> u16 {
    search(|port| UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok())
}

fn search(is_free: impl Fn(u16) -> bool) -> u16 {
    let start = std::process::id().wrapping_mul(2_654_435_761) >> 8;
    for _ in 0..COUNT {
        let tried = TRIED.fetch_add(1, Ordering::Relaxed);
        let port = LOWEST + start.wrapping_add(tried) % COUNT;
        let port = u16::try_from(port).expect("the range ends below 65536");
        if is_free(port) {
            return port;
        }
    }
    panic!("no free port between {LOWEST} and {}", LOWEST + COUNT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_port_is_given_out_twice() {
        let mut ports: Vec<u16> = (0..50).map(|_| free_port()).collect();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 50);
    }

    #[test]
    fn a_taken_port_is_passed_over() {
        let port = free_port();
        let _taken = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        assert!((0..COUNT / 2).map(|_| free_port()).all(|other| other != port));
    }
}
