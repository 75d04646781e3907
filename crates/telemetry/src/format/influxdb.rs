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
use crate::format::{Face, Page, Writer, each_leaf};
use crate::names::{Name, Plain};
use crate::stat::StatCell;
use crate::tree::{MetricsTree, Shape};
use crate::walk::Run;

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
    /// The text of the keys that their templates don't have.
    keys: Vec<u8>,
    /// What ends a count.
    integer: &'static [u8],
    /// The last line of each depth: scopes of one kind have the same fields, and what was found out of those is most of the
    /// work. At each depth one line is open at a time.
    templates: Vec<Template>,
}

/// The fields of a line without their values.
#[derive(Default)]
struct Template {
    /// Their keys, as they came, and where each ends.
    keys: Vec<u8>,
    ends: Vec<usize>,
    /// The names, by number, that come to these keys, where they are known.
    names: Vec<u32>,
    /// Their places, in the order of the line. Of several with one key it has the first.
    order: Vec<u32>,
    /// The others' places, each with that of the first.
    same: Vec<(u32, u32)>,
    /// A blank or a comma, the key and an equals sign of each, in the order of the line, and where each ends.
    pieces: Vec<u8>,
    cuts: Vec<usize>,
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
    value: Value,
    /// [`SAME`] when it is the one that the template has at this place.
    key: Range<u32>,
}

/// No name has this number.
const UNKNOWN: u32 = u32::MAX;
/// No range: none begins at the end.
const SAME: Range<u32> = u32::MAX..u32::MAX;

impl Field {
    /// Its key, where that is not the template's.
    fn key<'a>(&self, keys: &'a [u8]) -> Option<&'a [u8]> {
        (self.key != SAME).then(|| &keys[self.key.start as usize..self.key.end as usize])
    }
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
            templates: Vec::new(),
        }
    }

    /// A field of the node entered last, which belongs to the line of the node above it.
    fn field(&mut self, suffix: &str, value: Value) {
        let depth = self.above.len().saturating_sub(1);
        let first = depth.checked_sub(1).map_or(0, |above| self.above[above].field);
        let start = self.keys.len();
        self.keys.extend_from_slice(&self.key);
        self.keys.extend_from_slice(suffix.as_bytes());
        if suffix.is_empty() && self.key == b"time" {
            self.keys.push(b'_');
        }
        let at = self.fields.len() - first;
        let same = self.templates.get(depth).and_then(|t| t.key(at)) == Some(&self.keys[start..]);
        if same {
            self.keys.truncate(start);
        }
        let key = if same { SAME } else { start as u32..self.keys.len() as u32 };
        self.fields.push(Field { value, key });
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
        let depth = self.above.len();
        if self.templates.len() <= depth {
            self.templates.resize_with(depth + 1, Template::default);
        }
        let (fields, template) = (&mut self.fields[first..], &mut self.templates[depth]);
        if fields.len() != template.ends.len() || fields.iter().any(|field| field.key != SAME) {
            *template = template.of(fields, &self.keys);
        }
        // Counters of one name are written as their sum; of all else the first made keeps the name.
        for &(at, first) in &template.same {
            let more = fields[at as usize].value.counted();
            if let Value::Counter(count) = &mut fields[first as usize].value {
                *count = count.wrapping_add(more);
            }
        }
        out.extend_from_slice(match self.name.as_slice() {
            b"" if self.above.is_empty() => b"root",
            b"" => b"_",
            name => name,
        });
        out.extend_from_slice(&self.before);
        out.extend_from_slice(&self.host);
        out.extend_from_slice(&self.after);
        let integer = self.integer;
        let mut write = |piece: &[u8], value: Value| match value {
            Value::Float(x) => {
                out.extend_from_slice(piece);
                push_java(out, x);
            }
            Value::Counter(n) | Value::Integer(n) if integer.is_empty() => push_pieces(out, piece, &[], [], n, []),
            Value::Counter(n) | Value::Integer(n) => {
                // An integer of the database has a sign.
                push_pieces(out, piece, &[], [], n.min(i64::MAX as u64), []);
                out.extend_from_slice(integer);
            }
        };
        let mut start = 0;
        for (&at, &cut) in template.order.iter().zip(&template.cuts) {
            write(&template.pieces[start..cut], fields[at as usize].value);
            start = cut;
        }
        out.push(b'\n');
    }
}

