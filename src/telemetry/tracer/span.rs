//! What a span says of itself, and how OTLP writes it.

use std::borrow::Cow;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::common::v1::any_value::Value as AnyValue;
use opentelemetry_proto::tonic::common::v1::{AnyValue as Wrapped, KeyValue};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{Span as Written, SpanFlags, Status};

use crate::model::trace::TraceContext;

/// The longest text of a span. Clients choose paths and user agents, and thousands of spans may wait at once.
const LONGEST_TEXT: usize = 1024;

/// Something that was done for a call: from when, for how long, and how it went.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    pub context: TraceContext,
    /// The span that this one was done for; in the same process only below a span of ours.
    pub parent: Option<[u8; 8]>,
    pub kind: Kind,
    pub name: Cow<'static, str>,
    pub began: SystemTime,
    pub took: Duration,
    pub attributes: Vec<(&'static str, Value)>,
    /// What went wrong, for those who look at it.
    pub error: Option<String>,
}

/// OpenTelemetry's words: the answering and the asking side of a call, of something queued, and neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Server,
    Client,
    Producer,
    Consumer,
    Internal,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Text(Cow<'static, str>),
    Number(i64),
    Flag(bool),
}

impl Span {
    /// The same with no text longer than `LONGEST_TEXT`.
    pub(super) fn cut(mut self) -> Self {
        cut(&mut self.name);
        if let Some(error) = &mut self.error {
            cut_owned(error);
        }
        for (_, value) in &mut self.attributes {
            if let Value::Text(text) = value {
                cut(text);
            }
        }
        self
    }

    pub(super) fn written(self) -> Written {
        let began = nanoseconds(self.began.duration_since(UNIX_EPOCH).unwrap_or_default());
        let state = self.context.state.as_ref().and_then(|state| state.to_str().ok());
        Written {
            trace_id: self.context.trace_id.into(),
            span_id: self.context.span_id.into(),
            trace_state: state.unwrap_or_default().to_owned(),
            parent_span_id: self.parent.map(Vec::from).unwrap_or_default(),
            flags: flags(&self.context, self.kind, self.parent.is_some()),
            name: self.name.into_owned(),
            kind: kind(self.kind).into(),
            start_time_unix_nano: began,
            end_time_unix_nano: began.saturating_add(nanoseconds(self.took)),
            attributes: self.attributes.into_iter().map(|(key, value)| attribute(key, value)).collect(),
            // Without an error nothing is claimed: success is for those to say who asked for the span's work.
            status: self.error.map(|message| Status { message, code: StatusCode::Error.into() }),
            ..Written::default()
        }
    }
}

pub(super) fn attribute(key: &str, value: impl Into<Value>) -> KeyValue {
    let value = match value.into() {
        Value::Text(text) => AnyValue::StringValue(text.into_owned()),
        Value::Number(number) => AnyValue::IntValue(number),
        Value::Flag(flag) => AnyValue::BoolValue(flag),
    };
    KeyValue { key: key.to_owned(), value: Some(Wrapped { value: Some(value) }), ..KeyValue::default() }
}

/// The flags of the context, and whether the parent was in another process: it was, where somebody asked us.
fn flags(context: &TraceContext, kind: Kind, has_parent: bool) -> u32 {
    let is_remote = has_parent && matches!(kind, Kind::Server | Kind::Consumer);
    let remote = if is_remote { SpanFlags::ContextIsRemoteMask as u32 } else { 0 };
    u32::from(context.sampled) | SpanFlags::ContextHasIsRemoteMask as u32 | remote
}

fn kind(kind: Kind) -> SpanKind {
    match kind {
        Kind::Server => SpanKind::Server,
        Kind::Client => SpanKind::Client,
        Kind::Producer => SpanKind::Producer,
        Kind::Consumer => SpanKind::Consumer,
        Kind::Internal => SpanKind::Internal,
    }
}

/// As OTLP holds them, until the year 2554.
fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn cut(text: &mut Cow<'static, str>) {
    if text.len() > LONGEST_TEXT {
        cut_owned(text.to_mut());
    }
}

fn cut_owned(text: &mut String) {
    if text.len() > LONGEST_TEXT {
        text.truncate(text.floor_char_boundary(LONGEST_TEXT));
        text.shrink_to_fit();
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Value::Text(text.into())
    }
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Value::Text(text.into())
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Value::Number(number)
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Value::Flag(flag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(kind: Kind) -> Span {
        Span {
            context: TraceContext { trace_id: [7; 16], span_id: [8; 8], sampled: true, state: None },
            parent: None,
            kind,
            name: "GET /pets".into(),
            began: UNIX_EPOCH + Duration::from_nanos(1_763_684_400_118_000_001),
            took: Duration::from_millis(3),
            attributes: Vec::new(),
            error: None,
        }
    }

    #[test]
    fn flags_tell_of_a_parent_in_another_process() {
        let check = |kind, parent: Option<[u8; 8]>, flags| {
            assert_eq!(Span { parent, ..span(kind) }.written().flags, flags, "{kind:?} {parent:?}");
        };
        check(Kind::Server, Some([9; 8]), 0x301);
        check(Kind::Consumer, Some([9; 8]), 0x301);
        check(Kind::Server, None, 0x101);
        check(Kind::Client, Some([9; 8]), 0x101);
        check(Kind::Internal, Some([9; 8]), 0x101);
        check(Kind::Producer, None, 0x101);
    }

    #[test]
    fn times_are_nanoseconds_since_the_epoch() {
        let check = |began, took, wanted| {
            let written = Span { began, took, ..span(Kind::Server) }.written();
            assert_eq!((written.start_time_unix_nano, written.end_time_unix_nano), wanted);
        };
        let began = 1_763_684_400_118_000_001;
        check(UNIX_EPOCH + Duration::from_nanos(began), Duration::from_millis(3), (began, began + 3_000_000));
        check(UNIX_EPOCH - Duration::from_secs(1), Duration::ZERO, (0, 0));
        check(UNIX_EPOCH + Duration::from_secs(1), Duration::MAX, (1_000_000_000, u64::MAX));
    }

    #[test]
    fn only_a_failure_has_a_status() {
        assert_eq!(span(Kind::Server).written().status, None);
        let failed = Span { error: Some("the backend answered 503".to_owned()), ..span(Kind::Client) };
        let status = Status { message: "the backend answered 503".to_owned(), code: StatusCode::Error.into() };
        assert_eq!(failed.written().status, Some(status));
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let long = "é".repeat(2000);
        let cut = Span {
            name: long.clone().into(),
            error: Some(format!("x{long}")),
            attributes: vec![("url.path", long.into()), ("livegate.api", "chat".into()), ("n", 7.into())],
            ..span(Kind::Server)
        }
        .cut();
        assert_eq!(cut.name, "é".repeat(512));
        assert_eq!(cut.error.unwrap(), format!("x{}", "é".repeat(511)));
        let attributes =
            [("url.path", "é".repeat(512).into()), ("livegate.api", "chat".into()), ("n", Value::Number(7))];
        assert_eq!(cut.attributes, attributes);
        let Value::Text(Cow::Owned(text)) = &cut.attributes[0].1 else { panic!("it was owned") };
        assert!(text.capacity() <= LONGEST_TEXT);
    }
}
