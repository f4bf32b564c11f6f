//! The one way to a backend on the hot path: hyper's pooled client over our own connector.
//!
//! Connections are kept alive and shared by all calls to the same scheme, host and port. A call that
//! died on a stale pooled connection before a byte of it was sent is repeated by the client itself;
//! nothing else ever is, because only the backend knows what may be done twice.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, Uri, response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::model::limits;

#[derive(Clone)]
pub struct Backends {
    client: Client<Connector, Full<Bytes>>,
}

/// One scheme, host and port that integrations call, and how many calls it may have at a time.
pub struct Backend {
    calls: Semaphore,
}

pub struct Answer {
    pub head: response::Parts,
    pub body: Bytes,
}

/// What becomes of the answer's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Nobody reads it: a short one is read off so that its connection can be used again.
    Nothing,
    /// The whole of it, which must not be longer than this.
    Whole(usize),
    /// Its beginning, of at most this length.
    Beginning(usize),
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no connection to the backend: {0}")]
    Unreachable(#[source] legacy::Error),
    #[error("the backend closed the connection before it answered: {0}")]
    Lost(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the backend's answer is longer than {0} bytes")]
    TooLong(usize),
    #[error("the backend did not answer within {0:?}")]
    Timeout(Duration),
}

impl Default for Backend {
    fn default() -> Self {
        Self { calls: Semaphore::new(limits::BACKEND_CALLS) }
    }
}

impl Backends {
    pub fn new() -> io::Result<Self> {
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(limits::BACKEND_IDLE)
            .pool_max_idle_per_host(limits::BACKEND_IDLE_CONNECTIONS)
            .build(Connector { tls: tls()? });
        Ok(Self { client })
    }

    /// Sends one request and reads the whole answer, all within `timeout`.
    pub async fn call(
        &self,
        backend: &Backend,
        request: Request<Full<Bytes>>,
        keep: Keep,
        timeout: Duration,
    ) -> Result<Answer, Error> {
        let exchange = async {
            let _turn = backend.calls.acquire().await.expect("the semaphore is never closed");
            let answer = self.client.request(request).await.map_err(|error| {
                if error.is_connect() { Error::Unreachable(error) } else { Error::Lost(error.into()) }
            })?;
            let (head, body) = answer.into_parts();
            Ok(Answer { body: read(body, keep).await?, head })
        };
        tokio::time::timeout(timeout, exchange).await.unwrap_or(Err(Error::Timeout(timeout)))
    }
}

async fn read(mut body: Incoming, keep: Keep) -> Result<Bytes, Error> {
    let most = match keep {
        Keep::Nothing => limits::REFUSAL_BODY,
        Keep::Whole(most) | Keep::Beginning(most) => most,
    };
    let mut whole = Bytes::new();
    let mut pieces = BytesMut::new();
    let mut length = 0;
    while !body.is_end_stream() {
        let Some(frame) = body.frame().await else { break };
        let Ok(mut piece) = frame.map_err(|error| Error::Lost(error.into()))?.into_data() else { continue };
        length += piece.len();
        let is_too_long = length > most;
        if is_too_long && matches!(keep, Keep::Whole(_)) {
            return Err(Error::TooLong(most));
        }
        if is_too_long {
            piece.truncate(piece.len() - (length - most));
        }
        if length == piece.len() {
            // Most answers are one piece, which needs no copy.
            whole = piece;
        } else if keep != Keep::Nothing {
            pieces.extend_from_slice(&std::mem::take(&mut whole));
            pieces.extend_from_slice(&piece);
        }
        if is_too_long {
            // Dropping the body closes its connection, so the rest never arrives.
            break;
        }
    }
    Ok(if pieces.is_empty() { whole } else { pieces.freeze() })
}

/// Opens connections: TCP for `http`, TLS over it for `https`.
#[derive(Clone)]
struct Connector {
    tls: TlsConnector,
}

/// TLS as the machine trusts it: its own store, or what `SSL_CERT_FILE` names.
fn tls() -> io::Result<TlsConnector> {
    let mut roots = rustls::RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "a certificate store of this machine could not be read");
    }
    roots.add_parsable_certificates(found.certs);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Stream>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move {
            let opening = tokio::time::timeout(limits::BACKEND_CONNECT, connector.open(&uri));
            let stream = opening.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
            Ok(TokioIo::new(stream))
        })
    }
}

impl Connector {
    async fn open(&self, uri: &Uri) -> io::Result<Stream> {
        let host = uri.host().unwrap_or_default();
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let secure = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let tcp = TcpStream::connect((host, port)).await?;
        tcp.set_nodelay(true)?;
        if !secure {
            return Ok(Stream::Plain(tcp));
        }
        let name = rustls::pki_types::ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        Ok(Stream::Tls(Box::new(self.tls.connect(name, tcp).await?)))
    }
}

/// A connection to a backend.
enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

macro_rules! either {
    ($stream:expr, $inner:ident => $call:expr) => {
        match $stream.get_mut() {
            Stream::Plain($inner) => {
                let $inner = Pin::new($inner);
                $call
            }
            Stream::Tls($inner) => {
                let $inner = Pin::new($inner.as_mut());
                $call
            }
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        either!(self, inner => inner.poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        either!(self, inner => inner.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self, inner => inner.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, inner => inner.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, inner => inner.poll_shutdown(cx))
    }
}
