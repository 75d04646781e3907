//! A delegation table: rules that rewrite names. Owns matching and the order of rules; reading is `parse.rs`, following
//! the result is `delegate.rs`.
//!
//! Contract: later entries win, `*` stands for exactly one segment, what a prefix doesn't consume is appended to every
//! leaf. The text form has no spaces around `=>` and `;`, for it travels in `l5d-ctx-dtab`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::name_tree::NameTree;
use crate::parse::{ParseError, Parser};
use crate::path::{Path, write_segment};

/// A delegation table. Cloning copies a pointer.
#[derive(Clone, PartialEq, Default)]
pub struct Dtab(
    /// None if there is no entry, as in nearly every request: all threads would count the users of one empty list.
    Option<Arc<[Dentry]>>,
);

/// One rule: names that start with the prefix become the destination.
#[derive(Clone, PartialEq)]
pub struct Dentry {
    /// Which names the rule is for.
    pub prefix: Prefix,
    /// What they become.
    pub dst: NameTree<Path>,
}

/// The left side of a rule.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Prefix(Arc<[Elem]>);

/// One element of a rule's left side.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Elem {
    /// `*`: any one segment.
    Any,
    /// This segment, byte for byte.
    Label(Box<[u8]>),
}

impl Dtab {
    /// The table without entries.
    pub fn empty() -> Self {
        Self::default()
    }

    /// Reads `/svc => /a | /b; /a/* => ~`, with comments, and with `;` at the end or without.
    pub fn read(text: &str) -> Result<Self, ParseError> {
        let mut parser = Parser::new(text);
        let dtab = parser.dtab()?;
        parser.end()?;
        Ok(dtab)
    }

    /// A table of these entries; the last has the highest precedence.
    pub fn from_entries(entries: impl IntoIterator<Item = Dentry>) -> Self {
        let entries: Arc<[Dentry]> = entries.into_iter().collect();
        Self((!entries.is_empty()).then_some(entries))
    }

    /// The entries as written: the last has the highest precedence.
    pub fn entries(&self) -> &[Dentry] {
        self.0.as_deref().unwrap_or_default()
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries().len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// This table's entries, then the other's, which so take precedence.
    #[must_use]
    pub fn concat(&self, other: &Self) -> Self {
        match (self.is_empty(), other.is_empty()) {
            (_, true) => self.clone(),
            (true, _) => other.clone(),
            _ => Self::from_entries(self.entries().iter().chain(other.entries()).cloned()),
        }
    }

    /// One step: every entry that matches becomes an alternative, the last entry first. Negative if none does.
    pub fn lookup(&self, path: &Path) -> NameTree<Path> {
        let mut trees: Vec<NameTree<Path>> = self.matches(path).map(|dentry| dentry.rewrite(path)).collect();
        match trees.len() {
            0 => NameTree::Neg,
            1 => trees.remove(0),
            _ => NameTree::Alt(trees),
        }
    }

    /// The entries that match a path, the one with the highest precedence first.
    pub(crate) fn matches<'a>(&'a self, path: &'a Path) -> impl Iterator<Item = &'a Dentry> {
        self.entries().iter().rev().filter(|dentry| dentry.prefix.matches(path))
    }
}

impl Dentry {
    /// Reads `/svc => /a`.
    pub fn read(text: &str) -> Result<Self, ParseError> {
        let mut parser = Parser::new(text);
        let dentry = parser.dentry()?;
        parser.end()?;
        Ok(dentry)
    }

    /// What a path that matches becomes: the destination with the unmatched rest behind every leaf.
    pub(crate) fn rewrite(&self, path: &Path) -> NameTree<Path> {
        let rest = path.drop(self.prefix.len());
        self.dst.map(&mut |leaf| leaf.concat(&rest))
    }
}

impl Prefix {
    /// Reads `/svc/*`.
    pub fn read(text: &str) -> Result<Self, ParseError> {
        let mut parser = Parser::new(text);
        let prefix = parser.prefix()?;
        parser.end()?;
        Ok(prefix)
    }

    /// A prefix of these elements.
    pub fn from_elems(elems: impl IntoIterator<Item = Elem>) -> Self {
        Self(elems.into_iter().collect())
    }

    /// The elements in order.
    pub fn elems(&self) -> &[Elem] {
        &self.0
    }

    /// How many segments it consumes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it matches every path.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the path starts with it.
    pub fn matches(&self, path: &Path) -> bool {
        let mut segments = path.segments();
        self.0.iter().all(|elem| match (elem, segments.next()) {
            (_, None) => false,
            (Elem::Any, Some(_)) => true,
            (Elem::Label(label), Some(segment)) => **label == *segment,
        })
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("/");
        }
        for elem in &*self.0 {
            f.write_str("/")?;
            match elem {
                Elem::Any => f.write_str("*")?,
                Elem::Label(label) => write_segment(label, f)?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Dentry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}=>{}", self.prefix, self.dst)
    }
}

impl fmt::Display for Dtab {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, dentry) in self.entries().iter().enumerate() {
            f.write_str(if i == 0 { "" } else { ";" })?;
            dentry.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Prefix({self})")
    }
}

impl fmt::Debug for Dentry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dentry({self})")
    }
}

impl fmt::Debug for Dtab {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dtab({self})")
    }
}

