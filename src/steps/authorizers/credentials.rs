//! The credentials of the file, and the three ways a caller of `@connections` shows one.
//!
//! `iam` and `bearer` find out which credential is calling, `allow` says what it may do, and `authorize`
//! asks them in that order. A credential that is not named in an `allow` may do nothing.

use std::collections::HashMap;
use std::time::SystemTime;

use super::{allow, bearer, iam};
use crate::outbound::sigv4::{Key, Keys, Request, SigningKeys};

/// The action a push, a look-up and a forced close ask for.
pub const MANAGE_CONNECTIONS: &str = "execute-api:ManageConnections";

/// The action that the call of a route asks for.
pub const INVOKE: &str = "execute-api:Invoke";

/// How callers of `@connections` show who they are (`authorization` in the file).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authorization {
    AwsIam,
    Bearer,
    /// Everybody may; the file allows it on loopback only.
    None,
}

impl Authorization {
    /// Its word in the file.
    pub fn name(self) -> &'static str {
        match self {
            Authorization::AwsIam => "aws_iam",
            Authorization::Bearer => "bearer",
            Authorization::None => "none",
        }
    }
}

/// One of `[credentials.*]`. Printing it shows nothing secret.
#[derive(Debug, Clone)]
pub struct Credential {
    pub name: String,
    pub key: Option<Key>,
    pub bearer_token: Option<bearer::Token>,
    pub allow: Vec<allow::Pattern>,
    pub deny: Vec<allow::Pattern>,
}

impl Credential {
    /// Whether a line of `allow` covers this, and none of `deny`.
    pub fn may(&self, action: &str, resource: &str) -> Result<(), Denied> {
        let covers = |patterns: &[allow::Pattern]| patterns.iter().any(|pattern| pattern.covers(action, resource));
        // An id at the resource's end is still as the caller wrote it: its syntax is asked after this.
        let (name, shown) = (&self.name, resource.escape_debug());
        if covers(&self.deny) {
            return Err(Denied::forbidden(format!(
                "credential `{name}` may not `{action}` on `{shown}`: credentials.{name}.deny says so"
            )));
        }
        if covers(&self.allow) {
            return Ok(());
        }
        Err(Denied::forbidden(format!(
            "credential `{name}` may not `{action}` on `{shown}`; a pattern in credentials.{name}.allow would permit it"
        )))
    }
}

/// All credentials of one load of the file.
#[derive(Default)]
pub struct Credentials {
    all: Vec<Credential>,
    // Access key id → place in `all`; `new` has seen that none is there twice.
    by_access_key_id: HashMap<String, usize>,
    signing_keys: SigningKeys,
}

/// Two credentials that nobody could tell apart.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the credentials `{first}` and `{second}` have the same {what}; give each its own")]
pub struct Duplicate {
    pub first: String,
    pub second: String,
    pub what: &'static str,
}

impl Credentials {
    pub fn new(all: Vec<Credential>) -> Result<Credentials, Duplicate> {
        let mut by_access_key_id = HashMap::new();
        for (index, credential) in all.iter().enumerate() {
            let same = |earlier: &Credential, what| Duplicate {
                first: earlier.name.clone(),
                second: credential.name.clone(),
                what,
            };
            if let Some(key) = &credential.key
                && let Some(earlier) = by_access_key_id.insert(key.access_key_id().to_owned(), index)
            {
                return Err(same(&all[earlier], "access_key_id"));
            }
            if let Some(token) = &credential.bearer_token
                && let Some(earlier) = bearer::find(&all[..index], token)
            {
                return Err(same(earlier, "bearer_token"));
            }
        }
        Ok(Credentials { all, by_access_key_id, signing_keys: SigningKeys::default() })
    }
}

impl Keys for Credentials {
    type Owner = Credential;

    fn find(&self, access_key_id: &str) -> Option<(&Credential, &Key)> {
        let credential = &self.all[*self.by_access_key_id.get(access_key_id)?];
        Some((credential, credential.key.as_ref()?))
    }

    fn signing_keys(&self) -> &SigningKeys {
        &self.signing_keys
    }
}

/// A caller that was turned away, in the words of AWS's wire: always a 403, with the name that SDKs
/// make an exception of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    pub error_type: ErrorType,
    /// For the caller, as the `message` of the JSON body. Not for the log: it may repeat what was sent.
    pub message: String,
    /// For the log; nothing secret is in it.
    pub detail: String,
}

impl Denied {
    pub const STATUS: http::StatusCode = http::StatusCode::FORBIDDEN;

    pub(super) fn forbidden(detail: String) -> Denied {
        Denied { error_type: ErrorType::Forbidden, message: "Forbidden".to_owned(), detail }
    }
}

/// The value of `x-amzn-ErrorType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorType {
    MissingAuthenticationToken,
    IncompleteSignature,
    UnrecognizedClient,
    InvalidSignature,
    /// For credentials with an end of life, which the file cannot give yet.
    ExpiredToken,
    Forbidden,
}

