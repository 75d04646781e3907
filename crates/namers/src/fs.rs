//! `io.l5d.fs`: addresses in files, one file for each name. Owns which file a name means, the format of the files, and
//! that what is on disk is what names are bound to, soon after every change.
//!
//! One task per namer looks after all names that somebody watches: after an event of the directory, and in any case
//! every two seconds, it asks for each name which file it is now and reads it if it is not the one that was read last.
//! So it does not matter how a file changes (written, replaced by a rename as editors and mounted ConfigMaps do it,
//! removed and made again), nor whether its event arrives. A new name is looked for at once by who asks for it, as far as
//! the system has the files in memory; else by the task.
//!
//! Contract: sub-directories take one segment each; what is left of the name is its residual; a missing file is
//! negative, a file that can't be used is a name whose addresses failed, an empty file has no addresses.
//!
//! A name may come from a request, so it can't leave the root directory: segments `.` and `..` and those with a slash
//! mean nothing. Symbolic links are the operator's and are followed, wherever they lead, as Linkerd followed them;
//! devices, pipes and sockets are never opened.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path as FilePath, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use l5d_config::{Cx, Fields, Kind, Node};
use l5d_naming::{
    Activity, Addr, AddrUpdater, AddrWatch, Address, Bound, Name, NameTree, Namer, Path, State, Updater, json,
};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::disk::{Disk, InMemory, Whole};
use crate::file_watch::{FileWatch, RECHECK, SETTLE};
use crate::{BuildError, Common, NamerConfig, NamerContext, dns};

pub(crate) const KIND: Kind<dyn NamerConfig> = Kind {
    id: "io.l5d.fs",
    experimental: false,
    summary: "addresses in the files of a directory, followed as they change",
    example: "kind: io.l5d.fs\nrootDir: .\n",
    parse,
};

/// Files with more bytes are not read.
const MAX_FILE: u64 = 500 * 1024;

/// How deep and how far a listing of names goes. Links may make a directory endless.
const MAX_LISTED_DEPTH: usize = 16;
const MAX_LISTED: usize = 10_000;

/// A file that changed less than this ago may change again without looking different.
const FRESH: Duration = Duration::from_millis(500);

/// The section of the fs namer.
struct FsConfig {
    common: Common,
    /// The directory; a relative one is below the working directory.
    root_dir: PathBuf,
}

fn parse(node: &Node, cx: &mut Cx) -> Option<Box<dyn NamerConfig>> {
    let mut fields = Fields::of(node, cx)?;
    let common = Common::read(&mut fields, Ok("io.l5d.fs"), cx);
    let root_dir: Option<String> = fields.required("rootDir", cx);
    fields.finish(cx);
    Some(Box::new(FsConfig { common: common?, root_dir: root_dir?.into() }))
}

impl NamerConfig for FsConfig {
    fn prefix(&self) -> Path {
        self.common.prefix.clone()
    }

    fn build(self: Box<Self>, cx: &NamerContext) -> Result<Arc<dyn Namer>, BuildError> {
        let Self { common, root_dir } = *self;
        if !root_dir.is_dir() {
            return Err(BuildError::NotADirectory(root_dir));
        }
        let watch = FileWatch::new(&root_dir, true);
        let shared = Arc::new(Shared {
            in_memory: InMemory::can_know(&root_dir),
            root: root_dir,
            runtime: cx.runtime.clone(),
            prefix: common.prefix.clone(),
            slots: Mutex::default(),
            looked_up: Notify::new(),
        });
        let task = cx.runtime.spawn(shared.clone().follow(watch.changes()));
        let started = SystemTime::now();
        common.finish(Arc::new(Fs { shared, watch, task, started }), cx)
    }
}

/// The namer. Names that it bound stay as they are when it is dropped.
struct Fs {
    shared: Arc<Shared>,
    watch: FileWatch,
    task: JoinHandle<()>,
    started: SystemTime,
}

impl Drop for Fs {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Namer for Fs {
    fn prefix(&self) -> &Path {
        &self.shared.prefix
    }

