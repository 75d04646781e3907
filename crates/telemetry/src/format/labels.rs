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
            (Self::ClientService, _) => (Does::Label("service"), Self::Plain),
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
