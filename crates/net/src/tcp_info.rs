//! What the kernel knows of TCP connections: `TCP_INFO`, asked by netlink (`sock_diag(7)`).
//!
//! `getsockopt` would need `unsafe`; a netlink socket is written and read like any other. Each connection is asked for by
//! its two addresses, which the kernel looks up in its table. A dump of all sockets would be one question instead of
//! many, but walks the whole table, other processes' connections included: 2 ms on an idle machine, where a look-up
//! takes 10 µs.

use std::io;
use std::net::SocketAddr;

/// What the kernel knows of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpInfo {
    /// Segments that were sent again since the connection began.
    pub retransmits: u32,
    /// The congestion window in bytes: so much may be under way without an answer.
    pub send_window: u64,
}

/// What the kernel knows of these connections, each given by its local and its remote address. `None` for those that it
/// doesn't know: closed ones, mostly. Blocks for microseconds a connection, and for no answer longer than a second.
///
/// # Errors
/// When the kernel doesn't answer: no Linux, a sandbox that allows no netlink.
pub fn tcp_info(connections: &[(SocketAddr, SocketAddr)]) -> io::Result<Vec<Option<TcpInfo>>> {
    system::tcp_info(connections)
}

#[cfg(not(target_os = "linux"))]
mod system {
    use super::*;

    pub(super) fn tcp_info(_: &[(SocketAddr, SocketAddr)]) -> io::Result<Vec<Option<TcpInfo>>> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "only Linux is asked about its TCP connections"))
    }
}

#[cfg(target_os = "linux")]
mod system {
    use std::io::Read;
    use std::time::{Duration, Instant};

