//! The `[authorizers.<name>]` tables: what decides who a caller is and whether it may.

use serde_json::json;

use crate::model::problem::Place;
use crate::model::settings::{
    Duration, Expression, Integer, Node, PositiveDuration, Reading, Row, Secret, Setting, TableReference, Text, Value,
    choice, settings,
};
use crate::outbound::lambda::Format;

/// One authorizer as written.
#[derive(Debug, Clone)]
pub enum Authorizer {
    Jwt(Box<Jwt>),
    Http(Box<Http>),
    AwsIam(AwsIam),
}

choice! {
    /// The `type` of an authorizer.
    pub enum AuthorizerKind {
        /// Reads tokens itself.
        Jwt = "jwt",
        /// Asks a URL.
        Http = "http",
        /// Wants a signature (SigV4) of one of the credentials.
        AwsIam = "aws_iam",
    }
    later {
        "lambda": "use `type = \"http\"`, which posts the same event to a URL; Lambda functions come with a later version",
    }
}

settings! {
    /// `type = "jwt"`: reads and checks JSON Web Tokens.
    pub struct Jwt {
        /// Who must have issued a token, exactly as in its `iss`. Its keys are found by OIDC discovery
        /// (`<issuer>/.well-known/openid-configuration`), unless one of the next three says where they are.
        pub issuer: Option<Text>,
        /// Where the issuer's keys are (a JWK set).
        pub jwks_uri: Option<Text>,
        /// The shared secret of tokens signed with HS256, HS384 or HS512; at least 32 bytes.
        pub secret: Option<Secret>,
        /// The public key: PEM, a JWK or a JWK set, or the path of a file with one of them.
        pub public_key: Option<Text>,
        /// Of these, a token's `aud` must have one (its `client_id`, if it has no `aud`); empty accepts every token of the issuer.
        pub audience: Vec<Text> = [],
        /// Narrows the algorithms that the type of the key allows, such as `["RS256"]`.
        pub algorithms: Vec<Text> = [],
        /// How far the issuer's clock may be from ours, for `exp`, `nbf` and `iat`. A live socket is closed at `exp` + `leeway`.
        pub leeway: Duration = "0s",
        /// Where the token is; the first of these that a request has counts. `Bearer ` in front is no part of it. In
        /// `$request.header.Sec-WebSocket-Protocol`, where browsers can put one, it is the member that looks like a token.
        pub identity_source: Vec<Expression> = ["$request.header.Authorization"],
        /// Where a message to a route with `refreshes_authorization` has its fresh token.
        pub refresh_source: Vec<Expression> = ["$request.body.token"],
        /// The close code of a socket that outlived its token.
        pub expired_close_code: Integer<4000, 4999> = 4401,
        check has_keys;
    }
}

settings! {
    /// `type = "http"`: posts the event of a Lambda authorizer to a URL, and does what the answer says.
    pub struct Http {
        /// Where to; a pool's name may stand for the host.
        pub uri: Text,
        /// What is posted: the request, or a token alone.
        pub event: Event = "REQUEST",
        /// The format of the event and of its answer on an HTTP API; on a WebSocket API it is that of AWS's there.
        pub payload_format: Format = "2.0",
        /// Reads answers of `{"isAuthorized": true, "context": {…}}` in place of policies.
        pub simple_responses: bool = false,
        /// What identifies a caller, such as `["$request.header.Authorization"]`. Each must be there, or the caller gets
        /// 401 and nobody is asked. Answers are remembered by these.
        pub identity_source: Vec<Expression> = [],
        /// A regular expression that the token of a `TOKEN` event must match as a whole, or the caller gets 401.
        pub identity_validation_expression: Option<Text>,
        /// How long an answer is remembered and good for every route with this authorizer (AWS: at most one hour).
        pub ttl: Duration = "0s",
        /// How long the answer may take (AWS: 10 seconds).
        pub timeout: PositiveDuration = "10s",
        check is_sound;
    }
}

settings! {
    /// `type = "aws_iam"`: wants a signature of one of `[credentials.<name>]`, which must allow the call. It has no
    /// settings; a route may name `aws_iam` without a table.
    pub struct AwsIam {
    }
}

choice! {
    /// Which event an authorizer gets.
    pub enum Event {
        /// What the request brings.
        Request = "REQUEST",
        /// The token alone.
        Token = "TOKEN",
    }
}

