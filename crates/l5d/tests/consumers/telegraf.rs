//! Telegraf, as the linkerd-examples repository sets it up, into a real InfluxDB.
//!
//! Telegraf throws a whole page away for one line that it can't parse, so a page with bad names is the test that matters.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use l5d_testkit::{Process, wait_for};

use crate::influxdb::{InfluxDb, identifier, string};
use crate::l5d::{HOSTS, LABELS};
use crate::programs::{Outcome, cached, curl, run};
use crate::readme;
use crate::suite::Suite;

const PATIENCE: Duration = Duration::from_secs(60);

fn telegraf(config: &Path) -> Command {
    let mut command = Command::new(cached("telegraf-1.39.1/telegraf", "telegraf"));
    command.arg("--config").arg(config);
    // Its commands find curl by this; nothing of the caller's settings is to play a part.
    command.env_clear().env("PATH", std::env::var("PATH").unwrap_or_default());
    command
}

/// Gathers once, writes, ends. Version 1.39 ends with 0 also after an error, so the log decides.
fn gather_once(config: &str) -> Outcome {
    let folder = tempfile::TempDir::new().expect("a temporary folder can be made");
    let file = folder.path().join("telegraf.conf");
    std::fs::write(&file, config).expect("a file can be written");
    let outcome = run(telegraf(&file).arg("--once"), b"");
    no_complaint(&outcome.stderr);
    outcome
}

/// What it prints of one round with these inputs and outputs, or what it complains of.
pub(crate) fn gathered(inputs_and_outputs: &str) -> Result<String, String> {
    let folder = tempfile::TempDir::new().expect("a temporary folder can be made");
    let file = folder.path().join("telegraf.conf");
    let config = format!("{}metric_buffer_limit = 1000000\n{inputs_and_outputs}", agent());
    std::fs::write(&file, config).expect("a file can be written");
    let outcome = run(telegraf(&file).arg("--once"), b"");
    let complaints = complaints(&outcome.stderr);
    if complaints.is_empty() { Ok(outcome.text()) } else { Err(complaints.join("\n")) }
}

fn no_complaint(log: &str) {
    let complaints = complaints(log);
    assert!(complaints.is_empty(), "telegraf complains: {complaints:#?}");
}

fn complaints(log: &str) -> Vec<&str> {
    // Its warnings are about settings that a later version will change, but for the one that says what it has thrown away.
    log.lines().filter(|line| line.contains(" E! ") || line.contains("dropped")).collect()
}

fn agent() -> &'static str {
    "[agent]\ninterval = \"1s\"\nround_interval = false\nflush_interval = \"1s\"\nomit_hostname = true\n"
}

fn output(influxdb: &InfluxDb, database: &str) -> String {
    format!("[[outputs.influxdb]]\nurls = [\"{}\"]\ndatabase = \"{database}\"\n", influxdb.url())
}

