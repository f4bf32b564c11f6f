//! The `http_proxy` integration: the message as it came, or the event that a Lambda function would get, to a URL.
//!
//! The headers are those of AWS's HTTP_PROXY, and under our own prefix what no backend can do without.

pub mod forward;
pub mod function;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::expressions::scope::StageVariables;
use crate::model::body::Body;
use crate::model::call::{Call, ConnectionEvent, Handshake, Happening, Incoming, Mapped, Reply};
use crate::model::client::{Client, StageKey};
use crate::model::headers;
use crate::model::limits;
use crate::model::lines;
use crate::model::refusal::{Kind, Refusal};
use crate::model::settings::{
    Entry, Expression, Node, PositiveDuration, Reading, Setting, Table, TableName, Text, Value, choice, settings,
};
use crate::model::trace::X_AMZN_TRACE_ID;
use crate::outbound::backends::{self, Backend, Headers, Keep, Outgoing};
use crate::outbound::lambda as event;

choice! {
    /// What the backend gets as the body.
    pub enum Payload {
        /// The message as it came.
        Raw = "raw",
        /// The AWS proxy event; a proxy answer is read back.
        Event = "event",
    }
}

settings! {
    /// `type = "http_proxy"`: posts what a client sent to a URL. A URL in place of the table is the same with the
    /// defaults.
    pub struct Settings {
        /// Where to, with `${stageVariables.NAME}` and the like filled in.
        pub uri: Expression,
        /// How long the backend may take: for its whole answer to a message, or for the head of its answer to an HTTP
        /// request. Without it 29 s for WebSocket routes and 30 s for HTTP routes, the longest at AWS.
        pub timeout: Option<PositiveDuration>,
        /// `raw` posts the message as it came, `event` posts the AWS proxy event and reads a proxy answer.
        pub payload: Payload = "raw",
        /// The format of an HTTP route's event and of its answer; without it `2.0`.
        pub payload_format: Option<event::Format>,
        /// The method that an HTTP route's backend is asked with; without it the client's (AWS: `integrationMethod`).
        pub method: Option<Text>,
        /// What else to send. WebSocket: `"integration.request.header.X-Name" = "route.request.body.name"`. HTTP:
        /// `"append:header.X-Name"`, `overwrite` and `remove` of `header` and `querystring`, and `"overwrite:path"`.
        pub request_parameters: Table<Expression>,
        /// What to change about an HTTP route's answer, by the backend's status:
        /// `200 = { "overwrite:header.X-Name" = "$response.body.name", "overwrite:statuscode" = "201" }`.
        pub response_parameters: Table<Table<Expression>, StatusName>,
    }
}

impl Settings {
    /// The short form: a URL alone.
    pub fn from_url(node: Node, reading: &mut Reading) -> Option<Settings> {
        let place = node.place.clone();
        let uri = Expression::read(node, reading)?;
        let empty = Entry { key: "uri".into(), key_span: 0..0, after_dot: false, value: "".into(), span: 0..0 };
        // Read as the table it stands for, so that the defaults are written once.
        let table = Node::unwritten(Value::Table(vec![empty]), &place);
        Settings::read(table, reading).map(|defaults| Settings { uri, ..defaults })
    }
}

/// Statuses of a backend's that answers are changed by.
#[derive(Debug, Clone)]
pub struct StatusName;

impl TableName for StatusName {
    const PLACEHOLDER: &'static str = "<status>";

    fn check(name: &str) -> Result<(), (String, String)> {
        if name.len() == 3 && name.parse().is_ok_and(|status: u16| (200..600).contains(&status)) {
            return Ok(());
        }
        let help = "write one from `200` to `599`; each has mappings of its own";
        Err((format!("`{name}` is no status of a backend's"), help.into()))
    }

    fn pattern() -> Option<&'static str> {
        Some("^[2-5][0-9][0-9]$")
    }
}

