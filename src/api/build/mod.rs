//! From the file as written to a gateway that is ready to serve, or to every problem that is in the way.
//!
//! What one table can tell by itself was checked when it was read; here stands what takes two: names
//! that refer to something, stages that stand in each other's way, variables that a stage lacks.

mod integrations;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use tokio::sync::Semaphore;

use self::integrations::RouteScope;
use super::directory::{Directory, Host, Place as Address};
use super::file::{self, File};
use super::gateway::{Gateway, Settings};
use super::routes::{Route, Routes};
use super::stage::{Limits, Ordering, Stage};
use crate::expressions;
use crate::expressions::scope::StageVariables;
use crate::expressions::selection::SelectionExpression;
use crate::model::client::StageKey;
use crate::model::limits;
use crate::model::problem::{Place, Problems};
use crate::model::settings::{Expression, OrNone, Setting as _};
use crate::outbound::backends::Backend;
use crate::outbound::sigv4::Key;
use crate::steps::authorizers::{self, Authorization, Credential, Credentials, Duplicate, allow, bearer};
use crate::telemetry::metrics::Metrics;

/// Builds the gateway; `None` comes with problems. Warnings may come with either.
pub fn build(file: &File, metrics: &Metrics) -> (Option<Gateway>, Problems) {
    let mut building = Building { metrics, problems: Problems::default(), backends: BTreeMap::new() };
    let credentials = building.credentials(file);
    let settings = building.settings(file);
    let (mut addresses, mut stages) = (Vec::new(), HashMap::new());
    for api in &file.apis {
        let of_api = building.stages(&api.name, &api.value);
        addresses.extend(building.addresses(&api.value, &of_api));
        stages.extend(of_api.into_iter().map(|stage| (stage.key.clone(), stage)));
        building.check_authorization(file, &api.value);
    }
    building.check_allow(file, &stages);
    building.check_addresses(&addresses);
    if file.apis.is_empty() {
        building.problems.warning(&file.place, "no API is described, so every request gets 404");
    }
    let gateway = credentials.filter(|_| !building.problems.has_problems()).map(|credentials| Gateway {
        settings,
        directory: Directory::new(addresses.into_iter().map(|(address, _)| address).collect()),
        credentials,
        stages,
        backends: std::mem::take(&mut building.backends).into_values().collect(),
        retired: HashMap::new(),
    });
    (gateway, building.problems)
}

struct Building<'a> {
    metrics: &'a Metrics,
    problems: Problems,
    /// One for each scheme, host and port, however many routes call it.
    backends: BTreeMap<String, Arc<Backend>>,
}

