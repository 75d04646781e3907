//! The numbers behind counters and levels, and the threads that write them.
//!
//! A number is a *slot*: an index that every table of cells shares. Each worker thread has a table of its own and is the
//! only writer of its cells, so that an increment is a plain load and a plain store on a cache line nobody else touches.
//! All other threads share the slot's *base* cell, an atomic. The value is the base plus every worker's cell, wrapping:
//! a level's negative part is a large unsigned number that the sum takes back.
//!
//! Who writes: a worker's cell, its thread, while the worker lives. The base, anybody. Zeroing a slot for reuse, whoever
//! drops the last handle: then no writer is left, and whoever gets the slot next gets it through the tree's lock.
//! Folding a finished worker into the base happens under the write lock of `Cells`, so that a reader, who holds its read
//! lock, sees a count in one place or in the other. A worker takes that lock to put a larger table in place of its own.
//!
//! Relaxed is enough everywhere but for the last handle's drop: a count has no companion that it must agree with.
//!
//! What it costs: a counter has 4 bytes here, 8 in the table of each worker, and 8 more when it shares a page of 1024
//! with one that a thread counted which was no worker. How a thread finds its own table is `lane.rs`, the tables are
//! `table.rs`; `proofs.rs` has loom try what happens when readers, ticks and ends of threads meet.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::sync::{Arc, OnceLock, PoisonError, Weak};

use crate::format::prefetch;
use crate::histogram::Histogram;
use crate::lane::{self, Serial};
use crate::stat::StatCell;
use crate::sync::{AtomicU32, AtomicU64, Mutex, MutexGuard, Ordering, RwLock, RwLockReadGuard, lock};
use crate::table::{CellTable, StatTable};
use crate::tree::Shared;

/// Slots in a page.
#[cfg(not(loom))]
const PAGE: usize = 1024;
#[cfg(loom)]
const PAGE: usize = 2;

/// The shared side of a page of slots: what threads that are no workers counted, what finished workers left, and how
/// many handles each slot has. A handle holds its page, so it can be written after the tree is gone.
pub(crate) struct SlotPage {
    tree: Weak<Shared>,
    first: u32,
    base: OnceLock<Box<[AtomicU64]>>,
    handles: Box<[AtomicU32]>,
}

/// Every cell of a tree.
#[derive(Default)]
pub(crate) struct Cells {
    slots: Vec<Arc<SlotPage>>,
    workers: Vec<Worker>,
    /// Stats by their number, to find where a finished worker's buckets belong.
    stats: Vec<Weak<StatCell>>,
    next_worker: u64,
}

/// The reader's view of a worker's tables.
struct Worker {
    number: u64,
    cells: Arc<CellTable>,
    stats: Arc<StatTable>,
}

/// The worker's own view, in its thread.
pub(crate) struct Local {
    tree: Arc<Shared>,
    number: u64,
    cells: Arc<CellTable>,
    stats: Arc<StatTable>,
}

/// The trees that a thread is a worker of. Almost always one; the last entered has the lane.
struct Locals(Vec<Local>);

thread_local! {
    static WORKER: RefCell<Locals> = const { RefCell::new(Locals(Vec::new())) };
}

/// A reference to a slot; the last one returns it for reuse.
pub(crate) struct Slot {
    page: Arc<SlotPage>,
    /// Its number, as `lane.rs` wants it.
    key: usize,
}

/// While this lives, handles of its tree that are used on this thread write to cells of the thread's own. Dropping it
/// folds what they hold into the shared cells. It can't leave its thread.
#[must_use = "the thread stops being a worker when this is dropped"]
pub struct WorkerGuard {
    /// `None` when the thread was a worker of this tree already.
    number: Option<u64>,
    tree: Arc<Shared>,
    _not_send: PhantomData<*const ()>,
}

impl Slot {
    fn new(page: Arc<SlotPage>, serial: Serial, number: u32) -> Self {
        Self { page, key: serial.key::<AtomicU64>(number) }
    }

    #[inline]
    pub(crate) fn add(&self, n: u64) {
        if !lane::count(self.key, n) {
            self.add_slowly(n);
        }
    }

    /// The thread's table is too short, or it is no worker of this tree.
    #[cold]
    #[inline(never)]
    fn add_slowly(&self, n: u64) {
        // So that the compiler hands over `self` as it is, and not its fields, loaded before it is known that they are
        // needed.
        std::hint::black_box(self);
        let grown = Locals::with_lane_of(&self.page.tree, |local| local.grow_cells(self.number()));
        if grown.is_none() || !lane::count(self.key, n) {
            self.add_shared(n);
        }
    }

