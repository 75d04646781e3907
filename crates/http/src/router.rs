//! An `http` router: identifies requests, finds or builds the stack of each name, and hands requests to it. Its servers
//! are built with it; whoever owns the threads serves them.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use l5d_naming::{Bound as BoundName, Dtab, Interpreter, NameTree, Path};
use l5d_net::{ServerTls, TcpSampler};
use l5d_router::{
    cache::{Cache, CacheStats},
    clock,
    linked_cache::{Found, Link, LinkedCache},
    worker,
};
use l5d_telemetry::{GaugeGuard, MetricsTree, Scope, trace::Tracing};
use tokio::time::Instant;

use crate::{
    binding::{Binding, Current},
    body::Body,
    classifiers::Classifier,
    codec::{RequestHead, Response, parse::HeadLimits},
    config::{Compression as CompressionConfig, HttpRouterConfig, LabelerConfig, RollPolicy, ServerConfig},
    ctx::Ctx,
    filters::{
        access_log::{AccessLog, AccessLogSettings, Roll},
        compression::Compression,
        diagnostic_trace::DiagnosticTrace,
        forwarded::{Forwarded, Label},
    },
    identifiers::{FirstOf, Identification, Identifier},
    propagators::{self, Propagator},
    respond::ErrorLimits,
    scopes::Scopes,
    server::{ConnectionRules, HttpServer},
    settings::{ClientRules, ServiceRules},
    spans,
    stack::{
        bound::{Bound, Leaf, LeafLink, Made, SharedClient},
        client::{Client, ClientParams, MessageLimits},
        path::{PathStack, Service},
        server::{ServerRules, ServerStack},
    },
    view::ClientView,
};

/// Longer request targets than any limit are refused by the codec itself.
const MAX_ERR_HEADER: usize = 64 * 1024;

/// What the process gives a router.
#[derive(Clone)]
pub struct RouterContext {
    /// Where to count.
    pub tree: MetricsTree,
    /// How many worker threads there are.
    pub workers: usize,
    /// Where namers and caches do their work.
    pub runtime: tokio::runtime::Handle,
    /// Who wants to know what happens to requests.
    pub tracing: Arc<Tracing>,
}

/// The plug-ins that a router's sections ask for.
pub struct RouterPlugins {
    /// `interpreter`.
    pub interpreter: Arc<dyn Interpreter>,
    /// `identifier`, in the order of trying; empty for the default.
    pub identifiers: Vec<Box<dyn Identifier>>,
    /// The `responseClassifier` of each entry of `service`; `None` where an entry names none.
    pub classifiers: Vec<Option<Arc<dyn Classifier>>>,
    /// `tracePropagator`; `None` for the default.
    pub propagator: Option<Arc<dyn Propagator>>,
}

/// Why a router could not be built: what it needs and could not be had.
#[derive(Debug)]
pub struct RouterError(pub String);

impl std::fmt::Display for RouterError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for RouterError {}

/// A router.
pub struct HttpRouter {
    label: Arc<str>,
    dst_prefix: Path,
    identifier: FirstOf,
    propagator: Arc<dyn Propagator>,
    base_dtab: Arc<Dtab>,
    /// As traces tell it.
    shown_dtab: Arc<str>,
    tracing: Arc<Tracing>,
    binding_timeout: Duration,
    error_limits: ErrorLimits,
    access_log: Option<Arc<AccessLog>>,
    services: Arc<Scopes<Service>>,
    service_rules: ServiceRules,
    paths: Cache<PathKey, PathStack>,
    lower: Arc<Lower>,
    interpreter: Arc<dyn Interpreter>,
    runtime: tokio::runtime::Handle,
    idle_ttl: Duration,
    _originator: Option<GaugeGuard>,
}

/// A logical name with a request's dtab as it is shown, empty for nearly all.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct PathKey {
    path: Path,
    local_dtab: String,
}

