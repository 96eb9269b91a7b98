"""What each kernel computes: signatures, exact contracts and bounds. No arithmetic happens here.

A kernel is chosen by `accel.registry` (by scheme and backend), checked by `accel.selftest`, and given to whoever needs
it. All numbers cross this border as little-endian 64-bit limbs in numpy arrays of dtype uint64, so that a native
backend needs no Python object per element:

- a *ring array* holds elements of Z_{2^128}, shape (..., 2), low limb first;
- a *plain batch* holds non-negative integers, shape (count, limbs), low limb first.

Bad arguments (shape, dtype, range, a foreign ciphertext) raise `BadInput` before any work; only a backend on an
accelerator raises `DeviceFailed`. What a partner sent enters
through `load` and `load_public` only, which validate it; the caller turns `BadInput` from there into its own error.
"""

import builtins
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

Uints = NDArray[np.uint64]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Words = TypeVar("Words", NDArray[np.uint32], NDArray[np.uint64])

RING_BITS: Final = 128


class BadInput(ValueError):
    """An argument outside its contract; nothing was computed. The text never quotes a value."""


class DeviceFailed(RuntimeError):
    """An accelerator could not do its part: too little memory, a failed launch. Nothing was returned or written; the
    arguments may be tried again on another backend. The text never quotes a value.
    """


def is_array(value: object, dtype: type[np.generic]) -> bool:
    """Whether that is a numpy array of the dtype: a list is not, whatever it holds."""
    return isinstance(value, np.ndarray) and value.dtype == dtype


def check_bytes(*values: object) -> None:
    """Refuse what is no string of bytes."""
    for value in values:
        if not isinstance(value, bytes | bytearray | memoryview):
            raise BadInput(f"bytes are wanted, not {type(value).__name__}")


class RandomSource(Protocol):
    """Where randomness comes from. In production `accel.entropy.OsRandom`; in tests a seeded one."""

    def bytes(self, count: int, /) -> builtins.bytes:
        """`count` uniformly random bytes."""
        ...


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class SparseMatrix:
    """A plaintext integer matrix in compressed sparse rows.

    indptr: int64 (rows + 1), indices: int64 (nnz) column of each entry, values: int64 (nnz) with |value| < 2^40.
    Entries of a row may come in any order, but each column at most once. The matrix is its owner's secret.
    """

    rows: int
    cols: int
    indptr: Ints
    indices: Ints
    values: Ints

    def __post_init__(self) -> None:
        if self.rows < 0 or self.cols < 0:
            raise BadInput("negative shape")
        for part in (self.indptr, self.indices, self.values):
            if not is_array(part, np.int64) or part.ndim != 1:
                raise BadInput("a sparse matrix is made of one-dimensional int64 arrays")
        if len(self.indptr) != self.rows + 1 or len(self.indices) != len(self.values):
            raise BadInput("the parts of the sparse matrix do not fit together")
        if self.indptr[0] != 0 or self.indptr[-1] != len(self.indices) or bool(np.any(np.diff(self.indptr) < 0)):
            raise BadInput("row pointers do not rise from 0 to the number of entries")
        if len(self.indices) and (self.indices.min() < 0 or self.indices.max() >= self.cols):
            raise BadInput("a column index lies outside the matrix")
        # not by their absolute values: the least int64 has none
        if len(self.values) and not -(1 << 40) < self.values.min() <= self.values.max() < 1 << 40:
            raise BadInput("an entry has more than 40 bits")
        places = np.repeat(np.arange(self.rows, dtype=np.int64), np.diff(self.indptr)) * self.cols + self.indices
        if not np.diff(np.sort(places)).all():  # np.unique takes twenty times as long
            raise BadInput("a place of the sparse matrix is filled twice")

    def __repr__(self) -> str:
        return f"SparseMatrix({self.rows}x{self.cols})"

    def transpose(self) -> Self:
        """The same entries, rows and columns exchanged."""
        row_of = np.repeat(np.arange(self.rows, dtype=np.int64), np.diff(self.indptr))
        order = np.argsort(self.indices, kind="stable")
        counts = np.bincount(self.indices, minlength=self.cols)
        indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])
        return type(self)(self.cols, self.rows, indptr, row_of[order], self.values[order])


