//! One listening socket, and what stands between it and HTTP: the PROXY protocol and TLS.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_util::task::AbortOnDropHandle;

use super::exchange::{self, Accepted};
use super::front_door::FrontDoor;
use super::proxy_protocol;
use super::tls::{Acceptor, client_certificate};
use crate::connections::{Speaking, Wire};
use crate::model::address::{Address, ListenAt};
use crate::model::forwarded;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// Accepts until it is dropped; what it accepted lives on.
pub struct Listener {
    at: ListenAt,
    tls: Arc<ArcSwapOption<Acceptor>>,
    _accepting: AbortOnDropHandle<()>,
    _file: Option<SocketFile>,
}

/// A socket that is bound, and not yet accepted from: a reload can still be refused.
pub enum Bound {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener, Option<SocketFile>),
}

/// The file of a Unix socket, which goes when nobody listens there any more.
pub struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// `shared` lets several processes listen on one port (`SO_REUSEPORT`).
pub fn bind(address: &Address, shared: bool) -> io::Result<Bound> {
    match address {
        Address::Tcp(address) => bind_tcp(*address, shared).map(Bound::Tcp),
        Address::Unix(path) => bind_unix(path),
    }
}

fn bind_tcp(address: SocketAddr, shared: bool) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A socket file that nobody listens on any more is replaced; any other file is not ours to remove.
fn bind_unix(path: &Path) -> io::Result<Bound> {
    use std::os::unix::net;
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    if is_socket && net::UnixStream::connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    {
        std::fs::remove_file(path)?;
    }
    let socket = net::UnixListener::bind(path)?;
    Ok(Bound::Unix(socket, Some(SocketFile(path.to_owned()))))
}

impl Bound {
    fn prepare(&self) -> io::Result<()> {
        match self {
            Bound::Tcp(socket) => {
                socket.set_nonblocking(true)?;
                prepare(socket)
            }
            Bound::Unix(socket, _) => socket.set_nonblocking(true),
        }
    }
}

/// Accepted sockets take these over (as Linux does it), which spares six system calls for each. A client
/// that vanished without a word is noticed by TCP within two minutes, whatever its timeouts.
fn prepare(socket: &std::net::TcpListener) -> io::Result<()> {
    let keepalive =
        TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15)).with_retries(4);
    let options = socket2::SockRef::from(socket);
    options.set_tcp_nodelay(true)?;
    options.set_tcp_keepalive(&keepalive)?;
    options.set_tcp_user_timeout(Some(Duration::from_secs(120)))
}

impl Listener {
    pub fn open(at: &ListenAt, bound: Bound, tls: Option<Arc<Acceptor>>, door: FrontDoor) -> io::Result<Self> {
        bound.prepare()?;
        let door = Arc::new(door);
        let tls = Arc::new(ArcSwapOption::new(tls));
        let (address, accepting, file) = match bound {
            Bound::Tcp(socket) => {
                let at = socket.local_addr()?;
                let (address, spoken) = (Address::Tcp(at), tls.clone());
                // A transparent proxy's socket, as a service manager may pass one on, gets what was meant for others.
                let is_anywhere = at.ip().to_canonical().is_unspecified()
                    || socket2::SockRef::from(&socket).ip_transparent_v4().unwrap_or(true);
                let reached = (!is_anywhere).then_some(at);
                let listener = TcpListener::from_std(socket)?;
                (address, tokio::spawn(accept_tcp(listener, reached, spoken, door)), None)
            }
            Bound::Unix(socket, file) => {
                let listener = UnixListener::from_std(socket)?;
                (at.address.clone(), tokio::spawn(accept_unix(listener, door)), file)
            }
        };
        let at = ListenAt { address, tls: at.tls };
        Ok(Self { at, tls, _accepting: AbortOnDropHandle::new(accepting), _file: file })
    }

    /// Connections from now on begin with TLS, or do not.
    pub fn speak(&mut self, tls: Option<Arc<Acceptor>>) {
        self.at.tls = tls.is_some();
        self.tls.store(tls);
    }

    /// Where it listens, with the port that was taken.
    pub fn at(&self) -> &ListenAt {
        &self.at
    }
}

