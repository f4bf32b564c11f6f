//! The `$context` variables of access logs, and what each is for a call that is over.

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::Duration;

use super::context_names::Protocol;
use crate::model::call::ConnectionEvent;
use crate::model::clock::Timestamp;
use crate::model::headers;
use crate::model::id::Id;
use crate::model::identity::What as Granted;
use crate::model::record::{Leg, Record, Requested, What};
use crate::model::refusal::Cause;
use crate::model::request::ClientCertificate;

#[derive(Debug, Clone, PartialEq)]
pub enum Field {
    AccountId,
    ApiId,
    AuthorizerError,
    AuthorizerLatency,
    AuthorizerStatus,
    /// `authenticate.…` is about who it is, `authorize.…` about whether it may.
    Authentication(Facet),
    Authorization(Facet),
    /// A claim, a context key, or the principal, by its whole name.
    Authorizer(String),
    BasePath,
    Certificate(Certified),
    ConnectedAt,
    ConnectionId,
    DataProcessed,
    DisconnectReason,
    DisconnectStatusCode,
    DomainName,
    DomainPrefix,
    ErrorMessage,
    ErrorMessageString,
    ErrorResponseType,
    EventType,
    HttpMethod,
    /// `identity.…`, by its whole name.
    Identity(String),
    IntegrationError,
    IntegrationLatency,
    IntegrationStatus,
    MessageDirection,
    MessageId,
    Path,
    Protocol,
    RequestId,
    RequestTime,
    RequestTimeEpoch,
    ResponseLatency,
    ResponseLength,
    RouteKey,
    SourceIp,
    Stage,
    Status,
    UserAgent,
    /// AWS's alone: there is nothing here that it could be.
    Nothing,
}

