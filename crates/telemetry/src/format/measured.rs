//! What a face's pages cost: how often it was asked for, how much it wrote, how long that took.
//!
//! The metrics are under `telemetry/faces/<face>`, and so on every page, their own among them. A page counts as scraped
//! when it is begun, by its bytes and its time when it is over, whether or not it was read to its end. The time is that
//! of writing: a reader that takes its time is not the page's.

use std::time::{Duration, Instant};

use crate::counter::Counter;
use crate::format::Page;
use crate::stat::Stat;
use crate::tree::MetricsTree;

/// Measures the pages of one face.
#[derive(Clone, Debug)]
pub struct Scrapes {
    scrapes: Counter,
    bytes: Counter,
    duration_us: Stat,
}

struct Measured {
    page: Box<dyn Page>,
    scrapes: Scrapes,
    bytes: usize,
    spent: Duration,
}

impl Scrapes {
    /// Of the face with this name, in the tree's own `telemetry/faces`.
    pub fn new(tree: &MetricsTree, face: &str) -> Self {
        let scope = tree.scope("telemetry").scope("faces").scope(face);
        Self {
            scrapes: scope.counter("scrapes"),
            bytes: scope.counter("bytes"),
            duration_us: scope.stat("duration_us"),
        }
    }

    /// The same page, measured. It took `spent` to make it.
    pub fn measured(&self, page: Box<dyn Page>, spent: Duration) -> Box<dyn Page> {
        self.scrapes.incr();
        Box::new(Measured { page, scrapes: self.clone(), bytes: 0, spent })
    }
}

impl Page for Measured {
    fn fill(&mut self, out: &mut Vec<u8>) -> bool {
        let (begun, before) = (Instant::now(), out.len());
        let more = self.page.fill(out);
        self.bytes += out.len() - before;
        self.spent += begun.elapsed();
        more
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        self.scrapes.bytes.add(self.bytes as u64);
        self.scrapes.duration_us.add(self.spent.as_micros() as u64);
    }
}
