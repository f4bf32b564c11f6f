//! One variable: which kinds there are, where each may stand, and its value as text and as JSON.

use std::borrow::Cow;

use http::HeaderName;
use serde_json::value::RawValue;

use super::Error;
use super::context_names::{self, Protocol};
use super::json_path::JsonPath;
use super::source::{Source, beginning};

/// Which kinds of variable a key of the file allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowed {
    pub body: bool,
    /// The request's headers, query and path.
    pub request: bool,
    pub response: bool,
    pub context: bool,
    pub stage_variables: bool,
    pub protocol: Protocol,
}

impl Allowed {
    /// All that a WebSocket route has.
    pub const ALL: Self = Self { body: true, context: true, ..Self::STAGE_VARIABLES };
    /// All that the request of an HTTP route has.
    pub const REQUEST: Self = Self { request: true, protocol: Protocol::Http, ..Self::ALL };
    /// The answer to a request, and all of the request that is still there by then.
    pub const ANSWER: Self = Self { body: false, response: true, ..Self::REQUEST };
    pub const STAGE_VARIABLES: Self = Self { stage_variables: true, ..Self::NONE };
    pub const NONE: Self = Self {
        body: false,
        request: false,
        response: false,
        context: false,
        stage_variables: false,
        protocol: Protocol::WebSocket,
    };

    fn kinds(self) -> [(Kind, bool); 8] {
        [
            (Kind::Body, self.body),
            (Kind::Header, self.request),
            (Kind::Query, self.request),
            (Kind::Path, self.request),
            (Kind::ResponseHeader, self.response),
            (Kind::ResponseBody, self.response),
            (Kind::Context, self.context),
            (Kind::StageVariable, self.stage_variables),
        ]
    }

    fn what_would_do(self) -> String {
        let allowed = self.kinds().into_iter().filter(|(_, allowed)| *allowed);
        let would_do: Vec<_> = allowed.map(|(kind, _)| kind.example()).collect();
        match would_do.as_slice() {
            [] => r"no variable may; write `\$` for a dollar".into(),
            [only] => format!("only {only} may"),
            [first @ .., last] => format!("only {} and {last} may", first.join(", ")),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Body,
    Header,
    Query,
    Path,
    ResponseHeader,
    ResponseBody,
    Context,
    StageVariable,
}

impl Kind {
    /// How its variables begin.
    fn prefix(self) -> &'static str {
        match self {
            Kind::Body => "request.body",
            Kind::Header => "request.header.",
            Kind::Query => "request.querystring.",
            Kind::Path => "request.path",
            Kind::ResponseHeader => "response.header.",
            Kind::ResponseBody => "response.body",
            Kind::Context => "context.",
            Kind::StageVariable => "stageVariables.",
        }
    }

    fn example(self) -> &'static str {
        match self {
            Kind::Body => "`request.body.x`",
            Kind::Header => "`request.header.x`",
            Kind::Query => "`request.querystring.x`",
            Kind::Path => "`request.path.x`",
            Kind::ResponseHeader => "`response.header.x`",
            Kind::ResponseBody => "`response.body.x`",
            Kind::Context => "`context.x`",
            Kind::StageVariable => "`stageVariables.x`",
        }
    }

    /// Is it known wherever variables are? The others are HTTP's, and not mentioned elsewhere.
    fn is_on_every_route(self) -> bool {
        matches!(self, Kind::Body | Kind::Context | Kind::StageVariable)
    }
}

/// One variable, without the dollar and braces around it.
#[derive(Debug, Clone, PartialEq)]
pub enum Variable {
    Body(JsonPath),
    /// The body of a request as it came, whatever it is. (A message of a WebSocket API is JSON's text even as a whole.)
    WholeBody,
    Header(String),
    Query(String),
    Path,
    PathParameter(String),
    ResponseHeader(String),
    ResponseBody(JsonPath),
    WholeResponseBody,
    Context(String),
    StageVariable(String),
}

impl Variable {
    pub fn parse(text: &str, allowed: Allowed) -> Result<Self, Error> {
        let is_http = allowed.protocol == Protocol::Http;
        let mut kinds = allowed.kinds().into_iter().filter(|(kind, _)| is_http || kind.is_on_every_route());
        let Some((kind, may_stand_here)) = kinds.find(|(kind, _)| text.starts_with(kind.prefix())) else {
            return Err(Error::new(0, format!("`{text}` is no variable of this place"), allowed.what_would_do()));
        };
        if !may_stand_here {
            return Err(Error::new(0, format!("`{text}` may not stand here"), allowed.what_would_do()));
        }
        let name = &text[kind.prefix().len()..];
        let parsed = match kind {
            Kind::Body if is_http && name.is_empty() => Ok(Variable::WholeBody),
            Kind::Body => json_path(name, allowed.protocol).map(Variable::Body),
            Kind::Header => header_name(name).map(Variable::Header),
            Kind::Query => query_name(name).map(Variable::Query),
            Kind::Path => path_parameter(name),
            Kind::ResponseHeader => header_name(name).map(Variable::ResponseHeader),
            Kind::ResponseBody if name.is_empty() => Ok(Variable::WholeResponseBody),
            Kind::ResponseBody => json_path(name, allowed.protocol).map(Variable::ResponseBody),
            Kind::Context => context_names::check(name, allowed.protocol).map(|()| Variable::Context(name.into())),
            Kind::StageVariable => stage_variable_name(name).map(|()| Variable::StageVariable(name.into())),
        };
        parsed.map_err(|error| error.moved(kind.prefix().len()))
    }

