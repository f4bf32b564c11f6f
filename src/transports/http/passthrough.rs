//! Connections that were upgraded to a protocol which the backend speaks itself: bytes are carried both
//! ways, and counted, limited and drained as other connections are.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{HeaderValue, StatusCode};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::reply;
use crate::api::http_stage::{HttpLimits, HttpRoute, HttpStage};
use crate::connections::{Handover, Wire};
use crate::engine::{Carried as Upgraded, Engine};
use crate::model::answer::Answer;
use crate::model::clock::{Tick, Timestamp};
use crate::model::request::HttpRequest;
use crate::outbound::backends::Switched;

/// Bytes carried at a time, each way.
const PIECE: usize = 8 * 1024;

/// What the client wants to speak.
pub struct Protocol {
    name: HeaderValue,
    is_over_http_2: bool,
}

impl Protocol {
    pub fn of_upgrade(name: HeaderValue) -> Self {
        Self { name, is_over_http_2: false }
    }

    /// An extended CONNECT (RFC 8441). Its stream needs no `Upgrade` and no key; the backend's side does.
    pub fn over_http_2(name: &str) -> Self {
        Self { name: HeaderValue::from_str(name).unwrap_or(HeaderValue::from_static("unknown")), is_over_http_2: true }
    }
}

/// Asks the backend for the protocol; if it agrees, a task carries what follows.
pub async fn carry(
    engine: &Arc<Engine>,
    stage: &Arc<HttpStage>,
    route: &HttpRoute,
    mut request: Box<HttpRequest>,
    protocol: Protocol,
    handover: Handover,
) -> Answer {
    if protocol.is_over_http_2 {
        let key = STANDARD.encode(rand::random::<[u8; 16]>());
        let key = HeaderValue::from_str(&key).expect("base64 is a header value");
        request.head.headers.insert(SEC_WEBSOCKET_KEY, key);
        request.head.method = http::Method::GET;
    }
    let wanted = reply::Wanted::of(&request.head, &stage.limits);
    let (mut answered, stream) = engine.upgrade(stage, route, request, protocol.name).await;
    let Some(Upgraded { switched, until }) = stream else { return reply::answer(answered, &wanted, &stage.limits) };
    if protocol.is_over_http_2 {
        answered.status = StatusCode::OK;
        for name in [CONNECTION, UPGRADE, SEC_WEBSOCKET_ACCEPT] {
            answered.headers.remove(name);
        }
    }
    let stage_limits = stage.limits.clone();
    let (engine, stage) = (engine.clone(), stage.clone());
    let tasks = engine.tasks.clone();
    handover.go(&tasks, move |connection| async move {
        let _open = Open::of(&stage);
        if let Some((wire, already_read)) = connection {
            let carried = Carried { wire, already_read, switched };
            tokio::select! {
                () = carried.run(&stage.limits) => {}
                // It does not outlive the token that opened it.
                () = after(until.map(|until| Duration::from_millis(until.0.saturating_sub(Timestamp::now().0)))) => {}
                () = engine.carried.cancelled() => {}
                () = stage.retired().cancelled() => {}
            }
        }
    });
    reply::answer(answered, &wanted, &stage_limits)
}

/// A connection that is counted, until this is dropped.
struct Open(Arc<HttpStage>);

impl Open {
    fn of(stage: &Arc<HttpStage>) -> Self {
        stage.metrics.open.up(1);
        Self(stage.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.metrics.open.down(1);
    }
}

struct Carried {
    wire: Wire,
    already_read: Bytes,
    switched: Switched,
}

impl Carried {
    /// Until both sides are silent, or the stage's patience is over.
    async fn run(self, limits: &HttpLimits) {
        let (from_client, to_client) = tokio::io::split(self.wire);
        let Switched { stream, already_said, lease: _held } = self.switched;
        let (from_backend, to_backend) = tokio::io::split(stream);
        let last = AtomicU64::new(Tick::now().0);
        // The end of one side is passed on to the other, which may still have something to say; an error ends both.
        let both = async {
            let _ = tokio::try_join!(
                flow(from_client, to_backend, self.already_read, &last),
                flow(from_backend, to_client, already_said, &last),
            );
        };
        tokio::select! {
            () = both => {}
            () = idle(&last, limits.idle_timeout) => {}
            () = after(limits.max_duration) => {}
        }
    }
}

async fn flow(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    first: Bytes,
    last: &AtomicU64,
) -> io::Result<()> {
    to.write_all(&first).await?;
    to.flush().await?;
    let mut piece = vec![0; PIECE];
    loop {
        let length = from.read(&mut piece).await?;
        last.store(Tick::now().0, Relaxed);
        if length == 0 {
            return to.shutdown().await;
        }
        to.write_all(&piece[..length]).await?;
        to.flush().await?;
    }
}

async fn idle(last: &AtomicU64, patience: Option<Duration>) {
    let Some(patience) = patience else { return std::future::pending().await };
    loop {
        let quiet = Tick::now().since(Tick(last.load(Relaxed)));
        if quiet >= patience {
            return;
        }
        tokio::time::sleep(patience - quiet).await;
    }
}

async fn after(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}
