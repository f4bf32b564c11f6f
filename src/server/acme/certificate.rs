//! A certificate with its key, ready for handshakes, and what is to know about it.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;

use crate::model::clock::Timestamp;

/// What handshakes for its names are answered with.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The DNS names in it, in lower case.
    pub domains: Vec<String>,
    pub key: Arc<CertifiedKey>,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
}

/// Why a file or an answer is no certificate to serve.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    #[error("it is no PEM of a key and a chain")]
    Pem(#[source] rustls::pki_types::pem::Error),
    #[error("its first certificate cannot be read")]
    X509(#[source] x509_parser::error::X509Error),
    #[error("the key does not fit")]
    Key(#[source] rustls::Error),
}

impl Certificate {
    /// Reads a key and a chain, the server's own certificate first.
    pub fn from_pem(pem: &[u8]) -> Result<Self, Unusable> {
        let key = PrivateKeyDer::from_pem_slice(pem).map_err(Unusable::Pem)?;
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        let chain = chain.map_err(Unusable::Pem)?;
        let first = chain.first().ok_or(Unusable::Pem(rustls::pki_types::pem::Error::NoItemsFound))?;
        let (domains, not_before, not_after) = look_into(first).map_err(Unusable::X509)?;
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let key = CertifiedKey::from_der(chain, key, &provider).map_err(Unusable::Key)?;
        Ok(Self { domains, key: Arc::new(key), not_before, not_after })
    }

    pub fn is_valid_at(&self, now: Timestamp) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }
}

fn look_into(der: &CertificateDer<'_>) -> Result<(Vec<String>, Timestamp, Timestamp), x509_parser::error::X509Error> {
    let (_, parsed) = X509Certificate::from_der(der).map_err(x509_parser::error::X509Error::from)?;
    let names = parsed.subject_alternative_name()?.map(|names| &names.value.general_names);
    let domains = names.into_iter().flatten().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    });
    let at = |time: x509_parser::time::ASN1Time| Timestamp(u64::try_from(time.timestamp()).unwrap_or(0) * 1000);
    let validity = parsed.validity();
    Ok((domains.collect(), at(validity.not_before), at(validity.not_after)))
}

#[cfg(test)]
impl Certificate {
    /// One that nobody would trust.
    pub fn of_no_use(domain: &str, not_before: Timestamp, not_after: Timestamp) -> Self {
        Self { not_before, not_after, ..Self::from_pem(tests::pem(domain).as_bytes()).unwrap() }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A key and its self-signed certificate.
    pub fn pem(domain: &str) -> String {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new([domain.to_string()]).unwrap().self_signed(&key).unwrap();
        key.serialize_pem() + &certificate.pem()
    }

    #[test]
    fn names_and_times_are_read_from_the_first_certificate() {
        let certificate = Certificate::from_pem((pem("A.example") + &pem("ca.example")).as_bytes()).unwrap();
        assert_eq!(certificate.domains, ["a.example"]);
        assert_eq!(certificate.key.cert.len(), 2);
        // rcgen's own bounds: 1975 and 4096.
        assert_eq!(certificate.not_before, Timestamp(157_766_400_000));
        assert!(certificate.is_valid_at(Timestamp::now()));
        assert!(!certificate.is_valid_at(Timestamp(0)));
    }

    #[test]
    fn halves_and_strangers_do_not_fit() {
        let ours = pem("a.example");
        let (key, chain) = ours.split_at(ours.find("-----BEGIN CERTIFICATE").unwrap());
        let stranger = pem("a.example");
        let other_key = &stranger[..stranger.find("-----BEGIN CERTIFICATE").unwrap()];
        for bad in [key, chain, "", &(other_key.to_owned() + chain), &ours[..ours.len() - 40]] {
            assert!(Certificate::from_pem(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
