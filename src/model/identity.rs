//! Who a caller is, as far as the steps found out: what its authorizer said, who signed, whose API key it showed.
//!
//! `$connect` settles it for a connection's whole life (a route with `refreshes_authorization` may renew it), a
//! request of an HTTP API for that request alone.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::clock::Timestamp;
use super::headers;

#[derive(Debug, Clone, Default)]
pub struct Identity {
    pub granted: Option<Arc<Granted>>,
    pub signer: Option<Arc<Signer>>,
    pub api_key: Option<ApiKey>,
    /// How long the authorizer took, where one was asked.
    pub authorizer_latency_ms: Option<u64>,
    pub expiry: Option<Expiry>,
}

/// When a token is no longer good, leeway included, and the close code of a socket that outlived it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expiry {
    pub at: Timestamp,
    pub close_code: u16,
}

/// The API key that a call was made with. Printing it shows its name alone.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// Its name in the file; `apiKeyId` in events.
    pub id: Arc<str>,
    /// As the caller showed it; AWS's events carry it.
    pub value: Arc<str>,
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Who signed, as IAM would name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signer {
    pub access_key: String,
    pub account_id: String,
    /// The credential's name in the file; AWS has an opaque id there.
    pub user: String,
    pub user_arn: String,
}

/// What an authorizer said of a caller that it let pass.
#[derive(Clone)]
pub struct Granted {
    pub what: What,
    /// `X-Livegate-Authorizer-<name>` for each claim or context key.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

#[derive(Clone)]
pub enum What {
    /// A token's claims, and which of the route's scopes it has; `None` where the route asks for none.
    Jwt { claims: Map<String, Value>, scopes: Option<Vec<String>> },
    /// What an authorizer of type `http` or `lambda` answered.
    Custom { context: Map<String, Value>, principal_id: Option<String> },
}

impl fmt::Debug for Granted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Claims are about people, and no log's business.
        f.debug_struct("Granted").finish_non_exhaustive()
    }
}

impl Granted {
    pub fn jwt(claims: Map<String, Value>, scopes: Option<Vec<String>>) -> Self {
        let principal_id = claims.get("sub").and_then(Value::as_str).map(str::to_owned);
        let headers = headers(&claims, principal_id.as_deref());
        Self { what: What::Jwt { claims, scopes }, headers }
    }

    pub fn custom(mut context: Map<String, Value>, principal_id: Option<String>) -> Self {
        if principal_id.is_some() {
            // A context key of this name would say twice who it is.
            context.remove("principalId");
        }
        let headers = headers(&context, principal_id.as_deref());
        Self { what: What::Custom { context, principal_id }, headers }
    }

    /// Who the caller is to whoever granted it: the token's subject, or the policy's principal.
    pub fn principal_id(&self) -> Option<&str> {
        match &self.what {
            What::Jwt { claims, .. } => claims.get("sub").and_then(Value::as_str),
            What::Custom { principal_id, .. } => principal_id.as_deref(),
        }
    }

    /// What `$context.authorizer.NAME` stands for: `principalId`, `claims.NAME` of a token, or a context key with
    /// the keys of objects behind dots. A claim is found by its own name as well.
    pub fn context(&self, name: &str) -> Option<Cow<'_, str>> {
        if name == "principalId"
            && let Some(principal_id) = self.principal_id()
        {
            return Some(Cow::Borrowed(principal_id));
        }
        match &self.what {
            What::Jwt { claims, .. } => claims.get(name.strip_prefix("claims.").unwrap_or(name)).map(claim_text),
            What::Custom { context, .. } => find(context, name).map(plain_text),
        }
    }

    /// The same, a list's items one by one: `groups` of a token is each of them.
    pub fn values(&self, name: &str) -> Vec<Cow<'_, str>> {
        let found = match &self.what {
            What::Jwt { claims, .. } => claims.get(name.strip_prefix("claims.").unwrap_or(name)),
            What::Custom { context, .. } => find(context, name),
        };
        match found {
            Some(Value::Array(items)) => items.iter().map(plain_text).collect(),
            _ => self.context(name).into_iter().collect(),
        }
    }
}

