"""The CUDA backend: the vectors of all backends run over it, on the CPU by way of g++ and cuda_shim.h, and on a device
where there is one; what it says when the driver fails; that its sources compile for sm_80 and sm_90.
"""

import random
import re
import shutil
import subprocess
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from accel import registry, selftest
from accel.backends import cuda
from accel.backends.cuda import CudaMasks, CudaPower, CudaRingMatrices, CudaX25519, Device, refusal
from accel.backends.cuda.device import OPTIONS, source
from accel.kernels import BadInput, DeviceFailed
from accel.probe import Machine, probe
from tests.backends import cuda_on_cpu as on_cpu
from tests.backends import test_masks, test_modular_power, test_ring_matrices, test_x25519
from tests.backends.cuda_on_cpu import CpuCupy, State
from tests.backends.test_modular_power import numbers, plain

needs_compiler = pytest.mark.skipif(
    on_cpu.COMPILER is None, reason="there is no g++ to run the kernels on the CPU with"
)
CHECKS: dict[type, Callable[[Callable[..., Any]], None]] = {
    CudaX25519: selftest.check_x25519,
    CudaMasks: selftest.check_aes128ctr,
    CudaPower: selftest.check_power,
    CudaRingMatrices: selftest.check_ring_matrices,
}


@pytest.fixture(params=[pytest.param("cpu", marks=needs_compiler), "gpu"])
def device(request: pytest.FixtureRequest) -> Device:
    """The CPU in a device's clothes, or the device of this machine."""
    if request.param == "cpu":
        return Device(CpuCupy())
    reason = registry._needs_cuda(probe())
    if reason:
        pytest.skip(f"not run on a GPU: {reason}")
    return Device()


def cpu_device(**state: Any) -> tuple[Device, State]:
    cupy = CpuCupy(State(**state))
    return Device(cupy), cupy.state


@pytest.mark.parametrize("kernel", CHECKS)
def test_known_answers(device: Device, kernel: type) -> None:
    CHECKS[kernel](lambda: kernel(device=device))


@pytest.mark.parametrize("count", [0, 1, 127, 128, 129])
def test_x25519_around_a_block(device: Device, count: int) -> None:
    test_x25519.test_random_points_as_openssl(CudaX25519(device=device), count)


def test_x25519_edges(device: Device) -> None:
    kernel = CudaX25519(device=device)
    test_x25519.test_edge_points_and_scalars_as_openssl(kernel)
    test_x25519.test_points_of_low_order_give_zeros_and_leave_their_neighbours_alone(kernel)
    test_x25519.test_wrong_lengths_are_refused(kernel)


def test_masks_of_all_sizes(device: Device) -> None:
    masks = CudaMasks(device=device)
    test_masks.test_the_standards_vectors(masks)
    for bits in (32, 64, 128):
        test_masks.test_every_size_and_operation(masks, bits)
    test_masks.test_far_into_the_stream_and_over_the_counters_words(masks)
    test_masks.test_shapes_and_strides(masks)
    test_masks.test_refusals(masks)


def test_matrices(device: Device) -> None:
    ring = CudaRingMatrices(device=device)
    for words in (1, 2):
        for shape in ((0, 3, 2), (3, 0, 2), (3, 2, 0), (1, 1, 1), (17, 40, 1), (70, 65, 2), (5, 300, 33)):
            test_ring_matrices.check(ring, *shape, words)
        test_ring_matrices.test_a_beaver_product_between_two_parties(ring, words, transposed=True)
    test_ring_matrices.test_refusals(ring)


@pytest.mark.parametrize("bits", [2, 64, 1024, 2048])
def test_powers(device: Device, bits: int) -> None:
    kernel = CudaPower(device=device)
    test_modular_power.test_powers_and_products(kernel, bits)
    test_modular_power.test_batches_that_stay_in_their_own_form(kernel, bits)
    test_modular_power.test_matvec(kernel, bits)


def test_refusals_of_powers(device: Device) -> None:
    test_modular_power.test_bad_arguments_are_refused(CudaPower(device=device))


