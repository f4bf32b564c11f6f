//! The `[gateway.tls.acme]` table: certificates that the gateway orders for itself.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use crate::model::problem::Place;
use crate::model::settings::{
    Node, OneOrMany, Reading, Secret, Setting, Spanned, Text, choice, is_plain_name, or_env, settings,
};

choice! {
    /// How the gateway shows the CA that a domain is its own.
    pub enum Challenge {
        /// In a TLS handshake on port 443.
        TlsAlpn01 = "tls-alpn-01",
        /// By an HTTP answer on port 80.
        Http01 = "http-01",
    }
    later {
        "dns-01": "the gateway writes no DNS records; write `tls-alpn-01` or `http-01`",
    }
}

settings! {
    /// A certificate ordered from an ACME CA such as Let's Encrypt, and renewed when a third of its life is left.
    pub struct Acme {
        /// The names that the certificate is for, such as `chat.example.com`; the first one names its file.
        pub domains: OneOrMany<DomainName>,
        /// Where the CA may write to about the account.
        pub email: Option<Text>,
        /// The CA's directory.
        pub directory: DirectoryUrl = "https://acme-v02.api.letsencrypt.org/directory",
        /// A PEM file with the CA certificate to trust the directory by, in place of the system's.
        pub directory_ca: Option<Text>,
        /// How the CA is shown that the domains are the gateway's: it calls back on port 443, or 80 for `http-01`.
        pub challenge: Challenge = "tls-alpn-01",
        /// That you accept the CA's terms of service, without which it has no account for you.
        pub agree_to_terms: Spanned<bool> = false,
        /// Names the customer's account that the ACME account belongs to, at CAs that want one.
        pub eab_key_id: Option<Text>,
        /// What the CA gave for `eab_key_id`, in base64url.
        pub eab_hmac_key: Option<Secret>,
        check is_whole;
    }
}

fn is_whole(acme: &Acme, reading: &mut Reading) {
    let problems = &mut reading.problems;
    if !acme.agree_to_terms.value {
        let found = "the CA gives certificates only to those who accept its terms of service";
        problems.problem_with_help(&acme.agree_to_terms.place, found, "read them, then write `agree_to_terms = true`");
    }
    for (index, domain) in acme.domains.iter().enumerate() {
        if acme.domains[..index].iter().any(|earlier| earlier.name == domain.name) {
            problems.problem_with_help(&domain.place, format!("`{}` stands here twice", domain.name), "leave one out");
        }
    }
    if let Some(email) = acme.email.as_ref().filter(|email| !email.unresolved && !is_email(email)) {
        let found = format!("`{}` is no email address", email.value);
        problems.problem_with_help(&email.place, found, "write it like `ops@example.com`");
    }
    match (&acme.eab_key_id, &acme.eab_hmac_key) {
        (Some(id), None) => problems.problem_with_help(&id.place, "`eab_key_id` stands alone", "add `eab_hmac_key`"),
        (None, Some(key)) => {
            problems.problem_with_help(&key.place, "`eab_hmac_key` stands alone", "add `eab_key_id`");
        }
        (Some(_), Some(key)) if !key.unresolved && hmac_key(key).is_none() => {
            let help = "copy it as the CA shows it: letters, digits, `-` and `_`";
            problems.problem_with_help(&key.place, "this key is no base64url", help);
        }
        _ => {}
    }
}

/// The bytes of an `eab_hmac_key`; some CAs show it with the padding that base64url may have.
pub fn hmac_key(written: &Secret) -> Option<Vec<u8>> {
    let written = written.reveal().trim().trim_end_matches('=');
    URL_SAFE_NO_PAD.decode(written).ok().filter(|key| !key.is_empty())
}

fn is_email(text: &str) -> bool {
    let plain = |part: &str| !part.is_empty() && !part.contains(|c: char| c.is_whitespace() || c.is_control());
    text.split_once('@')
        .is_some_and(|(name, host)| plain(name) && plain(host) && !host.contains('@') && !name.starts_with("mailto:"))
}

/// A name that a certificate can be for, in lower case.
#[derive(Debug, Clone)]
pub struct DomainName {
    pub name: String,
    pub place: Place,
}

impl Setting for DomainName {
    fn read(node: Node, reading: &mut Reading) -> Option<Self> {
        let help = "write it like `chat.example.com`";
        let name = node.word(reading, "domain", help)?.to_ascii_lowercase();
        if name.starts_with("*.") {
            let found = format!("{} cannot be shown to be yours", node.as_written());
            let help = "a wildcard takes `dns-01`, which the gateway does not do; write each name";
            reading.problems.problem_with_help(&node.place, found, help);
            return None;
        }
        if !is_domain_name(&name) {
            reading.refuse(&node, "domain", help);
            return None;
        }
        Some(DomainName { name, place: node.place })
    }

    fn schema() -> serde_json::Value {
        or_env(json!({ "type": "string", "pattern": r"^[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*$" }))
    }

