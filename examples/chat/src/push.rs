//! Takes frames to a browser by posting them to its callback URL: one task for each member, so that its messages
//! keep their order, a slow one delays nobody, and the gateway has its answer long before the pushes are done.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, StatusCode, Uri};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{sync::mpsc, time};

use crate::rooms::{Caller, Rooms};

/// Frames a member may be behind; what comes on top is dropped for this member alone, and logged.
const OUTBOX_FRAMES: usize = 256;
const PUSH_TIMEOUT: Duration = Duration::from_secs(5);
/// A push is tried once, and once more after each of these.
const RETRY_AFTER: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(500)];

pub struct Pusher {
    client: Arc<Client<HttpConnector, Full<Bytes>>>,
}

/// Dropping it ends the member's task, after what it already holds.
pub struct Outbox(mpsc::Sender<Bytes>);

impl Outbox {
    pub fn send(&self, body: Bytes) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.0.try_send(body) {
            eprintln!("chat: a member is {OUTBOX_FRAMES} frames behind; dropped one");
        }
    }
}

impl Pusher {
    pub fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Self { client: Arc::new(Client::builder(TokioExecutor::new()).build(connector)) }
    }

    /// `rooms` is weak because the rooms own the outboxes: when they go, the tasks end too.
    pub fn open(&self, rooms: Weak<Rooms>, caller: &Caller) -> Outbox {
        let (sender, mut bodies) = mpsc::channel(OUTBOX_FRAMES);
        let (client, id, url) = (self.client.clone(), caller.id.clone(), caller.callback_url.clone());
        tokio::spawn(async move {
            while let Some(body) = bodies.recv().await {
                match push(&client, &url, body).await {
                    Ok(StatusCode::GONE) => {
                        // The socket closed and its $disconnect is still on the way, or was lost.
                        if let Some(rooms) = rooms.upgrade() {
                            rooms.leave(&id);
                        }
                        return;
                    }
                    Ok(status) if status.is_success() => {}
                    Ok(status) => eprintln!("chat: the gateway answered {status} to a push to {id}; dropped it"),
                    Err(error) => eprintln!("chat: a push to {id} did not reach the gateway: {error}; dropped it"),
                }
            }
        });
        Outbox(sender)
    }
}

/// The gateway's last word. Only what may pass by itself is tried again: no answer, 429 and 5xx.
async fn push(client: &Client<HttpConnector, Full<Bytes>>, url: &Uri, body: Bytes) -> Result<StatusCode, String> {
    let mut waits = RETRY_AFTER.into_iter();
    loop {
        let outcome = post(client, url, body.clone()).await;
        let again = match &outcome {
            Ok(status) => *status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error(),
            Err(_) => true,
        };
        match waits.next() {
            Some(wait) if again => time::sleep(wait).await,
            _ => return outcome,
        }
    }
}

async fn post(client: &Client<HttpConnector, Full<Bytes>>, url: &Uri, body: Bytes) -> Result<StatusCode, String> {
    let request = Request::post(url.clone()).body(Full::new(body)).map_err(|error| error.to_string())?;
    match time::timeout(PUSH_TIMEOUT, client.request(request)).await {
        Ok(Ok(answer)) => Ok(answer.status()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {PUSH_TIMEOUT:?}")),
    }
}
