//! The policy a Lambda authorizer answers with, and whether it allows a call.
//!
//! It is read once, into `statement`s that hold `pattern`s and `condition`s, and decided upon anew for each call.
//! A statement that denies wins wherever it stands; without one, some statement must allow. This is how IAM
//! evaluates an identity policy, except that a resource is matched as one text, as API Gateway does it.

mod condition;
mod pattern;
mod statement;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::slice;

use serde_json::{Map, Value};

use statement::{Effect, Statement};

/// As JSON, in bytes. IAM's own policies end at 10,240 characters; every call walks through all of this one.
const LARGEST_DOCUMENT: usize = 64 * 1024;
/// More than this an authorizer has no use for: one statement takes a list of resources.
const MOST_STATEMENTS: usize = 100;
/// In characters, of a value or a name in the log.
const LONGEST_SHOWN: usize = 60;

/// A policy document, read and found to be well formed.
#[derive(Debug, Clone)]
pub struct Policy {
    statements: Vec<Statement>,
}

/// What a policy says to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    Allowed,
    /// No statement allows it.
    NotAllowed,
    /// A statement denies it, whatever others say.
    Denied,
}

/// What a call wants to do.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// Like `execute-api:Invoke`.
    pub action: &'a str,
    /// The ARN of the method or route.
    pub resource: &'a str,
    pub context: &'a Context<'a>,
}

/// The value of a condition key such as `aws:sourceip`, if the call has one. Keys are asked for in lower case:
/// a policy may write them in any.
pub type Context<'a> = dyn Fn(&str) -> Option<Cow<'a, str>> + 'a;

/// What is wrong with a document, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {what}")]
pub struct Malformed {
    at: String,
    what: String,
}

impl Policy {
    /// Reads a `policyDocument`. What IAM would not take is malformed, and so is what is too large to be walked
    /// through for each call: a statement that is passed over could be the one that denies.
    pub fn read(document: &Value) -> Result<Policy, Malformed> {
        read(document).map_err(|malformed| malformed.inside("policyDocument"))
    }

    pub fn decide(&self, asked: &Asked<'_>) -> Decision {
        let says = |effect| self.statements.iter().any(|one| one.effect == effect && one.applies(asked));
        if says(Effect::Deny) {
            Decision::Denied
        } else if says(Effect::Allow) {
            Decision::Allowed
        } else {
            Decision::NotAllowed
        }
    }
}

fn read(document: &Value) -> Result<Policy, Malformed> {
    let members = object(document, &["Version", "Id", "Statement"])?;
    if document.to_string().len() > LARGEST_DOCUMENT {
        return Err(Malformed::new(format!("it is larger than {LARGEST_DOCUMENT} bytes")));
    }
    let has_variables = match members.get("Version") {
        None => false,
        Some(version) if version == "2008-10-17" => false,
        Some(version) if version == "2012-10-17" => true,
        Some(other) => {
            let what = format!("{} is no version; write `2012-10-17`", shown(other));
            return Err(Malformed::new(what).inside("Version"));
        }
    };
    let statements = members.get("Statement").ok_or_else(|| Malformed::new("there is no `Statement`"))?;
    let statements = at_least_one(statements).map_err(|malformed| malformed.inside("Statement"))?;
    if statements.len() > MOST_STATEMENTS {
        return Err(Malformed::new(format!("there are more than {MOST_STATEMENTS}")).inside("Statement"));
    }
    let statements = statements.iter().enumerate().map(|(at, statement)| {
        Statement::read(statement, has_variables).map_err(|malformed| malformed.inside(&format!("Statement[{at}]")))
    });
    Ok(Policy { statements: statements.collect::<Result<_, _>>()? })
}

/// The members of an object that has no others than these.
fn object<'v>(value: &'v Value, known: &[&str]) -> Result<&'v Map<String, Value>, Malformed> {
    let members = any_object(value)?;
    match members.keys().find(|name| !known.contains(&name.as_str())) {
        None => Ok(members),
        Some(name) => {
            let what = format!("{} has no place here; only {} have", shown(&name.as_str().into()), known.join(", "));
            Err(Malformed::new(what))
        }
    }
}

fn any_object(value: &Value) -> Result<&Map<String, Value>, Malformed> {
    value.as_object().ok_or_else(|| Malformed::new(format!("{} is no object", shown(value))))
}

/// Reads each of the values; `wanted` is what one of them should be.
fn each<T>(values: &[Value], wanted: &str, read: impl Fn(&Value) -> Option<T>) -> Result<Vec<T>, Malformed> {
    let read = |value| read(value).ok_or_else(|| Malformed::new(format!("{} is no {wanted}", shown(value))));
    values.iter().map(read).collect()
}

/// The value, or those of the list.
fn one_or_many(value: &Value) -> &[Value] {
    value.as_array().map_or(slice::from_ref(value), Vec::as_slice)
}

fn at_least_one(value: &Value) -> Result<&[Value], Malformed> {
    let values = one_or_many(value);
    if values.is_empty() { Err(Malformed::new("the list is empty")) } else { Ok(values) }
}

/// The beginning of a value as JSON, which has no line breaks to forge a log with.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(LONGEST_SHOWN) {
        None => format!("`{text}`"),
        Some((end, _)) => format!("`{}…`", &text[..end]),
    }
}

impl Malformed {
    fn new(what: impl Into<String>) -> Malformed {
        Malformed { at: String::new(), what: what.into() }
    }

    /// The same, seen from outside of a member, which may have any name.
    fn inside(self, member: &str) -> Malformed {
        let member: String = member.escape_debug().take(LONGEST_SHOWN).collect();
        let dot = if self.at.is_empty() { "" } else { "." };
        Malformed { at: format!("{member}{dot}{}", self.at), what: self.what }
    }
}
