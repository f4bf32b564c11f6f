//! The left side of a mapping: what it does, and to which parameter.
//!
//! Headers that AWS reserves are refused, and so are ours.

use std::fmt;

use http::header::{COOKIE, HOST, SET_COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::expressions::Error;
use crate::model::headers;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Append,
    Overwrite,
    Remove,
}

/// What a mapping does. Not every one of these is for both requests and answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    Header(Operation, HeaderName),
    Query(Operation, String),
    Path,
    Status,
}

/// Whose parameters they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Request,
    Response,
}

impl Side {
    fn help(self) -> &'static str {
        match self {
            Side::Request => {
                "write `append`, `overwrite` or `remove` before `:header.NAME` or `:querystring.NAME`, or `overwrite:path`"
            }
            Side::Response => {
                "write `append`, `overwrite` or `remove` before `:header.NAME`, or `overwrite:statuscode`"
            }
        }
    }
}

/// How keys of WebSocket APIs begin; they are understood on requests.
const OLDER: &str = "integration.request.";

/// Is a key in the words of WebSocket APIs?
pub(super) fn is_older(key: &str) -> bool {
    key.starts_with(OLDER)
}

impl Change {
    pub fn parse(key: &str, side: Side) -> Result<Self, Error> {
        let unknown = || Error::new(0, format!("`{key}` is no parameter mapping"), side.help());
        let (operation, target) = match key.strip_prefix(OLDER) {
            Some(target) if side == Side::Request => (Operation::Overwrite, target),
            _ => {
                let (operation, target) = key.split_once(':').ok_or_else(unknown)?;
                (Operation::parse(operation)?, target)
            }
        };
        let at = key.len() - target.len();
        match (side, target, target.split_once('.')) {
            (Side::Request, "path", _) => only_overwritten(operation, target).map(|()| Change::Path),
            (Side::Response, "statuscode", _) => only_overwritten(operation, target).map(|()| Change::Status),
            (_, _, Some(("header", name))) => {
                header(operation, name, side).map_err(|error| error.moved(key.len() - name.len()))
            }
            (Side::Request, _, Some(("querystring", name))) if !name.is_empty() => {
                Ok(Change::Query(operation, name.into()))
            }
            (Side::Request, _, Some(("path", name))) if is_older(key) => {
                let help = format!("write `{{{name}}}` in the URI, or map `overwrite:path`");
                Err(Error::new(at, "the route fills the path parameters of an HTTP API", help))
            }
            _ => Err(Error::new(at, format!("`{target}` cannot be mapped"), side.help())),
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Header(operation, name) => write!(f, "{}:header.{name}", operation.name()),
            Change::Query(operation, name) => write!(f, "{}:querystring.{name}", operation.name()),
            Change::Path => f.write_str("overwrite:path"),
            Change::Status => f.write_str("overwrite:statuscode"),
        }
    }
}

impl Operation {
    fn parse(word: &str) -> Result<Self, Error> {
        match word {
            "append" => Ok(Operation::Append),
            "overwrite" => Ok(Operation::Overwrite),
            "remove" => Ok(Operation::Remove),
            _ => {
                let found = format!("`{word}` is nothing that a mapping does");
                Err(Error::new(0, found, "write `append`, `overwrite` or `remove`"))
            }
        }
    }

    fn name(self) -> &'static str {
        match self {
            Operation::Append => "append",
            Operation::Overwrite => "overwrite",
            Operation::Remove => "remove",
        }
    }

    /// Does it to a header.
    pub fn change(self, headers: &mut HeaderMap, name: &HeaderName, value: HeaderValue) {
        match self {
            Operation::Append => append(headers, name, value),
            Operation::Overwrite => {
                headers.insert(name, value);
            }
            Operation::Remove => {
                headers.remove(name);
            }
        }
    }
}

fn only_overwritten(operation: Operation, target: &str) -> Result<(), Error> {
    if operation == Operation::Overwrite {
        return Ok(());
    }
    let found = format!("there is no `{}` for the {target}", operation.name());
    Err(Error::new(0, found, format!("write `overwrite:{target}`")))
}

/// The names that AWS reserves, and `Trailer`, which is how HTTP spells one of them. Those that end in `-` are
/// the beginnings of names.
const RESERVED: &[&str] = &[
    "access-control-",
    "apigw-",
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-location",
    "forwarded",
    "keep-alive",
    "origin",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "trailers",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-amz-",
    "x-amzn-",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
];

fn header(operation: Operation, name: &str, side: Side) -> Result<Change, Error> {
    let parsed = HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| Error::new(0, format!("`{name}` cannot name a header"), "use letters, digits and `-`"))?;
    let is_reserved = |reserved: &&str| match reserved.ends_with('-') {
        true => parsed.as_str().starts_with(*reserved),
        false => parsed == **reserved,
    };
    if RESERVED.iter().any(is_reserved) || headers::is_hop_by_hop(&parsed) {
        let found = format!("the header `{name}` is reserved; no mapping may change it");
        return Err(Error::new(0, found, "map a header of another name"));
    }
    if headers::is_ours(&parsed) {
        let found = format!("the header `{name}` would pass for the gateway's own word");
        return Err(Error::new(0, found, "choose a name that does not begin with `X-Livegate-`"));
    }
    if side == Side::Request && parsed == HOST && operation != Operation::Overwrite {
        let found = format!("every request has one `Host`, so there is no `{}` for it", operation.name());
        return Err(Error::new(0, found, "write `overwrite:header.Host`"));
    }
    Ok(Change::Header(operation, parsed))
}

/// The backend sees `old,new` in one line, as at AWS.
fn append(headers: &mut HeaderMap, name: &HeaderName, value: HeaderValue) {
    // A cookie is no list: its own separator, and one line for each that is set.
    if !headers.contains_key(name) || name == SET_COOKIE {
        headers.append(name, value);
        return;
    }
    let separator: &[u8] = if name == COOKIE { b"; " } else { b"," };
    let values = headers.get_all(name).into_iter().chain([&value]).map(HeaderValue::as_bytes);
    let joined = values.collect::<Vec<_>>().join(separator);
    headers.insert(name, HeaderValue::from_bytes(&joined).expect("values with separators between are a value"));
}
