//! Pushgateway: the strictest reader of the text format, which refuses a body with two samples of one series.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use l5d_testkit::{Downstream, Process, Reply, free_port, get};

use crate::programs::installed;
use crate::prometheus::bodies;
use crate::suite::Suite;

pub(crate) struct Pushgateway {
    addr: SocketAddr,
    _process: Process,
}

impl Pushgateway {
    pub(crate) fn start() -> Self {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let mut command = installed("prometheus-pushgateway", "pushgateway");
        command.arg(format!("--web.listen-address={addr}")).arg("--web.enable-admin-api");
        let mut process = Process::start("pushgateway", &mut command).expect("pushgateway starts");
        process.wait_ready(Duration::from_secs(30), || {
            get(addr, "localhost", "/-/ready").is_ok_and(|reply| reply.status == 200)
        });
        Self { addr, _process: process }
    }

    /// Whether it accepts a body as the only one that it has.
    pub(crate) fn takes(&self, body: &[u8]) -> Result<(), String> {
        // Groups of one family must agree with one another, and bodies are of different processes: one at a time.
        assert_eq!(self.put("/api/v1/admin/wipe", b"").status, 202);
        let answer = self.put("/metrics/job/l5d", body);
        if answer.status == 200 { Ok(()) } else { Err(format!("{} {}", answer.status, answer.text())) }
    }

    fn put(&self, path: &str, body: &[u8]) -> Reply {
        let asked =
            Downstream::connect(self.addr).and_then(|mut c| c.request("PUT", path, &[("host", "localhost")], body));
        asked.unwrap_or_else(|error| panic!("PUT {path}: {error}"))
    }
}

pub(crate) fn every_body_is_accepted(suite: &Suite) {
    let pushgateway = suite.pushgateway();
    let doubled = b"a{b=\"c\"} 1\na{b=\"c\"} 2\n";
    assert_eq!(pushgateway.put("/metrics/job/doubled", doubled).status, 400, "the judge sleeps");
    for (name, body) in bodies(suite) {
        // Groups of one family must agree with one another, and these pages are of different processes: one at a time.
        assert_eq!(pushgateway.put("/api/v1/admin/wipe", b"").status, 202);
        let answer = pushgateway.put("/metrics/job/l5d", body.as_bytes());
        assert_eq!(answer.status, 200, "{name}: {}", answer.text());
    }
}
