//! The keys of one mapping, taken one by one; what nobody took is an error that lists what could have been.

use crate::{Cx, FromNode, Key, Node, Pos, Value, parsed};

/// A mapping that is being read. Take every key the section knows, then call [`Fields::finish`].
#[derive(Debug)]
pub struct Fields<'a> {
    at: Pos,
    left: Vec<&'a (Key, Node)>,
    known: Vec<String>,
}

impl<'a> Fields<'a> {
    /// Begins to read `node`; an error if it isn't a mapping.
    pub fn of(node: &'a Node, cx: &mut Cx) -> Option<Self> {
        let Value::Map(entries) = &node.value else {
            cx.error(node, format!("expected a mapping, got {}", node.describe()));
            return None;
        };
        Some(Self { at: node.at, left: entries.iter().collect(), known: Vec::new() })
    }

    /// The mapping's place.
    pub fn at(&self) -> Pos {
        self.at
    }

    /// The value of an optional key; absent and null are `None`, and so is a bad value, whose error was recorded.
    pub fn optional<T: FromNode>(&mut self, key: &str, cx: &mut Cx) -> Option<T> {
        self.with(key, cx, T::from_node)
    }

    /// The value of a key that must be there.
    pub fn required<T: FromNode>(&mut self, key: &str, cx: &mut Cx) -> Option<T> {
        self.required_with(key, cx, T::from_node)
    }

    /// The value of an optional key, or its default.
    pub fn or<T: FromNode>(&mut self, key: &str, default: T, cx: &mut Cx) -> T {
        self.optional(key, cx).unwrap_or(default)
    }

    /// An optional key read by a function.
    pub fn with<T>(&mut self, key: &str, cx: &mut Cx, parse: impl FnOnce(&'a Node, &mut Cx) -> Option<T>) -> Option<T> {
        let node = self.node(key)?;
        cx.at_key(key, |cx| parse(node, cx))
    }

    /// A key that must be there, read by a function.
    pub fn required_with<T>(
        &mut self,
        key: &str,
        cx: &mut Cx,
        parse: impl FnOnce(&'a Node, &mut Cx) -> Option<T>,
    ) -> Option<T> {
        let Some(node) = self.node(key) else {
            cx.error_at(self.at, format!("'{key}' must be specified"));
            return None;
        };
        cx.at_key(key, |cx| parse(node, cx))
    }

    /// An optional scalar read by a parser of another crate, see [`parsed`].
    pub fn parsed<T, E: std::fmt::Display>(
        &mut self,
        key: &str,
        cx: &mut Cx,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        self.with(key, cx, |node, cx| parsed(node, cx, parse))
    }

    /// An optional list, each item read by a function; the good items are kept. Absent is an empty list.
    pub fn each<T>(&mut self, key: &str, cx: &mut Cx, mut parse: impl FnMut(&'a Node, &mut Cx) -> Option<T>) -> Vec<T> {
        let list = self.with(key, cx, |node, cx| match &node.value {
            Value::Seq(items) => {
                let items = items.iter().enumerate();
                Some(items.filter_map(|(i, item)| cx.at_index(i, |cx| parse(item, cx))).collect())
            }
            _ => {
                cx.error(node, format!("expected a list, got {}", node.describe()));
                None
            }
        });
        list.unwrap_or_default()
    }

    /// The raw value of an optional key; absent and null are `None`.
    pub fn node(&mut self, key: &str) -> Option<&'a Node> {
        self.entry(key).map(|(_, node)| node).filter(|node| !node.is_null())
    }

    /// A key that Linkerd knows and l5d doesn't yet: to ask for something by it is an error that says so.
    pub fn unsupported(&mut self, key: &str, cx: &mut Cx) {
        let entry = self.left.iter().position(|(k, _)| k.text == key).map(|i| self.left.swap_remove(i));
        let asks = |node: &Node| !node.is_null() && !matches!(&node.value, Value::Seq(items) if items.is_empty());
        if let Some((found, node)) = entry
            && asks(node)
        {
            cx.at_key(key, |cx| cx.error_at(found.at, "not supported by l5d yet"));
        }
    }

    /// Marks `kind` and `experimental` as read: they were looked at by [`crate::parse_kind`].
    pub fn skip_kind(&mut self) {
        self.skip("kind");
        self.skip("experimental");
    }

    /// Marks a key as read that somebody else looks at. Families without experimental kinds skip `kind` alone.
    pub fn skip(&mut self, key: &str) {
        self.entry(key);
    }

    /// Ends the reading: every key that is left is an error.
    pub fn finish(mut self, cx: &mut Cx) {
        self.known.sort();
        self.known.dedup();
        for (key, _) in &self.left {
            let known = if self.known.is_empty() {
                "no keys are known here".to_owned()
            } else {
                format!("known: {}", self.known.join(", "))
            };
            cx.error_at(key.at, format!("unknown key `{}`; {known}", key.text));
        }
    }

    fn entry(&mut self, key: &str) -> Option<&'a (Key, Node)> {
        self.known.push(key.to_owned());
        let i = self.left.iter().position(|(k, _)| k.text == key)?;
        Some(self.left.swap_remove(i))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(yaml: &str, read: impl FnOnce(&mut Fields<'_>, &mut Cx)) -> Vec<String> {
        let node = crate::read(yaml).unwrap();
        let mut cx = Cx::new();
        if let Some(mut fields) = Fields::of(&node, &mut cx) {
            read(&mut fields, &mut cx);
            fields.finish(&mut cx);
        }
        cx.finish().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_unknown_key_is_named_with_the_known_ones() {
        let errors = errors("port: 1\nprot: 2\n", |f, cx| {
            f.optional::<u16>("port", cx);
            f.optional::<String>("ip", cx);
        });
        assert_eq!(errors, ["2:1: unknown key `prot`; known: ip, port"]);
    }

    #[test]
    fn a_missing_required_key_is_an_error_of_the_mapping() {
        assert_eq!(
            errors("a: {}", |f, cx| {
                f.with("a", cx, |n, cx| {
                    let mut f = Fields::of(n, cx)?;
                    f.required::<u32>("minMs", cx)
                });
            }),
            ["1:4: a: 'minMs' must be specified"]
        );
    }

    #[test]
    fn null_is_the_same_as_absent() {
        assert!(
            errors("port:\nip: ~\n", |f, cx| {
                assert_eq!(f.optional::<u16>("port", cx), None);
                assert_eq!(f.or::<String>("ip", "x".to_owned(), cx), "x");
            })
            .is_empty()
        );
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        let unsupported = |value: &str| {
            errors(&format!("a: 1\nannouncers: {value}\n"), |f, cx| {
                f.optional::<u16>("a", cx);
                f.unsupported("announcers", cx);
            })
        };
        for value in ["[{kind: x}]", "{}", "x"] {
            assert_eq!(unsupported(value), ["2:1: announcers: not supported by l5d yet"], "{value}");
        }
        for nothing in ["[]", "~", ""] {
            assert!(unsupported(nothing).is_empty(), "{nothing:?} asks for nothing");
        }
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let errors = errors("a: x\nb: y\nc: 1\n", |f, cx| {
            f.optional::<u16>("a", cx);
            f.optional::<bool>("b", cx);
        });
        assert_eq!(errors.len(), 3, "{errors:?}");
    }

    #[test]
    fn a_list_is_not_a_mapping() {
        assert_eq!(errors("[1]", |_, _| ()), ["1:1: expected a mapping, got a list"]);
    }
}
