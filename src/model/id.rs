//! Ids as AWS writes them: 11 bytes as URL-safe base64 with padding, 16 characters that end in `=`.
//!
//! A connection's id is the only thing a backend keeps of a client, so it must be unguessable, and
//! it must say which node of a cluster holds the socket. Nine bytes are random (72 bits from the
//! operating system's generator); the last two are the node's number, covered with a digest of the
//! nine so that ids of one node do not look alike.

use std::fmt;
use std::hash::{BuildHasherDefault, Hash, Hasher};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use http::HeaderValue;

const BYTES: usize = 11;
const CHARACTERS: usize = 16;

/// Names a request or a message.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id([u8; BYTES]);

impl Id {
    pub fn random() -> Self {
        Self(rand::random())
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn header(&self) -> HeaderValue {
        self.text().header()
    }

    pub fn text(&self) -> IdText {
        let mut text = [0; CHARACTERS];
        URL_SAFE.encode_slice(self.0, &mut text).expect("11 bytes are 16 characters");
        IdText(text)
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text().as_str())
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Names a connection, and the node that holds it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConnectionId(Id);

/// An id is its own hash, since it is random. Only for maps into which nobody but us puts ids.
impl Hash for ConnectionId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let (beginning, _) = self.0.0.split_first_chunk().expect("an id is longer");
        state.write_u64(u64::from_ne_bytes(*beginning));
    }
}

/// Takes an id's hash as it is.
#[derive(Clone, Copy, Default)]
pub struct AsItIs(u64);

pub type ByItself = BuildHasherDefault<AsItIs>;

impl Hasher for AsItIs {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl ConnectionId {
    pub fn random(node: u16) -> Self {
        let mut bytes: [u8; BYTES] = rand::random();
        let covered = node ^ cover(&bytes);
        bytes[9..].copy_from_slice(&covered.to_be_bytes());
        Self(Id(bytes))
    }

    /// The node that made this id; any node can read it, without asking another.
    pub fn node(&self) -> u16 {
        let bytes = &self.0.0;
        u16::from_be_bytes([bytes[9], bytes[10]]) ^ cover(bytes)
    }

    /// Reads an id as it stands in a URL after percent-decoding; `None` if it cannot be one of ours.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != CHARACTERS {
            return None;
        }
        let mut bytes = [0; 12];
        let length = URL_SAFE.decode_slice(text, &mut bytes).ok()?;
        let bytes = <[u8; BYTES]>::try_from(&bytes[..length]).ok()?;
        Some(Self(Id(bytes)))
    }

    pub fn id(&self) -> Id {
        self.0
    }

    pub fn text(&self) -> IdText {
        self.0.text()
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The 16 characters of an id, without an allocation.
#[derive(Clone, Copy)]
pub struct IdText([u8; CHARACTERS]);

impl IdText {
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("base64 is ASCII")
    }

    pub fn header(&self) -> HeaderValue {
        HeaderValue::from_bytes(&self.0).expect("base64 is a header value")
    }

    /// The id as a path segment, in two pieces: its `=` written as `%3D`, as every SDK sends it.
    pub fn path_segment(&self) -> [&str; 2] {
        // Its last character, and no other.
        [self.as_str().trim_end_matches('='), "%3D"]
    }
}

/// FNV-1a over the random bytes, folded to 16 bits; it hides nothing, it only varies the look.
fn cover(bytes: &[u8; BYTES]) -> u16 {
    let digest =
        bytes[..9].iter().fold(0x811c_9dc5_u32, |digest, byte| (digest ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    (digest >> 16) as u16 ^ digest as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_sixteen_url_safe_characters() {
        for node in 0..2000 {
            let id = ConnectionId::random(node);
            let text = id.to_string();
            assert_eq!(text.len(), 16);
            assert!(text.ends_with('=') && !text.contains(['+', '/']));
            assert_eq!(ConnectionId::parse(&text), Some(id));
            assert_eq!(id.node(), node);
        }
    }

    #[test]
    fn what_cannot_be_an_id_is_none() {
        let none = [
            "",
            "nope",
            "7e8s-43WgB1PFu4",
            "7e8s-43WgB1PFu4==",
            "7e8s-43WgB1PFu5=",
            "7e8s+43WgB1PFu4=",
            "................",
            "ééééééé==",
        ];
        for text in none {
            assert_eq!(ConnectionId::parse(text), None, "{text}");
        }
        assert!(ConnectionId::parse("7e8s-43WgB1PFu4=").is_some());
    }
}
