//! `io.l5d.statsd`: pushes the metrics to a StatsD collector over UDP.
//!
//! Counters go out as exact deltas and stats as timings every `flushIntervalMs`, gauges every `gaugeIntervalMs`; what the last,
//! unfinished interval brought is sent at the end. What a line looks like, what is sampled and what is carried over when a
//! datagram can't be sent is the telemetry crate's (`format::statsd`). Here is when to send (this file), where to
//! (`target.rs`), and what became of it (`sender.rs`).
//!
//! The collector is never needed: neither its name nor anybody behind its port. No send blocks. Differences from 1.7.5, which
//! sent each increment, sampled: docs/compatibility.md names them.

mod sender;
mod target;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use l5d_admin::BoxFuture;
use l5d_config::{Cx, Fields, FromNode, Kind, Millis, Node, Port};
use l5d_net::Drain;
use l5d_telemetry::MetricsTree;
use l5d_telemetry::format::statsd::{Flavor, Options, Pusher};
use tokio::time::{Instant, sleep_until};

use self::sender::Sender;
use self::target::{Lookup, Target, by_system};
use crate::{BuildError, Telemeter, TelemeterConfig, TelemeterContext};

pub(crate) const KIND: Kind<dyn TelemeterConfig> = Kind {
    id: "io.l5d.statsd",
    experimental: true,
    summary: "pushes the metrics to a StatsD collector over UDP",
    example: "kind: io.l5d.statsd\nexperimental: true\nprefix: linkerd\nhostname: 127.0.0.1\nport: 8125\n\
              gaugeIntervalMs: 10000\nsampleRate: 0.01\nflavor: none\nflushIntervalMs: 1000\nmaxDatagramBytes: 1432\n",
    parse,
};

/// How often counters and timings are sent unless told otherwise.
const FLUSH_EVERY: Duration = Duration::from_secs(1);

/// What fits into one packet of an Ethernet, over IPv4 and IPv6, with room for a tunnel's header.
const MAX_DATAGRAM: usize = 1432;

/// What a datagram can hold over IPv4.
const LARGEST_DATAGRAM: u64 = 65_507;

/// Less than this has no room for the name of a metric.
const SMALLEST_DATAGRAM: u64 = 128;

#[derive(Clone, Debug)]
struct Config {
    /// `prefix`: in front of each name, with a point between them; empty means none.
    prefix: String,
    /// `hostname`: where the collector is. An address, or a name that is looked up again and again.
    hostname: String,
    /// `port`: where the collector listens.
    port: u16,
    /// `gaugeIntervalMs`: how often gauges are sent.
    gauge_interval: Duration,
    /// `sampleRate`: the share of timings that is sent.
    sample_rate: f64,
    /// `flavor`: how tags are written, if they are.
    flavor: Flavor,
    /// `flushIntervalMs`: how often counters and timings are sent.
    flush_interval: Duration,
    /// `maxDatagramBytes`: the most bytes in a datagram.
    max_datagram: usize,
}

const FLAVORS: &[(&str, Flavor)] = &[
    ("none", Flavor::None),
    ("dogstatsd", Flavor::Dogstatsd),
    ("influx", Flavor::Influx),
    ("graphite", Flavor::Graphite),
];

