//! Which metrics are one family in Prometheus' text, so that a page has each family in one piece without looking for
//! it.
//!
//! The tree has the metrics of a scope beside one another; a family's are in as many scopes as there are routers,
//! services, clients. So the *form* of a path is kept once: its keys as Prometheus spells them, and where a key is the
//! value of a label, which label. Forms are a tree of their own, a few hundred for any number of series. A form of
//! scopes lists the scopes that have it, each with the text of its labels, made when its first metric came; a form of
//! metrics is a family, and its members are found in the scopes of the form above. So a family costs a scope nothing
//! but its place in that list, and labels are put together once in a scope's life.
//!
//! The order of families is that of the tree of forms, depth first, a form's own before those beneath it, siblings as
//! they came; families that are spelled alike follow one another. Within a family the scopes come in the order of their
//! making.
//!
//! Pages are read in pieces while scopes come and go. A page's `Cursor` is told when the scopes of a list close up; and
//! after something was pruned, a page passes over scopes that came since it began, as one may be there for a second
//! time.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};
use std::sync::{Arc, Weak};

use foldhash::fast::RandomState;

use crate::collide::IdTable;
use crate::format::labels::{Does, Spot, push_key};
use crate::format::prometheus;
use crate::layout::{Laid, Layouts};
use crate::names::{Name, Plain, push};
use crate::sync::{Mutex, lock};
use crate::texts::{Text, Texts};
use crate::tree::Metric;

/// The forms of a tree's paths.
pub(crate) struct Families {
    forms: Vec<Form>,
    free: Vec<u32>,
    /// Forms by the one above and their key.
    index: IdTable,
    hasher: RandomState,
    /// Where each scope is listed.
    listed: HashMap<u32, Listed, RandomState>,
    layouts: Layouts,
    /// A key that is being spelled.
    key: Vec<u8>,
    /// How often scopes were taken out.
    prunes: u64,
    /// The scopes' labels.
    texts: Texts,
    /// Forms without anything, left because a page was open.
    loose: Vec<u32>,
    order: Mutex<Option<Arc<Vec<u32>>>>,
    cursors: Mutex<Vec<Weak<Mutex<Cursor>>>>,
}

/// The form of a path.
pub(crate) struct Form {
    above: u32,
    /// The last key: as it is spelled, or a zero and the label whose value it is.
    key: Box<[u8]>,
    beneath: Vec<u32>,
    /// Whether there ever was a metric here. Then the form stays in the order: a page may stand at it.
    family: bool,
    /// What a metric here is called, without prefix.
    name: Box<[u8]>,
    /// Whether the name needs an underscore before it if there is no prefix.
    underscore: bool,
    /// How the metrics are found in a scope of the form above: by these keys, each with how many have it; or, if the
    /// key is a label's value, whichever there are.
    keys: Vec<(u32, u32)>,
    metrics: u32,
    /// Whether one of the metrics ever was a stat.
    stats: bool,
    scopes: Vec<Member>,
    /// What the paths of its scopes come to: the same for all, as the keys that make a difference are spelled as they are.
    spot: Spot,
    holes: u32,
    /// Whether it is among the loose ones.
    loose: bool,
}

/// A scope, as a member of its form.
pub(crate) struct Member {
    /// [`GONE`] when it went.
    pub(crate) node: u32,
    /// Its first metric: the others are likely beside it.
    pub(crate) first: u32,
    /// Where its counters are that are found by their keys.
    pub(crate) laid: Laid,
    /// `k="v", k2="v2"`
    pub(crate) labels: Text,
}

#[derive(Clone, Copy)]
struct Listed {
    form: u32,
    at: u32,
}

/// Where a page stands.
pub(crate) struct Cursor {
    /// The family, 0 before the first.
    pub(crate) form: u32,
    /// Which of a stat's names.
    pub(crate) pass: u8,
    /// Which scope is next.
    pub(crate) scope: u32,
    /// How many metrics of that scope are done.
    pub(crate) done: u32,
    /// How many scopes each form had when the page began.
    lengths: Vec<u32>,
    prunes: u64,
}

