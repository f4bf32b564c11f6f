//! From the `[gateway.tls]` table to what TLS is made of, or to every problem that is in the way.

use std::sync::{Arc, LazyLock};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, RootCertStore, SupportedProtocolVersion};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::file::{Certificate, ClientAuth, MinimumVersion, Tls};
use super::files::Files;
use crate::model::clock::Timestamp;
use crate::model::problem::Problems;
use crate::model::settings::Text;

/// Certificates with their keys and the rules for clients, read and checked.
#[derive(Debug)]
pub struct Material {
    pub certificates: Vec<Arc<CertifiedKey>>,
    pub rules: Rules,
}

/// What a handshake asks of a client.
#[derive(Debug)]
pub struct Rules {
    /// Whom clients' certificates come from; empty if none is asked for.
    authorities: Vec<CertificateDer<'static>>,
    client_auth: ClientAuth,
    minimum_version: MinimumVersion,
    /// Follows from the first two.
    pub verifier: Arc<dyn ClientCertVerifier>,
}

impl PartialEq for Rules {
    fn eq(&self, other: &Self) -> bool {
        let of = |rules: &Rules| (rules.client_auth, rules.minimum_version);
        self.authorities == other.authorities && of(self) == of(other)
    }
}

impl Rules {
    pub fn versions(&self) -> &'static [&'static SupportedProtocolVersion] {
        match self.minimum_version {
            MinimumVersion::Tls12 => rustls::ALL_VERSIONS,
            MinimumVersion::Tls13 => &ONLY_TLS13,
        }
    }
}

static ONLY_TLS13: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS13];

/// The one source of cryptography.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    PROVIDER.clone()
}

/// Reads and checks every file. `None` comes with problems, or if a path
/// hangs on a variable that is allowed to be unset; warnings may come with either.
pub fn load(tls: &Tls, files: &Files, problems: &mut Problems) -> Option<Material> {
    let mut loading = Loading { files, problems, now: (Timestamp::now().0 / 1000) as i64 };
    let certificates: Vec<_> = tls.certificates.iter().map(|pair| loading.certificate(pair)).collect();
    let rules = loading.rules(tls);
    Some(Material { certificates: certificates.into_iter().collect::<Option<_>>()?, rules: rules? })
}

struct Loading<'a> {
    files: &'a Files,
    problems: &'a mut Problems,
    /// In seconds since the epoch.
    now: i64,
}

