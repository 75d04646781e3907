//! The path stack: what every request to a logical name goes through, once per name and request dtab (http-behaviour
//! §1, §10).
//!
//! From the outside in, as [`PathStack::call`] runs it:
//!
//! 1. errors from below become responses here, so that they carry neither `Via` nor `l5d-success-class`;
//! 2. `l5d-dst-service`, `Via`, hop-by-hop headers: once per request, not per attempt;
//! 3. `l5d-success-class` on the way back, from the verdict below;
//! 4. the counts of the logical name: above the total time-out, so that it counts as a failure of the name;
//! 5. the total time-out: above the retries, so that it covers every attempt and the waits between;
//! 6. retries, within the name's budget; each binds anew, so that a changed binding or another branch is taken;
//! 7. binding, which the total time-out therefore covers too.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use http::Method;
use l5d_naming::{Bound as BoundName, Dtab, NameTree, Path};
use l5d_router::{
    classify::Class,
    clock,
    error::{Error, Kind},
    retry::RetryBudget,
    stats::{InFlight, Outcome, RequestStats},
};
use l5d_telemetry::{Counter, GaugeGuard, Scope, Stat};
use tokio::time::Instant;

use crate::{
    binding::{Binding, Current, Resolved},
    body::Body,
    classifiers::Classifier,
    codec::{RequestHead, Response},
    ctx::Ctx,
    duration::show_duration,
    headers,
    respond::{self, ErrorLimits},
    scopes::Scoped,
    settings::ServiceSettings,
    spans,
    stack::{
        bound::{Choice, Made, Picked},
        client::{Attempt, GivenUp},
    },
};

/// A classifier with what is true for every kind of it applied to one request.
pub(crate) trait Classify: Send + Sync {
    /// The verdict over a result.
    fn classify(&self, method: &Method, result: &Result<&Response, &Error>) -> Class;
}

/// The two rules that hold for every http classifier: a failed response that says `l5d-retryable: true` may be sent
/// again, and a streamed request never can (§10.1).
struct ForRequest<'a> {
    classifier: &'a dyn Classifier,
    streamed: bool,
}

impl Classify for ForRequest<'_> {
    fn classify(&self, method: &Method, result: &Result<&Response, &Error>) -> Class {
        let class = self.classifier.class(method, result);
        if class.is_success() {
            return class;
        }
        if self.streamed {
            return Class::FAILURE;
        }
        match result {
            Ok(response) if response.headers.get(headers::RETRYABLE) == Some(b"true") => Class::RETRYABLE,
            _ => class,
        }
    }
}

/// What belongs to a logical name, whatever dtab a request brings: its counts and budget. They end with the
/// last path stack that uses them.
pub(crate) struct Service {
    requests: RequestStats,
    retries_total: Counter,
    retries_per_request: Stat,
    budget_exhausted: Counter,
    budget: Arc<RetryBudget>,
    settings: ServiceSettings,
    _budget_gauge: GaugeGuard,
}

impl Service {
    /// Under `scope`, `rt/<label>/service/<path>`.
    pub(crate) fn new(scope: &Scope, settings: ServiceSettings) -> Self {
        let retries = scope.scope("retries");
        let budget = Arc::new(RetryBudget::from(&settings.budget));
        let shown = Arc::clone(&budget);
        Self {
            requests: RequestStats::new(scope),
            retries_total: retries.counter("total"),
            retries_per_request: retries.stat("per_request"),
            budget_exhausted: retries.counter("budget_exhausted"),
            #[expect(clippy::cast_precision_loss, reason = "a gauge of a small number")]
            _budget_gauge: retries.gauge("budget", move || shown.balance(Instant::now()) as f64),
            budget,
            settings,
        }
    }
}

/// The counts of one request to a name. Dropped unfinished, it was given up: by the requester, or by a time-out above.
struct Counting<'a> {
    in_flight: Option<InFlight<'a>>,
    began: Instant,
    given_up: &'a GivenUp,
}

impl Counting<'_> {
    fn finish(mut self, outcome: Outcome<'_>) {
        if let Some(f) = self.in_flight.take() {
            f.finish(outcome, clock::since(self.began));
        }
    }
}

