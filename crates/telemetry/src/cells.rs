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
//! lock, sees a count in one place or in the other.
//!
//! Relaxed is enough everywhere but for the last handle's drop: a count has no companion that it must agree with.
//!
//! What it costs: `add` looks up a thread-local, compares the tree, checks two bounds, loads and stores. Pages hold 1024
//! slots and come as a worker first meets them; per counter that is 12 bytes here and 8 more per worker that uses its
//! page. How a worker finds its cell is known to `Slot::add`, `Local` and `Cells::sum` only: a table without pages (the
//! owner may move it under the write lock, being the only writer) or a thread-local without a `RefCell` needs no other
//! change.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, Weak};

use crossbeam_utils::CachePadded;

use crate::histogram::Histogram;
use crate::stat::StatCell;
use crate::tree::Shared;

/// Slots in a page.
const PAGE: usize = 1024;

/// The shared side of a page of slots: what threads that are no workers counted, what finished workers left, and how
/// many handles each slot has. A handle holds its page, so it can be written after the tree is gone.
pub(crate) struct SlotPage {
    tree: Weak<Shared>,
    first: u32,
    base: Box<[AtomicU64]>,
    handles: Box<[AtomicU32]>,
}

/// One worker's cells for a page of slots; padded so that no other thread's memory shares its first or last line.
type CellPage = CachePadded<[AtomicU64; PAGE]>;

/// Every cell of a tree.
#[derive(Default)]
pub(crate) struct Cells {
    slots: Vec<Arc<SlotPage>>,
    workers: Vec<Worker>,
    /// Stats by their number, to find where a finished worker's buckets belong.
    stats: Vec<Weak<StatCell>>,
    next_worker: u64,
}

/// The reader's view of a worker's table; the worker has its own list of the same pages.
struct Worker {
    number: u64,
    pages: Vec<Option<Arc<CellPage>>>,
    histograms: Vec<Option<Arc<Histogram>>>,
}

/// The worker's own view, in its thread.
struct Local {
    tree: Arc<Shared>,
    number: u64,
    pages: Vec<Option<Arc<CellPage>>>,
    histograms: Vec<Option<Arc<Histogram>>>,
}

thread_local! {
    /// The trees this thread is a worker of. Almost always one; the last entered is the one that is fast.
    static WORKER: RefCell<Vec<Local>> = const { RefCell::new(Vec::new()) };
}

/// A reference to a slot; the last one returns it for reuse.
pub(crate) struct Slot {
    page: Arc<SlotPage>,
    number: u32,
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
    #[inline]
    pub(crate) fn add(&self, n: u64) {
        let worked = WORKER.try_with(|w| {
            let mut w = w.borrow_mut();
            match w.last_mut() {
                Some(local) if std::ptr::eq(Arc::as_ptr(&local.tree), self.page.tree.as_ptr()) => {
                    local.add(self.number as usize, n);
                    true
                }
                _ => false,
            }
        });
        if worked != Ok(true) {
            self.page.base[self.number as usize % PAGE].fetch_add(n, Ordering::Relaxed);
        }
    }

    pub(crate) fn value(&self) -> u64 {
        match self.page.tree.upgrade() {
            Some(tree) => tree.cells().sum(self.number),
            None => self.page.base[self.number as usize % PAGE].load(Ordering::Relaxed),
        }
    }

    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// Whether this is the only handle.
    pub(crate) fn is_last(&self) -> bool {
        // Acquire: what the other handles wrote comes before.
        self.page.handles[self.number as usize % PAGE].load(Ordering::Acquire) == 1
    }

    /// One more handle of a slot that has one.
    pub(crate) fn again(tree: &Shared, number: u32) -> Self {
        let slot = Self::adopt(tree, number);
        slot.hold();
        slot
    }

    /// Counts one more handle, which is [`adopt`](Self::adopt)ed by its number later. Until then the tree keeps it.
    pub(crate) fn hold(&self) -> u32 {
        self.page.handles[self.number as usize % PAGE].fetch_add(1, Ordering::Relaxed);
        self.number
    }

    /// The handle that was [held](Self::hold) by its number.
    pub(crate) fn adopt(tree: &Shared, number: u32) -> Self {
        Self { page: tree.cells().slots[number as usize / PAGE].clone(), number }
    }
}

