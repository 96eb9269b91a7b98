/* Numbers modulo 2^255 - 19 in eight AVX-512 lanes, digits of 52 bits; see accel/notes/x25519.md for the bounds. For
 * inclusion by one source file each, behind HAVE_IFMA. */
#ifndef INTERCONN_F25519_IFMA_H
#define INTERCONN_F25519_IFMA_H
#include "five_ifma.h"

#include <string.h>

#define MASK47 ((UINT64_C(1) << 47) - 1)
/* 1024 p digit by digit: added before a subtraction, so that no digit goes below zero */
#define BIAS(i) (((i) == 0 ? MASK52 - 18 : (i) < 4 ? MASK52 : MASK47) << 10)

/* Ready to be multiplied: the bits above 52 of the first four digits were carried on, but may still be there. A `field`'s
 * digits count as a whole, up to 64 bits. */
typedef struct {
    field f;
} operand;

INLINE field carry(field a) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        a.d[i + 1] = _mm512_add_epi64(a.d[i + 1], _mm512_srli_epi64(a.d[i], 52));
    }
    return a;
}

/* What lies above 2^255 comes back times 19; then the carries. */
INLINE operand settle(field a) {
    lane high = _mm512_srli_epi64(a.d[4], 47);
    a.d[4] = _mm512_and_si512(a.d[4], ALL_LANES(MASK47));
    LO(a.d[0], high, ALL_LANES(19));
    return (operand){carry(a)};
}

/* What was carried on from the first four digits goes. */
INLINE field low(field a) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        a.d[i] = _mm512_and_si512(a.d[i], ALL_LANES(MASK52));
    }
    return a;
}

INLINE field add(field a, field b) {
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) {
        a.d[i] = _mm512_add_epi64(a.d[i], b.d[i]);
    }
    return a;
}

INLINE field biased(field a) {
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) {
        a.d[i] = _mm512_add_epi64(a.d[i], ALL_LANES(BIAS(i)));
    }
    return a;
}

/* a - b; a is biased, b the sum of at most three products */
INLINE field sub(field a, field b) {
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) {
        a.d[i] = _mm512_sub_epi64(a.d[i], b.d[i]);
    }
    return a;
}

/* 2^260 = 608 modulo p */
INLINE field reduce(lane z[10]) {
    const lane c = ALL_LANES(608);
    field r;
#pragma GCC unroll 4
    for (int i = 5; i < 9; i++) {
        z[i + 1] = _mm512_add_epi64(z[i + 1], _mm512_srli_epi64(z[i], 52));
    }
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) {
        r.d[i] = z[i];
        LO(r.d[i], z[i + 5], c);
        if (i > 0) {
            HI(r.d[i], z[i + 4], c);
        }
    }
    return r;
}

/* a b, with `lifted` biased at no cost */
INLINE field product(operand a, operand b, int lifted) {
    lane z[10];
#pragma GCC unroll 10
    for (int i = 0; i < 10; i++) {
        z[i] = lifted && i < 5 ? ALL_LANES(BIAS(i)) : _mm512_setzero_si512();
    }
    add_products(a.f, b.f, z);
    return reduce(z);
}

INLINE field square(operand a, int lifted) {
    lane z[10];
#pragma GCC unroll 10
    for (int i = 0; i < 10; i++) {
        z[i] = lifted && i < 5 ? ALL_LANES(i ? BIAS(i) / 2 : BIAS(i)) : _mm512_setzero_si512();
    }
    add_squares(a.f, z);
    return reduce(z);
}

INLINE field pick(__mmask8 which, field yes, field no) {
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) {
        no.d[i] = _mm512_mask_mov_epi64(no.d[i], which, yes.d[i]);
    }
    return no;
}

/* a + 19 of a number below 2^256 */
INLINE field plus_19(field a) {
    a.d[0] = _mm512_add_epi64(a.d[0], ALL_LANES(19));
    return carry(a);
}

/* The residue in [0, p): two rounds bring it below 2^255, then a + 19 tells whether it reached p. */
INLINE field canon(field a) {
    a = low(settle(low(settle(a).f)).f);
    field r = low(plus_19(a));
    __mmask8 over = _mm512_test_epi64_mask(r.d[4], ALL_LANES(MASK47 + 1));
    r.d[4] = _mm512_and_si512(r.d[4], ALL_LANES(MASK47));
    return pick(over, r, a);
}

/* of a residue */
INLINE __mmask8 is_zero(field a) {
    lane any = _mm512_or_si512(_mm512_or_si512(_mm512_or_si512(a.d[0], a.d[1]), _mm512_or_si512(a.d[2], a.d[3])), a.d[4]);
    return _mm512_testn_epi64_mask(any, any);
}

/* Eight numbers of 32 bytes, `step` bytes from each other, word by word; what is left of eight is filled with the last. */
static inline void load_words(uint64_t words[4][8], const uint8_t *bytes, size_t step, size_t left) {
    for (size_t l = 0; l < 8; l++) {
        for (size_t i = 0; i < 4; i++) {
            memcpy(&words[i][l], bytes + (l < left ? l : left - 1) * step + 8 * i, 8);
        }
    }
}

/* All 256 bits: the last digit has 48. */
INLINE field digits_of(const uint64_t words[4][8]) {
    lane w[4];
    for (int i = 0; i < 4; i++) {
        w[i] = _mm512_loadu_si512(words[i]);
    }
    return low((field){{
        w[0],
        _mm512_or_si512(_mm512_srli_epi64(w[0], 52), _mm512_slli_epi64(w[1], 12)),
        _mm512_or_si512(_mm512_srli_epi64(w[1], 40), _mm512_slli_epi64(w[2], 24)),
        _mm512_or_si512(_mm512_srli_epi64(w[2], 28), _mm512_slli_epi64(w[3], 36)),
        _mm512_srli_epi64(w[3], 16),
    }});
}

/* Residues to `count` <= 8 rows of 32 bytes, with `top` as their last bits */
static TARGET void store_residues(uint8_t *out, size_t count, field a, __mmask8 top) {
    uint64_t words[4][8];
    lane last = _mm512_or_si512(_mm512_srli_epi64(a.d[3], 36), _mm512_slli_epi64(a.d[4], 16));
    _mm512_storeu_si512(words[0], _mm512_or_si512(a.d[0], _mm512_slli_epi64(a.d[1], 52)));
    _mm512_storeu_si512(words[1], _mm512_or_si512(_mm512_srli_epi64(a.d[1], 12), _mm512_slli_epi64(a.d[2], 40)));
    _mm512_storeu_si512(words[2], _mm512_or_si512(_mm512_srli_epi64(a.d[2], 24), _mm512_slli_epi64(a.d[3], 28)));
    _mm512_storeu_si512(words[3], _mm512_mask_or_epi64(last, top, last, ALL_LANES(UINT64_C(1) << 63)));
    for (size_t l = 0; l < count; l++) {
        for (size_t i = 0; i < 4; i++) {
            memcpy(out + 32 * l + 8 * i, &words[i][l], 8);
        }
    }
}

#endif
