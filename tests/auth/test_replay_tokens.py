"""Nonces, the clock window and the grammar of permits."""

import pytest

from gateway.auth.replay import ReplayGuard
from gateway.auth.tokens import dataset_urn, format_token_set, issue_token, parse_token_set, token_digest
from gateway.errors import CallerError, GatewayError, Kind, ProtocolViolation
from gateway.model import Permit


def refusal(kind: Kind) -> pytest.RaisesExc[GatewayError]:
    return pytest.RaisesExc(GatewayError, check=lambda e: e.kind is kind)


def test_window() -> None:
    guard = ReplayGuard(window_ms=100, capacity=10, not_before=950)
    for good in (950, 1000, 1100):
        guard.check_time(good, now=1000)
    for bad in (900, 949, 1101):
        with refusal(Kind.STALE):
            guard.check_time(bad, now=1000)


def test_a_nonce_is_good_once_while_its_timestamp_could_be() -> None:
    guard = ReplayGuard(window_ms=100, capacity=10)
    guard.remember("a", "n", now=1000)
    guard.remember("b", "n", now=1000)
    # A timestamp at most 100 ahead of 1000 is last accepted at 1200.
    for now in (1000, 1100, 1199):
        with refusal(Kind.REPLAYED):
            guard.remember("a", "n", now=now)
    guard.remember("a", "n", now=1201)
    assert len(guard) == 1


def test_full_means_refuse() -> None:
    guard = ReplayGuard(window_ms=100, capacity=8)
    for number in range(2):
        guard.remember("a", f"n{number}", now=0)
    with refusal(Kind.TOO_MANY):
        guard.remember("a", "n2", now=0)
    for signer in "bcd":
        for number in range(2):
            guard.remember(signer, f"n{number}", now=0)
    with refusal(Kind.TOO_MANY):
        guard.remember("e", "n0", now=0)
    with refusal(Kind.REPLAYED):
        guard.remember("a", "n0", now=0)
    guard.remember("e", "n0", now=200)
    assert len(guard) == 1


@pytest.mark.req("M-017")
def test_two_tuples_are_two_triples() -> None:
    found = parse_token_set("urn:node:LX1/1/tkA19,urn:dataset:a/b/c/2/tk B", limit=64)
    assert found == [Permit("urn:node:LX1", 1, "tkA19"), Permit("urn:dataset:a/b/c", 2, "tk B")]
    assert parse_token_set("", limit=64) == parse_token_set("  ", limit=64) == []
    assert format_token_set(found) == "urn:node:LX1/1/tkA19,urn:dataset:a/b/c/2/tk B"


@pytest.mark.parametrize(
    "text", ["a", "a/b", "a/x/t", "/1/t", "a/1/", "a//t", "a/1/t,,b/1/t", "a/1/t,", "a/-1/t", "a/1234567890/t"]
)
def test_bad_sets(text: str) -> None:
    with pytest.raises(ProtocolViolation):
        parse_token_set(text, limit=64)


def test_sets_are_bounded() -> None:
    assert len(parse_token_set(",".join(["u/1/t"] * 3), limit=3)) == 3
    with pytest.raises(ProtocolViolation):
        parse_token_set(",".join(["u/1/t"] * 4), limit=3)


def test_what_we_issue_can_be_presented() -> None:
    token = issue_token(bytes(range(224, 256)))
    permit = Permit(dataset_urn("LX/1,2", "ds ü"), 2, token)
    assert parse_token_set(format_token_set([permit]), limit=64) == [permit]
    assert token not in repr(permit)
    assert len(token_digest(token)) == 64
    for wrong in (Permit("a,b", 1, "t"), Permit("a", 1, "t/u"), Permit("", 1, "t"), Permit("a", 1, "")):
        with pytest.raises(CallerError):
            format_token_set([wrong])
    with pytest.raises(CallerError):
        issue_token(b"short")
