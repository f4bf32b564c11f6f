//! Integrations: URIs that can be called, parameters and texts whose variables every stage has.

use std::collections::BTreeSet;

use http::{HeaderName, StatusCode, Uri};

use super::Building;
use crate::expressions::scope::StageVariables;
use crate::expressions::variables::{Allowed, Template};
use crate::model::client::StageKey;
use crate::model::problem::Place;
use crate::model::settings::Expression;
use crate::steps::integrations::{self, Integration, http_proxy, mock};
use crate::steps::transforms::parameters::{self, Mapping, RequestParameters};

/// What a route's settings may refer to.
pub(super) struct RouteScope<'a> {
    pub key: &'a StageKey,
    pub route_key: &'a str,
    pub variables: &'a StageVariables,
}

impl Building<'_> {
    pub(super) fn integration(
        &mut self,
        scope: &RouteScope<'_>,
        written: &integrations::Settings,
    ) -> Option<(RequestParameters, Integration)> {
        match written {
            integrations::Settings::HttpProxy(settings) => {
                let parameters = self.parameters(scope, settings);
                let proxy = self.http_proxy(scope, settings, parameters.as_ref())?;
                Some((parameters?, Integration::HttpProxy(Box::new(proxy))))
            }
            integrations::Settings::Mock(settings) => {
                Some((RequestParameters::default(), Integration::Mock(self.mock(scope, settings, Allowed::ALL)?)))
            }
        }
    }

    fn http_proxy(
        &mut self,
        scope: &RouteScope<'_>,
        settings: &http_proxy::Settings,
        parameters: Option<&RequestParameters>,
    ) -> Option<http_proxy::HttpProxy> {
        let template = self.template(scope, &settings.uri, Allowed::STAGE_VARIABLES)?;
        let filled = template.substitute_stage_variables(|name| scope.variables.get(name).map(String::as_str));
        let uri_text = filled.as_literal()?.to_owned();
        let parameters = parameters?;
        let uri = self.uri(&settings.uri.place, &uri_text, parameters)?;
        let path = path_and_query(&uri_text).to_owned();
        let path = if path.starts_with('/') { path } else { format!("/{path}") };
        Some(http_proxy::HttpProxy::new(http_proxy::Parts {
            backend: self.backend(&settings.uri.place, &uri)?,
            uri,
            path,
            maps_uri: parameters.changes_uri(),
            timeout: settings.timeout.map_or(http_proxy::MESSAGE_TIMEOUT, |timeout| timeout.0),
            payload: settings.payload,
            stage: scope.key.clone(),
            route_key: scope.route_key.to_owned(),
        }))
    }

    /// A URL that can be called, with every `{name}` in its path mapped by a parameter.
    fn uri(&mut self, place: &Place, text: &str, parameters: &RequestParameters) -> Option<Uri> {
        let mut probe = text.to_owned();
        let path = path_and_query(text);
        for name in parameters.path_parameters() {
            let hole = format!("{{{name}}}");
            if !path.contains(&hole) {
                let found =
                    format!("the path parameter `{name}` is mapped, but `{hole}` is not in the path of `{text}`");
                self.problems.problem(place, found);
            }
            let host = &text[..text.len() - path.len()];
            probe = format!("{host}{}", probe[host.len()..].replace(&hole, "x"));
        }
        if probe.contains(['{', '}']) {
            let found = format!("`{text}` has a `{{…}}` that no `integration.request.path.…` fills");
            self.problems.problem_with_help(place, found, "map it in `request_parameters`, or write `%7B` for a brace");
            return None;
        }
        self.callable(place, text, &probe)
    }

    /// `probe` is the text with its holes filled.
    pub(super) fn callable(&mut self, place: &Place, text: &str, probe: &str) -> Option<Uri> {
        let help = "write it like `http://127.0.0.1:3000/path`";
        if probe.contains('#') {
            self.problems.problem_with_help(place, format!("`{text}` has a fragment, which no request carries"), help);
            return None;
        }
        let uri = probe.parse::<Uri>().ok().filter(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.host().is_some_and(|host| !host.is_empty())
                && uri.authority().is_some_and(|authority| {
                    // A port above 65535 parses, and reads as none.
                    let has_port = authority.as_str().len() > authority.host().len();
                    !authority.as_str().contains('@') && has_port == authority.port_u16().is_some()
                })
        });
        if uri.is_none() {
            self.problems.problem_with_help(place, format!("`{text}` is no URL that can be called"), help);
        }
        uri
    }

    fn parameters(&mut self, scope: &RouteScope<'_>, settings: &http_proxy::Settings) -> Option<RequestParameters> {
        let mut all = RequestParameters::default();
        let before = self.problems.len();
        for entry in &settings.request_parameters {
            if entry.value.unresolved {
                continue;
            }
            // In a literal a dollar from the environment stands escaped; every other form has no dollars in it.
            let text = match entry.value.text.starts_with('\'') {
                true => entry.value.text.replace("\\$", "$"),
                false => entry.value.text.clone(),
            };
            let added = Mapping::parse_one(&entry.name, &text).and_then(|mapping| {
                let client_only = mapping.uses_client_request() && scope.route_key != "$connect";
                all.add(mapping).map(|()| client_only)
            });
            match added {
                Ok(false) => {}
                Ok(true) => {
                    let found = "only `$connect` has the client's headers and query, so this is always left out";
                    self.problems.warning(&entry.value.place, found);
                }
                Err(parameters::Error::Key(error)) => self.expression_problem(&entry.place, error),
                Err(parameters::Error::Value(error)) => self.expression_problem(&entry.value.place, error),
            }
        }
        let place = &settings.place;
        self.check_variables(scope, place, all.stage_variables_used());
        (self.problems.len() == before || !self.problems.has_problems()).then_some(all)
    }

    pub(super) fn mock(
        &mut self,
        scope: &RouteScope<'_>,
        settings: &mock::Settings,
        allowed: Allowed,
    ) -> Option<mock::Mock> {
        let response = match &settings.response {
            Some(written) => Some(self.template(scope, written, allowed)?),
            None => None,
        };
        let mut headers = Vec::new();
        for entry in &settings.headers {
            match HeaderName::from_bytes(entry.name.as_bytes()) {
                Ok(name) => headers.push((name, self.template(scope, &entry.value, allowed)?)),
                Err(_) => self.problems.problem(&entry.place, format!("`{}` is no header name", entry.name)),
            }
        }
        let status = StatusCode::from_u16(settings.status.0 as u16).ok()?;
        Some(mock::Mock { response, status, headers })
    }

    pub(super) fn template(
        &mut self,
        scope: &RouteScope<'_>,
        written: &Expression,
        allowed: Allowed,
    ) -> Option<Template> {
        if written.unresolved {
            return None;
        }
        let template = Template::parse(&written.text, allowed)
            .map_err(|error| self.expression_problem(&written.place, error))
            .ok()?;
        self.check_variables(scope, &written.place, template.stage_variables_used()).then_some(template)
    }

    pub(super) fn check_variables<'v>(
        &mut self,
        scope: &RouteScope<'_>,
        place: &Place,
        used: impl Iterator<Item = &'v str>,
    ) -> bool {
        let missing: BTreeSet<&str> = used.filter(|name| !scope.variables.contains_key(*name)).collect();
        for name in &missing {
            let found = format!("stage `{}` has no stage variable `{name}`", scope.key.stage);
            let stage = crate::model::problem::quoted_if_needed(&scope.key.stage);
            let help = format!("add it to `apis.{}.stages.{stage}.stage_variables`", scope.key.api);
            self.problems.problem_with_help(place, found, help);
        }
        missing.is_empty()
    }
}

/// What stands behind the host of a URL; empty if nothing does.
pub(super) fn path_and_query(url: &str) -> &str {
    let host = url.find("://").map_or(0, |scheme| scheme + 3);
    url[host..].find(['/', '?']).map_or("", |path| &url[host + path..])
}
