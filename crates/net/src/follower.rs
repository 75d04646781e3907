//! A task that waits for changes which may never come.
//!
//! Each name and each client is followed by one, on the control thread, so that what a change takes is not taken from
//! requests. But to spawn a task there wakes that thread, and a new name wants several. So a follower runs to its first
//! wait where it is made, and only what wakes it there puts it on its runtime: until then it costs no thread anything.

use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Wake, Waker};

use tokio::runtime::Handle;
use tokio::task::AbortHandle;

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Ends its task when it is dropped.
#[must_use = "its task ends when it is dropped"]
pub struct Follower(Arc<Inner>);

struct Inner {
    runtime: Handle,
    state: Mutex<State>,
}

enum State {
    /// It runs to its first wait here, and may be woken before it gets there.
    Beginning {
        woken: bool,
    },
    Asleep(Task),
    /// It is being put on its runtime.
    Waking,
    Awake(AbortHandle),
    Over,
}

impl Follower {
    /// Begins `task` at once, on this thread, and goes on with it on `runtime` when it is woken. Up to its first wait
    /// it has neither timers nor sockets.
    pub fn start(runtime: &Handle, task: impl Future<Output = ()> + Send + 'static) -> Self {
        let inner = Arc::new(Inner { runtime: runtime.clone(), state: Mutex::new(State::Beginning { woken: false }) });
        let mut task: Task = Box::pin(task);
        let waker = Waker::from(Arc::clone(&inner));
        let is_over = task.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
        let woken = {
            let mut state = inner.state();
            match *state {
                _ if is_over => {
                    *state = State::Over;
                    None
                }
                State::Beginning { woken: true } => {
                    *state = State::Waking;
                    Some(task)
                }
                _ => {
                    *state = State::Asleep(task);
                    None
                }
            }
        };
        if let Some(task) = woken {
            inner.put_on_runtime(task);
        }
        Self(inner)
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let state = mem::replace(&mut *self.0.state(), State::Over);
        if let State::Awake(task) = &state {
            task.abort();
        }
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be called without the lock: a runtime that has ended drops the task at once, and with it perhaps other
    /// followers, or what wakes them.
    fn put_on_runtime(&self, task: Task) {
        let handle = self.runtime.spawn(task).abort_handle();
        let mut state = self.state();
        if matches!(*state, State::Waking) {
            *state = State::Awake(handle);
        } else {
            drop(state);
            handle.abort();
        }
    }
}

impl Wake for Inner {
    fn wake(self: Arc<Self>) {
        let mut state = self.state();
        match mem::replace(&mut *state, State::Waking) {
            State::Asleep(task) => {
                drop(state);
                self.put_on_runtime(task);
            }
            State::Beginning { .. } => *state = State::Beginning { woken: true },
            as_before => *state = as_before,
        }
    }
}

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match *self.0.state() {
            State::Beginning { .. } | State::Asleep(_) => "Follower(asleep)",
            State::Waking | State::Awake(_) => "Follower(awake)",
            State::Over => "Follower(over)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread::{self, ThreadId};

    use tokio::sync::{mpsc, watch};

    /// A runtime's handle, for as long as its thread runs it.
    fn elsewhere() -> (Handle, ThreadId, impl Drop) {
        struct End(Option<tokio::sync::oneshot::Sender<()>>, Option<thread::JoinHandle<()>>);
        impl Drop for End {
            fn drop(&mut self) {
                drop(self.0.take());
                self.1.take().unwrap().join().unwrap();
            }
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let handle = runtime.handle().clone();
        let (end, ended) = tokio::sync::oneshot::channel();
        let thread = thread::spawn(move || drop(runtime.block_on(ended)));
        let id = thread.thread().id();
        (handle, id, End(Some(end), Some(thread)))
    }

    /// What a follower of `changes` saw, and on which threads.
    fn follow(
        runtime: &Handle,
        mut changes: watch::Receiver<u32>,
    ) -> (Follower, mpsc::UnboundedReceiver<(u32, ThreadId)>) {
        let (saw, seen) = mpsc::unbounded_channel();
        let follower = Follower::start(runtime, async move {
            loop {
                let now = *changes.borrow_and_update();
                saw.send((now, thread::current().id())).unwrap();
                if changes.changed().await.is_err() {
                    return;
                }
            }
        });
        (follower, seen)
    }

    #[tokio::test]
    async fn it_begins_here_and_goes_on_there() {
        let (runtime, there, _end) = elsewhere();
        let (change, changes) = watch::channel(1);
        let (follower, mut seen) = follow(&runtime, changes);
        assert_eq!(seen.try_recv(), Ok((1, thread::current().id())));
        assert_eq!(format!("{follower:?}"), "Follower(asleep)");
        for value in 2..5 {
            change.send_replace(value);
            assert_eq!(seen.recv().await, Some((value, there)));
        }
        assert_eq!(format!("{follower:?}"), "Follower(awake)");
        drop(change);
        assert_eq!(seen.recv().await, None, "it ended by itself");
    }

    #[tokio::test]
    async fn it_ends_with_its_handle_asleep_or_awake() {
        let (runtime, _, _end) = elsewhere();
        let (change, changes) = watch::channel(1);
        let (asleep, mut of_asleep) = follow(&runtime, changes.clone());
        let (awake, mut of_awake) = follow(&runtime, changes);
        drop(asleep);
        change.send_replace(2);
        assert_eq!(of_asleep.recv().await.unwrap().0, 1);
        assert_eq!(of_asleep.recv().await, None);
        of_awake.recv().await.unwrap();
        assert_eq!(of_awake.recv().await.unwrap().0, 2);
        drop(awake);
        assert_eq!(of_awake.recv().await, None);
        change.closed().await;
    }

    #[tokio::test]
    async fn it_may_be_over_or_woken_at_once() {
        let (runtime, there, _end) = elsewhere();
        let over = Follower::start(&runtime, async {});
        assert_eq!(format!("{over:?}"), "Follower(over)");
        let (saw, mut seen) = mpsc::unbounded_channel();
        let _woken = Follower::start(&runtime, async move {
            tokio::task::yield_now().await;
            saw.send(thread::current().id()).unwrap();
        });
        assert_eq!(seen.recv().await, Some(there));
    }

    /// A runtime that has ended drops what is put on it, at once and where it is woken.
    #[test]
    fn followers_of_followers_end_with_their_runtime() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let handle = runtime.handle().clone();
        drop(runtime);
        let (change, mut changes) = watch::channel(1);
        let (derived, mut derivations) = watch::channel(1);
        let first = Follower::start(&handle, async move {
            while changes.changed().await.is_ok() {
                derived.send_replace(*changes.borrow());
            }
        });
        let second = Follower::start(&handle, async move {
            while derivations.changed().await.is_ok() {}
            drop(first);
        });
        change.send_replace(2);
        assert!(change.is_closed(), "what the first one held is gone");
        assert_eq!(format!("{second:?}"), "Follower(awake)");
    }

    /// Changes that come while it begins are not lost, whichever thread is first.
    #[test]
    fn no_change_is_missed_while_it_begins() {
        let (runtime, _, _end) = elsewhere();
        for _ in 0..2_000 {
            let (change, changes) = watch::channel(1);
            let changer = thread::spawn(move || {
                change.send_replace(2);
                change
            });
            let (_follower, mut seen) = follow(&runtime, changes);
            while seen.blocking_recv().unwrap().0 != 2 {}
            drop(changer.join().unwrap());
        }
    }
}
