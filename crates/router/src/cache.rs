//! A binding cache that every request asks: what was built for a key is kept while it is used, and for a while after.
//!
//! A router has one of them, for logical names, and three [linked](crate::linked_cache) ones below it (tree, bound,
//! client), each with the counters `misses`, `evicts`, `expires` and `oneshots` under `bindcache/<name>`. The rules are
//! contract (http-behaviour §5, Finagle's `ServiceFactoryCache`): a miss in a full cache evicts the entry that has been
//! idle longest; if none is idle, a value is built for this one use ("one-shot"). A sweep, once per idle time, lets go of
//! what was idle longer than that, but of the last entry never. Idle is an entry that no [`CacheLease`] holds. A value
//! that left the cache ends when its last lease does: its `Drop` closes pools and prunes metrics. The cache owns no timer
//! and does not know what it keeps.
//!
//! # How a hit stays cheap
//!
//! Every request looks up a hot key, on every worker at once. So a hit writes to no memory another worker writes to: the
//! entries are in small tables that are replaced, never changed ([`ArcSwap`], by hash), and each entry has a hold for each
//! worker, made when that worker first uses it; a lease is a clone of that worker's `Arc<Hold>`. The reference counts of
//! its holds are what tells whether an entry is idle. A hit is one hash of the key, one table probe and one increment in a
//! cache line of the worker's own; giving it back is one store and one decrement there.
//!
//! Misses are serialised by a mutex, look for an entry to evict by walking all of them, let it end and build their value
//! under that mutex (two workers never build for one key), and copy one table of about sixty-four entries: microseconds.
//! A lookup that raced with the eviction of its entry uses the evicted value once more, as a lease taken a moment earlier
//! would.

use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use l5d_telemetry::{Counter, Scope};
use tokio::time::Instant;

use crate::windowed::nanos;

/// What a cache can be asked by: the key itself, or borrowed parts of it.
///
/// Equal keys must hash equally, whichever form they have.
pub trait CacheKey<K>: Hash {
    /// Whether this is `key`.
    fn is(&self, key: &K) -> bool;

    /// The key to keep. Called at a miss only.
    fn to_key(&self) -> K;
}

impl<K: Clone + Eq + Hash> CacheKey<K> for K {
    fn is(&self, key: &K) -> bool {
        self == key
    }

    fn to_key(&self) -> K {
        self.clone()
    }
}

/// The counters of a cache.
#[derive(Clone)]
pub struct CacheStats {
    misses: Counter,
    evicts: Counter,
    expires: Counter,
    oneshots: Counter,
}

impl CacheStats {
    /// The counters in `scope`: `bindcache/path` and its like.
    pub fn new(scope: &Scope) -> Self {
        Self {
            misses: scope.counter("misses"),
            evicts: scope.counter("evicts"),
            expires: scope.counter("expires"),
            oneshots: scope.counter("oneshots"),
        }
    }

    pub(crate) fn missed(&self) {
        self.misses.incr();
    }

    pub(crate) fn evicted(&self) {
        self.evicts.incr();
    }

    pub(crate) fn expired(&self, entries: usize) {
        self.expires.add(entries as u64);
    }

    pub(crate) fn served_once(&self) {
        self.oneshots.incr();
    }

    /// Misses, evicts, expires, one-shots.
    #[cfg(test)]
    pub(crate) fn values(&self) -> [u64; 4] {
        [&self.misses, &self.evicts, &self.expires, &self.oneshots].map(Counter::value)
    }
}

impl fmt::Debug for CacheStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheStats").finish_non_exhaustive()
    }
}

/// A bounded cache of values that are built from their keys. Shared by all workers.
pub struct Cache<K, V> {
    capacity: usize,
    idle_ttl: Duration,
    workers: usize,
    stats: CacheStats,
    origin: Instant,
    hasher: foldhash::fast::RandomState,
    tables: Box<[ArcSwap<Table<K, V>>]>,
    /// How many entries there are; held while that changes.
    len: Mutex<usize>,
}

