//! API keys and the usage plans that they are on: whose key a caller shows, and whether its plan has calls left.
//!
//! A key is kept and looked up as its SHA-256, so that how long the search takes says nothing of a key, and a file with
//! `sha256` in place of `value` holds nothing that opens a door.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use jiff::Timestamp;

use super::bucket::Bucket;
use super::meters::{Meter, Quota};
use crate::model::client::StageKey;
use crate::model::refusal::{Cause, Kind, Refusal};

/// All API keys of one load of the file.
#[derive(Default)]
pub struct ApiKeys {
    by_digest: HashMap<KeyDigest, Arc<ApiKey>>,
    by_id: HashMap<Arc<str>, Arc<ApiKey>>,
}

/// The SHA-256 of a key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyDigest([u8; 32]);

/// One of `[api_keys.*]`.
pub struct ApiKey {
    pub id: Arc<str>,
    pub digest: KeyDigest,
    pub enabled: bool,
    /// Without one the key opens nothing.
    pub plan: Option<Plan>,
}

/// What a usage plan grants one key.
pub struct Plan {
    pub name: Arc<str>,
    pub throttle: Option<Arc<Bucket>>,
    pub quota: Option<Quota>,
    /// `None` is all of them.
    pub stages: Option<Vec<StageKey>>,
    pub meter: Arc<Meter>,
}

/// Two keys that nobody could tell apart.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the API keys `{first}` and `{second}` have the same value; give each its own")]
pub struct Duplicate {
    pub first: String,
    pub second: String,
}

impl KeyDigest {
    pub fn of(key: &str) -> Self {
        let digest = digest::digest(&digest::SHA256, key.as_bytes());
        Self(digest.as_ref().try_into().expect("SHA-256 is 32 bytes"))
    }

    /// Reads 64 hexadecimal digits.
    pub fn parse(hex: &str) -> Option<Self> {
        let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
        let mut bytes = [0; 32];
        if pairs.len() != bytes.len() || !rest.is_empty() {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(pairs) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(bytes))
    }
}

impl ApiKeys {
    pub fn new(all: Vec<ApiKey>) -> Result<ApiKeys, Duplicate> {
        let mut keys = ApiKeys::default();
        for key in all.into_iter().map(Arc::new) {
            if let Some(first) = keys.by_digest.insert(key.digest, key.clone()) {
                return Err(Duplicate { first: first.id.to_string(), second: key.id.to_string() });
            }
            keys.by_id.insert(key.id.clone(), key);
        }
        Ok(keys)
    }

    /// Whose key this is, if it is one that opens the stage.
    pub fn identify(&self, shown: Option<&str>, stage: &StageKey) -> Result<&Arc<ApiKey>, Refusal> {
        let Some(shown) = shown.filter(|shown| !shown.is_empty()) else {
            return Err(refused("no API key was shown"));
        };
        let Some(key) = self.by_digest.get(&KeyDigest::of(shown)) else {
            return Err(refused("no API key has this value"));
        };
        key.is_good_for(stage)?;
        Ok(key)
    }

    /// The key with which a connection was opened, if it still opens the stage.
    pub fn still_good(&self, id: &str, stage: &StageKey) -> Result<&Arc<ApiKey>, Refusal> {
        let Some(key) = self.by_id.get(id) else {
            return Err(refused(format_args!("the API key `{id}` is not in the file any more")));
        };
        key.is_good_for(stage)?;
        Ok(key)
    }
}

impl ApiKey {
    fn is_good_for(&self, stage: &StageKey) -> Result<(), Refusal> {
        let id = &self.id;
        if !self.enabled {
            return Err(refused(format_args!("the API key `{id}` is disabled")));
        }
        let Some(plan) = &self.plan else {
            return Err(refused(format_args!("the API key `{id}` is on no usage plan")));
        };
        if plan.stages.as_ref().is_some_and(|stages| !stages.contains(stage)) {
            let (name, StageKey { api, stage }) = (&plan.name, stage);
            return Err(refused(format_args!(
                "the usage plan `{name}` of the API key `{id}` is not for `{api}/{stage}`"
            )));
        }
        Ok(())
    }

