//! What names come to: dtabs, namers, alternatives, unions, and what is said where they lead nowhere (§4, §5).

use std::path::Path;

use l5d_testkit::{Reply, Response, Upstream, free_port, wait_until};
use tempfile::TempDir;

use crate::proxy::{Proxy, Setup, last, ok, seen};

fn folder() -> TempDir {
    TempDir::new().expect("a temporary folder can be made")
}

fn write(folder: &TempDir, name: &str, text: &str) {
    std::fs::write(folder.path().join(name), text).expect("a file can be written");
}

/// A router whose fs namer reads that folder.
fn with_files(folder: &Path, dtab: &str) -> Proxy {
    let namer = format!("namers:\n- {{kind: io.l5d.fs, rootDir: {}}}\n", folder.display());
    Setup::router(format!("dtab: '{dtab}'")).top(namer).start()
}

/// Template A of §7.2.
fn no_route(name: &str, base: &str, overridden: &str) -> String {
    format!(
        "Unable to route request!\n\nservice name: {name}\ndtab:\n\nbase dtab:\n{base}\noverride dtab:\n{overridden}\n"
    )
}

fn is_unroutable(reply: &Reply) -> bool {
    reply.status == 502 && reply.text().starts_with("Unable to route request!")
}

/// A1: everything a forwarded request and its response carry.
#[test]
fn a_request_is_named_bound_and_forwarded() {
    let upstream = ok();
    let proxy = Setup::to(&upstream).start();
    let reply = proxy.get("foo", "/x");
    assert_eq!((reply.status, reply.text()), (200, "ok"));
    assert_eq!(reply.headers.get("l5d-success-class"), Some("1.0"));
    assert_eq!(reply.headers.get("via"), Some("1.1 linkerd"));
    assert_eq!(reply.headers.get("l5d-err"), None);
    let request = last(&upstream);
    assert_eq!((request.method.as_str(), request.target.as_str(), request.version.as_str()), ("GET", "/x", "HTTP/1.1"));
    let header = |name: &str| request.headers.get(name);
    assert_eq!(header("host"), Some("foo"));
    assert_eq!(header("l5d-dst-service"), Some("/svc/foo"));
    assert_eq!(header("l5d-dst-client"), Some(format!("/$/inet/127.1/{}", upstream.port()).as_str()));
    assert_eq!(header("l5d-dst-residual"), None);
    assert_eq!(header("via"), Some("1.1 linkerd"));
    let reqid = header("l5d-reqid").expect("a request id");
    assert!(reqid.len() == 16 && reqid.bytes().all(|byte| byte.is_ascii_hexdigit()), "{reqid}");
    assert_eq!(header("l5d-ctx-trace").map(str::len), Some(44));
    for absent in ["l5d-ctx-dtab", "l5d-ctx-deadline", "forwarded", "x-forwarded-client-cert", "connection"] {
        assert_eq!(header(absent), None, "{absent}");
    }
}

/// A2.
#[test]
fn what_of_a_name_is_not_bound_is_a_header() {
    let upstream = ok();
    let proxy = Setup::router(format!("dtab: /svc => /$/inet/127.1/{}", upstream.port())).start();
    assert_eq!(proxy.get("foo", "/a/b?c").status, 200);
    let request = last(&upstream);
    assert_eq!((request.headers.get("l5d-dst-residual"), request.target.as_str()), (Some("/foo"), "/a/b?c"));
}

/// A16, A17: a name without a file falls through, an empty file does not.
#[test]
fn an_empty_address_set_is_an_answer() {
    let (upstream, files) = (ok(), folder());
    let dtab = format!("/svc => /#/io.l5d.fs | /$/inet/127.1/{}", upstream.port());
    let proxy = with_files(files.path(), &dtab);
    assert_eq!(proxy.get("foo", "/").status, 200);
    write(&files, "foo", "");
    wait_until("the empty file to be seen", || is_unroutable(&proxy.get("foo", "/")));
    let base = format!("  /svc => /#/io.l5d.fs | /$/inet/127.1/{}", upstream.port());
    let reply = proxy.get("foo", "/");
    assert_eq!(reply.text(), no_route("/svc/foo", &base, ""));
    assert_eq!(reply.headers.get("content-type"), Some("text/plain"));
    for absent in ["via", "l5d-success-class", "l5d-retryable"] {
        assert_eq!(reply.headers.get(absent), None, "{absent}");
    }
    assert_eq!(proxy.get("bar", "/").status, 200);
    std::fs::remove_file(files.path().join("foo")).expect("it is there");
    wait_until("the next alternative", || proxy.get("foo", "/").status == 200);
}

