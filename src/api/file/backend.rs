//! The `[backends.<name>]` tables: pools of servers that routes name as the host of a URL.

use crate::model::problem::{Place, Problems};
use crate::model::settings::{
    Duration, Integer, OneOrMany, OrNone, PositiveDuration, PositiveInteger, Reading, Spanned, TableName, Text,
    settings,
};
use crate::outbound::backends::pool::{self, Address, Balance, EjectionRules, MOST_SERVERS, Rules, Thresholds};

settings! {
    /// A pool of servers that answer for the host of this name: `http://NAME/…` in a route.
    pub struct Backend {
        /// The servers, at least one; alone or in a list.
        pub servers: OneOrMany<Spanned<Address>>,
        /// Which server gets the next call: the one with the fewest in progress, or one after the other.
        pub balance: Balance = "least_requests",
        /// Asks every server now and then whether it is well; without it, only the calls themselves tell.
        pub health: Option<Health>,
        /// Leaves a server alone that failed several calls in a row, until a call succeeds on it.
        pub ejection: OrNone<Ejection>,
        /// How often a call that failed on one server is repeated on another. Only what can be done twice is
        /// (`GET`, `HEAD`, `OPTIONS`, `PUT`, `DELETE`); a call of which nothing was sent goes on to the next server in any case.
        pub retries: Integer<0, 5> = 1,
        /// The most calls to repeat, in percent of those of the last ten seconds; ten a second are always allowed.
        pub retry_budget: Integer<0, 100> = 20,
        /// How many calls are in progress on all servers together, each over a connection; more wait in the queue.
        pub max_connections: PositiveInteger = 1024,
        /// The calls that wait for their turn.
        pub queue: Queue,
        /// How long opening a connection may take before the next server is tried.
        pub connect_timeout: PositiveDuration = "5s",
        /// Closes connections that were not used for this long: before the server does, which for many is after 5 s.
        pub idle_timeout: PositiveDuration = "4s",
        /// Speaks HTTP/2, without TLS to servers that expect nothing else.
        pub http2: bool = false,
        /// How servers are spoken to over TLS; an empty table will do, and so does `https://NAME/…` in the route.
        pub tls: Option<Tls>,
        check is_sound;
    }
}

settings! {
    /// Asks every server now and then whether it is well: a status of 200 to 399 says so.
    pub struct Health {
        /// The path that is asked, with `GET`.
        pub path: Text,
        /// How often each server is asked.
        pub interval: PositiveDuration = "5s",
        /// How long its answer may take.
        pub timeout: PositiveDuration = "2s",
        /// How many good answers in a row bring a server back. The very first answer decides alone.
        pub healthy: PositiveInteger = 2,
        /// How many bad ones in a row take it out.
        pub unhealthy: PositiveInteger = 2,
        check is_health_sound;
    }
}

settings! {
    /// Leaves a server alone that failed several calls in a row: it was not reached, did not answer in time, or
    /// answered 502, 503 or 504. Then one call at a time goes to it until one succeeds. When no other server is left,
    /// those are asked all the same.
    pub struct Ejection {
        /// How many failed calls in a row it takes.
        pub failures: PositiveInteger = 3,
        /// For how long; twice as long each time it fails again, up to five minutes.
        pub time: PositiveDuration = "10s",
    }
}

settings! {
    /// The calls that wait for their turn, in the order they came.
    pub struct Queue {
        /// How many may wait; one more gets a 503.
        pub requests: Integer<0, { u32::MAX }> = 1024,
        /// How long one may wait before it gets a 503; `none` leaves that to the call's own timeout.
        pub timeout: OrNone<PositiveDuration> = "none",
    }
}

settings! {
    /// How servers are spoken to over TLS. Paths are relative to the folder of the file.
    pub struct Tls {
        /// A PEM file with the authorities that may vouch for a server; without it, those that the machine trusts.
        pub ca: Option<Text>,
        /// A PEM file with the certificate to show to servers, and those between it and its authority.
        pub certificate: Option<Text>,
        /// A PEM file with its private key.
        pub key: Option<Text>,
        /// The name that a server's certificate must have; without it, the host in `servers`, or for a socket the pool's name.
        pub server_name: Option<Text>,
        check is_tls_sound;
    }
}

impl Backend {
    /// The rules that the pool keeps.
    pub fn rules(&self) -> Rules {
        let Backend { balance, health, ejection, retries, retry_budget, max_connections, queue, .. } = self;
        let ejection = ejection.0.as_ref();
        let ejection = ejection.map(|ejection| EjectionRules { failures: ejection.failures.0, time: ejection.time.0 });
        let checks = health.as_ref().map_or((1, 1), |health| (health.healthy.0, health.unhealthy.0));
        Rules {
            balance: *balance,
            ejection,
            checks: Thresholds { healthy: checks.0, unhealthy: checks.1 },
            retries: retries.0,
            retry_budget: retry_budget.0,
            max_connections: max_connections.0 as usize,
            queue: queue.requests.0 as usize,
            queue_timeout: queue.timeout.0.map(|Duration(timeout)| timeout),
        }
    }
}

