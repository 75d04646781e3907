//! Programs that a test runs: they end with their guard, also when the test fails, and what they said is shown then.

use std::fs::File;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::{PATIENCE, Scrape, wait_for};

/// A program that runs until this is dropped. Its two outputs go to one file.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    dir: TempDir,
}

impl Process {
    /// Starts `command`, without standard input.
    ///
    /// # Errors
    /// When the program can't be started.
    pub fn start(name: &str, command: &mut Command) -> io::Result<Self> {
        Self::start_with_input(name, command, None)
    }

    /// Starts `command` with these bytes as its standard input.
    ///
    /// # Errors
    /// When the program can't be started.
    pub fn start_with_input(name: &str, command: &mut Command, input: Option<&[u8]>) -> io::Result<Self> {
        let dir = TempDir::new()?;
        let log = dir.path().join("output");
        let file = File::create(&log)?;
        let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
        let mut child = command.stdin(stdin).stdout(file.try_clone()?).stderr(file).spawn()?;
        if let (Some(bytes), Some(mut pipe)) = (input, child.stdin.take()) {
            // A program that ends before it has read everything says why in its output.
            let _ = pipe.write_all(bytes);
        }
        Ok(Self { name: name.to_owned(), child, log, dir })
    }

    /// What it has printed so far.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// A folder of its own, gone with this guard.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// Waits for it to end by itself.
    ///
    /// # Panics
    /// When it does not.
    pub fn wait(&mut self) -> ExitStatus {
        let name = self.name.clone();
        wait_for(&format!("{name} to end"), PATIENCE, || self.ended())
    }

    /// Waits until `ready` says so.
    ///
    /// # Panics
    /// When it ends first or never gets ready; with what it printed.
    pub fn wait_ready(&mut self, patience: Duration, mut ready: impl FnMut() -> bool) {
        let name = self.name.clone();
        wait_for(&format!("{name} to be ready"), patience, || {
            if let Some(status) = self.ended() {
                panic!("{name} ended ({status}) before it was ready:\n{}", self.output());
            }
            ready().then_some(())
        });
    }

    /// Sends it a signal by name, such as `TERM`.
    ///
    /// # Panics
    /// When the `kill` command fails.
    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill").arg(format!("-{signal}")).arg(self.id().to_string()).status();
        assert!(status.is_ok_and(|status| status.success()), "{} can't be sent {signal}", self.name);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let output = self.output();
            let skip = output.len().saturating_sub(8_000);
            let tail = output.char_indices().find(|(at, _)| *at >= skip).map_or("", |(at, _)| &output[at..]);
            eprintln!("--- {} printed:\n{tail}\n---", self.name);
        }
    }
}

/// A running l5d.
#[derive(Debug)]
pub struct L5d {
    process: Process,
    admin: SocketAddr,
}

impl L5d {
    /// Starts the program at `bin` with these flags and that configuration, and waits until its admin server answers at `admin`
    /// (an address that the configuration names) and every router listens.
    ///
    /// # Panics
    /// When it does not come up; with what it printed.
    pub fn start(bin: impl AsRef<Path>, flags: &[&str], config: &str, admin: SocketAddr) -> Self {
        let mut command = Command::new(bin.as_ref());
        command.args(flags).arg("-");
        let process = Process::start_with_input("l5d", &mut command, Some(config.as_bytes()));
        let process = process.unwrap_or_else(|error| panic!("{}: {error}", bin.as_ref().display()));
        let mut this = Self { process, admin };
        this.wait_ready();
        this
    }

    fn wait_ready(&mut self) {
        let admin = self.admin;
        self.process.wait_ready(PATIENCE, || {
            crate::get(admin, "localhost", "/admin/ping").is_ok_and(|reply| reply.body.starts_with(b"pong"))
        });
        // The admin server is up before the routers are; the line that ends the start-up is `initialized`.
        let output = &self.process.log;
        let said = || std::fs::read_to_string(output).is_ok_and(|text| text.contains("initialized"));
        wait_for("l5d to say that it is initialized", PATIENCE, || said().then_some(()));
    }

    /// Its admin address.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Its metrics.
    pub fn scrape(&self) -> Scrape {
        Scrape::of(self.admin)
    }

    /// What it has printed so far.
    pub fn output(&self) -> String {
        self.process.output()
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exists(id: u32) -> bool {
        Path::new(&format!("/proc/{id}")).exists()
    }

    #[test]
    fn a_process_ends_with_its_guard() {
        let mut sleeper = Process::start("sleep", Command::new("sleep").arg("1000")).unwrap();
        let id = sleeper.id();
        assert!(sleeper.ended().is_none() && exists(id));
        drop(sleeper);
        assert!(!exists(id));
    }

    #[test]
    fn what_a_process_prints_is_kept_from_both_outputs() {
        let mut command = Command::new("sh");
        command.args(["-c", "cat; echo lost >&2; exit 3"]);
        let mut process = Process::start_with_input("sh", &mut command, Some(b"found ")).unwrap();
        assert_eq!(process.wait().code(), Some(3));
        assert_eq!(process.output(), "found lost\n");
    }

    #[test]
    #[should_panic(expected = "before it was ready:\nno such thing")]
    fn a_process_that_ends_early_is_told_with_its_words() {
        let mut process =
            Process::start("sh", Command::new("sh").args(["-c", "printf 'no such thing'; exit 1"])).unwrap();
        process.wait_ready(PATIENCE, || false);
    }
}
