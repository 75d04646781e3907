//! The dashboard in a real Chromium, with traffic running; and its Grafana twin in a real Prometheus.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use l5d_testkit::{Downstream, L5d, Process, Response, Scrape, Upstream, free_port, get, wait_for, wait_until};
use serde_json::Value;

use crate::browser::{Browser, Look};
use crate::l5d::{EACH_SECOND, bin, start};
use crate::prometheus::Prometheus;
use crate::suite::Suite;

const LOCAL: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// A name as bad as a Host header can make it, and what the proxy calls it.
const SCRIPT: &str = "<script>alert(1)</script>";

/// One l5d with traffic that fails in part, until this is dropped.
struct Site {
    l5d: L5d,
    server: SocketAddr,
    sent: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    sender: Option<JoinHandle<()>>,
    _upstreams: [Upstream; 2],
    names: tempfile::TempDir,
}

impl Site {
    /// A router called like a script, with the services web (two endpoints, one of them closed), bad (answers 500) and the
    /// script.
    fn start() -> Self {
        let good = Upstream::start(|_| Response::ok("hello"));
        let bad = Upstream::start(|_| Response::new(500).body("sorry"));
        let names = tempfile::TempDir::new().expect("a temporary folder can be made");
        // Nobody listens at the second one.
        let web = format!("127.0.0.1 {}\n127.0.0.1 {}\n", good.port(), free_port());
        std::fs::write(names.path().join("web"), web).expect("a file can be written");
        std::fs::write(names.path().join("bad"), format!("127.0.0.1 {}\n", bad.port())).expect("a file can be written");
        let (admin, server) = (SocketAddr::from((LOCAL, free_port())), SocketAddr::from((LOCAL, free_port())));
        let config = format!(
            "admin: {{ip: 127.0.0.1, port: {}}}\ntelemetry:\n- kind: io.l5d.prometheus\n- {{kind: io.l5d.recentRequests, sampleRate: 1.0}}\nnamers:\n- {{kind: io.l5d.fs, rootDir: {:?}}}\n\
             routers:\n- protocol: http\n  label: \"<b>{SCRIPT}\"\n  dtab: |\n    /svc => /$/inet/127.1/{};\n    /svc/web => /#/io.l5d.fs/web;\n    \
             /svc/bad => /#/io.l5d.fs/bad;\n  client: {{failureAccrual: {{kind: io.l5d.consecutiveFailures, failures: 2}}}}\n  \
             servers: [{{ip: 127.0.0.1, port: {}}}]\n",
            admin.port(),
            names.path(),
            good.port(),
            server.port()
        );
        let l5d = start(&config, admin);
        let (sent, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (sending, ended) = (Arc::clone(&sent), Arc::clone(&stop));
        let sender = std::thread::spawn(move || {
            let mut downstream = Downstream::connect(server).expect("l5d listens");
            while !ended.load(Ordering::Relaxed) {
                for host in ["web", "web", "bad", SCRIPT] {
                    downstream.get(host, "/").expect("l5d answers");
                    sending.fetch_add(1, Ordering::Relaxed);
                }
                // A pace, not a wait: some hundred requests a second are enough to look at.
                std::thread::park_timeout(Duration::from_millis(20));
            }
        });
        Self { l5d, server, sent, stop, sender: Some(sender), _upstreams: [good, bad], names }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.l5d.admin())
    }

    fn router(&self) -> String {
        encoded(&format!("<b>{SCRIPT}"))
    }

    /// Stops the traffic, and says how many requests there were.
    fn quiet(&mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(sender) = self.sender.take() {
            sender.join().expect("the sender does not panic");
        }
        self.sent.load(Ordering::Relaxed)
    }

    fn counted(&self) -> u64 {
        self.l5d.scrape().count(&format!("rt/<b>{SCRIPT}/server/{}/{}/requests", self.server.ip(), self.server.port()))
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.quiet();
    }
}

/// What may stand in a query.
fn encoded(text: &str) -> String {
    text.bytes()
        .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}

/// A number as the page writes it: `1,234`.
fn number(text: &str) -> u64 {
    let digits: String =
        text.chars().take_while(|c| c.is_ascii_digit() || *c == ',').filter(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|_| panic!("{text:?} is no number"))
}

