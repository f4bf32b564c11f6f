//! What one client address may have: open connections, and buckets for its connects and its requests.
//!
//! An address is an IPv4 address or a /64 of IPv6, which is what one household or one host has. The limits are an
//! argument of every call, so that a reload changes them while the counts stay. Only so many addresses are remembered,
//! since strangers choose theirs; the rest share what one address may have.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::mapref::one::RefMut;
use dashmap::{DashMap, Entry};
use governor::clock::{Clock, MonotonicClock};

use super::bucket::{Bucket, Rate, Throttled};

/// Addresses remembered at a time, 18 MB of them. For those that come when it is full, the bound on one address
/// holds for all of them together: nothing grows, and nobody gets past the limits.
const MOST: usize = 65_536;

/// A sweep locks one after the other, each for a fraction of a millisecond when `MOST` addresses are known.
const SHARDS: usize = 64;

/// What each address may have; what is `None` has no bound.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Limits {
    pub connections: Option<u32>,
    pub connects: Option<Rate>,
    pub requests: Option<Rate>,
}

/// The addresses of one stage.
pub struct Addresses<C: Clock = MonotonicClock> {
    entries: DashMap<Key, Known<C>>,
    /// How many of the entries are of one address. They change while their shard is locked, so it is never above `MOST`.
    remembered: AtomicUsize,
    clock: C,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    V4(u32),
    /// The first 64 bits.
    V6(u64),
    /// All for whom there is no room.
    Others,
}

struct Known<C: Clock> {
    connections: u32,
    connects: Option<Bucket<C>>,
    requests: Option<Bucket<C>>,
}

/// An open connection's place among those of its address; dropping it gives it back.
pub struct Place<C: Clock = MonotonicClock> {
    addresses: Arc<Addresses<C>>,
    key: Key,
}

/// Why an address may not connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the address has as many connections open as it may, {0}")]
    TooManyConnections(u32),
    #[error(transparent)]
    TooFast(Throttled),
}

impl Addresses {
    pub fn new() -> Self {
        Self::with_clock(MonotonicClock)
    }
}

impl Default for Addresses {
    fn default() -> Self {
        Self::new()
    }
}

impl<C: Clock + Clone> Addresses<C> {
    pub fn with_clock(clock: C) -> Self {
        Self { entries: DashMap::with_shard_amount(SHARDS), remembered: AtomicUsize::new(0), clock }
    }

    /// Counts a connection for as long as its place lives. A connection is counted where there is no bound too: a reload
    /// may bring one.
    pub fn connect(self: &Arc<Self>, address: IpAddr, limits: &Limits) -> Result<Place<C>, Refused> {
        let mut known = self.entry(address);
        if let Some(most) = limits.connections.filter(|most| known.connections >= *most) {
            return Err(Refused::TooManyConnections(most));
        }
        if let Some(rate) = limits.connects {
            bucket(&mut known.connects, rate, &self.clock).take().map_err(Refused::TooFast)?;
        }
        known.connections += 1;
        Ok(Place { addresses: self.clone(), key: *known.key() })
    }

    pub fn request(&self, address: IpAddr, limits: &Limits) -> Result<(), Throttled> {
        let Some(rate) = limits.requests else { return Ok(()) };
        bucket(&mut self.entry(address).requests, rate, &self.clock).take()
    }

    /// Forgets the addresses that have no connection and full buckets, which nobody can tell from unknown ones. To be
    /// called every few seconds.
    pub fn sweep(&self) {
        self.entries.retain(|key, known| {
            let is_needed = known.is_needed();
            if !is_needed && *key != Key::Others {
                self.remembered.fetch_sub(1, Ordering::Relaxed);
            }
            is_needed
        });
    }

    /// How many addresses are remembered.
    pub fn len(&self) -> usize {
        self.remembered.load(Ordering::Relaxed)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What is known of an address, or of all those for whom there is no room. Its shard is locked meanwhile.
    fn entry(&self, address: IpAddr) -> RefMut<'_, Key, Known<C>> {
        match self.entries.entry(Key::of(address)) {
            Entry::Occupied(known) => return known.into_ref(),
            Entry::Vacant(new) if self.has_room() => return new.insert(Known::default()),
            // Let go before the others are locked, who may be in the same shard.
            Entry::Vacant(new) => drop(new),
        }
        self.entries.entry(Key::Others).or_default()
    }

    /// Takes room for one more, if there is any.
    fn has_room(&self) -> bool {
        let more = |remembered| (remembered < MOST).then_some(remembered + 1);
        self.remembered.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }
}

/// The bucket of this rate: another one starts full.
fn bucket<'a, C: Clock + Clone>(kept: &'a mut Option<Bucket<C>>, rate: Rate, clock: &C) -> &'a Bucket<C> {
    if kept.as_ref().is_some_and(|bucket| bucket.rate() != rate) {
        *kept = None;
    }
    kept.get_or_insert_with(|| Bucket::with_clock(rate, clock.clone()))
}

impl Key {
    fn of(address: IpAddr) -> Key {
        match address.to_canonical() {
            IpAddr::V4(address) => Key::V4(address.to_bits()),
            IpAddr::V6(address) => Key::V6((address.to_bits() >> 64) as u64),
        }
    }
}

impl<C: Clock> Known<C> {
    /// Whether it is more than a new one would be. Full buckets go while that is looked into.
    fn is_needed(&mut self) -> bool {
        let is_wanting = |bucket: &mut Option<Bucket<C>>| {
            bucket.take_if(|bucket| bucket.drain_if_full());
            bucket.is_some()
        };
        self.connections > 0 || is_wanting(&mut self.connects) || is_wanting(&mut self.requests)
    }
}

impl<C: Clock> Default for Known<C> {
    fn default() -> Self {
        Self { connections: 0, connects: None, requests: None }
    }
}

impl<C: Clock> Drop for Place<C> {
    fn drop(&mut self) {
        // It is there: no sweep takes an entry that has connections.
        if let Some(mut known) = self.addresses.entries.get_mut(&self.key) {
            known.connections -= 1;
        }
    }
}

#[cfg(test)]
#[path = "addresses_tests.rs"]
mod tests;
