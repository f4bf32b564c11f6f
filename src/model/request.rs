//! An HTTP request as the engine and its steps see it: everything but a body that still flows.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;

use super::client::StageKey;
use super::forwarded::Stamp;

pub struct HttpRequest {
    pub stage: StageKey,
    /// As it came: the target in origin form, and every header.
    pub head: Parts,
    /// What its headers do not say yet of the hop to us, because nobody but the backend wants to know.
    pub stamp: Option<Arc<Stamp>>,
    /// How much of the path is the API's base path.
    pub base_path: usize,
    /// How much of the path is base path and stage segment.
    pub stage_path: usize,
    /// The stage's name, where the host stands for it and the path does not show it.
    pub hidden_stage: Option<Arc<str>>,
    /// What the route's `{name}`s stand for, as it was on the wire.
    pub path_parameters: Vec<(Arc<str>, String)>,
    /// The whole body, once a step had to read it; empty while it flows.
    pub body: Bytes,
    /// The host the client used, with its port unless it is the scheme's own.
    pub domain_name: Arc<str>,
    pub source_ip: IpAddr,
    /// `http` or `https`, and the port the client reached.
    pub scheme: &'static str,
    pub port: u16,
    /// What the client showed, where TLS asks for it.
    pub client_certificate: Option<Arc<ClientCertificate>>,
}

/// A client's certificate, in AWS's words for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    pub pem: String,
    pub subject_dn: String,
    pub issuer_dn: String,
    pub serial_number: String,
    /// As AWS writes both: `May 28 12:30:02 2019 GMT`.
    pub not_before: String,
    pub not_after: String,
}

impl HttpRequest {
    /// The whole path, as it was on the wire.
    pub fn path(&self) -> &str {
        self.head.uri.path()
    }

    /// The path as events show it, still encoded: with the stage's segment, without the base path.
    pub fn event_path(&self) -> Cow<'_, str> {
        let path = &self.path()[self.base_path..];
        match &self.hidden_stage {
            Some(stage) => Cow::Owned(format!("/{stage}{path}")),
            None => Cow::Borrowed(or_root(path)),
        }
    }

    /// The path that routes match, still encoded: without base path and stage segment.
    pub fn route_path(&self) -> &str {
        or_root(&self.path()[self.stage_path..])
    }

    /// The query as it was on the wire; `None` also for an empty one.
    pub fn query(&self) -> Option<&str> {
        self.head.uri.query().filter(|query| !query.is_empty())
    }

    /// The first label of the domain name.
    pub fn domain_prefix(&self) -> &str {
        self.domain_name.split('.').next().unwrap_or_default()
    }

    /// What `{name}` of the route stands for, as it was on the wire.
    pub fn path_parameter(&self, name: &str) -> Option<&str> {
        self.path_parameters.iter().find(|(own, _)| **own == *name).map(|(_, value)| value.as_str())
    }
}

fn or_root(path: &str) -> &str {
    if path.is_empty() { "/" } else { path }
}
