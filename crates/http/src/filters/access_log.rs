//! The access log: one line per logical attempt that got a response, in the common format with the host in front
//! (http-behaviour §11, config §16).
//!
//! Workers hand finished lines to a thread of the log's own through a bounded queue; a full queue drops the line and
//! counts it (`access_log/dropped` under the router), so a slow disk never delays traffic. Times are UTC. The file is
//! opened once, when the router is built, where Linkerd 1 opens it anew with every client.

use std::{
    fmt::Write as _,
    fs::{File, OpenOptions},
    io::{self, BufWriter, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use l5d_telemetry::{Counter, Scope};

use crate::{
    codec::{Headers, RequestHead, Response},
    headers::{CONTENT_LENGTH, HOST},
};

/// How many lines may wait for the disk.
const QUEUE: usize = 10_000;

/// When the file is renamed and begun anew.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Roll {
    /// Never.
    Never,
    /// At each full hour.
    Hourly,
    /// At midnight.
    Daily,
    /// At midnight before this day of the week; 1 is Sunday.
    Weekly(u8),
    /// When told to ([`AccessLog::reopen`]): the operator has moved the file.
    OnSignal,
    /// When it is this large, in bytes.
    Size(u64),
}

/// What an access log is told.
#[derive(Clone, Debug)]
pub struct AccessLogSettings {
    /// The file.
    pub path: PathBuf,
    /// When to roll it.
    pub roll: Roll,
    /// Whether to keep what is there at start.
    pub append: bool,
    /// How many rolled files to keep; `None` keeps all.
    pub rotate_count: Option<usize>,
}

enum Message {
    Line(String),
    Reopen,
}

/// A router's access log.
pub struct AccessLog {
    queue: SyncSender<Message>,
    dropped: Counter,
    writer: Mutex<Option<JoinHandle<()>>>,
    roll: Roll,
}

impl AccessLog {
    /// Opens the file and starts the writer.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(settings: AccessLogSettings, scope: &Scope) -> io::Result<Arc<Self>> {
        let roll = settings.roll;
        let file = RollingFile::open(settings)?;
        let (queue, receiver) = sync_channel(QUEUE);
        let writer =
            std::thread::Builder::new().name("access-log".to_owned()).spawn(move || write_lines(&receiver, file))?;
        Ok(Arc::new(Self {
            queue,
            dropped: scope.scope("access_log").counter("dropped"),
            writer: Mutex::new(Some(writer)),
            roll,
        }))
    }

    /// Whether this log rolls when told to.
    pub fn rolls_on_signal(&self) -> bool {
        self.roll == Roll::OnSignal
    }

    /// Opens the file of the configured name anew: for logs that roll on a signal.
    pub fn reopen(&self) {
        let _ = self.queue.try_send(Message::Reopen);
    }

    /// Logs a response to a request.
    pub(crate) fn write(&self, head: &RequestHead, peer: SocketAddr, response: &Response) {
        let line = line(head, peer, response, SystemTime::now());
        if self.queue.try_send(Message::Line(line)).is_err() {
            self.dropped.incr();
        }
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        // The writer ends when the last sender is gone; it has written everything by then.
        let (stand_in, _) = sync_channel(1);
        drop(std::mem::replace(&mut self.queue, stand_in));
        if let Some(writer) = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = writer.join();
        }
    }
}

impl std::fmt::Debug for AccessLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccessLog").field("roll", &self.roll).finish_non_exhaustive()
    }
}

fn line(head: &RequestHead, peer: SocketAddr, response: &Response, now: SystemTime) -> String {
    let t = Civil::of(now);
    let mut line = String::with_capacity(160);
    field(&mut line, &head.headers, HOST, false);
    let _ = write!(
        line,
        " {} - - [{:02}/{:02}/{:04}:{:02}:{:02}:{:02} UTC] \"{} {} HTTP/1.1\" {} ",
        peer.ip(),
        t.day,
        t.month,
        t.year,
        t.hour,
        t.minute,
        t.second,
        head.method,
        head.target,
        response.status.as_u16()
    );
    field(&mut line, &response.headers, CONTENT_LENGTH, false);
    line.push(' ');
    field(&mut line, &head.headers, "referer", true);
    line.push(' ');
    field(&mut line, &head.headers, "user-agent", true);
    line.push('\n');
    line
}

