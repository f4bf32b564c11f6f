//! What the events of an HTTP request show of it, whatever their format.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;
use serde::Serialize;

use super::Origin;
use super::pairs::Pairs;
use crate::model::headers;
use crate::model::request::{ClientCertificate, HttpRequest};

/// AWS says this whatever the client spoke.
pub const PROTOCOL: &str = "HTTP/1.1";

/// The headers as they came and those AWS adds, each spelled by `spell` or left out where it gives nothing.
pub fn headers<'a>(
    request: &'a HttpRequest,
    body: &[u8],
    origin: &'a Origin<'_>,
    spell: impl Fn(&'a str) -> Option<Cow<'a, str>>,
) -> Pairs<'a> {
    let came = request.head.headers.iter().filter(|(name, _)| !is_replaced(name));
    let came = came.map(|(name, value)| (name.as_str(), headers::text(value)));
    let added = [
        ("host", Cow::Borrowed(&*request.domain_name)),
        ("content-length", Cow::Owned(body.len().to_string())),
        ("x-amzn-trace-id", headers::text(origin.trace_id)),
        ("x-forwarded-for", Cow::Borrowed(origin.forwarded_for)),
        ("x-forwarded-port", Cow::Owned(request.port.to_string())),
        ("x-forwarded-proto", Cow::Borrowed(request.scheme)),
    ];
    Pairs::new(came.chain(added).filter_map(|(name, value)| Some((spell(name)?, value))).collect())
}

/// What the gateway says itself, what no client may say, and what was about the client's own connection: the
/// event's body is whole, so that a `Transfer-Encoding` would be untrue.
fn is_replaced(name: &HeaderName) -> bool {
    matches!(name.as_str(), "host" | "content-length" | "x-amzn-trace-id")
        || headers::is_forwarding(name)
        || headers::is_hop_by_hop(name)
        || headers::is_ours(name)
}

/// The query's parameters, decoded.
pub fn query(request: &HttpRequest) -> Option<Pairs<'_>> {
    Pairs::unless_empty(form_urlencoded::parse(request.query()?.as_bytes()).collect())
}

/// The path's parameters, decoded.
pub fn path_parameters(request: &HttpRequest) -> Option<Pairs<'_>> {
    let parameters = request.path_parameters.iter();
    Pairs::unless_empty(parameters.map(|(name, value)| (Cow::Borrowed(&**name), decoded(value))).collect())
}

pub fn decoded(text: &str) -> Cow<'_, str> {
    percent_decode_str(text).decode_utf8_lossy()
}

/// Empty when the client sends none.
pub fn user_agent(request: &HttpRequest) -> Cow<'_, str> {
    headers::last(&request.head.headers, USER_AGENT.as_str()).unwrap_or_default()
}

/// A body as text where it is that, else as base64.
pub struct Body<'a> {
    /// `None` for an empty one.
    pub text: Option<Cow<'a, str>>,
    pub is_base64: bool,
}

pub fn body<'a>(headers: &HeaderMap, body: &'a [u8]) -> Body<'a> {
    if body.is_empty() {
        return Body { text: None, is_base64: false };
    }
    match std::str::from_utf8(body) {
        Ok(text) if headers.get(CONTENT_TYPE).is_none_or(is_text) => {
            Body { text: Some(Cow::Borrowed(text)), is_base64: false }
        }
        // Called text but not UTF-8 (compressed, or in another charset): JSON could not hold it without loss.
        _ => Body { text: Some(Cow::Owned(STANDARD.encode(body))), is_base64: true },
    }
}

fn is_text(content_type: &HeaderValue) -> bool {
    let content_type = headers::text(content_type);
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    matches!(&*essence, "" | "application/json" | "application/xml" | "application/javascript")
        || essence.starts_with("text/")
        || essence.ends_with("+json")
        || essence.ends_with("+xml")
}

/// What the client showed where TLS asks for it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientCert<'a> {
    client_cert_pem: &'a str,
    #[serde(rename = "subjectDN")]
    subject_dn: &'a str,
    #[serde(rename = "issuerDN")]
    issuer_dn: &'a str,
    serial_number: &'a str,
    validity: Validity<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Validity<'a> {
    not_before: &'a str,
    not_after: &'a str,
}

pub fn client_cert(request: &HttpRequest) -> Option<ClientCert<'_>> {
    let ClientCertificate { pem, subject_dn, issuer_dn, serial_number, not_before, not_after } =
        request.client_certificate.as_deref()?;
    let validity = Validity { not_before, not_after };
    Some(ClientCert { client_cert_pem: pem, subject_dn, issuer_dn, serial_number, validity })
}

/// The event's bytes, in which `body` is by far the longest part if there is one.
pub fn json(event: &impl Serialize, body: &[u8]) -> Bytes {
    let mut json = Vec::with_capacity(2048 + body.len() / 2 * 3);
    serde_json::to_writer(&mut json, event).expect("maps with text keys are JSON");
    Bytes::from(json)
}
