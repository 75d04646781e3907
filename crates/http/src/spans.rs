//! What is recorded of a request, and in which words (http-behaviour §12). The stacks say when.
//!
//! Each function begins with the one question whether anybody wants to know; nothing is made before it. The names of the
//! facts are contract: they are Linkerd's and Finagle's, but for `l5d.queue_us` and `l5d.connect_us`, which tell what of an
//! attempt's time went before it was sent. What a JVM's collector did in the meantime is not told.

use std::{sync::Arc, time::Duration};

use http::{Method, StatusCode};
use l5d_naming::{Dtab, NameTree, Path};
use l5d_router::{
    classify::Class,
    error::{Error, Kind},
};
use l5d_telemetry::trace::{Annotation, Recording, Text, TraceId, Value};

use crate::{
    body::Body,
    codec::{RequestHead, Response},
    ctx::Ctx,
    stack::server::Peer,
};

/// Stands where Finagle tells its version.
const VERSION: &str = concat!("l5d/", env!("CARGO_PKG_VERSION"));
/// Longer texts are cut: a collector may lose a whole batch over one span that is too long.
const LONGEST: usize = 1024;

fn fact(key: &'static str, value: impl Into<Value>) -> Annotation {
    Annotation::Binary(key, value.into())
}

fn number(key: &'static str, value: usize) -> Annotation {
    Annotation::Binary(key, Value::Int(i64::try_from(value).unwrap_or(i64::MAX)))
}

fn cut(text: &str) -> Text {
    let mut end = text.len().min(LONGEST);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned().into()
}

fn method(method: &Method) -> Text {
    match *method {
        Method::GET => "GET".into(),
        Method::POST => "POST".into(),
        Method::PUT => "PUT".into(),
        Method::DELETE => "DELETE".into(),
        Method::HEAD => "HEAD".into(),
        _ => cut(method.as_str()),
    }
}

/// A server has a request.
#[inline]
pub(crate) fn server_receives(
    ctx: &Ctx,
    label: &Arc<str>,
    router: &Arc<str>,
    peer: &Peer,
    head: &RequestHead,
    body: &Body,
) {
    if ctx.recording.is_on() {
        server_received(ctx, label, router, peer, head, body);
    }
}

#[cold]
fn server_received(ctx: &Ctx, label: &Arc<str>, router: &Arc<str>, peer: &Peer, head: &RequestHead, body: &Body) {
    let rpc = method(&head.method);
    let dtab = (!ctx.local_dtab.is_empty()).then(|| fact("srv/dtab.local", cut(&ctx.local_dtab.to_string())));
    let annotations = [
        Annotation::WireRecv,
        Annotation::ServiceName(label.into()),
        Annotation::Rpc(rpc.clone()),
        fact("srv/finagle.label", label),
        fact("srv/finagle.version", VERSION),
        Annotation::ServerRecv,
        Annotation::LocalAddr(peer.local),
        Annotation::ServerAddr(peer.local),
        Annotation::ClientAddr(peer.addr),
        fact("http.method", rpc),
        fact("http.uri", cut(head.target.path())),
        fact("router.label", router),
    ];
    let payload = body.as_full().map(|bytes| number("srv/request_payload_bytes", bytes.len()));
    ctx.recording.record_all(&ctx.trace, annotations.into_iter().chain(dtab).chain(payload));
}

/// The request has a name.
#[inline]
pub(crate) fn identified(ctx: &Ctx, router: &str, name: &Path, base_dtab: &Arc<str>) {
    if ctx.recording.is_on() {
        let name: Text = name.show().into();
        ctx.recording.record_all(
            &ctx.trace,
            [
                Annotation::Rpc(format!("{router} {name}").into()),
                fact("service", name),
                fact("dtab.base", base_dtab),
                fact("dtab.local", show(&ctx.local_dtab)),
            ],
        );
    }
}

/// As a fact shows it.
pub(crate) fn show(dtab: &Dtab) -> Text {
    if dtab.is_empty() { "".into() } else { cut(&dtab.to_string()) }
}

/// The request has no name.
#[inline]
pub(crate) fn unidentified(ctx: &Ctx) {
    ctx.recording.record(&ctx.trace, fact("io.buoyant.router.Failure", "Identification"));
}

/// An attempt's name is bound.
#[inline]
pub(crate) fn bound(ctx: &Ctx, client: &Path, residual: Option<&str>, way: impl FnOnce() -> Option<Arc<str>>) {
    if ctx.recording.is_on() {
        let residual = residual.map_or_else(|| "/".into(), cut);
        let annotations =
            [Annotation::Message("namer.success".into()), fact("client", client.show()), fact("residual", residual)];
        let way = way().map(|way| fact("l5d.dtab_path", way));
        ctx.recording.record_all(&ctx.trace, annotations.into_iter().chain(way));
    }
}

