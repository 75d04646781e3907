//! What a namer is, and the names it gives. The namers themselves live in the `namers` crate.

use crate::activity::Activity;
use crate::addr::AddrWatch;
use crate::name_tree::NameTree;
use crate::path::Path;

/// A name in a tree that a namer answers.
#[derive(Debug, Clone, PartialEq)]
pub enum Name {
    /// Still a path: to be looked up again, through the whole table.
    Path(Path),
    /// The end of the way.
    Bound(Bound),
}

/// A concrete name: what a client is made for.
#[derive(Debug, Clone)]
pub struct Bound {
    /// The client's name, `/$/inet/127.1/80`.
    pub id: Path,
    /// What of the path the name did not consume.
    pub residual: Path,
    /// Its addresses, now and later.
    pub addr: AddrWatch,
    /// If there is nobody to ask: the status that every request is answered with.
    pub synthetic: Option<u16>,
}

/// Something that knows what names with a certain prefix stand for.
pub trait Namer: Send + Sync {
    /// The names it is asked for start with this: `/#/io.l5d.fs`, `/$`.
    fn prefix(&self) -> &Path;

    /// What a name stands for; `rest` is the name without the prefix. Negative: the next namer may answer.
    fn lookup(&self, rest: &Path) -> Activity<NameTree<Name>>;

    /// The whole names (with prefix) that it could bind, if it can list them: `/bound-names.json`.
    fn names(&self) -> Vec<Path> {
        Vec::new()
    }

    /// What it watches, as JSON, if it shows that: `/namer_state/<prefix>.json`, the prefix here without `/#`.
    fn state_json(&self) -> Option<String> {
        None
    }
}

impl Bound {
    /// A name whose addresses are these.
    pub fn new(id: Path, residual: Path, addr: AddrWatch) -> Self {
        Self { id, residual, addr, synthetic: None }
    }
}

impl PartialEq for Bound {
    /// Equal are names of the same client that also watch the same addresses.
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
            && self.residual == other.residual
            && self.synthetic == other.synthetic
            && self.addr.same(&other.addr)
    }
}