/// The three lower caches, and what it takes to fill them.
struct Lower {
    /// By binding and tree: two bindings are never the same to Finagle, and each is counted. What a tree comes to is
    /// its binding's own.
    trees: LinkedCache<(u64, String), ()>,
    /// By binding, id and residual: the header that tells the residual.
    bounds: LinkedCache<(u64, Path, Path), Option<Arc<str>>>,
    clients: LinkedCache<Path, SharedClient>,
    next_binding: AtomicU64,
    client_scopes: Arc<Scopes<Arc<Client>>>,
    client_rules: ClientRules,
    limits: MessageLimits,
    access_log: Option<Arc<AccessLog>>,
    propagator: Arc<dyn Propagator>,
    diagnostics: Arc<DiagnosticTrace>,
    runtime: tokio::runtime::Handle,
    workers: usize,
    /// Of the connections of all servers and clients.
    sampler: Arc<TcpSampler>,
}

impl HttpRouter {
    /// Builds a router and its servers. Opens its access log; listens on nothing yet.
    ///
    /// # Errors
    /// When its access log or the certificates of a server cannot be had.
    pub fn build(
        config: &HttpRouterConfig,
        plugins: RouterPlugins,
        context: &RouterContext,
    ) -> Result<(Arc<Self>, Vec<Arc<HttpServer>>), RouterError> {
        let RouterPlugins { interpreter, identifiers, classifiers, propagator } = plugins;
        let propagator = propagator.unwrap_or_else(propagators::default);
        let identifiers =
            if identifiers.is_empty() { vec![crate::identifiers::default().build()] } else { identifiers };
        let scope = context.tree.scope("rt").scope(&config.label);
        let access_log = match &config.access_log {
            None => None,
            Some(log) => {
                let settings = AccessLogSettings {
                    path: log.path.clone(),
                    roll: match log.roll_policy {
                        RollPolicy::Never => Roll::Never,
                        RollPolicy::Hourly => Roll::Hourly,
                        RollPolicy::Daily => Roll::Daily,
                        RollPolicy::Weekly(day) => Roll::Weekly(day),
                        RollPolicy::Sighup => Roll::OnSignal,
                        RollPolicy::Size(bytes) => Roll::Size(bytes),
                    },
                    append: log.append,
                    rotate_count: log.rotate_count.map(|n| n as usize),
                };
                Some(
                    AccessLog::open(settings, &scope)
                        .map_err(|e| RouterError(format!("httpAccessLog: cannot open {}: {e}", log.path.display())))?,
                )
            }
        };
        let limits = MessageLimits {
            header_bytes: config.max_headers,
            initial_line_bytes: config.max_initial_line,
            streaming: config.streaming_enabled,
            buffer_bytes: config.stream_after_content_length,
        };
        let caches = &config.binding_cache;
        let bindcache = scope.scope("bindcache");
        let stats = |name: &str| CacheStats::new(&bindcache.scope(name));
        let (ttl, workers) = (caches.idle_ttl, context.workers);
        let paths = Cache::new(caches.paths.get(), ttl, workers, stats("path"));
        let label: Arc<str> = config.label.as_str().into();
        let base_dtab = Arc::new(config.dtab.clone());
        let lower = Arc::new(Lower {
            trees: LinkedCache::new(caches.trees.get(), ttl, stats("tree")),
            bounds: LinkedCache::new(caches.bounds.get(), ttl, stats("bound")),
            clients: LinkedCache::new(caches.clients.get(), ttl, stats("client")),
            next_binding: AtomicU64::new(0),
            client_scopes: Scopes::new(scope.scope("client")),
            client_rules: ClientRules::new(&config.client),
            limits,
            access_log: access_log.clone(),
            propagator: Arc::clone(&propagator),
            diagnostics: Arc::new(DiagnosticTrace {
                router: Arc::clone(&label),
                interpreter: Arc::clone(&interpreter),
                base_dtab: Arc::clone(&base_dtab),
            }),
            runtime: context.runtime.clone(),
            workers,
            sampler: Arc::new(TcpSampler::start(&context.runtime)),
        });
        let router = Arc::new(Self {
            label,
            dst_prefix: config.dst_prefix.clone(),
            identifier: FirstOf::new(identifiers),
            propagator,
            shown_dtab: (&*spans::show(&config.dtab)).into(),
            tracing: Arc::clone(&context.tracing),
            base_dtab,
            binding_timeout: config.binding_timeout,
            error_limits: ErrorLimits {
                header_bytes: config.max_headers.min(MAX_ERR_HEADER),
                body_chars: config.max_err_response,
            },
            access_log,
            services: Scopes::new(scope.scope("service")),
            service_rules: ServiceRules::new(&config.service, classifiers),
            paths,
            lower,
            interpreter,
            runtime: context.runtime.clone(),
            idle_ttl: ttl,
            _originator: config.originator.then(|| scope.gauge("originator", || 1.0)),
        });
        let servers = config
            .servers
            .iter()
            .map(|server| router.server(server, config, &scope.scope("server"), context.workers))
            .collect::<Result<_, _>>()?;
        router.runtime.spawn(sweep_caches(Arc::downgrade(&router)));
        router.runtime.spawn(sweep_balancers(Arc::downgrade(&router)));
        Ok((router, servers))
    }

