//! What identifies a caller: the places of a request that `identity_source` names.

use std::borrow::Cow;

use crate::expressions::Error;
use crate::expressions::context_names::Protocol;
use crate::expressions::scope::Scope;
use crate::expressions::variables::{Allowed, Source as _, Variable};

/// One place, in either of AWS's spellings: `$request.header.X` or `route.request.header.X` (REST APIs: `method.…`).
#[derive(Debug, Clone, PartialEq)]
pub struct IdentitySource(Variable);

impl IdentitySource {
    pub fn parse(text: &str) -> Result<IdentitySource, Error> {
        let bare = text.strip_prefix('$').unwrap_or(text);
        let braced = bare.strip_prefix('{').and_then(|bare| bare.strip_suffix('}')).unwrap_or(bare);
        let name = braced.strip_prefix("route.").or(braced.strip_prefix("method.")).unwrap_or(braced);
        let of = |protocol| {
            let variable = Variable::parse(name, Allowed { protocol, body: false, ..Allowed::REQUEST })?;
            match variable {
                Variable::Path | Variable::PathParameter(_) => Err(Error::new(0, NOT_HERE, USUAL)),
                variable => Ok(IdentitySource(variable)),
            }
        };
        // An authorizer may serve APIs of both kinds, whose contexts differ.
        match of(Protocol::Http) {
            Err(_) if name.starts_with("context.") => of(Protocol::WebSocket),
            parsed => parsed,
        }
        .map_err(|error| Error { help: USUAL.to_owned(), ..error })
    }

    /// What a request has there; empty is as good as nothing.
    pub fn value<'s>(&self, scope: &'s Scope<'_>) -> Option<Cow<'s, str>> {
        let value = match &self.0 {
            // All lines of it, on handshakes too: of two tokens, nobody could say which one was meant.
            Variable::Header(name) => joined(scope.headers(name)),
            variable => variable.text(scope),
        };
        value.filter(|value| !value.is_empty())
    }

    /// The token there: without `Bearer ` in front, and of the subprotocols that a browser offers, the one that looks
    /// like a token.
    pub fn token<'s>(&self, scope: &'s Scope<'_>) -> Option<Cow<'s, str>> {
        if self.is_subprotocol() {
            return self.value(scope).and_then(|offered| Some(Cow::Owned(token_among(&offered)?.to_owned())));
        }
        let value = self.value(scope)?;
        let token = without_scheme(&value);
        (!token.is_empty()).then(|| Cow::Owned(token.to_owned()))
    }

    /// Tokens that come as subprotocols need a subprotocol in the answer, or browsers hang up.
    pub fn is_subprotocol(&self) -> bool {
        matches!(&self.0, Variable::Header(name) if name.eq_ignore_ascii_case("sec-websocket-protocol"))
    }

    /// The stage variable that it is, if it is one.
    pub fn stage_variable(&self) -> Option<&str> {
        match &self.0 {
            Variable::StageVariable(name) => Some(name),
            _ => None,
        }
    }
}

const NOT_HERE: &str = "the path identifies nobody";
const USUAL: &str = "write it like `$request.header.Authorization`, `$request.querystring.token`, `$context.routeKey` or \
                     `$stageVariables.tenant`";

fn joined(mut lines: Vec<Cow<'_, str>>) -> Option<Cow<'_, str>> {
    match lines.len() {
        0 | 1 => lines.pop(),
        _ => Some(Cow::Owned(lines.join(","))),
    }
}

fn without_scheme(value: &str) -> &str {
    match value.split_at_checked("Bearer ".len()) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("Bearer ") => token.trim(),
        _ => value.trim(),
    }
}

/// The member of a list of subprotocols that is three pieces of base64 with dots between them.
pub fn token_among(offered: &str) -> Option<&str> {
    let is_piece = |piece: &str| {
        !piece.is_empty() && piece.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    // A JSON object in base64 begins so, and no subprotocol's name of three parts does.
    let is_token =
        |member: &&str| member.starts_with("eyJ") && member.split('.').count() == 3 && member.split('.').all(is_piece);
    offered.split(',').map(str::trim).find(is_token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_may_be_spelled_either_way() {
        let check = |text: &str, expected: Option<Variable>| {
            assert_eq!(IdentitySource::parse(text).ok().map(|source| source.0), expected, "{text}");
        };
        let header = Variable::Header("Authorization".into());
        for text in [
            "$request.header.Authorization",
            "${request.header.Authorization}",
            "route.request.header.Authorization",
            "method.request.header.Authorization",
        ] {
            check(text, Some(header.clone()));
        }
        check("route.request.querystring.token", Some(Variable::Query("token".into())));
        check("$context.routeKey", Some(Variable::Context("routeKey".into())));
        check("context.connectionId", Some(Variable::Context("connectionId".into())));
        check("$stageVariables.x", Some(Variable::StageVariable("x".into())));
        for text in ["", "Authorization", "$request.body.token", "$request.path", "$request.header.", "$context.nope"] {
            check(text, None);
        }
    }

    #[test]
    fn a_token_is_what_follows_bearer() {
        let check = |value: &str, token: &str| assert_eq!(without_scheme(value), token, "{value}");
        check("Bearer abc", "abc");
        check("bearer  abc ", "abc");
        check("abc", "abc");
        check("Bearer", "Bearer");
        check("Bearer ", "");
    }

    #[test]
    fn a_token_is_found_among_subprotocols() {
        let check = |offered: &str, token: Option<&str>| assert_eq!(token_among(offered), token, "{offered}");
        check("chat.v2, eyJh.eyJz.c2ln", Some("eyJh.eyJz.c2ln"));
        check("eyJh.eyJz.c2ln", Some("eyJh.eyJz.c2ln"));
        check("a.b.c, chat", None);
        check("eyJh.eyJz", None);
        check("eyJh..c2ln", None);
        check("", None);
    }
}
