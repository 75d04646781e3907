//! Metrics whose names become one on the wire.
//!
//! `a.b` and `a_b` are two metrics and, to Prometheus, one name; a second line for a series may be dropped by the reader
//! or fail its whole scrape. So no face writes one twice: counters that come to one series are written once, as their
//! sum; of all else the first made keeps the name and the others get a telling label or a suffix.
//!
//! It is found out when a metric is made, which is rare, and not when a page is written. Each metric is listed under a
//! hash of its letters and digits, all that any face keeps of a name; metrics with the same letters are suspects, and the
//! faces say whether they really write the same. A stat writes names with endings: it is looked for among the metrics whose
//! names have such an ending, which are few and listed once more, and what has an ending is looked for without it.
//! A tree without clashes pays six to eleven bytes per metric, and a look at an empty map per line.
//!
//! Not covered: a group that changes between two pieces of one page, where the metric that stood for it was written and
//! goes, and the next takes its place in what is left of the page.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use crate::format::{influxdb, json, prometheus, statsd};
use crate::names::Name;

/// A face that writes a path as one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    Prometheus,
    Influx,
    Json,
    Statsd,
    /// StatsD in a flavour with tags.
    StatsdTags,
}

/// What a metric is, as far as its lines' names depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Counter,
    Gauge,
    Stat,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Stat => "stat",
        }
    }
}

impl Wire {
    const ALL: [Self; 5] = [Self::Prometheus, Self::Influx, Self::Json, Self::Statsd, Self::StatsdTags];

    /// Every series a metric is written as.
    fn series(self, path: &[&Name], kind: Kind) -> Vec<Vec<u8>> {
        match self {
            Self::Prometheus => prometheus::series(path, kind),
            Self::Influx => influxdb::series(path, kind),
            Self::Json => json::series(path, kind),
            Self::Statsd => statsd::series(path, kind, false),
            Self::StatsdTags => statsd::series(path, kind, true),
        }
    }
}

/// The faces in which two metrics write a series in common.
pub(crate) fn clashing(a: (&[&Name], Kind), b: (&[&Name], Kind)) -> Vec<Wire> {
    let both = |wire: &Wire| {
        let theirs = wire.series(b.0, b.1);
        wire.series(a.0, a.1).iter().any(|s| theirs.contains(s))
    };
    Wire::ALL.into_iter().filter(both).collect()
}

/// Which nodes clash, in each face: every member of a group leads to the whole of it, the first made first.
#[derive(Default)]
pub(crate) struct Clashes {
    groups: [HashMap<u32, Arc<Vec<u32>>>; 5],
}

impl Clashes {
    #[inline]
    pub(crate) fn group(&self, wire: Wire, node: u32) -> Option<&[u32]> {
        let groups = &self.groups[wire as usize];
        if groups.is_empty() { None } else { groups.get(&node).map(|g| g.as_slice()) }
    }

    /// Whether none do.
    pub(crate) fn none(&self, wire: Wire) -> bool {
        self.groups[wire as usize].is_empty()
    }

    /// Notes that two nodes clash, of which `new` was made last.
    pub(crate) fn join(&mut self, wire: Wire, old: u32, new: u32) {
        let groups = &mut self.groups[wire as usize];
        let of = |node: u32| groups.get(&node).map_or_else(|| vec![node], |g| g.to_vec());
        let mut members = of(old);
        for member in of(new) {
            if !members.contains(&member) {
                members.push(member);
            }
        }
        let members = Arc::new(members);
        for &member in members.iter() {
            groups.insert(member, members.clone());
        }
    }

    /// Forgets a node.
    pub(crate) fn part(&mut self, node: u32) {
        for groups in &mut self.groups {
            let Some(group) = groups.remove(&node) else { continue };
            let rest: Arc<Vec<u32>> = Arc::new(group.iter().copied().filter(|&n| n != node).collect());
            for &member in rest.iter() {
                if rest.len() > 1 {
                    groups.insert(member, rest.clone());
                } else {
                    groups.remove(&member);
                }
            }
        }
    }
}

/// The hash of a text's letters and digits: a polynomial, so that the hash of two texts in a row is made from theirs.
#[derive(Clone, Copy)]
pub(crate) struct Letters {
    hash: u64,
    /// The base to the power of how many letters there are.
    power: u64,
}

/// The base of a tree's hashes, unknown outside.
#[derive(Clone, Copy)]
pub(crate) struct Base {
    base: u64,
    /// The letters of each ending, and what their power is undone by.
    endings: [(Letters, u64); ENDINGS.len()],
}

