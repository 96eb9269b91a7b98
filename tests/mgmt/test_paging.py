"""Lists as a whole: everything, or a clear refusal; never a part that looks like everything."""

import pytest

from gateway.errors import Kind, ProtocolViolation
from gateway.mgmt_plane.core.messages import page_of, paged
from gateway.model import Limits

LIMITS = Limits(list_records=3)


@pytest.mark.req("M-019")
def test_everything_up_to_the_cap() -> None:
    page = page_of({"page_size": "-1"}, LIMITS)
    assert (page.offset, page.limit) == (0, 3)
    records = [{"n": n} for n in range(3)]
    assert paged(records, 3, page) == {"records": records, "total": 3}
    assert paged([], 0, page) == {"records": [], "total": 0}


@pytest.mark.req("M-019")
def test_more_than_the_cap_is_refused_with_the_way_out() -> None:
    page = page_of({"page_size": "-1"}, LIMITS)
    with pytest.raises(ProtocolViolation, match="at most 3 records and there are 4: ask for pages") as caught:
        paged([{}, {}, {}], 4, page)
    assert caught.value.kind is Kind.MALFORMED
    assert "ask for pages" in caught.value.public_text()


def test_an_ordinary_page_may_be_a_part() -> None:
    page = page_of({"page_size": "2", "page_num": "2"}, LIMITS)
    assert (page.offset, page.limit) == (2, 2)
    assert paged([{}, {}], 9, page)["total"] == 9
