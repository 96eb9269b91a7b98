/* Numbers of five digits of 52 bits in eight AVX-512 lanes, and their products before any reduction. For inclusion by one
 * source file each, behind HAVE_IFMA. */
#ifndef INTERCONN_FIVE_IFMA_H
#define INTERCONN_FIVE_IFMA_H
#include <immintrin.h>

#define TARGET __attribute__((target("avx512f,avx512dq,avx512vl,avx512bw,avx512ifma,bmi2")))
#define INLINE static inline __attribute__((always_inline)) TARGET
#define MASK52 ((UINT64_C(1) << 52) - 1)
#define LO(acc, x, y) ((acc) = _mm512_madd52lo_epu64((acc), (x), (y)))
#define HI(acc, x, y) ((acc) = _mm512_madd52hi_epu64((acc), (x), (y)))
#define ALL_LANES(word) _mm512_set1_epi64((long long)(word))

typedef __m512i lane;
/* The fifth digit holds what is above 2^208. */
typedef struct {
    lane d[5];
} field;

/* z += a b, digits not carried; of a digit the low 52 bits count */
INLINE void add_products(field a, field b, lane z[10]) {
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) {
#pragma GCC unroll 5
        for (int j = 0; j < 5; j++) {
            LO(z[i + j], a.d[i], b.d[j]);
        }
#pragma GCC unroll 5
        for (int j = 0; j < 5; j++) {
            HI(z[i + j + 1], a.d[i], b.d[j]);
        }
    }
}

/* z = a^2 + z, but 2 z[i] for i of 1 to 6; digits not carried. Twice the last digit of a is below 2^52. */
INLINE void add_squares(field a, lane z[10]) {
#pragma GCC unroll 3
    for (int i = 0; i < 3; i++) {
#pragma GCC unroll 3
        for (int j = i + 1; j < 4; j++) {
            LO(z[i + j], a.d[i], a.d[j]);
            HI(z[i + j + 1], a.d[i], a.d[j]);
        }
    }
    lane top = _mm512_add_epi64(a.d[4], a.d[4]);
#pragma GCC unroll 6
    for (int i = 1; i < 7; i++) {
        z[i] = _mm512_add_epi64(z[i], z[i]);
    }
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) {
        LO(z[2 * i], a.d[i], a.d[i]);
        HI(z[2 * i + 1], a.d[i], a.d[i]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        LO(z[i + 4], a.d[i], top);
        HI(z[i + 5], a.d[i], top);
    }
}

INLINE void products(field a, field b, lane z[10]) {
#pragma GCC unroll 10
    for (int i = 0; i < 10; i++) {
        z[i] = _mm512_setzero_si512();
    }
    add_products(a, b, z);
}

INLINE void squares(field a, lane z[10]) {
#pragma GCC unroll 10
    for (int i = 0; i < 10; i++) {
        z[i] = _mm512_setzero_si512();
    }
    add_squares(a, z);
}
#endif
