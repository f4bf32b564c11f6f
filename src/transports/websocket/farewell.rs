//! Closing a socket so that the client learns why.
//!
//! A Close frame is lost when the socket is closed while the client's bytes lie unread: the kernel
//! then answers with a reset, which overtakes it. So after our Close writing is shut down and what
//! still comes is read and dropped, for at most a second.

use std::future::poll_fn;
use std::io;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::OpCode;
use tokio_util::sync::CancellationToken;

use super::codec::{Bounds, Codec, Message};
use crate::api::stage::Stage;
use crate::connections::{Connection, When, Wire};
use crate::engine::Engine;
use crate::model::close::Close;
use crate::model::limits;
use crate::telemetry::tail::Direction;

/// A connection that comes to its end.
pub struct Leaving<'a> {
    pub engine: &'a Engine,
    pub connection: &'a Connection,
    pub stage: &'a Stage,
    /// Messages, and bytes, that the codec was given and that may not have been written yet.
    pub unconfirmed: (u32, usize),
}

/// The client closed: its Close is echoed, then the server is the first to end the TCP connection.
pub async fn answer_close(mut codec: Codec<Wire>) {
    // A client that left without waiting for the echo needs none.
    let _ = timeout(limits::CLOSE_WAIT, codec.flush()).await;
    shut(codec.into_inner()).await;
}

/// The client broke a rule: it is told which, and nothing more is heard from it.
pub async fn refuse(mut codec: Codec<Wire>, close: &Close) {
    codec.send(&frame(close));
    let _ = timeout(limits::CLOSE_WAIT, codec.flush()).await;
    let_go(codec).await;
}

/// The gateway closes: accepted pushes go first, then the Close, then the client has a moment to answer.
pub async fn go(mut codec: Codec<Wire>, leaving: &Leaving<'_>, close: &Close, when: When) {
    codec.resume_reading();
    if when != When::Now {
        let _ = timeout(limits::LAST_PUSHES, write_out(&mut codec, leaving)).await;
    }
    codec.send(&frame(close));
    let _ = timeout(limits::CLOSE_WAIT, codec.flush()).await;
    let answer = async {
        let limits = &leaving.stage.limits;
        let bounds = Bounds { message: limits.max_message, frame: limits.max_frame };
        loop {
            // What the client still says is not heard any more; only its Close is waited for.
            match poll_fn(|cx| codec.poll_next(cx, bounds)).await {
                Ok(Message::Close(_)) => return true,
                Ok(_) => {}
                Err(_) => return false,
            }
        }
    };
    match timeout(limits::CLOSE_WAIT, answer).await {
        // A client that has closed sends nothing more, so there is nothing to drain.
        Ok(true) => drop(shut(codec.into_inner()).await),
        _ => let_go(codec).await,
    }
}

async fn write_out(codec: &mut Codec<Wire>, leaving: &Leaving<'_>) -> io::Result<()> {
    let Leaving { engine, connection, stage, unconfirmed: (mut messages, mut bytes) } = *leaving;
    while let Some(frame) = connection.outbox.take() {
        let (length, header) = (frame.payload().len(), frame.header());
        let is_data = matches!(header.opcode, OpCode::Data(_));
        let is_whole = is_data && header.is_final;
        stage.metrics.unqueued(length, is_whole.into());
        messages += u32::from(is_whole);
        bytes += length;
        if is_data {
            engine.note_frame(stage, connection, Direction::Out, frame.payload());
        }
        poll_fn(|cx| codec.poll_ready(cx)).await?;
        codec.send(&frame);
    }
    codec.flush().await?;
    stage.metrics.written(messages, bytes);
    connection.note_written(messages, bytes);
    Ok(())
}

/// The drain's time is over: a last moment for the Close to arrive, none for a client that ignores it.
pub async fn out_of_time(deadline: &CancellationToken) {
    deadline.cancelled().await;
    let _ = timeout(limits::CLOSE_WAIT, std::future::pending::<()>()).await;
}

async fn let_go(codec: Codec<Wire>) {
    let Some(mut socket) = shut(codec.into_inner()).await else { return };
    // Not in the future, which is moved before it begins.
    let mut nowhere = vec![0; 4096];
    let drained = async { while socket.read(&mut nowhere).await.is_ok_and(|read| read > 0) {} };
    // A client that neither answers nor leaves has had its second.
    let _ = timeout(limits::CLOSE_WAIT, drained).await;
}

/// Ends what we say; the socket if there may still be something to hear. Over TLS this is a write, which a client
/// that reads nothing would hold up for ever.
async fn shut(mut socket: Wire) -> Option<Wire> {
    let shut = timeout(limits::CLOSE_WAIT, socket.shutdown()).await;
    matches!(shut, Ok(Ok(()))).then_some(socket)
}

fn frame(close: &Close) -> Frame {
    Frame::close(Some(CloseFrame { code: close.code.into(), reason: (&*close.reason).into() }))
}
