//! The faces as readers of Linkerd 1 know them, byte for byte, and the places where l5d decided differently.

use l5d_telemetry::format::{influxdb, json, prometheus};
use l5d_telemetry::{MetricsTree, Page, Scope, Snapshotter};

fn text(mut page: Box<dyn Page>) -> String {
    let mut out = Vec::new();
    while page.fill(&mut out) {}
    String::from_utf8(out).unwrap()
}

fn json(tree: &MetricsTree) -> String {
    text(json::page(tree, &json::Options::default()).unwrap())
}

fn nested(tree: &MetricsTree) -> String {
    text(json::page(tree, &json::Options { tree: true, ..json::Options::default() }).unwrap())
}

fn pretty(tree: &MetricsTree) -> String {
    text(json::page(tree, &json::Options { pretty: true, ..json::Options::default() }).unwrap())
}

fn under(tree: &MetricsTree, q: &str) -> Result<String, String> {
    let options = json::Options { q: Some(q.into()), ..json::Options::default() };
    json::page(tree, &options).map(text).map_err(|e| e.body())
}

fn prometheus(tree: &MetricsTree, prefix: &str) -> String {
    text(prometheus::page(tree, &prometheus::Options { prefix: prefix.into(), types: false }))
}

fn influx(tree: &MetricsTree) -> String {
    influx_for(tree, "none")
}

fn influx_for(tree: &MetricsTree, host: &str) -> String {
    text(influxdb::page(tree, &influxdb::Options { host: host.into(), ..influxdb::Options::default() }))
}

fn scope(tree: &MetricsTree, keys: &[&str]) -> Scope {
    keys.iter().fold(tree.root(), |scope, key| scope.scope(key))
}

fn count(tree: &MetricsTree, keys: &[&str], n: u64) {
    let (name, keys) = keys.split_last().unwrap();
    scope(tree, keys).counter(name).add(n);
}