/// The names that lead from a logical one to a bound one, as far as the table alone tells: `/svc/web > /$/inet/127.1/80`.
/// `None` where a namer or an interpreter knows more.
pub(crate) fn way(dtab: &Dtab, name: &Path, client: &Path) -> Option<Arc<str>> {
    let mut names = vec![name.clone()];
    let mut looked_up = 0;
    find(dtab, client, &mut names, &mut looked_up).then(|| {
        let names: Vec<String> = names.iter().map(Path::show).collect();
        (&*cut(&names.join(" > "))).into()
    })
}

/// As much work as a path may be, and as deep: what binds a name has limits, too.
const MOST_LOOKUPS: usize = 1000;
const DEEPEST: usize = 100;

/// Goes on from the last of the names.
fn find(dtab: &Dtab, client: &Path, names: &mut Vec<Path>, looked_up: &mut usize) -> bool {
    let last = names.last().expect("it begins with the logical name");
    if last.starts_with(client) {
        return true;
    }
    *looked_up += 1;
    if *looked_up > MOST_LOOKUPS || names.len() > DEEPEST {
        return false;
    }
    let mut next = Vec::new();
    leaves(dtab.lookup(last), &mut next);
    for name in next {
        names.push(name);
        if find(dtab, client, names, looked_up) {
            return true;
        }
        names.pop();
    }
    false
}

fn leaves(tree: NameTree<Path>, into: &mut Vec<Path>) {
    match tree {
        NameTree::Leaf(name) => into.push(name),
        NameTree::Alt(trees) => trees.into_iter().for_each(|tree| leaves(tree, into)),
        NameTree::Union(trees) => trees.into_iter().for_each(|(_, tree)| leaves(tree, into)),
        NameTree::Neg | NameTree::Fail | NameTree::Empty => {}
    }
}

/// Another attempt follows.
#[inline]
pub(crate) fn retried(ctx: &Ctx) {
    ctx.recording.record(&ctx.trace, Annotation::Message("finagle.retry".into()));
}

/// No attempt brought a response.
#[inline]
pub(crate) fn failed(ctx: &Ctx, error: &Error) {
    if !ctx.recording.is_on() {
        return;
    }
    let class = error.kind.chain()[0];
    let unnamed = matches!(
        error.kind,
        Kind::NoBrokers | Kind::NoEndpoints | Kind::NamingFailed | Kind::MalformedAddress | Kind::BindingTimeout
    );
    let unreached = matches!(error.kind, Kind::ConnectFailed | Kind::FailedFast | Kind::TooManyWaiters);
    let namer = unnamed.then(|| fact("namer.failure", class));
    let part = if unnamed || unreached { "ClientAcquisition" } else { "Service" };
    let timeout = (error.kind == Kind::TotalTimeout).then(|| Annotation::Message("finagle.timeout".into()));
    let failure = [fact("io.buoyant.router.Failure", part), fact("exception.type", class)];
    ctx.recording.record_all(&ctx.trace, namer.into_iter().chain(timeout).chain(failure));
}

/// The server's own time-out is over.
#[inline]
pub(crate) fn server_timed_out(recording: &Recording, id: &TraceId) {
    recording.record(id, Annotation::Message("finagle.timeout".into()));
}

/// A server answers: at once, or with a body that still has to come.
#[inline]
pub(crate) fn server_sends(recording: Recording, id: &TraceId, response: &mut Response) {
    if recording.is_on() {
        server_sent(recording, id, response);
    }
}

#[cold]
fn server_sent(recording: Recording, id: &TraceId, response: &mut Response) {
    let status = number("http.status_code", response.status.as_u16().into());
    match response.body.as_full() {
        Some(bytes) => recording.record_all(
            id,
            [status, number("srv/response_payload_bytes", bytes.len()), Annotation::ServerSend, Annotation::WireSend],
        ),
        None => {
            recording.record_all(id, [status, Annotation::ServerSend]);
            response.body.record_end(OpenSpan { recording, id: *id });
        }
    }
}

/// The span of a server whose response is still on its way.
pub(crate) struct OpenSpan {
    recording: Recording,
    id: TraceId,
}

impl OpenSpan {
    /// All of it is out, or the rest never comes.
    pub(crate) fn end(self, well: bool) {
        let broken = (!well).then(|| fact("error", "the response's body broke off"));
        self.recording.record_all(&self.id, broken.into_iter().chain([Annotation::WireSend]));
    }
}

/// What an attempt's span begins with.
pub(crate) struct Sending<'a> {
    /// Of the client.
    pub(crate) label: &'a Arc<str>,
    pub(crate) endpoint: std::net::SocketAddr,
    pub(crate) head: &'a RequestHead,
    /// The length of a body that is held whole.
    pub(crate) payload: Option<usize>,
    /// How long the session was waited for, and how much of that it took to connect.
    pub(crate) acquired_in: Duration,
    pub(crate) opened_in: Option<Duration>,
    /// Whether the same attempt was sent before.
    pub(crate) again: bool,
}

