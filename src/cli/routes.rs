//! `livegate routes`: the table of what a file serves.

use std::io::IsTerminal as _;
use std::path::Path;
use std::process::ExitCode;

use crate::api::directory::{Host, Place};
use crate::api::gateway::Gateway;
use crate::telemetry::metrics::Metrics;

const HEAD: [&str; 7] = ["API", "STAGE", "ADDRESS", "ROUTE", "INTEGRATION", "AUTHORIZER", "THROTTLE"];

pub fn run(path: &Path) -> anyhow::Result<ExitCode> {
    // The table is of use without the secrets too.
    let loaded = super::load(path, true, &Metrics::default())?;
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
    places.sort_by_key(|place| (place.stage.key.api.clone(), place.stage.key.stage.clone()));
    for place in places {
        let key = &place.stage.key;
        for route in place.stage.routes.all() {
            let arrow = if route.two_way { "⇄" } else { "→" };
            rows.push([
                key.api.to_string(),
                key.stage.to_string(),
                address(place),
                route.key.clone(),
                format!("{arrow} {}", route.integration.describe()),
                "-".to_owned(),
                "-".to_owned(),
            ]);
        }
        let authorization = place.stage.connections_api.name();
        rows.push([
            key.api.to_string(),
            key.stage.to_string(),
            format!("{}/@connections", address(place)),
            "POST GET DELETE".to_owned(),
            "push".to_owned(),
            authorization.to_owned(),
            "-".to_owned(),
        ]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();
    let line = |row: &[String; 7]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

fn address(place: &Place) -> String {
    let host = match &place.host {
        Host::Exact(host) => host.clone(),
        Host::Wildcard(rest) => format!("*{rest}"),
        Host::Any => String::new(),
    };
    let address = host + &place.path();
    if address.is_empty() { "/".to_owned() } else { address }
}
