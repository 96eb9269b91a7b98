/* Eight residues at a time in AVX-512 lanes, 52-bit digits (vpmadd52luq, vpmadd52huq): the arithmetic that mont_ifma.c
 * and mont_pairs_ifma.c share. Chosen at run time: every function carries its own target, so it compiles on any x86-64.
 * Lane form: digit j of lane l is word 8 j + l. Values stay in [0, 2n) between calls; see accel/notes/montgomery.md. */
#ifndef INTERCONN_MONT_LANES_IFMA_H
#define INTERCONN_MONT_LANES_IFMA_H

#include <immintrin.h>

#include "mont.h"

#define TARGET __attribute__((target("avx512f,avx512dq,avx512vl,avx512bw,avx512ifma,bmi2")))
#define INLINE static inline __attribute__((always_inline)) TARGET
#define LANES 8
#define DIGIT_BITS 52
#define BLOCK 10
#define MAX_BLOCKS 32
#define LANE_WORDS(ctx) ((ctx)->digits * 8)
#define RADIX_DIGITS(ctx) ((ctx)->digits / PARTS)
#define MASK52 ((UINT64_C(1) << 52) - 1)

#define LO(acc, x, y) ((acc) = _mm512_madd52lo_epu64((acc), (x), (y)))
#define HI(acc, x, y) ((acc) = _mm512_madd52hi_epu64((acc), (x), (y)))
#define ALL_LANES(word) _mm512_set1_epi64((long long)(word))

typedef __m512i lane;

/* One row of a tile: acc[0 .. 10] += x * b[0 .. 9]. The operands of a tile fit the 32 registers (20 + 10 + 1), if every
 * loop is unrolled and the accumulators are never indexed by a variable; operands in memory cost a third of the rate. */
INLINE void row(lane *acc, lane x, const lane b[BLOCK]) {
#pragma GCC unroll 10
    for (int j = 0; j < BLOCK; j++) {
        LO(acc[j], x, b[j]);
    }
#pragma GCC unroll 10
    for (int j = 0; j < BLOCK; j++) {
        HI(acc[j + 1], x, b[j]);
    }
}

/* acc += a * b, ten digits each */
INLINE void tile(lane acc[20], const lane *a, const lane *b_memory) {
    lane b[BLOCK];
#pragma GCC unroll 10
    for (int j = 0; j < BLOCK; j++) {
        b[j] = b_memory[j];
    }
#pragma GCC unroll 10
    for (int i = 0; i < BLOCK; i++) {
        row(acc + i, a[i], b);
    }
}

/* acc += m * n, the digits of n alike in all lanes */
INLINE void tile_shared(lane acc[20], const lane *m, const uint64_t *n) {
    lane b[BLOCK];
#pragma GCC unroll 10
    for (int j = 0; j < BLOCK; j++) {
        b[j] = ALL_LANES(n[j]);
    }
#pragma GCC unroll 10
    for (int i = 0; i < BLOCK; i++) {
        row(acc + i, m[i], b);
    }
}

/* As tile for neighbouring blocks of a and 2a: the last digit of a meets the first of 2a without its carry. */
INLINE void tile_next(lane acc[20], const lane *a, const lane *twice, const lane *clear) {
    lane b[BLOCK];
#pragma GCC unroll 10
    for (int j = 0; j < BLOCK; j++) {
        b[j] = twice[j];
    }
#pragma GCC unroll 9
    for (int i = 0; i < BLOCK - 1; i++) {
        row(acc + i, a[i], b);
    }
    b[0] = clear[0];
    row(acc + BLOCK - 1, a[BLOCK - 1], b);
}

