//! What the tests of the telemeters share.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderMap, Method, Version};
use l5d_admin::{Body, Request};
use l5d_config::Cx;
use l5d_telemetry::MetricsTree;
use l5d_telemetry::trace::{Annotation, Record, Trace, TraceId, Value};
use l5d_telemetry::{MetricRef, Visitor};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::{Telemeter, TelemeterContext, parse};

/// The telemeter of a section.
pub(crate) fn telemeter(yaml: &str, tree: &MetricsTree) -> Arc<dyn Telemeter> {
    let mut cx = Cx::new();
    let parsed = parse(&l5d_config::read(yaml).unwrap(), &mut cx);
    assert_eq!(cx.finish(), []);
    parsed.unwrap().1.build(&TelemeterContext { tree: tree.clone() }).unwrap()
}

/// Content type and text of a telemeter's page.
pub(crate) async fn get(telemeter: &dyn Telemeter, path: &str, host: Option<&str>) -> (String, String) {
    let handlers = telemeter.handlers();
    let handler = handlers.iter().find(|handler| handler.path == path).unwrap();
    let mut headers = HeaderMap::new();
    headers.extend(host.map(|host| (HOST, host.parse().unwrap())));
    let uri = path.parse().unwrap();
    let request = Request { method: Method::GET, uri, version: Version::HTTP_11, headers, body: Bytes::new() };
    let response = (handler.serve)(request).await;
    let mut text = Vec::new();
    match response.body {
        Body::Full(bytes) => text.extend_from_slice(&bytes),
        Body::Page(mut page) => while page.fill(&mut text) {},
    }
    (response.headers[CONTENT_TYPE].to_str().unwrap().to_owned(), String::from_utf8(text).unwrap())
}

/// A telemeter whose metrics nobody looks at.
pub(crate) fn built(yaml: &str) -> Arc<dyn Telemeter> {
    telemeter(yaml, &MetricsTree::new())
}

/// A request that had this trace id, this status, and one attempt and a retry; it took 10 ms.
pub(crate) fn trace(n: u64, status: i64) -> Trace {
    let id = TraceId { span: n, parent: n, trace: n, trace_high: None, flags: 0 };
    let child = TraceId { span: n + 0x1000_0000, parent: n, ..id };
    let mut records = Vec::new();
    let mut at = |us: u64, span, annotations: &[Annotation]| {
        let annotations = annotations.iter().cloned();
        records.extend(annotations.map(|annotation| Record { span, at_us: 1_000_000 + us, annotation }));
    };
    let fact = |key, value: &'static str| Annotation::Binary(key, value.into());
    at(
        0,
        id,
        &[
            Annotation::WireRecv,
            Annotation::ServiceName("127.0.0.1/4140".into()),
            Annotation::ServerRecv,
            Annotation::LocalAddr(([127, 0, 0, 1], 4140).into()),
            Annotation::ClientAddr(([127, 0, 0, 2], 5000).into()),
            fact("router.label", "http"),
            fact("service", "/svc/web"),
            fact("dtab.base", "/svc=>/$/inet/127.1/80"),
            Annotation::Rpc("http /svc/web".into()),
            Annotation::Message("finagle.retry".into()),
            fact("client", "/$/inet/127.1/80"),
            fact("residual", "/"),
            fact("l5d.dtab_path", "/svc/web > /$/inet/127.1/80/web"),
        ],
    );
    at(
        1000,
        child,
        &[
            Annotation::ServiceName("$/inet/127.1/80".into()),
            Annotation::Rpc("GET".into()),
            Annotation::ClientSend,
            Annotation::ServerAddr(([127, 0, 0, 1], 80).into()),
            Annotation::Binary("l5d.queue_us", Value::Int(30)),
            Annotation::Binary("l5d.connect_us", Value::Int(70)),
            Annotation::WireSend,
        ],
    );
    at(7000, child, &[Annotation::WireRecv, Annotation::ClientRecv]);
    let status = Annotation::Binary("http.status_code", Value::Int(status));
    at(10_000, id, &[status, Annotation::ServerSend, Annotation::WireSend]);
    Trace { id, records }
}

