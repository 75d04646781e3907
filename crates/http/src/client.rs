//! One endpoint: its connections, the sessions on them, and the pool of those that wait for work.
//!
//! Each worker keeps its own idle connections, newest first, so that a request finds one without waking another core. A
//! worker that has none borrows one of another's, which goes home afterwards: a quiet process needs no more connections
//! than it has requests at a time. A worker that borrows often opens its own. An endpoint with
//! `hostConnectionPool.maxSize` keeps one list for all workers, since the limit is the process's. A
//! [`Session`] is a connection lent to one exchange: it comes back by [`Session::release`] and is closed when dropped.
//! Whoever has the session reads and writes. A task of each connection, on the worker that opened it, looks after it while
//! nobody has it: it takes it out of the pool when the endpoint has closed it, or its idle or life time is over. That task
//! sleeps while the connection is lent.
//!
//! An endpoint's metrics and its accrual state come to life with the first request that picks it, as Finagle's lazy
//! endpoint stacks do (`EndpointFactory.scala`).

use std::{
    fmt,
    future::poll_fn,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, OnceLock, PoisonError, Weak,
        atomic::{
            AtomicBool, AtomicU8, AtomicUsize,
            Ordering::{AcqRel, Acquire, Relaxed, Release},
        },
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use l5d_naming::Address;
use l5d_net::{Sampled, SocketOptions, Stream, TcpSampler};
use l5d_router::{
    accrual::{Accrual, AccrualStats, State, Transition},
    balance::{Lease, Node, Status},
    clock,
    error::{Error, Kind},
    stats::{Breakdown, millis},
    worker,
};
use l5d_telemetry::{Counter, GaugeGuard, Level, Scope, Stat};
use tokio::{sync::Semaphore, time::Instant};

use crate::{
    body::Body,
    codec::{
        Headers, RequestHead,
        client::{Exchange, ExchangeError, Wire},
        framing::Decoder,
        parse::{Length, ResponseHead},
    },
    io::CountedIo,
    settings::ClientSettings,
    stats::ConnectionStats,
    view::{EndpointState, EndpointView},
};

/// How long a TCP connect may take; fixed in Linkerd.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a TLS handshake with an endpoint may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// What all endpoints of a client share.
pub(crate) struct EndpointContext {
    pub(crate) label: Arc<str>,
    pub(crate) scope: Scope,
    pub(crate) settings: Arc<ClientSettings>,
    pub(crate) max_head_bytes: usize,
    pub(crate) workers: usize,
    sampler: Arc<TcpSampler>,
    built: OnceLock<EndpointMetrics>,
}

impl EndpointContext {
    pub(crate) fn new(
        label: Arc<str>,
        scope: Scope,
        settings: Arc<ClientSettings>,
        max_head_bytes: usize,
        workers: usize,
        sampler: Arc<TcpSampler>,
    ) -> Arc<Self> {
        Arc::new(Self { label, scope, settings, max_head_bytes, workers, sampler, built: OnceLock::new() })
    }

    /// The metrics of the endpoints; they exist from the first pick on.
    pub(crate) fn metrics(&self) -> &EndpointMetrics {
        self.built.get_or_init(|| EndpointMetrics::new(&self.scope, &self.settings, &self.sampler))
    }
}

/// The metrics that all endpoints of a client share.
pub(crate) struct EndpointMetrics {
    pub(crate) connections: Arc<ConnectionStats>,
    connect_latency_ms: Stat,
    failed_connect_latency_ms: Stat,
    cancelled_connects: Counter,
    pool_size: Level,
    pool_cached: Level,
    pool_waiters: Level,
    pool_num_waited: Counter,
    pool_num_too_many_waiters: Counter,
    accrual: AccrualStats,
    pub(crate) dtab_size: Stat,
    pub(crate) dispatcher_failures: Breakdown,
    serial_queue: OnceLock<Level>,
    scope: Scope,
    idle: Option<Counter>,
    lifetime: Option<Counter>,
    fail_fast: Option<FailFastMetrics>,
}

struct FailFastMetrics {
    marked_available: Counter,
    marked_dead: Counter,
    is_marked_dead: Level,
    unhealthy_for_ms: Level,
    unhealthy_num_tries: Level,
}

impl EndpointMetrics {
    fn new(scope: &Scope, settings: &ClientSettings, sampler: &Arc<TcpSampler>) -> Self {
        let session = &settings.session;
        let has_session = session.idle_time.is_some() || session.life_time.is_some();
        Self {
            connections: ConnectionStats::new(scope, sampler),
            connect_latency_ms: scope.stat("connect_latency_ms"),
            failed_connect_latency_ms: scope.stat("failed_connect_latency_ms"),
            cancelled_connects: scope.counter("cancelled_connects"),
            pool_size: scope.level("pool_size"),
            pool_cached: scope.level("pool_cached"),
            pool_waiters: scope.level("pool_waiters"),
            pool_num_waited: scope.counter("pool_num_waited"),
            pool_num_too_many_waiters: scope.counter("pool_num_too_many_waiters"),
            accrual: AccrualStats::new(&scope.scope("failure_accrual")),
            dtab_size: scope.scope("dtab").stat("size"),
            dispatcher_failures: Breakdown::new(&scope.scope("dispatcher").scope("stream")),
            serial_queue: OnceLock::new(),
            idle: has_session.then(|| scope.counter("idle")),
            lifetime: has_session.then(|| scope.counter("lifetime")),
            fail_fast: settings.fail_fast.then(|| {
                let f = scope.scope("failfast");
                FailFastMetrics {
                    marked_available: f.counter("marked_available"),
                    marked_dead: f.counter("marked_dead"),
                    is_marked_dead: f.level("is_marked_dead"),
                    unhealthy_for_ms: f.level("unhealthy_for_ms"),
                    unhealthy_num_tries: f.level("unhealthy_num_tries"),
                }
            }),
            scope: scope.clone(),
        }
    }
}

/// One address of a client.
pub(crate) struct Endpoint {
    address: Address,
    shown: Arc<str>,
    context: Arc<EndpointContext>,
    built: OnceLock<Built>,
    /// Why the last connect failed: told when the endpoint is marked dead.
    last_error: Mutex<String>,
}

/// What an endpoint has once it has been picked.
struct Built {
    accrual: Accrual,
    idle: Vec<IdleList>,
    limit: Option<Arc<Semaphore>>,
    waiting: AtomicUsize,
    fast_failed: AtomicBool,
    _available: GaugeGuard,
}

/// One worker's idle connections.
#[derive(Default)]
struct IdleList {
    parked: Mutex<Vec<Parked>>,
    /// How often in a row this worker had to borrow.
    borrowed: AtomicUsize,
}

/// So often in a row a worker borrows; then it opens a connection of its own.
const MAX_BORROWED: usize = 16;

impl IdleList {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Parked>> {
        self.parked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Parked {
    /// Boxed, since sessions are moved often on their way.
    wire: Box<Wire>,
    link: Arc<Link>,
}

impl Drop for Parked {
    fn drop(&mut self) {
        self.link.close();
    }
}

impl Endpoint {
    pub(crate) fn new(address: Address, context: &Arc<EndpointContext>) -> Arc<Self> {
        let shown = match &address.host {
            Some(host) => format!("{host}/{}", address.addr),
            None => address.addr.to_string(),
        };
        Arc::new(Self {
            address,
            shown: shown.into(),
            context: Arc::clone(context),
            built: OnceLock::new(),
            last_error: Mutex::default(),
        })
    }

    /// As messages show it: `127.0.0.1:80`, or `host/127.0.0.1:80` when it was resolved from a name.
    pub(crate) fn shown(&self) -> &Arc<str> {
        &self.shown
    }

    pub(crate) fn socket_addr(&self) -> SocketAddr {
        self.address.addr
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// What is to be seen of it at `now`, but for its load, which the balancer knows.
    pub(crate) fn show(&self, now: Instant) -> EndpointView {
        let mut view =
            EndpointView { address: Arc::clone(&self.shown), weight: self.address.weight, ..Default::default() };
        let Some(built) = self.built.get() else { return view };
        let accrual = &built.accrual;
        view.state = match accrual.state(now) {
            _ if built.fast_failed.load(Relaxed) => EndpointState::FastFailed,
            State::Alive => EndpointState::Live,
            State::Dead => EndpointState::Dead,
            State::ProbeOpen | State::ProbeClosed => EndpointState::Probing,
        };
        view.dead_for = accrual.dead_since().map(|since| now.saturating_duration_since(since));
        view.probe_in = accrual.dead_until(now).map(|until| until.saturating_duration_since(now));
        view.idle = self.idle_count();
        view.waiting = built.waiting.load(Relaxed);
        view.last_error = self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone();
        view
    }

    fn built(self: &Arc<Self>) -> &Built {
        self.built.get_or_init(|| {
            let settings = &self.context.settings;
            let metrics = self.context.metrics();
            let weak = Arc::downgrade(self);
            let lists = if settings.pool.max_size.is_some() { 1 } else { self.context.workers };
            Built {
                accrual: Accrual::new(&settings.accrual, metrics.accrual.clone(), Instant::now()),
                idle: (0..lists).map(|_| IdleList::default()).collect(),
                limit: settings.pool.max_size.map(|n| Arc::new(Semaphore::new(n as usize))),
                waiting: AtomicUsize::new(0),
                fast_failed: AtomicBool::new(false),
                _available: self.context.scope.gauge("available", move || {
                    let open = weak.upgrade().is_some_and(|e| e.status(Instant::now()) == Status::Open);
                    f64::from(u8::from(open))
                }),
            }
        })
    }

    /// What happened to an attempt: the accrual policy hears of it.
    pub(crate) fn record(self: &Arc<Self>, ok: bool, now: Instant) {
        self.note(self.built().accrual.record(ok, now));
    }

    /// The requester went away before the attempt told anything: a probe stays one.
    pub(crate) fn record_nothing(self: &Arc<Self>) {
        self.built().accrual.record_ignorable();
    }

    /// No session could be had: the accrual policy hears of it.
    pub(crate) fn record_acquisition_failure(self: &Arc<Self>, now: Instant) {
        self.note(self.built().accrual.record_acquisition_failure(now));
    }

    fn note(&self, transition: Option<Transition>) {
        if let Some(Transition::Died { dead_for, .. }) = transition {
            let last_error = self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone();
            tracing::info!(
                dead_for_ms = millis(dead_for),
                %last_error,
                "FailureAccrualFactory marking connection to \"{}\" as dead. Remote Address: {}",
                self.context.label,
                self.shown
            );
        }
    }

    /// A session: an idle connection, or a new one.
    ///
    /// # Errors
    /// When no connection can be made, or as many requests wait as may.
    pub(crate) async fn session(self: &Arc<Self>, lease: Lease<Self>) -> Result<Session, Error> {
        let built = self.built();
        let metrics = self.context.metrics();
        if built.fast_failed.load(Acquire) {
            return Err(self.fast_fail());
        }
        let permit = match &built.limit {
            None => None,
            Some(limit) => Some(self.wait_for_turn(limit, built, metrics).await?),
        };
        let mut session =
            Session { connection: None, acquired_in: Duration::ZERO, _permit: permit, in_use: InUse::new(lease) };
        let idle = poll_fn(|cx| Poll::Ready(self.take_idle(built, metrics, cx))).await;
        session.connection = Some(match idle {
            Some(parked) => Connection { parked, opened_in: None },
            None => {
                let began = Instant::now();
                match Box::pin(self.connect()).await {
                    Ok(parked) => Connection { parked, opened_in: Some(began.elapsed()) },
                    Err(e) => {
                        self.connect_failed(built);
                        return Err(e);
                    }
                }
            }
        });
        built.accrual.on_dispatch(clock::now());
        Ok(session)
    }

    async fn wait_for_turn(
        &self,
        limit: &Arc<Semaphore>,
        built: &Built,
        metrics: &EndpointMetrics,
    ) -> Result<tokio::sync::OwnedSemaphorePermit, Error> {
        if let Ok(permit) = Arc::clone(limit).try_acquire_owned() {
            return Ok(permit);
        }
        struct Waiting<'a>(&'a AtomicUsize, &'a Level);
        impl Drop for Waiting<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Relaxed);
                self.1.decr();
            }
        }
        let waiters = built.waiting.fetch_add(1, Relaxed);
        metrics.pool_waiters.incr();
        let waiting = Waiting(&built.waiting, &metrics.pool_waiters);
        if self.context.settings.pool.max_waiters.is_some_and(|max| waiters >= max as usize) {
            metrics.pool_num_too_many_waiters.incr();
            return Err(Error::new(
                Kind::TooManyWaiters,
                format!(
                    "too many requests wait for a connection to {}: hostConnectionPool.maxWaiters is {waiters}",
                    self.shown
                ),
            ));
        }
        metrics.pool_num_waited.incr();
        let permit = Arc::clone(limit).acquire_owned().await.expect("the semaphore is never closed");
        drop(waiting);
        clock::event();
        Ok(permit)
    }

    /// An idle connection that is one still.
    fn take_idle(&self, built: &Built, metrics: &EndpointMetrics, cx: &mut Context<'_>) -> Option<Parked> {
        loop {
            let mut parked = Self::pop(built)?;
            parked.link.lend();
            metrics.pool_cached.decr();
            if parked.wire.is_quiet() || parked.wire.poll_idle(cx).is_pending() {
                return Some(parked);
            }
        }
    }

    /// An idle connection of this worker, or of another's.
    fn pop(built: &Built) -> Option<Parked> {
        let mine = worker::index() % built.idle.len();
        if let Some(parked) = built.idle[mine].lock().pop() {
            return Some(parked);
        }
        if built.idle.len() == 1 || built.idle[mine].borrowed.fetch_add(1, Relaxed) >= MAX_BORROWED {
            return None;
        }
        built.idle.iter().find_map(|list| list.lock().pop())
    }

    /// Opens a connection and the task that drives it.
    async fn connect(self: &Arc<Self>) -> Result<Parked, Error> {
        let metrics = self.context.metrics();
        let settings = &self.context.settings;
        struct Connecting<'a>(Option<&'a Counter>);
        impl Drop for Connecting<'_> {
            fn drop(&mut self) {
                if let Some(cancelled) = self.0 {
                    cancelled.incr();
                }
            }
        }
        let began = clock::event();
        let mut connecting = Connecting(Some(&metrics.cancelled_connects));
        let connected = self.establish(&settings.socket_options).await;
        connecting.0 = None;
        let took = clock::event() - began;
        let (stream, sampled) = match connected {
            Ok(established) => established,
            Err(e) => {
                metrics.failed_connect_latency_ms.add(millis(took));
                metrics.connections.failed_connect();
                tracing::debug!(client = %self.context.label, endpoint = %self.shown, error = %e, "cannot connect");
                *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = e.to_string();
                return Err(Error::new(Kind::ConnectFailed, e.to_string()));
            }
        };
        metrics.connect_latency_ms.add(millis(took));
        metrics.serial_queue.get_or_init(|| metrics.scope.scope("dispatcher").scope("serial").level("queue_size"));
        let io = CountedIo::new(stream, sampled, &metrics.connections, &settings.socket_options);
        let counts = io.open_connection();
        let built = self.built();
        let home = worker::index() % built.idle.len();
        built.idle[home].borrowed.store(0, Relaxed);
        let link = Arc::new(Link { state: AtomicU8::new(LENT), home, counts, watcher: OnceLock::new() });
        tokio::spawn(watch(Arc::clone(&link), Arc::downgrade(self)));
        Ok(Parked { wire: Box::new(Wire::new(io, self.context.max_head_bytes)), link })
    }

    async fn establish(&self, options: &SocketOptions) -> io::Result<(Stream, Sampled)> {
        let tcp = l5d_net::connect(self.address.addr, options, CONNECT_TIMEOUT).await?;
        let connections = &self.context.metrics().connections;
        let sampled = connections.sample(&tcp);
        let tls = match &self.context.settings.tls {
            None => return Ok((Stream::Tcp(tcp), sampled)),
            Some(Ok(tls)) => tls,
            Some(Err(why)) => return Err(io::Error::other(why.clone())),
        };
        let began = Instant::now();
        let result = match tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.connect(tcp)).await {
            Ok(result) => result,
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "TLS handshake timed out")),
        };
        connections.handshake(result.is_ok(), began.elapsed());
        match result {
            Ok(stream) => Ok((stream, sampled)),
            Err(e) => {
                connections.failed_handshake(sampled);
                Err(e)
            }
        }
    }

    fn connect_failed(self: &Arc<Self>, built: &Built) {
        let Some(metrics) = &self.context.metrics().fail_fast else { return };
        if built.fast_failed.swap(true, AcqRel) {
            return;
        }
        metrics.marked_dead.incr();
        metrics.is_marked_dead.incr();
        tokio::spawn(revive(Arc::downgrade(self)));
    }

    fn fast_fail(&self) -> Error {
        Error::new(
            Kind::FailedFast,
            format!(
                "endpoint {} of client {} failed a moment ago and is not tried (failFast)",
                self.shown, self.context.label
            ),
        )
        .retry_safely()
    }

    /// How long the connection may stay idle; none while the pool is at its minimum.
    fn idle_limit(&self) -> Option<Duration> {
        let settings = &self.context.settings;
        match (settings.session.idle_time, settings.pool.idle_time) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Takes a connection back that nobody uses any more.
    fn park(self: &Arc<Self>, mut parked: Parked) {
        let built = self.built();
        let mut list = built.idle[parked.link.home].lock();
        // From now on its end is its watcher's to notice. One that has not looked yet will look into the list.
        if let Some(watcher) = parked.link.watcher.get()
            && parked.wire.poll_idle(&mut Context::from_waker(watcher)).is_ready()
        {
            return;
        }
        parked.link.state.store(IDLE, Release);
        self.context.metrics().pool_cached.incr();
        list.push(parked);
    }

    /// Looks whether an idle connection still is one; closes it if not, or if it is `over`. Ready when it is no more.
    fn poll_parked(&self, link: &Arc<Link>, over: bool, cx: &mut Context<'_>) -> Poll<()> {
        let Some(built) = self.built.get() else { return Poll::Ready(()) };
        let mut list = built.idle[link.home].lock();
        let Some(at) = list.iter().position(|parked| Arc::ptr_eq(&parked.link, link)) else { return Poll::Pending };
        if !over && list[at].wire.poll_idle(cx).is_pending() {
            return Poll::Pending;
        }
        self.context.metrics().pool_cached.decr();
        let parked = list.remove(at);
        drop(list);
        drop(parked);
        Poll::Ready(())
    }

    fn idle_count(&self) -> usize {
        self.built.get().map_or(0, |b| b.idle.iter().map(|list| list.lock().len()).sum())
    }
}

