/* A yes or no for cores that compute with one element at a time, as wcurve_algos.h and group25519_algos.h ask for it.
 * For inclusion behind `field`, which has digits d of 64 bits. */
#ifndef INTERCONN_SCALAR_MASKS_H
#define INTERCONN_SCALAR_MASKS_H

#include <stddef.h>
#include <stdint.h>

#define TARGET
#define INLINE static inline __attribute__((always_inline))
#define LANES 1

typedef uint64_t mask; /* all ones or zero */

INLINE mask m_equal(const uint8_t at[1], int value) {
    uint64_t differ = (uint64_t)(at[0] ^ value);
    return 0 - ((differ - 1) >> 63);
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
    return ~a;
}

INLINE mask m_never(void) {
    return 0;
}

INLINE unsigned m_any(mask a) {
    return (unsigned)a & 1;
}

INLINE void m_store(uint8_t *flags, size_t left, mask a, mask b) {
    (void)left;
    flags[0] = (uint8_t)((a & 1) | (b & 2));
}

#define DIGITS ((int)(sizeof(field) / sizeof(uint64_t)))

INLINE field f_select(mask which, field yes, field no) {
#pragma GCC unroll 5
    for (int i = 0; i < DIGITS; i++) {
        no.d[i] ^= (yes.d[i] ^ no.d[i]) & which;
    }
    return no;
}

INLINE mask f_odd(field a) {
    return 0 - (a.d[0] & 1);
}

/* Of a number below the prime */
INLINE mask f_zero(field a) {
    uint64_t any = 0;
    for (int i = 0; i < DIGITS; i++) {
        any |= a.d[i];
    }
    return ((any | (0 - any)) >> 63) - 1;
}

/* Every entry is read. */
INLINE field f_lookup(const field row[8], const uint8_t at[1]) {
    field r = row[0];
#pragma GCC unroll 7
    for (int j = 1; j < 8; j++) {
        r = f_select(m_equal(at, j), row[j], r);
    }
    return r;
}

#endif
