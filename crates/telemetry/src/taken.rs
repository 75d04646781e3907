//! One name, one meaning: what is said when a name is asked for as another kind of metric than it has.

use std::fmt;

use crate::collide::Kind;

/// Why a metric can't be had: at its place is one of another kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    pub(crate) path: String,
    pub(crate) is: Kind,
    pub(crate) asked: Kind,
}

impl Taken {
    /// The keys of the place, joined by slashes.
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, is, asked } = self;
        write!(f, "\"{path}\" is a {} already and can't be a {} too: choose another name", is.name(), asked.name())
    }
}

impl std::error::Error for Taken {}
