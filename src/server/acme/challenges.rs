//! What the gateway shows a CA that wants to know whose a domain is, while an order is under way.
//!
//! The TLS listener asks here for a handshake that offers `acme-tls/1` (RFC 8737), the front door for a request below
//! `/.well-known/acme-challenge/` (RFC 8555, section 8.3). Only orders put anything in, so strangers make nothing grow.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;
use rustls::sign::CertifiedKey;

const HTTP_PATH: &str = "/.well-known/acme-challenge/";

/// The answers to the challenges of the orders under way.
#[derive(Debug, Default)]
pub struct Challenges {
    tls: RwLock<HashMap<String, Arc<CertifiedKey>>>,
    http: RwLock<HashMap<String, String>>,
}

impl Challenges {
    /// The certificate for a validation of `name`; never to be used for any other handshake.
    pub fn tls_answer(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        self.tls.read().get(&name.to_ascii_lowercase()).cloned()
    }

    /// The body, `application/octet-stream`, for a GET of `path`.
    pub fn http_answer(&self, path: &str) -> Option<String> {
        // Every request is looked at, so the lock comes last.
        let token = path.strip_prefix(HTTP_PATH)?;
        self.http.read().get(token).cloned()
    }
}

/// The answers of one order. They are taken back when it is over, also if nobody waits for its end.
pub struct Posted<'a> {
    challenges: &'a Challenges,
    names: Vec<String>,
    tokens: Vec<String>,
}

impl<'a> Posted<'a> {
    pub fn on(challenges: &'a Challenges) -> Self {
        Self { challenges, names: Vec::new(), tokens: Vec::new() }
    }

    pub fn tls(&mut self, name: &str, answer: CertifiedKey) {
        self.challenges.tls.write().insert(name.to_owned(), Arc::new(answer));
        self.names.push(name.to_owned());
    }

    pub fn http(&mut self, token: &str, answer: &str) {
        self.challenges.http.write().insert(token.to_owned(), answer.to_owned());
        self.tokens.push(token.to_owned());
    }
}

impl Drop for Posted<'_> {
    fn drop(&mut self) {
        let (mut tls, mut http) = (self.challenges.tls.write(), self.challenges.http.write());
        self.names.iter().for_each(|name| drop(tls.remove(name)));
        self.tokens.iter().for_each(|token| drop(http.remove(token)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::clock::Timestamp;
    use crate::server::acme::certificate::Certificate;

    #[test]
    fn answers_are_there_for_as_long_as_their_order() {
        let challenges = Challenges::default();
        let mut posted = Posted::on(&challenges);
        posted.http("token", "token.thumbprint");
        let key = Certificate::of_no_use("a.example", Timestamp(0), Timestamp(1)).key;
        posted.tls("a.example", CertifiedKey::clone(&key));
        assert_eq!(challenges.http_answer("/.well-known/acme-challenge/token").as_deref(), Some("token.thumbprint"));
        assert!(challenges.tls_answer("A.example").is_some());
        for path in ["/.well-known/acme-challenge/", "/.well-known/acme-challenge/other", "/token", "token"] {
            assert_eq!(challenges.http_answer(path), None, "{path}");
        }
        assert!(challenges.tls_answer("b.example").is_none());
        drop(posted);
        assert_eq!(challenges.http_answer("/.well-known/acme-challenge/token"), None);
        assert!(challenges.tls_answer("a.example").is_none());
    }
}
