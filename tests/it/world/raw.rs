//! A client whose every byte the test decides: what is split, joined, or behind what.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use super::within;

pub const CONTINUE: u8 = 0x0;
pub const TEXT: u8 = 0x1;
pub const BINARY: u8 = 0x2;
pub const CLOSE: u8 = 0x8;
pub const PING: u8 = 0x9;
pub const PONG: u8 = 0xa;

pub struct Raw {
    socket: BufReader<TcpStream>,
    address: SocketAddr,
}

/// One frame of a client, masked.
pub fn frame(opcode: u8, is_final: bool, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x5a, 0x00, 0xff, 0x13];
    let mut frame = vec![opcode | if is_final { 0x80 } else { 0 }];
    match payload.len() {
        length @ 0..=125 => frame.push(0x80 | length as u8),
        length @ 126..=65_535 => {
            frame.push(0x80 | 126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend(MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

pub fn text(text: &str) -> Vec<u8> {
    frame(TEXT, true, text.as_bytes())
}

pub fn ping(payload: &str) -> Vec<u8> {
    frame(PING, true, payload.as_bytes())
}

pub fn close(code: u16, reason: &str) -> Vec<u8> {
    frame(CLOSE, true, &[&code.to_be_bytes(), reason.as_bytes()].concat())
}

impl Raw {
    pub async fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).await.expect("the gateway listens");
        socket.set_nodelay(true).expect("a TCP socket");
        Self { socket: BufReader::new(socket), address }
    }

    pub fn handshake(&self, path: &str) -> Vec<u8> {
        let address = self.address;
        format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        .into_bytes()
    }

    /// Reads the head of the answer, which must be a 101.
    pub async fn accepted(&mut self) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(within("the answer's head", self.socket.read_u8()).await.expect("an answer"));
        }
        assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    }

    pub async fn write(&mut self, bytes: &[u8]) {
        within("room to write", self.socket.write_all(bytes)).await.expect("an open socket");
    }

    /// Opcode and payload of the next message or control frame, its fragments joined.
    pub async fn next(&mut self) -> (u8, Vec<u8>) {
        let mut message = None;
        loop {
            let (is_final, opcode, payload) = within("a frame", self.frame()).await.expect("a frame");
            let (kind, whole) = match message.take() {
                Some((kind, mut begun)) => {
                    assert_eq!(opcode, CONTINUE, "nothing stands between the fragments of what the gateway sends");
                    Vec::extend(&mut begun, payload);
                    (kind, begun)
                }
                None => (opcode, payload),
            };
            if is_final {
                return (kind, whole);
            }
            message = Some((kind, whole));
        }
    }

    /// The next message, past control frames.
    pub async fn text(&mut self) -> String {
        loop {
            match self.next().await {
                (TEXT, payload) => return String::from_utf8(payload).expect("UTF-8"),
                (PING | PONG, _) => {}
                (opcode, payload) => panic!("opcode {opcode} in place of a text: {payload:?}"),
            }
        }
    }

    /// The code and reason of the gateway's Close, past everything before it.
    pub async fn closed(&mut self) -> (u16, String) {
        loop {
            if let (CLOSE, payload) = self.next().await {
                let (code, reason) = payload.split_first_chunk().expect("a code");
                return (u16::from_be_bytes(*code), String::from_utf8(reason.to_vec()).expect("UTF-8"));
            }
        }
    }

    async fn frame(&mut self) -> std::io::Result<(bool, u8, Vec<u8>)> {
        let (first, second) = (self.socket.read_u8().await?, self.socket.read_u8().await?);
        assert_eq!(second & 0x80, 0, "a server does not mask");
        let length = match second {
            126 => self.socket.read_u16().await?.into(),
            127 => self.socket.read_u64().await?,
            short => short.into(),
        };
        let mut payload = vec![0; length as usize];
        self.socket.read_exact(&mut payload).await?;
        Ok((first & 0x80 != 0, first & 0x0f, payload))
    }
}
