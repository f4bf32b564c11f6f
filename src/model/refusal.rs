//! Refusals: calls that the gateway turned away, or could not get answered.
//!
//! The table below names each, whose fault it is, the status a handshake gets, and the text a client
//! sees. `engine/gateway_responses.rs` makes answers of them; metrics follow from the fault.

use std::fmt;

/// One refused call: which row of the table, and a detail for the log that no client sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub kind: Kind,
    pub detail: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Client,
    Backend,
    Gateway,
}

macro_rules! refusals {
    ($($(#[$doc:meta])* $kind:ident $name:literal $fault:ident $status:literal $message:literal;)*) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Kind { $($(#[$doc])* $kind,)* }

        impl Kind {
            /// AWS's name of the gateway response.
            pub fn name(self) -> &'static str {
                match self { $(Kind::$kind => $name,)* }
            }

            pub fn fault(self) -> Fault {
                match self { $(Kind::$kind => Fault::$fault,)* }
            }

            /// The status of a handshake that ends so.
            pub fn status(self) -> u16 {
                match self { $(Kind::$kind => $status,)* }
            }

            /// What the client is told.
            pub fn message(self) -> &'static str {
                match self { $(Kind::$kind => $message,)* }
            }
        }
    };
}

refusals! {
    /// No route for the message, or no stage at that path.
    Forbidden "ACCESS_DENIED" Client 403 "Forbidden";
    /// No route for the request.
    NotFound "MISSING_ROUTE" Client 404 "Not Found";
    /// The request's path cannot be passed on.
    BadRequest "BAD_REQUEST" Client 400 "Bad Request";
    /// The request's body is longer than the stage takes.
    RequestTooLarge "REQUEST_TOO_LARGE" Client 413 "Request Entity Too Large";
    /// The request's body did not come in time.
    TooSlow "REQUEST_TIMEOUT" Client 408 "Request Timeout";
    /// Everybody who could answer is busy, and so is the queue for them.
    Busy "INTEGRATION_BUSY" Backend 503 "Internal server error";
    /// A mapped parameter cannot be made of this message.
    BadRequestBody "BAD_REQUEST_BODY" Client 400 "Bad request body";
    /// The backend could not be reached.
    IntegrationUnreachable "API_CONFIGURATION_ERROR" Backend 500 "Internal server error";
    /// The backend answered with something that cannot be used.
    IntegrationFailure "INTEGRATION_FAILURE" Backend 502 "Internal server error";
    /// The backend did not answer in time.
    IntegrationTimeout "INTEGRATION_TIMEOUT" Backend 504 "Endpoint request timed out";
    /// The gateway itself failed.
    Internal "DEFAULT_5XX" Gateway 500 "Internal server error";
}

impl Kind {
    pub fn because(self, detail: impl fmt::Display) -> Refusal {
        Refusal { kind: self, detail: detail.to_string() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.name(), self.detail)
    }
}
