//! StatsD lines packed into datagrams: `io.l5d.statsd`.
//!
//! Contract: `<prefix>.<name>:<n>|c`, `|ms|@<rate>`, `|g`, names as Linkerd 1 made them. Decided differently: a counter is
//! sent once per flush, as exactly what it grew by, so that rare events are seen and frequent ones cost one line; the
//! sample rate thins out timings only. A counter is sent once when it is met first, even if it stands at 0, so that the
//! receiver knows it. A negative gauge is set to zero first, since a sign means a change in StatsD.
//!
//! With a [`Flavor`] that has tags, what Linkerd put into the name (router, service, client, server) becomes tags, as
//! labels in Prometheus, and a stat that is no time in ms is sent as `h`, where the flavour's servers know that type.
//! What a tag of a flavour can't hold becomes an underscore.
//!
//! Nothing that was counted is lost on this side: what a datagram that wasn't taken would have said is said by the next
//! flush, and so is the rest of a counter that was pruned in between. Timings of such a datagram are not sent again.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::buckets::representative;
use crate::cells::Cells;
use crate::collide::{Kind, Wire};
use crate::format::labels::{Does, Spot, push_statsd};
use crate::format::number::push_u64;
use crate::format::{Face, Page, Writer};
use crate::histogram::Seen;
use crate::names::Name;
use crate::stat::StatCell;
use crate::sync::{Mutex, lock};
use crate::tree::MetricsTree;

/// How to push.
#[derive(Clone, Debug)]
pub struct Options {
    /// Stands before every name, with a dot, unless it is empty.
    pub prefix: String,
    /// Which part of the timings is sent: 1 or more for all of them, 0 or less for none.
    pub sample_rate: f64,
    /// The most bytes in a datagram.
    pub max_datagram: usize,
    /// How tags are written, if they are.
    pub flavor: Flavor,
}

/// How tags are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flavor {
    /// Not: everything is in the name, as Linkerd had it.
    #[default]
    None,
    /// `name:1|c|#rt:http,service:svc/web`: Datadog's agent, statsd_exporter, Telegraf with `datadog_extensions`.
    Dogstatsd,
    /// `name,rt=http,service=svc/web:1|c`: Telegraf, statsd_exporter.
    Influx,
    /// `name;rt=http;service=svc-web:1|c`: Graphite behind etsy's StatsD, which makes a slash a dash and drops most signs.
    Graphite,
}

impl Default for Options {
    fn default() -> Self {
        Self { prefix: "linkerd".into(), sample_rate: 0.01, max_datagram: 1432, flavor: Flavor::None }
    }
}

/// Sends what happened since it last did. Make it before there is anything to count: its first flush tells everything so
/// far.
pub struct Pusher {
    tree: MetricsTree,
    prefix: Vec<u8>,
    max_datagram: usize,
    flavor: Flavor,
    timings: Timings,
    unsent: Arc<Mutex<Unsent>>,
}

/// What a flush came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flushed {
    /// Lines in datagrams that were taken.
    pub lines: u64,
    /// Datagrams that were taken.
    pub datagrams: u64,
    /// Datagrams that were not taken.
    pub refused: u64,
    /// Lines that were dropped because no datagram could hold them.
    pub oversize: u64,
}

/// What of the counters is not sent yet. Shared with the tree, which hands over what a pruned counter had left.
#[derive(Default)]
pub(crate) struct Unsent {
    flavor: Flavor,
    /// What each slot stood at when it was last taken for sending, or [`NEVER`].
    last: Vec<u64>,
    /// Left over, by what stands around the number, without prefix: see [`Named::key`].
    left: HashMap<Vec<u8>, u64, RandomState>,
}

/// What of the stats was sent.
struct Timings {
    rate: f64,
    stats: HashMap<u64, Timing, RandomState>,
    flush: u64,
    /// What follows the value's type; `None` when no timing is sent.
    suffix: Option<String>,
}

struct Timing {
    seen: Seen,
    /// The part of a line that is owed: what the samples so far came to, less the lines sent.
    owed: f64,
    /// The flush that met the stat last.
    flush: u64,
}

