//! The tree: which nodes there are, what each is called and which metric it has.
//!
//! The shape is behind one read-write lock. Components write it when they are built or end, readers read it a chunk at a
//! time; nothing on the request path comes here. Nodes are small records in one arena, found by parent and name; the text
//! of a name is held once. A leaf costs 24 bytes and its place in a table.
//!
//! Contract with Linkerd 1's `MetricsTree`: a node may have a metric and children; a scope's node exists as soon as the
//! scope does; pruning empties a node and leaves it. Different: the order of siblings is that of their making, where
//! Linkerd's was unspecified; a gauge is gone when it is deregistered, not when it was collected.
//!
//! Nodes leave only with all their siblings, when their parent is emptied. So siblings are a list with a tail that never
//! loses a middle, and a reader that remembers a node only needs to know whether it still is the same (`Place`). Names that
//! requests bring along come and go without end: an empty node of such a name gets the next one, where it stands.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, Weak};

use foldhash::fast::RandomState;

use crate::ceiling::{Ceiling, OVERFLOW, Overflow};
use crate::cells::{CellStore, Cells, Slot, WorkerGuard, new_slot};
use crate::census::Kinds;
use crate::collide::{Clashes, Ending, IdTable, Kind, Letters, Wire, clashing};
use crate::exemplar::{Exemplar, Exemplars};
use crate::expired::{Expired, Lingering};
use crate::families::{Families, GONE, Spelled};
use crate::format::labels::Spot;
use crate::format::otlp::Ledger;
use crate::format::statsd::Unsent;
use crate::gauge::{Gauge, GaugeGuard, Read};
use crate::lane::Serial;
use crate::level::LevelExport;
use crate::names::{Name, Names};
use crate::scope::Scope;
use crate::stat::StatCell;
use crate::sync::{AtomicU64, Mutex, MutexGuard, Ordering, RwLock, RwLockReadGuard, RwLockWriteGuard, lock};
use crate::taken::Taken;
use crate::visit::{Visitor, visit};

/// All metrics of a process, or of a test: made once and passed to whoever measures or exports.
#[derive(Clone)]
pub struct MetricsTree {
    shared: Arc<Shared>,
}

/// What clones of a tree, its scopes and its handles share.
pub(crate) struct Shared {
    shape: RwLock<Shape>,
    /// How often the shape's lock was taken to change something.
    changes: AtomicU64,
    serial: Serial,
    cells: CellStore,
    /// How many ticks there were.
    clock: Arc<AtomicU64>,
    ticking: Mutex<()>,
    /// Numbers of stats that are free again.
    free_stats: Mutex<Vec<u32>>,
    pushers: Mutex<Vec<Weak<Mutex<Unsent>>>>,
    ledgers: Mutex<Vec<Weak<Mutex<Ledger>>>>,
    collisions: AtomicU64,
    /// Gauges that panicked when they were asked.
    panics: AtomicU64,
    /// What the buckets of stats take, kept by their ticks.
    stat_bytes: AtomicU64,
    ceiling: Ceiling,
    expired: Expired,
    exemplars: Exemplars,
}

/// A node, as long as it is the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) node: u32,
    age: u32,
}

/// The part of the tree that its lock guards.
pub(crate) struct Shape {
    nodes: Vec<Vec<Node>>,
    free_nodes: Vec<u32>,
    names: Names,
    /// Children by parent and name, of those that have many.
    index: IdTable,
    /// Nodes with a metric, by the letters of their path.
    letters: IdTable,
    /// Those of them whose letters end as a stat's lines do.
    ended: IdTable,
    clashes: Clashes,
    /// The letters of the scope in which a metric was listed last.
    scope_letters: Option<(u32, Letters)>,
    families: Families,
    kinds: Kinds,
    gauges: Vec<Gauge>,
    free_gauges: Vec<u32>,
    stats: HashMap<u32, Arc<StatCell>, RandomState>,
    next_stat: u32,
    /// Never used twice: tells registrations and stats apart from those that had their place before.
    next_serial: u64,
    /// How many children with names of requests are in use, those whose nodes say so, by the parent. Of many parents that
    /// have a few: of what is rare there is a list of its own.
    used: HashMap<u32, u32, RandomState>,
    /// Such children that are not, by the parent.
    emptied: HashMap<u32, Emptied, RandomState>,
}

/// Children that have names that requests brought along, when they are empty.
#[derive(Default)]
struct Emptied {
    /// By when they were emptied: the oldest gets the name of a new one.
    oldest: BTreeMap<u64, Place>,
    /// When they were.
    since: HashMap<u32, u64, RandomState>,
}

#[derive(Clone, Copy)]
struct Node {
    /// How often this record was given up, in the lower half, and how often it was given another name, in the upper.
    age: u32,
    name: u32,
    /// The last child, whose `next` is the first.
    last: u32,
    /// The next sibling; of the last one, the first.
    next: u32,
    parent: u32,
    about: About,
}

/// A node's metric, whether its children are in the index, and whether it has a name of a request that is in use, in
/// one number.
#[derive(Clone, Copy)]
struct About(u32);

/// A node's metric, by its number in the place where its kind is kept.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Metric {
    None,
    Counter(u32),
    Gauge(u32),
    Stat(u32),
}

impl Metric {
    /// What it is, if it is anything.
    pub(crate) fn kind(self) -> Option<Kind> {
        match self {
            Self::None => None,
            Self::Counter(_) => Some(Kind::Counter),
            Self::Gauge(_) => Some(Kind::Gauge),
            Self::Stat(_) => Some(Kind::Stat),
        }
    }
}

impl Kinds {
    fn count(&mut self, metric: Metric, change: impl Fn(u32) -> u32) {
        let number = match metric {
            Metric::None => return,
            Metric::Counter(_) => &mut self.counters,
            Metric::Gauge(_) => &mut self.gauges,
            Metric::Stat(_) => &mut self.stats,
        };
        *number = change(*number);
    }
}

