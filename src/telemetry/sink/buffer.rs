//! What waits to be written: lines, one behind the other, in one piece of memory that is swapped for an empty one.
//!
//! A line costs a lock and a copy. The writer is woken only where it waits for the first line, or gathers while the
//! buffer runs full: at a high rate most lines wake nobody.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::runtime::{Handle, RuntimeFlavor};

use super::{Counts, WhenFull};

/// Between two writes, unless somebody is in a hurry: 50 a second are few for the kernel, and a log that is 20 ms old is
/// young for a reader.
pub const GATHERING: Duration = Duration::from_millis(20);

/// So much is written at once even if it has gathered sooner: what stays in a processor's cache costs the calls around it least.
const ENOUGH: usize = 64 * 1024;

/// What the memory shrinks back to after a storm.
const KEPT: usize = 1 << 20;

pub(super) struct Buffer {
    size: usize,
    when_full: WhenFull,
    gathering: Duration,
    counts: Arc<Counts>,
    state: Mutex<State>,
    /// Wakes the writer.
    work: Condvar,
    /// Wakes those who wait for room.
    room: Condvar,
    /// Wakes those who wait for the end.
    end: Condvar,
    /// Whoever closed it waits no longer. For the writer, apart from `state`, which it does not hold while it waits.
    is_abandoned: AtomicBool,
}

struct State {
    waiting: Vec<u8>,
    lines: u64,
    /// What the writer took and has not done with.
    taken: usize,
    taken_lines: u64,
    /// With more than so many bytes waiting the writer must be woken.
    wake_at: usize,
    must_reopen: bool,
    /// Nobody waits for room any more: what does not fit is dropped.
    is_released: bool,
    is_closed: bool,
    has_ended: bool,
}

/// The writer is at work, and looks by itself when it is done.
const AWAKE: usize = usize::MAX;

/// What the writer is to do next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// Lines were put into its chunk.
    Write,
    Reopen,
    /// Everything is written, and nothing will come.
    End,
}

/// Does what may take long. The runtime has others do meanwhile what this thread would have done next: signals and health
/// are looked after even where each call waits for its log.
fn without_others<T>(wait: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(wait),
        _ => wait(),
    }
}

impl Buffer {
    pub(super) fn new(size: usize, when_full: WhenFull, gathering: Duration, counts: Arc<Counts>) -> Self {
        let state = State {
            waiting: Vec::new(),
            lines: 0,
            taken: 0,
            taken_lines: 0,
            wake_at: AWAKE,
            must_reopen: false,
            is_released: false,
            is_closed: false,
            has_ended: false,
        };
        Self {
            size,
            when_full,
            gathering,
            counts,
            state: Mutex::new(state),
            work: Condvar::new(),
            room: Condvar::new(),
            end: Condvar::new(),
            is_abandoned: AtomicBool::new(false),
        }
    }

    // Whoever has lines

    /// Adds a line and its end; false if it cannot be taken. `waits` is called before the first wait for room.
    #[inline]
    pub(super) fn put(&self, line: &[u8], waits: impl FnOnce()) -> bool {
        let length = line.len() + 1;
        let mut state = self.state.lock();
        if state.waiting.len() + state.taken + length > self.size {
            // A line longer than the whole buffer would wait for ever.
            if self.when_full == WhenFull::Drop || length > self.size {
                return false;
            }
            drop(state);
            waits();
            state = match without_others(|| self.wait_for_room(length)) {
                Some(state) => state,
                None => return false,
            };
        }
        if state.is_closed {
            return false;
        }
        state.waiting.reserve(length);
        state.waiting.extend_from_slice(line);
        state.waiting.push(b'\n');
        state.lines += 1;
        let must_wake = state.waiting.len() > state.wake_at;
        if must_wake {
            state.wake_at = AWAKE;
        }
        drop(state);
        if must_wake {
            self.work.notify_one();
        }
        true
    }

