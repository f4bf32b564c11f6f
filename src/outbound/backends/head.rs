//! Heads of HTTP/1.1 messages: a request's as text, and what an answer's says.
//!
//! Parsing is httparse's. Where an answer's body ends follows RFC 9112 section 6.3.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::framing::{Chunks, Framing, Malformed};
use crate::model::forwarded::Added;
use crate::model::limits;
use crate::model::lines::{self, decimal, list};

/// The head of an answer.
#[derive(Debug, Default)]
pub struct AnswerHead {
    pub status: StatusCode,
    pub headers: HeaderMap,
}

/// Which headers of an answer anybody reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Headers {
    All,
    /// `Content-Type`, if that is `application/octet-stream`: it is all that is asked of the answer to a message, and making
    /// nothing of the others saves most of what a head costs.
    OfBytes,
}

/// Headers that an answer gets on its way to the client, so that its map need not grow.
const ROOM: usize = 2;

/// What an answer's head says.
#[derive(Debug)]
pub struct Parsed {
    pub head: AnswerHead,
    /// How many bytes of the input it is.
    pub length: usize,
    /// Where the body ends.
    pub framing: Framing,
    /// Another request may follow on the connection.
    pub keeps: bool,
}

/// How long a request's body will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    Known(u64),
    Chunked,
}

