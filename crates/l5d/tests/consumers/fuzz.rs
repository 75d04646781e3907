//! Metric trees and names that nobody would choose, by the thousand, before every judge there is.
//!
//! Trees are planted in this process and written by the encoders; names come through a running l5d as Host headers. What is planted
//! follows from a seed, which is printed; a tree that a judge refuses is cut down to the metrics that it takes before the case
//! fails, so that what is printed is a test. `L5D_FUZZ_SEED`, `L5D_FUZZ_TREES` and `L5D_FUZZ_NAMES` choose other and more of them.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::UdpSocket;
use std::process::Command;
use std::sync::Arc;

use l5d_telemetry::format::statsd::{Flavor, Options as StatsdOptions, Pusher};
use l5d_telemetry::format::{influxdb, json, modern, prometheus};
use l5d_telemetry::{GaugeGuard, MetricsTree, Page, Snapshotter};
use l5d_testkit::{Response, Upstream};
use serde_json::Value;

use crate::programs::{cached, installed, run};
use crate::suite::Suite;
use crate::telegraf;

/// How many trees, and how many of them are judged at once.
const TREES: u64 = 3_000;
const BATCH: u64 = 500;
/// How many names.
const NAMES: u64 = 4_000;

/// A metric of a planted tree.
#[derive(Clone, Debug)]
struct Planted {
    keys: Vec<String>,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Counter(u64),
    Gauge(f64),
    Stat(Vec<u64>),
}

/// Trees that were refused once: each is in every run.
fn kept() -> Vec<Planted> {
    let counter =
        |keys: &[&str]| Planted { keys: keys.iter().map(|&key| key.to_owned()).collect(), kind: Kind::Counter(1) };
    vec![
        counter(&["rt", "a\0b", "service", "\u{0}", "requests"]),
        counter(&["rt", "a\rb", "service", "\r", "requests"]),
        counter(&["rt", "x\\", "service", "y\\\\", "requests"]),
        counter(&["rt", "\u{feff}", "service", "\u{2028}\u{85}", "requests"]),
        counter(&["rt", "", "service", "", "requests"]),
        counter(&["rt", "http", "client", "c", "time"]),
        counter(&["\u{1}", "\u{7f}", "="]),
        counter(&["rt", "http", "client", "c", "service", "h", "ve\\r\\,\n"]),
    ]
}

/// Small, and the same everywhere: splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn one_of<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> &'a T {
        all[self.below(all.len() as u64) as usize]
    }

    /// Any text: mostly signs that some format has a use for, sometimes none, seldom 70 KB.
    fn text(&mut self) -> String {
        const SIGNS: &[char] = &[
            '\\', '"', '\'', '\n', '\r', '\t', '\0', '\u{1}', '\u{8}', '\u{c}', '\u{1f}', '\u{7f}', '\u{85}', ',', '=',
            ' ', '{', '}', '#', ':', ';', '|', '@', '/', '.', '-', '_', '%', '$', '*', '?', '\u{2028}', '\u{feff}',
            '\u{fffd}', '🍭', 'é',
        ];
        match self.below(400) {
            0 => return self.one_of(&["x", "é", "\\", "a b,", "\n"]).repeat(70_000 / 2),
            1..20 => return String::new(),
            _ => {}
        }
        let length = self.below(12);
        let mut text = String::new();
        for _ in 0..=length {
            text.push(match self.below(4) {
                0 => char::from(b'a' + self.below(26) as u8),
                1 => char::from_u32(self.below(0x11_0000) as u32).unwrap_or('?'),
                _ => SIGNS[self.below(SIGNS.len() as u64) as usize],
            });
        }
        text
    }

    fn key(&mut self) -> String {
        let known = [
            "requests",
            "failures",
            "exn",
            "status",
            "2XX",
            "200",
            "request_latency_ms",
            "pending",
            "stream",
            "request",
            "time",
            "a",
            "a_b",
            "a.b",
            "x_count",
            "x",
            "x_sum",
            "x_avg",
            "restartable",
            "rejected",
            "http",
            "sourcedfailures",
            "loadbalancer",
            "host",
            "time",
            "quantile",
            "le",
            "_",
            "1",
            "Infinity",
            "NaN",
        ];
        if self.below(3) == 0 { self.text() } else { self.one_of(&known).to_owned() }
    }
}

