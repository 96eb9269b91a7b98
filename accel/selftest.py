"""Known answers that a backend must give before it may be chosen; small, so that they cost a millisecond.

The larger set (full-size keys, refusals) is specs/vectors, which the tests run over every backend.
"""

import builtins
from collections.abc import Callable
from typing import Final

import numpy as np

from accel.kernels import (
    X25519,
    AdditiveHE,
    Ciphertexts,
    Digest,
    Group25519,
    HePublicKey,
    HeSecretKey,
    Masks,
    ModularPower,
    PrimeCurve,
    Ring128,
    RingMatrices,
    SparseMatrix,
    Texts,
    Uints,
)


class WrongAnswer(Exception):
    """A backend computed something else than the known answer; the text names the operation."""


class _Script:
    """A RandomSource that hands out given bytes."""

    def __init__(self, data: builtins.bytes) -> None:
        self._data = data

    def bytes(self, count: int, /) -> builtins.bytes:
        part, self._data = self._data[:count], self._data[count:]
        if len(part) != count:
            raise WrongAnswer("asked for more randomness than the contract says")
        return part


# Toy keys; the ciphertexts come from the papers' formulae by Python's pow (see specs/vectors/additive_he.json).
_OU: Final = (0xCA118783593942A5, 0xFA674D0A5FD11A33, 0x79DED9F207D3B36C505BDD8F4ED3D99EBBB3A32ACF00377E)
_OU_CASE: Final = (
    0x56BC1B8AEE6F7A8F,
    0xB4A37B2B926271F29E180BF5C37EE1E269FA541C228A31298A9E1DF7E771876E,
    0x5A7DB215AA5B9A7D12AFA7878E4AF665B59E7E6DFEE6C20F,
)
_PAILLIER: Final = (
    0xDF89214368E34CDC97B8DC1B,
    0xCEC4710AB19C4D1487B3BC63,
    0x264799997282DBF29AFF2659B513D2C9813527AFE4524CC2,
)
_PAILLIER_CASE: Final = (
    0x5D7282744F84C64CA2DB259FD71A54305FB21A3F9A571DE2,
    0xCF5D6786679E83455B9B3B015A8B3DD28FA0A596B6006C9B4030C2F91E320E30DDEB7BEDC3A55055AA611333EBF4168665478F4EFBFF33CE,
    0xFDDB229776B3FF539D28D0D9C4972BD83C2632014D5E2FA03B585D0165B5F7F1DD84EDF515C9D3724B95009AC8324A1,
)


_TEXTBOOK_CASE: Final = (
    0x5D7282744F84C64CA2DB259FD71A54305FB21A3F9A571DE2,
    0x91101FEBA220C1A7CEC778C921FB41571B1536DB5B82499D370B41A0258F0348A68541677C777301,
    0x6301EF0A8EB8277647EAF86A52B12DF79DB0FDB3C69DD003830E16A20281E16C53F72C6D13C5B79EDAD92B00F75AFD3F,
)  # fmt: skip


def _expect(name: str, *, got: object, wanted: object) -> None:
    if got != wanted:
        raise WrongAnswer(name)


def _matrix() -> SparseMatrix:
    """[[1, 0, -3], [0, 0, 0], [2^16, 5, 0]]"""
    arrays = ([0, 2, 2, 4], [0, 2, 0, 1], [1, -3, 1 << 16, 5])
    indptr, indices, values = (np.array(a, dtype=np.int64) for a in arrays)
    return SparseMatrix(3, 3, indptr, indices, values)