/* acc += the part of a^2 inside one block */
INLINE void tile_diagonal(lane acc[20], const lane *a, const lane *twice, const lane *clear) {
#pragma GCC unroll 10
    for (int i = 0; i < BLOCK; i++) {
        lane x = a[i];
        LO(acc[2 * i], x, x);
        HI(acc[2 * i + 1], x, x);
#pragma GCC unroll 10
        for (int j = i + 1; j < BLOCK; j++) {
            lane y = j == i + 1 ? clear[j] : twice[j];
            LO(acc[i + j], x, y);
            HI(acc[i + j + 1], x, y);
        }
    }
}

/* Makes the low ten digits of acc zero modulo 2^520 by adding m * n, and drops them. */
INLINE void reduce(lane acc[20], lane *m, const uint64_t *n, lane n0) {
    const lane zero = _mm512_setzero_si512();
#pragma GCC unroll 10
    for (int i = 0; i < BLOCK; i++) {
        lane x = _mm512_madd52lo_epu64(zero, acc[i], n0);
        m[i] = x;
        LO(acc[i], x, ALL_LANES(n[0]));
        LO(acc[i + 1], x, ALL_LANES(n[1]));
        HI(acc[i + 1], x, ALL_LANES(n[0]));
        acc[i + 1] = _mm512_add_epi64(acc[i + 1], _mm512_srli_epi64(acc[i], 52));
#pragma GCC unroll 10
        for (int j = 2; j < BLOCK; j++) {
            LO(acc[i + j], x, ALL_LANES(n[j]));
        }
#pragma GCC unroll 10
        for (int j = 1; j < BLOCK; j++) {
            HI(acc[i + j + 1], x, ALL_LANES(n[j]));
        }
    }
#pragma GCC unroll 10
    for (int i = 0; i < BLOCK; i++) {
        acc[i] = acc[i + BLOCK];
        acc[i + BLOCK] = zero;
    }
}

/* Writes the low ten digits of acc, normalised, and drops them; their carry goes to the eleventh. */
INLINE void emit(lane acc[20], lane *out) {
    const lane mask = ALL_LANES(MASK52);
#pragma GCC unroll 10
    for (int i = 0; i < BLOCK; i++) {
        out[i] = _mm512_and_si512(acc[i], mask);
        acc[i + 1] = _mm512_add_epi64(acc[i + 1], _mm512_srli_epi64(acc[i], 52));
    }
#pragma GCC unroll 10
    for (int i = 0; i < BLOCK; i++) {
        acc[i] = acc[i + BLOCK];
        acc[i + BLOCK] = _mm512_setzero_si512();
    }
}

/* m receives the multiple of n that was added */
static TARGET void mul_keep(const mont_ctx *ctx, uint64_t *out_words, const uint64_t *a_words, const uint64_t *b_words,
                            lane *m) {
    const lane *a = (const lane *)a_words, *b = (const lane *)b_words;
    lane *out = (lane *)out_words;
    const uint64_t *n = ctx->n;
    const int blocks = (int)(ctx->digits / BLOCK);
    const lane n0 = ALL_LANES(ctx->n0);
    lane acc[20];
#pragma GCC unroll 20
    for (int i = 0; i < 20; i++) {
        acc[i] = _mm512_setzero_si512();
    }
    for (int k = 0; k < blocks; k++) {
        for (int i = 0; i < k; i++) {
            tile(acc, a + BLOCK * i, b + BLOCK * (k - i));
            tile_shared(acc, m + BLOCK * i, n + BLOCK * (k - i));
        }
        tile(acc, a + BLOCK * k, b);
        reduce(acc, m + BLOCK * k, n, n0);
    }
    for (int k = blocks; k < 2 * blocks - 1; k++) {
        for (int i = k - blocks + 1; i < blocks; i++) {
            tile(acc, a + BLOCK * i, b + BLOCK * (k - i));
            tile_shared(acc, m + BLOCK * i, n + BLOCK * (k - i));
        }
        emit(acc, out + BLOCK * (k - blocks));
    }
    emit(acc, out + BLOCK * (blocks - 1));
}