/// `reached` is where its connections are reached at, if that is one place; else each knows.
async fn accept_tcp(
    listener: TcpListener,
    reached: Option<SocketAddr>,
    tls: Arc<ArcSwapOption<Acceptor>>,
    door: Arc<FrontDoor>,
) {
    loop {
        match listener.accept().await {
            Ok((socket, remote)) => {
                let Ok(local) = reached.map_or_else(|| socket.local_addr(), Ok) else { continue };
                let (tls, door) = (tls.load_full(), door.clone());
                exchange::begin(&door.clone(), serve_tcp(socket, (remote, local), tls, door));
            }
            Err(error) => failed(&error, &door).await,
        }
    }
}

async fn accept_unix(listener: UnixListener, door: Arc<FrontDoor>) {
    loop {
        match listener.accept().await {
            Ok((socket, _)) => {
                exchange::begin(&door, serve_unix(socket, door.clone()));
            }
            Err(error) => failed(&error, &door).await,
        }
    }
}

async fn failed(error: &io::Error, door: &FrontDoor) {
    // One client's own misfortune is no reason to keep the others waiting.
    if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
        return;
    }
    door.accept_failed(error);
    // Out of open files, most likely: wait for some to be closed instead of spinning.
    tokio::time::sleep(Duration::from_millis(100)).await;
}

async fn serve_tcp(
    mut socket: TcpStream,
    (remote, local): (SocketAddr, SocketAddr),
    tls: Option<Arc<Acceptor>>,
    door: Arc<FrontDoor>,
) -> Option<Speaking> {
    let (remote, local) = addresses(&mut socket, remote, local, &door).await?;
    let remote = remote.ip().to_canonical();
    match tls {
        None => exchange::serve(plain(Wire::Tcp(socket), remote, local), door).await,
        // Boxed, so that the tasks of plain connections keep no room for it.
        Some(acceptor) => Box::pin(serve_tls(socket, remote, local, &acceptor, door)).await,
    }
}

async fn serve_tls(
    socket: TcpStream,
    remote: IpAddr,
    local: SocketAddr,
    acceptor: &Acceptor,
    door: Arc<FrontDoor>,
) -> Option<Speaking> {
    let handshake = Box::pin(tokio::time::timeout(door.handshake_timeout(), acceptor.accept(socket)));
    // A stranger who says nothing does not hold up a drain.
    let outcome = door.closing().run_until_cancelled(handshake).await?;
    let stream = match outcome {
        Ok(Ok(Some(stream))) => stream,
        Ok(Ok(None)) => return None,
        Ok(Err(error)) => {
            door.handshake_failed(remote, &error.to_string());
            return None;
        }
        Err(_) => {
            door.handshake_failed(remote, "it took too long");
            return None;
        }
    };
    let (_, connection) = stream.get_ref();
    let certificate = client_certificate(connection);
    let is_http_2 = connection.alpn_protocol() == Some(b"h2");
    let wire = Wire::Other(Box::new(stream));
    let accepted = Accepted { certificate, is_http_2, scheme: "https", ..plain(wire, remote, local) };
    exchange::serve(accepted, door).await
}

fn plain(wire: Wire, remote: IpAddr, local: SocketAddr) -> Accepted {
    Accepted { wire, remote, local, scheme: "http", certificate: None, is_http_2: false }
}

/// Both ends of the connection: where the PROXY protocol is spoken, as a trusted proxy tells them.
async fn addresses(
    socket: &mut TcpStream,
    remote: SocketAddr,
    local: SocketAddr,
    door: &FrontDoor,
) -> Option<(SocketAddr, SocketAddr)> {
    let gateway = door.engine().gateway();
    let settings = &gateway.settings;
    if !settings.proxy_protocol
        || !door.is_for_clients()
        || !forwarded::is_trusted(remote.ip().to_canonical(), &settings.trusted_proxies)
    {
        return Some((remote, local));
    }
    match proxy_protocol::read(socket, gateway.handshake_timeout()).await {
        Ok(Some(addresses)) => Some((addresses.source, addresses.destination)),
        Ok(None) => Some((remote, local)),
        Err(error) => {
            door.handshake_failed(remote.ip(), &error.to_string());
            None
        }
    }
}

async fn serve_unix(socket: UnixStream, door: Arc<FrontDoor>) -> Option<Speaking> {
    // Who connects here is on this machine.
    let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
    exchange::serve(plain(Wire::Unix(socket), here, SocketAddr::new(here, 80)), door).await
}
