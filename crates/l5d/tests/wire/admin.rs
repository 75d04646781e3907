//! Pages of the admin server that know of routers, and its control (§14).

use std::net::{Ipv4Addr, SocketAddr};

use l5d_testkit::{Downstream, L5d, free_port, get};

use crate::proxy::{Proxy, Setup, ok};

fn post(proxy: &Proxy, target: &str, headers: &[(&str, &str)], body: &[u8]) -> l5d_testkit::Reply {
    let mut admin = Downstream::connect(proxy.l5d.admin()).expect("the admin server listens");
    let headers: Vec<_> = [("host", "localhost")].iter().chain(headers).copied().collect();
    let body = if body.is_empty() {
        return admin
            .request("POST", target, &[&headers[..], &[("content-length", "0")]].concat(), b"")
            .expect("an answer");
    } else {
        body
    };
    admin.request("POST", target, &headers, body).expect("an answer")
}

/// A80.
#[test]
fn a_delegation_is_explained() {
    let proxy = Setup::router("dtab: /svc => /nowhere").start();
    let expected = r#"{"type":"delegate","path":"/svc/foo","delegate":{"type":"leaf","path":"/$/inet/127.1/8080/foo","dentry":{"prefix":"/svc","dst":"/$/inet/127.1/8080"},"bound":{"addr":{"type":"bound","addrs":[{"ip":"127.0.0.1","port":8080,"meta":{}}],"meta":{}},"id":"/$/inet/127.1/8080","path":"/foo"}}}"#;
    let query = "path=/svc/foo&dtab=%2Fsvc%3D%3E%2F%24%2Finet%2F127.1%2F8080";
    for target in [format!("/delegator.json?{query}"), format!("/delegator.json?{query}&namespace=http")] {
        let reply = proxy.page(&target);
        assert_eq!((reply.status, reply.text()), (200, expected), "{target}");
    }
    let body = br#"{"namespace":"http","dtab":"/svc=>/$/inet/127.1/8080","path":"/svc/foo"}"#;
    let reply = post(&proxy, "/delegator.json", &[("content-type", "application/json")], body);
    assert_eq!((reply.status, reply.text()), (200, expected));
}