fn has_keys(jwt: &Jwt, reading: &mut Reading) {
    let problems = &mut reading.problems;
    let written: Vec<(&str, &Place)> = [
        jwt.jwks_uri.as_ref().map(|text| ("jwks_uri", &text.place)),
        jwt.secret.as_ref().map(|secret| ("secret", &secret.place)),
        jwt.public_key.as_ref().map(|text| ("public_key", &text.place)),
    ]
    .into_iter()
    .flatten()
    .collect();
    match written.as_slice() {
        [] if jwt.issuer.is_none() => {
            let help = "add `issuer`, whose keys are then looked up, or `jwks_uri`, `public_key` or `secret`";
            problems.problem_with_help(&jwt.place, "nothing says which keys tokens are signed with", help);
        }
        [] | [_] => {}
        [(first, _), (second, place), ..] => {
            let found = format!("`{first}` and `{second}` both say which keys tokens are signed with");
            problems.problem_with_help(place, found, "keep one of them");
        }
    }
    if jwt.identity_source.is_empty() {
        let help = "write `[\"$request.header.Authorization\"]`, or leave it out";
        problems.problem_with_help(&jwt.place, "`identity_source` names no place for the token", help);
    }
}

fn is_sound(http: &Http, reading: &mut Reading) {
    let problems = &mut reading.problems;
    if http.ttl.0 > LONGEST_TTL {
        let found = "answers are remembered for an hour at most";
        problems.problem_with_help(&http.place, found, "write a `ttl` of at most `1h`");
    }
    if !http.ttl.0.is_zero() && http.identity_source.is_empty() {
        let found = "`ttl` remembers answers by `identity_source`, and there is none";
        let help = "add `identity_source = [\"$request.header.Authorization\"]`, or leave out `ttl`";
        problems.problem_with_help(&http.place, found, help);
    }
    if http.event == Event::Token {
        if http.identity_source.len() != 1 {
            let found = "the event `TOKEN` carries exactly one identity";
            let help = "write one `identity_source`, such as `[\"$request.header.Authorization\"]`";
            problems.problem_with_help(&http.place, found, help);
        }
        if http.simple_responses {
            let found = "the event `TOKEN` is answered by a policy";
            problems.problem_with_help(
                &http.place,
                found,
                "leave out `simple_responses`, or write `event = \"REQUEST\"`",
            );
        }
    } else if let Some(expression) = &http.identity_validation_expression {
        let found = "`identity_validation_expression` is about the event `TOKEN`";
        problems.problem_with_help(&expression.place, found, "leave it out, or write `event = \"TOKEN\"`");
    }
    if http.simple_responses && http.payload_format == Format::V1 {
        let found = "`simple_responses` belongs to format 2.0";
        problems.problem_with_help(&http.place, found, "leave out `payload_format`");
    }
}

const LONGEST_TTL: std::time::Duration = std::time::Duration::from_secs(3600);

impl Authorizer {
    pub fn place(&self) -> &Place {
        match self {
            Authorizer::Jwt(jwt) => &jwt.place,
            Authorizer::Http(http) => &http.place,
            Authorizer::AwsIam(iam) => &iam.place,
        }
    }
}

impl Setting for Authorizer {
    fn read(mut node: Node, reading: &mut Reading) -> Option<Self> {
        let Value::Table(entries) = &mut node.value else {
            reading.refuse(&node, "authorizer", "write a table with `type` and its keys");
            return None;
        };
        let Some(at) = entries.iter().position(|entry| entry.key == "type") else {
            let help = "add `type = \"jwt\"`, `type = \"http\"` or `type = \"aws_iam\"`";
            reading.problems.problem_with_help(&node.place, "`type` is missing", help);
            return None;
        };
        let kind = Node::of_entry(entries.remove(at), &node.place);
        match AuthorizerKind::read(kind, reading)? {
            AuthorizerKind::Jwt => Jwt::read(node, reading).map(Box::new).map(Authorizer::Jwt),
            AuthorizerKind::Http => Http::read(node, reading).map(Box::new).map(Authorizer::Http),
            AuthorizerKind::AwsIam => AwsIam::read(node, reading).map(Authorizer::AwsIam),
        }
    }

    fn schema() -> serde_json::Value {
        let with_type = |kind: &str, mut schema: serde_json::Value| {
            schema["properties"]["type"] = json!({ "const": kind, "description": "The type of authorizer." });
            if let Some(required) = schema["required"].as_array_mut() {
                required.push("type".into());
            }
            schema
        };
        json!({ "oneOf": [
            with_type("jwt", Jwt::schema()),
            with_type("http", Http::schema()),
            with_type("aws_iam", AwsIam::schema()),
        ] })
    }

    fn kind() -> String {
        "table".into()
    }

    fn tables(path: &str, into: &mut Vec<TableReference>) {
        for variant in [Jwt::tables, Http::tables, AwsIam::tables] {
            let first = into.len();
            variant(path, into);
            if let Some(table) = into.get_mut(first) {
                table.rows.insert(0, Row::of::<AuthorizerKind>("type", None, &["The type of authorizer."]));
            }
        }
    }
}
