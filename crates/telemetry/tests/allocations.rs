//! What allocates and what does not: counted by the allocator, in a process of its own.

#![allow(unsafe_code, reason = "an allocator is unsafe to write; this one hands everything on")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use l5d_telemetry::format::{influxdb, json, prometheus};
use l5d_telemetry::{MetricsTree, Page, Snapshotter};

struct Counting;

thread_local! {
    /// Calls for memory by this thread: others of the test harness's own don't count.
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: everything is handed to the system's allocator as it came; counting touches a thread-local without a
// destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.set(CALLS.get() + 1);
        // SAFETY: the caller's promise is the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as above; the memory is the system's.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn calls<T>(f: impl FnOnce() -> T) -> u64 {
    let before = CALLS.get();
    std::hint::black_box(f());
    CALLS.get() - before
}

/// Writes a page piece by piece into one buffer.
fn write(mut page: Box<dyn Page>, out: &mut Vec<u8>) -> usize {
    let mut bytes = 0;
    loop {
        out.clear();
        let more = page.fill(out);
        bytes += out.len();
        if !more {
            return bytes;
        }
    }
}

#[test]
fn counting_and_sampling_allocate_nothing_once_a_thread_has_met_them() {
    let tree = MetricsTree::new();
    let _worker = tree.enter_worker();
    let (counter, level, stat) = (tree.root().counter("c"), tree.root().level("l"), tree.root().stat("s"));
    let work = || {
        for i in 0..1000 {
            counter.incr();
            level.add(-1);
            stat.add(900 + i % 300);
        }
    };
    assert!(calls(work) > 0, "the first time there are tables to make");
    assert_eq!(calls(work), 0);
    Snapshotter::new(&tree).tick();
    assert_eq!(calls(work), 0);
}

#[test]
fn a_page_allocates_as_often_for_few_series_as_for_many() {
    let pages: [fn(&MetricsTree, &mut Vec<u8>) -> usize; 3] = [
        |tree, out| write(prometheus::page(tree, &prometheus::Options::default()), out),
        |tree, out| write(json::page(tree, &json::Options::default()).unwrap(), out),
        |tree, out| write(influxdb::page(tree, &influxdb::Options { host: "h".into(), integers: false }), out),
    ];
    let tree_of = |services: u32| {
        let tree = MetricsTree::new();
        for service in 0..services {
            let scope = tree.scope("rt").scope("http").scope("service").scope(&format!("svc/name-{service}"));
            (0..20).for_each(|metric| scope.counter(&format!("metric_{metric}")).incr());
        }
        tree
    };
    let (few, many) = (tree_of(100), tree_of(5000));
    for page in pages {
        let mut out = Vec::with_capacity(80 << 10);
        let mut bytes = [0; 2];
        let [few, many] = [(&few, 0), (&many, 1)].map(|(tree, at)| calls(|| bytes[at] = page(tree, &mut out)));
        // A piece may cost a few: what the cells' tables are, and the order of the families.
        let pieces = (bytes[1] / (60 << 10) + 1) as u64;
        assert!(many <= few + 4 * pieces, "{few} calls for 2000 series, {many} for 100000 in {pieces} pieces");
    }
}
