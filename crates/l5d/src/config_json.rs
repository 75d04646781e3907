//! `/config.json`: the configuration as it was understood, in JSON.
//!
//! Contract with Linkerd, whose dashboard reads it: keys that say null are left out, `client` and `service` name their kind
//! although the file doesn't, loopback addresses are written `localhost`, dtabs and paths are strings in their normal
//! form, numbers are numbers even if quoted in the file.

use std::fmt::Write as _;

use l5d_config::{Node, Value};
use l5d_naming::Dtab;

/// Writes a file's tree, which [`crate::linker_config::load`] accepted.
pub(crate) fn config_json(tree: &Node) -> String {
    let mut out = String::new();
    let entries = entries(tree);
    // The order of Linkerd's top level, whatever the file's.
    let order = ["routers", "namers", "telemetry", "admin", "usage"];
    let top = order.iter().filter_map(|key| entries.iter().find(|(k, _)| k == key).copied());
    write_map(&mut out, top, |out, key, node| match (key, &node.value) {
        ("routers", Value::Seq(routers)) => write_seq(out, routers, write_router),
        _ => write(out, key, node),
    });
    out
}

fn write_router(out: &mut String, router: &Node) {
    write_map(out, entries(router).into_iter(), |out, key, node| match key {
        "client" | "service" if node.get("kind").is_none_or(Node::is_null) => {
            let kind = Node { at: node.at, value: Value::Scalar(text_of("io.l5d.global")) };
            let entries = [("kind", &kind)].into_iter().chain(entries(node));
            write_map(out, entries.filter(|(key, node)| *key != "kind" || !node.is_null()), write);
        }
        _ => write(out, key, node),
    });
    // An absent list of servers is an empty one.
    if router.get("servers").is_none_or(Node::is_null) {
        out.pop();
        out.push_str(",\"servers\":[]}");
    }
}

fn text_of(text: &str) -> l5d_config::Scalar {
    l5d_config::Scalar { text: text.to_owned(), quoted: true }
}

/// Writes the value of `key`.
fn write(out: &mut String, key: &str, node: &Node) {
    match &node.value {
        Value::Null => out.push_str("null"),
        Value::Seq(items) => write_seq(out, items, |out, item| write(out, key, item)),
        Value::Map(_) => write_map(out, entries(node).into_iter(), write),
        Value::Scalar(scalar) => match (key, scalar.text.as_str()) {
            ("ip", "127.0.0.1" | "::1") => out.push_str("\"localhost\""),
            ("dtab", text) => match Dtab::read(text) {
                Ok(dtab) => write_string(out, &dtab.to_string()),
                Err(_) => write_string(out, text),
            },
            (key, text) if is_text(key) => write_string(out, text),
            (_, text) => match number_or_bool(text) {
                Some(json) => out.push_str(&json),
                None => write_string(out, text),
            },
        },
    }
}

/// The keys that are not null.
fn entries(node: &Node) -> Vec<(&str, &Node)> {
    match &node.value {
        Value::Map(entries) => {
            let entries = entries.iter().filter(|(_, node)| !node.is_null());
            entries.map(|(key, node)| (key.text.as_str(), node)).collect()
        }
        _ => Vec::new(),
    }
}

fn write_map<'a>(
    out: &mut String,
    entries: impl Iterator<Item = (&'a str, &'a Node)>,
    mut write_value: impl FnMut(&mut String, &str, &Node),
) {
    out.push('{');
    for (i, (key, node)) in entries.enumerate() {
        if i > 0 {
            out.push(',');
        }
        write_string(out, key);
        out.push(':');
        write_value(out, key, node);
    }
    out.push('}');
}

fn write_seq(out: &mut String, items: &[Node], mut write_item: impl FnMut(&mut String, &Node)) {
    out.push('[');
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        write_item(out, item);
    }
    out.push(']');
}

fn write_string(out: &mut String, text: &str) {
    let _ = write!(out, "{}", serde_json::Value::from(text));
}

/// A scalar in JSON's spelling, if it is a number or a boolean: what Jackson wrote for a key of such a type, however it
/// was spelt in the file.
fn number_or_bool(text: &str) -> Option<String> {
    match text {
        "true" | "True" | "TRUE" => return Some("true".to_owned()),
        "false" | "False" | "FALSE" => return Some("false".to_owned()),
        _ => {}
    }
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.')) {
        return None;
    }
    if let Ok(number) = text.replace('_', "").parse::<i64>() {
        return Some(number.to_string());
    }
    let number = text.parse::<f64>().ok().filter(|number| number.is_finite())?;
    serde_json::Number::from_f64(number).map(|number| number.to_string())
}

