"""Z_{2^128} with the sparse product in C; the element-wise operations are numpy's, which memory bounds."""

import numpy as np

from accel import _native
from accel.backends.reference.ring128 import NumpyRing128, check_vector
from accel.kernels import SparseMatrix, Uints, check_threads


class NativeRing128(NumpyRing128):
    """See accel.kernels.Ring128 for the contract. The product is plain C under the name of either core."""

    def __init__(self, core: str, *, threads: int = 1) -> None:
        self.name = core
        self._threads = check_threads(threads)

    def matvec(self, matrix: SparseMatrix, vector: Uints) -> Uints:
        check_vector(matrix, vector)
        out = np.empty((matrix.rows, 2), np.uint64)
        indptr, indices, values = (np.ascontiguousarray(a) for a in (matrix.indptr, matrix.indices, matrix.values))
        _native.ring128_matvec(out, indptr, indices, values, np.ascontiguousarray(vector), self._threads)
        return out