    fn server(
        self: &Arc<Self>,
        config: &ServerConfig,
        router: &HttpRouterConfig,
        scope: &Scope,
        workers: usize,
    ) -> Result<Arc<HttpServer>, RouterError> {
        let label: Arc<str> = format!("{}/{}", config.addr.ip(), config.addr.port()).into();
        let scope = scope.scope(&label);
        let tls = match &config.tls {
            None => None,
            Some(tls) => Some(Arc::new(
                ServerTls::new(tls.clone())
                    .map_err(|e| RouterError(format!("router {}: server {label}: tls: {e}", self.label)))?,
            )),
        };
        let rules = ServerRules {
            max_concurrent_requests: config.max_concurrent_requests.map(|n| n as usize),
            timeout: config.timeout,
            clear_context: config.clear_context,
            forwarded: config
                .add_forwarded_header
                .as_ref()
                .map(|f| Forwarded { by: label_of(&f.by), r#for: label_of(&f.for_) }),
            timestamp_header: config.timestamp_header.as_ref().and_then(|n| n.parse().ok()),
            max_call_depth: config.max_call_depth as usize,
            compression: Compression::new(match router.compression {
                CompressionConfig::Automatic => -1,
                CompressionConfig::Off => 0,
                CompressionConfig::Level(n) => i32::try_from(n).unwrap_or(9),
            }),
            error_limits: self.error_limits,
        };
        let connections = ConnectionRules {
            socket_options: config.socket_options.clone(),
            idle_time: config.session.idle_time,
            life_time: config.session.life_time,
            heads: HeadLimits::new(router.max_initial_line, router.max_headers),
        };
        let stack = ServerStack::new(label, scope, Arc::clone(self), rules, workers);
        Ok(HttpServer::new(config.addr, tls, connections, stack))
    }

    /// Its label.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Its table, without what an interpreter or a request adds.
    pub fn base_dtab(&self) -> &Dtab {
        &self.base_dtab
    }

    /// Its interpreter, for `/delegator.json`.
    pub fn interpreter(&self) -> &Arc<dyn Interpreter> {
        &self.interpreter
    }

    /// Its access log, if it has one.
    pub fn access_log(&self) -> Option<&Arc<AccessLog>> {
        self.access_log.as_ref()
    }

    /// The clients there are at the moment, the oldest first: id, state and addresses, for `/client_state.json`.
    pub fn client_states(&self) -> Vec<(String, String, Vec<Arc<str>>)> {
        let mut states: Vec<_> = self
            .lower
            .client_scopes
            .all()
            .iter()
            .map(|client| {
                let (state, addresses) = client.show_state();
                (client.born(), client.id().show(), state, addresses)
            })
            .collect();
        states.sort_by_key(|(born, ..)| *born);
        states.into_iter().map(|(_, id, state, addresses)| (id, state, addresses)).collect()
    }

    /// The clients there are at the moment with their endpoints, the oldest first; only the one with this id, if given.
    pub fn clients(&self, only: Option<&str>) -> Vec<ClientView> {
        let now = Instant::now();
        let mut clients = self.lower.client_scopes.all();
        clients.retain(|client| only.is_none_or(|id| client.id().show() == id));
        clients.sort_by_key(|client| client.born());
        clients.iter().map(|client| client.view(now)).collect()
    }

    /// What a request is called, for the identifier port: the name with its prefix, or why it has none.
    ///
    /// # Errors
    /// With the reason of the last identifier.
    pub fn identify(&self, head: &mut RequestHead) -> Result<Path, String> {
        match self.identifier.identify(head) {
            Identification::Identified(path) => Ok(self.dst_prefix.concat(&path)),
            Identification::Unidentified(reason) => Err(reason),
        }
    }

    /// Closes every stack: pools, watches and their metrics. To be called when the servers have drained.
    pub fn close(&self) {
        self.paths.clear();
        self.lower.trees.clear();
        self.lower.bounds.clear();
        self.lower.clients.clear();
    }

    pub(crate) fn propagator(&self) -> &dyn Propagator {
        &*self.propagator
    }

    pub(crate) fn shared_label(&self) -> &Arc<str> {
        &self.label
    }

    pub(crate) fn tracing(&self) -> &Tracing {
        &self.tracing
    }

    pub(crate) fn shown_dtab(&self) -> &Arc<str> {
        &self.shown_dtab
    }

    pub(crate) fn sampler(&self) -> &Arc<TcpSampler> {
        &self.lower.sampler
    }

    pub(crate) fn message_limits(&self) -> MessageLimits {
        self.lower.limits
    }

    /// Sends a request to the name.
    pub(crate) async fn call(
        &self,
        name: Path,
        ctx: Ctx,
        head: &mut RequestHead,
        body: Body,
        peer: SocketAddr,
    ) -> Response {
        let local_dtab = if ctx.local_dtab.is_empty() { String::new() } else { ctx.local_dtab.to_string() };
        let key = PathKey { path: name, local_dtab };
        let build = |key: &PathKey| self.path_stack(&key.path, &ctx.local_dtab);
        let stack = self.paths.acquire(worker::index(), &key, clock::now(), build);
        let mut picked = None;
        let mut response = stack.call(ctx, head, body, peer, &mut picked).await;
        if response.body.is_stream() {
            response.body.keep((stack, picked));
        }
        response
    }

    fn path_stack(&self, name: &Path, local_dtab: &Dtab) -> PathStack {
        let service = self.services.get(name, |scope| Service::new(scope, self.service_rules.settings(name)));
        let activity = self.interpreter.bind(&self.base_dtab.concat(local_dtab), name);
        let lower = Arc::clone(&self.lower);
        let binding_id = lower.next_binding.fetch_add(1, Relaxed);
        PathStack::new(
            name.clone(),
            local_dtab.clone(),
            Arc::clone(&self.base_dtab),
            service,
            Binding::follow(activity, &self.runtime),
            Box::new(move |tree, name, home| lower.leaf(binding_id, tree, name, home)),
            self.error_limits,
            self.binding_timeout,
        )
    }
}

impl std::fmt::Debug for HttpRouter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("HttpRouter").field(&self.label).finish()
    }
}

