//! Prometheus, with the job that the README and Linkerd's telemetry page print.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use l5d_testkit::{Process, free_port, get, wait_for, wait_until};
use serde_json::Value;

use crate::l5d::{Hostile, LABELS, Mesh, SLOW};
use crate::programs::{installed, run};
use crate::readme;
use crate::suite::Suite;

/// Prometheus takes five seconds before its first scrape, whatever its interval; this is long enough for a busy machine too.
const PATIENCE: Duration = Duration::from_secs(60);

/// Three processes and the hostile one, each with both faces.
const TARGETS: usize = 8;

/// A running Prometheus. Its folder is that of its process guard.
pub(crate) struct Prometheus {
    addr: SocketAddr,
    _process: Process,
    _folder: tempfile::TempDir,
}

/// A series and its value, as a query answers.
#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
}

impl Prometheus {
    pub(crate) fn start(mesh: &Mesh, hostile: &Hostile) -> Self {
        Self::with(&Self::config(mesh, hostile))
    }

    /// Prometheus with this configuration, after its first scrape of every target.
    pub(crate) fn with(config_text: &str) -> Self {
        let folder = tempfile::TempDir::new().expect("a temporary folder can be made");
        let config = folder.path().join("prometheus.yml");
        std::fs::write(&config, config_text).expect("a file can be written");
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let mut command = installed("prometheus", "prometheus");
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={addr}"))
            .arg("--log.level=warn");
        let mut process = Process::start("prometheus", &mut command).expect("prometheus starts");
        process.wait_ready(PATIENCE, || get(addr, "localhost", "/-/ready").is_ok_and(|reply| reply.status == 200));
        let this = Self { addr, _process: process, _folder: folder };
        wait_until("the first scrape of every target", || {
            let targets = this.targets();
            !targets.is_empty() && targets.iter().all(|target| target["health"] != "unknown")
        });
        this
    }

    /// The README's job with the addresses of this run and a shorter interval, and one more job for the process with bad names.
    fn config(mesh: &Mesh, hostile: &Hostile) -> String {
        let mut config = readme::replaced(readme_job(), "scrape_interval: 15s", "scrape_interval: 3s");
        for (printed, node) in ["1.2.3.4:9990", "2.3.4.5:9990", "3.4.5.6:9990"].into_iter().zip(&mesh.nodes) {
            config = readme::replaced(&config, printed, &node.l5d.admin().to_string());
        }
        let job = "  - job_name: hostile\n    metrics_path: /admin/metrics/prometheus\n    static_configs:\n";
        let modern = "  - job_name: modern\n    metrics_path: /metrics\n    scrape_interval: 5s\n    static_configs:\n";
        let (hostile, nodes) = (hostile.l5d.admin(), mesh.nodes.iter().map(|node| format!("'{}'", node.l5d.admin())));
        let all = nodes.chain([format!("'{hostile}'")]).collect::<Vec<_>>().join(", ");
        format!("{}\n{job}    - targets: ['{hostile}']\n{modern}    - targets: [{all}]\n", config.trim_end())
    }