/// A19, A20, §4.3: `~` falls through; `$` and `!` don't.
#[test]
fn alternatives_follow_a_negative_only() {
    let upstream = ok();
    let port = upstream.port();
    let dtab = format!(
        "/svc/neg => ~ | /$/inet/127.1/{port}; /svc/empty => $ | /$/inet/127.1/{port}; \
         /svc/fail => ! | /$/inet/127.1/{port}; /svc/nil => /$/nil | /$/inet/127.1/{port}; \
         /svc/nofail => /$/fail | /$/inet/127.1/{port}; /svc/first => /$/inet/127.1/{port} | !"
    );
    let proxy = Setup::router(format!("dtab: '{dtab}'")).start();
    for host in ["neg", "first"] {
        assert_eq!(proxy.get(host, "/").status, 200, "{host}");
    }
    for host in ["empty", "fail", "nil", "nofail", "unknown"] {
        let reply = proxy.get(host, "/");
        assert!(is_unroutable(&reply), "{host}: {} {}", reply.status, reply.text());
    }
}

/// A22.
#[test]
fn a_union_leaves_out_what_leads_nowhere() {
    let upstream = ok();
    let proxy = Setup::router(format!("dtab: /svc/foo => 1*/nope & 1*/$/inet/127.1/{}", upstream.port())).start();
    for _ in 0..20 {
        assert_eq!(proxy.get("foo", "/").status, 200);
    }
    assert_eq!(upstream.requests().len(), 20);
}

/// §4.3: the branches of a union are taken by their weights.
#[test]
fn a_union_is_taken_by_weight() {
    let (one, nine) = (ok(), ok());
    let dtab = format!("/svc/foo => 1*/$/inet/127.1/{} & 9*/$/inet/127.1/{}", one.port(), nine.port());
    let proxy = Setup::router(format!("dtab: {dtab}")).start();
    let mut downstream = proxy.connect();
    for _ in 0..400 {
        assert_eq!(downstream.get("foo", "/").expect("an answer").status, 200);
    }
    let (few, many) = (one.requests().len(), nine.requests().len());
    // 40 expected, of a deviation of 6: out of bounds once in some ten thousand runs.
    assert!(few + many == 400 && (16..=64).contains(&few), "{few} and {many}");
}

/// A23.
#[test]
fn a_name_that_never_ends_is_told_so() {
    let proxy = Setup::router("dtab: /svc => /svc").start();
    let reply = proxy.get("foo", "/");
    assert_eq!(reply.status, 502);
    assert!(reply.text().contains("Max recursion level: 100"), "{}", reply.text());
}

/// §4.2: of two entries that match, the later one is asked first, and the earlier one where that is negative.
#[test]
fn the_later_entry_wins() {
    let (early, late) = (ok(), ok());
    let dtab = format!(
        "/svc => /$/inet/127.1/{early}; /svc/foo => /$/inet/127.1/{late}; /svc/*/deep => /$/inet/127.1/{late}; /svc/bar => ~",
        early = early.port(),
        late = late.port()
    );
    let proxy = Setup::router(format!("dtab: {dtab}")).and("identifier: {kind: io.l5d.header}").start();
    let name = |name: &str| proxy.request("GET", "/", &[("host", "h"), ("l5d-name", name)], b"").status;
    assert_eq!((name("/foo"), name("/bar"), name("/x/deep"), name("/x/shallow")), (200, 200, 200, 200));
    assert_eq!((early.requests().len(), late.requests().len()), (2, 2));
}

/// §4.2: a request's own entries come after the router's.
#[test]
fn a_request_overrides_the_dtab() {
    let (base, other) = (ok(), ok());
    let proxy = Setup::to(&base).start();
    let entry = format!("/svc/foo => /$/inet/127.1/{}", other.port());
    let reply = proxy.request("GET", "/", &[("host", "foo"), ("l5d-dtab", &entry)], b"");
    assert_eq!((reply.status, other.requests().len(), base.requests().len()), (200, 1, 0));
    assert_eq!(seen(&other, "l5d-ctx-dtab").as_deref(), Some(entry.replace(" => ", "=>").as_str()));
    let reply = proxy.request("GET", "/", &[("host", "foo"), ("l5d-dtab", "/svc/foo => !")], b"");
    let entry = format!("  /svc/* => /$/inet/127.1/{}", base.port());
    assert_eq!((reply.status, reply.text()), (502, no_route("/svc/foo", &entry, "  /svc/foo => !").as_str()));
}

/// A76.
#[test]
fn a_malformed_address_is_quoted() {
    let files = folder();
    write(&files, "foo", "127.0.0.1 notaport\n");
    let proxy = with_files(files.path(), "/svc => /#/io.l5d.fs");
    let reply = proxy.get("foo", "/");
    assert_eq!(reply.status, 502);
    assert!(reply.text().contains("malformed address: 127.0.0.1 notaport"), "{}", reply.text());
}

