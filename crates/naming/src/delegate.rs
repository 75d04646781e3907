//! Delegation: how a path is followed through a table and the namers until it is bound. Owns the order in which who is
//! asked, what alternatives and unions mean while they are bound, and the limits; the text forms and matching are
//! `dtab.rs`, the namers themselves are elsewhere.
//!
//! It is done by evaluating and watching. One evaluation goes from the path all the way with what is known *now*, noting
//! each activity that it read; when one of them changes, everything is evaluated again, and activities that were not
//! read any more are let go. That is less clever than a graph of dependent values and cheap enough: tables are small and
//! changes are rare next to requests.
//!
//! Contract: the table comes before the namers for every name; of the namers, the one listed last is asked first, and
//! the `/$` names last; at most [`MAX_DEPTH`] steps. Once a name is bound it stays bound while what it depends on is
//! pending or failing.
//!
//! A request may bring a table, so an evaluation is bounded in width too ([`MAX_LOOKUPS`]): `/a => /a/b & /a/c` would
//! otherwise have 2^100 leaves.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use crate::activity::{Activity, State, Updater};
use crate::addr::AddrWatch;
use crate::delegate_tree::{BoundLeaf, DelegateNode, DelegateTree};
use crate::dtab::{Dentry, Dtab};
use crate::name_tree::NameTree;
use crate::namer::{Bound, Name, Namer};
use crate::path::Path;

/// How many steps a name may take before it is bound.
pub const MAX_DEPTH: usize = 100;

/// How many names may be looked up to bind one.
pub const MAX_LOOKUPS: usize = 5_000;

/// How deep calls may nest in one evaluation: enough for [`MAX_DEPTH`] steps through ordinary trees, and a bound on the
/// stack for trees full of parentheses.
const MAX_NESTING: usize = 600;

/// The namers of an interpreter, in the order in which they are asked.
#[derive(Clone)]
pub struct Namers(Arc<[Arc<dyn Namer>]>);

impl Namers {
    /// Configured namers as they are listed, of which the last takes precedence; then those that are always there.
    pub fn new(listed: &[Arc<dyn Namer>], built_in: &[Arc<dyn Namer>]) -> Self {
        Self(listed.iter().rev().chain(built_in).cloned().collect())
    }
}

/// One name being bound.
pub struct Binding {
    /// What the interpreter puts before the table it is given.
    own: Option<Activity<Dtab>>,
    given: Dtab,
    path: Path,
    reads: Reads,
    /// The table of this round.
    table: Dtab,
}

type Evaluated = State<NameTree<Bound>>;

impl Binding {
    /// Binds `path` with a table, which follows the interpreter's own one if it has one.
    pub fn new(namers: Namers, own: Option<Activity<Dtab>>, given: Dtab, path: Path) -> Self {
        Self { own, given, path, reads: Reads::new(namers), table: Dtab::empty() }
    }

    /// Evaluates at once. The future keeps the result current and has to be spawned; there is none if nothing that the
    /// result depends on can change. It ends when nobody reads the activity any more.
    pub fn start(mut self) -> (Activity<NameTree<Bound>>, Option<impl Future<Output = ()> + Send + 'static>) {
        let (updater, activity) = Activity::channel();
        // Asked before it is read: what was read then is the last state.
        let own_is_constant = self.own.as_ref().is_none_or(Activity::is_constant);
        updater.set(self.evaluate());
        if own_is_constant && self.reads.are_constant() {
            return (activity, None);
        }
        (activity, Some(self.run(updater)))
    }

    async fn run(mut self, updater: Updater<NameTree<Bound>>) {
        loop {
            if !changed_or_closed(&updater, self.own.as_mut(), &mut self.reads).await {
                return;
            }
            let evaluated = self.evaluate();
            let publish = updater.with(|last| match (last, &evaluated) {
                (State::Ok(last), State::Ok(now)) => last != now,
                // Whoever is bound stays bound until there is another answer.
                (State::Ok(last), State::Pending | State::Failed(_)) => !last.has_leaf(),
                (State::Failed(last), State::Failed(now)) => last != now,
                (State::Pending, State::Pending) => false,
                _ => true,
            });
            if publish {
                updater.set(evaluated);
            }
        }
    }

