//! How a connection ends: the code and the reason, for the client's Close frame and for `$disconnect`.

use std::borrow::Cow;

/// A close code of RFC 6455 (or ours, 4000 and up) with its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    pub code: u16,
    pub reason: Cow<'static, str>,
}

macro_rules! closes {
    ($($(#[$doc:meta])* $name:ident = $code:literal $reason:literal;)*) => {
        impl Close {
            $($(#[$doc])* pub const $name: Close = Close { code: $code, reason: Cow::Borrowed($reason) };)*

            /// Every close the gateway decides on itself.
            pub const ALL: &'static [Close] = &[$(Close::$name),*];
        }
    };
}

closes! {
    /// A backend's DELETE on `@connections`.
    DELETED = 1000 "Connection Closed Normally";
    /// Idle, too old, no pong, stage removed, or the gateway stops.
    GOING_AWAY = 1001 "Going away";
    /// The client broke the protocol; also for a close code that may not be sent.
    PROTOCOL = 1002 "Protocol violation";
    /// A binary message on a stage without `binary`. AWS documents the code and no reason.
    BINARY = 1003 "";
    /// The client's Close frame carried no code (never on the wire).
    NO_STATUS = 1005 "Client-side close frame status not set";
    /// The socket was lost without a Close frame (never on the wire).
    LOST = 1006 "Connection Closed Abnormally";
    /// A text message that is not UTF-8.
    NOT_UTF8 = 1007 "Invalid UTF-8";
    /// The outbox stayed full for `slow_consumer_timeout`.
    SLOW_CONSUMER = 1008 "Slow consumer";
    /// A frame above `max_frame` or a message above `max_message`. AWS documents the code and no reason.
    TOO_BIG = 1009 "";
    /// The gateway failed.
    INTERNAL = 1011 "Internal error";
    /// The token that opened the connection expired, and no route with `refreshes_authorization` got a fresh one.
    TOKEN_EXPIRED = 4401 "Token expired";
}

impl Close {
    /// What the client said in its own Close frame.
    pub fn by_client(code: u16, reason: &str) -> Self {
        Self { code, reason: Cow::Owned(reason.to_owned()) }
    }
}
