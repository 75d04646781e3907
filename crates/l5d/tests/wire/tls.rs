//! TLS on both sides, with curl and openssl at the other end (config §10.3, §13), and what is told of the caller's
//! certificate (§6.5).

use std::path::{Path, PathBuf};
use std::process::Command;

use l5d_testkit::{Process, Upstream, free_port, wait_until};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use tempfile::TempDir;

use crate::proxy::{Proxy, Setup, last, ok};

/// A folder with `ca.pem` and, for each name, `NAME.pem` and `NAME.key`.
struct Certificates {
    folder: TempDir,
    ca: CertificateParams,
    ca_key: KeyPair,
}

impl Certificates {
    fn new() -> Self {
        let mut ca = CertificateParams::new(Vec::new()).expect("no names are valid names");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.distinguished_name.push(DnType::CommonName, "an authority");
        let ca_key = KeyPair::generate().expect("a key can be made");
        let this = Self { folder: TempDir::new().expect("a temporary folder can be made"), ca, ca_key };
        let own = this.ca.self_signed(&this.ca_key).expect("an authority signs itself");
        std::fs::write(this.path("ca.pem"), own.pem()).expect("a file can be written");
        this
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A certificate with that common name, and what `more` adds.
    fn issue(&self, file: &str, name: &str, more: impl FnOnce(&mut CertificateParams)) -> &Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names are valid names");
        params.distinguished_name.push(DnType::CommonName, name);
        more(&mut params);
        let key = KeyPair::generate().expect("a key can be made");
        let signed = params.signed_by(&key, &Issuer::from_params(&self.ca, &self.ca_key)).expect("an authority signs");
        std::fs::write(self.path(&format!("{file}.pem")), signed.pem()).expect("a file can be written");
        std::fs::write(self.path(&format!("{file}.key")), key.serialize_pem()).expect("a file can be written");
        self
    }

    /// A certificate for a server of that name.
    fn server(&self, name: &str) -> &Self {
        self.issue(name, name, |params| params.subject_alt_names.push(dns(name)))
    }

    /// The keys `certPath` and `keyPath`, in flow style.
    fn pair(&self, name: &str) -> String {
        format!("certPath: {}, keyPath: {}", self.shown(&format!("{name}.pem")), self.shown(&format!("{name}.key")))
    }

    fn shown(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().expect("a DNS name"))
}

