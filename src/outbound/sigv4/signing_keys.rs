//! Signing keys that were derived before: four HMACs saved on every push of the same backend and day.

use std::collections::HashMap;
use std::sync::Arc;

use aws_lc_rs::hmac;
use parking_lot::RwLock;

use super::SERVICE;

/// Keys remembered at most. A backend needs one a day and region; a thousand are a mistake or a test.
const REMEMBERED: usize = 256;

/// The signing keys of the signatures that were good so far, by the text of their credential
/// (`id/date/region/service/aws4_request`).
#[derive(Default)]
pub struct SigningKeys {
    keys: RwLock<HashMap<String, Arc<hmac::Key>>>,
}

impl SigningKeys {
    /// The remembered key, else a fresh one that `derive` makes while no lock is held.
    pub(super) fn get(&self, credential: &str, derive: impl FnOnce() -> hmac::Key) -> Arc<hmac::Key> {
        let remembered = self.keys.read().get(credential).cloned();
        remembered.unwrap_or_else(|| Arc::new(derive()))
    }

    /// Remembers the key of a signature that was good. Never before: a stranger who guesses regions
    /// would fill the map. When it is full it starts anew, which also drops the days gone by.
    pub(super) fn keep(&self, credential: &str, key: Arc<hmac::Key>) {
        if self.keys.read().contains_key(credential) {
            return;
        }
        let mut keys = self.keys.write();
        if keys.len() >= REMEMBERED {
            keys.clear();
        }
        keys.insert(credential.to_owned(), key);
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.keys.read().len()
    }
}

pub(super) fn derive(secret: &str, date: &str, region: &str) -> hmac::Key {
    let mut key = hmac::Key::new(hmac::HMAC_SHA256, format!("AWS4{secret}").as_bytes());
    for part in [date, region, SERVICE, super::claim::TERMINATOR] {
        key = hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&key, part.as_bytes()).as_ref());
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembered_keys_are_bounded() {
        let keys = SigningKeys::default();
        for region in 0..REMEMBERED * 2 + 1 {
            let credential = format!("AKIDEXAMPLE/20261121/r-{region}/execute-api/aws4_request");
            keys.keep(&credential, Arc::new(derive("secret", "20261121", "r")));
            assert!(keys.count() <= REMEMBERED);
        }
        assert_eq!(keys.count(), 1);
    }
}