impl Pusher {
    /// A pusher of `tree`.
    pub fn new(tree: &MetricsTree, options: Options) -> Self {
        let mut prefix: Vec<u8> = options.prefix.chars().map(clean).collect();
        if !prefix.is_empty() {
            prefix.push(b'.');
        }
        let flavor = options.flavor;
        let unsent = Arc::new(Mutex::new(Unsent { flavor, ..Unsent::default() }));
        tree.shared().list_pusher(&unsent);
        let rate = options.sample_rate.min(1.0);
        // None also for a rate that is no number, or that would be written as 0 and make the receiver divide by it.
        let suffix = (options.sample_rate >= 0.000_000_6).then(|| format!("|@{rate:.6}"));
        let timings = Timings { rate, stats: HashMap::default(), flush: 0, suffix };
        Self { tree: tree.clone(), prefix, max_datagram: options.max_datagram, flavor, timings, unsent }
    }

    /// Sends what the counters grew by and the timings that came since the last flush, and, if asked, all gauges.
    ///
    /// `send` gets one datagram at a time, lines separated by newlines, with no lock held. When it says false, the datagram
    /// counts as lost and what its counters said is sent by the next flush.
    pub fn flush(&mut self, gauges: bool, send: &mut dyn FnMut(&[u8]) -> bool) -> Flushed {
        let flushed = match self.flavor {
            Flavor::None => self.flush_as::<false>(gauges, send),
            _ => self.flush_as::<true>(gauges, send),
        };
        let flush = self.timings.flush;
        self.timings.stats.retain(|_, timing| timing.flush == flush);
        flushed
    }

    fn flush_as<const TAGS: bool>(&mut self, gauges: bool, send: &mut dyn FnMut(&[u8]) -> bool) -> Flushed {
        self.timings.flush += 1;
        let mut packer =
            Packer { max: self.max_datagram, send, flushed: Flushed::default(), datagram: Vec::new(), lines: 0 };
        let lines = Lines::<TAGS> {
            named: Named::new(self.flavor, self.prefix.clone()),
            gauges,
            timings: &mut self.timings,
            unsent: &self.unsent,
            left: std::mem::take(&mut lock(&self.unsent).left),
            ends: Vec::new(),
        };
        let mut writer = Writer::new(self.tree.shared(), self.tree.root_place(), lines);
        let mut text = Vec::new();
        loop {
            let more = writer.fill(&mut text);
            let mut start = 0;
            for (end, times) in writer.face.ends.drain(..) {
                for _ in 0..times {
                    packer.push(&text[start..end], &self.prefix, &self.unsent);
                }
                start = end;
            }
            text.clear();
            if !more {
                break;
            }
        }
        // These have no counter any more that could have taken them along.
        for (key, n) in writer.face.left {
            let (head, tail) = apart(&key);
            text.clear();
            text.extend_from_slice(&self.prefix);
            text.extend_from_slice(head);
            push_counter(&mut text, n, tail);
            packer.push(&text, &self.prefix, &self.unsent);
        }
        packer.send(&self.prefix, &self.unsent);
        packer.flushed
    }
}

impl Unsent {
    /// Takes over what a counter that is being pruned still had to say.
    pub(crate) fn pruned(&mut self, path: &[Name], slot: u32, value: u64) {
        let (grown, _) = self.grown(slot, value);
        self.last[slot as usize] = NEVER;
        if grown > 0 {
            let mut named = Named::new(self.flavor, Vec::new());
            path.iter().for_each(|name| named.enter(name.text()));
            self.leave(&named.key(), grown);
        }
    }

    /// What a counter grew by since this was asked last, and whether it was never asked before.
    fn grown(&mut self, slot: u32, value: u64) -> (u64, bool) {
        let slot = slot as usize;
        if self.last.len() <= slot {
            if slot >= self.last.capacity() {
                // A little room at a time: there may be a million slots.
                self.last.reserve_exact((slot + 1 - self.last.len()).max(self.last.len() / 8 + 64));
            }
            self.last.resize(slot + 1, NEVER);
        }
        let last = std::mem::replace(&mut self.last[slot], value);
        if last == NEVER { (value, true) } else { (value.wrapping_sub(last), false) }
    }

