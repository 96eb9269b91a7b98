/* Ring products in plain C, and modulo 2^64 with vpmullq. All are written to read `a`, the large operand, once and in
 * order: its memory is what bounds them. */
#include "rings.h"

#include <stdlib.h>
#include <string.h>

#include "cpu.h"

typedef unsigned __int128 wide;

void ring64_product_portable(const ring_shape *s, uint64_t *restrict out, const uint64_t *restrict a,
                             const uint64_t *restrict b) {
    const size_t n = s->n, k = s->k, m = s->m;
    if (!s->onto) {
        memset(out, 0, (s->transposed ? k : n) * m * sizeof *out);
    }
    for (size_t i = 0; i < n; i++, a += k) {
        if (s->transposed) {
            const uint64_t *y = b + i * m;
            for (size_t j = 0; j < m; j++) {
                for (size_t l = 0; l < k; l++) {
                    out[l * m + j] += a[l] * y[j];
                }
            }
        } else if (m == 1) {
            uint64_t even = 0, odd = 0;
            size_t l = 0;
            for (; l + 2 <= k; l += 2) {
                even += a[l] * b[l];
                odd += a[l + 1] * b[l + 1];
            }
            out[i] += even + odd + (l < k ? a[l] * b[l] : 0);
        } else {
            for (size_t l = 0; l < k; l++) {
                for (size_t j = 0; j < m; j++) {
                    out[i * m + j] += a[l] * b[l * m + j];
                }
            }
        }
    }
}

static inline wide take(const uint64_t *p) {
    return (wide)p[1] << 64 | p[0];
}

static inline void add_to(uint64_t *p, wide x) {
    x += take(p);
    p[0] = (uint64_t)x;
    p[1] = (uint64_t)(x >> 64);
}

void ring128_product(const ring_shape *s, uint64_t *restrict out, const uint64_t *restrict a, const uint64_t *restrict b) {
    const size_t n = s->n, k = s->k, m = s->m;
    if (!s->onto) {
        memset(out, 0, (s->transposed ? k : n) * m * 2 * sizeof *out);
    }
    for (size_t i = 0; i < n; i++, a += 2 * k) {
        if (s->transposed) {
            for (size_t j = 0; j < m; j++) {
                const wide y = take(b + 2 * (i * m + j));
                for (size_t l = 0; l < k; l++) {
                    add_to(out + 2 * (l * m + j), take(a + 2 * l) * y);
                }
            }
        } else {
            for (size_t j = 0; j < m; j++) {
                wide sum = 0;
                for (size_t l = 0; l < k; l++) {
                    sum += take(a + 2 * l) * take(b + 2 * (l * m + j));
                }
                add_to(out + 2 * (i * m + j), sum);
            }
        }
    }
}

void ring_add(uint64_t *out, const uint64_t *x, size_t size, size_t words) {
    for (size_t i = 0; i < size; i += words) {
        if (words == 2) {
            add_to(out + i, take(x + i));
        } else {
            out[i] += x[i];
        }
    }
}

#ifdef HAVE_RINGS_AVX512
#include <immintrin.h>

#define TARGET __attribute__((target("avx512f,avx512dq")))
#define INLINE static inline __attribute__((always_inline)) TARGET
#define LANES 8
#define COLUMNS 8    /* registers of accumulators: 64 columns of a at a time */
#define ROWS 64      /* rows of a that are gone through together, while the cache holds them */

int ring64_avx512_usable(void) {
    return cpu_can(CPU_AVX512);
}

INLINE __mmask8 first_lanes(size_t count) {
    return (__mmask8)(count < LANES ? (1U << count) - 1 : 0xff);
}

