//! The acceptance table of the configuration (C1 to C32), as far as it is decided by reading, with plug-ins that only
//! know their kind.

use super::*;

/// What any section of any family is read into here: the keys it had.
struct Section(Vec<String>);

struct TestPlugins;

impl Plugins for TestPlugins {
    type Telemeter = Section;
    type Namer = Section;
    type Interpreter = Section;
    type Identifier = Section;
    type Classifier = Section;
    type Propagator = Section;
}

/// Takes any keys.
fn any(node: &Node, _: &mut Cx) -> Option<Box<Section>> {
    match &node.value {
        Value::Map(entries) => Some(Box::new(Section(entries.iter().map(|(key, _)| key.text.clone()).collect()))),
        _ => None,
    }
}

/// Takes no keys.
fn none(node: &Node, cx: &mut Cx) -> Option<Box<Section>> {
    let mut fields = Fields::of(node, cx)?;
    fields.skip_kind();
    fields.finish(cx);
    Some(Box::new(Section(Vec::new())))
}

const fn kind(
    id: &'static str,
    experimental: bool,
    parse: fn(&Node, &mut Cx) -> Option<Box<Section>>,
) -> Kind<Section> {
    Kind { id, experimental, summary: "", example: "", parse }
}

fn tables() -> Tables<TestPlugins> {
    Tables {
        telemeters: const {
            &[
                &kind("io.l5d.prometheus", false, any),
                &kind("io.l5d.statsd", true, any),
                &kind("io.l5d.influxdb", false, none),
            ]
        },
        namers: const { &[&kind("io.l5d.fs", false, any), &kind("io.l5d.dnssrv", true, any)] },
        interpreters: const { &[&kind("default", false, none), &kind("io.l5d.k8s.configMap", true, any)] },
        identifiers: const { &[&kind("io.l5d.path", false, any), &kind("io.l5d.methodAndHost", false, any)] },
        classifiers: const { &[&kind("io.l5d.http.retryableRead5XX", false, none)] },
        propagators: const { &[&kind("io.l5d.default", false, none)] },
    }
}

fn config(text: &str) -> Result<LinkerConfig<TestPlugins>, Vec<String>> {
    load(text, &tables()).map_err(|errors| errors.iter().map(|e| e.in_file("l.yaml").to_string()).collect())
}

/// The errors of a text, one a line.
fn error(text: &str) -> String {
    match config(text) {
        Ok(_) => panic!("accepted: {text}"),
        Err(errors) => errors.join("\n"),
    }
}

/// The errors of a file whose one router is `router`, written in YAML's flow style.
fn router_error(router: &str) -> String {
    error(&format!("routers:\n- {{{router}}}\n"))
}

const MINIMAL: &str = "routers:\n- protocol: http\n  servers: [{}]\n";

#[test]
fn c1_no_routers() {
    let text = "At least one router must be specified in the configuration.";
    assert_eq!(error("routers: []"), format!("l.yaml:1:10: {text}"));
    assert_eq!(error("admin: {port: 1}"), format!("l.yaml:1:1: {text}"));
    assert_eq!(error("routers:\n"), format!("l.yaml:1:8: {text}"));
}

#[test]
fn c2_c3_labels_differ() {
    let two = "routers:\n- {protocol: http, servers: [{port: 1}]}\n- {protocol: http, servers: [{port: 2}]}\n";
    assert_eq!(error(two), "l.yaml:3:3: routers[1]: Multiple routers with the label http");
    let labelled = two.replace("{port: 2}]", "{port: 2}], label: b");
    assert_eq!(config(&labelled).unwrap().routers[1].http.label, "b");
    let twice = labelled.replace("{port: 1}]", "{port: 1}], label: b");
    assert!(error(&twice).contains("Multiple routers with the label b"));
}

