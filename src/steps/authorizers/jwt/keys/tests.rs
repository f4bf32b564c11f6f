//! Keys from every text that may hold one, and from those that may not.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use super::super::samples::{self, EC, EC_384, ED, HMAC as SECRET_KEY, OTHER_RSA, RSA as RSA_KEY, encode, jwks, pem};
use super::*;

/// The names of the algorithms that each key may be used with, `None` where there are no keys.
fn algorithms(keys: &Result<KeySet, Error>) -> Option<Vec<String>> {
    let names =
        |key: &Key| key.algorithms.iter().map(|algorithm| format!("{algorithm:?}")).collect::<Vec<_>>().join(" ");
    keys.as_ref().ok().map(|set| set.keys.iter().map(names).collect())
}

fn check(keys: Result<KeySet, Error>, wanted: &[&str]) {
    let found = algorithms(&keys);
    let found: Option<Vec<&str>> = found.as_ref().map(|keys| keys.iter().map(String::as_str).collect());
    assert_eq!(found.as_deref(), Some(wanted), "{keys:?}");
}

const ALL_RSA: &str = "RS256 RS384 RS512 PS256 PS384 PS512";
const ALL_HMAC: &str = "HS256 HS384 HS512";

#[test]
fn algorithms_follow_from_the_kind_of_a_key() {
    let text = |text: String| KeySet::from_text(&text);
    check(text(RSA_KEY.pem()), &[ALL_RSA]);
    check(text(RSA_KEY.pkcs_1_pem()), &[ALL_RSA]);
    check(text(EC.pem()), &["ES256"]);
    check(text(EC_384.pem()), &["ES384"]);
    check(text(ED.pem()), &["EdDSA"]);
    check(text(format!("our key:\n{}\nand that was it\n", EC.pem())), &["ES256"]);
    check(text(EC.pem().replace('\n', "\r\n")), &["ES256"]);
    check(text(RSA_KEY.jwk(json!({})).to_string()), &[ALL_RSA]);
    check(text(format!(" \n{}", EC.jwk(json!({})))), &["ES256"]);
    check(text(EC_384.jwk(json!({})).to_string()), &["ES384"]);
    check(text(ED.jwk(json!({})).to_string()), &["EdDSA"]);
    check(text(SECRET_KEY.jwk(json!({})).to_string()), &[ALL_HMAC]);
    check(KeySet::from_secret(samples::SECRET), &[ALL_HMAC]);
    check(text(jwks(&[EC.jwk(json!({})), RSA_KEY.jwk(json!({})), ED.jwk(json!({}))])), &["ES256", ALL_RSA, "EdDSA"]);
}

#[test]
fn a_jwk_can_name_its_algorithm() {
    let jwk = |key: &samples::SigningKey, alg: &str| KeySet::from_text(&key.jwk(json!({"alg": alg})).to_string());
    check(jwk(&RSA_KEY, "PS384"), &["PS384"]);
    check(jwk(&EC, "ES256"), &["ES256"]);
    check(jwk(&ED, "EdDSA"), &["EdDSA"]);
    check(jwk(&ED, "Ed25519"), &["EdDSA"]);
    check(jwk(&SECRET_KEY, "HS512"), &["HS512"]);
    for (key, alg) in
        [(&RSA_KEY, "HS256"), (&RSA_KEY, "ES256"), (&EC, "ES384"), (&RSA_KEY, "RSA-OAEP"), (&RSA_KEY, "none")]
    {
        assert_eq!(jwk(key, alg).unwrap_err(), Error::Unsupported, "{alg}");
    }
}

#[test]
fn names_of_algorithms_are_exact() {
    assert_eq!(algorithm("RS256"), Some(Algorithm::RS256));
    assert_eq!(algorithm("EdDSA"), Some(Algorithm::EdDSA));
    assert_eq!(algorithm("Ed25519"), Some(Algorithm::EdDSA));
    for name in ["none", "None", "NONE", "nOnE", "", "rs256", "RS256 ", "ES512", "ES256K", "Ed448", "RSA-OAEP"] {
        assert_eq!(algorithm(name), None, "{name}");
    }
}

