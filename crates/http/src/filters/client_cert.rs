//! `x-forwarded-client-cert`: who called, as the certificate of the TLS connection has it (http-behaviour §6.5).
//!
//! A client with `forwardClientCert` tells it to its endpoints; every other one removes the header, whoever wrote it. The
//! value is made once per connection, when the first such client asks for it. The certificate has been verified by then,
//! during the handshake; here it is only read, and what can't be read is left out.

use std::fmt::{self, Write as _};
use std::sync::OnceLock;

use aws_lc_rs::digest::{SHA256, digest};
use x509_parser::{
    certificate::X509Certificate,
    extensions::GeneralName,
    oid_registry::{self as oids, Oid},
    parse_x509_certificate,
    x509::{AttributeTypeAndValue, X509Name},
};

/// The certificate of one connection.
pub(crate) struct ClientCertificate {
    der: Box<[u8]>,
    header: OnceLock<String>,
}

impl ClientCertificate {
    pub(crate) fn new(der: &[u8]) -> Self {
        Self { der: der.into(), header: OnceLock::new() }
    }

    /// The header's value: `Hash=<SHA-256>[;SAN=<uri>][;DNS=<name>]…[;Subject="<name>"]`.
    pub(crate) fn header(&self) -> &str {
        self.header.get_or_init(|| describe(&self.der))
    }
}

impl fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientCertificate")
    }
}

fn describe(der: &[u8]) -> String {
    let mut text = String::from("Hash=");
    hex(&mut text, digest(&SHA256, der).as_ref());
    let Ok((_, certificate)) = parse_x509_certificate(der) else { return text };
    for (key, name) in alternatives(&certificate) {
        let _ = write!(text, ";{key}={name}");
    }
    let subject = distinguished_name(certificate.subject());
    if !subject.is_empty() {
        let _ = write!(text, ";Subject=\"{subject}\"");
    }
    text
}

/// The first URI, then all DNS names.
fn alternatives<'a>(certificate: &'a X509Certificate<'_>) -> Vec<(&'static str, &'a str)> {
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return Vec::new() };
    let names = &names.value.general_names;
    let uri = names.iter().find_map(|name| match name {
        GeneralName::URI(uri) => Some(("SAN", *uri)),
        _ => None,
    });
    let dns = names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(("DNS", *name)),
        _ => None,
    });
    let printable = |name: &str| name.bytes().all(|byte| byte >= b' ' && byte != 0x7f);
    uri.into_iter().chain(dns).filter(|(_, name)| printable(name)).collect()
}

/// A name as RFC 2253 writes it, which is as Java shows it: the last part first.
fn distinguished_name(name: &X509Name<'_>) -> String {
    let rdns: Vec<_> = name.iter_rdn().collect();
    let mut text = String::new();
    for (at, rdn) in rdns.into_iter().rev().enumerate() {
        if at > 0 {
            text.push(',');
        }
        for (at, attribute) in rdn.iter().enumerate() {
            if at > 0 {
                text.push('+');
            }
            write_attribute(&mut text, attribute);
        }
    }
    text
}

fn write_attribute(text: &mut String, attribute: &AttributeTypeAndValue<'_>) {
    match (keyword(attribute.attr_type()), attribute.as_str()) {
        (Some(keyword), Ok(value)) => {
            text.push_str(keyword);
            text.push('=');
            write_escaped(text, value);
        }
        // Anything else is a number, and the bytes of its value.
        _ => {
            let _ = write!(text, "{}=#", attribute.attr_type());
            let value = attribute.attr_value();
            let mut der = vec![u8::try_from(value.header.tag().0).unwrap_or(0)];
            write_length(&mut der, value.data.len());
            der.extend_from_slice(value.data);
            for byte in der {
                let _ = write!(text, "{byte:02x}");
            }
        }
    }
}