    fn leave(&mut self, key: &[u8], n: u64) {
        match self.left.get_mut(key) {
            Some(left) => *left += n,
            None => _ = self.left.insert(key.to_vec(), n),
        }
    }
}

/// Puts lines into datagrams.
struct Packer<'a> {
    max: usize,
    send: &'a mut dyn FnMut(&[u8]) -> bool,
    flushed: Flushed,
    datagram: Vec<u8>,
    lines: u64,
}

impl Packer<'_> {
    /// Adds a line, or two that belong together.
    fn push(&mut self, line: &[u8], prefix: &[u8], unsent: &Mutex<Unsent>) {
        if line.len() > self.max {
            self.flushed.oversize += 1;
            return;
        }
        if !self.datagram.is_empty() && self.datagram.len() + 1 + line.len() > self.max {
            self.send(prefix, unsent);
        }
        if !self.datagram.is_empty() {
            self.datagram.push(b'\n');
        }
        self.datagram.extend_from_slice(line);
        self.lines += 1 + line.iter().filter(|&&b| b == b'\n').count() as u64;
    }

    fn send(&mut self, prefix: &[u8], unsent: &Mutex<Unsent>) {
        let lines = std::mem::take(&mut self.lines);
        if lines == 0 {
            return;
        }
        if (self.send)(&self.datagram) {
            self.flushed.datagrams += 1;
            self.flushed.lines += lines;
        } else {
            self.flushed.refused += 1;
            for line in self.datagram.split(|&b| b == b'\n') {
                if let Some((head, n, tail)) = read_counter(line) {
                    lock(unsent).leave(&together(&head[prefix.len()..], tail), n);
                }
            }
        }
        self.datagram.clear();
    }
}

/// The name of the node a walk stands at, and the tags around it.
struct Named {
    flavor: Flavor,
    /// The length of the prefix, which `head` begins with.
    prefix: usize,
    /// Without tags: the keys, joined by slashes, as two keys may have to be cleaned as one. With tags: the name so far,
    /// cleaned.
    path: String,
    /// The tags so far, each with the sign before it.
    tags: Vec<u8>,
    spot: Spot,
    above: Vec<(usize, usize, Spot)>,
    /// What a name that is another's gets at its end: with a sign that no name of ours has.
    mark: String,
    /// What stands before the value, as of the last [`write`](Self::write).
    head: Vec<u8>,
}

impl Named {
    fn new(flavor: Flavor, prefix: Vec<u8>) -> Self {
        Self {
            flavor,
            prefix: prefix.len(),
            path: String::new(),
            tags: Vec::new(),
            spot: Spot::Root,
            above: Vec::new(),
            mark: String::new(),
            head: prefix,
        }
    }

    fn enter(&mut self, key: &str) {
        self.above.push((self.path.len(), self.tags.len(), self.spot));
        if self.flavor == Flavor::None {
            if self.above.len() > 1 {
                self.path.push('/');
            }
            self.path.push_str(key);
            return;
        }
        let (does, spot) = self.spot.next_without_exceptions(key);
        self.spot = spot;
        if let Does::Label(tag) = does {
            self.push_tag(tag, key);
        } else {
            if self.above.len() > 1 {
                self.path.push('.');
            }
            let mut name = Vec::new();
            push_statsd(&mut name, key);
            self.path.extend(name.into_iter().map(char::from));
        }
    }

    fn leave(&mut self) {
        let Some((path, tags, spot)) = self.above.pop() else { return };
        self.path.truncate(path);
        self.tags.truncate(tags);
        self.spot = spot;
    }

