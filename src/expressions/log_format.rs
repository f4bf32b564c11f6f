//! The format of access logs: a text with `$context.name`, filled in once a call is over.
//!
//! `json` and `clf` stand for AWS's own suggestions. What is missing is `-`, as at AWS. Nothing that a client sends can
//! end a line or the quotes it stands in: a format that begins with `{` has its values escaped as JSON does, any other
//! as in C.

use std::cell::RefCell;
use std::io::Write as _;
use std::net::IpAddr;

use super::Error;
use super::context_names::{self, Protocol};
use super::log_fields::{Field, Shown, field, names};
use crate::model::client::StageKey;
use crate::model::clock::Timestamp;
use crate::model::record::Record;

/// AWS's bound on a format.
const LONGEST: usize = 3 * 1024;

const JSON_OF_SOCKETS: &str = r#"{"requestId":"$context.requestId","ip":"$context.identity.sourceIp","user":"$context.authorizer.principalId","requestTime":"$context.requestTime","api":"$context.apiId","stage":"$context.stage","eventType":"$context.eventType","routeKey":"$context.routeKey","status":"$context.status","connectionId":"$context.connectionId","responseLatency":"$context.responseLatency","integrationLatency":"$context.integrationLatency","error":"$context.error.message"}"#;

const CLF_OF_SOCKETS: &str = r#"$context.identity.sourceIp $context.identity.caller $context.identity.user [$context.requestTime] "$context.eventType $context.routeKey $context.connectionId" $context.status $context.responseLength $context.requestId"#;

const JSON_OF_REQUESTS: &str = r#"{"requestId":"$context.requestId","ip":"$context.identity.sourceIp","user":"$context.authorizer.principalId","requestTime":"$context.requestTime","api":"$context.apiId","stage":"$context.stage","httpMethod":"$context.httpMethod","path":"$context.path","routeKey":"$context.routeKey","protocol":"$context.protocol","status":"$context.status","responseLength":"$context.responseLength","responseLatency":"$context.responseLatency","integrationLatency":"$context.integrationLatency","error":"$context.error.message"}"#;

const CLF_OF_REQUESTS: &str = r#"$context.identity.sourceIp $context.identity.caller $context.identity.user [$context.requestTime] "$context.httpMethod $context.path $context.protocol" $context.status $context.responseLength $context.requestId"#;

/// A format, parsed.
#[derive(Debug, Clone, PartialEq)]
pub struct Format {
    pieces: Vec<Piece>,
    escape: Escape,
}

#[derive(Debug, Clone, PartialEq)]
enum Piece {
    Literal(String),
    Field(Field),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Escape {
    Json,
    Text,
}

/// What a format should rather not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Warning {
    /// `identity.apiKey` is the key itself.
    Secret,
}

impl Format {
    pub fn parse(text: &str, protocol: Protocol, stage: &StageKey) -> Result<Self, Error> {
        let text = match (text, protocol) {
            ("json", Protocol::WebSocket) => JSON_OF_SOCKETS,
            ("json", Protocol::Http) => JSON_OF_REQUESTS,
            ("clf", Protocol::WebSocket) => CLF_OF_SOCKETS,
            ("clf", Protocol::Http) => CLF_OF_REQUESTS,
            (template, _) => template,
        };
        if text.len() > LONGEST {
            let found = format!("the format is {} bytes long", text.len());
            return Err(Error::new(LONGEST, found, format!("shorten it to {LONGEST}, which is AWS's bound as well")));
        }
        if text.contains(['\n', '\r']) {
            let at = text.find(['\n', '\r']).unwrap_or_default();
            return Err(Error::new(at, "the format has a line break in it", "write it on one line: a call is a line"));
        }
        if !text.contains('$') {
            let help = "write `json`, `clf`, or a text with variables like `$context.requestId`";
            return Err(Error::new(0, format!("`{text}` is no format"), help));
        }
        let escape = if text.starts_with(['{', '[']) { Escape::Json } else { Escape::Text };
        let pieces = pieces(text, protocol)?;
        if !pieces.contains(&Piece::Field(Field::RequestId)) {
            let found = "the format has no `$context.requestId`";
            return Err(Error::new(0, found, "add it, or lines cannot be told apart (AWS asks for it as well)"));
        }
        Ok(Self { pieces: settled(pieces, escape, stage), escape })
    }

    pub fn warning(&self) -> Option<Warning> {
        let is_secret = |piece: &Piece| *piece == Piece::Field(Field::Identity("identity.apiKey".into()));
        self.pieces.iter().any(is_secret).then_some(Warning::Secret)
    }