/// What curl got: its exit status, the response's status, and what it said.
fn curl(proxy: &Proxy, name: &str, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new("curl")
        .args([
            "--silent",
            "--show-error",
            "--output",
            "/dev/null",
            "--write-out",
            "%{http_code}",
            "--header",
            "Host: foo",
        ])
        .args(["--resolve", &format!("{name}:{}:127.0.0.1", proxy.server.port())])
        .args(arguments)
        .arg(format!("https://{name}:{}/", proxy.server.port()))
        .output()
        .expect("curl runs");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// A server with that certificate, in front of an upstream.
fn serving(upstream: &Upstream, files: &Certificates, tls: &str) -> Proxy {
    Setup::to(upstream).server(format!("tls: {{{}{tls}}}", files.pair("l5d.test"))).start()
}

#[test]
fn a_server_speaks_tls() {
    let (files, upstream) = (Certificates::new(), ok());
    let proxy = serving(&upstream, files.server("l5d.test"), "");
    let ca = files.shown("ca.pem");
    for version in ["--tlsv1.2", "--tlsv1.3"] {
        let (code, status, said) = curl(&proxy, "l5d.test", &["--cacert", &ca, version]);
        assert_eq!((code, status.as_str()), (Some(0), "200"), "{version}: {said}");
    }
    let (_, _, said) = curl(&proxy, "l5d.test", &["--cacert", &ca, "--verbose"]);
    assert!(!said.contains("server accepted to use h2") && !said.contains("server accepted h2"), "{said}");
    // Who speaks plainly is not understood; the server lives on.
    let mut plain = proxy.connect();
    assert!(plain.get("foo", "/").is_err());
    assert_eq!(curl(&proxy, "l5d.test", &["--cacert", &ca]).1, "200");
    let server = format!("server/127.0.0.1/{}", proxy.server.port());
    wait_until("the handshakes to be counted", || proxy.count(&format!("{server}/connects")) >= 4);
}

/// §10.3: replaced files take effect without a restart.
#[test]
fn a_replaced_certificate_is_used() {
    let (files, upstream) = (Certificates::new(), ok());
    let proxy = serving(&upstream, files.server("l5d.test"), "");
    let others = Certificates::new();
    others.server("l5d.test");
    let (old, new) = (files.shown("ca.pem"), others.shown("ca.pem"));
    assert_eq!(curl(&proxy, "l5d.test", &["--cacert", &old]).1, "200");
    assert_ne!(curl(&proxy, "l5d.test", &["--cacert", &new]).0, Some(0), "not yet signed by that one");
    for file in ["l5d.test.key", "l5d.test.pem"] {
        std::fs::copy(others.path(file), files.path(file)).expect("a file can be copied");
    }
    wait_until("the new certificate", || curl(&proxy, "l5d.test", &["--cacert", &new]).1 == "200");
}

/// §10.3: `requireClientAuth`.
#[test]
fn a_server_may_ask_who_calls() {
    let (files, upstream) = (Certificates::new(), ok());
    files.issue("caller", "a caller", |_| {});
    let strangers = Certificates::new();
    strangers.issue("caller", "a stranger", |_| {});
    let auth = format!(", requireClientAuth: true, caCertPath: {}", files.shown("ca.pem"));
    let proxy = serving(&upstream, files.server("l5d.test"), &auth);
    let ca = files.shown("ca.pem");
    let as_caller = |files: &Certificates| {
        let (cert, key) = (files.shown("caller.pem"), files.shown("caller.key"));
        curl(&proxy, "l5d.test", &["--cacert", &ca, "--cert", &cert, "--key", &key])
    };
    assert_eq!(as_caller(&files).1, "200");
    assert_ne!(as_caller(&strangers).0, Some(0));
    assert_ne!(curl(&proxy, "l5d.test", &["--cacert", &ca]).0, Some(0));
    assert_eq!(upstream.requests().len(), 1);
    assert_eq!(last(&upstream).headers.get("x-forwarded-client-cert"), None, "nobody asked for it");
}

/// The SHA-256 of the first certificate of a file, as openssl sees it.
fn fingerprint(file: &Path) -> String {
    let output = Command::new("openssl").args(["x509", "-noout", "-fingerprint", "-sha256", "-in"]).arg(file).output();
    let text = String::from_utf8(output.expect("openssl runs").stdout).expect("text");
    text.trim().rsplit('=').next().unwrap_or_default().replace(':', "")
}

/// §6.5: `forwardClientCert`.
#[test]
fn the_callers_certificate_is_told() {
    let (files, upstream) = (Certificates::new(), ok());
    let uri = |text: &str| SanType::URI(text.try_into().expect("a URI"));
    files.server("l5d.test");
    files.issue("caller", "the, \"caller\"", |params| {
        params.distinguished_name.push(DnType::OrganizationName, "Röck & Co");
        params.distinguished_name.push(DnType::CountryName, "CH");
        params.subject_alt_names =
            vec![dns("one.test"), uri("spiffe://mesh/ns/default/sa/caller"), dns("two.test"), uri("http://second/")];
    });
    files.issue("plain", "plain", |_| {});
    let setup = Setup::to(&upstream).and("client: {forwardClientCert: true}").server(format!(
        "tls: {{{}, requireClientAuth: true, caCertPath: {}}}",
        files.pair("l5d.test"),
        files.shown("ca.pem")
    ));
    let proxy = setup.start();
    let ca = files.shown("ca.pem");
    let ask = |name: &str| {
        let (cert, key) = (files.shown(&format!("{name}.pem")), files.shown(&format!("{name}.key")));
        let forged = ["--header", "x-forwarded-client-cert: Hash=forged"];
        let (_, status, said) =
            curl(&proxy, "l5d.test", &[&["--cacert", &ca, "--cert", &cert, "--key", &key][..], &forged].concat());
        assert_eq!(status, "200", "{said}");
        let request = last(&upstream);
        let all: Vec<_> = request.headers.all("x-forwarded-client-cert").map(str::to_owned).collect();
        assert_eq!(all.len(), 1, "{all:?}");
        all[0].clone()
    };
    let hash = fingerprint(&files.path("plain.pem"));
    assert_eq!(ask("plain"), format!("Hash={hash};Subject=\"CN=plain\""));
    let hash = fingerprint(&files.path("caller.pem"));
    assert_eq!(
        ask("caller"),
        format!(
            "Hash={hash};SAN=spiffe://mesh/ns/default/sa/caller;DNS=one.test;DNS=two.test;\
             Subject=\"C=CH,O=Röck & Co,CN=the\\, \\\"caller\\\"\""
        )
    );
}

/// §6.5: without TLS there is nobody to tell of, and nobody else may.
#[test]
fn without_tls_no_certificate_is_told() {
    let upstream = ok();
    let proxy = Setup::to(&upstream).and("client: {forwardClientCert: true}").start();
    let reply = proxy.request("GET", "/", &[("host", "foo"), ("x-forwarded-client-cert", "Hash=forged")], b"");
    assert_eq!((reply.status, last(&upstream).headers.get("x-forwarded-client-cert")), (200, None));
}

/// openssl's server, which answers every GET with a page about the connection.
fn openssl_server(files: &Certificates, name: &str, arguments: &[&str]) -> (Process, u16) {
    let port = free_port();
    let mut command = Command::new("openssl");
    command.args(["s_server", "-www", "-accept", &port.to_string(), "-tlsextdebug"]);
    command.arg("-cert").arg(files.path(&format!("{name}.pem"))).arg("-key").arg(files.path(&format!("{name}.key")));
    let mut process = Process::start("openssl", command.args(arguments)).expect("openssl runs");
    process
        .wait_ready(std::time::Duration::from_secs(30), || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    (process, port)
}

fn to_openssl(port: u16, tls: &str) -> Proxy {
    Setup::router(format!("dtab: /svc/* => /$/inet/127.1/{port}\nclient: {{tls: {{{tls}}}}}")).start()
}

/// Config §13: the name is checked, and sent.
#[test]
fn a_client_checks_whom_it_speaks_to() {
    let files = Certificates::new();
    files.server("right.test");
    let (openssl, port) = openssl_server(&files, "right.test", &[]);
    let bundle = format!("trustCertsBundle: {}", files.shown("ca.pem"));
    let proxy = to_openssl(port, &format!("commonName: right.test, {bundle}"));
    let reply = proxy.get("foo", "/");
    assert!(reply.status == 200 && reply.text().contains("s_server"), "{}", reply.text());
    // The name that the client wants is in the dump of its extensions.
    wait_until("openssl to tell of the name", || {
        let dumped: String =
            openssl.output().lines().filter_map(|line| line.rsplit_once("  ").map(|(_, text)| text.trim())).collect();
        dumped.contains("right.test")
    });
    for (tls, why) in [
        (format!("commonName: wrong.test, {bundle}"), "another name"),
        ("commonName: right.test".to_owned(), "not signed by anybody the system trusts"),
    ] {
        let proxy = to_openssl(port, &tls);
        let reply = proxy.get("foo", "/");
        assert_eq!(reply.status, 502, "{why}: {}", reply.text());
        assert!(reply.headers.get("l5d-err").is_some(), "{why}");
    }
    for tls in ["disableValidation: true", "disableValidation: true, commonName: wrong.test"] {
        assert_eq!(to_openssl(port, tls).get("foo", "/").status, 200, "{tls}");
    }
    assert_eq!(to_openssl(port, "enabled: false").get("foo", "/").status, 502, "spoken plainly");
}

/// Config §13: `clientAuth`.
#[test]
fn a_client_shows_its_certificate() {
    let files = Certificates::new();
    files.server("right.test");
    files.issue("proxy", "the proxy", |_| {});
    let ca = files.shown("ca.pem");
    let (_openssl, port) =
        openssl_server(&files, "right.test", &["-Verify", "1", "-verify_return_error", "-CAfile", &ca]);
    let tls = format!("commonName: right.test, trustCertsBundle: {ca}");
    let with = to_openssl(port, &format!("{tls}, clientAuth: {{{}}}", files.pair("proxy")));
    let reply = with.get("foo", "/");
    assert!(reply.status == 200 && reply.text().contains("the proxy"), "{}", reply.text());
    assert_eq!(to_openssl(port, &tls).get("foo", "/").status, 502);
}

/// C29: parts of the client's name in the name that is checked.
#[test]
fn captures_of_a_prefix_name_the_peer() {
    let files = Certificates::new();
    files.server("foo.test");
    let (_openssl, port) = openssl_server(&files, "foo.test", &[]);
    let names = TempDir::new().expect("a temporary folder can be made");
    for name in ["foo", "bar"] {
        std::fs::write(names.path().join(name), format!("127.0.0.1 {port}\n")).expect("a file can be written");
    }
    let proxy = Setup::router(format!(
        "dtab: /svc => /#/io.l5d.fs\nclient:\n  kind: io.l5d.static\n  configs:\n  - prefix: '/#/io.l5d.fs/{{service}}'\n    \
         tls: {{commonName: '{{service}}.test', trustCertsBundle: {}}}",
        files.shown("ca.pem")
    ))
    .top(format!("namers: [{{kind: io.l5d.fs, rootDir: {}}}]", names.path().display()))
    .start();
    assert_eq!((proxy.get("foo", "/").status, proxy.get("bar", "/").status), (200, 502));
}

/// Two proxies with TLS between them, each with a certificate: callers need not know of it.
#[test]
fn two_proxies_speak_tls_to_one_another() {
    let (files, upstream) = (Certificates::new(), ok());
    files.server("l5d.test").issue("front", "front", |_| {});
    let ca = files.shown("ca.pem");
    let behind = Setup::to(&upstream)
        .and("client: {forwardClientCert: true}")
        .server(format!("tls: {{{}, requireClientAuth: true, caCertPath: {ca}}}", files.pair("l5d.test")))
        .start();
    let front = to_openssl(
        behind.server.port(),
        &format!("commonName: l5d.test, trustCertsBundle: {ca}, clientAuth: {{{}}}", files.pair("front")),
    );
    let mut downstream = front.connect();
    for _ in 0..3 {
        assert_eq!(
            downstream.request("POST", "/", &[("host", "foo")], &[b'x'; 20_000]).expect("an answer").status,
            200
        );
    }
    let request = last(&upstream);
    assert_eq!((request.body.len(), request.headers.get("via")), (20_000, Some("1.1 linkerd, 1.1 linkerd")));
    let told = request.headers.get("x-forwarded-client-cert").expect("the front's certificate");
    assert!(told.ends_with(";Subject=\"CN=front\""), "{told}");
    let connects = format!("rt/http/client/$/inet/127.1/{}/connects", behind.server.port());
    assert_eq!(front.scrape().count(&connects), 1, "one handshake for all of them");
}

/// Config §13: `trustCerts` are trusted all together; `protocols` are those that are spoken.
#[test]
fn a_client_may_trust_several_and_speak_few() {
    let (files, others) = (Certificates::new(), Certificates::new());
    files.server("right.test");
    let (_openssl, port) = openssl_server(&files, "right.test", &["-tls1_2"]);
    let both = format!("commonName: right.test, trustCerts: [{}, {}]", others.shown("ca.pem"), files.shown("ca.pem"));
    assert_eq!(to_openssl(port, &both).get("foo", "/").status, 200);
    assert_eq!(to_openssl(port, &format!("{both}, protocols: [TLSv1.2]")).get("foo", "/").status, 200);
    assert_eq!(to_openssl(port, &format!("{both}, protocols: [TLSv1.3]")).get("foo", "/").status, 502);
    let other = format!("commonName: right.test, trustCerts: [{}]", others.shown("ca.pem"));
    assert_eq!(to_openssl(port, &other).get("foo", "/").status, 502);
}

/// Config §10.3: what a server can not read fails handshakes, not the start; `protocols` are those that it speaks.
#[test]
fn a_server_without_its_files_starts_and_has_its_protocols() {
    let (files, upstream) = (Certificates::new(), ok());
    let proxy = serving(&upstream, &files, ", protocols: [TLSv1.2]");
    let ca = files.shown("ca.pem");
    assert_ne!(curl(&proxy, "l5d.test", &["--cacert", &ca]).0, Some(0));
    files.server("l5d.test");
    wait_until("the certificate to be found", || curl(&proxy, "l5d.test", &["--cacert", &ca]).1 == "200");
    assert_ne!(curl(&proxy, "l5d.test", &["--cacert", &ca, "--tlsv1.3"]).0, Some(0));
}
