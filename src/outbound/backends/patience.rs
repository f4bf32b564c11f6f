//! How long an answer is waited for.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use super::Error;
use crate::model::body::Progress;

/// How long an answer's head is waited for: from the beginning, or from the last piece of a request's body.
#[derive(Clone, Copy)]
pub struct Patience<'a> {
    timeout: Duration,
    pub progress: Option<&'a Progress>,
    began: Instant,
}

impl<'a> Patience<'a> {
    /// Beginning now.
    pub fn new(timeout: Duration, progress: Option<&'a Progress>) -> Self {
        Self { timeout, progress, began: Instant::now() }
    }

    fn left(&self) -> Duration {
        let waited = self.began.elapsed();
        let quiet = self.progress.and_then(Progress::quiet).map_or(waited, |quiet| quiet.min(waited));
        self.timeout.saturating_sub(quiet)
    }

    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Takes its future pinned: handed over by value, it would take its place twice.
    pub async fn bound<T>(&self, mut outcome: Pin<&mut impl Future<Output = Result<T, Error>>>) -> Result<T, Error> {
        let mut left = self.left();
        loop {
            if let Ok(outcome) = tokio::time::timeout(left, outcome.as_mut()).await {
                return outcome;
            }
            left = self.left();
            if left.is_zero() {
                return Err(Error::Timeout(self.timeout));
            }
        }
    }
}

/// A timer that outlives the calls it is for. Most calls end long before their time, so nothing is set or taken back for
/// them: a timer that rings for a call of before is set anew for the one of now.
#[derive(Default)]
pub struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// A call begins.
    pub fn set(&mut self, patience: &Patience<'_>) {
        let Some(end) = patience.began.checked_add(patience.timeout) else { return };
        match &mut self.0 {
            Some(sleep) if sleep.deadline() <= end => {}
            Some(sleep) => sleep.as_mut().reset(end),
            None => self.0 = Some(Box::pin(tokio::time::sleep_until(end))),
        }
    }

    /// Waits until nothing is left of the patience.
    pub fn poll(&mut self, cx: &mut Context<'_>, patience: &Patience<'_>) -> Poll<()> {
        // Without one, the call may take longer than the clock can say.
        let Some(sleep) = &mut self.0 else { return Poll::Pending };
        loop {
            ready!(sleep.as_mut().poll(cx));
            let left = patience.left();
            if left.is_zero() {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(Instant::now() + left.min(LONGEST_SLEEP));
        }
    }
}

/// However long a call may take, its timer is looked at once a day.
const LONGEST_SLEEP: Duration = Duration::from_secs(86_400);
