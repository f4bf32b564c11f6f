//! One key: what it is made of is sound, and says what it may be used for.

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
    RsaPublicKeyComponents, VerificationAlgorithm,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;
use x509_parser::oid_registry::OID_SIG_ED25519;
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::{PublicKey, RSAPublicKey};
use x509_parser::x509::SubjectPublicKeyInfo;

use super::{Error, Origin, algorithm};

/// Shorter secrets can be guessed: HS256 wants as many bytes as its hash has (RFC 7518).
const SECRET: usize = 32;

/// Bits of an RSA key: below it is weak (RFC 7518), above it is a way to keep us busy.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

const HMAC: &[Algorithm] = &[Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];
const RSA: &[Algorithm] =
    &[Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::PS256, Algorithm::PS384, Algorithm::PS512];
const ED_25519: &[Algorithm] = &[Algorithm::EdDSA];

#[derive(Debug, Clone)]
pub struct Key {
    pub kid: Option<String>,
    /// What it may be used for, at least one.
    pub algorithms: &'static [Algorithm],
    pub decoding: DecodingKey,
    pub is_short: bool,
}

impl Key {
    fn new(algorithms: &'static [Algorithm], decoding: DecodingKey) -> Key {
        Key { kid: None, algorithms, decoding, is_short: false }
    }

    /// `None` is a key for something else.
    pub fn from_jwk(jwk: &Value, origin: Origin) -> Result<Option<Key>, Error> {
        let text = |name| jwk.get(name).and_then(Value::as_str);
        let optional =
            |name| if jwk.get(name).is_none() { Ok(None) } else { text(name).map(Some).ok_or(Error::Member(name)) };
        let octets = |name| text(name).and_then(|text| URL_SAFE_NO_PAD.decode(text).ok()).ok_or(Error::Member(name));
        if !is_for_verifying(jwk) {
            return Ok(None);
        }
        if jwk.get("d").is_some() {
            return Err(Error::Private);
        }
        let key = match (text("kty"), text("crv")) {
            (Some("RSA"), _) => Key::rsa(&octets("n")?, &octets("e")?)?,
            (Some("EC"), Some("P-256")) => Key::ec(&P_256, &[vec![4], octets("x")?, octets("y")?].concat())?,
            (Some("EC"), Some("P-384")) => Key::ec(&P_384, &[vec![4], octets("x")?, octets("y")?].concat())?,
            (Some("OKP"), Some("Ed25519")) => Key::ed_25519(&octets("x")?)?,
            (Some("oct"), _) if origin == Origin::File => Key::secret(&octets("k")?)?,
            _ => return Err(Error::Unsupported),
        };
        let algorithms = match optional("alg")? {
            Some(name) => only(key.algorithms, name).ok_or(Error::Unsupported)?,
            None => key.algorithms,
        };
        Ok(Some(Key { kid: optional("kid")?.map(str::to_owned), algorithms, ..key }))
    }

