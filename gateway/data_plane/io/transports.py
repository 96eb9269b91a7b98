"""What has to be known of asyncio's transports in every module that holds one."""

import asyncio
from typing import cast


def abort(transport: asyncio.BaseTransport) -> None:
    """End a connection at once.

    In CPython before 3.11.5 (Debian 12 has 3.11.2) a TLS transport of asyncio that is closed twice forgets its
    connection, which ends by itself then, and aborting it is an error.
    """
    if getattr(transport, "_ssl_protocol", transport) is not None:
        cast("asyncio.Transport", transport).abort()
