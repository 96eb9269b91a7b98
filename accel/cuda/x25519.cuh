/* X25519, one point a thread: the ladder of the portable C core, constant in time; see accel/notes/x25519.md. */
#include "prelude.cuh"

#include "../csrc/x25519_ladder.h"

/* out[i] = scalars[i * step] times points[i], 32 bytes each; step 32, or 0 for one scalar */
KERNEL(x25519, uint8_t *out, const uint8_t *scalars, uint64_t step, const uint8_t *points, uint64_t count) {
    const uint64_t i = place();
    if (i >= count) {
        return;
    }
    uint8_t k[32];
    uint64_t w[4] = {0, 0, 0, 0};
    for (int j = 0; j < 32; j++) {
        k[j] = scalars[i * step + j];
        w[j / 8] |= (uint64_t)points[32 * i + j] << (8 * (j % 8));
    }
    k[0] &= 248;
    k[31] = (uint8_t)((k[31] & 127) | 64);
    const field u = {{w[0] & MASK51, (w[0] >> 51 | w[1] << 13) & MASK51, (w[1] >> 38 | w[2] << 26) & MASK51,
                      (w[2] >> 25 | w[3] << 39) & MASK51, w[3] >> 12 & MASK51}};
    pack(out + 32 * i, ladder(k, u));
}
EXPORT(x25519)