impl Node {
    /// The slot of a counter that has no children.
    #[inline(always)]
    fn lone_counter(&self) -> Option<u32> {
        match self.about.metric() {
            Metric::Counter(slot) if self.last == NONE => Some(slot),
            _ => None,
        }
    }
}

impl About {
    const NOTHING: Self = Self(0);
    const INDEXED: u32 = 1 << 31;
    const USED: u32 = 1 << 30;
    const KIND: u32 = 28;

    #[inline]
    fn metric(self) -> Metric {
        let number = self.0 & ((1 << Self::KIND) - 1);
        match self.0 >> Self::KIND & 3 {
            0 => Metric::None,
            1 => Metric::Counter(number),
            2 => Metric::Gauge(number),
            _ => Metric::Stat(number),
        }
    }

    fn set_metric(&mut self, metric: Metric) {
        let (kind, number) = match metric {
            Metric::None => (0, 0),
            Metric::Counter(number) => (1, number),
            Metric::Gauge(number) => (2, number),
            Metric::Stat(number) => (3, number),
        };
        assert!(number >> Self::KIND == 0, "there are fewer than 2^28 metrics of a kind");
        self.0 = self.0 & (Self::INDEXED | Self::USED) | kind << Self::KIND | number;
    }

    fn has(self, flag: u32) -> bool {
        self.0 & flag != 0
    }

    fn set(&mut self, flag: u32, to: bool) {
        self.0 = if to { self.0 | flag } else { self.0 & !flag };
    }
}

/// How a face writes a metric, given those that come to the same name.
pub(crate) enum Role<'a> {
    /// No other has its name.
    Alone,
    /// Others have: a counter is written as the sum of the group's, and all but the first written (`nth` 0) need a mark.
    Clashing { group: &'a [u32], nth: usize },
    /// A counter that is written as part of a sum.
    Silent,
}

/// No node. The root is never anybody's child or sibling, so its number does.
const NONE: u32 = 0;
const ROOT: Place = Place { node: 0, age: 0 };
const CHUNK: usize = 1024;
/// How many children are found by looking at each; of more there is an index.
const FEW: usize = 32;

/// What a change took out of the tree: dropped when no lock is held, since it may be anybody's code.
#[derive(Default)]
struct Removed {
    reads: Vec<Read>,
    ended: Vec<Lingering>,
}

/// Who tells differences, and goes on with what was not told of a metric that ends.
struct Heirs {
    pushers: Vec<Arc<Mutex<Unsent>>>,
    ledgers: Vec<Arc<Mutex<Ledger>>>,
}

/// Lists one of those, and forgets those that are gone.
fn list<T>(all: &Mutex<Vec<Weak<Mutex<T>>>>, one: &Arc<Mutex<T>>) {
    let mut all = lock(all);
    all.retain(|one| one.strong_count() > 0);
    all.push(Arc::downgrade(one));
}

impl MetricsTree {
    /// An empty tree.
    pub fn new() -> Self {
        let mut shape = Shape {
            nodes: Vec::new(),
            free_nodes: Vec::new(),
            names: Names::new(),
            index: IdTable::default(),
            letters: IdTable::default(),
            ended: IdTable::default(),
            clashes: Clashes::default(),
            scope_letters: None,
            families: Families::new(),
            kinds: Kinds::default(),
            gauges: Vec::new(),
            free_gauges: Vec::new(),
            stats: HashMap::default(),
            next_stat: 0,
            next_serial: 1,
            used: HashMap::default(),
            emptied: HashMap::default(),
        };
        let name = shape.names.take("");
        shape.new_node(NONE, name);
        let shared = Shared {
            shape: RwLock::new(shape),
            changes: AtomicU64::new(0),
            serial: Serial::next(),
            cells: CellStore::default(),
            clock: Arc::new(AtomicU64::new(0)),
            ticking: Mutex::default(),
            free_stats: Mutex::default(),
            pushers: Mutex::default(),
            ledgers: Mutex::default(),
            collisions: AtomicU64::new(0),
            panics: AtomicU64::new(0),
            stat_bytes: AtomicU64::new(0),
            ceiling: Ceiling::none(),
            expired: Expired::default(),
            exemplars: Exemplars::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The scope of the tree's root.
    pub fn root(&self) -> Scope {
        Scope::new(self.shared.clone(), Some(ROOT), Spot::Root)
    }

    /// The scope named `key` at the root.
    pub fn scope(&self, key: &str) -> Scope {
        self.root().scope(key)
    }

    /// The node that is reached by exactly these keys, if there is one.
    pub fn find(&self, keys: &[&str]) -> Option<Scope> {
        let place = self.shared.shape().find(keys)?;
        let spot = keys.iter().fold(Spot::Root, |spot, key| spot.next(key).1);
        Some(Scope::new(self.shared.clone(), Some(place), spot))
    }

    /// Shows a visitor every node, depth first, a node's own metric before its children, siblings in the order they were
    /// made. No lock is held while the visitor runs. What is made or pruned meanwhile may be missed; what was there all
    /// the time is shown once.
    pub fn visit(&self, visitor: &mut dyn Visitor) {
        visit(&self.shared, ROOT, visitor);
    }

    /// Makes this thread a worker until the guard is dropped: its increments and samples go to cells that only it writes.
    pub fn enter_worker(&self) -> WorkerGuard {
        WorkerGuard::enter(&self.shared)
    }

    /// How often a name was asked for that a metric of another kind had, or two metrics came to one name on the wire.
    pub fn collisions(&self) -> u64 {
        self.shared.collided()
    }

    /// How often a gauge's function panicked when a face asked it. The page was written without that gauge.
    pub fn panics(&self) -> u64 {
        self.shared.panics()
    }

    /// Limits how many metrics there may be, and how many services or clients in one scope. Scopes of services and clients that
    /// are asked for above a limit are one scope, `(overflow)`, of their router. Without this there is no limit.
    pub fn limit_series(&self, series: usize, per_scope: usize) {
        self.shared.ceiling.set(series, per_scope);
    }

    /// How many metrics there are.
    pub fn series(&self) -> u64 {
        self.shared.series()
    }

    /// The labels that have grown above a limit since this was asked last. Each is told once.
    pub fn take_overflows(&self) -> Vec<Overflow> {
        self.shared.ceiling.unheard()
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(crate) fn root_place(&self) -> Place {
        ROOT
    }
}

impl Default for MetricsTree {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for MetricsTree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shape = self.shared.shape();
        f.debug_struct("MetricsTree").field("metrics", &shape.letters.len()).finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn shape(&self) -> RwLockReadGuard<'_, Shape> {
        self.shape.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self) -> RwLockWriteGuard<'_, Shape> {
        let shape = self.shape.write().unwrap_or_else(PoisonError::into_inner);
        // With the lock held: who sees this, and takes the lock then, sees the change.
        self.changes.fetch_add(1, Ordering::Relaxed);
        shape
    }

    /// A number that is another one when the shape has changed. To be read before the shape is, or with its lock held.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    pub(crate) fn serial(&self) -> Serial {
        self.serial
    }

