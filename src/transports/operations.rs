//! What operators ask the admin listener: is it alive, is it ready, what do the metrics say.

use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, StatusCode};

use crate::engine::Engine;
use crate::model::answer::{self, Answer};

/// Answers one request of the admin listener.
pub fn answer<B>(engine: &Engine, request: &Request<B>) -> Answer {
    let known = match request.uri().path() {
        "/healthz" => text(StatusCode::OK, "ok\n"),
        // Load balancers look here: a gateway that drains takes no new clients.
        "/readyz" if engine.is_leaving() => text(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
        "/readyz" => text(StatusCode::OK, "ready\n"),
        "/metrics" => metrics(engine),
        "/" => text(StatusCode::OK, "/healthz\n/readyz\n/metrics\n"),
        _ => return text(StatusCode::NOT_FOUND, "try /healthz, /readyz or /metrics\n"),
    };
    match *request.method() {
        Method::GET | Method::HEAD => known,
        _ => text(StatusCode::METHOD_NOT_ALLOWED, "only GET here\n"),
    }
}

fn metrics(engine: &Engine) -> Answer {
    let mut answer = answer::plain(StatusCode::OK, engine.metrics.render());
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}

fn text(status: StatusCode, body: &'static str) -> Answer {
    let mut answer = answer::plain(status, body);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}
