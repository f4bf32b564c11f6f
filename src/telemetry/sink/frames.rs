//! Lines as syslog has them: RFC 5424, over TCP each with its length before it (RFC 6587).

use std::fs;
use std::process;

use jiff::Timestamp;

/// Facility local0, severity informational.
const PRIORITY: u32 = 16 * 8 + 6;

/// What is put where a line was cut.
const CUT: &str = "…";

/// How RFC 5424 says that something is not known.
const UNKNOWN: &str = "-";

/// What names this process in every message.
pub(super) struct Sender {
    host: String,
    process: u32,
}

impl Sender {
    pub(super) fn this() -> Self {
        let names = ["/proc/sys/kernel/hostname", "/etc/hostname"].into_iter();
        let host = names.filter_map(|path| fs::read_to_string(path).ok()).find_map(|text| host_name(&text));
        Self { host: host.unwrap_or_else(|| UNKNOWN.to_owned()), process: process::id() }
    }

    /// All that stands before a line that is sent now.
    pub(super) fn head(&self, now: Timestamp) -> String {
        let Self { host, process } = self;
        format!("<{PRIORITY}>1 {now:.6} {host} livegate {process} access - ")
    }
}

/// RFC 5424 takes 255 printable characters.
fn host_name(text: &str) -> Option<String> {
    let name: String = text.trim().chars().filter(char::is_ascii_graphic).take(255).collect();
    (!name.is_empty()).then_some(name)
}

/// Appends one message, a line cut where it would be longer than `most`.
pub(super) fn append_message(head: &str, line: &[u8], most: usize, frame: &mut Vec<u8>) {
    frame.extend_from_slice(head.as_bytes());
    if head.len() + line.len() <= most {
        frame.extend_from_slice(line);
    } else {
        frame.extend_from_slice(cut(line, most.saturating_sub(head.len() + CUT.len())));
        frame.extend_from_slice(CUT.as_bytes());
    }
}

/// Appends one message and, before it, its length.
pub(super) fn append_counted(head: &str, line: &[u8], frames: &mut Vec<u8>) {
    frames.extend_from_slice(format!("{} ", head.len() + line.len()).as_bytes());
    append_message(head, line, usize::MAX, frames);
}

/// The front of a line, and no half characters.
fn cut(line: &[u8], most: usize) -> &[u8] {
    let mut end = most.min(line.len());
    while end > 0 && line.get(end).is_some_and(|byte| byte & 0b1100_0000 == 0b1000_0000) {
        end -= 1;
    }
    &line[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_is_that_of_rfc_5424() {
        let sender = Sender { host: "node-1".to_owned(), process: 7 };
        let now: Timestamp = "2026-11-25T01:02:03.5Z".parse().unwrap();
        assert_eq!(sender.head(now), "<134>1 2026-11-25T01:02:03.500000Z node-1 livegate 7 access - ");
    }

    #[test]
    fn this_machine_has_a_name_without_blanks() {
        let sender = Sender::this();
        assert!(!sender.host.is_empty() && sender.host.chars().all(|c| c.is_ascii_graphic()), "{}", sender.host);
        assert_eq!(host_name(" node 1\n"), Some("node1".to_owned()));
        assert_eq!(host_name("\n"), None);
        assert_eq!(host_name(&"x".repeat(300)).unwrap().len(), 255);
    }

    #[test]
    fn a_counted_frame_says_its_length_in_bytes() {
        let mut frames = Vec::new();
        append_counted("<134>1 ", "ä".as_bytes(), &mut frames);
        append_counted("<134>1 ", b"", &mut frames);
        assert_eq!(String::from_utf8(frames).unwrap(), "9 <134>1 ä7 <134>1 ");
    }

    #[track_caller]
    fn check_cut(line: &str, most: usize, expected: &str) {
        let mut frame = Vec::new();
        append_message("h ", line.as_bytes(), most, &mut frame);
        assert_eq!(String::from_utf8(frame).unwrap(), expected);
    }

    #[test]
    fn a_line_that_is_too_long_is_cut_between_characters_and_marked() {
        check_cut("abcdef", 8, "h abcdef");
        check_cut("abcdefg", 8, "h abc…");
        check_cut("abäcdef", 8, "h ab…");
        check_cut("aäbcdef", 8, "h aä…");
        check_cut("abcdef", 2, "h …");
        check_cut("ääää", 6, "h …");
    }
}
