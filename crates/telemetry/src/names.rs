//! The keys of the tree, each held once however many nodes carry it, with what the faces need to know about its text.

use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::collide::{Base, IdTable, Letters};
use crate::format::prefetch;

/// The keys in use, by number.
pub(crate) struct Names {
    base: Base,
    names: Vec<Name>,
    /// The letters of each.
    letters: Vec<Letters>,
    /// How many nodes have it.
    uses: Vec<u32>,
    /// What the texts take.
    text: usize,
    free: Vec<u32>,
    /// One more than the number of each, by its text.
    numbers: IdTable,
    hasher: RandomState,
}

/// A key, with a note of which faces may print it as it is.
#[derive(Clone)]
pub(crate) struct Name {
    text: Arc<str>,
    plain: u8,
}

/// What a key may be printed as without looking at its bytes.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(crate) enum Plain {
    /// Part of a Prometheus metric name or an InfluxDB measurement.
    Key = 1,
    /// A Prometheus label value.
    Label = 2,
    /// A JSON string.
    Json = 4,
    /// An InfluxDB tag value or field key.
    Influx = 8,
    /// Part of a StatsD name.
    Statsd = 16,
}

impl Name {
    pub(crate) fn new(text: &str) -> Self {
        Self { text: text.into(), plain: plain(text) }
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn is(&self, plain: Plain) -> bool {
        self.plain & plain as u8 != 0
    }

    /// What its text takes, with the two counts of an `Arc`.
    fn bytes(&self) -> usize {
        self.text.len() + 2 * size_of::<usize>()
    }
}

impl Names {
    pub(crate) fn new() -> Self {
        Self {
            base: Base::new(),
            names: Vec::new(),
            letters: Vec::new(),
            uses: Vec::new(),
            text: 0,
            free: Vec::new(),
            numbers: IdTable::default(),
            hasher: RandomState::default(),
        }
    }

    pub(crate) fn base(&self) -> Base {
        self.base
    }

    pub(crate) fn letters(&self, number: u32) -> Letters {
        self.letters[number as usize]
    }

    /// The number of a key, for one more user.
    pub(crate) fn take(&mut self, text: &str) -> u32 {
        if let Some(number) = self.find(text) {
            return self.again(number);
        }
        let (name, letters) = (Name::new(text), self.base.letters(text));
        self.text += name.bytes();
        let number = if let Some(number) = self.free.pop() {
            (self.names[number as usize], self.letters[number as usize], self.uses[number as usize]) =
                (name, letters, 1);
            number
        } else {
            push(&mut self.names, name);
            push(&mut self.letters, letters);
            push(&mut self.uses, 1);
            (self.names.len() - 1) as u32
        };
        IdTable::change(self, Self::numbers, |numbers, names| {
            numbers.insert(names.hasher.hash_one(text), number + 1, |id| names.hash_of(id));
        });
        number
    }

    /// The number of a key that is known already, for one more user.
    pub(crate) fn again(&mut self, number: u32) -> u32 {
        self.uses[number as usize] += 1;
        number
    }

    /// The number of a key that is in use.
    pub(crate) fn find(&self, text: &str) -> Option<u32> {
        let mut numbers = self.numbers.candidates(self.hasher.hash_one(text)).map(|id| id - 1);
        numbers.find(|&number| self.names[number as usize].text() == text)
    }

    /// Takes back one use.
    pub(crate) fn release(&mut self, number: u32) {
        self.uses[number as usize] -= 1;
        if self.uses[number as usize] == 0 {
            IdTable::change(self, Self::numbers, |numbers, names| {
                numbers.remove(names.hash_of(number + 1), number + 1, |id| names.hash_of(id));
            });
            self.text -= self.names[number as usize].bytes();
            self.names[number as usize].text = Arc::default();
            self.free.push(number);
        }
    }

    pub(crate) fn get(&self, number: u32) -> &Name {
        &self.names[number as usize]
    }

    /// Has the text of a key brought near that was made a few after this one: whoever goes over the tree needs it soon, as
    /// keys are made in the order of their nodes, mostly.
    #[inline]
    pub(crate) fn prefetch_after(&self, number: u32) {
        /// Scopes of services and clients have one or two keys of their own.
        const AHEAD: usize = 4;
        if let Some(name) = self.names.get(number as usize + AHEAD) {
            let text = name.text().as_bytes();
            text.iter().step_by(64).chain(text.last()).for_each(prefetch);
        }
    }

    /// What they take.
    pub(crate) fn bytes(&self) -> usize {
        let lists = self.names.capacity() * size_of::<Name>()
            + self.letters.capacity() * size_of::<Letters>()
            + (self.uses.capacity() + self.free.capacity()) * size_of::<u32>();
        lists + self.text + self.numbers.bytes()
    }

    fn numbers(&mut self) -> &mut IdTable {
        &mut self.numbers
    }

    fn hash_of(&self, id: u32) -> u64 {
        self.hasher.hash_one(self.names[id as usize - 1].text())
    }
}

/// Adds to a list that may be long: it grows by an eighth, where a `Vec` would double.
pub(crate) fn push<T>(list: &mut Vec<T>, item: T) {
    if list.len() == list.capacity() {
        list.reserve_exact(list.len() / 8 + 4);
    }
    list.push(item);
}

fn plain(text: &str) -> u8 {
    let bytes = text.as_bytes();
    let all = |ok: fn(u8) -> bool| bytes.iter().all(|&b| ok(b));
    let mut plain = 0;
    let mut set = |face: Plain, is: bool| plain |= if is { face as u8 } else { 0 };
    set(Plain::Key, all(|b| b.is_ascii_alphanumeric() || b == b':' || b == b'_'));
    set(Plain::Label, all(|b| !matches!(b, b'\\' | b'"' | b'\n')));
    set(Plain::Json, all(|b| !matches!(b, b'\\' | b'"' | 0..=0x1f)));
    let short = bytes.len() <= crate::format::influxdb::LONGEST && text != "time";
    let influx = all(|b| !matches!(b, b',' | b'=' | b' ' | b'\\' | 0..=0x1f));
    set(Plain::Influx, short && influx && !bytes.is_empty());
    set(Plain::Statsd, all(|b| b.is_ascii_alphanumeric() || b == b'_') && !bytes.is_empty());
    plain
}