static TARGET void sqr_keep(const mont_ctx *ctx, uint64_t *out_words, const uint64_t *a_words, lane *m) {
    const lane *a = (const lane *)a_words;
    lane *out = (lane *)out_words;
    const uint64_t *n = ctx->n;
    const int blocks = (int)(ctx->digits / BLOCK);
    const lane n0 = ALL_LANES(ctx->n0), mask = ALL_LANES(MASK52);
    lane twice[MAX_BLOCKS * BLOCK], clear[MAX_BLOCKS * BLOCK], acc[20];
    lane carry = _mm512_setzero_si512();
    for (int i = 0; i < blocks * BLOCK; i++) {
        lane x = _mm512_and_si512(_mm512_slli_epi64(a[i], 1), mask);
        clear[i] = x;
        twice[i] = _mm512_or_si512(x, carry);
        carry = _mm512_srli_epi64(a[i], 51);
    }
#pragma GCC unroll 20
    for (int i = 0; i < 20; i++) {
        acc[i] = _mm512_setzero_si512();
    }
    for (int k = 0; k < 2 * blocks - 1; k++) {
        int first = k < blocks ? 0 : k - blocks + 1, i = first;
        for (; 2 * i < k - 1; i++) {
            tile(acc, a + BLOCK * i, twice + BLOCK * (k - i));
        }
        if (k & 1) {
            tile_next(acc, a + BLOCK * i, twice + BLOCK * (k - i), clear + BLOCK * (k - i));
        } else {
            tile_diagonal(acc, a + BLOCK * i, twice + BLOCK * i, clear + BLOCK * i);
        }
        if (k < blocks) {
            for (i = 0; i < k; i++) {
                tile_shared(acc, m + BLOCK * i, n + BLOCK * (k - i));
            }
            reduce(acc, m + BLOCK * k, n, n0);
        } else {
            for (i = first; i < blocks; i++) {
                tile_shared(acc, m + BLOCK * i, n + BLOCK * (k - i));
            }
            emit(acc, out + BLOCK * (k - blocks));
        }
    }
    emit(acc, out + BLOCK * (blocks - 1));
}

/* x += y; the sum of values below 2n is below 4n, which the next multiplication takes. */
static TARGET void lanes_add(const mont_ctx *ctx, uint64_t *x_words, const uint64_t *y_words, int y_is_reduced) {
    (void)y_is_reduced;
    lane *x = (lane *)x_words, carry = _mm512_setzero_si512();
    const lane *y = (const lane *)y_words, mask = ALL_LANES(MASK52);
    for (size_t j = 0; j < ctx->digits; j++) {
        lane sum = _mm512_add_epi64(_mm512_add_epi64(x[j], y[j]), carry);
        x[j] = _mm512_and_si512(sum, mask);
        carry = _mm512_srli_epi64(sum, 52);
    }
}

/* From [0, n] to [0, n): a product with one is at most n. */
static TARGET void lanes_canonical(const mont_ctx *ctx, uint64_t *x_words) {
    lane *x = (lane *)x_words, borrow = _mm512_setzero_si512(), rest[MAX_BLOCKS * BLOCK];
    const lane mask = ALL_LANES(MASK52);
    for (size_t j = 0; j < ctx->digits; j++) {
        lane d = _mm512_add_epi64(_mm512_sub_epi64(x[j], ALL_LANES(ctx->n[j])), borrow);
        rest[j] = _mm512_and_si512(d, mask);
        borrow = _mm512_srai_epi64(d, 63);
    }
    __mmask8 keep = _mm512_movepi64_mask(borrow);
    for (size_t j = 0; j < ctx->digits; j++) {
        x[j] = _mm512_mask_mov_epi64(rest[j], keep, x[j]);
    }
}

