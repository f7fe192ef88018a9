"""Tokens as PyJWT and Authlib make them, one for each algorithm, and their keys as they export them.

Prints JSON: a JWK set, and [maker, algorithm, token, secret where there is one] for each token.
"""

import json
import time

import jwt
from authlib.jose import JsonWebKey, JsonWebToken
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from jwt.algorithms import get_default_algorithms

NOW = int(time.time())
CLAIMS = {"iss": "https://id.test/", "aud": ["other", "api"], "sub": "zoë", "iat": NOW, "nbf": NOW, "exp": NOW + 600}


def ec_key(curve):
    """A key whose coordinates have all their bytes: Authlib exports them without leading zeros, which RFC 7518, section
    6.2.1.2, does not allow, and such a key is not taken."""
    while True:
        key = ec.generate_private_key(curve)
        numbers = key.public_key().public_numbers()
        if min(numbers.x, numbers.y).bit_length() > curve.key_size - 8:
            return key


RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
KEYS = {
    **{algorithm: RSA for algorithm in ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"]},
    "ES256": ec_key(ec.SECP256R1()),
    "ES384": ec_key(ec.SECP384R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}
SECRETS = {"HS256": "0123456789abcdef" * 2, "HS384": "0123456789abcdef" * 3, "HS512": "0123456789abcdef" * 4}

published, tokens = [], []


def publish(exported, key_id):
    published.append({**exported, "kid": key_id})


for algorithm, key in KEYS.items():
    public = get_default_algorithms()[algorithm].to_jwk(key.public_key(), as_dict=True)
    key_id = f"pyjwt-{algorithm}"
    publish({name: value for name, value in public.items() if name != "key_ops"}, key_id)
    tokens.append(["PyJWT", algorithm, jwt.encode(CLAIMS, key, algorithm, headers={"kid": key_id}), None])

    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    key_id = f"authlib-{algorithm}"
    private = JsonWebKey.import_key(pem)
    publish(private.as_dict(is_private=False), key_id)
    header = {"alg": algorithm, "typ": "JWT", "kid": key_id}
    tokens.append(["Authlib", algorithm, JsonWebToken([algorithm]).encode(header, CLAIMS, private).decode(), None])

for algorithm, secret in SECRETS.items():
    tokens.append(["PyJWT", algorithm, jwt.encode(CLAIMS, secret, algorithm), secret])
    token = JsonWebToken([algorithm]).encode({"alg": algorithm}, CLAIMS, secret).decode()
    tokens.append(["Authlib", algorithm, token, secret])

print(json.dumps({"jwks": {"keys": published}, "tokens": tokens}))
