//! statsd_exporter, which reads the tags of flavours: they must come back as they were. Graphite's it does not know; they go
//! before etsy's server, which leaves them in the name.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::Command;
use std::time::Duration;

use l5d_telemetry::MetricsTree;
use l5d_telemetry::format::statsd::{Flavor, Options, Pusher};
use l5d_testkit::{Process, free_port, free_udp_port, get, wait_for};

use crate::programs::cached;
use crate::suite::Suite;

const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn tags_of_every_flavor_come_back(suite: &Suite) {
    let (web, udp) = (SocketAddr::from((Ipv4Addr::LOCALHOST, free_port())), free_udp_port());
    let mut command = Command::new(cached("statsd_exporter-0.31.0/statsd_exporter", "statsd_exporter"));
    command
        .arg(format!("--web.listen-address={web}"))
        .arg(format!("--statsd.listen-udp=127.0.0.1:{udp}"))
        .arg("--statsd.listen-tcp=");
    let mut exporter = Process::start("statsd_exporter", &mut command).expect("statsd_exporter starts");
    exporter.wait_ready(PATIENCE, || get(web, "localhost", "/metrics").is_ok_and(|reply| reply.status == 200));
    let page = || get(web, "localhost", "/metrics").expect("it answers").text().to_string();
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket can be made");
    let flavors = [(Flavor::Dogstatsd, "dog"), (Flavor::Influx, "influx")];
    for (flavor, prefix) in flavors {
        let tree = MetricsTree::new();
        let options = Options { prefix: prefix.to_owned(), sample_rate: 1.0, flavor, ..Options::default() };
        let mut pusher = Pusher::new(&tree, options);
        let client = tree.scope("rt").scope("http").scope("client").scope("$/inet/127.1/8080");
        let service = client.scope("service").scope("svc/web");
        service.counter("requests").add(7);
        service.counter("success");
        service.stat("request_latency_ms").add(100);
        let _gauge = client.gauge("load", || -2.5);
        let flushed = pusher.flush(true, &mut |datagram| socket.send_to(datagram, ("127.0.0.1", udp)).is_ok());
        assert!(flushed.lines >= 5 && flushed.refused == 0, "{flushed:?}");
        let labels = r#"client="$/inet/127.1/8080",rt="http",service="svc/web""#;
        for line in [
            format!("{prefix}_rt_client_service_requests{{{labels}}} 7"),
            format!("{prefix}_rt_client_service_success{{{labels}}} 0"),
            format!("{prefix}_rt_client_service_request_latency_ms_sum{{{labels}}} 0.1"),
            format!("{prefix}_rt_client_load{{client=\"$/inet/127.1/8080\",rt=\"http\"}} -2.5"),
        ] {
            wait_for(&line, PATIENCE, || page().lines().any(|l| l == line).then_some(()));
        }
    }
    let tree = MetricsTree::new();
    let options = Options { prefix: "graphite".to_owned(), flavor: Flavor::Graphite, ..Options::default() };
    let mut pusher = Pusher::new(&tree, options);
    tree.scope("rt").scope("http").scope("client").scope("#/io.l5d.fs/web").counter("requests").add(7);
    pusher.flush(true, &mut |datagram| socket.send_to(datagram, ("127.0.0.1", suite.statsd().port())).is_ok());
    let name = "graphite.rt.client.requests;rt=http;client=_-io.l5d.fs-web";
    wait_for(name, PATIENCE, || (suite.statsd().counter(name) == 7.0).then_some(()));

    let page = page();
    let errors: Vec<&str> = page
        .lines()
        .filter(|line| {
            line.starts_with("statsd_exporter_sample_errors_total")
                || line.starts_with("statsd_exporter_tag_errors_total")
        })
        .filter(|line| !line.ends_with(" 0"))
        .collect();
    assert_eq!(errors, [""; 0]);
}
