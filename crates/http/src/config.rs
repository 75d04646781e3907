//! The settings of a router with `protocol: http`, as plain data, with the reading of each.
//!
//! Nothing here acts or opens anything. The sections of plug-ins (`identifier`, `interpreter`, `responseClassifier`,
//! `tracePropagator`) are kept as they were written, for the tables of their families to read. What Linkerd only noticed on
//! the first request is refused here, at load. A field's doc names its key and its default.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use l5d_config::{Cx, Fields, FromNode, Kind, Millis, Node, Port, Pos, Timeout, Value, parse_kind};
use l5d_naming::{Dtab, Path};
use l5d_net::{ClientAuth, ClientTls, ClientTlsConfig, ServerTls, ServerTlsConfig, SocketOptions};
use l5d_router::config::{
    BindingCacheConfig, FailureAccrualConfig, HostConnectionPoolConfig, LoadBalancerConfig, RetriesConfig,
    RetryBudgetConfig, SessionConfig,
};

/// One entry of `routers` with `protocol: http`.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpRouterConfig {
    /// Where it is in its file.
    pub at: Pos,
    /// `label`, default the protocol's name.
    pub label: String,
    /// `dtab`, default empty.
    pub dtab: Dtab,
    /// `dstPrefix`, default `/svc`.
    pub dst_prefix: Path,
    /// `servers`, default none, which the start refuses.
    pub servers: Vec<ServerConfig>,
    /// `service`, by logical name.
    pub service: PerName<ServiceConfig>,
    /// `client`, by bound name.
    pub client: PerName<ClientConfig>,
    /// `interpreter`, default the one of kind `default`.
    pub interpreter: Option<Node>,
    /// `identifier`, one or a list; empty when absent, which stands for the token of the `Host` header.
    pub identifiers: Vec<Node>,
    /// `tracePropagator`, default `io.l5d.default`.
    pub trace_propagator: Option<Node>,
    /// `bindingTimeoutMs`, default 10 s.
    pub binding_timeout: Duration,
    /// `bindingCache`.
    pub binding_cache: BindingCacheConfig,
    /// `originator`, default false: adds a gauge that says so.
    pub originator: bool,
    /// `httpAccessLog` and its companions; no log when the first is absent.
    pub access_log: Option<AccessLogConfig>,
    /// `streamingEnabled`, default true; false buffers whole bodies.
    pub streaming_enabled: bool,
    /// `streamAfterContentLengthKB` in bytes, default 5 KB: longer bodies and chunked ones are streamed.
    pub stream_after_content_length: u64,
    /// `maxHeadersKB` in bytes, default 8 KB.
    pub max_headers: usize,
    /// `maxInitialLineKB` in bytes, default 4 KB.
    pub max_initial_line: usize,
    /// `maxErrResponseKB` in bytes, default 5120 KB.
    pub max_err_response: usize,
    /// `compressionLevel`, default automatic.
    pub compression: Compression,
}

/// `compressionLevel`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// -1: textual types, at level 6, when the client accepts it.
    #[default]
    Automatic,
    /// 0: nothing.
    Off,
    /// 1 to 9: every type, at that level.
    Level(u32),
}

/// `httpAccessLog…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLogConfig {
    /// `httpAccessLog`: the file.
    pub path: PathBuf,
    /// `httpAccessLogRollPolicy`, default never.
    pub roll_policy: RollPolicy,
    /// `httpAccessLogAppend`, default true; false empties the file at start.
    pub append: bool,
    /// `httpAccessLogRotateCount`, default all (-1): how many rolled files are kept.
    pub rotate_count: Option<u32>,
}

/// When an access log is rolled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RollPolicy {
    /// `never`
    #[default]
    Never,
    /// `hourly`
    Hourly,
    /// `daily`
    Daily,
    /// `weekly(N)`: on that day of the week, 1 is Sunday.
    Weekly(u8),
    /// `sighup`: the file is opened anew at that signal.
    Sighup,
    /// `3.megabytes`: when it would grow beyond so many bytes.
    Size(u64),
}

/// One entry of `servers`.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerConfig {
    /// Where it is in its file.
    pub at: Pos,
    /// `ip` and `port`, default 127.0.0.1:4140. The metrics' scope shows what is configured: `127.0.0.1/4140`.
    pub addr: SocketAddr,
    /// `label`, default the router's.
    pub label: Option<String>,
    /// `tls`, default none.
    pub tls: Option<ServerTlsConfig>,
    /// `maxConcurrentRequests`, default no limit; 0 refuses everything.
    pub max_concurrent_requests: Option<u32>,
    /// `timeoutMs`, default none.
    pub timeout: Option<Duration>,
    /// `serverSession`.
    pub session: SessionConfig,
    /// `clearContext`, default false.
    pub clear_context: bool,
    /// `socketOptions`.
    pub socket_options: SocketOptions,
    /// `addForwardedHeader`, default none; `{}` turns it on.
    pub add_forwarded_header: Option<ForwardedConfig>,
    /// `timestampHeader`, default none.
    pub timestamp_header: Option<String>,
    /// `maxCallDepth`, default 1000.
    pub max_call_depth: u32,
}

/// `addForwardedHeader`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardedConfig {
    /// `by`, default `requestRandom`: how this server calls itself.
    pub by: LabelerConfig,
    /// `for`, default `requestRandom`: how it calls the client.
    pub for_: LabelerConfig,
}

