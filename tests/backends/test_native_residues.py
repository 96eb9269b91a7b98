"""Both native cores against Python's integers: edge values, batches around eight lanes, aliasing, all lengths."""

import itertools
import math
import random
from collections.abc import Iterator

import gmpy2
import numpy as np
import pytest

from accel.kernels import BadInput, SparseMatrix
from accel.probe import probe
from accel.registry import BACKENDS

CORES = [
    pytest.param(
        backend.name,
        marks=pytest.mark.skipif((why := backend.refuses(probe())) is not None, reason=f"{backend.name}: {why}"),
    )
    for backend in BACKENDS["he.ou"]
    if backend.name != "reference"
]
# The portable core without the assembly it uses where the CPU has adx: what other architectures run.
CORES.append(pytest.param("portable-plain"))
PAIRS = [pytest.param(f"{p.values[0]}-pairs", marks=p.marks) for p in CORES if p.values[0] == "avx512ifma"]
BITS = [3, 63, 64, 65, 511, 512, 513, 1032, 1033, 1366, 2047, 2048, 3072, 4096, 8192]


@pytest.fixture(params=CORES)
def core(request: pytest.FixtureRequest) -> str:
    pytest.importorskip("accel._native")
    return str(request.param)


@pytest.fixture(params=[*CORES, *PAIRS])
def kind(request: pytest.FixtureRequest) -> str:
    """A core, or pairs modulo a square on one."""
    pytest.importorskip("accel._native")
    return str(request.param)


def x25519_core(core: str) -> str:
    return core.removesuffix("-plain")


def rings(kind: str, bits: list[int]) -> Iterator[tuple["ResidueRing", random.Random]]:  # noqa: F821
    """Of some odd numbers of these sizes; of their squares, for pairs of the longest numbers of as many digits."""
    from accel.backends.native.residues import ResidueRing

    core = kind.removesuffix("-pairs")
    for size in bits:
        rng = random.Random(size)
        length = size if core == kind else size // 2 // 520 * 520 + 512
        # all ones: the largest digits
        for n in (rng.getrandbits(length) | 1 | 1 << (length - 1), (1 << length) - 1, (1 << (length - 1)) + 1):
            square = gmpy2.mpz(n) ** 2
            ring = ResidueRing(core, n) if core == kind else ResidueRing(core, square, root=gmpy2.mpz(n))
            assert ("-pairs" in ring._core) is ("-pairs" in kind)
            yield ring, rng


def values(n: int, rng: random.Random, count: int) -> list[int]:
    edges = [0, 1, n - 1, n // 2, n - 2, 2 % n]
    return (edges + [rng.randrange(n) for _ in range(count)])[:count]


def load(ring, numbers):
    return ring.load(b"".join(v.to_bytes(ring.size, "little") for v in numbers), ring.size)


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 17])
def test_conversion_products_and_squares(kind: str, count: int) -> None:
    for ring, rng in rings(kind, BITS):
        n = int(ring.modulus)
        a, b = values(n, rng, count), values(n, rng, count)[::-1]
        x, y = load(ring, a), load(ring, b)
        assert ring.numbers(x) == a
        assert ring.numbers(ring.mul(x, y)) == [i * j % n for i, j in zip(a, b, strict=True)]
        assert ring.numbers(ring.mul(x, x)) == [i * i % n for i in a]
        assert ring.numbers(ring.square(x, 1)) == [i * i % n for i in a]
        assert ring.numbers(ring.square(x, 3)) == [pow(i, 8, n) for i in a]
        assert ring.numbers(ring.mul(x, ring.one)) == a
        ring.multiply_into(x, x, y)
        assert ring.numbers(x) == [i * j % n for i, j in zip(a, b, strict=True)]


