//! TLS handshakes over real loopback sockets, with certificates made for the occasion.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use l5d_net::{
    ClientAuth, ClientTls, ClientTlsConfig, ServerTls, ServerTlsConfig, SocketOptions, Stream, bind, connect,
};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// A folder with `ca.pem` and, for each name, `NAME.pem` and `NAME.key`.
struct Files {
    dir: TempDir,
    ca: CertificateParams,
    ca_key: KeyPair,
}

impl Files {
    fn new() -> Self {
        Self::of_authority("test ca")
    }

    fn of_authority(name: &str) -> Self {
        let mut ca = CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.distinguished_name.push(DnType::CommonName, name);
        let ca_key = KeyPair::generate().unwrap();
        let this = Self { dir: tempfile::tempdir().unwrap(), ca, ca_key };
        fs::write(this.path("ca.pem"), this.ca.self_signed(&this.ca_key).unwrap().pem()).unwrap();
        this
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A certificate signed by the ca, for this DNS name, or for a common name alone.
    fn issue(&self, file: &str, name: &str, alternative: bool) {
        let names = if alternative { vec![name.to_owned()] } else { Vec::new() };
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let issuer = Issuer::from_params(&self.ca, &self.ca_key);
        fs::write(self.path(&format!("{file}.pem")), params.signed_by(&key, &issuer).unwrap().pem()).unwrap();
        fs::write(self.path(&format!("{file}.key")), key.serialize_pem()).unwrap();
    }

    /// What `openssl req -x509` makes: its own authority, and a common name only.
    fn self_signed(&self, file: &str, name: &str) {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        fs::write(self.path(&format!("{file}.pem")), params.self_signed(&key).unwrap().pem()).unwrap();
        fs::write(self.path(&format!("{file}.key")), key.serialize_pem()).unwrap();
    }

    fn server(&self, file: &str) -> ServerTlsConfig {
        ServerTlsConfig {
            cert_path: self.path(&format!("{file}.pem")),
            key_path: self.path(&format!("{file}.key")),
            ..ServerTlsConfig::default()
        }
    }

    fn client(&self, name: &str) -> ClientTlsConfig {
        ClientTlsConfig {
            common_name: Some(name.to_owned()),
            trust_certs: vec![self.path("ca.pem")],
            ..ClientTlsConfig::default()
        }
    }
}

struct Outcome {
    server: io::Result<Stream>,
    client: io::Result<Stream>,
}

impl Outcome {
    /// Both sides agreed, and bytes pass: what one writes the other reads, both ways.
    async fn passes(self) -> (Stream, Stream) {
        let (mut server, mut client) = (self.server.expect("the server side"), self.client.expect("the client side"));
        for (from, to) in [(0, 1), (1, 0)] {
            let (writer, reader) =
                if (from, to) == (0, 1) { (&mut server, &mut client) } else { (&mut client, &mut server) };
            let text = vec![b'x'; 100_000];
            let mut seen = vec![0; text.len()];
            let written = async {
                writer.write_all(&text).await.unwrap();
                writer.flush().await.unwrap();
            };
            let (_, read) = tokio::join!(written, reader.read_exact(&mut seen));
            read.unwrap();
            assert_eq!(seen, text);
        }
        (server, client)
    }

    /// One side refused. A refusal by the other side may only be seen at the first read, with TLS 1.3.
    async fn refusal(self) -> String {
        match (self.server, self.client) {
            (server, Err(error)) => {
                drop(server);
                error.to_string()
            }
            (Err(error), Ok(_)) => error.to_string(),
            (Ok(_), Ok(_)) => panic!("the handshake should have failed"),
        }
    }
}

async fn shake(server: &ServerTls, client: &ClientTls) -> Outcome {
    let options = SocketOptions::default();
    let listener = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), &options).unwrap();
    let addr = listener.local_addr().unwrap();
    let listener = TcpListener::from_std(listener).unwrap();
    let accept = async { server.accept(listener.accept().await?.0).await };
    let open = async { client.connect(connect(addr, &options, Duration::from_secs(10)).await?).await };
    let (server, client) = tokio::join!(accept, open);
    Outcome { server, client }
}

