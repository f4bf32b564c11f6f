//! The `[gateway.tls]` table: the certificates of the listeners, and whether clients show theirs.

use super::Acme;
use crate::model::settings::{Reading, Spanned, Text, choice, settings};

settings! {
    /// TLS on the client listeners. Files are looked for from the folder of this file, and read again when they change.
    pub struct Tls {
        /// The certificates. The name that a client asks for chooses; the first serves everybody else.
        pub certificates: Vec<Certificate> = [],
        /// Mutual TLS: a PEM file of the authorities that clients' certificates must come from.
        pub client_ca: Option<Text>,
        /// Whether a client without a certificate is turned away; without it `required`. Needs `client_ca`.
        pub client_auth: Option<Spanned<ClientAuth>>,
        /// Certificates that the gateway orders for itself from an ACME CA such as Let's Encrypt.
        pub acme: Option<Acme>,
        /// The oldest version of TLS that is spoken.
        pub minimum_version: MinimumVersion = "1.2",
        check is_whole;
    }
}

settings! {
    /// A certificate and its key.
    pub struct Certificate {
        /// A PEM file: the certificate, and behind it those that lead to its authority.
        pub cert: Text,
        /// A PEM file: the private key, not encrypted.
        pub key: Text,
    }
}

choice! {
    /// Whether clients must show a certificate.
    pub enum ClientAuth {
        /// Who shows none is turned away.
        Required = "required",
        /// Who shows none is served; who shows a bad one is turned away.
        Optional = "optional",
    }
}

choice! {
    /// A version of TLS.
    pub enum MinimumVersion {
        Tls12 = "1.2",
        Tls13 = "1.3",
    }
}

fn is_whole(tls: &Tls, reading: &mut Reading) {
    if tls.certificates.is_empty() && tls.acme.is_none() {
        let help = "add `certificates = [{ cert = \"cert.pem\", key = \"key.pem\" }]`, or `[gateway.tls.acme]`";
        reading.problems.problem_with_help(&tls.place, "TLS has no certificate", help);
    }
    if let (Some(auth), None) = (&tls.client_auth, &tls.client_ca) {
        let found = "no certificate is asked for without `client_ca`";
        reading.problems.problem_with_help(&auth.place, found, "add `client_ca = \"ca.pem\"`, or leave this key out");
    }
}
