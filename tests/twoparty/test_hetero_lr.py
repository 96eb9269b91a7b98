"""Vertical logistic regression: two parties in one process, against the plaintext twin."""

import csv
import json
import struct
from collections.abc import Iterable, Sequence
from importlib import resources
from typing import Any

import numpy as np
import pytest

from accel.backends.reference import NumpyRing128, OkamotoUchiyama
from accel.entropy import OsRandom
from accel.kernels import AdditiveHE
from accel.probe import probe
from accel.registry import BACKENDS, SCHEMES
from gateway.errors import CallerError, GatewayError, ProtocolViolation
from gateway.operators.hematmul.shares import STATISTICAL_BITS
from gateway.operators.lr import plaintext, wire
from gateway.operators.lr.matrix import LrMatrix
from gateway.operators.lr.params import SCHEMA, LrParams
from gateway.operators.lr.plan import make_plan
from gateway.operators.lr.train import GUEST, HOST, Guest, Host, LrResult
from gateway.operators.party import PartyName
from gateway.operators.registry import OPERATORS
from tests.bench import Disturb, Message, PlayResult, flip, play
from tests.twoparty.transparent import Transparent

RING = NumpyRing128()
RANDOM = OsRandom()


def small_data(rows: int = 24, seed: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Guest columns: 2 numbers and a one-hot of 3; host columns: 1 number and a one-hot of 4; labels follow them."""
    rng = np.random.default_rng(seed)
    a = np.hstack([rng.normal(size=(rows, 2)), np.eye(3)[rng.integers(0, 3, rows)]])
    b = np.hstack([rng.normal(size=(rows, 1)), np.eye(4)[rng.integers(0, 4, rows)]])
    y = (a[:, 0] - b[:, 0] + b[:, 1] + rng.normal(size=rows) > 0).astype(float)
    return a, b, y


def parties(
    a: np.ndarray, b: np.ndarray, y: np.ndarray, params: LrParams, he: AdditiveHE, **host_params: Any
) -> dict[PartyName, Guest | Host]:
    guest = Guest(LrMatrix.from_dense(a), y, params, he=he, ring=RING, random=RANDOM)
    other = LrParams(**{**{n: getattr(params, n) for n in LrParams.__slots__}, **host_params})
    return {GUEST: guest, HOST: Host(LrMatrix.from_dense(b), other, he=he, ring=RING, random=RANDOM)}


def run_small(disturb: Disturb | None = None, he: AdditiveHE | None = None, **params: Any) -> PlayResult:
    scheme = he or Transparent()
    settings = LrParams(iterations=2, **params)
    return play(parties(*small_data(), settings, scheme), disturb)


def assert_within_bound(outcome: PlayResult, twin: plaintext.TwinResult) -> None:
    guest, host = outcome.results[GUEST], outcome.results[HOST]
    assert isinstance(guest, LrResult)
    assert isinstance(host, LrResult)
    assert twin.intercept_bound < 1e-2  # a bound worth the name
    assert np.all(np.abs(guest.weights - twin.guest) <= twin.guest_bound)
    assert np.all(np.abs(host.weights - twin.host) <= twin.host_bound)
    assert abs(guest.intercept - twin.intercept) <= twin.intercept_bound
    assert host.intercept == 0.0


MAKERS = [
    pytest.param(backend.make(insecure_min_bits=1024), id=f"{scheme}-{backend.name}")
    for scheme in SCHEMES
    for backend in BACKENDS[f"he.{scheme}"]
    if backend.refuses(probe()) is None
]


@pytest.mark.parametrize("he", MAKERS)
def test_weights_equal_the_plaintext_run_within_the_bound(he: AdditiveHE) -> None:
    a, b, y = small_data()
    params = LrParams(iterations=6, inverse_penalty=0.3, scheme=he.scheme, key_bits=1024)
    outcome = play(parties(a, b, y, params, he))
    twin = plaintext.train(LrMatrix.from_dense(a), LrMatrix.from_dense(b), y, params)
    assert_within_bound(outcome, twin)
    assert np.abs(twin.host).max() > 0.02
    assert [p.done for p in outcome.progress[GUEST]] == [1, 2, 3, 4, 5, 6]
    assert {(p.phase, p.total, p.unit) for p in outcome.progress[HOST]} == {("train", 6, "iteration")}


@pytest.mark.parametrize("value_bits", [20, 26])
@pytest.mark.parametrize(("rows", "iterations"), [(2, 1), (3, 4), (41, 12)])
def test_the_bound_holds_for_other_sizes(value_bits: int, rows: int, iterations: int) -> None:
    a, b, y = small_data(rows, seed=rows)
    params = LrParams(iterations=iterations, inverse_penalty=0.5, value_bits=value_bits)
    outcome = play(parties(a, b, y, params, Transparent()))
    assert_within_bound(outcome, plaintext.train(LrMatrix.from_dense(a), LrMatrix.from_dense(b), y, params))


def test_every_value_sent_back_to_a_key_owner_is_drowned() -> None:
    """Plaintext and noise exponent alike: what was added is at least 2^64 times what it hides."""
    he = Transparent()
    run_small(he=he)
    assert len(he.masked) == 2 * (6 + 5) + 2 * 24 + 24  # gradients of two iterations; predictions and cubes of one
    drowned = 1 << STATISTICAL_BITS
    for masked in he.masked:
        assert abs(masked.noise) * drowned <= 1 << masked.noise_bits
    # The mask is 2^b + U with U uniform below 2^(b + 64), where 2^b bounds the value; b follows from the public sizes.
    gains = {masked.noise_bits - 256 - STATISTICAL_BITS for masked in he.masked}
    assert gains == {16 + 6 + 5, 16 + 6 + 3, 129}  # sums over 24 rows; over 6 or 5 columns; cubes
    for gain in gains:
        b = 257 if gain == 129 else 128 + gain
        group = [masked for masked in he.masked if masked.noise_bits - 256 - STATISTICAL_BITS == gain]
        assert all(abs(masked.value) < 1 << b for masked in group)
        assert all(1 << b <= masked.mask < (1 << b) + (1 << b + STATISTICAL_BITS) for masked in group)
        assert max(masked.mask for masked in group) > 1 << b + STATISTICAL_BITS - 1


def test_no_step_repeats_a_mask_or_noise() -> None:
    he = Transparent()
    outcome = run_small(he=he)
    assert len({m.mask for m in he.masked}) == len(he.masked)
    assert len({m.payload for m in outcome.transcript}) == len(outcome.transcript)


def test_the_transcript_holds_no_clear_feature_label_or_weight() -> None:
    """Bytes of the columns in the forms they have in memory, and of the result, appear in no message but their own."""
    a, b, y = small_data()
    params = LrParams(iterations=2, key_bits=1024)
    outcome = play(parties(a, b, y, params, OkamotoUchiyama(insecure_min_bits=1024)))
    guest, host = outcome.results[GUEST], outcome.results[HOST]
    assert isinstance(guest, LrResult)
    assert isinstance(host, LrResult)
    sent = b"\0".join(message.payload for message in outcome.transcript)
    numbers = [*a[:, 0], *a[:, 1], *b[:, 0], *guest.weights, *host.weights, guest.intercept]
    for number in numbers:
        assert struct.pack("<d", number) not in sent
        assert repr(float(number)).encode() not in sent
        for bits in (16, 24):
            fixed = round(number * 2**bits)
            if abs(fixed) >> 8:
                assert (fixed % (1 << 128)).to_bytes(16, "little") not in sent
    for form in (
        y.tobytes(),
        y.astype(np.uint8).tobytes(),
        y.astype(np.int64).tobytes(),
        np.packbits(y.astype(bool)).tobytes(),
    ):
        assert form not in sent
    assert {m.topic for m in outcome.transcript} == {"hello", "e", "g", "w", "z", "c", "q", "open"}


def test_secrets_stay_out_of_repr() -> None:
    both = parties(*small_data(), LrParams(iterations=1, key_bits=1024), OkamotoUchiyama(insecure_min_bits=1024))
    outcome = play(both)
    for thing in [*both.values(), *outcome.results.values()]:
        text = repr(thing)
        assert len(text) < 120
        assert "array" not in text
        assert "0." not in text


# --- what a partner may send --------------------------------------------------------------------------------------


def corrupting(topic: str, position: int, *, sender: PartyName = GUEST) -> Disturb:
    def disturb(_: int, message: Message) -> Iterable[Message]:
        return [flip(message, position) if message.topic == topic and message.sender == sender else message]

    return disturb


BATCHES = ("e", "g", "w", "z", "c", "q")


@pytest.mark.parametrize("topic", BATCHES)
def test_a_damaged_ciphertext_is_noticed(topic: str) -> None:
    """By the receiver, or in the next message by the owner of the key: it decrypts outside the bounds."""
    he = OkamotoUchiyama(insecure_min_bits=1024)
    with pytest.raises(ProtocolViolation):
        run_small(corrupting(topic, 40), he, key_bits=1024)


@pytest.mark.parametrize("topic", BATCHES)
@pytest.mark.parametrize(
    ("position", "words"),
    [
        (0, "version or kind"),
        (1, "version or kind"),
        (2, "another round"),
        (4, "count or item size"),
        (8, "count or item size"),
    ],
)
def test_a_batch_must_be_the_one_expected(topic: str, position: int, words: str) -> None:
    with pytest.raises(ProtocolViolation, match=words):
        run_small(corrupting(topic, position))


@pytest.mark.parametrize("topic", [*BATCHES, "open", "hello"])
@pytest.mark.parametrize(
    "change", [lambda p: p[:-1], lambda p: p + b"\0", lambda p: b"", lambda p: p[:1], lambda p: p[:11]]
)
def test_a_cut_or_padded_message_is_refused(topic: str, change: Any) -> None:
    def disturb(_: int, m: Message) -> Iterable[Message]:
        return [Message(m.sender, m.to, m.topic, change(m.payload)) if m.topic == topic else m]

    with pytest.raises(ProtocolViolation, match=topic):
        run_small(disturb)


def test_shares_that_do_not_add_up_to_weights_are_refused() -> None:
    with pytest.raises(ProtocolViolation, match="open"):
        run_small(corrupting("open", -1))


def test_out_of_range_and_uninvertible_ciphertexts_are_refused() -> None:
    he = OkamotoUchiyama(insecure_min_bits=1024)

    def replaced(value: bytes) -> Disturb:
        def disturb(_: int, m: Message) -> Iterable[Message]:
            if m.topic != "e":
                return [m]
            return [Message(m.sender, m.to, m.topic, m.payload[:12] + value + m.payload[12 + len(value) :])]

        return disturb

    for value in (bytes(128), b"\xff" * 128):
        with pytest.raises(ProtocolViolation, match="out of range"):
            run_small(replaced(value), he, key_bits=1024)


@pytest.mark.parametrize(
    ("different", "field"),
    [
        ({"iterations": 3}, "iterations"),
        ({"feature_bits": 17}, "feature_bits"),
        ({"value_bits": 22}, "value_bits"),
        ({"inverse_penalty": 0.03}, "parameters"),
        ({"key_bits": 3072}, "parameters"),
    ],
)
def test_parameters_that_differ_are_named(different: dict[str, Any], field: str) -> None:
    with pytest.raises(ProtocolViolation, match=f"hello: {field}"):
        play(parties(*small_data(), LrParams(iterations=2), Transparent(), **different))


def test_rows_that_differ_are_named() -> None:
    a, b, y = small_data()
    with pytest.raises(ProtocolViolation, match="hello: rows"):
        play(parties(a, b[:-1], y, LrParams(iterations=2), Transparent()))


@pytest.mark.parametrize(
    ("offset", "field"),
    [
        (0, "version"),
        (1, "kind"),
        (2, "role"),
        (3, "scheme"),
        (4, "ring_bits"),
        (15, "cols"),
        (19, "curvature"),
        (54, "key length"),
        (60, "key"),
    ],
)
def test_every_field_of_the_hello_is_checked(offset: int, field: str) -> None:
    with pytest.raises(ProtocolViolation, match=f"hello: {field}"):
        run_small(corrupting("hello", offset, sender=HOST))


def test_our_own_key_sent_back_is_refused() -> None:
    he = Transparent()
    both = parties(*small_data(), LrParams(iterations=1), he)
    guest = both[GUEST]
    hello = bytearray(guest.start()[0].payload)  # type: ignore[union-attr]
    hello[2] = 1
    with pytest.raises(ProtocolViolation, match="hello: key"):
        guest.receive(HOST, "hello", memoryview(hello))


def test_a_message_out_of_turn_is_the_runners_mistake_and_changes_nothing() -> None:
    guest = parties(*small_data(), LrParams(iterations=1), Transparent())[GUEST]
    guest.start()
    for sender, topic in ((HOST, "e"), (GUEST, "hello"), (PartyName("host.1"), "hello")):
        with pytest.raises(CallerError, match="out of turn"):
            guest.receive(sender, topic, memoryview(b""))
    assert [(a.sender, a.topic) for a in guest.awaits()] == [(HOST, "hello")]
    with pytest.raises(CallerError, match="started twice"):
        guest.start()


def test_after_a_bad_message_the_party_takes_no_other() -> None:
    guest = parties(*small_data(), LrParams(iterations=1), Transparent())[GUEST]
    guest.start()
    with pytest.raises(ProtocolViolation):
        guest.receive(HOST, "hello", memoryview(b"\x09"))
    assert guest.awaits() == []
    with pytest.raises(CallerError):
        guest.receive(HOST, "hello", memoryview(b""))


def test_sizes_that_leave_no_step_are_refused_in_the_hello() -> None:
    """A curvature within the wire's limits can still ask for a longer truncation than the ring has."""
    a, b, y = small_data()

    def disturb(_: int, m: Message) -> Iterable[Message]:
        if m.topic != "hello" or m.sender != HOST:
            return [m]
        at = 18  # u32 curvature
        return [Message(m.sender, m.to, m.topic, m.payload[:at] + struct.pack("<I", 5 << 12) + m.payload[at + 4 :])]

    few = LrParams(iterations=1, inverse_penalty=1000.0, feature_bits=20)
    many = np.tile(a, (100_000 // 24, 1)), np.tile(b, (100_000 // 24, 1)), np.tile(y, 100_000 // 24)
    with pytest.raises(ProtocolViolation, match="hello: curvature: too many rows"):
        play(parties(*many, few, Transparent()), disturb)
    with pytest.raises(CallerError, match="too many rows"):
        make_plan(LrParams(feature_bits=20), rows=1 << 20, curvature=2000)


def test_a_lost_message_leaves_the_party_waiting_and_a_repeated_one_is_refused() -> None:
    assert run_small(lambda _, m: [] if m.topic == "z" else [m]).stuck
    with pytest.raises(ProtocolViolation, match="another round"):
        run_small(lambda _, m: [m, m] if m.topic == "e" else [m])


# --- own input ----------------------------------------------------------------------------------------------------


def test_bad_own_input_is_refused_at_construction() -> None:
    a, b, y = small_data()
    good = LrMatrix.from_dense(a)
    bad_labels = [y[:-1], y + 0.5, y * np.nan, y.reshape(-1, 1)]
    for labels in bad_labels:
        with pytest.raises(CallerError, match="label"):
            Guest(good, labels, LrParams(), he=Transparent(), ring=RING, random=RANDOM)
    with pytest.raises(CallerError, match="another scheme"):
        Host(good, LrParams(scheme="paillier"), he=Transparent(), ring=RING, random=RANDOM)
    with pytest.raises(CallerError, match="standardise"):
        Host(LrMatrix.from_dense(b * 100), LrParams(), he=Transparent(), ring=RING, random=RANDOM)
    for table in (b[:1], b[:, :0]):
        with pytest.raises(CallerError, match="two rows"):
            Host(LrMatrix.from_dense(table), LrParams(), he=Transparent(), ring=RING, random=RANDOM)
    for table in (np.array([[np.nan]]), np.array([[np.inf]])):
        with pytest.raises(CallerError, match="finite"):
            LrMatrix.from_dense(table)
    with pytest.raises(CallerError, match="2048"):
        Host(good, LrParams(key_bits=1024), he=OkamotoUchiyama(), ring=RING, random=RANDOM).start()
    small_key = LrParams(key_bits=512)
    with pytest.raises(CallerError, match="too little room"):
        Host(good, small_key, he=OkamotoUchiyama(insecure_min_bits=512), ring=RING, random=RANDOM).start()


def test_parameters_from_a_configuration() -> None:
    assert LrParams.from_mapping({}) == LrParams()
    read = LrParams.from_mapping({"iterations": "12", "inverse_penalty": "0.5", "scheme": "paillier"})
    assert read == LrParams(iterations=12, inverse_penalty=0.5, scheme="paillier")
    assert LrParams().digest() != read.digest()
    bad: Sequence[tuple[str, Any]] = [
        ("iterations", 0),
        ("iterations", 2.5),
        ("iterations", "many"),
        ("iterations", True),
        ("iterations", float("inf")),
        ("iterations", float("nan")),
        ("inverse_penalty", "nan"),
        ("inverse_penalty", float("inf")),
        ("inverse_penalty", -1),
        ("key_bits", 1024),
        ("scheme", "rot13"),
        ("scheme", 7),
        ("speed", 1),
    ]
    for name, value in bad:
        with pytest.raises(GatewayError, match=name):
            LrParams.from_mapping({name: value})


def test_every_scheme_of_the_kernels_may_be_chosen() -> None:
    assert set(SCHEMA["properties"]["scheme"]["enum"]) == set(wire.SCHEMES) == set(SCHEMES)
    described = json.loads((resources.files("specs") / "components" / "hetero_lr.json").read_text(encoding="utf-8"))
    inputs = {entry["name"]: entry for entry in described["inputParam"]}
    assert {choice["value"] for choice in inputs["scheme"]["bindingData"]} == set(SCHEMES)
    assert LrParams.from_mapping({"scheme": "paillier-textbook"}).scheme == "paillier-textbook"


def test_the_registry_names_the_operator() -> None:
    spec = OPERATORS["hetero_lr", "1.0.0"]
    assert spec.roles == ("guest", "host")
    assert spec.make_party["guest"] is Guest
    assert set(spec.params_schema["properties"]) == set(LrParams.__slots__)


def test_topics_and_kinds_are_one_to_one_within_an_operator() -> None:
    assert set(wire.TOPICS) == set(wire.Kind)


# --- real data ----------------------------------------------------------------------------------------------------

BANK = (
    "duration_in_month",
    "credit_history",
    "purpose",
    "credit_amount",
    "installment_rate_in_percentage_of_disposable_income",
    "other_debtors_or_guarantors",
    "other_installment_plans",
    "number_of_existing_credits_at_this_bank",
)


def german_credit() -> tuple[list[dict[str, str]], np.ndarray]:
    text = resources.files("gateway.demo").joinpath("german_credit.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    return rows, np.array([row["creditability"] == "bad" for row in rows], dtype=float)


def encode(rows: list[dict[str, str]], columns: Iterable[str], fit: np.ndarray) -> np.ndarray:
    """Numbers standardised, words one-hot, both fitted on the rows `fit`."""
    blocks = []
    for column in columns:
        words = np.array([row[column] for row in rows])
        try:
            numbers = words.astype(float)
            blocks.append(((numbers - numbers[fit].mean()) / numbers[fit].std())[:, None])
        except ValueError:
            blocks.append((words[:, None] == np.unique(words[fit])[None, :]).astype(float))
    return np.hstack(blocks)


def test_on_real_data_it_ranks_like_scikit_learn() -> None:
    """560 rows of the demo's table, 1024-bit keys for speed: same arithmetic as with longer ones."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    metrics = pytest.importorskip("sklearn.metrics")
    rows, y = german_credit()
    order = np.random.default_rng(0).permutation(1000)[:800]
    train, test = order[:560], order[560:]
    a = encode(rows, BANK, train)
    b = encode(rows, [c for c in rows[0] if c not in {*BANK, "creditability"}], train)
    params = LrParams(iterations=30, key_bits=1024)
    outcome = play(parties(a[train], b[train], y[train], params, OkamotoUchiyama(insecure_min_bits=1024)))
    twin = plaintext.train(LrMatrix.from_dense(a[train]), LrMatrix.from_dense(b[train]), y[train], params)
    assert_within_bound(outcome, twin)
    assert twin.guest_bound.max() < 1e-4
    guest, host = outcome.results[GUEST], outcome.results[HOST]
    assert isinstance(guest, LrResult)
    assert isinstance(host, LrResult)
    pooled = np.hstack([a, b])
    oracle = linear_model.LogisticRegression(C=params.inverse_penalty, max_iter=1000).fit(pooled[train], y[train])
    own = metrics.roc_auc_score(y[test], a[test] @ guest.weights + b[test] @ host.weights + guest.intercept)
    theirs = metrics.roc_auc_score(y[test], oracle.decision_function(pooled[test]))
    assert abs(own - theirs) <= 0.005
