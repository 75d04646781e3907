//! What makes metrics move: one function a subject, each with a process, upstreams and traffic of its own.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use l5d_testkit::{Response, StatsdSink, Upstream, free_port, free_udp_port, wait_until};
use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;

use crate::seen::Seen;
use crate::stage::{Gate, Raw, Stage, chunked, connect, get, local, nack, read_head, write};

/// What it is about, and what it does.
type Scenario = (&'static str, fn(&Seen));

/// All of them.
pub(crate) const ALL: &[Scenario] = &[
    ("exchanges", exchanges),
    ("failures", failures),
    ("refusals", refusals),
    ("connections that end too early", stale_connections),
    ("balancers", balancers),
    ("pools and sessions", pools),
    ("limits of the binding caches", caches),
    ("sockets that are full", full_sockets),
    ("sockets that time out", socket_timeouts),
    ("TLS", tls),
    ("the admin server", admin),
    ("the access log", access_log),
    ("telemeters", telemeters),
];

fn ok() -> Upstream {
    Upstream::start(|_| Response::ok("ok"))
}

/// Requests that succeed, whole and streamed, with everything that a caller may send along.
fn exchanges(seen: &Seen) {
    let (upstream, raw, port) = (ok(), Raw::start(), free_port());
    let stage = Stage::start(
        seen,
        "",
        &format!(
            "routers:\n- protocol: http\n  originator: true\n  dtab: /svc/ok => /$/inet/127.1/{}; /svc/raw => /$/inet/127.1/{}\n  \
             servers: [{{port: {port}, maxConcurrentRequests: 50}}]\n",
            upstream.port(),
            raw.port
        ),
    );
    let mut caller = connect(port);
    for deadline in ["1 2", "1 2", "1 2", "1 2", "1 2", "1 2", "1 9000000000000000000"] {
        let headers = [("Host", "ok"), ("l5d-ctx-deadline", deadline), ("l5d-dtab", "/a => /b")];
        assert_eq!(caller.request("POST", "/", &headers, b"body").expect("an answer").status, 200);
    }
    // A streamed exchange, seen while both bodies are under way.
    caller.send(chunked("raw", "/") + "5\r\nhello\r\n").expect("l5d takes bytes");
    let mut upstream = raw.accept();
    read_head(&mut upstream);
    write(&mut upstream, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
    stage.until("server", &["http/stream/{request,response}/pending", "connections"]);
    stage.until("client", &["http/stream/{request,response}/pending", "pool_size", "loadbalancer/load"]);
    caller.send("0\r\n\r\n").expect("l5d takes bytes");
    write(&mut upstream, "0\r\n\r\n");
    assert_eq!(caller.reply("POST").expect("an answer").text(), "abc");
    // One that waits for its head.
    caller.send("GET / HTTP/1.1\r\nHost: raw\r\nConnection: close\r\n\r\n").expect("l5d takes bytes");
    read_head(&mut upstream);
    stage.until("server", &["pending", "request_concurrency"]);
    for level in ["service", "client", "client's service"] {
        stage.until(level, &["pending"]);
    }
    write(&mut upstream, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    assert_eq!(caller.reply("GET").expect("an answer").text(), "ok");
    for bad in ["Bad Name: x", "Bad-Value: a\u{0}b"] {
        let mut caller = connect(port);
        caller.send(format!("GET / HTTP/1.1\r\nHost: ok\r\n{bad}\r\n\r\n")).expect("l5d takes bytes");
        assert_eq!(caller.reply("GET").expect("an answer").status, 400);
    }
    stage.until("server", &["closes", "connection_duration", "rejected_invalid_header_names"]);
    stage.until("server", &["rejected_invalid_header_values", "tcp_send_window_size"]);
    stage.until("client", &["pool_cached", "tcp_send_window_size"]);
    drop(stage);
}

/// Answers that are none, or that break off; time limits; retries, and when there are no more.
fn failures(seen: &Seen) {
    let (raw, dead, port, limited) = (Raw::start(), free_port(), free_port(), free_port());
    let failing = Upstream::start(|_| Response::new(500).body("no"));
    let stage = Stage::start(
        seen,
        "",
        &format!(
            "routers:\n- protocol: http\n  dtab: /svc/raw => /$/inet/127.1/{}; /svc/dead => /$/inet/127.1/{dead}; \
             /svc/failing => /$/inet/127.1/{}\n  service:\n    responseClassifier: {{kind: io.l5d.http.retryableRead5XX}}\n    \
             retries: {{budget: {{ttlSecs: 10, minRetriesPerSec: 0, percentCanRetry: 1.0}}}}\n  \
             servers:\n  - port: {port}\n  - {{port: {limited}, timeoutMs: 200}}\n",
            raw.port,
            failing.port()
        ),
    );
    // A POST is not retried, a GET is, until the budget is empty.
    let post = "POST / HTTP/1.1\r\nHost: raw\r\nContent-Length: 0\r\n\r\n";
    let mut caller = connect(port);
    caller.send(post).expect("l5d takes bytes");
    let mut upstream = raw.accept();
    read_head(&mut upstream);
    write(&mut upstream, "EHLO nonsense\r\n\r\n");
    assert_eq!(caller.reply("POST").expect("an answer").status, 502);
    caller.send(post).expect("l5d takes bytes");
    let mut upstream = raw.accept();
    read_head(&mut upstream);
    write(&mut upstream, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
    drop(upstream);
    assert!(caller.reply("POST").is_err(), "the answer breaks off");
    let mut caller = connect(limited);
    caller.send(post).expect("l5d takes bytes");
    let _held = raw.accept();
    assert_eq!(caller.reply("POST").expect("an answer").status, 503);
    assert_eq!(get(port, "dead").expect("an answer").status, 502);
    assert_eq!(get(port, "nowhere").expect("an answer").status, 502);
    for _ in 0..2 {
        assert_eq!(get(port, "failing").expect("an answer").status, 500);
    }
    stage.until("service", &["retries/total", "retries/budget_exhausted", "retries/budget", "failures/<flag>"]);
    stage.until("server", &["sourcedfailures/<source>", "dispatch/stream/failures"]);
    stage.until("client", &["retries/not_open", "dispatcher/stream/failures", "status/error"]);
}

/// Nacks from both sides: what this proxy refuses, and what becomes of refusals that it gets.
fn refusals(seen: &Seen) {
    let (raw, held, port, narrow) = (Raw::start(), Gate::default(), free_port(), free_port());
    let holding = held.hold(Response::ok("late"));
    let refusing = Upstream::start(|_| nack());
    let stage = Stage::start(
        seen,
        "",
        &format!(
            "routers:\n- protocol: http\n  dtab: /svc/raw => /$/inet/127.1/{raw}; /svc/held => /$/inet/127.1/{}; \
             /svc/refusing => /$/inet/127.1/{}\n  client:\n    kind: io.l5d.static\n    configs:\n    - prefix: /\n      \
             failureAccrual: {{kind: none}}\n    - prefix: /$/inet/127.1/{raw}\n      \
             requeueBudget: {{ttlSecs: 60, minRetriesPerSec: 0, percentCanRetry: 1.0}}\n  \
             servers:\n  - port: {port}\n  - {{port: {narrow}, maxConcurrentRequests: 1}}\n",
            holding.port(),
            refusing.port(),
            raw = raw.port,
        ),
    );
    assert_eq!(get(port, "refusing").expect("an answer").status, 502);
    stage.until("client", &["retries/requeues", "retries/request_limit", "failures/<flag>"]);
    stage.until("service", &["sourcedfailures/<source>/<flag>"]);
    // A success buys one requeue; of two requests that are refused at once, only one can have it.
    let mut callers = [connect(port), connect(port)];
    callers[0].send("GET / HTTP/1.1\r\nHost: raw\r\n\r\n").expect("l5d takes bytes");
    let mut first = raw.accept();
    read_head(&mut first);
    write(&mut first, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    assert_eq!(callers[0].reply("GET").expect("an answer").status, 200);
    for caller in &mut callers {
        caller.send("GET / HTTP/1.1\r\nHost: raw\r\n\r\n").expect("l5d takes bytes");
    }
    let mut second = raw.accept();
    for upstream in [&mut first, &mut second] {
        read_head(upstream);
    }
    let nack = "HTTP/1.1 503 Busy\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n";
    for upstream in [&mut first, &mut second] {
        write(upstream, nack);
    }
    // The requeue comes on either connection, or on a new one.
    let answering = [first, second].map(|mut upstream| {
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while upstream.read(&mut bytes).is_ok_and(|n| n > 0) {
                write(&mut upstream, nack);
            }
        })
    });
    for caller in &mut callers {
        assert_eq!(caller.reply("GET").expect("an answer").status, 502);
    }
    stage.until("client", &["retries/budget_exhausted", "retries/budget", "nack_admission_control/ema_value"]);
    // The second request of a server that takes one.
    let mut caller = connect(narrow);
    caller.send("GET / HTTP/1.1\r\nHost: held\r\n\r\n").expect("l5d takes bytes");
    wait_until("the request to be there", || !holding.requests().is_empty());
    assert_eq!(get(narrow, "held").expect("an answer").status, 503);
    held.open();
    assert_eq!(caller.reply("GET").expect("an answer").status, 200);
    stage.until("server", &["nacks", "failures/<flag>", "failures/[<flag>/]<exception>/<its cause>"]);
    drop(stage);
    for thread in answering {
        thread.join().expect("an upstream does not panic");
    }
}

/// Endpoints that reset connections at moments of their own: some requests meet one that has just been reset.
fn stale_connections(seen: &Seen) {
    let (raw, port) = (Raw::start(), free_port());
    let stage = Stage::start(
        seen,
        "",
        &format!(
            "routers:\n- protocol: http\n  dtab: /svc/* => /$/inet/127.1/{}\n  client:\n    failureAccrual: \
             {{kind: io.l5d.consecutiveFailures, failures: 1, backoff: {{kind: constant, ms: 1}}}}\n  \
             servers: [{{port: {port}}}]\n",
            raw.port
        ),
    );
    std::thread::spawn(move || {
        // Each of them answers one request and closes a little later, without having read its body: that resets it.
        for wait in (0..300).step_by(20).cycle() {
            let Some(mut upstream) = raw.next() else { return };
            std::thread::spawn(move || {
                read_head(&mut upstream);
                write(&mut upstream, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
                let from = Instant::now();
                while from.elapsed() < Duration::from_micros(wait) {
                    std::hint::spin_loop();
                }
            });
        }
    });
    let mut callers: Vec<_> = (0..32).map(|_| connect(port)).collect();
    wait_until("a request to meet a closed connection", || {
        // Many at once: while a worker is busy with the first, connections that others will take are reset.
        for _ in 0..20 {
            for caller in &mut callers {
                caller.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nunread").expect("l5d reads");
            }
            for caller in &mut callers {
                caller.reply("POST").expect("an answer"); // what meets an endpoint that closes on it is a 502
            }
        }
        stage.has_moved("client", "retries/cannot_retry")
    });
}

/// Endpoints that come, go, die and live again; weights; the aperture.
fn balancers(seen: &Seen) {
    let names = TempDir::new().expect("a temporary folder can be made");
    let file = |name: &str, lines: &str| std::fs::write(names.path().join(name), lines).expect("a file can be written");
    let (upstream, dead, port) = (ok(), free_port(), free_port());
    let alive = upstream.port();
    let gate = Gate::default();
    let wide: Vec<_> = (0..3).map(|_| gate.hold(Response::ok("late"))).collect();
    let lines = |some: &[Upstream]| some.iter().map(|u| format!("127.0.0.1 {}\n", u.port())).collect::<String>();
    file("weights", &format!("127.0.0.1 {alive} * 1\n127.0.0.1 {dead} * 3\n"));
    file("single", &format!("127.0.0.1 {dead}\n"));
    file("wide", &lines(&wide));
    let stage = Stage::start(
        seen,
        "",
        &format!(
            "namers: [{{kind: io.l5d.fs, rootDir: {}}}]\nrouters:\n- protocol: http\n  dtab: /svc => /#/io.l5d.fs\n  client:\n    \
             kind: io.l5d.static\n    configs:\n    - prefix: /\n      failureAccrual: {{kind: io.l5d.consecutiveFailures, \
             failures: 1, backoff: {{kind: constant, ms: 300}}}}\n    - prefix: /#/io.l5d.fs/wide\n      \
             loadBalancer: {{kind: aperture, smoothWindowMs: 20}}\n  servers: [{{port: {port}}}]\n",
            names.path().display()
        ),
    );
    wait_until("all of the picks that wait for a dead endpoint", || {
        get(port, "weights");
        get(port, "single");
        let names =
            ["loadbalancer/busy_weight_classes", "loadbalancer/max_effort_exhausted", "failure_accrual/removals"];
        names.iter().all(|name| stage.has_moved("client", name))
    });
    stage.until("client", &["loadbalancer/available", "loadbalancer/busy", "available"]);
    let _revived = Upstream::start_at(local(dead), |_| Response::ok("ok")).expect("the port is still free");
    wait_until("the endpoint to be tried, and to live", || {
        get(port, "single");
        ["failure_accrual/probes", "failure_accrual/revivals"].iter().all(|name| stage.has_moved("client", name))
    });
    file("weights", &format!("127.0.0.1 {alive}\n"));
    stage.until("client", &["loadbalancer/removes", "loadbalancer/meanweight", "loadbalancer/num_weight_classes"]);
    stage.until("client", &["loadbalancer/algorithm/<algorithm>", "loadbalancer/size"]);
    // The aperture grows with the requests that wait, and shrinks when they are done.
    let mut callers: Vec<_> = (0..12)
        .map(|_| {
            let mut caller = connect(port);
            caller.send("GET / HTTP/1.1\r\nHost: wide\r\n\r\n").expect("l5d takes bytes");
            caller
        })
        .collect();
    wait_until("the aperture to widen", || {
        let mut caller = connect(port);
        caller.send("GET / HTTP/1.1\r\nHost: wide\r\n\r\n").expect("l5d takes bytes");
        callers.push(caller);
        // One that is never used is never idle for long.
        let used = wide.iter().filter(|upstream| !upstream.requests().is_empty()).count();
        used > 1 && stage.has_moved("client", "loadbalancer/loadband/widen")
    });
    gate.open();
    for mut caller in callers {
        assert_eq!(caller.reply("GET").expect("an answer").status, 200);
    }
    wait_until("the aperture to narrow, and what is outside to expire", || {
        get(port, "wide");
        ["loadbalancer/loadband/narrow", "loadbalancer/expired"].iter().all(|name| stage.has_moved("client", name))
    });
    stage.until("client", &["loadbalancer/loadband/offered_load_ema", "loadbalancer/logical_aperture"]);
    file("wide", &lines(&wide[..2]));
    stage.until("client", &["loadbalancer/vector_hash"]);
}

/// Limits of connections: how many, how long idle, how old; connects that fail, and those that are given up.
fn pools(seen: &Seen) {
    let (raw, idle, old) = (Raw::start(), ok(), ok());
    let (dead, port, idle_port, old_port) = (free_port(), free_port(), free_port(), free_port());
    let full = TcpListener::bind(local(0)).expect("a free port of loopback can be bound");
    let full_at = full.local_addr().expect("a bound socket has an address");
    let stage = Stage::start(
        seen,
        "",
        &format!(
            "routers:\n- protocol: http\n  dtab: |\n    /svc/raw => /$/inet/127.1/{raw};\n    /svc/idle => /$/inet/127.1/{idle};\n    \
             /svc/old => /$/inet/127.1/{old};\n    /svc/dead => /$/inet/127.1/{dead};\n    /svc/full => /$/inet/127.1/{full}\n  \
             client:\n    kind: io.l5d.static\n    configs:\n    - prefix: /$/inet/127.1/{raw}\n      \
             hostConnectionPool: {{maxSize: 1, maxWaiters: 1}}\n    - prefix: /$/inet/127.1/{idle}\n      \
             clientSession: {{idleTimeMs: 100}}\n    - prefix: /$/inet/127.1/{old}\n      clientSession: {{lifeTimeMs: 100}}\n    \
             - prefix: /$/inet/127.1/{dead}\n      failFast: true\n      failureAccrual: {{kind: none}}\n  servers:\n  - port: {port}\n  \
             - {{port: {idle_port}, serverSession: {{idleTimeMs: 100}}}}\n  - {{port: {old_port}, serverSession: {{lifeTimeMs: 100}}}}\n",
            raw = raw.port,
            idle = idle.port(),
            old = old.port(),
            full = full_at.port(),
        ),
    );
    for host in ["idle", "old"] {
        assert_eq!(get(port, host).expect("an answer").status, 200);
    }
    let _sessions = [connect(idle_port), connect(old_port)];
    // The first has the connection, the second waits, the third is refused.
    let mut callers = [connect(port), connect(port)];
    callers[0].send("GET / HTTP/1.1\r\nHost: raw\r\n\r\n").expect("l5d takes bytes");
    let mut upstream = raw.accept();
    read_head(&mut upstream);
    callers[1].send("GET / HTTP/1.1\r\nHost: raw\r\n\r\n").expect("l5d takes bytes");
    stage.until("client", &["pool_waiters", "pool_num_waited"]);
    assert_eq!(get(port, "raw").expect("an answer").status, 502);
    stage.until("client", &["pool_num_too_many_waiters"]);
    for (at, caller) in callers.iter_mut().enumerate() {
        if at > 0 {
            read_head(&mut upstream);
        }
        write(&mut upstream, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        assert_eq!(caller.reply("GET").expect("an answer").status, 200);
    }
    // A queue of connections that nobody takes fills up; then the kernel lets a connect wait.
    let mut waiting = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&full_at, Duration::from_millis(200)) {
        assert!(waiting.len() < 10_000, "the queue of a listener ends somewhere");
        waiting.push(stream);
    }
    let mut cancelled = || {
        let mut caller = connect(port);
        caller.send("GET / HTTP/1.1\r\nHost: full\r\n\r\n").expect("l5d takes bytes");
        drop(caller);
        stage.has_moved("client", "cancelled_connects")
    };
    wait_until("a connect to be given up", &mut cancelled);
    for _ in 0..2 {
        assert_eq!(get(port, "dead").expect("an answer").status, 502);
    }
    stage.until("client", &["failfast/marked_dead", "failfast/unhealthy_num_tries", "failfast/unhealthy_for_ms"]);
    let _revived = Upstream::start_at(local(dead), |_| Response::ok("ok")).expect("the port is still free");
    stage.until("client", &["failfast/marked_available", "failfast/is_marked_dead", "idle", "lifetime"]);
    stage.until("server", &["idle", "lifetime"]);
}

/// Caches that hold one entry, and one that forgets after a second.
fn caches(seen: &Seen) {
    let (one, two, gate) = (ok(), ok(), Gate::default());
    let held = gate.hold(Response::ok("late"));
    let (narrow, short) = (free_port(), free_port());
    let dtab = format!(
        "/svc/one => /$/inet/127.1/{}; /svc/two => /$/inet/127.1/{}; /svc/held => /$/inet/127.1/{}",
        one.port(),
        two.port(),
        held.port()
    );
    let stage = Stage::start(
        seen,
        "",
        &format!(
            "routers:\n- protocol: http\n  label: narrow\n  dtab: {dtab}\n  bindingCache: {{paths: 1, trees: 1, bounds: 1, clients: 1}}\n  \
             servers: [{{port: {narrow}}}]\n- protocol: http\n  label: short\n  dtab: {dtab}\n  bindingCache: {{idleTtlSecs: 1}}\n  \
             servers: [{{port: {short}}}]\n"
        ),
    );
    for host in ["one", "two"] {
        assert_eq!(get(short, host).expect("an answer").status, 200);
        assert_eq!(get(narrow, host).expect("an answer").status, 200);
    }
    let mut caller = connect(narrow);
    caller.send("GET / HTTP/1.1\r\nHost: held\r\n\r\n").expect("l5d takes bytes");
    wait_until("the request to be there", || !held.requests().is_empty());
    assert_eq!(get(narrow, "one").expect("an answer").status, 200);
    gate.open();
    assert_eq!(caller.reply("GET").expect("an answer").status, 200);
    for cache in ["path", "tree", "bound", "client"] {
        let names = ["misses", "evicts", "oneshots", "expires"].map(|what| format!("bindcache/{cache}/{what}"));
        stage.until("router", &names.each_ref().map(String::as_str));
    }
}

/// Peers that stop reading, and go on.
fn full_sockets(seen: &Seen) {
    const MUCH: usize = 16 << 20;
    let (big, raw, port) = (Upstream::start(|_| Response::ok("x".repeat(MUCH))), Raw::start(), free_port());
    let stage = Stage::start(
        seen,
        "",
        &format!(
            "routers:\n- protocol: http\n  dtab: /svc/big => /$/inet/127.1/{}; /svc/raw => /$/inet/127.1/{}\n  \
             servers: [{{port: {port}}}]\n",
            big.port(),
            raw.port
        ),
    );
    let mut caller = connect(port);
    caller.send("GET / HTTP/1.1\r\nHost: big\r\n\r\n").expect("l5d takes bytes");
    stage.wait_to_stall(&format!("rt/http/server/127.0.0.1/{port}/sent_bytes"));
    assert_eq!(caller.reply("GET").expect("an answer").body.len(), MUCH);
    stage.until("server", &["socket_unwritable_ms"]);

    let sending = std::thread::spawn(move || {
        let mut caller = connect(port);
        caller.request("POST", "/", &[("Host", "raw")], &vec![b'x'; MUCH]).expect("an answer").status
    });
    let mut upstream = raw.accept();
    read_head(&mut upstream);
    stage.wait_to_stall(&format!("rt/http/client/$/inet/127.1/{}/sent_bytes", raw.port));
    upstream.read_exact(&mut vec![0; MUCH]).expect("the body comes");
    write(&mut upstream, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(sending.join().expect("the caller does not panic"), 200);
    stage.until("client", &["socket_unwritable_ms"]);

    let mut caller = fill(&stage);
    let mut page = vec![0; 1 << 20];
    wait_until("the admin server to write on", || {
        caller.read_exact(&mut page).expect("pages come");
        stage.has_moved("admin server", "socket_unwritable_ms")
    });
}

/// Asks the admin server for pages, and reads none, until it takes no more requests.
fn fill(stage: &Stage<'_>) -> TcpStream {
    let mut caller = TcpStream::connect(stage.admin()).expect("the admin server listens");
    caller.set_nonblocking(true).expect("a socket can be told not to wait");
    let requests = "GET /admin/metrics.json HTTP/1.1\r\nHost: x\r\n\r\n".repeat(100);
    let mut refused = 0;
    wait_until("the admin server to take no more", || {
        loop {
            match caller.write(requests.as_bytes()) {
                // A request may be cut here; what follows is refused, in its turn.
                Ok(_) => refused = 0,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    refused += 1;
                    return refused > 10;
                }
                // With a time limit it ends the connection.
                Err(_) => return true,
            }
        }
    });
    caller.set_nonblocking(false).expect("a socket can be told to wait");
    caller
}

/// Peers that say nothing, and peers that do not read, for longer than `socketOptions` allow.
fn socket_timeouts(seen: &Seen) {
    const MUCH: usize = 16 << 20;
    let (big, raw) = (Upstream::start(|_| Response::ok("x".repeat(MUCH))), Raw::start());
    for limit in ["read", "write"] {
        let (port, options) = (free_port(), format!("socketOptions: {{{limit}TimeoutMs: 300}}"));
        let stage = Stage::start(
            seen,
            &options,
            &format!(
                "routers:\n- protocol: http\n  dtab: /svc/big => /$/inet/127.1/{}; /svc/raw => /$/inet/127.1/{}\n  \
                 client: {{{options}}}\n  servers: [{{port: {port}, {options}}}]\n",
                big.port(),
                raw.port
            ),
        );
        let (_idle, _quiet) = (connect(port), TcpStream::connect(stage.admin()).expect("the admin server listens"));
        let mut caller = connect(port);
        caller.send("GET / HTTP/1.1\r\nHost: big\r\n\r\n").expect("l5d takes bytes");
        let sending = std::thread::spawn(move || {
            // Whether an answer comes before the end of the connection is chance.
            connect(port).request("POST", "/", &[("Host", "raw")], &vec![b'x'; MUCH]).is_ok()
        });
        let _upstream = raw.accept();
        let _full = (limit == "write").then(|| fill(&stage));
        for level in ["server", "client", "admin server"] {
            stage.until(level, &[&format!("{limit}_timeout")]);
        }
        stage.until("admin server", &["exn/[<flag>/]<exception>"]);
        // Whoever still sends into a connection that is not read from ends with the process.
        drop(stage);
        sending.join().expect("the caller does not panic");
    }
}

/// TLS on all three sides, and peers that do not speak it.
fn tls(seen: &Seen) {
    let files = TempDir::new().expect("a temporary folder can be made");
    let key = KeyPair::generate().expect("a key can be made");
    let params = CertificateParams::new(vec!["l5d.test".to_owned()]).expect("a name is a name");
    let certificate = params.self_signed(&key).expect("a key signs");
    std::fs::write(files.path().join("cert.pem"), certificate.pem()).expect("a file can be written");
    std::fs::write(files.path().join("key.pem"), key.serialize_pem()).expect("a file can be written");
    let folder = files.path().display();
    let tls = format!("tls: {{certPath: {folder}/cert.pem, keyPath: {folder}/key.pem}}");
    let (plain, inner, outer, admin) = (ok(), free_port(), free_port(), free_port());
    let stage = Stage::start_with_tls(
        seen,
        admin,
        &tls,
        &format!(
            "routers:\n- protocol: http\n  label: inner\n  dtab: /svc/* => /$/inet/127.1/{plain}\n  \
             servers: [{{port: {inner}, {tls}}}]\n- protocol: http\n  label: outer\n  dtab: /svc/tls => /$/inet/127.1/{inner}; \
             /svc/plain => /$/inet/127.1/{plain}\n  client: {{tls: {{disableValidation: true}}}}\n  \
             servers: [{{port: {outer}}}]\n",
            plain = plain.port()
        ),
    );
    let mut caller = connect(outer);
    assert_eq!(caller.get("tls", "/").expect("an answer").status, 200);
    stage.until("server", &["tls/connections", "tls/handshake_latency_ms"]);
    stage.until("client", &["tls/connections", "tls/handshake_latency_ms"]);
    assert_eq!(caller.get("plain", "/").expect("an answer").status, 502);
    assert!(get(inner, "x").is_none() && get(admin, "x").is_none(), "who speaks plainly gets no answer");
    // The page that tells of them is a connection with TLS itself.
    for level in ["server", "client", "admin server"] {
        stage.until(level, &["tls/connections", "tls/failed_handshake_latency_ms", "exn/[<flag>/]<exception>"]);
    }
}

/// What the admin server counts of those who ask it.
fn admin(seen: &Seen) {
    let stage =
        Stage::start(seen, "", &format!("routers:\n- protocol: http\n  servers: [{{port: {}}}]\n", free_port()));
    let body = r#"{"namespace":"http","dtab":"/svc=>/$/inet/127.1/80","path":"/svc/x"}"#;
    let post = "POST /delegator.json HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
    let mut caller = l5d_testkit::Downstream::connect(stage.admin()).expect("the admin server listens");
    caller.send(format!("{post}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n", body.len())).expect("bytes go");
    stage.until("admin server", &["pending", "http/stream/{request,response}/pending", "connections"]);
    caller.send("0\r\n\r\n").expect("bytes go");
    assert_eq!(caller.reply("POST").expect("an answer").status, 200);
    let failing = caller.get("x", "/delegator.json?path=/svc/x&namespace=nowhere").expect("an answer");
    assert_eq!(failing.status, 501);
    drop(caller);
    stage.until("admin server", &["failures", "connection_duration", "closes", "tcp_send_window_size"]);
    stage.until("admin server", &["stream/{request,response}/chunk_payload_bytes", "request_payload_bytes"]);
}

/// A disk that is slower than the requests: a pipe that nobody reads.
fn access_log(seen: &Seen) {
    let folder = TempDir::new().expect("a temporary folder can be made");
    let pipe = folder.path().join("log");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs").success());
    // Open for reading too, so that l5d's opening it does not wait for a reader.
    let _reader = std::fs::OpenOptions::new().read(true).write(true).open(&pipe).expect("a pipe can be opened");
    let (upstream, port) = (ok(), free_port());
    let stage = Stage::start(
        seen,
        "",
        &format!(
            "routers:\n- protocol: http\n  httpAccessLog: {}\n  dtab: /svc/* => /$/inet/127.1/{}\n  servers: [{{port: {port}}}]\n",
            pipe.display(),
            upstream.port()
        ),
    );
    wait_until("the log to fall behind", || {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut caller = connect(port);
                    for _ in 0..20 {
                        caller.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(25)).expect("l5d takes bytes");
                        (0..25).for_each(|_| assert_eq!(caller.reply("GET").expect("an answer").status, 200));
                    }
                });
            }
        });
        stage.has_moved("router", "access_log/dropped")
    });
}

