//! Who counts as one address, what it may have, and that forgetting changes nothing.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use governor::clock::FakeRelativeClock;
use proptest::prelude::*;

use super::*;

fn rate(per_second: f64, burst: u32) -> Option<Rate> {
    Some(Rate::new(per_second, burst).unwrap())
}

fn v4(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(number).into()
}

/// Whether a second connection finds the only place of its address taken.
fn check(first: &str, second: &str, is_same: bool) {
    let addresses = Arc::new(Addresses::new());
    let limits = Limits { connections: Some(1), ..Limits::default() };
    let _place = addresses.connect(first.parse().unwrap(), &limits).ok().unwrap();
    let refused = addresses.connect(second.parse().unwrap(), &limits).err();
    assert_eq!(refused, is_same.then_some(Refused::TooManyConnections(1)), "{first} {second}");
}

#[test]
fn an_address_is_one_of_ipv4_or_a_64_of_ipv6() {
    check("192.0.2.1", "192.0.2.1", true);
    check("192.0.2.1", "::ffff:192.0.2.1", true);
    check("192.0.2.1", "192.0.2.2", false);
    check("::ffff:192.0.2.1", "::ffff:192.0.2.2", false);
    check("2001:db8:0:1::1", "2001:db8:0:1:ffff::", true);
    check("2001:db8:0:1::1", "2001:db8:0:2::1", false);
    check("::1", "0.0.0.0", false);
}

#[test]
fn a_place_is_given_back_and_a_refusal_costs_nothing() {
    let clock = FakeRelativeClock::default();
    let addresses = Arc::new(Addresses::with_clock(clock.clone()));
    let limits = Limits { connections: Some(2), connects: rate(1.0, 3), requests: None };
    let connect = || addresses.connect(v4(1), &limits);
    let first = connect().ok().unwrap();
    let second = connect().ok().unwrap();
    for _ in 0..10 {
        assert_eq!(connect().err(), Some(Refused::TooManyConnections(2)));
    }
    drop(first);
    let third = connect().ok().unwrap();
    drop(second);
    let wait = Throttled { retry_after: Some(Duration::from_secs(1)) };
    assert_eq!(connect().err(), Some(Refused::TooFast(wait)));
    clock.advance(Duration::from_secs(1));
    let _fourth = connect().ok().unwrap();
    drop(third);
    assert_eq!(addresses.len(), 1);
}

#[test]
fn a_reload_changes_limits_and_keeps_counts() {
    let addresses = Arc::new(Addresses::new());
    let [none, some] = [None, Some(1)].map(|connections| Limits { connections, ..Limits::default() });
    let _places = [addresses.connect(v4(1), &none).ok().unwrap(), addresses.connect(v4(1), &none).ok().unwrap()];
    assert_eq!(addresses.connect(v4(1), &some).err(), Some(Refused::TooManyConnections(1)));
    let request = |requests| addresses.request(v4(1), &Limits { requests, ..Limits::default() }).is_ok();
    let (slow, slower) = (rate(0.002, 2), rate(0.001, 2));
    assert_eq!([slow, slow, slow, slower, slower, slower].map(request), [true, true, false, true, true, false]);
    assert!(request(None) && !request(rate(0.0, 0)) && request(None));
}

#[test]
fn an_address_is_forgotten_once_it_looks_like_a_new_one() {
    let clock = FakeRelativeClock::default();
    let addresses = Arc::new(Addresses::with_clock(clock.clone()));
    let check = |after: u64, remembered: usize| {
        clock.advance(Duration::from_millis(after));
        addresses.sweep();
        assert_eq!((addresses.len(), addresses.is_empty()), (remembered, remembered == 0), "{after}");
    };
    let limits = Limits { connections: None, connects: rate(1.0, 5), requests: rate(0.5, 5) };
    let place = addresses.connect(v4(1), &limits).ok().unwrap();
    addresses.request(v4(2), &limits).unwrap();
    addresses.request(v4(2), &limits).unwrap();
    check(3_999, 2);
    check(1, 1);
    check(1_000_000, 1);
    drop(place);
    check(0, 0);
    let place = addresses.connect(v4(1), &limits).ok().unwrap();
    drop(place);
    check(999, 1);
    check(1, 0);
    // A bucket that never gives anything has nothing to remember.
    assert!(addresses.request(v4(1), &Limits { requests: rate(0.0, 0), ..Limits::default() }).is_err());
    check(0, 0);
}

#[test]
fn those_for_whom_there_is_no_room_are_as_one() {
    let clock = FakeRelativeClock::default();
    let addresses = Arc::new(Addresses::with_clock(clock.clone()));
    let limits = Limits { connections: Some(2), connects: None, requests: rate(1.0, 3) };
    let request = |number| addresses.request(v4(number), &limits).is_ok();
    let known = addresses.connect(v4(0), &limits).ok().unwrap();
    assert!((1..MOST as u32).all(request));
    assert_eq!(addresses.len(), MOST);
    let new = |number: u32| v4(1_000_000 + number);
    let others = [1, 2].map(|number| addresses.connect(new(number), &limits).ok().unwrap());
    assert_eq!(addresses.connect(new(3), &limits).err(), Some(Refused::TooManyConnections(2)));
    let passed = (0..100_000).filter(|number| addresses.request(new(*number), &limits).is_ok()).count();
    assert_eq!((passed, addresses.len(), addresses.entries.len()), (3, MOST, MOST + 1));
    // Who was known before has its own.
    assert!(request(0) && request(MOST as u32 - 1));
    let other = addresses.connect(v4(0), &limits).ok().unwrap();

    // Once there is room, the places among the others are still theirs.
    clock.advance(Duration::from_secs(10));
    addresses.sweep();
    assert_eq!((addresses.len(), addresses.entries.len()), (1, 2));
    let own = [1, 1].map(|number| addresses.connect(new(number), &limits).ok().unwrap());
    drop((known, others, other, own));
    addresses.sweep();
    assert_eq!((addresses.len(), addresses.entries.len()), (0, 0));
}

