//! `throttle` in its several places, and a stage's `limits`: how much.

use crate::model::settings::{OrNone, PerSecond, PositiveInteger, Reading, Secret, Text, choice, settings};

settings! {
    /// A token bucket: so many calls a second, and so many at once. The same words as at AWS.
    pub struct Throttle {
        /// Calls a second; `0` lets nothing through.
        pub rate: PerSecond,
        /// The size of the bucket: calls that may come at once. Without it as many as come in a second, at least one.
        pub burst: Option<PositiveInteger>,
    }
}

impl Throttle {
    pub fn burst(&self) -> u32 {
        self.burst.map_or_else(|| self.rate.0.ceil().clamp(1.0, f64::from(u32::MAX)) as u32, |burst| burst.0)
    }
}

settings! {
    /// Limits beyond AWS's, by client address (an IPv4 address, or the /64 network of an IPv6 one) and by connection.
    pub struct StageLimits {
        /// Connections that one address may have open; the next handshake gets 429.
        pub connections_per_address: OrNone<PositiveInteger> = "none",
        /// Handshakes of one address.
        pub connects_per_address: OrNone<Throttle> = "none",
        /// Messages of one connection; one too many gets the frame `Too Many Requests`, and is not passed on.
        pub messages_per_connection: OrNone<Throttle> = "none",
        /// Bytes of messages of one connection. A message larger than `burst` never gets through.
        pub bytes_per_connection: OrNone<Throttle> = "none",
        /// Requests of one address to an HTTP API.
        pub requests_per_address: OrNone<Throttle> = "none",
    }
}

impl StageLimits {
    /// The keys that mean nothing to a stage of the other kind.
    pub fn of_sockets(&self) -> [(&'static str, bool); 4] {
        [
            ("connections_per_address", self.connections_per_address.0.is_some()),
            ("connects_per_address", self.connects_per_address.0.is_some()),
            ("messages_per_connection", self.messages_per_connection.0.is_some()),
            ("bytes_per_connection", self.bytes_per_connection.0.is_some()),
        ]
    }
}

settings! {
    /// A usage plan: what holders of its API keys may use.
    pub struct UsagePlan {
        /// Calls a second of each key; without it no throttle.
        pub rate: Option<PerSecond>,
        /// The size of each key's bucket; without it as many as come in a second.
        pub burst: Option<PositiveInteger>,
        /// How many calls each key has in a period.
        pub quota: Option<Quota>,
        /// The stages that the plan is good for, as `<api>/<stage>`; without it every stage.
        pub stages: Option<Vec<Text>>,
        check is_plan;
    }
}

fn is_plan(plan: &UsagePlan, reading: &mut Reading) {
    if plan.burst.is_some() && plan.rate.is_none() {
        let help = "add `rate`, the calls a second that refill the bucket";
        reading.problems.problem_with_help(&plan.place, "`burst` stands alone", help);
    }
}

impl UsagePlan {
    /// The plan's rate and burst as a throttle.
    pub fn throttle(&self) -> Option<Throttle> {
        Some(Throttle { rate: self.rate?, burst: self.burst, place: self.place.clone() })
    }
}

settings! {
    /// How many calls a key has in a period, which begins at midnight UTC.
    pub struct Quota {
        /// Calls in one period.
        pub limit: PositiveInteger,
        /// When the count begins anew: every day, every week or on the first of the month.
        pub period: Period,
    }
}

choice! {
    /// A quota's period.
    pub enum Period {
        /// From midnight to midnight.
        Day = "day",
        /// Seven days.
        Week = "week",
        /// A calendar month.
        Month = "month",
    }
}

settings! {
    /// An API key.
    pub struct ApiKey {
        /// The key itself, as callers show it: 20 to 128 characters at AWS.
        pub value: Option<Secret>,
        /// The SHA-256 of the key in hexadecimal, in place of `value`: the file then holds nothing that opens a door.
        pub sha256: Option<Text>,
        /// The plan that its holder is on.
        pub usage_plan: Option<Text>,
        /// `false` turns the key away without forgetting it.
        pub enabled: bool = true,
        check is_key;
    }
}

fn is_key(key: &ApiKey, reading: &mut Reading) {
    match (&key.value, &key.sha256) {
        (None, None) => {
            let help = "add `value = \"${env.…}\"`, or `sha256` with the SHA-256 of the key";
            reading.problems.problem_with_help(&key.place, "this API key has no value", help);
        }
        (Some(_), Some(sha256)) => {
            let found = "`value` and `sha256` both say what the key is";
            reading.problems.problem_with_help(&sha256.place, found, "keep one of them");
        }
        (None, Some(sha256)) if !sha256.unresolved && !is_sha256(sha256) => {
            let found = "this is no SHA-256";
            let help = "write its 64 hexadecimal digits, as `printf %s \"$KEY\" | sha256sum` prints them";
            reading.problems.problem_with_help(&sha256.place, found, help);
        }
        _ => {}
    }
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}