    fn lookup(&self, rest: &Path) -> Activity<NameTree<Name>> {
        let mut slots = self.shared.slots();
        if let Some(slot) = slots.watched.get(rest) {
            return slot.tree.activity();
        }
        let (tree, activity) = Activity::channel();
        let slot = slots.watched.entry(rest.clone()).or_insert(Slot { tree, file: None });
        // Under the lock: what changes from now on is met by the task's next look, which takes the lock first.
        match self.shared.look_in_memory(rest) {
            Look::Unknown => {
                slots.unseen.push(rest.clone());
                drop(slots);
                self.shared.looked_up.notify_one();
            }
            look => self.shared.apply(rest, slot, look),
        }
        activity
    }

    fn names(&self) -> Vec<Path> {
        let mut names = Vec::new();
        let mut left = MAX_LISTED;
        list(&self.shared.root, &self.shared.prefix, MAX_LISTED_DEPTH, &mut left, &mut names);
        names.sort();
        names
    }

    fn state_json(&self) -> Option<String> {
        let mut out = String::from("{\"events\":{");
        let last = self.watch.last_event();
        if let Some(last) = &last {
            out.push_str("\"lastEventKind\":");
            json::write_string(last.kind, &mut out);
            out.push_str(",\"lastEventName\":");
            json::write_string(&last.name, &mut out);
            out.push_str(",\"lastEventAt\":");
            json::write_string(&date(last.at), &mut out);
        }
        out.push_str("},\"state\":{\"running\":true,\"lastStartedAt\":");
        json::write_string(&date(self.started), &mut out);
        out.push_str(",\"lastUpdatedAt\":");
        json::write_string(&date(last.map_or(self.started, |last| last.at)), &mut out);
        out.push_str(",\"value\":{");
        let mut files: Vec<_> = fs::read_dir(&self.shared.root).into_iter().flatten().flatten().collect();
        files.sort_by_key(fs::DirEntry::file_name);
        let mut first = true;
        for file in files.into_iter().take(MAX_LISTED) {
            let (disk, path) = (Whole(&self.shared.root), PathBuf::from(file.file_name()));
            let Ok(metadata) = disk.metadata(&path) else { continue };
            if !metadata.is_file() {
                continue;
            }
            let Some(content) = read(&disk, &self.shared.root, &path, &metadata) else { continue };
            out.push_str(if first { "" } else { "," });
            first = false;
            json::write_string(&file.file_name().to_string_lossy(), &mut out);
            out.push(':');
            let content = content.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
            json::write_string(&content.unwrap_or_else(|why| why), &mut out);
        }
        out.push_str("}}}");
        Some(out)
    }
}

/// What the namer and its task both use. The namer adds slots; the task changes them and takes them away.
struct Shared {
    root: PathBuf,
    /// Whether it is worth while to ask what the system has in memory of it.
    in_memory: bool,
    prefix: Path,
    runtime: Handle,
    slots: Mutex<Slots>,
    /// A slot was added.
    looked_up: Notify,
}

#[derive(Default)]
struct Slots {
    /// Each name that is watched, by what is behind the prefix.
    watched: HashMap<Path, Slot>,
    /// Those that have not been looked at yet. A new name must not cost a look through all the others.
    unseen: Vec<Path>,
}

/// One watched name.
struct Slot {
    tree: Updater<NameTree<Name>>,
    file: Option<Followed>,
}

/// The file that a name means.
struct Followed {
    /// How many segments it took to get there.
    consumed: usize,
    addr: AddrUpdater,
    /// How it looked when it was read; none if it has to be read again in any case.
    signature: Option<Signature>,
    content: Content,
    /// Which reading its addresses are of: resolving its hosts may take longer than its content lasts.
    reading: u64,
}

/// What was in a file, or why it could not be read.
type Content = Result<Vec<u8>, String>;

/// Device, inode, length, and the times of the content's and the file's last change.
type Signature = (u64, u64, u64, (i64, i64), (i64, i64));

/// The file that is followed, if there is one: how many segments it took, and its signature.
type Known = Option<(usize, Option<Signature>)>;

/// What the disk says about a name.
enum Look {
    /// It would have to be waited for.
    Unknown,
    Missing,
    /// The file that is followed already, unchanged.
    Same,
    File {
        consumed: usize,
        signature: Option<Signature>,
        content: Content,
    },
}

impl Shared {
    async fn follow(self: Arc<Self>, mut changes: tokio::sync::watch::Receiver<()>) {
        let mut recheck = tokio::time::interval(RECHECK);
        recheck.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let new_only = tokio::select! {
                () = self.looked_up.notified() => true,
                Ok(()) = changes.changed() => {
                    tokio::time::sleep(SETTLE).await;
                    changes.mark_unchanged();
                    false
                }
                _ = recheck.tick() => false,
            };
            self.look_at_all(new_only).await;
        }
    }

