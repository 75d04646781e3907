//! InfluxDB 1.x, asked with InfluxQL as a dashboard would.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use l5d_testkit::{Downstream, Process, free_port, get};
use serde_json::Value;

use crate::programs::installed;

pub(crate) struct InfluxDb {
    addr: SocketAddr,
    _process: Process,
    _folder: tempfile::TempDir,
}

/// One row of an answer: the tags that it was grouped by, and the first value of each column.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) values: BTreeMap<String, Value>,
}

impl InfluxDb {
    pub(crate) fn start() -> Self {
        let folder = tempfile::TempDir::new().expect("a temporary folder can be made");
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let rpc = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let at = |name: &str| folder.path().join(name).display().to_string();
        let config = format!(
            "reporting-disabled = true\nbind-address = \"{rpc}\"\n\
             [meta]\ndir = \"{}\"\n[data]\ndir = \"{}\"\nwal-dir = \"{}\"\nquery-log-enabled = false\n\
             [monitor]\nstore-enabled = false\n[http]\nbind-address = \"{addr}\"\nlog-enabled = false\n",
            at("meta"),
            at("data"),
            at("wal")
        );
        std::fs::write(folder.path().join("influxdb.conf"), config).expect("a file can be written");
        let mut command = installed("influxd", "influxdb");
        command.arg("run").arg("-config").arg(folder.path().join("influxdb.conf"));
        let mut process = Process::start("influxd", &mut command).expect("influxd starts");
        process.wait_ready(Duration::from_secs(30), || {
            get(addr, "localhost", "/ping").is_ok_and(|reply| reply.status == 204)
        });
        Self { addr, _process: process, _folder: folder }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Writes lines as they are.
    ///
    /// # Errors
    /// InfluxDB's own words when it did not take every line.
    pub(crate) fn write(&self, database: &str, lines: &str) -> Result<(), String> {
        let mut downstream = Downstream::connect(self.addr).map_err(|error| error.to_string())?;
        let target = format!("/write?db={database}");
        let asked = downstream.request("POST", &target, &[("host", "localhost")], lines.as_bytes());
        let reply = asked.map_err(|error| error.to_string())?;
        if reply.status == 204 { Ok(()) } else { Err(format!("{} {}", reply.status, reply.text())) }
    }

    /// What a statement answers; nothing while there is no such database yet.
    ///
    /// # Panics
    /// When InfluxDB refuses it.
    pub(crate) fn query(&self, database: &str, statement: &str) -> Vec<Row> {
        let encoded = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
        let form = format!("db={}&q={}", encoded(database), encoded(statement));
        let headers = [("host", "localhost"), ("content-type", "application/x-www-form-urlencoded")];
        let asked =
            Downstream::connect(self.addr).and_then(|mut c| c.request("POST", "/query", &headers, form.as_bytes()));
        let reply = asked.unwrap_or_else(|error| panic!("{statement}: {error}"));
        let answer: Value = serde_json::from_slice(&reply.body).unwrap_or_else(|error| panic!("{statement}: {error}"));
        let result = &answer["results"][0];
        let mut rows = Vec::new();
        if result["error"].as_str().is_some_and(|error| error.starts_with("database not found")) {
            return rows; // Telegraf makes it when it has something to write
        }
        assert!(reply.status == 200 && result["error"].is_null(), "{statement}: {answer}");
        for series in result["series"].as_array().into_iter().flatten() {
            let tags: BTreeMap<String, String> = serde_json::from_value(series["tags"].clone()).unwrap_or_default();
            for row in series["values"].as_array().into_iter().flatten() {
                let columns = series["columns"].as_array().into_iter().flatten().filter_map(Value::as_str);
                let cells = row.as_array().into_iter().flatten().cloned();
                rows.push(Row { tags: tags.clone(), values: columns.map(str::to_owned).zip(cells).collect() });
            }
        }
        rows
    }

    /// The keys of all series: measurement and tags, escaped as a line begins.
    pub(crate) fn series(&self, database: &str) -> BTreeSet<String> {
        let rows = self.query(database, "SHOW SERIES");
        rows.iter().filter_map(|row| row.values["key"].as_str().map(str::to_owned)).collect()
    }
}

/// An identifier between double quotes, as InfluxQL reads it.
pub(crate) fn identifier(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// A string between single quotes, as InfluxQL reads it.
pub(crate) fn string(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}
