//! Tokens of those who have no key: none of them gets through.

use serde_json::json;

use super::super::super::samples::{self, EC, EC_384, HMAC, NOW, OTHER_RSA, RSA, SigningKey, claims, encode};
use super::*;

#[test]
fn unsigned_tokens_are_refused() {
    for name in ["none", "None", "NONE", "nOnE", "nonE", "", "none ", "\u{0}none", "HS256\u{0}", "null"] {
        let payload = encode(claims(json!({})).to_string());
        let header = encode(json!({"alg": name}).to_string());
        for keys in [keys(), secret()] {
            for signature in ["", "AA", &encode([0; 64])] {
                let token = format!("{header}.{payload}.{signature}");
                assert_eq!(outcome(&token, &keys), Err(Invalid::Algorithm), "{name}");
            }
        }
    }
}

#[test]
fn a_token_does_not_choose_what_a_key_is_used_for() {
    let check =
        |token: String, keys: KeySet, wanted: Invalid| assert_eq!(outcome(&token, &keys), Err(wanted), "{token}");
    // The text of a public key, in each form an implementation could have at hand, as the secret of an HMAC.
    let pem = RSA.pem();
    let forms = [pem.clone(), pem.trim_end().to_owned(), RSA.pkcs_1_pem(), RSA.jwk(json!({})).to_string()];
    for public in forms {
        for algorithm in ["HS256", "HS384", "HS512"] {
            let forged = SigningKey::Secret(public.clone().into_bytes());
            let token = |header: Value| forged.token(header, claims(json!({})));
            check(token(json!({"alg": algorithm})), KeySet::from_text(&pem).unwrap(), Invalid::Algorithm);
            check(token(json!({"alg": algorithm})), keys(), Invalid::Algorithm);
            check(token(json!({"alg": algorithm, "kid": "rsa"})), keys(), Invalid::Algorithm);
        }
    }
    let token = |key: &SigningKey, algorithm: &str| key.token(json!({"alg": algorithm}), claims(json!({})));
    check(token(&RSA, "RS256"), secret(), Invalid::Algorithm);
    check(token(&EC, "ES256"), secret(), Invalid::Algorithm);
    check(token(&EC, "ES256"), KeySet::from_text(&RSA.pem()).unwrap(), Invalid::Algorithm);
    check(token(&EC, "ES384"), keys(), Invalid::Signature);
    check(token(&EC_384, "ES256"), keys(), Invalid::Signature);
    check(token(&RSA, "PS256").replacen("eyJhbGciOiJQUzI1NiJ9", "eyJhbGciOiJSUzI1NiJ9", 1), keys(), Invalid::Signature);
    let pinned = KeySet::from_text(&RSA.jwk(json!({"alg": "RS256"})).to_string()).unwrap();
    check(token(&RSA, "RS512"), pinned, Invalid::Algorithm);
}

#[test]
fn rules_can_allow_fewer_algorithms() {
    let check = |algorithm: &str, allowed: &[&str], wanted: Result<(), Invalid>| {
        let algorithms = allowed.iter().map(|name| keys::algorithm(name).unwrap()).collect();
        let token = RSA.token(json!({"alg": algorithm}), claims(json!({})));
        let outcome = verify(&token, &keys(), &Rules { algorithms, ..rules() }, NOW);
        assert_eq!(outcome.map(drop), wanted, "{algorithm} of {allowed:?}");
    };
    check("RS256", &[], Ok(()));
    check("RS256", &["RS256"], Ok(()));
    check("RS512", &["RS256", "RS512"], Ok(()));
    check("PS256", &["RS256", "RS512"], Err(Invalid::Algorithm));
    check("RS256", &["ES256"], Err(Invalid::Algorithm));
    // More than the key allows is not given by it.
    let forged = SigningKey::Secret(RSA.pem().into_bytes()).token(json!({"alg": "HS256"}), claims(json!({})));
    let rules = Rules { algorithms: vec![Algorithm::HS256], ..rules() };
    assert_eq!(verify(&forged, &keys(), &rules, NOW).unwrap_err(), Invalid::Algorithm);
}

