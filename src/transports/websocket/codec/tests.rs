//! The codec beside tungstenite's, which is the slow twin that it must agree with.

use std::io::{Read, Write};

use proptest::prelude::*;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message as Theirs, WebSocket};

use super::*;

const BOUNDS: Bounds = Bounds { message: 300, frame: 200 };

/// A socket on which nothing more comes, and that takes everything.
struct Nowhere(Vec<u8>);

impl Read for Nowhere {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let length = self.0.len().min(into.len());
        into[..length].copy_from_slice(&self.0[..length]);
        self.0.drain(..length);
        Ok(length)
    }
}

impl Write for Nowhere {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn codec() -> Codec<tokio::io::DuplexStream> {
    Codec::new(tokio::io::duplex(1).0, Bytes::new())
}

/// What the codec makes of bytes that come in pieces of this size, up to the Close or what is none.
fn ours(bytes: &[u8], size: usize) -> (Vec<String>, Option<Failure>) {
    let mut codec = codec();
    let mut seen = Vec::new();
    for piece in bytes.chunks(size) {
        let mut input = piece;
        while !input.is_empty() {
            match codec.take(&mut input, BOUNDS) {
                Ok(Some(message)) => {
                    let is_close = matches!(message, Message::Close(_));
                    seen.push(match message {
                        Message::Close(Some(frame)) => format!("close {} {}", u16::from(frame.code), frame.reason),
                        Message::Close(None) => "close".into(),
                        Message::Ping => "ping".into(),
                        Message::Pong => "pong".into(),
                        Message::Text(text) => format!("text {text:?}"),
                        Message::Binary(bytes) => format!("binary {bytes:?}"),
                    });
                    if is_close {
                        return (seen, None);
                    }
                }
                Ok(None) => assert!(input.is_empty(), "it takes all, or gives a message"),
                Err(failure) => return (seen, Some(failure)),
            }
        }
    }
    (seen, Some(Failure::Lost))
}

fn theirs(bytes: &[u8]) -> (Vec<String>, Option<Failure>) {
    let config = WebSocketConfig::default().max_message_size(Some(BOUNDS.message)).max_frame_size(Some(BOUNDS.frame));
    let mut socket = WebSocket::from_raw_socket(Nowhere(bytes.to_vec()), Role::Server, Some(config));
    let mut seen = Vec::new();
    loop {
        match socket.read() {
            Ok(Theirs::Close(frame)) => {
                seen.push(
                    frame.map_or("close".into(), |frame| format!("close {} {}", u16::from(frame.code), frame.reason)),
                );
                return (seen, None);
            }
            Ok(Theirs::Ping(_)) => seen.push("ping".into()),
            Ok(Theirs::Pong(_)) => seen.push("pong".into()),
            Ok(Theirs::Text(text)) => seen.push(format!("text {:?}", Bytes::from(text))),
            Ok(Theirs::Binary(bytes)) => seen.push(format!("binary {bytes:?}")),
            Ok(Theirs::Frame(_)) => unreachable!("it gives whole messages"),
            Err(Error::Capacity(_)) => return (seen, Some(Failure::TooBig)),
            Err(Error::Utf8(_)) => return (seen, Some(Failure::NotUtf8)),
            Err(Error::Protocol(
                tokio_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
            )) => return (seen, Some(Failure::Lost)),
            Err(Error::Protocol(_)) => return (seen, Some(Failure::Protocol)),
            Err(_) => return (seen, Some(Failure::Lost)),
        }
    }
}

/// A client's frame, as it may be or not. The first byte is the header's.
fn frame(first: u8, mask: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
    let bit = if mask.is_some() { 0x80 } else { 0 };
    let mut bytes = vec![first];
    match payload.len() {
        length @ ..126 => bytes.push(bit | length as u8),
        length @ ..65_536 => {
            bytes.push(bit | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        length => {
            bytes.push(bit | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    let mask_bytes = mask.unwrap_or_default();
    bytes.extend(mask.iter().flatten());
    bytes.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ mask_bytes[at % 4]));
    bytes
}

const MASK: Option<[u8; 4]> = Some([1, 200, 3, 4]);
const FIN: u8 = 0x80;
const CONTINUE: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;

fn check(frames: &[Vec<u8>], wanted: &[&str], end: Option<Failure>) {
    let bytes = frames.concat();
    for size in [1, 2, 3, 7, 64, 1000] {
        let (seen, failure) = ours(&bytes, size);
        assert_eq!((seen.iter().map(String::as_str).collect::<Vec<_>>(), failure), (wanted.to_vec(), end), "{size}");
    }
}

#[test]
fn messages_come_whole_in_fragments_and_between_control_frames() {
    let lost = Some(Failure::Lost);
    check(&[frame(FIN | TEXT, MASK, b"hello")], &["text b\"hello\""], lost);
    check(
        &[frame(FIN | TEXT, MASK, b""), frame(FIN | BINARY, MASK, &[255])],
        &["text b\"\"", "binary b\"\\xff\""],
        lost,
    );
    let fragments =
        [frame(TEXT, MASK, b"he"), frame(FIN | PING, MASK, b"!"), frame(CONTINUE, MASK, b"l"), frame(FIN, MASK, b"lo")];
    check(&fragments, &["ping", "text b\"hello\""], lost);
    check(&[frame(FIN | CLOSE, MASK, b"\x03\xe8bye"), frame(FIN | TEXT, MASK, b"x")], &["close 1000 bye"], None);
    check(&[frame(FIN | CLOSE, MASK, b"")], &["close"], None);
    check(&[frame(FIN | CLOSE, MASK, b"\x03\xedno")], &["close 1002 Protocol violation"], None);
}

#[test]
fn what_breaks_a_rule_ends_it() {
    let (protocol, too_big, not_utf8) = (Some(Failure::Protocol), Some(Failure::TooBig), Some(Failure::NotUtf8));
    check(&[frame(FIN | TEXT, None, b"x")], &[], protocol);
    check(&[frame(FIN | 0x40 | TEXT, MASK, b"x")], &[], protocol);
    check(&[frame(FIN | 3, MASK, b"x")], &[], protocol);
    check(&[frame(FIN | 11, MASK, b"x")], &[], protocol);
    check(&[frame(PING, MASK, b"x")], &[], protocol);
    check(&[frame(FIN | PING, MASK, &[0; 126])], &[], protocol);
    check(&[frame(FIN | CONTINUE, MASK, b"x")], &[], protocol);
    check(&[frame(TEXT, MASK, b"x"), frame(FIN | TEXT, MASK, b"y")], &[], protocol);
    check(&[frame(FIN | CLOSE, MASK, b"x")], &[], protocol);
    check(&[frame(FIN | CLOSE, MASK, b"\x03\xe8\xff")], &[], not_utf8);
    check(&[frame(FIN | TEXT, MASK, &[255])], &[], not_utf8);
    check(&[frame(FIN | TEXT, MASK, &[b'x'; 201])], &[], too_big);
    check(&[frame(TEXT, MASK, &[b'x'; 200]), frame(FIN, MASK, &[b'x'; 101])], &[], too_big);
}

#[test]
fn a_flood_of_pings_takes_no_more_room_than_a_few() {
    let mut codec = codec();
    for _ in 0..1000 {
        let ping = frame(FIN | PING, MASK, &[b'x'; 125]);
        assert_eq!(codec.take(&mut &ping[..], BOUNDS), Ok(Some(Message::Ping)));
    }
    assert!(codec.out.len() < GATHERED + 127 && codec.pong.is_some());
}

#[test]
fn an_announced_length_takes_no_room() {
    let mut codec = codec();
    let bounds = Bounds { message: 1 << 30, frame: 1 << 30 };
    let start = &frame(FIN | TEXT, MASK, &vec![0; 1 << 20])[..20];
    assert_eq!(codec.take(&mut &start[..], bounds), Ok(None));
    let partial = codec.partial.expect("a message has begun");
    assert!(partial.message.is_some_and(|(_, message)| message.capacity() <= 2 * TRUSTED));
}

fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let opcode = prop_oneof![8 => Just(FIN | TEXT), 4 => Just(TEXT), 4 => Just(FIN), 4 => Just(CONTINUE), 4 => Just(FIN | BINARY),
        2 => Just(FIN | PING), 1 => Just(FIN | 10), 1 => Just(FIN | CLOSE), 1 => any::<u8>()];
    let mask = prop_oneof![20 => any::<[u8; 4]>().prop_map(Some), 1 => Just(None)];
    let payload = prop_oneof![8 => "[a-z]{0,20}".prop_map(String::into_bytes), 2 => "[a-z]{100,220}".prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..8)];
    (opcode, mask, payload).prop_map(|(first, mask, payload)| frame(first, mask, &payload))
}

proptest! {
    /// Whatever a client sends, and however it arrives, both make the same of it.
    #[test]
    fn both_codecs_agree(frames in prop::collection::vec(any_frame(), 0..8), size in 1usize..300) {
        let bytes = frames.concat();
        let (seen, failure) = ours(&bytes, size);
        let (wanted, their_failure) = theirs(&bytes);
        match (failure, their_failure) {
            // Of bytes that are no text in the middle of a message we say so at its end, when more may be wrong.
            (_, Some(Failure::NotUtf8)) => prop_assert!(seen.starts_with(&wanted)),
            _ => {
                prop_assert_eq!(seen, wanted);
                prop_assert_eq!(failure.is_some(), their_failure.is_some());
            }
        }
    }
}