impl<K, V> Cache<K, V> {
    /// A cache of at most `capacity` entries (at least one) that expire after `idle_ttl`, asked by `workers` threads.
    pub fn new(capacity: usize, idle_ttl: Duration, workers: usize, stats: CacheStats) -> Self {
        let capacity = capacity.max(1);
        let tables = capacity.div_ceil(TABLE_SIZE).next_power_of_two();
        Self {
            capacity,
            idle_ttl,
            workers: workers.max(1),
            stats,
            origin: Instant::now(),
            hasher: foldhash::fast::RandomState::default(),
            tables: (0..tables).map(|_| ArcSwap::from_pointee(Table::of(Vec::new()))).collect(),
            len: Mutex::new(0),
        }
    }

    /// The value for `key`, for a request of the worker with this index; `build` makes it if there is none.
    ///
    /// `build`, and the drop of what is evicted, run under the lock of misses: they must not ask this cache. Any index is right, but workers with different
    /// ones do not disturb each other.
    #[inline]
    pub fn acquire<Q>(&self, worker: usize, key: &Q, now: Instant, build: impl FnOnce(&K) -> V) -> CacheLease<V>
    where
        Q: CacheKey<K>,
    {
        let hash = self.hasher.hash_one(key);
        if let Some(entry) = self.table(hash).load().find(hash, key) {
            return entry.lease(worker, self.origin);
        }
        self.miss(worker, hash, key, now, build)
    }

    /// The value for `key`, if it is there.
    pub fn find<Q: CacheKey<K>>(&self, worker: usize, key: &Q) -> Option<CacheLease<V>> {
        let hash = self.hasher.hash_one(key);
        self.table(hash).load().find(hash, key).map(|entry| entry.lease(worker, self.origin))
    }

    #[cold]
    fn miss<Q>(&self, worker: usize, hash: u64, key: &Q, now: Instant, build: impl FnOnce(&K) -> V) -> CacheLease<V>
    where
        Q: CacheKey<K>,
    {
        let mut len = self.len.lock().unwrap_or_else(PoisonError::into_inner);
        // Another worker may have built it meanwhile.
        if let Some(entry) = self.table(hash).load().find(hash, key) {
            return entry.lease(worker, self.origin);
        }
        self.stats.missed();
        let room = if *len < self.capacity {
            *len += 1;
            true
        } else if let Some(idlest) = self.longest_idle() {
            self.stats.evicted();
            self.remove(&[Arc::clone(&idlest)]);
            // It ends before the new value is built: what only the old one used of the next cache is idle then, and
            // makes room there.
            drop(idlest);
            true
        } else {
            self.stats.served_once();
            false
        };
        let key = key.to_key();
        let value = build(&key);
        let entry = Arc::new(Entry::new(hash, key, value, self.workers, self.since_origin(now)));
        let lease = entry.lease(worker, self.origin);
        if !room {
            return lease;
        }
        let table = self.table(hash);
        let mut entries = table.load().entries();
        entries.push(entry);
        table.store(Arc::new(Table::of(entries)));
        lease
    }

    /// Lets go of entries that have been idle for longer than the idle time; if those are all, the one used last stays.
    /// To be called once per idle time.
    pub fn sweep(&self, now: Instant) {
        let now = self.since_origin(now);
        let limit = nanos(self.idle_ttl);
        let mut len = self.len.lock().unwrap_or_else(PoisonError::into_inner);
        let mut expired: Vec<(u64, Arc<Entry<K, V>>)> = self
            .all()
            .filter_map(|entry| entry.idle_since().map(|since| (since, entry)))
            .filter(|(since, _)| now.saturating_sub(*since) > limit)
            .collect();
        if expired.len() == *len
            && let Some((last, _)) = expired.iter().enumerate().max_by_key(|(_, (since, _))| *since)
        {
            expired.swap_remove(last);
        }
        let expired: Vec<Arc<Entry<K, V>>> = expired.into_iter().map(|(_, entry)| entry).collect();
        self.remove(&expired);
        *len -= expired.len();
        self.stats.expired(expired.len());
        // What expired ends only now, without the lock.
        drop(len);
    }

