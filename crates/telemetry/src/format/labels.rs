//! How the keys of a path become names and labels, and how each format writes text that has its own signs in it.
//!
//! The rewriting is Linkerd 1's: `rt/http/service/svc/web/requests` is `rt:service:requests` with labels `rt` and
//! `service`. The escapes are the formats' own rules, where Linkerd 1 broke them.

/// What the keys of a path so far came to. `next` says what a key beneath does; a face keeps the text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Spot {
    /// Above everything.
    Root,
    /// `rt`, the router's label to come.
    Rt,
    /// `rt`, labelled.
    Router,
    /// `rt`, and one of the three stacks, its label to come.
    Stack(Stack),
    /// The same, labelled.
    Labelled(Stack),
    /// `rt`, `client`, `service`, the service's label to come.
    ClientService,
    /// The same, labelled.
    ClientServiceNamed,
    /// `rt`, a stack, `failures`: keys beneath are exceptions, each the cause of the last.
    Failures,
    /// The same, with an exception.
    Failure,
    /// `rt`, a stack, `exn`: the key beneath is an exception.
    Exn,
    /// Where keys are keys.
    Plain,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stack {
    Service,
    Client,
    Server,
}

/// What a key does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Does {
    /// It is part of the name.
    Name,
    /// It is the value of this label.
    Label(&'static str),
    /// It is the cause of the exception that the last label has.
    Cause,
    /// It is an exception of `exn`, which is called `exceptions` then.
    Exn,
}

impl Stack {
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Client => "client",
            Self::Server => "server",
        }
    }
}

impl Spot {
    /// Whether the path ends with the name of a service or a client.
    pub(crate) fn is_named(self) -> bool {
        matches!(self, Self::Labelled(Stack::Service | Stack::Client) | Self::ClientServiceNamed)
    }

    /// What a key does here, and where it leads.
    pub(crate) fn next(self, key: &str) -> (Does, Self) {
        match (self, key) {
            (Self::Root, "rt") => (Does::Name, Self::Rt),
            (Self::Rt, _) => (Does::Label("rt"), Self::Router),
            (Self::Router, "service") => (Does::Name, Self::Stack(Stack::Service)),
            (Self::Router, "client") => (Does::Name, Self::Stack(Stack::Client)),
            (Self::Router, "server") => (Does::Name, Self::Stack(Stack::Server)),
            (Self::Stack(stack), _) => (Does::Label(stack.key()), Self::Labelled(stack)),
            (Self::Labelled(Stack::Client), "service") => (Does::Name, Self::ClientService),
            (Self::ClientService, _) => (Does::Label("service"), Self::ClientServiceNamed),
            (Self::Labelled(_), "failures") => (Does::Name, Self::Failures),
            (Self::Labelled(_), "exn") => (Does::Name, Self::Exn),
            (Self::Failures, _) => (Does::Label("exception"), Self::Failure),
            (Self::Failure, _) => (Does::Cause, Self::Failure),
            (Self::Exn, _) => (Does::Exn, Self::Plain),
            _ => (Does::Name, Self::Plain),
        }
    }

    /// The same for InfluxDB, which has no label for exceptions.
    pub(crate) fn next_without_exceptions(self, key: &str) -> (Does, Self) {
        match self.next(key) {
            (Does::Name, Self::Failures | Self::Exn) => (Does::Name, Self::Plain),
            next => next,
        }
    }
}

/// Part of a metric's or measurement's name: letters, digits and `:`, an underscore for any other character.
pub(crate) fn push_key(out: &mut Vec<u8>, text: &str) {
    out.extend(text.chars().map(|c| if c.is_ascii_alphanumeric() || c == ':' { c as u8 } else { b'_' }));
}

/// A Prometheus label value, without its quotes.
pub(crate) fn push_label(out: &mut Vec<u8>, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'"' => out.extend_from_slice(b"\\\""),
            b'\n' => out.extend_from_slice(b"\\n"),
            _ => out.push(byte),
        }
    }
}

/// A JSON string, without its quotes.
pub(crate) fn push_json(out: &mut Vec<u8>, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0c => out.extend_from_slice(b"\\f"),
            0..=0x1f => {
                let hex = b"0123456789ABCDEF";
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[hex[usize::from(byte >> 4)], hex[usize::from(byte & 15)]]);
            }
            _ => out.push(byte),
        }
    }
}

/// An InfluxDB tag value or key. A backslash before `,`, `=` and blank; control characters as the two characters of
/// their usual escape, since a line can't hold them. A backslash of the text's own stands for itself, so that one at the
/// end can't be said: it is left out.
pub(crate) fn push_influx(out: &mut Vec<u8>, text: &str) {
    let start = out.len();
    for byte in text.bytes() {
        match byte {
            b',' | b'=' | b' ' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x0c => out.extend_from_slice(b"\\f"),
            0..=0x1f => out.push(b'?'),
            _ => out.push(byte),
        }
    }
    while out.len() > start && out.last() == Some(&b'\\') {
        out.pop();
    }
}