/// The kinds of `addForwardedHeader`'s labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LabelerConfig {
    /// `ip`
    Ip,
    /// `ip:port`
    IpPort,
    /// `requestRandom`: an obfuscated label, another for every request.
    #[default]
    RequestRandom,
    /// `connectionRandom`: an obfuscated label, another for every connection.
    ConnectionRandom,
    /// `router`: the router's label.
    Router,
    /// `static`: `label`, as configured.
    Static(String),
}

/// `service` or `client`: settings for every name, or for the names below some prefixes.
#[derive(Clone, Debug, PartialEq)]
pub enum PerName<T> {
    /// `io.l5d.global`, also when there is no `kind`.
    Global(T),
    /// `io.l5d.static`: all matching entries apply in this order, the later over the earlier.
    Static(Vec<Prefixed<T>>),
}

impl<T: Default> Default for PerName<T> {
    fn default() -> Self {
        Self::Global(T::default())
    }
}

/// One entry of `configs`.
#[derive(Clone, Debug, PartialEq)]
pub struct Prefixed<T> {
    /// `prefix`: the text of a path pattern, matched against the beginning of a name.
    pub prefix: String,
    /// The settings.
    pub settings: T,
}

/// The settings of a logical name. `None` is "not said here": an earlier entry or the default applies.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServiceConfig {
    /// `totalTimeoutMs`, default none.
    pub total_timeout: Option<Timeout>,
    /// `retries`.
    pub retries: RetriesConfig,
    /// `responseClassifier`, default `io.l5d.http.nonRetryable5XX`.
    pub response_classifier: Option<Node>,
}

impl ServiceConfig {
    /// Lays a later entry's settings over these: each that it names replaces the one here.
    pub fn overlay(&mut self, later: &Self) {
        replace(&mut self.total_timeout, &later.total_timeout);
        replace(&mut self.retries.budget, &later.retries.budget);
        replace(&mut self.retries.backoff, &later.retries.backoff);
        replace(&mut self.response_classifier, &later.response_classifier);
    }
}

/// The settings of a bound name. `None` is "not said here": an earlier entry or the default applies.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClientConfig {
    /// `loadBalancer`, default p2c.
    pub load_balancer: Option<LoadBalancerConfig>,
    /// `failureAccrual`, default 5 consecutive failures.
    pub failure_accrual: Option<FailureAccrualConfig>,
    /// `requestAttemptTimeoutMs`, default none.
    pub request_attempt_timeout: Option<Timeout>,
    /// `requeueBudget`.
    pub requeue_budget: Option<RetryBudgetConfig>,
    /// `hostConnectionPool`.
    pub host_connection_pool: Option<HostConnectionPoolConfig>,
    /// `clientSession`.
    pub client_session: Option<SessionConfig>,
    /// `failFast`, default false.
    pub fail_fast: Option<bool>,
    /// `tls`, default none.
    pub tls: Option<ClientTlsSetting>,
    /// `socketOptions`.
    pub socket_options: Option<SocketOptions>,
    /// `forwardClientCert`, default false.
    pub forward_client_cert: Option<bool>,
}

impl ClientConfig {
    /// Lays a later entry's settings over these: each that it names replaces the one here.
    pub fn overlay(&mut self, later: &Self) {
        replace(&mut self.load_balancer, &later.load_balancer);
        replace(&mut self.failure_accrual, &later.failure_accrual);
        replace(&mut self.request_attempt_timeout, &later.request_attempt_timeout);
        replace(&mut self.requeue_budget, &later.requeue_budget);
        replace(&mut self.host_connection_pool, &later.host_connection_pool);
        replace(&mut self.client_session, &later.client_session);
        replace(&mut self.fail_fast, &later.fail_fast);
        replace(&mut self.tls, &later.tls);
        replace(&mut self.socket_options, &later.socket_options);
        replace(&mut self.forward_client_cert, &later.forward_client_cert);
    }
}

fn replace<T: Clone>(earlier: &mut Option<T>, later: &Option<T>) {
    if later.is_some() {
        earlier.clone_from(later);
    }
}

/// `client.tls`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientTlsSetting {
    /// `enabled: false`, which takes back what an earlier entry said.
    Plaintext,
    /// Anything else. `common_name` may hold `{var}`s of the entry's prefix.
    Tls(ClientTlsConfig),
}

