//! `io.l5d.rewrite`: makes one name of another by a pattern, `/{host}.ex` to `/host/{host}`.
//!
//! Contract: what the pattern leaves of the name is dropped, not appended; the new name goes through the table again.

use std::sync::Arc;

use l5d_config::{Cx, Fields, FromNode, Kind, Node, parsed};
use l5d_naming::{Activity, Name, NameTree, Namer, Path, PathMatcher, Vars};

use crate::{BuildError, Common, NamerConfig, NamerContext};

pub(crate) const KIND: Kind<dyn NamerConfig> = Kind {
    id: "io.l5d.rewrite",
    experimental: false,
    summary: "rewrites names that match a pattern",
    example: "kind: io.l5d.rewrite\nprefix: /rewrite\npattern: \"/{service}/api\"\nname: \"/srv/{service}\"\n",
    parse,
};

/// The section of the rewriting namer.
struct RewriteConfig {
    common: Common,
    /// Which names are rewritten; their prefix is not part of it.
    pattern: PathMatcher,
    /// What they become, with `{variables}` of the pattern.
    name: String,
}

fn parse(node: &Node, cx: &mut Cx) -> Option<Box<dyn NamerConfig>> {
    let mut fields = Fields::of(node, cx)?;
    let why = "The 'prefix' property is required for the io.l5d.rewrite namer.";
    let common = Common::read(&mut fields, Err(why), cx);
    let pattern = fields.required::<String>("pattern", cx).map(|pattern| PathMatcher::new(&pattern));
    let name = fields.required_with("name", cx, |node, cx| {
        let text = String::from_node(node, cx)?;
        if let Some(pattern) = &pattern {
            // Captures are within segments, so a name is a path with any of them or with none.
            let sample: Vars = pattern.variables().map(|variable| (variable, "x")).collect();
            parsed(node, cx, |text| Path::read(&sample.substitute(text)))?;
        }
        Some(text)
    });
    fields.finish(cx);
    Some(Box::new(RewriteConfig { common: common?, pattern: pattern?, name: name? }))
}

impl NamerConfig for RewriteConfig {
    fn prefix(&self) -> Path {
        self.common.prefix.clone()
    }

    fn build(self: Box<Self>, cx: &NamerContext) -> Result<Arc<dyn Namer>, BuildError> {
        let Self { common, pattern, name } = *self;
        let namer = Rewrite { prefix: common.prefix.clone(), pattern, name };
        common.finish(Arc::new(namer), cx)
    }
}

struct Rewrite {
    prefix: Path,
    pattern: PathMatcher,
    name: String,
}

impl Namer for Rewrite {
    fn prefix(&self) -> &Path {
        &self.prefix
    }

    fn lookup(&self, rest: &Path) -> Activity<NameTree<Name>> {
        let Some(vars) = self.pattern.extract(rest) else { return Activity::value(NameTree::Neg) };
        match Path::read(&vars.substitute(&self.name)) {
            Ok(path) => Activity::value(NameTree::Leaf(Name::Path(path))),
            Err(error) => Activity::failed(error.to_string()),
        }
    }
}
