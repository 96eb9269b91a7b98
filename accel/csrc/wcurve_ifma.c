/* P-256 and SM2, eight points in AVX-512 lanes, five digits of 52 bits, R = 2^260; see accel/notes/wcurve.md. */
#include "mont.h"
#include "wcurve.h"

#ifdef HAVE_IFMA
#include "five_ifma.h"

#define LANES 8
#define PAIR 2

typedef __mmask8 mask;

INLINE field raw_add(field a, field b) {
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) {
        a.d[i] = _mm512_add_epi64(a.d[i], b.d[i]);
    }
    return a;
}

INLINE field raw_sub(field a, field b) {
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) {
        a.d[i] = _mm512_sub_epi64(a.d[i], b.d[i]);
    }
    return a;
}

/* Carries of signed digits; the value is not negative. */
INLINE field ripple(field a) {
    const lane low = ALL_LANES(MASK52);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        a.d[i + 1] = _mm512_add_epi64(a.d[i + 1], _mm512_srai_epi64(a.d[i], 52));
        a.d[i] = _mm512_and_si512(a.d[i], low);
    }
    return a;
}

INLINE field f_limbs(const uint64_t w[4]) {
    return (field){{ALL_LANES(w[0] & MASK52), ALL_LANES((w[0] >> 52 | w[1] << 12) & MASK52),
                    ALL_LANES((w[1] >> 40 | w[2] << 24) & MASK52), ALL_LANES((w[2] >> 28 | w[3] << 36) & MASK52),
                    ALL_LANES(w[3] >> 16)}};
}

/* Big-endian numbers `step` bytes from each other; what is left of eight is filled with the last. */
static TARGET field f_load(const uint8_t *bytes, size_t step, size_t left) {
    uint64_t words[5][8];
    for (size_t l = 0; l < 8; l++) {
        const uint8_t *at = bytes + (l < left ? l : left - 1) * step;
        uint64_t w0 = wcurve_be64(at + 24), w1 = wcurve_be64(at + 16), w2 = wcurve_be64(at + 8), w3 = wcurve_be64(at);
        words[0][l] = w0 & MASK52;
        words[1][l] = (w0 >> 52 | w1 << 12) & MASK52;
        words[2][l] = (w1 >> 40 | w2 << 24) & MASK52;
        words[3][l] = (w2 >> 28 | w3 << 36) & MASK52;
        words[4][l] = w3 >> 16;
    }
    field a;
    for (int i = 0; i < 5; i++) {
        a.d[i] = _mm512_loadu_si512(words[i]);
    }
    return a;
}

/* Canonical numbers, big-endian */
static TARGET void f_store(uint8_t *bytes, size_t step, size_t left, field a) {
    uint64_t words[5][8];
    for (int i = 0; i < 5; i++) {
        _mm512_storeu_si512(words[i], a.d[i]);
    }
    for (size_t l = 0; l < left; l++) {
        uint64_t w[4] = {words[0][l] | words[1][l] << 52, words[1][l] >> 12 | words[2][l] << 40,
                         words[2][l] >> 24 | words[3][l] << 28, words[3][l] >> 36 | words[4][l] << 16};
        for (int i = 0; i < 4; i++) {
            uint64_t big = __builtin_bswap64(w[3 - i]);
            memcpy(bytes + step * l + 8 * (size_t)i, &big, 8);
        }
    }
}

INLINE mask m_equal(const uint8_t at[8], int value) {
    lane v = _mm512_cvtepu8_epi64(_mm_loadl_epi64((const __m128i *)at));
    return _mm512_cmpeq_epi64_mask(v, ALL_LANES(value));
}

INLINE mask m_and(mask a, mask b) {
    return a & b;
}

INLINE mask m_xor(mask a, mask b) {
    return a ^ b;
}

INLINE mask m_not(mask a) {
    return (mask)~a;
}

INLINE unsigned m_any(mask a) {
    return a;
}

static inline void m_store(uint8_t *flags, size_t left, mask a, mask b) {
    for (size_t l = 0; l < left; l++) {
        flags[l] = (uint8_t)((a >> l & 1) | (b >> l & 1) << 1);
    }
}

INLINE field f_select(mask which, field yes, field no) {
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) {
        no.d[i] = _mm512_mask_mov_epi64(no.d[i], which, yes.d[i]);
    }
    return no;
}

INLINE mask f_odd(field a) {
    return _mm512_test_epi64_mask(a.d[0], ALL_LANES(1));
}

INLINE mask f_zero(field a) {
    lane any = _mm512_or_si512(_mm512_or_si512(_mm512_or_si512(a.d[0], a.d[1]), _mm512_or_si512(a.d[2], a.d[3])), a.d[4]);
    return _mm512_testn_epi64_mask(any, any);
}

/* Entry at[l] of eight for lane l: the index goes through a register, never an address */
INLINE field f_lookup(const field row[1], const uint8_t at[8]) {
    lane index = _mm512_cvtepu8_epi64(_mm_loadl_epi64((const __m128i *)at));
    field r;
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) {
        r.d[i] = _mm512_permutexvar_epi64(index, row[0].d[i]);
    }
    return r;
}

