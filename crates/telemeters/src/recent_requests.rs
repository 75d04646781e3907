//! `io.l5d.recentRequests`: the requests of late as a page, `/requests`, and as `/requests.json`.
//!
//! Beside the last ones it keeps the slowest and a fair choice of the failed of about the last hour: the few that somebody
//! looks for among very many. `capacity` bounds each of the three.
//!
//! Contract: the columns and links that Linkerd 1 has. Added: what became of a request, where its time went, the attempts,
//! and requests that never reached an endpoint. Everything that comes from a request is escaped.

use std::collections::VecDeque;
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use l5d_admin::{Handler, Response};
use l5d_config::{Cx, Fields, FromNode, Kind, Node};
use l5d_telemetry::trace::{Annotation, Sampler, Span, SpanKind, Trace, TraceId, Tracer, Value};
use serde_json::json;

use crate::{BuildError, Telemeter, TelemeterConfig, TelemeterContext};

pub(crate) const KIND: Kind<dyn TelemeterConfig> = Kind {
    id: "io.l5d.recentRequests",
    experimental: false,
    summary: "shows the requests of late on an admin page, the slow and the failed ones too",
    example: "kind: io.l5d.recentRequests\nsampleRate: 0.02\ncapacity: 10\n",
    parse,
};

/// What Linkerd 1 says, whatever is wrong.
const BAD_RATE: &str = "sampleRate must be between 0.0 and 1.0";
/// How long slow and failed requests are of interest.
const WINDOW_US: u64 = 3_600_000_000;

#[derive(Debug)]
struct Config {
    /// `sampleRate`: the share of the traces without a decision of their own that is looked at. Required.
    sample_rate: f64,
    /// `capacity`: how many requests of each sort are kept.
    capacity: usize,
}

fn parse(node: &Node, cx: &mut Cx) -> Option<Box<dyn TelemeterConfig>> {
    let mut fields = Fields::of(node, cx)?;
    fields.skip_kind();
    let given = fields.node("sampleRate");
    let rate = given.and_then(|rate| f64::from_node(rate, &mut Cx::new())).filter(|rate| (0.0..=1.0).contains(rate));
    if rate.is_none() {
        cx.error(given.unwrap_or(node), BAD_RATE);
    }
    let capacity: u32 = fields.or("capacity", 10, cx);
    fields.finish(cx);
    Some(Box::new(Config { sample_rate: rate.unwrap_or_default(), capacity: capacity as usize }))
}

impl TelemeterConfig for Config {
    fn build(self: Box<Self>, _: &TelemeterContext) -> Result<Arc<dyn Telemeter>, BuildError> {
        let recent = Recent { sampler: Sampler::new(self.sample_rate), kept: Mutex::new(Kept::new(self.capacity)) };
        Ok(Arc::new(Requests(Arc::new(recent))))
    }
}

struct Requests(Arc<Recent>);

impl Telemeter for Requests {
    fn handlers(&self) -> Vec<Handler> {
        let (page, data) = (Arc::clone(&self.0), Arc::clone(&self.0));
        vec![
            Handler::of("/requests", move |_| Response::html(page.html())).in_nav("requests"),
            Handler::of("/requests.json", move |_| Response::json(data.json().to_string())),
        ]
    }

    fn tracer(&self) -> Option<Arc<dyn Tracer>> {
        Some(Arc::clone(&self.0) as _)
    }
}

struct Recent {
    sampler: Sampler,
    /// Written by the thread that ends a request, for as long as it takes to hand over an `Arc`; read by a page's.
    kept: Mutex<Kept>,
}

impl Tracer for Recent {
    fn vote(&self, _: &TraceId) -> Option<bool> {
        None
    }

    fn wants(&self, id: &TraceId) -> bool {
        self.sampler.wants(id)
    }

    fn record(&self, trace: &Arc<Trace>) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).keep(trace);
    }
}

/// The requests that are kept.
struct Kept {
    capacity: usize,
    recent: VecDeque<Arc<Trace>>,
    slow: Vec<Slow>,
    /// What a request must take longer than to be among the slow ones, while none of them is outdated.
    floor_us: u64,
    /// When the first of them will be.
    outdated_us: u64,
    failed: Vec<Arc<Trace>>,
    /// How many failures were chosen from.
    failures: u64,
    /// When the choice began.
    failures_since_us: u64,
    random: fastrand::Rng,
}

struct Slow {
    took_us: u64,
    began_us: u64,
    trace: Arc<Trace>,
}

