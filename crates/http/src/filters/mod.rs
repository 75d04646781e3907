//! Things a message passes that are a noun of their own: the access log, an endpoint's authority, the caller's
//! certificate, compression, deadlines, diagnostic traces, `Forwarded`, the nack throttle.

pub(crate) mod access_log;
pub(crate) mod authority;
pub(crate) mod client_cert;
pub(crate) mod compression;
pub(crate) mod deadline;
pub(crate) mod diagnostic_trace;
pub(crate) mod forwarded;
pub(crate) mod nack;
