"""The set intersection, both parties in one process."""

import hashlib
import os
import random
import struct
from collections.abc import Iterable

import pytest

from accel import registry
from accel.kernels import Texts
from gateway.errors import CallerError, Kind, ProtocolViolation, Refused
from gateway.operators.party import Awaited, PartyName
from gateway.operators.psi import EcdhPsi, PsiResult, ecdh
from gateway.operators.psi.kernel import equal_points, normalised
from gateway.operators.psi.wire import HELLO, MAGIC, POINTS, all_canonical, has_zero
from gateway.operators.registry import OPERATORS
from tests.bench import Disturb, Message, flip, play

GUEST, HOST = PartyName("guest.0"), PartyName("host.0")
P = 2**255 - 19

x25519_mask = registry.x25519().mask_points
sha256 = registry.digest("sha256").digest


def hash_to_points(ids: Iterable[bytes]) -> bytes:
    return b"".join(hashlib.sha256(one).digest() for one in ids)


def party(own: PartyName, ids: Iterable[bytes], **options: object) -> EcdhPsi:
    partner = HOST if own == GUEST else GUEST
    given = {"ids": Texts.of(list(ids)), "mask_points": x25519_mask, "digest": sha256, "random": os.urandom, **options}
    return EcdhPsi(partner=partner, **given)  # type: ignore[arg-type]


def names(numbers: Iterable[int]) -> list[bytes]:
    return [b"customer-%d" % number for number in numbers]


def intersect(left: list[bytes], right: list[bytes]) -> tuple[PsiResult, PsiResult, list[Message]]:
    outcome = play({GUEST: party(GUEST, left), HOST: party(HOST, right)})
    assert not outcome.stuck
    guest, host = outcome.results[GUEST], outcome.results[HOST]
    assert isinstance(guest, PsiResult)
    assert isinstance(host, PsiResult)
    return guest, host, list(outcome.transcript)


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ecdh, "BATCH_IDS", 7)
    monkeypatch.setattr(ecdh, "WINDOW", 2)


# --- the kernel -------------------------------------------------------------------------------------------------------


def test_x25519_vectors_of_rfc_7748() -> None:
    vectors = [
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
    ]
    for secret, point, product in vectors:
        assert x25519_mask(bytes.fromhex(secret), bytes.fromhex(point)).hex() == product
    # Section 5.2, iterated: after one and after a thousand rounds.
    k = u = (9).to_bytes(32, "little")
    for rounds in range(1, 1001):
        k, u = x25519_mask(k, u), k
        if rounds == 1:
            assert k.hex() == "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079"
    assert k.hex() == "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51"


def test_kernel_batches_and_low_order_points() -> None:
    secret = os.urandom(32)
    points = hash_to_points(names(range(5)))
    assert points[:32] == hashlib.sha256(b"customer-0").digest()
    masked = x25519_mask(secret, points)
    assert masked == b"".join(x25519_mask(secret, points[at : at + 32]) for at in range(0, 160, 32))
    assert all_canonical(masked)
    for low in (0, 1, P, P - 1, P + 1):
        middle = masked[:32] + low.to_bytes(32, "little") + masked[:32]
        out = x25519_mask(secret, middle)
        assert out[32:64] == bytes(32)
        assert out[:32] == out[64:] != bytes(32)
    assert x25519_mask(secret, b"") == b""
    for wrong in ((b"short", b""), (secret, b"x" * 33)):
        with pytest.raises(ValueError):
            x25519_mask(*wrong)


def test_masking_commutes() -> None:
    a, b = os.urandom(32), os.urandom(32)
    points = hash_to_points(names(range(3)))
    assert x25519_mask(a, x25519_mask(b, points)) == x25519_mask(b, x25519_mask(a, points))


def test_canonical_and_zero_checks() -> None:
    good = [0, 1, P - 1, 2**254, 2**255 - 1 - 2**64, 2**255 - 1 - 2**128, 2**255 - 1 - 2**192]
    assert all_canonical(b"".join(value.to_bytes(32, "little") for value in good))
    for value in (P, P + 1, 2**255 - 1, 2**255, 2**256 - 1):
        assert not all_canonical((5).to_bytes(32, "little") + value.to_bytes(32, "little"))
    assert has_zero(bytes(32))
    ones = b"".join((1 << bit).to_bytes(32, "little") for bit in range(255))
    assert not has_zero(ones)
    assert has_zero(ones + bytes(32) + ones)


