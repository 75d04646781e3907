//! Where the consumers are, and the command that installs one that is missing.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The script that knows how to install every consumer.
const INSTALL: &str = "crates/l5d/tests/consumers/install";

/// A program of a Debian package; `consumer` is its name in the script.
///
/// # Panics
/// When it is not installed, with the command that installs it.
pub(crate) fn installed(program: &str, consumer: &str) -> Command {
    let path = std::env::var("PATH").unwrap_or_default();
    // Debian keeps servers in /usr/sbin, which not every user's PATH names.
    let folders = path.split(':').chain(["/usr/sbin", "/sbin"]);
    let found = folders.map(|folder| Path::new(folder).join(program)).find(|file| file.is_file());
    Command::new(found.unwrap_or_else(|| missing(program, consumer)))
}

/// A file of the cache that the script fills.
///
/// # Panics
/// When it is not there, with the command that makes it.
pub(crate) fn cached(file: &str, consumer: &str) -> PathBuf {
    let folder = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache =
        folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache"))).expect("there is a home folder");
    let file = cache.join("l5d-consumers").join(file);
    if file.is_file() { file } else { missing(&file.display().to_string(), consumer) }
}

fn missing(program: &str, consumer: &str) -> ! {
    panic!("{program} is not installed; this installs it: {INSTALL} {consumer}")
}

/// How a command ended and what it printed.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Its exit status; 255 when a signal ended it.
    pub(crate) code: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Outcome {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// Runs a command to its end, with these bytes as its standard input.
pub(crate) fn run(command: &mut Command, input: &[u8]) -> Outcome {
    use std::io::Write;
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut stdin = child.stdin.take().expect("it is piped");
    let input = input.to_vec();
    // A thread of its own, since a child that prints while it reads would block us both.
    let writer = std::thread::spawn(move || {
        let _ = stdin.write_all(&input);
    });
    let output = child.wait_with_output().expect("a child can be waited for");
    writer.join().expect("writing does not panic");
    Outcome {
        code: output.status.code().unwrap_or(255),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// curl, silent, that fails loudly on a connection that breaks and takes no longer than a minute.
pub(crate) fn curl(arguments: &[&str]) -> Command {
    let mut command = installed("curl", "curl");
    command.args(["--silent", "--show-error", "--max-time", "60", "--noproxy", "*"]).args(arguments);
    command
}
