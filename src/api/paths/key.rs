//! Route keys of HTTP APIs: `GET /pets/{id}`, `ANY /files/{proxy+}`, `$default`.
//!
//! As at AWS a segment is a literal or a variable as a whole, and a `{name+}` is the last. Other routers'
//! spellings are named in the problem rather than taken as literals: AWS would let `:id` stand, and match
//! nothing but `:id`.

use std::sync::Arc;

use http::Method;

use crate::model::settings::nearest;

/// A checked route key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteKey {
    text: String,
    /// `None` for `$default`.
    target: Option<Target>,
}

/// What a key other than `$default` matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// `None` for `ANY`.
    pub method: Option<Method>,
    /// At least one, and names are unique. Only the last may be greedy, or an empty literal: that is what
    /// follows a `/` at the end.
    pub segments: Vec<Segment>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Segment {
    Literal(Box<str>),
    /// One segment that is not empty.
    Variable(Arc<str>),
    /// All the rest.
    Greedy(Arc<str>),
}

/// What was found, and what would do.
type Complaint = (String, String);

const METHODS: [(&str, Option<Method>); 8] = [
    ("GET", Some(Method::GET)),
    ("POST", Some(Method::POST)),
    ("PUT", Some(Method::PUT)),
    ("PATCH", Some(Method::PATCH)),
    ("DELETE", Some(Method::DELETE)),
    ("HEAD", Some(Method::HEAD)),
    ("OPTIONS", Some(Method::OPTIONS)),
    ("ANY", None),
];

const USUAL: &str = "write it like `GET /pets/{id}`, `ANY /files/{proxy+}` or `$default`";

impl RouteKey {
    /// What the schema says of route keys; `parse` also refuses dot segments and names that come twice.
    pub const PATTERN: &'static str = concat!(
        r"^(\$default|(GET|POST|PUT|PATCH|DELETE|HEAD|OPTIONS|ANY) ",
        r"(/(\{[A-Za-z0-9_.:-]+\}|[A-Za-z0-9._~-][A-Za-z0-9.:_~-]*))*",
        r"/(\{[A-Za-z0-9_.:-]+\+?\}|[A-Za-z0-9._~-][A-Za-z0-9.:_~-]*)?)$"
    );

    /// Fails with what was found and what would do.
    pub fn parse(text: &str) -> Result<RouteKey, (String, String)> {
        let target = match text {
            "" => return Err(("this route key is empty".into(), USUAL.into())),
            "$default" => None,
            _ => Some(target(text).map_err(|(why, help)| (format!("`{text}` cannot be a route key: {why}"), help))?),
        };
        Ok(RouteKey { text: text.to_owned(), target })
    }

    /// The key as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// `None` for `$default` and for `ANY`.
    pub fn method(&self) -> Option<&Method> {
        self.target.as_ref()?.method.as_ref()
    }

    pub fn is_default(&self) -> bool {
        self.target.is_none()
    }

    /// The names of its variables, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.target.iter().flat_map(|target| &target.segments).filter_map(Segment::name)
    }

    pub(super) fn target(&self) -> Option<&Target> {
        self.target.as_ref()
    }

    pub(super) fn into_parts(self) -> (String, Option<Target>) {
        (self.text, self.target)
    }
}

impl Segment {
    fn name(&self) -> Option<&str> {
        match self {
            Segment::Literal(_) => None,
            Segment::Variable(name) | Segment::Greedy(name) => Some(name),
        }
    }
}

fn target(text: &str) -> Result<Target, Complaint> {
    match text.split(' ').collect::<Vec<_>>()[..] {
        [word] => Err(one_word(word)),
        [word, path] => Ok(Target { method: method(word, path)?, segments: segments(word, path)? }),
        _ => {
            let words: Vec<_> = text.split_whitespace().collect();
            let help = if let [word, path] = words[..] { format!("write `{word} {path}`") } else { USUAL.into() };
            Err(("only one blank stands in it, between method and path".into(), help))
        }
    }
}

