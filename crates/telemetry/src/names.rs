//! The keys of the tree, each held once however many nodes carry it, with what the faces need to know about its text.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::collide::{Base, Letters};

/// The keys in use, by number.
pub(crate) struct Names {
    base: Base,
    list: Vec<Entry>,
    free: Vec<u32>,
    numbers: HashMap<Arc<str>, u32, RandomState>,
}

struct Entry {
    name: Name,
    letters: Letters,
    uses: u32,
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
}

impl Names {
    pub(crate) fn new() -> Self {
        Self { base: Base::new(), list: Vec::new(), free: Vec::new(), numbers: HashMap::default() }
    }

    pub(crate) fn base(&self) -> Base {
        self.base
    }

    pub(crate) fn letters(&self, number: u32) -> Letters {
        self.list[number as usize].letters
    }

    /// The number of a key, for one more user.
    pub(crate) fn take(&mut self, text: &str) -> u32 {
        if let Some(&number) = self.numbers.get(text) {
            self.list[number as usize].uses += 1;
            return number;
        }
        let entry = Entry { name: Name::new(text), letters: self.base.letters(text), uses: 1 };
        let key = entry.name.text.clone();
        let number = if let Some(number) = self.free.pop() {
            self.list[number as usize] = entry;
            number
        } else {
            self.list.push(entry);
            (self.list.len() - 1) as u32
        };
        self.numbers.insert(key, number);
        number
    }

    /// The number of a key that is in use.
    pub(crate) fn find(&self, text: &str) -> Option<u32> {
        self.numbers.get(text).copied()
    }

    /// Takes back one use.
    pub(crate) fn release(&mut self, number: u32) {
        let entry = &mut self.list[number as usize];
        entry.uses -= 1;
        if entry.uses == 0 {
            self.numbers.remove(&entry.name.text);
            entry.name.text = Arc::default();
            self.free.push(number);
        }
    }

    pub(crate) fn get(&self, number: u32) -> &Name {
        &self.list[number as usize].name
    }
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
