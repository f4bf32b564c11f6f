//! Parameter mappings: what a call tells becomes a header, query parameter or path part of the backend's request.
//!
//! Both of AWS's spellings are read: `route.request.header.X` (WebSocket APIs) and `$request.header.X`
//! (HTTP APIs). A source that has nothing for a call leaves its parameter out.

use std::borrow::Cow;

use http::{HeaderName, HeaderValue};

use crate::expressions::variables::{Allowed, Source, Variable};
use crate::expressions::{self, json_path::JsonPath};
use crate::model::call::Mapped;

/// Every mapping of one integration, in the file's order; no two write the same parameter.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RequestParameters {
    mappings: Vec<Mapping>,
}

/// One line of `request_parameters`, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Mapping {
    target: Target,
    origin: Origin,
}

/// Which half of a line is wrong, and how.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Key(expressions::Error),
    #[error(transparent)]
    Value(expressions::Error),
}

#[derive(Debug, Clone, PartialEq)]
enum Target {
    Header(HeaderName),
    Query(String),
    Path(String),
}

#[derive(Debug, Clone, PartialEq)]
enum Origin {
    Literal(String),
    Header(String),
    Headers(String),
    Query(String),
    Queries(String),
    Variable(Variable),
}

impl RequestParameters {
    /// Adds a mapping, unless an earlier one writes the same parameter.
    pub fn add(&mut self, mapping: Mapping) -> Result<(), Error> {
        if self.mappings.iter().any(|earlier| earlier.target == mapping.target) {
            let found = match &mapping.target {
                Target::Header(name) => format!("the header `{name}` is mapped twice"),
                Target::Query(name) => format!("the query parameter `{name}` is mapped twice"),
                Target::Path(name) => format!("the path parameter `{name}` is mapped twice"),
            };
            return Err(Error::Key(expressions::Error::new(0, found, "keep one of them (case makes no other header)")));
        }
        self.mappings.push(mapping);
        Ok(())
    }

    pub fn is_empty(&self) -> bool {
        self.mappings.is_empty()
    }

    /// Does any mapping read a header or query parameter of the client's? Only `$connect` has those.
    pub fn uses_client_request(&self) -> bool {
        self.mappings.iter().any(Mapping::uses_client_request)
    }

    /// The stage variables the mappings read, once for each time.
    pub fn stage_variables_used(&self) -> impl Iterator<Item = &str> {
        self.mappings.iter().filter_map(|mapping| match &mapping.origin {
            Origin::Variable(Variable::StageVariable(name)) => Some(name.as_str()),
            _ => None,
        })
    }

    /// Does any mapping write the path or the query of the URI?
    pub fn changes_uri(&self) -> bool {
        self.mappings.iter().any(|mapping| !matches!(mapping.target, Target::Header(_)))
    }

    /// The path parameters that are written, each to stand as `{name}` in the URI.
    pub fn path_parameters(&self) -> impl Iterator<Item = &str> {
        self.mappings.iter().filter_map(|mapping| match &mapping.target {
            Target::Path(name) => Some(name.as_str()),
            _ => None,
        })
    }

    pub fn apply(&self, source: &dyn Source) -> Mapped {
        let mut mapped = Mapped::default();
        for mapping in &self.mappings {
            let values = mapping.origin.values(source);
            match &mapping.target {
                Target::Header(name) => {
                    mapped.headers.extend(values.iter().map(|value| (name.clone(), header_value(value))));
                }
                Target::Query(name) => {
                    mapped.query.extend(values.into_iter().map(|value| (name.clone(), value.into_owned())));
                }
                // A path has one place for each parameter, so several values stand in it as a list.
                Target::Path(_) if values.is_empty() => {}
                Target::Path(name) => mapped.path.push((name.clone(), values.join(","))),
            }
        }
        mapped
    }
}

impl Mapping {
    /// Parses one line: where the value goes (`integration.request.header.X-Name`) and where it comes from.
    pub fn parse_one(key: &str, value: &str) -> Result<Self, Error> {
        Ok(Self {
            target: Target::parse(key).map_err(Error::Key)?,
            origin: Origin::parse(value).map_err(Error::Value)?,
        })
    }

    pub fn uses_client_request(&self) -> bool {
        matches!(&self.origin, Origin::Header(_) | Origin::Headers(_) | Origin::Query(_) | Origin::Queries(_))
    }
}

