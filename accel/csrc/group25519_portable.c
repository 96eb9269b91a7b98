/* One element at a time; see group25519_algos.h. */
#include "group25519.h"
#include "mont.h"

#include "f25519_portable.h"
#include "scalar_masks.h"

typedef field number;
#define f_mul mul
#define f_mul_here mul
#define f_sqr sqr
#define f_sqr_here sqr

#define f_add add
#define f_sub sub

INLINE field f_limbs(const uint64_t w[4]) {
    return (field){{w[0] & MASK51, (w[0] >> 51 | w[1] << 13) & MASK51, (w[1] >> 38 | w[2] << 26) & MASK51,
                    (w[2] >> 25 | w[3] << 39) & MASK51, w[3] >> 12}};
}

/* With 256 bits the last limb has 52. */
INLINE field f_load_step(const uint8_t *bytes, size_t step, size_t left, unsigned bits) {
    field a;
    (void)step;
    (void)left;
    for (unsigned i = 0; i < 5; i++) {
        a.d[i] = take_bits(bytes, 32, 51 * i, i < 4 ? 51 : bits - 204);
    }
    return a;
}

INLINE field f_load(const uint8_t *bytes, size_t left, unsigned bits) {
    return f_load_step(bytes, 32, left, bits);
}

INLINE field f_load_big(const uint8_t *bytes, size_t step, size_t left) {
    uint8_t turned[32];
    for (int i = 0; i < 32; i++) {
        turned[i] = bytes[31 - i];
    }
    return f_load_step(turned, step, left, 256);
}

/* Below p; one pass of carries first brings limbs from 2^56 to 2^51 + 2^13 */
INLINE field f_canon(field a) {
    uint8_t bytes[32];
    wide z[5] = {a.d[0], a.d[1], a.d[2], a.d[3], a.d[4]};
    pack(bytes, carry(z));
    return f_load_step(bytes, 32, 1, 255);
}

INLINE mask f_below_p(field a) {
    uint64_t rest = 19;
    for (int i = 0; i < 5; i++) {
        rest = (a.d[i] + rest) >> 51;
    }
    return ((rest | (0 - rest)) >> 63) - 1;
}

INLINE void f_store(uint8_t *out, size_t left, field a, mask top) {
    (void)left;
    pack(out, a);
    out[31] |= (uint8_t)(top & 128);
}

static void squares_of(field *a, int times) {
    *a = square_times(*a, times);
}

#include "group25519_algos.h"

const group25519 group25519_portable = {"portable", hash, derive, valid, multiply_elements};