/// How long a backend may take when the route says nothing; AWS's longest.
pub const MESSAGE_TIMEOUT: Duration = Duration::from_secs(29);
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// A checked `http_proxy` integration of one route in one stage.
pub struct HttpProxy {
    backend: Arc<Backend>,
    target: Target,
    timeout: Duration,
    payload: Payload,
    /// The headers that are the same for every call of this route.
    fixed: HeaderMap,
    /// The same with what an event or a message adds, and places for the headers of each call: filling them
    /// in is cheaper than making room.
    posted: HeaderMap,
    /// The request line and the fixed headers as text, where that is the same for all messages: most are sent so.
    written: Option<Vec<u8>>,
    /// For those who list routes.
    shown: String,
}

/// The path and query of calls: settled at load, unless parameters are mapped into them.
enum Target {
    Fixed(Uri),
    /// The path, and the query that the setting itself has.
    Mapped {
        path: String,
        query: Option<String>,
    },
}

/// What `HttpProxy` is made of; everything in it has been checked.
pub struct Parts {
    pub backend: Arc<Backend>,
    pub uri: Uri,
    /// The URI's path and query, in which `{name}` stands for a mapped path parameter.
    pub path: String,
    pub timeout: Duration,
    pub payload: Payload,
    /// Parameters are mapped into the path or the query.
    pub maps_uri: bool,
    pub stage: StageKey,
    pub route_key: String,
}

impl HttpProxy {
    pub fn new(parts: Parts) -> Self {
        let target = if parts.maps_uri {
            match parts.path.split_once('?') {
                Some((path, query)) => Target::Mapped { path: path.to_owned(), query: Some(query.to_owned()) },
                None => Target::Mapped { path: parts.path, query: None },
            }
        } else {
            Target::Fixed(parts.uri.path_and_query().map_or_else(Uri::default, |target| target.clone().into()))
        };
        let mut fixed = HeaderMap::with_capacity(16);
        let api = headers::encoded(&parts.stage.api);
        let agent = headers::encoded(&format!("AmazonAPIGateway_{}", parts.stage.api));
        fixed.insert(HOST, headers::encoded(host(&parts.uri)));
        fixed.insert(USER_AGENT, agent);
        fixed.insert(X_AMZN_APIGATEWAY_API_ID, api.clone());
        fixed.insert(X_LIVEGATE_API, api);
        fixed.insert(X_LIVEGATE_STAGE, headers::encoded(&parts.stage.stage));
        fixed.insert(X_LIVEGATE_ROUTE_KEY, headers::encoded(&parts.route_key));
        let mut posted = fixed.clone();
        posted.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        posted.insert(ACCEPT, HeaderValue::from_static("application/json"));
        for name in OF_EACH_CALL {
            posted.insert(name, HeaderValue::from_static(""));
        }
        let written = match &target {
            Target::Fixed(target) if !parts.backend.speaks_http_2() => Some(written(target, &fixed)),
            _ => None,
        };
        Self {
            backend: parts.backend,
            written,
            shown: shown(&parts.uri, &target),
            target,
            timeout: parts.timeout,
            payload: parts.payload,
            fixed,
            posted,
        }
    }

    pub fn describe(&self) -> String {
        match self.payload {
            Payload::Raw => self.shown.clone(),
            Payload::Event => format!("{} (event)", self.shown),
        }
    }

