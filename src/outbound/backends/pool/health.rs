//! What active checks say of a server: up until a check says otherwise, then as several in a row say.

use std::sync::atomic::{AtomicBool, Ordering};

use http::StatusCode;
use parking_lot::Mutex;

use super::{Change, Thresholds};

/// Whether the answer to a check speaks for the server. A redirect does: most often it is a page that wants a login.
pub fn passes(status: StatusCode) -> bool {
    status.is_success() || status.is_redirection()
}

/// What is believed of one server.
#[derive(Default)]
pub(super) struct Health {
    is_down: AtomicBool,
    checks: Mutex<Checks>,
}

#[derive(Default)]
struct Checks {
    has_any: bool,
    /// How many in a row contradict what is believed.
    contrary: u32,
}

impl Health {
    pub fn is_up(&self) -> bool {
        !self.is_down.load(Ordering::Relaxed)
    }

    pub fn forget(&self) {
        *self.checks.lock() = Checks::default();
        self.is_down.store(false, Ordering::Relaxed);
    }

    /// Notes one check. The first decides at once: a gateway that starts should not send calls to a server that
    /// is down for as long as it takes to be sure.
    pub fn note(&self, passed: bool, thresholds: Thresholds) -> Option<Change> {
        let mut checks = self.checks.lock();
        let is_first = !std::mem::replace(&mut checks.has_any, true);
        if passed == self.is_up() {
            checks.contrary = 0;
            return None;
        }
        checks.contrary += 1;
        let enough = if passed { thresholds.healthy } else { thresholds.unhealthy };
        if !is_first && checks.contrary < enough {
            return None;
        }
        checks.contrary = 0;
        self.is_down.store(!passed, Ordering::Relaxed);
        Some(if passed { Change::Up } else { Change::Down })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `+` and `-` are checks that passed and failed; `U` and `D` what is believed after each.
    fn check(healthy: u32, unhealthy: u32, checks: &str, wanted: &str) {
        let health = Health::default();
        let thresholds = Thresholds { healthy, unhealthy };
        let mut believed = String::new();
        for check in checks.chars() {
            let before = health.is_up();
            let change = health.note(check == '+', thresholds);
            let told = change.map_or(before, |change| change == Change::Up);
            assert_eq!(told, health.is_up(), "{checks}: every change is told");
            assert_eq!(change.is_some(), before != health.is_up(), "{checks}: only changes are told");
            believed.push(if health.is_up() { 'U' } else { 'D' });
        }
        assert_eq!(believed, wanted, "{checks}");
    }

    #[test]
    fn several_checks_in_a_row_change_what_is_believed() {
        check(2, 2, "+--", "UUD");
        check(2, 2, "+-+-+--", "UUUUUUD");
        check(2, 2, "+--++", "UUDDU");
        check(2, 2, "+--+-++", "UUDDDDU");
        check(1, 3, "+---+", "UUUDU");
        check(3, 1, "+-+++", "UDDDU");
    }

    #[test]
    fn the_first_check_decides_at_once() {
        assert!(Health::default().is_up());
        check(2, 2, "-", "D");
        check(2, 2, "-++", "DDU");
        check(5, 5, "+", "U");
    }

    #[test]
    fn success_and_redirects_pass() {
        let status = |code| passes(StatusCode::from_u16(code).unwrap());
        assert!(status(200) && status(204) && status(302));
        assert!(!status(199) && !status(401) && !status(404) && !status(503));
    }
}
