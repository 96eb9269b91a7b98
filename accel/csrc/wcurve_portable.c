/* P-256 and SM2 one point at a time in plain C: five digits of 52 bits, R = 2^260, with the bounds of the lanes; see
 * accel/notes/wcurve.md. */
#include "mont.h"
#include "wcurve.h"

#ifndef __clang__
#pragma GCC optimize("O3")
#endif
#define PAIR 1
#define MASK52 ((UINT64_C(1) << 52) - 1)
#define FIVE_TIMES _Pragma("GCC unroll 5") for

typedef __int128 wide;
typedef struct {
    uint64_t d[5]; /* signed before ripple */
} field;

#include "scalar_masks.h"

INLINE field raw_add(field a, field b) {
    FIVE_TIMES (int i = 0; i < 5; i++) {
        a.d[i] += b.d[i];
    }
    return a;
}

INLINE field raw_sub(field a, field b) {
    FIVE_TIMES (int i = 0; i < 5; i++) {
        a.d[i] -= b.d[i];
    }
    return a;
}

/* Floor, for numbers that may be negative */
INLINE uint64_t above(uint64_t a, int bits) {
    return (uint64_t)((int64_t)a >> bits);
}

/* Carries of signed digits; the value is not negative. */
INLINE field ripple(field a) {
    FIVE_TIMES (int i = 0; i < 4; i++) {
        a.d[i + 1] += above(a.d[i], 52);
        a.d[i] &= MASK52;
    }
    return a;
}

INLINE field f_limbs(const uint64_t w[4]) {
    return (field){{w[0] & MASK52, (w[0] >> 52 | w[1] << 12) & MASK52, (w[1] >> 40 | w[2] << 24) & MASK52,
                    (w[2] >> 28 | w[3] << 36) & MASK52, w[3] >> 16}};
}

INLINE field f_load(const uint8_t *bytes, size_t step, size_t left) {
    const uint64_t w[4] = {wcurve_be64(bytes + 24), wcurve_be64(bytes + 16), wcurve_be64(bytes + 8), wcurve_be64(bytes)};
    (void)step;
    (void)left;
    return f_limbs(w);
}

/* A canonical number */
INLINE void f_store(uint8_t *bytes, size_t step, size_t left, field a) {
    const uint64_t w[4] = {a.d[0] | a.d[1] << 52, a.d[1] >> 12 | a.d[2] << 40, a.d[2] >> 24 | a.d[3] << 28,
                           a.d[3] >> 36 | a.d[4] << 16};
    (void)step;
    (void)left;
    for (int i = 0; i < 32; i++) {
        bytes[i] = (uint8_t)(w[3 - i / 8] >> (56 - 8 * (i % 8)));
    }
}

INLINE wide times(uint64_t a, uint64_t b) {
    return (wide)((unsigned __int128)a * b);
}

INLINE void products(field a, field b, wide z[10]) {
    FIVE_TIMES (int k = 0; k < 5; k++) {
        z[k] = z[k + 5] = 0;
        FIVE_TIMES (int i = 0; i < 5; i++) {
            if (i <= k) {
                z[k] += times(a.d[i], b.d[k - i]);
            } else {
                z[k + 5] += times(a.d[i], b.d[k + 5 - i]);
            }
        }
    }
}

INLINE void squares(field a, wide z[10]) {
    const uint64_t a0 = 2 * a.d[0], a1 = 2 * a.d[1], a2 = 2 * a.d[2], a3 = 2 * a.d[3];
    z[0] = times(a.d[0], a.d[0]);
    z[1] = times(a0, a.d[1]);
    z[2] = times(a0, a.d[2]) + times(a.d[1], a.d[1]);
    z[3] = times(a0, a.d[3]) + times(a1, a.d[2]);
    z[4] = times(a0, a.d[4]) + times(a1, a.d[3]) + times(a.d[2], a.d[2]);
    z[5] = times(a1, a.d[4]) + times(a2, a.d[3]);
    z[6] = times(a2, a.d[4]) + times(a.d[3], a.d[3]);
    z[7] = times(a3, a.d[4]);
    z[8] = times(a.d[4], a.d[4]);
    z[9] = 0;
}

