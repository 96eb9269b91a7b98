/* Masks with the AES instructions of any x86-64 of the last ten years, and ChaCha20 on eight lanes. */
#include "masks.h"

#ifdef HAVE_X86_MASKS
#include <immintrin.h>

#define LANES 8
#define TARGET __attribute__((target("avx2,aes")))
#include "masks_lanes.h"

#define TOGETHER 8 /* blocks in flight, which hides the latency of a round */

INLINE void aes_body(const mask_key *key, uint64_t high, uint64_t low, enum mask_op op, unsigned width, uint8_t *out,
                     const uint8_t *in, size_t size) {
    __m128i rounds[11];
    const __m128i reverse = _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for (int r = 0; r < 11; r++) {
        rounds[r] = _mm_loadu_si128((const __m128i *)(const void *)(key->rounds + 16 * r));
    }
    for (size_t at = 0; at < size; at += 16 * TOGETHER) {
        __m128i x[TOGETHER];
#pragma GCC unroll 8
        for (unsigned i = 0; i < TOGETHER; i++) {
            __m128i counter = _mm_set_epi64x((long long)high, (long long)(low + at / 16 + i));
            x[i] = _mm_xor_si128(_mm_shuffle_epi8(counter, reverse), rounds[0]);
        }
#pragma GCC unroll 9
        for (int r = 1; r < 10; r++) {
#pragma GCC unroll 8
            for (int i = 0; i < TOGETHER; i++) {
                x[i] = _mm_aesenc_si128(x[i], rounds[r]);
            }
        }
        size_t pieces = (size - at) / 16;
#pragma GCC unroll 8
        for (size_t i = 0; i < TOGETHER; i++) {
            if (i < pieces) {
                combine(op, width, out + at + 16 * i, in + at + 16 * i, (u32x4)_mm_aesenclast_si128(x[i], rounds[10]));
            }
        }
    }
}

static TARGET void aes(const mask_key *key, uint64_t high, uint64_t low, enum mask_op op, unsigned width, uint8_t *out,
                       const uint8_t *in, size_t size) {
#define BODY(o, w) aes_body(key, high, low, o, w, out, in, size)
    FOR_OP(op, width, BODY);
#undef BODY
}

static TARGET void chacha(const mask_key *key, uint32_t counter, enum mask_op op, unsigned width, uint8_t *out,
                          const uint8_t *in, size_t size) {
    for (size_t at = 0; at < size; at += 64 * LANES, counter += LANES) {
        size_t blocks = (size - at) / 64;
#define GROUP(o, w) chacha_group(key, counter, o, w, out + at, in + at, blocks)
        FOR_OP(op, width, GROUP);
#undef GROUP
    }
}

const mask_core mask_avx2 = {.name = "avx2", .aes = aes, .chacha = chacha};
#else
typedef int masks_avx2_is_not_built_here;
#endif