impl Node for Endpoint {
    fn status(&self, now: Instant) -> Status {
        let Some(built) = self.built.get() else { return Status::Open };
        if built.fast_failed.load(Relaxed) {
            return Status::Busy;
        }
        built.accrual.status(now)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Endpoint").field(&self.shown).finish()
    }
}

/// The state of a connection, shared by its session and its watcher.
struct Link {
    state: AtomicU8,
    /// The list of the worker that opened it.
    home: usize,
    counts: Arc<crate::stats::OpenConnection>,
    /// Wakes the task that looks after it while it is idle; there from that task's first look on.
    watcher: OnceLock<Waker>,
}

const LENT: u8 = 0;
const IDLE: u8 = 1;
const CLOSED: u8 = 2;

impl Link {
    fn lend(&self) {
        self.state.store(LENT, Release);
    }

    /// The connection is no more.
    fn close(&self) {
        self.state.store(CLOSED, Release);
        if let Some(watcher) = self.watcher.get() {
            watcher.wake_by_ref();
        }
    }

    /// Waits until the connection is no more.
    async fn ended(self: &Arc<Self>, endpoint: &Weak<Endpoint>) {
        poll_fn(|cx| {
            self.watcher.get_or_init(|| cx.waker().clone());
            match self.state.load(Acquire) {
                CLOSED => Poll::Ready(()),
                _ => endpoint.upgrade().map_or(Poll::Ready(()), |e| e.poll_parked(self, false, cx)),
            }
        })
        .await;
    }
}

