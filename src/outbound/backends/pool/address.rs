//! Where one server of a pool listens: `host:port`, or `unix:` and the path of a socket.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::model::settings::{Node, Reading, Setting, is_plain_name, or_env};

/// The longest path of a socket that Linux takes; macOS takes four bytes less.
const LONGEST_SOCKET_PATH: usize = 107;

/// Where a server listens. Two that are equal are the same server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    Tcp {
        /// A name in lower case or an address, that of IPv6 without its brackets.
        host: String,
        port: u16,
    },
    /// The absolute path of a socket.
    Unix(PathBuf),
}

/// Whether a name in lower case or an address can be reached as a host; that of IPv6 stands in brackets.
fn is_host(host: &str) -> bool {
    if let Some(address) = host.strip_prefix('[') {
        return address.strip_suffix(']').is_some_and(|address| address.parse::<Ipv6Addr>().is_ok());
    }
    // A name that ends in a number is an address gone wrong.
    let ends_in_number = host.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    match ends_in_number {
        true => host.parse::<Ipv4Addr>().is_ok(),
        false => is_host_name(host),
    }
}

/// Whether this can name a server for TLS, or in a URL: a host, save that of IPv6.
pub fn is_server_name(name: &str) -> bool {
    !name.starts_with('[') && is_host(name)
}

fn is_host_name(name: &str) -> bool {
    let is_label = |label: &str| is_plain_name(label, &['-'], 63) && !label.starts_with('-') && !label.ends_with('-');
    name.len() <= 253 && name.split('.').all(is_label)
}

impl Address {
    /// Reads an address, or says what would do instead.
    fn parse(text: &str) -> Result<Address, String> {
        let form = "write it like `10.0.0.1:4000`, `[::1]:4000`, `animals.internal:4000` or `unix:/run/animals.sock`";
        if let Some(path) = text.strip_prefix("unix:") {
            return socket(path);
        }
        if text.contains("://") {
            return Err(format!("leave out the scheme: {form}"));
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if host.ends_with(']') || !host.contains(':') => (host, port),
            Some(_) if text.parse::<Ipv6Addr>().is_ok() => return Err(format!("add the port: `[{text}]:80`")),
            Some((host, port)) if host.parse::<Ipv6Addr>().is_ok() => {
                return Err(format!("put the address in brackets: `[{host}]:{port}`"));
            }
            Some(_) => return Err(form.into()),
            None if is_host(&text.to_ascii_lowercase()) => return Err(format!("add the port: `{text}:80`")),
            None => return Err(form.into()),
        };
        let host = host.to_ascii_lowercase();
        if !is_host(&host) {
            return Err(form.into());
        }
        // `parse` would take a `+`.
        let port = port.bytes().all(|byte| byte.is_ascii_digit()).then(|| port.parse().ok()).flatten();
        let port = port.filter(|port| *port != 0).ok_or("a port is a number from 1 to 65535")?;
        Ok(Address::Tcp { host: host.trim_matches(['[', ']']).into(), port })
    }
}

fn socket(path: &str) -> Result<Address, String> {
    if !path.starts_with('/') || path.ends_with('/') || path.contains('\0') {
        return Err("write the whole path of the socket, like `unix:/run/animals.sock`".into());
    }
    if path.len() > LONGEST_SOCKET_PATH {
        return Err(format!("the path of a socket has at most {LONGEST_SOCKET_PATH} bytes"));
    }
    // Without what changes nothing, such as a second slash, so that one socket has one path.
    Ok(Address::Unix(Path::new(path).components().collect()))
}

/// As in the file.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Address::Tcp { host, port } => write!(f, "{host}:{port}"),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Setting for Address {
    fn read(node: Node, reading: &mut Reading) -> Option<Self> {
        let help = "write it like `10.0.0.1:4000` or `unix:/run/animals.sock`";
        let text = node.word(reading, "server", help)?;
        match Address::parse(&text) {
            Ok(address) => Some(address),
            Err(help) => {
                reading.refuse(&node, "server", &help);
                None
            }
        }
    }

    fn schema() -> serde_json::Value {
        or_env(json!({ "type": "string", "pattern": r"^(unix:/.+|(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[0-9]+)$" }))
    }

    fn kind() -> String {
        "`\"host:port\"` or `\"unix:/path\"`".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, wanted: Result<&str, &str>) {
        match (Address::parse(text), wanted) {
            (Ok(address), Ok(wanted)) => assert_eq!(address.to_string(), wanted, "{text}"),
            (Err(help), Err(wanted)) => assert!(help.contains(wanted), "{text}: {help}"),
            (read, wanted) => panic!("{text}: {read:?}, wanted {wanted:?}"),
        }
    }

    #[test]
    fn a_server_is_a_host_with_port_or_a_socket() {
        check("10.0.0.1:4000", Ok("10.0.0.1:4000"));
        check("[::1]:4000", Ok("[::1]:4000"));
        check("Animals.Internal:80", Ok("animals.internal:80"));
        check("my_service:65535", Ok("my_service:65535"));
        check("localhost:1", Ok("localhost:1"));
        check("unix:/run/animals.sock", Ok("unix:/run/animals.sock"));
        check("unix:/run//./animals.sock", Ok("unix:/run/animals.sock"));
    }

    #[test]
    fn what_is_no_server_says_what_would_do() {
        check("", Err("write it like"));
        check("10.0.0.1", Err("add the port: `10.0.0.1:80`"));
        check("animals", Err("add the port: `animals:80`"));
        check("::1", Err("add the port: `[::1]:80`"));
        check("2001:db8::7:44000", Err("put the address in brackets: `[2001:db8::7]:44000`"));
        check("http://animals:80", Err("leave out the scheme"));
        check("animals:0", Err("from 1 to 65535"));
        check("animals:65536", Err("from 1 to 65535"));
        check("animals:+1", Err("from 1 to 65535"));
        check("animals:", Err("from 1 to 65535"));
        check("animals:http", Err("from 1 to 65535"));
        check("[::1]", Err("write it like"));
        check("[x]:1", Err("write it like"));
        check("10.0.0.256:1", Err("write it like"));
        check("10.1:1", Err("write it like"));
        check("a b:1", Err("write it like"));
        check("a..b:1", Err("write it like"));
        check("-a:1", Err("write it like"));
        check("user@animals:1", Err("write it like"));
        check("animals:1/path", Err("from 1 to 65535"));
        check(":80", Err("write it like"));
        check("unix:", Err("the whole path"));
        check("unix:run/animals.sock", Err("the whole path"));
        check("unix:/run/", Err("the whole path"));
        check(&format!("unix:/{}", "a".repeat(107)), Err("at most 107"));
    }
}
