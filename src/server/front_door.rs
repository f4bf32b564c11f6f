//! Where a request goes: to a stage's socket, to a connection, or nowhere (ROUTES: host, base path, stage).

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::header::HOST;
use http::{Request, StatusCode, Version};
use hyper::body::Incoming;
use tokio_util::sync::CancellationToken;

use crate::api::directory::Destination;
use crate::engine::Engine;
use crate::model::answer::{self, Answer};
use crate::model::limits;
use crate::transports::websocket::upgrade::{self, Peer};
use crate::transports::{callback, operations};

/// Whom a listener is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    Clients,
    Operators,
}

/// What stands behind a listener.
pub struct FrontDoor {
    engine: Arc<Engine>,
    audience: Audience,
}

impl FrontDoor {
    pub fn new(engine: Arc<Engine>, audience: Audience) -> Self {
        Self { engine, audience }
    }

    pub async fn answer(&self, request: Request<Incoming>, peer: Peer) -> Answer {
        match self.audience {
            Audience::Operators => operations::answer(&self.engine, &request),
            Audience::Clients => self.answer_client(request, peer).await,
        }
    }

    async fn answer_client(&self, request: Request<Incoming>, peer: Peer) -> Answer {
        let uri = request.uri();
        if uri.path_and_query().is_some_and(|target| target.as_str().len() > limits::URL) {
            return answer::error(StatusCode::URI_TOO_LONG, "BadRequestException", answer::message("URI Too Long"));
        }
        let mut hosts = request.headers().get_all(HOST).iter();
        let host = hosts.next().and_then(|host| host.to_str().ok());
        let is_one = hosts.next().is_none() && (host.is_some() || request.version() != Version::HTTP_11);
        if !is_one || !host.is_none_or(is_host) {
            let text = "A request needs exactly one Host header: a name or an address, and perhaps a port";
            return answer::error(StatusCode::BAD_REQUEST, "BadRequestException", answer::message(text));
        }
        let host = without_port(host.unwrap_or_default()).to_owned();
        let gateway = self.engine.gateway();
        let asks_upgrade = upgrade::is_asked_for(request.headers());
        match gateway.directory.find(&host, uri.path()) {
            Destination::Connection(place, id) if !asks_upgrade => {
                callback::answer(&self.engine, &gateway, &place.stage, &id, request).await
            }
            Destination::Stage(place) if asks_upgrade => upgrade::accept(&self.engine, place, request, peer).await,
            Destination::Stage(_) => upgrade::required(),
            Destination::StrayConnection => answer::forbidden(),
            _ if asks_upgrade => answer::forbidden(),
            _ => callback::no_method(uri.path(), request.method()),
        }
    }

    pub fn handshake_timeout(&self) -> Duration {
        self.engine.gateway().handshake_timeout()
    }

    /// Ends when kept-alive connections shall close.
    pub fn closing(&self) -> &CancellationToken {
        &self.engine.closing
    }

    pub fn accept_failed(&self, error: &io::Error) {
        self.engine.metrics.accept_errors.increment(1);
        tracing::error!(%error, "a connection could not be accepted; is the limit of open files too low?");
    }
}

/// A host name, an IPv4 address, or an IPv6 address in brackets, perhaps with a port. Nothing else gets
/// further: what is told to backends as the host must not be readable as anything but a host.
fn is_host(text: &str) -> bool {
    let (name, port) = match text.strip_prefix('[').and_then(|text| text.split_once(']')) {
        Some((address, port)) if address.parse::<std::net::Ipv6Addr>().is_ok() => ("address", port),
        Some(_) => return false,
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok();
    let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    !name.is_empty() && name.bytes().all(is_of_name) && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port))
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_with_perhaps_a_port() {
        for host in ["localhost", "chat.example.com:8080", "127.0.0.1:1", "[::1]", "[2001:db8::1]:443", "a_b"] {
            assert!(is_host(host), "{host}");
        }
        let others = [
            "",
            ":80",
            "a:",
            "a:99999",
            "a:+80",
            "[::1]/.example.com",
            "evil/.example.com",
            "u@a",
            "a b",
            "a#b",
            "a?b",
            "[zz]",
            "[::1",
            "::1",
            "a:80:90",
            "é",
        ];
        for host in others {
            assert!(!is_host(host), "{host}");
        }
    }
}