    /// The variable's value as text; `None` if there is none. What is sought in a body that is not JSON is
    /// not there, but the whole of such a body is its text.
    pub fn text<'s>(&self, source: &'s (impl Source + ?Sized)) -> Option<Cow<'s, str>> {
        match self {
            Variable::Body(path) => match path.find(source.searched_body()) {
                Ok(found) => found,
                Err(_) => plain_body(path, source.body()).map(Cow::Borrowed),
            },
            Variable::WholeBody => whole(source.body()),
            Variable::Header(name) => source.header(name),
            Variable::Query(name) => source.query(name),
            Variable::Path => source.path().map(Cow::Borrowed),
            Variable::PathParameter(name) => source.path_parameter(name),
            Variable::ResponseHeader(name) => source.response_header(name),
            Variable::ResponseBody(path) => path.find(beginning(source.response_body())).ok().flatten(),
            Variable::WholeResponseBody => whole(source.response_body()),
            Variable::Context(name) => source.context(name),
            Variable::StageVariable(name) => source.stage_variable(name).map(Cow::Borrowed),
        }
    }

    /// The same as JSON. Of the body: as the message spells it. Texts become JSON strings, save that the
    /// context's numbers are numbers, and that authorizer values and stage variables which are JSON stay so.
    /// (No client chooses those; its user agent is a string however much it looks like an object.)
    pub fn json<'s>(&self, source: &'s (impl Source + ?Sized)) -> Option<Cow<'s, str>> {
        let (text, may_be_json) = match self {
            Variable::Body(path) => match path.find_json(source.searched_body()) {
                Ok(found) => return found,
                Err(_) => (plain_body(path, source.body()).map(Cow::Borrowed)?, false),
            },
            Variable::ResponseBody(path) => return path.find_json(beginning(source.response_body())).ok().flatten(),
            Variable::WholeBody | Variable::WholeResponseBody => (self.text(source)?, true),
            Variable::Context(name) => {
                (source.context(name)?, context_names::is_number(name) || name.starts_with("authorizer."))
            }
            Variable::StageVariable(name) => (source.stage_variable(name).map(Cow::Borrowed)?, true),
            _ => (self.text(source)?, false),
        };
        let is_json = may_be_json && serde_json::from_str::<&RawValue>(&text).is_ok();
        Some(if is_json { text } else { Cow::Owned(serde_json::Value::from(text).to_string()) })
    }
}

fn plain_body<'b>(path: &JsonPath, body: &'b str) -> Option<&'b str> {
    (path.is_whole() && !body.is_empty()).then_some(body)
}

fn whole(body: &str) -> Option<Cow<'_, str>> {
    (!body.is_empty()).then_some(Cow::Borrowed(body))
}

/// Bodies of requests may be large, and looking for something in them takes long: HTTP APIs know the way.
fn json_path(text: &str, protocol: Protocol) -> Result<JsonPath, Error> {
    let path = JsonPath::parse(text)?;
    if protocol == Protocol::Http && path.searches() {
        let help = "write the way to the value, like `.items[0].name`";
        return Err(Error::new(0, format!("`{text}` searches the body, which HTTP APIs do not"), help));
    }
    Ok(path)
}

fn header_name(name: &str) -> Result<String, Error> {
    match HeaderName::from_bytes(name.as_bytes()) {
        Ok(_) => Ok(name.into()),
        Err(_) => Err(Error::new(0, format!("`{name}` cannot name a header"), "use letters, digits and `-`")),
    }
}

fn query_name(name: &str) -> Result<String, Error> {
    if name.is_empty() || name.contains(char::is_whitespace) {
        let found = format!("`{name}` cannot name a query parameter");
        return Err(Error::new(0, found, "write its name, decoded and without blanks"));
    }
    Ok(name.into())
}

/// What follows `request.path`: nothing, or the name of what stands in braces in the route key.
fn path_parameter(text: &str) -> Result<Variable, Error> {
    if text.is_empty() {
        return Ok(Variable::Path);
    }
    let is_name = |name: &&str| {
        let may_stand = |c: char| c.is_alphanumeric() || "_.:-".contains(c);
        !name.is_empty() && name.chars().all(may_stand)
    };
    match text.strip_prefix('.').filter(is_name) {
        Some(name) => Ok(Variable::PathParameter(name.into())),
        None => {
            let found = format!("`{text}` is no part of a path");
            Err(Error::new(0, found, "write `request.path`, or `request.path.id` for what `{id}` of the route is"))
        }
    }
}

fn stage_variable_name(name: &str) -> Result<(), Error> {
    if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return Ok(());
    }
    Err(Error::new(0, format!("`{name}` cannot name a stage variable"), "use letters, digits and `_`"))
}

#[cfg(test)]
#[path = "variable_tests.rs"]
mod tests;
