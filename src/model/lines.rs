//! The lines of an HTTP/1.1 head: written, and kept as headers once httparse has found them.

use bytes::Bytes;
use http::header::{InvalidHeaderName, InvalidHeaderValue};
use http::{HeaderMap, HeaderName, HeaderValue};

pub fn write(name: &HeaderName, value: &[u8], into: &mut Vec<u8>) {
    into.extend_from_slice(name.as_str().as_bytes());
    into.extend_from_slice(b": ");
    into.extend_from_slice(value);
    into.extend_from_slice(b"\r\n");
}

pub fn write_length(length: u64, into: &mut Vec<u8>) {
    into.extend_from_slice(b"content-length: ");
    write_decimal(length, into);
    into.extend_from_slice(b"\r\n");
}

fn write_decimal(number: u64, into: &mut Vec<u8>) {
    // The longest number has twenty digits.
    let (mut digits, mut at, mut left) = ([0; 20], 20, number);
    loop {
        at -= 1;
        digits[at] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    into.extend_from_slice(&digits[at..]);
}

/// A line that is none.
#[derive(Debug, thiserror::Error)]
pub enum Wrong {
    #[error(transparent)]
    Name(#[from] InvalidHeaderName),
    #[error(transparent)]
    Value(#[from] InvalidHeaderValue),
}

/// The headers that `lines` of `head` are, with room for some more. `text` is the same as `head`, and the values are pieces of
/// it.
pub fn headers(text: &Bytes, head: &[u8], lines: &[httparse::Header<'_>], room: usize) -> Result<HeaderMap, Wrong> {
    let mut headers = HeaderMap::with_capacity(lines.len() + room);
    for line in lines {
        let name = HeaderName::from_bytes(line.name.as_bytes())?;
        let value = match line.value.is_empty() {
            true => HeaderValue::from_static(""),
            false => HeaderValue::from_maybe_shared(piece(text, head, line.value))?,
        };
        headers.append(name, value);
    }
    Ok(headers)
}

/// The same piece of the copy as `piece` is of the original.
pub fn piece(copy: &Bytes, original: &[u8], piece: &[u8]) -> Bytes {
    let start = piece.as_ptr() as usize - original.as_ptr() as usize;
    copy.slice(start..start + piece.len())
}

/// The members of a list, between its commas.
pub fn list(value: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

/// Digits and nothing else.
pub fn decimal(text: &[u8]) -> Option<u64> {
    let is_number = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    is_number.then(|| std::str::from_utf8(text).ok()?.parse().ok()).flatten()
}
