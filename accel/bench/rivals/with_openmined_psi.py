"""openmined-psi: ECDH-PSI on P-256. Imported by serve.py only.

A request hashes each id to the curve and multiplies it; answering one multiplies each point of it. Both work on
compressed points inside protobuf messages, as does every use of the library.
"""

from collections.abc import Callable, Mapping
from importlib import metadata

from private_set_intersection import python as psi


def load() -> tuple[str, Mapping[str, Callable[[], int]]]:
    """Label, and jobs that say how many units they did."""
    client, server = psi.client.CreateWithNewKey(True), psi.server.CreateWithNewKey(True)
    ids = [f"{i:016d}" for i in range(500)]
    request = client.CreateRequest(ids)

    def create() -> int:
        client.CreateRequest(ids)
        return len(ids)

    def process() -> int:
        server.ProcessRequest(request)
        return len(ids)

    return f"openmined-psi {metadata.version('openmined-psi')}", {"create": create, "process": process}