impl Drop for Counting<'_> {
    fn drop(&mut self) {
        if let Some(f) = self.in_flight.take() {
            let kind = self.given_up.kind();
            let source = if kind == Kind::Cancelled { self.given_up.client() } else { None };
            f.abandon(kind, source, clock::since(self.began));
        }
    }
}

/// The stack of one logical name and request dtab.
pub(crate) struct PathStack {
    path: Path,
    local_dtab: Dtab,
    base_dtab: Arc<Dtab>,
    dst_service: String,
    service: Arc<Scoped<Service>>,
    binding: Binding,
    resolve: Resolve,
    limits: ErrorLimits,
    binding_timeout: Duration,
}

/// Finds or makes what is at the end of a way: of one name of a bound tree, or of none.
pub(crate) type Resolve = Box<dyn Fn(&NameTree<BoundName>, Option<&BoundName>, Weak<Current>) -> Made + Send + Sync>;

impl PathStack {
    #[expect(clippy::too_many_arguments, reason = "called in one place, with one name each")]
    pub(crate) fn new(
        path: Path,
        local_dtab: Dtab,
        base_dtab: Arc<Dtab>,
        service: Arc<Scoped<Service>>,
        binding: Binding,
        resolve: Resolve,
        limits: ErrorLimits,
        binding_timeout: Duration,
    ) -> Self {
        let dst_service = path.show();
        Self { path, local_dtab, base_dtab, dst_service, service, binding, resolve, limits, binding_timeout }
    }

    /// Answers a request. `picked` is the way it took last, in use while that is held: as long as a streamed response is
    /// under way.
    pub(crate) async fn call(
        &self,
        mut ctx: Ctx,
        head: &mut RequestHead,
        body: Body,
        peer: std::net::SocketAddr,
        picked: &mut Option<Picked>,
    ) -> Response {
        let version = head.version;
        head.headers.set(headers::DST_SERVICE, &self.dst_service);
        headers::append_via(&mut head.headers, version);
        headers::strip_hop_by_hop(&mut head.headers);

        let given_up = GivenUp::new(ctx.server_gave_up.clone());
        let counting =
            Counting { in_flight: Some(self.service.requests.begin()), began: clock::now(), given_up: &given_up };
        let (result, class) = match self.service.settings.total_timeout {
            None => self.retried(&ctx, head, body, &given_up, peer, picked).await,
            Some(limit) => {
                ctx.limit(limit);
                let mut calls = Box::pin(self.retried(&ctx, head, body, &given_up, peer, picked));
                match tokio::time::timeout(limit, &mut calls).await {
                    Ok(result) => result,
                    Err(_) => {
                        clock::event();
                        given_up.by_timeout();
                        drop(calls);
                        let text = format!(
                            "exceeded {} to unspecified while waiting for a response for the request, including \
                             retries (if applicable). Remote Info: Not Available",
                            show_duration(limit)
                        );
                        (Err(Error::new(Kind::TotalTimeout, text)), Class::FAILURE)
                    }
                }
            }
        };
        let outcome = match &result {
            Err(e) => Outcome::Error(e),
            Ok(_) if class.is_success() => Outcome::Success,
            Ok(_) => Outcome::FailedResponse,
        };
        counting.finish(outcome);

        match result {
            Ok(mut response) => {
                let verdict = if class.is_success() { "1.0" } else { "0.0" };
                headers::strip_hop_by_hop(&mut response.headers);
                headers::append_via(&mut response.headers, response.version);
                response.headers.set(headers::SUCCESS_CLASS, verdict);
                response
            }
            Err(e) => {
                spans::failed(&ctx, &e);
                respond::error(&e, self.limits)
            }
        }
    }

