//! The text of a query with one parameter changed: all others keep their place and their spelling.

use std::borrow::Cow;

use super::key::Operation;
use crate::expressions::target::query_part;

/// `query` is encoded and without its `?`. Names are compared decoded.
pub(super) fn change(query: &mut Option<String>, operation: Operation, name: &str, value: &str) {
    let before = query.take().unwrap_or_default();
    let mut pairs: Vec<Cow<'_, str>> = before.split('&').map(Cow::Borrowed).collect();
    let place = pairs.iter().position(|pair| is_named(pair, name)).unwrap_or(pairs.len());
    if operation != Operation::Append {
        pairs.retain(|pair| !is_named(pair, name));
    }
    let written = || Cow::Owned(format!("{}={}", query_part(name), query_part(value)));
    match operation {
        Operation::Append => pairs.push(written()),
        // The first of that name gives its place, and nothing in front of it went away.
        Operation::Overwrite => pairs.insert(place, written()),
        Operation::Remove => {}
    }
    if before.is_empty() {
        // The text of no query is one empty pair.
        pairs.retain(|pair| !pair.is_empty());
    }
    *query = Some(pairs.join("&")).filter(|query| !query.is_empty());
}

fn is_named(pair: &str, name: &str) -> bool {
    form_urlencoded::parse(pair.as_bytes()).next().is_some_and(|(own, _)| own == name)
}