    pub(crate) fn clock(&self) -> &Arc<AtomicU64> {
        &self.clock
    }

    pub(crate) fn ticking(&self) -> MutexGuard<'_, ()> {
        lock(&self.ticking)
    }

    pub(crate) fn touched_stats(&self) -> MutexGuard<'_, Vec<u32>> {
        self.cells.touched()
    }

    pub(crate) fn cells(&self) -> RwLockReadGuard<'_, Cells> {
        self.cells.read()
    }

    pub(crate) fn change_cells<T>(&self, f: impl FnOnce(&mut Cells) -> T) -> T {
        self.cells.change(f)
    }

    pub(crate) fn free_slots(&self) -> MutexGuard<'_, Vec<u32>> {
        self.cells.free_slots()
    }

    /// The child called `key`, made when it isn't there; `None` when the parent is gone.
    ///
    /// A name that a request may have brought along has a `label`; there may be too many of those.
    pub(crate) fn child(&self, parent: Option<Place>, key: &str, label: Option<&'static str>) -> Option<Place> {
        let mut shape = self.change();
        let parent = shape.alive(parent?)?;
        let Some(label) = label else { return Some(shape.child(parent, key)) };
        if shape.is_used(parent, key) {
            return Some(shape.child(parent, key));
        }
        if self.ceiling.is_reached(shape.letters.len(), shape.siblings(parent)) {
            self.ceiling.overflow(shape.path(parent.node).get(1).map_or("", |router| router.text()), label);
            return Some(shape.child(parent, OVERFLOW));
        }
        Some(shape.named_child(parent, key))
    }

    pub(crate) fn series(&self) -> u64 {
        self.shape().letters.len() as u64
    }

    /// What series take: see `census.rs`.
    pub(crate) fn bytes(&self) -> u64 {
        let (shape, cells) = (self.shape(), self.cells());
        (shape.bytes() + cells.bytes() + shape.next_stat as usize * size_of::<StatCell>()) as u64
            + self.stat_bytes.load(Ordering::Relaxed)
    }

    /// What the buckets of stats take.
    pub(crate) fn stat_bytes(&self) -> &AtomicU64 {
        &self.stat_bytes
    }

    pub(crate) fn ceiling(&self) -> &Ceiling {
        &self.ceiling
    }

    pub(crate) fn expired(&self) -> &Expired {
        &self.expired
    }

    pub(crate) fn add_exemplar(&self, stat: u64, value: u64, trace: u128) {
        self.exemplars.add(stat, value, trace);
    }

    pub(crate) fn exemplars(&self, stat: u64) -> Vec<Exemplar> {
        self.exemplars.of(stat)
    }

    pub(crate) fn forget_exemplars(&self, stat: u64) {
        self.exemplars.forget(stat);
    }

    pub(crate) fn panicked(&self) {
        self.panics.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }

    pub(crate) fn collided(&self) -> u64 {
        self.collisions.load(Ordering::Relaxed)
    }

    /// The counter at this place, or one that is nowhere when there is no such scope any more; so with the other kinds.
    pub(crate) fn counter(tree: &Arc<Self>, parent: Option<Place>, name: &str) -> Result<Slot, Taken> {
        let mut shape = tree.change();
        let Some(parent) = parent.and_then(|p| shape.alive(p)) else { return Ok(new_slot(tree)) };
        let place = shape.child(parent, name);
        match shape.metric(place) {
            Metric::Counter(number) => Ok(Slot::again(tree, number)),
            Metric::None => {
                let slot = new_slot(tree);
                // The node has a handle of its own, so that the counter stays when nobody else holds it.
                shape.set_metric(place.node, Metric::Counter(slot.hold()));
                shape.list(place.node, tree);
                Ok(slot)
            }
            _ => Err(shape.taken(place, Kind::Counter)),
        }
    }

    /// A counter that is in no face.
    pub(crate) fn lone_counter(tree: &Arc<Self>) -> Slot {
        new_slot(tree)
    }

    pub(crate) fn stat(tree: &Arc<Self>, parent: Option<Place>, name: &str) -> Result<Arc<StatCell>, Taken> {
        let mut shape = tree.change();
        let Some(parent) = parent.and_then(|p| shape.alive(p)) else { return Ok(shape.new_stat(tree)) };
        let place = shape.child(parent, name);
        match shape.metric(place) {
            Metric::Stat(number) => Ok(shape.stats[&number].clone()),
            Metric::None => {
                let cell = shape.new_stat(tree);
                shape.stats.insert(cell.number(), cell.clone());
                shape.set_metric(place.node, Metric::Stat(cell.number()));
                shape.list(place.node, tree);
                Ok(cell)
            }
            _ => Err(shape.taken(place, Kind::Stat)),
        }
    }

    /// A stat that is in no face.
    pub(crate) fn lone_stat(tree: &Arc<Self>) -> Arc<StatCell> {
        tree.change().new_stat(tree)
    }

    pub(crate) fn gauge(tree: &Arc<Self>, parent: Option<Place>, name: &str, read: Read) -> Result<GaugeGuard, Taken> {
        let mut shape = tree.change();
        let Some(parent) = parent.and_then(|p| shape.alive(p)) else { return Ok(GaugeGuard { registered: None }) };
        let place = shape.child(parent, name);
        let id = shape.serial();
        let Some(gauge) = shape.gauge_at(place, tree) else {
            let taken = shape.taken(place, Kind::Gauge);
            // Before the function is dropped, which may be anybody's code.
            drop(shape);
            return Err(taken);
        };
        gauge.reads.push((id, read));
        Ok(GaugeGuard { registered: Some((Arc::downgrade(tree), place, id)) })
    }

    pub(crate) fn level(tree: &Arc<Self>, parent: Option<Place>, name: &str) -> Result<Arc<LevelExport>, Taken> {
        let mut shape = tree.change();
        let Some(parent) = parent.and_then(|p| shape.alive(p)) else { return Ok(Self::lone_level(tree)) };
        let place = shape.child(parent, name);
        let Some(gauge) = shape.gauge_at(place, tree) else { return Err(shape.taken(place, Kind::Gauge)) };
        // When the last handle is just being dropped, this makes a new level; the old one's drop sees that it isn't its
        // own any more.
        if let Some(level) = gauge.level.as_ref().and_then(|(_, l)| l.upgrade()) {
            return Ok(level);
        }
        let place = Some((Arc::downgrade(tree), place));
        let level = Arc::new(LevelExport { slot: new_slot(tree), place });
        gauge.level = Some((level.slot.number(), Arc::downgrade(&level)));
        Ok(level)
    }

    /// A level that is in no face.
    pub(crate) fn lone_level(tree: &Arc<Self>) -> Arc<LevelExport> {
        Arc::new(LevelExport { slot: new_slot(tree), place: None })
    }

    pub(crate) fn remove_gauge(&self, place: Place, id: u64) {
        let mut shape = self.change();
        let Some(gauge) = shape.gauge_mut(place) else { return };
        let Some(at) = gauge.reads.iter().position(|(i, _)| *i == id) else { return };
        let removed = gauge.reads.remove(at);
        shape.drop_empty_gauge(place);
        drop(shape);
        drop(removed);
    }

    pub(crate) fn remove_level(&self, place: Place, slot: u32) {
        let mut shape = self.change();
        let Some(gauge) = shape.gauge_mut(place) else { return };
        if gauge.level.as_ref().is_some_and(|(number, _)| *number == slot) {
            gauge.level = None;
            shape.drop_empty_gauge(place);
        }
    }

    /// `named` says that it is the scope of a name that a request may have brought along.
    pub(crate) fn prune(self: &Arc<Self>, place: Option<Place>, named: bool) {
        let mut removed = Removed::default();
        let mut shape = self.change();
        // A scope that many names share outlives each of them.
        let shared = |shape: &Shape, place: Place| named && shape.name(place).text() == OVERFLOW;
        if let Some(place) = place.and_then(|p| shape.alive(p)).filter(|&p| !shared(&shape, p)) {
            let heirs = self.heirs();
            let mut path: Vec<Name> = shape.path(place.node).into_iter().cloned().collect();
            shape.empty(self, place.node, &mut path, &heirs, &mut removed);
            if named {
                shape.emptied(place);
            }
        }
        drop(shape);
        drop(removed);
    }

    pub(crate) fn list_pusher(&self, pusher: &Arc<Mutex<Unsent>>) {
        list(&self.pushers, pusher);
    }

    pub(crate) fn list_ledger(&self, ledger: &Arc<Mutex<Ledger>>) {
        list(&self.ledgers, ledger);
    }

    pub(crate) fn return_stat(&self, number: u32) {
        self.change_cells(|cells| cells.unlist_stat(number));
        self.free_stats().push(number);
    }

    pub(crate) fn collide(&self) {
        self.collisions.fetch_add(1, Ordering::Relaxed);
    }

    fn free_stats(&self) -> MutexGuard<'_, Vec<u32>> {
        lock(&self.free_stats)
    }

    fn heirs(&self) -> Heirs {
        let pushers = lock(&self.pushers).iter().filter_map(Weak::upgrade).collect();
        Heirs { pushers, ledgers: lock(&self.ledgers).iter().filter_map(Weak::upgrade).collect() }
    }
}

