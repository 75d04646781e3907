//! What series weigh: live heap, counted, and the growth of the resident set, each library in a process of its own.

use std::process::Command;

use l5d_telemetry::{MetricsTree, Snapshotter};

use crate::alloc::{heap_of, resident};
use crate::peers::{self, L5d, LIBRARIES};
use crate::series::NAMES;

pub fn run() {
    let me = std::env::current_exe().expect("the program's path");
    for (what, n) in [("counters", 100_000), ("stats", 10_000)] {
        println!("\n| {n} {what} | heap, B each | resident, B each | allocations each |\n|---|---|---|---|");
        for library in LIBRARIES {
            let out = Command::new(&me).args(["memory-of", what, library, &n.to_string()]).output().expect("it runs");
            print!("{}", String::from_utf8_lossy(&out.stdout));
        }
    }
    let tree = MetricsTree::new();
    let snapshotter = Snapshotter::new(&tree);
    let scopes: Vec<_> = (0..1000).map(|i| tree.scope(&format!("scope{i}"))).collect();
    let (stats, made) = heap_of(|| scopes.iter().map(|scope| scope.stat("request_latency_ms")).collect::<Vec<_>>());
    let ((), ticked) = heap_of(|| snapshotter.tick());
    println!(
        "\n| stats without samples | |\n|---|---|\n| each | {} B |\n| buckets | {} B |",
        made.kept / 1000,
        ticked.kept
    );
    drop(stats);
}

pub fn of(what: &str, library: &str, n: usize) {
    // Once with a few, so that code, stacks and the allocator's own are there before.
    drop(filled(what, library, 100));
    let before = resident();
    let each = |bytes: i64| bytes as f64 / n as f64;
    let (rest, heap) = heap_of(|| filled(what, library, n));
    // What the allocator keeps of what was given back is nobody's.
    // SAFETY: it touches free memory only.
    unsafe { libc::malloc_trim(0) };
    let grown = resident() - before;
    println!("| {library} | {:.0} | {:.0} | {:.2} |", each(heap.kept), each(grown), each(heap.calls as i64));
    drop(rest);
}

/// `n` series, and all that it takes to read them.
fn filled(what: &str, library: &str, n: usize) -> Box<dyn std::any::Any> {
    match (what, library) {
        ("counters", "l5d") => {
            // All faces on: the StatsD pusher keeps what it sent last.
            let ours = L5d::counters(n / NAMES.len());
            let mut pusher = l5d_telemetry::format::statsd::Pusher::new(&ours.tree, Default::default());
            pusher.flush(true, &mut |_| true);
            let L5d { tree, counters, .. } = ours;
            drop(counters);
            Box::new((tree, pusher))
        }
        ("counters", _) => Box::new(peers::counters(library, n / NAMES.len())),
        ("stats", "l5d") => {
            // Four in a scope, as clients have them.
            let names = ["request_latency_ms", "connect_latency_ms", "payload_bytes", "wait_ms"];
            let L5d { tree, stats, .. } = L5d::stats_in(n, &names);
            drop(stats);
            Box::new(tree)
        }
        _ => Box::new(peers::stats(library, n)),
    }
}
