/* Sixteen elements in AVX-512 lanes; see group25519_algos.h. */
#include "group25519.h"
#include "mont.h"

#ifdef HAVE_IFMA
#include "f25519_ifma.h"

/* Two registers' worth: a root or an inverse is one chain of squares, and two chains overlap. */
#define LANES 16
#define HALVES _Pragma("GCC unroll 2") for (int h = 0; h < 2; h++)

typedef struct {
    field half[2];
} number;

typedef __mmask16 mask;

INLINE __mmask8 m_half(mask which, int h) {
    return (__mmask8)(which >> (8 * h));
}

INLINE mask m_both(const __mmask8 of[2]) {
    return (mask)(of[0] | of[1] << 8);
}

INLINE number f_mul_here(number a, number b) {
    HALVES a.half[h] = product(settle(a.half[h]), settle(b.half[h]), 0);
    return a;
}

INLINE number f_sqr_here(number a) {
    HALVES a.half[h] = square(settle(a.half[h]), 0);
    return a;
}

static TARGET __attribute__((noinline)) number f_mul(number a, number b) {
    return f_mul_here(a, b);
}

static TARGET __attribute__((noinline)) number f_sqr(number a) {
    return f_sqr_here(a);
}

static TARGET __attribute__((noinline)) void squares_of(number *a, int times) {
    number r = *a;
    while (times--) {
        r = f_sqr_here(r);
    }
    *a = r;
}

INLINE number f_add(number a, number b) {
    HALVES a.half[h] = add(a.half[h], b.half[h]);
    return a;
}

INLINE number f_sub(number a, number b) {
    HALVES a.half[h] = sub(biased(a.half[h]), b.half[h]);
    return a;
}

INLINE number f_limbs(const uint64_t w[4]) {
    const field a = {{ALL_LANES(w[0] & MASK52), ALL_LANES((w[0] >> 52 | w[1] << 12) & MASK52),
                      ALL_LANES((w[1] >> 40 | w[2] << 24) & MASK52), ALL_LANES((w[2] >> 28 | w[3] << 36) & MASK52),
                      ALL_LANES(w[3] >> 16)}};
    return (number){{a, a}};
}

/* With 256 bits the last digit has 48. */
static TARGET number f_load_step(const uint8_t *bytes, size_t step, size_t left, unsigned bits) {
    uint64_t words[4][8];
    number a;
    HALVES {
        size_t from = 8 * (size_t)h < left ? 8 * (size_t)h : left - 1;
        load_words(words, bytes + from * step, step, left - from);
        a.half[h] = digits_of((const uint64_t(*)[8])words);
        a.half[h].d[4] = _mm512_and_si512(a.half[h].d[4], ALL_LANES((UINT64_C(1) << (bits - 208)) - 1));
    }
    return a;
}

INLINE number f_load(const uint8_t *bytes, size_t left, unsigned bits) {
    return f_load_step(bytes, 32, left, bits);
}

static TARGET number f_load_big(const uint8_t *bytes, size_t step, size_t left) {
    uint64_t turned[LANES][4];
    for (size_t l = 0; l < LANES; l++) {
        memcpy(turned[l], bytes + (l < left ? l : left - 1) * step, 32);
        for (int i = 0; i < 2; i++) {
            uint64_t w = __builtin_bswap64(turned[l][i]);
            turned[l][i] = __builtin_bswap64(turned[l][3 - i]);
            turned[l][3 - i] = w;
        }
    }
    return f_load_step((const uint8_t *)turned, 32, LANES, 256);
}

INLINE number f_select(mask which, number yes, number no) {
    HALVES no.half[h] = pick(m_half(which, h), yes.half[h], no.half[h]);
    return no;
}

INLINE number f_canon(number a) {
    HALVES a.half[h] = canon(a.half[h]);
    return a;
}

/* of a number just loaded */
INLINE mask f_below_p(number a) {
    __mmask8 r[2];
    HALVES r[h] = _mm512_testn_epi64_mask(plus_19(a.half[h]).d[4], ALL_LANES(~MASK47));
    return m_both(r);
}

/* of residues */
INLINE mask f_odd(number a) {
    __mmask8 r[2];
    HALVES r[h] = _mm512_test_epi64_mask(a.half[h].d[0], ALL_LANES(1));
    return m_both(r);
}

INLINE mask f_zero(number a) {
    __mmask8 r[2];
    HALVES r[h] = is_zero(a.half[h]);
    return m_both(r);
}

static TARGET void f_store(uint8_t *out, size_t left, number a, mask top) {
    HALVES {
        size_t from = 8 * (size_t)h;
        if (from < left) {
            store_residues(out + 32 * from, left - from < 8 ? left - from : 8, a.half[h], m_half(top, h));
        }
    }
}

INLINE mask m_equal(const uint8_t at[LANES], int value) {
    return _mm_cmpeq_epi8_mask(_mm_loadu_si128((const __m128i *)at), _mm_set1_epi8((char)value));
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
