//! The binding caches below the first one: what a resolved name was built from, kept while requests come through it.
//!
//! A router's [`Cache`](crate::cache::Cache) of paths leases its values to requests. Tree, bound and client are reached
//! from there by a [`Link`], which a name makes when it is resolved and uses for all its requests: asking three more
//! caches for each of them would be dear, and three more leases too. So an entry here has no leases. Whether it is idle,
//! and since when, is asked of its links, when a miss in a full cache or a sweep wants to know; and when it leaves the
//! cache its links are [cut](Link::cut), so that the next request over one of them asks the caches anew.
//!
//! The rules are contract, and those of the first cache: a miss in a full cache evicts the entry that has been idle
//! longest; if none is idle, a value is built for this one use and not kept. A sweep lets go of what was idle too long,
//! but of the last entry never.
//!
//! All of this is cold, under one mutex. Two lookups never build for one key; what is evicted ends before its successor
//! is built; a request that set out over a link before that was cut uses the evicted value once more. To find what has
//! been idle longest all entries are asked, once for a number of evictions: what is idle only ever gets used later, so
//! the longest idle of them stay that until they are used.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::cache::CacheStats;

/// A way by which requests reach entries.
pub trait Link: Send + Sync {
    /// Since when no request has come this way; `None` while one does.
    fn idle_since(&self) -> Option<Instant>;

    /// Whether no request can come this way any more.
    fn is_gone(&self) -> bool;

    /// An entry at its end has left its cache: whoever comes this way next must ask the caches anew.
    ///
    /// Called under the lock of that cache, which it must not ask.
    fn cut(&self);
}

/// What a cache had for a key.
#[derive(Debug, PartialEq)]
pub struct Found<V> {
    /// It.
    pub value: V,
    /// Whether the cache keeps it; otherwise it is for one use.
    pub kept: bool,
}

/// A bounded cache whose values are used through links.
pub struct LinkedCache<K, V> {
    capacity: usize,
    idle_ttl: Duration,
    stats: CacheStats,
    entries: Mutex<Entries<K, V>>,
}

struct Entries<K, V> {
    by_key: HashMap<K, Entry<V>>,
    /// Those that had been idle longest when all were asked last, and since when; the longest idle at the end.
    idlest: Vec<(Instant, K)>,
}

impl<K: Clone + Eq + Hash, V> Entries<K, V> {
    /// Takes out what has been idle longest; nothing if nothing is idle.
    fn remove_idlest(&mut self) -> Option<Entry<V>> {
        // Of those that were found before, or of all as they are now.
        for _ in 0..2 {
            while let Some((since, key)) = self.idlest.pop() {
                // Used since then, or no more there.
                if self.by_key.get(&key).is_some_and(|entry| entry.idle_since() == Some(since)) {
                    return self.by_key.remove(&key);
                }
            }
            self.find_idlest();
        }
        let (_, key) = self.idlest.pop()?;
        self.by_key.remove(&key)
    }

    fn find_idlest(&mut self) {
        let idle = self.by_key.iter().filter_map(|(key, entry)| Some((entry.idle_since()?, key)));
        let mut idle: Vec<(Instant, &K)> = idle.collect();
        if idle.len() > AT_ONCE {
            idle.select_nth_unstable_by_key(AT_ONCE, |(since, _)| *since);
            idle.truncate(AT_ONCE);
        }
        idle.sort_unstable_by_key(|(since, _)| Reverse(*since));
        self.idlest = idle.into_iter().map(|(since, key)| (since, key.clone())).collect();
    }
}

struct Entry<V> {
    value: V,
    /// When it was made, or used last by a link that is gone.
    used_at: Instant,
    links: Vec<Arc<dyn Link>>,
    /// At how many links those that are gone are looked for.
    crowded_at: usize,
}

