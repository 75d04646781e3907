//! The l5d processes that consumers read, and the traffic that they have had.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use l5d_testkit::{Downstream, L5d, Response, Scrape, Upstream, free_port, free_port_on, get, wait_until};

/// The program under test.
pub(crate) fn bin() -> PathBuf {
    std::env::var_os("L5D_BIN").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_l5d")), PathBuf::from)
}

/// Statistics roll once a second, so that a test need not wait a minute for them.
pub(crate) const EACH_SECOND: &str = "-io.buoyant.telemetry.admin.histogramSnapshotInterval=1.seconds";

/// How long the upstream of [`Mesh`] takes for `/slow`: far above what a request takes otherwise.
pub(crate) const SLOW: Duration = Duration::from_millis(40);

/// Starts l5d with that configuration, statistics rolling each second.
pub(crate) fn start(config: &str, admin: SocketAddr) -> L5d {
    L5d::start(bin(), &[EACH_SECOND], config, admin)
}

/// What one process of [`Mesh`] was sent: requests by what was asked of the upstream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    pub(crate) good: u64,
    pub(crate) missing: u64,
    pub(crate) broken: u64,
}

impl Sent {
    pub(crate) fn all(self) -> u64 {
        self.good + self.missing + self.broken
    }
}

/// One process of [`Mesh`].
pub(crate) struct Node {
    pub(crate) l5d: L5d,
    pub(crate) server: SocketAddr,
    pub(crate) sent: Sent,
}

impl Node {
    /// The server's name in metrics: `127.0.0.2/4140`.
    pub(crate) fn server_name(&self) -> String {
        format!("{}/{}", self.server.ip(), self.server.port())
    }
}

/// Three l5d processes on 127.0.0.1, 127.0.0.2 and 127.0.0.3, all with the same ports, as three hosts would have, and one
/// upstream behind them. Each has had traffic of its own and gets no more, so its counters stand still.
pub(crate) struct Mesh {
    pub(crate) nodes: Vec<Node>,
    pub(crate) upstream: Upstream,
    /// Each process's Prometheus page before its first request.
    pub(crate) untouched: Vec<String>,
}

impl Mesh {
    pub(crate) fn start() -> Self {
        let upstream = Upstream::start(|request| match request.target.as_str() {
            "/missing" => Response::new(404).body("not here"),
            "/broken" => Response::new(500).body("sorry"),
            "/slow" => Response::ok("at last").after(SLOW),
            _ => Response::ok("hello"),
        });
        let ips: Vec<IpAddr> = (1..=3).map(|last| IpAddr::V4(Ipv4Addr::new(127, 0, 0, last))).collect();
        let (admin, port) = (free_port_on(&ips), free_port_on(&ips));
        let mut mesh = Self { nodes: Vec::new(), upstream, untouched: Vec::new() };
        for (ip, sent) in ips.into_iter().zip([
            Sent { good: 7, missing: 2, broken: 1 },
            Sent { good: 31, missing: 0, broken: 4 },
            Sent { good: 112, missing: 5, broken: 0 },
        ]) {
            let upstream = mesh.upstream.port();
            let config = format!(
                "admin: {{ip: {ip}, port: {admin}}}\n\
                 telemetry:\n- kind: io.l5d.prometheus\n- kind: io.l5d.influxdb\n\
                 routers:\n- protocol: http\n  dtab: |\n    /svc/web => /$/inet/127.1/{upstream};\n  \
                 servers:\n  - {{ip: {ip}, port: {port}}}\n"
            );
            let l5d = start(&config, SocketAddr::new(ip, admin));
            mesh.untouched.push(l5d.scrape().text("/admin/metrics/prometheus"));
            mesh.nodes.push(Node { l5d, server: SocketAddr::new(ip, port), sent });
        }
        for node in &mesh.nodes {
            let mut downstream = Downstream::connect(node.server).expect("l5d listens");
            let mut ask = |target: &str, times: u64, status: u16| {
                for _ in 0..times {
                    let reply = downstream.get("web", target).unwrap_or_else(|error| panic!("{target}: {error}"));
                    assert_eq!(reply.status, status, "{target}: {}", String::from_utf8_lossy(&reply.body));
                }
            };
            ask("/slow", 1, 200);
            ask("/", node.sent.good - 1, 200);
            ask("/missing", node.sent.missing, 404);
            ask("/broken", node.sent.broken, 500);
        }
        for node in &mesh.nodes {
            let name = format!("rt/http/server/{}/requests", node.server_name());
            wait_until(&format!("{name} = {}", node.sent.all()), || node.l5d.scrape().count(&name) == node.sent.all());
            let stat = format!("rt/http/server/{}/request_latency_ms.count", node.server_name());
            wait_until(&format!("{stat} to appear"), || node.l5d.scrape().json().contains_key(&stat));
        }
        mesh
    }

