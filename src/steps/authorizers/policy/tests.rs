//! Cases derived by hand from what IAM documents, in `cases.json`, and two slow twins.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::json;

use super::pattern::{Pattern, Special};
use super::*;

const PET: &str = "arn:aws:execute-api:us-east-1:123456789012:a1b2c3d4e5/prod/GET/pets/7";

type Pairs = BTreeMap<String, String>;

/// The one place that knows the interface. `expected` is a decision, or what the error contains.
#[track_caller]
fn check(policy: &Value, action: &str, resource: &str, context: &Pairs, expected: Result<Decision, &str>) {
    match (Policy::read(policy).map(|policy| decide(&policy, action, resource, context)), expected) {
        (Ok(decision), Ok(expected)) => assert_eq!(decision, expected, "{policy}\n{action} {resource} {context:?}"),
        (Err(malformed), Err(part)) => assert!(malformed.to_string().contains(part), "{malformed}\n{part}"),
        (found, expected) => panic!("{found:?} and not {expected:?}: {policy}"),
    }
}

fn decide(policy: &Policy, action: &str, resource: &str, context: &Pairs) -> Decision {
    let lower: Pairs = context.iter().map(|(key, value)| (key.to_lowercase(), value.clone())).collect();
    let find = |key: &str| lower.get(key).map(|value| Cow::Borrowed(value.as_str()));
    policy.decide(&Asked { action, resource, context: &find })
}

fn cases() -> BTreeMap<String, Vec<Value>> {
    serde_json::from_str(include_str!("cases.json")).unwrap()
}

/// A case gives the whole document, its statements, or the conditions under which all is allowed. It asks for a pet
/// unless it says otherwise.
fn document(case: &Value) -> Value {
    if let Some(policy) = case.get("policy") {
        return policy.clone();
    }
    let statements = case.get("statements").cloned().unwrap_or_else(
        || json!({"Effect": "Allow", "Action": "execute-api:Invoke", "Resource": "*", "Condition": case["condition"]}),
    );
    json!({"Version": "2012-10-17", "Statement": statements})
}

fn check_case(case: &Value) {
    let context = case.get("context").cloned().map(serde_json::from_value).transpose().unwrap().unwrap_or_default();
    let expected = match (case["decision"].as_str(), case["malformed"].as_str()) {
        (Some("allowed"), None) => Ok(Decision::Allowed),
        (Some("not allowed"), None) => Ok(Decision::NotAllowed),
        (Some("denied"), None) => Ok(Decision::Denied),
        (None, Some(part)) => Err(part),
        _ => panic!("what is expected of {case}?"),
    };
    let text = |member: &str, otherwise| case.get(member).map_or(otherwise, |text| text.as_str().unwrap());
    check(&document(case), text("action", "execute-api:Invoke"), text("resource", PET), &context, expected);
}

/// A test for each group of cases, and one that no group lacks its test.
macro_rules! groups {
    ($($group:ident)*) => {
        $(#[test]
        fn $group() {
            cases()[stringify!($group)].iter().for_each(check_case);
        })*

        #[test]
        fn every_case_is_checked() {
            let mut tested = [$(stringify!($group)),*];
            tested.sort_unstable();
            assert_eq!(cases().into_keys().collect::<Vec<_>>(), tested);
        }
    };
}

groups! {
    a_statement_that_allows_is_needed
    a_statement_that_denies_wins
    the_order_of_statements_makes_no_difference
    one_of_several_statements_or_names_is_enough
    actions_take_wildcards_in_any_case
    resources_take_wildcards_in_their_own_case
    not_action_and_not_resource_stand_for_all_the_rest
    texts_are_equal_or_alike
    numbers_are_compared_as_numbers
    dates_are_iso_8601_or_seconds
    booleans_are_true_or_false
    addresses_are_in_ranges
    arns_are_compared_part_by_part
    null_asks_whether_there_is_a_value
    a_missing_key_equals_nothing
    if_exists_lets_a_missing_key_pass
    set_operators_differ_where_there_is_no_value
    all_conditions_must_hold_and_one_value_of_each
    variables_stand_for_values_of_the_call
    variables_stand_in_conditions_on_texts
    only_the_newer_version_has_variables
    what_says_nothing_about_the_call_is_passed_over
    a_malformed_document_says_where
    a_malformed_condition_says_where
}

