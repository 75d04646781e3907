//! StatsD lines packed into datagrams: `io.l5d.statsd`.
//!
//! Contract: `<prefix>.<name>:<n>|c`, `|ms|@<rate>`, `|g`, names as Linkerd 1 made them. Decided differently: a counter is
//! sent once per flush, as exactly what it grew by, so that rare events are seen and frequent ones cost one line; the
//! sample rate thins out timings only. A negative gauge is set to zero first, since a sign means a change in StatsD.
//!
//! Nothing that was counted is lost on this side: what a datagram that wasn't taken would have said is said by the next
//! flush, and so is the rest of a counter that was pruned in between. Timings of such a datagram are not sent again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;

use crate::buckets::representative;
use crate::cells::Cells;
use crate::collide::{Kind, Wire};
use crate::format::labels::push_statsd;
use crate::format::number::push_u64;
use crate::format::{Face, Page, Writer};
use crate::histogram::Seen;
use crate::names::Name;
use crate::stat::StatCell;
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
}

impl Default for Options {
    fn default() -> Self {
        Self { prefix: "linkerd".into(), sample_rate: 0.01, max_datagram: 1432 }
    }
}

/// Sends what happened since it last did. Make it before there is anything to count: its first flush tells everything so
/// far.
pub struct Pusher {
    tree: MetricsTree,
    prefix: Vec<u8>,
    max_datagram: usize,
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
    /// What each slot stood at when it was last taken for sending.
    last: Vec<u64>,
    /// Left over, by name without prefix.
    left: HashMap<Vec<u8>, u64, RandomState>,
}

/// What of the stats was sent.
struct Timings {
    rate: f64,
    stats: HashMap<u64, Timing, RandomState>,
    flush: u64,
    /// What ends a line; `None` when no timing is sent.
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
        let unsent = Arc::new(Mutex::default());
        tree.shared().list_pusher(&unsent);
        let rate = options.sample_rate.min(1.0);
        // None also for a rate that is no number, or that would be written as 0 and make the receiver divide by it.
        let suffix = (options.sample_rate >= 0.000_000_6).then(|| format!("|ms|@{rate:.6}"));
        let timings = Timings { rate, stats: HashMap::default(), flush: 0, suffix };
        Self { tree: tree.clone(), prefix, max_datagram: options.max_datagram, timings, unsent }
    }

    /// Sends what the counters grew by and the timings that came since the last flush, and, if asked, all gauges.
    ///
    /// `send` gets one datagram at a time, lines separated by newlines, with no lock held. When it says false, the datagram
    /// counts as lost and what its counters said is sent by the next flush.
    pub fn flush(&mut self, gauges: bool, send: &mut dyn FnMut(&[u8]) -> bool) -> Flushed {
        self.timings.flush += 1;
        let mut packer =
            Packer { max: self.max_datagram, send, flushed: Flushed::default(), datagram: Vec::new(), lines: 0 };
        let lines = Lines {
            name: self.prefix.clone(),
            prefix: self.prefix.len(),
            path: String::new(),
            above: Vec::new(),
            mark: String::new(),
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
        for (name, n) in writer.face.left {
            text.clear();
            text.extend_from_slice(&self.prefix);
            text.extend_from_slice(&name);
            push_counter(&mut text, n);
            packer.push(&text, &self.prefix, &self.unsent);
        }
        packer.send(&self.prefix, &self.unsent);
        let flush = self.timings.flush;
        self.timings.stats.retain(|_, timing| timing.flush == flush);
        packer.flushed
    }
}

impl Unsent {
    /// Takes over what a counter that is being pruned still had to say.
    pub(crate) fn pruned(&mut self, path: &[Name], slot: u32, value: u64) {
        let grown = self.grown(slot, value);
        self.last[slot as usize] = 0;
        if grown > 0 {
            let path: Vec<&str> = path.iter().map(Name::text).collect();
            let mut name = Vec::new();
            push_statsd(&mut name, &path.join("/"));
            self.leave(&name, grown);
        }
    }

    /// What a counter grew by since this was asked last.
    fn grown(&mut self, slot: u32, value: u64) -> u64 {
        let slot = slot as usize;
        if self.last.len() <= slot {
            self.last.resize(slot + 1, 0);
        }
        value.wrapping_sub(std::mem::replace(&mut self.last[slot], value))
    }

    fn leave(&mut self, name: &[u8], n: u64) {
        match self.left.get_mut(name) {
            Some(left) => *left += n,
            None => _ = self.left.insert(name.to_vec(), n),
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
                if let Some((name, n)) = read_counter(line) {
                    lock(unsent).leave(&name[prefix.len()..], n);
                }
            }
        }
        self.datagram.clear();
    }
}

