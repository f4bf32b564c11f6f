//! `response_parameters` of an HTTP API: headers and status of the answer, by the backend's status.

use std::borrow::Cow;
use std::collections::BTreeMap;

use http::{HeaderMap, StatusCode};

use super::key::{Change, Side};
use super::request::{Mapping, add};
use super::{Error, value};
use crate::expressions;
use crate::expressions::variables::{Allowed, Source, Variable};
use crate::model::headers;
use crate::model::refusal::{Kind, Refusal};

/// The mappings of one integration for each status that the file names.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ResponseParameters {
    by_status: BTreeMap<u16, OfStatus>,
}

/// The mappings for one status of the backend's, in the file's order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OfStatus {
    mappings: Vec<Mapping>,
}

/// A backend's answer and the request that it answers.
pub struct Answered<'a> {
    pub request: &'a dyn Source,
    pub headers: &'a HeaderMap,
    pub body: &'a str,
}

impl ResponseParameters {
    /// Parses a key of the table: the one status that the mappings below it are for.
    pub fn status(text: &str) -> Result<u16, expressions::Error> {
        status(text).map(|status| status.as_u16()).ok_or_else(|| {
            let found = format!("`{text}` is no status of a backend's");
            expressions::Error::new(0, found, "write one from `200` to `599`; each has mappings of its own")
        })
    }

    /// Adds one line of the file, unless an earlier one says the same about that status.
    pub fn add(&mut self, status: u16, key: &str, value: &str) -> Result<(), Error> {
        let mapping = Mapping::parse(key, value, Side::Response, Allowed::ANSWER)?;
        if mapping.change == Change::Status {
            let wrong = mapping.value.as_literal().filter(|text| self::status(text).is_none());
            if let Some(text) = wrong {
                let found = format!("`{text}` is no status of an answer");
                return Err(Error::Value(expressions::Error::new(0, found, "write one from `200` to `599`")));
            }
        }
        add(&mut self.by_status.entry(status).or_default().mappings, mapping)
    }

    pub fn is_empty(&self) -> bool {
        self.by_status.is_empty()
    }

    /// What changes about an answer of this status; most are passed on as they are.
    pub fn for_status(&self, status: u16) -> Option<&OfStatus> {
        self.by_status.get(&status)
    }

    /// The stage variables the mappings read, once for each time.
    pub fn stage_variables_used(&self) -> impl Iterator<Item = &str> {
        self.mappings().flat_map(|mapping| mapping.value.stage_variables_used())
    }

    /// The path parameters the mappings read, each to stand as `{name}` in the route key.
    pub fn path_parameters_used(&self) -> impl Iterator<Item = &str> {
        self.mappings().flat_map(|mapping| mapping.value.path_parameters_used())
    }

    fn mappings(&self) -> impl Iterator<Item = &Mapping> {
        self.by_status.values().flat_map(|of_status| &of_status.mappings)
    }
}

impl OfStatus {
    /// Must the answer's body be there when they are applied?
    pub fn reads_body(&self) -> bool {
        let mut variables = self.mappings.iter().flat_map(|mapping| mapping.value.variables());
        variables.any(|variable| matches!(variable, Variable::ResponseBody(_) | Variable::WholeResponseBody))
    }

    /// Changes the answer to `request`. `body` may be empty unless they read it. A status that is none is
    /// refused: nobody could say what was meant.
    pub fn apply(
        &self,
        request: &dyn Source,
        body: &[u8],
        status: &mut StatusCode,
        headers: &mut HeaderMap,
    ) -> Result<(), Refusal> {
        let answered = Answered { request, headers: &*headers, body: std::str::from_utf8(body).unwrap_or_default() };
        // All values first: no mapping sees what another has changed.
        let text = |mapping: &Mapping| match &mapping.change {
            Change::Header(operation, _) => mapping.text(&answered, *operation),
            _ => value::text(&mapping.value, &answered),
        };
        let texts: Vec<Option<String>> = self.mappings.iter().map(text).collect();
        for (mapping, text) in self.mappings.iter().zip(texts) {
            match (&mapping.change, text) {
                (Change::Header(operation, name), Some(text)) => {
                    operation.change(headers, name, value::header(&text));
                }
                (Change::Status, Some(text)) => {
                    let found = || Kind::IntegrationFailure.because("the mapped status code is none");
                    *status = self::status(&text).ok_or_else(found)?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// 1xx are no answers, and nothing above 599 means anything.
fn status(text: &str) -> Option<StatusCode> {
    let status: StatusCode = text.parse().ok()?;
    matches!(status.as_u16(), 200..=599).then_some(status)
}

impl Source for Answered<'_> {
    fn context(&self, name: &str) -> Option<Cow<'_, str>> {
        self.request.context(name)
    }

    fn stage_variable(&self, name: &str) -> Option<&str> {
        self.request.stage_variable(name)
    }

    fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        self.request.header(name)
    }

    fn headers(&self, name: &str) -> Vec<Cow<'_, str>> {
        self.request.headers(name)
    }

    fn query(&self, name: &str) -> Option<Cow<'_, str>> {
        self.request.query(name)
    }

    fn queries(&self, name: &str) -> Vec<Cow<'_, str>> {
        self.request.queries(name)
    }

    fn path(&self) -> Option<&str> {
        self.request.path()
    }

    fn path_parameter(&self, name: &str) -> Option<Cow<'_, str>> {
        self.request.path_parameter(name)
    }

    fn spelled_path_parameter(&self, name: &str) -> Option<&str> {
        self.request.spelled_path_parameter(name)
    }

    fn response_header(&self, name: &str) -> Option<Cow<'_, str>> {
        headers::joined(self.headers, name)
    }

    fn response_body(&self) -> &str {
        self.body
    }
}
