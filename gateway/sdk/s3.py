"""Objects of an S3 server (extra `s3`), signed with Signature Version 4 by the `minio` client.

S3 shows an object when all of it has come, so it is there whole or not at all; what is written waits in an unnamed file
of this machine until then. The bucket is made when it is missing, as FATE-Flow does.
"""

import errno
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, BinaryIO, Final, cast

import urllib3
from minio import Minio
from minio.error import MinioException, S3Error

from gateway.sdk.places import Place

REGION: Final = "us-east-1"
"""What servers that have no regions expect in the signature."""
PART_BYTES: Final = 16 << 20
"""Held in memory to be signed; longer objects are sent in parts, of which there may be 10 000."""
_MISSING: Final = frozenset({"NoSuchKey", "NoSuchBucket", "NoSuchObject"})


class Buckets:
    """Objects of one bucket."""

    def __init__(self, place: Place, *, connect_s: float = 10.0, read_s: float = 60.0) -> None:
        self._bucket = place.root
        host = f"[{place.host}]" if ":" in place.host else place.host
        pool = urllib3.PoolManager(
            maxsize=4,
            timeout=urllib3.Timeout(connect=connect_s, read=read_s),
            retries=urllib3.Retry(total=3, backoff_factor=0.2, status_forcelist=(500, 502, 503, 504)),
        )
        self._client = Minio(
            f"{host}:{place.port}",
            access_key=place.username,
            secret_key=place.password,
            secure=place.tls,
            region=REGION,
            http_client=pool,
        )

    @contextmanager
    def reading(self, path: str) -> Iterator[BinaryIO]:
        with _as_os_error():
            answer: Any = self._client.get_object(self._bucket, path)
        # Else its end would close it, which whoever reads text from it takes for an error.
        answer.auto_close = False
        try:
            yield cast("BinaryIO", answer)
        except urllib3.exceptions.HTTPError as e:
            raise OSError(errno.EIO, f"the S3 server broke off ({type(e).__name__})") from None
        finally:
            answer.close()
            answer.release_conn()

    @contextmanager
    def writing(self, path: str) -> Iterator[BinaryIO]:
        with tempfile.TemporaryFile() as file:
            yield cast("BinaryIO", file)
            length = file.tell()
            with _as_os_error():
                try:
                    self._put(path, file, length)
                except S3Error as e:
                    if e.code != "NoSuchBucket":
                        raise
                    self._client.make_bucket(self._bucket)
                    self._put(path, file, length)

    def _put(self, path: str, file: Any, length: int) -> None:
        file.seek(0)
        self._client.put_object(self._bucket, path, file, length, part_size=PART_BYTES)

    def remove(self, path: str) -> None:
        with _as_os_error():
            try:
                self._client.remove_object(self._bucket, path)
            except S3Error as e:
                if e.code not in _MISSING:
                    raise

    def names(self, folder: str) -> list[str]:
        with _as_os_error():
            found = self._client.list_objects(self._bucket, prefix=f"{folder}/")
            return [str(each.object_name).rpartition("/")[2] for each in found]


@contextmanager
def _as_os_error() -> Iterator[None]:
    """The client's errors by the code of the server; its texts hold addresses and keys, so they stay here."""
    try:
        yield
    except S3Error as e:
        missing = e.code in _MISSING or getattr(e.response, "status", 0) == HTTPStatus.NOT_FOUND
        if missing:
            raise FileNotFoundError(errno.ENOENT, f"the S3 server has no such object ({e.code})") from None
        raise OSError(errno.EIO, f"the S3 server refused it ({e.code})") from None
    except (MinioException, urllib3.exceptions.HTTPError, ValueError) as e:
        raise OSError(errno.EIO, f"the S3 server was not reached or not understood ({type(e).__name__})") from None
