/* Sparse products in Z_{2^128}. */
#ifndef INTERCONN_RING128_H
#define INTERCONN_RING128_H

#include <stddef.h>
#include <stdint.h>

/* out[row] = sum of value[j] * vector[col[j]], elements as two limbs, low first. Time depends on the sparsity only. */
static inline void ring128_matvec(uint64_t *out, const int64_t *row_at, const int64_t *col, const int64_t *value,
                                  const uint64_t *vector, size_t rows) {
    for (size_t r = 0; r < rows; r++) {
        unsigned __int128 sum = 0;
        for (int64_t j = row_at[r]; j < row_at[r + 1]; j++) {
            const uint64_t *v = vector + 2 * col[j];
            sum += ((unsigned __int128)v[1] << 64 | v[0]) * (unsigned __int128)(__int128)value[j];
        }
        out[2 * r] = (uint64_t)sum;
        out[2 * r + 1] = (uint64_t)(sum >> 64);
    }
}

#endif
