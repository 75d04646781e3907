//! Several endpoints behind a name (§8).

use l5d_testkit::{Upstream, wait_until};
use tempfile::TempDir;

use crate::proxy::{Proxy, Setup, ok, statuses};

/// A proxy that finds these upstreams under one name, and the folder of that name.
fn balanced(upstreams: &[&Upstream], weights: &[&str], balancer: &str) -> (Proxy, TempDir) {
    let files = TempDir::new().expect("a temporary folder can be made");
    let lines =
        upstreams.iter().zip(weights).map(|(upstream, weight)| format!("127.0.0.1 {}{weight}\n", upstream.port()));
    std::fs::write(files.path().join("foo"), lines.collect::<String>()).expect("a file can be written");
    let proxy = Setup::router("dtab: /svc => /#/io.l5d.fs")
        .and(&format!("client: {{loadBalancer: {{kind: {balancer}}}}}"))
        .top(format!("namers: [{{kind: io.l5d.fs, rootDir: {}}}]", files.path().display()))
        .start();
    (proxy, files)
}

fn ask(proxy: &Proxy, times: usize) {
    let mut downstream = proxy.connect();
    for _ in 0..times {
        assert_eq!(downstream.get("foo", "/").expect("an answer").status, 200);
    }
}

/// §8: one after the other.
#[test]
fn round_robin_goes_around() {
    let upstreams = [ok(), ok(), ok()];
    let (proxy, _files) = balanced(&upstreams.each_ref(), &["", "", ""], "roundRobin");
    ask(&proxy, 30);
    assert_eq!(upstreams.each_ref().map(|upstream| upstream.requests().len()), [10, 10, 10]);
}

/// §8: every balancer sends to every endpoint.
#[test]
fn every_balancer_uses_every_endpoint() {
    for kind in ["p2c", "ewma", "aperture", "heap", "roundRobin"] {
        let upstreams = [ok(), ok()];
        let (proxy, _files) = balanced(&upstreams.each_ref(), &["", ""], kind);
        ask(&proxy, 60);
        let used = upstreams.each_ref().map(|upstream| upstream.requests().len());
        assert_eq!(used.iter().sum::<usize>(), 60, "{kind}");
        // Under one request at a time an aperture is one endpoint wide, and what is new to ewma has no load yet.
        let least = match kind {
            "aperture" => 0,
            "ewma" => 1,
            _ => 10,
        };
        assert!(used.iter().all(|used| *used >= least), "{kind}: {used:?}");
    }
}

/// §5: weights of addresses share the traffic.
#[test]
fn weights_share_the_traffic() {
    let upstreams = [ok(), ok()];
    let (proxy, _files) = balanced(&upstreams.each_ref(), &["", " * 9"], "p2c");
    ask(&proxy, 400);
    let [few, many] = upstreams.each_ref().map(|upstream| upstream.requests().len());
    // 40 expected, of a deviation of 6: out of bounds once in some ten thousand runs.
    assert!(few + many == 400 && (16..=64).contains(&few), "{few} and {many}");
}

/// Config §14: `minAperture`, and the load at which an aperture widens.
#[test]
fn an_aperture_is_as_wide_as_configured() {
    for keys in ["minAperture: 2", "smoothWindowMs: 1, highLoad: 0.1, lowLoad: 0.01"] {
        let upstreams = [ok(), ok()];
        let (proxy, _files) = balanced(&upstreams.each_ref(), &["", ""], &format!("aperture, {keys}"));
        ask(&proxy, 60);
        let used = upstreams.each_ref().map(|upstream| upstream.requests().len());
        assert!(used.iter().all(|used| *used >= 10), "{keys}: {used:?}");
    }
}

/// §8: `enableProbation` keeps addresses that discovery has taken away, as long as they are healthy.
#[test]
fn on_probation_an_address_stays() {
    for (keys, stays) in [("roundRobin, enableProbation: true", true), ("roundRobin", false)] {
        let upstreams = [ok(), ok()];
        let (proxy, files) = balanced(&upstreams.each_ref(), &["", ""], keys);
        ask(&proxy, 4);
        let [kept, removed] = &upstreams;
        std::fs::write(files.path().join("foo"), format!("127.0.0.1 {}\n", kept.port()))
            .expect("a file can be written");
        wait_until("the address to be gone", || {
            !proxy.page("/client_state.json").text().contains(&removed.port().to_string())
        });
        let before = removed.requests().len();
        ask(&proxy, 10);
        assert_eq!(removed.requests().len() - before, if stays { 5 } else { 0 }, "{keys}");
    }
}

/// §9: the policies by shares of success.
#[test]
fn too_low_a_share_of_successes_takes_an_endpoint_out() {
    let failing = statuses(&[500]);
    let backoff = "backoff: {kind: constant, ms: 600000}";
    let accrual = |keys: &str| format!("client: {{failureAccrual: {{kind: io.l5d.{keys}, {backoff}}}}}");
    let client = format!("client/$/inet/127.1/{}", failing.port());
    let removals = format!("{client}/failure_accrual/removals");
    let proxy = Setup::to(&failing).and(&accrual("successRate, successRate: 0.9, requests: 10")).start();
    for sent in 1..=10 {
        assert_eq!(proxy.get("foo", "/").status, 500);
        assert_eq!(proxy.count(&removals), u64::from(sent == 10), "after {sent} requests");
    }
    assert_eq!(proxy.count(&format!("{client}/failure_accrual/removed_for_ms")), 600_000);
    // The window has to go by first, and five requests have to come in it.
    let proxy = Setup::to(&failing).and(&accrual("successRateWindowed, successRate: 0.9, window: 1")).start();
    wait_until("the endpoint to be taken out", || {
        assert_eq!(proxy.get("foo", "/").status, 500);
        proxy.count(&removals) == 1
    });
}
