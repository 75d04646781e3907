//! The modern face: what it says, and that it never takes anything back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use l5d_telemetry::format::modern::{Buckets, Filter, Format, Options, page};
use l5d_telemetry::{MetricsTree, Page, Scope, Snapshotter};
use proptest::prelude::*;

fn bytes(mut page: Box<dyn Page>) -> Vec<u8> {
    let mut out = Vec::new();
    while page.fill(&mut out) {}
    out
}

fn text(tree: &MetricsTree, options: Options) -> String {
    String::from_utf8(bytes(page(tree, options))).unwrap()
}

fn filter(matching: &[&str]) -> Filter {
    Filter { matching: matching.iter().map(|&glob| glob.to_owned()).collect(), exclude: Vec::new() }
}

fn only(tree: &MetricsTree, format: Format, glob: &str) -> String {
    text(tree, Options { format, filter: filter(&[glob]), ..Options::default() })
}

fn scope(tree: &MetricsTree, keys: &[&str]) -> Scope {
    keys.iter().fold(tree.root(), |scope, key| scope.scope(key))
}

/// Samples by name and labels.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let samples = lines.map(|line| {
        let (series, value) = line.rsplit_once(' ').unwrap();
        (series.to_owned(), value.parse().unwrap())
    });
    samples.collect()
}

/// The sum of a family's samples.
fn sum(text: &str, name: &str) -> f64 {
    let of = |series: &&String| series.split('{').next() == Some(name);
    let samples = samples(text);
    samples.iter().filter(|(series, _)| of(series)).map(|(_, value)| value).sum()
}

#[test]
fn a_counter_a_gauge_and_a_histogram() {
    let tree = MetricsTree::new();
    let server = scope(&tree, &["rt", "http", "server", "127.0.0.1/4140"]);
    server.counter("requests").add(7);
    let _pending = server.gauge("pending", || 2.5);
    let latency = server.stat("request_latency_ms");
    for ms in [0, 3, 5, 6, 40_000] {
        latency.add(ms);
    }
    let labels = r#"router="http",server="127.0.0.1/4140""#;
    let buckets = Arc::new(Buckets::default().with_millis(&[5.0, 10.0, 250.0]).unwrap());
    let options =
        |format| Options { format, buckets: buckets.clone(), filter: filter(&["l5d_server_*"]), ..Options::default() };
    let help = [
        "Requests that completed, however they ended. Measured at a listening server, once per request as its caller sees it.",
        "Time from the request's arrival here to the head of its response. Measured at a listening server, once per request as its caller sees it. In seconds.",
        "Requests that are inside now. Measured at a listening server, once per request as its caller sees it.",
    ];
    let histogram = format!(
        "l5d_server_request_duration_seconds_bucket{{{labels},le=\"0.005\"}} 3\n\
         l5d_server_request_duration_seconds_bucket{{{labels},le=\"0.01\"}} 4\n\
         l5d_server_request_duration_seconds_bucket{{{labels},le=\"0.25\"}} 4\n\
         l5d_server_request_duration_seconds_bucket{{{labels},le=\"+Inf\"}} 5\n\
         l5d_server_request_duration_seconds_sum{{{labels}}} 40.014\n\
         l5d_server_request_duration_seconds_count{{{labels}}} 5\n"
    );
    assert_eq!(
        text(&tree, options(Format::Text)),
        format!(
            "# HELP l5d_server_requests_total {}\n# TYPE l5d_server_requests_total counter\n\
             l5d_server_requests_total{{{labels}}} 7\n\
             # HELP l5d_server_request_duration_seconds {}\n# TYPE l5d_server_request_duration_seconds histogram\n{histogram}\
             # HELP l5d_server_requests_pending {}\n# TYPE l5d_server_requests_pending gauge\n\
             l5d_server_requests_pending{{{labels}}} 2.5\n",
            help[0], help[1], help[2]
        )
    );
    assert_eq!(
        text(&tree, options(Format::OpenMetrics)),
        format!(
            "# TYPE l5d_server_requests counter\n# HELP l5d_server_requests {}\n\
             l5d_server_requests_total{{{labels}}} 7\n\
             # TYPE l5d_server_request_duration_seconds histogram\n# UNIT l5d_server_request_duration_seconds seconds\n\
             # HELP l5d_server_request_duration_seconds {}\n{histogram}\
             # TYPE l5d_server_requests_pending gauge\n# HELP l5d_server_requests_pending {}\n\
             l5d_server_requests_pending{{{labels}}} 2.5\n# EOF\n",
            help[0], help[1], help[2]
        )
    );
}

