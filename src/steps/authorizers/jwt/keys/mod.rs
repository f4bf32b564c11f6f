//! The keys that tokens are verified with: from PEM, JWK or JWKS text, or a shared secret.
//!
//! What a key may be used for follows from its kind, and from its `alg` where it has one; never from a token. A public
//! key that took HMAC tokens would let everybody sign who can read it.
//!
//! `key` makes one of them out of what it is given, here they are sets.

mod key;

use jsonwebtoken::Algorithm;
use serde_json::Value;

use self::key::Key;
use super::invalid::Invalid;

/// The algorithm of this name in a token's `alg`, a key's, or the file's `algorithms`. `none` is no algorithm.
pub fn algorithm(name: &str) -> Option<Algorithm> {
    // RFC 9864 gave EdDSA over this curve, the only one we know, a name of its own.
    if name == "Ed25519" { Some(Algorithm::EdDSA) } else { name.parse().ok() }
}

/// At least one key. Printing it shows no key.
#[derive(Debug, Clone)]
pub struct KeySet {
    keys: Vec<Key>,
}

/// Why there are no keys in a text. Nothing of the text is shown, it may be a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("this is no key; give a PEM text (`-----BEGIN PUBLIC KEY-----` …), a JWK or a JWKS (`{{\"keys\": […]}}`)")]
    Text,
    #[error("the PEM text cannot be read; give one block, `PUBLIC KEY`, `RSA PUBLIC KEY` or `CERTIFICATE`")]
    Pem,
    #[error("the PEM text has more than one block; give one, or a JWKS in which each key has a `kid`")]
    SeveralPem,
    #[error("this is a private key; give the public one, which is all that verifying takes")]
    Private,
    #[error("the JWKS is not valid JSON (line {line}, column {column})")]
    Json { line: usize, column: usize },
    #[error("the JWKS has no array `keys`")]
    NoArray,
    #[error("none of the keys can verify tokens; give an RSA, P-256, P-384 or Ed25519 key whose `use` is `sig`")]
    NoKey,
    #[error("`{0}` of the key is missing or cannot be read")]
    Member(&'static str),
    #[error("the kind of the key is not supported; give an RSA, P-256, P-384 or Ed25519 key")]
    Unsupported,
    #[error("the RSA key has {0} bits; give one of 2048 to 8192")]
    RsaBits(usize),
    #[error("the numbers of the key do not make a key")]
    Numbers,
    #[error("the secret is empty; it would let everybody sign")]
    NoSecret,
    #[error("keys[{index}]: {error}")]
    At { index: usize, error: Box<Error> },
}

/// Whom a JWKS is from, which decides what may be in it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// The operator's file: what is wrong in it is said.
    File,
    /// The world: what is of no use to us is passed over, and a secret that was published is none.
    Issuer,
}

impl KeySet {
    /// The secret as it is, not encoded in any way.
    pub fn from_secret(secret: &[u8]) -> Result<KeySet, Error> {
        Ok(KeySet { keys: vec![Key::secret(secret)?] })
    }

    /// What the operator gave: one PEM block, a JWK or a JWKS.
    pub fn from_text(text: &str) -> Result<KeySet, Error> {
        if text.trim_start().starts_with('{') {
            KeySet::from_json(text.as_bytes(), Origin::File)
        } else if text.contains("-----BEGIN ") {
            Ok(KeySet { keys: vec![Key::from_pem(text)?] })
        } else {
            Err(Error::Text)
        }
    }

    /// What an issuer publishes. Keys that cannot be used are passed over: others of the set may be ours.
    pub fn from_issuer(jwks: &[u8]) -> Result<KeySet, Error> {
        KeySet::from_json(jwks, Origin::Issuer)
    }

    /// Whether one of the keys may be used with this algorithm.
    pub fn allows(&self, algorithm: Algorithm) -> bool {
        self.keys.iter().any(|key| key.algorithms.contains(&algorithm))
    }

    /// Whether a secret is shorter than the 32 bytes that it should have, which the operator would like to know.
    pub fn has_short_secret(&self) -> bool {
        self.keys.iter().any(|key| key.is_short)
    }

    /// The one key that a token with this header can mean.
    pub(super) fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Result<&Key, Invalid> {
        let fitting = |key: &&Key| key.algorithms.contains(&algorithm);
        // Keys without names leave nothing to compare a token's `kid` with.
        if let Some(kid) = kid
            && self.keys.iter().any(|key| key.kid.is_some())
        {
            let mut named = self.keys.iter().filter(|key| key.kid.as_deref() == Some(kid)).peekable();
            named.peek().ok_or(Invalid::UnknownKid)?;
            return named.find(fitting).ok_or(Invalid::Algorithm);
        }
        let mut keys = self.keys.iter().filter(fitting);
        let key = keys.next().ok_or(Invalid::Algorithm)?;
        // Trying one after the other would let a stranger choose how many signatures we check.
        if keys.next().is_some() { Err(Invalid::AmbiguousKey) } else { Ok(key) }
    }

    fn from_json(json: &[u8], origin: Origin) -> Result<KeySet, Error> {
        let document: Value =
            serde_json::from_slice(json).map_err(|error| Error::Json { line: error.line(), column: error.column() })?;
        let jwks = match document.get("keys") {
            Some(Value::Array(jwks)) => jwks.as_slice(),
            None if origin == Origin::File => {
                let key = Key::from_jwk(&document, origin)?.ok_or(Error::NoKey)?;
                return Ok(KeySet { keys: vec![key] });
            }
            _ => return Err(Error::NoArray),
        };
        let mut keys = Vec::new();
        for (index, jwk) in jwks.iter().enumerate() {
            match Key::from_jwk(jwk, origin) {
                Ok(key) => keys.extend(key),
                // A new kind of key in a set must not take away the old ones (RFC 7517).
                Err(Error::Unsupported) => {}
                Err(error) if origin == Origin::File => return Err(Error::At { index, error: Box::new(error) }),
                Err(_) => {}
            }
        }
        if keys.is_empty() { Err(Error::NoKey) } else { Ok(KeySet { keys }) }
    }
}

#[cfg(test)]
mod tests;
