"""Scores of a model whose parts lie with two parties."""

from collections.abc import Iterable

import numpy as np
import pytest

from accel.backends.reference import OkamotoUchiyama, Paillier
from accel.entropy import OsRandom
from accel.kernels import AdditiveHE
from gateway.errors import CallerError, ProtocolViolation
from gateway.operators.lr.matrix import LrMatrix
from gateway.operators.lr.params import LrParams
from gateway.operators.lr.predict import Guest, Host, PredictResult
from gateway.operators.lr.train import GUEST, HOST
from gateway.operators.party import PartyName
from tests.bench import Disturb, Message, PlayResult, flip, play

OU = OkamotoUchiyama(insecure_min_bits=1024)
RNG = np.random.default_rng(5)
A, B = RNG.normal(size=(7, 3)), RNG.normal(size=(7, 2))
WA, WB, INTERCEPT = RNG.normal(size=3), RNG.normal(size=2), -0.7


def parties(he: AdditiveHE = OU, *, host_rows: int = 7, host: LrParams | None = None) -> dict[PartyName, Guest | Host]:
    params = LrParams(key_bits=1024, scheme=he.scheme)
    random = OsRandom()
    return {
        GUEST: Guest(LrMatrix.from_dense(A), WA, INTERCEPT, params, he=he, random=random),
        HOST: Host(LrMatrix.from_dense(B[:host_rows]), WB, host or params, he=he, random=random),
    }


def run(disturb: Disturb | None = None) -> PlayResult:
    return play(parties(), disturb)


@pytest.mark.parametrize("he", [OU, Paillier(insecure_min_bits=1024)], ids=["ou", "paillier"])
def test_the_guest_gets_the_scores_and_the_host_nothing(he: AdditiveHE) -> None:
    outcome = play(parties(he))
    guest, host = outcome.results[GUEST], outcome.results[HOST]
    assert isinstance(guest, PredictResult)
    assert isinstance(host, PredictResult)
    assert guest.scores is not None
    assert host == PredictResult(7, None)
    wanted = 1 / (1 + np.exp(-(A @ WA + INTERCEPT + B @ WB)))
    assert np.abs(guest.scores - wanted).max() < 2.0**-25  # half a unit of 24 bits, times the slope of at most 1/4
    assert [(m.sender, m.topic) for m in outcome.transcript] == [(GUEST, "hello"), (HOST, "sum")]
    assert "0." not in repr(guest)


def test_extreme_sums_do_not_overflow() -> None:
    both = parties()
    random = OsRandom()
    both[HOST] = Host(LrMatrix.from_dense(B), WB * 1e5, LrParams(key_bits=1024), he=OU, random=random)
    result = play(both).results[GUEST]
    assert isinstance(result, PredictResult)
    assert result.scores is not None
    assert set(np.round(result.scores)) <= {0.0, 1.0}


@pytest.mark.parametrize("position", [0, 1, 2, 4, 8, 40, -1])
def test_a_damaged_sum_is_refused(position: int) -> None:
    def disturb(_: int, m: Message) -> Iterable[Message]:
        return [flip(m, position) if m.topic == "sum" else m]

    with pytest.raises(ProtocolViolation, match="sum"):
        run(disturb)


@pytest.mark.parametrize("position", [0, 1, 2, 3, 4, 10, 30, 54, 60])
def test_a_damaged_hello_is_refused(position: int) -> None:
    def disturb(_: int, m: Message) -> Iterable[Message]:
        return [flip(m, position) if m.topic == "hello" else m]

    with pytest.raises(ProtocolViolation, match="hello"):
        run(disturb)


def test_rows_and_parameters_must_agree() -> None:
    with pytest.raises(ProtocolViolation, match="hello: rows"):
        play(parties(host_rows=6))
    with pytest.raises(ProtocolViolation, match="hello: parameters"):
        play(parties(host=LrParams(key_bits=1024, inverse_penalty=1.0)))


def test_bad_own_input_is_refused() -> None:
    features = LrMatrix.from_dense(B)
    for weights in (WA, WB * np.nan, WB * 1e9):
        with pytest.raises(CallerError):
            Host(features, weights, LrParams(), he=OU, random=OsRandom())
    with pytest.raises(CallerError, match="out of turn"):
        parties()[GUEST].receive(HOST, "sum", memoryview(b""))
