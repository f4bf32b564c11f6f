//! `livegate routes`: the table of what a file serves.

use std::io::IsTerminal as _;
use std::path::Path;
use std::process::ExitCode;

use crate::api::admission::Admission;
use crate::api::directory::{Place, Served};
use crate::api::gateway::Gateway;
use crate::api::kept::Kept;
use crate::model::client::StageKey;
use crate::steps::throttles::Bucket;

const HEAD: [&str; 7] = ["API", "STAGE", "ADDRESS", "ROUTE", "INTEGRATION", "AUTHORIZER", "THROTTLE"];

pub fn run(path: &Path) -> anyhow::Result<ExitCode> {
    // The table is of use without the secrets too.
    let loaded = super::load(path, true, &Kept::default())?;
    if loaded.problems.has_problems() {
        print!("{}", loaded.report(path, std::io::stdout().is_terminal()));
        return Ok(ExitCode::FAILURE);
    }
    if let Some(gateway) = &loaded.gateway {
        print!("{}", table(gateway));
    }
    Ok(ExitCode::SUCCESS)
}

fn table(gateway: &Gateway) -> String {
    let mut rows = vec![HEAD.map(str::to_owned)];
    let mut places: Vec<&Place> = gateway.directory.places().iter().collect();
    places.sort_by_key(|place| (place.key().api.clone(), place.key().stage.clone()));
    for place in places {
        let mut row = |route: &str, integration: String, (authorizer, throttle): (&str, &str), below: &str| {
            let StageKey { api, stage } = place.key();
            let address = place.shown() + below;
            let cells = [api, stage, &*address, route, &integration, authorizer, throttle];
            rows.push(cells.map(str::to_owned));
        };
        match &place.served {
            Served::Sockets(stage) => {
                for route in stage.routes.all() {
                    let arrow = if route.two_way { "⇄" } else { "→" };
                    // What `$connect` asks stands in the stage.
                    let admission = if route.key == "$connect" { &stage.connect } else { &route.admission };
                    let (authorizer, throttle) = (authorizer(admission), throttle(admission.throttle.as_deref()));
                    let integration = format!("{arrow} {}", route.integration.describe());
                    row(&route.key, integration, (&authorizer, &throttle), "");
                }
                let asked = (stage.connections_api.name(), &*throttle(stage.push_throttle.as_deref()));
                row("POST GET DELETE", "push".to_owned(), asked, "/@connections");
            }
            Served::Requests(stage) => {
                for route in stage.routes.all() {
                    let arrow = if route.upgrade { "⇅" } else { "→" };
                    let (authorizer, throttle) =
                        (authorizer(&route.admission), throttle(route.admission.throttle.as_deref()));
                    let integration = format!("{arrow} {}", route.integration.describe());
                    row(&route.key, integration, (&authorizer, &throttle), "");
                }
            }
        }
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();
    let line = |row: &[String; 7]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

/// Who decides: the authorizer by its name, and the API key.
fn authorizer(admission: &Admission) -> String {
    let named = admission.authorizer.as_ref().map(|authorization| authorization.name.as_str());
    let key = admission.wants_api_key.then_some("API key");
    let all: Vec<_> = named.into_iter().chain(key).collect();
    if all.is_empty() { "-".to_owned() } else { all.join(" + ") }
}

/// Calls a second, and how many at once.
fn throttle(bucket: Option<&Bucket>) -> String {
    bucket.map_or("-".to_owned(), |bucket| format!("{}/s, {}", bucket.rate().per_second(), bucket.rate().burst()))
}
