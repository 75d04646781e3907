//! Prometheus 3, which refuses an answer without a type, reads native histograms, and has both faces to scrape.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use l5d_testkit::{Process, free_port, get, wait_for, wait_until};
use serde_json::Value;

use crate::l5d::{Hostile, Mesh, SLOW};
use crate::programs::cached;
use crate::suite::Suite;

/// Prometheus takes five seconds before its first scrape, whatever its interval; this is long enough for a busy machine too.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Prometheus3 {
    addr: SocketAddr,
    process: Process,
    _folder: tempfile::TempDir,
}

/// The jobs: name, path, and what else there is to say.
const JOBS: &[(&str, &str, &str)] = &[
    ("legacy", "/admin/metrics/prometheus", ""),
    ("any", "/metrics", ""),
    ("native", "/metrics", "scrape_native_histograms: true"),
    ("openmetrics", "/metrics", "scrape_protocols: [OpenMetricsText1.0.0]"),
    ("text", "/metrics", "scrape_protocols: [PrometheusText0.0.4]"),
];

impl Prometheus3 {
    pub(crate) fn start(mesh: &Mesh, hostile: &Hostile) -> Self {
        let folder = tempfile::TempDir::new().expect("a temporary folder can be made");
        let file = folder.path().join("prometheus.yml");
        let mut config = "global: {scrape_interval: 3s}\nscrape_configs:\n".to_owned();
        let nodes: Vec<String> = mesh.nodes.iter().map(|node| format!("'{}'", node.l5d.admin())).collect();
        let mut job = |name: &str, path: &str, more: &str, targets: &str| {
            let mut more = if more.is_empty() { String::new() } else { format!("  {more}\n") };
            if name.starts_with("hostile") {
                // A name of 70 KB in some hundred series: megabytes a page, each for five jobs.
                more += "  scrape_interval: 10s\n  scrape_timeout: 10s\n";
            }
            config += &format!(
                "- job_name: {name}\n  metrics_path: {path}\n{more}  static_configs: [{{targets: [{targets}]}}]\n"
            );
        };
        for (name, path, more) in JOBS {
            job(name, path, more, &nodes.join(", "));
            job(&format!("hostile-{name}"), path, more, &format!("'{}'", hostile.l5d.admin()));
        }
        std::fs::write(&file, config).expect("a file can be written");
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let mut command = Command::new(cached("prometheus-3.16/prometheus", "prometheus3"));
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={addr}"))
            .args(["--log.level=warn", "--enable-feature=exemplar-storage,metadata-wal-records"]);
        let mut process = Process::start("prometheus 3", &mut command).expect("prometheus starts");
        process.wait_ready(PATIENCE, || get(addr, "localhost", "/-/ready").is_ok_and(|reply| reply.status == 200));
        let this = Self { addr, process, _folder: folder };
        wait_until("the first scrape of every target", || {
            let targets = this.targets();
            targets.len() == JOBS.len() * 4 && targets.iter().all(|target| target["health"] != "unknown")
        });
        this
    }

