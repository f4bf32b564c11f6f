//! The credentials of the file: who there is, and what each may do. One that is not named in an `allow` may do nothing.

use std::collections::HashMap;
use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest;

use super::allow;
use crate::outbound::sigv4::{Key, Keys, SigningKeys};

/// The action a push, a look-up and a forced close ask for.
pub const MANAGE_CONNECTIONS: &str = "execute-api:ManageConnections";

/// The action that the call of a route asks for.
pub const INVOKE: &str = "execute-api:Invoke";

/// One of `[credentials.*]`. Printing it shows nothing secret.
#[derive(Debug, Clone)]
pub struct Credential {
    pub name: String,
    pub key: Option<Key>,
    pub bearer_token: Option<Token>,
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

/// A token, kept as its hash: what is compared has one length whatever was sent, and memory holds no secret.
#[derive(Clone)]
pub struct Token(digest::Digest);

/// Why a text cannot be a bearer token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a bearer token is visible ASCII without spaces, at least one character; no header could carry this one")]
pub struct NoToken;

impl Token {
    pub fn new(text: &str) -> Result<Token, NoToken> {
        Token::of(text.as_bytes()).ok_or(NoToken)
    }

    pub fn of(bytes: &[u8]) -> Option<Token> {
        // An empty token is none: `${env.X}` set to nothing would otherwise let everybody pass.
        let visible = !bytes.is_empty() && bytes.iter().all(u8::is_ascii_graphic);
        visible.then(|| Token(digest::digest(&digest::SHA256, bytes)))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
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
                && let Some(earlier) = find(&all[..index], token)
            {
                return Err(same(earlier, "bearer_token"));
            }
        }
        Ok(Credentials { all, by_access_key_id, signing_keys: SigningKeys::default() })
    }

    pub fn with_token(&self, token: &Token) -> Option<&Credential> {
        find(&self.all, token)
    }
}

/// The credential with this token. It always looks at all of them, so that the time says nothing
/// about which, or how much of one, was right.
fn find<'c>(credentials: &'c [Credential], token: &Token) -> Option<&'c Credential> {
    let mut found = None;
    for credential in credentials {
        if let Some(own) = &credential.bearer_token
            && verify_slices_are_equal(own.0.as_ref(), token.0.as_ref()).is_ok()
        {
            found = Some(credential);
        }
    }
    found
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

#[cfg(test)]
mod tests {
    use super::*;

    fn credential(name: &str, id: Option<&str>, token: Option<&str>) -> Credential {
        Credential {
            name: name.to_owned(),
            key: id.map(|id| Key::new(id, "secret", None).unwrap()),
            bearer_token: token.map(|token| Token::new(token).unwrap()),
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
        let token = Token::new("hidden-token").unwrap();
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

    #[test]
    fn texts_that_no_header_carries_are_no_tokens() {
        for text in ["", " ", "a b", "line\n", "ä"] {
            assert!(Token::new(text).is_err(), "{text:?}");
        }
    }
}
