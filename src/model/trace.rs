//! Which trace a call belongs to: W3C trace context, and AWS's `X-Amzn-Trace-Id`, which says the same in other words.
//!
//! Read and written as <https://www.w3.org/TR/trace-context-1/> wants it. Ids are lower-case hexadecimal digits and never
//! all zero; what is not well-formed counts as absent, and two of a header, which contradict each other, as none.

use std::time::{SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, HeaderValue};
use rand::RngExt as _;

pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
pub const X_AMZN_TRACE_ID: HeaderName = HeaderName::from_static("x-amzn-trace-id");

/// A trace state is passed on up to this length, which the recommendation asks for at least; from a longer one, members
/// longer than `LONG_MEMBER` are left out first, then those at its end.
const LONGEST_STATE: usize = 512;
const LONG_MEMBER: usize = 128;

/// One span's place in its trace, as it is told to whomever the span's work asks for something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    pub trace_id: [u8; 16],
    pub span_id: [u8; 8],
    /// The span is written down.
    pub sampled: bool,
    /// What others have to say, handed on and never read.
    pub state: Option<HeaderValue>,
}

/// What a caller says of the trace its call belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parent {
    pub trace_id: [u8; 16],
    /// AWS's load balancers name a trace and no span of it.
    pub span_id: Option<[u8; 8]>,
    /// `None` when the caller left it to us.
    pub sampled: Option<bool>,
    pub state: Option<HeaderValue>,
}

impl Parent {
    /// From `traceparent`, or else from `X-Amzn-Trace-Id`.
    pub fn from_headers(headers: &HeaderMap) -> Option<Self> {
        of_traceparent(headers).or_else(|| of_amzn(headers))
    }

    /// A new span of the same trace, for what was asked of us.
    pub fn next(&self, sampled: bool) -> TraceContext {
        TraceContext { trace_id: self.trace_id, span_id: new_span_id(), sampled, state: self.state.clone() }
    }
}

impl TraceContext {
    /// Begins a trace. Its id begins with the time in seconds, as AWS's ids do: X-Ray takes no other.
    pub fn begin() -> Self {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() as u32;
        let mut trace_id: [u8; 16] = rand::random();
        trace_id[..4].copy_from_slice(&time.to_be_bytes());
        Self { trace_id, span_id: new_span_id(), sampled: true, state: None }
    }

    /// Another span of the same trace.
    pub fn next(&self) -> Self {
        self.with_span(new_span_id())
    }

    pub fn with_span(&self, span_id: [u8; 8]) -> Self {
        Self { span_id, ..self.clone() }
    }

    /// `00-{trace}-{span}-01`, or `…-00` when the span is not written down.
    pub fn traceparent(&self) -> HeaderValue {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        write_digits(&mut text[3..35], &self.trace_id);
        write_digits(&mut text[36..52], &self.span_id);
        text[54] = digit(u8::from(self.sampled));
        header(&text)
    }

    /// `Root=1-{time}-{random};Parent={span};Sampled=1`, the trace's id in two parts.
    pub fn amzn(&self) -> HeaderValue {
        let mut text = *b"Root=1-00000000-000000000000000000000000;Parent=0000000000000000;Sampled=0";
        write_digits(&mut text[7..15], &self.trace_id[..4]);
        write_digits(&mut text[16..40], &self.trace_id[4..]);
        write_digits(&mut text[48..64], &self.span_id);
        text[73] = digit(u8::from(self.sampled));
        header(&text)
    }
}

/// Of any version but `ff`: a later one begins as version 00 does, and may say more behind another dash.
fn of_traceparent(headers: &HeaderMap) -> Option<Parent> {
    let (text, more) = only(headers, &TRACEPARENT)?.as_bytes().split_at_checked(55)?;
    let [version] = digits(&text[..2])?;
    let [flags] = digits(&text[53..])?;
    let is_whole = more.is_empty() || (version > 0 && more[0] == b'-');
    if version == 0xff || !is_whole || [2, 35, 52].iter().any(|place| text[*place] != b'-') {
        return None;
    }
    let (trace_id, span_id) = (id(&text[3..35])?, id(&text[36..52])?);
    Some(Parent { trace_id, span_id: Some(span_id), sampled: Some(flags & 1 == 1), state: state(headers) })
}