/// Looks after a connection while it is idle, until it ends or its time is over.
async fn watch(link: Arc<Link>, endpoint: Weak<Endpoint>) {
    let born = Instant::now();
    let (idle, life, min_size, idle_counter, life_counter) = match endpoint.upgrade() {
        None => return,
        Some(e) => {
            let m = e.context.metrics();
            let s = &e.context.settings;
            (e.idle_limit(), s.session.life_time, s.pool.min_size, m.idle.clone(), m.lifetime.clone())
        }
    };
    if idle.is_none() && life.is_none() {
        return link.ended(&endpoint).await;
    }
    let mut idle_since: Option<Instant> = None;
    loop {
        // Idle time is looked at in steps: a connection closes at most a tenth of its limit too late.
        let step = idle.into_iter().chain(life).min().unwrap_or(Duration::from_secs(1)) / 10;
        let step = step.clamp(Duration::from_millis(5), Duration::from_secs(1));
        if tokio::time::timeout(step, link.ended(&endpoint)).await.is_ok() {
            return;
        }
        let now = Instant::now();
        if link.state.load(Acquire) != IDLE {
            idle_since = None;
            continue;
        }
        let since = *idle_since.get_or_insert(now);
        let Some(e) = endpoint.upgrade() else { return };
        let too_idle = idle.is_some_and(|limit| now - since >= limit) && e.idle_count() > min_size as usize;
        let too_old = life.is_some_and(|limit| now - born >= limit);
        if (too_idle || too_old) && poll_fn(|cx| Poll::Ready(e.poll_parked(&link, true, cx))).await.is_ready() {
            // What a pool finds idle is counted only beside `clientSession`.
            if let Some(counter) = if too_idle { &idle_counter } else { &life_counter } {
                counter.incr();
            }
            return;
        }
    }
}

