//! Which certificate a client is shown.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::SignatureScheme;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::api::tls::names;
use crate::server::acme::Challenges;

/// The certificates that are served, swapped as a whole.
#[derive(Debug, Default)]
pub(super) struct Certificates {
    /// Those of the file.
    written: ArcSwap<ByName>,
    /// Those that ACME has issued.
    issued: ArcSwap<ByName>,
}

impl Certificates {
    /// Says whether they are others than before.
    pub fn write(&self, certificates: Vec<Arc<CertifiedKey>>) -> bool {
        let chains = |all: &[Arc<CertifiedKey>]| all.iter().map(|one| one.cert.clone()).collect::<Vec<_>>();
        let is_other = chains(&self.written.load().all) != chains(&certificates);
        // Stored in any case: the same certificate may have come with another key file.
        self.written.store(Arc::new(ByName::new(certificates)));
        is_other
    }

    pub fn issue(&self, certificates: Vec<Arc<CertifiedKey>>) {
        self.issued.store(Arc::new(ByName::new(certificates)));
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let (written, issued) = (self.written.load(), self.issued.load());
        let schemes = hello.signature_schemes();
        let named = hello.server_name().and_then(|name| {
            let name = plain(name);
            written.find(&name, schemes).or_else(|| issued.find(&name, schemes))
        });
        named.or_else(|| best(&written.all, schemes)).or_else(|| best(&issued.all, schemes)).cloned()
    }
}

/// Certificates by the names in them: whole ones, and those behind `*.`.
#[derive(Debug, Default)]
struct ByName {
    all: Vec<Arc<CertifiedKey>>,
    exact: HashMap<String, Vec<Arc<CertifiedKey>>>,
    wildcard: HashMap<String, Vec<Arc<CertifiedKey>>>,
}

impl ByName {
    fn new(all: Vec<Arc<CertifiedKey>>) -> Self {
        let mut by_name = Self { all: all.clone(), ..Self::default() };
        for certificate in all {
            let names = certificate.cert.first().map_or(Vec::new(), |certificate| names(certificate));
            for name in names.iter().map(|name| plain(name)) {
                let (map, name) = match name.strip_prefix("*.") {
                    Some(parent) => (&mut by_name.wildcard, parent.to_owned()),
                    None => (&mut by_name.exact, name),
                };
                map.entry(name).or_default().push(certificate.clone());
            }
        }
        by_name
    }

    /// A whole name wins; `*` stands for exactly one label.
    fn find(&self, name: &str, schemes: &[SignatureScheme]) -> Option<&Arc<CertifiedKey>> {
        let exact = self.exact.get(name).and_then(|certificates| best(certificates, schemes));
        let parent = || name.split_once('.').and_then(|(_, parent)| self.wildcard.get(parent));
        exact.or_else(|| parent().and_then(|certificates| best(certificates, schemes)))
    }
}

/// The first that the client can check: a name may have one certificate for RSA and another for elliptic curves.
fn best<'c>(certificates: &'c [Arc<CertifiedKey>], schemes: &[SignatureScheme]) -> Option<&'c Arc<CertifiedKey>> {
    let fits = |certificate: &&Arc<CertifiedKey>| certificate.key.choose_scheme(schemes).is_some();
    certificates.iter().find(fits).or_else(|| certificates.first())
}

fn plain(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

impl ResolvesServerCert for Challenges {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.tls_answer(hello.server_name()?.trim_end_matches('.'))
    }
}