#[test]
fn many_threads_never_exceed_a_bound_and_leave_nothing_behind() {
    const ADDRESSES: u32 = 5;
    const BOUND: u32 = 3;
    let addresses = Arc::new(Addresses::new());
    let limits = Limits { connections: Some(BOUND), ..Limits::default() };
    let open = [const { AtomicUsize::new(0) }; ADDRESSES as usize];
    let refused = AtomicUsize::new(0);
    let leave = |places: &mut Vec<(u32, Place)>| {
        for (number, place) in places.drain(..) {
            open[number as usize].fetch_sub(1, Ordering::SeqCst);
            drop(place);
        }
    };
    let live = |thread: u32| {
        let mut places = Vec::new();
        for turn in 0..20_000u32 {
            let number = turn.wrapping_mul(2_654_435_761).wrapping_add(thread) % ADDRESSES;
            match addresses.connect(v4(number), &limits) {
                Ok(place) => {
                    assert!(open[number as usize].fetch_add(1, Ordering::SeqCst) < BOUND as usize);
                    places.push((number, place));
                }
                Err(_) => _ = refused.fetch_add(1, Ordering::SeqCst),
            }
            if places.len() > 2 || turn % 3 == 0 {
                leave(&mut places);
            }
            if turn % 1_000 == thread {
                addresses.sweep();
            }
        }
        leave(&mut places);
    };
    std::thread::scope(|scope| (0..8).for_each(|thread| _ = scope.spawn(move || live(thread))));
    assert!(refused.into_inner() > 0);
    addresses.sweep();
    assert_eq!((addresses.len(), addresses.entries.len()), (0, 0));
}

#[test]
fn a_place_is_small_and_refusals_are_sentences() {
    assert!(size_of::<Place>() <= 24);
    let check = |refused: Refused, text: &str| assert_eq!(refused.to_string(), text);
    check(Refused::TooManyConnections(3), "the address has as many connections open as it may, 3");
    let throttled = |retry_after| Refused::TooFast(Throttled { retry_after });
    check(throttled(Some(Duration::from_millis(1_500))), "throttled for another 1.5s");
    check(throttled(None), "throttled: the rate or the burst never lets this through");
}

#[derive(Clone, Debug)]
enum Act {
    Connect(u32),
    /// Of the open connections, counted around.
    Leave(usize),
    Request(u32),
    Wait(u64),
    Sweep,
}

fn acts() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => (0..4u32).prop_map(Act::Connect),
        2 => any::<usize>().prop_map(Act::Leave),
        3 => (0..4u32).prop_map(Act::Request),
        2 => (0..1_500u64).prop_map(Act::Wait),
        1 => Just(Act::Sweep),
    ]
}

proptest! {
    /// The twin never forgets anything.
    #[test]
    fn forgetting_changes_nothing(
        connections in prop::option::of(0..4u32),
        acts in prop::collection::vec(acts(), 0..200),
    ) {
        let clock = FakeRelativeClock::default();
        let addresses = Arc::new(Addresses::with_clock(clock.clone()));
        let limits = Limits { connections, connects: rate(2.0, 4), requests: rate(3.0, 2) };
        let bucket = |rate: Option<Rate>| Bucket::with_clock(rate.unwrap(), clock.clone());
        let mut twins: HashMap<u32, (u32, Bucket<_>, Bucket<_>)> =
            (0..4).map(|number| (number, (0, bucket(limits.connects), bucket(limits.requests)))).collect();
        let mut places = Vec::new();
        for act in acts {
            match act {
                Act::Connect(number) => {
                    let (open, connects, _) = twins.get_mut(&number).unwrap();
                    let wanted = match connections.filter(|most| *open >= *most) {
                        Some(most) => Err(Refused::TooManyConnections(most)),
                        None => connects.take().map_err(Refused::TooFast),
                    };
                    let connected = addresses.connect(v4(number), &limits);
                    if let Ok(place) = connected {
                        prop_assert_eq!(wanted, Ok(()));
                        *open += 1;
                        places.push((number, place));
                    } else {
                        prop_assert_eq!(connected.err(), wanted.err());
                    }
                }
                Act::Leave(_) if places.is_empty() => {}
                Act::Leave(which) => {
                    let (number, place) = places.swap_remove(which % places.len());
                    twins.get_mut(&number).unwrap().0 -= 1;
                    drop(place);
                }
                Act::Request(number) => {
                    prop_assert_eq!(addresses.request(v4(number), &limits), twins[&number].2.take());
                }
                Act::Wait(milliseconds) => clock.advance(Duration::from_millis(milliseconds)),
                Act::Sweep => addresses.sweep(),
            }
        }
        drop(places);
        clock.advance(Duration::from_secs(60));
        addresses.sweep();
        prop_assert!(addresses.is_empty());
    }

    #[test]
    fn a_network_is_one_address(network: u64, hosts: [u64; 2]) {
        let key = |host| Key::of(Ipv6Addr::from_bits((u128::from(network) << 64) | u128::from(host)).into());
        // The only network whose addresses may be of IPv4.
        prop_assume!(network != 0);
        prop_assert_eq!(key(hosts[0]), key(hosts[1]));
        prop_assert_eq!(key(hosts[0]), Key::V6(network));
    }
}