#[test]
fn keys_that_a_token_brings_along_are_not_used() {
    let check = |members: Value| {
        let mut header = json!({"alg": "RS256"});
        header.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        let token = |key: &SigningKey| key.token(header.clone(), claims(json!({})));
        assert_eq!(outcome(&token(&OTHER_RSA), &keys()), Err(Invalid::Signature), "{members}");
        assert_eq!(outcome(&token(&RSA), &keys()), Ok(()), "{members}");
    };
    check(json!({"jwk": OTHER_RSA.jwk(json!({}))}));
    check(json!({"jwk": OTHER_RSA.jwk(json!({"kid": "rsa"})), "kid": "rsa"}));
    check(json!({"jku": "https://evil.example.com/jwks.json"}));
    check(json!({"x5u": "https://evil.example.com/chain.pem"}));
    check(json!({"x5c": ["MIIB"]}));
    check(json!({"x5t": "AA", "x5t#S256": "AA"}));
}

#[test]
fn keys_have_to_be_the_one_that_signed() {
    let check = |key: &SigningKey, header: Value, wanted: Result<(), Invalid>| {
        assert_eq!(outcome(&key.token(header.clone(), claims(json!({}))), &keys()), wanted, "{header}");
    };
    check(&RSA, json!({"alg": "RS256", "kid": "rsa"}), Ok(()));
    check(&RSA, json!({"alg": "RS256", "kid": "rsb"}), Err(Invalid::UnknownKid));
    check(&RSA, json!({"alg": "RS256", "kid": "ec"}), Err(Invalid::Algorithm));
    check(&OTHER_RSA, json!({"alg": "RS256", "kid": "rsa"}), Err(Invalid::Signature));
    check(&OTHER_RSA, json!({"alg": "RS256"}), Err(Invalid::Signature));
    let secret_token = |secret: &[u8]| {
        SigningKey::Secret(secret.to_vec()).token(json!({"alg": "HS256", "kid": "any"}), claims(json!({})))
    };
    assert_eq!(outcome(&secret_token(samples::SECRET), &secret()), Ok(()));
    assert_eq!(outcome(&secret_token(b"secret"), &secret()), Err(Invalid::Signature));
    assert_eq!(outcome(&secret_token(b""), &secret()), Err(Invalid::Signature));
}

#[test]
fn signatures_that_no_key_makes_are_refused() {
    let order = [
        "FFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551",
        "FFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632550",
    ];
    let order = order
        .map(|hex| (0..32).map(|at| u8::from_str_radix(&hex[at * 2..at * 2 + 2], 16).unwrap()).collect::<Vec<_>>());
    let one = [vec![0; 31], vec![1]].concat();
    let check = |kid: &str, algorithm: &str, signature: &[u8]| {
        let header = encode(json!({"alg": algorithm, "kid": kid}).to_string());
        let token = format!("{header}.{}.{}", encode(claims(json!({})).to_string()), encode(signature));
        assert_eq!(outcome(&token, &keys()), Err(Invalid::Signature), "{signature:?}");
    };
    check("ec", "ES256", &[0; 64]);
    check("ec", "ES256", &[0; 63]);
    check("ec", "ES256", &[]);
    check("ec", "ES256", &[0xff; 64]);
    check("ec", "ES256", &order[0].repeat(2));
    check("ec", "ES256", &[order[1].clone(), vec![0; 32]].concat());
    check("ec", "ES256", &[one.clone(), vec![0; 32]].concat());
    check("ec", "ES256", &[vec![0; 32], one].concat());
    // The ASN.1 form of a signature of zeros: JWS has the two numbers side by side.
    check("ec", "ES256", &[0x30, 6, 2, 1, 0, 2, 1, 0]);
    check("ec-384", "ES384", &[0; 96]);
    check("ed", "EdDSA", &[0; 64]);
    check("ed", "EdDSA", &[]);
    check("rsa", "RS256", &[0; 256]);
    check("rsa", "RS256", &[0; 255]);
    check("rsa", "RS256", &[0xff; 256]);
    check("rsa", "PS256", &[0; 256]);
    let token = HMAC.token(json!({"alg": "HS256"}), claims(json!({})));
    let message = token.rsplit_once('.').unwrap().0;
    let signature = HMAC.sign("HS256", message.as_bytes());
    for length in 0..signature.len() {
        let token = format!("{message}.{}", encode(&signature[..length]));
        assert_eq!(outcome(&token, &secret()), Err(Invalid::Signature));
    }
}
