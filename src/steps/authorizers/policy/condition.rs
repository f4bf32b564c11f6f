//! One line of a statement's `Condition`: an operator, a key of the call's context, and what its value is held against.
//!
//! A value of the context that cannot be read as what the operator compares (an address, a number) equals none.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::net::IpAddr;

use ipnet::IpNet;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde_json::Value;

use super::pattern::{self, Pattern, Special};
use super::{Context, Malformed};

/// An ARN is six parts, and colons in the last one divide nothing.
const PARTS_OF_AN_ARN: usize = 6;

#[derive(Debug, Clone)]
pub(super) struct Condition {
    /// In lower case.
    key: String,
    about: About,
    if_exists: bool,
    negated: bool,
    test: Test,
}

/// What of a key is tested. No key of a call has more than one value, so the set operators differ from the plain
/// ones only where there is none.
#[derive(Debug, Clone, Copy, PartialEq)]
enum About {
    Value,
    AnyValue,
    AllValues,
    /// `Null`: is it true that there is no value?
    Absence,
}

/// How a value must stand to any one of these.
#[derive(Debug, Clone)]
enum Test {
    Text(Vec<Pattern>),
    TextIgnoringCase(Vec<Pattern>),
    /// Each in its six parts.
    Arn(Vec<Vec<Pattern>>),
    Number(Compare, Vec<f64>),
    Date(Compare, Vec<Timestamp>),
    Bool(Vec<bool>),
    Address(Vec<IpNet>),
}

type Compare = fn(Ordering) -> bool;

/// Reads the whole of `Condition`. All of what comes back must hold.
pub(super) fn read(conditions: &Value, has_variables: bool) -> Result<Vec<Condition>, Malformed> {
    let mut all = Vec::new();
    for (operator, keys) in super::any_object(conditions)? {
        for (key, values) in super::any_object(keys).map_err(|malformed| malformed.inside(operator))? {
            let condition = Condition::read(operator, key, values, has_variables);
            all.push(condition.map_err(|malformed| malformed.inside(key).inside(operator))?);
        }
    }
    Ok(all)
}

impl Condition {
    fn read(operator: &str, key: &str, values: &Value, has_variables: bool) -> Result<Condition, Malformed> {
        let (about, name) = match operator.split_once(':') {
            Some(("ForAnyValue", name)) => (About::AnyValue, name),
            Some(("ForAllValues", name)) => (About::AllValues, name),
            _ if operator == "Null" => (About::Absence, "Bool"),
            _ => (About::Value, operator),
        };
        let (name, if_exists) = name.strip_suffix("IfExists").map_or((name, false), |name| (name, true));
        let test = Test::read(name, values, has_variables)?;
        Ok(Condition { key: key.to_lowercase(), about, if_exists, negated: name.contains("Not"), test })
    }

    pub(super) fn holds(&self, context: &Context<'_>) -> bool {
        let value = context(&self.key);
        match (self.about, value) {
            (About::Absence, value) => self.test.passes(&value.is_none().to_string(), context),
            (_, None) if self.if_exists => true,
            (About::Value, None) => self.negated,
            (About::Value, Some(value)) => self.test.passes(&value, context) != self.negated,
            // To IAM one empty text is an empty set, of which all values are anything and not any is.
            (about, value) => match value.filter(|value| !value.is_empty()) {
                Some(value) => self.test.passes(&value, context) != self.negated,
                None => about == About::AllValues,
            },
        }
    }
}