/// A77.
#[test]
fn a_host_with_its_port_becomes_an_address() {
    let upstream = ok();
    let dtab = "/ph => /$/io.buoyant.rinet; /svc => /ph/80; /svc => /$/io.buoyant.porthostPfx/ph";
    let proxy = Setup::router(format!("dtab: {dtab}")).start();
    let port = upstream.port();
    assert_eq!(proxy.get(&format!("localhost:{port}"), "/").status, 200);
    assert_eq!(seen(&upstream, "l5d-dst-client"), Some(format!("/$/io.buoyant.rinet/{port}/localhost")));
    // Nobody resolves this name, so it is not bound to anything; what was tried can be seen.
    assert_eq!(proxy.get("example.test", "/").status, 502);
    let clients = proxy.page("/client_state.json");
    assert!(clients.text().contains("\"/$/io.buoyant.rinet/80/example.test\""), "{}", clients.text());
}

/// A79.
#[test]
fn a_name_may_be_a_status() {
    let proxy = Setup::router("dtab: /svc/foo => /$/io.buoyant.http.status/418").start();
    let reply = proxy.get("foo", "/");
    assert_eq!((reply.status, reply.body.len()), (418, 0));
    assert_eq!(reply.headers.get("l5d-err"), None);
}

/// §7.2: a name under `/$` that nobody knows is a failure.
#[test]
fn an_unknown_built_in_name_is_told() {
    let upstream = ok();
    let proxy = Setup::router(format!("dtab: /svc/foo => /$/nobody/x | /$/inet/127.1/{}", upstream.port())).start();
    let reply = proxy.get("foo", "/");
    assert_eq!(reply.status, 502);
    assert!(reply.text().contains("Unknown namer: nobody"), "{}", reply.text());
    assert!(upstream.requests().is_empty());
}

/// §5: bindings are live.
#[test]
fn a_changed_file_moves_the_traffic() {
    let (files, one, two) =
        (folder(), Upstream::start(|_| Response::ok("one")), Upstream::start(|_| Response::ok("two")));
    write(&files, "foo", &format!("127.0.0.1 {}\n", one.port()));
    let proxy = with_files(files.path(), "/svc => /#/io.l5d.fs");
    let mut downstream = proxy.connect();
    let mut ask = || downstream.get("foo", "/").expect("an answer").text().to_owned();
    assert_eq!(ask(), "one");
    write(&files, "foo", &format!("127.0.0.1 {}\n", two.port()));
    wait_until("the other upstream to answer", || ask() == "two");
}

/// C28: settings of services by prefix, the later entry over the earlier.
#[test]
fn services_are_set_by_prefix() {
    let port = free_port();
    let upstream = ok();
    let router = format!(
        "dtab: /svc/dead => /$/inet/127.1/{port}; /svc/alive => /$/inet/127.1/{}\n\
         service:\n  kind: io.l5d.static\n  configs:\n  - prefix: /\n    totalTimeoutMs: 10000\n  - prefix: /svc/alive\n    totalTimeoutMs: 20000",
        upstream.port()
    );
    let proxy = Setup::router(router).start();
    assert_eq!(proxy.get("alive", "/").status, 200);
    let deadline = seen(&upstream, "l5d-ctx-deadline").expect("a timeout is a deadline");
    let nanos: Vec<u64> = deadline.split(' ').map(|word| word.parse().expect("nanoseconds")).collect();
    assert_eq!(nanos[1] - nanos[0], 20_000_000_000);
}

/// Config §9, `io.l5d.fs`: without its table new names wait, and those that are bound stay.
#[test]
fn a_table_that_is_gone_leaves_new_names_waiting() {
    let (upstream, files) = (ok(), folder());
    let entry = format!("/svc/* => /$/inet/127.1/{};", upstream.port());
    write(&files, "dtab", &entry);
    let file = files.path().join("dtab");
    let interpreter = format!("interpreter: {{kind: io.l5d.fs, dtabFile: {}}}", file.display());
    let proxy = Setup::router(interpreter).and("bindingTimeoutMs: 300").start();
    assert_eq!(proxy.get("bound", "/").status, 200);
    std::fs::remove_file(&file).expect("it is there");
    let mut new = 0;
    let waited = || {
        new += 1;
        let reply = proxy.get(&format!("new-{new}"), "/");
        let text = format!("Exceeded 300.milliseconds binding timeout while resolving name: /svc/new-{new}");
        reply.status == 502 && reply.text() == text
    };
    wait_until("the table to be missed", waited);
    assert_eq!(proxy.get("bound", "/").status, 200);
    write(&files, "dtab", &entry);
    wait_until("the table to be found", || proxy.get("new-1", "/").status == 200);
}