/// A metric that comes or goes.
pub(crate) struct Spelled<'a> {
    /// The names from below the root to the metric, and their nodes.
    pub(crate) path: &'a [&'a Name],
    pub(crate) nodes: &'a [u32],
    /// The number of the metric's own name.
    pub(crate) name: u32,
    pub(crate) metric: Metric,
}

/// Labels of a metric's own, which its scope's don't have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Own {
    /// None: it is found by its key.
    None,
    /// Its key is this label's value, and nothing beneath belongs to the family.
    Label(&'static str),
    /// Its key is an exception; and so are the keys beneath, each the cause of the last.
    Exceptions,
}

/// No node has this number.
pub(crate) const GONE: u32 = u32::MAX;
/// The form of the root.
const ROOT: u32 = 0;

impl Families {
    pub(crate) fn new() -> Self {
        Self {
            forms: vec![Form::new(ROOT, &[])],
            free: Vec::new(),
            index: IdTable::default(),
            hasher: RandomState::default(),
            listed: HashMap::default(),
            layouts: Layouts::default(),
            key: Vec::new(),
            prunes: 0,
            texts: Texts::default(),
            loose: Vec::new(),
            order: Mutex::default(),
            cursors: Mutex::default(),
        }
    }

    pub(crate) fn form(&self, form: u32) -> &Form {
        &self.forms[form as usize]
    }

    pub(crate) fn layouts(&self) -> &Layouts {
        &self.layouts
    }

    /// The scopes in which a family's metrics are.
    pub(crate) fn scopes(&self, family: u32) -> &[Member] {
        &self.form(self.form(family).above).scopes
    }

    /// Takes in a metric.
    pub(crate) fn add(&mut self, metric: &Spelled<'_>) {
        let (scope, above) = self.scope_of(metric, true);
        let name = metric.path[metric.path.len() - 1];
        let own = Own::of(scope.spot, name.text());
        let family = self.beneath(above, own, name, true).unwrap_or(ROOT);
        let form = &mut self.forms[family as usize];
        if !form.family {
            let (name, underscore) = prometheus::family(metric.path);
            (form.family, form.name, form.underscore) = (true, name.into(), underscore);
            *lock(&self.order) = None;
        }
        form.count(own, metric.name, metric.metric);
        let known = self.listed.get(&scope.node).copied();
        let listed = known.unwrap_or_else(|| {
            let labels = self.labels(scope.path, metric.nodes);
            let form = &mut self.forms[above as usize];
            form.spot = scope.spot;
            let listed = Listed { form: above, at: form.scopes.len() as u32 };
            self.listed.insert(scope.node, listed);
            let first = metric.nodes[metric.nodes.len() - 1];
            push(&mut form.scopes, Member { node: scope.node, first, laid: Laid::of(above), labels });
            listed
        });
        self.lay(listed, own, metric.name, metric.metric, family);
    }

    /// Notes where a scope has one more counter that is found by its key.
    fn lay(&mut self, scope: Listed, own: Own, name: u32, metric: Metric, family: u32) {
        if let (Own::None, Metric::Counter(slot)) = (own, metric) {
            let member = &mut self.forms[scope.form as usize].scopes[scope.at as usize];
            self.layouts.go_on(&mut member.laid, name, slot, family);
        }
    }

    /// Takes in a metric without being told its path, when its scope has another and so has its family; says whether it did.
    pub(crate) fn add_beside(&mut self, scope: u32, name: &Name, number: u32, metric: Metric) -> bool {
        let Some(&listed) = self.listed.get(&scope) else { return false };
        if let Metric::Counter(slot) = metric {
            let member = &mut self.forms[listed.form as usize].scopes[listed.at as usize];
            if let Some(family) = self.layouts.follow(&mut member.laid, number, slot) {
                self.forms[family as usize].count(Own::None, number, metric);
                return true;
            }
        }
        let own = Own::of(self.form(listed.form).spot, name.text());
        let Some(family) = self.beneath(listed.form, own, name, false) else { return false };
        let form = &mut self.forms[family as usize];
        if !form.family {
            return false;
        }
        form.count(own, number, metric);
        self.lay(listed, own, number, metric, family);
        true
    }

