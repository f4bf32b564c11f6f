//! Which route is taken, case by case and against a naive scan of all keys.

use std::cmp::Ordering;
use std::time::{Duration, Instant};

use http::Method;
use proptest::prelude::*;

use super::*;

fn build(keys: &[&str]) -> Result<Paths<String>, Vec<Clash>> {
    Paths::new(keys.iter().map(|key| (RouteKey::parse(key).unwrap(), (*key).to_owned())).collect())
}

/// The key that a request takes, with its parameters.
fn taken(paths: &Paths<String>, request: &str) -> String {
    let (method, path) = request.split_once(' ').unwrap();
    match paths.find(&Method::from_bytes(method.as_bytes()).unwrap(), path) {
        Outcome::Found(Found { route, parameters }) => {
            parameters.iter().fold(route.clone(), |text, (name, value)| format!("{text} {name}={value}"))
        }
        Outcome::Nothing => "nothing".to_owned(),
        Outcome::DotSegment => "refused".to_owned(),
    }
}

#[track_caller]
fn check(keys: &[&str], request: &str, wanted: &str) {
    assert_eq!(taken(&build(keys).unwrap(), request), wanted, "{request} among {keys:?}");
}

#[test]
fn a_path_is_matched_segment_by_segment() {
    check(&["GET /pets/{id}"], "GET /pets/7", "GET /pets/{id} id=7");
    check(&["GET /pets/{id}"], "GET /pets", "nothing");
    check(&["GET /pets/{id}"], "GET /pets/", "nothing");
    check(&["GET /pets/{id}"], "GET /pets/7/", "nothing");
    check(&["GET /pets/{id}"], "GET /pets/7/toys", "nothing");
    check(&["GET /pets/{id}"], "GET /Pets/7", "nothing");
    check(&["GET /pets/{id}"], "GET //pets/7", "nothing");
    check(&["GET /pets/{id}"], "GET /pets//7", "nothing");
    check(&["GET /{a}/{b}/c"], "GET /1/2/c", "GET /{a}/{b}/c a=1 b=2");
    check(&["GET /{a}"], "GET /", "nothing");
    check(&["GET /"], "GET /", "GET /");
    check(&["GET /"], "GET ", "GET /");
    check(&["GET /"], "GET //", "nothing");
    check(&[], "GET /", "nothing");
}

#[test]
fn a_slash_at_the_end_makes_another_path() {
    let keys = &["GET /pets", "GET /pets/"];
    check(keys, "GET /pets", "GET /pets");
    check(keys, "GET /pets/", "GET /pets/");
    check(keys, "GET /pets//", "nothing");
    check(&["GET /{a}/"], "GET /x/", "GET /{a}/ a=x");
    check(&["GET /pets", "ANY /{proxy+}"], "GET /pets/", "ANY /{proxy+} proxy=pets/");
    check(&["GET /pets", "$default"], "GET /pets/", "$default");
}

#[test]
fn literals_beat_variables() {
    check(&["GET /a/{x}", "GET /a/b"], "GET /a/b", "GET /a/b");
    check(&["GET /a/{x}", "GET /a/b"], "GET /a/c", "GET /a/{x} x=c");
    check(&["GET /a/{x}", "GET /{x}/b"], "GET /a/b", "GET /a/{x} x=b");
    check(&["GET /a/{x}/{y}", "GET /{x}/b/c"], "GET /a/b/c", "GET /{x}/b/c x=a");
    check(&["GET /a/{x}/{y}", "GET /{x}/b/{y}", "GET /{x}/{y}/c"], "GET /a/b/c", "GET /a/{x}/{y} x=b y=c");
    check(&["GET /a/b/{x}", "GET /a/{x}/c", "GET /{x}/b/c"], "GET /z/b/c", "GET /{x}/b/c x=z");
    check(&["GET /a/b/c", "GET /{x}/b/d"], "GET /a/b/d", "GET /{x}/b/d x=a");
}

