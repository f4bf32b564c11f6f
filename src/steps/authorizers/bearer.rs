//! `Authorization: Bearer <token>`: for backends that cannot sign.

use http::HeaderMap;
use http::header::AUTHORIZATION;

use super::credentials::{Credential, Credentials, Denied, ErrorType, Token};

/// Whose token the request shows.
pub(super) fn identify<'c>(credentials: &'c Credentials, headers: &HeaderMap) -> Result<&'c Credential, Denied> {
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
        .and_then(|token| credentials.with_token(&token))
        .ok_or_else(|| Denied::forbidden("no credential has this bearer token".to_owned()))
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

    use super::super::credentials::Credential;
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
        let all = vec![credential("none", None), credential("a", Some("token-a")), credential("b", Some("token-b"))];
        let all = Credentials::new(all).unwrap();
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
}
