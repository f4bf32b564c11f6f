//! Where the body of an HTTP/1.1 answer ends: by its length, its chunks, or the connection's end (RFC 9112 sections 6
//! and 7).
//!
//! Lines of chunks end with CR and LF and with nothing less: two readers that do not agree on a line's end do not agree
//! on what follows it.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::model::limits;

/// What is still to come of an answer's body.
#[derive(Debug)]
pub enum Framing {
    Done,
    Length(u64),
    Chunks(Chunks),
    UntilClose,
    /// It went wrong, and what comes is not looked at any more.
    Broken,
}

/// What the next bytes of a body are.
#[derive(Debug, PartialEq)]
pub enum Piece {
    Data(Bytes),
    Trailers(HeaderMap),
    End,
}

/// Why an answer is no HTTP.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("its head is no HTTP: {0}")]
    Head(#[from] httparse::Error),
    #[error("its head is longer than {} bytes", limits::ANSWER_HEAD)]
    LongHead,
    #[error("it has no status")]
    Status,
    #[error("one of its headers has no such name or value")]
    Header,
    #[error("its Content-Length is no number, or several")]
    Length,
    #[error("its Transfer-Encoding is none of HTTP/1.0")]
    Coding,
    #[error("a chunk of it has no size, or no end")]
    Chunk,
    #[error("its trailers are none, or longer than {} bytes", limits::TRAILERS)]
    Trailers,
    #[error("it ended before its end")]
    Short,
}

impl Framing {
    pub fn of_length(length: u64) -> Self {
        if length == 0 { Framing::Done } else { Framing::Length(length) }
    }

    /// Takes the next piece off what has come; `None` if more must come first.
    pub fn take(&mut self, rest: &mut Bytes) -> Result<Option<Piece>, Malformed> {
        match self {
            Framing::Done => Ok(Some(Piece::End)),
            Framing::Broken => Err(Malformed::Short),
            Framing::UntilClose | Framing::Length(_) if rest.is_empty() => Ok(None),
            Framing::UntilClose => Ok(Some(Piece::Data(std::mem::take(rest)))),
            Framing::Length(left) => {
                let piece = split(rest, *left);
                *left -= piece.len() as u64;
                if *left == 0 {
                    *self = Framing::Done;
                }
                Ok(Some(Piece::Data(piece)))
            }
            Framing::Chunks(chunks) => {
                let piece = chunks.take(rest)?;
                if chunks.is_done() {
                    *self = Framing::Done;
                }
                Ok(piece)
            }
        }
    }

    /// Nothing more comes.
    pub fn close(&mut self) -> Result<(), Malformed> {
        match self {
            Framing::Done | Framing::UntilClose => {
                *self = Framing::Done;
                Ok(())
            }
            Framing::Length(_) | Framing::Chunks(_) | Framing::Broken => Err(Malformed::Short),
        }
    }
}

fn split(rest: &mut Bytes, most: u64) -> Bytes {
    if rest.len() as u64 <= most {
        return std::mem::take(rest);
    }
    rest.split_to(most as usize)
}

/// A body in chunks.
#[derive(Debug, Default)]
pub struct Chunks {
    at: At,
    /// The line that is being read, as far as it has come; of trailers all lines.
    line: Vec<u8>,
}

#[derive(Debug, Default, PartialEq)]
enum At {
    /// The line with a chunk's size.
    #[default]
    Size,
    Data(u64),
    /// The line's end behind a chunk's data.
    DataEnd,
    Trailers,
    Trailed(HeaderMap),
    End,
    /// What followed the last piece was no chunk.
    Broken,
}

impl Chunks {
    fn is_done(&self) -> bool {
        self.at == At::End
    }

    fn take(&mut self, rest: &mut Bytes) -> Result<Option<Piece>, Malformed> {
        self.advance(rest)?;
        match &mut self.at {
            At::Data(left) if !rest.is_empty() => {
                let piece = split(rest, *left);
                *left -= piece.len() as u64;
                if *left == 0 {
                    self.at = At::DataEnd;
                    // Whoever gets the last piece should know that it is the last. What is wrong behind it is told later.
                    if self.advance(rest).is_err() {
                        self.at = At::Broken;
                    }
                }
                Ok(Some(Piece::Data(piece)))
            }
            At::Trailed(trailers) => {
                let trailers = std::mem::take(trailers);
                self.at = At::End;
                Ok(Some(Piece::Trailers(trailers)))
            }
            At::End => Ok(Some(Piece::End)),
            At::Broken => Err(Malformed::Chunk),
            _ => Ok(None),
        }
    }

