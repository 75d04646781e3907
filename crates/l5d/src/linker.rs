//! The one place that knows every family of plug-ins: from a configuration without mistakes to a running process.
//!
//! [`Linker::build`] makes everything and opens nothing but access logs and name files, in Linkerd's order: tree,
//! telemeters, namers, interpreters, routers, admin. [`Linker::run`] starts what was built: admin first, so that the
//! metrics can be read whatever happens next, then telemeters, then the routers' servers; and ends it in the reverse
//! order, with the metrics readable until the last request is answered.

use std::{
    fmt,
    io::Write as _,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant as StdInstant, SystemTime},
};

use l5d_admin::{AdminConfig, AdminServer, Dashboard, Handler, Security, SecurityConfig, ServerInfo};
use l5d_config::{ConfigError, Pos};
use l5d_http::{
    CLASSIFIERS, Classifier, ClassifierConfig, HttpRouter, HttpServer, IDENTIFIERS, IdentifierConfig, PROPAGATORS,
    PropagatorConfig, RouterContext, RouterPlugins,
};
use l5d_namers::{INTERPRETERS, InterpreterConfig, NAMERS, NamerConfig, NamerContext};
use l5d_naming::{Interpreter, Namer};
use l5d_net::{Drain, DrainTrigger, drain};
use l5d_telemeters::{MAX_SERIES, MAX_SERIES_PER_SCOPE, TELEMETERS, Telemeter, TelemeterConfig, TelemeterContext};
use l5d_telemetry::{Census, GaugeGuard, MetricsTree, Snapshotter, history::History, trace::Tracing};
use tokio::{sync::mpsc, task::JoinSet, time::Instant};

use crate::{
    config_json::config_json,
    linker_config::{self, LinkerConfig, Plugin, Plugins, RouterConfig, Tables},
    log::Log,
    pages, process,
    runtime::{Listening, Workers},
};

/// The plug-ins of this program.
pub(crate) struct L5d;

impl Plugins for L5d {
    type Telemeter = dyn TelemeterConfig;
    type Namer = dyn NamerConfig;
    type Interpreter = dyn InterpreterConfig;
    type Identifier = dyn IdentifierConfig;
    type Classifier = dyn ClassifierConfig;
    type Propagator = dyn PropagatorConfig;
}

/// The tables of this program.
pub(crate) const TABLES: Tables<L5d> = Tables {
    telemeters: TELEMETERS,
    namers: NAMERS,
    interpreters: INTERPRETERS,
    identifiers: IDENTIFIERS,
    classifiers: CLASSIFIERS,
    propagators: PROPAGATORS,
};

/// Reads a configuration; see [`linker_config::load`].
pub(crate) fn load(text: &str) -> Result<LinkerConfig<L5d>, Vec<ConfigError>> {
    linker_config::load(text, &TABLES)
}

/// Why the process could not start, in words for the person who started it.
#[derive(Debug)]
pub(crate) struct StartError(pub(crate) String);

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn failed(e: impl fmt::Display) -> StartError {
    StartError(e.to_string())
}

/// All mistakes of a configuration, a line each.
pub(crate) fn mistakes(errors: &[ConfigError], file: &str) -> StartError {
    StartError(errors.iter().map(|e| e.in_file(file).to_string()).collect::<Vec<_>>().join("\n"))
}

/// The plug-ins that can fail to be made although their sections are right: a folder that is not there, a host without
/// address.
struct Plugged {
    telemeters: Vec<Arc<dyn Telemeter>>,
    namers: Vec<Arc<dyn Namer>>,
    /// One for each router.
    interpreters: Vec<Arc<dyn Interpreter>>,
}

