//! Three servers of which one dies and returns, with the calls of a minute and no real time: how many clients see it.

use std::collections::VecDeque;

use super::*;

/// How long a call takes a server that is well.
const SERVICE: u64 = 20;

/// What ails a server.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ailment {
    /// Its process is gone: calls in progress are lost, connections are refused.
    Dead,
    /// It takes calls and answers 502.
    Sick,
}

/// A call that waits for its answer, which comes at `due`.
struct Call {
    due: u64,
    began: u64,
    tried: Tried,
    picked: Picked<usize>,
}

struct World {
    pool: Pool<usize>,
    /// Which servers it befalls, from when to when.
    ailing: &'static [usize],
    ailment: Ailment,
    from: u64,
    to: u64,
    calls: VecDeque<Call>,
    /// When each error reached a client.
    errors: Vec<u64>,
    /// When each call went to an ailing server.
    wasted: Vec<u64>,
    /// When a server was first brought back.
    returned: Option<u64>,
}

impl World {
    fn new(ailing: &'static [usize], ailment: Ailment, from: u64, to: u64) -> Self {
        let pool = pool(3, RULES);
        let (errors, wasted) = (Vec::new(), Vec::new());
        Self { pool, ailing, ailment, from, to, calls: VecDeque::new(), errors, wasted, returned: None }
    }

    fn ails(&self, picked: &Picked<usize>, now: u64) -> bool {
        self.ailing.contains(&picked.server().kept) && (self.from..self.to).contains(&now)
    }

    /// The rule that a caller follows: pick, send, tell how it went, and ask whether to try again.
    fn send(&mut self, mut tried: Tried, now: u64) {
        while let Some(picked) = self.pool.pick(Tick(now), &mut tried) {
            if !self.ails(&picked, now) || self.ailment == Ailment::Sick {
                if self.ails(&picked, now) {
                    self.wasted.push(now);
                }
                self.calls.push_back(Call { due: now + SERVICE, began: now, tried, picked });
                return;
            }
            self.wasted.push(now);
            picked.failed(Tick(now));
            if !self.pool.may_try_again(Tick(now), &mut tried, Failure::Unsent) {
                break;
            }
        }
        self.errors.push(now);
    }

    fn answer(&mut self, call: Call, now: u64) {
        let Call { began, mut tried, picked, .. } = call;
        let is_lost = match self.ailment {
            Ailment::Dead => self.ailing.contains(&picked.server().kept) && (began..=now).contains(&self.from),
            Ailment::Sick => self.ails(&picked, now),
        };
        if !is_lost {
            if picked.succeeded(Tick(now)) == Some(Change::Returned) {
                self.returned.get_or_insert(now);
            }
            return;
        }
        picked.failed(Tick(now));
        drop(picked);
        match self.pool.may_try_again(Tick(now), &mut tried, Failure::Sent) {
            true => self.send(tried, now),
            false => self.errors.push(now),
        }
    }

    /// A call every other millisecond; `is_repeatable` says which can be repeated.
    fn run(&mut self, until: u64, is_repeatable: impl Fn(u64) -> bool) {
        for now in 1..until {
            while self.calls.front().is_some_and(|call| call.due <= now) {
                let call = self.calls.pop_front().unwrap();
                self.answer(call, now);
            }
            if now % 2 == 0 {
                self.send(Tried::new(is_repeatable(now / 2)), now);
            }
        }
    }
}

fn every_other(number: u64) -> bool {
    number.is_multiple_of(2)
}

#[test]
fn a_server_that_dies_costs_what_it_was_working_on_and_nothing_after() {
    let mut world = World::new(&[2], Ailment::Dead, 10_000, 25_000);
    world.run(60_000, every_other);
    // It has a third of the ten calls in progress, of which half can be repeated.
    assert!((1..=2).contains(&world.errors.len()), "{:?}", world.errors);
    assert!(world.errors.iter().all(|at| (10_000..=10_000 + SERVICE).contains(at)), "{:?}", world.errors);
    // Three to notice, then a trial after 10 s; the next, 20 s later, finds it back.
    assert!(world.wasted.len() <= 4, "{:?}", world.wasted);
    assert!(world.returned.is_some_and(|at| at <= 41_000), "{:?}", world.returned);
    assert_eq!(world.pool.servers[2].condition(), Condition::InService);
}

#[test]
fn no_client_sees_a_dead_server_if_its_calls_can_be_repeated() {
    let mut world = World::new(&[2], Ailment::Dead, 10_000, 25_000);
    world.run(60_000, |_| true);
    assert_eq!(world.errors, [0; 0]);
}

#[test]
fn a_server_that_answers_502_costs_a_handful_until_it_is_noticed() {
    let mut world = World::new(&[2], Ailment::Sick, 10_000, 25_000);
    world.run(60_000, every_other);
    assert!((1..=6).contains(&world.errors.len()), "{:?}", world.errors);
    // Trials are made with calls that can be repeated, so they cost nothing.
    assert!(world.errors.iter().all(|at| (10_000..10_100).contains(at)), "{:?}", world.errors);
    assert!(world.wasted.len() <= 10, "{:?}", world.wasted);
    assert!(world.returned.is_some());
}

#[test]
fn a_sick_server_is_tried_even_if_no_call_can_be_repeated() {
    let mut world = World::new(&[2], Ailment::Sick, 10_000, 25_000);
    world.run(60_000, |_| false);
    let late = world.errors.iter().filter(|at| **at > 10_100).count();
    assert!((1..=12).contains(&world.errors.len()) && late <= 1, "{:?}", world.errors);
    assert!(world.returned.is_some_and(|at| at <= 31_000), "{:?}", world.returned);
}

#[test]
fn when_all_die_calls_are_answered_as_soon_as_one_is_back() {
    let mut world = World::new(&[0, 1, 2], Ailment::Dead, 10_000, 25_000);
    world.run(60_000, every_other);
    assert!(world.errors.len() >= 7_500, "{}", world.errors.len());
    assert!(world.errors.iter().all(|at| (10_000..25_000).contains(at)), "{:?}", world.errors.last());
    assert!(world.returned.is_some_and(|at| at < 25_100), "{:?}", world.returned);
}
