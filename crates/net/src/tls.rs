//! TLS of both sides.
//!
//! A [`ServerTls`] or [`ClientTls`] is made once per server or client. Making one checks the settings and touches no file;
//! the files are read at the first handshake and again whenever one of them has changed, so that replaced certificates take
//! effect without a restart, and a file that cannot be read fails handshakes, not the start (as in Linkerd 1). How long a
//! handshake may take is the caller's affair.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tracing::{info, warn};

use crate::Stream;
use crate::certificate::{Unchecked, Validating};

/// Server side `tls`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerTlsConfig {
    /// `certPath`: PEM, the server's certificate, its chain may follow.
    pub cert_path: PathBuf,
    /// `keyPath`: PEM, the certificate's key (PKCS#8).
    pub key_path: PathBuf,
    /// `intermediateCertsPath`: PEM, sent after the certificate.
    pub intermediate_certs_path: Option<PathBuf>,
    /// `caCertPath`: PEM, who may sign client certificates; the system's trust when absent.
    pub ca_cert_path: Option<PathBuf>,
    /// `requireClientAuth`: no handshake without a valid client certificate. Without it none is asked for.
    pub require_client_auth: bool,
    /// `ciphers`: names as Java or OpenSSL spell them; empty means all that are safe.
    pub ciphers: Vec<String>,
    /// `protocols`: `TLSv1.2`, `TLSv1.3`; empty means both.
    pub protocols: Vec<String>,
    /// What ALPN offers, most wanted first; empty means no ALPN.
    pub alpn: Vec<Vec<u8>>,
}

/// Client side `tls`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientTlsConfig {
    /// `commonName`: sent as SNI, and the name that the certificate must carry.
    pub common_name: Option<String>,
    /// `disableValidation`: any certificate will do.
    pub disable_validation: bool,
    /// `trustCerts` or `trustCertsBundle`: PEM files; the system's trust when empty.
    pub trust_certs: Vec<PathBuf>,
    /// `clientAuth`: the certificate to show.
    pub client_auth: Option<ClientAuth>,
    /// `protocols`: `TLSv1.2`, `TLSv1.3`; empty means both.
    pub protocols: Vec<String>,
    /// What ALPN offers, most wanted first; empty means no ALPN.
    pub alpn: Vec<Vec<u8>>,
}

/// `clientAuth`: the certificate that a client shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientAuth {
    /// `certPath`: PEM, the client's certificate.
    pub cert_path: PathBuf,
    /// `keyPath`: PEM, the certificate's key (PKCS#8).
    pub key_path: PathBuf,
    /// `intermediateCertsPath`: PEM, sent after the certificate.
    pub intermediate_certs_path: Option<PathBuf>,
}

/// TLS settings that cannot work.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A name in `protocols` that no TLS has.
    #[error("unknown TLS protocol \"{0}\"; known: TLSv1.2, TLSv1.3")]
    UnknownProtocol(String),
    /// Only protocols that are not spoken.
    #[error("none of the TLS protocols {0:?} is supported; supported: TLSv1.2, TLSv1.3")]
    NoProtocol(Vec<String>),
    /// Only ciphers that are not spoken.
    #[error("none of the ciphers {asked:?} is supported; supported: {supported}")]
    NoCipher {
        /// As configured.
        asked: Vec<String>,
        /// The Java names of those that are.
        supported: String,
    },
    /// Validation without a name to validate.
    #[error("tls is configured with validation but `commonName` is not set")]
    NoCommonName,
    /// A name that no certificate can carry.
    #[error("`commonName` \"{0}\" is neither a host name nor an address")]
    BadCommonName(String),
    /// A certificate shown to anybody.
    #[error("disableValidation: true is incompatible with clientAuth")]
    UnvalidatedClientAuth,
    /// What the TLS library says about the combination.
    #[error("tls settings: {0}")]
    Rustls(#[from] rustls::Error),
}

/// The server side of TLS: turns accepted connections into TLS ones.
#[derive(Debug)]
pub struct ServerTls {
    config: ServerTlsConfig,
    provider: Arc<CryptoProvider>,
    versions: Vec<&'static SupportedProtocolVersion>,
    loaded: Loaded<ServerConfig>,
}

impl ServerTls {
    /// Checks the settings. No file is read yet.
    pub fn new(config: ServerTlsConfig) -> Result<Self, TlsError> {
        let versions = versions(&config.protocols)?;
        let provider = provider(&config.ciphers)?;
        ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(&versions)?;
        let files = [Some(&config.cert_path), Some(&config.key_path), config.intermediate_certs_path.as_ref()];
        let files = files.into_iter().chain([config.ca_cert_path.as_ref().filter(|_| config.require_client_auth)]);
        let loaded = Loaded::new(files.flatten().cloned().collect());
        Ok(Self { config, provider, versions, loaded })
    }