def check_ring128(make: Callable[[], Ring128]) -> None:
    """Edge values of every operation, against Python's integers."""
    ring = make()
    a = [0, 1, -1, (1 << 127) - 1, -(1 << 127), (1 << 64) - 1, 1 << 64, 0x0123456789ABCDEF0123456789ABCDEF]
    b = [-1, (1 << 64) + 1, -(1 << 127), (1 << 127) - 1, -1, 1 << 63, (1 << 64) - 1, -0x7EDCBA9876543210]
    x, y = ring.from_ints(a), ring.from_ints(b)

    def signed(v: int) -> int:
        return (v + (1 << 127)) % (1 << 128) - (1 << 127)

    pairs = list(zip(a, b, strict=True))
    _expect("add", got=ring.to_ints(ring.add(x, y)), wanted=[signed(i + j) for i, j in pairs])
    _expect("sub", got=ring.to_ints(ring.sub(x, y)), wanted=[signed(i - j) for i, j in pairs])
    _expect("mul", got=ring.to_ints(ring.mul(x, y)), wanted=[signed(i * j) for i, j in pairs])
    _expect("neg", got=ring.to_ints(ring.neg(x)), wanted=[signed(-i) for i in a])
    _expect("truncate", got=ring.to_ints(ring.truncate(x, 7, first=True)), wanted=[i >> 7 for i in a])
    ceilings = [signed(-(signed(-i) >> 7)) for i in a]
    _expect("truncate", got=ring.to_ints(ring.truncate(x, 7, first=False)), wanted=ceilings)
    v = [5, -7, 1 << 100]
    wanted = [5 - 3 * (1 << 100), 0, 5 * (1 << 16) - 35]
    _expect("matvec", got=ring.to_ints(ring.matvec(_matrix(), ring.from_ints(v))), wanted=wanted)
    _expect("bytes", got=ring.to_ints(ring.from_bytes(memoryview(ring.to_bytes(x)), len(a))), wanted=a)


# RFC 7748 section 5.2, then a coordinate above p, and a point of order 8.
_X25519: Final = (
    (
        "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
        "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
        "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
    ),
    (
        "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
        "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
        "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
    ),
    (
        "0900000000000000000000000000000000000000000000000000000000000000",
        "0900000000000000000000000000000000000000000000000000000000000000",
        "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079",
    ),
    ("01" * 32, "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800", "00" * 32),
)


def check_x25519(make: Callable[[], X25519]) -> None:
    """The RFC's vectors and a point of low order, one scalar each and one for all."""
    kernel = make()
    scalars, points, wanted = (b"".join(bytes.fromhex(row[i]) for row in _X25519) for i in range(3))
    _expect("exchange", got=kernel.exchange(scalars, points), wanted=wanted)
    for i, (scalar, _, _) in enumerate(_X25519):
        masked = kernel.mask_points(bytes.fromhex(scalar), points)
        _expect("mask_points", got=masked[32 * i : 32 * i + 32], wanted=wanted[32 * i : 32 * i + 32])


# k and x, y of k G. P-256: RFC 6979 A.2.5 (private and public key), and n - 1. SM2: GM/T 0003.5 annex A (the same
# private and public key), and n - 1.
_P256: Final = (
    (
        "c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721",
        (
            "60fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb6"
            "7903fe1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299"
        ),
    ),
    (
        "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632550",
        (
            "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"
            "b01cbd1c01e58065711814b583f061e9d431cca994cea1313449bf97c840ae0a"
        ),
    ),
)
_SM2: Final = (
    (
        "3945208f7b2144b13f36e38ac6d39f95889393692860b51a42fb81ef4df7c5b8",
        (
            "09f9df311e5421a150dd7d161e4bc5c672179fad1833fc076bb08ff356f35020"
            "ccea490ce26775a52dc6ea718cc1aa600aed05fbf35e084a6632f6072da9ad13"
        ),
    ),
    (
        "fffffffeffffffffffffffffffffffff7203df6b21c6052b53bbf40939d54122",
        (
            "32c4ae2c1f1981195f9904466a39c9948fe30bbff2660be1715a4589334c74c7"
            "43c8c95c0b098863a642311c9496deac2f56788239d5b8c0fd20cd1adec60f5f"
        ),
    ),
)
# RFC 9380 J.1.1, message "abc": P
_P256_ABC: Final = (
    "0bb8b87485551aa43ed54f009230450b492fead5f1cc91658775dac4a3388a0f"
    "5c41b3d0731a27a7b14bc0bf0ccded2d8751f83493404c84a88e71ffd424212e"
)
_TAGS: Final = "QUUX-V01-CS02-with-"


