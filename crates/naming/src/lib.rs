//! The vocabulary of names: paths, dtabs, name trees, and how a path is delegated. No I/O.
//!
//! A request is given a logical [`Path`] such as `/svc/web`. A [`Dtab`] rewrites paths into [`NameTree`]s of paths, a
//! [`Namer`] answers those that stand for something real with a [`Bound`] name, whose addresses are watched through an
//! [`AddrWatch`]. An [`Interpreter`] does the whole way, from path to a tree of bound names, and keeps the answer
//! current for as long as somebody holds the [`Activity`]. [`Binding`] is the one algorithm that all interpreters share.
//!
//! This crate opens nothing: it has no socket, file, clock or runtime. Whoever builds an interpreter spawns the futures
//! that it hands out.

mod activity;
mod addr;
mod delegate;
mod delegate_tree;
mod dtab;
mod interpreter;
pub mod json;
mod name_tree;
mod namer;
mod parse;
mod path;
mod path_matcher;

pub use activity::{Activity, State, Updater};
pub use addr::{Addr, AddrMap, AddrUpdater, AddrWatch, Address, EndpointSet};
pub use delegate::{Binding, MAX_DEPTH, MAX_LOOKUPS, Namers, delegate};
pub use delegate_tree::{BoundLeaf, DelegateNode, DelegateTree};
pub use dtab::{Dentry, Dtab, Elem, Prefix};
pub use interpreter::{BoxFuture, Delegator, Interpreter};
pub use name_tree::NameTree;
pub use namer::{Bound, Name, Namer};
pub use parse::ParseError;
pub use path::Path;
pub use path_matcher::{PathMatcher, Vars};
