//! The `[credentials.<name>]` tables: who may sign or show a token, and what for.

use crate::model::settings::{Reading, Secret, Text, settings};

settings! {
    /// Who may call `@connections`, and routes with the authorizer `aws_iam`: by signing (SigV4), by showing a bearer
    /// token (`@connections` only), or both.
    pub struct Credential {
        /// Names the secret that a request is signed with.
        pub access_key_id: Option<Text>,
        /// What a request is signed with.
        pub secret_access_key: Option<Secret>,
        /// The session token that a signed request must also show.
        pub session_token: Option<Secret>,
        /// The token to show as `Authorization: Bearer …`.
        pub bearer_token: Option<Secret>,
        /// What it may do, with `*` anywhere; absent allows nothing. `execute-api:ManageConnections` of
        /// `<api>/<stage>/<METHOD>/@connections/<id>`, `execute-api:Invoke` of `<api>/<stage>/$connect` or
        /// `<api>/<stage>/<METHOD>/<path>`.
        pub allow: Vec<Text> = [],
        /// What it may not do, whatever `allow` says.
        pub deny: Vec<Text> = [],
        check is_whole;
    }
}

/// Half a key pair can sign nothing, and a credential of nothing lets nobody in.
fn is_whole(credential: &Credential, reading: &mut Reading) {
    let Credential { access_key_id, secret_access_key, session_token, bearer_token, place, .. } = credential;
    let problems = &mut reading.problems;
    match (access_key_id, secret_access_key) {
        (Some(id), Some(_)) if id.is_empty() && !id.unresolved => {
            problems.problem_with_help(&id.place, "this access key id is empty", "write any name for the key");
        }
        (Some(id), None) => {
            problems.problem_with_help(&id.place, "`access_key_id` stands alone", "add `secret_access_key`");
        }
        (None, Some(secret)) => {
            problems.problem_with_help(&secret.place, "`secret_access_key` stands alone", "add `access_key_id`");
        }
        (None, None) => match session_token {
            Some(token) => {
                let help = "add `access_key_id` and `secret_access_key`";
                problems.problem_with_help(&token.place, "`session_token` belongs to a key pair", help);
            }
            None if bearer_token.is_none() => {
                let help = "add `access_key_id` and `secret_access_key`, or `bearer_token`";
                problems.problem_with_help(place, "this credential has nothing to show", help);
            }
            None => {}
        },
        (Some(_), Some(_)) => {}
    }
}
