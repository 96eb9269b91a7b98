/* X25519 (RFC 7748) on batches of points. See accel/notes/x25519.md. */
#ifndef INTERCONN_X25519_H
#define INTERCONN_X25519_H

#include <stddef.h>
#include <stdint.h>

/* out[i] = X25519(scalar, point[i]), 32 bytes each; scalars lie `step` bytes from each other (0: one for all) and are
 * clamped here. Branches and addresses depend on `count` only. out may be points. */
void x25519_portable(uint8_t *out, const uint8_t *scalars, size_t step, const uint8_t *points, size_t count);
void x25519_ifma(uint8_t *out, const uint8_t *scalars, size_t step, const uint8_t *points, size_t count);

#endif