/// Probes an endpoint that refused a connection until it takes one (`FailFastFactory`).
async fn revive(endpoint: Weak<Endpoint>) {
    let began = Instant::now();
    let mut wait = Duration::from_secs(1);
    let (mut tries, mut unhealthy_ms) = (0, 0);
    loop {
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(Duration::from_secs(32));
        let Some(e) = endpoint.upgrade() else { return };
        let Some(m) = &e.context.metrics().fail_fast else { return };
        let for_ms = i64::try_from(began.elapsed().as_millis()).unwrap_or(i64::MAX);
        m.unhealthy_for_ms.add(for_ms - unhealthy_ms);
        unhealthy_ms = for_ms;
        m.unhealthy_num_tries.incr();
        tries += 1;
        if let Ok(parked) = e.connect().await {
            e.park(parked);
            e.built().fast_failed.store(false, Release);
            m.marked_available.incr();
            m.is_marked_dead.decr();
            m.unhealthy_for_ms.add(-unhealthy_ms);
            m.unhealthy_num_tries.add(-tries);
            return;
        }
    }
}

struct Connection {
    parked: Parked,
    /// How long it took to open it for this session; none had to be opened otherwise.
    opened_in: Option<Duration>,
}

/// An endpoint that was picked, as one of its pool's sessions.
struct InUse(Option<Lease<Endpoint>>);

