/* Stands in for the compiler's <immintrin.h> where the kernels of accel/csrc are built for bench/ct/check.c: the AVX-512
 * and SHA intrinsics that they use, no others, in plain C. So the lanes run on any x86-64, and under valgrind, which knows
 * no AVX-512.
 *
 * What is data to the instruction is data here, without a branch: masks, blends, comparisons, and the index of a
 * permutation of registers, for which every entry is looked at. What is an address there is one here: loads and stores
 * read and write where they are told, and a masked one branches on its mask. So memcheck reports what the instruction
 * would give away.
 *
 * The functions' own targets are taken off them, or the compiler would still use AVX-512; what runs are SSSE3 and AES,
 * which every x86-64 of the last ten years has. */
#ifndef INTERCONN_EMULATED_IMMINTRIN_H
#define INTERCONN_EMULATED_IMMINTRIN_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <tmmintrin.h>
#include <wmmintrin.h>

#pragma GCC target("ssse3,aes")
#define EMULATED_LANES 1
#define target(features)
/* Nor are they inlined: a field operation is a thousand instructions here, which the compiler would take minutes over. */
#define always_inline noinline

#define EMULATE static inline __attribute__((__always_inline__, unused))
/* where the code would grow too much */
#define EMULATE_CALL static __attribute__((__noinline__, unused))

typedef long long __m512i __attribute__((vector_size(64), may_alias));
typedef uint8_t __mmask8;
typedef uint16_t __mmask16;
typedef uint64_t __mmask64;
typedef uint64_t emulated_u64 __attribute__((vector_size(64), may_alias));
typedef uint32_t emulated_u32 __attribute__((vector_size(64), may_alias));
#define U64(x) ((emulated_u64)(x))
#define U32(x) ((emulated_u32)(x))

static const emulated_u64 emulated_bit64 = {1, 2, 4, 8, 16, 32, 64, 128};
static const emulated_u32 emulated_bit32 = {1,      2,      4,      8,      1 << 4,  1 << 5,  1 << 6,  1 << 7,
                                            1 << 8, 1 << 9, 1 << 10, 1 << 11, 1 << 12, 1 << 13, 1 << 14, 1 << 15};

/* One bit a lane, from lanes of ones or zeros; and back */
EMULATE __mmask8 emulated_mask(__m512i yes) {
    emulated_u64 v = U64(yes) & emulated_bit64;
    return (__mmask8)(v[0] | v[1] | v[2] | v[3] | v[4] | v[5] | v[6] | v[7]);
}

EMULATE __m512i emulated_lanes(__mmask8 k) {
    return (__m512i)(((emulated_bit64 - emulated_bit64 + k) & emulated_bit64) == emulated_bit64);
}

EMULATE __m512i emulated_blend(__m512i no, __m512i which, __m512i yes) {
    return (no & ~which) | (yes & which);
}

EMULATE __m512i _mm512_setzero_si512(void) {
    return (__m512i){0};
}

EMULATE __m512i _mm512_set1_epi64(long long x) {
    return (__m512i){x, x, x, x, x, x, x, x};
}

EMULATE __m512i _mm512_set_epi64(long long h, long long g, long long f, long long e, long long d, long long c,
                                 long long b, long long a) {
    return (__m512i){a, b, c, d, e, f, g, h};
}

EMULATE __m512i _mm512_set1_epi32(int x) {
    return (__m512i)(U32((__m512i){0}) + (uint32_t)x);
}

EMULATE __m512i _mm512_broadcast_i32x4(__m128i x) {
    return (__m512i){x[0], x[1], x[0], x[1], x[0], x[1], x[0], x[1]};
}

EMULATE __m512i _mm512_cvtepu8_epi64(__m128i x) {
    __m512i r;
    for (int i = 0; i < 8; i++) {
        r[i] = x[0] >> (8 * i) & 255;
    }
    return r;
}

/* --- memory --- */

EMULATE __m512i _mm512_loadu_si512(const void *from) {
    __m512i x;
    memcpy(&x, from, sizeof x);
    return x;
}

