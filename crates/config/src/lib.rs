//! The located YAML/JSON tree, kinds and errors of a configuration file. Knows no plug-in.
//!
//! Reading happens in two steps. [`read`] turns text into a tree of [`Node`]s, each of which knows its line and column.
//! Sections are then taken out of the tree with [`Fields`], key by key; the *target type* ([`FromNode`]) decides what a
//! scalar such as `8125` or `"8125"` means, as Jackson did for Linkerd. Mistakes are gathered in a [`Cx`], so that one run
//! reports all of them, each as `FILE:LINE:COLUMN: key.path: what is wrong`.
//!
//! Plug-ins are found by their `kind` in plain tables of [`Kind`]s, which [`kinds!`] writes.
//!
//! Nothing here opens a file or a socket, and nothing knows an id such as `io.l5d.*`.

mod error;
mod fields;
mod from_node;
mod json;
mod kind;
mod node;
mod types;
mod yaml;

pub use error::{ConfigError, Cx, InFile};
pub use fields::Fields;
pub use from_node::{FromNode, parsed};
pub use kind::{Kind, asks_for_experimental, parse_kind};
pub use node::{Key, Node, Pos, Scalar, Value};
pub use types::{LogLevel, Millis, Port, Secs, Timeout, duration};

/// Reads the text of a configuration file: JSON when its first character that isn't blank is `{`, YAML otherwise.
///
/// Of a YAML stream only the first document is read. Duplicate keys, a text without any value and everything that isn't
/// well formed are errors with a place; no input panics. Anchors and aliases are resolved within a bound on the size of
/// the result.
pub fn read(text: &str) -> Result<Node, ConfigError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let node = if text.trim_start().starts_with('{') { json::read(text)? } else { yaml::read(text)? };
    match node.value {
        Value::Null => Err(ConfigError::new(node.at, "the file is empty: nothing to configure")),
        _ => Ok(node),
    }
}

/// How deep mappings and lists may be nested. Deeper than any real file, and shallow enough for recursion.
const MAX_DEPTH: usize = 64;

/// How many nodes a file may hold once its aliases are written out.
const MAX_NODES: usize = 200_000;
