/* Groups over 2^255 - 19 in batches: hashing to curve25519 and edwards25519 (RFC 9380) and the ristretto255 group
 * (RFC 9496). Written once in group25519_algos.h. Branches and addresses depend on counts only; a result that says
 * whether inputs are valid says it of all together. Sources: the appendices and sections named at each formula. */
#ifndef INTERCONN_GROUP25519_H
#define INTERCONN_GROUP25519_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct {
    const char *core;
    /* `each` (1 or 2) field elements an output, 64 bytes big-endian (taken modulo p), through Elligator 2; their points
     * are added and the cofactor cleared. Out come 32 bytes: the u coordinate on curve25519 (RFC 7748), or with
     * `edwards` the encoding of RFC 8032. */
    void (*hash)(uint8_t *out, const uint8_t *elements, unsigned each, int edwards, size_t count);
    /* RFC 9496 section 4.3.4: 64 uniform bytes to the encoding of an element */
    void (*derive)(uint8_t *out, const uint8_t *uniform, size_t count);
    /* Whether every text is the one encoding of an element. */
    int (*valid)(const uint8_t *elements, size_t count);
    /* out[i] = scalar * element[i], scalars of 32 bytes little-endian, any value, `step` bytes from each other (0: one
     * for all); back comes whether all were encodings, else out means nothing */
    int (*multiply)(uint8_t *out, const uint8_t *scalars, size_t step, const uint8_t *elements, size_t count);
} group25519;

extern const group25519 group25519_ifma, group25519_portable;

#define W(a, b, c, d) {UINT64_C(a), UINT64_C(b), UINT64_C(c), UINT64_C(d)}
static const uint64_t
    C_ZERO[4] = {0}, C_ONE[4] = {1}, C_A[4] = {486662},
    C_D[4] = W(0x75eb4dca135978a3, 0x00700a4d4141d8ab, 0x8cc740797779e898, 0x52036cee2b6ffe73),
    C_2D[4] = W(0xebd69b9426b2f159, 0x00e0149a8283b156, 0x198e80f2eef3d130, 0x2406d9dc56dffce7),
    /* square root of -1, even */
    C_I[4] = W(0xc4ee1b274a0ea0b0, 0x2f431806ad2fe478, 0x2b4d00993dfbd7a7, 0x2b8324804fc1df0b),
    /* 2^((p + 3) / 8) */
    C_2ROOT[4] = W(0xc4ee1b274a0ea0b1, 0x2f431806ad2fe478, 0x2b4d00993dfbd7a7, 0x2b8324804fc1df0b),
    /* square root of -486664, even */
    C_ROOT[4] = W(0xcc6e04aaff457e06, 0xc5a1d3d14b7d1a82, 0xd27b08dc03fc4f7e, 0x0f26edf460a006bb),
    /* RFC 9496 section 4.1 */
    C_ONE_MINUS_D_SQ[4] = W(0xe27c09c1945fc176, 0x2c81a138cd5e350f, 0x9994abddbe70dfe4, 0x029072a8b2b3e0d7),
    C_D_MINUS_ONE_SQ[4] = W(0x31ad5aaa44ed4d20, 0xd29e4a2cb01e1999, 0x4cdcd32f529b4eeb, 0x5968b37af66c2241),
    C_SQRT_AD_MINUS_ONE[4] = W(0x7e97f6a0497b2e1b, 0xaf9d8e0c1b7854bd, 0x0f3cfcc931f5d1fd, 0x376931bf2b8348ac),
    C_INVSQRT_A_MINUS_D[4] = W(0x99c8fdaa805d40ea, 0x9d2f16175a4172be, 0x16c27b91fe01d840, 0x786c8905cfaffca2);
#undef W

#endif