/// Writes lines, without newlines between them, and remembers where each ends and how often it is sent.
struct Lines<'a> {
    /// The prefix, and the name that `path` comes to.
    name: Vec<u8>,
    prefix: usize,
    /// The keys, joined by slashes: two keys may have to be cleaned as one.
    path: String,
    above: Vec<usize>,
    /// What a name that is another's gets at its end: with a sign that no name of ours has.
    mark: String,
    gauges: bool,
    timings: &'a mut Timings,
    unsent: &'a Mutex<Unsent>,
    /// What the last flush left over: what is left over from now on is the next one's.
    left: HashMap<Vec<u8>, u64, RandomState>,
    ends: Vec<(usize, u64)>,
}

impl Lines<'_> {
    fn named(&mut self, out: &mut Vec<u8>) {
        self.name.truncate(self.prefix);
        push_statsd(&mut self.name, &self.path);
        self.name.extend_from_slice(self.mark.as_bytes());
        out.extend_from_slice(&self.name);
    }
}

/// The name of a gauge. Counters and timings of one name the server adds up, as it should.
pub(crate) fn series(path: &[&Name], kind: Kind) -> Vec<Vec<u8>> {
    if kind != Kind::Gauge {
        return Vec::new();
    }
    let path: Vec<&str> = path.iter().map(|n| n.text()).collect();
    let mut name = Vec::new();
    push_statsd(&mut name, &path.join("/"));
    vec![name]
}

impl Face for Lines<'_> {
    const WIRE: Option<Wire> = Some(Wire::Statsd);

    fn enter(&mut self, name: &Name, _out: &mut Vec<u8>) {
        self.above.push(self.path.len());
        if self.above.len() > 1 {
            self.path.push('/');
        }
        self.path.push_str(name.text());
    }

    fn counter(&mut self, slot: u32, value: u64, out: &mut Vec<u8>) {
        let mut grown = lock(self.unsent).grown(slot, value);
        if grown == 0 && self.left.is_empty() {
            return;
        }
        let start = out.len();
        self.named(out);
        if let Some(left) = self.left.remove(&self.name[self.prefix..]) {
            grown += left;
        }
        if grown == 0 {
            out.truncate(start);
        } else {
            push_counter(out, grown);
            self.ends.push((out.len(), 1));
        }
    }

    fn gauge(&mut self, value: f64, out: &mut Vec<u8>) {
        if !self.gauges || !value.is_finite() {
            return;
        }
        self.named(out);
        let number = decimal(value);
        if number.starts_with('-') {
            out.extend_from_slice(b":0|g\n");
            out.extend_from_slice(&self.name);
        }
        out.push(b':');
        out.extend_from_slice(number.as_bytes());
        out.extend_from_slice(b"|g");
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
        self.name.truncate(self.prefix);
        let (name, prefix, path, ends) = (&mut self.name, self.prefix, &self.path, &mut self.ends);
        let owed = &mut timing.owed;
        timing.seen.advance(cells.histograms(stat), |bucket, n| {
            *owed += *rate * n as f64;
            let lines = owed.floor();
            *owed -= lines;
            if lines < 1.0 {
                return;
            }
            if name.len() == prefix {
                push_statsd(name, path);
            }
            out.extend_from_slice(name);
            out.push(b':');
            push_u64(out, representative(bucket));
            out.extend_from_slice(suffix.as_bytes());
            ends.push((out.len(), lines as u64));
        });
    }

    fn mark(&mut self, nth: usize, _path: &str) {
        self.mark = format!("-{}", nth + 1);
    }

    fn unmark(&mut self) {
        self.mark.clear();
    }

    fn leave(&mut self, _out: &mut Vec<u8>) {
        self.path.truncate(self.above.pop().unwrap_or(0));
    }
}

/// The golden ratio's fraction: its multiples' fractions are spread evenly.
const GOLDEN: f64 = 0.618_033_988_749_894_9;

fn lock(unsent: &Mutex<Unsent>) -> MutexGuard<'_, Unsent> {
    unsent.lock().unwrap_or_else(PoisonError::into_inner)
}

fn clean(c: char) -> u8 {
    if c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-') { c as u8 } else { b'_' }
}

fn push_counter(out: &mut Vec<u8>, n: u64) {
    out.push(b':');
    push_u64(out, n);
    out.extend_from_slice(b"|c");
}

/// Name and number of a line that [`push_counter`] ended.
fn read_counter(line: &[u8]) -> Option<(&[u8], u64)> {
    let line = line.strip_suffix(b"|c")?;
    let colon = line.iter().rposition(|&b| b == b':')?;
    let n = std::str::from_utf8(&line[colon + 1..]).ok()?.parse().ok()?;
    Some((&line[..colon], n))
}

/// At most six decimals, half to even, no zeros at the end, no sign before a zero.
fn decimal(x: f64) -> String {
    let text = format!("{x:.6}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".into() } else { text.into() }
}
