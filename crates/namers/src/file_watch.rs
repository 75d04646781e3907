//! Being told that something below a directory changed. Owns the system's watch and its filter; what changed is found
//! out by looking, never from the event: events may be lost, come late, or not exist (network file systems).
//!
//! So every follower also looks by itself every [`RECHECK`].

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind, RenameMode};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::watch;

/// How long a change may go unseen if no event tells of it.
pub(crate) const RECHECK: Duration = Duration::from_secs(2);

/// How long to wait after an event before looking: writers truncate first and write then.
pub(crate) const SETTLE: Duration = Duration::from_millis(20);

/// A system's watch on a directory. Dropped, it ends.
pub(crate) struct FileWatch {
    /// None if the system refused it: then only looking is left.
    _watcher: Option<RecommendedWatcher>,
    changes: watch::Receiver<()>,
    last: Arc<Mutex<Option<LastEvent>>>,
}

/// The last event, as Linkerd's `/namer_state` shows it.
#[derive(Debug, Clone)]
pub(crate) struct LastEvent {
    /// `ENTRY_CREATE`, `ENTRY_MODIFY` or `ENTRY_DELETE`.
    pub(crate) kind: &'static str,
    /// The file's own name.
    pub(crate) name: String,
    pub(crate) at: SystemTime,
}

impl FileWatch {
    /// Watches a directory, and with `recursive` everything below.
    pub(crate) fn new(dir: &Path, recursive: bool) -> Self {
        let (sender, changes) = watch::channel(());
        let last = Arc::new(Mutex::new(None));
        let on_event = {
            let last = last.clone();
            move |event: notify::Result<notify::Event>| match event {
                Ok(event) => {
                    let Some(kind) = kind(&event.kind) else { return };
                    let name = event.paths.last().and_then(|path| path.file_name());
                    let name = name.unwrap_or_default().to_string_lossy().into_owned();
                    *last.lock().unwrap_or_else(PoisonError::into_inner) =
                        Some(LastEvent { kind, name, at: SystemTime::now() });
                    sender.send_replace(());
                }
                Err(error) => {
                    tracing::warn!(%error, "events of a watched directory were lost");
                    sender.send_replace(());
                }
            }
        };
        let mode = if recursive { RecursiveMode::Recursive } else { RecursiveMode::NonRecursive };
        let watcher = notify::recommended_watcher(on_event)
            .and_then(|mut watcher| watcher.watch(dir, mode).map(|()| watcher))
            .inspect_err(|error| {
                tracing::warn!(dir = %dir.display(), %error, "cannot watch, looking every {RECHECK:?} instead");
            });
        Self { _watcher: watcher.ok(), changes, last }
    }

    /// Resolves after each event from now on; errs when no event can come.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changes.clone()
    }

    pub(crate) fn last_event(&self) -> Option<LastEvent> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Linkerd's word for an event; none for those that change nothing, our own reading among them.
fn kind(kind: &EventKind) -> Option<&'static str> {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => Some("ENTRY_MODIFY"),
        EventKind::Access(_) => None,
        EventKind::Create(_) | EventKind::Modify(ModifyKind::Name(RenameMode::To)) => Some("ENTRY_CREATE"),
        EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(RenameMode::From)) => Some("ENTRY_DELETE"),
        EventKind::Modify(_) | EventKind::Any | EventKind::Other => Some("ENTRY_MODIFY"),
    }
}
