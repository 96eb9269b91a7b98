/* Masks for any machine. AES is bit-sliced; see aes_slices.h. */
#define LANES 4
#include "masks_lanes.h"

typedef u64x2 slice;
#define HALVES 2
#define HALF(x, i) (x)[i]
#include "aes_slices.h"
#include "cpu.h"

static inline void aes_eight(slice rounds[11][8], uint64_t high, uint64_t low, uint32_t block[8][4]) {
    slice q[8];
    for (unsigned i = 0; i < 8; i++) {
        uint64_t word = low + i;
        block[i][0] = __builtin_bswap32((uint32_t)(high >> 32));
        block[i][1] = __builtin_bswap32((uint32_t)high);
        block[i][2] = __builtin_bswap32((uint32_t)(word >> 32));
        block[i][3] = __builtin_bswap32((uint32_t)word);
    }
    slice_in(q, block);
    for (int b = 0; b < 8; b++) {
        q[b] ^= rounds[0][b];
    }
    encrypt(q, rounds);
    slice_out(q, block);
}

static void aes(const mask_key *key, uint64_t high, uint64_t low, enum mask_op op, unsigned width, uint8_t *out,
                const uint8_t *in, size_t size) {
    slice rounds[11][8];
    uint32_t block[8][4];
    for (int r = 0; r < 11; r++) {
        for (int i = 0; i < 8; i++) {
            for (int c = 0; c < 4; c++) {
                block[i][c] = load32(key->rounds + 16 * r + 4 * c);
            }
        }
        slice_in(rounds[r], block);
    }
    for (size_t at = 0; at < size; at += 128) {
        aes_eight(rounds, high, low + at / 16, block);
        size_t pieces = size - at < 128 ? (size - at) / 16 : 8;
#define PIECES(o, w)                                          \
    for (size_t i = 0; i < pieces; i++) {                     \
        u32x4 stream;                                         \
        memcpy(&stream, block[i], 16);                        \
        combine(o, w, out + at + 16 * i, in + at + 16 * i, stream); \
    }
        FOR_OP(op, width, PIECES);
#undef PIECES
    }
    volatile uint64_t *gone = (volatile uint64_t *)rounds;
    for (size_t i = 0; i < sizeof rounds / 8; i++) {
        gone[i] = 0;
    }
}

static void chacha(const mask_key *key, uint32_t counter, enum mask_op op, unsigned width, uint8_t *out,
                   const uint8_t *in, size_t size) {
    for (size_t at = 0; at < size; at += 64 * LANES, counter += LANES) {
        size_t blocks = (size - at) / 64;
#define GROUP(o, w) chacha_group(key, counter, o, w, out + at, in + at, blocks)
        FOR_OP(op, width, GROUP);
#undef GROUP
    }
}

const mask_core mask_portable = {.name = "portable", .aes = aes, .chacha = chacha};

const mask_core *mask_core_of(const char *name) {
#ifdef HAVE_X86_MASKS
    if (!strcmp(name, mask_avx512.name)) {
        return cpu_can(CPU_VAES) ? &mask_avx512 : NULL;
    }
    if (!strcmp(name, mask_avx2.name)) {
        return cpu_can(CPU_AVX2_AES) ? &mask_avx2 : NULL;
    }
#endif
    return strcmp(name, mask_portable.name) ? NULL : &mask_portable;
}

void mask_key_init(mask_key *key, enum mask_cipher cipher, const uint8_t *secret, const uint8_t *nonce) {
    memset(key, 0, sizeof *key);
    key->cipher = cipher;
    if (cipher == MASK_AES128_CTR) {
        expand_key(key->rounds, secret);
        for (int i = 0; i < 8; i++) {
            key->high = key->high << 8 | nonce[i];
            key->low = key->low << 8 | nonce[8 + i];
        }
    } else {
        for (int i = 0; i < 8; i++) {
            key->words[i] = load32(secret + 4 * i);
        }
        for (int i = 0; i < 3; i++) {
            key->nonce[i] = load32(nonce + 4 * i);
        }
    }
}

/* Whole blocks from number `first` of the stream */
static void whole(const mask_core *core, const mask_key *key, uint64_t first, enum mask_op op, unsigned width,
                  uint8_t *out, const uint8_t *in, size_t size) {
    if (key->cipher == MASK_CHACHA20) {
        core->chacha(key, (uint32_t)first, op, width, out, in, size);
        return;
    }
    uint64_t low = key->low + first, high = key->high + (low < first);
    while (size) {
        /* up to where the low word of the counter runs over: 0 - low blocks, 2^64 where low is 0 */
        uint64_t room = 0 - low;
        size_t part = room && room < size / 16 ? (size_t)room * 16 : size;
        core->aes(key, high, low, op, width, out, in, part);
        low += part / 16;
        high += low == 0;
        out += part;
        in += part;
        size -= part;
    }
}

void mask_run(const mask_core *core, const mask_key *key, uint64_t start, enum mask_op op, unsigned width, uint8_t *out,
              const uint8_t *in, size_t size) {
    const size_t block = key->cipher == MASK_CHACHA20 ? 64 : 16;
    while (size) {
        size_t skip = (size_t)(start % block), part = size - size % block;
        if (skip || !part) {
            /* a part of a block: by way of a whole one */
            uint8_t piece[64] = {0};
            part = block - skip < size ? block - skip : size;
            memcpy(piece + skip, in, part);
            whole(core, key, start / block, op, width, piece, piece, block);
            memcpy(out, piece + skip, part);
            volatile uint8_t *gone = piece;
            for (size_t i = 0; i < sizeof piece; i++) {
                gone[i] = 0;
            }
        } else {
            whole(core, key, start / block, op, width, out, in, part);
        }
        start += part;
        out += part;
        in += part;
        size -= part;
    }
}
