//! A syslog, on this machine or another: one datagram a line, or a stream of counted ones.
//!
//! One that is away or reads nothing is tried again and again, each time a little later; meanwhile lines wait in the
//! buffer, and when that is full they are dropped. What the kernel took counts as written: no syslog says what it read.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use socket2::{SockRef, TcpKeepalive};

use super::Syslog;
use super::frames::{Sender, append_counted, append_message};
use super::stream::{Step, first_end, whole_lines};

/// To connect, and for a peer that takes nothing.
const PATIENCE: Duration = Duration::from_secs(2);

/// Before another try, and after many.
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);

/// The most that UDP carries; more than syslogs usually take of a line.
const DATAGRAM: usize = 65_507;

/// Every syslog takes this much (RFC 5424), so a way that does not is broken.
const LEAST: usize = 480;

/// `EMSGSIZE`, which the standard library has no name for.
const TOO_LONG: i32 = if cfg!(target_os = "linux") { 90 } else { 40 };

/// So much is sent at a time, and at the most this waits in the kernel for a peer that does not read.
const PIECE: usize = 64 * 1024;
const IN_KERNEL: usize = 256 * 1024;

/// Nobody says that UDP no longer arrives, for instance because the host has another address now.
const FRESH: Duration = Duration::from_secs(60);

/// A name may stand for several addresses. The first that answers is taken.
const ADDRESSES: usize = 3;

pub(super) struct Remote {
    syslog: Syslog,
    sender: Sender,
    peer: Option<(Peer, Instant)>,
    pause: Duration,
    /// The longest datagram that goes through.
    most: usize,
    frames: Vec<u8>,
}

enum Peer {
    Local(UnixDatagram),
    Udp(UdpSocket),
    Tcp(TcpStream),
}

impl Remote {
    pub(super) fn new(syslog: Syslog) -> Self {
        Self { syslog, sender: Sender::this(), peer: None, pause: SHORTEST, most: DATAGRAM, frames: Vec::new() }
    }

    /// Connects anew before the next line.
    pub(super) fn reopen(&mut self) {
        self.peer = None;
    }

    /// Sends some of the lines; none where the peer is away.
    pub(super) fn write(&mut self, lines: &[u8]) -> Step {
        match &self.peer {
            Some((Peer::Tcp(stream), _)) if has_hung_up(stream) => self.peer = None,
            Some((Peer::Udp(_), since)) if since.elapsed() > FRESH => self.peer = None,
            _ => {}
        }
        if self.peer.is_none() {
            match connect(&self.syslog) {
                Ok(peer) => self.peer = Some((peer, Instant::now())),
                Err(error) => return self.away(Step::default(), error),
            }
        }
        let mut step = Step::default();
        let sent = match &self.peer {
            Some((Peer::Tcp(_), _)) => self.send_stream(&lines[..whole_lines(lines, PIECE)], &mut step),
            _ => self.send_datagrams(&lines[..whole_lines(lines, PIECE)], &mut step),
        };
        match sent {
            Ok(()) => step,
            // A socket on this machine that is full is the right one, and loses nothing by waiting.
            Err(error) if is_stall(&error) && matches!(self.peer, Some((Peer::Local(_), _))) => {
                Step { error: Some(unread()), ..step }
            }
            Err(error) if is_stall(&error) => self.away(step, unread()),
            Err(error) => self.away(step, error),
        }
    }

    /// Forgets the peer. One that stayed for a while is looked for at once.
    fn away(&mut self, step: Step, error: io::Error) -> Step {
        if self.peer.take().is_some_and(|(_, since)| since.elapsed() > LONGEST) {
            self.pause = SHORTEST;
        }
        let pause = self.pause;
        self.pause = (2 * pause).min(LONGEST);
        Step { error: Some(error), pause: Some(pause), ..step }
    }

