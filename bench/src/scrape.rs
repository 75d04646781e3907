//! What reading costs: pages of counters and of stats, against a copy of the same bytes and against the peers.

use std::hint::black_box;

use l5d_telemetry::Snapshotter;

use crate::alloc::heap_of;
use crate::machine::{cpu_seconds, median};
use crate::peers::{self, L5d, LIBRARIES, Peer};
use crate::{ROUNDS, series};

const READY: &str = "ready text and numbers";

/// Copies bytes into warm memory: what no writer can be faster than.
struct Copy {
    from: Vec<u8>,
    to: Vec<u8>,
}

impl Copy {
    fn of(from: Vec<u8>) -> Self {
        Self { to: from.clone(), from }
    }
}

impl Peer for Copy {
    fn scrape(&mut self) -> usize {
        self.to.copy_from_slice(black_box(&self.from));
        black_box(&self.to).len()
    }
}

/// The same page of text that lies ready in its order, and numbers that do: no names, no scopes, nothing that may change while it
/// is read. What is left to do is what any page of counters must: add what the base and two workers have, spell the number, copy.
struct Ready {
    text: Vec<u8>,
    /// Where the text before each number ends.
    cuts: Vec<usize>,
    cells: [Vec<u64>; 3],
    piece: Vec<u8>,
}

impl Ready {
    fn of(page: &[u8], face: &str) -> Self {
        let (mut text, mut cuts, mut values) = (Vec::new(), Vec::new(), Vec::new());
        for line in page.split_inclusive(|&b| b == b'\n') {
            let begins: &[u8] = match face {
                "prometheus" => b"} ",
                "json" => b"\":",
                _ => b"=",
            };
            // An InfluxDB line has its fields after its only blank.
            let tags = if face == "influxdb" { line.iter().position(|&b| b == b' ').unwrap_or(0) } else { 0 };
            let mut at = 0;
            while at < line.len() {
                let digits = line[at..].iter().take_while(|b| b.is_ascii_digit()).count();
                if digits > 0 && at > tags && line[..at].ends_with(begins) {
                    cuts.push(text.len());
                    values.push(std::str::from_utf8(&line[at..at + digits]).unwrap().parse::<u64>().unwrap());
                } else {
                    text.extend_from_slice(&line[at..at + digits.max(1)]);
                }
                at += digits.max(1);
            }
        }
        let half = |more: u64| values.iter().map(|v| (v + more) / 2).collect();
        let cells = [vec![0; values.len()], half(0), half(1)];
        Self { text, cuts, cells, piece: Vec::with_capacity(80 << 10) }
    }
}

impl Peer for Ready {
    fn scrape(&mut self) -> usize {
        let (mut bytes, mut start) = (0, 0);
        let mut digits = itoa::Buffer::new();
        let [base, one, two] = &self.cells;
        for (((&cut, base), one), two) in self.cuts.iter().zip(base).zip(one).zip(two) {
            self.piece.extend_from_slice(&self.text[start..cut]);
            self.piece.extend_from_slice(digits.format(base + one + two).as_bytes());
            start = cut;
            if self.piece.len() >= 64 << 10 {
                bytes += black_box(&self.piece).len();
                self.piece.clear();
            }
        }
        self.piece.extend_from_slice(&self.text[start..]);
        bytes += black_box(&self.piece).len();
        self.piece.clear();
        bytes
    }
}

struct Face(fn(&mut L5d) -> usize, L5d);

impl Peer for Face {
    fn scrape(&mut self) -> usize {
        (self.0)(&mut self.1)
    }
}

fn seconds(f: impl FnOnce()) -> f64 {
    let began = cpu_seconds();
    f();
    cpu_seconds() - began
}

/// Interleaves the peers' scrapes and prints them. The first is the copy, the second l5d.
fn table(title: &str, lines: usize, peers: &mut [(&str, Box<dyn Peer>)]) {
    let mut times = vec![Vec::new(); peers.len()];
    let mut bytes = vec![0; peers.len()];
    for (at, (_, peer)) in peers.iter_mut().enumerate() {
        bytes[at] = peer.scrape();
    }
    let allocations: Vec<u64> = peers.iter_mut().map(|(_, peer)| heap_of(|| peer.scrape()).1.calls).collect();
    // Small pages several times a round, the slow ones once.
    for _ in 0..ROUNDS {
        for (at, (_, peer)) in peers.iter_mut().enumerate() {
            let first = seconds(|| _ = peer.scrape());
            let again = ((0.02 / first) as usize).clamp(0, 20);
            let mut best = vec![first];
            best.extend((0..again).map(|_| seconds(|| _ = peer.scrape())));
            times[at].push(median(best));
        }
    }
    let times: Vec<f64> = times.into_iter().map(median).collect();
    println!("\n| {title} | ms | ns a line | GB/s | × copy | l5d is | allocations |\n|---|---|---|---|---|---|---|");
    // The copy is of l5d's bytes; other writers are compared with it by the byte.
    let copy_per_byte = times[0] / bytes[0] as f64;
    for (at, (name, _)) in peers.iter().enumerate() {
        println!(
            "| {name} | {:.3} | {:.1} | {:.2} | {:.2} | {:.3} × | {} |",
            times[at] * 1e3,
            times[at] * 1e9 / lines as f64,
            bytes[at] as f64 / times[at] / 1e9,
            times[at] / bytes[at] as f64 / copy_per_byte,
            times[1] / times[at],
            allocations[at],
        );
    }
}

