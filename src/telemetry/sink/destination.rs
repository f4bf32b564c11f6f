//! Where lines go, as the operator writes it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where a machine's own syslog listens.
const LOCAL: &str = "/dev/log";

/// Syslog's, for UDP; for TCP nearly everybody uses the same.
const PORT: &str = "514";

const ALL: &str = "write `stdout`, `stderr`, a file like `/var/log/livegate/access.log` or `file:access.log`, `syslog`, \
                   `syslog://host:514` (UDP), `syslog+tcp://host:514` or `syslog+unix:/path`";

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Destination {
    Stdout,
    Stderr,
    File { path: PathBuf, rotation: Rotation },
    Syslog(Syslog),
}

/// When a file is put aside for a new one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rotation {
    /// Before it is larger than this.
    pub size: Option<u64>,
    /// Whenever so much time has passed, at whole multiples of it in UTC: `1d` is midnight.
    pub every: Option<Duration>,
    /// How many of those put aside are kept.
    pub keep: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Syslog {
    /// A Unix datagram socket, such as `/dev/log`.
    Local(PathBuf),
    /// `host:port`.
    Udp(String),
    /// `host:port`.
    Tcp(String),
}

impl Destination {
    /// Reads the text; a relative path leads on from `folder`. The error says what would do.
    pub fn parse(text: &str, folder: &Path, rotation: Rotation) -> Result<Destination, String> {
        let file = |path: &str| match path {
            "" => Err("write the file's path behind `file:`".to_owned()),
            folder if folder.ends_with('/') => Err(format!("name a file in that folder, like `{folder}access.log`")),
            // As a file it would be made where a syslog that starts later wants to listen.
            LOCAL => Ok(Destination::Syslog(Syslog::Local(LOCAL.into()))),
            path => Ok(Destination::File { path: folder.join(path), rotation }),
        };
        if let Some(path) = text.strip_prefix("syslog+unix:") {
            return match path {
                "" => Err(format!("write the socket's path, like `syslog+unix:{LOCAL}`")),
                path => Ok(Destination::Syslog(Syslog::Local(folder.join(path)))),
            };
        }
        if let Some(host) = text.strip_prefix("syslog+tcp://") {
            return Ok(Destination::Syslog(Syslog::Tcp(host_and_port(host)?)));
        }
        if let Some(host) = text.strip_prefix("syslog://").or_else(|| text.strip_prefix("syslog+udp://")) {
            return Ok(Destination::Syslog(Syslog::Udp(host_and_port(host)?)));
        }
        match text {
            // In a container these are pipes or terminals, and nothing that could be rotated.
            "stdout" | "/dev/stdout" => Ok(Destination::Stdout),
            "stderr" | "/dev/stderr" => Ok(Destination::Stderr),
            "syslog" => Ok(Destination::Syslog(Syslog::Local(LOCAL.into()))),
            path if path.starts_with("file:") => file(&path["file:".len()..]),
            url if url.contains("://") => Err(ALL.to_owned()),
            path if path.contains('/') => file(path),
            _ => Err(ALL.to_owned()),
        }
    }
}

fn host_and_port(text: &str) -> Result<String, String> {
    let text = text.strip_suffix('/').unwrap_or(text);
    let (host, port) = match text.rsplit_once(':') {
        // The colons of an IPv6 address stand in brackets.
        Some((host, port)) if !port.ends_with(']') => (host, port),
        _ => (text, PORT),
    };
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_host = match bare {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c)),
    };
    if !is_host {
        return Err("write a host and a port, like `syslog://logs.example.com:514` or `syslog://[::1]:514`".to_owned());
    }
    match port.parse::<u16>() {
        Ok(1..) => Ok(format!("{host}:{port}")),
        _ => Err("a port is a number from 1 to 65535".to_owned()),
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Destination::Stdout => f.write_str("stdout"),
            Destination::Stderr => f.write_str("stderr"),
            Destination::File { path, .. } => write!(f, "{}", path.display()),
            Destination::Syslog(syslog) => syslog.fmt(f),
        }
    }
}

impl fmt::Display for Syslog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Syslog::Local(path) if path == Path::new(LOCAL) => f.write_str("syslog"),
            Syslog::Local(path) => write!(f, "syslog+unix:{}", path.display()),
            Syslog::Udp(host) => write!(f, "syslog://{host}"),
            Syslog::Tcp(host) => write!(f, "syslog+tcp://{host}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let found = match Destination::parse(text, Path::new("/etc/livegate"), Rotation::default()) {
            Ok(destination) => {
                let kind = match destination {
                    Destination::File { .. } => "file ",
                    _ => "",
                };
                format!("{kind}{destination}")
            }
            Err(help) => help,
        };
        assert!(found.contains(expected), "{text}: {found}");
    }

    #[test]
    fn every_destination_has_its_text() {
        check("stdout", "stdout");
        check("stderr", "stderr");
        check("/dev/stdout", "stdout");
        check("/dev/stderr", "stderr");
        check("/var/log/access.log", "file /var/log/access.log");
        check("logs/access.log", "file /etc/livegate/logs/access.log");
        check("./access.log", "file /etc/livegate/./access.log");
        check("file:access.log", "file /etc/livegate/access.log");
        check("file:/var/log/access.log", "file /var/log/access.log");
        check("file:stdout", "file /etc/livegate/stdout");
        check("/dev/full", "file /dev/full");
        check("syslog", "syslog");
        check("/dev/log", "syslog");
        check("file:/dev/log", "syslog");
        check("syslog+unix:/dev/log", "syslog");
        check("syslog+unix:/run/x", "syslog+unix:/run/x");
        check("syslog+unix:x", "syslog+unix:/etc/livegate/x");
        check("syslog://logs.example.com:1514", "syslog://logs.example.com:1514");
        check("syslog+udp://logs.example.com:1514", "syslog://logs.example.com:1514");
        check("syslog://logs.example.com", "syslog://logs.example.com:514");
        check("syslog://10.0.0.1:514/", "syslog://10.0.0.1:514");
        check("syslog+tcp://host:601", "syslog+tcp://host:601");
        check("syslog+tcp://[::1]:601", "syslog+tcp://[::1]:601");
        check("syslog+tcp://[::1]", "syslog+tcp://[::1]:514");
    }

    #[test]
    fn what_is_none_of_them_is_told_what_would_do() {
        check("stdoutt", "write `stdout`, `stderr`, a file like");
        check("", "write `stdout`");
        check("access.log", "`file:access.log`");
        check("https://logs.example.com/", "write `stdout`");
        check("syslogs://host", "write `stdout`");
        check("file:", "write the file's path behind `file:`");
        check("/var/log/", "name a file in that folder, like `/var/log/access.log`");
        check("syslog+unix:", "write the socket's path");
        check("syslog://", "write a host and a port");
        check("syslog://:514", "write a host and a port");
        check("syslog://a b:514", "write a host and a port");
        check("syslog://[x]:514", "write a host and a port");
        check("syslog://::1:514", "write a host and a port");
        check("syslog://host:0", "a port is a number from 1 to 65535");
        check("syslog://host:x", "a port is a number");
        check("syslog+tcp://host:70000", "a port is a number");
    }

    #[test]
    fn what_is_shown_can_be_read_again() {
        let folder = Path::new("/etc/livegate");
        for text in ["stdout", "stderr", "/a/b.log", "syslog", "syslog+unix:/x", "syslog://h:1", "syslog+tcp://[::1]:1"]
        {
            let destination = Destination::parse(text, folder, Rotation::default()).unwrap();
            assert_eq!(destination.to_string(), text);
        }
    }
}
