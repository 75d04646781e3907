//! A name tree: what a name may stand for, with alternatives. Owns its shape and text form; what a tree *means* while
//! it is bound is `delegate.rs`, what it means to one request is the router's choice.
//!
//! Contract: the text form is Linkerd's (weights with two decimals, weight 1 left out), since it travels in headers.

use std::fmt;

use crate::parse::{ParseError, Parser};
use crate::path::Path;

/// A tree of values with alternation, weights and the three special leaves.
#[derive(Debug, Clone, PartialEq)]
pub enum NameTree<T> {
    /// A value: a path still to be looked up, or a bound name.
    Leaf(T),
    /// `a | b`: the first that is not negative.
    Alt(Vec<Self>),
    /// `0.1 * a & 0.9 * b`: each request takes one by weight.
    Union(Vec<(f64, Self)>),
    /// `~`: no such name; the next alternative may answer.
    Neg,
    /// `!`: no such name, and no alternative may answer.
    Fail,
    /// `$`: the name exists and stands for nothing.
    Empty,
}

impl<T> NameTree<T> {
    /// The weight of a branch that names none.
    pub const DEFAULT_WEIGHT: f64 = 1.0;

    /// The same tree over other values.
    pub fn map<U>(&self, f: &mut impl FnMut(&T) -> U) -> NameTree<U> {
        match self {
            Self::Leaf(value) => NameTree::Leaf(f(value)),
            Self::Alt(trees) => NameTree::Alt(trees.iter().map(|tree| tree.map(f)).collect()),
            Self::Union(trees) => NameTree::Union(trees.iter().map(|(w, tree)| (*w, tree.map(f))).collect()),
            Self::Neg => NameTree::Neg,
            Self::Fail => NameTree::Fail,
            Self::Empty => NameTree::Empty,
        }
    }

    /// Each leaf's value, from left to right.
    pub fn for_each<'a>(&'a self, f: &mut impl FnMut(&'a T)) {
        match self {
            Self::Leaf(value) => f(value),
            Self::Alt(trees) => trees.iter().for_each(|tree| tree.for_each(f)),
            Self::Union(trees) => trees.iter().for_each(|(_, tree)| tree.for_each(f)),
            Self::Neg | Self::Fail | Self::Empty => {}
        }
    }

    /// Whether there is any leaf with a value.
    pub fn has_leaf(&self) -> bool {
        let mut found = false;
        self.for_each(&mut |_| found = true);
        found
    }

    /// A tree that means the same with fewer nodes: negative alternatives and branches are gone, a failing branch of a
    /// union too, what is behind a failing alternative as well, and nothing is left alone in a list.
    #[must_use]
    pub fn simplified(self) -> Self {
        match self {
            Self::Alt(trees) => {
                let mut kept = Vec::new();
                for tree in trees {
                    match tree.simplified() {
                        Self::Neg => {}
                        Self::Fail => {
                            kept.push(Self::Fail);
                            break;
                        }
                        tree => kept.push(tree),
                    }
                }
                match kept.len() {
                    0 => Self::Neg,
                    1 => kept.remove(0),
                    _ => Self::Alt(kept),
                }
            }
            Self::Union(trees) => {
                let mut kept: Vec<(f64, Self)> = trees
                    .into_iter()
                    .map(|(weight, tree)| (weight, tree.simplified()))
                    .filter(|(_, tree)| !matches!(tree, Self::Neg | Self::Fail))
                    .collect();
                match kept.len() {
                    0 => Self::Neg,
                    1 => kept.remove(0).1,
                    _ => Self::Union(kept),
                }
            }
            other => other,
        }
    }
}

impl NameTree<Path> {
    /// Reads `/a | 0.1 * /b & 0.9 * /c`.
    pub fn read(text: &str) -> Result<Self, ParseError> {
        let mut parser = Parser::new(text);
        let tree = parser.tree()?;
        parser.end()?;
        Ok(tree)
    }
}

impl<T: fmt::Display> fmt::Display for NameTree<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_alt(self, f)
    }
}

fn write_alt<T: fmt::Display>(tree: &NameTree<T>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match alone(tree) {
        NameTree::Alt(trees) if !trees.is_empty() => {
            for (i, tree) in trees.iter().enumerate() {
                f.write_str(if i == 0 { "" } else { " | " })?;
                write_union(tree, f)?;
            }
            Ok(())
        }
        tree => write_union(tree, f),
    }
}

fn write_union<T: fmt::Display>(tree: &NameTree<T>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match alone(tree) {
        NameTree::Union(trees) if !trees.is_empty() => {
            for (i, (weight, tree)) in trees.iter().enumerate() {
                f.write_str(if i == 0 { "" } else { " & " })?;
                if *weight != NameTree::<T>::DEFAULT_WEIGHT {
                    write!(f, "{}*", two_decimals(*weight))?;
                }
                write_simple(tree, f)?;
            }
            Ok(())
        }
        tree => write_simple(tree, f),
    }
}