fn one_word(text: &str) -> Complaint {
    let glued = text.find('/').unwrap_or(text.len());
    let (word, path) = (text[..glued].to_ascii_uppercase(), &text[glued..]);
    match nearest(text, ["$default"]) {
        _ if text.starts_with('/') => {
            ("it has no method".into(), format!("write `GET {text}`, or `ANY {text}` for every method"))
        }
        _ if is_method(&word) && path.is_empty() => ("it has no path".into(), format!("write `{word} /`")),
        _ if is_method(&word) => {
            ("a blank between method and path is missing".into(), format!("write `{word} {path}`"))
        }
        _ if ["$connect", "$disconnect"].contains(&text) => {
            ("only WebSocket APIs have that one".into(), "the one of HTTP APIs is `$default`".into())
        }
        Some(meant) => ("it is no method and path".into(), format!("did you mean `{meant}`?")),
        None => ("it is no method and path".into(), USUAL.into()),
    }
}

fn is_method(word: &str) -> bool {
    METHODS.iter().any(|(name, _)| *name == word)
}

fn method(word: &str, path: &str) -> Result<Option<Method>, Complaint> {
    if let Some((_, method)) = METHODS.into_iter().find(|(name, _)| *name == word) {
        return Ok(method);
    }
    let (upper, path) = (word.to_ascii_uppercase(), slashed(path));
    if word.is_empty() {
        return Err(one_word(&path));
    }
    if is_method(&upper) {
        return Err((format!("`{word}` is not in capitals"), format!("write `{upper} {path}`")));
    }
    let help = match nearest(word, METHODS.map(|(name, _)| name)) {
        _ if ["*", "ALL"].contains(&&*upper) => format!("write `ANY {path}`"),
        Some(meant) => format!("did you mean `{meant} {path}`?"),
        None => "use `GET`, `POST`, `PUT`, `PATCH`, `DELETE`, `HEAD`, `OPTIONS`, or `ANY` for all there are".into(),
    };
    Err((format!("`{word}` is no method of a route"), help))
}

fn slashed(path: &str) -> String {
    format!("/{}", path.trim_start_matches('/'))
}

fn segments(method: &str, path: &str) -> Result<Vec<Segment>, Complaint> {
    let write = |path: &str| format!("write `{method} {path}`");
    if path.contains("://") {
        return Err(("it is no path but a whole URL".into(), format!("{USUAL}; hosts are the API's `domains`")));
    }
    let Some(rest) = path.strip_prefix('/') else {
        return Err(("its path does not begin with `/`".into(), write(&slashed(path))));
    };
    let mut segments: Vec<Segment> = Vec::new();
    let mut left = Some(rest);
    while let Some(rest) = left {
        let (text, after) = rest.split_once('/').map_or((rest, None), |(text, after)| (text, Some(after)));
        let next = segment(text)?;
        if after.is_some() && text.is_empty() {
            let words: Vec<_> = path.split('/').filter(|text| !text.is_empty()).collect();
            return Err(("a segment of its path is empty".into(), write(&slashed(&words.join("/")))));
        }
        if let (Some(_), Segment::Greedy(name)) = (after, &next) {
            let help = format!("write `{{{name}}}` for one segment, or end the path with `{text}`");
            return Err((format!("`{text}` takes all that follows it, so it can only be the last"), help));
        }
        if let Some(name) = next.name().filter(|name| segments.iter().any(|other| other.name() == Some(name))) {
            return Err((format!("two variables are called `{name}`"), "give each a name of its own".into()));
        }
        segments.push(next);
        left = after;
    }
    Ok(segments)
}

fn segment(text: &str) -> Result<Segment, Complaint> {
    if let Some(inner) = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
        let greedy = inner.strip_suffix('+');
        let name = greedy.unwrap_or(inner);
        return match greedy {
            _ if !is_name(name) => Err(no_variable(text)),
            Some(name) => Ok(Segment::Greedy(name.into())),
            None => Ok(Segment::Variable(name.into())),
        };
    }
    if [".", ".."].contains(&text) {
        return Err((format!("a request with a segment `{text}` is refused"), "leave it out".into()));
    }
    let is_fine = |c: char| c.is_ascii_alphanumeric() || "._~:-".contains(c);
    match text.chars().find(|c| !is_fine(*c)) {
        None if !text.starts_with(':') => Ok(Segment::Literal(text.into())),
        Some('?') => Err(("a query has no part in finding a route".into(), "write the path alone".into())),
        Some(odd) if variable_meant(text).is_none() && !"{}".contains(odd) => {
            let help = "use `A-Z a-z 0-9 . _ ~ : -`, or a variable like `{name}`, which matches any text";
            Err((format!("`{odd}` may not stand in its path"), help.into()))
        }
        _ => Err(no_variable(text)),
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "_.:-".contains(c))
}

