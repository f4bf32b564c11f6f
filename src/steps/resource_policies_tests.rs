//! Whom a policy lets in, before and after the authorizer.

use std::time::{Duration, Instant};

use http::HeaderValue;
use proptest::prelude::*;

use super::*;

/// `deny 10.0.0.0/8,2001:db8::/32 x-a=b*,c $tenant=acme`: an effect, then conditions.
fn statement(text: &str) -> Statement {
    let mut words = text.split_whitespace();
    let effect = match words.next() {
        Some("allow") => Effect::Allow,
        Some("deny") => Effect::Deny,
        other => panic!("{other:?}"),
    };
    let mut statement = Statement { effect, source_ip: Vec::new(), headers: Vec::new(), authorizer: Vec::new() };
    let globs = |text: &str| text.split(',').map(Glob::new).collect();
    for word in words {
        match (word.strip_prefix('$').unwrap_or(word).split_once('='), word.starts_with('$')) {
            (Some((name, values)), true) => statement.authorizer.push((name.to_owned(), globs(values))),
            (Some((name, values)), false) => statement.headers.push((name.parse().unwrap(), globs(values))),
            (None, _) => statement.source_ip.extend(word.split(',').map(|network| network.parse::<IpNet>().unwrap())),
        }
    }
    statement
}

fn policy(statements: &[&str]) -> ResourcePolicy {
    ResourcePolicy { statements: statements.iter().map(|text| statement(text)).collect() }
}