class Ring128(Protocol):
    """Arithmetic modulo 2^128 on ring arrays (shape (..., 2)); element-wise operations broadcast like numpy's."""

    name: str

    def add(self, a: Uints, b: Uints) -> Uints: ...

    def sub(self, a: Uints, b: Uints) -> Uints: ...

    def neg(self, a: Uints) -> Uints: ...

    def mul(self, a: Uints, b: Uints) -> Uints: ...

    def scale(self, a: Uints, factor: int) -> Uints:
        """Times a public integer, -2^127 <= factor < 2^127."""
        ...

    def matvec(self, matrix: SparseMatrix, vector: Uints) -> Uints:
        """Row i of the result is sum_j matrix[i, j] * vector[j] mod 2^128; shape (cols, 2) -> (rows, 2)."""
        ...

    def truncate(self, share: Uints, bits: int, *, first: bool) -> Uints:
        """This party's share of floor-or-ceil(v / 2^bits) from its additive share of v, without interaction.

        One party says first=True (takes the floor of its signed share), the other first=False (the ceiling). If the
        signed value satisfies |v| < 2^k the sum of the two results differs from v / 2^bits by less than 1, but for a
        probability of at most 2^(k+1-128) over the sharing (SecureML, Mohassel and Zhang, S&P 2017, theorem 1).
        """
        ...

    def random(self, count: int, random: RandomSource) -> Uints:
        """`count` uniform elements, shape (count, 2)."""
        ...

    def from_ints(self, values: Sequence[int]) -> Uints:
        """Python integers (any sign, reduced mod 2^128) to shape (len, 2)."""
        ...

    def to_ints(self, a: Uints) -> list[int]:
        """Signed representatives, -2^127 <= v < 2^127, of an array of shape (count, 2)."""
        ...

    def from_floats(self, values: Floats, bits: int) -> Uints:
        """round(value * 2^bits), shape (count,) -> (count, 2); |value * 2^bits| < 2^62, finite."""
        ...

    def to_floats(self, a: Uints, bits: int) -> Floats:
        """Signed representative / 2^bits, correctly rounded up to one unit in the last place of a double."""
        ...

    def to_bytes(self, a: Uints) -> builtins.bytes:
        """16 bytes an element, little-endian."""
        ...

    def from_bytes(self, data: memoryview, count: int) -> Uints:
        """Inverse of to_bytes; raises BadInput unless there are exactly 16 * count bytes."""
        ...


POINT_BYTES: Final = 32


class X25519(Protocol):
    """Scalar multiplication on Curve25519 and its twist by u-coordinates (RFC 7748 section 5), in batches.

    Points and results are 32 bytes each, one after the other in one order, results canonical and little-endian; every
    32-byte text is a valid point. Scalars are 32 bytes and clamped by the kernel. A point of low order gives 32 zero
    bytes and does not stop the batch: whoever needs a secret result must look for them.
    Time does not depend on the scalars.
    """

    name: str

    def mask_points(self, secret: builtins.bytes, points: builtins.bytes) -> builtins.bytes:
        """Every point times one scalar."""
        ...

    def exchange(self, secrets: builtins.bytes, points: builtins.bytes) -> builtins.bytes:
        """Every point times the scalar in the same place."""
        ...


def check_points(scalars: builtins.bytes, points: builtins.bytes, *, shared: bool) -> None:
    """Refuse scalars and points that do not have the lengths of the contract."""
    check_bytes(scalars, points)
    if len(points) % POINT_BYTES or len(scalars) != (POINT_BYTES if shared else len(points)):
        raise BadInput("a scalar and a point are 32 bytes each")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Texts:
    """A batch of byte strings: text i is data[offsets[i]:offsets[i + 1]], offsets int64 (count + 1), 0 to len(data).

    The texts may be secret: time may depend on their lengths, never on their bytes unless a kernel says so.
    """

    data: builtins.bytes
    offsets: Ints

    def __post_init__(self) -> None:
        check_bytes(self.data)
        if not is_array(self.offsets, np.int64) or self.offsets.ndim != 1 or not len(self.offsets):
            raise BadInput("offsets are a one-dimensional int64 array, one longer than the batch")
        rises = not bool(np.any(np.diff(self.offsets) < 0))
        if self.offsets[0] != 0 or self.offsets[-1] != len(self.data) or not rises:
            raise BadInput("offsets do not rise from 0 to the end of the data")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __repr__(self) -> str:
        return f"Texts({len(self)})"

    @classmethod
    def of(cls, texts: Sequence[builtins.bytes]) -> Self:
        """From single strings."""
        check_bytes(*texts)
        lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        return cls(b"".join(texts), np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)]))

    def __getitem__(self, i: int) -> builtins.bytes:
        return self.data[self.offsets[i] : self.offsets[i + 1]]