impl Lower {
    /// The way from a binding over its tree to one of the tree's names, or to nowhere, for the choice at `home`.
    fn leaf(&self, binding: u64, tree: &NameTree<BoundName>, name: Option<&BoundName>, home: Weak<Current>) -> Made {
        let now = clock::now();
        let way = LeafLink::new(now, home);
        let link: Arc<dyn Link> = Arc::<LeafLink>::clone(&way);
        let mut shown = String::new();
        show(tree, &mut shown);
        let mut kept = self.trees.acquire(&(binding, shown), &link, now, || ()).kept;
        let bound = name.map(|name| {
            let key = (binding, name.id.clone(), name.residual.clone());
            let bound = self.bounds.acquire(&key, &link, now, || residual(&name.residual));
            let client: Found<SharedClient> = self.clients.acquire(&name.id, &link, now, || self.client(name));
            client.value.rebind(&name.addr);
            kept &= bound.kept && client.kept;
            Bound { client: client.value, residual: bound.value }
        });
        Made { leaf: Leaf::new(bound, way), kept }
    }

    fn client(&self, name: &BoundName) -> SharedClient {
        self.client_scopes.get(&name.id, |scope| {
            let params = ClientParams {
                settings: Arc::new(self.client_rules.settings(&name.id)),
                limits: self.limits,
                access_log: self.access_log.clone(),
                propagator: Arc::clone(&self.propagator),
                diagnostics: Arc::clone(&self.diagnostics),
                workers: self.workers,
                sampler: Arc::clone(&self.sampler),
            };
            Client::new(name.id.clone(), scope.clone(), &name.addr, name.synthetic, params, &self.runtime)
        })
    }
}