#[test]
fn keys_for_other_ends_are_passed_over() {
    let check = |members: Value, is_kept: bool| {
        let mut jwk = RSA_KEY.jwk(members.clone());
        jwk.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        let kept = [KeySet::from_text(&jwks(&[jwk.clone()])), KeySet::from_issuer(jwks(&[jwk]).as_bytes())];
        assert_eq!(kept.each_ref().map(Result::is_ok), [is_kept; 2], "{members}");
    };
    check(json!({"use": "sig"}), true);
    check(json!({"key_ops": ["verify"]}), true);
    check(json!({"use": "sig", "key_ops": ["sign", "verify"]}), true);
    check(json!({"use": "enc"}), false);
    check(json!({"use": 1}), false);
    check(json!({"use": "sig", "key_ops": ["encrypt"]}), false);
    check(json!({"key_ops": []}), false);
    check(json!({"key_ops": "verify"}), false);
    check(json!({"kty": "DSA"}), false);
    check(json!({"kty": null}), false);
    check(json!({"kty": "rsa"}), false);
}

#[test]
fn an_issuer_publishes_no_secrets_and_what_is_bad_of_it_takes_nothing_away() {
    let issuer = |keys: &[Value]| KeySet::from_issuer(jwks(keys).as_bytes());
    check(issuer(&[SECRET_KEY.jwk(json!({"kid": "a"})), EC.jwk(json!({}))]), &["ES256"]);
    assert_eq!(issuer(&[SECRET_KEY.jwk(json!({}))]).unwrap_err(), Error::NoKey);
    let bad = [
        json!(null),
        json!([]),
        json!({}),
        json!({"kty": "RSA"}),
        RSA_KEY.jwk(json!({"e": "AQ"})),
        RSA_KEY.jwk(json!({"kid": 1})),
        RSA_KEY.jwk(json!({"alg": 1})),
        EC.jwk(json!({"d": "AQ"})),
        EC.jwk(json!({"crv": "P-384"})),
        EC.jwk(json!({"crv": "secp256k1"})),
        json!({"kty": "OKP", "crv": "X25519", "x": encode([1; 32])}),
    ];
    for bad in bad {
        check(issuer(&[bad, ED.jwk(json!({}))]), &["EdDSA"]);
    }
    assert_eq!(KeySet::from_issuer(EC.jwk(json!({})).to_string().as_bytes()).unwrap_err(), Error::NoArray);
    assert_eq!(issuer(&[]).unwrap_err(), Error::NoKey);
}

#[test]
fn numbers_with_a_sign_byte_are_the_same_numbers() {
    let padded =
        |number: &Value| encode([&[0, 0][..], &URL_SAFE_NO_PAD.decode(number.as_str().unwrap()).unwrap()].concat());
    let jwk = RSA_KEY.jwk(json!({}));
    let signed = RSA_KEY.jwk(json!({"n": padded(&jwk["n"]), "e": padded(&jwk["e"])}));
    let keys = KeySet::from_text(&signed.to_string()).unwrap();
    let token = RSA_KEY.token(json!({"alg": "RS256"}), samples::claims(json!({})));
    assert!(super::super::verify(&token, &keys, &super::super::Rules::default(), samples::NOW).is_ok());
}

