//! Asks the kernel about open connections now and then, for metrics.
//!
//! Finagle asks when a connection begins and every 30 seconds from then on (`ChannelStatsHandler`). So is done here while few
//! open: each is asked for as it begins, which takes its thread some 20 µs. Where more open than [`AT_ONCE`] a second, one task
//! asks for the others, off the threads that carry traffic: first soon, then together, twenty times a second. Of those, one
//! that lives for a moment only may end unasked, and no rate of them keeps the task busy.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{debug, info};

use crate::tcp_info::{TcpInfo, tcp_info};

/// From one sample of a connection to the next.
const PERIOD: Duration = Duration::from_secs(30);
/// After each round of samples.
const PAUSE: Duration = Duration::from_millis(50);
/// But so many pauses together are owed at first, after a quiet time: the connection to an endpoint opens right after the
/// caller's, and may close right after the answer.
const OWED: Duration = Duration::from_secs(2);
/// So many connections in a second are asked for as they begin.
const AT_ONCE: u32 = 20;
/// So many connections may wait for their first sample. Those beyond are never sampled, and counted in a log line.
const MAX_NEW: usize = 8192;

type Record = dyn Fn(TcpInfo) + Send + Sync;
/// Of a connection: its local and its remote one.
type Addresses = (SocketAddr, SocketAddr);
type Known = io::Result<Vec<Option<TcpInfo>>>;
type LookUp = dyn Fn(&[Addresses]) -> Known + Send + Sync;

/// Samples the connections that it is shown, until it is dropped.
pub struct TcpSampler {
    new: Arc<New>,
    look_up: Arc<LookUp>,
    at_once: Mutex<AtOnce>,
    task: JoinHandle<()>,
}

/// How many more may be asked for as they begin.
struct AtOnce {
    a_second: u32,
    left: u32,
    /// When there are as many again.
    until: Instant,
}

impl AtOnce {
    fn take(&mut self) -> bool {
        let now = Instant::now();
        if now >= self.until {
            (self.left, self.until) = (self.a_second, now + Duration::from_secs(1));
        }
        let taken = self.left > 0;
        self.left -= u32::from(taken);
        taken
    }

    /// Not for a while: the kernel does not answer.
    fn rest(&mut self) {
        (self.left, self.until) = (0, Instant::now() + PERIOD);
    }
}

impl TcpSampler {
    /// Samples on this runtime, which needs time enabled, and its threads for blocking work. Sleeps while there is nothing to
    /// sample.
    pub fn start(runtime: &Handle) -> Self {
        Self::with(runtime, AT_ONCE, tcp_info)
    }

    fn with(runtime: &Handle, a_second: u32, look_up: impl Fn(&[Addresses]) -> Known + Send + Sync + 'static) -> Self {
        let new = Arc::new(New::default());
        let look_up: Arc<LookUp> = Arc::new(look_up);
        let task = runtime.spawn(run(Arc::clone(&new), Arc::clone(&look_up)));
        let at_once = Mutex::new(AtOnce { a_second, left: a_second, until: Instant::now() });
        Self { new, look_up, at_once, task }
    }

    /// Calls `record` now or soon and then every 30 seconds, with the window of the connection and the retransmits since the
    /// call before, while what is returned lives.
    pub fn watch(&self, tcp: &TcpStream, record: impl Fn(TcpInfo) + Send + Sync + 'static) -> Sampled {
        let record: Arc<Record> = Arc::new(record);
        // A socket without addresses has failed already.
        if let (Ok(local), Ok(peer)) = (tcp.local_addr(), tcp.peer_addr()) {
            let addresses = (local, peer);
            let mut connection = Connection { addresses, retransmits: 0, record: Arc::downgrade(&record) };
            let sampled = self.sample_at_once(&mut connection);
            self.new.push(connection, sampled);
        }
        Sampled { _record: record }
    }

    fn sample_at_once(&self, connection: &mut Connection) -> bool {
        let at_once = || self.at_once.lock().unwrap_or_else(PoisonError::into_inner);
        if !at_once().take() {
            return false;
        }
        match (self.look_up)(&[connection.addresses]) {
            Ok(known) => known.into_iter().flatten().map(|info| connection.record(info)).next().is_some(),
            Err(_) => {
                at_once().rest(); // the task asks, too, and says so
                false
            }
        }
    }
}

