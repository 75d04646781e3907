//! A plug-in without keys.

use l5d_config::{Cx, Fields, Kind, Node};

use crate::shape::Shape;

struct Dot;

impl Shape for Dot {
    fn area(&self) -> u64 {
        0
    }
}

fn parse(node: &Node, cx: &mut Cx) -> Option<Box<dyn Shape>> {
    let mut fields = Fields::of(node, cx)?;
    fields.skip_kind();
    fields.finish(cx);
    Some(Box::new(Dot))
}

pub(crate) const KIND: Kind<dyn Shape> =
    Kind { id: "t.dot", experimental: true, summary: "a dot", example: "kind: t.dot\nexperimental: true\n", parse };
