//! Activities made from other activities. Each has a follower while anybody reads it and its sources can change.

use l5d_naming::{Activity, State};
use l5d_net::Follower;
use tokio::runtime::Handle;

/// What `f` makes of a source's state.
pub(crate) fn map<A, T>(
    runtime: &Handle,
    a: Activity<A>,
    f: impl Fn(State<A>) -> State<T> + Send + Sync + 'static,
) -> Activity<T>
where
    A: Clone + Send + Sync + 'static,
    T: PartialEq + Send + Sync + 'static,
{
    join(runtime, a, Activity::value(()), move |a, _| f(a))
}

/// What `f` makes of two sources' states.
pub(crate) fn join<A, B, T>(
    runtime: &Handle,
    mut a: Activity<A>,
    mut b: Activity<B>,
    f: impl Fn(State<A>, State<B>) -> State<T> + Send + Sync + 'static,
) -> Activity<T>
where
    A: Clone + Send + Sync + 'static,
    B: Clone + Send + Sync + 'static,
    T: PartialEq + Send + Sync + 'static,
{
    let (updater, derived) = Activity::channel();
    // Asked before they are read: what is read of a constant is its last state.
    let constant = a.is_constant() && b.is_constant();
    updater.set(f(a.read(), b.read()));
    if constant {
        return derived;
    }
    let follower = Follower::start(runtime, async move {
        let (mut a_changes, mut b_changes) = (true, true);
        while a_changes || b_changes {
            tokio::select! {
                changed = a.changed(), if a_changes => a_changes = changed,
                changed = b.changed(), if b_changes => b_changes = changed,
            }
            let state = f(a.read(), b.read());
            if updater.with(|last| *last != state) {
                updater.set(state);
            }
        }
    });
    derived.keeping(follower)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(a: State<u32>, b: State<u32>) -> State<u32> {
        match (a, b) {
            (State::Ok(a), State::Ok(b)) => State::Ok(a + b),
            _ => State::Pending,
        }
    }

    #[tokio::test]
    async fn a_join_follows_both_until_nobody_reads_it() {
        let (a, a_activity) = Activity::channel();
        let (b, b_activity) = Activity::channel();
        let mut joined = join(&Handle::current(), a_activity, b_activity, sum);
        a.ok(1);
        b.ok(2);
        assert_eq!(joined.settled().await, Ok(3));
        a.ok(5);
        while joined.read() != State::Ok(7) {
            assert!(joined.changed().await);
        }
        drop(b);
        a.ok(6);
        while joined.read() != State::Ok(8) {
            assert!(joined.changed().await);
        }
        drop(joined);
        a.closed().await;
    }

    #[tokio::test]
    async fn a_join_of_constants_is_there_at_once() {
        let joined = join(&Handle::current(), Activity::value(1), Activity::value(2), sum);
        assert_eq!(joined.current(), State::Ok(3));
        assert!(joined.is_constant());
    }
}
