//! A pool: several servers that answer for one backend, and which of them gets a call.
//!
//! Everything here decides and nothing waits, save for a place in the queue (`gate.rs`). A call enters the gate, then
//! picks a server (`balance.rs`), tells how it went (`ejection.rs`), and asks whether it may try another (`budget.rs`).
//! `health.rs` counts what active checks found, `address.rs` is what a server is called in the file.

mod address;
mod balance;
mod budget;
mod ejection;
mod gate;
mod health;

pub use address::{Address, is_server_name};
pub use balance::Balance;
pub use gate::{Busy, Permit};
pub use health::passes;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::model::clock::Tick;
use balance::Set;
use budget::Budget;
use ejection::{Ejection, Ticket};
use gate::Gate;
use health::Health;

/// The most servers that a pool takes.
pub const MOST_SERVERS: usize = Set::MOST;

/// How many servers that are down or ejected one call goes on to. When a large pool is gone altogether, each call
/// would otherwise open a connection to every server of it.
const LAST_RESORTS: u32 = 3;

/// The rules of a pool, as checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    pub balance: Balance,
    /// Without them no server is ever ejected.
    pub ejection: Option<EjectionRules>,
    /// How many checks in a row change what is believed of a server.
    pub checks: Thresholds,
    /// How often one call may be repeated after it may have reached a server.
    pub retries: u32,
    /// Repeated calls of all, in percent of the calls of late.
    pub retry_budget: u32,
    /// Calls in progress, on all servers together.
    pub max_connections: usize,
    /// Calls waiting for their turn above that.
    pub queue: usize,
    /// How long a call may wait for its turn; without it, as long as its own timeout lets it.
    pub queue_timeout: Option<Duration>,
}

/// When a server is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EjectionRules {
    /// After so many failed calls in a row.
    pub failures: u32,
    /// For so long the first time.
    pub time: Duration,
}

/// How many checks in a row change what is believed of a server; the first check of all decides at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    pub healthy: u32,
    pub unhealthy: u32,
}

pub struct Pool<S> {
    /// At least one, at most `MOST_SERVERS`.
    servers: Vec<Arc<Server<S>>>,
    rules: Rules,
    turn: AtomicUsize,
    gate: Gate,
    budget: Budget,
}

/// One server of a pool, with what the caller keeps for it. It may outlive its pool: a reload that hands the same
/// server to the new pool loses neither its idle connections nor what was found out about it.
pub struct Server<S> {
    pub address: Address,
    /// What the caller keeps for the server, such as its idle connections.
    pub kept: S,
    in_progress: AtomicUsize,
    health: Health,
    ejection: Ejection,
}

/// The servers that one call has tried, and whether it may be tried twice.
#[derive(Clone, Debug)]
pub struct Tried {
    servers: Set,
    repeats: u32,
    last_resorts: u32,
    /// Doing it twice is as good as once: an idempotent method, and a body that can be sent again.
    repeatable: bool,
}

/// A call in progress on a server: counted as such until this is dropped, so it belongs to the answer's body while
/// that still flows. The outcome is told when the answer's head arrived or failed to; a call that was given up
/// halfway tells none, which speaks neither for nor against the server.
pub struct Picked<S> {
    server: Arc<Server<S>>,
    ticket: Ticket,
    rules: Option<EjectionRules>,
}

/// Whether a failed call may have had an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Not a byte of the request was sent: no connection could be opened, or a kept one was found closed.
    Unsent,
    /// The server may have seen it: the connection was lost, time ran out, or the answer was 502, 503 or 504.
    Sent,
}

/// What changed about a server: worth a line in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Its checks pass again.
    Up,
    /// Its checks fail.
    Down,
    /// It failed several calls in a row and gets none for so long.
    Ejected(Duration),
    /// It answered a call again.
    Returned,
}

/// How a server stands, for those who look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    InService,
    Down,
    Ejected,
}

impl Condition {
    pub fn is_in_service(self) -> bool {
        self == Condition::InService
    }
}

impl<S> Pool<S> {
    /// A pool of at least one and at most `MOST_SERVERS` servers.
    pub fn new(servers: Vec<Arc<Server<S>>>, rules: Rules) -> Self {
        debug_assert!((1..=MOST_SERVERS).contains(&servers.len()));
        let gate = Gate::new(rules.max_connections, rules.queue, rules.queue_timeout);
        Self { servers, rules, turn: AtomicUsize::new(0), gate, budget: Budget::new(rules.retry_budget) }
    }

    pub fn servers(&self) -> &[Arc<Server<S>>] {
        &self.servers
    }

    /// A turn, if one is free and nobody waits.
    pub fn enter_at_once(&self) -> Option<Permit> {
        self.gate.enter_at_once()
    }

    /// Waits for a turn, in the order of arrival. May be dropped at any time.
    pub async fn enter(&self) -> Result<Permit, Busy> {
        self.gate.enter().await
    }

    /// How many calls wait for their turn.
    pub fn waiting(&self) -> usize {
        self.gate.waiting()
    }

