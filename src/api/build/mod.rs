//! From the file as written to a gateway that is ready to serve, or to every problem that is in the way.
//!
//! What one table can tell by itself was checked when it was read; here stands what takes two: names
//! that refer to something, stages that stand in each other's way, variables that a stage lacks.

mod backends;
mod integrations;
mod requests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use tokio::sync::Semaphore;

use self::backends::Named;
use self::integrations::RouteScope;
use super::directory::{Directory, Host, Place as Address, Served};
use super::file::{self, File};
use super::files::Files;
use super::gateway::{Gateway, Settings};
use super::routes::{Route, Routes};
use super::stage::{Limits, Ordering, Stage};
use crate::expressions;
use crate::expressions::scope::StageVariables;
use crate::expressions::selection::SelectionExpression;
use crate::model::address::ListenAt;
use crate::model::client::StageKey;
use crate::model::limits;
use crate::model::problem::{Place, Problems};
use crate::model::settings::{ByteSize, Expression, OrNone};
use crate::outbound::backends::{Backend, Servers};
use crate::outbound::sigv4::Key;
use crate::steps::authorizers::{self, Authorization, Credential, Credentials, Duplicate, allow, bearer};
use crate::steps::integrations::Settings as Integration;
use crate::telemetry::metrics::Metrics;

/// Builds the gateway; `None` comes with problems. Warnings may come with either.
pub fn build(file: &File, files: &Files, servers: &Servers, metrics: &Metrics) -> (Option<Gateway>, Problems) {
    let mut building = Building {
        metrics,
        files,
        servers,
        problems: Problems::default(),
        backends: BTreeMap::new(),
        pools: BTreeMap::new(),
    };
    building.pools(file);
    let credentials = building.credentials(file);
    let settings = building.settings(file);
    let acme = file.gateway.tls.as_ref().and_then(|tls| tls.acme.as_ref());
    let acme = acme.and_then(|acme| super::acme::build(acme, files.folder(), &mut building.problems));
    let tls = file.gateway.tls.as_ref().and_then(|tls| super::tls::load(tls, files, &mut building.problems));
    let (mut addresses, mut stages, mut http_stages) = (Vec::new(), HashMap::new(), HashMap::new());
    for api in &file.apis {
        building.check_protocol(&api.value);
        let served: Vec<Served> = match api.value.protocol {
            file::Protocol::Websocket => {
                let of_api = building.stages(&api.name, &api.value);
                stages.extend(of_api.iter().map(|stage| (stage.key.clone(), stage.clone())));
                building.check_authorization(file, &api.value);
                of_api.into_iter().map(Served::Sockets).collect()
            }
            file::Protocol::Http => {
                let of_api = building.http_stages(&api.name, &api.value);
                http_stages.extend(of_api.iter().map(|stage| (stage.key.clone(), stage.clone())));
                of_api.into_iter().map(Served::Requests).collect()
            }
        };
        addresses.extend(building.addresses(&api.value, &served));
    }
    building.check_allow(file, &stages);
    building.check_addresses(&addresses);
    building.check_pools();
    if file.apis.is_empty() {
        building.problems.warning(&file.place, "no API is described, so every request gets 404");
    }
    let gateway = credentials.filter(|_| !building.problems.has_problems()).map(|credentials| Gateway {
        settings,
        tls,
        acme,
        directory: Directory::new(addresses.into_iter().map(|(address, _)| address).collect()),
        credentials,
        stages,
        http_stages,
        backends: building.all_backends(),
        retired: HashMap::new(),
    });
    (gateway, building.problems)
}

struct Building<'a> {
    metrics: &'a Metrics,
    files: &'a Files,
    servers: &'a Servers,
    problems: Problems,
    /// One for each scheme, host and port, however many routes call it.
    backends: BTreeMap<String, Arc<Backend>>,
    /// The pools of the file by name, and whether a route names them.
    pools: BTreeMap<String, Named>,
}

