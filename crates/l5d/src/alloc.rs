//! Memory for the workers: each keeps the blocks that it gave back in lists of its own, before the system's allocator.
//!
//! A request takes and gives back some thirty blocks, several of them of 1 to 8 KiB, and the requests of many connections
//! overlap. glibc keeps seven blocks a size and thread, none above 1 KiB; the rest goes through its bins, which took a
//! sixth of all instructions of a request. Here taking or giving back is a dozen instructions. Other allocators are as
//! quick but keep more memory for it (bench/proxy/RESULTS.md); this one adds at most [`LIMIT`] bytes for each worker, and
//! nothing to any other thread.
//!
//! Blocks that other threads took and a worker gives back, such as what is left of a name that expired, would gather there
//! until the limit. So once a second a worker gives the system what it had no use for in that second
//! ([`give_back_unused`]).
//!
//! Every block comes from [`System`] in the size of its class, whoever asks for it, and goes back to it in that size: so
//! it does not matter which thread gives it back, and whether that one is a worker.
//!
//! `MIRIFLAGS=-Zmiri-tree-borrows cargo +nightly miri test -p l5d --bin l5d alloc::` runs the tests below where every wrong
//! access is an error.
#![expect(unsafe_code, reason = "an allocator; each block says why it is sound, and miri tries the tests")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    marker::PhantomData,
    ptr,
};

/// The allocator of the process.
#[global_allocator]
static ALLOCATOR: WorkerAlloc = WorkerAlloc;

struct WorkerAlloc;

/// How many bytes a worker keeps at most.
const LIMIT: usize = 2 << 20;

/// How many blocks of a class are looked at or given back in one go, so that no request waits long for it.
const AT_ONCE: usize = 512;

/// The alignment of every block that has a class.
const ALIGN: usize = 16;

/// Classes: up to 1 KiB in steps of 16 bytes, up to 8 KiB of 256 (what an idle connection holds is of some 6 KiB), up to
/// 16 KiB of 1024.
const CLASSES: usize = 64 + 28 + 8;
const LARGEST: usize = 16 * 1024;

/// The class of a size that is neither 0 nor above [`LARGEST`], and the size of its blocks: at least `size`.
#[inline]
fn class_of(size: usize) -> (usize, usize) {
    let last = size - 1;
    if size <= 1024 {
        (last / 16, (last / 16 + 1) * 16)
    } else if size <= 8192 {
        (60 + last / 256, (last / 256 + 1) * 256)
    } else {
        (84 + last / 1024, (last / 1024 + 1) * 1024)
    }
}

/// A block in a list; its first bytes point to the next.
struct Free {
    next: *mut Self,
}

struct Cache {
    lists: [Cell<*mut Free>; CLASSES],
    /// Where in its list a class had the fewest blocks since [`Cache::give_back_unused`]: this one and those behind it were
    /// not needed. Only compared and set here; null when all were.
    unused: [Cell<*mut Free>; CLASSES],
    /// How many more bytes may be kept; 0 on threads that are no workers.
    room: Cell<usize>,
}

thread_local! {
    // Neither made at its first use nor dropped: an allocator must not allocate, and is asked to the very end.
    static CACHE: Cache = const {
        Cache {
            lists: [const { Cell::new(ptr::null_mut()) }; CLASSES],
            unused: [const { Cell::new(ptr::null_mut()) }; CLASSES],
            room: Cell::new(0),
        }
    };
}

impl Cache {
    #[inline]
    fn take(&self, class: usize, size: usize) -> *mut u8 {
        let first = self.lists[class].get();
        if !first.is_null() {
            // SAFETY: what is listed was put there by `keep`, which made it a `Free`, and nobody else has it.
            let next = unsafe { (*first).next };
            self.lists[class].set(next);
            if self.unused[class].get() == first {
                self.unused[class].set(next);
            }
            self.room.set(self.room.get() + size);
        }
        first.cast()
    }

    /// Takes a block in, if there is room.
    ///
    /// # Safety
    /// `block` must be one of the class, in its size, and its owner's no more.
    #[inline]
    unsafe fn keep(&self, class: usize, size: usize, block: *mut u8) -> bool {
        let room = self.room.get();
        if room < size {
            return false;
        }
        self.room.set(room - size);
        let block: *mut Free = block.cast();
        // SAFETY: a block has at least 16 bytes, aligned to 16, and is this list's own now.
        unsafe { block.write(Free { next: self.lists[class].get() }) };
        self.lists[class].set(block);
        true
    }

    /// Gives the system the blocks that were not needed since the last call, and at most [`AT_ONCE`] of a class.
    fn give_back_unused(&self) {
        for (class, size) in sizes().enumerate() {
            let unused = self.unused[class].get();
            if !unused.is_null() {
                self.cut(class, size, unused);
            }
            self.unused[class].set(self.lists[class].get());
        }
    }

