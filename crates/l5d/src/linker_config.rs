//! The whole configuration: its top level, and what holds between its parts.
//!
//! Each part is read by its own crate; this file knows which tables of plug-ins there are, which kinds and protocols
//! Linkerd had that l5d doesn't, and the rules across routers (labels, server addresses). Nothing is opened here, and all
//! mistakes of a file come out of one run. `-validate` is exactly this.
//!
//! The plug-in traits are parameters ([`Plugins`]), so that the rules can be tested with plug-ins that do nothing.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use l5d_config::{
    ConfigError, Cx, Fields, FromNode, Kind, Millis, Node, Port, Pos, Secs, Value, asks_for_experimental, parse_kind,
};
use l5d_http::config::{HttpRouterConfig, server_tls, socket_options};
use l5d_net::{ServerTlsConfig, SocketOptions};
use l5d_telemetry::history::HistoryLimits;

/// The plug-in traits of each family.
pub(crate) trait Plugins {
    /// What a section of `telemetry` is read into.
    type Telemeter: ?Sized + 'static;
    /// What a section of `namers` is read into.
    type Namer: ?Sized + 'static;
    /// What a router's `interpreter` is read into.
    type Interpreter: ?Sized + 'static;
    /// What a router's `identifier` is read into.
    type Identifier: ?Sized + 'static;
    /// What a `responseClassifier` is read into.
    type Classifier: ?Sized + 'static;
    /// What a router's `tracePropagator` is read into.
    type Propagator: ?Sized + 'static;
}

/// The tables of each family.
pub(crate) struct Tables<P: Plugins> {
    pub(crate) telemeters: Table<P::Telemeter>,
    pub(crate) namers: Table<P::Namer>,
    pub(crate) interpreters: Table<P::Interpreter>,
    pub(crate) identifiers: Table<P::Identifier>,
    pub(crate) classifiers: Table<P::Classifier>,
    pub(crate) propagators: Table<P::Propagator>,
}

/// A family's kinds.
pub(crate) type Table<P> = &'static [&'static Kind<P>];

/// A plug-in's section, read.
pub(crate) struct Plugin<P: ?Sized> {
    /// Where it is in the file.
    pub(crate) at: Pos,
    /// Its kind.
    pub(crate) kind: &'static str,
    /// What its kind's reader made of it.
    pub(crate) config: Box<P>,
}

/// A configuration without mistakes.
pub(crate) struct LinkerConfig<P: Plugins> {
    /// `admin`
    pub(crate) admin: AdminConfig,
    /// `usage`
    pub(crate) usage: UsageConfig,
    /// `telemetry`
    pub(crate) telemeters: Vec<Plugin<P::Telemeter>>,
    /// `namers`, in the order of the file; later ones take precedence.
    pub(crate) namers: Vec<Plugin<P::Namer>>,
    /// `routers`, at least one.
    pub(crate) routers: Vec<RouterConfig<P>>,
    /// What works but should be known.
    pub(crate) warnings: Vec<ConfigError>,
    /// The file, for `/config.json`.
    pub(crate) tree: Node,
}

/// An entry of `routers`, with its plug-ins read.
pub(crate) struct RouterConfig<P: Plugins> {
    /// Everything but the plug-ins.
    pub(crate) http: HttpRouterConfig,
    /// `interpreter`; `None` stands for the kind `default`.
    pub(crate) interpreter: Option<Plugin<P::Interpreter>>,
    /// `identifier`; empty stands for the token of the `Host` header.
    pub(crate) identifiers: Vec<Plugin<P::Identifier>>,
    /// `service.responseClassifier`: one for a global section, one for each of `configs` otherwise.
    pub(crate) classifiers: Vec<Option<Plugin<P::Classifier>>>,
    /// `tracePropagator`; `None` stands for `io.l5d.default`.
    pub(crate) propagator: Option<Plugin<P::Propagator>>,
}

/// `admin`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AdminConfig {
    /// `ip` and `port`, default 127.0.0.1:9990.
    pub(crate) addr: SocketAddr,
    /// `socketOptions`.
    pub(crate) socket_options: SocketOptions,
    /// `shutdownGraceMs`, default 10 s, at least 1 s.
    pub(crate) shutdown_grace: Duration,
    /// `security`, default none: every path is served.
    pub(crate) security: Option<SecurityConfig>,
    /// `tls`, default none; also for the identifier port.
    pub(crate) tls: Option<ServerTlsConfig>,
    /// `httpIdentifierPort`, default none.
    pub(crate) http_identifier_port: Option<u16>,
    /// `history`, what the dashboard can look back on; Linkerd had none.
    pub(crate) history: HistoryLimits,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self {
            addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 9990)),
            socket_options: SocketOptions::default(),
            shutdown_grace: Duration::from_secs(10),
            security: None,
            tls: None,
            http_identifier_port: None,
            history: HistoryLimits::default(),
        }
    }
}

