//! Things a message passes that are a noun of their own: the access log, compression, `Forwarded`, the nack throttle.

pub(crate) mod access_log;
pub(crate) mod compression;
pub(crate) mod forwarded;
pub(crate) mod nack;
