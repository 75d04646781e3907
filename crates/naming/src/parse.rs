//! The reader of paths, name trees and dtabs. Owns the grammar and the texts of its errors.
//!
//! Contract: the errors are Linkerd's to the letter, `'/' expected but 'b' found at '[b]ogus'`, for people search for
//! them and programs compare them. Two limits are ours, since the text may come with a request: how deep parentheses
//! nest, and that weights are finite.

use crate::dtab::{Dentry, Dtab, Elem, Prefix};
use crate::name_tree::NameTree;
use crate::path::Path;

/// Why a text is no path, name tree or dtab.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{expected} expected but {found} found at '{text}'")]
pub struct ParseError {
    expected: String,
    found: String,
    /// The whole text, with the character that was wrong in brackets.
    text: String,
}

/// How deep parentheses may nest. Evaluating a tree recurses; a request's dtab must not choose the depth of our stack.
const MAX_NESTING: usize = 32;

pub(crate) struct Parser<'a> {
    text: &'a str,
    at: usize,
    nesting: usize,
}

type Parsed<T> = Result<T, ParseError>;

impl<'a> Parser<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, at: 0, nesting: 0 }
    }

    /// Only space and comments may be left.
    pub(crate) fn end(&mut self) -> Parsed<()> {
        self.space();
        match self.peek() {
            None => Ok(()),
            found => self.illegal("end of input", found),
        }
    }

    pub(crate) fn dtab(&mut self) -> Parsed<Dtab> {
        let mut entries = Vec::new();
        loop {
            self.space();
            if self.peek().is_some() {
                entries.push(self.dentry()?);
                self.space();
            }
            if !self.maybe(';') {
                return Ok(Dtab::from_entries(entries));
            }
        }
    }

    pub(crate) fn dentry(&mut self) -> Parsed<Dentry> {
        let prefix = self.prefix()?;
        self.space();
        self.eat('=')?;
        self.eat('>')?;
        Ok(Dentry { prefix, dst: self.tree()? })
    }

    pub(crate) fn prefix(&mut self) -> Parsed<Prefix> {
        self.space();
        self.eat('/')?;
        let mut elems = Vec::new();
        if self.peek().is_some_and(|c| is_label(c) || c == '*') {
            loop {
                elems.push(if self.maybe('*') { Elem::Any } else { Elem::Label(self.label()?.into()) });
                if !self.maybe('/') {
                    break;
                }
            }
        }
        Ok(Prefix::from_elems(elems))
    }

    pub(crate) fn path(&mut self) -> Parsed<Path> {
        self.space();
        self.eat('/')?;
        let mut labels = Vec::new();
        if self.peek().is_some_and(is_label) {
            loop {
                labels.push(self.label()?);
                if !self.maybe('/') {
                    break;
                }
            }
        }
        Ok(Path::from_segments(labels))
    }

    pub(crate) fn tree(&mut self) -> Parsed<NameTree<Path>> {
        let mut trees = Vec::new();
        loop {
            trees.push(self.union()?);
            self.space();
            if !self.maybe('|') {
                break;
            }
        }
        Ok(if trees.len() == 1 { trees.remove(0) } else { NameTree::Alt(trees) })
    }

    fn union(&mut self) -> Parsed<NameTree<Path>> {
        let mut trees = Vec::new();
        loop {
            trees.push(self.weighted()?);
            self.space();
            if !self.maybe('&') {
                break;
            }
        }
        // As in Linkerd, the weight of a branch that is alone means nothing and is forgotten.
        Ok(if trees.len() == 1 { trees.remove(0).1 } else { NameTree::Union(trees) })
    }

    fn weighted(&mut self) -> Parsed<(f64, NameTree<Path>)> {
        self.space();
        let mut weight = NameTree::<Path>::DEFAULT_WEIGHT;
        if self.peek().is_some_and(is_number) {
            weight = self.number()?;
            self.space();
            self.eat('*')?;
        }
        Ok((weight, self.simple()?))
    }

    fn simple(&mut self) -> Parsed<NameTree<Path>> {
        self.space();
        match self.peek() {
            Some('(') if self.nesting == MAX_NESTING => {
                self.illegal(&format!("no more than {MAX_NESTING} nested parentheses"), Some('('))
            }
            Some('(') => {
                self.next();
                self.nesting += 1;
                let tree = self.tree()?;
                self.nesting -= 1;
                self.space();
                self.eat(')')?;
                Ok(tree)
            }
            Some('/') => Ok(NameTree::Leaf(self.path()?)),
            Some('!') => Ok(self.then(NameTree::Fail)),
            Some('~') => Ok(self.then(NameTree::Neg)),
            Some('$') => Ok(self.then(NameTree::Empty)),
            found => self.illegal("simple", found),
        }
    }

    fn number(&mut self) -> Parsed<f64> {
        let start = self.at;
        let mut seen_dot = false;
        while let Some(c) = self.peek().filter(|c| is_number(*c)) {
            if c == '.' {
                if seen_dot {
                    return self.illegal("number char", Some(c));
                }
                seen_dot = true;
            }
            self.next();
        }
        match self.text[start..self.at].parse::<f64>() {
            Ok(weight) if weight.is_finite() => Ok(weight),
            Ok(_) => self.illegal("finite weight", self.peek()),
            // Nothing else that consists of digits and one dot is no number.
            Err(_) => self.illegal("weight", Some('.')),
        }
    }

    fn label(&mut self) -> Parsed<Vec<u8>> {
        let mut label = Vec::new();
        loop {
            match self.peek() {
                Some('\\') => {
                    self.next();
                    self.eat('x')?;
                    label.push(self.hex()? << 4 | self.hex()?);
                }
                Some(c) if is_label(c) => {
                    // Showable characters are ASCII.
                    label.push(c as u8);
                    self.next();
                }
                found => return self.illegal("label char", found),
            }
            if !self.peek().is_some_and(is_label) {
                return Ok(label);
            }
        }
    }

    fn hex(&mut self) -> Parsed<u8> {
        match self.peek() {
            Some(c) if c.is_ascii_hexdigit() => {
                self.next();
                Ok(c.to_digit(16).map_or(0, |digit| digit as u8))
            }
            found => self.illegal("hex char", found),
        }
    }

    /// Space and comments; a `#` inside a label never gets here.
    fn space(&mut self) {
        while let Some(c) = self.peek() {
            if c == '#' {
                while self.peek().is_some_and(|c| c != '\n') {
                    self.next();
                }
            } else if c.is_whitespace() {
                self.next();
            } else {
                break;
            }
        }
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn next(&mut self) {
        self.at += self.peek().map_or(0, char::len_utf8);
    }

    fn then<T>(&mut self, value: T) -> T {
        self.next();
        value
    }

    fn maybe(&mut self, c: char) -> bool {
        let there = self.peek() == Some(c);
        if there {
            self.next();
        }
        there
    }

    fn eat(&mut self, c: char) -> Parsed<()> {
        if self.maybe(c) { Ok(()) } else { self.illegal(&quote(Some(c)), self.peek()) }
    }

    fn illegal<T>(&self, expected: &str, found: Option<char>) -> Parsed<T> {
        let (before, rest) = self.text.split_at(self.at);
        let wrong = self.peek().map_or(0, char::len_utf8);
        let text = format!("{before}[{}]{}", &rest[..wrong], &rest[wrong..]);
        Err(ParseError { expected: expected.to_owned(), found: quote(found), text })
    }
}

fn quote(c: Option<char>) -> String {
    c.map_or_else(|| "end of input".to_owned(), |c| format!("'{c}'"))
}

fn is_label(c: char) -> bool {
    c == '\\' || u8::try_from(c).is_ok_and(Path::is_showable)
}

fn is_number(c: char) -> bool {
    c.is_ascii_digit() || c == '.'
}
