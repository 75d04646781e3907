//! The client stack: what every attempt at a bound name goes through, once per bound id and shared by all logical names
//! that bind to it (http-behaviour §1, §10.3; metrics-catalog §1.4).
//!
//! From the outside in, as [`Client::call`] runs it:
//!
//! 1. streams and payloads are counted: whole messages by size, streamed ones as streams;
//! 2. requeues: an attempt that is known not to have reached the application is sent again, under the client's own
//!    budget: outside of the status counts, so that each try counts there;
//! 3. status and time classes of each try;
//! 4. the nack throttle, which drops before a session is spent;
//! 5. a session is acquired: the balancer picks, the pool or a connect delivers; up to 25 immediate new picks;
//! 6. per endpoint: request counts (this client's, and those of the logical name beneath it), failure accrual, diagnostic
//!    traces, the name that it goes by, the attempt's time limit;
//! 7. the context headers of the next hop, then the wire.

use std::{
    collections::HashMap,
    fmt,
    future::{Future, poll_fn},
    io,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock,
        atomic::{
            AtomicBool, AtomicU8,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use http::{StatusCode, Version};
use l5d_naming::{Addr, AddrWatch, Address, Path};
use l5d_net::{Follower, TcpSampler};
use l5d_router::{
    balance::{Balancer, Lease, Status},
    clock,
    error::{Error, Kind},
    retry::RetryBudget,
    stats::{Breakdown, InFlight, Outcome, RequestStats, millis},
};
use l5d_telemetry::{
    Counter, GaugeGuard, Scope, Stat,
    trace::{Recording, TraceId},
};
use tokio::{sync::watch, time::Instant};

use crate::{
    body::{Body, CollectError, Incoming, collect},
    client::{Endpoint, EndpointContext, Session},
    codec::{
        Headers, RequestHead, Response,
        client::{Exchange, ExchangeError},
        headers::Present,
        parse::{self, Length, ResponseHead},
    },
    ctx::Ctx,
    duration::show_duration,
    filters::{
        access_log::AccessLog,
        authority,
        diagnostic_trace::{Chosen, DiagnosticTrace, Question},
        nack::NackAdmission,
    },
    headers::{self, CONTENT_LENGTH, RETRY_AFTER, TRANSFER_ENCODING},
    propagators::Propagator,
    scopes::Scopes,
    settings::ClientSettings,
    spans::{self, Sending},
    stack::{bound::ServiceCounts, path::Classify},
    stats::{MessageStats, StatusStats},
    view::{ClientView, EndpointView},
};

/// How often the acquisition of a session is tried anew while the client is open (Finagle's `Retries`).
const MAX_ACQUISITION_REQUEUES: u32 = 25;
/// The share of the requeue budget that one request may use.
const REQUEUE_SHARE: f64 = 0.2;

/// Limits of what an endpoint may answer, and of what is buffered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MessageLimits {
    /// `maxHeadersKB` in bytes.
    pub(crate) header_bytes: usize,
    /// `maxInitialLineKB` in bytes.
    pub(crate) initial_line_bytes: usize,
    /// Whether longer bodies are streamed at all.
    pub(crate) streaming: bool,
    /// Bodies of known length up to this are held whole (`streamAfterContentLengthKB`).
    pub(crate) buffer_bytes: u64,
}

/// Why a request's future may be dropped before its end, and where it was then; set by whoever drops it.
#[derive(Debug, Default)]
pub(crate) struct GivenUp {
    reason: AtomicU8,
    /// Raised by the server when its own time-out fires.
    by_server: Option<Arc<AtomicBool>>,
    /// The client that the request was sent to, once there is no way for it to succeed there.
    client: OnceLock<Arc<str>>,
}

impl GivenUp {
    pub(crate) fn new(by_server: Option<Arc<AtomicBool>>) -> Self {
        Self { by_server, ..Self::default() }
    }

    /// A time-out above the client fires.
    pub(crate) fn by_timeout(&self) {
        self.reason.store(1, Relaxed);
    }

    /// The attempt's own time limit fires.
    fn by_attempt_timeout(&self) {
        self.reason.store(2, Relaxed);
    }

    /// What it counts as. Finagle interrupts with its own exception whatever time-out it was.
    pub(crate) fn kind(&self) -> Kind {
        match self.reason.load(Relaxed) {
            1 => Kind::Interrupted,
            2 => Kind::IndividualTimeout,
            _ if self.by_server.as_ref().is_some_and(|b| b.load(Relaxed)) => Kind::Interrupted,
            _ => Kind::Cancelled,
        }
    }

    /// A client had the request, and has no answer that would do.
    fn had_by(&self, client: &Arc<str>) {
        self.client.get_or_init(|| Arc::clone(client));
    }

    /// The client that had the request first.
    pub(crate) fn client(&self) -> Option<&Arc<str>> {
        self.client.get()
    }
}

/// One attempt, as the path stack hands it down.
pub(crate) struct Attempt<'a> {
    /// The request's head, complete but for what is the hop's own.
    pub(crate) head: &'a RequestHead,
    /// The body; taken by the first dispatch when it is streamed.
    pub(crate) body: &'a mut Option<Body>,
    /// Of a body that is held whole.
    pub(crate) full: Option<Bytes>,
    pub(crate) ctx: &'a Ctx,
    pub(crate) service: &'a Path,
    pub(crate) residual: Option<&'a str>,
    pub(crate) classify: &'a dyn Classify,
    pub(crate) given_up: &'a GivenUp,
    /// The counts of the logical name beneath this client.
    pub(crate) service_stats: &'a OnceLock<ServiceCounts>,
    pub(crate) peer: std::net::SocketAddr,
    /// How long a connection may be waited for.
    pub(crate) binding_timeout: Duration,
    /// The endpoint that has refused it unprocessed, and is asked again.
    pub(crate) refused_by: Option<Lease<Endpoint>>,
}

