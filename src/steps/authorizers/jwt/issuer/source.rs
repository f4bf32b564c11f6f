//! Where an issuer publishes its keys: at a URL of its own, or where its discovery document says.

use bytes::Bytes;
use http::Uri;
use http::uri::Scheme;
use serde_json::Value;

use crate::outbound::fetch::{Fetch, FetchError};

use super::super::keys::{self, KeySet};

const DISCOVERY: &str = "/.well-known/openid-configuration";

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Source {
    JwksUri(String),
    /// An OpenID Connect issuer, exactly as its own document names it.
    Discovery(String),
}

/// Why an issuer's keys could not be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("`{url}` could not be fetched: {source}")]
    Fetch { url: String, source: FetchError },
    #[error("`{url}` is no discovery document; it should be a JSON object with `issuer` and `jwks_uri`")]
    Document { url: String },
    #[error("`{url}` is of the issuer `{named}`; write `issuer` in the file exactly so, if it is meant")]
    Issuer { url: String, named: String },
    #[error("`{url}` names the jwks_uri `{jwks_uri}`, which is not https")]
    Insecure { url: String, jwks_uri: String },
    #[error("the keys at `{url}` cannot be used: {source}")]
    Keys { url: String, source: keys::Error },
}

impl Source {
    pub fn name(&self) -> String {
        match self {
            Source::JwksUri(name) | Source::Discovery(name) => public(name),
        }
    }

    /// The `jwks_uri` is looked up anew each time, because issuers move their keys.
    pub async fn keys<F: Fetch>(&self, fetch: &F) -> Result<KeySet, Error> {
        let url = match self {
            Source::JwksUri(uri) => uri.clone(),
            Source::Discovery(issuer) => {
                let url = format!("{}{DISCOVERY}", issuer.strip_suffix('/').unwrap_or(issuer));
                jwks_uri(issuer, &get(&url, fetch).await?, url)?
            }
        };
        KeySet::from_issuer(&get(&url, fetch).await?).map_err(|source| Error::Keys { url: public(&url), source })
    }
}

async fn get<F: Fetch>(url: &str, fetch: &F) -> Result<Bytes, Error> {
    fetch.get(url).await.map_err(|source| Error::Fetch { url: public(url), source })
}

/// What an issuer's document gives as its `jwks_uri`, if it is the document of that issuer. `url` is for the error.
fn jwks_uri(issuer: &str, document: &[u8], url: String) -> Result<String, Error> {
    let document: Value = serde_json::from_slice(document).unwrap_or_default();
    let text = |name| document.get(name).and_then(Value::as_str);
    let (Some(named), Some(jwks_uri)) = (text("issuer"), text("jwks_uri")) else {
        return Err(Error::Document { url });
    };
    if named != issuer {
        return Err(Error::Issuer { url, named: shown(named) });
    }
    let is_plain = has_scheme(jwks_uri, &Scheme::HTTP) && has_scheme(issuer, &Scheme::HTTP);
    if !is_plain && !has_scheme(jwks_uri, &Scheme::HTTPS) {
        return Err(Error::Insecure { url, jwks_uri: shown(&public(jwks_uri)) });
    }
    Ok(jwks_uri.to_owned())
}

/// A URL without what in it may be secret: a login, and the query.
fn public(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let host = authority.rsplit('@').next().unwrap_or_default();
            format!("{scheme}://{host}{path}")
        }
        None => url.to_owned(),
    }
}

fn has_scheme(url: &str, scheme: &Scheme) -> bool {
    url.parse::<Uri>().is_ok_and(|uri| uri.scheme() == Some(scheme))
}

/// What a stranger wrote, fit for a log.
fn shown(text: &str) -> String {
    text.chars().take(256).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ISSUER: &str = "https://id.example.com";
    const JWKS: &str = "https://id.example.com/jwks";

    #[test]
    fn a_log_sees_no_login_and_no_query() {
        let check = |url: &str, wanted: &str| assert_eq!(public(url), wanted);
        check("https://id.example.com/keys?token=s3cret#x", "https://id.example.com/keys");
        check("https://me:s3cret@id.example.com:8443/keys", "https://id.example.com:8443/keys");
        check("https://me:s3@cret@id.example.com", "https://id.example.com");
        check("https://id.example.com/@me", "https://id.example.com/@me");
        check("keys?s3cret", "keys");
    }

    #[test]
    fn documents_are_of_the_issuer_that_was_meant_and_lead_to_https() {
        let check = |issuer: &str, document: Value, wanted: Result<&str, &str>| {
            let found = jwks_uri(issuer, document.to_string().as_bytes(), "URL".to_owned());
            let found = found.map_err(|error| error.to_string());
            assert_eq!(found.as_deref().map_err(String::as_str), wanted, "{document}");
        };
        let good = json!({"issuer": ISSUER, "jwks_uri": JWKS, "other": [1]});
        check(ISSUER, good.clone(), Ok(JWKS));
        let no_document =
            Err("`URL` is no discovery document; it should be a JSON object with `issuer` and `jwks_uri`");
        for document in
            [json!(null), json!([]), json!({}), json!({"issuer": ISSUER}), json!({"issuer": ISSUER, "jwks_uri": 1})]
        {
            check(ISSUER, document, no_document);
        }
        let other = Err(
            "`URL` is of the issuer `https://id.example.com`; write `issuer` in the file exactly so, if it is meant",
        );
        check("https://id.example.com/", good.clone(), other);
        check("https://id.example.com/tenant", good.clone(), other);
        check("https://ID.example.com", good.clone(), other);
        check("http://id.example.com", good, other);
        check(
            ISSUER,
            json!({"issuer": "a\n`b", "jwks_uri": JWKS}),
            Err("`URL` is of the issuer `a\\n`b`; write `issuer` in the file exactly so, if it is meant"),
        );
        for uri in
            ["http://id.example.com/jwks", "/jwks", "jwks", "", "file:///etc/passwd", "//id.example.com/jwks", "https:"]
        {
            let error = format!("`URL` names the jwks_uri `{uri}`, which is not https");
            check(ISSUER, json!({"issuer": ISSUER, "jwks_uri": uri}), Err(&error));
        }
        let plain = "http://127.0.0.1:8080";
        check(
            plain,
            json!({"issuer": plain, "jwks_uri": "http://127.0.0.1:8080/jwks"}),
            Ok("http://127.0.0.1:8080/jwks"),
        );
        check(plain, json!({"issuer": plain, "jwks_uri": JWKS}), Ok(JWKS));
        check(
            plain,
            json!({"issuer": plain, "jwks_uri": "ftp://127.0.0.1/jwks"}),
            Err("`URL` names the jwks_uri `ftp://127.0.0.1/jwks`, which is not https"),
        );
    }
}