#[test]
fn what_is_wrong_with_a_text_is_said_without_showing_it() {
    let check =
        |text: &str, wanted: &str| assert_eq!(KeySet::from_text(text).unwrap_err().to_string(), wanted, "{text}");
    let no_key =
        "this is no key; give a PEM text (`-----BEGIN PUBLIC KEY-----` …), a JWK or a JWKS (`{\"keys\": […]}`)";
    check("", no_key);
    check("/etc/livegate/key.pem", no_key);
    check("[]", no_key);
    let no_pem = "the PEM text cannot be read; give one block, `PUBLIC KEY`, `RSA PUBLIC KEY` or `CERTIFICATE`";
    check("-----BEGIN PUBLIC KEY-----", no_pem);
    check("-----BEGIN PUBLIC KEY-----\n!\n-----END PUBLIC KEY-----\n", no_pem);
    check(&pem("PUBLIC KEY", b"no DER"), no_pem);
    check(&pem("CERTIFICATE", &[0x30, 0]), no_pem);
    check(&pem("SECRET", &[0x30, 0]), no_pem);
    check(&EC.pem().replace("PUBLIC KEY", "RSA PUBLIC KEY"), no_pem);
    check(
        &[EC.pem(), RSA_KEY.pem()].concat(),
        "the PEM text has more than one block; give one, or a JWKS in which each key has a `kid`",
    );
    let private = "this is a private key; give the public one, which is all that verifying takes";
    check(&pem("PRIVATE KEY", &[0x30, 0]), private);
    check(&pem("EC PRIVATE KEY", &[0x30, 0]), private);
    check(&pem("ENCRYPTED PRIVATE KEY", &[0x30, 0]), private);
    check(&[pem("EC PARAMETERS", &[0x30, 0]), pem("EC PRIVATE KEY", &[0x30, 0])].concat(), private);
    check(&jwks(&[EC.jwk(json!({})), RSA_KEY.jwk(json!({"d": "AQ"}))]), &format!("keys[1]: {private}"));
    check("{\"keys\": [hidden]}", "the JWKS is not valid JSON (line 1, column 11)");
    check(r#"{"keys": {}}"#, "the JWKS has no array `keys`");
    let none = "none of the keys can verify tokens; give an RSA, P-256, P-384 or Ed25519 key whose `use` is `sig`";
    check(r#"{"keys": []}"#, none);
    check(r#"{"kty": "RSA", "use": "enc"}"#, none);
    let unsupported = "the kind of the key is not supported; give an RSA, P-256, P-384 or Ed25519 key";
    check("{}", unsupported);
    check(&EC.jwk(json!({"crv": "P-521"})).to_string(), unsupported);
    let member =
        |jwk: Value, name: &str| check(&jwk.to_string(), &format!("`{name}` of the key is missing or cannot be read"));
    member(json!({"kty": "RSA"}), "n");
    member(RSA_KEY.jwk(json!({"e": 65537})), "e");
    member(EC.jwk(json!({"y": "a+b/"})), "y");
    member(EC.jwk(json!({"y": "AA=="})), "y");
    member(EC.jwk(json!({"kid": null})), "kid");
    let numbers = |jwk: Value| check(&jwk.to_string(), "the numbers of the key do not make a key");
    numbers(EC.jwk(json!({"y": encode([7; 32])})));
    numbers(EC.jwk(json!({"x": encode([7; 31])})));
    numbers(EC.jwk(json!({"crv": "P-384"})));
    numbers(ED.jwk(json!({"x": encode([7; 31])})));
    let wrapped = [&[0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0][..], &[7; 32]].concat();
    numbers(ED.jwk(json!({"x": encode(wrapped)})));
    for exponent in [[1].as_slice(), &[2], &[], &[0], &[1, 0, 0, 0, 0, 1, 1]] {
        numbers(RSA_KEY.jwk(json!({"e": encode(exponent)})));
    }
}

#[test]
fn weak_rsa_keys_are_no_keys() {
    let check = |bytes: usize, bits: usize| {
        let jwk = json!({"kty": "RSA", "n": encode(vec![0x55; bytes]), "e": "AQAB"});
        let error = format!("the RSA key has {bits} bits; give one of 2048 to 8192");
        assert_eq!(KeySet::from_text(&jwk.to_string()).unwrap_err().to_string(), error);
        assert_eq!(KeySet::from_issuer(jwks(&[jwk]).as_bytes()).unwrap_err(), Error::NoKey);
    };
    check(0, 0);
    check(64, 511);
    check(128, 1023);
    check(256, 2047);
    check(1025, 8199);
    let der = [&[0x30, 0x81, 0x89, 0x02, 0x81, 0x81, 0][..], &[0xff; 128], &[0x02, 0x03, 1, 0, 1]].concat();
    assert_eq!(KeySet::from_text(&pem("RSA PUBLIC KEY", &der)).unwrap_err(), Error::RsaBits(1024));
}

#[test]
fn points_of_other_curves_are_no_keys() {
    // secp256k1, whose points are as long as those of P-256: its generator.
    let point = "0479be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798\
                 483ada7726a3c4655da4fbfc0e1108a8fd17b448a68554199c47d08ffb10d4b8";
    let prefix = "3056301006072a8648ce3d020106052b8104000a034200";
    let der: Vec<u8> = format!("{prefix}{point}")
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect();
    assert_eq!(KeySet::from_text(&pem("PUBLIC KEY", &der)).unwrap_err(), Error::Numbers);
}

#[test]
fn the_key_of_a_certificate_counts_and_not_that_of_its_issuer() {
    let key = |algorithm| rcgen::KeyPair::generate_for(algorithm).unwrap();
    let parameters = || rcgen::CertificateParams::new(vec!["id.example.com".to_owned()]).unwrap();
    let check_all = |algorithm, wanted: &str| {
        let key = key(algorithm);
        check(KeySet::from_text(&parameters().self_signed(&key).unwrap().pem()), &[wanted]);
    };
    check_all(&rcgen::PKCS_ECDSA_P256_SHA256, "ES256");
    check_all(&rcgen::PKCS_ECDSA_P384_SHA384, "ES384");
    check_all(&rcgen::PKCS_ED25519, "EdDSA");
    check_all(&rcgen::PKCS_RSA_SHA256, ALL_RSA);
    let authority = rcgen::Issuer::new(parameters(), key(&rcgen::PKCS_ED25519));
    let certificate = parameters().signed_by(&key(&rcgen::PKCS_ECDSA_P256_SHA256), &authority).unwrap();
    check(KeySet::from_text(&certificate.pem()), &["ES256"]);
}

#[test]
fn short_secrets_are_told() {
    let check = |secret: &[u8], is_short: bool| {
        assert_eq!(KeySet::from_secret(secret).unwrap().has_short_secret(), is_short);
        let jwk = samples::SigningKey::Secret(secret.to_vec()).jwk(json!({}));
        assert_eq!(KeySet::from_text(&jwk.to_string()).unwrap().has_short_secret(), is_short);
    };
    check(&[7; 31], true);
    check(&[7; 32], false);
    check(b"a", true);
    assert_eq!(KeySet::from_secret(b"").unwrap_err(), Error::NoSecret);
    assert!(!KeySet::from_text(&EC.pem()).unwrap().has_short_secret());
}

#[test]
fn nothing_of_a_key_is_printed() {
    let keys = KeySet::from_secret(b"hidden-secret-hidden-secret-hidden").unwrap();
    let printed = format!("{keys:?}");
    let bytes = format!("{:?}", &b"hidden"[..]);
    assert!(
        printed.contains("HS256") && !printed.contains("hidden") && !printed.contains(bytes.trim_matches(['[', ']']))
    );
}

#[test]
fn a_key_is_found_by_its_name_and_the_algorithm() {
    let named = |key: &samples::SigningKey, kid: &str| key.jwk(json!({"kid": kid}));
    let find = |keys: &[Value], kid: Option<&str>, algorithm: Algorithm| {
        let keys = KeySet::from_text(&jwks(keys)).unwrap();
        let found = keys.find(kid, algorithm)?;
        Ok(keys.keys.iter().position(|key| std::ptr::eq(key, found)).unwrap())
    };
    let check = |keys: &[Value], kid: Option<&str>, algorithm, wanted: Result<usize, Invalid>| {
        assert_eq!(find(keys, kid, algorithm), wanted, "{kid:?}, {algorithm:?}");
    };
    use Algorithm::*;
    let one = [named(&RSA_KEY, "a")];
    check(&one, Some("a"), RS256, Ok(0));
    check(&one, Some("b"), RS256, Err(Invalid::UnknownKid));
    check(&one, Some(""), RS256, Err(Invalid::UnknownKid));
    check(&one, Some("A"), RS256, Err(Invalid::UnknownKid));
    check(&one, None, RS256, Ok(0));
    check(&one, Some("a"), ES256, Err(Invalid::Algorithm));
    check(&one, None, ES256, Err(Invalid::Algorithm));
    let two = [named(&RSA_KEY, "a"), named(&OTHER_RSA, "b"), named(&EC, "c")];
    check(&two, Some("b"), RS256, Ok(1));
    check(&two, None, RS256, Err(Invalid::AmbiguousKey));
    check(&two, None, ES256, Ok(2));
    let nameless = [RSA_KEY.jwk(json!({})), EC.jwk(json!({}))];
    check(&nameless, Some("x"), RS256, Ok(0));
    check(&nameless, Some("x"), ES256, Ok(1));
    check(&nameless, Some("x"), EdDSA, Err(Invalid::Algorithm));
    check(&[RSA_KEY.jwk(json!({})), OTHER_RSA.jwk(json!({}))], Some("x"), RS256, Err(Invalid::AmbiguousKey));
    // Where some have names, a token that gives a name means one of those.
    check(&[RSA_KEY.jwk(json!({})), named(&EC, "c")], Some("x"), RS256, Err(Invalid::UnknownKid));
    let twice = [named(&EC, "a"), named(&RSA_KEY, "a"), named(&OTHER_RSA, "a")];
    check(&twice, Some("a"), ES256, Ok(0));
    check(&twice, Some("a"), RS256, Ok(1));
    check(&twice, Some("a"), EdDSA, Err(Invalid::Algorithm));
}
