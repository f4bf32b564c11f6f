//! What a good token says, as routes and events want it.

use serde_json::{Map, Value};

/// The claims of a token, by name.
pub type Claims = Map<String, Value>;

/// What the token may do, from `scope` and `scp`: issuers write a list or a text with spaces, in either of them.
pub fn scopes_granted(claims: &Claims) -> Vec<&str> {
    let values = ["scope", "scp"].into_iter().filter_map(|name| claims.get(name));
    let texts = values.flat_map(|value| match value {
        Value::Array(list) => list.as_slice(),
        single => std::slice::from_ref(single),
    });
    texts.filter_map(Value::as_str).flat_map(|text| text.split(' ')).filter(|scope| !scope.is_empty()).collect()
}

/// Those of `wanted` that the token has; `None` if it has none of them.
pub fn has_scope<'w>(claims: &Claims, wanted: &'w [String]) -> Option<Vec<&'w str>> {
    let granted = scopes_granted(claims);
    let matched: Vec<_> = wanted.iter().map(String::as_str).filter(|scope| granted.contains(scope)).collect();
    (!matched.is_empty()).then_some(matched)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claims(value: Value) -> Claims {
        let Value::Object(claims) = value else { panic!("{value} is no object") };
        claims
    }

    #[test]
    fn scopes_are_a_list_or_a_text() {
        let check = |value: Value, granted: &[&str]| assert_eq!(scopes_granted(&claims(value)), granted);
        check(json!({"scope": "a b"}), &["a", "b"]);
        check(json!({"scope": "  a  b "}), &["a", "b"]);
        check(json!({"scope": ""}), &[]);
        check(json!({"scp": ["a", "b c"]}), &["a", "b", "c"]);
        check(json!({"scp": "a b"}), &["a", "b"]);
        check(json!({"scope": ["a"], "scp": "b"}), &["a", "b"]);
        check(json!({"scope": 1, "scp": [1, null, {"a": 1}, "a"]}), &["a"]);
        check(json!({"scopes": "a"}), &[]);
    }

    #[test]
    fn one_of_the_wanted_scopes_is_enough() {
        let check = |wanted: &[&str], matched: Option<&[&str]>| {
            let wanted: Vec<_> = wanted.iter().map(|scope| scope.to_string()).collect();
            let claims = claims(json!({"scope": "pets:read pets:write"}));
            assert_eq!(has_scope(&claims, &wanted).as_deref(), matched, "{wanted:?}");
        };
        check(&["pets:write"], Some(&["pets:write"]));
        check(&["admin", "pets:write", "pets:read"], Some(&["pets:write", "pets:read"]));
        check(&["pets"], None);
        check(&["PETS:READ"], None);
        check(&["pets:read pets:write"], None);
        check(&[""], None);
        check(&[], None);
    }
}
