//! The dashboard: the pages that people look at, served from the binary.
//!
//! Every page is one small document, the same for all but its title; `assets/` holds the style and the ES modules that
//! fill it in the browser, embedded as they are: there is no build step. What the modules read is served beside them:
//! `/admin/history.json`, `/admin/scopes.json`, `/admin/scope.json` and `/admin/names.json` (`dashboard/data.rs`), and
//! pages that others own. The front page's numbers are in the document, too, for whoever has no JavaScript.
//!
//! Nothing is loaded from anywhere else, which the Content-Security-Policy of every page insists on; names reach the page as
//! JSON and are put into it as text.

mod data;
mod front;
mod grafana;

use std::sync::Arc;

use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Method};
use l5d_telemetry::MetricsTree;
use l5d_telemetry::history::History;

use crate::index::{escaped, nowhere};
use crate::{Handler, NavItem, Request, Response};

/// What the dashboard shows.
#[derive(Clone)]
pub struct Dashboard {
    /// Read by the page of all metrics.
    pub tree: MetricsTree,
    /// The last hour.
    pub history: Arc<History>,
    /// Shown in the corner.
    pub version: String,
}

/// A page: where it is, what it is called, and whether the navigation has it.
const PAGES: [(&str, &str, bool); 10] = [
    ("/", "Overview", true),
    ("/services", "Overview", false),
    ("/service", "Service", false),
    ("/client", "Client", false),
    ("/server", "Server", false),
    ("/delegator", "Names", true),
    ("/traffic", "Requests", true),
    ("/admin/metrics", "Metrics", true),
    ("/logging", "Logging", true),
    ("/config", "Config", true),
];

/// The files of the page, by name.
const ASSETS: [(&str, &str, &[u8]); 18] = {
    macro_rules! asset {
        ($name:literal, $kind:literal) => {
            ($name, $kind, include_bytes!(concat!("../assets/", $name)))
        };
    }
    const JS: &str = "text/javascript; charset=utf-8";
    macro_rules! module {
        ($name:literal) => {
            ($name, JS, include_bytes!(concat!("../assets/", $name)))
        };
    }
    [
        asset!("dashboard.css", "text/css; charset=utf-8"),
        asset!("icon.svg", "image/svg+xml"),
        asset!("queries.json", "application/json"),
        module!("main.js"),
        module!("chart.js"),
        module!("charts.js"),
        module!("data.js"),
        module!("dom.js"),
        module!("format.js"),
        module!("list.js"),
        module!("overview.js"),
        module!("parts.js"),
        module!("scope.js"),
        module!("names.js"),
        module!("traffic.js"),
        module!("metrics.js"),
        module!("logging.js"),
        module!("config.js"),
    ]
};

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

impl Dashboard {
    /// The pages of the dashboard and what they read. `others` are the handlers that there are besides: those of them that
    /// are in the navigation, and are no JSON, are in the dashboard's.
    pub(crate) fn handlers(self, others: &[Handler]) -> Vec<Handler> {
        let own = |url: &str| PAGES.iter().any(|(path, ..)| *path == url);
        let items = others.iter().filter_map(|handler| handler.nav.clone());
        let more = items.filter(|item| !item.url.ends_with(".json") && !own(&item.url));
        // Pages for programs, and what has a page of the dashboard, stand at the foot.
        let (plain, more) =
            more.partition(|item: &NavItem| item.url.starts_with("/admin/metrics/") || item.url == "/requests");
        let has: Vec<&str> = others.iter().map(|handler| handler.path.as_str()).collect();
        let has = has.join(" ");
        let shell = Arc::new(Shell { version: self.version.clone(), files: files(), more, plain, has });
        let mut handlers = data::handlers(&self.tree, &self.history);
        handlers.push(grafana::handler(Arc::clone(&self.history)));
        for (path, title, _) in PAGES {
            let (shell, history) = (Arc::clone(&shell), Arc::clone(&self.history));
            handlers.push(Handler::of(path, move |request| {
                // As the dashboard of Linkerd 1 does, the front page has everything that no other page has, to say that it isn't there.
                if path == "/" && request.path() != "/" {
                    return nowhere(&request.path(), request.wants_html());
                }
                if request.method != Method::GET && request.method != Method::HEAD {
                    return Response::method_not_allowed("GET, HEAD");
                }
                let front = matches!(path, "/" | "/services");
                let body = if front { front::body(&history) } else { String::new() };
                page(shell.document(path, title, &body))
            }));
        }
        let folder = format!("/files/{}/", shell.files);
        handlers.push(Handler::of("/files/", move |request| file(request, &folder)));
        handlers.push(Handler::of("/favicon.ico", |_| icon()));
        handlers
    }
}