/// The README's snippet (two processes by exec of curl, told apart by their Host headers) beside `inputs.http`, running as a
/// service does.
pub(crate) fn the_examples_set_up_fills_influxdb(suite: &Suite) {
    let (mesh, influxdb) = (suite.mesh(), suite.influxdb());
    let mut snippet = readme::block("toml", "name_prefix = \"l5d:\"").to_owned();
    for (printed, node) in ["http://linkerd1:9990", "http://linkerd2:9990"].into_iter().zip(&mesh.nodes) {
        snippet = readme::replaced(&snippet, printed, &format!("http://{}", node.l5d.admin()));
    }
    snippet = readme::replaced(&snippet, "http://influxdb:8086", &influxdb.url());
    let mut config = format!("{}{snippet}", agent());
    for (number, node) in mesh.nodes.iter().enumerate().take(2) {
        config += &format!(
            "[[inputs.http]]\nurls = [\"http://{}/admin/metrics/influxdb\"]\nname_prefix = \"h:\"\ndata_format = \"influx\"\n\
             [inputs.http.headers]\nHost = \"by-http-{number}\"\n",
            node.l5d.admin()
        );
    }
    let folder = tempfile::TempDir::new().expect("a temporary folder can be made");
    let file = folder.path().join("telegraf.conf");
    std::fs::write(&file, config).expect("a file can be written");
    let service = Process::start("telegraf", &mut telegraf(&file)).expect("telegraf starts");

    let database = "l5d"; // the snippet's; Telegraf makes it
    let last = |field: &str, measurement: &str, host: &str| {
        let query = format!(
            "SELECT last({}) AS v FROM {} WHERE host = {}",
            identifier(field),
            identifier(measurement),
            string(host)
        );
        wait_for(&format!("{query}; telegraf:\n{}", service.output()), PATIENCE, || {
            influxdb.query(database, &query).first().and_then(|row| row.values["v"].as_f64())
        })
    };
    for (number, node) in mesh.nodes.iter().enumerate().take(2) {
        let by_exec = format!("linkerd{}", number + 1);
        let by_http = format!("by-http-{number}");
        for (prefix, host) in [("l5d", &by_exec), ("h", &by_http)] {
            let value = |field: &str, measurement: &str| last(field, &format!("{prefix}:{measurement}"), host);
            let all = node.sent.all() as f64;
            assert_eq!(value("requests", "rt:server"), all, "{host}");
            assert_eq!(value("requests", "rt:client"), all, "{host}");
            assert_eq!(value("requests", "rt:service"), all, "{host}");
            assert_eq!(value("requests", "rt:client:service"), all, "{host}");
            assert_eq!(value("success", "rt:client"), (node.sent.good + node.sent.missing) as f64, "{host}");
            assert_eq!(value("5XX", "rt:client:status"), node.sent.broken as f64, "{host}");
            assert_eq!(value("4XX", "rt:client:status"), node.sent.missing as f64, "{host}");
            assert_eq!(value("requests", "rt:server"), all, "{host}");
            assert!(value("uptime", "jvm") > 0.0, "{host}");
            assert!(value("request_latency_ms_p95", "rt:client") >= 0.0, "{host}");
        }
    }
    // The tags of the snippet are on what the snippet gathers, and the two processes stay two series.
    let rows = influxdb.query(database, "SELECT last(requests) FROM \"l5d:rt:server\" GROUP BY *");
    let mut seen: Vec<(String, String, String)> = rows
        .iter()
        .map(|row| (row.tags["host"].clone(), row.tags["l5d_tag1"].clone(), row.tags["server"].clone()))
        .collect();
    seen.sort();
    let expected: Vec<(String, String, String)> = (0..2)
        .map(|number| (format!("linkerd{}", number + 1), "foo".to_owned(), mesh.nodes[number].server_name()))
        .collect();
    assert_eq!(seen, expected);
    // It gathers again and again: on one connection by inputs.http, without an error.
    let points = "SELECT count(requests) AS v FROM \"h:rt:server\" WHERE host = 'by-http-0'";
    wait_for("a third round", PATIENCE, || {
        influxdb.query(database, points).first().filter(|row| row.values["v"].as_f64() >= Some(3.0)).map(|_| ())
    });
    no_complaint(&service.output());
}

/// The part of a line that says which series it is: up to the first blank without a backslash right before it.
pub(crate) fn key(line: &str) -> String {
    let blanks = line.match_indices(' ').map(|(at, _)| at);
    let end = blanks.into_iter().find(|at| !line[..*at].ends_with('\\'));
    line[..end.unwrap_or_else(|| panic!("a line without fields: {line}"))].to_owned()
}

