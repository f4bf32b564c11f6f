//! Which events a watcher wants, as the query of `GET /api/tail` says it.

use super::event::{Event, Kind, OUTCOMES};
use crate::model::record::Outcome;
use crate::model::settings::nearest;

const NAMES: [&str; 9] = ["connection", "user", "route", "api", "stage", "outcome", "kind", "sample", "payload"];

/// What an event must be to be told; where nothing is said, anything.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter {
    pub connection: Option<String>,
    pub user: Option<String>,
    pub route: Option<String>,
    pub api: Option<String>,
    pub stage: Option<String>,
    /// Any where there is none, and so of the kinds.
    pub outcomes: Vec<Outcome>,
    pub kinds: Vec<Kind>,
    /// The share of these events that is told, above 0 and up to 1.
    pub sample: f64,
    pub payload: bool,
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            connection: None,
            user: None,
            route: None,
            api: None,
            stage: None,
            outcomes: Vec::new(),
            kinds: Vec::new(),
            sample: 1.0,
            payload: false,
        }
    }
}

impl Filter {
    /// Reads a query; an empty value is as good as none. The error says what is wrong, and what would do.
    pub fn parse(query: &str) -> Result<Filter, String> {
        let mut filter = Filter::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()).filter(|(_, value)| !value.is_empty()) {
            let text = || Some(value.clone().into_owned());
            match &*name {
                "connection" => filter.connection = text(),
                "user" => filter.user = text(),
                "route" => filter.route = text(),
                "api" => filter.api = text(),
                "stage" => filter.stage = text(),
                "outcome" => filter.outcomes.extend(words("outcome", &value, &OUTCOMES)?),
                "kind" => filter.kinds.extend(words("kind", &value, &Kind::ALL)?),
                "sample" => filter.sample = share(&value)?,
                "payload" => filter.payload = is_true(&value)?,
                _ => return Err(unknown("filter", &name, &NAMES)),
            }
        }
        Ok(filter)
    }

    /// Whether this event is to be told; by chance, where only a share is wanted.
    pub(super) fn wants(&self, event: &Event<'_>) -> bool {
        let is =
            |wanted: &Option<String>, found: Option<&str>| wanted.as_deref().is_none_or(|_| wanted.as_deref() == found);
        (self.kinds.is_empty() || self.kinds.contains(&event.kind))
            && (self.outcomes.is_empty() || self.outcomes.contains(&event.outcome))
            && is(&self.connection, event.connection)
            && is(&self.user, event.user)
            && is(&self.route, event.route)
            && is(&self.api, Some(event.api))
            && is(&self.stage, Some(event.stage))
            && (self.sample >= 1.0 || rand::random::<f64>() < self.sample)
    }
}

/// Words with commas between them.
fn words<T: Copy>(noun: &str, text: &str, known: &[(&str, T)]) -> Result<Vec<T>, String> {
    let names = || known.iter().map(|(name, _)| *name).collect::<Vec<_>>();
    let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
    words
        .map(|word| known.iter().find(|(name, _)| *name == word).ok_or_else(|| unknown(noun, word, &names())))
        .map(|found| found.map(|(_, one)| *one))
        .collect()
}

fn unknown(noun: &str, word: &str, known: &[&str]) -> String {
    match nearest(word, known.iter().copied()) {
        Some(near) => format!("`{word}` is no {noun}; did you mean `{near}`?"),
        None => format!("`{word}` is no {noun}; there are {}", known.join(", ")),
    }
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| *share > 0.0 && *share <= 1.0);
    share.ok_or_else(|| format!("`{text}` is no sample; write a share above 0 and up to 1, like `0.1`"))
}

fn is_true(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| format!("`{text}` says nothing of a payload; write `true` or `false`"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::clock::Timestamp;

    fn event(kind: Kind, outcome: Outcome) -> Event<'static> {
        Event {
            at: Timestamp(1),
            kind,
            api: "chat",
            stage: "prod",
            route: Some("send message"),
            connection: Some("7e8s-43WgB1PFu4="),
            request: None,
            user: None,
            address: None,
            outcome,
            status: None,
            latency: None,
            integration: None,
            direction: None,
            bytes: None,
            error: None,
            cause: None,
            authorizer: None,
            payload: None,
        }
    }

    fn check(query: &str, wanted: bool) {
        let filter = Filter::parse(query).unwrap();
        assert_eq!(filter.wants(&event(Kind::Message, Outcome::Ok)), wanted, "{query}");
    }

    #[test]
    fn an_event_must_be_all_that_is_said() {
        for query in ["", "user=&outcome=&sample=", "api=chat&stage=prod", "connection=7e8s-43WgB1PFu4%3D"] {
            check(query, true);
        }
        for query in ["route=send+message", "outcome=failed,ok", "kind=push&kind=message", "kind=%20message%20,"] {
            check(query, true);
        }
        for query in
            ["api=chat&stage=dev", "connection=7e8s", "user=alice", "route=send", "outcome=failed", "kind=push"]
        {
            check(query, false);
        }
    }

    fn wrong(query: &str, wanted: &str) {
        assert_eq!(Filter::parse(query), Err(wanted.to_owned()), "{query}");
    }

    #[test]
    fn what_is_wrong_is_said_with_what_would_do() {
        wrong("conection=7", "`conection` is no filter; did you mean `connection`?");
        wrong("x=7", "`x` is no filter; there are connection, user, route, api, stage, outcome, kind, sample, payload");
        wrong("outcome=ok,fialed", "`fialed` is no outcome; did you mean `failed`?");
        wrong("outcome=200", "`200` is no outcome; there are ok, refused, failed");
        wrong("kind=pushes", "`pushes` is no kind; did you mean `push`?");
        for sample in ["0", "-1", "1.5", "NaN", "half"] {
            let wanted = format!("`{sample}` is no sample; write a share above 0 and up to 1, like `0.1`");
            wrong(&format!("sample={sample}"), &wanted);
        }
        wrong("payload=yes", "`yes` says nothing of a payload; write `true` or `false`");
    }

    #[test]
    fn a_sample_is_a_share_of_what_happens() {
        let filter = Filter::parse("sample=0.25&payload=true").unwrap();
        assert!(filter.payload);
        let told = (0..10_000).filter(|_| filter.wants(&event(Kind::Push, Outcome::Refused))).count();
        // Twelve times the standard deviation away from it.
        assert!((2_000..3_000).contains(&told), "{told}");
    }
}
