//! Credentials, and whether what they may do is anything at all.

use std::collections::HashMap;
use std::sync::Arc;

use super::Building;
use crate::api::file::{self, File};
use crate::api::stage::Stage;
use crate::model::client::StageKey;
use crate::model::settings::{Named, Text};
use crate::outbound::sigv4::Key;
use crate::steps::authorizers::allow;
use crate::steps::authorizers::credentials::{self, Credential, Credentials, Duplicate, Token};

impl Building<'_> {
    pub(super) fn credentials(&mut self, file: &File) -> Option<Credentials> {
        let mut all = Vec::new();
        for entry in &file.credentials {
            let written = &entry.value;
            let secrets = [&written.secret_access_key, &written.session_token, &written.bearer_token];
            let unresolved = secrets.iter().any(|secret| secret.as_ref().is_some_and(|secret| secret.unresolved))
                || written.access_key_id.as_ref().is_some_and(|id| id.unresolved);
            if unresolved {
                continue;
            }
            let key =
                written.access_key_id.as_ref().zip(written.secret_access_key.as_ref()).and_then(|(id, secret)| {
                    let token = written.session_token.as_ref().map(|token| token.reveal());
                    let key = Key::new(&id.value, secret.reveal(), token);
                    key.map_err(|error| self.problems.problem(&id.place, error.to_string())).ok()
                });
            let bearer_token = written.bearer_token.as_ref().and_then(|token| {
                let read = Token::new(token.reveal());
                read.map_err(|error| self.problems.problem(&token.place, error.to_string())).ok()
            });
            let (allow, deny) = (self.patterns(&written.allow), self.patterns(&written.deny));
            if allow.is_empty() {
                let found = format!("credential `{}` allows nothing", entry.name);
                let help = "add `allow = [\"execute-api:ManageConnections <api>/<stage>/*\"]`";
                self.problems.warning_with_help(&entry.place, found, help);
            }
            all.push(Credential { name: entry.name.clone(), key, bearer_token, allow, deny });
        }
        let refuse = |duplicate: Duplicate| {
            let place = file.credentials.get(&duplicate.second).map(|entry| entry.place.clone());
            self.problems.problem(&place.unwrap_or_default(), duplicate.to_string());
        };
        Credentials::new(all).map_err(refuse).ok()
    }

    fn patterns(&mut self, lines: &[Text]) -> Vec<allow::Pattern> {
        let mut patterns = Vec::new();
        for line in lines.iter().filter(|line| !line.unresolved) {
            match allow::Pattern::parse(&line.value) {
                Ok(pattern) => patterns.push(pattern),
                Err(error) => self.problems.problem(&line.place, error.to_string()),
            }
        }
        patterns
    }

    /// `none` lets everyone push who reaches a listener, so it must be this machine alone.
    pub(super) fn check_authorization(&mut self, file: &File, api: &file::Api) {
        let connections_api = api.connections_api();
        let authorization = &connections_api.authorization;
        let open_to_others = || file.gateway.listen.iter().find(|listener| !listener.address.is_local());
        let through_proxies = !file.gateway.trusted_proxies.is_empty() || file.gateway.proxy_protocol;
        let usable = |is_usable: fn(&file::Credential) -> bool| {
            file.credentials.iter().any(|entry| is_usable(&entry.value) && !entry.value.allow.is_empty())
        };
        match authorization.value {
            file::Authorization::None => {
                if through_proxies {
                    let found = "`none` lets everyone push whom a proxy lets through";
                    let help = "use `aws_iam` or `bearer`, or leave out `trusted_proxies`";
                    self.problems.problem_with_help(&authorization.place, found, help);
                }
                if let Some(listener) = open_to_others() {
                    let found = format!("`none` lets everyone push who reaches `{}`", listener.address);
                    let help = "listen on loopback only, or use `aws_iam` or `bearer`";
                    self.problems.problem_with_help(&authorization.place, found, help);
                }
            }
            file::Authorization::AwsIam if !usable(|credential| credential.access_key_id.is_some()) => {
                let help = "add `[credentials.<name>]` with `access_key_id`, `secret_access_key` and `allow`";
                self.problems.warning_with_help(&authorization.place, "nobody can push: no credential can sign", help);
            }
            file::Authorization::Bearer if !usable(|credential| credential.bearer_token.is_some()) => {
                let help = "add `[credentials.<name>]` with `bearer_token` and `allow`";
                self.problems.warning_with_help(
                    &authorization.place,
                    "nobody can push: no credential has a token",
                    help,
                );
            }
            file::Authorization::AwsIam | file::Authorization::Bearer => {}
        }
    }

    /// A route that wants a signature which nobody can make.
    pub(super) fn check_signers(&mut self, file: &File) {
        let can_sign =
            |entry: &Named<file::Credential>| entry.value.access_key_id.is_some() && !entry.value.allow.is_empty();
        if file.credentials.iter().any(can_sign) {
            return;
        }
        let is_iam = |name: &str| match file.authorizers.get(name) {
            Some(entry) => matches!(entry.value, file::Authorizer::AwsIam(_)),
            None => name == "aws_iam",
        };
        let routes = file.apis.iter().flat_map(|api| &api.value.routes);
        for authorizer in routes.filter_map(|route| route.value.authorizer.as_ref()).filter(|name| is_iam(&name.value))
        {
            let help = "add `[credentials.<name>]` with `access_key_id`, `secret_access_key` and `allow`";
            self.problems.warning_with_help(&authorizer.place, "nobody can call this: no credential can sign", help);
        }
    }

    /// A secret that everybody can read is none.
    pub(super) fn check_modes(&mut self, file: &File) {
        if !self.files.is_open_to_all() {
            return;
        }
        let of_credentials = file.credentials.iter().flat_map(|entry| {
            let written = &entry.value;
            [&written.secret_access_key, &written.session_token, &written.bearer_token].into_iter().flatten()
        });
        let of_authorizers = file.authorizers.iter().filter_map(|entry| match &entry.value {
            file::Authorizer::Jwt(jwt) => jwt.secret.as_ref(),
            _ => None,
        });
        let of_keys = file.api_keys.iter().filter_map(|entry| entry.value.value.as_ref());
        let mut secrets = of_credentials.chain(of_authorizers).chain(of_keys);
        if let Some(secret) = secrets.find(|secret| secret.is_written_out) {
            let found = "everybody on this machine can read the secrets in this file";
            let help = "take them from the environment with `${env.NAME}`, or `chmod o-rwx` the file";
            self.problems.warning_with_help(&secret.place, found, help);
        }
    }

    /// A pattern with a slip in it allows nothing, or denies nothing, and would only show as 403 or not at all.
    pub(super) fn check_allow(&mut self, file: &File, stages: &HashMap<StageKey, Arc<Stage>>, requests: &[StageKey]) {
        let lines = file.credentials.iter().flat_map(|entry| entry.value.allow.iter().chain(&entry.value.deny));
        for line in lines.filter(|line| !line.unresolved) {
            let Ok(pattern) = allow::Pattern::parse(&line.value) else { continue };
            let resource = line.value.split_whitespace().nth(1).unwrap_or_default();
            let manages = |key: &StageKey, method| {
                let resource = allow::resource(&key.api, &key.stage, method, "ZZZZZZZZZZZZZZY=");
                pattern.covers(credentials::MANAGE_CONNECTIONS, &resource)
            };
            // A pattern may name a single connection or path, so only its words in front of that are judged.
            let names_one = line.value.contains("/@connections/") && !line.value.ends_with('*');
            let is_of_connections =
                stages.keys().any(|key| ["POST", "GET", "DELETE"].iter().any(|method| manages(key, method)));
            let is_of_routes = pattern.covers_action(credentials::INVOKE)
                && stages
                    .keys()
                    .chain(requests)
                    .any(|key| begins_like(resource, &format!("{}/{}/", key.api, key.stage)));
            if !names_one && !is_of_connections && !is_of_routes {
                let found = format!("`{}` covers no connection and no route of any stage in this file", line.value);
                let help =
                    "write it like `execute-api:ManageConnections chat/prod/*` or `execute-api:Invoke pets/*/GET/*`";
                self.problems.warning_with_help(&line.place, found, help);
            }
        }
    }
}

/// Whether a pattern's text, up to its first star, is the beginning of `whole`, or goes on behind it.
fn begins_like(pattern: &str, whole: &str) -> bool {
    match pattern.split_once('*') {
        Some((start, _)) => whole.starts_with(start) || start.starts_with(whole),
        None => pattern.starts_with(whole),
    }
}