/// `Root=1-{8 digits}-{24 digits};Parent={16 digits};Sampled=1`, in any order and beside fields of others.
fn of_amzn(headers: &HeaderMap) -> Option<Parent> {
    let text = only(headers, &X_AMZN_TRACE_ID)?.to_str().ok()?;
    let field = |name| {
        let mut fields = text.split(';').filter_map(|field| field.trim().split_once('='));
        fields.find(|(field, _)| *field == name).map(|(_, value)| value)
    };
    let (time, random) = field("Root")?.strip_prefix("1-")?.split_once('-')?;
    let mut trace_id = [0; 16];
    trace_id[..4].copy_from_slice(&digits::<4>(time.as_bytes())?);
    trace_id[4..].copy_from_slice(&digits::<12>(random.as_bytes())?);
    let sampled = match field("Sampled") {
        Some("1") => Some(true),
        Some("0") => Some(false),
        // `?` asks us to decide.
        _ => None,
    };
    let span_id = field("Parent").and_then(|digits| id(digits.as_bytes()));
    is_id(&trace_id).then_some(Parent { trace_id, span_id, sampled, state: None })
}

/// All lines of the trace state as one, within its bound; one with other than visible characters is lost.
fn state(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut lines = headers.get_all(&TRACESTATE).iter();
    let first = lines.next()?;
    if lines.next().is_none() && first.len() <= LONGEST_STATE {
        return first.to_str().is_ok_and(|text| !text.trim().is_empty()).then(|| first.clone());
    }
    let lines: Option<Vec<&str>> = headers.get_all(&TRACESTATE).iter().map(|line| line.to_str().ok()).collect();
    let lines = lines?;
    let is_long = lines.iter().map(|line| line.len() + 1).sum::<usize>() > LONGEST_STATE + 1;
    let members = lines.iter().flat_map(|line| line.split(',')).map(str::trim);
    let mut state = String::new();
    for member in members.filter(|member| !member.is_empty() && (!is_long || member.len() <= LONG_MEMBER)) {
        if state.len() + 1 + member.len() > LONGEST_STATE {
            break;
        }
        if !state.is_empty() {
            state.push(',');
        }
        state += member;
    }
    HeaderValue::try_from(state).ok().filter(|state| !state.is_empty())
}

/// A header that is there once.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h HeaderValue> {
    let mut lines = headers.get_all(name).iter();
    lines.next().filter(|_| lines.next().is_none())
}

fn id<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    digits(text).filter(|id| is_id(id))
}

/// Zeros alone are no id.
fn new_span_id() -> [u8; 8] {
    rand::rng().random_range(1..=u64::MAX).to_be_bytes()
}

fn is_id(bytes: &[u8]) -> bool {
    bytes.iter().any(|byte| *byte != 0)
}

fn digits<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        let (high, low) = (VALUES[usize::from(pair[0])], VALUES[usize::from(pair[1])]);
        if (high | low) > 15 {
            return None;
        }
        *byte = high << 4 | low;
    }
    Some(bytes)
}

fn write_digits(text: &mut [u8], bytes: &[u8]) {
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair.copy_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
    }
}

