//! The binding caches (§5): what makes room in a full one, what is used once, what leaves when it is idle.

use std::collections::BTreeMap;

use l5d_testkit::{Response, wait_until};
use serde_json::Value;
use tempfile::TempDir;

use crate::proxy::{Gate, Proxy, Setup, ok};

/// Upstreams at these ports as `/svc/0` and `/svc/1`, with these sizes of the caches.
fn started(ports: [u16; 2], sizes: &str) -> Proxy {
    let dtab = format!("/svc/0 => /$/inet/127.1/{}; /svc/1 => /$/inet/127.1/{}", ports[0], ports[1]);
    Setup::router(format!("dtab: {dtab}\nbindingCache: {{{sizes}}}")).start()
}

/// The metrics of one moment.
struct Metrics(BTreeMap<String, Value>);

impl Metrics {
    fn of(proxy: &Proxy) -> Self {
        Self(proxy.scrape().json())
    }

    /// Misses, evicts, expires and one-shots of a cache.
    fn counts(&self, cache: &str) -> [u64; 4] {
        ["misses", "evicts", "expires", "oneshots"]
            .map(|what| self.0[&format!("rt/http/bindcache/{cache}/{what}")].as_u64().expect("a counter"))
    }

    /// Which of the clients there are.
    fn clients(&self, ports: [u16; 2]) -> [bool; 2] {
        ports.map(|port| self.0.contains_key(&format!("rt/http/client/$/inet/127.1/{port}/retries/requeues")))
    }
}

/// Whichever cache is full: what is idle makes room, and is made again when its name is asked for. The caches above a
/// full one keep what they have.
#[test]
fn what_is_idle_makes_room() {
    for (sizes, evicts) in [
        ("clients: 1", [0, 0, 0, 4]),
        ("bounds: 1", [0, 0, 4, 0]),
        ("trees: 1", [0, 4, 0, 0]),
        ("paths: 1", [4, 0, 0, 0]),
        ("trees: 1, clients: 1", [0, 4, 0, 4]),
        ("paths: 1, trees: 1, bounds: 1, clients: 1", [4, 4, 4, 4]),
    ] {
        let (one, two) = (ok(), ok());
        let ports = [one.port(), two.port()];
        let proxy = started(ports, sizes);
        for host in ["0", "0", "1", "1", "0", "1", "1", "0", "0"] {
            assert_eq!(proxy.get(host, "/").status, 200);
        }
        let metrics = Metrics::of(&proxy);
        // Two names, and four turns to the other one. What is worked out anew is bound anew: two bindings are never the
        // same.
        let made = |full: bool| if full { 5 } else { 2 };
        let [paths, trees, bounds, clients] = evicts.map(|evicts| evicts > 0);
        let misses = [made(paths), made(paths || trees), made(paths || bounds), made(clients)];
        for (i, cache) in ["path", "tree", "bound", "client"].into_iter().enumerate() {
            assert_eq!(metrics.counts(cache), [misses[i], evicts[i], 0, 0], "{sizes}: {cache}");
        }
        // What is evicted takes its metrics along.
        assert_eq!(metrics.clients(ports), [true, evicts[3] == 0], "{sizes}");
    }
}

/// With nothing idle a client is made for one request, each time.
#[test]
fn what_is_in_use_stays() {
    let (gate, fast) = (Gate::default(), ok());
    let slow = gate.hold(Response::ok("late"));
    let ports = [slow.port(), fast.port()];
    let proxy = started(ports, "clients: 1");
    let mut waiting = proxy.connect();
    waiting.send("GET / HTTP/1.1\r\nhost: 0\r\n\r\n").expect("l5d takes bytes");
    wait_until("the upstream to be asked", || slow.requests().len() == 1);
    for _ in 0..3 {
        assert_eq!(proxy.get("1", "/").text(), "ok");
    }
    let metrics = Metrics::of(&proxy);
    assert_eq!(metrics.counts("client"), [4, 0, 0, 3]);
    assert_eq!(metrics.counts("bound"), [2, 0, 0, 0]);
    assert_eq!(metrics.clients(ports), [true, false]);
    gate.open();
    assert_eq!(waiting.reply("GET").expect("an answer").text(), "late");
    assert_eq!(proxy.get("1", "/").text(), "ok");
    let metrics = Metrics::of(&proxy);
    assert_eq!(metrics.counts("client"), [5, 1, 0, 3]);
    assert_eq!(metrics.clients(ports), [false, true]);
}