def check_p256(make: Callable[[], PrimeCurve]) -> None:
    """Multiples of the generator and another point, SEC 1 both ways, RFC 9380's map."""
    curve = make()
    _check_curve(curve, _P256)
    tag = f"{_TAGS}P256_XMD:SHA-256_SSWU_RO_".encode()
    _expect("from_hash", got=curve.from_hash(Texts.of([b"abc"]), tag).hex(), wanted=_P256_ABC)


def check_sm2(make: Callable[[], PrimeCurve]) -> None:
    """As check_p256, without a map: nobody published an answer."""
    _check_curve(make(), _SM2)


def _check_curve(curve: PrimeCurve, rows: tuple[tuple[str, str], ...]) -> None:
    scalars = b"".join(bytes.fromhex(k) for k, _ in rows)
    wanted = b"".join(bytes.fromhex(point) for _, point in rows)
    _expect("base_points", got=curve.base_points(scalars), wanted=wanted)
    generator = curve.base_points((1).to_bytes(32, "big"))
    _expect("exchange", got=curve.exchange(scalars, generator * len(rows)), wanted=wanted)
    _expect("mask_points", got=curve.mask_points(scalars[:32], generator + wanted[64:])[:64], wanted=wanted[:64])
    for compressed in (False, True):
        data = curve.encode(wanted, compressed=compressed)
        _expect("decode", got=curve.decode(data, compressed=compressed), wanted=wanted)


# RFC 9380 J.4.1 (P.x, as printed), J.5.1 (P as RFC 8032 encodes it), message "abc"; RFC 9496 A.1 (2 B) and A.3 (first).
_CURVE25519_ABC: Final = "2b4419f1f2d48f5872de692b0aca72cc7b0a60915dd70bde432e826b6abc526d"
_EDWARDS25519_ABC: Final = "31558a26887f23fb8218f143e69d5f0af2e7831130bd5b432ef23883b895839a"
_RISTRETTO_2B: Final = "6a493210f7499cd17fecb510ae0cea23a110e8d5b901f8acadd3095c73a3b919"
_RISTRETTO_B: Final = "e2f2ae0a6abc4e71a884a961c500515f58e30b6aa582dd8db6a65945e08d2d76"
_RISTRETTO_DERIVED: Final = (
    (
        "5d1be09e3d0c82fc538112490e35701979d99e06ca3e2b5b54bffe8b4dc772c1"
        "4d98b696a1bbfb5ca32c436cc61c16563790306c79eaca7705668b47dffe5bb6"
    ),
    "3066f82a1a747d45120d1740f14358531a8f04bbffe6a819f86dfe50f44a0a46",
)


def check_group25519(make: Callable[[], Group25519]) -> None:
    """Both maps of RFC 9380 on "abc", RFC 9496's derivation, a doubling of the generator."""
    group, abc = make(), Texts.of([b"abc"])
    tags = [f"{_TAGS}{suite}_XMD:SHA-512_ELL2_RO_".encode() for suite in ("curve25519", "edwards25519")]
    _expect("to_curve25519", got=group.to_curve25519(abc, tags[0])[::-1].hex(), wanted=_CURVE25519_ABC)
    _expect("to_edwards25519", got=group.to_edwards25519(abc, tags[1]).hex(), wanted=_EDWARDS25519_ABC)
    uniform, element = (bytes.fromhex(text) for text in _RISTRETTO_DERIVED)
    _expect("derive", got=group.derive(uniform), wanted=element)
    doubled = group.mask_elements(b"\2" + bytes(31), bytes.fromhex(_RISTRETTO_B))
    _expect("mask_elements", got=doubled.hex(), wanted=_RISTRETTO_2B)


