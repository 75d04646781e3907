//! `io.l5d.fs`: a table in a file, before the router's own. Owns following that file.
//!
//! Contract: what is in the file applies soon after it changes. While the file is missing, nothing new can be bound; a
//! text that is no table is a failure of everything new. What is bound stays bound through either.

use std::fs;
use std::io;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use l5d_config::{Cx, Fields, Kind, Node};
use l5d_naming::{Activity, Dtab, Interpreter, Namer, State, Updater};

use super::{InterpreterConfig, Local, transformed};
use crate::file_watch::{FileWatch, RECHECK, SETTLE};
use crate::{BuildError, NamerContext, TransformerConfig, parse_transformer};

pub(crate) const KIND: Kind<dyn InterpreterConfig> = Kind {
    id: "io.l5d.fs",
    experimental: false,
    summary: "a dtab file, followed as it changes, before the router's dtab",
    example: "kind: io.l5d.fs\ndtabFile: /etc/l5d/dtab\n",
    parse,
};

/// The section of the fs interpreter.
struct FsConfig {
    /// The file with the table.
    dtab_file: PathBuf,
    transformers: Vec<Box<dyn TransformerConfig>>,
}

fn parse(node: &Node, cx: &mut Cx) -> Option<Box<dyn InterpreterConfig>> {
    let mut fields = Fields::of(node, cx)?;
    fields.skip_kind();
    let dtab_file: Option<String> = fields.required("dtabFile", cx);
    let transformers = fields.each("transformers", cx, parse_transformer);
    fields.finish(cx);
    Some(Box::new(FsConfig { dtab_file: dtab_file?.into(), transformers }))
}

impl InterpreterConfig for FsConfig {
    fn build(
        self: Box<Self>,
        namers: &[Arc<dyn Namer>],
        cx: &NamerContext,
    ) -> Result<Arc<dyn Interpreter>, BuildError> {
        let Self { dtab_file, transformers } = *self;
        if !dtab_file.is_file() {
            return Err(BuildError::NotAFile(dtab_file));
        }
        // The directory is watched and not the file, for files are replaced by renames; watched before it is read, so
        // that nothing happens in between.
        let watch = FileWatch::new(directory(&dtab_file), false);
        let (updater, table) = Activity::channel();
        // Read before the first name is bound: a start with a bad file is told at once, in the log.
        updater.set(read(&dtab_file));
        if let State::Failed(why) = table.current() {
            tracing::warn!(file = %dtab_file.display(), error = %why, "dtab file can't be used");
        }
        cx.runtime.spawn(follow(dtab_file, watch, updater));
        transformed(Arc::new(Local::new(Some(table), namers, cx)), transformers, cx)
    }
}

fn directory(file: &FilePath) -> &FilePath {
    match file.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => FilePath::new("."),
    }
}

/// Keeps the table current until nobody uses it.
async fn follow(file: PathBuf, watch: FileWatch, table: Updater<Dtab>) {
    let mut changes = watch.changes();
    loop {
        tokio::select! {
            () = table.closed() => return,
            Ok(()) = changes.changed() => {
                tokio::time::sleep(SETTLE).await;
                changes.mark_unchanged();
            }
            () = tokio::time::sleep(RECHECK) => {}
        }
        let looked_at = file.clone();
        // It ends early only with the runtime.
        let Ok(state) = tokio::task::spawn_blocking(move || read(&looked_at)).await else { return };
        if table.with(|last| *last != state) {
            match &state {
                State::Ok(dtab) => tracing::info!(file = %file.display(), entries = dtab.len(), "dtab file changed"),
                State::Pending => tracing::warn!(file = %file.display(), "dtab file is missing"),
                State::Failed(error) => tracing::warn!(file = %file.display(), %error, "dtab file can't be used"),
            }
            table.set(state);
        }
    }
}

fn read(file: &FilePath) -> State<Dtab> {
    match fs::read_to_string(file) {
        Ok(text) => match Dtab::read(&text) {
            Ok(dtab) => State::Ok(dtab),
            Err(error) => State::Failed(error.to_string().into()),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => State::Pending,
        Err(error) => State::Failed(format!("cannot read {}: {error}", file.display()).into()),
    }
}
