"""The forms of FATE-Flow's containers: storage address, transport address, call-back path."""

import aiohttp
import pytest
from yarl import URL

from gateway.sdk.channel import split_address
from gateway.sdk.environment import Artifact
from gateway.sdk.places import object_path, read_place
from tests.control.test_launch import environment
from tests.edges.rig import pair


@pytest.mark.req("A-057")
async def test_what_fate_gives_is_read_and_what_it_takes_is_given(client: aiohttp.ClientSession) -> None:
    place = read_place("s3://10.9.0.4:9000?username=u&password=p")
    assert (place.root, place.username, place.password) == ("storage", "u", "p")
    assert object_path(place, Artifact("n", "m"), "data_0") == "n/m/data_0"
    assert split_address("10.9.0.5:7304") == (False, "10.9.0.5", 7304)
    given = environment()
    assert "?" not in given["system.storage"]
    assert "://" not in given["system.transport"]
    async with pair() as (_, b):
        # Its container keeps host and port of the address and puts its own path, with two slashes, behind them.
        url = URL(f"{b.platform}//v1/platform/schedule/task/callback", encoded=True)
        async with client.post(url, json={"task_id": "t", "status": "SUCCESS", "role": "guest.0"}) as response:
            assert response.status == 200
        assert b.control.seen[-1].path == "/platform/v1/platform/schedule/task/callback"
