//! What each metric is called in the modern face, what it means, and in which unit: one table, not a text per series.
//!
//! A path of the tree has two parts: whose it is (a server, a service, a client, the process) and what it measures. The
//! first gives the family's prefix, its labels and the end of its help; the second is looked up here. So `requests` stands
//! here once, and is `l5d_server_requests_total`, `l5d_service_requests_total` and so on.
//!
//! What stands in a path for a value (a status, an exception) becomes a label. Nothing of a request ever becomes part of a
//! name. What this file doesn't know is shown under `l5d_unlisted…` with its path as a label: a family cannot be forgotten,
//! and two metrics never come to one series.
//!
//! Failures: Finagle counts one failure under its total, under each flag, and under each exception of its chain of causes.
//! Here these are families of their own, each a partition of the total: by flag, by cause (the outermost exception), by
//! nested cause. A failure that has flags is counted by cause beneath `restartable` or `nonretryable`, of which each has
//! exactly one, and not again beneath `rejected`.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::LazyLock;

use crate::collide::Kind;
use crate::visit::MetricRef;

pub mod listing;

/// A family of the modern face.
#[derive(Debug)]
pub(crate) struct Family {
    /// Without `_total`.
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) unit: Unit,
    /// What it measures, where, in which unit.
    pub(crate) help: String,
    pub(crate) labels: Vec<&'static str>,
}

/// The unit a family is shown in, and what it is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// A number of things.
    None,
    /// Seconds, counted in milliseconds.
    Millis,
    /// Seconds, counted in microseconds.
    Micros,
    /// Bytes.
    Bytes,
    /// A share, counted in per cent.
    Percent,
}

/// Where a metric belongs in the modern face.
pub(crate) struct Classified<'a> {
    /// Its family: an index of [`families`].
    pub(crate) family: u16,
    /// The values of the family's labels.
    pub(crate) values: Vec<Cow<'a, str>>,
}

/// Whose a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Whose {
    Server,
    Service,
    Client,
    ClientService,
    Router,
    Admin,
    Tracer,
    Process,
    Statsd,
    Zipkin,
    Otlp,
    OtlpClient,
    History,
    Face,
    Series,
}

/// A line of the tables: the keys of the path, `*` for a value; kind; name; unit; the labels that `*` stands for; help;
/// where it is counted, and what moves it there.
struct Row(&'static str, Kind, &'static str, Unit, &'static [&'static str], &'static str, &'static [Moves]);

