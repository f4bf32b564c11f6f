//! Publishing to one connection or to all, and the stamp by which a message is known again.

use std::borrow::Cow;
use std::io;
use std::time::Duration;

use clap::Args;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::adapters::{Adapter, AppKey};
use crate::http1::HttpConnection;
use crate::net::{self, Target};
use crate::session::fill;
use crate::signer::Signer;

#[derive(Args, Clone, Debug)]
pub struct PublishArgs {
    /// http:// with `{id}` and `{i}` filled in, or tcp:// for NATS and MQTT
    #[arg(long)]
    pub publish_url: Target,
    /// A further header of a publish request, `Name: value`; may be repeated
    #[arg(long)]
    pub publish_header: Vec<String>,
    /// Sign every publish request (SigV4; with --adapter pusher as Pusher wants it) as this key, with --sign-secret
    #[arg(long, requires = "sign_secret")]
    pub sign_key: Option<String>,
    #[arg(long, requires = "sign_key")]
    pub sign_secret: Option<String>,
}

impl PublishArgs {
    /// Unsigned, without further headers.
    pub fn to(publish_url: Target) -> Self {
        PublishArgs { publish_url, publish_header: Vec::new(), sign_key: None, sign_secret: None }
    }
}

/// One publisher, with a connection of its own.
pub struct Publisher {
    adapter: Adapter,
    target: Target,
    channel: String,
    extra: String,
    signer: Option<Signer>,
    app_key: Option<AppKey>,
    http: HttpConnection,
    tcp: Option<TcpStream>,
}

impl Publisher {
    pub async fn connect(adapter: Adapter, channel: &str, args: &PublishArgs, number: usize) -> io::Result<Self> {
        let target = args.publish_url.clone();
        let mut extra: String = args.publish_header.iter().map(|header| format!("{header}\r\n")).collect();
        extra.push_str(adapter.publish_headers());
        let mut tcp = None;
        if adapter.publishes_over_tcp() {
            let mut stream = net::connect(target.address, None).await?;
            adapter.greet(&mut stream, number).await?;
            tcp = Some(stream);
        }
        let http = HttpConnection::new(target.address);
        let (mut signer, mut app_key) = (None, None);
        match args.sign_key.as_ref().zip(args.sign_secret.as_ref()) {
            Some((key, secret)) if adapter == Adapter::Pusher => app_key = Some(AppKey::new(key, secret)),
            Some((key, secret)) => signer = Some(Signer::new(key, secret)),
            None => {}
        }
        Ok(Publisher { adapter, target, channel: channel.to_string(), extra, signer, app_key, http, tcp })
    }

    /// Publishes to connection number `i` with that id, and waits for the server's answer where it gives one.
    pub async fn publish(&mut self, i: usize, id: &str, payload: &[u8]) -> io::Result<()> {
        let publication = self.adapter.publication(&fill(&self.channel, i, id), payload);
        let Some(stream) = &mut self.tcp else {
            let mut path = fill(&self.target.path, i, id);
            if let Some(key) = &self.app_key {
                path = key.sign(&path, &publication);
            }
            let authority = &self.target.authority;
            let signed = self.signer.as_mut().map(|signer| signer.headers("POST", authority, &path, &publication));
            let extra = signed.map_or(Cow::Borrowed(&self.extra), |headers| Cow::Owned(headers + &self.extra));
            return self.http.post(authority, &path, &extra, &publication).await?.succeeded();
        };
        stream.write_all(&publication).await?;
        let mut answer = [0u8; 4096];
        if let Ok(n) = stream.try_read(&mut answer)
            && self.adapter == Adapter::Nats
            && memchr::memmem::find(&answer[..n], b"PING").is_some()
        {
            stream.write_all(b"PONG\r\n").await?;
        }
        Ok(())
    }
}

/// Writes a payload that carries its time and its publisher, and nothing that JSON would escape.
pub fn stamp(out: &mut Vec<u8>, nanos: u64, publisher: usize, size: usize) {
    out.clear();
    out.extend_from_slice(format!("@t={nanos:020},{publisher:06}@").as_bytes());
    out.resize(size.max(out.len()), b'x');
}

/// The time and the publisher of a stamp anywhere in `frame`.
pub fn read_stamp(frame: &[u8]) -> Option<(u64, usize)> {
    let at = memchr::memmem::find(frame, b"@t=")? + 3;
    let (nanos, publisher) = std::str::from_utf8(frame.get(at..at + 27)?).ok()?.split_once(',')?;
    Some((nanos.parse().ok()?, publisher.parse().ok()?))
}

/// The room for a service time, as an echo carries it to the backend.
pub const SERVICE_ROOM: &[u8] = b"@s=000000000000@";

/// Writes a service time into every room for one in `bytes`.
pub fn write_service_time(bytes: &mut [u8], time: Duration) {
    let digits = format!("{:012}", time.as_nanos());
    let rooms: Vec<usize> = memchr::memmem::find_iter(bytes, &SERVICE_ROOM[..3]).collect();
    for at in rooms {
        if let Some(room) = bytes.get_mut(at + 3..at + 15) {
            room.copy_from_slice(&digits.as_bytes()[..12]);
        }
    }
}

/// The service time that a backend wrote into `frame`.
pub fn read_service_time(frame: &[u8]) -> Option<Duration> {
    let at = memchr::memmem::find(frame, &SERVICE_ROOM[..3])? + 3;
    let nanos: u64 = std::str::from_utf8(frame.get(at..at + 12)?).ok()?.parse().ok()?;
    (nanos > 0).then(|| Duration::from_nanos(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_found_inside_a_frame() {
        let mut payload = Vec::new();
        stamp(&mut payload, 1_234_567_890, 42, 128);
        assert_eq!(payload.len(), 128);
        let framed = [b"MSG c1 1 128\r\n", &payload[..], b"\r\n"].concat();
        assert_eq!(read_stamp(&framed), Some((1_234_567_890, 42)));
        assert_eq!(read_stamp(b"@t=short"), None);
    }

    #[test]
    fn a_service_time_stands_where_there_was_room() {
        let mut frame = [b"before", SERVICE_ROOM, b"behind"].concat();
        assert_eq!(read_service_time(&frame), None);
        write_service_time(&mut frame, Duration::from_micros(70));
        assert_eq!(read_service_time(&frame), Some(Duration::from_micros(70)));
        assert!(frame.starts_with(b"before@s=") && frame.ends_with(b"@behind"));
    }
}