/* Both primes end in 52 ones, so the factor of a step is its digit itself, and m p = m (p + 1) - m clears the digit:
 * what is added are the digits 1 to 4 of p + 1. */
#define REDUCE(Q1, Q2, Q3, Q4)                                                                                         \
    const lane q[5] = {_mm512_setzero_si512(), ALL_LANES(Q1), ALL_LANES(Q2), ALL_LANES(Q3), ALL_LANES(Q4)};            \
    const uint64_t used[5] = {0, Q1, Q2, Q3, Q4};                                                                      \
    _Pragma("GCC unroll 5") for (int i = 0; i < 5; i++) {                                                              \
        lane m = _mm512_and_si512(z[i], ALL_LANES(MASK52));                                                            \
        z[i + 1] = _mm512_add_epi64(z[i + 1], _mm512_srli_epi64(z[i], 52));                                            \
        _Pragma("GCC unroll 4") for (int j = 1; j < 5; j++) {                                                          \
            if (used[j]) {                                                                                             \
                LO(z[i + j], m, q[j]);                                                                                 \
                HI(z[i + j + 1], m, q[j]);                                                                             \
            }                                                                                                          \
        }                                                                                                              \
    }                                                                                                                  \
    return ripple((field){{z[5], z[6], z[7], z[8], z[9]}});

/* What is above 2^256 (q times it, q small and signed) comes back as q (2^256 - p); its estimate falls short by enough
 * to keep the rest positive. */
INLINE lane take_top(field *a) {
    lane q = _mm512_srai_epi64(_mm512_sub_epi64(a->d[4], ALL_LANES(1 << 21)), 48);
    a->d[4] = _mm512_sub_epi64(a->d[4], _mm512_slli_epi64(q, 48));
    a->d[0] = _mm512_add_epi64(a->d[0], q);
    a->d[4] = _mm512_add_epi64(a->d[4], _mm512_slli_epi64(q, 16));
    return q;
}

#define COMMON(c)                                                                                                      \
    INLINE field c##_mul(field a, field b) {                                                                           \
        lane z[10];                                                                                                    \
        products(a, b, z);                                                                                             \
        return c##_reduce(z);                                                                                          \
    }                                                                                                                  \
    INLINE field c##_sqr(field a) {                                                                                    \
        lane z[10];                                                                                                    \
        squares(a, z);                                                                                                 \
        return c##_reduce(z);                                                                                          \
    }                                                                                                                  \
    INLINE field c##_over(field a) {                                                                                   \
        field p = f_limbs(c.p);                                                                                        \
        return raw_add(a, raw_add(p, p));                                                                              \
    }                                                                                                                  \
    /* below p, from below 2 p */                                                                                      \
    INLINE field c##_canon(field a) {                                                                                  \
        field r = ripple(raw_sub(a, f_limbs(c.p)));                                                                    \
        return f_select(_mm512_movepi64_mask(r.d[4]), a, r);                                                           \
    }                                                                                                                  \
    INLINE mask c##_below_p(field a) {                                                                                 \
        return _mm512_movepi64_mask(ripple(raw_sub(a, f_limbs(c.p))).d[4]);                                            \
    }

INLINE field P256_reduce(lane z[10]) {
    REDUCE(UINT64_C(1) << 44, UINT64_C(0), UINT64_C(1) << 36, (UINT64_C(1) << 48) - (1 << 16))
}

INLINE field P256_weak(field a) {
    lane q = take_top(&a); /* 2^256 - p = 2^224 - 2^192 - 2^96 + 1 */
    a.d[1] = _mm512_sub_epi64(a.d[1], _mm512_slli_epi64(q, 44));
    a.d[3] = _mm512_sub_epi64(a.d[3], _mm512_slli_epi64(q, 36));
    return ripple(a);
}

INLINE field SM2_reduce(lane z[10]) {
    REDUCE((UINT64_C(255) << 44) | (1 << 12), MASK52, MASK52, (UINT64_C(1) << 48) - (1 << 16) - 1)
}

INLINE field SM2_weak(field a) {
    lane q = take_top(&a); /* 2^256 - p = 2^224 + 2^96 - 2^64 + 1 */
    a.d[1] = _mm512_add_epi64(a.d[1], _mm512_sub_epi64(_mm512_slli_epi64(q, 44), _mm512_slli_epi64(q, 12)));
    return ripple(a);
}

COMMON(P256)
COMMON(SM2)

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define CURVE_FN(name) JOIN(CURVE, name##_points)
#define f_mul JOIN(CURVE, mul)
#define f_sqr JOIN(CURVE, sqr)
#define f_canon JOIN(CURVE, canon)
#define f_below_p JOIN(CURVE, below_p)
#define weak JOIN(CURVE, weak)
#define over JOIN(CURVE, over)

#define CURVE P256
#include "wcurve_algos.h"
#undef CURVE
#define CURVE SM2
#include "wcurve_algos.h"
#undef CURVE

#define ENTRY(c, title)                                                                                                \
    {"avx512ifma", title, c##_check_points, c##_multiply_points, c##_multiply_base_points, c##_lift_points,            \
     c##_map_points}
const wcurve wcurve_ifma[2] = {ENTRY(P256, "p256"), ENTRY(SM2, "sm2")};
#else
typedef int wcurve_ifma_is_not_built_here;
#endif