EMULATE void _mm512_storeu_si512(void *to, __m512i x) {
    memcpy(to, &x, sizeof x);
}

/* The instruction faults where this stops. */
EMULATE void must_be_aligned(const void *at) {
    if ((uintptr_t)at % 64) {
        abort();
    }
}

EMULATE __m512i _mm512_load_si512(const void *from) {
    must_be_aligned(from);
    return _mm512_loadu_si512(from);
}

EMULATE void _mm512_store_si512(void *to, __m512i x) {
    must_be_aligned(to);
    _mm512_storeu_si512(to, x);
}

/* `size` bytes an element */
EMULATE void emulated_copy(void *to, const void *from, uint64_t mask, size_t size) {
    for (size_t i = 0; i < 64 / size; i++) {
        if (mask >> i & 1) {
            memcpy((uint8_t *)to + size * i, (const uint8_t *)from + size * i, size);
        }
    }
}

EMULATE __m512i _mm512_maskz_loadu_epi8(__mmask64 mask, const void *from) {
    __m512i x = {0};
    emulated_copy(&x, from, mask, 1);
    return x;
}

EMULATE void _mm512_mask_storeu_epi8(void *to, __mmask64 mask, __m512i x) {
    emulated_copy(to, &x, mask, 1);
}

EMULATE __m512i _mm512_maskz_loadu_epi64(__mmask8 mask, const void *from) {
    __m512i x = {0};
    emulated_copy(&x, from, mask, 8);
    return x;
}

EMULATE void _mm512_mask_storeu_epi64(void *to, __mmask8 mask, __m512i x) {
    emulated_copy(to, &x, mask, 8);
}

EMULATE void _mm512_mask_store_epi64(void *to, __mmask8 mask, __m512i x) {
    must_be_aligned(to);
    emulated_copy(to, &x, mask, 8);
}

/* --- arithmetic --- */

#define EMULATE_BINARY(name, part, operator)                                                                           \
    EMULATE __m512i _mm512_##name(__m512i x, __m512i y) {                                                              \
        return (__m512i)(part(x) operator part(y));                                                                    \
    }
EMULATE_BINARY(add_epi64, U64, +)
EMULATE_BINARY(sub_epi64, U64, -)
EMULATE_BINARY(add_epi32, U32, +)
EMULATE_BINARY(sub_epi32, U32, -)
EMULATE_BINARY(mullo_epi64, U64, *)
EMULATE_BINARY(and_si512, U64, &)
EMULATE_BINARY(or_si512, U64, |)
EMULATE_BINARY(xor_si512, U64, ^)

EMULATE __m512i _mm512_slli_epi64(__m512i x, unsigned bits) {
    return (__m512i)(U64(x) << bits);
}

EMULATE __m512i _mm512_srli_epi64(__m512i x, unsigned bits) {
    return (__m512i)(U64(x) >> bits);
}

EMULATE __m512i _mm512_srai_epi64(__m512i x, unsigned bits) {
    return x >> (int)bits;
}

EMULATE __m512i _mm512_srli_epi32(__m512i x, unsigned bits) {
    return (__m512i)(U32(x) >> bits);
}

EMULATE_CALL __m512i _mm512_rol_epi32(__m512i x, int bits) {
    return (__m512i)(U32(x) << bits | U32(x) >> (32 - bits));
}

#define EMULATE_MADD(name, half)                                                                                       \
    EMULATE_CALL __m512i _mm512_##name(__m512i sum, __m512i x, __m512i y) {                                            \
        const uint64_t low = (UINT64_C(1) << 52) - 1;                                                                  \
        for (int i = 0; i < 8; i++) {                                                                                  \
            unsigned __int128 product = (unsigned __int128)((uint64_t)x[i] & low) * ((uint64_t)y[i] & low);            \
            sum[i] = (long long)((uint64_t)sum[i] + (uint64_t)(half));                                                 \
        }                                                                                                              \
        return sum;                                                                                                    \
    }
EMULATE_MADD(madd52lo_epu64, product & low)
EMULATE_MADD(madd52hi_epu64, product >> 52)

