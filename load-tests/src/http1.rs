//! A lean HTTP/1.1 client that keeps its connection, and the parsing it shares with the backend.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::net;
use crate::ws::Io;

/// How the end of a body is known.
#[derive(Clone, Copy, PartialEq)]
pub enum Framing {
    Length(usize),
    Chunked,
}

impl Framing {
    pub fn of(headers: &[httparse::Header<'_>]) -> Self {
        for header in headers {
            if header.name.eq_ignore_ascii_case("content-length") {
                let length = std::str::from_utf8(header.value).ok().and_then(|value| value.trim().parse().ok());
                return Framing::Length(length.unwrap_or(0));
            }
            if header.name.eq_ignore_ascii_case("transfer-encoding") {
                return Framing::Chunked;
            }
        }
        Framing::Length(0)
    }

    /// The body that `bytes` begin with and how many bytes it took, once it is all there.
    pub fn read(self, bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
        match self {
            Framing::Length(n) => bytes.get(..n).map(|body| (body.to_vec(), n)),
            Framing::Chunked => read_chunks(bytes),
        }
    }
}

fn read_chunks(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let line = memchr::memmem::find(&bytes[at..], b"\r\n")?;
        let size = std::str::from_utf8(&bytes[at..at + line]).ok()?.split(';').next()?.trim();
        let size = usize::from_str_radix(size, 16).ok()?;
        at += line + 2;
        // The last chunk is empty. No peer measured here sends trailers.
        body.extend_from_slice(bytes.get(at..at + size)?);
        at += size + 2;
        if bytes.len() < at {
            return None;
        }
        if size == 0 {
            return Some((body, at));
        }
    }
}

pub struct Response {
    pub status: u16,
    pub body: Vec<u8>,
}

impl Response {
    /// Nothing for a 2xx, else an error that shows the answer.
    pub fn succeeded(&self) -> io::Result<()> {
        if (200..300).contains(&self.status) {
            return Ok(());
        }
        let shown = String::from_utf8_lossy(&self.body[..self.body.len().min(200)]);
        Err(io::Error::other(format!("status {}: {shown}", self.status)))
    }
}

/// One connection, opened when first needed and again after the server closed it.
pub struct HttpConnection {
    address: SocketAddr,
    stream: Option<TcpStream>,
    buf: Vec<u8>,
    out: Vec<u8>,
}

impl HttpConnection {
    pub fn new(address: SocketAddr) -> Self {
        HttpConnection { address, stream: None, buf: Vec::with_capacity(4096), out: Vec::with_capacity(1024) }
    }

    pub async fn post(&mut self, authority: &str, path: &str, extra: &str, body: &[u8]) -> io::Result<Response> {
        self.request("POST", authority, path, extra, body).await
    }

    pub async fn request(
        &mut self,
        method: &str,
        authority: &str,
        path: &str,
        extra: &str,
        body: &[u8],
    ) -> io::Result<Response> {
        use std::io::Write;
        let mut out = std::mem::take(&mut self.out);
        out.clear();
        write!(out, "{method} {path} HTTP/1.1\r\nHost: {authority}\r\n{extra}")?;
        if !(method == "GET" && body.is_empty()) {
            write!(out, "Content-Length: {}\r\n", body.len())?;
        }
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(body);
        let kept = self.stream.is_some();
        let mut answer = self.exchange(&out).await;
        if answer.is_err() && kept {
            // A server may close an idle connection at any time: that is no error of this request.
            answer = self.exchange(&out).await;
        }
        self.out = out;
        answer
    }

    async fn exchange(&mut self, out: &[u8]) -> io::Result<Response> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => net::connect(self.address, None).await?,
        };
        stream.write_all(out).await?;
        self.buf.clear();
        loop {
            if let Some((response, close)) = parse_response(&self.buf)? {
                self.stream = (!close).then_some(stream);
                return Ok(response);
            }
            if stream.read_buf(&mut self.buf).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// One GET on a stream that somebody else keeps, with an answer that must be a 2xx and leave it open.
pub async fn get(io: &mut Io, authority: &str, path: &str, extra: &str) -> io::Result<()> {
    io.write_all(format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\n{extra}\r\n").as_bytes()).await?;
    let mut answer: Vec<u8> = Vec::new();
    loop {
        if let Some((response, close)) = parse_response(&answer)? {
            response.succeeded()?;
            return if close { Err(io::Error::other("the server closes behind its answer")) } else { Ok(()) };
        }
        let mut bytes = [0u8; 1024];
        let n = io.read(&mut bytes).await?;
        answer.extend_from_slice(&bytes[..n]);
    }
}

/// The response, and whether the server closes behind it.
fn parse_response(bytes: &[u8]) -> io::Result<Option<(Response, bool)>> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = response.parse(bytes).map_err(io::Error::other)? else { return Ok(None) };
    let status = response.code.unwrap_or(0);
    let framing = if matches!(status, 204 | 304) { Framing::Length(0) } else { Framing::of(response.headers) };
    let close = response
        .headers
        .iter()
        .any(|header| header.name.eq_ignore_ascii_case("connection") && header.value.eq_ignore_ascii_case(b"close"));
    Ok(framing.read(&bytes[head..]).map(|(body, _)| (Response { status, body }, close)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(response: &str, expected: &str) {
        for end in 0..response.len() {
            assert!(parse_response(&response.as_bytes()[..end]).unwrap().is_none(), "{end} bytes of {response:?}");
        }
        let (answer, _) = parse_response(response.as_bytes()).unwrap().unwrap();
        assert_eq!(String::from_utf8(answer.body).unwrap(), expected);
    }

    #[test]
    fn a_response_is_read_once_it_is_whole() {
        check("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "hello");
        check("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n", "hello");
        check("HTTP/1.1 204 No Content\r\n\r\n", "");
    }
}