impl InUse {
    fn new(lease: Lease<Endpoint>) -> Self {
        lease.context.metrics().pool_size.incr();
        Self(Some(lease))
    }

    fn endpoint(&self) -> &Arc<Endpoint> {
        self.0.as_ref().expect("it is given back by value").node()
    }

    fn give_back(mut self) -> Lease<Endpoint> {
        self.end().expect("it is given back by value")
    }

    fn end(&mut self) -> Option<Lease<Endpoint>> {
        let lease = self.0.take()?;
        lease.context.metrics().pool_size.decr();
        Some(lease)
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.end();
    }
}

/// A connection lent to one exchange.
pub(crate) struct Session {
    connection: Option<Connection>,
    /// How long it was waited for, from the pick on; told by whoever waited.
    pub(crate) acquired_in: Duration,
    _permit: Option<tokio::sync::OwnedSemaphorePermit>,
    in_use: InUse,
}

impl Session {
    /// The endpoint it is connected to.
    pub(crate) fn endpoint(&self) -> &Arc<Endpoint> {
        self.in_use.endpoint()
    }

    /// Sends a request, with these header lines in the place of its head's; the head of its response, and what is to come of both messages ([`Session::body`]).
    pub(crate) async fn send(
        &mut self,
        head: &RequestHead,
        headers: &Headers,
        body: Body,
    ) -> Result<(ResponseHead, Length, Exchange), ExchangeError> {
        let mut exchange = Exchange::new(head, headers, body);
        let connection = self.connection.as_mut().expect("a session has a connection until it is released");
        let (head, length) = poll_fn(|cx| connection.parked.wire.poll_response(&mut exchange, cx)).await?;
        connection.parked.link.counts.message();
        Ok((head, length, exchange))
    }