#[test]
fn an_empty_tree_has_what_is_told_of_telemetry_itself() {
    let tree = MetricsTree::new();
    let page = text(&tree, Options::default());
    assert_eq!(sum(&page, "l5d_telemetry_series"), 0.0);
    assert_eq!(sum(&page, "l5d_scrape_truncated"), 0.0);
    assert_eq!(only(&tree, Format::Text, "none"), "");
    assert_eq!(only(&tree, Format::OpenMetrics, "none"), "# EOF\n");
    assert!(bytes(page_of(&tree, "none")).is_empty());
}

fn page_of(tree: &MetricsTree, glob: &str) -> Box<dyn Page> {
    page(tree, Options { format: Format::Protobuf, filter: filter(&[glob]), ..Options::default() })
}

#[test]
fn failures_and_their_causes_are_families_whose_sums_agree() {
    let tree = MetricsTree::new();
    let client = scope(&tree, &["rt", "http", "client", "c"]);
    client.counter("failures").add(10);
    let failures = client.scope("failures");
    // 4 of A, of which 3 had B inside; 5 refused and to be sent again; 1 refused for good.
    failures.counter("A").add(4);
    failures.scope("A").counter("B").add(3);
    for (flag, n) in [("restartable", 5), ("rejected", 6), ("nonretryable", 1)] {
        failures.counter(flag).add(n);
        failures.scope(flag).counter("F").add(n);
    }
    let page = text(&tree, Options::default());
    assert_eq!(sum(&page, "l5d_client_failures_total"), 10.0);
    assert_eq!(sum(&page, "l5d_client_failures_by_cause_total"), 10.0);
    assert_eq!(sum(&page, "l5d_client_failures_by_nested_cause_total"), 3.0);
    assert_eq!(sum(&page, "l5d_client_failures_by_flag_total"), 12.0);
    let line = r#"l5d_client_failures_by_cause_total{router="http",client="c",flag="restartable",cause="F"} 5"#;
    assert!(page.lines().any(|l| l == line), "{page}");
}

#[test]
fn counts_and_sums_of_histograms_never_go_down_whatever_the_window_does() {
    let tree = MetricsTree::new();
    let stat = scope(&tree, &["rt", "http", "service", "s"]).stat("request_latency_ms");
    let snapshotter = Snapshotter::new(&tree);
    let read = || {
        let page = only(&tree, Format::Text, "l5d_service_request_duration_seconds");
        let all = samples(&page);
        let by_bound: Vec<f64> = all.iter().filter(|(s, _)| s.contains("_bucket")).map(|(_, n)| *n).collect();
        let bound = |le: &str| all.iter().find(|(s, _)| s.contains(le)).map(|(_, n)| *n).unwrap();
        assert_eq!(bound("+Inf"), sum(&page, "l5d_service_request_duration_seconds_count"));
        (by_bound, sum(&page, "l5d_service_request_duration_seconds_sum"))
    };
    let mut last = read();
    for round in 0..20_u64 {
        for i in 0..round {
            stat.add(i * i * 7 % 900);
        }
        if round % 3 == 0 {
            snapshotter.tick();
        }
        let now = read();
        assert!(last.0.iter().zip(&now.0).all(|(a, b)| a <= b) && last.1 <= now.1, "{last:?} {now:?}");
        last = now;
    }
    assert_eq!(last.0.iter().copied().fold(0.0, f64::max), 190.0);
}

