"""A stand-in for CuPy that runs the CUDA sources on the CPU: arrays are numpy's, RawModule is g++ with cuda_shim.h.

It is strict where a device would be: a kernel takes arrays of the "device" only, contiguous ones, and numbers of a
chosen width. `State` tells it what the driver says, and where it fails.
"""

import ctypes
import hashlib
import os
import shlex
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import numpy as np

SHIM = Path(__file__).with_name("cuda_shim.h")
BUILT = Path(__file__).parents[2] / "build" / "cuda-shim"
COMPILER = shutil.which("g++")
# `make sanitize` adds the sanitizers.
FLAGS = [
    "-std=c++20", "-O1", "-fPIC", "-shared", "-pthread", "-Wall", "-Werror", "-Wno-unknown-pragmas",
    *shlex.split(os.environ.get("SHIM_FLAGS", "")),
]  # fmt: skip


class OutOfMemoryError(MemoryError):
    pass


class CUDARuntimeError(RuntimeError):
    pass


class CUDADriverError(RuntimeError):
    pass


class CompileException(Exception):  # CuPy's name
    pass


class NVRTCError(RuntimeError):
    pass


class DeviceArray(np.ndarray):
    """What lies on the device."""


@dataclass
class State:
    """What the driver says; `fails` maps an operation (alloc, launch, copy, compile) to what it raises."""

    driver: int = 12090
    runtime: int = 12090
    devices: int = 1
    capability: str = "80"
    count_raises: Exception | None = None
    fails: dict[str, Exception] = field(default_factory=dict)
    launches: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = field(default_factory=list)
    current: list[int] = field(default_factory=list)

    def may_fail(self, operation: str) -> None:
        assert self.current, f"{operation} without a chosen device"
        if operation in self.fails:
            raise self.fails[operation]


class CpuCupy:
    """The part of the module `cupy` that accel.backends.cuda uses."""

    def __init__(self, state: State | None = None) -> None:
        self.state = state = state or State()

        class Device:
            def __init__(self, number: int) -> None:
                if number >= state.devices:
                    raise CUDARuntimeError("cudaErrorInvalidDevice: invalid device ordinal")
                self.number = number
                self.compute_capability = state.capability

            def __enter__(self) -> Self:
                state.current.append(self.number)
                return self

            def __exit__(self, *_: object) -> None:
                state.current.pop()

        def count() -> int:
            if state.count_raises:
                raise state.count_raises
            return state.devices

        runtime = SimpleNamespace(
            driverGetVersion=lambda: state.driver, runtimeGetVersion=lambda: state.runtime, getDeviceCount=count,
            CUDARuntimeError=CUDARuntimeError,
        )  # fmt: skip
        self.cuda = SimpleNamespace(
            Device=Device, runtime=runtime, driver=SimpleNamespace(CUDADriverError=CUDADriverError),
            memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError), nvrtc=SimpleNamespace(NVRTCError=NVRTCError),
            compiler=SimpleNamespace(CompileException=CompileException),
        )  # fmt: skip

    def asarray(self, host: np.ndarray) -> DeviceArray:
        self.state.may_fail("alloc")
        assert not isinstance(host, DeviceArray)
        return np.array(host).view(DeviceArray)

    def empty(self, shape: tuple[int, ...], dtype: Any) -> DeviceArray:
        self.state.may_fail("alloc")
        rubbish = bytearray(b"\xa5" * int(np.prod(shape) * np.dtype(dtype).itemsize))  # as in memory of a pool
        return np.frombuffer(rubbish, dtype).reshape(shape).view(DeviceArray)

    def concatenate(self, parts: tuple[DeviceArray, ...]) -> DeviceArray:
        assert all(isinstance(part, DeviceArray) for part in parts)
        return np.concatenate(parts).view(DeviceArray)

    def ascontiguousarray(self, a: DeviceArray) -> DeviceArray:
        assert isinstance(a, DeviceArray)
        return np.ascontiguousarray(a).view(DeviceArray)

    def asnumpy(self, a: DeviceArray) -> np.ndarray:
        self.state.may_fail("copy")
        assert isinstance(a, DeviceArray)
        return np.array(a).view(np.ndarray)

    def RawModule(self, *, code: str, options: tuple[str, ...]) -> "Module":  # noqa: N802  # CuPy's name
        self.state.may_fail("compile")
        return Module(self.state, code, options)


class Module:
    def __init__(self, state: State, code: str, options: tuple[str, ...]) -> None:
        self._state = state
        self._library = ctypes.CDLL(str(built(code, tuple(o for o in options if o.startswith("-D")))))

    def get_function(self, name: str) -> Any:
        function = getattr(self._library, f"launch_{name}")

        def launch(grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...]) -> None:
            self._state.may_fail("launch")
            dims = [*grid, *(1,) * (3 - len(grid)), *block, *(1,) * (3 - len(block))]
            assert 0 < dims[0] < 1 << 31
            assert all(0 < d < 1 << 16 for d in dims[1:3])
            assert 0 < dims[3] * dims[4] * dims[5] <= 1024
            self._state.launches.append((name, grid, block))
            cells = [_cell(argument) for argument in args]
            function((ctypes.c_uint * 6)(*dims), (ctypes.c_void_p * len(cells))(*(c.ctypes.data for c in cells)))

        return launch


def _cell(argument: Any) -> np.ndarray:
    """Memory that holds the argument: the address of an array, or a number as wide as it is."""
    if isinstance(argument, DeviceArray):
        assert argument.flags.c_contiguous
        return np.array([argument.ctypes.data], np.uint64)
    assert type(argument) in (np.uint32, np.uint64), type(argument)
    return np.array([argument])


def built(code: str, macros: tuple[str, ...]) -> Path:
    """The shared library of a source, from the folder of those built before if it is there."""
    assert COMPILER
    barriers = ("-DBARRIERS",) if "__syncthreads" in code else ()
    text = f'#include "{SHIM}"\n{code}'
    key = hashlib.sha256(repr((SHIM.read_text(), code, macros, FLAGS)).encode()).hexdigest()[:24]
    library = BUILT / f"{key}.so"
    if not library.exists():
        BUILT.mkdir(parents=True, exist_ok=True)
        part = BUILT / f"{key}.{os.getpid()}"
        subprocess.run(
            [COMPILER, *FLAGS, *macros, *barriers, "-x", "c++", "-", "-o", str(part)], input=text.encode(), check=True
        )
        part.replace(library)
    return library