    /// Reads lines up to the next data, or the end.
    fn advance(&mut self, rest: &mut Bytes) -> Result<(), Malformed> {
        loop {
            match self.at {
                At::Size => {
                    let Some(line) = self.whole_line(rest, limits::CHUNK_LINE, Malformed::Chunk)? else {
                        return Ok(());
                    };
                    self.at = match size(&line)? {
                        0 => At::Trailers,
                        size => At::Data(size),
                    };
                }
                At::DataEnd => {
                    let Some(line) = self.whole_line(rest, 2, Malformed::Chunk)? else { return Ok(()) };
                    if !line.is_empty() {
                        return Err(Malformed::Chunk);
                    }
                    self.at = At::Size;
                }
                At::Trailers => {
                    if !self.read_line(rest, limits::TRAILERS, Malformed::Trailers)? {
                        return Ok(());
                    }
                    // An empty line is the last.
                    if self.line.len() == 2 || self.line.ends_with(b"\r\n\r\n") {
                        let lines = std::mem::take(&mut self.line);
                        let trailers = trailers(&lines)?;
                        self.at = if trailers.is_empty() { At::End } else { At::Trailed(trailers) };
                    }
                }
                At::Data(_) | At::Trailed(_) | At::End | At::Broken => return Ok(()),
            }
        }
    }

    /// A line without its end, if all of it has come.
    fn whole_line(&mut self, rest: &mut Bytes, most: usize, error: Malformed) -> Result<Option<Vec<u8>>, Malformed> {
        if !self.read_line(rest, most, error)? {
            return Ok(None);
        }
        let mut line = std::mem::take(&mut self.line);
        line.truncate(line.len() - 2);
        Ok(Some(line))
    }

    /// Moves bytes into `line` up to a line's end, and says whether that has come.
    fn read_line(&mut self, rest: &mut Bytes, most: usize, error: Malformed) -> Result<bool, Malformed> {
        let end = rest.iter().position(|byte| *byte == b'\n');
        let piece = rest.split_to(end.map_or(rest.len(), |end| end + 1));
        if self.line.len() + piece.len() > most {
            return Err(error);
        }
        self.line.extend_from_slice(&piece);
        if rest.is_empty() {
            *rest = Bytes::new();
        }
        match end {
            None => Ok(false),
            Some(_) if self.line.ends_with(b"\r\n") => Ok(true),
            Some(_) => Err(error),
        }
    }
}

/// The size in a chunk's first line; extensions say nothing to us.
fn size(line: &[u8]) -> Result<u64, Malformed> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (number, more) = line.split_at(digits);
    let more = more.trim_ascii_start();
    let is_plain = (1..=16).contains(&digits) && (more.is_empty() || more[0] == b';') && !more.contains(&b'\r');
    let text = std::str::from_utf8(number).ok().filter(|_| is_plain).ok_or(Malformed::Chunk)?;
    u64::from_str_radix(text, 16).map_err(|_| Malformed::Chunk)
}