    /// Posts the call to the backend and gives back what it answered, whatever its status.
    pub async fn send(
        &self,
        call: &Call<'_>,
        happening: Happening<'_>,
        variables: &StageVariables,
        mapped: Mapped,
        keep: Keep,
    ) -> Result<Reply, Refusal> {
        let outgoing = match (&self.written, happening.event) {
            (Some(written), ConnectionEvent::Message(message)) if mapped.headers.is_empty() => {
                self.posted(written, call, happening, message, variables)
            }
            _ => Outgoing::of(self.request(call, happening, variables, mapped)?),
        };
        // A proxy answer carries its status in the body, so it is read even when nobody waits for it.
        let keep = match self.payload {
            Payload::Raw => keep,
            Payload::Event => Keep::Whole(event_answer_bound(keep)),
        };
        let answer = self.backend.call(outgoing, keep, self.timeout).await.map_err(refusal)?;
        match self.payload {
            Payload::Raw => Ok(answer),
            Payload::Event if answer.status.is_success() => {
                event::websocket::read(&answer.body).map_err(|error| Kind::IntegrationFailure.because(error))
            }
            Payload::Event => {
                Err(Kind::IntegrationFailure.because(format_args!("the backend answered {}", answer.status)))
            }
        }
    }

    /// A message's request without a detour through a map of its headers, of which each call changes only a few.
    fn posted(
        &self,
        written: &[u8],
        call: &Call<'_>,
        happening: Happening<'_>,
        message: &Incoming,
        variables: &StageVariables,
    ) -> Outgoing {
        let client = happening.client;
        let (content_type, body) = match self.payload {
            Payload::Raw if message.binary => ("application/octet-stream", message.body.clone()),
            Payload::Raw => ("application/json", message.body.clone()),
            Payload::Event => {
                ("application/json", event::websocket::write(call, happening, variables, &call.trace_id()))
            }
        };
        let mut head = Vec::with_capacity(written.len() + body.len() + ROOM_FOR_LINES);
        head.extend_from_slice(written);
        let mut line = |name: &HeaderName, value: &[u8]| lines::write(name, value, &mut head);
        line(&CONTENT_TYPE, content_type.as_bytes());
        line(&ACCEPT, b"application/json");
        match &call.trace {
            None => line(&X_AMZN_TRACE_ID, &call.root()),
            Some(trace) => {
                line(&X_AMZN_TRACE_ID, trace.amzn().as_bytes());
                call.trace_headers(|name, value| line(name, value.as_bytes()));
            }
        }
        line(&X_LIVEGATE_CONNECTION_ID, client.id_header.as_bytes());
        line(&X_LIVEGATE_CALLBACK_URL, client.callback_url.as_bytes());
        line(&X_LIVEGATE_EVENT_TYPE, happening.event.name().as_bytes());
        line(&X_LIVEGATE_REQUEST_ID, call.request_id.text().as_str().as_bytes());
        for (name, value) in call.granted().iter().flat_map(|granted| &granted.headers) {
            line(name, value.as_bytes());
        }
        Outgoing::posted(head, body, Headers::OfBytes)
    }

