//! `floor`: servers that do as little as the protocols allow, to say what a gateway adds.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;

use clap::{Args, ValueEnum};
use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::spawn_local;
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::gateway_floor::Hub;
use crate::net;

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub enum Kind {
    /// tokio-tungstenite echoes; over TLS with --cert and --key
    WsEcho,
    /// This package's own codec echoes
    RawEcho,
    /// Message to --backend and back, `POST /@connections/{id}`, `POST /broadcast`, with this package's own codec and
    /// client: what the protocols themselves cost
    Gateway,
    /// Message to --backend and back with tokio-tungstenite and hyper's pooled client
    StdGateway,
    /// HTTP requests to --backend and back with hyper's server and its pooled client
    StdProxy,
    /// Accepts TCP connections
    Accept,
}

#[derive(Args, Debug)]
pub struct FloorArgs {
    #[arg(value_enum)]
    pub kind: Kind,
    /// 0 is any free port
    #[arg(long, default_value_t = 9100)]
    pub port: u16,
    #[arg(long, default_value = "127.0.0.1:9000")]
    pub backend: SocketAddr,
    #[arg(long, requires = "key")]
    pub cert: Option<PathBuf>,
    #[arg(long, requires = "cert")]
    pub key: Option<PathBuf>,
}

type StdClient = Client<HttpConnector, Full<Bytes>>;
type ProxyClient = Client<HttpConnector, Incoming>;

pub async fn run(args: FloorArgs) -> anyhow::Result<()> {
    let tls = match (&args.cert, &args.key) {
        (Some(certificate), Some(key)) => Some(TlsAcceptor::from(net::tls_server(certificate, key)?)),
        _ => None,
    };
    let listener = net::listen(args.port)?;
    let hub = Rc::new(Hub::new(args.backend, args.kind == Kind::RawEcho));
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let proxy_client: ProxyClient = Client::builder(TokioExecutor::new()).build(connector.clone());
    let client: StdClient = Client::builder(TokioExecutor::new()).build(connector);
    let mut held = Vec::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        stream.set_nodelay(true)?;
        // A floor drops what fails: the generator on the other side counts and shows it.
        match (args.kind, &tls) {
            (Kind::Accept, _) => held.push(stream),
            (Kind::WsEcho, None) => drop(spawn_local(echo(stream))),
            (Kind::WsEcho, Some(tls)) => drop(spawn_local(echo_over_tls(stream, tls.clone()))),
            (Kind::StdGateway, _) => drop(spawn_local(relay(stream, client.clone(), args.backend))),
            (Kind::StdProxy, _) => drop(spawn_local(proxy(stream, proxy_client.clone(), args.backend))),
            (Kind::RawEcho | Kind::Gateway, _) => drop(spawn_local(hub.clone().serve(stream))),
        }
    }
}

async fn echo_over_tls(stream: TcpStream, tls: TlsAcceptor) -> Result<(), Error> {
    echo(tls.accept(stream).await?).await
}

async fn echo<S: AsyncRead + AsyncWrite + Unpin>(stream: S) -> Result<(), Error> {
    let mut socket = tokio_tungstenite::accept_async(stream).await?;
    while let Some(message) = socket.next().await.transpose()? {
        if message.is_text() || message.is_binary() {
            socket.send(message).await?;
        }
    }
    Ok(())
}

async fn relay(stream: TcpStream, client: StdClient, backend: SocketAddr) -> Result<(), Error> {
    let mut socket = tokio_tungstenite::accept_async(stream).await?;
    let uri: Uri = format!("http://{backend}/message").parse().map_err(io::Error::other)?;
    while let Some(message) = socket.next().await.transpose()? {
        if !message.is_text() && !message.is_binary() {
            continue;
        }
        let request = Request::post(uri.clone()).body(Full::new(message.into_data())).map_err(io::Error::other)?;
        let answer = client.request(request).await.map_err(io::Error::other)?;
        let body = answer.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
        socket.send(Message::text(String::from_utf8_lossy(&body).into_owned())).await?;
    }
    Ok(())
}

/// Passes every request on as it came, and every answer.
async fn proxy(stream: TcpStream, client: ProxyClient, backend: SocketAddr) -> hyper::Result<()> {
    let service = service_fn(move |mut request: Request<Incoming>| {
        let client = client.clone();
        async move {
            let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
            *request.uri_mut() = format!("http://{backend}{target}").parse().map_err(io::Error::other)?;
            client.request(request).await.map_err(io::Error::other)
        }
    });
    http1::Builder::new().serve_connection(TokioIo::new(stream), service).await
}
