//! Authorizers of type `jwt`: where the token is, and what becomes of what it says.

use std::sync::Arc;
use std::time::SystemTime;

use super::identity_source::IdentitySource;
use super::jwt::claims::has_scope;
use super::jwt::{Invalid, Issuer, Rules, Verified, insufficient_scope};
use super::{Asked, Passed};
use crate::expressions::scope::Scope;
use crate::expressions::variables::Variable;
use crate::model::clock::Timestamp;
use crate::model::identity::{Expiry, Granted, What};
use crate::model::refusal::{Cause, Kind, Refusal};
use crate::outbound::fetch::Web;

/// A checked authorizer of type `jwt`.
pub struct Jwt {
    pub name: String,
    pub issuer: Arc<Issuer>,
    pub rules: Rules,
    pub identity_sources: Vec<IdentitySource>,
    /// Where in a message a fresh token is.
    pub refresh_sources: Vec<Variable>,
    pub expired_close_code: u16,
}

impl Jwt {
    pub async fn authorize(&self, asked: &Asked<'_>) -> Result<Passed, Refusal> {
        let token = self.identity_sources.iter().find_map(|source| source.token(&asked.scope));
        let Some(token) = token else { return Err(self.refused(Invalid::Missing)) };
        let verified = self.verify(&token, asked.fetch).await?;
        self.passed(verified, asked.scopes)
    }

    /// The same for the fresh token of a message, which must be of the same issuer and subject: a connection does not
    /// become somebody else's.
    pub async fn refresh(
        &self,
        scope: &Scope<'_>,
        scopes: &[String],
        before: Option<&Granted>,
        fetch: &Web,
    ) -> Result<Passed, Refusal> {
        let token = self.refresh_sources.iter().find_map(|source| source.text(scope).filter(|token| !token.is_empty()));
        let Some(token) = token else { return Err(self.refused(Invalid::Missing)) };
        let verified = self.verify(&token, fetch).await?;
        let is_same = before.is_some_and(|before| match &before.what {
            What::Jwt { claims, .. } => {
                claims.contains_key("sub")
                    && ["iss", "sub"].iter().all(|name| claims.get(*name) == verified.claims.get(*name))
            }
            What::Custom { .. } => false,
        });
        if !is_same {
            let detail = "the fresh token is of another subject than the one that opened the connection";
            return Err(Kind::Unauthorized.because(detail).by(Cause::Unauthorized));
        }
        self.passed(verified, scopes)
    }

    /// Whether a token may come among the subprotocols that a client offers.
    pub fn reads_subprotocols(&self) -> bool {
        self.identity_sources.iter().any(IdentitySource::is_subprotocol)
    }

    async fn verify(&self, token: &str, fetch: &Web) -> Result<Verified, Refusal> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        self.issuer.verify(token, &self.rules, now, fetch).await.map_err(|invalid| self.refused(invalid))
    }

    fn passed(&self, verified: Verified, wanted: &[String]) -> Result<Passed, Refusal> {
        let scopes = match wanted {
            [] => None,
            _ => {
                let Some(had) = has_scope(&verified.claims, wanted) else {
                    let detail = format_args!("authorizer `{}`: the token has none of the route's scopes", self.name);
                    let refusal = Kind::Forbidden.because(detail).by(Cause::Denied);
                    return Err(refusal.with_challenge(insufficient_scope(wanted)));
                };
                Some(had.into_iter().map(str::to_owned).collect())
            }
        };
        let until = (verified.expires_at + self.rules.leeway.as_secs_f64()) * 1000.0;
        // What lies beyond every calendar is the largest number there is.
        let expiry = Expiry { at: Timestamp(until.max(0.0) as u64), close_code: self.expired_close_code };
        Ok(Passed {
            granted: Some(Arc::new(Granted::jwt(verified.claims, scopes))),
            expiry: Some(expiry),
            ..Passed::default()
        })
    }

    fn refused(&self, invalid: Invalid) -> Refusal {
        let refusal = Kind::Unauthorized.because(format_args!("authorizer `{}`: {invalid}", self.name));
        // AWS answers 401 here too; that it is no fault of the caller's is for the operator to see.
        let cause = if invalid == Invalid::Unreachable { Cause::AuthorizerFailure } else { Cause::Unauthorized };
        refusal.by(cause).with_challenge(invalid.challenge())
    }
}
