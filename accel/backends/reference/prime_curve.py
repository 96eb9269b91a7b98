"""P-256 and SM2 by the affine formulae of a text book, one point at a time, in Python's integers."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import gmpy2
import numpy as np
from numpy.typing import NDArray

from accel.backends.reference.hashing import expand_all
from accel.kernels import AFFINE_BYTES, BadInput, Texts, check_bytes

Point = tuple[int, int] | None
"""None is the point at infinity."""


@dataclass(frozen=True, slots=True)
class Curve:
    """y^2 = x^3 - 3 x + b modulo p, of prime order n; z: of the simplified SWU map."""

    p: int
    b: int
    n: int
    generator: tuple[int, int]
    z: int

    def square(self, x: int) -> int:
        """y^2 for a point at x"""
        return (x * x * x - 3 * x + self.b) % self.p

    def root(self, value: int) -> int | None:
        """A square root, for p = 3 modulo 4."""
        root = int(gmpy2.powmod(value, (self.p + 1) // 4, self.p))
        return root if (root * root - value) % self.p == 0 else None

    def add(self, a: Point, b: Point) -> Point:
        if a is None or b is None:
            return b if a is None else a
        if a[0] == b[0]:
            if (a[1] + b[1]) % self.p == 0:
                return None
            slope = (3 * a[0] * a[0] - 3) * int(gmpy2.invert(2 * a[1], self.p))
        else:
            slope = (b[1] - a[1]) * int(gmpy2.invert(b[0] - a[0], self.p))
        x = (slope * slope - a[0] - b[0]) % self.p
        return x, (slope * (a[0] - x) - a[1]) % self.p

    def multiply(self, k: int, a: Point) -> Point:
        product: Point = None
        for bit in f"{k % self.n:b}":
            product = self.add(product, product)
            if bit == "1":
                product = self.add(product, a)
        return product

    def map(self, u: int) -> Point:
        """RFC 9380 section 6.6.2"""
        p = self.p
        t = (self.z * self.z * u**4 + self.z * u * u) % p
        if t:
            x = self.b * (1 + int(gmpy2.invert(t, p))) * int(gmpy2.invert(3, p)) % p
        else:
            x = self.b * int(gmpy2.invert(-3 * self.z, p)) % p
        y = self.root(self.square(x))
        if y is None:
            x = self.z * u * u * x % p
            y = self.root(self.square(x))
        if y is None:
            raise ArithmeticError("one of the two candidates is a square")
        return x, y if y % 2 == u % 2 else -y % p


CURVES: Final[Mapping[str, Curve]] = {
    "p256": Curve(
        p=2**256 - 2**224 + 2**192 + 2**96 - 1,
        b=0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B,
        n=0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
        generator=(
            0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
            0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
        ),
        z=-10,
    ),
    "sm2": Curve(
        p=2**256 - 2**224 - 2**96 + 2**64 - 1,
        b=0x28E9FA9E9D9F5E344D5A9E4BCF6509A7F39789F515AB8F92DDBCBD414D940E93,
        n=0xFFFFFFFEFFFFFFFFFFFFFFFFFFFFFFFF7203DF6B21C6052B53BBF40939D54123,
        generator=(
            0x32C4AE2C1F1981195F9904466A39C9948FE30BBFF2660BE1715A4589334C74C7,
            0xBC3736A2F4F6779C59BDCEE36B692153D0A9877CC62A474002DF32E52139F0A0,
        ),
        z=-9,
    ),
}

_SCALAR_BYTES: Final = 32
_FIELD_BYTES: Final = 48
"""Of a field element before its reduction: L of RFC 9380 for 128 bits of security."""


class IntegerCurve:
    """See accel.kernels.PrimeCurve for the contract. Native backends replace what begins with an underscore."""

    def __init__(self, curve: str, *, threads: int = 1) -> None:
        del threads
        self.name = "reference"
        self.curve = curve
        self._numbers = CURVES[curve]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.curve}, {self.name})"

    def mask_points(self, secret: bytes, points: bytes) -> bytes:
        check_bytes(secret)
        if len(secret) != _SCALAR_BYTES:
            raise BadInput("a scalar is 32 bytes")
        self.check(points)
        return self._multiply(secret, points, each=False)

    def exchange(self, secrets: bytes, points: bytes) -> bytes:
        check_bytes(secrets, points)
        if 2 * len(secrets) != len(points):
            raise BadInput("a scalar is 32 bytes and a point 64, as many of the one as of the other")
        self.check(points)
        return self._multiply(secrets, points, each=True)

    def base_points(self, secrets: bytes) -> bytes:
        check_bytes(secrets)
        if len(secrets) % _SCALAR_BYTES:
            raise BadInput("a scalar is 32 bytes")
        return self._base(secrets)

    def check(self, points: bytes) -> None:
        check_bytes(points)
        if len(points) % AFFINE_BYTES:
            raise BadInput("a point is 64 bytes")
        if not self._valid(points):
            raise BadInput("not a point of the curve")

    def decode(self, data: bytes, *, compressed: bool) -> bytes:
        check_bytes(data)
        size = 33 if compressed else 65
        if len(data) % size:
            raise BadInput(f"a point is {size} bytes in this form")
        rows = np.frombuffer(data, np.uint8).reshape(-1, size)
        prefix, rest = rows[:, 0], rows[:, 1:].tobytes()
        if not compressed:
            if bool(np.any(prefix != 4)):
                raise BadInput("an uncompressed point begins with 4")
            self.check(rest)
            return rest
        if bool(np.any((prefix != 2) & (prefix != 3))):
            raise BadInput("a compressed point begins with 2 or 3")
        points, flags = self._lift(rest, (prefix & 1).tobytes())
        if bool(np.any(flags != 3)):
            raise BadInput("not a point of the curve")
        return points

    def encode(self, points: bytes, *, compressed: bool) -> bytes:
        self.check(points)
        rows = np.frombuffer(points, np.uint8).reshape(-1, AFFINE_BYTES)
        if compressed:
            return np.hstack([2 + (rows[:, -1:] & 1), rows[:, :32]]).tobytes()
        return np.hstack([np.full((len(rows), 1), 4, np.uint8), rows]).tobytes()

    def lift(self, xs: bytes, *, odd: bool = False) -> tuple[bytes, NDArray[np.bool_]]:
        check_bytes(xs)
        if len(xs) % _SCALAR_BYTES:
            raise BadInput("an x coordinate is 32 bytes")
        points, flags = self._lift(xs, bytes([odd]) * (len(xs) // _SCALAR_BYTES))
        return points, (flags & 1).astype(np.bool_)

    def from_hash(self, texts: Texts, tag: bytes, *, digest: str = "sha256", uniform: bool = True) -> bytes:
        if digest not in ("sha256", "sm3"):
            raise BadInput("the digest is sha256 or sm3")
        each = 2 if uniform else 1
        wide = self._expand(digest, texts, tag, each * _FIELD_BYTES).reshape(-1, _FIELD_BYTES)
        return self._map(np.pad(wide, ((0, 0), (AFFINE_BYTES - _FIELD_BYTES, 0))).tobytes(), each)

    def _expand(self, digest: str, texts: Texts, tag: bytes, length: int) -> NDArray[np.uint8]:
        return np.frombuffer(b"".join(expand_all(digest, texts, tag, length)), np.uint8)

    def _valid(self, points: bytes) -> bool:
        curve = self._numbers
        return all(x < curve.p and y < curve.p and y * y % curve.p == curve.square(x) for x, y in _pairs(points))

    def _multiply(self, scalars: bytes, points: bytes, *, each: bool) -> bytes:
        factors = _ints(scalars) if each else _ints(scalars * (len(points) // AFFINE_BYTES))
        return _bytes(self._numbers.multiply(k, point) for k, point in zip(factors, _pairs(points), strict=True))

    def _base(self, scalars: bytes) -> bytes:
        return _bytes(self._numbers.multiply(k, self._numbers.generator) for k in _ints(scalars))

    def _lift(self, xs: bytes, parities: bytes) -> tuple[bytes, NDArray[np.uint8]]:
        """Points, and a byte each: bit 0 if x has a point, bit 1 if x was below p."""
        points, flags, p = bytearray(), bytearray(), self._numbers.p
        for x, odd in zip(_ints(xs), parities, strict=True):
            y = self._numbers.root(self._numbers.square(x % p))
            flags.append((y is not None) | (x < p) << 1)
            y = 0 if y is None else y if y % 2 == odd else -y % p
            points += (x % p).to_bytes(32, "big") + y.to_bytes(32, "big")
        return bytes(points), np.frombuffer(bytes(flags), np.uint8)

    def _map(self, elements: bytes, each: int) -> bytes:
        """Elements of 64 bytes, big-endian, `each` of them to a point."""
        step, curve, points = AFFINE_BYTES * each, self._numbers, list[Point]()
        for at in range(0, len(elements), step):
            numbers = (elements[at + i : at + i + AFFINE_BYTES] for i in range(0, step, AFFINE_BYTES))
            total: Point = None
            for number in numbers:
                total = curve.add(total, curve.map(int.from_bytes(number, "big") % curve.p))
            points.append(total)
        return _bytes(iter(points))


def _ints(data: bytes) -> Iterator[int]:
    return (int.from_bytes(data[i : i + 32], "big") for i in range(0, len(data), 32))


def _pairs(points: bytes) -> Iterator[tuple[int, int]]:
    numbers = _ints(points)
    return zip(numbers, numbers, strict=True)


def _bytes(points: Iterator[Point]) -> bytes:
    return b"".join(bytes(64) if a is None else a[0].to_bytes(32, "big") + a[1].to_bytes(32, "big") for a in points)