    /// Makes the line of one call, without its end, and hands it on.
    pub fn with_line<T>(&self, record: &Record<'_>, take: impl FnOnce(&[u8]) -> T) -> T {
        thread_local! {
            static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        LINE.with_borrow_mut(|line| {
            line.clear();
            self.append(record, line);
            take(line)
        })
    }

    fn append(&self, record: &Record<'_>, line: &mut Vec<u8>) {
        for piece in &self.pieces {
            match piece {
                Piece::Literal(literal) => line.extend_from_slice(literal.as_bytes()),
                Piece::Field(field) => self.append_field(field, record, line),
            }
        }
    }

    fn append_field(&self, field: &Field, record: &Record<'_>, line: &mut Vec<u8>) {
        let before = line.len();
        match field.of(record) {
            Some(Shown::Text(text)) => self.escape.append(&text, line),
            Some(Shown::Quoted(text)) => {
                // AWS has quotes around this one in its value.
                self.escape.append("\"", line);
                self.escape.append(&text, line);
                self.escape.append("\"", line);
            }
            Some(Shown::Known(text)) => line.extend_from_slice(text),
            Some(Shown::Id(id)) => line.extend_from_slice(id.text().as_str().as_bytes()),
            Some(Shown::Number(number)) => append_number(number, line),
            Some(Shown::Time(at)) => append_time(at, line),
            Some(Shown::Address(IpAddr::V4(address))) => {
                for (at, part) in address.octets().into_iter().enumerate() {
                    if at > 0 {
                        line.push(b'.');
                    }
                    append_number(part.into(), line);
                }
            }
            Some(Shown::Address(address)) => write!(line, "{address}").unwrap_or_default(),
            None => {}
        }
        if line.len() == before {
            line.push(b'-');
        }
    }
}

fn pieces(text: &str, protocol: Protocol) -> Result<Vec<Piece>, Error> {
    let mut pieces = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        literal.push_str(&rest[..dollar]);
        let at = text.len() - rest.len() + dollar;
        let behind = &rest[dollar..];
        let (name, length) = match (behind.strip_prefix("$context."), behind.strip_prefix("${context.")) {
            (Some(tail), _) => {
                let name = bare_name(tail);
                (name, "$context.".len() + name.len())
            }
            (None, Some(tail)) => {
                let end = tail.find('}').ok_or_else(|| Error::new(at, "`${` is never closed", "add the `}`"))?;
                (&tail[..end], "${context.".len() + end + 1)
            }
            (None, None) => {
                let found = format!("`{}` is no variable of an access log", word(behind));
                return Err(Error::new(at, found, "write one like `$context.requestId`"));
            }
        };
        let Some(field) = field(name, protocol) else {
            return Err(context_names::unknown(name, &names(protocol)).moved(at));
        };
        if !literal.is_empty() {
            pieces.push(Piece::Literal(std::mem::take(&mut literal)));
        }
        pieces.push(Piece::Field(field));
        rest = &behind[length..];
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        pieces.push(Piece::Literal(literal));
    }
    Ok(pieces)
}

/// The same with what is the same for every call of a stage written out.
fn settled(pieces: Vec<Piece>, escape: Escape, stage: &StageKey) -> Vec<Piece> {
    let mut settled: Vec<Piece> = Vec::with_capacity(pieces.len());
    for piece in pieces {
        let text = match piece {
            Piece::Literal(literal) => literal,
            Piece::Field(Field::ApiId) => escape.escaped(&stage.api),
            Piece::Field(Field::Stage) => escape.escaped(&stage.stage),
            Piece::Field(_) => {
                settled.push(piece);
                continue;
            }
        };
        match settled.last_mut() {
            Some(Piece::Literal(before)) => before.push_str(&text),
            _ => settled.push(Piece::Literal(text)),
        }
    }
    settled
}

/// A name without braces ends before what cannot be part of one, and a dot at its end is the sentence's.
fn bare_name(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && !"._-:".contains(c)).unwrap_or(text.len());
    text[..end].trim_end_matches(['.', '-', ':'])
}

/// What stands there, for a message.
fn word(text: &str) -> &str {
    let end = text.char_indices().skip(1).find(|(_, c)| !c.is_alphanumeric() && !"._{".contains(*c));
    &text[..end.map_or(text.len(), |(at, _)| at)]
}

impl Escape {
    fn escaped(self, text: &str) -> String {
        let mut escaped = Vec::new();
        self.append(text, &mut escaped);
        String::from_utf8_lossy(&escaped).into_owned()
    }

    fn append(self, text: &str, line: &mut Vec<u8>) {
        let is_plain = |byte: &u8| matches!(byte, 0x20..=0x7e) && *byte != b'"' && *byte != b'\\';
        if text.as_bytes().iter().all(is_plain) {
            return line.extend_from_slice(text.as_bytes());
        }
        for character in text.chars() {
            match (character, self) {
                ('"' | '\\', _) => {
                    line.push(b'\\');
                    line.push(character as u8);
                }
                // Some read these as the end of a line too.
                (character, Escape::Json) if character.is_control() || matches!(character, '\u{2028}' | '\u{2029}') => {
                    write!(line, "\\u{:04x}", u32::from(character)).unwrap_or_default();
                }
                (character, Escape::Text) if character.is_control() || matches!(character, '\u{2028}' | '\u{2029}') => {
                    for byte in character.encode_utf8(&mut [0; 4]).bytes() {
                        write!(line, "\\x{byte:02x}").unwrap_or_default();
                    }
                }
                (character, _) => line.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
    }
}

fn append_number(number: u64, line: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut rest = number;
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    line.extend_from_slice(&digits[at..]);
}

/// The time in CLF. A second has many calls, and writing its time takes longer than all the rest.
fn append_time(at: Timestamp, line: &mut Vec<u8>) {
    thread_local! {
        static SECOND: RefCell<(u64, String)> = const { RefCell::new((u64::MAX, String::new())) };
    }
    SECOND.with_borrow_mut(|(second, text)| {
        if *second != at.0 / 1000 {
            (*second, *text) = (at.0 / 1000, at.clf());
        }
        line.extend_from_slice(text.as_bytes());
    });
}

#[cfg(test)]
#[path = "log_format_tests.rs"]
mod tests;
