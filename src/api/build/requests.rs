//! Stages of HTTP APIs: route keys that do not clash, integrations whose `{name}`s the route has.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use http::{Method, StatusCode};

use super::Building;
use super::admission::Shared;
use super::integrations::{RouteScope, path_and_query};
use crate::api::file;
use crate::api::http_stage::{self, HttpLimits, HttpRoute, HttpStage};
use crate::api::paths::{Paths, RouteKey};
use crate::expressions::context_names::Protocol;
use crate::expressions::scope::StageVariables;
use crate::expressions::variables::{Allowed, Template};
use crate::model::client::StageKey;
use crate::model::headers;
use crate::model::problem::Place;
use crate::model::settings::{Named, OrNone};
use crate::outbound::lambda::Format;
use crate::steps::cors::Cors;
use crate::steps::integrations::http_proxy::forward::{Forward, Piece, Target};
use crate::steps::integrations::http_proxy::function::Function;
use crate::steps::integrations::{self, RequestIntegration, http_proxy};
use crate::steps::transforms::http_parameters::{RequestParameters, ResponseParameters};
use crate::steps::transforms::parameters;

impl Building<'_> {
    pub(super) fn http_stages(&mut self, name: &str, api: &file::Api, shared: &Shared) -> Vec<Arc<HttpStage>> {
        let cors = api.cors.as_ref().and_then(|cors| Cors::new(cors, &mut self.problems)).map(Arc::new);
        let keys = self.route_keys(api);
        let mut built = Vec::new();
        for (stage_name, stage) in super::stages_of(api, &file::Stage::absent_in(api)) {
            let key = StageKey { api: name.into(), stage: stage_name.into() };
            let variables = super::variables(stage);
            let limits = http_limits(stage);
            self.check_limits(stage, false);
            let whole = Whole { key: &key, api, stage, variables: &variables, account_id: &shared.account_id };
            let Some(routes) = self.http_routes(&whole, &keys) else { continue };
            let entrance = self.entrance(&key, api, stage, shared);
            let (cors, watch) = (cors.clone(), self.stage_watch(&key, stage, Protocol::Http));
            let parts = http_stage::Parts { key, routes, variables, cors, limits, entrance, watch };
            built.push(Arc::new(HttpStage::new(parts)));
        }
        built
    }

    /// The routes whose keys can be read.
    fn route_keys<'f>(&mut self, api: &'f file::Api) -> Vec<(RouteKey, &'f Named<file::Route>)> {
        let mut keys = Vec::new();
        for entry in &api.routes {
            match RouteKey::parse(&entry.name) {
                Ok(key) => keys.push((key, entry)),
                Err((found, help)) => self.problems.problem_with_help(&entry.place, found, help),
            }
        }
        let mut seen = Vec::new();
        for (key, entry) in &keys {
            seen.push((key.clone(), entry));
        }
        if let Err(clashes) = Paths::new(seen) {
            for clash in clashes {
                let place = api.routes.iter().rfind(|entry| entry.name == clash.second).map(|entry| &entry.place);
                let place = place.cloned().unwrap_or_default();
                self.problems.problem_with_help(&place, clash.to_string(), "keep one of them");
            }
        }
        keys
    }

    fn http_routes(&mut self, whole: &Whole<'_>, keys: &[(RouteKey, &Named<file::Route>)]) -> Option<Paths<HttpRoute>> {
        let Whole { key, api, stage, variables, account_id } = *whole;
        let mut routes = Vec::new();
        for (route_key, entry) in keys {
            let scope = RouteScope { key, route_key: &entry.name, variables };
            let names: HashSet<&str> = route_key.names().collect();
            let written = &entry.value;
            if written.route_response {
                let found = "every HTTP request gets its answer";
                self.problems.problem_with_help(&written.place, found, "leave out `route_response`");
            }
            let integration = self.request_integration(&scope, route_key, &names, &written.integration, account_id);
            if written.upgrade
                && matches!(integration, Some(RequestIntegration::Mock(_) | RequestIntegration::Function(_)))
            {
                let found = "neither a mock nor a function speaks another protocol, so there is nothing to upgrade to";
                self.problems.problem_with_help(&written.place, found, "leave out `upgrade`");
            }
            if written.upgrade
                && let Some(RequestIntegration::HttpProxy(proxy)) = &integration
                && proxy.backend.speaks_http_2()
            {
                let found = "connections are upgraded over HTTP/1.1, and this pool speaks HTTP/2";
                self.problems.problem_with_help(&written.place, found, "name a pool without `http2` for this route");
            }
            let (request_parameters, response_parameters) = self.mappings(&scope, &names, &written.integration);
            let admission = self.admission(key, api, stage, Some((&entry.name, written)), variables);
            let Some(integration) = integration else { continue };
            let watch = self.route_watch(key, stage, entry, integration.describe());
            let key = entry.name.clone();
            let upgrade = written.upgrade;
            let route =
                HttpRoute { key, request_parameters, integration, response_parameters, upgrade, admission, watch };
            routes.push((route_key.clone(), route));
        }
        Paths::new(routes).ok()
    }

    fn request_integration(
        &mut self,
        scope: &RouteScope<'_>,
        route_key: &RouteKey,
        names: &HashSet<&str>,
        written: &integrations::Settings,
        account_id: &Arc<str>,
    ) -> Option<RequestIntegration> {
        match written {
            integrations::Settings::HttpProxy(settings) => {
                let forward = self.forward(scope, route_key, names, settings)?;
                Some(match settings.payload {
                    http_proxy::Payload::Raw => RequestIntegration::HttpProxy(Box::new(forward)),
                    http_proxy::Payload::Event => {
                        let format = settings.payload_format.unwrap_or(Format::V2);
                        RequestIntegration::Function(Box::new(Function {
                            way: forward,
                            format,
                            account_id: account_id.clone(),
                        }))
                    }
                })
            }
            integrations::Settings::Mock(settings) => {
                let mock = self.mock(scope, settings, Allowed::REQUEST)?;
                let texts = mock.response.iter().chain(mock.headers.iter().map(|(_, value)| value));
                let used: Vec<String> = texts.flat_map(Template::path_parameters_used).map(str::to_owned).collect();
                self.check_names(&settings.place, used.iter().map(String::as_str), names);
                if mock.status.is_informational() {
                    let found = format!("`{}` is no status that ends a request", mock.status.as_u16());
                    self.problems.problem_with_help(&settings.place, found, "write one from 200 to 599");
                }
                if !may_have_body(mock.status) && mock.response.is_some() {
                    let found = format!("an answer with status {} has no body", mock.status.as_u16());
                    self.problems.problem_with_help(&settings.place, found, "leave out `response`");
                }
                Some(RequestIntegration::Mock(mock))
            }
        }
    }

    fn forward(
        &mut self,
        scope: &RouteScope<'_>,
        route_key: &RouteKey,
        names: &HashSet<&str>,
        settings: &http_proxy::Settings,
    ) -> Option<Forward> {
        let template = self.template(scope, &settings.uri, Allowed::STAGE_VARIABLES)?;
        let filled = template.substitute_stage_variables(|name| scope.variables.get(name).map(String::as_str));
        let text = filled.as_literal()?.to_owned();
        let place = &settings.uri.place;
        let target = path_and_query(&text);
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let path = self.pieces(place, &path, names)?;
        let query = match query {
            Some(query) => Some(self.pieces(place, query, names)?),
            None => None,
        };
        let base = &text[..text.len() - target.len()];
        let probe = format!("{base}{}", filled_in(&path, query.as_deref()));
        let uri = self.callable(place, &text, &probe)?;
        let is_function = matches!(settings.payload, http_proxy::Payload::Event);
        let target = Target { path, query, appends_path: route_key.is_default() && !is_function };
        Some(Forward {
            backend: self.backend(place, &uri)?,
            host: headers::encoded(http_proxy::host(&uri)),
            method: self.method(settings),
            shown: format!("{}://{}{}", uri.scheme_str().unwrap_or_default(), http_proxy::host(&uri), target.shown()),
            target,
            timeout: settings.timeout.map_or(http_proxy::REQUEST_TIMEOUT, |timeout| timeout.0),
        })
    }

    fn method(&mut self, settings: &http_proxy::Settings) -> Option<Method> {
        let written = settings.method.as_ref().filter(|written| !written.unresolved && *written.value != *"ANY")?;
        let method = Method::from_bytes(written.value.as_bytes()).ok().filter(|_| {
            let is_plain = written.value.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-');
            is_plain && !matches!(written.value.as_str(), "CONNECT" | "TRACE")
        });
        if method.is_none() {
            let found = format!("`{}` is no method that a backend can be asked with", written.value);
            let help = "write it in capitals, like `POST`; `ANY`, or no `method` at all, is the client's own";
            self.problems.problem_with_help(&written.place, found, help);
        }
        method
    }

    fn mappings(
        &mut self,
        scope: &RouteScope<'_>,
        names: &HashSet<&str>,
        written: &integrations::Settings,
    ) -> (RequestParameters, ResponseParameters) {
        let (mut of_request, mut of_response) = (RequestParameters::default(), ResponseParameters::default());
        let integrations::Settings::HttpProxy(settings) = written else { return (of_request, of_response) };
        for entry in settings.request_parameters.iter().filter(|entry| !entry.value.unresolved) {
            let added = of_request.add(&entry.name, &entry.value.text);
            self.note_mapping(&entry.place, &entry.value.place, added);
        }
        for of_status in &settings.response_parameters {
            let Ok(status) = of_status.name.parse() else { continue };
            for entry in of_status.value.iter().filter(|entry| !entry.value.unresolved) {
                let added = of_response.add(status, &entry.name, &entry.value.text);
                self.note_mapping(&entry.place, &entry.value.place, added);
            }
        }
        let variables = of_request.stage_variables_used().chain(of_response.stage_variables_used());
        self.check_variables(scope, &settings.place, variables);
        self.check_names(
            &settings.place,
            of_request.path_parameters_used().chain(of_response.path_parameters_used()),
            names,
        );
        (of_request, of_response)
    }

    fn note_mapping(&mut self, key: &Place, value: &Place, added: Result<(), parameters::Error>) {
        match added {
            Ok(()) => {}
            Err(parameters::Error::Key(error)) => self.expression_problem(key, error),
            Err(parameters::Error::Value(error)) => self.expression_problem(value, error),
        }
    }

    fn check_names<'v>(&mut self, place: &Place, used: impl Iterator<Item = &'v str>, names: &HashSet<&str>) {
        let missing: BTreeSet<&str> = used.filter(|name| !names.contains(name)).collect();
        for name in missing {
            let found = format!("`request.path.{name}` is read, but `{{{name}}}` is not in the route key");
            self.problems.problem_with_help(place, found, "put it into the route key, or leave it out here");
        }
    }

    /// Cuts a path or query at its `{name}`s, each of which the route key must have.
    fn pieces(&mut self, place: &Place, text: &str, names: &HashSet<&str>) -> Option<Vec<Piece>> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            let Some(length) = rest[open..].find('}') else { break };
            let name = &rest[open + 1..open + length];
            if !names.contains(name) {
                let found = format!("`{{{name}}}` is no variable of the route key");
                let bare = name.trim_end_matches('+');
                let help = if names.contains(bare) {
                    format!("write `{{{bare}}}` here: the `+` belongs into the route key only")
                } else if let Some(near) = crate::model::settings::nearest(name, names.iter().copied()) {
                    format!("did you mean `{{{near}}}`?")
                } else {
                    format!("put `{{{name}}}` into the route key, or write `%7B` for a brace")
                };
                self.problems.problem_with_help(place, found, help);
                return None;
            }
            if open > 0 {
                pieces.push(Piece::Text(rest[..open].to_owned()));
            }
            pieces.push(Piece::Parameter(name.to_owned()));
            rest = &rest[open + length + 1..];
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        Some(pieces)
    }
}

