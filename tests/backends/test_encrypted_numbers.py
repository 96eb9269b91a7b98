"""Products, packing and fixed-point numbers on ciphertexts; the proof of a modulus; phe's JSON with phe as oracle."""

import io
import json
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accel import fixedpoint, linear, modulus_proof, phe_json
from accel.entropy import OsRandom
from accel.fixedpoint import Numbers, Overflow
from accel.kernels import AdditiveHE, BadInput, HeSecretKey, Uints
from accel.probe import probe
from accel.registry import BACKENDS, SCHEMES, additive_he

RANDOM = OsRandom()
MAKERS = [
    pytest.param(backend.make, id=f"{scheme}-{backend.name}")
    for scheme in SCHEMES
    for backend in BACKENDS[f"he.{scheme}"]
    if backend.refuses(probe()) is None
]
UNIT = -20


@pytest.fixture(scope="module", params=MAKERS)
def secret(request: pytest.FixtureRequest) -> HeSecretKey:
    made: HeSecretKey = request.param(insecure_min_bits=512).generate(512, RANDOM)
    return made


@pytest.fixture(scope="module")
def textbook() -> tuple[AdditiveHE, HeSecretKey]:
    he: AdditiveHE = next(
        b.make for b in BACKENDS["he.paillier-textbook"] if b.refuses(probe()) is None
    )(insecure_min_bits=512)  # fmt: skip
    return he, he.generate(512, RANDOM)


def plain(values: list[int], limbs: int = 3) -> Uints:
    data = b"".join(v.to_bytes(8 * limbs, "little") for v in values)
    return np.frombuffer(data, "<u8").astype(np.uint64).reshape(len(values), limbs)


def integers(batch: Uints) -> list[int]:
    return [int.from_bytes(row.tobytes(), "little") for row in batch]


def refused(error: type[BadInput], *tries: Callable[[], object]) -> None:
    for number, attempt in enumerate(tries):
        with pytest.raises(error):  # noqa: PT012  # the second statement tells which case
            attempt()
            pytest.fail(f"case {number} was accepted")


def test_products_with_a_plain_matrix_on_either_side(secret: HeSecretKey) -> None:
    key, rng = secret.public, np.random.default_rng(1)
    for n, k, m in ((1, 1, 1), (3, 4, 2), (2, 5, 3)):
        p = rng.integers(0, 1 << 39, (n, k)) * (rng.random((n, k)) < 0.8)
        q = rng.integers(0, 1 << 39, (k, m))
        left = [[int(v) for v in row] for row in rng.integers(0, 1 << 40, (n, k))]
        right = [[int(v) for v in row] for row in rng.integers(0, 1 << 40, (k, m))]
        x = key.encrypt(plain([v for row in right for v in row]), RANDOM)
        got = integers(secret.decrypt(linear.matmul_plain(key, linear.dense(p), x, m)))
        assert got == [int(v) for v in (p.astype(object) @ np.array(right, object)).ravel()]
        y = key.encrypt(plain([v for row in left for v in row]), RANDOM)
        got = integers(secret.decrypt(linear.matmul_encrypted(key, y, n, linear.dense(q))))
        assert got == [int(v) for v in (np.array(left, object) @ q.astype(object)).ravel()]
    four = key.encrypt(plain([1, 2, 3, 4]), RANDOM)
    assert integers(secret.decrypt(linear.dot(key, np.array([10, 0, 5, 1]), four))) == [29]
    wide = linear.dense(np.ones((2, 3), np.int64))
    refused(
        BadInput,
        lambda: linear.matmul_plain(key, wide, four, 1),
        lambda: linear.matmul_plain(key, wide, four, 0),
        lambda: linear.matmul_encrypted(key, four, 3, wide),
        lambda: linear.dot(key, np.array([1, 2]), four),
        lambda: linear.dot(key, np.array([1 << 40, 2, 3, 4]), four),
        lambda: linear.dense(np.ones((2, 2))),  # type: ignore[arg-type]
    )