/// A client: everything behind one bound id.
pub(crate) struct Client {
    id: Path,
    label: Arc<str>,
    scope: Scope,
    settings: Arc<ClientSettings>,
    limits: MessageLimits,
    dst_client: String,
    context: Arc<EndpointContext>,
    balancer: Balancer<Endpoint>,
    /// The counts of each logical name that comes here.
    services: Arc<Scopes<RequestStats>>,
    /// Where the addresses come from, and what follows them.
    watched: Mutex<(AddrWatch, Option<Follower>)>,
    state_tx: watch::Sender<AddrState>,
    runtime: tokio::runtime::Handle,
    endpoints: Mutex<HashMap<EndpointKey, Arc<Endpoint>>>,
    /// What the balancer was last told, for messages and `/client_state.json`.
    shown: RwLock<Vec<Arc<str>>>,
    state: watch::Receiver<AddrState>,
    /// Whether that is `Bound`: what a request asks first.
    bound: AtomicBool,
    status: StatusStats,
    messages: MessageStats,
    requests: OnceLock<RequestStats>,
    retries: RequeueStats,
    budget: Arc<RetryBudget>,
    acquisition_ms: Stat,
    creation_failures: Breakdown,
    admission: NackAdmission,
    access_log: Option<Arc<AccessLog>>,
    propagator: Arc<dyn Propagator>,
    diagnostics: Arc<DiagnosticTrace>,
    synthetic: Option<StatusCode>,
    born: Instant,
}

type EndpointKey = (std::net::SocketAddr, Option<Arc<str>>);

/// What is known of a client's addresses.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum AddrState {
    Pending,
    Bound,
    Neg,
    Failed(Arc<str>),
}

struct RequeueStats {
    requeues: Counter,
    per_request: Stat,
    budget_exhausted: Counter,
    request_limit: Counter,
    cannot_retry: Counter,
    not_open: Counter,
    _budget: GaugeGuard,
}

/// What a client is made of, beside its name.
pub(crate) struct ClientParams {
    pub(crate) settings: Arc<ClientSettings>,
    pub(crate) limits: MessageLimits,
    pub(crate) access_log: Option<Arc<AccessLog>>,
    pub(crate) propagator: Arc<dyn Propagator>,
    pub(crate) diagnostics: Arc<DiagnosticTrace>,
    pub(crate) workers: usize,
    pub(crate) sampler: Arc<TcpSampler>,
}

