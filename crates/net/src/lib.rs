//! Sockets: listen, connect, TLS, drain. No HTTP.
//!
//! What speaks a protocol lives above this crate; what names a service lives beside it. Here is only what a byte stream
//! needs: sockets bound and opened with the options a configuration names ([`bind`], [`connect()`], [`SocketOptions`]), the
//! same stream with or without TLS ([`Stream`], [`ServerTls`], [`ClientTls`]), the orderly end of whatever serves them
//! ([`drain()`]), what the kernel knows of connections ([`tcp_info()`], [`TcpSampler`]), and tasks that wait for changes on
//! another thread than that which made them ([`Follower`]). Nothing here is global: a TLS
//! provider is made where it is used.

mod certificate;
mod connect;
mod drain;
mod follower;
mod listen;
mod socket_options;
mod stream;
mod tcp_info;
mod tcp_sampler;
mod tls;

pub use connect::connect;
pub use drain::{Drain, DrainTrigger, drain};
pub use follower::Follower;
pub use listen::bind;
pub use socket_options::SocketOptions;
pub use stream::{SocketTimeout, Stream, TimedStream};
pub use tcp_info::{TcpInfo, tcp_info};
pub use tcp_sampler::{Sampled, TcpSampler};
pub use tls::{ClientAuth, ClientTls, ClientTlsConfig, ServerTls, ServerTlsConfig, TlsError};
