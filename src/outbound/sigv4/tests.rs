//! Recorded signatures, and what each thing wrong with one is called.

mod properties;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    PercentEncodingMode, SignableBody, SignableRequest, SignatureLocation, SigningSettings, UriPathNormalizationMode,
    sign,
};
use aws_sigv4::sign::v4;
use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::*;

struct OneKey {
    key: Key,
    signing_keys: SigningKeys,
}

impl Keys for OneKey {
    type Owner = Key;

    fn find(&self, access_key_id: &str) -> Option<(&Key, &Key)> {
        (access_key_id == self.key.access_key_id).then_some((&self.key, &self.key))
    }

    fn signing_keys(&self) -> &SigningKeys {
        &self.signing_keys
    }
}

fn one_key(session_token: Option<&str>) -> OneKey {
    OneKey { key: Key::new("AKIDEXAMPLE", "secret", session_token).unwrap(), signing_keys: SigningKeys::default() }
}

/// A request that owns its parts, so that tests can change them.
#[derive(Debug, Clone)]
struct Wire {
    method: String,
    path: String,
    query: Option<String>,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Wire {
    fn post(path: &str, headers: &[(&str, &str)], body: &str) -> Wire {
        let mut wire = Wire {
            method: "POST".to_owned(),
            path: path.to_owned(),
            query: None,
            headers: HeaderMap::new(),
            body: body.as_bytes().to_vec(),
        };
        for (name, value) in headers {
            wire.add(name, value);
        }
        wire
    }

    fn add(&mut self, name: &str, value: &str) {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        self.headers.append(name, HeaderValue::from_str(value).unwrap());
    }

    fn set(&mut self, name: &'static str, value: &str) {
        self.headers.insert(name, HeaderValue::from_str(value).unwrap());
    }

    fn ask(&self, keys: &OneKey, now: SystemTime) -> Result<(), Error> {
        let request = Request {
            method: &self.method,
            path: &self.path,
            query: self.query.as_deref(),
            headers: &self.headers,
            body: &self.body,
        };
        verify(&request, keys, now).map(|_| ())
    }
}

const PATH: &str = "/prod/@connections/R0oXAdfD0kwCH6w%3D";
/// 2026-11-21T00:39:45Z.
const SIGNED_AT: Duration = Duration::from_secs(1_795_221_585);

fn signed_at() -> SystemTime {
    UNIX_EPOCH + SIGNED_AT
}

/// Signs as an ordinary SDK does; with `expires_in` the signature goes into the query.
fn signed(mut wire: Wire, session_token: Option<&str>, expires_in: Option<u64>) -> Wire {
    let credentials = Credentials::new("AKIDEXAMPLE", "secret", session_token.map(str::to_owned), None, "test");
    let identity = credentials.into();
    let mut settings = SigningSettings::default();
    settings.percent_encoding_mode = PercentEncodingMode::Double;
    settings.uri_path_normalization_mode = UriPathNormalizationMode::Enabled;
    if let Some(seconds) = expires_in {
        settings.signature_location = SignatureLocation::QueryParams;
        settings.expires_in = Some(Duration::from_secs(seconds));
    }
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region("eu-west-1")
        .name("execute-api")
        .time(signed_at())
        .settings(settings)
        .build()
        .unwrap()
        .into();
    let query = wire.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
    let uri = format!("http://127.0.0.1:8911{}{query}", wire.path);
    let headers = wire.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap()));
    let request = SignableRequest::new(&wire.method, uri, headers, SignableBody::Bytes(&wire.body)).unwrap();
    let (added, parameters) = sign(request, &params).unwrap().into_parts().0.into_parts();
    for header in added {
        wire.add(header.name(), header.value());
    }
    for (name, value) in parameters {
        let value = utf8_percent_encode(&value, NON_ALPHANUMERIC);
        let before = wire.query.take().filter(|query| !query.is_empty());
        let before = before.map(|query| query + "&").unwrap_or_default();
        wire.query = Some(format!("{before}{name}={value}"));
    }
    wire
}

fn hello() -> Wire {
    Wire::post(PATH, &[("host", "127.0.0.1:8911"), ("x-note", "two  words")], "hello")
}

fn recorded(path: &str, headers: &[(&str, &str)], signed_headers: &str, signature: &str) -> Wire {
    let mut wire = Wire::post(path, headers, "hello");
    wire.add(
        "authorization",
        &format!(
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261121/us-east-1/execute-api/aws4_request, \
             SignedHeaders={signed_headers}, Signature={signature}"
        ),
    );
    wire
}

