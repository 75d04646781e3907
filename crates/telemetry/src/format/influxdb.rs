//! InfluxDB line protocol with Linkerd 1's measurements: `io.l5d.influxdb`.
//!
//! Contract: a line per node that has metrics right beneath it, those deeper first; the node's path is the measurement,
//! `root` for the top; tags sorted, `host` among them; fields sorted; no timestamp; a stat's eleven fields as soon as it
//! has a window, also an empty one. Different from 1.7.5: text is escaped, a tag without a value and a number that is none
//! are left out, a field called `time`, which the database reserves, is called `time_`. Text that is too long for the
//! database is cut, and ends in `~` and a hash of all of it, so that what differs stays different.

use std::borrow::Cow;
use std::ops::Range;

use crate::buckets::Summary;
use crate::cells::Cells;
use crate::collide::{Kind, Wire};
use crate::format::labels::{Does, Spot, push_influx, push_key};
use crate::format::number::push_java;
use crate::format::text::push_pieces;
use crate::format::{Face, Page, Writer};
use crate::names::{Name, Plain};
use crate::stat::StatCell;
use crate::tree::MetricsTree;

/// What the page is like.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The value of the tag `host`: the request's Host header as it was sent, `none` without one.
    pub host: String,
    /// Whether counts are written as integers (`5i`). Linkerd wrote all numbers as floats, and a field can't change its
    /// type: a database that has seen one kind refuses the other.
    pub integers: bool,
}

/// The longest key of the tree that is written whole. A series with its tags and a field of the database may have 65535
/// bytes; this is a tenth, so that four tags and a field fit, with an escape before every byte.
pub(crate) const LONGEST: usize = 6000;

/// The page of a tree.
pub fn page(tree: &MetricsTree, options: &Options) -> Box<dyn Page> {
    Box::new(Writer::new(tree.shared(), tree.root_place(), Influx::new(options)))
}

/// The text of the path, and the fields of the lines that are begun.
struct Influx {
    name: Vec<u8>,
    /// `,client=x`, which sorts before the host.
    before: Vec<u8>,
    /// `,host=x`
    host: Vec<u8>,
    /// `,rt=x,server=y`, which sort after the host and come in this order.
    after: Vec<u8>,
    spot: Spot,
    above: Vec<Above>,
    /// The node entered last, as a field key.
    key: Vec<u8>,
    /// How long that was before a mark.
    unmarked: usize,
    /// Of each open line, the one of the node on top last.
    fields: Vec<Field>,
    /// The text of their keys.
    keys: Vec<u8>,
    /// What ends a count.
    integer: &'static [u8],
    /// How the fields of the last line were sorted: scopes of one kind have the same ones, and sorting is most of the
    /// work.
    sorted: Sorted,
}

/// An order of fields.
#[derive(Default)]
struct Sorted {
    /// The text of their keys, as they came.
    keys: Vec<u8>,
    /// The length of each key.
    lengths: Vec<usize>,
    /// Their places, in the order of the line.
    order: Vec<u32>,
}

/// How it was before a node, and where the fields of its own line begin.
struct Above {
    name: usize,
    before: usize,
    after: usize,
    spot: Spot,
    field: usize,
    key: usize,
}

struct Field {
    key: Range<usize>,
    value: Value,
}

#[derive(Clone, Copy)]
enum Value {
    Counter(u64),
    Integer(u64),
    Float(f64),
}

impl Influx {
    fn new(options: &Options) -> Self {
        let mut tag = Vec::new();
        push_tag(&mut tag, "host", &options.host);
        Self {
            name: Vec::new(),
            before: Vec::new(),
            host: tag,
            after: Vec::new(),
            spot: Spot::Root,
            above: Vec::new(),
            key: Vec::new(),
            unmarked: 0,
            fields: Vec::new(),
            keys: Vec::new(),
            integer: if options.integers { b"i" } else { b"" },
            sorted: Sorted::default(),
        }
    }

    /// A field of the node entered last, which belongs to the line of the node above it.
    fn field(&mut self, suffix: &str, value: Value) {
        let start = self.keys.len();
        self.keys.extend_from_slice(&self.key);
        self.keys.extend_from_slice(suffix.as_bytes());
        if suffix.is_empty() && self.key == b"time" {
            self.keys.push(b'_');
        }
        self.fields.push(Field { key: start..self.keys.len(), value });
        if let Some(own) = self.above.last_mut() {
            own.field = self.fields.len();
            own.key = self.keys.len();
        }
    }