/// What moves a metric of a row, in these places.
#[derive(Clone, Copy)]
enum Moves {
    /// This.
    When(&'static [Whose], &'static str),
    /// This, which takes longer, or needs more, than a test of the whole process can wait for: the unit test of that name
    /// makes it happen.
    Slow(&'static [Whose], &'static str, &'static str),
    /// Nothing: it is there for those who ask for it, and always the same. This is why.
    Still(&'static [Whose], &'static str),
}

use Kind::{Counter as C, Gauge as G, Stat as S};
use Moves::{Slow, Still, When};
use Unit::{Bytes, Micros, Millis, None as N, Percent};

// Where rows are counted.
const EVERY: &[Whose] = &[
    Whose::Server,
    Whose::Service,
    Whose::Client,
    Whose::ClientService,
    Whose::Admin,
    Whose::Tracer,
    Whose::OtlpClient,
];
const ROUTED: &[Whose] = &[Whose::Server, Whose::Service, Whose::Client, Whose::ClientService];
const NAMED: &[Whose] = &[Whose::Server, Whose::Service];
const ENDS: &[Whose] = &[Whose::Server, Whose::Client];
const CLIENTS: &[Whose] = &[Whose::Client, Whose::Tracer, Whose::OtlpClient];
const COLLECTORS: &[Whose] = &[Whose::Tracer, Whose::OtlpClient];
const CONNECTED: &[Whose] = &[Whose::Server, Whose::Client, Whose::Admin, Whose::Tracer, Whose::OtlpClient];
const HTTP: &[Whose] = &[Whose::Server, Whose::Client, Whose::Admin];
const SERVER: &[Whose] = &[Whose::Server];
const SERVICE: &[Whose] = &[Whose::Service];
const CLIENT: &[Whose] = &[Whose::Client];
const BUDGETED: &[Whose] = &[Whose::Service, Whose::Client];
const ADMIN: &[Whose] = &[Whose::Admin];
const SERVERS: &[Whose] = &[Whose::Server, Whose::Admin];
const OTHERS: &[Whose] = &[Whose::Admin, Whose::Tracer, Whose::OtlpClient];
const ROUTERS: &[Whose] = &[Whose::Router];
const PROCESSES: &[Whose] = &[Whose::Process];
const HISTORIES: &[Whose] = &[Whose::History];
const PAGES: &[Whose] = &[Whose::Face];
const TREES: &[Whose] = &[Whose::Series];
const STATSDS: &[Whose] = &[Whose::Statsd];
const TRACERS: &[Whose] = &[Whose::Zipkin, Whose::Otlp];
const OTLP_TELEMETERS: &[Whose] = &[Whose::Otlp];

/// The families that are always first.
const GOLDEN: [&str; 5] = ["requests", "success", "failures", "request_latency_ms", "pending"];

/// What a server, a service or a client measures.
#[rustfmt::skip]
const STACK: &[Row] = &[
    Row("requests", C, "requests", N, &[], "Requests that completed, however they ended",
        &[When(EVERY, "a request ends: with the head of its answer, or with why there is none")]),
    Row("success", C, "successes", N, &[], "Requests that the response classifier takes for a success",
        &[When(EVERY, "a request ends with an answer that the classifier takes for a success")]),
    Row("failures", C, "failures", N, &[], "Requests that the response classifier takes for a failure, or that got no response",
        &[When(EVERY, "a request ends otherwise")]),
    Row("request_latency_ms", S, "request_duration", Millis, &[], "Time from the request's arrival here to the head of its response",
        &[When(EVERY, "a request ends")]),
    Row("pending", G, "requests_pending", N, &[], "Requests that are inside now",
        &[When(EVERY, "a request begins, and ends")]),
    Row("failures/*flag", C, "failures_by_flag", N, &["flag"], "Failures by Finagle's flags; a failure may have several",
        &[When(ROUTED, "a failure says whether the request may be sent again")]),
    Row("failures/*cause", C, "failures_by_cause", N, &["flag", "cause"], "Failures by the outermost exception; they add up to the failures",
        &[When(EVERY, "a request fails, by what went wrong")]),
    Row("failures/*nested", C, "failures_by_nested_cause", N, &["flag", "cause", "nested"], "Failures by the exceptions inside of the outermost one",
        &[When(ROUTED, "what went wrong had a cause of its own")]),
    Row("sourcedfailures/*", C, "failures_by_source", N, &["source"], "Failures by the client in which they happened",
        &[When(NAMED, "a request fails, and it is known where")]),
    Row("sourcedfailures/*flag", C, "failures_by_source_and_flag", N, &["source", "flag"], "Failures by the client in which they happened and Finagle's flags",
        &[When(SERVICE, "the same, of failures with flags")]),
    Row("sourcedfailures/*cause", C, "failures_by_source_and_cause", N, &["source", "flag", "cause"], "Failures by the client in which they happened and the outermost exception",
        &[When(NAMED, "the same, by what went wrong")]),
    Row("sourcedfailures/*nested", C, "failures_by_source_and_nested_cause", N, &["source", "flag", "cause", "nested"], "Failures by the client in which they happened and the exceptions inside of the outermost one",
        &[When(SERVICE, "the same, by the cause of that")]),
    Row("status/XX", C, "responses_by_class", N, &["class"], "Responses by the class of their status",
        &[When(ENDS, "there is the head of an answer")]),
    Row("status/*", C, "responses", N, &["status"], "Responses by status",
        &[When(ENDS, "there is the head of an answer")]),
    Row("status/error", C, "unanswered", N, &[], "Requests that ended in an error of the transport, without a response",
        &[When(CLIENT, "an attempt ends without an answer"), Still(SERVER, "whatever goes wrong is answered, and counted by its status")]),
    Row("time/XX", S, "response_duration", Millis, &["class"], "Time to the head of a response, by the class of its status",
        &[When(ENDS, "there is the head of an answer")]),
    Row("time/error", S, "unanswered_duration", Millis, &[], "Time to an error of the transport",
        &[When(CLIENT, "an attempt ends without an answer"), Still(SERVER, "whatever goes wrong is answered, and timed by its status")]),
    Row("retries/total", C, "retries", N, &[], "Requests that were sent again because of the class of their response",
        &[When(SERVICE, "a request is sent again")]),
    Row("retries/per_request", S, "retries_per_request", N, &[], "Retries that a request took",
        &[When(SERVICE, "a request ends: 0 for most")]),
    Row("retries/budget", G, "retry_budget", N, &[], "Retries that could be had now",
        &[When(BUDGETED, "requests earn, retries and requeues spend")]),
    Row("retries/budget_exhausted", C, "retry_budget_exhausted", N, &[], "Retries that were wanted and that the budget did not allow",
        &[When(BUDGETED, "one more try is wanted, and the budget is empty")]),
    Row("retries/requeues", C, "requeues", N, &[], "Attempts that were repeated because nothing of them had reached an endpoint",
        &[When(CLIENT, "an attempt is repeated: no connection could be made, or nothing was done")]),
    Row("retries/requeues_per_request", S, "requeues_per_request", N, &[], "Requeues that a request took",
        &[When(CLIENT, "a request ends: 0 for most")]),
    Row("retries/request_limit", C, "requeue_limit_reached", N, &[], "Requeues that were wanted after a request had had its share",
        &[When(CLIENT, "one more is wanted, and the request has had a fifth of the budget")]),
    Row("retries/cannot_retry", C, "requeues_impossible", N, &[], "Requeues that were wanted while the client was not open",
        &[When(CLIENT, "one more is wanted, and no endpoint is open")]),
    Row("retries/not_open", C, "acquisitions_not_open", N, &[], "Connections that could not be had while the client was not open",
        &[When(CLIENT, "a connect fails, and no endpoint is open")]),
    Row("service_creation/service_acquisition_latency_ms", S, "acquisition_duration", Millis, &[], "Time to get a connection from the balancer and its pool",
        &[When(CLIENTS, "a connection was had, or could not be had")]),
    Row("service_creation/failures", C, "acquisition_failures", N, &[], "Attempts for which no connection could be had",
        &[When(CLIENTS, "no connection could be had")]),
    Row("service_creation/failures/*cause", C, "acquisition_failures_by_cause", N, &["flag", "cause"], "Attempts for which no connection could be had, by the outermost exception",
        &[When(CLIENTS, "the same, by what went wrong")]),
    Row("service_creation/failures/*nested", C, "acquisition_failures_by_nested_cause", N, &["flag", "cause", "nested"], "Attempts for which no connection could be had, by the exceptions inside of the outermost one",
        &[When(CLIENT, "the same, by the cause of that")]),
    Row("nack_admission_control/dropped_requests", C, "admission_dropped", N, &[], "Requests that were held back because the upstream keeps saying that it is overloaded",
        &[Slow(CLIENT, "for two minutes most answers were refusals", "throttles_only_after_many_nacks")]),
    Row("nack_admission_control/ema_value", G, "admission_accepted", Percent, &[], "Moving share of responses that are no refusals",
        &[When(CLIENT, "an endpoint refuses, and answers after that")]),
    Row("loadbalancer/size", G, "balancer_endpoints", N, &[], "Endpoints that the name has",
        &[When(CLIENT, "discovery adds or removes")]),
    Row("loadbalancer/available", G, "balancer_endpoints_available", N, &[], "Endpoints that may be picked",
        &[When(CLIENT, "endpoints come, go, die and come back")]),
    Row("loadbalancer/busy", G, "balancer_endpoints_busy", N, &[], "Endpoints that failure accrual holds for dead",
        &[When(CLIENT, "endpoints die and come back")]),
    Row("loadbalancer/closed", G, "balancer_endpoints_closed", N, &[], "Endpoints that are closed",
        &[Still(CLIENT, "an endpoint is closed when discovery has removed it, and then it is not counted")]),
    Row("loadbalancer/load", G, "balancer_load", N, &[], "Requests that are outstanding at the endpoints",
        &[When(CLIENT, "a request is sent, and ends")]),
    Row("loadbalancer/adds", C, "balancer_adds", N, &[], "Endpoints that discovery added",
        &[When(CLIENT, "discovery adds an endpoint")]),
    Row("loadbalancer/removes", C, "balancer_removes", N, &[], "Endpoints that discovery took away",
        &[When(CLIENT, "discovery removes an endpoint")]),
    Row("loadbalancer/updates", C, "balancer_updates", N, &[], "Changes of the set of endpoints",
        &[When(CLIENT, "the set of endpoints changes, once for each weight")]),
    Row("loadbalancer/rebuilds", C, "balancer_rebuilds", N, &[], "Times the balancer was put together anew",
        &[When(CLIENT, "the set changes, or a pick finds it stale")]),
    Row("loadbalancer/max_effort_exhausted", C, "balancer_effort_exhausted", N, &[], "Picks that found nothing available in five tries",
        &[When(CLIENT, "five picks in a row find nothing open")]),
    Row("loadbalancer/algorithm/*", G, "balancers", N, &["algorithm"], "Balancers of this algorithm, one for each weight",
        &[When(CLIENT, "weights come and go")]),
    Row("loadbalancer/meanweight", G, "balancer_mean_weight", N, &[], "Mean weight of the endpoints",
        &[When(CLIENT, "the set of endpoints changes")]),
    Row("loadbalancer/num_weight_classes", G, "balancer_weight_classes", N, &[], "Different weights of endpoints",
        &[When(CLIENT, "the set of endpoints changes")]),
    Row("loadbalancer/busy_weight_classes", C, "balancer_weight_class_busy", N, &[], "Picks that took another weight because the one picked had nothing available",
        &[When(CLIENT, "the weight picked has nothing open, and another one has")]),
    Row("loadbalancer/logical_aperture", G, "balancer_logical_aperture", N, &[], "Endpoints in the aperture",
        &[When(CLIENT, "the aperture widens or narrows")]),
    Row("loadbalancer/physical_aperture", G, "balancer_physical_aperture", N, &[], "Endpoints in the aperture that there are",
        &[When(CLIENT, "the aperture widens or narrows")]),
    Row("loadbalancer/use_deterministic_ordering", G, "balancer_deterministic", N, &[], "1 when apertures are dealt out deterministically",
        &[Still(CLIENT, "apertures are of random order, as in Linkerd")]),
    Row("loadbalancer/eager_connections", G, "balancer_eager_connections", N, &[], "1 when connections are made ahead",
        &[Still(CLIENT, "connections are made when they are needed")]),
    Row("loadbalancer/vector_hash", G, "balancer_vector_hash", N, &[], "Hash of the endpoints in the aperture",
        &[When(CLIENT, "the set of endpoints changes")]),
    Row("loadbalancer/coordinate_updates", C, "balancer_coordinate_updates", N, &[], "Changes of the process' coordinate",
        &[Still(CLIENT, "the process has no coordinate, as in Linkerd")]),
    Row("loadbalancer/expired", C, "balancer_endpoints_expired", N, &[], "Endpoints outside of the aperture that were closed for being idle",
        &[When(CLIENT, "an endpoint outside of the aperture was idle for ten windows")]),
    Row("loadbalancer/loadband/widen", C, "balancer_aperture_widenings", N, &[], "Times the aperture was widened",
        &[When(CLIENT, "the load per endpoint reaches `highLoad`")]),
    Row("loadbalancer/loadband/narrow", C, "balancer_aperture_narrowings", N, &[], "Times the aperture was narrowed",
        &[When(CLIENT, "the load per endpoint falls to `lowLoad`")]),
    Row("loadbalancer/loadband/offered_load_ema", G, "balancer_offered_load", N, &[], "Moving average of the load per endpoint",
        &[When(CLIENT, "a request is sent, and ends")]),
    Row("available", G, "endpoints_available", N, &[], "Endpoints that were used and are open",
        &[When(CLIENT, "an endpoint is used for the first time, dies, comes back"), Still(COLLECTORS, "1: a collector is never given up")]),
    Row("failure_accrual/removals", C, "accrual_removals", N, &[], "Endpoints that were given up as dead",
        &[When(CLIENT, "an endpoint is marked dead")]),
    Row("failure_accrual/revivals", C, "accrual_revivals", N, &[], "Endpoints that came back",
        &[When(CLIENT, "a probe succeeds")]),
    Row("failure_accrual/probes", C, "accrual_probes", N, &[], "Requests that tried a dead endpoint",
        &[When(CLIENT, "a request is sent to see whether a dead endpoint lives")]),
    Row("failure_accrual/removed_for_ms", C, "accrual_removed", Millis, &[], "Time for which endpoints were given up, as planned",
        &[When(CLIENT, "an endpoint is marked dead, by the time that it will be")]),
    Row("pool_size", G, "pool_in_use", N, &[], "Connections that are in use",
        &[When(CLIENT, "a connection is taken, and given back"), Still(COLLECTORS, "there is one connection")]),
    Row("pool_cached", G, "pool_idle", N, &[], "Connections that wait for a request",
        &[When(CLIENTS, "a connection is parked, and taken")]),
    Row("pool_waiters", G, "pool_waiters", N, &[], "Requests that wait for a connection",
        &[When(CLIENT, "a request waits for a connection, and gets it"), Still(COLLECTORS, "there is one connection, and nobody waits for it")]),
    Row("pool_num_waited", C, "pool_waits", N, &[], "Requests that had to wait for a connection",
        &[When(CLIENT, "a request begins to wait"), Still(COLLECTORS, "there is one connection, and nobody waits for it")]),
    Row("pool_num_too_many_waiters", C, "pool_waits_refused", N, &[], "Requests that were refused because too many wait",
        &[When(CLIENT, "`maxWaiters` wait already"), Still(COLLECTORS, "there is one connection, and nobody waits for it")]),
    Row("failfast/marked_available", C, "failfast_marked_available", N, &[], "Endpoints that fail fast no more",
        &[When(CLIENT, "a connect succeeds again")]),
    Row("failfast/marked_dead", C, "failfast_marked_dead", N, &[], "Endpoints that fail fast from then on",
        &[When(CLIENT, "a connect fails")]),
    Row("failfast/is_marked_dead", G, "failfast_dead", N, &[], "Endpoints that fail fast now",
        &[When(CLIENT, "a connect fails, and succeeds again")]),
    Row("failfast/unhealthy_for_ms", G, "failfast_unhealthy", Millis, &[], "Time since endpoints fail fast",
        &[When(CLIENT, "each try to connect again")]),
    Row("failfast/unhealthy_num_tries", G, "failfast_unhealthy_tries", N, &[], "Tries to connect to endpoints that fail fast",
        &[When(CLIENT, "each try to connect again")]),
    Row("idle", C, "sessions_idled_out", N, &[], "Connections that were closed for being idle",
        &[When(ENDS, "a connection is closed for being idle")]),
    Row("lifetime", C, "sessions_aged_out", N, &[], "Connections that were closed for their age",
        &[When(ENDS, "a connection is closed for its age")]),
    Row("connect_latency_ms", S, "connect_duration", Millis, &[], "Time to connect",
        &[When(CLIENTS, "a connect succeeds")]),
    Row("failed_connect_latency_ms", S, "failed_connect_duration", Millis, &[], "Time to a connect that failed",
        &[When(CLIENTS, "a connect fails")]),
    Row("codec_connection_preparation_latency_ms", S, "connection_preparation_duration", Millis, &[], "Time until a new connection could be used",
        &[When(COLLECTORS, "a connect succeeds")]),
    Row("cancelled_connects", C, "connects_cancelled", N, &[], "Connects that were given up because the requester went away",
        &[When(CLIENT, "nobody wants the connection any more that is being made"), Slow(COLLECTORS, "the process ends while a connection is being made", "a_connect_that_is_given_up_is_counted")]),
    Row("connects", C, "connects", N, &[], "Connections that were established",
        &[When(CONNECTED, "a connection is there")]),
    Row("closes", C, "closes", N, &[], "Connections that were closed on this side",
        &[When(CONNECTED, "this side closes a connection")]),
    Row("connections", G, "connections", N, &[], "Connections that are open",
        &[When(CONNECTED, "a connection is there, and ends")]),
    Row("tls/connections", G, "tls_connections", N, &[], "Connections with TLS that are open",
        &[When(HTTP, "a TLS handshake succeeds, and its connection ends")]),
    Row("tls/handshake_latency_ms", S, "tls_handshake_duration", Millis, &[], "Time of a TLS handshake",
        &[When(HTTP, "a TLS handshake succeeds")]),
    Row("tls/failed_handshake_latency_ms", S, "tls_failed_handshake_duration", Millis, &[], "Time to a TLS handshake that failed",
        &[When(HTTP, "a TLS handshake fails")]),
    Row("received_bytes", C, "received", Bytes, &[], "Bytes that were received, above TLS",
        &[When(CONNECTED, "bytes are read")]),
    Row("sent_bytes", C, "sent", Bytes, &[], "Bytes that were sent, above TLS",
        &[When(CONNECTED, "bytes are written")]),
    Row("connection_duration", S, "connection_duration", Millis, &[], "Life of a connection that ended",
        &[When(CONNECTED, "a connection ends")]),
    Row("connection_received_bytes", S, "connection_received", Bytes, &[], "Bytes received on a connection that ended",
        &[When(CONNECTED, "a connection ends")]),
    Row("connection_sent_bytes", S, "connection_sent", Bytes, &[], "Bytes sent on a connection that ended",
        &[When(CONNECTED, "a connection ends")]),
    Row("connection_requests", S, "connection_requests", N, &[], "Messages on a connection that ended",
        &[When(CONNECTED, "a connection ends")]),
    Row("socket_writable_ms", C, "socket_writable", Millis, &[], "Time in which sockets could be written to",
        &[When(CONNECTED, "a connection ends")]),
    Row("socket_unwritable_ms", C, "socket_unwritable", Millis, &[], "Time in which sockets could not be written to",
        &[When(HTTP, "a peer reads on that had let the socket fill up"), Slow(COLLECTORS, "a collector reads late", "a_collector_that_reads_late_makes_the_socket_unwritable")]),
    Row("pending_io_events", G, "io_events_pending", N, &[], "Tasks that wait for the event loop",
        &[Still(ENDS, "no runtime of l5d queues tasks by connection"), When(ADMIN, "tasks wait for the thread of the admin server")]),
    Row("tcp_retransmits", C, "tcp_retransmits", N, &[], "Segments that TCP sent again",
        &[Slow(HTTP, "a network loses segments", "an_open_connection_is_sampled_every_half_minute_and_only_new_retransmits_are_told")]),
    Row("tcp_send_window_size", S, "tcp_send_window", Bytes, &[], "TCP's send window",
        &[When(HTTP, "a connection is there, and every 30 s from then on")]),
    Row("exn/*cause", C, "connection_exceptions", N, &["flag", "exception"], "Exceptions of connections",
        &[When(CONNECTED, "a connection breaks, or its TLS handshake fails")]),
    Row("read_timeout", C, "read_timeouts", N, &[], "Reads that took too long",
        &[When(HTTP, "`socketOptions.readTimeoutMs` is over")]),
    Row("write_timeout", C, "write_timeouts", N, &[], "Writes that took too long",
        &[When(HTTP, "`socketOptions.writeTimeoutMs` is over")]),
    Row("rejected_invalid_header_names", C, "rejected_header_names", N, &[], "Requests that were refused for the name of a header",
        &[When(SERVER, "a 400 for the name of a header")]),
    Row("rejected_invalid_header_values", C, "rejected_header_values", N, &[], "Requests that were refused for the value of a header",
        &[When(SERVER, "a 400 for the value of a header")]),
    Row("dispatcher/serial/queue_size", G, "dispatch_queue", N, &[], "Requests that wait behind others on their connections",
        &[Still(CLIENT, "a connection that is in use is nobody else's")]),
    Row("dispatcher/stream/failures", C, "dispatch_failures", N, &[], "Exchanges that broke off while bodies were under way",
        &[When(CLIENT, "an exchange breaks off")]),
    Row("dispatcher/stream/failures/*cause", C, "dispatch_failures_by_cause", N, &["flag", "cause"], "Exchanges that broke off while bodies were under way, by the outermost exception",
        &[When(CLIENT, "the same, by what went wrong")]),
    Row("dispatcher/stream/failures/*nested", C, "dispatch_failures_by_nested_cause", N, &["flag", "cause", "nested"], "Exchanges that broke off while bodies were under way, by the exceptions inside of the outermost one",
        &[When(CLIENT, "the same, by the cause of that")]),
    Row("dispatch/stream/failures", C, "response_failures", N, &[], "Responses that broke off while they were written",
        &[When(SERVER, "a streamed answer breaks off")]),
    Row("dispatch/stream/failures/*cause", C, "response_failures_by_cause", N, &["flag", "cause"], "Responses that broke off while they were written, by the outermost exception",
        &[When(SERVER, "the same, by what went wrong")]),
    Row("request_payload_bytes", S, "request_body", Bytes, &[], "Size of request bodies that were held whole",
        &[When(HTTP, "a request has no body, or a short one of known length")]),
    Row("response_payload_bytes", S, "response_body", Bytes, &[], "Size of response bodies that were held whole",
        &[When(HTTP, "an answer has no body, or a short one of known length")]),
    Row("stream/%/chunk_payload_bytes", S, "stream_chunk", Bytes, &["direction"], "Size of the pieces of streamed bodies",
        &[When(HTTP, "a piece of a streamed body passes")]),
    Row("http/stream/%/opened", C, "streams_opened", N, &["direction"], "Bodies that began to be streamed",
        &[When(HTTP, "the head of a message is there whose body is streamed")]),
    Row("http/stream/%/closed", C, "streams_closed", N, &["direction"], "Streamed bodies that ended, either way",
        &[When(HTTP, "a streamed body ends")]),
    Row("http/stream/%/pending", G, "streams_pending", N, &["direction"], "Streamed bodies that are under way",
        &[When(HTTP, "a streamed body begins, and ends")]),
    Row("http/stream/%/duration_ms", S, "stream_duration", Millis, &["direction"], "Time that a streamed body took",
        &[When(HTTP, "a streamed body ends")]),
    Row("http/stream/%/failures", C, "stream_failures", N, &["direction"], "Streamed bodies that broke off",
        &[When(ENDS, "a streamed body breaks off")]),
    Row("http/stream/%/failures/*cause", C, "stream_failures_by_cause", N, &["direction", "flag", "cause"], "Streamed bodies that broke off, by the outermost exception",
        &[When(ENDS, "the same, by what went wrong")]),
    Row("handletime_us", S, "handle_duration", Micros, &[], "Time until a request was handed on",
        &[When(SERVERS, "a request was handed on")]),
    Row("transit_latency_ms", S, "transit_duration", Millis, &[], "Time that a request was under way to here, as its deadline tells",
        &[When(SERVER, "a request with `l5d-ctx-deadline` comes"), Still(ADMIN, "the admin server knows no deadlines")]),
    Row("dtab/size", S, "request_dtab_entries", N, &[], "Entries of dtabs that came with requests",
        &[When(ENDS, "a request with a dtab of its own comes"), Still(OTHERS, "no dtabs here")]),
    Row("admission_control/deadline/exceeded", C, "deadline_exceeded", N, &[], "Requests that came after their deadline",
        &[When(SERVER, "a request comes after its deadline"), Still(ADMIN, "the admin server knows no deadlines")]),
    Row("admission_control/deadline/rejected", C, "deadline_rejected", N, &[], "Requests that were refused for their deadline",
        &[When(SERVER, "the same, and no more than a fifth of its connection's requests were late: it would be refused if deadlines refused"), Still(ADMIN, "the admin server knows no deadlines")]),
    Row("admission_control/deadline/expired_ms", S, "deadline_expired", Millis, &[], "How late requests came",
        &[When(SERVER, "a request comes after its deadline"), Still(ADMIN, "the admin server knows no deadlines")]),
    Row("admission_control/deadline/remaining_ms", S, "deadline_remaining", Millis, &[], "Time that requests had left",
        &[When(SERVER, "a request comes before its deadline"), Still(ADMIN, "the admin server knows no deadlines")]),
    Row("nacks", C, "nacks", N, &[], "Requests that were refused and may be sent again",
        &[When(SERVER, "`maxConcurrentRequests` are inside already"), Still(ADMIN, "the admin server has no limit of requests")]),
    Row("nonretryable_nacks", C, "nonretryable_nacks", N, &[], "Requests that were refused and may not be sent again",
        &[Still(SERVERS, "nothing that a server refuses is refused for good")]),
    Row("request_concurrency", G, "request_concurrency", N, &[], "Requests that count towards the limit of concurrent ones",
        &[When(SERVER, "a request begins, and ends")]),
    Row("request_queue_size", G, "request_queue", N, &[], "Requests that wait for the limit of concurrent ones",
        &[Still(SERVER, "beyond `maxConcurrentRequests` nothing waits")]),
    Row("thread_usage/requests/per_thread/*", C, "thread_requests", N, &["thread"], "Requests by the thread that took them",
        &[When(SERVERS, "a request is taken")]),
    Row("thread_usage/requests/mean", G, "thread_requests_mean", N, &[], "Mean of the last minute's requests per thread",
        &[Slow(SERVER, "a minute ends", "a_minute_tells_how_evenly_workers_were_used"), Slow(ADMIN, "a minute ends", "a_minute_tells_how_evenly_threads_were_used")]),
    Row("thread_usage/requests/stddev", G, "thread_requests_stddev", N, &[], "Standard deviation of the last minute's requests per thread",
        &[Slow(SERVER, "a minute ends", "a_minute_tells_how_evenly_workers_were_used"), Slow(ADMIN, "a minute ends", "a_minute_tells_how_evenly_threads_were_used")]),
    Row("thread_usage/requests/relative_stddev", G, "thread_requests_relative_stddev", N, &[], "The same, as a share of the mean",
        &[Slow(SERVER, "a minute ends", "a_minute_tells_how_evenly_workers_were_used"), Slow(ADMIN, "a minute ends", "a_minute_tells_how_evenly_threads_were_used")]),
];

/// What a router measures besides.
#[rustfmt::skip]
const ROUTER: &[Row] = &[
    Row("bindcache/path/misses", C, "path_cache_misses", N, &[], "Logical names that were worked out anew",
        &[When(ROUTERS, "a name with its dtab is looked up that is not there")]),
    Row("bindcache/path/evicts", C, "path_cache_evicts", N, &[], "Logical names that made room for others",
        &[When(ROUTERS, "the cache is full, and something idle makes room")]),
    Row("bindcache/path/expires", C, "path_cache_expires", N, &[], "Logical names that were idle for too long",
        &[When(ROUTERS, "something was idle for `idleTtlSecs`")]),
    Row("bindcache/path/oneshots", C, "path_cache_oneshots", N, &[], "Logical names that were worked out for one use, the cache being full",
        &[When(ROUTERS, "the cache is full, and nothing is idle")]),
    Row("bindcache/tree/misses", C, "tree_cache_misses", N, &[], "Name trees that were worked out anew",
        &[When(ROUTERS, "a tree of bindings is looked up that is not there")]),
    Row("bindcache/tree/evicts", C, "tree_cache_evicts", N, &[], "Name trees that made room for others",
        &[When(ROUTERS, "the cache is full, and something idle makes room")]),
    Row("bindcache/tree/expires", C, "tree_cache_expires", N, &[], "Name trees that were idle for too long",
        &[When(ROUTERS, "something was idle for `idleTtlSecs`")]),
    Row("bindcache/tree/oneshots", C, "tree_cache_oneshots", N, &[], "Name trees that were worked out for one use, the cache being full",
        &[When(ROUTERS, "the cache is full, and nothing is idle")]),
    Row("bindcache/bound/misses", C, "bound_cache_misses", N, &[], "Bound names that were worked out anew",
        &[When(ROUTERS, "a bound name is looked up that is not there")]),
    Row("bindcache/bound/evicts", C, "bound_cache_evicts", N, &[], "Bound names that made room for others",
        &[When(ROUTERS, "the cache is full, and something idle makes room")]),
    Row("bindcache/bound/expires", C, "bound_cache_expires", N, &[], "Bound names that were idle for too long",
        &[When(ROUTERS, "something was idle for `idleTtlSecs`")]),
    Row("bindcache/bound/oneshots", C, "bound_cache_oneshots", N, &[], "Bound names that were worked out for one use, the cache being full",
        &[When(ROUTERS, "the cache is full, and nothing is idle")]),
    Row("bindcache/client/misses", C, "client_cache_misses", N, &[], "Clients that were made anew",
        &[When(ROUTERS, "a client is looked up that is not there")]),
    Row("bindcache/client/evicts", C, "client_cache_evicts", N, &[], "Clients that made room for others",
        &[When(ROUTERS, "the cache is full, and something idle makes room")]),
    Row("bindcache/client/expires", C, "client_cache_expires", N, &[], "Clients that were idle for too long",
        &[When(ROUTERS, "something was idle for `idleTtlSecs`")]),
    Row("bindcache/client/oneshots", C, "client_cache_oneshots", N, &[], "Clients that were made for one use, the cache being full",
        &[When(ROUTERS, "the cache is full, and nothing is idle")]),
    Row("access_log/dropped", C, "access_log_dropped", N, &[], "Lines of the access log that were dropped",
        &[When(ROUTERS, "the disk is slower than the requests, and 10 000 lines wait")]),
    Row("originator", G, "originator", N, &[], "1 when the router is said to be the first on a request's way",
        &[Still(ROUTERS, "1 with `originator: true`, not there without")]),
];

#[rustfmt::skip]
const HISTORY: &[Row] = &[
    Row("scopes", G, "scopes", N, &[], "Routers, servers, services, clients and pairs whose last hour is kept",
        &[When(HISTORIES, "a name comes, or goes")]),
    Row("left_out", G, "left_out", N, &[], "Those that the memory limit leaves out",
        &[When(HISTORIES, "`admin.history` has no memory left for a name")]),
    Row("bytes", G, "memory", Bytes, &[], "Memory that the history takes",
        &[When(HISTORIES, "a name comes, or goes")]),
    Row("sample_us", G, "sample_duration", Micros, &[], "Time that the last look at all of them took",
        &[When(HISTORIES, "every second")]),
];

#[rustfmt::skip]
const FACES: &[Row] = &[
    Row("scrapes", C, "scrapes", N, &[], "Pages that were asked for",
        &[When(PAGES, "a page of metrics is asked for")]),
    Row("bytes", C, "written", Bytes, &[], "What they came to, before any compression",
        &[When(PAGES, "a page is over, read to its end or not")]),
    Row("duration_us", S, "duration", Micros, &[], "Time that writing a page took, without waiting for its reader",
        &[When(PAGES, "a page is over, read to its end or not")]),
];

#[rustfmt::skip]
const SERIES: &[Row] = &[
    Row("counters", G, "counters", N, &[], "Counters in the tree",
        &[When(TREES, "a name comes, or goes")]),
    Row("gauges", G, "gauges", N, &[], "Gauges in the tree",
        &[When(TREES, "a name comes, or goes")]),
    Row("stats", G, "stats", N, &[], "Distributions in the tree",
        &[When(TREES, "a name comes, or goes")]),
    Row("bytes", G, "memory", Bytes, &[], "Memory that series take",
        &[When(TREES, "a name comes, or goes; the window rolls after first samples")]),
];

#[rustfmt::skip]
const PROCESS: &[Row] = &[
    Row("uptime", G, "uptime", Millis, &[], "Time since the process started",
        &[When(PROCESSES, "always")]),
    Row("start_time", G, "start_time", Millis, &[], "When the process started, since 1970",
        &[When(PROCESSES, "the process starts")]),
    Row("num_cpus", G, "cpus", N, &[], "Processors of the machine",
        &[Still(PROCESSES, "known at the start")]),
    Row("fd_count", G, "open_files", N, &[], "File descriptors that are open",
        &[When(PROCESSES, "files and connections are opened and closed")]),
    Row("fd_limit", G, "open_files_limit", N, &[], "File descriptors that may be open",
        &[Still(PROCESSES, "known at the start")]),
    Row("thread/count", G, "threads", N, &[], "Threads",
        &[When(PROCESSES, "a telemeter, a log or a file needs one")]),
    Row("heap/used", G, "resident_memory", Bytes, &[], "Memory of the process that is resident",
        &[When(PROCESSES, "memory is taken and given back")]),
    Row("heap/committed", G, "committed_memory", Bytes, &[], "Memory of the process that is resident, by the name of a JVM's",
        &[When(PROCESSES, "memory is taken and given back")]),
    Row("heap/max", G, "machine_memory", Bytes, &[], "Memory of the machine",
        &[Still(PROCESSES, "known at the start")]),
    Row("mem/current/used", G, "used_memory", Bytes, &[], "Memory of the process that is resident, by another name of a JVM's",
        &[When(PROCESSES, "memory is taken and given back")]),
    Row("gc/msec", G, "gc_time", Millis, &[], "Time of garbage collections: 0, there is no collector",
        &[Still(PROCESSES, "there is no collector of garbage")]),
    Row("gc/cycles", G, "gc_cycles", N, &[], "Garbage collections: 0, there is no collector",
        &[Still(PROCESSES, "there is no collector of garbage")]),
];

#[rustfmt::skip]
const STATSD: &[Row] = &[
    Row("datagrams", C, "datagrams_sent", N, &[], "Datagrams that were sent",
        &[When(STATSDS, "a datagram is sent")]),
    Row("lines", C, "lines_sent", N, &[], "Lines in datagrams that were sent",
        &[When(STATSDS, "a datagram is sent")]),
    Row("bytes", C, "sent", Bytes, &[], "Bytes of datagrams that were sent",
        &[When(STATSDS, "a datagram is sent")]),
    Row("resolve_failures", C, "resolve_failures", N, &[], "Times the collector's name could not be resolved",
        &[When(STATSDS, "the name of the collector cannot be resolved")]),
    Row("dropped/*", C, "dropped", N, &["cause"], "Datagrams that could not be sent, and lines that fit into none (oversize), by cause",
        &[When(STATSDS, "something could not be sent")]),
];

/// What became of the traces of a Zipkin or an OTLP telemeter.
#[rustfmt::skip]
const TRACES: &[Row] = &[
    Row("traces", C, "traces_sent", N, &[], "Requests whose spans the collector took",
        &[When(TRACERS, "the collector took a batch")]),
    Row("retries", C, "retries", N, &[], "Batches of spans that were sent again",
        &[When(TRACERS, "a batch is sent again")]),
    Row("dropped/*", C, "dropped", N, &["cause"], "Requests whose spans were not sent, or are not known to have arrived (invalid_spans: spans without an id), by cause",
        &[When(TRACERS, "the spans of a request are given up")]),
    Row("metrics/requests", C, "metrics_requests", N, &[], "Requests with metrics that the collector took",
        &[When(OTLP_TELEMETERS, "the collector took a request")]),
    Row("metrics/points", C, "metrics_points", N, &[], "Values of metrics that the collector took",
        &[When(OTLP_TELEMETERS, "the collector took a request")]),
    Row("metrics/retries", C, "metrics_retries", N, &[], "Requests with metrics that were sent again",
        &[When(OTLP_TELEMETERS, "a request is sent again")]),
    Row("metrics/failures", C, "metrics_failures", N, &[], "Requests with metrics that the collector did not take; their deltas come with the next ones",
        &[When(OTLP_TELEMETERS, "a request is given up")]),
    Row("metrics/left_out", C, "metrics_left_out", N, &[], "Values of metrics that the collector says it left out",
        &[When(OTLP_TELEMETERS, "the collector says that it left some out")]),
];

impl Whose {
    const ALL: [Self; 15] = [
        Self::Server,
        Self::Service,
        Self::Client,
        Self::ClientService,
        Self::Router,
        Self::Admin,
        Self::Tracer,
        Self::Process,
        Self::Statsd,
        Self::Zipkin,
        Self::Otlp,
        Self::OtlpClient,
        Self::History,
        Self::Face,
        Self::Series,
    ];

