//! Which route a message takes: the selection expression's text, matched exactly, else `$default`.

use std::collections::HashMap;
use std::sync::Arc;

use super::admission::Admission;
use super::watch::RouteWatch;
use crate::expressions::selection::SelectionExpression;
use crate::model::call::Incoming;
use crate::steps::integrations::Integration;
use crate::steps::transforms::parameters::RequestParameters;

/// One route: what answers for it, and whether the client gets to see the answer.
pub struct Route {
    pub key: String,
    /// What is taken from the call into the backend's request.
    pub parameters: RequestParameters,
    pub integration: Integration,
    pub two_way: bool,
    /// What is asked of a message; what `$connect` asks stands in the stage.
    pub admission: Admission,
    /// A message brings a fresh token.
    pub refreshes: bool,
    pub watch: Arc<RouteWatch>,
}

pub struct Routes {
    pub selection: SelectionExpression,
    pub connect: Option<Route>,
    pub disconnect: Option<Route>,
    pub default: Option<Route>,
    /// Routes that a message can name. `$connect` and `$disconnect` are not among them, so that no
    /// client can pretend to come or go.
    pub named: HashMap<String, Route>,
}

impl Routes {
    pub fn select(&self, message: &Incoming) -> Option<&Route> {
        let is_text = !message.binary || std::str::from_utf8(&message.body).is_ok();
        let key = is_text.then(|| self.selection.evaluate(message.text())).flatten();
        key.and_then(|key| self.named.get(&*key)).or(self.default.as_ref())
    }

    /// All routes, for those who list them.
    pub fn all(&self) -> impl Iterator<Item = &Route> {
        let mut named: Vec<_> = self.named.values().collect();
        named.sort_by(|a, b| a.key.cmp(&b.key));
        [&self.connect, &self.disconnect].into_iter().flatten().chain(named).chain(&self.default)
    }
}
