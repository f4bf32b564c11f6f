//! A function's answer to the event of an HTTP request, read as HTTP APIs read it.
//!
//! Format 1.0 knows only the envelope `{"statusCode":…}`. In format 2.0 anything else is a body of its own; what
//! is done with it was recorded from AWS, and is less strict than AWS's page says.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, SET_COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::model::call::Reply;
use crate::model::headers;
use crate::model::json;

/// Keys that a format does not know are passed over, as AWS does.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<'a> {
    status_code: u16,
    #[serde(default, borrow)]
    headers: Option<BTreeMap<String, &'a RawValue>>,
    /// Format 1.0 only, and in 2.0 whatever it likes to be.
    #[serde(default, borrow)]
    multi_value_headers: Option<&'a RawValue>,
    /// Format 2.0 only.
    #[serde(default, borrow)]
    cookies: Option<&'a RawValue>,
    #[serde(default)]
    body: Option<String>,
    #[serde(default)]
    is_base64_encoded: Option<bool>,
}

/// The error says what is wrong with the answer, for the log.
pub fn read_v1(answer: &[u8]) -> Result<Reply, String> {
    if answer.trim_ascii().is_empty() {
        return Ok(nothing());
    }
    let mut envelope: Envelope = serde_json::from_slice(answer).map_err(|error| no_envelope(&error))?;
    let mut headers = envelope.headers()?;
    if let Some(multi) = envelope.multi_value_headers {
        let multi: BTreeMap<String, Vec<&RawValue>> = serde_json::from_str(multi.get())
            .map_err(|error| format!("`multiValueHeaders` is no map of lists: {error}"))?;
        for (name, values) in multi {
            for value in values {
                if let Some((name, value)) = header(&name, value)? {
                    headers.append(name, value);
                }
            }
        }
    }
    envelope.reply(headers)
}

/// The error says what is wrong with the answer, for the log.
pub fn read_v2(answer: &Bytes) -> Result<Reply, String> {
    let mut envelope: Envelope = match answer.trim_ascii().first() {
        None => return Ok(nothing()),
        Some(b'{') => match serde_json::from_slice(answer) {
            Ok(envelope) => envelope,
            Err(error) if has_status_code(answer) => return Err(no_envelope(&error)),
            Err(_) => return Ok(json(answer.clone())),
        },
        // A JSON text is its own content; what only begins like one is passed on as it is.
        Some(b'"') => {
            return Ok(json(serde_json::from_slice::<String>(answer).map_or_else(|_| answer.clone(), Bytes::from)));
        }
        Some(_) => return Ok(json(answer.clone())),
    };
    let mut headers = envelope.headers()?;
    if let Some(cookies) = envelope.cookies {
        let cookies: Vec<String> =
            serde_json::from_str(cookies.get()).map_err(|error| format!("`cookies` is no list of texts: {error}"))?;
        for cookie in cookies {
            headers.append(SET_COOKIE, header_value(&SET_COOKIE, &cookie)?);
        }
    }
    envelope.reply(headers)
}

/// An empty answer stands for `{"statusCode":200}`.
fn nothing() -> Reply {
    let mut reply = Reply::new(StatusCode::OK, Bytes::new());
    reply.headers.insert(CONTENT_TYPE, TEXT);
    reply
}

fn json(body: Bytes) -> Reply {
    let mut reply = Reply::new(StatusCode::OK, body);
    reply.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply
}

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// Whether it is a JSON object with this key: only that makes an envelope of it.
fn has_status_code(answer: &[u8]) -> bool {
    serde_json::from_slice::<BTreeMap<String, IgnoredAny>>(answer).is_ok_and(|keys| keys.contains_key("statusCode"))
}

fn no_envelope(error: &serde_json::Error) -> String {
    format!("no proxy answer: {}", json::fault(error))
}

impl Envelope<'_> {
    fn headers(&mut self) -> Result<HeaderMap, String> {
        let mut headers = HeaderMap::new();
        for (name, value) in self.headers.take().into_iter().flatten() {
            if let Some((name, value)) = header(&name, value)? {
                headers.insert(name, value);
            }
        }
        Ok(headers)
    }

    fn reply(self, mut headers: HeaderMap) -> Result<Reply, String> {
        // An interim status could not end the client's request.
        let status = StatusCode::from_u16(self.status_code).ok().filter(|status| (200..600).contains(&status.as_u16()));
        let status = status.ok_or_else(|| format!("no status of an answer: {}", self.status_code))?;
        headers.entry(CONTENT_TYPE).or_insert(TEXT);
        let body = self.body.unwrap_or_default();
        let body = if self.is_base64_encoded == Some(true) {
            STANDARD.decode(body).map_err(|_| "`body` is no base64 although `isBase64Encoded` is true")?.into()
        } else {
            Bytes::from(body)
        };
        Ok(Reply { status, headers, body })
    }
}

