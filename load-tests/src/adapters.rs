//! The dialects of the servers that the gateway is compared with: what a client says first, and how one publishes.

use std::io;

use clap::ValueEnum;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::ws::{BINARY, Connection, TEXT};

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub enum Adapter {
    /// Nothing but WebSocket; publish by POST of the payload, as with `@connections` and nchan
    Plain,
    /// Nothing but WebSocket; publish by Pushpin's JSON
    Pushpin,
    /// NATS in WebSocket messages; publish over TCP, without an answer
    Nats,
    /// MQTT in WebSocket messages; publish over TCP with QoS 0, without an answer
    Mqtt,
    /// Socket.IO 4 in WebSocket messages; publish as `plain`
    SocketIo,
}

impl Adapter {
    pub fn upgrade_header(self) -> &'static str {
        if self == Adapter::Mqtt { "Sec-WebSocket-Protocol: mqtt\r\n" } else { "" }
    }

    /// Whether publishing is a stream of commands, and not HTTP.
    pub fn publishes_over_tcp(self) -> bool {
        matches!(self, Adapter::Nats | Adapter::Mqtt)
    }

    /// Makes connection number `i` ready to receive what is published to `channel`.
    pub async fn subscribe(self, connection: &mut Connection, channel: &str, i: usize) -> io::Result<()> {
        match self {
            Adapter::Plain | Adapter::Pushpin => {}
            Adapter::Nats => {
                let hello = format!("CONNECT {{\"verbose\":false}}\r\nSUB {channel} 1\r\nPING\r\n");
                connection.send(BINARY, hello.as_bytes()).await?;
                connection.wait_for(|frame| memchr::memmem::find(frame, b"PONG").is_some()).await?;
            }
            Adapter::Mqtt => {
                connection.send(BINARY, &mqtt_connect(&format!("s{}-{i}", std::process::id()))).await?;
                connection.wait_for(|frame| frame.first() == Some(&0x20)).await?;
                connection.send(BINARY, &mqtt_packet(0x82, &[&[0, 1], &mqtt_text(channel)[..], &[0]].concat())).await?;
                connection.wait_for(|frame| frame.first() == Some(&0x90)).await?;
            }
            Adapter::SocketIo => {
                connection.wait_for(|frame| frame.first() == Some(&b'0')).await?;
                connection.send(TEXT, b"40").await?;
                connection.wait_for(|frame| frame.starts_with(b"40")).await?;
            }
        }
        Ok(())
    }

    /// The answer owed to a ping that comes as a data frame.
    pub fn pong(self, frame: &[u8]) -> Option<(u8, &'static [u8])> {
        match self {
            Adapter::Nats if frame.starts_with(b"PING\r\n") => Some((BINARY, b"PONG\r\n")),
            Adapter::SocketIo if frame == b"2" => Some((TEXT, b"3")),
            _ => None,
        }
    }

    /// Says on a publisher's TCP connection what comes before the first message.
    pub async fn greet(self, stream: &mut TcpStream, publisher: usize) -> io::Result<()> {
        match self {
            Adapter::Nats => stream.write_all(b"CONNECT {\"verbose\":false,\"pedantic\":false}\r\n").await,
            Adapter::Mqtt => {
                stream.write_all(&mqtt_connect(&format!("p{}-{publisher}", std::process::id()))).await?;
                stream.read_exact(&mut [0; 4]).await.map(drop)
            }
            _ => Ok(()),
        }
    }

    /// One message as this server wants it: a TCP command or an HTTP body.
    pub fn publication(self, channel: &str, payload: &[u8]) -> Vec<u8> {
        match self {
            Adapter::Plain | Adapter::SocketIo => payload.to_vec(),
            Adapter::Pushpin => {
                // A payload is a stamp and filling: nothing in it that JSON would escape.
                let content = String::from_utf8_lossy(payload);
                let formats = format!("{{\"ws-message\":{{\"content\":\"{content}\"}}}}");
                format!("{{\"items\":[{{\"channel\":\"{channel}\",\"formats\":{formats}}}]}}").into_bytes()
            }
            Adapter::Nats => [format!("PUB {channel} {}\r\n", payload.len()).as_bytes(), payload, b"\r\n"].concat(),
            Adapter::Mqtt => mqtt_packet(0x30, &[&mqtt_text(channel)[..], payload].concat()),
        }
    }
}

/// MQTT 3.1.1, a clean session without keep-alive.
fn mqtt_connect(client: &str) -> Vec<u8> {
    mqtt_packet(0x10, &[&mqtt_text("MQTT")[..], &[4, 2, 0, 0], &mqtt_text(client)].concat())
}

fn mqtt_text(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat()
}

fn mqtt_packet(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![kind];
    let mut left = body.len();
    while left >= 128 {
        out.push((left & 127) as u8 | 128);
        left >>= 7;
    }
    out.push(left as u8);
    out.extend_from_slice(body);
    out
}