impl Test {
    /// `name` is an operator without what may stand before and after it. That it says `Not` is for the caller.
    fn read(name: &str, values: &Value, has_variables: bool) -> Result<Test, Malformed> {
        let special = |wildcards| Special { wildcards, variables: has_variables };
        let texts = |wildcards| each(values, pattern::WANTED, |text| Pattern::read(text, special(wildcards)));
        let comparison = |kind| name.strip_prefix(kind).and_then(compare);
        Ok(match name {
            "StringEquals" | "StringNotEquals" => Test::Text(texts(false)?),
            "StringLike" | "StringNotLike" => Test::Text(texts(true)?),
            "StringEqualsIgnoreCase" | "StringNotEqualsIgnoreCase" => {
                let read = |text: &str| Pattern::read(&text.to_lowercase(), special(false));
                Test::TextIgnoringCase(each(values, pattern::WANTED, read)?)
            }
            "ArnEquals" | "ArnLike" | "ArnNotEquals" | "ArnNotLike" => {
                let parts = |text: &str| Pattern::read_parts(text, special(true), PARTS_OF_AN_ARN);
                let read = |text: &str| parts(text).filter(|parts| parts.len() == PARTS_OF_AN_ARN);
                Test::Arn(each(values, "ARN of six parts", read)?)
            }
            "Bool" => Test::Bool(each(values, "`true` or `false`", flag)?),
            "IpAddress" | "NotIpAddress" => {
                Test::Address(each(values, "IP address or range like `203.0.113.0/24`", addresses)?)
            }
            _ => {
                if let Some(compare) = comparison("Numeric") {
                    Test::Number(compare, each(values, "number", number)?)
                } else if let Some(compare) = comparison("Date") {
                    Test::Date(compare, each(values, "date like `2026-11-21T00:39:45Z`", moment)?)
                } else {
                    let like = "write it like `StringEquals`, `ForAnyValue:StringLike` or `BoolIfExists`";
                    return Err(Malformed::new(format!("there is no such operator; {like}")));
                }
            }
        })
    }

    fn passes(&self, value: &str, context: &Context<'_>) -> bool {
        let any = |patterns: &[Pattern], value: &str, context: &Context<'_>| {
            patterns.iter().any(|pattern| pattern.matches(value, context) == Some(true))
        };
        match self {
            Test::Text(patterns) => any(patterns, value, context),
            Test::TextIgnoringCase(patterns) => {
                let in_lower_case = |key: &str| context(key).map(|value| Cow::Owned(value.to_lowercase()));
                any(patterns, &value.to_lowercase(), &in_lower_case)
            }
            Test::Arn(arns) => {
                let parts: Vec<&str> = value.splitn(PARTS_OF_AN_ARN, ':').collect();
                let fits = |(pattern, part): (&Pattern, &&str)| pattern.matches(part, context) == Some(true);
                parts.len() == PARTS_OF_AN_ARN && arns.iter().any(|arn| arn.iter().zip(&parts).all(fits))
            }
            Test::Number(compare, numbers) => number(value)
                .is_some_and(|value| numbers.iter().any(|number| value.partial_cmp(number).is_some_and(compare))),
            Test::Date(compare, dates) => {
                moment(value).is_some_and(|value| dates.iter().any(|date| compare(value.cmp(date))))
            }
            Test::Bool(flags) => flag(value).is_some_and(|value| flags.contains(&value)),
            Test::Address(ranges) => value
                .parse()
                .map(|address: IpAddr| address.to_canonical())
                .is_ok_and(|address| ranges.iter().any(|range| range.contains(&address))),
        }
    }
}

/// How the value of the context must compare with that of the policy.
fn compare(name: &str) -> Option<Compare> {
    match name {
        "Equals" | "NotEquals" => Some(Ordering::is_eq),
        "LessThan" => Some(Ordering::is_lt),
        "LessThanEquals" => Some(Ordering::is_le),
        "GreaterThan" => Some(Ordering::is_gt),
        "GreaterThanEquals" => Some(Ordering::is_ge),
        _ => None,
    }
}

/// Reads each of the values. Numbers and booleans need no quotes.
fn each<T>(values: &Value, wanted: &str, read: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, Malformed> {
    super::each(super::one_or_many(values), wanted, |value| match value {
        Value::String(text) => read(text),
        Value::Number(_) | Value::Bool(_) => read(&value.to_string()),
        _ => None,
    })
}

fn flag(text: &str) -> Option<bool> {
    [true, false].into_iter().find(|flag| text.eq_ignore_ascii_case(&flag.to_string()))
}

fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

/// Digits alone are seconds since 1970; a date alone is its midnight, and what names no zone is in UTC.
fn moment(text: &str) -> Option<Timestamp> {
    if let Ok(seconds) = text.parse() {
        return Timestamp::from_second(seconds).ok();
    }
    let in_utc = || TimeZone::UTC.to_timestamp(text.parse::<DateTime>().ok()?).ok();
    text.parse().ok().or_else(in_utc)
}

/// An address alone is the range of that one.
fn addresses(text: &str) -> Option<IpNet> {
    let alone = || text.parse::<IpAddr>().ok().map(IpNet::from);
    text.parse().ok().or_else(alone)
}