    /// Lets go of everything.
    pub fn clear(&self) {
        let mut len = self.len.lock().unwrap_or_else(PoisonError::into_inner);
        let empty = || Arc::new(Table::of(Vec::new()));
        let old: Vec<Arc<Table<K, V>>> = self.tables.iter().map(|table| table.swap(empty())).collect();
        *len = 0;
        drop(len);
        drop(old);
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.tables.iter().map(|table| table.load().len).sum()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Calls `see` with each entry, for the pages that list them. They are not leased: this does not keep them alive.
    pub fn for_each(&self, mut see: impl FnMut(&K, &V)) {
        for entry in self.all() {
            see(&entry.key, &entry.value);
        }
    }

    fn table(&self, hash: u64) -> &ArcSwap<Table<K, V>> {
        // The lowest bits choose the slot within the table.
        &self.tables[(hash >> 32) as usize & (self.tables.len() - 1)]
    }

    fn all(&self) -> impl Iterator<Item = Arc<Entry<K, V>>> {
        self.tables.iter().flat_map(|table| table.load().entries())
    }

    fn longest_idle(&self) -> Option<Arc<Entry<K, V>>> {
        let idle = self.all().filter_map(|entry| entry.idle_since().map(|since| (since, entry)));
        idle.min_by_key(|(since, _)| *since).map(|(_, entry)| entry)
    }

    /// Takes `gone` out of their tables. The lock of misses must be held.
    fn remove(&self, gone: &[Arc<Entry<K, V>>]) {
        for table in &self.tables {
            let mut entries = table.load().entries();
            let before = entries.len();
            entries.retain(|entry| !gone.iter().any(|gone| Arc::ptr_eq(gone, entry)));
            if entries.len() < before {
                table.store(Arc::new(Table::of(entries)));
            }
        }
    }

    fn since_origin(&self, now: Instant) -> u64 {
        nanos(now.saturating_duration_since(self.origin))
    }
}

impl<K, V> fmt::Debug for Cache<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("capacity", &self.capacity)
            .field("idle_ttl", &self.idle_ttl)
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

/// A cached value in use: its entry is not idle until this is released or dropped.
#[must_use = "the value may be evicted once its lease is gone"]
pub struct CacheLease<V> {
    hold: Arc<Hold<V>>,
    released: bool,
}

impl<V> CacheLease<V> {
    /// Gives the value back at `now`. A mere drop does the same, but reads the clock.
    pub fn release(mut self, now: Instant) {
        self.released = true;
        self.hold.used_at(now);
    }
}

impl<V> Clone for CacheLease<V> {
    fn clone(&self) -> Self {
        Self { hold: Arc::clone(&self.hold), released: false }
    }
}

impl<V> Deref for CacheLease<V> {
    type Target = V;

    fn deref(&self) -> &V {
        &self.hold.value
    }
}

impl<V> Drop for CacheLease<V> {
    fn drop(&mut self) {
        if !self.released {
            self.hold.used_at(Instant::now());
        }
    }
}

impl<V: fmt::Debug> fmt::Debug for CacheLease<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CacheLease").field(&self.hold.value).finish()
    }
}

/// What one worker holds of an entry. The worker's leases are clones of the `Arc` around it, so its reference count, less
/// one, is their number. Aligned so that no two workers' counts share a cache line.
#[repr(align(128))]
struct Hold<V> {
    value: Arc<V>,
    origin: Instant,
    /// When a lease last ended, in nanoseconds since the cache's origin.
    used_at: AtomicU64,
}

impl<V> Hold<V> {
    fn used_at(&self, now: Instant) {
        self.used_at.store(nanos(now.saturating_duration_since(self.origin)), Relaxed);
    }
}

struct Entry<K, V> {
    hash: u64,
    key: K,
    value: Arc<V>,
    /// Nanoseconds since the cache's origin.
    made_at: u64,
    /// One per worker, once that worker uses the entry.
    holds: Box<[OnceLock<Arc<Hold<V>>>]>,
}

impl<K, V> Entry<K, V> {
    fn new(hash: u64, key: K, value: V, workers: usize, made_at: u64) -> Self {
        let holds = (0..workers).map(|_| OnceLock::new()).collect();
        Self { hash, key, value: Arc::new(value), made_at, holds }
    }

    fn lease(&self, worker: usize, origin: Instant) -> CacheLease<V> {
        let hold = self.holds.get(worker).unwrap_or_else(|| &self.holds[worker % self.holds.len()]).get_or_init(|| {
            let used_at = AtomicU64::new(self.made_at);
            Arc::new(Hold { value: Arc::clone(&self.value), origin, used_at })
        });
        CacheLease { hold: Arc::clone(hold), released: false }
    }

    /// Since when nobody holds it; `None` while somebody does.
    fn idle_since(&self) -> Option<u64> {
        let mut since = self.made_at;
        for hold in self.holds.iter().filter_map(OnceLock::get) {
            if Arc::strong_count(hold) > 1 {
                return None;
            }
            since = since.max(hold.used_at.load(Relaxed));
        }
        Some(since)
    }
}

