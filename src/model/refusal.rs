//! Refusals: calls that the gateway turned away, or could not get answered.
//!
//! The table below names each, whose fault it is, the status a handshake gets, and the text a client
//! sees. `engine/gateway_responses.rs` makes answers of them; metrics follow from the fault.

use std::fmt;
use std::time::Duration;

use http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue};

/// One refused call: which row of the table, and a detail for the log that no client sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub kind: Kind,
    pub detail: String,
    /// What refused it, where more than one step does so with the same answer.
    pub cause: Option<Cause>,
    /// What the client is told besides.
    pub told: Option<Box<Told>>,
}

/// What a client is told besides the row of the table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// In place of the row's message.
    pub message: Option<String>,
    /// `WWW-Authenticate` or `Retry-After`; an answer over HTTP carries it, a frame does not.
    pub header: Option<(HeaderName, HeaderValue)>,
}

macro_rules! causes {
    ($($(#[$doc:meta])* $cause:ident $name:literal;)*) => {
        /// Why a call was not let in: what refusals are counted by.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Cause { $($(#[$doc])* $cause,)* }

        impl Cause {
            pub const ALL: &'static [Cause] = &[$(Cause::$cause),*];

            /// Too much was asked, by whatever measure.
            pub fn is_throttle(self) -> bool {
                !self.is_denial() && self != Cause::AuthorizerFailure
            }

            /// Who asked may not, or did not say who it is.
            pub fn is_denial(self) -> bool {
                use Cause::{ApiKey, Denied, Origin, ResourcePolicy, Unauthorized};
                matches!(self, Origin | ResourcePolicy | ApiKey | Unauthorized | Denied)
            }

            pub fn name(self) -> &'static str {
                match self { $(Cause::$cause => $name,)* }
            }
        }
    };
}

causes! {
    /// A browser's page of another origin.
    Origin "origin";
    ResourcePolicy "resource_policy";
    /// No API key, an unknown or disabled one, or one without a plan for the stage.
    ApiKey "api_key";
    /// Nobody knows who is calling.
    Unauthorized "unauthorized";
    /// It is known, and may not.
    Denied "denied";
    /// The authorizer could not be asked, or its answer could not be used.
    AuthorizerFailure "authorizer_failure";
    GatewayThrottle "gateway_throttle";
    RouteThrottle "route_throttle";
    UsagePlanThrottle "usage_plan_throttle";
    Quota "quota";
    AddressConnections "address_connections";
    AddressConnects "address_connects";
    AddressRequests "address_requests";
    ConnectionMessages "connection_messages";
    ConnectionBytes "connection_bytes";
    PushThrottle "push_throttle";
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
    /// The authorizer allows it nowhere.
    AccessDenied "ACCESS_DENIED" Client 403 "User is not authorized to access this resource";
    /// The authorizer denies it in so many words.
    ExplicitDeny "ACCESS_DENIED" Client 403 "User is not authorized to access this resource with an explicit deny";
    /// Who is calling was not said, or not believed.
    Unauthorized "UNAUTHORIZED" Client 401 "Unauthorized";
    /// The authorizer could not be asked, or its answer could not be used. (AWS's message is null.)
    AuthorizerFailure "AUTHORIZER_FAILURE" Backend 500 "";
    InvalidApiKey "INVALID_API_KEY" Client 403 "Forbidden";
    /// More calls than a throttle lets through.
    Throttled "THROTTLED" Client 429 "Too Many Requests";
    /// More calls than a usage plan has in its period.
    QuotaExceeded "QUOTA_EXCEEDED" Client 429 "Limit Exceeded";
    /// No route for the request.
    NotFound "MISSING_ROUTE" Client 404 "Not Found";
    /// The request's path cannot be passed on.
    BadRequest "BAD_REQUEST" Client 400 "Bad Request";
    /// The request's body is longer than the stage takes.
    RequestTooLarge "REQUEST_TOO_LARGE" Client 413 "Request Entity Too Large";
    /// The request's body did not come in time.
    TooSlow "REQUEST_TIMEOUT" Client 408 "Request Timeout";
    /// A push for a connection that is not open.
    Gone "GONE" Client 410 "Gone";
    /// A push for a connection that has no room for it.
    OutboxFull "OUTBOX_FULL" Client 429 "Limit Exceeded";
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
        Refusal { kind: self, detail: detail.to_string(), cause: None, told: None }
    }
}

impl Refusal {
    pub fn by(mut self, cause: Cause) -> Self {
        self.cause = Some(cause);
        self
    }

    /// Says to the client when to come back; `None` is never, at this rate.
    pub fn until(self, retry_after: Option<Duration>) -> Self {
        let Some(time) = retry_after else { return self };
        // Whole seconds is what the header has; too early would be refused again.
        let seconds = (time.as_secs() + u64::from(time.subsec_nanos() > 0)).max(1);
        self.with_header(RETRY_AFTER, HeaderValue::from(seconds))
    }

    pub fn with_challenge(self, challenge: HeaderValue) -> Self {
        self.with_header(WWW_AUTHENTICATE, challenge)
    }

    pub fn with_message(mut self, message: String) -> Self {
        self.told.get_or_insert_default().message = Some(message);
        self
    }

    fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.told.get_or_insert_default().header = Some((name, value));
        self
    }

    pub fn header(&self) -> Option<&(HeaderName, HeaderValue)> {
        self.told.as_ref()?.header.as_ref()
    }

    /// What the client is told.
    pub fn message(&self) -> &str {
        self.told.as_ref().and_then(|told| told.message.as_deref()).unwrap_or(self.kind.message())
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.name(), self.detail)
    }
}
