//! Plug-ins: a value per kind, a table per family, and the choice by the section's `kind` key.
//!
//! A table is a plain static that can be read, ordered and tested; there is no registry.

use std::fmt;

use crate::{Cx, FromNode, Node, Value};

/// One kind of plug-in of a family, for example the Prometheus telemeter. `P` is what reading its section gives.
pub struct Kind<P: ?Sized + 'static> {
    /// What the section's `kind` key says.
    pub id: &'static str,
    /// The section must also say `experimental: true`. The family's reader checks it, since the text differs.
    pub experimental: bool,
    /// One line for the reference.
    pub summary: &'static str,
    /// A section that reads and builds.
    pub example: &'static str,
    /// Reads the section, with [`crate::Fields`], calling `skip_kind` for the keys common to all kinds.
    pub parse: fn(&Node, &mut Cx) -> Option<Box<P>>,
}

impl<P: ?Sized> fmt::Debug for Kind<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kind").field("id", &self.id).field("experimental", &self.experimental).finish_non_exhaustive()
    }
}

/// Reads a section whose `kind` names one of `kinds`; gives the kind's id with what it read.
///
/// `family` is the word for one of them in an error: `telemeter`, `balancer`. Ids in `unsupported` are those Linkerd knows
/// and l5d doesn't yet; they are refused by name.
pub fn parse_kind<P: ?Sized>(
    family: &str,
    kinds: &[&Kind<P>],
    unsupported: &[&str],
    node: &Node,
    cx: &mut Cx,
) -> Option<(&'static str, Box<P>)> {
    let known = || {
        let mut ids: Vec<&str> = kinds.iter().map(|kind| kind.id).collect();
        ids.sort_unstable();
        ids.join(", ")
    };
    let Value::Map(_) = &node.value else {
        cx.error(node, format!("expected a mapping with the {family}'s `kind`, got {}", node.describe()));
        return None;
    };
    let Some(at) = node.get("kind").filter(|kind| !kind.is_null()) else {
        cx.error(node, format!("missing type id property 'kind'; known: {}", known()));
        return None;
    };
    let id = cx.at_key("kind", |cx| String::from_node(at, cx))?;
    let Some(kind) = kinds.iter().find(|kind| kind.id == id) else {
        let what = if unsupported.contains(&id.as_str()) {
            format!("the {family} \"{id}\" is not supported by l5d yet; supported: {}", known())
        } else {
            format!("unknown {family} \"{id}\"; known: {}", known())
        };
        cx.at_key("kind", |cx| cx.error(at, what));
        return None;
    };
    if let Some(experimental) = node.get("experimental").filter(|e| !e.is_null()) {
        cx.at_key("experimental", |cx| bool::from_node(experimental, cx));
    }
    (kind.parse)(node, cx).map(|read| (kind.id, read))
}

/// Whether a section says `experimental: true`.
pub fn asks_for_experimental(node: &Node) -> bool {
    node.get("experimental").is_some_and(|value| bool::from_node(value, &mut Cx::new()) == Some(true))
}

/// Declares a family's plug-ins: one module each, and the table of their `KIND`s in the order written.
///
/// ```text
/// l5d_config::kinds! {
///     /// Every telemeter that `telemetry:` may name.
///     pub TELEMETERS: dyn TelemeterConfig => prometheus, influxdb,
/// }
/// ```
///
/// stands for `mod prometheus; mod influxdb;` and a `pub static TELEMETERS: &[&Kind<dyn TelemeterConfig>]`. rustfmt
/// doesn't find modules inside a macro: format by the list of files.
#[macro_export]
macro_rules! kinds {
    ($(#[$doc:meta])* $vis:vis $TABLE:ident : $plugin:ty => $($module:ident),+ $(,)?) => {
        $(mod $module;)+
        $(#[$doc])*
        $vis static $TABLE: &[&$crate::Kind<$plugin>] = &[$(&$module::KIND),+];
    };
}
