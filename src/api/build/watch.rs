//! Access logs, levels and metrics: from their keys to what is written down of a stage's calls.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use super::Building;
use crate::api::file::{self, LoggingLevel, WhenFull};
use crate::api::watch::{AccessLog, Level, RouteWatch, StageWatch};
use crate::expressions::context_names::Protocol;
use crate::expressions::log_format::{Format, Warning};
use crate::model::client::StageKey;
use crate::model::settings::Named;
use crate::telemetry::sink::{self, Destination, Rotation};
use crate::telemetry::tracer;

/// A buffer below this drops lines at every burst.
const SMALLEST_BUFFER: u64 = 64 * 1024;

impl Building<'_> {
    pub(super) fn stage_watch(&mut self, key: &StageKey, stage: &file::Stage, protocol: Protocol) -> StageWatch {
        let level = level(stage.logging_level);
        let named = |name: &str, key: &StageKey, building: &Building<'_>| {
            let key_of_route: Arc<str> = name.into();
            let metrics = building.kept.metrics.route(key, &key_of_route);
            let integration = String::new();
            Arc::new(RouteWatch { key: key_of_route, metrics, exported: None, level, authorizer: None, integration })
        };
        let access_log = stage.access_log.0.as_ref().and_then(|written| self.access_log(written, protocol, key));
        StageWatch {
            key: key.clone(),
            metrics: self.kept.metrics.stage(key),
            access_log,
            data_trace: stage.data_trace,
            nowhere: named("-", key, self),
            pushes: named("@connections", key, self),
        }
    }

    pub(super) fn route_watch(
        &mut self,
        key: &StageKey,
        stage: &file::Stage,
        entry: &Named<file::Route>,
        integration: String,
    ) -> Arc<RouteWatch> {
        let name: Arc<str> = entry.name.as_str().into();
        let metrics = self.kept.metrics.route(key, &name);
        let integration = shown(&integration);
        let exported = stage.detailed_metrics.then(|| self.kept.metrics.export(key, &metrics));
        Arc::new(RouteWatch {
            key: name,
            metrics,
            exported,
            level: level(entry.value.logging_level.unwrap_or(stage.logging_level)),
            authorizer: entry.value.authorizer.as_ref().map(|name| name.value.as_str().into()),
            integration,
        })
    }

    fn access_log(&mut self, written: &file::AccessLog, protocol: Protocol, key: &StageKey) -> Option<AccessLog> {
        let format = match Format::parse(&written.format.text, protocol, key) {
            Ok(format) => Some(format),
            Err(_) if written.format.unresolved => None,
            Err(error) => {
                self.expression_problem(&written.format.place, error);
                None
            }
        };
        if format.as_ref().and_then(Format::warning) == Some(Warning::Secret) {
            let found = "`$context.identity.apiKey` writes API keys into the log";
            let help = "write `$context.identity.apiKeyId`, which is the key's name";
            self.problems.warning_with_help(&written.format.place, found, help);
        }
        let settings = self.sink(written)?;
        Some(AccessLog { format: format?, settings, sink: OnceLock::new() })
    }

    fn sink(&mut self, written: &file::AccessLog) -> Option<sink::Settings> {
        if written.destination.unresolved {
            return None;
        }
        let rotation = Rotation {
            size: written.rotate_size.0.as_ref().map(|size| size.0),
            every: written.rotate_every.0.as_ref().map(|every| every.0),
            keep: written.keep.0,
        };
        let destination = match Destination::parse(&written.destination.value, self.files.folder(), rotation) {
            Ok(destination) => destination,
            Err(help) => {
                let found = format!("`{}` is no destination of a log", written.destination.value);
                self.problems.problem_with_help(&written.destination.place, found, help);
                return None;
            }
        };
        if written.buffer.0 < SMALLEST_BUFFER {
            let found = format!("a buffer of {} is full after some lines", written.buffer);
            self.problems.problem_with_help(&written.place, found, "write at least `64KiB`");
        }
        let settings = sink::Settings {
            destination,
            when_full: match written.when_full {
                WhenFull::Drop => sink::WhenFull::Drop,
                WhenFull::Block => sink::WhenFull::Block,
            },
            buffer: usize::try_from(written.buffer.0).unwrap_or(usize::MAX),
            gathering: sink::GATHERING,
        };
        let name = settings.destination.to_string();
        match self.logs.get(&name) {
            Some(other) if *other != settings => {
                let found = format!("two logs are written to `{name}`, and their settings differ");
                let help = "give both the same settings, or each a destination of its own";
                self.problems.problem_with_help(&written.destination.place, found, help);
            }
            _ => {
                self.logs.insert(name, settings.clone());
            }
        }
        Some(settings)
    }

    pub(super) fn tracing(&mut self, written: &file::Tracing) -> tracer::Settings {
        tracer::Settings {
            endpoint: written.endpoint.uri.to_string(),
            headers: written
                .headers
                .iter()
                .map(|entry| (entry.name.clone(), entry.value.reveal().to_owned()))
                .collect(),
            sample: written.sample.0,
            service_name: written.service_name.value.clone(),
            follow_parent: written.follow_parent,
        }
    }
}

/// An integration without what may be a secret in its address: a query, or a login.
fn shown(integration: &str) -> String {
    let plain = integration.split('?').next().unwrap_or_default();
    match plain.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let host = authority.rsplit('@').next().unwrap_or_default();
            format!("{scheme}://{host}{path}")
        }
        None => plain.to_owned(),
    }
}

/// The logs of a file by their destinations.
pub(super) type Logs = BTreeMap<String, sink::Settings>;

fn level(written: LoggingLevel) -> Level {
    match written {
        LoggingLevel::Off => Level::Off,
        LoggingLevel::Error => Level::Error,
        LoggingLevel::Info => Level::Info,
    }
}