    fn prefix(self) -> &'static str {
        match self {
            Self::Server => "l5d_server_",
            Self::Service => "l5d_service_",
            Self::Client => "l5d_client_",
            Self::ClientService => "l5d_client_service_",
            Self::Router => "l5d_router_",
            Self::Admin => "l5d_admin_",
            Self::Tracer => "l5d_tracer_",
            Self::Process => "l5d_process_",
            Self::Statsd => "l5d_statsd_",
            Self::Zipkin => "l5d_zipkin_",
            Self::Otlp => "l5d_otlp_",
            Self::OtlpClient => "l5d_otlp_client_",
            Self::History => "l5d_history_",
            Self::Face => "l5d_face_",
            Self::Series => "l5d_series_",
        }
    }

    fn labels(self) -> &'static [&'static str] {
        match self {
            Self::Server => &["router", "server"],
            Self::Service => &["router", "service"],
            Self::Client => &["router", "client"],
            Self::ClientService => &["router", "client", "service"],
            Self::Router => &["router"],
            Self::Admin
            | Self::Tracer
            | Self::Process
            | Self::Statsd
            | Self::Zipkin
            | Self::Otlp
            | Self::OtlpClient
            | Self::History
            | Self::Series => &[],
            Self::Face => &["face"],
        }
    }

    fn rows(self) -> &'static [Row] {
        match self {
            Self::Router => ROUTER,
            Self::Process => PROCESS,
            Self::Statsd => STATSD,
            Self::Zipkin | Self::Otlp => TRACES,
            Self::History => HISTORY,
            Self::Face => FACES,
            Self::Series => SERIES,
            _ => STACK,
        }
    }

    /// Where it is measured: the end of each help.
    fn place(self) -> &'static str {
        match self {
            Self::Server => "Measured at a listening server, once per request as its caller sees it.",
            Self::Service => "Measured at the logical name, once per request with its retries.",
            Self::Client => "Measured at the client of a concrete name, once per attempt.",
            Self::ClientService => "Measured at the client of a concrete name by logical name, once per attempt.",
            Self::Router => "Measured at a router.",
            Self::Admin => "Measured at the admin server of l5d itself.",
            Self::Tracer => "Measured at the connection to the collector of traces.",
            Self::Process => "Measured at the process.",
            Self::Statsd => "Measured at the StatsD telemeter.",
            Self::Zipkin => "Measured at the Zipkin telemeter.",
            Self::Otlp => "Measured at the OTLP telemeter.",
            Self::OtlpClient => "Measured at the connection to the OTLP collector.",
            Self::History => "Measured at the history that the dashboard draws.",
            Self::Face => "Measured at the pages of metrics of one format.",
            Self::Series => "Measured at the metrics themselves.",
        }
    }

    /// Whose a path is, which of its keys are label values, and where the rest begins.
    fn of(path: &[&str]) -> Option<(Self, &'static [usize], usize)> {
        Some(match path {
            ["rt", _, "client", _, "service", _, _, ..] => (Self::ClientService, &[1, 3, 5], 6),
            ["rt", _, "server", _, _, ..] => (Self::Server, &[1, 3], 4),
            ["rt", _, "service", _, _, ..] => (Self::Service, &[1, 3], 4),
            ["rt", _, "client", _, _, ..] => (Self::Client, &[1, 3], 4),
            ["rt", _, _, ..] => (Self::Router, &[1], 2),
            ["srv", "adminhttp", _, ..] => (Self::Admin, &[], 2),
            ["clnt", "zipkin-tracer", _, ..] => (Self::Tracer, &[], 2),
            ["jvm", _, ..] => (Self::Process, &[], 1),
            ["statsd", _, ..] => (Self::Statsd, &[], 1),
            ["zipkin", _, ..] => (Self::Zipkin, &[], 1),
            ["otlp", "client", _, ..] => (Self::OtlpClient, &[], 2),
            ["otlp", _, ..] => (Self::Otlp, &[], 1),
            ["telemetry", "history", _, ..] => (Self::History, &[], 2),
            ["telemetry", "faces", _, _, ..] => (Self::Face, &[2], 3),
            ["telemetry", "series", _, ..] => (Self::Series, &[], 2),
            _ => return None,
        })
    }
}