/// A value, in the form that takes least to write.
pub enum Shown<'a> {
    Text(Cow<'a, str>),
    Quoted(Cow<'a, str>),
    /// What needs no escape.
    Known(&'a [u8]),
    Id(Id),
    Number(u64),
    Time(Timestamp),
    Address(IpAddr),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Facet {
    Error,
    Latency,
    Status,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Certified {
    Pem,
    Subject,
    Issuer,
    Serial,
    NotBefore,
    NotAfter,
}

/// Those of every API, those of WebSocket APIs and those of HTTP APIs.
const EVERYWHERE: &[(&str, Field)] = &[
    ("accountId", Field::AccountId),
    ("apiId", Field::ApiId),
    ("authenticate.error", Field::Authentication(Facet::Error)),
    ("authenticate.latency", Field::Authentication(Facet::Latency)),
    ("authenticate.status", Field::Authentication(Facet::Status)),
    ("authorize.error", Field::Authorization(Facet::Error)),
    ("authorize.latency", Field::Authorization(Facet::Latency)),
    ("authorize.status", Field::Authorization(Facet::Status)),
    ("authorizer.error", Field::AuthorizerError),
    ("authorizer.integrationLatency", Field::AuthorizerLatency),
    ("authorizer.integrationStatus", Field::AuthorizerStatus),
    ("authorizer.latency", Field::AuthorizerLatency),
    ("authorizer.requestId", Field::Nothing),
    ("authorizer.status", Field::AuthorizerStatus),
    ("awsEndpointRequestId", Field::Nothing),
    ("awsEndpointRequestId2", Field::Nothing),
    ("customDomain.basePathMatched", Field::BasePath),
    ("dataProcessed", Field::DataProcessed),
    ("domainName", Field::DomainName),
    ("domainPrefix", Field::DomainPrefix),
    ("error.message", Field::ErrorMessage),
    ("error.messageString", Field::ErrorMessageString),
    ("error.responseType", Field::ErrorResponseType),
    ("error.validationErrorString", Field::Nothing),
    ("extendedRequestId", Field::RequestId),
    ("httpMethod", Field::HttpMethod),
    ("identity.cognitoAuthenticationProvider", Field::Nothing),
    ("identity.cognitoAuthenticationType", Field::Nothing),
    ("identity.cognitoIdentityId", Field::Nothing),
    ("identity.cognitoIdentityPoolId", Field::Nothing),
    ("identity.principalOrgId", Field::Nothing),
    ("identity.sourceIp", Field::SourceIp),
    ("identity.userAgent", Field::UserAgent),
    ("integration.error", Field::IntegrationError),
    ("integration.integrationStatus", Field::IntegrationStatus),
    ("integration.latency", Field::IntegrationLatency),
    ("integration.requestId", Field::Nothing),
    ("integration.status", Field::IntegrationStatus),
    ("integrationErrorMessage", Field::IntegrationError),
    ("integrationLatency", Field::IntegrationLatency),
    ("integrationStatus", Field::IntegrationStatus),
    ("path", Field::Path),
    ("protocol", Field::Protocol),
    ("requestId", Field::RequestId),
    ("requestTime", Field::RequestTime),
    ("requestTimeEpoch", Field::RequestTimeEpoch),
    ("responseLatency", Field::ResponseLatency),
    ("responseLength", Field::ResponseLength),
    ("routeKey", Field::RouteKey),
    ("stage", Field::Stage),
    ("status", Field::Status),
    ("waf.error", Field::Nothing),
    ("waf.latency", Field::Nothing),
    ("waf.status", Field::Nothing),
];

const ON_CONNECTIONS: &[(&str, Field)] = &[
    ("connectedAt", Field::ConnectedAt),
    ("connectionId", Field::ConnectionId),
    ("disconnectReason", Field::DisconnectReason),
    ("disconnectStatusCode", Field::DisconnectStatusCode),
    ("eventType", Field::EventType),
    ("messageDirection", Field::MessageDirection),
    ("messageId", Field::MessageId),
];

const ON_REQUESTS: &[(&str, Field)] = &[
    ("identity.clientCert.clientCertPem", Field::Certificate(Certified::Pem)),
    ("identity.clientCert.issuerDN", Field::Certificate(Certified::Issuer)),
    ("identity.clientCert.serialNumber", Field::Certificate(Certified::Serial)),
    ("identity.clientCert.subjectDN", Field::Certificate(Certified::Subject)),
    ("identity.clientCert.validity.notAfter", Field::Certificate(Certified::NotAfter)),
    ("identity.clientCert.validity.notBefore", Field::Certificate(Certified::NotBefore)),
];

/// Of the caller, where its identity says.
const OF_IDENTITY: [&str; 6] = [
    "identity.accountId",
    "identity.apiKey",
    "identity.apiKeyId",
    "identity.caller",
    "identity.user",
    "identity.userArn",
];

/// The field that a name (what follows `context.`) stands for in logs of these APIs.
pub fn field(name: &str, protocol: Protocol) -> Option<Field> {
    let own = own(protocol);
    if let Some((_, field)) = EVERYWHERE.iter().chain(own).find(|(known, _)| *known == name) {
        return Some(field.clone());
    }
    if OF_IDENTITY.contains(&name) {
        return Some(Field::Identity(name.to_owned()));
    }
    let key = name.strip_prefix("authorizer.")?;
    (!key.is_empty()).then(|| Field::Authorizer(name.to_owned()))
}

/// Every name, for whoever wrote another.
pub fn names(protocol: Protocol) -> Vec<&'static str> {
    let listed = EVERYWHERE.iter().chain(own(protocol)).map(|(name, _)| *name);
    let mut names: Vec<_> = listed.chain(OF_IDENTITY).chain(["authorizer.*"]).collect();
    names.sort_unstable();
    names
}

fn own(protocol: Protocol) -> &'static [(&'static str, Field)] {
    match protocol {
        Protocol::WebSocket => ON_CONNECTIONS,
        Protocol::Http => ON_REQUESTS,
    }
}

impl Field {
    pub fn of<'a>(&'a self, record: &Record<'a>) -> Option<Shown<'a>> {
        let text = |text: &'a str| Some(Shown::Text(Cow::Borrowed(text)));
        let owned = |text: String| Some(Shown::Text(Cow::Owned(text)));
        let trail = record.trail;
        match self {
            Field::AccountId => match record.what {
                What::Request(requested) => text(requested.account_id),
                _ => None,
            },
            Field::ApiId => text(&record.stage.api),
            Field::AuthorizerError => authorizer_error(record),
            Field::AuthorizerLatency => latency(trail.authorizer.as_ref()),
            Field::AuthorizerStatus => trail.authorizer.as_ref()?.status.map(number),
            Field::Authentication(facet) => authentication(*facet, record),
            Field::Authorization(facet) => authorization(*facet, record),
            Field::Authorizer(name) => of_authorizer(name, record),
            Field::BasePath => match record.what {
                What::Request(Requested { request, .. }) if request.base_path > 0 => {
                    text(request.path()[..request.base_path].trim_start_matches('/'))
                }
                _ => None,
            },
            Field::Certificate(what) => {
                let What::Request(requested) = record.what else { return None };
                text(what.of(requested.request.client_certificate.as_deref()?))
            }
            Field::ConnectedAt => record.client().map(|client| Shown::Number(client.connected_at.0)),
            Field::ConnectionId => match record.what {
                What::Push(push) => text(push.connection_id),
                _ => record.client().map(|client| Shown::Known(client.id_header.as_bytes())),
            },
            Field::DataProcessed => Some(Shown::Number(record.received + record.sent)),
            Field::DisconnectReason => match record.what {
                What::Connection(happening) => match happening.event {
                    ConnectionEvent::Disconnect(close) => text(&close.reason),
                    _ => None,
                },
                _ => None,
            },
            Field::DisconnectStatusCode => match record.what {
                What::Connection(happening) => match happening.event {
                    ConnectionEvent::Disconnect(close) => Some(number(close.code)),
                    _ => None,
                },
                _ => None,
            },
            Field::DomainName => text(domain_name(record)),
            Field::DomainPrefix => text(domain_name(record).split('.').next().unwrap_or_default()),
            Field::ErrorMessage => error_message(record).map(Shown::Text),
            Field::ErrorMessageString => error_message(record).map(Shown::Quoted),
            Field::ErrorResponseType => text(record.refusal?.kind.name()),
            Field::EventType => match record.what {
                What::Connection(happening) => text(happening.event.name()),
                What::Push(_) => text("PUSH"),
                What::Request(_) => None,
            },
            Field::HttpMethod => match record.what {
                What::Request(Requested { request, .. }) => text(request.head.method.as_str()),
                What::Push(push) => text(push.method.as_str()),
                What::Connection(happening) => match happening.event {
                    ConnectionEvent::Connect(_) => text("GET"),
                    _ => None,
                },
            },
            Field::Identity(name) => record.identity?.context(name).map(Shown::Text),
            Field::IntegrationError => {
                let is_of_integration = trail.integration.as_ref().is_some_and(|leg| leg.status.is_none());
                text(&record.refusal.filter(|_| is_of_integration)?.detail)
            }
            Field::IntegrationLatency => latency(trail.integration.as_ref()),
            Field::IntegrationStatus => trail.integration.as_ref()?.status.map(number),
            Field::MessageDirection => match record.what {
                What::Connection(_) => text("IN"),
                What::Push(_) => text("OUT"),
                What::Request(_) => None,
            },
            Field::MessageId => match record.what {
                What::Connection(happening) => match happening.event {
                    ConnectionEvent::Message(message) => Some(Shown::Id(message.id)),
                    _ => None,
                },
                _ => None,
            },
            Field::Path => match record.what {
                What::Request(Requested { request, .. }) => Some(Shown::Text(request.event_path())),
                What::Connection(happening) => match happening.event {
                    ConnectionEvent::Connect(handshake) => text(&handshake.path),
                    _ => None,
                },
                What::Push(_) => None,
            },
            Field::Protocol => match record.what {
                // AWS says this whatever the client spoke.
                What::Request(_) => text("HTTP/1.1"),
                _ => None,
            },
            Field::RequestId => Some(Shown::Id(record.request_id)),
            Field::RequestTime => Some(Shown::Time(record.at)),
            Field::RequestTimeEpoch => Some(Shown::Number(record.at.0)),
            Field::ResponseLatency => Some(milliseconds(record.took)),
            Field::ResponseLength => Some(Shown::Number(record.sent)),
            Field::RouteKey => text(record.route_key),
            Field::SourceIp => Some(Shown::Address(record.source_ip())),
            Field::Stage => text(&record.stage.stage),
            Field::Status => (record.status > 0).then(|| number(record.status)),
            Field::UserAgent => match record.what {
                What::Connection(happening) => text(happening.client.user_agent.as_deref()?),
                What::Request(requested) => Some(Shown::Text(headers::text(requested.user_agent?))),
                What::Push(push) => owned(headers::text(push.user_agent?).into_owned()),
            },
            Field::Nothing => None,
        }
    }
}

fn number(number: u16) -> Shown<'static> {
    Shown::Number(number.into())
}

