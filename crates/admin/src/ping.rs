//! `/admin/ping`: whether somebody is at home.

use crate::{Handler, Response};

pub(crate) fn handler() -> Handler {
    // Any method will do, as in twitter-server.
    Handler::of("/admin/ping", |_| Response::text("pong"))
}