    /// Picks a server that this call has not tried; `None` when it has tried them all.
    ///
    /// When all that are left are down or ejected it picks among those: they may have come back, or be better than
    /// their checks say, and not asking them would be an error for certain.
    pub fn pick(&self, now: Tick, tried: &mut Tried) -> Option<Picked<S>> {
        if tried.servers.is_empty() {
            self.budget.note_call(now);
        }
        loop {
            let fit = self.fit(now, tried);
            let is_last_resort = fit.is_empty();
            let among = if is_last_resort { self.untried(tried, |_| true) } else { fit };
            let turn = self.turn.fetch_add(1, Ordering::Relaxed);
            let at = self.rules.balance.choose(among, turn, |at| self.servers[at].in_progress())?;
            let server = &self.servers[at];
            let ticket = match is_last_resort {
                true => server.ejection.begin_regardless(),
                // Another call may have begun the trial meanwhile; then this one looks again.
                false => match server.ejection.begin(now, tried.repeatable) {
                    Some(ticket) => ticket,
                    None => continue,
                },
            };
            tried.servers.insert(at);
            tried.last_resorts += u32::from(is_last_resort);
            server.in_progress.fetch_add(1, Ordering::Relaxed);
            return Some(Picked { server: Arc::clone(server), ticket, rules: self.rules.ejection });
        }
    }

    /// Whether a call that failed may go on to another server; if so, `pick` gives one.
    ///
    /// What was never sent may go to every server that can be expected to answer, and a few more: it costs no server
    /// anything, and is why one dead server among several costs no client an error. What may have reached a server is
    /// repeated only if it can be, on a server in service, `retries` times at most, and only within the pool's budget:
    /// when every server fails, each call would otherwise become two.
    pub fn may_try_again(&self, now: Tick, tried: &mut Tried, failure: Failure) -> bool {
        match failure {
            Failure::Unsent => tried.servers.len() < self.servers.len() && tried.last_resorts < LAST_RESORTS,
            Failure::Sent => {
                let may_be = tried.repeatable && tried.repeats < self.rules.retries && !self.fit(now, tried).is_empty();
                // Asked last, because asking takes from it.
                let may = may_be && self.budget.take(now);
                tried.repeats += u32::from(may);
                may
            }
        }
    }

    /// Notes how a check of this server went.
    pub fn note_check(&self, server: &Server<S>, passed: bool) -> Option<Change> {
        let change = server.health.note(passed, self.rules.checks)?;
        if change == Change::Up {
            // It was away and is back: what its calls met before that says nothing any more.
            server.ejection.forget();
        }
        Some(change)
    }

    /// The servers that this call has not tried and that can be expected to answer.
    fn fit(&self, now: Tick, tried: &Tried) -> Set {
        self.untried(tried, |server| server.is_fit(now, tried.repeatable))
    }

    fn untried(&self, tried: &Tried, is_wanted: impl Fn(&Server<S>) -> bool) -> Set {
        let mut set = Set::default();
        for (at, server) in self.servers.iter().enumerate() {
            if !tried.servers.contains(at) && is_wanted(server) {
                set.insert(at);
            }
        }
        set
    }
}

impl<S> Server<S> {
    /// A server of which nothing is known, which therefore counts as up.
    pub fn new(address: Address, kept: S) -> Self {
        Self {
            address,
            kept,
            in_progress: AtomicUsize::new(0),
            health: Health::default(),
            ejection: Ejection::default(),
        }
    }

    /// It is asked no more, and so counts as up.
    pub fn forget_checks(&self) {
        self.health.forget();
    }

    /// How many calls are in progress on it.
    pub fn in_progress(&self) -> usize {
        self.in_progress.load(Ordering::Relaxed)
    }

    pub fn condition(&self) -> Condition {
        if !self.health.is_up() {
            Condition::Down
        } else if self.ejection.is_ejected() {
            Condition::Ejected
        } else {
            Condition::InService
        }
    }

    fn is_fit(&self, now: Tick, repeatable: bool) -> bool {
        self.health.is_up() && self.ejection.may_begin(now, repeatable)
    }
}

impl Tried {
    /// The beginning of a call; `repeatable` if doing it twice is as good as once.
    pub fn new(repeatable: bool) -> Self {
        Self { servers: Set::default(), repeats: 0, last_resorts: 0, repeatable }
    }
}

impl<S> Picked<S> {
    pub fn server(&self) -> &Arc<Server<S>> {
        &self.server
    }

    /// The server answered, and not with 502, 503 or 504. Brings an ejected server back.
    pub fn succeeded(&self, now: Tick) -> Option<Change> {
        self.server.ejection.note_success(self.ticket, now).then_some(Change::Returned)
    }

    /// The server could not be reached, did not answer, or answered 502, 503 or 504.
    ///
    /// When the connection could not be opened or was lost, the caller should close the server's idle connections
    /// too: what is written to one of them may have reached the server, what cannot be connected certainly has not.
    pub fn failed(&self, now: Tick) -> Option<Change> {
        let ejected = self.server.ejection.note_failure(self.ticket, self.rules?, now)?;
        Some(Change::Ejected(ejected))
    }
}

impl<S> Drop for Picked<S> {
    fn drop(&mut self) {
        self.server.in_progress.fetch_sub(1, Ordering::Relaxed);
        self.server.ejection.end(self.ticket);
    }
}

#[cfg(test)]
mod tests;
