//! Certificates from an ACME CA: ordered when there is none, renewed when a third of their life is left.
//!
//! `schedule` says when, `order` talks to the CA, `challenges` holds what the CA comes to see, and `storage` keeps
//! account and certificates over restarts. A failure never takes away a certificate that handshakes still use.

mod certificate;
pub mod challenges;
mod order;
mod schedule;
mod storage;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub use certificate::Certificate;
pub use challenges::Challenges;

use self::order::Error;
use self::storage::Storage;
pub use crate::api::acme::Acme as Settings;
use crate::model::clock::Timestamp;
use crate::telemetry::metrics::{CertificateMetrics, Metrics};

/// An order that takes longer hangs on a connection that nobody answers.
const ORDER_TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// Keeps the gateway in possession of a valid certificate. Changed settings take a new one of these.
pub struct Acme {
    settings: Settings,
    storage: Storage,
    challenges: Arc<Challenges>,
    metrics: CertificateMetrics,
}

impl Acme {
    pub fn new(settings: Settings, data_dir: &Path, challenges: Arc<Challenges>, metrics: &Metrics) -> Self {
        let storage = Storage::new(data_dir, &settings.directory);
        let metrics = metrics.certificate(&settings.domains[0]);
        Self { settings, storage, challenges, metrics }
    }

    /// Delivers every new certificate; `current` is what was kept. Runs until it is dropped, which gives up an order
    /// under way.
    pub async fn run(self, mut current: Option<Certificate>, mut deliver: impl FnMut(Certificate)) {
        // A second provider in the process would make rustls ask which one is meant, by a panic.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let mut failures = 0;
        loop {
            while let Some(rest) = self.rest(current.as_ref()) {
                tokio::time::sleep(rest).await;
            }
            let is_rate_limited = match self.order(&mut deliver).await {
                Ok(certificate) => {
                    current = Some(certificate);
                    false
                }
                Err(error) => {
                    let pause = schedule::pause(failures + 1, error.is_rate_limited(), 0.0);
                    self.failed(&error, current.as_ref(), pause);
                    error.is_rate_limited()
                }
            };
            // A certificate that is due as soon as it is there must not be ordered in a circle.
            if self.rest(current.as_ref()).is_some() {
                failures = 0;
            } else {
                failures += 1;
                tokio::time::sleep(schedule::pause(failures, is_rate_limited, rand::random())).await;
            }
        }
    }

    fn rest(&self, current: Option<&Certificate>) -> Option<Duration> {
        schedule::rest(current?, &self.settings.domains, Timestamp::now(), rand::random())
    }

    /// What an earlier run has left, if it is still valid. Names that are no longer asked for do no harm in it.
    pub fn kept(&self) -> Option<Certificate> {
        let domains = &self.settings.domains;
        match self.storage.certificate(&domains[0]) {
            Ok(kept) => {
                let certificate = kept.filter(|kept| kept.is_valid_at(Timestamp::now()))?;
                self.metrics.expiration.set(seconds(certificate.not_after));
                let expires = certificate.not_after.iso8601();
                tracing::info!(
                    domain = domains[0],
                    expires,
                    "serving the certificate of `{}` that was kept",
                    domains[0]
                );
                Some(certificate)
            }
            Err(error) => {
                tracing::warn!(domain = domains[0], "a certificate is ordered anew: {}", in_full(&error));
                None
            }
        }
    }

    /// What is counted as ordered is served already.
    async fn order(&self, deliver: &mut impl FnMut(Certificate)) -> Result<Certificate, Error> {
        let order = order::place(&self.settings, &self.storage, &self.challenges);
        let (certificate, pem) = tokio::time::timeout(ORDER_TIMEOUT, order).await.unwrap_or(Err(Error::TimedOut))?;
        deliver(certificate.clone());
        self.ordered(&certificate);
        // It serves all the same: the disk may have room again before the next start.
        let domain = self.settings.domains[0].clone();
        if let Err(error) = self.storage.apart(move |storage| storage.keep_certificate(&domain, &pem)).await {
            tracing::error!("the next start has to order a certificate again: {}", in_full(&error));
        }
        Ok(certificate)
    }

    fn ordered(&self, certificate: &Certificate) {
        self.metrics.ordered.increment(1);
        self.metrics.expiration.set(seconds(certificate.not_after));
        let (domains, expires) = (self.settings.domains.join(", "), certificate.not_after.iso8601());
        tracing::info!(domain = self.settings.domains[0], expires, "a certificate for {domains} was issued");
        if self.rest(Some(certificate)).is_none() {
            tracing::warn!("the new certificate is due for renewal already; is the clock of this machine right?");
        }
    }

    fn failed(&self, error: &Error, current: Option<&Certificate>, pause: Duration) {
        self.metrics.failed.increment(1);
        let (domains, why, minutes) = (self.settings.domains.join(", "), in_full(error), pause.as_secs() / 60);
        let domain = &self.settings.domains[0];
        match current.filter(|current| current.is_valid_at(Timestamp::now())) {
            Some(current) => {
                let expires = current.not_after.iso8601();
                tracing::warn!(
                    domain,
                    expires,
                    "no new certificate for {domains}, next try in {minutes} min; the one there is expires {expires}: {why}"
                );
            }
            None => tracing::error!(
                domain,
                "no certificate for {domains}, clients cannot connect; next try in {minutes} min: {why}"
            ),
        }
    }
}

fn seconds(at: Timestamp) -> f64 {
    (at.0 / 1000) as f64
}

/// The error with everything that led to it: libraries keep "connection refused" several sources deep.
fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(deeper) = source {
        text = format!("{text}: {deeper}");
        source = deeper.source();
    }
    text
}