impl fmt::Debug for TcpSampler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TcpSampler")
    }
}

impl Drop for TcpSampler {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A connection's part in the sampling; ends it when dropped.
pub struct Sampled {
    _record: Arc<Record>,
}

impl fmt::Debug for Sampled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sampled")
    }
}

struct Connection {
    addresses: Addresses,
    /// As of the sample before.
    retransmits: u32,
    record: Weak<Record>,
}

impl Connection {
    fn is_open(&self) -> bool {
        self.record.strong_count() > 0
    }

    fn record(&mut self, info: TcpInfo) {
        let retransmits = info.retransmits.saturating_sub(self.retransmits);
        self.retransmits = info.retransmits;
        if let Some(record) = self.record.upgrade() {
            record(TcpInfo { retransmits, ..info });
        }
    }
}

/// The connections that the task has still to hear of.
#[derive(Default)]
struct New {
    waiting: Mutex<Waiting>,
    wake: Notify,
}

#[derive(Default)]
struct Waiting {
    /// Those without a sample.
    connections: Vec<Connection>,
    sampled: Vec<Connection>,
    turned_away: usize,
}

impl New {
    fn push(&self, connection: Connection, sampled: bool) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let first = waiting.connections.is_empty() && waiting.sampled.is_empty();
        if sampled {
            waiting.sampled.push(connection); // no more of them than may be sampled at once
        } else if waiting.connections.len() < MAX_NEW {
            waiting.connections.push(connection);
        } else {
            waiting.turned_away += 1;
        }
        drop(waiting);
        if first {
            self.wake.notify_one();
        }
    }

    fn take(&self) -> Waiting {
        std::mem::take(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for New {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("New")
    }
}

/// The connections that were sampled, in the order of their next sample.
#[derive(Default)]
struct Sleeping {
    queue: VecDeque<(Instant, Connection)>,
    /// At this length closed ones are looked for.
    full: usize,
}

impl Sleeping {
    fn put(&mut self, due: Instant, connections: Vec<Connection>) {
        self.queue.extend(connections.into_iter().map(|connection| (due, connection)));
        if self.queue.len() > self.full {
            self.queue.retain(|(_, connection)| connection.is_open());
            self.full = (2 * self.queue.len()).max(1024);
        }
    }

    async fn next(&self) {
        match self.queue.front() {
            Some(&(due, _)) => tokio::time::sleep_until(due).await,
            None => std::future::pending().await,
        }
    }

    fn take_due(&mut self, into: &mut Vec<Connection>) {
        let now = Instant::now();
        let due = self.queue.partition_point(|(due, _)| *due <= now);
        into.extend(self.queue.drain(..due).map(|(_, connection)| connection));
    }
}

async fn run(new: Arc<New>, look_up: Arc<LookUp>) {
    let mut sleeping = Sleeping::default();
    let mut failing = false;
    // When the pauses of all rounds so far, one after the other, are over.
    let mut rested = Instant::now();
    loop {
        tokio::select! {
            () = new.wake.notified() => {}
            () = sleeping.next() => {}
        }
        let Waiting { mut connections, sampled, turned_away } = new.take();
        sleeping.put(Instant::now() + PERIOD, sampled);
        if turned_away > 0 {
            debug!(turned_away, "too many new connections at a time: these are left out of tcp_send_window_size");
        }
        sleeping.take_due(&mut connections);
        connections.retain(Connection::is_open);
        if connections.is_empty() {
            continue;
        }
        let addresses: Vec<_> = connections.iter().map(|connection| connection.addresses).collect();
        let look_up = Arc::clone(&look_up);
        // Only the runtime's end keeps it from ending.
        let Ok(known) = tokio::task::spawn_blocking(move || look_up(&addresses)).await else { return };
        let now = Instant::now();
        rested = rested.max(now) + PAUSE;
        let pause = match known {
            Ok(known) => {
                failing = false;
                for (connection, info) in connections.iter_mut().zip(known) {
                    if let Some(info) = info {
                        connection.record(info);
                    }
                }
                (rested - now).saturating_sub(OWED)
            }
            Err(error) => {
                // Once per bout: where netlink is not allowed it fails again and again.
                if !std::mem::replace(&mut failing, true) {
                    info!(%error, "cannot ask the kernel about connections: tcp_send_window_size and tcp_retransmits stand still");
                }
                PERIOD
            }
        };
        sleeping.put(now + PERIOD, connections);
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (near, listener.accept().await.unwrap().0)
    }

    /// A sampler of a kernel that answers with these, one a round and the last for ever, and a message for each round.
    fn scripted_at_once(
        at_once: u32,
        answers: &'static [Result<u32, io::ErrorKind>],
    ) -> (TcpSampler, mpsc::UnboundedReceiver<(Instant, usize)>) {
        let (sender, rounds) = mpsc::unbounded_channel();
        let round = Arc::new(Mutex::new(0));
        let sampler = TcpSampler::with(&Handle::current(), at_once, move |addresses: &[Addresses]| {
            let mut round = round.lock().unwrap();
            sender.send((Instant::now(), addresses.len())).unwrap();
            let answer = answers[(*round).min(answers.len() - 1)];
            *round += 1;
            let info = answer.map_err(io::Error::from).map(|retransmits| TcpInfo { retransmits, send_window: 10 });
            info.map(|info| vec![Some(info); addresses.len()])
        });
        (sampler, rounds)
    }

    /// One that asks for nothing at once.
    fn scripted(
        answers: &'static [Result<u32, io::ErrorKind>],
    ) -> (TcpSampler, mpsc::UnboundedReceiver<(Instant, usize)>) {
        scripted_at_once(0, answers)
    }

    #[tokio::test(start_paused = true)]
    async fn few_are_sampled_as_they_begin_and_then_as_the_others() {
        let (sampler, mut rounds) = scripted_at_once(2, &[Ok(1), Ok(1), Ok(1), Ok(4)]);
        let (tcp, _far) = pair().await;
        let (sender, mut samples) = mpsc::unbounded_channel();
        let watch = || {
            let sender = sender.clone();
            sampler.watch(&tcp, move |info| sender.send(info.retransmits).unwrap())
        };
        let watched = [watch(), watch(), watch()];
        assert_eq!([samples.try_recv(), samples.try_recv()], [Ok(1), Ok(1)], "before anything else happens");
        assert!(samples.try_recv().is_err(), "the third is one too many");
        assert_eq!(samples.recv().await, Some(1), "and has its turn soon");
        let begun = Instant::now();
        let mut again = [samples.recv().await, samples.recv().await, samples.recv().await];
        again.sort_unstable();
        assert_eq!((again, begun.elapsed().as_secs()), ([Some(3); 3], 30));
        assert!(samples.try_recv().is_err());
        let next = watch();
        assert_eq!(samples.try_recv(), Ok(4), "a second later there are two more");
        rounds.close();
        let mut asked = Vec::new();
        while let Some((_, n)) = rounds.recv().await {
            asked.push(n);
        }
        assert_eq!(asked, [1, 1, 1, 3, 1]);
        drop((watched, next));
    }

    #[tokio::test(start_paused = true)]
    async fn a_kernel_that_refuses_is_not_asked_for_each() {
        let (sampler, mut rounds) = scripted_at_once(5, &[Err(io::ErrorKind::PermissionDenied)]);
        let (tcp, _far) = pair().await;
        let watched: Vec<_> = (0..5).map(|_| sampler.watch(&tcp, |_| {})).collect();
        assert_eq!(rounds.recv().await.map(|round| round.1), Some(1));
        assert_eq!(rounds.recv().await.map(|round| round.1), Some(5), "the task's own question");
        drop(watched);
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_connection_is_sampled_soon_after_it_is_shown() {
        let (near, far) = pair().await;
        let sampler = TcpSampler::start(&Handle::current());
        let (sender, mut samples) = mpsc::unbounded_channel();
        let watched = [&near, &far].map(|tcp| {
            let sender = sender.clone();
            sampler.watch(tcp, move |info| sender.send(info).unwrap())
        });
        let both = async { [samples.recv().await.unwrap(), samples.recv().await.unwrap()] };
        let both = tokio::time::timeout(Duration::from_secs(10), both).await.unwrap();
        assert!(both.iter().all(|info| info.send_window > 0), "{both:?}");
        drop(watched);
    }

    #[tokio::test(start_paused = true)]
    async fn an_open_connection_is_sampled_every_half_minute_and_only_new_retransmits_are_told() {
        let (sampler, mut rounds) = scripted(&[Ok(2), Ok(5), Ok(5), Ok(6)]);
        let (tcp, _far) = pair().await;
        let (sender, mut samples) = mpsc::unbounded_channel();
        let begun = Instant::now();
        let watched = sampler.watch(&tcp, move |info| sender.send(info).unwrap());
        for (seconds, retransmits) in [(0, 2), (30, 3), (60, 0), (90, 1)] {
            assert_eq!(samples.recv().await, Some(TcpInfo { retransmits, send_window: 10 }));
            assert_eq!(begun.elapsed().as_secs(), seconds);
        }
        drop(watched);
        tokio::time::sleep(10 * PERIOD).await;
        assert_eq!(samples.recv().await, None, "the closure is gone with the connection");
        rounds.close();
        let mut n = 0;
        while rounds.recv().await.is_some() {
            n += 1;
        }
        assert_eq!(n, 4, "nothing is asked when no connection is open");
    }

    #[tokio::test(start_paused = true)]
    async fn few_connections_are_asked_for_at_once_and_many_together() {
        let (sampler, mut rounds) = scripted(&[Ok(0)]);
        let (a, b) = pair().await;
        let mut watched = Vec::new();
        let begun = Instant::now();
        for _ in 0..=OWED.as_millis() / PAUSE.as_millis() {
            watched.push(sampler.watch(&a, |_| {}));
            assert_eq!(rounds.recv().await, Some((begun, 1)));
        }
        for _ in 0..3 {
            watched.extend([&a, &b, &a].map(|tcp| sampler.watch(tcp, |_| {})));
            drop(sampler.watch(&b, |_| {}));
            let (_, n) = rounds.recv().await.unwrap();
            assert_eq!(n, 3, "without the closed one");
        }
        let pauses = begun.elapsed();
        assert!((3 * PAUSE..4 * PAUSE).contains(&pauses), "{pauses:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_kernel_that_refuses_is_asked_again_every_half_minute_only() {
        let (sampler, mut rounds) = scripted(&[Err(io::ErrorKind::PermissionDenied), Err(io::ErrorKind::Other), Ok(0)]);
        let (tcp, _far) = pair().await;
        let mut watched = vec![sampler.watch(&tcp, |_| {})];
        let (begun, _) = rounds.recv().await.unwrap();
        for n in [2, 3] {
            watched.push(sampler.watch(&tcp, |_| {}));
            let (then, asked) = rounds.recv().await.unwrap();
            assert_eq!(((then - begun).as_secs(), asked), (30 * (n - 1), n as usize));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_task_ends_with_its_owner() {
        let (sampler, mut rounds) = scripted(&[Ok(0)]);
        let (tcp, _far) = pair().await;
        let watched = sampler.watch(&tcp, |_| {});
        assert!(rounds.recv().await.is_some());
        drop(sampler);
        assert_eq!(rounds.recv().await, None);
        drop(watched);
    }

    #[test]
    fn what_waits_is_bounded_and_closed_connections_are_let_go() {
        let record: Arc<Record> = Arc::new(|_| {});
        let nowhere: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let connection =
            || Connection { addresses: (nowhere, nowhere), retransmits: 0, record: Arc::downgrade(&record) };
        let new = New::default();
        for _ in 0..MAX_NEW + 3 {
            new.push(connection(), false);
        }
        let taken = new.take();
        assert_eq!((taken.connections.len(), taken.turned_away), (MAX_NEW, 3));

        let mut sleeping = Sleeping::default();
        let due = Instant::now() + PERIOD;
        sleeping.put(due, taken.connections);
        assert_eq!(sleeping.queue.len(), MAX_NEW);
        sleeping.put(due, vec![connection()]);
        let others: Vec<_> = (0..MAX_NEW).map(|_| connection()).collect();
        drop(record);
        sleeping.put(due, others);
        assert_eq!(sleeping.queue.len(), 0);
    }
}
