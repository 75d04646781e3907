//! How a name was delegated, for people: the tree behind `/delegator.json`. Owns its nodes, their simplification and
//! their JSON; making one is `delegate.rs`.
//!
//! Contract: the JSON is Linkerd's field by field, for its dashboard and others read it. Deliberately different: a table
//! that recurses for ever gives an `exception` node where Linkerd answered 500.

use crate::addr::{Addr, AddrMap, Address};
use crate::dtab::Dentry;
use crate::json::write_string;
use crate::name_tree::NameTree;
use crate::path::Path;

/// One node: what a name became.
#[derive(Debug, Clone, PartialEq)]
pub struct DelegateTree {
    /// The name here.
    pub path: Path,
    /// The rule that produced it; none at the root.
    pub dentry: Option<Dentry>,
    /// What it became.
    pub node: DelegateNode,
}

/// What a name became.
#[derive(Debug, Clone, PartialEq)]
pub enum DelegateNode {
    /// One other name.
    Delegate(Box<DelegateTree>),
    /// The first of these that is not negative. All of them are explored.
    Alt(Vec<DelegateTree>),
    /// One of these, by weight.
    Union(Vec<(f64, DelegateTree)>),
    /// A bound name.
    Leaf(BoundLeaf),
    /// Nothing; another alternative may answer.
    Neg,
    /// Nothing, and no other alternative may answer.
    Fail,
    /// A name that stands for nothing.
    Empty,
    /// It could not be found out.
    Exception(String),
    /// A bound name that a transformer changed.
    Transformation {
        /// Which transformer.
        name: String,
        /// The name before.
        bound: BoundLeaf,
        /// The leaf after.
        tree: Box<DelegateTree>,
    },
}

/// A bound name with its addresses at that moment.
#[derive(Debug, Clone, PartialEq)]
pub struct BoundLeaf {
    /// Its addresses.
    pub addr: Addr,
    /// The client's name.
    pub id: Path,
    /// The residual.
    pub path: Path,
}

impl DelegateTree {
    /// A node.
    pub fn new(path: Path, dentry: Option<Dentry>, node: DelegateNode) -> Self {
        Self { path, dentry, node }
    }

    /// The same with chains of single entries taken together where the name does not change, and alternatives of
    /// alternatives of one name in one list.
    #[must_use]
    pub fn simplified(self) -> Self {
        let Self { path, dentry, node } = self;
        match node {
            DelegateNode::Delegate(inner) => Self::simplified_delegate(path, dentry, *inner),
            DelegateNode::Alt(mut trees) if trees.len() == 1 => {
                Self::simplified_delegate(path, dentry, trees.remove(0))
            }
            DelegateNode::Union(mut trees) if trees.len() == 1 => {
                Self::simplified_delegate(path, dentry, trees.remove(0).1)
            }
            DelegateNode::Alt(trees) if trees.is_empty() => Self::new(path, dentry, DelegateNode::Neg),
            DelegateNode::Union(trees) if trees.is_empty() => Self::new(path, dentry, DelegateNode::Neg),
            DelegateNode::Alt(trees) => {
                let mut flat = Vec::with_capacity(trees.len());
                for tree in trees {
                    match tree.simplified() {
                        Self { path: inner, node: DelegateNode::Alt(trees), .. } if inner == path => flat.extend(trees),
                        tree => flat.push(tree),
                    }
                }
                Self::new(path, dentry, DelegateNode::Alt(flat))
            }
            DelegateNode::Union(trees) => {
                let trees = trees.into_iter().map(|(weight, tree)| (weight, tree.simplified())).collect();
                Self::new(path, dentry, DelegateNode::Union(trees))
            }
            node => Self::new(path, dentry, node),
        }
    }

    fn simplified_delegate(path: Path, dentry: Option<Dentry>, inner: Self) -> Self {
        let inner = inner.simplified();
        let special = matches!(inner.node, DelegateNode::Neg | DelegateNode::Fail | DelegateNode::Empty);
        if inner.path == path && !special {
            Self { dentry, ..inner }
        } else {
            Self::new(path, dentry, DelegateNode::Delegate(Box::new(inner)))
        }
    }

