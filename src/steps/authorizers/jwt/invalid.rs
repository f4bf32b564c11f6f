//! What is wrong with a token, and how the caller is told (RFC 6750).

use http::HeaderValue;

use crate::model::limits::TOKEN;

/// Why a token does not count. Neither form of printing it shows anything of the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    #[error("missing: token not provided")]
    Missing,
    #[error("token is longer than {TOKEN} bytes")]
    TooLong,
    #[error("token contains an invalid number of segments")]
    Segments,
    #[error("token header cannot be decoded")]
    Header,
    #[error("token is signed with an algorithm that is not accepted")]
    Algorithm,
    #[error("token has critical headers that are not understood")]
    Critical,
    /// The issuer may have new keys by now.
    #[error("no key has the `kid` of the token")]
    UnknownKid,
    #[error("token has no `kid` and there is more than one key it could mean")]
    AmbiguousKey,
    #[error("invalid signature")]
    Signature,
    #[error("token payload is not a JSON object")]
    Payload,
    #[error("issuer does not match")]
    Issuer,
    #[error("the token does not have a valid audience")]
    Audience,
    #[error("the token has no expiration time")]
    NoExpiry,
    #[error("the token has a time that is not a number")]
    Time,
    #[error("the token has expired")]
    Expired,
    #[error("the token is not valid yet")]
    NotYet,
    #[error("the token was issued in the future")]
    IssuedInFuture,
    #[error("OIDC discovery endpoint communication error")]
    Unreachable,
}

impl Invalid {
    /// What the caller is told, which is less than what the log is: nothing about our keys.
    pub fn error_description(&self) -> String {
        match self {
            Invalid::UnknownKid | Invalid::AmbiguousKey => Invalid::Signature.to_string(),
            other => other.to_string(),
        }
    }

    /// `WWW-Authenticate` of the 401. Who shows no token is told the scheme and no more.
    pub fn challenge(&self) -> HeaderValue {
        if *self == Invalid::Missing {
            return HeaderValue::from_static("Bearer");
        }
        let description = self.error_description();
        header(&format!("Bearer scope=\"\" error=\"invalid_token\" error_description={}", quoted(&description)))
    }
}

/// `WWW-Authenticate` of the 403 that a token without any of the route's scopes gets.
pub fn insufficient_scope(scopes: &[String]) -> HeaderValue {
    header(&format!("Bearer scope={} error=\"insufficient_scope\"", quoted(&scopes.join(" "))))
}

fn header(text: &str) -> HeaderValue {
    HeaderValue::from_bytes(text.as_bytes()).expect("what a header cannot carry was left out by `quoted`")
}

/// A quoted-string of RFC 9110. Control characters have no place in one, quoted or not.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars().filter(|character| !character.is_ascii_control()) {
        if matches!(character, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(character);
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caller_is_told_in_the_words_of_aws() {
        let check = |invalid: Invalid, wanted: &str| {
            assert_eq!(
                invalid.challenge(),
                format!("Bearer scope=\"\" error=\"invalid_token\" error_description={wanted}")
            );
        };
        assert_eq!(Invalid::Missing.challenge(), "Bearer");
        check(Invalid::TooLong, r#""token is longer than 16384 bytes""#);
        check(Invalid::Segments, r#""token contains an invalid number of segments""#);
        check(Invalid::Audience, r#""the token does not have a valid audience""#);
        check(Invalid::Issuer, r#""issuer does not match""#);
        check(Invalid::Expired, r#""the token has expired""#);
        check(Invalid::Signature, r#""invalid signature""#);
        check(Invalid::UnknownKid, r#""invalid signature""#);
        check(Invalid::AmbiguousKey, r#""invalid signature""#);
        check(Invalid::Unreachable, r#""OIDC discovery endpoint communication error""#);
    }

    #[test]
    fn wanted_scopes_are_quoted() {
        let check = |scopes: &[&str], wanted: &[u8]| {
            let scopes: Vec<_> = scopes.iter().map(|scope| scope.to_string()).collect();
            assert_eq!(insufficient_scope(&scopes).as_bytes(), wanted, "{scopes:?}");
        };
        check(&["a", "b"], br#"Bearer scope="a b" error="insufficient_scope""#);
        check(&[], br#"Bearer scope="" error="insufficient_scope""#);
        check(&["pets:write"], br#"Bearer scope="pets:write" error="insufficient_scope""#);
        check(&[r#"a"b\c"#], br#"Bearer scope="a\"b\\c" error="insufficient_scope""#);
        check(&["a\r\nx: y\0\u{7f}"], br#"Bearer scope="ax: y" error="insufficient_scope""#);
        check(&["ä"], b"Bearer scope=\"\xc3\xa4\" error=\"insufficient_scope\"");
    }
}
