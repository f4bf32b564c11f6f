//! What a call offers to expressions: its body, its context, its stage variables, its handshake or request.

use std::borrow::Cow;
use std::collections::BTreeMap;

use http::HeaderMap;
use percent_encoding::percent_decode_str;

use super::source::{Source, beginning};
use crate::model::call::{Call, ConnectionEvent, Event, Happening};
use crate::model::headers;
use crate::model::request::{ClientCertificate, HttpRequest};

pub type StageVariables = BTreeMap<String, String>;

/// One call and the variables of its stage.
pub struct Scope<'a> {
    pub call: &'a Call<'a>,
    pub stage_variables: &'a StageVariables,
}

impl Scope<'_> {
    fn request(&self) -> Option<&HttpRequest> {
        match self.call.event {
            Event::Request(request) => Some(request),
            Event::Connection(_) => None,
        }
    }

    /// What the client sent with its request; on a connection only the handshake has this.
    fn client_headers(&self) -> Option<&HeaderMap> {
        match self.call.event {
            Event::Request(request) => Some(&request.head.headers),
            Event::Connection(Happening { event: ConnectionEvent::Connect(handshake), .. }) => Some(&handshake.headers),
            Event::Connection(_) => None,
        }
    }

    fn client_query(&self) -> &str {
        let query = match self.call.event {
            Event::Request(request) => request.query(),
            Event::Connection(Happening { event: ConnectionEvent::Connect(handshake), .. }) => {
                handshake.query.as_deref()
            }
            Event::Connection(_) => None,
        };
        query.unwrap_or_default()
    }
}

impl Source for Scope<'_> {
    fn body(&self) -> &str {
        match self.call.event {
            Event::Request(request) => std::str::from_utf8(&request.body).unwrap_or_default(),
            Event::Connection(Happening { event: ConnectionEvent::Message(message), .. }) => message.text(),
            Event::Connection(_) => "",
        }
    }

    fn searched_body(&self) -> &str {
        match self.call.event {
            Event::Request(_) => beginning(self.body()),
            Event::Connection(_) => self.body(),
        }
    }

    fn context(&self, name: &str) -> Option<Cow<'_, str>> {
        let text = |text: String| Some(Cow::Owned(text));
        match name {
            "apiId" => Some(Cow::Borrowed(&self.call.stage().api)),
            "stage" => Some(Cow::Borrowed(&self.call.stage().stage)),
            "routeKey" => Some(Cow::Borrowed(self.call.route_key)),
            "requestId" | "extendedRequestId" => text(self.call.request_id.to_string()),
            "requestTime" => text(self.call.at.clf()),
            "requestTimeEpoch" => text(self.call.at.0.to_string()),
            _ => {
                let of_caller = self.call.identity.as_ref().and_then(|identity| identity.context(name));
                of_caller.or_else(|| match self.call.event {
                    Event::Connection(happening) => of_connection(happening, name),
                    Event::Request(request) => of_request(request, name),
                })
            }
        }
    }

    fn stage_variable(&self, name: &str) -> Option<&str> {
        self.stage_variables.get(name).map(String::as_str)
    }

    fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        match self.request() {
            Some(request) => headers::joined(&request.head.headers, name),
            None => headers::last(self.client_headers()?, name),
        }
    }

    fn headers(&self, name: &str) -> Vec<Cow<'_, str>> {
        self.client_headers().map_or(Vec::new(), |headers| headers.get_all(name).iter().map(headers::text).collect())
    }

    fn query(&self, name: &str) -> Option<Cow<'_, str>> {
        let mut all = self.queries(name);
        match self.request() {
            Some(_) if all.len() > 1 => Some(Cow::Owned(all.join(","))),
            _ => all.pop(),
        }
    }

    fn queries(&self, name: &str) -> Vec<Cow<'_, str>> {
        let pairs = form_urlencoded::parse(self.client_query().as_bytes());
        pairs.filter(|(key, _)| key == name).map(|(_, value)| value).collect()
    }

    fn path(&self) -> Option<&str> {
        self.request().map(HttpRequest::route_path)
    }

    fn path_parameter(&self, name: &str) -> Option<Cow<'_, str>> {
        let value = self.request()?.path_parameter(name)?;
        Some(percent_decode_str(value).decode_utf8_lossy())
    }

    fn spelled_path_parameter(&self, name: &str) -> Option<&str> {
        self.request()?.path_parameter(name)
    }
}

