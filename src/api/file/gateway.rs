//! The `[gateway]` table: listeners, draining, and the address that backends push to.

use std::net::SocketAddr;

use serde_json::json;

use crate::model::problem::Place;
use crate::model::settings::{Duration, Node, OneOrMany, OrNone, Reading, Setting, or_env, settings};

settings! {
    /// The gateway itself.
    pub struct Gateway {
        /// Where clients connect and backends call `@connections`. Port 0 takes a free one.
        pub listen: OneOrMany<ListenAddress> = "127.0.0.1:8080",
        /// Where operators look: `/metrics`, `/healthz`, `/readyz`.
        pub admin_listen: OrNone<ListenAddress> = "127.0.0.1:8081",
        /// How long a stopping gateway still accepts while `/readyz` already answers 503.
        pub drain_delay: Duration = "0s",
        /// How long a stopping gateway takes to close its sockets and deliver their `$disconnect`.
        pub drain_timeout: Duration = "30s",
        /// The address that backends are told to push to; without it the first listener.
        pub callback_url: Option<Url>,
        later {
            data_dir: "nothing is kept on disk yet",
            region: "signatures of any region are accepted; ARNs come with a later version",
            account_id: "ARNs come with a later version",
            trusted_proxies: "proxies in front come with a later version; the peer's address counts",
            proxy_protocol: "the PROXY protocol comes with a later version",
            admin_token: "tokens for operators come with a later version; keep `admin_listen` on loopback",
            tls: "TLS comes with a later version; put a TLS proxy in front",
        }
    }
}

/// An address and a port to listen on.
#[derive(Debug, Clone)]
pub struct ListenAddress {
    pub address: SocketAddr,
    pub place: Place,
}

impl Setting for ListenAddress {
    fn read(node: Node, reading: &mut Reading) -> Option<Self> {
        let help = "write it like `127.0.0.1:8080` or `[::]:8080`";
        let text = node.word(reading, "address", help)?;
        if text.starts_with("unix:") {
            let found = format!("{} is not in this version", node.as_written());
            reading.problems.problem_with_help(&node.place, found, format!("Unix sockets come later; {help}"));
            return None;
        }
        match text.parse() {
            Ok(address) => Some(ListenAddress { address, place: node.place }),
            Err(_) => {
                reading.refuse(&node, "address", help);
                None
            }
        }
    }

    fn schema() -> serde_json::Value {
        or_env(json!({ "type": "string", "pattern": r"^(\[[0-9A-Fa-f:.]+\]|[0-9.]+):[0-9]+$" }))
    }

    fn kind() -> String {
        "address with port".into()
    }
}

/// An absolute `http` or `https` URL without query, fragment or user.
#[derive(Debug, Clone)]
pub struct Url {
    pub uri: http::Uri,
    pub place: Place,
}

impl Setting for Url {
    fn read(node: Node, reading: &mut Reading) -> Option<Self> {
        let help = "write it like `http://10.0.0.5:8080`";
        let text = node.word(reading, "URL", help)?;
        match base_url(&text) {
            Some(uri) => Some(Url { uri, place: node.place }),
            None => {
                reading.refuse(&node, "URL that can be pushed to", help);
                None
            }
        }
    }

    fn schema() -> serde_json::Value {
        or_env(json!({ "type": "string", "pattern": "^https?://[^?#@]+$" }))
    }

    fn kind() -> String {
        "URL".into()
    }
}

fn base_url(text: &str) -> Option<http::Uri> {
    // `http::Uri` forgets a fragment without a word, so it is looked for in the text.
    if text.contains(['?', '#', '@']) {
        return None;
    }
    let uri: http::Uri = text.parse().ok()?;
    let has_host = uri.host().is_some_and(|host| !host.is_empty());
    // A port above 65535 parses, and reads as none.
    let has_port = |authority: &http::uri::Authority| authority.as_str().len() > authority.host().len();
    let is_port_read = uri.authority().is_some_and(|authority| has_port(authority) == authority.port_u16().is_some());
    (matches!(uri.scheme_str(), Some("http" | "https")) && has_host && is_port_read).then_some(uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callback_url_is_one_that_a_path_can_follow() {
        for good in ["http://10.0.0.5:8080", "https://rt.example.com/ws", "http://[::1]:80/"] {
            assert!(base_url(good).is_some(), "{good}");
        }
        for bad in [
            "",
            "10.0.0.5:8080",
            "ws://a",
            "http://",
            "http:///x",
            "http://a?b",
            "http://a#b",
            "http://u@a",
            "/x",
            "http://a:99999",
            "http://a:",
        ] {
            assert!(base_url(bad).is_none(), "{bad}");
        }
    }
}
