//! What lines are appended to and that takes bytes as they come: a file, a pipe, a terminal.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::thread;
use std::time::Duration;

/// Linux's `PIPE_BUF`: so much goes into a pipe in one piece, whoever else writes to it. Our own log does, where an
/// operator has stdout and stderr in one.
const SHARED_PIPE: usize = 4096;

/// Half of what Linux's pipes hold: a pipe of our own gets as much at once, and its reader has the other half meanwhile.
const OWN_PIPE: usize = 32 * 1024;

/// After so much who waits for room hears of it.
const PIECE: usize = 256 * 1024;

/// Before a pipe that somebody made non-blocking is tried again.
const BREATH: Duration = Duration::from_millis(5);

/// How far a destination came with the lines it was given.
#[derive(Debug, Default)]
pub(super) struct Step {
    /// So many bytes are done with, all of them whole lines.
    pub taken: usize,
    pub written: u64,
    pub failed: u64,
    /// What is to be told.
    pub error: Option<io::Error>,
    /// Nothing can be done for so long.
    pub pause: Option<Duration>,
}

pub(super) struct Stream {
    file: File,
    piece: usize,
    /// The last line was not written to its end.
    is_torn: bool,
}

impl Stream {
    /// A copy of stdout or stderr, so that a stalled one is not locked for the rest of the process.
    pub(super) fn of(output: impl AsFd) -> io::Result<Self> {
        let mut stream = Self::new(File::from(output.as_fd().try_clone_to_owned()?), false)?;
        if stream.piece == SHARED_PIPE && !is_shared() {
            stream.piece = OWN_PIPE;
        }
        Ok(stream)
    }

    pub(super) fn new(file: File, is_torn: bool) -> io::Result<Self> {
        let is_pipe = file.metadata()?.file_type().is_fifo();
        Ok(Self { file, piece: if is_pipe { SHARED_PIPE } else { PIECE }, is_torn })
    }

    /// Writes some of the lines, as many as `most` bytes hold, but one in any case. What cannot be written has failed.
    pub(super) fn write(&mut self, lines: &[u8], most: usize, is_over: &dyn Fn() -> bool) -> Step {
        let piece = &lines[..whole_lines(lines, most.min(self.piece))];
        if self.is_torn {
            match write_all(&self.file, b"\n", is_over) {
                (_, None) => self.is_torn = false,
                (_, error) => return Step { taken: piece.len(), failed: count(piece), error, ..Step::default() },
            }
        }
        let (written, error) = write_all(&self.file, piece, is_over);
        let whole = last_end(&piece[..written]);
        self.is_torn = written > whole;
        Step {
            taken: piece.len(),
            written: count(&piece[..whole]),
            failed: count(&piece[whole..]),
            error,
            ..Step::default()
        }
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }
}

/// Whether stdout and stderr are one pipe, as far as that can be told.
fn is_shared() -> bool {
    let of = |output: &dyn AsFd| {
        let file = File::from(output.as_fd().try_clone_to_owned().ok()?);
        file.metadata().ok().map(|about| (about.dev(), about.ino()))
    };
    let (stdout, stderr) = (of(&io::stdout()), of(&io::stderr()));
    stdout.is_none() || stdout == stderr
}

/// Writes all of it, or says how much and why no more.
fn write_all(mut out: impl Write, bytes: &[u8], is_over: &dyn Fn() -> bool) -> (usize, Option<io::Error>) {
    let mut written = 0;
    while written < bytes.len() {
        match out.write(&bytes[written..]) {
            Ok(0) => return (written, Some(io::ErrorKind::WriteZero.into())),
            Ok(more) => written += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && !is_over() => thread::sleep(BREATH),
            Err(error) => return (written, Some(error)),
        }
    }
    (written, None)
}

/// How much of the front is whole lines and no longer than `most`; the first line in any case.
pub(super) fn whole_lines(lines: &[u8], most: usize) -> usize {
    if lines.len() <= most {
        return lines.len();
    }
    match last_end(&lines[..most]) {
        0 => first_end(lines),
        end => end,
    }
}

/// The length of the first line, its end included.
pub(super) fn first_end(lines: &[u8]) -> usize {
    lines.iter().position(|byte| *byte == b'\n').map_or(lines.len(), |at| at + 1)
}

/// Behind the last end of a line.
fn last_end(lines: &[u8]) -> usize {
    lines.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1)
}

