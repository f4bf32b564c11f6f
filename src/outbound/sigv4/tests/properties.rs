//! The official signer as an oracle: what it signs verifies, what was changed afterwards does not, and
//! nonsense is refused.

use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use proptest::prelude::*;

use super::*;

/// Another letter or digit, which is another one in either case too: `%4a` and `%4A` are one byte.
fn another(byte: u8) -> u8 {
    match byte.to_ascii_lowercase() {
        b'z' => b'a',
        b'9' => b'0',
        other => other + 1,
    }
}

/// The text with one letter or digit changed, the `at`th of them counted around.
fn flipped(text: &str, at: usize) -> String {
    let places: Vec<usize> =
        text.bytes().enumerate().filter(|(_, byte)| byte.is_ascii_alphanumeric()).map(|(place, _)| place).collect();
    let mut bytes = text.as_bytes().to_vec();
    let place = places[at % places.len()];
    bytes[place] = another(bytes[place]);
    String::from_utf8(bytes).unwrap()
}

prop_compose! {
    fn requests()(
        method in "GET|POST|DELETE|PATCH",
        path in "(/([A-Za-z0-9@=%._~:+-]{0,6}|[.]{1,2})){1,6}",
        pairs in prop::collection::vec(("\\PC{0,6}", "\\PC{0,6}", any::<bool>()), 0..6),
        raw in "([a-zA-Z0-9%=&._~/:@!$'()*,;?-]{0,12})",
        headers in prop::collection::vec(("(x-[a-d]|content-type|accept)", "[!-~]([ -~]{0,10}[!-~])?"), 0..8),
        body in prop::collection::vec(any::<u8>(), 0..200),
        host in "[a-z]{1,8}(:[0-9]{2,4})?",
    ) -> Wire {
        let mut wire = Wire { method, path, query: None, headers: HeaderMap::new(), body };
        let encode = |text| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let mut parts: Vec<String> = pairs
            .iter()
            .map(|(name, value, alone)| match alone {
                true => encode(name),
                false => format!("{}={}", encode(name), encode(value)),
            })
            .collect();
        // The oracle reads escapes as UTF-8 and drops what is not; ours are bytes. Leave those out.
        if percent_decode_is_text(&raw) {
            parts.push(raw);
        }
        if !parts.is_empty() {
            wire.query = Some(parts.join("&"));
        }
        wire.add("host", &host);
        for (name, value) in headers {
            wire.add(&name, &value);
        }
        wire
    }
}

fn percent_decode_is_text(text: &str) -> bool {
    percent_encoding::percent_decode_str(text).decode_utf8().is_ok()
}

proptest! {
    #[test]
    fn what_the_official_signer_signs_verifies(
        wire in requests(),
        session_token in prop::option::of("[!-~]{1,40}"),
        presigned in prop::option::of(1u64..604_800),
    ) {
        let session_token = session_token.as_deref();
        let wire = signed(wire, session_token, presigned);
        let outcome = wire.ask(&one_key(session_token), signed_at());
        prop_assert!(outcome.is_ok(), "{outcome:?} {wire:?}");
    }

    #[test]
    fn nothing_that_was_signed_can_be_changed(
        at in any::<usize>(),
        part in 0..7,
        query in "[a-z]{1,5}=([a-zA-Z0-9]|%[2-6][0-9a-fA-F]){0,6}(&[a-z]{1,5}=[a-z]{0,3}){0,2}",
        path in "(/[A-Za-z0-9@=%_-]{1,6}){1,4}a",
        presigned in prop::option::of(1u64..604_800),
    ) {
        let keys = one_key(None);
        let wire = Wire { query: Some(query), path, ..hello() };
        let mut wire = signed(wire, None, presigned);
        prop_assert!(wire.ask(&keys, signed_at()).is_ok());
        match part {
            0 => wire.path = flipped(&wire.path, at),
            1 => wire.query = wire.query.map(|query| flipped(&query, at)),
            2 => {
                let note = flipped(wire.headers["x-note"].to_str().unwrap(), at);
                wire.set("x-note", &note);
            }
            3 => wire.add("x-note", "more"),
            4 => {
                let place = at % wire.body.len();
                wire.body[place] ^= 1;
            }
            5 => wire.method = "GET".to_owned(),
            _ => {
                if let Some(query) = wire.query.take().filter(|_| presigned.is_some()) {
                    let (before, signature) = query.rsplit_once("X-Amz-Signature=").unwrap();
                    wire.query = Some(format!("{before}X-Amz-Signature={}", flipped(signature, at)));
                } else {
                    let header = wire.headers["authorization"].to_str().unwrap();
                    let (before, signature) = header.rsplit_once("Signature=").unwrap();
                    let header = format!("{before}Signature={}", flipped(signature, at));
                    wire.set("authorization", &header);
                }
            }
        }
        prop_assert!(wire.ask(&keys, signed_at()).is_err(), "{wire:?}");
    }

    #[test]
    fn nonsense_is_refused_without_a_panic(
        authorization in prop::option::of("(AWS4-HMAC-SHA256 )?((Credential|SignedHeaders|Signature|\\PC{0,3})=\\PC{0,12}(/20261121/r/execute-api/aws4_request)?,? ?){0,4}"),
        date in prop::option::of("[0-9TZ:+ -]{0,20}|\\PC{0,20}|[0-9]{8}T[0-9]{6}Z|[A-Z][a-z]{2}, [0-9]{2} Nov [0-9]{4} [0-9:]{8} (GMT|[+-][0-9]{4})"),
        date_name in "x-amz-date|date",
        query in prop::option::of("(X-Amz-(Algorithm|Credential|Date|Expires|SignedHeaders|Signature|Security-Token)=(AWS4-HMAC-SHA256|AKIDEXAMPLE/20261121/r/execute-api/aws4_request|20261121T003945Z|60|host|\\PC{0,10})&){0,8}"),
        path in "\\PC{0,30}",
    ) {
        let mut wire = Wire::post(&path, &[("host", "h")], "");
        wire.query = query;
        if let Some(value) = authorization.and_then(|text| HeaderValue::from_bytes(text.as_bytes()).ok()) {
            wire.headers.insert("authorization", value);
        }
        if let Some(value) = date.and_then(|text| HeaderValue::from_bytes(text.as_bytes()).ok()) {
            wire.headers.insert(HeaderName::from_bytes(date_name.as_bytes()).unwrap(), value);
        }
        prop_assert!(wire.ask(&one_key(None), signed_at()).is_err());
        prop_assert!(wire.ask(&one_key(None), UNIX_EPOCH).is_err());
    }
}
