//! A family of two plug-ins declared as the real ones are, from another crate.

mod shape {
    /// What the family's sections become.
    pub trait Shape {
        /// The area.
        fn area(&self) -> u64;
    }
}

use l5d_config::{Cx, asks_for_experimental, parse_kind, read};
use shape::Shape;

l5d_config::kinds! {
    /// The shapes of this test.
    pub SHAPES: dyn Shape => square, dot,
}

fn parse(yaml: &str) -> Result<(&'static str, u64), Vec<String>> {
    let node = read(yaml).unwrap();
    let mut cx = Cx::new();
    let shape = cx.at_key("shape", |cx| parse_kind("shape", SHAPES, &["t.hexagon"], &node, cx));
    let errors = cx.finish();
    if errors.is_empty() {
        shape.map(|(id, shape)| (id, shape.area())).ok_or_else(|| vec!["no value and no error".to_owned()])
    } else {
        Err(errors.iter().map(ToString::to_string).collect())
    }
}

#[test]
fn the_kind_chooses_the_reader() {
    assert_eq!(parse("{\"kind\": \"t.square\", \"side\": 3}"), Ok(("t.square", 9)));
    assert_eq!(parse("kind: t.dot\nexperimental: true\n"), Ok(("t.dot", 0)));
}

#[test]
fn every_example_reads() {
    for kind in SHAPES {
        assert!(parse(kind.example).is_ok(), "{kind:?}");
    }
}

#[test]
fn an_unknown_kind_lists_the_known_ones() {
    assert_eq!(
        parse("kind: t.circle"),
        Err(vec!["1:7: shape.kind: unknown shape \"t.circle\"; known: t.dot, t.square".to_owned()])
    );
}

#[test]
fn an_unsupported_kind_is_refused_by_name() {
    assert_eq!(
        parse("kind: t.hexagon"),
        Err(vec![
            "1:7: shape.kind: the shape \"t.hexagon\" is not supported by l5d yet; supported: t.dot, t.square"
                .to_owned()
        ])
    );
}

#[test]
fn a_missing_kind_is_an_error() {
    assert_eq!(
        parse("side: 3"),
        Err(vec!["1:1: shape: missing type id property 'kind'; known: t.dot, t.square".to_owned()])
    );
    assert_eq!(
        parse("- 3"),
        Err(vec!["1:1: shape: expected a mapping with the shape's `kind`, got a list".to_owned()])
    );
}

#[test]
fn unknown_keys_and_bad_flags_of_a_section_are_errors() {
    let errors = parse("kind: t.square\nside: 3\nsides: 4\nexperimental: maybe\n").unwrap_err();
    assert_eq!(
        errors,
        [
            "3:1: shape: unknown key `sides`; known: experimental, kind, side",
            "4:15: shape.experimental: expected true or false, got \"maybe\"",
        ]
    );
}

#[test]
fn only_true_asks_for_the_experimental() {
    assert!(asks_for_experimental(&read("experimental: true").unwrap()));
    assert!(!asks_for_experimental(&read("experimental: false").unwrap()));
    assert!(!asks_for_experimental(&read("kind: x").unwrap()));
}