pub fn run() {
    for series in [10_000, 1_000_000] {
        let scopes = series / series::NAMES.len();
        let ours = L5d::counters(scopes);
        let copy = Copy::of(ours.text("prometheus"));
        let ready = Ready::of(&copy.from, "prometheus");
        let mut peers: Vec<(&str, Box<dyn Peer>)> =
            vec![("copy of the bytes", Box::new(copy)), ("l5d", Box::new(ours)), (READY, Box::new(ready))];
        for library in LIBRARIES.into_iter().skip(1) {
            peers.push((library, peers::counters(library, scopes)));
        }
        table(&format!("Prometheus text, {series} counters"), series, &mut peers);
        drop(peers);
        for (face, write) in [("json", L5d::json as fn(&mut L5d) -> usize), ("influxdb", L5d::influxdb)] {
            let ours = L5d::counters(scopes);
            let copy = Copy::of(ours.text(face));
            let ready = Ready::of(&copy.from, face);
            let mut peers: Vec<(&str, Box<dyn Peer>)> = vec![
                ("copy of the bytes", Box::new(copy)),
                ("l5d", Box::new(Face(write, ours))),
                (READY, Box::new(ready)),
            ];
            table(&format!("{face}, {series} counters"), series, &mut peers);
        }
    }
    let stats = 10_000;
    let ours = L5d::stats(stats);
    let copy = Copy::of(ours.text("prometheus"));
    let mut peers: Vec<(&str, Box<dyn Peer>)> = vec![("copy of the bytes", Box::new(copy)), ("l5d", Box::new(ours))];
    for library in LIBRARIES.into_iter().skip(1) {
        peers.push((library, peers::stats(library, stats)));
    }
    table("Prometheus text, 10000 stats; 11 lines each of l5d", stats * 11, &mut peers);
    drop(peers);

    let mut ours = L5d::counters(50_000);
    let first = (0..ROUNDS).map(|_| {
        seconds(|| {
            let options = l5d_telemetry::format::prometheus::Options::default();
            let mut page = l5d_telemetry::format::prometheus::page(&ours.tree, &options);
            let mut out = Vec::with_capacity(80 << 10);
            page.fill(&mut out);
            black_box(out);
        })
    });
    let first = median(first.collect());
    let (before, ((), heap)) = (crate::alloc::resident(), heap_of(|| _ = ours.scrape()));
    println!("\n| 1000000 counters, Prometheus text | |\n|---|---|");
    println!("| first piece after | {:.3} ms |", first * 1e3);
    println!(
        "| heap beyond the tree while it is written, with the buffer that is sent | {} B |",
        heap.peak + (80 << 10)
    );
    println!("| growth of the resident set | {} B |", crate::alloc::resident() - before);
    drop(ours);

    let ours = L5d::stats(100_000);
    let snapshotter = Snapshotter::new(&ours.tree);
    let ticks = (0..ROUNDS).map(|_| {
        std::thread::scope(|threads| {
            threads.spawn(|| {
                let guard = ours.tree.enter_worker();
                ours.stats.iter().step_by(100).for_each(|s| (0..100).for_each(|i| s.add(900 + i)));
                drop(guard);
            });
        });
        seconds(|| snapshotter.tick())
    });
    let ticks = median(ticks.collect());
    println!("\n| 100000 stats, 1000 of them active | |\n|---|---|\n| tick | {:.2} ms |", ticks * 1e3);
}

/// One page, again and again: for a profiler.
pub fn only(what: &str, n: usize, times: usize) {
    if what == "stats" {
        let mut ours = L5d::stats(n);
        let each = (0..times).map(|_| seconds(|| _ = ours.scrape()));
        println!("{:.2} ns a line", median(each.collect()) * 1e9 / (n * 11) as f64);
        return;
    }
    let mut ours = L5d::counters(n / series::NAMES.len());
    let write = match what {
        "prometheus" => L5d::scrape,
        "json" => L5d::json,
        "influxdb" => L5d::influxdb,
        _ => panic!("no face {what}"),
    };
    let mut copy = Copy::of(ours.text(what));
    let mut ready = Ready::of(&copy.from, what);
    assert_eq!(ready.scrape(), copy.from.len(), "the same page");
    let each = |f: &mut dyn FnMut()| median((0..times).map(|_| seconds(&mut *f)).collect()) * 1e9 / n as f64;
    let ours_each = each(&mut || _ = write(&mut ours));
    let copy_each = each(&mut || _ = copy.scrape());
    let ready_each = each(&mut || _ = ready.scrape());
    println!(
        "{ours_each:.2} ns a series, {:.2} x copy ({copy_each:.2}); ready text and numbers {ready_each:.2}, {:.2} x copy",
        ours_each / copy_each,
        ready_each / copy_each
    );
}