    fn wait_for_room(&self, length: usize) -> Option<MutexGuard<'_, State>> {
        let mut state = self.state.lock();
        while state.waiting.len() + state.taken + length > self.size {
            if state.is_closed || state.is_released {
                return None;
            }
            self.room.wait(&mut state);
        }
        Some(state)
    }

    /// From now on nobody waits for room.
    pub(super) fn release(&self) {
        self.state.lock().is_released = true;
        self.room.notify_all();
    }

    pub(super) fn reopen(&self) {
        self.state.lock().must_reopen = true;
        self.work.notify_one();
    }

    /// Takes no more lines. Those who wait for room are let go.
    pub(super) fn close(&self) {
        self.state.lock().is_closed = true;
        self.work.notify_one();
        self.room.notify_all();
    }

    /// Is everything written by then?
    pub(super) fn wait_for_end(&self, until: Instant) -> bool {
        let mut state = self.state.lock();
        while !state.has_ended {
            if self.end.wait_until(&mut state, until).timed_out() {
                return state.has_ended;
            }
        }
        true
    }

    /// What is not written now has failed, whatever its writer still does; how many lines that are.
    pub(super) fn abandon(&self) -> u64 {
        let mut state = self.state.lock();
        if self.is_abandoned.swap(true, Relaxed) || state.has_ended {
            return 0;
        }
        let lines = state.lines + state.taken_lines;
        self.counts.failed.increment(lines);
        (state.waiting, state.lines) = (Vec::new(), 0);
        self.work.notify_one();
        lines
    }

    // The writer

    /// Waits for something to do. `chunk` is empty, and has been written at `last`.
    pub(super) fn take(&self, chunk: &mut Vec<u8>, last: Option<Instant>) -> Work {
        let mut state = self.state.lock();
        loop {
            state.wake_at = AWAKE;
            if self.is_abandoned() {
                return Work::End;
            }
            if std::mem::take(&mut state.must_reopen) {
                return Work::Reopen;
            }
            if state.waiting.is_empty() {
                if state.is_closed {
                    return Work::End;
                }
                state.wake_at = 0;
                self.work.wait(&mut state);
                continue;
            }
            let until = last.map(|last| last + self.gathering).filter(|until| Instant::now() < *until);
            let enough = ENOUGH.min(self.size / 2);
            let Some(until) = until.filter(|_| !state.is_closed && state.waiting.len() <= enough) else { break };
            state.wake_at = enough;
            self.work.wait_until(&mut state, until);
        }
        if chunk.capacity() > KEPT && state.waiting.len() < KEPT {
            *chunk = Vec::new();
        }
        std::mem::swap(&mut state.waiting, chunk);
        (state.taken, state.taken_lines) = (chunk.len(), std::mem::take(&mut state.lines));
        Work::Write
    }

    /// So many bytes of the chunk are done with, in so many lines that were written or failed; false if nobody wants to
    /// know, and the rest need not be tried.
    pub(super) fn note(&self, bytes: usize, written: u64, failed: u64) -> bool {
        let mut state = self.state.lock();
        if self.is_abandoned() {
            return false;
        }
        state.taken -= bytes;
        state.taken_lines -= (written + failed).min(state.taken_lines);
        self.counts.written.increment(written);
        self.counts.failed.increment(failed);
        drop(state);
        if bytes > 0 {
            self.room.notify_all();
        }
        true
    }

    /// Waits, because the destination is away; less where somebody waits for the end.
    pub(super) fn pause(&self, time: Duration) {
        let mut state = self.state.lock();
        let time = if state.is_closed { time.min(5 * GATHERING) } else { time };
        if !self.is_abandoned() {
            self.work.wait_for(&mut state, time);
        }
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.is_abandoned.load(Relaxed)
    }

    /// The writer's last act.
    pub(super) fn end(&self) {
        let mut state = self.state.lock();
        state.has_ended = true;
        state.is_closed = true;
        drop(state);
        self.end.notify_all();
        self.room.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn put(buffer: &Buffer, line: &[u8]) -> bool {
        buffer.put(line, || {})
    }

    fn buffer(size: usize, when_full: WhenFull) -> Arc<Buffer> {
        Arc::new(Buffer::new(size, when_full, GATHERING, Arc::default()))
    }

    fn take(buffer: &Buffer) -> String {
        let mut chunk = Vec::new();
        assert_eq!(buffer.take(&mut chunk, None), Work::Write);
        String::from_utf8(chunk).unwrap()
    }

    #[test]
    fn lines_come_out_as_they_went_in() {
        let buffer = buffer(100, WhenFull::Drop);
        assert!(put(&buffer, b"one") && put(&buffer, b"") && put(&buffer, b"three"));
        assert_eq!(take(&buffer), "one\n\nthree\n");
    }

    #[test]
    fn what_is_being_written_takes_room_until_it_is_done_with() {
        let buffer = buffer(8, WhenFull::Drop);
        assert!(put(&buffer, b"123") && put(&buffer, b"456"));
        assert!(!put(&buffer, b""));
        assert_eq!(take(&buffer), "123\n456\n");
        assert!(!put(&buffer, b"789"));
        assert!(buffer.note(4, 1, 0));
        assert!(put(&buffer, b"789"));
        assert!(!put(&buffer, b""));
        assert!(buffer.note(4, 0, 1));
        assert_eq!(take(&buffer), "789\n");
        assert_eq!((buffer.counts.written.get(), buffer.counts.failed.get()), (1, 1));
    }

    #[test]
    fn who_blocks_goes_on_when_there_is_room() {
        let buffer = buffer(4, WhenFull::Block);
        assert!(put(&buffer, b"123"));
        let waiting = thread::spawn({
            let buffer = buffer.clone();
            move || put(&buffer, b"456")
        });
        assert_eq!(take(&buffer), "123\n");
        assert!(!waiting.is_finished());
        buffer.note(4, 1, 0);
        assert!(waiting.join().unwrap());
        assert_eq!(take(&buffer), "456\n");
    }

    #[test]
    fn who_blocks_goes_on_when_it_is_closed() {
        let buffer = buffer(4, WhenFull::Block);
        assert!(put(&buffer, b"123"));
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let buffer = buffer.clone();
                thread::spawn(move || put(&buffer, b"456"))
            })
            .collect();
        buffer.close();
        assert!(waiting.into_iter().all(|waiting| !waiting.join().unwrap()));
        assert_eq!(take(&buffer), "123\n");
    }

    #[test]
    fn a_line_longer_than_the_buffer_is_not_waited_for() {
        for when_full in [WhenFull::Drop, WhenFull::Block] {
            let buffer = buffer(4, when_full);
            assert!(!put(&buffer, b"1234"));
            assert!(put(&buffer, b"123"));
        }
    }

    #[test]
    fn it_ends_when_it_is_closed_and_empty() {
        let buffer = buffer(100, WhenFull::Drop);
        assert!(put(&buffer, b"last"));
        buffer.close();
        assert!(!put(&buffer, b"too late"));
        assert_eq!(take(&buffer), "last\n");
        assert!(buffer.note(5, 1, 0));
        assert_eq!(buffer.take(&mut Vec::new(), None), Work::End);
        assert!(!buffer.wait_for_end(Instant::now()));
        buffer.end();
        assert!(buffer.wait_for_end(Instant::now()));
        assert_eq!(buffer.abandon(), 0);
    }

    #[test]
    fn what_is_abandoned_has_failed_once() {
        let buffer = buffer(100, WhenFull::Drop);
        assert!(put(&buffer, b"1") && put(&buffer, b"2"));
        assert_eq!(take(&buffer), "1\n2\n");
        assert!(put(&buffer, b"3"));
        assert!(buffer.note(2, 1, 0));
        buffer.close();
        assert_eq!((buffer.abandon(), buffer.abandon()), (2, 0));
        assert!(!buffer.note(2, 1, 0));
        assert_eq!((buffer.counts.written.get(), buffer.counts.failed.get()), (1, 2));
        assert_eq!(buffer.take(&mut Vec::new(), None), Work::End);
    }

    #[test]
    fn reopening_comes_before_what_was_written_meanwhile() {
        let buffer = buffer(100, WhenFull::Drop);
        buffer.reopen();
        assert!(put(&buffer, b"new"));
        assert_eq!(buffer.take(&mut Vec::new(), None), Work::Reopen);
        assert_eq!(take(&buffer), "new\n");
    }

    #[test]
    fn the_writer_is_woken_by_the_first_line_and_by_a_buffer_that_runs_full() {
        let buffer = buffer(100, WhenFull::Drop);
        let writer = thread::spawn({
            let buffer = buffer.clone();
            move || {
                let mut chunk = Vec::new();
                assert_eq!(buffer.take(&mut chunk, None), Work::Write);
                buffer.note(chunk.len(), 1, 0);
                chunk.clear();
                // It gathers for an hour, were it not for what comes.
                let work = buffer.take(&mut chunk, Some(Instant::now() + Duration::from_secs(3600)));
                (work, chunk.len())
            }
        });
        assert!(put(&buffer, b"first"));
        while buffer.counts.written.get() == 0 {
            thread::yield_now();
        }
        for _ in 0..6 {
            assert!(put(&buffer, b"123456789"));
        }
        assert_eq!(writer.join().unwrap(), (Work::Write, 60));
    }
}