/// Makes them, and reports every one that fails, with its place.
fn plug(
    telemeters: Vec<Plugin<dyn TelemeterConfig>>,
    namers: Vec<Plugin<dyn NamerConfig>>,
    routers: &mut [RouterConfig<L5d>],
    tree: &MetricsTree,
) -> Result<Plugged, Vec<ConfigError>> {
    let mut errors = Vec::new();
    let mut note = |at: Pos, path: String, what: String| errors.push(ConfigError { at, path, what });
    let context = TelemeterContext { tree: tree.clone() };
    let mut plugged = Plugged { telemeters: Vec::new(), namers: Vec::new(), interpreters: Vec::new() };
    for (i, telemeter) in telemeters.into_iter().enumerate() {
        match telemeter.config.build(&context) {
            Ok(built) => plugged.telemeters.push(built),
            Err(e) => note(telemeter.at, format!("telemetry[{i}]"), format!("{}: {e}", telemeter.kind)),
        }
    }
    let context = NamerContext { runtime: tokio::runtime::Handle::current() };
    let scope = tree.scope("namer");
    for (i, namer) in namers.into_iter().enumerate() {
        scope.scope(namer.config.prefix().show().trim_start_matches('/'));
        match namer.config.build(&context) {
            Ok(built) => plugged.namers.push(built),
            Err(e) => note(namer.at, format!("namers[{i}]"), e.to_string()),
        }
    }
    for (i, router) in routers.iter_mut().enumerate() {
        match router.interpreter.take() {
            None => plugged.interpreters.push(l5d_namers::default_interpreter(&plugged.namers, &context)),
            Some(interpreter) => match interpreter.config.build(&plugged.namers, &context) {
                Ok(built) => plugged.interpreters.push(built),
                Err(e) => note(interpreter.at, format!("routers[{i}].interpreter"), e.to_string()),
            },
        }
    }
    if errors.is_empty() { Ok(plugged) } else { Err(errors) }
}

/// The rest of `-validate`: what [`load`] cannot see because it opens nothing. Must be called within a runtime.
pub(crate) fn check(mut config: LinkerConfig<L5d>, file: &str) -> Result<(), StartError> {
    plug(config.telemeters, config.namers, &mut config.routers, &MetricsTree::new())
        .map(drop)
        .map_err(|e| mistakes(&e, file))
}

/// Everything, built.
pub(crate) struct Linker {
    tree: MetricsTree,
    telemeters: Vec<Arc<dyn Telemeter>>,
    routers: Vec<(Arc<HttpRouter>, Vec<Arc<HttpServer>>)>,
    admin: AdminConfig,
    identifier_port: Option<u16>,
    grace: Duration,
    handlers: Vec<Handler>,
    shutdowns: mpsc::UnboundedReceiver<Option<Duration>>,
    history: Arc<History>,
    snapshot_interval: Duration,
    workers: usize,
    _process: Vec<GaugeGuard>,
    _census: Census,
}

/// What the command line adds to the configuration.
pub(crate) struct Options {
    pub(crate) snapshot_interval: Duration,
    pub(crate) workers: usize,
}

