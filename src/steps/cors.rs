//! CORS: which pages of other origins a browser lets use an HTTP API.
//!
//! With a `cors` table the gateway speaks alone, as at AWS: it answers preflights itself, and what a backend says
//! about CORS is dropped. Nothing is refused here. An origin that is not allowed gets the same answer without the
//! headers, and it is the browser that keeps it from the page.

use std::borrow::Cow;

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD,
    ORIGIN,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::model::headers;
use crate::model::origin::{self, Origin};
use crate::model::problem::{Place, Problems};
use crate::model::settings::{Duration, OneOrMany, OrNone, Spanned, Text, settings};

settings! {
    /// Lets pages of other origins use an HTTP API from a browser. Preflights are answered by the gateway, before any
    /// authorizer, and CORS headers of backends are dropped.
    pub struct Settings {
        /// Origins such as `https://app.example.com`, or `*`, `https://*` or `http://*` for all of them.
        pub allow_origins: OneOrMany<Text>,
        /// Methods that pages may use, or `*`; browsers let them use GET, HEAD and POST in any case.
        pub allow_methods: Vec<Text> = [],
        /// Headers that pages may send, or `*`, which to browsers is all but `Authorization`: name that as well.
        pub allow_headers: Vec<Text> = [],
        /// Headers of answers that pages may read, or `*`.
        pub expose_headers: Vec<Text> = [],
        /// How long browsers may remember a preflight, at most `24h`; `none` leaves it to them (5 seconds).
        pub max_age: Spanned<OrNone<Duration>> = "none",
        /// Lets pages send cookies and other credentials; not together with the origin `*`.
        pub allow_credentials: Spanned<bool> = false,
    }
}

/// The longest `max_age`, as at AWS; browsers cut it to two hours or a day.
const LONGEST_MAX_AGE: std::time::Duration = std::time::Duration::from_secs(86_400);

/// A checked `cors` table: all it ever says, ready to be sent.
#[derive(Debug, Clone)]
pub struct Cors {
    origins: Origins,
    // The two hold everything but the allowed origin.
    of_preflights: Vec<(HeaderName, HeaderValue)>,
    of_answers: Vec<(HeaderName, HeaderValue)>,
}

