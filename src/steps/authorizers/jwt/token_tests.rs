//! Tokens against the order in which they are asked.

#[path = "attack_tests.rs"]
mod attacks;

use proptest::prelude::*;
use serde_json::json;

use super::super::samples::{self, EC, EC_384, ED, HMAC, NOW, OTHER_RSA, RSA, SigningKey, claims, encode, jwks};
use super::*;

fn rules() -> Rules {
    Rules {
        issuer: Some("https://id.example.com".to_owned()),
        audience: vec!["shop".to_owned(), "pets".to_owned()],
        ..Rules::default()
    }
}

/// One of each kind; `rsa`, `ec`, `ec-384` and `ed` are their names.
fn keys() -> KeySet {
    let named = |key: &SigningKey, kid: &str| key.jwk(json!({"kid": kid}));
    let keys = [named(&RSA, "rsa"), named(&EC, "ec"), named(&EC_384, "ec-384"), named(&ED, "ed")];
    KeySet::from_text(&jwks(&keys)).unwrap()
}

fn secret() -> KeySet {
    KeySet::from_secret(samples::SECRET).unwrap()
}

fn outcome(token: &str, keys: &KeySet) -> Result<(), Invalid> {
    verify(token, keys, &rules(), NOW).map(drop)
}

#[test]
fn tokens_of_every_algorithm_are_verified() {
    let check = |key: &SigningKey, keys: &KeySet, algorithm: &str| {
        let token = key.token(json!({"alg": algorithm, "typ": "JWT"}), claims(json!({})));
        let verified = verify(&token, keys, &rules(), NOW).unwrap();
        assert_eq!(verified.issuer(), Some("https://id.example.com"));
        assert_eq!(verified.subject(), Some("u1"));
        assert_eq!(verified.expires_at, NOW + 60.0);
        assert_eq!(verified.claims.len(), 4);
    };
    for algorithm in ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"] {
        check(&RSA, &keys(), algorithm);
    }
    for algorithm in ["HS256", "HS384", "HS512"] {
        check(&HMAC, &secret(), algorithm);
    }
    check(&EC, &keys(), "ES256");
    check(&EC_384, &keys(), "ES384");
    check(&ED, &keys(), "EdDSA");
    check(&ED, &keys(), "Ed25519");
}

#[test]
fn a_token_is_three_segments_that_can_be_decoded() {
    let check = |token: &str, wanted: Invalid| assert_eq!(outcome(token, &keys()), Err(wanted), "{token}");
    let good = RSA.token(json!({"alg": "RS256"}), claims(json!({})));
    let [header, payload, signature] = *good.split('.').collect::<Vec<_>>() else { panic!("{good}") };
    assert_eq!(outcome(&good, &keys()), Ok(()));
    check("", Invalid::Segments);
    check("a", Invalid::Segments);
    check("a.b", Invalid::Segments);
    check(&format!("{header}.{payload}"), Invalid::Segments);
    check(&format!("{good}."), Invalid::Segments);
    check(&format!(".{good}"), Invalid::Segments);
    check(&format!("{good}.a.b"), Invalid::Segments);
    check("..", Invalid::Header);
    check(&format!(".{payload}.{signature}"), Invalid::Header);
    check(&format!("{header}..{signature}"), Invalid::Signature);
    check(&format!("{header}.{payload}."), Invalid::Signature);
    check(&format!("{header}=.{payload}.{signature}"), Invalid::Header);
    check(&format!(" {good}"), Invalid::Header);
    check(&format!("{header}.{payload}.{signature}="), Invalid::Signature);
    check(&format!("{header}.{payload}.{signature} "), Invalid::Signature);
    check(&format!("{header}.{payload}.{signature}\n"), Invalid::Signature);
    check(&format!("{header}.{payload}=.{signature}"), Invalid::Signature);
    check(&format!("{header}.{payload}.{}", &signature[..signature.len() - 4]), Invalid::Signature);
    check(&format!("{header}.{payload}.{signature}AAAA"), Invalid::Signature);
    check(&format!("ä.{payload}.{signature}"), Invalid::Header);
}

