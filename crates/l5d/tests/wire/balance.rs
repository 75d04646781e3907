//! Several endpoints behind a name (§8).

use l5d_testkit::Upstream;
use tempfile::TempDir;

use crate::proxy::{Proxy, Setup, ok};

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