fn boto3() -> Wire {
    recorded(
        PATH,
        &[("host", "127.0.0.1:8911"), ("x-amz-date", "20261121T003945Z"), ("x-amz-security-token", "tok")],
        "host;x-amz-date;x-amz-security-token",
        "b973f2ecdabe1275af05cb16d5733bc2f13619b4374f0af3e67235c0eb0d57a6",
    )
}

fn javascript(path: &str, invocation: &str, signature: &str) -> Wire {
    recorded(
        path,
        &[
            ("amz-sdk-invocation-id", invocation),
            ("amz-sdk-request", "attempt=1; max=1"),
            ("content-length", "5"),
            ("content-type", "application/octet-stream"),
            ("host", "127.0.0.1:8912"),
            ("x-amz-content-sha256", "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"),
            ("x-amz-date", "20261121T003947Z"),
            ("x-amz-security-token", "tok"),
            ("x-amz-user-agent", "aws-sdk-js/3.1168.0"),
        ],
        "amz-sdk-invocation-id;amz-sdk-request;content-length;content-type;host;\
         x-amz-content-sha256;x-amz-date;x-amz-security-token;x-amz-user-agent",
        signature,
    )
}

#[test]
fn recorded_requests_of_both_sdks_verify() {
    let check = |wire: &Wire| {
        for session_token in [None, Some("tok")] {
            let keys = one_key(session_token);
            // Twice, so that the second goes by the remembered key.
            wire.ask(&keys, signed_at()).unwrap();
            wire.ask(&keys, signed_at()).unwrap();
            assert_eq!(keys.signing_keys.count(), 1);
        }
        assert!(matches!(wire.ask(&one_key(Some("other")), signed_at()), Err(Error::SessionToken)));
        let mut other = wire.clone();
        other.body = b"hallo".to_vec();
        assert!(other.ask(&one_key(None), signed_at()).is_err());
    };
    check(&boto3());
    check(&javascript(
        PATH,
        "62b10a55-0125-45ac-8719-b8fa70b877ca",
        "d7ee130853906aa7383d57974aa75626af32f04c903b4499cfc3369b58a86d23",
    ));
    check(&javascript(
        "/prod//@connections/R0oXAdfD0kwCH6w%3D",
        "402f8074-150a-4d88-84bc-836a2d04db0e",
        "5e35af1abe82cf85604936abd9a759ad333a0756b3cc14f653bdf08c12194b46",
    ));
}

#[test]
fn clocks_may_differ_by_five_minutes() {
    let (skew, instant) = (Duration::from_secs(300), Duration::from_nanos(1));
    let keys = one_key(None);
    let header = signed(hello(), None, None);
    assert!(header.ask(&keys, signed_at() + skew).is_ok());
    assert!(header.ask(&keys, signed_at() - skew).is_ok());
    let late = header.ask(&keys, signed_at() + skew + instant);
    assert!(matches!(late, Err(Error::Expired { .. })), "{late:?}");
    let early = header.ask(&keys, signed_at() - skew - instant);
    assert!(matches!(early, Err(Error::NotYet { .. })), "{early:?}");
}

#[test]
fn presigned_urls_live_as_long_as_they_say() {
    let keys = one_key(None);
    let instant = Duration::from_nanos(1);
    for seconds in [1, 60, 604_800] {
        let wire = signed(hello(), None, Some(seconds));
        let end = signed_at() + Duration::from_secs(seconds);
        assert!(wire.ask(&keys, signed_at()).is_ok());
        assert!(wire.ask(&keys, end).is_ok());
        assert!(matches!(wire.ask(&keys, end + instant), Err(Error::Expired { .. })));
        let earliest = signed_at() - Duration::from_secs(300);
        assert!(wire.ask(&keys, earliest).is_ok());
        assert!(matches!(wire.ask(&keys, earliest - instant), Err(Error::NotYet { .. })));
    }
    for seconds in [0, 604_801] {
        let outcome = signed(hello(), None, Some(seconds)).ask(&keys, signed_at());
        assert!(matches!(outcome, Err(Error::Incomplete(_))), "{outcome:?}");
    }
}

#[test]
fn session_tokens_have_to_be_the_credentials_own() {
    for form in [None, Some(60)] {
        let ask = |sent: Option<&str>, own| signed(hello(), sent, form).ask(&one_key(own), signed_at());
        assert!(ask(None, None).is_ok());
        assert!(ask(Some("token+/="), Some("token+/=")).is_ok());
        assert!(ask(Some("token"), None).is_ok());
        assert!(matches!(ask(None, Some("token")), Err(Error::SessionToken)));
        assert!(matches!(ask(Some("token"), Some("tokem")), Err(Error::SessionToken)));
        assert!(matches!(ask(Some("token"), Some("token2")), Err(Error::SessionToken)));
    }
}

