//! YAML text to located nodes, from the parser's events.
//!
//! Anchors are kept as finished nodes and copied where an alias names them; the number of nodes a file may become is
//! bounded, so a small file of aliases of aliases can't grow without end. Duplicate keys are refused, as Jackson's strict
//! detection did.

use std::collections::{HashMap, HashSet};

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Tag};

use crate::{ConfigError, Key, MAX_DEPTH, MAX_NODES, Node, Pos, Scalar, Value};

/// Reads the first document of a YAML text; a text without one is a null.
pub(crate) fn read(text: &str) -> Result<Node, ConfigError> {
    Reader { open: Vec::new(), anchors: HashMap::new(), nodes: 0 }.read(text)
}

/// The collections that are open, and the anchors that are closed.
struct Reader {
    open: Vec<Open>,
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
}

/// A collection whose end has not been seen.
struct Open {
    at: Pos,
    anchor: usize,
    /// The count of nodes before this one, to know how many it holds.
    before: usize,
    inside: Inside,
}

enum Inside {
    Seq(Vec<Node>),
    Map { entries: Vec<(Key, Node)>, seen: HashSet<String>, key: Option<Key> },
}

impl Reader {
    fn read(mut self, text: &str) -> Result<Node, ConfigError> {
        let mut parser = Parser::new_from_str(text);
        let mut last = Pos::START;
        while let Some(next) = parser.next_event() {
            let (event, span) = next.map_err(|e| scan_error(&e))?;
            let at = pos(span.start);
            last = at;
            let finished = match event {
                Event::Scalar(text, style, anchor, tag) => {
                    self.count(at, 1)?;
                    let node = Node { at, value: scalar(text.into_owned(), style, tag.as_deref()) };
                    self.anchor(anchor, &node, 1);
                    Some(node)
                }
                Event::Alias(anchor) => {
                    let Some((node, size)) = self.anchors.get(&anchor) else {
                        return Err(ConfigError::new(at, "this alias stands inside of what it names"));
                    };
                    let (node, size) = (node.clone(), *size);
                    self.count(at, size)?;
                    // An alias can stand deeper than what it names did.
                    if self.open.len() + depth(&node) > MAX_DEPTH {
                        return Err(ConfigError::new(at, format!("nested more than {MAX_DEPTH} deep")));
                    }
                    Some(node)
                }
                Event::SequenceStart(anchor, _) => {
                    self.enter(at, anchor, Inside::Seq(Vec::new()))?;
                    None
                }
                Event::MappingStart(anchor, _) => {
                    let inside = Inside::Map { entries: Vec::new(), seen: HashSet::new(), key: None };
                    self.enter(at, anchor, inside)?;
                    None
                }
                Event::SequenceEnd | Event::MappingEnd => self.leave(),
                Event::DocumentEnd | Event::StreamEnd => break,
                Event::Nothing | Event::StreamStart | Event::DocumentStart(_) => None,
            };
            if let Some(node) = finished
                && let Some(root) = self.place(node)?
            {
                return Ok(root);
            }
        }
        Ok(Node { at: last, value: Value::Null })
    }

    /// Counts `more` nodes, and refuses a file that became too large.
    fn count(&mut self, at: Pos, more: usize) -> Result<(), ConfigError> {
        self.nodes += more;
        if self.nodes > MAX_NODES {
            return Err(ConfigError::new(at, format!("the file holds more than {MAX_NODES} values")));
        }
        Ok(())
    }

    fn enter(&mut self, at: Pos, anchor: usize, inside: Inside) -> Result<(), ConfigError> {
        if self.open.len() >= MAX_DEPTH {
            return Err(ConfigError::new(at, format!("nested more than {MAX_DEPTH} deep")));
        }
        let before = self.nodes;
        self.count(at, 1)?;
        self.open.push(Open { at, anchor, before, inside });
        Ok(())
    }

    fn leave(&mut self) -> Option<Node> {
        let open = self.open.pop()?;
        let value = match open.inside {
            Inside::Seq(items) => Value::Seq(items),
            Inside::Map { entries, .. } => Value::Map(entries),
        };
        let node = Node { at: open.at, value };
        self.anchor(open.anchor, &node, self.nodes - open.before);
        Some(node)
    }

    fn anchor(&mut self, anchor: usize, node: &Node, size: usize) {
        if anchor > 0 {
            self.anchors.insert(anchor, (node.clone(), size));
        }
    }

    /// Puts a finished node where it belongs; gives it back when it is the whole document.
    fn place(&mut self, node: Node) -> Result<Option<Node>, ConfigError> {
        let Some(open) = self.open.last_mut() else { return Ok(Some(node)) };
        match &mut open.inside {
            Inside::Seq(items) => items.push(node),
            Inside::Map { entries, seen, key } => match key.take() {
                Some(key) => entries.push((key, node)),
                None => {
                    let text = match node.value {
                        Value::Scalar(scalar) => scalar.text,
                        _ => return Err(ConfigError::new(node.at, "a key must be a string")),
                    };
                    if !seen.insert(text.clone()) {
                        return Err(ConfigError::new(node.at, format!("duplicate key `{text}`")));
                    }
                    *key = Some(Key { text, at: node.at });
                }
            },
        }
        Ok(None)
    }
}

fn depth(node: &Node) -> usize {
    match &node.value {
        Value::Null | Value::Scalar(_) => 0,
        Value::Seq(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Map(entries) => 1 + entries.iter().map(|(_, node)| depth(node)).max().unwrap_or(0),
    }
}

fn scalar(text: String, style: ScalarStyle, tag: Option<&Tag>) -> Value {
    // A tag of YAML's own numbers, booleans and nulls takes the quotes' place; any other one makes a string.
    let quoted = match tag {
        Some(tag) if tag.is_yaml_core_schema() => !matches!(tag.suffix.as_str(), "int" | "float" | "bool" | "null"),
        Some(_) => true,
        None => style != ScalarStyle::Plain,
    };
    if !quoted && matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL") {
        return Value::Null;
    }
    Value::Scalar(Scalar { text, quoted })
}

fn pos(mark: Marker) -> Pos {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Pos { line: count(mark.line()).max(1), column: count(mark.col()).saturating_add(1) }
}

fn scan_error(error: &ScanError) -> ConfigError {
    ConfigError::new(pos(*error.marker()), format!("not valid YAML: {}", error.info()))
}
