//! Sockets: listen, connect, TLS, drain. No HTTP.