@pytest.mark.parametrize("bits", [4096, 8192])
def test_long_moduli(device: Device, bits: int) -> None:
    """The lengths that need other kernels: the numbers of most carries, and a modulus shorter than its limbs."""
    kernel = CudaPower(device=device)
    for n in ((1 << bits) - 1, (1 << (bits - 70)) + 1):
        limbs = (n.bit_length() + 63) // 64
        a = [0, 1, n - 1, n - 2, n // 2, (1 << (n.bit_length() - 1)) - 1]
        x = plain(a, limbs)
        assert numbers(kernel.multiply(n, x, x[::-1].copy())) == [u * v % n for u, v in zip(a, a[::-1], strict=True)]
        assert numbers(kernel.power(n, x, plain([0x10001 << 40], 1))) == [pow(u, 0x10001 << 40, n) for u in a]


def test_a_batch_is_cut_where_the_tables_would_not_fit(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("accel.backends.cuda.power._SCRATCH", 16 * 8 * 4 * 5)  # five numbers of 4 limbs
    rng = random.Random(5)
    n = rng.getrandbits(250) | 1
    bases, powers = [rng.randrange(n) for _ in range(13)], [rng.getrandbits(64) for _ in range(13)]
    kernel = CudaPower(device=device)
    wanted = [pow(b, e, n) for b, e in zip(bases, powers, strict=True)]
    assert numbers(kernel.power(n, plain(bases, 4), plain(powers, 1))) == wanted
    assert numbers(kernel.power(n, plain(bases, 4), plain(powers[:1], 1))) == [pow(b, powers[0], n) for b in bases]


@needs_compiler
def test_launches_have_a_thread_for_each_element() -> None:
    device, state = cpu_device()
    CudaX25519(device=device).mask_points(bytes(32), bytes(32 * 129))
    CudaRingMatrices(device=device).product(
        np.ones((1000, 20), np.uint64), np.ones((1000, 1), np.uint64), transposed=True
    )
    assert state.launches == [
        ("x25519", (2,), (128,)),
        ("ring64_tiles", (2, 1, 15), (16, 16)),  # few tiles: the 1000 inner places in 15 parts
        ("ring64_parts", (1,), (128,)),
    ]


@needs_compiler
def test_secrets_are_overwritten_on_the_device() -> None:
    device, _ = cpu_device()
    made: list[Any] = []
    array = device.array
    device.array = lambda host: made.append(array(host)) or made[-1]  # type: ignore[method-assign]
    secret = b"\x77" * 32
    CudaX25519(device=device).mask_points(secret, bytes(32))
    CudaMasks(device=device).expand(secret[:16], bytes(16), np.empty(4, np.uint32), bits=32)
    CudaPower(device=device).power(7, plain([3], 1), np.frombuffer(secret, np.uint64).reshape(1, 4))
    assert made
    assert not any(secret[:16] in a.tobytes() for a in made)


class TestRefusals:
    @pytest.mark.parametrize(
        ("state", "reason"),
        [
            (State(), None),
            (State(capability="90"), None),
            (State(driver=12000), None),
            (State(driver=0), "there is no CUDA driver"),
            (State(driver=11080), "the CUDA driver is for version 11.8, cupy needs 12.9"),
            (State(devices=0), "there is no CUDA device"),
            (State(capability="61"), "the device has compute capability 6.1, 7.0 is needed"),
            (
                State(count_raises=on_cpu.CUDARuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")),
                "no CUDA device answers (cudaErrorNoDevice: no CUDA-capable device is detected)",
            ),
        ],
    )
    def test_of_a_device(self, state: State, reason: str | None) -> None:
        assert refusal(CpuCupy(state)) == reason

    def test_without_cupy(self, monkeypatch: pytest.MonkeyPatch) -> None:
        machine = Machine("x86_64", frozenset(), frozenset({"gmpy2"}))
        backend = next(b for b in registry.BACKENDS["x25519"] if b.name == "cuda")
        assert backend.refuses(machine) == "cupy is not installed (the extra `cuda`)"
        monkeypatch.setitem(__import__("sys").modules, "cupy", None)
        assert refusal() == "cupy does not load (ModuleNotFoundError)"

    def test_it_is_taken_by_name_only(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cuda, "refusal", lambda: None)
        machine = Machine("x86_64", frozenset(), frozenset({"gmpy2", "cupy"}))
        for kernel in ("modpow", "x25519", "mask.aes128ctr", "ringmatrices"):
            backend, choice = registry.choose(kernel, machine=machine, explain=True)
            assert backend is not None
            assert backend.name == "reference"
            assert choice.reasons["cuda"] == "is taken only where it is asked for by name"
        _, choice = registry.choose("x25519", "cuda", machine=Machine("x86_64", frozenset(), frozenset({"gmpy2"})))
        assert choice.backend is None
        assert choice.reasons["cuda"] == "cupy is not installed (the extra `cuda`)"


FAILURES = {
    "alloc": (on_cpu.OutOfMemoryError("Out of memory allocating 512 bytes"), "too little free memory"),
    "compile": (on_cpu.CompileException("error: …"), "do not compile"),
    "launch": (on_cpu.CUDADriverError("CUDA_ERROR_LAUNCH_FAILED: unspecified launch failure"), "LAUNCH_FAILED"),
    "copy": (on_cpu.CUDARuntimeError("cudaErrorIllegalAddress: an illegal memory access"), "IllegalAddress"),
}


@needs_compiler
@pytest.mark.parametrize("operation", FAILURES)
def test_what_a_failing_driver_becomes(operation: str) -> None:
    raised, text = FAILURES[operation]
    device, state = cpu_device()
    state.fails[operation] = raised
    values, x = np.arange(8, dtype=np.uint32), np.ones((3, 3), np.uint64)
    untouched = values.copy(), x.copy()
    for run in (
        lambda: CudaX25519(device=device).mask_points(bytes(32), bytes(64)),
        lambda: CudaMasks(device=device).add(bytes(16), bytes(16), values, bits=32, out=values),
        lambda: CudaPower(device=device).power(7, plain([3], 1), plain([5], 1)),
        lambda: CudaRingMatrices(device=device).product(x, x, onto=untouched[1]),
    ):
        with pytest.raises(DeviceFailed, match=text) as failure:
            run()
        assert failure.value.__cause__ is None
    assert np.array_equal(values, untouched[0])
    assert np.array_equal(x, untouched[1])
    state.fails.clear()
    selftest.check_x25519(lambda: CudaX25519(device=device))  # nothing of the failure stays behind


@needs_compiler
def test_batches_do_not_pass_from_device_to_device() -> None:
    first, second = (Device(CpuCupy(State(devices=2)), number) for number in (0, 1))
    batch = CudaPower(device=first).ring(7).load(plain([3], 1))
    with pytest.raises(BadInput, match="device"):
        CudaPower(device=second).ring(7).dump(batch)
    with pytest.raises(DeviceFailed, match="InvalidDevice"):
        CudaX25519(device=Device(CpuCupy(), 1)).mask_points(bytes(32), bytes(32))


MODULES = [("mont", "-DLIMBS=32"), ("mont", "-DLIMBS=64"), ("x25519", None), ("aes", None), ("rings", None)]
GENERATIONS = ("80", "90")
UNFIT = "not compiled for a GPU: neither nvcc nor CuPy's NVRTC is here"


@pytest.mark.parametrize(("module", "macro"), MODULES)
def test_it_compiles_for_both_generations(module: str, macro: str | None) -> None:
    """By nvcc with a look at the spilled registers, which would be traffic that the sources do not ask for; else by the
    NVRTC that CuPy brings, which needs no driver.
    """
    options = ["-std=c++17", *([macro] if macro else [])]
    if shutil.which("nvcc"):
        codes = [f"-gencode=arch=compute_{g},code=sm_{g}" for g in GENERATIONS]
        done = subprocess.run(
            ["nvcc", "-fatbin", *codes, *options, "-Xptxas", "-v", "-x", "cu", "-", "-o", "/dev/null"],
            input=source(module), text=True, capture_output=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "warning" not in done.stderr
        for generation in GENERATIONS:
            assert f"for 'sm_{generation}'" in done.stderr
        spilled = re.findall(r"(\d+) bytes spill", done.stderr)
        assert spilled
        assert set(spilled) == {"0"}
        return
    nvrtc = pytest.importorskip("cupy.cuda.nvrtc", reason=UNFIT)
    for generation in GENERATIONS:
        program = nvrtc.createProgram(source(module), f"{module}.cu", (), ())
        nvrtc.compileProgram(program, (*OPTIONS, f"--gpu-architecture=sm_{generation}", *options[1:]))
        assert nvrtc.getCUBIN(program)


def test_every_source_is_one_text() -> None:
    for module, _ in MODULES:
        assert '#include "' not in source(module)