pub(super) fn count(lines: &[u8]) -> u64 {
    // In pieces of as many bytes as a byte can count the processor does dozens at once: all that is written passes here.
    let ends = |piece: &[u8]| piece.iter().map(|byte| u8::from(*byte == b'\n')).sum::<u8>();
    lines.chunks(u8::MAX.into()).map(|piece| u64::from(ends(piece))).sum()
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::io::{ErrorKind, Read as _};

    use super::*;

    const NEVER: &dyn Fn() -> bool = &|| false;

    /// Takes so many bytes at a time, or fails.
    struct Moody(VecDeque<Result<usize, ErrorKind>>, Vec<u8>);

    impl Write for Moody {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let most = self.0.pop_front().unwrap_or(Ok(usize::MAX))?;
            let length = bytes.len().min(most);
            self.1.extend_from_slice(&bytes[..length]);
            Ok(length)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[track_caller]
    fn check_moody(moods: &[Result<usize, ErrorKind>], expected: &str, error: Option<ErrorKind>) {
        let mut out = Moody(moods.iter().copied().collect(), Vec::new());
        let (written, found) = write_all(&mut out, b"abcdef", NEVER);
        assert_eq!((written, found.map(|error| error.kind())), (expected.len(), error));
        assert_eq!(String::from_utf8(out.1).unwrap(), expected);
    }

    #[test]
    fn short_writes_and_interruptions_are_gone_on_from() {
        check_moody(&[], "abcdef", None);
        check_moody(&[Ok(1), Err(ErrorKind::Interrupted), Ok(2), Err(ErrorKind::WouldBlock)], "abcdef", None);
        check_moody(&[Ok(4), Err(ErrorKind::StorageFull)], "abcd", Some(ErrorKind::StorageFull));
        check_moody(&[Ok(0)], "", Some(ErrorKind::WriteZero));
    }

    #[test]
    fn what_would_block_is_given_up_when_it_is_over() {
        let mut out = Moody(VecDeque::from([Ok(1), Err(ErrorKind::WouldBlock)]), Vec::new());
        assert_eq!(write_all(&mut out, b"abc", &|| true).0, 1);
    }

    #[track_caller]
    fn check_whole(lines: &str, most: usize, expected: &str) {
        assert_eq!(&lines[..whole_lines(lines.as_bytes(), most)], expected);
    }

    #[test]
    fn pieces_end_where_lines_do() {
        check_whole("a\nbc\n", 100, "a\nbc\n");
        check_whole("a\nbc\n", 5, "a\nbc\n");
        check_whole("a\nbc\n", 4, "a\n");
        check_whole("a\nbc\n", 2, "a\n");
        check_whole("a\nbc\n", 1, "a\n");
        check_whole("a\nbc\n", 0, "a\n");
        check_whole("abc\nd\n", 2, "abc\n");
        check_whole("\n\n", 1, "\n");
    }

    #[test]
    fn every_line_is_counted() {
        for length in [0, 1, 254, 255, 256, 1000] {
            assert_eq!(count(&vec![b'\n'; length]), length as u64);
            assert_eq!(count(&b"a\n".repeat(length)), length as u64);
        }
    }

    #[test]
    fn a_full_disk_fails_the_lines_and_no_more() {
        let mut stream = Stream::new(File::options().append(true).open("/dev/full").unwrap(), false).unwrap();
        for _ in 0..2 {
            let step = stream.write(b"one\ntwo\n", usize::MAX, NEVER);
            assert_eq!((step.taken, step.written, step.failed), (8, 0, 2));
            assert_eq!(step.error.unwrap().kind(), ErrorKind::StorageFull);
        }
    }

    #[test]
    fn a_torn_line_is_ended_before_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let file = File::options().append(true).create(true).open(&path).unwrap();
        (&file).write_all(b"half a li").unwrap();
        let mut stream = Stream::new(file, true).unwrap();
        let step = stream.write(b"next\n", usize::MAX, NEVER);
        assert_eq!((step.taken, step.written, step.failed), (5, 1, 0));
        stream.write(b"last\n", usize::MAX, NEVER);
        assert_eq!(std::fs::read_to_string(path).unwrap(), "half a li\nnext\nlast\n");
    }

    #[test]
    fn a_pipe_gets_no_more_at_a_time_than_it_keeps_in_one_piece() {
        let (mut reader, writer) = io::pipe().unwrap();
        let copy = File::from(writer.as_fd().try_clone_to_owned().unwrap());
        let mut stream = Stream::new(copy, false).unwrap();
        let lines = "x".repeat(99) + "\n";
        let step = stream.write(lines.repeat(50).as_bytes(), usize::MAX, NEVER);
        assert_eq!((step.taken, step.written), (4000, 40));
        let long = "x".repeat(5000) + "\n";
        assert_eq!(stream.write(long.as_bytes(), usize::MAX, NEVER).taken, 5001);
        drop((stream, writer));
        let mut read = Vec::new();
        reader.read_to_end(&mut read).unwrap();
        assert_eq!(read.len(), 9001);
    }

    #[test]
    fn a_closed_pipe_fails_the_lines() {
        let (reader, writer) = io::pipe().unwrap();
        let copy = File::from(writer.as_fd().try_clone_to_owned().unwrap());
        let mut stream = Stream::new(copy, false).unwrap();
        drop(reader);
        let step = stream.write(b"one\n", usize::MAX, NEVER);
        assert_eq!((step.taken, step.failed), (4, 1));
        assert_eq!(step.error.unwrap().kind(), ErrorKind::BrokenPipe);
    }
}
