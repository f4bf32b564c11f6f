//! The dialects of the servers that the gateway is compared with: what a client says first, and how one publishes.

use std::borrow::Cow;
use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use clap::ValueEnum;
use md5::{Digest, Md5};
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
    /// Pusher's protocol; publish by POST to `/apps/ID/events`, signed with --sign-key and --sign-secret
    Pusher,
}

impl Adapter {
    pub fn upgrade_header(self) -> &'static str {
        if self == Adapter::Mqtt { "Sec-WebSocket-Protocol: mqtt\r\n" } else { "" }
    }

    /// The headers of a publish request.
    pub fn publish_headers(self) -> &'static str {
        match self {
            Adapter::Pushpin | Adapter::Pusher => "Content-Type: application/json\r\n",
            _ => "",
        }
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
                connection.wait_for(|frame| holds(frame, "PONG")).await?;
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
            Adapter::Pusher => {
                connection.wait_for(|frame| holds(frame, "pusher:connection_established")).await?;
                let hello = format!("{{\"event\":\"pusher:subscribe\",\"data\":{{\"channel\":\"{channel}\"}}}}");
                connection.send(TEXT, hello.as_bytes()).await?;
                connection.wait_for(|frame| holds(frame, "subscription_succeeded")).await?;
            }
        }
        Ok(())
    }

    /// The answer owed to a ping that comes as a data frame.
    pub fn pong(self, frame: &[u8]) -> Option<(u8, &'static [u8])> {
        match self {
            Adapter::Nats if frame.starts_with(b"PING\r\n") => Some((BINARY, b"PONG\r\n")),
            Adapter::SocketIo if frame == b"2" => Some((TEXT, b"3")),
            Adapter::Pusher if holds(frame, "\"pusher:ping\"") => Some((TEXT, br#"{"event":"pusher:pong","data":{}}"#)),
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
                let content = text(payload);
                let formats = format!("{{\"ws-message\":{{\"content\":\"{content}\"}}}}");
                format!("{{\"items\":[{{\"channel\":\"{channel}\",\"formats\":{formats}}}]}}").into_bytes()
            }
            Adapter::Pusher => {
                let data = text(payload);
                format!("{{\"name\":\"m\",\"channel\":\"{channel}\",\"data\":\"{data}\"}}").into_bytes()
            }
            Adapter::Nats => [format!("PUB {channel} {}\r\n", payload.len()).as_bytes(), payload, b"\r\n"].concat(),
            Adapter::Mqtt => mqtt_packet(0x30, &[&mqtt_text(channel)[..], payload].concat()),
        }
    }
}

/// The key of a Pusher app, by which its server knows who publishes.
pub struct AppKey {
    key: String,
    secret: hmac::Key,
}

impl AppKey {
    pub fn new(key: &str, secret: &str) -> Self {
        AppKey { key: key.to_string(), secret: hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()) }
    }

    /// The path of a POST with the query that signs it, which is made now.
    pub fn sign(&self, path: &str, body: &[u8]) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        self.sign_at(now, path, body)
    }

    fn sign_at(&self, seconds: u64, path: &str, body: &[u8]) -> String {
        let (key, sum) = (&self.key, hex(&Md5::digest(body)));
        let query = format!("auth_key={key}&auth_timestamp={seconds}&auth_version=1.0&body_md5={sum}");
        let signature = hmac::sign(&self.secret, format!("POST\n{path}\n{query}").as_bytes());
        format!("{path}?{query}&auth_signature={}", hex(signature.as_ref()))
    }
}

fn holds(frame: &[u8], text: &str) -> bool {
    memchr::memmem::find(frame, text.as_bytes()).is_some()
}

/// A payload is a stamp and filling: nothing in it that JSON would escape.
fn text(payload: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(payload)
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

pub fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from(b"0123456789abcdef"[usize::from(nibble)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of Pusher's documentation of its HTTP API.
    #[test]
    fn a_publish_is_signed_as_pusher_documents_it() {
        let body = br#"{"name":"foo","channels":["project-3"],"data":"{\"some\":\"data\"}"}"#;
        let signed =
            AppKey::new("278d425bdf160c739803", "7ad3773142a6692b25b8").sign_at(1_353_088_179, "/apps/3/events", body);
        let query = "auth_key=278d425bdf160c739803&auth_timestamp=1353088179&auth_version=1.0&body_md5=ec365a775a4cd0599faeb73354201b6f";
        let signature = "da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c";
        assert_eq!(signed, format!("/apps/3/events?{query}&auth_signature={signature}"));
    }
}