    fn add_shared(&self, n: u64) {
        self.page.base()[self.at()].fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn value(&self) -> u64 {
        match self.page.tree.upgrade() {
            Some(tree) => tree.cells().sum(self.number()),
            None => self.page.base.get().map_or(0, |base| base[self.at()].load(Ordering::Relaxed)),
        }
    }

    pub(crate) fn number(&self) -> u32 {
        self.page.first + self.at() as u32
    }

    /// The place in its page, which begins at a multiple of its length.
    fn at(&self) -> usize {
        self.key / size_of::<AtomicU64>() % PAGE
    }

    /// Whether this is the only handle.
    pub(crate) fn is_last(&self) -> bool {
        // Acquire: what the other handles wrote comes before.
        self.page.handles[self.at()].load(Ordering::Acquire) == 1
    }

    /// One more handle of a slot that has one.
    pub(crate) fn again(tree: &Shared, number: u32) -> Self {
        let slot = Self::adopt(tree, number);
        slot.hold();
        slot
    }

    /// Counts one more handle, which is [`adopt`](Self::adopt)ed by its number later. Until then the tree keeps it.
    pub(crate) fn hold(&self) -> u32 {
        self.page.handles[self.at()].fetch_add(1, Ordering::Relaxed);
        self.number()
    }

    /// The handle that was [held](Self::hold) by its number.
    pub(crate) fn adopt(tree: &Shared, number: u32) -> Self {
        Self::new(tree.cells().slots[number as usize / PAGE].clone(), tree.serial(), number)
    }
}

impl Clone for Slot {
    fn clone(&self) -> Self {
        self.hold();
        Self { page: self.page.clone(), key: self.key }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // Release, then Acquire by the last one: what the other handles wrote comes before the zeroing.
        if self.page.handles[self.at()].fetch_sub(1, Ordering::AcqRel) == 1
            && let Some(tree) = self.page.tree.upgrade()
        {
            tree.cells().zero(self.number());
            tree.free_slots().push(self.number());
        }
    }
}

impl SlotPage {
    fn base(&self) -> &[AtomicU64] {
        self.base.get_or_init(|| std::iter::repeat_with(AtomicU64::default).take(PAGE).collect())
    }
}

impl Locals {
    /// Calls `f` with what this thread has of the tree, if its lane is that tree's; afterwards the lane has the tables
    /// that `f` may have changed.
    fn with_lane_of<T>(tree: &Weak<Shared>, f: impl FnOnce(&mut Local) -> T) -> Option<T> {
        let worked = WORKER.try_with(|locals| {
            // An allocator that counts may come here while this thread is here already.
            let mut locals = locals.try_borrow_mut().ok()?;
            let local =
                locals.0.last_mut().filter(|l| l.has_lane() && std::ptr::eq(Arc::as_ptr(&l.tree), tree.as_ptr()))?;
            // What counts meanwhile, as an allocator may, must not count in a table that is being copied or freed.
            lane::leave();
            let out = f(local);
            locals.set_lane();
            Some(out)
        });
        worked.ok().flatten()
    }

    /// Gives the thread's lane to the last local.
    #[expect(unsafe_code, reason = "the lane is told whose tables it leads to")]
    fn set_lane(&self) {
        match self.0.last() {
            // SAFETY: the local keeps the tables, and stays in this list until `take` or `drop`, both of which set the
            // lane anew before it goes; tables are changed by `with_lane_of` only, which does the same. Only the thread
            // whose lane it is makes tables with its number and writes to them; `fold`, which takes histograms, comes
            // after `take`. A histogram is freed by `unlist_stat` when no handle of its stat is left.
            Some(local) if local.has_lane() => unsafe { lane::enter(local.tree.serial(), &local.cells, &local.stats) },
            _ => lane::leave(),
        }
    }

    fn put(&mut self, local: Local) {
        self.0.push(local);
        self.set_lane();
    }

