//! Which certificate of a server a TLS client believes.
//!
//! Chains are checked by webpki. Two habits of the Java trust manager, which certificates in the field were made for, are
//! kept on top of it: a certificate that is itself in the trust file is believed as it is (webpki refuses the self-signed
//! ones that `openssl req -x509` makes, since they are marked as authorities), and a certificate without any subject
//! alternative name is matched by the common name of its subject. No revocation lists, as in Linkerd 1.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// Believes certificates that chain up to, or are, one of the trusted ones, and that carry the name asked for.
#[derive(Debug)]
pub(crate) struct Validating {
    pub(crate) roots: RootCertStore,
    pub(crate) pinned: Vec<CertificateDer<'static>>,
    pub(crate) provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Validating {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        if !self.pinned.iter().any(|trusted| trusted == end_entity) {
            verify_server_cert_signed_by_trust_anchor(
                &parsed,
                &self.roots,
                intermediates,
                now,
                self.provider.signature_verification_algorithms.all,
            )?;
        }
        match verify_server_name(&parsed, server_name) {
            Err(Error::InvalidCertificate(CertificateError::NotValidForNameContext { presented, .. }))
                if presented.is_empty() && common_name_matches(end_entity, server_name) => {}
            other => other?,
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// `disableValidation: true`: believes whatever is shown. A signature by an unknown key proves nothing, so none is checked.
pub(crate) struct Unchecked {
    pub(crate) provider: Arc<CryptoProvider>,
}

impl fmt::Debug for Unchecked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Unchecked")
    }
}

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Whether the last common name of the subject is the host name asked for, or its wildcard.
fn common_name_matches(certificate: &CertificateDer<'_>, wanted: &ServerName<'_>) -> bool {
    let ServerName::DnsName(wanted) = wanted else { return false };
    let Some(name) = common_name(certificate) else { return false };
    let wanted = wanted.as_ref().trim_end_matches('.');
    if name.eq_ignore_ascii_case(wanted) {
        return true;
    }
    // `*.` stands for exactly one label, and never for all hosts of a top-level domain.
    match (name.strip_prefix("*."), wanted.split_once('.')) {
        (Some(rest), Some((label, parent))) => {
            !label.is_empty() && rest.contains('.') && rest.eq_ignore_ascii_case(parent)
        }
        _ => false,
    }
}

/// The last `commonName` of a certificate's subject; `None` when the certificate is not what X.509 says.
fn common_name<'a>(certificate: &'a CertificateDer<'_>) -> Option<&'a str> {
    const SEQUENCE: u8 = 0x30;
    const SET: u8 = 0x31;
    const OID: u8 = 0x06;
    const VERSION: u8 = 0xa0;
    const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

    let mut outer = Der(certificate.as_ref());
    let mut certificate = Der(outer.take(SEQUENCE)?);
    let mut tbs = Der(certificate.take(SEQUENCE)?);
    if tbs.0.first() == Some(&VERSION) {
        tbs.any()?;
    }
    // serialNumber, signature, issuer, validity
    for _ in 0..4 {
        tbs.any()?;
    }
    let mut subject = Der(tbs.take(SEQUENCE)?);
    let mut found = None;
    while !subject.0.is_empty() {
        let mut names = Der(subject.take(SET)?);
        while !names.0.is_empty() {
            let mut attribute = Der(names.take(SEQUENCE)?);
            if attribute.take(OID)? == COMMON_NAME {
                found = Some(std::str::from_utf8(attribute.any()?.1).ok()?);
            }
        }
    }
    found
}

/// What is left of some DER.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The next element: its tag and its content.
    fn any(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            // At most three octets of length: 16 MB is more than any certificate holds.
            0x81..=0x83 => {
                let (octets, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                (octets.iter().fold(0, |sum, &octet| sum << 8 | usize::from(octet)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }

    /// The content of the next element, which must have this tag.
    fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        let (found, content) = self.any()?;
        (found == tag).then_some(content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair};

    fn certificate(common_name: &str) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::OrganizationName, "somebody");
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    fn matches(common_name: &str, wanted: &str) -> bool {
        common_name_matches(&certificate(common_name), &ServerName::try_from(wanted.to_owned()).unwrap())
    }

    #[test]
    fn a_common_name_matches_itself_and_its_wildcard() {
        assert!(matches("up.test", "up.test"));
        assert!(matches("Up.Test", "uP.tEST"));
        assert!(matches("*.up.test", "a.up.test"));
        assert!(!matches("up.test", "up.tes"));
        assert!(!matches("*.up.test", "up.test"));
        assert!(!matches("*.up.test", "a.b.up.test"));
        assert!(!matches("*.test", "up.test"));
        assert!(!matches("*", "up"));
        assert!(!matches("127.0.0.1", "127.0.0.1"), "an address is never a common name");
    }

    #[test]
    fn a_mangled_certificate_has_no_name_and_does_no_harm() {
        let whole = certificate("up.test");
        assert_eq!(common_name(&whole), Some("up.test"));
        for cut in 0..whole.len() {
            assert_eq!(common_name(&CertificateDer::from(&whole[..cut])), None);
        }
        for place in 0..whole.len() {
            for value in [0, 0x30, 0x7f, 0x80, 0x83, 0xff] {
                let mut mangled = whole.to_vec();
                mangled[place] = value;
                let _ = common_name(&CertificateDer::from(mangled));
            }
        }
    }
}
