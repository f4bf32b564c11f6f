//! What is said aloud of lines that were lost: a warning a second at the most, with how many since the last, and once
//! when it is over.
//!
//! A thread of its own says it, while there is something to say. The one that writes may hang, and who lost a line must
//! not wait for a log that may hang in the same pipe.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::Counts;

/// Between two warnings.
const EVERY: Duration = Duration::from_secs(1);

/// Without new losses for so long it is over, if anything was written meanwhile. Longer than a syslog that is away is
/// left alone, which may seem to be back whenever it is tried.
const QUIET: u32 = 6;

pub(super) struct News {
    destination: String,
    counts: Arc<Counts>,
    is_telling: AtomicBool,
    state: Mutex<State>,
    change: Condvar,
}

#[derive(Default)]
struct State {
    story: Story,
    told_at: Option<Instant>,
    is_told: bool,
    is_closed: bool,
}

/// What was said, and what is to be said.
#[derive(Default)]
struct Story {
    dropped: u64,
    failed: u64,
    /// How many had been written when the last loss was said.
    written: u64,
    reason: Option<String>,
    is_trouble: bool,
    quiet: u32,
}

#[derive(Debug, PartialEq, Eq)]
enum Said {
    Lost { dropped: u64, failed: u64, reason: Option<String> },
    Nothing,
    Recovered,
}

impl News {
    pub(super) fn new(destination: String, counts: Arc<Counts>) -> Self {
        Self {
            destination,
            counts,
            is_telling: AtomicBool::new(false),
            state: Mutex::default(),
            change: Condvar::new(),
        }
    }

    /// Lines were lost, as the counts say. Costs next to nothing while that is being told.
    #[inline]
    pub(super) fn tell(self: &Arc<Self>) {
        if !self.is_telling.load(SeqCst) {
            self.start();
        }
    }

    /// Calls wait until there is room.
    pub(super) fn tell_of_waiting(self: &Arc<Self>) {
        self.note(&io::Error::other("it does not keep up, and calls wait for it"));
    }

    /// Something is wrong with the destination, whether or not lines were lost yet.
    pub(super) fn note(self: &Arc<Self>, error: &io::Error) {
        self.state.lock().story.reason = Some(error.to_string());
        self.tell();
    }

    #[cold]
    fn start(self: &Arc<Self>) {
        {
            let mut state = self.state.lock();
            // After the end nobody wants to know.
            if state.is_closed && state.is_told || self.is_telling.swap(true, SeqCst) {
                return;
            }
            state.is_told = false;
        }
        let news = self.clone();
        let telling = thread::Builder::new().name("access-log-news".to_owned()).spawn(move || news.run());
        if telling.is_err() {
            // The next loss tries again.
            self.is_telling.store(false, SeqCst);
        }
    }

    fn run(&self) {
        let mut state = self.state.lock();
        loop {
            while let Some(until) = state.told_at.map(|told_at| told_at + EVERY) {
                if state.is_closed || self.change.wait_until(&mut state, until).timed_out() {
                    break;
                }
            }
            let said = state.story.next(&self.counts);
            state.told_at = Some(Instant::now());
            let is_last = state.is_closed;
            drop(state);
            self.say(&said);
            state = self.state.lock();
            if said == Said::Recovered || is_last {
                self.is_telling.store(false, SeqCst);
                // Who lost a line a moment ago may have thought that this goes on.
                if is_last || !state.story.has_news(&self.counts) || self.is_telling.swap(true, SeqCst) {
                    break;
                }
            }
        }
        state.is_told = true;
        drop(state);
        self.change.notify_all();
    }

