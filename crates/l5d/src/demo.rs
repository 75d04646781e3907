//! `l5d demo`: the proxy at work without a file or another program.
//!
//! Some small upstreams in this process, a router in front of them, every telemeter, and a gentle client that keeps the
//! numbers moving. The upstreams fail and slow down in turn, so that every page of the dashboard has something to show:
//! see [`Weather`]. The configuration is an ordinary one, read like any other; only ports and the folder of the names are
//! filled in. The folder is gone when the demo ends.

use std::{
    fs, io,
    net::Ipv4Addr,
    path::PathBuf,
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
    time::Instant,
};

/// Where the router and the admin pages listen, unless `L5D_DEMO_PORTS` says otherwise.
const PORTS: (u16, u16) = (4140, 9990);

/// The upstreams: what each is like, and which of a name's replicas it is.
const UPSTREAMS: [(Upstream, &str); 8] = [
    (Upstream::Quick, "quick"),
    (Upstream::Slow, "slow"),
    (Upstream::Flaky, "flaky"),
    (Upstream::Replica(0), "web"),
    (Upstream::Replica(1), "web"),
    (Upstream::Replica(2), "web"),
    (Upstream::Blue, "blue"),
    (Upstream::Green, "green"),
];

/// Who is asked for, and how often.
const TRAFFIC: [(&str, u64); 6] =
    [("quick", 100), ("slow", 400), ("flaky", 250), ("web", 60), ("shop", 120), (NOBODY, 400)];

/// A name that leads nowhere; asked for only while the weather says so.
const NOBODY: &str = "nobody";

/// An upstream's character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Upstream {
    /// Answers at once, but for the time when it hangs up instead.
    Quick,
    /// Takes between 50 and 250 ms, at times much longer.
    Slow,
    /// Fails every fifth request, which retries make good.
    Flaky,
    /// One of three; the second one breaks now and then.
    Replica(u8),
    /// Three quarters of the shop.
    Blue,
    /// The new version of it, which is not yet what it should be.
    Green,
}

/// What goes wrong when. One round takes two minutes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weather {
    /// Nothing does.
    Fair,
    /// A replica of `web` answers with errors, until failure accrual leaves it alone.
    ReplicaDown,
    /// `slow` takes five times as long.
    Slower,
    /// Every third answer of `green`, a quarter of `shop`, is an error.
    BadRelease,
    /// `quick` closes connections instead of answering.
    HangUps,
    /// Somebody asks for a name that leads nowhere.
    Unknown,
}

impl Weather {
    fn at(elapsed: Duration) -> Self {
        match elapsed.as_secs() % 120 {
            20..=39 => Self::ReplicaDown,
            45..=59 => Self::Slower,
            65..=84 => Self::BadRelease,
            90..=97 => Self::HangUps,
            104..=113 => Self::Unknown,
            _ => Self::Fair,
        }
    }
}

/// The upstreams, listening.
pub(crate) struct Demo {
    upstreams: Vec<(Upstream, &'static str, TcpListener)>,
    names: Names,
    ports: (u16, u16),
}

/// The folder that the names of replicas are read from.
struct Names(PathBuf);

impl Drop for Names {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A running demo; ends when dropped.
pub(crate) struct Running {
    _tasks: JoinSet<()>,
    _names: Names,
}

impl Demo {
    /// Opens the upstreams' sockets on free ports.
    ///
    /// # Errors
    /// When loopback has no port left, or the names can't be written, or `L5D_DEMO_PORTS` can't be read.
    pub(crate) async fn bind() -> io::Result<Self> {
        let ports = match std::env::var("L5D_DEMO_PORTS") {
            Err(_) => PORTS,
            Ok(text) => ports(&text).ok_or_else(|| {
                io::Error::other(format!(
                    "L5D_DEMO_PORTS is {text:?}; it wants two ports, the router's and the admin's: 4140,9990"
                ))
            })?,
        };
        let mut upstreams = Vec::new();
        for (kind, name) in UPSTREAMS {
            upstreams.push((kind, name, TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?));
        }
        let names = Names(std::env::temp_dir().join(format!("l5d-demo-{}", std::process::id())));
        fs::create_dir_all(&names.0)?;
        for (_, name) in UPSTREAMS {
            let mut addresses = String::new();
            for (_, _, listener) in upstreams.iter().filter(|(_, known, _)| *known == name) {
                addresses.push_str(&format!("127.0.0.1 {}\n", listener.local_addr()?.port()));
            }
            fs::write(names.0.join(name), addresses)?;
        }
        Ok(Self { upstreams, names, ports })
    }