/// The endings of the names that a stat is written as, in any face.
const ENDINGS: [&str; 12] = ["count", "sum", "avg", "min", "max", "p50", "p90", "p95", "p99", "p999", "p9990", "p9999"];

/// How many letters the longest ending has.
const LONGEST: usize = 5;

impl Base {
    pub(crate) fn new() -> Self {
        let mut new = Self { base: RandomState::new().hash_one(0) | 1, endings: [(Letters::NONE, 1); ENDINGS.len()] };
        new.endings = ENDINGS.map(|ending| {
            let letters = new.letters(ending);
            (letters, inverse(letters.power))
        });
        new
    }

    pub(crate) fn letters(self, text: &str) -> Letters {
        let mut all = Letters::NONE;
        for byte in spelled(text).bytes().filter(u8::is_ascii_alphanumeric) {
            all = Letters {
                hash: all.hash.wrapping_mul(self.base).wrapping_add(byte.into()),
                power: all.power.wrapping_mul(self.base),
            };
        }
        all
    }

    /// The letters of these with each ending behind them: what else a stat of these letters is written as.
    pub(crate) fn with_endings(self, letters: Letters) -> impl Iterator<Item = u64> {
        self.endings.into_iter().map(move |(ending, _)| ending.after(letters).hash)
    }

    /// The letters of these without the ending that they have: the stat that is written so.
    pub(crate) fn without(self, letters: Letters, ending: Ending) -> u64 {
        let (ending, undone) = self.endings[ending.0];
        letters.hash.wrapping_sub(ending.hash).wrapping_mul(undone)
    }
}

/// One of [`ENDINGS`]; none of them ends with another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ending(usize);

impl Ending {
    /// The ending that a path's letters have, told its keys from the last one on.
    pub(crate) fn of<'a>(keys: impl Iterator<Item = &'a str>) -> Option<Self> {
        let mut tail = [0; LONGEST];
        let letters = keys.flat_map(|key| spelled(key).bytes().rev()).filter(u8::is_ascii_alphanumeric);
        for (place, letter) in tail.iter_mut().rev().zip(letters) {
            *place = letter;
        }
        ENDINGS.iter().position(|ending| tail.ends_with(ending.as_bytes())).map(Self)
    }
}

/// A key as all faces write it but for what is no letter: there is one that they write as another.
fn spelled(key: &str) -> &str {
    if key == "exn" { "exceptions" } else { key }
}

impl Letters {
    pub(crate) const NONE: Self = Self { hash: 0, power: 1 };

    /// These letters with others before them.
    pub(crate) fn after(self, before: Self) -> Self {
        Self {
            hash: before.hash.wrapping_mul(self.power).wrapping_add(self.hash),
            power: before.power.wrapping_mul(self.power),
        }
    }

    pub(crate) fn hash(self) -> u64 {
        self.hash
    }
}

/// What an odd number is multiplied with to give 1, by Newton's way: each step doubles the bits that are right.
fn inverse(odd: u64) -> u64 {
    let mut x = odd;
    for _ in 0..5 {
        x = x.wrapping_mul(2_u64.wrapping_sub(odd.wrapping_mul(x)));
    }
    x
}

/// A hash table of node numbers, four bytes each: what a number's hash is the caller can tell from the node.
///
/// That takes long, and a full table has long rows of numbers whose hash is another; so a byte beside each tells nearly
/// all of those apart.
#[derive(Default)]
pub(crate) struct IdTable {
    /// 0 is an empty place: the root is in no table.
    places: Vec<u32>,
    /// Eight bits of each number's hash.
    tags: Vec<u8>,
    len: usize,
}

impl IdTable {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Changes a table that is a part of `owner`, who alone can tell the hashes of the others in it.
    pub(crate) fn change<T>(owner: &mut T, table: fn(&mut T) -> &mut Self, change: impl FnOnce(&mut Self, &T)) {
        let mut taken = std::mem::take(table(owner));
        change(&mut taken, owner);
        *table(owner) = taken;
    }

