//! Bounds that no setting changes, each with its reason. What operators may change stands in the stage.

use std::time::Duration;

/// Request line and headers of one request (AWS's quota).
pub const REQUEST_HEAD: usize = 10_240;

/// Path and query of one request (AWS's quota on URLs).
pub const URL: usize = 4096;

/// Header lines of one request; hyper's own default, named because it is part of the contract.
pub const HEADERS: usize = 100;

/// The head of a backend's answer.
pub const ANSWER_HEAD: usize = 400 * 1024;

/// The line in front of a chunk of a backend's answer: its size, and extensions that nobody reads.
pub const CHUNK_LINE: usize = 4096;

/// All trailers of a backend's answer.
pub const TRAILERS: usize = 16 * 1024;

/// The body of a refused handshake that is passed on to the client.
pub const REFUSAL_BODY: usize = 64 * 1024;

/// How long a kept-alive HTTP connection may wait for its next request. SDKs keep theirs for a
/// minute or so; ours must outlive them, or a push is lost in the race.
pub const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// How long a pooled connection to a backend may wait for its next call. Below the 5 s of Node and
/// uvicorn, so that we close first and no call meets a closing socket.
pub const BACKEND_IDLE: Duration = Duration::from_secs(4);

/// Calls in progress to one backend (scheme, host and port). More wait for their turn within their timeout.
pub const BACKEND_CALLS: usize = 1024;

/// Connections kept open to one backend between calls.
pub const BACKEND_IDLE_CONNECTIONS: usize = 256;

/// How long a connection to a backend may take to open; the call's own timeout may be shorter.
pub const BACKEND_CONNECT: Duration = Duration::from_secs(5);

/// How long after our Close the client's answer, or what it still sends, is awaited.
pub const CLOSE_WAIT: Duration = Duration::from_secs(1);

/// How long pushes that were accepted before a close may take to leave.
pub const LAST_PUSHES: Duration = Duration::from_secs(5);

/// `$disconnect` calls being delivered or waiting to be repeated. A stranger could otherwise grow
/// the queue by reconnecting while the backend is down; what does not fit is counted as lost.
pub const DISCONNECTS: usize = 65_536;

/// Messages of one connection read in one turn, so that a busy client leaves others theirs.
pub const MESSAGES_PER_TURN: usize = 32;

/// How long the body of an `@connections` call may take to arrive.
pub const BODY: Duration = Duration::from_secs(10);

/// How much of a body that is too large is still read, so that its sender gets to see the 413.
pub const TOO_LARGE_BODY: usize = 1024 * 1024;

/// How long a client may take nothing of an answer that is being written to it.
pub const STALLED_CLIENT: Duration = Duration::from_secs(60);

/// How long a kept-alive HTTP connection is quiet before it gives back its buffers.
pub const REST: Duration = Duration::from_secs(2);

/// Requests that one HTTP/2 connection may have open at a time.
pub const HTTP_2_STREAMS: u32 = 250;

/// What of a request's header list HTTP/2 may carry; each line counts 32 bytes more there than on the wire.
pub const HTTP_2_HEADERS: u32 = 16 * 1024;

/// Calls that may wait for their turn on one backend that has no table of its own.
/// The messages of a connection that wait are bounded by its `max_in_flight`, so this is for a storm of connections.
pub const BACKEND_QUEUE: usize = 131_072;

/// Calls that one HTTP/2 connection to a backend carries at a time, which servers allow as a rule; more open another.
pub const BACKEND_STREAMS: usize = 100;

/// How much of a request's or an answer's body a JSONPath looks into (AWS's bound for HTTP APIs).
pub const SEARCHED_BODY: usize = 100 * 1024;

/// A body that must be there as a whole, because a mapping or an event has to have it (AWS's largest).
pub const WHOLE_BODY: usize = 10 * 1024 * 1024;

/// A request body that is held until its request has been answered, so that the request can be repeated on another
/// server of a pool.
pub const REPEATED_BODY: usize = 64 * 1024;

/// How often an HTTP/2 connection to a backend is pinged, and how long the answer may take.
pub const BACKEND_PING: Duration = Duration::from_secs(10);

/// How long an answer on an HTTP/2 connection may lie without its client asking for more. Longer than for a whole
/// connection: hyper sends some hundred KiB ahead, which a slow client takes its time for.
pub const STALLED_STREAM: Duration = Duration::from_secs(600);

/// A JSON Web Token that is looked at. Above what a request head may hold, but messages can bring tokens as well, and all
/// of it is hashed before the signature is known to be wrong.
pub const TOKEN: usize = 16 * 1024;