impl Linker {
    /// Builds everything that the configuration asks for. Must be called within the control runtime.
    /// `file` is what the configuration is called in messages.
    pub(crate) fn build(
        mut config: LinkerConfig<L5d>,
        options: &Options,
        log: &Log,
        file: &str,
    ) -> Result<Self, StartError> {
        let tree = MetricsTree::new();
        tree.limit_series(MAX_SERIES, MAX_SERIES_PER_SCOPE);
        let runtime = tokio::runtime::Handle::current();
        if config.usage.enabled {
            tracing::debug!(org_id = ?config.usage.org_id, "usage is accepted and never sent");
        }
        let Plugged { telemeters, namers, interpreters } =
            plug(config.telemeters, config.namers, &mut config.routers, &tree).map_err(|e| mistakes(&e, file))?;
        let process = process::register(&tree);
        let census = Census::new(&tree);

        let tracing = Tracing::new(telemeters.iter().filter_map(|t| t.tracer()).collect());
        let context =
            RouterContext { tree: tree.clone(), workers: options.workers, runtime, tracing: Arc::clone(&tracing) };
        let mut routers = Vec::new();
        for (router, interpreter) in config.routers.into_iter().zip(interpreters) {
            let build = |c: &dyn ClassifierConfig| -> Arc<dyn Classifier> { c.build() };
            let plugins = RouterPlugins {
                interpreter,
                identifiers: router.identifiers.iter().map(|i| i.config.build()).collect(),
                classifiers: router.classifiers.iter().map(|c| c.as_ref().map(|c| build(&*c.config))).collect(),
                propagator: router.propagator.as_ref().map(|p| p.config.build()),
            };
            routers.push(HttpRouter::build(&router.http, plugins, &context).map_err(failed)?);
        }

        let (shutdown, shutdowns) = mpsc::unbounded_channel();
        let security = match config.admin.security {
            None => None,
            Some(s) => Some(
                Security::new(SecurityConfig {
                    ui_enabled: s.ui_enabled,
                    control_enabled: s.control_enabled,
                    diagnostics_enabled: s.diagnostics_enabled,
                    path_whitelist: s.path_whitelist,
                    path_blacklist: s.path_blacklist,
                })
                .map_err(failed)?,
            ),
        };
        let admin = AdminConfig {
            socket_options: config.admin.socket_options,
            tls: config.admin.tls,
            security,
            ..AdminConfig::new(config.admin.addr)
        };
        let mut handlers = l5d_admin::base_handlers(l5d_admin::Base {
            tree: tree.clone(),
            levels: log.levels(),
            shutdown: Arc::new(move |grace| {
                let _ = shutdown.send(grace); // a second one while the first is at work changes nothing
            }),
            info: ServerInfo {
                name: "l5d".to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                build: "release".to_owned(),
                build_revision: env!("CARGO_PKG_VERSION").to_owned(),
                started: (SystemTime::now(), StdInstant::now()),
            },
        });
        let history = Arc::new(History::new(&tree, config.admin.history));
        let dashboard = Dashboard {
            tree: tree.clone(),
            history: Arc::clone(&history),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let listed: Vec<_> = routers.iter().map(|(router, _)| Arc::clone(router)).collect();
        handlers.extend(pages::handlers(config_json(&config.tree), listed, &namers, tracing));
        handlers.extend(telemeters.iter().flat_map(|t| t.handlers()));

        Ok(Self {
            tree,
            telemeters,
            routers,
            admin,
            identifier_port: config.admin.http_identifier_port,
            grace: config.admin.shutdown_grace,
            handlers: l5d_admin::with_dashboard(handlers, dashboard),
            history,
            shutdowns,
            snapshot_interval: options.snapshot_interval,
            workers: options.workers,
            _process: process,
            _census: census,
        })
    }

    /// Serves until a signal or `/admin/shutdown`, then shuts down in order. `ready` is called when everything listens.
    ///
    /// # Errors
    /// When something cannot listen, or the shutdown takes longer than its grace.
    pub(crate) async fn run(mut self, ready: impl FnOnce()) -> Result<(), StartError> {
        let mut signals = Signals::new().map_err(failed)?;
        let admin = AdminThreads::start(&mut self)?;
        let snapshots = tokio::spawn(snapshots(Snapshotter::new(&self.tree), self.snapshot_interval));
        let overflows = tokio::spawn(tell_overflows(self.tree.clone()));
        let samples = tokio::spawn(samples(Arc::clone(&self.history)));
        let mut telemeters = JoinSet::new();
        let (telemeters_trigger, telemeters_drain) = drain();
        for telemeter in &self.telemeters {
            telemeters.spawn(Arc::clone(telemeter).run(telemeters_drain.clone()));
        }
        drop(telemeters_drain);

        let mut listening = Vec::new();
        for (router, servers) in &self.routers {
            for server in servers {
                let listener = l5d_net::bind(server.addr(), server.socket_options()).map_err(|e| {
                    StartError(format!("router {}: cannot listen on {}: {e}", router.label(), server.addr()))
                })?;
                let addr = listener.local_addr().map_err(failed)?;
                tracing::info!("serving {} on {}", router.label(), addr);
                listening.push(Listening { server: Arc::clone(server), listener });
            }
        }
        let (trigger, workers_drain) = drain();
        let workers = Workers::start(self.workers, &listening, &self.tree, &workers_drain).map_err(failed)?;
        drop((listening, workers_drain));
        tracing::info!("initialized");
        ready();

        let grace = self.wait(&mut signals).await;
        let deadline = Instant::now() + grace.max(Duration::from_secs(1));
        self.stop(deadline, trigger, workers, telemeters_trigger, telemeters, admin).await?;
        snapshots.abort();
        overflows.abort();
        samples.abort();
        Ok(())
    }

    /// Until somebody wants the process to end: the grace that it leaves.
    async fn wait(&mut self, signals: &mut Signals) -> Duration {
        loop {
            tokio::select! {
                signal = signals.next() => match signal {
                    Signal::Hangup => {
                        for (router, _) in &self.routers {
                            if let Some(log) = router.access_log().filter(|log| log.rolls_on_signal()) {
                                log.reopen();
                            }
                        }
                    }
                    Signal::End(name) => {
                        tracing::info!("Received {name}. Shutting down ...");
                        return self.grace;
                    }
                },
                Some(grace) = self.shutdowns.recv() => {
                    tracing::info!("Received /admin/shutdown. Shutting down ...");
                    return grace.unwrap_or(self.grace);
                }
            }
        }
    }

    async fn stop(
        self,
        deadline: Instant,
        workers_trigger: DrainTrigger,
        workers: Workers,
        telemeters_trigger: DrainTrigger,
        mut telemeters: JoinSet<()>,
        admin: AdminThreads,
    ) -> Result<(), StartError> {
        // At the deadline the servers cut off what is left, and may be done with that before this notices.
        let drained = workers_trigger.drain(deadline).await && Instant::now() < deadline;
        // Past the deadline the servers drop what is left at once.
        let joined = tokio::task::spawn_blocking(move || workers.join());
        let ended = tokio::time::timeout(Duration::from_secs(2), joined).await.is_ok();
        for (router, _) in &self.routers {
            router.close();
        }
        let flush = deadline.max(Instant::now() + Duration::from_secs(1));
        telemeters_trigger.drain(flush).await;
        telemeters.shutdown().await;
        admin.stop(Instant::now() + Duration::from_secs(1)).await;
        if drained && ended {
            Ok(())
        } else {
            Err(StartError("requests were still in flight when the grace was over; they were cut off".to_owned()))
        }
    }
}

/// Logs each label of the metrics that has grown above a limit, once.
async fn tell_overflows(tree: MetricsTree) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        for l5d_telemetry::Overflow { router, label, names } in tree.take_overflows() {
            tracing::warn!(
                router,
                label,
                names,
                series = tree.series(),
                "more metrics than maxSeries or maxSeriesPerScope allow: what is new is counted as (overflow);                  /admin/metrics/cardinality shows what there is"
            );
        }
    }
}

