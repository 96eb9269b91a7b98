"""Products and packing on ciphertexts, made of the operations of one public key; for every scheme and backend alike.

Batches of ciphertexts are flat: an encrypted matrix of n rows and m columns is a batch of n * m, row after row. Nothing
here draws noise: a result that goes to the key's owner must first be masked (accel.kernels.HePublicKey says how much).
Who learns what: all is computed by whoever holds the ciphertexts and the plain matrix, alone; it learns nothing.
"""

import numpy as np

from accel.kernels import BadInput, Ciphertexts, HePublicKey, Ints, SparseMatrix, Uints, is_array


def dot(key: HePublicKey, values: Ints, vector: Ciphertexts) -> Ciphertexts:
    """One ciphertext of sum values[j] * vector[j]; int64 values below 2^40."""
    return key.matvec(dense(np.asarray(values).reshape(1, -1)), vector)


def dense(values: Ints) -> SparseMatrix:
    """An int64 array of shape (rows, cols) as the matrix the kernels take; zeros cost nothing."""
    if not is_array(values, np.int64) or values.ndim != 2:
        raise BadInput("a plain matrix is int64 of shape (rows, cols)")
    rows, columns = np.nonzero(values)
    indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.bincount(rows, minlength=values.shape[0]))])
    shape = values.shape
    return SparseMatrix(shape[0], shape[1], indptr.astype(np.int64), columns.astype(np.int64), values[rows, columns])


def matmul_plain(key: HePublicKey, matrix: SparseMatrix, right: Ciphertexts, columns: int) -> Ciphertexts:
    """Plain (n, k) times encrypted (k, columns), flat (n, columns)."""
    if columns < 1 or len(right) != matrix.cols * columns:
        raise BadInput("the encrypted matrix does not fit the plain one")
    return key.matvec(_beside(matrix, columns), right)


def matmul_encrypted(key: HePublicKey, left: Ciphertexts, rows: int, matrix: SparseMatrix) -> Ciphertexts:
    """Encrypted (rows, k) times plain (k, m), flat (rows, m)."""
    if rows < 0 or len(left) != rows * matrix.rows:
        raise BadInput("the encrypted matrix does not fit the plain one")
    return key.matvec(_diagonal(matrix.transpose(), rows), left)


def group_sums(key: HePublicKey, values: Ciphertexts, groups: Ints, count: int) -> Ciphertexts:
    """Sum g of `count` is that of the values whose entry of `groups` is g: the histograms of boosted trees. An entry of
    -1 belongs to no group; an empty group is a 0 without noise. For several features give key.sums a joined index.
    """
    check_groups(groups, len(values), count)
    order = np.argsort(groups, kind="stable").astype(np.int64)
    return key.sums(values, order, np.searchsorted(groups[order], np.arange(count + 1)).astype(np.int64))


def check_groups(groups: Ints, values: int, count: int) -> None:
    """Refuse what does not name one of `count` groups, or none, for each of so many values."""
    if not isinstance(count, int | np.integer) or count < 0:
        raise BadInput("a whole number of groups")
    if not is_array(groups, np.int64) or groups.shape != (values,):
        raise BadInput("one int64 group for each value")
    if len(groups) and (groups.min() < -1 or groups.max() >= count):
        raise BadInput("a group lies outside 0 to count - 1")


