//! Which families a reader wants: globs of names.

use crate::collide::Kind;

/// A choice of families. The default is all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Globs (`*` any characters, `?` one): a family is wanted that one of them matches; without any, all are.
    pub matching: Vec<String>,
    /// Globs: a family that one of them matches is not wanted.
    pub exclude: Vec<String>,
}

impl Filter {
    /// Whether a family is wanted. It goes by its name, with or without the end that its samples have.
    pub(super) fn wants(&self, name: &str, kind: Kind) -> bool {
        let ends: &[&str] = match kind {
            Kind::Counter => &["", "_total"],
            Kind::Gauge => &[""],
            Kind::Stat => &["", "_bucket", "_count", "_sum"],
        };
        let any = |globs: &[String]| {
            globs.iter().any(|glob| ends.iter().any(|end| matches(glob.as_bytes(), format!("{name}{end}").as_bytes())))
        };
        (self.matching.is_empty() || any(&self.matching)) && !any(&self.exclude)
    }
}

/// Whether a glob matches all of a text. Goes back to the last `*` only, so that no glob takes long.
fn matches(glob: &[u8], text: &[u8]) -> bool {
    let (mut g, mut t) = (0, 0);
    let mut star = None;
    while t < text.len() {
        match glob.get(g) {
            Some(b'*') => {
                star = Some((g, t));
                g += 1;
            }
            Some(&c) if c == b'?' || c == text[t] => {
                g += 1;
                t += 1;
            }
            _ => {
                let Some((at, from)) = star else { return false };
                star = Some((at, from + 1));
                g = at + 1;
                t = from + 1;
            }
        }
    }
    glob[g..].iter().all(|&c| c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_whole_names() {
        for (glob, text, expected) in [
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("a*c", "abc", true),
            ("a*c", "ac", true),
            ("a*c", "abcd", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*b*b*", "abab", true),
            ("*_total", "x_total", true),
            ("**a", "bba", true),
        ] {
            assert_eq!(matches(glob.as_bytes(), text.as_bytes()), expected, "{glob} {text}");
        }
        let long = "a".repeat(10_000);
        assert!(!matches(format!("{}b", "a*".repeat(1000)).as_bytes(), long.as_bytes()));
    }

    #[test]
    fn families_go_by_the_names_of_their_samples_too() {
        let filter = |matching: &[&str], exclude: &[&str]| Filter {
            matching: matching.iter().map(|&g| g.to_owned()).collect(),
            exclude: exclude.iter().map(|&g| g.to_owned()).collect(),
        };
        assert!(filter(&[], &[]).wants("x", Kind::Gauge));
        assert!(filter(&["l5d_*_requests_total", "y"], &[]).wants("l5d_server_requests", Kind::Counter));
        assert!(!filter(&["l5d_*_requests_total"], &[]).wants("l5d_server_requests", Kind::Gauge));
        assert!(filter(&["*_bucket"], &[]).wants("h", Kind::Stat));
        assert!(!filter(&["h*"], &["*_sum"]).wants("h", Kind::Stat));
        assert!(!filter(&[], &["h"]).wants("h", Kind::Stat));
    }
}