    /// The body of a response, which has the session until it ends.
    pub(crate) fn body(self, length: Length, exchange: Exchange) -> ResponseBody {
        ResponseBody { session: self, decoder: Decoder::new(length), exchange }
    }

    /// How long it took to open the connection for this session, if it had to be.
    pub(crate) fn opened_in(&self) -> Option<Duration> {
        self.connection.as_ref().and_then(|c| c.opened_in)
    }

    /// Whether the connection had been used before.
    pub(crate) fn is_reused(&self) -> bool {
        self.connection.as_ref().is_some_and(|c| c.opened_in.is_none())
    }

    /// The exchange is over: the connection goes back to the pool.
    pub(crate) fn release(self) {
        drop(self.give_back());
    }

    /// The same, but the endpoint stays picked: what is left may be used for another session on it.
    pub(crate) fn give_back(self) -> Lease<Endpoint> {
        let Self { connection, in_use, .. } = self;
        if let Some(Connection { parked, .. }) = connection
            && parked.wire.is_reusable()
        {
            in_use.endpoint().park(parked);
        }
        in_use.give_back()
    }

    fn wire(&mut self) -> &mut Wire {
        &mut self.connection.as_mut().expect("a session has a connection until it is released").parked.wire
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Session").field(&self.endpoint().shown).finish()
    }
}

