//! `resource_policy`: who may reach an API, a stage or a route, by where it comes from and what it brings.

use crate::model::settings::{Cidr, OneOrMany, Table, TableName, Text, choice, settings};

choice! {
    /// What a statement does with the calls that it is about.
    pub enum Effect {
        /// Lets them in, and thereby nobody else whom no other statement allows.
        Allow = "allow",
        /// Turns them away, whatever other statements say.
        Deny = "deny",
    }
}

settings! {
    /// One statement of a resource policy. All of its conditions must hold; of a list of values, one. A statement
    /// without conditions is about everybody.
    pub struct PolicyStatement {
        /// Whether it lets in or turns away.
        pub effect: Effect,
        /// Networks or addresses that the client comes from.
        pub source_ip: Option<OneOrMany<Cidr>>,
        /// Headers and the values they may have, with `*` for any text and `?` for one character.
        pub headers: Table<OneOrMany<Text>, HeaderKey>,
        /// Claims or context keys of the authorizer and the values they may have.
        pub authorizer: Table<OneOrMany<Text>>,
    }
}

/// Names of headers.
#[derive(Debug, Clone)]
pub struct HeaderKey;

impl TableName for HeaderKey {
    const PLACEHOLDER: &'static str = "<header>";

    fn check(name: &str) -> Result<(), (String, String)> {
        match http::HeaderName::from_bytes(name.as_bytes()) {
            Ok(_) => Ok(()),
            Err(_) => Err((format!("`{name}` cannot name a header"), "use letters, digits and `-`".into())),
        }
    }
}