    fn kind() -> String {
        "domain".into()
    }
}

fn is_domain_name(name: &str) -> bool {
    let is_label = |label: &str| {
        is_plain_name(label, &['-'], 63) && !label.contains('_') && !label.starts_with('-') && !label.ends_with('-')
    };
    name.len() <= 253 && name.parse::<IpAddr>().is_err() && name.split('.').all(is_label)
}

/// An absolute `https` URL.
#[derive(Debug, Clone)]
pub struct DirectoryUrl {
    pub url: String,
    pub place: Place,
}

impl Setting for DirectoryUrl {
    fn read(node: Node, reading: &mut Reading) -> Option<Self> {
        let help = "write it like `https://acme-v02.api.letsencrypt.org/directory`";
        let url = node.word(reading, "URL of a directory", help)?;
        if !is_directory(&url) {
            reading.refuse(&node, "URL of a directory", help);
            return None;
        }
        Some(DirectoryUrl { url, place: node.place })
    }

    fn schema() -> serde_json::Value {
        or_env(json!({ "type": "string", "pattern": "^https://[^#@]+$" }))
    }

    fn kind() -> String {
        "URL".into()
    }
}

/// ACME is spoken over TLS only (RFC 8555, section 6.1).
fn is_directory(text: &str) -> bool {
    let uri = text.parse::<http::Uri>().ok().filter(|_| !text.contains(['#', '@']));
    uri.is_some_and(|uri| uri.scheme_str() == Some("https") && uri.host().is_some_and(|host| !host.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::settings::read_file;

    const TERMS: &str = "agree_to_terms = true\n";

    /// The problems of a table with these lines.
    fn check(lines: &str, wanted: &[&str]) {
        let (_, problems) = read_file::<Acme>(lines, &|_| None, false);
        let said: Vec<_> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(said.len(), wanted.len(), "{lines}: {said:?}");
        for (said, wanted) in said.iter().zip(wanted) {
            assert!(said.contains(wanted), "{lines}: {said}");
        }
    }

    fn check_with_terms(lines: &str, wanted: &[&str]) {
        check(&format!("{TERMS}{lines}"), wanted);
    }

    #[test]
    fn a_domain_and_the_terms_are_enough() {
        check_with_terms("domains = ['chat.example.com']", &[]);
        check_with_terms("domains = 'Chat.Example.com'\nchallenge = 'http-01'\nemail = 'ops@example.com'", &[]);
        check_with_terms("", &["`domains` is missing"]);
        check_with_terms("domains = []", &["this list is empty"]);
        check("domains = 'a.example'", &["terms of service"]);
        check("domains = 'a.example'\nagree_to_terms = false", &["write `agree_to_terms = true`"]);
    }

    #[test]
    fn a_domain_is_one_that_a_ca_can_call() {
        for good in ["chat.example.com", "xn--bcher-kva.example", "localhost", "a-b.c"] {
            check_with_terms(&format!("domains = ['{good}']"), &[]);
        }
        for bad in ["", "a..b", "127.0.0.1", "::1", "a_b.example", "-a.example", "a:443", "https://a", "bücher.example"]
        {
            check_with_terms(&format!("domains = ['{bad}']"), &["is no domain"]);
        }
        check_with_terms("domains = ['*.example.com']", &["dns-01"]);
        check_with_terms("domains = ['a.example', 'A.example']", &["`a.example` stands here twice"]);
        check_with_terms("domains = ['a.example']\nchallenge = 'dns-01'", &["is not in this version"]);
    }

    #[test]
    fn the_directory_is_an_https_url() {
        for good in ["https://127.0.0.1:14000/dir", "https://acme.example/acme/a?profile=b"] {
            check_with_terms(&format!("domains = 'a.example'\ndirectory = '{good}'"), &[]);
        }
        for bad in ["http://acme.example/directory", "acme.example", "https://", "https://u@a/", "https://a/#x"] {
            check_with_terms(&format!("domains = 'a.example'\ndirectory = '{bad}'"), &["is no URL of a directory"]);
        }
    }

    #[test]
    fn an_external_account_is_a_pair() {
        check_with_terms("domains = 'a.example'\neab_key_id = 'k'\neab_hmac_key = 'zWNDZM6eQGHWpSRTPal5eA=='", &[]);
        check_with_terms("domains = 'a.example'\neab_key_id = 'k'", &["add `eab_hmac_key`"]);
        check_with_terms("domains = 'a.example'\neab_hmac_key = 'abcd'", &["add `eab_key_id`"]);
        check_with_terms("domains = 'a.example'\neab_key_id = 'k'\neab_hmac_key = 'not this'", &["no base64url"]);
        check_with_terms("domains = 'a.example'\nemail = 'ops'", &["is no email address"]);
        check_with_terms("domains = 'a.example'\nemail = 'mailto:ops@example.com'", &["is no email address"]);
    }
}