/// `admin.security`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SecurityConfig {
    /// `uiEnabled`, default true.
    pub(crate) ui_enabled: bool,
    /// `controlEnabled`, default true.
    pub(crate) control_enabled: bool,
    /// `diagnosticsEnabled`, default true.
    pub(crate) diagnostics_enabled: bool,
    /// `pathWhitelist`: regular expressions for whole paths, each of which compiles.
    pub(crate) path_whitelist: Vec<String>,
    /// `pathBlacklist`, likewise.
    pub(crate) path_blacklist: Vec<String>,
}

/// `usage`: accepted, and never acted upon. l5d reports to nobody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UsageConfig {
    /// `orgId`
    pub(crate) org_id: Option<String>,
    /// `enabled`, default true.
    pub(crate) enabled: bool,
}

impl Default for UsageConfig {
    fn default() -> Self {
        Self { org_id: None, enabled: true }
    }
}

/// Reads a configuration. Every mistake of the file is in the error, in the order of the file.
pub(crate) fn load<P: Plugins>(text: &str, tables: &Tables<P>) -> Result<LinkerConfig<P>, Vec<ConfigError>> {
    let tree = l5d_config::read(text).map_err(|error| vec![error])?;
    let mut cx = Cx::new();
    let parts = read_top(&tree, tables, &mut cx);
    let warnings = cx.take_warnings();
    let errors = cx.finish();
    match parts {
        Some((admin, usage, telemeters, namers, routers)) if errors.is_empty() => {
            Ok(LinkerConfig { admin, usage, telemeters, namers, routers, warnings, tree })
        }
        _ => Err(errors),
    }
}

type Parts<P> = (
    AdminConfig,
    UsageConfig,
    Vec<Plugin<<P as Plugins>::Telemeter>>,
    Vec<Plugin<<P as Plugins>::Namer>>,
    Vec<RouterConfig<P>>,
);

fn read_top<P: Plugins>(tree: &Node, tables: &Tables<P>, cx: &mut Cx) -> Option<Parts<P>> {
    let mut fields = Fields::of(tree, cx)?;
    let admin = fields.optional("admin", cx).unwrap_or_default();
    let usage = fields.optional("usage", cx).unwrap_or_default();
    let telemeters = fields.each("telemetry", cx, |node, cx| telemeter(node, tables.telemeters, cx));
    let namers = fields.each("namers", cx, |node, cx| namer(node, tables.namers, cx));
    let errors = cx.error_count();
    let listed = fields.each("routers", cx, |node, cx| Some((node, router(node, tables, cx))));
    if listed.is_empty() && cx.error_count() == errors {
        let at = tree.get("routers").unwrap_or(tree).at;
        cx.error_at(at, "At least one router must be specified in the configuration.");
    }
    fields.finish(cx);
    cx.at_key("routers", |cx| {
        labels_differ(&listed, cx);
        servers_differ(&listed, cx);
    });
    let routers = listed.into_iter().filter_map(|(_, router)| router).collect();
    Some((admin, usage, telemeters, namers, routers))
}

impl FromNode for AdminConfig {
    fn from_node(node: &Node, cx: &mut Cx) -> Option<Self> {
        let mut fields = Fields::of(node, cx)?;
        let default = Self::default();
        let ip = fields.or::<IpAddr>("ip", default.addr.ip(), cx);
        let Port(port) = fields.or("port", Port(default.addr.port()), cx);
        let Millis(grace) = fields.or("shutdownGraceMs", Millis(default.shutdown_grace), cx);
        // Linkerd's admin threads. Ours is one, and that is enough.
        fields.optional::<u32>("workerThreads", cx);
        let admin = Self {
            addr: SocketAddr::new(ip, port),
            socket_options: fields.with("socketOptions", cx, socket_options).unwrap_or_default(),
            shutdown_grace: grace.max(Duration::from_secs(1)),
            security: fields.optional("security", cx),
            tls: fields.with("tls", cx, server_tls),
            http_identifier_port: fields.optional("httpIdentifierPort", cx).map(|Port(port)| port),
            history: fields.with("history", cx, history).unwrap_or_default(),
        };
        fields.finish(cx);
        Some(admin)
    }
}

