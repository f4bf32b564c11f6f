//! The `[apis.<api>]` tables: how an API is reached, its routes, and its `@connections`.

use serde_json::json;

use crate::model::problem::Place;
use crate::model::settings::{
    Expression, Node, OrNone, Reading, Setting, Spanned, Table, TableName, TableReference, Text, Value, choice,
    is_plain_name, nearest, or_env, settings,
};
use crate::steps::{cors, integrations};

use super::stage::{Stage, StageName};
use super::{LoggingLevel, PolicyStatement, Throttle};

choice! {
    /// What an API's clients speak.
    pub enum Protocol {
        /// WebSocket.
        Websocket = "websocket",
        /// HTTP: requests and answers.
        Http = "http",
    }
    later {
        "rest": "REST APIs come with a later version",
    }
}

settings! {
    /// An API.
    pub struct Api {
        /// What its clients speak.
        pub protocol: Protocol,
        /// Finds the route key in a message, such as `$request.body.action` (WebSocket APIs, which need it).
        pub route_selection_expression: Option<Expression>,
        /// The path in front of the stage, such as `/chat`; empty for the root.
        pub base_path: BasePath = "",
        /// The hosts that the API answers to; without any, every host, after the APIs that name theirs.
        pub domains: Vec<Domain> = [],
        /// The routes by route key: `$connect`, `$disconnect`, `$default` or what the expression finds; in an HTTP API
        /// a method and a path such as `GET /pets/{id}` or `ANY /files/{proxy+}`, or `$default`.
        pub routes: Table<Route, RouteKey>,
        /// The stages by name; without any, `$default`.
        pub stages: Table<Stage, StageName>,
        /// Who may push to the connections of this API.
        pub connections_api: Option<ConnectionsApi>,
        /// Which pages of other origins may call this API from a browser (HTTP APIs).
        pub cors: Option<cors::Settings>,
        /// Who may reach the API.
        pub resource_policy: Vec<PolicyStatement> = [],
        /// Where an API key is: `$request.header.NAME`, `$request.querystring.NAME`, or
        /// `$context.authorizer.usageIdentifierKey` for the one that the authorizer names.
        pub api_key_selection_expression: Expression = "$request.header.x-api-key",
    }
}

impl Api {
    /// Who may push; an API that says nothing asks for signatures.
    pub fn connections_api(&self) -> ConnectionsApi {
        let written = self.connections_api.clone();
        written.unwrap_or_else(|| {
            ConnectionsApi::absent(&self.place.key("connections_api", self.place.span.clone()))
                .expect("every key has a default")
        })
    }
}

settings! {
    /// A route: what answers for the messages that it is selected for.
    pub struct Route {
        /// What answers: a URL, or a table with its `type`.
        pub integration: integrations::Settings,
        /// Sends the answer's body back to the client as a frame (WebSocket APIs).
        pub route_response: bool = false,
        /// Carries WebSockets and other upgraded connections to a backend that speaks them itself (HTTP APIs).
        pub upgrade: bool = false,
        /// Who decides whether a caller may: the name of one of `[authorizers.<name>]`, or `aws_iam`. On a WebSocket
        /// API it stands at `$connect`, and holds for the whole connection.
        pub authorizer: Option<Text>,
        /// Of these scopes a token must have one (authorizers of type `jwt`).
        pub authorization_scopes: Vec<Text> = [],
        /// A message to this route brings a fresh token, so that the connection may live on.
        pub refreshes_authorization: bool = false,
        /// Wants an API key of a usage plan. On a WebSocket API it stands at `$connect`; messages then count as well.
        pub api_key_required: bool = false,
        /// The route's bucket, in place of the stage's; `none` lifts that.
        pub throttle: Option<OrNone<Throttle>>,
        /// Who may use the route.
        pub resource_policy: Vec<PolicyStatement> = [],
        /// What the gateway's own log says about this route's calls, in place of the stage's `logging_level`.
        pub logging_level: Option<LoggingLevel>,
    }
}

choice! {
    /// How a caller of `@connections` shows who it is.
    pub enum Authorization {
        /// By a signature (SigV4), as at AWS.
        AwsIam = "aws_iam",
        /// By a bearer token.
        Bearer = "bearer",
        /// Not at all; on loopback only.
        None = "none",
    }
}

settings! {
    /// The `@connections` API of an API.
    pub struct ConnectionsApi {
        /// How callers show who they are: by a SigV4 signature, by a bearer token, or (on loopback only) not at all.
        pub authorization: Spanned<Authorization> = "aws_iam",
        /// A bucket for all calls of it in one stage; beyond it they get 429 `LimitExceededException`.
        pub throttle: OrNone<Throttle> = "none",
    }
}

settings! {
    /// A domain with a mapping of its own, as a table in the list `domains`.
    pub struct MappedDomain {
        /// The host, such as `rt.example.com` or `*.example.com`.
        pub host: Host,
        /// The stage that the host stands for, which is then not in the URL.
        pub stage: Option<Text>,
        /// The path in front, in place of the API's.
        pub base_path: Option<BasePath>,
    }
}

/// A host an API answers to: a name alone, or with a mapping of its own.
#[derive(Debug, Clone)]
pub struct Domain {
    pub host: Host,
    pub stage: Option<Text>,
    pub base_path: Option<BasePath>,
    pub place: Place,
}

