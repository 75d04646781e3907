//! The log: one line per event, in the form of Linkerd's (`I 0824 09:15:42.123 UTC worker-0: serving http on …`), to
//! standard error or a file, with levels that can be changed while the process runs (`/logging.json`).
//!
//! Lines are written by a thread of their own behind a bounded queue, so that a slow terminal never delays traffic; what
//! does not fit is dropped, and the number of dropped lines is logged when there is room again.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    fs::OpenOptions,
    io,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::{SystemTime, UNIX_EPOCH},
};

use l5d_admin::LogLevels;
use l5d_config::LogLevel;
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{Layer, layer::Context, layer::SubscriberExt, util::SubscriberInitExt};

/// How many lines may wait.
const QUEUE: usize = 4096;

/// The loggers that have levels of their own, and the module whose events each takes. Their names are crates', as
/// Linkerd's are packages; only that of traces has Linkerd's own name. Everything else is `root`'s.
const LOGGERS: [(&str, &str); 8] = [
    ("io.l5d.tracelog", "io.l5d.tracelog"),
    ("l5d", "l5d"),
    ("l5d.admin", "l5d_admin"),
    ("l5d.http", "l5d_http"),
    ("l5d.namers", "l5d_namers"),
    ("l5d.net", "l5d_net"),
    ("l5d.router", "l5d_router"),
    ("l5d.telemeters", "l5d_telemeters"),
];

/// The running log. What was logged before it is dropped is written by then.
pub(crate) struct Log {
    levels: Arc<Levels>,
    queue: Arc<Queue>,
    writer: Option<JoinHandle<()>>,
}

struct Queue {
    lines: Mutex<Option<SyncSender<String>>>,
    dropped: AtomicU64,
}

/// The levels; 255 stands for "as root".
pub(crate) struct Levels {
    root: AtomicU8,
    own: BTreeMap<&'static str, (&'static str, AtomicU8)>,
}

const AS_ROOT: u8 = u8::MAX;

impl Log {
    /// Starts logging at `level` to `output`, or to standard error, for the whole process.
    ///
    /// # Errors
    /// When the file cannot be opened, or the process logs already.
    pub(crate) fn start(level: LogLevel, output: Option<&Path>) -> io::Result<Self> {
        let mut out: Box<dyn io::Write + Send> = match output {
            None => Box::new(io::stderr()),
            Some(path) => Box::new(OpenOptions::new().create(true).append(true).open(path)?),
        };
        let (sender, receiver) = sync_channel(QUEUE);
        let queue = Arc::new(Queue { lines: Mutex::new(Some(sender)), dropped: AtomicU64::new(0) });
        let levels = Arc::new(Levels {
            root: AtomicU8::new(rank_of(level)),
            own: LOGGERS.iter().map(|(name, module)| (*name, (*module, AtomicU8::new(AS_ROOT)))).collect(),
        });
        let dropped = Arc::clone(&queue);
        let writer =
            std::thread::Builder::new().name("log".to_owned()).spawn(move || write(&receiver, &mut out, &dropped))?;
        let layer = Lines { levels: Arc::clone(&levels), queue: Arc::clone(&queue) };
        tracing_subscriber::registry().with(layer).try_init().map_err(io::Error::other)?;
        Ok(Self { levels, queue, writer: Some(writer) })
    }

    /// For `/logging.json`.
    pub(crate) fn levels(&self) -> Arc<dyn LogLevels> {
        Arc::clone(&self.levels) as _
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        drop(self.queue.lines.lock().unwrap_or_else(PoisonError::into_inner).take());
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

fn write(lines: &Receiver<String>, out: &mut dyn io::Write, queue: &Queue) {
    while let Ok(line) = lines.recv() {
        let _ = out.write_all(line.as_bytes()); // there is nobody left to tell
        let dropped = queue.dropped.swap(0, Relaxed);
        if dropped > 0 {
            let _ = writeln!(out, "W {dropped} log lines were dropped: the log is slower than what is logged");
        }
    }
    let _ = out.flush();
}

/// How severe: what is at or below the configured rank is logged.
fn rank_of(level: LogLevel) -> u8 {
    match level.name() {
        "OFF" => 0,
        "FATAL" | "CRITICAL" | "ERROR" => 1,
        "WARNING" => 2,
        "INFO" => 3,
        "DEBUG" => 4,
        _ => 5,
    }
}

fn name_of(rank: u8) -> &'static str {
    match rank {
        0 => "OFF",
        1 => "ERROR",
        2 => "WARNING",
        3 => "INFO",
        4 => "DEBUG",
        _ => "TRACE",
    }
}

fn rank(level: Level) -> u8 {
    match level {
        Level::ERROR => 1,
        Level::WARN => 2,
        Level::INFO => 3,
        Level::DEBUG => 4,
        Level::TRACE => 5,
    }
}

impl Levels {
    fn of(&self, target: &str) -> u8 {
        let module = target.split("::").next().unwrap_or(target);
        let own = self.own.values().find(|(m, _)| *m == module).map_or(AS_ROOT, |(_, rank)| rank.load(Relaxed));
        if own == AS_ROOT { self.root.load(Relaxed) } else { own }
    }
}

impl LogLevels for Levels {
    fn list(&self) -> Vec<(String, String)> {
        let root = self.root.load(Relaxed);
        let own = self.own.iter().map(|(name, (_, rank))| {
            let rank = rank.load(Relaxed);
            ((*name).to_owned(), name_of(if rank == AS_ROOT { root } else { rank }).to_owned())
        });
        std::iter::once(("root".to_owned(), name_of(root).to_owned())).chain(own).collect()
    }