/// The tree of a seed: a few metrics, which may be anywhere, under something of its own so that trees don't meet.
fn planted(seed: u64) -> Vec<Planted> {
    let mut random = Random(seed);
    let own = format!("{}{seed:x}", random.text());
    let above: Vec<String> = match random.below(5) {
        0 => vec![own],
        1 => vec!["rt".to_owned(), own],
        2 => vec!["rt".to_owned(), own, "client".to_owned(), random.text(), "service".to_owned(), random.text()],
        _ => vec!["rt".to_owned(), own, random.one_of(&["service", "client", "server"]).to_owned(), random.text()],
    };
    let metrics = (0..=random.below(5)).map(|_| {
        let mut keys = above.clone();
        for _ in 0..=random.below(3) {
            keys.push(random.key());
        }
        let kind = match random.below(6) {
            0 | 1 => Kind::Stat((0..random.below(4)).map(|_| random.next() >> random.below(64)).collect()),
            2 => Kind::Gauge(f64::from_bits(random.next())),
            3 => {
                Kind::Gauge([0.0, -1.5, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e7, 2.0][random.below(7) as usize])
            }
            _ => Kind::Counter(random.next() >> random.below(64).max(12)),
        };
        Planted { keys, kind }
    });
    metrics.collect()
}

/// A tree with these metrics, its windows rolled.
struct Grown {
    metrics: Vec<Planted>,
    tree: MetricsTree,
    pusher: Vec<Pusher>,
    _gauges: Vec<GaugeGuard>,
}

impl Grown {
    fn new(metrics: &[Planted]) -> Self {
        let tree = MetricsTree::new();
        let options = |flavor| StatsdOptions { sample_rate: 1.0, flavor, ..StatsdOptions::default() };
        let pusher = [Flavor::None, Flavor::Graphite].map(|flavor| Pusher::new(&tree, options(flavor)));
        let mut gauges = Vec::new();
        for Planted { keys, kind } in metrics {
            let (name, above) = keys.split_last().expect("a metric has a name");
            let scope = above.iter().fold(tree.root(), |scope, key| scope.scope(key));
            match kind {
                Kind::Counter(n) => scope.counter(name).add(*n),
                Kind::Gauge(x) => {
                    let x = *x;
                    gauges.push(scope.gauge(name, move || x));
                }
                Kind::Stat(samples) => {
                    let stat = scope.stat(name);
                    samples.iter().for_each(|&sample| stat.add(sample));
                }
            }
        }
        Snapshotter::new(&tree).tick();
        Self { metrics: metrics.to_vec(), tree, pusher: pusher.into(), _gauges: gauges }
    }

    /// Counters with the names of all the metrics.
    fn counters(&self) -> Vec<Planted> {
        self.metrics.iter().map(|metric| Planted { keys: metric.keys.clone(), kind: Kind::Counter(7) }).collect()
    }

    fn prometheus(&self, types: bool) -> String {
        written(prometheus::page(&self.tree, &prometheus::Options { prefix: String::new(), types }))
    }

    fn modern(&self, format: modern::Format) -> Vec<u8> {
        bytes(modern::page(&self.tree, modern::Options { format, ..modern::Options::default() }))
    }

    fn influx(&self, integers: bool) -> String {
        written(influxdb::page(&self.tree, &influxdb::Options { host: "h".to_owned(), integers }))
    }
}

fn bytes(mut page: Box<dyn Page>) -> Vec<u8> {
    let mut bytes = Vec::new();
    while page.fill(&mut bytes) {}
    bytes
}

fn written(page: Box<dyn Page>) -> String {
    String::from_utf8(bytes(page)).expect("pages are text")
}

/// What judges a tree.
type Judge = fn(&Suite, &mut Grown) -> Result<(), String>;