/* out[l * step] += sum over i of a[i][l] * y[i * step], l < width <= 64, for `rows` rows of k words */
INLINE void sum_rows(uint64_t *out, size_t step, const uint64_t *a, size_t k, const uint64_t *y, size_t rows, size_t width,
                     const int registers) {
    __m512i acc[COLUMNS];
    const __mmask8 last = first_lanes(width - LANES * (size_t)(registers - 1));
#pragma GCC unroll 8
    for (int v = 0; v < registers; v++) {
        acc[v] = _mm512_setzero_si512();
    }
    for (size_t i = 0; i < rows; i++, a += k, y += step) {
        const __m512i factor = _mm512_set1_epi64((long long)*y);
#pragma GCC unroll 8
        for (int v = 0; v < registers; v++) {
            const uint64_t *at = a + LANES * v;
            __m512i x = v + 1 < registers ? _mm512_loadu_si512(at) : _mm512_maskz_loadu_epi64(last, at);
            acc[v] = _mm512_add_epi64(acc[v], _mm512_mullo_epi64(x, factor));
        }
    }
    uint64_t sums[LANES * COLUMNS];
#pragma GCC unroll 8
    for (int v = 0; v < registers; v++) {
        _mm512_storeu_si512(sums + LANES * v, acc[v]);
    }
    for (size_t l = 0; l < width; l++) {
        out[l * step] += sums[l];
    }
}

static TARGET void transposed64(const ring_shape *s, uint64_t *out, const uint64_t *a, const uint64_t *b) {
    /* Few columns are summed over all rows in registers; many need several passes over rows that the cache holds. */
    const size_t together = s->m == 1 && s->k <= LANES * COLUMNS ? s->n : ROWS;
    for (size_t i = 0; i < s->n; i += together) {
        const size_t rows = s->n - i < together ? s->n - i : together;
        for (size_t l = 0; l < s->k; l += LANES * COLUMNS) {
            const size_t width = s->k - l < LANES * COLUMNS ? s->k - l : LANES * COLUMNS;
            for (size_t j = 0; j < s->m; j++) {
                uint64_t *to = out + l * s->m + j;
                const uint64_t *from = a + i * s->k + l, *y = b + i * s->m + j;
                switch ((width + LANES - 1) / LANES) {
#define CASE(registers)                                                       \
    case registers:                                                           \
        sum_rows(to, s->m, from, s->k, y, rows, width, registers);            \
        break
                    CASE(1);
                    CASE(2);
                    CASE(3);
                    CASE(4);
                    CASE(5);
                    CASE(6);
                    CASE(7);
                    CASE(8);
#undef CASE
                default:
                    break;
                }
            }
        }
    }
}

/* Sums of eight registers' lanes, one lane each */
INLINE __m512i sums_of(const __m512i x[8]) {
    __m512i t[8], u[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_add_epi64(_mm512_unpacklo_epi64(x[2 * i], x[2 * i + 1]), _mm512_unpackhi_epi64(x[2 * i], x[2 * i + 1]));
    }
    /* t[i]: sums of two lanes of rows 2i, 2i + 1 in turn, in four quarters */
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
        u[i] = _mm512_add_epi64(_mm512_shuffle_i64x2(t[2 * i], t[2 * i + 1], 0x44),
                                _mm512_shuffle_i64x2(t[2 * i], t[2 * i + 1], 0xee));
    }
    /* u[i]: quarters 0, 1 of t[2i], then of t[2i + 1] */
    return _mm512_add_epi64(_mm512_shuffle_i64x2(u[0], u[1], 0x88), _mm512_shuffle_i64x2(u[0], u[1], 0xdd));
}