INLINE void transpose(lane r[8]) {
    lane t[8], u[8];
#pragma GCC unroll 4
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm512_unpacklo_epi64(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi64(r[i], r[i + 1]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 8; i += 4) {
        for (int h = 0; h < 2; h++) {
            u[i + h] = _mm512_shuffle_i64x2(t[i + h], t[i + 2 + h], 0x88);
            u[i + 2 + h] = _mm512_shuffle_i64x2(t[i + h], t[i + 2 + h], 0xdd);
        }
    }
    /* u[h] holds columns h, h + 4 of rows 0..3; u[2 + h] columns h + 2, h + 6; u[4..7] the same of rows 4..7 */
#pragma GCC unroll 4
    for (int c = 0; c < 4; c++) {
        r[c] = _mm512_shuffle_i64x2(u[c], u[c + 4], 0x88);
        r[c + 4] = _mm512_shuffle_i64x2(u[c], u[c + 4], 0xdd);
    }
}

static TARGET void lanes_load(const mont_ctx *ctx, uint64_t *x_words, const uint64_t *const rows[LANES]) {
    lane *x = (lane *)x_words;
    for (size_t at = 0; at < ctx->digits; at += 8) {
        lane r[8];
        for (int l = 0; l < 8; l++) {
            r[l] = _mm512_loadu_si512(rows[l] + at);
        }
        transpose(r);
        for (size_t j = 0; j < 8 && at + j < ctx->digits; j++) {
            x[at + j] = r[j];
        }
    }
}

static TARGET void lanes_store(const mont_ctx *ctx, uint64_t *const rows[LANES], const uint64_t *x_words, size_t count) {
    const lane *x = (const lane *)x_words;
    for (size_t at = 0; at < ctx->digits; at += 8) {
        lane r[8];
        for (size_t j = 0; j < 8; j++) {
            r[j] = at + j < ctx->digits ? x[at + j] : _mm512_setzero_si512();
        }
        transpose(r);
        for (size_t l = 0; l < 8 && l < count; l++) {
            _mm512_storeu_si512(rows[l] + at, r[l]);
        }
    }
}

static inline void lane_put(const mont_ctx *ctx, uint64_t *x, size_t l, const uint64_t *row) {
    for (size_t j = 0; j < ctx->digits; j++) {
        x[8 * j + l] = row[j];
    }
}

static inline void lane_get(const mont_ctx *ctx, uint64_t *row, const uint64_t *x, size_t l) {
    for (size_t j = 0; j < ctx->digits; j++) {
        row[j] = x[8 * j + l];
    }
    for (size_t j = ctx->digits; j < ctx->stride; j++) {
        row[j] = 0;
    }
}

static TARGET void lanes_merge(const mont_ctx *ctx, uint64_t *x_words, const uint64_t *y_words, unsigned which) {
    lane *x = (lane *)x_words;
    const lane *y = (const lane *)y_words;
    for (size_t j = 0; j < ctx->digits; j++) {
        _mm512_mask_store_epi64(x + j, (__mmask8)which, y[j]);
    }
}

static TARGET void lanes_select(const mont_ctx *ctx, uint64_t *out, const uint64_t *table, size_t entries,
                                const uint64_t idx[LANES]) {
    const lane wanted = _mm512_loadu_si512(idx);
    const size_t step = LANE_WORDS(ctx);
    for (size_t at = 0; at < ctx->digits; at += BLOCK) {
        lane acc[BLOCK];
        for (int j = 0; j < BLOCK; j++) {
            acc[j] = _mm512_setzero_si512();
        }
        const uint64_t *entry = table + 8 * at;
        for (size_t e = 0; e < entries; e++, entry += step) {
            __mmask8 here = _mm512_cmpeq_epi64_mask(wanted, ALL_LANES(e));
#pragma GCC unroll 10
            for (int j = 0; j < BLOCK; j++) {
                acc[j] = _mm512_mask_mov_epi64(acc[j], here, _mm512_load_si512(entry + 8 * j));
            }
        }
        for (int j = 0; j < BLOCK; j++) {
            _mm512_store_si512(out + 8 * (at + (size_t)j), acc[j]);
        }
    }
}

/* Word (j << window) + e of a window: digit j of entry e. */
static void fixed_arrange(const mont_ctx *ctx, uint64_t *part, unsigned window, uint64_t *scratch) {
    size_t entries = (size_t)1 << window;
    memcpy(scratch, part, entries * ctx->stride * sizeof *part);
    for (size_t j = 0; j < ctx->digits; j++) {
        for (size_t e = 0; e < entries; e++) {
            part[(j << window) + e] = scratch[e * ctx->stride + j];
        }
    }
}

/* All entries of a digit pass through registers, sixteen at a time through vpermi2q, which picks by the low four bits of
 * the index; the bits above choose between the results. */
INLINE void select_permuted(const mont_ctx *ctx, uint64_t *out, const uint64_t *part, const int window, lane wanted) {
    const int pieces = 1 << (window - 4);
    for (size_t j = 0; j < ctx->digits; j++, part += 16 * pieces) {
        lane r[8];
#pragma GCC unroll 8
        for (int i = 0; i < pieces; i++) {
            const uint64_t *words = part + 16 * i;
            r[i] = _mm512_permutex2var_epi64(_mm512_loadu_si512(words), wanted, _mm512_loadu_si512(words + 8));
        }
#pragma GCC unroll 3
        for (int bit = 0; bit < window - 4; bit++) {
            const __mmask8 set = _mm512_test_epi64_mask(wanted, ALL_LANES(16 << bit));
#pragma GCC unroll 4
            for (int i = 0; i < pieces; i += 2 << bit) {
                r[i] = _mm512_mask_mov_epi64(r[i], set, r[i + (1 << bit)]);
            }
        }
        _mm512_store_si512(out + 8 * j, r[0]);
    }
}

static TARGET void lanes_select_fixed(const mont_ctx *ctx, uint64_t *out, const uint64_t *part, unsigned window,
                                      const uint64_t idx[LANES]) {
    const lane wanted = _mm512_loadu_si512(idx);
    switch (window) {
    case 5:
        select_permuted(ctx, out, part, 5, wanted);
        return;
    case 6:
        select_permuted(ctx, out, part, 6, wanted);
        return;
    case 7:
        select_permuted(ctx, out, part, 7, wanted);
        return;
    default:
        break;
    }
    for (size_t j = 0; j < ctx->digits; j++) {
        lane found = _mm512_setzero_si512();
        for (size_t e = 0; e < (size_t)1 << window; e++, part++) {
            found = _mm512_mask_mov_epi64(found, _mm512_cmpeq_epi64_mask(wanted, ALL_LANES(e)), ALL_LANES(*part));
        }
        _mm512_store_si512(out + 8 * j, found);
    }
}

static void row_unpack(const mont_ctx *ctx, uint64_t *row, const uint8_t *bytes, size_t size) {
    for (size_t j = 0; j < ctx->stride; j++) {
        row[j] = j < ctx->digits ? take_bits(bytes, size, DIGIT_BITS * j, DIGIT_BITS) : 0;
    }
}

static void row_pack(const mont_ctx *ctx, uint8_t *bytes, size_t size, const uint64_t *row) {
    for (size_t i = 0; i < size; i += 8) {
        size_t digit = 8 * i / DIGIT_BITS, shift = 8 * i % DIGIT_BITS;
        uint64_t value = digit < ctx->digits ? row[digit] >> shift : 0;
        for (size_t next = digit + 1, got = DIGIT_BITS - shift; got < 64 && next < ctx->digits; next++, got += DIGIT_BITS) {
            value |= row[next] << got;
        }
        memcpy(bytes + i, &value, size - i < 8 ? size - i : 8);
    }
}

/* --- residues modulo p^2 as pairs x0 + x1 p, computed modulo the prime p of ctx; see accel/notes/montgomery.md ---
 * A pair is two numbers in lane form, one after the other. */

/* out = (a b + c d + lift - m) / R modulo p; c and d may be missing. lift: a multiple of p, no digit below one of m. */
static TARGET void pair_second(const mont_ctx *ctx, uint64_t *out_words, const uint64_t *a_words, const uint64_t *b_words,
                               const uint64_t *c_words, const uint64_t *d_words, const uint64_t *lift, const lane *m) {
    const lane *a = (const lane *)a_words, *b = (const lane *)b_words;
    const lane *c = (const lane *)c_words, *d = (const lane *)d_words;
    lane *out = (lane *)out_words;
    const uint64_t *n = ctx->n;
    const int blocks = (int)(ctx->digits / BLOCK);
    const lane n0 = ALL_LANES(ctx->n0);
    lane t[MAX_BLOCKS * BLOCK], acc[20];
#pragma GCC unroll 20
    for (int i = 0; i < 20; i++) {
        acc[i] = _mm512_setzero_si512();
    }
    for (int k = 0; k < 2 * blocks - 1; k++) {
        const int first = k < blocks ? 0 : k - blocks + 1, last = k < blocks ? k : blocks - 1;
        for (int i = first; i <= last; i++) {
            tile(acc, a + BLOCK * i, b + BLOCK * (k - i));
            if (c) {
                tile(acc, c + BLOCK * i, d + BLOCK * (k - i));
            }
        }
        for (int i = first; i < (k < blocks ? k : blocks); i++) {
            tile_shared(acc, t + BLOCK * i, n + BLOCK * (k - i));
        }
        if (k < blocks) {
#pragma GCC unroll 10
            for (int j = 0; j < BLOCK; j++) {
                lane more = _mm512_sub_epi64(ALL_LANES(lift[BLOCK * k + j]), m[BLOCK * k + j]);
                acc[j] = _mm512_add_epi64(acc[j], more);
            }
            reduce(acc, t + BLOCK * k, n, n0);
        } else {
            emit(acc, out + BLOCK * (k - blocks));
        }
    }
    emit(acc, out + BLOCK * (blocks - 1));
}

/* out = a * b; out may be a or b */
static TARGET void pair_mul(const mont_ctx *ctx, uint64_t *out, const uint64_t *a, const uint64_t *b, const uint64_t *lift) {
    const size_t half = LANE_WORDS(ctx);
    lane m[MAX_BLOCKS * BLOCK], first[MAX_BLOCKS * BLOCK];
    mul_keep(ctx, (uint64_t *)first, a, b, m);
    pair_second(ctx, out + half, a, b + half, a + half, b, lift, m);
    memcpy(out, first, half * sizeof *out);
}

/* out = a^2; out may be a */
static TARGET void pair_sqr(const mont_ctx *ctx, uint64_t *out, const uint64_t *a, const uint64_t *lift) {
    const size_t half = LANE_WORDS(ctx);
    lane m[MAX_BLOCKS * BLOCK], first[MAX_BLOCKS * BLOCK], twice[MAX_BLOCKS * BLOCK];
    sqr_keep(ctx, (uint64_t *)first, a, m);
    memcpy(twice, a + half, half * sizeof *a);
    lanes_add(ctx, (uint64_t *)twice, (const uint64_t *)twice, 0);
    pair_second(ctx, out + half, a, (const uint64_t *)twice, NULL, NULL, lift, m);
    memcpy(out, first, half * sizeof *out);
}

/* Eight bits of room above the modulus: sums of up to sixteen values stay usable, and products stay below 2n. */
static inline size_t digits_for(size_t bits) {
    return (bits + 8 + BLOCK * DIGIT_BITS - 1) / (BLOCK * DIGIT_BITS) * BLOCK;
}

static inline size_t stride_for(size_t digits) {
    return (digits + 7) / 8 * 8;
}

#endif
