//! A client as applications have one.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use super::within;

pub struct Client {
    mouth: Mouth,
    ears: Ears,
}

/// The half that speaks.
pub struct Mouth(SplitSink<WebSocketStream<TcpStream>, Message>);

/// The half that listens.
pub struct Ears(SplitStream<WebSocketStream<TcpStream>>);

impl Client {
    pub async fn connect(address: SocketAddr, path: &str) -> Result<Self, u16> {
        let socket = TcpStream::connect(address).await.expect("the gateway listens");
        Self::shake_hands(socket, path).await
    }

    /// One whose kernel keeps little for it: it is soon slow if it does not read.
    pub async fn with_little_room(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("a small buffer");
        let socket = socket.connect(address).await.expect("the gateway listens");
        Self::shake_hands(socket, "/s").await.expect("an open door")
    }

    async fn shake_hands(socket: TcpStream, path: &str) -> Result<Self, u16> {
        socket.set_nodelay(true).expect("a TCP socket");
        let url = format!("ws://{}{path}", socket.peer_addr().expect("it is connected"));
        match client_async(url, socket).await {
            Ok((socket, _)) => {
                let (mouth, ears) = socket.split();
                Ok(Self { mouth: Mouth(mouth), ears: Ears(ears) })
            }
            Err(Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("no handshake: {error}"),
        }
    }

    pub async fn send(&mut self, text: impl Into<String>) {
        self.mouth.send(text).await;
    }

    /// The next message, which must be text.
    pub async fn text(&mut self) -> String {
        self.ears.text().await
    }

    pub async fn ask(&mut self, text: impl Into<String>) -> String {
        self.send(text).await;
        self.text().await
    }

    /// Its own connection id.
    pub async fn id(&mut self) -> String {
        self.ask(r#"{"action":"id"}"#).await
    }

    /// Sends a Close frame and waits for the echo's code.
    pub async fn close(mut self, code: u16) -> u16 {
        self.mouth.close(code).await;
        self.ears.closed().await
    }

    /// Leaves with a reset: the gateway is told nothing.
    pub fn reset(self) {
        let Client { mouth: Mouth(mouth), ears: Ears(ears) } = self;
        let socket = mouth.reunite(ears).expect("halves of one").into_inner();
        socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO)).expect("a TCP socket");
    }

    /// The code of the gateway's Close; messages before it are let go. 1006 if the socket ends without one.
    pub async fn closed(&mut self) -> u16 {
        self.ears.closed().await
    }

    pub fn split(self) -> (Mouth, Ears) {
        (self.mouth, self.ears)
    }
}

impl Mouth {
    pub async fn send(&mut self, text: impl Into<String>) {
        let sent = self.0.send(Message::text(text.into()));
        within("room to send", sent).await.expect("an open socket");
    }

    pub async fn ping(&mut self, payload: impl Into<Bytes>) {
        within("room to send", self.0.send(Message::Ping(payload.into()))).await.expect("an open socket");
    }

    pub async fn close(&mut self, code: u16) {
        let close = CloseFrame { code: code.into(), reason: "".into() };
        // The gateway may have been first.
        let _ = within("room to send", self.0.send(Message::Close(Some(close)))).await;
    }
}

impl Ears {
    pub async fn text(&mut self) -> String {
        loop {
            match self.message().await {
                Some(Message::Text(text)) => return text.as_str().to_owned(),
                Some(Message::Ping(_) | Message::Pong(_)) => {}
                other => panic!("{other:?} in place of a text"),
            }
        }
    }

    pub async fn closed(&mut self) -> u16 {
        let mut code = 1006;
        // Reading on to the end also sends the answer to the Close, which the gateway waits for.
        while let Some(message) = self.message().await {
            if let Message::Close(close) = message {
                code = close.map_or(1005, |close| close.code.into());
            }
        }
        code
    }

    /// What comes next; nothing when the socket is gone.
    pub async fn message(&mut self) -> Option<Message> {
        within("a message", self.0.next()).await.and_then(Result::ok)
    }
}
