//! etsy's StatsD daemon, asked over its management port what it has counted.
//!
//! It flushes once in an hour only, so that counters and timings can be read back at leisure.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use l5d_testkit::{Downstream, L5d, Process, Response, Upstream, free_port, free_udp_port, get, wait_for, wait_until};

use crate::l5d::{LABELS, hostile_config, hostile_traffic, start};
use crate::programs::{cached, installed};
use crate::readme;
use crate::suite::Suite;

/// Gauges and counters are pushed each ten seconds as the page configures it: twice that and something for a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct StatsdServer {
    port: u16,
    management: SocketAddr,
    _process: Process,
    _folder: tempfile::TempDir,
}

impl StatsdServer {
    pub(crate) fn start() -> Self {
        Self::start_at(free_udp_port())
    }

    /// A server on that UDP port.
    pub(crate) fn start_at(port: u16) -> Self {
        let script = cached("statsd-0.9.0/node_modules/statsd/stats.js", "statsd");
        let folder = tempfile::TempDir::new().expect("a temporary folder can be made");
        let management = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let config = format!(
            "{{ port: {port}, address: \"127.0.0.1\", mgmt_port: {}, mgmt_address: \"127.0.0.1\", flushInterval: 3600000,\n\
             backends: [\"./backends/console\"], dumpMessages: false }}\n",
            management.port()
        );
        let file = folder.path().join("config.js");
        std::fs::write(&file, config).expect("a file can be written");
        let mut command: Command = installed("node", "statsd");
        command.arg(script).arg(&file);
        let mut process = Process::start("statsd", &mut command).expect("statsd starts");
        process.wait_ready(Duration::from_secs(30), || TcpStream::connect(management).is_ok());
        Self { port, management, _process: process, _folder: folder }
    }

    /// The lines that answer a management command.
    fn ask(&self, command: &str) -> Vec<String> {
        let mut stream = TcpStream::connect(self.management).expect("statsd's management port accepts");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("20 s is a timeout");
        writeln!(stream, "{command}").expect("statsd reads commands");
        let lines = BufReader::new(stream).lines().map(|line| line.expect("statsd answers in text"));
        lines.take_while(|line| line != "END").collect()
    }

    /// Counters or gauges whose names begin so. The answer is a JavaScript object as its console prints it: `'name': 5,`.
    fn numbers(&self, family: &str, prefix: &str) -> BTreeMap<String, f64> {
        let lines = self.ask(family);
        let pairs = lines
            .iter()
            .filter_map(|line| line.trim().trim_start_matches('{').trim().strip_prefix('\'')?.split_once("': "));
        pairs
            .filter(|(name, _)| name.starts_with(prefix))
            .map(|(name, value)| {
                let value = value.trim_end_matches([',', '}', ' ']);
                (name.to_owned(), value.parse().unwrap_or_else(|_| panic!("{family} {name} is {value}")))
            })
            .collect()
    }

    pub(crate) fn counter(&self, name: &str) -> f64 {
        self.numbers("counters", name).get(name).copied().unwrap_or(0.0)
    }

    fn gauge(&self, name: &str) -> Option<f64> {
        self.numbers("gauges", name).get(name).copied()
    }

    /// The timings of that name, which are few enough that the answer holds them all.
    fn timings(&self, name: &str) -> Vec<f64> {
        let text = self.ask("timers").join(" ");
        let Some((_, rest)) = text.split_once(&format!("'{name}': [")) else { return Vec::new() };
        let inside = rest.split(']').next().unwrap_or_default();
        assert!(!inside.contains("more item"), "{name}: {inside}");
        inside.split(',').filter_map(|number| number.trim().parse().ok()).collect()
    }

    pub(crate) fn no_bad_line(&self) {
        assert_eq!(self.bad_lines(), 0);
        assert!(self.counter("statsd.bad_lines_seen") == 0.0);
    }

