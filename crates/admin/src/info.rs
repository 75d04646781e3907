//! `/admin/server_info`: what is running and since when.

use std::time::{Instant, SystemTime};

use crate::index::json_string;
use crate::{Handler, Response};

/// What `/admin/server_info` shows.
#[derive(Clone, Debug)]
pub struct ServerInfo {
    /// The program.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What was built when: free text.
    pub build: String,
    /// The revision it was built from.
    pub build_revision: String,
    /// When the process started, by the wall clock and by the one that never jumps.
    pub started: (SystemTime, Instant),
}

pub(crate) fn handler(info: ServerInfo) -> Handler {
    Handler::of("/admin/server_info", move |_| {
        let mut response = Response::text(page(&info));
        let json = http::HeaderValue::from_static("application/json;charset=UTF-8");
        response.headers.insert(http::header::CONTENT_TYPE, json);
        response
    })
}

/// The fields that twitter-server has and that mean something here, laid out as it does.
fn page(info: &ServerInfo) -> String {
    let fields = [
        ("name", json_string(&info.name)),
        ("version", json_string(&info.version)),
        ("build", json_string(&info.build)),
        ("build_revision", json_string(&info.build_revision)),
        ("start_time", json_string(&java_date(info.started.0))),
        ("uptime", info.started.1.elapsed().as_millis().to_string()),
    ];
    let lines: Vec<String> = fields.iter().map(|(key, value)| format!("  \"{key}\" : {value}")).collect();
    format!("{{\n{}\n}}", lines.join(",\n"))
}

/// `Sun Nov 22 23:06:01 UTC 2026`, as `java.util.Date` prints.
fn java_date(time: SystemTime) -> String {
    // httpdate gives `Sun, 22 Nov 2026 23:06:01 GMT`.
    let date = httpdate::fmt_http_date(time);
    let parts: Vec<&str> = date.split([' ', ',']).filter(|part| !part.is_empty()).collect();
    match parts[..] {
        [weekday, day, month, year, clock, _] => format!("{weekday} {month} {day} {clock} UTC {year}"),
        _ => date,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_page_is_laid_out_as_twitter_server_does() {
        let started = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_388_761);
        let info = ServerInfo {
            name: "l5d".to_owned(),
            version: "0.1.0".to_owned(),
            build: "a \"b\"".to_owned(),
            build_revision: "unknown".to_owned(),
            started: (started, Instant::now()),
        };
        let page = page(&info);
        let front = "{\n  \"name\" : \"l5d\",\n  \"version\" : \"0.1.0\",\n  \"build\" : \"a \\\"b\\\"\",\n  \
                     \"build_revision\" : \"unknown\",\n  \"start_time\" : \"Sun Nov 22 23:06:01 UTC 2026\",\n  \
                     \"uptime\" : ";
        assert!(page.starts_with(front), "{page}");
        let uptime = page[front.len()..].strip_suffix("\n}").unwrap();
        assert!(uptime.parse::<u64>().unwrap() < 60_000, "{uptime}");
    }
}