impl Unit {
    /// As OpenMetrics says it; the end of the family's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Millis | Self::Micros => "seconds",
            Self::Bytes => "bytes",
            Self::Percent => "ratio",
        }
    }

    /// A counted number in this unit. By division, which is exact where multiplying with a thousandth isn't.
    pub(crate) fn of(self, counted: f64) -> f64 {
        match self {
            Self::None | Self::Bytes => counted,
            Self::Millis => counted / 1e3,
            Self::Micros => counted / 1e6,
            Self::Percent => counted / 1e2,
        }
    }
}

/// All families, in the order of the page: those that say whether requests succeed and how fast come first.
struct Catalogue {
    families: Vec<Family>,
    by_pattern: HashMap<(Whose, &'static str), u16>,
    unlisted: [u16; 3],
}

/// The table as it is looked up: made once, never changed.
static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(Catalogue::new);

impl Catalogue {
    fn new() -> Self {
        let mut this = Self { families: Vec::new(), by_pattern: HashMap::new(), unlisted: [0; 3] };
        for golden in [true, false] {
            for whose in Whose::ALL {
                for row in whose.rows() {
                    // The admin server's own requests are nobody's first question.
                    let first = GOLDEN.contains(&row.0) && whose.labels().len() > 1;
                    if first == golden {
                        this.add(whose, row);
                    }
                }
            }
        }
        for (kind, name) in [(C, "l5d_unlisted"), (G, "l5d_unlisted_value"), (S, "l5d_unlisted_distribution")] {
            this.unlisted[kind as usize] = this.families.len() as u16;
            this.families.push(Family {
                name: name.to_owned(),
                kind,
                unit: N,
                help: "Metrics that have no family of their own, by their path in metrics.json. In the unit of the metric.".to_owned(),
                labels: vec!["path"],
            });
        }
        this
    }

