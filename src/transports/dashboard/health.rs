//! Is it alive, is it ready, and if not, why.

use http::StatusCode;
use serde_json::{Value, json};

use super::shown;
use crate::engine::Engine;
use crate::model::answer::Answer;

/// Load balancers look here: a gateway that drains takes no new clients.
pub fn readyz(engine: &Engine) -> Answer {
    let (reasons, warnings) = (reasons(engine), warnings(engine));
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    shown(status, &json!({ "status": word(&reasons), "reasons": reasons, "warnings": warnings }))
}

pub fn word(reasons: &[Value]) -> &'static str {
    if reasons.is_empty() { "ready" } else { "not_ready" }
}

/// Why no new client should come.
pub fn reasons(engine: &Engine) -> Vec<Value> {
    let mut reasons = Vec::new();
    if engine.is_leaving() {
        let text = "the gateway is stopping: it answers what it has read, and takes nothing new";
        reasons.push(json!({ "code": "draining", "message": text }));
    }
    reasons
}

/// What somebody should look at, though clients are served.
pub fn warnings(engine: &Engine) -> Vec<Value> {
    let mut warnings = Vec::new();
    if engine.readings.last().problems.is_some() {
        let text = "the last reload met problems, so what was served before still is";
        warnings.push(json!({ "code": "reload_failed", "message": text }));
    }
    for backend in &engine.gateway().backends {
        let servers = backend.servers();
        if servers.iter().all(|(_, condition)| !condition.is_in_service()) {
            // Whoever asks need not have shown a token, so names are told elsewhere.
            let text = "no server of a backend is in service";
            warnings.push(json!({ "code": "backend_down", "message": text }));
            break;
        }
    }
    warnings
}
