//! Addresses, sockets and TLS, for loopback only.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, DigitallySignedStruct, ServerConfig, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Below the 28,232 ephemeral ports that Linux has by default for one source address.
const CONNECTIONS_PER_SOURCE: usize = 20_000;

/// The ports from here on are below those that the kernel gives out by itself.
const FIRST_SOURCE_PORT: u16 = 10_000;

/// A `ws://`, `wss://`, `http://`, `https://` or `tcp://` URL of this machine.
#[derive(Clone, Debug)]
pub struct Target {
    pub scheme: String,
    /// What the `Host` header says: host and port as written.
    pub authority: String,
    pub address: SocketAddr,
    pub path: String,
}

impl Target {
    pub fn is_tls(&self) -> bool {
        matches!(self.scheme.as_str(), "wss" | "https")
    }

    /// Whether what is asked for is an answer and not an upgrade.
    pub fn is_http(&self) -> bool {
        matches!(self.scheme.as_str(), "http" | "https")
    }

    pub fn is_tcp(&self) -> bool {
        self.scheme == "tcp"
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme, self.authority, self.path)
    }
}

impl FromStr for Target {
    type Err = anyhow::Error;

    fn from_str(url: &str) -> anyhow::Result<Self> {
        let (scheme, rest) = url.split_once("://").context("a URL begins with a scheme, like ws://")?;
        let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
        let (host, port) = authority.rsplit_once(':').context("the port is missing")?;
        let host = if host == "localhost" { "127.0.0.1" } else { host };
        let ip: IpAddr = host.parse().with_context(|| format!("`{host}` is no IP address"))?;
        ensure!(ip.is_loopback(), "`{host}` is another machine: this tool loads loopback addresses only");
        let port = port.parse().with_context(|| format!("`{port}` is no port"))?;
        Ok(Target {
            scheme: scheme.to_string(),
            authority: authority.to_string(),
            address: SocketAddr::new(ip, port),
            path: path.to_string(),
        })
    }
}

/// The source addresses of client connections, so that no pair of addresses runs out of ephemeral ports.
#[derive(Clone, Copy, Debug)]
pub struct Sources {
    first: u32,
    count: u32,
}

impl Sources {
    /// As many as `connections` need, beginning with number `first`; number 0 is what the kernel chooses.
    pub fn new(first: u32, connections: usize) -> Self {
        Sources { first, count: u32::try_from(connections.div_ceil(CONNECTIONS_PER_SOURCE)).unwrap_or(u32::MAX).max(1) }
    }

    pub fn count(self) -> u32 {
        self.count
    }

    /// Where connection number `i` comes from. Its port is named as well: the kernel's own search for a free one takes
    /// a millisecond and more when most of an address's ports are taken.
    pub fn pick(self, i: usize) -> Option<SocketAddrV4> {
        let number = self.first + (i / CONNECTIONS_PER_SOURCE) as u32 % self.count;
        let ip = Ipv4Addr::new(127, 0, (number / 250) as u8 + 1, (number % 250) as u8 + 1);
        let port = FIRST_SOURCE_PORT + (i % CONNECTIONS_PER_SOURCE) as u16;
        (number > 0).then(|| SocketAddrV4::new(ip, port))
    }
}

/// Connects without Nagle; closing resets, so that no port is left in TIME_WAIT.
pub async fn connect(address: SocketAddr, source: Option<SocketAddrV4>) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if let Some(source) = source {
        // Its last connection from there may not be forgotten yet.
        socket.set_reuse_address(true)?;
        if socket.bind(&source.into()).is_err() {
            // Somebody listens there, on all addresses: any other will do.
            socket.bind(&SocketAddrV4::new(*source.ip(), 0).into())?;
        }
    }
    socket.set_linger(Some(Duration::ZERO))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    TcpSocket::from_std_stream(socket.into()).connect(address).await
}

/// Listens with a deep backlog, and says where on standard output; port 0 is any free one.
pub fn listen(port: u16) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
    socket.listen(65_535)?;
    let listener = TcpListener::from_std(socket.into())?;
    println!("listening on http://{}", listener.local_addr()?);
    Ok(listener)
}

/// Raises the limit of open files to what the machine grants.
pub fn raise_open_files() {
    // Without it fewer connections open, and the run says so by itself.
    if let Err(e) = rlimit::increase_nofile_limit(u64::MAX) {
        eprintln!("the limit of open files stays as it was: {e}");
    }
}

/// A TLS client that takes any certificate and never resumes: full handshakes only.
pub fn tls_client() -> anyhow::Result<Arc<ClientConfig>> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate))
        .with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

pub fn tls_server(certificate: &Path, key: &Path) -> anyhow::Result<Arc<ServerConfig>> {
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| format!("no certificate in `{}`", certificate.display()))?;
    let key = PrivateKeyDer::from_pem_file(key).with_context(|| format!("no private key in `{}`", key.display()))?;
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    Ok(Arc::new(config))
}

/// What is measured is the server's handshake: whether to trust it is no question on loopback.
#[derive(Debug)]
struct AnyCertificate;

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, expected: Option<(&str, &str)>) {
        let target = url.parse::<Target>().ok();
        let seen = target.as_ref().map(|t| (t.authority.as_str(), t.path.as_str()));
        assert_eq!(seen, expected, "{url}");
    }

    #[test]
    fn only_loopback_is_a_target() {
        check("ws://127.0.0.1:8080/prod", Some(("127.0.0.1:8080", "/prod")));
        check("ws://localhost:8080", Some(("localhost:8080", "/")));
        check("http://127.0.0.1:1/@connections/{id}", Some(("127.0.0.1:1", "/@connections/{id}")));
        check("ws://192.0.2.1:8080/", None);
        check("ws://example.com:80/", None);
        check("127.0.0.1:80", None);
        check("ws://127.0.0.1/", None);
    }

    #[test]
    fn every_twenty_thousand_connections_get_an_address() {
        let few = Sources::new(0, 18_000);
        assert_eq!((few.count(), few.pick(17_999)), (1, None));
        let many = Sources::new(3, 40_001);
        assert_eq!((many.count(), many.pick(0)), (3, Some(SocketAddrV4::new(Ipv4Addr::new(127, 0, 1, 4), 10_000))));
        assert_eq!(many.pick(40_000), Some(SocketAddrV4::new(Ipv4Addr::new(127, 0, 1, 6), 10_000)));
    }
}