impl Identity {
    /// Who called: the principal of an authorizer, or whose credential signed.
    pub fn user(&self) -> Option<&str> {
        let granted = self.granted.as_deref().and_then(|granted| granted.principal_id());
        granted.or_else(|| self.signer.as_ref().map(|signer| signer.user.as_str()))
    }

    /// `requestContext.authorizer` of a connection's events: flat, and of a context every value is text. The latency
    /// is in the event of `$connect` alone.
    pub fn shown_on_connection(&self, is_connect: bool) -> Option<Value> {
        let granted = self.granted.as_ref()?;
        let mut shown = match &granted.what {
            What::Jwt { claims, scopes } => {
                Map::from_iter([("claims".to_owned(), claims_shown(claims)), ("scopes".to_owned(), json!(scopes))])
            }
            What::Custom { context, .. } => {
                let texts = context.iter().map(|(name, value)| (name.clone(), Value::from(&*plain_text(value))));
                texts.collect()
            }
        };
        if let Some(principal_id) = granted.principal_id() {
            shown.insert("principalId".into(), principal_id.into());
        }
        if let Some(latency) = self.authorizer_latency_ms.filter(|_| is_connect) {
            shown.insert("integrationLatency".into(), latency.into());
        }
        Some(Value::Object(shown))
    }

    /// `requestContext.authorizer` of an HTTP request's event in format 2.0.
    pub fn shown_v2(&self) -> Option<Box<RawValue>> {
        if let Some(signer) = &self.signer {
            return Some(raw(&json!({ "iam": {
                "accessKey": signer.access_key,
                "accountId": signer.account_id,
                "callerId": signer.user,
                "cognitoIdentity": null,
                "principalOrgId": null,
                "userArn": signer.user_arn,
                "userId": signer.user,
            } })));
        }
        Some(raw(&match &self.granted.as_ref()?.what {
            What::Jwt { claims, scopes } => json!({ "jwt": { "claims": claims_shown(claims), "scopes": scopes } }),
            What::Custom { context, .. } => json!({ "lambda": context }),
        }))
    }

    /// The same in format 1.0.
    pub fn shown_v1(&self) -> Option<Box<RawValue>> {
        let granted = self.granted.as_ref()?;
        Some(raw(&match &granted.what {
            What::Jwt { claims, scopes } => json!({ "claims": claims_shown(claims), "scopes": scopes }),
            What::Custom { context, .. } => {
                let mut shown = context.clone();
                if let Some(principal_id) = granted.principal_id() {
                    shown.insert("principalId".into(), principal_id.into());
                }
                if let Some(latency) = self.authorizer_latency_ms {
                    shown.insert("integrationLatency".into(), latency.into());
                }
                Value::Object(shown)
            }
        }))
    }

    /// What `$context.NAME` stands for, of the names that are about the caller.
    pub fn context(&self, name: &str) -> Option<Cow<'_, str>> {
        if let Some(name) = name.strip_prefix("authorizer.") {
            let granted = self.granted.as_ref()?;
            return match (granted.context(name), self.authorizer_latency_ms) {
                (None, Some(latency)) if name == "integrationLatency" => Some(Cow::Owned(latency.to_string())),
                (found, _) => found,
            };
        }
        let signer = self.signer.as_ref();
        let found = match name {
            "identity.apiKey" => &self.api_key.as_ref()?.value,
            "identity.apiKeyId" => &self.api_key.as_ref()?.id,
            "identity.accountId" => &*signer?.account_id,
            "identity.caller" | "identity.user" => &*signer?.user,
            "identity.userArn" => &*signer?.user_arn,
            _ => return None,
        };
        Some(Cow::Borrowed(found))
    }
}

/// A claim as AWS writes it into events: text as it is, a list as `[a b]`.
pub fn claim_text(claim: &Value) -> Cow<'_, str> {
    match claim {
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(claim_text).collect();
            Cow::Owned(format!("[{}]", items.join(" ")))
        }
        other => plain_text(other),
    }
}

