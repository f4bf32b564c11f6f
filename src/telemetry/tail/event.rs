//! One thing that happened, and the line that tells of it.

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Serialize, Serializer};

use crate::model::clock::Timestamp;
use crate::model::record::Outcome;

/// How much of a payload is shown.
const PAYLOAD: usize = 4096;

/// Text that was cut ends so.
const CUT: &str = "…";

/// What is no text is shown as base64 behind this.
const BASE64: &str = "base64:";

/// One thing that happened. What is not known or has no meaning for its kind is `None`.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Event<'a> {
    #[serde(serialize_with = "timestamp")]
    pub at: Timestamp,
    #[serde(serialize_with = "kind")]
    pub kind: Kind,
    pub api: &'a str,
    pub stage: &'a str,
    pub route: Option<&'a str>,
    pub connection: Option<&'a str>,
    pub request: Option<&'a str>,
    pub user: Option<&'a str>,
    pub address: Option<IpAddr>,
    #[serde(serialize_with = "outcome")]
    pub outcome: Outcome,
    pub status: Option<u16>,
    #[serde(rename = "latency_ms", serialize_with = "milliseconds")]
    pub latency: Option<Duration>,
    #[serde(rename = "integration_ms", serialize_with = "milliseconds")]
    pub integration: Option<Duration>,
    pub direction: Option<Direction>,
    pub bytes: Option<u64>,
    pub error: Option<&'a str>,
    pub cause: Option<&'a str>,
    pub authorizer: Option<&'a str>,
    /// Only where the stage's `data_trace` allows.
    #[serde(serialize_with = "payload")]
    pub payload: Option<&'a [u8]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Connect,
    Message,
    Push,
    Disconnect,
    /// A request of an HTTP API.
    Request,
    /// An authorizer was asked.
    Authorizer,
    /// A frame of data came from a client, or was written to one.
    Frame,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From a client.
    In,
    Out,
}

impl Event<'_> {
    /// A line of JSON, with its end.
    pub(super) fn line(&self) -> Bytes {
        let mut line = serde_json::to_vec(self).expect("an event is JSON");
        line.push(b'\n');
        Bytes::from(line)
    }
}

impl Kind {
    pub const ALL: [(&str, Kind); 7] = [
        ("connect", Kind::Connect),
        ("message", Kind::Message),
        ("push", Kind::Push),
        ("disconnect", Kind::Disconnect),
        ("request", Kind::Request),
        ("authorizer", Kind::Authorizer),
        ("frame", Kind::Frame),
    ];
}

/// How an event ended, by the word for it.
pub(super) const OUTCOMES: [(&str, Outcome); 3] =
    [("ok", Outcome::Ok), ("refused", Outcome::Refused), ("failed", Outcome::Failed)];

fn word<T: PartialEq>(words: &[(&'static str, T)], of: &T) -> &'static str {
    words.iter().find(|(_, one)| one == of).map_or("", |(word, _)| word)
}

fn timestamp<S: Serializer>(at: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u64(at.0)
}

fn kind<S: Serializer>(kind: &Kind, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(word(&Kind::ALL, kind))
}

fn outcome<S: Serializer>(outcome: &Outcome, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(word(&OUTCOMES, outcome))
}

/// To the microsecond.
fn milliseconds<S: Serializer>(took: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
    took.map(|took| took.as_micros() as f64 / 1000.0).serialize(to)
}

fn payload<S: Serializer>(payload: &Option<&[u8]>, to: S) -> Result<S::Ok, S::Error> {
    payload.map(shown).serialize(to)
}

/// At most so much of a payload that it is 4 KiB as text, and as base64 too.
fn shown(payload: &[u8]) -> Cow<'_, str> {
    let is_cut = payload.len() > PAYLOAD;
    let start = &payload[..if is_cut { PAYLOAD - CUT.len() } else { payload.len() }];
    match (std::str::from_utf8(start), is_cut) {
        (Ok(text), false) => Cow::Borrowed(text),
        (Ok(text), true) => Cow::Owned(format!("{text}{CUT}")),
        // A character that the cut goes through is left out.
        (Err(error), true) if error.error_len().is_none() => {
            Cow::Owned(format!("{}{CUT}", String::from_utf8_lossy(&start[..error.valid_up_to()])))
        }
        (Err(_), _) => {
            let most = (PAYLOAD - BASE64.len() - CUT.len()) / 4 * 3;
            let cut = if payload.len() > most { CUT } else { "" };
            Cow::Owned(format!("{BASE64}{}{cut}", STANDARD.encode(&payload[..payload.len().min(most)])))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const EVENT: Event<'static> = Event {
        at: Timestamp(1_763_684_400_118),
        kind: Kind::Message,
        api: "chat",
        stage: "prod",
        route: Some("send\"message"),
        connection: Some("7e8s-43WgB1PFu4="),
        request: None,
        user: Some("zoë\n"),
        address: Some(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST)),
        outcome: Outcome::Failed,
        status: Some(504),
        latency: Some(Duration::from_nanos(1_234_567)),
        integration: None,
        direction: Some(Direction::In),
        bytes: Some(12),
        error: None,
        cause: None,
        authorizer: None,
        payload: None,
    };

    #[test]
    fn an_event_is_one_line_of_json() {
        let line = EVENT.line();
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        assert_eq!(
            serde_json::from_slice::<serde_json::Value>(&line).unwrap(),
            json!({
                "at": 1_763_684_400_118_u64, "kind": "message", "api": "chat", "stage": "prod",
                "route": "send\"message", "connection": "7e8s-43WgB1PFu4=", "request": null, "user": "zoë\n",
                "address": "127.0.0.1", "outcome": "failed", "status": 504, "latency_ms": 1.234,
                "integration_ms": null, "direction": "in", "bytes": 12, "error": null, "cause": null,
                "authorizer": null, "payload": null
            })
        );
    }

    fn check(payload: &[u8], wanted: &str) {
        let text = shown(payload);
        assert_eq!(text, wanted);
        assert!(text.len() <= PAYLOAD);
        assert_eq!(
            serde_json::from_slice::<serde_json::Value>(&Event { payload: Some(payload), ..EVENT }.line()).unwrap()["payload"],
            wanted
        );
    }

    #[test]
    fn a_payload_is_text_if_it_can_be() {
        check(b"", "");
        check("zoë \u{1f375}\n".as_bytes(), "zoë \u{1f375}\n");
        check(&[b'x'; PAYLOAD], &"x".repeat(PAYLOAD));
        check(&[0xff, 0x00], "base64:/wA=");
    }

    #[test]
    fn a_long_payload_is_cut_between_characters() {
        check(&[b'x'; PAYLOAD + 1], &format!("{}…", "x".repeat(PAYLOAD - 3)));
        for offset in 0..4 {
            let text = "x".repeat(offset) + &"\u{1f375}".repeat(PAYLOAD);
            let whole = (PAYLOAD - 3 - offset) / 4;
            check(text.as_bytes(), &format!("{}{}…", "x".repeat(offset), "\u{1f375}".repeat(whole)));
        }
        let bytes = [0xff; 2 * PAYLOAD];
        check(&bytes, &format!("base64:{}…", STANDARD.encode(&bytes[..(PAYLOAD - 10) / 4 * 3])));
    }

    #[test]
    fn a_character_that_was_never_whole_is_no_text() {
        check(b"tea \xf0\x9f", &format!("base64:{}", STANDARD.encode(b"tea \xf0\x9f")));
    }
}