impl Loading<'_> {
    /// Both files are looked at even if the first is bad.
    fn certificate(&mut self, pair: &Certificate) -> Option<Arc<CertifiedKey>> {
        let chain = self.read(&pair.cert).and_then(|text| self.chain(&pair.cert, &text));
        let key = self.files.read_secret(&pair.key, self.problems).and_then(|text| self.key(&pair.key, &text));
        let (chain, key) = (chain?, key?);
        self.look_at_leaf(&pair.cert, chain.first()?);
        let key = provider().key_provider.load_private_key(key).map_err(|_| {
            let found = format!("`{}` has a key of a kind that TLS cannot use", pair.key.value);
            self.problems.problem_with_help(
                &pair.key.place,
                found,
                "use an RSA key of 2048 bits or more, P-256 or Ed25519",
            );
        });
        let certified = CertifiedKey::new(chain, key.ok()?);
        match certified.keys_match() {
            Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Some(Arc::new(certified)),
            Err(Error::InconsistentKeys(_)) => {
                let found = format!(
                    "the key in `{}` is not that of the first certificate in `{}`",
                    pair.key.value, pair.cert.value
                );
                let help = "write the key that belongs to it; the host's own certificate stands first in its file";
                self.problems.problem_with_help(&pair.key.place, found, help);
                None
            }
            Err(error) => {
                self.unreadable(&pair.cert, &error);
                None
            }
        }
    }

    fn rules(&mut self, tls: &Tls) -> Option<Rules> {
        let client_auth = tls.client_auth.as_ref().map_or(ClientAuth::Required, |auth| auth.value);
        let mut rules = Rules {
            authorities: Vec::new(),
            client_auth,
            minimum_version: tls.minimum_version,
            verifier: WebPkiClientVerifier::no_client_auth(),
        };
        let Some(file) = &tls.client_ca else { return Some(rules) };
        let text = self.read(file)?;
        rules.authorities = self.chain(file, &text)?;
        rules.verifier = self.verifier(&rules, file)?;
        Some(rules)
    }

    fn verifier(&mut self, rules: &Rules, file: &Text) -> Option<Arc<dyn ClientCertVerifier>> {
        let mut roots = RootCertStore::empty();
        for authority in &rules.authorities {
            if let Err(error) = roots.add(authority.clone()) {
                self.unreadable(file, &error);
                return None;
            }
        }
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
        let built = match rules.client_auth {
            ClientAuth::Required => builder.build(),
            ClientAuth::Optional => builder.allow_unauthenticated().build(),
        };
        built.map_err(|error| self.unreadable(file, &error)).ok()
    }

    fn read(&mut self, path: &Text) -> Option<Vec<u8>> {
        self.files.read(path, self.problems)
    }

    fn chain(&mut self, file: &Text, text: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
        let chain: Vec<_> = match CertificateDer::pem_slice_iter(text).collect::<Result<_, _>>() {
            Ok(chain) => chain,
            Err(error) => {
                self.unreadable(file, &error);
                return None;
            }
        };
        if chain.is_empty() {
            let help = "write a PEM file; a certificate in it begins with `-----BEGIN CERTIFICATE-----`";
            self.problems.problem_with_help(&file.place, format!("`{}` has no certificate in it", file.value), help);
            return None;
        }
        Some(chain)
    }

    fn key(&mut self, file: &Text, text: &[u8]) -> Option<PrivateKeyDer<'static>> {
        let (found, help) = match PrivateKeyDer::from_pem_slice(text) {
            Ok(key) => return Some(key),
            Err(_) if text.windows(9).any(|word| word == b"ENCRYPTED") => (
                format!("the key in `{}` is encrypted", file.value),
                "decrypt it, as with `openssl pkey`, and let only the gateway read the file",
            ),
            Err(pem::Error::NoItemsFound) => (
                format!("`{}` has no private key in it", file.value),
                "write a PEM file; a key in it begins with `-----BEGIN PRIVATE KEY-----`",
            ),
            // The library's own words could show what stands in the file.
            Err(_) => (format!("`{}` is damaged", file.value), "write a PEM file with one private key"),
        };
        self.problems.problem_with_help(&file.place, found, help);
        None
    }

    /// What an operator would want to know of a certificate that can be served all the same.
    fn look_at_leaf(&mut self, file: &Text, certificate: &[u8]) {
        // One that cannot be read is a problem soon after, when its key is looked at.
        let Ok((_, leaf)) = X509Certificate::from_der(certificate) else { return };
        let validity = leaf.validity();
        let (from, until) = (validity.not_before.timestamp(), validity.not_after.timestamp());
        let at = |second| Timestamp(u64::try_from(second).unwrap_or_default() * 1000).iso8601();
        if self.now > until {
            let found = format!("the certificate in `{}` has expired at {}", file.value, at(until));
            self.problems.warning_with_help(&file.place, found, "renew it: clients refuse it");
        } else if self.now < from {
            let found = format!("the certificate in `{}` is valid from {} only", file.value, at(from));
            self.problems.warning_with_help(
                &file.place,
                found,
                "check this machine's clock: clients refuse it until then",
            );
        }
        let has_address = matches!(leaf.subject_alternative_name(), Ok(Some(names)) if has_address(names.value));
        if names(certificate).is_empty() && !has_address {
            let found = format!("the certificate in `{}` names no host", file.value);
            let help = "let it have subject alternative names: clients do not look at the common name";
            self.problems.warning_with_help(&file.place, found, help);
        }
    }

    fn unreadable(&mut self, file: &Text, error: &dyn std::fmt::Display) {
        let found = format!("a certificate in `{}` cannot be read: {error}", file.value);
        self.problems.problem_with_help(&file.place, found, "write a PEM file with X.509 certificates");
    }
}

fn has_address(names: &x509_parser::extensions::SubjectAlternativeName<'_>) -> bool {
    names.general_names.iter().any(|name| matches!(name, x509_parser::extensions::GeneralName::IPAddress(_)))
}

/// The host names that a certificate is for. The common name is none: clients have long stopped looking at it.
pub fn names(certificate: &[u8]) -> Vec<String> {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return Vec::new() };
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return Vec::new() };
    let names = extension.value.general_names.iter();
    names
        .filter_map(|name| {
            if let x509_parser::extensions::GeneralName::DNSName(name) = name { Some((*name).to_owned()) } else { None }
        })
        .collect()
}
