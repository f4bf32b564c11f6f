//! The account and the certificates of one CA on disk, readable by nobody else.
//!
//! A file is written beside its place and renamed into it, so that a crash leaves the old or the new one, whole. Key
//! and chain are one file: two could be left over from different orders, and would not fit.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::pki_types::PrivatePkcs8KeyDer;
use serde_json::json;

use super::certificate::{Certificate, Unusable};

const ACCOUNT: &str = "account.json";

/// The folder of one CA, inside the gateway's `data_dir`.
#[derive(Clone, Debug)]
pub struct Storage {
    folder: PathBuf,
}

/// An account at the CA.
pub struct Account {
    /// Its name there.
    pub url: String,
    /// Where the CA was last told to write to.
    pub email: Option<String>,
    pub key: PrivatePkcs8KeyDer<'static>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("`{}` cannot be read", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("`{}` cannot be written", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("`{}` holds no account", path.display())]
    NoAccount { path: PathBuf },
    #[error("`{}` holds no certificate", path.display())]
    NoCertificate { path: PathBuf, source: Unusable },
}

impl Storage {
    /// The storage of the CA with this directory. Nothing is touched yet.
    pub fn new(data_dir: &Path, directory: &str) -> Self {
        Self { folder: data_dir.join("acme").join(folder_name(directory)) }
    }

    /// Makes the folder, for the owner alone. An order begins with it: a certificate that could not be kept would be
    /// ordered at every start, and the CA would soon refuse.
    pub fn prepare(&self) -> Result<(), Error> {
        let unwritable = |source| Error::Write { path: self.folder.clone(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder).map_err(unwritable)?;
        // It may have been there before.
        fs::set_permissions(&self.folder, Permissions::from_mode(0o700)).map_err(unwritable)?;
        let probe = self.folder.join("probe.new");
        write_new(&probe, b"").and_then(|()| fs::remove_file(&probe)).map_err(unwritable)
    }

    pub fn account(&self) -> Result<Option<Account>, Error> {
        let path = self.folder.join(ACCOUNT);
        let Some(text) = read(&path)? else { return Ok(None) };
        read_account(&text).map(Some).ok_or(Error::NoAccount { path })
    }

    pub fn keep_account(&self, account: &Account) -> Result<(), Error> {
        let key = URL_SAFE_NO_PAD.encode(account.key.secret_pkcs8_der());
        let text = json!({ "url": account.url, "email": account.email, "key_pkcs8": key });
        replace(&self.folder.join(ACCOUNT), format!("{text:#}\n").as_bytes())
    }

    /// The CA does not know the account any more.
    pub fn forget_account(&self) -> Result<(), Error> {
        let path = self.folder.join(ACCOUNT);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error::Write { path, source }),
            _ => Ok(()),
        }
    }

    /// The certificate that was ordered for `domain` first, whatever else is in it and however old it is.
    pub fn certificate(&self, domain: &str) -> Result<Option<Certificate>, Error> {
        let path = self.certificate_path(domain);
        let Some(pem) = read(&path)? else { return Ok(None) };
        Certificate::from_pem(&pem).map(Some).map_err(|source| Error::NoCertificate { path, source })
    }

    pub fn keep_certificate(&self, domain: &str, pem: &str) -> Result<(), Error> {
        replace(&self.certificate_path(domain), pem.as_bytes())
    }

    /// Does the work on a thread of its own: a disk may take its time, and must not hold up sockets meanwhile.
    pub async fn apart<T: Send + 'static>(&self, work: impl FnOnce(&Storage) -> T + Send + 'static) -> T {
        let storage = self.clone();
        tokio::task::spawn_blocking(move || work(&storage)).await.expect("nothing here panics")
    }

    /// A domain has been checked to consist of letters, digits, `-` and `.`.
    fn certificate_path(&self, domain: &str) -> PathBuf {
        self.folder.join(format!("{domain}.pem"))
    }
}

/// A name for people, and the beginning of a digest for the rest of the URL: one host may have several directories.
fn folder_name(directory: &str) -> String {
    let uri = directory.parse::<http::Uri>().ok();
    let host = uri.as_ref().and_then(|uri| uri.host()).unwrap_or_default();
    let host: String = host.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect();
    let digest = digest(&SHA256, directory.as_bytes());
    let short: String = digest.as_ref().iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    format!("{host}-{short}")
}

fn read_account(text: &[u8]) -> Option<Account> {
    let written: serde_json::Value = serde_json::from_slice(text).ok()?;
    let key = URL_SAFE_NO_PAD.decode(written["key_pkcs8"].as_str()?).ok()?;
    instant_acme::Key::from_pkcs8_der(PrivatePkcs8KeyDer::from(key.as_slice())).ok()?;
    let email = written["email"].as_str().map(str::to_owned);
    Some(Account { url: written["url"].as_str()?.to_owned(), email, key: key.into() })
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Read { path: path.to_owned(), source }),
    }
}