#[test]
fn a_greedy_variable_takes_all_that_is_left() {
    check(&["ANY /files/{proxy+}"], "GET /files/a", "ANY /files/{proxy+} proxy=a");
    check(&["ANY /files/{proxy+}"], "GET /files/a/b/", "ANY /files/{proxy+} proxy=a/b/");
    check(&["ANY /files/{proxy+}"], "GET /files//a", "ANY /files/{proxy+} proxy=/a");
    check(&["ANY /files/{proxy+}"], "GET /files//", "ANY /files/{proxy+} proxy=/");
    check(&["ANY /files/{proxy+}"], "GET /files", "nothing");
    check(&["ANY /files/{proxy+}"], "GET /files/", "nothing");
    check(&["ANY /{proxy+}"], "GET /", "ANY /{proxy+} proxy=");
    check(&["ANY /{proxy+}"], "GET //", "ANY /{proxy+} proxy=/");
    check(&["ANY /{proxy+}"], "GET /a", "ANY /{proxy+} proxy=a");
    check(&["ANY /{a}/x/{rest+}"], "GET /1/x/2/3", "ANY /{a}/x/{rest+} a=1 rest=2/3");
}

#[test]
fn a_full_match_beats_a_greedy_one_and_that_the_default() {
    check(&["GET /{x}/{y}", "GET /a/{p+}", "$default"], "GET /a/b", "GET /{x}/{y} x=a y=b");
    check(&["GET /{x}/{y}", "GET /a/{p+}", "$default"], "GET /a/b/c", "GET /a/{p+} p=b/c");
    check(&["GET /{x}/{y}", "GET /a/{p+}", "$default"], "GET /b/b/c", "$default");
    check(&["GET /a/{p+}", "GET /{x}/{y}/{p+}"], "GET /a/b/c", "GET /{x}/{y}/{p+} x=a y=b p=c");
    check(&["GET /a/{y}/{p+}", "GET /{x}/b/{p+}"], "GET /a/b/c", "GET /a/{y}/{p+} y=b p=c");
    check(&["GET /{proxy+}", "GET /"], "GET /", "GET /");
    check(&["GET /{proxy+}", "$default"], "GET /", "GET /{proxy+} proxy=");
    check(&["GET /{proxy+}", "$default"], "POST /", "$default");
    check(&["GET /a/lit/{r+}", "GET /a/{x}/b"], "GET /a/lit/b", "GET /a/{x}/b x=lit");
}

#[test]
fn the_path_counts_before_the_method() {
    check(&["ANY /a", "GET /a"], "GET /a", "GET /a");
    check(&["ANY /a", "GET /a"], "PUT /a", "ANY /a");
    check(&["ANY /a", "GET /a"], "PURGE /a", "ANY /a");
    check(&["ANY /a/{x}", "GET /a/{y}"], "GET /a/1", "GET /a/{y} y=1");
    check(&["ANY /a/{x}", "GET /a/{y}"], "PUT /a/1", "ANY /a/{x} x=1");
    check(&["ANY /a/b", "GET /a/{x}"], "GET /a/b", "ANY /a/b");
    check(&["ANY /{x}/{y}", "GET /a/{p+}"], "GET /a/b", "ANY /{x}/{y} x=a y=b");
}

#[test]
fn a_path_without_the_method_is_passed_over() {
    check(&["GET /a"], "POST /a", "nothing");
    check(&["GET /a"], "HEAD /a", "nothing");
    check(&["POST /a/b", "GET /a/{x}"], "GET /a/b", "GET /a/{x} x=b");
    check(&["POST /a/b", "GET /a/{p+}"], "GET /a/b", "GET /a/{p+} p=b");
    check(&["POST /a/b", "$default"], "GET /a/b", "$default");
    check(&["GET /a"], "PURGE /a", "nothing");
    check(&["GET /a", "$default"], "PURGE /a", "$default");
}

#[test]
fn needless_escapes_make_no_difference() {
    check(&["GET /pets/{id}"], "GET /%70ets/7", "GET /pets/{id} id=7");
    check(&["GET /pets/{id}"], "GET /%70e%74s/%37%20", "GET /pets/{id} id=%37%20");
    check(&["GET /a.b-c_d~e"], "GET /a%2eb%2Dc%5Fd%7ee", "GET /a.b-c_d~e");
    check(&["GET /a:b"], "GET /a%3Ab", "nothing");
    check(&["GET /pets"], "GET /%50ets", "nothing");
    check(&["GET /pets"], "GET /%2570ets", "nothing");
    check(&["GET /pets"], "GET /%7", "nothing");
    check(&["GET /pets"], "GET /%", "nothing");
    check(&["GET /{x}"], "GET /%zz%\u{e9}%", "GET /{x} x=%zz%\u{e9}%");
    check(&["GET /{x}"], "GET /a%2Fb", "GET /{x} x=a%2Fb");
    check(&["GET /a/b"], "GET /a%2fb", "nothing");
    check(&["GET /a/{p+}"], "GET /%61/b/%63", "GET /a/{p+} p=b/%63");
}

