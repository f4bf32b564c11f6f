//! AWS's Signature Version 4, as an SDK signs a call of `@connections`: the cost of making it is the generator's.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::{digest, hmac};

use crate::adapters::hex;
use crate::session::percent_encode;

/// The gateway takes a signature of any region.
const REGION: &str = "us-east-1";
const SERVICE: &str = "execute-api";
const SIGNED_HEADERS: &str = "host;x-amz-date";

/// Signs the requests of one access key.
pub struct Signer {
    access_key: String,
    secret: String,
    /// The day that `key` was derived for, like `20260131`.
    day: String,
    key: hmac::Key,
}

impl Signer {
    pub fn new(access_key: &str, secret: &str) -> Self {
        let (day, key) = (String::new(), hmac::Key::new(hmac::HMAC_SHA256, b""));
        Signer { access_key: access_key.to_string(), secret: secret.to_string(), day, key }
    }

    /// The headers that sign a request without a query, which is made now.
    pub fn headers(&mut self, method: &str, authority: &str, path: &str, body: &[u8]) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        self.headers_at(&amazon_date(now), method, authority, path, body)
    }

    fn headers_at(&mut self, date: &str, method: &str, authority: &str, path: &str, body: &[u8]) -> String {
        let day = &date[..8];
        if self.day != day {
            self.key = derive(&self.secret, day);
            self.day = day.to_string();
        }
        // The path is encoded once more than it was sent, as everywhere but at S3.
        let segments: Vec<String> = path.split('/').map(percent_encode).collect();
        let canonical = format!(
            "{method}\n{}\n\nhost:{authority}\nx-amz-date:{date}\n\n{SIGNED_HEADERS}\n{}",
            segments.join("/"),
            sha256(body)
        );
        let scope = format!("{day}/{REGION}/{SERVICE}/aws4_request");
        let to_sign = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", sha256(canonical.as_bytes()));
        let signature = hex(hmac::sign(&self.key, to_sign.as_bytes()).as_ref());
        format!(
            "X-Amz-Date: {date}\r\nAuthorization: AWS4-HMAC-SHA256 Credential={}/{scope}, \
             SignedHeaders={SIGNED_HEADERS}, Signature={signature}\r\n",
            self.access_key
        )
    }
}

fn derive(secret: &str, day: &str) -> hmac::Key {
    let first = hmac::Key::new(hmac::HMAC_SHA256, format!("AWS4{secret}").as_bytes());
    [day, REGION, SERVICE, "aws4_request"]
        .iter()
        .fold(first, |key, part| hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&key, part.as_bytes()).as_ref()))
}

/// Seconds since 1970 as `20260131T235959Z`.
fn amazon_date(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Counted from March of the year 0, so that the day a leap year adds is a year's last.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

fn sha256(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_written_as_aws_writes_it() {
        assert_eq!(amazon_date(0), "19700101T000000Z");
        assert_eq!(amazon_date(951_782_400), "20000229T000000Z");
        assert_eq!(amazon_date(1_769_903_999), "20260131T235959Z");
    }

    /// What another implementation, in Python's hmac and hashlib, makes of the same request.
    #[test]
    fn a_signature_is_what_others_compute() {
        let mut signer = Signer::new("AKIDLOCAL", "local-secret");
        let headers =
            signer.headers_at("20260131T235959Z", "POST", "127.0.0.1:8080", "/prod/@connections/a%3D", b"hello");
        assert!(
            headers.ends_with("Signature=cb4e64b7957968495b5de965e01b34e2923eb126275ba5091040eb74b8519bad\r\n"),
            "{headers}"
        );
    }
}