fn claims_shown(claims: &Map<String, Value>) -> Value {
    claims.iter().map(|(name, value)| (name.clone(), Value::from(&*claim_text(value)))).collect()
}

/// Text as it is, everything else as compact JSON.
fn plain_text(value: &Value) -> Cow<'_, str> {
    match value {
        Value::String(text) => Cow::Borrowed(text),
        other => Cow::Owned(other.to_string()),
    }
}

fn find<'v>(context: &'v Map<String, Value>, name: &str) -> Option<&'v Value> {
    if let Some(value) = context.get(name) {
        return Some(value);
    }
    let (first, rest) = name.split_once('.')?;
    match context.get(first)? {
        Value::Object(inner) => find(inner, rest),
        _ => None,
    }
}

/// One header for each key. Where two keys come to the same name, the one that is spelled so counts, and who it is says
/// the principal alone: nobody gives himself another name by a claim.
fn headers(values: &Map<String, Value>, principal_id: Option<&str>) -> Vec<(HeaderName, HeaderValue)> {
    let principal = principal_id.map(|id| header("principalId", &Value::from(id)));
    let mut all: Vec<(HeaderName, HeaderValue)> = principal.into_iter().collect();
    let is_exact = |name: &str| name.chars().all(|c| !c.is_ascii_uppercase() && is_of_header(c));
    let (exact, others): (Vec<_>, Vec<_>) = values.iter().partition(|(name, _)| is_exact(name));
    for (name, value) in exact.into_iter().chain(others) {
        let (name, value) = header(name, value);
        if !all.iter().any(|(known, _)| *known == name) {
            all.push((name, value));
        }
    }
    all
}

fn is_of_header(character: char) -> bool {
    character.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(character)
}

/// `X-Livegate-Authorizer-<name>`; characters that no name of a header may have become `-`.
fn header(name: &str, value: &Value) -> (HeaderName, HeaderValue) {
    let name: String = name.chars().map(|character| if is_of_header(character) { character } else { '-' }).collect();
    let name = format!("x-livegate-authorizer-{}", name.to_ascii_lowercase());
    let name = HeaderName::try_from(name).unwrap_or(HeaderName::from_static("x-livegate-authorizer-"));
    (name, headers::encoded(&plain_text(value)))
}