/// What of a name is not bound, as a header; there is none if all is.
fn residual(path: &Path) -> Option<Arc<str>> {
    (!path.is_empty()).then(|| path.show().into())
}

/// A tree as the key of the tree cache.
fn show(tree: &NameTree<BoundName>, into: &mut String) {
    use std::fmt::Write;
    match tree {
        NameTree::Leaf(name) => {
            let _ = write!(into, "{} {}", name.id, name.residual);
        }
        NameTree::Alt(trees) => {
            for t in trees {
                into.push('(');
                show(t, into);
                into.push_str(")|");
            }
        }
        NameTree::Union(trees) => {
            for (weight, t) in trees {
                let _ = write!(into, "{weight}*(");
                show(t, into);
                into.push_str(")&");
            }
        }
        NameTree::Neg => into.push('~'),
        NameTree::Fail => into.push('!'),
        NameTree::Empty => into.push('$'),
    }
}

/// Lets the balancers of all clients look after endpoints that nobody asks for.
async fn sweep_balancers(router: Weak<HttpRouter>) {
    loop {
        tokio::time::sleep(Client::SWEEP_INTERVAL).await;
        let Some(router) = router.upgrade() else { return };
        let now = Instant::now();
        router.lower.client_scopes.all().iter().for_each(|client| client.sweep(now));
    }
}

/// Once per idle time, lets go of what nobody uses.
async fn sweep_caches(router: Weak<HttpRouter>) {
    loop {
        let Some(ttl) = router.upgrade().map(|r| r.idle_ttl) else { return };
        tokio::time::sleep(ttl).await;
        let Some(r) = router.upgrade() else { return };
        let now = Instant::now();
        r.paths.sweep(now);
        r.lower.trees.sweep(now);
        r.lower.bounds.sweep(now);
        r.lower.clients.sweep(now);
    }
}

fn label_of(config: &LabelerConfig) -> Label {
    match config {
        LabelerConfig::Ip => Label::Ip,
        LabelerConfig::IpPort => Label::IpPort,
        LabelerConfig::RequestRandom => Label::RequestRandom,
        LabelerConfig::ConnectionRandom => Label::ConnectionRandom,
        LabelerConfig::Router => Label::Router,
        LabelerConfig::Static(word) => Label::Static(word.as_str().into()),
    }
}
