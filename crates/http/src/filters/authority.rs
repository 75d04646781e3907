//! Endpoints that go by another name than the caller's (http-behaviour §6.6): a namer may give an address an authority, as
//! Consul's with `setHost` does.
//!
//! Contract: what is sent there has that authority as its `Host`. In `Location` and `Refresh` of the answer the caller's own
//! `Host` takes its place, wherever it occurs, so that the caller comes back by the name that it knows.

use crate::{codec::Headers, headers::HOST};

/// A request to an endpoint of that authority.
pub(crate) fn ask(headers: &mut Headers, authority: &str) {
    headers.set(HOST, authority);
}

/// The answer, to a caller who asked for `host`.
pub(crate) fn answer(headers: &mut Headers, authority: &str, host: Option<&str>) {
    let Some(host) = host.filter(|_| !authority.is_empty()) else { return };
    for name in ["location", "refresh"] {
        let told = headers.text(name).filter(|told| told.contains(authority));
        if let Some(told) = told.map(|told| told.replace(authority, host)) {
            headers.set(name, told);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_occurrence_is_replaced() {
        let (location, refresh) = ("http://in.side/a?from=http://in.side/", "5; url=http://in.side/b");
        let mut headers = Headers::new();
        headers.add("location", location);
        headers.add("refresh", refresh);
        for (authority, host) in [("in.side", None), ("", Some("web")), ("else.where", Some("web"))] {
            answer(&mut headers, authority, host);
            let told = [headers.text("location"), headers.text("refresh")];
            assert_eq!(told, [Some(location), Some(refresh)], "{authority:?}");
        }
        answer(&mut headers, "in.side", Some("web:80"));
        assert_eq!(headers.text("location"), Some("http://web:80/a?from=http://web:80/"));
        assert_eq!(headers.text("refresh"), Some("5; url=http://web:80/b"));
    }
}