    fn take(&mut self, tree: &Arc<Shared>, number: u64) -> Option<Local> {
        let at = self.0.iter().position(|l| l.number == number && Arc::ptr_eq(&l.tree, tree))?;
        let local = self.0.remove(at);
        self.set_lane();
        Some(local)
    }
}

impl Drop for Locals {
    /// The thread ends, and a guard was forgotten: what is dropped after this still may count.
    fn drop(&mut self) {
        lane::leave();
    }
}

impl Local {
    pub(crate) fn enter(tree: &Arc<Shared>) -> Self {
        let (cells, stats) = (Arc::new(CellTable::new()), Arc::new(StatTable::new()));
        let number = tree.change_cells(|all| {
            all.next_worker += 1;
            all.workers.push(Worker { number: all.next_worker, cells: cells.clone(), stats: stats.clone() });
            all.next_worker
        });
        Self { tree: tree.clone(), number, cells, stats }
    }

    fn has_lane(&self) -> bool {
        self.tree.serial().has_lanes()
    }

    /// Sees to it that a slot has a cell.
    pub(crate) fn grow_cells(&mut self, slot: u32) {
        if (slot as usize) < self.cells.cells().len() {
            return;
        }
        self.replace_cells(slot);
    }

    pub(crate) fn replace_cells(&mut self, slot: u32) {
        self.tree.change_cells(|all| {
            // Under the lock, as somebody may be zeroing a slot.
            self.cells = Arc::new(self.cells.with(slot as usize));
            all.worker(self.number).cells = self.cells.clone();
        });
    }

    /// Sees to it that a stat has room for a value.
    pub(crate) fn meet(&mut self, stat: u32, value: u64) {
        if stat as usize >= self.stats.entries().len() {
            self.replace_stats(stat);
        }
        let entry = &self.stats.entries()[stat as usize];
        if entry.histogram.load(Ordering::Relaxed).is_null() {
            entry.set(Histogram::new());
        }
        if let Some(histogram) = entry.histogram() {
            histogram.make_room(value);
        }
    }

    pub(crate) fn replace_stats(&mut self, stat: u32) {
        self.tree.change_cells(|all| {
            // Under the lock, as somebody may be reading, or freeing a stat's histogram.
            self.stats = Arc::new(self.stats.with(stat as usize));
            all.worker(self.number).stats = self.stats.clone();
        });
    }

    #[cfg(loom)]
    pub(crate) fn cell(&self, slot: u32) -> &AtomicU64 {
        &self.cells.cells()[slot as usize]
    }

    #[cfg(loom)]
    pub(crate) fn entry(&self, stat: u32) -> &crate::table::Entry {
        &self.stats.entries()[stat as usize]
    }

    #[cfg(loom)]
    pub(crate) fn leave(self) {
        drop(self.tree.change_cells(|cells| cells.fold(self.number)));
    }
}

/// Adds a sample in this thread's own buckets of a stat that it hasn't met with such a value; false when the thread is no worker of its
/// tree.
pub(crate) fn meet(stat: &StatCell, key: usize, value: u64) -> bool {
    Locals::with_lane_of(stat.tree(), |local| local.meet(stat.number(), value)).is_some() && lane::sample(key, value)
}

impl Cells {
    /// The value of a slot.
    #[inline]
    pub(crate) fn sum(&self, slot: u32) -> u64 {
        let (page, at) = (slot as usize / PAGE, slot as usize % PAGE);
        let mut sum = self.slots[page].base.get().map_or(0, |base| base[at].load(Ordering::Relaxed));
        for worker in &self.workers {
            if let Some(cell) = worker.cells.cells().get(slot as usize) {
                sum = sum.wrapping_add(cell.load(Ordering::Relaxed));
            }
        }
        sum
    }

    /// For reading many slots.
    pub(crate) fn reader(&self) -> Reader<'_> {
        Reader { slots: &self.slots, tables: self.workers.iter().map(|w| w.cells.cells()).collect() }
    }

    /// What is written of a stat, wherever it is.
    pub(crate) fn histograms<'a>(&'a self, stat: &'a StatCell) -> impl Iterator<Item = &'a Histogram> + Clone {
        let number = stat.number() as usize;
        let workers = self.workers.iter().filter_map(move |w| w.stats.entries().get(number)?.histogram());
        stat.base().into_iter().chain(workers)
    }

    /// How many samples came to a stat, going round, from a beginning that is not always 0. All that are counted here
    /// are in its [`histograms`](Self::histograms), where a few more may be.
    pub(crate) fn samples(&self, stat: &StatCell) -> u32 {
        let number = stat.number() as usize;
        let entries = self.workers.iter().filter_map(|worker| worker.stats.entries().get(number));
        // Acquire: sees the samples that were counted.
        entries.fold(stat.base_samples(), |sum, entry| sum.wrapping_add(entry.samples.load(Ordering::Acquire)))
    }

