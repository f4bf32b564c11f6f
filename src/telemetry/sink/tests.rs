//! Sinks as callers have them: from many threads, with destinations that hang, and to their end.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;

use super::stream::Stream;
use super::*;

/// For what is expected to happen.
const PATIENCE: Duration = Duration::from_secs(30);

const BUFFER: usize = 1 << 20;

fn open(text: &str, when_full: WhenFull, buffer: usize) -> Arc<Sink> {
    let destination = Destination::parse(text, Path::new("/"), Rotation { keep: 3, ..Rotation::default() }).unwrap();
    Sink::open(Settings { destination, when_full, buffer, gathering: GATHERING }).unwrap()
}

/// A sink whose thread hangs, since nobody reads at the other end until the test does.
fn stalled(when_full: WhenFull, buffer: usize) -> (Arc<Sink>, Reader) {
    let (reader, writer) = UnixStream::pair().unwrap();
    writer.set_nonblocking(true).unwrap();
    let mut filling = 0;
    while let Ok(length) = (&writer).write(&[b'.'; 65_536]) {
        filling += length;
    }
    writer.set_nonblocking(false).unwrap();
    let target = Target::Stream(Stream::of(&writer).unwrap());
    (sink(target, when_full, buffer), Reader { stream: reader, filling })
}

struct Reader {
    stream: UnixStream,
    filling: usize,
}

impl Reader {
    /// All that comes until the sink's thread has ended.
    fn read(mut self) -> String {
        let mut text = String::new();
        self.stream.read_to_string(&mut text).unwrap();
        text.split_off(self.filling)
    }
}

fn sink(target: Target, when_full: WhenFull, size: usize) -> Arc<Sink> {
    let counts = Arc::new(Counts::default());
    let buffer = Arc::new(Buffer::new(size, when_full, GATHERING, counts.clone()));
    let news = Arc::new(News::new("test".to_owned(), counts.clone()));
    let writer = Writer { buffer: buffer.clone(), news: news.clone(), target };
    thread::spawn(move || writer.run());
    Arc::new(Sink { counts, buffer, news, destination: Destination::Stdout })
}

/// Written, dropped and failed.
fn counts(sink: &Sink) -> [u64; 3] {
    [&sink.counts.written, &sink.counts.dropped, &sink.counts.failed].map(Count::get)
}

#[track_caller]
fn wait_until(is_so: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "it never came true");
        thread::yield_now();
    }
}

#[test]
fn closing_lets_everything_out_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let sink = open(path.to_str().unwrap(), WhenFull::Drop, BUFFER);
    assert_eq!(sink.describe(), path.to_str().unwrap());
    let expected: String = (0..10_000).map(|number| format!("line {number}\n")).collect();
    for line in expected.split_inclusive('\n') {
        sink.write(line.as_bytes());
    }
    sink.write(b"without an end");
    sink.close(PATIENCE);
    assert_eq!(fs::read_to_string(&path).unwrap(), expected + "without an end\n");
    assert_eq!(counts(&sink), [10_001, 0, 0]);
    // What comes later is counted; closing again does nothing.
    sink.write(b"late");
    sink.close(PATIENCE);
    sink.reopen();
    assert_eq!(counts(&sink), [10_001, 1, 0]);
}

#[test]
fn a_file_that_cannot_be_opened_is_an_error_at_once() {
    let path = "/nonexistent-folder/log".into();
    let destination = Destination::File { path, rotation: Rotation::default() };
    assert!(
        Sink::open(Settings { destination, when_full: WhenFull::Drop, buffer: BUFFER, gathering: GATHERING }).is_err()
    );
}

#[test]
fn a_sink_that_is_let_go_writes_what_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let sink = open(path.to_str().unwrap(), WhenFull::Drop, BUFFER);
    sink.write(b"last");
    drop(sink);
    wait_until(|| fs::read_to_string(&path).unwrap() == "last\n");
}

#[test]
fn lines_of_many_threads_are_neither_torn_nor_out_of_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let rotation = Rotation { size: Some(300_000), every: None, keep: 100 };
    let destination = Destination::File { path: path.clone(), rotation };
    let sink =
        Sink::open(Settings { destination, when_full: WhenFull::Block, buffer: 10_000, gathering: GATHERING }).unwrap();
    thread::scope(|scope| {
        for thread in 0..8 {
            let sink = &sink;
            scope.spawn(move || {
                for number in 0..2000 {
                    sink.write(format!("{thread} {number} {}", "x".repeat(number % 200)).as_bytes());
                }
            });
        }
    });
    sink.close(PATIENCE);
    assert_eq!(counts(&sink), [16_000, 0, 0]);
    let files: Vec<_> =
        (1..).map(|number| path.with_extension(number.to_string())).take_while(|path| path.exists()).collect();
    assert!(files.len() > 3, "{files:?}");
    let mut next = [0; 8];
    for file in files.iter().rev().chain([&path]) {
        let text = fs::read_to_string(file).unwrap();
        assert!(text.len() <= 300_000 && text.ends_with('\n'));
        for line in text.lines() {
            let fields: Vec<_> = line.split(' ').collect();
            let thread: usize = fields[0].parse().unwrap();
            let number: usize = fields[1].parse().unwrap();
            assert_eq!((number, fields[2].len()), (next[thread], number % 200));
            next[thread] += 1;
        }
    }
    assert_eq!(next, [2000; 8]);
}

