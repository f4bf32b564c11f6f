//! Keys and tokens for the tests. The keys are made anew each time, so that none of them is worth anything.

use std::sync::LazyLock;

use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::*;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

/// What the tests take for now.
pub const NOW: f64 = 1_800_000_000.0;

pub const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

pub static RSA: LazyLock<SigningKey> = LazyLock::new(new_rsa);
pub static OTHER_RSA: LazyLock<SigningKey> = LazyLock::new(new_rsa);
pub static EC: LazyLock<SigningKey> = LazyLock::new(|| new_ec(&ECDSA_P256_SHA256_FIXED_SIGNING));
pub static EC_384: LazyLock<SigningKey> = LazyLock::new(|| new_ec(&ECDSA_P384_SHA384_FIXED_SIGNING));
pub static ED: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::Ed(Ed25519KeyPair::generate().unwrap()));
pub static HMAC: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::Secret(SECRET.to_vec()));

pub enum SigningKey {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
    Secret(Vec<u8>),
}

fn new_rsa() -> SigningKey {
    SigningKey::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap())
}

fn new_ec(algorithm: &'static EcdsaSigningAlgorithm) -> SigningKey {
    SigningKey::Ec(EcdsaKeyPair::generate(algorithm).unwrap())
}

impl SigningKey {
    pub fn sign(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            SigningKey::Rsa(pair) => {
                let encoding: &'static dyn RsaEncoding = match algorithm {
                    "RS384" => &RSA_PKCS1_SHA384,
                    "RS512" => &RSA_PKCS1_SHA512,
                    "PS256" => &RSA_PSS_SHA256,
                    "PS384" => &RSA_PSS_SHA384,
                    "PS512" => &RSA_PSS_SHA512,
                    _ => &RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(encoding, &random, message, &mut signature).unwrap();
                signature
            }
            SigningKey::Ec(pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            SigningKey::Ed(pair) => pair.sign(message).as_ref().to_vec(),
            SigningKey::Secret(secret) => {
                let algorithm = match algorithm {
                    "HS384" => hmac::HMAC_SHA384,
                    "HS512" => hmac::HMAC_SHA512,
                    _ => hmac::HMAC_SHA256,
                };
                hmac::sign(&hmac::Key::new(algorithm, secret), message).as_ref().to_vec()
            }
        }
    }

    /// Its public half with these members more, or instead.
    pub fn jwk(&self, members: Value) -> Value {
        let mut jwk = match self {
            SigningKey::Rsa(pair) => {
                let RsaPublicKeyComponents { n, e } = RsaPublicKeyComponents::<Vec<u8>>::from(pair.public_key());
                json!({"kty": "RSA", "n": encode(n), "e": encode(e)})
            }
            SigningKey::Ec(pair) => {
                let point = &pair.public_key().as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                let curve = if x.len() == 32 { "P-256" } else { "P-384" };
                json!({"kty": "EC", "crv": curve, "x": encode(x), "y": encode(y)})
            }
            SigningKey::Ed(pair) => json!({"kty": "OKP", "crv": "Ed25519", "x": encode(pair.public_key())}),
            SigningKey::Secret(secret) => json!({"kty": "oct", "k": encode(secret)}),
        };
        jwk.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        jwk
    }

    pub fn pem(&self) -> String {
        let der: PublicKeyX509Der<'_> = match self {
            SigningKey::Rsa(pair) => pair.public_key().as_der().unwrap(),
            SigningKey::Ec(pair) => pair.public_key().as_der().unwrap(),
            SigningKey::Ed(pair) => pair.public_key().as_der().unwrap(),
            SigningKey::Secret(_) => panic!("a secret has no public half"),
        };
        pem("PUBLIC KEY", der.as_ref())
    }

    pub fn pkcs_1_pem(&self) -> String {
        let SigningKey::Rsa(pair) = self else { panic!("an RSA key is wanted") };
        pem("RSA PUBLIC KEY", pair.public_key().as_ref())
    }

    /// A token with this header, signed as it says.
    pub fn token(&self, header: Value, claims: Value) -> String {
        self.sign_parts(header["alg"].as_str().unwrap_or_default(), header.to_string(), claims.to_string())
    }

    pub fn sign_parts(&self, algorithm: &str, header: impl AsRef<[u8]>, payload: impl AsRef<[u8]>) -> String {
        let message = format!("{}.{}", encode(header), encode(payload));
        let signature = encode(self.sign(algorithm, message.as_bytes()));
        format!("{message}.{signature}")
    }
}

pub fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

pub fn jwks(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}

/// What a good token says, with these claims more, or instead; `null` takes one away.
pub fn claims(changed: Value) -> Value {
    let mut claims = json!({"iss": "https://id.example.com", "sub": "u1", "aud": "pets", "exp": NOW + 60.0});
    let all = claims.as_object_mut().unwrap();
    all.extend(changed.as_object().unwrap().clone());
    all.retain(|_, value| !value.is_null());
    claims
}