    fn summary(&mut self, s: &Summary) {
        self.field("_avg", Value::Float(s.avg));
        let rest = [
            ("_count", s.count),
            ("_max", s.max),
            ("_min", s.min),
            ("_p50", s.p50),
            ("_p90", s.p90),
            ("_p95", s.p95),
            ("_p99", s.p99),
            ("_p999", s.p9990),
            ("_p9999", s.p9999),
            ("_sum", s.sum),
        ];
        for (suffix, value) in rest {
            self.field(suffix, Value::Integer(value));
        }
    }

    /// Writes the line of the fields from `first` on, if there are any.
    fn line(&mut self, first: usize, out: &mut Vec<u8>) {
        if first == self.fields.len() {
            return;
        }
        let (fields, keys) = (&self.fields[first..], &self.keys);
        self.sorted.sort(fields, keys);
        out.extend_from_slice(match self.name.as_slice() {
            b"" if self.above.is_empty() => b"root",
            b"" => b"_",
            name => name,
        });
        out.extend_from_slice(&self.before);
        out.extend_from_slice(&self.host);
        out.extend_from_slice(&self.after);
        let mut sign = b' ';
        let mut order = self.sorted.order.iter().map(|&at| &fields[at as usize]).peekable();
        while let Some(field) = order.next() {
            let key = &keys[field.key.clone()];
            let sign = std::mem::replace(&mut sign, b',');
            let mut count = match field.value {
                Value::Counter(n) | Value::Integer(n) => n,
                Value::Float(_) => 0,
            };
            // Counters of one name are written as their sum; of all else the first made keeps the name.
            while let Some(same) = order.next_if(|f| keys[f.key.clone()] == *key) {
                if let Value::Counter(_) = field.value {
                    count = count.wrapping_add(same.value.counted());
                }
            }
            if let Value::Float(x) = field.value {
                out.push(sign);
                out.extend_from_slice(key);
                out.push(b'=');
                push_java(out, x);
            } else if self.integer.is_empty() {
                push_pieces(out, &[sign], key, *b"=", count, []);
            } else {
                // An integer of the database has a sign.
                push_pieces(out, &[sign], key, *b"=", count.min(i64::MAX as u64), []);
                out.extend_from_slice(self.integer);
            }
        }
        out.push(b'\n');
    }
}

impl Sorted {
    /// Sets the order of these fields.
    fn sort(&mut self, fields: &[Field], keys: &[u8]) {
        // Those of one line lie one behind the other.
        let text = fields.first().zip(fields.last()).map_or(&[][..], |(a, z)| &keys[a.key.start..z.key.end]);
        let lengths = fields.iter().map(|f| f.key.len());
        if self.keys == text && lengths.clone().eq(self.lengths.iter().copied()) {
            return;
        }
        self.keys.clear();
        self.keys.extend_from_slice(text);
        self.lengths.clear();
        self.lengths.extend(lengths);
        self.order.clear();
        self.order.extend(0..fields.len() as u32);
        // Stable, so that of two that come to one name the first made stays.
        let key = |at: u32| &keys[fields[at as usize].key.clone()];
        self.order.sort_by(|&a, &b| key(a).cmp(key(b)));
    }
}

/// Every field that a metric is written as, with its measurement and tags.
pub(crate) fn series(path: &[&Name], kind: Kind) -> Vec<Vec<u8>> {
    let Some((own, above)) = path.split_last() else { return Vec::new() };
    let mut face = Influx::new(&Options::default());
    for name in above {
        face.enter(name, &mut Vec::new());
    }
    let line = [face.name.as_slice(), &face.before, &face.after].join(&b'\n');
    face.enter(own, &mut Vec::new());
    match kind {
        Kind::Stat => face.summary(&Summary::default()),
        Kind::Counter | Kind::Gauge => face.field("", Value::Integer(0)),
    }
    let fields = face.fields.iter().map(|f| [&line, &face.keys[f.key.clone()]].join(&b'\n'));
    fields.collect()
}