/// A response that is under way keeps its client, though its head has long been answered.
#[test]
fn a_stream_keeps_its_client() {
    let (gate, fast) = (Gate::default(), ok());
    let (port, serving) = gate.hold_stream();
    let proxy = started([port, fast.port()], "clients: 1");
    let mut reading = proxy.connect();
    reading.send("GET / HTTP/1.1\r\nhost: 0\r\n\r\n").expect("l5d takes bytes");
    proxy.wait_for_count(&format!("server/127.0.0.1/{}/status/200", proxy.server.port()), 1);
    assert_eq!(proxy.get("1", "/").text(), "ok");
    assert_eq!(Metrics::of(&proxy).counts("client"), [2, 0, 0, 1]);
    gate.open();
    assert_eq!(reading.reply("GET").expect("an answer").text(), "firstsecond");
    serving.join().expect("the upstream is content");
    assert_eq!(proxy.get("1", "/").text(), "ok");
    assert_eq!(Metrics::of(&proxy).counts("client"), [3, 1, 0, 1]);
}

/// Of a union only that is made which a request took.
#[test]
fn a_union_is_made_as_it_is_taken() {
    let (one, two) = (ok(), ok());
    let dtab = format!("dtab: /svc/x => /$/inet/127.1/{} & /$/inet/127.1/{}", one.port(), two.port());
    let proxy = Setup::router(dtab).and("bindingCache: {clients: 1}").start();
    assert_eq!(proxy.get("x", "/").status, 200);
    let metrics = Metrics::of(&proxy);
    assert_eq!(["tree", "bound", "client"].map(|cache| metrics.counts(cache)), [[1, 0, 0, 0]; 3]);
    wait_until("both to be asked", || {
        assert_eq!(proxy.get("x", "/").status, 200);
        !one.requests().is_empty() && !two.requests().is_empty()
    });
    // The one makes room for the other, though they are of one name: no request is on its way.
    let metrics = Metrics::of(&proxy);
    let [misses, evicts, expires, oneshots] = metrics.counts("client");
    assert_eq!([misses - evicts, expires, oneshots], [1, 0, 0]);
    assert_eq!(metrics.counts("bound"), [2, 0, 0, 0]);
}

/// What is idle for longer than `idleTtlSecs` leaves all caches at once, and its metrics with it; the name used last
/// stays.
#[test]
fn what_is_idle_leaves() {
    let (one, two) = (ok(), ok());
    let ports = [one.port(), two.port()];
    let proxy = started(ports, "idleTtlSecs: 1");
    assert_eq!(proxy.get("0", "/").status, 200);
    assert_eq!(Metrics::of(&proxy).clients(ports), [true, false]);
    let mut metrics = Metrics::of(&proxy);
    wait_until("a name to expire", || {
        assert_eq!(proxy.get("1", "/").status, 200);
        metrics = Metrics::of(&proxy);
        metrics.counts("path")[2] > 0
    });
    for cache in ["path", "tree", "bound", "client"] {
        assert_eq!(metrics.counts(cache), [2, 0, 1, 0], "{cache}");
    }
    assert_eq!(metrics.clients(ports), [false, true]);
    assert!(!metrics.0.contains_key("rt/http/service/svc/0/requests"));
}

/// What a name has counted beneath a client stays when the name moves on, as long as both are there.
#[test]
fn counts_of_a_way_outlive_it() {
    let (one, two) = (ok(), ok());
    let folder = TempDir::new().expect("a temporary folder can be made");
    let file = folder.path().join("dtab");
    let bind = |port| std::fs::write(&file, format!("/svc/x => /$/inet/127.1/{port};")).expect("a file can be written");
    bind(one.port());
    let proxy = Setup::router(format!("interpreter: {{kind: io.l5d.fs, dtabFile: {}}}", file.display())).start();
    assert_eq!(proxy.get("x", "/").status, 200);
    bind(two.port());
    wait_until("the name to move on", || {
        assert_eq!(proxy.get("x", "/").status, 200);
        !two.requests().is_empty()
    });
    let counts = [&one, &two].map(|upstream| {
        let client = format!("client/$/inet/127.1/{}", upstream.port());
        let seen = upstream.requests().len() as u64;
        (proxy.count(&format!("{client}/service/svc/x/requests")), proxy.count(&format!("{client}/requests")), seen)
    });
    assert!(counts.iter().all(|(of_name, of_client, seen)| of_name == of_client && of_client == seen), "{counts:?}");
}
