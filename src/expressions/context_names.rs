//! The names that may follow `context.`, with the nearest one for a misspelling.

use super::Error;

/// Every name this version fills in, `*` standing for one key or more.
const KNOWN: &[&str] = &[
    "apiId",
    "authorizer.*",
    "connectedAt",
    "connectionId",
    "disconnectReason",
    "disconnectStatusCode",
    "domainName",
    "domainPrefix",
    "error.*",
    "eventType",
    "extendedRequestId",
    "httpMethod",
    "identity.clientCert.*",
    "identity.sourceIp",
    "identity.userAgent",
    "messageDirection",
    "messageId",
    "path",
    "protocol",
    "requestId",
    "requestTime",
    "requestTimeEpoch",
    "routeKey",
    "stage",
];

/// Names that AWS fills in and this version does not: saying so beats calling them misspelt.
const NOT_YET: &[&str] = &[
    "identity.accountId",
    "identity.apiKey",
    "identity.apiKeyId",
    "identity.caller",
    "identity.cognitoAuthenticationProvider",
    "identity.cognitoAuthenticationType",
    "identity.cognitoIdentityId",
    "identity.cognitoIdentityPoolId",
    "identity.principalOrgId",
    "identity.user",
    "identity.userArn",
    "status",
];

/// Is `name` (what follows `context.`) one that this version fills in?
pub fn check(name: &str) -> Result<(), Error> {
    let family = |known: &str| {
        known.strip_suffix('*').is_some_and(|prefix| name.len() > prefix.len() && name.starts_with(prefix))
    };
    if KNOWN.iter().any(|known| *known == name || family(known)) {
        return Ok(());
    }
    if NOT_YET.contains(&name) {
        return Err(Error::new(0, format!("`context.{name}` is not in this version"), "leave it out"));
    }
    let help = match nearest(name, KNOWN) {
        Some(near) => format!("did you mean `context.{near}`?"),
        None => format!("there are {}", KNOWN.join(", ")),
    };
    Err(Error::new(0, format!("`context.{name}` is unknown"), help))
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
    #[track_caller]
    fn check(name: &str, expected: &str) {
        let found = super::check(name).map_or_else(|error| error.to_string(), |()| "known".into());
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
        check("identity.apiKey", "`context.identity.apiKey` is not in this version");
        check("", "there are apiId, ");
        check("completelyOther", "there are apiId, ");
    }
}