    /// Of a certificate the key counts and nothing else: whoever put it into the file trusts it.
    pub fn from_pem(text: &str) -> Result<Key, Error> {
        let blocks: Vec<Pem> =
            Pem::iter_from_buffer(text.as_bytes()).collect::<Result<_, _>>().map_err(|_| Error::Pem)?;
        if blocks.iter().any(|block| block.label.ends_with("PRIVATE KEY")) {
            return Err(Error::Private);
        }
        let [Pem { label, contents }] = blocks.as_slice() else {
            return Err(if blocks.is_empty() { Error::Pem } else { Error::SeveralPem });
        };
        match label.as_str() {
            "PUBLIC KEY" => Key::from_info(&der::<SubjectPublicKeyInfo<'_>>(contents)?),
            "CERTIFICATE" => Key::from_info(der::<X509Certificate<'_>>(contents)?.public_key()),
            "RSA PUBLIC KEY" => {
                let key = der::<RSAPublicKey<'_>>(contents)?;
                Key::rsa(key.modulus, key.exponent)
            }
            _ => Err(Error::Pem),
        }
    }

    fn from_info(info: &SubjectPublicKeyInfo<'_>) -> Result<Key, Error> {
        match info.parsed().map_err(|_| Error::Pem)? {
            PublicKey::RSA(key) => Key::rsa(key.modulus, key.exponent),
            PublicKey::EC(point) => {
                let curve = [&P_256, &P_384].into_iter().find(|curve| curve.point == point.data().len());
                Key::ec(curve.ok_or(Error::Unsupported)?, point.data())
            }
            PublicKey::Unknown(point) if info.algorithm.algorithm == OID_SIG_ED25519 => Key::ed_25519(point),
            _ => Err(Error::Unsupported),
        }
    }

    fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<Key, Error> {
        let (n, e) = (without_leading_zeros(modulus), without_leading_zeros(exponent));
        let bits = n.len() * 8 - n.first().map_or(0, |byte| byte.leading_zeros() as usize);
        if !RSA_BITS.contains(&bits) {
            return Err(Error::RsaBits(bits));
        }
        let der = RsaPublicKeyComponents { n, e }.as_der().map_err(|_| Error::Numbers)?;
        is_sound(&RSA_PKCS1_2048_8192_SHA256, der.as_ref())?;
        Ok(Key::new(RSA, DecodingKey::from_rsa_raw_components(n, e)))
    }

    fn ec(curve: &Curve, point: &[u8]) -> Result<Key, Error> {
        is_sound(curve.verification, point)?;
        Ok(Key::new(curve.algorithms, DecodingKey::from_ec_der(point)))
    }

    fn ed_25519(point: &[u8]) -> Result<Key, Error> {
        if point.len() != 32 {
            return Err(Error::Numbers);
        }
        is_sound(&ED25519, point)?;
        Ok(Key::new(ED_25519, DecodingKey::from_ed_der(point)))
    }

    pub fn secret(secret: &[u8]) -> Result<Key, Error> {
        if secret.is_empty() {
            return Err(Error::NoSecret);
        }
        Ok(Key { is_short: secret.len() < SECRET, ..Key::new(HMAC, DecodingKey::from_secret(secret)) })
    }
}

struct Curve {
    /// The size of an uncompressed point.
    point: usize,
    verification: &'static dyn VerificationAlgorithm,
    algorithms: &'static [Algorithm],
}

static P_256: Curve = Curve { point: 65, verification: &ECDSA_P256_SHA256_FIXED, algorithms: &[Algorithm::ES256] };
static P_384: Curve = Curve { point: 97, verification: &ECDSA_P384_SHA384_FIXED, algorithms: &[Algorithm::ES384] };

/// Points beside the curve and impossible exponents would be found out with each token, as a wrong signature.
fn is_sound(verification: &'static dyn VerificationAlgorithm, key: &[u8]) -> Result<(), Error> {
    ParsedPublicKey::new(verification, key).map(drop).map_err(|_| Error::Numbers)
}

fn is_for_verifying(jwk: &Value) -> bool {
    let by_use = jwk.get("use").is_none_or(|purpose| purpose == "sig");
    let operations = |operations: &Value| {
        operations.as_array().is_some_and(|operations| operations.iter().any(|operation| operation == "verify"))
    };
    by_use && jwk.get("key_ops").is_none_or(operations)
}

fn only(algorithms: &'static [Algorithm], name: &str) -> Option<&'static [Algorithm]> {
    let named = algorithm(name)?;
    let at = algorithms.iter().position(|algorithm| *algorithm == named)?;
    Some(&algorithms[at..=at])
}

/// Some issuers write numbers with the sign byte that their libraries put in front.
fn without_leading_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

fn der<'a, T: FromDer<'a, x509_parser::error::X509Error>>(bytes: &'a [u8]) -> Result<T, Error> {
    T::from_der(bytes).map(|(_, value)| value).map_err(|_| Error::Pem)
}
