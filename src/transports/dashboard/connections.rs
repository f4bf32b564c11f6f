//! The connections that are open: found, looked at, sent to, closed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};

use super::{Operator, error, parameter, shown};
use crate::connections::{Connection, Error, Outgoing};
use crate::engine::Engine;
use crate::model::answer::Answer;
use crate::model::client::Client;
use crate::model::close::Close;
use crate::model::id::ConnectionId;
use crate::model::identity::{Identity, What};

/// Connections of one page, and the most that a page may have.
const PAGE: usize = 50;
const LARGEST_PAGE: usize = 500;

/// What a Close frame has room for beside its code (RFC 6455 section 5.5).
const LONGEST_REASON: usize = 123;

/// In which fact of a connection a text is looked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Field {
    Any,
    Id,
    User,
    Address,
    Route,
}

struct Search {
    text: String,
    field: Field,
    api: Option<String>,
    stage: Option<String>,
    limit: usize,
    after: Option<(u64, ConnectionId)>,
}

/// One page, the newest first. All connections are gone through, which takes its time where there are many.
pub async fn list(engine: &Arc<Engine>, query: &str) -> Answer {
    let search = match Search::parse(query) {
        Ok(search) => search,
        Err(wrong) => return error(StatusCode::BAD_REQUEST, &wrong),
    };
    let engine = engine.clone();
    match tokio::task::spawn_blocking(move || search.run(&engine)).await {
        Ok(page) => shown(StatusCode::OK, &page),
        Err(_) => error(StatusCode::INTERNAL_SERVER_ERROR, "the search failed"),
    }
}

impl Search {
    fn parse(query: &str) -> Result<Self, String> {
        let field = match parameter(query, "field").as_deref() {
            None | Some("any" | "") => Field::Any,
            Some("id") => Field::Id,
            Some("user") => Field::User,
            Some("address") => Field::Address,
            Some("route") => Field::Route,
            Some(other) => return Err(format!("`{other}` is no field; there are any, id, user, address, route")),
        };
        let limit = match parameter(query, "limit") {
            None => PAGE,
            Some(text) => {
                let limit = text.parse().ok().filter(|limit| (1..=LARGEST_PAGE).contains(limit));
                limit.ok_or_else(|| format!("`{text}` is no limit; write a number from 1 to {LARGEST_PAGE}"))?
            }
        };
        let after = match parameter(query, "after") {
            None => None,
            Some(text) => Some(cursor(&text).ok_or_else(|| format!("`{text}` is no cursor of a page before"))?),
        };
        let text = parameter(query, "search").unwrap_or_default().trim().to_lowercase();
        let (api, stage) = (parameter(query, "api"), parameter(query, "stage"));
        Ok(Self { text, field, api, stage, limit, after })
    }

    fn run(&self, engine: &Engine) -> Value {
        // The newest of what is left, with one more that tells whether there is another page.
        let mut page = BinaryHeap::new();
        let mut matched = 0_u64;
        engine.connections.visit(|connection| {
            if !self.matches(engine, connection) {
                return;
            }
            matched += 1;
            let place = place(connection);
            if self.after.as_ref().is_some_and(|(at, id)| place >= (*at, *id)) {
                return;
            }
            page.push(Reverse(place));
            if page.len() > self.limit + 1 {
                page.pop();
            }
        });
        // Sorted by what is reversed: the largest, which is the newest, comes first.
        let mut ids: Vec<_> = page.into_sorted_vec().into_iter().map(|Reverse((_, id))| id).collect();
        let has_more = ids.len() > self.limit;
        ids.truncate(self.limit);
        let found: Vec<_> = ids.iter().filter_map(|id| engine.connections.find(id).ok()).collect();
        let next =
            found.last().filter(|_| has_more).map(|last| format!("{}.{}", last.client.connected_at.0, last.client.id));
        json!({
            "connections": found.iter().map(|connection| facts(engine, connection)).collect::<Vec<_>>(),
            "next": next,
            "total": engine.connections.count(),
            "matched": matched,
        })
    }

    fn matches(&self, engine: &Engine, connection: &Connection) -> bool {
        let client = &connection.client;
        let is_of =
            |asked: &Option<String>, own: &str| asked.as_ref().is_none_or(|asked| asked.is_empty() || asked == own);
        if !is_of(&self.api, &client.stage.api) || !is_of(&self.stage, &client.stage.stage) {
            return false;
        }
        if self.text.is_empty() {
            return true;
        }
        let has = |text: &str| text.to_lowercase().contains(&self.text);
        let is_asked = |field| self.field == Field::Any || self.field == field;
        is_asked(Field::Id) && has(client.id.text().as_str())
            || is_asked(Field::User) && user(client).is_some_and(|user| has(&user))
            || is_asked(Field::Address) && has(&client.source_ip.to_string())
            || is_asked(Field::Route) && route(engine, connection).is_some_and(|route| has(&route))
    }
}

