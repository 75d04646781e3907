//! The telemetry page's own commands and snippets, as a reader pastes them.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::{Duration, Instant};

use l5d_testkit::{L5d, Response, Upstream, free_port, get};

use crate::l5d::{bin, start};
use crate::programs::run;
use crate::readme;
use crate::suite::Suite;

/// One l5d with one router, and its HTTP server's address. `telemetry` is a whole section or nothing.
fn plain(telemetry: &str, upstream: &Upstream) -> (L5d, SocketAddr) {
    let (admin, server) = (free_port(), SocketAddr::from((Ipv4Addr::LOCALHOST, free_port())));
    let config = format!(
        "admin: {{port: {admin}}}\n{telemetry}routers:\n- protocol: http\n  dtab: /svc => /$/inet/127.1/{}\n  servers:\n  - port: {}\n",
        upstream.port(),
        server.port()
    );
    (start(&config, SocketAddr::from((Ipv4Addr::LOCALHOST, admin))), server)
}

/// The page's command.
pub(crate) const FIRST_METRICS: &str = "curl -s http://localhost:9990/admin/metrics.json?pretty=1 | head -n4";

/// Has a shell run `command`, which must print what the page shows: a brace and three metrics.
pub(crate) fn prints_the_first_metrics(command: &str) {
    let outcome = run(Command::new("sh").args(["-c", command]), b"");
    let text = outcome.text();
    let lines: Vec<&str> = text.lines().collect();
    assert!(outcome.code == 0 && lines.len() == 4 && lines[0] == "{", "{text}{}", outcome.stderr);
    for line in &lines[1..] {
        let halves = line.strip_prefix("  \"").and_then(|rest| rest.split_once("\" : "));
        let (name, value) = halves.unwrap_or_else(|| panic!("{line}"));
        let value = value.strip_suffix(',').unwrap_or_else(|| panic!("{line}"));
        assert!(name.contains('/') && value.parse::<f64>().is_ok(), "{line}");
    }
}

/// The README's command, which is the page's; only the port differs. And the README's Prometheus block.
pub(crate) fn the_pages_curl_prints_the_first_metrics(_: &Suite) {
    let upstream = Upstream::start(|_| Response::ok("hello"));
    let telemetry = readme::block("yaml", "io.l5d.prometheus");
    let (l5d, _) = plain(telemetry, &upstream);
    assert!(readme::block("bash", FIRST_METRICS).contains(FIRST_METRICS));
    prints_the_first_metrics(&readme::replaced(FIRST_METRICS, "9990", &l5d.admin().port().to_string()));
    let page = get(l5d.admin(), "localhost", "/admin/metrics/prometheus").expect("the telemeter's page is there");
    assert_eq!(page.status, 200);
}

pub(crate) fn own_requests_show_within_a_second(_: &Suite) {
    let upstream = Upstream::start(|_| Response::ok("hello"));
    let (l5d, server) = plain("", &upstream);
    assert_eq!(get(server, "web", "/").expect("l5d answers").text(), "hello");
    let (name, since) = (format!("rt/http/server/127.0.0.1/{}/requests", server.port()), Instant::now());
    l5d_testkit::wait_until("the request to be counted", || l5d.scrape().count(&name) == 1);
    // Not a limit: only to be told when something is wrong with a counter that should be there at once.
    if since.elapsed() > Duration::from_secs(1) {
        println!("note: it took {:?} until the request was counted", since.elapsed());
    }
    let stat = format!("rt/http/server/127.0.0.1/{}/request_latency_ms.count", server.port());
    l5d_testkit::wait_until("the stat, one interval later", || l5d.scrape().json().contains_key(&stat));
}

pub(crate) fn statsd_without_experimental_is_refused_with_one_line(_: &Suite) {
    let block = readme::replaced(readme::block("yaml", "io.l5d.statsd"), "  experimental: true\n", "");
    let config = format!("{block}routers:\n- protocol: http\n  servers:\n  - port: {}\n", free_port());
    for flags in [&["-"][..], &["-validate", "-"]] {
        let outcome = run(Command::new(bin()).args(flags), config.as_bytes());
        let said = format!("{}{}", outcome.text(), outcome.stderr);
        let about: Vec<&str> = said.lines().filter(|line| line.contains("experimental")).collect();
        assert!(outcome.code == 1 && about.len() == 1, "{flags:?}: {} {said}", outcome.code);
        assert!(about[0].contains("io.l5d.statsd") || about[0].contains("telemetry[0]"), "{said}");
        assert!(!said.contains("panicked"), "{said}");
    }
}