impl Shape {
    pub(crate) fn find(&self, keys: &[&str]) -> Option<Place> {
        let mut place = ROOT;
        for key in keys {
            place = self.place(self.find_child(place.node, self.names.find(key)?)?);
        }
        Some(place)
    }

    /// The place, when it still is what it was.
    #[inline]
    pub(crate) fn alive(&self, place: Place) -> Option<Place> {
        (self.node(place.node).age == place.age).then_some(place)
    }

    #[inline]
    pub(crate) fn first_child(&self, place: Place) -> Option<Place> {
        self.alive(place)?;
        self.some(self.first(place.node))
    }

    #[inline]
    pub(crate) fn next_sibling(&self, place: Place) -> Option<Place> {
        // Also when it has got another name meanwhile: it is where it was.
        if self.node(place.node).age & GIVEN_UP != place.age & GIVEN_UP {
            return None;
        }
        self.some(self.next(place.node))
    }

    /// The child called `key`, if there is one.
    pub(crate) fn child_of(&self, place: Place, key: &str) -> Option<Place> {
        let place = self.alive(place)?;
        Some(self.place(self.find_child(place.node, self.names.find(key)?)?))
    }

    pub(crate) fn name(&self, place: Place) -> &Name {
        self.names.get(self.node(place.node).name)
    }

