//! `io.l5d.const`: every name is bound to what one path is bound to.

use std::sync::Arc;

use l5d_config::{Cx, Fields, Kind, Node};
use l5d_naming::{Activity, Bound, NameTree, Path, State};
use tokio::runtime::Handle;

use super::{Transformer, TransformerConfig, named, prefix, prefixed};
use crate::{BuildError, NamerContext, derive, interpreters::bind_built_in};

pub(crate) const KIND: Kind<dyn TransformerConfig> = Kind {
    id: "io.l5d.const",
    experimental: false,
    summary: "binds every name as one path",
    example: "kind: io.l5d.const\npath: /$/inet/127.1/4141\n",
    parse,
};

/// The section of the const transformer.
struct ConstConfig {
    prefix: Path,
    /// A `/$` name.
    path: Path,
}

fn parse(node: &Node, cx: &mut Cx) -> Option<Box<dyn TransformerConfig>> {
    let mut fields = Fields::of(node, cx)?;
    let given = prefix(&mut fields, cx);
    let path = fields.required_with("path", cx, |node, cx| l5d_config::parsed(node, cx, Path::read));
    fields.finish(cx);
    Some(Box::new(ConstConfig { prefix: prefixed(given, ["io.l5d.const"]), path: path? }))
}

impl TransformerConfig for ConstConfig {
    fn prefix(&self) -> Path {
        self.prefix.clone()
    }

    fn build(self: Box<Self>, cx: &NamerContext) -> Result<Arc<dyn Transformer>, BuildError> {
        let prefix = self.prefix;
        let bound = derive::map(&cx.runtime, bind_built_in(&self.path, cx), move |state| match state {
            State::Ok(tree) => State::Ok(tree.map(&mut |bound| named(&prefix, bound))),
            other => other,
        });
        Ok(Arc::new(Const { bound }))
    }
}

struct Const {
    bound: Activity<NameTree<Bound>>,
}

impl Transformer for Const {
    fn transform(&self, _: Activity<NameTree<Bound>>, _: &Handle) -> Activity<NameTree<Bound>> {
        self.bound.clone()
    }
}
