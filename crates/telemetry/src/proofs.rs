//! What loom proves: that nothing is lost and nothing counted twice when a worker counts and samples while others read,
//! tick and end. It tries every interleaving of the atomics and locks that `sync.rs` gives these files, and every value
//! that a relaxed load may see.
//!
//! ```sh
//! RUSTFLAGS="--cfg loom" cargo test -p l5d-telemetry --lib --release proofs
//! ```
//!
//! A worker is used through [`Local`] here, not through its thread's lane: loom's threads share one thread of the
//! system. What the lane adds is arithmetic, which `lane.rs` tests, and miri with it.

use std::sync::Arc;

use loom::thread::{self, JoinHandle};

use crate::cells::Local;
use crate::lane::sample_in;
use crate::stat::{StatCell, StatRef};
use crate::sync::Ordering;
use crate::tree::Shared;
use crate::{Counter, MetricsTree, Snapshotter};

/// Adds to a worker's own cell, as `lane::count` does.
fn count(local: &Local, slot: u32, n: u64) {
    let cell = local.cell(slot);
    cell.store(cell.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
}

/// Tries `f` in every interleaving of at least `least`: fewer would say that loom did not see the threads meet.
///
/// The worker is the thread that calls, and what reads is spawned. The first interleaving that loom tries runs the
/// caller up to where it waits; others it tries where it sees a load that comes after another thread's store. Where a
/// store comes after the other's load, the single writer's own load in between hides that from it.
fn model(least: u64, f: impl Fn() + Sync + Send + 'static) {
    let tried = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let mut builder = loom::model::Builder::new();
    // No bound: half a minute for all of them, optimised.
    builder.preemption_bound = None;
    let counted = tried.clone();
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        f();
    });
    let tried = tried.load(Ordering::Relaxed);
    println!("{tried} interleavings");
    assert!(tried >= least, "only {tried} interleavings were tried");
}

/// Samples and their sum, as the windows of all ticks come to.
#[derive(Default)]
struct Windows {
    count: u64,
    sum: u64,
}

fn tick(tree: &MetricsTree, stat: &StatCell, windows: &mut Windows) {
    Snapshotter::new(tree).tick();
    let window = stat.window().expect("the stat was there before the tick");
    windows.count += window.count;
    windows.sum += window.sum;
    // Each sample is 1: none is counted whose value is not in the sum.
    assert!(windows.sum >= windows.count, "{} samples came to {}", windows.count, windows.sum);
}

/// A stat, and a worker that has met it with the samples of these proofs.
fn sampled() -> (MetricsTree, Arc<StatCell>, Local) {
    let tree = MetricsTree::new();
    let stat = Shared::stat(tree.shared(), Some(tree.root_place()), "s").unwrap();
    let mut local = Local::enter(tree.shared());
    local.meet(stat.number(), 1);
    (tree, stat, local)
}

/// A counter with its number, and a worker that has a cell for it. Without the tree it would be read by a `OnceLock`, which
/// loom doesn't see into.
fn counted() -> (MetricsTree, Counter, u32, Local) {
    let tree = MetricsTree::new();
    let counter = tree.root().counter("c");
    let number = Shared::counter(tree.shared(), Some(tree.root_place()), "c").unwrap().number();
    let mut local = Local::enter(tree.shared());
    local.grow_cells(number);
    (tree, counter, number, local)
}

/// A thread that ticks once.
fn ticking(tree: &MetricsTree, stat: &Arc<StatCell>) -> JoinHandle<Windows> {
    let (tree, stat) = (tree.clone(), stat.clone());
    thread::spawn(move || {
        let mut windows = Windows::default();
        tick(&tree, &stat, &mut windows);
        windows
    })
}

/// What came to that thread's tick and to one more after it: whatever the first one saw, the second leaves nothing behind.
fn ended(ticker: JoinHandle<Windows>, tree: &MetricsTree, stat: &StatCell) -> Windows {
    let mut windows = ticker.join().unwrap();
    tick(tree, stat, &mut windows);
    windows
}

/// A thread that reads a counter twice, of which two is the most.
fn reading(counter: &Counter) -> JoinHandle<()> {
    let counter = counter.clone();
    thread::spawn(move || {
        let first = counter.value();
        let second = counter.value();
        assert!(first <= second && second <= 2, "from {first} to {second}");
    })
}

/// The rotation: a tick takes what came, while more comes.
#[test]
fn a_sample_is_in_one_window_and_in_one_only() {
    model(10, || {
        let (tree, stat, local) = sampled();
        let ticker = ticking(&tree, &stat);
        assert!(sample_in(local.entry(stat.number()), 1));
        assert!(sample_in(local.entry(stat.number()), 1));
        let windows = ended(ticker, &tree, &stat);
        assert_eq!((windows.count, windows.sum), (2, 2));
        assert_eq!((StatRef::new(&stat).count(), StatRef::new(&stat).sum()), (2, 2));
        local.leave();
    });
}