/// A number from the environment, or another.
fn number(name: &str, or: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(or)
}

/// Every tree before one judge. One that is refused is cut down first.
fn judged(suite: &Suite, judge: Judge) {
    let (first, trees) = (number("L5D_FUZZ_SEED", 1), number("L5D_FUZZ_TREES", TREES));
    println!("    seeds {first} to {}", first + trees - 1);
    let mut from = first;
    let mut next = kept();
    loop {
        if let Err(why) = judge(suite, &mut Grown::new(&next)) {
            let (least, why) = least(suite, judge, next, why);
            panic!("refused: {why:.2000}\nby seeds from {from} on; it takes only {least:#?}");
        }
        if from >= first + trees {
            return;
        }
        let to = (from + BATCH).min(first + trees);
        next = (from..to).flat_map(planted).collect();
        from = to;
    }
}

/// The fewest metrics that are still refused, by leaving out ever smaller parts.
fn least(suite: &Suite, judge: Judge, mut metrics: Vec<Planted>, mut why: String) -> (Vec<Planted>, String) {
    let mut part = metrics.len() / 2;
    while part > 0 {
        let mut at = 0;
        while at < metrics.len() && metrics.len() > 1 {
            let mut without = metrics.clone();
            without.drain(at..(at + part).min(metrics.len()));
            match judge(suite, &mut Grown::new(&without)) {
                Err(still) if !without.is_empty() => (metrics, why) = (without, still),
                _ => at += part,
            }
        }
        part /= 2;
    }
    (metrics, why)
}

pub(crate) fn promtool_never_refuses_a_page(suite: &Suite) {
    judged(suite, |_, grown| {
        let modern = grown.modern(modern::Format::Text);
        for page in [grown.prometheus(false).into_bytes(), grown.prometheus(true).into_bytes(), modern] {
            let checked = run(installed("promtool", "prometheus").args(["check", "metrics"]), &page);
            if !matches!(checked.code, 0 | 3) || checked.stderr.contains("error while") {
                return Err(checked.stderr);
            }
        }
        Ok(())
    });
}

pub(crate) fn the_modern_page_is_without_fault_to_promtool(suite: &Suite) {
    let grown = Grown::new(&(1..200).flat_map(planted).collect::<Vec<_>>());
    let page = grown.modern(modern::Format::Text);
    let checked = run(installed("promtool", "prometheus").args(["check", "metrics"]), &page);
    assert_eq!((checked.code, checked.stderr.as_str()), (0, ""), "not even a matter of taste");
    let node = &suite.mesh().nodes[0];
    let page = l5d_testkit::get(node.l5d.admin(), "localhost", "/metrics").expect("the page is there").body;
    let checked = run(installed("promtool", "prometheus").args(["check", "metrics"]), &page);
    assert_eq!((checked.code, checked.stderr.as_str()), (0, ""));
    let page = String::from_utf8(page).expect("pages are text");
    let unlisted: Vec<&str> = page.lines().filter(|line| line.starts_with("l5d_unlisted")).collect();
    assert_eq!(unlisted, [""; 0], "every metric of a running l5d has a family of its own");
}

pub(crate) fn pushgateway_accepts_every_page(suite: &Suite) {
    judged(suite, |suite, grown| {
        let modern = grown.modern(modern::Format::Text);
        for page in [grown.prometheus(false).into_bytes(), grown.prometheus(true).into_bytes(), modern] {
            suite.pushgateway().takes(&page)?;
        }
        Ok(())
    });
}

/// Prints each sample as a line of JSON: name, labels, value.
const STRICT: &str = "\
import json, sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families
for family in text_string_to_metric_families(sys.stdin.buffer.read().decode('utf-8')):
    if family.type == 'unknown' or not family.documentation:
        raise ValueError(family.name + ' has no type or no help')
    for sample in family.samples:
        print(json.dumps([sample.name, sample.labels, str(sample.value)]))
";

/// A sample's name with its labels.
type Series = (String, Vec<(String, String)>);