    fn send_datagrams(&mut self, lines: &[u8], step: &mut Step) -> io::Result<()> {
        let head = self.sender.head(Timestamp::now());
        let Some((peer, _)) = &mut self.peer else { return Ok(()) };
        while step.taken < lines.len() {
            let length = first_end(&lines[step.taken..]);
            let line = &lines[step.taken..step.taken + length - 1];
            self.frames.clear();
            append_message(&head, line, self.most, &mut self.frames);
            let sent = match peer {
                Peer::Local(socket) => socket.send(&self.frames),
                Peer::Udp(socket) => socket.send(&self.frames),
                Peer::Tcp(stream) => stream.write(&self.frames),
            };
            match sent {
                Ok(_) => (step.taken, step.written) = (step.taken + length, step.written + 1),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(TOO_LONG) => {
                    if self.most > LEAST {
                        self.most = (self.most.min(self.frames.len()) / 2).max(LEAST);
                    } else {
                        (step.taken, step.failed) = (step.taken + length, step.failed + 1);
                        step.error = Some(error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// What did not go out whole is sent again over the next connection.
    fn send_stream(&mut self, lines: &[u8], step: &mut Step) -> io::Result<()> {
        let head = self.sender.head(Timestamp::now());
        let Some((Peer::Tcp(stream), _)) = &mut self.peer else { return Ok(()) };
        self.frames.clear();
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            append_counted(&head, &line[..line.len() - 1], &mut self.frames);
        }
        let (sent, error) = send_all(stream, &self.frames);
        // Counted again from the start: which line a byte belongs to is asked only here.
        let mut end = 0;
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            let length = head.len() + line.len() - 1;
            end += length.to_string().len() + 1 + length;
            if end > sent {
                break;
            }
            (step.taken, step.written) = (step.taken + line.len(), step.written + 1);
        }
        error.map_or(Ok(()), Err)
    }
}

fn send_all(stream: &mut TcpStream, bytes: &[u8]) -> (usize, Option<io::Error>) {
    let mut sent = 0;
    while sent < bytes.len() {
        match stream.write(&bytes[sent..]) {
            Ok(0) => return (sent, Some(io::ErrorKind::WriteZero.into())),
            Ok(more) => sent += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (sent, Some(error)),
        }
    }
    (sent, None)
}

fn is_stall(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

fn unread() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "it reads nothing")
}

/// The first bytes for a peer that has gone would be lost without a word. What it says is of no interest, but unread it
/// would make of our end a reset, which takes back what is on its way.
fn has_hung_up(mut stream: &TcpStream) -> bool {
    if stream.set_nonblocking(true).is_err() {
        return true;
    }
    let mut said = [0; 1024];
    let has_hung_up = loop {
        match stream.read(&mut said) {
            Ok(0) => break true,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break error.kind() != io::ErrorKind::WouldBlock,
        }
    };
    stream.set_nonblocking(false).is_err() || has_hung_up
}

fn connect(syslog: &Syslog) -> io::Result<Peer> {
    match syslog {
        Syslog::Local(path) => {
            let socket = UnixDatagram::unbound()?;
            socket.connect(path)?;
            socket.set_write_timeout(Some(PATIENCE))?;
            Ok(Peer::Local(socket))
        }
        Syslog::Udp(host) => first_of(host, |address| {
            let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(any)?;
            socket.connect(address)?;
            socket.set_write_timeout(Some(PATIENCE))?;
            Ok(Peer::Udp(socket))
        }),
        Syslog::Tcp(host) => first_of(host, |address| {
            let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
            stream.set_write_timeout(Some(PATIENCE))?;
            stream.set_nodelay(true)?;
            let options = SockRef::from(&stream);
            options.set_send_buffer_size(IN_KERNEL)?;
            options.set_tcp_keepalive(&TcpKeepalive::new().with_time(6 * LONGEST).with_interval(LONGEST))?;
            // A host that vanished says nothing; without this it would be believed for a quarter of an hour.
            #[cfg(target_os = "linux")]
            options.set_tcp_user_timeout(Some(6 * LONGEST))?;
            Ok(Peer::Tcp(stream))
        }),
    }
}

fn first_of(host: &str, connect: impl Fn(SocketAddr) -> io::Result<Peer>) -> io::Result<Peer> {
    let mut outcome = Err(io::Error::new(io::ErrorKind::NotFound, "its name has no address"));
    for address in host.to_socket_addrs()?.take(ADDRESSES) {
        outcome = connect(address);
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// Writes all of it, however often the peer is away; how many lines were written.
    fn write(remote: &mut Remote, lines: &str) -> u64 {
        let (mut rest, mut written) = (lines.as_bytes(), 0);
        while !rest.is_empty() {
            let step = remote.write(rest);
            written += step.written;
            rest = &rest[step.taken..];
        }
        written
    }

    #[track_caller]
    fn check_message(message: &[u8], line: &str) {
        let message = std::str::from_utf8(message).unwrap();
        let fields: Vec<_> = message.splitn(8, ' ').collect();
        assert_eq!(fields[0], "<134>1");
        assert!(fields[1].parse::<Timestamp>().is_ok() && fields[1].len() == "2026-11-25T01:02:03.500000Z".len());
        assert_eq!(fields[3..], ["livegate", &std::process::id().to_string(), "access", "-", line], "{message}");
    }

    /// The counted messages of a stream that is whole.
    fn messages(stream: &[u8]) -> Vec<&[u8]> {
        let (mut rest, mut messages) = (stream, Vec::new());
        while !rest.is_empty() {
            let blank = rest.iter().position(|byte| *byte == b' ').unwrap();
            let length: usize = std::str::from_utf8(&rest[..blank]).unwrap().parse().unwrap();
            messages.push(&rest[blank + 1..blank + 1 + length]);
            rest = &rest[blank + 1 + length..];
        }
        messages
    }

    #[test]
    fn a_local_syslog_gets_a_datagram_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut remote = Remote::new(Syslog::Local(path.clone()));
        let away = remote.write(b"one\n");
        assert_eq!((away.taken, away.pause), (0, Some(SHORTEST)));
        assert_eq!(remote.write(b"one\n").pause, Some(2 * SHORTEST));
        let socket = UnixDatagram::bind(&path).unwrap();
        assert_eq!(write(&mut remote, "one\n\nthree\n"), 3);
        let mut datagram = [0; 1000];
        for line in ["one", "", "three"] {
            let length = socket.recv(&mut datagram).unwrap();
            check_message(&datagram[..length], line);
        }
        // It starts again in its place.
        drop(socket);
        std::fs::remove_file(&path).unwrap();
        let socket = UnixDatagram::bind(&path).unwrap();
        assert_eq!(write(&mut remote, "four\n"), 1);
        let length = socket.recv(&mut datagram).unwrap();
        check_message(&datagram[..length], "four");
    }

    #[test]
    fn a_udp_syslog_gets_a_datagram_a_line_and_a_long_one_cut() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut remote = Remote::new(Syslog::Udp(socket.local_addr().unwrap().to_string()));
        assert_eq!(write(&mut remote, &format!("short\n{}\nlast\n", "x".repeat(70_000))), 3);
        let mut datagram = vec![0; 70_000];
        let length = socket.recv(&mut datagram).unwrap();
        check_message(&datagram[..length], "short");
        let length = socket.recv(&mut datagram).unwrap();
        assert_eq!(length, DATAGRAM);
        assert!(datagram[..length].ends_with("xx…".as_bytes()));
        let length = socket.recv(&mut datagram).unwrap();
        check_message(&datagram[..length], "last");
    }

    #[test]
    fn a_way_that_takes_less_is_found_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let receiver = UnixDatagram::bind(&path).unwrap();
        let mut remote = Remote::new(Syslog::Local(path));
        let narrow = connect(&remote.syslog).unwrap();
        let Peer::Local(socket) = &narrow else { unreachable!() };
        SockRef::from(socket).set_send_buffer_size(8 * 1024).unwrap();
        remote.peer = Some((narrow, Instant::now()));
        assert_eq!(write(&mut remote, &format!("{}\n", "x".repeat(60_000))), 1);
        let mut datagram = vec![0; 70_000];
        let length = receiver.recv(&mut datagram).unwrap();
        assert!(length < 16 * 1024 && datagram[..length].ends_with("x…".as_bytes()), "{length}");
        assert_eq!(write(&mut remote, "short\n"), 1);
        let length = receiver.recv(&mut datagram).unwrap();
        check_message(&datagram[..length], "short");
    }

    #[test]
    fn a_tcp_syslog_gets_counted_messages() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut remote = Remote::new(Syslog::Tcp(listener.local_addr().unwrap().to_string()));
        let long = "x".repeat(100_000);
        // Somebody reads, or so long a line would not fit into the kernel.
        let reader = std::thread::spawn(move || {
            let mut stream = Vec::new();
            listener.accept().unwrap().0.read_to_end(&mut stream).unwrap();
            stream
        });
        assert_eq!(write(&mut remote, &format!("one\n\nlätzt\n{long}\n")), 4);
        drop(remote);
        let stream = reader.join().unwrap();
        let messages = messages(&stream);
        assert_eq!(messages.len(), 4);
        for (message, line) in messages.into_iter().zip(["one", "", "lätzt", &long]) {
            check_message(message, line);
        }
    }

