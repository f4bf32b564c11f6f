//! Who a caller is, and whether it may: one file or folder for each type of authorizer, and the enum that tells them
//! apart.
//!
//! `jwt/` reads tokens itself, `http` asks a URL with the event of a Lambda authorizer and does what its `policy/` says,
//! `iam` wants a signature of one of the `credentials`. `identity_source` names where in a request a caller is
//! identified. `push` knows the callers of `@connections`, by `credentials` alone.

pub mod allow;
pub mod bearer;
pub mod credentials;
pub mod http;
pub mod iam;
pub mod identity_source;
pub mod jwt;
pub mod policy;
pub mod push;
mod token;

use std::sync::Arc;

use crate::expressions::scope::Scope;
use crate::model::identity::{Expiry, Granted, Signer};
use crate::model::refusal::Refusal;
use crate::outbound::fetch::Web;
use crate::outbound::sigv4;
use credentials::Credentials;

pub use http::Http;
pub use token::Jwt;

/// A checked authorizer.
pub enum Authorizer {
    Jwt(Box<Jwt>),
    Http(Box<Http>),
    AwsIam,
}

/// What an authorizer is asked about.
pub struct Asked<'a> {
    pub scope: Scope<'a>,
    /// Of these, a token must have one.
    pub scopes: &'a [String],
    /// `arn:aws:execute-api:<region>:<account>:<api>/<stage>/<METHOD>/<path>`, or `…/$connect`.
    pub arn: &'a str,
    pub account_id: &'a str,
    /// As credentials name what is called: `<api>/<stage>/<METHOD>/<path>`.
    pub resource: &'a str,
    /// The same two for what else the path may be read as: with every escape undone, as events show it, and with several
    /// slashes as one, as many servers do. All of them must be allowed.
    pub otherwise: &'a [(String, String)],
    /// What was signed, for who wants a signature.
    pub signed: sigv4::Request<'a>,
    pub credentials: &'a Credentials,
    pub fetch: &'a Web,
}

/// A caller that an authorizer let pass.
#[derive(Debug, Default)]
pub struct Passed {
    pub granted: Option<Arc<Granted>>,
    pub signer: Option<Arc<Signer>>,
    pub expiry: Option<Expiry>,
    /// The API key that the authorizer counts the call on.
    pub usage_identifier_key: Option<Arc<str>>,
}

impl Authorizer {
    pub async fn authorize(&self, asked: &Asked<'_>) -> Result<Passed, Refusal> {
        match self {
            Authorizer::Jwt(jwt) => jwt.authorize(asked).await,
            Authorizer::Http(http) => http.authorize(asked).await,
            Authorizer::AwsIam => iam::authorize(asked),
        }
    }

    /// Its name in the file, where it has one.
    pub fn name(&self) -> Option<&str> {
        match self {
            Authorizer::Http(http) => Some(&http.name),
            Authorizer::Jwt(_) | Authorizer::AwsIam => None,
        }
    }

    /// How many answers it remembers, if it does.
    pub async fn remembered(&self) -> Option<u64> {
        match self {
            Authorizer::Http(http) => http.remembered().await,
            Authorizer::Jwt(_) | Authorizer::AwsIam => None,
        }
    }

    /// Must the request's body be there when this is asked? A signature covers it.
    pub fn needs_body(&self) -> bool {
        matches!(self, Authorizer::AwsIam)
    }

    /// In one word, for those who list routes.
    pub fn kind(&self) -> &'static str {
        match self {
            Authorizer::Jwt(_) => "jwt",
            Authorizer::Http(_) => "http",
            Authorizer::AwsIam => "aws_iam",
        }
    }
}