#[test]
fn what_ended_is_kept_and_so_is_what_lingers() {
    let tree = MetricsTree::new();
    let services = scope(&tree, &["rt", "http", "service"]);
    let mut held = Vec::new();
    for i in 0..500_u64 {
        let service = services.scope(&format!("svc/{i}"));
        let (requests, latency) = (service.counter("requests"), service.stat("request_latency_ms"));
        requests.add(3);
        latency.add(i);
        service.prune();
        // A request that was under way.
        requests.add(1);
        latency.add(1);
        if i % 50 == 0 {
            held.push((requests, latency));
        }
        let page = text(&tree, Options::default());
        assert_eq!(sum(&page, "l5d_service_requests_total"), 4.0 * (i + 1) as f64);
        assert_eq!(sum(&page, "l5d_service_request_duration_seconds_count"), 2.0 * (i + 1) as f64);
    }
    held[0].0.add(1000);
    held[0].1.add(7);
    drop(held);
    services.scope("svc/0").counter("requests").add(5);
    let page = text(&tree, Options::default());
    let total = r#"l5d_service_requests_total{router="(expired)",service="(expired)"} 3000"#;
    assert!(page.lines().any(|line| line == total), "{page}");
    assert_eq!(sum(&page, "l5d_service_requests_total"), 3005.0);
    assert_eq!(sum(&page, "l5d_service_request_duration_seconds_count"), 1001.0);
    assert_eq!(sum(&page, "l5d_telemetry_expired_total"), 1000.0);
    assert_eq!(sum(&page, "l5d_telemetry_series"), 1.0);
    for series in samples(&page).keys().filter(|series| series.contains("service_requests")) {
        assert!(series.contains("(expired)") || series.contains("svc/0"), "{series}");
    }
}