impl ErrorType {
    pub fn name(self) -> &'static str {
        match self {
            ErrorType::MissingAuthenticationToken => "MissingAuthenticationTokenException",
            ErrorType::IncompleteSignature => "IncompleteSignatureException",
            ErrorType::UnrecognizedClient => "UnrecognizedClientException",
            ErrorType::InvalidSignature => "InvalidSignatureException",
            ErrorType::ExpiredToken => "ExpiredTokenException",
            ErrorType::Forbidden => "ForbiddenException",
        }
    }
}

/// Lets a caller pass who shows a credential, and whose credential allows `action` on `resource`
/// (`allow::resource` writes one).
pub fn authorize(
    authorization: Authorization,
    credentials: &Credentials,
    request: &Request<'_>,
    action: &str,
    resource: &str,
    now: SystemTime,
) -> Result<(), Denied> {
    let credential = match authorization {
        Authorization::AwsIam => iam::identify(credentials, request, now)?,
        Authorization::Bearer => bearer::identify(&credentials.all, request.headers)?,
        Authorization::None => return Ok(()),
    };
    credential.may(action, resource)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credential(name: &str, id: Option<&str>, token: Option<&str>) -> Credential {
        Credential {
            name: name.to_owned(),
            key: id.map(|id| Key::new(id, "secret", None).unwrap()),
            bearer_token: token.map(|token| bearer::Token::new(token).unwrap()),
            allow: Vec::new(),
            deny: Vec::new(),
        }
    }

    #[test]
    fn credentials_can_be_told_apart() {
        let check = |second: Credential, problem: Option<&str>| {
            let all = vec![credential("a", Some("AKIDA"), Some("token-a")), second];
            let found = Credentials::new(all).err().map(|duplicate| duplicate.to_string());
            assert_eq!(found.as_deref(), problem);
        };
        check(credential("b", Some("AKIDB"), Some("token-b")), None);
        check(credential("b", None, None), None);
        check(
            credential("b", Some("AKIDA"), None),
            Some("the credentials `a` and `b` have the same access_key_id; give each its own"),
        );
        check(
            credential("b", None, Some("token-a")),
            Some("the credentials `a` and `b` have the same bearer_token; give each its own"),
        );
    }

    #[test]
    fn a_token_is_good_for_what_its_credential_allows() {
        let check = |authorization, header: &'static str, outcome: Result<(), &str>| {
            let mut backend = credential("backend", None, Some("token"));
            backend.allow.push(allow::Pattern::parse("execute-api:ManageConnections chat/prod/POST/*").unwrap());
            let credentials = Credentials::new(vec![backend, credential("idle", None, Some("idle"))]).unwrap();
            let mut headers = http::HeaderMap::new();
            headers.insert("authorization", http::HeaderValue::from_static(header));
            let request = Request { method: "POST", path: "/", query: None, headers: &headers, body: b"" };
            let resource = allow::resource("chat", "prod", "POST", "a\n");
            let now = SystemTime::UNIX_EPOCH;
            let asked = authorize(authorization, &credentials, &request, MANAGE_CONNECTIONS, &resource, now);
            assert_eq!(asked.map_err(|denied| denied.detail), outcome.map_err(str::to_owned));
        };
        check(Authorization::Bearer, "Bearer token", Ok(()));
        check(Authorization::Bearer, "Bearer tokem", Err("no credential has this bearer token"));
        check(
            Authorization::Bearer,
            "Bearer idle",
            Err("credential `idle` may not `execute-api:ManageConnections` on `chat/prod/POST/@connections/a\\n`; \
                 a pattern in credentials.idle.allow would permit it"),
        );
        check(Authorization::None, "", Ok(()));
    }

    #[test]
    fn what_is_denied_is_denied_whatever_is_allowed() {
        let mut backend = credential("backend", None, Some("token"));
        let pattern = |text| allow::Pattern::parse(text).unwrap();
        backend.allow = vec![pattern("execute-api:* pets/*")];
        backend.deny = vec![pattern("execute-api:Invoke pets/*/DELETE/*")];
        assert!(backend.may(INVOKE, "pets/prod/GET/pets/7").is_ok());
        assert!(
            backend.may(INVOKE, "pets/prod/DELETE/pets/7").is_err_and(|denied| denied.detail.contains("deny says so"))
        );
        assert!(backend.may(MANAGE_CONNECTIONS, "pets/prod/DELETE/@connections/x").is_ok());
    }

    #[test]
    fn nothing_secret_is_printed() {
        let key = Key::new("AKIDA", "hidden-secret", Some("hidden-session")).unwrap();
        let token = bearer::Token::new("hidden-token").unwrap();
        let all = Credential { key: Some(key), bearer_token: Some(token), ..credential("a", None, None) };
        let printed = format!("{all:?}");
        assert!(printed.contains("AKIDA") && !printed.contains("hidden"), "{printed}");
    }

    #[test]
    fn keys_that_would_let_everybody_sign_are_no_keys() {
        assert!(Key::new("AKIDA", "", None).is_err());
        assert!(Key::new("AKIDA", "secret", Some("")).is_err());
        assert!(Key::new("", "secret", None).is_err());
        assert!(Key::new("a/b", "secret", None).is_err());
    }
}
