//! The pages that list the other pages, and what is said of those that aren't there.

use std::collections::BTreeSet;
use std::fmt::Write;

use http::StatusCode;

use crate::{Dashboard, Handler, Response};

/// The handlers with the pages that list them: `/`, `/admin` and `/admin/index.txt`. A handler given for one of these paths is
/// used in its place.
pub fn with_index(handlers: Vec<Handler>) -> Vec<Handler> {
    let (text, html) = (paths(&handlers), front(&handlers));
    let list = |path: &str| {
        let text = text.clone();
        Handler::of(path, move |_| Response::of("text/plain", text.clone()))
    };
    let mut all = vec![list("/admin"), list("/admin/index.txt")];
    // As the dashboard of Linkerd 1 does, the front page has everything that no other page has, to say that it isn't there.
    all.push(Handler::of("/", move |request| match request.path().as_str() {
        "/" => Response::html(html.clone()),
        path => nowhere(path, request.wants_html()),
    }));
    all.extend(handlers);
    all
}

/// The handlers with the dashboard, and with the pages that list all of them.
pub fn with_dashboard(handlers: Vec<Handler>, dashboard: Dashboard) -> Vec<Handler> {
    let mut all = dashboard.handlers(&handlers);
    all.extend(handlers);
    with_index(all)
}

/// `/admin/index.txt`: each path on a line of its own, sorted.
fn paths(handlers: &[Handler]) -> String {
    let paths: BTreeSet<&str> = handlers.iter().map(|handler| handler.path.as_str()).chain(["/"]).collect();
    paths.into_iter().map(|path| format!("{path}\n")).collect()
}

/// The front page where there is no dashboard: a plain list of what is in the navigation.
fn front(handlers: &[Handler]) -> String {
    let mut links = String::new();
    for item in handlers.iter().filter_map(|handler| handler.nav.as_ref()) {
        let _ = writeln!(links, "<li><a href=\"{}\">{}</a></li>", escaped(&item.url), escaped(&item.name));
    }
    document("l5d", &format!("<h1>l5d</h1>\n<ul>\n{links}<li><a href=\"/admin\">all pages</a></li>\n</ul>\n"))
}

/// The answer for a path without a page: an HTML page for browsers, nothing for others.
pub(crate) fn nowhere(path: &str, html: bool) -> Response {
    if !html {
        return Response::not_found();
    }
    let body = format!(
        "<h1>404</h1>\n<p>There is nothing at <code>{}</code>.</p>\n<p><a href=\"/\">l5d</a></p>\n",
        escaped(path)
    );
    Response::html(document("404", &body)).with_status(StatusCode::NOT_FOUND).secured()
}

fn document(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>{title}</title></head>\n\
         <body>\n{body}</body>\n</html>\n"
    )
}

/// Text as HTML, also within quotes.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// Text as a JSON string, with its quotes.
pub(crate) fn json_string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if u32::from(c) < 0x20 => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::response::Body;

    fn handler(path: &str) -> Handler {
        Handler::of(path, |_| Response::not_found())
    }

    #[test]
    fn the_lists_hold_every_page_and_the_navigation() {
        let handlers = vec![handler("/b").in_nav("<b>"), handler("/a"), handler("/a"), handler("/files/")];
        assert_eq!(paths(&handlers), "/\n/a\n/b\n/files/\n");
        let html = front(&handlers);
        assert!(html.contains("<li><a href=\"/b\">&lt;b&gt;</a></li>"), "{html}");
        assert!(!html.contains("\"/a\""), "{html}");
    }

    #[test]
    fn a_browser_gets_a_page_for_what_is_not_there_and_others_nothing() {
        let response = nowhere("/<x>", true);
        let Body::Full(body) = response.body else { panic!("a page") };
        assert!(String::from_utf8_lossy(&body).contains("<code>/&lt;x&gt;</code>"));
        let response = nowhere("/x", false);
        assert!(response.headers.is_empty() && matches!(response.body, Body::Full(body) if body.is_empty()));
    }

    #[test]
    fn json_strings_are_escaped() {
        assert_eq!(json_string("a\"b\\c\n\u{1}é"), r#""a\"b\\c\n\u0001é""#);
    }
}