#[test]
fn c4_c5_servers_differ() {
    assert_eq!(
        router_error("protocol: http, servers: [{port: 4140}, {port: 4140}]"),
        "l.yaml:2:44: routers[0].servers[1]: Server conflict on port 4140"
    );
    let across = "routers:\n- {protocol: http, servers: [{}]}\n- {protocol: http, label: b, servers: [{port: 4140}]}\n";
    assert!(error(across).contains("routers[1].servers[0]: Server conflict on port 4140"));
    assert!(config("routers: [{protocol: http, servers: [{ip: 127.0.0.2, port: 3}, {port: 3}]}]").is_ok());
    assert!(config("routers: [{protocol: http, servers: [{port: 0}, {port: 0}]}]").is_ok());
}

#[test]
fn c6_routers_are_a_list() {
    assert_eq!(error("routers: {protocol: http}"), "l.yaml:1:10: routers: expected a list, got a mapping");
    assert!(
        error("routers: [http]").contains("routers[0]: expected a mapping with the router's `protocol`, got \"http\"")
    );
}

#[test]
fn c7_protocols_are_known() {
    assert_eq!(
        router_error("protocol: boring"),
        "l.yaml:2:14: routers[0].protocol: unknown protocol \"boring\"; known: http"
    );
    assert_eq!(router_error("label: x"), "l.yaml:2:3: routers[0]: missing type id property 'protocol'; known: http");
    for protocol in ["h2", "thrift", "mux"] {
        let what = format!("the protocol \"{protocol}\" is not supported by l5d yet");
        assert!(router_error(&format!("protocol: {protocol}")).contains(&what));
    }
}

#[test]
fn c8_c9_unknown_keys_are_named() {
    assert_eq!(
        error(&format!("fancy: true\n{MINIMAL}")),
        "l.yaml:1:1: unknown key `fancy`; known: admin, namers, routers, telemetry, usage"
    );
    assert!(
        router_error("protocol: http, servers: [{prot: 4140}]").contains("routers[0].servers[0]: unknown key `prot`")
    );
    assert!(router_error("protocol: http, servers: [{}], fancy: 1").contains("routers[0]: unknown key `fancy`"));
}

#[test]
fn c10_c11_addresses_are_checked() {
    let errors = router_error("protocol: http, servers: [{port: 65536}, {ip: localhost}]");
    assert!(errors.contains("routers[0].servers[0].port: 65536 outside valid range for ports"));
    assert!(errors.contains("routers[0].servers[1].ip: 'localhost' is not an IP string literal."));
}

