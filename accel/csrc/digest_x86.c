/* SHA-256 and SM3 of sixteen texts in AVX-512 lanes; SHA-256 by the CPU's own rounds. Chosen at run time. */
#include "digest.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

#define LANE_TARGET __attribute__((target("avx512f,avx512bw,avx512vl")))
#define TARGET LANE_TARGET
#define WORD __m512i
#define PLUS(a, b) _mm512_add_epi32((a), (b))
#define XOR(a, b) _mm512_xor_si512((a), (b))
#define XOR3(a, b, c) _mm512_ternarylogic_epi32((a), (b), (c), 0x96)
#define ROTL(a, n) _mm512_rol_epi32((a), (n))
#define SHR(a, n) _mm512_srli_epi32((a), (n))
#define CH(e, f, g) _mm512_ternarylogic_epi32((e), (f), (g), 0xCA)
#define MAJ(a, b, c) _mm512_ternarylogic_epi32((a), (b), (c), 0xE8)
#define ALL(k) _mm512_set1_epi32((int)(k))
#define ROUNDS_FN(name) many_##name
#include "digest_rounds.h"

/* Word i of sixteen blocks in register i, from block i in register i */
static TARGET void transpose(__m512i r[16]) {
    __m512i t[16];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
        r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
        r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
        r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_i32x4(r[i], r[4 + i], 0x88);
        t[4 + i] = _mm512_shuffle_i32x4(r[i], r[4 + i], 0xDD);
        t[8 + i] = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0x88);
        t[12 + i] = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0xDD);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        r[i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0x88);
        r[8 + i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0xDD);
        r[4 + i] = _mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0x88);
        r[12 + i] = _mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0xDD);
    }
}

static const uint32_t IV[2][8] = {
    {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19},
    {0x7380166f, 0x4914b2b9, 0x172442d7, 0xda8a0600, 0xa96f30bc, 0x163138aa, 0xe38dee4d, 0xb0fb0e4e},
};

/* What follows the last whole block of a text: padding and its length; back comes whether it fills two blocks. */
static int pad(uint8_t tail[128], const uint8_t *text, size_t length) {
    size_t rest = length % 64;
    memset(tail, 0, 128);
    if (rest) {
        memcpy(tail, text + length - rest, rest);
    }
    tail[rest] = 0x80;
    int two = rest >= 56;
    uint64_t bits = __builtin_bswap64((uint64_t)length << 3);
    memcpy(tail + (two ? 120 : 56), &bits, 8);
    return two;
}

static inline __attribute__((always_inline)) TARGET void many(int algorithm, uint8_t *out, const uint8_t *data,
                                                              const int64_t *offsets, size_t count) {
    static const uint8_t swap[16] = {3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12};
    const __m512i big = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)swap));
    uint8_t tail[16][128];
    for (size_t at = 0; at < count; at += 16) {
        size_t left = count - at < 16 ? count - at : 16, whole[16], blocks[16], most = 0;
        for (size_t l = 0; l < 16; l++) {
            size_t i = at + (l < left ? l : left - 1), length = (size_t)(offsets[i + 1] - offsets[i]);
            whole[l] = length / 64;
            blocks[l] = whole[l] + 1 + (size_t)pad(tail[l], data + offsets[i], length);
            most = blocks[l] > most ? blocks[l] : most;
        }
        __m512i s[8];
        for (int i = 0; i < 8; i++) {
            s[i] = ALL(IV[algorithm == DIGEST_SM3][i]);
        }
        for (size_t b = 0; b < most; b++) {
            __m512i w[16], next[8];
            __mmask16 busy = 0;
            for (size_t l = 0; l < 16; l++) {
                size_t i = at + (l < left ? l : left - 1), over = b < whole[l] ? 0 : b - whole[l];
                const uint8_t *block = b < whole[l] ? data + offsets[i] + 64 * b : tail[l] + 64 * (over & 1);
                w[l] = _mm512_shuffle_epi8(_mm512_loadu_si512(block), big);
                busy = (__mmask16)(busy | (unsigned)(b < blocks[l]) << l);
            }
            transpose(w);
            memcpy(next, s, sizeof s);
            if (algorithm == DIGEST_SM3) {
                many_sm3(next, w);
            } else {
                many_sha256(next, w);
            }
            for (int i = 0; i < 8; i++) {
                s[i] = _mm512_mask_mov_epi32(s[i], busy, next[i]);
            }
        }
        uint32_t words[8][16];
        for (int i = 0; i < 8; i++) {
            _mm512_storeu_si512(words[i], s[i]);
        }
        for (size_t l = 0; l < left; l++) {
            for (int i = 0; i < 8; i++) {
                uint32_t word = __builtin_bswap32(words[i][l]);
                memcpy(out + 32 * (at + l) + 4 * i, &word, 4);
            }
        }
    }
}