impl Kept {
    fn new(capacity: usize) -> Self {
        Self {
            capacity,
            recent: VecDeque::new(),
            slow: Vec::new(),
            floor_us: 0,
            outdated_us: u64::MAX,
            failed: Vec::new(),
            failures: 0,
            failures_since_us: 0,
            random: fastrand::Rng::new(),
        }
    }

    fn keep(&mut self, trace: &Arc<Trace>) {
        let (Some(first), Some(last)) = (trace.records.first(), trace.records.last()) else { return };
        if self.capacity == 0 {
            return;
        }
        if self.recent.len() >= self.capacity {
            self.recent.pop_front();
        }
        self.recent.push_back(Arc::clone(trace));
        let (began_us, took_us) = (first.at_us, last.at_us.saturating_sub(first.at_us));
        self.keep_slow(Slow { took_us, began_us, trace: Arc::clone(trace) }, last.at_us);
        if has_failed(trace) {
            self.keep_failed(trace, last.at_us);
        }
    }

    fn keep_slow(&mut self, slow: Slow, now_us: u64) {
        let full = self.slow.len() >= self.capacity;
        if full && slow.took_us <= self.floor_us && now_us < self.outdated_us {
            return;
        }
        self.slow.retain(|slow| now_us.saturating_sub(slow.began_us) < WINDOW_US);
        self.slow.push(slow);
        if self.slow.len() > self.capacity {
            let fastest = (0..self.slow.len()).min_by_key(|&i| self.slow[i].took_us);
            self.slow.swap_remove(fastest.expect("one was just put there"));
        }
        self.floor_us = self.slow.iter().map(|slow| slow.took_us).min().unwrap_or_default();
        let oldest = self.slow.iter().map(|slow| slow.began_us).min();
        self.outdated_us = oldest.map_or(u64::MAX, |oldest| oldest.saturating_add(WINDOW_US));
    }

    /// A reservoir (Vitter's algorithm R): each failure of the window has the same chance to be here.
    fn keep_failed(&mut self, trace: &Arc<Trace>, now_us: u64) {
        if now_us.saturating_sub(self.failures_since_us) >= WINDOW_US {
            // The next window begins with these, and soon replaces them if it has failures of its own.
            (self.failures_since_us, self.failures) = (now_us, self.failed.len() as u64);
        }
        self.failures += 1;
        if self.failed.len() < self.capacity {
            self.failed.push(Arc::clone(trace));
        } else if let Ok(at) = usize::try_from(self.random.u64(..self.failures))
            && let Some(place) = self.failed.get_mut(at)
        {
            *place = Arc::clone(trace);
        }
    }

    /// Each sort's traces: the last first, the slowest first, the last failure first.
    fn lists(&self) -> [(&'static str, &'static str, Vec<Arc<Trace>>); 3] {
        let recent = self.recent.iter().rev().cloned().collect();
        let mut slow: Vec<&Slow> = self.slow.iter().collect();
        slow.sort_by_key(|slow| std::cmp::Reverse(slow.took_us));
        let mut failed = self.failed.clone();
        failed.sort_by_key(|trace| std::cmp::Reverse(trace.records.first().map_or(0, |record| record.at_us)));
        [
            ("recent", "Recent requests", recent),
            ("slow", "Slow requests", slow.into_iter().map(|slow| Arc::clone(&slow.trace)).collect()),
            ("failed", "Failed requests", failed),
        ]
    }
}

/// As [`Span::failed`] of the server's span says, without putting it together.
fn has_failed(trace: &Trace) -> bool {
    trace.records.iter().filter(|record| record.span.span == trace.id.span).any(|record| match &record.annotation {
        Annotation::Binary("http.status_code", Value::Int(status)) => *status >= 500,
        Annotation::Binary(key, _) => ["error", "io.buoyant.router.Failure"].contains(key),
        _ => false,
    })
}

impl Recent {
    fn lists(&self) -> [(&'static str, &'static str, Vec<Arc<Trace>>); 3] {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).lists()
    }

    fn json(&self) -> serde_json::Value {
        let lists = self.lists();
        let rows = lists.iter().map(|(key, _, traces)| {
            let rows: Vec<_> = traces.iter().map(|trace| Row::of(trace).json()).collect();
            ((*key).to_owned(), json!(rows))
        });
        serde_json::Value::Object(rows.collect())
    }

    fn html(&self) -> String {
        let mut page = String::from(HEAD);
        for (key, title, traces) in self.lists() {
            let _ = write!(page, "<h2 id=\"{key}\">{title}</h2>\n<table>\n<thead><tr>");
            for column in COLUMNS {
                let _ = write!(page, "<th>{column}</th>");
            }
            page.push_str("</tr></thead>\n<tbody>\n");
            for trace in &traces {
                Row::of(trace).html(&mut page);
            }
            page.push_str("</tbody>\n</table>\n");
        }
        page.push_str("</body>\n</html>\n");
        page
    }
}

