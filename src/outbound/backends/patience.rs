//! How long an answer is waited for.

use std::pin::Pin;
use std::time::Duration;

use super::Error;
use crate::model::body::Progress;
use crate::model::clock::Tick;

/// How long an answer's head is waited for: from the beginning, or from the last piece of a request's body.
#[derive(Clone, Copy)]
pub struct Patience<'a> {
    timeout: Duration,
    pub progress: Option<&'a Progress>,
    began: Tick,
}

impl<'a> Patience<'a> {
    /// Beginning now.
    pub fn new(timeout: Duration, progress: Option<&'a Progress>) -> Self {
        Self { timeout, progress, began: Tick::now() }
    }

    fn left(&self) -> Duration {
        let waited = Tick::now().since(self.began);
        let quiet = self.progress.and_then(Progress::quiet).map_or(waited, |quiet| quiet.min(waited));
        self.timeout.saturating_sub(quiet)
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