/// What is the same in every document.
struct Shell {
    version: String,
    /// The name of the folder of this build's files: no other build's are ever taken for them.
    files: String,
    more: Vec<NavItem>,
    plain: Vec<NavItem>,
    /// Which pages there are besides: what is not configured is not asked for.
    has: String,
}

impl Shell {
    fn document(&self, path: &str, title: &str, body: &str) -> String {
        let files = format!("/files/{}", self.files);
        let link = |url: &str, name: &str| {
            let here = if url == path || (url == "/" && path == "/services") { " aria-current=\"page\"" } else { "" };
            format!("<a href=\"{}\"{here}>{}</a>\n", escaped(url), escaped(name))
        };
        let own = PAGES.iter().filter(|(.., listed)| *listed).map(|(url, name, _)| link(url, name));
        let nav: String = own.chain(self.more.iter().map(|item| link(&item.url, &item.name))).collect();
        let plain: String =
            self.plain.iter().map(|item| format!(" · {}", link(&item.url, &item.name).trim_end())).collect();
        let front = matches!(path, "/" | "/services");
        let refresh = if front { "<noscript><meta http-equiv=\"refresh\" content=\"10\"></noscript>\n" } else { "" };
        let without = if front {
            "<noscript><p class=\"note\">Without JavaScript this page shows the numbers of the moment, and is loaded anew every \
             ten seconds.</p></noscript>\n"
        } else {
            "<noscript><p class=\"note\">This page needs JavaScript. The <a href=\"/\">overview</a> and \
             <a href=\"/admin\">all the plain pages</a> do not.</p></noscript>\n"
        };
        format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title} · l5d</title>\n{refresh}\
             <link rel=\"icon\" href=\"{files}/icon.svg\">\n<link rel=\"stylesheet\" href=\"{files}/dashboard.css\">\n\
             <script type=\"module\" src=\"{files}/main.js\"></script>\n</head>\n\
             <body data-has=\"{has}\">\n<a class=\"skip\" href=\"#main\">Skip to content</a>\n\
             <header>\n<a class=\"brand\" href=\"/\"><img src=\"{files}/icon.svg\" alt=\"\" width=\"22\" height=\"22\"> l5d</a>\n\
             <nav aria-label=\"Pages\">\n{nav}</nav>\n<p id=\"state\" role=\"status\"></p>\n</header>\n\
             <main id=\"main\" tabindex=\"-1\">\n{without}{body}</main>\n\
             <footer>l5d {version} · <a href=\"/admin\">all pages</a> · \
             <a href=\"/admin/metrics.json?pretty=1\">metrics.json</a> · <a href=\"/admin/grafana.json\">Grafana dashboard</a>{plain}</footer>\n\
             </body>\n</html>\n",
            version = escaped(&self.version),
            has = escaped(&self.has),
        )
    }
}

/// A document, with what keeps a browser from doing anything with it but showing it.
fn page(document: String) -> Response {
    Response::html(document).not_stored().secured()
}

impl Response {
    /// The same answer with the headers of a page of ours.
    #[must_use]
    pub(crate) fn secured(self) -> Self {
        self.with_header(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY))
            .with_header(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"))
            .with_header(REFERRER_POLICY, HeaderValue::from_static("same-origin"))
    }
}

/// A name that is another when any file is another (FNV-1a).
fn files() -> String {
    let bytes = ASSETS.iter().flat_map(|(name, _, body)| name.bytes().chain(body.iter().copied()));
    let hash = bytes
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    format!("{hash:016x}")
}

/// A file of this build may be kept for ever, since another build's has another address. One that is asked for by an address of
/// another build is told as it is now.
fn file(request: &Request, folder: &str) -> Response {
    let path = request.path();
    let name = path.rsplit('/').next().unwrap_or_default();
    let Some((_, kind, body)) = ASSETS.iter().find(|(known, ..)| *known == name) else { return Response::not_found() };
    let response = Response::of(kind, *body).secured();
    if path.starts_with(folder) {
        response.with_header(CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable"))
    } else {
        response.not_stored()
    }
}

fn icon() -> Response {
    let icon = ASSETS.iter().find(|(name, ..)| *name == "icon.svg");
    icon.map_or_else(Response::not_found, |(_, kind, body)| Response::of(kind, *body))
}