    fn evaluate(&mut self) -> Evaluated {
        self.reads.begin();
        let evaluated = match self.own.as_mut().map(Activity::read) {
            None => {
                self.table = self.given.clone();
                self.name(&self.path.clone(), 0)
            }
            Some(State::Ok(own)) => {
                self.table = own.concat(&self.given);
                self.name(&self.path.clone(), 0)
            }
            Some(State::Pending) => State::Pending,
            Some(State::Failed(why)) => State::Failed(why),
        };
        self.reads.end();
        evaluated
    }

    /// A path: through the table if an entry matches, else by the namers.
    fn name(&mut self, path: &Path, depth: usize) -> Evaluated {
        if let Err(why) = self.reads.enter(depth) {
            return State::Failed(why);
        }
        let table = self.table.clone();
        let mut matched = false;
        let mut result = State::Ok(NameTree::Neg);
        for dentry in table.matches(path) {
            matched = true;
            let rest = path.drop(dentry.prefix.len());
            result = self.tree(&dentry.dst, &mut |this, leaf| this.name(&leaf.concat(&rest), depth + 1));
            if !matches!(result, State::Ok(NameTree::Neg)) {
                break;
            }
        }
        if !matched {
            result = match self.reads.lookup(path) {
                State::Ok(tree) => self.tree(&tree, &mut |this, leaf| match leaf {
                    Name::Path(path) => this.name(path, depth + 1),
                    Name::Bound(bound) => State::Ok(NameTree::Leaf(bound.clone())),
                }),
                State::Pending => State::Pending,
                State::Failed(why) => State::Failed(why),
            };
        }
        self.reads.leave();
        result
    }

    /// A tree of anything that can be bound.
    fn tree<L>(&mut self, tree: &NameTree<L>, leaf: &mut dyn FnMut(&mut Self, &L) -> Evaluated) -> Evaluated {
        if let Err(why) = self.reads.nest() {
            return State::Failed(why);
        }
        let result = match tree {
            NameTree::Leaf(value) => leaf(self, value),
            NameTree::Neg => State::Ok(NameTree::Neg),
            NameTree::Fail => State::Ok(NameTree::Fail),
            NameTree::Empty => State::Ok(NameTree::Empty),
            NameTree::Alt(trees) => {
                let mut result = State::Ok(NameTree::Neg);
                for tree in trees {
                    result = self.tree(tree, leaf);
                    if !matches!(result, State::Ok(NameTree::Neg)) {
                        break;
                    }
                }
                result
            }
            NameTree::Union(trees) if trees.len() == 1 => self.tree(&trees[0].1, leaf),
            NameTree::Union(trees) => self.union(trees, leaf),
        };
        self.reads.leave();
        result
    }

    /// All branches are bound; what is pending or failed is left out while there is at least one answer.
    fn union<L>(
        &mut self,
        trees: &[(f64, NameTree<L>)],
        leaf: &mut dyn FnMut(&mut Self, &L) -> Evaluated,
    ) -> Evaluated {
        let mut answers = Vec::with_capacity(trees.len());
        let mut without = None;
        for (weight, tree) in trees {
            match (self.tree(tree, leaf), &without) {
                (State::Ok(tree), _) => answers.push((*weight, tree)),
                (failed @ State::Failed(_), None | Some(State::Pending)) => without = Some(failed),
                (State::Pending, None) => without = Some(State::Pending),
                _ => {}
            }
        }
        match without {
            Some(without) if answers.is_empty() => without,
            _ => State::Ok(NameTree::Union(answers).simplified()),
        }
    }
}

/// How `path` is delegated through an interpreter's own table, if it has one, and a given one, with all alternatives.
/// Waits for what is pending, addresses too.
pub async fn delegate(
    namers: Namers,
    own: Option<Activity<Dtab>>,
    given: Dtab,
    path: Path,
) -> Result<DelegateTree, Arc<str>> {
    let mut own = own;
    let table = match &mut own {
        Some(own) => own.settled().await?.concat(&given),
        None => given,
    };
    let mut explaining = Explaining { table, reads: Reads::new(namers), pending: false, addrs: Vec::new() };
    loop {
        explaining.reads.begin();
        explaining.pending = false;
        explaining.addrs.clear();
        let mut tree = explaining.name(&path, None, 0);
        explaining.reads.end();
        if explaining.pending {
            if !explaining.reads.changed().await {
                std::future::pending::<()>().await;
            }
            continue;
        }
        // The leaves are still in the order in which they were found: simplifying comes after.
        let mut addrs = Vec::with_capacity(explaining.addrs.len());
        for addr in &mut explaining.addrs {
            addrs.push(addr.settled().await);
        }
        let mut addrs = addrs.into_iter();
        tree.for_each_leaf(&mut |leaf| {
            if let Some(addr) = addrs.next() {
                leaf.addr = addr;
            }
        });
        return Ok(tree.simplified());
    }
}

