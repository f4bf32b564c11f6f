//! From the file as written to a gateway that is ready to serve, or to every problem that is in the way.
//!
//! What one table can tell by itself was checked when it was read; here stands what takes two: names
//! that refer to something, stages that stand in each other's way, variables that a stage lacks.

mod admission;
mod api_keys;
mod authorizers;
mod backends;
mod credentials;
mod integrations;
mod protocol;
mod requests;
mod watch;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use tokio::sync::Semaphore;

use self::admission::Shared;
use self::authorizers::Authorizers;
use self::backends::Named;
use self::integrations::RouteScope;
use super::admission::Admission;
use super::directory::{Directory, Host, Place as Address, Served};
use super::file::{self, File};
use super::files::Files;
use super::gateway::{Gateway, Settings};
use super::kept::Kept;
use super::routes::{Route, Routes};
use super::stage::{Limits, Ordering, Stage};
use crate::expressions;
use crate::expressions::context_names::Protocol;
use crate::expressions::scope::StageVariables;
use crate::expressions::selection::SelectionExpression;
use crate::model::address::ListenAt;
use crate::model::client::StageKey;
use crate::model::limits;
use crate::model::problem::{Place, Problems};
use crate::model::settings::{ByteSize, Expression, OrNone};
use crate::outbound::backends::Backend;
use crate::steps::authorizers::push::Authorization;

/// Builds the gateway; `None` comes with problems. Warnings may come with either.
pub fn build(file: &File, files: &Files, kept: &Kept) -> (Option<Gateway>, Problems) {
    kept.buckets.begin();
    let mut building = Building {
        files,
        kept,
        problems: Problems::default(),
        backends: BTreeMap::new(),
        pools: BTreeMap::new(),
        authorizers: Authorizers::default(),
        logs: watch::Logs::default(),
    };
    building.pools(file);
    building.authorizers(file);
    let credentials = building.credentials(file);
    let has_credentials = credentials.is_some();
    let shared = building.shared(file, credentials);
    let settings = building.settings(file);
    let acme = file.gateway.tls.as_ref().and_then(|tls| tls.acme.as_ref());
    let acme = acme.and_then(|acme| super::acme::build(acme, files.folder(), &mut building.problems));
    let tls = file.gateway.tls.as_ref().and_then(|tls| super::tls::load(tls, files, &mut building.problems));
    let (mut addresses, mut stages, mut http_stages) = (Vec::new(), HashMap::new(), HashMap::new());
    for api in &file.apis {
        building.check_protocol(&api.value);
        let served: Vec<Served> = match api.value.protocol {
            file::Protocol::Websocket => {
                let of_api = building.stages(&api.name, &api.value, &shared);
                stages.extend(of_api.iter().map(|stage| (stage.key.clone(), stage.clone())));
                building.check_authorization(file, &api.value);
                of_api.into_iter().map(Served::Sockets).collect()
            }
            file::Protocol::Http => {
                let of_api = building.http_stages(&api.name, &api.value, &shared);
                http_stages.extend(of_api.iter().map(|stage| (stage.key.clone(), stage.clone())));
                of_api.into_iter().map(Served::Requests).collect()
            }
        };
        addresses.extend(building.addresses(&api.value, &served));
    }
    let requests: Vec<StageKey> = http_stages.keys().cloned().collect();
    building.check_allow(file, &stages, &requests);
    building.check_addresses(&addresses);
    building.check_pools();
    building.check_authorizers();
    building.check_modes(file);
    building.check_signers(file);
    if file.apis.is_empty() {
        building.problems.warning(&file.place, "no API is described, so every request gets 404");
    }
    kept.issuers.prune();
    let is_whole = has_credentials && !building.problems.has_problems();
    let gateway = is_whole.then(|| Gateway {
        settings,
        tls,
        acme,
        directory: Directory::new(addresses.into_iter().map(|(address, _)| address).collect()),
        credentials: shared.credentials,
        quotas: api_keys::quotas(file),
        stages,
        http_stages,
        authorizers: building.authorizers.all(),
        backends: building.all_backends(),
        retired: HashMap::new(),
    });
    (gateway, building.problems)
}