    fn request(
        &self,
        call: &Call<'_>,
        happening: Happening<'_>,
        variables: &StageVariables,
        mapped: Mapped,
    ) -> Result<Request<Body>, Refusal> {
        let mut headers = self.headers(call, happening);
        let trace_id = headers.get(X_AMZN_TRACE_ID).cloned().expect("headers() sets it");
        let uri = self.uri(happening.event, &mapped)?;
        for (name, _) in &mapped.headers {
            headers.remove(name);
        }
        for (name, value) in mapped.headers {
            headers.append(name, value);
        }
        let body = match self.payload {
            Payload::Raw => happening.event.body(),
            Payload::Event => event::websocket::write(call, happening, variables, &trace_id),
        };
        let mut request = Request::new(Body::Whole(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        Ok(request)
    }

    fn headers(&self, call: &Call<'_>, Happening { client, event }: Happening<'_>) -> HeaderMap {
        let mut headers = match event {
            ConnectionEvent::Connect(handshake) if self.payload == Payload::Raw => {
                let mut headers = self.connect_headers(handshake, client);
                if call.trace.is_some() || !headers.contains_key(X_AMZN_TRACE_ID) {
                    headers.insert(X_AMZN_TRACE_ID, call.trace_id());
                }
                headers
            }
            _ => {
                let mut headers = self.posted.clone();
                if matches!(event, ConnectionEvent::Message(message) if message.binary) && self.payload == Payload::Raw
                {
                    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
                }
                headers.insert(X_AMZN_TRACE_ID, call.trace_id());
                headers
            }
        };
        headers.insert(X_LIVEGATE_CONNECTION_ID, client.id_header.clone());
        headers.insert(X_LIVEGATE_CALLBACK_URL, client.callback_url.clone());
        headers.insert(X_LIVEGATE_EVENT_TYPE, HeaderValue::from_static(event.name()));
        headers.insert(X_LIVEGATE_REQUEST_ID, call.request_id.header());
        call.pass_trace_on(&mut headers);
        if let Some(granted) = call.granted() {
            for (name, value) in &granted.headers {
                headers.insert(name, value.clone());
            }
        }
        if let ConnectionEvent::Disconnect(close) = event {
            headers.insert(X_LIVEGATE_DISCONNECT_CODE, HeaderValue::from(close.code));
            headers.insert(X_LIVEGATE_DISCONNECT_REASON, headers::encoded(&close.reason));
        }
        headers
    }

    /// What the client sent, without what belongs to its own hop. `Sec-WebSocket-Key` and its kin make
    /// ordinary frameworks take the POST for a broken upgrade.
    fn connect_headers(&self, handshake: &Handshake, client: &Client) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(handshake.headers.len() + 16);
        for (name, value) in &handshake.headers {
            let dropped = matches!(
                name.as_str(),
                "host" | "content-length" | "sec-websocket-version" | "sec-websocket-key" | "sec-websocket-extensions"
            ) || headers::is_hop_by_hop(name)
                || headers::is_forwarding(name)
                || headers::is_ours(name);
            if !dropped {
                headers.append(name, value.clone());
            }
        }
        headers.insert(X_FORWARDED_FOR, headers::encoded(&client.source_ip.to_string()));
        headers.insert(X_FORWARDED_PORT, HeaderValue::from(handshake.port));
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(handshake.scheme));
        headers.extend(self.fixed.clone());
        headers
    }

    fn uri(&self, event: ConnectionEvent<'_>, mapped: &Mapped) -> Result<Uri, Refusal> {
        let client_query = match event {
            ConnectionEvent::Connect(handshake) => handshake.query.as_deref().filter(|query| !query.is_empty()),
            _ => None,
        };
        let (path, own_query) = match (&self.target, client_query) {
            (Target::Fixed(uri), None) => return Ok(uri.clone()),
            (Target::Fixed(uri), Some(_)) => {
                let text = uri.to_string();
                match text.split_once('?') {
                    Some((path, query)) => (path.to_owned(), Some(query.to_owned())),
                    None => (text, None),
                }
            }
            (Target::Mapped { path, query }, _) => (path.clone(), query.clone()),
        };
        let mut text = path;
        for (name, value) in &mapped.path {
            if matches!(value.as_str(), "." | "..") {
                // Encoded or not, servers take it for a step up the path.
                return Err(Kind::BadRequestBody.because(format_args!("`{value}` cannot stand in a path")));
            }
            let segment = utf8_percent_encode(value, PATH_SEGMENT).to_string();
            text = text.replace(&format!("{{{name}}}"), &segment);
        }
        let is_mapped = |pair: &&str| {
            let name = form_urlencoded::parse(pair.as_bytes()).next().map(|(name, _)| name.into_owned());
            mapped.query.iter().any(|(mapped, _)| Some(mapped) == name.as_ref())
        };
        let carried = client_query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty() && !is_mapped(pair));
        let mut query: Vec<String> = own_query.into_iter().chain(carried.map(str::to_owned)).collect();
        let encode = |part: &str| utf8_percent_encode(part, NON_ALPHANUMERIC).to_string();
        query.extend(mapped.query.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))));
        if !query.is_empty() {
            text = format!("{text}?{}", query.join("&"));
        }
        text.parse().map_err(|error| Kind::Internal.because(format_args!("no URI after parameter mapping: {error}")))
    }
}