/// A client sends.
#[inline]
pub(crate) fn client_sends(recording: &Recording, id: &TraceId, sending: &Sending<'_>) {
    if recording.is_on() {
        client_sent(recording, id, sending);
    }
}

#[cold]
fn client_sent(recording: &Recording, id: &TraceId, sending: &Sending<'_>) {
    let micros = |key, time: Duration| fact_int(key, i64::try_from(time.as_micros()).unwrap_or(i64::MAX));
    let rpc = method(&sending.head.method);
    let connect = sending.opened_in.unwrap_or_default();
    let annotations = [
        Annotation::ServiceName(sending.label.into()),
        Annotation::Rpc(if sending.again { "requeue".into() } else { rpc.clone() }),
        fact("clnt/finagle.label", sending.label),
        fact("clnt/finagle.version", VERSION),
        fact("clnt/finagle.protocol", "http"),
        Annotation::ClientSend,
        Annotation::ServerAddr(sending.endpoint),
        fact("http.method", rpc),
        fact("http.uri", cut(sending.head.target.path())),
        micros("l5d.queue_us", sending.acquired_in.saturating_sub(connect)),
        micros("l5d.connect_us", connect),
        Annotation::WireSend,
    ];
    let payload = sending.payload.map(|bytes| number("clnt/request_payload_bytes", bytes));
    recording.record_all(id, annotations.into_iter().chain(payload));
}

fn fact_int(key: &'static str, value: i64) -> Annotation {
    Annotation::Binary(key, Value::Int(value))
}

/// The head of a response has come.
#[inline]
pub(crate) fn client_wire_received(recording: &Recording, id: &TraceId, status: StatusCode) {
    if recording.is_on() {
        recording.record_all(id, [Annotation::WireRecv, number("http.status_code", status.as_u16().into())]);
    }
}

/// An attempt has a response.
#[inline]
pub(crate) fn client_received(recording: &Recording, id: &TraceId, response: &Response, class: Class) {
    if recording.is_on() {
        let payload = response.body.as_full().map(|bytes| number("clnt/response_payload_bytes", bytes.len()));
        let verdict = match class.is_success() {
            true => Annotation::Binary("l5d.success", Value::Double(1.0)),
            false if class.is_retryable() => Annotation::Message("l5d.retryable".into()),
            false => Annotation::Message("l5d.failure".into()),
        };
        recording.record_all(id, payload.into_iter().chain([verdict, Annotation::ClientRecv]));
    }
}

/// An attempt has no response.
#[inline]
pub(crate) fn client_failed(recording: &Recording, id: &TraceId, kind: Kind, message: &str) {
    if recording.is_on() {
        let timeout = (kind == Kind::IndividualTimeout).then(|| Annotation::Message("finagle.timeout".into()));
        let failure = [
            Annotation::Message("l5d.failure".into()),
            Annotation::Binary("error", Value::Bool(true)),
            fact("exception.type", kind.chain()[0]),
            fact("exception.message", cut(message)),
            Annotation::ClientRecv,
        ];
        recording.record_all(id, timeout.into_iter().chain(failure));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_of_a_name_is_what_the_table_says() {
        let way = |dtab: &str, client: &str| {
            let read = |path: &str| Path::read(path).unwrap();
            way(&Dtab::read(dtab).unwrap(), &read("/svc/web"), &read(client)).map(|way| way.to_string())
        };
        let dtab = "/srv=>/#/io.l5d.fs;/srv=>/$/inet/127.1/80;/svc=>/nowhere | /srv;/svc/other=>/srv/x";
        let by_address = "/svc/web > /srv/web > /$/inet/127.1/80/web";
        assert_eq!(way(dtab, "/$/inet/127.1/80").as_deref(), Some(by_address));
        assert_eq!(way(dtab, "/#/io.l5d.fs/web").as_deref(), Some("/svc/web > /srv/web > /#/io.l5d.fs/web"));
        assert_eq!(way(dtab, "/#/io.l5d.fs/other"), None);
        assert_eq!(way("/svc=>/svc | /svc", "/x"), None, "a table without end");
        assert_eq!(way("/svc=>9 * /a & 1 * /b; /b=>/c", "/c").as_deref(), Some("/svc/web > /b/web > /c/web"));
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(cut("short").len(), 5);
        assert_eq!(cut(&"\u{e9}".repeat(1000)).len(), LONGEST);
        assert_eq!(cut(&format!("a{}", "\u{e9}".repeat(1000))).len(), LONGEST - 1);
    }
}
