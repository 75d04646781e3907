//! How a process starts, and what it says when it can't (config §1, §25): exit statuses, and mistakes with their place.

use std::path::PathBuf;
use std::process::{Command, Output};

use l5d_testkit::{Process, free_port, get, wait_until};
use tempfile::TempDir;

struct Run {
    output: Output,
    file: PathBuf,
    _folder: TempDir,
}

impl Run {
    /// Runs l5d with these flags and a file of that text.
    fn of(flags: &[&str], text: &str) -> Self {
        let folder = TempDir::new().expect("a temporary folder can be made");
        let file = folder.path().join("linkerd.yaml");
        std::fs::write(&file, text).expect("a file can be written");
        let output = Command::new(env!("CARGO_BIN_EXE_l5d")).args(flags).arg(&file).output().expect("l5d runs");
        Self { output, file, _folder: folder }
    }

    fn code(&self) -> Option<i32> {
        self.output.status.code()
    }

    /// What it said, without the folder of its file.
    fn said(&self) -> String {
        let text =
            format!("{}{}", String::from_utf8_lossy(&self.output.stdout), String::from_utf8_lossy(&self.output.stderr));
        text.replace(&self.file.display().to_string(), "linkerd.yaml")
    }
}

const MINIMAL: &str = "routers:\n- protocol: http\n  servers:\n  - port: 0\n";

/// `MINIMAL` with these lines at the end of its router.
fn router(lines: &str) -> String {
    format!("{MINIMAL}  {}\n", lines.replace('\n', "\n  "))
}

/// `-validate` and a start refuse the text alike: with this message, at this place.
fn assert_refused(row: &str, text: &str, message: &str) {
    for flags in [&["-validate"][..], &[]] {
        let run = Run::of(flags, text);
        assert_eq!(run.code(), Some(1), "{row} {flags:?}: {}", run.said());
        assert!(run.said().contains(message), "{row} {flags:?}: {message:?} is not in\n{}", run.said());
    }
}

/// C1, C2, C4, C6 to C11, C13, C14, C16, C17, C20 to C23, C26, C32, C15, C18, C19.
#[test]
fn mistakes_are_told_with_their_place() {
    let two = "- protocol: http\n  servers:\n  - port: 1\n";
    let experimental =
        "is experimental and must be explicitly enabled by setting the `experimental' parameter to `true'";
    let rows: &[(&str, String, &str)] = &[
        (
            "C1",
            "routers: []\n".into(),
            "linkerd.yaml:1:10: At least one router must be specified in the configuration.",
        ),
        ("C2", format!("{MINIMAL}{two}"), "linkerd.yaml:5:3: routers[1]: Multiple routers with the label http"),
        (
            "C4",
            format!("{MINIMAL}  - port: 4140\n  - port: 4140\n"),
            "linkerd.yaml:6:5: routers[0].servers[2]: Server conflict on port 4140",
        ),
        ("C6", "routers: {protocol: http}\n".into(), "linkerd.yaml:1:10: routers: expected a list, got a mapping"),
        (
            "C7",
            "routers:\n- protocol: boring\n".into(),
            "linkerd.yaml:2:13: routers[0].protocol: unknown protocol \"boring\"; known: ",
        ),
        ("C7", "routers:\n- label: x\n".into(), "linkerd.yaml:2:3: routers[0]: missing type id property 'protocol'"),
        ("C8", format!("fancy: true\n{MINIMAL}"), "linkerd.yaml:1:1: unknown key `fancy`; known: "),
        (
            "C9",
            "routers:\n- protocol: http\n  servers:\n  - prot: 4140\n".into(),
            "linkerd.yaml:4:5: routers[0].servers[0]: unknown key `prot`; known: ",
        ),
        (
            "C10",
            MINIMAL.replace("port: 0", "port: 65536"),
            "linkerd.yaml:4:11: routers[0].servers[0].port: 65536 outside valid range for ports",
        ),
        (
            "C11",
            format!("{MINIMAL}    ip: localhost\n"),
            "linkerd.yaml:5:9: routers[0].servers[0].ip: 'localhost' is not an IP string literal.",
        ),
        ("C13", "a: 1\na: 1\n".into(), "linkerd.yaml:2:1: duplicate key `a`"),
        ("C14", format!("telemetry:\n- kind: io.l5d.statsd\n{MINIMAL}"), experimental),
        ("C14", format!("telemetry:\n- kind: io.l5d.statsd\n{MINIMAL}"), "linkerd.yaml:2:3: telemetry[0]: "),
        (
            "C16",
            format!("telemetry:\n- kind: io.l5d.nope\n{MINIMAL}"),
            "linkerd.yaml:2:9: telemetry[0].kind: unknown telemeter \"io.l5d.nope\"; known: ",
        ),
        (
            "C17",
            router("streamingEnabled: false\nstreamAfterContentLengthKB: 5"),
            "linkerd.yaml:6:31: routers[0]: Conflicting streaming options set. Can't disable streaming and set streamAfterContentLengthKB in http",
        ),
        (
            "C18",
            format!("namers:\n- kind: io.l5d.fs\n  rootDir: /nope\n{MINIMAL}"),
            "linkerd.yaml:2:3: namers[0]: /nope is not a directory",
        ),
        (
            "C19",
            format!("namers:\n- kind: io.l5d.rewrite\n  pattern: /a\n  name: /b\n{MINIMAL}"),
            "linkerd.yaml:2:3: namers[0]: ",
        ),
        ("C19", format!("namers:\n- kind: io.l5d.rewrite\n  pattern: /a\n  name: /b\n{MINIMAL}"), "prefix"),
        ("C20", "routers:\n- protocol: thriftmux\n".into(), experimental),
        ("C21", "routers:\n- protocol: http\n".into(), "linkerd.yaml:2:3: routers[0]: router 'http' has no servers"),
        (
            "C22",
            router("dtab: \"bogus\""),
            "linkerd.yaml:5:9: routers[0].dtab: '/' expected but 'b' found at '[b]ogus'",
        ),
        (
            "C23",
            router("client: {tls: {disableValidation: true, clientAuth: {certPath: a, keyPath: b}}}"),
            "linkerd.yaml:5:17: routers[0].client.tls: disableValidation: true is incompatible with clientAuth",
        ),
        (
            "C32",
            router("httpAccessLogRollPolicy: yearly"),
            "linkerd.yaml:5:28: routers[0].httpAccessLogRollPolicy: Invalid log roll policy: yearly",
        ),
        ("§2", "routers: [\n".into(), "linkerd.yaml:"),
        ("§2", router("bindingTimeoutMs: soon"), "linkerd.yaml:5:21: routers[0].bindingTimeoutMs: "),
    ];
    std::thread::scope(|threads| {
        for part in rows.chunks(rows.len().div_ceil(2)) {
            threads.spawn(move || part.iter().for_each(|(row, text, message)| assert_refused(row, text, message)));
        }
    });
}