    /// The configuration in front of them.
    pub(crate) fn config(&self) -> String {
        let (router, admin) = self.ports;
        format!(
            "admin:\n  port: {admin}\n\
             telemetry:\n- kind: io.l5d.prometheus\n- kind: io.l5d.influxdb\n\
             - kind: io.l5d.recentRequests\n  sampleRate: 1.0\n  capacity: 50\n\
             - kind: io.l5d.zipkin\n  sampleRate: 0.001\n\
             - kind: io.l5d.statsd\n  experimental: true\n  prefix: linkerd\n  hostname: 127.0.0.1\n  port: 8125\n\
             \x20 gaugeIntervalMs: 10000\n  sampleRate: 0.01\n\
             namers:\n- kind: io.l5d.fs\n  rootDir: {}\n\
             routers:\n- protocol: http\n  label: demo\n  dtab: |\n\
             \x20   /svc      => /#/io.l5d.fs;\n\
             \x20   /svc/shop => 3 * /#/io.l5d.fs/blue & 1 * /#/io.l5d.fs/green;\n\
             \x20 service:\n    responseClassifier:\n      kind: io.l5d.http.retryableRead5XX\n\
             \x20   retries:\n      budget:\n        minRetriesPerSec: 1\n        percentCanRetry: 0.1\n\
             \x20 client:\n    failureAccrual:\n      kind: io.l5d.consecutiveFailures\n      failures: 5\n\
             \x20     backoff:\n        kind: constant\n        ms: 5000\n\
             \x20 servers:\n  - ip: 127.0.0.1\n    port: {router}\n",
            // JSON's strings are YAML's.
            serde_json::Value::from(self.names.0.display().to_string()),
        )
    }

    /// Serves the upstreams and sends requests, until what this returns is dropped.
    pub(crate) fn start(self) -> Running {
        let mut tasks = JoinSet::new();
        let began = Instant::now();
        for (kind, _, listener) in self.upstreams {
            tasks.spawn(serve(kind, listener, began));
        }
        for (host, every) in TRAFFIC {
            tasks.spawn(send(host, Duration::from_millis(every), self.ports.0, began));
        }
        Running { _tasks: tasks, _names: self.names }
    }

    /// What to do now, for whoever started the demo.
    pub(crate) fn greeting(&self) -> String {
        let (router, admin) = self.ports;
        format!(
            "\
l5d demo: some upstreams, a router, a gentle client, every telemeter. Ctrl-C ends it.

  the dashboard    http://127.0.0.1:{admin}/
  the proxy        http://127.0.0.1:{router}   names: quick, slow, flaky, web, shop

Within two minutes each of these goes wrong and recovers: a replica of web, slow, a new release behind
shop, quick, and a name that leads nowhere. Try, in another terminal:

  curl -s -H 'Host: quick' http://localhost:{router}/
  curl -s 'http://localhost:{admin}/admin/metrics.json?pretty=1' | grep quick
  curl -s http://localhost:{admin}/admin/metrics/prometheus | grep rt:server
  curl -s http://localhost:{admin}/admin/metrics/influxdb | grep rt:service
  nc -ul 127.0.0.1 8125                                        # what StatsD is sent

Counters move at once. Latencies of the metrics pages appear with the first snapshot, a minute after the start;
l5d -io.buoyant.telemetry.admin.histogramSnapshotInterval=5.seconds demo shortens that. L5D_DEMO_PORTS={router},{admin}
moves the two ports.
"
        )
    }
}

fn ports(text: &str) -> Option<(u16, u16)> {
    let (router, admin) = text.split_once(',')?;
    Some((router.trim().parse().ok()?, admin.trim().parse().ok()?))
}

async fn serve(kind: Upstream, listener: TcpListener, began: Instant) {
    let mut connections = JoinSet::new();
    let served = Arc::new(AtomicU64::new(0));
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((tcp, _)) = accepted else { continue };
                let served = Arc::clone(&served);
                connections.spawn(async move {
                    let service = service_fn(|_: Request<Incoming>| {
                        let count = served.fetch_add(1, Relaxed);
                        answer(kind, count, Weather::at(began.elapsed()))
                    });
                    // A connection that breaks is the proxy's to count.
                    let _ = server::Builder::new().serve_connection(TokioIo::new(tcp), service).await;
                });
            }
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

/// The connection is closed instead of answered.
#[derive(Debug)]
struct HungUp;

impl std::fmt::Display for HungUp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("hung up")
    }
}

