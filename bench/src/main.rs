//! What l5d's metrics cost beside their peers. `bench/run` runs all of it and writes `RESULTS.md`.

mod alloc;
mod history;
mod hot;
mod machine;
mod memory;
mod peers;
mod scrape;
mod series;

use std::process::Command;

#[global_allocator]
static ALLOCATOR: alloc::Counting = alloc::Counting;

/// Rounds of each case; each round runs every case once.
pub const ROUNDS: usize = 7;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["hot"] => hot(),
        ["op", table, case, n] => op(table, case, n.parse().expect("a number")),
        ["instructions"] => instructions(),
        ["scrape"] => scrape::run(),
        ["only", what, n, times] => scrape::only(what, n.parse().expect("a number"), times.parse().expect("a number")),
        ["history"] => history::run(ROUNDS),
        ["history-only", called, seconds] => {
            history::only(called.parse().expect("a number"), seconds.parse().expect("a number"));
        }
        ["memory"] => memory::run(),
        ["memory-of", what, library, n] => memory::of(what, library, n.parse().expect("a number")),
        ["machine"] => println!("{}", machine::describe()),
        _ => {
            eprintln!("usage: bench hot | instructions | scrape | history | memory | machine");
            std::process::exit(2);
        }
    }
}

const TABLES: [(&str, fn() -> Vec<hot::Case>, u64); 3] =
    [("counter", hot::counters, 3_000_000), ("stat", hot::stats, 1_000_000), ("request", hot::requests, 100_000)];

fn hot() {
    for (table, cases, ops) in TABLES {
        let cases = cases();
        let works: Vec<_> = cases.iter().map(|c| (c.make)()).collect();
        let mut seen = vec![[const { Vec::new() }; 2]; cases.len()];
        for _ in 0..ROUNDS {
            for (work, seen) in works.iter().zip(&mut seen) {
                for threads in [1, 2] {
                    seen[threads - 1].push(hot::time(&**work, threads, ops));
                }
            }
        }
        let seen: Vec<[f64; 2]> = seen.into_iter().map(|[one, two]| [one, two].map(machine::median)).collect();
        let ours = cases.iter().position(|c| c.name == "l5d").expect("l5d is among them");
        println!("\n| {table} | 1 thread, ns | l5d is | 2 threads, ns each | l5d is |\n|---|---|---|---|---|");
        for (case, [one, two]) in cases.iter().zip(&seen) {
            let [our_one, our_two] = seen[ours];
            println!("| {} | {one:.2} | {:.3} × | {two:.2} | {:.3} × |", case.name, our_one / one, our_two / two);
        }
    }
}

fn op(table: &str, case: &str, n: u64) {
    let (_, cases, _) = TABLES.into_iter().find(|t| t.0 == table).expect("a table");
    let case = cases().into_iter().find(|c| c.name == case).expect("a case");
    (case.make)()(n);
}

/// Instructions of each case: the difference of two runs under callgrind, so that making and ending fall out.
fn instructions() {
    let me = std::env::current_exe().expect("the program's path");
    let count = |table: &str, case: &str, n: u64| -> f64 {
        let out = Command::new("valgrind")
            .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
            .arg(&me)
            .args(["op", table, case, &n.to_string()])
            .output()
            .expect("valgrind runs");
        let text = String::from_utf8_lossy(&out.stderr);
        let collected = text.lines().find_map(|l| l.split_once("Collected : "));
        collected.and_then(|c| c.1.trim().parse().ok()).unwrap_or_else(|| panic!("{text}"))
    };
    for (table, cases, _) in TABLES {
        println!("\n| {table}, instructions | each | without the loop |\n|---|---|---|");
        let mut empty = 0.0;
        for case in cases() {
            let each = (count(table, case.name, 50_000) - count(table, case.name, 10_000)) / 40_000.0;
            if empty == 0.0 {
                empty = each;
            }
            println!("| {} | {each:.1} | {:.1} |", case.name, each - empty);
        }
    }
}