/// `admin.history`.
fn history(node: &Node, cx: &mut Cx) -> Option<HistoryLimits> {
    let mut fields = Fields::of(node, cx)?;
    let default = HistoryLimits::default();
    let mut span = |key: &str, default: Duration, least: u64, most: u64, cx: &mut Cx| {
        let within = |node: &Node, cx: &mut Cx| {
            let Secs(span) = Secs::from_node(node, cx)?;
            let seconds = span.as_secs();
            let ok = (least..=most).contains(&seconds);
            if !ok {
                cx.error(node, format!("{seconds} seconds are not between {least} and {most}"));
            }
            ok.then_some(span)
        };
        fields.with(key, cx, within).unwrap_or(default)
    };
    let fine = span("fineSecs", default.fine, 60, 3600, cx);
    let coarse = span("coarseSecs", default.coarse, 600, 86_400, cx);
    let memory = fields.or::<u32>("memoryMB", (default.memory >> 20) as u32, cx);
    fields.finish(cx);
    Some(HistoryLimits { fine, coarse, memory: memory as usize * 1024 * 1024 })
}

impl FromNode for SecurityConfig {
    fn from_node(node: &Node, cx: &mut Cx) -> Option<Self> {
        let mut fields = Fields::of(node, cx)?;
        let security = Self {
            ui_enabled: fields.or("uiEnabled", true, cx),
            control_enabled: fields.or("controlEnabled", true, cx),
            diagnostics_enabled: fields.or("diagnosticsEnabled", true, cx),
            path_whitelist: fields.each("pathWhitelist", cx, pattern),
            path_blacklist: fields.each("pathBlacklist", cx, pattern),
        };
        fields.finish(cx);
        Some(security)
    }
}

fn pattern(node: &Node, cx: &mut Cx) -> Option<String> {
    l5d_config::parsed(node, cx, |text| match regex::Regex::new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => {
            let text_of_error = error.to_string();
            let why = text_of_error.lines().last().unwrap_or_default().trim_start_matches("error: ");
            Err(format!("\"{text}\" is not a regular expression: {why}"))
        }
    })
}

impl FromNode for UsageConfig {
    fn from_node(node: &Node, cx: &mut Cx) -> Option<Self> {
        let mut fields = Fields::of(node, cx)?;
        let usage = Self { org_id: fields.optional("orgId", cx), enabled: fields.or("enabled", true, cx) };
        fields.finish(cx);
        Some(usage)
    }
}

/// An entry of `telemetry`.
fn telemeter<P: ?Sized>(node: &Node, table: Table<P>, cx: &mut Cx) -> Option<Plugin<P>> {
    plugin("telemeter", node, table, TELEMETERS_OF_LINKERD, cx, |kind| format!("The {kind} telemeter"))
}

/// An entry of `namers`.
fn namer<P: ?Sized>(node: &Node, table: Table<P>, cx: &mut Cx) -> Option<Plugin<P>> {
    plugin("namer", node, table, NAMERS_OF_LINKERD, cx, |kind| {
        let prefix = node.get("prefix").and_then(Node::text).map_or_else(|| format!("/{kind}"), str::to_owned);
        format!("The /#{prefix} namer")
    })
}

/// A router's `interpreter`.
fn interpreter<P: ?Sized>(node: &Node, table: Table<P>, cx: &mut Cx) -> Option<Plugin<P>> {
    plugin("interpreter", node, table, INTERPRETERS_OF_LINKERD, cx, |kind| format!("The {kind} interpreter"))
}

/// One of a router's identifiers.
fn identifier<P: ?Sized>(node: &Node, table: Table<P>, cx: &mut Cx) -> Option<Plugin<P>> {
    plugin("identifier", node, table, IDENTIFIERS_OF_LINKERD, cx, |kind| format!("The {kind} identifier"))
}

/// A `responseClassifier`.
fn classifier<P: ?Sized>(node: &Node, table: Table<P>, cx: &mut Cx) -> Option<Plugin<P>> {
    plugin("response classifier", node, table, CLASSIFIERS_OF_LINKERD, cx, |kind| {
        format!("The {kind} response classifier")
    })
}

