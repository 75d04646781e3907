//! What a second of the dashboard's history costs: 5000 services, 500 clients and the pairs of both, at rest and with a
//! fifth of the services called in each second.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};

use l5d_telemetry::history::{History, HistoryLimits};
use l5d_telemetry::{Counter, GaugeGuard, Level, MetricsTree, Scope, Stat};

use crate::machine::{cpu_seconds, median};

const SERVICES: usize = 5000;
const CLIENTS: usize = 500;
/// Services that get a request in a second.
const CALLED: usize = 1000;
/// Seconds of a round: the tens' work is in it as often as it is in life.
const ROUND: u64 = 20;
/// What the proxy does between two samples throws out of the caches what a sample had there.
const ELSEWHERE: usize = 64 << 20;

/// What the stack of a scope counts with each request, and its neighbours that count seldom or never.
struct Stack {
    counters: Vec<Counter>,
    pending: Level,
    latency: Stat,
    _others: (Vec<Counter>, Vec<Stat>, Vec<GaugeGuard>),
}

impl Stack {
    fn new(scope: &Scope, gauges: &[(&str, &str)]) -> Self {
        let counters = ["requests", "success"].map(|name| scope.counter(name)).to_vec();
        let failures = scope.counter("failures");
        let latency = scope.stat("request_latency_ms");
        let pending = scope.level("pending");
        let (status, time) = (scope.scope("status"), scope.scope("time"));
        let many = ["200", "2XX", "3XX", "404", "4XX", "503", "5XX", "error"];
        let mut others: Vec<Counter> = many.map(|name| status.counter(name)).to_vec();
        let stats = ["2XX", "4XX", "5XX"].map(|name| time.stat(name)).to_vec();
        let more = [("retries", "total"), ("retries", "requeues"), ("service_creation", "failures")];
        others.extend(more.map(|(above, name)| scope.scope(above).counter(name)));
        others.extend(["received_bytes", "sent_bytes", "connects"].map(|name| scope.counter(name)));
        others.push(failures);
        let gauges = gauges.iter().map(|(above, name)| scope.scope(above).gauge(name, || 3.0)).collect();
        Self { counters, pending, latency, _others: (others, stats, gauges) }
    }

    fn answer(&self, ms: u64) {
        self.pending.incr();
        self.counters.iter().for_each(Counter::incr);
        self.latency.add(ms);
        self.pending.decr();
    }
}

/// The stacks of each service that a request goes through.
type Paths = Vec<[Arc<Stack>; 4]>;

fn paths(tree: &MetricsTree) -> Paths {
    let router = tree.scope("rt").scope("http");
    let server = Arc::new(Stack::new(&router.scope("server").scope("0.0.0.0/4140"), &[]));
    let (services, clients) = (router.scope("service"), router.scope("client"));
    let balancer = [("retries", "budget"), ("loadbalancer", "size"), ("loadbalancer", "available")];
    let clients: Vec<_> = (0..CLIENTS)
        .map(|at| {
            let scope = clients.scope(&format!("#/io.l5d.fs/n{at}"));
            (Arc::new(Stack::new(&scope, &balancer)), scope.scope("service"))
        })
        .collect();
    let path = |at: usize| {
        let name = format!("svc/n{at}");
        let (client, pairs) = &clients[at % CLIENTS];
        let service = Stack::new(&services.scope(&name), &[("retries", "budget")]);
        [server.clone(), Arc::new(service), client.clone(), Arc::new(Stack::new(&pairs.scope(&name), &[]))]
    };
    (0..SERVICES).map(path).collect()
}

/// Milliseconds of requests, most of them a few, some many.
fn latency(nth: u64) -> u64 {
    let spread = nth.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    if spread.is_multiple_of(16) { spread / 16 % 800 } else { spread % 24 }
}

/// A proxy with two workers, and its clock.
struct Proxy<'a> {
    history: History,
    turn: &'a Barrier,
    /// Requests in the second that begins; or that there is no such second.
    called: &'a AtomicUsize,
    second: u64,
}

const OVER: usize = usize::MAX;

impl Proxy<'_> {
    /// Calls `f` with a proxy whose workers wait for seconds to pass.
    fn run(f: impl FnOnce(&mut Proxy<'_>)) {
        let tree = MetricsTree::new();
        let paths = paths(&tree);
        let (turn, called) = (Barrier::new(3), AtomicUsize::new(0));
        std::thread::scope(|threads| {
            for half in 0..2 {
                let (tree, paths, turn, called) = (&tree, &paths, &turn, &called);
                threads.spawn(move || {
                    let _worker = tree.enter_worker();
                    let mut from = 0;
                    loop {
                        turn.wait();
                        let called = called.load(Ordering::Relaxed);
                        if called == OVER {
                            return;
                        }
                        for nth in (from..from + called).filter(|nth| nth % 2 == half) {
                            paths[nth % SERVICES].iter().for_each(|stack| stack.answer(latency(nth as u64)));
                        }
                        from += called;
                        turn.wait();
                    }
                });
            }
            let history = History::new(&tree, HistoryLimits::default());
            let mut proxy = Proxy { history, turn: &turn, called: &called, second: 1_000_000_000 };
            // All have been called once.
            proxy.pass(ROUND, CALLED, History::sample);
            f(&mut proxy);
            called.store(OVER, Ordering::Relaxed);
            turn.wait();
        });
    }

    /// Seconds that pass with so many requests each, and who takes the sample of each.
    fn pass(&mut self, seconds: u64, called: usize, mut sample: impl FnMut(&History, u64)) {
        self.called.store(called, Ordering::Relaxed);
        for _ in 0..seconds {
            self.turn.wait();
            self.turn.wait();
            self.second += 1;
            sample(&self.history, self.second);
        }
    }
}

/// Milliseconds of processor time that a sample takes in seconds with so many requests each.
fn times(proxy: &mut Proxy<'_>, seconds: u64, called: usize, elsewhere: &mut [u8]) -> Vec<f64> {
    let mut times = Vec::new();
    proxy.pass(seconds, called, |history, second| {
        elsewhere.iter_mut().step_by(64).for_each(|byte| *byte = byte.wrapping_add(1));
        let began = cpu_seconds();
        history.sample(second);
        times.push((cpu_seconds() - began) * 1e3);
    });
    times
}

/// As the mean of a round's seconds, and the longest of them: the median of several rounds.
pub fn run(rounds: usize) {
    let mut elsewhere = vec![0; ELSEWHERE];
    println!("\n| a sample of {SERVICES} services, {CLIENTS} clients | mean, ms | longest, ms |\n|---|---|---|");
    Proxy::run(|proxy| {
        for (what, called) in [("at rest", 0), ("1000 requests", CALLED)] {
            // What came before is over.
            proxy.pass(ROUND, called, History::sample);
            let (mut means, mut longest) = (Vec::new(), Vec::new());
            for _ in 0..rounds {
                let times = times(proxy, ROUND, called, &mut elsewhere);
                means.push(times.iter().sum::<f64>() / times.len() as f64);
                longest.push(times.into_iter().fold(0.0, f64::max));
            }
            println!("| {what} | {:.2} | {:.2} |", median(means), median(longest));
        }
    });
}

/// The same once, for a profiler.
pub fn only(called: usize, seconds: u64) {
    let mut elsewhere = vec![0; ELSEWHERE];
    Proxy::run(|proxy| {
        let times = times(proxy, seconds, called, &mut elsewhere);
        println!("{:.2} ms", times.iter().sum::<f64>() / times.len() as f64);
    });
}
