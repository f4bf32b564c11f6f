//! TLS on the listeners: a certificate for the name that a client asks for, and clients' own where they are asked for.
//!
//! All of it can be swapped while connections live. New certificates alone leave the sessions that clients may resume;
//! other authorities or rules end them, so that nobody resumes what would be refused now.

mod certificates;
mod client;

pub use client::client_certificate;

use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::server::{Acceptor as Handshake, NoServerSessionStorage};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::acme::Challenges;
use crate::api::tls::{Material, Rules, provider};
use certificates::Certificates;

/// What clients may speak behind TLS, the better first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// With which an authority of ACME proves that a name is ours (RFC 8737).
const CHALLENGE: &[u8] = b"acme-tls/1";

/// Tickets for a client to resume its session with. Most clients need one, and each costs a write and its bytes.
const TICKETS: usize = 1;

/// Makes TLS of the connections that a listener accepts. One serves them all, and a reload swaps what is in it.
pub struct Acceptor {
    certificates: Arc<Certificates>,
    config: ArcSwap<ServerConfig>,
    /// For the authorities of ACME: they show no certificate, and get nothing but the challenge's.
    challenge_config: Arc<ServerConfig>,
    /// What `config` was made of.
    rules: Mutex<Rules>,
}

impl Acceptor {
    /// `challenges` are those of ACME that are being answered.
    pub fn new(material: Material, challenges: Arc<Challenges>) -> Result<Self, rustls::Error> {
        let certificates = Arc::<Certificates>::default();
        certificates.write(material.certificates);
        let challenge_config = {
            let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
            let mut config = builder.with_no_client_auth().with_cert_resolver(challenges);
            config.alpn_protocols = vec![CHALLENGE.to_vec()];
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
            Arc::new(config)
        };
        let config = ArcSwap::from_pointee(config(&material.rules, certificates.clone())?);
        Ok(Self { certificates, config, challenge_config, rules: Mutex::new(material.rules) })
    }

    /// Serves new connections with other certificates and rules; says whether anything is different. Connections and
    /// handshakes that have begun go on with what they began with.
    pub fn swap(&self, material: Material) -> Result<bool, rustls::Error> {
        let mut rules = self.rules.lock();
        let other_rules = *rules != material.rules;
        if other_rules {
            self.config.store(Arc::new(config(&material.rules, self.certificates.clone())?));
            *rules = material.rules;
        }
        Ok(self.certificates.write(material.certificates) || other_rules)
    }

    /// Serves these as well from now on, in place of those of the call before: what ACME has issued. Certificates of
    /// the file come first.
    pub fn serve_issued(&self, issued: Vec<Arc<CertifiedKey>>) {
        self.certificates.issue(issued);
    }

    /// Shakes hands, for as long as the caller's patience lasts. `None` was an authority that has seen its challenge
    /// answered, and has nothing else to say.
    pub async fn accept<S>(&self, socket: S) -> io::Result<Option<TlsStream<S>>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let begun = LazyConfigAcceptor::new(Handshake::default(), socket).await?;
        let is_challenge = begun.client_hello().alpn().is_some_and(|offered| offered.eq([CHALLENGE]));
        if is_challenge {
            begun.into_stream(self.challenge_config.clone()).await?;
            return Ok(None);
        }
        begun.into_stream(self.config.load_full()).await.map(Some)
    }
}

fn config(rules: &Rules, certificates: Arc<Certificates>) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(rules.versions())?
        .with_client_cert_verifier(rules.verifier.clone())
        .with_cert_resolver(certificates);
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    // Sessions are kept by the clients, in tickets that only we can read: here they would take memory.
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = TICKETS;
    Ok(config)
}

#[cfg(test)]
mod tests;