/// The strict parser of OpenMetrics: reads back what was written, labels and all.
pub(crate) fn strict_openmetrics(page: &[u8]) -> Result<Vec<Series>, String> {
    let parser = cached("openmetrics-0.22.1/prometheus_client/openmetrics/parser.py", "openmetrics");
    let packages = parser.ancestors().nth(3).expect("the parser is in a package");
    let mut python = Command::new("python3");
    python.env("PYTHONPATH", packages).args(["-c", STRICT]);
    let outcome = run(&mut python, page);
    if outcome.code != 0 {
        return Err(outcome.stderr);
    }
    let text = outcome.text();
    let samples = text.lines().map(|line| {
        let sample: Value = serde_json::from_str(line).map_err(|error| format!("{line}: {error}"))?;
        let labels = sample[1].as_object().into_iter().flatten();
        let labels = labels.map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()));
        let mut labels: Vec<_> = labels.collect();
        labels.sort();
        Ok((sample[0].as_str().unwrap_or_default().to_owned(), labels))
    });
    samples.collect()
}

/// The same, read by a reader of our own that knows three escapes and nothing else.
fn samples(page: &str) -> Vec<(String, Vec<(String, String)>)> {
    let lines = page.lines().filter(|line| !line.starts_with("# "));
    let samples = lines.map(|line| {
        let (name, mut rest) = line.split_at(line.find(['{', ' ']).expect("a sample has a value"));
        let mut labels = Vec::new();
        while let Some((label, value)) = rest.strip_prefix(['{', ',']).and_then(|rest| rest.split_once("=\"")) {
            let mut text = String::new();
            let mut chars = value.char_indices();
            rest = loop {
                match chars.next().expect("a value ends") {
                    (at, '"') => break &value[at + 1..],
                    (_, '\\') => text.push(match chars.next().expect("an escape has a sign").1 {
                        'n' => '\n',
                        sign => sign,
                    }),
                    (_, sign) => text.push(sign),
                }
            };
            labels.push((label.to_owned(), text));
        }
        labels.sort();
        (name.to_owned(), labels)
    });
    samples.collect()
}

pub(crate) fn the_strict_parser_of_openmetrics_reads_back_every_page(suite: &Suite) {
    judged(suite, |_, grown| {
        let page = grown.modern(modern::Format::OpenMetrics);
        let mut read = strict_openmetrics(&page)?;
        let mut wrote = samples(std::str::from_utf8(&page).map_err(|error| error.to_string())?);
        read.sort();
        wrote.sort();
        let differs = read.iter().zip(&wrote).find(|(read, wrote)| read != wrote);
        match differs {
            Some((read, wrote)) => Err(format!("{wrote:?} was read as {read:?}")),
            None if read.len() == wrote.len() => Ok(()),
            None => Err(format!("{} samples were read of {}", read.len(), wrote.len())),
        }
    });
}

/// Telegraf's `inputs.prometheus` asks for protobuf first, and reads it with the library of Prometheus' own clients.
pub(crate) fn telegraf_reads_every_page_in_protobuf(suite: &Suite) {
    judged(suite, |_, grown| {
        let page = grown.modern(modern::Format::Protobuf);
        let text = String::from_utf8(grown.modern(modern::Format::Text)).map_err(|error| error.to_string())?;
        // What is no finite number is left out by it.
        let shown = |line: &&str| line.rsplit(' ').next().is_some_and(|n| n.parse().is_ok_and(f64::is_finite));
        let samples = text.lines().filter(|line| !line.starts_with('#')).filter(shown);
        let names: BTreeSet<&str> = samples.filter_map(|line| line.split(['{', ' ']).next()).collect();
        let body = Arc::new(page);
        let upstream = Upstream::start(move |_| {
            Response::new(200)
                .header(
                    "content-type",
                    "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited",
                )
                .body(body.as_slice())
        });
        let config = format!(
            "[[inputs.prometheus]]\nurls = [\"http://127.0.0.1:{}/metrics\"]\nmetric_version = 2\n\
             [[outputs.file]]\nfiles = [\"stdout\"]\ndata_format = \"influx\"\n",
            upstream.port()
        );
        let read = telegraf::gathered(&config)?;
        match names.iter().find(|name| !read.contains(&format!("{name}="))) {
            Some(name) => Err(format!("{name} was lost")),
            None => Ok(()),
        }
    });
}

