//! The books balance: whatever callers and upstreams do to each other, when all is quiet each level of the stack has
//! counted every request as a success or a failure and has none left in flight.

use std::{
    io::Write,
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use l5d_testkit::{Downstream, L5d, Response, Upstream, free_port, wait_until};

const ADMIN: fn(u16) -> SocketAddr = |port| SocketAddr::from(([127, 0, 0, 1], port));

/// An upstream whose answer depends on what it is asked for.
fn moody() -> Upstream {
    let count = AtomicU64::new(0);
    Upstream::start(move |request| {
        let n = count.fetch_add(1, Relaxed);
        match request.target.as_str() {
            "/slow" => Response::ok("late").after(Duration::from_millis(30)),
            "/fail" => Response::new(500).body("no"),
            "/hang" => Response::hang_up(),
            "/nonsense" => Response::raw("EHLO nonsense\r\n\r\n"),
            "/half" => Response::raw("HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\nonly this much").then_close(),
            "/chunks" => Response::ok("x".repeat(20_000)).chunked(700),
            "/big" => Response::ok("y".repeat(100_000)),
            _ if n % 7 == 3 => Response::new(503).body("busy"),
            _ => Response::ok("fine"),
        }
    })
}

/// A caller that behaves, and counts the answers it gets.
fn well_behaved(router: SocketAddr, requests: u32, answers: &AtomicU64) {
    const TARGETS: [&str; 8] = ["/", "/slow", "/fail", "/hang", "/nonsense", "/half", "/chunks", "/big"];
    let mut connection = None;
    for i in 0..requests {
        let mut c = match connection.take() {
            Some(c) => c,
            None => Downstream::connect(router).expect("the router accepts"),
        };
        let host = ["web", "other", "dead", "nowhere"][(i / 8) as usize % 4];
        let body = "b".repeat([0, 10, 9000][i as usize % 3]);
        let reply = c.request("POST", TARGETS[i as usize % 8], &[("Host", host)], body.as_bytes());
        // A broken-off body is an answer all the same, and ends the connection.
        answers.fetch_add(1, Relaxed);
        if reply.is_ok() {
            connection = Some(c);
        }
    }
}

/// A caller that leaves, sends nonsense, or breaks its body off.
fn ill_behaved(router: SocketAddr, rounds: u32) {
    const BYTES: [&str; 5] = [
        "GET /slow HTTP/1.1\r\nHost: web\r\n\r\n",
        "POST /slow HTTP/1.1\r\nHost: web\r\nContent-Length: 50000\r\n\r\nnot so much",
        "POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n",
        "GARBAGE\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: web\r\nl5d-dtab: bogus\r\n\r\n",
    ];
    for i in 0..rounds {
        let mut socket = TcpStream::connect(router).expect("the router accepts");
        let _ = socket.write_all(BYTES[i as usize % BYTES.len()].as_bytes()); // it may have hung up first
        thread::sleep(Duration::from_millis(u64::from(i % 4))); // leaves at different moments of the exchange
    }
}

#[test]
fn at_rest_every_level_has_counted_every_request_once() {
    let (up, other) = (moody(), moody());
    let (admin, server, dead) = (free_port(), free_port(), free_port());
    let config = format!(
        "admin:\n  port: {admin}\nrouters:\n- protocol: http\n  dtab: |\n\
         \x20   /svc/web => 1 * /$/inet/127.1/{} & 1 * /$/inet/127.1/{};\n\
         \x20   /svc/other => /$/inet/127.1/{};\n    /svc/dead => /$/inet/127.1/{dead};\n\
         \x20 service:\n    totalTimeoutMs: 2000\n    responseClassifier:\n      kind: io.l5d.http.retryableRead5XX\n\
         \x20 client:\n    requestAttemptTimeoutMs: 1000\n    failureAccrual:\n      kind: io.l5d.consecutiveFailures\n\
         \x20     failures: 20\n      backoff:\n        kind: constant\n        ms: 20\n\
         \x20 servers:\n  - port: {server}\n    maxConcurrentRequests: 6\n",
        up.port(),
        other.port(),
        other.port(),
    );
    let l5d = L5d::start(env!("CARGO_BIN_EXE_l5d"), &[], &config, ADMIN(admin));
    let router = ADMIN(server);

    let answers = Arc::new(AtomicU64::new(0));
    let callers: Vec<_> = (0..6)
        .map(|_| {
            let answers = Arc::clone(&answers);
            thread::spawn(move || well_behaved(router, 96, &answers))
        })
        .chain((0..3).map(|_| thread::spawn(move || ill_behaved(router, 100))))
        .collect();
    for caller in callers {
        caller.join().expect("a caller ran to its end");
    }

    let scrape = l5d.scrape();
    wait_until("nothing is in flight and every connection of a caller has ended", || {
        let metrics = scrape.json();
        metrics.iter().all(|(name, value)| {
            !(name.ends_with("/pending") || name.ends_with(&format!("server/127.0.0.1/{server}/connections")))
                || value.as_f64() == Some(0.0)
        })
    });
    let metrics = scrape.json();
    let count = |name: &str| metrics.get(name).and_then(serde_json::Value::as_u64);
    let mut levels = 0;
    for name in metrics.keys() {
        let Some(level) = name.strip_suffix("/requests") else { continue };
        let (Some(requests), Some(success), Some(failures)) =
            (count(name), count(&format!("{level}/success")), count(&format!("{level}/failures")))
        else {
            continue;
        };
        assert_eq!(requests, success + failures, "{level}");
        levels += 1;
    }
    assert!(levels >= 8, "server, four services, two clients and what is beneath them: {levels}");
    // Every answer that a well-behaved caller got is a request of the server, and so is what was left unread.
    let counted = count(&format!("rt/http/server/127.0.0.1/{server}/requests")).expect("the server counts");
    let answered = answers.load(Relaxed);
    assert!(counted >= answered, "{counted} counted, {answered} answered");
    // Streams that were opened have been closed, however they ended.
    for (name, opened) in &metrics {
        if let Some(stream) = name.strip_suffix("/opened") {
            assert_eq!(Some(opened), metrics.get(&format!("{stream}/closed")), "{stream}");
        }
    }
}
