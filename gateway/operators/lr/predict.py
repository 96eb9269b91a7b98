"""Scores of aligned rows from a model whose parts lie with guest and host.

Functionality: the guest gets sigmoid(X_a w_a + intercept + X_b w_b) for each row; the host gets nothing. Public: the
number of rows and the parameters. It is in the nature of this function that the guest, who knows its own part, learns
the host's partial sum X_b w_b of each row (one number a row; enough rows with known features would give the weights);
who does not want that must not offer prediction. Adversary: semi-honest.

The host's sums travel under the guest's public key, so that nobody on the way, gateways and proxies included, sees
them; they are fresh encryptions of the host's own numbers, so their noise tells nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from accel.kernels import RING_BITS, AdditiveHE, BadInput, HeSecretKey, RandomSource
from gateway.errors import CallerError, Kind, ProtocolViolation
from gateway.operators.lr import wire
from gateway.operators.lr.matrix import LrMatrix
from gateway.operators.lr.params import LrParams
from gateway.operators.lr.train import GUEST, HOST
from gateway.operators.party import Awaited, Effect, Finish, PartyName, Send, require_turn

_RANGE_BITS: Final = 20
"""|X_b w_b| < 2^20."""

_OFFSET: Final = 1 << 62


@dataclass(frozen=True, slots=True)
class PredictResult:
    """scores: at the guest, probabilities of label 1, float64 of shape (rows,); None at the host."""

    rows: int
    scores: NDArray[np.float64] | None = field(repr=False)


def _hello(params: LrParams, *, role: int, rows: int, key: bytes) -> wire.Hello:
    return wire.Hello(
        role=role,
        scheme=params.scheme,
        ring_bits=RING_BITS,
        feature_bits=params.feature_bits,
        value_bits=params.value_bits,
        iterations=params.iterations,
        rows=rows,
        cols=1,
        curvature=1,
        digest=params.digest(),
        key=key,
    )


def _partial_sums(features: LrMatrix, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    values = np.asarray(weights, dtype=np.float64)
    if values.shape != (features.cols,) or not np.all(np.isfinite(values)):
        raise CallerError("the model part does not fit the features", kind=Kind.MALFORMED)
    sums = features.dot(values)
    if np.any(np.abs(sums) >= 1 << _RANGE_BITS):
        raise CallerError("a partial sum is too large", kind=Kind.MALFORMED)
    return sums


class Guest:
    """Gets the scores."""

    def __init__(
        self,
        features: LrMatrix,
        weights: NDArray[np.float64],
        intercept: float,
        params: LrParams,
        *,
        he: AdditiveHE,
        random: RandomSource,
        name: PartyName = GUEST,
        peer: PartyName = HOST,
    ) -> None:
        """weights, intercept: as LrResult gave them to the guest. params: those of the training."""
        if he.scheme != params.scheme:
            raise CallerError("the kernel is of another scheme than the parameters ask for")
        self._sums = _partial_sums(features, weights) + float(intercept)
        self._rows = features.rows
        self._params = params
        self._he = he
        self._random = random
        self._name = name
        self._peer = peer
        self._awaited: tuple[Awaited, ...] = ()
        self._secret: HeSecretKey

    def __repr__(self) -> str:
        return f"Guest({self._name}, {self._rows} rows)"

    def start(self) -> Sequence[Effect]:
        try:
            self._secret = self._he.generate(self._params.key_bits, self._random)
        except BadInput as bad:
            raise CallerError(f"key generation: {bad}") from bad
        hello = _hello(self._params, role=0, rows=self._rows, key=self._secret.public.to_bytes())
        self._awaited = (Awaited(self._peer, wire.TOPICS[wire.Kind.PARTIAL_SUM]),)
        kind = wire.Kind.PREDICT_HELLO
        return [Send(self._peer, wire.TOPICS[kind], wire.write_hello(kind, hello))]

    def awaits(self) -> Sequence[Awaited]:
        return self._awaited

    def receive(self, sender: PartyName, topic: str, payload: memoryview) -> Sequence[Effect]:
        require_turn(self._awaited, sender, topic)
        self._awaited = ()
        public = self._secret.public
        size = public.ciphertext_bytes
        content = wire.read_batch(wire.Kind.PARTIAL_SUM, payload, turn=0, count=self._rows, size=size)
        try:
            plain = self._secret.decrypt(public.load(content, self._rows))
        except BadInput as bad:
            raise ProtocolViolation(f"sum: {bad}") from bad
        if plain[:, 1:].any() or np.any(plain[:, 0] >= 2 * _OFFSET):
            raise ProtocolViolation("sum: a partial sum lies outside its bounds")
        theirs = (plain[:, 0].astype(np.int64) - _OFFSET) / 2.0**self._params.value_bits
        if np.any(np.abs(theirs) >= 1 << _RANGE_BITS):
            raise ProtocolViolation("sum: a partial sum lies outside its bounds")
        return [Finish(PredictResult(self._rows, _sigmoid(self._sums + theirs)))]


class Host:
    """Contributes its partial sums."""

    def __init__(
        self,
        features: LrMatrix,
        weights: NDArray[np.float64],
        params: LrParams,
        *,
        he: AdditiveHE,
        random: RandomSource,
        name: PartyName = HOST,
        peer: PartyName = GUEST,
    ) -> None:
        """weights: as LrResult gave them to the host. params: those of the training."""
        if he.scheme != params.scheme:
            raise CallerError("the kernel is of another scheme than the parameters ask for")
        self._sums = _partial_sums(features, weights)
        self._rows = features.rows
        self._params = params
        self._he = he
        self._random = random
        self._name = name
        self._peer = peer
        self._awaited: tuple[Awaited, ...] = ()

    def __repr__(self) -> str:
        return f"Host({self._name}, {self._rows} rows)"

    def start(self) -> Sequence[Effect]:
        self._awaited = (Awaited(self._peer, wire.TOPICS[wire.Kind.PREDICT_HELLO]),)
        return []

    def awaits(self) -> Sequence[Awaited]:
        return self._awaited

    def receive(self, sender: PartyName, topic: str, payload: memoryview) -> Sequence[Effect]:
        require_turn(self._awaited, sender, topic)
        self._awaited = ()
        ours = _hello(self._params, role=1, rows=self._rows, key=b"")
        hello = wire.read_hello(wire.Kind.PREDICT_HELLO, payload, ours=ours, max_cols=1)
        try:
            public = self._he.load_public(memoryview(hello.key))
        except BadInput as bad:
            raise ProtocolViolation(f"hello: key: {bad}") from bad
        if public.modulus_bits != self._params.key_bits:
            raise ProtocolViolation("hello: key")
        scaled = np.rint(self._sums * 2.0**self._params.value_bits).astype(np.int64) + _OFFSET
        batch = public.encrypt(scaled.astype(np.uint64).reshape(-1, 1), self._random)
        kind = wire.Kind.PARTIAL_SUM
        message = wire.write_batch(kind, 0, self._rows, public.dump(batch))
        return [Send(self._peer, wire.TOPICS[kind], message), Finish(PredictResult(self._rows, None))]


def _sigmoid(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 / (1 + exp(-z)) without overflow."""
    small = np.exp(-np.abs(z))
    return np.where(z >= 0, 1 / (1 + small), small / (1 + small))
