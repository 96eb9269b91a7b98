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

/* z = a b, digits not carried */
INLINE void products(field a, field b, lane z[10]) {
#pragma GCC unroll 10
    for (int i = 0; i < 10; i++) {
        z[i] = _mm512_setzero_si512();
    }
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

/* z = a^2, digits not carried */
INLINE void squares(field a, lane z[10]) {
#pragma GCC unroll 10
    for (int i = 0; i < 10; i++) {
        z[i] = _mm512_setzero_si512();
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
#pragma GCC unroll 4
        for (int j = i + 1; j < 5; j++) {
            LO(z[i + j], a.d[i], a.d[j]);
            HI(z[i + j + 1], a.d[i], a.d[j]);
        }
    }
#pragma GCC unroll 8
    for (int i = 1; i < 9; i++) {
        z[i] = _mm512_add_epi64(z[i], z[i]);
    }
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) {
        LO(z[2 * i], a.d[i], a.d[i]);
        HI(z[2 * i + 1], a.d[i], a.d[i]);
    }
}
#endif