impl Value {
    fn counted(self) -> u64 {
        if let Self::Counter(n) = self { n } else { 0 }
    }
}

impl Face for Influx {
    const WIRE: Option<Wire> = Some(Wire::Influx);

    fn enter(&mut self, name: &Name, _out: &mut Vec<u8>) {
        let (does, spot) = self.spot.next_without_exceptions(name.text());
        self.above.push(Above {
            name: self.name.len(),
            before: self.before.len(),
            after: self.after.len(),
            spot: self.spot,
            field: self.fields.len(),
            key: self.keys.len(),
        });
        self.spot = spot;
        match does {
            Does::Label(key @ "client") => push_tag(&mut self.before, key, name.text()),
            Does::Label(key) => push_tag(&mut self.after, key, name.text()),
            Does::Name | Does::Cause | Does::Exn => {
                if self.above.len() > 1 {
                    self.name.push(b':');
                }
                push_key(&mut self.name, &shortened(name.text()));
            }
        }
        self.key.clear();
        if name.is(Plain::Influx) {
            self.key.extend_from_slice(name.text().as_bytes());
        } else {
            push_field(&mut self.key, &shortened(name.text()));
            if self.key.is_empty() {
                self.key.push(b'_');
            }
        }
    }

    fn counter(&mut self, _slot: u32, value: u64, _out: &mut Vec<u8>) {
        self.field("", Value::Counter(value));
    }

    #[inline]
    fn leaf(&mut self, name: &Name, slot: u32, value: u64, out: &mut Vec<u8>) {
        if self.above.is_empty() || !name.is(Plain::Influx) {
            self.enter(name, out);
            self.counter(slot, value, out);
            return self.leave(out);
        }
        let start = self.keys.len();
        self.keys.extend_from_slice(name.text().as_bytes());
        self.fields.push(Field { key: start..self.keys.len(), value: Value::Counter(value) });
    }

    fn gauge(&mut self, value: f64, _out: &mut Vec<u8>) {
        if value.is_finite() {
            self.field("", Value::Float(value));
        }
    }

    fn stat(&mut self, stat: &StatCell, _cells: &Cells, _out: &mut Vec<u8>) {
        if let Some(summary) = stat.window() {
            self.summary(&summary);
        }
    }

    fn mark(&mut self, nth: usize, _path: &str) {
        self.unmarked = self.key.len();
        self.key.extend_from_slice(format!("#{}", nth + 1).as_bytes());
    }

    fn unmark(&mut self) {
        self.key.truncate(self.unmarked);
    }

    fn leave(&mut self, out: &mut Vec<u8>) {
        let (field, key) = self.above.last().map_or((0, 0), |above| (above.field, above.key));
        self.line(field, out);
        self.fields.truncate(field);
        self.keys.truncate(key);
        if let Some(above) = self.above.pop() {
            self.name.truncate(above.name);
            self.before.truncate(above.before);
            self.after.truncate(above.after);
            self.spot = above.spot;
        }
    }
}

/// A tag, or nothing when its value comes to nothing.
fn push_tag(out: &mut Vec<u8>, key: &str, value: &str) {
    let start = out.len();
    out.push(b',');
    out.extend_from_slice(key.as_bytes());
    out.push(b'=');
    let before = out.len();
    push_influx(out, &shortened(value));
    if out.len() == before {
        out.truncate(start);
    }
}

/// A field key. Telegraf reads a backslash there as one with the sign behind it, whatever that is; so one of the text's own
/// before a sign that needs another is an underscore.
fn push_field(out: &mut Vec<u8>, text: &str) {
    let mut kept = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let before_sign = c == '\\' && chars.peek().is_some_and(|next| matches!(next, ',' | '=' | ' '));
        kept.push(if before_sign { '_' } else { c });
    }
    push_influx(out, &kept);
}

/// The text, or as much of it as the database takes and what tells it from others that begin the same.
fn shortened(text: &str) -> Cow<'_, str> {
    if text.len() <= LONGEST {
        return Cow::Borrowed(text);
    }
    let mut end = LONGEST - HASH;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    Cow::Owned(format!("{}~{:016x}", &text[..end], fnv(text.as_bytes())))
}

/// A tilde and sixteen digits.
const HASH: usize = 17;

/// FNV-1a: the same in each process, so that a series keeps its name.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &b| (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}