/// Whether a browser asks what it may do, rather than doing it. Every other `OPTIONS` is an ordinary request.
pub fn is_preflight(method: &Method, request: &HeaderMap) -> bool {
    method == Method::OPTIONS && request.contains_key(ORIGIN) && request.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

impl Cors {
    /// `None` after a problem was noted.
    pub fn new(settings: &Settings, problems: &mut Problems) -> Option<Cors> {
        let mut found = Problems::default();
        let origins = Origins::new(&settings.allow_origins, &mut found);
        let methods = joined(&settings.allow_methods, check_method, &mut found);
        let headers = joined(&settings.allow_headers, check_header, &mut found);
        let exposed = joined(&settings.expose_headers, check_header, &mut found);
        let max_age = max_age(&settings.max_age, &mut found);
        warn_of_more_than_all(&settings.allow_origins, &mut found);
        warn_of_more_than_all(&settings.allow_methods, &mut found);
        if *settings.allow_credentials {
            check_credentials(settings, &mut found);
        } else {
            warn_of_more_than_all(&settings.expose_headers, &mut found);
        }

        let credentials = settings.allow_credentials.then(|| HeaderValue::from_static("true"));
        let of_answers =
            [(ACCESS_CONTROL_ALLOW_CREDENTIALS, credentials), (ACCESS_CONTROL_EXPOSE_HEADERS, exposed)].into_iter();
        let of_preflights = [
            (ACCESS_CONTROL_ALLOW_METHODS, methods),
            (ACCESS_CONTROL_ALLOW_HEADERS, headers),
            (ACCESS_CONTROL_MAX_AGE, max_age),
        ];
        let said = |(name, value): (HeaderName, Option<HeaderValue>)| Some((name, value?));
        let cors = Cors {
            origins,
            of_preflights: of_preflights.into_iter().chain(of_answers.clone()).filter_map(said).collect(),
            of_answers: of_answers.filter_map(said).collect(),
        };
        let is_good = !found.has_problems();
        problems.merge(found);
        is_good.then_some(cors)
    }

    /// The headers of the answer to a preflight, which is a 204 without a body whether the origin is allowed or not.
    /// They do not hang on the method and headers asked for: comparing is the browser's part.
    pub fn preflight(&self, request: &HeaderMap) -> HeaderMap {
        let mut answer = HeaderMap::new();
        self.say(request.get(ORIGIN), &self.of_preflights, &mut answer);
        answer
    }

    /// Puts our word in place of the backend's on any other answer, the gateway's own refusals included.
    pub fn apply(&self, origin: Option<&HeaderValue>, answer: &mut HeaderMap) {
        // Without an origin as well: a cache may hand this answer to a page later.
        let is_about_cors = |name: &&HeaderName| name.as_str().starts_with("access-control-");
        let theirs: Vec<HeaderName> = answer.keys().filter(is_about_cors).cloned().collect();
        for name in theirs {
            answer.remove(name);
        }
        self.say(origin, &self.of_answers, answer);
    }

    fn say(&self, origin: Option<&HeaderValue>, what: &[(HeaderName, HeaderValue)], answer: &mut HeaderMap) {
        if !matches!(self.origins, Origins::All) {
            // Also when nothing else is said: the next to ask a cache for this answer may come from an allowed origin.
            headers::add_vary(answer, ORIGIN);
        }
        let Some(allowed) = origin.and_then(|origin| self.origins.allow(origin)) else { return };
        answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        for (name, value) in what {
            answer.insert(name, value.clone());
        }
    }
}

#[derive(Debug, Clone)]
enum Origins {
    /// `*`
    All,
    Some {
        /// `https://*` and `http://*`.
        schemes: Vec<&'static str>,
        exact: Vec<Origin>,
    },
}

impl Origins {
    fn new(written: &[Text], problems: &mut Problems) -> Origins {
        let (mut schemes, mut exact) = (Vec::new(), Vec::new());
        for text in written.iter().filter(|text| !text.unresolved) {
            match &**text {
                "*" => {}
                "https://*" => schemes.push("https"),
                "http://*" => schemes.push("http"),
                origin => match Origin::parse(origin) {
                    Some(origin) => exact.push(origin),
                    None => problems.problem_with_help(&text.place, format!("`{origin}` is no origin"), hint(origin)),
                },
            }
        }
        if written.iter().any(|text| &**text == "*") { Origins::All } else { Origins::Some { schemes, exact } }
    }

    /// What `access-control-allow-origin` says to `origin`, if anything.
    fn allow(&self, origin: &HeaderValue) -> Option<HeaderValue> {
        let Origins::Some { schemes, exact } = self else { return Some(HeaderValue::from_static("*")) };
        let asking = Origin::parse(origin.to_str().ok()?)?;
        let is_allowed = schemes.contains(&asking.scheme.as_str()) || exact.contains(&asking);
        // As it came, not as we understand it: the browser compares letter by letter.
        is_allowed.then(|| origin.clone())
    }
}

/// What would do in place of a text that is no origin.
fn hint(text: &str) -> Cow<'static, str> {
    origin::hint(text, |text| Origin::parse(text).is_some()).unwrap_or_else(|| match text.contains('*') {
        true => "`*` stands only for all of them, in `*`, `https://*` or `http://*`; name each host".into(),
        false => "write scheme, host and perhaps port, like `https://app.example.com`".into(),
    })
}