/// The StatsD name of a path, given with `/` between its keys: `/` becomes a dot, and whatever isn't a letter or a digit
/// an underscore. Two slashes in a row count as one, once over: contract.
pub(crate) fn push_statsd(out: &mut Vec<u8>, path: &str) {
    let mut chars = path.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '/' => {
                chars.next_if_eq(&'/');
                out.push(b'.');
            }
            c if c.is_ascii_alphanumeric() => out.push(c as u8),
            _ => out.push(b'_'),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pushed(push: fn(&mut Vec<u8>, &str), text: &str) -> String {
        let mut out = Vec::new();
        push(&mut out, text);
        String::from_utf8(out).unwrap()
    }

    /// Text with every sign that any of the formats has a use for.
    fn hostile() -> impl Strategy<Value = String> {
        prop::collection::vec(
            prop_oneof![
                3 => prop::sample::select(&[
                    '\\', '"', '\n', '\r', '\t', ',', '=', ' ', '{', '}', '#', ':', '|', '@', '/', '.', '\u{8}', '\u{c}',
                    '\u{1}', '\u{7f}',
                ][..]),
                2 => prop::sample::select(&['a', 'B', '7', '_'][..]),
                1 => any::<char>(),
            ],
            0..20,
        )
        .prop_map(|chars| chars.into_iter().collect())
    }

    /// A Prometheus label value as Prometheus reads it: three escapes, any other is an error.
    fn read_label(text: &str) -> Option<String> {
        let mut out = String::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            out.push(match c {
                '\\' => match chars.next()? {
                    '\\' => '\\',
                    '"' => '"',
                    'n' => '\n',
                    _ => return None,
                },
                '"' | '\n' => return None,
                c => c,
            });
        }
        Some(out)
    }

    /// A JSON string as RFC 8259 reads it.
    fn read_json(text: &str) -> Option<String> {
        let mut out = String::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            out.push(match c {
                '\\' => match chars.next()? {
                    c @ ('"' | '\\' | '/') => c,
                    'b' => '\u{8}',
                    'f' => '\u{c}',
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    'u' => {
                        let hex: String = chars.by_ref().take(4).collect();
                        char::from_u32(u32::from_str_radix(&hex, 16).ok()?)?
                    }
                    _ => return None,
                },
                '"' | '\0'..='\u{1f}' => return None,
                c => c,
            });
        }
        Some(out)
    }

    /// A tag value as InfluxDB reads it: a backslash takes the meaning of a sign that follows, and stands for itself
    /// before anything else. `None` when a sign would end the value, or the value ends in a backslash.
    fn read_influx(text: &str) -> Option<String> {
        let mut out = String::new();
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '\\' => match chars.next_if(|c| matches!(c, ',' | '=' | ' ')) {
                    Some(sign) => out.push(sign),
                    None => out.push('\\'),
                },
                ',' | '=' | ' ' | '\0'..='\u{1f}' => return None,
                c => out.push(c),
            }
        }
        (!text.ends_with('\\')).then_some(out)
    }

    #[test]
    fn influx_values_as_the_database_was_seen_to_take_them() {
        #[rustfmt::skip]
        let cases = [
            ("/svc/a b", r"/svc/a\ b"), ("a,b", r"a\,b"), ("a=b", r"a\=b"), (r"a\b", r"a\b"), (r"a\ b", r"a\\ b"),
            (r"a\,b", r"a\\,b"), (r"x\", "x"), (r"x\\", "x"), (r"\", ""), ("", ""), ("a\nb", r"a\nb"), ("/#/bar", "/#/bar"),
            ("\"q\"", "\"q\""), ("café 🍭", r"café\ 🍭"),
        ];
        for (text, written) in cases {
            assert_eq!(pushed(push_influx, text), written, "{text:?}");
        }
    }

    #[test]
    fn statsd_names_join_two_slashes_once_over() {
        let cases = [("a//b", "a.b"), ("a///b", "a..b"), ("a////b", "a..b"), ("/a/", ".a."), ("a.b-c é", "a_b_c__")];
        for (path, name) in cases {
            assert_eq!(pushed(push_statsd, path), name);
        }
    }

    proptest! {
        #[test]
        fn escaped_text_reads_back(text in hostile()) {
            prop_assert_eq!(read_label(&pushed(push_label, &text)), Some(text.clone()));
            prop_assert_eq!(read_json(&pushed(push_json, &text)), Some(text.clone()));
            // What a line can't hold is written in a way that reads differently: without it the text reads back.
            let kept: String = text.chars().filter(|c| !matches!(c, '\0'..='\u{1f}')).collect();
            let kept = kept.trim_end_matches('\\');
            let read = read_influx(&pushed(push_influx, kept));
            prop_assert_eq!(read.as_deref(), Some(kept));
            let written = pushed(push_influx, &text);
            prop_assert!(read_influx(&written).is_some());
        }

        #[test]
        fn names_have_only_letters_that_a_name_may_have(text in hostile()) {
            let key = pushed(push_key, &text);
            prop_assert!(key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b':'));
            prop_assert_eq!(key.len(), text.chars().count());
            let name = pushed(push_statsd, &text);
            prop_assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'.'));
        }

        /// What is said to be plain is written as it is.
        #[test]
        fn plain_names_need_no_escape(text in hostile()) {
            use crate::names::{Name, Plain};
            let name = Name::new(&text);
            type Push = fn(&mut Vec<u8>, &str);
            let faces: [(Plain, Push); 4] = [
                (Plain::Key, push_key),
                (Plain::Label, push_label),
                (Plain::Json, push_json),
                (Plain::Influx, push_influx),
            ];
            for (plain, push) in faces {
                if name.is(plain) {
                    prop_assert_eq!(pushed(push, &text), text.as_str());
                }
            }
        }
    }
}
