//! The way to one server: TCP or a Unix socket, TLS over it where it is asked for.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use socket2::TcpKeepalive;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::pool::Address;

/// TLS towards the servers of one backend.
#[derive(Clone)]
pub struct Tls {
    connector: TlsConnector,
    /// The name that every server's certificate must have; without it, the host that is connected to.
    name: Option<ServerName<'static>>,
}

impl Tls {
    /// `authorities` in place of those that the machine trusts; `identity` is shown to servers that ask.
    pub fn new(
        authorities: Option<RootCertStore>,
        identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
        name: Option<ServerName<'static>>,
        http2: bool,
    ) -> Result<Self, rustls::Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(authorities.map_or_else(machine_authorities, Arc::new));
        let mut config = match identity {
            Some((chain, key)) => builder.with_client_auth_cert(chain, key)?,
            None => builder.with_no_client_auth(),
        };
        if http2 {
            config.alpn_protocols = vec![b"h2".to_vec()];
        }
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), name })
    }
}

/// What the machine trusts: its own store, or what `SSL_CERT_FILE` names.
fn machine_authorities() -> Arc<RootCertStore> {
    static AUTHORITIES: LazyLock<Arc<RootCertStore>> = LazyLock::new(|| {
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!(%error, "a certificate store of this machine could not be read");
        }
        roots.add_parsable_certificates(found.certs);
        Arc::new(roots)
    });
    AUTHORITIES.clone()
}

/// Opens a connection to a server.
pub async fn open(address: &Address, tls: Option<&Tls>) -> io::Result<Stream> {
    let plain = match address {
        Address::Tcp { host, port } => {
            let tcp = TcpStream::connect((host.as_str(), *port)).await?;
            tcp.set_nodelay(true)?;
            // A server that vanishes in the middle of an answer is noticed by TCP.
            let options = socket2::SockRef::from(&tcp);
            options.set_tcp_keepalive(
                &TcpKeepalive::new()
                    .with_time(Duration::from_secs(60))
                    .with_interval(Duration::from_secs(15))
                    .with_retries(4),
            )?;
            options.set_tcp_user_timeout(Some(Duration::from_secs(120)))?;
            Plain::Tcp(tcp)
        }
        Address::Unix(path) => Plain::Unix(UnixStream::connect(path).await?),
    };
    let Some(tls) = tls else {
        return Ok(match plain {
            Plain::Tcp(tcp) => Stream::Tcp(tcp),
            Plain::Unix(unix) => Stream::Unix(unix),
        });
    };
    let name = match (&tls.name, address) {
        (Some(name), _) => name.clone(),
        (None, Address::Tcp { host, .. }) => ServerName::try_from(host.clone()).map_err(io::Error::other)?,
        (None, Address::Unix(_)) => return Err(io::Error::other("a socket's server needs `tls.server_name`")),
    };
    Ok(Stream::Tls(Box::new(tls.connector.connect(name, plain).await?)))
}

/// A connection to a server.
pub enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<Plain>>),
}

/// What TLS runs over.
pub enum Plain {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Passes reading and writing on to what is within.
macro_rules! pass_on {
    ($type:ident: $($variant:ident)*) => {
        impl AsyncRead for $type {
            fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    $($type::$variant(inner) => Pin::new(inner).poll_read(cx, buf),)*
                }
            }
        }

        impl AsyncWrite for $type {
            fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
                match self.get_mut() {
                    $($type::$variant(inner) => Pin::new(inner).poll_write(cx, buf),)*
                }
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bufs: &[io::IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                match self.get_mut() {
                    $($type::$variant(inner) => Pin::new(inner).poll_write_vectored(cx, bufs),)*
                }
            }

            fn is_write_vectored(&self) -> bool {
                true
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    $($type::$variant(inner) => Pin::new(inner).poll_flush(cx),)*
                }
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    $($type::$variant(inner) => Pin::new(inner).poll_shutdown(cx),)*
                }
            }
        }
    };
}

pass_on!(Stream: Tcp Unix Tls);
pass_on!(Plain: Tcp Unix);