impl Building<'_> {
    fn settings(&mut self, file: &File) -> Settings {
        let gateway = &file.gateway;
        let mut seen = BTreeSet::new();
        for listener in gateway.listen.iter().chain(&gateway.admin_listen.0) {
            let has_port = listener.address.tcp().is_none_or(|address| address.port() != 0);
            if has_port && !seen.insert(listener.address.to_string()) {
                let found = format!("`{}` is listened on twice", listener.address);
                self.problems.problem_with_help(&listener.place, found, "give each listener a port of its own");
            }
        }
        if gateway.callback_url.is_none()
            && let Some(first) = gateway.listen.first()
        {
            let help = "set `gateway.callback_url` if they run elsewhere";
            match first.address.tcp() {
                Some(address) if address.ip().is_unspecified() => {
                    let found =
                        "backends are told to push to 127.0.0.1, because this listener has no address of its own";
                    self.problems.warning_with_help(&first.place, found, help);
                }
                None if gateway.listen.iter().all(|listener| listener.address.tcp().is_none())
                    && file.apis.iter().any(|api| matches!(api.value.protocol, file::Protocol::Websocket)) =>
                {
                    let found = "backends cannot be told where to push to, because this listener is a socket file";
                    self.problems.warning_with_help(&first.place, found, "set `gateway.callback_url`");
                }
                _ => {}
            }
        }
        let has_tls = gateway.tls.is_some();
        let listen = gateway.listen.iter();
        let listen = listen.map(|at| ListenAt { address: at.address.clone(), tls: at.tls.unwrap_or(has_tls) });
        let admin = gateway.admin_listen.0.as_ref();
        Settings {
            listen: listen.collect(),
            admin_listen: admin.map(|at| ListenAt { address: at.address.clone(), tls: false }),
            drain_delay: gateway.drain_delay.0,
            drain_timeout: gateway.drain_timeout.0,
            trusted_proxies: gateway.trusted_proxies.iter().map(|cidr| cidr.0).collect(),
            proxy_protocol: gateway.proxy_protocol,
            reuse_port: gateway.reuse_port,
            data_dir: self.files.folder().join(match &gateway.data_dir {
                Some(folder) if !folder.unresolved => folder.value.as_str(),
                _ => "livegate-data",
            }),
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

    /// Keys that mean something to APIs of another protocol only.
    fn check_protocol(&mut self, api: &file::Api) {
        let problems = &mut self.problems;
        match api.protocol {
            file::Protocol::Websocket => {
                if api.route_selection_expression.is_none() {
                    let help = "write what finds the route key in a message, such as `$request.body.action`";
                    problems.problem_with_help(&api.place, "`route_selection_expression` is missing", help);
                }
                if let Some(cors) = &api.cors {
                    let found = "browsers ask for no permission to open a WebSocket, so `cors` does nothing here";
                    problems.problem_with_help(&cors.place, found, "leave it out");
                }
                for entry in &api.routes {
                    let Integration::HttpProxy(proxy) = &entry.value.integration else { continue };
                    let of_http = [
                        ("payload_format", proxy.payload_format.is_some()),
                        ("method", proxy.method.is_some()),
                        ("response_parameters", !proxy.response_parameters.is_empty()),
                    ];
                    for (key, _) in of_http.into_iter().filter(|(_, is_written)| *is_written) {
                        let found = format!("`{key}` belongs to routes of HTTP APIs");
                        problems.problem_with_help(&proxy.place, found, "leave it out");
                    }
                }
                for entry in api.routes.iter().filter(|entry| entry.value.upgrade) {
                    let found = "`upgrade` belongs to routes of HTTP APIs: the gateway speaks WebSocket here itself";
                    problems.problem_with_help(&entry.value.place, found, "leave it out");
                }
            }
            file::Protocol::Http => {
                if let Some(written) = &api.route_selection_expression {
                    let found = "HTTP APIs select routes by method and path";
                    problems.problem_with_help(&written.place, found, "leave out `route_selection_expression`");
                }
                if let Some(written) = &api.connections_api {
                    let found = "an HTTP API has no connections to push to";
                    problems.problem_with_help(&written.place, found, "leave out `connections_api`");
                }
            }
        }
    }

    /// `none` lets everyone push who reaches a listener, so it must be this machine alone.
    fn check_authorization(&mut self, file: &File, api: &file::Api) {
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
        let selection = api.route_selection_expression.as_ref().and_then(|written| self.selection(written));
        let mut built = Vec::new();
        for (stage_name, stage) in stages_of(api, &file::Stage::absent_in(api)) {
            let key = StageKey { api: name.into(), stage: stage_name.into() };
            let variables = variables(stage);
            let routes = self.routes(&key, api, &variables, selection.clone());
            let limits = self.limits(stage);
            if let Some(routes) = routes {
                let connections_api = match api.connections_api().authorization.value {
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

    pub(super) fn expression_problem(&mut self, place: &Place, error: expressions::Error) {
        self.problems.problem_with_help(place, error.message, error.help);
    }

    /// Where the stages of an API are reached.
    fn addresses(&mut self, api: &file::Api, stages: &[Served]) -> Vec<(Address, Place)> {
        let segment = |stage: &Served| (&*stage.key().stage != "$default").then(|| stage.key().stage.to_string());
        let at = |host: Host, base_path: &str, place: &Place, stage: &Served, segment: Option<String>| {
            (Address { host, base_path: base_path.to_owned(), segment, served: stage.clone() }, place.clone())
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
            match stages.iter().find(|stage| *stage.key().stage == *named.value) {
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
        let mut seen: BTreeMap<(bool, Host, String), &Address> = BTreeMap::new();
        for (address, place) in addresses {
            let Some(first) =
                seen.insert((address.served.is_of_requests(), address.host.clone(), address.path()), address)
            else {
                continue;
            };
            let shown = match (&address.host, address.path()) {
                (Host::Any, path) if path.is_empty() => "every path of every host".to_owned(),
                (Host::Any, path) => format!("`{path}` of every host"),
                (Host::Exact(host), path) => format!("`{host}{path}`"),
                (Host::Wildcard(host), path) => format!("`*{host}{path}`"),
            };
            let found = format!(
                "stage `{}` of `{}` and stage `{}` of `{}` would both answer {shown}",
                first.key().stage,
                first.key().api,
                address.key().stage,
                address.key().api,
            );
            self.problems.problem_with_help(place, found, "give one of them another `base_path`, domain or stage name");
        }
    }
}

/// The stages of an API by name; `default` stands for those of an API that names none.
fn stages_of<'f>(api: &'f file::Api, default: &'f Option<file::Stage>) -> Vec<(&'f str, &'f file::Stage)> {
    match default {
        Some(default) => vec![("$default", default)],
        None => api.stages.iter().map(|entry| (entry.name.as_str(), &entry.value)).collect(),
    }
}

fn variables(stage: &file::Stage) -> StageVariables {
    stage.stage_variables.iter().map(|entry| (entry.name.clone(), entry.value.value.clone())).collect()
}

fn size(size: &OrNone<ByteSize>) -> usize {
    size.0.as_ref().map_or(usize::MAX, |size| usize::try_from(size.0).unwrap_or(usize::MAX))
}