    pub(crate) fn bad_lines(&self) -> u64 {
        let stats = self.ask("stats");
        let bad = stats.iter().find_map(|line| line.strip_prefix("messages.bad_lines_seen: ")?.parse().ok());
        bad.unwrap_or_else(|| panic!("{stats:?}"))
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

/// One l5d that pushes to the server, its one HTTP server, and the upstream behind it.
struct Pushing {
    l5d: L5d,
    server: SocketAddr,
    _upstream: Upstream,
}

impl Pushing {
    /// `block` is a `telemetry:` section with nothing but StatsD.
    fn start(block: &str) -> Self {
        let upstream = Upstream::start(|request| match request.target.as_str() {
            "/broken" => Response::new(500),
            _ => Response::ok("hello"),
        });
        let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let server = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let config = format!(
            "admin: {{port: {}}}\n{block}routers:\n- protocol: http\n  dtab: /svc/web => /$/inet/127.1/{}\n  servers:\n  - port: {}\n",
            admin.port(),
            upstream.port(),
            server.port()
        );
        Self { l5d: start(&config, admin), server, _upstream: upstream }
    }

    fn name(&self, prefix: &str, metric: &str) -> String {
        format!("{prefix}.rt.http.server.127_0_0_1.{}.{metric}", self.server.port())
    }

    fn ask(&self, target: &str, times: u32) {
        let mut downstream = Downstream::connect(self.server).expect("l5d listens");
        for _ in 0..times {
            downstream.get("web", target).unwrap_or_else(|error| panic!("{target}: {error}"));
        }
    }
}

fn block(port: u16, prefix: &str, interval_ms: u32, rate: f64) -> String {
    format!(
        "telemetry:\n- kind: io.l5d.statsd\n  experimental: true\n  prefix: {prefix}\n  hostname: 127.0.0.1\n  port: {port}\n  \
         gaugeIntervalMs: {interval_ms}\n  sampleRate: {rate}\n"
    )
}

/// The README's block, of which only the port is not the one that is printed.
pub(crate) fn counts_are_exact_at_the_pages_sample_rate(suite: &Suite) {
    let statsd = suite.statsd();
    let block =
        readme::replaced(readme::block("yaml", "io.l5d.statsd"), "port: 8125", &format!("port: {}", statsd.port));
    let pushing = Pushing::start(&block);
    // 777 requests, of which Linkerd 1.7.5 made 1300 here.
    pushing.ask("/", 700);
    pushing.ask("/broken", 77);
    for (metric, wanted) in
        [("requests", 777.0), ("success", 700.0), ("failures", 77.0), ("status.500", 77.0), ("connects", 2.0)]
    {
        let name = pushing.name("linkerd", metric);
        wait_for(&format!("{name} = {wanted}"), PATIENCE, || {
            let counted = statsd.counter(&name);
            assert!(counted <= wanted, "{name} is {counted}, more than was sent");
            (counted == wanted).then_some(())
        });
    }
    let gauge = "linkerd.jvm.uptime";
    wait_for("the gauges", PATIENCE, || statsd.gauge(gauge).filter(|value| *value > 0.0));
    let timings = statsd.timings(&pushing.name("linkerd", "request_latency_ms")).len();
    assert!(timings < 300, "{timings} of 777 timings came at a rate of 0.01");
    statsd.no_bad_line();
}

pub(crate) fn counts_and_timings_are_exact_at_rate_one(suite: &Suite) {
    let statsd = suite.statsd();
    let pushing = Pushing::start(&block(statsd.port, "all", 200, 1.0));
    let (requests, latency) = (pushing.name("all", "requests"), pushing.name("all", "request_latency_ms"));
    for round in 1..=3 {
        pushing.ask("/", 20);
        let wanted = f64::from(20 * round);
        wait_for(&format!("{requests} = {wanted}"), PATIENCE, || (statsd.counter(&requests) == wanted).then_some(()));
    }
    wait_for("as many timings", PATIENCE, || (statsd.timings(&latency).len() == 60).then_some(()));
    statsd.no_bad_line();
}

pub(crate) fn gauges_come_each_interval(suite: &Suite) {
    let statsd = suite.statsd();
    let pushing = Pushing::start(&block(statsd.port, "gauges", 200, 0.01));
    let open = pushing.name("gauges", "connections");
    let is = |wanted: f64| {
        wait_for(&format!("{open} = {wanted}"), PATIENCE, || (statsd.gauge(&open) == Some(wanted)).then_some(()));
    };
    is(0.0);
    let mut held: Vec<Downstream> = (0..3).map(|_| Downstream::connect(pushing.server).expect("l5d listens")).collect();
    for downstream in &mut held {
        downstream.get("web", "/").expect("l5d answers");
    }
    is(3.0);
    held.truncate(1);
    is(1.0);
    // Sent again when nothing has changed: a server that forgot it hears of it again.
    for _ in 0..2 {
        statsd.ask(&format!("delgauges {open}"));
        is(1.0);
    }
    statsd.no_bad_line();
}

pub(crate) fn hostile_names_make_no_bad_line(suite: &Suite) {
    let statsd = suite.statsd();
    let upstream = Upstream::start(|_| Response::ok("hello"));
    let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let servers: Vec<SocketAddr> =
        LABELS.iter().map(|_| SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()))).collect();
    let more = block(statsd.port, "hostile", 200, 1.0).replace("telemetry:\n", "");
    let _l5d = start(&hostile_config(admin, &servers, upstream.port(), &more), admin);
    hostile_traffic(&servers);
    for (label, server) in LABELS.iter().zip(&servers) {
        let ours: String = label.chars().map(|char| if char.is_ascii_alphanumeric() { char } else { '_' }).collect();
        let name = format!("hostile.rt.{ours}.server.127_0_0_1.{}.connects", server.port());
        wait_for(&name, PATIENCE, || (statsd.counter(&name) > 0.0).then_some(()));
        let name = format!("hostile.rt.{ours}.service.svc.web.requests");
        wait_for(&name, PATIENCE, || (statsd.counter(&name) == 3.0).then_some(()));
    }
    statsd.no_bad_line();
}

/// Neither a name that does not resolve nor a port that refuses may stop the start or the traffic.
pub(crate) fn an_unreachable_server_stops_nothing(_: &Suite) {
    let refusing = block(free_udp_port(), "gone", 100, 1.0);
    let unknown = "- kind: io.l5d.statsd\n  experimental: true\n  hostname: statsd.invalid\n  gaugeIntervalMs: 100\n";
    let pushing = Pushing::start(&format!("{refusing}{unknown}"));
    pushing.ask("/", 50);
    let name = format!("rt/http/server/127.0.0.1/{}/requests", pushing.server.port());
    wait_until("fifty requests", || pushing.l5d.scrape().count(&name) == 50);
    assert!(get(pushing.l5d.admin(), "localhost", "/admin/ping").is_ok());
}