    /// Finishes the handshake of an accepted connection.
    pub async fn accept(&self, tcp: TcpStream) -> io::Result<Stream> {
        let config = self.loaded.current(|| self.load())?;
        let tls = TlsAcceptor::from(config).accept(tcp).await?;
        Ok(Stream::Tls(Box::new(tls.into())))
    }

    fn load(&self) -> io::Result<ServerConfig> {
        let builder = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&self.versions)
            .map_err(io::Error::other)?;
        let builder = if self.config.require_client_auth {
            let roots = match &self.config.ca_cert_path {
                Some(path) => roots(&certificates(path)?, path)?,
                None => system_trust()?,
            };
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
                .build()
                .map_err(io::Error::other)?;
            builder.with_client_cert_verifier(verifier)
        } else {
            builder.with_no_client_auth()
        };
        let (chain, key) =
            identity(&self.config.cert_path, &self.config.key_path, self.config.intermediate_certs_path.as_deref())?;
        let mut config =
            builder.with_single_cert(chain, key).map_err(|error| in_file(&self.config.cert_path, error))?;
        config.alpn_protocols.clone_from(&self.config.alpn);
        Ok(config)
    }
}

/// The client side of TLS: turns opened connections into TLS ones.
#[derive(Debug)]
pub struct ClientTls {
    config: ClientTlsConfig,
    name: Option<ServerName<'static>>,
    provider: Arc<CryptoProvider>,
    versions: Vec<&'static SupportedProtocolVersion>,
    loaded: Loaded<ClientConfig>,
}

impl ClientTls {
    /// Checks the settings. No file is read yet.
    pub fn new(config: ClientTlsConfig) -> Result<Self, TlsError> {
        let versions = versions(&config.protocols)?;
        let provider = provider(&[])?;
        let name = match &config.common_name {
            Some(name) => Some(ServerName::try_from(name.clone()).map_err(|_| TlsError::BadCommonName(name.clone()))?),
            None if config.disable_validation => None,
            None => return Err(TlsError::NoCommonName),
        };
        if config.disable_validation && config.client_auth.is_some() {
            return Err(TlsError::UnvalidatedClientAuth);
        }
        let mut files = if config.disable_validation { Vec::new() } else { config.trust_certs.clone() };
        if let Some(auth) = &config.client_auth {
            files.extend([auth.cert_path.clone(), auth.key_path.clone()]);
            files.extend(auth.intermediate_certs_path.clone());
        }
        Ok(Self { config, name, provider, versions, loaded: Loaded::new(files) })
    }

    /// Finishes the handshake of an opened connection.
    pub async fn connect(&self, tcp: TcpStream) -> io::Result<Stream> {
        let config = self.loaded.current(|| self.load())?;
        let name = match &self.name {
            Some(name) => name.clone(),
            // Nothing to validate: the address keeps the library content, and no SNI is sent for it.
            None => ServerName::IpAddress(tcp.peer_addr()?.ip().into()),
        };
        let tls = TlsConnector::from(config).connect(name, tcp).await?;
        Ok(Stream::Tls(Box::new(tls.into())))
    }

