//! A mistake in a file, and the context that gathers all of them.
//!
//! The context also knows the path of keys that leads to where the reader is, so that no reader has to carry it.

use std::fmt::{self, Write as _};

use crate::{Node, Pos};

/// One mistake: where it is, in which key, and what is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Its place in the file.
    pub at: Pos,
    /// The keys that lead there, `routers[0].servers[1].port`; empty at the top.
    pub path: String,
    /// What is wrong: lower case, no full stop, the user's own spelling quoted.
    pub what: String,
}

impl ConfigError {
    /// A mistake of the file as a whole, without a path of keys.
    pub fn new(at: Pos, what: impl Into<String>) -> Self {
        Self { at, path: String::new(), what: what.into() }
    }

    /// Shows the error with its file in front: `linkerd.yaml:12:9: telemetry[0].port: …`.
    pub fn in_file<'a>(&'a self, file: &'a str) -> InFile<'a> {
        InFile { file, error: self }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.at)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.what)
    }
}

impl std::error::Error for ConfigError {}

/// An error shown with the name of its file, see [`ConfigError::in_file`].
#[derive(Debug)]
pub struct InFile<'a> {
    file: &'a str,
    error: &'a ConfigError,
}

impl fmt::Display for InFile<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.error)
    }
}

/// Gathers the mistakes of a file, and knows the key path of the section that is being read.
#[derive(Debug, Default)]
pub struct Cx {
    path: Vec<Step>,
    errors: Vec<ConfigError>,
    warnings: Vec<ConfigError>,
}

#[derive(Debug)]
enum Step {
    Key(String),
    Index(usize),
}

impl Cx {
    /// Nothing read, nothing wrong.
    pub fn new() -> Self {
        Self::default()
    }

    /// Records a mistake at `node`, under the present path.
    pub fn error(&mut self, node: &Node, what: impl Into<String>) {
        self.error_at(node.at, what);
    }

    /// Records a mistake at a place of its own, under the present path.
    pub fn error_at(&mut self, at: Pos, what: impl Into<String>) {
        let error = ConfigError { at, path: self.path(), what: what.into() };
        self.errors.push(error);
    }

    /// Records something that works but that its author should know of.
    pub fn warn(&mut self, node: &Node, what: impl Into<String>) {
        let warning = ConfigError { at: node.at, path: self.path(), what: what.into() };
        self.warnings.push(warning);
    }

    /// Reads what is below `key`.
    pub fn at_key<T>(&mut self, key: &str, read: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(Step::Key(key.to_owned()));
        let value = read(self);
        self.path.pop();
        value
    }

    /// Reads the item at `index` of a list.
    pub fn at_index<T>(&mut self, index: usize, read: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(Step::Index(index));
        let value = read(self);
        self.path.pop();
        value
    }

    /// How many mistakes were found so far; lets a caller tell "absent" from "wrong".
    pub fn error_count(&self) -> usize {
        self.errors.len()
    }

    /// The warnings so far, in the order of the file; they are taken out.
    pub fn take_warnings(&mut self) -> Vec<ConfigError> {
        self.warnings.sort_by_key(|w| w.at);
        std::mem::take(&mut self.warnings)
    }

    /// All mistakes, in the order of the file.
    pub fn finish(mut self) -> Vec<ConfigError> {
        self.errors.sort_by_key(|e| e.at);
        self.errors
    }

    /// The present path, `routers[0].servers[1].port`.
    fn path(&self) -> String {
        let mut path = String::new();
        for step in &self.path {
            match step {
                Step::Key(key) if path.is_empty() => path.push_str(key),
                Step::Key(key) => {
                    path.push('.');
                    path.push_str(key);
                }
                Step::Index(index) => {
                    let _ = write!(path, "[{index}]");
                }
            }
        }
        path
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Value;

    #[test]
    fn an_error_names_file_place_path_and_reason() {
        let mut cx = Cx::new();
        let node = Node { at: Pos { line: 12, column: 9 }, value: Value::Null };
        cx.at_key("telemetry", |cx| cx.at_index(0, |cx| cx.at_key("port", |cx| cx.error(&node, "too large"))));
        let errors = cx.finish();
        assert_eq!(errors[0].in_file("linkerd.yaml").to_string(), "linkerd.yaml:12:9: telemetry[0].port: too large");
    }

    #[test]
    fn errors_come_in_the_order_of_the_file() {
        let mut cx = Cx::new();
        for line in [3, 1, 2] {
            cx.error_at(Pos { line, column: 1 }, "x");
        }
        let lines: Vec<u32> = cx.finish().iter().map(|e| e.at.line).collect();
        assert_eq!(lines, [1, 2, 3]);
    }

    #[test]
    fn warnings_are_kept_apart_from_errors() {
        let mut cx = Cx::new();
        cx.warn(&Node { at: Pos::START, value: Value::Null }, "old");
        assert_eq!(cx.take_warnings().len(), 1);
        assert!(cx.finish().is_empty());
    }
}
