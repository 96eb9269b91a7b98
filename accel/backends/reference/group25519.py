"""Hashing to curve25519 and edwards25519 (RFC 9380) and ristretto255 (RFC 9496) in Python's integers."""

from collections.abc import Sequence
from typing import Final

from accel.backends.reference.hashing import expand_all
from accel.kernels import POINT_BYTES, BadInput, Texts, check_bytes

P: Final = 2**255 - 19
_D: Final = -121665 * pow(121666, -1, P) % P
_I: Final = pow(2, (P - 1) // 4, P)
"""The even square root of -1."""
_A: Final = 486662
_FIELD_BYTES: Final = 48
_UNIFORM_BYTES: Final = 64

Edwards = tuple[int, int]
"""Affine, on -x^2 + y^2 = 1 + d x^2 y^2."""


def _abs(x: int) -> int:
    return x if x % 2 == 0 else P - x


def _sqrt_ratio(u: int, v: int) -> tuple[bool, int]:
    """RFC 9496 section 4.2"""
    r = u * pow(v, 3, P) * pow(u * pow(v, 7, P), (P - 5) // 8, P) % P
    check = v * r * r % P
    if check in ((-u) % P, (-u * _I) % P):
        r = r * _I % P
    return check in (u % P, -u % P), _abs(r)


_SQRT_AD_MINUS_ONE: Final = 25063068953384623474111414158702152701244531502492656460079210482610430750235
_INVSQRT_A_MINUS_D: Final = _sqrt_ratio(1, -1 - _D)[1]
_ROOT: Final = _abs(_sqrt_ratio(-486664 % P, 1)[1])


def _add(a: Edwards, b: Edwards) -> Edwards:
    t = _D * a[0] * b[0] * a[1] * b[1] % P
    x = (a[0] * b[1] + a[1] * b[0]) * pow(1 + t, -1, P) % P
    return x, (a[1] * b[1] + a[0] * b[0]) * pow(1 - t, -1, P) % P


def _multiply(k: int, a: Edwards) -> Edwards:
    product = (0, 1)
    for bit in f"{k:b}":
        product = _add(product, product)
        if bit == "1":
            product = _add(product, a)
    return product


def _elligator(u: int) -> Edwards:
    """RFC 9380 sections 6.7.1 and 6.8.2: Elligator 2 with Z = 2, then the rational map to the Edwards form."""

    def square_of(x: int) -> int:
        return (x * x + _A * x + 1) * x % P

    first = -_A * pow(1 + 2 * u * u, -1, P) % P
    x, odd = first, True
    is_square, y = _sqrt_ratio(square_of(x), 1)
    if not is_square:
        x, odd = (-first - _A) % P, False
        _, y = _sqrt_ratio(square_of(x), 1)
    if bool(y % 2) != odd:
        y = -y % P
    if y == 0 or x == P - 1:
        return 0, 1
    return _ROOT * x * pow(y, -1, P) % P, (x - 1) * pow(x + 1, -1, P) % P


def _decode(data: bytes) -> Edwards | None:
    """RFC 9496 section 4.3.1"""
    s = int.from_bytes(data, "little")
    if s >= P or s % 2:
        return None
    u1, u2 = (1 - s * s) % P, (1 + s * s) % P
    v = (-_D * u1 * u1 - u2 * u2) % P
    was_square, root = _sqrt_ratio(1, v * u2 * u2 % P)
    x = _abs(2 * s * root * u2 % P)
    y = u1 * root * root * u2 * v % P
    return None if not was_square or x * y % P % 2 or y == 0 else (x, y)


def _encode(a: Edwards) -> bytes:
    """RFC 9496 section 4.3.2 with z = 1"""
    x, y = a
    t = x * y % P
    u1, u2 = (1 + y) * (1 - y) % P, t
    _, root = _sqrt_ratio(1, u1 * u2 * u2 % P)
    den1, den2 = root * u1 % P, root * u2 % P
    z_inv = den1 * den2 * t % P
    den = den2
    if t * z_inv % P % 2:
        x, y, den = y * _I % P, x * _I % P, den1 * _INVSQRT_A_MINUS_D % P
    if x * z_inv % P % 2:
        y = -y
    return _abs(den * (1 - y) % P).to_bytes(32, "little")


def _map(data: bytes) -> Edwards:
    """RFC 9496 section 4.3.4, MAP"""
    t = (int.from_bytes(data, "little") & (1 << 255) - 1) % P
    r = _I * t * t % P
    u, v = (r + 1) * (1 - _D * _D) % P, (-1 - r * _D) * (r + _D) % P
    was_square, s = _sqrt_ratio(u, v)
    s, c = (s, -1) if was_square else (-_abs(s * t % P) % P, r)
    n = (c * (r - 1) * (_D - 1) ** 2 - v) % P
    w0, w1, w2, w3 = 2 * s * v % P, n * _SQRT_AD_MINUS_ONE % P, (1 - s * s) % P, (1 + s * s) % P
    return w0 * pow(w1, -1, P) % P, w2 * pow(w3, -1, P) % P


class IntegerGroup25519:
    """See accel.kernels.Group25519 for the contract."""

    name = "reference"

    def __init__(self, *, threads: int = 1) -> None:
        del threads

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name})"

    def to_curve25519(self, texts: Texts, tag: bytes, *, uniform: bool = True) -> bytes:
        points = self._hash(texts, tag, uniform=uniform)
        return b"".join(((1 + y) * pow(1 - y, -1, P) % P).to_bytes(32, "little") for _, y in points)

    def to_edwards25519(self, texts: Texts, tag: bytes, *, uniform: bool = True) -> bytes:
        points = self._hash(texts, tag, uniform=uniform)
        return b"".join((y | x % 2 << 255).to_bytes(32, "little") for x, y in points)

    def to_ristretto(self, texts: Texts, tag: bytes) -> bytes:
        return self.derive(b"".join(expand_all("sha512", texts, tag, _UNIFORM_BYTES)))

    def derive(self, uniform: bytes) -> bytes:
        cuts = cut(uniform, _UNIFORM_BYTES)
        return b"".join(_encode(_add(_map(part[:32]), _map(part[32:]))) for part in cuts)

    def check(self, elements: bytes) -> None:
        _decode_all(elements)

    def mask_elements(self, secret: bytes, elements: bytes) -> bytes:
        return self._products(cut(secret, POINT_BYTES, 1) * (len(elements) // POINT_BYTES), elements)

    def exchange_elements(self, secrets: bytes, elements: bytes) -> bytes:
        return self._products(cut(secrets, POINT_BYTES, len(elements) // POINT_BYTES), elements)

    def _products(self, scalars: Sequence[bytes], elements: bytes) -> bytes:
        points = _decode_all(elements)
        numbers = [int.from_bytes(k, "little") for k in scalars]
        return b"".join(_encode(_multiply(k, a)) for k, a in zip(numbers, points, strict=True))

    def _hash(self, texts: Texts, tag: bytes, *, uniform: bool) -> list[Edwards]:
        points = []
        for wide in expand_all("sha512", texts, tag, _FIELD_BYTES * (2 if uniform else 1)):
            total = (0, 1)
            for part in cut(wide, _FIELD_BYTES):
                total = _add(total, _elligator(int.from_bytes(part, "big") % P))
            points.append(_multiply(8, total))
        return points


def cut(data: bytes, size: int, count: int | None = None) -> list[bytes]:
    """Pieces of one size; BadInput if there are others, or another number of them than asked for."""
    check_bytes(data)
    if len(data) % size or (count is not None and len(data) != size * count):
        raise BadInput(f"pieces of {size} bytes, one for each element or one for all, as the call says")
    return [data[i : i + size] for i in range(0, len(data), size)]


def _decode_all(elements: bytes) -> list[Edwards]:
    points = [_decode(data) for data in cut(elements, POINT_BYTES)]
    found = [point for point in points if point is not None]
    if len(found) != len(points):
        raise BadInput("not the encoding of an element")
    return found
