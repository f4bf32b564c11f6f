//! The certificate that a client showed, in AWS's words.

use std::fmt::Write as _;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustls::ServerConnection;
use x509_parser::der_parser::asn1_rs::Tag;
use x509_parser::prelude::{ASN1Time, AttributeTypeAndValue, FromDer as _, X509Certificate, X509Name};

use crate::model::request::ClientCertificate;

/// What the client of a connection showed; the handshake has checked it.
pub fn client_certificate(connection: &ServerConnection) -> Option<Arc<ClientCertificate>> {
    let certificate = connection.peer_certificates()?.first()?;
    Some(Arc::new(described(certificate)))
}

/// What cannot be read stays empty: the PEM text tells the whole in any case.
fn described(certificate: &[u8]) -> ClientCertificate {
    let pem = pem(certificate);
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else {
        let empty = String::new;
        let (subject_dn, issuer_dn, serial_number) = (empty(), empty(), empty());
        return ClientCertificate {
            pem,
            subject_dn,
            issuer_dn,
            serial_number,
            not_before: empty(),
            not_after: empty(),
        };
    };
    let validity = certificate.validity();
    ClientCertificate {
        pem,
        subject_dn: distinguished_name(certificate.subject()),
        issuer_dn: distinguished_name(certificate.issuer()),
        serial_number: serial_number(certificate.raw_serial()),
        not_before: time(validity.not_before),
        not_after: time(validity.not_after),
    }
}

fn pem(certificate: &[u8]) -> String {
    let encoded = BASE64_STANDARD.encode(certificate);
    let mut pem = String::with_capacity(encoded.len() + encoded.len() / 64 + 64);
    pem.push_str("-----BEGIN CERTIFICATE-----\n");
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, further) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = further;
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

/// As OpenSSL shows it: small numbers in decimal, longer ones as bytes. AWS's examples have both, `1` and `a1:a1:…`.
fn serial_number(bytes: &[u8]) -> String {
    // A zero in front only says that the number is not negative.
    let bytes = bytes.strip_prefix(&[0]).filter(|rest| !rest.is_empty()).unwrap_or(bytes);
    if bytes.len() < 8 || bytes.len() == 8 && bytes[0] < 0x80 {
        return bytes.iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte)).to_string();
    }
    let bytes: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    bytes.join(":")
}

/// `May 28 12:30:02 2019 GMT`; a day of one digit has a space in front.
fn time(time: ASN1Time) -> String {
    let time = jiff::Timestamp::from_second(time.timestamp()).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    time.strftime("%b %e %H:%M:%S %Y GMT").to_string()
}

/// `C=US,ST=Washington,O=Example,CN=client`: in the certificate's own order, with RFC 4514's escapes, so that no value
/// can pass for a further attribute.
fn distinguished_name(name: &X509Name<'_>) -> String {
    let mut text = String::new();
    for attributes in name.iter_rdn() {
        for (index, attribute) in attributes.iter().enumerate() {
            if !text.is_empty() {
                text.push(if index == 0 { ',' } else { '+' });
            }
            push_attribute(&mut text, attribute);
        }
    }
    text
}

fn push_attribute(text: &mut String, attribute: &AttributeTypeAndValue<'_>) {
    let oid = attribute.attr_type().to_id_string();
    let known = ATTRIBUTES.iter().find(|(known, _)| *known == oid).map(|(_, name)| *name);
    text.push_str(known.unwrap_or(&oid));
    text.push('=');
    match value(attribute) {
        Some(value) => push_escaped(text, &value),
        None => {
            text.push('#');
            for byte in attribute.as_slice() {
                // Writing to memory cannot fail.
                let _ = write!(text, "{byte:02x}");
            }
        }
    }
}

/// The text of a value, if it is one.
fn value(attribute: &AttributeTypeAndValue<'_>) -> Option<String> {
    let bytes = attribute.as_slice();
    match attribute.attr_value().tag() {
        // Most of the world writes Latin-1 where T.61 is meant.
        Tag::T61String => Some(bytes.iter().map(|byte| char::from(*byte)).collect()),
        Tag::BmpString if bytes.len().is_multiple_of(2) => {
            let units: Vec<_> = bytes.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
            String::from_utf16(&units).ok()
        }
        _ => attribute.as_str().ok().map(str::to_owned),
    }
}