/// A header as a function gives it: a text, number or boolean. `None` for one of which only the gateway's own
/// connection to the client can know.
fn header(name: &str, value: &RawValue) -> Result<Option<(HeaderName, HeaderValue)>, String> {
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("`{name}` is no header name"))?;
    let value = value.get();
    let value = match value.as_bytes().first() {
        Some(b'"') => {
            let text: String = serde_json::from_str(value).map_err(|error| format!("header `{name}`: {error}"))?;
            header_value(&name, &text)?
        }
        Some(b'{' | b'[' | b'n') | None => {
            return Err(format!("header `{name}` is neither text, number nor boolean"));
        }
        // Numbers and booleans stay as they are written.
        Some(_) => header_value(&name, value)?,
    };
    let is_ours = name == CONTENT_LENGTH || headers::is_hop_by_hop(&name);
    Ok((!is_ours).then_some((name, value)))
}

fn header_value(name: &HeaderName, text: &str) -> Result<HeaderValue, String> {
    HeaderValue::from_str(text).map_err(|_| format!("header `{name}` has characters that no header may have"))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Read = fn(&Bytes) -> Result<Reply, String>;
    const V1: Read = |answer| read_v1(answer);
    const V2: Read = read_v2;

    #[track_caller]
    fn check(read: Read, answer: &'static str, status: u16, content_type: &str, body: &str) {
        let reply = read(&Bytes::from_static(answer.as_bytes())).expect(answer);
        let seen = (reply.status.as_u16(), reply.content_type().and_then(|value| value.to_str().ok()), &*reply.body);
        assert_eq!(seen, (status, Some(content_type), body.as_bytes()), "{answer}");
    }

    #[track_caller]
    fn check_headers(read: Read, answer: &'static str, expected: &[(&str, &[&str])]) {
        let reply = read(&Bytes::from_static(answer.as_bytes())).expect(answer);
        for (name, values) in expected {
            assert_eq!(reply.headers.get_all(*name).iter().collect::<Vec<_>>(), *values, "{name} of {answer}");
        }
    }

    #[track_caller]
    fn refuse(read: Read, answers: &[&'static str]) {
        for answer in answers {
            assert!(read(&Bytes::from_static(answer.as_bytes())).is_err(), "{answer}");
        }
    }

    const PLAIN: &str = "text/plain; charset=utf-8";
    const JSON: &str = "application/json";

    #[test]
    fn envelopes_are_the_same_in_both_formats() {
        for read in [V1, V2] {
            check(read, "", 200, PLAIN, "");
            check(read, " \n", 200, PLAIN, "");
            check(read, r#"{"statusCode":200}"#, 200, PLAIN, "");
            check(read, r#" {"body":"no","statusCode":403} "#, 403, PLAIN, "no");
            check(read, r#"{"statusCode":200,"body":null,"headers":null,"isBase64Encoded":null}"#, 200, PLAIN, "");
            check(read, r#"{"statusCode":200,"body":"aGk=","isBase64Encoded":true}"#, 200, PLAIN, "hi");
            check(read, r#"{"statusCode":200,"body":"aGk=","isBase64Encoded":false}"#, 200, PLAIN, "aGk=");
            check(read, r#"{"statusCode":200,"body":"{\"a\":\"\u00e9\"}"}"#, 200, PLAIN, r#"{"a":"é"}"#);
            check(read, r#"{"statusCode":200,"headers":{"Content-Type":"text/css"},"body":"a"}"#, 200, "text/css", "a");
            check(read, r#"{"statusCode":200,"extra":{"a":[1]}}"#, 200, PLAIN, "");
        }
    }

    #[test]
    fn envelopes_that_cannot_be_decoded_are_errors_in_both_formats() {
        let wrong = [
            r#"{"statusCode":200.5}"#,
            r#"{"statusCode":0}"#,
            r#"{"statusCode":101}"#,
            r#"{"statusCode":600}"#,
            r#"{"statusCode":-1}"#,
            r#"{"statusCode":"200"}"#,
            r#"{"statusCode":null}"#,
            r#"{"statusCode":200,"statusCode":201}"#,
            r#"{"statusCode":200,"body":{}}"#,
            r#"{"statusCode":200,"body":"!","isBase64Encoded":true}"#,
            r#"{"statusCode":200,"headers":[]}"#,
            r#"{"statusCode":200,"headers":{"a":[]}}"#,
            r#"{"statusCode":200,"headers":{"a":{}}}"#,
            r#"{"statusCode":200,"headers":{"a":null}}"#,
            r#"{"statusCode":200,"headers":{"a":"x\r\ny"}}"#,
            r#"{"statusCode":200,"headers":{"a b":"x"}}"#,
        ];
        refuse(V1, &wrong);
        refuse(V2, &wrong);
    }

    #[test]
    fn headers_are_written_as_they_are_and_none_of_the_connection() {
        let answer = r#"{"statusCode":200,"headers":{"A":true,"b":1.0,"C":"x, y","d":"","Content-Length":"7","connection":"close",
            "Transfer-Encoding":"chunked"}}"#;
        for read in [V1, V2] {
            check_headers(read, answer, &[("a", &["true"]), ("b", &["1.0"]), ("c", &["x, y"]), ("d", &[""])]);
            check_headers(read, answer, &[("content-length", &[]), ("connection", &[]), ("transfer-encoding", &[])]);
        }
    }

    #[test]
    fn in_1_0_the_single_value_of_a_header_comes_first() {
        let answer = r#"{"statusCode":200,"multiValueHeaders":{"X-Both":["two",3],"set-cookie":["a=1","b=2"]},
            "headers":{"x-both":"one"},"cookies":["c=3"]}"#;
        check_headers(V1, answer, &[("x-both", &["one", "two", "3"]), ("set-cookie", &["a=1", "b=2"])]);
        check_headers(V1, r#"{"statusCode":200,"multiValueHeaders":null,"cookies":7}"#, &[("set-cookie", &[])]);
        let html = r#"{"statusCode":200,"multiValueHeaders":{"content-type":["text/html"]}}"#;
        check_headers(V1, html, &[("content-type", &["text/html"])]);
        refuse(V1, &[r#"{"statusCode":200,"multiValueHeaders":{"a":"b"}}"#]);
    }

    #[test]
    fn in_2_0_cookies_are_headers_of_their_own() {
        let answer = r#"{"statusCode":204,"cookies":["sid=1; Path=/","lang=de"],"headers":{"Set-Cookie":"first=0"},
            "multiValueHeaders":{"x-no":["1"]}}"#;
        check_headers(V2, answer, &[("set-cookie", &["first=0", "sid=1; Path=/", "lang=de"]), ("x-no", &[])]);
        check_headers(V2, r#"{"statusCode":200,"cookies":null,"multiValueHeaders":"?"}"#, &[("set-cookie", &[])]);
        refuse(V2, &[r#"{"statusCode":200,"cookies":"a=1"}"#, r#"{"statusCode":200,"cookies":["a\n"]}"#]);
    }

    #[test]
    fn in_1_0_anything_but_an_envelope_is_an_error() {
        refuse(V1, &["null", "\"hi\"", "[]", "7", "hello", "{}", r#"{"body":"x"}"#, r#"{"statusCode":200"#]);
    }

    #[test]
    fn in_2_0_anything_but_an_envelope_is_a_body() {
        check(V2, r#""hi""#, 200, JSON, "hi");
        check(V2, r#""""#, 200, JSON, "");
        check(V2, r#" "a \"b\"\n" "#, 200, JSON, "a \"b\"\n");
        check(V2, r#""open"#, 200, JSON, r#""open"#);
        check(V2, r#"{"pets": [1, 2]}"#, 200, JSON, r#"{"pets": [1, 2]}"#);
        check(V2, "{}", 200, JSON, "{}");
        check(V2, r#"{"headers":5,"body":{},"status":201}"#, 200, JSON, r#"{"headers":5,"body":{},"status":201}"#);
        check(V2, r#"{"a":{"statusCode":404}}"#, 200, JSON, r#"{"a":{"statusCode":404}}"#);
        check(V2, r#"{"StatusCode":404}"#, 200, JSON, r#"{"StatusCode":404}"#);
        check(V2, "[1,  2]", 200, JSON, "[1,  2]");
        check(V2, "42", 200, JSON, "42");
        check(V2, "false", 200, JSON, "false");
        check(V2, "null", 200, JSON, "null");
        check(V2, r#"{"pets":"#, 200, JSON, r#"{"pets":"#);
        check(V2, r#"{"statusCode":200,"#, 200, JSON, r#"{"statusCode":200,"#);
        check(V2, "hello", 200, JSON, "hello");
    }
}