TARGET void digest_avx512(int algorithm, uint8_t *out, const uint8_t *data, const int64_t *offsets, size_t count) {
    if (algorithm == DIGEST_SM3) {
        many(DIGEST_SM3, out, data, offsets, count);
    } else {
        many(DIGEST_SHA256, out, data, offsets, count);
    }
}

#define NI __attribute__((target("sha,sse4.1,ssse3")))

static NI void ni_block(__m128i *abef, __m128i *cdgh, const uint8_t *block) {
    const __m128i big = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
    __m128i save0 = *abef, save1 = *cdgh, s0 = save0, s1 = save1, w[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        w[i] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(block + 16 * i)), big);
    }
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) {
        __m128i k = _mm_add_epi32(w[i & 3], _mm_loadu_si128((const __m128i *)(many_k + 4 * i)));
        s1 = _mm_sha256rnds2_epu32(s1, s0, k);
        s0 = _mm_sha256rnds2_epu32(s0, s1, _mm_shuffle_epi32(k, 0x0E));
        if (i < 12) {
            __m128i t = _mm_sha256msg1_epu32(w[i & 3], w[(i + 1) & 3]);
            t = _mm_add_epi32(t, _mm_alignr_epi8(w[(i + 3) & 3], w[(i + 2) & 3], 4));
            w[i & 3] = _mm_sha256msg2_epu32(t, w[(i + 3) & 3]);
        }
    }
    *abef = _mm_add_epi32(s0, save0);
    *cdgh = _mm_add_epi32(s1, save1);
}

NI void digest_shani(int algorithm, uint8_t *out, const uint8_t *data, const int64_t *offsets, size_t count) {
    const uint32_t *v = IV[0];
    (void)algorithm;
    for (size_t i = 0; i < count; i++) {
        const uint8_t *text = data + offsets[i];
        size_t length = (size_t)(offsets[i + 1] - offsets[i]);
        uint8_t tail[128];
        int two = pad(tail, text, length);
        __m128i abef = _mm_set_epi32((int)v[0], (int)v[1], (int)v[4], (int)v[5]);
        __m128i cdgh = _mm_set_epi32((int)v[2], (int)v[3], (int)v[6], (int)v[7]);
        for (size_t b = 0; b < length / 64; b++) {
            ni_block(&abef, &cdgh, text + 64 * b);
        }
        for (int b = 0; b <= two; b++) {
            ni_block(&abef, &cdgh, tail + 64 * b);
        }
        uint32_t x[4], y[4];
        _mm_storeu_si128((__m128i *)x, abef);
        _mm_storeu_si128((__m128i *)y, cdgh);
        const uint32_t order[8] = {x[3], x[2], y[3], y[2], x[1], x[0], y[1], y[0]};
        for (int j = 0; j < 8; j++) {
            uint32_t word = __builtin_bswap32(order[j]);
            memcpy(out + 32 * i + 4 * (size_t)j, &word, 4);
        }
    }
}
#else
typedef int digest_x86_is_not_built_here;
#endif