/// A router's `tracePropagator`.
fn propagator<P: ?Sized>(node: &Node, table: Table<P>, cx: &mut Cx) -> Option<Plugin<P>> {
    plugin("trace propagator", node, table, PROPAGATORS_OF_LINKERD, cx, |kind| format!("The {kind} trace propagator"))
}

/// Reads a plug-in's section by its kind, and insists on `experimental: true` where the kind does.
fn plugin<P: ?Sized>(
    family: &str,
    node: &Node,
    table: Table<P>,
    of_linkerd: &[&str],
    cx: &mut Cx,
    name: impl FnOnce(&str) -> String,
) -> Option<Plugin<P>> {
    let (kind, config) = parse_kind(family, table, of_linkerd, node, cx)?;
    let experimental = table.iter().any(|known| known.id == kind && known.experimental);
    if experimental && !asks_for_experimental(node) {
        cx.error(
            node,
            format!(
                "{} is experimental and must be explicitly enabled by setting the `experimental' parameter to `true'.",
                name(kind)
            ),
        );
        return None;
    }
    Some(Plugin { at: node.at, kind, config })
}

/// An entry of `routers`: the choice by `protocol`.
fn router<P: Plugins>(node: &Node, tables: &Tables<P>, cx: &mut Cx) -> Option<RouterConfig<P>> {
    let Value::Map(_) = &node.value else {
        cx.error(node, format!("expected a mapping with the router's `protocol`, got {}", node.describe()));
        return None;
    };
    let Some(at) = node.get("protocol").filter(|protocol| !protocol.is_null()) else {
        cx.error(node, "missing type id property 'protocol'; known: http");
        return None;
    };
    let protocol = cx.at_key("protocol", |cx| String::from_node(at, cx))?;
    match protocol.as_str() {
        "http" => http_router(node, tables, cx),
        "thriftmux" if !asks_for_experimental(node) => {
            cx.error(
                node,
                "The thriftmux protocol is experimental and must be explicitly enabled by setting the `experimental' \
                 parameter to `true' on each router.",
            );
            None
        }
        "h2" | "thrift" | "mux" | "thriftmux" => {
            let what = format!("the protocol \"{protocol}\" is not supported by l5d yet; supported: http");
            cx.at_key("protocol", |cx| cx.error(at, what));
            None
        }
        _ => {
            let what = format!("unknown protocol \"{protocol}\"; known: http");
            cx.at_key("protocol", |cx| cx.error(at, what));
            None
        }
    }
}

fn http_router<P: Plugins>(node: &Node, tables: &Tables<P>, cx: &mut Cx) -> Option<RouterConfig<P>> {
    let http = HttpRouterConfig::from_node(node, cx);
    let at = |key: &str| node.get(key).filter(|section| !section.is_null());
    let read_interpreter =
        at("interpreter").map(|node| cx.at_key("interpreter", |cx| interpreter(node, tables.interpreters, cx)));
    let read_identifiers: Vec<_> = match at("identifier").map(|node| (node, node.items())) {
        None => Vec::new(),
        Some((node, None)) => vec![cx.at_key("identifier", |cx| identifier(node, tables.identifiers, cx))],
        Some((_, Some(items))) => cx.at_key("identifier", |cx| {
            let items = items.iter().enumerate();
            items.map(|(i, node)| cx.at_index(i, |cx| identifier(node, tables.identifiers, cx))).collect()
        }),
    };
    let read_classifiers: Vec<_> = at("service")
        .map_or_else(|| vec![None], |service| cx.at_key("service", |cx| classifiers(service, tables.classifiers, cx)));
    let read_propagator =
        at("tracePropagator").map(|node| cx.at_key("tracePropagator", |cx| propagator(node, tables.propagators, cx)));
    let http = http?;
    if http.servers.is_empty() {
        cx.error(node, format!("router '{}' has no servers", http.label));
    }
    // Absent is `None` of the outer option; wrong is `None` of the inner one, and ends here.
    Some(RouterConfig {
        http,
        interpreter: read_interpreter.map_or(Some(None), |read| read.map(Some))?,
        identifiers: read_identifiers.into_iter().collect::<Option<_>>()?,
        classifiers: read_classifiers
            .into_iter()
            .map(|read| read.map_or(Some(None), |read| read.map(Some)))
            .collect::<Option<_>>()?,
        propagator: read_propagator.map_or(Some(None), |read| read.map(Some))?,
    })
}

