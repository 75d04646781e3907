//! `io.l5d.path`: the first segments of the request's path are the name; with `consume` they are taken away from what is
//! forwarded.

use l5d_config::{Cx, Fields, Kind, Node};
use l5d_naming::Path;

use super::{Identification, Identifier, IdentifierConfig};
use crate::codec::{RequestHead, Target};

/// The section.
#[derive(Clone, Debug)]
struct PathSegments {
    /// How many segments name the request; default 1.
    segments: usize,
    /// Whether they are removed from the forwarded path; default false.
    consume: bool,
}

pub(crate) const KIND: Kind<dyn IdentifierConfig> = Kind {
    id: "io.l5d.path",
    experimental: false,
    summary: "names a request by the first segments of its path",
    example: "kind: io.l5d.path\nsegments: 2\nconsume: true",
    parse,
};

fn parse(node: &Node, cx: &mut Cx) -> Option<Box<dyn IdentifierConfig>> {
    let mut f = Fields::of(node, cx)?;
    f.skip_kind();
    let segments: u32 = f.or("segments", 1, cx);
    let consume = f.or("consume", false, cx);
    f.finish(cx);
    if segments == 0 {
        cx.error(node, "`segments` must be >= 1");
        return None;
    }
    Some(Box::new(PathSegments { segments: segments as usize, consume }))
}

impl IdentifierConfig for PathSegments {
    fn build(&self) -> Box<dyn Identifier> {
        Box::new(self.clone())
    }
}

impl Identifier for PathSegments {
    fn identify(&self, head: &mut RequestHead) -> Identification {
        let path = head.target.path();
        let trimmed = path.trim_end_matches('/');
        let mut rest = trimmed.strip_prefix('/').unwrap_or(trimmed);
        let mut used = Vec::with_capacity(self.segments);
        let mut end = 0; // where in `path` the used segments end
        for _ in 0..self.segments {
            if rest.is_empty() {
                return Identification::Unidentified("not enough segments in path".to_owned());
            }
            let (segment, after) = rest.split_once('/').unwrap_or((rest, ""));
            if segment.is_empty() {
                return Identification::Unidentified("an empty segment in path cannot name a service".to_owned());
            }
            used.push(segment);
            end += 1 + segment.len();
            rest = after;
        }
        let name = Path::from_segments(used);
        if self.consume {
            let left = if path[end..].is_empty() { "/" } else { &path[end..] };
            let target = match head.target.query() {
                Some(query) => format!("{left}?{query}"),
                None => left.to_owned(),
            };
            match Target::read(&target) {
                Some(target) => head.target = target,
                None => return Identification::Unidentified("what is left of the path is not a path".to_owned()),
            }
        }
        Identification::Identified(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identify(segments: usize, consume: bool, target: &str) -> (Identification, String) {
        let mut head = RequestHead::of("GET", target, &[]);
        let found = PathSegments { segments, consume }.identify(&mut head);
        (found, head.target.to_string())
    }

    fn named(path: &str) -> Identification {
        Identification::Identified(Path::read(path).unwrap())
    }

    #[test]
    fn takes_the_first_segments() {
        assert_eq!(identify(1, false, "/a/b?c=d"), (named("/a"), "/a/b?c=d".into()));
        assert_eq!(identify(2, true, "/a/b/c/?x=1"), (named("/a/b"), "/c/?x=1".into()));
        assert_eq!(identify(2, true, "/a/b?x=1"), (named("/a/b"), "/?x=1".into()));
        assert_eq!(identify(2, true, "/a/b"), (named("/a/b"), "/".into()));
        assert_eq!(identify(1, false, "/a/"), (named("/a"), "/a/".into()));
    }

    #[test]
    fn refuses_too_few_and_empty_ones() {
        for target in ["/", "/a", "/a/", "/a?o=s"] {
            let (found, _) = identify(2, false, target);
            assert_eq!(found, Identification::Unidentified("not enough segments in path".into()), "{target}");
        }
        assert!(matches!(identify(2, false, "/a//b").0, Identification::Unidentified(_)));
    }
}