    #[test]
    fn a_tcp_syslog_that_hung_up_is_connected_to_again_and_nothing_lost() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut remote = Remote::new(Syslog::Tcp(listener.local_addr().unwrap().to_string()));
        for line in ["one", "two"] {
            assert_eq!(write(&mut remote, &format!("{line}\n")), 1);
            let (mut stream, _) = listener.accept().unwrap();
            let mut message = [0; 1000];
            // What it answers is of no interest.
            stream.write_all(b"hello").unwrap();
            let length = stream.read(&mut message).unwrap();
            check_message(messages(&message[..length])[0], line);
        }
    }

    #[test]
    fn a_tcp_syslog_that_reads_nothing_is_left_and_its_torn_line_sent_again() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut remote = Remote::new(Syslog::Tcp(listener.local_addr().unwrap().to_string()));
        remote.peer = Some((connect(&remote.syslog).unwrap(), Instant::now()));
        let Some((Peer::Tcp(stream), _)) = &remote.peer else { unreachable!() };
        // The test has less patience.
        stream.set_write_timeout(Some(Duration::from_millis(1))).unwrap();
        let lines: String = (0..100_000).map(|number| format!("{number:0100}\n")).collect();
        let (mut rest, mut step) = (lines.as_bytes(), Step::default());
        while step.error.is_none() {
            step = remote.write(rest);
            rest = &rest[step.taken..];
        }
        assert_eq!((step.error.unwrap().to_string(), step.pause), ("it reads nothing".to_owned(), Some(SHORTEST)));
        let written = (lines.len() - rest.len()) / 101;
        // Whoever reads it late finds what was counted as written, and one line that is torn at most.
        let mut stream = Vec::new();
        listener.accept().unwrap().0.read_to_end(&mut stream).unwrap();
        let first = std::str::from_utf8(&stream).unwrap();
        let length = first.split_once(' ').unwrap().0.parse::<usize>().unwrap() + 4;
        assert_eq!(stream.len() / length, written);
    }

    #[test]
    fn nobody_there_is_tried_again_later_and_later() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut remote = Remote::new(Syslog::Tcp(listener.local_addr().unwrap().to_string()));
        drop(listener);
        let pauses: Vec<_> = (0..8).map(|_| remote.write(b"x\n").pause.unwrap().as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
    }
}
