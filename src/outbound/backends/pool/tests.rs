//! Pools as a whole: who is picked, who is left alone, and what is tried again.

use proptest::prelude::*;

use super::*;

mod simulation;

const RULES: Rules = Rules {
    balance: Balance::LeastRequests,
    ejection: Some(EjectionRules { failures: 3, time: Duration::from_secs(10) }),
    checks: Thresholds { healthy: 2, unhealthy: 2 },
    retries: 1,
    retry_budget: 20,
    max_connections: 1024,
    queue: 1024,
    queue_timeout: None,
};

/// A pool of servers that are known by their numbers.
fn pool(servers: usize, rules: Rules) -> Pool<usize> {
    let address = |at: usize| Address::Tcp { host: "animals".into(), port: at as u16 + 1 };
    Pool::new((0..servers).map(|at| Arc::new(Server::new(address(at), at))).collect(), rules)
}

fn pick(pool: &Pool<usize>, now: u64) -> Picked<usize> {
    pool.pick(Tick(now), &mut Tried::new(true)).unwrap()
}

fn eject(pool: &Pool<usize>, at: usize, now: u64) {
    let server = &pool.servers[at];
    let failed = |_| {
        let ticket = server.ejection.begin_regardless();
        server.ejection.note_failure(ticket, pool.rules.ejection.unwrap(), Tick(now));
    };
    (0..3).for_each(failed);
    assert_eq!(server.condition(), Condition::Ejected);
}

/// The numbers of the servers that a call tries one after the other.
fn tries(pool: &Pool<usize>, now: u64) -> Vec<usize> {
    let mut tried = Tried::new(true);
    std::iter::from_fn(|| Some(pool.pick(Tick(now), &mut tried)?.server().kept)).collect()
}

#[test]
fn a_call_tries_each_server_once() {
    let mut tried = tries(&pool(3, RULES), 0);
    tried.sort();
    assert_eq!(tried, [0, 1, 2]);
}

#[test]
fn those_down_or_ejected_are_the_last_resort() {
    let pool = pool(4, RULES);
    eject(&pool, 0, 0);
    assert_eq!(pool.note_check(&pool.servers[2], false), Some(Change::Down));
    for _ in 0..4 {
        let tried = tries(&pool, 5_000);
        assert!(matches!(tried[..2], [1, 3] | [3, 1]), "{tried:?}");
        assert_eq!(tried.len(), 4);
    }
}

#[test]
fn calls_in_progress_are_counted_until_they_are_dropped() {
    let pool = pool(2, RULES);
    let first = pick(&pool, 0);
    let second = pick(&pool, 0);
    assert_ne!(first.server().kept, second.server().kept);
    let free = first.server().kept;
    // The answer's head came; its body still flows.
    first.succeeded(Tick(1));
    assert_eq!(first.server().in_progress(), 1);
    drop(first);
    assert_eq!(pick(&pool, 2).server().kept, free);
}

#[test]
fn an_ejected_server_gets_one_trial_and_comes_back_with_it() {
    let pool = pool(2, RULES);
    eject(&pool, 0, 0);
    let calls: Vec<_> = (0..10).map(|_| pick(&pool, 9_999)).collect();
    assert!(calls.iter().all(|call| call.server().kept == 1));
    let calls: Vec<_> = (0..10).map(|_| pick(&pool, 10_000)).collect();
    let trials: Vec<_> = calls.iter().filter(|call| call.server().kept == 0).collect();
    assert_eq!(trials.len(), 1);
    assert_eq!(trials[0].succeeded(Tick(10_001)), Some(Change::Returned));
    assert_eq!(pick(&pool, 10_002).server().kept, 0);
}

#[test]
fn a_call_that_cannot_be_repeated_is_a_trial_only_later() {
    let pool = pool(2, RULES);
    eject(&pool, 0, 0);
    let pick_once = |now| pool.pick(Tick(now), &mut Tried::new(false)).unwrap().server().kept;
    let picks = |now| (0..10).filter(|_| pick_once(now) == 0).count();
    assert_eq!(picks(19_999), 0);
    assert!(picks(20_000) > 0);
}

#[test]
fn a_server_whose_checks_pass_again_is_in_service_at_once() {
    let pool = pool(2, RULES);
    let server = &pool.servers[0];
    eject(&pool, 0, 0);
    assert_eq!(pool.note_check(server, false), Some(Change::Down));
    assert_eq!(pool.note_check(server, true), None);
    assert_eq!(pool.note_check(server, true), Some(Change::Up));
    assert_eq!(server.condition(), Condition::InService);
}

#[test]
fn checks_that_always_passed_do_not_end_an_ejection() {
    let pool = pool(2, RULES);
    eject(&pool, 0, 0);
    (0..5).for_each(|_| assert_eq!(pool.note_check(&pool.servers[0], true), None));
    assert_eq!(pool.servers[0].condition(), Condition::Ejected);
}

#[test]
fn without_rules_nobody_is_ejected() {
    let pool = pool(1, Rules { ejection: None, ..RULES });
    (0..100).for_each(|_| assert_eq!(pick(&pool, 0).failed(Tick(0)), None));
    assert_eq!(pool.servers[0].condition(), Condition::InService);
}

#[test]
fn a_server_that_fails_alone_is_asked_all_the_same() {
    let pool = pool(1, RULES);
    eject(&pool, 0, 0);
    assert_eq!(pick(&pool, 1).succeeded(Tick(1)), Some(Change::Returned));
}