fn digit(value: u8) -> u8 {
    DIGITS[usize::from(value)]
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// What each character is worth as a digit; 255 for those that are none.
const VALUES: [u8; 256] = {
    let mut values = [0xff; 256];
    let mut value = 0;
    while value < DIGITS.len() {
        values[DIGITS[value] as usize] = value as u8;
        value += 1;
    }
    values
};

fn header(text: &[u8]) -> HeaderValue {
    HeaderValue::from_bytes(text).expect("letters, digits and dashes are a header value")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TRACE: &str = "12345678901234567890123456789012";
    const SPAN: &str = "1234567890123456";

    fn parent(lines: &[(&'static str, &str)]) -> Option<Parent> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        Parent::from_headers(&headers)
    }

    /// What was read, as `trace-span-sampled` and the trace state.
    fn shown(parent: Option<Parent>) -> Option<(String, Option<String>)> {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        parent.map(|parent| {
            let span = parent.span_id.map_or("none".to_owned(), |span| hex(&span));
            let sampled = parent.sampled.map_or('?', |sampled| if sampled { '1' } else { '0' });
            let state = parent.state.map(|state| state.to_str().unwrap().to_owned());
            (format!("{}-{span}-{sampled}", hex(&parent.trace_id)), state)
        })
    }

    /// Cases of the recommendation's own test suite (`test_traceparent_*`), and some of ours.
    #[test]
    fn a_traceparent_is_read() {
        let check = |text: &str, wanted: Option<&str>| {
            let wanted = wanted.map(|sampled| (format!("{TRACE}-{SPAN}-{sampled}"), None));
            assert_eq!(shown(parent(&[("traceparent", text)])), wanted, "{text}");
        };
        let of = |version: &str, rest: &str| format!("{version}-{TRACE}-{SPAN}-{rest}");
        check(&of("00", "01"), Some("1"));
        check(&of("00", "00"), Some("0"));
        // Flags of later levels.
        check(&of("00", "03"), Some("1"));
        check(&of("00", "fe"), Some("0"));
        check(&of("00", "ff"), Some("1"));
        check(&of("cc", "01"), Some("1"));
        check(&of("cc", "01-what-the-future-will-be-like"), Some("1"));
        check(&of("cc", "01-"), Some("1"));
        check(&of("01", "00-a"), Some("0"));
        check(&of("cc", "01.what-the-future-will-not-be-like"), None);
        check(&of("00", "01."), None);
        check(&of("00", "01-"), None);
        check(&of("00", "01-what-the-future-will-be-like"), None);
        check(&of("ff", "01"), None);
        for version in [".0", "0.", "0", "000", "0000", "FF", "0A", ""] {
            check(&of(version, "01"), None);
        }
        for flags in [".0", "0.", "1", "001", "0A", "", "  ", "01 01"] {
            check(&of("00", flags), None);
        }
        for trace in [
            "0".repeat(32),
            format!(".{}", &TRACE[1..]),
            format!("{}.", &TRACE[1..]),
            format!("{TRACE}3"),
            TRACE[1..].to_owned(),
            TRACE.replace("12", "AB"),
            TRACE.replace("12", "ab ").replace(' ', ""),
        ] {
            let is_id = trace.contains("ab");
            let read = parent(&[("traceparent", &format!("00-{trace}-{SPAN}-01"))]);
            assert_eq!(read.is_some(), is_id, "{trace}");
        }
        for span in [
            "0".repeat(16),
            format!(".{}", &SPAN[1..]),
            format!("{}.", &SPAN[1..]),
            format!("{SPAN}7"),
            SPAN[1..].to_owned(),
            SPAN.replace("12", "AB"),
        ] {
            check(&format!("00-{TRACE}-{span}-01"), None);
        }
        check(&of("00", "01").replace('-', "_"), None);
        check(&of("00", "01").replacen('-', "0", 1), None);
        check("", None);
        check(&of("00", "01")[..54], None);
        check(&format!("{},{}", of("00", "01"), of("00", "01")), None);
    }

    #[test]
    fn two_of_a_header_are_none() {
        let traceparent = format!("00-{TRACE}-{SPAN}-01");
        let line = ("traceparent", traceparent.as_str());
        assert_eq!(parent(&[line, line, ("tracestate", "a=1")]), None);
        let amzn = ("x-amzn-trace-id", "Root=1-5759e988-bd862e3fe1be46a994272793");
        assert_eq!(parent(&[amzn, amzn]), None);
        assert!(parent(&[line, line, amzn]).is_some_and(|parent| parent.span_id.is_none()));
    }

    #[test]
    fn aws_spells_a_trace_in_its_own_way() {
        const ROOT: &str = "Root=1-5759e988-bd862e3fe1be46a994272793";
        let check = |text: &str, wanted: Option<&str>| {
            let wanted = wanted.map(|rest| (format!("5759e988bd862e3fe1be46a994272793-{rest}"), None));
            assert_eq!(shown(parent(&[("x-amzn-trace-id", text), ("tracestate", "a=1")])), wanted, "{text}");
        };
        check(&format!("{ROOT};Parent=53995c3f42cd8ad8;Sampled=1"), Some("53995c3f42cd8ad8-1"));
        check(&format!("Sampled=0;Parent=53995c3f42cd8ad8;{ROOT}"), Some("53995c3f42cd8ad8-0"));
        check(&format!("Self=1-67891234-12456789abcdef012345678;{ROOT}"), Some("none-?"));
        check(&format!("{ROOT}; Sampled=? ;Lineage=a87bd80c:1|68fd508a:5"), Some("none-?"));
        check(&format!("{ROOT};Sampled=1;TotalTimeSoFar=112ms;CalledFrom=app"), Some("none-1"));
        check(&format!("{ROOT};Parent=0000000000000000;Sampled=1"), Some("none-1"));
        check(&format!("{ROOT};Parent=53995C3F42CD8AD8"), Some("none-?"));
        check(&format!("{ROOT};Parent=foo;Parent=53995c3f42cd8ad8"), Some("none-?"));
        check(&format!(";;{ROOT};"), Some("none-?"));
        check("", None);
        check("Root", None);
        check("Root=", None);
        check("Self=1-5759e988-bd862e3fe1be46a994272793", None);
        check(&ROOT.replace("Root", "root"), None);
        check(&ROOT.replace("=1-", "=2-"), None);
        check(&ROOT.replace("bd862e3f", "BD862E3F"), None);
        check(&ROOT[..ROOT.len() - 1], None);
        check(&format!("{ROOT}0"), None);
        check(&ROOT.replace("e988-", "-e988"), None);
        check("Root=1-00000000-000000000000000000000000", None);
    }

    #[test]
    fn the_recommendations_word_counts_more_than_awss() {
        let (w3c, amzn) = (format!("00-{TRACE}-{SPAN}-00"), "Root=1-5759e988-bd862e3fe1be46a994272793");
        let of = |traceparent: &str| shown(parent(&[("x-amzn-trace-id", amzn), ("traceparent", traceparent)]));
        assert_eq!(of(&w3c).unwrap().0, format!("{TRACE}-{SPAN}-0"));
        assert_eq!(of("nonsense").unwrap().0, "5759e988bd862e3fe1be46a994272793-none-?");
    }

    #[test]
    fn a_trace_state_is_handed_on_with_its_traceparent_only() {
        let traceparent = format!("00-{TRACE}-{SPAN}-01");
        let check = |lines: &[&str], wanted: Option<&str>| {
            let mut all = vec![("traceparent", traceparent.as_str())];
            all.extend(lines.iter().map(|line| ("tracestate", *line)));
            let state = parent(&all).unwrap().state;
            assert_eq!(state.as_ref().map(|state| state.to_str().unwrap()), wanted, "{lines:?}");
        };
        check(&[], None);
        check(&[""], None);
        check(&["", ""], None);
        check(&["rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"], Some("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"));
        check(&["foo=1 \t , bar=2"], Some("foo=1 \t , bar=2"));
        check(&["foo=1,", "", "bar=2 , baz=3"], Some("foo=1,bar=2,baz=3"));
        assert_eq!(parent(&[("tracestate", "foo=1")]), None);
        assert_eq!(parent(&[("traceparent", "nonsense"), ("tracestate", "foo=1")]), None);

        let members = |count: usize| (0..count).map(|n| format!("k{n:02}=vvv")).collect::<Vec<_>>().join(",");
        check(&[&members(64)], Some(&members(64)));
        check(&[&members(65)], Some(&members(64)));
        check(&[&members(40), &members(40)], Some(&format!("{},{}", members(40), members(24))));
        let long = format!("long={}", "v".repeat(130));
        check(&[&long], Some(&long));
        check(&[&format!("{long},{}", members(60))], Some(&members(60)));
        check(&["é=1"], None);
        check(&["a=1", "é=1"], None);
        check(&[&"v".repeat(600)], None);
    }

    #[test]
    fn a_context_is_written_in_both_ways() {
        let check = |sampled: bool, traceparent: &str, amzn: &str| {
            let (trace_id, span_id) = (0x0123_4567_89ab_cdef_0000_0000_0000_0001_u128, 0xfedc_ba98_0000_0000_u64);
            let (trace_id, span_id) = (trace_id.to_be_bytes(), span_id.to_be_bytes());
            let context = TraceContext { trace_id, span_id, sampled, state: None };
            assert_eq!((context.traceparent(), context.amzn()), (traceparent.parse().unwrap(), amzn.parse().unwrap()));
        };
        check(
            true,
            "00-0123456789abcdef0000000000000001-fedcba9800000000-01",
            "Root=1-01234567-89abcdef0000000000000001;Parent=fedcba9800000000;Sampled=1",
        );
        check(
            false,
            "00-0123456789abcdef0000000000000001-fedcba9800000000-00",
            "Root=1-01234567-89abcdef0000000000000001;Parent=fedcba9800000000;Sampled=0",
        );
    }

    #[test]
    fn spans_of_one_trace_have_ids_of_their_own() {
        let state = Some(HeaderValue::from_static("a=1"));
        let first = TraceContext { state: state.clone(), ..TraceContext::begin() };
        let parent = Parent { trace_id: first.trace_id, span_id: None, sampled: None, state };
        let contexts = [&first, &first.next(), &first.with_span([7; 8]), &parent.next(true), &TraceContext::begin()];
        let spans: std::collections::HashSet<_> = contexts.iter().map(|context| context.span_id).collect();
        assert_eq!(spans.len(), 5);
        for context in &contexts[1..4] {
            assert_eq!(**context, first.with_span(context.span_id));
        }
        assert_ne!(contexts[4].trace_id, first.trace_id);
        assert!(!parent.next(false).sampled);
    }

    #[test]
    fn a_new_trace_begins_with_its_time() {
        let time = TraceContext::begin().trace_id.first_chunk().map(|time| u32::from_be_bytes(*time)).unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as u32;
        assert!(now - time <= 1);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(trace in 1..=u128::MAX, span in 1..=u64::MAX, sampled: bool) {
            let (trace_id, span_id) = (trace.to_be_bytes(), span.to_be_bytes());
            let context = TraceContext { trace_id, span_id, sampled, state: None };
            let wanted = Parent { trace_id, span_id: Some(span_id), sampled: Some(sampled), state: None };
            let (traceparent, amzn) = (context.traceparent(), context.amzn());
            let traceparent = traceparent.to_str().unwrap();
            prop_assert_eq!(traceparent, format!("00-{trace:032x}-{span:016x}-0{}", u8::from(sampled)));
            prop_assert_eq!(parent(&[("traceparent", traceparent)]), Some(wanted.clone()));
            prop_assert_eq!(parent(&[("x-amzn-trace-id", amzn.to_str().unwrap())]), Some(wanted));
        }

        /// Against the recommendation's grammar as a regular expression, with characters changed here and there.
        #[test]
        fn a_traceparent_is_what_the_grammar_says(
            changes in prop::collection::vec((0_usize..60, "[0-9a-fA-F. -]"), 0..3),
            more in "(-[a-z]{0,5}|[0-9a-f-]{0,3})",
            zero in prop::option::of(prop_oneof![Just((3, 32)), Just((36, 16)), Just((0, 2))]),
        ) {
            let mut text = format!("00-{TRACE}-{SPAN}-01{more}");
            if let Some((begins, length)) = zero {
                text.replace_range(begins..begins + length, &"0".repeat(length));
            }
            for (place, change) in changes {
                if place < text.len() {
                    text.replace_range(place..=place, &change);
                }
            }
            let text = text.trim();
            let grammar = regex::Regex::new("^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?$").unwrap();
            let wanted = grammar.captures(text).is_some_and(|found| {
                &found[1] != "ff" && (&found[1] != "00" || found.get(5).is_none())
                    && found[2].contains(|digit| digit != '0') && found[3].contains(|digit| digit != '0')
            });
            prop_assert_eq!(parent(&[("traceparent", text)]).is_some(), wanted, "{}", text);
        }

        #[test]
        fn nothing_that_comes_does_harm(name in "traceparent|tracestate|x-amzn-trace-id", text in "[ -~]{0,80}") {
            let name = ["traceparent", "tracestate", "x-amzn-trace-id"].into_iter().find(|known| *known == name).unwrap();
            parent(&[("traceparent", "00-12345678901234567890123456789012-1234567890123456-01"), (name, &text)]);
            parent(&[(name, &text)]);
        }
    }
}