    /// Forgets a metric that goes.
    pub(crate) fn remove(&mut self, metric: &Spelled<'_>) {
        let (scope, above) = self.scope_of(metric, false);
        let name = metric.path[metric.path.len() - 1];
        if let (Metric::Counter(_), Some(listed)) = (metric.metric, self.listed.get(&scope.node)) {
            let member = &mut self.forms[listed.form as usize].scopes[listed.at as usize];
            self.layouts.leave(&mut member.laid);
        }
        let Some(number) = self.beneath(above, Own::of(scope.spot, name.text()), name, false) else { return };
        let form = &mut self.forms[number as usize];
        form.metrics = form.metrics.saturating_sub(1);
        if let Some(at) = form.keys.iter().position(|k| k.0 == metric.name) {
            form.keys[at].1 -= 1;
            if form.keys[at].1 == 0 {
                form.keys.remove(at);
            }
        }
        if form.metrics == 0 {
            self.loosen(number);
        }
    }

    /// Forgets a scope whose metrics are all gone.
    pub(crate) fn retire(&mut self, node: u32) {
        self.prunes += 1;
        let Some(Listed { form: number, at }) = self.listed.remove(&node) else { return };
        let form = &mut self.forms[number as usize];
        let member = &mut form.scopes[at as usize];
        (member.node, member.first) = (GONE, GONE);
        let full_of_gaps = self.texts.remove(std::mem::take(&mut member.labels));
        form.holes += 1;
        if form.holes as usize * 2 > form.scopes.len() {
            self.close_up(number);
        }
        if full_of_gaps {
            let scopes = self.forms.iter_mut().flat_map(|form| &mut form.scopes);
            self.texts.close_up(scopes.map(|scope| &mut scope.labels));
        }
        self.loosen(number);
        self.let_go();
    }

    fn loosen(&mut self, number: u32) {
        if !std::mem::replace(&mut self.forms[number as usize].loose, true) {
            self.loose.push(number);
        }
    }

    /// Closes the gaps that scopes left which went.
    fn close_up(&mut self, number: u32) {
        let form = &mut self.forms[number as usize];
        let families = &form.beneath;
        let mut cursors = lock(&self.cursors);
        cursors.retain(|c| c.strong_count() > 0);
        for cursor in cursors.iter().filter_map(Weak::upgrade) {
            let mut cursor = lock(&cursor);
            let alive =
                |to: u32| form.scopes[..(to as usize).min(form.scopes.len())].iter().filter(|s| s.node != GONE).count();
            if families.contains(&cursor.form) {
                cursor.scope = alive(cursor.scope) as u32;
            }
            if let Some(length) = cursor.lengths.get(number as usize).copied() {
                cursor.lengths[number as usize] = alive(length) as u32;
            }
        }
        form.scopes.retain(|s| s.node != GONE);
        form.holes = 0;
        for (at, scope) in form.scopes.iter().enumerate() {
            if let Some(listed) = self.listed.get_mut(&scope.node) {
                listed.at = at as u32;
            }
        }
    }

    /// Gives forms back that nothing has any more, unless a page might stand there.
    fn let_go(&mut self) {
        {
            let mut cursors = lock(&self.cursors);
            cursors.retain(|c| c.strong_count() > 0);
            if !cursors.is_empty() {
                return;
            }
        }
        while let Some(number) = self.loose.pop() {
            let form = &mut self.forms[number as usize];
            form.loose = false;
            let idle = form.metrics == 0 && form.beneath.is_empty() && form.scopes.is_empty();
            if number == ROOT || !idle {
                continue;
            }
            let (above, hash) = (form.above, self.hash_of(number));
            IdTable::change(self, Self::index, |index, all| index.remove(hash, number, |n| all.hash_of(n)));
            self.forms[number as usize] = Form::new(ROOT, &[]);
            self.forms[above as usize].beneath.retain(|&n| n != number);
            self.free.push(number);
            self.loosen(above);
            *lock(&self.order) = None;
        }
    }

    /// A new page's place, before everything.
    pub(crate) fn begin(&self) -> Arc<Mutex<Cursor>> {
        let lengths = self.forms.iter().map(|f| f.scopes.len() as u32).collect();
        let cursor = Cursor { form: ROOT, pass: 0, scope: 0, done: 0, lengths, prunes: self.prunes };
        let cursor = Arc::new(Mutex::new(cursor));
        lock(&self.cursors).push(Arc::downgrade(&cursor));
        cursor
    }