impl Template {
    /// The key of the field that came at this place.
    fn key(&self, at: usize) -> Option<&[u8]> {
        let end = *self.ends.get(at)?;
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        Some(&self.keys[start..end])
    }

    /// The template of these fields, whose keys are partly this one's.
    fn of(&self, fields: &[Field], keys: &[u8]) -> Self {
        let mut new = Self::default();
        for (at, field) in fields.iter().enumerate() {
            let key = field.key(keys).or_else(|| self.key(at));
            new.keys.extend_from_slice(key.unwrap_or_default());
            new.ends.push(new.keys.len());
            let name = self.names.get(at).filter(|_| field.key == SAME);
            new.names.push(name.copied().unwrap_or(UNKNOWN));
        }
        // Stable, so that of two that come to one name the first made stays.
        let mut order: Vec<u32> = (0..fields.len() as u32).collect();
        let key = |at: u32| new.key(at as usize);
        order.sort_by(|&a, &b| key(a).cmp(&key(b)));
        let mut same = Vec::new();
        order.dedup_by(|&mut at, &mut first| {
            let is = key(at) == key(first);
            if is {
                same.push((at, first));
            }
            is
        });
        let (mut pieces, mut cuts) = (Vec::new(), Vec::new());
        for &at in &order {
            pieces.push(if cuts.is_empty() { b' ' } else { b',' });
            pieces.extend_from_slice(key(at).unwrap_or_default());
            pieces.push(b'=');
            cuts.push(pieces.len());
        }
        (new.order, new.same, new.pieces, new.cuts) = (order, same, pieces, cuts);
        new
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
    // Without a line there is no template.
    let keys = face.fields.iter().filter_map(|field| field.key(&face.keys));
    keys.map(|key| [&line, key].join(&b'\n')).collect()
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
            Does::Label(key) => {
                let tags = if key == "client" { &mut self.before } else { &mut self.after };
                if name.is(Plain::Influx) {
                    [",", key, "=", name.text()].iter().for_each(|part| tags.extend_from_slice(part.as_bytes()));
                } else {
                    push_tag(tags, key, name.text());
                }
            }
            Does::Name | Does::Cause | Does::Exn => {
                if self.above.len() > 1 {
                    self.name.push(b':');
                }
                if name.is(Plain::Key) && name.is(Plain::Influx) {
                    self.name.extend_from_slice(name.text().as_bytes());
                } else {
                    push_key(&mut self.name, &shortened(name.text()));
                }
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

    fn leaves(&mut self, run: &Run, shape: &Shape, out: &mut Vec<u8>) {
        let before = self.fields.len();
        let at = before - self.above.last().map_or(0, |own| own.field);
        let known = self.templates.get(self.above.len()).and_then(|t| t.names.get(at..at + run.names().len()));
        if known == Some(run.names()) {
            let fields = run.values().iter().map(|&value| Field { value: Value::Counter(value), key: SAME });
            return self.fields.extend(fields);
        }
        each_leaf(self, run, shape, out);
        if let Some(template) = self.templates.get_mut(self.above.len()) {
            let same = self.fields[before..].iter().map(|field| field.key == SAME);
            let places = template.names.iter_mut().skip(at).zip(run.names()).zip(same);
            places.filter(|&(_, same)| same).for_each(|((known, &name), _)| *known = name);
        }
    }

    fn renumber(&mut self) {
        self.templates.iter_mut().for_each(|template| template.names.fill(UNKNOWN));
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