#[test]
fn dot_segments_are_refused_wherever_they_stand() {
    let keys = &["ANY /{proxy+}", "$default", "GET /a"];
    for path in ["/.", "/..", "/a/..", "/../a", "/a/./b", "/%2e", "/%2E%2e", "/.%2e/a", "/a/b/c/d/%2e.", "/a/b/c/../"] {
        check(keys, &format!("GET {path}"), "refused");
    }
    for path in ["/...", "/.a", "/a.", "/..a", "/%2e%2e%2e", "/%252e", "/..%2Fa", "/.%2", "/.well-known"] {
        let wanted = format!("ANY /{{proxy+}} proxy={}", &path[1..]);
        check(keys, &format!("GET {path}"), &wanted);
    }
}

#[test]
fn keys_that_match_the_same_requests_clash() {
    let check = |keys: &[&str], wanted: &[&str]| {
        let clashes = build(keys).err().unwrap_or_default();
        assert_eq!(clashes.iter().map(Clash::to_string).collect::<Vec<_>>(), wanted, "{keys:?}");
    };
    check(&["GET /a/{x}", "GET /a/{y}"], &["`GET /a/{y}` matches the same requests as `GET /a/{x}`"]);
    check(&["ANY /{p+}", "GET /b", "ANY /{q+}"], &["`ANY /{q+}` matches the same requests as `ANY /{p+}`"]);
    let both = ["`GET /b` matches the same requests as `GET /b`", "`$default` matches the same requests as `$default`"];
    check(&["GET /b", "$default", "GET /b", "$default"], &both);
    let three =
        ["`GET /{y}` matches the same requests as `GET /{x}`", "`GET /{z}` matches the same requests as `GET /{x}`"];
    check(&["GET /{x}", "GET /{y}", "GET /{z}"], &three);
    check(&["GET /a/{x}", "ANY /a/{x}", "POST /a/{y}", "GET /a/{x}/", "GET /a/{x+}", "GET /{a}/{x}"], &[]);
}

#[test]
fn all_routes_are_listed_in_their_order() {
    let keys = ["POST /b", "$default", "GET /a"];
    assert_eq!(build(&keys).unwrap().all().collect::<Vec<_>>(), keys);
}

/// Twelve segments, each the literal or a variable: a tree in which every branch fits such a path.
fn bush() -> Paths<String> {
    let segment = |key: u32, at: u32| if key >> at & 1 == 1 { "/a".to_owned() } else { format!("/{{v{at}}}") };
    let keys: Vec<String> =
        (0..1 << 12).map(|key| "GET ".to_owned() + &(0..12).map(|at| segment(key, at)).collect::<String>()).collect();
    build(&keys.iter().map(String::as_str).collect::<Vec<_>>()).unwrap()
}

/// The worst there is visits every node of the tree, once. Here those are 8191, and what a client can make
/// long, the segments, is not read again at any of them.
#[test]
fn no_request_is_slow() {
    let paths = bush();
    assert_eq!(paths.nodes.len(), (1 << 13) - 1);
    let requests = [
        "/a".repeat(12),
        "/a".repeat(13),
        "/a".repeat(100_000),
        "/%61".repeat(12),
        format!("/{}", "a".repeat(100_000)).repeat(12),
    ];
    let begun = Instant::now();
    for request in &requests {
        assert_eq!(taken(&paths, &format!("POST {request}")), "nothing");
    }
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!(taken(&paths, &format!("GET {}", requests[0])), format!("GET {}", requests[0]));
}

/// The slow twin: does a key match, and with what parameters? It reads the key as text.
fn matches(key: &str, method: &str, path: &str) -> Option<Vec<(String, String)>> {
    let (own_method, own_path) = key.split_once(' ')?;
    if own_method != "ANY" && own_method != method {
        return None;
    }
    let mut parameters = Vec::new();
    let mut path: Vec<&str> = path.split('/').collect();
    for own in own_path.split('/') {
        let name = own.trim_matches(['{', '}', '+']).to_owned();
        if own.ends_with("+}") {
            let rest = std::mem::take(&mut path).join("/");
            let fits = !rest.is_empty() || own_path == own.replace('{', "/{");
            parameters.push((name, rest));
            // Segments are taken off the front, so that what is left is empty also where nothing was left.
            if !fits {
                return None;
            }
            continue;
        }
        if path.is_empty() {
            return None;
        }
        let segment = path.remove(0);
        if own.starts_with('{') {
            parameters.push((name, segment.to_owned()));
        }
        if own.starts_with('{') && segment.is_empty() || !own.starts_with('{') && own != segment.replace("%61", "a") {
            return None;
        }
    }
    path.is_empty().then_some(parameters)
}

