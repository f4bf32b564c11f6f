//! What answers for a route: one file for each type of integration, and the enum that tells them apart.

use serde_json::json;

use crate::expressions::scope::StageVariables;
use crate::model::call::{Call, Happening, Mapped, Reply};
use crate::model::problem::Place;
use crate::model::refusal::Refusal;
use crate::model::settings::{Node, Reading, Row, Setting, TableReference, Value, choice};
use crate::outbound::backends::Keep;
use http_proxy::forward;
use http_proxy::function::Function;

pub mod http_proxy;
pub mod mock;

/// The `integration` of a route as written.
#[derive(Debug, Clone)]
pub enum Settings {
    HttpProxy(http_proxy::Settings),
    Mock(mock::Settings),
}

choice! {
    /// The `type` of an integration.
    pub enum Kind {
        /// Posts the message to a URL.
        HttpProxy = "http_proxy",
        /// Answers by itself.
        Mock = "mock",
    }
    later {
        "http": "use `http_proxy`; integrations with templates come with a later version",
        "lambda": "use `http_proxy` with `payload = \"event\"`; Lambda functions come with a later version",
        "aws_service": "AWS services come with a later version",
    }
}

impl Settings {
    pub fn place(&self) -> &Place {
        match self {
            Settings::HttpProxy(settings) => &settings.place,
            Settings::Mock(settings) => &settings.place,
        }
    }
}

impl Setting for Settings {
    fn read(mut node: Node, reading: &mut Reading) -> Option<Self> {
        let entries = match &mut node.value {
            Value::Table(entries) => entries,
            Value::Text(_) => return http_proxy::Settings::from_url(node, reading).map(Settings::HttpProxy),
            _ => {
                reading.refuse(&node, "integration", "write a URL, or a table with `type` and its keys");
                return None;
            }
        };
        let Some(at) = entries.iter().position(|entry| entry.key == "type") else {
            let help = "add `type = \"http_proxy\"` or `type = \"mock\"`";
            reading.problems.problem_with_help(&node.place, "`type` is missing", help);
            return None;
        };
        let kind = Node::of_entry(entries.remove(at), &node.place);
        match Kind::read(kind, reading)? {
            Kind::HttpProxy => http_proxy::Settings::read(node, reading).map(Settings::HttpProxy),
            Kind::Mock => mock::Settings::read(node, reading).map(Settings::Mock),
        }
    }

    fn schema() -> serde_json::Value {
        let with_type = |kind: &str, mut schema: serde_json::Value| {
            schema["properties"]["type"] = json!({ "const": kind, "description": "The type of integration." });
            if let Some(required) = schema["required"].as_array_mut() {
                required.push("type".into());
            }
            schema
        };
        json!({ "oneOf": [
            { "type": "string", "description": "A URL alone is an http_proxy integration." },
            with_type("http_proxy", http_proxy::Settings::schema()),
            with_type("mock", mock::Settings::schema()),
        ] })
    }

    fn kind() -> String {
        "URL or table".into()
    }

    fn tables(path: &str, into: &mut Vec<TableReference>) {
        for variant in [http_proxy::Settings::tables, mock::Settings::tables] {
            let first = into.len();
            variant(path, into);
            if let Some(table) = into.get_mut(first) {
                table.rows.insert(0, Row::of::<Kind>("type", None, &["The type of integration."]));
            }
        }
    }
}

/// A checked integration, ready to be called.
pub enum Integration {
    HttpProxy(Box<http_proxy::HttpProxy>),
    Mock(mock::Mock),
}

impl Integration {
    /// Asks what answers for the route. `keep` says whether anyone wants the answer's body.
    pub async fn send(
        &self,
        call: &Call<'_>,
        happening: Happening<'_>,
        variables: &StageVariables,
        mapped: Mapped,
        keep: Keep,
    ) -> Result<Reply, Refusal> {
        match self {
            Integration::HttpProxy(proxy) => proxy.send(call, happening, variables, mapped, keep).await,
            Integration::Mock(mock) => Ok(mock.answer(call, variables)),
        }
    }

    /// In one line, for those who list routes.
    pub fn describe(&self) -> String {
        match self {
            Integration::HttpProxy(proxy) => proxy.describe(),
            Integration::Mock(mock) => format!("mock {}", mock.status.as_u16()),
        }
    }

    /// Whether a backend is called at all: what is measured as integration latency.
    pub fn has_backend(&self) -> bool {
        matches!(self, Integration::HttpProxy(_))
    }
}

/// A checked integration of an HTTP API's route.
pub enum RequestIntegration {
    HttpProxy(Box<forward::Forward>),
    /// A backend that gets the proxy event.
    Function(Box<Function>),
    Mock(mock::Mock),
}

impl RequestIntegration {
    /// Must the request's body be there as a whole?
    pub fn reads_body(&self) -> bool {
        match self {
            RequestIntegration::HttpProxy(_) => false,
            RequestIntegration::Function(_) => true,
            RequestIntegration::Mock(mock) => mock.reads_body(),
        }
    }

    /// In one line, for those who list routes.
    pub fn describe(&self) -> String {
        match self {
            RequestIntegration::HttpProxy(proxy) => proxy.shown.clone(),
            RequestIntegration::Function(function) => format!("{} (event)", function.way.shown),
            RequestIntegration::Mock(mock) => format!("mock {}", mock.status.as_u16()),
        }
    }
}
