//! A client of our own: what the playground's sockets go through.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::io::DuplexStream;

use super::exchange::{self, Accepted};
use super::front_door::FrontDoor;
use crate::connections::Wire;
use crate::transports::dashboard::Dial;

/// What a pipe within the process holds, each way.
const PIPE: usize = 64 * 1024;

/// Opens connections to that door.
pub(super) fn to(door: FrontDoor) -> Dial {
    let door = Arc::new(door);
    Arc::new(move |address| dial(&door, address))
}

/// A connection to the client side of this gateway, as if it had been accepted from that address.
fn dial(door: &Arc<FrontDoor>, address: IpAddr) -> DuplexStream {
    let (near, far) = tokio::io::duplex(PIPE);
    let listeners = door.engine().listeners();
    let listener = listeners.iter().find_map(|at| {
        let (scheme, address) = at.split_once("://")?;
        Some((if scheme == "https" { "https" } else { "http" }, address.parse().ok()?))
    });
    let (scheme, local) = listener.unwrap_or(("http", SocketAddr::from(([127, 0, 0, 1], 80))));
    let wire = Wire::Other(Box::new(far));
    let accepted = Accepted { wire, remote: address, local, scheme, certificate: None, is_http_2: false };
    exchange::begin(door, exchange::serve(accepted, door.clone()));
    near
}
