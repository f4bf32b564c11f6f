//! Opening clients' connections, at any of the servers.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use clap::{Args, ValueEnum};
use rustls_pki_types::ServerName;
use tokio::task::spawn_local;
use tokio_rustls::TlsConnector;

use crate::adapters::Adapter;
use crate::http1;
use crate::net::{self, Sources, Target};
use crate::stats::Count;
use crate::ws::{Connection, Io};

#[derive(Args, Clone, Debug)]
pub struct SessionArgs {
    /// ws:// or wss://, http:// or https:// for one GET, tcp:// for no handshake at all; `{i}` is the connection's number
    #[arg(long)]
    pub url: Target,
    #[arg(long, value_enum, default_value = "plain")]
    pub adapter: Adapter,
    /// The channel, subject or topic that a connection subscribes to; `{i}` as above
    #[arg(long, default_value = "c{i}")]
    pub channel: String,
    /// A further header of the upgrade, `Name: value`; may be repeated
    #[arg(long)]
    pub header: Vec<String>,
    /// Handshakes in flight
    #[arg(long, default_value_t = 64)]
    pub open_concurrency: usize,
    /// The number of the first source address; processes that share a machine take different ones
    #[arg(long, default_value_t = 0)]
    pub first_source: u32,
}

impl SessionArgs {
    /// The same again as arguments, for a process that takes part of the connections.
    pub fn to_arguments(&self) -> Vec<String> {
        let adapter = self.adapter.to_possible_value().expect("no adapter is hidden");
        let mut all = vec![
            format!("--url={}", self.url),
            format!("--adapter={}", adapter.get_name()),
            format!("--channel={}", self.channel),
            format!("--open-concurrency={}", self.open_concurrency),
        ];
        all.extend(self.header.iter().map(|header| format!("--header={header}")));
        all
    }
}

/// All that is needed to open connection number `i`.
pub struct Opener {
    pub args: SessionArgs,
    sources: Sources,
    extra: String,
    tls: Option<TlsConnector>,
}

impl Opener {
    /// For at most `connections` at a time.
    pub fn new(args: &SessionArgs, connections: usize) -> anyhow::Result<Rc<Self>> {
        let mut extra: String = args.header.iter().map(|header| format!("{header}\r\n")).collect();
        extra.push_str(args.adapter.upgrade_header());
        let tls = if args.url.is_tls() { Some(TlsConnector::from(net::tls_client()?)) } else { None };
        let sources = Sources::new(args.first_source, connections);
        Ok(Rc::new(Opener { args: args.clone(), sources, extra, tls }))
    }

    /// The TCP, TLS and WebSocket handshakes, nothing more; with HTTP a first request in place of the last.
    pub async fn handshake(&self, i: usize) -> io::Result<Connection> {
        let url = &self.args.url;
        let tcp = net::connect(url.address, self.sources.pick(i)).await?;
        if url.is_tcp() {
            return Ok(Connection::over(Io::Plain(tcp)));
        }
        let io = match &self.tls {
            None => Io::Plain(tcp),
            Some(tls) => {
                let name = ServerName::try_from("localhost").expect("`localhost` is a server name");
                Io::Tls(Box::new(tls.connect(name, tcp).await?))
            }
        };
        if url.is_http() {
            let mut connection = Connection::over(io);
            self.ask(&mut connection, i).await?;
            return Ok(connection);
        }
        Connection::handshake(io, &url.authority, &fill(&url.path, i, ""), &self.extra).await
    }

    /// One more request on a connection that speaks HTTP.
    pub async fn ask(&self, connection: &mut Connection, i: usize) -> io::Result<()> {
        let url = &self.args.url;
        http1::get(connection.io(), &url.authority, &fill(&url.path, i, ""), &self.extra).await
    }

    /// A connection that receives its channel's messages.
    pub async fn open(&self, i: usize) -> io::Result<Connection> {
        let mut connection = self.handshake(i).await?;
        self.args.adapter.subscribe(&mut connection, &fill(&self.args.channel, i, ""), i).await?;
        Ok(connection)
    }

    /// Opens connections 0 to `n`, some at a time, and gives those that opened, in order, and how many did not.
    pub async fn open_all(self: &Rc<Self>, n: usize) -> (Vec<Connection>, u64) {
        let (next, failed) = (Count::default(), Count::default());
        let opened = Rc::new(RefCell::new(Vec::with_capacity(n)));
        let mut tasks = Vec::new();
        for _ in 0..self.args.open_concurrency.min(n) {
            let (opener, next, failed, opened) = (self.clone(), next.clone(), failed.clone(), opened.clone());
            tasks.push(spawn_local(async move {
                while (next.get() as usize) < n {
                    let i = next.next() as usize;
                    match opener.open(i).await {
                        Ok(connection) => opened.borrow_mut().push((i, connection)),
                        Err(e) => complain(&failed, format_args!("connection {i}: {e}")),
                    }
                }
            }));
        }
        for task in tasks {
            task.await.expect("an opening task does not panic");
        }
        let mut opened = opened.take();
        opened.sort_by_key(|(i, _)| *i);
        (opened.into_iter().map(|(_, connection)| connection).collect(), failed.get())
    }
}

/// Counts a mishap, and shows the first one: the others are mostly the same.
pub fn complain(count: &Count, what: std::fmt::Arguments<'_>) {
    if count.next() == 0 {
        eprintln!("{what}");
    }
}

/// Puts a connection's number and id into a template, the id percent-encoded.
pub fn fill(template: &str, i: usize, id: &str) -> String {
    if !template.contains('{') {
        return template.to_string();
    }
    template.replace("{id}", &percent_encode(id)).replace("{i}", &i.to_string())
}

pub fn percent_encode(text: &str) -> String {
    let byte = |b: u8| match b {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(b).to_string(),
        _ => format!("%{b:02X}"),
    };
    text.bytes().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_filled() {
        assert_eq!(fill("/sub/c{i}", 7, ""), "/sub/c7");
        assert_eq!(fill("/prod/@connections/{id}", 7, "7e8s-43WgB1PFu4="), "/prod/@connections/7e8s-43WgB1PFu4%3D");
    }
}
