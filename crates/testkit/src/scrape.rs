//! The metrics of one admin server, as a test asks for them.
//!
//! The readers here are small and strict: anything that they do not expect is a panic with the line. The real judges of the
//! formats are the real consumers; these only let a wire test say "this counter is 3".

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::Value;

use crate::message::Reply;

/// Asks an admin server for its pages.
#[derive(Clone, Copy, Debug)]
pub struct Scrape {
    admin: SocketAddr,
}

/// One line of the Prometheus page.
#[derive(Clone, Debug, PartialEq)]
pub struct PromSample {
    /// `rt:server:requests`
    pub name: String,
    /// Labels by name, values unescaped.
    pub labels: BTreeMap<String, String>,
    /// The value.
    pub value: f64,
}

/// One line of the InfluxDB page.
#[derive(Clone, Debug, PartialEq)]
pub struct InfluxPoint {
    /// `rt:server`
    pub measurement: String,
    /// Tags by name, values unescaped.
    pub tags: BTreeMap<String, String>,
    /// Fields by name.
    pub fields: BTreeMap<String, f64>,
}

impl Scrape {
    /// Of the admin server at that address.
    pub fn of(admin: SocketAddr) -> Self {
        Self { admin }
    }

    /// A page as it comes, whatever its status.
    ///
    /// # Panics
    /// When the server can't be asked.
    pub fn page(&self, target: &str) -> Reply {
        crate::get(self.admin, "localhost:9990", target).unwrap_or_else(|error| panic!("GET {target}: {error}"))
    }

    /// The text of a page.
    ///
    /// # Panics
    /// When the answer is not a 200 with UTF-8.
    pub fn text(&self, target: &str) -> String {
        let reply = self.page(target);
        assert_eq!(reply.status, 200, "GET {target}: {}", String::from_utf8_lossy(&reply.body));
        String::from_utf8(reply.body).expect("pages are UTF-8")
    }

    /// `/admin/metrics.json`: every number by its flat name.
    ///
    /// # Panics
    /// When the page is not a JSON object.
    pub fn json(&self) -> BTreeMap<String, Value> {
        let page = self.text("/admin/metrics.json");
        serde_json::from_str(&page).unwrap_or_else(|error| panic!("metrics.json: {error}: {page}"))
    }

    /// A counter, or a gauge that is whole, by its flat name (`rt/http/server/127.0.0.1/4140/requests`); 0 when it is absent.
    ///
    /// # Panics
    /// When there is something else by that name.
    pub fn count(&self, name: &str) -> u64 {
        match self.json().get(name) {
            None => 0,
            Some(value) => {
                let number = value.as_f64().unwrap_or_else(|| panic!("{name} is {value}"));
                assert!(number >= 0.0 && number.fract() == 0.0, "{name} is {value}");
                number as u64
            }
        }
    }

    /// `/admin/metrics/prometheus`, read.
    ///
    /// # Panics
    /// When a line is not of the text format.
    pub fn prometheus(&self) -> Vec<PromSample> {
        let page = self.text("/admin/metrics/prometheus");
        let samples = page.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        samples.map(|line| prom_sample(line).unwrap_or_else(|| panic!("not a sample: {line}"))).collect()
    }

    /// `/admin/metrics/influxdb`, read.
    ///
    /// # Panics
    /// When a line is not of the line protocol.
    pub fn influxdb(&self) -> Vec<InfluxPoint> {
        let page = self.text("/admin/metrics/influxdb");
        page.lines().map(|line| influx_point(line).unwrap_or_else(|| panic!("not a point: {line}"))).collect()
    }
}

fn prom_sample(line: &str) -> Option<PromSample> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, after) = rest.split_once("=\"")?;
            let mut value = String::new();
            let mut chars = after.char_indices();
            let close = loop {
                match chars.next()? {
                    (at, '"') => break at,
                    (_, '\\') => match chars.next()?.1 {
                        'n' => value.push('\n'),
                        literal @ ('\\' | '"') => value.push(literal),
                        _ => return None,
                    },
                    (_, char) => value.push(char),
                }
            };
            if labels.insert(label.to_owned(), value).is_some() {
                return None;
            }
            rest = &after[close + 1..];
            if let Some(value) = rest.strip_prefix('}') {
                rest = value;
                break;
            }
            rest = rest.strip_prefix(',')?.trim_start_matches(' ');
        }
    }
    Some(PromSample { name: name.to_owned(), labels, value: rest.strip_prefix(' ')?.parse().ok()? })
}

/// Splits at the first `at` that has no backslash right before it. A backslash escapes nothing else, not even another one.
fn split_raw(text: &str, at: char) -> Option<(&str, &str)> {
    let found = text.match_indices(at).find(|(index, _)| !text[..*index].ends_with('\\'));
    found.map(|(index, _)| (&text[..index], &text[index + at.len_utf8()..]))
}

fn unescaped(text: &str) -> String {
    text.replace("\\,", ",").replace("\\=", "=").replace("\\ ", " ")
}

fn influx_point(line: &str) -> Option<InfluxPoint> {
    let (head, mut fields_left) = split_raw(line, ' ')?;
    let (measurement, mut tags_left) = split_raw(head, ',').unwrap_or((head, ""));
    let mut point = InfluxPoint { measurement: unescaped(measurement), tags: BTreeMap::new(), fields: BTreeMap::new() };
    while !tags_left.is_empty() {
        let (tag, rest) = split_raw(tags_left, ',').unwrap_or((tags_left, ""));
        let (name, value) = split_raw(tag, '=')?;
        if value.is_empty() || point.tags.insert(unescaped(name), unescaped(value)).is_some() {
            return None;
        }
        tags_left = rest;
    }
    while !fields_left.is_empty() {
        let (field, rest) = split_raw(fields_left, ',').unwrap_or((fields_left, ""));
        let (name, value) = split_raw(field, '=')?;
        let value: f64 = value.parse().ok()?;
        if !value.is_finite() || point.fields.insert(unescaped(name), value).is_some() {
            return None;
        }
        fields_left = rest;
    }
    (!point.fields.is_empty()).then_some(point)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prometheus_line_is_taken_apart() {
        let sample = prom_sample(r##"rt:client:requests{rt="a\"b", client="#/c\\d,e\n"} 7"##).unwrap();
        assert_eq!((sample.name.as_str(), sample.value), ("rt:client:requests", 7.0));
        assert_eq!((sample.labels["rt"].as_str(), sample.labels["client"].as_str()), ("a\"b", "#/c\\d,e\n"));
        assert_eq!(prom_sample("jvm:uptime 1.5E7").unwrap().value, 1.5e7);
        for wrong in ["a", "a{b=\"c} 1", r#"a{b="\x"} 1"#, "a{} 1 2 3", r#"a{b="1", b="2"} 1"#, "a x"] {
            assert_eq!(prom_sample(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn an_influxdb_line_is_taken_apart() {
        let point = influx_point(r"rt:server,host=a\ b\,c,rt=x\=y,client=a\\\ b requests=3,4XX=0").unwrap();
        assert_eq!(
            (point.measurement.as_str(), point.fields["requests"], point.fields["4XX"]),
            ("rt:server", 3.0, 0.0)
        );
        assert_eq!((point.tags["host"].as_str(), point.tags["rt"].as_str()), ("a b,c", "x=y"));
        assert_eq!(point.tags["client"], r"a\\ b", "a doubled backslash is two");
        for wrong in ["a", "a,b= c=1", "a,b=c d=NaN", "a,b=c d=1 e", "a b=", "a,b c=1"] {
            assert_eq!(influx_point(wrong), None, "{wrong}");
        }
    }
}