fn no_variable(text: &str) -> Complaint {
    let found = if text.starts_with('{') && !text.contains('}') {
        format!("`{text}` is not closed")
    } else {
        format!("`{text}` is no variable")
    };
    let help = match variable_meant(text) {
        Some(meant) => format!("write `{meant}`"),
        None => "write it like `{id}` or `{proxy+}`, a whole segment, of `A-Z a-z 0-9 _ . : -`".into(),
    };
    (found, help)
}

/// The variable that another router's spelling, or one not quite closed, stands for.
fn variable_meant(text: &str) -> Option<String> {
    let marks = ['{', '}', '<', '>', '[', ']', ':', '*', '+'];
    if !text.starts_with(marks) && !text.ends_with(marks) {
        return None;
    }
    let name = text.trim_matches(marks);
    let plus = if text.contains(['*', '+']) { "+" } else { "" };
    match name {
        "" if plus.is_empty() => Some("{id}".into()),
        "" => Some("{proxy+}".into()),
        _ => is_name(name).then(|| format!("{{{name}{plus}}}")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_is_a_method_and_a_path() {
        let check = |text: &str, names: &str| {
            let key = RouteKey::parse(text).unwrap();
            assert_eq!((key.text(), &*key.names().collect::<Vec<_>>().join(" ")), (text, names));
        };
        check("$default", "");
        check("GET /", "");
        check("GET /pets", "");
        check("GET /pets/", "");
        check("ANY /pets/{id}", "id");
        check("OPTIONS /{proxy+}", "proxy");
        check("PATCH /{a}/{b}/x/{c+}", "a b c");
        check("DELETE /~me/v1.0/things:batch/_a-b/...", "");
        check("PUT /{a.b:c-d_e}/", "a.b:c-d_e");
        check("HEAD /{a}/a", "a");
    }

    #[test]
    fn methods_and_default_are_told_apart() {
        let check = |text: &str, method: Option<Method>, is_default: bool| {
            let key = RouteKey::parse(text).unwrap();
            assert_eq!((key.method(), key.is_default()), (method.as_ref(), is_default), "{text}");
        };
        check("POST /a", Some(Method::POST), false);
        check("ANY /a", None, false);
        check("$default", None, true);
    }

    #[test]
    fn a_near_miss_is_named() {
        let check = |text: &str, wanted: &str| {
            let (found, help) = RouteKey::parse(text).unwrap_err();
            let found = found.replace(&format!("`{text}` cannot be a route key: "), "");
            assert_eq!(format!("{found}; {help}"), wanted, "{text}");
        };
        let usual = USUAL;
        let variable = "write it like `{id}` or `{proxy+}`, a whole segment, of `A-Z a-z 0-9 _ . : -`";
        let literal = "use `A-Z a-z 0-9 . _ ~ : -`, or a variable like `{name}`, which matches any text";

        check("", &format!("this route key is empty; {usual}"));
        check("sendmessage", &format!("it is no method and path; {usual}"));
        check("default", "it is no method and path; did you mean `$default`?");
        check("$defualt", "it is no method and path; did you mean `$default`?");
        check("$connect", "only WebSocket APIs have that one; the one of HTTP APIs is `$default`");
        check("/pets", "it has no method; write `GET /pets`, or `ANY /pets` for every method");
        check(" /pets", "it has no method; write `GET /pets`, or `ANY /pets` for every method");
        check("GET", "it has no path; write `GET /`");
        check("get", "it has no path; write `GET /`");
        check("GET/pets", "a blank between method and path is missing; write `GET /pets`");
        check("GET  /pets", "only one blank stands in it, between method and path; write `GET /pets`");
        check("GET /my pets", &format!("only one blank stands in it, between method and path; {usual}"));

        check("get /pets", "`get` is not in capitals; write `GET /pets`");
        check("get pets", "`get` is not in capitals; write `GET /pets`");
        check("DELET /pets", "`DELET` is no method of a route; did you mean `DELETE /pets`?");
        check("* /pets", "`*` is no method of a route; write `ANY /pets`");
        check("all /pets", "`all` is no method of a route; write `ANY /pets`");
        let methods = "use `GET`, `POST`, `PUT`, `PATCH`, `DELETE`, `HEAD`, `OPTIONS`, or `ANY` for all there are";
        check("PURGE /pets", &format!("`PURGE` is no method of a route; {methods}"));

        check("GET pets", "its path does not begin with `/`; write `GET /pets`");
        check("GET ", "its path does not begin with `/`; write `GET /`");
        let domains = "hosts are the API's `domains`";
        check("GET http://a/b", &format!("it is no path but a whole URL; {usual}; {domains}"));
        check("GET //", "a segment of its path is empty; write `GET /`");
        check("GET /a//b", "a segment of its path is empty; write `GET /a/b`");
        check("GET /a?b=c", "a query has no part in finding a route; write the path alone");
        check("GET /a/../b", "a request with a segment `..` is refused; leave it out");
        check("GET /caf\u{e9}", &format!("`\u{e9}` may not stand in its path; {literal}"));
        check("GET /a%20b", &format!("`%` may not stand in its path; {literal}"));
        check("GET /@connections", &format!("`@` may not stand in its path; {literal}"));

        check("GET /{id", "`{id` is not closed; write `{id}`");
        check("GET /{id/a", "`{id` is not closed; write `{id}`");
        check("GET /id}", "`id}` is no variable; write `{id}`");
        check("GET /:id", "`:id` is no variable; write `{id}`");
        check("GET /<id>", "`<id>` is no variable; write `{id}`");
        check("GET /{{id}}", "`{{id}}` is no variable; write `{id}`");
        check("GET /{}", "`{}` is no variable; write `{id}`");
        check("GET /*", "`*` is no variable; write `{proxy+}`");
        check("GET /*rest", "`*rest` is no variable; write `{rest+}`");
        check("GET /{*rest}", "`{*rest}` is no variable; write `{rest+}`");
        check("GET /{+}", "`{+}` is no variable; write `{proxy+}`");
        check("GET /v{version}", &format!("`v{{version}}` is no variable; {variable}"));
        check("GET /{a}{b}", &format!("`{{a}}{{b}}` is no variable; {variable}"));
        check("GET /{\u{e9}}", &format!("`{{\u{e9}}}` is no variable; {variable}"));

        let last =
            "takes all that follows it, so it can only be the last; write `{p}` for one segment, or end the path";
        check("GET /{p+}/a", &format!("`{{p+}}` {last} with `{{p+}}`"));
        check("GET /{p+}/", &format!("`{{p+}}` {last} with `{{p+}}`"));
        check("GET /{a}/{a}", "two variables are called `a`; give each a name of its own");
        check("GET /{a}/b/{a+}", "two variables are called `a`; give each a name of its own");
    }

    fn written_as(pattern: &str) -> impl Strategy<Value = String> + use<> {
        prop::string::string_regex(pattern.trim_start_matches('^').trim_end_matches('$')).unwrap()
    }

    proptest! {
        #[test]
        fn the_pattern_and_the_parser_agree(
            text in written_as(RouteKey::PATTERN),
        ) {
            if let Err((found, _)) = RouteKey::parse(&text) {
                prop_assert!(found.contains("two variables") || found.contains("a segment `."), "{found}");
            }
        }

        #[test]
        fn nonsense_is_refused_without_a_panic(text in "[A-Z$*]{0,4} ?\\PC{0,6}[/{}:*<+?%. ]{0,4}\\PC{0,6}") {
            if let Err((_, help)) = RouteKey::parse(&text) {
                prop_assert!(!help.is_empty());
            }
        }

        /// Whoever writes the whole key that a help gives has, after a few such steps, a right one.
        #[test]
        fn advice_leads_to_a_key(
            start in "(get|POTS|GET|[*]|)( |  |)",
            first in "(/|//|)(a|[{]b[}]|[{]c[+][}])?",
            second in "(/|//|)(d|[{]e[}]|[{]f[+][}])?",
        ) {
            let mut text = start + &first + &second;
            for _ in 0..4 {
                let Err((_, help)) = RouteKey::parse(&text) else { return Ok(()) };
                let Some((_, advice)) = help.split_once('`') else { return Ok(()) };
                let (advice, _) = advice.split_once('`').unwrap();
                if !advice.contains(' ') {
                    return Ok(());
                }
                text = advice.to_owned();
            }
            prop_assert!(false, "{text}");
        }
    }
}