INLINE field carried(const wide z[5]) {
    field r;
    wide rest = 0;
    FIVE_TIMES (int i = 0; i < 5; i++) {
        rest += z[i];
        r.d[i] = i < 4 ? (uint64_t)rest & MASK52 : (uint64_t)rest;
        rest >>= 52;
    }
    return r;
}

/* Both primes end in 52 ones, so the factor of a step is its digit itself, and m p = m (p + 1) - m clears the digit:
 * what is added are the digits 1 to 4 of p + 1, here 2^48 - 2^16 for the fourth and what `others` adds. */
#define REDUCE(others)                                                                                                 \
    FIVE_TIMES (int i = 0; i < 5; i++) {                                                                               \
        const uint64_t m = (uint64_t)z[i] & MASK52;                                                                    \
        z[i + 1] += z[i] >> 52;                                                                                        \
        others;                                                                                                        \
        z[i + 4] += times(m, (UINT64_C(1) << 48) - (1 << 16));                                                         \
    }                                                                                                                  \
    return carried(z + 5);

/* What is above 2^256 (q times it, q small and signed) comes back as q (2^256 - p); its estimate falls short by enough
 * to keep the rest positive. */
INLINE uint64_t take_top(field *a) {
    uint64_t q = above(a->d[4] - (1 << 21), 48);
    a->d[4] += (q << 16) - (q << 48);
    a->d[0] += q;
    return q;
}

#define COMMON(c)                                                                                                      \
    INLINE field c##_mul(field a, field b) {                                                                           \
        wide z[10];                                                                                                    \
        products(a, b, z);                                                                                             \
        return c##_reduce(z);                                                                                          \
    }                                                                                                                  \
    INLINE field c##_sqr(field a) {                                                                                    \
        wide z[10];                                                                                                    \
        squares(a, z);                                                                                                 \
        return c##_reduce(z);                                                                                          \
    }                                                                                                                  \
    INLINE field c##_over(field a) {                                                                                   \
        field p = f_limbs(c.p);                                                                                        \
        return raw_add(a, raw_add(p, p));                                                                              \
    }                                                                                                                  \
    INLINE mask c##_below_p(field a) {                                                                                 \
        return above(ripple(raw_sub(a, f_limbs(c.p))).d[4], 63);                                                       \
    }                                                                                                                  \
    /* below p, from below 2 p */                                                                                      \
    INLINE field c##_canon(field a) {                                                                                  \
        field r = ripple(raw_sub(a, f_limbs(c.p)));                                                                    \
        return f_select(above(r.d[4], 63), a, r);                                                                      \
    }

INLINE field P256_reduce(wide z[10]) {
    REDUCE(z[i + 1] += times(m, UINT64_C(1) << 44); z[i + 3] += times(m, UINT64_C(1) << 36))
}

INLINE field P256_weak(field a) {
    uint64_t q = take_top(&a); /* 2^256 - p = 2^224 - 2^192 - 2^96 + 1 */
    a.d[1] -= q << 44;
    a.d[3] -= q << 36;
    return ripple(a);
}

INLINE field SM2_reduce(wide z[10]) {
    REDUCE(z[i + 1] -= times(m, (UINT64_C(1) << 44) - (1 << 12)))
}

INLINE field SM2_weak(field a) {
    uint64_t q = take_top(&a); /* 2^256 - p = 2^224 + 2^96 - 2^64 + 1 */
    a.d[1] += (q << 44) - (q << 12);
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
    {"portable", title, c##_check_points, c##_multiply_points, c##_multiply_base_points, c##_lift_points,              \
     c##_map_points}
const wcurve wcurve_portable[2] = {ENTRY(P256, "p256"), ENTRY(SM2, "sm2")};
