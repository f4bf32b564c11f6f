//! Tests of `json_path`.

use proptest::prelude::*;

use super::*;

/// `expected`: the text found, `(missing)`, `(not JSON)` or `(no path)`.
#[track_caller]
fn check(path: &str, body: &str, expected: &str) {
    assert_eq!(shown(path, body, JsonPath::find), expected, "{path} in {body:.200}");
}

#[track_caller]
fn check_json(path: &str, body: &str, expected: &str) {
    assert_eq!(shown(path, body, JsonPath::find_json), expected, "{path} in {body:.200}");
}

type Find = for<'b> fn(&JsonPath, &'b str) -> Result<Option<Cow<'b, str>>, NotJson>;

fn shown(path: &str, body: &str, find: Find) -> String {
    match JsonPath::parse(path).as_ref().map(|path| find(path, body)) {
        Err(_) => "(no path)".into(),
        Ok(Err(NotJson)) => "(not JSON)".into(),
        Ok(Ok(None)) => "(missing)".into(),
        Ok(Ok(Some(text))) => text.into_owned(),
    }
}

#[test]
fn keys_and_indexes_lead_to_a_value() {
    let body = r#" { "action" : "join", "data": {"room": "r1", "items": [{"name":"a"}, {"name":"b"}]},
                     "a b": 1, "x-y": 2, "7": 3, "häuser": 4, "": 5, "it's": 6, "n": [[1, 2], [3]] } "#;
    check(".action", body, "join");
    check(".data.room", body, "r1");
    check(".data.items[1].name", body, "b");
    check("['data']['items'][0][\"name\"]", body, "a");
    check("['a b']", body, "1");
    check(".x-y", body, "2");
    check(".7", body, "3");
    check(".häuser", body, "4");
    check("['']", body, "5");
    check("[\"it's\"]", body, "6");
    check(r"['it\'s']", body, "6");
    check(r"['\u0061ction']", body, "join");
    check(".n[0][1]", body, "2");
    check(".n[-1][0]", body, "3");
    check(".n[-3]", body, "(missing)");
    check(".Action", body, "(missing)");
    // Not in RFC 9535, but `jsonpath-rust` lets a blank stand within a name.
    check(".a b", body, "1");
    check(".action.join", body, "(missing)");
    check(".action[0]", body, "(missing)");
    check(".data[0]", body, "(missing)");
    check(".data.items.name", body, "(missing)");
    check(".data.items[2]", body, "(missing)");
    check(".data.items[18446744073709551615]", body, "(missing)");
    check(".data.items[99999999999999999999999]", body, "(no path)");
    check(".a", "[1,2]", "(missing)");
    check("[1]", "[1,2]", "2");
    check(".a", "null", "(missing)");
}