fn field(line: &mut String, headers: &Headers, name: &str, quoted: bool) {
    let value = headers.get(name).map(String::from_utf8_lossy);
    let value = value.as_deref().filter(|v| !v.is_empty()).unwrap_or("-");
    if quoted {
        let _ = write!(line, "\"{value}\"");
    } else {
        line.push_str(value);
    }
}

fn write_lines(lines: &Receiver<Message>, mut file: RollingFile) {
    let mut failing = false;
    let mut report = |result: io::Result<()>, path: &Path| match result {
        Ok(()) => failing = false,
        Err(error) if !failing => {
            failing = true;
            tracing::error!(file = %path.display(), %error, "cannot write the access log");
        }
        Err(_) => {}
    };
    let mut dirty = false;
    loop {
        // Lines are flushed when none came for a moment: a reader of the file is not kept waiting.
        let next = if dirty { lines.recv_timeout(Duration::from_millis(50)) } else { lines.recv().map_err(Into::into) };
        match next {
            Ok(Message::Line(line)) => {
                let result = file.write(&line, SystemTime::now());
                report(result, &file.settings.path);
                dirty = true;
            }
            Ok(Message::Reopen) => {
                let result = file.reopen();
                report(result, &file.settings.path);
            }
            Err(RecvTimeoutError::Timeout) => {
                let result = file.out.flush();
                report(result, &file.settings.path);
                dirty = false;
            }
            Err(RecvTimeoutError::Disconnected) => {
                let result = file.out.flush();
                report(result, &file.settings.path);
                return;
            }
        }
    }
}

struct RollingFile {
    settings: AccessLogSettings,
    out: BufWriter<File>,
    size: u64,
    rolls_at: Option<SystemTime>,
}

impl RollingFile {
    fn open(settings: AccessLogSettings) -> io::Result<Self> {
        let file = Self::file(&settings.path, settings.append)?;
        let size = file.metadata()?.len();
        let rolls_at = next_roll(settings.roll, SystemTime::now());
        Ok(Self { settings, out: BufWriter::new(file), size, rolls_at })
    }

    fn file(path: &Path, append: bool) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.create(true);
        if append {
            options.append(true)
        } else {
            options.write(true).truncate(true)
        };
        options.open(path)
    }

    fn write(&mut self, line: &str, now: SystemTime) -> io::Result<()> {
        let full =
            matches!(self.settings.roll, Roll::Size(max) if self.size > 0 && self.size + line.len() as u64 > max);
        if full || self.rolls_at.is_some_and(|at| now >= at) {
            self.roll(now)?;
        }
        self.out.write_all(line.as_bytes())?;
        self.size += line.len() as u64;
        Ok(())
    }

    fn reopen(&mut self) -> io::Result<()> {
        self.out.flush()?;
        self.out = BufWriter::new(Self::file(&self.settings.path, true)?);
        self.size = self.out.get_ref().metadata()?.len();
        Ok(())
    }

    /// Renames the file after the time that it ends with, and begins a new one.
    fn roll(&mut self, now: SystemTime) -> io::Result<()> {
        self.out.flush()?;
        let path = &self.settings.path;
        let t = Civil::of(now);
        let stamp = match self.settings.roll {
            Roll::Hourly => format!("{:04}{:02}{:02}-{:02}", t.year, t.month, t.day, t.hour),
            Roll::Daily | Roll::Weekly(_) => format!("{:04}{:02}{:02}", t.year, t.month, t.day),
            _ => {
                format!("{:04}{:02}{:02}-{:02}{:02}{:02}", t.year, t.month, t.day, t.hour, t.minute, t.second)
            }
        };
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let (stem, extension) = match name.rfind('.') {
            Some(at) if at > 0 => name.split_at(at),
            _ => (name.as_str(), ""),
        };
        let mut target = path.with_file_name(format!("{stem}-{stamp}{extension}"));
        for n in 1.. {
            if !target.exists() {
                break;
            }
            target = path.with_file_name(format!("{stem}-{stamp}.{n}{extension}"));
        }
        std::fs::rename(path, &target)?;
        self.out = BufWriter::new(Self::file(path, true)?);
        self.size = 0;
        self.rolls_at = next_roll(self.settings.roll, now);
        if let Some(keep) = self.settings.rotate_count {
            remove_old(path, stem, extension, keep)?;
        }
        Ok(())
    }
}