struct Building<'a> {
    files: &'a Files,
    kept: &'a Kept,
    problems: Problems,
    /// One for each scheme, host and port, however many routes call it.
    backends: BTreeMap<String, Arc<Backend>>,
    /// The pools of the file by name, and whether a route names them.
    pools: BTreeMap<String, Named>,
    authorizers: Authorizers,
    /// Access logs by destination.
    logs: watch::Logs,
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
        if let Some(admin) = &gateway.admin_listen.0
            && gateway.admin_token.is_none()
            && admin.address.tcp().is_some_and(|address| !address.ip().is_loopback())
        {
            let found =
                "`/metrics` is open to whoever reaches this listener, and the dashboard to nobody but this machine";
            self.problems.warning_with_help(&admin.place, found, "set `gateway.admin_token`");
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
            admin_token: gateway.admin_token.as_ref().map(|token| token.reveal().into()),
            admin_read_only: gateway.admin_read_only,
            tracing: gateway.tracing.as_ref().map(|tracing| self.tracing(tracing)),
            data_dir: self.files.folder().join(match &gateway.data_dir {
                Some(folder) if !folder.unresolved => folder.value.as_str(),
                _ => "livegate-data",
            }),
            callback_url: gateway.callback_url.as_ref().map(|url| url.uri.clone()),
        }
    }

    fn stages(&mut self, name: &str, api: &file::Api, shared: &Shared) -> Vec<Arc<Stage>> {
        let selection = api.route_selection_expression.as_ref().and_then(|written| self.selection(written));
        let mut built = Vec::new();
        for (stage_name, stage) in stages_of(api, &file::Stage::absent_in(api)) {
            let key = StageKey { api: name.into(), stage: stage_name.into() };
            let variables = variables(stage);
            let routes = self.routes(&key, api, stage, &variables, selection.clone());
            let connect = api.routes.get("$connect").map(|entry| ("$connect", &entry.value));
            let connect = self.admission(&key, api, stage, connect, &variables);
            self.check_refreshes(api, &connect);
            let entrance = self.entrance(&key, api, stage, shared);
            let push_throttle = api.connections_api.as_ref().and_then(|written| written.throttle.0.as_ref());
            let push_throttle = self.bucket(&format!("push {} {}", key.api, key.stage), push_throttle);
            self.check_limits(stage, true);
            let limits = self.limits(stage);
            let watch = self.stage_watch(&key, stage, Protocol::WebSocket);
            if let Some(routes) = routes {
                let connections_api = match api.connections_api().authorization.value {
                    file::Authorization::AwsIam => Authorization::AwsIam,
                    file::Authorization::Bearer => Authorization::Bearer,
                    file::Authorization::None => Authorization::None,
                };
                let disconnect_turns = Semaphore::new(limits::BACKEND_CALLS / 2);
                built.push(Arc::new(Stage {
                    key,
                    routes,
                    variables,
                    limits,
                    disconnect_turns,
                    connections_api,
                    push_throttle,
                    entrance,
                    connect,
                    metrics: watch.metrics.clone(),
                    watch,
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
        let (messages, bytes) = self.connection_rates(stage);
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
            messages,
            bytes,
        }
    }

    fn routes(
        &mut self,
        key: &StageKey,
        api: &file::Api,
        stage: &file::Stage,
        variables: &StageVariables,
        selection: Option<SelectionExpression>,
    ) -> Option<Routes> {
        let (mut connect, mut disconnect, mut default, mut named) = (None, None, None, HashMap::new());
        let has_authorizer = api.routes.get("$connect").is_some_and(|connect| connect.value.authorizer.is_some());
        for entry in &api.routes {
            let scope = RouteScope { key, route_key: &entry.name, variables };
            let Some((parameters, integration)) = self.integration(&scope, &entry.value.integration) else { continue };
            let two_way = entry.value.route_response;
            let admission = match entry.name.as_str() {
                // Its stage holds it: the stage is entered without a route as well.
                "$connect" => Admission::default(),
                name => self.message_admission(key, stage, (name, &entry.value), has_authorizer),
            };
            let refreshes = entry.value.refreshes_authorization;
            let watch = self.route_watch(key, stage, entry, integration.describe());
            let route =
                Route { key: entry.name.clone(), parameters, integration, two_way, admission, refreshes, watch };
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
