//! The `[gateway]` table: listeners, draining, and the address that backends push to.

use serde_json::json;

use super::{Throttle, Tls, Tracing};
use crate::model::address::Address;
use crate::model::problem::Place;
use crate::model::settings::{
    Cidr, Duration, Node, OneOrMany, OrNone, Reading, Secret, Setting, Text, or_env, settings,
};

settings! {
    /// The gateway itself.
    pub struct Gateway {
        /// Where clients connect and backends call `@connections`: addresses with a port, of which 0 takes a free one, or
        /// `unix:/path`. With a table `tls` all addresses speak TLS, save those written as `http://…`.
        pub listen: OneOrMany<ListenAddress> = "127.0.0.1:8080",
        /// Where operators look: the dashboard at `/`, `/metrics`, `/healthz`, `/readyz`.
        pub admin_listen: OrNone<ListenAddress> = "127.0.0.1:8081",
        /// How long a stopping gateway still accepts while `/readyz` already answers 503.
        pub drain_delay: Duration = "0s",
        /// How long a stopping gateway takes to close its sockets and deliver their `$disconnect`.
        pub drain_timeout: Duration = "30s",
        /// The address that backends are told to push to; without it the first listener.
        pub callback_url: Option<Url>,
        /// Proxies in front of the gateway, whose `X-Forwarded-For` and the like count; nobody's by default.
        pub trusted_proxies: Vec<Cidr> = [],
        /// Connections from `trusted_proxies` begin with a header of the PROXY protocol (version 1 or 2).
        pub proxy_protocol: bool = false,
        /// Lets several gateways on one machine share their ports (`SO_REUSEPORT`).
        pub reuse_port: bool = false,
        /// A folder for what outlives the gateway, such as ordered certificates; without it `livegate-data` beside this file.
        pub data_dir: Option<Text>,
        /// TLS on the client listeners.
        pub tls: Option<Tls>,
        /// The region in the ARNs of routes; signatures of any region are accepted.
        pub region: Text = "us-east-1",
        /// The account in events and in the ARNs of routes.
        pub account_id: Text = "000000000000",
        /// One bucket for all calls: handshakes, messages, pushes and requests (at AWS 10,000 a second with a burst of
        /// 5,000 for an account).
        pub throttle: OrNone<Throttle> = "none",
        /// What operators show as `Authorization: Bearer …` to the admin listener, from wherever they come. Without it the
        /// dashboard is for this machine alone.
        pub admin_token: Option<Secret>,
        /// Lets operators look, and neither send to connections nor close them.
        pub admin_read_only: bool = false,
        /// Traces of calls; without the table there are none.
        pub tracing: Option<Tracing>,
        check is_consistent;
    }
}

fn is_consistent(gateway: &Gateway, reading: &mut Reading) {
    for (text, noun, help) in [
        (&gateway.region, "region", "write it like `us-east-1`"),
        (&gateway.account_id, "account id", "write its digits in quotes, like `\"123456789012\"`"),
    ] {
        let is_plain = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        if !text.unresolved && !is_plain {
            reading.problems.problem_with_help(&text.place, format!("`{}` is no {noun}", text.value), help);
        }
    }
    if let Some(token) = gateway.admin_token.as_ref().filter(|token| !token.unresolved)
        && !token.reveal().bytes().all(|byte| byte.is_ascii_graphic())
    {
        let help = "use visible ASCII characters without blanks";
        reading.problems.problem_with_help(&token.place, "this token cannot be shown in a header", help);
    }
    if gateway.proxy_protocol && gateway.trusted_proxies.is_empty() {
        let help = "add `trusted_proxies = [\"10.0.0.0/8\"]` with the addresses of the load balancers";
        let found = "`proxy_protocol` is spoken by trusted proxies only, and there are none";
        reading.problems.problem_with_help(&gateway.place, found, help);
    }
    for listener in gateway.listen.iter().filter(|listener| listener.tls == Some(true) && gateway.tls.is_none()) {
        let help = "add `[gateway.tls]` with `certificates`";
        reading.problems.problem_with_help(&listener.place, "this listener has no certificate", help);
    }
}

/// An address to listen on.
#[derive(Debug, Clone)]
pub struct ListenAddress {
    pub address: Address,
    /// What the scheme in front says of TLS, if one is written.
    pub tls: Option<bool>,
    pub place: Place,
}

impl Setting for ListenAddress {
    fn read(node: Node, reading: &mut Reading) -> Option<Self> {
        let help = "write it like `127.0.0.1:8080`, `[::]:8080` or `unix:/run/livegate.sock`";
        let text = node.word(reading, "address", help)?;
        if let Some(path) = text.strip_prefix("unix:") {
            if !path.starts_with('/') || path.ends_with('/') || path.len() > LONGEST_SOCKET_PATH {
                reading.refuse(&node, "path of a socket", "write its whole path, like `unix:/run/livegate.sock`");
                return None;
            }
            return Some(ListenAddress { address: Address::Unix(path.into()), tls: Some(false), place: node.place });
        }
        let (address, tls) = match text.split_once("://") {
            Some(("http", address)) => (address, Some(false)),
            Some(("https", address)) => (address, Some(true)),
            _ => (text.as_str(), None),
        };
        match address.parse() {
            Ok(address) => Some(ListenAddress { address: Address::Tcp(address), tls, place: node.place }),
            Err(_) => {
                reading.refuse(&node, "address", help);
                None
            }
        }
    }

    fn schema() -> serde_json::Value {
        let pattern = r"^((https?://)?(\[[0-9A-Fa-f:.]+\]|[0-9.]+):[0-9]+|unix:/.+)$";
        or_env(json!({ "type": "string", "pattern": pattern }))
    }

    fn kind() -> String {
        "address with port, or socket".into()
    }
}

/// The longest path of a Unix socket that systems take.
const LONGEST_SOCKET_PATH: usize = 103;

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