#[test]
fn a_counter_in_json() {
    let tree = MetricsTree::new();
    assert_eq!(json(&tree), "{}");
    count(&tree, &["foo", "bar", "bas"], 1);
    assert_eq!(json(&tree), r#"{"foo/bar/bas":1}"#);
    assert_eq!(nested(&tree), r#"{"foo":{"bar":{"bas":{"counter":1}}}}"#);
}

#[test]
fn a_gauge_always_shows_a_decimal_point_and_the_sum_of_its_registrations() {
    let tree = MetricsTree::new();
    let scope = scope(&tree, &["foo", "bar"]);
    let one = scope.gauge("bas", || 1.0);
    assert_eq!(json(&tree), r#"{"foo/bar/bas":1.0}"#);
    let two = scope.gauge("bas", || 1e7);
    assert_eq!(json(&tree), r#"{"foo/bar/bas":1.0000001E7}"#);
    assert_eq!(nested(&tree), r#"{"foo":{"bar":{"bas":{"gauge":1.0000001E7}}}}"#);
    let level = scope.level("bas");
    level.add(-3);
    assert_eq!(json(&tree), r#"{"foo/bar/bas":9999998.0}"#);
    drop((one, level));
    assert_eq!(prometheus(&tree, ""), "foo:bar:bas 1.0E7\n");
    drop(two);
    assert_eq!((json(&tree).as_str(), nested(&tree).as_str()), ("{}", r#"{"foo":{"bar":{"bas":{}}}}"#));
}

#[test]
fn only_the_subtree_that_was_asked_for() {
    let tree = MetricsTree::new();
    count(&tree, &["foo", "bar", "bas"], 1);
    count(&tree, &["foo", "qux"], 2);
    count(&tree, &["rt", "http", "server", "127.0.0.1/4140", "requests"], 3);
    assert_eq!(under(&tree, "foo/bar").unwrap(), r#"{"bas":1}"#);
    assert_eq!(under(&tree, "foo/bar/").unwrap(), r#"{"bas":1}"#);
    assert_eq!(under(&tree, "foo").unwrap(), r#"{"bar/bas":1,"qux":2}"#);
    assert_eq!(under(&tree, "foo/qux").unwrap(), r#"{"":2}"#);
    assert_eq!(under(&tree, "/").unwrap(), json(&tree));
    assert_eq!(under(&tree, "").unwrap_err(), r#"{"error": "No such subtree: "}"#);
    assert_eq!(under(&tree, "/foo").unwrap_err(), r#"{"error": "No such subtree: /foo"}"#);
    assert_eq!(under(&tree, "a\"b").unwrap_err(), r#"{"error": "No such subtree: a\"b"}"#);
    assert!(under(&tree, "rt/http/server/127.0.0.1/4140/requests").is_err());
    let options = json::Options { tree: true, q: Some("foo/qux".into()), ..json::Options::default() };
    assert_eq!(text(json::page(&tree, &options).unwrap()), r#"{"counter":2}"#);
}

#[test]
fn pretty_is_sorted_by_full_name() {
    let tree = MetricsTree::new();
    assert_eq!(pretty(&tree), "{ }");
    count(&tree, &["b", "c"], 1);
    count(&tree, &["b.a"], 2);
    count(&tree, &["a \"x\""], 3);
    assert_eq!(pretty(&tree), "{\n  \"a \\\"x\\\"\" : 3,\n  \"b.a\" : 2,\n  \"b/c\" : 1\n}");
}

#[test]
fn a_stat_is_nowhere_before_its_first_tick_and_each_face_has_its_way_after_an_empty_minute() {
    let tree = MetricsTree::new();
    let snapshotter = Snapshotter::new(&tree);
    let stat = scope(&tree, &["foo", "bar"]).stat("bas");
    stat.add(1);
    stat.add(2);
    assert_eq!((json(&tree).as_str(), prometheus(&tree, "").as_str(), influx(&tree).as_str()), ("{}", "", ""));
    assert_eq!(nested(&tree), r#"{"foo":{"bar":{"bas":{}}}}"#);
    snapshotter.tick();
    assert_eq!(
        json(&tree),
        concat!(
            r#"{"foo/bar/bas.count":2,"foo/bar/bas.max":2,"foo/bar/bas.min":1,"foo/bar/bas.p50":1,"foo/bar/bas.p90":2,"#,
            r#""foo/bar/bas.p95":2,"foo/bar/bas.p99":2,"foo/bar/bas.p9990":2,"foo/bar/bas.p9999":2,"foo/bar/bas.sum":3,"#,
            r#""foo/bar/bas.avg":1.5}"#
        )
    );
    assert_eq!(
        nested(&tree),
        concat!(
            r#"{"foo":{"bar":{"bas":{"stat.count":2,"stat.max":2,"stat.min":1,"stat.p50":1,"stat.p90":2,"stat.p95":2,"#,
            r#""stat.p99":2,"stat.p9990":2,"stat.p9999":2,"stat.sum":3,"stat.avg":1.5}}}}"#
        )
    );
    assert_eq!(
        influx(&tree),
        "foo:bar,host=none bas_avg=1.5,bas_count=2,bas_max=2,bas_min=1,bas_p50=1,bas_p90=2,bas_p95=2,bas_p99=2,\
         bas_p999=2,bas_p9999=2,bas_sum=3\n"
    );
    snapshotter.tick();
    assert_eq!(json(&tree), r#"{"foo/bar/bas.count":0}"#);
    assert_eq!(nested(&tree), r#"{"foo":{"bar":{"bas":{"stat.count":0}}}}"#);
    assert_eq!(prometheus(&tree, ""), "");
    assert_eq!(
        influx(&tree),
        "foo:bar,host=none bas_avg=0.0,bas_count=0,bas_max=0,bas_min=0,bas_p50=0,bas_p90=0,bas_p95=0,bas_p99=0,\
         bas_p999=0,bas_p9999=0,bas_sum=0\n"
    );
}

#[test]
fn a_stat_in_prometheus() {
    let tree = MetricsTree::new();
    scope(&tree, &["foo", "bar"]).stat("bas").add(1);
    scope(&tree, &["rt", "http", "server", "127.0.0.1/4140"]).stat("request_latency_ms").add(398);
    Snapshotter::new(&tree).tick();
    let page = prometheus(&tree, "linkerd_");
    let (first, second) = page.split_once("linkerd_rt").unwrap();
    assert_eq!(
        first,
        concat!(
            "linkerd_foo:bar:bas_count 1\nlinkerd_foo:bar:bas_sum 1\nlinkerd_foo:bar:bas_avg 1.0\n",
            "linkerd_foo:bar:bas{quantile=\"0\"} 1\nlinkerd_foo:bar:bas{quantile=\"0.5\"} 1\n",
            "linkerd_foo:bar:bas{quantile=\"0.9\"} 1\nlinkerd_foo:bar:bas{quantile=\"0.95\"} 1\n",
            "linkerd_foo:bar:bas{quantile=\"0.99\"} 1\nlinkerd_foo:bar:bas{quantile=\"0.999\"} 1\n",
            "linkerd_foo:bar:bas{quantile=\"0.9999\"} 1\nlinkerd_foo:bar:bas{quantile=\"1\"} 1\n",
        )
    );
    assert!(second.starts_with(":server:request_latency_ms_count{rt=\"http\", server=\"127.0.0.1/4140\"} 1\n"));
    let quantile = "rt:server:request_latency_ms{rt=\"http\", server=\"127.0.0.1/4140\", quantile=\"0.95\"} 398\n";
    assert!(second.contains(quantile));
}

#[test]
fn paths_become_prometheus_labels() {
    let tree = MetricsTree::new();
    let rt = scope(&tree, &["rt", "incoming"]);
    count(&tree, &["foo", "bar", "bas"], 1);
    rt.counter("own").add(1);
    scope(&tree, &["rt", "incoming", "service", "/svc/foo"]).counter("requests").add(1);
    scope(&tree, &["rt", "incoming", "client", "/#/bar"]).counter("requests").add(2);
    scope(&tree, &["rt", "incoming", "client", "/#/bar", "service", "/svc/foo"]).counter("requests").add(3);
    scope(&tree, &["rt", "incoming", "client", "/#/bar", "service", "/svc/foo", "failures"]).counter("a.B").add(4);
    let server = scope(&tree, &["rt", "incoming", "server", "127.0.0.1/4141"]);
    server.scope("exn").counter("thud").add(5);
    server.counter("failures").add(6);
    let bar = server.scope("failures").scope("bar");
    server.scope("failures").counter("bar").add(7);
    bar.counter("qux").add(8);
    bar.scope("qux").counter("quux").add(9);
    server.scope("failures").counter("zap").add(10);
    server.scope("exn").scope("thud").counter("x").add(11);
    server.counter("last").add(12);
    count(&tree, &["rt", "incoming", "sub", "requests"], 13);
    count(&tree, &["rt", "service", "requests"], 14);
    count(&tree, &["namer", "#/io.l5d.consul", "client", "requests"], 15);
    count(&tree, &["1st"], 16);
    let server = r#"rt="incoming", server="127.0.0.1/4141""#;
    let client = r##"rt="incoming", client="/#/bar""##;
    let expected = [
        r#"rt:own{rt="incoming"} 1"#.to_string(),
        r#"rt:service:requests{rt="incoming", service="/svc/foo"} 1"#.to_string(),
        format!("rt:client:requests{{{client}}} 2"),
        format!("rt:client:service:requests{{{client}, service=\"/svc/foo\"}} 3"),
        format!("rt:client:service:failures:a_B{{{client}, service=\"/svc/foo\"}} 4"),
        format!("rt:server:exceptions{{{server}, exception=\"thud\"}} 5"),
        format!("rt:server:exceptions:x{{{server}, exception=\"thud\"}} 11"),
        format!("rt:server:failures{{{server}}} 6"),
        format!("rt:server:failures{{{server}, exception=\"bar\"}} 7"),
        format!("rt:server:failures{{{server}, exception=\"bar:qux\"}} 8"),
        format!("rt:server:failures{{{server}, exception=\"bar:qux:quux\"}} 9"),
        format!("rt:server:failures{{{server}, exception=\"zap\"}} 10"),
        format!("rt:server:last{{{server}}} 12"),
        r#"rt:sub:requests{rt="incoming"} 13"#.to_string(),
        r#"rt:requests{rt="service"} 14"#.to_string(),
        "foo:bar:bas 1".to_string(),
        "namer:__io_l5d_consul:client:requests 15".to_string(),
        "_1st 16".to_string(),
    ];
    let mut lines: Vec<String> = prometheus(&tree, "").lines().map(str::to_owned).collect();
    lines.sort_unstable();
    let mut expected = expected.to_vec();
    expected.sort_unstable();
    assert_eq!(lines, expected);
}

#[test]
fn the_prometheus_prefix_is_cleaned_like_a_name() {
    let tree = MetricsTree::new();
    count(&tree, &["foo"], 1);
    assert_eq!(prometheus(&tree, "linkerd_"), "linkerd_foo 1\n");
    assert_eq!(prometheus(&tree, "my-app_"), "my_app_foo 1\n");
    assert_eq!(prometheus(&tree, "9"), "_9foo 1\n");
}

#[test]
fn influx_lines() {
    let tree = MetricsTree::new();
    count(&tree, &["foo", "bar", "bas"], 1);
    assert_eq!(influx(&tree), "foo:bar,host=none bas=1\n");
    assert_eq!(influx_for(&tree, "localhost:9990"), "foo:bar,host=localhost:9990 bas=1\n");

    let tree = MetricsTree::new();
    count(&tree, &["def"], 2);
    count(&tree, &["abc"], 1);
    assert_eq!(influx(&tree), "root,host=none abc=1,def=2\n");

    let tree = MetricsTree::new();
    count(&tree, &["rt", "incoming", "service", "/svc/foo", "requests"], 1);
    count(&tree, &["rt", "incoming", "client", "#/io.l5d.fs/web", "service", "svc/web", "requests"], 2);
    count(&tree, &["rt", "incoming", "client", "#/io.l5d.fs/web", "failures"], 3);
    count(&tree, &["rt", "incoming", "client", "#/io.l5d.fs/web", "failures", "com.x.Y"], 4);
    count(&tree, &["rt", "incoming", "client", "#/io.l5d.fs/web", "failures", "com.x.Y", "com.x.Z"], 5);
    count(&tree, &["rt", "incoming", "client", "#/io.l5d.fs/web", "connects"], 6);
    assert_eq!(
        influx(&tree),
        concat!(
            "rt:service,host=none,rt=incoming,service=/svc/foo requests=1\n",
            "rt:client:service,client=#/io.l5d.fs/web,host=none,rt=incoming,service=svc/web requests=2\n",
            "rt:client:failures:com_x_Y,client=#/io.l5d.fs/web,host=none,rt=incoming com.x.Z=5\n",
            "rt:client:failures,client=#/io.l5d.fs/web,host=none,rt=incoming com.x.Y=4\n",
            "rt:client,client=#/io.l5d.fs/web,host=none,rt=incoming connects=6,failures=3\n",
        )
    );
}

#[test]
fn no_text_breaks_influx() {
    let tree = MetricsTree::new();
    count(&tree, &["rt", "a b,c=d", "service", "x\\", "n m"], 1);
    count(&tree, &["rt", "", "service", "e\nf", "time"], 2);
    count(&tree, &["g", "\\"], 3);
    let _nan = tree.scope("h").gauge("nan", || f64::NAN);
    let _inf = tree.scope("h").gauge("inf", || f64::INFINITY);
    assert_eq!(
        influx_for(&tree, "a, b"),
        concat!(
            "rt:service,host=a\\,\\ b,rt=a\\ b\\,c\\=d,service=x n\\ m=1\n",
            "rt:service,host=a\\,\\ b,service=e\\nf time_=2\n",
            "g,host=a\\,\\ b _=3\n",
        )
    );
}

#[test]
fn gauges_that_are_no_number_are_left_out_of_json_and_stay_in_prometheus() {
    let tree = MetricsTree::new();
    let numbers = [("a", f64::NAN), ("b", f64::INFINITY), ("c", f64::NEG_INFINITY), ("d", 0.5)];
    let _guards = numbers.map(|(name, x)| tree.root().gauge(name, move || x));
    assert_eq!(json(&tree), r#"{"d":0.5}"#);
    assert_eq!(nested(&tree), r#"{"a":{},"b":{},"c":{},"d":{"gauge":0.5}}"#);
    assert_eq!(pretty(&tree), "{\n  \"d\" : 0.5\n}");
    assert_eq!(prometheus(&tree, ""), "a NaN\nb +Inf\nc -Inf\nd 0.5\n");
}

#[test]
fn empty_scopes_show_in_the_nested_face_only() {
    let tree = MetricsTree::new();
    scope(&tree, &["rt", "http", "client"]);
    let namer = tree.scope("namer");
    assert_eq!(nested(&tree), r#"{"rt":{"http":{"client":{}}},"namer":{}}"#);
    assert_eq!((json(&tree).as_str(), prometheus(&tree, "").as_str(), influx(&tree).as_str()), ("{}", "", ""));
    namer.counter("x");
    namer.prune();
    assert_eq!(nested(&tree), r#"{"rt":{"http":{"client":{}}},"namer":{}}"#);
}

#[test]
fn a_nodes_own_metric_comes_before_its_children() {
    let tree = MetricsTree::new();
    count(&tree, &["a", "failures", "x"], 2);
    count(&tree, &["a", "failures"], 1);
    assert_eq!(json(&tree), r#"{"a/failures":1,"a/failures/x":2}"#);
    assert_eq!(nested(&tree), r#"{"a":{"failures":{"counter":1,"x":{"counter":2}}}}"#);
    assert_eq!(prometheus(&tree, ""), "a:failures 1\na:failures:x 2\n");
    assert_eq!(influx(&tree), "a:failures,host=none x=2\na,host=none failures=1\n");
}

#[test]
fn a_large_page_comes_in_pieces_that_are_the_page() {
    let tree = MetricsTree::new();
    for service in 0..2000 {
        let scope = scope(&tree, &["rt", "http", "service", &format!("svc/{service}")]);
        for metric in ["requests", "success", "failures"] {
            scope.counter(metric).add(service);
        }
    }
    let mut page = prometheus::page(&tree, &prometheus::Options::default());
    let mut whole = Vec::new();
    let mut pieces = 0;
    loop {
        let mut piece = Vec::new();
        let more = page.fill(&mut piece);
        assert!(piece.len() <= 64 * 1024, "{}", piece.len());
        whole.extend_from_slice(&piece);
        pieces += 1;
        if !more {
            break;
        }
    }
    assert!(pieces > 2);
    let mut expected = String::new();
    // Each family in one piece.
    for metric in ["requests", "success", "failures"] {
        for service in 0..2000 {
            expected += &format!("rt:service:{metric}{{rt=\"http\", service=\"svc/{service}\"}} {service}\n");
        }
    }
    assert!(whole == expected.as_bytes());
    assert!(!page.fill(&mut whole));
    assert!(whole == expected.as_bytes());
}

#[test]
fn influx_counts_are_integers_when_asked_for() {
    let tree = MetricsTree::new();
    count(&tree, &["foo", "a"], 1);
    count(&tree, &["foo", "b"], u64::MAX);
    scope(&tree, &["foo"]).stat("c").add(3);
    let _gauge = scope(&tree, &["foo"]).gauge("d", || 2.0);
    Snapshotter::new(&tree).tick();
    let options = influxdb::Options { host: "none".into(), integers: true };
    assert_eq!(
        text(influxdb::page(&tree, &options)),
        "foo,host=none a=1i,b=9223372036854775807i,c_avg=3.0,c_count=1i,c_max=3i,c_min=3i,c_p50=3i,c_p90=3i,c_p95=3i,\
         c_p99=3i,c_p999=3i,c_p9999=3i,c_sum=3i,d=2.0\n"
    );
    assert!(influx(&tree).starts_with("foo,host=none a=1,b=18446744073709551615,c_avg=3.0,c_count=1,"));
}

#[test]
fn what_is_too_long_for_influx_is_cut_and_stays_different() {
    let tree = MetricsTree::new();
    let long = |end: &str| format!("svc/{}{end}", "é".repeat(35_000));
    for (n, end) in ["a", "b"].into_iter().enumerate() {
        count(&tree, &["rt", "http", "service", &long(end), "requests"], n as u64);
        count(&tree, &["rt", "http", "service", "svc", &long(end)], n as u64);
    }
    let page = influx(&tree);
    assert_eq!(page.lines().count(), 3);
    for line in page.lines() {
        assert!(line.len() < 32 * 1024, "{}", line.len());
    }
    let lines: Vec<&str> = page.lines().filter(|line| line.contains(" requests=")).collect();
    let [one, two] = lines[..] else { panic!("{page}") };
    assert_ne!(one.split_once(' ').unwrap().0, two.split_once(' ').unwrap().0);
    assert!(one.ends_with(" requests=0") && two.ends_with(" requests=1"));
    assert_eq!(influx(&tree), page, "always the same");
}

#[test]
fn typed_pages_have_each_family_in_one_go_under_its_type() {
    let tree = MetricsTree::new();
    for service in ["svc/a", "svc/b"] {
        let service = scope(&tree, &["rt", "http", "service", service]);
        service.counter("requests").add(1);
        service.stat("request_latency_ms").add(3);
        service.scope("failures").counter("x").add(2);
    }
    let _gauge = scope(&tree, &["a"]).gauge("g", || 0.5);
    // Another's part, and two kinds.
    scope(&tree, &["a"]).stat("s").add(5);
    scope(&tree, &["a"]).counter("s_count").add(6);
    scope(&tree, &["b"]).counter("x.y").add(7);
    let _mixed = scope(&tree, &["b"]).gauge("x_y", || 8.0);
    scope(&tree, &["b"]).stat("unseen");
    Snapshotter::new(&tree).tick();
    let page = text(prometheus::page(&tree, &prometheus::Options { prefix: "p_".into(), types: true }));
    let untyped = prometheus(&tree, "p_");
    let (mut samples, mut expected): (Vec<&str>, Vec<&str>) =
        (page.lines().filter(|l| !l.starts_with('#')).collect(), untyped.lines().collect());
    samples.sort_unstable();
    expected.sort_unstable();
    assert_eq!(samples, expected, "the same samples");

    let types: Vec<&str> = page.lines().filter_map(|l| l.strip_prefix("# TYPE p_")).collect();
    let expected = [
        "rt:service:requests counter",
        "rt:service:request_latency_ms summary",
        "rt:service:request_latency_ms_avg gauge",
        "rt:service:failures counter",
        "a:g gauge",
        "a:s untyped",
        "a:s_sum untyped",
        "a:s_count untyped",
        "a:s_avg gauge",
        "b:x_y untyped",
    ];
    assert_eq!(types, expected);
    let summary: Vec<&str> = page.lines().filter(|l| l.starts_with("p_rt:service:request_latency_ms")).collect();
    let ends: Vec<usize> = (0..summary.len()).filter(|&i| summary[i].contains("_count{")).collect();
    assert_eq!(ends, [9, 19], "quantiles, sum and count of the one, then of the other, then averages");
    let help = "# HELP p_rt:service:requests Requests that completed, however they ended. Measured at the logical name";
    assert!(page.starts_with(help), "{page}");
}

/// A metric of a scope: its name, and what it is.
fn made(scope: &Scope, metrics: &[(usize, usize)], held: &mut Vec<Box<dyn std::any::Any>>) {
    // Some come to one field key on the wire.
    const NAMES: [&str; 8] = ["requests", "success", "time", "time_", "a b", "a\tb", "a\\tb", "load"];
    for &(name, kind) in metrics {
        let name = NAMES[name];
        match kind {
            0 | 1 => scope.counter(name).add(kind as u64 + 7),
            2 => {
                let level = scope.level(name);
                level.add(3);
                held.push(Box::new(level));
            }
            3 => scope.stat(name).add(4),
            _ => scope.scope("service").scope("svc/web").counter(name).add(2),
        }
    }
}

proptest::proptest! {
    /// What was learnt of one line must not show in the next.
    #[test]
    fn a_line_of_influxdbs_is_what_it_is_on_a_page_of_its_own(
        scopes in proptest::collection::vec(proptest::collection::vec((0..8_usize, 0..5_usize), 0..8), 1..6),
    ) {
        let (all, mut held) = (MetricsTree::new(), Vec::new());
        let mut alone = Vec::new();
        for (at, metrics) in scopes.iter().enumerate() {
            let one = MetricsTree::new();
            for tree in [&all, &one] {
                made(&tree.scope("rt").scope("http").scope("client").scope(&format!("c{at}")), metrics, &mut held);
            }
            Snapshotter::new(&one).tick();
            alone.push(influx(&one));
        }
        Snapshotter::new(&all).tick();
        proptest::prop_assert_eq!(influx(&all), alone.concat());
    }
}