/* out[i * m] (+)= a[i] . y for eight rows of k words, y of k words */
INLINE void eight_rows(const ring_shape *s, uint64_t *out, size_t rows, const uint64_t *a, const uint64_t *y) {
    __m512i acc[8];
    const uint64_t *row[8];
#pragma GCC unroll 8
    for (size_t r = 0; r < 8; r++) {
        acc[r] = _mm512_setzero_si512();
        row[r] = a + (r < rows ? r : 0) * s->k;
    }
    size_t l = 0;
    for (; l + LANES <= s->k; l += LANES) {
        const __m512i factor = _mm512_loadu_si512(y + l);
#pragma GCC unroll 8
        for (int r = 0; r < 8; r++) {
            acc[r] = _mm512_add_epi64(acc[r], _mm512_mullo_epi64(_mm512_loadu_si512(row[r] + l), factor));
        }
    }
    if (l < s->k) {
        const __mmask8 last = first_lanes(s->k - l);
        const __m512i factor = _mm512_maskz_loadu_epi64(last, y + l);
#pragma GCC unroll 8
        for (int r = 0; r < 8; r++) {
            acc[r] = _mm512_add_epi64(acc[r], _mm512_mullo_epi64(_mm512_maskz_loadu_epi64(last, row[r] + l), factor));
        }
    }
    uint64_t sums[8];
    _mm512_storeu_si512(sums, sums_of(acc));
    for (size_t r = 0; r < rows; r++) {
        out[r * s->m] += sums[r];
    }
}

/* out[i] (+)= a[i] b for one row and up to 32 columns of b from j */
INLINE void one_row(const ring_shape *s, uint64_t *out, const uint64_t *a, const uint64_t *b, size_t width) {
    const int registers = (int)((width + LANES - 1) / LANES);
    __m512i acc[4];
    __mmask8 mask[4];
#pragma GCC unroll 4
    for (int v = 0; v < 4; v++) {
        mask[v] = v < registers ? first_lanes(width - LANES * (size_t)v) : 0;
        acc[v] = _mm512_maskz_loadu_epi64(mask[v], out + LANES * v);
    }
    for (size_t l = 0; l < s->k; l++, b += s->m) {
        const __m512i factor = _mm512_set1_epi64((long long)a[l]);
#pragma GCC unroll 4
        for (int v = 0; v < 4; v++) {
            acc[v] = _mm512_add_epi64(acc[v], _mm512_mullo_epi64(_mm512_maskz_loadu_epi64(mask[v], b + LANES * v), factor));
        }
    }
#pragma GCC unroll 4
    for (int v = 0; v < 4; v++) {
        _mm512_mask_storeu_epi64(out + LANES * v, mask[v], acc[v]);
    }
}

static TARGET int plain64(const ring_shape *s, uint64_t *out, const uint64_t *a, const uint64_t *b) {
    const size_t n = s->n, k = s->k, m = s->m;
    if (m > 8) {
        for (size_t i = 0; i < n; i++) {
            for (size_t j = 0; j < m; j += 4 * LANES) {
                one_row(s, out + i * m + j, a + i * k, b + j, m - j < 4 * LANES ? m - j : 4 * LANES);
            }
        }
        return 0;
    }
    uint64_t *turned = malloc((k * m + 1) * sizeof *turned);
    if (!turned) {
        return -1;
    }
    for (size_t l = 0; l < k; l++) {
        for (size_t j = 0; j < m; j++) {
            turned[j * k + l] = b[l * m + j];
        }
    }
    for (size_t i = 0; i < n; i += 8) {
        for (size_t j = 0; j < m; j++) {
            eight_rows(s, out + i * m + j, n - i < 8 ? n - i : 8, a + i * k, turned + j * k);
        }
    }
    volatile uint64_t *gone = turned; /* it may be a share */
    for (size_t i = 0; i < k * m; i++) {
        gone[i] = 0;
    }
    free(turned);
    return 0;
}

TARGET int ring64_product_avx512(const ring_shape *s, uint64_t *out, const uint64_t *a, const uint64_t *b) {
    if (!s->onto) {
        memset(out, 0, (s->transposed ? s->k : s->n) * s->m * sizeof *out);
    }
    if (s->transposed) {
        transposed64(s, out, a, b);
        return 0;
    }
    return plain64(s, out, a, b);
}
#endif