    /// What it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.places.capacity() * size_of::<u32>() + self.tags.capacity()
    }

    /// The numbers whose hash may be this one, and some others.
    pub(crate) fn candidates(&self, hash: u64) -> impl Iterator<Item = u32> {
        let tag = tag(hash);
        self.row(hash).filter(move |&(_, other)| other == tag).map(|(id, _)| id)
    }

    /// The numbers, with their tags, from where one of this hash would stand up to the first empty place.
    fn row(&self, hash: u64) -> impl Iterator<Item = (u32, u8)> {
        let start = if self.places.is_empty() { 0 } else { self.start(hash) };
        let from = |at: std::ops::Range<usize>| self.places[at.clone()].iter().zip(&self.tags[at]);
        from(start..self.places.len()).chain(from(0..start)).map(|(&id, &tag)| (id, tag)).take_while(|&(id, _)| id != 0)
    }

    pub(crate) fn insert(&mut self, hash: u64, id: u32, hash_of: impl Fn(u32) -> u64) {
        if (self.len + 1) * 8 > self.places.len() * 7 {
            let larger = vec![0; (self.places.len() * 2).max(16)];
            self.tags = vec![0; larger.len()];
            for id in std::mem::replace(&mut self.places, larger) {
                if id != 0 {
                    self.put(hash_of(id), id);
                }
            }
        }
        self.put(hash, id);
        self.len += 1;
    }

    pub(crate) fn remove(&mut self, hash: u64, id: u32, hash_of: impl Fn(u32) -> u64) {
        let mask = self.places.len().wrapping_sub(1);
        let Some(offset) = self.row(hash).position(|(i, _)| i == id) else { return };
        let mut hole = (self.start(hash) + offset) & mask;
        self.places[hole] = 0;
        self.len -= 1;
        // Whoever stands behind the hole and could have stood in it moves up, so that no search stops short.
        let mut at = (hole + 1) & mask;
        while self.places[at] != 0 {
            let home = self.start(hash_of(self.places[at]));
            if (at.wrapping_sub(home) & mask) >= (at.wrapping_sub(hole) & mask) {
                self.places[hole] = std::mem::take(&mut self.places[at]);
                self.tags[hole] = self.tags[at];
                hole = at;
            }
            at = (at + 1) & mask;
        }
    }

    fn put(&mut self, hash: u64, id: u32) {
        let mask = self.places.len() - 1;
        let mut at = self.start(hash);
        while self.places[at] != 0 {
            at = (at + 1) & mask;
        }
        self.places[at] = id;
        self.tags[at] = tag(hash);
    }

    fn start(&self, hash: u64) -> usize {
        // The high bits of a product mix all bits of the hash.
        (mixed(hash) >> 32) as usize & (self.places.len() - 1)
    }
}

fn mixed(hash: u64) -> u64 {
    hash.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

fn tag(hash: u64) -> u8 {
    (mixed(hash) >> 56) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn hashes_of_parts_make_the_hash_of_the_whole(a in "[a-z_/]{0,12}", b in "[a-z_/]{0,12}") {
            let base = Base::new();
            prop_assume!(a != "exn" && b != "exn" && format!("{a}{b}") != "exn");
            let whole = base.letters(&format!("{a}{b}"));
            prop_assert_eq!(base.letters(&b).after(base.letters(&a)).hash, whole.hash);
            let stat = base.letters(&a);
            for ending in ENDINGS {
                let other = base.letters(&format!("{a}_{ending}"));
                prop_assert!(base.with_endings(stat).any(|h| h == other.hash));
                // However the ending is spread over the keys.
                for at in 0..=ending.len() {
                    let keys = [ending[at..].to_owned(), format!("{a}_{}", &ending[..at])];
                    prop_assume!(keys.iter().all(|key| key != "exn"));
                    let found = Ending::of(keys.iter().map(String::as_str)).unwrap();
                    prop_assert_eq!(base.without(other, found), stat.hash);
                }
            }
        }

        #[test]
        fn what_has_no_ending_has_none(keys in prop::collection::vec("[a-z0-9/.é]{0,6}", 0..3)) {
            let path: String = keys.iter().map(|key| if key == "exn" { "exceptions" } else { key }).collect();
            let letters: String = path.chars().filter(char::is_ascii_alphanumeric).collect();
            let expected = ENDINGS.iter().position(|ending| letters.ends_with(ending)).map(Ending);
            prop_assert_eq!(Ending::of(keys.iter().rev().map(String::as_str)), expected);
        }

        #[test]
        fn a_table_has_what_was_put_in_and_not_taken_out(acts in prop::collection::vec((any::<bool>(), 1..60_u32), 1..200)) {
            // Few hashes, so that numbers stand in each other's way.
            let hash_of = |id: u32| u64::from(id % 7);
            let mut table = IdTable::default();
            let mut expected = BTreeSet::new();
            for (put, id) in acts {
                if put && expected.insert(id) {
                    table.insert(hash_of(id), id, hash_of);
                } else if !put {
                    expected.remove(&id);
                    table.remove(hash_of(id), id, hash_of);
                }
                prop_assert_eq!(table.len(), expected.len());
                for id in 1..60 {
                    let found = table.candidates(hash_of(id)).filter(|&i| i == id).count();
                    prop_assert_eq!(found, usize::from(expected.contains(&id)));
                }
            }
        }
    }
}
