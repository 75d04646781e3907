//! A plug-in with a key.

use l5d_config::{Cx, Fields, Kind, Node};

use crate::shape::Shape;

struct Square {
    side: u64,
}

impl Shape for Square {
    fn area(&self) -> u64 {
        self.side * self.side
    }
}

fn parse(node: &Node, cx: &mut Cx) -> Option<Box<dyn Shape>> {
    let mut fields = Fields::of(node, cx)?;
    fields.skip_kind();
    let side = fields.required("side", cx);
    fields.finish(cx);
    Some(Box::new(Square { side: side? }))
}

pub(crate) const KIND: Kind<dyn Shape> =
    Kind { id: "t.square", experimental: false, summary: "a square", example: "kind: t.square\nside: 2\n", parse };