impl Client {
    /// Builds the client of `id` under `scope` (`rt/<label>/client/<id>`) and follows its addresses until it is dropped.
    pub(crate) fn new(
        id: Path,
        scope: Scope,
        addr: &AddrWatch,
        synthetic: Option<u16>,
        params: ClientParams,
        runtime: &tokio::runtime::Handle,
    ) -> Arc<Self> {
        let shown_id = id.show();
        let label: Arc<str> = shown_id.trim_start_matches('/').into();
        let context = EndpointContext::new(
            Arc::clone(&label),
            scope.clone(),
            Arc::clone(&params.settings),
            params.limits.header_bytes,
            params.workers,
            params.sampler,
        );
        let budget = Arc::new(RetryBudget::from(&params.settings.requeue_budget));
        let retries = scope.scope("retries");
        let service_creation = scope.scope("service_creation");
        let (state_tx, state) = watch::channel(AddrState::Pending);
        let shared_budget = Arc::clone(&budget);
        let client = Arc::new(Self {
            label,
            dst_client: shown_id,
            balancer: Balancer::new(params.settings.load_balancer.clone(), &scope.scope("loadbalancer")),
            services: Scopes::new(scope.scope("service")),
            watched: Mutex::new((addr.clone(), None)),
            state_tx,
            runtime: runtime.clone(),
            endpoints: Mutex::default(),
            shown: RwLock::default(),
            state,
            bound: AtomicBool::new(false),
            status: StatusStats::new(&scope),
            messages: MessageStats::new(&scope),
            requests: OnceLock::new(),
            retries: RequeueStats {
                requeues: retries.counter("requeues"),
                per_request: retries.stat("requeues_per_request"),
                budget_exhausted: retries.counter("budget_exhausted"),
                request_limit: retries.counter("request_limit"),
                cannot_retry: retries.counter("cannot_retry"),
                not_open: retries.counter("not_open"),
                #[expect(clippy::cast_precision_loss, reason = "a gauge of a small number")]
                _budget: retries.gauge("budget", move || shared_budget.balance(Instant::now()) as f64),
            },
            budget,
            acquisition_ms: service_creation.stat("service_acquisition_latency_ms"),
            creation_failures: Breakdown::new(&service_creation),
            admission: NackAdmission::new(&scope),
            access_log: params.access_log,
            propagator: params.propagator,
            diagnostics: params.diagnostics,
            synthetic: synthetic.and_then(|code| StatusCode::from_u16(code).ok()),
            born: Instant::now(),
            id,
            scope,
            settings: params.settings,
            limits: params.limits,
            context,
        });
        client.follow(addr.clone(), &mut client.watched());
        client
    }

    /// Takes the addresses from `addr` from now on, if that is another source than before: a name that went away and
    /// came back is watched anew.
    pub(crate) fn rebind(self: &Arc<Self>, addr: &AddrWatch) {
        let mut watched = self.watched();
        if !watched.0.same(addr) {
            self.follow(addr.clone(), &mut watched);
        }
    }