    fn add(&mut self, whose: Whose, row: &Row) {
        let Row(pattern, kind, _, unit, labels, help, _) = row;
        let name = family_name(whose, row);
        let mut help = format!("{help}. {}", whose.place());
        if !unit.name().is_empty() {
            help = format!("{help} In {}.", if *unit == Percent { "parts of 1" } else { unit.name() });
        }
        let labels = whose.labels().iter().chain(*labels).copied().collect();
        self.by_pattern.insert((whose, pattern), self.families.len() as u16);
        self.families.push(Family { name, kind: *kind, unit: *unit, help, labels });
    }
}

/// What a row is called at a place, without `_total`.
fn family_name(whose: Whose, Row(_, _, name, unit, ..): &Row) -> String {
    let end = if unit.name().is_empty() { "" } else { "_" };
    format!("{}{name}{end}{}", whose.prefix(), unit.name())
}

/// Every family there can be, by its number.
pub(crate) fn families() -> &'static [Family] {
    &CATALOGUE.families
}

/// Finagle's flags of failures.
const FLAGS: [&str; 8] =
    ["interrupted", "restartable", "wrapped", "rejected", "naming", "nonretryable", "ignorable", "deadline_exceeded"];

/// Where the metric of a path belongs. `None` for what is a part of another family, told there already.
pub(crate) fn classify<'a>(path: &[&'a str], kind: Kind) -> Option<Classified<'a>> {
    match listed(path, kind) {
        Listed::Family(classified) => Some(classified),
        Listed::Told => None,
        Listed::Unknown => {
            let family = CATALOGUE.unlisted[kind as usize];
            Some(Classified { family, values: vec![Cow::Owned(joined(path, '/'))] })
        }
    }
}

