"""One CUDA device by way of CuPy: whether it will do, arrays to and fro, launches. Knows no kernel's meaning.

CuPy is given by whoever has another one (the tests: one that runs the same sources on the CPU), else imported.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import resources
from typing import Any, Final

import numpy as np

from accel.kernels import DeviceFailed

DeviceArray = Any
"""A cupy.ndarray."""

CAPABILITY: Final = 70
"""Volta: what CuPy's NVRTC of CUDA 12 and 13 compiles for and what has independent threads."""
_BLOCK: Final = 128
OPTIONS: Final = ("-std=c++17", "--device-int128")
_INCLUDE: Final = re.compile(r'^#include "([\w./]+)"$', re.MULTILINE)


def refusal(cupy: Any = None) -> str | None:
    """Why the first device cannot be used, in words, or None."""
    try:
        cupy = cupy or _import()
    except ImportError as error:
        return f"cupy does not load ({type(error).__name__})"
    runtime = cupy.cuda.runtime
    try:
        driver, wanted = runtime.driverGetVersion(), runtime.runtimeGetVersion()
        if driver == 0:
            return "there is no CUDA driver"
        if driver // 1000 < wanted // 1000:
            return f"the CUDA driver is for version {_version(driver)}, cupy needs {_version(wanted)}"
        if runtime.getDeviceCount() == 0:
            return "there is no CUDA device"
        capability = int(cupy.cuda.Device(0).compute_capability)
    except runtime.CUDARuntimeError as error:
        return f"no CUDA device answers ({error})"
    if capability < CAPABILITY:
        return f"the device has compute capability {capability / 10:.1f}, {CAPABILITY / 10:.1f} is needed"
    return None


@cache
def source(name: str) -> str:
    """A file of accel/cuda with what it includes of ours put in place, as NVRTC wants it: one text."""
    root = resources.files("accel")

    def read(path: str) -> str:
        folder = path.rpartition("/")[0]
        return _INCLUDE.sub(lambda found: read(_joined(folder, found[1])), (root / path).read_text(encoding="utf-8"))

    return read(f"cuda/{name}.cuh")


class Device:
    """The first device, or the one numbered, and the kernels compiled for it."""

    def __init__(self, cupy: Any = None, number: int = 0) -> None:
        self._cupy = cupy or _import()
        self._number = number
        self._modules: dict[tuple[str, int | None], Any] = {}

    def __repr__(self) -> str:
        return f"Device({self._number})"

    @contextmanager
    def working(self) -> Iterator[None]:
        """Everything inside runs on this device; what CUDA says becomes DeviceFailed."""
        cuda = self._cupy.cuda
        try:
            with cuda.Device(self._number):
                yield
        except cuda.memory.OutOfMemoryError:
            raise DeviceFailed("the device has too little free memory for this batch; smaller ones may do") from None
        except (cuda.compiler.CompileException, cuda.nvrtc.NVRTCError):
            raise DeviceFailed("the kernels do not compile for this device") from None
        except (cuda.runtime.CUDARuntimeError, cuda.driver.CUDADriverError) as error:
            # CUDA's own text: a name and a sentence, never a value.
            raise DeviceFailed(f"the device failed ({error}); this process cannot use it any more") from None

    def array(self, host: np.ndarray[Any, Any]) -> DeviceArray:
        """A copy on the device."""
        with self.working():
            return self._cupy.asarray(np.ascontiguousarray(host))

    def octets(self, data: bytes) -> DeviceArray:
        return self.array(np.frombuffer(data, np.uint8))

    def empty(self, shape: tuple[int, ...], dtype: Any = np.uint64) -> DeviceArray:
        with self.working():
            return self._cupy.empty(shape, dtype)

    def rows(self, *parts: DeviceArray) -> DeviceArray:
        """The rows of the parts, one after the other, in memory of their own."""
        with self.working():
            return self._cupy.concatenate(parts) if len(parts) > 1 else self._cupy.ascontiguousarray(parts[0])

    def host(self, a: DeviceArray) -> np.ndarray[Any, Any]:
        """A copy here; waits for everything launched before."""
        with self.working():
            copied: np.ndarray[Any, Any] = self._cupy.asnumpy(a)
            return copied

    def wipe(self, *secrets: DeviceArray) -> None:
        """Overwrites them before CuPy's pool may give their memory to others."""
        with self.working():
            for secret in secrets:
                secret.fill(0)

    def each(self, module: str, kernel: str, count: int, *args: Any, limbs: int | None = None) -> None:
        """Launches a kernel with one thread for each of `count` elements."""
        if count:
            self.launch(module, kernel, (-(-count // _BLOCK),), (_BLOCK,), args, limbs=limbs)

    def launch(
        self, module: str, kernel: str, grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...],
        *, limbs: int | None = None,
    ) -> None:  # fmt: skip
        """Numbers among args are numpy's, of the size that the kernel declares."""
        with self.working():
            if (module, limbs) not in self._modules:
                options = OPTIONS if limbs is None else (*OPTIONS, f"-DLIMBS={limbs}")
                self._modules[module, limbs] = self._cupy.RawModule(code=source(module), options=options)
            self._modules[module, limbs].get_function(kernel)(grid, block, args)


_shared: Final[dict[int, Device]] = {}


def default() -> Device:
    """One for the whole process, so that every kernel is compiled once."""
    return _shared.setdefault(0, Device())


def _import() -> Any:
    import cupy  # noqa: PLC0415  # an optional extra, and slow to load

    return cupy


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def _joined(folder: str, path: str) -> str:
    return path.removeprefix("../") if path.startswith("../") else f"{folder}/{path}"
