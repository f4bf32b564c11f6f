//! What operators have: the dashboard and what it asks for, health, and the metrics.
//!
//! `access` says who may ask, `pages` are the dashboard's own files, and each of the others answers for one part of
//! `/api/`: `health`, `status`, `routes`, `connections`, `watching` (the live tail) and `playground`. Nothing here is on a
//! client's way.

mod access;
mod connections;
mod health;
mod pages;
mod playground;
mod routes;
mod status;
mod watching;

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::request::Parts;
use http::{HeaderValue, Method, Request, StatusCode};
use serde_json::{Value, json};
use tokio::io::DuplexStream;

use crate::engine::Engine;
use crate::model::answer::{self, Answer};
use crate::model::body::Body;
use crate::telemetry::history::Range;
use access::Access;
use playground::Sessions;

/// The largest body that an operator may send: a message to a connection, in JSON.
const LARGEST_BODY: usize = 1024 * 1024;

/// Scripts, styles and answers of this listener alone; nothing inline, no frame around it.
const CONTENT_SECURITY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                                font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; \
                                frame-ancestors 'none'";

/// What stands behind the admin listener.
pub struct Dashboard {
    engine: Arc<Engine>,
    /// Opens a connection to the gateway's own client side, as if from that address.
    dial: Dial,
    sessions: Arc<Sessions>,
}

pub type Dial = Arc<dyn Fn(IpAddr) -> DuplexStream + Send + Sync>;

/// Somebody at the admin listener.
struct Operator {
    address: IpAddr,
    access: Access,
}

impl Dashboard {
    pub fn new(engine: Arc<Engine>, dial: Dial) -> Self {
        Self { engine, dial, sessions: Arc::default() }
    }

    /// Answers one request.
    pub async fn answer(&self, request: Request<Body>, address: IpAddr) -> Answer {
        let (head, body) = request.into_parts();
        let mut answer = self.route(&head, body, address).await;
        let headers = answer.headers_mut();
        headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_SECURITY));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
        headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
        answer
    }

    async fn route(&self, head: &Parts, body: Body, address: IpAddr) -> Answer {
        let path = head.uri.path();
        let is_reading = matches!(head.method, Method::GET | Method::HEAD);
        match path {
            "/healthz" | "/readyz" if !is_reading => return no_method("GET"),
            "/healthz" => return shown(StatusCode::OK, &json!({ "status": "ok" })),
            "/readyz" => return health::readyz(&self.engine),
            _ => {}
        }
        let gateway = self.engine.gateway();
        let operator = match access::check(&gateway.settings, head, address) {
            Ok(access) => Operator { address, access },
            Err(refused) => return refused.answer(),
        };
        match path {
            "/metrics" if is_reading => metrics(&self.engine).await,
            "/metrics" => no_method("GET"),
            _ if path.starts_with("/api/") => self.ask(head, body, operator).await,
            _ if !is_reading => no_method("GET"),
            _ => pages::answer(path, &head.headers).unwrap_or_else(|| {
                error(StatusCode::NOT_FOUND, "nothing is here; try /, /metrics, /healthz or /readyz")
            }),
        }
    }

    /// The part that the page asks for.
    async fn ask(&self, head: &Parts, body: Body, operator: Operator) -> Answer {
        let engine = &self.engine;
        let query = head.uri.query().unwrap_or_default();
        let path: Vec<&str> = head.uri.path().strip_prefix("/api/").unwrap_or_default().split('/').collect();
        if matches!(head.method, Method::GET | Method::HEAD) {
            return match *path {
                ["status"] => shown(StatusCode::OK, &status::status(engine)),
                ["overview"] => overview(engine, query),
                ["routes"] => shown(StatusCode::OK, &routes::routes(engine)),
                ["connections"] => connections::list(engine, query).await,
                ["connections", id] => connections::describe(engine, id),
                ["tail"] => watching::tail(engine, query),
                ["connections", _, "send" | "close"] | ["playground", ..] => no_method("POST"),
                _ => nothing(),
            };
        }
        if head.method != Method::POST {
            return no_method("GET or POST");
        }
        let is_known = matches!(
            *path,
            ["connections", _, "send" | "close"] | ["playground"] | ["playground", _, "send" | "close"]
        );
        if !is_known {
            return if matches!(*path, ["status" | "overview" | "routes" | "connections" | "tail"]) {
                no_method("GET")
            } else {
                nothing()
            };
        }
        if let Err(refused) = access::check_action(&engine.gateway().settings, head) {
            return refused.answer();
        }
        let asked = match read(body).await {
            Ok(asked) => asked,
            Err(answer) => return *answer,
        };
        match *path {
            ["connections", id, "send"] => connections::send(engine, id, &asked, &operator),
            ["connections", id, "close"] => connections::close(engine, id, &asked, &operator),
            ["playground"] => playground::open(self, &asked, &operator).await,
            ["playground", session, what] => self.sessions.tell(session, what == "send", &asked).await,
            _ => nothing(),
        }
    }
}

fn overview(engine: &Engine, query: &str) -> Answer {
    let range = parameter(query, "range").unwrap_or_else(|| "5m".to_owned());
    match Range::parse(&range) {
        Ok(range) => shown(StatusCode::OK, &engine.history.overview(range)),
        Err(wrong) => error(StatusCode::BAD_REQUEST, &wrong),
    }
}

async fn metrics(engine: &Engine) -> Answer {
    status::note_for_metrics(engine).await;
    let mut answer = answer::plain(StatusCode::OK, engine.metrics.render());
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}

/// A parameter of the query, decoded.
fn parameter(query: &str, name: &str) -> Option<String> {
    form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

/// The JSON of an action.
async fn read(body: Body) -> Result<Value, Box<Answer>> {
    let bad = |text: &str| Box::new(error(StatusCode::BAD_REQUEST, text));
    let read = tokio::time::timeout(crate::model::limits::BODY, body.read(LARGEST_BODY)).await;
    let read = read.map_err(|_| bad("the body did not arrive in time"))?;
    let body = read.map_err(|unread| bad(&unread.to_string()))?;
    serde_json::from_slice(&body).map_err(|wrong| bad(&format!("the body is no JSON: {wrong}")))
}

fn shown(status: StatusCode, value: &Value) -> Answer {
    answer::json(status, value.to_string())
}

/// Lines of JSON for as long as somebody reads them.
fn lines(body: Body) -> Answer {
    let mut answer = answer::plain(StatusCode::OK, Bytes::new());
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    // What nginx and its like would hold back until there is much of it.
    answer.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    *answer.body_mut() = body;
    answer
}

fn error(status: StatusCode, message: &str) -> Answer {
    shown(status, &json!({ "message": message }))
}

fn nothing() -> Answer {
    error(StatusCode::NOT_FOUND, "nothing is here")
}

fn no_method(allowed: &'static str) -> Answer {
    error(StatusCode::METHOD_NOT_ALLOWED, &format!("only {allowed} here"))
}
