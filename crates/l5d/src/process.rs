//! The process's own metrics under the names that Linkerd's dashboards read: `jvm/*` (metrics-catalog §1.9, last
//! paragraph). There is no JVM; heap is what the process holds in memory, and there is no garbage collector whose
//! counts could grow.
//!
//! Everything is read when a page is, from `/proc`; where that is missing, a gauge is 0.

use std::{
    fs,
    time::{SystemTime, UNIX_EPOCH},
};

use l5d_telemetry::{GaugeGuard, MetricsTree};
use tokio::time::Instant;

/// Registers the gauges; they live as long as the returned guards.
#[expect(clippy::cast_precision_loss, reason = "gauges are floats")]
pub(crate) fn register(tree: &MetricsTree) -> Vec<GaugeGuard> {
    let started = Instant::now();
    let start_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as f64;
    let cpus = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    let jvm = tree.scope("jvm");
    let (heap, gc, thread) = (jvm.scope("heap"), jvm.scope("gc"), jvm.scope("thread"));
    let current = jvm.scope("mem").scope("current");
    vec![
        jvm.gauge("start_time", move || start_ms),
        jvm.gauge("uptime", move || started.elapsed().as_millis() as f64),
        jvm.gauge("num_cpus", move || cpus),
        jvm.gauge("fd_count", || fs::read_dir("/proc/self/fd").map_or(0, |d| d.count().saturating_sub(1)) as f64),
        jvm.gauge("fd_limit", fd_limit),
        heap.gauge("used", || status_bytes("VmRSS:")),
        heap.gauge("committed", || status_bytes("VmRSS:")),
        heap.gauge("max", memory_total),
        current.gauge("used", || status_bytes("VmRSS:")),
        gc.gauge("msec", || 0.0),
        gc.gauge("cycles", || 0.0),
        thread.gauge("count", || status_value("Threads:")),
    ]
}

/// A number of `/proc/self/status`.
fn status_value(key: &str) -> f64 {
    first_number(&fs::read_to_string("/proc/self/status").unwrap_or_default(), key)
}

/// The same where it is in kB.
fn status_bytes(key: &str) -> f64 {
    status_value(key) * 1024.0
}

fn memory_total() -> f64 {
    first_number(&fs::read_to_string("/proc/meminfo").unwrap_or_default(), "MemTotal:") * 1024.0
}

fn fd_limit() -> f64 {
    first_number(&fs::read_to_string("/proc/self/limits").unwrap_or_default(), "Max open files")
}

/// The first number behind `key` at the beginning of a line.
fn first_number(text: &str, key: &str) -> f64 {
    text.lines()
        .find_map(|line| line.strip_prefix(key))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found() {
        assert_eq!(first_number("A: 1\nVmRSS:\t  5120 kB\n", "VmRSS:"), 5120.0);
        assert_eq!(
            first_number("Max open files            1024                 524288     files\n", "Max open files"),
            1024.0
        );
        assert_eq!(first_number("", "x"), 0.0);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_has_memory_threads_and_files() {
        assert!(status_bytes("VmRSS:") > 100_000.0);
        assert!(status_value("Threads:") >= 1.0);
        assert!(fd_limit() > 3.0);
        assert!(memory_total() > status_bytes("VmRSS:"));
    }
}
