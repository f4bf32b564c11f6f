//! One token, asked in one order: its form, its key, its signature, and what it says.
//!
//! Nothing of what a token says is believed before its signature. The header only helps to find the key: it never
//! chooses an algorithm that the key is not for, and keys that it brings along (`jwk`, `jku`, `x5u`, `x5c`) are not
//! looked at.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde_json::Value;

use super::claims::Claims;
use super::invalid::Invalid;
use super::keys::{self, KeySet};
use crate::model::limits;

/// What a good token has to be beside well signed.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// Exactly the token's `iss`, to the last slash.
    pub issuer: Option<String>,
    /// One of them is in the token's `aud`. Empty: nobody asks.
    pub audience: Vec<String>,
    /// Fewer than the keys would allow. Empty: as the keys say.
    pub algorithms: Vec<Algorithm>,
    /// How far the issuer's clock may be from ours.
    pub leeway: Duration,
}

/// What a good token says. Printing it shows no claims.
#[derive(Clone)]
pub struct Verified {
    pub claims: Claims,
    /// Seconds since 1970, finite, and perhaps beyond every calendar.
    pub expires_at: f64,
}

impl Verified {
    pub fn issuer(&self) -> Option<&str> {
        self.claims.get("iss")?.as_str()
    }

    pub fn subject(&self) -> Option<&str> {
        self.claims.get("sub")?.as_str()
    }
}

impl fmt::Debug for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verified").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

/// A token that has the form of one.
pub struct Unverified<'t> {
    message: &'t str,
    payload: &'t str,
    signature: &'t str,
    algorithm: Algorithm,
    kid: Option<String>,
}

/// What the token says, if it is good at `now` (in seconds since 1970).
pub fn verify(token: &str, keys: &KeySet, rules: &Rules, now: f64) -> Result<Verified, Invalid> {
    Unverified::read(token)?.verify(keys, rules, now)
}

impl<'t> Unverified<'t> {
    pub fn read(token: &'t str) -> Result<Unverified<'t>, Invalid> {
        if token.len() > limits::TOKEN {
            return Err(Invalid::TooLong);
        }
        let mut segments = token.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (segments.next(), segments.next(), segments.next(), segments.next())
        else {
            return Err(Invalid::Segments);
        };
        let message = &token[..header.len() + 1 + payload.len()];
        let header = object(header).ok_or(Invalid::Header)?;
        let name = header.get("alg").and_then(Value::as_str).ok_or(Invalid::Header)?;
        let algorithm = keys::algorithm(name).ok_or(Invalid::Algorithm)?;
        // Whoever writes `crit` relies on it being understood, and none of its extensions is (RFC 7515, 4.1.11).
        if header.contains_key("crit") {
            return Err(Invalid::Critical);
        }
        let kid = match header.get("kid") {
            None => None,
            Some(Value::String(kid)) => Some(kid.clone()),
            Some(_) => return Err(Invalid::Header),
        };
        Ok(Unverified { message, payload, signature, algorithm, kid })
    }

    pub fn verify(&self, keys: &KeySet, rules: &Rules, now: f64) -> Result<Verified, Invalid> {
        if !rules.algorithms.is_empty() && !rules.algorithms.contains(&self.algorithm) {
            return Err(Invalid::Algorithm);
        }
        let key = keys.find(self.kid.as_deref(), self.algorithm)?;
        let is_signed =
            jsonwebtoken::crypto::verify(self.signature, self.message.as_bytes(), &key.decoding, self.algorithm);
        if !is_signed.unwrap_or(false) {
            return Err(Invalid::Signature);
        }
        let claims = object(self.payload).ok_or(Invalid::Payload)?;
        check_issuer(&claims, rules)?;
        check_audience(&claims, rules)?;
        let expires_at = check_times(&claims, rules, now)?;
        Ok(Verified { claims, expires_at })
    }
}

fn object(segment: &str) -> Option<Claims> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(segment).ok()?).ok()
}

fn check_issuer(claims: &Claims, rules: &Rules) -> Result<(), Invalid> {
    match &rules.issuer {
        Some(issuer) if claims.get("iss").and_then(Value::as_str) != Some(issuer) => Err(Invalid::Issuer),
        _ => Ok(()),
    }
}

/// Access tokens of Cognito have no `aud`; there `client_id` says for whom they are.
fn check_audience(claims: &Claims, rules: &Rules) -> Result<(), Invalid> {
    let is_ours =
        |audience: &Value| audience.as_str().is_some_and(|text| rules.audience.iter().any(|ours| ours == text));
    let matches = match claims.get("aud").or_else(|| claims.get("client_id").filter(|id| id.is_string())) {
        Some(Value::Array(audiences)) => audiences.iter().any(is_ours),
        Some(audience) => is_ours(audience),
        None => false,
    };
    if matches || rules.audience.is_empty() { Ok(()) } else { Err(Invalid::Audience) }
}

/// When the token expires.
fn check_times(claims: &Claims, rules: &Rules, now: f64) -> Result<f64, Invalid> {
    let (earliest, latest) = (now - rules.leeway.as_secs_f64(), now + rules.leeway.as_secs_f64());
    let expires_at = time(claims, "exp")?.ok_or(Invalid::NoExpiry)?;
    if expires_at <= earliest {
        return Err(Invalid::Expired);
    }
    if time(claims, "nbf")?.is_some_and(|begins_at| begins_at > latest) {
        return Err(Invalid::NotYet);
    }
    if time(claims, "iat")?.is_some_and(|issued_at| issued_at > latest) {
        return Err(Invalid::IssuedInFuture);
    }
    Ok(expires_at)
}

/// A time may have a fraction; one in quotes is none.
fn time(claims: &Claims, name: &str) -> Result<Option<f64>, Invalid> {
    let number = |claim: &Value| claim.as_f64().filter(|seconds| seconds.is_finite()).ok_or(Invalid::Time);
    claims.get(name).map(number).transpose()
}

#[cfg(test)]
#[path = "token_tests.rs"]
mod tests;
