/* Eight residues at a time in AVX-512 lanes, 52-bit digits (vpmadd52luq, vpmadd52huq): the arithmetic that mont_ifma.c
 * and mont_pairs_ifma.c share. Chosen at run time: every function carries its own target, so it compiles on any x86-64.
 * Lane form: digit j of lane l is word 8 j + l. Values stay in [0, 3n) between calls; see accel/notes/montgomery.md. */
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
#define STACK_WORDS (6 * 8 * MAX_BLOCKS * BLOCK) /* five rows of lanes in pair_sqr and sqr_keep, and room for the rest */
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

/* As tile_shared for the last block of m, whose last digit belongs to n itself. */
INLINE void tile_last(lane acc[20], const lane *m, const uint64_t *near, const uint64_t *n) {
    lane b[BLOCK];
#pragma GCC unroll 10
    for (int j = 0; j < BLOCK; j++) {
        b[j] = ALL_LANES(near[j]);
    }
#pragma GCC unroll 9
    for (int i = 0; i < BLOCK - 1; i++) {
        row(acc + i, m[i], b);
    }
#pragma GCC unroll 10
    for (int j = 0; j < BLOCK; j++) {
        b[j] = ALL_LANES(n[j]);
    }
    row(acc + BLOCK - 1, m[BLOCK - 1], b);
}

/* acc += the first `rows` digits of m, times the digit that near has and n has not: 0 where n leaves its last one free */
INLINE void tile_top(const mont_ctx *ctx, lane acc[20], const lane *m, const int rows) {
    if (ctx->bits <= DIGIT_BITS * (ctx->digits - 1)) {
        return;
    }
    const lane b = ALL_LANES(ctx->near[ctx->digits]);
#pragma GCC unroll 10
    for (int i = 0; i < rows; i++) {
        lane x = m[i];
        LO(acc[i], x, b);
        HI(acc[i + 1], x, b);
    }
}

INLINE void clear_columns(lane acc[20]) {
#pragma GCC unroll 20
    for (int i = 0; i < 20; i++) {
        acc[i] = _mm512_setzero_si512();
    }
}

/* Drops the low ten digits of acc. */
INLINE void shift(lane acc[20]) {
#pragma GCC unroll 10
    for (int i = 0; i < BLOCK; i++) {
        acc[i] = acc[i + BLOCK];
        acc[i + BLOCK] = _mm512_setzero_si512();
    }
}

/* A digit x of acc is its own m where -1 mod 2^52 is the lowest digit of what is added: x (near - 1), and so it vanishes.
 * Bits above 52 went to the next digit; no multiplication reads them. */
INLINE void reduce_rows(lane acc[20], lane *m, const uint64_t *near, const int rows) {
#pragma GCC unroll 10
    for (int i = 0; i < rows; i++) {
        const lane x = acc[i];
        m[i] = x;
        acc[i + 1] = _mm512_add_epi64(acc[i + 1], _mm512_srli_epi64(x, 52));
#pragma GCC unroll 10
        for (int j = 1; j < BLOCK; j++) {
            LO(acc[i + j], x, ALL_LANES(near[j]));
        }
#pragma GCC unroll 10
        for (int j = 1; j < BLOCK; j++) {
            HI(acc[i + j + 1], x, ALL_LANES(near[j]));
        }
    }
}

