//! Durations and sizes: a whole number and its unit.

use std::fmt;

use serde_json::json;

use super::{Node, Reading, Setting, Value, or_env};

/// A length of time such as `5s`; zero only if `ZERO` says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duration<const ZERO: bool = true>(pub std::time::Duration);

/// A length of time that is never zero: a deadline of nothing would fail every call.
pub type PositiveDuration = Duration<false>;

/// A number of bytes such as `32KiB`, never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// Calls or bytes a second: a number that may have a fraction, and may be zero.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct PerSecond(pub f64);

/// A part of all: a number from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Share(pub f64);

const TIMES: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// The longest duration that is read, a thousand years: far below where adding it to a clock could overflow.
const LONGEST_MILLISECONDS: u64 = 1_000 * 365 * 24 * 3_600_000;

const SIZES: [(&str, u64); 7] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
];

enum Miss {
    Form,
    TooMuch,
}

/// Reads a whole number followed directly by one of the units.
fn quantity(text: &str, units: &[(&str, u64)]) -> Result<u64, Miss> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit).ok_or(Miss::Form)?;
    if number.is_empty() {
        return Err(Miss::Form);
    }
    number.parse::<u64>().ok().and_then(|number| number.checked_mul(*factor)).ok_or(Miss::TooMuch)
}

impl<const ZERO: bool> Setting for Duration<ZERO> {
    fn read(node: Node, reading: &mut Reading) -> Option<Self> {
        let help = "write it like `5s` or `250ms`";
        let text = node.word(reading, "duration", help)?;
        match quantity(&text, &TIMES) {
            Ok(0) if !ZERO => {
                let found = format!("{} is too short here", node.as_written());
                reading.problems.problem_with_help(&node.place, found, "write at least `1ms`");
                None
            }
            Ok(milliseconds) if milliseconds <= LONGEST_MILLISECONDS => {
                Some(Duration(std::time::Duration::from_millis(milliseconds)))
            }
            Ok(_) | Err(Miss::TooMuch) => {
                let found = format!("{} is longer than a thousand years", node.as_written());
                reading.problems.problem_with_help(&node.place, found, "write something shorter");
                None
            }
            Err(Miss::Form) => {
                reading.refuse(&node, "duration", help);
                None
            }
        }
    }

    fn schema() -> serde_json::Value {
        let number = if ZERO { "[0-9]+" } else { "0*[1-9][0-9]*" };
        or_env(json!({ "type": "string", "pattern": format!("^{number}(ms|s|m|h|d)$") }))
    }

    fn kind() -> String {
        "duration".into()
    }
}

impl Setting for ByteSize {
    fn read(node: Node, reading: &mut Reading) -> Option<Self> {
        let help = "write it like `32KiB`, `1MB` or `512B`";
        let text = node.word(reading, "size", help)?;
        match quantity(&text, &SIZES) {
            Ok(0) => {
                let found = format!("{} is too small", node.as_written());
                reading.problems.problem_with_help(&node.place, found, "write at least `1B`");
                None
            }
            Ok(bytes) => Some(ByteSize(bytes)),
            Err(Miss::TooMuch) => {
                let found = format!("{} is more than a machine can count", node.as_written());
                reading.problems.problem_with_help(&node.place, found, "write something smaller");
                None
            }
            Err(Miss::Form) => {
                reading.refuse(&node, "size", help);
                None
            }
        }
    }

    fn schema() -> serde_json::Value {
        or_env(json!({ "type": "string", "pattern": "^0*[1-9][0-9]*(B|KiB|MiB|GiB|KB|MB|GB)$" }))
    }

    fn kind() -> String {
        "size".into()
    }
}

/// A number from zero to `most`, which may have a fraction.
fn number(node: &Node, reading: &mut Reading, noun: &str, help: &str, most: f64) -> Option<f64> {
    let number = match &node.value {
        Value::Integer { number, .. } => number.map(|number| number as f64),
        Value::Other(written) => written.replace('_', "").parse().ok(),
        Value::Text(text) if text.contains("${env.") => node.word(reading, noun, help)?.trim().parse().ok(),
        _ => None,
    };
    let read = number.filter(|number| (0.0..=most).contains(number));
    if read.is_none() {
        reading.refuse(node, noun, help);
    }
    read
}

