//! Every file under `examples/` is a configuration that l5d takes, and so are the blocks of the README and of the telemetry page.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const README: &str = include_str!("../../../README.md");

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// Runs `l5d -validate FILE` in the root of the project, as the README tells a reader to.
fn validate(file: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_l5d"));
    command.arg("-validate").arg(file).current_dir(root()).output().expect("l5d runs")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn examples() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root().join("examples")).expect("there are examples");
    let files = entries.map(|entry| entry.expect("a folder can be read").path());
    let mut files: Vec<PathBuf> =
        files.filter(|file| file.extension().is_some_and(|end| end == "yaml" || end == "json")).collect();
    files.sort();
    files
}

#[test]
fn every_example_is_taken() {
    let files = examples();
    assert!(files.len() >= 8, "{files:?}");
    for file in files {
        let output = validate(&file);
        assert!(output.status.success(), "{}: {}", file.display(), said(&output));
    }
}

#[test]
fn a_mistake_in_an_example_is_found_with_its_place() {
    for file in examples() {
        let text = std::fs::read_to_string(&file).expect("a file can be read");
        let (old, new) = if text.contains("\"port\": 4140") {
            ("\"port\": 4140", "\"port\": 414000")
        } else {
            ("port: 4140", "port: 414000")
        };
        let line = text.lines().position(|line| line.contains(old)).expect("every example listens on 4140") + 1;
        let folder = tempfile::TempDir::new().expect("a temporary folder can be made");
        let wrong = folder.path().join("wrong");
        std::fs::write(&wrong, text.replacen(old, new, 1)).expect("a file can be written");
        let output = validate(&wrong);
        let place = format!("wrong:{line}:");
        assert!(
            output.status.code() == Some(1) && said(&output).contains(&place),
            "{}: {}",
            file.display(),
            said(&output)
        );
        assert!(said(&output).contains("414000 outside valid range for ports"), "{}", said(&output));
    }
}

#[test]
fn the_readmes_small_configuration_is_the_example_that_it_names() {
    let example = std::fs::read_to_string(root().join("examples/http.yaml")).expect("the README names it");
    let plain: String = example.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect();
    assert!(README.contains(&format!("```yaml\n{plain}```")), "{plain}");
}

#[test]
fn the_readmes_telemetry_blocks_are_taken_beside_a_router() {
    let blocks: Vec<&str> = README
        .split("```yaml\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap_or_default())
        .filter(|block| block.starts_with("telemetry:"))
        .collect();
    assert_eq!(blocks.len(), 3, "Prometheus, StatsD and traces");
    let folder = tempfile::TempDir::new().expect("a temporary folder can be made");
    let file = folder.path().join("readme.yaml");
    for block in blocks {
        std::fs::write(&file, format!("{block}routers:\n- protocol: http\n  servers:\n  - port: 4140\n"))
            .expect("a file can be written");
        let output = validate(&file);
        assert!(output.status.success(), "{block}: {}", said(&output));
    }
}