/// The number of requests that the page of a scope shows.
const SHOWN: &str = "[data-number='requests, all'] dd";

pub(crate) fn every_page_renders_in_light_and_dark_with_traffic(suite: &Suite) {
    let site = Site::start();
    let browser = suite.browser();
    browser.network();
    browser.console();
    let router = site.router();
    let server = format!("/server?router={router}&name={}", encoded(&format!("127.0.0.1/{}", site.server.port())));
    let service = format!("/service?router={router}&name={}", encoded("svc/bad"));
    let client = format!("/client?router={router}&name={}", encoded("#/io.l5d.fs/web"));
    let names = format!("/delegator?router={router}&path=/svc/web");
    // What each page must say before a picture of it is worth keeping.
    let pages: [(&str, &str, &str, &str); 9] = [
        ("overview", "/", "#services", "svc/bad"),
        ("service", &service, "main", "ResponseClassificationSyntheticException"),
        ("client", &client, "#endpoints", "dead"),
        ("server", &server, "main", "500"),
        ("names", &names, ".delegation", "bound"),
        ("requests", "/traffic", "main", "/svc/bad"),
        ("metrics", "/admin/metrics?q=svc+requests", "main", "svc/web/requests"),
        ("logging", "/logging", "main", "root"),
        ("config", "/config", "main", "io.l5d.fs"),
    ];
    for look in [Look::WIDE, Look { width: 1400, dark: true }, Look { width: 390, dark: false }] {
        for (name, path, place, words) in pages {
            browser.look(look, 1000);
            browser.open(&site.url(path));
            browser.wait_text(place, |text| {
                // What is beneath the screen is not read before somebody scrolls there: on a narrow one, the lists.
                browser.scroll_to(place);
                text.contains(words)
            });
            if path.contains("name=") {
                browser.wait_text(SHOWN, |text| text.starts_with(|c: char| c.is_ascii_digit()));
            }
            let wide = browser.run("return document.documentElement.scrollWidth - innerWidth");
            assert!(wide.as_i64().is_some_and(|over| over <= 0), "{name} is {wide} wider than the screen, {look:?}");
            let file = browser.screenshot(name, look);
            println!("  {}", file.display());
        }
    }
    let origin = site.url("/");
    let asked = browser.asked();
    // The browser's own pages, of which the first was one, are asked for from nobody.
    let foreign: Vec<_> = asked
        .iter()
        .filter(|url| !url.starts_with(&origin) && !["chrome:", "data:"].iter().any(|inside| url.starts_with(inside)))
        .collect();
    assert!(asked.len() > 100 && foreign.is_empty(), "{} requests, these to elsewhere: {foreign:?}", asked.len());
    let said = browser.console();
    assert!(said.is_empty(), "the console was told: {said:?}");
    let title = browser.run("return document.querySelectorAll('b b, main script').length");
    assert_eq!(title, 0, "a name became markup");
}

pub(crate) fn numbers_are_those_of_metrics_json_and_charts_move(suite: &Suite) {
    let mut site = Site::start();
    let browser = suite.browser();
    browser.look(Look::WIDE, 1000);
    let server = format!("127.0.0.1/{}", site.server.port());
    browser.open(&site.url(&format!("/server?router={}&name={}", site.router(), encoded(&server))));
    wait_until("the page to show a number", || !browser.text(SHOWN).is_empty() && browser.text(SHOWN) != "–");
    // While it grows: never more than is counted by now, never less than was counted some seconds ago.
    for _ in 0..3 {
        let before = site.counted();
        let shown = wait_for("the page to catch up", Duration::from_secs(30), || {
            let shown = number(&browser.text(SHOWN));
            (shown >= before).then_some(shown)
        });
        let after = site.counted();
        assert!(shown <= after, "the page shows {shown}, metrics.json {after}");
    }
    let drawn = || browser.run("return document.querySelector('[data-chart=status] path.line').getAttribute('d')");
    let first = drawn();
    wait_until("the chart to move", || drawn() != first);
    // When it stands still, they are the same.
    let sent = site.quiet();
    wait_until("metrics.json to have all", || site.counted() == sent);
    browser.wait_text(SHOWN, |text| number(text) == sent);
    let metrics = site.l5d.scrape();
    let path = format!("rt/<b>{SCRIPT}/server/{server}");
    assert_eq!(number(&browser.text("[data-number='failures, all'] dd")), metrics.count(&format!("{path}/failures")));
    let statuses = browser.texts("main .two .card:nth-child(2) tbody tr");
    for status in ["200", "500"] {
        let row =
            statuses.iter().find(|row| row.starts_with(status)).unwrap_or_else(|| panic!("{status}: {statuses:?}"));
        let shown = number(row.split_whitespace().last().expect("a row has cells"));
        assert_eq!(shown, metrics.count(&format!("{path}/status/{status}")), "{row}");
    }
}