impl<V> Entry<V> {
    fn link(&mut self, link: &Arc<dyn Link>) {
        if self.links.len() >= self.crowded_at {
            self.tidy();
            self.crowded_at = CROWDED.max(2 * self.links.len());
        }
        self.links.push(Arc::clone(link));
    }

    /// Lets go of links that are gone.
    fn tidy(&mut self) {
        let used_at = &mut self.used_at;
        self.links.retain(|link| {
            if !link.is_gone() {
                return true;
            }
            *used_at = (*used_at).max(link.idle_since().unwrap_or(*used_at));
            false
        });
    }

    fn idle_since(&self) -> Option<Instant> {
        self.links.iter().try_fold(self.used_at, |since, link| Some(since.max(link.idle_since()?)))
    }

    fn leave(self) {
        for link in &self.links {
            link.cut();
        }
    }
}

impl<K: Clone + Eq + Hash, V: Clone> LinkedCache<K, V> {
    /// A cache of at most `capacity` entries (at least one) that expire after `idle_ttl`.
    pub fn new(capacity: usize, idle_ttl: Duration, stats: CacheStats) -> Self {
        let entries = Mutex::new(Entries { by_key: HashMap::new(), idlest: Vec::new() });
        Self { capacity: capacity.max(1), idle_ttl, stats, entries }
    }

    /// The value for `key`, which is used through `link` from now on; `build` makes it if there is none.
    ///
    /// `build` and the drop of what is evicted run under this cache's lock: they must not ask it.
    pub fn acquire(&self, key: &K, link: &Arc<dyn Link>, now: Instant, build: impl FnOnce() -> V) -> Found<V> {
        let mut entries = self.lock();
        if let Some(entry) = entries.by_key.get_mut(key) {
            entry.link(link);
            return Found { value: entry.value.clone(), kept: true };
        }
        self.stats.missed();
        if entries.by_key.len() >= self.capacity {
            let Some(idlest) = entries.remove_idlest() else {
                self.stats.served_once();
                return Found { value: build(), kept: false };
            };
            self.stats.evicted();
            idlest.leave();
        }
        let value = build();
        let mut entry = Entry { value: value.clone(), used_at: now, links: Vec::new(), crowded_at: CROWDED };
        entry.link(link);
        entries.by_key.insert(key.clone(), entry);
        Found { value, kept: true }
    }

    /// Lets go of entries that have been idle for longer than the idle time; if those are all, the one used last stays.
    /// To be called once per idle time.
    pub fn sweep(&self, now: Instant) {
        let mut entries = self.lock();
        let mut expired: Vec<(Instant, K)> = Vec::new();
        for (key, entry) in &mut entries.by_key {
            entry.tidy();
            if let Some(since) = entry.idle_since()
                && now.saturating_duration_since(since) > self.idle_ttl
            {
                expired.push((since, key.clone()));
            }
        }
        if expired.len() == entries.by_key.len()
            && let Some((last, _)) = expired.iter().enumerate().max_by_key(|(_, (since, _))| *since)
        {
            expired.swap_remove(last);
        }
        let expired: Vec<Entry<V>> = expired.iter().filter_map(|(_, key)| entries.by_key.remove(key)).collect();
        self.stats.expired(expired.len());
        drop(entries);
        // What expired ends only now, without the lock.
        expired.into_iter().for_each(Entry::leave);
    }

    /// Lets go of everything.
    pub fn clear(&self) {
        let entries = std::mem::take(&mut self.lock().by_key);
        entries.into_values().for_each(Entry::leave);
    }

    fn lock(&self) -> MutexGuard<'_, Entries<K, V>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K, V> fmt::Debug for LinkedCache<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkedCache")
            .field("capacity", &self.capacity)
            .field("idle_ttl", &self.idle_ttl)
            .finish_non_exhaustive()
    }
}

