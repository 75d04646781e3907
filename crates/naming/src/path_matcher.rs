//! A pattern for names, `/#/*/{service}`: for static client and service configuration and the rewriting namer.
//!
//! Contract: a pattern matches names that start with it; `*` is one segment; `{var}` captures greedily within a segment
//! and `.` is literal; segments compare with their text form. Deliberately not as in Linkerd 1.7.5: a segment with
//! captures has to match as a whole (there `{s}:http` also matched `x:https`), and a pattern that is longer than the name
//! does not match (there it could be an internal error).

use std::fmt;

use crate::path::Path;

/// A pattern for names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathMatcher {
    text: String,
    segments: Vec<Segment>,
}

/// What a pattern captured.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Vars(Vec<(String, String)>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Any,
    Literal(String),
    /// Literal text and captures by turns.
    Pattern(Vec<Part>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Capture(String),
}

impl PathMatcher {
    /// Any text is a pattern; `/` matches every name.
    pub fn new(text: &str) -> Self {
        let mut segments: Vec<Segment> =
            text.split('/').skip_while(|segment| segment.is_empty()).map(Segment::new).collect();
        // As Java splits: empty segments at the end don't count.
        while segments.last().is_some_and(|segment| *segment == Segment::Literal(String::new())) {
            segments.pop();
        }
        Self { text: text.to_owned(), segments }
    }

    /// What the pattern captures from a name, or none if it does not match.
    pub fn extract(&self, path: &Path) -> Option<Vars> {
        let mut vars = Vars::default();
        let mut names = path.segments();
        for segment in &self.segments {
            let name = names.next()?;
            let matches = match segment {
                Segment::Any => true,
                Segment::Literal(text) => *text == Path::show_segment(name),
                Segment::Pattern(parts) => match_parts(parts, &Path::show_segment(name), &mut vars),
            };
            if !matches {
                return None;
            }
        }
        Some(vars)
    }

    /// The names of what it captures, in order; one may occur twice.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        self.segments
            .iter()
            .flat_map(|segment| match segment {
                Segment::Pattern(parts) => parts.as_slice(),
                Segment::Any | Segment::Literal(_) => &[],
            })
            .filter_map(|part| match part {
                Part::Capture(name) => Some(name.as_str()),
                Part::Text(_) => None,
            })
    }

    /// Whether the name matches.
    pub fn matches(&self, path: &Path) -> bool {
        self.extract(path).is_some()
    }
}

impl Vars {
    /// The captures in the order of the pattern. A name that occurs twice is there once, with what it captured last.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// What was captured under this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(other, _)| *other == name).map(|(_, value)| value)
    }

    /// A text with each `{name}` replaced by what was captured; unknown names stay. Captured text is not looked at again.
    pub fn substitute(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            let (before, from) = rest.split_at(open);
            out.push_str(before);
            let known =
                from.find('}').and_then(|close| self.get(&from[1..close]).map(|value| (value, &from[close + 1..])));
            match known {
                Some((value, after)) => {
                    out.push_str(value);
                    rest = after;
                }
                None => {
                    out.push('{');
                    rest = &from[1..];
                }
            }
        }
        out + rest
    }

    fn set(&mut self, name: &str, value: &str) {
        match self.0.iter_mut().find(|(other, _)| other == name) {
            Some((_, old)) => value.clone_into(old),
            None => self.0.push((name.to_owned(), value.to_owned())),
        }
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Vars {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(vars: I) -> Self {
        let mut all = Self::default();
        vars.into_iter().for_each(|(name, value)| all.set(name, value));
        all
    }
}

impl Segment {
    fn new(text: &str) -> Self {
        if text == "*" {
            return Self::Any;
        }
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            let (before, from) = rest.split_at(open);
            literal.push_str(before);
            match from.find('}') {
                Some(close) if is_variable(&from[1..close]) => {
                    if !literal.is_empty() {
                        parts.push(Part::Text(std::mem::take(&mut literal)));
                    }
                    parts.push(Part::Capture(from[1..close].to_owned()));
                    rest = &from[close + 1..];
                }
                _ => {
                    literal.push('{');
                    rest = &from[1..];
                }
            }
        }
        literal.push_str(rest);
        if parts.is_empty() {
            return Self::Literal(literal);
        }
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        Self::Pattern(parts)
    }
}

fn is_variable(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '-' | '_'))
}

/// Whether the whole text is made of the parts, every capture taking as much as it can, the first one first.
fn match_parts(parts: &[Part], text: &str, vars: &mut Vars) -> bool {
    let Some(ends) = split(parts, text) else { return false };
    let mut start = 0;
    for (part, end) in parts.iter().zip(ends) {
        if let Part::Capture(name) = part {
            vars.set(name, &text[start..end]);
        }
        start = end;
    }
    true
}