pub(crate) fn a_reload_keeps_the_history(suite: &Suite) {
    let site = Site::start();
    let browser = suite.browser();
    browser.look(Look::WIDE, 1000);
    let page = site.url(&format!("/service?router={}&name={}", site.router(), encoded("svc/web")));
    browser.open(&page);
    let points = "const d = document.querySelector('[data-chart=rate] path.line')?.getAttribute('d') ?? ''; \
                  return d.split(/[ML]/).length - 1";
    let count = |browser: &Browser| browser.run(points).as_u64().unwrap_or(0);
    wait_until("five seconds to be drawn", || count(browser) >= 5);
    let before = count(browser);
    browser.open(&page);
    wait_until("the chart to be drawn anew", || count(browser) > 0);
    let after = count(browser);
    assert!(after >= before, "{before} seconds were drawn, {after} after a reload");
}

pub(crate) fn names_are_searched_sorted_and_paged(suite: &Suite) {
    let site = Site::start();
    for i in 0..60 {
        get(site.server, &format!("many-{i:02}"), "/").expect("l5d answers");
    }
    let browser = suite.browser();
    browser.look(Look::WIDE, 1000);
    browser.open(&site.url("/"));
    browser.wait_text("#services .pager", |text| text.contains("1–25 of 63"));
    let first = browser.texts("#services tbody th").remove(0);
    assert_eq!(first, "svc/bad", "what fails comes first");
    browser.type_into("#services input", "MANY-4");
    wait_until("the search", || browser.texts("#services tbody tr").len() == 10);
    assert!(browser.texts("#services tbody th").iter().all(|name| name.contains("many-4")));
    // The order and the search are in the address: a reload keeps them.
    browser.click("#services thead th button");
    wait_until("the order", || browser.texts("#services tbody th").first().is_some_and(|name| name.ends_with("40")));
    let address = browser.run("return location.href");
    browser.open(address.as_str().expect("an address is text"));
    wait_until("the search after a reload", || browser.texts("#services tbody tr").len() == 10);
    assert_eq!(browser.texts("#services tbody th")[0], "svc/many-40");
    browser.type_into("#services input", "svc");
    browser.wait_text("#services .pager", |text| text.contains("of 63"));
    browser.click("#services .pager button:last-child");
    browser.wait_text("#services .pager", |text| text.contains("26–50 of 63"));
}

