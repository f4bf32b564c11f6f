//! `request_parameters` of an HTTP API: headers, query and path of the backend's request.

use http::HeaderMap;

use super::key::{Change, Operation, Side, is_older};
use super::{Error, query, value};
use crate::expressions::variables::{Allowed, Part, Source, Template};
use crate::expressions::{self, target};
use crate::model::refusal::{Kind, Refusal};

/// Every mapping of one integration, in the file's order; no two are the same change.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RequestParameters {
    mappings: Vec<Mapping>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Mapping {
    pub change: Change,
    /// Empty, and of no meaning, where something is removed.
    pub value: Template,
}

/// The backend's request as it would be without mappings.
pub struct Outgoing<'t> {
    pub headers: &'t mut HeaderMap,
    /// Encoded.
    pub path: &'t mut String,
    /// Encoded, without its `?`.
    pub query: &'t mut Option<String>,
}

impl RequestParameters {
    /// Adds one line of the file, unless an earlier one says the same.
    pub fn add(&mut self, key: &str, value: &str) -> Result<(), Error> {
        let mapping = Mapping::parse(key, value, Side::Request, Allowed::REQUEST)?;
        if mapping.change == Change::Path {
            check_path(&mapping.value).map_err(Error::Value)?;
        }
        add(&mut self.mappings, mapping)
    }

    pub fn is_empty(&self) -> bool {
        self.mappings.is_empty()
    }

    /// Must the request's body be there when they are applied?
    pub fn reads_body(&self) -> bool {
        self.mappings.iter().any(|mapping| mapping.value.reads_body())
    }

    /// Is the whole path written here? The integration's own is then never seen.
    pub fn overwrites_path(&self) -> bool {
        self.mappings.iter().any(|mapping| mapping.change == Change::Path)
    }

    /// The stage variables the mappings read, once for each time.
    pub fn stage_variables_used(&self) -> impl Iterator<Item = &str> {
        self.mappings.iter().flat_map(|mapping| mapping.value.stage_variables_used())
    }

    /// The path parameters the mappings read, each to stand as `{name}` in the route key.
    pub fn path_parameters_used(&self) -> impl Iterator<Item = &str> {
        self.mappings.iter().flat_map(|mapping| mapping.value.path_parameters_used())
    }

    /// Changes the request. A path that would lead elsewhere is refused, and a target too long for any request.
    pub fn apply(&self, source: &dyn Source, outgoing: Outgoing<'_>) -> Result<(), Refusal> {
        for mapping in &self.mappings {
            match &mapping.change {
                Change::Header(operation, name) => {
                    if let Some(text) = mapping.text(source, *operation) {
                        operation.change(outgoing.headers, name, value::header(&text));
                    }
                }
                Change::Query(operation, name) => {
                    if let Some(text) = mapping.text(source, *operation) {
                        query::change(outgoing.query, *operation, name, &text);
                    }
                }
                Change::Path => {
                    let path = target::path(&mapping.value, source);
                    if let Some(path) = path.map_err(|error| Kind::BadRequestBody.because(error))? {
                        *outgoing.path = path;
                    }
                }
                Change::Status => {}
            }
        }
        let length = outgoing.path.len() + outgoing.query.as_ref().map_or(0, |query| query.len() + 1);
        if length > LONGEST_TARGET {
            return Err(Kind::BadRequestBody.because(format_args!("the mapped path and query have {length} bytes")));
        }
        Ok(())
    }
}

/// What the `http` crate takes for a target.
const LONGEST_TARGET: usize = u16::MAX as usize - 1;

impl Mapping {
    pub fn parse(key: &str, value: &str, side: Side, allowed: Allowed) -> Result<Self, Error> {
        let change = Change::parse(key, side).map_err(Error::Key)?;
        let value = match change {
            Change::Header(Operation::Remove, _) | Change::Query(Operation::Remove, _) => Template::literal(""),
            _ => value::parse(value, allowed, is_older(key)).map_err(Error::Value)?,
        };
        Ok(Self { change, value })
    }

    /// The text to write, if there is any; to remove something takes none.
    pub fn text(&self, source: &dyn Source, operation: Operation) -> Option<String> {
        match operation {
            Operation::Remove => Some(String::new()),
            Operation::Append | Operation::Overwrite => value::text(&self.value, source),
        }
    }
}

pub(super) fn add(mappings: &mut Vec<Mapping>, mapping: Mapping) -> Result<(), Error> {
    if mappings.iter().any(|earlier| earlier.change == mapping.change) {
        let found = format!("`{}` stands here twice", mapping.change);
        return Err(Error::Key(expressions::Error::new(0, found, "keep one of them (case makes no other header)")));
    }
    mappings.push(mapping);
    Ok(())
}

/// What the operator wrote himself can be judged at once.
fn check_path(value: &Template) -> Result<(), expressions::Error> {
    let literals = value.parts().iter().filter_map(|part| match part {
        Part::Literal(text) => Some(text),
        Part::Variable(_) => None,
    });
    if let Some(found) = literals.flat_map(|text| text.chars()).find(|c| matches!(c, '?' | '#')) {
        let help = "map queries with `overwrite:querystring.NAME`";
        return Err(expressions::Error::new(0, format!("a path ends before `{found}`"), help));
    }
    if value.as_literal().is_some_and(target::has_dot_segment) {
        return Err(expressions::Error::new(0, target::DotSegment.to_string(), "write the path that is meant"));
    }
    Ok(())
}
