//! Authorizers of type `http`: a URL gets the event of a Lambda authorizer, and its answer is done.
//!
//! An answer is remembered by what identifies the caller and its policy asked anew for each call, as at AWS, so that a
//! policy about one path does not open another. Equal callers who come at once ask once.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use ::http::header::{CONTENT_TYPE, HOST};
use ::http::{HeaderValue, Method, Request, StatusCode, Uri};
use bytes::Bytes;
use moka::future::Cache;
use regex::Regex;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::identity_source::IdentitySource;
use super::policy::{self, Decision, Policy};
use super::{Asked, Passed, credentials};
use crate::model::body::Body;
use crate::model::call::{ConnectionEvent, Event as Asking, Happening};
use crate::model::client::StageKey;
use crate::model::headers;
use crate::model::identity::Granted;
use crate::model::json;
use crate::model::refusal::{Cause, Kind, Refusal};
use crate::outbound::backends::{Backend, Keep, Outgoing};
use crate::outbound::lambda::authorizer::{self as events, of_handshake, of_request};
use crate::outbound::lambda::{Format, Origin};
use crate::telemetry::metrics::AuthorizerMetrics;

/// The largest answer (AWS's quota for Lambda authorizers).
const LARGEST_ANSWER: usize = 8 * 1024;

/// What is remembered of all answers of one authorizer.
const REMEMBERED: u64 = 16 * 1024 * 1024;

/// A checked authorizer of type `http`.
pub struct Http {
    pub name: String,
    backend: Arc<Backend>,
    uri: Uri,
    host: HeaderValue,
    event: Event,
    format: Format,
    simple_responses: bool,
    identity_sources: Vec<IdentitySource>,
    validation: Option<Regex>,
    timeout: Duration,
    remembered: Option<Cache<Vec<String>, Arc<Verdict>>>,
    metrics: Arc<AuthorizerMetrics>,
}

/// What `Http` is made of; everything in it has been checked.
pub struct Parts {
    pub name: String,
    pub backend: Arc<Backend>,
    pub uri: Uri,
    pub host: HeaderValue,
    pub event: Event,
    pub format: Format,
    pub simple_responses: bool,
    pub identity_sources: Vec<IdentitySource>,
    pub validation: Option<Regex>,
    pub timeout: Duration,
    pub ttl: Duration,
    pub metrics: Arc<AuthorizerMetrics>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    Request,
    Token,
}

/// One answer, as far as it holds for every call of the same caller.
struct Verdict {
    rule: Rule,
    granted: Arc<Granted>,
    usage_identifier_key: Option<Arc<str>>,
    /// A context key whose value is a list or an object, which not every event can carry.
    nested: Option<String>,
    /// About what it takes to remember it, in bytes.
    weight: u32,
}

enum Rule {
    Simple(bool),
    Policy(Policy),
}

/// Why there is no verdict. Shared by all who waited for it.
#[derive(Debug, Clone)]
enum Failure {
    Unauthorized,
    Other(String),
}

impl Http {
    pub fn new(parts: Parts) -> Self {
        let remembered = (!parts.ttl.is_zero()).then(|| {
            let weigh = |identity: &Vec<String>, verdict: &Arc<Verdict>| {
                let length: usize = identity.iter().map(String::len).sum();
                u32::try_from(length).unwrap_or(u32::MAX).saturating_add(verdict.weight)
            };
            Cache::builder().time_to_live(parts.ttl).weigher(weigh).max_capacity(REMEMBERED).build()
        });
        Self {
            name: parts.name,
            backend: parts.backend,
            uri: parts.uri,
            host: parts.host,
            event: parts.event,
            format: parts.format,
            simple_responses: parts.simple_responses,
            identity_sources: parts.identity_sources,
            validation: parts.validation,
            timeout: parts.timeout,
            remembered,
            metrics: parts.metrics,
        }
    }

    /// How many answers are remembered, where any are.
    pub async fn remembered(&self) -> Option<u64> {
        let remembered = self.remembered.as_ref()?;
        // What was kept or has expired of late is counted only then.
        remembered.run_pending_tasks().await;
        Some(remembered.entry_count())
    }

