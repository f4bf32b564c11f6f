//! Which certificate to order from which ACME CA, checked.

use std::fmt;
use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::file;
use crate::model::problem::Problems;

pub use super::file::Challenge;

/// What `[gateway.tls.acme]` asks for. A reload that changes any of it orders anew where that is needed.
#[derive(Clone, Debug, PartialEq)]
pub struct Acme {
    /// At least one, in lower case, none twice.
    pub domains: Vec<String>,
    pub email: Option<String>,
    pub directory: String,
    /// A file with exactly one CA certificate in it.
    pub directory_ca: Option<PathBuf>,
    pub challenge: Challenge,
    pub external_account: Option<ExternalAccount>,
}

/// What binds the ACME account to an account at the CA (RFC 8555, section 7.3.4).
#[derive(Clone, PartialEq)]
pub struct ExternalAccount {
    pub key_id: String,
    pub hmac_key: Vec<u8>,
}

impl fmt::Debug for ExternalAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExternalAccount").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

/// Checks what takes a look outside the file. Paths are relative to `folder`, where the file stands.
pub fn build(written: &file::Acme, folder: &Path, problems: &mut Problems) -> Option<Acme> {
    let directory_ca = match written.directory_ca.as_ref().filter(|path| !path.unresolved) {
        None => None,
        Some(path) => match only_certificate(&folder.join(&path.value)) {
            Ok(found) => Some(found),
            Err(why) => {
                let help = "name a PEM file with the one CA certificate that signed the directory's";
                problems.problem_with_help(&path.place, format!("`{}` {why}", path.value), help);
                return None;
            }
        },
    };
    let domains: Vec<_> = written.domains.iter().map(|domain| domain.name.clone()).collect();
    let external_account = written.eab_key_id.as_ref().zip(written.eab_hmac_key.as_ref()).and_then(|(id, key)| {
        let hmac_key = file::hmac_key(key)?;
        Some(ExternalAccount { key_id: id.value.clone(), hmac_key })
    });
    // None is left only after a problem that reading has noted.
    (!domains.is_empty()).then(|| Acme {
        domains,
        email: written.email.as_ref().map(|email| email.value.clone()),
        directory: written.directory.url.clone(),
        directory_ca,
        challenge: written.challenge,
        external_account,
    })
}

/// Only the first one would be used: a file with several is a mistake worth a word.
fn only_certificate(path: &Path) -> Result<PathBuf, String> {
    let pem = std::fs::read(path).map_err(|error| format!("cannot be read: {error}"))?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match certificates.map_err(|error| format!("is no PEM: {error}"))?.as_slice() {
        [certificate] => match rustls::RootCertStore::empty().add(certificate.clone()) {
            Ok(()) => Ok(path.to_owned()),
            Err(error) => Err(format!("has no certificate to trust: {error}")),
        },
        [] => Err("has no certificate in it".into()),
        several => Err(format!("has {} certificates in it", several.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::settings::read_file;

    fn built(lines: &str) -> (Option<Acme>, Vec<String>) {
        let lines = format!("domains = ['a.example', 'b.example']\nagree_to_terms = true\n{lines}");
        let (read, problems) = read_file::<file::Acme>(&lines, &|_| None, false);
        assert!(problems.is_empty(), "{problems:?}");
        let mut problems = Problems::default();
        let acme = build(&read.unwrap(), Path::new(env!("CARGO_MANIFEST_DIR")), &mut problems);
        (acme, problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn what_is_absent_has_its_default() {
        let acme = built("").0.unwrap();
        assert_eq!(acme.domains, ["a.example", "b.example"]);
        assert_eq!(acme.directory, "https://acme-v02.api.letsencrypt.org/directory");
        assert_eq!((acme.challenge, acme.directory_ca, acme.external_account), (Challenge::TlsAlpn01, None, None));
    }

    #[test]
    fn a_key_shows_itself_nowhere() {
        let acme = built("eab_key_id = 'k'\neab_hmac_key = 'c2VjcmV0'").0.unwrap();
        assert_eq!(acme.external_account.as_ref().unwrap().hmac_key, b"secret");
        assert!(format!("{acme:?}").contains(r#"ExternalAccount { key_id: "k", .. }"#), "{acme:?}");
    }

    #[test]
    fn a_ca_that_is_none_is_a_problem() {
        for (path, wanted) in [("nowhere.pem", "cannot be read"), ("Cargo.toml", "has no certificate in it")] {
            let (acme, said) = built(&format!("directory_ca = '{path}'"));
            assert!(acme.is_none());
            assert!(said[0].starts_with("directory_ca: ") && said[0].contains(wanted), "{said:?}");
        }
    }
}