impl Setting for Share {
    fn read(node: Node, reading: &mut Reading) -> Option<Self> {
        number(&node, reading, "share", "write a number from `0` to `1`, like `0.01` for one in a hundred", 1.0)
            .map(Share)
    }

    fn schema() -> serde_json::Value {
        or_env(json!({ "type": "number", "minimum": 0, "maximum": 1 }))
    }

    fn kind() -> String {
        "number from 0 to 1".into()
    }
}

impl Setting for PerSecond {
    fn read(node: Node, reading: &mut Reading) -> Option<Self> {
        number(&node, reading, "rate", "write how many a second, like `10` or `0.5`", FASTEST).map(PerSecond)
    }

    fn schema() -> serde_json::Value {
        or_env(json!({ "type": "number", "minimum": 0, "maximum": FASTEST }))
    }

    fn kind() -> String {
        "number a second".into()
    }
}

/// A bucket counts in nanoseconds, so nothing is faster than one in each.
const FASTEST: f64 = 1e9;

/// As an operator would write it, in the largest unit that fits.
impl<const ZERO: bool> fmt::Display for Duration<ZERO> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = self.0.as_millis();
        let fits = |factor: u64| milliseconds.is_multiple_of(u128::from(factor));
        match TIMES.iter().rev().find(|(_, factor)| milliseconds > 0 && fits(*factor)) {
            Some((unit, factor)) => write!(f, "{}{unit}", milliseconds / u128::from(*factor)),
            None => f.write_str("0s"),
        }
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let largest_first = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
        match largest_first.iter().find(|(_, factor)| self.0.is_multiple_of(*factor)) {
            Some((unit, factor)) => write!(f, "{}{unit}", self.0 / factor),
            None => write!(f, "{}B", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::problem::Place;

    fn duration<const ZERO: bool>(text: &str) -> Option<u128> {
        let mut reading = Reading::of_defaults();
        let read = Duration::<ZERO>::read(Node::unwritten(text.into(), &Place::default()), &mut reading);
        assert_eq!(read.is_none(), reading.problems.has_problems(), "{text}");
        read.map(|duration| duration.0.as_millis())
    }

    fn size(text: &str) -> Option<u64> {
        let read = ByteSize::read(Node::unwritten(text.into(), &Place::default()), &mut Reading::of_defaults());
        read.map(|size| size.0)
    }

    #[test]
    fn durations_are_a_whole_number_and_a_unit() {
        let wanted = [("250ms", 250), ("5s", 5_000), ("10m", 600_000), ("2h", 7_200_000), ("0s", 0)];
        for (text, milliseconds) in wanted {
            assert_eq!(duration::<true>(text), Some(milliseconds), "{text}");
        }
        for text in [
            "",
            "5",
            "s",
            "5 s",
            "1.5s",
            "-1s",
            "5S",
            "5s ",
            "45 parsecs",
            "+5s",
            "99999999999999999999s",
            "9999999999h",
        ] {
            assert_eq!(duration::<true>(text), None, "{text}");
        }
        assert_eq!(duration::<false>("0ms"), None);
    }

    #[test]
    fn sizes_are_a_whole_number_and_a_unit() {
        let wanted = [("32KiB", 32_768), ("1MB", 1_000_000), ("1MiB", 1_048_576), ("512B", 512)];
        for (text, bytes) in wanted {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for text in ["", "32", "32kib", "KiB", "1.5MB", "0B", "18446744073709551615GiB", "1 MB"] {
            assert_eq!(size(text), None, "{text}");
        }
    }

    #[test]
    fn both_are_shown_as_they_would_be_written() {
        let shown = |milliseconds| Duration::<true>(std::time::Duration::from_millis(milliseconds)).to_string();
        assert_eq!([shown(0), shown(250), shown(60_000), shown(90_000)], ["0s", "250ms", "1m", "90s"]);
        assert_eq!([ByteSize(131_072).to_string(), ByteSize(1_000).to_string()], ["128KiB", "1000B"]);
    }
}
