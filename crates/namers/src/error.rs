//! Why something could not be built. What goes wrong later is a state of a name, not an error.

use std::path::PathBuf;

/// Why a namer, interpreter or transformer could not be built from its section.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A directory was named that is none.
    #[error("{} is not a directory", .0.display())]
    NotADirectory(PathBuf),
    /// A file was named that is none.
    #[error("{} is not a file", .0.display())]
    NotAFile(PathBuf),
    /// A host was named that has no address.
    #[error("cannot resolve host \"{host}\" of the {kind} transformer: {why}")]
    UnknownHost {
        /// The transformer.
        kind: &'static str,
        /// What was named.
        host: String,
        /// What the system said.
        why: String,
    },
    /// The system's interfaces can't be listed.
    #[error("cannot list the addresses of this host's interfaces: {0}")]
    Interfaces(String),
}