#[test]
fn a_date_header_will_do() {
    // No SDK signs so any more; the string to sign has the basic form whatever the header's spelling.
    let keys = one_key(None);
    for date in ["Sat, 21 Nov 2026 00:39:45 GMT", "20261121T003945Z"] {
        let mut wire = Wire::post(PATH, &[("host", "h"), ("date", date)], "");
        let ask = |wire: &Wire| match wire.ask(&keys, signed_at()) {
            Err(Error::Mismatch(mismatch)) => Some(mismatch.string_to_sign),
            _ => None,
        };
        wire.set(
            "authorization",
            &format!(
                "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261121/r/execute-api/aws4_request,\
                 SignedHeaders=date;host,Signature={}",
                "0".repeat(64)
            ),
        );
        let string_to_sign = ask(&wire).unwrap();
        assert!(string_to_sign.starts_with("AWS4-HMAC-SHA256\n20261121T003945Z\n20261121/r/"));
        let key = signing_keys::derive("secret", "20261121", "r");
        let signature = hex(hmac::sign(&key, string_to_sign.as_bytes()).as_ref());
        let header = wire.headers["authorization"].to_str().unwrap();
        let header = header.replace(&"0".repeat(64), &signature);
        wire.set("authorization", &header);
        assert!(wire.ask(&keys, signed_at()).is_ok());
    }
}

#[test]
fn what_is_wrong_is_named() {
    let check = |change: fn(&mut Wire), outcome: &str| {
        let mut wire = boto3();
        change(&mut wire);
        let keys = one_key(None);
        let error = wire.ask(&keys, signed_at()).unwrap_err();
        assert_eq!(error.to_string(), outcome);
        assert_eq!(keys.signing_keys.count(), 0, "only good signatures leave a key behind");
    };
    /// Replaces a part of the Authorization header.
    fn edit(wire: &mut Wire, from: &str, to: &str) {
        let header = wire.headers["authorization"].to_str().unwrap();
        assert!(header.contains(from));
        let header = header.replace(from, to);
        wire.set("authorization", &header);
    }
    fn without(wire: &mut Wire, name: &str) {
        wire.headers.remove(name);
    }
    check(
        |wire| without(wire, "authorization"),
        "no signature; sign the request with SigV4 for the service `execute-api`",
    );
    check(
        |wire| wire.add("authorization", "Bearer x"),
        "the signature cannot be read: there is more than one Authorization header",
    );
    check(
        |wire| wire.query = Some("X-Amz-Signature=1".to_owned()),
        "the signature cannot be read: there is an Authorization header and a presigned query; send one of them",
    );
    check(
        |wire| wire.set("authorization", "Bearer x"),
        "the signature cannot be read: the Authorization header begins with `AWS4-HMAC-SHA256` and a space",
    );
    check(
        |wire| edit(wire, "Signature=", "Signature=x, Signature="),
        "the signature cannot be read: the Authorization header names something twice",
    );
    check(|wire| without(wire, "x-amz-date"), "the signature cannot be read: there is no X-Amz-Date header");
    check(
        |wire| wire.add("x-amz-date", "20261121T003945Z"),
        "the signature cannot be read: there is more than one X-Amz-Date header",
    );
    check(
        |wire| edit(wire, "20261121/", "20261120/"),
        "the credential is of `20261120` but the request was signed at 2026-11-21T00:39:45Z",
    );
    check(
        |wire| edit(wire, "20261121/", "202611/"),
        "the credential is of `202611` but the request was signed at 2026-11-21T00:39:45Z",
    );
    check(|wire| edit(wire, "/execute-api/", "/s3/"), "the credential is for the service `s3`; sign for `execute-api`");
    check(
        |wire| edit(wire, "aws4_request", "aws3_request"),
        "the credential ends in `aws3_request`; it should end in `aws4_request`",
    );
    check(
        |wire| edit(wire, "/us-east-1/", "//"),
        "the signature cannot be read: a part of the credential is empty or has characters that none has",
    );
    check(|wire| edit(wire, "AKID", "KID"), "no credential has the access key id `KIDEXAMPLE`");
    check(|wire| edit(wire, "=host;", "="), "`host` is not in SignedHeaders");
    let names =
        "the signature cannot be read: SignedHeaders are lower-case names, sorted, each once, with `;` between them";
    check(|wire| edit(wire, "=host;", "=Host;"), names);
    check(|wire| edit(wire, "=host;", "=host;host;"), names);
    check(|wire| edit(wire, "=host;", "=x-b;host;"), names);
    check(
        |wire| edit(wire, "=host;", "=host;x-absent;"),
        "header `x-absent` is in SignedHeaders but not in the request",
    );
    check(
        |wire| without(wire, "x-amz-security-token"),
        "header `x-amz-security-token` is in SignedHeaders but not in the request",
    );
    let payload = "`x-amz-content-sha256` is not the SHA-256 of the body; unsigned and streamed payloads are refused";
    check(|wire| wire.set("x-amz-content-sha256", "UNSIGNED-PAYLOAD"), payload);
    check(|wire| wire.set("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"), payload);
    let mismatch = "the signature is not the one this request and this secret give";
    check(|wire| edit(wire, "Signature=b973", "Signature=B973"), mismatch);
    check(|wire| edit(wire, "57a6", "57a"), mismatch);
    check(|wire| edit(wire, "/us-east-1/", "/us-east-2/"), mismatch);
    check(|wire| wire.method = "DELETE".to_owned(), mismatch);
}

