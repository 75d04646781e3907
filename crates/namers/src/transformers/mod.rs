//! Transformers change what names are bound to: of one namer, or of everything that an interpreter binds. Owns how they
//! are put around either; what one does is its own file.
//!
//! Contract: a name that was transformed says so, `/%` and the transformer's prefix stand before it, so that it gets a
//! client of its own. Explaining (`/delegator.json`) goes on working behind those that only change addresses.

use std::sync::Arc;

use l5d_config::{Cx, Fields, Node, parse_kind};
use l5d_naming::{
    Activity, Addr, AddrMap, Address, Bound, BoxFuture, DelegateTree, Delegator, Dtab, Interpreter, Name, NameTree,
    Namer, Path, State,
};
use tokio::runtime::Handle;

use crate::{BuildError, NamerContext, asked_for, derive};

l5d_config::kinds! {
    /// Every transformer that `transformers:` may name, in the order of the reference.
    pub TRANSFORMERS: dyn TransformerConfig => port, localhost, specific_host, replace, constant,
}

/// Transformers of Linkerd that l5d does not have yet.
const UNSUPPORTED: &[&str] = &["io.l5d.k8s.daemonset", "io.l5d.k8s.localnode"];

/// A transformer's section, parsed.
pub trait TransformerConfig: Send {
    /// `/%` and the prefix.
    fn prefix(&self) -> Path;

    /// Finds out what the transformer needs to know.
    fn build(self: Box<Self>, cx: &NamerContext) -> Result<Arc<dyn Transformer>, BuildError>;
}

/// Changes what names are bound to.
pub trait Transformer: Send + Sync {
    /// What a tree becomes, now and later.
    fn transform(&self, tree: Activity<NameTree<Bound>>, runtime: &Handle) -> Activity<NameTree<Bound>>;

    /// What an explained tree becomes; none if the transformer can't explain itself.
    fn explain(&self) -> Option<Box<dyn Fn(DelegateTree) -> DelegateTree + Send>> {
        None
    }
}

/// Reads one item of `transformers:`.
pub fn parse_transformer(node: &Node, cx: &mut Cx) -> Option<Box<dyn TransformerConfig>> {
    let (id, config) = parse_kind("transformer", TRANSFORMERS, UNSUPPORTED, node, cx)?;
    asked_for(TRANSFORMERS, id, node, &format!("{id} transformer"), cx)?;
    Some(config)
}

/// Takes the keys common to all transformers: the prefix if there is one.
fn prefix(fields: &mut Fields<'_>, cx: &mut Cx) -> Option<Path> {
    fields.skip_kind();
    fields.parsed("prefix", cx, Path::read)
}

/// `/%`, then the given prefix or the kind's own.
fn prefixed<'a>(given: Option<Path>, default: impl IntoIterator<Item = &'a str>) -> Path {
    Path::from_segments(["%"]).concat(&given.unwrap_or_else(|| Path::from_segments(default)))
}

/// A transformer that changes addresses only.
struct Addresses {
    /// The Linkerd class that does it, for `/delegator.json`.
    name: &'static str,
    prefix: Path,
    map: AddrMap,
}

impl Addresses {
    /// Changes every address.
    fn each(name: &'static str, prefix: Path, change: impl Fn(&Address) -> Address + Send + Sync + 'static) -> Self {
        let map: AddrMap = Arc::new(move |addr| match addr {
            Addr::Bound(set) => Addr::bound(set.endpoints.iter().map(&change)),
            addr => addr,
        });
        Self { name, prefix, map }
    }

    /// Keeps some addresses. If none is left the name has none, which is not that there is no such name.
    fn keeping(name: &'static str, prefix: Path, keep: impl Fn(&Address) -> bool + Send + Sync + 'static) -> Self {
        let map: AddrMap = Arc::new(move |addr| match addr {
            Addr::Bound(set) => {
                let mut kept = set.endpoints.iter().filter(|address| keep(address)).cloned().peekable();
                if kept.peek().is_none() { Addr::Neg } else { Addr::bound(kept) }
            }
            addr => addr,
        });
        Self { name, prefix, map }
    }
}