# --- the protocol -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize(
    ("left", "right"),
    [
        (range(1), range(1)),
        (range(50), range(50)),
        (range(40), range(20, 90)),
        (range(7), range(3, 100)),
        (range(14), range(100, 101)),
        (range(100), range(99, 106)),
    ],
)
def test_both_learn_the_same_rows_in_the_same_order(left: range, right: range) -> None:
    own, other = names(left), names(reversed(right))
    guest, host, _ = intersect(own, other)
    common = [own[row] for row in guest.rows]
    assert common == [other[row] for row in host.rows]
    assert set(common) == set(own) & set(other)
    assert (guest.partner_count, host.partner_count) == (len(other), len(own))
    assert guest.alignment == host.alignment


def test_what_is_sent_and_found_has_not_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole run with known randomness: the digest was taken when ids and points were handled one by one."""
    monkeypatch.setattr(ecdh, "BATCH_IDS", 97)
    guest = party(GUEST, (b"id %d " % number for number in range(1000)), random=random.Random(1).randbytes)
    host = party(HOST, (b"id %d" % (3 * number) for number in range(700)), random=random.Random(2).randbytes)
    outcome = play({GUEST: guest, HOST: host})
    seen = hashlib.sha256()
    for message in outcome.transcript:
        seen.update(repr((message.sender, message.to, message.topic)).encode() + message.payload)
    for result in (outcome.results[GUEST], outcome.results[HOST]):
        assert isinstance(result, PsiResult)
        seen.update(result.rows.tobytes() + result.alignment + str(result.partner_count).encode())
    assert seen.hexdigest() == "0a393d5c943af19759e5b62f8eead137c1ef4518c13c335e13b75b5c04b04509"


def test_whole_batches() -> None:
    own, other = names(range(ecdh.BATCH_IDS + 3)), names(range(ecdh.BATCH_IDS - 1, ecdh.BATCH_IDS + 30))
    guest, host, transcript = intersect(own, other)
    assert sorted(guest.rows.tolist()) == [ecdh.BATCH_IDS - 1, ecdh.BATCH_IDS, ecdh.BATCH_IDS + 1, ecdh.BATCH_IDS + 2]
    assert len(host.rows) == 4
    assert max(len(message.payload) for message in transcript) == 8 + 32 * ecdh.BATCH_IDS


def test_the_registry_names_the_operator() -> None:
    spec = OPERATORS["psi", "1.0.0"]
    assert {role: spec.make_party[role] for role in spec.roles} == {"guest": EcdhPsi, "host": EcdhPsi}


def test_white_space_around_ids_does_not_matter() -> None:
    guest, _, _ = intersect([b" 1", b"2 "], [b"2", b"\t1\r\n"])
    assert sorted(guest.rows.tolist()) == [0, 1]
    for given, plain in (([b" a\n", b"b"], [b"a", b"b"]), ([b"\x0b\x0c\ra b\t"], [b"a b"]), ([b"\xa0x"], [b"\xa0x"])):
        ids = normalised(Texts.of(given), max_ids=2)
        assert [ids[row] for row in range(len(ids))] == plain == [one.strip() for one in given]


@pytest.mark.usefixtures("small_batches")
def test_nothing_of_an_id_or_its_hash_is_sent_and_the_order_is_hidden() -> None:
    ids = names(range(30))
    _, _, transcript = intersect(ids, names(range(10, 40)))
    wire = b"".join(message.payload for message in transcript)
    for one in names(range(40)):
        assert one not in wire
        assert hashlib.sha256(one).digest() not in wire
    assert {message.topic for message in transcript} == {HELLO, POINTS}
    # With the identity for a mask, the order of sending shows: it is not the row order, and differs between runs.
    orders = []
    for _ in range(2):
        shown = party(GUEST, ids, mask_points=lambda _secret, points: points)
        sent = b"".join(bytes(effect.payload)[8:] for effect in shown.start()[2:])  # type: ignore[union-attr]
        orders.append(sent)
    assert orders[0] != orders[1]
    assert orders[0] != hash_to_points(ids)[: len(orders[0])]


@pytest.mark.usefixtures("small_batches")
def test_no_more_than_the_window_is_under_way() -> None:
    one = party(GUEST, names(range(100)))
    effects = one.start()
    assert [effect.topic for effect in effects if hasattr(effect, "topic")] == [HELLO, POINTS, POINTS]


@pytest.mark.parametrize(
    ("ids", "kind", "words"),
    [
        ([b"a", b"b", b" a"], Kind.CONFLICT, "rows 1 and 3 have the same id"),
        ([b"c", b"b", b"c", b"b", b"a", b"c"], Kind.CONFLICT, "rows 1 and 3 have the same id"),
        ([b"a", b" "], Kind.MALFORMED, "row 2 has an empty id"),
        ([b"a", b"b", b""], Kind.MALFORMED, "row 3 has an empty id"),
        ([], Kind.MALFORMED, "0 ids"),
    ],
)
def test_bad_own_ids_are_refused_before_anything_is_sent(ids: list[bytes], kind: Kind, words: str) -> None:
    with pytest.raises(Refused, match=words) as caught:
        party(GUEST, ids)
    assert caught.value.kind is kind


def test_too_many_ids() -> None:
    with pytest.raises(Refused):
        party(GUEST, names(range(5)), max_ids=4)


def test_empty_intersection_ends_at_both() -> None:
    guest, host, _ = intersect(names(range(5)), names(range(5, 12)))
    assert (len(guest.rows), len(host.rows)) == (0, 0)
    assert guest.alignment == host.alignment


def test_secret_is_not_shown() -> None:
    one = party(GUEST, [b"x"], random=lambda count: b"\x41" * count)
    assert "AAAA" not in repr(one)
    assert "\\x41" not in repr(one)


# --- a partner that misbehaves ----------------------------------------------------------------------------------------


def hello(count: int, magic: bytes = MAGIC) -> bytes:
    return magic + struct.pack("<Q", count)


def batch(kind: int, index: int, points: bytes) -> bytes:
    return struct.pack("<B3xI", kind, index) + points


def waiting(count: int = 3, partner: int = 2) -> EcdhPsi:
    """A party that has sent its points and heard how many the partner has."""
    one = party(GUEST, names(range(count)), max_ids=1000)
    one.start()
    one.receive(HOST, HELLO, memoryview(hello(partner)))
    return one


POINT = x25519_mask(b"k" * 32, hash_to_points([b"z"]))
OTHER = x25519_mask(b"k" * 32, hash_to_points([b"y"]))
THIRD = x25519_mask(b"k" * 32, hash_to_points([b"x"]))


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (b"", "length"),
        (hello(2)[:-1], "length"),
        (hello(2) + b"x", "length"),
        (hello(2, b"ICPSI\x00\x02\x01"), "version"),
        (hello(0), "0 ids"),
        (hello(1001), "1001 ids"),
        (hello(2**64 - 1), "ids"),
    ],
)
def test_bad_hello(payload: bytes, words: str) -> None:
    one = party(GUEST, names(range(3)), max_ids=1000)
    one.start()
    with pytest.raises(ProtocolViolation, match=words):
        one.receive(HOST, HELLO, memoryview(payload))


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (b"", "length"),
        (batch(1, 0, b""), "length"),
        (batch(1, 0, POINT + b"x"), "length"),
        (batch(3, 0, POINT + OTHER), "kind"),
        (b"\x01\x01" + batch(1, 0, POINT + OTHER)[2:], "form"),
        (batch(1, 0, POINT), "not the one expected"),
        (batch(1, 0, POINT + OTHER + THIRD), "not the one expected"),
        (batch(1, 1, POINT + OTHER), "not the one expected"),
        (batch(1, 0, POINT + POINT), "twice"),
        (batch(1, 0, POINT + bytes(32)), "zero point"),
        (batch(1, 0, POINT + (1).to_bytes(32, "little")), "low order"),
        (batch(1, 0, POINT + (P - 1).to_bytes(32, "little")), "low order"),
        (batch(1, 0, POINT + (P + 1).to_bytes(32, "little")), "canonical"),
        (batch(1, 0, POINT + OTHER[:-1] + bytes([OTHER[-1] | 0x80])), "canonical"),
        (batch(2, 0, POINT + OTHER), "not the one expected"),
        (batch(2, 1, POINT + OTHER + THIRD), "not the one expected"),
        (batch(2, 0, POINT + OTHER + bytes(32)), "zero point"),
    ],
)
def test_bad_batch(payload: bytes, words: str) -> None:
    with pytest.raises(ProtocolViolation, match=words):
        waiting().receive(HOST, POINTS, memoryview(payload))


def test_answers_and_points_beyond_the_end() -> None:
    one = waiting()
    one.receive(HOST, POINTS, memoryview(batch(1, 0, POINT + OTHER)))
    with pytest.raises(ProtocolViolation, match="not the one expected"):
        one.receive(HOST, POINTS, memoryview(batch(1, 1, THIRD)))
    two = waiting()
    two.receive(HOST, POINTS, memoryview(batch(2, 0, POINT + OTHER + THIRD)))
    with pytest.raises(ProtocolViolation, match="not sent"):
        two.receive(HOST, POINTS, memoryview(batch(2, 1, POINT)))


def test_two_answers_alike() -> None:
    one = waiting()
    one.receive(HOST, POINTS, memoryview(batch(1, 0, POINT + OTHER)))
    with pytest.raises(ProtocolViolation, match="same"):
        one.receive(HOST, POINTS, memoryview(batch(2, 0, POINT + OTHER + POINT)))


def test_a_point_that_comes_again_in_a_later_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ecdh, "BATCH_IDS", 1)
    one = waiting(1)
    one.receive(HOST, POINTS, memoryview(batch(1, 0, POINT)))
    one.receive(HOST, POINTS, memoryview(batch(2, 0, OTHER)))
    with pytest.raises(ProtocolViolation, match="twice"):
        one.receive(HOST, POINTS, memoryview(batch(1, 1, POINT)))


def pairs(points: list[bytes]) -> list[tuple[int, int]]:
    before, after = equal_points(b"".join(points))
    return list(zip(before.tolist(), after.tolist(), strict=True))


def test_equal_points_also_where_their_first_bytes_do_not_tell_them_apart() -> None:
    head, low, high = b"\x07" * 8, bytes(24), b"\xff" * 24
    a, b, c = b"\x01" * 32, head + low, head + high
    assert pairs([a]) == pairs([a, b, c]) == []
    assert pairs([c, b, a, b, c]) == [(1, 3), (0, 4)]
    assert pairs([b, c, b]) == [(0, 2)]
    assert pairs([c, c, a, c, a]) == [(2, 4), (0, 1), (1, 3)]
    shuffled = [bytes([one]) + low + b"1234567" for one in (200, 3, 128, 127, 3, 200, 127)]
    assert pairs(shuffled) == [(1, 4), (3, 6), (0, 5)]  # ascending as bytes, not as signed or little-endian numbers


def test_turns() -> None:
    one = party(GUEST, names(range(3)))
    assert list(one.awaits()) == []
    one.start()
    assert list(one.awaits()) == [Awaited(HOST, HELLO)]
    with pytest.raises(CallerError):
        one.receive(HOST, POINTS, memoryview(batch(1, 0, POINT)))
    with pytest.raises(CallerError):
        one.start()
    with pytest.raises(CallerError):
        waiting().receive(HOST, HELLO, memoryview(hello(2)))


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("number", [0, 2, 5, 9])
def test_damage_and_loss_on_the_way(number: int) -> None:
    def parties() -> dict[PartyName, EcdhPsi]:
        return {GUEST: party(GUEST, names(range(20))), HOST: party(HOST, names(range(10, 30)))}

    def undisturbed(disturb: Disturb) -> bool:
        """Whether both parties finished; a violation that one of them noticed counts as not."""
        try:
            return not play(parties(), disturb).stuck
        except ProtocolViolation:
            return False

    assert not undisturbed(lambda at, message: [] if at == number else [message])
    assert not undisturbed(lambda at, message: [message, message] if at == number and message.topic == POINTS else [])
    assert not undisturbed(lambda at, message: [flip(message, 0)] if at == number else [message])
