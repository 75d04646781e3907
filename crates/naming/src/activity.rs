//! A value that changes while somebody looks: pending at first, then good or failed, again and again. Owns the pair of
//! writer and readers, and that the work behind a value ends with its last reader. Addresses change the same way, but
//! have states of their own: see `addr.rs`.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use tokio::sync::watch;

/// What an [`Activity`] is just now.
#[derive(Clone, PartialEq, Eq)]
pub enum State<T> {
    /// Nothing is known yet.
    Pending,
    /// The value.
    Ok(T),
    /// Why there is none.
    Failed(Arc<str>),
}

/// A changing value. Clones see the same value, each remembers what it has seen.
///
/// When the last clone is dropped, what keeps the value up to date stops: its [`Updater`] is told, and what
/// [`Activity::keeping`] added is dropped.
#[derive(Clone)]
pub struct Activity<T> {
    state: watch::Receiver<State<T>>,
    kept: Option<Arc<Kept>>,
}

/// A list, for an activity may be handed on by several hands that each keep something alive.
pub(crate) struct Kept {
    _this: Box<dyn Any + Send + Sync>,
    _rest: Option<Arc<Self>>,
}

/// The writing end of an [`Activity`]. When it is dropped, the value stays as it is.
pub struct Updater<T>(watch::Sender<State<T>>);

impl<T> Activity<T> {
    /// A value that never changes.
    pub fn value(value: T) -> Self {
        Self::constant(State::Ok(value))
    }

    /// A failure that never ends.
    pub fn failed(why: impl Into<Arc<str>>) -> Self {
        Self::constant(State::Failed(why.into()))
    }

    /// Pending for ever.
    pub fn pending() -> Self {
        Self::constant(State::Pending)
    }

    /// A state that never changes.
    pub fn constant(state: State<T>) -> Self {
        Self { state: watch::channel(state).1, kept: None }
    }

    /// A writer and its first reader, pending.
    pub fn channel() -> (Updater<T>, Self) {
        let (sender, state) = watch::channel(State::Pending);
        (Updater(sender), Self { state, kept: None })
    }

    /// Keeps something alive for as long as any clone of the result lives.
    #[must_use]
    pub fn keeping(self, what: impl Any + Send + Sync) -> Self {
        Self { state: self.state, kept: Some(Kept::new(what, self.kept)) }
    }

    /// Waits for a state that this clone has not seen; false when none will come.
    pub async fn changed(&mut self) -> bool {
        self.state.changed().await.is_ok()
    }

    /// Whether both read the same value.
    pub fn same(&self, other: &Self) -> bool {
        self.state.same_channel(&other.state)
    }

    /// Whether the state can't change any more.
    pub fn is_constant(&self) -> bool {
        self.state.has_changed().is_err()
    }
}

impl<T: Clone> Activity<T> {
    /// The state now, which counts as seen by this clone the next time it asks [`Activity::changed`].
    pub fn read(&mut self) -> State<T> {
        self.state.borrow_and_update().clone()
    }

    /// The state now.
    pub fn current(&self) -> State<T> {
        self.state.borrow().clone()
    }

    /// Waits until there is a value or a failure. Pends for ever if nothing will come.
    pub async fn settled(&mut self) -> Result<T, Arc<str>> {
        loop {
            match self.read() {
                State::Ok(value) => return Ok(value),
                State::Failed(why) => return Err(why),
                State::Pending if self.changed().await => {}
                State::Pending => std::future::pending::<()>().await,
            }
        }
    }
}

impl<T> Updater<T> {
    /// Sets the state and wakes the readers.
    pub fn set(&self, state: State<T>) {
        self.0.send_replace(state);
    }

    /// Sets a value.
    pub fn ok(&self, value: T) {
        self.set(State::Ok(value));
    }

    /// Sets a failure.
    pub fn fail(&self, why: impl Into<Arc<str>>) {
        self.set(State::Failed(why.into()));
    }

    /// One more reader.
    pub fn activity(&self) -> Activity<T> {
        Activity { state: self.0.subscribe(), kept: None }
    }

    /// Looks at the state that was set last, without a copy.
    pub fn with<R>(&self, look: impl FnOnce(&State<T>) -> R) -> R {
        look(&self.0.borrow())
    }

    /// Waits until nobody reads any more.
    pub async fn closed(&self) {
        self.0.closed().await;
    }

    /// Whether nobody reads.
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

impl Kept {
    pub(crate) fn new(this: impl Any + Send + Sync, rest: Option<Arc<Self>>) -> Arc<Self> {
        Arc::new(Self { _this: Box::new(this), _rest: rest })
    }
}

impl<T: fmt::Debug> fmt::Debug for State<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pending => f.write_str("Pending"),
            Self::Ok(value) => f.debug_tuple("Ok").field(value).finish(),
            Self::Failed(why) => f.debug_tuple("Failed").field(why).finish(),
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for Activity<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Activity({:?})", *self.state.borrow())
    }
}

impl<T> fmt::Debug for Updater<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Updater")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn readers_see_what_is_written_and_then_the_end() {
        let (updater, mut activity) = Activity::channel();
        assert_eq!(activity.read(), State::Pending);
        updater.ok(1);
        assert!(activity.changed().await);
        assert_eq!(activity.read(), State::Ok(1));
        updater.fail("gone");
        drop(updater);
        assert!(activity.changed().await, "the last state is seen even though its writer has left");
        assert_eq!(activity.read(), State::Failed("gone".into()));
        assert!(!activity.changed().await);
        assert!(activity.is_constant());
    }

    #[tokio::test]
    async fn the_last_reader_ends_the_work() {
        let (updater, activity) = Activity::<u8>::channel();
        let kept = Arc::new(());
        let activity = activity.keeping(kept.clone()).keeping(kept.clone());
        let other = activity.clone();
        drop(activity);
        assert_eq!(Arc::strong_count(&kept), 3);
        assert!(!updater.is_closed());
        drop(other);
        updater.closed().await;
        assert_eq!(Arc::strong_count(&kept), 1);
    }

    #[tokio::test]
    async fn a_constant_is_there_at_once() {
        let mut activity = Activity::value("x");
        assert_eq!(activity.settled().await, Ok("x"));
        assert!(!activity.changed().await);
        assert_eq!(Activity::<u8>::failed("why").settled().await, Err("why".into()));
    }
}