    /// Counts one call, unless the plan has none left: now, or in its period.
    pub fn take(&self, now: Timestamp) -> Result<(), Refusal> {
        let Some(plan) = &self.plan else { return Ok(()) };
        // Before the throttle: who has used up a day's calls is not to come back in a second.
        plan.meter.check(plan.quota, now).map_err(|left| self.over_quota(plan, left))?;
        if let Some(throttle) = &plan.throttle
            && let Err(throttled) = throttle.take()
        {
            plan.meter.note_throttled(now);
            let detail = format_args!("the API key `{}` makes more calls than its plan `{}` has", self.id, plan.name);
            return Err(Kind::Throttled.because(detail).by(Cause::UsagePlanThrottle).until(throttled.retry_after));
        }
        plan.meter.take(plan.quota, now).map_err(|left| self.over_quota(plan, left))
    }

    fn over_quota(&self, plan: &Plan, left: Duration) -> Refusal {
        let detail = format_args!("the API key `{}` has used up the quota of its plan `{}`", self.id, plan.name);
        Kind::QuotaExceeded.because(detail).by(Cause::Quota).until(Some(left))
    }
}

fn refused(detail: impl std::fmt::Display) -> Refusal {
    Kind::InvalidApiKey.because(detail).by(Cause::ApiKey)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: &str, value: &str, enabled: bool, stages: Option<&[&str]>) -> ApiKey {
        let stage = |stage: &&str| StageKey { api: "pets".into(), stage: (*stage).into() };
        let plan = Plan {
            name: "gold".into(),
            throttle: None,
            quota: None,
            stages: stages.map(|stages| stages.iter().map(stage).collect()),
            meter: Arc::default(),
        };
        ApiKey { id: id.into(), digest: KeyDigest::of(value), enabled, plan: Some(plan) }
    }

    #[test]
    fn a_key_opens_the_stages_of_its_plan() {
        let without_plan = ApiKey { plan: None, ..key("bare", "bare-key", true, None) };
        let all = vec![
            key("all", "all-key", true, None),
            key("off", "off-key", false, None),
            key("dev", "dev-key", true, Some(&["dev"])),
            without_plan,
        ];
        let keys = ApiKeys::new(all).unwrap_or_else(|duplicate| panic!("{duplicate}"));
        let check = |shown: Option<&str>, stage: &str, expected: Result<&str, &str>| {
            let stage = StageKey { api: "pets".into(), stage: stage.into() };
            let found = keys.identify(shown, &stage);
            let found = found.as_ref().map(|key| &*key.id).map_err(|refusal| refusal.detail.as_str());
            assert_eq!(found, expected, "{shown:?}");
        };
        check(Some("all-key"), "prod", Ok("all"));
        check(Some("dev-key"), "dev", Ok("dev"));
        check(Some("dev-key"), "prod", Err("the usage plan `gold` of the API key `dev` is not for `pets/prod`"));
        check(Some("off-key"), "prod", Err("the API key `off` is disabled"));
        check(Some("bare-key"), "prod", Err("the API key `bare` is on no usage plan"));
        check(Some("ALL-KEY"), "prod", Err("no API key has this value"));
        check(Some(""), "prod", Err("no API key was shown"));
        check(None, "prod", Err("no API key was shown"));
    }

    #[test]
    fn keys_can_be_told_apart() {
        let duplicate = ApiKeys::new(vec![key("a", "same", true, None), key("b", "same", true, None)]).err();
        let said = "the API keys `a` and `b` have the same value; give each its own";
        assert_eq!(duplicate.map(|duplicate| duplicate.to_string()).as_deref(), Some(said));
    }

    #[test]
    fn a_digest_is_what_sha256sum_prints() {
        let printed = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
        assert!(KeyDigest::parse(printed) == Some(KeyDigest::of("hello")));
        assert!(KeyDigest::parse(&printed.to_uppercase()) == Some(KeyDigest::of("hello")));
        assert!(KeyDigest::parse("2cf2").is_none() && KeyDigest::parse(&"g".repeat(64)).is_none());
    }
}