fn is_sound(backend: &Backend, reading: &mut Reading) {
    let servers = &backend.servers;
    for (at, server) in servers.iter().enumerate() {
        if servers[..at].iter().any(|earlier| earlier.value == server.value) {
            let found = format!("the server `{}` stands here a second time", server.value);
            reading.problems.problem_with_help(&server.place, found, "remove one: each gets its share of the calls");
        }
    }
    if let Some(one_too_many) = servers.get(MOST_SERVERS) {
        let found = format!("{} servers are too many", servers.len());
        reading.problems.problem_with_help(&one_too_many.place, found, format!("write at most {MOST_SERVERS}"));
    }
}

fn is_health_sound(health: &Health, reading: &mut Reading) {
    let path = &health.path;
    // `http` forgets a fragment without a word.
    let is_path =
        |path: &str| path.starts_with('/') && !path.contains('#') && path.parse::<http::uri::PathAndQuery>().is_ok();
    if !path.unresolved && !is_path(path) {
        let found = format!("`{}` is no path", path.value);
        reading.problems.problem_with_help(&path.place, found, "write it like `/healthz`");
    }
}

fn is_tls_sound(tls: &Tls, reading: &mut Reading) {
    let Tls { ca, certificate, key, server_name, .. } = tls;
    let problems = &mut reading.problems;
    for file in [ca, certificate, key].into_iter().flatten() {
        if file.is_empty() && !file.unresolved {
            problems.problem_with_help(&file.place, "this names no file", "write the name of a PEM file");
        }
    }
    match (certificate, key) {
        (Some(certificate), None) => alone("certificate", "key", &certificate.place, problems),
        (None, Some(key)) => alone("key", "certificate", &key.place, problems),
        _ => {}
    }
    if let Some(name) = server_name.as_ref().filter(|name| !name.unresolved && !pool::is_server_name(name)) {
        let found = format!("`{}` is no name of a server", name.value);
        problems.problem_with_help(&name.place, found, "write it like `animals.internal`, without scheme and port");
    }
}

fn alone(one: &str, other: &str, place: &Place, problems: &mut Problems) {
    problems.problem_with_help(place, format!("`{one}` stands alone"), format!("add `{other}`"));
}

/// Names of pools, which stand as hosts in URLs.
#[derive(Debug, Clone)]
pub struct BackendName;

impl TableName for BackendName {
    const PLACEHOLDER: &'static str = "<name>";

    fn check(name: &str) -> Result<(), (String, String)> {
        let form = "write it like `animals` or `animals.internal`";
        if name.chars().any(|c| c.is_ascii_uppercase()) {
            let found =
                format!("`{name}` cannot name a pool: it stands as the host of a URL, and hosts are lower case");
            return Err((found, format!("write `{}`", name.to_ascii_lowercase())));
        }
        if !pool::is_server_name(name) {
            return Err((format!("`{name}` cannot name a pool: it stands as the host of a URL"), form.into()));
        }
        if is_address(name) || name == "localhost" || name.ends_with(".localhost") {
            let found = format!("`{name}` cannot name a pool: it stands for a machine already");
            return Err((found, form.into()));
        }
        Ok(())
    }

    fn pattern() -> Option<&'static str> {
        Some(r"^[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*$")
    }
}