    /// Attempts until one is final.
    async fn retried(
        &self,
        ctx: &Ctx,
        head: &RequestHead,
        body: Body,
        given_up: &GivenUp,
        peer: std::net::SocketAddr,
        picked: &mut Option<Picked>,
    ) -> (Result<Response, Error>, Class) {
        let service = &self.service;
        let full = body.as_full().cloned();
        let classify = ForRequest { classifier: &*service.settings.classifier, streamed: full.is_none() };
        let mut body = Some(body);
        let mut backoff = service.settings.backoff.delays();
        let mut rng = fastrand::Rng::new();
        let mut retries = 0;
        service.budget.deposit(clock::now());
        let (result, class) = loop {
            let result = self.attempt(ctx, head, &mut body, full.clone(), given_up, &classify, peer, picked).await;
            let class = classify.classify(&head.method, &result.as_ref());
            if !class.is_retryable() {
                break (result, class);
            }
            if !service.budget.try_withdraw(clock::now()) {
                service.budget_exhausted.incr();
                break (result, class);
            }
            drop(result);
            *picked = None;
            spans::retried(ctx);
            service.retries_total.incr();
            retries += 1;
            let wait = backoff.next(&mut rng);
            if !wait.is_zero() {
                tokio::time::sleep(wait).await;
                clock::event();
            }
        };
        service.retries_per_request.add(retries);
        (result, class)
    }

    #[expect(clippy::too_many_arguments, reason = "one request's parts; each layer uses some")]
    async fn attempt(
        &self,
        ctx: &Ctx,
        head: &RequestHead,
        body: &mut Option<Body>,
        full: Option<bytes::Bytes>,
        given_up: &GivenUp,
        classify: &dyn Classify,
        peer: std::net::SocketAddr,
        picked: &mut Option<Picked>,
    ) -> Result<Response, Error> {
        let way = loop {
            if let Some(way) = self.pick() {
                break way?;
            }
            if !self.binding.settled(self.binding_timeout).await {
                let limit = show_duration(self.binding_timeout);
                let text = format!("Exceeded {limit} binding timeout while resolving name: {}", self.path);
                return Err(Error::new(Kind::BindingTimeout, text));
            }
        };
        let leaf = &*picked.insert(way).leaf;
        let Some(bound) = &leaf.bound else { return Err(self.no_route()) };
        let way = || {
            let table = || self.base_dtab.concat(&self.local_dtab);
            leaf.way.get_or_init(|| spans::way(&table(), &self.path, bound.client.id())).clone()
        };
        spans::bound(ctx, bound.client.id(), bound.residual.as_deref(), way);
        let attempt = Attempt {
            head,
            body,
            full,
            ctx,
            service: &self.path,
            residual: bound.residual.as_deref(),
            classify,
            given_up,
            service_stats: &leaf.service_stats,
            peer,
            binding_timeout: self.binding_timeout,
            refused_by: None,
        };
        // Boxed here: the futures above are moved into one another, and would all be as large as what is below.
        let called = Box::pin(bound.client.call(attempt)).await;
        called.map_err(|e| if e.kind == Kind::NoBrokers { self.no_route() } else { e })
    }

    /// One of the ways of what the name is bound to; `None` while that is not known.
    fn pick(&self) -> Option<Result<Picked, Error>> {
        match &**self.binding.now() {
            Resolved::Pending => None,
            Resolved::Failed(why) => Some(Err(Error::new(Kind::NamingFailed, why.as_ref()))),
            Resolved::Tree(tree, choice) => {
                let home = || Arc::downgrade(self.binding.current());
                let choice = choice.get_or_init(|| Choice::of(tree));
                Some(Ok(choice.pick(|name| (self.resolve)(tree, name, home()))))
            }
        }
    }

    /// What Linkerd says when a name leads nowhere (template A).
    fn no_route(&self) -> Error {
        let list = |dtab: &Dtab| {
            dtab.entries().iter().map(|d| format!("  {} => {}", d.prefix, d.dst)).collect::<Vec<_>>().join("\n")
        };
        let text = format!(
            "Unable to route request!\n\nservice name: {}\ndtab:\n\nbase dtab:\n{}\noverride dtab:\n{}\n",
            self.path,
            list(&self.base_dtab),
            list(&self.local_dtab),
        );
        Error::new(Kind::NoBrokers, text)
    }
}
