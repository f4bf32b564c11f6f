//! One order: account, challenges, certificate (RFC 8555, section 7).

use std::time::Duration;

use instant_acme::{
    Account, AccountBuilder, AuthorizationStatus, ChallengeType, ExternalAccountKey, Identifier, NewAccount, NewOrder,
    Order, OrderStatus, RetryPolicy,
};
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::CertifiedKey;

use super::certificate::{Certificate, Unusable};
use super::challenges::{Challenges, Posted};
use super::storage::{self, Storage};
use crate::api::acme::{Acme, Challenge};

/// How long the CA may take to validate the domains, and again to sign: it answers within seconds, or is overloaded.
const PATIENCE: RetryPolicy = RetryPolicy::new().backoff(1.5).timeout(Duration::from_secs(120));

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the CA's directory cannot be reached")]
    Directory(#[source] instant_acme::Error),
    #[error("the CA gives no account")]
    Account(#[source] instant_acme::Error),
    #[error("the CA refuses the order")]
    Order(#[source] instant_acme::Error),
    #[error("the CA does not offer `{challenge}` for `{domain}`")]
    NotOffered { domain: String, challenge: &'static str },
    #[error("the CA did not find `{domain}` to be ours: {why}")]
    NotOurs { domain: String, why: String },
    #[error("the answer to a challenge could not be made")]
    Answer(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the CA's certificate is of no use")]
    Certificate(#[source] Unusable),
    #[error("the CA's certificate is for other names than `{0}`")]
    OtherNames(String),
    #[error("the order was not finished in time")]
    TimedOut,
    #[error("nothing can be kept in `data_dir`")]
    Storage(#[source] storage::Error),
}

impl Error {
    /// Whether the CA asks to be left alone for longer.
    pub fn is_rate_limited(&self) -> bool {
        match self {
            Error::Directory(source) | Error::Account(source) | Error::Order(source) => is(source, "rateLimited"),
            _ => false,
        }
    }
}

/// Orders a certificate; gives it with its PEM, key first.
pub async fn place(
    settings: &Acme,
    storage: &Storage,
    challenges: &Challenges,
) -> Result<(Certificate, String), Error> {
    let account = account(settings, storage).await?;
    let identifiers: Vec<_> = settings.domains.iter().cloned().map(Identifier::Dns).collect();
    let mut order = match account.new_order(&NewOrder::new(&identifiers)).await {
        // A test CA that was set up anew, or an account that was removed there: we can have another.
        Err(error) if is(&error, "accountDoesNotExist") => {
            storage.apart(Storage::forget_account).await.map_err(Error::Storage)?;
            let account = self::account(settings, storage).await?;
            account.new_order(&NewOrder::new(&identifiers)).await.map_err(Error::Order)?
        }
        outcome => outcome.map_err(Error::Order)?,
    };
    let posted = answer_challenges(&mut order, settings.challenge, challenges).await?;
    match order.poll_ready(&PATIENCE).await {
        Ok(OrderStatus::Ready) => {}
        outcome => return Err(why_not_ready(&mut order, outcome).await),
    }
    drop(posted);
    let key = order.finalize().await.map_err(Error::Order)?;
    let chain = order.poll_certificate(&PATIENCE).await.map_err(Error::Order)?;
    let pem = format!("{}\n{chain}", key.trim_end());
    let certificate = Certificate::from_pem(pem.as_bytes()).map_err(Error::Certificate)?;
    match settings.domains.iter().find(|domain| !certificate.domains.contains(domain)) {
        // It would be ordered anew at once, and for ever.
        Some(missing) => Err(Error::OtherNames(missing.clone())),
        None => Ok((certificate, pem)),
    }
}

/// The account that was kept, or a new one.
async fn account(settings: &Acme, storage: &Storage) -> Result<Account, Error> {
    let kept = storage.apart(|storage| storage.prepare().and_then(|()| storage.account())).await;
    let contact = settings.email.as_ref().map(|email| format!("mailto:{email}"));
    let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
    let (builder, directory, email) = (builder(settings)?, settings.directory.clone(), settings.email.clone());
    let kept = match kept {
        Err(error @ storage::Error::NoAccount { .. }) => {
            tracing::warn!("the ACME account is made anew: {error}");
            None
        }
        kept => kept.map_err(Error::Storage)?,
    };
    let (account, to_keep) = if let Some(mut known) = kept {
        let key = known.key.clone_key();
        let account = builder.from_parts(known.url.clone(), key, directory).await.map_err(Error::Directory)?;
        if known.email == email {
            return Ok(account);
        }
        account.update_contacts(&contact).await.map_err(Error::Account)?;
        known.email = email;
        (account, known)
    } else {
        let external = settings.external_account.as_ref();
        let external = external.map(|known| ExternalAccountKey::new(known.key_id.clone(), &known.hmac_key));
        let wanted = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
        let created = builder.create(&wanted, directory, external.as_ref()).await;
        let (account, credentials) = created.map_err(Error::Account)?;
        let key = credentials.private_key().clone_key();
        let known = storage::Account { url: account.id().to_owned(), email, key };
        (account, known)
    };
    storage.apart(move |storage| storage.keep_account(&to_keep)).await.map_err(Error::Storage)?;
    Ok(account)
}

fn builder(settings: &Acme) -> Result<AccountBuilder, Error> {
    let builder = match &settings.directory_ca {
        Some(path) => Account::builder_with_root(path),
        None => Account::builder(),
    };
    builder.map_err(Error::Directory)
}

/// Makes the answers public, then tells the CA to look for them.
async fn answer_challenges<'a>(
    order: &mut Order,
    challenge: Challenge,
    challenges: &'a Challenges,
) -> Result<Posted<'a>, Error> {
    let (kind, word) = match challenge {
        Challenge::TlsAlpn01 => (ChallengeType::TlsAlpn01, "tls-alpn-01"),
        Challenge::Http01 => (ChallengeType::Http01, "http-01"),
    };
    let mut posted = Posted::on(challenges);
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization.map_err(Error::Order)?;
        // What an earlier order has shown is still believed.
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        let domain = authorization.identifier().to_string();
        let Some(mut offered) = authorization.challenge(kind.clone()) else {
            return Err(Error::NotOffered { domain, challenge: word });
        };
        let answer = offered.key_authorization();
        match challenge {
            Challenge::TlsAlpn01 => {
                let certificate = validation_certificate(&domain, answer.digest().as_ref()).map_err(Error::Answer)?;
                posted.tls(&domain, certificate);
            }
            Challenge::Http01 => posted.http(&offered.token, answer.as_str()),
        }
        offered.set_ready().await.map_err(Error::Order)?;
    }
    Ok(posted)
}

/// The self-signed certificate that answers a validation (RFC 8737, section 3).
fn validation_certificate(
    domain: &str,
    digest: &[u8],
) -> Result<CertifiedKey, Box<dyn std::error::Error + Send + Sync>> {
    let key = rcgen::KeyPair::generate()?;
    let mut wanted = rcgen::CertificateParams::new([domain.to_owned()])?;
    wanted.custom_extensions = vec![rcgen::CustomExtension::new_acme_identifier(digest)];
    let certificate = wanted.self_signed(&key)?;
    let key = PrivateKeyDer::try_from(key.serialize_der())?;
    let key = rustls::crypto::aws_lc_rs::default_provider().key_provider.load_private_key(key)?;
    // Not `from_der`: it looks whether the two fit, and the extension that the CA wants is critical and unknown to it.
    Ok(CertifiedKey::new(vec![certificate.der().clone()], key))
}

/// The reason stands in the authorization that failed; the order itself often has none.
async fn why_not_ready(order: &mut Order, outcome: Result<OrderStatus, instant_acme::Error>) -> Error {
    let error = match outcome {
        Err(instant_acme::Error::Timeout(_)) => return Error::TimedOut,
        Err(error @ instant_acme::Error::Api(_)) => error,
        Err(error) => return Error::Order(error),
        Ok(_) => instant_acme::Error::Str("the order has become invalid"),
    };
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let Ok(state) = authorization.refresh().await else { continue };
        let domain = state.identifier().to_string();
        if let Some(why) = state.challenges.iter().find_map(|challenge| challenge.error.as_ref()) {
            return Error::NotOurs { domain, why: why.to_string() };
        }
    }
    Error::Order(error)
}

/// Whether the CA answered with this problem.
fn is(error: &instant_acme::Error, problem: &str) -> bool {
    let instant_acme::Error::Api(found) = error else { return false };
    let found = found.r#type.as_deref().unwrap_or_default();
    found.strip_prefix("urn:ietf:params:acme:error:") == Some(problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_validation_is_answered_with_the_digest_in_a_critical_extension() {
        let answer = validation_certificate("a.example", &[7; 32]).unwrap();
        let (_, shown) = x509_parser::parse_x509_certificate(&answer.cert[0]).unwrap();
        let names = &shown.subject_alternative_name().unwrap().unwrap().value.general_names;
        assert_eq!(format!("{names:?}"), r#"[DNSName("a.example")]"#);
        let proof = shown.extensions().iter().find(|one| one.oid.to_id_string() == "1.3.6.1.5.5.7.1.31").unwrap();
        assert!(proof.critical);
        assert_eq!(proof.value, [[4, 32].as_slice(), &[7; 32]].concat());
    }

    #[test]
    fn problems_are_known_by_their_type() {
        let problem = |kind: &str| {
            let text = format!(r#"{{"type": "{kind}", "detail": "d", "status": 429}}"#);
            instant_acme::Error::Api(serde_json::from_str(&text).unwrap())
        };
        assert!(Error::Order(problem("urn:ietf:params:acme:error:rateLimited")).is_rate_limited());
        assert!(!Error::Order(problem("urn:ietf:params:acme:error:malformed")).is_rate_limited());
        assert!(!Error::Order(problem("rateLimited")).is_rate_limited());
        assert!(!Error::TimedOut.is_rate_limited());
    }
}