    fn load(&self) -> io::Result<ClientConfig> {
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&self.versions)
            .map_err(io::Error::other)?
            .dangerous();
        let provider = Arc::clone(&self.provider);
        let builder = if self.config.disable_validation {
            builder.with_custom_certificate_verifier(Arc::new(Unchecked { provider }))
        } else if self.config.trust_certs.is_empty() {
            let validating = Validating { roots: system_trust()?, pinned: Vec::new(), provider };
            builder.with_custom_certificate_verifier(Arc::new(validating))
        } else {
            let mut validating = Validating { roots: RootCertStore::empty(), pinned: Vec::new(), provider };
            for path in &self.config.trust_certs {
                let trusted = certificates(path)?;
                validating.roots.roots.extend(roots(&trusted, path)?.roots);
                validating.pinned.extend(trusted);
            }
            builder.with_custom_certificate_verifier(Arc::new(validating))
        };
        let mut config = match &self.config.client_auth {
            Some(auth) => {
                let (chain, key) = identity(&auth.cert_path, &auth.key_path, auth.intermediate_certs_path.as_deref())?;
                builder.with_client_auth_cert(chain, key).map_err(|error| in_file(&auth.cert_path, error))?
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols.clone_from(&self.config.alpn);
        Ok(config)
    }
}

/// Something made from files, made again when one of them changes.
///
/// Each handshake asks the file system for the files' stamps (a few microseconds against the milliseconds of a handshake):
/// no watcher, no thread, and it works for files replaced through symbolic links, as Kubernetes does.
#[derive(Debug)]
struct Loaded<T> {
    files: Vec<PathBuf>,
    last: Mutex<Option<Attempt<T>>>,
}

/// What the files gave when they had these stamps.
type Attempt<T> = (Stamps, Result<Arc<T>, Broken>);

/// Of each file: when changed, how long, which inode; `None` when it can't be read.
type Stamps = Vec<Option<(i64, i64, u64, u64)>>;

/// Why the files could not be used, kept so that the next handshake fails alike until they change.
#[derive(Clone, Debug)]
struct Broken(io::ErrorKind, String);

impl<T> Loaded<T> {
    fn new(files: Vec<PathBuf>) -> Self {
        Self { files, last: Mutex::new(None) }
    }

    fn current(&self, load: impl FnOnce() -> io::Result<T>) -> io::Result<Arc<T>> {
        let stamps = self.stamps();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let result = match &*last {
            Some((seen, result)) if *seen == stamps => result.clone(),
            before => {
                let result = load().map(Arc::new).map_err(|error| Broken(error.kind(), error.to_string()));
                // Said once per change of the files, not per handshake.
                match (&result, before) {
                    (Err(Broken(_, error)), _) => warn!(%error, "tls files cannot be used, handshakes fail"),
                    (Ok(_), Some(_)) => info!(files = ?self.files, "tls files read again"),
                    (Ok(_), None) => {}
                }
                *last = Some((stamps, result.clone()));
                result
            }
        };
        result.map_err(|Broken(kind, text)| io::Error::new(kind, text))
    }

    fn stamps(&self) -> Stamps {
        let stamp = |path: &PathBuf| {
            let found = fs::metadata(path).ok()?;
            Some((found.mtime(), found.mtime_nsec(), found.len(), found.ino()))
        };
        self.files.iter().map(stamp).collect()
    }
}

fn in_file(path: &Path, error: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", path.display()))
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    fs::read(path).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

/// All certificates of a PEM file; none is an error.
fn certificates(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let pem = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match found {
        Ok(found) if found.is_empty() => Err(in_file(path, "no certificate in it")),
        Ok(found) => Ok(found),
        Err(error) => Err(in_file(path, error)),
    }
}

/// A certificate with its chain, and its key.
fn identity(
    cert: &Path,
    key: &Path,
    intermediates: Option<&Path>,
) -> io::Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let mut chain = certificates(cert)?;
    if let Some(path) = intermediates {
        chain.extend(certificates(path)?);
    }
    let pem = read(key)?;
    let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| in_file(key, "no private key (PEM, PKCS#8) in it"))?;
    Ok((chain, key))
}

/// The certificates of a file as trust anchors; one that cannot be an anchor is an error.
fn roots(certificates: &[CertificateDer<'static>], path: &Path) -> io::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate.clone()).map_err(|error| in_file(path, error))?;
    }
    Ok(roots)
}

/// What the system trusts; its certificates that the TLS library does not understand are left out.
fn system_trust() -> io::Result<RootCertStore> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map(|error| format!(": {error}")).unwrap_or_default();
        return Err(io::Error::new(io::ErrorKind::NotFound, format!("the system trusts no certificates{why}")));
    }
    Ok(roots)
}

/// The versions that `protocols` names. Old ones beside a supported one are left out, with a warning.
fn versions(protocols: &[String]) -> Result<Vec<&'static SupportedProtocolVersion>, TlsError> {
    let mut versions = Vec::new();
    for name in protocols {
        match name.as_str() {
            "TLSv1.3" => versions.push(&rustls::version::TLS13),
            "TLSv1.2" => versions.push(&rustls::version::TLS12),
            "TLSv1.1" | "TLSv1" | "SSLv3" | "SSLv2" | "SSLv2Hello" => {
                warn!(protocol = %name, "this TLS protocol is not supported and left out");
            }
            _ => return Err(TlsError::UnknownProtocol(name.clone())),
        }
    }
    if protocols.is_empty() {
        versions = vec![&rustls::version::TLS13, &rustls::version::TLS12];
    } else if versions.is_empty() {
        return Err(TlsError::NoProtocol(protocols.to_vec()));
    }
    Ok(versions)
}

