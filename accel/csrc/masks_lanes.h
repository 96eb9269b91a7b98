/* What the cores of masks share, written with the compiler's vector types: 16 bytes combined with the key stream, and
 * ChaCha20 on LANES blocks at once (LANES 4, 8 or 16 defined before inclusion for the latter). */
#include <string.h>

#include "masks.h"

#ifndef TARGET
#define TARGET
#endif
#define INLINE static inline __attribute__((always_inline)) TARGET

typedef uint32_t u32x4 __attribute__((vector_size(16)));
typedef uint64_t u64x2 __attribute__((vector_size(16)));
typedef uint32_t words __attribute__((vector_size(4 * LANES)));
typedef unsigned __int128 wide;

/* op and width are constants where this is inlined */
INLINE void combine(enum mask_op op, unsigned width, uint8_t *out, const uint8_t *in, u32x4 stream) {
    if (op == MASK_SET) {
        memcpy(out, &stream, 16);
    } else if (width == 16 && op != MASK_XOR) {
        wide x, s;
        memcpy(&x, in, 16);
        memcpy(&s, &stream, 16);
        x = op == MASK_ADD ? x + s : x - s;
        memcpy(out, &x, 16);
    } else if (width == 8) {
        u64x2 x, s = (u64x2)stream;
        memcpy(&x, in, 16);
        x = op == MASK_ADD ? x + s : op == MASK_SUB ? x - s : x ^ s;
        memcpy(out, &x, 16);
    } else {
        u32x4 x;
        memcpy(&x, in, 16);
        x = op == MASK_ADD ? x + stream : op == MASK_SUB ? x - stream : x ^ stream;
        memcpy(out, &x, 16);
    }
}

/* CALL(op, width) with both constant */
#define FOR_OP(op, width, CALL)                     \
    do {                                            \
        if ((op) == MASK_SET) {                     \
            CALL(MASK_SET, 4);                      \
        } else if ((op) == MASK_XOR) {              \
            CALL(MASK_XOR, 4);                      \
        } else if ((op) == MASK_ADD) {              \
            if ((width) == 4) {                     \
                CALL(MASK_ADD, 4);                  \
            } else if ((width) == 8) {              \
                CALL(MASK_ADD, 8);                  \
            } else {                                \
                CALL(MASK_ADD, 16);                 \
            }                                       \
        } else if ((width) == 4) {                  \
            CALL(MASK_SUB, 4);                      \
        } else if ((width) == 8) {                  \
            CALL(MASK_SUB, 8);                      \
        } else {                                    \
            CALL(MASK_SUB, 16);                     \
        }                                           \
    } while (0)

#define ROTATE(x, n) ((x) << (n) | (x) >> (32 - (n)))
#define QUARTER(a, b, c, d)                                    \
    do {                                                       \
        a += b, d ^= a, d = ROTATE(d, 16);                     \
        c += d, b ^= c, b = ROTATE(b, 12);                     \
        a += b, d ^= a, d = ROTATE(d, 8);                      \
        c += d, b ^= c, b = ROTATE(b, 7);                      \
    } while (0)

/* LANES blocks from `counter`: word w of block l is x[w][l] */
INLINE void chacha_blocks(const mask_key *key, uint32_t counter, words x[16]) {
    static const uint32_t sigma[4] = {0x61707865, 0x3320646e, 0x79622d32, 0x6b206574};
    words count;
    for (unsigned l = 0; l < LANES; l++) {
        count[l] = counter + l;
    }
#define START(w)                                                                                     \
    ((w) < 4    ? (words){0} + sigma[(w) & 3]                                                        \
     : (w) < 12 ? (words){0} + key->words[((w)-4) & 7]                                               \
     : (w) == 12 ? count                                                                             \
                 : (words){0} + key->nonce[(w) > 13 ? (w)-13 : 0])
#pragma GCC unroll 16
    for (int w = 0; w < 16; w++) {
        x[w] = START(w);
    }
    for (int round = 0; round < 10; round++) {
        QUARTER(x[0], x[4], x[8], x[12]);
        QUARTER(x[1], x[5], x[9], x[13]);
        QUARTER(x[2], x[6], x[10], x[14]);
        QUARTER(x[3], x[7], x[11], x[15]);
        QUARTER(x[0], x[5], x[10], x[15]);
        QUARTER(x[1], x[6], x[11], x[12]);
        QUARTER(x[2], x[7], x[8], x[13]);
        QUARTER(x[3], x[4], x[9], x[14]);
    }
#pragma GCC unroll 16
    for (int w = 0; w < 16; w++) {
        x[w] += START(w);
    }
#undef START
}

/* One group of LANES blocks, of which `blocks` count */
INLINE void chacha_group(const mask_key *key, uint32_t counter, enum mask_op op, unsigned width, uint8_t *out,
                         const uint8_t *in, size_t blocks) {
    words x[16];
    chacha_blocks(key, counter, x);
    for (unsigned g = 0; g < 4; g++) {
        uint32_t rows[4][LANES];
        memcpy(rows, x + 4 * g, sizeof rows);
        for (unsigned l = 0; l < LANES && l < blocks; l++) {
            u32x4 piece = {rows[0][l], rows[1][l], rows[2][l], rows[3][l]};
            combine(op, width, out + 64 * l + 16 * g, in + 64 * l + 16 * g, piece);
        }
    }
}