fn replace(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let mut draft = OsString::from(path);
    draft.push(".new");
    let draft = PathBuf::from(draft);
    let done = write_new(&draft, bytes).and_then(|()| fs::rename(&draft, path)).and_then(|()| match path.parent() {
        // The new name itself is lost in a power cut unless the folder is on disk, too.
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    });
    done.map_err(|source| Error::Write { path: path.to_owned(), source })
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // What a crash left over may have been made by somebody with other ideas of who may read it.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::acme::certificate::tests::pem;

    const DIRECTORY: &str = "https://acme.example/directory";

    /// A folder of its own, away when the test is over.
    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Self {
            let name = format!("livegate-acme-{}-{:x}", std::process::id(), rand::random::<u64>());
            Self(std::env::temp_dir().join(name))
        }

        fn storage(&self) -> Storage {
            let storage = Storage::new(&self.0, DIRECTORY);
            storage.prepare().unwrap();
            storage
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    fn account(email: &str) -> Account {
        let key = rcgen::KeyPair::generate().unwrap().serialize_der().into();
        Account { url: "https://acme.example/account/1".into(), email: Some(email.into()), key }
    }

    #[test]
    fn an_empty_storage_has_nothing() {
        let folder = Folder::new();
        let storage = Storage::new(&folder.0, DIRECTORY);
        assert!(storage.account().unwrap().is_none());
        assert!(storage.certificate("a.example").unwrap().is_none());
        storage.forget_account().unwrap();
        assert!(!folder.0.exists(), "reading makes no folder");
    }

    #[test]
    fn what_was_kept_is_there_again() {
        let folder = Folder::new();
        let storage = folder.storage();
        storage.keep_account(&account("a@example.com")).unwrap();
        let account = account("b@example.com");
        storage.keep_account(&account).unwrap();
        storage.keep_certificate("a.example", &pem("a.example")).unwrap();
        let again = folder.storage();
        let kept = again.account().unwrap().unwrap();
        assert_eq!((kept.url, kept.email, kept.key), (account.url, account.email, account.key));
        assert_eq!(again.certificate("a.example").unwrap().unwrap().domains, ["a.example"]);
        again.forget_account().unwrap();
        assert!(again.account().unwrap().is_none());
    }

    #[test]
    fn nobody_else_reads_what_is_kept() {
        let folder = Folder::new();
        let storage = folder.storage();
        storage.keep_account(&account("a@example.com")).unwrap();
        // A certificate and a draft left behind by a careless copy.
        for name in ["a.example.pem", "a.example.pem.new"] {
            fs::write(storage.folder.join(name), "careless").unwrap();
            fs::set_permissions(storage.folder.join(name), Permissions::from_mode(0o666)).unwrap();
        }
        storage.keep_certificate("a.example", &pem("a.example")).unwrap();
        let mut names: Vec<_> = fs::read_dir(&storage.folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        assert_eq!(names, [storage.folder.join("a.example.pem"), storage.folder.join(ACCOUNT)], "no draft is left");
        assert_eq!(names.iter().map(|path| mode(path)).collect::<Vec<_>>(), [0o600, 0o600]);
        fs::set_permissions(&storage.folder, Permissions::from_mode(0o755)).unwrap();
        storage.prepare().unwrap();
        assert_eq!([mode(&storage.folder), mode(storage.folder.parent().unwrap())], [0o700, 0o700]);
    }

    #[test]
    fn a_write_that_fails_leaves_the_old_file() {
        let folder = Folder::new();
        let storage = folder.storage();
        storage.keep_certificate("a.example", &pem("a.example")).unwrap();
        // No file can be made where a folder with something in it stands.
        fs::create_dir_all(storage.folder.join("a.example.pem.new/full")).unwrap();
        let failed = storage.keep_certificate("a.example", &pem("b.example"));
        assert!(matches!(failed, Err(Error::Write { .. })), "{failed:?}");
        assert_eq!(storage.certificate("a.example").unwrap().unwrap().domains, ["a.example"]);
    }

    #[test]
    fn damage_is_told_apart_from_absence() {
        let folder = Folder::new();
        let storage = folder.storage();
        for damage in ["", "{", "{}", r#"{"url": "u", "email": null, "key_pkcs8": "AAAA"}"#] {
            fs::write(storage.folder.join(ACCOUNT), damage).unwrap();
            assert!(matches!(storage.account(), Err(Error::NoAccount { .. })), "{damage}");
        }
        let whole = pem("a.example");
        for damage in ["", "damage", &whole[..whole.len() / 2], &whole.replace('M', "N")] {
            storage.keep_certificate("a.example", damage).unwrap();
            assert!(matches!(storage.certificate("a.example"), Err(Error::NoCertificate { .. })), "{damage}");
        }
    }

    #[test]
    fn each_directory_has_a_folder() {
        let names = [DIRECTORY, "https://acme.example/other", "https://[::1]:14000/dir"].map(folder_name);
        assert!(names[0].starts_with("acme.example-") && names[1].starts_with("acme.example-"), "{names:?}");
        assert_ne!(names[0], names[1]);
        assert!(names.iter().all(|name| !name.contains(['/', ':', '['])), "{names:?}");
    }

    #[test]
    fn a_data_dir_that_cannot_be_written_is_noticed_before_an_order() {
        let folder = Folder::new();
        fs::write(&folder.0, "a file in the way").unwrap();
        let prepared = Storage::new(&folder.0, DIRECTORY).prepare();
        fs::remove_file(&folder.0).unwrap();
        assert!(matches!(prepared, Err(Error::Write { .. })), "{prepared:?}");
    }
}
