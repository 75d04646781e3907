//! `l5d demo`: the proxy at work without a file or another program.
//!
//! Three small upstreams in this process (one quick, one slow, one that fails now and then), a router in front of them,
//! every telemeter, and a gentle client that keeps the numbers moving. The configuration is an ordinary one, read like
//! any other; only the upstreams' ports are filled in.

use std::{
    convert::Infallible,
    io,
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use hyper::{body::Incoming, client::conn::http1 as client, server::conn::http1 as server, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// Where the router listens.
const ROUTER: u16 = 4140;

/// An upstream's character.
#[derive(Clone, Copy)]
enum Upstream {
    /// Answers at once.
    Quick,
    /// Takes between 50 and 250 ms.
    Slow,
    /// Fails every fifth request.
    Flaky,
}

/// The upstreams, listening.
pub(crate) struct Demo {
    upstreams: Vec<(Upstream, TcpListener)>,
}

impl Demo {
    /// Opens the upstreams' sockets on free ports.
    ///
    /// # Errors
    /// When loopback has no port left.
    pub(crate) async fn bind() -> io::Result<Self> {
        let mut upstreams = Vec::new();
        for kind in [Upstream::Quick, Upstream::Slow, Upstream::Flaky] {
            upstreams.push((kind, TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?));
        }
        Ok(Self { upstreams })
    }

    /// The configuration in front of them.
    ///
    /// # Errors
    /// When a socket's address cannot be asked for.
    pub(crate) fn config(&self) -> io::Result<String> {
        let mut ports = Vec::new();
        for (_, listener) in &self.upstreams {
            ports.push(listener.local_addr()?.port());
        }
        Ok(format!(
            "admin:\n  port: 9990\n\
             telemetry:\n- kind: io.l5d.prometheus\n- kind: io.l5d.influxdb\n\
             - kind: io.l5d.statsd\n  experimental: true\n  prefix: linkerd\n  hostname: 127.0.0.1\n  port: 8125\n\
             \x20 gaugeIntervalMs: 10000\n  sampleRate: 0.01\n\
             routers:\n- protocol: http\n  label: demo\n  dtab: |\n\
             \x20   /svc/quick => /$/inet/127.0.0.1/{};\n\
             \x20   /svc/slow  => /$/inet/127.0.0.1/{};\n\
             \x20   /svc/flaky => /$/inet/127.0.0.1/{};\n\
             \x20 service:\n    responseClassifier:\n      kind: io.l5d.http.retryableRead5XX\n\
             \x20   retries:\n      budget:\n        minRetriesPerSec: 1\n        percentCanRetry: 0.1\n\
             \x20 servers:\n  - ip: 127.0.0.1\n    port: {ROUTER}\n",
            ports[0], ports[1], ports[2]
        ))
    }

    /// Serves the upstreams and sends requests, until dropped.
    pub(crate) fn start(self) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        for (kind, listener) in self.upstreams {
            tasks.spawn(serve(kind, listener));
        }
        for (host, every) in [("quick", 100), ("slow", 400), ("flaky", 250)] {
            tasks.spawn(send(host, Duration::from_millis(every)));
        }
        tasks
    }
}

/// What to do now, for whoever started the demo.
pub(crate) const GREETING: &str = "\
l5d demo: three upstreams, a router, a gentle client, every telemeter. Ctrl-C ends it.

  the proxy        http://127.0.0.1:4140   names: quick, slow, flaky
  the admin pages  http://127.0.0.1:9990/

Try, in another terminal:

  curl -s -H 'Host: quick' http://localhost:4140/
  curl -s 'http://localhost:9990/admin/metrics.json?pretty=1' | grep quick
  curl -s http://localhost:9990/admin/metrics/prometheus | grep rt:server
  curl -s http://localhost:9990/admin/metrics/influxdb | grep rt:service
  nc -ul 127.0.0.1 8125                                        # what StatsD is sent

Counters move at once, latencies appear with the first snapshot, a minute after the start;
l5d -io.buoyant.telemetry.admin.histogramSnapshotInterval=5.seconds demo shortens that.
";

async fn serve(kind: Upstream, listener: TcpListener) {
    let mut connections = JoinSet::new();
    let served = Arc::new(AtomicU64::new(0));
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((tcp, _)) = accepted else { continue };
                let served = Arc::clone(&served);
                connections.spawn(async move {
                    let service = service_fn(|request| answer(kind, served.fetch_add(1, Relaxed), request));
                    // A connection that breaks is the proxy's to count.
                    let _ = server::Builder::new().serve_connection(TokioIo::new(tcp), service).await;
                });
            }
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

async fn answer(kind: Upstream, count: u64, _: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (status, text) = match kind {
        Upstream::Quick => (StatusCode::OK, "quick as ever\n"),
        Upstream::Slow => {
            tokio::time::sleep(Duration::from_millis(50 + count * 37 % 200)).await;
            (StatusCode::OK, "sorry to keep you waiting\n")
        }
        Upstream::Flaky if count % 5 == 4 => (StatusCode::INTERNAL_SERVER_ERROR, "not now\n"),
        Upstream::Flaky => (StatusCode::OK, "fine, this time\n"),
    };
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    Ok(response)
}

/// Sends a request to the router every so often; connects anew when it must.
async fn send(host: &'static str, every: Duration) {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Ok(tcp) = TcpStream::connect((Ipv4Addr::LOCALHOST, ROUTER)).await else { continue };
        let Ok((mut sender, connection)) = client::handshake(TokioIo::new(tcp)).await else { continue };
        let exchanges = async {
            loop {
                ticks.tick().await;
                let request = Request::get("/demo").header(http::header::HOST, host).body(Empty::<Bytes>::new());
                let Ok(request) = request else { return };
                let Ok(response) = sender.send_request(request).await else { return };
                if response.into_body().collect().await.is_err() || sender.ready().await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            _ = connection => {}
            () = exchanges => {}
        }
    }
}
