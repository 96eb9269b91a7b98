"""Key pairs as files: the public form and the primes under a passphrase, and their forgetting."""

import hmac
from typing import Any, Final, NoReturn, SupportsIndex

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from accel.backends.reference.modular import Mpz, to_mpz
from accel.kernels import BadInput, Ciphertexts, RandomSource, Uints, check_bytes

_MAGIC: Final = b"ICSK"
_FORM: Final = 1
_COSTS: Final = range(14, 21)
_SALT: Final = 16
_NONCE: Final = 12
_HEAD: Final = len(_MAGIC) + 2
_LONGEST: Final = 16384
"""Bytes; a key of 8192 bits takes 4 KiB."""


class SealedSecret:
    """What the secret keys of all schemes and backends share. A subclass names its attributes in _SECRETS."""

    __slots__ = ()
    _SECRETS: tuple[str, ...] = ()
    public: Any

    def factors(self) -> tuple[int, int]:
        raise NotImplementedError

    def encrypt(self, plain: Uints, random: RandomSource) -> Ciphertexts:
        """As the public key does it, where knowing the primes gains nothing."""
        self.check_alive()
        made: Ciphertexts = self.public.encrypt(plain, random)
        return made

    def export(self, passphrase: bytes, random: RandomSource, *, cost_log2: int = 17) -> bytes:
        self.check_alive()
        check_bytes(passphrase)
        if cost_log2 not in _COSTS or not passphrase:
            raise BadInput("a passphrase, and a cost of 14 to 20")
        public = self.public.to_bytes()
        body = bytearray(len(public).to_bytes(2, "little") + public)
        for prime in self.factors():
            size = (prime.bit_length() + 7) // 8
            body += size.to_bytes(2, "little") + prime.to_bytes(size, "little")
        drawn = random.bytes(_SALT + _NONCE)
        head = _MAGIC + bytes([_FORM, cost_log2])
        sealed = AESGCM(_derive(passphrase, drawn[:_SALT], cost_log2)).encrypt(drawn[_SALT:], bytes(body), head)
        body[:] = bytes(len(body))
        return head + drawn + sealed

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        """So that neither pickle nor a copy takes the primes along."""
        raise TypeError("a secret key leaves its process by export only")

    def check_alive(self) -> None:
        if any(not hasattr(self, name) for name in self._SECRETS):
            raise BadInput("the key was wiped")

    def wipe(self) -> None:
        for name in self._SECRETS:
            if hasattr(self, name):
                _wipe(getattr(self, name))
                delattr(self, name)


def _wipe(thing: Any) -> None:
    if isinstance(thing, tuple):
        for part in thing:
            _wipe(part)
    elif hasattr(thing, "wipe"):
        thing.wipe()


def open_sealed(data: memoryview, passphrase: bytes, tag: int) -> tuple[Mpz, Mpz, Mpz]:
    """The primes, and the second number of the public form (1 where there is none)."""
    check_bytes(data, passphrase)
    if not _HEAD + _SALT + _NONCE < len(data) <= _LONGEST or not hmac.compare_digest(data[:4], _MAGIC):
        raise BadInput("not an exported secret key")
    if data[4] != _FORM or data[5] not in _COSTS:
        raise BadInput("a secret key of another version or cost")
    salt, nonce, sealed = (
        data[_HEAD : _HEAD + _SALT],
        data[_HEAD + _SALT : _HEAD + _SALT + _NONCE],
        data[_HEAD + _SALT + _NONCE :],
    )
    try:
        body = AESGCM(_derive(passphrase, bytes(salt), data[5])).decrypt(
            bytes(nonce), bytes(sealed), bytes(data[:_HEAD])
        )
    except InvalidTag:
        raise BadInput("another passphrase, or a changed file") from None
    parts = []
    at = 0
    while at < len(body):
        size = int.from_bytes(body[at : at + 2], "little")
        parts.append(body[at + 2 : at + 2 + size])
        at += 2 + size
    if len(parts) != 3 or parts[0][1] != tag:
        raise BadInput("a secret key of another scheme")
    public, p, q = parts[0], to_mpz(parts[1]), to_mpz(parts[2])
    size = (int.from_bytes(public[2:4], "little") + 7) // 8
    return p, q, to_mpz(public[4 + size :]) if len(public) > 4 + size else 1


def _derive(passphrase: bytes, salt: bytes, cost_log2: int) -> bytes:
    return Scrypt(salt=salt, length=32, n=1 << cost_log2, r=8, p=1).derive(passphrase)
