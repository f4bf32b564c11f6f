//! The names that may follow `context.`, with the nearest one for a misspelling.

use super::Error;

/// What kind of API the text belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    WebSocket,
    Http,
}

/// Every name this version fills in on all routes, `*` standing for one key or more.
const EVERYWHERE: &[&str] = &[
    "apiId",
    "authorizer.*",
    "domainName",
    "extendedRequestId",
    "identity.accountId",
    "identity.apiKey",
    "identity.apiKeyId",
    "identity.caller",
    "identity.sourceIp",
    "identity.user",
    "identity.userAgent",
    "identity.userArn",
    "requestId",
    "requestTime",
    "requestTimeEpoch",
    "routeKey",
    "stage",
];

const ON_CONNECTIONS: &[&str] = &[
    "connectedAt",
    "connectionId",
    "disconnectReason",
    "disconnectStatusCode",
    "error.*",
    "eventType",
    "messageDirection",
    "messageId",
];

const ON_REQUESTS: &[&str] = &[
    "domainPrefix",
    "httpMethod",
    "identity.clientCert.clientCertPem",
    "identity.clientCert.issuerDN",
    "identity.clientCert.serialNumber",
    "identity.clientCert.subjectDN",
    "identity.clientCert.validity.notAfter",
    "identity.clientCert.validity.notBefore",
    "path",
    "protocol",
];

/// Names that AWS fills in and this version does not: saying so beats calling them misspelt.
const NOT_YET: &[&str] = &[
    "identity.cognitoAuthenticationProvider",
    "identity.cognitoAuthenticationType",
    "identity.cognitoIdentityId",
    "identity.cognitoIdentityPoolId",
    "identity.principalOrgId",
    "status",
];

const NOT_YET_ON_REQUESTS: &[&str] = &[
    "accountId",
    "awsEndpointRequestId",
    "awsEndpointRequestId2",
    "customDomain.basePathMatched",
    "dataProcessed",
    "error.message",
    "error.messageString",
    "error.responseType",
    "integration.error",
    "integration.integrationStatus",
    "integration.latency",
    "integration.requestId",
    "integration.status",
    "integrationErrorMessage",
    "integrationLatency",
    "integrationStatus",
    "responseLatency",
    "responseLength",
];

/// Is `name` (what follows `context.`) one that this version fills in on routes of this kind?
pub fn check(name: &str, protocol: Protocol) -> Result<(), Error> {
    let (own, strange, elsewhere) = match protocol {
        Protocol::WebSocket => (ON_CONNECTIONS, ON_REQUESTS, "HTTP"),
        Protocol::Http => (ON_REQUESTS, ON_CONNECTIONS, "WebSocket"),
    };
    if is_among(name, EVERYWHERE) || is_among(name, own) {
        return Ok(());
    }
    if NOT_YET.contains(&name) || protocol == Protocol::Http && NOT_YET_ON_REQUESTS.contains(&name) {
        return Err(Error::new(0, format!("`context.{name}` is not in this version"), "leave it out"));
    }
    if is_among(name, strange) {
        return Err(Error::new(0, format!("only {elsewhere} routes have `context.{name}`"), "leave it out"));
    }
    let mut known = [EVERYWHERE, own].concat();
    known.sort_unstable();
    Err(unknown(name, &known))
}

/// `name` is none of those that are `known`.
pub fn unknown(name: &str, known: &[&'static str]) -> Error {
    let help = match nearest(name, known) {
        Some(near) => format!("did you mean `context.{near}`?"),
        None => format!("there are {}", known.join(", ")),
    };
    Error::new(0, format!("`context.{name}` is unknown"), help)
}

fn is_among(name: &str, names: &[&str]) -> bool {
    let family = |known: &str| {
        known.strip_suffix('*').is_some_and(|prefix| name.len() > prefix.len() && name.starts_with(prefix))
    };
    names.iter().any(|known| *known == name || family(known))
}

/// Does JSON show this one as a number? (Times and the disconnect code, as in the events.)
pub fn is_number(name: &str) -> bool {
    matches!(name, "connectedAt" | "requestTimeEpoch" | "disconnectStatusCode")
}

/// The one of `known` that `name` is most likely a misspelling of, if any is near.
fn nearest(name: &str, known: &[&'static str]) -> Option<&'static str> {
    let lower = name.to_lowercase();
    let tolerated = 2.max(name.chars().count() / 3);
    known
        .iter()
        .map(|candidate| (distance(&lower, &candidate.to_lowercase()), *candidate))
        .min()
        .filter(|(distance, _)| *distance <= tolerated)
        .map(|(_, candidate)| candidate)
}

/// How many characters must be put in, left out or changed to make one text of the other.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (line, letter) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = line + 1;
        for (column, opposite) in other.iter().enumerate() {
            let changed = diagonal + usize::from(letter != *opposite);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::Protocol::{Http, WebSocket};
    use super::*;

    #[track_caller]
    fn check(name: &str, expected: &str) {
        check_on(WebSocket, name, expected);
    }

    #[track_caller]
    fn check_on(protocol: Protocol, name: &str, expected: &str) {
        let found = super::check(name, protocol).map_or_else(|error| error.to_string(), |()| "known".into());
        assert!(found.contains(expected), "{name}: {found}");
    }

    #[test]
    fn a_name_is_known_coming_or_misspelt() {
        check("connectionId", "known");
        check("identity.sourceIp", "known");
        check("authorizer.principalId", "known");
        check("authorizer.a.b", "known");
        check("error.messageString", "known");
        check("authorizer.", "unknown");
        check("authorizer", "`context.authorizer` is unknown; did you mean `context.authorizer.*`?");
        check("connectionID", "did you mean `context.connectionId`?");
        check("conectionId", "did you mean `context.connectionId`?");
        check("identity.sourceip", "did you mean `context.identity.sourceIp`?");
        check("identity.apiKey", "known");
        check("identity.principalOrgId", "`context.identity.principalOrgId` is not in this version");
        check("", "there are apiId, ");
        check("completelyOther", "there are apiId, ");
    }

    #[test]
    fn a_name_of_the_other_protocol_is_no_misspelling() {
        for name in EVERYWHERE {
            check_on(WebSocket, name, "known");
            check_on(Http, name, "known");
        }
        check_on(Http, "connectionId", "only WebSocket routes have `context.connectionId`; leave it out");
        check_on(Http, "messageId", "only WebSocket routes have");
        check_on(Http, "httpMethod", "known");
        check_on(Http, "identity.clientCert.validity.notAfter", "known");
        check_on(Http, "identity.clientCert.issuerDn", "did you mean `context.identity.clientCert.issuerDN`?");
        check_on(Http, "pat", "did you mean `context.path`?");
        check_on(Http, "error.message", "`context.error.message` is not in this version");
        check_on(Http, "status", "is not in this version");
        check_on(Http, "integration.latency", "is not in this version");
        check_on(WebSocket, "httpMethod", "only HTTP routes have `context.httpMethod`; leave it out");
        check_on(WebSocket, "path", "only HTTP routes have");
        check_on(WebSocket, "pat", "there are apiId, ");
    }
}