    async fn look_at_all(self: &Arc<Self>, new_only: bool) {
        let asked: Vec<(Path, Known)> = {
            let mut slots = self.slots();
            let known = |slot: &Slot| slot.file.as_ref().map(|file| (file.consumed, file.signature));
            let unseen = std::mem::take(&mut slots.unseen);
            if new_only {
                // A name is dropped when it is rechecked, and may be gone by now.
                let new = unseen.into_iter().filter_map(|rest| slots.watched.get(&rest).map(known).map(|k| (rest, k)));
                new.collect()
            } else {
                slots.watched.retain(|_, slot| !slot.is_idle());
                slots.watched.iter().map(|(rest, slot)| (rest.clone(), known(slot))).collect()
            }
        };
        if asked.is_empty() {
            return;
        }
        let root = self.root.clone();
        let looked = tokio::task::spawn_blocking(move || {
            asked
                .into_iter()
                .map(|(rest, known)| {
                    let look = look(&Whole(&root), &root, &rest, known);
                    (rest, look)
                })
                .collect::<Vec<_>>()
        });
        // It ends early only with the runtime.
        for (rest, look) in looked.await.into_iter().flatten() {
            // Only this task removes slots, so there is one.
            if let Some(slot) = self.slots().watched.get_mut(&rest) {
                self.apply(&rest, slot, look);
            }
        }
    }

    fn look_in_memory(&self, rest: &Path) -> Look {
        let disk = if self.in_memory { InMemory::of(&self.root).ok() } else { None };
        disk.map_or(Look::Unknown, |disk| look(&disk, &self.root, rest, None))
    }

    fn apply(self: &Arc<Self>, rest: &Path, slot: &mut Slot, look: Look) {
        let (consumed, signature, content) = match look {
            Look::Unknown | Look::Same => return,
            Look::Missing => {
                if slot.file.take().is_some() || slot.tree.with(|state| matches!(state, State::Pending)) {
                    slot.tree.ok(NameTree::Neg);
                }
                return;
            }
            Look::File { consumed, signature, content } => (consumed, signature, content),
        };
        if let Some(file) = slot.file.as_mut().filter(|file| file.consumed == consumed) {
            file.signature = signature;
            if file.content != content {
                file.content = content;
                file.reading += 1;
                self.publish(rest, file);
            }
            return;
        }
        let (addr, watch) = AddrWatch::channel(Addr::Pending);
        let file = slot.file.insert(Followed { consumed, addr, signature, content, reading: 0 });
        self.publish(rest, file);
        let id = self.prefix.concat(&rest.take(consumed));
        slot.tree.ok(NameTree::Leaf(Name::Bound(Bound::new(id, rest.drop(consumed), watch))));
    }

    /// Says what a file's addresses are: at once, unless it names hosts.
    fn publish(self: &Arc<Self>, rest: &Path, file: &Followed) {
        let lines = match &file.content {
            Ok(bytes) => parse_addresses(&String::from_utf8_lossy(bytes)),
            Err(why) => Err(why.clone()),
        };
        match lines {
            Err(why) => file.addr.set(Addr::failed(why)),
            Ok(lines) => match lines.iter().map(Line::literal).collect::<Option<Vec<_>>>() {
                Some(addresses) => file.addr.set(Addr::bound(addresses)),
                None => drop(self.runtime.spawn(self.clone().resolve(rest.clone(), file.reading, lines))),
            },
        }
    }