    fn ask(&self, path: &str) -> Value {
        let reply = get(self.addr, "localhost", path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let answer: Value = serde_json::from_slice(&reply.body).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!(answer["status"], "success", "{path}: {answer}");
        answer["data"].clone()
    }

    fn targets(&self) -> Vec<Value> {
        self.ask("/api/v1/targets?state=active")["activeTargets"].as_array().cloned().unwrap_or_default()
    }

    /// What an instant query answers, histograms too.
    fn query(&self, expression: &str) -> Vec<Value> {
        let encoded: String = expression.bytes().map(|byte| format!("%{byte:02X}")).collect();
        self.ask(&format!("/api/v1/query?query={encoded}"))["result"].as_array().cloned().unwrap_or_default()
    }

    /// The number that a query answers, when it is what is wanted.
    fn expect(&self, expression: &str, wanted: impl Fn(f64) -> bool) {
        let number = |answer: &[Value]| match answer {
            [one] => one["value"][1].as_str()?.parse::<f64>().ok(),
            _ => None,
        };
        wait_for(&format!("{expression}; {:?}", self.errors()), PATIENCE, || {
            number(&self.query(expression)).filter(|n| wanted(*n))
        });
    }

    fn errors(&self) -> Vec<String> {
        let targets = self.targets();
        let down = targets.iter().filter(|target| target["health"] != "up");
        down.map(|target| format!("{} {}", target["scrapeUrl"], target["lastError"])).collect()
    }
}

pub(crate) fn every_target_is_up_and_no_sample_is_dropped(suite: &Suite) {
    let prometheus = suite.prometheus3();
    prometheus.expect("count(up == 1)", |n| n == (JOBS.len() * 4) as f64);
    assert_eq!(prometheus.errors(), [""; 0]);
    // Duplicates, bad types and the like are warnings of its log.
    assert_eq!(prometheus.process.output(), "");
    prometheus.expect("sum(scrape_samples_scraped - scrape_samples_post_metric_relabeling)", |n| n == 0.0);
    prometheus.expect("sum(prometheus_target_scrapes_sample_duplicate_timestamp_total) or vector(0)", |n| n == 0.0);
}

pub(crate) fn both_faces_count_what_was_sent(suite: &Suite) {
    let (mesh, prometheus) = (suite.mesh(), suite.prometheus3());
    for node in &mesh.nodes {
        let (sent, instance) = (node.sent, node.l5d.admin());
        for job in ["any", "native", "openmetrics", "text"] {
            let of = format!("job=\"{job}\",instance=\"{instance}\",router=\"http\"");
            let is = |name: &str, more: &str, wanted: u64| {
                prometheus.expect(&format!("sum(l5d_{name}{{{of}{more}}})"), |n| n == wanted as f64);
            };
            for scope in ["server", "service", "client", "client_service"] {
                is(&format!("{scope}_requests_total"), "", sent.all());
                is(&format!("{scope}_successes_total"), "", sent.good + sent.missing);
                is(&format!("{scope}_failures_total"), "", sent.broken);
                if sent.broken > 0 {
                    is(&format!("{scope}_failures_by_cause_total"), "", sent.broken);
                }
            }
            is("client_responses_by_class_total", ",class=\"5xx\"", sent.broken);
            is("service_requests_total", ",service=\"svc/web\"", sent.all());
        }
        let legacy = format!("rt:server:requests{{job=\"legacy\",instance=\"{instance}\"}}");
        prometheus.expect(&legacy, |n| n == sent.all() as f64);
    }
}

pub(crate) fn histograms_answer_quantiles_natively_and_by_buckets(suite: &Suite) {
    let (mesh, prometheus) = (suite.mesh(), suite.prometheus3());
    let name = "l5d_server_request_duration_seconds";
    for node in &mesh.nodes {
        let native = prometheus.query(&format!("{name}{{job=\"native\",instance=\"{}\"}}", node.l5d.admin()));
        assert!(native.len() == 1 && native[0]["value"].is_null(), "{native:?}");
        let count = native[0]["histogram"][1]["count"].as_str().and_then(|count| count.parse::<f64>().ok());
        assert_eq!(count, Some(node.sent.all() as f64), "{native:?}");
        assert!(native[0]["histogram"][1]["buckets"].as_array().is_some_and(|buckets| buckets.len() > 1));
    }
    // One slow request of each process is the slowest there; the bounds around it are 25 and 50 ms.
    let slow = SLOW.as_secs_f64();
    prometheus.expect(&format!("min(histogram_quantile(1, {name}{{job=\"native\"}}))"), |n| n > slow * 0.95);
    prometheus.expect(&format!("histogram_quantile(1, sum({name}{{job=\"native\"}}))"), |n| n > slow * 0.95);
    for job in ["any", "openmetrics", "text"] {
        let buckets = format!("sum by (le) ({name}_bucket{{job=\"{job}\"}})");
        prometheus.expect(&format!("histogram_quantile(1, {buckets})"), |n| n > slow);
        prometheus.expect(&format!("sum({name}_count{{job=\"{job}\"}})"), |n| {
            n == mesh.nodes.iter().map(|node| node.sent.all()).sum::<u64>() as f64
        });
    }
    prometheus.expect(&format!("count({name}_bucket{{job=\"native\"}}) or vector(0)"), |n| n == 0.0);
}

pub(crate) fn families_have_type_help_and_unit(suite: &Suite) {
    let prometheus = suite.prometheus3();
    let metadata = prometheus.ask("/api/v1/metadata");
    for (name, kind, unit) in [
        ("l5d_server_requests", "counter", ""),
        ("l5d_server_requests_pending", "gauge", ""),
        ("l5d_server_request_duration_seconds", "histogram", "seconds"),
        ("l5d_client_received_bytes", "counter", "bytes"),
    ] {
        // Text and protobuf call a counter by its samples' name, and text has no unit.
        let entries: Vec<&Value> = [name, &format!("{name}_total")]
            .iter()
            .flat_map(|n| metadata[*n].as_array().into_iter().flatten())
            .collect();
        assert!(!entries.is_empty(), "{name}");
        assert!(
            entries.iter().all(|e| e["type"] == kind && e["help"].as_str().is_some_and(|h| h.ends_with('.'))),
            "{entries:?}"
        );
        assert!(entries.iter().any(|e| e["unit"] == unit), "{entries:?}");
    }
}