#[test]
fn reopening_leaves_a_moved_file_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (path, moved) = (folder.path().join("log"), folder.path().join("moved"));
    let sink = open(path.to_str().unwrap(), WhenFull::Drop, BUFFER);
    sink.write(b"old");
    wait_until(|| sink.counts.written.get() == 1);
    fs::rename(&path, &moved).unwrap();
    sink.reopen();
    sink.write(b"new");
    sink.close(PATIENCE);
    assert_eq!(
        (fs::read_to_string(moved).unwrap(), fs::read_to_string(path).unwrap()),
        ("old\n".into(), "new\n".into())
    );
}

#[test]
fn reopening_makes_the_file_though_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let sink = open(path.to_str().unwrap(), WhenFull::Drop, BUFFER);
    fs::remove_file(&path).unwrap();
    sink.reopen();
    wait_until(|| path.exists());
}

#[test]
fn a_full_disk_fails_lines_and_holds_up_nothing() {
    let sink = open("/dev/full", WhenFull::Block, 100);
    for _ in 0..1000 {
        sink.write(b"a line that cannot be written");
    }
    sink.close(PATIENCE);
    assert_eq!(counts(&sink), [0, 0, 1000]);
}

#[test]
fn while_nobody_reads_lines_are_dropped_and_counted_exactly() {
    let (sink, reader) = stalled(WhenFull::Drop, 10_000);
    for number in 0..1000 {
        sink.write(format!("{number:099}").as_bytes());
    }
    assert_eq!(counts(&sink), [0, 900, 0]);
    // Somebody reads again: what was not dropped comes.
    let reading = thread::spawn(move || reader.read());
    sink.close(PATIENCE);
    assert_eq!(counts(&sink), [100, 900, 0]);
    let expected: String = (0..100).map(|number| format!("{number:099}\n")).collect();
    assert_eq!(reading.join().unwrap(), expected);
}

#[test]
fn who_blocks_waits_for_a_reader_and_loses_nothing() {
    let (sink, reader) = stalled(WhenFull::Block, 10_000);
    let writing = thread::spawn({
        let sink = sink.clone();
        move || (0..20_000).for_each(|_| sink.write(&[b'x'; 99]))
    });
    let reading = thread::spawn(move || reader.read());
    writing.join().unwrap();
    sink.close(PATIENCE);
    assert_eq!(counts(&sink), [20_000, 0, 0]);
    assert_eq!(reading.join().unwrap().len(), 2_000_000);
}

#[test]
fn closing_lets_go_who_blocks_and_a_thread_that_hangs() {
    let (sink, reader) = stalled(WhenFull::Block, 10_000);
    let writing = thread::spawn({
        let sink = sink.clone();
        move || (0..1000).for_each(|_| sink.write(&[b'x'; 99]))
    });
    sink.close(Duration::from_millis(10));
    writing.join().unwrap();
    let [written, dropped, failed] = counts(&sink);
    assert_eq!((written, dropped + failed), (0, 1000));
    assert!(failed <= 100);
    // What the thread still gets rid of changes no count.
    reader.read();
    assert!(sink.buffer.wait_for_end(Instant::now() + PATIENCE));
    assert_eq!(counts(&sink), [written, dropped, failed]);
}

#[test]
fn a_syslog_that_starts_late_gets_what_waited() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let sink = open(&format!("syslog+unix:{}", path.display()), WhenFull::Drop, BUFFER);
    sink.write(b"before");
    let socket = UnixDatagram::bind(&path).unwrap();
    sink.write(b"after");
    sink.close(PATIENCE);
    let mut datagram = [0; 1000];
    for line in ["before", "after"] {
        let length = socket.recv(&mut datagram).unwrap();
        assert!(datagram[..length].ends_with(line.as_bytes()));
    }
    assert_eq!(counts(&sink), [2, 0, 0]);
}

#[test]
fn a_syslog_that_reads_nothing_costs_its_own_lines_alone() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let text = format!("syslog+tcp://{}", listener.local_addr().unwrap());
    let sink = open(&text, WhenFull::Drop, 10_000);
    assert_eq!(sink.describe(), text);
    let began = Instant::now();
    for _ in 0..200_000 {
        sink.write(&[b'x'; 99]);
    }
    assert!(began.elapsed() < PATIENCE);
    sink.close(Duration::ZERO);
    let [written, dropped, failed] = counts(&sink);
    assert!(dropped > 0 && failed > 0);
    assert_eq!(written + dropped + failed, 200_000);
}

#[test]
fn a_syslog_that_is_away_holds_up_the_end_no_longer_than_is_said() {
    let sink = open("syslog+unix:/nonexistent-folder/socket", WhenFull::Drop, BUFFER);
    sink.write(b"one");
    sink.write(b"two");
    sink.close(Duration::from_millis(10));
    assert_eq!(counts(&sink), [0, 0, 2]);
    wait_until(|| sink.buffer.wait_for_end(Instant::now()));
}

#[test]
fn stdout_and_stderr_take_lines() {
    for text in ["stdout", "stderr"] {
        let sink = open(text, WhenFull::Drop, BUFFER);
        assert_eq!(sink.describe(), text);
        sink.close(PATIENCE);
    }
}

#[test]
fn a_named_pipe_is_opened_without_a_reader() {
    let (reader, writer) = std::io::pipe().unwrap();
    (&writer).write_all(b"x").unwrap();
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&writer));
    let sink = open(&path, WhenFull::Drop, BUFFER);
    sink.write(b"line");
    sink.close(PATIENCE);
    drop((sink, writer));
    let mut read = [0; 6];
    (&reader).read_exact(&mut read).unwrap();
    assert_eq!(&read, b"xline\n");
}