DIGEST_BYTES: Final = 32


class Digest(Protocol):
    """SHA-256 (FIPS 180-4) or SM3 (GB/T 32905-2016) of many texts."""

    name: str
    algorithm: str
    """ "sha256" or "sm3" """

    def digest(self, texts: Texts) -> builtins.bytes:
        """32 bytes a text, one after the other."""
        ...


AFFINE_BYTES: Final = 64


class PrimeCurve(Protocol):
    """A curve y^2 = x^3 - 3x + b of prime order n over a field of 256 bits, in batches: "p256" (SP 800-186,
    secp256r1) or "sm2" (GB/T 32918.5).

    Points are 64 bytes each, x then y, both big-endian and below p; `decode` and `encode` translate from and to SEC 1.
    Every point given is checked first: coordinates in range, on the curve, not infinity; else BadInput and no work.
    (The order is prime, so there is no smaller subgroup.) Scalars are 32 bytes, big-endian, any value, taken modulo n.
    A scalar that is 0 modulo n gives 64 zero bytes, which is no point: whoever needs a secret result must look for
    them. Time depends neither on scalars nor on points (not so for `reference`).
    """

    name: str
    curve: str

    def mask_points(self, secret: builtins.bytes, points: builtins.bytes) -> builtins.bytes:
        """Every point times one scalar."""
        ...

    def exchange(self, secrets: builtins.bytes, points: builtins.bytes) -> builtins.bytes:
        """Every point times the scalar in the same place."""
        ...

    def base_points(self, secrets: builtins.bytes) -> builtins.bytes:
        """The generator times every scalar."""
        ...

    def check(self, points: builtins.bytes) -> None:
        """BadInput unless all are points."""
        ...

    def decode(self, data: builtins.bytes, *, compressed: bool) -> builtins.bytes:
        """SEC 1 section 2.3.4: 33 bytes a point, beginning with 2 or 3, or 65, beginning with 4; BadInput otherwise."""
        ...

    def encode(self, points: builtins.bytes, *, compressed: bool) -> builtins.bytes:
        """SEC 1 section 2.3.3, 33 or 65 bytes a point."""
        ...

    def lift(self, xs: builtins.bytes, *, odd: bool = False) -> tuple[builtins.bytes, NDArray[np.bool_]]:
        """For numbers of 32 bytes, taken modulo p: whether there is a point with that x, and the one whose y is odd or
        even. Where there is none, its place holds x modulo p and 32 bytes without meaning. Time does not tell which.
        """
        ...

    def from_hash(
        self, texts: Texts, tag: builtins.bytes, *, digest: str = "sha256", uniform: bool = True
    ) -> builtins.bytes:
        """RFC 9380 hash_to_curve, or encode_to_curve if not `uniform`, with expand_message_xmd, L = 48 and the
        simplified SWU map: for "p256" and "sha256" the suites P256_XMD:SHA-256_SSWU_RO_ and _NU_; for "sm2" and "sm3"
        the same construction, Z = -9 by appendix H.2 (no published suite). tag: the domain separation, 1 to 255 bytes.
        """
        ...