/// What the lines that every message has of its own take as a rule, so that a head is allocated once.
const ROOM_FOR_LINES: usize = 512;

fn written(target: &Uri, fixed: &HeaderMap) -> Vec<u8> {
    let mut text =
        format!("POST {} HTTP/1.1\r\n", target.path_and_query().map_or("/", |target| target.as_str())).into_bytes();
    for (name, value) in fixed {
        lines::write(name, value.as_bytes(), &mut text);
    }
    text
}

/// The `Host` of a URI: its authority without the scheme's own port.
pub fn host(uri: &Uri) -> &str {
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let default_port = if uri.scheme_str() == Some("https") { ":443" } else { ":80" };
    authority.strip_suffix(default_port).unwrap_or(authority)
}

fn shown(uri: &Uri, target: &Target) -> String {
    let base = format!("{}://{}", uri.scheme_str().unwrap_or_default(), host(uri));
    match target {
        Target::Fixed(path) => format!("{base}{path}"),
        Target::Mapped { path, query: Some(query) } => format!("{base}{path}?{query}"),
        Target::Mapped { path, query: None } => base + path,
    }
}

/// What a path segment keeps as it is; a mapped value can never add a segment or a query.
const PATH_SEGMENT: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'@').remove(b':');

/// A proxy answer wraps a body as JSON text: six bytes for one at worst, and its headers.
fn event_answer_bound(keep: Keep) -> usize {
    let body = match keep {
        Keep::Nothing => limits::REFUSAL_BODY,
        Keep::Whole(bound) | Keep::Beginning(bound) => bound,
    };
    body.saturating_mul(6).saturating_add(limits::REFUSAL_BODY)
}

fn refusal(error: backends::Error) -> Refusal {
    match error {
        backends::Error::Unreachable(_) | backends::Error::Lost(_) | backends::Error::BrokeOff(_) => {
            Kind::IntegrationUnreachable
        }
        backends::Error::Busy(_) => Kind::Busy,
        backends::Error::TooLong(_) => Kind::IntegrationFailure,
        backends::Error::Timeout(_) => Kind::IntegrationTimeout,
    }
    .because(Chain(&error))
}

/// An error with its causes, since hyper keeps the telling one (`Connection refused`) at the end.
struct Chain<'a>(&'a dyn std::error::Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source().and_then(std::error::Error::source);
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

/// Headers whose values every call has its own of.
const OF_EACH_CALL: [HeaderName; 5] =
    [X_AMZN_TRACE_ID, X_LIVEGATE_CONNECTION_ID, X_LIVEGATE_CALLBACK_URL, X_LIVEGATE_EVENT_TYPE, X_LIVEGATE_REQUEST_ID];

const X_AMZN_APIGATEWAY_API_ID: HeaderName = HeaderName::from_static("x-amzn-apigateway-api-id");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_LIVEGATE_API: HeaderName = HeaderName::from_static("x-livegate-api");
const X_LIVEGATE_CALLBACK_URL: HeaderName = HeaderName::from_static("x-livegate-callback-url");
const X_LIVEGATE_CONNECTION_ID: HeaderName = HeaderName::from_static("x-livegate-connection-id");
const X_LIVEGATE_DISCONNECT_CODE: HeaderName = HeaderName::from_static("x-livegate-disconnect-code");
const X_LIVEGATE_DISCONNECT_REASON: HeaderName = HeaderName::from_static("x-livegate-disconnect-reason");
const X_LIVEGATE_EVENT_TYPE: HeaderName = HeaderName::from_static("x-livegate-event-type");
const X_LIVEGATE_REQUEST_ID: HeaderName = HeaderName::from_static("x-livegate-request-id");
const X_LIVEGATE_ROUTE_KEY: HeaderName = HeaderName::from_static("x-livegate-route-key");
const X_LIVEGATE_STAGE: HeaderName = HeaderName::from_static("x-livegate-stage");