def test_sums_by_group(secret: HeSecretKey) -> None:
    key = secret.public
    values = [1, 10, 100, 1000, 10000]
    x = key.encrypt(plain(values), RANDOM)
    groups = np.array([2, 0, 2, -1, 0], np.int64)
    assert integers(secret.decrypt(linear.group_sums(key, x, groups, 4))) == [10010, 0, 101, 0]
    none = key.encrypt(plain([]), RANDOM)
    assert integers(secret.decrypt(linear.group_sums(key, none, np.zeros(0, np.int64), 2))) == [0, 0]
    refused(
        BadInput,
        lambda: linear.group_sums(key, x, groups, 2),
        lambda: linear.group_sums(key, x, groups - 1, 4),
        lambda: linear.group_sums(key, x, groups[:4], 4),
        lambda: linear.group_sums(key, x, groups.astype(np.int32), 4),  # type: ignore[arg-type]
    )


def test_packing(secret: HeSecretKey) -> None:
    key = secret.public
    for slot_bits, slots, count in ((8, 5, 12), (33, 3, 3), (64, 2, 5), (70, 1, 2), (5, 4, 0)):
        values = [(1 << slot_bits) - 1 - i for i in range(count)]
        packed = linear.pack(key, key.encrypt(plain(values), RANDOM), slot_bits=slot_bits, slots=slots)
        assert len(packed) == -(-count // slots)
        got = linear.unpack(secret.decrypt(packed), slot_bits=slot_bits, slots=slots, count=count)
        assert integers(got) == values
        batch = linear.pack_plain(key, plain(values), slot_bits=slot_bits, slots=slots)
        twice = key.encrypt(batch, RANDOM)
        got = linear.unpack(secret.decrypt(twice), slot_bits=slot_bits, slots=slots, count=count)
        assert integers(got) == values
    x = key.encrypt(plain([1]), RANDOM)
    refused(
        BadInput,
        lambda: linear.pack(key, x, slot_bits=0, slots=1),
        lambda: linear.pack(key, x, slot_bits=8, slots=0),
        lambda: linear.pack(key, x, slot_bits=key.plaintext_bits, slots=2),
        lambda: linear.pack_plain(key, plain([256]), slot_bits=8, slots=2),
        lambda: linear.unpack(plain([1 << 16]), slot_bits=8, slots=2, count=2),
        lambda: linear.unpack(plain([1]), slot_bits=8, slots=2, count=3),
    )


def test_fixed_point_numbers(secret: HeSecretKey) -> None:
    key = secret.public
    values = np.array([0.0, 1.5, -1.5, 1e6, -1e6, 2.0**-20, -(2.0**-20), 2.0**41])
    others = np.array([1.0, -1.0, 0.25, -3.5, 0.0, 7.0, 2.0, -(2.0**41)])
    x = fixedpoint.encrypt(key, values, exponent=UNIT, random=RANDOM)
    y = fixedpoint.encrypt(key, others, exponent=UNIT, random=RANDOM, owner=secret)
    assert np.array_equal(fixedpoint.decrypt(secret, x), values)
    assert np.array_equal(fixedpoint.decrypt(secret, x.add(y)), values + others)
    assert np.array_equal(fixedpoint.decrypt(secret, x.subtract(y)), values - others)
    assert np.array_equal(fixedpoint.decrypt(secret, x.negated()), -values)
    assert np.array_equal(fixedpoint.decrypt(secret, x.rescale(-30)), values)
    # A 512-bit key of "ou" has 170 bits of plaintext: two factors of 62 bits and a sum fit.
    scaled = x.times(others[:8] / 4, -10)
    assert scaled.exponent == UNIT - 10
    assert np.allclose(fixedpoint.decrypt(secret, scaled), values * others / 4, rtol=1e-12, atol=0)
    matrix = np.array([[1.0, -2.0, 0.5, 0.0], [0.0, 0.0, 0.0, 0.0], [3.25, 1.0, -1.0, 4.0]])
    product = x.product(fixedpoint.quantise(matrix, -10), 2)
    assert np.allclose(fixedpoint.decrypt(secret, product), (matrix @ values.reshape(4, 2)).ravel(), rtol=1e-12)
    product = x.times_matrix(fixedpoint.quantise(matrix.T, -10), 2)
    assert np.allclose(fixedpoint.decrypt(secret, product), (values.reshape(2, 4) @ matrix.T).ravel(), rtol=1e-12)
    assert fixedpoint.quantise(matrix, -10).transpose().row_sum == fixedpoint.quantise(matrix, -10).col_sum
    sums = x.group_sums(np.array([0, 1, 1, 0, 0, -1, -1, 1], np.int64), 3)
    assert np.array_equal(fixedpoint.decrypt(secret, sums), [0.0, 2.0**41, 0.0])
    sent = x.add(y).masked(RANDOM)
    assert key.dump(sent.batch) != key.dump(x.add(y).batch)
    assert np.array_equal(fixedpoint.decrypt(secret, sent), values + others)


def test_numbers_over_the_wire(secret: HeSecretKey) -> None:
    key = secret.public
    x = fixedpoint.encrypt(key, np.array([1.25, -7.0]), exponent=UNIT, random=RANDOM).masked(RANDOM)
    data = x.dump()
    again = fixedpoint.load(key, memoryview(data))
    assert (again.exponent, len(again)) == (UNIT, 2)
    assert again.bound >= x.bound
    assert again.noise >= x.noise
    assert np.array_equal(fixedpoint.decrypt(secret, again), [1.25, -7.0])
    refused(
        BadInput,
        *(
            lambda changed=changed: fixedpoint.load(key, memoryview(changed))
            for changed in (
                b"", data[:-1], data + b"\0", b"\2" + data[1:], data[:5] + bytes([data[5] ^ 1]) + data[6:],
                data[:20] + b"\xff\xff" + data[22:], data[:24] + b"\3" + data[25:], data[:39] + b"\1" + data[40:],
            )
        ),
    )  # fmt: skip


def test_what_does_not_fit_is_refused_before_any_work(secret: HeSecretKey) -> None:
    key = secret.public
    x = fixedpoint.encrypt(key, np.array([1.0, 2.0]), exponent=0, random=RANDOM)
    other = fixedpoint.encrypt(key, np.array([1.0, 2.0]), exponent=-1, random=RANDOM)
    longer = fixedpoint.encrypt(key, np.array([1.0]), exponent=0, random=RANDOM)
    room = key.plaintext_bits - 1 - 62
    stranger = next(
        b.make for b in BACKENDS["he.paillier"] if b.name == "reference"
    )(insecure_min_bits=256).generate(256, RANDOM)  # fmt: skip
    full = Numbers(key, x.batch, 0, 1 << (key.plaintext_bits - 2), 1)
    for bad in ([np.nan], [np.inf], [2.0**62], [-(2.0**62)]):
        with pytest.raises(Overflow):
            fixedpoint.encrypt(key, np.array(bad), exponent=0, random=RANDOM)
    refused(
        Overflow,
        lambda: x.rescale(-room),
        lambda: full.add(full),
        lambda: full.subtract(full),
        lambda: full.times(np.array([2.0, 2.0]), 0),
        lambda: full.product(fixedpoint.quantise(np.array([[1.0, 1.0]]), 0)),
        lambda: full.group_sums(np.array([0, 0]), 1),
        lambda: fixedpoint.quantise(np.array([[2.0**40]]), 0),
    )
    refused(
        BadInput,
        lambda: x.add(other),
        lambda: x.add(longer),
        lambda: x.rescale(1),
        lambda: x.times(np.array([1.0]), 0),
        lambda: x.group_sums(np.zeros(2), 1),  # type: ignore[arg-type]
        lambda: x.group_sums(np.zeros((2, 1), np.int64), 1),
        lambda: x.product(fixedpoint.quantise(np.ones((1, 3)), 0)),
        lambda: fixedpoint.encrypt(key, np.ones((1, 1)), exponent=0, random=RANDOM),
        lambda: fixedpoint.encrypt(key, np.ones(1), exponent=2000, random=RANDOM),
        lambda: fixedpoint.quantise(np.ones(3), 0),
        lambda: fixedpoint.encrypt(key, np.ones(1), exponent=0, random=RANDOM, owner=stranger),
    )
    lying = Numbers(key, x.batch, 0, 1, 1)
    with pytest.raises(Overflow):
        fixedpoint.decrypt_integers(secret, lying)


@settings(max_examples=25, deadline=None)
@given(values=st.lists(st.floats(-(2.0**20), 2.0**20, width=32), max_size=9), exponent=st.integers(-40, 3))
def test_encoding_rounds_once(textbook: tuple[AdditiveHE, HeSecretKey], values: list[float], exponent: int) -> None:
    secret = textbook[1]
    array = np.array(values, np.float64)
    numbers = fixedpoint.encrypt(secret.public, array, exponent=exponent, random=RANDOM)
    wanted = np.ldexp(np.rint(np.ldexp(array, -exponent)), exponent)
    assert np.array_equal(fixedpoint.decrypt(secret, numbers), wanted)


def test_a_proof_of_a_modulus() -> None:
    he = additive_he("paillier", "reference").__class__(insecure_min_bits=256)  # type: ignore[call-arg]
    secret = he.generate(256, RANDOM)
    public = he.load_public(memoryview(secret.public.to_bytes()))
    proof = modulus_proof.prove(secret, RANDOM, context=b"session 1")
    modulus_proof.verify(public, memoryview(proof), context=b"session 1")
    size = 32
    n = int.from_bytes(public.to_bytes()[4 : 4 + size], "little")
    w = int.from_bytes(proof[1 : 1 + size], "little")
    each = 1 + 2 * size
    changed = [
        b"", proof[:-1], proof + b"\0", b"\2" + proof[1:],
        proof[:1] + (n - w).to_bytes(size, "little") + proof[1 + size :],
        proof[:1] + bytes(size) + proof[1 + size :],
        proof[: 1 + size] + bytes([proof[1 + size] ^ 1]) + proof[2 + size :],
        proof[: 1 + size] + bytes([proof[1 + size] | 4]) + proof[2 + size :],
        proof[:-each] + bytes(each), proof[:-1] + bytes([proof[-1] ^ 1]),
    ]  # fmt: skip
    other = he.generate(256, RANDOM).public
    refused(
        BadInput,
        *(lambda c=c: modulus_proof.verify(public, memoryview(c), context=b"session 1") for c in changed),
        lambda: modulus_proof.verify(public, memoryview(proof), context=b"session 2"),
        lambda: modulus_proof.verify(other, memoryview(proof), context=b"session 1"),
        lambda: modulus_proof.verify(_ou(), memoryview(proof)),
        # A factor that is 1 modulo 4, and one that divides the other's predecessor.
        lambda: modulus_proof.prove(he.from_factors(13, 23, 4), RANDOM),
        lambda: modulus_proof.prove(he.from_factors(7, 43, 4), RANDOM),
    )


def _ou():
    return additive_he("ou", "reference").__class__(insecure_min_bits=256).generate(256, RANDOM).public


def test_phe_takes_part_by_its_json(textbook: tuple[AdditiveHE, HeSecretKey]) -> None:
    phe = pytest.importorskip("phe")
    command_line = pytest.importorskip("phe.command_line")
    he, secret = textbook
    key = secret.public
    theirs = command_line.load_public_key(json.loads(phe_json.dump_public(key, comment="ours")))
    p, q = secret.factors()
    their_secret = phe.PaillierPrivateKey(theirs, p, q)
    values = [1.5, -2.25, 0.0, 3e9, -1e-5]
    # Theirs to ours: their form of one number, and of several.
    encrypted = [theirs.encrypt(v, precision=1e-9).decrease_exponent_to(-32) for v in values]
    text = json.dumps([json.loads(command_line.serialise_encrypted(v)) for v in encrypted])
    numbers = phe_json.load_numbers(key, text, bound_bits=200)
    assert numbers.exponent == -128
    assert np.allclose(fixedpoint.decrypt(secret, numbers), values, rtol=1e-9, atol=1e-9)
    one = phe_json.load_numbers(key, command_line.serialise_encrypted(encrypted[1]), bound_bits=200)
    assert fixedpoint.decrypt(secret, one).tolist() == [-2.25]
    # Ours to theirs, after some computing.
    ours = fixedpoint.encrypt(key, np.array(values), exponent=-24, random=RANDOM)
    total = ours.add(ours).masked(RANDOM)
    read = [
        command_line.load_encrypted_number(io.StringIO(json.dumps(v)), theirs)
        for v in json.loads(phe_json.dump_numbers(total))
    ]
    assert np.allclose([their_secret.decrypt(v) for v in read], 2 * np.array(values), atol=2.0**-22)
    # Their private key, in their form.
    jwk = {
        "kty": "DAJ", "key_ops": ["decrypt"], "p": phe.util.int_to_base64(p), "q": phe.util.int_to_base64(q),
        "pub": json.loads(phe_json.dump_public(key)), "kid": "",
    }  # fmt: skip
    opened = phe_json.load_secret(he, json.dumps(jwk))
    assert opened.public.to_bytes() == key.to_bytes()
    assert phe_json.load_public(he, json.dumps(jwk["pub"])).to_bytes() == key.to_bytes()
    refused(
        BadInput,
        lambda: phe_json.load_secret(he, json.dumps(jwk | {"p": jwk["q"]})),
        lambda: phe_json.load_secret(he, json.dumps(jwk | {"key_ops": ["encrypt"]})),
        lambda: phe_json.load_secret(he, json.dumps(jwk | {"key_ops": 5})),
        lambda: phe_json.load_secret(he, json.dumps(jwk | {"pub": None})),
        lambda: phe_json.load_public(he, json.dumps(jwk)),
        lambda: phe_json.load_public(he, json.dumps(jwk["pub"] | {"alg": "RSA"})),
        lambda: phe_json.load_public(he, json.dumps(jwk["pub"] | {"n": "!!"})),
        lambda: phe_json.load_public(he, json.dumps(jwk["pub"] | {"n": 5})),
        lambda: phe_json.load_public(he, json.dumps(jwk["pub"] | {"n": "AQAB"})),
        lambda: phe_json.load_public(he, json.dumps(jwk["pub"] | {"n": "AAAA"})),
        lambda: phe_json.load_public(he, None),  # type: ignore[arg-type]
        lambda: phe_json.load_public(additive_he("paillier"), json.dumps(jwk["pub"])),
        lambda: phe_json.load_public(he, "[" * 5000),
        lambda: phe_json.load_public(he, "{" + " " * 20000 + "}"),
        *(
            lambda t=t: phe_json.load_numbers(key, t, bound_bits=100)
            for t in (
                "{", "[1]", '{"v": "1"}', '{"v": 1, "e": 0}', '{"v": "-1", "e": 0}', '{"v": "0", "e": 0}',
                '{"v": "1", "e": 0.5}', '{"v": "1", "e": true}', '{"v": "1", "e": 999}',
                '[{"v": "1", "e": 0}, {"v": "1", "e": 1}]', json.dumps({"v": "9" * 2000, "e": 0}),
                json.dumps({"v": str(1 << 1024), "e": 0}),
            )
        ),
        lambda: phe_json.load_numbers(key, "[]", bound_bits=600),
        lambda: phe_json.dump_numbers(ours.rescale(-25)),
    )  # fmt: skip
    assert len(phe_json.load_numbers(key, "[]", bound_bits=100)) == 0


def test_long_ciphertexts_in_decimal() -> None:
    value = (1 << 16384) - 12345
    assert phe_json._from_decimal(phe_json._decimal(value)) == value
    assert phe_json._decimal(10**8000) == "1" + "0" * 8000