class Group25519(Protocol):
    """Hashing to curve25519 and edwards25519, and the ristretto255 group, in batches.

    Everything is 32 bytes a point, little-endian. Time depends on counts and text lengths only (not for `reference`).
    """

    name: str

    def to_curve25519(self, texts: Texts, tag: builtins.bytes, *, uniform: bool = True) -> builtins.bytes:
        """The u coordinates (as X25519 takes them) of RFC 9380's curve25519_XMD:SHA-512_ELL2_RO_, or _NU_; in the
        subgroup of prime order.
        """
        ...

    def to_edwards25519(self, texts: Texts, tag: builtins.bytes, *, uniform: bool = True) -> builtins.bytes:
        """RFC 9380's edwards25519_XMD:SHA-512_ELL2_RO_, or _NU_, encoded as in RFC 8032 section 5.1.2."""
        ...

    def to_ristretto(self, texts: Texts, tag: builtins.bytes) -> builtins.bytes:
        """RFC 9380 appendix B: ristretto255_XMD:SHA-512_R255MAP_RO_."""
        ...

    def derive(self, uniform: builtins.bytes) -> builtins.bytes:
        """RFC 9496 section 4.3.4: 64 uniformly random bytes to each element of ristretto255."""
        ...

    def check(self, elements: builtins.bytes) -> None:
        """BadInput unless every text is the encoding of an element of ristretto255 (RFC 9496 section 4.3.1)."""
        ...

    def mask_elements(self, secret: builtins.bytes, elements: builtins.bytes) -> builtins.bytes:
        """Every element of ristretto255 times one scalar of 32 bytes, little-endian, not clamped. BadInput if one is no
        encoding. The identity, 32 zero bytes, may come in and out.
        """
        ...

    def exchange_elements(self, secrets: builtins.bytes, elements: builtins.bytes) -> builtins.bytes:
        """Every element times the scalar in the same place."""
        ...


def check_texts(texts: Texts) -> None:
    """Refuse what is no batch of texts."""
    if not isinstance(texts, Texts):
        raise BadInput(f"a batch of texts is wanted (Texts.of), not {type(texts).__name__}")


def check_tag(tag: builtins.bytes) -> None:
    """Refuse a domain separation tag that RFC 9380 section 5.3 does not know."""
    check_bytes(tag)
    if not 1 <= len(tag) <= 255:
        raise BadInput("a domain separation tag has 1 to 255 bytes")


MAX_THREADS: Final = 64


def check_threads(threads: int) -> int:
    """How many native threads a kernel may use for a batch; more than MAX_THREADS are never asked for."""
    if not isinstance(threads, int) or not 1 <= threads <= MAX_THREADS:
        raise BadInput(f"1 to {MAX_THREADS} threads")
    return threads


class ModularPower(Protocol):
    """Powers, products and squares modulo one odd number, in batches: what a scheme that is not here is built from.

    modulus: odd, 3 <= n < 2^8192. Bases are a plain batch of numbers below n; results are plain batches of as many
    limbs as n needs, in [0, n).
    """

    name: str

    def power(self, modulus: int, bases: Uints, exponents: Uints, *, secret: bool = True) -> Uints:
        """bases^exponents, one exponent each, or one for all (a batch of one). With `secret` time depends on the number
        of limbs of the exponents only (not for `reference`); without, on their values.
        """
        ...

    def multiply(self, modulus: int, a: Uints, b: Uints) -> Uints:
        """Element-wise products; equal lengths."""
        ...

    def square(self, modulus: int, a: Uints) -> Uints:
        """Element-wise squares."""
        ...

    def invert(self, modulus: int, a: Uints) -> Uints:
        """Element-wise inverses by one inversion in all, whose time depends on the product of the numbers; BadInput
        where one has none.
        """
        ...

    def ring(self, modulus: int) -> "ModularRing":
        """The same with batches that stay in the backend's own form between the calls."""
        ...


class Residues(Protocol):
    """An opaque batch of residues, bound to the backend and modulus that made it: in Montgomery form where the backend
    computes so.
    """

    def __len__(self) -> int: ...


