//! What a credential may do, or may not: `execute-api:ManageConnections chat/prod/*`.
//!
//! An action and a resource, each with `*` wherever one likes, standing for any text, slashes too. No other
//! character is special. Matching takes the pieces between the stars one after the other and never goes
//! back, so no pattern is slow.

/// One line of `allow` or `deny`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    action: Wildcard,
    resource: Wildcard,
}

/// What is wrong with a line of `allow`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error(
        "`{0}` is not an action and a resource with a space between them; write it like `execute-api:ManageConnections chat/prod/*`"
    )]
    Words(String),
    #[error("`{0}` is an ARN; name the API and the stage instead, like `chat/prod/*`")]
    Arn(String),
}

impl Pattern {
    pub fn parse(text: &str) -> Result<Pattern, Error> {
        let mut words = text.split_whitespace();
        let (Some(action), Some(resource), None) = (words.next(), words.next(), words.next()) else {
            return Err(Error::Words(text.to_owned()));
        };
        if resource.starts_with("arn:") {
            return Err(Error::Arn(resource.to_owned()));
        }
        Ok(Pattern { action: Wildcard::new(action), resource: Wildcard::new(resource) })
    }

    pub fn covers_action(&self, action: &str) -> bool {
        self.action.matches(action)
    }

    pub fn covers(&self, action: &str, resource: &str) -> bool {
        self.action.matches(action) && self.resource.matches(resource)
    }
}

/// What a call to `@connections` asks for: `<api>/<stage>/<METHOD>/@connections/<id>`.
pub fn resource(api: &str, stage: &str, method: &str, id: &str) -> String {
    format!("{api}/{stage}/{method}/@connections/{id}")
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Wildcard {
    Exact(String),
    Around { first: String, middle: Vec<String>, last: String },
}

impl Wildcard {
    fn new(text: &str) -> Wildcard {
        let Some((first, rest)) = text.split_once('*') else {
            return Wildcard::Exact(text.to_owned());
        };
        let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
        let pieces = middle.split('*').filter(|piece| !piece.is_empty());
        Wildcard::Around { first: first.to_owned(), middle: pieces.map(str::to_owned).collect(), last: last.to_owned() }
    }

    fn matches(&self, text: &str) -> bool {
        let (first, middle, last) = match self {
            Wildcard::Exact(exact) => return text == exact,
            Wildcard::Around { first, middle, last } => (first, middle, last),
        };
        // The leftmost place of a piece is as good as any: it leaves most for those after it.
        let after = |rest: &str, piece: &str| Some(rest.find(piece)? + piece.len());
        let Some(mut rest) = text.strip_prefix(first.as_str()) else {
            return false;
        };
        for piece in middle {
            match after(rest, piece) {
                Some(end) => rest = &rest[end..],
                None => return false,
            }
        }
        rest.ends_with(last.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn patterns_allow_what_they_name() {
        let post = resource("chat", "prod", "POST", "7e8s-43WgB1PFu4=");
        let check = |pattern: &str, allowed: bool| {
            let pattern = Pattern::parse(pattern).unwrap();
            assert_eq!(pattern.covers("execute-api:ManageConnections", &post), allowed, "{pattern:?}");
        };
        check("execute-api:ManageConnections chat/prod/*", true);
        check("execute-api:ManageConnections chat/prod/POST/@connections/*", true);
        check("execute-api:ManageConnections chat/prod/POST/@connections/7e8s-43WgB1PFu4=", true);
        check("  execute-api:*   chat/*/POST/*  ", true);
        check("* *", true);
        check("* chat/prod", false);
        check("* chat/prod/", false);
        check("* chat/prod/GET/*", false);
        check("* chat/dev/*", false);
        check("* chat2/*", false);
        check("execute-api:Invoke chat/prod/*", false);
        check("execute-api:manageconnections chat/prod/*", false);
        check("* chat/prod/????/@connections/*", false);
    }

    #[test]
    fn patterns_are_two_words() {
        let check = |text: &str, problem: &str| {
            assert_eq!(Pattern::parse(text).unwrap_err().to_string(), problem);
        };
        let words = "is not an action and a resource with a space between them; \
                     write it like `execute-api:ManageConnections chat/prod/*`";
        check("", &format!("`` {words}"));
        check("chat/prod/*", &format!("`chat/prod/*` {words}"));
        check("a b c", &format!("`a b c` {words}"));
        check(
            "execute-api:* arn:aws:execute-api:*:*:*/prod/*",
            "`arn:aws:execute-api:*:*:*/prod/*` is an ARN; name the API and the stage instead, like `chat/prod/*`",
        );
    }

    #[test]
    fn no_pattern_is_slow() {
        let pattern = Wildcard::new(&("a*".repeat(2000) + "b"));
        let begun = Instant::now();
        assert!(!pattern.matches(&"a".repeat(100_000)));
        assert!(begun.elapsed() < Duration::from_secs(1));
    }

    /// The slow twin: every way to divide the text.
    fn naive(pattern: &[u8], text: &[u8]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some((b'*', rest)) => (0..=text.len()).any(|from| naive(rest, &text[from..])),
            Some((byte, rest)) => text.first() == Some(byte) && naive(rest, &text[1..]),
        }
    }

    proptest! {
        #[test]
        fn matching_is_as_a_naive_scan_says(pattern in "[ab*]{0,8}", text in "[ab]{0,12}") {
            prop_assert_eq!(
                Wildcard::new(&pattern).matches(&text),
                naive(pattern.as_bytes(), text.as_bytes())
            );
        }
    }
}