const HEAD: &str = "<!doctype html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>l5d: requests</title>\n<style>\
    body{font:14px sans-serif;margin:1em}table{border-collapse:collapse}\
    th,td{border:1px solid #ccc;padding:.2em .5em;text-align:left}td.n{text-align:right}tr.failed{background:#fdd}\
    </style></head>\n<body>\n<p><a href=\"/\">l5d</a> &middot; <a href=\"/requests.json\">the same as JSON</a></p>\n";

const COLUMNS: [&str; 16] = [
    "Timestamp",
    "Source",
    "Server",
    "Router",
    "Logical Name",
    "Concrete Name",
    "Destination",
    "Status",
    "Total ms",
    "Queue ms",
    "Connect ms",
    "First byte ms",
    "Retries",
    "Dtab Path",
    "Local Dtab",
    "Trace",
];

/// What is shown of a request. Times are in microseconds.
struct Row<'a> {
    began_us: u64,
    source: Option<SocketAddr>,
    server: Option<SocketAddr>,
    router: &'a str,
    logical: &'a str,
    concrete: &'a str,
    residual: &'a str,
    destination: Option<SocketAddr>,
    status: Option<i64>,
    failure: Option<String>,
    total_us: u64,
    queue_us: Option<i64>,
    connect_us: Option<i64>,
    first_byte_us: Option<u64>,
    attempts: usize,
    retries: usize,
    dtab_path: &'a str,
    base_dtab: &'a str,
    local_dtab: &'a str,
    trace: String,
}

impl<'a> Row<'a> {
    fn of(trace: &'a Trace) -> Self {
        let spans = trace.spans();
        let server = spans.iter().find(|span| span.kind == SpanKind::Server);
        // The last attempt is the one that was answered from.
        let client = spans.iter().rev().find(|span| span.kind == SpanKind::Client);
        let text = |key: &str| match server.and_then(|span| span.tag(key)) {
            Some(Value::Text(text)) => &**text,
            _ => "",
        };
        let int = |span: Option<&Span<'_>>, key: &str| match span.and_then(|span| span.tag(key)) {
            Some(Value::Int(n)) => Some(*n),
            _ => None,
        };
        let failure = ["io.buoyant.router.Failure", "exception.type", "error"];
        let failure: Vec<String> = failure
            .iter()
            .filter_map(|key| Some(server.and_then(|span| span.tag(key))?.to_string()))
            .chain(client.and_then(|span| span.tag("exception.message")).map(Value::to_string))
            .collect();
        let (digits, n) = trace.id.trace_hex();
        Self {
            began_us: server.map_or(0, |span| span.start_us),
            source: server.and_then(|span| span.remote),
            server: server.and_then(|span| span.local),
            router: text("router.label"),
            logical: text("service"),
            concrete: text("client"),
            residual: text("residual"),
            destination: client.and_then(|span| span.remote),
            status: int(server, "http.status_code"),
            failure: (!failure.is_empty()).then(|| failure.join(": ")),
            total_us: server.map_or(0, |span| span.duration_us),
            queue_us: int(client, "l5d.queue_us"),
            connect_us: int(client, "l5d.connect_us"),
            first_byte_us: client.and_then(|span| span.event("wr")?.checked_sub(span.event("ws")?)),
            attempts: spans.iter().filter(|span| span.kind == SpanKind::Client).count(),
            retries: server.map_or(0, |span| span.events.iter().filter(|(_, name)| *name == "finagle.retry").count()),
            dtab_path: text("l5d.dtab_path"),
            base_dtab: text("dtab.base"),
            local_dtab: text("dtab.local"),
            trace: String::from_utf8_lossy(&digits[..n]).into_owned(),
        }
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "timestamp": time(self.began_us),
            "timestamp_us": self.began_us,
            "trace": self.trace,
            "source": self.source,
            "server": self.server,
            "router": self.router,
            "logical": self.logical,
            "concrete": self.concrete,
            "residual": self.residual,
            "destination": self.destination,
            "status": self.status,
            "failure": self.failure,
            "latency_us": {
                "total": self.total_us,
                "queue": self.queue_us,
                "connect": self.connect_us,
                "first_byte": self.first_byte_us,
            },
            "attempts": self.attempts,
            "retries": self.retries,
            "dtab": {
                "path": self.dtab_path.split(" > ").filter(|name| !name.is_empty()).collect::<Vec<_>>(),
                "base": self.base_dtab,
                "local": self.local_dtab,
            },
        })
    }

    fn html(&self, page: &mut String) {
        let addr = |addr: Option<SocketAddr>| addr.map_or(String::new(), |addr| addr.to_string());
        let ms = |us: Option<f64>| us.map_or(String::new(), |us| format!("{:.3}", us / 1000.0));
        #[expect(clippy::cast_precision_loss, reason = "for people to read")]
        let [total, queue, connect, first] = [
            ms(Some(self.total_us as f64)),
            ms(self.queue_us.map(|us| us as f64)),
            ms(self.connect_us.map(|us| us as f64)),
            ms(self.first_byte_us.map(|us| us as f64)),
        ];
        let failed = self.failure.is_some() || self.status.is_some_and(|status| status >= 500);
        let _ = writeln!(page, "<tr{}>", if failed { " class=\"failed\"" } else { "" });
        let mut cell = |text: &str| {
            page.push_str("<td>");
            escape(page, text);
            page.push_str("</td>");
        };
        cell(&time(self.began_us));
        cell(&addr(self.source));
        cell(&addr(self.server));
        cell(self.router);
        for name in [self.logical, self.concrete] {
            page.push_str("<td>");
            if !name.is_empty() {
                let _ = write!(page, "<a href=\"/delegator?router={}#{}\">", encode(self.router), encode(name));
                escape(page, name);
                page.push_str("</a>");
            }
            page.push_str("</td>");
        }
        let mut cell = |class: &str, text: &str| {
            let _ = write!(page, "<td{class}>");
            escape(page, text);
            page.push_str("</td>");
        };
        cell("", &addr(self.destination));
        let status = self.status.map_or(String::new(), |status| status.to_string());
        let failure = self.failure.as_deref().unwrap_or_default();
        cell("", [status.as_str(), failure].join(" ").trim());
        for number in [total, queue, connect, first, self.retries.to_string()] {
            cell(" class=\"n\"", &number);
        }
        cell("", self.dtab_path);
        cell("", self.local_dtab);
        cell("", &self.trace);
        page.push_str("</tr>\n");
    }
}