    pub async fn authorize(&self, asked: &Asked<'_>) -> Result<Passed, Refusal> {
        let identity = self.identity(asked)?;
        let verdict = match &self.remembered {
            Some(remembered) => {
                let StageKey { api, stage } = asked.scope.call.stage();
                // What was said of a caller to one stage is no word about another.
                let caller = [&[api.to_string(), stage.to_string()], &*identity].concat();
                let found = remembered.entry_by_ref(&caller).or_try_insert_with(self.ask(asked, &identity)).await;
                let is_hit = found.as_ref().is_ok_and(|found| !found.is_fresh());
                if is_hit { &self.metrics.hits } else { &self.metrics.misses }.increment(1);
                found.map(|found| found.into_value()).map_err(|failure| (*failure).clone())
            }
            None => self.ask(asked, &identity).await,
        };
        let verdict = verdict.map_err(|failure| match failure {
            Failure::Unauthorized => unauthorized(format_args!("authorizer `{}` said so", self.name)),
            Failure::Other(why) => {
                let detail = format_args!("authorizer `{}`: {why}", self.name);
                Kind::AuthorizerFailure.because(detail).by(Cause::AuthorizerFailure)
            }
        })?;
        // Asked anew for each call: an answer that a request remembered may come to serve a connection.
        let is_on_connection = matches!(asked.scope.call.event, Asking::Connection(_));
        let may_nest = !is_on_connection && self.event == Event::Request && self.format == Format::V2;
        if let Some(name) = verdict.nested.as_ref().filter(|_| !may_nest) {
            let detail =
                format_args!("authorizer `{}`: `context.{name}` is neither text, number nor boolean", self.name);
            return Err(Kind::AuthorizerFailure.because(detail).by(Cause::AuthorizerFailure));
        }
        self.decide(&verdict, asked.arn, asked)?;
        for (arn, _) in asked.otherwise {
            self.decide(&verdict, arn, asked)?;
        }
        Ok(Passed {
            granted: Some(verdict.granted.clone()),
            usage_identifier_key: verdict.usage_identifier_key.clone(),
            ..Passed::default()
        })
    }

    /// What identifies the caller; everything that should must be there.
    fn identity(&self, asked: &Asked<'_>) -> Result<Vec<String>, Refusal> {
        let mut identity = Vec::with_capacity(self.identity_sources.len());
        for source in &self.identity_sources {
            match source.value(&asked.scope) {
                Some(value) => identity.push(value.into_owned()),
                None => return Err(unauthorized("an identity source is missing or empty")),
            }
        }
        if let (Some(validation), Some(token)) = (&self.validation, identity.first())
            && !validation.is_match(token)
        {
            return Err(unauthorized("the token does not match identity_validation_expression"));
        }
        Ok(identity)
    }

