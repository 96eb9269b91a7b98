/* Eight elements in AVX-512 lanes; see group25519_algos.h. */
#include "group25519.h"
#include "mont.h"

#ifdef HAVE_IFMA
#include "f25519_ifma.h"

#define LANES 8

typedef __mmask8 mask;
#define f_mul mul_inline
#define f_sqr sqr_inline
#define squares_of square_times
#define product_into(a, b) multiply((a), (a), (b))

/* Sums and differences are folded at once, so that every value has a product's bounds. */
INLINE field f_add(field a, field b) {
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) {
        a.d[i] = _mm512_add_epi64(a.d[i], b.d[i]);
    }
    return fold(a);
}

INLINE field f_sub(field a, field b) {
    return fold(sub(a, b));
}

INLINE field f_limbs(const uint64_t w[4]) {
    return (field){{ALL_LANES(w[0] & MASK52), ALL_LANES((w[0] >> 52 | w[1] << 12) & MASK52),
                    ALL_LANES((w[1] >> 40 | w[2] << 24) & MASK52), ALL_LANES((w[2] >> 28 | w[3] << 36) & MASK52),
                    ALL_LANES(w[3] >> 16)}};
}

/* With 256 bits the last digit has 48. */
static TARGET field f_load_step(const uint8_t *bytes, size_t step, size_t left, unsigned bits) {
    uint64_t words[5][8];
    field a;
    for (size_t l = 0; l < 8; l++) {
        const uint8_t *at = bytes + (l < left ? l : left - 1) * step;
        for (unsigned i = 0; i < 5; i++) {
            words[i][l] = take_bits(at, 32, 52 * i, i < 4 ? 52 : bits - 208);
        }
    }
    for (int i = 0; i < 5; i++) {
        a.d[i] = _mm512_loadu_si512(words[i]);
    }
    return a;
}

INLINE field f_load(const uint8_t *bytes, size_t left, unsigned bits) {
    return f_load_step(bytes, 32, left, bits);
}

static TARGET field f_load_big(const uint8_t *bytes, size_t step, size_t left) {
    uint8_t turned[8][32];
    for (size_t l = 0; l < 8; l++) {
        for (int i = 0; i < 32; i++) {
            turned[l][i] = bytes[(l < left ? l : left - 1) * step + 31 - (size_t)i];
        }
    }
    return fold(f_load_step(turned[0], 32, 8, 256));
}

INLINE field f_select(mask which, field yes, field no) {
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) {
        no.d[i] = _mm512_mask_mov_epi64(no.d[i], which, yes.d[i]);
    }
    return no;
}

/* Below p: two rounds bring it below 2^255, then a + 19 tells whether it reached p. */
INLINE field f_canon(field a) {
    a = fold(fold(a));
    field r = a;
    r.d[0] = _mm512_add_epi64(r.d[0], ALL_LANES(19));
    r = ripple(r);
    mask over = _mm512_test_epi64_mask(r.d[4], ALL_LANES(UINT64_C(1) << 47));
    r.d[4] = _mm512_and_si512(r.d[4], ALL_LANES(MASK47));
    return f_select(over, r, a);
}

/* of a number just loaded */
INLINE mask f_below_p(field a) {
    a.d[0] = _mm512_add_epi64(a.d[0], ALL_LANES(19));
    return _mm512_testn_epi64_mask(ripple(a).d[4], ALL_LANES(~MASK47));
}

INLINE mask f_odd(field a) {
    return _mm512_test_epi64_mask(a.d[0], ALL_LANES(1));
}

INLINE mask f_zero(field a) {
    lane any = _mm512_or_si512(_mm512_or_si512(_mm512_or_si512(a.d[0], a.d[1]), _mm512_or_si512(a.d[2], a.d[3])), a.d[4]);
    return _mm512_testn_epi64_mask(any, any);
}

static TARGET void f_store(uint8_t *out, size_t left, field a, mask top) {
    uint64_t words[5][8];
    for (int i = 0; i < 5; i++) {
        _mm512_storeu_si512(words[i], a.d[i]);
    }
    for (size_t l = 0; l < left; l++) {
        uint64_t w[4] = {words[0][l] | words[1][l] << 52, words[1][l] >> 12 | words[2][l] << 40,
                         words[2][l] >> 24 | words[3][l] << 28, words[3][l] >> 36 | words[4][l] << 16};
        w[3] |= (uint64_t)(top >> l & 1) << 63;
        memcpy(out + 32 * l, w, 32);
    }
}

INLINE mask m_equal(const uint8_t at[8], int value) {
    lane v = _mm512_cvtepu8_epi64(_mm_loadl_epi64((const __m128i *)at));
    return _mm512_cmpeq_epi64_mask(v, ALL_LANES(value));
}

INLINE mask m_and(mask a, mask b) {
    return a & b;
}

INLINE mask m_or(mask a, mask b) {
    return a | b;
}

INLINE mask m_xor(mask a, mask b) {
    return a ^ b;
}

INLINE mask m_not(mask a) {
    return (mask)~a;
}

INLINE mask m_never(void) {
    return 0;
}

INLINE unsigned m_any(mask a) {
    return a;
}

#include "group25519_algos.h"

const group25519 group25519_ifma = {"avx512ifma", hash, derive, valid, multiply_elements};
#else
typedef int group25519_ifma_is_not_built_here;
#endif
