"""The features of one party: rows are the aligned samples, columns its encoded attributes."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from accel.kernels import SparseMatrix
from gateway.errors import CallerError, Kind

FEATURE_RANGE_BITS = 6
"""|feature| < 2^6: standardised columns lie within a few units; the masks are sized by this public bound."""

MAX_ROWS = 1 << 20
MAX_COLS = 1 << 14


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class LrMatrix:
    """float64 features in compressed sparse rows; zero entries are not stored. The repr shows the shape only."""

    rows: int
    cols: int
    indptr: NDArray[np.int64]
    indices: NDArray[np.int64]
    values: NDArray[np.float64]

    @classmethod
    def from_dense(cls, array: NDArray[np.float64]) -> "LrMatrix":
        """From shape (rows, columns). Raises CallerError unless all values are finite."""
        dense = np.asarray(array, dtype=np.float64)
        if dense.ndim != 2 or not 1 <= dense.shape[0] <= MAX_ROWS or dense.shape[1] > MAX_COLS:
            raise CallerError(
                "features must be a table of 1 to 2^20 rows and at most 2^14 columns", kind=Kind.MALFORMED
            )
        if not np.all(np.isfinite(dense)):
            raise CallerError("features must be finite", kind=Kind.MALFORMED)
        row_of, indices = np.nonzero(dense)
        counts = np.bincount(row_of, minlength=dense.shape[0])
        indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])
        return cls(
            dense.shape[0],
            dense.shape[1],
            indptr,
            indices.astype(np.int64),
            np.ascontiguousarray(dense[row_of, indices]),
        )

    def __repr__(self) -> str:
        return f"LrMatrix({self.rows}x{self.cols})"

    def with_intercept(self) -> "LrMatrix":
        """The same with a column of ones put in front."""
        indptr = self.indptr + np.arange(self.rows + 1, dtype=np.int64)
        indices = np.insert(self.indices + 1, self.indptr[:-1], 0)
        values = np.insert(self.values, self.indptr[:-1], 1.0)
        return LrMatrix(self.rows, self.cols + 1, indptr, indices, values)

    def quantised(self, bits: int) -> SparseMatrix:
        """Entries round(value * 2^bits). Raises CallerError where one is as large as 2^FEATURE_RANGE_BITS."""
        if np.any(np.abs(self.values) >= 1 << FEATURE_RANGE_BITS):
            raise CallerError("training features must be smaller than 64 in size: standardise", kind=Kind.MALFORMED)
        return SparseMatrix(
            self.rows, self.cols, self.indptr, self.indices, np.rint(self.values * 2.0**bits).astype(np.int64)
        )

    def curvature(self) -> int:
        """The mean squared row norm, rounded up: at least ||X||_2^2 / rows.

        For standardised numbers and one-hot categories it is the number of attributes, known from the schema.
        """
        mean = float(np.dot(self.values, self.values)) / self.rows
        return max(1, math.ceil(mean - 1e-6))

    def dot(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """X w in floating point, shape (cols,) -> (rows,)."""
        row_of = np.repeat(np.arange(self.rows), np.diff(self.indptr))
        products = self.values * weights[self.indices]
        return np.bincount(row_of, weights=products, minlength=self.rows).astype(np.float64)
