//! A minimal RFC 6455 codec, and a client connection that owns no buffer while it is idle.
//!
//! Reads go through one scratch buffer of the thread, so that a generator can hold many connections.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

pub const CONTINUATION: u8 = 0;
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// Any mask does: nobody between these two could be fooled by what a frame looks like.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// Messages above this go out in several frames, as AWS's limit of 32 KiB a frame wants it.
const LARGEST_FRAME: usize = 32 * 1024;

/// A write buffer that grew beyond this is not kept for the next message.
const KEPT_WRITE_BUFFER: usize = 4096;

thread_local! {
    pub static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; 256 * 1024]);
}

pub struct Header {
    pub opcode: u8,
    /// Whether the message ends with this frame.
    pub is_final: bool,
    pub mask: Option<[u8; 4]>,
    /// The bytes of the header itself, and of the payload behind it.
    pub head: usize,
    pub len: usize,
}

/// The header of the frame that `bytes` begin with, once it is all there.
pub fn parse_header(bytes: &[u8]) -> Option<Header> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    let (mut head, len) = match second & 0x7f {
        126 => (4, usize::from(u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?))),
        127 => (10, u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?) as usize),
        len => (2, usize::from(len)),
    };
    let mut mask = None;
    if second & 0x80 != 0 {
        mask = Some(*bytes.get(head..)?.first_chunk()?);
        head += 4;
    }
    Some(Header { opcode: first & 0x0f, is_final: first & 0x80 != 0, mask, head, len })
}

/// Appends a message, in one frame while it is small enough for one; clients mask theirs.
pub fn encode(out: &mut Vec<u8>, opcode: u8, payload: &[u8], masked: bool) {
    let (mut opcode, mut left) = (opcode, payload);
    while left.len() > LARGEST_FRAME {
        let (frame, behind) = left.split_at(LARGEST_FRAME);
        encode_frame(out, opcode, frame, masked);
        (opcode, left) = (CONTINUATION, behind);
    }
    encode_frame(out, 0x80 | opcode, left, masked);
}

fn encode_frame(out: &mut Vec<u8>, first: u8, payload: &[u8], masked: bool) {
    let bit = if masked { 0x80 } else { 0 };
    out.push(first);
    match payload.len() {
        n @ 0..=125 => out.push(bit | n as u8),
        n @ 126..=65_535 => {
            out.push(bit | 126);
            out.extend_from_slice(&(n as u16).to_be_bytes());
        }
        n => {
            out.push(bit | 127);
            out.extend_from_slice(&(n as u64).to_be_bytes());
        }
    }
    if masked {
        out.extend_from_slice(&MASK);
    }
    let at = out.len();
    out.extend_from_slice(payload);
    if masked {
        unmask(&mut out[at..], MASK);
    }
}

pub fn unmask(payload: &mut [u8], key: [u8; 4]) {
    for (i, byte) in payload.iter_mut().enumerate() {
        *byte ^= key[i & 3];
    }
}

/// The message whose first frame, which is not its last, `bytes` begin with, and how many bytes its frames have.
/// Control frames between them are skipped: no server of these sends one there.
pub fn join_fragments(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut message, mut at) = (Vec::new(), 0);
    loop {
        let header = parse_header(&bytes[at..])?;
        let start = at + header.head;
        let body = bytes.get(start..start + header.len)?;
        at = start + header.len;
        if header.opcode < CLOSE {
            let from = message.len();
            message.extend_from_slice(body);
            if let Some(key) = header.mask {
                unmask(&mut message[from..], key);
            }
            if header.is_final {
                return Some((message, at));
            }
        }
    }
}

pub enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Io {
    pub async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Io::Plain(stream) => stream.write_all(bytes).await,
            Io::Tls(stream) => {
                stream.write_all(bytes).await?;
                stream.flush().await
            }
        }
    }

    pub async fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = match self {
            Io::Plain(stream) => stream.read(into).await?,
            Io::Tls(stream) => stream.read(into).await?,
        };
        if n == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(n) }
    }
}