/// What the routes of one stage are built from, besides themselves.
struct Whole<'b> {
    key: &'b StageKey,
    api: &'b file::Api,
    stage: &'b file::Stage,
    variables: &'b StageVariables,
    account_id: &'b Arc<str>,
}

/// With a letter in each hole: what is left can be judged as a URL.
fn filled_in(path: &[Piece], query: Option<&[Piece]>) -> String {
    let fill = |pieces: &[Piece]| {
        let texts = pieces.iter().map(|piece| match piece {
            Piece::Text(text) => text.as_str(),
            Piece::Parameter(_) => "x",
        });
        texts.collect::<String>()
    };
    match query {
        Some(query) => format!("{}?{}", fill(path), fill(query)),
        None => fill(path),
    }
}

fn may_have_body(status: StatusCode) -> bool {
    !(status.is_informational() || status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED)
}

fn http_limits(stage: &file::Stage) -> HttpLimits {
    let duration = |time: &OrNone<crate::model::settings::PositiveDuration>| time.0.as_ref().map(|time| time.0);
    HttpLimits {
        max_body: super::size(&stage.max_body),
        idle_timeout: duration(&stage.idle_timeout),
        max_duration: duration(&stage.max_duration),
        handshake_timeout: stage.handshake_timeout.0,
        minimum_compression_size: stage.minimum_compression_size.0.as_ref().map(|size| size.0),
        compress_event_streams: stage.compress_event_streams,
    }
}
