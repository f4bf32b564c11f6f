//! What happens, told while it happens to whoever watches.
//!
//! The engine asks `is_watched` before it makes an event, so that a gateway nobody looks at pays one load. A watcher has a
//! queue of its own, with bounds; what does not fit is counted, and no call ever waits for a reader.

mod event;
mod filter;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

pub use event::{Direction, Event, Kind};
pub use filter::Filter;

/// More than any team has operators.
const WATCHERS: usize = 16;

/// What waits for a watcher to read it.
const LINES: usize = 1024;
const BYTES: usize = 1024 * 1024;

/// Lines of a second for one watcher: more than anyone reads, and little beside the work that they tell of.
const LINES_PER_SECOND: usize = 500;

/// After so much silence a line is written that says nothing: proxies close what is quiet for long.
const SILENCE: Duration = Duration::from_secs(15);

/// How long a count of dropped events may grow before it is told.
const TELL_DROPPED: Duration = Duration::from_secs(1);

/// All that watch. A clone is the same.
#[derive(Clone, Default)]
pub struct Tail(Arc<All>);

#[derive(Default)]
struct All {
    count: AtomicUsize,
    watchers: RwLock<Vec<Arc<Watching>>>,
}

/// Somebody that watches, until it is dropped.
pub struct Watcher {
    tail: Tail,
    own: Arc<Watching>,
    /// When it was last given something.
    last: Instant,
}

struct Watching {
    filter: Filter,
    queue: Mutex<Queue>,
    more: Notify,
}

/// Whole lines, and how many were left out behind them.
struct Queue {
    lines: VecDeque<Bytes>,
    bytes: usize,
    dropped: u64,
    dropped_since: Instant,
    /// The second that is running, and its lines.
    second: Instant,
    lines_of_second: usize,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{WATCHERS} tails are open already; close one of them")]
pub struct TooMany;

impl Tail {
    /// Whether it is worth making an event of what happens.
    pub fn is_watched(&self) -> bool {
        self.watchers() > 0
    }

    pub fn watchers(&self) -> usize {
        self.0.count.load(Relaxed)
    }

    /// Tells everybody who wants to know of such.
    pub fn tell(&self, event: &Event<'_>) {
        let (mut with_payload, mut without) = (None, None);
        for watching in self.0.watchers.read().iter().filter(|watching| watching.filter.wants(event)) {
            let (line, shown) = match watching.filter.payload {
                true => (&mut with_payload, *event),
                false => (&mut without, Event { payload: None, ..*event }),
            };
            watching.offer(Instant::now(), || line.get_or_insert_with(|| shown.line()).clone());
        }
    }

    /// Watches from now on.
    pub fn watch(&self, filter: Filter) -> Result<Watcher, TooMany> {
        let now = Instant::now();
        let own = Arc::new(Watching { filter, queue: Mutex::new(Queue::new(now)), more: Notify::new() });
        let mut watchers = self.0.watchers.write();
        if watchers.len() >= WATCHERS {
            return Err(TooMany);
        }
        watchers.push(own.clone());
        self.0.count.store(watchers.len(), Relaxed);
        drop(watchers);
        Ok(Watcher { tail: self.clone(), own, last: now })
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let mut watchers = self.tail.0.watchers.write();
        watchers.retain(|watching| !Arc::ptr_eq(watching, &self.own));
        self.tail.0.count.store(watchers.len(), Relaxed);
    }
}

impl Watcher {
    /// The next lines, as soon as there is one, or an empty line after a silence. Nothing is lost when this is not waited
    /// for to its end.
    pub async fn next(&mut self) -> Bytes {
        loop {
            let until = match self.own.queue.lock().take(Instant::now()) {
                Taken::Lines(lines) => {
                    self.last = Instant::now();
                    return lines;
                }
                Taken::NothingUntil(until) => until,
            };
            let silent = self.last + SILENCE;
            let until = until.map_or(silent, |until| until.min(silent));
            let is_late = timeout_at(until, self.own.more.notified()).await.is_err();
            if is_late && until == silent {
                self.last = silent;
                return Bytes::from_static(b"\n");
            }
        }
    }
}

impl Watching {
    /// Queues a line, or counts it where there is no room. It is made only if it may be queued.
    fn offer(&self, now: Instant, line: impl FnOnce() -> Bytes) {
        if self.queue.lock().offer(now, line) {
            self.more.notify_one();
        }
    }
}

enum Taken {
    Lines(Bytes),
    /// But then there is, if there is a time.
    NothingUntil(Option<Instant>),
}

impl Queue {
    fn new(now: Instant) -> Self {
        let mut queue =
            Self { lines: VecDeque::new(), bytes: 0, dropped: 0, dropped_since: now, second: now, lines_of_second: 0 };
        queue.push(Bytes::from_static(b"{\"note\":\"watching\"}\n"));
        queue
    }

    /// Whether its reader should look.
    fn offer(&mut self, now: Instant, line: impl FnOnce() -> Bytes) -> bool {
        if now.duration_since(self.second) >= Duration::from_secs(1) {
            (self.second, self.lines_of_second) = (now, 0);
        }
        let is_wanted = self.lines_of_second < LINES_PER_SECOND && self.lines.len() < LINES;
        // One that turns out to be too long has taken its time as well.
        self.lines_of_second += usize::from(is_wanted);
        let line = is_wanted.then(line);
        let Some(line) = line.filter(|line| self.bytes + line.len() <= BYTES) else {
            if self.dropped == 0 {
                self.dropped_since = now;
            }
            self.dropped += 1;
            // Once is enough: the reader then knows when to look again.
            return self.dropped == 1;
        };
        self.tell_dropped();
        self.push(line);
        true
    }

    fn push(&mut self, line: Bytes) {
        self.bytes += line.len();
        self.lines.push_back(line);
    }

    /// In the place where they would have been.
    fn tell_dropped(&mut self) {
        if self.dropped > 0 {
            self.push(Bytes::from(format!("{{\"dropped\":{}}}\n", self.dropped)));
            self.dropped = 0;
        }
    }

    fn take(&mut self, now: Instant) -> Taken {
        let due = (self.dropped > 0).then(|| self.dropped_since + TELL_DROPPED);
        if due.is_some_and(|due| due <= now) {
            self.tell_dropped();
        }
        if self.lines.is_empty() {
            return Taken::NothingUntil(due);
        }
        let mut all = BytesMut::with_capacity(self.bytes);
        for line in std::mem::take(&mut self.lines) {
            all.extend_from_slice(&line);
        }
        self.bytes = 0;
        Taken::Lines(all.freeze())
    }
}

#[cfg(test)]
mod tests;