#[test]
fn a_value_becomes_text() {
    check("", "\"hi\"", "hi");
    check("", " [1,2] ", "[1, 2]");
    check("", "{ \"b\" : 1,\n \"a\" : [ 1 , \"x y\" ] }", r#"{"b":1,"a":[1,"x y"]}"#);
    check(".a", r#"{"a":1.50}"#, "1.50");
    check(".a", r#"{"a":-0}"#, "-0");
    check(".a", r#"{"a":1E5}"#, "1E5");
    check(".a", r#"{"a":1e999}"#, "1e999");
    check(".a", r#"{"a":123456789012345678901234567890}"#, "123456789012345678901234567890");
    check(".a", r#"{"a":true}"#, "true");
    check(".a", r#"{"a":null}"#, "");
    check(".a", r#"{"a":""}"#, "");
    check(".a", r#"{"a":"\"\\\u00e9\n\ud83d\ude00"}"#, "\"\\é\n😀");
    check(".a", r#"{"a":[]}"#, "[]");
    check(".a", r#"{"a":["a","b"]}"#, "[a, b]");
    check(
        ".a",
        r#"{"a":[1.0,null,true,"\"],[",["x",[]],{"k": "v , w", "l":[1, 2]},"é"]}"#,
        r#"[1.0, , true, "],[, [x, []], {"k":"v , w","l":[1,2]}, é]"#,
    );
    check(".a", r#"{"a":{"k":"\\\" } ","l":null}}"#, r#"{"k":"\\\" } ","l":null}"#);
    check(".a", r#"{"a":{"k": "\\"} }"#, r#"{"k":"\\"}"#);
}

#[test]
fn the_last_of_repeated_keys_counts() {
    check(".a", r#"{"a":1,"a":2}"#, "2");
    check(".a.b", r#"{"a":{"b":1},"a":{}}"#, "(missing)");
    check(".a", r#"{"\u0061":1}"#, "1");
}

#[test]
fn the_whole_message_must_be_json() {
    for path in ["", ".a", "[0]", ".a.b", "[*]", "..a", "[-1]"] {
        for body in [
            "",
            " ",
            "hi",
            "{\"a\":1",
            "{\"a\":1}}",
            "{\"a\":1} x",
            "[1,]",
            "{\"a\":1,}",
            "'a'",
            "01",
            "{\"a\":1} {\"a\":2}",
            "\u{feff}{}",
            "{\"z\":tru}",
            "{\"z\":\"\t\"}",
            "{a:1}",
            "[1 2]",
            "NaN",
        ] {
            check(path, body, "(not JSON)");
        }
    }
    check(".a", r#"{"a":"\ud800"}"#, "(not JSON)");
    check(".a", r#"{"a":["\ud800"]}"#, "(not JSON)");
    check(".b", r#"{"a":"\ud800","b":1}"#, "1");
}

#[test]
fn other_paths_find_lists() {
    let body = r#"{"items":[{"id":1,"n":"x"},{"id":2,"n":"y"},{"id":3}],"id":9}"#;
    check(".items[*].id", body, "[1, 2, 3]");
    check(".items[*].n", body, "[x, y]");
    check(".items[?(@.id==2)].n", body, "[y]");
    check(".items[?@.id > 1].id", body, "[2, 3]");
    check(".items[0:2].id", body, "[1, 2]");
    check(".items[0,2].id", body, "[1, 3]");
    check(".items[-1].id", body, "3");
    check(".items[?(@.id==7)].n", body, "(missing)");
    check(".nope[*]", body, "(missing)");
    check("..n", body, "[x, y]");
    check(".items[0]['id','n']", body, "[1, x]");
    check(".items[2:]", body, r#"[{"id":3}]"#);
}

#[test]
fn json_is_given_as_spelled() {
    let body = r#"{"s":"a\"b","n":1.50,"o":{"k": [1, 2]},"l":[{"x":"y"}],"z":null}"#;
    check_json(".s", body, r#""a\"b""#);
    check_json(".n", body, "1.50");
    check_json(".o", body, r#"{"k": [1, 2]}"#);
    check_json(".z", body, "null");
    check_json(".l[*].x", body, r#"["y"]"#);
    check_json(".l[-1]", body, r#"{"x":"y"}"#);
    check_json(".nope", body, "(missing)");
    check_json(".nope", "{", "(not JSON)");
}

#[test]
fn what_is_no_path_is_refused() {
    for path in [
        "a",
        ".",
        "..",
        ".a.",
        ".a..",
        "[",
        "[]",
        "['a'",
        "[a]",
        "[+1]",
        "[01]",
        "[1.5]",
        ".a[?(@.b]",
        ".a}",
        " ",
        ".length()",
        "[?(@.id==1",
    ] {
        check(path, "{}", "(no path)");
    }
    assert_eq!(
        JsonPath::parse(".a..").unwrap_err().to_string(),
        "`.a..` is no JSONPath; write it like `.action`, `.items[0].name`, `['a key']` or `.items[*].id`"
    );
}

/// With the way to every node written down the first took seconds, and a second `..` took most of a minute.
#[test]
fn size_is_bounded_by_the_message() {
    let key = "k".repeat(60_000);
    let long_key = format!("{{\"{key}\":[{}1]}}", "1,".repeat(30_000));
    check("..a", &long_key, "(missing)");
    check("[*][*].a", &long_key, "(missing)");
    check("..*..*", "[]", "(no path)");
    check("[?@..a == 1]..b", "[]", "(no path)");
}

#[test]
fn depth_harms_nothing() {
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let wide = format!("{{\"a\":{}, \"b\":\"x\"}}", deep(60_000));
    check(".b", &wide, "x");
    check(".a", &wide, &deep(60_000));
    check("[0]", &deep(60_000), &deep(59_999));
    check("..b", &wide, "(not JSON)");
    check("[*]", &deep(100), &deep(100));
    check(&"[0]".repeat(100), &deep(101), "[]");
    check(&"[0]".repeat(5_000), &deep(6_000), "(not JSON)");
    check(&".a".repeat(50_000), "{}", "(missing)");
    check("", &"[".repeat(100_000), "(not JSON)");
}

proptest! {
    #[test]
    fn nothing_panics(path in path_like(), body in json_like()) {
        if let Ok(path) = JsonPath::parse(&path) {
            let valid = serde_json::from_str::<IgnoredAny>(&body).is_ok();
            let parses = serde_json::from_str::<Value>(&body).is_ok();
            let found = path.find(&body);
            prop_assert!(valid || found.is_err());
            prop_assert!(!parses || found.is_ok());
            prop_assert_eq!(path.find_json(&body).is_ok(), found.is_ok());
        }
    }

    /// Skipping and looking into a tree agree, in whichever way the path is spelled.
    #[test]
    fn the_walk_agrees_with_the_tree(path in r"(\.[ab]|\[[0-2]\]){0,3}", body in json_value(), pretty: bool) {
        let text = if pretty { serde_json::to_string_pretty(&body) } else { serde_json::to_string(&body) }.unwrap();
        let query = parse_json_path(&format!("${path}")).unwrap();
        let tree = JsonPath(Kind::Query { query, definite: true });
        let walk = JsonPath::parse(&path).unwrap();
        prop_assert!(matches!(walk.0, Kind::Steps(_)));
        prop_assert_eq!(walk.find(&text), tree.find(&text));
    }
}

fn path_like() -> impl Strategy<Value = String> {
    prop_oneof![".*", r#"[.\[\]'"*@?()=,:<>&|! a-c0-2$\\{}-]{0,24}"#, r"(\.[ab]|\[[0-9]\]|\[\*\]|\.\.a|\['b'\]){0,5}"]
}

fn json_like() -> impl Strategy<Value = String> {
    prop_oneof![".*", r#"[\[\]{}":,\\ ab01.e-]{0,40}"#, json_value().prop_map(|value| value.to_string())]
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        // Quarters: serde_json reads them back exactly.
        any::<i32>().prop_map(|quarters| Value::from(f64::from(quarters) / 4.0)),
        ".*".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[abc]", inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}