/// Whether a URL's host of this name would be read as an address: its last part is a number, as browsers see it.
fn is_address(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    let is_hex = |digits: &str| digits.chars().all(|c| c.is_ascii_hexdigit());
    last.chars().all(|c| c.is_ascii_digit()) || last.strip_prefix("0x").is_some_and(is_hex)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::file;
    use crate::model::settings::Setting as _;

    /// Reads the keys of `[backends.animals]`; what is said of them, without their path.
    fn said(keys: &str) -> (Option<Backend>, Vec<String>) {
        let source = format!("[backends.animals]\n{keys}");
        let (file, problems) = file::read(&source, &|_| None, false);
        let said = problems.iter().map(|problem| problem.to_string().replace("backends.animals.", "")).collect();
        (file.and_then(|file| file.backends.get("animals").map(|named| named.value.clone())), said)
    }

    fn check(keys: &str, wanted: &[&str]) {
        assert_eq!(said(keys).1, wanted, "{keys}");
    }

    fn read(keys: &str) -> Backend {
        let (backend, said) = said(keys);
        assert_eq!(said, [""; 0], "{keys}");
        backend.unwrap()
    }

    #[test]
    fn servers_alone_have_every_default() {
        let backend = read("servers = '10.0.0.1:4000'");
        let wanted = Rules {
            balance: Balance::LeastRequests,
            ejection: Some(EjectionRules { failures: 3, time: std::time::Duration::from_secs(10) }),
            checks: Thresholds { healthy: 1, unhealthy: 1 },
            retries: 1,
            retry_budget: 20,
            max_connections: 1024,
            queue: 1024,
            queue_timeout: None,
        };
        assert_eq!(backend.rules(), wanted);
        assert!(backend.health.is_none() && backend.tls.is_none() && !backend.http2);
        assert_eq!((backend.connect_timeout.to_string(), backend.idle_timeout.to_string()), ("5s".into(), "4s".into()));
    }

    #[test]
    fn every_key_is_read() {
        let backend = read(
            "servers = ['10.0.0.1:4000', '[::1]:4000', 'unix:/run/animals.sock']\n\
             balance = 'round_robin'\n\
             health = { path = '/healthz?full=1', interval = '1s', timeout = '500ms', healthy = 1, unhealthy = 3 }\n\
             ejection = { failures = 5, time = '30s' }\n\
             retries = 0\nretry_budget = 10\nmax_connections = 64\n\
             queue = { requests = 0, timeout = '1s' }\n\
             connect_timeout = '1s'\nidle_timeout = '1m'\nhttp2 = true\n\
             tls = { ca = 'ca.pem', certificate = 'client.pem', key = 'client.key', server_name = 'animals.internal' }",
        );
        let rules = backend.rules();
        assert_eq!((rules.balance, rules.retries, rules.queue), (Balance::RoundRobin, 0, 0));
        assert_eq!(rules.checks, Thresholds { healthy: 1, unhealthy: 3 });
        assert_eq!(rules.queue_timeout, Some(std::time::Duration::from_secs(1)));
        let servers: Vec<_> = backend.servers.iter().map(|server| server.value.to_string()).collect();
        assert_eq!(servers, ["10.0.0.1:4000", "[::1]:4000", "unix:/run/animals.sock"]);
        assert_eq!(read("servers = 'a:1'\nejection = 'none'").rules().ejection, None);
        assert!(read("servers = 'a:1'\ntls = {}").tls.is_some());
    }

    #[test]
    fn problems_say_what_would_do() {
        check("", &["backends.animals: `servers` is missing; add it to this table"]);
        check("servers = []", &["servers: this list is empty; write at least one"]);
        check("servers = ['a:1', 'b']", &["servers[1]: `b` is no server; add the port: `b:80`"]);
        check(
            "servers = ['a:1', 'b:1', 'A:1']",
            &["servers[2]: the server `a:1` stands here a second time; remove one: each gets its share of the calls"],
        );
        check(
            "servers = 'a:1'\nhealth = { path = 'healthz' }",
            &["health.path: `healthz` is no path; write it like `/healthz`"],
        );
        check("servers = 'a:1'\nhealth = {}", &["health: `path` is missing; add it to this table"]);
        check(
            "servers = 'a:1'\ntls = { certificate = 'a.pem' }",
            &["tls.certificate: `certificate` stands alone; add `key`"],
        );
        check("servers = 'a:1'\ntls = { key = 'a.pem' }", &["tls.key: `key` stands alone; add `certificate`"]);
        check("servers = 'a:1'\ntls.ca = ''", &["tls.ca: this names no file; write the name of a PEM file"]);
        check(
            "servers = 'a:1'\ntls.server_name = 'https://a'",
            &[
                "tls.server_name: `https://a` is no name of a server; write it like `animals.internal`, without scheme and port",
            ],
        );
        check("servers = 'a:1'\nretries = 6", &["retries: `6` is out of bounds; write a number from 0 to 5"]);
        check(
            "servers = 'a:1'\nejection = 'never'",
            &["ejection: `never` is no table; write a table, in `{` and `}` or under a header of its own, or `none`"],
        );
        let many: Vec<_> = (1..=129).map(|port| format!("'a:{port}'")).collect();
        check(
            &format!("servers = [{}]", many.join(", ")),
            &["servers[128]: 129 servers are too many; write at most 128"],
        );
    }

    #[test]
    fn names_are_hosts_that_stand_for_nothing_else() {
        for good in ["animals", "animals.internal", "my_service", "a-1", "10a"] {
            assert_eq!(BackendName::check(good), Ok(()), "{good}");
        }
        for (bad, wanted) in [
            ("Animals", "write `animals`"),
            ("", "write it like"),
            ("a b", "write it like"),
            ("a:80", "write it like"),
            ("-a", "write it like"),
            ("a..b", "write it like"),
            ("10.0.0.1", "write it like"),
            ("127.1", "write it like"),
            ("a.0x7f", "write it like"),
            ("12", "write it like"),
            ("::1", "write it like"),
            ("localhost", "write it like"),
            ("api.localhost", "write it like"),
        ] {
            let (_, help) = BackendName::check(bad).unwrap_err();
            assert!(help.contains(wanted), "{bad}: {help}");
        }
    }

    #[test]
    fn the_schema_describes_every_key() {
        let schema = Backend::schema();
        assert_eq!(schema["required"], serde_json::json!(["servers"]));
        assert_eq!(schema["properties"]["retries"]["default"], 1);
    }
}
