"""P-256 and SM2 over every backend: Wycheproof, RFC 6979 and GM/T 0003.5, OpenSSL, RFC 9380, edge scalars and sizes."""

import json
import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

import specs
from accel.backends.reference import HashlibDigest, IntegerCurve
from accel.backends.reference.prime_curve import CURVES
from accel.kernels import BadInput, PrimeCurve, Texts
from accel.probe import probe
from accel.registry import BACKENDS
from accel.tries import incremented_points, rehashed_points

VECTORS = json.loads((Path(specs.__file__).parent / "vectors" / "curves.json").read_text(encoding="utf-8"))
NAMES = [backend.name for backend in BACKENDS["curve.p256"] if backend.refuses(probe()) is None]


def make(curve: str, backend: str) -> PrimeCurve:
    made: PrimeCurve = next(b for b in BACKENDS[f"curve.{curve}"] if b.name == backend).make()
    return made


@pytest.fixture(scope="module", params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["p256", "sm2"])
def kernel(request: pytest.FixtureRequest, name: str) -> PrimeCurve:
    return make(request.param, name)


def scalars(*values: int) -> bytes:
    return b"".join(value.to_bytes(32, "big") for value in values)


def generator(curve: str) -> bytes:
    return scalars(*CURVES[curve].generator)


def edges(n: int) -> list[int]:
    return [
        0, 1, 2, 3, 15, 16, 17, 31, 32,
        n - 1, n - 2, n - 3, n - 15, n - 16, n - 17, n, n + 1, n + 2, n // 2, n // 2 + 1,
        2**256 - 1, 2**255, 2**252, 2**252 - 1, 2**128, 0x1111 << 200, int("f" * 63, 16), int("8" * 64, 16),
    ]  # fmt: skip


def test_wycheproof(name: str) -> None:
    kernel = make("p256", name)
    good, ks, wanted, refused = [], [], [], 0
    for case in VECTORS["ecdh_p256"]:
        public = bytes.fromhex(case["public"])
        try:
            point = kernel.decode(public, compressed=len(public) == 33)
            assert len(point) == 64
        except BadInput:
            assert case["x"] is None, case["id"]
            refused += 1
            continue
        except AssertionError:
            assert case["public"] == ""  # no bytes are no points, not a wrong one
            refused += 1
            continue
        assert case["x"] is not None, case["id"]
        good.append(point)
        ks.append(bytes.fromhex(case["k"]))
        wanted.append(case["x"])
    products = kernel.exchange(b"".join(ks), b"".join(good))
    assert [products[i : i + 32].hex() for i in range(0, len(products), 64)] == wanted
    assert len(wanted) > 60
    assert refused > 20


@pytest.mark.parametrize("curve", ["p256", "sm2"])
def test_edge_scalars_as_the_reference(curve: str, name: str) -> None:
    kernel, n, reference = make(curve, name), CURVES[curve].n, IntegerCurve(curve)
    values = edges(n)
    point = reference.base_points(scalars(0x1234567 << 100))
    wanted = reference.exchange(scalars(*values), point * len(values))
    assert kernel.exchange(scalars(*values), point * len(values)) == wanted
    assert kernel.base_points(scalars(*values)) == reference.base_points(scalars(*values))
    for value in (0, 1, n - 1, n, n - 16):
        assert kernel.mask_points(scalars(value), point * 3) == reference.mask_points(scalars(value), point * 3)
    assert kernel.mask_points(scalars(0), point) == bytes(64)
    assert kernel.mask_points(scalars(n), point) == bytes(64)