/// Rolls the windows of the stats, one interval after another from the start on.
async fn snapshots(snapshotter: Snapshotter, interval: Duration) {
    let mut ticks = tokio::time::interval_at(Instant::now() + interval, interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        snapshotter.tick();
    }
}

/// Takes the history's numbers, once a second. The seconds are those of the clock on the wall as it was at the start, and
/// don't jump with it.
async fn samples(history: Arc<History>) {
    let started = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let began = Instant::now();
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        // Half a second on, so that a tick a little early or late is still that second's.
        history.sample(started + (began.elapsed() + Duration::from_millis(500)).as_secs());
    }
}

/// The admin server, and the identifier port if there is one, on a thread of their own.
struct AdminThreads {
    trigger: DrainTrigger,
    thread: JoinHandle<()>,
}

impl AdminThreads {
    fn start(linker: &mut Linker) -> Result<Self, StartError> {
        let scheme = if linker.admin.tls.is_some() { "https" } else { "http" };
        let mut servers = Vec::new();
        if let Some(port) = linker.identifier_port {
            let mut config = linker.admin.clone();
            config.addr.set_port(port);
            config.security = None;
            let server = AdminServer::bind(config, &linker.tree).map_err(failed)?;
            let routers = linker.routers.iter().map(|(router, _)| Arc::clone(router)).collect();
            let addr = server.local_addr();
            servers.push((server, vec![pages::identifier(routers)], format!("serving {scheme} identifier on /{addr}")));
        }
        let server = AdminServer::bind(linker.admin.clone(), &linker.tree).map_err(failed)?;
        let addr = server.local_addr();
        let handlers = std::mem::take(&mut linker.handlers);
        servers.push((server, handlers, format!("serving {scheme} admin on /{addr}")));

        let (trigger, admin_drain) = drain();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let thread = std::thread::Builder::new()
            .name("admin".to_owned())
            .spawn(move || runtime.block_on(serve_admin(servers, admin_drain)))
            .map_err(failed)?;
        Ok(Self { trigger, thread })
    }

    async fn stop(self, deadline: Instant) {
        self.trigger.drain(deadline).await;
        let _ = tokio::task::spawn_blocking(move || self.thread.join()).await;
    }
}

async fn serve_admin(servers: Vec<(AdminServer, Vec<Handler>, String)>, drain: Drain) {
    let mut tasks = JoinSet::new();
    for (server, handlers, serving) in servers {
        tracing::info!("{serving}");
        tasks.spawn(server.serve(handlers, drain.clone()));
    }
    drop(drain);
    while let Some(result) = tasks.join_next().await {
        if let Ok(Err(error)) = result {
            tracing::error!(%error, "the admin server cannot serve");
        }
    }
}

/// The signals that the process listens to.
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

enum Signal {
    End(&'static str),
    Hangup,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::End("SIGINT"),
            _ = self.terminate.recv() => Signal::End("SIGTERM"),
            _ = self.hangup.recv() => Signal::Hangup,
        }
    }
}

/// Prints to standard output, which may be closed.
pub(crate) fn say(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}