/// One name being explained.
struct Explaining {
    table: Dtab,
    reads: Reads,
    /// Whether something that was read is not known yet.
    pending: bool,
    /// The addresses of the leaves, in their order.
    addrs: Vec<AddrWatch>,
}

/// What a leaf of a tree becomes.
type Explain<'a, L> = &'a mut dyn FnMut(&mut Explaining, &L) -> DelegateTree;

impl Explaining {
    fn name(&mut self, path: &Path, dentry: Option<&Dentry>, depth: usize) -> DelegateTree {
        let node = |node| DelegateTree::new(path.clone(), dentry.cloned(), node);
        if let Err(why) = self.reads.enter(depth) {
            return node(DelegateNode::Exception(why.to_string()));
        }
        let table = self.table.clone();
        let mut matches: Vec<DelegateTree> = Vec::new();
        for dentry in table.matches(path) {
            let rest = path.drop(dentry.prefix.len());
            matches.push(self.tree(path, Some(dentry), &dentry.dst, &mut |this, leaf| {
                this.name(&leaf.concat(&rest), Some(dentry), depth + 1)
            }));
        }
        let tree = match matches.len() {
            0 => match self.reads.lookup(path) {
                State::Ok(NameTree::Neg) => node(DelegateNode::Neg),
                State::Ok(tree) => self.tree(path, dentry, &tree, &mut |this, leaf| match leaf {
                    Name::Path(path) => this.name(path, dentry, depth + 1),
                    Name::Bound(bound) => this.leaf(path, dentry, bound),
                }),
                State::Failed(why) => node(DelegateNode::Exception(why.to_string())),
                State::Pending => {
                    self.pending = true;
                    node(DelegateNode::Neg)
                }
            },
            1 => node(DelegateNode::Delegate(Box::new(matches.remove(0)))),
            _ => node(DelegateNode::Alt(matches)),
        };
        self.reads.leave();
        tree
    }

    fn tree<L>(
        &mut self,
        path: &Path,
        dentry: Option<&Dentry>,
        tree: &NameTree<L>,
        leaf: Explain<'_, L>,
    ) -> DelegateTree {
        let node = |node| DelegateTree::new(path.clone(), dentry.cloned(), node);
        if let Err(why) = self.reads.nest() {
            return node(DelegateNode::Exception(why.to_string()));
        }
        let explained = match tree {
            NameTree::Leaf(value) => leaf(self, value),
            // Without a name it is shown as the `~` that was written.
            NameTree::Neg => DelegateTree::new(Path::empty(), dentry.cloned(), DelegateNode::Neg),
            NameTree::Fail => node(DelegateNode::Fail),
            NameTree::Empty => node(DelegateNode::Empty),
            NameTree::Alt(trees) => {
                node(DelegateNode::Alt(trees.iter().map(|tree| self.tree(path, dentry, tree, leaf)).collect()))
            }
            NameTree::Union(trees) => node(DelegateNode::Union(
                trees.iter().map(|(weight, tree)| (*weight, self.tree(path, dentry, tree, leaf))).collect(),
            )),
        };
        self.reads.leave();
        explained
    }

    fn leaf(&mut self, path: &Path, dentry: Option<&Dentry>, bound: &Bound) -> DelegateTree {
        let leaf = BoundLeaf { addr: bound.addr.current(), id: bound.id.clone(), path: bound.residual.clone() };
        self.addrs.push(bound.addr.clone());
        DelegateTree::new(path.clone(), dentry.cloned(), DelegateNode::Leaf(leaf))
    }
}