fn trailers(lines: &[u8]) -> Result<HeaderMap, Malformed> {
    let mut parsed = [httparse::EMPTY_HEADER; limits::HEADERS];
    let Ok(httparse::Status::Complete((_, parsed))) = httparse::parse_headers(lines, &mut parsed) else {
        return Err(Malformed::Trailers);
    };
    let mut trailers = HeaderMap::with_capacity(parsed.len());
    for line in parsed {
        let name = HeaderName::from_bytes(line.name.as_bytes()).map_err(|_| Malformed::Trailers)?;
        let value = HeaderValue::from_bytes(line.value).map_err(|_| Malformed::Trailers)?;
        trailers.append(name, value);
    }
    Ok(trailers)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a body in pieces of every size; `wanted` is its data, and its trailers behind a `|`.
    fn check(framing: fn() -> Framing, input: &str, wanted: Result<&str, Malformed>) {
        for size in [1, 2, 3, 7, 1000] {
            let mut framing = framing();
            let (mut data, mut trailers, mut outcome) = (String::new(), String::new(), Ok(()));
            let mut pieces = input.as_bytes().chunks(size);
            let mut rest = Bytes::new();
            loop {
                match framing.take(&mut rest) {
                    Ok(Some(Piece::Data(piece))) => data += std::str::from_utf8(&piece).expect("text"),
                    Ok(Some(Piece::Trailers(map))) => {
                        for (name, value) in &map {
                            trailers += &format!("|{name}={}", value.to_str().expect("text"));
                        }
                    }
                    Ok(Some(Piece::End)) => break,
                    Ok(None) => match pieces.next() {
                        Some(piece) => rest = Bytes::copy_from_slice(piece),
                        None => {
                            outcome = framing.close();
                            break;
                        }
                    },
                    Err(error) => {
                        outcome = Err(error);
                        break;
                    }
                }
            }
            let seen = outcome.map(|()| data + &trailers);
            assert_eq!(seen.as_deref(), wanted.as_ref().map(|wanted| *wanted), "{input:?} in pieces of {size}");
        }
    }

    fn chunks() -> Framing {
        Framing::Chunks(Chunks::default())
    }

    #[test]
    fn chunks_are_put_together() {
        check(chunks, "0\r\n\r\n", Ok(""));
        check(chunks, "3\r\nabc\r\n0\r\n\r\n", Ok("abc"));
        check(chunks, "3\r\nabc\r\nA;x=\"y\"\r\n0123456789\r\n000\r\n\r\n", Ok("abc0123456789"));
        check(chunks, "1 ;a\r\na\r\n1\t\r\nb\r\n0\r\n\r\nnext", Ok("ab"));
        check(chunks, "1\r\na\r\n0\r\nX-Sum: 1\r\nY: 2\r\n\r\n", Ok("a|x-sum=1|y=2"));
    }

    #[test]
    fn what_is_no_chunk_is_refused() {
        let (no_chunk, no_trailers) = (|| Err(Malformed::Chunk), || Err(Malformed::Trailers));
        for input in
            ["\r\n", "x\r\n", "+1\r\na\r\n", "-1\r\n", "1\na\r\n", "1\r\nab\r\n", "1\r\na\n0\r\n\r\n", "0x1\r\na"]
        {
            check(chunks, input, no_chunk());
        }
        check(chunks, "11111111111111111\r\n", no_chunk());
        check(chunks, "1;\r;\r\na\r\n0\r\n\r\n", no_chunk());
        check(chunks, &format!("1;{}\r\n", "x".repeat(limits::CHUNK_LINE)), no_chunk());
        check(chunks, "0\r\nno trailer\r\n\r\n", no_trailers());
        check(chunks, "0\r\nX: 1\n\r\n", no_trailers());
        check(chunks, &format!("0\r\nX: {}\r\n\r\n", "x".repeat(limits::TRAILERS)), no_trailers());
        check(chunks, "3\r\nab", Err(Malformed::Short));
        check(chunks, "3\r\nabc\r\n0\r\n", Err(Malformed::Short));
    }

    #[test]
    fn a_length_is_counted_and_what_follows_is_left() {
        check(|| Framing::of_length(5), "abcdefgh", Ok("abcde"));
        check(|| Framing::of_length(0), "abc", Ok(""));
        check(|| Framing::of_length(5), "abcd", Err(Malformed::Short));
        check(|| Framing::UntilClose, "abc", Ok("abc"));
        let (mut framing, mut rest) = (Framing::of_length(2), Bytes::from_static(b"okHTTP"));
        assert_eq!(framing.take(&mut rest), Ok(Some(Piece::Data("ok".into()))));
        assert_eq!(rest, "HTTP");
    }

    #[test]
    fn the_last_piece_is_known_to_be_the_last() {
        let (mut framing, mut rest) = (chunks(), Bytes::from_static(b"2\r\nok\r\n0\r\n\r\n"));
        assert_eq!(framing.take(&mut rest), Ok(Some(Piece::Data("ok".into()))));
        assert!(matches!(framing, Framing::Done) && rest.is_empty());
    }
}
