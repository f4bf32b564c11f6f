"""Who issues tokens: keys of every kind, an OpenID provider of our own, and tokens that no library would write."""

import base64
import contextlib
import functools
import json
import time

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from backend import Backend

DISCOVERY, KEYS = "/.well-known/openid-configuration", "/keys"
_CURVES = {"ES256": ec.SECP256R1, "ES384": ec.SECP384R1}


class Key:
    """A key pair that signs in one algorithm."""

    def __init__(self, algorithm, kid, bits=2048):
        self.algorithm, self.kid = algorithm, kid
        if algorithm in _CURVES:
            self.private = ec.generate_private_key(_CURVES[algorithm]())
        elif algorithm == "EdDSA":
            self.private = ed25519.Ed25519PrivateKey.generate()
        else:
            self.private = rsa.generate_private_key(65537, bits)
        self._signer = jwt.get_algorithm_by_name(algorithm)

    @property
    def jwk(self):
        return {**self._signer.to_jwk(self.private.public_key(), as_dict=True), "kid": self.kid, "use": "sig"}

    @property
    def pem(self):
        spki = serialization.PublicFormat.SubjectPublicKeyInfo
        return self.private.public_key().public_bytes(serialization.Encoding.PEM, spki).decode()

    @property
    def private_pem(self):
        pkcs8, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        return self.private.private_bytes(serialization.Encoding.PEM, pkcs8, plain).decode()

    def signs(self, claims, **header):
        """A token; a header that is None is left out."""
        header = {"alg": self.algorithm, "kid": self.kid, "typ": "JWT", **header}
        header = {name: value for name, value in header.items() if value is not None}
        return compact(header, claims, lambda message: self._signer.sign(message, self.private))


@functools.cache
def key(algorithm="RS256", kid="first"):
    """The same key for the same name: RSA keys take their time."""
    return Key(algorithm, kid)


def compact(header, claims, sign=lambda message: b""):
    """The three parts of a token, whatever they say; claims may be bytes that are no JSON."""
    message = ".".join(part(piece if isinstance(piece, bytes) else json.dumps(piece, separators=(",", ":")).encode())
                       for piece in (header, claims))
    return f"{message}.{part(sign(message.encode()))}"


def part(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def claims_of(token):
    return jwt.decode(token, options={"verify_signature": False})


class Issuer:
    """An OpenID provider: its documents, the keys it publishes, and tokens for `app` in its name."""

    def __init__(self, *keys):
        self.server = Backend()
        self.url = self.server.at("")
        self.server.answer(DISCOVERY, body=json.dumps({"issuer": self.url, "jwks_uri": self.url + KEYS}))
        self.publishes(*(keys or (key(),)))

    def publishes(self, *keys):
        """From now on these are its keys; the first signs."""
        self.keys = keys
        self.server.answer(KEYS, body=json.dumps({"keys": [one.jwk for one in keys]}))

    def claims(self, **claims):
        """The usual ones and these; one that is None is left out."""
        now = int(time.time())
        claims = {"iss": self.url, "sub": "ann", "aud": "app", "iat": now, "exp": now + 3600, **claims}
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, signer=None, header=None, **claims):
        return (signer or self.keys[0]).signs(self.claims(**claims), **(header or {}))

    def authorizer(self, **settings):
        """The table of an authorizer that trusts it."""
        return {"type": "jwt", "issuer": self.url, "audience": ["app"], **settings}

    @property
    def fetches(self):
        """How often it was asked for its keys."""
        return len(self.server.seen(KEYS))

    def holding_keys(self):
        return self.server.holding(KEYS)


@contextlib.contextmanager
def an_issuer(*keys):
    issuer = Issuer(*keys)
    try:
        yield issuer
    finally:
        issuer.server.stop()
