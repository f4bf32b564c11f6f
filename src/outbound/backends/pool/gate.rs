//! The gate in front of a pool: so many calls at a time, so many more in a queue, and no more.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub(super) struct Gate {
    turns: Arc<Semaphore>,
    waiting: AtomicUsize,
    queue: usize,
    timeout: Option<Duration>,
}

/// A call's turn; dropping it lets in the next. It belongs to the answer's body while that still flows.
#[derive(Debug)]
pub struct Permit {
    _turn: OwnedSemaphorePermit,
}

/// Why a call does not get its turn.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Busy {
    #[error("{0} calls already wait for this backend")]
    QueueFull(usize),
    #[error("no turn within {0:?}")]
    WaitedTooLong(Duration),
}

impl Gate {
    pub fn new(turns: usize, queue: usize, timeout: Option<Duration>) -> Self {
        Self { turns: Arc::new(Semaphore::new(turns)), waiting: AtomicUsize::new(0), queue, timeout }
    }

    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// A turn, if one is free and nobody waits.
    pub fn enter_at_once(&self) -> Option<Permit> {
        // A turn that is given back goes to who waits longest, so none is free while anybody waits.
        Arc::clone(&self.turns).try_acquire_owned().ok().map(|turn| Permit { _turn: turn })
    }

    /// A turn at once if one is free and nobody waits, else in the order of arrival.
    pub async fn enter(&self) -> Result<Permit, Busy> {
        if let Some(turn) = self.enter_at_once() {
            return Ok(turn);
        }
        let _place = self.join()?;
        let turn = Arc::clone(&self.turns).acquire_owned();
        let turn = match self.timeout {
            None => turn.await,
            Some(timeout) => tokio::time::timeout(timeout, turn).await.map_err(|_| Busy::WaitedTooLong(timeout))?,
        };
        Ok(Permit { _turn: turn.expect("the semaphore is never closed") })
    }

    fn join(&self) -> Result<Place<'_>, Busy> {
        let more = |waiting| (waiting < self.queue).then_some(waiting + 1);
        match self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more) {
            Ok(_) => Ok(Place(&self.waiting)),
            Err(waiting) => Err(Busy::QueueFull(waiting)),
        }
    }
}

/// A place in the queue; who leaves it, with or without a turn, makes room.
struct Place<'a>(&'a AtomicUsize);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    use proptest::prelude::*;

    use super::*;

    type Entering<'a> = Pin<Box<dyn Future<Output = Result<Permit, Busy>> + 'a>>;

    /// Lets a call do what it can without waiting.
    fn turn(call: &mut Entering<'_>) -> Poll<Result<Permit, Busy>> {
        call.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    }

    fn permit(call: &mut Entering<'_>) -> Permit {
        match turn(call) {
            Poll::Ready(Ok(permit)) => permit,
            other => panic!("no turn: {other:?}"),
        }
    }

    fn enter<'a>(gate: &'a Gate, calls: &mut Vec<Entering<'a>>) -> Poll<Result<Permit, Busy>> {
        let mut call: Entering<'a> = Box::pin(gate.enter());
        let outcome = turn(&mut call);
        if outcome.is_pending() {
            calls.push(call);
        }
        outcome
    }

    #[test]
    fn who_waits_longest_is_next() {
        let gate = Gate::new(1, 2, None);
        let mut calls = Vec::new();
        let Poll::Ready(Ok(first)) = enter(&gate, &mut calls) else { panic!("no turn") };
        assert!(enter(&gate, &mut calls).is_pending() && enter(&gate, &mut calls).is_pending());
        drop(first);
        assert!(turn(&mut calls[1]).is_pending());
        let second = permit(&mut calls[0]);
        drop(second);
        drop(permit(&mut calls[1]));
        assert_eq!(gate.waiting(), 0);
    }

    #[test]
    fn a_full_queue_refuses() {
        let gate = Gate::new(1, 1, None);
        let mut calls = Vec::new();
        let first = enter(&gate, &mut calls);
        assert!(enter(&gate, &mut calls).is_pending());
        assert!(matches!(enter(&gate, &mut calls), Poll::Ready(Err(Busy::QueueFull(1)))));
        // Who goes away leaves a place.
        calls.clear();
        assert!(enter(&gate, &mut calls).is_pending());
        drop(first);
    }

    #[test]
    fn a_turn_that_nobody_fetched_is_not_lost() {
        let gate = Gate::new(1, 2, None);
        let mut calls = Vec::new();
        let first = enter(&gate, &mut calls);
        assert!(enter(&gate, &mut calls).is_pending() && enter(&gate, &mut calls).is_pending());
        drop(first);
        // The next in line was given the turn and goes away before it takes it.
        drop(calls.remove(0));
        drop(permit(&mut calls[0]));
        assert_eq!(gate.waiting(), 0);
    }

    #[test]
    fn without_a_queue_nobody_waits() {
        let gate = Gate::new(1, 0, None);
        let first = enter(&gate, &mut Vec::new());
        assert!(matches!(enter(&gate, &mut Vec::new()), Poll::Ready(Err(Busy::QueueFull(0)))));
        drop(first);
    }

    #[tokio::test]
    async fn nobody_waits_longer_than_the_timeout() {
        let timeout = Duration::from_millis(1);
        let gate = Gate::new(1, 1, Some(timeout));
        let _first = gate.enter().await.unwrap();
        assert_eq!(gate.enter().await.unwrap_err(), Busy::WaitedTooLong(timeout));
        assert_eq!(gate.waiting(), 0);
    }

    proptest! {
        /// Calls come, go away and end in any order: turns and queue keep their bounds, and none is lost.
        #[test]
        fn turns_and_queue_are_bounded(
            turns in 1usize..4,
            queue in 0usize..4,
            acts in prop::collection::vec((0u8..3, any::<prop::sample::Index>()), 0..60),
        ) {
            let gate = Gate::new(turns, queue, None);
            let (mut inside, mut calls) = (Vec::new(), Vec::new());
            for (act, which) in acts {
                match act {
                    0 => match enter(&gate, &mut calls) {
                        Poll::Ready(Ok(permit)) => inside.push(permit),
                        Poll::Ready(Err(_)) => prop_assert!(inside.len() == turns && calls.len() == queue),
                        Poll::Pending => prop_assert_eq!(inside.len(), turns),
                    },
                    1 if !calls.is_empty() => drop(calls.remove(which.index(calls.len()))),
                    2 if !inside.is_empty() => drop(inside.remove(which.index(inside.len()))),
                    _ => {}
                }
                // In the order of arrival: the first who may not yet go in is the last one asked.
                while let Some(call) = calls.first_mut() {
                    let Poll::Ready(entered) = turn(call) else { break };
                    inside.push(entered.unwrap());
                    drop(calls.remove(0));
                }
                prop_assert!(inside.len() <= turns && calls.len() <= queue);
                prop_assert_eq!(gate.waiting(), calls.len());
                prop_assert!(calls.is_empty() || inside.len() == turns);
            }
        }
    }
}