impl Target {
    fn parse(key: &str) -> Result<Self, expressions::Error> {
        const HELP: &str = "write `integration.request.header.NAME`, `integration.request.querystring.NAME` or \
                            `integration.request.path.NAME`";
        let split = key.strip_prefix("integration.request.").and_then(|rest| rest.split_once('.'));
        match split {
            Some(("header", name)) => header_target(name).map_err(|error| error.moved(key.len() - name.len())),
            Some(("querystring", name)) if !name.is_empty() => Ok(Target::Query(name.into())),
            Some(("path", name)) if !name.is_empty() => Ok(Target::Path(name.into())),
            _ => Err(expressions::Error::new(0, format!("`{key}` is no parameter of a request"), HELP)),
        }
    }
}

/// Headers that frame the message or belong to one hop, which a mapping could only break.
const OWN_TO_THE_GATEWAY: &[&str] =
    &["connection", "upgrade", "transfer-encoding", "content-length", "te", "trailer", "keep-alive"];

fn header_target(name: &str) -> Result<Target, expressions::Error> {
    let parsed = HeaderName::from_bytes(name.as_bytes()).map_err(|_| {
        expressions::Error::new(0, format!("`{name}` cannot name a header"), "use letters, digits and `-`")
    })?;
    let lower = parsed.as_str();
    if OWN_TO_THE_GATEWAY.contains(&lower) || lower.starts_with("proxy-") {
        let found = format!("the header `{name}` is the gateway's to write");
        return Err(expressions::Error::new(0, found, "map to a header of another name"));
    }
    if lower.starts_with("x-livegate-") {
        let found = format!("the header `{name}` would pass for the gateway's own word");
        return Err(expressions::Error::new(0, found, "choose a name that does not begin with `X-Livegate-`"));
    }
    Ok(Target::Header(parsed))
}

impl Origin {
    fn parse(value: &str) -> Result<Self, expressions::Error> {
        const HELP: &str = "write `route.request.header.NAME`, `route.request.querystring.NAME`, \
                            `route.request.body.PATH`, `context.NAME`, `stageVariables.NAME` or `'text'`";
        let unknown = || expressions::Error::new(0, format!("`{value}` is nothing to map from"), HELP);
        if let Some(quoted) = value.strip_prefix('\'') {
            return quoted.strip_suffix('\'').map(|text| Origin::Literal(text.into())).ok_or_else(|| {
                expressions::Error::new(0, format!("`{value}` has no closing quote"), "write it like `'text'`")
            });
        }
        let (text, dollar) = match value.strip_prefix('$') {
            Some(rest) => (rest.strip_prefix('{').and_then(|inside| inside.strip_suffix('}')).unwrap_or(rest), true),
            None => (value, false),
        };
        let at = value.find(text).unwrap_or(0);
        let request = if dollar { "request." } else { "route.request." };
        let Some(asked) = text.strip_prefix(request) else {
            let allowed = Allowed { body: false, ..Allowed::ALL };
            if !text.starts_with("context.") && !text.starts_with("stageVariables.") {
                return Err(unknown());
            }
            return Variable::parse(text, allowed).map(Origin::Variable).map_err(|error| error.moved(at));
        };
        if let Some(path) = asked.strip_prefix("body") {
            let path = JsonPath::parse(path).map_err(|error| error.moved(value.rfind(path).unwrap_or(at)))?;
            return Ok(Origin::Variable(Variable::Body(path)));
        }
        let (kind, name) = asked.split_once('.').filter(|(_, name)| !name.is_empty()).ok_or_else(unknown)?;
        let name = name.to_owned();
        match kind {
            "header" => Ok(Origin::Header(name)),
            "multivalueheader" => Ok(Origin::Headers(name)),
            "querystring" => Ok(Origin::Query(name)),
            "multivaluequerystring" => Ok(Origin::Queries(name)),
            _ => Err(unknown()),
        }
    }

    fn values<'a>(&'a self, source: &'a dyn Source) -> Vec<Cow<'a, str>> {
        match self {
            Origin::Literal(text) => vec![Cow::Borrowed(text)],
            Origin::Header(name) => Vec::from_iter(source.header(name)),
            Origin::Headers(name) => source.headers(name),
            Origin::Query(name) => Vec::from_iter(source.query(name)),
            Origin::Queries(name) => source.queries(name),
            Origin::Variable(variable) => Vec::from_iter(variable.text(source)),
        }
    }
}

/// A client chooses these values, so line breaks and their kin are percent-encoded: none can begin another
/// header. All other characters go as UTF-8.
pub(super) fn header_value(text: &str) -> HeaderValue {
    let mut bytes = Vec::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_control() {
            bytes.extend_from_slice(format!("%{byte:02X}").as_bytes());
        } else {
            bytes.push(byte);
        }
    }
    HeaderValue::from_maybe_shared(bytes::Bytes::from(bytes)).expect("control characters are all a header may not hold")
}

#[cfg(test)]
#[path = "parameters_tests.rs"]
mod tests;