    use netlink_packet_core::{NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload};
    use netlink_packet_sock_diag::inet::nlas::Nla;
    use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags};
    use netlink_packet_sock_diag::{AF_INET, AF_INET6, AF_NETLINK, IPPROTO_TCP, SockDiagMessage, TCP_LISTEN};
    use socket2::{Domain, Socket, Type};

    use super::*;

    /// From `linux/netlink.h`.
    const NETLINK_SOCK_DIAG: i32 = 4;
    /// So many questions at a time: their answers, about a kilobyte each, fit the socket's buffer however small it is set.
    const BATCH: usize = 32;
    /// The kernel answers before the question's `send` returns. Should it not, nobody waits for ever.
    const TIMEOUT: Duration = Duration::from_secs(1);

    pub(super) fn tcp_info(connections: &[(SocketAddr, SocketAddr)]) -> io::Result<Vec<Option<TcpInfo>>> {
        let socket = Socket::new(Domain::from(i32::from(AF_NETLINK)), Type::DGRAM, Some(NETLINK_SOCK_DIAG.into()))?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        let mut known = vec![None; connections.len()];
        let mut datagram = vec![0; 16 * 1024];
        for (batch, connections) in connections.chunks(BATCH).enumerate() {
            let first = batch * BATCH;
            let mut questions = Vec::new();
            for (i, &(local, peer)) in connections.iter().enumerate() {
                ask((first + i) as u32, local, peer, &mut questions);
            }
            socket.send(&questions)?;
            let deadline = Instant::now() + TIMEOUT;
            let mut asked = first..first + connections.len();
            while !asked.is_empty() {
                if Instant::now() >= deadline {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "netlink did not answer within a second"));
                }
                let length = match (&socket).read(&mut datagram) {
                    Ok(length) => length,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                    Err(e) => return Err(e),
                };
                // Answers come in the order of the questions.
                for (number, answer) in answers(&datagram[..length]) {
                    let number = number as usize;
                    if asked.contains(&number) {
                        known[number] = answer?;
                        asked.start = number + 1;
                    }
                }
            }
        }
        Ok(known)
    }

    /// Appends the question for one connection.
    fn ask(number: u32, local: SocketAddr, peer: SocketAddr, questions: &mut Vec<u8>) {
        // The kernel keeps an IPv4 peer of an IPv6 socket with the IPv4 connections.
        let (source_address, destination_address) = (local.ip().to_canonical(), peer.ip().to_canonical());
        let interface_id = match peer {
            SocketAddr::V4(_) => 0,
            SocketAddr::V6(peer) => peer.scope_id(),
        };
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST;
        header.sequence_number = number;
        let request = InetRequest {
            family: if destination_address.is_ipv4() { AF_INET } else { AF_INET6 },
            protocol: IPPROTO_TCP,
            extensions: ExtensionFlags::INFO,
            states: StateFlags::all(),
            socket_id: SocketId {
                source_port: local.port(),
                destination_port: peer.port(),
                source_address,
                destination_address,
                interface_id,
                cookie: [0xff; 8], // any
            },
        };
        let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
        message.finalize();
        let begin = questions.len();
        questions.resize(begin + message.buffer_len(), 0);
        message.serialize(&mut questions[begin..]);
    }

    /// The numbers of the questions that are answered here, and the answers. What can't be read tells nothing.
    fn answers(mut datagram: &[u8]) -> Vec<(u32, io::Result<Option<TcpInfo>>)> {
        let mut answers = Vec::new();
        while let Ok(message) = NetlinkBuffer::new_checked(datagram) {
            let (number, length) = (message.sequence_number(), message.length() as usize);
            let answer = match NetlinkMessage::<SockDiagMessage>::deserialize(datagram).map(|message| message.payload) {
                Ok(NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response))) => Ok(info(&response)),
                Ok(NetlinkPayload::Error(error)) => match error.to_io() {
                    gone if gone.kind() == io::ErrorKind::NotFound => Ok(None),
                    refused => Err(refused),
                },
                _ => Ok(None),
            };
            answers.push((number, answer));
            // Messages begin at multiples of four.
            datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        answers
    }

    fn info(response: &InetResponse) -> Option<TcpInfo> {
        // For a connection that is gone the kernel answers with the socket that listens on its port, if one does.
        if response.header.state == TCP_LISTEN {
            return None;
        }
        let tcp_info = response.nlas.iter().find_map(|nla| match nla {
            Nla::TcpInfo(bytes) => Some(bytes.as_slice()),
            _ => None,
        })?;
        // `struct tcp_info` only ever grows at its end.
        let field = |at: usize| tcp_info.get(at..)?.first_chunk().copied().map(u32::from_ne_bytes);
        let (segment_bytes, window_segments, retransmits) = (field(16)?, field(80)?, field(100)?);
        Some(TcpInfo { retransmits, send_window: u64::from(window_segments) * u64::from(segment_bytes) })
    }

    #[cfg(test)]
    mod tests {
        use std::net::{TcpListener, TcpStream};

        use super::*;

        fn addresses(socket: &TcpStream) -> (SocketAddr, SocketAddr) {
            (socket.local_addr().unwrap(), socket.peer_addr().unwrap())
        }

        fn pair(listener: &TcpListener, to: SocketAddr) -> (TcpStream, TcpStream) {
            let near = TcpStream::connect(to).unwrap();
            (near, listener.accept().unwrap().0)
        }

        #[test]
        fn both_ends_of_a_connection_are_known_and_have_a_window() {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let (near, far) = pair(&listener, listener.local_addr().unwrap());
            let known = tcp_info(&[addresses(&near), addresses(&far)]).unwrap();
            for info in known {
                let info = info.expect("it is open");
                assert!(info.send_window > 1000, "bytes, not segments: {info:?}");
                assert_eq!(info.retransmits, 0);
            }
        }

        #[test]
        fn addresses_of_both_families_are_asked_for_as_the_kernel_keeps_them() {
            // Without IPv6 in the kernel there is nothing to ask.
            let Ok(listener) = TcpListener::bind("[::]:0") else { return };
            let port = listener.local_addr().unwrap().port();
            let (v6, v6_far) = pair(&listener, (std::net::Ipv6Addr::LOCALHOST, port).into());
            let (v4, v4_far) = pair(&listener, (std::net::Ipv4Addr::LOCALHOST, port).into());
            assert!(addresses(&v4_far).1.is_ipv6(), "an IPv4 peer of an IPv6 socket shows as mapped");
            let known = tcp_info(&[&v6, &v6_far, &v4, &v4_far].map(addresses)).unwrap();
            assert!(known.iter().all(Option::is_some), "{known:?}");
        }

        #[test]
        fn more_connections_than_fit_one_datagram_are_told_apart_from_those_that_are_gone() {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let to = listener.local_addr().unwrap();
            let open: Vec<_> = (0..3 * BATCH).map(|_| pair(&listener, to)).collect();
            // A listener answers for port `to.port()`; nobody does for the other one.
            let nobody: SocketAddr = "127.0.0.1:1".parse().unwrap();
            let mut asked = vec![(to, nobody), (nobody, to)];
            asked.extend(open.iter().flat_map(|(near, far)| [addresses(near), addresses(far)]));
            let known = tcp_info(&asked).unwrap();
            assert_eq!(known[..2], [None, None]);
            assert!(known[2..].iter().all(Option::is_some), "{known:?}");
            assert_eq!(tcp_info(&[]).unwrap(), []);
        }

        /// An answer as Linux 6 gives it, with what it tells unasked and a `tcp_info` of this many bytes.
        fn answer(number: u32, tcp_info_bytes: usize) -> Vec<u8> {
            let mut tcp_info: Vec<u8> = (0..tcp_info_bytes).map(|i| i as u8).collect();
            for (at, value) in [(16, 1000_u32), (80, 12), (100, 3)] {
                if let Some(field) = tcp_info.get_mut(at..at + 4) {
                    field.copy_from_slice(&value.to_ne_bytes());
                }
            }
            let mut message = Vec::new();
            message.extend([2, 1, 0, 0]); // AF_INET, established
            message.resize(72, 0);
            for (kind, value) in [(8_u16, &[0_u8][..]), (21, &[0; 8]), (2, &tcp_info)] {
                message.extend(((value.len() + 4) as u16).to_ne_bytes());
                message.extend(kind.to_ne_bytes());
                message.extend(value);
                message.resize(message.len().next_multiple_of(4), 0);
            }
            let mut datagram = Vec::new();
            datagram.extend((message.len() as u32 + 16).to_ne_bytes());
            datagram.extend(20_u16.to_ne_bytes()); // SOCK_DIAG_BY_FAMILY
            datagram.extend(0_u16.to_ne_bytes());
            datagram.extend(number.to_ne_bytes());
            datagram.extend(0_u32.to_ne_bytes());
            datagram.extend(message);
            datagram
        }

        fn read(datagram: &[u8]) -> Vec<(u32, Option<TcpInfo>)> {
            answers(datagram).into_iter().map(|(number, answer)| (number, answer.unwrap())).collect()
        }

        #[test]
        fn the_window_is_told_in_bytes_by_old_and_new_kernels() {
            let info = Some(TcpInfo { retransmits: 3, send_window: 12_000 });
            let two = [answer(7, 104), answer(8, 280)].concat();
            assert_eq!(read(&two), [(7, info), (8, info)]);
            assert_eq!(read(&answer(9, 96)), [(9, None)], "from before the fields that are needed");
        }

        #[test]
        fn no_answer_however_broken_does_harm() {
            let whole = answer(7, 104);
            for length in 0..whole.len() {
                assert_eq!(read(&whole[..length]), [], "cut to {length}");
            }
            for at in 0..whole.len() {
                for byte in [0, 1, 3, 0x7f, 0xff] {
                    let mut broken = whole.clone();
                    broken[at] = byte;
                    let answers = answers(&broken);
                    assert!(answers.len() <= broken.len() / 16, "byte {at} is {byte}: {answers:?}");
                }
            }
        }
    }
}