/// A client's WebSocket connection.
pub struct Connection {
    io: Io,
    /// What came of an incomplete frame; empty while idle.
    rest: Vec<u8>,
    out: Vec<u8>,
}

/// What one read brought.
#[derive(Default)]
struct Delivered {
    used: usize,
    frames: usize,
    ping: Option<Vec<u8>>,
}

impl Connection {
    /// A connection that needs no handshake, or had it.
    pub fn over(io: Io) -> Connection {
        Connection { io, rest: Vec::new(), out: Vec::new() }
    }

    /// Asks for the upgrade and reads the answer; anything but a 101 is an error that shows it.
    pub async fn handshake(mut io: Io, authority: &str, path: &str, extra: &str) -> io::Result<Connection> {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {authority}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{extra}\r\n"
        );
        io.write_all(request.as_bytes()).await?;
        let mut head: Vec<u8> = Vec::new();
        let end = loop {
            if let Some(at) = memchr::memmem::find(&head, b"\r\n\r\n") {
                break at + 4;
            }
            let mut bytes = [0u8; 1024];
            let n = io.read(&mut bytes).await?;
            head.extend_from_slice(&bytes[..n]);
        };
        if !head.starts_with(b"HTTP/1.1 101") {
            let shown = String::from_utf8_lossy(&head[..head.len().min(200)]).into_owned();
            return Err(io::Error::other(format!("no upgrade: {shown}")));
        }
        Ok(Connection { rest: head[end..].to_vec(), ..Connection::over(io) })
    }

    /// Where no upgrade was asked for: the stream as it is.
    pub fn io(&mut self) -> &mut Io {
        &mut self.io
    }

    pub async fn send(&mut self, opcode: u8, payload: &[u8]) -> io::Result<()> {
        let mut out = std::mem::take(&mut self.out);
        out.clear();
        encode(&mut out, opcode, payload, true);
        let sent = self.io.write_all(&out).await;
        if out.capacity() <= KEPT_WRITE_BUFFER {
            self.out = out;
        }
        sent
    }

    /// Waits for bytes, shows each complete data frame in them to `see`, answers pings; how many frames there were.
    ///
    /// Can be dropped while it waits for the first byte.
    pub async fn receive(&mut self, mut see: impl FnMut(&[u8])) -> io::Result<usize> {
        // Frames may have come with the 101 or behind an earlier one.
        let mut got = absorb(&mut self.rest, &[], &mut see)?;
        if got.frames == 0 && got.ping.is_none() {
            got = self.read(&mut see).await?;
        }
        if let Some(body) = got.ping {
            self.send(PONG, &body).await?;
        }
        Ok(got.frames)
    }

    async fn read(&mut self, see: &mut impl FnMut(&[u8])) -> io::Result<Delivered> {
        let stream = match &mut self.io {
            Io::Plain(stream) => stream,
            Io::Tls(stream) => {
                let rest = &mut self.rest;
                return poll_fn(|cx| {
                    SCRATCH.with_borrow_mut(|scratch| {
                        let mut into = ReadBuf::new(scratch);
                        ready!(Pin::new(&mut **stream).poll_read(cx, &mut into))?;
                        let bytes = into.filled();
                        if bytes.is_empty() {
                            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                        }
                        Poll::Ready(absorb(rest, bytes, see))
                    })
                })
                .await;
            }
        };
        loop {
            stream.readable().await?;
            let rest = &mut self.rest;
            let got = SCRATCH.with_borrow_mut(|scratch| match stream.try_read(scratch) {
                Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => absorb(rest, &scratch[..n], see).map(Some),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
                Err(e) => Err(e),
            })?;
            if let Some(got) = got {
                return Ok(got);
            }
        }
    }

    /// Reads until a data frame came; the first one.
    pub async fn next(&mut self) -> io::Result<Vec<u8>> {
        let mut first = None;
        loop {
            self.receive(|frame| first = first.take().or_else(|| Some(frame.to_vec()))).await?;
            if let Some(frame) = first.take() {
                return Ok(frame);
            }
        }
    }

    /// Reads until a data frame came; how many bytes it had.
    pub async fn next_len(&mut self) -> io::Result<usize> {
        let mut len = None;
        loop {
            self.receive(|frame| len = len.or(Some(frame.len()))).await?;
            if let Some(len) = len {
                return Ok(len);
            }
        }
    }

    /// Reads until a data frame satisfies `wanted`.
    pub async fn wait_for(&mut self, wanted: impl Fn(&[u8]) -> bool) -> io::Result<()> {
        let mut seen = false;
        while !seen {
            self.receive(|frame| seen |= wanted(frame)).await?;
        }
        Ok(())
    }
}