/// What an evaluation read from namers, kept from one round to the next, and what the round may still spend.
struct Reads {
    namers: Namers,
    used: HashMap<(usize, Path), Read>,
    round: u64,
    lookups: usize,
    nesting: usize,
}

struct Read {
    activity: Activity<NameTree<Name>>,
    round: u64,
    /// Whether there was nobody who could change it, before it was read: what was read then is the last state.
    constant: bool,
}

impl Reads {
    fn new(namers: Namers) -> Self {
        Self { namers, used: HashMap::new(), round: 0, lookups: 0, nesting: 0 }
    }

    fn begin(&mut self) {
        self.round += 1;
        self.lookups = 0;
        self.nesting = 0;
    }

    /// Lets go what this round did not read.
    fn end(&mut self) {
        let round = self.round;
        self.used.retain(|_, read| read.round == round);
    }

    /// Begins one step of a name; [`Reads::leave`] ends it, unless it is refused.
    fn enter(&mut self, depth: usize) -> Result<(), Arc<str>> {
        if depth > MAX_DEPTH {
            return Err(format!("Max recursion level: {MAX_DEPTH} reached in Namer lookup").into());
        }
        if self.lookups == MAX_LOOKUPS {
            return Err(format!("more than {MAX_LOOKUPS} names to look up for one").into());
        }
        self.lookups += 1;
        self.nest()
    }

    fn nest(&mut self) -> Result<(), Arc<str>> {
        if self.nesting == MAX_NESTING {
            return Err("trees nested too deeply to be evaluated".into());
        }
        self.nesting += 1;
        Ok(())
    }

    fn leave(&mut self) {
        self.nesting -= 1;
    }

    /// Asks the namers whose prefix matches, one after the other until one is not negative.
    fn lookup(&mut self, path: &Path) -> State<NameTree<Name>> {
        for (at, namer) in self.namers.0.iter().enumerate() {
            if !path.starts_with(namer.prefix()) {
                continue;
            }
            let rest = path.drop(namer.prefix().len());
            let read = self.used.entry((at, rest)).or_insert_with_key(|(_, rest)| Read {
                activity: namer.lookup(rest),
                round: 0,
                constant: false,
            });
            read.round = self.round;
            read.constant = read.activity.is_constant();
            match read.activity.read() {
                State::Ok(NameTree::Neg) => {}
                state => return state,
            }
        }
        State::Ok(NameTree::Neg)
    }

    fn are_constant(&self) -> bool {
        self.used.values().all(|read| read.constant)
    }

    /// Waits until something that was read changes; false if nothing can.
    async fn changed(&mut self) -> bool {
        let mut waiting: Vec<Waiting<'_>> = self.waiting().collect();
        poll_fn(|cx| poll_any(&mut waiting, cx)).await
    }

    fn waiting(&mut self) -> impl Iterator<Item = Waiting<'_>> {
        self.used.values_mut().map(|read| Box::pin(read.activity.changed()) as Waiting<'_>)
    }
}

type Waiting<'a> = Pin<Box<dyn Future<Output = bool> + Send + 'a>>;

/// Ready with true when one has changed, with false when none can change any more.
fn poll_any(waiting: &mut Vec<Waiting<'_>>, cx: &mut std::task::Context<'_>) -> Poll<bool> {
    let mut at = 0;
    while at < waiting.len() {
        match waiting[at].as_mut().poll(cx) {
            Poll::Ready(true) => return Poll::Ready(true),
            Poll::Ready(false) => drop(waiting.swap_remove(at)),
            Poll::Pending => at += 1,
        }
    }
    if waiting.is_empty() { Poll::Ready(false) } else { Poll::Pending }
}

/// False when nobody reads any more, or when nothing can change any more.
async fn changed_or_closed(
    updater: &Updater<NameTree<Bound>>,
    own: Option<&mut Activity<Dtab>>,
    reads: &mut Reads,
) -> bool {
    let mut closed = pin!(updater.closed());
    let mut waiting: Vec<Waiting<'_>> = reads.waiting().collect();
    waiting.extend(own.map(|own| Box::pin(own.changed()) as Waiting<'_>));
    poll_fn(|cx| match closed.as_mut().poll(cx) {
        Poll::Ready(()) => Poll::Ready(false),
        Poll::Pending => poll_any(&mut waiting, cx),
    })
    .await
}
