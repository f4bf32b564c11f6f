//! Checks AWS Signature Version 4 on requests that somebody else signed.
//!
//! Both wire forms are taken: the `Authorization` header and the presigned URL. `claim` reads what the
//! request says about itself, `canonical` rebuilds the text that was signed, `signing_keys` remembers the
//! keys that signed it, and `verify` below is the one order in which they are asked. The region is free, the
//! service is always `execute-api`, and the body that came is the body that must have been signed: there
//! is no unsigned payload here.

mod canonical;
mod claim;
mod signing_keys;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fmt::Write;
use std::time::SystemTime;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::{digest, hmac};
use jiff::Timestamp;

pub use canonical::collapse;
pub use signing_keys::SigningKeys;

use canonical::Query;

/// The one service a request may be signed for.
pub const SERVICE: &str = "execute-api";

/// A request as it came over the wire.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    pub method: &'a str,
    /// The path before any decoding: an SDK signed its escapes as they stand.
    pub path: &'a str,
    pub query: Option<&'a str>,
    pub headers: &'a http::HeaderMap,
    pub body: &'a [u8],
}

/// Where `verify` looks up who signed.
pub trait Keys {
    /// Whose key it is; `verify` gives it back for a good signature.
    type Owner;

    fn find(&self, access_key_id: &str) -> Option<(&Self::Owner, &Key)>;

    /// The keys derived from these. They belong to one load of the file, so that a changed secret
    /// never meets a signing key of the old one.
    fn signing_keys(&self) -> &SigningKeys;
}

/// What somebody signs with. Printing it shows the access key id alone.
#[derive(Clone)]
pub struct Key {
    // Visible ASCII without a slash, a comma or a space, or the credential scope could not be read back.
    access_key_id: String,
    // Not empty: `${env.X}` set to nothing would otherwise let everybody sign.
    secret: String,
    session_token: Option<String>,
}

/// Why a key cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("an access key id is 1 to 128 visible ASCII characters without `/`, `,` or spaces, like `AKIDLOCAL`")]
    AccessKeyId,
    #[error("the secret access key is empty; a key without a secret would let everybody sign")]
    Secret,
    #[error("the session token is empty; leave it out or give it a value")]
    SessionToken,
}

impl Key {
    pub fn new(access_key_id: &str, secret: &str, session_token: Option<&str>) -> Result<Key, KeyError> {
        if !is_access_key_id(access_key_id) {
            return Err(KeyError::AccessKeyId);
        }
        if secret.is_empty() {
            return Err(KeyError::Secret);
        }
        if session_token == Some("") {
            return Err(KeyError::SessionToken);
        }
        Ok(Key {
            access_key_id: access_key_id.to_owned(),
            secret: secret.to_owned(),
            session_token: session_token.map(str::to_owned),
        })
    }

    pub fn access_key_id(&self) -> &str {
        &self.access_key_id
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("access_key_id", &self.access_key_id).finish_non_exhaustive()
    }
}

fn is_access_key_id(text: &str) -> bool {
    (1..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/' && byte != b',')
}

/// Why a request does not count as signed. Neither form of printing it shows a token, a signature or
/// anything derived from a secret; `Mismatch` holds the texts for the caller alone.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no signature; sign the request with SigV4 for the service `execute-api`")]
    MissingAuthenticationToken,
    #[error("the signature cannot be read: {0}")]
    Incomplete(&'static str),
    #[error("{what} exceeds what is looked at ({most})")]
    TooLong { what: &'static str, most: usize },
    #[error("header `{0}` is in SignedHeaders but not in the request")]
    HeaderAbsent(String),
    #[error("`host` is not in SignedHeaders")]
    HostNotSigned,
    #[error("the credential is for the service `{0}`; sign for `execute-api`")]
    Service(String),
    #[error("the credential ends in `{0}`; it should end in `aws4_request`")]
    Terminator(String),
    #[error("the credential is of `{scope}` but the request was signed at {signed_at}")]
    Day { scope: String, signed_at: Timestamp },
    #[error(
        "the signature expired: made at {signed_at}, good until {until}, now it is {now}; check the signer's clock"
    )]
    Expired { signed_at: Timestamp, until: Timestamp, now: Timestamp },
    #[error("the signature is not yet good: made at {signed_at}, now it is {now}; check the signer's clock")]
    NotYet { signed_at: Timestamp, now: Timestamp },
    #[error("no credential has the access key id `{0}`")]
    UnknownKey(String),
    #[error("`x-amz-content-sha256` is not the SHA-256 of the body; unsigned and streamed payloads are refused")]
    Payload,
    #[error("the signature is not the one this request and this secret give")]
    Mismatch(Box<Mismatch>),
    #[error("the security token is missing or not the one of this credential")]
    SessionToken,
}