    async fn ask(&self, asked: &Asked<'_>, identity: &[String]) -> Result<Arc<Verdict>, Failure> {
        let mut request = Request::new(Body::Whole(self.event(asked, identity)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        request.headers_mut().insert(HOST, self.host.clone());
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        request.headers_mut().insert("x-amzn-trace-id", asked.scope.call.trace_id());
        asked.scope.call.pass_trace_on(request.headers_mut());
        let answer = self.backend.call(Outgoing::of(request), Keep::Whole(LARGEST_ANSWER), self.timeout).await;
        let answer = answer.map_err(|error| Failure::Other(error.to_string()))?;
        read(answer.status, &answer.body, self.simple_responses).map(Arc::new)
    }

    fn event(&self, asked: &Asked<'_>, identity: &[String]) -> Bytes {
        let about = events::Asked { arn: asked.arn, identity };
        let call = asked.scope.call;
        match (self.event, call.event) {
            (Event::Token, _) => events::token(&about),
            (Event::Request, Asking::Connection(happening)) => of_handshake(&about, call, happening),
            (Event::Request, Asking::Request(request)) => {
                let trace_id = call.trace_id();
                let forwarded_for = headers::joined(&request.head.headers, "x-forwarded-for").unwrap_or_default();
                let origin = Origin {
                    account_id: asked.account_id,
                    stage_variables: asked.scope.stage_variables,
                    trace_id: &trace_id,
                    forwarded_for: &forwarded_for,
                    authorizer: None,
                };
                of_request(self.format, &about, call, request, &origin)
            }
        }
    }

    fn decide(&self, verdict: &Verdict, arn: &str, asked: &Asked<'_>) -> Result<(), Refusal> {
        let refused = |kind: Kind, why: &str| {
            Err(kind
                .because(format_args!("authorizer `{}`: {why} `{}`", self.name, arn.escape_debug()))
                .by(Cause::Denied))
        };
        let policy = match &verdict.rule {
            Rule::Simple(true) => return Ok(()),
            Rule::Simple(false) => return refused(Kind::AccessDenied, "isAuthorized is false for"),
            Rule::Policy(policy) => policy,
        };
        let keys = |name: &str| condition_key(asked, name);
        match policy.decide(&policy::Asked { action: credentials::INVOKE, resource: arn, context: &keys }) {
            Decision::Allowed => Ok(()),
            Decision::NotAllowed => refused(Kind::AccessDenied, "no statement allows"),
            Decision::Denied => refused(Kind::ExplicitDeny, "a statement denies"),
        }
    }
}

/// IAM's condition keys, as far as a gateway knows them.
fn condition_key<'a>(asked: &Asked<'_>, name: &str) -> Option<Cow<'a, str>> {
    let call = asked.scope.call;
    let (source_ip, headers, scheme) = match call.event {
        Asking::Request(request) => (request.source_ip, Some(&request.head.headers), request.scheme),
        Asking::Connection(Happening { client, event: ConnectionEvent::Connect(handshake) }) => {
            (client.source_ip, Some(&handshake.headers), handshake.scheme)
        }
        Asking::Connection(Happening { client, .. }) => (client.source_ip, None, ""),
    };
    let header = |name: &str| headers::last(headers?, name).map(|value| value.into_owned());
    let found = match name {
        "aws:sourceip" => Some(source_ip.to_canonical().to_string()),
        "aws:useragent" => header("user-agent"),
        "aws:referer" => header("referer"),
        "aws:securetransport" => Some((scheme == "https").to_string()),
        "aws:currenttime" => Some(call.at.iso8601()),
        "aws:epochtime" => Some((call.at.0 / 1000).to_string()),
        _ => None,
    };
    found.map(Cow::Owned)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PolicyAnswer {
    principal_id: Value,
    policy_document: Value,
    #[serde(default)]
    context: Option<Map<String, Value>>,
    #[serde(default)]
    usage_identifier_key: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SimpleAnswer {
    is_authorized: bool,
    #[serde(default)]
    context: Option<Map<String, Value>>,
}

/// Reads an answer. A function that fails with `Unauthorized` has the caller told so; a URL says it by its status as
/// well.
fn read(status: StatusCode, body: &Bytes, simple: bool) -> Result<Verdict, Failure> {
    let other = |why: String| Failure::Other(why);
    if status == StatusCode::UNAUTHORIZED || says_unauthorized(body) {
        return Err(Failure::Unauthorized);
    }
    if !status.is_success() {
        return Err(other(format!("it answered {status}")));
    }
    if simple {
        let answer: SimpleAnswer = serde_json::from_slice(body)
            .map_err(|error| other(format!("no simple answer: {}{}", json::fault(&error), hint(body, simple))))?;
        let (context, nested) = without_nulls(answer.context);
        let granted = Arc::new(Granted::custom(context, None));
        let rule = Rule::Simple(answer.is_authorized);
        let weight = weight(body, &granted);
        return Ok(Verdict { rule, granted, usage_identifier_key: None, nested, weight });
    }
    let answer: PolicyAnswer = serde_json::from_slice(body)
        .map_err(|error| other(format!("no answer with a policy: {}{}", json::fault(&error), hint(body, simple))))?;
    let principal_id = match answer.principal_id {
        Value::String(text) if !text.is_empty() => text,
        Value::Number(number) => number.to_string(),
        _ => return Err(other("`principalId` is no text".to_owned())),
    };
    let policy = Policy::read(&answer.policy_document).map_err(|error| other(format!("`policyDocument`: {error}")))?;
    let (context, nested) = without_nulls(answer.context);
    let granted = Arc::new(Granted::custom(context, Some(principal_id)));
    Ok(Verdict {
        rule: Rule::Policy(policy),
        weight: weight(body, &granted),
        granted,
        nested,
        usage_identifier_key: answer.usage_identifier_key.map(Arc::from),
    })
}

/// What would do where the answer is one of the other kind.
fn hint(body: &[u8], simple: bool) -> &'static str {
    let has = |name| serde_json::from_slice::<Value>(body).is_ok_and(|answer| answer.get(name).is_some());
    match simple {
        true if has("policyDocument") => "; it is a policy: leave out `simple_responses`",
        false if has("isAuthorized") => "; it is a simple answer: set `simple_responses = true`",
        _ => "",
    }
}

/// How a failed function looks: `"Unauthorized"`, or an object with that as its `errorMessage`.
fn says_unauthorized(body: &[u8]) -> bool {
    match serde_json::from_slice(body) {
        Ok(Value::String(text)) => text == "Unauthorized",
        Ok(Value::Object(answer)) => answer.get("errorMessage").is_some_and(|message| message == "Unauthorized"),
        _ => body.trim_ascii() == b"Unauthorized",
    }
}

/// An answer that was taken apart is several times its text, and each context key is there twice, as a header too.
fn weight(body: &[u8], granted: &Granted) -> u32 {
    u32::try_from(512 + 4 * body.len() + 384 * granted.headers.len()).unwrap_or(u32::MAX)
}

/// A context, and the first key in it whose value is a list or an object.
fn without_nulls(context: Option<Map<String, Value>>) -> (Map<String, Value>, Option<String>) {
    let context: Map<_, _> = context.unwrap_or_default().into_iter().filter(|(_, value)| !value.is_null()).collect();
    let nested = context.iter().find(|(_, value)| value.is_array() || value.is_object()).map(|(name, _)| name.clone());
    (context, nested)
}

fn unauthorized(detail: impl std::fmt::Display) -> Refusal {
    Kind::Unauthorized.because(detail).by(Cause::Unauthorized)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(simple: bool, status: u16, body: &str, expected: &str) {
        let status = StatusCode::from_u16(status).unwrap();
        let found = match read(status, &Bytes::from(body.to_owned()), simple) {
            Ok(Verdict { nested: Some(name), .. }) => format!("nested {name}"),
            Ok(Verdict { rule: Rule::Simple(is_authorized), .. }) => format!("simple {is_authorized}"),
            Ok(Verdict { granted, .. }) => format!("policy for {}", granted.principal_id().unwrap_or("nobody")),
            Err(Failure::Unauthorized) => "unauthorized".to_owned(),
            Err(Failure::Other(why)) => why,
        };
        assert!(found.contains(expected), "{body}: {found}");
    }

    #[test]
    fn answers_with_a_policy() {
        let allow =
            r#""policyDocument":{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}"#;
        check(false, 200, &format!(r#"{{"principalId":"u1",{allow}}}"#), "policy for u1");
        check(false, 200, &format!(r#"{{"principalId":7,{allow},"context":{{"a":1,"b":null}}}}"#), "policy for 7");
        check(false, 200, &format!("{{{allow}}}"), "missing field `principalId`");
        check(false, 200, &format!(r#"{{"principalId":"",{allow}}}"#), "`principalId` is no text");
        check(false, 200, r#"{"principalId":"u1"}"#, "missing field `policyDocument`");
        check(false, 200, r#"{"principalId":"u1","policyDocument":{}}"#, "`policyDocument`: ");
        let nested = format!(r#"{{"principalId":"u1",{allow},"context":{{"roles":["a"]}}}}"#);
        check(false, 200, &nested, "nested roles");
        check(false, 200, r#"{"isAuthorized":true}"#, "no answer with a policy");
    }

    #[test]
    fn simple_answers() {
        check(true, 200, r#"{"isAuthorized":true,"context":{"role":"a"}}"#, "simple true");
        check(true, 200, r#"{"isAuthorized":false}"#, "simple false");
        check(true, 200, r#"{"isAuthorized":"true"}"#, "no simple answer");
        check(true, 200, r#"{"isAuthorized":true,"context":{"a":{}}}"#, "nested a");
    }

    #[test]
    fn failures() {
        check(false, 401, "", "unauthorized");
        check(false, 200, r#""Unauthorized""#, "unauthorized");
        check(false, 500, r#"{"errorMessage":"Unauthorized"}"#, "unauthorized");
        check(false, 200, r#"{"errorMessage":"unauthorized"}"#, "no answer with a policy");
        check(false, 500, "", "it answered 500");
        check(false, 403, "", "it answered 403");
        check(false, 200, "", "no answer with a policy");
    }
}
