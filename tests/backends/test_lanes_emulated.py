"""The AVX-512 and SHA kernels with their instructions emulated (bench/ct): what they compute, on machines that lack
those instructions too, and under valgrind whether a branch or an address depends on a secret, for a few of them.
`make ct-check` is the whole of it.
"""

import hashlib
import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

ROOT = Path(__file__).parents[2]
GCC, VALGRIND = shutil.which("gcc"), shutil.which("valgrind")
HEADER = Path("/usr/include/valgrind/memcheck.h")

pytestmark = [
    pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the lanes are for x86-64"),
    pytest.mark.skipif(not GCC, reason="the check of the emulated lanes is built by gcc"),
    pytest.mark.skipif(not (ROOT / "bench" / "ct").exists(), reason="bench/ct is in the source tree only"),
]


@pytest.fixture(scope="session")
def check() -> Path:
    """The program, built fast rather than to run fast; kept until a source changes."""
    sources = sorted(
        p for p in (ROOT / "accel/csrc").glob("*.[ch]") if p.stem not in ("module", "bind_curves", "bind_masks")
    )
    ours = [ROOT / "bench/ct/check.c", ROOT / "bench/ct/emulated/immintrin.h"]
    key = hashlib.sha256(b"".join(p.read_bytes() for p in [*sources, *ours])).hexdigest()[:24]
    program = ROOT / "build" / "ct" / f"quick-{key}"
    if not program.exists():
        program.parent.mkdir(parents=True, exist_ok=True)
        flags = ["-std=c11", "-Og", "-fno-inline", "-Dalways_inline=noinline", "-fno-strict-aliasing", "-pthread", "-w"]
        folders = [f"-I{ROOT / 'bench/ct/emulated'}", f"-I{ROOT / 'accel/csrc'}", "-Wno-psabi"]
        files = [str(p) for p in [*sources, *ours] if p.suffix == ".c"]
        part = program.with_suffix(f".{os.getpid()}")
        assert GCC
        subprocess.run([GCC, *flags, *folders, "-o", str(part), *files], check=True)
        part.replace(program)
    return program


def stream(seed: int) -> bytes:
    """The check's inputs: xorshift, one byte a step."""
    data = bytearray()
    for _ in range(4096):
        seed ^= seed << 13 & 0xFFFFFFFF
        seed ^= seed >> 17
        seed ^= seed << 5 & 0xFFFFFFFF
        data.append(seed & 255)
    return bytes(data)


SECRET, KNOWN = stream(2463534242), stream(521288629)


def number(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "little")


def odd(data: bytes, bits: int) -> int:
    return number(data, 0, bits // 8) | 1 | 1 << (bits - 1)


def powers(bits: int, exponent_bits: int) -> bytes:
    """(a^e a)^8 (m + 1), as the check's `power` does."""
    n, size = odd(SECRET, bits), bits // 8
    e = number(SECRET, 16, 64) & ((1 << exponent_bits) - 1)
    value = pow(number(SECRET, 64, 2 * size), 8 * (e + 1), n) * (number(SECRET, 32, size) + 1) % n
    return value.to_bytes(size, "little")


def encrypted(bits: int, window: int) -> bytes:
    """h (m + 1) h^r modulo n^2"""
    n, size = odd(KNOWN, bits), bits // 8
    r = number(SECRET, 0, 8) & ((1 << 2 * window) - 1)
    value = pow(number(KNOWN, 8, 2 * size), r + 1, n * n) * (number(SECRET, 1, size) + 1) % (n * n)
    return value.to_bytes(2 * size, "little")


def decrypted(bits: int) -> bytes:
    p, size = 2**61 - 1, bits // 4
    return b"".join(pow(number(KNOWN, at, size), p - 1, p * p).to_bytes(16, "little") for at in (0, size))


def key_stream() -> bytes:
    counter = (int.from_bytes(KNOWN[:16], "big") + 7) % 2**128
    cipher = Cipher(algorithms.AES(SECRET[:16]), modes.CTR(counter.to_bytes(16, "big")))
    return cipher.encryptor().update(bytes(32))


def agreed() -> bytes:
    return X25519PrivateKey.from_private_bytes(SECRET[:32]).exchange(X25519PublicKey.from_public_bytes(KNOWN[:32]))


ANSWERS = {
    "x25519, one scalar": agreed(),
    "x25519, one each": agreed(),
    "power 512, one exponent": powers(512, 256),
    "power 512, one each": powers(512, 40),
    "power 1024": powers(1024, 24),
    "power 1536": powers(1536, 16),
    "decrypt, key of 1024": decrypted(512),
    "decrypt, key of 2048": decrypted(1024),
    "decrypt, key of 3072": decrypted(1536),
    "encrypt, windows of 4": encrypted(512, 4),
    "encrypt, windows of 5": encrypted(512, 5),
    "encrypt, windows of 6": encrypted(1024, 6),
    "encrypt, windows of 7": encrypted(512, 7),
    "aes-128-ctr": key_stream(),
    "sha256": hashlib.sha256(b"").digest(),
    "sm3": bytes.fromhex("1ab21d8355cfa17f8e61194831e81a8f22bec8c728fefb747ed035eb5082aa2b"),
}


def test_every_core_computes_the_same_and_what_others_do(check: Path) -> None:
    done = subprocess.run([check, "answers"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    lines = [line.split(": ", 1) for line in done.stdout.splitlines() if "not run" not in line]
    cores = {core for core, _ in lines}
    assert {"portable", "avx512ifma", "avx512ifma, pairs", "vaes", "sha-ni", "avx2"} <= cores
    seen = set()
    for core, line in lines:
        name, answer = line[: 60 - len(core)].strip(), line.split()[-1]
        assert answer != 64 * "0" or name == "ristretto255, decoding", name
        if name in ANSWERS:
            seen.add(name)
            assert bytes.fromhex(answer) == ANSWERS[name][:32], (core, name)
    assert seen == set(ANSWERS)


@pytest.mark.skipif(not (VALGRIND and HEADER.exists()), reason="valgrind or its header is not installed")
def test_no_branch_or_address_depends_on_a_secret(check: Path, tmp_path: Path) -> None:
    log = tmp_path / "memcheck.log"
    suppressed = f"--suppressions={ROOT / 'bench/ct/by_design.supp'}"
    chosen = [
        "x25519, one each", "p256, one each", "encrypt, windows of 5", "encrypt, leaking", "decrypt, key of 1024",
        "aes-128",
    ]  # fmt: skip
    done = subprocess.run(
        ["valgrind", "--quiet", "--error-limit=no", suppressed, f"--log-file={log}", check, "poison", *chosen],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + log.read_text()[:10000]
    lines = done.stdout.splitlines()
    caught = {line.split(":")[0] for line in lines if line.endswith("DEPENDS ON THE SECRET")}
    assert caught == {"portable", "portable, adx", "avx512ifma", "avx512ifma, pairs"}  # all that look at leaking tables
    assert sum(line.endswith("no branch or address depends on the secret") for line in lines) == len(lines) - len(
        caught
    )