/// The body of a response, read from its connection when it is asked for. Dropped before its end, it closes the connection.
#[derive(Debug)]
pub(crate) struct ResponseBody {
    session: Session,
    decoder: Decoder,
    exchange: Exchange,
}

impl ResponseBody {
    pub(crate) fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        self.session.wire().poll_data(&mut self.decoder, &mut self.exchange, cx)
    }

    /// Whether the last of it has been given out.
    pub(crate) fn is_done(&self) -> bool {
        self.decoder.is_done()
    }

    /// Goes on with the request, of which there may be more.
    pub(crate) fn poll_upload(&mut self, cx: &mut Context<'_>) {
        self.session.wire().poll_upload(&mut self.exchange, cx);
    }

    /// The response was a refusal, and is over: as [`Session::give_back`], if the request is over, too.
    pub(crate) fn give_back(self) -> Option<Lease<Endpoint>> {
        if self.exchange.is_sent() {
            return Some(self.session.give_back());
        }
        self.finish();
        None
    }

    /// The response is over: the connection goes back to its pool, or does so when the request is over, too.
    pub(crate) fn finish(self) {
        let Self { mut session, mut exchange, .. } = self;
        if exchange.is_sent() || !session.wire().is_reusable() {
            return session.release();
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            poll_fn(|cx| {
                session.wire().poll_upload(&mut exchange, cx);
                if exchange.is_sent() { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            session.release();
        });
    }
}
