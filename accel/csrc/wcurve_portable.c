/* P-256 and SM2 one point at a time in four limbs of 64 bits, R = 2^256; see accel/notes/wcurve.md. */
#include "mont.h"
#include "wcurve.h"

#ifndef __clang__
#pragma GCC optimize("O3")
#endif
#define TARGET
#define INLINE static inline __attribute__((always_inline))
#define LANES 1
#define PAIR 1
#define R2_WORDS r2_64
#define R2HI_WORDS r2hi_64

typedef unsigned __int128 wide;
/* Always below p, but for what f_load and f_limbs bring. */
typedef struct {
    uint64_t d[4];
} field;
typedef uint64_t mask; /* all ones or zero */

INLINE field f_select(mask which, field yes, field no) {
    for (int i = 0; i < 4; i++) {
        no.d[i] = (yes.d[i] & which) | (no.d[i] & ~which);
    }
    return no;
}

INLINE field f_limbs(const uint64_t w[4]) {
    return (field){{w[0], w[1], w[2], w[3]}};
}

INLINE field f_load(const uint8_t *bytes, size_t step, size_t left) {
    (void)step;
    (void)left;
    return (field){{wcurve_be64(bytes + 24), wcurve_be64(bytes + 16), wcurve_be64(bytes + 8), wcurve_be64(bytes)}};
}

INLINE void f_store(uint8_t *bytes, size_t step, size_t left, field a) {
    (void)step;
    (void)left;
    for (int i = 0; i < 32; i++) {
        bytes[i] = (uint8_t)(a.d[3 - i / 8] >> (56 - 8 * (i % 8)));
    }
}

INLINE mask m_equal(const uint8_t at[1], int value) {
    uint64_t differ = (uint64_t)(at[0] ^ value);
    return 0 - ((differ - 1) >> 63);
}

INLINE mask m_and(mask a, mask b) {
    return a & b;
}

INLINE mask m_xor(mask a, mask b) {
    return a ^ b;
}

INLINE mask m_not(mask a) {
    return ~a;
}

INLINE unsigned m_any(mask a) {
    return (unsigned)a & 1;
}

INLINE void m_store(uint8_t *flags, size_t left, mask a, mask b) {
    (void)left;
    flags[0] = (uint8_t)((a & 1) | (b & 2));
}

INLINE mask f_odd(field a) {
    return 0 - (a.d[0] & 1);
}

INLINE mask f_zero(field a) {
    uint64_t any = a.d[0] | a.d[1] | a.d[2] | a.d[3];
    return ((any | (0 - any)) >> 63) - 1;
}

INLINE field f_lookup(const field row[8], const uint8_t at[1]) {
    field r = row[0];
    for (int j = 1; j < 8; j++) {
        r = f_select(m_equal(at, j), row[j], r);
    }
    return r;
}

/* a + top 2^256 less p where that is not negative; below 2 p before */
INLINE field settle(field a, uint64_t top, const uint64_t p[4]) {
    field r;
    uint64_t borrow = wcurve_sub(r.d, a.d, p);
    return f_select(0 - (borrow & ~top & 1), a, r);
}

INLINE field plus(field a, field b, const uint64_t p[4]) {
    wide sum = 0;
    for (int i = 0; i < 4; i++) {
        sum += (wide)a.d[i] + b.d[i];
        a.d[i] = (uint64_t)sum;
        sum >>= 64;
    }
    return settle(a, (uint64_t)sum, p);
}

INLINE field minus(field a, field b, const uint64_t p[4]) {
    uint64_t borrow = wcurve_sub(a.d, a.d, b.d);
    wide sum = 0;
    for (int i = 0; i < 4; i++) {
        sum += (wide)a.d[i] + (p[i] & (0 - borrow));
        a.d[i] = (uint64_t)sum;
        sum >>= 64;
    }
    return a;
}

/* Both primes end in 64 ones: the factor of a step is the limb itself. a b < 2^256 p, so the sum is below 2 p. */
INLINE field product(field a, field b, const uint64_t p[4]) {
    uint64_t t[6] = {0};
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        wide c = 0;
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) {
            c += (wide)a.d[j] * b.d[i] + t[j];
            t[j] = (uint64_t)c;
            c >>= 64;
        }
        c += t[4];
        t[4] = (uint64_t)c;
        t[5] = (uint64_t)(c >> 64);
        uint64_t m = t[0];
        c = m; /* t[0] + m (2^64 - 1) = m 2^64 */
#pragma GCC unroll 3
        for (int j = 1; j < 4; j++) {
            c += (wide)m * p[j] + t[j];
            t[j - 1] = (uint64_t)c;
            c >>= 64;
        }
        c += t[4];
        t[3] = (uint64_t)c;
        t[4] = t[5] + (uint64_t)(c >> 64);
    }
    return settle((field){{t[0], t[1], t[2], t[3]}}, t[4], p);
}

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define CURVE_FN(name) JOIN(CURVE, name##_points)
#define f_mul(a, b) product(a, b, CURVE.p)
#define f_sqr(a) product_with_itself(a, CURVE.p)
#define f_canon(a) (a)
#define f_below_p(a) (0 - below((a).d, CURVE.p))
#define raw_add(a, b) plus(a, b, CURVE.p)
#define raw_sub(a, b) minus(a, b, CURVE.p)
#define ripple(a) (a)
#define weak(a) (a)
#define over(a) (a)

INLINE field product_with_itself(field a, const uint64_t p[4]) {
    return product(a, a, p);
}

INLINE uint64_t below(const uint64_t a[4], const uint64_t p[4]) {
    uint64_t t[4];
    return wcurve_sub(t, a, p);
}

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