/// The classifiers of `service`: the global one, or one for each of `configs`, `None` where there is none.
fn classifiers<P: ?Sized>(service: &Node, table: Table<P>, cx: &mut Cx) -> Vec<Option<Option<Plugin<P>>>> {
    let of = |node: &Node, cx: &mut Cx| {
        let section = node.get("responseClassifier").filter(|section| !section.is_null());
        section.map(|node| cx.at_key("responseClassifier", |cx| classifier(node, table, cx)))
    };
    match service.get("configs").and_then(Node::items) {
        None => vec![of(service, cx)],
        Some(configs) => cx.at_key("configs", |cx| {
            configs.iter().enumerate().map(|(i, node)| cx.at_index(i, |cx| of(node, cx))).collect()
        }),
    }
}

/// No two routers have one label, whatever their protocols.
fn labels_differ<T>(routers: &[(&Node, T)], cx: &mut Cx) {
    let mut seen = HashMap::new();
    for (i, (node, _)) in routers.iter().enumerate() {
        let labelled = node.get("label").filter(|label| label.text().is_some());
        let Some(at) = labelled.or_else(|| node.get("protocol")) else { continue };
        let Some(label) = at.text() else { continue };
        if seen.insert(label, ()).is_some() {
            let at = if labelled.is_some() { at.at } else { node.at };
            cx.at_index(i, |cx| cx.error_at(at, format!("Multiple routers with the label {label}")));
        }
    }
}

/// No two servers have one address. Servers that ask the system for a port may be many, which Linkerd didn't allow.
fn servers_differ<P: Plugins>(routers: &[(&Node, Option<RouterConfig<P>>)], cx: &mut Cx) {
    let mut seen = HashMap::new();
    for (i, (_, router)) in routers.iter().enumerate() {
        let servers = router.iter().flat_map(|router| router.http.servers.iter().enumerate());
        for (j, server) in servers.filter(|(_, server)| server.addr.port() != 0) {
            if seen.insert(server.addr, ()).is_some() {
                cx.at_index(i, |cx| {
                    cx.at_key("servers", |cx| {
                        let what = format!("Server conflict on port {}", server.addr.port());
                        cx.at_index(j, |cx| cx.error_at(server.at, what));
                    });
                });
            }
        }
    }
}

// What Linkerd 1.7.5 knew. A kind that is in a table is read by it; the others are refused by name, so that "not yet" can
// be told from "no such thing".

const TELEMETERS_OF_LINKERD: &[&str] = &[
    "io.l5d.influxdb",
    "io.l5d.prometheus",
    "io.l5d.recentRequests",
    "io.l5d.statsd",
    "io.l5d.tracelog",
    "io.l5d.zipkin",
];

const NAMERS_OF_LINKERD: &[&str] = &[
    "io.l5d.consul",
    "io.l5d.curator",
    "io.l5d.dnssrv",
    "io.l5d.fs",
    "io.l5d.k8s",
    "io.l5d.k8s.external",
    "io.l5d.k8s.ns",
    "io.l5d.marathon",
    "io.l5d.rancher",
    "io.l5d.rewrite",
    "io.l5d.serversets",
    "io.l5d.zkLeader",
];

const INTERPRETERS_OF_LINKERD: &[&str] = &[
    "default",
    "io.l5d.consul.interpreter",
    "io.l5d.fs",
    "io.l5d.k8s.configMap",
    "io.l5d.k8s.istio",
    "io.l5d.mesh",
    "io.l5d.namerd",
    "io.l5d.namerd.http",
];

const IDENTIFIERS_OF_LINKERD: &[&str] = &[
    "io.l5d.header",
    "io.l5d.header.token",
    "io.l5d.ingress",
    "io.l5d.k8s.istio",
    "io.l5d.k8s.istio-ingress",
    "io.l5d.methodAndHost",
    "io.l5d.path",
    "io.l5d.static",
];

const CLASSIFIERS_OF_LINKERD: &[&str] = &[
    "io.l5d.http.allSuccessful",
    "io.l5d.http.nonRetryable5XX",
    "io.l5d.http.retryableAll5XX",
    "io.l5d.http.retryableIdempotent5XX",
    "io.l5d.http.retryableRead5XX",
];

const PROPAGATORS_OF_LINKERD: &[&str] = &["io.l5d.default", "io.l5d.zipkin"];

#[cfg(test)]
mod tests;