/// Whether a call that fails again and again is tried again, each time.
fn check_again(rules: Rules, repeatable: bool, failures: &[Failure], wanted: &[bool]) {
    let pool = pool(4, rules);
    let mut tried = Tried::new(repeatable);
    let again = |failure: &Failure| {
        let _ = pool.pick(Tick(0), &mut tried);
        pool.may_try_again(Tick(0), &mut tried, *failure)
    };
    assert_eq!(failures.iter().map(again).collect::<Vec<_>>(), wanted, "{repeatable} {failures:?}");
}

#[test]
fn what_was_not_sent_goes_on_and_what_was_is_repeated_if_it_may_be() {
    use Failure::{Sent, Unsent};
    check_again(RULES, false, &[Unsent, Unsent, Unsent, Unsent], &[true, true, true, false]);
    check_again(RULES, false, &[Sent], &[false]);
    check_again(RULES, false, &[Unsent, Sent], &[true, false]);
    check_again(RULES, true, &[Sent, Sent], &[true, false]);
    check_again(RULES, true, &[Sent, Unsent, Sent], &[true, true, false]);
    check_again(Rules { retries: 5, ..RULES }, true, &[Sent; 4], &[true, true, true, false]);
    check_again(Rules { retries: 0, ..RULES }, true, &[Sent], &[false]);
    check_again(Rules { retries: 0, ..RULES }, true, &[Unsent], &[true]);
}

#[test]
fn only_a_few_calls_go_on_to_servers_that_are_out() {
    let pool = pool(6, RULES);
    (1..6).for_each(|at| eject(&pool, at, 0));
    let attempts = |failure| {
        let mut tried = Tried::new(true);
        let tries =
            |_: &u32| pool.pick(Tick(1), &mut tried).is_some() && pool.may_try_again(Tick(1), &mut tried, failure);
        (1..=9).take_while(tries).count() + 1
    };
    assert_eq!(attempts(Failure::Unsent), 1 + LAST_RESORTS as usize);
    assert_eq!(attempts(Failure::Sent), 1);
}

#[test]
fn repetitions_of_all_calls_share_one_budget() {
    let pool = pool(2, RULES);
    let repeated = (0..1_000).filter(|_| {
        let mut tried = Tried::new(true);
        drop(pool.pick(Tick(0), &mut tried));
        pool.may_try_again(Tick(0), &mut tried, Failure::Sent)
    });
    assert_eq!(repeated.count(), 200);
}

#[derive(Clone, Debug)]
enum Act {
    Pick { repeatable: bool },
    End { which: prop::sample::Index, outcome: Option<bool> },
    Check { server: prop::sample::Index, passed: bool },
    Wait(u64),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let index = any::<prop::sample::Index>;
    let act = prop_oneof![
        6 => any::<bool>().prop_map(|repeatable| Act::Pick { repeatable }),
        6 => (index(), any::<Option<bool>>()).prop_map(|(which, outcome)| Act::End { which, outcome }),
        1 => (index(), any::<bool>()).prop_map(|(server, passed)| Act::Check { server, passed }),
        1 => (0u64..30_000).prop_map(Act::Wait),
    ];
    prop::collection::vec(act, 1..200)
}

proptest! {
    /// Calls come and end in any order: counts are kept, the least busy is picked, and an ejected server gets none
    /// before its time unless all are ejected or down.
    #[test]
    fn pools_keep_their_word(servers in 1usize..6, acts in acts()) {
        let pool = pool(servers, RULES);
        let mut now = 1;
        let mut calls: Vec<Picked<usize>> = Vec::new();
        // When each server may be tried again, as far as it was told.
        let mut ejected: Vec<Option<u64>> = vec![None; servers];
        for act in acts {
            match act {
                Act::Pick { repeatable } => {
                    let before: Vec<_> = pool.servers.iter().map(|server| server.in_progress()).collect();
                    let conditions: Vec<_> = pool.servers.iter().map(|server| server.condition()).collect();
                    let call = pool.pick(Tick(now), &mut Tried::new(repeatable)).unwrap();
                    let at = call.server().kept;
                    let in_service = |at: &usize| conditions[*at] == Condition::InService;
                    for other in (0..servers).filter(in_service) {
                        prop_assert_ne!(conditions[at], Condition::Down);
                        prop_assert!(before[at] <= before[other]);
                        prop_assert!(ejected[at].is_none_or(|until| until <= now));
                    }
                    calls.push(call);
                }
                Act::End { which, outcome } if !calls.is_empty() => {
                    let call = calls.swap_remove(which.index(calls.len()));
                    let change = match outcome {
                        Some(true) => call.succeeded(Tick(now)),
                        Some(false) => call.failed(Tick(now)),
                        None => None,
                    };
                    match change {
                        Some(Change::Ejected(time)) => ejected[call.server().kept] = Some(now + time.as_millis() as u64),
                        Some(Change::Returned) => ejected[call.server().kept] = None,
                        _ => {}
                    }
                }
                Act::Check { server, passed } => {
                    let at = server.index(servers);
                    if pool.note_check(&pool.servers[at], passed) == Some(Change::Up) {
                        ejected[at] = None;
                    }
                }
                Act::Wait(time) => now += time,
                Act::End { .. } => {}
            }
            for (at, server) in pool.servers.iter().enumerate() {
                prop_assert_eq!(server.in_progress(), calls.iter().filter(|call| call.server().kept == at).count());
            }
        }
    }
}
