//! Traffic as a person makes it: curl through l5d to nginx and to an upstream of our own, found by the fs namer.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use l5d_testkit::{L5d, Response, Upstream, free_port, wait_until};

use crate::l5d::start;
use crate::nginx::Nginx;
use crate::programs::{Outcome, curl, run};
use crate::suite::Suite;

/// One l5d with a folder of names, in which `nginx` and `rust` are written.
struct Routing {
    l5d: L5d,
    url: String,
    server: SocketAddr,
    upstream: Upstream,
    folder: tempfile::TempDir,
}

impl Routing {
    fn start(nginx: &Nginx) -> Self {
        let upstream = Upstream::start(|request| match request.target.as_str() {
            "/who" => Response::ok("rust"),
            "/chunks" => Response::ok("0123456789".repeat(1_000)).chunked(700),
            _ => Response::ok(request.body.clone()),
        });
        let folder = tempfile::TempDir::new().expect("a temporary folder can be made");
        write(folder.path(), "nginx", nginx.port);
        write(folder.path(), "rust", upstream.port());
        let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let server = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let config = format!(
            "admin: {{port: {}}}\nnamers:\n- kind: io.l5d.fs\n  rootDir: {}\n\
             routers:\n- protocol: http\n  dtab: /svc => /#/io.l5d.fs\n  servers:\n  - port: {}\n",
            admin.port(),
            folder.path().display(),
            server.port()
        );
        Self { l5d: start(&config, admin), url: format!("http://{server}"), server, upstream, folder }
    }

    fn count(&self, name: &str) -> u64 {
        self.l5d.scrape().count(&format!("rt/http/{name}"))
    }
}

/// As an editor or a mounted ConfigMap does it: a new file that takes the old one's name.
fn write(folder: &Path, name: &str, port: u16) {
    let new = folder.join(format!(".{name}.new"));
    std::fs::write(&new, format!("127.0.0.1 {port}\n")).expect("a file can be written");
    std::fs::rename(&new, folder.join(name)).expect("a file can be renamed");
}

fn fine(arguments: &[&str], input: &[u8]) -> Outcome {
    let outcome = run(&mut curl(arguments), input);
    assert_eq!(outcome.code, 0, "curl {arguments:?}: {}", outcome.stderr);
    outcome
}

pub(crate) fn curl_gets_what_nginx_serves(suite: &Suite) {
    let nginx = suite.nginx();
    let routing = Routing::start(nginx);
    let (large, page) = (format!("{}/large.bin", routing.url), format!("{}/page.txt", routing.url));
    let host = ["-H", "Host: nginx"];
    let with = |more: &[&str], url: &str| fine(&[&host[..], more, &[url]].concat(), b"");

    assert_eq!(with(&[], &page).text(), "served by nginx\n".repeat(200));
    assert!(with(&[], &large).stdout == nginx.large, "a megabyte came back changed");
    let part = with(&["--range", "1000-1999", "--write-out", "%{http_code}"], &large).stdout;
    assert!(part[..1000] == nginx.large[1000..2000] && &part[1000..] == b"206");
    let head = with(&["--head"], &large).text().to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 200") && head.contains("content-length: 1048576\r\n"), "{head}");
    let zipped = with(&["--compressed", "--include"], &page).text();
    assert!(
        zipped.to_ascii_lowercase().contains("content-encoding: gzip") && zipped.ends_with("served by nginx\n"),
        "{zipped:.400}"
    );
    assert_eq!(with(&["--http1.0"], &page).text(), "served by nginx\n".repeat(200));
    let status = |more: &[&str], url: &str| {
        with(&[&["--output", "/dev/null", "--write-out", "%{http_code}"], more].concat(), url).text()
    };
    assert_eq!(status(&[], &format!("{}/nothing", routing.url)), "404");
    let etag = head.lines().find_map(|line| line.strip_prefix("etag: ")).expect("nginx tells an etag").to_owned();
    assert_eq!(status(&["-H", &format!("If-None-Match: {etag}")], &large), "304");
    // Three on one connection of curl's.
    let connects = with(
        &[
            "--output",
            "/dev/null",
            "--output",
            "/dev/null",
            "--output",
            "/dev/null",
            "--write-out",
            "%{num_connects}",
            &page,
            &page,
        ],
        &page,
    );
    assert_eq!(connects.text(), "100");

    let asked = nginx.asked();
    let last = asked.last().expect("nginx was asked");
    let parts: Vec<&str> = last.split('|').collect();
    assert_eq!(parts[..5], ["GET /page.txt", "1.1 linkerd", "/svc/nginx", "/#/io.l5d.fs/nginx", "200"], "{last}");
    assert!(parts[5].parse::<u32>().is_ok_and(|nth| nth > 1), "the connection to nginx was not kept: {last}");

    let server = format!("server/127.0.0.1/{}", routing.server.port());
    wait_until("eleven requests", || routing.count(&format!("{server}/requests")) == 11);
    for (name, wanted) in [("status/200", 8), ("status/206", 1), ("status/304", 1), ("status/404", 1)] {
        assert_eq!(routing.count(&format!("{server}/{name}")), wanted, "{name}");
    }
    assert_eq!(routing.count("service/svc/nginx/requests"), 11);
    assert_eq!(routing.count("client/#/io.l5d.fs/nginx/requests"), 11);
}