class ModularRing(Protocol):
    """Batches modulo one odd number, from ModularPower.ring; conversions happen in load and dump only."""

    name: str
    modulus: int

    def load(self, plain: Uints) -> Residues:
        """A plain batch of numbers below the modulus."""
        ...

    def dump(self, a: Residues) -> Uints:
        """Canonical residues as a plain batch of as many limbs as the modulus needs."""
        ...

    def multiply(self, a: Residues, b: Residues) -> Residues:
        """Element-wise; equal lengths, or one of them a batch of one."""
        ...

    def square(self, a: Residues, times: int = 1) -> Residues:
        """a^(2^times), times >= 1."""
        ...

    def power(self, a: Residues, exponents: Uints, *, secret: bool = True) -> Residues:
        """As ModularPower.power."""
        ...

    def invert(self, a: Residues) -> Residues:
        """As ModularPower.invert."""
        ...

    def products(self, a: Residues, index: Ints, starts: Ints) -> Residues:
        """Product s is that of a[index[starts[s]]] to a[index[starts[s + 1] - 1]]; an empty one is 1."""
        ...

    def matvec(self, matrix: SparseMatrix, a: Residues) -> Residues:
        """Multi-exponentiation: result i is the product over j of a[j]^matrix[i, j]; len(a) = cols. Time depends on the
        matrix. With a negative entry every residue must be invertible, else BadInput.
        """
        ...


class Ciphertexts(Protocol):
    """An opaque batch, bound to the backend and key that made it."""

    def __len__(self) -> int: ...


class HePublicKey(Protocol):
    """Encryption and computing on ciphertexts under one validated public key.

    The plaintext of a ciphertext is an integer; the homomorphic operations act on it as on an integer in Z. It decrypts
    exactly if and only if it then lies in [0, 2^plaintext_bits). A negative intermediate value is fine, a negative
    final one is not: add an offset. The *noise* of a ciphertext is the integer exponent of its randomising base: it
    follows the same linear operations, and the key's owner may be able to learn it. Therefore a result that goes back
    to the owner must be sent through `mask` (or `rerandomise`) with enough noise_bits to drown what it accumulated.
    """

    scheme: str
    modulus_bits: int
    plaintext_bits: int
    noise_bits: int
    """Length of the noise of a fresh encryption: uniform in [0, 2^noise_bits). "paillier-textbook" draws a fresh r and
    multiplies by r^n, whatever noise_bits says."""
    ciphertext_bytes: int

    def to_bytes(self) -> builtins.bytes:
        """Own compact form, versioned; read back by AdditiveHE.load_public."""
        ...

    def encrypt(self, plain: Uints, random: RandomSource) -> Ciphertexts:
        """Fresh encryptions of a plain batch; each integer < 2^plaintext_bits."""
        ...

    def add(self, a: Ciphertexts, b: Ciphertexts) -> Ciphertexts:
        """Element-wise sum; equal lengths. Keeps the noise: not for sending to the owner."""
        ...

    def negate(self, a: Ciphertexts) -> Ciphertexts:
        """Element-wise inverses in the group: plaintext and noise change their signs."""
        ...

    def subtract(self, a: Ciphertexts, b: Ciphertexts) -> Ciphertexts:
        """Element-wise difference; equal lengths."""
        ...

    def sums(self, a: Ciphertexts, index: Ints, starts: Ints) -> Ciphertexts:
        """Sum s is that of a[index[starts[s]]] to a[index[starts[s + 1] - 1]]; an empty one is a 0 without noise. Also
        picks and reorders. Time depends on index and starts: they are no secret of this machine's neighbours.
        """
        ...

    def shift(self, a: Ciphertexts, constant: int) -> Ciphertexts:
        """One integer of either sign added to every plaintext, |constant| < 2^plaintext_bits; adds no noise."""
        ...

    def add_plain(self, a: Ciphertexts, plain: Uints) -> Ciphertexts:
        """Element-wise sum with a plain batch; adds no noise."""
        ...

    def scale(self, a: Ciphertexts, factors: Uints) -> Ciphertexts:
        """Element-wise product with a plain batch of factors; multiplies the noise as well."""
        ...

    def matvec(self, matrix: SparseMatrix, vector: Ciphertexts) -> Ciphertexts:
        """Row i is an encryption of sum_j matrix[i, j] * vector[j]; an entry costs one multiplication for each of its
        non-zero digits, so a one-hot entry costs one. Give matrix.transpose() for X^T v.
        """
        ...

    def mask(self, a: Ciphertexts, plain: Uints, random: RandomSource, *, noise_bits: int) -> Ciphertexts:
        """add_plain and rerandomise in one."""
        ...

    def rerandomise(self, a: Ciphertexts, random: RandomSource, *, noise_bits: int) -> Ciphertexts:
        """Adds noise uniform in [0, 2^noise_bits), noise_bits >= 1 and rounded up to whole bytes."""
        ...

    def join(self, parts: Sequence[Ciphertexts]) -> Ciphertexts:
        """One batch out of several, in order."""
        ...

    def split(self, a: Ciphertexts, lengths: Sequence[int]) -> list[Ciphertexts]:
        """Inverse of join; the lengths add up to len(a)."""
        ...

    def dump(self, a: Ciphertexts) -> builtins.bytes:
        """len(a) * ciphertext_bytes bytes, each ciphertext little-endian."""
        ...

    def load(self, data: memoryview, count: int) -> Ciphertexts:
        """Inverse of dump for bytes from outside: exact size, every value in range and invertible, else BadInput."""
        ...


