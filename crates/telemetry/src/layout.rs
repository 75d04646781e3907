//! Where the counters of a scope lie, known once for all scopes that have the same ones.
//!
//! Scopes of one form make the same counters in the same order, and slots are given out in a row, mostly. So a counter is as
//! far from its scope's first in each of them. A *layout* is a list of counters' names with these distances. The layouts of
//! a form are a tree: a scope that gets one more counter goes on to a layout beneath its own. A page that knows a scope's
//! layout and first slot finds a counter of it without its node, which of a million would be one more that comes from
//! memory. And a layout knows its counter's family, so that this is not looked for again for each scope.
//!
//! What a layout says of its scopes is true, but it need not say all: a counter whose slot is far from the first, or that
//! comes when there are many layouts, is in none, and is found by its node. When a counter goes, its scope begins anew with
//! those to come.

use crate::collide::IdTable;
use crate::names::push;

/// The layouts of a tree's scopes.
#[derive(Default)]
pub(crate) struct Layouts {
    all: Vec<Layout>,
    free: Vec<u32>,
    /// One more than the number of each, by the one above and what is last in it.
    index: IdTable,
}

/// One more counter than the layout above has.
struct Layout {
    above: u32,
    last: Last,
    /// The form of the counter's family.
    family: u32,
    /// How many scopes have this or one beneath.
    scopes: u32,
    /// To which one beneath a scope went on last.
    likely: u32,
}

/// A counter.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Last {
    /// What it is called, by number. The name is in use as long as a scope has the layout.
    name: u32,
    /// How far its slot is from the scope's first.
    apart: i8,
}

/// The layout of a scope, and its first slot.
#[derive(Clone, Copy)]
pub(crate) struct Laid {
    layout: u32,
    first: u32,
}

/// Where the layouts have the counters of one name.
pub(crate) struct Column<'a> {
    layouts: &'a Layouts,
    name: u32,
    /// What was found of some layouts.
    found: [(u32, Option<i8>); 8],
}

/// With a form's number: the layout of its scopes that have no counter yet.
const NOTHING: u32 = 1 << 31;
/// No layout.
const NONE: u32 = NOTHING - 1;
/// More layouts than this are not made. A proxy has some tens.
const MOST: usize = 4096;

impl Layouts {
    /// Goes on to the layout that has a counter more, when there is one; returns the counter's family.
    #[inline]
    pub(crate) fn follow(&mut self, scope: &mut Laid, name: u32, slot: u32) -> Option<u32> {
        let (first, last) = scope.with(name, slot)?;
        let is = |n: u32| self.all.get(n as usize).is_some_and(|l| l.above == scope.layout && l.last == last);
        let likely = self.all.get(scope.layout as usize).map_or(NONE, |layout| layout.likely);
        let next = if is(likely) { likely } else { self.find(scope.layout, last)? };
        if let Some(layout) = self.all.get_mut(scope.layout as usize) {
            layout.likely = next;
        }
        *scope = Laid { layout: next, first };
        let next = &mut self.all[next as usize];
        next.scopes += 1;
        Some(next.family)
    }

    /// The same, where the layout is made when there is none. It knows the counter's family then.
    pub(crate) fn go_on(&mut self, scope: &mut Laid, name: u32, slot: u32, family: u32) {
        if self.follow(scope, name, slot).is_some() || self.all.len() - self.free.len() >= MOST {
            return;
        }
        let Some((first, last)) = scope.with(name, slot) else { return };
        let new = Layout { above: scope.layout, last, family, scopes: 1, likely: NONE };
        let (hash, number) = (new.hash(), self.free.pop().unwrap_or(self.all.len() as u32));
        match self.all.get_mut(number as usize) {
            Some(free) => *free = new,
            None => push(&mut self.all, new),
        }
        IdTable::change(self, Self::index, |index, all| index.insert(hash, number + 1, |id| all.hash_of(id)));
        *scope = Laid { layout: number, first };
    }

    fn find(&self, above: u32, last: Last) -> Option<u32> {
        let is = |n: &u32| self.all[*n as usize].above == above && self.all[*n as usize].last == last;
        self.index.candidates(hash(above, last)).map(|id| id - 1).find(is)
    }

    /// A scope forgets what was said of its counters.
    pub(crate) fn leave(&mut self, scope: &mut Laid) {
        while scope.layout < NOTHING {
            let number = scope.layout;
            let layout = &mut self.all[number as usize];
            scope.layout = layout.above;
            layout.scopes -= 1;
            if layout.scopes == 0 {
                let hash = layout.hash();
                IdTable::change(self, Self::index, |index, all| {
                    index.remove(hash, number + 1, |id| all.hash_of(id));
                });
                self.all[number as usize].above = NONE;
                self.free.push(number);
            }
        }
    }

    /// The counters of this name.
    pub(crate) fn column(&self, name: u32) -> Column<'_> {
        Column { layouts: self, name, found: [(NONE, None); 8] }
    }

    /// What they take.
    pub(crate) fn bytes(&self) -> usize {
        self.all.capacity() * size_of::<Layout>() + self.free.capacity() * size_of::<u32>() + self.index.bytes()
    }

    fn index(&mut self) -> &mut IdTable {
        &mut self.index
    }

    fn hash_of(&self, id: u32) -> u64 {
        self.all[id as usize - 1].hash()
    }
}