type Slot<K, V> = Option<Arc<Entry<K, V>>>;

/// A hash table with open addressing that is made once and then only read.
struct Table<K, V> {
    slots: Box<[Slot<K, V>]>,
    /// The slots' hashes, side by side: a probe touches an entry only if its hash is right.
    hashes: Box<[u64]>,
    len: usize,
}

impl<K, V> Table<K, V> {
    fn of(entries: Vec<Arc<Entry<K, V>>>) -> Self {
        // At most half full: probes are short, and one always finds an empty slot.
        let size = (2 * entries.len() + 1).next_power_of_two();
        let mut slots: Box<[_]> = (0..size).map(|_| None).collect();
        let mut hashes = vec![0; size].into_boxed_slice();
        let len = entries.len();
        for entry in entries {
            let mut at = entry.hash as usize & (size - 1);
            while slots[at].is_some() {
                at = (at + 1) & (size - 1);
            }
            hashes[at] = entry.hash;
            slots[at] = Some(entry);
        }
        Self { slots, hashes, len }
    }

    #[inline]
    fn find<Q: CacheKey<K>>(&self, hash: u64, key: &Q) -> Option<&Entry<K, V>> {
        let mut at = hash as usize & (self.slots.len() - 1);
        loop {
            let entry = self.slots[at].as_ref()?;
            if self.hashes[at] == hash && key.is(&entry.key) {
                return Some(entry);
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }

    fn entries(&self) -> Vec<Arc<Entry<K, V>>> {
        self.slots.iter().flatten().cloned().collect()
    }
}

/// About how many entries share a table: few enough to copy at a miss.
const TABLE_SIZE: usize = 64;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::atomic::AtomicUsize;

    use l5d_telemetry::MetricsTree;
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A value that knows how many of its like live.
    struct Value {
        key: u32,
        alive: Arc<AtomicUsize>,
    }

    impl Drop for Value {
        fn drop(&mut self) {
            self.alive.fetch_sub(1, Relaxed);
        }
    }

    struct Bench {
        cache: Cache<u32, Value>,
        alive: Arc<AtomicUsize>,
        start: Instant,
    }

    impl Bench {
        fn new(capacity: usize) -> Self {
            let stats = CacheStats::new(&MetricsTree::new().root().scope("path"));
            let cache = Cache::new(capacity, 10 * SECOND, 2, stats);
            Self { start: cache.origin, cache, alive: Arc::default() }
        }

        fn get(&self, worker: usize, key: u32, at_secs: u32) -> CacheLease<Value> {
            self.cache.acquire(worker, &key, self.start + at_secs * SECOND, |key| {
                self.alive.fetch_add(1, Relaxed);
                Value { key: *key, alive: Arc::clone(&self.alive) }
            })
        }

        fn touch(&self, key: u32, at_secs: u32) {
            self.get(key as usize, key, at_secs).release(self.start + at_secs * SECOND);
        }

        fn keys(&self) -> BTreeSet<u32> {
            let mut keys = BTreeSet::new();
            self.cache.for_each(|key, value| {
                assert_eq!(*key, value.key);
                keys.insert(*key);
            });
            assert_eq!(keys.len(), self.cache.len());
            keys
        }

        /// Misses, evicts, expires, one-shots.
        fn counts(&self) -> [u64; 4] {
            self.cache.stats.values()
        }

        fn alive(&self) -> usize {
            self.alive.load(Relaxed)
        }
    }

    #[test]
    fn a_value_is_built_once_for_all_workers() {
        let bench = Bench::new(10);
        for worker in 0..5 {
            assert_eq!(bench.get(worker, 1, 0).key, 1);
        }
        assert_eq!(bench.counts(), [1, 0, 0, 0]);
        assert_eq!(bench.alive(), 1);
        assert!(bench.cache.find(0, &1).is_some());
        assert!(bench.cache.find(0, &2).is_none());
    }

    #[test]
    fn a_full_cache_evicts_what_was_idle_longest() {
        let bench = Bench::new(3);
        for key in [1, 2, 3] {
            bench.touch(key, key);
        }
        bench.touch(1, 5);
        bench.touch(4, 6);
        assert_eq!(bench.keys(), BTreeSet::from([1, 3, 4]));
        assert_eq!(bench.counts(), [4, 1, 0, 0]);
        assert_eq!(bench.alive(), 3);
    }

    #[test]
    fn what_is_in_use_is_not_evicted() {
        let bench = Bench::new(2);
        let first = bench.get(0, 1, 0);
        bench.touch(2, 1);
        bench.touch(3, 2);
        assert_eq!(bench.keys(), BTreeSet::from([1, 3]));
        // A lease of any worker counts, and a clone as much as the original.
        let second = bench.get(1, 1, 3);
        let other = second.clone();
        drop((first, second));
        bench.touch(4, 4);
        assert_eq!(bench.keys(), BTreeSet::from([1, 4]));
        drop(other);
    }

    #[test]
    fn with_nothing_idle_a_value_serves_once() {
        let bench = Bench::new(2);
        let held = (bench.get(0, 1, 0), bench.get(1, 2, 0));
        let once = bench.get(0, 3, 1);
        assert_eq!(once.key, 3);
        assert_eq!(bench.keys(), BTreeSet::from([1, 2]));
        assert_eq!(bench.counts(), [3, 0, 0, 1]);
        assert_eq!(bench.alive(), 3);
        drop(once);
        assert_eq!(bench.alive(), 2, "the one-shot ended with its lease");
        drop(held);
        bench.touch(3, 2);
        assert_eq!(bench.counts(), [4, 1, 0, 1]);
    }

    #[test]
    fn a_sweep_expires_what_was_idle_too_long() {
        let bench = Bench::new(10);
        bench.touch(1, 0);
        bench.touch(2, 1);
        let held = bench.get(0, 3, 0);
        bench.touch(4, 15);
        bench.cache.sweep(bench.start + 10 * SECOND);
        assert_eq!(bench.keys().len(), 4, "ten seconds are not yet longer than the idle time");
        bench.cache.sweep(bench.start + 20 * SECOND);
        assert_eq!(bench.keys(), BTreeSet::from([3, 4]));
        assert_eq!(bench.counts(), [4, 0, 2, 0]);
        assert_eq!(bench.alive(), 2);
        held.release(bench.start + 40 * SECOND);
        bench.cache.sweep(bench.start + 45 * SECOND);
        assert_eq!(bench.keys(), BTreeSet::from([3]));
    }

    #[test]
    fn the_last_entry_never_expires() {
        let bench = Bench::new(10);
        for key in [1, 2, 3] {
            bench.touch(key, key);
        }
        for at in [100, 200] {
            bench.cache.sweep(bench.start + at * SECOND);
            assert_eq!(bench.keys(), BTreeSet::from([3]));
        }
        assert_eq!(bench.counts(), [3, 0, 2, 0]);
    }

    #[test]
    fn a_value_that_left_ends_with_its_last_lease() {
        let bench = Bench::new(4);
        let lease = bench.get(0, 1, 0);
        bench.cache.clear();
        assert!(bench.cache.is_empty());
        assert_eq!(lease.key, 1);
        assert_eq!(bench.alive(), 1);
        drop(lease);
        assert_eq!(bench.alive(), 0);
    }

    #[test]
    fn a_mere_drop_reads_the_clock() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime").block_on(async {
            let bench = Bench::new(4);
            bench.touch(1, 0);
            let lease = bench.get(0, 2, 0);
            tokio::time::advance(15 * SECOND).await;
            drop(lease);
            bench.cache.sweep(Instant::now());
            assert_eq!(bench.keys(), BTreeSet::from([2]));
        });
    }

    #[test]
    fn borrowed_parts_find_the_key_they_make_up() {
        #[derive(Clone, PartialEq, Eq, Hash)]
        struct Key {
            path: String,
            dtab: String,
        }
        #[derive(Hash)]
        struct Parts<'a> {
            path: &'a str,
            dtab: &'a str,
        }
        impl CacheKey<Key> for Parts<'_> {
            fn is(&self, key: &Key) -> bool {
                self.path == key.path && self.dtab == key.dtab
            }

            fn to_key(&self) -> Key {
                Key { path: self.path.to_owned(), dtab: self.dtab.to_owned() }
            }
        }
        let cache = Cache::new(4, SECOND, 1, CacheStats::new(&MetricsTree::new().root()));
        let now = Instant::now();
        let parts = Parts { path: "/svc/web", dtab: "" };
        assert_eq!(*cache.acquire(0, &parts, now, |key| key.path.len()), 8);
        assert_eq!(*cache.acquire(0, &parts.to_key(), now, |_| unreachable!("it is there")), 8);
        assert_eq!(*cache.acquire(0, &Parts { path: "/svc/web", dtab: "/a=>/b" }, now, |_| 0), 0);
    }

    /// Thousands of keys through a small cache, on several workers: each lookup yields its own key's value, the bound
    /// holds, and in the end nothing lives that is not in the cache.
    #[test]
    fn workers_race_without_losing_a_value() {
        let bench = Bench::new(100);
        std::thread::scope(|scope| {
            for worker in 0..4_usize {
                let bench = &bench;
                scope.spawn(move || {
                    let mut rng = fastrand::Rng::with_seed(worker as u64);
                    let mut held = Vec::new();
                    for i in 0..5_000 {
                        // Mostly hot keys, and some that come once.
                        let key = if rng.u8(..4) > 0 { rng.u32(..20) } else { rng.u32(..3_000) };
                        let lease = bench.get(worker, key, i / 100);
                        assert_eq!(lease.key, key);
                        held.push(lease);
                        if held.len() > 8 {
                            let lease = held.swap_remove(rng.usize(..held.len()));
                            lease.release(bench.start + i / 100 * SECOND);
                        }
                        if i % 500 == 0 {
                            bench.cache.sweep(bench.start + i / 100 * SECOND);
                        }
                    }
                });
            }
        });
        assert!(bench.cache.len() <= 100);
        assert_eq!(bench.alive(), bench.keys().len());
        let [misses, evicts, expires, oneshots] = bench.counts();
        assert_eq!(misses - evicts - expires - oneshots, bench.cache.len() as u64);
    }

    proptest! {
        /// Against a plain list of entries with the time of their last use.
        #[test]
        fn agrees_with_a_plain_list(
            capacity in 1_usize..6, steps in proptest::collection::vec((0_u8..4, 0_u32..10), 1..200),
        ) {
            let bench = Bench::new(capacity);
            let mut held: Vec<CacheLease<Value>> = Vec::new();
            let mut in_cache: Vec<(u32, u32)> = Vec::new();
            let mut at = 0;
            for (step, key) in steps {
                at += 3;
                let in_use = |held: &[CacheLease<Value>], key| held.iter().any(|lease| lease.key == key);
                match step {
                    0 | 1 => {
                        let lease = bench.get(key as usize, key, at);
                        prop_assert_eq!(lease.key, key);
                        let known = in_cache.iter().any(|(known, _)| *known == key);
                        let idlest = in_cache.iter().filter(|(key, _)| !in_use(&held, *key)).min_by_key(|(_, used)| *used);
                        if !known && in_cache.len() < capacity {
                            in_cache.push((key, at));
                        } else if let Some((idlest, _)) = idlest.copied() && !known {
                            in_cache.retain(|(key, _)| *key != idlest);
                            in_cache.push((key, at));
                        }
                        let cached = in_cache.iter().any(|(known, _)| *known == key);
                        if step == 0 && cached && !in_use(&held, key) {
                            held.push(lease);
                        } else {
                            lease.release(bench.start + at * SECOND);
                            in_cache.iter_mut().filter(|(known, _)| *known == key).for_each(|entry| entry.1 = at);
                        }
                    }
                    2 if !held.is_empty() => {
                        let lease = held.swap_remove(key as usize % held.len());
                        let key = lease.key;
                        lease.release(bench.start + at * SECOND);
                        in_cache.iter_mut().filter(|(known, _)| *known == key).for_each(|entry| entry.1 = at);
                    }
                    3 => {
                        bench.cache.sweep(bench.start + at * SECOND);
                        let expired = |held: &[_], (key, used): &(u32, u32)| !in_use(held, *key) && at - used > 10;
                        if in_cache.iter().all(|entry| expired(&held, entry)) {
                            in_cache.sort_by_key(|(_, used)| *used);
                            in_cache.drain(..in_cache.len().saturating_sub(1));
                        } else {
                            in_cache.retain(|entry| !expired(&held, entry));
                        }
                    }
                    _ => {}
                }
                prop_assert_eq!(bench.keys(), in_cache.iter().map(|(key, _)| *key).collect::<BTreeSet<_>>());
            }
        }
    }
}