    fn set(&self, logger: &str, level: &str) -> Result<(), String> {
        let level = level.parse::<LogLevel>()?;
        let rank = rank_of(level);
        if logger.is_empty() || logger == "root" {
            self.root.store(rank, Relaxed);
            return Ok(());
        }
        let (_, own) = self.own.get(logger).ok_or_else(|| {
            let known: Vec<_> = self.own.keys().copied().collect();
            format!("unknown logger {logger:?}; known: root, {}", known.join(", "))
        })?;
        own.store(rank, Relaxed);
        Ok(())
    }
}

/// Turns events into lines.
struct Lines {
    levels: Arc<Levels>,
    queue: Arc<Queue>,
}

impl<S: Subscriber> Layer<S> for Lines {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        // Libraries below speak of their own insides; an operator hears of them at DEBUG of the root at most.
        let ours = ["l5d", "io.l5d."].iter().any(|ours| metadata.target().starts_with(ours));
        rank(*metadata.level()) <= self.levels.of(metadata.target()) && (ours || *metadata.level() <= Level::WARN)
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let line = line(event, SystemTime::now());
        let lines = self.queue.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.as_ref().is_some_and(|l| l.try_send(line).is_err()) {
            self.queue.dropped.fetch_add(1, Relaxed);
        }
    }
}

fn line(event: &Event<'_>, now: SystemTime) -> String {
    let letter = match *event.metadata().level() {
        Level::ERROR => 'E',
        Level::WARN => 'W',
        Level::INFO => 'I',
        Level::DEBUG | Level::TRACE => 'D',
    };
    let mut line = String::with_capacity(160);
    let thread = std::thread::current();
    let _ = write!(line, "{letter} {} UTC {}: ", stamp(now), thread.name().unwrap_or("main"));
    let mut parts = Parts { message: String::new(), fields: String::new() };
    event.record(&mut parts);
    line.push_str(&parts.message);
    line.push_str(&parts.fields);
    line.push('\n');
    line
}

/// `MMdd HH:mm:ss.SSS`, UTC.
fn stamp(now: SystemTime) -> String {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let date = httpdate::fmt_http_date(now); // "Sun, 06 Nov 1994 08:49:37 GMT"
    let month = match date.get(8..11) {
        Some("Jan") => 1,
        Some("Feb") => 2,
        Some("Mar") => 3,
        Some("Apr") => 4,
        Some("May") => 5,
        Some("Jun") => 6,
        Some("Jul") => 7,
        Some("Aug") => 8,
        Some("Sep") => 9,
        Some("Oct") => 10,
        Some("Nov") => 11,
        _ => 12,
    };
    let (day, time) = (date.get(5..7).unwrap_or("00"), date.get(17..25).unwrap_or("00:00:00"));
    format!("{month:02}{day} {time}.{:03}", since.subsec_millis())
}

struct Parts {
    message: String,
    fields: String,
}

impl Visit for Parts {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message.push_str(value);
        } else {
            let _ = write!(self.fields, " {}={value:?}", field.name());
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            let _ = write!(self.message, "{value:?}");
        } else {
            let _ = write!(self.fields, " {}={value:?}", field.name());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn times_read_like_linkerds() {
        assert_eq!(stamp(UNIX_EPOCH + Duration::from_millis(784_111_777_012)), "1106 08:49:37.012");
    }

    #[test]
    fn levels_are_inherited_and_set() {
        let levels = Levels {
            root: AtomicU8::new(3),
            own: LOGGERS.iter().map(|(name, module)| (*name, (*module, AtomicU8::new(AS_ROOT)))).collect(),
        };
        assert_eq!(levels.of("l5d_http::server"), 3);
        levels.set("l5d.http", "debug").unwrap();
        assert_eq!(levels.of("l5d_http::server"), 4);
        assert_eq!(levels.of("l5d_net"), 3);
        levels.set("root", "WARNING").unwrap();
        assert_eq!(levels.of("l5d_net"), 2);
        assert!(levels.set("nobody", "INFO").unwrap_err().contains("known: root, io.l5d.tracelog, l5d"));
        assert!(levels.set("root", "LOUD").is_err());
        assert!(levels.list().contains(&("l5d.http".to_owned(), "DEBUG".to_owned())));
    }
}