/// The checked items of a list as one header value; `None` for an empty list.
fn joined(items: &[Text], check: fn(&str) -> Result<(), Wrong>, problems: &mut Problems) -> Option<HeaderValue> {
    let mut line = String::new();
    for text in items.iter().filter(|text| !text.unresolved) {
        if &**text != "*"
            && let Err((found, help)) = check(text)
        {
            problems.problem_with_help(&text.place, found, help);
            continue;
        }
        if !line.is_empty() {
            line.push(',');
        }
        line.push_str(text);
    }
    (!line.is_empty()).then(|| HeaderValue::from_str(&line).expect("tokens and commas are a header value"))
}

/// What was found, and what would do.
type Wrong = (String, String);

fn check_method(text: &str) -> Result<(), Wrong> {
    let upper = text.to_ascii_uppercase();
    let is_known = matches!(upper.as_str(), "GET" | "HEAD" | "POST" | "PUT" | "DELETE" | "PATCH" | "OPTIONS");
    if upper == "ANY" {
        return Err((format!("`{text}` means nothing to browsers"), "write `*`".into()));
    }
    if is_known && upper != text {
        return Err((format!("`{text}` is another method to browsers than `{upper}`"), format!("write `{upper}`")));
    }
    match Method::from_bytes(text.as_bytes()) {
        Ok(_) => Ok(()),
        Err(_) => Err((format!("`{text}` is no method"), "write it like `PUT`, or `*`".into())),
    }
}

fn check_header(text: &str) -> Result<(), Wrong> {
    let help = match HeaderName::from_bytes(text.as_bytes()) {
        // A name may have a `*` in it, but whoever writes one means a pattern, which browsers do not know.
        Ok(_) if text.contains('*') => "write each name, or `*` alone for all",
        Ok(_) => return Ok(()),
        Err(_) => "write it like `x-request-id`, or `*` for all",
    };
    Err((format!("`{text}` is no name of a header"), help.into()))
}

/// AWS also takes -1, which to browsers is the same as `0s`.
fn max_age(written: &Spanned<OrNone<Duration>>, problems: &mut Problems) -> Option<HeaderValue> {
    let duration = written.value.0?;
    if duration.0 > LONGEST_MAX_AGE {
        let found = format!("`{duration}` is longer than a day");
        problems.problem_with_help(&written.place, found, "write at most `24h`");
    } else if duration.0.subsec_millis() != 0 {
        let found = format!("`{duration}` is no number of whole seconds");
        problems.problem_with_help(&written.place, found, "browsers are told seconds; write it like `5s`, or `none`");
    }
    Some(HeaderValue::from(duration.0.as_secs()))
}

/// For the headers a page may send this would be wrong: there `*` stands for all but `Authorization`.
fn warn_of_more_than_all(items: &[Text], problems: &mut Problems) {
    if items.len() > 1
        && let Some(place) = place_of_all(items)
    {
        problems.warning_with_help(place, "`*` is all there is", "remove the rest of the list, or `*`");
    }
}

fn check_credentials(settings: &Settings, problems: &mut Problems) {
    if let Some(place) = place_of_all(&settings.allow_origins) {
        let help = "name the origins: no browser shows an answer to `*` when it sent credentials";
        problems.problem_with_help(place, "`*` is not possible with `allow_credentials = true`", help);
    }
    for text in settings.allow_origins.iter().filter(|text| text.ends_with("://*")) {
        let found = format!("`{}` with `allow_credentials = true` lets any page act for your users", &**text);
        problems.warning_with_help(&text.place, found, "name the origins that may");
    }
    // No problem, since AWS takes it too and requests without a preflight work; but not what it looks like.
    for items in [&settings.allow_methods, &settings.allow_headers, &settings.expose_headers] {
        if let Some(place) = place_of_all(items) {
            let found = "with `allow_credentials = true` browsers take `*` for a name, not for all of them";
            problems.warning_with_help(place, found, "name each that pages need");
        }
    }
}

fn place_of_all(items: &[Text]) -> Option<&Place> {
    items.iter().find(|text| &***text == "*").map(|text| &text.place)
}

#[cfg(test)]
#[path = "cors_tests.rs"]
mod tests;