impl Clone for Slot {
    fn clone(&self) -> Self {
        Self { page: self.page.clone(), number: self.hold() }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // Release, then Acquire by the last one: what the other handles wrote comes before the zeroing.
        if self.page.handles[self.number as usize % PAGE].fetch_sub(1, Ordering::AcqRel) == 1
            && let Some(tree) = self.page.tree.upgrade()
        {
            tree.cells().zero(self.number);
            tree.free_slots().push(self.number);
        }
    }
}

impl Local {
    #[inline]
    fn add(&mut self, slot: usize, n: u64) {
        if let Some(Some(page)) = self.pages.get(slot / PAGE) {
            let cell = &page[slot % PAGE];
            cell.store(cell.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
        } else {
            self.grow(slot / PAGE);
            self.add(slot, n);
        }
    }

    #[cold]
    fn grow(&mut self, page: usize) {
        let new = Arc::new(CachePadded::new([const { AtomicU64::new(0) }; PAGE]));
        put(&mut self.pages, page, new.clone());
        self.tree.change_cells(|cells| {
            let worker = cells.workers.iter_mut().find(|w| w.number == self.number);
            put(&mut worker.expect("a worker is listed while its guard lives").pages, page, new);
        });
    }

    /// This worker's buckets of a stat.
    #[inline]
    fn histogram(&mut self, stat: &StatCell) -> &Histogram {
        let number = stat.number() as usize;
        // A number is used again after its stat is gone, and this list isn't told; the serial tells.
        let known = matches!(self.histograms.get(number), Some(Some(h)) if h.serial() == stat.serial());
        if !known {
            self.meet(stat);
        }
        self.histograms[number].as_ref().expect("met above")
    }

    #[cold]
    fn meet(&mut self, stat: &StatCell) {
        let number = stat.number() as usize;
        let new = Arc::new(Histogram::new(stat.serial()));
        put(&mut self.histograms, number, new.clone());
        self.tree.change_cells(|cells| {
            let worker = cells.workers.iter_mut().find(|w| w.number == self.number);
            put(&mut worker.expect("a worker is listed while its guard lives").histograms, number, new);
        });
    }
}

/// Adds a sample in this thread's own buckets; false when the thread is no worker of the stat's tree.
#[inline]
pub(crate) fn record(stat: &StatCell, value: u64) -> bool {
    let worked = WORKER.try_with(|w| {
        let mut w = w.borrow_mut();
        match w.last_mut() {
            Some(local) if std::ptr::eq(Arc::as_ptr(&local.tree), stat.tree().as_ptr()) => {
                local.histogram(stat).record_alone(value);
                true
            }
            _ => false,
        }
    });
    worked == Ok(true)
}

impl Cells {
    /// The value of a slot.
    #[inline]
    pub(crate) fn sum(&self, slot: u32) -> u64 {
        let (page, at) = (slot as usize / PAGE, slot as usize % PAGE);
        let mut sum = self.slots[page].base[at].load(Ordering::Relaxed);
        for worker in &self.workers {
            if let Some(Some(cells)) = worker.pages.get(page) {
                sum = sum.wrapping_add(cells[at].load(Ordering::Relaxed));
            }
        }
        sum
    }

    /// What is written of a stat, wherever it is.
    pub(crate) fn histograms<'a>(&'a self, stat: &'a StatCell) -> impl Iterator<Item = &'a Histogram> + Clone {
        let number = stat.number() as usize;
        let workers = self.workers.iter().filter_map(move |w| w.histograms.get(number)?.as_deref());
        stat.base().into_iter().chain(workers.filter(|h| h.serial() == stat.serial()))
    }

    /// Every stat that is alive.
    pub(crate) fn stats(&self) -> Vec<Arc<StatCell>> {
        self.stats.iter().filter_map(Weak::upgrade).collect()
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
        for worker in &mut self.workers {
            if let Some(histogram) = worker.histograms.get_mut(number as usize) {
                *histogram = None;
            }
        }
    }

    /// Only when no handle of the slot is left. A read lock does: it keeps folding away.
    fn zero(&self, slot: u32) {
        let (page, at) = (slot as usize / PAGE, slot as usize % PAGE);
        self.slots[page].base[at].store(0, Ordering::Relaxed);
        for worker in &self.workers {
            if let Some(Some(cells)) = worker.pages.get(page) {
                cells[at].store(0, Ordering::Relaxed);
            }
        }
    }