#[test]
fn documents_have_bounds() {
    let check = |statements: Value, expected| {
        let policy = json!({"Version": "2012-10-17", "Statement": statements});
        check(&policy, "execute-api:Invoke", PET, &Pairs::new(), expected);
    };
    let all = json!({"Effect": "Allow", "Action": "*", "Resource": "*"});
    check(json!(vec![&all; 100]), Ok(Decision::Allowed));
    check(json!(vec![&all; 101]), Err("policyDocument.Statement: there are more than 100"));

    let on = |resource: String| json!({"Effect": "Allow", "Action": "*", "Resource": resource});
    check(on("*".repeat(512)), Ok(Decision::Allowed));
    check(on("é".repeat(512)), Ok(Decision::NotAllowed));
    check(on("é".repeat(513)), Err("é…` is no text with variables like"));
    check(on("é".repeat(513)), Err("of at most 512 characters"));

    let of = |length: usize| json!({"Effect": "Allow", "Action": ["*", ":".repeat(length)], "Resource": "*"});
    let rest = json!({"Version": "2012-10-17", "Statement": of(1)}).to_string().len() - 1;
    check(of(LARGEST_DOCUMENT - rest), Ok(Decision::Allowed));
    check(of(LARGEST_DOCUMENT - rest + 1), Err("policyDocument: it is larger than 65536 bytes"));
}

#[test]
fn no_pattern_is_slow() {
    let special = Special { wildcards: true, variables: true };
    let check = |pattern: String, text: String, expected| {
        let begun = Instant::now();
        let context = |_: &str| Some(Cow::Borrowed(text.as_str()));
        assert_eq!(Pattern::read(&pattern, special).unwrap().matches(&text, &context), Some(expected));
        assert!(begun.elapsed() < Duration::from_secs(1), "{pattern}: {:?}", begun.elapsed());
    };
    check("a*".repeat(256), "a".repeat(1600), true);
    check("*a".repeat(255) + "*b", "a".repeat(1600), false);
    check("*?".repeat(255) + "*b", "a".repeat(1600), false);
    check("*".repeat(511) + "b", "a".repeat(1600), false);
    check("*".to_owned() + &"a".repeat(510) + "b", "a".repeat(1600), false);
    check("*${k}".repeat(80) + "*b", "a".repeat(1600), false);
    check("${k}".repeat(15_000), "a".repeat(10_000), false);
}

/// Whatever stands in the place of whatever, reading and deciding comes to an end without a panic.
#[test]
fn nothing_in_a_document_panics() {
    for case in cases().values().flatten() {
        let document = document(case);
        let places = places(&document, String::new());
        for (place, odd) in places.iter().flat_map(|place| oddities().into_iter().map(move |odd| (place, odd))) {
            let mut document = document.clone();
            *document.pointer_mut(place).unwrap() = odd;
            if let Ok(policy) = Policy::read(&document) {
                decide(&policy, "execute-api:Invoke", PET, &Pairs::from([("aws:SourceIp".into(), "é*?:${".into())]));
            }
        }
    }
}

fn oddities() -> Vec<Value> {
    let texts = ["", "*", "?", "$", "${", "${}", "${,}", "${a,'}", "${a, ''}", "é$", ":::::", "-0", "0/0", "+99T"];
    let others = [json!(null), json!([]), json!({}), json!([[]]), json!({"": {"": ""}}), json!(-1.5e300), json!(true)];
    texts.into_iter().map(Value::from).chain(others).collect()
}

/// A pointer to each value within.
fn places(value: &Value, here: String) -> Vec<String> {
    let below = |name: &str| format!("{here}/{}", name.replace('~', "~0").replace('/', "~1"));
    let mut all: Vec<String> = match value {
        Value::Object(members) => members.iter().flat_map(|(name, value)| places(value, below(name))).collect(),
        Value::Array(values) => {
            values.iter().enumerate().flat_map(|(at, v)| places(v, below(&at.to_string()))).collect()
        }
        _ => Vec::new(),
    };
    all.push(here);
    all
}