    /// Resolves the hosts of a file once, and again as long as one is unknown and the file is the same.
    async fn resolve(self: Arc<Self>, rest: Path, reading: u64, lines: Vec<Line>) {
        loop {
            let mut addresses = Vec::with_capacity(lines.len());
            let mut unknown = None;
            for line in &lines {
                match line.resolve().await {
                    Ok(address) => addresses.push(address),
                    Err(error) => {
                        tracing::warn!(name = %rest, host = line.host, %error, "address left out");
                        unknown = Some(format!("cannot resolve {}: {error}", line.host));
                    }
                }
            }
            {
                let slots = self.slots();
                let Some(file) = slots.watched.get(&rest).and_then(|slot| slot.file.as_ref()) else { return };
                if file.reading != reading {
                    return;
                }
                match (&unknown, addresses.is_empty()) {
                    (Some(why), true) => file.addr.set(Addr::failed(why.as_str())),
                    _ => file.addr.set(Addr::bound(addresses)),
                }
            }
            if unknown.is_none() {
                return;
            }
            tokio::time::sleep(RECHECK).await;
        }
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    /// Whether nobody watches the name nor its addresses. The tree itself holds one watch on them.
    fn is_idle(&self) -> bool {
        self.tree.is_closed() && self.file.as_ref().is_none_or(|file| file.addr.readers() <= 1)
    }
}

/// Finds the file of a name and reads it, unless it is the known one.
fn look(disk: &impl Disk, root: &FilePath, rest: &Path, known: Known) -> Look {
    let mut path = PathBuf::new();
    for (at, segment) in rest.segments().enumerate() {
        if !is_file_name(segment) {
            return Look::Missing;
        }
        path.push(OsStr::from_bytes(segment));
        let metadata = match disk.metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Look::Unknown,
            Err(_) => return Look::Missing,
        };
        if metadata.is_file() {
            let consumed = at + 1;
            let signature = signature(&metadata);
            if known == Some((consumed, Some(signature))) {
                return Look::Same;
            }
            let settled = is_settled(&metadata, SystemTime::now());
            let Some(content) = read(disk, root, &path, &metadata) else { return Look::Unknown };
            return Look::File { consumed, signature: settled.then_some(signature), content };
        }
        if !metadata.is_dir() {
            return Look::Missing;
        }
    }
    // A directory is no name.
    Look::Missing
}

/// Whether a segment means an entry of the directory it is looked for in.
fn is_file_name(segment: &[u8]) -> bool {
    segment != b"." && segment != b".." && !segment.contains(&b'/') && !segment.contains(&0)
}

fn signature(metadata: &Metadata) -> Signature {
    let content = (metadata.mtime(), metadata.mtime_nsec());
    let file = (metadata.ctime(), metadata.ctime_nsec());
    (metadata.dev(), metadata.ino(), metadata.len(), content, file)
}

/// Whether a further change would show in the signature: file systems' clocks are coarse.
fn is_settled(metadata: &Metadata, now: SystemTime) -> bool {
    let changed =
        Duration::new(u64::try_from(metadata.ctime()).unwrap_or(0), u32::try_from(metadata.ctime_nsec()).unwrap_or(0));
    now.duration_since(SystemTime::UNIX_EPOCH + changed).is_ok_and(|age| age > FRESH)
}

/// Reads a file; none if the disk doesn't know without waiting.
fn read(disk: &impl Disk, root: &FilePath, path: &FilePath, metadata: &Metadata) -> Option<Content> {
    let shown = || root.join(path);
    let too_big = || Some(Err(format!("file {} is larger than {MAX_FILE} bytes", shown().display())));
    if metadata.len() > MAX_FILE {
        return too_big();
    }
    match disk.read(path, MAX_FILE + 1) {
        Ok(bytes) if bytes.len() as u64 > MAX_FILE => too_big(),
        Ok(bytes) => Some(Ok(bytes)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
        Err(error) => Some(Err(format!("cannot read file {}: {error}", shown().display()))),
    }
}

/// Adds the names of all files below a directory, looking at `left` entries at most. What ConfigMaps hide behind `..` is
/// left out.
fn list(dir: &FilePath, prefix: &Path, depth: usize, left: &mut usize, names: &mut Vec<Path>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if name.as_bytes().starts_with(b"..") {
            continue;
        }
        let Some(fewer) = left.checked_sub(1) else { return };
        *left = fewer;
        let path = entry.path();
        let id = prefix.concat(&Path::from_segments([name.as_bytes()]));
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_file() => names.push(id),
            Ok(metadata) if metadata.is_dir() && depth > 1 => list(&path, &id, depth - 1, left, names),
            _ => {}
        }
    }
}

/// One line of a file.
#[derive(Debug, Clone, PartialEq)]
struct Line {
    host: String,
    port: u16,
    weight: f64,
}

impl Line {
    fn literal(&self) -> Option<Address> {
        let ip = dns::literal(&self.host)?;
        Some(Address { weight: self.weight, ..Address::new(SocketAddr::new(ip, self.port)) })
    }