    fn watched(&self) -> MutexGuard<'_, (AddrWatch, Option<Follower>)> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn follow(self: &Arc<Self>, mut addr: AddrWatch, watched: &mut (AddrWatch, Option<Follower>)) {
        // The one before is to tell nothing any more.
        watched.1 = None;
        watched.0 = addr.clone();
        // The first state is there at once when the name is bound already: the first request need not wait for a task.
        self.update(&addr.read());
        let weak = Arc::downgrade(self);
        watched.1 = Some(Follower::start(&self.runtime, async move {
            while addr.changed().await {
                let Some(client) = weak.upgrade() else { return };
                client.update(&addr.read());
            }
        }));
    }

    /// How often [`Self::sweep`] wants to be called.
    pub(crate) const SWEEP_INTERVAL: Duration = Balancer::<Endpoint>::SWEEP_INTERVAL;

    /// Lets its balancer look after endpoints that nobody asks for.
    pub(crate) fn sweep(&self, now: Instant) {
        self.balancer.sweep(now);
    }

    /// The bound id.
    pub(crate) fn id(&self) -> &Path {
        &self.id
    }

    /// When it was made.
    pub(crate) fn born(&self) -> Instant {
        self.born
    }

    /// `client_state.json`'s view: the state's name and the addresses.
    pub(crate) fn show_state(&self) -> (String, Vec<Arc<str>>) {
        let state = match &*self.state.borrow() {
            AddrState::Pending => "Pending".to_owned(),
            AddrState::Bound => "bound".to_owned(),
            AddrState::Neg => "Neg".to_owned(),
            AddrState::Failed(why) => format!("Failed: {why}"),
        };
        (state, self.addresses())
    }

    /// All that is to be seen of it.
    pub(crate) fn view(&self, now: Instant) -> ClientView {
        let endpoints = self.balancer.carried(now).into_iter().map(|carried| EndpointView {
            in_use: carried.pending,
            load: carried.load,
            leaving: carried.leaving,
            ..carried.node.show(now)
        });
        let balancer = self.settings.load_balancer.kind.metric_name();
        ClientView { id: self.id.show(), state: self.show_state().0, balancer, endpoints: endpoints.collect() }
    }

    fn addresses(&self) -> Vec<Arc<str>> {
        self.shown.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes over a new address set. Failed and pending keep what was there before; negative clears it (§5).
    fn update(&self, addr: &Addr) {
        let next = match addr {
            Addr::Pending => None,
            Addr::Failed(why) => {
                let known = *self.state.borrow() == AddrState::Bound;
                (!known).then(|| AddrState::Failed(Arc::clone(why)))
            }
            Addr::Neg => {
                self.replace(&[]);
                Some(AddrState::Neg)
            }
            Addr::Bound(set) => {
                self.replace(&set.endpoints);
                Some(AddrState::Bound)
            }
        };
        if let Some(next) = next {
            self.bound.store(next == AddrState::Bound, Release);
            self.state_tx.send_replace(next);
        }
    }

    fn replace(&self, addresses: &[Address]) {
        let mut endpoints = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = HashMap::with_capacity(addresses.len());
        let mut nodes = Vec::with_capacity(addresses.len());
        for address in addresses {
            let key = (address.addr, address.host.clone());
            let endpoint = match endpoints.remove(&key) {
                Some(known) if known.address().authority == address.authority => known,
                _ => Endpoint::new(address.clone(), &self.context),
            };
            nodes.push((Arc::clone(&endpoint), address.weight));
            next.insert(key, endpoint);
        }
        *self.shown.write().unwrap_or_else(PoisonError::into_inner) =
            nodes.iter().map(|(e, _)| Arc::clone(e.shown())).collect();
        *endpoints = next;
        self.balancer.update(nodes, Instant::now());
    }

    /// Sends one logical attempt.
    ///
    /// # Errors
    /// With what the requester is to be told when there is no response.
    pub(crate) async fn call(&self, mut attempt: Attempt<'_>) -> Result<Response, Error> {
        if let Some(status) = self.synthetic {
            return Ok(self.synthesize(status, &attempt));
        }
        let mut session = self.acquire_in_time(&attempt).await?;
        let mut requeues = 0_u64;
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "budgets are small and positive"
        )]
        let allowance = (REQUEUE_SHARE * self.budget.balance(clock::now()) as f64).ceil() as u64;
        let result = loop {
            let timed = Timed { status: &self.status, began: clock::now(), done: false };
            let result = self.dispatch(session, &mut attempt, requeues > 0).await;
            timed.finish(&result);
            match result {
                Err(e) if e.safe_to_retry && attempt.can_resend() => {
                    let now = clock::now();
                    // A nack leaves its session open, whatever accrual makes of the endpoint.
                    let refused = if e.kind != Kind::Nacked && self.balancer.status(now) != Status::Open {
                        Some(&self.retries.cannot_retry)
                    } else if requeues >= allowance {
                        Some(&self.retries.request_limit)
                    } else if !self.budget.try_withdraw(now) {
                        Some(&self.retries.budget_exhausted)
                    } else {
                        None
                    };
                    if let Some(counter) = refused {
                        counter.incr();
                        break Err(give_up(e));
                    }
                    requeues += 1;
                    self.retries.requeues.incr();
                    session = match attempt.refused_by.take() {
                        Some(lease) => self.acquire_again(lease, &attempt).await?,
                        None => self.acquire_in_time(&attempt).await?,
                    };
                }
                other => break other,
            }
        };
        self.retries.per_request.add(requeues);
        if result.is_ok() {
            self.budget.deposit(clock::now());
        }
        if let (Some(log), Ok(response)) = (&self.access_log, &result) {
            log.write(attempt.head, attempt.peer, response);
        }
        result
    }

    fn synthesize(&self, status: StatusCode, attempt: &Attempt<'_>) -> Response {
        let now = clock::now();
        let mut response = Response::new(status, Body::empty());
        response.headers.add(CONTENT_LENGTH, "0");
        let success = attempt.classify.classify(&attempt.head.method, &Ok(&response)).is_success();
        let outcome = if success { Outcome::Success } else { Outcome::FailedResponse };
        for stats in self.request_stats(attempt) {
            stats.begin().finish(outcome, clock::since(now));
        }
        self.status.response(status, clock::since(now));
        response
    }

    /// A session, within the binding time-out.
    async fn acquire_in_time(&self, attempt: &Attempt<'_>) -> Result<Session, Error> {
        let limit = attempt.binding_timeout;
        let mut acquiring = pin!(self.acquire(attempt));
        // Nearly always a session is there, and no timer is needed.
        if let Poll::Ready(acquired) = poll_fn(|cx| Poll::Ready(acquiring.as_mut().poll(cx))).await {
            return acquired;
        }
        tokio::time::timeout(limit, acquiring).await.unwrap_or_else(|_| {
            clock::event();
            let text = format!(
                "Exceeded {} binding timeout while connecting to {} for name: {}",
                show_duration(limit),
                self.id,
                attempt.service
            );
            Err(Error::new(Kind::BindingTimeout, text))
        })
    }

    /// Another session on the endpoint that has refused the request: Finagle's requeues go over the session they have, which
    /// asks neither the balancer nor failure accrual. If it has none any more, any endpoint will do.
    async fn acquire_again(&self, lease: Lease<Endpoint>, attempt: &Attempt<'_>) -> Result<Session, Error> {
        let endpoint = Arc::clone(lease.node());
        match tokio::time::timeout(attempt.binding_timeout, endpoint.session(lease)).await {
            Ok(Ok(session)) => Ok(session),
            Ok(Err(_)) | Err(_) => self.acquire_in_time(attempt).await,
        }
    }

    /// A session on some endpoint. A failure to connect is followed by another pick at once, as long as the balancer has
    /// an open endpoint.
    async fn acquire(&self, attempt: &Attempt<'_>) -> Result<Session, Error> {
        let mut requeued = 0;
        loop {
            let began = clock::now();
            let result = self.acquire_once(attempt).await;
            let took = clock::since(began);
            self.acquisition_ms.add(millis(took));
            let e = match result {
                Ok(mut session) => {
                    session.acquired_in = took;
                    return Ok(session);
                }
                Err(e) => e,
            };
            self.creation_failures.count_with_total(
                "failures",
                match e.kind {
                    Kind::ConnectFailed => &["com.twitter.finagle.naming.buoyant.RichConnectionFailedException"],
                    Kind::NoBrokers => Kind::NoEndpoints.chain(),
                    kind => kind.chain(),
                },
            );
            if !matches!(e.kind, Kind::ConnectFailed | Kind::FailedFast) {
                return Err(e);
            }
            if self.balancer.status(clock::now()) != Status::Open {
                self.retries.not_open.incr();
                return Err(e);
            }
            if requeued == MAX_ACQUISITION_REQUEUES {
                return Err(e);
            }
            requeued += 1;
            self.retries.requeues.incr();
        }
    }

    async fn acquire_once(&self, attempt: &Attempt<'_>) -> Result<Session, Error> {
        if !self.bound.load(Acquire) {
            if *self.state.borrow() == AddrState::Pending {
                let mut state = self.state.clone();
                let _ = state.wait_for(|s| *s != AddrState::Pending).await;
                clock::event();
            }
            if let AddrState::Failed(why) = &*self.state.borrow() {
                let malformed = why.starts_with("malformed address");
                let kind = if malformed { Kind::MalformedAddress } else { Kind::NamingFailed };
                return Err(Error::new(kind, why.as_ref()));
            }
        }
        let Some(lease) = self.balancer.pick(clock::now()) else {
            return Err(Error::new(Kind::NoBrokers, String::new()));
        };
        let endpoint = Arc::clone(lease.node());
        self.context.metrics();
        match endpoint.session(lease).await {
            Ok(session) => Ok(session),
            Err(e) => {
                endpoint.record_acquisition_failure(clock::now());
                Err(if e.kind == Kind::ConnectFailed { self.connect_error(&endpoint, attempt) } else { e })
            }
        }
    }

    /// What Linkerd says when no connection can be made (template B).
    fn connect_error(&self, endpoint: &Endpoint, attempt: &Attempt<'_>) -> Error {
        let addresses: Vec<_> = self.addresses();
        Error::new(
            Kind::ConnectFailed,
            format!(
                "Unable to establish connection to {selected}.\n\nservice name: {}\nclient name: {}\naddresses: [{}]\n\
                 selected address: {selected}\n",
                attempt.service,
                self.id,
                addresses.join(", "),
                selected = endpoint.shown(),
            ),
        )
    }

    fn request_stats<'a>(&'a self, attempt: &Attempt<'a>) -> [&'a RequestStats; 2] {
        let own = self.requests.get_or_init(|| RequestStats::new(&self.scope));
        let of_service = attempt.service_stats.get_or_init(|| self.services.get(attempt.service, RequestStats::new));
        [own, of_service]
    }

    /// One try on one session.
    async fn dispatch(&self, mut session: Session, attempt: &mut Attempt<'_>, again: bool) -> Result<Response, Error> {
        if self.admission.should_drop(clock::now()) {
            return Err(Error::new(
                Kind::AdmissionDropped,
                "Request not issued to the backend due to observed overload.",
            )
            .from_source(&self.label));
        }
        let metrics = self.context.metrics();
        if !attempt.ctx.local_dtab.is_empty() {
            metrics.dtab_size.add(attempt.ctx.local_dtab.len() as u64);
        }
        let endpoint = Arc::clone(session.endpoint());
        let trace = attempt.ctx.trace.child();
        let question = Question::of(attempt.head);
        let (mut lines, body) = self.request(attempt, &trace);
        if let Some(question) = &question {
            question.count_down(&mut lines);
        }
        let authority = endpoint.address().authority.as_deref();
        if let Some(authority) = authority {
            authority::ask(&mut lines, authority);
        }
        let recording = &attempt.ctx.recording;
        let sending = Sending {
            label: &self.label,
            endpoint: endpoint.socket_addr(),
            head: attempt.head,
            payload: attempt.full.as_ref().map(Bytes::len),
            acquired_in: session.acquired_in,
            opened_in: session.opened_in(),
            again,
        };
        spans::client_sends(recording, &trace, &sending);
        let mut try_ = Try {
            stats: self.request_stats(attempt).map(|s| Some(s.begin())),
            began: clock::now(),
            given_up: attempt.given_up,
            label: &self.label,
            endpoint: &endpoint,
            dispatcher_failures: &metrics.dispatcher_failures,
            span: (recording, trace),
        };
        let mut result = if let Some(response) = question.as_ref().and_then(Question::answer) {
            session.release();
            Ok(response)
        } else {
            let sent = match self.settings.attempt_timeout {
                None => session.send(attempt.head, &lines, body).await,
                Some(limit) => match tokio::time::timeout(limit, session.send(attempt.head, &lines, body)).await {
                    Ok(sent) => sent,
                    Err(_) => {
                        attempt.given_up.by_attempt_timeout();
                        let e = self.attempt_timed_out(limit, &endpoint, &trace);
                        metrics.dispatcher_failures.count_with_total("failures", Kind::ChannelClosed.chain());
                        endpoint.record(false, clock::event());
                        spans::client_failed(recording, &trace, e.kind, &e.message);
                        try_.finish(Outcome::Error(&without_source(&e)));
                        return Err(e);
                    }
                },
            };
            match sent {
                Ok((response, length, exchange)) => {
                    spans::client_wire_received(recording, &trace, response.status);
                    self.receive(response, length, (session, exchange), attempt, &endpoint, &trace).await
                }
                Err(e) => Err(self.transport_error(e, &session, &endpoint, &trace)),
            }
        };
        if let (Some(question), Ok(response)) = (question.filter(Question::wants_context), &mut result) {
            let chosen = Chosen {
                service: attempt.service,
                local_dtab: &attempt.ctx.local_dtab,
                client: &self.id,
                addresses: &self.addresses(),
                selected: endpoint.shown(),
            };
            // Boxed, so that the futures of ordinary requests stay small.
            Box::pin(self.diagnostics.append(&question, &chosen, response)).await;
        }
        if let (Some(authority), Ok(response)) = (authority, &mut result) {
            authority::answer(&mut response.headers, authority, attempt.head.headers.text(headers::HOST));
        }
        let now = clock::event();
        match &result {
            Ok(response) => {
                let class = attempt.classify.classify(&attempt.head.method, &Ok(response));
                spans::client_received(recording, &trace, response, class);
                let success = class.is_success();
                endpoint.record(success, now);
                self.admission.answered(now);
                try_.finish(if success { Outcome::Success } else { Outcome::FailedResponse });
            }
            Err(e) if e.kind == Kind::BrokenRequest => {
                endpoint.record_nothing();
                try_.finish(Outcome::Error(e));
            }
            Err(e) => {
                spans::client_failed(recording, &trace, e.kind, &e.message);
                endpoint.record(false, now);
                match e.kind {
                    Kind::Nacked | Kind::NackedForGood => self.admission.nacked(now),
                    Kind::WriteFailed => {}
                    kind => metrics.dispatcher_failures.count_with_total("failures", kind.chain()),
                }
                try_.finish(Outcome::Error(&without_source(e)));
            }
        }
        result
    }

    /// What this try sends: the header lines with the hop's own, and the body.
    fn request(&self, attempt: &mut Attempt<'_>, trace: &TraceId) -> (Headers, Body) {
        let mut headers = attempt.head.headers.clone();
        let h = &mut headers;
        h.set(headers::DST_CLIENT, &self.dst_client);
        if let Some(residual) = attempt.residual {
            h.set(headers::DST_RESIDUAL, residual);
        }
        if h.present().has(Present::FORWARDED_CLIENT_CERT) {
            h.remove(headers::FORWARDED_CLIENT_CERT);
        }
        if self.settings.forward_client_cert
            && let Some(certificate) = &attempt.ctx.client_certificate
        {
            h.add(headers::FORWARDED_CLIENT_CERT, certificate.header());
        }
        attempt.ctx.write(h);
        if let Some(limit) = self.settings.attempt_timeout {
            let mut ctx = attempt.ctx.clone();
            ctx.limit(limit);
            ctx.write(h);
        }
        self.propagator.write(trace, h);
        let body = match &attempt.full {
            Some(bytes) => {
                self.messages.request_bytes.add(bytes.len() as u64);
                Body::full(bytes.clone())
            }
            None => {
                let mut body = attempt.body.take().unwrap_or_else(Body::empty);
                body.watch(self.messages.request_stream.open());
                body
            }
        };
        (headers, body)
    }

    async fn receive(
        &self,
        mut head: ResponseHead,
        length: Length,
        (session, exchange): (Session, Exchange),
        attempt: &mut Attempt<'_>,
        endpoint: &Arc<Endpoint>,
        trace: &TraceId,
    ) -> Result<Response, Error> {
        let mut incoming = Incoming::Response(Box::new(session.body(length, exchange)));
        if let Some(e) = self.nack(&head, attempt) {
            // The body of a nack is nobody's: reading it keeps the connection.
            let is_read = collect(&mut incoming, 64 * 1024).await.is_ok();
            if let Incoming::Response(body) = incoming
                && is_read
            {
                attempt.refused_by = body.give_back();
            }
            return Err(e);
        }
        if head.headers.wire_len() > self.limits.header_bytes {
            return Err(self.remote(Kind::BadResponse, &parse::too_long(self.limits.header_bytes), endpoint, trace));
        }
        if head.line_len > self.limits.initial_line_bytes {
            let text = format!("the response's status line is longer than {} bytes", self.limits.initial_line_bytes);
            return Err(self.remote(Kind::BadResponse, &text, endpoint, trace));
        }
        let bodiless = attempt.head.method == http::Method::HEAD
            || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let until_close = length == Length::UntilClose && !head.headers.contains(TRANSFER_ENCODING);
        let whole = bodiless
            || !self.limits.streaming
            || matches!(length, Length::Known(n) if n <= self.limits.buffer_bytes)
            || (until_close && head.version == Version::HTTP_10);
        let mut response = Response {
            status: head.status,
            version: head.version,
            headers: std::mem::take(&mut head.headers),
            body: Body::empty(),
            closed_stream: None,
        };
        if whole {
            // Only the end of the connection tells where such a body ends: it passes as a stream, and is relayed whole.
            let stream = until_close.then(|| self.messages.response_stream.open());
            let bytes = match collect(&mut incoming, BUFFER_LIMIT).await {
                Ok(bytes) => bytes,
                Err(CollectError::TooLong) => {
                    return Err(self.remote(Kind::BadResponse, "the response's body is too long", endpoint, trace));
                }
                Err(CollectError::Broken(e)) => {
                    return Err(self.remote(Kind::ChannelClosed, &show(&e), endpoint, trace));
                }
            };
            if attempt.head.version == Version::HTTP_10 {
                drop(incoming); // whoever speaks 1.0 is not asked twice on one connection
            } else {
                incoming.finish();
            }
            match stream {
                None => self.messages.response_bytes.add(bytes.len() as u64),
                Some(stream) => {
                    stream.chunk(bytes.len());
                    response.closed_stream = Some(bytes.len());
                }
            }
            if !bodiless && !matches!(length, Length::Known(_)) {
                response.headers.remove(TRANSFER_ENCODING);
                response.headers.set(CONTENT_LENGTH, bytes.len().to_string());
            }
            response.body = Body::full(bytes);
            return Ok(response);
        }
        response.body = Body::stream(incoming);
        response.body.watch(self.messages.response_stream.open());
        let context = Arc::clone(&self.context);
        response.body.on_failure(move || {
            let failures = &context.metrics().dispatcher_failures;
            failures.count_with_total("failures", Kind::ChannelClosed.chain());
        });
        Ok(response)
    }

    /// Whether the endpoint refused the request unprocessed (§7.4).
    fn nack(&self, head: &ResponseHead, attempt: &Attempt<'_>) -> Option<Error> {
        if head.status != StatusCode::SERVICE_UNAVAILABLE {
            return None;
        }
        let h = &head.headers;
        let streamed = attempt.full.is_none();
        let retryable = h.contains(headers::NACK) || (!streamed && h.get(RETRY_AFTER) == Some(b"0"));
        if h.contains(headers::NONRETRYABLE_NACK) || (retryable && streamed) {
            let text = "The request was Nacked by the server and should not be retried";
            Some(Error::new(Kind::NackedForGood, text).from_source(&self.label))
        } else if retryable {
            let e = Error::new(Kind::Nacked, "The request was Nacked by the server");
            Some(e.from_source(&self.label).retry_safely())
        } else {
            None
        }
    }

    fn attempt_timed_out(&self, limit: Duration, endpoint: &Endpoint, trace: &TraceId) -> Error {
        let text = format!(
            "exceeded {} to {} while waiting for a response for an individual request, excluding retries. {}",
            show_duration(limit),
            self.label,
            self.remote_info(endpoint, trace),
        );
        Error::new(Kind::IndividualTimeout, text).from_source(&self.label)
    }

    fn transport_error(&self, e: ExchangeError, session: &Session, endpoint: &Endpoint, trace: &TraceId) -> Error {
        match e {
            ExchangeError::Unsent => {
                let text = if session.is_reused() {
                    "the pooled connection was closed before the request could be written"
                } else {
                    "the connection was closed before the request could be written"
                };
                self.remote(Kind::WriteFailed, text, endpoint, trace).retry_safely()
            }
            // The body came to a bad end on its way in: the endpoint has nothing to do with it.
            ExchangeError::Body => Error::new(Kind::BrokenRequest, "the request's body broke off or is malformed"),
            ExchangeError::Response(what) => self.remote(Kind::BadResponse, &what, endpoint, trace),
            ExchangeError::Closed(e) => self.remote(Kind::ChannelClosed, &show(&e), endpoint, trace),
        }
    }

    /// An error of the exchange with an endpoint: what happened, where, in which trace.
    fn remote(&self, kind: Kind, what: &str, endpoint: &Endpoint, trace: &TraceId) -> Error {
        let text = format!(
            "{what} at remote address: {} from service: {}. {}",
            endpoint.shown(),
            self.label,
            self.remote_info(endpoint, trace)
        );
        Error::new(kind, text).from_source(&self.label)
    }

    fn remote_info(&self, endpoint: &Endpoint, trace: &TraceId) -> String {
        format!(
            "Remote Info: Upstream Address: Not Available, Upstream id: Not Available, Downstream Address: /{}, \
             Downstream label: {}, Trace Id: {}",
            endpoint.socket_addr(),
            self.label,
            trace
        )
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Client").field(&self.label).finish()
    }
}