    /// Has the text of a name brought near that a walk which is here comes to soon.
    pub(crate) fn prefetch_name_after(&self, place: Place) {
        self.names.prefetch_after(self.node(place.node).name);
    }

    pub(crate) fn metric(&self, place: Place) -> Metric {
        self.node(place.node).about.metric()
    }

    pub(crate) fn gauge(&self, number: u32) -> &Gauge {
        &self.gauges[number as usize]
    }

    pub(crate) fn stat(&self, number: u32) -> &Arc<StatCell> {
        &self.stats[&number]
    }

    fn some(&self, node: u32) -> Option<Place> {
        (node != NONE).then(|| self.place(node))
    }

    fn place(&self, node: u32) -> Place {
        Place { node, age: self.node(node).age }
    }

    fn node(&self, node: u32) -> &Node {
        &self.nodes[node as usize / CHUNK][node as usize % CHUNK]
    }

    fn node_mut(&mut self, node: u32) -> &mut Node {
        &mut self.nodes[node as usize / CHUNK][node as usize % CHUNK]
    }

    fn serial(&mut self) -> u64 {
        self.next_serial += 1;
        self.next_serial
    }

    fn child(&mut self, parent: Place, key: &str) -> Place {
        let known = self.names.find(key);
        let indexed = self.node(parent.node).about.has(About::INDEXED);
        let (found, others) = if indexed {
            (known.and_then(|name| self.find_child(parent.node, name)), 0)
        } else {
            self.find_and_count(parent.node, known)
        };
        if let Some(node) = found {
            return self.place(node);
        }
        let name = match known {
            Some(name) => self.names.again(name),
            None => self.names.take(key),
        };
        let node = self.new_node(parent.node, name);
        let last = self.node(parent.node).last;
        let first = if last == NONE { node } else { std::mem::replace(&mut self.node_mut(last).next, node) };
        self.node_mut(node).next = first;
        self.node_mut(parent.node).last = node;
        if indexed {
            self.index_child(parent.node, name, node);
        } else if others >= FEW {
            self.node_mut(parent.node).about.set(About::INDEXED, true);
            let children: Vec<u32> = self.children(parent.node).collect();
            for child in children {
                self.index_child(parent.node, self.node(child).name, child);
            }
        }
        self.place(node)
    }

    /// The child with this name, found by looking at each, or how many there are of which none has it.
    fn find_and_count(&self, parent: u32, name: Option<u32>) -> (Option<u32>, usize) {
        let last = self.node(parent).last;
        let mut others = 0;
        if last != NONE {
            let mut child = self.node(last).next;
            loop {
                let node = self.node(child);
                if Some(node.name) == name {
                    return (Some(child), others);
                }
                others += 1;
                if child == last {
                    break;
                }
                child = node.next;
            }
        }
        (None, others)
    }

    /// Puts a child into the index, if its parent has so many that they are there.
    fn index_child(&mut self, parent: u32, name: u32, node: u32) {
        if self.node(parent).about.has(About::INDEXED) {
            IdTable::change(self, Self::index, |index, shape| {
                index.insert(child_hash(parent, name), node, |n| shape.child_hash_of(n));
            });
        }
    }

    fn unindex_child(&mut self, parent: u32, name: u32, node: u32) {
        if self.node(parent).about.has(About::INDEXED) {
            IdTable::change(self, Self::index, |index, shape| {
                index.remove(child_hash(parent, name), node, |n| shape.child_hash_of(n));
            });
        }
    }

    fn index(&mut self) -> &mut IdTable {
        &mut self.index
    }

    fn first(&self, node: u32) -> u32 {
        let last = self.node(node).last;
        if last == NONE { NONE } else { self.node(last).next }
    }

    /// The next sibling.
    #[inline]
    fn next(&self, node: u32) -> u32 {
        let Node { next, parent, .. } = *self.node(node);
        if self.node(parent).last == node { NONE } else { next }
    }

    fn set_metric(&mut self, node: u32, metric: Metric) {
        let about = &mut self.node_mut(node).about;
        let before = about.metric();
        about.set_metric(metric);
        self.kinds.count(before, |n| n - 1);
        self.kinds.count(metric, |n| n + 1);
    }

    /// Whether there is such a child, and it was not emptied since it was asked for last.
    fn is_used(&self, parent: Place, key: &str) -> bool {
        let child = self.names.find(key).and_then(|name| self.find_child(parent.node, name));
        child.is_some_and(|child| self.node(child).about.has(About::USED))
    }

    fn is_filled(&self, node: u32) -> bool {
        let node = self.node(node);
        node.last != NONE || node.about.metric() != Metric::None
    }

    /// How many children with names of requests a node has.
    fn siblings(&self, parent: Place) -> usize {
        self.used.get(&parent.node).map_or(0, |&used| used as usize)
    }

    /// A child with the name of a request that isn't used: an old empty one gets the name if there are enough of those, so
    /// that names that come and go cost no memory.
    fn named_child(&mut self, parent: Place, key: &str) -> Place {
        let there = self.names.find(key).and_then(|name| self.find_child(parent.node, name));
        let place = match there {
            Some(there) => self.place(there),
            None => match self.empty_child(parent) {
                Some(old) => {
                    self.rename(old, key);
                    self.place(old)
                }
                None => self.child(parent, key),
            },
        };
        if let Some(emptied) = self.emptied.get_mut(&parent.node)
            && let Some(since) = emptied.since.remove(&place.node)
        {
            emptied.oldest.remove(&since);
        }
        *self.used.entry(parent.node).or_default() += 1;
        self.node_mut(place.node).about.set(About::USED, true);
        place
    }

