/* Batches on the curves y^2 = x^3 - 3 x + b of prime order over 256-bit primes: P-256 and SM2. Written once in
 * wcurve_algos.h over the field of a core; see accel/notes/wcurve.md for formulae, exceptions and bounds.
 *
 * A point is 64 bytes, x then y, both big-endian and below p; 64 zero bytes are the point at infinity and come out only.
 * Scalars are 32 bytes, big-endian, any value: taken modulo the order. Branches and addresses depend on counts only. */
#ifndef INTERCONN_WCURVE_H
#define INTERCONN_WCURVE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define WCURVE_WINDOWS 64
#define WCURVE_ENTRIES 8

typedef struct {
    const char *core, *curve;
    /* Whether every input is a point: both coordinates below p, on the curve, not infinity. */
    int (*check)(const uint8_t *points, size_t count);
    /* out[i] = scalar * point[i]; scalars lie `step` bytes from each other (0: one for all); out may be points */
    void (*multiply)(uint8_t *out, const uint8_t *scalars, size_t step, const uint8_t *points, size_t count);
    /* out[i] = scalar[i] * G; table: the points (2 j + 1) 16^w G, w < 64, j < 8, j fastest */
    void (*multiply_base)(uint8_t *out, const uint8_t *scalars, const uint8_t *table, size_t count);
    /* x (32 bytes, taken modulo p) and the parity wanted of y (a byte, 0 or 1) to a point; flags: bit 0 set where x has
     * a point (else out holds x and a meaningless y), bit 1 where x was below p */
    void (*lift)(uint8_t *out, uint8_t *flags, const uint8_t *xs, const uint8_t *parities, size_t count);
    /* RFC 9380, simplified SWU: `each` (1 or 2) field elements an output, 64 bytes big-endian (taken modulo p), whose
     * points are added */
    void (*map)(uint8_t *out, const uint8_t *elements, unsigned each, size_t count);
} wcurve;

extern const wcurve wcurve_ifma[2], wcurve_portable[2];

/* p, order n, b, Z and sqrt(-Z) of the simplified SWU map (RFC 9380 section 8.2 for P-256; by its appendix H.2 for
 * SM2), and 2^520 and 2^776 modulo p: limbs, low first. */
typedef struct {
    uint64_t p[4], n[4], b[4], z[4], c2[4], r2[4], r2hi[4];
} wcurve_constants;

static const wcurve_constants P256 = {
    .p = {UINT64_C(0xffffffffffffffff), UINT64_C(0x00000000ffffffff), 0, UINT64_C(0xffffffff00000001)},
    .n = {UINT64_C(0xf3b9cac2fc632551), UINT64_C(0xbce6faada7179e84), UINT64_C(0xffffffffffffffff),
          UINT64_C(0xffffffff00000000)},
    .b = {UINT64_C(0x3bce3c3e27d2604b), UINT64_C(0x651d06b0cc53b0f6), UINT64_C(0xb3ebbd55769886bc),
          UINT64_C(0x5ac635d8aa3a93e7)},
    .z = {UINT64_C(0xfffffffffffffff5), UINT64_C(0x00000000ffffffff), 0, UINT64_C(0xffffffff00000001)}, /* -10 */
    .c2 = {UINT64_C(0x2ccd3427e433c47f), UINT64_C(0x7b8d1ff84c55d5b6), UINT64_C(0xc978fc675180aab2),
           UINT64_C(0xda538e3be1d89b99)},
    .r2 = {UINT64_C(0x0000000000000300), UINT64_C(0xfffffbffffffff00), UINT64_C(0xfffffffffffffeff),
           UINT64_C(0x000004fffffffdff)},
    .r2hi = {UINT64_C(0xfffffd0000000a00), UINT64_C(0xffffedfffffff7ff), UINT64_C(0x000005fffffffcff),
             UINT64_C(0x0000180000000100)},
};

static const wcurve_constants SM2 = {
    .p = {UINT64_C(0xffffffffffffffff), UINT64_C(0xffffffff00000000), UINT64_C(0xffffffffffffffff),
          UINT64_C(0xfffffffeffffffff)},
    .n = {UINT64_C(0x53bbf40939d54123), UINT64_C(0x7203df6b21c6052b), UINT64_C(0xffffffffffffffff),
          UINT64_C(0xfffffffeffffffff)},
    .b = {UINT64_C(0xddbcbd414d940e93), UINT64_C(0xf39789f515ab8f92), UINT64_C(0x4d5a9e4bcf6509a7),
          UINT64_C(0x28e9fa9e9d9f5e34)},
    .z = {UINT64_C(0xfffffffffffffff6), UINT64_C(0xffffffff00000000), UINT64_C(0xffffffffffffffff),
          UINT64_C(0xfffffffeffffffff)}, /* -9 */
    .c2 = {3, 0, 0, 0},
    .r2 = {UINT64_C(0x0000020000000300), UINT64_C(0x000002ffffffff00), UINT64_C(0x0000010000000100),
           UINT64_C(0x0000040000000200)},
    .r2hi = {UINT64_C(0x0000120000001600), UINT64_C(0x00000efffffff800), UINT64_C(0x00000a0000000c00),
             UINT64_C(0x00001b0000000900)},
};

static inline uint64_t wcurve_be64(const uint8_t *bytes) {
    uint64_t v = 0;
    for (int i = 0; i < 8; i++) {
        v = v << 8 | bytes[i];
    }
    return v;
}

/* t = a - b, back comes the borrow */
static inline uint64_t wcurve_sub(uint64_t t[4], const uint64_t a[4], const uint64_t b[4]) {
    uint64_t borrow = 0;
    for (int i = 0; i < 4; i++) {
        unsigned __int128 d = (unsigned __int128)a[i] - b[i] - borrow;
        t[i] = (uint64_t)d;
        borrow = (uint64_t)(d >> 64) & 1;
    }
    return borrow;
}

#endif