#[test]
fn the_alphabet_is_that_of_urls() {
    // Claims that need both of the letters in which the alphabets differ.
    let token = HMAC.token(json!({"alg": "HS256"}), claims(json!({"a": "???>>>~~~", "b": "~~~>>>???"})));
    assert_eq!(outcome(&token, &secret()), Ok(()));
    assert!(token.contains('-') || token.contains('_'), "{token}");
    let other = token.replace('-', "+").replace('_', "/");
    assert_eq!(outcome(&other, &secret()), Err(Invalid::Signature));
    // Signed as it stands, so that it is the alphabet alone which is wrong.
    let header = encode(r#"{"alg":"HS256"}"#);
    let payload = token.split('.').nth(1).unwrap().replace('-', "+").replace('_', "/");
    let message = format!("{header}.{payload}");
    let signed = format!("{message}.{}", encode(HMAC.sign("HS256", message.as_bytes())));
    assert_eq!(outcome(&signed, &secret()), Err(Invalid::Payload));
}

#[test]
fn long_tokens_are_not_looked_at() {
    let token = |length: usize| {
        let token = |filling: usize| HMAC.token(json!({"alg": "HS256"}), claims(json!({"a": "x".repeat(filling)})));
        let rest = length - token(0).len();
        (rest * 3 / 4 - 2..).map(token).find(|token| token.len() >= length).unwrap()
    };
    let longest = token(limits::TOKEN);
    assert_eq!((longest.len(), outcome(&longest, &secret())), (limits::TOKEN, Ok(())));
    let longer = token(limits::TOKEN + 1);
    assert_eq!((longer.len(), outcome(&longer, &secret())), (limits::TOKEN + 1, Err(Invalid::TooLong)));
    assert_eq!(outcome(&".".repeat(limits::TOKEN + 1), &secret()), Err(Invalid::TooLong));
    assert_eq!(outcome(&".".repeat(limits::TOKEN), &secret()), Err(Invalid::Segments));
}

#[test]
fn headers_are_json_objects_with_an_algorithm() {
    let check = |header: &str, wanted: Result<(), Invalid>| {
        let token = RSA.sign_parts("RS256", header, claims(json!({})).to_string());
        assert_eq!(outcome(&token, &keys()), wanted, "{header}");
    };
    check(r#"{"alg":"RS256"}"#, Ok(()));
    check(r#" { "alg" : "RS256" } "#, Ok(()));
    check(r#"{"alg":"RS256","typ":"at+jwt","cty":1,"b64":false}"#, Ok(()));
    check("", Err(Invalid::Header));
    check("RS256", Err(Invalid::Header));
    check("[]", Err(Invalid::Header));
    check("null", Err(Invalid::Header));
    check("{}", Err(Invalid::Header));
    check(r#"{"alg":null}"#, Err(Invalid::Header));
    check(r#"{"alg":["RS256"]}"#, Err(Invalid::Header));
    check(r#"{"ALG":"RS256"}"#, Err(Invalid::Header));
    check(r#"{"alg":"RS256"} {}"#, Err(Invalid::Header));
    check("\u{feff}{\"alg\":\"RS256\"}", Err(Invalid::Header));
    check(r#"{"alg":"RS256","kid":"rsa"}"#, Ok(()));
    check(r#"{"alg":"RS256","kid":null}"#, Err(Invalid::Header));
    check(r#"{"alg":"RS256","kid":1}"#, Err(Invalid::Header));
    check(r#"{"alg":"RS256","kid":""}"#, Err(Invalid::UnknownKid));
    check(r#"{"alg":"RS256","kid":"../../dev/null"}"#, Err(Invalid::UnknownKid));
    check(r#"{"alg":"RS256","kid":"' OR 1=1 --"}"#, Err(Invalid::UnknownKid));
    check(r#"{"alg":"RS256","crit":["exp"]}"#, Err(Invalid::Critical));
    check(r#"{"alg":"RS256","crit":["b64"],"b64":false}"#, Err(Invalid::Critical));
    check(r#"{"alg":"RS256","crit":[]}"#, Err(Invalid::Critical));
    check(r#"{"alg":"RS256","crit":null}"#, Err(Invalid::Critical));
    let deep = format!(r#"{{"alg":"RS256","a":{}{}}}"#, "[".repeat(5000), "]".repeat(5000));
    check(&deep, Err(Invalid::Header));
}

/// What a well signed token with these claims (see `samples::claims`) comes to.
fn check_claims(changed: Value, wanted: Result<(), Invalid>) {
    let token = HMAC.token(json!({"alg": "HS256"}), claims(changed.clone()));
    assert_eq!(outcome(&token, &secret()), wanted, "{changed}");
}

#[test]
fn the_issuer_matches_exactly() {
    check_claims(json!({}), Ok(()));
    for issuer in [
        json!("https://id.example.com/"),
        json!("https://id.example.co"),
        json!("https://id.example.com.evil.example"),
        json!("https://ID.example.com"),
        json!("http://id.example.com"),
        json!(" https://id.example.com"),
        json!("https://id.example.com\u{0}"),
        json!(""),
        json!(["https://id.example.com"]),
        json!({"iss": "https://id.example.com"}),
        json!(1),
        json!(null),
    ] {
        check_claims(json!({ "iss": issuer }), Err(Invalid::Issuer));
    }
    let token = HMAC.token(json!({"alg": "HS256"}), claims(json!({"iss": null, "aud": null})));
    assert!(verify(&token, &secret(), &Rules::default(), NOW).is_ok(), "without rules nobody asks");
}

#[test]
fn the_audience_is_one_of_ours() {
    check_claims(json!({"aud": "shop"}), Ok(()));
    check_claims(json!({"aud": ["other", "pets"]}), Ok(()));
    check_claims(json!({"aud": [1, null, "pets"]}), Ok(()));
    check_claims(json!({"aud": null, "client_id": "pets"}), Ok(()));
    check_claims(json!({"aud": "pets", "client_id": "other"}), Ok(()));
    let wrong = Err(Invalid::Audience);
    check_claims(json!({"aud": null}), wrong);
    check_claims(json!({"aud": "pet"}), wrong);
    check_claims(json!({"aud": "pets "}), wrong);
    check_claims(json!({"aud": "PETS"}), wrong);
    check_claims(json!({"aud": "shop pets"}), wrong);
    check_claims(json!({"aud": []}), wrong);
    check_claims(json!({"aud": ["other"]}), wrong);
    check_claims(json!({"aud": [["pets"]]}), wrong);
    check_claims(json!({"aud": {"pets": true}}), wrong);
    check_claims(json!({"aud": 1}), wrong);
    check_claims(json!({"aud": "other", "client_id": "pets"}), wrong);
    check_claims(json!({"aud": [], "client_id": "pets"}), wrong);
    check_claims(json!({"aud": null, "client_id": ["pets"]}), wrong);
    check_claims(json!({"aud": null, "client_id": "other"}), wrong);
    check_claims(json!({"aud": null, "azp": "pets"}), wrong);
    let null = HMAC.sign_parts(
        "HS256",
        r#"{"alg":"HS256"}"#,
        r#"{"iss":"https://id.example.com","aud":null,"client_id":"pets"}"#,
    );
    assert_eq!(outcome(&null, &secret()), wrong, "an `aud` that says nobody is there all the same");
}

#[test]
fn a_token_is_good_for_its_time() {
    check_claims(json!({"exp": NOW + 1.0}), Ok(()));
    check_claims(json!({"exp": NOW + 0.5}), Ok(()));
    check_claims(json!({"exp": NOW}), Err(Invalid::Expired));
    check_claims(json!({"exp": NOW - 1.0}), Err(Invalid::Expired));
    check_claims(json!({"exp": NOW as u64 + 1}), Ok(()));
    check_claims(json!({"exp": NOW as u64 - 1}), Err(Invalid::Expired));
    check_claims(json!({"exp": 0}), Err(Invalid::Expired));
    check_claims(json!({"exp": -1}), Err(Invalid::Expired));
    check_claims(json!({"exp": i64::MIN}), Err(Invalid::Expired));
    check_claims(json!({"exp": u64::MAX}), Ok(()));
    check_claims(json!({"exp": 1e300}), Ok(()));
    check_claims(json!({"exp": -1e300}), Err(Invalid::Expired));
    check_claims(json!({"exp": null}), Err(Invalid::NoExpiry));
    for exp in [json!("1800000060"), json!(true), json!([1_800_000_060]), json!({})] {
        check_claims(json!({ "exp": exp }), Err(Invalid::Time));
    }
    check_claims(json!({"nbf": NOW}), Ok(()));
    check_claims(json!({"nbf": NOW - 1e6}), Ok(()));
    check_claims(json!({"nbf": NOW + 0.5}), Err(Invalid::NotYet));
    check_claims(json!({"nbf": NOW + 1.0}), Err(Invalid::NotYet));
    check_claims(json!({"nbf": 1e300}), Err(Invalid::NotYet));
    check_claims(json!({"nbf": "0"}), Err(Invalid::Time));
    check_claims(json!({"iat": NOW}), Ok(()));
    check_claims(json!({"iat": -1}), Ok(()));
    check_claims(json!({"iat": NOW + 1.0}), Err(Invalid::IssuedInFuture));
    check_claims(json!({"iat": "0"}), Err(Invalid::Time));
}

#[test]
fn clocks_may_differ_by_the_leeway() {
    let check = |changed: Value, leeway: Duration, wanted: Result<(), Invalid>| {
        let token = HMAC.token(json!({"alg": "HS256"}), claims(changed.clone()));
        assert_eq!(verify(&token, &secret(), &Rules { leeway, ..rules() }, NOW).map(drop), wanted, "{changed}");
    };
    let half_a_minute = Duration::from_secs(30);
    check(json!({"exp": NOW - 29.0}), half_a_minute, Ok(()));
    check(json!({"exp": NOW - 30.0}), half_a_minute, Err(Invalid::Expired));
    check(json!({"nbf": NOW + 30.0}), half_a_minute, Ok(()));
    check(json!({"nbf": NOW + 31.0}), half_a_minute, Err(Invalid::NotYet));
    check(json!({"iat": NOW + 30.0}), half_a_minute, Ok(()));
    check(json!({"iat": NOW + 31.0}), half_a_minute, Err(Invalid::IssuedInFuture));
    check(json!({"exp": NOW}), Duration::from_millis(1), Ok(()));
    check(json!({"exp": -1e300, "nbf": 1e18}), Duration::MAX, Err(Invalid::Expired));
}

#[test]
fn payloads_are_json_objects() {
    let check = |payload: &str, wanted: Result<(), Invalid>| {
        let token = HMAC.sign_parts("HS256", r#"{"alg":"HS256"}"#, payload);
        let outcome = verify(&token, &secret(), &Rules::default(), NOW);
        assert_eq!(outcome.map(drop), wanted, "{payload}");
    };
    check(r#"{"exp":2e9}"#, Ok(()));
    for payload in
        ["", "null", "1", "\"a\"", "[]", r#"[{"exp":2e9}]"#, "{", r#"{"exp":2e9"#, r#"{"exp":2e9}x"#, "{'exp':1}"]
    {
        check(payload, Err(Invalid::Payload));
    }
    check(r#"{"exp":1e400}"#, Err(Invalid::Payload));
    check(r#"{"exp":NaN}"#, Err(Invalid::Payload));
    check(r#"{"exp":1,"exp":2e9}"#, Ok(()));
    check(r#"{"exp":2e9,"exp":1}"#, Err(Invalid::Expired));
    check("{}", Err(Invalid::NoExpiry));
    check(&format!(r#"{{"exp":2e9,"a":{}1{}}}"#, "[".repeat(4000), "]".repeat(4000)), Err(Invalid::Payload));
    let bytes = HMAC.sign_parts("HS256", r#"{"alg":"HS256"}"#, b"{\"exp\":2e9,\"a\":\"\xff\"}");
    assert_eq!(verify(&bytes, &secret(), &Rules::default(), NOW).unwrap_err(), Invalid::Payload);
}

#[test]
fn the_first_thing_wrong_is_said() {
    let all_wrong = claims(json!({"iss": "other", "aud": "other", "exp": 1, "nbf": 1e12, "iat": 1e12}));
    let mut wanted = vec![
        ("iss", json!("https://id.example.com"), Invalid::Issuer),
        ("aud", json!("pets"), Invalid::Audience),
        ("exp", json!(NOW + 1.0), Invalid::Expired),
        ("nbf", json!(1), Invalid::NotYet),
        ("iat", json!(1), Invalid::IssuedInFuture),
    ];
    let mut claims = all_wrong.clone();
    for (name, right, invalid) in wanted.drain(..) {
        assert_eq!(outcome(&HMAC.token(json!({"alg": "HS256"}), claims.clone()), &secret()), Err(invalid));
        claims[name] = right;
    }
    assert_eq!(outcome(&HMAC.token(json!({"alg": "HS256"}), claims), &secret()), Ok(()));
    let unsigned = OTHER_RSA.token(json!({"alg": "RS256", "kid": "rsa"}), all_wrong);
    assert_eq!(outcome(&unsigned, &keys()), Err(Invalid::Signature));
}

#[test]
fn nothing_of_a_token_is_printed() {
    let token = HMAC.token(json!({"alg": "HS256"}), claims(json!({"email": "hidden"})));
    let verified = verify(&token, &secret(), &rules(), NOW).unwrap();
    assert_eq!(format!("{verified:?}"), "Verified { expires_at: 1800000060.0, .. }");
}

/// The examples of RFC 7515 (appendix A) and RFC 8037 (appendix A), letter for letter.
#[test]
fn the_examples_of_the_specifications_verify() {
    const JOE: &str = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    let check = |jwk: Value, token: &str, wanted: Result<(), Invalid>| {
        let keys = KeySet::from_text(&jwk.to_string()).unwrap();
        let rules = Rules { issuer: Some("joe".to_owned()), ..Rules::default() };
        assert_eq!(verify(token, &keys, &rules, 1_300_819_379.0).map(drop), wanted, "{token}");
        if wanted.is_ok() {
            assert_eq!(verify(token, &keys, &rules, 1_300_819_380.0).unwrap_err(), Invalid::Expired);
        }
    };
    check(
        json!({"kty": "oct",
            "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"}),
        &format!("eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.{JOE}.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"),
        Ok(()),
    );
    check(
        json!({"kty": "RSA", "e": "AQAB",
            "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yR\
                  T-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXB\
                  dQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9ia\
                  GNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"}),
        &format!(
            "eyJhbGciOiJSUzI1NiJ9.{JOE}.\
             cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9\
             uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB\
             _eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rq\
             Vt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw"
        ),
        Ok(()),
    );
    check(
        json!({"kty": "EC", "crv": "P-256",
            "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}),
        &format!(
            "eyJhbGciOiJFUzI1NiJ9.{JOE}.\
             DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
        ),
        Ok(()),
    );
    // Its payload is a sentence: only who found the signature right gets to see that.
    check(
        json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}),
        "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.\
         hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
        Err(Invalid::Payload),
    );
    // RFC 7519, 6.1: a token that says itself that nobody signed it.
    check(
        json!({"kty": "oct", "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ"}),
        &format!("eyJhbGciOiJub25lIn0.{JOE}."),
        Err(Invalid::Algorithm),
    );
}

fn with_bit_flipped(token: &str, bit: usize) -> Option<String> {
    let mut bytes = token.as_bytes().to_vec();
    bytes[bit / 8] ^= 1 << (bit % 8);
    String::from_utf8(bytes).ok()
}

#[test]
fn every_bit_of_a_token_counts() {
    let token = HMAC.token(json!({"alg": "HS256"}), claims(json!({})));
    for flipped in (0..token.len() * 8).filter_map(|bit| with_bit_flipped(&token, bit)) {
        assert!(outcome(&flipped, &secret()).is_err(), "{flipped}");
    }
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[ -~]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z]{1,3}", inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_bit_of_any_signature_counts(kind in 0usize..4, bit in 0usize..100_000) {
        let (key, algorithm): (&SigningKey, _) = match kind {
            0 => (&RSA, "RS256"),
            1 => (&RSA, "PS512"),
            2 => (&EC, "ES256"),
            _ => (&ED, "EdDSA"),
        };
        let token = key.token(json!({"alg": algorithm}), claims(json!({})));
        if let Some(flipped) = with_bit_flipped(&token, bit % (token.len() * 8)) {
            prop_assert!(outcome(&flipped, &keys()).is_err());
        }
    }

    #[test]
    fn no_text_is_a_token_by_chance(
        text in "\\PC{0,200}",
        segments in "[A-Za-z0-9_-]{0,40}\\.[A-Za-z0-9_-]{0,40}\\.[A-Za-z0-9_-]{0,90}",
    ) {
        for text in [text, segments] {
            prop_assert!(outcome(&text, &keys()).is_err());
            prop_assert!(outcome(&text, &secret()).is_err());
        }
    }

    /// Bytes of any kind in the header, and in a payload that is well signed.
    #[test]
    fn no_bytes_are_a_token_by_chance(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        let good = claims(json!({})).to_string();
        let tokens = [(&bytes[..], good.as_bytes()), (br#"{"alg":"HS256"}"#, &bytes)];
        for (header, payload) in tokens {
            prop_assert!(outcome(&HMAC.sign_parts("HS256", header, payload), &secret()).is_err());
        }
        let _ = KeySet::from_issuer(&bytes);
        let _ = KeySet::from_text(&String::from_utf8_lossy(&bytes));
        let _ = KeySet::from_text(&samples::pem("PUBLIC KEY", &bytes));
        let _ = KeySet::from_text(&samples::pem("CERTIFICATE", &bytes));
    }

    /// Claims and members of any kind do no harm; whether a token is good is said by the four that count.
    #[test]
    fn values_of_any_kind_are_taken_or_refused(
        name in prop::sample::select(vec!["alg", "kid", "crit", "jwk", "iss", "aud", "exp", "nbf", "iat", "scope"]),
        value in json_value(),
    ) {
        let mut header = json!({"alg": "HS256"});
        header[name] = value.clone();
        let _ = outcome(&HMAC.sign_parts("HS256", header.to_string(), claims(json!({})).to_string()), &secret());
        let mut said = claims(json!({}));
        said[name] = value.clone();
        let outcome = outcome(&HMAC.sign_parts("HS256", r#"{"alg":"HS256"}"#, said.to_string()), &secret());
        if !["iss", "aud", "exp", "nbf", "iat"].contains(&name) {
            prop_assert_eq!(outcome, Ok(()));
        }
        let Value::Object(said) = said else { unreachable!("claims are an object") };
        super::super::claims::scopes_granted(&said);
        let mut jwk = RSA.jwk(json!({}));
        jwk[name] = value;
        let _ = KeySet::from_issuer(jwks(&[jwk]).as_bytes());
    }

    /// The rule for times once more, in whole numbers.
    #[test]
    fn times_are_compared_as_whole_numbers_would_be(
        (exp, nbf, iat) in (-100i64..100, prop::option::of(-100i64..100), prop::option::of(-100i64..100)),
        leeway in 0u64..60,
    ) {
        let now = NOW as i64;
        let said = claims(json!({"exp": now + exp, "nbf": nbf.map(|nbf| now + nbf), "iat": iat.map(|iat| now + iat)}));
        let rules = Rules { leeway: Duration::from_secs(leeway), ..rules() };
        let token = HMAC.token(json!({"alg": "HS256"}), said);
        let leeway = leeway as i64;
        let is_good = exp > -leeway && nbf.is_none_or(|nbf| nbf <= leeway) && iat.is_none_or(|iat| iat <= leeway);
        prop_assert_eq!(verify(&token, &secret(), &rules, NOW).is_ok(), is_good);
    }
}