/// Writes a request's head. The length is said as it is, whatever the headers say of one.
pub fn write(parts: &Parts, added: Option<&Added>, length: Length, into: &mut Vec<u8>) {
    into.extend_from_slice(parts.method.as_str().as_bytes());
    into.push(b' ');
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    into.extend_from_slice(target.as_bytes());
    into.extend_from_slice(b" HTTP/1.1\r\n");
    let mut has_length = false;
    for (name, value) in &parts.headers {
        if *name == CONTENT_LENGTH {
            has_length = true;
        } else if *name != TRANSFER_ENCODING && (added.is_none() || *name != HOST) {
            lines::write(name, value.as_bytes(), into);
        }
    }
    if let Some(added) = added {
        added.write(into);
    }
    match length {
        // RFC 9110 section 8.6: said by methods that mostly have a body, and where the client said it.
        Length::Known(0) if !says_none(&parts.method) && !has_length => {}
        Length::Known(length) => lines::write_length(length, into),
        Length::Chunked => into.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
    into.extend_from_slice(b"\r\n");
}

fn says_none(method: &Method) -> bool {
    *method == Method::POST || *method == Method::PUT || *method == Method::PATCH
}

/// Reads an answer's head; `None` if it is not there as a whole.
pub fn read(bytes: &[u8], asked: &Method, wanted: Headers) -> Result<Option<Parsed>, Malformed> {
    let mut found = [const { MaybeUninit::uninit() }; limits::HEADERS];
    let mut answer = httparse::Response::new(&mut []);
    let parser = httparse::ParserConfig::default();
    let length = match parser.parse_response_with_uninit_headers(&mut answer, bytes, &mut found)? {
        httparse::Status::Complete(length) => length,
        httparse::Status::Partial => return Ok(None),
    };
    let status = answer.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(Malformed::Status)?;
    let is_old = answer.version == Some(0);
    let mut said = Said::default();
    for line in answer.headers.iter() {
        said.note(line)?;
    }
    let framing = framing(status, asked, is_old, &said)?;
    let keeps = status != StatusCode::SWITCHING_PROTOCOLS
        && !said.close
        && (!is_old || said.keep_alive)
        && !matches!(framing, Framing::UntilClose);
    let headers = match wanted {
        Headers::All => {
            let text = Bytes::copy_from_slice(&bytes[..length]);
            lines::headers(&text, bytes, answer.headers, ROOM).map_err(|_| Malformed::Header)?
        }
        Headers::OfBytes if said.is_bytes => {
            HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"))])
        }
        Headers::OfBytes => HeaderMap::new(),
    };
    Ok(Some(Parsed { head: AnswerHead { status, headers }, length, framing, keeps }))
}

/// What the headers say of the body's end and the connection's.
#[derive(Default)]
struct Said {
    length: Option<u64>,
    has_coding: bool,
    is_chunked: bool,
    close: bool,
    keep_alive: bool,
    is_bytes: bool,
}

impl Said {
    fn note(&mut self, line: &httparse::Header<'_>) -> Result<(), Malformed> {
        // By length first, because most headers are none of these.
        match line.name.len() {
            10 if line.name.eq_ignore_ascii_case(CONNECTION.as_str()) => {
                for option in list(line.value) {
                    self.close |= option.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            12 if line.name.eq_ignore_ascii_case(CONTENT_TYPE.as_str()) => {
                self.is_bytes = line.value.starts_with(b"application/octet-stream");
            }
            14 if line.name.eq_ignore_ascii_case(CONTENT_LENGTH.as_str()) => {
                for number in list(line.value) {
                    let length = decimal(number).ok_or(Malformed::Length)?;
                    if self.length.is_some_and(|other| other != length) {
                        return Err(Malformed::Length);
                    }
                    self.length = Some(length);
                }
            }
            17 if line.name.eq_ignore_ascii_case(TRANSFER_ENCODING.as_str()) => {
                self.has_coding = true;
                // The last coding of all lines is the one that says where the body ends.
                self.is_chunked =
                    list(line.value).next_back().is_some_and(|coding| coding.eq_ignore_ascii_case(b"chunked"));
            }
            _ => {}
        }
        Ok(())
    }
}

fn framing(status: StatusCode, asked: &Method, is_old: bool, said: &Said) -> Result<Framing, Malformed> {
    let has_none = status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        || *asked == Method::HEAD;
    if has_none {
        return Ok(Framing::Done);
    }
    if said.has_coding {
        // HTTP/1.0 has no chunks: whoever sends them does not mean what it says.
        return match (is_old, said.is_chunked) {
            (true, _) => Err(Malformed::Coding),
            (false, true) => Ok(Framing::Chunks(Chunks::default())),
            (false, false) => Ok(Framing::UntilClose),
        };
    }
    Ok(said.length.map_or(Framing::UntilClose, Framing::of_length))
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn check_write(request: http::request::Builder, length: Length, wanted: &str) {
        let (parts, ()) = request.body(()).expect("a request").into_parts();
        let mut text = Vec::new();
        write(&parts, None, length, &mut text);
        assert_eq!(String::from_utf8(text).expect("text"), wanted);
    }

    #[test]
    fn a_request_says_how_long_its_body_is() {
        let post = || Request::post("/a?b").header("Host", "h");
        let get = || Request::get("/");
        check_write(
            post().header("content-length", "3"),
            Length::Known(12_345),
            "POST /a?b HTTP/1.1\r\nhost: h\r\ncontent-length: 12345\r\n\r\n",
        );
        check_write(post(), Length::Known(0), "POST /a?b HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\n\r\n");
        check_write(get(), Length::Known(0), "GET / HTTP/1.1\r\n\r\n");
        check_write(
            get().header("content-length", "0"),
            Length::Known(0),
            "GET / HTTP/1.1\r\ncontent-length: 0\r\n\r\n",
        );
        check_write(
            get().header("transfer-encoding", "chunked"),
            Length::Chunked,
            "GET / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n",
        );
    }

    /// `wanted` is the status, the framing and whether the connection goes on.
    fn check(head: &str, wanted: Result<&str, Malformed>) {
        check_asked(&Method::GET, head, wanted);
    }

    fn check_asked(asked: &Method, head: &str, wanted: Result<&str, Malformed>) {
        let text = format!("HTTP/1.{}\r\n\r\n", head.replace('|', "\r\n"));
        let read = read(text.as_bytes(), asked, Headers::All);
        let seen = read.map(|parsed| {
            let parsed = parsed.expect("a whole head");
            assert_eq!(parsed.length, text.len());
            let framing = match parsed.framing {
                Framing::Done => "none".to_owned(),
                Framing::Length(length) => length.to_string(),
                Framing::Chunks(_) => "chunks".to_owned(),
                Framing::UntilClose => "close".to_owned(),
                Framing::Broken => "broken".to_owned(),
            };
            format!("{} {framing}{}", parsed.head.status.as_u16(), if parsed.keeps { " keeps" } else { "" })
        });
        assert_eq!(seen, wanted.map(str::to_owned), "{head}");
    }

    #[test]
    fn a_body_ends_where_the_head_says() {
        check("1 200 OK|Content-Length: 5", Ok("200 5 keeps"));
        check("1 200 OK|content-length: 0", Ok("200 none keeps"));
        check("1 200 OK|Content-Length: 5, 5|Content-Length: 5", Ok("200 5 keeps"));
        check("1 200 OK|Content-Length: 5|Connection: Close", Ok("200 5"));
        check("1 200 OK|Content-Length: 5|Connection: x, close", Ok("200 5"));
        check("1 200 OK|Transfer-Encoding: Chunked", Ok("200 chunks keeps"));
        check("1 200 OK|Transfer-Encoding: gzip, chunked|Content-Length: 7", Ok("200 chunks keeps"));
        check("1 200 OK|Transfer-Encoding: gzip|Transfer-Encoding: chunked", Ok("200 chunks keeps"));
        check("1 200 OK|Transfer-Encoding: chunked, gzip", Ok("200 close"));
        check("1 200 OK", Ok("200 close"));
        check("1 204 No Content|Content-Length: 5", Ok("204 none keeps"));
        check("1 304 Not Modified|Transfer-Encoding: chunked", Ok("304 none keeps"));
        check("1 100 Continue", Ok("100 none keeps"));
        check("1 101 Switching Protocols|Upgrade: x", Ok("101 none"));
        check("0 200 OK|Content-Length: 5", Ok("200 5"));
        check("0 200 OK|Content-Length: 5|Connection: keep-alive", Ok("200 5 keeps"));
        check_asked(&Method::HEAD, "1 200 OK|Content-Length: 5", Ok("200 none keeps"));
    }

    #[test]
    fn a_head_that_contradicts_itself_is_refused() {
        check("1 200 OK|Content-Length: 5|Content-Length: 6", Err(Malformed::Length));
        check("1 200 OK|Content-Length: 5, 6", Err(Malformed::Length));
        check("1 200 OK|Content-Length: +5", Err(Malformed::Length));
        check("1 200 OK|Content-Length: 99999999999999999999", Err(Malformed::Length));
        check("1 200 OK|Content-Length:", Err(Malformed::Length));
        check("0 200 OK|Transfer-Encoding: chunked", Err(Malformed::Coding));
        check("1 099 Low", Err(Malformed::Status));
        check("1 200 OK|Bad Name: x", Err(Malformed::Head(httparse::Error::HeaderName)));
        check("2 200 OK", Err(Malformed::Head(httparse::Error::Version)));
        let many = format!("1 200 OK{}", "|A: b".repeat(101));
        check(&many, Err(Malformed::Head(httparse::Error::TooManyHeaders)));
    }

    #[test]
    fn headers_are_read_as_far_as_anybody_reads_them() {
        let text =
            b"HTTP/1.1 200 OK\r\nX-A: 1\r\nContent-Type: text/plain\r\nEmpty:\r\nx-a: 2\r\nContent-Length: 2\r\n\r\nok";
        let read = |wanted| read(text, &Method::GET, wanted).expect("well-formed").expect("whole").head.headers;
        let headers = read(Headers::All);
        assert_eq!(headers.get_all("x-a").iter().collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(
            (&headers["content-type"], &headers["empty"], headers.len()),
            (&"text/plain".parse().unwrap(), &"".parse().unwrap(), 5)
        );
        assert!(read(Headers::OfBytes).is_empty());
        let bytes = b"HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\nX: y\r\nContent-Length: 0\r\n\r\n";
        let read = super::read(bytes, &Method::GET, Headers::OfBytes).expect("well-formed").expect("whole");
        assert_eq!(read.head.headers[CONTENT_TYPE], "application/octet-stream");
    }

    #[test]
    fn a_head_that_is_not_whole_is_waited_for() {
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n";
        for length in 0..text.len() {
            assert!(read(&text[..length], &Method::GET, Headers::All).expect("so far so good").is_none());
        }
    }
}