    /// Takes blocks out of a list, from `first` on.
    fn cut(&self, class: usize, size: usize, first: *mut Free) {
        let mut before: *mut Free = ptr::null_mut();
        let mut at = self.lists[class].get();
        for _ in 0..AT_ONCE {
            if at == first {
                break;
            }
            before = at;
            // SAFETY: `first` is in the list, so it ends no earlier, and what is listed is a `Free`.
            at = unsafe { (*at).next };
        }
        if at != first {
            return; // too far down for now
        }
        for _ in 0..AT_ONCE {
            if at.is_null() {
                break;
            }
            // SAFETY: listed, so a `Free`.
            let next = unsafe { (*at).next };
            // SAFETY: it was in the list, which is cut here or goes on behind it below, so it is nobody's; its size is its class's.
            unsafe { System.dealloc(at.cast(), layout_of(size)) };
            self.room.set(self.room.get() + size);
            at = next;
        }
        if before.is_null() {
            self.lists[class].set(at);
        } else {
            // SAFETY: it is listed, and comes before all that were given back.
            unsafe { (*before).next = at };
        }
    }
}

/// Gives the system what the calling worker kept and had no use for since the last call. Does nothing on other threads.
pub(crate) fn give_back_unused() {
    CACHE.with(Cache::give_back_unused);
}

/// Whether blocks of this layout have a class.
#[inline]
fn has_class(size: usize, align: usize) -> bool {
    size <= LARGEST && align <= ALIGN
}

/// A class's blocks, as the system is asked for them.
#[inline]
fn layout_of(size: usize) -> Layout {
    // SAFETY: a size of a class is at most `LARGEST`, and `ALIGN` is a power of two.
    unsafe { Layout::from_size_align_unchecked(size, ALIGN) }
}

// SAFETY: blocks come from `System`, at least as large and as aligned as asked for, and are handed to one owner at a time:
// a block is in a list only between `dealloc` and `alloc`. What has no class is the system's business alone, by layout.
unsafe impl GlobalAlloc for WorkerAlloc {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !has_class(layout.size(), layout.align()) {
            // SAFETY: the caller's promise about `layout` is handed on.
            return unsafe { System.alloc(layout) };
        }
        let (class, size) = class_of(layout.size());
        let kept = CACHE.with(|cache| cache.take(class, size));
        if kept.is_null() {
            // SAFETY: a class's size is not 0.
            unsafe { System.alloc(layout_of(size)) }
        } else {
            kept
        }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if !has_class(layout.size(), layout.align()) {
            // SAFETY: the caller says that it is of `layout`; without a class, the system gave it out as that.
            return unsafe { System.dealloc(block, layout) };
        }
        let (class, size) = class_of(layout.size());
        // SAFETY: the caller gives up a block of `layout`, which came from `alloc` in the size of this class.
        if !CACHE.with(|cache| unsafe { cache.keep(class, size, block) }) {
            // SAFETY: as above, and nobody kept it.
            unsafe { System.dealloc(block, layout_of(size)) };
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if !has_class(layout.size(), layout.align()) {
            // SAFETY: the caller's promise about `layout` is handed on.
            return unsafe { System.alloc_zeroed(layout) };
        }
        // SAFETY: likewise.
        let block = unsafe { self.alloc(layout) };
        if !block.is_null() {
            // SAFETY: the block has at least the size of the layout.
            unsafe { block.write_bytes(0, layout.size()) };
        }
        block
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        match (has_class(layout.size(), layout.align()), has_class(new_size, layout.align())) {
            // SAFETY: the system's block before and after, by the caller's layout.
            (false, false) => return unsafe { System.realloc(block, layout, new_size) },
            (true, true) if class_of(layout.size()) == class_of(new_size) => return block,
            _ => {}
        }
        // SAFETY: the caller guarantees that the new size is one of a layout.
        let new_layout = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        // SAFETY: the caller guarantees that the new size is not 0.
        let new = unsafe { self.alloc(new_layout) };
        if !new.is_null() {
            // SAFETY: both have at least the smaller size and are apart; the old one is the caller's to give up.
            unsafe {
                ptr::copy_nonoverlapping(block, new, layout.size().min(new_size));
                self.dealloc(block, layout);
            }
        }
        new
    }
}

/// While this lives, its thread keeps blocks. It can't leave its thread.
#[must_use = "the thread stops keeping blocks when this is dropped"]
pub(crate) struct KeepsBlocks(PhantomData<*const ()>);

impl KeepsBlocks {
    /// The calling thread keeps blocks from now on.
    pub(crate) fn enter() -> Self {
        CACHE.with(|cache| cache.room.set(LIMIT));
        Self(PhantomData)
    }
}

impl Drop for KeepsBlocks {
    fn drop(&mut self) {
        CACHE.with(|cache| {
            for (class, size) in sizes().enumerate() {
                loop {
                    let block = cache.take(class, size);
                    if block.is_null() {
                        break;
                    }
                    // SAFETY: it was in a list, so nobody's, and has the size of its class.
                    unsafe { System.dealloc(block, layout_of(size)) };
                }
            }
            cache.room.set(0);
        });
    }
}

