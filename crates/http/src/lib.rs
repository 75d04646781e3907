//! HTTP/1.1 on top of the router: servers, clients, and the four stacks between them.

pub mod config;