def test_long_chains_stay_in_range(kind: str) -> None:
    """Values between n and 2n must not grow: many dependent products of all kinds."""
    for ring, _ in rings(kind, [64, 512, 1032, 2048]):
        n = int(ring.modulus)
        x, wanted = load(ring, [n - 1, 1, 0, n // 3]), [n - 1, 1, 0, n // 3]
        for _ in range(40):
            x = ring.mul(ring.square(x, 2), x)
            wanted = [pow(v, 5, n) for v in wanted]
        assert ring.numbers(x) == wanted


@pytest.mark.parametrize("count", [1, 8, 11])
def test_powers(kind: str, count: int) -> None:
    for ring, rng in rings(kind, [3, 64, 521, 1366, 2048]):
        n = int(ring.modulus)
        a = values(n, rng, count)
        x = load(ring, a)
        for bits in (1, 8, 13, 40, 161, 601, 1801):
            for e in (0, 1, (1 << bits) - 1, rng.getrandbits(bits)):
                data = e.to_bytes((bits + 7) // 8, "little")
                assert ring.numbers(ring.power(x, data, bits)) == [pow(i, e, n) for i in a]
                assert ring.numbers(ring.power_public(x, e)) == [pow(i, e, n) for i in a]
                break_early = n > 1 << 600 and bits > 600
                if break_early:
                    break
        exps = [0, (1 << 128) - 1, 1] + [rng.getrandbits(128) for _ in a]
        data = b"".join(e.to_bytes(16, "little") for e in exps[:count])
        if count > 1:
            assert ring.numbers(ring.power(x, data, 128)) == [pow(i, e, n) for i, e in zip(a, exps, strict=False)]


def test_windows_of_every_length(core: str) -> None:
    """Exponents on both sides of each change of windows, with long runs of ones and of zeros."""
    for ring, rng in rings(core, [64]):
        n = int(ring.modulus)
        a = values(n, rng, 9)
        x = load(ring, a)
        lengths = [size + more for size in (8, 16, 40, 48, 120, 160, 320, 600, 700, 1800) for more in (0, 1)]
        for bits in [1, 2, 3, *lengths]:
            top = 1 << (bits - 1)
            for e in (0, top, top | 1, 2 * top - 1, top | top >> 7, (2 * top - 1) // 3, rng.getrandbits(bits)):
                wanted = [pow(i, e, n) for i in a]
                assert ring.numbers(ring.power_public(x, e)) == wanted
                data = e.to_bytes((bits + 7) // 8, "little")
                assert ring.numbers(ring.power(x, data, bits)) == wanted


@pytest.mark.parametrize("bits", [8192, 16384])
def test_longest_columns_do_not_overflow(kind: str, bits: int) -> None:
    """Digits that are all ones, modulo numbers whose digits and whose multiples' digits are all ones or nearly."""
    from accel.backends.native.residues import ResidueRing

    core = kind.removesuffix("-pairs")
    for root in ((1 << bits // 2) - 1, (1 << bits // 2 - 1) + 1):
        n, one = root**2 if core != kind else root**2 - 2, (1 << 52) - 1
        ring = ResidueRing(core, gmpy2.mpz(n), root=gmpy2.mpz(root) if core != kind else None)
        ones = sum(one << 104 * k for k in range(n.bit_length() // 104))
        a = [n - 1, (1 << n.bit_length() - 1) - 1, ones, ones << 52, n - ones, 1 << 52]
        x = load(ring, a)
        assert ring.numbers(ring.mul(x, x[::-1].copy())) == [i * j % n for i, j in zip(a, a[::-1], strict=True)]
        for _ in range(3):
            x = ring.mul(ring.square(x, 1), x)
        assert ring.numbers(x) == [pow(i, 27, n) for i in a]


def test_a_dump_is_canonical_whatever_stands_in_the_digits(kind: str) -> None:
    """Rows as no call leaves them, up to all ones, and moduli on both sides of where the multiple that reduces has one
    digit more.
    """
    from accel.backends.native.residues import ResidueRing

    core = kind.removesuffix("-pairs")
    for bits in (467, 468, 469, 511, 512, 987, 988, 989, 1032):
        for root in ((1 << bits) - 1, (1 << (bits - 1)) + 1):
            n = root if core == kind else root**2
            ring = ResidueRing(core, gmpy2.mpz(n), root=None if core == kind else gmpy2.mpz(root))
            digits, stride, digit_bits = ring._layout
            radix, parts = 1 << (digits * digit_bits), 1 if core == kind else 2
            numbers = [
                x % radix for x in (0, root - 1, root, root + 1, 2 * root - 1, 2 * root, 3 * root, 24 * root, -1)
            ]
            elements = list(itertools.product(numbers, repeat=parts))
            rows = np.zeros((len(elements), stride), np.uint64)
            for row, element in zip(rows, elements, strict=True):
                for j in range(digits * parts):
                    row[j] = element[j // digits] >> (digit_bits * (j % digits)) & ((1 << digit_bits) - 1)
            wanted = [sum(x * root**k for k, x in enumerate(e)) * pow(radix, -1, n) % n for e in elements]
            assert ring.numbers(rows) == wanted


@pytest.mark.parametrize("leaking", [False, True])
def test_fixed_bases(kind: str, leaking: bool) -> None:
    from accel.backends.native.residues import FixedBase

    for ring, rng in rings(kind, [3, 192, 1033]):
        n = int(ring.modulus)
        base = FixedBase(ring, 5 % n, leaking=leaking)
        start = values(n, rng, 9)
        for size in (1, 3, 20):  # grows
            exps = [0, (1 << 8 * size) - 1] + [rng.getrandbits(8 * size) for _ in range(7)]
            data = b"".join(e.to_bytes(size, "little") for e in exps)
            got = ring.numbers(base.multiply(load(ring, start), data, size=size, bits=8 * size))
            assert got == [s * pow(5, e, n) % n for s, e in zip(start, exps, strict=True)]


@pytest.mark.parametrize("window", [1, 2, 5, 6, 7])
def test_fixed_tables_of_every_window(kind: str, window: int) -> None:
    for ring, rng in rings(kind, [64, 1366]):
        n, windows = int(ring.modulus), 3
        for leaking in (False, True):
            table = ring.table(ring.take(3), window, windows, leaking=leaking)
            exps = [0, (1 << window * windows) - 1] + [rng.getrandbits(window * windows) for _ in range(150)]
            data = b"".join(e.to_bytes(3, "little") for e in exps)
            got = ring.fixed_power(
                ring.one, table, data, size=3, window=window, windows=windows, leaking=leaking
            )  # fmt: skip
            assert ring.numbers(got) == [pow(3, e, n) for e in exps]


def test_products_of_segments_and_inverses(kind: str) -> None:
    for ring, rng in rings(kind, [64, 600]):
        n = int(ring.modulus)
        a = [rng.randrange(1, n) for _ in range(50)]
        x = load(ring, a)
        for lengths in ([], [0], [1], [0, 3, 1, 0, 2], [700], [5] * 20, [1000, 1, 0, 300]):
            starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)
            idx = np.array([rng.randrange(50) for _ in range(sum(lengths))], dtype=np.int64)
            wanted = []
            for s, e in itertools.pairwise(starts):
                product = 1
                for i in idx[s:e]:
                    product = product * a[i] % n
                wanted.append(product)
            assert ring.numbers(ring.product(x, idx, starts)) == wanted
    for ring, rng in rings(kind, [61]):
        n = int(ring.modulus)
        units = [v for v in (rng.randrange(1, n) for _ in range(60)) if math.gcd(v, n) == 1]
        for count in (0, 1, 2, 3, 7, 16, min(21, len(units))):
            got = ring.numbers(ring.invert(load(ring, units[:count])))
            assert got == [pow(v, -1, n) for v in units[:count]]
        with pytest.raises(BadInput):
            ring.invert(load(ring, [1, 0]))


@pytest.mark.parametrize("threads", [1, 3])
def test_weighted_products_of_buckets(kind: str, threads: int) -> None:
    from accel.backends.native import multiexp

    for ring, rng in rings(kind, [64, 600]):
        root = gmpy2.isqrt(ring.modulus) if "-pairs" in kind else None
        ring = type(ring)(ring.core, ring.modulus, root=root, threads=threads)  # noqa: PLW2901
        n = int(ring.modulus)
        a = [1, n - 1, *(rng.randrange(1, n) for _ in range(20))]
        x = load(ring, a)
        for tasks, sizes, longest in ((0, 4, 1), (1, 1, 3), (1, 64, 2), (3, 32, 0), (7, 2, 5), (8, 4, 1), (41, 8, 3)):
            lengths = [rng.randrange(longest + 1) for _ in range(tasks * sizes)]
            starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)
            idx = np.array([rng.randrange(len(a)) for _ in range(sum(lengths))], dtype=np.int64)
            wanted, plain = [1] * tasks, [1] * tasks
            for s, (begin, end) in enumerate(itertools.pairwise(starts)):
                for i in idx[begin:end]:
                    wanted[s // sizes] = wanted[s // sizes] * pow(a[i], s % sizes + 1, n) % n
                    plain[s // sizes] = plain[s // sizes] * a[i] % n
            got = ring.buckets(x, idx, starts, sizes)
            assert [ring.numbers(rows) for rows in got] == [wanted, plain]
            assert ring.numbers(multiexp._weigh(ring, x, idx, starts, sizes)) == wanted


@pytest.mark.parametrize("window", [1, 2, 5, 14])
def test_digits_of_the_largest_entry(window: int) -> None:
    from accel import _native
    from accel.backends.native import multiexp

    for size in (0, 1, (1 << window - 1), (1 << window - 1) + 1, (1 << 39) + 5, (1 << 40) - 1):
        count, top = multiexp.digits_of(size, window)
        used, _ = _native.count_digits(np.array([size, -size], np.int64), window)
        assert used <= 2 * count
        assert (top >= 1) == (size > 0)
        assert multiexp.digits_of(size + 1, window) >= (count, top)


def test_quotients_of_fermat_by_pairs(core: str) -> None:
    """(c^(p-1) mod p^2 - 1) / p, for c of up to four times the prime's digits."""
    from accel.backends.native.residues import ResidueRing

    for start in (2**521 - 2, 2**512 - 570, 2**1024 - 106, 3 * 2**1022):
        p = int(gmpy2.next_prime(start))
        ring = ResidueRing(core, gmpy2.mpz(p), threads=2)
        exponent = int(p - 1).to_bytes(ring.size, "little")
        rng = random.Random(p)
        for size, count in ((1, 1), (ring.size, 9), (2 * ring.size, 8), (ring.size * 7 // 2, 17)):
            top = 1 << 8 * size
            numbers = ([top - 1, 1, p + 1, p * p - 1, p * p + 2] + [rng.randrange(1, top) for _ in range(20)])[:count]
            numbers = [v % top or 1 for v in numbers]
            numbers = [v if v % p else v - 1 for v in numbers]
            data = np.frombuffer(b"".join(v.to_bytes(size, "little") for v in numbers), np.uint8).reshape(-1, size)
            got = ring.logs(data, exponent, p.bit_length())
            if core != "avx512ifma" or p.bit_length() == 521:
                assert got is None
                continue
            wanted = [(pow(v, p - 1, p * p) - 1) // p for v in numbers]
            assert [int.from_bytes(row.tobytes(), "little") for row in got] == wanted
        assert ring.logs(np.zeros((1, 5 * ring.size), np.uint8), exponent, p.bit_length()) is None


def test_linear_forms_of_long_numbers(kind: str) -> None:
    for ring, rng in rings(kind, [65, 520, 1366]):
        n = int(ring.modulus)
        for size in (1, 100, 300):
            if 8 * size > 6 * max(64, n.bit_length()):
                continue
            long = [(1 << 8 * size) - 1, 0, *(rng.getrandbits(8 * size) for _ in range(7))]
            short = [255, 0, *(rng.getrandbits(8) for _ in range(7))]
            data = np.frombuffer(b"".join(v.to_bytes(size, "little") for v in long), np.uint8).reshape(-1, size)
            more = np.array(short, np.uint8).reshape(-1, 1)
            got = ring.numbers(ring.combine((data, 7 % n), (more, n - 1)))
            assert got == [(7 * i - j) % n for i, j in zip(long, short, strict=True)]


def test_matvec_by_tables_and_by_buckets(kind: str) -> None:
    from accel.backends.native import multiexp

    rng = np.random.default_rng(1)
    for ring, _ in rings(kind, [500]):
        n = int(ring.modulus)
        for size in (1, 100, (1 << 40) - 1):
            dense = rng.integers(0 if size == 1 else -size, size + 1, (9, 5)) * (rng.random((9, 5)) < 0.7)
            row, col = np.nonzero(dense)
            indptr = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=9))]).astype(np.int64)
            matrix = SparseMatrix(9, 5, indptr, col.astype(np.int64), dense[row, col].astype(np.int64))
            bases = [v for v in range(2, 200) if math.gcd(v, n) == 1][:5]
            wanted = [1] * 9
            for i in range(9):
                for j in range(5):
                    wanted[i] = wanted[i] * pow(bases[j], int(dense[i, j]), n) % n
            for window in (1, 2, 5, 8, 13):
                windows, _ = multiexp.digits_of(max(size, 1), window)
                for tables, inverses in ((True, True), (False, True), (False, False)):
                    if window > 8 and tables:
                        continue  # long, and nobody would
                    plan = multiexp.Plan(window, windows, True, tables, inverses)
                    way = multiexp._by_tables if tables else multiexp._by_buckets
                    assert ring.numbers(way(ring, matrix, load(ring, bases), plan)) == wanted
            assert ring.numbers(multiexp.matvec(ring, matrix, load(ring, bases))) == wanted


def test_the_binding_checks_every_length(core: str) -> None:
    from accel import _native

    with pytest.raises(ValueError):
        _native.layout("nonesuch", 64)
    with pytest.raises(ValueError):
        _native.layout(core, 20000)
    with pytest.raises(ValueError):
        _native.modulus(core, 8, np.full((3, _native.layout(core, 8)[1]), 2, np.uint64), 1)
    stride = _native.layout(core, 8)[1]
    with pytest.raises(ValueError):
        _native.modulus(core, 8, np.ones((2, stride), np.uint64), 1)
    handle = _native.modulus(core, 8, np.full((3, stride), 251, np.uint64), 1)
    three, two, one = (np.zeros((k, stride), np.uint64) for k in (3, 2, 1))
    none = np.zeros(0, np.int64)
    idx = np.array([0, 5], np.int64)
    unit, one_place = np.array([0, 1], np.int64), np.ones(1, np.int64)
    calls = [
        lambda: _native.mul(handle, three, two, three),
        lambda: (
            _native.mul(handle, three[:, :-1].copy(), three, three)
            if stride > 1
            else _native.mul(handle, one, two, two)
        ),
        lambda: _native.square(handle, three, two, 1),
        lambda: _native.square(handle, three, three, 0),
        lambda: _native.load(handle, three, b"\1\2", 1, one),
        lambda: _native.load(handle, one, bytes(200), 200, one),
        lambda: _native.load(handle, three, b"\1\2\3", 0, one),
        lambda: _native.dump(handle, bytearray(2), 1, three),
        lambda: _native.affine(handle, three, three, b"\1", 1, one),
        lambda: _native.power(handle, three, three, b"\1\1", 8, True),
        lambda: _native.power(handle, three, three, b"\1\1\1", 8, False),
        lambda: _native.power(handle, three, three, b"", 0, True),
        lambda: _native.fixed_table(handle, three, one, 1, True),
        lambda: _native.fixed_power(handle, one, one, two, 1, 2, b"\1", 1, True),
        lambda: _native.segments(handle, one, two, idx, np.array([0, 2], np.int64)),
        lambda: _native.segments(handle, one, two, idx[:1], np.array([0, 2], np.int64)),
        lambda: _native.segments(handle, two, two, idx[:1], np.array([1, 0, 1], np.int64)),
        lambda: _native.buckets(handle, one, two, idx[:1], np.array([0, 1], np.int64), 1),
        lambda: _native.buckets(handle, two, two, idx, np.array([0, 2], np.int64), 1),
        lambda: _native.buckets(handle, two, two, idx[:1], np.array([0, 1], np.int64), 0),
        lambda: _native.buckets(handle, two, two, idx[:1], np.array([0, 1, 1], np.int64), 3),
        lambda: _native.buckets(handle, two, two, idx[:1], none, 1),
        lambda: _native.logs(handle, bytearray(1), 1, b"\1\2", 1, np.zeros((4, stride), np.uint64), one, b"\1", 8),
        lambda: _native.logs(handle, bytearray(1), 1, b"\1", 1, three, one, b"\1", 8),
        lambda: _native.logs(handle, bytearray(1), 1, b"\1", 1, np.zeros((4, stride), np.uint64), two, b"\1", 8),
        lambda: _native.logs(handle, bytearray(1), 1, b"\1", 1, np.zeros((4, stride), np.uint64), one, b"\1", 9),
        lambda: _native.sort_digits(none, none, none, 1, 1, 1, 2, none, none, 1),
        lambda: _native.sort_digits(unit, one_place, one_place, 1, 1, 1, 2, np.zeros(2, np.int64), none, 1),
        lambda: _native.sort_digits(unit, one_place, one_place, 1, 1, 3, 0, np.zeros(4, np.int64), unit, 1),
        lambda: _native.sort_digits(unit, one_place, one_place + 1, 1, 1, 1, 0, np.zeros(2, np.int64), unit, 1),
        lambda: _native.sort_digits(unit, one_place, one_place, 1, 1, 1, 0, np.zeros(2, np.int64), unit, 0),
        lambda: _native.count_digits(none, 0),
        lambda: _native.in_range(b"\1\2", 2, b"\1", True),
        lambda: _native.x25519(x25519_core(core), bytearray(32), bytes(32), bytes(64)),
        lambda: _native.x25519(x25519_core(core), bytearray(64), bytes(96), bytes(64)),
        lambda: _native.x25519(x25519_core(core), bytearray(33), bytes(32), bytes(33)),
        lambda: _native.x25519("nonesuch", bytearray(32), bytes(32), bytes(32)),
        lambda: _native.ring128_matvec(
            np.zeros((1, 2), np.uint64), idx, idx[:1], idx[:1], np.zeros((1, 2), np.uint64), 1
        ),
        lambda: _native.ring128_matvec(
            np.zeros((1, 2), np.uint64), np.array([0, 2]), idx, idx, np.zeros((1, 2), np.uint64), 1
        ),
    ]
    if not core.startswith("avx512"):
        calls = [call for call in calls if "logs" not in call.__code__.co_names]  # this core has none
    for number, call in enumerate(calls):
        with pytest.raises((ValueError, BufferError)):  # noqa: PT012  # the second line names the case
            call()
            pytest.fail(f"case {number} was accepted")
    with pytest.raises((TypeError, ValueError)):
        _native.mul("no modulus", one, one, one)
