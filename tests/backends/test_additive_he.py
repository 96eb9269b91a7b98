"""One test body over every scheme and backend: known answers, homomorphisms, refusals, and phe as an oracle."""

import builtins
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gmpy2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import specs
from accel import linear
from accel.backends.reference.modular import is_prime
from accel.entropy import OsRandom
from accel.kernels import AdditiveHE, BadInput, HePublicKey, HeSecretKey, SparseMatrix, Uints
from accel.probe import probe
from accel.registry import BACKENDS, SCHEMES, Backend

VECTORS = json.loads((Path(specs.__file__).parent / "vectors" / "additive_he.json").read_text(encoding="utf-8"))
RANDOM = OsRandom()
MAKERS = [
    pytest.param(backend.make, id=f"{scheme}-{backend.name}")
    for scheme in SCHEMES
    for backend in BACKENDS[f"he.{scheme}"]
    if backend.refuses(probe()) is None
]
Make = Callable[..., AdditiveHE]


class Script:
    """A RandomSource that hands out given bytes."""

    def __init__(self, data: builtins.bytes) -> None:
        self._data = data

    def bytes(self, count: int, /) -> builtins.bytes:
        part, self._data = self._data[:count], self._data[count:]
        assert len(part) == count
        return part


class Seeded:
    """A RandomSource that repeats."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def bytes(self, count: int, /) -> builtins.bytes:
        return self._random.randbytes(count)


def limbs(values: list[int], count: int = 12) -> Uints:
    data = b"".join(value.to_bytes(8 * count, "little") for value in values)
    return np.frombuffer(data, dtype="<u8").astype(np.uint64).reshape(len(values), count)


def integers(plain: Uints) -> list[int]:
    return [int.from_bytes(row.tobytes(), "little") for row in plain]


@pytest.fixture(scope="module", params=MAKERS)
def key(request: pytest.FixtureRequest) -> tuple[AdditiveHE, HeSecretKey]:
    he = request.param(insecure_min_bits=512)
    return he, he.generate(512, RANDOM)


def case_limbs(bits: int) -> int:
    return bits // 64 + 1


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("which", [0, 1], ids=["192", "2048"])
def test_known_answers(make: Make, which: int) -> None:
    he = make(insecure_min_bits=192)
    vector = VECTORS[he.scheme][which]
    secret = he.from_factors(*(int(vector[name], 16) for name in ("p", "q", "base")))
    public = he.load_public(memoryview(secret.public.to_bytes()))
    assert public.modulus_bits == vector["bits"]
    for case in vector["cases"]:
        m, noise, c = (int(case[name], 16) for name in ("m", "noise", "c"))
        script = Script(noise.to_bytes(public.noise_bits // 8, "little"))
        made = public.encrypt(limbs([m], case_limbs(vector["bits"])), script)
        wire = c.to_bytes(public.ciphertext_bytes, "little")
        assert public.dump(made) == wire
        assert integers(secret.decrypt(secret.public.load(memoryview(wire), 1))) == [m]
        if he.scheme != "paillier-textbook":  # whose owner may make another ciphertext of the same bytes
            script = Script(noise.to_bytes(public.noise_bits // 8, "little"))
            assert public.dump(secret.encrypt(limbs([m], case_limbs(vector["bits"])), script)) == wire


def test_homomorphisms(key: tuple[AdditiveHE, HeSecretKey]) -> None:
    _, secret = key
    public = secret.public
    top = (1 << public.plaintext_bits) - 1
    a, b = [0, 1, top, 5], [7, 0, 0, 1 << 60]
    x, y = public.encrypt(limbs(a), RANDOM), public.encrypt(limbs(b), RANDOM)
    assert integers(secret.decrypt(x)) == a
    assert integers(secret.decrypt(public.add(x, y))) == [i + j for i, j in zip(a, b, strict=True)]
    assert integers(secret.decrypt(public.add_plain(x, limbs(b)))) == [i + j for i, j in zip(a, b, strict=True)]
    assert integers(secret.decrypt(public.scale(y, limbs([3, 9, 0, 1 << 20])))) == [21, 0, 0, 1 << 80]
    assert integers(secret.decrypt(public.mask(y, limbs([1, 2, 3, 4]), RANDOM, noise_bits=300))) == [
        8,
        2,
        3,
        4 + (1 << 60),
    ]
    again = public.rerandomise(x, RANDOM, noise_bits=13)
    assert integers(secret.decrypt(again)) == a
    assert public.dump(again) != public.dump(x)
    joined = public.join([x, y])
    left, empty, right = public.split(joined, [4, 0, 4])
    assert public.dump(left) == public.dump(x)
    assert public.dump(right) == public.dump(y)
    assert len(empty) == 0
    assert len(secret.decrypt(empty)) == 0


def test_the_owner_encrypts_as_the_public_key_does(key: tuple[AdditiveHE, HeSecretKey]) -> None:
    he, secret = key
    public = secret.public
    top = (1 << public.plaintext_bits) - 1
    for values in ([], [0], [top, 0, 1, top - 1, top >> 1, 5, 6, 7, 8], [3] * 17):
        batch = secret.encrypt(limbs(values), Seeded(1))
        assert integers(secret.decrypt(public.add(batch, public.encrypt(limbs([0] * len(values)), RANDOM)))) == values
        same = public.dump(public.encrypt(limbs(values), Seeded(1))) == public.dump(batch)
        assert same or he.scheme == "paillier-textbook"
    assert integers(secret.decrypt(secret.encrypt(limbs([9], 1), RANDOM))) == [9]
    one = limbs([1])
    tries: list[Callable[[], object]] = [
        lambda: secret.encrypt(limbs([top + 1]), RANDOM),
        lambda: secret.encrypt(one.astype(np.int64), RANDOM),  # type: ignore[arg-type]
        lambda: secret.encrypt(one[0], RANDOM),
        lambda: secret.encrypt(one[:, :0], RANDOM),
    ]
    for number, attempt in enumerate(tries):
        with pytest.raises(BadInput):  # noqa: PT012  # as below
            attempt()
            pytest.fail(f"case {number} was accepted")


@pytest.mark.parametrize("make", [p for p in MAKERS if str(p.id).startswith("paillier-textbook")])
def test_the_owner_of_a_textbook_key_draws_the_same_ciphertexts(make: Make) -> None:
    """From every r modulo N once, as often as the public key makes each of them."""
    p, q = 11, 17
    units = [r for r in range(1, p * q) if r % p and r % q]
    secret = make(insecure_min_bits=8).from_factors(p, q, 1)
    size = (secret.public.noise_bits + 7) // 8
    drawn = b"".join(r.to_bytes(size, "little") for r in units)
    width = secret.public.ciphertext_bytes
    made = []
    for encrypt in (secret.encrypt, secret.public.encrypt):
        data = secret.public.dump(encrypt(limbs([5] * len(units), 1), Script(drawn)))
        made.append(sorted(data[i : i + width] for i in range(0, len(data), width)))
    assert made[0] == made[1]
    assert len(set(made[0])) == (p - 1) * (q - 1)


def test_equal_plaintexts_have_different_ciphertexts(key: tuple[AdditiveHE, HeSecretKey]) -> None:
    public = key[1].public
    data = public.dump(public.encrypt(limbs([1] * 8), RANDOM))
    size = public.ciphertext_bytes
    assert len({data[i : i + size] for i in range(0, len(data), size)}) == 8


@pytest.mark.parametrize(
    ("rows", "cols", "density", "size"),
    [(1, 1, 1.0, 1), (40, 3, 0.9, 2**22), (3, 40, 0.9, 2**22), (20, 20, 0.1, 2**39), (5, 5, 0.0, 1), (30, 6, 0.5, -16)],
)
def test_matvec_both_ways(key: tuple[AdditiveHE, HeSecretKey], rows: int, cols: int, density: float, size: int) -> None:
    """Tables and buckets alike; a negative size stands for one-hot columns at 2^-size."""
    public, secret = key[1].public, key[1]
    rng = np.random.default_rng(rows)
    dense = np.full((rows, cols), 1 << -size) if size < 0 else rng.integers(-size, size + 1, (rows, cols))
    dense = dense * (rng.random((rows, cols)) < density)
    row, col = np.nonzero(dense)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=rows))]).astype(np.int64)
    matrix = SparseMatrix(rows, cols, indptr, col.astype(np.int64), dense[row, col].astype(np.int64))
    offset = 1 << 120
    for way, table in ((matrix, dense), (matrix.transpose(), dense.T)):
        v = [int(n) for n in rng.integers(0, 2**62, way.cols)]
        product = public.matvec(way, public.encrypt(limbs(v), RANDOM))
        wanted = [sum(int(x) * n for x, n in zip(line, v, strict=True)) + offset for line in table]
        assert integers(secret.decrypt(public.add_plain(product, limbs([offset] * way.rows)))) == wanted


def test_noise_follows_the_linear_operations(key: tuple[AdditiveHE, HeSecretKey]) -> None:
    """The contract that masking relies on: noise is an integer exponent, scaled and added as the plaintext is."""
    public = key[1].public
    if public.scheme == "paillier-textbook":
        pytest.skip("its noise is a random residue, no exponent")
    size = public.noise_bits // 8

    def encrypt(m: int, noise: int) -> Any:
        return public.encrypt(limbs([m]), Script(noise.to_bytes(size, "little")))

    a, b = encrypt(5, 1000), encrypt(6, 77)
    combined = public.add(public.scale(a, limbs([3])), b)
    assert public.dump(combined) == public.dump(encrypt(21, 3077))
    masked = public.mask(combined, limbs([1]), Script(b"\x05\x01"), noise_bits=16)
    assert public.dump(masked) == public.dump(encrypt(22, 3077 + 0x105))


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 20])
def test_every_backend_equals_the_reference_bit_by_bit(make: Make, count: int) -> None:
    """Under one key and one random source, through every operation: nothing may depend on who computes."""
    he = make(insecure_min_bits=192)
    reference = next(b for b in BACKENDS[f"he.{he.scheme}"] if b.name == "reference").make(insecure_min_bits=192)
    rng = random.Random(count)
    for vector in VECTORS[he.scheme][: 2 if count == 9 and he.scheme != "paillier-textbook" else 1]:
        factors = [int(vector[name], 16) for name in ("p", "q", "base")]
        transcripts, seed = [], rng.randrange(1 << 30)
        for scheme in (he, reference):
            source, inputs = Seeded(seed), random.Random(seed)
            secret = scheme.from_factors(*factors)
            public = scheme.load_public(memoryview(secret.public.to_bytes()))
            top = (1 << public.plaintext_bits) - 1
            plain = ([0, top, 1] + [inputs.randint(0, top) for _ in range(count)])[:count]
            size = case_limbs(vector["bits"])
            x = public.encrypt(limbs(plain, size), source)
            y = public.encrypt(limbs(plain[::-1], size), source)
            made = [x, y, public.add(x, y), public.add(x, x), public.add_plain(x, limbs(plain[::-1], size))]
            made.append(public.scale(x, limbs([inputs.getrandbits(70) for _ in plain], 2)))
            made.append(public.scale(x, limbs([0] * count, 1)))
            made.append(public.mask(x, limbs(plain[::-1], size), source, noise_bits=77))
            made.append(public.rerandomise(x, source, noise_bits=public.noise_bits + 200))
            dense = np.random.default_rng(seed).integers(-(1 << 39), 1 << 39, (5, count))
            matrix = SparseMatrix(
                5, count, np.arange(0, 5 * count + 1, count) if count else np.zeros(6, np.int64),
                np.tile(np.arange(count), 5), dense.ravel(),
            )  # fmt: skip
            made.append(public.matvec(matrix, x))
            parts = [public.dump(m) for m in made]
            loaded = [secret.public.load(memoryview(p), len(m)) for p, m in zip(parts, made, strict=True)]
            transcripts.append((parts, [secret.decrypt(m).tolist() for m in loaded]))
        assert transcripts[0] == transcripts[1]


@pytest.mark.parametrize("make", MAKERS)
def test_edge_ciphertexts_as_the_reference(make: Make) -> None:
    """1, 2 and the largest numbers below the modulus, among them its -1, through every operation."""
    he = make(insecure_min_bits=192)
    reference = next(b for b in BACKENDS[f"he.{he.scheme}"] if b.name == "reference").make(insecure_min_bits=192)
    vector = VECTORS[he.scheme][0]
    factors = [int(vector[name], 16) for name in ("p", "q", "base")]
    modulus = factors[0] ** 2 * factors[1] ** (1 if he.scheme == "ou" else 2)
    edges = [1, 2, modulus - 1, modulus - 2, modulus >> 1, (1 << modulus.bit_length() - 1) - 1]
    rows = np.array([[0, 0, 0], [1, -1, 0], [(1 << 40) - 1, 1 - (1 << 40), 1], [0, 0, -1]])
    transcripts = []
    for scheme in (he, reference):
        secret = scheme.from_factors(*factors)
        public = secret.public
        wire = b"".join(v.to_bytes(public.ciphertext_bytes, "little") for v in edges)
        x = public.load(memoryview(wire), len(edges))
        assert public.dump(x) == wire
        made = [
            public.add(x, x), public.negate(x), public.subtract(x, x), public.shift(x, -3),
            public.scale(x, limbs([7] * 6)), public.matvec(linear.dense(np.hstack([rows, rows[:, ::-1]])), x),
            public.sums(x, np.arange(6), np.array([0, 6], np.int64)),
        ]  # fmt: skip
        transcripts.append([public.dump(m) for m in made] + [secret.decrypt(x).tobytes()])
    assert transcripts[0] == transcripts[1]


def test_a_matrix_of_written_zeros(key: tuple[AdditiveHE, HeSecretKey]) -> None:
    _, secret = key
    zeros = SparseMatrix(2, 1, np.array([0, 1, 1]), np.array([0]), np.array([0]))
    product = secret.public.matvec(zeros, secret.encrypt(limbs([5]), RANDOM))
    assert integers(secret.decrypt(product)) == [0, 0]


@settings(max_examples=30, deadline=None)
@given(
    which=st.integers(0, len(MAKERS) - 1), rows=st.integers(0, 20), cols=st.integers(0, 40), bits=st.integers(1, 40),
    threads=st.integers(1, 4), seed=st.integers(0, 99),
)  # fmt: skip
def test_batches_and_matrices_of_any_size(which: int, rows: int, cols: int, bits: int, threads: int, seed: int) -> None:
    he = MAKERS[which].values[0](insecure_min_bits=192, threads=threads)
    secret = he.from_factors(*(int(VECTORS[he.scheme][0][name], 16) for name in ("p", "q", "base")))
    public, rng = secret.public, np.random.default_rng(seed)
    # The shortest plaintexts have 63 bits: 2^60 keeps every sum from being negative, and none reaches 2^62.
    values = rng.integers(0, 1 << 14, cols)
    dense = rng.integers(1 - (1 << bits), 1 << bits, (rows, cols)) * (rng.random((rows, cols)) < 0.6)
    batch = secret.encrypt(values.astype(np.uint64).reshape(-1, 1), RANDOM)
    lift = 1 << 60
    sums = public.shift(public.matvec(linear.dense(dense), batch), lift)
    assert integers(secret.decrypt(batch)) == values.tolist()
    assert integers(secret.decrypt(sums)) == [lift + int(v) for v in dense @ values]


def test_bad_arguments_are_refused_before_any_work(key: tuple[AdditiveHE, HeSecretKey]) -> None:
    he, secret = key
    public = secret.public
    x = public.encrypt(limbs([1, 2]), RANDOM)
    other = he.generate(512, RANDOM).public
    tries: list[Callable[[], object]] = [
        lambda: public.encrypt(limbs([1 << public.plaintext_bits]), RANDOM),
        lambda: public.encrypt(limbs([1]).astype(np.int64), RANDOM),  # type: ignore[arg-type]
        lambda: public.encrypt(limbs([1])[0], RANDOM),
        lambda: public.add(x, public.encrypt(limbs([1]), RANDOM)),
        lambda: public.add_plain(x, limbs([1])),
        lambda: public.scale(x, limbs([1])),
        lambda: public.add(x, other.encrypt(limbs([1, 2]), RANDOM)),
        lambda: public.mask(x, limbs([1, 1]), RANDOM, noise_bits=0),
        lambda: public.matvec(linear.dense(np.ones((1, 3), np.int64)), x),
        lambda: public.scale(x, limbs([1, 1]).astype(np.int64)),  # type: ignore[arg-type]
        lambda: public.add_plain(x, limbs([1, 1])[:, :0]),
        lambda: public.split(x, [1]),
        lambda: public.split(x, [3, -1]),
        lambda: secret.decrypt(other.encrypt(limbs([1]), RANDOM)),
        lambda: he.generate(511, RANDOM),
        lambda: he.generate(9000, RANDOM),
    ]
    for number, attempt in enumerate(tries):
        with pytest.raises(BadInput):  # noqa: PT012  # the second statement tells which case
            attempt()
            pytest.fail(f"case {number} was accepted")


def test_ciphertexts_from_outside_are_checked(key: tuple[AdditiveHE, HeSecretKey]) -> None:
    public = key[1].public
    size = public.ciphertext_bytes
    data = public.dump(public.encrypt(limbs([1, 2]), RANDOM))
    assert public.dump(public.load(memoryview(data), 2)) == data
    modulus = int.from_bytes(public.to_bytes()[4 : 4 + 64], "little")
    for bad, count in (
        (data, 1),
        (data, 3),
        (data[:-1], 2),
        (data + b"\0", 2),
        (data, -1),
        (bytes(size), 1),
        (b"\xff" * size, 1),
        (modulus.to_bytes(size, "little"), 1),
    ):
        with pytest.raises(BadInput):
            public.load(memoryview(bad), count)


def test_a_factor_of_the_modulus_is_no_ciphertext(key: tuple[AdditiveHE, HeSecretKey]) -> None:
    secret = key[1]
    factor = int(getattr(secret, "_p", 0)) or int(secret._factors[0][0])  # type: ignore[attr-defined]
    data = factor.to_bytes(secret.public.ciphertext_bytes, "little")
    with pytest.raises(BadInput, match="not invertible"):
        secret.public.load(memoryview(data), 1)


def test_public_keys_from_outside_are_checked(key: tuple[AdditiveHE, HeSecretKey]) -> None:
    he, secret = key
    good = secret.public.to_bytes()
    assert he.load_public(memoryview(good)).to_bytes() == good
    size, bits = 64, 512
    n, base = (int.from_bytes(good[4 + i * size : 4 + (i + 1) * size], "little") for i in (0, 1))
    prime = (1 << 511) + 111  # 2^511 + 111 is prime

    def form(modulus: int, second: int, declared: int = bits) -> bytes:
        return (
            good[:2] + declared.to_bytes(2, "little") + b"".join(v.to_bytes(size, "little") for v in (modulus, second))
        )

    square = ((1 << 256) - 189) ** 2
    bad = [
        b"",
        good[:3],
        good[:-1],
        good + b"\0",
        b"\x02" + good[1:],
        good[:1] + bytes([good[1] ^ 3]) + good[2:],
        form(n, base, declared=511),
        form(n ^ 1, base),
        form(n - n % 3 if (n - n % 3) % 2 else n - n % 3 - 3, base),
        form(square, base),
        form(prime, base),
        form(n >> 1 | 1, base),
        form(n, 0),
        form(n, 1),
        form(n, n - 1),
        form(n, n),
    ]
    for number, data in enumerate(bad):
        with pytest.raises(BadInput):  # noqa: PT012  # as above
            he.load_public(memoryview(data))
            pytest.fail(f"case {number} was accepted")


@pytest.mark.parametrize("make", MAKERS)
def test_short_keys_are_refused_by_default(make: Make) -> None:
    he = make()
    with pytest.raises(BadInput):
        he.generate(1024, RANDOM)
    small = make(insecure_min_bits=512).generate(512, RANDOM).public.to_bytes()
    with pytest.raises(BadInput):
        he.load_public(memoryview(small))


@pytest.mark.parametrize("make", MAKERS)
def test_a_full_size_key(make: Make) -> None:
    he = make()
    secret = he.generate(2048, RANDOM)
    public = he.load_public(memoryview(secret.public.to_bytes()))
    assert public.modulus_bits == 2048
    assert public.plaintext_bits >= 680
    values = [0, 1, (1 << public.plaintext_bits) - 1]
    count = public.plaintext_bits // 64 + 1
    assert integers(secret.decrypt(public.encrypt(limbs(values, count), RANDOM)))[:3] == values


def test_a_witness_that_shares_a_factor_shows_a_composite() -> None:
    """It comes up in one key of some hundred."""
    factor, composite = 2003, gmpy2.mpz(2003 * 10007)  # no factor below 2000, so that witnesses are needed
    script = Script((factor - 2).to_bytes(4, "little"))
    assert not is_prime(composite, script)
    assert is_prime(gmpy2.mpz(10007), RANDOM)


def test_differences_negatives_sums_and_shifts(key: tuple[AdditiveHE, HeSecretKey]) -> None:
    _, secret = key
    public = secret.public
    top = (1 << public.plaintext_bits) - 1
    a, b = [9, 7, top, 5, 0], [9, 0, 1, 2, 0]
    x, y = public.encrypt(limbs(a), RANDOM), public.encrypt(limbs(b), RANDOM)
    assert integers(secret.decrypt(public.subtract(x, y))) == [i - j for i, j in zip(a, b, strict=True)]
    assert integers(secret.decrypt(public.negate(public.negate(x)))) == a
    assert integers(secret.decrypt(public.add_plain(public.negate(y), limbs([9] * 5)))) == [9 - j for j in b]
    assert integers(secret.decrypt(public.shift(public.shift(x, -5), 5))) == a
    assert integers(secret.decrypt(public.shift(y, top - 9))) == [top - 9 + j for j in b]
    index = np.array([3, 1, 1, 4, 0, 2], np.int64)
    for starts, wanted in (
        ([0, 0, 3, 6], [0, 19, 9 + top]),
        ([1, 2, 2, 5], [7, 0, 16]),
        ([0], []),
    ):
        got = public.sums(x, index, np.array(starts, np.int64))
        assert integers(secret.decrypt(got)) == wanted
    empty = public.encrypt(limbs([]), RANDOM)
    assert len(public.negate(empty)) == len(public.subtract(empty, empty)) == len(public.shift(empty, 3)) == 0
    bad: list[Callable[[], object]] = [
        lambda: public.subtract(x, empty),
        lambda: public.shift(x, top + 1),
        lambda: public.shift(x, -top - 1),
        lambda: public.sums(x, index + 1, np.array([0, 6], np.int64)),
        lambda: public.sums(x, index - 1, np.array([0, 6], np.int64)),
        lambda: public.sums(x, index, np.array([0, 7], np.int64)),
        lambda: public.sums(x, index, np.array([3, 2], np.int64)),
        lambda: public.sums(x, index, np.array([], np.int64)),
        lambda: public.sums(x, index.astype(np.int32), np.array([0, 6], np.int64)),  # type: ignore[arg-type]
    ]
    for number, attempt in enumerate(bad):
        with pytest.raises(BadInput):  # noqa: PT012  # as above
            attempt()
            pytest.fail(f"case {number} was accepted")


def test_an_exported_key_opens_with_its_passphrase_only(key: tuple[AdditiveHE, HeSecretKey]) -> None:
    he, secret = key
    sealed = secret.export(b"correct horse", RANDOM, cost_log2=14)
    again = he.load_secret(memoryview(sealed), b"correct horse")
    assert again.public.to_bytes() == secret.public.to_bytes()
    assert again.factors() == secret.factors()
    x = secret.public.encrypt(limbs([123]), RANDOM)
    assert integers(again.decrypt(again.public.load(memoryview(secret.public.dump(x)), 1))) == [123]
    for prime in secret.factors():
        assert prime.to_bytes(64, "little").rstrip(b"\0") not in sealed
    flipped = bytearray(sealed)
    flipped[-1] ^= 1
    for data, word in (
        (sealed, b"correct house"), (bytes(flipped), b"correct horse"), (sealed[:-1], b"correct horse"), (b"", b"x"),
        (b"ICSK\x02" + sealed[5:], b"correct horse"), (sealed[:5] + b"\x1f" + sealed[6:], b"correct horse"),
        (sealed[:5] + b"\x0f" + sealed[6:], b"correct horse"),
    ):  # fmt: skip
        with pytest.raises(BadInput):
            he.load_secret(memoryview(data), word)
    with pytest.raises(BadInput):
        secret.export(b"", RANDOM)
    with pytest.raises(BadInput):
        secret.export(b"x", RANDOM, cost_log2=30)


def test_a_wiped_key_is_of_no_use(key: tuple[AdditiveHE, HeSecretKey]) -> None:
    he, kept = key
    secret = he.load_secret(memoryview(kept.export(b"x", RANDOM, cost_log2=14)), b"x")
    x = secret.public.encrypt(limbs([1]), RANDOM)
    secret.encrypt(limbs([1]), RANDOM)
    tables = [square._base._table for square in getattr(getattr(secret, "_noise", None), "_squares", ())]
    assert all(table.any() for table in tables) or he.scheme == "paillier-textbook"
    secret.wipe()
    secret.wipe()
    assert not any(table.any() for table in tables)
    tries: list[Callable[[], object]] = [
        lambda: secret.decrypt(x),
        lambda: secret.encrypt(limbs([1]), RANDOM),
        secret.factors,
        lambda: secret.export(b"x", RANDOM, cost_log2=14),
    ]
    for attempt in tries:
        with pytest.raises(BadInput):
            attempt()
    assert integers(kept.decrypt(kept.public.load(memoryview(secret.public.dump(x)), 1))) == [1]


def test_secrets_stay_out_of_repr(key: tuple[AdditiveHE, HeSecretKey]) -> None:
    he, secret = key
    batch = secret.public.encrypt(limbs([123456789]), RANDOM)
    for thing in (he, secret, secret.public, batch):
        text = repr(thing)
        assert len(text) < 60
        assert "mpz" not in text


@pytest.mark.parametrize("backend", BACKENDS["he.paillier"], ids=lambda backend: backend.name)
def test_phe_reads_and_makes_our_paillier_ciphertexts(backend: Backend) -> None:
    """An independent implementation as the oracle, both ways."""
    phe = pytest.importorskip("phe")
    if why := backend.refuses(probe()):
        pytest.skip(why)
    make = backend.make
    vector = VECTORS["paillier"][1]
    p, q, base = (int(vector[name], 16) for name in ("p", "q", "base"))
    secret = make(insecure_min_bits=2048).from_factors(p, q, base)
    public: HePublicKey = secret.public
    their_public = phe.PaillierPublicKey(p * q)
    their_secret = phe.PaillierPrivateKey(their_public, p, q)
    values = [0, 1, 2**100, (1 << 2047) - 1]
    data = public.dump(public.encrypt(limbs(values, 32), RANDOM))
    for i, value in enumerate(values):
        assert their_secret.raw_decrypt(int.from_bytes(data[512 * i : 512 * i + 512], "little")) == value
    theirs = b"".join(their_public.raw_encrypt(value).to_bytes(512, "little") for value in values)
    assert integers(secret.decrypt(public.load(memoryview(theirs), 4))) == values
