//! `default`: the router's table, the configured namers, the `/$` names.

use std::sync::Arc;

use l5d_config::{Cx, Fields, Kind, Node};
use l5d_naming::{Interpreter, Namer};

use super::{InterpreterConfig, default_interpreter, transformed};
use crate::{BuildError, NamerContext, TransformerConfig, parse_transformer};

pub(crate) const KIND: Kind<dyn InterpreterConfig> = Kind {
    id: "default",
    experimental: false,
    summary: "the router's dtab and the configured namers",
    example: "kind: default\n",
    parse,
};

/// The section of the default interpreter.
struct DefaultConfig {
    transformers: Vec<Box<dyn TransformerConfig>>,
}

fn parse(node: &Node, cx: &mut Cx) -> Option<Box<dyn InterpreterConfig>> {
    let mut fields = Fields::of(node, cx)?;
    fields.skip_kind();
    let transformers = fields.each("transformers", cx, parse_transformer);
    fields.finish(cx);
    Some(Box::new(DefaultConfig { transformers }))
}

impl InterpreterConfig for DefaultConfig {
    fn build(
        self: Box<Self>,
        namers: &[Arc<dyn Namer>],
        cx: &NamerContext,
    ) -> Result<Arc<dyn Interpreter>, BuildError> {
        transformed(default_interpreter(namers, cx), self.transformers, cx)
    }
}
