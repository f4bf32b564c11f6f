//! Who is at the other end of a connection: everything the handshake settled for its whole life.

use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderValue;
use parking_lot::RwLock;

use super::clock::Timestamp;
use super::id::ConnectionId;
use super::identity::Identity;

/// One connected client. Kept for as long as the socket, so it holds no more than events need.
#[derive(Debug)]
pub struct Client {
    pub id: ConnectionId,
    /// The id again, as the header that every backend call carries.
    pub id_header: HeaderValue,
    pub stage: StageKey,
    /// The host the client used, with its port unless it is the scheme's own.
    pub domain_name: Arc<str>,
    /// Where a backend pushes to this client.
    pub callback_url: HeaderValue,
    pub source_ip: IpAddr,
    pub user_agent: Option<Box<str>>,
    pub connected_at: Timestamp,
    /// Who it is, once `$connect` has found out; nothing where nobody asks.
    pub identity: RwLock<Option<Arc<Identity>>>,
}

/// Names a stage across reloads: the API's name and the stage's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StageKey {
    pub api: Arc<str>,
    pub stage: Arc<str>,
}