impl Layout {
    fn hash(&self) -> u64 {
        hash(self.above, self.last)
    }
}

impl Laid {
    /// A scope of a form, without counters.
    pub(crate) fn of(form: u32) -> Self {
        Self { layout: NOTHING | form, first: 0 }
    }

    /// Its first slot when it has one more counter, and that, unless it is too far away.
    fn with(self, name: u32, slot: u32) -> Option<(u32, Last)> {
        let first = if self.layout < NOTHING { self.first } else { slot };
        let apart = slot.wrapping_sub(first).cast_signed().try_into().ok()?;
        Some((first, Last { name, apart }))
    }
}

impl Column<'_> {
    /// The slot of a scope's counter, if its layout has it.
    #[inline(always)]
    pub(crate) fn slot(&mut self, scope: Laid) -> Option<u32> {
        let near = scope.layout as usize % self.found.len();
        if self.found[near].0 != scope.layout {
            self.found[near] = (scope.layout, self.find(scope.layout));
        }
        Some(scope.first.wrapping_add_signed(self.found[near].1?.into()))
    }

    #[cold]
    #[inline(never)]
    fn find(&self, mut number: u32) -> Option<i8> {
        while let Some(layout) = self.layouts.all.get(number as usize) {
            if layout.last.name == self.name {
                return Some(layout.last.apart);
            }
            number = layout.above;
        }
        None
    }
}

fn hash(above: u32, last: Last) -> u64 {
    // Odd constants without meaning keep the parts apart; the table mixes.
    u64::from(above).wrapping_mul(0x9FB2_1C65_1E98_DF25)
        ^ u64::from(last.name).wrapping_mul(0xD6E8_FEB8_6659_FD93)
        ^ u64::from(last.apart.cast_unsigned()).wrapping_mul(0xA076_1D64_78BD_642F)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn scopes_that_are_alike_share_a_layout() {
        let mut layouts = Layouts::default();
        let mut scopes = [Laid::of(7); 3];
        for (at, scope) in scopes.iter_mut().enumerate() {
            for (name, slot) in [(5, 100), (6, 101), (9, 103)] {
                layouts.go_on(scope, name, slot + 10 * at as u32, name + 20);
            }
        }
        assert_eq!(layouts.all.len(), 3);
        assert!(scopes.iter().all(|scope| scope.layout == scopes[0].layout));
        let mut column = layouts.column(9);
        assert_eq!(scopes.map(|scope| column.slot(scope)), [Some(103), Some(113), Some(123)]);
        // One of another form has its own, and what is far away has none.
        let mut other = Laid::of(8);
        assert_eq!(layouts.follow(&mut other, 5, 100), None);
        assert_eq!(layouts.follow(&mut scopes[0], 10, 100 + 128), None);
        scopes.iter_mut().for_each(|scope| layouts.leave(scope));
        assert_eq!(layouts.free.len(), 3);
        assert_eq!(layouts.index.len(), 0);
        assert_eq!(layouts.follow(&mut other, 5, 100), None, "what nobody has is gone");
    }

    #[test]
    fn a_scope_does_not_go_on_to_a_layout_that_was_given_back() {
        let mut layouts = Layouts::default();
        let mut scopes = [Laid::of(1); 3];
        scopes.iter_mut().for_each(|scope| layouts.go_on(scope, 5, 100, 20));
        // The second finds what the first made, so that it is the likely one.
        scopes[..2].iter_mut().for_each(|scope| layouts.go_on(scope, 6, 101, 21));
        scopes[..2].iter_mut().for_each(|scope| layouts.leave(scope));
        assert_eq!(layouts.follow(&mut scopes[2], 6, 101), None);
    }

    proptest! {
        /// A scope's layout tells the slots of its counters, or nothing, whatever the others do.
        #[test]
        fn a_layout_tells_nothing_wrong(acts in prop::collection::vec((0..6_usize, 0..4_u32, 0..5_u32), 0..300)) {
            let mut layouts = Layouts::default();
            let mut scopes = [0, 0, 1, 1, 2, 2].map(|form| (Laid::of(form), Vec::new()));
            for (at, name, slot) in acts {
                // Some are too far apart.
                let slot = slot * 50;
                let (laid, counters) = &mut scopes[at];
                if name == 0 {
                    layouts.leave(laid);
                    counters.clear();
                } else if counters.iter().all(|&(known, _)| known != name) {
                    layouts.go_on(laid, name, slot, 100 + name);
                    counters.push((name, slot));
                }
                for (laid, counters) in &scopes {
                    for name in 0..4 {
                        let slot = layouts.column(name).slot(*laid);
                        prop_assert!(slot.is_none_or(|slot| counters.contains(&(name, slot))));
                        let first = counters.first().filter(|(first, _)| *first == name);
                        prop_assert!(first.is_none_or(|&(_, first)| slot == Some(first)), "the first is always known");
                    }
                }
            }
            scopes.iter_mut().for_each(|(laid, _)| layouts.leave(laid));
            prop_assert_eq!(layouts.all.len(), layouts.free.len());
            prop_assert_eq!(layouts.index.len(), 0);
        }
    }
}