@pytest.mark.parametrize("curve", ["p256", "sm2"])
@pytest.mark.parametrize("core", [name for name in NAMES if name != "reference"])
def test_scalars_around_every_window_agree_with_the_generators_tables(curve: str, core: str) -> None:
    """Digits +-1 and +-15 at every place, runs of one digit, multiples of n, on points that are small multiples of each
    other: what a sum might meet that is its own operand, or its negative.
    """
    kernel, n = make(curve, core), CURVES[curve].n
    values = [n // 2 + d for d in range(-17, 19)] + [n + d for d in range(-34, 35)] + list(range(70))
    for window in range(4, 256, 4):
        values += [(1 << window) + d for d in (-15, -1, 1, 15)] + [(n - (1 << window) + d) % 2**256 for d in (-1, 1)]
        values += [int("f" * (window // 4), 16) << (256 - window), n - (n >> window)]
    points = kernel.base_points(scalars(*(1 + i % 16 for i in range(len(values)))))
    wanted = kernel.base_points(scalars(*((1 + i % 16) * k % n for i, k in enumerate(values))))
    assert kernel.exchange(scalars(*values), points) == wanted


@pytest.mark.parametrize("count", [1, 7, 8, 9, 16, 17, 31, 40])
def test_random_points_as_openssl(name: str, count: int) -> None:
    kernel = make("p256", name)
    private = [ec.generate_private_key(ec.SECP256R1()) for _ in range(count)]
    ks = [key.private_numbers().private_value for key in private]
    numbers = [key.public_key().public_numbers() for key in private]
    points = b"".join(scalars(p.x, p.y) for p in numbers)
    assert kernel.base_points(scalars(*ks)) == points
    one = ec.generate_private_key(ec.SECP256R1())
    masked = kernel.mask_points(scalars(one.private_numbers().private_value), points)
    wanted = [one.exchange(ec.ECDH(), key.public_key()) for key in private]
    assert [masked[i : i + 32] for i in range(0, len(masked), 64)] == wanted


def test_every_size_gives_the_same_products_place_by_place(kernel: PrimeCurve) -> None:
    if kernel.name == "reference":
        pytest.skip("it works point by point")
    count = 300
    ks = os.urandom(32 * count)
    points = kernel.base_points(ks)
    assert points[:640] == IntegerCurve(kernel.curve).base_points(ks[:320])
    shared = kernel.mask_points(ks[:32], points)
    each = kernel.exchange(ks[::-1], points)
    for size in (0, 1, 8, 255, 256, 257, 272):
        assert kernel.mask_points(ks[:32], points[: 64 * size]) == shared[: 64 * size]
        assert kernel.exchange(ks[::-1][: 32 * size], points[: 64 * size]) == each[: 64 * size]
        assert kernel.base_points(ks[: 32 * size]) == points[: 64 * size]


@settings(max_examples=15, deadline=None)
@given(size=st.integers(0, 70), a=st.binary(min_size=32, max_size=32), b=st.binary(min_size=32, max_size=32))
def test_masking_commutes(size: int, a: bytes, b: bytes) -> None:
    for curve in ("p256", "sm2"):
        kernel = make(curve, NAMES[0])
        points = kernel.base_points(os.urandom(32 * size))
        n = CURVES[curve].n
        if int.from_bytes(a, "big") % n and int.from_bytes(b, "big") % n:
            left = kernel.mask_points(a, kernel.mask_points(b, points))
            assert left == kernel.mask_points(b, kernel.mask_points(a, points))


def test_what_is_no_point_is_refused(kernel: PrimeCurve) -> None:
    curve = CURVES[kernel.curve]
    x, y = curve.generator
    good = generator(kernel.curve)
    wrong = [
        scalars(x, y + 1), scalars(x + 1, y), bytes(64), scalars(0, 1), scalars(x, 0), scalars(curve.p, y),
        b"\xff" * 64, scalars(x, curve.p),
    ]  # fmt: skip
    # a coordinate that is right modulo p, but not below it
    small = next(v for v in range(100) if curve.root(curve.square(v)) is not None)
    wrong.append(scalars(small + curve.p, curve.root(curve.square(small)) or 0))
    for point in wrong:
        for place in (0, 8):
            batch = good * place + point + good
            with pytest.raises(BadInput):
                kernel.check(batch)
            with pytest.raises(BadInput):
                kernel.mask_points(scalars(5), batch)
            with pytest.raises(BadInput):
                kernel.exchange(scalars(5) * (place + 2), batch)
    for secret, points in ((bytes(31), good), (bytes(32), good[:-1]), (b"", good)):
        with pytest.raises(BadInput):
            kernel.mask_points(secret, points)
        with pytest.raises(BadInput):
            kernel.exchange(secret + secret, points)
    with pytest.raises(BadInput):
        kernel.base_points(bytes(33))


def test_sec1_both_ways(kernel: PrimeCurve) -> None:
    points = kernel.base_points(os.urandom(32 * 10))
    for compressed, size in ((True, 33), (False, 65)):
        data = kernel.encode(points, compressed=compressed)
        assert len(data) == 10 * size
        assert kernel.decode(data, compressed=compressed) == points
        for prefix in (0, 1, 4 if compressed else 2, 5, 6, 7):
            with pytest.raises(BadInput):
                kernel.decode(bytes([prefix]) + data[1:], compressed=compressed)
        with pytest.raises(BadInput):
            kernel.decode(data[:-1], compressed=compressed)
        with pytest.raises(BadInput):
            kernel.encode(bytes(64), compressed=compressed)
        assert kernel.decode(b"", compressed=compressed) == b""
    curve = CURVES[kernel.curve]
    for x in (curve.p, 2**256 - 1, next(v for v in range(50) if curve.root(curve.square(v)) is None)):
        with pytest.raises(BadInput):
            kernel.decode(b"\2" + scalars(x), compressed=True)


def test_lifting_says_which_numbers_have_points(kernel: PrimeCurve) -> None:
    curve = CURVES[kernel.curve]
    xs = [*range(20), curve.p - 1, curve.p, curve.p + 3, 2**256 - 1]
    for odd in (False, True):
        points, found = kernel.lift(scalars(*xs), odd=odd)
        for i, x in enumerate(xs):
            root = curve.root(curve.square(x % curve.p))
            assert bool(found[i]) == (root is not None)
            assert points[64 * i : 64 * i + 32] == scalars(x % curve.p)
            if root is not None:
                assert points[64 * i + 63] % 2 == odd
                kernel.check(points[64 * i : 64 * i + 64])


@pytest.mark.parametrize("suite", ["P256_XMD:SHA-256_SSWU_RO_", "P256_XMD:SHA-256_SSWU_NU_"])
def test_the_rfcs_hash_to_curve(name: str, suite: str) -> None:
    vectors = VECTORS["hash_to_curve"][suite]
    texts = Texts.of([case["msg"].encode() for case in vectors["cases"]])
    got = make("p256", name).from_hash(texts, vectors["tag"].encode(), uniform=suite.endswith("RO_"))
    assert got.hex() == "".join(case["x"] + case["y"] for case in vectors["cases"])


@pytest.mark.parametrize("digest", ["sha256", "sm3"])
@pytest.mark.parametrize("uniform", [True, False])
def test_hashing_to_either_curve_as_the_reference(kernel: PrimeCurve, digest: str, uniform: bool) -> None:
    texts = Texts.of([bytes([i]) * i for i in range(11)])
    got = kernel.from_hash(texts, b"tag", digest=digest, uniform=uniform)
    assert got == IntegerCurve(kernel.curve).from_hash(texts, b"tag", digest=digest, uniform=uniform)
    kernel.check(got)
    assert kernel.from_hash(Texts.of([]), b"tag", digest=digest, uniform=uniform) == b""
    for tag, wrong in ((b"", digest), (b"t" * 256, digest), (b"tag", "sha512")):
        with pytest.raises(BadInput):
            kernel.from_hash(texts, tag, digest=wrong, uniform=uniform)


# The digest of the standard, section 11.3: items 62220200000000 and a number, in hex.
TRIES = [
    (rehashed_points, "sha256", 1, "02f2fc300c0f8958dfb57d24cefcd50268733d67993974167ea7e6d9fae075b6d3"),
    (rehashed_points, "sha256", 2, "029382e3642ea7c3f4d091ff53d376a18b4e4c7a3f55bc48148b9e7d4aa72c35ae"),
    (rehashed_points, "sha256", 3, "02fb8b62860b8168d9e03d6735899a63a8d40ba8283e07bc54f7bcfe64faf0c5d9"),
    (rehashed_points, "sm3", 1, "02f5d202446799fae1aa575c02046eec47b0ee7834dd9d3c473ce0ab479b9535ba"),
    (rehashed_points, "sm3", 2, "026738545a41b686847839b376d6e089bee8684ae0c35bc13f281886c59cd58390"),
    (incremented_points, "sm3", 1, "027857a6644bc0d5aff6bdd220c6b4a4fdcb7d6ea4f7eb86e2c1fa7f6e43edca65"),
    (incremented_points, "sha256", 1, "02a16947818daf62f0641c4646fdae1983f1b7f0ca3704e2a7b36875fe06b697da"),
]


@pytest.mark.req("O-030", "O-031")
def test_trying_gives_the_digests_points_and_products(name: str) -> None:
    curve = make("sm2", name)
    for points_of, digest, number, wanted in TRIES:
        texts = Texts.of([b"622202000000000" + str(number).encode(), b"another"])
        points = points_of(curve, HashlibDigest(digest), texts)
        assert curve.encode(points[:64], compressed=True).hex() == wanted
        curve.check(points)
    # kA and kB of the digest are little-endian there
    k_a, k_b = bytes(range(1, 0x21))[::-1], bytes(range(0x21, 0x41))[::-1]
    item = Texts.of([b"6222020000000001"])
    for points_of, digest, once, twice in (
        (
            rehashed_points, "sha256", "02c7c25a32b59226ee473881a27869bb54a239b458d070e4c877bb33d49b77e40d",
            "02209a942cddf06e3300b7d9d59229167a52bc6cbfa66b567c1a755803dbc55a39",
        ),
        (
            incremented_points, "sm3", "02e7927425e0b0bd35d44cdb0b2b79066fad83818a122b2c01d24817f7fd98fe5f",
            "02d37f890afbeb04e66be8aa52a4c318c03ec98a21d6ccee8ebed791a81a9e3423",
        ),
    ):  # fmt: skip
        masked = curve.mask_points(k_a, points_of(curve, HashlibDigest(digest), item))
        assert curve.encode(masked, compressed=True).hex() == once
        assert curve.encode(curve.mask_points(k_b, masked), compressed=True).hex() == twice
    assert rehashed_points(curve, HashlibDigest("sm3"), Texts.of([])) == b""


def test_trying_carries_over_whole_bytes_and_the_prime() -> None:
    class Fixed:
        name = algorithm = "fixed"

        def digest(self, texts: Texts) -> bytes:
            return b"".join(texts[i] for i in range(len(texts)))

    curve, p = IntegerCurve("sm2"), CURVES["sm2"].p
    wanted = []
    starts = [p - 1, p - 2, 2**256 - 1, *((v << 16) | 0xFFFF for v in range(30))]
    for start in starts:
        x = start % p
        while CURVES["sm2"].root(CURVES["sm2"].square(x)) is None:
            x = (x + 1) % p
        wanted.append(x)
    points = incremented_points(curve, Fixed(), Texts.of([scalars(v) for v in starts]))
    assert [int.from_bytes(points[i : i + 32], "big") for i in range(0, len(points), 64)] == wanted


def test_a_text_that_never_finds_a_point_is_refused() -> None:
    class Stuck:
        name = algorithm = "stuck"

        def digest(self, texts: Texts) -> bytes:
            return scalars(1) * len(texts)

    curve = IntegerCurve("sm2")
    assert curve.lift(scalars(1))[1].tolist() == [CURVES["sm2"].root(CURVES["sm2"].square(1)) is not None]
    x = next(v for v in range(50) if CURVES["sm2"].root(CURVES["sm2"].square(v)) is None)
    Stuck.digest = lambda self, texts: scalars(x) * len(texts)  # type: ignore[method-assign]
    with pytest.raises(BadInput, match="after 100 tries"):
        rehashed_points(curve, Stuck(), Texts.of([b"x"]))