def pack(key: HePublicKey, values: Ciphertexts, *, slot_bits: int, slots: int) -> Ciphertexts:
    """Ciphertext i holds values[slots * i + j] * 2^(slot_bits * j), the last one perhaps fewer. Every plaintext lies in
    [0, 2^slot_bits), which nobody can check here: shift negative ones up first. One squaring for a bit of a slot and
    one multiplication a value; the noise grows by slot_bits * slots bits.
    """
    _check_slots(key, slot_bits, slots)
    count = -(-len(values) // slots)
    packed: Ciphertexts | None = None
    limbs = slot_bits // 64 + 1
    for j in range(slots - 1, -1, -1):
        index = np.arange(count, dtype=np.int64) * slots + j
        there = (index < len(values)).astype(np.int64)
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(there)])
        part = key.sums(values, index[index < len(values)], starts)
        if packed is None:
            packed = part
        else:
            factors = np.zeros((count, limbs), np.uint64)
            factors[:, slot_bits // 64] = 1 << (slot_bits % 64)
            packed = key.add(key.scale(packed, factors), part)
    if packed is None:
        raise BadInput("at least one slot")
    return packed


def pack_plain(key: HePublicKey, values: Uints, *, slot_bits: int, slots: int) -> Uints:
    """A plain batch with `slots` values in each number, for one encryption instead of many."""
    _check_slots(key, slot_bits, slots)
    if not is_array(values, np.uint64) or values.ndim != 2:
        raise BadInput("a plain batch is uint64 of shape (count, limbs)")
    bits = _bits(values)
    if bits.shape[1] > slot_bits and bits[:, slot_bits:].any():
        raise BadInput("a value does not fit its slot")
    count = -(-len(values) // slots)
    grid = np.zeros((count * slots, slot_bits), np.uint8)
    grid[: len(values), : bits.shape[1]] = bits[:, :slot_bits]
    limbs = key.plaintext_bits // 64 + 1
    wide = np.zeros((count, 64 * limbs), np.uint8)
    wide[:, : slots * slot_bits] = grid.reshape(count, slots * slot_bits)
    return _numbers(wide)


def unpack(plain: Uints, *, slot_bits: int, slots: int, count: int) -> Uints:
    """The first `count` values of decrypted packs, a plain batch of as many limbs as a slot needs."""
    if slot_bits < 1 or slots < 1 or not 0 <= count <= len(plain) * slots or 64 * plain.shape[1] < slots * slot_bits:
        raise BadInput("so many values are not in these packs")
    bits = _bits(plain)
    if bits[:, slots * slot_bits :].any():
        raise BadInput("a pack ran over its last slot")
    return _numbers(bits[:, : slots * slot_bits].reshape(len(plain) * slots, slot_bits)[:count])


def _check_slots(key: HePublicKey, slot_bits: int, slots: int) -> None:
    if slot_bits < 1 or slots < 1 or slot_bits * slots > key.plaintext_bits:
        raise BadInput(f"the slots do not fit a plaintext of {key.plaintext_bits} bits")


def _bits(plain: Uints) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    data = np.ascontiguousarray(plain, "<u8").view(np.uint8).reshape(len(plain), 8 * plain.shape[1])
    return np.unpackbits(data, axis=1, bitorder="little")


def _numbers(bits: np.ndarray[tuple[int, int], np.dtype[np.uint8]]) -> Uints:
    limbs = -(-bits.shape[1] // 64)
    data = np.zeros((len(bits), 8 * limbs), np.uint8)
    packed = np.packbits(bits, axis=1, bitorder="little")
    data[:, : packed.shape[1]] = packed
    return data.view("<u8").astype(np.uint64).reshape(len(bits), limbs)


def _beside(matrix: SparseMatrix, columns: int) -> SparseMatrix:
    """Matrix (x) identity: row (i, c) has matrix[i, j] at (j, c)."""
    lengths = np.repeat(np.diff(matrix.indptr), columns)
    indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
    shift = np.repeat(matrix.indptr[:-1], columns) - indptr[:-1]
    source = np.arange(indptr[-1], dtype=np.int64) + np.repeat(shift, lengths)
    column = np.repeat(np.tile(np.arange(columns, dtype=np.int64), matrix.rows), lengths)
    indices = matrix.indices[source] * columns + column
    return SparseMatrix(matrix.rows * columns, matrix.cols * columns, indptr, indices, matrix.values[source])


def _diagonal(matrix: SparseMatrix, times: int) -> SparseMatrix:
    """Identity (x) matrix: `times` copies on the diagonal."""
    starts = [matrix.indptr[:1]] + [matrix.indptr[1:] + i * len(matrix.values) for i in range(times)]
    indices = [matrix.indices + i * matrix.cols for i in range(times)]
    none = np.zeros(0, np.int64)
    return SparseMatrix(
        times * matrix.rows, times * matrix.cols, np.concatenate(starts), np.concatenate([none, *indices]),
        np.tile(matrix.values, times),
    )  # fmt: skip