/// What should have been signed. AWS shows it to the caller, who sent every byte of it; a log has no use for it.
pub struct Mismatch {
    pub canonical_request: String,
    pub string_to_sign: String,
}

impl fmt::Debug for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mismatch").finish_non_exhaustive()
    }
}

/// What can be told without the body: that nobody we know signed this, or not now.
pub fn precheck<K: Keys>(request: &Request<'_>, keys: &K, now: SystemTime) -> Result<(), Error> {
    let query = Query::read(request.query)?;
    let claim = claim::read(request, &query)?;
    claim.check_scope()?;
    claim.check_time(Timestamp::try_from(now).unwrap_or(Timestamp::MAX))?;
    match keys.find(claim.access_key_id) {
        Some(_) => Ok(()),
        None => Err(Error::UnknownKey(claim.access_key_id.to_owned())),
    }
}

/// Whose signature the request carries. What costs least is asked first, and the body is hashed only
/// for a caller who at least knows an access key id.
pub fn verify<'k, K: Keys>(request: &Request<'_>, keys: &'k K, now: SystemTime) -> Result<&'k K::Owner, Error> {
    let query = Query::read(request.query)?;
    let claim = claim::read(request, &query)?;
    claim.check_scope()?;
    claim.check_time(Timestamp::try_from(now).unwrap_or(Timestamp::MAX))?;
    let (owner, key) =
        keys.find(claim.access_key_id).ok_or_else(|| Error::UnknownKey(claim.access_key_id.to_owned()))?;

    let payload = hex(digest::digest(&digest::SHA256, request.body).as_ref());
    check_payload(request, &query, &payload)?;
    let canonical = canonical::request(request, &query, claim.signed_headers, &payload)?;
    let string_to_sign = format!(
        "{}\n{}\n{}\n{}",
        claim::ALGORITHM,
        claim.amz_date,
        claim.scope(),
        hex(digest::digest(&digest::SHA256, &canonical).as_ref()),
    );

    let remembered = keys.signing_keys();
    let signing_key = remembered.get(claim.credential, || signing_keys::derive(&key.secret, claim.date, claim.region));
    let right = unhex(claim.signature)
        .is_some_and(|signature| hmac::verify(&signing_key, string_to_sign.as_bytes(), &signature).is_ok());
    if !right {
        return Err(Error::Mismatch(Box::new(Mismatch {
            canonical_request: String::from_utf8_lossy(&canonical).into_owned(),
            string_to_sign,
        })));
    }
    remembered.keep(claim.credential, signing_key);
    check_session_token(request, &query, key)?;
    Ok(owner)
}

/// The hash a request states has to be the body's own: `UNSIGNED-PAYLOAD` would let whoever
/// sees one request send another body with it for five minutes.
fn check_payload(request: &Request<'_>, query: &Query<'_>, payload: &str) -> Result<(), Error> {
    let headers = request.headers.get_all("x-amz-content-sha256");
    let stated = headers.iter().map(|value| value.as_bytes());
    if stated.chain(query.all("X-Amz-Content-Sha256")).all(|hash| hash == payload.as_bytes()) {
        Ok(())
    } else {
        Err(Error::Payload)
    }
}

/// Asked after the signature, so that only who knows the secret can try tokens. A token that the
/// credential does not have is no fault: SDKs send what their environment gives them.
fn check_session_token(request: &Request<'_>, query: &Query<'_>, key: &Key) -> Result<(), Error> {
    let Some(wanted) = &key.session_token else {
        return Ok(());
    };
    let headers = request.headers.get_all("x-amz-security-token");
    let shown = headers.iter().map(|value| value.as_bytes());
    let mut matches = 0;
    for token in shown.chain(query.all("X-Amz-Security-Token")) {
        verify_slices_are_equal(token, wanted.as_bytes()).map_err(|_| Error::SessionToken)?;
        matches += 1;
    }
    if matches > 0 { Ok(()) } else { Err(Error::SessionToken) }
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        write!(text, "{byte:02x}").expect("a String takes whatever is written to it");
    }
    text
}

/// The 32 bytes of a signature, in the one spelling that signers write: lower-case hex digits.
fn unhex(text: &str) -> Option<[u8; 32]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let mut bytes = [0; 32];
    if pairs.len() != bytes.len() || !rest.is_empty() {
        return None;
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}