/// The same for threads that are no workers: they share the buckets and the list of what was touched.
#[test]
fn a_shared_sample_is_in_one_window_and_in_one_only() {
    model(10, || {
        let tree = MetricsTree::new();
        let stat = Shared::stat(tree.shared(), Some(tree.root_place()), "s").unwrap();
        // By a `OnceLock`, which loom doesn't see into.
        stat.base_or_new();
        let ticker = ticking(&tree, &stat);
        stat.add_shared(1);
        stat.add_shared(1);
        let windows = ended(ticker, &tree, &stat);
        assert_eq!((windows.count, windows.sum), (2, 2));
    });
}

/// The total that the modern faces show never goes down and ends complete, whatever ticks meanwhile.
#[test]
fn a_total_never_decreases() {
    model(10, || {
        let (tree, stat, local) = sampled();
        let total = |tree: &MetricsTree, stat: &StatCell| {
            let (buckets, _) = stat.total(&tree.shared().cells());
            buckets.iter().map(|(_, n)| n).sum::<u64>()
        };
        let reader = {
            let (tree, stat) = (tree.clone(), stat.clone());
            thread::spawn(move || {
                let first = total(&tree, &stat);
                Snapshotter::new(&tree).tick();
                let second = total(&tree, &stat);
                assert!(first <= second && second <= 2, "from {first} to {second}");
            })
        };
        assert!(sample_in(local.entry(stat.number()), 1));
        assert!(sample_in(local.entry(stat.number()), 1));
        local.leave();
        reader.join().unwrap();
        assert_eq!(total(&tree, &stat), 2);
    });
}

/// The end of a thread: its cells are folded while others read and count.
#[test]
fn a_count_is_there_once_while_its_thread_ends() {
    model(10, || {
        let (_tree, counter, number, local) = counted();
        let reader = reading(&counter);
        count(&local, number, 1);
        count(&local, number, 1);
        local.leave();
        reader.join().unwrap();
        assert_eq!(counter.value(), 2);
    });
}

/// A table that grows: what is in the small one is in the large one, whoever reads.
#[test]
fn a_count_is_there_once_while_its_table_grows() {
    model(10, || {
        let (_tree, counter, number, mut local) = counted();
        let reader = reading(&counter);
        count(&local, number, 1);
        local.replace_cells(number);
        count(&local, number, 1);
        reader.join().unwrap();
        assert_eq!(counter.value(), 2);
        local.leave();
        assert_eq!(counter.value(), 2);
    });
}

/// The same for a stat's buckets, which move from the small table into the large one.
#[test]
fn a_sample_is_in_one_window_while_its_table_grows() {
    model(10, || {
        let (tree, stat, mut local) = sampled();
        let ticker = ticking(&tree, &stat);
        assert!(sample_in(local.entry(stat.number()), 1));
        local.replace_stats(stat.number());
        assert!(sample_in(local.entry(stat.number()), 1));
        let windows = ended(ticker, &tree, &stat);
        assert_eq!((windows.count, windows.sum), (2, 2));
        local.leave();
    });
}

/// The end of a thread in the midst of a rotation.
#[test]
fn a_sample_is_in_one_window_when_its_thread_ends() {
    model(10, || {
        let (tree, stat, local) = sampled();
        let ticker = ticking(&tree, &stat);
        assert!(sample_in(local.entry(stat.number()), 1));
        local.leave();
        let windows = ended(ticker, &tree, &stat);
        assert_eq!((windows.count, windows.sum), (1, 1));
    });
}

/// A slot that is used again: what the old level's last handle leaves behind is not the new one's.
#[test]
fn a_slot_that_is_used_again_begins_at_zero() {
    model(10, || {
        let tree = MetricsTree::new();
        let old = Shared::level(tree.shared(), Some(tree.root_place()), "old").unwrap();
        let mut local = Local::enter(tree.shared());
        local.grow_cells(old.slot.number());
        count(&local, old.slot.number(), 1);
        let dropper = thread::spawn(move || drop(old));
        let new = Shared::level(tree.shared(), Some(tree.root_place()), "new").unwrap();
        local.grow_cells(new.slot.number());
        count(&local, new.slot.number(), 1);
        dropper.join().unwrap();
        assert_eq!(new.slot.value(), 1);
        local.leave();
        assert_eq!(new.slot.value(), 1);
    });
}

/// A stat that ends, while a worker has its buckets and a tick may be at it: everything is freed once, which loom sees
/// by the atomics that are touched after they are gone.
#[test]
fn a_stat_may_end_during_a_tick() {
    model(2, || {
        let (tree, stat, local) = sampled();
        assert!(sample_in(local.entry(stat.number()), 1));
        let ticker = {
            let tree = tree.clone();
            thread::spawn(move || Snapshotter::new(&tree).tick())
        };
        tree.root().prune();
        drop(Arc::clone(&stat));
        drop(stat);
        ticker.join().unwrap();
        local.leave();
    });
}
