/* Numbers modulo 2^255 - 19 in eight AVX-512 lanes, digits of 52 bits; see accel/notes/x25519.md for the bounds. For
 * inclusion by one source file each, behind HAVE_IFMA. */
#ifndef INTERCONN_F25519_IFMA_H
#define INTERCONN_F25519_IFMA_H
#include "five_ifma.h"

#define MASK47 ((UINT64_C(1) << 47) - 1)

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
#ifdef EMULATED_LANES /* bench/ct */
    return _mm512_mullo_epi64(x, y);
#else
    lane r;
    __asm__("vpmullq %2, %1, %0" : "=v"(r) : "v"(x), "v"(y));
    return r;
#endif
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
    products(a, b, z);
    return reduce(z);
}

INLINE field sqr_inline(field a) {
    lane z[10];
    squares(a, z);
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