fn raw(value: &Value) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).expect("maps with text keys are JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jwt() -> Identity {
        let claims =
            json!({ "sub": "u1", "exp": 7, "email_verified": true, "groups": ["admin", "ops"], "a": { "b": 1 } });
        let Value::Object(claims) = claims else { unreachable!() };
        let granted = Granted::jwt(claims, Some(vec!["orders:read".into()]));
        Identity { granted: Some(Arc::new(granted)), ..Identity::default() }
    }

    fn custom() -> Identity {
        let Value::Object(context) = json!({ "tenant": "acme", "plan": 2, "beta": true, "deep": { "er": "x" } }) else {
            unreachable!()
        };
        let granted = Granted::custom(context, Some("user-42".into()));
        Identity { granted: Some(Arc::new(granted)), authorizer_latency_ms: Some(37), ..Identity::default() }
    }

    #[test]
    fn a_context_reads_as_aws_shows_it() {
        let check = |identity: &Identity, name: &str, expected: Option<&str>| {
            assert_eq!(identity.context(name).as_deref(), expected, "{name}");
        };
        check(&jwt(), "authorizer.claims.sub", Some("u1"));
        check(&jwt(), "authorizer.sub", Some("u1"));
        check(&jwt(), "authorizer.principalId", Some("u1"));
        check(&jwt(), "authorizer.claims.groups", Some("[admin ops]"));
        check(&jwt(), "authorizer.claims.email_verified", Some("true"));
        check(&jwt(), "authorizer.claims", None);
        check(&custom(), "authorizer.tenant", Some("acme"));
        check(&custom(), "authorizer.plan", Some("2"));
        check(&custom(), "authorizer.deep.er", Some("x"));
        check(&custom(), "authorizer.principalId", Some("user-42"));
        check(&custom(), "authorizer.integrationLatency", Some("37"));
        check(&custom(), "authorizer.nope", None);
        check(&custom(), "identity.apiKey", None);
    }

    #[test]
    fn a_list_is_each_of_its_items() {
        let check = |identity: &Identity, name: &str, expected: &[&str]| {
            assert_eq!(identity.granted.as_ref().unwrap().values(name), expected, "{name}");
        };
        check(&jwt(), "groups", &["admin", "ops"]);
        check(&jwt(), "claims.groups", &["admin", "ops"]);
        check(&jwt(), "principalId", &["u1"]);
        check(&jwt(), "nope", &[]);
        check(&custom(), "deep.er", &["x"]);
    }

    #[test]
    fn events_carry_it_in_the_shape_of_their_kind() {
        let flat = json!({ "tenant": "acme", "plan": "2", "beta": "true", "deep": "{\"er\":\"x\"}", "principalId": "user-42" });
        assert_eq!(custom().shown_on_connection(false), Some(flat));
        let connect = custom().shown_on_connection(true).unwrap();
        assert_eq!(connect["integrationLatency"], 37);
        assert_eq!(jwt().shown_on_connection(true).unwrap()["claims"]["exp"], "7");
        let v2: Value = serde_json::from_str(jwt().shown_v2().unwrap().get()).unwrap();
        assert_eq!(v2["jwt"]["claims"]["groups"], "[admin ops]");
        assert_eq!(v2["jwt"]["scopes"], json!(["orders:read"]));
        let v2: Value = serde_json::from_str(custom().shown_v2().unwrap().get()).unwrap();
        assert_eq!(v2["lambda"]["plan"], 2);
    }

    #[test]
    fn backends_get_a_header_for_each_key() {
        let check = |name: &str, value: Value, expected: (&str, &str)| {
            let (name, value) = header(name, &value);
            assert_eq!((name.as_str(), value.to_str().unwrap()), expected);
        };
        check("sub", json!("u1"), ("x-livegate-authorizer-sub", "u1"));
        check("cognito:groups", json!(["a", "b"]), ("x-livegate-authorizer-cognito-groups", "[\"a\",\"b\"]"));
        check("näme", json!("é\r\n"), ("x-livegate-authorizer-n-me", "%C3%A9%0D%0A"));
        check("", json!(1.5), ("x-livegate-authorizer-", "1.5"));
    }

    #[test]
    fn nobody_passes_for_another_by_a_key_of_a_like_name() {
        let Value::Object(claims) = json!({ "SUB": "evil", "principalId": "fake", "sub": "real", "a b": 1, "a-b": 2 })
        else {
            unreachable!()
        };
        let granted = Granted::jwt(claims.clone(), None);
        let check = |granted: &Granted, name: &str, value: &str| {
            let found: Vec<_> = granted.headers.iter().filter(|(own, _)| own.as_str().ends_with(name)).collect();
            assert_eq!(found.iter().map(|(_, value)| value.to_str().unwrap()).collect::<Vec<_>>(), [value], "{name}");
        };
        check(&granted, "-sub", "real");
        check(&granted, "-principalid", "real");
        check(&granted, "-a-b", "2");
        assert_eq!(granted.context("principalId").as_deref(), Some("real"));
        assert_eq!(granted.context("claims.principalId").as_deref(), Some("fake"));
        let granted = Granted::custom(claims, Some("u".into()));
        check(&granted, "-principalid", "u");
    }

    #[test]
    fn nothing_of_it_is_printed() {
        let api_key = ApiKey { id: "acme".into(), value: "hidden".into() };
        let printed = format!("{:?}", Identity { api_key: Some(api_key), ..jwt() });
        assert!(printed.contains("acme") && !printed.contains("hidden") && !printed.contains("u1"), "{printed}");
    }
}