/* The last digit of all is cleared by n itself, so that the result has no more digits than n. */
INLINE void reduce_digit(lane acc[11], lane *m, const uint64_t *n, lane n0) {
    const lane x = _mm512_madd52lo_epu64(_mm512_setzero_si512(), acc[0], n0);
    *m = x;
    /* acc[0] + the low half of x n[0] is the next multiple of 2^52 */
    const lane carry = _mm512_srli_epi64(_mm512_add_epi64(acc[0], ALL_LANES(MASK52)), 52);
    acc[1] = _mm512_add_epi64(acc[1], carry);
#pragma GCC unroll 10
    for (int j = 1; j < BLOCK; j++) {
        LO(acc[j], x, ALL_LANES(n[j]));
    }
#pragma GCC unroll 10
    for (int j = 0; j < BLOCK; j++) {
        HI(acc[j + 1], x, ALL_LANES(n[j]));
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
    shift(acc);
}

/* What block k of the columns still needs after the products of its factors: the multiples of n, whose digits m receives,
 * and its carries. The columns of R and above go to out. */
INLINE void settle(const mont_ctx *ctx, lane acc[20], lane *m, lane *out, const int k, const int blocks) {
    const uint64_t *n = ctx->n, *near = ctx->near;
    for (int i = k < blocks ? 0 : k - blocks + 1; i < k && i < blocks - 1; i++) {
        tile_shared(acc, m + BLOCK * i, near + BLOCK * (k - i));
    }
    if (k < blocks - 1) {
        reduce_rows(acc, m + BLOCK * k, near, BLOCK);
        shift(acc);
    } else if (k == blocks - 1) {
        reduce_rows(acc, m + BLOCK * k, near, BLOCK - 1);
        reduce_digit(acc + BLOCK - 1, m + BLOCK * k + BLOCK - 1, n, ALL_LANES(ctx->n0));
        shift(acc);
    } else {
        const int j = BLOCK * (k - blocks + 1);
        tile_last(acc, m + BLOCK * (blocks - 1), near + j, n + j);
        tile_top(ctx, acc, m + BLOCK * (k - blocks), BLOCK);
        emit(acc, out + BLOCK * (k - blocks));
    }
}

/* The last block of columns */
INLINE void settle_top(const mont_ctx *ctx, lane acc[20], const lane *m, lane *out, const int blocks) {
    tile_top(ctx, acc, m + BLOCK * (blocks - 1), BLOCK - 1);
    emit(acc, out + BLOCK * (blocks - 1));
}

/* Entry idx[l] of a table in every lane l, found by reading all of it: in pieces, that a squaring can do in between. */
typedef struct {
    lane wanted;
    const lane *table;
    lane *out;
    size_t digits, entries; /* of the table */
    size_t digit, entry;    /* where the next piece begins */
} selection;

INLINE selection select_begin(size_t digits, uint64_t *out, const uint64_t *table, size_t entries,
                              const uint64_t idx[LANES]) {
    return (selection){_mm512_loadu_si512(idx), (const lane *)table, (lane *)out, digits, entries, 0, 0};
}

/* Ten digits of up to eight entries; 0 if nothing is left. */
INLINE int select_piece(selection *s) {
    if (s->digit == s->digits) {
        return 0;
    }
    const lane *entry = s->table + s->entry * s->digits + s->digit;
    const size_t end = s->entry + 8 < s->entries ? s->entry + 8 : s->entries;
    lane *out = s->out + s->digit, found[BLOCK];
#pragma GCC unroll 10
    for (int j = 0; j < BLOCK; j++) {
        found[j] = s->entry ? out[j] : _mm512_setzero_si512();
    }
    for (size_t e = s->entry; e < end; e++, entry += s->digits) {
        const __mmask8 here = _mm512_cmpeq_epi64_mask(s->wanted, ALL_LANES(e));
#pragma GCC unroll 10
        for (int j = 0; j < BLOCK; j++) {
            found[j] = _mm512_mask_mov_epi64(found[j], here, entry[j]);
        }
    }
#pragma GCC unroll 10
    for (int j = 0; j < BLOCK; j++) {
        out[j] = found[j];
    }
    s->entry = end < s->entries ? end : 0;
    s->digit += end < s->entries ? 0 : BLOCK;
    return 1;
}

/* m receives the digits of what was added: see accel/notes/montgomery.md */
static TARGET void mul_keep(const mont_ctx *ctx, uint64_t *out_words, const uint64_t *a_words, const uint64_t *b_words,
                            lane *m) {
    const lane *a = (const lane *)a_words, *b = (const lane *)b_words;
    lane *out = (lane *)out_words;
    const int blocks = (int)(ctx->digits / BLOCK);
    lane acc[20];
    clear_columns(acc);
    for (int k = 0; k < 2 * blocks - 1; k++) {
        for (int i = k < blocks ? 0 : k - blocks + 1; i <= k && i < blocks; i++) {
            tile(acc, a + BLOCK * i, b + BLOCK * (k - i));
        }
        settle(ctx, acc, m, out, k, blocks);
    }
    settle_top(ctx, acc, m, out, blocks);
}

/* side: a selection that is worked on as well, or none; a is not among its table or result */
static TARGET void sqr_keep(const mont_ctx *ctx, uint64_t *out_words, const uint64_t *a_words, lane *m, selection *side) {
    const lane *a = (const lane *)a_words;
    lane *out = (lane *)out_words;
    const int blocks = (int)(ctx->digits / BLOCK);
    lane twice[MAX_BLOCKS * BLOCK], clear[MAX_BLOCKS * BLOCK], acc[20];
    lane carry = _mm512_setzero_si512();
    for (int i = 0; i < blocks * BLOCK; i++) {
        clear[i] = _mm512_add_epi64(a[i], a[i]); /* no multiplication reads bit 52 */
        twice[i] = _mm512_or_si512(clear[i], carry);
        carry = _mm512_srli_epi64(a[i], 51);
    }
    clear_columns(acc);
    for (int k = 0; k < 2 * blocks - 1; k++) {
        int i = k < blocks ? 0 : k - blocks + 1;
        for (; 2 * i < k - 1; i++) {
            tile(acc, a + BLOCK * i, twice + BLOCK * (k - i));
        }
        if (k & 1) {
            tile_next(acc, a + BLOCK * i, twice + BLOCK * (k - i), clear + BLOCK * (k - i));
        } else {
            tile_diagonal(acc, a + BLOCK * i, twice + BLOCK * i, clear + BLOCK * i);
        }
        settle(ctx, acc, m, out, k, blocks);
        if (side) {
            select_piece(side);
        }
    }
    settle_top(ctx, acc, m, out, blocks);
}

/* Squares with a selection beside it; of the core that includes this. */
static TARGET void lanes_sqr_beside(const mont_ctx *ctx, uint64_t *out, const uint64_t *a, selection *side);

static TARGET void lanes_sqr(const mont_ctx *ctx, uint64_t *out, const uint64_t *a) {
    lanes_sqr_beside(ctx, out, a, NULL);
}

static TARGET void lanes_climb(const mont_ctx *ctx, uint64_t *x, unsigned times, uint64_t *out, const uint64_t *table,
                               size_t entries, const uint64_t idx[LANES]) {
    selection side = select_begin(ctx->digits, out, table, entries, idx);
    for (unsigned i = 0; i < times; i++) {
        lanes_sqr_beside(ctx, x, x, &side);
    }
    while (select_piece(&side)) {
    }
    wipe(&side, sizeof side);
}

/* x += y; the next multiplication takes sums of up to eight values. */
static TARGET void lanes_add(const mont_ctx *ctx, uint64_t *x_words, const uint64_t *y_words) {
    lane *x = (lane *)x_words, carry = _mm512_setzero_si512();
    const lane *y = (const lane *)y_words, mask = ALL_LANES(MASK52);
    for (size_t j = 0; j < ctx->digits; j++) {
        lane sum = _mm512_add_epi64(_mm512_add_epi64(x[j], y[j]), carry);
        x[j] = _mm512_and_si512(sum, mask);
        carry = _mm512_srli_epi64(sum, 52);
    }
}

/* x -= n where that leaves it positive; the lanes where it does. */
static TARGET __mmask8 lanes_subtract(const mont_ctx *ctx, lane *x) {
    lane borrow = _mm512_setzero_si512(), rest[MAX_BLOCKS * BLOCK];
    const lane mask = ALL_LANES(MASK52);
    for (size_t j = 0; j < ctx->digits; j++) {
        lane d = _mm512_add_epi64(_mm512_sub_epi64(x[j], ALL_LANES(ctx->n[j])), borrow);
        rest[j] = _mm512_and_si512(d, mask);
        borrow = _mm512_srai_epi64(d, 63);
    }
    const __mmask8 keep = _mm512_movepi64_mask(borrow);
    for (size_t j = 0; j < ctx->digits; j++) {
        x[j] = _mm512_mask_mov_epi64(rest[j], keep, x[j]);
    }
    return (__mmask8)~keep;
}

/* From a product with one, which is at most 2n, to [0, n). */
static TARGET void lanes_canonical(const mont_ctx *ctx, uint64_t *x_words) {
    lanes_subtract(ctx, (lane *)x_words);
    lanes_subtract(ctx, (lane *)x_words);
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

/* acc += block k of -(n0 m' + m"), what mul_keep or sqr_keep has added in multiples of n, m" its last digit and m' the
 * others: 2^52 - n0 takes the place of -n0, and lift keeps every column positive. before: the digit before m[0]. */
INLINE void take_away(const mont_ctx *ctx, lane acc[20], const uint64_t *lift, const lane *m, lane before, const int last) {
    const lane mask = ALL_LANES(MASK52), factor = ALL_LANES(MASK52 + 1 - ctx->n0);
#pragma GCC unroll 10
    for (int j = 0; j < BLOCK; j++) {
        const lane x = m[j];
        acc[j] = _mm512_add_epi64(acc[j], _mm512_sub_epi64(ALL_LANES(lift[j]), _mm512_and_si512(before, mask)));
        if (last && j == BLOCK - 1) {
            acc[j] = _mm512_sub_epi64(acc[j], x);
        } else {
            LO(acc[j], x, factor);
            HI(acc[j + 1], x, factor);
        }
        before = x;
    }
}

/* out = (a b + c d + lift - what m stands for) / R modulo p; c and d may be missing. lift: a multiple of p, every digit in
 * [2^53, 2^54). */
static TARGET void pair_second(const mont_ctx *ctx, uint64_t *out_words, const uint64_t *a_words, const uint64_t *b_words,
                               const uint64_t *c_words, const uint64_t *d_words, const uint64_t *lift, const lane *m) {
    const lane *a = (const lane *)a_words, *b = (const lane *)b_words;
    const lane *c = (const lane *)c_words, *d = (const lane *)d_words;
    lane *out = (lane *)out_words;
    const int blocks = (int)(ctx->digits / BLOCK);
    lane t[MAX_BLOCKS * BLOCK], acc[20], before = _mm512_setzero_si512();
    clear_columns(acc);
    for (int k = 0; k < 2 * blocks - 1; k++) {
        const int first = k < blocks ? 0 : k - blocks + 1, last = k < blocks ? k : blocks - 1;
        for (int i = first; i <= last; i++) {
            tile(acc, a + BLOCK * i, b + BLOCK * (k - i));
            if (c) {
                tile(acc, c + BLOCK * i, d + BLOCK * (k - i));
            }
        }
        if (k < blocks - 1) {
            take_away(ctx, acc, lift + BLOCK * k, m + BLOCK * k, before, 0);
            before = m[BLOCK * k + BLOCK - 1];
        } else if (k == blocks - 1) {
            take_away(ctx, acc, lift + BLOCK * k, m + BLOCK * k, before, 1);
        }
        settle(ctx, acc, t, out, k, blocks);
    }
    settle_top(ctx, acc, t, out, blocks);
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
static TARGET void pair_sqr(const mont_ctx *ctx, uint64_t *out, const uint64_t *a, const uint64_t *lift, selection *side) {
    const size_t half = LANE_WORDS(ctx);
    lane m[MAX_BLOCKS * BLOCK], first[MAX_BLOCKS * BLOCK], twice[MAX_BLOCKS * BLOCK];
    sqr_keep(ctx, (uint64_t *)first, a, m, side);
    memcpy(twice, a + half, half * sizeof *a);
    lanes_add(ctx, (uint64_t *)twice, (const uint64_t *)twice);
    pair_second(ctx, out + half, a, (const uint64_t *)twice, NULL, NULL, lift, m);
    memcpy(out, first, half * sizeof *out);
}

/* From a product with the pair (1, 0), x0 <= 2n and x1 < 2n + 4, to the canonical pair: each n that x0 gives off is one
 * more in x1. n > 5, which every n is that pairs are worth their while for. */
static TARGET void pair_canonical(const mont_ctx *ctx, uint64_t *x_words) {
    const size_t digits = ctx->digits;
    lane *x = (lane *)x_words;
    const lane mask = ALL_LANES(MASK52), one = ALL_LANES(1);
    lane carry = _mm512_maskz_mov_epi64(lanes_subtract(ctx, x), one);
    carry = _mm512_mask_add_epi64(carry, lanes_subtract(ctx, x), carry, one);
    for (size_t j = digits; j < 2 * digits; j++) {
        lane sum = _mm512_add_epi64(x[j], carry);
        x[j] = _mm512_and_si512(sum, mask);
        carry = _mm512_srli_epi64(sum, 52);
    }
    lanes_canonical(ctx, x_words + LANE_WORDS(ctx));
}

/* Eight bits of room above the modulus: sums of up to eight values stay usable, and products stay below 3n. */
static inline size_t digits_for(size_t bits) {
    return (bits + 8 + BLOCK * DIGIT_BITS - 1) / (BLOCK * DIGIT_BITS) * BLOCK;
}

static inline size_t stride_for(size_t digits) {
    return (digits + 7) / 8 * 8;
}

#endif
