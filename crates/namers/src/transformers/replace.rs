//! `io.l5d.replace`: whatever a name is bound to is replaced by one path's binding; names that are not bound stay so.

use std::sync::Arc;

use l5d_config::{Cx, Fields, Kind, Node};
use l5d_naming::{Activity, Bound, NameTree, Path, State};
use tokio::runtime::Handle;

use super::{Transformer, TransformerConfig, named, prefix, prefixed};
use crate::{BuildError, NamerContext, derive, interpreters::bind_built_in};

pub(crate) const KIND: Kind<dyn TransformerConfig> = Kind {
    id: "io.l5d.replace",
    experimental: false,
    summary: "replaces whatever names are bound to by the binding of one path",
    example: "kind: io.l5d.replace\npath: /$/inet/127.1/4141\n",
    parse,
};

/// The section of the replace transformer.
struct ReplaceConfig {
    prefix: Path,
    /// A `/$` name.
    path: Path,
}

fn parse(node: &Node, cx: &mut Cx) -> Option<Box<dyn TransformerConfig>> {
    let mut fields = Fields::of(node, cx)?;
    let given = prefix(&mut fields, cx);
    let path = fields.required_with("path", cx, |node, cx| l5d_config::parsed(node, cx, Path::read));
    fields.finish(cx);
    Some(Box::new(ReplaceConfig { prefix: prefixed(given, ["io.l5d.replace"]), path: path? }))
}

impl TransformerConfig for ReplaceConfig {
    fn prefix(&self) -> Path {
        self.prefix.clone()
    }

    fn build(self: Box<Self>, cx: &NamerContext) -> Result<Arc<dyn Transformer>, BuildError> {
        let replacement = bind_built_in(&self.path, cx);
        Ok(Arc::new(Replace { prefix: self.prefix, replacement }))
    }
}

struct Replace {
    prefix: Path,
    replacement: Activity<NameTree<Bound>>,
}

impl Transformer for Replace {
    fn transform(&self, tree: Activity<NameTree<Bound>>, runtime: &Handle) -> Activity<NameTree<Bound>> {
        let prefix = self.prefix.clone();
        derive::join(runtime, tree, self.replacement.clone(), move |tree, replacement| match (tree, replacement) {
            (State::Ok(tree), State::Ok(replacement)) => {
                State::Ok(replace(&tree, &replacement.map(&mut |bound| named(&prefix, bound))))
            }
            (State::Failed(why), _) | (State::Ok(_), State::Failed(why)) => State::Failed(why),
            (State::Pending, _) | (State::Ok(_), State::Pending) => State::Pending,
        })
    }
}

fn replace(tree: &NameTree<Bound>, replacement: &NameTree<Bound>) -> NameTree<Bound> {
    match tree {
        NameTree::Leaf(_) => replacement.clone(),
        NameTree::Alt(trees) => NameTree::Alt(trees.iter().map(|tree| replace(tree, replacement)).collect()),
        NameTree::Union(trees) => {
            NameTree::Union(trees.iter().map(|(weight, tree)| (*weight, replace(tree, replacement))).collect())
        }
        NameTree::Neg => NameTree::Neg,
        NameTree::Fail => NameTree::Fail,
        NameTree::Empty => NameTree::Empty,
    }
}