impl Attempt<'_> {
    /// Whether the body is still there to be sent again.
    fn can_resend(&self) -> bool {
        self.full.is_some() || self.body.is_some()
    }
}

/// The largest body that is ever held whole.
const BUFFER_LIMIT: u64 = i32::MAX as u64;

/// One try's status and time; a dropped try ended without a response.
struct Timed<'a> {
    status: &'a StatusStats,
    began: Instant,
    done: bool,
}

impl Timed<'_> {
    fn finish(mut self, result: &Result<Response, Error>) {
        if let Ok(response) = result {
            self.done = true;
            self.status.response(response.status, clock::since(self.began));
        }
    }
}

impl Drop for Timed<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.status.error(clock::since(self.began));
        }
    }
}

/// One try's counts; a dropped try counts as given up.
struct Try<'a> {
    stats: [Option<InFlight<'a>>; 2],
    began: Instant,
    given_up: &'a GivenUp,
    label: &'a Arc<str>,
    endpoint: &'a Arc<Endpoint>,
    dispatcher_failures: &'a Breakdown,
    span: (&'a Recording, TraceId),
}

impl Try<'_> {
    fn finish(&mut self, outcome: Outcome<'_>) {
        if !matches!(outcome, Outcome::Success) {
            self.given_up.had_by(self.label);
        }
        for s in &mut self.stats {
            if let Some(s) = s.take() {
                s.finish(outcome, clock::since(self.began));
            }
        }
    }
}

impl Drop for Try<'_> {
    fn drop(&mut self) {
        if self.stats.iter().all(Option::is_none) {
            return;
        }
        self.given_up.had_by(self.label);
        self.dispatcher_failures.count_with_total("failures", Kind::ChannelClosed.chain());
        let kind = self.given_up.kind();
        spans::client_failed(self.span.0, &self.span.1, kind, "given up");
        match kind {
            Kind::Cancelled => self.endpoint.record_nothing(),
            _ => self.endpoint.record(false, clock::now()),
        }
        for s in &mut self.stats {
            if let Some(s) = s.take() {
                s.abandon(kind, None, clock::since(self.began));
            }
        }
    }
}

/// The client's own view of an error names no source: it is the source.
fn without_source(e: &Error) -> Error {
    Error { source: None, message: String::new(), ..e.clone() }
}

/// A nack that is not sent again any more.
fn give_up(e: Error) -> Error {
    match e.kind {
        Kind::Nacked => Error { kind: Kind::NackedForGood, safe_to_retry: false, ..e },
        _ => e,
    }
}

fn show(e: &io::Error) -> String {
    match e.kind() {
        io::ErrorKind::UnexpectedEof => "connection closed before message completed".to_owned(),
        _ => e.to_string(),
    }
}