fn of_connection<'a>(happening: Happening<'a>, name: &str) -> Option<Cow<'a, str>> {
    let Happening { client, event } = happening;
    let text = |text: String| Some(Cow::Owned(text));
    match (name, event) {
        ("connectionId", _) => text(client.id.to_string()),
        ("connectedAt", _) => text(client.connected_at.0.to_string()),
        ("domainName", _) => Some(Cow::Borrowed(&client.domain_name)),
        ("eventType", _) => Some(Cow::Borrowed(event.name())),
        ("messageDirection", _) => Some(Cow::Borrowed("IN")),
        ("identity.sourceIp", _) => text(client.source_ip.to_string()),
        ("identity.userAgent", _) => client.user_agent.as_deref().map(Cow::Borrowed),
        ("messageId", ConnectionEvent::Message(message)) => text(message.id.to_string()),
        ("disconnectStatusCode", ConnectionEvent::Disconnect(close)) => text(close.code.to_string()),
        ("disconnectReason", ConnectionEvent::Disconnect(close)) => Some(Cow::Borrowed(&close.reason)),
        _ => None,
    }
}

fn of_request<'a>(request: &'a HttpRequest, name: &str) -> Option<Cow<'a, str>> {
    let certificate = request.client_certificate.as_deref();
    let of_certificate = |value: fn(&ClientCertificate) -> &str| certificate.map(value).map(Cow::Borrowed);
    match name {
        "httpMethod" => Some(Cow::Borrowed(request.head.method.as_str())),
        "path" => Some(request.event_path()),
        // AWS says this whatever the client spoke.
        "protocol" => Some(Cow::Borrowed("HTTP/1.1")),
        "domainName" => Some(Cow::Borrowed(&request.domain_name)),
        "domainPrefix" => Some(Cow::Borrowed(request.domain_prefix())),
        "identity.sourceIp" => Some(Cow::Owned(request.source_ip.to_string())),
        "identity.userAgent" => headers::last(&request.head.headers, "user-agent"),
        "identity.clientCert.clientCertPem" => of_certificate(|certificate| &certificate.pem),
        "identity.clientCert.subjectDN" => of_certificate(|certificate| &certificate.subject_dn),
        "identity.clientCert.issuerDN" => of_certificate(|certificate| &certificate.issuer_dn),
        "identity.clientCert.serialNumber" => of_certificate(|certificate| &certificate.serial_number),
        "identity.clientCert.validity.notBefore" => of_certificate(|certificate| &certificate.not_before),
        "identity.clientCert.validity.notAfter" => of_certificate(|certificate| &certificate.not_after),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expressions::variables::{Allowed, Template};
    use crate::model::client::StageKey;
    use crate::model::clock::Timestamp;
    use crate::model::id::Id;

    #[track_caller]
    fn check(template: &str, expected: &str) {
        let (head, ()) = http::Request::builder()
            .method("PUT")
            .uri("/base/prod/pets/a%20b%2Fc?x=1&y&x=%26")
            .header("x-a", "1")
            .header("x-a", "2")
            .body(())
            .unwrap()
            .into_parts();
        let request = HttpRequest {
            stamp: None,
            hidden_stage: None,
            stage: StageKey { api: "pets".into(), stage: "prod".into() },
            head,
            base_path: 5,
            stage_path: 10,
            path_parameters: vec![("id".into(), "a%20b%2Fc".into())],
            body: r#"{"a":{"b":1}}"#.into(),
            domain_name: "api.example.com".into(),
            source_ip: [127, 0, 0, 1].into(),
            scheme: "http",
            port: 80,
            client_certificate: None,
        };
        let event = Event::Request(&request);
        let (route_key, request_id) = ("PUT /pets/{id}", Id::random());
        let call = Call { event, route_key, request_id, at: Timestamp(0), identity: None, trace: None };
        let stage_variables = StageVariables::from([("colour".to_owned(), "blue".to_owned())]);
        let template = Template::parse(template, Allowed::REQUEST).unwrap();
        assert_eq!(template.render(&Scope { call: &call, stage_variables: &stage_variables }), expected);
    }

    #[test]
    fn a_request_has_all_that_http_apis_may_ask_for() {
        check("${request.header.X-A}|${request.querystring.x}|${request.querystring.y}", "1,2|1,&|");
        check("${request.path}|${request.path.id}|${request.path.nope}", "/pets/a%20b%2Fc|a b/c|");
        check("${request.body}|${request.body.a.b}", r#"{"a":{"b":1}}|1"#);
        check("${context.httpMethod} ${context.path} ${context.domainPrefix}", "PUT /prod/pets/a%20b%2Fc api");
        check("${context.routeKey} ${stageVariables.colour}", "PUT /pets/{id} blue");
    }
}