/// What a metric is called in the modern face, and what it means; for pages that show metrics one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meaning {
    /// The family's name, without `_total`.
    pub family: &'static str,
    /// What it measures, where, in which unit.
    pub help: &'static str,
}

/// The meaning of the metric at these keys; `None` of what no family tells of.
pub fn meaning(path: &[&str], metric: &MetricRef<'_>) -> Option<Meaning> {
    let kind = match metric {
        MetricRef::Counter(_) => Kind::Counter,
        MetricRef::Gauge(_) => Kind::Gauge,
        MetricRef::Stat(_) => Kind::Stat,
    };
    let Listed::Family(Classified { family, .. }) = listed(path, kind) else { return None };
    let family = &CATALOGUE.families[family as usize];
    Some(Meaning { family: &family.name, help: &family.help })
}

enum Listed<'a> {
    Family(Classified<'a>),
    Told,
    Unknown,
}

fn listed<'a>(path: &[&'a str], kind: Kind) -> Listed<'a> {
    match Placed::of(path) {
        Placed::At { whose, pattern, values } => match CATALOGUE.by_pattern.get(&(whose, pattern.as_str())) {
            Some(&family) if CATALOGUE.families[family as usize].kind == kind => {
                Listed::Family(Classified { family, values })
            }
            _ => Listed::Unknown,
        },
        Placed::Told => Listed::Told,
        Placed::Nowhere => Listed::Unknown,
    }
}

