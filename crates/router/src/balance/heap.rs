//! `heap`: the endpoint with the fewest requests of all.
//!
//! A binary min-heap over outstanding requests. An endpoint that is found not open sinks by a penalty larger than any
//! load, and rises again when it is seen open; so one structure serves sound and broken endpoints, and it fails open. An
//! endpoint that becomes idle changes places with a random one, so that idle endpoints take turns (http-behaviour §8,
//! Finagle's `HeapLeastLoaded`).
//!
//! Each pick and each release reorders the heap, so it is behind a mutex, held for a few swaps: this is the one algorithm
//! whose workers wait for each other. `p2c` comes close to its choices without.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::{Book, Member, Node, Status};

/// The heap of one weight class.
pub(crate) struct Heap<N: Node> {
    order: Mutex<Order<N>>,
}

struct Order<N: Node> {
    slots: Vec<Slot<N>>,
    /// Endpoints with a penalty.
    down: Vec<Arc<Member<N>>>,
}

struct Slot<N: Node> {
    member: Arc<Member<N>>,
    load: i64,
}

/// Where an endpoint is in the heap; written under the heap's lock.
pub(crate) struct Place {
    index: AtomicUsize,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { index: AtomicUsize::new(GONE) }
    }
}

impl<N: Node> Heap<N> {
    pub(crate) fn new() -> Self {
        Self { order: Mutex::new(Order { slots: Vec::new(), down: Vec::new() }) }
    }

    /// Takes the least loaded endpoint.
    pub(crate) fn pick(&self, now: Instant) -> Option<Arc<Member<N>>> {
        let mut order = self.lock();
        order.restore(now);
        loop {
            let top = order.slots.first_mut()?;
            if top.load >= PENALTY || top.member.status(now) == Status::Open {
                top.load += 1;
                let member = Arc::clone(&top.member);
                member.pending.fetch_add(1, Relaxed);
                let len = order.slots.len();
                order.sift_down(0, len);
                return Some(member);
            }
            top.load += PENALTY;
            let member = Arc::clone(&top.member);
            order.down.push(member);
            let len = order.slots.len();
            order.sift_down(0, len);
        }
    }

    /// A request of `member` ended.
    pub(crate) fn put(&self, member: &Arc<Member<N>>, rng: &mut fastrand::Rng) {
        let mut order = self.lock();
        let index = index_of(member);
        let Some(slot) = order.slots.get_mut(index) else { return };
        slot.load -= 1;
        let last = order.slots.len() - 1;
        if order.slots[index].load != 0 || last == 0 {
            order.sift_up(index);
            return;
        }
        // It is idle, and nothing is less than that: it may stand anywhere its new parents allow.
        if index != last {
            order.swap(index, last);
            order.sift_down(index, last);
            order.sift_up(index);
        }
        let other = rng.usize(..=last);
        order.swap(other, last);
        order.sift_up(other);
        order.sift_up(last);
    }

    /// Makes `members` the endpoints of the heap; those that were in it keep their load.
    pub(crate) fn update(&self, members: &[Arc<Member<N>>]) {
        let mut order = self.lock();
        let kept: Vec<usize> = members.iter().map(|member| index_of(member)).collect();
        let old: Vec<Slot<N>> = std::mem::take(&mut order.slots);
        for slot in &old {
            set_index(&slot.member, GONE);
        }
        for (member, index) in members.iter().zip(kept) {
            let load = old.get(index).map_or(0, |slot| slot.load);
            order.slots.push(Slot { member: Arc::clone(member), load });
        }
        for index in 0..order.slots.len() {
            set_index(&order.slots[index].member, index);
        }
        let len = order.slots.len();
        for index in (0..len / 2).rev() {
            order.sift_down(index, len);
        }
        order.down.retain(|member| index_of(member) != GONE);
    }

    fn lock(&self) -> MutexGuard<'_, Order<N>> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<N: Node> Order<N> {
    /// Takes the penalty off endpoints that are open again.
    fn restore(&mut self, now: Instant) {
        let mut i = 0;
        while i < self.down.len() {
            if self.down[i].status(now) == Status::Open {
                let index = index_of(&self.down.swap_remove(i));
                self.slots[index].load -= PENALTY;
                self.sift_up(index);
            } else {
                i += 1;
            }
        }
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.slots.swap(a, b);
        set_index(&self.slots[a].member, a);
        set_index(&self.slots[b].member, b);
    }

    fn sift_up(&mut self, mut index: usize) {
        while index > 0 {
            let parent = (index - 1) / 2;
            if self.slots[parent].load <= self.slots[index].load {
                return;
            }
            self.swap(parent, index);
            index = parent;
        }
    }

    /// Moves the slot at `index` down, in a heap of the first `len` slots.
    fn sift_down(&mut self, mut index: usize, len: usize) {
        loop {
            let (left, right) = (2 * index + 1, 2 * index + 2);
            if left >= len {
                return;
            }
            let child = if right < len && self.slots[right].load < self.slots[left].load { right } else { left };
            if self.slots[index].load <= self.slots[child].load {
                return;
            }
            self.swap(index, child);
            index = child;
        }
    }
}

/// Finagle's `Int.MaxValue`: above any number of requests.
const PENALTY: i64 = i32::MAX as i64;
const GONE: usize = usize::MAX;

fn index_of<N: Node>(member: &Member<N>) -> usize {
    match &member.book {
        Book::Heap { place, .. } => place.index.load(Relaxed),
        _ => GONE,
    }
}

fn set_index<N: Node>(member: &Member<N>, index: usize) {
    if let Book::Heap { place, .. } = &member.book {
        place.index.store(index, Relaxed);
    }
}

#[cfg(test)]
impl<N: Node> Heap<N> {
    /// That every parent carries no more than its children, and that places are right.
    pub(crate) fn assert_sound(&self) {
        let order = self.lock();
        for (index, slot) in order.slots.iter().enumerate() {
            assert_eq!(index_of(&slot.member), index);
            assert!(order.slots[index.saturating_sub(1) / 2].load <= slot.load);
            assert!(slot.load >= 0);
        }
    }
}