fn milliseconds(time: Duration) -> Shown<'static> {
    Shown::Number(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

fn latency(leg: Option<&Leg>) -> Option<Shown<'static>> {
    leg.map(|leg| milliseconds(leg.took))
}

fn domain_name<'a>(record: &Record<'a>) -> &'a str {
    match record.what {
        What::Connection(happening) => &happening.client.domain_name,
        What::Request(requested) => &requested.request.domain_name,
        What::Push(push) => push.domain_name,
    }
}

/// What the client was told; of a backend that said nothing, why.
fn error_message<'a>(record: &Record<'a>) -> Option<Cow<'a, str>> {
    let refusal = record.refusal?;
    let message = refusal.message();
    Some(Cow::Borrowed(if message.is_empty() { &refusal.detail } else { message }))
}

fn authorizer_error<'a>(record: &Record<'a>) -> Option<Shown<'a>> {
    let refusal = record.refusal?;
    let is_of_authorizer =
        matches!(refusal.cause, Some(Cause::Unauthorized | Cause::Denied | Cause::AuthorizerFailure));
    is_of_authorizer.then_some(Shown::Text(Cow::Borrowed(refusal.detail.as_str())))
}

/// Who it is was found out, unless nobody asked, or that is what went wrong.
fn authentication<'a>(facet: Facet, record: &Record<'a>) -> Option<Shown<'a>> {
    let leg = record.trail.authorizer.as_ref()?;
    let failed = record.refusal.filter(|refusal| matches!(refusal.cause, Some(Cause::Unauthorized)));
    of_facet(facet, leg, failed.map(|refusal| (refusal.kind.status(), refusal.detail.as_str())))
}

