//! The three ways a caller of `@connections` shows who it is: `iam` and `bearer` find out which credential is calling,
//! and its `allow` and `deny` say what it may do.

use std::time::SystemTime;

use super::credentials::{Credential, Credentials, Denied};
use super::{bearer, iam};
use crate::outbound::sigv4::Request;

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

/// Lets a caller pass who shows a credential, and whose credential allows `action` on `resource`
/// (`allow::resource` writes one). Gives back that credential, where one is asked for.
pub fn authorize<'c>(
    authorization: Authorization,
    credentials: &'c Credentials,
    request: &Request<'_>,
    action: &str,
    resource: impl FnOnce() -> String,
    now: impl FnOnce() -> SystemTime,
) -> Result<Option<&'c Credential>, Denied> {
    let credential = match authorization {
        Authorization::AwsIam => iam::identify(credentials, request, now())?,
        Authorization::Bearer => bearer::identify(credentials, request.headers)?,
        Authorization::None => return Ok(None),
    };
    credential.may(action, &resource())?;
    Ok(Some(credential))
}

#[cfg(test)]
mod tests {
    use super::super::allow;
    use super::super::credentials::{MANAGE_CONNECTIONS, Token};
    use super::*;

    fn credential(name: &str, token: &str) -> Credential {
        Credential {
            name: name.to_owned(),
            key: None,
            bearer_token: Token::new(token).ok(),
            allow: Vec::new(),
            deny: Vec::new(),
        }
    }

    #[test]
    fn a_token_is_good_for_what_its_credential_allows() {
        let check = |authorization, header: &'static str, outcome: Result<(), &str>| {
            let mut backend = credential("backend", "token");
            backend.allow.push(allow::Pattern::parse("execute-api:ManageConnections chat/prod/POST/*").unwrap());
            let credentials = Credentials::new(vec![backend, credential("idle", "idle")]).unwrap();
            let mut headers = http::HeaderMap::new();
            headers.insert("authorization", http::HeaderValue::from_static(header));
            let request = Request { method: "POST", path: "/", query: None, headers: &headers, body: b"" };
            let resource = || allow::resource("chat", "prod", "POST", "a\n");
            let now = || SystemTime::UNIX_EPOCH;
            let asked = authorize(authorization, &credentials, &request, MANAGE_CONNECTIONS, resource, now);
            assert_eq!(asked.map(|_| ()).map_err(|denied| denied.detail), outcome.map_err(str::to_owned));
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
}
