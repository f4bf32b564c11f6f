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
pub struct Buckets {
    served: DashMap<String, Arc<Bucket>>,
    /// Those of the file that was read last, which may turn out not to be served.
    read: DashMap<String, Arc<Bucket>>,
}

impl Buckets {
    /// A file is read: what another one had, and did not come to be served, is forgotten.
    pub fn begin(&self) {
        self.read.clear();
    }

    /// The bucket of this name, as full as it is; with another rate it is a new one.
    pub fn of(&self, name: &str, rate: Rate) -> Arc<Bucket> {
        let served = self.served.get(name).filter(|served| served.rate() == rate).map(|served| served.clone());
        self.read
            .entry(name.to_owned())
            .or_insert_with(|| served.unwrap_or_else(|| Arc::new(Bucket::new(rate))))
            .clone()
    }

    /// The file that was read last is served from now on.
    pub fn serve(&self) {
        self.served.clear();
        for held in &self.read {
            self.served.insert(held.key().clone(), held.value().clone());
        }
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