/// Where each part ends. Tried from the back, so that the first captures are the longest, in time proportional to
/// parts times text: `(.*)` with backtracking would grow with a power of the text, which comes with the request.
fn split(parts: &[Part], text: &str) -> Option<Vec<usize>> {
    // can[p][i]: the parts from p on can match the text from place i on. Segments are shown, so they are ASCII.
    let mut can = vec![vec![false; text.len() + 1]; parts.len() + 1];
    can[parts.len()][text.len()] = true;
    for (p, part) in parts.iter().enumerate().rev() {
        for i in (0..=text.len()).rev() {
            can[p][i] = match part {
                Part::Text(literal) => {
                    text.as_bytes()[i..].starts_with(literal.as_bytes()) && can[p + 1][i + literal.len()]
                }
                Part::Capture(_) => can[p + 1][i] || (i < text.len() && can[p][i + 1]),
            };
        }
    }
    if !can[0][0] {
        return None;
    }
    let mut at = 0;
    let mut ends = Vec::with_capacity(parts.len());
    for (p, part) in parts.iter().enumerate() {
        at = match part {
            Part::Text(literal) => at + literal.len(),
            Part::Capture(_) => at + can[p + 1][at..].iter().rposition(|can| *can)?,
        };
        ends.push(at);
    }
    Some(ends)
}

impl fmt::Display for PathMatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn vars(pattern: &str, name: &str) -> Option<Vec<(String, String)>> {
        PathMatcher::new(pattern).extract(&Path::read(name).unwrap()).map(|vars| vars.0)
    }

    fn captured(pattern: &str, name: &str) -> String {
        let vars = vars(pattern, name).unwrap();
        vars.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_reference_examples_capture() {
        assert_eq!(captured("/foo/bar/{A}-{B}", "/foo/bar/foo-bar-baz"), "A=foo-bar B=baz");
        assert_eq!(captured("/foo/{A}/*/{B}:http", "/foo/boo/bar/bas:http"), "A=boo B=bas");
        assert_eq!(captured("/#/io.l5d.fs/{service}", "/#/io.l5d.fs/foo"), "service=foo");
        assert_eq!(captured("/{a.b-c_d:e}", "/x/y"), "a.b-c_d:e=x");
        assert_eq!(captured("/{name}.ex", "/web.ex"), "name=web");
    }

    #[test]
    fn a_pattern_is_a_prefix() {
        for (pattern, name, matches) in [
            ("/", "/", true),
            ("", "/svc/foo", true),
            ("/", "/svc/foo", true),
            ("/svc", "/svc/foo", true),
            ("svc/", "/svc/foo", true),
            ("///svc", "/svc/foo", true),
            ("/svc/foo", "/svc", false),
            ("/svc/*", "/svc", false),
            ("/svc/*", "/svc/x", true),
            ("/*/foo", "/svc/foo/x", true),
            ("/sv", "/svc", false),
            ("/svc//foo", "/svc/foo", false),
            ("/{s}:http", "/x:https", false),
            ("/a.c", "/abc", false),
            ("/{x}a.c", "/abc", false),
            ("/{}", "/x", false),
            ("/{a b}", "/x", false),
        ] {
            assert_eq!(vars(pattern, name).is_some(), matches, "{pattern} {name}");
        }
    }

    #[test]
    fn segments_compare_with_their_text_form() {
        assert_eq!(captured("/{x}", r"/a\x20b"), r"x=\x61\x20\x62");
        assert!(vars(r"/\x61\x20\x62", r"/a\x20b").is_some());
    }

    #[test]
    fn substitution_replaces_what_was_captured_and_nothing_else() {
        let vars = PathMatcher::new("/{a}/{b}").extract(&Path::read("/x/y").unwrap()).unwrap();
        assert_eq!(vars.substitute("/{b}/{a}{a}/{c}/{"), "/y/xx/{c}/{");
        assert_eq!(vars.substitute("{{a}}"), "{x}");
        assert_eq!(vars.get("a"), Some("x"));
        let vars = Vars(vec![("a".into(), "{b}".into()), ("b".into(), "z".into())]);
        assert_eq!(vars.substitute("{a}{b}"), "{b}z");
    }

    proptest! {
        #[test]
        fn what_is_captured_makes_up_the_segment(a in "[ab.-]{0,6}", b in "[ab.-]{0,6}") {
            let name = format!("{a}-{b}");
            let vars = PathMatcher::new("/{a}-{b}").extract(&Path::from_segments([&name])).unwrap();
            prop_assert_eq!(vars.substitute("{a}-{b}"), name);
            prop_assert!(!vars.get("b").unwrap().contains('-'), "the first capture is greedy");
        }

        #[test]
        fn any_text_is_a_pattern(pattern in "\\PC*", name in "\\PC*") {
            let path = Path::from_segments(name.split('/'));
            if let Some(vars) = PathMatcher::new(&pattern).extract(&path) {
                let _ = vars.substitute(&pattern);
            }
        }
    }
}