impl Transformer for Addresses {
    fn transform(&self, tree: Activity<NameTree<Bound>>, runtime: &Handle) -> Activity<NameTree<Bound>> {
        let (prefix, map) = (self.prefix.clone(), self.map.clone());
        derive::map(runtime, tree, move |state| match state {
            State::Ok(tree) => State::Ok(
                tree.map(&mut |bound| Bound { addr: bound.addr.clone().mapped(map.clone()), ..named(&prefix, bound) }),
            ),
            other => other,
        })
    }

    fn explain(&self) -> Option<Box<dyn Fn(DelegateTree) -> DelegateTree + Send>> {
        let (name, prefix, map) = (self.name, self.prefix.clone(), self.map.clone());
        Some(Box::new(move |tree| tree.transformed(name, &prefix, &map)))
    }
}

/// The same name with a transformer's prefix.
fn named(prefix: &Path, bound: &Bound) -> Bound {
    Bound { id: prefix.concat(&bound.id), ..bound.clone() }
}

/// A namer or interpreter with a transformer around it.
pub(crate) struct Transformed<T: ?Sized> {
    pub(crate) inner: Arc<T>,
    pub(crate) transformer: Arc<dyn Transformer>,
    pub(crate) runtime: Handle,
}

impl Namer for Transformed<dyn Namer> {
    fn prefix(&self) -> &Path {
        self.inner.prefix()
    }

    /// Trees with names that are still to be looked up are left alone.
    fn lookup(&self, rest: &Path) -> Activity<NameTree<Name>> {
        let names = self.inner.lookup(rest);
        let bound = derive::map(&self.runtime, names.clone(), |state| match state {
            State::Ok(tree) => State::Ok(only_bound(&tree).unwrap_or(NameTree::Neg)),
            State::Pending => State::Pending,
            State::Failed(why) => State::Failed(why),
        });
        let transformed = self.transformer.transform(bound, &self.runtime);
        derive::join(&self.runtime, names, transformed, |names, transformed| match (names, transformed) {
            (State::Ok(tree), _) if only_bound(&tree).is_none() => State::Ok(tree),
            (State::Ok(_), State::Ok(tree)) => State::Ok(tree.map(&mut |bound| Name::Bound(bound.clone()))),
            (_, State::Pending) | (State::Pending, _) => State::Pending,
            (State::Failed(why), _) | (_, State::Failed(why)) => State::Failed(why),
        })
    }

    fn names(&self) -> Vec<Path> {
        self.inner.names()
    }

    fn state_json(&self) -> Option<String> {
        self.inner.state_json()
    }
}

/// The tree if all its names are bound.
fn only_bound(tree: &NameTree<Name>) -> Option<NameTree<Bound>> {
    let mut bound = true;
    tree.for_each(&mut |name| bound &= matches!(name, Name::Bound(_)));
    bound.then(|| {
        let mut names = Vec::new();
        tree.for_each(&mut |name| {
            if let Name::Bound(bound) = name {
                names.push(bound.clone());
            }
        });
        let mut names = names.into_iter();
        // As many names as leaves, in the same order.
        tree.map(&mut |_| names.next().expect("each leaf gave a name"))
    })
}

impl Interpreter for Transformed<dyn Interpreter> {
    fn bind(&self, dtab: &Dtab, path: &Path) -> Activity<NameTree<Bound>> {
        self.transformer.transform(self.inner.bind(dtab, path), &self.runtime)
    }

    fn delegator(&self) -> Option<&dyn Delegator> {
        (self.inner.delegator().is_some() && self.transformer.explain().is_some()).then_some(self)
    }
}

impl Delegator for Transformed<dyn Interpreter> {
    fn delegate(&self, dtab: &Dtab, path: &Path) -> BoxFuture<'static, Result<DelegateTree, Arc<str>>> {
        let (Some(inner), Some(explain)) = (self.inner.delegator(), self.transformer.explain()) else {
            return Box::pin(async { Err("cannot show delegations".into()) });
        };
        let delegation = inner.delegate(dtab, path);
        Box::pin(async move { delegation.await.map(explain) })
    }

    fn dtab(&self) -> Activity<Dtab> {
        self.inner.delegator().map_or_else(|| Activity::value(Dtab::empty()), Delegator::dtab)
    }
}
