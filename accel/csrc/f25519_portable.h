/* Numbers modulo 2^255 - 19 in five limbs of 51 bits; see accel/notes/x25519.md. For inclusion by one source file each:
 * plain C, or accel/cuda, which defines DEVICE, NOINLINE and the integer types. */
#ifndef INTERCONN_F25519_PORTABLE_H
#define INTERCONN_F25519_PORTABLE_H

#ifndef DEVICE
#define DEVICE
#define NOINLINE
#define PRODUCT static inline __attribute__((always_inline))
#ifndef __clang__ /* which knows no such thing */
#pragma GCC optimize("O3")
#ifdef __x86_64__
/* A vector register that is loaded from limbs just stored one by one waits until they have left the store buffer. */
#pragma GCC target("general-regs-only")
#endif
#endif
#else
#define PRODUCT DEVICE static NOINLINE inline
#endif
#ifdef __CUDACC__
#define FIVE_TIMES _Pragma("unroll")
#else
#define FIVE_TIMES _Pragma("GCC unroll 5")
#endif
#define MASK51 ((UINT64_C(1) << 51) - 1)

typedef unsigned __int128 wide;
typedef struct {
    uint64_t d[5];
} field;

DEVICE static inline field add(field a, field b) {
    for (int i = 0; i < 5; i++) {
        a.d[i] += b.d[i];
    }
    return a;
}

/* a - b + 4 p, for b below 2^53 in every limb */
DEVICE static inline field sub(field a, field b) {
    const uint64_t middle = (UINT64_C(1) << 53) - 4;
    const uint64_t bias[5] = {(UINT64_C(1) << 53) - 76, middle, middle, middle, middle};
    for (int i = 0; i < 5; i++) {
        a.d[i] += bias[i] - b.d[i];
    }
    return a;
}

/* Of columns below 2^114.9; two chains of carries at once: from columns 0, 1, 2 to 3 and from 3, 4 to 0, 1 */
DEVICE static inline field carry(wide z[5]) {
    z[1] += (uint64_t)(z[0] >> 51);
    z[4] += (uint64_t)(z[3] >> 51);
    z[2] += (uint64_t)(z[1] >> 51);
    const wide low = (wide)(uint64_t)(z[4] >> 51) * 19 + ((uint64_t)z[0] & MASK51);
    const uint64_t third = ((uint64_t)z[3] & MASK51) + (uint64_t)(z[2] >> 51);
    return (field){{(uint64_t)low & MASK51, ((uint64_t)z[1] & MASK51) + (uint64_t)(low >> 51), (uint64_t)z[2] & MASK51,
                    third & MASK51, ((uint64_t)z[4] & MASK51) + (third >> 51)}};
}

PRODUCT field mul(field a, field b) {
    wide z[5];
    uint64_t b19[5];
    for (int i = 0; i < 5; i++) {
        b19[i] = 19 * b.d[i];
    }
    FIVE_TIMES
    for (int k = 0; k < 5; k++) {
        z[k] = 0;
        FIVE_TIMES
        for (int i = 0; i < 5; i++) {
            z[k] += (wide)a.d[i] * (i <= k ? b.d[k - i] : b19[k - i + 5]);
        }
    }
    return carry(z);
}

PRODUCT field sqr(field a) {
    const uint64_t a0 = 2 * a.d[0], a1 = 2 * a.d[1], a3 = 19 * a.d[3], a4 = 19 * a.d[4], a42 = 2 * a4;
    wide z[5] = {
        (wide)a.d[0] * a.d[0] + (wide)a42 * a.d[1] + (wide)(2 * a3) * a.d[2],
        (wide)a0 * a.d[1] + (wide)a42 * a.d[2] + (wide)a3 * a.d[3],
        (wide)a0 * a.d[2] + (wide)a.d[1] * a.d[1] + (wide)a42 * a.d[3],
        (wide)a0 * a.d[3] + (wide)a1 * a.d[2] + (wide)a4 * a.d[4],
        (wide)a0 * a.d[4] + (wide)a1 * a.d[3] + (wide)a.d[2] * a.d[2],
    };
    return carry(z);
}

DEVICE static inline field add_scaled(field a, field b) {
    wide z[5];
    for (int i = 0; i < 5; i++) {
        z[i] = (wide)b.d[i] * 121665 + a.d[i];
    }
    return carry(z);
}

DEVICE static NOINLINE field square_times(field a, int times) {
    while (times--) {
        a = sqr(a);
    }
    return a;
}

DEVICE static void pack(uint8_t out[32], field a) {
    for (int round = 0; round < 2; round++) {
        a.d[0] += 19 * (a.d[4] >> 51);
        a.d[4] &= MASK51;
        for (int i = 0; i < 4; i++) {
            a.d[i + 1] += a.d[i] >> 51;
            a.d[i] &= MASK51;
        }
    }
    field r;
    uint64_t rest = 19;
    for (int i = 0; i < 5; i++) {
        r.d[i] = a.d[i] + rest;
        rest = r.d[i] >> 51;
        r.d[i] &= MASK51;
    }
    /* a + 19 reached 2^255: then that less 2^255 is a - p */
    for (int i = 0; i < 5; i++) {
        a.d[i] = (r.d[i] & (0 - rest)) | (a.d[i] & ~(0 - rest));
    }
    uint64_t w[4] = {a.d[0] | a.d[1] << 51, a.d[1] >> 13 | a.d[2] << 38, a.d[2] >> 26 | a.d[3] << 25,
                     a.d[3] >> 39 | a.d[4] << 12};
    for (int i = 0; i < 32; i++) {
        out[i] = (uint8_t)(w[i / 8] >> (8 * (i % 8)));
    }
}

#endif
