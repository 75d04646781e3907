//! The stacks a request goes down, outermost first: server, path (a logical name), bound (what it binds to), client.
//! The order of the layers in each is contract; each file lists its own with the reason for every place.

pub(crate) mod bound;
pub(crate) mod client;
pub(crate) mod path;
pub(crate) mod server;