    async fn resolve(&self) -> io::Result<Address> {
        if let Some(address) = self.literal() {
            return Ok(address);
        }
        let ips = dns::system(&self.host).await?;
        let ip = dns::first(&ips).ok_or_else(|| io::Error::other("no address"))?;
        let addr = SocketAddr::new(ip, self.port);
        Ok(Address { host: Some(self.host.as_str().into()), weight: self.weight, ..Address::new(addr) })
    }
}

/// The addresses of a file, or what is wrong with the first line that is none.
fn parse_addresses(text: &str) -> Result<Vec<Line>, String> {
    text.split('\n')
        .map(|line| line.split_once('#').map_or(line, |(line, _comment)| line).trim())
        .filter(|line| !line.is_empty())
        .map(|line| parse_line(line).ok_or_else(|| format!("malformed address: {line}")))
        .collect()
}

/// `host port`, `host port * weight`.
fn parse_line(line: &str) -> Option<Line> {
    let mut words = line.split_whitespace();
    let host = words.next()?.to_owned();
    let port = words.next()?.parse().ok().filter(|port| *port > 0)?;
    let weight = match (words.next(), words.next(), words.next()) {
        (None, ..) => NameTree::<Path>::DEFAULT_WEIGHT,
        (Some("*"), Some(weight), None) => {
            weight.parse().ok().filter(|weight: &f64| weight.is_finite() && *weight >= 0.0)?
        }
        _ => return None,
    };
    Some(Line { host, port, weight })
}

/// A time as Linkerd's watch states show it: `2026-11-22 23:17:40 +0000`.
fn date(at: SystemTime) -> String {
    let secs = at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    // Days to a date by Howard Hinnant's algorithm: years begin in March, so that leap days are last.
    let days = secs / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (secs / 3_600 % 24, secs / 60 % 60, secs % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} +0000")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(text: &str) -> Result<String, String> {
        let lines = parse_addresses(text)?;
        let lines = lines.iter().map(|line| format!("{} {} {:?}", line.host, line.port, line.weight));
        Ok(lines.collect::<Vec<_>>().join(", "))
    }

    #[test]
    fn lines_are_addresses_with_weights() {
        assert_eq!(
            parsed("# two\n127.0.0.1 80 * 1.0\r\n\n  web\t81  *  3 # heavy\n10.1 1"),
            Ok("127.0.0.1 80 1.0, web 81 3.0, 10.1 1 1.0".to_owned())
        );
        assert_eq!(parsed(""), Ok(String::new()));
        assert_eq!(parsed("#\n \n"), Ok(String::new()));
    }

    #[test]
    fn one_malformed_line_spoils_the_file() {
        for line in [
            "127.0.0.1",
            "127.0.0.1 notaport",
            "a 0",
            "a 65536",
            "a -1",
            "a 80 1.0",
            "a 80 *",
            "a 80 * x",
            "a 80 * -1",
            "a 80 * NaN",
            "a 80 * 1 1",
            "a 80 *1",
        ] {
            assert_eq!(parsed(&format!("good 80\n {line} # no\n")), Err(format!("malformed address: {line}")));
        }
    }

    #[test]
    fn only_entries_of_the_directory_are_names() {
        for good in ["web", "..data", ".hidden", "...", "a b"] {
            assert!(is_file_name(good.as_bytes()), "{good}");
        }
        for bad in [".", "..", "../web", "/etc", "a/b", "a\0"] {
            assert!(!is_file_name(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn dates_are_linkerds() {
        let shown = |secs| date(SystemTime::UNIX_EPOCH + Duration::from_secs(secs));
        assert_eq!(shown(0), "1970-01-01 00:00:00 +0000");
        assert_eq!(shown(951_782_400), "2000-02-29 00:00:00 +0000");
        assert_eq!(shown(1_795_389_460), "2026-11-22 23:17:40 +0000");
        assert_eq!(shown(4_107_542_399), "2100-02-28 23:59:59 +0000");
    }

    proptest! {
        #[test]
        fn any_file_is_read_or_refused(text in "[a-c0-9.*# \n\t]{0,60}") {
            if let Err(why) = parse_addresses(&text) {
                prop_assert!(text.contains(why.strip_prefix("malformed address: ").unwrap()));
            }
        }
    }
}