#[test]
fn c12_json_is_accepted() {
    let config = config(r#"{"routers":[{"protocol":"http","servers":[{"port":1}]}]}"#).unwrap();
    assert_eq!(config.routers[0].http.servers[0].addr.to_string(), "127.0.0.1:1");
}

#[test]
fn c13_duplicate_keys_are_refused() {
    assert_eq!(error("a: 1\na: 1\n"), "l.yaml:2:1: duplicate key `a`");
}

#[test]
fn c14_experimental_kinds_must_be_asked_for() {
    let text = |name: &str| {
        format!(
            "{name} is experimental and must be explicitly enabled by setting the `experimental' parameter to `true'."
        )
    };
    assert_eq!(
        error(&format!("telemetry: [{{kind: io.l5d.statsd}}]\n{MINIMAL}")),
        format!("l.yaml:1:13: telemetry[0]: {}", text("The io.l5d.statsd telemeter"))
    );
    assert!(
        error(&format!("namers: [{{kind: io.l5d.dnssrv}}]\n{MINIMAL}")).contains(&text("The /#/io.l5d.dnssrv namer"))
    );
    assert!(
        error(&format!("namers: [{{kind: io.l5d.dnssrv, prefix: /d}}]\n{MINIMAL}")).contains(&text("The /#/d namer"))
    );
    assert!(
        router_error("protocol: http, servers: [{}], interpreter: {kind: io.l5d.k8s.configMap}")
            .contains(&text("The io.l5d.k8s.configMap interpreter"))
    );
    let asked = format!("telemetry: [{{kind: io.l5d.statsd, experimental: true}}]\n{MINIMAL}");
    assert_eq!(config(&asked).unwrap().telemeters[0].kind, "io.l5d.statsd");
}

#[test]
fn c16_unknown_kinds_list_the_known_ones() {
    let mut known: Vec<_> = tables().telemeters.iter().map(|kind| kind.id).collect();
    known.sort_unstable();
    assert_eq!(
        error(&format!("telemetry: [{{kind: io.l5d.nope}}]\n{MINIMAL}")),
        format!("l.yaml:1:20: telemetry[0].kind: unknown telemeter \"io.l5d.nope\"; known: {}", known.join(", "))
    );
    assert!(error(&format!("telemetry: [{{kind: io.l5d.commonMetrics}}]\n{MINIMAL}")).contains("unknown telemeter"));
    assert!(error(&format!("telemetry: [{{}}]\n{MINIMAL}")).contains("missing type id property 'kind'"));
    assert!(error(&format!("namers: [{{kind: io.l5d.curator}}]\n{MINIMAL}")).contains("is not supported by l5d yet"));
}

#[test]
fn c17_streaming_options_do_not_contradict() {
    let errors = router_error("protocol: http, servers: [{}], streamingEnabled: false, streamAfterContentLengthKB: 5");
    assert!(errors.contains("Can't disable streaming and set streamAfterContentLengthKB in http"), "{errors}");
}

#[test]
fn c20_thriftmux_is_experimental() {
    assert!(router_error("protocol: thriftmux").contains(
        "The thriftmux protocol is experimental and must be explicitly enabled by setting the `experimental' parameter to \
         `true' on each router."
    ));
    assert!(router_error("protocol: thriftmux, experimental: true").contains("not supported by l5d yet"));
}

#[test]
fn c21_a_router_has_servers() {
    assert_eq!(router_error("protocol: http"), "l.yaml:2:3: routers[0]: router 'http' has no servers");
    assert!(router_error("protocol: http, label: x, servers: []").contains("router 'x' has no servers"));
}

#[test]
fn c22_dtabs_are_parsed() {
    let errors = router_error("protocol: http, servers: [{}], dtab: bogus");
    assert!(errors.ends_with("routers[0].dtab: '/' expected but 'b' found at '[b]ogus'"), "{errors}");
}

#[test]
fn c23_unvalidated_tls_takes_no_client_auth() {
    let tls = "client: {tls: {disableValidation: true, clientAuth: {certPath: a, keyPath: b}}}";
    let errors = router_error(&format!("protocol: http, servers: [{{}}], {tls}"));
    assert!(errors.contains("disableValidation: true is incompatible with clientAuth"), "{errors}");
}

#[test]
fn c24_c25_the_defaults_are_linkerds() {
    let config = config(MINIMAL).unwrap();
    assert_eq!(config.routers[0].http.servers[0].addr.to_string(), "127.0.0.1:4140");
    assert_eq!(config.admin, AdminConfig::default());
    assert_eq!(config.admin.addr.to_string(), "127.0.0.1:9990");
    assert_eq!(config.admin.shutdown_grace, Duration::from_secs(10));
    assert_eq!(config.usage, UsageConfig { org_id: None, enabled: true });
    assert!(config.telemeters.is_empty() && config.namers.is_empty() && config.warnings.is_empty());
    let router = &config.routers[0];
    assert!(router.interpreter.is_none() && router.identifiers.is_empty() && router.propagator.is_none());
    assert_eq!(router.classifiers.len(), 1);
    assert_eq!(crate::config_json::config_json(&config.tree), r#"{"routers":[{"protocol":"http","servers":[{}]}]}"#);
}

#[test]
fn c32_roll_policies_are_known() {
    let errors = router_error("protocol: http, servers: [{}], httpAccessLogRollPolicy: yearly");
    assert!(errors.contains("Invalid log roll policy: yearly"), "{errors}");
}

#[test]
fn every_key_of_admin_and_usage_is_read() {
    let config = config(&format!(
        "
admin:
  ip: 0.0.0.0
  port: 1
  socketOptions: {{reusePort: true}}
  shutdownGraceMs: 5
  security: {{uiEnabled: false, controlEnabled: false, diagnosticsEnabled: false, pathWhitelist: ['^/a$'], pathBlacklist: [/b]}}
  tls: {{certPath: a, keyPath: b}}
  httpIdentifierPort: 2
  workerThreads: 3
  history: {{fineSecs: 600, coarseSecs: 7200, memoryMB: 8}}
usage: {{orgId: 7, enabled: false}}
{MINIMAL}"
    ))
    .unwrap();
    assert_eq!(config.admin.addr.to_string(), "0.0.0.0:1");
    assert!(config.admin.socket_options.reuse_port && config.admin.tls.is_some());
    assert_eq!(config.admin.shutdown_grace, Duration::from_secs(1), "at least a second");
    assert_eq!(config.admin.http_identifier_port, Some(2));
    let history = config.admin.history;
    assert_eq!((history.fine.as_secs(), history.coarse.as_secs(), history.memory), (600, 7200, 8 << 20));
    let security = config.admin.security.unwrap();
    assert!(!security.ui_enabled && !security.control_enabled && !security.diagnostics_enabled);
    assert_eq!((security.path_whitelist[0].as_str(), security.path_blacklist[0].as_str()), ("^/a$", "/b"));
    assert_eq!(config.usage, UsageConfig { org_id: Some("7".to_owned()), enabled: false });
}

#[test]
fn spans_of_the_history_have_limits_and_places() {
    let errors = error(&format!("admin:\n  history:\n    fineSecs: 5\n    coarseSecs: x\n    memory: 3\n{MINIMAL}"));
    for error in [
        "l.yaml:3:15: admin.history.fineSecs: 5 seconds are not between 60 and 3600",
        "l.yaml:4:17: admin.history.coarseSecs: ",
        "l.yaml:5:5: admin.history",
    ] {
        assert!(errors.contains(error), "{error} is not in {errors}");
    }
    let none = config(&format!("admin: {{history: {{memoryMB: 0}}}}\n{MINIMAL}")).unwrap();
    assert_eq!(none.admin.history, HistoryLimits { memory: 0, ..HistoryLimits::default() });
}

#[test]
fn bad_regular_expressions_are_refused() {
    let errors = error(&format!("admin: {{security: {{pathBlacklist: [/ok, '/a(']}}}}\n{MINIMAL}"));
    assert!(
        errors.contains("admin.security.pathBlacklist[1]: \"/a(\" is not a regular expression: unclosed group"),
        "{errors}"
    );
}

#[test]
fn plug_ins_of_a_router_are_read_by_their_tables() {
    let config = config(
        "
routers:
- protocol: http
  servers: [{}]
  interpreter: {kind: default}
  identifier:
  - {kind: io.l5d.methodAndHost, httpUriInDst: true}
  - kind: io.l5d.path
  tracePropagator: {kind: io.l5d.default}
  service:
    kind: io.l5d.static
    configs:
    - prefix: /a
    - prefix: /b
      responseClassifier: {kind: io.l5d.http.retryableRead5XX}
",
    )
    .unwrap();
    let router = &config.routers[0];
    assert_eq!(router.interpreter.as_ref().unwrap().kind, "default");
    assert_eq!(router.identifiers.iter().map(|i| i.kind).collect::<Vec<_>>(), ["io.l5d.methodAndHost", "io.l5d.path"]);
    assert_eq!(router.identifiers[0].config.0, ["kind", "httpUriInDst"]);
    assert_eq!(router.identifiers[1].at.to_string(), "8:5");
    assert_eq!(router.classifiers.iter().map(Option::is_some).collect::<Vec<_>>(), [false, true]);
    assert!(router.propagator.is_some());
}

#[test]
fn mistakes_of_a_routers_plug_ins_have_their_place() {
    let errors = error(
        "
routers:
- protocol: http
  servers: [{}]
  interpreter: {kind: default, dtab: /a}
  identifier:
  - {kind: io.l5d.header}
  - {kind: io.l5d.hedaer}
  tracePropagator: {}
  service:
    configs: []
    responseClassifier: {kind: io.l5d.h2.allSuccessful}
- protocol: http
  label: b
  servers: [{port: 1}]
  identifier: {kind: x}
  service: {kind: io.l5d.static, configs: [{prefix: /, responseClassifier: {kind: y}}]}
",
    );
    for what in [
        "l.yaml:5:32: routers[0].interpreter: unknown key `dtab`",
        "routers[0].identifier[0].kind: the identifier \"io.l5d.header\" is not supported by l5d yet",
        "routers[0].identifier[1].kind: unknown identifier \"io.l5d.hedaer\"",
        "routers[0].tracePropagator: missing type id property 'kind'",
        "routers[0].service: unknown key `configs`",
        "routers[1].identifier.kind: unknown identifier \"x\"",
        "routers[1].service.configs[0].responseClassifier.kind: unknown response classifier \"y\"",
    ] {
        assert!(errors.contains(what), "{what} is not in\n{errors}");
    }
}

#[test]
fn all_mistakes_of_a_file_are_told_in_its_order() {
    let mistaken =
        "admin: {port: x}\nusage: []\ntelemetry: {}\nnamers: 1\nrouters: [{protocol: http, dtab: x}]\nz: 1\n";
    let Err(errors) = config(mistaken) else { panic!("accepted") };
    let lines: Vec<&str> = errors.iter().filter_map(|e| e.split(':').nth(1)).collect();
    assert_eq!(lines, ["1", "2", "3", "4", "5", "6"], "{errors:#?}");
}

#[test]
fn warnings_do_not_stop_a_start() {
    let config = config("routers: [{protocol: http, maxRequestKB: 5, servers: [{}]}]").unwrap();
    assert!(config.warnings[0].to_string().contains("routers[0].maxRequestKB: has no effect"));
}

/// A file with most of the keys, to be damaged.
const FULL: &str = r#"
admin: {ip: 0.0.0.0, port: 1, security: {pathWhitelist: ['^/a$']}, tls: {certPath: a, keyPath: b}}
usage: {orgId: x, enabled: false}
telemetry:
- {kind: io.l5d.statsd, experimental: true, port: 8125}
namers:
- {kind: io.l5d.fs, rootDir: /}
routers:
- protocol: http
  label: a
  dtab: /svc => /#/io.l5d.fs | /$/inet/127.1/1 & 0.5 * /x
  identifier: [{kind: io.l5d.path}]
  bindingCache: {paths: 1, idleTtlSecs: 5}
  httpAccessLogRollPolicy: 3.megabytes
  servers:
  - {port: 1, socketOptions: {backlog: 3}, addForwardedHeader: {by: {kind: ip}}, serverSession: {idleTimeMs: 8}}
  service:
    kind: io.l5d.static
    configs:
    - {prefix: /, totalTimeoutMs: 100, retries: {budget: {ttlSecs: 5}, backoff: {kind: jittered, minMs: 1, maxMs: 2}}}
  client:
    loadBalancer: {kind: aperture, lowLoad: 0.5}
    failureAccrual: {kind: io.l5d.successRate, successRate: 0.5, requests: 5}
    tls: {commonName: '{a}.com', clientAuth: {certPath: a, keyPath: b}}
"#;

#[test]
fn the_full_file_is_accepted() {
    assert!(config(FULL).is_ok());
}

proptest::proptest! {
    /// Whatever a slip of the keyboard makes of a file: it is accepted, or every error has a place in it.
    #[test]
    fn a_damaged_file_is_accepted_or_refused_with_a_place(
        at in 0..FULL.len(),
        length in 0..12_usize,
        instead in proptest::sample::select(vec![
            "", "~", "-1", "99999999999999999999", "[]", "{}", "x", "'", "\n", ": ", "- ", "\t", "{", "0", "0.5e400", "é",
        ]),
    ) {
        let end = (at + length).min(FULL.len());
        let damaged = format!("{}{instead}{}", &FULL[..at], &FULL[end..]);
        let lines = damaged.lines().count() as u32 + 1;
        if let Err(errors) = load(&damaged, &tables()) {
            proptest::prop_assert!(!errors.is_empty());
            for error in errors {
                proptest::prop_assert!((1..=lines).contains(&error.at.line), "{error}");
                proptest::prop_assert!(!error.what.is_empty());
            }
        }
    }
}
