"""Objects of HDFS (extra `hdfs`), through pyarrow and the system's libhdfs."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO, cast

from pyarrow import fs

from gateway.sdk.places import Place


class Hdfs:
    """Objects below one folder of a cluster. HDFS has no passwords: the address's user is taken, the rest is not."""

    def __init__(self, place: Place) -> None:
        """Raises OSError where there is no libhdfs or no cluster."""
        self._files: Any = fs.HadoopFileSystem(place.host, place.port, user=place.username or None)

    @contextmanager
    def reading(self, path: str) -> Iterator[BinaryIO]:
        with self._files.open_input_file(path) as file:
            yield cast("BinaryIO", file)

    @contextmanager
    def writing(self, path: str) -> Iterator[BinaryIO]:
        folder, _, name = path.rpartition("/")
        temporary = f"{folder}/.{name}.{os.getpid()}.tmp"
        try:
            self._files.create_dir(folder, recursive=True)
            with self._files.open_output_stream(temporary) as file:
                yield cast("BinaryIO", file)
            # HDFS renames onto nothing that is there.
            self.remove(path)
            self._files.move(temporary, path)
        finally:
            with suppress(OSError):
                self.remove(temporary)

    def remove(self, path: str) -> None:
        with suppress(FileNotFoundError):
            if self._files.get_file_info(path).type != fs.FileType.NotFound:
                self._files.delete_file(path)

    def names(self, folder: str) -> list[str]:
        found = self._files.get_file_info(fs.FileSelector(folder))
        if not isinstance(found, list):
            raise FileNotFoundError(errno.ENOENT, "no such folder")
        return [each.base_name for each in found if each.is_file]