/// The keys whose values are strings even when they look like numbers.
fn is_text(key: &str) -> bool {
    matches!(
        key,
        "announce"
            | "caCertPath"
            | "certPath"
            | "ciphers"
            | "commonName"
            | "dst"
            | "dstPrefix"
            | "dtabFile"
            | "filename"
            | "header"
            | "host"
            | "hostname"
            | "httpAccessLog"
            | "httpAccessLogRollPolicy"
            | "intermediateCertsPath"
            | "keyPath"
            | "kind"
            | "label"
            | "labelSelector"
            | "name"
            | "namespace"
            | "orgId"
            | "path"
            | "pathBlacklist"
            | "pathWhitelist"
            | "pattern"
            | "prefix"
            | "protocol"
            | "protocols"
            | "root"
            | "rootDir"
            | "timestampHeader"
            | "token"
            | "trustCerts"
            | "trustCertsBundle"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(yaml: &str) -> serde_json::Value {
        let text = config_json(&l5d_config::read(yaml).unwrap());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
    }

    fn value(json: &str) -> serde_json::Value {
        serde_json::from_str(json).unwrap()
    }

    /// The page that Linkerd 1.7.5 gave for this file.
    #[test]
    fn the_page_is_linkerds() {
        let yaml = "
admin: {port: 29990, ip: 127.0.0.1}
usage: {enabled: false}
telemetry:
- kind: io.l5d.prometheus
- kind: io.l5d.influxdb
- kind: io.l5d.recentRequests
  sampleRate: 1.0
- kind: io.l5d.tracelog
  sampleRate: 1.0
routers:
- protocol: http
  label: http
  dtab: |
    /svc/web     => /$/inet/127.1/25001;
    /svc/web2    => /$/inet/127.1/25002;
    /svc/refused => /$/inet/127.1/25009;
  servers:
  - {port: 24140, ip: 127.0.0.1}
";
        let page = r#"{"routers":[{"protocol":"http","servers":[{"port":24140,"ip":"localhost"}],"dtab":"/svc/web=>/$/inet/127.1/25001;/svc/web2=>/$/inet/127.1/25002;/svc/refused=>/$/inet/127.1/25009","label":"http"}],"telemetry":[{"kind":"io.l5d.prometheus"},{"kind":"io.l5d.influxdb"},{"sampleRate":1.0,"kind":"io.l5d.recentRequests"},{"sampleRate":1.0,"kind":"io.l5d.tracelog"}],"admin":{"ip":"localhost","port":29990},"usage":{"enabled":false}}"#;
        assert_eq!(json(yaml), value(page));
    }

    #[test]
    fn the_page_of_a_secured_admin_is_linkerds() {
        let yaml = "
admin: {port: 29998, ip: 127.0.0.1, security: {controlEnabled: false, diagnosticsEnabled: false}}
usage: {enabled: false}
telemetry:
- kind: io.l5d.prometheus
- kind: io.l5d.recentRequests
  sampleRate: 1.0
routers:
- protocol: http
  dtab: /svc/* => /$/inet/127.1/25001
  servers:
  - {port: 24148, ip: 127.0.0.1}
  - {port: 24149, ip: 0.0.0.0}
";
        let page = r#"{"routers":[{"protocol":"http","servers":[{"port":24148,"ip":"localhost"},{"port":24149,"ip":"0.0.0.0"}],"dtab":"/svc/*=>/$/inet/127.1/25001"}],"telemetry":[{"kind":"io.l5d.prometheus"},{"sampleRate":1.0,"kind":"io.l5d.recentRequests"}],"admin":{"ip":"localhost","port":29998,"security":{"controlEnabled":false,"diagnosticsEnabled":false}},"usage":{"enabled":false}}"#;
        assert_eq!(json(yaml), value(page));
    }

    #[test]
    fn client_and_service_name_their_kind() {
        let json = json("routers: [{protocol: http, client: {}, service: {kind: io.l5d.static, configs: []}}]");
        let wanted = r#"{"routers":[{"protocol":"http","client":{"kind":"io.l5d.global"},"service":{"kind":"io.l5d.static","configs":[]},"servers":[]}]}"#;
        assert_eq!(json, value(wanted));
    }

    #[test]
    fn scalars_are_written_by_what_they_mean() {
        let json = json(
            "routers: [{protocol: http, label: 8125, originator: ~, streamingEnabled: True, servers: [{port: '1_0', ip: '::1'}], \
             client: {loadBalancer: {kind: aperture, lowLoad: .5}}, dstPrefix: /a\"b}]",
        );
        let router = &json["routers"][0];
        assert_eq!(router["label"], "8125");
        assert_eq!(router["streamingEnabled"], true);
        assert_eq!(router["servers"], value(r#"[{"port":10,"ip":"localhost"}]"#));
        assert_eq!(router["client"]["loadBalancer"]["lowLoad"], 0.5);
        assert_eq!(router["dstPrefix"], "/a\"b");
        assert!(router.get("originator").is_none());
    }

    #[test]
    fn the_top_level_has_linkerds_order() {
        let text = config_json(&l5d_config::read("usage: {}\nadmin: {}\nrouters: []\n").unwrap());
        assert_eq!(text, r#"{"routers":[],"admin":{},"usage":{}}"#);
    }
}
