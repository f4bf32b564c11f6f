//! What a call offers to expressions: its body, its context, its stage variables, its handshake.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::variables::Source;
use crate::model::call::{Call, Event};
use crate::model::headers;

pub type StageVariables = BTreeMap<String, String>;

/// One call and the variables of its stage.
pub struct Scope<'a> {
    pub call: &'a Call<'a>,
    pub stage_variables: &'a StageVariables,
}

impl Source for Scope<'_> {
    fn body(&self) -> &str {
        match self.call.event {
            Event::Message(message) => message.text(),
            _ => "",
        }
    }

    fn context(&self, name: &str) -> Option<Cow<'_, str>> {
        let Call { client, event, .. } = self.call;
        let text = |text: String| Some(Cow::Owned(text));
        match name {
            "connectionId" => text(client.id.to_string()),
            "connectedAt" => text(client.connected_at.0.to_string()),
            "domainName" => Some(Cow::Borrowed(&client.domain_name)),
            "apiId" => Some(Cow::Borrowed(&client.stage.api)),
            "stage" => Some(Cow::Borrowed(&client.stage.stage)),
            "routeKey" => Some(Cow::Borrowed(self.call.route_key)),
            "eventType" => Some(Cow::Borrowed(self.call.event_type())),
            "messageDirection" => Some(Cow::Borrowed("IN")),
            "requestId" | "extendedRequestId" => text(self.call.request_id.to_string()),
            "requestTime" => text(self.call.at.clf()),
            "requestTimeEpoch" => text(self.call.at.0.to_string()),
            "identity.sourceIp" => text(client.source_ip.to_string()),
            "identity.userAgent" => client.user_agent.as_deref().map(Cow::Borrowed),
            "messageId" => match event {
                Event::Message(message) => text(message.id.to_string()),
                _ => None,
            },
            "disconnectStatusCode" => match event {
                Event::Disconnect(close) => text(close.code.to_string()),
                _ => None,
            },
            "disconnectReason" => match event {
                Event::Disconnect(close) => Some(Cow::Borrowed(&close.reason)),
                _ => None,
            },
            _ => None,
        }
    }

    fn stage_variable(&self, name: &str) -> Option<&str> {
        self.stage_variables.get(name).map(String::as_str)
    }

    fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        match self.call.event {
            Event::Connect(handshake) => headers::last(&handshake.headers, name),
            _ => None,
        }
    }

    fn headers(&self, name: &str) -> Vec<Cow<'_, str>> {
        match self.call.event {
            Event::Connect(handshake) => handshake.headers.get_all(name).iter().map(headers::text).collect(),
            _ => Vec::new(),
        }
    }

    fn query(&self, name: &str) -> Option<Cow<'_, str>> {
        self.queries(name).pop()
    }

    fn queries(&self, name: &str) -> Vec<Cow<'_, str>> {
        let Event::Connect(handshake) = self.call.event else { return Vec::new() };
        let query = handshake.query.as_deref().unwrap_or_default();
        let pairs = form_urlencoded::parse(query.as_bytes());
        pairs.filter(|(key, _)| key == name).map(|(_, value)| value).collect()
    }
}
