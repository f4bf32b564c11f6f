//! One statement: what it allows or denies, and under which conditions.

use serde_json::{Map, Value};

use super::condition::{self, Condition};
use super::pattern::{self, Pattern, Special};
use super::{Asked, Context, Malformed};

/// In characters; API Gateway takes no longer `Resource` from an authorizer.
const LONGEST_RESOURCE: usize = 512;

#[derive(Debug, Clone)]
pub(super) struct Statement {
    pub(super) effect: Effect,
    actions: Names,
    resources: Names,
    conditions: Vec<Condition>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    Allow,
    Deny,
}

/// `Action` or `Resource`; `NotAction` and `NotResource` stand for all but what they name.
#[derive(Debug, Clone)]
struct Names {
    all_but: bool,
    patterns: Vec<Pattern>,
}

impl Statement {
    pub(super) fn read(statement: &Value, has_variables: bool) -> Result<Statement, Malformed> {
        // `Principal` is not among them: IAM has none in the policy of an identity.
        let known = &["Sid", "Effect", "Action", "NotAction", "Resource", "NotResource", "Condition"];
        let members = super::object(statement, known)?;
        let action = |text: &str| {
            let has_service = text == "*" || text.contains(':');
            Pattern::read(&text.to_lowercase(), Special { wildcards: true, variables: false }).filter(|_| has_service)
        };
        let resource = |text: &str| {
            let is_short = text.chars().nth(LONGEST_RESOURCE).is_none();
            Pattern::read(text, Special { wildcards: true, variables: has_variables }).filter(|_| is_short)
        };
        let wanted = format!("{} of at most {LONGEST_RESOURCE} characters", pattern::WANTED);
        Ok(Statement {
            effect: effect(members.get("Effect")).map_err(|malformed| malformed.inside("Effect"))?,
            actions: Names::read(members, "Action", "action like `execute-api:Invoke`", action)?,
            resources: Names::read(members, "Resource", &wanted, resource)?,
            conditions: match members.get("Condition") {
                None => Vec::new(),
                Some(all) => condition::read(all, has_variables).map_err(|malformed| malformed.inside("Condition"))?,
            },
        })
    }

    pub(super) fn applies(&self, asked: &Asked<'_>) -> bool {
        self.actions.cover(&asked.action.to_lowercase(), asked.context, self.effect)
            && self.resources.cover(asked.resource, asked.context, self.effect)
            && self.conditions.iter().all(|condition| condition.holds(asked.context))
    }
}

fn effect(written: Option<&Value>) -> Result<Effect, Malformed> {
    match written {
        Some(effect) if effect == "Allow" => Ok(Effect::Allow),
        Some(effect) if effect == "Deny" => Ok(Effect::Deny),
        Some(other) => Err(Malformed::new(format!("{} is neither `Allow` nor `Deny`", super::shown(other)))),
        None => Err(Malformed::new("there is none; write `Allow` or `Deny`")),
    }
}

impl Names {
    fn read(
        members: &Map<String, Value>,
        these: &str,
        wanted: &str,
        pattern: impl Fn(&str) -> Option<Pattern>,
    ) -> Result<Names, Malformed> {
        let all_but_these = format!("Not{these}");
        let (name, values) = match (members.get(these), members.get(&all_but_these)) {
            (Some(values), None) => (these, values),
            (None, Some(values)) => (all_but_these.as_str(), values),
            _ => return Err(Malformed::new(format!("of `{these}` and `{all_but_these}` there must be one"))),
        };
        let read = |values| super::each(values, wanted, |value| pattern(value.as_str()?));
        let patterns = super::at_least_one(values).and_then(read);
        Ok(Names { all_but: name != these, patterns: patterns.map_err(|malformed| malformed.inside(name))? })
    }

    fn cover(&self, text: &str, context: &Context<'_>, effect: Effect) -> bool {
        let mut matches = self.patterns.iter().map(|pattern| pattern.matches(text, context));
        match (self.all_but, effect) {
            (false, _) => matches.any(|matched| matched == Some(true)),
            (true, Effect::Deny) => !matches.any(|matched| matched == Some(true)),
            // A name whose variable has no value names nothing, but all but nothing is everything: more
            // than its author can have meant to allow.
            (true, Effect::Allow) => matches.all(|matched| matched == Some(false)),
        }
    }
}