/// Delivers what is complete in `rest` and `bytes` together, and keeps the remainder in `rest`.
fn absorb(rest: &mut Vec<u8>, bytes: &[u8], see: &mut impl FnMut(&[u8])) -> io::Result<Delivered> {
    if rest.is_empty() {
        let got = deliver(bytes, see)?;
        rest.extend_from_slice(&bytes[got.used..]);
        return Ok(got);
    }
    rest.extend_from_slice(bytes);
    let got = deliver(rest, see)?;
    if got.used == rest.len() {
        *rest = Vec::new();
    } else {
        rest.drain(..got.used);
    }
    Ok(got)
}

fn deliver(bytes: &[u8], see: &mut impl FnMut(&[u8])) -> io::Result<Delivered> {
    let mut got = Delivered::default();
    while let Some(header) = parse_header(&bytes[got.used..]) {
        let start = got.used + header.head;
        let Some(body) = bytes.get(start..start + header.len) else { break };
        match header.opcode {
            TEXT | BINARY if !header.is_final => {
                let Some((message, n)) = join_fragments(&bytes[got.used..]) else { break };
                see(&message);
                got.frames += 1;
                got.used += n;
                continue;
            }
            TEXT | BINARY => {
                see(body);
                got.frames += 1;
            }
            PING => got.ping = Some(body.to_vec()),
            CLOSE => return Err(io::Error::new(io::ErrorKind::ConnectionAborted, close_reason(body))),
            _ => {}
        }
        got.used = start + header.len;
    }
    Ok(got)
}

fn close_reason(body: &[u8]) -> String {
    let code = body.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
    format!("closed with {code} {}", String::from_utf8_lossy(body.get(2..).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_arrive_whole_however_they_are_split() {
        for len in [0, 1, 125, 126, 32_768, 32_769, 131_072] {
            let mut bytes = Vec::new();
            encode(&mut bytes, TEXT, &vec![b'a'; len], false);
            encode(&mut bytes, BINARY, b"end", false);
            for at in [1, 2, 5, bytes.len() / 2, bytes.len() - 1] {
                let (mut rest, mut seen) = (Vec::new(), Vec::new());
                for part in [&bytes[..at], &bytes[at..]] {
                    absorb(&mut rest, part, &mut |frame| seen.push(frame.len())).unwrap();
                }
                assert_eq!((seen, rest.len()), (vec![len, 3], 0), "{len} bytes split at {at}");
            }
        }
    }

    #[test]
    fn a_client_masks_what_it_sends() {
        let mut bytes = Vec::new();
        encode(&mut bytes, TEXT, b"hello", true);
        let header = parse_header(&bytes).unwrap();
        let mut body = bytes[header.head..].to_vec();
        assert_ne!(body, b"hello");
        unmask(&mut body, header.mask.unwrap());
        assert_eq!(body, b"hello");
    }

    #[test]
    fn a_close_says_its_code() {
        let mut bytes = Vec::new();
        encode(&mut bytes, CLOSE, b"\x03\xe9Going away", false);
        let error = absorb(&mut Vec::new(), &bytes, &mut |_| ()).err().unwrap();
        assert_eq!(error.to_string(), "closed with 1001 Going away");
    }
}