    /// The stat with this number, if it is alive.
    pub(crate) fn stat(&self, number: u32) -> Option<Arc<StatCell>> {
        self.stats.get(number as usize)?.upgrade()
    }

    /// Takes the numbers of the stats that workers added samples to since this was called last. What is added from now
    /// on is in the next call's; what a number was returned for can be read.
    pub(crate) fn take_touched(&self, into: &mut Vec<u32>) {
        for worker in &self.workers {
            for (number, entry) in worker.stats.entries().iter().take(self.stats.len()).enumerate() {
                if entry.take_touched() {
                    into.push(number as u32);
                }
            }
        }
    }

    /// What they take, but for the buckets of stats.
    pub(crate) fn bytes(&self) -> usize {
        let numbers = self.slots.len() * PAGE;
        let shared = self.slots.iter().map(|page| match page.base.get() {
            Some(_) => PAGE * (size_of::<AtomicU64>() + size_of::<AtomicU32>()),
            None => PAGE * size_of::<AtomicU32>(),
        });
        let own = self.workers.iter().map(|worker| {
            worker.cells.cells().len().min(numbers) * size_of::<AtomicU64>()
                + worker.stats.entries().len().min(self.stats.len()) * size_of::<crate::table::Entry>()
        });
        shared.sum::<usize>() + own.sum::<usize>() + self.stats.capacity() * size_of::<Weak<StatCell>>()
    }

    /// Lists a new stat under its number.
    pub(crate) fn list_stat(&mut self, number: u32, stat: Weak<StatCell>) {
        let number = number as usize;
        if self.stats.len() <= number {
            self.stats.resize_with(number + 1, Weak::new);
        }
        self.stats[number] = stat;
    }

    /// Forgets a stat that nobody holds any more.
    pub(crate) fn unlist_stat(&mut self, number: u32) {
        self.stats[number as usize] = Weak::new();
        for worker in &self.workers {
            if let Some(entry) = worker.stats.entries().get(number as usize) {
                drop(entry.clear());
            }
        }
    }

    fn worker(&mut self, number: u64) -> &mut Worker {
        let worker = self.workers.iter_mut().find(|w| w.number == number);
        worker.expect("a worker is listed while its guard lives")
    }

    /// Only when no handle of the slot is left. A read lock does: it keeps folding and growing away.
    fn zero(&self, slot: u32) {
        let (page, at) = (slot as usize / PAGE, slot as usize % PAGE);
        if let Some(base) = self.slots[page].base.get() {
            base[at].store(0, Ordering::Relaxed);
        }
        for worker in &self.workers {
            if let Some(cell) = worker.cells.cells().get(slot as usize) {
                cell.store(0, Ordering::Relaxed);
            }
        }
    }

    /// Takes a worker's counts into the base. Returns stats that were kept alive meanwhile: for the caller to drop when
    /// it holds no lock.
    fn fold(&mut self, number: u64) -> Vec<Arc<StatCell>> {
        let Some(at) = self.workers.iter().position(|w| w.number == number) else { return Vec::new() };
        let worker = self.workers.swap_remove(at);
        for (page, cells) in self.slots.iter().zip(worker.cells.cells().chunks(PAGE)) {
            for (at, cell) in cells.iter().enumerate() {
                let n = cell.load(Ordering::Relaxed);
                if n != 0 {
                    page.base()[at].fetch_add(n, Ordering::Relaxed);
                }
            }
        }
        let mut kept = Vec::new();
        for (stat, entry) in self.stats.iter().zip(worker.stats.entries()) {
            if let (Some(stat), Some(histogram)) = (stat.upgrade(), entry.clear()) {
                stat.base_or_new().absorb(&histogram);
                stat.add_base_samples(entry.samples.load(Ordering::Relaxed));
                if entry.is_touched() {
                    stat.touch_base();
                }
                kept.push(stat);
            }
        }
        kept
    }
}

/// The cells of a tree, laid out for a reader of many.
pub(crate) struct Reader<'a> {
    slots: &'a [Arc<SlotPage>],
    tables: Vec<&'a [AtomicU64]>,
}

