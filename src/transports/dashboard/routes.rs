//! The table of APIs, stages and routes, with how they do.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::api::admission::Admission;
use crate::api::watch::{RouteWatch, StageWatch};
use crate::engine::Engine;
use crate::model::clock::Tick;
use crate::telemetry::timing::Snapshot;

pub fn routes(engine: &Engine) -> Value {
    let gateway = engine.gateway();
    let now = Tick::now();
    let mut addresses: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for place in gateway.directory.places() {
        let key = place.key();
        addresses.entry((key.api.to_string(), key.stage.to_string())).or_default().push(place.shown());
    }
    let mut apis: BTreeMap<String, (&str, Vec<Value>)> = BTreeMap::new();
    let mut add = |watch: &StageWatch, protocol: &'static str, detailed: bool, routes: Vec<Value>| {
        let (api, stage) = (watch.key.api.to_string(), watch.key.stage.to_string());
        let metrics = &watch.metrics;
        let closes = metrics.closes().map(|(code, count)| {
            (code.map_or_else(|| "other".to_owned(), |code| code.to_string()), Value::from(count))
        });
        let shown = json!({
            "name": stage,
            "addresses": addresses.get(&(api.clone(), stage.clone())).cloned().unwrap_or_default(),
            "connections": metrics.open.get(),
            "opens": metrics.opened.get(),
            "closes": closes.collect::<Map<_, _>>(),
            "detailed_metrics": detailed,
            "data_trace": watch.data_trace,
            "routes": routes,
        });
        apis.entry(api).or_insert((protocol, Vec::new())).1.push(shown);
    };
    let mut stages: Vec<_> = gateway.stages.values().collect();
    stages.sort_by_key(|stage| stage.key.stage.clone());
    for stage in stages {
        let own = stage.routes.all().map(|route| {
            // What `$connect` asks stands in the stage.
            let admission = if route.key == "$connect" { &stage.connect } else { &route.admission };
            let arrow = if route.two_way { "⇄" } else { "→" };
            row(&route.watch, arrow, Some(admission), now)
        });
        let mut rows: Vec<_> = own.collect();
        rows.push(row(&stage.watch.pushes, "push", None, now));
        rows.extend(nowhere(&stage.watch, now));
        let is_detailed = stage.routes.all().any(|route| route.watch.exported.is_some());
        add(&stage.watch, "websocket", is_detailed, rows);
    }
    let mut stages: Vec<_> = gateway.http_stages.values().collect();
    stages.sort_by_key(|stage| stage.key.stage.clone());
    for stage in stages {
        let own = stage.routes.all().map(|route| {
            let arrow = if route.upgrade { "⇅" } else { "→" };
            row(&route.watch, arrow, Some(&route.admission), now)
        });
        let mut rows: Vec<_> = own.collect();
        rows.extend(nowhere(&stage.watch, now));
        let is_detailed = stage.routes.all().any(|route| route.watch.exported.is_some());
        add(&stage.watch, "http", is_detailed, rows);
    }
    let apis = apis
        .into_iter()
        .map(|(name, (protocol, stages))| json!({ "name": name, "protocol": protocol, "stages": stages }));
    json!({ "apis": apis.collect::<Vec<_>>() })
}

/// What led to no route, once something did.
fn nowhere(watch: &StageWatch, now: Tick) -> Option<Value> {
    (watch.nowhere.metrics.calls.get() > 0).then(|| row(&watch.nowhere, "no route", None, now))
}

fn row(watch: &RouteWatch, arrow: &str, admission: Option<&Admission>, now: Tick) -> Value {
    let figures = watch.metrics.figures(now);
    let pace = watch.metrics.pace(&figures);
    let throttle = admission.and_then(|admission| admission.throttle.as_ref());
    let throttle = throttle.map(|bucket| format!("{}/s, {}", bucket.rate().per_second(), bucket.rate().burst()));
    let authorizer = admission.and_then(|admission| admission.authorizer.as_ref()).map(|authorizer| &authorizer.name);
    let percentile = |q| seconds(&pace.latency, q);
    json!({
        "key": &*watch.key,
        "integration": if watch.integration.is_empty() { arrow.to_owned() } else { format!("{arrow} {}", watch.integration) },
        "authorizer": authorizer,
        "api_key": admission.is_some_and(|admission| admission.wants_api_key),
        "throttle": throttle,
        "calls": figures.calls,
        "rate": rounded(pace.calls),
        "client_errors": figures.client_errors,
        "integration_errors": figures.integration_errors,
        "execution_errors": figures.execution_errors,
        "throttled": figures.throttled,
        "error_rate": rounded(pace.errors),
        "throttled_rate": rounded(pace.throttled),
        "p50": percentile(0.5),
        "p95": percentile(0.95),
        "p99": percentile(0.99),
    })
}

fn seconds(latency: &Snapshot, q: f64) -> Option<f64> {
    latency.percentile(q).map(|time| (time.as_secs_f64() * 1e6).round() / 1e6)
}

fn rounded(rate: f64) -> f64 {
    (rate * 1000.0).round() / 1000.0
}