impl std::error::Error for HungUp {}

async fn answer(kind: Upstream, count: u64, weather: Weather) -> Result<Response<Full<Bytes>>, HungUp> {
    const FAILED: StatusCode = StatusCode::INTERNAL_SERVER_ERROR;
    let (status, text) = match (kind, weather) {
        (Upstream::Quick, Weather::HangUps) if count.is_multiple_of(2) => return Err(HungUp),
        (Upstream::Quick, _) => (StatusCode::OK, "quick as ever\n"),
        (Upstream::Slow, weather) => {
            let times = if weather == Weather::Slower { 5 } else { 1 };
            tokio::time::sleep(Duration::from_millis((50 + count * 37 % 200) * times)).await;
            (StatusCode::OK, "sorry to keep you waiting\n")
        }
        (Upstream::Flaky, _) if count % 5 == 4 => (FAILED, "not now\n"),
        (Upstream::Flaky, _) => (StatusCode::OK, "fine, this time\n"),
        (Upstream::Replica(1), Weather::ReplicaDown) => (FAILED, "this replica is broken\n"),
        (Upstream::Replica(n), _) => {
            tokio::time::sleep(Duration::from_millis(2 + u64::from(n) * 3 + count % 5)).await;
            if count % 40 == 7 { (StatusCode::NOT_FOUND, "no such page\n") } else { (StatusCode::OK, "a page\n") }
        }
        (Upstream::Green, Weather::BadRelease) if !count.is_multiple_of(3) => (FAILED, "the new release fails\n"),
        (Upstream::Green, _) => (StatusCode::OK, "the shop, new\n"),
        (Upstream::Blue, _) => (StatusCode::OK, "the shop\n"),
    };
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    Ok(response)
}

/// Sends a request to the router every so often; connects anew when it must.
async fn send(host: &'static str, every: Duration, router: u16, began: Instant) {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Ok(tcp) = TcpStream::connect((Ipv4Addr::LOCALHOST, router)).await else { continue };
        let Ok((mut sender, connection)) = client::handshake(TokioIo::new(tcp)).await else { continue };
        let exchanges = async {
            loop {
                ticks.tick().await;
                if host == NOBODY && Weather::at(began.elapsed()) != Weather::Unknown {
                    continue;
                }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_goes_wrong_once_in_two_minutes_and_recovers() {
        let round: Vec<Weather> = (0..120).map(|second| Weather::at(Duration::from_secs(second))).collect();
        for weather in [Weather::ReplicaDown, Weather::Slower, Weather::BadRelease, Weather::HangUps, Weather::Unknown]
        {
            let seconds = round.iter().filter(|w| **w == weather).count();
            assert!((8..=20).contains(&seconds), "{weather:?} for {seconds} s");
        }
        assert_eq!((round[0], round[119]), (Weather::Fair, Weather::Fair));
        assert_eq!(Weather::at(Duration::from_secs(140)), Weather::ReplicaDown);
    }

    #[tokio::test]
    async fn the_configuration_has_no_mistake_and_its_names_go_with_it() {
        let demo = Demo::bind().await.unwrap();
        let folder = demo.names.0.clone();
        assert!(crate::linker::load(&demo.config()).is_ok(), "{}", demo.config());
        assert_eq!(fs::read_to_string(folder.join("web")).unwrap().lines().count(), 3);
        drop(demo);
        assert!(!folder.exists());
        assert_eq!(ports("1, 2"), Some((1, 2)));
        assert_eq!(ports("1"), None);
    }
}
