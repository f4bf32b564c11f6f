//! The PROXY protocol, versions 1 and 2: a load balancer says whom a connection comes from, before anything else.
//!
//! Exactly the header is read, not one byte of what follows it: each read asks for no more than the header is sure to
//! have still. What is not a header ends the connection, since whoever sent it is not who it was taken for.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// The longest header of version 1, its line end included.
const LONGEST_LINE: usize = 107;

/// How much may follow the first 16 bytes of version 2: addresses take 216 at most, the rest is for additions
/// such as certificates' names.
const LONGEST_REST: usize = 4096;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Who opened the connection to the load balancer, and where it arrived there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    pub source: SocketAddr,
    pub destination: SocketAddr,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the connection does not begin with a PROXY protocol header")]
    NoHeader,
    #[error("the PROXY protocol header is malformed: {0}")]
    Malformed(&'static str),
    #[error("the PROXY protocol header did not come in time")]
    TimedOut,
    #[error("the connection broke off in its PROXY protocol header: {0}")]
    BrokeOff(#[from] io::Error),
}

/// Reads the header within `patience`. `None` is a connection of the load balancer's own, such as a health check, or
/// one whose addresses it does not know: the peer's counts.
pub async fn read(connection: &mut (impl AsyncRead + Unpin), patience: Duration) -> Result<Option<Addresses>, Error> {
    tokio::time::timeout(patience, read_header(connection)).await.map_err(|_| Error::TimedOut)?
}

async fn read_header(connection: &mut (impl AsyncRead + Unpin)) -> Result<Option<Addresses>, Error> {
    let mut header = Vec::with_capacity(LONGEST_LINE);
    loop {
        match look(&header)? {
            Look::Needs(more) => {
                let from = header.len();
                header.resize(from + more, 0);
                connection.read_exact(&mut header[from..]).await?;
            }
            Look::Whole(addresses) => return Ok(addresses),
        }
    }
}

/// What the beginning of a connection says.
#[derive(Debug, PartialEq, Eq)]
enum Look {
    /// So many bytes more belong to the header for sure.
    Needs(usize),
    Whole(Option<Addresses>),
}

fn look(header: &[u8]) -> Result<Look, Error> {
    if header.len() < SIGNATURE.len() {
        // Both versions are longer than this.
        Ok(Look::Needs(SIGNATURE.len() - header.len()))
    } else if let Some(rest) = header.strip_prefix(SIGNATURE) {
        version_2(rest)
    } else if let Some(rest) = header.strip_prefix(b"PROXY ") {
        version_1(header, rest)
    } else {
        Err(Error::NoHeader)
    }
}

fn version_1(header: &[u8], rest: &[u8]) -> Result<Look, Error> {
    let Some(line) = rest.strip_suffix(b"\r\n") else {
        let end_has_begun = rest.ends_with(b"\r");
        let more = if end_has_begun { 1 } else { 2 };
        let stray = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
        return match stray {
            Some(at) if !end_has_begun || at + 1 < rest.len() => Err(Error::Malformed("a line end in its midst")),
            _ if header.len() + more > LONGEST_LINE => Err(Error::Malformed("its line is too long")),
            _ => Ok(Look::Needs(more)),
        };
    };
    let line = std::str::from_utf8(line).map_err(|_| Error::Malformed("its line is no text"))?;
    if line == "UNKNOWN" || line.starts_with("UNKNOWN ") {
        return Ok(Look::Whole(None));
    }
    let addresses = line_of_addresses(line).ok_or(Error::Malformed("its line names no two addresses of its family"))?;
    Ok(Look::Whole(Some(addresses)))
}

/// `TCP4 203.0.113.9 10.0.0.1 52100 443`.
fn line_of_addresses(line: &str) -> Option<Addresses> {
    let mut words = line.split(' ');
    let family = words.next()?;
    let mut address = || -> Option<IpAddr> {
        let word = words.next()?;
        match family {
            "TCP4" => word.parse::<Ipv4Addr>().ok().map(IpAddr::from),
            "TCP6" => word.parse::<Ipv6Addr>().ok().map(IpAddr::from),
            _ => None,
        }
    };
    let (source, destination) = (address()?, address()?);
    let mut port = || {
        let word = words.next()?;
        word.bytes().all(|byte| byte.is_ascii_digit()).then(|| word.parse().ok())?
    };
    let addresses = addresses((source, port()?), (destination, port()?));
    words.next().is_none().then_some(addresses)
}

fn version_2(rest: &[u8]) -> Result<Look, Error> {
    let Some(([version_and_command, family, high, low], body)) = rest.split_first_chunk() else {
        return Ok(Look::Needs(4 - rest.len()));
    };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    let is_proxied = match version_and_command {
        0x20 => false,
        0x21 => true,
        _ => return Err(Error::Malformed("its version or command is unknown")),
    };
    // By the high half the kind of addresses, by the low one the transport: streams, or connections of no known kind.
    let least = match family {
        _ if !is_proxied => 0,
        0x00 => 0,
        0x11 => 12,
        0x21 => 36,
        0x31 => 216,
        _ => return Err(Error::Malformed("it is about no stream")),
    };
    if length < least {
        return Err(Error::Malformed("its addresses are cut short"));
    }
    if length > LONGEST_REST {
        return Err(Error::Malformed("it is too long"));
    }
    if body.len() < length {
        return Ok(Look::Needs(length - body.len()));
    }
    Ok(Look::Whole(match family {
        0x11 if is_proxied => addresses_of::<4>(body),
        0x21 if is_proxied => addresses_of::<16>(body),
        _ => None,
    }))
}

/// Two addresses of `N` bytes and two ports. What follows them is passed over.
fn addresses_of<const N: usize>(body: &[u8]) -> Option<Addresses>
where
    IpAddr: From<[u8; N]>,
{
    let (source, body) = body.split_first_chunk::<N>()?;
    let (destination, body) = body.split_first_chunk::<N>()?;
    let (source_port, body) = body.split_first_chunk()?;
    let (destination_port, _) = body.split_first_chunk()?;
    let of = |address: &[u8; N], port: &[u8; 2]| (IpAddr::from(*address), u16::from_be_bytes(*port));
    Some(addresses(of(source, source_port), of(destination, destination_port)))
}

fn addresses(source: (IpAddr, u16), destination: (IpAddr, u16)) -> Addresses {
    let canonical = |(address, port): (IpAddr, u16)| SocketAddr::new(address.to_canonical(), port);
    Addresses { source: canonical(source), destination: canonical(destination) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt as _;

    /// A header of version 2.
    fn v2(version_and_command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = (body.len() as u16).to_be_bytes();
        [SIGNATURE.as_slice(), &[version_and_command, family], &length, body].concat()
    }

    fn v4_body() -> Vec<u8> {
        [&[203, 0, 113, 9, 10, 0, 0, 1], &52100u16.to_be_bytes()[..], &443u16.to_be_bytes()].concat()
    }

    /// Reads `header` with a request behind it, in pieces of `piece` bytes; gives back what is left to read as well.
    fn read_pieces(header: &[u8], piece: usize) -> (Result<Option<Addresses>, Error>, Vec<u8>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let (mut client, mut server) = tokio::io::duplex(piece);
            let sent = [header, b"GET / HTTP/1.1\r\n\r\n"].concat();
            let sending = tokio::spawn(async move {
                // A refused header leaves nobody to read the rest.
                let _ = client.write_all(&sent).await;
            });
            let read = read(&mut server, Duration::from_secs(5)).await;
            let mut left = Vec::new();
            if read.is_ok() {
                server.read_to_end(&mut left).await.unwrap();
            }
            drop(server);
            sending.await.unwrap();
            (read, left)
        })
    }

    /// `wanted` is what came of it: `source > destination`, `none`, or `refused`.
    fn check(header: &[u8], wanted: &str) {
        for piece in [1, 5, 8192] {
            let (read, left) = read_pieces(header, piece);
            let is_ok = read.is_ok();
            let got = match read {
                Ok(Some(Addresses { source, destination })) => format!("{source} > {destination}"),
                Ok(None) => "none".into(),
                Err(_) => "refused".into(),
            };
            assert_eq!(got, wanted, "{}", header.escape_ascii());
            assert!(!is_ok || left == b"GET / HTTP/1.1\r\n\r\n", "{}", header.escape_ascii());
        }
    }

    #[test]
    fn version_1_is_one_line() {
        check(b"PROXY TCP4 203.0.113.9 10.0.0.1 52100 443\r\n", "203.0.113.9:52100 > 10.0.0.1:443");
        check(b"PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n", "[2001:db8::1]:1 > [2001:db8::2]:65535");
        check(b"PROXY TCP6 ::ffff:203.0.113.9 ::1 1 2\r\n", "203.0.113.9:1 > [::1]:2");
        check(b"PROXY UNKNOWN\r\n", "none");
        check(b"PROXY UNKNOWN ffff:f:f:f:f:f:f:f ::1 65535 65535\r\n", "none");
        for refused in [
            "PROXY TCP4 203.0.113.9 10.0.0.1 52100\r\n",
            "PROXY TCP4 203.0.113.9 10.0.0.1 52100 443 1\r\n",
            "PROXY TCP4 203.0.113.9  10.0.0.1 52100 443\r\n",
            "PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
            "PROXY TCP6 203.0.113.9 10.0.0.1 1 2\r\n",
            "PROXY TCP4 203.0.113.9 10.0.0.1 +1 2\r\n",
            "PROXY TCP4 203.0.113.9 10.0.0.1 1 65536\r\n",
            "PROXY TCP4 203.0.113.9 10.0.0.1 1 2\n",
            "PROXY TCP4 203.0.113.9\r10.0.0.1 1 2\r\n",
            "PROXY TCP4 203.0.113.9 10.0.0.1 1 2\r\r\n",
            "PROXY UDP4 203.0.113.9 10.0.0.1 1 2\r\n",
            "PROXY UNKNOWNX\r\n",
            "proxy TCP4 203.0.113.9 10.0.0.1 1 2\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\u{fc}\u{3}\u{3}abcdefgh",
        ] {
            check(refused.as_bytes(), "refused");
        }
        // The longest that may be, and one byte more.
        let filled = |length: usize| format!("PROXY UNKNOWN {}\r\n", "x".repeat(length - 16));
        check(filled(107).as_bytes(), "none");
        check(filled(106).as_bytes(), "none");
        check(filled(108).as_bytes(), "refused");
        check(&b"PROXY TCP4 ".iter().chain([b'1'; 500].iter()).copied().collect::<Vec<_>>(), "refused");
    }

    #[test]
    fn version_2_is_addresses_and_what_may_follow_them() {
        check(&v2(0x21, 0x11, &v4_body()), "203.0.113.9:52100 > 10.0.0.1:443");
        check(&v2(0x21, 0x11, &[v4_body(), vec![3, 0, 1, 7, 4, 0, 0]].concat()), "203.0.113.9:52100 > 10.0.0.1:443");
        let ports = [0, 1, 0, 2];
        let mapped = [Ipv4Addr::new(1, 2, 3, 4).to_ipv6_mapped().octets(), Ipv6Addr::LOCALHOST.octets()].concat();
        check(&v2(0x21, 0x21, &[&mapped[..], &ports].concat()), "1.2.3.4:1 > [::1]:2");
        check(&v2(0x20, 0x00, b""), "none");
        check(&v2(0x20, 0x11, &v4_body()), "none");
        check(&v2(0x20, 0x77, b"anything"), "none");
        check(&v2(0x21, 0x00, b"anything"), "none");
        check(&v2(0x21, 0x31, &[0; 216]), "none");
        check(&v2(0x21, 0x11, &[v4_body(), vec![0; 4084]].concat()), "203.0.113.9:52100 > 10.0.0.1:443");
        let refused = [
            v2(0x21, 0x11, &[v4_body(), vec![0; 4085]].concat()),
            v2(0x21, 0x11, &v4_body()[..11]),
            v2(0x21, 0x21, &v4_body()),
            v2(0x21, 0x12, &v4_body()),
            v2(0x21, 0x41, &v4_body()),
            v2(0x22, 0x11, &v4_body()),
            v2(0x11, 0x11, &v4_body()),
        ];
        refused.iter().for_each(|header| check(header, "refused"));
    }

    #[tokio::test]
    async fn a_header_that_does_not_come_is_not_waited_for() {
        let (mut client, mut server) = tokio::io::duplex(64);
        client.write_all(b"PROXY TCP4 203.0.").await.unwrap();
        let late = read(&mut server, Duration::from_millis(1)).await;
        assert!(matches!(late, Err(Error::TimedOut)));
        drop(client);
        let cut = read(&mut server, Duration::from_secs(3)).await;
        assert!(matches!(cut, Err(Error::BrokeOff(_))));
    }

    proptest::proptest! {
        /// However it begins, nothing panics, and no more is asked for than a header may have.
        #[test]
        fn any_bytes_are_refused_or_read_within_bounds(
            begin in proptest::sample::select(
                vec![Vec::new(), b"PROXY TCP4 ".to_vec(), v2(0x21, 0x11, b"")[..14].to_vec()],
            ),
            bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..5000),
        ) {
            let sent = [begin, bytes].concat();
            let mut taken = 0;
            while let Ok(Look::Needs(more)) = look(&sent[..taken]) {
                proptest::prop_assert!(more > 0 && taken + more <= 16 + LONGEST_REST);
                taken += more;
                if taken > sent.len() {
                    break;
                }
            }
        }

        /// What follows a good header is never touched, wherever the packets are cut.
        #[test]
        fn nothing_behind_a_header_is_taken(
            source in proptest::num::u32::ANY,
            port in proptest::num::u16::ANY,
            piece in 1..80usize,
        ) {
            let source = Ipv4Addr::from(source);
            let line = format!("PROXY TCP4 {source} 10.0.0.1 {port} 443\r\n");
            let body = [&source.octets()[..], &[10, 0, 0, 1], &port.to_be_bytes(), &443u16.to_be_bytes()].concat();
            for header in [line.into_bytes(), v2(0x21, 0x11, &body)] {
                let (read, left) = read_pieces(&header, piece);
                let wanted = Addresses { source: (source, port).into(), destination: "10.0.0.1:443".parse().unwrap() };
                proptest::prop_assert_eq!(read.unwrap(), Some(wanted));
                proptest::prop_assert_eq!(left, b"GET / HTTP/1.1\r\n\r\n");
            }
        }
    }
}
