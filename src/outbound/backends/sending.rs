//! A request's body on its way to a backend of HTTP/1.1, while it still comes: by its length, or in chunks.

use std::io::Write as _;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, TRAILER, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName};
use hyper::body::Body as _;

use super::broken::Broken;
use super::head::Length;
use crate::model::body::Flow;
use crate::model::lines;

pub struct Sending {
    flow: Flow,
    left: Left,
}

enum Left {
    /// So many bytes.
    Known(u64),
    /// Chunks, and behind them trailers of the announced names.
    Chunked(Box<[String]>),
}

/// A piece of the body, and what is written behind it.
type Piece = (Bytes, &'static [u8]);

impl Sending {
    /// How the length of a flowing body is told: as the headers have it, or as is known of the body.
    pub fn length(headers: &HeaderMap, flow: &Flow) -> Length {
        if headers.contains_key(TRANSFER_ENCODING) {
            return Length::Chunked;
        }
        let said = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        said.or(flow.size_hint().exact()).map_or(Length::Chunked, Length::Known)
    }

    pub fn new(flow: Flow, length: Length, headers: &HeaderMap) -> Self {
        let left = match length {
            Length::Known(length) => Left::Known(length),
            Length::Chunked => Left::Chunked(announced(headers)),
        };
        Self { flow, left }
    }

    /// Writes what belongs in front of the body's next piece into `out`, and gives back the piece; `None` at the end.
    pub fn poll(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Poll<Result<Option<Piece>, Broken>> {
        loop {
            let frame = ready!(self.flow.as_mut().poll_frame(cx)).transpose().map_err(Broken::Request)?;
            let Some(frame) = frame else { return Poll::Ready(self.end(None, out).map(|()| None)) };
            match frame.into_data() {
                Ok(piece) if piece.is_empty() => {}
                Ok(piece) => return Poll::Ready(self.piece(piece, out).map(Some)),
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap_or_default();
                    return Poll::Ready(self.end(Some(trailers), out).map(|()| None));
                }
            }
        }
    }

    fn piece(&mut self, piece: Bytes, out: &mut Vec<u8>) -> Result<Piece, Broken> {
        match &mut self.left {
            Left::Known(left) => {
                let Some(less) = left.checked_sub(piece.len() as u64) else {
                    return Err(Broken::Request("it is longer than its length".into()));
                };
                *left = less;
                Ok((piece, b""))
            }
            Left::Chunked(_) => {
                let _ = write!(out, "{:x}\r\n", piece.len());
                Ok((piece, b"\r\n"))
            }
        }
    }

    fn end(&mut self, trailers: Option<HeaderMap>, out: &mut Vec<u8>) -> Result<(), Broken> {
        let names = match &self.left {
            Left::Known(0) => return Ok(()),
            Left::Known(_) => return Err(Broken::Request("it is shorter than its length".into())),
            Left::Chunked(names) => names,
        };
        out.extend_from_slice(b"0\r\n");
        for (name, value) in trailers.iter().flatten() {
            if names.iter().any(|announced| announced == name.as_str()) {
                lines::write(name, value.as_bytes(), out);
            }
        }
        out.extend_from_slice(b"\r\n");
        Ok(())
    }
}

/// The trailers that a request announces, without those that may not come so late (RFC 9110 section 6.5.1).
fn announced(headers: &HeaderMap) -> Box<[String]> {
    let lines = headers.get_all(TRAILER).iter().filter_map(|line| line.to_str().ok());
    let names = lines.flat_map(|line| line.split(',')).map(|name| name.trim().to_ascii_lowercase());
    names.filter(|name| HeaderName::from_bytes(name.as_bytes()).is_ok() && !is_too_late(name)).collect()
}

/// Headers that say how a message is framed, sent on, asked for, or read.
fn is_too_late(name: &str) -> bool {
    matches!(
        name,
        "authorization"
            | "cache-control"
            | "content-encoding"
            | "content-length"
            | "content-range"
            | "content-type"
            | "host"
            | "max-forwards"
            | "set-cookie"
            | "te"
            | "trailer"
            | "transfer-encoding"
    )
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use http_body_util::StreamBody;
    use hyper::body::Frame;

    use super::*;
    use crate::model::body::Body;

    async fn sent(length: Length, announced: &'static str, pieces: &[&'static str]) -> Result<String, String> {
        let mut headers = HeaderMap::new();
        headers.insert(TRAILER, announced.parse().expect("a header"));
        let frames: Vec<_> = pieces
            .iter()
            .map(|piece| match piece.split_once('=') {
                Some((name, value)) => {
                    let name = HeaderName::from_static(name);
                    Ok(Frame::trailers(HeaderMap::from_iter([(name, value.parse().expect("a value"))])))
                }
                None => Ok(Frame::data(Bytes::from_static(piece.as_bytes()))),
            })
            .collect();
        let Body::Flowing(flow) = Body::flowing(StreamBody::new(futures_util::stream::iter(frames))) else {
            unreachable!("it flows")
        };
        let mut sending = Sending::new(flow, length, &headers);
        let mut out = Vec::new();
        while let Some((piece, end)) =
            poll_fn(|cx| sending.poll(cx, &mut out)).await.map_err(|error| error.to_string())?
        {
            out.extend_from_slice(&piece);
            out.extend_from_slice(end);
        }
        Ok(String::from_utf8(out).expect("text"))
    }

    #[tokio::test]
    async fn a_body_is_sent_by_its_length_or_in_chunks() {
        assert_eq!(sent(Length::Known(5), "", &["ab", "", "cde"]).await, Ok("abcde".into()));
        assert_eq!(sent(Length::Chunked, "", &[]).await, Ok("0\r\n\r\n".into()));
        let long = "0123456789abcdef";
        assert_eq!(
            sent(Length::Chunked, "", &["ab", "", long]).await,
            Ok(format!("2\r\nab\r\n10\r\n{long}\r\n0\r\n\r\n"))
        );
    }

    #[tokio::test]
    async fn trailers_go_along_if_they_were_announced() {
        let sum = |announced| sent(Length::Chunked, announced, &["a", "x-sum=1"]);
        assert_eq!(sum("y, X-Sum").await, Ok("1\r\na\r\n0\r\nx-sum: 1\r\n\r\n".into()));
        assert_eq!(sum("y").await, Ok("1\r\na\r\n0\r\n\r\n".into()));
        let late = sent(Length::Chunked, "content-length", &["a", "content-length=1"]);
        assert_eq!(late.await, Ok("1\r\na\r\n0\r\n\r\n".into()));
    }

    #[tokio::test]
    async fn a_body_of_another_length_is_no_body() {
        let broken = |what: &str| Err(format!("the request's body broke off: it is {what} than its length"));
        assert_eq!(sent(Length::Known(1), "", &["ab"]).await, broken("longer"));
        assert_eq!(sent(Length::Known(3), "", &["ab"]).await, broken("shorter"));
    }
}
