//! Networks: `10.0.0.0/8`, or one address alone.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};
use serde_json::json;

use super::{Node, Reading, Setting, or_env};

/// A range of addresses; a single address is a range of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr(pub IpNet);

impl Setting for Cidr {
    fn read(node: Node, reading: &mut Reading) -> Option<Self> {
        let help = "write it like `10.0.0.0/8`, `2001:db8::/32` or `192.0.2.7`";
        let text = node.word(reading, "network", help)?;
        let Some(written) = parse(&text) else {
            reading.refuse(&node, "network", help);
            return None;
        };
        let network = canonical(written.trunc());
        if written != written.trunc() {
            let found = format!("{} has bits set behind its prefix", node.as_written());
            reading.problems.warning_with_help(&node.place, found, format!("it is taken for `{network}`"));
        }
        Some(Cidr(network))
    }

    fn schema() -> serde_json::Value {
        or_env(json!({ "type": "string", "pattern": "^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$" }))
    }

    fn kind() -> String {
        "network".into()
    }
}

fn parse(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

/// Addresses are compared as IPv4 wherever they can be, so networks of IPv4 addresses in IPv6 clothes are as well.
fn canonical(network: IpNet) -> IpNet {
    match (network.addr().to_canonical(), network.prefix_len().checked_sub(96)) {
        (IpAddr::V4(address), Some(prefix)) if matches!(network, IpNet::V6(_)) => {
            Ipv4Net::new(address, prefix).map_or(network, IpNet::V4)
        }
        _ => network,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::problem::Place;

    fn check(text: &str, wanted: Option<&str>) {
        let mut reading = Reading::of_defaults();
        let read = Cidr::read(Node::unwritten(text.into(), &Place::default()), &mut reading);
        assert_eq!(read.map(|cidr| cidr.0.to_string()).as_deref(), wanted, "{text}");
        assert_eq!(reading.problems.has_problems(), wanted.is_none(), "{text}");
    }

    #[test]
    fn a_network_is_a_prefix_or_an_address() {
        check("10.0.0.0/8", Some("10.0.0.0/8"));
        check("192.0.2.7", Some("192.0.2.7/32"));
        check("2001:db8::/32", Some("2001:db8::/32"));
        check("::1", Some("::1/128"));
        check("0.0.0.0/0", Some("0.0.0.0/0"));
        check("10.1.2.3/8", Some("10.0.0.0/8"));
        check("::ffff:10.0.0.0/104", Some("10.0.0.0/8"));
        check("::ffff:192.0.2.7", Some("192.0.2.7/32"));
        for text in ["", "10.0.0.0/33", "10.0.0/8", "localhost", "10.0.0.0/", "10.0.0.0/255.0.0.0", "::/129"] {
            check(text, None);
        }
    }

    #[test]
    fn bits_behind_the_prefix_are_a_warning() {
        let mut reading = Reading::of_defaults();
        Cidr::read(Node::unwritten("10.1.2.3/8".into(), &Place::default()), &mut reading);
        let said: Vec<_> = reading.problems.iter().map(ToString::to_string).collect();
        assert_eq!(said, ["`10.1.2.3/8` has bits set behind its prefix; it is taken for `10.0.0.0/8`"]);
    }
}
