/* AES-128-CTR laid over arrays, four blocks a thread, bit-sliced in eight words; see accel/notes/masks.md. */
#include "prelude.cuh"

typedef uint64_t slice;
#define HALVES 1
#define HALF(x, i) (x)
#include "../csrc/aes_slices.h"

/* 0 set, 1 add, 2 sub, 3 xor */
template <typename T> DEVICE static inline T met(uint32_t op, T value, T mask) {
    return (T)(op == 0 ? mask : op == 1 ? value + mask : op == 2 ? value - mask : value ^ mask);
}

/* The eleven round keys as slices, each in all four blocks of a word. For one thread. */
KERNEL(aes_round_keys, slice *rounds, const uint8_t *key) {
    uint8_t bytes[11 * 16];
    uint32_t block[4][4];
    slice q[8];
    if (place()) {
        return;
    }
    expand_key(bytes, key);
    for (int r = 0; r < 11; r++) {
        for (int i = 0; i < 4; i++) {
            for (int c = 0; c < 4; c++) {
                block[i][c] = load32(bytes + 16 * r + 4 * c);
            }
        }
        slice_in(q, block);
        for (int b = 0; b < 8; b++) {
            rounds[8 * r + b] = q[b];
        }
    }
}
EXPORT(aes_round_keys)

DEVICE static inline uint32_t swapped(uint32_t x) {
    return x >> 24 | (x >> 8 & 0xff00) | (x << 8 & 0xff0000) | x << 24;
}

/* `size` bytes of elements of `width` = 4, 8 or 16 bytes meet the stream from its byte `start` on, a multiple of width;
 * element e of block b is one of this thread's where the array reaches so far. (high, low): the nonce. out may be in. */
KERNEL(aes_ctr, uint8_t *out, const uint8_t *in, uint64_t size, uint32_t width, uint32_t op, uint64_t start,
       const slice *rounds, uint64_t high, uint64_t low) {
    const uint64_t first = start / 16 + 4 * place();
    if (first * 16 >= start + size) {
        return;
    }
    slice q[8];
    uint32_t block[4][4];
    for (uint32_t i = 0; i < 4; i++) {
        const uint64_t number = low + first + i, upper = high + (number < low);
        block[i][0] = swapped((uint32_t)(upper >> 32));
        block[i][1] = swapped((uint32_t)upper);
        block[i][2] = swapped((uint32_t)(number >> 32));
        block[i][3] = swapped((uint32_t)number);
    }
    slice_in(q, block);
    for (int b = 0; b < 8; b++) {
        q[b] ^= rounds[b];
    }
    encrypt(q, (slice (*)[8])rounds);
    slice_out(q, block);
    for (uint32_t i = 0; i < 4; i++) {
        for (uint32_t at = 0; at < 16; at += width) {
            const uint64_t from = (first + i) * 16 + at;
            if (from < start || from - start >= size) {
                continue;
            }
            uint8_t *to = out + (from - start);
            const uint8_t *value = in + (from - start);
            const uint64_t *words = (const uint64_t *)value;
            const uint64_t mask = (uint64_t)block[i][at / 4 | (width > 4)] << 32 | block[i][at / 4];
            if (width == 4) {
                *(uint32_t *)to = met(op, *(const uint32_t *)value, block[i][at / 4]);
            } else if (width == 8) {
                *(uint64_t *)to = met(op, words[0], mask);
            } else {
                const uint64_t upper = (uint64_t)block[i][3] << 32 | block[i][2];
                const wide met_both = met(op, (wide)words[1] << 64 | words[0], (wide)upper << 64 | mask);
                ((uint64_t *)to)[0] = (uint64_t)met_both;
                ((uint64_t *)to)[1] = (uint64_t)(met_both >> 64);
            }
        }
    }
}
EXPORT(aes_ctr)
