//! A message as the tree that JSONPath queries look into.
//!
//! serde_json's own value would do but for one thing: `jsonpath-rust` writes down the way to every node it
//! passes, keys and all, so a stranger's one long key was copied for each of the many small values below it
//! (64 KiB for each of 30,000). This tree tells it no keys when it goes through an object; nobody reads those
//! ways, and names are still looked up.

use std::borrow::Cow;
use std::collections::BTreeMap;

use jsonpath_rust::query::queryable::Queryable;
use serde_json::Value;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Tree {
    /// Neither an array nor an object.
    Leaf(Value),
    Array(Vec<Tree>),
    Object(BTreeMap<String, Tree>),
}

impl Tree {
    fn leaf(&self) -> Option<&Value> {
        match self {
            Tree::Leaf(value) => Some(value),
            Tree::Array(_) | Tree::Object(_) => None,
        }
    }
}

impl Default for Tree {
    fn default() -> Self {
        Tree::Leaf(Value::Null)
    }
}

// Both ways recurse as deep as serde_json lets a message be.
impl From<Value> for Tree {
    fn from(value: Value) -> Self {
        match value {
            Value::Array(items) => Tree::Array(items.into_iter().map(Tree::from).collect()),
            Value::Object(members) => {
                Tree::Object(members.into_iter().map(|(key, value)| (key, value.into())).collect())
            }
            leaf => Tree::Leaf(leaf),
        }
    }
}

impl From<&Tree> for Value {
    fn from(tree: &Tree) -> Self {
        match tree {
            Tree::Leaf(value) => value.clone(),
            Tree::Array(items) => items.iter().map(Value::from).collect(),
            Tree::Object(members) => members.iter().map(|(key, tree)| (key.clone(), Value::from(tree))).collect(),
        }
    }
}

impl Queryable for Tree {
    fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Tree::Object(members) => members.get(key),
            Tree::Leaf(_) | Tree::Array(_) => None,
        }
    }

    fn as_array(&self) -> Option<&Vec<Self>> {
        match self {
            Tree::Array(items) => Some(items),
            Tree::Leaf(_) | Tree::Object(_) => None,
        }
    }

    fn as_object(&self) -> Option<Vec<(&str, &Self)>> {
        match self {
            Tree::Object(members) => Some(members.values().map(|tree| ("", tree)).collect()),
            Tree::Leaf(_) | Tree::Array(_) => None,
        }
    }

    fn as_str(&self) -> Option<&str> {
        self.leaf().and_then(Value::as_str)
    }

    fn as_i64(&self) -> Option<i64> {
        self.leaf().and_then(Value::as_i64)
    }

    fn as_f64(&self) -> Option<f64> {
        self.leaf().and_then(Value::as_f64)
    }

    fn as_bool(&self) -> Option<bool> {
        self.leaf().and_then(Value::as_bool)
    }

    fn null() -> Self {
        Self::default()
    }

    fn extension_custom(name: &str, args: Vec<Cow<Self>>) -> Self {
        let args = args.iter().map(|tree| Cow::Owned(Value::from(tree.as_ref()))).collect();
        <Value as Queryable>::extension_custom(name, args).into()
    }
}

// What a query compares with is written in the query, and comes in these types.
impl From<&str> for Tree {
    fn from(text: &str) -> Self {
        Tree::Leaf(text.into())
    }
}

impl From<String> for Tree {
    fn from(text: String) -> Self {
        Tree::Leaf(text.into())
    }
}

impl From<bool> for Tree {
    fn from(truth: bool) -> Self {
        Tree::Leaf(truth.into())
    }
}

impl From<i64> for Tree {
    fn from(number: i64) -> Self {
        Tree::Leaf(number.into())
    }
}

impl From<f64> for Tree {
    fn from(number: f64) -> Self {
        Tree::Leaf(number.into())
    }
}

impl From<Vec<Tree>> for Tree {
    fn from(items: Vec<Tree>) -> Self {
        Tree::Array(items)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jsonpath_rust::JsonPath;
    use jsonpath_rust::parser::parse_json_path;
    use jsonpath_rust::query::js_path_process;

    /// The query finds in this tree what it finds in serde_json's.
    #[track_caller]
    fn check(query: &str) {
        let value =
            serde_json::json!({"a": [1, 2.5, "x", null, true, {"b": [1], "c": {"b": 2}}], "b": {"": 1}, "s": [1, 2]});
        let tree = Tree::from(value.clone());
        let found = js_path_process(&parse_json_path(query).unwrap(), &tree).unwrap();
        let found: Vec<Value> = found.into_iter().map(|hit| Value::from(hit.val())).collect();
        assert_eq!(found.iter().collect::<Vec<_>>(), value.query(query).unwrap(), "{query}");
    }

    #[test]
    fn it_answers_as_serde_jsons_value_does() {
        check("$");
        check("$..b");
        check("$..*");
        check("$.*");
        check("$.b['']");
        check("$.a[?@.b]");
        check("$.a[?@ == 'x']");
        check("$.a[?@ == null]");
        check("$.a[?@ == true]");
        check("$.a[?@ >= 2.5]");
        check("$.a[?@.c.b == 2]");
        check("$.a[?in(@, $.s)]");
        check("$.a[?any_of(@.b, $.s)]");
        check("$[?length(@) == 1]");
        check("$.a[?search(@, 'x')]");
    }
}