/// Removes all but the newest `keep` rolled files; their names sort by time.
fn remove_old(path: &Path, stem: &str, extension: &str, keep: usize) -> io::Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let prefix = format!("{stem}-");
    let mut rolled: Vec<PathBuf> = std::fs::read_dir(folder)?
        .filter_map(Result::ok)
        .filter(|e| {
            let name = e.file_name();
            let name = name.to_string_lossy();
            name.strip_prefix(&prefix).and_then(|n| n.strip_suffix(extension)).is_some_and(|stamp| {
                stamp.len() >= 8 && stamp.bytes().all(|b| b.is_ascii_digit() || b == b'-' || b == b'.')
            })
        })
        .map(|e| e.path())
        .collect();
    rolled.sort();
    for old in rolled.iter().rev().skip(keep) {
        std::fs::remove_file(old)?;
    }
    Ok(())
}

fn next_roll(roll: Roll, now: SystemTime) -> Option<SystemTime> {
    let secs = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let next = match roll {
        Roll::Hourly => (secs / 3600 + 1) * 3600,
        Roll::Daily => (secs / 86_400 + 1) * 86_400,
        Roll::Weekly(day) => {
            // 1970-01-01 was a Thursday, day 5 of a week that begins with Sunday as day 1.
            let today = secs / 86_400;
            let weekday = (today + 4) % 7 + 1;
            let ahead = (u64::from(day) + 7 - weekday) % 7;
            (today + if ahead == 0 { 7 } else { ahead }) * 86_400
        }
        Roll::Never | Roll::OnSignal | Roll::Size(_) => return None,
    };
    Some(UNIX_EPOCH + Duration::from_secs(next))
}

/// A time of day in UTC.
struct Civil {
    year: i64,
    month: u32,
    day: u32,
    hour: u32,
    minute: u32,
    second: u32,
}

impl Civil {
    /// By the usual reckoning from days since 1970 with years that begin in March.
    #[expect(clippy::cast_possible_truncation, reason = "parts of a day, a month and a day of it")]
    fn of(t: SystemTime) -> Self {
        let secs = t.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let (days, rest) = ((secs / 86_400).cast_signed(), (secs % 86_400) as u32);
        let z = days + 719_468;
        let era = z / 146_097;
        let day_of_era = z % 146_097;
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * day_of_year + 2) / 153;
        let day = (day_of_year - (153 * shifted + 2) / 5 + 1) as u32;
        let month = (if shifted < 10 { shifted + 3 } else { shifted - 9 }) as u32;
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        Self { year, month, day, hour: rest / 3600, minute: rest / 60 % 60, second: rest % 60 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(secs)
    }

    #[test]
    fn the_line_is_linkerds() {
        let head = RequestHead::of("HEAD", "/foo?bar=bah", &[(HOST, "monkeys")]);
        let mut response = Response::new(http::StatusCode::PAYMENT_REQUIRED, crate::Body::empty());
        response.headers.add(CONTENT_LENGTH, "304374");
        let text = line(&head, "10.1.2.3:5".parse().unwrap(), &response, at(1_452_115_286));
        assert_eq!(
            text,
            "monkeys 10.1.2.3 - - [06/01/2016:21:21:26 UTC] \"HEAD /foo?bar=bah HTTP/1.1\" 402 304374 \"-\" \"-\"\n"
        );
    }

    #[test]
    fn rolls_by_time() {
        let monday_noon = at(1_452_513_600); // 2016-01-11 12:00
        let next = |roll| next_roll(roll, monday_noon).map(Civil::of).map(|c| (c.day, c.hour));
        assert_eq!(next(Roll::Hourly), Some((11, 13)));
        assert_eq!(next(Roll::Daily), Some((12, 0)));
        assert_eq!(next(Roll::Weekly(1)), Some((17, 0)));
        assert_eq!(next(Roll::Weekly(2)), Some((18, 0)));
        assert_eq!(next(Roll::Never), None);
    }

    #[test]
    fn rolls_by_size_and_keeps_the_newest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let mut file = RollingFile::open(AccessLogSettings {
            path: path.clone(),
            roll: Roll::Size(10),
            append: true,
            rotate_count: Some(1),
        })
        .unwrap();
        for i in 0..4 {
            file.write(&format!("line {i}\n"), at(1_452_513_600 + i)).unwrap();
        }
        file.out.flush().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "line 3\n");
        assert_eq!(std::fs::read_to_string(dir.path().join("access-20160111-120003.log")).unwrap(), "line 2\n");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
