/* X25519 one point at a time in five limbs of 51 bits; see accel/notes/x25519.md. */
#include "mont.h"
#include "x25519.h"

#include "x25519_ladder.h"

void x25519_portable(uint8_t *out, const uint8_t *scalars, size_t step, const uint8_t *points, size_t count) {
    uint8_t k[32];
    for (size_t at = 0; at < count; at++) {
        memcpy(k, scalars + at * step, 32);
        k[0] &= 248;
        k[31] = (uint8_t)((k[31] & 127) | 64);
        field u;
        for (unsigned i = 0; i < 5; i++) {
            u.d[i] = take_bits(points + 32 * at, 32, 51 * i, 51);
        }
        pack(out + 32 * at, ladder(k, u));
    }
    wipe(k, sizeof k);
}
