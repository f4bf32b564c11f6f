//! What variables are taken from: a call, as the expressions see it.

use std::borrow::Cow;

use crate::model::limits;

/// What the variables of one call stand for. A name that is not there is `None`; a call that has nothing
/// of a kind leaves that kind's default.
pub trait Source {
    fn body(&self) -> &str {
        ""
    }

    /// As much of the body as a JSONPath looks into. One that is cut off is seldom JSON, and so has nothing.
    fn searched_body(&self) -> &str {
        self.body()
    }

    fn context(&self, _name: &str) -> Option<Cow<'_, str>> {
        None
    }

    fn stage_variable(&self, _name: &str) -> Option<&str> {
        None
    }

    /// The last value of the client's header of this name, in any case.
    fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        self.headers(name).pop()
    }

    fn headers(&self, _name: &str) -> Vec<Cow<'_, str>> {
        Vec::new()
    }

    /// The last value of the client's query parameter of this name, decoded.
    fn query(&self, name: &str) -> Option<Cow<'_, str>> {
        self.queries(name).pop()
    }

    fn queries(&self, _name: &str) -> Vec<Cow<'_, str>> {
        Vec::new()
    }

    /// The path that routes match, as it was on the wire.
    fn path(&self) -> Option<&str> {
        None
    }

    /// What `{name}` of the route stands for, decoded.
    fn path_parameter(&self, _name: &str) -> Option<Cow<'_, str>> {
        None
    }

    /// The same, as it was on the wire.
    fn spelled_path_parameter(&self, _name: &str) -> Option<&str> {
        None
    }

    /// All values of the answer's header of this name, joined by `,`.
    fn response_header(&self, _name: &str) -> Option<Cow<'_, str>> {
        None
    }

    /// The answer's whole body.
    fn response_body(&self) -> &str {
        ""
    }
}

/// The beginning of a body: as much of it as a JSONPath looks into.
pub fn beginning(body: &str) -> &str {
    &body[..body.floor_char_boundary(limits::SEARCHED_BODY)]
}