    /// The id of the one client: `$/inet/127.1/8080`.
    pub(crate) fn client_name(&self) -> String {
        format!("$/inet/127.1/{}", self.upstream.port())
    }
}

/// Labels of routers as nobody should choose them. Each router has had three requests.
pub(crate) const LABELS: &[&str] = &[
    "with \"quotes\"",
    "with, commas=and equals",
    "back\\slash",
    "ends in one\\",
    "ünïcödé 🍭",
    "#{curly}, \\n %s",
    "\ttab\t",
    "http",
];

/// Names of services that callers make up by their Host header. All are routed to the one upstream.
pub(crate) const HOSTS: &[&str] = &[
    "quo\"te",
    "comma,equals=space here",
    "back\\slash\\",
    "\\x5b::1\\x5d",
    "[::1]:8080",
    "bücher.example",
    "🍭",
    "{},=%$#!()@",
    "a:b:1|c",
    "UPPER.example:80",
];

/// One l5d process with [`LABELS`] as its routers, each of them asked for every one of [`HOSTS`], one long name, and `web` three times.
pub(crate) struct Hostile {
    pub(crate) l5d: L5d,
    servers: Vec<SocketAddr>,
    _upstream: Upstream,
}

impl Hostile {
    pub(crate) fn start() -> Self {
        let upstream = Upstream::start(|request| match request.headers.get("host") {
            Some("slow") => Response::ok("at last").after(SLOW),
            _ => Response::ok("hello"),
        });
        let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let servers: Vec<SocketAddr> =
            LABELS.iter().map(|_| SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()))).collect();
        let l5d = start(&hostile_config(admin, &servers, upstream.port(), ""), admin);
        hostile_traffic(&servers);
        Self { l5d, servers, _upstream: upstream }
    }

    pub(crate) fn scrape(&self) -> Scrape {
        self.l5d.scrape()
    }

    /// One more request to the router `http`, for a service of its own, that takes [`SLOW`].
    pub(crate) fn ask_slow(&self) {
        let server = self.servers.last().expect("there are labels");
        assert_eq!(get(*server, "slow", "/").expect("l5d answers").status, 200);
    }
}

/// A configuration with a router for each of [`LABELS`]; `more` is put among its telemeters.
pub(crate) fn hostile_config(admin: SocketAddr, servers: &[SocketAddr], upstream: u16, more: &str) -> String {
    use std::fmt::Write;
    let mut config = format!(
        "admin: {{ip: {}, port: {}}}\ntelemetry:\n- kind: io.l5d.prometheus\n- kind: io.l5d.influxdb\n{more}routers:\n",
        admin.ip(),
        admin.port()
    );
    for (label, server) in LABELS.iter().zip(servers) {
        // JSON's strings are YAML's double-quoted ones.
        let label = json_string(label);
        write!(
            config,
            "- protocol: http\n  label: {label}\n  maxHeadersKB: 128\n  dtab: /svc => /$/inet/127.1/{upstream}\n  \
             servers:\n  - {{ip: {}, port: {}}}\n",
            server.ip(),
            server.port()
        )
        .expect("a string can be written to");
    }
    config
}

/// `text` between double quotes, for JSON and YAML.
pub(crate) fn json_string(text: &str) -> String {
    let mut quoted = String::from("\"");
    for char in text.chars() {
        match char {
            '"' | '\\' => quoted.extend(['\\', char]),
            '\t' => quoted.push_str("\\t"),
            other => quoted.push(other),
        }
    }
    quoted + "\""
}

/// To each server: three requests for `web`, one for each of [`HOSTS`], and one whose Host header has 70 000 letters.
pub(crate) fn hostile_traffic(servers: &[SocketAddr]) {
    let long = "long-".repeat(14_000);
    for server in servers {
        let hosts = ["web", "web", "web"].iter().chain(HOSTS).copied().chain([long.as_str()]);
        for host in hosts {
            // A connection each, since l5d may refuse a Host that breaks the rules of HTTP, and close.
            let reply = Downstream::connect(*server).and_then(|mut downstream| downstream.get(host, "/"));
            let reply = reply.unwrap_or_else(|error| panic!("Host {:.60}: {error}", host));
            assert!(
                host != "web" || reply.status == 200,
                "Host {:.60}: {}",
                host,
                String::from_utf8_lossy(&reply.body)
            );
        }
    }
}
