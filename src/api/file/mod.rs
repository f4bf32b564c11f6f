//! routes.toml as written: every table with its keys, and nothing checked that takes two tables to check.
//!
//! The doc comments of these structs are the reference of the file. A table per module: `gateway`, `routing` (an API
//! and its routes), `stage`, `credential`, `authorizer`, `throttle` (with usage plans and API keys); integrations declare their own settings beside their behaviour.

mod acme;
mod authorizer;
mod backend;
mod credential;
mod gateway;
mod observation;
mod resource_policy;
mod routing;
mod stage;
mod throttle;
mod tls;

pub use acme::{Acme, Challenge, DirectoryUrl, DomainName, hmac_key};
pub use authorizer::{Authorizer, Event as AuthorizerEvent, Http as HttpAuthorizer, Jwt as JwtAuthorizer};
pub use backend::{Backend, BackendName, Tls as BackendTls};
pub use credential::Credential;
pub use gateway::{Gateway, ListenAddress, Url};
pub use observation::{AccessLog, LoggingLevel, Tracing, WhenFull};
pub use resource_policy::{Effect, PolicyStatement};
pub use routing::{
    Api, ApiName, Authorization, BasePath, ConnectionsApi, Domain, Host, MappedDomain, Protocol, Route, RouteKey,
};
pub use stage::{Ordering, Outbox, Stage, StageName, VariableName};
pub use throttle::{ApiKey, Period, StageLimits, Throttle, UsagePlan};
pub use tls::{Certificate, ClientAuth, MinimumVersion, Tls};

use serde_json::json;

use crate::model::problem::Problems;
use crate::model::settings::{self, Setting, Table, TableReference, settings};

settings! {
    /// Everything that one gateway serves.
    pub struct File {
        /// Where the gateway listens, and how it stops.
        pub gateway: Gateway,
        /// The APIs by name; an API's name is its id.
        pub apis: Table<Api, ApiName>,
        /// Who may push to connections.
        pub credentials: Table<Credential>,
        /// Pools of servers, by the name that routes use as a host.
        pub backends: Table<Backend, BackendName>,
        /// What decides who a caller is, by the name that routes use.
        pub authorizers: Table<Authorizer>,
        /// What holders of API keys may use.
        pub usage_plans: Table<UsagePlan>,
        /// The API keys; a key's name is its id.
        pub api_keys: Table<ApiKey>,
    }
}

/// Reads the text of a file. `env` looks up environment variables.
///
/// The file is there unless the text is no TOML; it may be used further only if there are no problems, or to look for
/// more of them: what could not be read has its default, or is left out.
pub fn read(source: &str, env: &dyn Fn(&str) -> Option<String>, allow_unset_env: bool) -> (Option<File>, Problems) {
    settings::read_file(source, env, allow_unset_env)
}

/// The JSON Schema of the file, for editors.
pub fn schema() -> serde_json::Value {
    let mut schema = File::schema();
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!("routes.toml of Livegate");
    schema
}

/// The reference of every key, as Markdown.
pub fn reference() -> String {
    settings::markdown(&tables())
}

fn tables() -> Vec<TableReference> {
    let mut tables = Vec::new();
    File::tables("", &mut tables);
    tables
}

#[cfg(test)]
mod tests;