impl FromNode for HttpRouterConfig {
    fn from_node(node: &Node, cx: &mut Cx) -> Option<Self> {
        let mut fields = Fields::of(node, cx)?;
        let errors = cx.error_count();
        fields.skip("protocol");
        fields.optional::<bool>("experimental", cx);
        let label = fields.optional("label", cx).unwrap_or_else(|| "http".to_owned());
        let streaming_enabled = fields.or("streamingEnabled", true, cx);
        if let Some(stream_after) = node.get("streamAfterContentLengthKB").filter(|n| !n.is_null())
            && !streaming_enabled
        {
            cx.error(
                stream_after,
                format!(
                    "Conflicting streaming options set. Can't disable streaming and set streamAfterContentLengthKB in {label}"
                ),
            );
        }
        for (key, since) in [("maxChunkKB", "1.6.0"), ("maxRequestKB", "1.7.0"), ("maxResponseKB", "1.7.0")] {
            if let Some(old) = fields.node(key) {
                cx.at_key(key, |cx| cx.warn(old, format!("has no effect since Linkerd {since}, remove it")));
            }
        }
        fields.unsupported("announcers", cx);
        let router = Self {
            at: node.at,
            label,
            dtab: fields.parsed("dtab", cx, Dtab::read).unwrap_or_else(Dtab::empty),
            dst_prefix: fields.parsed("dstPrefix", cx, Path::read).unwrap_or_else(|| Path::from_segments(["svc"])),
            servers: fields.each("servers", cx, ServerConfig::from_node),
            service: fields.with("service", cx, |node, cx| per_name(node, cx, service)).unwrap_or_default(),
            client: fields.with("client", cx, |node, cx| per_name(node, cx, client)).unwrap_or_default(),
            interpreter: fields.optional("interpreter", cx),
            identifiers: fields.with("identifier", cx, one_or_more_identifiers).unwrap_or_default(),
            trace_propagator: fields.optional("tracePropagator", cx),
            binding_timeout: fields.or("bindingTimeoutMs", Millis(Duration::from_secs(10)), cx).0,
            binding_cache: fields.optional("bindingCache", cx).unwrap_or_default(),
            originator: fields.or("originator", false, cx),
            access_log: access_log(&mut fields, cx),
            streaming_enabled,
            stream_after_content_length: kilobytes(&mut fields, "streamAfterContentLengthKB", 0, 5, cx),
            max_headers: size(kilobytes(&mut fields, "maxHeadersKB", 1, 8, cx)),
            max_initial_line: size(kilobytes(&mut fields, "maxInitialLineKB", 1, 4, cx)),
            max_err_response: size(kilobytes(&mut fields, "maxErrResponseKB", 0, 5120, cx)),
            compression: fields.with("compressionLevel", cx, compression).unwrap_or_default(),
        };
        fields.finish(cx);
        (cx.error_count() == errors).then_some(router)
    }
}

impl FromNode for ServerConfig {
    fn from_node(node: &Node, cx: &mut Cx) -> Option<Self> {
        let mut fields = Fields::of(node, cx)?;
        let Port(port) = fields.or("port", Port(4140), cx);
        let ip = fields.or("ip", IpAddr::V4(Ipv4Addr::LOCALHOST), cx);
        fields.each("announce", cx, |node, cx| {
            let path = l5d_config::parsed(node, cx, Path::read)?;
            cx.warn(node, format!("no announcer found for {path}"));
            Some(())
        });
        let server = Self {
            at: node.at,
            addr: SocketAddr::new(ip, port),
            label: fields.optional("label", cx),
            tls: fields.with("tls", cx, server_tls),
            max_concurrent_requests: fields.optional("maxConcurrentRequests", cx),
            timeout: fields.or("timeoutMs", Timeout(None), cx).0,
            session: fields.optional("serverSession", cx).unwrap_or_default(),
            clear_context: fields.or("clearContext", false, cx),
            socket_options: fields.with("socketOptions", cx, socket_options).unwrap_or_default(),
            add_forwarded_header: fields.optional("addForwardedHeader", cx),
            timestamp_header: fields.parsed("timestampHeader", cx, header_name),
            max_call_depth: fields.or("maxCallDepth", 1000, cx),
        };
        fields.finish(cx);
        Some(server)
    }
}

impl FromNode for ForwardedConfig {
    fn from_node(node: &Node, cx: &mut Cx) -> Option<Self> {
        let mut fields = Fields::of(node, cx)?;
        let forwarded = Self {
            by: fields.optional("by", cx).unwrap_or_default(),
            for_: fields.optional("for", cx).unwrap_or_default(),
        };
        fields.finish(cx);
        Some(forwarded)
    }
}

impl FromNode for LabelerConfig {
    fn from_node(node: &Node, cx: &mut Cx) -> Option<Self> {
        parse_kind("labeler", LABELERS, &[], node, cx).map(|(_, labeler)| *labeler)
    }
}

/// The kinds that `addForwardedHeader.by` and `.for` may name.
pub static LABELERS: &[&Kind<LabelerConfig>] = &[
    &Kind {
        id: "ip",
        experimental: false,
        summary: "the address",
        example: "kind: ip\n",
        parse: |node, cx| labeler(node, cx, |_, _| Some(LabelerConfig::Ip)),
    },
    &Kind {
        id: "ip:port",
        experimental: false,
        summary: "the address with its port",
        example: "kind: ip:port\n",
        parse: |node, cx| labeler(node, cx, |_, _| Some(LabelerConfig::IpPort)),
    },
    &Kind {
        id: "requestRandom",
        experimental: false,
        summary: "a random label for each request",
        example: "kind: requestRandom\n",
        parse: |node, cx| labeler(node, cx, |_, _| Some(LabelerConfig::RequestRandom)),
    },
    &Kind {
        id: "connectionRandom",
        experimental: false,
        summary: "a random label for each connection",
        example: "kind: connectionRandom\n",
        parse: |node, cx| labeler(node, cx, |_, _| Some(LabelerConfig::ConnectionRandom)),
    },
    &Kind {
        id: "router",
        experimental: false,
        summary: "the router's label",
        example: "kind: router\n",
        parse: |node, cx| labeler(node, cx, |_, _| Some(LabelerConfig::Router)),
    },
    &Kind {
        id: "static",
        experimental: false,
        summary: "a label of your own",
        example: "kind: static\nlabel: foo\n",
        parse: |node, cx| labeler(node, cx, |fields, cx| fields.required("label", cx).map(LabelerConfig::Static)),
    },
];