    /// Up to which scope a page may show a family's.
    pub(crate) fn end(&self, cursor: &Cursor) -> usize {
        let above = self.form(cursor.form).above;
        let all = self.form(above).scopes.len();
        if cursor.prunes == self.prunes {
            return all;
        }
        cursor.lengths.get(above as usize).map_or(0, |&l| l as usize).min(all)
    }

    /// The families in the order of a page. It is put together when there is a new one, and kept.
    pub(crate) fn order(&self) -> Arc<Vec<u32>> {
        lock(&self.order).get_or_insert_with(|| Arc::new(self.sorted())).clone()
    }

    fn sorted(&self) -> Vec<u32> {
        let mut names: HashMap<&[u8], Vec<u32>, RandomState> = HashMap::default();
        let mut found = Vec::new();
        let mut rest = vec![ROOT];
        while let Some(number) = rest.pop() {
            let form = self.form(number);
            if form.family {
                names.entry(&form.name).or_default().push(number);
                found.push(&form.name);
            }
            rest.extend(form.beneath.iter().rev());
        }
        found.into_iter().flat_map(|name| names.remove(&**name).unwrap_or_default()).collect()
    }

    /// The scope that a metric belongs to, and its form.
    fn scope_of<'a>(&mut self, metric: &Spelled<'a>, make: bool) -> (ScopeOf<'a>, u32) {
        let depth = metric.path.len();
        let parent = if depth > 1 { metric.nodes[depth - 2] } else { 0 };
        // A scope that is listed is known, and so is what is above it: most metrics are in one that has another.
        let known = (0..depth).rev().find_map(|at| {
            let node = at.checked_sub(1).map_or(0, |above| metric.nodes[above]);
            self.listed.get(&node).map(|listed| (at, self.form(listed.form).spot, listed.form))
        });
        let (from, mut spot, mut form) = known.unwrap_or((0, Spot::Root, ROOT));
        let mut scope = None;
        for (at, name) in metric.path[..depth - 1].iter().enumerate().skip(from) {
            // An exception's cause belongs to the scope in which the first exception is.
            if spot == Spot::Failures && scope.is_none() {
                scope = Some((
                    ScopeOf { node: at.checked_sub(1).map_or(0, |a| metric.nodes[a]), spot, path: &metric.path[..at] },
                    form,
                ));
            }
            let (does, next) = spot.next(name.text());
            let own = Own::of(spot, name.text());
            if does != Does::Cause {
                form = self.beneath(form, own, name, make).unwrap_or(ROOT);
            }
            spot = next;
        }
        let own = ScopeOf { node: parent, spot, path: &metric.path[..depth - 1] };
        match scope {
            Some((scope, form)) if spot == Spot::Failure => (scope, form),
            _ => (own, form),
        }
    }

    /// The form beneath another whose key is this name as it is spelled, or the label whose value it is.
    fn beneath(&mut self, above: u32, own: Own, name: &Name, make: bool) -> Option<u32> {
        let mut key = std::mem::take(&mut self.key);
        key.clear();
        spell(&mut key, own, name);
        let form = self.form_of(above, &key, make);
        self.key = key;
        form
    }

    fn form_of(&mut self, above: u32, key: &[u8], make: bool) -> Option<u32> {
        let hash = self.hash(above, key);
        let is = |n: &u32| self.form(*n).above == above && &*self.form(*n).key == key;
        if let Some(found) = self.index.candidates(hash).find(is) {
            return Some(found);
        }
        if !make {
            return None;
        }
        let form = Form::new(above, key);
        let number = match self.free.pop() {
            Some(number) => {
                self.forms[number as usize] = form;
                number
            }
            None => {
                self.forms.push(form);
                (self.forms.len() - 1) as u32
            }
        };
        self.forms[above as usize].beneath.push(number);
        IdTable::change(self, Self::index, |index, all| index.insert(hash, number, |n| all.hash_of(n)));
        Some(number)
    }

    /// The text of a scope's labels, shared with the scope above that has the same: that goes with all beneath it.
    fn labels(&mut self, path: &[&Name], nodes: &[u32]) -> Text {
        let text = prometheus::labels(path);
        let above = nodes[..path.len()].iter().rev().filter_map(|node| self.listed.get(node));
        let mut labels = above.map(|l| self.form(l.form).scopes[l.at as usize].labels);
        match labels.find(|l| self.texts.get(*l) == text) {
            Some(same) => same.shared(),
            None => self.texts.add(&text),
        }
    }

    pub(crate) fn texts(&self) -> &Texts {
        &self.texts
    }

    /// What they take.
    pub(crate) fn bytes(&self) -> usize {
        let of = |form: &Form| {
            form.key.len()
                + form.name.len()
                + form.beneath.capacity() * size_of::<u32>()
                + form.keys.capacity() * size_of::<(u32, u32)>()
                + form.scopes.capacity() * size_of::<Member>()
        };
        self.forms.iter().map(of).sum::<usize>()
            + self.forms.capacity() * size_of::<Form>()
            + self.listed.capacity() * (size_of::<(u32, Listed)>() + 1)
            + self.index.bytes()
            + self.layouts.bytes()
            + self.texts.bytes()
    }

    fn index(&mut self) -> &mut IdTable {
        &mut self.index
    }

    fn hash(&self, above: u32, key: &[u8]) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        (above, key).hash(&mut hasher);
        std::hash::Hasher::finish(&hasher)
    }

    fn hash_of(&self, form: u32) -> u64 {
        self.hash(self.form(form).above, &self.form(form).key)
    }
}