pub(crate) fn the_overview_says_what_fails_since_when_where_and_why(suite: &Suite) {
    let mut site = Site::start();
    let browser = suite.browser();
    browser.look(Look::WIDE, 1000);
    browser.open(&site.url("/"));
    let said = browser.wait_text(".verdict", |text| text.contains("where:") && text.contains("why:"));
    for words in ["svc/bad failing since ", "100 % of ", "why: the upstream answers 500", "where: #/io.l5d.fs/bad"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    // A client that loses an endpoint says so, with its address and for how long.
    browser.open(&site.url(&format!("/client?router={}&name={}", site.router(), encoded("#/io.l5d.fs/web"))));
    let endpoints = browser.wait_text("#endpoints", |text| text.contains("dead for "));
    assert!(endpoints.contains("live") && endpoints.contains("tried again in"), "{endpoints}");
    // What is mended recovers: the name leads to who answers.
    let good = std::fs::read_to_string(site.names.path().join("web")).expect("the file is there");
    std::fs::write(site.names.path().join("bad"), good.lines().next().expect("it has lines"))
        .expect("it can be written");
    browser.open(&site.url(&format!("/service?router={}&name={}", site.router(), encoded("svc/bad"))));
    browser.wait_text(".bar .chip", |text| text.contains("failed a moment ago"));
    site.quiet();
    browser.open(&site.url("/"));
    browser.wait_text("#services", |text| text.contains("idle"));
}

pub(crate) fn a_level_of_the_log_is_changed_on_the_page_and_by_no_other_origin(suite: &Suite) {
    let site = Site::start();
    let browser = suite.browser();
    browser.open(&site.url("/logging"));
    browser.run(
        "const choose = document.querySelector('select[aria-label=\"level of root\"]'); \
         choose.value = 'DEBUG'; choose.dispatchEvent(new Event('change'))",
    );
    browser.wait_text("main [role=status]", |text| text.contains("root is at DEBUG"));
    let level = || site.l5d.scrape().text("/logging.json");
    assert!(level().contains(r#"{"logger":"root","level":"DEBUG"}"#), "{}", level());
    let mut foreign = Downstream::connect(site.l5d.admin()).expect("l5d listens");
    let host = site.l5d.admin().to_string();
    let headers = [("host", host.as_str()), ("origin", "http://elsewhere.example")];
    let reply = foreign.request("POST", "/logging.json?logger=root&level=OFF", &headers, b"").expect("it answers");
    assert_eq!(reply.status, 403);
    assert!(level().contains(r#"{"logger":"root","level":"DEBUG"}"#), "{}", level());
}

pub(crate) fn a_name_is_shown_step_by_step(suite: &Suite) {
    let site = Site::start();
    let browser = suite.browser();
    browser.open(&site.url("/delegator"));
    browser.type_into("#path", "/svc/web");
    browser.type_into("#override", "/svc/web => /$/inet/127.1/1");
    browser.click("form button");
    let told = browser.wait_text(".delegation", |text| text.contains("#/io.l5d.fs/web"));
    for words in ["/svc/web", "/$/inet/127.1/1", "127.0.0.1:1", "/#/io.l5d.fs/web"] {
        assert!(told.contains(words), "{words}: {told}");
    }
    let header = browser.text("main pre");
    assert!(header.contains("l5d-dtab: /svc/web => /$/inet/127.1/1") && header.contains("-H 'Host: web'"), "{header}");
    browser.type_into("#path", "no slash");
    browser.click("form button");
    browser.wait_text(".delegation", |text| text.contains("Invalid path"));
    browser.console();
}

pub(crate) fn without_javascript_the_overview_has_its_numbers(suite: &Suite) {
    let mut site = Site::start();
    let sent = {
        wait_until("some traffic", || site.sent.load(Ordering::Relaxed) > 40);
        site.quiet()
    };
    let browser = suite.browser();
    browser.look(Look::WIDE, 1000);
    browser.without_javascript(true);
    let mut page = String::new();
    wait_for("the numbers", Duration::from_secs(30), || {
        browser.load(&site.url("/"));
        page = browser.html();
        page.contains(&format!("<td>{sent}</td>")).then_some(())
    });
    browser.without_javascript(false);
    assert!(!page.contains("data-ready"), "a script ran");
    let router = format!("&lt;b&gt;{}", SCRIPT.replace('<', "&lt;").replace('>', "&gt;"));
    for words in ["svc/web</a>", "#/io.l5d.fs/bad</a>", "<td>failing</td>", "<th>requests/s</th>", &router] {
        assert!(page.contains(words), "{words}: {page}");
    }
}

pub(crate) fn the_pages_can_load_nothing_else_and_be_framed_by_nobody(_: &Suite) {
    let site = Site::start();
    let scrape = site.l5d.scrape();
    let page = scrape.page("/");
    let policy = page.headers.get("content-security-policy").expect("there is a policy");
    for rule in ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "connect-src 'self'"] {
        assert!(policy.contains(rule), "{rule}: {policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    let html = String::from_utf8(page.body).expect("it is text");
    assert!(!html.contains("style=") && !html.contains("<script>") && !html.contains("onclick"), "{html}");
    let script =
        html.split("src=\"").find(|part| part.starts_with("/files/") && part.contains(".js")).expect("a script");
    let script = scrape.page(script.split('"').next().expect("it ends"));
    assert_eq!(script.headers.get("content-type"), Some("text/javascript; charset=utf-8"));
    assert!(script.headers.get("cache-control").is_some_and(|v| v.contains("immutable")));
    assert_eq!(scrape.page("/files/x/none.js").status, 404);
    for page in ["/", "/service", "/admin/history.json", "/admin/scopes.json", "/admin/grafana.json", "/clients.json"] {
        let mut admin = Downstream::connect(site.l5d.admin()).expect("l5d listens");
        let reply = admin.request("POST", page, &[("host", "localhost")], b"").expect("it answers");
        assert_eq!(reply.status, 405, "{page}");
    }
}

pub(crate) fn five_thousand_services_stay_usable(suite: &Suite) {
    const SERVICES: usize = 5000;
    const CLIENTS: usize = 500;
    let upstream = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a port is free");
    let port = upstream.local_addr().expect("it has an address").port();
    std::thread::spawn(move || serve_hello(&upstream));
    let (admin, server) = (SocketAddr::from((LOCAL, free_port())), SocketAddr::from((LOCAL, free_port())));
    let config = format!(
        "admin: {{ip: 127.0.0.1, port: {}}}\ntelemetry:\n- {{kind: io.l5d.metrics, maxSeries: 10000000, maxSeriesPerScope: 100000}}\nrouters:\n- protocol: http\n  identifier: {{kind: io.l5d.path, segments: 3, consume: true}}\n  \
         dtab: /svc/* => /$/inet\n  bindingCache: {{paths: 20000, trees: 20000, bounds: 20000, clients: 2000}}\n  \
         servers: [{{ip: 127.0.0.1, port: {}}}]\n",
        admin.port(),
        server.port()
    );
    let l5d = start(&config, admin);
    let mut downstream = Downstream::connect(server).expect("l5d listens");
    for i in 0..SERVICES {
        let client = i % CLIENTS;
        let target = format!("/s{i:04}/127.0.{}.{}/{port}/", 1 + client / 250, 1 + client % 250);
        let reply = downstream.get("x", &target).expect("l5d answers");
        assert_eq!(reply.status, 200, "{target}: {}", reply.text());
    }
    let browser = suite.browser();
    browser.look(Look::WIDE, 1000);
    browser.network();
    let since = Instant::now();
    browser.open(&format!("http://{admin}/"));
    browser.wait_text("#services h2", |text| text.contains("5,000"));
    browser.wait_text("#clients h2", |text| text.contains("500"));
    println!("  all there after {:?}", since.elapsed());
    let paint = browser.run("return performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? null");
    println!("  first paint after {paint} ms");
    assert_eq!(browser.texts("#services tbody tr").len(), 25, "only what is seen is drawn");
    browser.type_into("#services input", "s4321");
    wait_until("the search", || browser.texts("#services tbody tr").len() == 1);
    browser.type_into("#services input", "s");
    wait_until("the whole list", || browser.texts("#services tbody tr").len() == 25);
    // Refreshes: what goes over the wire, and what the scripts take.
    browser.network();
    let turns = "const { cost } = await import(document.querySelector('script').src.replace('main.js', 'data.js')); return cost";
    let turns = format!("return (async () => {{ {turns} }})()");
    let first = browser.run(&turns)["turns"].as_u64().unwrap_or(0);
    wait_until("five refreshes", || browser.run(&turns)["turns"].as_u64().unwrap_or(0) >= first + 5);
    let cost = browser.run(&turns);
    let bytes: f64 = browser
        .network()
        .iter()
        .filter(|event| event["method"] == "Network.loadingFinished")
        .filter_map(|event| event["params"]["encodedDataLength"].as_f64())
        .sum();
    let refreshes = (cost["turns"].as_u64().unwrap_or(0) - first) as f64;
    let mut script: Vec<f64> = serde_json::from_value(cost["script"].clone()).expect("numbers");
    script.sort_by(f64::total_cmp);
    println!(
        "  {:.0} bytes a refresh; {:.1} ms of script, {:.1} at most",
        bytes / refreshes,
        script[script.len() / 2],
        script[script.len() - 1]
    );
    assert!(bytes / refreshes < 200_000.0, "{bytes} bytes in {refreshes} refreshes");
    let history: Value = serde_json::from_str(&l5d.scrape().text("/admin/history.json")).expect("it is JSON");
    let (used, limit) = (&history["memory"]["used"], &history["memory"]["limit"]);
    assert!(used.as_u64() <= limit.as_u64(), "{history}");
    assert!(history["scopes"]["left_out"].as_u64() > Some(0), "there is no room for all: {history}");
    browser.screenshot("overview-5000-services", Look::WIDE);
    browser.load("about:blank");
}

/// Answers every request on every connection.
fn serve_hello(listener: &TcpListener) {
    use std::io::{Read, Write};
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { return };
        std::thread::spawn(move || {
            let (mut buffer, mut held) = ([0; 4096], Vec::new());
            while let Ok(n @ 1..) = stream.read(&mut buffer) {
                held.extend_from_slice(&buffer[..n]);
                while let Some(end) = held.windows(4).position(|w| w == b"\r\n\r\n") {
                    held.drain(..end + 4);
                    if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").is_err() {
                        return;
                    }
                }
            }
        });
    }
}

pub(crate) fn the_grafana_dashboards_queries_all_answer(_: &Suite) {
    let (admin, server) = (free_port(), free_port());
    let admin = SocketAddr::from((LOCAL, admin));
    let mut command = Command::new(bin());
    command.args([EACH_SECOND, "demo"]).env("L5D_DEMO_PORTS", format!("{},{}", server, admin.port()));
    let mut demo = Process::start("l5d demo", &mut command).expect("l5d starts");
    let ready =
        || get(admin, "localhost", "/admin/grafana.json").is_ok_and(|reply| reply.text().contains("rt=\\\"demo"));
    demo.wait_ready(Duration::from_secs(30), ready);
    let config = format!(
        "global: {{scrape_interval: 1s}}\nscrape_configs:\n\
         - {{job_name: legacy, metrics_path: /admin/metrics/prometheus, static_configs: [{{targets: ['{admin}']}}]}}\n\
         - {{job_name: modern, metrics_path: /metrics, static_configs: [{{targets: ['{admin}']}}]}}\n"
    );
    let prometheus = Prometheus::with(&config);
    let scrape = Scrape::of(admin);
    for face in ["legacy", "modern"] {
        let page = scrape.text(&format!("/admin/grafana.json?face={face}"));
        let dashboard: Value = serde_json::from_str(&page).expect("it is JSON");
        let panels = dashboard["panels"].as_array().expect("it has panels");
        let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
        let expressions = targets.map(|target| target["expr"].as_str().expect("a target has a query"));
        let expressions: Vec<String> =
            expressions.map(|query| query.replace("$service", ".*").replace("$client", ".*")).collect();
        assert!(expressions.len() > 30, "{} queries", expressions.len());
        for expression in &expressions {
            // A rate takes two scrapes, a latency a window with requests in it.
            wait_for(&format!("an answer to {expression}"), Duration::from_secs(90), || {
                (!prometheus.query(expression).is_empty()).then_some(())
            });
        }
        for variable in dashboard["templating"]["list"].as_array().expect("it has variables") {
            let query = variable["query"].as_str().expect("a variable has a query");
            let series = query.trim_start_matches("label_values(").split(',').next().expect("it names a series");
            assert!(!prometheus.query(series).is_empty(), "{query}");
        }
        println!("  {} queries of the {face} face answered", expressions.len());
    }
    // Asked to end, it takes the folder of its names along.
    let names = std::env::temp_dir().join(format!("l5d-demo-{}", demo.id()));
    assert!(names.is_dir());
    demo.signal("INT");
    assert!(demo.wait().success() && !names.exists(), "{}", demo.output());
}
