"""Our own admin API as data: where it is. The standard does not know it."""

from typing import Final

BASE: Final = "/v1/admin"
"""Every path of the admin API begins so."""