/// A scope with metrics.
struct ScopeOf<'a> {
    node: u32,
    spot: Spot,
    path: &'a [&'a Name],
}

/// The last key of a form.
fn spell(out: &mut Vec<u8>, own: Own, name: &Name) {
    match own {
        Own::None => {
            // A byte before it, so that an empty key is one too.
            out.push(1);
            if name.is(Plain::Key) {
                out.extend_from_slice(name.text().as_bytes());
            } else {
                push_key(out, name.text());
            }
        }
        Own::Label(label) => {
            out.push(0);
            out.extend_from_slice(label.as_bytes());
        }
        Own::Exceptions => out.extend_from_slice(b"\0exceptions"),
    }
}

impl Own {
    /// What a key does at this spot.
    fn of(spot: Spot, key: &str) -> Self {
        match (spot, spot.next(key).0) {
            (Spot::Failures | Spot::Failure, _) => Self::Exceptions,
            (_, Does::Label(label)) => Self::Label(label),
            (_, Does::Exn) => Self::Label("exception"),
            (_, Does::Name | Does::Cause) => Self::None,
        }
    }
}

impl Form {
    fn new(above: u32, key: &[u8]) -> Self {
        Self {
            above,
            key: key.into(),
            beneath: Vec::new(),
            family: false,
            name: Box::default(),
            underscore: false,
            keys: Vec::new(),
            metrics: 0,
            stats: false,
            scopes: Vec::new(),
            spot: Spot::Root,
            holes: 0,
            loose: false,
        }
    }

    /// Counts one more metric, called by the name with this number.
    fn count(&mut self, own: Own, name: u32, metric: Metric) {
        self.stats |= matches!(metric, Metric::Stat(_));
        self.metrics += 1;
        match self.keys.iter_mut().find(|k| k.0 == name) {
            Some(key) => key.1 += 1,
            None if own == Own::None => self.keys.push((name, 1)),
            None => {}
        }
    }

    pub(crate) fn name(&self) -> &[u8] {
        &self.name
    }

    pub(crate) fn has_underscore(&self) -> bool {
        self.underscore
    }

    pub(crate) fn has_stats(&self) -> bool {
        self.stats
    }

    /// The names of its metrics' keys, by number.
    pub(crate) fn keys(&self) -> &[(u32, u32)] {
        &self.keys
    }

    /// What labels its metrics have of their own.
    pub(crate) fn own(&self) -> Own {
        match &*self.key {
            b"\0exceptions" => Own::Exceptions,
            b"\0exception" => Own::Label("exception"),
            b"\0rt" => Own::Label("rt"),
            b"\0service" => Own::Label("service"),
            b"\0client" => Own::Label("client"),
            b"\0server" => Own::Label("server"),
            _ => Own::None,
        }
    }
}
