//! Waiting for a condition. No test of l5d sleeps for a fixed time and hopes.

use std::time::{Duration, Instant};

/// How long a test waits for something that ought to happen at once. Long, because machines that run tests are busy; only a
/// failing test ever waits it out.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Asks `probe` again and again until it answers `Some`, and gives that answer.
///
/// # Panics
/// When `patience` runs out, with `what` in the message.
pub fn wait_for<T>(what: &str, patience: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {patience:?} in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// [`wait_for`] a condition, with the usual [`PATIENCE`].
///
/// # Panics
/// When the condition does not come true.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    wait_for(what, PATIENCE, || condition().then_some(()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_of_the_probe_comes_back() {
        let mut asked = 0;
        let answer = wait_for("the third try", PATIENCE, || {
            asked += 1;
            (asked == 3).then_some("here")
        });
        assert_eq!((answer, asked), ("here", 3));
    }

    #[test]
    #[should_panic(expected = "in vain for the moon")]
    fn patience_ends() {
        wait_for("the moon", Duration::from_millis(1), || None::<()>);
    }
}
