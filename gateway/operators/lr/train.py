"""Vertical logistic regression between two parties without a third one.

After Chaochao Chen et al., "When Homomorphic Encryption Marries Secret Sharing: Secure Large-Scale Sparse Logistic
Regression and Applications in Risk Control" (CAESAR), KDD 2021.

Functionality. The guest holds features X_a and labels y, the host features X_b, rows aligned. Out comes, for the guest
its weights and the intercept, for the host its weights, of a model trained for a public number of iterations. Public,
hence known to both: all parameters, the number of rows, each side's number of columns and curvature (for standardised
and one-hot columns the number of attributes). Neither side learns the other's features, labels, weights, any
prediction, residual or gradient in between, nor the loss. What the result itself tells is not hidden: the guest's final
weights depend on the host's features, and the host's on the labels (of a category with a single row they show it).

Adversary: semi-honest, one of the two. A partner that deviates can read our features, unnoticed, by encrypting more
than the masks cover, and it can spoil the result; docs/operators/hetero_lr.md says how. Messages are checked before any
arithmetic, but only against damage and misunderstanding.

How. Weights, predictions z, residuals e and gradients are additive shares in Z_{2^128}, fixed point. A product of a
party's matrix with the other's share runs by homomorphic encryption under the share owner's key
(`gateway.operators.hematmul.shares`); the cube of z for the polynomial sigmoid likewise, one half of the rows under
each key. Updates are linear, each party computes them on its shares. Each party runs the same rounds; one iteration is

    e  [[own share of e]]                            -> the other computes X^T [[e]]
    g  its masked result                             -> shares of both gradients, update
    w  [[own share of the partner's weights]]        -> the other computes X [[w]]
    z  its masked result                             -> shares of z
    c  [[z]] and [[z^2]] of the own half of the rows -> the other computes the mixed terms of z^3
    q  its masked result                             -> shares of z^3, of the residual

The weights start at zero, so the first iteration begins with z = 0 at `e`; after the last update the shares of the
weights are sent to their owners (`open`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from accel.kernels import (
    RING_BITS,
    AdditiveHE,
    BadInput,
    Ciphertexts,
    HePublicKey,
    HeSecretKey,
    RandomSource,
    Ring128,
    Uints,
)
from gateway.errors import CallerError, Kind, ProtocolViolation
from gateway.operators.hematmul.shares import Bounds, encrypt_share, load_share, mask, open_share, require_room
from gateway.operators.lr import wire
from gateway.operators.lr.matrix import FEATURE_RANGE_BITS, MAX_COLS, LrMatrix
from gateway.operators.lr.params import LrParams
from gateway.operators.lr.plan import CONSTANT_BITS, CUBE_BITS, Plan, make_plan
from gateway.operators.party import Awaited, Effect, Finish, PartyName, Progress, Send, require_turn

GUEST: Final = PartyName("guest.0")
HOST: Final = PartyName("host.0")

_CUBE_BOUNDS: Final = Bounds(product_bits=2 * RING_BITS + 1, gain_bits=RING_BITS + 1)
"""z_a * k1 + z_a^2 * k2, all four below 2^128."""


@dataclass(frozen=True, slots=True)
class LrResult:
    """One party's part of the model.

    weights: float64, shape (columns of its features,). intercept: the guest's; 0.0 at the host. z = X w + intercept.
    """

    weights: NDArray[np.float64] = field(repr=False)
    intercept: float = field(repr=False)
    iterations: int
    rows: int


class _Side:
    """What guest and host do alike; the role gives matrix, labels and place in the truncation."""

    def __init__(
        self,
        matrix: LrMatrix,
        labels: NDArray[np.float64] | None,
        params: LrParams,
        *,
        he: AdditiveHE,
        ring: Ring128,
        random: RandomSource,
        name: PartyName,
        peer: PartyName,
    ) -> None:
        if he.scheme != params.scheme:
            raise CallerError("the kernel is of another scheme than the parameters ask for")
        self._name = name
        self._peer = peer
        self._params = params
        self._he = he
        self._ring = ring
        self._random = random
        self._is_guest = labels is not None
        self._labels = labels
        self._matrix = matrix.quantised(params.feature_bits)
        self._transposed = self._matrix.transpose()
        self._curvature = matrix.curvature()
        self._rows = matrix.rows
        half = self._rows // 2
        guest_half, host_half = slice(0, half), slice(half, self._rows)
        self._own_half, self._peer_half = (guest_half, host_half) if self._is_guest else (host_half, guest_half)
        self._iteration = 1
        self._expected: wire.Kind | None = None
        self._handlers: Mapping[wire.Kind, Callable[[memoryview], list[Effect]]] = {
            wire.Kind.HELLO: self._on_hello,
            wire.Kind.RESIDUAL: self._on_residual,
            wire.Kind.GRADIENT: self._on_gradient,
            wire.Kind.WEIGHTS: self._on_weights,
            wire.Kind.PREDICTION: self._on_prediction,
            wire.Kind.CUBE_IN: self._on_cube_in,
            wire.Kind.CUBE_OUT: self._on_cube_out,
            wire.Kind.OPEN: self._on_open,
        }
        # Set by start and by the hello:
        self._secret: HeSecretKey
        self._hello: wire.Hello
        self._theirs: HePublicKey
        self._plan: Plan
        self._peer_cols: int
        # Shares; "own" belongs to this party's matrix, "peer" to the partner's. _v is extrapolated, _w is not.
        self._w_own: Uints
        self._w_peer: Uints
        self._v_own: Uints
        self._v_peer: Uints
        self._z: Uints
        self._e: Uints
        self._own_part: Uints
        self._cube_part: Uints

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._name}, {self._matrix!r}, iteration {self._iteration})"

    def start(self) -> Sequence[Effect]:
        if self._expected is not None or self._iteration != 1:
            raise CallerError("started twice")
        params = self._params
        try:
            self._secret = self._he.generate(params.key_bits, self._random)
        except BadInput as bad:
            raise CallerError(f"key generation: {bad}") from bad
        for bounds in (_CUBE_BOUNDS, self._product_bounds(MAX_COLS), self._product_bounds(self._rows)):
            require_room(self._secret.public, bounds)
        self._hello = wire.Hello(
            role=0 if self._is_guest else 1,
            scheme=params.scheme,
            ring_bits=RING_BITS,
            feature_bits=params.feature_bits,
            value_bits=params.value_bits,
            iterations=params.iterations,
            rows=self._rows,
            cols=self._matrix.cols,
            curvature=self._curvature,
            digest=params.digest(),
            key=self._secret.public.to_bytes(),
        )
        self._expected = wire.Kind.HELLO
        return [Send(self._peer, wire.TOPICS[wire.Kind.HELLO], wire.write_hello(wire.Kind.HELLO, self._hello))]

    def awaits(self) -> Sequence[Awaited]:
        return [] if self._expected is None else [Awaited(self._peer, wire.TOPICS[self._expected])]

    def receive(self, sender: PartyName, topic: str, payload: memoryview) -> Sequence[Effect]:
        require_turn(self.awaits(), sender, topic)
        expected, self._expected = self._expected, None  # a bad message leaves the party unusable
        if expected is None:
            raise CallerError("nothing is awaited")
        return self._handlers[expected](payload)

    # --- rounds, in their order ---

    def _on_hello(self, payload: memoryview) -> list[Effect]:
        hello = wire.read_hello(wire.Kind.HELLO, payload, ours=self._hello, max_cols=MAX_COLS)
        try:
            self._theirs = self._he.load_public(memoryview(hello.key))
        except BadInput as bad:
            raise ProtocolViolation(f"hello: key: {bad}") from bad
        if self._theirs.modulus_bits != self._params.key_bits or hello.key == self._hello.key:
            raise ProtocolViolation("hello: key")
        self._peer_cols = hello.cols
        try:
            self._plan = make_plan(self._params, rows=self._rows, curvature=self._curvature + hello.curvature)
        except CallerError as e:
            raise ProtocolViolation(f"hello: curvature: {e}") from e
        zero = np.zeros((0, 2), np.uint64)
        self._w_own = self._v_own = np.zeros((self._matrix.cols, 2), np.uint64)
        self._w_peer = self._v_peer = np.zeros((self._peer_cols, 2), np.uint64)
        self._z = np.zeros((self._rows, 2), np.uint64)
        self._own_part = self._cube_part = zero
        return self._residual(cube=np.zeros((self._rows, 2), np.uint64))

    def _residual(self, *, cube: Uints) -> list[Effect]:
        """Shares of e = Q0 + Q1 z + Q3 z^3 - y from shares of z and z^3 (the latter with 3 * CUBE_BITS)."""
        ring, plan, bits = self._ring, self._plan, self._params.value_bits
        cube = self._truncate(cube, 3 * CUBE_BITS - bits)
        total = ring.add(ring.scale(self._z, plan.q1), ring.scale(cube, plan.q3))
        if self._labels is not None:
            total = ring.add(total, ring.from_floats(0.5 - self._labels, CONSTANT_BITS + bits))
        self._e = self._truncate(total, CONSTANT_BITS)
        return self._next(wire.Kind.RESIDUAL, self._rows, encrypt_share(self._secret, self._e, self._random))

    def _on_residual(self, payload: memoryview) -> list[Effect]:
        residual = self._read_theirs(wire.Kind.RESIDUAL, payload, self._rows)
        own, reply = self._masked_product(transposed=True, vector=residual)
        # X^T e with feature_bits + value_bits: the part computed in clear, and the share of the masked one.
        self._own_part = self._ring.add(self._ring.matvec(self._transposed, self._e), own)
        return self._next(wire.Kind.GRADIENT, self._matrix.cols, reply)

    def _on_gradient(self, payload: memoryview) -> list[Effect]:
        peer_part = self._open(wire.Kind.GRADIENT, payload, self._peer_cols, self._product_bounds(self._rows))
        self._w_own, self._v_own = self._step(self._w_own, self._v_own, self._own_part, intercept=self._is_guest)
        self._w_peer, self._v_peer = self._step(self._w_peer, self._v_peer, peer_part, intercept=not self._is_guest)
        progress = Progress("train", self._iteration, self._params.iterations, "iteration")
        if self._iteration == self._params.iterations:
            return [progress, *self._next(wire.Kind.OPEN, self._peer_cols, self._ring.to_bytes(self._w_peer))]
        self._iteration += 1
        share = encrypt_share(self._secret, self._v_peer, self._random)
        return [progress, *self._next(wire.Kind.WEIGHTS, self._peer_cols, share)]

    def _on_weights(self, payload: memoryview) -> list[Effect]:
        weights = self._read_theirs(wire.Kind.WEIGHTS, payload, self._matrix.cols)
        own, reply = self._masked_product(transposed=False, vector=weights)
        self._own_part = self._ring.add(self._ring.matvec(self._matrix, self._v_own), own)
        return self._next(wire.Kind.PREDICTION, self._rows, reply)

    def _on_prediction(self, payload: memoryview) -> list[Effect]:
        peer_part = self._open(wire.Kind.PREDICTION, payload, self._rows, self._product_bounds(self._peer_cols))
        self._z = self._truncate(self._ring.add(self._own_part, peer_part), self._params.feature_bits)
        z = self._cube_input()[self._own_half]
        both = np.concatenate([z, self._ring.mul(z, z)])
        share = encrypt_share(self._secret, both, self._random)
        return self._next(wire.Kind.CUBE_IN, len(both), share)

    def _on_cube_in(self, payload: memoryview) -> list[Effect]:
        """(a + b)^3 - a^3 - b^3 = 3 b^2 a + 3 b a^2, from [[a]] and [[a^2]] of the partner's half; b is ours."""
        ring, theirs = self._ring, self._theirs
        b = self._cube_input()[self._peer_half]
        inputs = self._read_theirs(wire.Kind.CUBE_IN, payload, 2 * len(b))
        three_b = ring.scale(b, 3)
        terms = theirs.scale(inputs, np.concatenate([ring.mul(three_b, b), three_b]))
        left, right = theirs.split(terms, [len(b), len(b)])
        share, reply = mask(theirs, theirs.add(left, right), _CUBE_BOUNDS, ring, self._random)
        self._cube_part = ring.add(share, ring.mul(ring.mul(b, b), b))
        return self._next(wire.Kind.CUBE_OUT, len(b), reply)

    def _on_cube_out(self, payload: memoryview) -> list[Effect]:
        ring = self._ring
        a = self._cube_input()[self._own_half]
        mixed = self._open(wire.Kind.CUBE_OUT, payload, len(a), _CUBE_BOUNDS)
        cube = np.zeros((self._rows, 2), np.uint64)
        cube[self._own_half] = ring.add(mixed, ring.mul(ring.mul(a, a), a))
        cube[self._peer_half] = self._cube_part
        return self._residual(cube=cube)

    def _on_open(self, payload: memoryview) -> list[Effect]:
        cols, ring = self._matrix.cols, self._ring
        content = wire.read_batch(wire.Kind.OPEN, payload, turn=self._iteration, count=cols, size=RING_BITS // 8)
        weights = ring.to_floats(ring.add(self._w_own, ring.from_bytes(content, cols)), self._params.value_bits)
        if np.abs(weights).max() >= 1 << 20:
            raise ProtocolViolation("open: the shares do not add up to weights")
        intercept = float(weights[0]) if self._is_guest else 0.0
        own = weights[1:] if self._is_guest else weights
        return [Finish(LrResult(own, intercept, self._params.iterations, self._rows))]

    # --- parts of rounds ---

    def _next(self, kind: wire.Kind, count: int, content: bytes) -> list[Effect]:
        """Send a batch and await the partner's of the same kind: the two run in step."""
        self._expected = kind
        return [Send(self._peer, wire.TOPICS[kind], wire.write_batch(kind, self._iteration, count, content))]

    def _read_theirs(self, kind: wire.Kind, payload: memoryview, count: int) -> Ciphertexts:
        theirs = self._theirs
        size = theirs.ciphertext_bytes
        content = wire.read_batch(kind, payload, turn=self._iteration, count=count, size=size)
        return load_share(theirs, content, count)

    def _open(self, kind: wire.Kind, payload: memoryview, count: int, bounds: Bounds) -> Uints:
        size = self._secret.public.ciphertext_bytes
        content = wire.read_batch(kind, payload, turn=self._iteration, count=count, size=size)
        return open_share(self._secret, content, count, bounds)

    def _masked_product(self, *, transposed: bool, vector: Ciphertexts) -> tuple[Uints, bytes]:
        matrix = self._transposed if transposed else self._matrix
        product = self._theirs.matvec(matrix, vector)
        return mask(self._theirs, product, self._product_bounds(matrix.cols), self._ring, self._random)

    def _product_bounds(self, terms: int) -> Bounds:
        return Bounds.of_product(entry_bits=self._params.feature_bits + FEATURE_RANGE_BITS, terms=terms)

    def _truncate(self, share: Uints, bits: int) -> Uints:
        return self._ring.truncate(share, bits, first=self._is_guest)

    def _cube_input(self) -> Uints:
        return self._truncate(self._z, self._params.value_bits - CUBE_BITS)

    def _step(self, w: Uints, v: Uints, gradient: Uints, *, intercept: bool) -> tuple[Uints, Uints]:
        """One Nesterov step on shares; see Plan."""
        ring, plan = self._ring, self._plan
        decay = [plan.decay] * len(w)
        if intercept:
            decay[0] = 1 << CONSTANT_BITS
        kept = self._truncate(ring.mul(v, ring.from_ints(decay)), CONSTANT_BITS)
        moved = self._truncate(ring.scale(gradient, plan.gain), self._params.feature_bits + plan.gain_bits)
        after = ring.sub(kept, moved)
        ahead = self._truncate(ring.scale(ring.sub(after, w), plan.momentum), CONSTANT_BITS)
        return after, ring.add(after, ahead)


class Guest(_Side):
    """Holds features and labels; its model part has the intercept. See the module for the protocol."""

    def __init__(
        self,
        features: LrMatrix,
        labels: NDArray[np.float64],
        params: LrParams,
        *,
        he: AdditiveHE,
        ring: Ring128,
        random: RandomSource,
        name: PartyName = GUEST,
        peer: PartyName = HOST,
    ) -> None:
        """labels: 0 or 1, shape (features.rows,). he: the kernel of params.scheme. Raises CallerError for bad input."""
        _require_features(features)
        values = np.asarray(labels, dtype=np.float64)
        if values.shape != (features.rows,):
            raise CallerError("one label a row is needed", kind=Kind.MALFORMED)
        if not np.all((values == 0) | (values == 1)):
            raise CallerError("labels must be 0 or 1", kind=Kind.MALFORMED)
        super().__init__(
            features.with_intercept(), values, params, he=he, ring=ring, random=random, name=name, peer=peer
        )


class Host(_Side):
    """Holds features only. See the module for the protocol."""

    def __init__(
        self,
        features: LrMatrix,
        params: LrParams,
        *,
        he: AdditiveHE,
        ring: Ring128,
        random: RandomSource,
        name: PartyName = HOST,
        peer: PartyName = GUEST,
    ) -> None:
        """he: the kernel of params.scheme. Raises CallerError for bad input."""
        _require_features(features)
        super().__init__(features, None, params, he=he, ring=ring, random=random, name=name, peer=peer)


def _require_features(features: LrMatrix) -> None:
    if features.rows < 2 or not 1 <= features.cols < MAX_COLS:
        raise CallerError("training needs at least two rows and one column", kind=Kind.MALFORMED)
