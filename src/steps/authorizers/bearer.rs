//! `Authorization: Bearer <token>`: for backends that cannot sign.

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest;
use http::HeaderMap;
use http::header::AUTHORIZATION;

use super::credentials::{Credential, Denied, ErrorType};

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

    fn of(bytes: &[u8]) -> Option<Token> {
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

/// Whose token the request shows.
pub(super) fn identify<'c>(credentials: &'c [Credential], headers: &HeaderMap) -> Result<&'c Credential, Denied> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let shown = values.next().and_then(|value| after_scheme(value.as_bytes()));
    let Some(shown) = shown else {
        return Err(Denied {
            error_type: ErrorType::MissingAuthenticationToken,
            message: "Missing Authentication Token".to_owned(),
            detail: "no bearer token; send `Authorization: Bearer <token>`".to_owned(),
        });
    };
    if values.next().is_some() {
        return Err(Denied::forbidden("there is more than one Authorization header".to_owned()));
    }
    Token::of(shown)
        .and_then(|token| find(credentials, &token))
        .ok_or_else(|| Denied::forbidden("no credential has this bearer token".to_owned()))
}

/// The credential with this token. It always looks at all of them, so that the time says nothing
/// about which, or how much of one, was right.
pub(super) fn find<'c>(credentials: &'c [Credential], token: &Token) -> Option<&'c Credential> {
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

/// What follows `Bearer`, in any case, and its spaces; nothing if that is all there is.
fn after_scheme(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.split_at_checked("Bearer ".len())?;
    let token = rest.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"Bearer ") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn tokens_are_asked_for_and_compared() {
        let credential = |name: &str, token: Option<&str>| Credential {
            name: name.to_owned(),
            key: None,
            bearer_token: token.map(|token| Token::new(token).unwrap()),
            allow: Vec::new(),
            deny: Vec::new(),
        };
        let all = [credential("none", None), credential("a", Some("token-a")), credential("b", Some("token-b"))];
        let check = |headers: &[&str], outcome: Result<&str, &str>| {
            let mut map = HeaderMap::new();
            for header in headers {
                map.append(AUTHORIZATION, HeaderValue::from_str(header).unwrap());
            }
            let found = identify(&all, &map);
            let found = found.as_ref().map(|found| found.name.as_str());
            assert_eq!(found.map_err(|denied| denied.error_type.name()), outcome, "{headers:?}");
        };
        let missing = Err("MissingAuthenticationTokenException");
        let wrong = Err("ForbiddenException");
        check(&["Bearer token-a"], Ok("a"));
        check(&["bearer  token-b"], Ok("b"));
        check(&[], missing);
        check(&[""], missing);
        check(&["Bearer"], missing);
        check(&["Bearer "], missing);
        check(&["Basic dG9rZW4tYQ=="], missing);
        check(&["Bearer token-c"], wrong);
        check(&["Bearer token-"], wrong);
        check(&["Bearer token-a token-b"], wrong);
        check(&["Bearer token-\u{e4}"], wrong);
        check(&["Bearer token-a", "Bearer token-a"], wrong);
    }

    #[test]
    fn texts_that_no_header_carries_are_no_tokens() {
        for text in ["", " ", "a b", "line\n", "ä"] {
            assert!(Token::new(text).is_err(), "{text:?}");
        }
    }
}
