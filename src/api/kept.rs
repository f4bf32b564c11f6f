//! What outlives a reload: connections to servers, counters, half-empty buckets, keys of issuers.

use std::sync::Arc;

use dashmap::DashMap;

use crate::model::client::StageKey;
use crate::outbound::backends::Servers;
use crate::outbound::fetch::Web;
use crate::steps::authorizers::jwt::Issuers;
use crate::steps::throttles::meters::Meters;
use crate::steps::throttles::{Addresses, Bucket, Rate};
use crate::telemetry::metrics::Metrics;

/// Made once for a process, and handed to every load of the file.
#[derive(Default)]
pub struct Kept {
    pub metrics: Metrics,
    pub servers: Servers,
    pub buckets: Buckets,
    pub addresses: StageAddresses,
    pub meters: Arc<Meters>,
    pub issuers: Issuers,
    pub fetch: Web,
}

/// Buckets by what they are for.
#[derive(Default)]
pub struct Buckets(DashMap<String, Arc<Bucket>>);

impl Buckets {
    /// The bucket of this name, as full as it is; with another rate it is a new one.
    pub fn of(&self, name: &str, rate: Rate) -> Arc<Bucket> {
        let mut held = self.0.entry(name.to_owned()).or_insert_with(|| Arc::new(Bucket::new(rate)));
        if held.rate() != rate {
            *held = Arc::new(Bucket::new(rate));
        }
        held.clone()
    }

    /// Forgets those that nobody has a use for.
    pub fn prune(&self) {
        self.0.retain(|_, bucket| Arc::strong_count(bucket) > 1);
    }
}

/// The addresses of each stage.
#[derive(Default)]
pub struct StageAddresses(DashMap<StageKey, Arc<Addresses>>);

impl StageAddresses {
    pub fn of(&self, stage: &StageKey) -> Arc<Addresses> {
        self.0.entry(stage.clone()).or_default().clone()
    }

    /// Forgets the addresses that nothing is known of any more.
    pub fn sweep(&self) {
        for addresses in &self.0 {
            addresses.sweep();
        }
    }
}