/// The keywords that RFC 2253 has.
fn keyword(oid: &Oid<'_>) -> Option<&'static str> {
    const KEYWORDS: &[(Oid<'static>, &str)] = &[
        (oids::OID_X509_COMMON_NAME, "CN"),
        (oids::OID_X509_LOCALITY_NAME, "L"),
        (oids::OID_X509_STATE_OR_PROVINCE_NAME, "ST"),
        (oids::OID_X509_ORGANIZATION_NAME, "O"),
        (oids::OID_X509_ORGANIZATIONAL_UNIT, "OU"),
        (oids::OID_X509_COUNTRY_NAME, "C"),
        (oids::OID_X509_STREET_ADDRESS, "STREET"),
        (oids::OID_DOMAIN_COMPONENT, "DC"),
        (oids::OID_USERID, "UID"),
    ];
    KEYWORDS.iter().find(|(known, _)| known == oid).map(|(_, keyword)| *keyword)
}

fn write_escaped(text: &mut String, value: &str) {
    let last = value.chars().count().saturating_sub(1);
    for (at, char) in value.chars().enumerate() {
        match char {
            ',' | '+' | '"' | '\\' | '<' | '>' | ';' => text.extend(['\\', char]),
            ' ' if at == 0 || at == last => text.push_str("\\ "),
            '#' if at == 0 => text.push_str("\\#"),
            control if control.is_ascii_control() => {
                let _ = write!(text, "\\{:02X}", u32::from(control));
            }
            other => text.push(other),
        }
    }
}

/// A length as DER has it.
fn write_length(der: &mut Vec<u8>, length: usize) {
    let bytes = length.to_be_bytes();
    let bytes = &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..];
    match bytes {
        [] => der.push(0),
        [short] if *short < 0x80 => der.push(*short),
        long => {
            der.push(0x80 | u8::try_from(long.len()).unwrap_or(0));
            der.extend_from_slice(long);
        }
    }
}

fn hex(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        let _ = write!(text, "{byte:02X}");
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, CustomExtension, DistinguishedName, DnType, DnValue, KeyPair, SanType};

    use super::*;

    /// What is told of a certificate with this subject and these other names, without the hash.
    fn told(subject: &[(DnType, &str)], names: Vec<SanType>) -> String {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in subject {
            params.distinguished_name.push(kind.clone(), DnValue::Utf8String((*value).to_owned()));
        }
        params.subject_alt_names = names;
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let text = ClientCertificate::new(certificate.der()).header().to_owned();
        let (hash, rest) = text.split_at("Hash=".len() + 64);
        assert!(hash[5..].bytes().all(|byte| byte.is_ascii_digit() || (b'A'..=b'F').contains(&byte)), "{hash}");
        rest.to_owned()
    }

    #[test]
    fn names_are_told_as_rfc_2253_has_them() {
        let country =
            [(DnType::CountryName, "CH"), (DnType::OrganizationName, "a+b, \"c\""), (DnType::CommonName, " # ")];
        assert_eq!(told(&country, Vec::new()), r##";Subject="CN=\ #\ ,O=a\+b\, \"c\",C=CH""##);
        assert_eq!(told(&[(DnType::CommonName, "#a;b<c>\\d\n")], Vec::new()), r##";Subject="CN=\#a\;b\<c\>\\d\0A""##);
        let mail = DnType::CustomDnType(vec![1, 2, 840, 113_549, 1, 9, 1]);
        assert_eq!(told(&[(mail, "é@x")], Vec::new()), r#";Subject="1.2.840.113549.1.9.1=#0c04c3a94078""#);
        assert_eq!(told(&[], Vec::new()), "");
    }

    #[test]
    fn one_uri_and_all_dns_names_are_told() {
        let dns = |name: &str| SanType::DnsName(name.try_into().unwrap());
        let uri = |name: &str| SanType::URI(name.try_into().unwrap());
        let names = vec![dns("a.test"), uri("spiffe://x/y"), dns("b.test"), uri("http://z/")];
        assert_eq!(told(&[], names), ";SAN=spiffe://x/y;DNS=a.test;DNS=b.test");
        assert_eq!(told(&[], vec![uri("a\r\nInjected: b"), dns("c")]), ";DNS=c");
    }

    #[test]
    fn what_can_not_be_read_is_told_by_its_hash() {
        let text = ClientCertificate::new(b"no certificate").header().to_owned();
        assert_eq!(text.len(), "Hash=".len() + 64);
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        let nonsense = CustomExtension::from_oid_content(&[2, 5, 29, 17], vec![1, 2, 3]);
        params.custom_extensions.push(nonsense);
        params.distinguished_name.push(DnType::CommonName, "x");
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        assert!(ClientCertificate::new(certificate.der()).header().starts_with("Hash="));
    }

    #[test]
    fn long_values_have_long_lengths() {
        for (length, encoded) in [(0, vec![0]), (127, vec![127]), (128, vec![0x81, 128]), (300, vec![0x82, 1, 44])] {
            let mut der = Vec::new();
            write_length(&mut der, length);
            assert_eq!(der, encoded);
        }
    }
}