/// The slow twin of matching: every way to divide the text.
fn naive(pattern: &[char], text: &[char]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some(('*', rest)) => (0..=text.len()).any(|from| naive(rest, &text[from..])),
        Some((char, rest)) => text.first().is_some_and(|c| c == char || *char == '?') && naive(rest, &text[1..]),
    }
}

fn naive_text(pattern: &str, text: &str) -> bool {
    naive(&pattern.chars().collect::<Vec<_>>(), &text.chars().collect::<Vec<_>>())
}

#[derive(Debug, Clone)]
struct Rule {
    denies: bool,
    all_but: bool,
    resources: Vec<String>,
    tenant: Option<String>,
}

impl Rule {
    fn statement(&self) -> Value {
        let mut statement = json!({"Effect": if self.denies { "Deny" } else { "Allow" }, "Action": "*"});
        statement[if self.all_but { "NotResource" } else { "Resource" }] = json!(self.resources);
        if let Some(tenant) = &self.tenant {
            statement["Condition"] = json!({"StringLike": {"x:Tenant": tenant}});
        }
        statement
    }

    fn applies(&self, resource: &str, tenant: Option<&String>) -> bool {
        let named = self.resources.iter().any(|pattern| naive_text(pattern, resource));
        let right_tenant = |wanted: &String| tenant.is_some_and(|tenant| naive_text(wanted, tenant));
        named != self.all_but && self.tenant.as_ref().is_none_or(right_tenant)
    }
}

fn rules() -> impl Strategy<Value = Vec<Rule>> {
    let resources = prop::collection::vec("[ab*?]{0,4}", 1..3);
    let rule = (any::<bool>(), any::<bool>(), resources, prop::option::of("[ab*?]{0,2}"))
        .prop_map(|(denies, all_but, resources, tenant)| Rule { denies, all_but, resources, tenant });
    prop::collection::vec(rule, 1..6)
}

/// The slow twin of deciding: the statements one after the other, with the worst remembered.
fn decide_naively(rules: &[Rule], resource: &str, tenant: Option<&String>) -> Decision {
    rules.iter().filter(|rule| rule.applies(resource, tenant)).fold(Decision::NotAllowed, |so_far, rule| {
        match (so_far, rule.denies) {
            (Decision::Denied, _) | (_, true) => Decision::Denied,
            (_, false) => Decision::Allowed,
        }
    })
}

proptest! {
    #[test]
    fn matching_is_as_a_naive_scan_says(pattern in "[ab*?é]{0,9}", text in "[abé*?]{0,12}") {
        let pieces = Pattern::read(&pattern, Special { wildcards: true, variables: true }).unwrap();
        prop_assert_eq!(pieces.matches(&text, &|_| None), Some(naive_text(&pattern, &text)));
    }

    #[test]
    fn a_variable_matches_its_value_and_no_more(value in "[ab*?:$]{0,6}", text in "[ab*?:$]{0,6}") {
        let pattern = Pattern::read("<${k}>", Special { wildcards: true, variables: true }).unwrap();
        let context = |_: &str| Some(Cow::Borrowed(value.as_str()));
        prop_assert_eq!(pattern.matches(&format!("<{value}>"), &context), Some(true));
        prop_assert_eq!(pattern.matches(&format!("<{text}>"), &context), Some(text == value));
    }

    #[test]
    fn deciding_is_as_a_naive_walk_says_in_any_order(
        (rules, shuffled) in rules().prop_flat_map(|rules| (Just(rules.clone()), Just(rules).prop_shuffle())),
        resource in "[ab]{0,5}",
        tenant in prop::option::of("[ab]{1,2}"),
    ) {
        let expected = decide_naively(&rules, &resource, tenant.as_ref());
        let context: Pairs = tenant.map(|tenant| ("x:Tenant".to_owned(), tenant)).into_iter().collect();
        for rules in [rules, shuffled] {
            let statements: Vec<Value> = rules.iter().map(Rule::statement).collect();
            let policy = Policy::read(&json!({"Statement": statements})).unwrap();
            prop_assert_eq!(decide(&policy, "execute-api:Invoke", &resource, &context), expected);
        }
    }
}