/// By when it was opened, and by its id among those of one moment.
fn place(connection: &Connection) -> (u64, ConnectionId) {
    (connection.client.connected_at.0, connection.client.id)
}

fn cursor(text: &str) -> Option<(u64, ConnectionId)> {
    let (at, id) = text.split_once('.')?;
    Some((at.parse().ok()?, ConnectionId::parse(id)?))
}

pub fn describe(engine: &Engine, id: &str) -> Answer {
    let connection = match find(engine, id) {
        Ok(connection) => connection,
        Err(answer) => return *answer,
    };
    let client = &connection.client;
    let mut shown = facts(engine, &connection);
    shown["user_agent"] = json!(client.user_agent);
    shown["domain_name"] = json!(*client.domain_name);
    shown["callback_url"] = json!(client.callback_url.to_str().unwrap_or_default());
    shown["identity"] = client.identity.read().as_deref().map_or(Value::Null, identity);
    if let Some(stage) = engine.stage_of(client) {
        let limits = &stage.limits;
        shown["limits"] = json!({
            "outbox_bytes": limits.outbox_bytes,
            "outbox_messages": limits.outbox_messages,
            "idle_timeout_seconds": limits.idle_timeout.map(|time| time.as_secs_f64()),
            "max_duration_seconds": limits.max_duration.map(|time| time.as_secs_f64()),
        });
    }
    super::shown(StatusCode::OK, &shown)
}

/// Who it is, without the API key itself.
fn identity(identity: &Identity) -> Value {
    let authorizer = identity.granted.as_deref().map(|granted| match &granted.what {
        What::Jwt { claims, .. } => json!({ "claims": claims }),
        What::Custom { context, principal_id } => json!({ "principalId": principal_id, "context": context }),
    });
    json!({
        "authorizer": authorizer,
        "signed_by": identity.signer.as_ref().map(|signer| &signer.user),
        "api_key_id": identity.api_key.as_ref().map(|key| &*key.id),
        "expires_at": identity.expiry.map(|expiry| expiry.at.0),
    })
}

fn facts(engine: &Engine, connection: &Connection) -> Value {
    let client = &connection.client;
    let traffic = &connection.traffic;
    let (outbox_bytes, outbox_messages) = connection.outbox.depth();
    json!({
        "id": client.id.text().as_str(),
        "api": &*client.stage.api,
        "stage": &*client.stage.stage,
        "user": user(client),
        "address": client.source_ip.to_string(),
        "connected_at": client.connected_at.0,
        "last_active_at": connection.last_active_at().0,
        "last_route": route(engine, connection).as_deref(),
        "messages_in": traffic.messages_in.load(Relaxed),
        "messages_out": traffic.messages_out.load(Relaxed),
        "bytes_in": traffic.bytes_in.load(Relaxed),
        "bytes_out": traffic.bytes_out.load(Relaxed),
        "outbox_messages": outbox_messages,
        "outbox_bytes": outbox_bytes,
        "in_flight": connection.in_flight(),
        "last_error": connection.last_error().map(|error| json!({ "at": error.at.0, "text": error.text })),
    })
}

fn user(client: &Client) -> Option<String> {
    client.identity.read().as_ref()?.user().map(str::to_owned)
}

fn route(engine: &Engine, connection: &Connection) -> Option<Arc<str>> {
    Some(engine.metrics.route_of(connection.last_route()?)?.key.clone())
}

/// Sends `{"text": …}` or `{"base64": …}`, as a push would.
pub fn send(engine: &Engine, id: &str, asked: &Value, operator: &Operator) -> Answer {
    let connection = match find(engine, id) {
        Ok(connection) => connection,
        Err(answer) => return *answer,
    };
    let Some(stage) = engine.stage_of(&connection.client) else { return gone(id) };
    let message = match message(asked) {
        Ok(message) => message,
        Err(wrong) => return error(StatusCode::BAD_REQUEST, &wrong),
    };
    if message.binary && !stage.limits.binary {
        return error(StatusCode::BAD_REQUEST, "this stage does not carry binary messages (`binary = true`)");
    }
    let length = message.body.len();
    if length > stage.limits.max_message {
        let text = format!("the message has {length} bytes, and max_message is {}", stage.limits.max_message);
        return error(StatusCode::PAYLOAD_TOO_LARGE, &text);
    }
    match engine.connections.send(&connection, message, &stage.limits.outbox()) {
        Ok(()) => {
            stage.metrics.queued(length);
            let (by, via) = (operator.address, operator.access.name());
            tracing::info!(
                target: "livegate::operators",
                api = &*stage.key.api, stage = &*stage.key.stage, connection_id = %connection.client.id, %by, via, bytes = length,
                "an operator sent to a connection"
            );
            shown(StatusCode::OK, &json!({}))
        }
        Err(Error::Full) => error(StatusCode::TOO_MANY_REQUESTS, "the connection's outbox is full"),
        Err(Error::Gone) => gone(id),
    }
}