    /// A child that may get another name.
    fn empty_child(&mut self, parent: Place) -> Option<u32> {
        loop {
            let emptied = self.emptied.get_mut(&parent.node)?;
            // Some are kept, so that no name is given back while a page is written that has shown it.
            if emptied.oldest.len() <= KEPT_EMPTY {
                return None;
            }
            let (_, old) = emptied.oldest.pop_first()?;
            emptied.since.remove(&old.node);
            if self.alive(old).is_some() && !self.is_filled(old.node) {
                return Some(old.node);
            }
        }
    }

    /// A child with the name of a request was emptied.
    fn emptied(&mut self, place: Place) {
        let (parent, now) = (self.node(place.node).parent, self.serial());
        let used = self.node(place.node).about.has(About::USED);
        if let Some(others) = self.used.get_mut(&parent).filter(|_| used) {
            *others -= 1;
            let emptied = self.emptied.entry(parent).or_default();
            emptied.oldest.insert(now, place);
            emptied.since.insert(place.node, now);
            self.node_mut(place.node).about.set(About::USED, false);
        }
    }

    fn rename(&mut self, node: u32, key: &str) {
        self.scope_letters = None;
        let Node { parent, name, age, .. } = *self.node(node);
        self.unindex_child(parent, name, node);
        self.names.release(name);
        let name = self.names.take(key);
        *self.node_mut(node) = Node { name, age: renamed(age), ..*self.node(node) };
        self.index_child(parent, name, node);
    }

