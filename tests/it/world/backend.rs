//! A backend that remembers every request and answers as the test tells it: 200 with the body it got, unless told
//! otherwise for a path.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{mpsc, oneshot, watch};

use super::within;

pub struct Backend {
    pub address: SocketAddr,
    asleep: Mutex<Option<TcpSocket>>,
    memory: Arc<Memory>,
}

struct Memory {
    seen: Mutex<Vec<Seen>>,
    count: watch::Sender<usize>,
    answers: Mutex<HashMap<String, Answer>>,
}

type Answer = Arc<dyn Fn(Seen) -> Pin<Box<dyn Future<Output = Reply> + Send>> + Send + Sync>;

/// One request as the backend got it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Seen {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("ASCII"))
    }

    pub fn connection(&self) -> &str {
        self.header("x-livegate-connection-id")
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("UTF-8")
    }
}

#[derive(Clone, Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub body: Bytes,
}

impl Reply {
    pub fn status(status: u16) -> Self {
        Self { status: StatusCode::from_u16(status).expect("a status"), body: Bytes::new() }
    }

    pub fn text(body: impl Into<Bytes>) -> Self {
        Self { status: StatusCode::OK, body: body.into() }
    }
}

/// Requests that wait for the test to answer them, in the order they came.
pub struct Hold(mpsc::UnboundedReceiver<Held>);

pub struct Held {
    pub request: Seen,
    reply: oneshot::Sender<Reply>,
}

impl Hold {
    pub async fn next(&mut self) -> Held {
        within("a held request", self.0.recv()).await.expect("the backend lives")
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Held {
    pub fn answer(self, reply: Reply) {
        // A gateway that no longer waits is for the test to find out.
        let _ = self.reply.send(reply);
    }

    /// Sends back what came.
    pub fn echo(self) {
        let body = self.request.body.clone();
        self.answer(Reply::text(body));
    }
}

impl Backend {
    pub fn start() -> Self {
        let backend = Self::asleep();
        backend.wake();
        backend
    }

    /// It has its address but refuses connections.
    pub fn asleep() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(([127, 0, 0, 1], 0).into()).expect("a free port");
        let address = socket.local_addr().expect("it is bound");
        let memory = Memory { seen: Mutex::default(), count: watch::Sender::new(0), answers: Mutex::default() };
        Self { address, asleep: Mutex::new(Some(socket)), memory: Arc::new(memory) }
    }

    pub fn wake(&self) {
        let socket = self.asleep.lock().unwrap().take().expect("it sleeps");
        tokio::spawn(serve(socket.listen(1024).expect("a listener"), self.memory.clone()));
    }

    /// Answers requests of a path in this way from now on.
    pub fn on<F>(&self, path: &str, answer: impl Fn(Seen) -> F + Send + Sync + 'static)
    where
        F: Future<Output = Reply> + Send + 'static,
    {
        let answer: Answer = Arc::new(move |seen| Box::pin(answer(seen)));
        self.memory.answers.lock().unwrap().insert(path.to_owned(), answer);
    }

    /// Keeps requests of a path waiting until the test answers each.
    pub fn hold(&self, path: &str) -> Hold {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.on(path, move |request| {
            let (reply, answered) = oneshot::channel();
            let _ = sender.send(Held { request, reply });
            async { answered.await.unwrap_or(Reply::status(500)) }
        });
        Hold(receiver)
    }

    /// What came to a path so far.
    pub fn seen(&self, path: &str) -> Vec<Seen> {
        self.memory.seen.lock().unwrap().iter().filter(|seen| seen.path == path).cloned().collect()
    }

    /// What came to a path, once it is as much as this.
    pub async fn has_seen(&self, path: &str, count: usize) -> Vec<Seen> {
        let mut changes = self.memory.count.subscribe();
        within(&format!("request {count} to {path}"), async {
            loop {
                changes.borrow_and_update();
                let seen = self.seen(path);
                if seen.len() >= count {
                    return seen;
                }
                changes.changed().await.expect("the backend lives");
            }
        })
        .await
    }
}

async fn serve(listener: TcpListener, memory: Arc<Memory>) {
    while let Ok((socket, _)) = listener.accept().await {
        let _ = socket.set_nodelay(true);
        let memory = memory.clone();
        let service = service_fn(move |request| answer(memory.clone(), request));
        tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service));
    }
}

async fn answer(memory: Arc<Memory>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let seen = Seen { path: head.uri.path().to_owned(), headers: head.headers, body };
    memory.seen.lock().unwrap().push(seen.clone());
    memory.count.send_modify(|count| *count += 1);
    let answer = memory.answers.lock().unwrap().get(&seen.path).cloned();
    let reply = match answer {
        Some(answer) => answer(seen).await,
        None => Reply::text(seen.body),
    };
    let mut response = Response::new(Full::new(reply.body));
    *response.status_mut() = reply.status;
    Ok(response)
}