/// Which of two keys that both match comes first, by the rules as they are written down.
fn precedence(one: &str, other: &str) -> Ordering {
    let variables = |key: &str| key.split('/').map(|segment| segment.starts_with('{')).collect::<Vec<_>>();
    let literals = |key: &str| variables(key).iter().filter(|is_variable| !**is_variable).count();
    let greedy = |key: &str| key.ends_with("+}");
    let default = |key: &str| key == "$default";
    let by_length = if greedy(one) { variables(other).len().cmp(&variables(one).len()) } else { Ordering::Equal };
    (default(one).cmp(&default(other)))
        .then(greedy(one).cmp(&greedy(other)))
        .then(by_length)
        .then(literals(other).cmp(&literals(one)))
        .then(variables(one).cmp(&variables(other)))
        .then(one.starts_with("ANY ").cmp(&other.starts_with("ANY ")))
}

fn naive(keys: &[String], method: &str, path: &str) -> String {
    let fitting = keys.iter().filter_map(|key| match key.as_str() {
        "$default" => Some((key, Vec::new())),
        _ => Some((key, matches(key, method, path)?)),
    });
    match fitting.min_by(|(one, _), (other, _)| precedence(one, other)) {
        Some((key, parameters)) => {
            parameters.iter().fold(key.clone(), |text, (name, value)| format!("{text} {name}={value}"))
        }
        None => "nothing".to_owned(),
    }
}

/// A key without names, which is the same for two that clash.
fn shape(key: &str) -> String {
    let nameless = |segment: &str| {
        if segment.starts_with('{') { segment.replace(char::is_alphanumeric, "") } else { segment.to_owned() }
    };
    key.split('/').map(nameless).collect::<Vec<_>>().join("/")
}

prop_compose! {
    /// Of few letters, so that many overlap; a variable is named for its place, in one of two ways.
    fn key()(
        method in "GET|POST|ANY",
        segments in prop::collection::vec("a|b|[{]v[}]|[{]w[}]", 0..5),
        end in "|/|/[{]p[+][}]",
    ) -> String {
        let named = segments.iter().enumerate().map(|(at, text)| format!("/{}", text.replace('}', &format!("{at}}}"))));
        let path = named.collect::<String>() + &end;
        format!("{method} {}", if path.is_empty() { "/" } else { &path })
    }
}

fn keys() -> impl Strategy<Value = Vec<String>> {
    let any = prop_oneof![20 => key(), 1 => Just("$default".to_owned())];
    prop::collection::vec(any, 0..40).prop_map(|mut keys| {
        let mut shapes = Vec::new();
        keys.retain(|key| {
            let is_new = !shapes.contains(&shape(key));
            shapes.push(shape(key));
            is_new
        });
        keys
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn matching_is_as_a_naive_scan_says(
        keys in keys(),
        requests in prop::collection::vec(("GET|POST|PURGE", "(/(a|b|a|b|c|%61|%2F|)){1,6}"), 1..20),
    ) {
        let paths = build(&keys.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
        for (method, path) in requests {
            let request = format!("{method} {path}");
            prop_assert_eq!(taken(&paths, &request), naive(&keys, &method, &path), "{}", request);
        }
    }

    #[test]
    fn keys_clash_when_they_differ_in_names_alone(keys in prop::collection::vec(key(), 0..20)) {
        let is_again = |at: usize| keys[..at].iter().any(|other| shape(other) == shape(&keys[at]));
        let wanted: Vec<&String> = (0..keys.len()).filter(|at| is_again(*at)).map(|at| &keys[at]).collect();
        let clashes = build(&keys.iter().map(String::as_str).collect::<Vec<_>>()).err().unwrap_or_default();
        prop_assert_eq!(clashes.iter().map(|clash| &clash.second).collect::<Vec<_>>(), wanted);
    }

    #[test]
    fn no_path_makes_it_panic(path in "[/.%2eEfF\\PC]{0,20}") {
        let paths = build(&["GET /{a}/..a", "ANY /b/{p+}", "GET /{p+}"]).unwrap();
        let outcome = paths.find(&Method::GET, &path);
        prop_assert!(outcome != Outcome::Nothing, "{outcome:?}");
    }
}
