//! A router between sockets whose namer says by which name its endpoints go (http-behaviour §6.6). No namer of l5d does yet:
//! Consul's will.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use l5d_config::{Cx, FromNode};
use l5d_http::config::HttpRouterConfig;
use l5d_http::{HttpRouter, RouterContext, RouterPlugins};
use l5d_naming::{Activity, Addr, AddrWatch, Address, Bound, Dtab, Interpreter, NameTree, Path};
use l5d_telemetry::{MetricsTree, trace::Tracing};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Every name is at that address, which goes by `in.side`.
struct Inside(SocketAddr);

impl Interpreter for Inside {
    fn bind(&self, _: &Dtab, path: &Path) -> Activity<NameTree<Bound>> {
        let address = Address { authority: Some("in.side".into()), ..Address::new(self.0) };
        Activity::value(NameTree::Leaf(Bound {
            id: path.clone(),
            residual: Path::empty(),
            addr: AddrWatch::value(Addr::bound([address])),
            synthetic: None,
        }))
    }
}

/// What comes until the peer ends, or a head of its own with so many bytes behind it.
async fn message(stream: &mut TcpStream, body: usize) -> String {
    let mut bytes = Vec::new();
    loop {
        let head = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        if head.is_some_and(|head| bytes.len() >= head + 4 + body) {
            return String::from_utf8(bytes).expect("text");
        }
        let read = stream.read_buf(&mut bytes).await.expect("the peer sends");
        assert!(read > 0, "ended within a message: {}", String::from_utf8_lossy(&bytes));
    }
}

fn header<'a>(message: &'a str, name: &str) -> Option<&'a str> {
    let lines = message.lines().filter_map(|line| line.split_once(": "));
    lines.filter(|(line, _)| line.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
}

#[tokio::test]
async fn endpoints_are_asked_and_answer_by_their_own_name() {
    let upstream = TcpListener::bind("127.0.0.1:0").await.expect("a free port of loopback can be bound");
    let config = l5d_config::read("protocol: http\nservers: [{port: 0}]\n").expect("YAML");
    let mut cx = Cx::new();
    let config = HttpRouterConfig::from_node(&config, &mut cx).expect("a router");
    let plugins = RouterPlugins {
        interpreter: Arc::new(Inside(upstream.local_addr().expect("a bound socket has an address"))),
        identifiers: Vec::new(),
        classifiers: vec![None],
        propagator: None,
    };
    let context = RouterContext {
        tree: MetricsTree::new(),
        workers: 1,
        runtime: tokio::runtime::Handle::current(),
        tracing: Tracing::none(),
    };
    let (_router, servers) = HttpRouter::build(&config, plugins, &context).expect("a router can be built");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port of loopback can be bound");
    let server = listener.local_addr().expect("a bound socket has an address");
    let (trigger, drain) = l5d_net::drain();
    let serving = tokio::spawn(Arc::clone(&servers[0]).serve(listener, drain));

    let mut caller = TcpStream::connect(server).await.expect("the router listens");
    caller.write_all(b"GET /a HTTP/1.1\r\nHost: web\r\n\r\n").await.expect("the router reads");
    let (mut endpoint, _) = upstream.accept().await.expect("the router connects");
    let asked = message(&mut endpoint, 0).await;
    assert_eq!((header(&asked, "host"), header(&asked, "l5d-dst-service")), (Some("in.side"), Some("/svc/web")));
    let answer = "HTTP/1.1 302 Found\r\nLocation: http://in.side/b?from=in.side\r\nRefresh: 5; url=http://in.side/\r\n\
                  X-Other: in.side\r\nContent-Length: 2\r\n\r\nok";
    endpoint.write_all(answer.as_bytes()).await.expect("the router reads");
    let answered = message(&mut caller, 2).await;
    assert_eq!(header(&answered, "location"), Some("http://web/b?from=web"));
    assert_eq!(header(&answered, "refresh"), Some("5; url=http://web/"));
    assert_eq!(header(&answered, "x-other"), Some("in.side"));

    drop((caller, endpoint));
    assert!(trigger.drain(tokio::time::Instant::now() + Duration::from_secs(60)).await, "nothing is under way");
    serving.await.expect("the server does not panic");
}