# FIPS 180-4 and GB/T 32905-2016: "abc", and the text of the two blocks' example.
_DIGESTS: Final = {
    "sha256": (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
    ),
    "sm3": (
        "66c7f0f462eeedd9d1f2d46bdc10e4e24167c4875cf2f7a2297da02b8f4ba8e0",
        "debe9ff92275b8a138604889c18e5a4d6fdb70e5387e5765293dcba39c0c5732",
    ),
}
_TWO_BLOCKS: Final = {"sha256": b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", "sm3": b"abcd" * 16}


def check_sha256(make: Callable[[], Digest]) -> None:
    """The standard's examples, side by side."""
    _check_digest(make(), "sha256")


def check_sm3(make: Callable[[], Digest]) -> None:
    """As check_sha256."""
    _check_digest(make(), "sm3")


def _check_digest(kernel: Digest, algorithm: str) -> None:
    got = kernel.digest(Texts.of([b"abc", _TWO_BLOCKS[algorithm]]))
    _expect("digest", got=got.hex(), wanted="".join(_DIGESTS[algorithm]))


def check_power(make: Callable[[], ModularPower]) -> None:
    """Small numbers, edges and one long modulus, against Python's pow."""
    kernel = make()
    for n in (3, (1 << 64) - 59, (1 << 130) + 9):
        bases, powers = [0, 1, n - 1, n // 2, 2], [3, 0, (1 << 128) - 1, 5, 1 << 100]
        got = kernel.power(n, _limbs(bases), _limbs(powers))
        wanted = [pow(b, e, n) for b, e in zip(bases, powers, strict=True)]
        _expect("power", got=_ints(got), wanted=wanted)
        got = kernel.power(n, _limbs(bases), _limbs([65537]), secret=False)
        _expect("power", got=_ints(got), wanted=[pow(b, 65537, n) for b in bases])
        got = kernel.multiply(n, _limbs(bases), _limbs(bases[::-1]))
        _expect("multiply", got=_ints(got), wanted=[a * b % n for a, b in zip(bases, bases[::-1], strict=True)])
        _expect("square", got=_ints(kernel.square(n, _limbs(bases))), wanted=[b * b % n for b in bases])
        units = [1, 2, n - 1]
        _expect("invert", got=_ints(kernel.invert(n, _limbs(units))), wanted=[pow(b, -1, n) for b in units])
        ring = kernel.ring(n)
        index, starts = np.array([4, 2, 3], np.int64), np.array([0, 2, 2, 3], np.int64)
        batch = ring.square(ring.products(ring.load(_limbs(bases)), index, starts), 2)
        wanted = [pow(v, 4, n) for v in (2 * (n - 1), 1, n // 2)]
        _expect("ring", got=_ints(ring.dump(batch)), wanted=wanted)


# SP 800-38A F.5.1 and RFC 8439 section 2.3.2 (block 1 of the stream): key, nonce, bytes from there, stream.
_AES: Final = (
    "2b7e151628aed2a6abf7158809cf4f3c", "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff", 0,
    ("ec8cdf7398607cb0f2d21675ea9ea1e4362b7c3c6773516318a077d7fc5073ae"
     "6a2cc3787889374fbeb4c81b17ba6c44e89c399ff0f198c6d40a31db156cabfe"),
)  # fmt: skip
_CHACHA: Final = (
    "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f", "000000090000004a00000000", 64,
    ("10f1e7e4d13b5915500fdd1fa32071c4c7d1f4c733c068030422aa9ac3d46c4e"
     "d2826446079faa0914c2d705d98b02a2b5129cd1de164eb9cbd083e8a2503c4e"),
)  # fmt: skip


def check_aes128ctr(make: Callable[[], Masks]) -> None:
    """The standard's key stream, and its sums and differences in every width, in one piece and in two."""
    _check_masks(make(), *_AES)


def check_chacha20(make: Callable[[], Masks]) -> None:
    """As check_aes128ctr."""
    _check_masks(make(), *_CHACHA)


def _check_masks(masks: Masks, key_text: str, nonce_text: str, start: int, stream_text: str) -> None:
    key, nonce, stream = (bytes.fromhex(text) for text in (key_text, nonce_text, stream_text))
    values = bytes(range(32)) + b"\xff" * 32
    for bits in (32, 64, 128):
        size = bits // 8
        given = _words(values, bits)
        got = masks.expand(key, nonce, np.empty_like(given), bits=bits, first=start // size)
        _expect("expand", got=got.tobytes(), wanted=stream)
        pieces = [(values[i : i + size], stream[i : i + size]) for i in range(0, len(values), size)]
        for name, operation, sign in (("add", masks.add, 1), ("sub", masks.sub, -1)):
            wanted = b"".join(
                ((int.from_bytes(x, "little") + sign * int.from_bytes(y, "little")) % (1 << bits)).to_bytes(
                    size, "little"
                )
                for x, y in pieces
            )
            got = operation(key, nonce, given, bits=bits, first=start // size)
            _expect(name, got=got.tobytes(), wanted=wanted)
            rest = operation(key, nonce, given[1:], bits=bits, first=start // size + 1)
            _expect(name, got=rest.tobytes(), wanted=wanted[size:])
        got = masks.xor(key, nonce, given, bits=bits, first=start // size)
        _expect("xor", got=got.tobytes(), wanted=bytes(a ^ b for a, b in zip(values, stream, strict=True)))


def _words(data: builtins.bytes, bits: int) -> Uints:
    """Typed for uint64; of 32 bits it is uint32."""
    flat = np.frombuffer(data, "<u4" if bits == 32 else "<u8")
    return flat.reshape(-1, 2) if bits == 128 else flat


def check_ring_matrices(make: Callable[[], RingMatrices]) -> None:
    """Both products over both rings against Python's integers, onto what is there; a Beaver product, a truncation."""
    ring = make()
    rows = [[1, (1 << 64) - 1, 5], [1 << 63, 3, (1 << 128) - 7]]
    for words in (1, 2):
        modulus = 1 << 64 * words

        def matrix(values: list[list[int]], words: int = words, modulus: int = modulus) -> Uints:
            data = b"".join((v % modulus).to_bytes(8 * words, "little") for row in values for v in row)
            flat = np.frombuffer(data, np.uint64)
            return flat.reshape((len(values), -1) if words == 1 else (len(values), -1, 2)).copy()

        a, b = matrix(rows), matrix([[2, 9], [(1 << 100) + 1, 1], [1 << 60, 3]])
        wanted = [
            [sum(x * y for x, y in zip(row, col, strict=True)) for col in ((2, (1 << 100) + 1, 1 << 60), (9, 1, 3))]
            for row in rows
        ]
        _expect("product", got=ring.product(a, b).tolist(), wanted=matrix(wanted).tolist())
        d = matrix([[3], [(1 << 64) + 5]])
        sums = [[3 * x + ((1 << 64) + 5) * y] for x, y in zip(*rows, strict=True)]
        onto = matrix([[1], [1], [1]])
        ring.product(a, d, transposed=True, onto=onto)
        _expect("product", got=onto.tolist(), wanted=matrix([[v + 1] for [v] in sums]).tolist())
        zero = np.zeros_like(onto)
        parts = [ring.beaver((a, d, zero), a, d, first=first, transposed=True) for first in (True, False)]
        twice = matrix([[5 * v] for [v] in sums])  # left d twice, left right once, a right twice
        _expect("beaver", got=ring.combine(*parts).tolist(), wanted=twice.tolist())
        cut = ring.truncate(matrix([[-5, 5]]), 1, first=True), ring.truncate(matrix([[-5, 5]]), 1, first=False)
        _expect(
            "truncate", got=[c.tolist() for c in cut], wanted=[matrix([[-3, 2]]).tolist(), matrix([[-2, 3]]).tolist()]
        )


def check_ou(make: Callable[..., AdditiveHE]) -> None:
    """Encrypt, decrypt, add, scale, matvec and both directions of serialisation under a toy key."""
    _check_he(make, _OU, _OU_CASE)


def check_paillier(make: Callable[..., AdditiveHE]) -> None:
    """As check_ou."""
    _check_he(make, _PAILLIER, _PAILLIER_CASE)


def check_paillier_textbook(make: Callable[..., AdditiveHE]) -> None:
    """As check_ou."""
    _check_he(make, _PAILLIER, _TEXTBOOK_CASE)


def _limbs(values: list[int], limbs: int = 3) -> Uints:
    data = b"".join(value.to_bytes(8 * limbs, "little") for value in values)
    return np.frombuffer(data, dtype="<u8").astype(np.uint64).reshape(len(values), limbs)


def _check_he(make: Callable[..., AdditiveHE], key: tuple[int, int, int], case: tuple[int, int, int]) -> None:
    he = make(insecure_min_bits=192)
    secret = he.from_factors(*key)
    public = he.load_public(memoryview(secret.public.to_bytes()))
    message, noise, ciphertext = case
    size = (public.noise_bits + 7) // 8
    batch = public.encrypt(_limbs([message]), _Script(noise.to_bytes(size, "little")))
    wanted = ciphertext.to_bytes(public.ciphertext_bytes, "little")
    _expect("encrypt", got=public.dump(batch), wanted=wanted)
    batch = secret.public.load(memoryview(wanted), 1)
    _expect("decrypt", got=_ints(secret.decrypt(batch)), wanted=[message])
    owned = secret.encrypt(_limbs([message]), _Script(noise.to_bytes(size, "little")))
    _expect("encrypt by the owner", got=_ints(secret.decrypt(owned)), wanted=[message])
    small = public.encrypt(_limbs([3, 10, 1000]), _Script(bytes(range(1, 3 * size + 1))))
    shifted = public.add_plain(public.matvec(_matrix(), small), _limbs([1 << 30] * 3))
    wanted_sums = [3 - 3000 + (1 << 30), 1 << 30, 3 * (1 << 16) + 50 + (1 << 30)]
    _expect("matvec", got=_decrypt(public, secret, shifted), wanted=wanted_sums)
    _expect("add", got=_decrypt(public, secret, public.add(small, small)), wanted=[6, 20, 2000])
    _expect("scale", got=_decrypt(public, secret, public.scale(small, _limbs([7, 0, 1]))), wanted=[21, 0, 1000])
    masked = public.mask(small, _limbs([1, 2, 3]), _Script(b"\7" * 3 * size), noise_bits=8)
    _expect("mask", got=_decrypt(public, secret, masked), wanted=[4, 12, 1003])
    _expect("subtract", got=_decrypt(public, secret, public.subtract(masked, small)), wanted=[1, 2, 3])
    index, starts = np.array([2, 0, 1, 1], np.int64), np.array([0, 2, 2, 4], np.int64)
    _expect("sums", got=_decrypt(public, secret, public.sums(small, index, starts)), wanted=[1003, 0, 20])
    moved = public.shift(public.shift(small, -7), 5)
    _expect("shift", got=_decrypt(public, secret, public.add_plain(moved, _limbs([9] * 3))), wanted=[10, 17, 1007])


def _ints(plain: Uints) -> list[int]:
    size = 8 * plain.shape[1]
    data = plain.tobytes()
    return [int.from_bytes(data[i : i + size], "little") for i in range(0, len(data), size)]


def _decrypt(public: HePublicKey, secret: HeSecretKey, batch: Ciphertexts) -> list[int]:
    """By way of the wire, as between two parties."""
    return _ints(secret.decrypt(secret.public.load(memoryview(public.dump(batch)), len(batch))))