fn parse(node: &Node, cx: &mut Cx) -> Option<Box<dyn TelemeterConfig>> {
    let mut fields = Fields::of(node, cx)?;
    fields.skip_kind();
    let prefix = fields.or("prefix", "linkerd".to_owned(), cx);
    let hostname = fields.parsed("hostname", cx, |hostname| match hostname.is_empty() {
        false => Ok(hostname.to_owned()),
        true => Err("the collector's host name or address is needed"),
    });
    let port = fields.with("port", cx, |node, cx| {
        let Port(port) = Port::from_node(node, cx)?;
        if port == 0 {
            cx.error(node, "0 is no port to send to");
        }
        Some(port)
    });
    let interval = |node: &Node, cx: &mut Cx| {
        let Millis(interval) = Millis::from_node(node, cx)?;
        if interval.is_zero() {
            cx.error(node, "the interval must be at least 1 ms");
        }
        Some(interval)
    };
    let gauge_interval = fields.with("gaugeIntervalMs", cx, interval);
    let sample_rate = fields.with("sampleRate", cx, |node, cx| {
        let rate = f64::from_node(node, cx)?;
        if !(0.0..=1.0).contains(&rate) {
            cx.error(node, "sampleRate must be between 0.0 and 1.0");
        }
        Some(rate)
    });
    let flavor = fields.parsed("flavor", cx, |flavor| {
        let known = FLAVORS.iter().find(|(name, _)| *name == flavor);
        let names: Vec<&str> = FLAVORS.iter().map(|(name, _)| *name).collect();
        known
            .map(|(_, flavor)| *flavor)
            .ok_or_else(|| format!("unknown flavor \"{flavor}\"; known: {}", names.join(", ")))
    });
    let flush_interval = fields.with("flushIntervalMs", cx, interval);
    let max_datagram = fields.with("maxDatagramBytes", cx, |node, cx| {
        let bytes = u64::from_node(node, cx)?;
        if !(SMALLEST_DATAGRAM..=LARGEST_DATAGRAM).contains(&bytes) {
            let what = format!("a datagram may have {SMALLEST_DATAGRAM} to {LARGEST_DATAGRAM} bytes, not {bytes}");
            cx.error(node, what);
        }
        Some(bytes as usize)
    });
    fields.finish(cx);
    Some(Box::new(Config {
        prefix,
        hostname: hostname.unwrap_or_else(|| "127.0.0.1".to_owned()),
        port: port.unwrap_or(8125),
        gauge_interval: gauge_interval.unwrap_or(Duration::from_secs(10)),
        sample_rate: sample_rate.unwrap_or(0.01),
        flavor: flavor.unwrap_or_default(),
        flush_interval: flush_interval.unwrap_or(FLUSH_EVERY),
        max_datagram: max_datagram.unwrap_or(MAX_DATAGRAM),
    }))
}

impl TelemeterConfig for Config {
    fn build(self: Box<Self>, cx: &TelemeterContext) -> Result<Arc<dyn Telemeter>, BuildError> {
        Ok(Arc::new(Statsd::new(*self, &cx.tree, by_system())))
    }
}

struct Statsd {
    config: Config,
    tree: MetricsTree,
    lookup: Lookup,
    /// Made with the telemeter, so that it misses nothing that is counted before the telemeter runs; taken by `run`.
    pusher: Mutex<Option<Pusher>>,
}

impl Telemeter for Statsd {
    fn run(self: Arc<Self>, drain: Drain) -> BoxFuture<'static, ()> {
        let pusher = self.pusher.lock().unwrap_or_else(PoisonError::into_inner).take();
        Box::pin(async move {
            if let Some(pusher) = pusher {
                self.push(pusher, drain).await;
            }
        })
    }
}

impl Statsd {
    fn new(config: Config, tree: &MetricsTree, lookup: Lookup) -> Self {
        let Config { prefix, sample_rate, flavor, max_datagram, .. } = config.clone();
        let pusher = Pusher::new(tree, Options { prefix, sample_rate, max_datagram, flavor });
        Self { config, tree: tree.clone(), lookup, pusher: Mutex::new(Some(pusher)) }
    }