    /// Puts a [`DelegateNode::Transformation`] in place of every leaf: `prefix` is put before its name, `map` changes
    /// its addresses.
    #[must_use]
    pub fn transformed(self, name: &str, prefix: &Path, map: &AddrMap) -> Self {
        let Self { path, dentry, node } = self;
        let node = match node {
            DelegateNode::Leaf(bound) => {
                let changed =
                    BoundLeaf { addr: map(bound.addr.clone()), id: prefix.concat(&bound.id), path: bound.path.clone() };
                let leaf = Self::new(bound.id.clone(), dentry, DelegateNode::Leaf(changed));
                let node = DelegateNode::Transformation { name: name.to_owned(), bound, tree: Box::new(leaf) };
                // The rule is told once, at the leaf inside.
                return Self::new(path, None, node);
            }
            DelegateNode::Delegate(inner) => DelegateNode::Delegate(Box::new(inner.transformed(name, prefix, map))),
            DelegateNode::Alt(trees) => {
                DelegateNode::Alt(trees.into_iter().map(|tree| tree.transformed(name, prefix, map)).collect())
            }
            DelegateNode::Union(trees) => DelegateNode::Union(
                trees.into_iter().map(|(weight, tree)| (weight, tree.transformed(name, prefix, map))).collect(),
            ),
            DelegateNode::Transformation { name: inner, bound, tree } => {
                DelegateNode::Transformation { name: inner, bound, tree: Box::new(tree.transformed(name, prefix, map)) }
            }
            node => node,
        };
        Self::new(path, dentry, node)
    }

    /// Every bound name, in the order of the text.
    pub fn for_each_leaf(&mut self, f: &mut impl FnMut(&mut BoundLeaf)) {
        match &mut self.node {
            DelegateNode::Leaf(bound) => f(bound),
            DelegateNode::Delegate(tree) => tree.for_each_leaf(f),
            DelegateNode::Alt(trees) => trees.iter_mut().for_each(|tree| tree.for_each_leaf(f)),
            DelegateNode::Union(trees) => trees.iter_mut().for_each(|(_, tree)| tree.for_each_leaf(f)),
            DelegateNode::Transformation { bound, tree, .. } => {
                f(bound);
                tree.for_each_leaf(f);
            }
            DelegateNode::Neg | DelegateNode::Fail | DelegateNode::Empty | DelegateNode::Exception(_) => {}
        }
    }

    /// The JSON text of `/delegator.json`.
    pub fn to_json(&self) -> String {
        let mut out = String::new();
        self.write_json(&mut out);
        out
    }

    fn write_json(&self, out: &mut String) {
        let kind = match &self.node {
            DelegateNode::Delegate(_) => "delegate",
            DelegateNode::Alt(_) => "alt",
            DelegateNode::Union(_) => "union",
            DelegateNode::Leaf(_) => "leaf",
            DelegateNode::Neg => "neg",
            DelegateNode::Fail => "fail",
            DelegateNode::Empty => "empty",
            DelegateNode::Exception(_) => "exception",
            DelegateNode::Transformation { .. } => "transformation",
        };
        push_str(out, &format!("{{\"type\":\"{kind}\",\"path\":"));
        let fails_by_name = self.path.segments().take(2).eq(["$".as_bytes(), "fail".as_bytes()]);
        match &self.node {
            DelegateNode::Neg if self.path.is_empty() => write_string("~", out),
            DelegateNode::Fail if !fails_by_name => write_string("!", out),
            _ => write_string(&self.path.show(), out),
        }
        if let Some(Dentry { prefix, dst }) = &self.dentry {
            push_str(out, ",\"dentry\":{\"prefix\":");
            write_string(&prefix.to_string(), out);
            push_str(out, ",\"dst\":");
            write_string(&dst.to_string(), out);
            out.push('}');
        }
        match &self.node {
            DelegateNode::Delegate(tree) => {
                push_str(out, ",\"delegate\":");
                tree.write_json(out);
            }
            DelegateNode::Alt(trees) => {
                push_str(out, ",\"alt\":");
                write_list(trees, out, Self::write_json);
            }
            DelegateNode::Union(trees) => {
                push_str(out, ",\"union\":");
                write_list(trees, out, |(weight, tree), out| {
                    push_str(out, &format!("{{\"weight\":{weight:?},\"tree\":"));
                    tree.write_json(out);
                    out.push('}');
                });
            }
            DelegateNode::Leaf(bound) => {
                push_str(out, ",\"bound\":");
                bound.write_json(out);
            }
            DelegateNode::Exception(message) => {
                push_str(out, ",\"message\":");
                write_string(message, out);
            }
            DelegateNode::Transformation { name, bound, tree } => {
                push_str(out, ",\"name\":");
                write_string(name, out);
                push_str(out, ",\"bound\":");
                bound.write_json(out);
                push_str(out, ",\"tree\":");
                tree.write_json(out);
            }
            DelegateNode::Neg | DelegateNode::Fail | DelegateNode::Empty => {}
        }
        out.push('}');
    }
}