pub(crate) fn curl_sends_bodies_to_an_upstream(suite: &Suite) {
    let nginx = suite.nginx();
    let routing = Routing::start(nginx);
    let url = format!("{}/echo", routing.url);
    let host = "Host: rust";
    let body = &nginx.large;
    let small = fine(&["-H", host, "--data-binary", "@-", &url], b"a few letters");
    assert_eq!(small.text(), "a few letters");
    assert!(fine(&["-H", host, "--data-binary", "@-", &url], body).stdout == *body, "with a length");
    let chunked = ["-H", host, "-H", "Transfer-Encoding: chunked", "--data-binary", "@-", &url];
    assert!(fine(&chunked, body).stdout == *body, "chunked");
    let careful = ["-H", host, "-H", "Expect: 100-continue", "--upload-file", "-", &url];
    assert!(fine(&careful, body).stdout == *body, "after 100-continue");
    let chunks = fine(&["-H", host, &format!("{}/chunks", routing.url)], b"");
    assert_eq!(chunks.text(), "0123456789".repeat(1_000));
    // As a proxy of curl's: the target is a whole URL.
    let proxied = fine(&["--proxy", &routing.url, "--noproxy", "", "http://rust/who"], b"");
    assert_eq!(proxied.text(), "rust");

    let seen = routing.upstream.requests();
    assert_eq!(seen.len(), 6);
    assert!(seen[2].headers.get("transfer-encoding").is_some(), "{:?}", seen[2].headers);
    assert_eq!(seen[5].headers.get("host"), Some("rust"));
    assert!(seen.iter().all(|request| request.headers.get("via") == Some("1.1 linkerd")));
}

pub(crate) fn a_rewritten_file_moves_the_traffic(suite: &Suite) {
    let nginx = suite.nginx();
    let routing = Routing::start(nginx);
    let who = || run(&mut curl(&["-H", "Host: moved", &format!("{}/who", routing.url)]), b"").text();
    assert!(who().contains("Unable to route request!"), "{}", who());
    write(routing.folder.path(), "moved", nginx.port);
    wait_until("nginx to answer for a new name", || who().contains("nginx"));
    write(routing.folder.path(), "moved", routing.upstream.port());
    wait_until("the other upstream to answer", || who() == "rust");
    std::fs::remove_file(routing.folder.path().join("moved")).expect("it is there");
    wait_until("nobody to answer", || who().contains("Unable to route request!"));
}

pub(crate) fn what_can_not_be_routed_says_why(suite: &Suite) {
    let routing = Routing::start(suite.nginx());
    let answer = fine(&["--include", "-H", "Host: nobody", &routing.url], b"").text();
    let lower = answer.to_ascii_lowercase();
    assert!(lower.starts_with("http/1.1 502 ") && lower.contains("\nl5d-err: "), "{answer}");
    assert!(answer.contains("service name: /svc/nobody") && answer.contains("/svc => /#/io.l5d.fs"), "{answer}");
    let overridden = format!("l5d-dtab: /svc/nobody=>/$/inet/127.1/{}", routing.upstream.port());
    let answer = fine(&["-H", "Host: nobody", "-H", &overridden, &format!("{}/who", routing.url)], b"");
    assert_eq!(answer.text(), "rust");
    write(routing.folder.path(), "closed", free_port());
    wait_until("the name to be known and its port closed", || {
        let answer = run(&mut curl(&["--include", "-H", "Host: closed", &routing.url]), b"").text();
        answer.starts_with("HTTP/1.1 502") && answer.contains("Unable to establish connection to 127.0.0.1:")
    });
    let name = format!("server/127.0.0.1/{}/status/502", routing.server.port());
    wait_until("502s to be counted", || routing.count(&name) >= 2);
}