fn write_simple<T: fmt::Display>(tree: &NameTree<T>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match alone(tree) {
        NameTree::Leaf(value) => value.fmt(f),
        NameTree::Fail => f.write_str("!"),
        NameTree::Empty => f.write_str("$"),
        NameTree::Neg => f.write_str("~"),
        // Lists without branches mean `~`; no text makes them.
        NameTree::Alt(trees) if trees.is_empty() => f.write_str("~"),
        NameTree::Union(trees) if trees.is_empty() => f.write_str("~"),
        tree @ (NameTree::Alt(_) | NameTree::Union(_)) => {
            f.write_str("(")?;
            write_alt(tree, f)?;
            f.write_str(")")
        }
    }
}

/// What is inside lists of one.
fn alone<T>(mut tree: &NameTree<T>) -> &NameTree<T> {
    loop {
        tree = match tree {
            NameTree::Alt(trees) if trees.len() == 1 => &trees[0],
            NameTree::Union(trees) if trees.len() == 1 => &trees[0].1,
            tree => return tree,
        }
    }
}

/// `%.2f` as Java prints it: the shortest decimal text, rounded half up. Rust would round 0.125 to the even 0.12.
fn two_decimals(weight: f64) -> String {
    let shortest = format!("{weight}");
    let Some((whole, decimals)) = shortest.split_once('.') else { return format!("{shortest}.00") };
    if decimals.len() <= 2 {
        return format!("{whole}.{decimals:0<2}");
    }
    let mut digits: Vec<u8> = whole.bytes().chain(decimals.bytes().take(2)).collect();
    if decimals.as_bytes()[2] >= b'5' {
        let mut carry = true;
        for digit in digits.iter_mut().rev() {
            carry = *digit == b'9';
            *digit = if carry { b'0' } else { *digit + 1 };
            if !carry {
                break;
            }
        }
        if carry {
            digits.insert(0, b'1');
        }
    }
    let text: String = digits.into_iter().map(char::from).collect();
    let (whole, decimals) = text.split_at(text.len() - 2);
    format!("{whole}.{decimals}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        NameTree::read(text).unwrap().to_string()
    }

    fn error(text: &str) -> String {
        NameTree::read(text).unwrap_err().to_string()
    }

    #[test]
    fn shows_what_linkerd_shows() {
        assert_eq!(shown("0.1*/a&0.9 * /b"), "0.10*/a & 0.90*/b");
        assert_eq!(shown("1*/a & 3*/b"), "/a & 3.00*/b");
        assert_eq!(shown("/a|/b | (/c)"), "/a | /b | /c");
        assert_eq!(shown("(/a | /b) & ((/c & /d) & !)"), "(/a | /b) & ((/c & /d) & !)");
        assert_eq!(shown("/a & /b | ~ | $"), "/a & /b | ~ | $");
        assert_eq!(shown("7*/a"), "/a");
        assert_eq!(shown(".5*/a & 1.*/b"), "0.50*/a & /b");
    }

    #[test]
    fn weights_round_as_java_rounds() {
        for (weight, text) in
            [(0.125, "0.13"), (0.005, "0.01"), (9.995, "10.00"), (1e21, "1000000000000000000000.00"), (0.0049, "0.00")]
        {
            assert_eq!(two_decimals(weight), text);
        }
    }

    #[test]
    fn errors_are_linkerds() {
        assert_eq!(error("/a |"), "simple expected but end of input found at '/a |[]'");
        assert_eq!(error("1.2.3*/a"), "number char expected but '.' found at '1.2[.]3*/a'");
        assert_eq!(error(". * /a"), "weight expected but '.' found at '.[ ]* /a'");
        assert_eq!(error("1 /a"), "'*' expected but '/' found at '1 [/]a'");
        assert_eq!(error("(/a"), "')' expected but end of input found at '(/a[]'");
    }

    #[test]
    fn what_would_overflow_is_refused() {
        let deep = format!("{}/a{}", "(".repeat(33), ")".repeat(33));
        assert!(error(&deep).starts_with("no more than 32 nested parentheses expected but '(' found at"));
        let deep = format!("{}/a{}", "(".repeat(32), ")".repeat(32));
        assert_eq!(shown(&deep), "/a");
        assert!(error(&format!("{}*/a & /b", "9".repeat(400))).starts_with("finite weight expected"));
    }

    #[test]
    fn simplifying_keeps_the_meaning() {
        let simple = |text| NameTree::read(text).unwrap().simplified().to_string();
        assert_eq!(simple("~ | /a | ! | /b"), "/a | !");
        assert_eq!(simple("~ & ! & /a"), "/a");
        assert_eq!(simple("~ & !"), "~");
        assert_eq!(simple("$ & /a & (~ | ~)"), "$ & /a");
        assert_eq!(simple("(~ & ~) | (~ | $)"), "$");
    }
}
