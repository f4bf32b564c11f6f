//! The `mock` integration: an answer written in the file, without a backend.

use http::{HeaderName, StatusCode};

use crate::expressions::scope::{Scope, StageVariables};
use crate::expressions::variables::Template;
use crate::model::call::{Call, Reply};
use crate::model::headers;
use crate::model::settings::{Expression, Integer, Table, settings};

settings! {
    /// `type = "mock"`: answers by itself. On `$connect` only `status` counts.
    pub struct Settings {
        /// The text of the answer, with `${request.body.NAME}`, `${context.connectionId}` and the like filled in.
        pub response: Option<Expression>,
        /// The status of the answer.
        pub status: Integer<100, 599> = 200,
        /// Headers of the answer.
        pub headers: Table<Expression>,
    }
}

/// A checked `mock` integration.
pub struct Mock {
    pub response: Option<Template>,
    pub status: StatusCode,
    pub headers: Vec<(HeaderName, Template)>,
}

impl Mock {
    /// Does any of its texts look into the request's body?
    pub fn reads_body(&self) -> bool {
        let headers = self.headers.iter().map(|(_, value)| value);
        self.response.iter().chain(headers).any(Template::reads_body)
    }

    /// Answers by itself: the response text with its variables filled in.
    pub fn answer(&self, call: &Call<'_>, stage_variables: &StageVariables) -> Reply {
        let scope = Scope { call, stage_variables };
        let mut reply =
            Reply::new(self.status, self.response.as_ref().map_or(String::new(), |text| text.render_response(&scope)));
        for (name, value) in &self.headers {
            reply.headers.append(name, headers::encoded(&value.render(&scope)));
        }
        reply
    }
}