/// §14: questions that can't be answered.
#[test]
fn a_bad_question_to_the_delegator_is_told_why() {
    let proxy = Setup::router("dtab: /svc => /nowhere").start();
    for (query, status, start) in [
        ("path=svc&dtab=", 400, "Invalid path: "),
        ("path=/svc&dtab=bogus", 400, "Invalid dtab: '/' expected but 'b' found at '[b]ogus'"),
        ("path=/svc&namespace=zzz", 501, "Name Interpreter for zzz cannot show delegations"),
    ] {
        let reply = proxy.page(&format!("/delegator.json?{query}"));
        assert_eq!(reply.status, status, "{query}");
        assert!(reply.text().starts_with(start), "{query}: {}", reply.text());
    }
    let json = [("content-type", "application/json")];
    for (headers, body, status) in [
        (&json[..], &b"{"[..], 400),
        (&json[..], br#"{"path":"/svc"}"#, 400),
        (&[("content-type", "text/plain")][..], b"{}", 415),
    ] {
        let reply = post(&proxy, "/delegator.json", headers, body);
        assert_eq!(reply.status, status, "{}", reply.text());
        assert!(status == 415 || reply.text().starts_with("Malformed delegation request: "), "{}", reply.text());
    }
    let mut admin = Downstream::connect(proxy.l5d.admin()).expect("the admin server listens");
    assert_eq!(admin.request("DELETE", "/delegator.json", &[("host", "x")], b"").expect("an answer").status, 405);
}

/// §14: what recurses is an answer too.
#[test]
fn a_delegation_without_end_is_explained() {
    let proxy = Setup::router("dtab: /svc => /nowhere").start();
    let reply = proxy.page("/delegator.json?path=/svc/foo&dtab=%2Fsvc%3D%3E%2Fsvc");
    assert_eq!(reply.status, 200);
    assert!(
        reply.text().contains("\"exception\"") && reply.text().contains("Max recursion level"),
        "{:.400}",
        reply.text()
    );
}

/// A82.
#[test]
fn a_shutdown_is_posted() {
    let mut proxy = Setup::router("dtab: /svc => /nowhere").start();
    let refused = proxy.page("/admin/shutdown");
    assert_eq!((refused.status, refused.headers.get("allow")), (405, Some("POST")));
    assert_eq!(post(&proxy, "/admin/shutdown?grace=soon", &[], b"").status, 400);
    assert_eq!(proxy.get("foo", "/").status, 502, "it still serves");
    let reply = post(&proxy, "/admin/shutdown?grace=2.seconds", &[], b"");
    assert_eq!((reply.status, reply.text()), (200, "quitting\n"));
    assert_eq!(proxy.l5d.process().wait().code(), Some(0));
}

/// A83.
#[test]
fn control_can_be_taken_away() {
    let proxy = Setup::router("dtab: /svc => /nowhere").admin("security: {controlEnabled: false}").start();
    let reply = post(&proxy, "/admin/shutdown", &[], b"");
    assert_eq!((reply.status, reply.body.len()), (404, 0));
    assert_eq!(proxy.page("/admin/ping").status, 200);
}

/// Config §4: the lists come before, and after, the categories.
#[test]
fn pages_can_be_listed_as_allowed_or_not() {
    let security = r#"security: {diagnosticsEnabled: false, pathWhitelist: ["^/admin/ping$", "/bound-names.*"], pathBlacklist: ["/config[.]json"]}"#;
    let proxy = Setup::router("dtab: /svc => /nowhere").admin(&format!("{security}, workerThreads: 1")).start();
    for (path, status) in [
        ("/admin/ping", 200),
        ("/bound-names.json", 200),
        ("/client_state.json", 404),
        ("/config.json", 404),
        ("/admin/metrics.json", 200),
        ("/admin/metrics/prometheus", 404),
    ] {
        let reply = proxy.page(path);
        assert_eq!(reply.status, status, "{path}");
        assert!(status == 200 || reply.body.is_empty(), "{path}");
    }
}

/// §14: `/client_state.json` and `/bound-names.json`.
#[test]
fn clients_and_names_are_listed() {
    let upstream = ok();
    let files = tempfile::TempDir::new().expect("a temporary folder can be made");
    for name in ["dog", "cat"] {
        std::fs::write(files.path().join(name), format!("127.0.0.1 {}\n", upstream.port()))
            .expect("a file can be written");
    }
    std::fs::write(files.path().join("empty"), "").expect("a file can be written");
    let proxy = Setup::router("dtab: /svc => /#/io.l5d.fs")
        .top(format!("namers: [{{kind: io.l5d.fs, rootDir: {}}}]", files.path().display()))
        .start();
    assert_eq!(proxy.page("/client_state.json").text(), "{}");
    assert_eq!((proxy.get("dog", "/").status, proxy.get("empty", "/").status), (200, 502));
    let expected = format!(
        r##"{{"/#/io.l5d.fs/dog":{{"state":"bound","addresses":["127.0.0.1:{}"]}},"/#/io.l5d.fs/empty":{{"state":"bound","addresses":[]}}}}"##,
        upstream.port()
    );
    let read = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("JSON");
    assert_eq!(read(proxy.page("/client_state.json").text()), read(&expected));
    let names = proxy.page("/bound-names.json");
    assert_eq!(read(names.text()), read(r##"["/#/io.l5d.fs/cat","/#/io.l5d.fs/dog","/#/io.l5d.fs/empty"]"##));
}

/// §14: the object of `/client_state.json` has a client's id once, however many routers have it.
#[test]
fn a_client_of_two_routers_is_listed_once() {
    let (upstream, admin) = (ok(), SocketAddr::from((Ipv4Addr::LOCALHOST, free_port())));
    let servers = [free_port(), free_port()];
    let mut config = format!("admin: {{port: {}}}\nrouters:\n", admin.port());
    for port in servers {
        config += &format!(
            "- {{protocol: http, label: r{port}, dtab: '/svc/* => /$/inet/127.1/{}', servers: [{{port: {port}}}]}}\n",
            upstream.port()
        );
    }
    let _l5d = L5d::start(env!("CARGO_BIN_EXE_l5d"), &[], &config, admin);
    for port in servers {
        assert_eq!(get(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), "foo", "/").expect("an answer").status, 200);
    }
    let page = get(admin, "localhost", "/client_state.json").expect("an answer");
    let port = upstream.port();
    let expected = format!(r#"{{"/$/inet/127.1/{port}":{{"state":"bound","addresses":["127.0.0.1:{port}"]}}}}"#);
    assert_eq!(page.text(), expected);
}

/// §14: the port that tells names.
#[test]
fn the_identifier_port_tells_names() {
    let port = free_port();
    let proxy = Setup::router("dtab: /svc=>/x").admin(&format!("httpIdentifierPort: {port}")).start();
    let at = ([127, 0, 0, 1], port).into();
    let reply = get(at, "foo", "/").expect("an answer");
    assert_eq!(reply.text(), r#"{"http":{"dtab":"/svc=>/x","path":"/svc/foo"}}"#);
    let reply = Downstream::connect(at).and_then(|mut port| port.request("GET", "/", &[("host", "")], b""));
    assert_eq!(reply.expect("an answer").text(), r#"{"http":{"error":"Host header is absent"}}"#);
    drop(proxy);
}
