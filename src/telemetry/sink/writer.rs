//! The one thread of a sink: it takes what waits, hands it to the destination, and waits where that is away.

use std::io;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::Destination;
use super::buffer::{Buffer, Work};
use super::file::LogFile;
use super::news::News;
use super::stream::{Step, Stream};
use super::syslog::Remote;

pub(super) struct Writer {
    pub(super) buffer: Arc<Buffer>,
    pub(super) news: Arc<News>,
    pub(super) target: Target,
}

pub(super) enum Target {
    Stream(Stream),
    File(Box<LogFile>),
    Syslog(Box<Remote>),
}

impl Target {
    pub(super) fn open(destination: &Destination) -> io::Result<Self> {
        Ok(match destination {
            Destination::Stdout => Target::Stream(Stream::of(io::stdout())?),
            Destination::Stderr => Target::Stream(Stream::of(io::stderr())?),
            Destination::File { path, rotation } => {
                Target::File(Box::new(LogFile::open(path.clone(), *rotation, SystemTime::now())?))
            }
            Destination::Syslog(syslog) => Target::Syslog(Box::new(Remote::new(syslog.clone()))),
        })
    }

    fn write(&mut self, lines: &[u8], is_over: &dyn Fn() -> bool) -> Step {
        match self {
            Target::Stream(stream) => stream.write(lines, usize::MAX, is_over),
            Target::File(file) => file.write(lines, SystemTime::now(), is_over),
            Target::Syslog(remote) => remote.write(lines),
        }
    }

    fn reopen(&mut self) -> io::Result<()> {
        match self {
            Target::Stream(_) => Ok(()),
            Target::File(file) => file.reopen(SystemTime::now()),
            Target::Syslog(remote) => {
                remote.reopen();
                Ok(())
            }
        }
    }
}

/// Says that the writer has ended, even if it ended by a panic.
struct Ending(Arc<Buffer>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Writer {
    pub(super) fn run(mut self) {
        let _ending = Ending(self.buffer.clone());
        let (mut chunk, mut last) = (Vec::new(), None);
        loop {
            match self.buffer.take(&mut chunk, last) {
                Work::Write => {
                    last = Some(Instant::now());
                    self.write(&chunk);
                    chunk.clear();
                }
                Work::Reopen => {
                    if let Err(error) = self.target.reopen() {
                        self.news.note(&error);
                    }
                }
                Work::End => return,
            }
        }
    }

    fn write(&mut self, mut lines: &[u8]) {
        let buffer = &*self.buffer;
        while !lines.is_empty() {
            let step = self.target.write(lines, &|| buffer.is_abandoned());
            lines = &lines[step.taken..];
            if !buffer.note(step.taken, step.written, step.failed) {
                return;
            }
            if let Some(error) = &step.error {
                self.news.note(error);
            }
            if let Some(pause) = step.pause {
                buffer.pause(pause);
            }
        }
    }
}