impl Setting for Domain {
    fn read(node: Node, reading: &mut Reading) -> Option<Self> {
        if matches!(node.value, Value::Table(_)) {
            let MappedDomain { host, stage, base_path, place } = MappedDomain::read(node, reading)?;
            return Some(Domain { host, stage, base_path, place });
        }
        let place = node.place.clone();
        Host::read(node, reading).map(|host| Domain { host, stage: None, base_path: None, place })
    }

    fn schema() -> serde_json::Value {
        json!({ "anyOf": [Host::schema(), MappedDomain::schema()] })
    }

    fn kind() -> String {
        "hosts or tables".into()
    }

    fn tables(path: &str, into: &mut Vec<TableReference>) {
        MappedDomain::tables(path, into);
    }
}

/// A host in lower case without port, or `*.` and the end of one.
#[derive(Debug, Clone)]
pub struct Host {
    pub name: String,
    pub place: Place,
}

impl Host {
    /// For `*.example.com` the `.example.com` that matching hosts end in.
    pub fn wildcard_end(&self) -> Option<&str> {
        self.name.strip_prefix('*')
    }
}

impl Setting for Host {
    fn read(node: Node, reading: &mut Reading) -> Option<Self> {
        let help = "write it like `chat.example.com` or `*.example.com`, without scheme and port";
        let name = node.word(reading, "host", help)?.to_ascii_lowercase();
        if !is_host(&name) {
            reading.refuse(&node, "host", help);
            return None;
        }
        Some(Host { name, place: node.place })
    }

    fn schema() -> serde_json::Value {
        or_env(
            json!({ "type": "string", "pattern": r"^(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$|^\[[0-9A-Fa-f:.]+\]$" }),
        )
    }

    fn kind() -> String {
        "host".into()
    }
}

fn is_host(name: &str) -> bool {
    let bracketed = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    if let Some(address) = bracketed {
        return address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let plain = name.strip_prefix("*.").unwrap_or(name);
    plain.len() <= 253 && plain.split('.').all(|label| is_plain_name(label, &['-'], 63))
}

/// The path in front of the stage: empty, or segments that each begin with `/`.
#[derive(Debug, Clone)]
pub struct BasePath {
    pub path: String,
    pub place: Place,
}

impl Setting for BasePath {
    fn read(node: Node, reading: &mut Reading) -> Option<Self> {
        let help = "write it like `/chat` or `/live/chat`; `` is the root".replace("``", "`\"\"`");
        let path = node.word(reading, "base path", &help)?;
        if !is_base_path(&path) {
            reading.refuse(&node, "base path", &help);
            return None;
        }
        Some(BasePath { path, place: node.place })
    }

    fn schema() -> serde_json::Value {
        or_env(json!({ "type": "string", "pattern": "^(/[A-Za-z0-9._~!$&'()*+,;=:@-]+)*$" }))
    }

    fn kind() -> String {
        "path".into()
    }
}

fn is_base_path(path: &str) -> bool {
    let Some(segments) = path.strip_prefix('/') else { return path.is_empty() };
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:@".contains(c);
    // Dot segments are resolved away by clients, and `@connections` marks what belongs to backends.
    let reserved = ["", ".", "..", "@connections"];
    segments.split('/').all(|segment| !reserved.contains(&segment) && segment.chars().all(plain))
}

/// Names of APIs.
#[derive(Debug, Clone)]
pub struct ApiName;

impl TableName for ApiName {
    const PLACEHOLDER: &'static str = "<api>";

    fn check(name: &str) -> Result<(), (String, String)> {
        if is_plain_name(name, &['-'], 128) {
            return Ok(());
        }
        Err((format!("`{name}` cannot name an API"), "use 1 to 128 of `A-Z a-z 0-9 _ -`".into()))
    }

    fn pattern() -> Option<&'static str> {
        Some("^[A-Za-z0-9_-]{1,128}$")
    }
}

/// Route keys of a WebSocket API.
#[derive(Debug, Clone)]
pub struct RouteKey;

const RESERVED_ROUTE_KEYS: [&str; 3] = ["$connect", "$disconnect", "$default"];

impl TableName for RouteKey {
    const PLACEHOLDER: &'static str = "<route>";

    fn check(name: &str) -> Result<(), (String, String)> {
        if name.is_empty() {
            return Err(("this route key is empty".into(), "write what the expression should find".into()));
        }
        if !name.starts_with('$') || RESERVED_ROUTE_KEYS.contains(&name) {
            return Ok(());
        }
        let found = format!("`{name}` cannot be a route key: only AWS's own begin with `$`");
        let help = match nearest(name, RESERVED_ROUTE_KEYS) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => "those are `$connect`, `$disconnect` and `$default`".into(),
        };
        Err((found, help))
    }

    fn pattern() -> Option<&'static str> {
        Some(r"^([^$].*|\$connect|\$disconnect|\$default)$")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_neither_scheme_nor_port() {
        for good in ["chat.example.com", "*.example.com", "localhost", "127.0.0.1", "[::1]", "my_service"] {
            assert!(is_host(good), "{good}");
        }
        for bad in ["", "*", "*.", "a..b", "http://a", "a:80", "a.*.b", "*a.b", "[::1", "[x]", "a b"] {
            assert!(!is_host(bad), "{bad}");
        }
    }

    #[test]
    fn base_paths_begin_with_a_slash_and_do_not_end_in_one() {
        for good in ["", "/chat", "/live/chat", "/v1.0"] {
            assert!(is_base_path(good), "{good}");
        }
        for bad in ["/", "chat", "/chat/", "//chat", "/a/../b", "/@connections", "/a?b", "/a b", "/a%20b"] {
            assert!(!is_base_path(bad), "{bad}");
        }
    }
}
