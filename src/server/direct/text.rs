//! What a request and an answer are as text, where they are as nearly all are.
//!
//! Parsing is httparse's. A request is read here only if it stands in what came from its first byte to its last and says
//! nothing unusual; whatever else it may be, a broken one too, is hyper's to read. So what is read here must be just what hyper
//! would read, to which a property test holds it.

use std::cell::RefCell;
use std::mem::MaybeUninit;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, EXPECT, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderValue, Method, Request, StatusCode, Uri};

use crate::model::answer::Answer;
use crate::model::body::Body;
use crate::model::clock::Timestamp;
use crate::model::limits;
use crate::model::lines::{self, decimal, list};

/// A request that came as a whole.
#[derive(Debug)]
pub struct Whole {
    pub request: Box<Request<Body>>,
    /// It has an `Upgrade`.
    pub wants_upgrade: bool,
    /// It is its client's last.
    pub closes: bool,
}

/// Reads the request that `bytes` are, if it is one of the usual kind.
pub fn read(bytes: &[u8]) -> Option<Whole> {
    let mut found = [const { MaybeUninit::uninit() }; limits::HEADERS];
    let mut request = httparse::Request::new(&mut []);
    let parser = httparse::ParserConfig::default();
    let parsed = parser.parse_request_with_uninit_headers(&mut request, bytes, &mut found);
    let Ok(httparse::Status::Complete(length)) = parsed else { return None };
    let target = request.path.filter(|target| target.starts_with('/'))?;
    if request.version != Some(1) || length > limits::REQUEST_HEAD {
        return None;
    }
    let said = Said::of(request.headers)?;
    let body = &bytes[length..];
    if body.len() as u64 != said.length.unwrap_or(0) {
        return None;
    }
    let body = if body.is_empty() { Bytes::new() } else { Bytes::copy_from_slice(body) };
    let mut whole = Box::new(Request::new(Body::Whole(body)));
    *whole.method_mut() = method(request.method?)?;
    // Copied once; what the request says are pieces of it.
    let text = Bytes::copy_from_slice(&bytes[..length]);
    *whole.uri_mut() = Uri::from_maybe_shared(lines::piece(&text, bytes, target.as_bytes())).ok()?;
    *whole.headers_mut() = lines::headers(&text, bytes, request.headers, 0).ok()?;
    Some(Whole { request: whole, wants_upgrade: said.upgrade, closes: said.close })
}

/// HEAD is left out, because its answer is none of the usual kind, and so is CONNECT.
fn method(name: &str) -> Option<Method> {
    Some(match name {
        "GET" => Method::GET,
        "POST" => Method::POST,
        "PUT" => Method::PUT,
        "PATCH" => Method::PATCH,
        "DELETE" => Method::DELETE,
        "OPTIONS" => Method::OPTIONS,
        _ => return None,
    })
}

/// What the headers say of the request itself.
#[derive(Default)]
struct Said {
    length: Option<u64>,
    upgrade: bool,
    close: bool,
}

impl Said {
    /// `None` if they say anything unusual.
    fn of(headers: &[httparse::Header<'_>]) -> Option<Self> {
        let mut said = Self::default();
        for line in headers {
            // By length first, because most headers are none of these.
            let is = |name: &http::HeaderName| line.name.eq_ignore_ascii_case(name.as_str());
            match line.name.len() {
                2 if is(&TE) => return None,
                6 if is(&EXPECT) => return None,
                7 if is(&UPGRADE) => said.upgrade = true,
                7 if is(&TRAILER) => return None,
                10 if is(&CONNECTION) && !line.value.is_ascii() => return None,
                10 if is(&CONNECTION) => {
                    said.close |= list(line.value).any(|option| option.eq_ignore_ascii_case(b"close"));
                }
                14 if is(&CONTENT_LENGTH) && said.length.is_some() => return None,
                14 if is(&CONTENT_LENGTH) => said.length = Some(decimal(line.value)?),
                17 if is(&TRANSFER_ENCODING) => return None,
                _ => {}
            }
        }
        Some(said)
    }
}

/// An answer as text.
pub struct Written<'a> {
    pub out: Vec<u8>,
    /// What follows it.
    pub body: &'a [u8],
    /// Another request may follow on the connection.
    pub keeps: bool,
}

/// A body up to this length is written together with its head, which costs less than writing from two places.
const COPIED_BODY: usize = 4096;

/// Lines that the gateway adds, and a status line.
const FRAME: usize = 128;

/// Writes an answer to a request that was read here; `None` if it is unusual: it flows, or speaks of its own framing.
pub fn write(answer: &Answer) -> Option<Written<'_>> {
    let (status, headers) = (answer.status(), answer.headers());
    let Body::Whole(body) = answer.body() else { return None };
    let has_body = !(status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED));
    let body = if has_body { &body[..] } else { b"" };
    let copied = if body.len() <= COPIED_BODY { body.len() } else { 0 };
    let of_headers: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    let mut out = Vec::with_capacity(FRAME + of_headers + copied);
    write_status(status, &mut out);
    let (mut has_length, mut has_date, mut keeps) = (!has_body, false, status != StatusCode::SWITCHING_PROTOCOLS);
    for (name, value) in headers {
        if *name == CONTENT_LENGTH {
            if !has_length {
                lines::write_length(body.len() as u64, &mut out);
                has_length = true;
            }
            continue;
        }
        if *name == TRANSFER_ENCODING || *name == TRAILER {
            // Where there is no body, there is nothing to say of it.
            if has_body {
                return None;
            }
            continue;
        }
        has_date |= *name == DATE;
        keeps &= *name != CONNECTION || !closes(value);
        lines::write(name, value.as_bytes(), &mut out);
    }
    if !has_length {
        lines::write_length(body.len() as u64, &mut out);
    }
    if !has_date {
        write_date(&mut out);
    }
    out.extend_from_slice(b"\r\n");
    let (together, apart) = body.split_at(copied);
    out.extend_from_slice(together);
    Some(Written { out, body: apart, keeps })
}

fn write_status(status: StatusCode, out: &mut Vec<u8>) {
    if status == StatusCode::OK {
        return out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    }
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or("<none>").as_bytes());
    out.extend_from_slice(b"\r\n");
}

thread_local! {
    /// The line of the second that it was last written for.
    static DATE_LINE: RefCell<(u64, String)> = const { RefCell::new((u64::MAX, String::new())) };
}

fn write_date(out: &mut Vec<u8>) {
    let second = Timestamp::of_last_tick().0 / 1000;
    DATE_LINE.with_borrow_mut(|(of, line)| {
        if *of != second {
            (*of, *line) = (second, format!("date: {}\r\n", Timestamp(second * 1000).http_date()));
        }
        out.extend_from_slice(line.as_bytes());
    });
}

fn closes(connection: &HeaderValue) -> bool {
    list(connection.as_bytes()).any(|option| option.eq_ignore_ascii_case(b"close"))
}

/// The client said that it asks no more, so the answer says that it is the last.
pub fn close(answer: &mut Answer) {
    let headers = answer.headers_mut();
    if !headers.get_all(CONNECTION).iter().any(closes) {
        headers.append(CONNECTION, HeaderValue::from_static("close"));
    }
}

/// A request to which the answer is written as it would have been to the one that was read, and what came behind that.
pub fn like_first(closes: bool, early: &[u8]) -> Bytes {
    let line: &[u8] = if closes { b"GET / HTTP/1.1\r\nconnection: close\r\n\r\n" } else { b"GET / HTTP/1.1\r\n\r\n" };
    Bytes::from([line, early].concat())
}