    async fn push(&self, mut pusher: Pusher, drain: Drain) {
        let Config { prefix, hostname, port, gauge_interval, flush_interval, .. } = self.config.clone();
        let mut sender = Sender::new(&self.tree.scope("statsd"), &prefix, format!("{hostname}:{port}"));
        let mut target = Target::new(hostname, port, Arc::clone(&self.lookup));
        let begun = Instant::now();
        let (mut next_flush, mut next_gauges) = (begun + flush_interval, begun + gauge_interval);
        loop {
            tokio::select! {
                // In this order: an address that is there is used at once, and the end is not missed.
                biased;
                () = drain.started() => break,
                found = target.next() => sender.aim(found),
                () = sleep_until(next_flush.min(next_gauges)) => {
                    let now = Instant::now();
                    let gauges = now >= next_gauges;
                    sender.flush(&mut pusher, gauges);
                    // From now, not from when it was due: after a pause there is one flush, not a burst of them.
                    next_flush = now + flush_interval;
                    if gauges {
                        next_gauges = now + gauge_interval;
                    }
                }
            }
        }
        // Counters and timings of the interval that ends here, and the gauges as they will stay.
        sender.flush(&mut pusher, true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use l5d_net::{DrainTrigger, drain};
    use l5d_telemetry::Snapshotter;
    use std::io;
    use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::task::JoinHandle;

    /// A collector that keeps what it gets. Over loopback a datagram is there when `send` returns.
    struct Collector(UdpSocket);

    impl Collector {
        fn new() -> Self {
            Self::at((Ipv4Addr::LOCALHOST, 0).into())
        }

        fn at(addr: SocketAddr) -> Self {
            let socket = UdpSocket::bind(addr).unwrap();
            socket.set_nonblocking(true).unwrap();
            Self(socket)
        }

        fn addr(&self) -> SocketAddr {
            self.0.local_addr().unwrap()
        }

        /// The datagrams that have come since the last look.
        fn datagrams(&self) -> Vec<String> {
            let mut datagrams = Vec::new();
            let mut buffer = [0; 65536];
            while let Ok(length) = self.0.recv(&mut buffer) {
                datagrams.push(String::from_utf8(buffer[..length].to_vec()).unwrap());
            }
            datagrams
        }

        /// Their lines, but for those about the telemeter itself.
        fn lines(&self) -> Vec<String> {
            let datagrams = self.datagrams();
            let lines = datagrams.iter().flat_map(|datagram| datagram.split('\n'));
            lines.filter(|line| !line.contains(".statsd.")).map(str::to_owned).collect()
        }
    }

    /// The sum of a counter's deltas among lines.
    fn total(lines: &[String], name: &str) -> u64 {
        let of_name =
            |line: &String| line.strip_prefix(name)?.strip_prefix(':')?.strip_suffix("|c")?.parse::<u64>().ok();
        lines.iter().filter_map(of_name).sum()
    }

    struct Running {
        trigger: DrainTrigger,
        task: JoinHandle<()>,
    }

    impl Running {
        async fn stop(self) {
            assert!(self.trigger.drain(Instant::now() + Duration::from_secs(1)).await);
            self.task.await.unwrap();
        }
    }

    fn config(host: &str, port: u16) -> Config {
        Config {
            prefix: "l5d".to_owned(),
            hostname: host.to_owned(),
            port,
            gauge_interval: Duration::from_secs(10),
            sample_rate: 1.0,
            flavor: Flavor::None,
            flush_interval: FLUSH_EVERY,
            max_datagram: MAX_DATAGRAM,
        }
    }

    fn start(config: Config, tree: &MetricsTree, lookup: Lookup) -> Running {
        let (trigger, drain) = drain();
        let statsd = Arc::new(Statsd::new(config, tree, lookup));
        Running { trigger, task: tokio::spawn(statsd.run(drain)) }
    }

    fn no_lookup() -> Lookup {
        Arc::new(|_| panic!("an address needs no lookup"))
    }

    async fn seconds(n: u64) {
        // A little more, so that what is due on the second has been done.
        tokio::time::sleep(Duration::from_secs(n) + Duration::from_millis(5)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn counters_go_each_second_gauges_each_interval_and_the_rest_at_the_end() {
        let (tree, collector) = (MetricsTree::new(), Collector::new());
        let requests = tree.scope("rt").scope("in").counter("requests");
        let _gauge = tree.scope("rt").scope("in").gauge("pending", || 2.5);
        let running = start(config("127.0.0.1", collector.addr().port()), &tree, no_lookup());
        requests.add(3);
        seconds(0).await;
        assert!(collector.lines().is_empty(), "nothing before the first interval is over");
        seconds(1).await;
        assert_eq!(total(&collector.lines(), "l5d.rt.in.requests"), 3);
        requests.add(4);
        seconds(1).await;
        let lines = collector.lines();
        assert_eq!(total(&lines, "l5d.rt.in.requests"), 4);
        assert!(!lines.iter().any(|line| line.ends_with("|g")), "{lines:?}");
        seconds(8).await;
        assert!(collector.lines().contains(&"l5d.rt.in.pending:2.5|g".to_owned()));
        requests.add(5);
        running.stop().await;
        let lines = collector.lines();
        assert_eq!(total(&lines, "l5d.rt.in.requests"), 5, "the interval that was not over");
        assert!(lines.contains(&"l5d.rt.in.pending:2.5|g".to_owned()));
    }

    #[tokio::test(start_paused = true)]
    async fn interval_flavor_and_size_are_as_configured() {
        let (tree, collector) = (MetricsTree::new(), Collector::new());
        let service = tree.scope("rt").scope("in").scope("service").scope("svc/web");
        let counters: Vec<_> = (0..50).map(|i| service.counter(&format!("counter_number_{i}"))).collect();
        let port = collector.addr().port();
        let (flavor, flush_interval) = (Flavor::Dogstatsd, Duration::from_secs(3));
        let config = Config { flavor, flush_interval, max_datagram: 200, ..config("127.0.0.1", port) };
        let running = start(config, &tree, no_lookup());
        counters.iter().for_each(l5d_telemetry::Counter::incr);
        seconds(2).await;
        assert!(collector.datagrams().is_empty(), "the interval is not over");
        seconds(1).await;
        let datagrams = collector.datagrams();
        assert!(datagrams.iter().all(|datagram| datagram.len() <= 200));
        let line = "l5d.rt.service.counter_number_7:1|c|#rt:in,service:svc/web";
        assert!(datagrams.iter().any(|datagram| datagram.split('\n').any(|l| l == line)), "{datagrams:?}");
        running.stop().await;
    }

    #[tokio::test(start_paused = true)]
    async fn timings_are_sent_whether_or_not_the_window_has_rolled() {
        let (tree, collector) = (MetricsTree::new(), Collector::new());
        let stat = tree.scope("rt").stat("request_latency_ms");
        let snapshotter = Snapshotter::new(&tree);
        let running = start(config("127.0.0.1", collector.addr().port()), &tree, no_lookup());
        stat.add(7);
        snapshotter.tick();
        seconds(1).await;
        stat.add(8);
        seconds(1).await;
        let lines = collector.lines();
        let timings = lines.iter().filter(|line| line.starts_with("l5d.rt.request_latency_ms:")).count();
        assert_eq!(timings, 2, "{lines:?}");
        running.stop().await;
    }

    #[tokio::test(start_paused = true)]
    async fn datagrams_are_packed_below_the_limit_and_counted() {
        let (tree, collector) = (MetricsTree::new(), Collector::new());
        let counters: Vec<_> = (0..500).map(|i| tree.scope("rt").counter(&format!("counter_number_{i}"))).collect();
        let running = start(config("127.0.0.1", collector.addr().port()), &tree, no_lookup());
        counters.iter().for_each(l5d_telemetry::Counter::incr);
        seconds(1).await;
        let datagrams = collector.datagrams();
        assert!(datagrams.iter().all(|datagram| datagram.len() <= MAX_DATAGRAM && !datagram.ends_with('\n')));
        assert!(datagrams.iter().filter(|datagram| datagram.len() > MAX_DATAGRAM * 9 / 10).count() > 5);
        let statsd = tree.scope("statsd");
        let lines: usize = datagrams.iter().map(|datagram| datagram.split('\n').count()).sum();
        let bytes: usize = datagrams.iter().map(String::len).sum();
        assert_eq!(statsd.counter("datagrams").value(), datagrams.len() as u64);
        assert_eq!(statsd.counter("lines").value(), lines as u64);
        assert_eq!(statsd.counter("bytes").value(), bytes as u64);
        running.stop().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_collector_that_comes_late_or_goes_away_for_a_while_misses_no_count() {
        let tree = MetricsTree::new();
        let requests = tree.scope("rt").counter("requests");
        // An address of its own, so that no other test is given the port while nobody listens.
        let addr = Collector::at((Ipv4Addr::new(127, 0, 0, 2), 0).into()).addr();
        let running = start(config("127.0.0.2", addr.port()), &tree, no_lookup());
        requests.add(3);
        seconds(3).await;
        let refused = tree.scope("statsd").scope("dropped").counter("refused");
        assert!(refused.value() > 0);

        let collector = Collector::at(addr);
        seconds(2).await;
        assert_eq!(total(&collector.lines(), "l5d.rt.requests"), 3);
        drop(collector);
        // The first flush after that may be lost on the way: nobody can know yet that nobody listens.
        seconds(2).await;
        requests.add(4);
        seconds(3).await;
        let collector = Collector::at(addr);
        seconds(2).await;
        assert_eq!(total(&collector.lines(), "l5d.rt.requests"), 4);
        running.stop().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_is_looked_up_until_it_is_there_and_then_again_and_again() {
        let (tree, first, second) = (MetricsTree::new(), Collector::new(), Collector::new());
        let requests = tree.scope("rt").counter("requests");
        let asked: Arc<Mutex<Vec<Instant>>> = Arc::default();
        let (addrs, answers) = ([first.addr(), second.addr()], Arc::new(AtomicUsize::new(0)));
        let lookup: Lookup = Arc::new({
            let (asked, answers) = (Arc::clone(&asked), Arc::clone(&answers));
            move |name| {
                assert_eq!(name, ("statsd.test".to_owned(), 8125));
                asked.lock().unwrap().push(Instant::now());
                let answer = match answers.load(Ordering::SeqCst) {
                    0 => Err(io::Error::other("no such host")),
                    n => Ok(vec![addrs[n - 1]]),
                };
                Box::pin(std::future::ready(answer))
            }
        });
        let begun = Instant::now();
        let running = start(config("statsd.test", 8125), &tree, lookup);
        requests.add(3);
        seconds(65).await;
        let failures = tree.scope("statsd").counter("resolve_failures").value();
        assert_eq!(failures, asked.lock().unwrap().len() as u64);
        assert!(failures >= 3, "{failures}");

        answers.store(1, Ordering::SeqCst);
        seconds(31).await;
        assert_eq!(total(&first.lines(), "l5d.rt.requests"), 3, "nothing was lost meanwhile");
        answers.store(2, Ordering::SeqCst);
        seconds(31).await;
        requests.add(4);
        seconds(1).await;
        assert_eq!(total(&second.lines(), "l5d.rt.requests"), 4, "the collector has moved");
        answers.store(0, Ordering::SeqCst);
        seconds(60).await;
        requests.add(5);
        seconds(1).await;
        assert_eq!(total(&second.lines(), "l5d.rt.requests"), 5, "the last address is kept when the name is gone");

        let asked = asked.lock().unwrap().clone();
        assert_eq!(asked[0], begun, "at once");
        for pair in asked.windows(2) {
            let gap = pair[1] - pair[0];
            assert!(gap >= Duration::from_secs(10) && gap <= Duration::from_secs(31), "{gap:?}");
        }
        running.stop().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_lookup_that_never_ends_holds_up_nothing() {
        let tree = MetricsTree::new();
        let running = start(config("statsd.test", 8125), &tree, Arc::new(|_| Box::pin(std::future::pending())));
        let requests = tree.scope("rt").counter("requests");
        requests.incr();
        seconds(100).await;
        assert!(tree.scope("statsd").scope("dropped").counter("unresolved").value() > 0);
        running.stop().await;
    }

    #[tokio::test]
    async fn the_system_knows_the_local_host() {
        let found = by_system()(("localhost".to_owned(), 8125)).await.unwrap();
        assert!(found.iter().all(|addr| addr.ip().is_loopback() && addr.port() == 8125) && !found.is_empty());
        assert!(by_system()(("no such host".to_owned(), 8125)).await.is_err());
    }

    #[test]
    fn settings_that_cannot_work_are_refused() {
        let yaml = "prefix: a/b\nhostname: ''\nport: 0\ngaugeIntervalMs: 0\nsampleRate: 1.5\n\
                    flavor: librato\nflushIntervalMs: 0\nmaxDatagramBytes: 70000\n";
        let mut cx = Cx::new();
        parse(&l5d_config::read(yaml).unwrap(), &mut cx);
        let errors: Vec<String> = cx.finish().iter().map(ToString::to_string).collect();
        assert_eq!(
            errors,
            [
                "2:11: hostname: the collector's host name or address is needed",
                "3:7: port: 0 is no port to send to",
                "4:18: gaugeIntervalMs: the interval must be at least 1 ms",
                "5:13: sampleRate: sampleRate must be between 0.0 and 1.0",
                "6:9: flavor: unknown flavor \"librato\"; known: none, dogstatsd, influx, graphite",
                "7:18: flushIntervalMs: the interval must be at least 1 ms",
                "8:19: maxDatagramBytes: a datagram may have 128 to 65507 bytes, not 70000",
            ]
        );
    }
}