pub(crate) fn influxdb_keeps_every_line(suite: &Suite) {
    judged(suite, |suite, grown| {
        let influxdb = suite.influxdb();
        let counters = Grown::new(&grown.counters());
        // A field has one type everywhere, and Linkerd's names one kind; these here have any.
        for page in [grown.influx(false), counters.influx(true)] {
            influxdb.query("", "DROP DATABASE fuzzed");
            influxdb.query("", "CREATE DATABASE fuzzed");
            influxdb.write("fuzzed", &page)?;
            let (sent, stored) = (page.lines().map(telegraf::key).collect::<BTreeSet<_>>(), influxdb.series("fuzzed"));
            if let Some(lost) = sent.difference(&stored).next() {
                return Err(format!("{lost:?} is not there"));
            }
            // Two nodes may come to one measurement; a field of it is written once.
            let mut seen = BTreeSet::new();
            if let Some(twice) = page.lines().flat_map(fields).find(|field| !seen.insert(field.clone())) {
                return Err(format!("{twice:?} comes twice"));
            }
        }
        Ok(())
    });
}

/// The fields of a line, each as its series and its own key.
fn fields(line: &str) -> Vec<(String, String)> {
    let series = telegraf::key(line);
    let (mut keys, mut key, mut in_key, mut escaped) = (Vec::new(), String::new(), true, false);
    for c in line[series.len() + 1..].chars() {
        match c {
            '=' if in_key && !escaped => {
                keys.push((series.clone(), std::mem::take(&mut key)));
                in_key = false;
            }
            ',' if !in_key => in_key = true,
            c if in_key => key.push(c),
            _ => {}
        }
        escaped = c == '\\';
    }
    keys
}

pub(crate) fn telegraf_takes_every_line(suite: &Suite) {
    judged(suite, |_, grown| {
        let page = grown.influx(false);
        let lines = page.lines().count();
        let body = page.into_bytes();
        let upstream =
            Upstream::start(move |_| Response::new(200).header("content-type", "text/plain").body(body.as_slice()));
        let config = format!(
            "[[inputs.http]]\nurls = [\"http://127.0.0.1:{}/\"]\ndata_format = \"influx\"\n\
             [[outputs.file]]\nfiles = [\"stdout\"]\ndata_format = \"influx\"\n",
            upstream.port()
        );
        let taken = telegraf::gathered(&config)?.lines().count();
        if taken == lines { Ok(()) } else { Err(format!("{taken} of {lines} lines")) }
    });
}

pub(crate) fn statsd_sees_no_bad_line(suite: &Suite) {
    judged(suite, |suite, grown| {
        let statsd = suite.statsd();
        let socket = UdpSocket::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
        let mut sent = 0;
        for pusher in &mut grown.pusher {
            pusher.flush(true, &mut |datagram| {
                // The server's socket takes so many at once; it has read them when it has answered.
                sent += 1;
                if sent % 50 == 0 {
                    statsd.no_bad_line();
                }
                socket.send_to(datagram, ("127.0.0.1", statsd.port())).is_ok()
            });
        }
        let bad = statsd.bad_lines();
        if bad == 0 { Ok(()) } else { Err(format!("{bad} bad lines")) }
    });
}

pub(crate) fn json_is_json_and_has_every_name_once(suite: &Suite) {
    judged(suite, |_, grown| {
        for (pretty, tree) in [(false, false), (true, false), (false, true)] {
            let options = json::Options { pretty, tree, q: None };
            let page = written(json::page(&grown.tree, &options).map_err(|error| error.to_string())?);
            let read: Value = serde_json::from_str(&page).map_err(|error| error.to_string())?;
            if pretty && read.as_object().map(serde_json::Map::len) != Some(page.lines().count() - 2) {
                return Err("a name comes twice".to_owned());
            }
        }
        Ok(())
    });
}