/// What is wrong with a section.
pub(crate) fn errors(yaml: &str) -> Vec<String> {
    let mut cx = Cx::new();
    parse(&l5d_config::read(yaml).unwrap(), &mut cx);
    cx.finish().iter().map(ToString::to_string).collect()
}

/// The names of the metrics beneath a prefix, without it, sorted.
pub(crate) fn names(tree: &MetricsTree, prefix: &str) -> Vec<String> {
    struct Names(Vec<String>, Vec<String>);
    impl Visitor for Names {
        fn enter(&mut self, key: &str) {
            self.0.push(key.to_owned());
        }
        fn metric(&mut self, _: MetricRef<'_>) {
            self.1.push(self.0.join("/"));
        }
        fn leave(&mut self) {
            self.0.pop();
        }
    }
    let mut names = Names(Vec::new(), Vec::new());
    tree.visit(&mut names);
    let mut names: Vec<String> =
        names.1.iter().filter_map(|name| Some(name.strip_prefix(prefix)?.to_owned())).collect();
    names.sort();
    names
}

/// Waits until it holds, at most ten seconds.
pub(crate) async fn wait_until(holds: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(std::time::Instant::now() < deadline, "it never came to be");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What a collector does when it has a request.
pub(crate) enum Reaction {
    Say(Vec<u8>),
    SayAndClose(Vec<u8>),
    Close,
    /// Neither answer nor close.
    Nothing,
}

/// A collector that keeps what it gets and reacts as it is told.
pub(crate) struct Collector {
    addr: SocketAddr,
    frames: Arc<Mutex<Vec<Vec<u8>>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Collector {
    /// Of Thrift frames.
    pub(crate) async fn start(react: impl FnMut(&[u8]) -> Reaction + Send + 'static) -> Self {
        Self::at(0, react).await
    }

    /// The same at this port.
    pub(crate) async fn at(port: u16, react: impl FnMut(&[u8]) -> Reaction + Send + 'static) -> Self {
        Self::with(port, react, false).await
    }

    /// Of requests over HTTP.
    pub(crate) async fn start_http(react: impl FnMut(&[u8]) -> Reaction + Send + 'static) -> Self {
        Self::with(0, react, true).await
    }

    async fn with(port: u16, mut react: impl FnMut(&[u8]) -> Reaction + Send + 'static, http: bool) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let frames: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
        let kept = Arc::clone(&frames);
        let task = tokio::spawn(async move {
            // One connection at a time: the client has no more.
            while let Ok((mut stream, _)) = listener.accept().await {
                while let Ok(frame) = if http { request(&mut stream).await } else { frame(&mut stream).await } {
                    kept.lock().unwrap().push(frame.clone());
                    match react(&frame) {
                        Reaction::Say(bytes) => {
                            if stream.write_all(&bytes).await.is_err() {
                                break;
                            }
                        }
                        Reaction::SayAndClose(bytes) => {
                            let _ = stream.write_all(&bytes).await;
                            break;
                        }
                        Reaction::Close => break,
                        Reaction::Nothing => {}
                    }
                }
            }
        });
        Self { addr, frames, task }
    }

    pub(crate) fn port(&self) -> u16 {
        self.addr.port()
    }

    /// What has come so far.
    pub(crate) fn frames(&self) -> Vec<Vec<u8>> {
        self.frames.lock().unwrap().clone()
    }

    /// A port where nobody listens.
    pub(crate) fn free_port() -> u16 {
        std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn frame(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; stream.read_u32().await? as usize];
    stream.read_exact(&mut frame).await?;
    Ok(frame)
}

/// A request with its length told.
async fn request(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..at]).into_owned();
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
        if bytes.len() == at + 4 + length.parse::<usize>().unwrap() {
            return Ok(bytes);
        }
    }
}