/// Collectors of metrics and traces: one that is there late, one that refuses, fails and hangs; and the history.
fn telemeters(seen: &Seen) {
    /// Collectors that find fault first: by what they are asked, and how often they were.
    fn moody(gate: &Gate, rest: fn(&str) -> Response) -> impl Fn(&l5d_testkit::Request) -> Response + use<> {
        let (asked, gate) = ([AtomicUsize::new(0), AtomicUsize::new(0)], gate.clone());
        move |request| match asked[usize::from(request.target == "/v1/metrics")].fetch_add(1, Relaxed) {
            0 => gate.pass(Response::new(503)),
            1 => Response::new(400).body("no"),
            2 => Response::hang_up(),
            _ => rest(&request.target),
        }
    }
    let (zipkin, otlp, port) = (free_port(), free_port(), free_port());
    let upstream = ok();
    let sink = StatsdSink::start();
    let stage = Stage::start(
        seen,
        "history: {memoryMB: 1}",
        &format!(
            "telemetry:\n- {{kind: io.l5d.statsd, experimental: true, port: {}, flushIntervalMs: 100}}\n\
             - {{kind: io.l5d.statsd, experimental: true, port: {}, flushIntervalMs: 100}}\n\
             - {{kind: io.l5d.statsd, experimental: true, hostname: collector.invalid}}\n\
             - {{kind: io.zipkin.http, host: 'localhost:{zipkin}', initialSampleRate: 1.0}}\n\
             - {{kind: io.l5d.otlp, endpoint: 'http://localhost:{otlp}', interval: 1500}}\n\
             routers:\n- protocol: http\n  dtab: /svc/* => /$/inet/127.1/{}\n  servers: [{{port: {port}}}]\n",
            sink.port(),
            free_udp_port(),
            upstream.port()
        ),
    );
    assert_eq!(get(port, "x").expect("an answer").status, 200);
    for level in ["Zipkin's connection", "OTLP's connection"] {
        stage.until(level, &["failed_connect_latency_ms", "service_creation/failures"]);
    }
    let gate = Gate::default();
    // Partial success: three points were left out.
    let taken = |target: &str| match target {
        "/v1/metrics" => Response::ok(vec![0x0a, 2, 8, 3]).header("Content-Type", "application/x-protobuf"),
        _ => Response::new(202),
    };
    let _collectors = [zipkin, otlp]
        .map(|port| Upstream::start_at(local(port), moody(&gate, taken)).expect("the port is still free"));
    for level in ["Zipkin's connection", "OTLP's connection"] {
        stage.until(level, &["pending", "connections", "pool_cached"]);
    }
    gate.open();
    let mut asked = 0;
    wait_until("everything that collectors make move", || {
        asked += 1;
        get(port, &format!("name-{asked}"));
        let telemeters =
            [("Zipkin telemeter", "traces"), ("Zipkin telemeter", "retries"), ("OTLP telemeter", "traces")];
        let metrics = ["requests", "points", "retries", "failures", "left_out"].map(|name| format!("metrics/{name}"));
        telemeters.iter().all(|(level, name)| stage.has_moved(level, name))
            && metrics.iter().all(|name| stage.has_moved("OTLP telemeter", name))
            && ["Zipkin telemeter", "OTLP telemeter"].iter().all(|level| stage.has_moved(level, "dropped/<cause>"))
            && ["Zipkin's connection", "OTLP's connection"]
                .iter()
                .all(|level| stage.has_moved(level, "failures") && stage.has_moved(level, "exn/[<flag>/]<exception>"))
            && stage.has_moved("history", "left_out")
    });
    stage.until("StatsD telemeter", &["datagrams", "resolve_failures", "dropped/<cause>"]);
    stage.until("history", &["scopes", "bytes", "sample_us"]);
    stage.until("pages of metrics", &["scrapes", "bytes", "duration_us"]);
    stage.until("series", &["counters", "gauges", "stats", "bytes"]);
}
