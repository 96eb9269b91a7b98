"""Z_{2^128} with the sparse product in C; the element-wise operations are numpy's, which memory bounds."""

import numpy as np

from accel import _native
from accel.backends.reference import NumpyRing128
from accel.kernels import BadInput, SparseMatrix, Uints, check_threads


class NativeRing128(NumpyRing128):
    """See accel.kernels.Ring128 for the contract. The product is plain C under the name of either core."""

    def __init__(self, core: str, *, threads: int = 1) -> None:
        self.name = core
        self._threads = check_threads(threads)

    def matvec(self, matrix: SparseMatrix, vector: Uints) -> Uints:
        if vector.dtype != np.uint64 or vector.shape != (matrix.cols, 2):
            raise BadInput("vector does not fit the matrix")
        out = np.empty((matrix.rows, 2), np.uint64)
        indptr, indices, values = (np.ascontiguousarray(a) for a in (matrix.indptr, matrix.indices, matrix.values))
        _native.ring128_matvec(out, indptr, indices, values, np.ascontiguousarray(vector), self._threads)
        return out