/// Who asks: an address, then headers as `x-a=b` and what the authorizer found out as `$tenant=acme`.
fn asked<T>(caller: &str, ask: impl FnOnce(&Caller<'_>) -> T) -> T {
    let mut words = caller.split_whitespace();
    let source_ip = words.next().unwrap().parse().unwrap();
    let (found, headers): (Vec<_>, Vec<_>) =
        words.map(|word| word.split_once('=').unwrap()).partition(|(name, _)| name.starts_with('$'));
    let header = |(name, value): (&str, &str)| -> (HeaderName, HeaderValue) {
        (name.parse().unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap())
    };
    let headers: HeaderMap = headers.into_iter().map(header).collect();
    let authorizer = |name: &str| {
        found.iter().filter(|(known, _)| &known[1..] == name).map(|(_, value)| Cow::Borrowed(*value)).collect()
    };
    ask(&Caller { source_ip, headers: Some(&headers), authorizer: &authorizer })
}

const OPEN: Result<(), Refused> = Ok(());
const DENIED: Result<(), Refused> = Err(Refused { explicit: true });
const NOT_ALLOWED: Result<(), Refused> = Err(Refused { explicit: false });

#[test]
fn a_deny_wins_and_an_allow_must_match_if_there_is_one() {
    let check = |statements: &[&str], caller: &str, wanted| {
        let policy = policy(statements);
        assert_eq!(asked(caller, |caller| policy.after(caller)), wanted, "{statements:?} {caller}");
    };
    check(&[], "192.0.2.1", OPEN);
    check(&["allow"], "192.0.2.1", OPEN);
    check(&["deny"], "192.0.2.1", DENIED);
    check(&["allow", "deny"], "192.0.2.1", DENIED);
    check(&["allow 192.0.2.0/24"], "192.0.2.1", OPEN);
    check(&["allow 192.0.2.0/24"], "198.51.100.1", NOT_ALLOWED);
    check(&["allow 192.0.2.0/24,198.51.100.1/32"], "198.51.100.1", OPEN);
    check(&["allow 192.0.2.0/24", "allow 198.51.100.0/24"], "198.51.100.1", OPEN);
    check(&["allow 192.0.2.0/24", "deny 192.0.2.7/32"], "192.0.2.7", DENIED);
    check(&["deny 192.0.2.7/32", "allow 192.0.2.0/24"], "192.0.2.8", OPEN);
    check(&["deny 192.0.2.7/32"], "192.0.2.8", OPEN);
    check(&["allow 192.0.2.0/24"], "::ffff:192.0.2.1", OPEN);
    check(&["deny 192.0.2.0/24"], "::ffff:192.0.2.1", DENIED);
    check(&["allow 0.0.0.0/0"], "2001:db8::1", NOT_ALLOWED);
    check(&["allow 2001:db8::/32"], "2001:db8::1", OPEN);

    check(&["allow x-a=b*"], "192.0.2.1 x-a=bc", OPEN);
    check(&["allow X-A=b*"], "192.0.2.1 x-A=bc", OPEN);
    check(&["allow x-a=b*"], "192.0.2.1 x-a=Bc", NOT_ALLOWED);
    check(&["allow x-a=b*"], "192.0.2.1", NOT_ALLOWED);
    check(&["allow x-a=*"], "192.0.2.1", NOT_ALLOWED);
    check(&["deny x-a=*"], "192.0.2.1", OPEN);
    check(&["deny x-a=b"], "192.0.2.1 x-a=a x-a=b x-a=c", DENIED);
    check(&["deny x-a=b"], "192.0.2.1 x-a=a,b,c", OPEN);
    check(&["allow x-a=b,c x-d=e"], "192.0.2.1 x-a=c x-d=e", OPEN);
    check(&["allow x-a=b,c x-d=e"], "192.0.2.1 x-a=c", NOT_ALLOWED);
    check(&["allow x-a=gr?n"], "192.0.2.1 x-a=grün", OPEN);
    check(&["allow 192.0.2.0/24 x-a=b"], "198.51.100.1 x-a=b", NOT_ALLOWED);

    check(&["allow $tenant=acme"], "192.0.2.1 $tenant=acme", OPEN);
    check(&["allow $tenant=acme"], "192.0.2.1 $tenant=other", NOT_ALLOWED);
    check(&["allow $tenant=acme"], "192.0.2.1 $Tenant=acme", NOT_ALLOWED);
    check(&["deny $tenant=*"], "192.0.2.1", OPEN);
    check(&["deny $tenant=*"], "192.0.2.1 $tenant=", DENIED);
    check(&["allow 10.0.0.0/8", "allow $tenant=acme*,beta"], "192.0.2.1 $tenant=beta", OPEN);
    check(&["deny $roles=banned"], "192.0.2.1 $roles=user $roles=banned", DENIED);
    check(&["allow $roles=admin"], "192.0.2.1 $roles=user $roles=admin", OPEN);
    check(&["allow $roles=admin"], "192.0.2.1 $roles=user", NOT_ALLOWED);
}

#[test]
fn what_hangs_on_the_authorizer_is_left_open_and_nothing_else() {
    let check = |statements: &[&str], caller: &str, wanted: Verdict| {
        let policy = policy(statements);
        assert_eq!(asked(caller, |caller| policy.before(caller)), wanted, "{statements:?} {caller}");
    };
    let refused = |explicit| Verdict::Refused(Refused { explicit });
    check(&[], "192.0.2.1", Verdict::Open);
    check(&["allow 10.0.0.0/8"], "192.0.2.1", refused(false));
    check(&["allow $tenant=acme"], "192.0.2.1", Verdict::Undecided);
    // Even where the answer is there: it is not asked.
    check(&["allow $tenant=acme"], "192.0.2.1 $tenant=acme", Verdict::Undecided);
    check(&["allow 10.0.0.0/8 $tenant=acme"], "192.0.2.1", refused(false));
    check(&["allow $tenant=acme", "allow 192.0.2.0/24"], "192.0.2.1", Verdict::Open);
    check(&["allow $tenant=acme", "deny 192.0.2.0/24"], "192.0.2.1", refused(true));
    check(&["deny $tenant=acme"], "192.0.2.1", Verdict::Undecided);
    check(&["deny $tenant=acme x-a=b"], "192.0.2.1", Verdict::Open);
    check(&["deny $tenant=acme", "allow 192.0.2.0/24"], "192.0.2.1", Verdict::Undecided);
    // Denied or not, nobody allows it.
    check(&["deny $tenant=acme", "allow 10.0.0.0/8"], "192.0.2.1", refused(false));
}

#[test]
fn a_message_has_no_headers() {
    let check = |statements: &[&str], wanted| {
        let caller = Caller { source_ip: "192.0.2.1".parse().unwrap(), headers: None, authorizer: &|_| Vec::new() };
        assert_eq!(policy(statements).after(&caller), wanted, "{statements:?}");
    };
    check(&["allow 192.0.2.0/24"], OPEN);
    check(&["allow x-a=*"], NOT_ALLOWED);
    check(&["deny x-a=*"], OPEN);
}

#[test]
fn a_policy_says_what_it_needs_and_why_it_refuses() {
    let check = |statement: &str, authorizer: bool, headers: bool| {
        let policy = policy(&["allow", statement]);
        assert_eq!((policy.needs_authorizer(), policy.needs_headers()), (authorizer, headers), "{statement}");
    };
    check("deny 10.0.0.0/8", false, false);
    check("deny x-a=b", false, true);
    check("deny $tenant=acme", true, false);
    assert_eq!(DENIED.unwrap_err().to_string(), "a statement of resource_policy denies it");
    assert_eq!(NOT_ALLOWED.unwrap_err().to_string(), "no statement of resource_policy allows it");
}

#[test]
fn globs_match_whole_texts() {
    let check =
        |glob: &str, text: &str, wanted: bool| assert_eq!(Glob::new(glob).matches(text), wanted, "{glob} {text}");
    check("", "", true);
    check("", "a", false);
    check("a", "a", true);
    check("a", "A", false);
    check("a", "ab", false);
    check("*", "", true);
    check("**", "any thing", true);
    check("a*", "a", true);
    check("a*a", "a", false);
    check("ab*ba", "aba", false);
    check("*b*", "abc", true);
    check("*.example.com", "a.b.example.com", true);
    check("*.example.com", "example.com", false);
    check("?", "", false);
    check("?", "é", true);
    check("??", "é", false);
    check("?*", "", false);
    check("*?", "é", true);
    check("a?c*x?z", "abc xyz", true);
    check("*a?c*", "aabc", true);
    check("*?é*", "éé", true);
    check("*?é", "é", false);
}

#[test]
fn no_glob_is_slow() {
    let text = "a".repeat(100_000);
    for glob in ["a*".repeat(2_000) + "b", format!("*{}b*", "a".repeat(2_000)), format!("*{}b*", "?".repeat(50))] {
        let begun = Instant::now();
        assert!(!Glob::new(&glob).matches(&text));
        assert!(begun.elapsed() < Duration::from_secs(1));
    }
}

/// The slow twin: every way to divide the text.
fn naive(glob: &[char], text: &[char]) -> bool {
    match glob.split_first() {
        None => text.is_empty(),
        Some(('*', rest)) => (0..=text.len()).any(|from| naive(rest, &text[from..])),
        Some((wanted, rest)) => text.first().is_some_and(|found| is_met(*wanted, *found)) && naive(rest, &text[1..]),
    }
}

fn naive_text(glob: &str, text: &str) -> bool {
    naive(&glob.chars().collect::<Vec<_>>(), &text.chars().collect::<Vec<_>>())
}

type Pairs = Vec<(&'static str, &'static str)>;

/// A statement as the twin reads it, with one value for each condition.
#[derive(Debug, Clone)]
struct Twin {
    effect: Effect,
    networks: Vec<&'static str>,
    headers: Pairs,
    authorizer: Pairs,
}

impl Twin {
    fn statement(&self) -> Statement {
        let globs = |glob| vec![Glob::new(glob)];
        Statement {
            effect: self.effect,
            source_ip: self.networks.iter().map(|network| network.parse().unwrap()).collect(),
            headers: self.headers.iter().map(|(name, glob)| (name.parse().unwrap(), globs(glob))).collect(),
            authorizer: self.authorizer.iter().map(|(name, glob)| (name.to_string(), globs(glob))).collect(),
        }
    }

    fn matches(&self, address: IpAddr, headers: &Pairs, authorizer: &Pairs) -> bool {
        let network = |network: &&str| network.parse::<IpNet>().unwrap().contains(&address);
        let all_met = |wanted: &Pairs, found: &Pairs| {
            let is_met = |name: &str, glob: &str| found.iter().any(|(known, v)| *known == name && naive_text(glob, v));
            wanted.iter().all(|(name, glob)| is_met(name, glob))
        };
        (self.networks.is_empty() || self.networks.iter().any(network))
            && all_met(&self.headers, headers)
            && all_met(&self.authorizer, authorizer)
    }

    /// Looks for a matching deny, and then for a matching allow, each time through all there is.
    fn judge(twins: &[Twin], address: IpAddr, headers: &Pairs, authorizer: &Pairs) -> Result<(), Refused> {
        let any = |effect| twins.iter().any(|it| it.effect == effect && it.matches(address, headers, authorizer));
        match (any(Effect::Deny), any(Effect::Allow)) {
            (true, _) => DENIED,
            (false, false) if twins.iter().any(|it| it.effect == Effect::Allow) => NOT_ALLOWED,
            _ => OPEN,
        }
    }
}

fn some<T: Clone + std::fmt::Debug>(of: &'static [T], most: usize) -> impl Strategy<Value = Vec<T>> {
    prop::collection::vec(prop::sample::select(of), 0..=most)
}

prop_compose! {
    fn twins()(
        effect in prop::sample::select(&[Effect::Allow, Effect::Deny][..]),
        networks in some(&["10.0.0.0/8", "10.1.0.0/16", "2001:db8::/32"], 2),
        headers in some(&[("x-a", "1"), ("x-a", "2*"), ("x-b", "1")], 2),
        authorizer in some(&[("tenant", "1"), ("tenant", "*"), ("plan", "?")], 2),
    ) -> Twin {
        Twin { effect, networks, headers, authorizer }
    }
}

proptest! {
    #[test]
    fn globs_match_as_a_naive_scan_says(glob in "[aé*?]{0,8}", text in "[aé]{0,12}") {
        prop_assert_eq!(Glob::new(&glob).matches(&text), naive_text(&glob, &text));
    }

    #[test]
    fn a_policy_is_as_its_naive_twin_says(
        twins in prop::collection::vec(twins(), 0..5),
        is_in_ipv6_clothes: bool,
        address in prop::sample::select(&["10.1.0.1", "10.2.0.1", "192.0.2.1", "2001:db8::1"][..]),
        headers in some(&[("x-a", "1"), ("x-a", "22"), ("x-b", "2"), ("x-b", "1")], 3),
        tenants in prop::collection::vec(prop::sample::select(&["1", "2"][..]), 1..3),
        plan in prop::option::of(prop::sample::select(&["2", "33"][..])),
    ) {
        let policy = ResourcePolicy { statements: twins.iter().map(Twin::statement).collect() };
        let address: IpAddr = address.parse().unwrap();
        let source_ip = match address {
            IpAddr::V4(address) if is_in_ipv6_clothes => address.to_ipv6_mapped().into(),
            _ => address,
        };
        let header = |(name, value): &(&str, &str)| -> (HeaderName, HeaderValue) {
            (name.parse().unwrap(), value.parse().unwrap())
        };
        let header_map: HeaderMap = headers.iter().map(header).collect();
        let mut said = None;
        for tenant in tenants {
            let found: Pairs = [("tenant", tenant)].into_iter().chain(plan.map(|plan| ("plan", plan))).collect();
            let wanted = Twin::judge(&twins, address, &headers, &found);
            let authorizer = |name: &str| {
                found.iter().filter(|pair| pair.0 == name).map(|pair| Cow::Borrowed(pair.1)).collect()
            };
            let caller = Caller { source_ip, headers: Some(&header_map), authorizer: &authorizer };
            prop_assert_eq!(policy.after(&caller), wanted);
            // What is said before holds after, whatever the authorizer finds out.
            let before = policy.before(&caller);
            prop_assert_eq!(*said.get_or_insert(before), before);
            match before {
                Verdict::Open => prop_assert_eq!(wanted, OPEN),
                Verdict::Refused(Refused { explicit: true }) => prop_assert_eq!(wanted, DENIED),
                Verdict::Refused(Refused { explicit: false }) => prop_assert!(wanted.is_err()),
                Verdict::Undecided => prop_assert!(policy.needs_authorizer()),
            }
        }
    }
}
