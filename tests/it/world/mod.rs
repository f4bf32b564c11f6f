//! The world of a test: one gateway in this process, one backend that it calls, and ways to reach both.
//!
//! Nothing here waits for time to pass: a test waits for what it wants to see, and `within` ends it when that never
//! comes.

mod backend;
mod client;
mod pusher;
mod raw;

use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use livegate::api::files::Files;
use livegate::api::kept::Kept;
use livegate::api::{self, gateway::Gateway};
use livegate::server::Server;
use livegate::server::systemd::PassedSockets;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

pub use backend::{Backend, Held, Reply, Seen};
pub use client::Client;
pub use pusher::Pusher;
pub use raw::{BINARY, CONTINUE, PONG, Raw, TEXT, close, frame, ping, text};

/// A running gateway with the API `t` and its stage `s`, and the backend behind it.
pub struct World {
    pub backend: Backend,
    pub server: Arc<Server>,
    kept: Arc<Kept>,
    address: SocketAddr,
}

/// The file that most tests serve: `BACKEND` stands for the backend's URL, and `stage` for the keys of the stage `s`
/// and whatever tables are to follow it.
///
/// A message without a named route goes to `/default`, and both `/default` and `/echo` send back what they got; `/tell`
/// is one-way, and the mocks answer without a backend.
pub fn file(stage: &str) -> String {
    format!(
        r#"
[gateway]
listen        = "127.0.0.1:0"
admin_listen  = "none"
drain_timeout = "4s"

[apis.t]
protocol                   = "websocket"
route_selection_expression = "$request.body.action"
routes."$connect".integration    = "BACKEND/connect"
routes."$disconnect".integration = "BACKEND/disconnect"
routes."$default" = {{ integration = "BACKEND/default", route_response = true }}
routes.echo       = {{ integration = "BACKEND/echo", route_response = true }}
routes.held       = {{ integration = "BACKEND/held", route_response = true }}
routes.tell       = {{ integration = "BACKEND/tell" }}
routes.id         = {{ integration = {{ type = "mock", response = "${{context.connectionId}}" }}, route_response = true }}
routes.mock       = {{ integration = {{ type = "mock", response = "${{request.body.text}}" }}, route_response = true }}
connections_api.authorization = "none"

[apis.t.stages.s]
{stage}
"#
    )
}

impl World {
    /// The usual file, with these keys in its stage.
    pub async fn start(stage: &str) -> World {
        Self::serving(&file(stage)).await
    }

    pub async fn serving(file: &str) -> World {
        let backend = Backend::start();
        let kept = Arc::new(Kept::default());
        let gateway = load(file, &backend, &kept);
        let server = Server::start(gateway, PassedSockets::default(), &kept).await.expect("free ports");
        let address = server.client_listeners()[0].address.tcp().expect("a TCP listener");
        World { backend, server, kept, address }
    }

    /// Serves the usual file with other keys in its stage from now on.
    pub fn reload(&self, stage: &str) {
        self.server.reload(load(&file(stage), &self.backend, &self.kept)).expect("the same listener");
    }

    /// Serves another file from now on.
    pub fn reload_with(&self, file: &str) {
        self.server.reload(load(file, &self.backend, &self.kept)).expect("the same listener");
    }

    pub async fn connect(&self) -> Client {
        self.connect_to("/s").await
    }

    pub async fn connect_to(&self, path: &str) -> Client {
        self.knock(path).await.expect("an open door")
    }

    /// A client, or the status that refused it.
    pub async fn knock(&self, path: &str) -> Result<Client, u16> {
        within("a handshake", Client::connect(self.address, path)).await
    }

    /// A client whose bytes the test writes itself, after its handshake.
    pub async fn raw(&self) -> Raw {
        let mut raw = self.bare().await;
        raw.write(&raw.handshake("/s")).await;
        raw.accepted().await;
        raw
    }

    /// The same before its handshake.
    pub async fn bare(&self) -> Raw {
        within("a TCP connection", Raw::connect(self.address)).await
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// One who calls `@connections`.
    pub fn pusher(&self) -> Pusher {
        Pusher::new(self.address)
    }

    /// The value of a metric, summed over its labels.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.kept.metrics.render();
        let lines =
            text.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Messages that the gateway has read and not yet answered.
    pub fn in_flight(&self) -> u32 {
        self.server.engine().connections.all().iter().map(|connection| connection.in_flight()).sum()
    }

    /// Looks at something of the gateway's own again and again, with a whole round trip through it in between.
    pub async fn until(&self, what: &str, mut holds: impl FnMut(&World) -> bool) {
        let pusher = self.pusher();
        within(what, async {
            while !holds(self) {
                pusher.probe().await;
            }
        })
        .await;
    }
}

fn load(file: &str, backend: &Backend, kept: &Kept) -> Gateway {
    let source = file.replace("BACKEND", &format!("http://{}", backend.address));
    let (gateway, problems) = api::load(&source, &|_| None, false, &Files::new(Path::new(".")), kept);
    gateway.unwrap_or_else(|| panic!("{}", api::report::render("routes.toml", &source, &problems, false)))
}

/// Gives up on what never comes, with its name.
pub async fn within<T>(what: &str, coming: impl Future<Output = T>) -> T {
    const PATIENCE: Duration = Duration::from_secs(15);
    tokio::time::timeout(PATIENCE, coming).await.unwrap_or_else(|_| panic!("{what} did not come"))
}

/// Another sequence in each run; a failed test shows its seed, and `IT_SEED` repeats it.
pub fn random() -> StdRng {
    let seed = std::env::var("IT_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random::<u64>);
    eprintln!("IT_SEED={seed}");
    StdRng::seed_from_u64(seed)
}

/// Text of exactly this length that no other is like: not JSON, with some characters of two bytes.
pub fn random_text(random: &mut StdRng, length: usize) -> String {
    let mut text = String::with_capacity(length);
    while text.len() < length {
        let character = match random.random_range(0..40) {
            0 if text.len() + 2 <= length => 'é',
            at => char::from(b'A' + at % 26),
        };
        text.push(character);
    }
    text
}