#[tokio::test]
async fn a_client_that_trusts_the_authority_and_asks_for_the_right_name_is_served() {
    let files = Files::new();
    files.issue("up", "up.test", true);
    let server = ServerTls::new(files.server("up")).unwrap();
    let client = ClientTls::new(files.client("up.test")).unwrap();
    let (server, client) = shake(&server, &client).await.passes().await;
    assert!(server.is_tls() && server.peer_certificate().is_none());
    assert!(client.peer_certificate().is_some());
    assert_eq!(client.tcp().peer_addr().unwrap(), server.tcp().local_addr().unwrap());
}

#[tokio::test]
async fn a_wrong_name_or_an_unknown_authority_is_refused() {
    let (files, others) = (Files::new(), Files::of_authority("another ca"));
    files.issue("up", "up.test", true);
    let server = ServerTls::new(files.server("up")).unwrap();
    let client = ClientTls::new(files.client("other.test")).unwrap();
    let error = shake(&server, &client).await.refusal().await;
    assert!(error.contains("not valid for name"), "{error}");
    let client = ClientTls::new(others.client("up.test")).unwrap();
    let error = shake(&server, &client).await.refusal().await;
    assert!(error.contains("UnknownIssuer"), "{error}");
    // The system's trust knows no test authority either (or there is none on this machine at all).
    let config = ClientTlsConfig { trust_certs: Vec::new(), ..files.client("up.test") };
    let error = shake(&server, &ClientTls::new(config).unwrap()).await.refusal().await;
    assert!(error.contains("UnknownIssuer") || error.contains("the system trusts no certificates"), "{error}");
}

#[tokio::test]
async fn without_validation_any_certificate_will_do_with_or_without_a_name() {
    let files = Files::new();
    files.self_signed("up", "up.test");
    let server = ServerTls::new(files.server("up")).unwrap();
    for common_name in [None, Some("other.test".to_owned())] {
        for protocol in ["TLSv1.2", "TLSv1.3"] {
            let config = ClientTlsConfig {
                common_name: common_name.clone(),
                disable_validation: true,
                protocols: vec![protocol.to_owned()],
                ..ClientTlsConfig::default()
            };
            shake(&server, &ClientTls::new(config).unwrap()).await.passes().await;
        }
    }
}

#[tokio::test]
async fn a_certificate_without_alternative_names_is_known_by_its_common_name() {
    let files = Files::new();
    files.issue("up", "up.test", false);
    let server = ServerTls::new(files.server("up")).unwrap();
    shake(&server, &ClientTls::new(files.client("up.test")).unwrap()).await.passes().await;
    let error = shake(&server, &ClientTls::new(files.client("other.test")).unwrap()).await.refusal().await;
    assert!(error.contains("not valid for"), "{error}");
}

#[tokio::test]
async fn a_self_signed_certificate_that_is_itself_trusted_is_believed() {
    let files = Files::new();
    files.self_signed("up", "up.test");
    let server = ServerTls::new(files.server("up")).unwrap();
    let config = ClientTlsConfig { trust_certs: vec![files.path("up.pem")], ..files.client("up.test") };
    shake(&server, &ClientTls::new(config.clone()).unwrap()).await.passes().await;
    let config = ClientTlsConfig { common_name: Some("other.test".to_owned()), ..config };
    shake(&server, &ClientTls::new(config).unwrap()).await.refusal().await;
}

#[tokio::test]
async fn mutual_tls_needs_a_certificate_of_the_right_authority() {
    let (files, others) = (Files::new(), Files::of_authority("another ca"));
    files.issue("up", "up.test", true);
    files.issue("me", "me.test", true);
    others.issue("me", "me.test", true);
    let config =
        ServerTlsConfig { ca_cert_path: Some(files.path("ca.pem")), require_client_auth: true, ..files.server("up") };
    let server = ServerTls::new(config).unwrap();
    let auth = |files: &Files| {
        Some(ClientAuth { cert_path: files.path("me.pem"), key_path: files.path("me.key"), ..ClientAuth::default() })
    };
    let config = ClientTlsConfig { client_auth: auth(&files), ..files.client("up.test") };
    let (server_side, _) = shake(&server, &ClientTls::new(config).unwrap()).await.passes().await;
    assert!(server_side.peer_certificate().is_some());

    let outcome = shake(&server, &ClientTls::new(files.client("up.test")).unwrap()).await;
    let error = outcome.server.unwrap_err().to_string();
    assert!(error.contains("peer sent no certificates"), "{error}");
    let config = ClientTlsConfig { client_auth: auth(&others), ..files.client("up.test") };
    let outcome = shake(&server, &ClientTls::new(config).unwrap()).await;
    assert!(outcome.server.is_err());
}