EMULATE_CALL __m512i _mm512_ternarylogic_epi32(__m512i x, __m512i y, __m512i z, int table) {
    __m512i r = {0};
    for (int i = 0; i < 8; i++) {
        if (table >> i & 1) {
            r |= (i & 4 ? x : ~x) & (i & 2 ? y : ~y) & (i & 1 ? z : ~z);
        }
    }
    return r;
}

/* --- masks --- */

EMULATE __mmask8 _mm512_cmpeq_epi64_mask(__m512i x, __m512i y) {
    return emulated_mask((__m512i)(x == y));
}

EMULATE __mmask8 _mm512_cmplt_epu64_mask(__m512i x, __m512i y) {
    return emulated_mask((__m512i)(U64(x) < U64(y)));
}

EMULATE __mmask8 _mm512_test_epi64_mask(__m512i x, __m512i y) {
    return emulated_mask((__m512i)((x & y) != 0));
}

EMULATE __mmask8 _mm512_testn_epi64_mask(__m512i x, __m512i y) {
    return emulated_mask((__m512i)((x & y) == 0));
}

EMULATE __mmask8 _mm512_movepi64_mask(__m512i x) {
    return emulated_mask(x >> 63);
}

EMULATE __m512i _mm512_mask_mov_epi64(__m512i no, __mmask8 k, __m512i yes) {
    return emulated_blend(no, emulated_lanes(k), yes);
}

EMULATE __m512i _mm512_maskz_mov_epi64(__mmask8 k, __m512i yes) {
    return emulated_lanes(k) & yes;
}

EMULATE __m512i _mm512_mask_or_epi64(__m512i no, __mmask8 k, __m512i x, __m512i y) {
    return _mm512_mask_mov_epi64(no, k, x | y);
}

EMULATE __mmask16 _mm_cmpeq_epi8_mask(__m128i x, __m128i y) {
    return (__mmask16)_mm_movemask_epi8(_mm_cmpeq_epi8(x, y));
}

EMULATE __m512i _mm512_mask_mov_epi32(__m512i no, __mmask16 k, __m512i yes) {
    emulated_u32 which = emulated_bit32 - emulated_bit32 + k;
    return emulated_blend(no, (__m512i)((which & emulated_bit32) == emulated_bit32), yes);
}

EMULATE __m512i _mm512_mask_add_epi64(__m512i no, __mmask8 k, __m512i x, __m512i y) {
    return _mm512_mask_mov_epi64(no, k, _mm512_add_epi64(x, y));
}

EMULATE __m512i _mm512_mask_sub_epi64(__m512i no, __mmask8 k, __m512i x, __m512i y) {
    return _mm512_mask_mov_epi64(no, k, _mm512_sub_epi64(x, y));
}

/* --- permutations --- */

EMULATE __m512i _mm512_unpacklo_epi64(__m512i x, __m512i y) {
    return __builtin_shuffle(x, y, (__m512i){0, 8, 2, 10, 4, 12, 6, 14});
}

EMULATE __m512i _mm512_unpackhi_epi64(__m512i x, __m512i y) {
    return __builtin_shuffle(x, y, (__m512i){1, 9, 3, 11, 5, 13, 7, 15});
}

EMULATE __m512i _mm512_unpacklo_epi32(__m512i x, __m512i y) {
    return (__m512i)__builtin_shuffle(
        U32(x), U32(y), (emulated_u32){0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29});
}

EMULATE __m512i _mm512_unpackhi_epi32(__m512i x, __m512i y) {
    return (__m512i)__builtin_shuffle(
        U32(x), U32(y), (emulated_u32){2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31});
}

/* quarters, two of each operand */
EMULATE __m512i _mm512_shuffle_i64x2(__m512i x, __m512i y, int which) {
    const int a = 2 * (which & 3), b = 2 * (which >> 2 & 3), c = 2 * (which >> 4 & 3), d = 2 * (which >> 6 & 3);
    return (__m512i){x[a], x[a + 1], x[b], x[b + 1], y[c], y[c + 1], y[d], y[d + 1]};
}