class HeSecretKey(Protocol):
    """A key pair; its repr shows nothing but scheme and size."""

    @property
    def public(self) -> HePublicKey: ...

    def encrypt(self, plain: Uints, random: RandomSource) -> Ciphertexts:
        """As public.encrypt, with the same distribution and conditions; faster where the primes help ("paillier" and
        "paillier-textbook" of the native backends). For one who has the key pair, in a process that may hold it.
        """
        ...

    def decrypt(self, a: Ciphertexts) -> Uints:
        """Plaintexts modulo the scheme's secret or public message modulus, shape (len(a), limbs); limbs cover it."""
        ...

    def export(self, passphrase: builtins.bytes, random: RandomSource, *, cost_log2: int = 17) -> builtins.bytes:
        """The key pair under a passphrase: scrypt with N = 2^cost_log2 (14 to 20; 128 MiB at 17), r = 8, p = 1, then
        AES-256-GCM. There is no export in the clear.
        """
        ...

    def factors(self) -> tuple[int, int]:
        """The primes p and q, in the clear: for proofs about the key and for other implementations' key forms."""
        ...

    def wipe(self) -> None:
        """Forgets the key: native constants are overwritten, Python's and gmpy2's integers only released. Every later
        use raises BadInput.
        """
        ...


class AdditiveHE(Protocol):
    """One additively homomorphic scheme.

    Schemes: "ou" (Okamoto and Uchiyama, EUROCRYPT 1998; modulus n = p^2 q), "paillier" (EUROCRYPT 1999, with the short
    exponents of Damgard, Jurik and Nielsen, IJIS 2010: the fast one, under an assumption more) and "paillier-textbook"
    (the paper's own r^n, whose public key is n alone, as other libraries have it). All are secure against chosen
    plaintexts only: a decryption must never be shown to the other side (for "ou" it would give away the factors).
    """

    scheme: str
    name: str
    """Of the backend."""

    def generate(self, bits: int, random: RandomSource) -> HeSecretKey:
        """A fresh key with a modulus of `bits` bits; primes by FIPS 186-5 A.1.3 (probable primes)."""
        ...

    def from_factors(self, p: int, q: int, base: int) -> HeSecretKey:
        """A key from its primes and its base (g of "ou", h of "paillier"), for known answers; nothing is checked."""
        ...

    def load_secret(self, data: memoryview, passphrase: builtins.bytes) -> HeSecretKey:
        """Inverse of HeSecretKey.export; BadInput for another passphrase, form or scheme, or a changed byte."""
        ...

    def load_public(self, data: memoryview) -> HePublicKey:
        """A partner's key after every check that needs no secret: version, scheme, size, oddness, small factors,
        perfect powers, primality, range and invertibility of the bases; else BadInput.
        """
        ...


MASK_BITS: Final = (32, 64, 128)