#[tokio::test]
async fn replaced_files_are_read_for_new_connections() {
    let files = Files::new();
    files.issue("up", "old.test", true);
    let server = ServerTls::new(files.server("up")).unwrap();
    let old = ClientTls::new(files.client("old.test")).unwrap();
    let new = ClientTls::new(files.client("new.test")).unwrap();
    let (mut held, mut held_client) = shake(&server, &old).await.passes().await;
    shake(&server, &new).await.refusal().await;

    files.issue("up", "new.test", true);
    shake(&server, &new).await.passes().await;
    shake(&server, &old).await.refusal().await;
    held.write_all(b"x").await.unwrap();
    held.flush().await.unwrap();
    assert_eq!(held_client.read_u8().await.unwrap(), b'x', "a connection made before goes on");
}

#[tokio::test]
async fn files_that_cannot_be_used_fail_handshakes_until_they_can() {
    let files = Files::new();
    let server = ServerTls::new(files.server("up")).expect("no file is read when the server is made");
    let client = ClientTls::new(files.client("up.test")).unwrap();
    let error = shake(&server, &client).await.server.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    assert!(error.to_string().contains("up.pem: "), "{error}");

    fs::write(files.path("up.pem"), "nonsense").unwrap();
    let error = shake(&server, &client).await.server.unwrap_err();
    assert!(error.to_string().ends_with("up.pem: no certificate in it"), "{error}");

    files.issue("up", "up.test", true);
    fs::write(files.path("up.key"), KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let error = shake(&server, &client).await.server.unwrap_err();
    assert!(error.to_string().contains("up.pem: "), "a key of another certificate: {error}");

    files.issue("up", "up.test", true);
    shake(&server, &client).await.passes().await;
}

#[tokio::test]
async fn an_intermediate_authority_is_sent_along() {
    let files = Files::new();
    let mut middle = CertificateParams::new(Vec::new()).unwrap();
    middle.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    middle.distinguished_name.push(DnType::CommonName, "middle");
    let middle_key = KeyPair::generate().unwrap();
    let issuer = Issuer::from_params(&files.ca, &files.ca_key);
    fs::write(files.path("middle.pem"), middle.signed_by(&middle_key, &issuer).unwrap().pem()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["up.test".to_owned()]).unwrap();
    let issuer = Issuer::from_params(&middle, &middle_key);
    fs::write(files.path("up.pem"), params.signed_by(&key, &issuer).unwrap().pem()).unwrap();
    fs::write(files.path("up.key"), key.serialize_pem()).unwrap();

    let client = ClientTls::new(files.client("up.test")).unwrap();
    let server = ServerTls::new(files.server("up")).unwrap();
    shake(&server, &client).await.refusal().await;
    let config = ServerTlsConfig { intermediate_certs_path: Some(files.path("middle.pem")), ..files.server("up") };
    shake(&ServerTls::new(config).unwrap(), &client).await.passes().await;
}

#[tokio::test]
async fn sides_without_a_common_protocol_do_not_meet_and_alpn_is_agreed_on() {
    let files = Files::new();
    files.issue("up", "up.test", true);
    let config = ServerTlsConfig {
        protocols: vec!["TLSv1.3".to_owned()],
        alpn: vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        ..files.server("up")
    };
    let server = ServerTls::new(config).unwrap();
    let config = ClientTlsConfig { protocols: vec!["TLSv1.2".to_owned()], ..files.client("up.test") };
    shake(&server, &ClientTls::new(config).unwrap()).await.refusal().await;
    let config = ClientTlsConfig { alpn: vec![b"http/1.1".to_vec(), b"h2".to_vec()], ..files.client("up.test") };
    let (_, client) = shake(&server, &ClientTls::new(config).unwrap()).await.passes().await;
    assert_eq!(client.alpn(), Some(&b"h2"[..]));
}

#[tokio::test]
async fn something_else_than_tls_fails_the_handshake() {
    let files = Files::new();
    files.issue("up", "up.test", true);
    let server = ServerTls::new(files.server("up")).unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let mut plain = connect(addr, &SocketOptions::default(), Duration::from_secs(10)).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let error = server.accept(listener.accept().await.unwrap().0).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
}
