//! What Lambda functions get and answer: the AWS proxy event as a handler knows it, and its proxy answer.
//!
//! `websocket` is the event of connections. An HTTP request has one in two formats, `http_v2` and `http_v1`; both
//! take from `shown` what they show of the request, and list names with their values through `pairs`. `answer`
//! reads what comes back for either. `authorizer` makes the events of authorizers from the same.

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use serde_json::value::RawValue;

use crate::expressions::scope::StageVariables;
use crate::model::call::{Call, Reply};
use crate::model::request::HttpRequest;
use crate::model::settings::choice;

pub mod answer;
pub mod authorizer;
pub mod http_v1;
pub mod http_v2;
mod pairs;
mod shown;
#[cfg(test)]
mod tests;
pub mod websocket;

choice! {
    /// The format of an HTTP request's event and of its answer.
    pub enum Format {
        /// The older one, much like that of REST APIs.
        V1 = "1.0",
        /// The one that HTTP APIs were made with.
        V2 = "2.0",
    }
}

/// What an HTTP request's event says besides the call and the request.
pub struct Origin<'a> {
    pub account_id: &'a str,
    pub stage_variables: &'a StageVariables,
    /// The `X-Amzn-Trace-Id` that the backend gets as well.
    pub trace_id: &'a HeaderValue,
    /// The `X-Forwarded-For` that the backend gets as well: the client's address, and what trusted proxies said.
    pub forwarded_for: &'a str,
    /// What an authorizer found out, as it stands in the event's `requestContext.authorizer`; `None` if none ran.
    pub authorizer: Option<&'a RawValue>,
}

impl Format {
    /// The event of an HTTP request as JSON; `body` is the whole of what the client sent.
    pub fn write(self, call: &Call<'_>, request: &HttpRequest, body: &[u8], origin: &Origin<'_>) -> Bytes {
        match self {
            Format::V1 => http_v1::write(call, request, body, origin),
            Format::V2 => http_v2::write(call, request, body, origin),
        }
    }

    /// Reads what a backend answered in a function's place; the error says what is wrong with it, for the log.
    pub fn read(self, status: StatusCode, body: &Bytes) -> Result<Reply, String> {
        if !status.is_success() {
            return Err(format!("the backend answered {status}"));
        }
        match self {
            Format::V1 => answer::read_v1(body),
            Format::V2 => answer::read_v2(body),
        }
    }
}