#[test]
fn what_is_wrong_with_a_presigned_url_is_named() {
    let check = |from: &str, to: &str, outcome: &str| {
        let mut wire = signed(hello(), None, Some(60));
        let query = wire.query.unwrap();
        assert!(query.contains(from), "{query}");
        wire.query = Some(query.replacen(from, to, 1));
        let error = wire.ask(&one_key(None), signed_at()).unwrap_err();
        assert_eq!(error.to_string(), format!("the signature cannot be read: {outcome}"));
    };
    check("X-Amz-Algorithm=AWS4", "X-Amz-Algorithm=AWS5", "X-Amz-Algorithm is `AWS4-HMAC-SHA256`");
    check("X-Amz-Date=", "X-Amz-Dat=", "X-Amz-Date stands in the query once");
    check("X-Amz-Date=", "X-Amz-Date=1&X-Amz-Date=", "X-Amz-Date stands in the query once");
    check("T003945Z", "T003945", "X-Amz-Date is written like `20261121T003945Z`");
    check("X-Amz-Expires=60", "X-Amz-Expires=", "X-Amz-Expires stands in the query once");
    check("X-Amz-Expires=60", "X-Amz-Expires=1h", "X-Amz-Expires is whole seconds from 1 to 604800");
    check("X-Amz-Credential=", "X-Amz-Credential=%ff", "X-Amz-Credential stands in the query once");
    check(
        "X-Amz-SignedHeaders=host",
        "X-Amz-SignedHeaders=a%0Ab%3Bhost",
        "SignedHeaders are lower-case names, sorted, each once, with `;` between them",
    );
    check("X-Amz-SignedHeaders=", "x=", "X-Amz-SignedHeaders stands in the query once");
    check("X-Amz-Signature=", "X-Amz-Signature=&X-Amz-Signature=", "X-Amz-Signature stands in the query once");
}

#[test]
fn headers_that_were_not_signed_may_come_and_go() {
    let mut wire = signed(hello(), None, None);
    wire.add("user-agent", "proxied");
    wire.add("x-forwarded-for", "203.0.113.24");
    assert!(wire.ask(&one_key(None), signed_at()).is_ok());
}

#[test]
fn hostile_lengths_are_cut_short() {
    let check = |change: fn(&mut Wire), outcome: &str| {
        let mut wire = boto3();
        change(&mut wire);
        let error = wire.ask(&one_key(None), signed_at()).unwrap_err();
        assert_eq!(error.to_string(), outcome);
    };
    fn sign_all(wire: &mut Wire, names: &[String]) {
        let header = wire.headers["authorization"].to_str().unwrap();
        let header = header.replace("=host;", &format!("={};host;", names.join(";")));
        wire.set("authorization", &header);
    }
    check(
        |wire| wire.set("authorization", &"x".repeat(4097)),
        "the length of the Authorization header exceeds what is looked at (4096)",
    );
    check(|wire| wire.path = "/".repeat(4097), "the length of the path exceeds what is looked at (4096)");
    check(|wire| wire.query = Some("a".repeat(4097)), "the length of the query exceeds what is looked at (4096)");
    check(|wire| wire.query = Some("a&".repeat(129)), "the number of query parameters exceeds what is looked at (128)");
    check(
        |wire| sign_all(wire, &(0..64).map(|n| format!("a{n:02}")).collect::<Vec<_>>()),
        "the number of signed headers exceeds what is looked at (64)",
    );
    check(
        |wire| {
            wire.add("a", &"x".repeat(16 * 1024));
            sign_all(wire, &["a".to_owned()]);
        },
        "the length of the signed headers exceeds what is looked at (16384)",
    );
}

#[test]
fn a_mismatch_prints_nothing_of_the_request() {
    let mut wire = boto3();
    wire.body.push(b'!');
    let error = wire.ask(&one_key(None), signed_at()).unwrap_err();
    assert_eq!(format!("{error:?}"), "Mismatch(Mismatch { .. })");
}