/// A path, taken apart.
enum Placed<'a> {
    /// Whose it is, what a row with it would begin with, and what its values are.
    At {
        whose: Whose,
        pattern: String,
        values: Vec<Cow<'a, str>>,
    },
    Told,
    Nowhere,
}

impl<'a> Placed<'a> {
    fn of(path: &[&'a str]) -> Self {
        let Some((whose, labels, start)) = Whose::of(path) else { return Self::Nowhere };
        let mut values: Vec<Cow<'a, str>> = labels.iter().map(|&at| Cow::Borrowed(path[at])).collect();
        let rest = &path[start..];
        let mut pattern = String::with_capacity(64);
        let mut push = |key: &str| {
            if !pattern.is_empty() {
                pattern.push('/');
            }
            pattern.push_str(key);
        };
        let mut at = 0;
        while at < rest.len() {
            let (key, more) = (rest[at], rest.len() - at - 1);
            // A `%` or `*` of the path's own would meet those of the table.
            if key.contains(['%', '*', '/']) || key.is_empty() {
                return Self::Nowhere;
            }
            push(key);
            at += 1;
            let wild = match (key, more) {
                ("failures" | "exn", 1..) => {
                    match causes(&rest[at..], &mut values) {
                        Some(wild) => push(wild),
                        None => return Self::Told,
                    }
                    break;
                }
                ("sourcedfailures", 1) => "*",
                ("sourcedfailures", 2..) => {
                    values.push(Cow::Borrowed(rest[at]));
                    match causes(&rest[at + 1..], &mut values) {
                        Some(wild) => push(wild),
                        None => return Self::Told,
                    }
                    break;
                }
                ("status" | "time", 1) => {
                    let status = rest[at];
                    if let [class @ b'1'..=b'5', b'X', b'X'] = status.as_bytes() {
                        values.push(Cow::Owned(format!("{}xx", char::from(*class))));
                        push("XX");
                        break;
                    }
                    if status == "error" { "" } else { "*" }
                }
                ("algorithm" | "per_thread" | "dropped", 1) => "*",
                ("stream", 1..) if matches!(rest[at], "request" | "response") => "%",
                _ => "",
            };
            if !wild.is_empty() {
                values.push(Cow::Borrowed(rest[at]));
                push(wild);
                at += 1;
            }
        }
        Self::At { whose, pattern, values }
    }
}

/// What stands beneath a count of failures: a flag, an exception, a chain of them; the flag first, if there is one.
fn causes<'a>(tail: &[&'a str], values: &mut Vec<Cow<'a, str>>) -> Option<&'static str> {
    let (flag, chain) = match tail {
        [flag, chain @ ..] if FLAGS.contains(flag) => (*flag, chain),
        chain => ("", chain),
    };
    values.push(Cow::Borrowed(flag));
    Some(match chain {
        [] => "*flag",
        _ if flag == "rejected" => return None,
        [cause] => {
            values.push(Cow::Borrowed(cause));
            "*cause"
        }
        [cause, nested @ ..] => {
            values.push(Cow::Borrowed(cause));
            values.push(Cow::Owned(joined(nested, ':')));
            "*nested"
        }
    })
}

