//! The right side of a mapping: one variable, a text with `${…}` in it, or plain text.
//!
//! Both of AWS's spellings are read, `$request.header.X` and `route.request.header.X`; the latter, like
//! `context.X` and `stageVariables.X` without a dollar, when it is the whole value.

use http::HeaderValue;

use crate::expressions::Error;
use crate::expressions::variables::{Allowed, Source, Template, Variable};

/// Parses a value. In those of the `older` keys, plain text stands in single quotes.
pub(super) fn parse(text: &str, allowed: Allowed, older: bool) -> Result<Template, Error> {
    if let Some(quoted) = text.strip_prefix('\'').filter(|_| older) {
        let literal = quoted
            .strip_suffix('\'')
            .ok_or_else(|| Error::new(0, format!("`{text}` has no closing quote"), "write it like `'text'`"))?;
        return not_empty(Template::literal(&literal.replace(r"\$", "$")));
    }
    if let Some(word) = text.strip_prefix('$').filter(|word| !word.starts_with('{')) {
        let variable = Variable::parse(word, allowed).map_err(|error| alone(error, word).moved(1));
        return variable.map(Template::from);
    }
    if let Some((at, word)) = without_dollar(text) {
        let variable = Variable::parse(&word, allowed).map_err(|error| error.moved(at));
        return variable.map(Template::from);
    }
    if let Some(at) = lost_dollar(text) {
        let help = r"write it in braces, like `${request.header.X}`, or `\$` for a dollar";
        return Err(Error::new(at, format!("a variable within `{text}` needs braces"), help));
    }
    if older && !text.contains("${") {
        let help = "write a variable, like `$request.header.NAME`, or `'text'` in quotes";
        return Err(Error::new(0, format!("`{text}` is nothing to map from"), help));
    }
    if FORGOTTEN.iter().any(|kind| text.starts_with(kind)) {
        return Err(Error::new(0, format!("`{text}` would be sent as it stands"), format!("write `${text}`")));
    }
    not_empty(Template::parse(text, allowed)?)
}

/// The value for this call; `None` if it is empty.
pub(super) fn text(template: &Template, source: &dyn Source) -> Option<String> {
    Some(template.render(source)).filter(|text| !text.is_empty())
}

/// The value as a header's.
pub(super) fn header(text: &str) -> HeaderValue {
    super::super::parameters::header_value(text)
}

fn not_empty(template: Template) -> Result<Template, Error> {
    if template.parts().is_empty() {
        return Err(Error::new(0, "an empty value changes nothing", "write a value, or `remove:` before the name"));
    }
    Ok(template)
}

/// Text that no operator means to send: the dollar is missing.
const FORGOTTEN: &[&str] = &[
    "request.header.",
    "request.querystring.",
    "request.path.",
    "request.body.",
    "response.header.",
    "response.body.",
];

/// A word in the spelling without a dollar, in the spelling of variables, and where that begins.
fn without_dollar(text: &str) -> Option<(usize, String)> {
    const ROUTE: &str = "route.";
    if let Some(word) = text.strip_prefix(ROUTE).filter(|word| word.starts_with("request.")) {
        // HTTP APIs join all values anyway.
        let word = word.replacen("request.multivalueheader.", "request.header.", 1);
        return Some((ROUTE.len(), word.replacen("request.multivaluequerystring.", "request.querystring.", 1)));
    }
    let begins = text.starts_with("context.") || text.starts_with("stageVariables.");
    (begins && !text.contains(char::is_whitespace)).then(|| (0, text.to_owned()))
}

/// What followed the dollar is no one variable: perhaps there are several, or none.
fn alone(mut error: Error, word: &str) -> Error {
    error.help = match word.contains(char::is_whitespace) || word.contains('$') {
        true => "write `${…}` around each variable of a text that mixes several".into(),
        false => format!(r"{}; write `\$` for a dollar", error.help),
    };
    error
}

/// Where a variable begins within a text, but without its braces, so that it would be sent as it stands.
fn lost_dollar(text: &str) -> Option<usize> {
    const KINDS: [&str; 4] = ["request.", "response.", "context.", "stageVariables."];
    text.match_indices('$').map(|(at, _)| at).find(|at| {
        let behind = &text[at + 1..];
        !text[..*at].ends_with('\\') && KINDS.iter().any(|kind| behind.starts_with(kind))
    })
}
