//! How the file was read of late: what is served, and what is in the way of serving what it says now.

use parking_lot::Mutex;

use crate::model::clock::Timestamp;

/// Every reading of the file, as far as operators ask for it.
pub struct Readings(Mutex<Reading>);

#[derive(Clone, Debug)]
pub struct Reading {
    /// How often something else came to be served.
    pub count: u64,
    pub last_good_at: Timestamp,
    pub last_attempt_at: Timestamp,
    /// As `check` prints them, where the last attempt met problems.
    pub problems: Option<String>,
    /// The file's name, without its folders.
    pub file: String,
}

impl Default for Readings {
    fn default() -> Self {
        let now = Timestamp::now();
        let file = "routes.toml".to_owned();
        Self(Mutex::new(Reading { count: 0, last_good_at: now, last_attempt_at: now, problems: None, file }))
    }
}

impl Readings {
    pub fn name(&self, file: String) {
        self.0.lock().file = file;
    }

    /// What the file says is served now.
    pub fn note_good(&self) {
        let mut reading = self.0.lock();
        let now = Timestamp::now();
        reading.count += 1;
        (reading.last_good_at, reading.last_attempt_at) = (now, now);
        reading.problems = None;
    }

    /// The file cannot be served, and nothing has changed.
    pub fn note_problems(&self, report: String) {
        let mut reading = self.0.lock();
        reading.last_attempt_at = Timestamp::now();
        reading.problems = Some(report);
    }

    pub fn last(&self) -> Reading {
        self.0.lock().clone()
    }
}