fn push_escaped(text: &mut String, value: &str) {
    let last = value.chars().count().saturating_sub(1);
    for (index, character) in value.chars().enumerate() {
        match character {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => text.extend(['\\', character]),
            '#' if index == 0 => text.push_str("\\#"),
            ' ' if index == 0 || index == last => text.push_str("\\ "),
            _ if character.is_control() => {
                for byte in character.to_string().bytes() {
                    let _ = write!(text, "\\{byte:02X}");
                }
            }
            _ => text.push(character),
        }
    }
}

/// The short names that OpenSSL has for what stands in names of certificates.
const ATTRIBUTES: [(&str, &str); 16] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.4", "SN"),
    ("2.5.4.5", "serialNumber"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "street"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.12", "title"),
    ("2.5.4.17", "postalCode"),
    ("2.5.4.42", "GN"),
    ("2.5.4.97", "organizationIdentifier"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SerialNumber, date_time_ymd};

    /// A certificate of itself with these attributes and this serial number.
    fn described_of(attributes: &[(DnType, &str)], serial: &[u8]) -> ClientCertificate {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        attributes.iter().for_each(|(kind, value)| params.distinguished_name.push(kind.clone(), *value));
        params.serial_number = Some(SerialNumber::from_slice(serial));
        params.not_before = date_time_ymd(2019, 5, 28);
        params.not_after = date_time_ymd(2121, 8, 5);
        described(params.self_signed(&KeyPair::generate().unwrap()).unwrap().der())
    }

    #[test]
    fn a_certificate_is_described_as_aws_does() {
        let attributes = [
            (DnType::CountryName, "US"),
            (DnType::StateOrProvinceName, "Washington"),
            (DnType::LocalityName, "Seattle"),
            (DnType::OrganizationName, "Amazon Web Services"),
            (DnType::OrganizationalUnitName, "Security"),
            (DnType::CommonName, "My Client"),
        ];
        let certificate = described_of(&attributes, &[1]);
        let name = "C=US,ST=Washington,L=Seattle,O=Amazon Web Services,OU=Security,CN=My Client";
        assert_eq!([certificate.subject_dn.as_str(), &certificate.issuer_dn], [name, name]);
        assert_eq!(certificate.serial_number, "1");
        assert_eq!(certificate.not_before, "May 28 00:00:00 2019 GMT");
        assert_eq!(certificate.not_after, "Aug  5 00:00:00 2121 GMT");
        assert!(certificate.pem.starts_with("-----BEGIN CERTIFICATE-----\nMII"));
        assert!(certificate.pem.ends_with("\n-----END CERTIFICATE-----\n"));
        assert!(certificate.pem.lines().all(|line| line.len() <= 64));
    }

    #[test]
    fn a_value_cannot_pass_for_another_attribute() {
        let check = |common_name, wanted: &str| {
            assert_eq!(described_of(&[(DnType::CommonName, common_name)], &[1]).subject_dn, wanted);
        };
        check("a,O=Example", "CN=a\\,O=Example");
        check("a+b\\c\"d", "CN=a\\+b\\\\c\\\"d");
        check(" #a ", "CN=\\ #a\\ ");
        check("#a", "CN=\\#a");
        check("a\nb", "CN=a\\0Ab");
        check("Jürgen", "CN=Jürgen");
        let other = DnType::from_oid(&[1, 2, 3, 4]);
        assert_eq!(described_of(&[(other, "x")], &[1]).subject_dn, "1.2.3.4=x");
    }

    #[test]
    fn a_long_serial_number_is_written_as_bytes() {
        assert_eq!(serial_number(&[0]), "0");
        assert_eq!(serial_number(&[0, 0xff]), "255");
        assert_eq!(serial_number(&[0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), i64::MAX.to_string());
        assert_eq!(serial_number(&[0, 0x80, 0, 0, 0, 0, 0, 0, 1]), "80:00:00:00:00:00:00:01");
        assert_eq!(serial_number(&[0xa1; 16]), vec!["a1"; 16].join(":"));
    }

    #[test]
    fn what_cannot_be_read_leaves_its_text() {
        let certificate = described(b"nonsense");
        assert_eq!(certificate.pem, "-----BEGIN CERTIFICATE-----\nbm9uc2Vuc2U=\n-----END CERTIFICATE-----\n");
        assert_eq!(certificate.subject_dn, "");
    }
}
