/* Masks with four AES blocks in a register (VAES), and ChaCha20 on sixteen lanes. */
#include "masks.h"

#ifdef HAVE_X86_MASKS
#include <immintrin.h>

#define LANES 16
#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,vaes,avx2,aes")))
#include "masks_lanes.h"

#define TOGETHER 8 /* registers in flight, which hides the latency of a round */

/* As combine, on 64 bytes */
INLINE __m512i mixed(enum mask_op op, unsigned width, __m512i x, __m512i s) {
    if (op == MASK_SET) {
        return s;
    }
    if (op == MASK_XOR) {
        return _mm512_xor_si512(x, s);
    }
    if (width == 4) {
        return op == MASK_ADD ? _mm512_add_epi32(x, s) : _mm512_sub_epi32(x, s);
    }
    __m512i y = op == MASK_ADD ? _mm512_add_epi64(x, s) : _mm512_sub_epi64(x, s);
    if (width == 16) {
        /* the carry out of a low word, moved to its high word: plus or minus one by an all-ones word */
        __mmask8 over = op == MASK_ADD ? _mm512_cmplt_epu64_mask(y, s) : _mm512_cmplt_epu64_mask(x, s);
        over = (__mmask8)((unsigned)over << 1 & 0xaa);
        const __m512i ones = _mm512_set1_epi64(-1);
        y = op == MASK_ADD ? _mm512_mask_sub_epi64(y, over, y, ones) : _mm512_mask_add_epi64(y, over, y, ones);
    }
    return y;
}

INLINE void mix_at(enum mask_op op, unsigned width, uint8_t *out, const uint8_t *in, __m512i stream, size_t size) {
    if (size >= 64) {
        __m512i x = op == MASK_SET ? stream : _mm512_loadu_si512(in);
        _mm512_storeu_si512(out, mixed(op, width, x, stream));
    } else {
        __mmask64 here = ((__mmask64)1 << size) - 1;
        __m512i x = op == MASK_SET ? stream : _mm512_maskz_loadu_epi8(here, in);
        _mm512_mask_storeu_epi8(out, here, mixed(op, width, x, stream));
    }
}

INLINE void aes_body(const mask_key *key, uint64_t high, uint64_t low, enum mask_op op, unsigned width, uint8_t *out,
                     const uint8_t *in, size_t size) {
    __m512i rounds[11];
    const __m512i reverse = _mm512_broadcast_i32x4(_mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
    for (int r = 0; r < 11; r++) {
        rounds[r] = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(const void *)(key->rounds + 16 * r)));
    }
    const long long h = (long long)high;
    __m512i counter = _mm512_add_epi64(_mm512_set_epi64(h, (long long)low, h, (long long)low, h, (long long)low, h, (long long)low),
                                       _mm512_set_epi64(0, 3, 0, 2, 0, 1, 0, 0));
    const __m512i four = _mm512_set_epi64(0, 4, 0, 4, 0, 4, 0, 4);
    size_t at = 0;
    for (; at + 64 * TOGETHER <= size; at += 64 * TOGETHER) {
        __m512i x[TOGETHER];
#pragma GCC unroll 8
        for (int i = 0; i < TOGETHER; i++) {
            x[i] = _mm512_xor_si512(_mm512_shuffle_epi8(counter, reverse), rounds[0]);
            counter = _mm512_add_epi64(counter, four);
        }
#pragma GCC unroll 9
        for (int r = 1; r < 10; r++) {
#pragma GCC unroll 8
            for (int i = 0; i < TOGETHER; i++) {
                x[i] = _mm512_aesenc_epi128(x[i], rounds[r]);
            }
        }
#pragma GCC unroll 8
        for (size_t i = 0; i < TOGETHER; i++) {
            mix_at(op, width, out + at + 64 * i, in + at + 64 * i, _mm512_aesenclast_epi128(x[i], rounds[10]), 64);
        }
    }
    for (; at < size; at += 64) {
        __m512i x = _mm512_xor_si512(_mm512_shuffle_epi8(counter, reverse), rounds[0]);
        counter = _mm512_add_epi64(counter, four);
#pragma GCC unroll 9
        for (int r = 1; r < 10; r++) {
            x = _mm512_aesenc_epi128(x, rounds[r]);
        }
        mix_at(op, width, out + at, in + at, _mm512_aesenclast_epi128(x, rounds[10]), size - at);
    }
}

static TARGET void aes(const mask_key *key, uint64_t high, uint64_t low, enum mask_op op, unsigned width, uint8_t *out,
                       const uint8_t *in, size_t size) {
#define BODY(o, w) aes_body(key, high, low, o, w, out, in, size)
    FOR_OP(op, width, BODY);
#undef BODY
}

/* Sixteen words of sixteen blocks to one block a register */
INLINE void transpose(__m512i x[16]) {
    __m512i t[16];
#pragma GCC unroll 4
    for (int g = 0; g < 16; g += 4) {
        __m512i a = _mm512_unpacklo_epi32(x[g], x[g + 1]), b = _mm512_unpackhi_epi32(x[g], x[g + 1]);
        __m512i c = _mm512_unpacklo_epi32(x[g + 2], x[g + 3]), d = _mm512_unpackhi_epi32(x[g + 2], x[g + 3]);
        t[g] = _mm512_unpacklo_epi64(a, c);
        t[g + 1] = _mm512_unpackhi_epi64(a, c);
        t[g + 2] = _mm512_unpacklo_epi64(b, d);
        t[g + 3] = _mm512_unpackhi_epi64(b, d);
    }
    /* t[4 g + k], quarter q: words 4 g .. 4 g + 3 of block 4 q + k */
#pragma GCC unroll 4
    for (int k = 0; k < 4; k++) {
        __m512i a = _mm512_shuffle_i32x4(t[k], t[4 + k], 0x44), b = _mm512_shuffle_i32x4(t[8 + k], t[12 + k], 0x44);
        __m512i c = _mm512_shuffle_i32x4(t[k], t[4 + k], 0xee), d = _mm512_shuffle_i32x4(t[8 + k], t[12 + k], 0xee);
        x[k] = _mm512_shuffle_i32x4(a, b, 0x88);
        x[4 + k] = _mm512_shuffle_i32x4(a, b, 0xdd);
        x[8 + k] = _mm512_shuffle_i32x4(c, d, 0x88);
        x[12 + k] = _mm512_shuffle_i32x4(c, d, 0xdd);
    }
}

INLINE void chacha_body(const mask_key *key, uint32_t counter, enum mask_op op, unsigned width, uint8_t *out,
                        const uint8_t *in, size_t size) {
    for (size_t at = 0; at < size; at += 64 * LANES, counter += LANES) {
        words x[16];
        chacha_blocks(key, counter, x);
        transpose((__m512i *)x);
#pragma GCC unroll 16
        for (size_t l = 0; l < LANES; l++) {
            if (at + 64 * l < size) {
                mix_at(op, width, out + at + 64 * l, in + at + 64 * l, (__m512i)x[l], 64);
            }
        }
    }
}

static TARGET void chacha(const mask_key *key, uint32_t counter, enum mask_op op, unsigned width, uint8_t *out,
                          const uint8_t *in, size_t size) {
#define BODY(o, w) chacha_body(key, counter, o, w, out, in, size)
    FOR_OP(op, width, BODY);
#undef BODY
}

const mask_core mask_avx512 = {.name = "avx512ifma", .aes = aes, .chacha = chacha};
#else
typedef int masks_avx512_is_not_built_here;
#endif