impl Reader<'_> {
    /// The value of a slot.
    #[inline(always)]
    pub(crate) fn sum(&self, slot: u32) -> u64 {
        let slot = slot as usize;
        let base = self.slots[slot / PAGE].base.get();
        let base = base.map_or(0, |base| base[slot % PAGE].load(Ordering::Relaxed));
        let cells = self.tables.iter().filter_map(|table| table.get(slot));
        cells.fold(base, |sum, cell| sum.wrapping_add(cell.load(Ordering::Relaxed)))
    }

    /// The values of some slots, which are mostly in a row.
    #[inline]
    pub(crate) fn sums(&self, slots: &[u32], values: &mut [u64]) {
        let Some(&first) = slots.first() else { return };
        // Without a way out, so that several are looked at together.
        let scattered = slots.iter().zip(first..).fold(0, |all, (&slot, in_a_row)| all | (slot ^ in_a_row));
        let (first, end) = (first as usize, first as usize + slots.len());
        if scattered != 0 || first / PAGE != (end - 1) / PAGE {
            for (value, &slot) in values.iter_mut().zip(slots) {
                *value = self.sum(slot);
            }
            return;
        }
        values.fill(0);
        let base = self.slots[first / PAGE].base.get().map(|base| &base[first % PAGE..]);
        let tables = self.tables.iter().map(|table| &table[first.min(table.len())..end.min(table.len())]);
        for cells in base.into_iter().chain(tables) {
            for (value, cell) in values.iter_mut().zip(cells) {
                *value = value.wrapping_add(cell.load(Ordering::Relaxed));
            }
        }
    }

    /// Has the cells of a slot brought near.
    #[inline(always)]
    pub(crate) fn prefetch(&self, slot: u32) {
        self.tables.iter().filter_map(|table| table.get(slot as usize)).for_each(prefetch);
    }
}

/// The cells and what hands them out: the part of a tree that handles reach.
#[derive(Default)]
pub(crate) struct CellStore {
    cells: RwLock<Cells>,
    free: Mutex<Vec<u32>>,
    /// Stats whose shared buckets gained samples since the last tick took this.
    touched: Mutex<Vec<u32>>,
}

impl CellStore {
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Cells> {
        self.cells.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn change<T>(&self, f: impl FnOnce(&mut Cells) -> T) -> T {
        f(&mut self.cells.write().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn free_slots(&self) -> MutexGuard<'_, Vec<u32>> {
        lock(&self.free)
    }

    pub(crate) fn touched(&self) -> MutexGuard<'_, Vec<u32>> {
        lock(&self.touched)
    }
}

/// A slot that reads 0 and has one handle: the one returned.
pub(crate) fn new_slot(tree: &Arc<Shared>) -> Slot {
    let free = tree.free_slots().pop();
    if let Some(number) = free {
        let page = tree.cells().slots[number as usize / PAGE].clone();
        page.handles[number as usize % PAGE].store(1, Ordering::Relaxed);
        return Slot::new(page, tree.serial(), number);
    }
    let (page, number) = tree.change_cells(|cells| {
        let first = (cells.slots.len() * PAGE) as u32;
        let page = Arc::new(SlotPage {
            tree: Arc::downgrade(tree),
            first,
            base: OnceLock::new(),
            handles: std::iter::repeat_with(AtomicU32::default).take(PAGE).collect(),
        });
        cells.slots.push(page.clone());
        (page, first)
    });
    page.handles[0].store(1, Ordering::Relaxed);
    tree.free_slots().extend((page.first + 1..page.first + PAGE as u32).rev());
    Slot::new(page, tree.serial(), number)
}

impl WorkerGuard {
    pub(crate) fn enter(tree: &Arc<Shared>) -> Self {
        let already = WORKER.with_borrow(|w| w.0.iter().any(|l| Arc::ptr_eq(&l.tree, tree)));
        let number = (!already).then(|| {
            let local = Local::enter(tree);
            let number = local.number;
            WORKER.with_borrow_mut(|w| w.put(local));
            number
        });
        Self { number, tree: tree.clone(), _not_send: PhantomData }
    }
}

impl Drop for WorkerGuard {
    fn drop(&mut self) {
        let Some(number) = self.number else { return };
        // First the thread forgets its tables, so that nothing is written to them any more; then they are folded. If
        // the thread's locals are gone already, so is its lane.
        let local = WORKER.try_with(|w| w.borrow_mut().take(&self.tree, number));
        let kept = self.tree.change_cells(|cells| cells.fold(number));
        drop((kept, local));
    }
}
