//! `l5d demo`, the first command of the README, with the page's commands and ports exactly as they are printed.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::process::Command;
use std::time::Duration;

use l5d_testkit::{Process, Scrape, get, wait_for, wait_until};

use crate::l5d::bin;
use crate::page::{FIRST_METRICS, prints_the_first_metrics};
use crate::programs::{curl, run};
use crate::readme;
use crate::statsd::StatsdServer;
use crate::suite::Suite;

/// Router and admin server of the demo, and the StatsD server that the page names. They are fixed, which is the demo's point.
const ROUTER: u16 = 4140;
const ADMIN: u16 = 9990;
const STATSD: u16 = 8125;

const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn the_readmes_first_command_shows_traffic_in_every_format(_: &Suite) {
    wait_for(
        "the ports 4140, 9990 and UDP 8125 to be free: what listens there must be stopped first",
        PATIENCE,
        || {
            let tcp = [ROUTER, ADMIN].into_iter().map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)));
            let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, STATSD));
            (tcp.collect::<Result<Vec<_>, _>>().is_ok() && udp.is_ok()).then_some(())
        },
    );
    assert!(readme::block("bash", "demo").contains("cargo run --release -- demo"));
    let statsd = StatsdServer::start_at(STATSD);
    let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, ADMIN));
    let mut demo = Process::start("l5d demo", Command::new(bin()).arg("demo")).expect("l5d starts");
    demo.wait_ready(PATIENCE, || get(admin, "localhost", "/admin/ping").is_ok_and(|reply| reply.status == 200));

    let ask = || run(&mut curl(&["-H", "Host: quick", "http://localhost:4140/"]), b"");
    wait_until("the router to listen", || ask().code == 0);
    let (scrape, ours) = (Scrape::of(admin), 25);
    for _ in 0..ours {
        assert_eq!(ask().code, 0);
    }
    let count = |name: &str| scrape.count(name);
    wait_until("our requests to be counted", || count("rt/demo/service/svc/quick/requests") > ours);
    // The demo has a client of its own: every upstream is asked, and one of them fails now and then.
    for name in ["quick", "slow", "flaky"] {
        wait_until(name, || count(&format!("rt/demo/service/svc/{name}/success")) > 0);
    }
    prints_the_first_metrics(FIRST_METRICS);
    let server = "127.0.0.1/4140";
    assert!(
        scrape
            .prometheus()
            .iter()
            .any(|sample| sample.name == "rt:server:requests" && sample.labels["server"] == server)
    );
    assert!(scrape.influxdb().iter().any(|point| point.measurement == "rt:server" && point.tags["server"] == server));
    let pushed = "linkerd.rt.demo.service.svc.quick.requests";
    wait_for("StatsD to be told", PATIENCE, || (statsd.counter(pushed) > ours as f64).then_some(()));
    statsd.no_bad_line();

    demo.signal("INT");
    assert!(demo.wait().success(), "{}", demo.output());
}
