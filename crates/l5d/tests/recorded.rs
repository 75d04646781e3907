//! What Linkerd 1.7.5 was seen to do, l5d does: the recordings in `recorded/` are replayed against the built program.
//!
//! A scenario takes a few seconds, most of them waiting, so several run at a time, each a process of its own. Where few
//! differ, they are replayed once more with the machine to themselves: what a busy machine made late is not held against
//! l5d, what differs again is. Needs python3, and openssl for the scenarios with TLS.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;

/// How many scenarios run at a time; each is mostly asleep.
const AT_A_TIME: usize = 6;

/// More scenarios than this are not late by chance.
const FEW: usize = 6;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recorded")
}

/// The names of the recordings.
fn recordings() -> Vec<String> {
    let entries = std::fs::read_dir(folder().join("expected")).expect("there are recordings");
    let mut names: Vec<_> = entries
        .map(|entry| entry.expect("a folder can be read").path())
        .map(|path| path.file_stem().expect("files have names").to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn replay(arguments: &[&str]) -> Output {
    let mut command = Command::new("python3");
    command.arg(folder().join("replay.py")).args(["--bin", env!("CARGO_BIN_EXE_l5d")]).args(arguments);
    command.stdin(Stdio::null()).output().expect("python3 runs; the recordings are replayed by a program in Python")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// What differs in that scenario, or nothing.
fn differences(name: &str) -> Option<String> {
    let output = replay(&["-v", name]);
    let extra = |line: &&str| !line.starts_with("    extra ");
    (!output.status.success()).then(|| said(&output).lines().filter(extra).collect::<Vec<_>>().join("\n"))
}

#[test]
fn every_recorded_fact_holds() {
    let waiting = Mutex::new(recordings());
    assert!(waiting.lock().expect("no holder panics").len() >= 48, "recordings are missing");
    let different = Mutex::new(Vec::new());
    std::thread::scope(|threads| {
        for _ in 0..AT_A_TIME {
            threads.spawn(|| {
                loop {
                    let Some(name) = waiting.lock().expect("no holder panics").pop() else { return };
                    if let Some(text) = differences(&name) {
                        different.lock().expect("no holder panics").push((name, text));
                    }
                }
            });
        }
    });
    let mut different = different.into_inner().expect("no holder panics");
    if different.len() <= FEW {
        different = different.into_iter().filter_map(|(name, _)| differences(&name).map(|text| (name, text))).collect();
    }
    different.sort();
    let texts: Vec<_> = different.into_iter().map(|(_, text)| text).collect();
    assert!(texts.is_empty(), "facts that do not hold, and are not in accepted.txt:\n{}", texts.join("\n"));
}

#[test]
fn every_recording_has_a_scenario_and_the_other_way_around() {
    let output = replay(&["--list"]);
    let said = said(&output);
    let mut scenarios: Vec<_> = said.lines().filter_map(|line| line.split_whitespace().next()).collect();
    scenarios.sort_unstable();
    assert_eq!(scenarios, recordings());
}

/// The judge can say no: a program that is not l5d has none of the facts.
#[test]
fn another_program_fails() {
    let mut command = Command::new("python3");
    command.arg(folder().join("replay.py")).args(["--bin", "false", "boot"]);
    let output = command.stdin(Stdio::null()).output().expect("python3 runs");
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("0 passed, 1 failed"), "{}", said(&output));
}