/// Closes it with `{"code": …, "reason": …}`, after what is queued for it.
pub fn close(engine: &Engine, id: &str, asked: &Value, operator: &Operator) -> Answer {
    let close = match close_of(asked) {
        Ok(close) => close,
        Err(wrong) => return error(StatusCode::BAD_REQUEST, &wrong),
    };
    let connection = match find(engine, id) {
        Ok(connection) => connection,
        Err(answer) => return *answer,
    };
    let client = &connection.client;
    let (by, via, code) = (operator.address, operator.access.name(), close.code);
    tracing::info!(
        target: "livegate::operators",
        api = &*client.stage.api, stage = &*client.stage.stage, connection_id = %client.id, %by, via, code,
        reason = ?&*close.reason, "an operator closed a connection"
    );
    engine.connections.close(&connection, close);
    shown(StatusCode::OK, &json!({}))
}

/// A message in the JSON of an action.
pub fn message(asked: &Value) -> Result<Outgoing, String> {
    match (asked.get("text"), asked.get("base64")) {
        (Some(Value::String(text)), None) => Ok(Outgoing { body: Bytes::from(text.clone()), binary: false }),
        (None, Some(Value::String(text))) => {
            let body = STANDARD.decode(text).map_err(|_| "`base64` is none".to_owned())?;
            Ok(Outgoing { body: body.into(), binary: true })
        }
        _ => Err("write the message as `{\"text\": \"…\"}` or `{\"base64\": \"…\"}`".to_owned()),
    }
}

/// A code and a reason that may stand in a Close frame.
pub fn close_of(asked: &Value) -> Result<Close, String> {
    let code = match asked.get("code") {
        None | Some(Value::Null) => Some(Close::DELETED.code),
        Some(code) => code.as_u64().and_then(|code| u16::try_from(code).ok()),
    };
    let may_be_sent = |code: &u16| matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
    let code = code.filter(may_be_sent).ok_or("`code` must be 1000 to 1003, 1007 to 1014, or 3000 to 4999")?;
    let reason = match asked.get("reason") {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(reason)) if reason.len() <= LONGEST_REASON => reason.clone(),
        Some(Value::String(_)) => return Err(format!("`reason` may have {LONGEST_REASON} bytes")),
        Some(_) => return Err("`reason` must be a text".to_owned()),
    };
    Ok(Close::by_client(code, &reason))
}

fn find(engine: &Engine, id: &str) -> Result<Arc<Connection>, Box<Answer>> {
    let decoded = percent_encoding::percent_decode_str(id).decode_utf8_lossy();
    let found = ConnectionId::parse(&decoded).and_then(|id| engine.connections.find(&id).ok());
    found.ok_or_else(|| Box::new(gone(&decoded)))
}

fn gone(id: &str) -> Answer {
    error(StatusCode::NOT_FOUND, &format!("no connection `{id}` is open here"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_close_has_a_code_that_may_be_sent() {
        let check = |asked: Value, expected: Option<u16>| {
            assert_eq!(close_of(&asked).ok().map(|close| close.code), expected, "{asked}");
        };
        check(json!({}), Some(1000));
        check(json!({ "code": 4001, "reason": "moved" }), Some(4001));
        for code in [0, 999, 1004, 1005, 1006, 1015, 2999, 5000, 66536] {
            check(json!({ "code": code }), None);
        }
        check(json!({ "code": "1000" }), None);
        check(json!({ "reason": 7 }), None);
        check(json!({ "reason": "x".repeat(123) }), Some(1000));
        check(json!({ "reason": "x".repeat(124) }), None);
    }

    #[test]
    fn a_message_is_text_or_base64() {
        assert!(message(&json!({ "text": "hi" })).is_ok_and(|message| !message.binary && message.body == "hi"));
        assert!(message(&json!({ "base64": "aGk=" })).is_ok_and(|message| message.binary && message.body == "hi"));
        for wrong in [json!({}), json!({ "text": 1 }), json!({ "base64": "?" }), json!({ "text": "a", "base64": "" })] {
            assert!(message(&wrong).is_err(), "{wrong}");
        }
    }
}