    /// A tag, or nothing when its value is empty.
    fn push_tag(&mut self, tag: &str, value: &str) {
        if value.is_empty() {
            return;
        }
        let (sign, equals) = match self.flavor {
            Flavor::None | Flavor::Dogstatsd => (if self.tags.is_empty() { "|#" } else { "," }, b':'),
            Flavor::Influx => (",", b'='),
            Flavor::Graphite => (";", b'='),
        };
        self.tags.extend_from_slice(sign.as_bytes());
        self.tags.extend_from_slice(tag.as_bytes());
        self.tags.push(equals);
        for c in value.chars() {
            // As etsy's server would do, but that signs which it drops are still there as something.
            if c == '/' && self.flavor == Flavor::Graphite {
                self.tags.push(b'-');
                continue;
            }
            let kept = match self.flavor {
                Flavor::Graphite => c.is_ascii_alphanumeric() || "._-".contains(c),
                // A colon is fine there: servers split at the first one.
                Flavor::None | Flavor::Dogstatsd => !(c.is_control() || matches!(c, '|' | ',')),
                _ => !(c.is_control() || c.is_whitespace() || "|,;:=#[]~!^".contains(c)),
            };
            self.tags.extend_from_slice(if kept { c } else { '_' }.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }

    /// Works out what stands before the value.
    fn write(&mut self) {
        self.head.truncate(self.prefix);
        if self.flavor == Flavor::None {
            push_statsd(&mut self.head, &self.path);
        } else {
            self.head.extend_from_slice(self.path.as_bytes());
        }
        self.head.extend_from_slice(self.mark.as_bytes());
        if matches!(self.flavor, Flavor::Influx | Flavor::Graphite) {
            self.head.extend_from_slice(&self.tags);
        }
    }

    /// What stands after the value and its type.
    fn tail(&self) -> &[u8] {
        if self.flavor == Flavor::Dogstatsd { &self.tags } else { b"" }
    }

    /// Head without prefix, and tail.
    fn key(&mut self) -> Vec<u8> {
        self.write();
        together(&self.head[self.prefix..], self.tail())
    }

    /// The type of a timing.
    fn timing(&self) -> &'static str {
        let name = self.path.rsplit('.').next().unwrap_or_default();
        let in_ms = || name.ends_with("_ms") || name == "connection_duration" || self.path.contains(".time.");
        let tells_apart = matches!(self.flavor, Flavor::Dogstatsd | Flavor::Influx);
        if tells_apart && !in_ms() { "|h" } else { "|ms" }
    }
}

/// One text for both, which can be taken [`apart`] again: a name has no such sign.
fn together(head: &[u8], tail: &[u8]) -> Vec<u8> {
    if tail.is_empty() { head.to_vec() } else { [head, tail].join(&0) }
}

fn apart(key: &[u8]) -> (&[u8], &[u8]) {
    let end = key.iter().position(|&b| b == 0);
    end.map_or((key, b"".as_slice()), |end| (&key[..end], &key[end + 1..]))
}

/// Writes lines, without newlines between them, and remembers where each ends and how often it is sent.
struct Lines<'a, const TAGS: bool> {
    named: Named,
    gauges: bool,
    timings: &'a mut Timings,
    unsent: &'a Mutex<Unsent>,
    /// What the last flush left over: what is left over from now on is the next one's.
    left: HashMap<Vec<u8>, u64, RandomState>,
    ends: Vec<(usize, u64)>,
}

/// The name of a gauge, with its tags if there are any. Counters and timings of one name the server adds up, as it should.
pub(crate) fn series(path: &[&Name], kind: Kind, tags: bool) -> Vec<Vec<u8>> {
    if kind != Kind::Gauge {
        return Vec::new();
    }
    // Of the flavours with tags the one that keeps least.
    let mut named = Named::new(if tags { Flavor::Graphite } else { Flavor::None }, Vec::new());
    path.iter().for_each(|name| named.enter(name.text()));
    vec![named.key()]
}