#define _mm512_shuffle_i32x4 _mm512_shuffle_i64x2

/* Entry index[i] of sixteen; every one is looked at. */
EMULATE_CALL __m512i _mm512_permutex2var_epi64(__m512i x, __m512i index, __m512i y) {
    __m512i r = {0};
    for (int e = 0; e < 16; e++) {
        r |= (__m512i)((index & 15) == e) & _mm512_set1_epi64(e < 8 ? x[e & 7] : y[e & 7]);
    }
    return r;
}

EMULATE_CALL __m512i _mm512_permutexvar_epi64(__m512i index, __m512i x) {
    __m512i r = {0};
    for (int e = 0; e < 8; e++) {
        r |= (__m512i)((index & 7) == e) & _mm512_set1_epi64(x[e]);
    }
    return r;
}

/* --- what works on quarters --- */

#define EMULATE_QUARTERS(name, call)                                                                                   \
    EMULATE __m512i _mm512_##name(__m512i x, __m512i y) {                                                              \
        __m128i a[4], b[4];                                                                                            \
        memcpy(a, &x, 64);                                                                                             \
        memcpy(b, &y, 64);                                                                                             \
        for (int i = 0; i < 4; i++) {                                                                                  \
            a[i] = call(a[i], b[i]);                                                                                   \
        }                                                                                                              \
        memcpy(&x, a, 64);                                                                                             \
        return x;                                                                                                      \
    }
EMULATE_QUARTERS(shuffle_epi8, _mm_shuffle_epi8)
EMULATE_QUARTERS(aesenc_epi128, _mm_aesenc_si128)
EMULATE_QUARTERS(aesenclast_epi128, _mm_aesenclast_si128)

/* --- SHA-256 (Intel's manual, volume 2: SHA256RNDS2, SHA256MSG1, SHA256MSG2) --- */

EMULATE uint32_t emulated_turns(uint32_t x, int a, int b, int c) {
    return (x >> a | x << (32 - a)) ^ (x >> b | x << (32 - b)) ^ (c < 32 ? x >> c : x >> (c - 32) | x << (64 - c));
}

EMULATE_CALL __m128i _mm_sha256rnds2_epu32(__m128i cdgh, __m128i abef, __m128i wk) {
    uint32_t x[4], y[4], w[4];
    memcpy(x, &abef, 16);
    memcpy(y, &cdgh, 16);
    memcpy(w, &wk, 16);
    uint32_t a = x[3], b = x[2], e = x[1], f = x[0], c = y[3], d = y[2], g = y[1], h = y[0];
    for (int i = 0; i < 2; i++) {
        uint32_t t = ((e & f) ^ (~e & g)) + emulated_turns(e, 6, 11, 32 + 25) + w[i] + h;
        uint32_t u = ((a & b) ^ (a & c) ^ (b & c)) + emulated_turns(a, 2, 13, 32 + 22);
        h = g, g = f, f = e, e = d + t, d = c, c = b, b = a, a = t + u;
    }
    uint32_t r[4] = {f, e, b, a};
    memcpy(&abef, r, 16);
    return abef;
}

EMULATE_CALL __m128i _mm_sha256msg1_epu32(__m128i x, __m128i y) {
    uint32_t w[8];
    memcpy(w, &x, 16);
    memcpy(w + 4, &y, 16);
    for (int i = 0; i < 4; i++) {
        w[i] += emulated_turns(w[i + 1], 7, 18, 3);
    }
    memcpy(&x, w, 16);
    return x;
}

EMULATE_CALL __m128i _mm_sha256msg2_epu32(__m128i x, __m128i y) {
    uint32_t w[6], v[4];
    memcpy(v, &y, 16);
    memcpy(w, v + 2, 8);
    memcpy(w + 2, &x, 16);
    for (int i = 0; i < 4; i++) {
        w[i + 2] += emulated_turns(w[i], 17, 19, 10);
    }
    memcpy(&x, w + 2, 16);
    return x;
}

#undef EMULATE_BINARY
#undef EMULATE_MADD
#undef EMULATE_QUARTERS

#endif