/// With so many links an entry is looked through for those that are gone.
const CROWDED: usize = 16;
/// So many of the longest idle are found at once.
const AT_ONCE: usize = 64;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

    use l5d_telemetry::MetricsTree;
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A link whose use a test decides on.
    struct Way {
        idle_since: Mutex<Option<Instant>>,
        gone: AtomicBool,
        cuts: AtomicUsize,
    }

    impl Link for Way {
        fn idle_since(&self) -> Option<Instant> {
            *self.idle_since.lock().unwrap()
        }

        fn is_gone(&self) -> bool {
            self.gone.load(Relaxed)
        }

        fn cut(&self) {
            self.cuts.fetch_add(1, Relaxed);
        }
    }

    struct Bench {
        cache: LinkedCache<u32, Arc<u32>>,
        stats: CacheStats,
        start: Instant,
    }

    impl Bench {
        fn new(capacity: usize) -> Self {
            let stats = CacheStats::new(&MetricsTree::new().root());
            let cache = LinkedCache::new(capacity, 10 * SECOND, stats.clone());
            Self { cache, stats, start: Instant::now() }
        }

        fn at(&self, secs: u32) -> Instant {
            self.start + secs * SECOND
        }

        /// A way to `key`, idle since then, and whether the entry was kept.
        fn touch(&self, key: u32, at: u32) -> (Arc<Way>, bool) {
            let way = Arc::new(Way {
                idle_since: Mutex::new(Some(self.at(at))),
                gone: AtomicBool::new(false),
                cuts: AtomicUsize::new(0),
            });
            let link: Arc<dyn Link> = Arc::<Way>::clone(&way);
            let found = self.cache.acquire(&key, &link, self.at(at), || Arc::new(key));
            assert_eq!(*found.value, key);
            (way, found.kept)
        }

        fn keys(&self) -> BTreeSet<u32> {
            self.cache.lock().by_key.keys().copied().collect()
        }
    }

    #[test]
    fn what_was_idle_longest_makes_room() {
        let bench = Bench::new(2);
        let (one, _) = bench.touch(1, 1);
        let (two, _) = bench.touch(2, 2);
        *one.idle_since.lock().unwrap() = Some(bench.at(3));
        assert!(bench.touch(3, 4).1);
        assert_eq!(bench.keys(), BTreeSet::from([1, 3]));
        assert_eq!([one.cuts.load(Relaxed), two.cuts.load(Relaxed)], [0, 1]);
        assert_eq!(bench.stats.values(), [3, 1, 0, 0]);
    }

    #[test]
    fn one_link_in_use_keeps_an_entry() {
        let bench = Bench::new(1);
        let (busy, _) = bench.touch(1, 0);
        bench.touch(1, 1);
        *busy.idle_since.lock().unwrap() = None;
        assert!(!bench.touch(2, 2).1, "for one use");
        assert_eq!(bench.stats.values(), [2, 0, 0, 1]);
        bench.cache.sweep(bench.at(100));
        assert_eq!(bench.keys(), BTreeSet::from([1]));
        *busy.idle_since.lock().unwrap() = Some(bench.at(3));
        assert!(bench.touch(2, 4).1);
        assert_eq!(bench.stats.values(), [3, 1, 0, 1]);
        assert_eq!(busy.cuts.load(Relaxed), 1);
    }

    #[test]
    fn a_sweep_expires_what_was_idle_too_long_but_the_last() {
        let bench = Bench::new(9);
        let ways = [1, 2, 3].map(|key| bench.touch(key, key).0);
        *ways[1].idle_since.lock().unwrap() = Some(bench.at(9));
        bench.cache.sweep(bench.at(12));
        assert_eq!(bench.keys(), BTreeSet::from([2, 3]), "ten seconds and no longer");
        bench.cache.sweep(bench.at(100));
        assert_eq!(bench.keys(), BTreeSet::from([2]));
        assert_eq!(bench.stats.values(), [3, 0, 2, 0]);
        assert_eq!(ways.map(|way| way.cuts.load(Relaxed)), [1, 0, 1]);
    }

    #[test]
    fn links_that_are_gone_are_forgotten_but_not_their_last_use() {
        let bench = Bench::new(9);
        bench.touch(2, 0);
        for at in 0..1000 {
            bench.touch(1, at).0.gone.store(true, Relaxed);
        }
        assert!(bench.cache.lock().by_key[&1].links.len() <= 2 * CROWDED);
        bench.cache.sweep(bench.at(1005));
        assert_eq!(bench.keys(), BTreeSet::from([1]));
        assert!(bench.cache.lock().by_key[&1].links.is_empty());
        bench.touch(3, 1006);
        bench.cache.sweep(bench.at(1009));
        assert_eq!(bench.keys(), BTreeSet::from([1, 3]), "used last at 999");
        bench.cache.sweep(bench.at(1010));
        assert_eq!(bench.keys(), BTreeSet::from([3]));
    }

    proptest! {
        /// Against a plain list of entries with the time of their last use, each with one link.
        #[test]
        fn agrees_with_a_plain_list(
            capacity in 1_usize..5, steps in proptest::collection::vec((0_u8..8, 0_u32..8), 1..200),
        ) {
            struct Kept {
                key: u32,
                way: Arc<Way>,
                used: u32,
                busy: bool,
            }
            let bench = Bench::new(capacity);
            let mut list: Vec<Kept> = Vec::new();
            let [mut misses, mut evicts, mut expires, mut once] = [0_u64; 4];
            for (at, (step, key)) in (1..).zip(steps) {
                let known = list.iter_mut().find(|kept| kept.key == key);
                match (step, known) {
                    // A request that asks the cache, and is over at once.
                    (0..3, None) => {
                        misses += 1;
                        let idlest = list.iter().filter(|kept| !kept.busy).min_by_key(|kept| kept.used).map(|kept| kept.key);
                        let full = list.len() == capacity;
                        let (way, kept) = bench.touch(key, at);
                        prop_assert_eq!(kept, !full || idlest.is_some());
                        match idlest {
                            Some(idlest) if full => {
                                evicts += 1;
                                let place = list.iter().position(|kept| kept.key == idlest).unwrap();
                                prop_assert_eq!(list.remove(place).way.cuts.load(Relaxed), 1);
                            }
                            None if full => once += 1,
                            _ => {}
                        }
                        if kept {
                            list.push(Kept { key, way, used: at, busy: false });
                        }
                    }
                    // A request over the link that there is; its beginning, and its end.
                    (0..3, Some(kept)) => {
                        kept.used = at;
                        if !kept.busy {
                            *kept.way.idle_since.lock().unwrap() = Some(bench.at(at));
                        }
                    }
                    (3..5, Some(kept)) => {
                        kept.busy = true;
                        *kept.way.idle_since.lock().unwrap() = None;
                    }
                    (5..7, Some(kept)) if kept.busy => {
                        (kept.busy, kept.used) = (false, at);
                        *kept.way.idle_since.lock().unwrap() = Some(bench.at(at));
                    }
                    // The link goes, and another one takes its place.
                    (7, Some(kept)) if !kept.busy => {
                        kept.way.gone.store(true, Relaxed);
                        kept.way = bench.touch(key, kept.used).0;
                    }
                    (7, None) => {
                        let expired = |kept: &Kept| !kept.busy && at - kept.used > 10;
                        let last = list.iter().map(|kept| kept.used).max();
                        let all = list.iter().all(expired);
                        bench.cache.sweep(bench.at(at));
                        let before = list.len();
                        list.retain(|kept| !expired(kept) || all && Some(kept.used) == last);
                        expires += (before - list.len()) as u64;
                    }
                    _ => {}
                }
                prop_assert_eq!(bench.keys(), list.iter().map(|kept| kept.key).collect::<BTreeSet<_>>());
                prop_assert!(list.iter().all(|kept| kept.way.cuts.load(Relaxed) == 0));
                prop_assert_eq!(bench.stats.values(), [misses, evicts, expires, once]);
            }
        }
    }
}
