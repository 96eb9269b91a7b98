"""Keys and numbers in the JSON of python-paillier (its command line's forms), so that a peer with it can take part.

Keys are JSON Web Keys of type DAJ with unpadded base64url integers; a number is {"v": decimal ciphertext,
"e": exponent} with value = integer * 16^e. Their public key is n alone: it becomes a "paillier-textbook" key here.
Their private form holds p and q in the clear: it can be read here and not written (HeSecretKey.export is the way).
"""

import base64
import binascii
import json
from typing import Any, Final

from accel.fixedpoint import Numbers
from accel.kernels import AdditiveHE, BadInput, HePublicKey, HeSecretKey

_KEY_TYPE: Final = "DAJ"
_ALGORITHM: Final = "PAI-GN1"
_LONGEST_KEY: Final = 16384
_PER_NUMBER: Final = 8192
"""Characters of JSON: keys, and each number (8192-bit moduli make 4933 digits)."""
_MAX_BITS: Final = 8192


def dump_public(key: HePublicKey, *, comment: str = "") -> str:
    """The public key of either Paillier scheme; a DJN key loses its short exponents' base."""
    n = _modulus(key)
    return json.dumps({"kty": _KEY_TYPE, "alg": _ALGORITHM, "key_ops": ["encrypt"], "n": _to_text(n), "kid": comment})


def load_public(scheme: AdditiveHE, text: str) -> HePublicKey:
    """For the scheme "paillier-textbook"; the same checks as AdditiveHE.load_public."""
    return scheme.load_public(memoryview(_packed(scheme, _public_number(_object(text, _LONGEST_KEY)))))


def load_secret(scheme: AdditiveHE, text: str) -> HeSecretKey:
    """For the scheme "paillier-textbook". p q must be n; that they are primes is their owner's word."""
    data = _object(text, _LONGEST_KEY)
    if (
        data.get("kty") != _KEY_TYPE
        or not isinstance(data.get("key_ops"), list)
        or "decrypt" not in data["key_ops"]
        or not isinstance(data.get("pub"), dict)
    ):
        raise BadInput("not a private key in phe's form")
    p, q, n = _from_text(data.get("p")), _from_text(data.get("q")), _public_number(data["pub"])
    scheme.load_public(memoryview(_packed(scheme, n)))
    if p * q != n or p < 3 or q < 3 or p == q:
        raise BadInput("the primes do not make the modulus")
    return scheme.from_factors(p, q, 1)


def dump_numbers(numbers: Numbers) -> str:
    """A JSON array of numbers. Their exponents count in 16s: rescale to a multiple of four. Mask before sending."""
    _modulus(numbers.key)
    if numbers.exponent % 4:
        raise BadInput("phe's exponents are powers of 16: rescale to a multiple of four")
    size = numbers.key.ciphertext_bytes
    data = numbers.key.dump(numbers.batch)
    values = (int.from_bytes(data[i : i + size], "little") for i in range(0, len(data), size))
    return json.dumps([{"v": _decimal(v), "e": numbers.exponent // 4} for v in values])


def load_numbers(key: HePublicKey, text: str, *, bound_bits: int) -> Numbers:
    """A JSON array of numbers with one exponent, or one number alone; ciphertexts are checked as in HePublicKey.load.
    bound_bits: what the peer states of its absolute integers; decryption refuses larger ones.
    """
    _modulus(key)
    if not 1 <= bound_bits < key.plaintext_bits - 1:
        raise BadInput("the bound does not fit the key")
    data = _parsed(text, _PER_NUMBER * max(1, text.count("{")))
    items = data if isinstance(data, list) else [data]
    if not all(isinstance(item, dict) and set(item) == {"v", "e"} for item in items):
        raise BadInput("not encrypted numbers in phe's form")
    exponents = {item["e"] for item in items if isinstance(item["e"], int) and not isinstance(item["e"], bool)}
    if len(exponents) > 1 or (items and not exponents) or any(type(item["e"]) is not int for item in items):
        raise BadInput("numbers of one exponent are read together")
    exponent = exponents.pop() if exponents else 0
    if not -250 <= exponent <= 250:
        raise BadInput("an exponent between -250 and 250")
    size = key.ciphertext_bytes
    wire = b"".join(_bytes(item["v"], size) for item in items)
    return Numbers(
        key, key.load(memoryview(wire), len(items)), 4 * exponent, (1 << bound_bits) - 1, 1 << key.noise_bits
    )


def _bytes(text: object, size: int) -> bytes:
    if not isinstance(text, str) or not text.isascii() or not text.isdigit() or len(text) > 3 * size:
        raise BadInput("a ciphertext is a decimal text")
    value = _from_decimal(text)
    if value >> (8 * size):
        raise BadInput("a ciphertext is out of range")
    return value.to_bytes(size, "little")


_DIGITS: Final = 4000
"""Python refuses to convert longer decimal texts in one go (they cost quadratic time); ours are bounded above."""


def _from_decimal(text: str) -> int:
    value = 0
    for at in range(0, len(text), _DIGITS):
        part = text[at : at + _DIGITS]
        value = value * 10 ** len(part) + int(part)
    return value


def _decimal(value: int) -> str:
    parts = []
    while value >= 10**_DIGITS:
        value, low = divmod(value, 10**_DIGITS)
        parts.append(str(low).zfill(_DIGITS))
    return "".join([str(value), *reversed(parts)])


def _modulus(key: HePublicKey) -> int:
    if not key.scheme.startswith("paillier"):
        raise BadInput("phe knows Paillier only")
    size = (key.modulus_bits + 7) // 8
    return int.from_bytes(key.to_bytes()[4 : 4 + size], "little")


def _packed(scheme: AdditiveHE, n: int) -> bytes:
    """Our own serialised form of a key that is n alone, to be judged by load_public."""
    if scheme.scheme != "paillier-textbook":
        raise BadInput("phe's keys are for paillier-textbook")
    bits = n.bit_length()
    if bits > _MAX_BITS:
        raise BadInput("a modulus of at most 8192 bits")
    return bytes([1, 3]) + bits.to_bytes(2, "little") + n.to_bytes((bits + 7) // 8, "little")


def _public_number(data: dict[str, Any]) -> int:
    if data.get("kty") != _KEY_TYPE or data.get("alg") != _ALGORITHM:
        raise BadInput("not a public key in phe's form")
    return _from_text(data.get("n"))


def _object(text: str, longest: int) -> dict[str, Any]:
    data = _parsed(text, longest)
    if not isinstance(data, dict):
        raise BadInput("not a JSON object")
    return data


def _parsed(text: str, longest: int) -> Any:
    if not isinstance(text, str | bytes):
        raise BadInput(f"a JSON text is wanted, not {type(text).__name__}")
    if len(text) > longest:
        raise BadInput("longer than such a text can be")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise BadInput("not JSON") from None


def _to_text(value: int) -> str:
    return base64.urlsafe_b64encode(value.to_bytes((value.bit_length() + 7) // 8, "big")).rstrip(b"=").decode()


def _from_text(text: object) -> int:
    if not isinstance(text, str) or not text.isascii():
        raise BadInput("an integer of a key is base64url text")
    try:
        return int.from_bytes(base64.b64decode(text.encode() + b"=" * (-len(text) % 4), b"-_", validate=True), "big")
    except (binascii.Error, ValueError):
        raise BadInput("an integer of a key is base64url text") from None
