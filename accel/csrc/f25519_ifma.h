/* Numbers modulo 2^255 - 19 in eight AVX-512 lanes, digits of 52 bits; see accel/notes/x25519.md for the bounds. For
 * inclusion by one source file each, behind HAVE_IFMA. */
#ifndef INTERCONN_F25519_IFMA_H
#define INTERCONN_F25519_IFMA_H
#include <immintrin.h>

#define TARGET __attribute__((target("avx512f,avx512dq,avx512vl,avx512bw,avx512ifma,bmi2")))
#define INLINE static inline __attribute__((always_inline)) TARGET
#define MASK52 ((UINT64_C(1) << 52) - 1)
#define MASK47 ((UINT64_C(1) << 47) - 1)
#define LO(acc, x, y) ((acc) = _mm512_madd52lo_epu64((acc), (x), (y)))
#define HI(acc, x, y) ((acc) = _mm512_madd52hi_epu64((acc), (x), (y)))
#define ALL_LANES(word) _mm512_set1_epi64((long long)(word))

typedef __m512i lane;
/* Digits of 52 bits; the fifth holds what is above 2^208. */
typedef struct {
    lane d[5];
} field;

/* Carries out of the first four digits. */
INLINE field ripple(field a) {
    const lane mask = ALL_LANES(MASK52);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        a.d[i + 1] = _mm512_add_epi64(a.d[i + 1], _mm512_srli_epi64(a.d[i], 52));
        a.d[i] = _mm512_and_si512(a.d[i], mask);
    }
    return a;
}

/* What lies above 2^255 comes back times 19; then the carries. */
INLINE field fold(field a) {
    lane high = _mm512_srli_epi64(a.d[4], 47);
    a.d[4] = _mm512_and_si512(a.d[4], ALL_LANES(MASK47));
    LO(a.d[0], high, ALL_LANES(19));
    return ripple(a);
}

INLINE field add(field a, field b) {
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) {
        a.d[i] = _mm512_add_epi64(a.d[i], b.d[i]);
    }
    return ripple(a);
}

/* a - b + 2 p; b must be a product */
INLINE field sub(field a, field b) {
    const uint64_t middle = (UINT64_C(1) << 53) - 2;
    const uint64_t twice_p[5] = {(UINT64_C(1) << 53) - 38, middle, middle, middle, (UINT64_C(1) << 48) - 2};
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) {
        a.d[i] = _mm512_sub_epi64(_mm512_add_epi64(a.d[i], ALL_LANES(twice_p[i])), b.d[i]);
    }
    return ripple(a);
}

INLINE lane mullo(lane x, lane y) {
    lane r;
    __asm__("vpmullq %2, %1, %0" : "=v"(r) : "v"(x), "v"(y));
    return r;
}

/* 2^260 = 608 modulo p */
INLINE field reduce(lane z[10]) {
    z[6] = _mm512_add_epi64(z[6], _mm512_srli_epi64(z[5], 52));
    z[5] = _mm512_and_si512(z[5], ALL_LANES(MASK52));
    field r;
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) {
        r.d[i] = _mm512_add_epi64(z[i], mullo(z[i + 5], ALL_LANES(608)));
    }
    return fold(r);
}

INLINE field mul_inline(field a, field b) {
    lane z[10];
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
    return reduce(z);
}

INLINE field sqr_inline(field a) {
    lane z[10];
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
    return reduce(z);
}

/* a + 121665 b */
INLINE field add_scaled(field a, field b) {
    const lane factor = ALL_LANES(121665);
    lane top = _mm512_setzero_si512();
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) {
        LO(a.d[i], b.d[i], factor);
        if (i < 4) {
            HI(a.d[i + 1], b.d[i], factor);
        } else {
            HI(top, b.d[i], factor);
        }
    }
    LO(a.d[0], top, ALL_LANES(608));
    return fold(a);
}

static TARGET __attribute__((noinline)) void square_times(field *a, int times) {
    field x = *a;
    for (int i = 0; i < times; i++) {
        x = sqr_inline(x);
    }
    *a = x;
}

static TARGET __attribute__((noinline)) void multiply(field *out, const field *a, const field *b) {
    *out = mul_inline(*a, *b);
}

#endif