#[test]
fn above_the_ceiling_names_share_one_series_and_no_count_is_lost() {
    let tree = MetricsTree::new();
    tree.limit_series(2000, usize::MAX);
    let services = scope(&tree, &["rt", "http", "service"]);
    let names = 100_000_u64;
    for i in 0..names {
        services.scope(&format!("svc/{i}")).counter("requests").add(1);
    }
    assert!(tree.series() <= 2000, "{}", tree.series());
    let page = text(&tree, Options::default());
    assert_eq!(sum(&page, "l5d_service_requests_total"), names as f64);
    assert!(page.contains(r#"l5d_service_requests_total{router="http",service="(overflow)"} "#));
    let overflows = r#"l5d_telemetry_overflows_total{router="http",label="service"} "#;
    let n = samples(&page).into_iter().find(|(series, _)| overflows.starts_with(series.as_str())).unwrap().1;
    assert!(n > 90_000.0);
    let told = tree.take_overflows();
    assert_eq!((told.len(), told[0].router.as_str(), told[0].label), (1, "http", "service"));
    assert!(tree.take_overflows().is_empty(), "once");
    // What it stands for is shared: one that ends takes nothing from the others.
    services.scope("svc/99999").prune();
    assert_eq!(sum(&text(&tree, Options::default()), "l5d_service_requests_total"), names as f64);
    // Room again for new names.
    for i in 0..1000 {
        services.scope(&format!("svc/{i}")).prune();
    }
    services.scope("svc/new").counter("requests").add(1);
    assert!(text(&tree, Options::default()).contains("svc/new"));
}

#[test]
fn one_scope_may_have_a_limit_of_its_own() {
    let tree = MetricsTree::new();
    tree.limit_series(usize::MAX, 3);
    for router in ["a", "b"] {
        for i in 0..5 {
            let name = format!("svc/{i}");
            scope(&tree, &["rt", router, "service", &name]).counter("requests").incr();
            // Names in the configuration are no request's.
            scope(&tree, &["rt", router, "server", &name]).counter("requests").incr();
        }
    }
    let page = text(&tree, Options::default());
    for (router, label) in [("a", "service"), ("b", "service")] {
        let shared = format!("l5d_service_requests_total{{router=\"{router}\",{label}=\"(overflow)\"}}");
        assert_eq!(samples(&page)[&shared], 2.0);
    }
    assert_eq!(sum(&page, "l5d_server_requests_total"), 10.0);
    assert_eq!(samples(&page).keys().filter(|s| s.starts_with("l5d_server_requests_total")).count(), 10);
}

#[test]
fn names_that_come_and_go_leave_nothing_behind() {
    let tree = MetricsTree::new();
    let services = scope(&tree, &["rt", "http", "service"]);
    for i in 0..50_000 {
        let service = services.scope(&format!("svc/{i}"));
        service.counter("requests").incr();
        service.scope("failures").counter("x").incr();
        service.prune();
        // The last but one is no place any more, or still its own.
        drop(service);
    }
    struct Nodes(usize);
    impl l5d_telemetry::Visitor for Nodes {
        fn enter(&mut self, _: &str) {
            self.0 += 1;
        }
        fn metric(&mut self, _: l5d_telemetry::MetricRef<'_>) {}
        fn leave(&mut self) {}
    }
    let mut nodes = Nodes(0);
    tree.visit(&mut nodes);
    assert!(nodes.0 < 500, "{}", nodes.0);
    assert_eq!(sum(&text(&tree, Options::default()), "l5d_service_requests_total"), 50_000.0);
}

#[test]
fn a_scope_whose_node_has_another_name_is_no_place() {
    let tree = MetricsTree::new();
    let services = scope(&tree, &["rt", "http", "service"]);
    let old = services.scope("svc/old");
    old.counter("requests").incr();
    old.prune();
    for i in 0..1000 {
        let service = services.scope(&format!("svc/{i}"));
        service.counter("requests").incr();
        if i % 2 == 0 {
            service.prune();
        }
    }
    old.counter("requests").add(7);
    old.scope("failures").counter("x").add(7);
    let page = text(&tree, Options::default());
    assert_eq!(sum(&page, "l5d_service_requests_total"), 1001.0);
    assert!(!page.contains("by_cause") && !page.contains("svc/old"));
    assert_eq!(samples(&page).values().filter(|&&v| v == 7.0).count(), 0);
}

#[test]
fn a_late_page_ends_on_a_family_and_says_so() {
    let tree = MetricsTree::new();
    for i in 0..20_000 {
        let service = scope(&tree, &["rt", "http", "service", &format!("svc/{i}")]);
        service.counter("requests").incr();
        service.scope("retries").counter("total").incr();
    }
    let whole = text(&tree, Options::default());
    for (millis, first_family_is_there) in [(0, false), (60_000, true)] {
        let timeout = Some(Duration::from_millis(millis));
        let page = text(&tree, Options { timeout, format: Format::OpenMetrics, ..Options::default() });
        assert!(page.ends_with("# EOF\n"));
        assert_eq!(sum(&page, "l5d_service_requests_total"), if first_family_is_there { 20_000.0 } else { 0.0 });
        assert_eq!(sum(&page, "l5d_scrape_truncated"), if first_family_is_there { 0.0 } else { 1.0 });
        assert_eq!(sum(&page, "l5d_scrape_families_left_out"), if first_family_is_there { 0.0 } else { 2.0 });
    }
    // Time for the first family, as the reader reads so slowly that the second would not be done in it.
    let timeout = Some(Duration::from_millis(1500));
    let mut slow = page(&tree, Options { timeout, ..Options::default() });
    let mut out = Vec::new();
    let begun = std::time::Instant::now();
    while slow.fill(&mut out) {
        if begun.elapsed() < Duration::from_millis(1200) && out.len() > 100_000 {
            std::thread::sleep(Duration::from_millis(1300));
        }
    }
    let late = String::from_utf8(out).unwrap();
    assert_eq!(sum(&late, "l5d_service_requests_total"), 20_000.0, "what was begun is finished");
    assert_eq!(sum(&late, "l5d_service_retries_total"), 0.0);
    assert_eq!((sum(&late, "l5d_scrape_truncated"), sum(&late, "l5d_scrape_families_left_out")), (1.0, 1.0));
    assert!(late.len() < whole.len());
    assert!(whole.find("l5d_service_requests_total").unwrap() < whole.find("l5d_service_retries_total").unwrap());
}

#[test]
fn filters_leave_families_out() {
    let tree = MetricsTree::new();
    let server = scope(&tree, &["rt", "http", "server", "s"]);
    server.counter("requests").incr();
    server.counter("success").incr();
    server.stat("request_latency_ms").add(1);
    let options = |matching: &[&str], exclude: &[&str]| Options {
        filter: Filter {
            matching: matching.iter().map(|&g| g.to_owned()).collect(),
            exclude: exclude.iter().map(|&g| g.to_owned()).collect(),
        },
        ..Options::default()
    };
    let names = |options| {
        let page = text(&tree, options);
        page.lines()
            .filter(|l| l.starts_with("# TYPE"))
            .map(|l| l.split(' ').nth(2).unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        names(options(&["l5d_server_*"], &["*_seconds"])),
        ["l5d_server_requests_total", "l5d_server_successes_total"]
    );
    assert_eq!(
        names(options(&["*_bucket", "l5d_server_requests"], &[])),
        ["l5d_server_requests_total", "l5d_server_request_duration_seconds"]
    );
    assert_eq!(names(options(&["l5d_s*"], &["*"])), [""; 0]);
}

#[test]
fn exemplars_are_on_the_bucket_they_belong_to_in_openmetrics_only() {
    let tree = MetricsTree::new();
    let stat = scope(&tree, &["rt", "http", "server", "s"]).stat("request_latency_ms");
    for i in 0..1000 {
        stat.add(i % 9);
    }
    stat.add_traced(3000, 0x80f1_98ee_5634_3ba8_64fe_8b2a_57d3_eff7);
    stat.add_traced(7, 0xa);
    stat.add_traced(6, 0xb);
    let page = only(&tree, Format::OpenMetrics, "l5d_server_request_duration_seconds");
    let marked: Vec<&str> = page.lines().filter(|line| line.contains(" # {")).collect();
    assert_eq!(marked.len(), 2, "{page}");
    assert!(marked[0].contains(r#"le="0.01"} "#) && marked[0].contains(r##" # {trace_id="000000000000000b"} 0.006 "##));
    assert!(marked[1].contains(r#"le="5.0"} "#));
    assert!(marked[1].contains(r##" # {trace_id="80f198ee56343ba864fe8b2a57d3eff7"} 3 1"##), "{}", marked[1]);
    assert!(!only(&tree, Format::Text, "*").contains(" # {"));
}

/// A reader of protobuf that knows the wire format only: fields by number.
fn fields(mut bytes: &[u8]) -> Vec<(u32, Vec<u8>)> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let value = match key & 7 {
            0 => varint(&mut bytes).to_le_bytes().to_vec(),
            1 => take(&mut bytes, 8),
            2 => {
                let length = varint(&mut bytes) as usize;
                take(&mut bytes, length)
            }
            other => panic!("wire type {other}"),
        };
        all.push(((key >> 3) as u32, value));
    }
    all
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut n = 0;
    for shift in (0..).step_by(7) {
        let byte = take(bytes, 1)[0];
        n |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return n;
        }
    }
    unreachable!()
}

fn take(bytes: &mut &[u8], n: usize) -> Vec<u8> {
    let (taken, rest) = bytes.split_at(n);
    *bytes = rest;
    taken.to_vec()
}

fn one(fields: &[(u32, Vec<u8>)], number: u32) -> &[u8] {
    &fields.iter().find(|(n, _)| *n == number).unwrap_or_else(|| panic!("field {number}")).1
}

#[test]
fn protobuf_says_the_same() {
    let tree = MetricsTree::new();
    let server = scope(&tree, &["rt", "h\"ü", "server", "s"]);
    server.counter("requests").add(7);
    let stat = server.stat("request_latency_ms");
    for ms in [0, 3, 3, 1000, 5000] {
        stat.add(ms);
    }
    server.stat("handletime_us");
    let mut page = &bytes(page_of(&tree, "l5d_server_*"))[..];
    let mut families = Vec::new();
    while !page.is_empty() {
        let length = varint(&mut page) as usize;
        families.push(fields(&take(&mut page, length)));
    }
    let names: Vec<String> = families.iter().map(|f| String::from_utf8(one(f, 1).to_vec()).unwrap()).collect();
    assert_eq!(
        names,
        ["l5d_server_requests_total", "l5d_server_request_duration_seconds", "l5d_server_handle_duration_seconds"]
    );
    let metric = fields(one(&families[0], 4));
    let labels: Vec<Vec<(u32, Vec<u8>)>> = metric.iter().filter(|(n, _)| *n == 1).map(|(_, b)| fields(b)).collect();
    assert_eq!((one(&labels[0], 1), one(&labels[0], 2)), (&b"router"[..], "h\"ü".as_bytes()));
    assert_eq!(one(&fields(one(&metric, 3)), 1), 7.0_f64.to_le_bytes());
    assert_eq!(one(&families[0], 3), 0_u64.to_le_bytes());

    assert_eq!((one(&families[1], 3), one(&families[1], 5)), (&4_u64.to_le_bytes()[..], &b"seconds"[..]));
    let histogram = fields(one(&fields(one(&families[1], 4)), 7));
    assert_eq!(one(&histogram, 1), 5_u64.to_le_bytes());
    assert_eq!(one(&histogram, 2), 6.006_f64.to_le_bytes());
    assert_eq!(one(&histogram, 7), 1_u64.to_le_bytes(), "the zero");
    let mut deltas = one(&histogram, 13);
    let mut counts = Vec::new();
    let mut last = 0;
    while !deltas.is_empty() {
        let n = varint(&mut deltas);
        last += (n >> 1) as i64 ^ -((n & 1) as i64);
        counts.push(last);
    }
    assert_eq!(counts, [2, 1, 1]);
    let classic = histogram.iter().filter(|(n, _)| *n == 3).count();
    assert_eq!(classic, 14);
    let empty = fields(one(&fields(one(&families[2], 4)), 7));
    assert_eq!(one(&empty, 1), 0_u64.to_le_bytes());
    assert!(empty.iter().any(|(n, _)| *n == 12), "a span, so that it is taken for a native one");
}

proptest! {
    /// Whatever is counted, pruned and counted on beneath late handles: sums only grow, and end with what was counted.
    #[test]
    fn sums_of_families_are_what_was_counted(acts in prop::collection::vec((0..4_u8, 0..6_usize, 0..9_u64), 1..80)) {
        let tree = MetricsTree::new();
        tree.limit_series(12, usize::MAX);
        let clients = scope(&tree, &["rt", "http", "client"]);
        let (mut counted, mut added, mut held, mut last) = (0, 0, Vec::new(), (0.0, 0.0));
        for (act, which, n) in acts {
            let client = clients.scope(&format!("c{which}"));
            match act {
                0 => {
                    let counter = client.counter("requests");
                    counter.add(n);
                    counted += n;
                    held.push(counter);
                }
                1 => {
                    client.stat("request_latency_ms").add(n);
                    added += 1;
                }
                2 => client.prune(),
                _ => {
                    if let Some(counter) = held.pop() {
                        counter.add(n);
                        counted += n;
                    }
                }
            }
            let page = text(&tree, Options::default());
            let now = (sum(&page, "l5d_client_requests_total"), sum(&page, "l5d_client_request_duration_seconds_count"));
            prop_assert!(now.0 >= last.0 && now.1 >= last.1);
            prop_assert_eq!(now, (counted as f64, added as f64));
            last = now;
        }
    }
}