/// Host headers by the thousand through a running l5d, each page of which every judge reads again and again.
pub(crate) fn names_of_requests_cost_no_scrape_and_no_count(suite: &Suite) {
    use l5d_testkit::{Downstream, free_port};
    use std::net::{Ipv4Addr, SocketAddr};
    const ROUND: u64 = 2_000;
    let names = number("L5D_FUZZ_NAMES", NAMES);
    let upstream = Upstream::start(|_| Response::ok("hello"));
    let (admin, server) = (free_port(), SocketAddr::from((Ipv4Addr::LOCALHOST, free_port())));
    let statsd = suite.statsd();
    let config = format!(
        "admin: {{port: {admin}}}\ntelemetry:\n- kind: io.l5d.prometheus\n- kind: io.l5d.influxdb\n- kind: io.l5d.metrics\n  \
         maxSeriesPerScope: 500\n- kind: io.l5d.statsd\n  experimental: true\n  hostname: 127.0.0.1\n  port: {}\n  prefix: fuzzed\n\
         routers:\n- protocol: http\n  dtab: /svc => /$/inet/127.1/{}\n  maxHeadersKB: 128\n  servers:\n  - port: {}\n",
        statsd.port(),
        upstream.port(),
        server.port()
    );
    let l5d = crate::l5d::start(&config, SocketAddr::from((Ipv4Addr::LOCALHOST, admin)));
    let mut random = Random(7);
    let (mut answered, mut downstream) = (0_u64, None);
    for n in 1..=names {
        let name: String =
            format!("{}{n}", random.text()).chars().filter(|c| !matches!(c, '\r' | '\n' | '\0')).collect();
        let mut client = match downstream.take() {
            Some(client) => client,
            None => Downstream::connect(server).expect("l5d listens"),
        };
        // One that breaks the rules of HTTP is refused, and its connection ends.
        if let Ok(reply) = client.get(&name, "/")
            && reply.status == 200
        {
            answered += 1;
            downstream = Some(client);
        }
        if n % ROUND == 0 {
            let read = |path: &str, accept: &str| {
                let headers = [("host", "localhost"), ("accept", accept)];
                let mut client = Downstream::connect(l5d.admin()).expect("the admin server listens");
                let reply =
                    client.request("GET", path, &headers, b"").unwrap_or_else(|error| panic!("{path}: {error}"));
                assert_eq!(reply.status, 200, "{path}");
                reply.body
            };
            for path in ["/admin/metrics/prometheus", "/metrics"] {
                let page = read(path, "*/*");
                let checked = run(installed("promtool", "prometheus").args(["check", "metrics"]), &page);
                assert!(matches!(checked.code, 0 | 3), "{path}: {}", checked.stderr);
                suite.pushgateway().takes(&page).unwrap_or_else(|why| panic!("{path}: {why:.2000}"));
            }
            let page = read("/metrics", "application/openmetrics-text; version=1.0.0");
            strict_openmetrics(&page).unwrap_or_else(|why| panic!("{why:.2000}"));
            let page = String::from_utf8(read("/admin/metrics/influxdb", "*/*")).expect("pages are text");
            suite.influxdb().query("", "CREATE DATABASE names");
            suite.influxdb().write("names", &page).unwrap_or_else(|why| panic!("{why:.2000}"));
            statsd.no_bad_line();
            let text = String::from_utf8(read("/metrics", "*/*")).expect("pages are text");
            let value = |line: &str| line.rsplit(' ').next().and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0);
            let lines: Vec<&str> =
                text.lines().filter(|line| line.starts_with("l5d_service_requests_total{")).collect();
            assert!(lines.len() <= 502, "{} services", lines.len());
            assert_eq!(lines.iter().copied().map(value).sum::<f64>(), answered as f64, "no count is lost");
        }
    }
    assert!(answered > names / 10, "{answered} names were answered");
    let mut said = String::new();
    let _ = write!(said, "{}", l5d.output());
    assert!(
        said.contains("(overflow)") && said.contains("service"),
        "the log names the label that grew:\n{said:.2000}"
    );
}