impl Building<'_> {
    fn settings(&mut self, file: &File) -> Settings {
        let gateway = &file.gateway;
        let mut seen = BTreeSet::new();
        for listener in gateway.listen.iter().chain(&gateway.admin_listen.0) {
            if listener.address.port() != 0 && !seen.insert(listener.address) {
                let found = format!("`{}` is listened on twice", listener.address);
                self.problems.problem_with_help(&listener.place, found, "give each listener a port of its own");
            }
        }
        if gateway.callback_url.is_none()
            && let Some(first) = gateway.listen.first()
            && first.address.ip().is_unspecified()
        {
            let found = "backends are told to push to 127.0.0.1, because this listener has no address of its own";
            self.problems.warning_with_help(&first.place, found, "set `gateway.callback_url` if they run elsewhere");
        }
        Settings {
            listen: gateway.listen.iter().map(|listener| listener.address).collect(),
            admin_listen: gateway.admin_listen.0.as_ref().map(|listener| listener.address),
            drain_delay: gateway.drain_delay.0,
            drain_timeout: gateway.drain_timeout.0,
            callback_url: gateway.callback_url.as_ref().map(|url| url.uri.clone()),
        }
    }

    fn credentials(&mut self, file: &File) -> Option<Credentials> {
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
                let read = bearer::Token::new(token.reveal());
                read.map_err(|error| self.problems.problem(&token.place, error.to_string())).ok()
            });
            let allow = written.allow.iter().filter(|line| !line.unresolved).filter_map(|line| {
                let pattern = allow::Pattern::parse(&line.value);
                pattern.map_err(|error| self.problems.problem(&line.place, error.to_string())).ok()
            });
            let allow: Vec<_> = allow.collect();
            if allow.is_empty() {
                let found = format!("credential `{}` allows nothing", entry.name);
                let help = "add `allow = [\"execute-api:ManageConnections <api>/<stage>/*\"]`";
                self.problems.warning_with_help(&entry.place, found, help);
            }
            all.push(Credential { name: entry.name.clone(), key, bearer_token, allow });
        }
        let refuse = |duplicate: Duplicate| {
            let place = file.credentials.get(&duplicate.second).map(|entry| entry.place.clone());
            self.problems.problem(&place.unwrap_or_default(), duplicate.to_string());
        };
        Credentials::new(all).map_err(refuse).ok()
    }

    /// `none` lets everyone push who reaches a listener, so it must be this machine alone.
    fn check_authorization(&mut self, file: &File, api: &file::Api) {
        let authorization = &api.connections_api.authorization;
        let open_to_others = || file.gateway.listen.iter().find(|listener| !listener.address.ip().is_loopback());
        let usable = |is_usable: fn(&file::Credential) -> bool| {
            file.credentials.iter().any(|entry| is_usable(&entry.value) && !entry.value.allow.is_empty())
        };
        match authorization.value {
            file::Authorization::None => {
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

    /// A pattern with a slip in it allows nothing, and would only show as 403.
    fn check_allow(&mut self, file: &File, stages: &HashMap<StageKey, Arc<Stage>>) {
        let lines = file.credentials.iter().flat_map(|entry| &entry.value.allow).filter(|line| !line.unresolved);
        for line in lines {
            let Ok(pattern) = allow::Pattern::parse(&line.value) else { continue };
            let covers = |key: &StageKey, method| {
                let resource = allow::resource(&key.api, &key.stage, method, "ZZZZZZZZZZZZZZY=");
                pattern.allows(authorizers::MANAGE_CONNECTIONS, &resource)
            };
            // A pattern may name a single connection, so only its words in front of that are judged.
            let names_one = line.value.contains("/@connections/") && !line.value.ends_with('*');
            if !names_one
                && !stages.keys().any(|key| ["POST", "GET", "DELETE"].iter().any(|method| covers(key, method)))
            {
                let found = format!("`{}` covers no connection of any stage in this file", line.value);
                let help = "write it like `execute-api:ManageConnections chat/prod/*`";
                self.problems.warning_with_help(&line.place, found, help);
            }
        }
    }

    fn stages(&mut self, name: &str, api: &file::Api) -> Vec<Arc<Stage>> {
        let default = file::Stage::absent(&api.place).filter(|_| api.stages.is_empty());
        let written: Vec<(&str, &file::Stage)> = match &default {
            Some(default) => vec![("$default", default)],
            None => api.stages.iter().map(|entry| (entry.name.as_str(), &entry.value)).collect(),
        };
        let selection = self.selection(&api.route_selection_expression);
        let mut built = Vec::new();
        for (stage_name, stage) in written {
            let key = StageKey { api: name.into(), stage: stage_name.into() };
            let variables = stage.stage_variables.iter();
            let variables = variables.map(|entry| (entry.name.clone(), entry.value.value.clone())).collect();
            let routes = self.routes(&key, api, &variables, selection.clone());
            let limits = self.limits(stage);
            if let Some(routes) = routes {
                let connections_api = match api.connections_api.authorization.value {
                    file::Authorization::AwsIam => Authorization::AwsIam,
                    file::Authorization::Bearer => Authorization::Bearer,
                    file::Authorization::None => Authorization::None,
                };
                let metrics = self.metrics.stage(&key);
                let disconnect_turns = Semaphore::new(limits::BACKEND_CALLS / 2);
                built.push(Arc::new(Stage {
                    key,
                    routes,
                    variables,
                    limits,
                    disconnect_turns,
                    connections_api,
                    metrics,
                }));
            }
        }
        built
    }

    fn selection(&mut self, written: &Expression) -> Option<SelectionExpression> {
        if written.unresolved {
            return None;
        }
        if !written.text.contains('$') {
            let found = format!("`{}` is no variable, so every message takes the same route", written.text);
            self.problems.warning_with_help(&written.place, found, "write it like `$request.body.action`");
        }
        SelectionExpression::parse(&written.text).map_err(|error| self.expression_problem(&written.place, error)).ok()
    }

    fn limits(&mut self, stage: &file::Stage) -> Limits {
        let size = |size: &OrNone<crate::model::settings::ByteSize>| {
            size.0.as_ref().map_or(usize::MAX, |size| usize::try_from(size.0).unwrap_or(usize::MAX))
        };
        let duration = |time: &OrNone<crate::model::settings::PositiveDuration>| time.0.as_ref().map(|time| time.0);
        Limits {
            idle_timeout: duration(&stage.idle_timeout),
            max_duration: duration(&stage.max_duration),
            max_message: size(&stage.max_message),
            max_frame: size(&stage.max_frame),
            binary: stage.binary,
            ordering: match stage.ordering {
                file::Ordering::None => Ordering::None,
                file::Ordering::Connection => Ordering::Connection,
            },
            max_in_flight: stage.max_in_flight.0,
            outbox_bytes: usize::try_from(stage.outbox.bytes.0).unwrap_or(usize::MAX),
            outbox_messages: stage.outbox.messages.0 as usize,
            slow_consumer_timeout: duration(&stage.slow_consumer_timeout),
            ping_interval: duration(&stage.ping_interval),
            pong_timeout: stage.pong_timeout.0,
            handshake_timeout: stage.handshake_timeout.0,
            idle_counts_pings: stage.idle_counts_pings,
            disconnect_retry: stage.disconnect_retry.0,
        }
    }

    fn routes(
        &mut self,
        key: &StageKey,
        api: &file::Api,
        variables: &StageVariables,
        selection: Option<SelectionExpression>,
    ) -> Option<Routes> {
        let (mut connect, mut disconnect, mut default, mut named) = (None, None, None, HashMap::new());
        for entry in &api.routes {
            let scope = RouteScope { key, route_key: &entry.name, variables };
            let Some((parameters, integration)) = self.integration(&scope, &entry.value.integration) else { continue };
            let two_way = entry.value.route_response;
            let route = Route { key: entry.name.clone(), parameters, integration, two_way };
            match entry.name.as_str() {
                "$connect" => connect = Some(route),
                "$disconnect" => disconnect = Some(route),
                "$default" => default = Some(route),
                _ => {
                    named.insert(entry.name.clone(), route);
                }
            }
        }
        Some(Routes { selection: selection?, connect, disconnect, default, named })
    }

    fn expression_problem(&mut self, place: &Place, error: expressions::Error) {
        self.problems.problem_with_help(place, error.message, error.help);
    }

    /// Where the stages of an API are reached.
    fn addresses(&mut self, api: &file::Api, stages: &[Arc<Stage>]) -> Vec<(Address, Place)> {
        let segment = |stage: &Stage| (&*stage.key.stage != "$default").then(|| stage.key.stage.to_string());
        let at = |host: Host, base_path: &str, place: &Place, stage: &Arc<Stage>, segment: Option<String>| {
            (Address { host, base_path: base_path.to_owned(), segment, stage: stage.clone() }, place.clone())
        };
        if api.domains.is_empty() {
            let everywhere = |stage| at(Host::Any, &api.base_path.path, &api.place, stage, segment(stage));
            return stages.iter().map(everywhere).collect();
        }
        let mut addresses = Vec::new();
        for domain in &api.domains {
            let host = Host::parse(&domain.host.name);
            let base_path = domain.base_path.as_ref().map_or(&api.base_path.path, |base_path| &base_path.path);
            let Some(named) = &domain.stage else {
                let each = |stage| at(host.clone(), base_path, &domain.place, stage, segment(stage));
                addresses.extend(stages.iter().map(each));
                continue;
            };
            match stages.iter().find(|stage| *stage.key.stage == *named.value) {
                Some(stage) => addresses.push(at(host, base_path, &domain.place, stage, None)),
                None if api.stages.has(&named.value) || named.unresolved => {}
                None => {
                    let found = format!("this API has no stage `{}`", named.value);
                    let nearest = crate::model::settings::nearest(&named.value, api.stages.names());
                    match nearest {
                        Some(name) => {
                            self.problems.problem_with_help(&named.place, found, format!("did you mean `{name}`?"));
                        }
                        None => self.problems.problem(&named.place, found),
                    }
                }
            }
        }
        addresses
    }

    /// Two stages at one address: nobody could say which of them answers.
    fn check_addresses(&mut self, addresses: &[(Address, Place)]) {
        let mut seen: BTreeMap<(Host, String), &Address> = BTreeMap::new();
        for (address, place) in addresses {
            let Some(first) = seen.insert((address.host.clone(), address.path()), address) else { continue };
            let shown = match (&address.host, address.path()) {
                (Host::Any, path) if path.is_empty() => "every path of every host".to_owned(),
                (Host::Any, path) => format!("`{path}` of every host"),
                (Host::Exact(host), path) => format!("`{host}{path}`"),
                (Host::Wildcard(host), path) => format!("`*{host}{path}`"),
            };
            let found = format!(
                "stage `{}` of `{}` and stage `{}` of `{}` would both answer {shown}",
                first.stage.key.stage, first.stage.key.api, address.stage.key.stage, address.stage.key.api,
            );
            self.problems.problem_with_help(place, found, "give one of them another `base_path`, domain or stage name");
        }
    }
}