/// Whether it may was decided, unless who it is was never known.
fn authorization<'a>(facet: Facet, record: &Record<'a>) -> Option<Shown<'a>> {
    let leg = record.trail.authorizer.as_ref()?;
    match record.refusal {
        Some(refusal) if matches!(refusal.cause, Some(Cause::Unauthorized)) => None,
        Some(refusal) if matches!(refusal.cause, Some(Cause::Denied | Cause::AuthorizerFailure)) => {
            of_facet(facet, leg, Some((refusal.kind.status(), refusal.detail.as_str())))
        }
        _ => of_facet(facet, leg, None),
    }
}

fn of_facet<'a>(facet: Facet, leg: &Leg, failed: Option<(u16, &'a str)>) -> Option<Shown<'a>> {
    match facet {
        Facet::Error => failed.map(|(_, detail)| Shown::Text(Cow::Borrowed(detail))),
        Facet::Latency => Some(milliseconds(leg.took)),
        Facet::Status => Some(number(failed.map_or(200, |(status, _)| status))),
    }
}

/// `authorizer.claims` alone is null to AWS.
fn of_authorizer<'a>(name: &str, record: &Record<'a>) -> Option<Shown<'a>> {
    let identity = record.identity?;
    if name == "authorizer.claims" && matches!(identity.granted.as_ref()?.what, Granted::Jwt { .. }) {
        return Some(Shown::Text(Cow::Borrowed("null")));
    }
    identity.context(name).map(Shown::Text)
}

impl Certified {
    fn of(self, certificate: &ClientCertificate) -> &str {
        match self {
            Certified::Pem => &certificate.pem,
            Certified::Subject => &certificate.subject_dn,
            Certified::Issuer => &certificate.issuer_dn,
            Certified::Serial => &certificate.serial_number,
            Certified::NotBefore => &certificate.not_before,
            Certified::NotAfter => &certificate.not_after,
        }
    }
}
