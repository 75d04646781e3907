//! The pages of the telemeters, asked for over real sockets.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use l5d_admin::{AdminConfig, AdminServer, with_index};
use l5d_config::Cx;
use l5d_net::{DrainTrigger, drain};
use l5d_telemeters::{TelemeterContext, parse};
use l5d_telemetry::MetricsTree;

struct Running {
    addr: SocketAddr,
    trigger: Option<DrainTrigger>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    /// A server with the pages of these telemeters.
    fn new(tree: &MetricsTree, telemetry: &[&str]) -> Self {
        let mut handlers = Vec::new();
        for yaml in telemetry {
            let mut cx = Cx::new();
            let parsed = parse(&l5d_config::read(yaml).unwrap(), &mut cx);
            assert_eq!(cx.finish(), []);
            let (_, config) = parsed.unwrap();
            handlers.extend(config.build(&TelemeterContext { tree: tree.clone() }).unwrap().handlers());
        }
        let server = AdminServer::bind(AdminConfig::new((Ipv4Addr::LOCALHOST, 0).into()), tree).unwrap();
        let addr = server.local_addr();
        let (trigger, drain) = drain();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(server.serve(with_index(handlers), drain)).unwrap();
        });
        Self { addr, trigger: Some(trigger), thread: Some(thread) }
    }

    /// Head and body of the answer to a request whose connection ends with it.
    fn ask(&self, request: &str) -> (String, String) {
        let mut stream = TcpStream::connect(self.addr).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }

    fn get(&self, path: &str) -> (String, String) {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: localhost:9990\r\nConnection: close\r\n\r\n"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.trigger.take());
        let joined = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            joined.unwrap();
        }
    }
}

fn tree() -> MetricsTree {
    let tree = MetricsTree::new();
    let server = tree.scope("rt").scope("http").scope("server").scope("127.0.0.1/4140");
    server.counter("requests").add(7);
    tree
}

#[test]
fn prometheus_and_influxdb_are_where_linkerd_had_them() {
    let tree = tree();
    let server = Running::new(&tree, &["kind: io.l5d.prometheus", "kind: io.l5d.influxdb"]);
    let (head, body) = server.get("/admin/metrics/prometheus");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{head}");
    assert!(head.contains("\r\nCache-Control: no-store\r\n"), "{head}");
    let line = "rt:server:requests{rt=\"http\", server=\"127.0.0.1/4140\"} 7";
    assert!(body.lines().any(|l| l == line), "{body}");
    assert!(body.ends_with('\n'));

    let (head, body) = server.get("/admin/metrics/influxdb");
    assert!(head.contains("\r\nContent-Type: text/plain\r\n"), "{head}");
    let line = "rt:server,host=localhost:9990,rt=http,server=127.0.0.1/4140 requests=7";
    assert!(body.lines().any(|l| l == line), "{body}");
    let (_, body) = server.ask("GET /admin/metrics/influxdb HTTP/1.0\r\n\r\n");
    assert!(body.lines().any(|l| l == line.replace("localhost:9990", "none")), "{body}");

    for path in ["/admin/metrics/prometheus", "/admin/metrics/influxdb"] {
        let (head, _) = server.ask(&format!("POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
        assert!(head.starts_with("HTTP/1.1 405 ") && head.contains("\r\nAllow: GET, HEAD\r\n"), "{head}");
    }
    let (_, body) = server.get("/admin");
    assert!(body.contains("/admin/metrics/influxdb\n/admin/metrics/prometheus\n"), "{body}");
}

#[test]
fn without_their_telemeters_the_pages_are_not_there() {
    let server = Running::new(&tree(), &["kind: io.l5d.prometheus\npath: /metrics"]);
    assert!(server.get("/metrics").0.starts_with("HTTP/1.1 200 "));
    for path in ["/admin/metrics/prometheus", "/admin/metrics/influxdb"] {
        let (head, body) = server.get(path);
        assert!(head.starts_with("HTTP/1.1 404 ") && body.is_empty(), "{head}");
    }
}

#[test]
fn a_page_of_many_series_comes_whole() {
    let tree = MetricsTree::new();
    let service = tree.scope("rt").scope("http").scope("service");
    let counters: Vec<_> = (0..20_000).map(|i| service.scope(&format!("svc/{i}")).counter("requests")).collect();
    let server = Running::new(&tree, &["kind: io.l5d.prometheus", "kind: io.l5d.influxdb"]);
    for path in ["/admin/metrics/prometheus", "/admin/metrics/influxdb"] {
        // HTTP/1.0, so that the body is not in chunks.
        let (_, body) = server.ask(&format!("GET {path} HTTP/1.0\r\n\r\n"));
        assert!(body.len() > 300_000);
        assert_eq!(body.lines().filter(|line| line.contains("svc/")).count(), counters.len(), "{path}");
    }
}