    fn new_node(&mut self, parent: u32, name: u32) -> u32 {
        let new = Node { age: 0, name, last: NONE, next: NONE, parent, about: About::NOTHING };
        if let Some(number) = self.free_nodes.pop() {
            let node = self.node_mut(number);
            *node = Node { age: node.age, ..new };
            return number;
        }
        if self.nodes.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            self.nodes.push(Vec::with_capacity(CHUNK));
        }
        let chunks = self.nodes.len();
        let chunk = &mut self.nodes[chunks - 1];
        chunk.push(new);
        ((chunks - 1) * CHUNK + chunk.len() - 1) as u32
    }

    fn new_stat(&mut self, tree: &Arc<Shared>) -> Arc<StatCell> {
        let number = tree.free_stats().pop().unwrap_or_else(|| {
            self.next_stat += 1;
            self.next_stat - 1
        });
        let cell = Arc::new(StatCell::new(tree, number, self.serial()));
        tree.change_cells(|cells| cells.list_stat(number, Arc::downgrade(&cell)));
        cell
    }

    /// Why a place can't have a metric of this kind.
    fn taken(&self, place: Place, asked: Kind) -> Taken {
        Taken { path: self.full_name(place), is: self.kind(place.node).unwrap_or(asked), asked }
    }

    /// The gauge of a node, made when the node has no metric; `None` when it has one of another kind.
    fn gauge_at(&mut self, place: Place, tree: &Shared) -> Option<&mut Gauge> {
        let number = match self.metric(place) {
            Metric::Gauge(number) => number,
            Metric::None => {
                let number = self.free_gauges.pop().unwrap_or_else(|| {
                    self.gauges.push(Gauge::default());
                    (self.gauges.len() - 1) as u32
                });
                self.set_metric(place.node, Metric::Gauge(number));
                self.list(place.node, tree);
                number
            }
            _ => return None,
        };
        Some(&mut self.gauges[number as usize])
    }

    fn gauge_mut(&mut self, place: Place) -> Option<&mut Gauge> {
        self.alive(place)?;
        match self.metric(place) {
            Metric::Gauge(number) => Some(&mut self.gauges[number as usize]),
            _ => None,
        }
    }

    fn drop_empty_gauge(&mut self, place: Place) {
        if let Metric::Gauge(number) = self.metric(place) {
            let gauge = &self.gauges[number as usize];
            if gauge.reads.is_empty() && gauge.level.is_none() {
                self.unlist(place.node);
                self.set_metric(place.node, Metric::None);
                self.free_gauges.push(number);
            }
        }
    }

    pub(crate) fn kinds(&self) -> Kinds {
        self.kinds
    }

    /// What it takes, but for the stats.
    fn bytes(&self) -> usize {
        let nodes: usize = self.nodes.iter().map(|chunk| chunk.capacity() * size_of::<Node>()).sum();
        nodes
            + self.free_nodes.capacity() * size_of::<u32>()
            + self.names.bytes()
            + self.index.bytes()
            + self.letters.bytes()
            + self.ended.bytes()
            + self.families.bytes()
            + self.gauges.capacity() * size_of::<Gauge>()
            + self.stats.capacity() * (size_of::<(u32, Arc<StatCell>)>() + 1)
    }

    pub(crate) fn families(&self) -> &Families {
        &self.families
    }

    pub(crate) fn place_of(&self, node: u32) -> Place {
        self.place(node)
    }

    pub(crate) fn name_of(&self, node: u32) -> &Name {
        self.names.get(self.node(node).name)
    }

    pub(crate) fn name_by(&self, number: u32) -> &Name {
        self.names.get(number)
    }

    /// The names and slots of this node and its siblings after it, as long as they are counters, have no children and are one
    /// record behind the other, and there is room; returns how many they are, and the last.
    #[inline]
    pub(crate) fn lone_counters(&self, first: Place, names: &mut [u32], slots: &mut [u32]) -> (usize, Place) {
        let chunk = &self.nodes[first.node as usize / CHUNK][first.node as usize % CHUNK..];
        if chunk[0].lone_counter().is_none() {
            return (0, first);
        }
        let end = self.node(chunk[0].parent).last;
        let most = end.wrapping_sub(first.node) as usize + 1;
        let mut len = 0;
        for (node, (name, slot)) in chunk.iter().zip(names.iter_mut().zip(slots)).take(most) {
            let Some(counter) = node.lone_counter() else { break };
            (*name, *slot) = (node.name, counter);
            len += 1;
            if node.next != first.node + len {
                break;
            }
        }
        (len as usize, self.place(first.node + len - 1))
    }

    /// A node's children in order.
    pub(crate) fn children(&self, node: u32) -> impl Iterator<Item = u32> {
        let last = self.node(node).last;
        let first = (last != NONE).then(|| self.node(last).next);
        std::iter::successors(first, move |&n| (n != last).then(|| self.node(n).next))
    }

    /// The node with this number, which is a guess.
    #[inline(always)]
    fn node_near(&self, near: u32) -> Option<&Node> {
        self.nodes.get(near as usize / CHUNK)?.get(near as usize % CHUNK)
    }

    /// The child with this name, which is likely the node `near`.
    #[inline(always)]
    pub(crate) fn child_near(&self, parent: u32, name: u32, near: u32) -> Option<u32> {
        if self.node_near(near).is_some_and(|n| n.parent == parent && n.name == name) {
            Some(near)
        } else {
            self.find_child(parent, name)
        }
    }

    /// The slot of the node `near`, if it is that child, and a counter.
    #[inline(always)]
    pub(crate) fn counter_near(&self, parent: u32, name: u32, near: u32) -> Option<u32> {
        let node = self.node_near(near)?;
        match node.about.metric() {
            Metric::Counter(slot) if node.parent == parent && node.name == name => Some(slot),
            _ => None,
        }
    }

    /// Whether no two metrics come to one name in this face.
    pub(crate) fn is_clear(&self, wire: Wire) -> bool {
        self.clashes.none(wire)
    }

    /// Tells the families of a metric that comes or goes.
    fn tell_families(&mut self, node: u32, tell: fn(&mut Families, &Spelled<'_>)) {
        let mut nodes: Vec<u32> = self.upwards(node).collect();
        nodes.reverse();
        let Node { name, about, .. } = *self.node(node);
        let (all, names) = (&self.nodes, &self.names);
        let name_of = |&n: &u32| names.get(all[n as usize / CHUNK][n as usize % CHUNK].name);
        let path: Vec<&Name> = nodes.iter().map(name_of).collect();
        tell(&mut self.families, &Spelled { path: &path, nodes: &nodes, name, metric: about.metric() });
    }

    /// The names from below the root to this node.
    pub(crate) fn path(&self, node: u32) -> Vec<&Name> {
        let mut path: Vec<&Name> = self.upwards(node).map(|n| self.names.get(self.node(n).name)).collect();
        path.reverse();
        path
    }

    /// A node and those above it, without the root.
    fn upwards(&self, node: u32) -> impl Iterator<Item = u32> {
        std::iter::successors(Some(node), |&n| Some(self.node(n).parent)).take_while(|&n| n != ROOT.node)
    }

    fn find_child(&self, parent: u32, name: u32) -> Option<u32> {
        if !self.node(parent).about.has(About::INDEXED) {
            return self.find_and_count(parent, Some(name)).0;
        }
        let is = |n: &u32| self.node(*n).parent == parent && self.node(*n).name == name;
        self.index.candidates(child_hash(parent, name)).find(is)
    }

    fn child_hash_of(&self, node: u32) -> u64 {
        child_hash(self.node(node).parent, self.node(node).name)
    }

    /// The letters of a path; those of its scope are kept for the next one, which is often beside it.
    fn letters_of_new(&mut self, node: u32) -> Letters {
        let Node { parent, name, .. } = *self.node(node);
        let scope = match self.scope_letters {
            Some((scope, letters)) if scope == parent => letters,
            _ => self.letters_of(parent),
        };
        self.scope_letters = Some((parent, scope));
        self.names.letters(name).after(scope)
    }

    fn letters_of(&self, node: u32) -> Letters {
        self.upwards(node).fold(Letters::NONE, |below, n| below.after(self.names.letters(self.node(n).name)))
    }

    fn kind(&self, node: u32) -> Option<Kind> {
        self.node(node).about.metric().kind()
    }

    /// Lists a node that was just given its metric, and looks for others that come to the same name on the wire.
    fn list(&mut self, node: u32, tree: &Shared) {
        let Some(kind) = self.kind(node) else { return };
        let letters = self.letters_of_new(node);
        let base = self.names.base();
        let mut clashes = Vec::new();
        self.suspects(&self.letters, letters.hash(), node, kind, &mut clashes);
        if kind == Kind::Stat && self.ended.len() > 0 {
            for hash in base.with_endings(letters) {
                self.suspects(&self.ended, hash, node, kind, &mut clashes);
            }
        }
        let ending = self.ending_of(node);
        if let Some(ending) = ending {
            self.suspects(&self.letters, base.without(letters, ending), node, kind, &mut clashes);
        }
        if !clashes.is_empty() {
            tree.collide();
        }
        for (wire, other) in clashes {
            self.clashes.join(wire, other, node);
        }
        for table in tables(ending) {
            IdTable::change(self, table, |t, shape| t.insert(letters.hash(), node, |n| shape.letters_of(n).hash()));
        }
        let Node { parent, name, about, .. } = *self.node(node);
        if !self.families.add_beside(parent, self.names.get(name), name, about.metric()) {
            self.tell_families(node, Families::add);
        }
    }

    /// Those of a table's metrics that really clash with a node, of which `hash` makes them suspects.
    fn suspects(&self, table: &IdTable, hash: u64, node: u32, kind: Kind, clashes: &mut Vec<(Wire, u32)>) {
        for other in table.candidates(hash) {
            let Some(other_kind) = self.kind(other) else { continue };
            if self.letters_of(other).hash() == hash {
                let found = clashing((&self.path(node), kind), (&self.path(other), other_kind));
                clashes.extend(found.into_iter().map(|wire| (wire, other)));
            }
        }
    }

    fn ending_of(&self, node: u32) -> Option<Ending> {
        Ending::of(self.upwards(node).map(|n| self.names.get(self.node(n).name).text()))
    }

    /// Forgets a node that is about to lose its metric, if it has one.
    fn unlist(&mut self, node: u32) {
        if self.kind(node).is_none() {
            return;
        }
        let letters = self.letters_of(node);
        for table in tables(self.ending_of(node)) {
            IdTable::change(self, table, |t, shape| t.remove(letters.hash(), node, |n| shape.letters_of(n).hash()));
        }
        self.clashes.part(node);
        self.tell_families(node, Families::remove);
    }

    /// How a face writes a node's metric.
    #[inline]
    pub(crate) fn role(&self, wire: Wire, place: Place) -> Role<'_> {
        match self.clashes.group(wire, place.node) {
            None => Role::Alone,
            Some(group) => self.role_in(group, place.node),
        }
    }

    #[cold]
    fn role_in<'a>(&self, group: &'a [u32], node: u32) -> Role<'a> {
        let counter = |n: &&u32| self.kind(**n) == Some(Kind::Counter);
        let first_counter = group.iter().find(counter);
        if self.kind(node) == Some(Kind::Counter) && first_counter != Some(&node) {
            return Role::Silent;
        }
        // Those that are written: all but the counters after the first.
        let written = group.iter().filter(|n| !counter(n) || first_counter == Some(n));
        Role::Clashing { group, nth: written.take_while(|n| **n != node).count() }
    }

    /// What the counters among these nodes add up to.
    pub(crate) fn sum(&self, group: &[u32], cells: &Cells) -> u64 {
        let counters = group.iter().filter_map(|&n| match self.node(n).about.metric() {
            Metric::Counter(slot) => Some(cells.sum(slot)),
            _ => None,
        });
        counters.fold(0, u64::wrapping_add)
    }

    /// The keys of a node's path, joined by slashes.
    pub(crate) fn full_name(&self, place: Place) -> String {
        self.path(place.node).iter().map(|n| n.text()).collect::<Vec<_>>().join("/")
    }

    /// Takes a node's metric and children away. `path` leads to the node, and does again afterwards.
    fn empty(&mut self, tree: &Arc<Shared>, node: u32, path: &mut Vec<Name>, heirs: &Heirs, removed: &mut Removed) {
        self.unlist(node);
        self.scope_letters = None;
        let metric = self.node(node).about.metric();
        self.set_metric(node, Metric::None);
        match metric {
            Metric::None => {}
            Metric::Counter(number) => {
                let slot = Slot::adopt(tree, number);
                for ledger in &heirs.ledgers {
                    lock(ledger).pruned(path);
                }
                for pusher in &heirs.pushers {
                    lock(pusher).pruned(path, number, tree.cells().sum(number));
                }
                removed.ended.extend(tree.expired.take(path, Lingering::Counter(slot), &tree.cells()));
            }
            Metric::Gauge(number) => {
                let gauge = std::mem::take(&mut self.gauges[number as usize]);
                removed.reads.extend(gauge.reads.into_iter().map(|(_, read)| read));
                self.free_gauges.push(number);
            }
            Metric::Stat(number) => {
                if let Some(stat) = self.stats.remove(&number) {
                    for ledger in &heirs.ledgers {
                        lock(ledger).pruned(path);
                    }
                    removed.ended.extend(tree.expired.take(path, Lingering::Stat(stat), &tree.cells()));
                }
            }
        }
        self.used.remove(&node);
        self.emptied.remove(&node);
        let children: Vec<u32> = self.children(node).collect();
        for &child in &children {
            let name = self.node(child).name;
            path.push(self.names.get(name).clone());
            self.empty(tree, child, path, heirs, removed);
            path.pop();
            self.unindex_child(node, name, child);
        }
        // Nodes that are made of these stand in their order again.
        for &child in children.iter().rev() {
            self.names.release(self.node(child).name);
            let node = self.node_mut(child);
            // Without a parent, so that nobody who guesses a child's number takes this for it.
            (node.age, node.parent) = (given_up(node.age), GONE);
            self.free_nodes.push(child);
        }
        self.node_mut(node).last = NONE;
        self.node_mut(node).about.set(About::INDEXED, false);
        self.families.retire(node);
    }
}

/// Where a metric is listed whose name has this ending.
fn tables(ending: Option<Ending>) -> impl Iterator<Item = fn(&mut Shape) -> &mut IdTable> {
    let all: [fn(&mut Shape) -> &mut IdTable; 2] = [|shape| &mut shape.letters, |shape| &mut shape.ended];
    all.into_iter().take(1 + usize::from(ending.is_some()))
}

/// The lower half of a node's age.
const GIVEN_UP: u32 = 0xffff;

/// Empty children that keep their names.
const KEPT_EMPTY: usize = 256;

fn given_up(age: u32) -> u32 {
    age & !GIVEN_UP | age.wrapping_add(1) & GIVEN_UP
}

fn renamed(age: u32) -> u32 {
    age.wrapping_add(GIVEN_UP + 1)
}

fn child_hash(parent: u32, name: u32) -> u64 {
    // Two odd constants without meaning keep parent and name apart; the table mixes.
    u64::from(parent).wrapping_mul(0xD6E8_FEB8_6659_FD93) ^ u64::from(name).wrapping_mul(0xA076_1D64_78BD_642F)
}