    fn ask(&self, path: &str) -> Value {
        let reply = get(self.addr, "localhost", path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let answer: Value = serde_json::from_slice(&reply.body).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!(answer["status"], "success", "{path}: {answer}");
        answer["data"].clone()
    }

    /// The active targets; `lastError` is why a page could not be taken.
    fn targets(&self) -> Vec<Value> {
        self.ask("/api/v1/targets?state=active")["activeTargets"].as_array().cloned().unwrap_or_default()
    }

    /// What an instant query answers.
    pub(crate) fn query(&self, expression: &str) -> Vec<Series> {
        let data = self.ask(&format!("/api/v1/query?query={}", percent_encoded(expression)));
        let vector = data["result"].as_array().cloned().unwrap_or_default();
        vector
            .iter()
            .map(|series| Series {
                labels: serde_json::from_value(series["metric"].clone()).expect("labels are text"),
                value: series["value"][1].as_str().and_then(|text| text.parse().ok()).expect("a value is a number"),
            })
            .collect()
    }

    /// The one value of a query that answers one series; waits until it is `wanted`.
    fn expect(&self, expression: &str, wanted: f64) {
        let mut last = Vec::new();
        let deadline = std::time::Instant::now() + PATIENCE;
        while std::time::Instant::now() < deadline {
            last = self.query(expression);
            if last.len() == 1 && (last[0].value - wanted).abs() < 1e-9 {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("{expression} should be {wanted}, is {last:?}; targets: {:#?}", self.errors());
    }

    fn errors(&self) -> Vec<String> {
        self.targets().iter().map(|target| format!("{} {}", target["scrapeUrl"], target["lastError"])).collect()
    }
}

fn percent_encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

fn readme_job() -> &'static str {
    readme::block("yaml", "job_name: 'linkerd'")
}

/// A string between double quotes, as PromQL reads it.
fn quoted(text: &str) -> String {
    format!("{text:?}").replace("\\'", "'")
}

pub(crate) fn the_readmes_job_is_a_valid_configuration(_: &Suite) {
    let folder = tempfile::TempDir::new().expect("a temporary folder can be made");
    let file = folder.path().join("prometheus.yml");
    std::fs::write(&file, readme_job()).expect("a file can be written");
    let checked = run(installed("promtool", "prometheus").args(["check", "config"]).arg(&file), b"");
    assert_eq!(checked.code, 0, "{}{}", checked.text(), checked.stderr);
}

pub(crate) fn queries_return_what_was_sent_to_three_processes(suite: &Suite) {
    let (mesh, prometheus) = (suite.mesh(), suite.prometheus());
    prometheus.expect("count(up{job=\"linkerd\"} == 1)", 3.0);

    for node in &mesh.nodes {
        let of = format!("instance=\"{}\", job=\"linkerd\", rt=\"http\"", node.l5d.admin());
        let server = format!("{of}, server=\"{}\"", node.server_name());
        let service = format!("{of}, service=\"svc/web\"");
        let client = format!("{of}, client=\"{}\"", mesh.client_name());
        let (sent, all) = (node.sent, node.sent.all() as f64);
        let fine = (sent.good + sent.missing) as f64;
        let seen = prometheus.query(&format!("rt:server:requests{{{of}}}"));
        let names: Vec<&String> = seen.iter().flat_map(|series| series.labels.keys()).collect();
        assert_eq!(names, ["__name__", "instance", "job", "rt", "server"], "nothing else is said of a server");
        for (scope, labels) in [("server", &server), ("service", &service), ("client", &client)] {
            prometheus.expect(&format!("rt:{scope}:requests{{{labels}}}"), all);
            prometheus.expect(&format!("rt:{scope}:success{{{labels}}}"), fine);
            prometheus.expect(&format!("rt:{scope}:failures{{{labels}, exception=\"\"}}"), sent.broken as f64);
        }
        prometheus.expect(&format!("rt:client:service:requests{{{client}, service=\"svc/web\"}}"), all);
        prometheus.expect(&format!("rt:server:status:2XX{{{server}}}"), sent.good as f64);
        prometheus.expect(&format!("rt:server:status:4XX{{{server}}}"), sent.missing as f64);
        prometheus.expect(&format!("rt:server:status:5XX{{{server}}}"), sent.broken as f64);
        prometheus.expect(&format!("rt:client:status:5XX{{{client}}}"), sent.broken as f64);
        prometheus.expect(&format!("rt:client:connects{{{client}}}"), 1.0);
        prometheus.expect(&format!("rt:bindcache:path:misses{{{of}}}"), 1.0);
    }
    for node in &mesh.nodes {
        let of = format!("job=\"modern\", instance=\"{}\"", node.l5d.admin());
        prometheus.expect(&format!("sum(l5d_server_requests_total{{{of}}})"), node.sent.all() as f64);
        let count = format!("sum(l5d_server_request_duration_seconds_count{{{of}}})");
        prometheus.expect(&count, node.sent.all() as f64);
    }
    let all: u64 = mesh.nodes.iter().map(|node| node.sent.all()).sum();
    prometheus.expect("sum(rt:server:requests{job=\"linkerd\"})", all as f64);
    prometheus.expect("count(count by (instance) (rt:client:requests{job=\"linkerd\"}))", 3.0);
    prometheus.expect("count(jvm:uptime{job=\"linkerd\"} > 0)", 3.0);
    // Counters that stand still have no rate; those of the admin server count each scrape.
    prometheus.expect("sum(rate(rt:server:requests{job=\"linkerd\"}[10s]))", 0.0);
    wait_until("each admin server's own counter to grow", || {
        prometheus.query("rate(srv:adminhttp:requests{job=\"linkerd\"}[10s]) > 0").len() == 3
    });
    every_sample_is_kept(prometheus);
}

/// A stat is there for the window in which it got samples, so requests go on until Prometheus has seen one.
pub(crate) fn a_latency_is_seen_for_the_window_that_has_it(suite: &Suite) {
    let prometheus = suite.prometheus();
    let of = "job=\"hostile\", rt=\"http\", service=\"svc/slow\"";
    let query = |quantile: &str| {
        let query = format!("max_over_time(rt:service:request_latency_ms{{{of}, quantile=\"{quantile}\"}}[1m])");
        wait_for(&query, PATIENCE, || {
            suite.hostile().ask_slow();
            prometheus.query(&query).pop()
        })
    };
    for quantile in ["0", "0.5", "0.9", "0.95", "0.99", "0.999", "0.9999", "1"] {
        // Two buckets less than the upstream's delay: Finagle's percentiles are the middles of buckets.
        let seen = query(quantile);
        assert!(seen.value >= SLOW.as_millis() as f64 - 2.0, "{quantile}: {seen:?}");
    }
}

fn every_sample_is_kept(prometheus: &Prometheus) {
    // A page that is refused stays refused; one that a busy machine wrote too late comes with the next scrape.
    wait_until("every target to be up", || {
        let down = prometheus.targets().into_iter().find(|target| target["health"] != "up");
        if let Some(target) = &down {
            println!("    {}: {}", target["scrapeUrl"], target["lastError"]);
        }
        down.is_none()
    });
    wait_until("samples of every target", || prometheus.query("scrape_samples_scraped").len() == TARGETS);
    let scraped = prometheus.query("scrape_samples_scraped");
    assert!(scraped.iter().all(|series| series.value > 50.0), "{scraped:?}");
}

pub(crate) fn hostile_names_come_back_as_they_were_sent(suite: &Suite) {
    let prometheus = suite.prometheus();
    prometheus.expect("count(up{job=\"hostile\"} == 1)", 1.0);
    for label in LABELS {
        let of = format!("job=\"hostile\", rt={}", quoted(label));
        prometheus.expect(&format!("rt:service:requests{{{of}, service=\"svc/web\"}}"), 3.0);
        prometheus.expect(&format!("count(count by (rt) (rt:server:requests{{{of}}}))"), 1.0);
    }
    // A header's bytes are Latin-1, as Netty read them, and a name's are UTF-8. An element with a byte outside of a name's alphabet is
    // written in hex, all of it.
    let of_all = "sum(rt:service:requests{job=\"hostile\", service=";
    let hex = |text: &str| {
        let name: String = text.bytes().map(char::from).collect();
        name.bytes().map(|byte| format!("\\x{byte:02x}")).collect::<String>()
    };
    for host in ["quo\"te", "comma,equals=space here", "bücher.example", "🍭", "[::1]:8080"] {
        let name = quoted(&format!("svc/{}", hex(host)));
        prometheus.expect(&format!("{of_all}{name}}})"), LABELS.len() as f64);
    }
    prometheus.expect(&format!("{of_all}\"svc/UPPER.example:80\"}})"), LABELS.len() as f64);
    every_sample_is_kept(prometheus);
}

pub(crate) fn promtool_can_parse_every_body(suite: &Suite) {
    for (name, body) in bodies(suite) {
        // 0: nothing to say; 3: only matters of taste, such as the colons of Linkerd's names; 1: it can't be parsed.
        let checked = run(installed("promtool", "prometheus").args(["check", "metrics"]), body.as_bytes());
        let grave: Vec<&str> = checked.stderr.lines().filter(|line| line.contains("error while")).collect();
        assert!(
            matches!(checked.code, 0 | 3) && grave.is_empty(),
            "{name}: {} {grave:?}\n{}",
            checked.code,
            checked.stderr
        );
    }
}

/// Every kind of Prometheus page that the suite has: before traffic, after it, with bad names.
pub(crate) fn bodies(suite: &Suite) -> Vec<(String, String)> {
    let mesh = suite.mesh();
    let before = mesh.untouched.iter().map(|body| ("before traffic".to_owned(), body.clone()));
    let page = "/admin/metrics/prometheus";
    let after = mesh.nodes.iter().map(|node| (format!("{}", node.l5d.admin()), node.l5d.scrape().text(page)));
    let hostile = ("hostile names".to_owned(), suite.hostile().scrape().text(page));
    let all: Vec<(String, String)> = before.chain(after).chain([hostile]).collect();
    for (name, body) in &all {
        assert!(body.lines().count() > 30 && body.ends_with('\n'), "{name}: {} lines", body.lines().count());
    }
    all
}