impl BoundLeaf {
    fn write_json(&self, out: &mut String) {
        push_str(out, "{\"addr\":");
        match &self.addr {
            Addr::Pending => push_str(out, "{\"type\":\"pending\"}"),
            Addr::Neg => push_str(out, "{\"type\":\"neg\"}"),
            Addr::Failed(cause) => {
                push_str(out, "{\"type\":\"failed\",\"cause\":");
                write_string(cause, out);
                out.push('}');
            }
            Addr::Bound(set) => {
                push_str(out, "{\"type\":\"bound\",\"addrs\":");
                write_list(&set.endpoints, out, write_address);
                push_str(out, ",\"meta\":{}}");
            }
        }
        push_str(out, ",\"id\":");
        write_string(&self.id.show(), out);
        push_str(out, ",\"path\":");
        write_string(&self.path.show(), out);
        out.push('}');
    }
}

fn write_address(address: &Address, out: &mut String) {
    push_str(out, "{\"ip\":");
    write_string(&address.addr.ip().to_string(), out);
    push_str(out, &format!(",\"port\":{},\"meta\":{{", address.addr.port()));
    // The keys are Finagle's and Linkerd's; what is usual is not said.
    if address.weight != NameTree::<Path>::DEFAULT_WEIGHT {
        push_str(out, &format!("\"endpoint_addr_weight\":{:?}", address.weight));
    }
    if let Some(authority) = &address.authority {
        push_str(out, if out.ends_with('{') { "" } else { "," });
        push_str(out, "\"authority\":");
        write_string(authority, out);
    }
    push_str(out, "}}");
}

fn write_list<T>(items: &[T], out: &mut String, write: impl Fn(&T, &mut String)) {
    out.push('[');
    for (i, item) in items.iter().enumerate() {
        push_str(out, if i == 0 { "" } else { "," });
        write(item, out);
    }
    out.push(']');
}

fn push_str(out: &mut String, text: &str) {
    out.push_str(text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn leaf(addr: Addr) -> DelegateTree {
        let bound = BoundLeaf { addr, id: Path::read("/#/x").unwrap(), path: Path::read("/r").unwrap() };
        let dentry = Dentry::read("/svc=>/#").unwrap();
        DelegateTree::new(Path::read("/#/x/r").unwrap(), Some(dentry), DelegateNode::Leaf(bound))
    }

    #[test]
    fn addresses_of_every_state_have_their_json() {
        let json = |addr| leaf(addr).to_json();
        let around = |addr: &str| {
            format!(
                "{{\"type\":\"leaf\",\"path\":\"/#/x/r\",\"dentry\":{{\"prefix\":\"/svc\",\"dst\":\"/#\"}},\
                 \"bound\":{{\"addr\":{addr},\"id\":\"/#/x\",\"path\":\"/r\"}}}}"
            )
        };
        assert_eq!(json(Addr::Neg), around("{\"type\":\"neg\"}"));
        assert_eq!(json(Addr::Pending), around("{\"type\":\"pending\"}"));
        assert_eq!(json(Addr::failed("\"a\"\n\u{1}")), around(r#"{"type":"failed","cause":"\"a\"\n\u0001"}"#));
        let address = Address::new(([127, 0, 0, 1], 80).into());
        let heavy = Address { weight: 3.0, authority: Some("a.b".into()), ..Address::new(([127, 0, 0, 2], 80).into()) };
        assert_eq!(
            json(Addr::bound([address, heavy])),
            around(
                "{\"type\":\"bound\",\"addrs\":[{\"ip\":\"127.0.0.1\",\"port\":80,\"meta\":{}},{\"ip\":\"127.0.0.2\",\
                 \"port\":80,\"meta\":{\"endpoint_addr_weight\":3.0,\"authority\":\"a.b\"}}],\"meta\":{}}"
            )
        );
    }

    #[test]
    fn a_transformation_keeps_the_name_before_it() {
        let neg: AddrMap = Arc::new(|_| Addr::Neg);
        let tree = leaf(Addr::bound([])).transformed("Gone", &Path::read("/%/gone").unwrap(), &neg);
        assert_eq!(
            tree.to_json(),
            "{\"type\":\"transformation\",\"path\":\"/#/x/r\",\"name\":\"Gone\",\"bound\":{\"addr\":{\"type\":\"bound\",\
             \"addrs\":[],\"meta\":{}},\"id\":\"/#/x\",\"path\":\"/r\"},\"tree\":{\"type\":\"leaf\",\"path\":\"/#/x\",\
             \"dentry\":{\"prefix\":\"/svc\",\"dst\":\"/#\"},\"bound\":{\"addr\":{\"type\":\"neg\"},\
             \"id\":\"/%/gone/#/x\",\"path\":\"/r\"}}}"
        );
    }

    #[test]
    fn a_failing_name_shows_itself() {
        let fail = |path| DelegateTree::new(Path::read(path).unwrap(), None, DelegateNode::Fail).to_json();
        assert_eq!(fail("/$/fail/x"), r#"{"type":"fail","path":"/$/fail/x"}"#);
        assert_eq!(fail("/svc/a"), r#"{"type":"fail","path":"!"}"#);
    }
}
