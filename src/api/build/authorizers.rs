//! Authorizers: from their tables to what decides who a caller is.

use std::collections::BTreeMap;
use std::sync::Arc;

use regex::Regex;

use super::Building;
use crate::api::admission::Authorization;
use crate::api::file::{self, File};
use crate::expressions::scope::StageVariables;
use crate::expressions::variables::{Allowed, Variable};
use crate::model::client::StageKey;
use crate::model::headers;
use crate::model::problem::Place;
use crate::model::settings::{Expression, Text, nearest};
use crate::steps::authorizers::identity_source::IdentitySource;
use crate::steps::authorizers::{Authorizer, Http, Jwt, http as http_authorizer, jwt};
use crate::steps::integrations::http_proxy;

/// The authorizers of the file by name, and whether a route names them.
#[derive(Default)]
pub(super) struct Authorizers {
    known: BTreeMap<String, Known>,
    /// Their problems were said already.
    unreadable: Vec<String>,
    /// A route names one that is not there: which it means nobody knows.
    is_one_missing: bool,
}

impl Authorizers {
    pub(super) fn all(&self) -> Vec<Arc<Authorizer>> {
        self.known.values().filter_map(|known| known.built.clone()).collect()
    }
}

struct Known {
    place: Place,
    /// `None` if it could not be built, which was said already.
    built: Option<Arc<Authorizer>>,
    sources: Vec<IdentitySource>,
    is_jwt: bool,
    is_named: bool,
}

