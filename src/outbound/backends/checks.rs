//! Active health checks: every server of a pool is asked now and then, whether it has calls or not.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use http::header::{HOST, USER_AGENT};
use http::{HeaderValue, Request, Uri};
use rand::RngExt as _;

use super::Backend;
use super::connection::Connection;
use super::kept::Kept;
use super::outgoing::Outgoing;
use super::patience::Patience;
use super::pool::{self, Server};
use crate::model::body::Body;
use crate::model::headers;

/// What is asked, and how often.
#[derive(Clone, Debug)]
pub struct Check {
    /// In origin form.
    pub path: Uri,
    /// The `Host` it is asked with.
    pub host: String,
    pub interval: Duration,
    pub timeout: Duration,
}

/// Asks the servers of a backend until it is dropped; at once, then at every interval.
pub async fn check_forever(backend: Arc<Backend>) {
    let Some(check) = &backend.check else {
        // What checks of before the last reload have found holds no longer.
        backend.pool.servers().iter().for_each(|server| server.forget_checks());
        return;
    };
    join_all(backend.pool.servers().iter().map(|server| check_server(&backend, check, server))).await;
}

async fn check_server(backend: &Backend, check: &Check, server: &Arc<Server<Kept>>) {
    loop {
        let passed = tokio::time::timeout(check.timeout, ask(backend, check, server)).await.unwrap_or(false);
        backend.note(server, backend.pool.note_check(server, passed));
        // Spread out, so that many gateways do not ask as one.
        let spread = rand::rng().random_range(0.9..1.1);
        tokio::time::sleep(check.interval.mul_f64(spread)).await;
    }
}

/// On a connection of its own: that one can be opened is part of what is asked.
async fn ask(backend: &Backend, check: &Check, server: &Server<Kept>) -> bool {
    let Ok(stream) = backend.open(&server.address).await else { return false };
    let mut request = Request::new(Body::default());
    *request.uri_mut() = check.path.clone();
    request.headers_mut().insert(HOST, headers::encoded(&check.host));
    request.headers_mut().insert(USER_AGENT, HeaderValue::from_static("livegate-health-check"));
    let outgoing = Outgoing::of(request);
    let status = if backend.way.http2 {
        let Ok(mut shared) = Kept::default().open_shared(stream).await else { return false };
        shared.send(outgoing.into_http_2(backend.way.tls.is_some())).await.map(|answer| answer.status()).ok()
    } else {
        Connection::new(stream)
            .send(outgoing, Patience::new(check.timeout, None))
            .await
            .map(|answer| answer.status)
            .ok()
    };
    status.is_some_and(pool::passes)
}