/// Scrapes the process with bad names under bad Host headers, through Telegraf into InfluxDB: every line must arrive.
pub(crate) fn no_line_of_a_hostile_page_is_lost(suite: &Suite) {
    let (hostile, influxdb) = (suite.hostile(), suite.influxdb());
    let hosts = [
        "quo\"te",
        "comma,space here",
        "equals=sign",
        "ends in one\\",
        "ends in two\\\\",
        "bücher 🍭",
        "[::1]:9990",
        "a\\b\\ c",
    ];
    for (number, host) in hosts.into_iter().enumerate() {
        let database = format!("hostile{number}");
        let admin = hostile.l5d.admin();
        // Go refuses some of these as a Host, curl sends what it is told.
        let page =
            run(&mut curl(&["-H", &format!("Host: {host}"), &format!("http://{admin}/admin/metrics/influxdb")]), b"");
        assert_eq!(page.code, 0, "{}", page.stderr);
        let folder = tempfile::TempDir::new().expect("a temporary folder can be made");
        let command = folder.path().join("curl");
        std::fs::write(&command, format!("header = {}\n", curl_string(&format!("Host: {host}"))))
            .expect("a file can be written");
        gather_once(&format!(
            "{}[[inputs.exec]]\ncommands = [\"curl -s -K {} http://{admin}/admin/metrics/influxdb\"]\n\
             data_format = \"influx\"\ntimeout = \"20s\"\n{}",
            agent(),
            command.display(),
            output(influxdb, &database)
        ));
        let page = page.text();
        let sent: BTreeSet<String> = page.lines().map(key).collect();
        assert_eq!(sent.len(), page.lines().count(), "Host {host}: a series comes twice");
        let stored: BTreeSet<String> = influxdb.series(&database);
        let lost: Vec<&String> = sent.difference(&stored).collect();
        assert!(
            lost.is_empty(),
            "Host {host}: {} of {} series are lost, such as {:?}",
            lost.len(),
            sent.len(),
            lost[0]
        );
        for label in LABELS {
            let read_back = label.trim_end_matches('\\'); // a backslash at the end of a tag can't be expressed
            let query = format!(
                "SELECT last(requests) AS v FROM \"rt:service\" WHERE rt = {} AND service = 'svc/web'",
                string(&read_back.replace('\t', "\\t"))
            );
            let rows = influxdb.query(&database, &query);
            let value = rows.first().and_then(|row| row.values["v"].as_f64());
            assert_eq!(value, Some(3.0), "Host {host}, router {label:?}: {query}");
        }
        let tags = influxdb.query(&database, "SHOW TAG VALUES FROM \"rt:server\" WITH KEY = host");
        let tags: Vec<&str> = tags.iter().filter_map(|row| row.values["value"].as_str()).collect();
        assert_eq!(tags, [host.trim_end_matches('\\')], "the Host header that the page was asked with");
    }
    let names = influxdb.query("hostile0", "SHOW TAG VALUES FROM \"rt:service\" WITH KEY = service");
    let names: Vec<&str> = names.iter().filter_map(|row| row.values["value"].as_str()).collect();
    assert!(names.len() > HOSTS.len(), "{names:.80?}");
    // The name of 70 000 letters is there too, as much of it as is sure to fit, and what tells it from others.
    let long = |name: &&str| name.starts_with("svc/long-long-") && name.len() == 6000 && name.contains('~');
    assert!(names.iter().any(long), "{names:.80?}");
}

/// A string as curl's own configuration file reads it.
fn curl_string(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The longest Host header that the admin server takes is a tag that InfluxDB takes; a longer one is refused with a reason, and
/// nothing is given out that could be lost.
pub(crate) fn an_enormous_host_header_loses_nothing(suite: &Suite) {
    let (hostile, influxdb) = (suite.hostile(), suite.influxdb());
    let url = format!("http://{}/admin/metrics/influxdb", hostile.l5d.admin());
    let folder = tempfile::TempDir::new().expect("a temporary folder can be made");
    let file = folder.path().join("header");
    let ask = |length: usize| {
        std::fs::write(&file, format!("Host: {}\n", "h".repeat(length))).expect("a file can be written");
        let page = run(&mut curl(&["--write-out", "%{http_code}", "-H", &format!("@{}", file.display()), &url]), b"");
        assert_eq!(page.code, 0, "{}", page.stderr);
        let mut page = page.text();
        let status = page.split_off(page.len() - 3);
        (status, page)
    };
    influxdb.query("", "CREATE DATABASE enormous");
    let mut taken = 0;
    for length in [5_000, 70_000, 300_000] {
        let (status, page) = ask(length);
        if status == "431" {
            assert_eq!(page, "");
            continue;
        }
        assert_eq!(status, "200", "{length}");
        taken += 1;
        influxdb.write("enormous", &page).unwrap_or_else(|error| panic!("{length}: {error:.500}"));
        let (sent, stored) = (page.lines().map(key).collect::<BTreeSet<_>>(), influxdb.series("enormous"));
        assert!(sent.is_subset(&stored), "{length}: {} of {} series are there", stored.len(), sent.len());
    }
    assert!(taken > 0, "not even the shortest was taken");
}