fn labeler(
    node: &Node,
    cx: &mut Cx,
    read: impl FnOnce(&mut Fields<'_>, &mut Cx) -> Option<LabelerConfig>,
) -> Option<Box<LabelerConfig>> {
    let mut fields = Fields::of(node, cx)?;
    fields.skip("kind");
    let labeler = read(&mut fields, cx);
    fields.finish(cx);
    labeler.map(Box::new)
}

/// Reads `service` or `client`; `settings` takes what one entry may say.
fn per_name<T: Default>(
    node: &Node,
    cx: &mut Cx,
    settings: impl Fn(&mut Fields<'_>, &mut Cx) -> T,
) -> Option<PerName<T>> {
    let mut fields = Fields::of(node, cx)?;
    let kind = fields.optional::<String>("kind", cx);
    let read = match kind.as_deref() {
        None | Some("io.l5d.global") => PerName::Global(settings(&mut fields, cx)),
        Some("io.l5d.static") => {
            if node.get("configs").is_none_or(Node::is_null) {
                cx.error(node, "'configs' must be specified");
            }
            PerName::Static(fields.each("configs", cx, |node, cx| {
                let mut fields = Fields::of(node, cx)?;
                let prefix = fields.required("prefix", cx);
                let settings = settings(&mut fields, cx);
                fields.finish(cx);
                Some(Prefixed { prefix: prefix?, settings })
            }))
        }
        Some(other) => {
            if let Some(kind) = node.get("kind") {
                let what = format!("unknown kind \"{other}\"; known: io.l5d.global, io.l5d.static");
                cx.at_key("kind", |cx| cx.error(kind, what));
            }
            return None;
        }
    };
    fields.finish(cx);
    Some(read)
}

fn service(fields: &mut Fields<'_>, cx: &mut Cx) -> ServiceConfig {
    ServiceConfig {
        total_timeout: fields.optional("totalTimeoutMs", cx),
        retries: fields.optional("retries", cx).unwrap_or_default(),
        response_classifier: fields.optional("responseClassifier", cx),
    }
}

fn client(fields: &mut Fields<'_>, cx: &mut Cx) -> ClientConfig {
    fields.unsupported("requestAuthorizers", cx);
    ClientConfig {
        load_balancer: fields.optional("loadBalancer", cx),
        failure_accrual: fields.optional("failureAccrual", cx),
        request_attempt_timeout: fields.optional("requestAttemptTimeoutMs", cx),
        requeue_budget: fields.optional("requeueBudget", cx),
        host_connection_pool: fields.optional("hostConnectionPool", cx),
        client_session: fields.optional("clientSession", cx),
        fail_fast: fields.optional("failFast", cx),
        tls: fields.with("tls", cx, client_tls),
        socket_options: fields.with("socketOptions", cx, socket_options),
        forward_client_cert: fields.optional("forwardClientCert", cx),
    }
}

/// `identifier`: a mapping, or a list of them that isn't empty.
fn one_or_more_identifiers(node: &Node, cx: &mut Cx) -> Option<Vec<Node>> {
    match &node.value {
        Value::Seq(items) if items.is_empty() => {
            cx.error(node, "empty identifier list");
            None
        }
        Value::Seq(items) => Some(items.clone()),
        _ => Some(vec![node.clone()]),
    }
}

/// Reads `socketOptions`. A block replaces the whole group: what it doesn't name is at its default.
pub fn socket_options(node: &Node, cx: &mut Cx) -> Option<SocketOptions> {
    let mut fields = Fields::of(node, cx)?;
    let default = SocketOptions::default();
    let options = SocketOptions {
        no_delay: fields.or("noDelay", default.no_delay, cx),
        reuse_addr: fields.or("reuseAddr", default.reuse_addr, cx),
        reuse_port: fields.or("reusePort", default.reuse_port, cx),
        read_timeout: fields.or("readTimeoutMs", Timeout(None), cx).0,
        write_timeout: fields.or("writeTimeoutMs", Timeout(None), cx).0,
        keep_alive: fields.optional("keepAlive", cx),
        backlog: fields.optional("backlog", cx),
    };
    fields.finish(cx);
    Some(options)
}

/// Reads a server's `tls`, of a router or of the admin server. The files are not looked at: they are read when a
/// connection comes.
pub fn server_tls(node: &Node, cx: &mut Cx) -> Option<ServerTlsConfig> {
    let mut fields = Fields::of(node, cx)?;
    let cert_path = fields.required("certPath", cx).map(path_buf);
    let key_path = fields.required("keyPath", cx).map(path_buf);
    let tls = ServerTlsConfig {
        intermediate_certs_path: fields.optional("intermediateCertsPath", cx).map(path_buf),
        ca_cert_path: fields.optional("caCertPath", cx).map(path_buf),
        require_client_auth: fields.or("requireClientAuth", false, cx),
        ciphers: fields.optional("ciphers", cx).unwrap_or_default(),
        protocols: fields.optional("protocols", cx).unwrap_or_default(),
        alpn: Vec::new(),
        cert_path: PathBuf::new(),
        key_path: PathBuf::new(),
    };
    fields.finish(cx);
    let tls = ServerTlsConfig { cert_path: cert_path?, key_path: key_path?, ..tls };
    match ServerTls::new(tls.clone()) {
        Ok(_) => Some(tls),
        Err(error) => {
            cx.error(node, error.to_string());
            None
        }
    }
}

/// Reads a client's `tls`.
pub fn client_tls(node: &Node, cx: &mut Cx) -> Option<ClientTlsSetting> {
    let mut fields = Fields::of(node, cx)?;
    let errors = cx.error_count();
    let enabled = fields.or("enabled", true, cx);
    let disable_validation = fields.or("disableValidation", false, cx);
    let common_name = fields.optional::<String>("commonName", cx);
    let old_trust = fields.node("trustCerts");
    if let Some(trust_certs) = old_trust {
        cx.at_key("trustCerts", |cx| cx.warn(trust_certs, "trustCerts is deprecated, use trustCertsBundle"));
    }
    let trust_certs = old_trust.and_then(|node| cx.at_key("trustCerts", |cx| Vec::<String>::from_node(node, cx)));
    let bundle = fields.optional::<String>("trustCertsBundle", cx);
    if old_trust.is_some() && bundle.is_some() {
        cx.error(node, "Both trustCerts and trustCertsBundle have been set. Please use only trustCertsBundle.");
    }
    let client_auth = fields.with("clientAuth", cx, |node, cx| {
        let mut fields = Fields::of(node, cx)?;
        let cert_path = fields.required("certPath", cx).map(path_buf);
        let key_path = fields.required("keyPath", cx).map(path_buf);
        let intermediate_certs_path = fields.optional("intermediateCertsPath", cx).map(path_buf);
        fields.finish(cx);
        Some(ClientAuth { cert_path: cert_path?, key_path: key_path?, intermediate_certs_path })
    });
    let asks_for_client_auth = node.get("clientAuth").is_some_and(|auth| !auth.is_null());
    if disable_validation && asks_for_client_auth {
        cx.error(node, "disableValidation: true is incompatible with clientAuth");
    }
    let protocols = fields.optional("protocols", cx).unwrap_or_default();
    fields.finish(cx);
    if enabled && !disable_validation && common_name.is_none() {
        cx.error(node, "tls is configured with validation but `commonName` is not set");
    }
    if !enabled {
        return Some(ClientTlsSetting::Plaintext);
    }
    let tls = ClientTlsConfig {
        common_name,
        disable_validation,
        trust_certs: trust_certs.unwrap_or_default().into_iter().chain(bundle).map(path_buf).collect(),
        client_auth,
        protocols,
        alpn: Vec::new(),
    };
    if cx.error_count() != errors {
        return None;
    }
    // A name with variables is checked when they are known; any other name is now.
    let name = tls.common_name.clone().map(|name| if name.contains('{') { "variable".to_owned() } else { name });
    match ClientTls::new(ClientTlsConfig { common_name: name, ..tls.clone() }) {
        Ok(_) => Some(ClientTlsSetting::Tls(tls)),
        Err(error) => {
            cx.error(node, error.to_string());
            None
        }
    }
}

fn path_buf(text: String) -> PathBuf {
    PathBuf::from(text)
}

/// `httpAccessLog` and the keys that only matter with it, which are checked in any case.
fn access_log(fields: &mut Fields<'_>, cx: &mut Cx) -> Option<AccessLogConfig> {
    let path = fields.optional("httpAccessLog", cx).map(path_buf);
    let roll_policy = fields.parsed("httpAccessLogRollPolicy", cx, roll_policy).unwrap_or_default();
    let append = fields.or("httpAccessLogAppend", true, cx);
    let rotate_count = fields.or("httpAccessLogRotateCount", -1, cx);
    Some(AccessLogConfig { path: path?, roll_policy, append, rotate_count: u32::try_from(rotate_count).ok() })
}

fn roll_policy(text: &str) -> Result<RollPolicy, String> {
    let bad = || {
        format!(
            "Invalid log roll policy: {text}; known: never, hourly, daily, weekly(1) to weekly(7), sighup, 3.megabytes"
        )
    };
    let lower = text.to_ascii_lowercase();
    if let Some(day) = lower.strip_prefix("weekly(").and_then(|day| day.strip_suffix(')')) {
        let day = day.parse::<u8>().ok().filter(|day| (1..=7).contains(day));
        return day.map(RollPolicy::Weekly).ok_or_else(bad);
    }
    match lower.as_str() {
        "never" => return Ok(RollPolicy::Never),
        "hourly" => return Ok(RollPolicy::Hourly),
        "daily" => return Ok(RollPolicy::Daily),
        "sighup" => return Ok(RollPolicy::Sighup),
        _ => {}
    }
    let (count, unit) = lower.split_once('.').ok_or_else(bad)?;
    let exponent = match unit.strip_suffix('s').unwrap_or(unit) {
        "byte" => 0,
        "kilobyte" => 1,
        "megabyte" => 2,
        "gigabyte" => 3,
        "terabyte" => 4,
        "petabyte" => 5,
        _ => return Err(bad()),
    };
    let bytes = count.parse::<u64>().ok().and_then(|count| count.checked_mul(1024_u64.pow(exponent)));
    bytes.filter(|bytes| *bytes > 0).map(RollPolicy::Size).ok_or_else(bad)
}

fn header_name(text: &str) -> Result<String, String> {
    match http::HeaderName::from_bytes(text.as_bytes()) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err(format!("\"{text}\" can't be the name of a header")),
    }
}

/// A size in KB, in bytes.
fn kilobytes(fields: &mut Fields<'_>, key: &str, min: u32, default: u32, cx: &mut Cx) -> u64 {
    let kilobytes = fields.with(key, cx, |node, cx| {
        let kilobytes = u32::from_node(node, cx)?;
        if kilobytes < min {
            cx.error(node, format!("must be at least {min}"));
            return None;
        }
        Some(kilobytes)
    });
    u64::from(kilobytes.unwrap_or(default)) * 1024
}

fn size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

fn compression(node: &Node, cx: &mut Cx) -> Option<Compression> {
    match i64::from_node(node, cx)? {
        -1 => Some(Compression::Automatic),
        0 => Some(Compression::Off),
        level @ 1..=9 => u32::try_from(level).ok().map(Compression::Level),
        other => {
            cx.error(node, format!("compressionLevel {other} is not between -1 and 9"));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use l5d_router::config::{BackoffConfig, BalancerConfig};

    fn value<T: FromNode>(yaml: &str) -> Result<T, Vec<String>> {
        let node = l5d_config::read(yaml).map_err(|e| vec![e.to_string()])?;
        let mut cx = Cx::new();
        let value = T::from_node(&node, &mut cx);
        let errors: Vec<String> = cx.finish().iter().map(ToString::to_string).collect();
        if errors.is_empty() { value.ok_or_else(Vec::new) } else { Err(errors) }
    }

    fn router(yaml: &str) -> Result<HttpRouterConfig, Vec<String>> {
        value(&format!("protocol: http\n{yaml}"))
    }

    fn error(yaml: &str) -> String {
        router(yaml).expect_err(yaml).join("\n")
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn an_empty_router_has_linkerds_defaults() {
        let router = router("servers: [{}]\n").unwrap();
        assert_eq!(router.label, "http");
        assert_eq!(router.dst_prefix.to_string(), "/svc");
        assert!(router.dtab.is_empty() && router.identifiers.is_empty() && router.access_log.is_none());
        assert_eq!(router.binding_timeout, ms(10_000));
        assert_eq!((router.streaming_enabled, router.stream_after_content_length), (true, 5 * 1024));
        assert_eq!((router.max_headers, router.max_initial_line, router.max_err_response), (8192, 4096, 5_242_880));
        assert_eq!(router.compression, Compression::Automatic);
        let server = &router.servers[0];
        assert_eq!(server.addr.to_string(), "127.0.0.1:4140");
        assert_eq!((server.max_call_depth, server.clear_context, server.timeout), (1000, false, None));
        assert_eq!(server.socket_options, SocketOptions::default());
        assert_eq!(router.service, PerName::Global(ServiceConfig::default()));
        assert_eq!(router.client, PerName::Global(ClientConfig::default()));
    }

    #[test]
    fn every_key_of_a_router_and_its_servers_is_read() {
        let router = router(
            "
label: out
dtab: /svc => /$/inet/127.1/1
dstPrefix: /s
experimental: false
interpreter: {kind: default}
bindingTimeoutMs: 5
bindingCache: {paths: 1, trees: 2, bounds: 3, clients: 4, idleTtlSecs: 5}
originator: true
httpAccessLog: /tmp/log
httpAccessLogRollPolicy: weekly(1)
httpAccessLogAppend: false
httpAccessLogRotateCount: 3
identifier: {kind: io.l5d.path}
streamingEnabled: true
streamAfterContentLengthKB: 0
maxHeadersKB: 1
maxInitialLineKB: 2
maxErrResponseKB: 3
compressionLevel: 9
tracePropagator: {kind: io.l5d.zipkin}
servers:
- port: \"1\"
  ip: 0.0.0.0
  label: x
  tls: {certPath: a, keyPath: b, intermediateCertsPath: c, caCertPath: d, requireClientAuth: true, protocols: [TLSv1.2]}
  maxConcurrentRequests: 0
  timeoutMs: 7
  serverSession: {idleTimeMs: 8, lifeTimeMs: 9}
  clearContext: true
  socketOptions: {noDelay: false, reuseAddr: false, reusePort: true, readTimeoutMs: 1, writeTimeoutMs: 2, keepAlive: true, backlog: 3}
  addForwardedHeader: {by: {kind: 'ip:port'}, for: {kind: static, label: me}}
  timestampHeader: x-request-start
  maxCallDepth: 2
- addForwardedHeader: {}
",
        )
        .unwrap();
        assert_eq!((router.label.as_str(), router.originator), ("out", true));
        assert_eq!(router.dtab.to_string(), "/svc=>/$/inet/127.1/1");
        let log = router.access_log.unwrap();
        assert_eq!((log.roll_policy, log.append, log.rotate_count), (RollPolicy::Weekly(1), false, Some(3)));
        assert_eq!((router.identifiers.len(), router.compression), (1, Compression::Level(9)));
        assert_eq!((router.max_headers, router.max_initial_line, router.max_err_response), (1024, 2048, 3072));
        let server = &router.servers[0];
        assert_eq!((server.addr.to_string().as_str(), server.timeout), ("0.0.0.0:1", Some(ms(7))));
        assert_eq!(server.session, SessionConfig { idle_time: Some(ms(8)), life_time: Some(ms(9)) });
        assert_eq!(server.max_concurrent_requests, Some(0));
        assert!(server.tls.as_ref().unwrap().require_client_auth);
        assert_eq!(
            server.socket_options,
            SocketOptions {
                no_delay: false,
                reuse_addr: false,
                reuse_port: true,
                read_timeout: Some(ms(1)),
                write_timeout: Some(ms(2)),
                keep_alive: Some(true),
                backlog: Some(3),
            }
        );
        let forwarded = server.add_forwarded_header.as_ref().unwrap();
        assert_eq!((&forwarded.by, &forwarded.for_), (&LabelerConfig::IpPort, &LabelerConfig::Static("me".to_owned())));
        let forwarded = router.servers[1].add_forwarded_header.as_ref().unwrap();
        assert_eq!(forwarded.by, LabelerConfig::RequestRandom);
    }

    #[test]
    fn a_client_has_every_key_of_the_reference() {
        let router = router(
            "
client:
  loadBalancer: {kind: ewma}
  failureAccrual: {kind: none}
  requestAttemptTimeoutMs: 0
  requeueBudget: {ttlSecs: 5}
  hostConnectionPool: {maxSize: 4}
  clientSession: {idleTimeMs: 1}
  failFast: true
  tls: {commonName: linkerd.io, trustCertsBundle: /ca.pem, clientAuth: {certPath: a, keyPath: b}}
  socketOptions: {}
  forwardClientCert: true
",
        )
        .unwrap();
        let PerName::Global(client) = router.client else { panic!("global") };
        assert!(matches!(client.load_balancer.unwrap().balancer, BalancerConfig::Ewma { .. }));
        assert_eq!(client.request_attempt_timeout, Some(Timeout(None)));
        assert_eq!(client.requeue_budget.unwrap().ttl, ms(5000));
        let Some(ClientTlsSetting::Tls(tls)) = client.tls else { panic!("tls") };
        assert_eq!(tls.trust_certs, [PathBuf::from("/ca.pem")]);
        assert!(tls.client_auth.is_some());
        assert_eq!((client.fail_fast, client.forward_client_cert), (Some(true), Some(true)));
    }

    #[test]
    fn keys_that_are_looked_at_twice_keep_their_value() {
        let router =
            router("streamAfterContentLengthKB: 7\nclient:\n  tls: {commonName: a, trustCerts: [/x, /y]}\n").unwrap();
        assert_eq!(router.stream_after_content_length, 7 * 1024);
        let PerName::Global(client) = router.client else { panic!("global") };
        let Some(ClientTlsSetting::Tls(tls)) = client.tls else { panic!("tls") };
        assert_eq!(tls.trust_certs, [PathBuf::from("/x"), PathBuf::from("/y")]);
    }

    #[test]
    fn later_entries_replace_settings_one_by_one() {
        let router = router(
            "
service:
  kind: io.l5d.static
  configs:
  - prefix: /
    totalTimeoutMs: 100
    retries: {budget: {ttlSecs: 5}, backoff: {kind: constant, ms: 1}}
  - prefix: /svc/foo
    totalTimeoutMs: 200
    retries: {backoff: {kind: constant, ms: 2}}
",
        )
        .unwrap();
        let PerName::Static(configs) = router.service else { panic!("static") };
        assert_eq!(configs[1].prefix, "/svc/foo");
        let mut settings = configs[0].settings.clone();
        settings.overlay(&configs[1].settings);
        assert_eq!(settings.total_timeout, Some(Timeout(Some(ms(200)))));
        assert_eq!(settings.retries.budget.unwrap().ttl, ms(5000));
        assert_eq!(settings.retries.backoff, Some(BackoffConfig::Constant(ms(2))));
    }

    #[test]
    fn a_later_entry_can_undo_tls() {
        let router = router(
            "
client:
  kind: io.l5d.static
  configs:
  - prefix: '/#/io.l5d.fs/{service}'
    tls: {commonName: '{service}.com'}
  - prefix: /#/io.l5d.fs/plain
    tls: {enabled: false}
",
        )
        .unwrap();
        let PerName::Static(configs) = router.client else { panic!("static") };
        let mut settings = configs[0].settings.clone();
        assert!(
            matches!(&settings.tls, Some(ClientTlsSetting::Tls(tls)) if tls.common_name.as_deref() == Some("{service}.com"))
        );
        settings.overlay(&configs[1].settings);
        assert_eq!(settings.tls, Some(ClientTlsSetting::Plaintext));
    }

    #[test]
    fn the_kind_of_service_and_client_is_global_or_static() {
        assert!(router("service: {kind: io.l5d.global, totalTimeoutMs: 5}\n").is_ok());
        let error = error("client: {kind: io.l5d.statik}\n");
        assert_eq!(error, "2:16: client.kind: unknown kind \"io.l5d.statik\"; known: io.l5d.global, io.l5d.static");
        assert!(self::error("client: {kind: io.l5d.static}\n").contains("'configs' must be specified"));
        assert!(
            self::error("client: {kind: io.l5d.static, configs: [{failFast: true}]}\n").contains("'prefix' must be")
        );
        assert!(self::error("client: {configs: []}\n").contains("unknown key `configs`"));
    }

    #[test]
    fn client_tls_is_checked_when_it_is_loaded() {
        let tls = |tls: &str| error(&format!("client: {{tls: {tls}}}\n"));
        let both = tls("{disableValidation: true, clientAuth: {certPath: a, keyPath: b}}");
        assert_eq!(both, "2:15: client.tls: disableValidation: true is incompatible with clientAuth");
        assert!(tls("{}").contains("tls is configured with validation but `commonName` is not set"));
        assert!(
            tls("{commonName: a, trustCerts: [b], trustCertsBundle: c}")
                .contains("Both trustCerts and trustCertsBundle")
        );
        assert!(tls("{commonName: a, clientAuth: {certPath: a}}").contains("'keyPath' must be specified"));
        assert!(tls("{commonName: 'not a name'}").contains("not a name"));
        assert!(tls("{commonName: a, protocols: [SSLv2]}").contains("SSLv2"));
        assert!(router("client: {tls: {disableValidation: true}}\n").is_ok());
    }

    #[test]
    fn server_tls_is_checked_when_it_is_loaded() {
        assert!(error("servers: [{tls: {certPath: a}}]\n").contains("'keyPath' must be specified"));
        assert!(
            error("servers: [{tls: {certPath: a, keyPath: b, enabled: true}}]\n").contains("unknown key `enabled`")
        );
        assert!(error("servers: [{tls: {certPath: a, keyPath: b, protocols: [SSLv2]}}]\n").contains("SSLv2"));
    }

    #[test]
    fn streaming_options_do_not_contradict() {
        let error = error("label: x\nstreamingEnabled: false\nstreamAfterContentLengthKB: 5\n");
        assert!(error.ends_with("Can't disable streaming and set streamAfterContentLengthKB in x"), "{error}");
        assert!(router("streamingEnabled: false\n").is_ok());
    }

    #[test]
    fn roll_policies_are_twitters() {
        assert_eq!(roll_policy("Never"), Ok(RollPolicy::Never));
        assert_eq!(roll_policy("weekly(7)"), Ok(RollPolicy::Weekly(7)));
        assert_eq!(roll_policy("3.megabytes"), Ok(RollPolicy::Size(3 << 20)));
        assert_eq!(roll_policy("1.byte"), Ok(RollPolicy::Size(1)));
        for bad in ["yearly", "weekly(8)", "weekly()", "3.parsecs", "megabytes", "99999999999.petabytes", ""] {
            assert!(roll_policy(bad).is_err(), "{bad}");
        }
        assert!(error("httpAccessLogRollPolicy: yearly\n").contains("Invalid log roll policy: yearly"));
    }

    #[test]
    fn mistakes_of_a_server_are_told_with_their_place() {
        assert_eq!(error("servers:\n- port: 65536\n"), "3:9: servers[0].port: 65536 outside valid range for ports");
        assert!(error("servers: [{prot: 4140}]\n").contains("unknown key `prot`; known: addForwardedHeader, announce"));
        assert!(error("servers: [{ip: localhost}]\n").contains("'localhost' is not an IP string literal."));
        assert!(error("servers: [{maxConcurrentRequests: -1}]\n").contains("-1 does not fit"));
        assert!(error("servers: [{timestampHeader: {}}]\n").contains("expected a string, got a mapping"));
        assert!(error("servers: [{timestampHeader: 'a b'}]\n").contains("can't be the name of a header"));
        assert!(error("servers: [{addForwardedHeader: {by: {kind: host}}}]\n").contains("unknown labeler \"host\""));
        assert!(error("servers: {port: 1}\n").contains("servers: expected a list, got a mapping"));
    }

    #[test]
    fn mistakes_of_a_router_are_told_all_at_once() {
        let errors =
            router("dtab: bogus\ndstPrefix: svc\nidentifier: []\ncompressionLevel: 10\nfancy: 1\n").unwrap_err();
        assert_eq!(errors.len(), 5, "{errors:?}");
        assert_eq!(errors[0], "2:7: dtab: '/' expected but 'b' found at '[b]ogus'");
        assert_eq!(errors[2], "4:13: identifier: empty identifier list");
    }

    #[test]
    fn what_later_releases_took_away_is_a_warning() {
        let node =
            l5d_config::read("protocol: http\nmaxRequestKB: 5\nservers: [{announce: [/#/io.l5d.serversets/x]}]\n")
                .unwrap();
        let mut cx = Cx::new();
        assert!(HttpRouterConfig::from_node(&node, &mut cx).is_some());
        let warnings: Vec<String> = cx.take_warnings().iter().map(ToString::to_string).collect();
        assert!(warnings[0].contains("maxRequestKB: has no effect since Linkerd 1.7.0"), "{warnings:?}");
        assert!(warnings[1].contains("no announcer found for /#/io.l5d.serversets/x"), "{warnings:?}");
    }

    #[test]
    fn every_labeler_example_reads() {
        for kind in LABELERS {
            assert!(value::<LabelerConfig>(kind.example).is_ok(), "{kind:?}");
        }
    }

    #[test]
    fn announcers_are_refused_by_name() {
        let announcers = error("announcers: [{kind: io.l5d.serversets}]\n");
        assert_eq!(announcers, "2:1: announcers: not supported by l5d yet");
        let authorizers = error("client: {requestAuthorizers: [{kind: io.l5d.k8s.istio}]}\n");
        assert!(authorizers.contains("client.requestAuthorizers: not supported by l5d yet"), "{authorizers}");
        assert!(router("announcers: []\nclient: {requestAuthorizers: []}\n").is_ok(), "nothing is asked for");
    }
}