/// Has glibc take the memory of all threads from one arena, when there are few workers.
///
/// The arena of a thread grows by a system call for every page, the one of the process by one for 33: a name never seen before
/// takes some 14 KiB and a tenth less time. Workers seldom come here, as they keep blocks; but many of them, with long
/// bodies, whose blocks nobody keeps, would wait for each other.
pub(crate) fn share_arena(workers: usize) {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    if workers <= ONE_ARENA {
        // SAFETY: changes a number of glibc's; it wants no other thread meanwhile, and is called before there is one.
        let _ = unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    let _ = workers;
}

/// How many workers share an arena at most.
const ONE_ARENA: usize = 4;

/// The sizes of the classes, ascending.
fn sizes() -> impl Iterator<Item = usize> {
    (16..=1024).step_by(16).chain((1280..=8192).step_by(256)).chain((9216..=LARGEST).step_by(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_has_a_class_of_its_own_kind() {
        assert_eq!(sizes().count(), CLASSES);
        for (expected, size) in sizes().enumerate() {
            assert_eq!(class_of(size), (expected, size));
        }
        for size in 1..=LARGEST {
            let (class, block) = class_of(size);
            assert!(block >= size && class < CLASSES && class_of(block) == (class, block), "{size}");
        }
    }

    #[test]
    fn a_worker_gets_its_block_back_and_keeps_no_more_than_its_limit() {
        let addr = |v: &Vec<u8>| v.as_ptr().addr();
        std::thread::spawn(move || {
            let keeps = KeepsBlocks::enter();
            for size in [1, 100, 1025, 8192, LARGEST] {
                let one: Vec<u8> = Vec::with_capacity(size);
                let at = addr(&one);
                drop(one);
                let two: Vec<u8> = Vec::with_capacity(size);
                assert_eq!(addr(&two), at, "{size}");
            }
            let many: Vec<Vec<u8>> = (0..1000).map(|_| Vec::with_capacity(8192)).collect();
            drop(many);
            assert!(CACHE.with(|c| c.room.get()) < 8192, "the limit is reached");
            drop(keeps);
            CACHE.with(|c| {
                assert!(c.lists.iter().all(|l| l.get().is_null()));
                assert_eq!(c.room.get(), 0);
            });
        })
        .join()
        .unwrap();
    }

    /// How many blocks of 8 KiB the calling thread keeps.
    fn kept() -> usize {
        CACHE.with(|cache| (LIMIT - cache.room.get()) / 8192)
    }

    #[test]
    fn what_was_not_needed_goes_back_and_the_rest_stays() {
        let take = |count| (0..count).map(|_| Vec::<u8>::with_capacity(8192)).collect::<Vec<_>>();
        std::thread::spawn(move || {
            let _keeps = KeepsBlocks::enter();
            drop(take(100));
            give_back_unused();
            assert_eq!(kept(), 100, "all of them came since");
            drop(take(30));
            let held = take(20);
            drop(take(5));
            give_back_unused();
            drop(held);
            assert_eq!(kept(), 30, "thirty at most were needed at a time");
            let all = take(40);
            assert_eq!(kept(), 0);
            drop(all);
            give_back_unused();
            assert_eq!(kept(), 40, "every one of them was needed");
            give_back_unused();
            assert_eq!(kept(), 0);
            drop(take(3));
            assert_eq!(kept(), 3);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn little_goes_back_at_once() {
        std::thread::spawn(|| {
            let _keeps = KeepsBlocks::enter();
            let count = AT_ONCE + 100;
            drop((0..count).map(|_| Box::new([0_u8; 24])).collect::<Vec<_>>());
            let kept = || CACHE.with(|cache| (LIMIT - cache.room.get()) / 32);
            give_back_unused();
            assert!(kept() >= count);
            give_back_unused();
            let left = kept();
            assert!(left >= 100 && left < count - AT_ONCE + 20, "{left}");
            // What is in use lies above, too deep to be looked through.
            give_back_unused();
            drop((0..count).map(|_| Box::new([0_u8; 24])).collect::<Vec<_>>());
            give_back_unused();
            assert!(kept() >= count);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn contents_survive_growing_and_shrinking_on_and_between_threads() {
        let grown = std::thread::spawn(|| {
            let _keeps = KeepsBlocks::enter();
            let mut all: Vec<Vec<u8>> = vec![Vec::new(); 50];
            // Beside each what it must hold, in a block that has no class and never moves.
            let mut model: Vec<Vec<u8>> = (0..50).map(|_| Vec::with_capacity(2 * LARGEST)).collect();
            for round in 0..if cfg!(miri) { 100 } else { 20_000_usize } {
                for (i, (v, model)) in all.iter_mut().zip(&mut model).enumerate() {
                    if round % (i + 1) == 0 {
                        v.push((round + i) as u8);
                        model.push((round + i) as u8);
                    }
                    if v.len() > 2000 / (i + 1) {
                        v.truncate(3);
                        v.shrink_to_fit();
                        model.truncate(3);
                    }
                }
            }
            assert_eq!(all, model);
            (all, model, vec![0_u8; 3000], Box::new([7_u64; 9]))
        })
        .join()
        .unwrap();
        let (all, model, zeroed, boxed) = grown;
        assert_eq!(all, model);
        assert!(zeroed.iter().all(|b| *b == 0));
        assert_eq!(*boxed, [7; 9]);
    }
}