impl FromStr for Dtab {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::read(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn dtab(text: &str) -> Dtab {
        Dtab::read(text).unwrap()
    }

    fn error(text: &str) -> String {
        Dtab::read(text).unwrap_err().to_string()
    }

    fn looked_up(table: &str, path: &str) -> String {
        dtab(table).lookup(&Path::read(path).unwrap()).to_string()
    }

    #[test]
    fn reads_what_operators_write() {
        let text = "# the table\n /x/* => /$/inet/127.1/80 ; # one\n/svc=>/x;\n/svc/web => /a | /b & 2 * /c; \n";
        assert_eq!(dtab(text).to_string(), "/x/*=>/$/inet/127.1/80;/svc=>/x;/svc/web=>/a | /b & 2.00*/c");
        assert_eq!(dtab(text).len(), 3);
        assert_eq!(dtab("").to_string(), "");
        assert_eq!(dtab(" # nothing").len(), 0);
        assert_eq!(dtab("/a=>/b;").to_string(), "/a=>/b");
        assert_eq!(dtab("/#/io.l5d.fs=>/x").to_string(), "/#/io.l5d.fs=>/x");
        assert_eq!(dtab("/=>!").to_string(), "/=>!");
    }

    #[test]
    fn errors_are_linkerds() {
        assert_eq!(error("bogus"), "'/' expected but 'b' found at '[b]ogus'");
        assert_eq!(error("invalid"), "'/' expected but 'i' found at '[i]nvalid'");
        assert_eq!(error("not a dtab"), "'/' expected but 'n' found at '[n]ot a dtab'");
        assert_eq!(error("/a"), "'=' expected but end of input found at '/a[]'");
        assert_eq!(error("/a=/b"), "'>' expected but '/' found at '/a=[/]b'");
        assert_eq!(error("/a=>"), "simple expected but end of input found at '/a=>[]'");
        assert_eq!(error("/a=>/b /c=>/d"), "end of input expected but '/' found at '/a=>/b [/]c=>/d'");
        assert_eq!(error("/a=>/b;;"), "'/' expected but ';' found at '/a=>/b;[;]'");
        assert_eq!(error("/a**=>/b"), "'=' expected but '*' found at '/a[*]*=>/b'");
    }

    #[test]
    fn later_entries_come_first_and_the_rest_goes_to_every_leaf() {
        let table = "/svc=>/a;/svc/web=>/b | 0.5*/c & 0.5*/d;/other=>/e";
        assert_eq!(looked_up(table, "/svc/web/x"), "(/b/x | 0.50*/c/x & 0.50*/d/x) | /a/web/x");
        assert_eq!(looked_up(table, "/svc/foo"), "/a/foo");
        assert_eq!(looked_up(table, "/none"), "~");
        assert_eq!(looked_up("/=>/all", "/x/y"), "/all/x/y");
    }

    #[test]
    fn a_star_is_exactly_one_segment() {
        assert_eq!(looked_up("/x/*/z=>/a", "/x/y/z/w"), "/a/w");
        assert_eq!(looked_up("/x/*=>/a", "/x"), "~");
        assert_eq!(looked_up("/x/*=>/a", "/x/y"), "/a");
        assert_eq!(looked_up("/SVC=>/a", "/svc"), "~");
    }

    fn path() -> impl Strategy<Value = Path> {
        vec("[a-z#.$%:_é -]{1,4}", 0..4).prop_map(Path::from_segments)
    }

    fn elem() -> impl Strategy<Value = Elem> {
        prop_oneof![
            Just(Elem::Any),
            vec(any::<u8>(), 1..4).prop_map(|label| Elem::Label(label.into_boxed_slice())),
            "[a-z]{1,3}".prop_map(|label| Elem::Label(label.into_bytes().into_boxed_slice())),
        ]
    }

    /// Trees as the reader makes them: no list of one, weights with two decimals, as they are shown.
    fn tree() -> impl Strategy<Value = NameTree<Path>> {
        let leaf = prop_oneof![
            4 => path().prop_map(NameTree::Leaf),
            1 => Just(NameTree::Neg),
            1 => Just(NameTree::Fail),
            1 => Just(NameTree::Empty),
        ];
        let weight = (0_u32..100_000).prop_map(|hundredths| f64::from(hundredths) / 100.0);
        leaf.prop_recursive(4, 24, 4, move |inner| {
            prop_oneof![
                vec(inner.clone(), 2..4).prop_map(NameTree::Alt),
                vec((weight.clone(), inner), 2..4).prop_map(NameTree::Union),
            ]
        })
    }

    fn table() -> impl Strategy<Value = Dtab> {
        let dentry = (vec(elem(), 0..4), tree());
        vec(dentry.prop_map(|(elems, dst)| Dentry { prefix: Prefix::from_elems(elems), dst }), 0..5)
            .prop_map(Dtab::from_entries)
    }

    proptest! {
        #[test]
        fn read_undoes_show(table in table()) {
            prop_assert_eq!(&Dtab::read(&table.to_string()).unwrap(), &table);
        }

        #[test]
        fn concatenation_is_of_entries(a in table(), b in table()) {
            let both = a.concat(&b);
            prop_assert_eq!(both.entries(), [a.entries(), b.entries()].concat());
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[/*a=>;|&~!$()0.9 #\\\\x\n\\PC]{0,40}") {
            // Weights may lose decimals on the way, nothing else does.
            if let Ok(table) = Dtab::read(&text) {
                prop_assert_eq!(Dtab::read(&table.to_string()).unwrap().len(), table.len());
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(text in "\\PC*") {
            let _ = Dtab::read(&text);
        }
    }
}
