//! The vocabulary of names: paths, dtabs, name trees, and how a path is delegated. No I/O.

mod dtab;
mod name_tree;
mod parse;
mod path;
mod path_matcher;

pub use dtab::{Dentry, Dtab, Elem, Prefix};
pub use name_tree::NameTree;
pub use parse::ParseError;
pub use path::Path;
pub use path_matcher::{PathMatcher, Vars};