/// All mistakes of a file in one run, in the order of the file.
#[test]
fn every_mistake_is_told_in_one_run() {
    let run = Run::of(
        &["-validate"],
        "fancy: 1\nadmin: {port: x}\nrouters:\n- protocol: http\n  dtab: bogus\n  servers: [{prot: 1}]\n",
    );
    let said = run.said();
    let lines: Vec<_> = said.lines().map(|line| line.split(": ").next().unwrap_or_default()).collect();
    assert_eq!(lines, ["linkerd.yaml:1:1", "linkerd.yaml:2:15", "linkerd.yaml:5:9", "linkerd.yaml:6:14"], "{said}");
}

/// C3, C5, C12.
#[test]
fn what_is_right_is_said_to_be() {
    let labelled = format!("{MINIMAL}- protocol: http\n  label: b\n  servers:\n  - port: 1\n");
    let ips = format!("{MINIMAL}  - {{ip: 127.0.0.2, port: 3}}\n  - port: 3\n");
    let json = "{\"routers\":[{\"protocol\":\"http\",\"servers\":[{\"port\":1}]}]}".to_owned();
    for text in [labelled, ips, json] {
        let run = Run::of(&["-validate"], &text);
        assert_eq!((run.code(), run.said().as_str()), (Some(0), "linkerd.yaml: no mistakes found\n"), "{text}");
    }
}

/// Config §1: the command line.
#[test]
fn a_wrong_command_line_ends_with_its_usage() {
    let run = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_l5d")).args(args).output().expect("l5d runs");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    for args in [&[][..], &["one", "two"]] {
        let (code, out, err) = run(args);
        assert_eq!((code, out.as_str()), (Some(1), ""), "{args:?}");
        assert!(err.starts_with("usage: l5d [FLAGS] path/to/config"), "{err}");
    }
    let (code, _, err) = run(&["-no.such.flag", "file"]);
    assert!(code == Some(1) && err.contains("no.such.flag"), "{err}");
    let (code, _, err) = run(&["/no/such/file"]);
    assert!(code == Some(1) && err.contains("config is not a file: /no/such/file"), "{err}");
    for help in ["-help", "--help"] {
        let (code, out, _) = run(&[help]);
        assert!(code == Some(0) && out.contains("-log.level"), "{out}");
    }
}

/// Config §1: a server whose port is taken ends the start, with its router and address.
#[test]
fn a_taken_port_ends_the_start() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port of loopback can be bound");
    let port = taken.local_addr().expect("a bound socket has an address").port();
    let text = format!("admin: {{port: {}}}\n{}", free_port(), MINIMAL.replace("port: 0", &format!("port: {port}")));
    let run = Run::of(&[], &text);
    assert_eq!(run.code(), Some(1));
    assert!(run.said().contains(&format!("router http: cannot listen on 127.0.0.1:{port}: ")), "{}", run.said());
    let run = Run::of(&[], &format!("admin: {{port: {port}}}\n{MINIMAL}"));
    assert_eq!(run.code(), Some(1));
    assert!(run.said().contains(&format!("admin server cannot listen on 127.0.0.1:{port}: ")), "{}", run.said());
}

/// C24, C25: the ports that nobody named. They may be taken on this machine, which says as much about which they are.
#[test]
fn the_default_ports_are_linkerds() {
    for (text, port) in [
        (format!("admin: {{port: {}}}\nrouters:\n- protocol: http\n  servers: [{{}}]\n", free_port()), 4140),
        (MINIMAL.to_owned(), 9990),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_l5d"));
        let l5d = Process::start_with_input("l5d", command.arg("-"), Some(text.as_bytes())).expect("l5d runs");
        let places = [format!(" on 127.0.0.1:{port}"), format!(" on /127.0.0.1:{port}")];
        // Said where it listens, or where it can't.
        wait_until(&format!("l5d to speak of port {port}"), || places.iter().any(|place| l5d.output().contains(place)));
        if port == 9990 && !l5d.output().contains("cannot listen") {
            assert_eq!(get(([127, 0, 0, 1], port).into(), "x", "/admin/ping").expect("it listens").text(), "pong");
        }
    }
}
