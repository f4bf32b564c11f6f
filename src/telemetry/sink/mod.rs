//! Where the lines of an access log go: a bounded buffer, and one thread that empties it.
//!
//! Whoever writes a line copies it into the buffer (`buffer.rs`) and goes on; the sink's thread (`writer.rs`) takes all
//! that came together and hands it to the destination: a pipe or terminal (`stream.rs`), a file that is rotated
//! (`file.rs`, `rotation.rs`), or syslog (`syslog.rs`, `frames.rs`). A destination that hangs holds up that thread and
//! nobody else, except who asked to wait (`WhenFull::Block`). What is lost is counted, and said by `news.rs`.

mod buffer;
mod destination;
mod file;
mod frames;
mod news;
mod rotation;
mod stream;
mod syslog;
mod writer;

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::telemetry::metrics::Count;
use buffer::Buffer;
pub use buffer::GATHERING;
pub use destination::{Destination, Rotation, Syslog};
use news::News;
use writer::{Target, Writer};

/// How long the last news of a closed sink may take, where even they are not read.
const LAST_WORDS: Duration = Duration::from_millis(100);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Settings {
    pub destination: Destination,
    pub when_full: WhenFull,
    /// How many bytes may wait, those that are being written among them.
    pub buffer: usize,
    /// How long lines are gathered between two writes.
    pub gathering: Duration,
}

/// What becomes of a line that the buffer has no room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WhenFull {
    /// It is left out.
    Drop,
    /// Its thread waits.
    Block,
}

/// What became of lines.
#[derive(Debug, Default)]
pub struct Counts {
    pub written: Count,
    /// Never tried: the buffer was full, or the sink closed.
    pub dropped: Count,
    /// Tried, or still waiting at the end, and not written.
    pub failed: Count,
}

/// The way to one destination. Two with one file would write over each other's rotation: the caller sees to that.
pub struct Sink {
    pub counts: Arc<Counts>,
    buffer: Arc<Buffer>,
    news: Arc<News>,
    destination: Destination,
}

impl Sink {
    /// Starts the sink's thread. A file is opened, or made, before this returns; a syslog that is away is not missed yet.
    pub fn open(settings: Settings) -> io::Result<Arc<Sink>> {
        Self::open_with(settings, Arc::default())
    }

    /// The same, where lines of this destination have been counted before.
    pub fn open_with(settings: Settings, counts: Arc<Counts>) -> io::Result<Arc<Sink>> {
        let Settings { destination, when_full, buffer, gathering } = settings;
        let target = Target::open(&destination)?;
        let buffer = Arc::new(Buffer::new(buffer, when_full, gathering, counts.clone()));
        let news = Arc::new(News::new(destination.to_string(), counts.clone()));
        let writer = Writer { buffer: buffer.clone(), news: news.clone(), target };
        // Nobody joins it: it may hang in the kernel for as long as it likes. Its end is told by the buffer.
        thread::Builder::new().name("access-log".to_owned()).spawn(move || writer.run())?;
        Ok(Arc::new(Sink { counts, buffer, news, destination }))
    }

    /// Writes one line, with or without its end; there must be no other end of a line in it. Never waits for the
    /// destination, unless the buffer is full and the settings say to.
    pub fn write(&self, line: &[u8]) {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        if !self.buffer.put(line, || self.news.tell_of_waiting()) {
            self.counts.dropped.increment(1);
            self.news.tell();
        }
    }

    /// Has nobody wait for it any more: the gateway stops, and what does not fit is dropped from now on.
    pub fn release(&self) {
        self.buffer.release();
    }

    /// Opens the file again, since somebody moved it. What is written from now on is not in the old one.
    pub fn reopen(&self) {
        self.buffer.reopen();
    }

    /// Lets out what is buffered, for so long at the most; the rest has failed then, even where it is half written.
    /// Later lines are dropped. A second call finds nothing to do.
    pub fn close(&self, patience: Duration) {
        let end = Instant::now() + patience;
        self.buffer.close();
        if !self.buffer.wait_for_end(end) && self.buffer.abandon() > 0 {
            self.news.tell();
        }
        self.news.close(Instant::now() + LAST_WORDS);
    }

    /// In the words of `access_log.destination`, a file by its whole path.
    pub fn describe(&self) -> String {
        self.destination.to_string()
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.buffer.close();
    }
}

#[cfg(test)]
mod tests;