impl<const TAGS: bool> Face for Lines<'_, TAGS> {
    const WIRE: Option<Wire> = Some(if TAGS { Wire::StatsdTags } else { Wire::Statsd });

    fn enter(&mut self, name: &Name, _out: &mut Vec<u8>) {
        self.named.enter(name.text());
    }

    fn counter(&mut self, slot: u32, value: u64, out: &mut Vec<u8>) {
        let (mut grown, first) = lock(self.unsent).grown(slot, value);
        if grown == 0 && !first && self.left.is_empty() {
            return;
        }
        let left = if self.left.is_empty() { None } else { self.left.remove(&self.named.key()) };
        if grown == 0 && !first && left.is_none() {
            return;
        }
        grown += left.unwrap_or(0);
        self.named.write();
        out.extend_from_slice(&self.named.head);
        push_counter(out, grown, self.named.tail());
        self.ends.push((out.len(), 1));
    }

    fn gauge(&mut self, value: f64, out: &mut Vec<u8>) {
        if !self.gauges || !value.is_finite() {
            return;
        }
        self.named.write();
        let number = decimal(value);
        let zero = if number.starts_with('-') { Some("0") } else { None };
        for (number, end) in zero.map(|zero| (zero, "\n")).into_iter().chain([(number.as_str(), "")]) {
            out.extend_from_slice(&self.named.head);
            out.push(b':');
            out.extend_from_slice(number.as_bytes());
            out.extend_from_slice(b"|g");
            out.extend_from_slice(self.named.tail());
            out.extend_from_slice(end.as_bytes());
        }
        self.ends.push((out.len(), 1));
    }

    fn stat(&mut self, stat: &StatCell, cells: &Cells, out: &mut Vec<u8>) {
        let Timings { rate, stats, flush, suffix: Some(suffix) } = &mut *self.timings else { return };
        // Where a stat begins to owe is spread evenly, so that also many stats with few samples each come to their share.
        let timing = stats.entry(stat.serial()).or_insert_with(|| Timing {
            seen: Seen::default(),
            owed: if *rate < 1.0 { (stat.serial() as f64 * GOLDEN).fract() } else { 0.0 },
            flush: 0,
        });
        timing.flush = *flush;
        let (named, ends, mut written) = (&mut self.named, &mut self.ends, false);
        let owed = &mut timing.owed;
        timing.seen.advance(cells.histograms(stat), |bucket, n| {
            *owed += *rate * n as f64;
            let lines = owed.floor();
            *owed -= lines;
            if lines < 1.0 {
                return;
            }
            if !std::mem::replace(&mut written, true) {
                named.write();
            }
            out.extend_from_slice(&named.head);
            out.push(b':');
            push_u64(out, representative(bucket));
            out.extend_from_slice(named.timing().as_bytes());
            out.extend_from_slice(suffix.as_bytes());
            out.extend_from_slice(named.tail());
            ends.push((out.len(), lines as u64));
        });
    }

    fn mark(&mut self, nth: usize, _path: &str) {
        self.named.mark = format!("-{}", nth + 1);
    }

    fn unmark(&mut self) {
        self.named.mark.clear();
    }

    fn leave(&mut self, _out: &mut Vec<u8>) {
        self.named.leave();
    }
}

/// A slot that was never taken for sending. No counter comes that far.
const NEVER: u64 = u64::MAX;

/// The golden ratio's fraction: its multiples' fractions are spread evenly.
const GOLDEN: f64 = 0.618_033_988_749_894_9;

fn clean(c: char) -> u8 {
    if c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-') { c as u8 } else { b'_' }
}

fn push_counter(out: &mut Vec<u8>, n: u64, tail: &[u8]) {
    out.push(b':');
    push_u64(out, n);
    out.extend_from_slice(b"|c");
    out.extend_from_slice(tail);
}

/// Head, number and tail of a line that [`push_counter`] ended. No name or tag before a number has a colon in it.
fn read_counter(line: &[u8]) -> Option<(&[u8], u64, &[u8])> {
    let colon = line.iter().position(|&b| b == b':')?;
    let digits = line[colon + 1..].iter().position(|&b| b == b'|')?;
    let (number, rest) = line[colon + 1..].split_at(digits);
    let tail = rest.strip_prefix(b"|c")?;
    Some((&line[..colon], std::str::from_utf8(number).ok()?.parse().ok()?, tail))
}

/// At most six decimals, half to even, no zeros at the end, no sign before a zero.
fn decimal(x: f64) -> String {
    let text = format!("{x:.6}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".into() } else { text.into() }
}