/// Keys in one text, in which a backslash stands before a sign between keys that a key has itself.
fn joined(keys: &[&str], sign: char) -> String {
    let mut text = String::new();
    for (at, key) in keys.iter().enumerate() {
        if at > 0 {
            text.push(sign);
        }
        for c in key.chars() {
            if c == sign || c == '\\' {
                text.push('\\');
            }
            text.push(c);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn shown(path: &str, kind: Kind) -> String {
        let path: Vec<&str> = path.split('|').collect();
        let Some(classified) = classify(&path, kind) else { return "told".to_owned() };
        let family = &families()[classified.family as usize];
        assert_eq!(family.labels.len(), classified.values.len(), "{path:?}");
        let labels = family.labels.iter().zip(&classified.values).map(|(label, value)| format!("{label}={value}"));
        format!("{} {}", family.name, labels.collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn paths_have_families_and_labels() {
        for (path, kind, expected) in [
            ("rt|http|server|127.0.0.1/4140|requests", C, "l5d_server_requests router=http server=127.0.0.1/4140"),
            (
                "rt|http|service|svc/web|request_latency_ms",
                S,
                "l5d_service_request_duration_seconds router=http service=svc/web",
            ),
            ("rt|http|client|#/a|pending", G, "l5d_client_requests_pending router=http client=#/a"),
            (
                "rt|http|client|#/a|service|svc/web|success",
                C,
                "l5d_client_service_successes router=http client=#/a service=svc/web",
            ),
            ("rt|http|client|#/a|status|2XX", C, "l5d_client_responses_by_class router=http client=#/a class=2xx"),
            ("rt|http|client|#/a|status|204", C, "l5d_client_responses router=http client=#/a status=204"),
            ("rt|http|client|#/a|status|error", C, "l5d_client_unanswered router=http client=#/a"),
            ("rt|http|client|#/a|time|5XX", S, "l5d_client_response_duration_seconds router=http client=#/a class=5xx"),
            ("rt|http|client|#/a|failures", C, "l5d_client_failures router=http client=#/a"),
            (
                "rt|http|client|#/a|failures|a.B",
                C,
                "l5d_client_failures_by_cause router=http client=#/a flag= cause=a.B",
            ),
            (
                "rt|http|client|#/a|failures|a.B|c:D|e",
                C,
                "l5d_client_failures_by_nested_cause router=http client=#/a flag= cause=a.B nested=c\\:D:e",
            ),
            (
                "rt|http|client|#/a|failures|restartable",
                C,
                "l5d_client_failures_by_flag router=http client=#/a flag=restartable",
            ),
            (
                "rt|http|client|#/a|failures|restartable|a.B",
                C,
                "l5d_client_failures_by_cause router=http client=#/a flag=restartable cause=a.B",
            ),
            (
                "rt|http|client|#/a|failures|rejected",
                C,
                "l5d_client_failures_by_flag router=http client=#/a flag=rejected",
            ),
            ("rt|http|client|#/a|failures|rejected|a.B", C, "told"),
            (
                "rt|http|service|s|sourcedfailures|#/a",
                C,
                "l5d_service_failures_by_source router=http service=s source=#/a",
            ),
            (
                "rt|http|service|s|sourcedfailures|#/a|x",
                C,
                "l5d_service_failures_by_source_and_cause router=http service=s source=#/a flag= cause=x",
            ),
            (
                "rt|http|client|c|loadbalancer|algorithm|p2c",
                G,
                "l5d_client_balancers router=http client=c algorithm=p2c",
            ),
            (
                "rt|http|client|c|http|stream|request|failures|x",
                C,
                "l5d_client_stream_failures_by_cause router=http client=c direction=request flag= cause=x",
            ),
            (
                "rt|http|client|c|stream|response|chunk_payload_bytes",
                S,
                "l5d_client_stream_chunk_bytes router=http client=c direction=response",
            ),
            (
                "rt|http|client|c|failure_accrual|removed_for_ms",
                C,
                "l5d_client_accrual_removed_seconds router=http client=c",
            ),
            ("rt|http|bindcache|path|misses", C, "l5d_router_path_cache_misses router=http"),
            ("srv|adminhttp|requests", C, "l5d_admin_requests "),
            ("jvm|uptime", G, "l5d_process_uptime_seconds "),
            ("statsd|dropped|refused", C, "l5d_statsd_dropped cause=refused"),
            ("foo|b/a\\r", C, "l5d_unlisted path=foo/b\\/a\\\\r"),
            ("rt|http|server|s|requests", G, "l5d_unlisted_value path=rt/http/server/s/requests"),
            ("rt|http|client|c|status|*", C, "l5d_client_responses router=http client=c status=*"),
            ("rt|http|client|c|http|stream|%|opened", C, "l5d_unlisted path=rt/http/client/c/http/stream/%/opened"),
            ("", G, "l5d_unlisted_value path="),
        ] {
            assert_eq!(shown(path, kind), expected, "{path}");
        }
    }

    #[test]
    fn names_are_clean_and_never_anothers_with_a_suffix() {
        let names: HashSet<&str> = families().iter().map(|family| family.name.as_str()).collect();
        assert_eq!(names.len(), families().len());
        for family in families() {
            assert!(
                family.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'),
                "{family:?}"
            );
            assert!(family.name.ends_with(family.unit.name()), "{family:?}");
            assert!(family.help.ends_with('.') && !family.help.contains(['\n', '\\', '"']), "{family:?}");
            for suffix in ["_total", "_created", "_bucket", "_count", "_sum", "_info"] {
                assert!(!family.name.ends_with(suffix), "{family:?}");
                assert!(!names.contains(format!("{}{suffix}", family.name).as_str()), "{family:?}");
            }
            let labels: HashSet<_> = family.labels.iter().collect();
            assert_eq!(labels.len(), family.labels.len(), "{family:?}");
            assert!(!labels.contains(&"le") && !labels.contains(&"quantile"));
        }
        let first: Vec<&str> = families()[..20].iter().map(|family| family.name.as_str()).collect();
        assert_eq!(first[0], "l5d_server_requests");
        for name in
            ["l5d_service_failures", "l5d_client_request_duration_seconds", "l5d_client_service_requests_pending"]
        {
            assert!(first.contains(&name), "{first:?}");
        }
    }

    proptest! {
        /// Two paths never come to one series.
        #[test]
        fn series_are_as_many_as_paths(paths in prop::collection::hash_set(prop::collection::vec(prop::sample::select(&[
            "rt", "http", "client", "service", "server", "failures", "a", "a:b", "b", "a/b", "\\", "restartable", "status",
            "2XX", "200", "", "exn", "sourcedfailures", "stream", "request", "requests", "*", "%", "error",
        ][..]), 1..9), 1..60)) {
            let mut seen = HashSet::new();
            for path in &paths {
                if let Some(classified) = classify(path, C) {
                    let values: Vec<String> = classified.values.iter().map(|v| v.to_string()).collect();
                    prop_assert_eq!(values.len(), families()[classified.family as usize].labels.len());
                    prop_assert!(seen.insert((classified.family, values)), "{:?}", path);
                }
            }
        }
    }
}