    /// Takes a worker's counts into the base. Returns stats that were kept alive meanwhile: for the caller to drop when
    /// it holds no lock.
    fn fold(&mut self, number: u64) -> Vec<Arc<StatCell>> {
        let Some(at) = self.workers.iter().position(|w| w.number == number) else { return Vec::new() };
        let worker = self.workers.swap_remove(at);
        for (slots, cells) in self.slots.iter().zip(&worker.pages) {
            let Some(cells) = cells else { continue };
            for (base, cell) in slots.base.iter().zip(cells.iter()) {
                let n = cell.load(Ordering::Relaxed);
                if n != 0 {
                    base.fetch_add(n, Ordering::Relaxed);
                }
            }
        }
        let mut kept = Vec::new();
        for (stat, histogram) in self.stats.iter().zip(&worker.histograms) {
            if let (Some(stat), Some(histogram)) = (stat.upgrade(), histogram) {
                if histogram.serial() == stat.serial() {
                    stat.base_or_new().absorb(histogram);
                }
                kept.push(stat);
            }
        }
        kept
    }
}

/// The cells and what hands them out: the part of a tree that handles reach.
#[derive(Default)]
pub(crate) struct CellStore {
    cells: RwLock<Cells>,
    free: Mutex<Vec<u32>>,
}

impl CellStore {
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Cells> {
        self.cells.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn change<T>(&self, f: impl FnOnce(&mut Cells) -> T) -> T {
        f(&mut self.cells.write().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn free_slots(&self) -> std::sync::MutexGuard<'_, Vec<u32>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A slot that reads 0 and has one handle: the one returned.
pub(crate) fn new_slot(tree: &Arc<Shared>) -> Slot {
    let free = tree.free_slots().pop();
    if let Some(number) = free {
        let page = tree.cells().slots[number as usize / PAGE].clone();
        page.handles[number as usize % PAGE].store(1, Ordering::Relaxed);
        return Slot { page, number };
    }
    let (page, number) = tree.change_cells(|cells| {
        let first = (cells.slots.len() * PAGE) as u32;
        let page = Arc::new(SlotPage {
            tree: Arc::downgrade(tree),
            first,
            base: std::iter::repeat_with(AtomicU64::default).take(PAGE).collect(),
            handles: std::iter::repeat_with(AtomicU32::default).take(PAGE).collect(),
        });
        cells.slots.push(page.clone());
        (page, first)
    });
    page.handles[0].store(1, Ordering::Relaxed);
    tree.free_slots().extend((page.first + 1..page.first + PAGE as u32).rev());
    Slot { page, number }
}

impl WorkerGuard {
    pub(crate) fn enter(tree: &Arc<Shared>) -> Self {
        let already = WORKER.with_borrow(|w| w.iter().any(|l| Arc::ptr_eq(&l.tree, tree)));
        let number = (!already).then(|| {
            let number = tree.change_cells(|cells| {
                cells.next_worker += 1;
                let number = cells.next_worker;
                cells.workers.push(Worker { number, pages: Vec::new(), histograms: Vec::new() });
                number
            });
            let local = Local { tree: tree.clone(), number, pages: Vec::new(), histograms: Vec::new() };
            WORKER.with_borrow_mut(|w| w.push(local));
            number
        });
        Self { number, tree: tree.clone(), _not_send: PhantomData }
    }
}

impl Drop for WorkerGuard {
    fn drop(&mut self) {
        let Some(number) = self.number else { return };
        // First the thread forgets its table, so that nothing is written to it any more; then it is folded. If the
        // thread's locals are gone already, so is the table.
        let local = WORKER.try_with(|w| {
            let mut w = w.borrow_mut();
            let at = w.iter().position(|l| l.number == number && Arc::ptr_eq(&l.tree, &self.tree));
            at.map(|at| w.remove(at))
        });
        let kept = self.tree.change_cells(|cells| cells.fold(number));
        drop((kept, local));
    }
}

fn put<T>(list: &mut Vec<Option<T>>, at: usize, value: T) {
    if list.len() <= at {
        list.resize_with(at + 1, || None);
    }
    list[at] = Some(value);
}