impl Building<'_> {
    pub(super) fn authorization(
        &mut self,
        key: &StageKey,
        route: &file::Route,
        variables: &StageVariables,
    ) -> Option<Authorization> {
        let scopes: Vec<String> = route.authorization_scopes.iter().map(|scope| scope.value.clone()).collect();
        let Some(written) = &route.authorizer else {
            if let Some(scope) = route.authorization_scopes.first() {
                let found = "scopes are asked of a token, and this route has no authorizer";
                self.problems.problem_with_help(&scope.place, found, "add `authorizer`");
            }
            return None;
        };
        if written.unresolved {
            return None;
        }
        let name = written.value.clone();
        if name == "aws_iam" && !self.authorizers.known.contains_key(&name) {
            self.check_no_scopes(route);
            return Some(Authorization { name, authorizer: Arc::new(Authorizer::AwsIam), scopes });
        }
        if self.authorizers.unreadable.contains(&name) {
            return None;
        }
        let Some(known) = self.authorizers.known.get_mut(&name) else {
            self.authorizers.is_one_missing = true;
            let found = format!("there is no authorizer `{name}`");
            let names = self.authorizers.known.keys().map(String::as_str).chain(["aws_iam"]);
            let help = match nearest(&name, names) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("add `[authorizers.{}]`", crate::model::problem::quoted_if_needed(&name)),
            };
            self.problems.problem_with_help(&written.place, found, help);
            return None;
        };
        known.is_named = true;
        let (is_jwt, built) = (known.is_jwt, known.built.clone());
        let sources: Vec<String> =
            known.sources.iter().filter_map(|source| source.stage_variable().map(str::to_owned)).collect();
        for variable in sources.iter().filter(|variable| !variables.contains_key(*variable)) {
            let found =
                format!("the authorizer reads the stage variable `{variable}`, and stage `{}` has none", key.stage);
            self.problems.problem_with_help(&written.place, found, "add it to the stage's `stage_variables`");
        }
        if !is_jwt {
            self.check_no_scopes(route);
        }
        Some(Authorization { name, authorizer: built?, scopes })
    }

    fn check_no_scopes(&mut self, route: &file::Route) {
        if let Some(scope) = route.authorization_scopes.first() {
            let found = "only authorizers of type `jwt` know scopes";
            self.problems.problem_with_help(&scope.place, found, "leave out `authorization_scopes`");
        }
    }

    pub(super) fn authorizers(&mut self, file: &File) {
        self.authorizers.unreadable = file.authorizers.unreadable().to_vec();
        for entry in &file.authorizers {
            let (name, place) = (entry.name.clone(), entry.place.clone());
            let (sources, built, is_jwt) = match &entry.value {
                file::Authorizer::Jwt(written) => {
                    let sources = self.identity_sources(&written.identity_source);
                    let built = self.jwt(&name, written, sources.clone());
                    (sources, built.map(|jwt| Authorizer::Jwt(Box::new(jwt))), true)
                }
                file::Authorizer::Http(written) => {
                    let sources = self.identity_sources(&written.identity_source);
                    let built = self.http_authorizer(&name, written, sources.clone());
                    (sources, built.map(|http| Authorizer::Http(Box::new(http))), false)
                }
                file::Authorizer::AwsIam(_) => (Vec::new(), Some(Authorizer::AwsIam), false),
            };
            if name == "aws_iam" && !matches!(&entry.value, file::Authorizer::AwsIam(_)) {
                let found = "`aws_iam` is the authorizer of signatures, and there without a table";
                self.problems.problem_with_help(&place, found, "give this one another name");
            }
            let known = Known { place, built: built.map(Arc::new), sources, is_jwt, is_named: false };
            self.authorizers.known.insert(name, known);
        }
    }

    fn identity_sources(&mut self, written: &[Expression]) -> Vec<IdentitySource> {
        let mut sources = Vec::new();
        for expression in written.iter().filter(|expression| !expression.unresolved) {
            match IdentitySource::parse(&expression.text) {
                Ok(source) => sources.push(source),
                Err(error) => self.expression_problem(&expression.place, error),
            }
        }
        sources
    }

    fn http_authorizer(
        &mut self,
        name: &str,
        written: &file::HttpAuthorizer,
        identity_sources: Vec<IdentitySource>,
    ) -> Option<Http> {
        if written.uri.unresolved {
            return None;
        }
        let uri = self.callable(&written.uri.place, &written.uri.value, &written.uri.value)?;
        let backend = self.backend(&written.uri.place, &uri)?;
        let validation = match &written.identity_validation_expression {
            Some(text) if !text.unresolved => Some(self.validation(text)?),
            _ => None,
        };
        Some(Http::new(http_authorizer::Parts {
            metrics: self.kept.metrics.authorizer(name),
            name: name.to_owned(),
            backend,
            host: headers::encoded(http_proxy::host(&uri)),
            uri: uri.path_and_query().map_or_else(http::Uri::default, |target| target.clone().into()),
            event: match written.event {
                file::AuthorizerEvent::Request => http_authorizer::Event::Request,
                file::AuthorizerEvent::Token => http_authorizer::Event::Token,
            },
            format: written.payload_format,
            simple_responses: written.simple_responses,
            identity_sources,
            validation,
            timeout: written.timeout.0,
            ttl: written.ttl.0,
        }))
    }

    fn jwt(&mut self, name: &str, written: &file::JwtAuthorizer, identity_sources: Vec<IdentitySource>) -> Option<Jwt> {
        let issuer = self.issuer(name, written)?;
        let mut refresh_sources = Vec::new();
        for expression in written.refresh_source.iter().filter(|expression| !expression.unresolved) {
            let text = expression.text.strip_prefix('$').unwrap_or(&expression.text);
            match Variable::parse(text, Allowed { context: false, stage_variables: false, ..Allowed::ALL }) {
                Ok(variable) => refresh_sources.push(variable),
                Err(error) => self.expression_problem(&expression.place, error),
            }
        }
        let mut algorithms = Vec::new();
        for text in written.algorithms.iter().filter(|text| !text.unresolved) {
            match jwt::keys::algorithm(&text.value) {
                Some(algorithm) => algorithms.push(algorithm),
                None => {
                    let found = format!("`{}` is no algorithm that tokens are signed with here", text.value);
                    let help = "write one like `RS256`, `PS256`, `ES256`, `EdDSA` or `HS256`";
                    self.problems.problem_with_help(&text.place, found, help);
                }
            }
        }
        self.check_algorithms(written, &issuer, &algorithms);
        if let Some(issuer) = written.issuer.as_ref().filter(|_| written.audience.is_empty()) {
            let found = "a token that this issuer made for any other application lets its bearer in here as well";
            self.problems.warning_with_help(&issuer.place, found, "add `audience`, the names of this one");
        }
        Some(Jwt {
            name: name.to_owned(),
            issuer,
            rules: jwt::Rules {
                issuer: written.issuer.as_ref().map(|issuer| issuer.value.clone()),
                audience: written.audience.iter().map(|audience| audience.value.clone()).collect(),
                algorithms,
                leeway: written.leeway.0,
            },
            identity_sources,
            refresh_sources,
            expired_close_code: written.expired_close_code.0 as u16,
        })
    }

    /// A key that is for none of the algorithms would refuse every token.
    fn check_algorithms(&mut self, written: &file::JwtAuthorizer, issuer: &jwt::Issuer, algorithms: &[jwt::Algorithm]) {
        let jwt::Issuer::Static(keys) = issuer else { return };
        if let Some(first) = written.algorithms.first()
            && !algorithms.is_empty()
            && !algorithms.iter().any(|algorithm| keys.allows(*algorithm))
        {
            let found = "the key is for none of these algorithms";
            self.problems.problem_with_help(
                &first.place,
                found,
                "leave out `algorithms`: the type of the key says them",
            );
        }
        if let Some(secret) = written.secret.as_ref().filter(|_| keys.has_short_secret()) {
            let found = "this secret is shorter than 32 bytes, and can be found by trying";
            self.problems.warning_with_help(
                &secret.place,
                found,
                "make a new one, like `openssl rand -base64 48` does",
            );
        }
    }

    fn issuer(&mut self, name: &str, written: &file::JwtAuthorizer) -> Option<Arc<jwt::Issuer>> {
        if let Some(secret) = &written.secret {
            if secret.unresolved {
                return None;
            }
            let keys = jwt::KeySet::from_secret(secret.reveal().as_bytes());
            return self.static_keys(&secret.place, keys);
        }
        if let Some(key) = &written.public_key {
            if key.unresolved {
                return None;
            }
            let is_text = key.value.trim_start().starts_with("-----BEGIN") || key.value.trim_start().starts_with('{');
            let text = match is_text {
                true => key.value.clone(),
                false => self.key_file(key)?,
            };
            return self.static_keys(&key.place, jwt::KeySet::from_text(&text));
        }
        let (source, text) = match (&written.jwks_uri, &written.issuer) {
            (Some(uri), _) => (jwt::Source::JwksUri(uri.value.clone()), uri),
            (None, Some(issuer)) => (jwt::Source::Discovery(issuer.value.clone()), issuer),
            (None, None) => return None,
        };
        if text.unresolved {
            return None;
        }
        self.callable(&text.place, &text.value, &text.value)?;
        let metrics = self.kept.metrics.key_fetches(name);
        Some(self.kept.issuers.of(source, jwt::Metrics { fetched: metrics.0, failed: metrics.1 }))
    }

    /// A key that was meant to stand here, and is none, must not be shown as the path of a file.
    fn key_file(&mut self, key: &Text) -> Option<String> {
        let mut problems = crate::model::problem::Problems::default();
        let read = self.files.read(key, &mut problems);
        if read.is_none() {
            let found = "this is neither a key nor the path of a file that can be read";
            let help = "write a PEM text, a JWK, a JWK set, or the path of a file with one of them";
            self.problems.problem_with_help(&key.place, found, help);
        }
        Some(String::from_utf8_lossy(&read?).into_owned())
    }

    fn static_keys(&mut self, place: &Place, keys: Result<jwt::KeySet, jwt::keys::Error>) -> Option<Arc<jwt::Issuer>> {
        match keys {
            Ok(keys) => Some(Arc::new(jwt::Issuer::Static(keys))),
            Err(error) => {
                self.problems.problem(place, error.to_string());
                None
            }
        }
    }

    fn validation(&mut self, text: &Text) -> Option<Regex> {
        Regex::new(&format!("^(?:{})$", text.value))
            .map_err(|error| {
                let why = error.to_string().lines().last().unwrap_or_default().to_owned();
                let found = format!("`{}` is no regular expression: {why}", text.value);
                self.problems.problem_with_help(&text.place, found, "write one like `^Bearer [-0-9a-zA-Z._]+$`");
            })
            .ok()
    }

    /// Authorizers that no route names.
    pub(super) fn check_authorizers(&mut self) {
        if self.authorizers.is_one_missing {
            return;
        }
        let unnamed = self.authorizers.known.iter().filter(|(_, known)| !known.is_named);
        let unnamed: Vec<_> = unnamed.map(|(name, known)| (name.clone(), known.place.clone())).collect();
        for (name, place) in unnamed {
            let found = format!("no route names the authorizer `{name}`");
            self.problems.warning_with_help(&place, found, format!("write `authorizer = \"{name}\"` in a route"));
        }
    }
}