/// `2026-01-31T23:59:59.123Z`
fn time(us: u64) -> String {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_micros(us);
    // "Sun, 06 Nov 1994 08:49:37 GMT"
    let date = httpdate::fmt_http_date(time);
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let part = |range| date.get(range).unwrap_or_default();
    let month = months.iter().position(|month| *month == part(8..11)).map_or(0, |at| at + 1);
    format!("{}-{month:02}-{}T{}.{:03}Z", part(12..16), part(5..7), part(17..25), us / 1000 % 1000)
}

/// Text as HTML, also within quotes.
fn escape(page: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '&' => page.push_str("&amp;"),
            '<' => page.push_str("&lt;"),
            '>' => page.push_str("&gt;"),
            '"' => page.push_str("&quot;"),
            '\'' => page.push_str("&#39;"),
            c => page.push(c),
        }
    }
}

/// Text as part of a URL.
fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(byte)),
            byte => {
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{built, get, trace};
    use l5d_telemetry::trace::Record;

    fn took(n: u64, status: i64, at_us: u64, us: u64) -> Trace {
        let mut trace = trace(n, status);
        let spread = trace.records.len() as u64 - 1;
        for (i, record) in trace.records.iter_mut().enumerate() {
            record.at_us = at_us + us * i as u64 / spread;
        }
        trace
    }

    fn ids(value: &serde_json::Value) -> Vec<u64> {
        let rows = value.as_array().unwrap();
        rows.iter().map(|row| u64::from_str_radix(row["trace"].as_str().unwrap(), 16).unwrap()).collect()
    }

    async fn requests(telemeter: &dyn Telemeter) -> serde_json::Value {
        let (content_type, text) = get(telemeter, "/requests.json", None).await;
        assert_eq!(content_type, "application/json");
        serde_json::from_str(&text).unwrap()
    }

    #[tokio::test]
    async fn the_slow_and_the_failed_are_found_among_very_many() {
        let built = built("kind: io.l5d.recentRequests\nsampleRate: 1.0\ncapacity: 5");
        let tracer = built.tracer().unwrap();
        for n in 1..=100_000 {
            let (status, us) = match n {
                40_000 => (200, 3_000_000),
                50_000 => (502, 100),
                _ => (200, 1000),
            };
            tracer.record(&Arc::new(took(n, status, 1_000_000 + n * 1000, us)));
        }
        let shown = requests(&*built).await;
        assert_eq!(ids(&shown["recent"]), [100_000, 99_999, 99_998, 99_997, 99_996]);
        assert_eq!(ids(&shown["slow"])[0], 40_000);
        assert_eq!(ids(&shown["slow"]).len(), 5);
        assert_eq!(ids(&shown["failed"]), [50_000]);
        assert_eq!(shown["slow"][0]["latency_us"]["total"], 3_000_000);
    }

    #[tokio::test]
    async fn all_lists_are_bounded_and_slow_ones_grow_old() {
        let built = built("kind: io.l5d.recentRequests\nsampleRate: 1.0\ncapacity: 3");
        let tracer = built.tracer().unwrap();
        for n in 1..=1000 {
            tracer.record(&Arc::new(took(n, 500, n * 1000, 5_000_000)));
        }
        let shown = requests(&*built).await;
        assert_eq!([&shown["recent"], &shown["slow"], &shown["failed"]].map(|list| ids(list).len()), [3, 3, 3]);
        for n in 2001..=2003 {
            tracer.record(&Arc::new(took(n, 200, n * 1000 + WINDOW_US, 1000)));
        }
        let mut slow = ids(&requests(&*built).await["slow"]);
        slow.sort_unstable();
        assert_eq!(slow, [2001, 2002, 2003]);
        let none = crate::testing::built("kind: io.l5d.recentRequests\nsampleRate: 1.0\ncapacity: 0");
        none.tracer().unwrap().record(&Arc::new(trace(1, 500)));
        assert!(ids(&requests(&*none).await["recent"]).is_empty());
    }

    #[test]
    fn each_failure_has_the_same_chance() {
        let mut kept = Kept::new(10);
        kept.random = fastrand::Rng::with_seed(1);
        for n in 1..=10_000 {
            kept.keep(&Arc::new(took(n, 503, 1_000_000 + n, 10)));
        }
        let mean = kept.failed.iter().map(|trace| trace.id.trace).sum::<u64>() / 10;
        assert!((2000..8000).contains(&mean), "neither the first nor the last ones: {mean}");
    }

    #[tokio::test]
    async fn a_row_says_where_the_time_went() {
        let built = built("kind: io.l5d.recentRequests\nsampleRate: 1.0");
        built.tracer().unwrap().record(&Arc::new(trace(0xab, 200)));
        let shown = requests(&*built).await;
        let expected = json!({
            "timestamp": "1970-01-01T00:00:01.000Z", "timestamp_us": 1_000_000, "trace": "00000000000000ab",
            "source": "127.0.0.2:5000", "server": "127.0.0.1:4140", "router": "http",
            "logical": "/svc/web", "concrete": "/$/inet/127.1/80", "residual": "/", "destination": "127.0.0.1:80",
            "status": 200, "failure": null,
            "latency_us": {"total": 10_000, "queue": 30, "connect": 70, "first_byte": 6000},
            "attempts": 1, "retries": 1,
            "dtab": {"path": ["/svc/web", "/$/inet/127.1/80/web"], "base": "/svc=>/$/inet/127.1/80", "local": ""},
        });
        assert_eq!(shown["recent"][0], expected);
        let (content_type, html) = get(&*built, "/requests", None).await;
        assert_eq!(content_type, "text/html;charset=UTF-8");
        for part in [
            "<td>127.0.0.2:5000</td>",
            "<a href=\"/delegator?router=http#%2Fsvc%2Fweb\">/svc/web</a>",
            "<td class=\"n\">10.000</td><td class=\"n\">0.030</td><td class=\"n\">0.070</td><td class=\"n\">6.000</td>",
        ] {
            assert!(html.contains(part), "{part}: {html}");
        }
    }

    #[tokio::test]
    async fn nothing_of_a_request_becomes_markup() {
        let built = built("kind: io.l5d.recentRequests\nsampleRate: 1.0");
        let mut trace = trace(1, 502);
        let nasty = "/svc/<script>alert('\"&')</script>";
        for key in ["service", "client", "router.label", "dtab.local", "error"] {
            let annotation = Annotation::Binary(key, nasty.to_owned().into());
            trace.records.push(Record { span: trace.id, at_us: 1_010_000, annotation });
        }
        built.tracer().unwrap().record(&Arc::new(trace));
        let (_, html) = get(&*built, "/requests", None).await;
        assert!(!html.contains("<script") && !html.contains("'\""), "{html}");
        assert!(html.contains("/svc/&lt;script&gt;alert(&#39;&quot;&amp;&#39;)&lt;/script&gt;"));
        let shown = requests(&*built).await;
        assert_eq!(shown["failed"][0]["logical"], nasty);
    }
}