    fn say(&self, said: &Said) {
        let destination = &*self.destination;
        match said {
            Said::Lost { dropped: 0, failed: 0, reason } => {
                let error = reason.as_deref().unwrap_or("unknown");
                tracing::warn!(destination, error, "access log `{destination}` is in trouble: {error}");
            }
            Said::Lost { dropped, failed, reason: Some(error) } => tracing::warn!(
                destination,
                dropped,
                failed,
                error,
                "access log `{destination}` lost lines, {dropped} for want of room and {failed} not written: {error}"
            ),
            Said::Lost { dropped, failed, reason: None } => tracing::warn!(
                destination,
                dropped,
                failed,
                "access log `{destination}` lost lines, {dropped} for want of room and {failed} not written"
            ),
            Said::Recovered => tracing::info!(destination, "access log `{destination}` is written again"),
            Said::Nothing => {}
        }
    }

    /// Has what is left said at once, and waits for that so long at most.
    pub(super) fn close(&self, until: Instant) {
        let mut state = self.state.lock();
        state.is_closed = true;
        self.change.notify_all();
        while self.is_telling.load(SeqCst) {
            if self.change.wait_until(&mut state, until).timed_out() {
                break;
            }
        }
        state.is_told = true;
    }
}

impl Story {
    /// Once a second.
    fn next(&mut self, counts: &Counts) -> Said {
        if self.has_news(counts) {
            let (dropped, failed, written) = (counts.dropped.get(), counts.failed.get(), counts.written.get());
            let said = Said::Lost {
                dropped: dropped - self.dropped,
                failed: failed - self.failed,
                reason: self.reason.take(),
            };
            *self = Story { dropped, failed, written, is_trouble: true, ..Story::default() };
            return said;
        }
        self.quiet += 1;
        if self.is_trouble && self.quiet >= QUIET && counts.written.get() > self.written {
            self.is_trouble = false;
            return Said::Recovered;
        }
        Said::Nothing
    }

    fn has_news(&self, counts: &Counts) -> bool {
        counts.dropped.get() > self.dropped || counts.failed.get() > self.failed || self.reason.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(dropped: u64, failed: u64, reason: Option<&str>) -> Said {
        Said::Lost { dropped, failed, reason: reason.map(str::to_owned) }
    }

    #[test]
    fn each_loss_is_said_once_and_the_recovery_too() {
        let (counts, mut story) = (Counts::default(), Story::default());
        counts.dropped.increment(3);
        assert_eq!(story.next(&counts), lost(3, 0, None));
        counts.dropped.increment(4);
        counts.failed.increment(1);
        story.reason = Some("disk full".to_owned());
        assert_eq!(story.next(&counts), lost(4, 1, Some("disk full")));
        // It is quiet, but nothing was written either.
        for _ in 0..2 * QUIET {
            assert_eq!(story.next(&counts), Said::Nothing);
        }
        counts.written.increment(1);
        assert_eq!(story.next(&counts), Said::Recovered);
        assert_eq!(story.next(&counts), Said::Nothing);
    }

    #[test]
    fn losses_now_and_then_are_one_storm() {
        let (counts, mut story) = (Counts::default(), Story::default());
        for _ in 0..3 {
            counts.dropped.increment(1);
            assert_eq!(story.next(&counts), lost(1, 0, None));
            counts.written.increment(1);
            for _ in 1..QUIET {
                assert_eq!(story.next(&counts), Said::Nothing);
            }
        }
        assert_eq!(story.next(&counts), Said::Recovered);
    }

    #[test]
    fn a_destination_that_is_away_is_said_before_anything_is_lost() {
        let (counts, mut story) = (Counts::default(), Story { reason: Some("refused".to_owned()), ..Story::default() });
        assert_eq!(story.next(&counts), lost(0, 0, Some("refused")));
    }

    #[test]
    fn what_is_left_is_said_at_the_end() {
        let counts = Arc::new(Counts::default());
        let news = Arc::new(News::new("x".to_owned(), counts.clone()));
        for _ in 0..3 {
            counts.dropped.increment(1);
            news.tell();
        }
        news.close(Instant::now() + Duration::from_secs(60));
        assert_eq!(news.state.lock().story.dropped, 3);
        // What comes later is counted and no more.
        counts.dropped.increment(1);
        news.tell();
        assert!(!news.is_telling.load(SeqCst));
    }
}