class Masks(Protocol):
    """The key stream of one cipher, added to, taken from or laid over an array while it is made.

    Ciphers: "aes128ctr" (AES-128 in counter mode, SP 800-38A: 16 bytes of key, 16 of nonce, which are the first counter
    block) and "chacha20" (RFC 8439: 32 bytes of key, 12 of nonce, counter from 0, at most 256 GiB). A pair of key and
    nonce belongs to one stream: whoever masks two arrays with the same part of it gives away their difference.

    The stream is read as little-endian elements of `bits` = 32, 64 or 128 bits; element i of the array meets element
    first + i of the stream, so that a long array may be masked piece by piece and in any order. Arrays have any shape:
    dtype uint32 for 32 bits, uint64 for 64, uint64 with a last axis of two (low word first) for 128. `out` is the array
    itself (in place), another C-contiguous one of its shape and dtype that does not overlap it, or None for a new one.
    Time depends on the sizes only.
    """

    name: str
    cipher: str
    key_bytes: int
    nonce_bytes: int

    def expand(self, key: builtins.bytes, nonce: builtins.bytes, out: Words, *, bits: int, first: int = 0) -> Words:
        """Fills `out` with the stream and returns it."""
        ...

    def add(
        self, key: builtins.bytes, nonce: builtins.bytes, values: Words, *, bits: int, first: int = 0,
        out: Words | None = None,
    ) -> Words:  # fmt: skip
        """The values + the stream modulo 2^bits"""
        ...

    def sub(
        self, key: builtins.bytes, nonce: builtins.bytes, values: Words, *, bits: int, first: int = 0,
        out: Words | None = None,
    ) -> Words:  # fmt: skip
        """The values - the stream modulo 2^bits"""
        ...

    def xor(
        self, key: builtins.bytes, nonce: builtins.bytes, values: Words, *, bits: int, first: int = 0,
        out: Words | None = None,
    ) -> Words:  # fmt: skip
        """Values with the stream laid over them bit by bit."""
        ...


class RingMatrices(Protocol):
    """Dense matrices over Z_{2^64}, uint64 of shape (rows, cols), and over Z_{2^128}, shape (rows, cols, 2): the local
    steps of two parties that hold additive shares. Time depends on shapes only.

    Long matrices are worked through in blocks of rows: a plain product gives those rows of the result; the transposed
    ones are summed by `onto`. No step sends anything; who may see which argument is said with each.
    """

    name: str

    def product(self, a: Uints, b: Uints, *, transposed: bool = False, onto: Uints | None = None) -> Uints:
        """The product a b for a of (n, k) and b of (k, m); with `transposed` a^T b for a of
        (n, k) and b of (n, m). `onto`, a C-contiguous array of the result's shape apart from the operands, is added to
        and returned.
        """
        ...

    def share(self, values: Uints, random: RandomSource) -> tuple[Uints, Uints]:
        """Two additive shares: each alone is uniform and tells nothing; together they are the values."""
        ...

    def combine(self, a: Uints, b: Uints) -> Uints:
        """The values of two shares; whoever holds both learns them."""
        ...

    def difference(self, share: Uints, mask: Uints) -> Uints:
        """The share - mask: what a party opens of its operand before a Beaver product."""
        ...

    def beaver(
        self, triple: tuple[Uints, Uints, Uints], left: Uints, right: Uints, *, first: bool, transposed: bool = False
    ) -> Uints:
        """This party's share of X Y (or X^T Y), from its shares (A, B, C) of a triple with A B = C (A^T B = C) and the
        opened left = X - A and right = Y - B: left right + left B + A right + C, the first term by one party only
        (Beaver, CRYPTO 1991). Both parties learn left and right, which are uniform as long as a triple serves once;
        neither learns X, Y or the product. Who made the triple (a dealer) must collude with neither.
        """
        ...

    def truncate(self, share: Uints, bits: int, *, first: bool) -> Uints:
        """As Ring128.truncate: each party alone, 0 <= bits < 64, nobody learns anything. With |v| < 2^k the sum of the
        results differs from v / 2^bits by less than 1 but for a probability of at most 2^(k+1-64) an element modulo
        2^64, 2^(k+1-128) modulo 2^128; then it is wrong by about 2^(64-bits) or 2^(128-bits). With k = 40 one element
        of 2^23 goes wrong modulo 2^64: take 2^128 for more than a few products of that size.
        """
        ...
