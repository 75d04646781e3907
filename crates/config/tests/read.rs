//! From text to tree: what is accepted, where things are, and that nothing panics.

use l5d_config::{Node, Value, read};
use proptest::prelude::*;

fn error(text: &str) -> String {
    read(text).expect_err(text).to_string()
}

/// The tree without places, in JSON's clothes, quoted scalars in quotes.
fn show(node: &Node) -> String {
    match &node.value {
        Value::Null => "null".to_owned(),
        Value::Scalar(s) if s.quoted => format!("{:?}", s.text),
        Value::Scalar(s) => s.text.clone(),
        Value::Seq(items) => format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(",")),
        Value::Map(entries) => {
            let entries: Vec<String> = entries.iter().map(|(k, v)| format!("{}:{}", k.text, show(v))).collect();
            format!("{{{}}}", entries.join(","))
        }
    }
}

#[test]
fn yaml_becomes_a_tree_that_knows_its_places() {
    let node =
        read("admin:\n  port: 9990\nrouters:\n- protocol: http\n  dtab: |\n    /a => /b;\n  label: 'x'\n").unwrap();
    assert_eq!(show(&node), r#"{admin:{port:9990},routers:[{protocol:http,dtab:"/a => /b;\n",label:"x"}]}"#);
    let port = node.get("admin").unwrap().get("port").unwrap();
    assert_eq!(port.at.to_string(), "2:9");
    let label = node.get("routers").unwrap().items().unwrap()[0].get("label").unwrap();
    assert_eq!(label.at.to_string(), "7:10");
}

#[test]
fn json_is_read_when_the_first_character_is_a_brace() {
    let node = read("\n {\"a\":\t[1, \"2\", true, null, -1.5e3],\n\t\"b\\u0041\": \"\\ud83d\\ude00\\/\\n\"}").unwrap();
    assert_eq!(show(&node), "{a:[1,\"2\",true,null,-1.5e3],bA:\"😀/\\n\"}");
    assert_eq!(node.get("bA").unwrap().at.to_string(), "3:13");
}

#[test]
fn json_mistakes_have_a_place() {
    assert_eq!(error("{a: 1}"), "1:2: not valid JSON: expected a key in double quotes, found 'a'");
    assert_eq!(error("{\"a\": 1,\n}"), "2:1: not valid JSON: expected a key in double quotes, found '}'");
    assert_eq!(error("{\"a\": 1"), "1:8: not valid JSON: expected ',' or '}', found the end of the file");
    assert_eq!(error("{\"a\": 01}"), "1:7: not valid JSON: expected a value, found \"01\"");
    assert_eq!(error("{\"a\": tru}"), "1:7: not valid JSON: expected a value, found \"tru\"");
    assert_eq!(error("{\"a\": \"\\ud800\"}"), "1:10: not valid JSON: half of a surrogate pair");
    assert_eq!(error("{\"a\": 1, \"a\": 2}"), "1:10: duplicate key `a`");
}

#[test]
fn duplicate_keys_are_refused() {
    assert_eq!(error("a: 1\nb: 2\na: 3\n"), "3:1: duplicate key `a`");
    assert_eq!(error("r:\n- {x: 1, 'x': 2}\n"), "2:10: duplicate key `x`");
}

#[test]
fn an_empty_file_is_refused() {
    for text in ["", "\n\n", "# only a comment\n", "---\n", "---\n...\n", "~", "\u{feff}"] {
        assert!(error(text).contains("the file is empty"), "{text:?}");
    }
}

#[test]
fn only_the_first_document_is_read() {
    assert_eq!(show(&read("a: 1\n---\nb: [\n").unwrap()), "{a:1}");
    assert_eq!(show(&read("---\na: 1\n...\nwhat: ever\n").unwrap()), "{a:1}");
    assert_eq!(show(&read("{\"a\":1}\n{\"b\"").unwrap()), "{a:1}");
}

#[test]
fn tabs_and_bad_yaml_have_a_place() {
    assert!(error("a:\n\tb: 1\n").starts_with("2:"));
    assert!(error("a: [1, 2\nb: 3\n").contains("not valid YAML"));
    assert!(error("a: b: c\n").starts_with("1:"));
    assert!(error("a: *nowhere\n").starts_with("1:"));
}

#[test]
fn keys_are_scalars() {
    assert_eq!(error("? [a]\n: 1\n"), "1:3: a key must be a string");
    assert_eq!(show(&read("8: 1\ntrue: 2\n").unwrap()), "{8:1,true:2}");
}

#[test]
fn tags_choose_between_string_and_plain() {
    assert_eq!(show(&read("[!!str 8, !!int '8', ! 8, !mine 8, !!null '']").unwrap()), r#"["8",8,"8","8",null]"#);
}

#[test]
fn nulls_are_told_from_strings() {
    assert_eq!(show(&read("[~, null, '~', 'null', nul, '']").unwrap()), r#"[null,null,"~","null",nul,""]"#);
}

#[test]
fn aliases_stand_for_what_was_anchored() {
    let node = read("a: &x {p: [1, 2]}\nb: *x\nc: &y 3\nd: *y\n").unwrap();
    assert_eq!(show(&node), "{a:{p:[1,2]},b:{p:[1,2]},c:3,d:3}");
    assert_eq!(node.get("b").unwrap().at, node.get("a").unwrap().at);
    assert!(error("a: &x [*x]\n").contains("alias"));
}

#[test]
fn aliases_of_aliases_are_bounded() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..30 {
        let row = vec![format!("*a{}", i - 1); 10].join(", ");
        text.push_str(&format!("a{i}: &a{i} [{row}]\n"));
    }
    assert!(error(&text).contains("more than 200000 values"));
}

#[test]
fn nesting_is_bounded_in_both_formats() {
    assert!(error(&"[".repeat(200)).contains("nested more than 64 deep"));
    assert!(error(&"[".repeat(10_000)).contains("recursion limit"), "the scanner's own bound");
    assert!(error(&"- ".repeat(10_000)).contains("nested more than 64 deep"));
    assert!(error(&format!("{{\"a\":{}", "[".repeat(100_000))).contains("nested more than 64 deep"));
    let mut text = "a0: &a0 [x]\n".to_owned();
    for i in 1..100 {
        text.push_str(&format!("a{i}: &a{i} [*a{}]\n", i - 1));
    }
    assert!(error(&text).contains("nested more than 64 deep"));
}

/// Text that looks enough like YAML or JSON to reach the odd corners of a reader.
fn texts() -> impl Strategy<Value = String> {
    let token = prop_oneof![
        Just("a"),
        Just(": "),
        Just("\n"),
        Just("  "),
        Just("- "),
        Just("["),
        Just("]"),
        Just("{"),
        Just("}"),
        Just(","),
        Just("\t"),
        Just("'"),
        Just("\""),
        Just("|\n"),
        Just(">-\n"),
        Just("&x "),
        Just("*x"),
        Just("!t "),
        Just("!!str "),
        Just("# c"),
        Just("---\n"),
        Just("...\n"),
        Just("%YAML 1.2\n"),
        Just("? "),
        Just("<<"),
        Just("\\"),
        Just("\\u"),
        Just("\r"),
        Just("é"),
        Just("\u{feff}"),
        Just("1"),
        Just("~"),
        Just("\0"),
        Just(":"),
        Just("%TAG ! x\n"),
        Just("!<a>"),
        Just("-"),
        Just("\u{85}"),
        Just("\u{2028}"),
        Just("@"),
        Just("`"),
    ];
    prop_oneof![
        3 => proptest::collection::vec(token, 0..40).prop_map(|tokens| tokens.concat()),
        1 => ".{0,60}",
        1 => "\\PC{0,20}".prop_map(|text| format!("{{\"{text}")),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn no_text_panics_the_reader(text in texts()) {
        let _ = read(&text);
    }

    #[test]
    fn any_string_survives_quoting(text in "\\PC{0,40}") {
        let in_json = format!("{{\"k\": \"{}\"}}", text.replace('\\', "\\\\").replace('"', "\\\""));
        let in_yaml = format!("k: '{}'", text.replace('\'', "''"));
        for written in [in_json, in_yaml] {
            let node = read(&written).unwrap();
            prop_assert_eq!(node.get("k").unwrap().text(), Some(text.as_str()));
        }
    }
}