/// The cryptography, with only the ciphers that `ciphers` names, in that order. Those not supported are left out, with a
/// warning: the list can only become shorter, never weaker.
fn provider(ciphers: &[String]) -> Result<Arc<CryptoProvider>, TlsError> {
    let mut provider = aws_lc_rs::default_provider();
    if ciphers.is_empty() {
        return Ok(Arc::new(provider));
    }
    let all = std::mem::take(&mut provider.cipher_suites);
    let java = |suite: &rustls::SupportedCipherSuite| format!("{:?}", suite.suite()).replace("TLS13_", "TLS_");
    for name in ciphers {
        match all.iter().find(|suite| java(suite) == *name || openssl_name(&java(suite)) == *name) {
            Some(suite) => provider.cipher_suites.push(*suite),
            None => warn!(cipher = %name, "this cipher is not supported and left out"),
        }
    }
    if provider.cipher_suites.is_empty() {
        let supported = all.iter().map(java).collect::<Vec<_>>().join(", ");
        return Err(TlsError::NoCipher { asked: ciphers.to_vec(), supported });
    }
    Ok(Arc::new(provider))
}

/// `TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256` → `ECDHE-RSA-AES128-GCM-SHA256`. TLS 1.3 names are the same in both.
fn openssl_name(java: &str) -> String {
    match java.strip_prefix("TLS_").filter(|rest| rest.contains("_WITH_")) {
        None => java.to_owned(),
        Some(rest) => {
            let name = rest.replace("_WITH_", "-").replace("AES_", "AES").replace('_', "-");
            // OpenSSL leaves the hash of the ChaCha suites unsaid.
            match name.strip_suffix("-CHACHA20-POLY1305-SHA256") {
                Some(front) => format!("{front}-CHACHA20-POLY1305"),
                None => name,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn protocols_are_checked_before_any_file_is_read() {
        assert_eq!(versions(&[]).unwrap().len(), 2);
        assert_eq!(versions(&strings(&["TLSv1.2"])).unwrap(), [&rustls::version::TLS12]);
        assert_eq!(versions(&strings(&["TLSv1", "TLSv1.3"])).unwrap(), [&rustls::version::TLS13]);
        let error = versions(&strings(&["TLSv1", "TLSv1.1"])).unwrap_err();
        assert_eq!(
            error.to_string(),
            r#"none of the TLS protocols ["TLSv1", "TLSv1.1"] is supported; supported: TLSv1.2, TLSv1.3"#
        );
        let error = versions(&strings(&["TLSv1.2", "tls1.3"])).unwrap_err();
        assert_eq!(error.to_string(), r#"unknown TLS protocol "tls1.3"; known: TLSv1.2, TLSv1.3"#);
    }

    #[test]
    fn ciphers_are_named_as_java_or_openssl_name_them() {
        let asked = strings(&[
            "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
            "ECDHE-ECDSA-AES256-GCM-SHA384",
            "ECDHE-RSA-CHACHA20-POLY1305",
            "TLS_AES_256_GCM_SHA384",
            "TLS_RSA_WITH_AES_128_CBC_SHA",
        ]);
        let found: Vec<_> =
            provider(&asked).unwrap().cipher_suites.iter().map(|s| format!("{:?}", s.suite())).collect();
        assert_eq!(
            found,
            [
                "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
                "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
                "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
                "TLS13_AES_256_GCM_SHA384",
            ]
        );
        let error = provider(&strings(&["TLS_RSA_WITH_AES_128_CBC_SHA"])).unwrap_err();
        assert!(error.to_string().contains("supported: TLS_AES_256_GCM_SHA384, "), "{error}");
    }

    #[test]
    fn a_client_that_validates_needs_a_name() {
        let error = ClientTls::new(ClientTlsConfig::default()).unwrap_err();
        assert_eq!(error.to_string(), "tls is configured with validation but `commonName` is not set");
        let config = ClientTlsConfig { common_name: Some("a b".to_owned()), ..ClientTlsConfig::default() };
        let error = ClientTls::new(config).unwrap_err();
        assert_eq!(error.to_string(), "`commonName` \"a b\" is neither a host name nor an address");
        let config = ClientTlsConfig {
            disable_validation: true,
            client_auth: Some(ClientAuth::default()),
            ..ClientTlsConfig::default()
        };
        let error = ClientTls::new(config).unwrap_err();
        assert_eq!(error.to_string(), "disableValidation: true is incompatible with clientAuth");
    }
}
