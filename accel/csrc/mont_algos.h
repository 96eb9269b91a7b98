/* The algorithms on batches, written once and included by every core after it has defined, for LANES elements at once
 * in a form of its own (`lanes`, LANE_WORDS(ctx) words, 64-byte aligned):
 *   lanes_load(ctx, x, rows)       LANES row pointers to lanes        lanes_store(ctx, rows, x, count)
 *   lane_put(ctx, x, lane, row)    one row                            lane_get(ctx, row, x, lane)
 *   lanes_mul, lanes_sqr (ctx, out, ...)                              lanes_add(ctx, x, y)
 *   lanes_canonical(ctx, x)        to [0, n)
 *   lanes_climb(ctx, x, times, out, table, entries, idx)   x squared so many times, and an entry of a table of lanes,
 *                                                      which is read whole
 *   lanes_select_fixed(ctx, out, part, window, idx)    part of a fixed table that was laid out by fixed_arrange
 *   fixed_arrange(ctx, part, window, scratch)          rows of one window, in place, for lanes_select_fixed
 *   row_unpack, row_pack                               RADIX_DIGITS(ctx)   digits of R
 *   STACK_WORDS                    what the deepest of these functions take of the stack
 */
#include <stdlib.h>
#include <string.h>

static uint64_t *lanes_new(const mont_ctx *ctx, size_t count) {
    size_t size = count * LANE_WORDS(ctx) * sizeof(uint64_t);
    uint64_t *memory = aligned_alloc(64, (size + 63) / 64 * 64);
    if (memory) {
        memset(memory, 0, size);
    }
    return memory;
}

static void lanes_free(const mont_ctx *ctx, uint64_t *memory, size_t count) {
    wipe(memory, count * LANE_WORDS(ctx) * sizeof(uint64_t));
    free(memory);
}

/* What products of secrets left below on the stack. */
static __attribute__((noinline)) void stack_wipe(void) {
    uint64_t below[STACK_WORDS];
    wipe(below, sizeof below);
}

static inline void spread(const uint64_t *rows[LANES], const uint64_t *a, size_t step, size_t at, size_t count) {
    for (size_t l = 0; l < LANES; l++) {
        rows[l] = a + (at + l < count ? at + l : count - 1) * step;
    }
}

static inline void gather_out(uint64_t *rows[LANES], uint64_t *out, size_t step, size_t at) {
    for (size_t l = 0; l < LANES; l++) {
        rows[l] = out + (at + l) * step;
    }
}

static TARGET int batch_mul(const mont_ctx *ctx, uint64_t *out, const uint64_t *a, size_t a_step, const uint64_t *b,
                            size_t b_step, size_t count) {
    uint64_t *x = lanes_new(ctx, 2), *y = x + LANE_WORDS(ctx);
    if (!x) {
        return -1;
    }
    for (size_t at = 0; at < count; at += LANES) {
        const uint64_t *rows[LANES];
        uint64_t *outs[LANES];
        spread(rows, a, a_step, at, count);
        lanes_load(ctx, x, rows);
        spread(rows, b, b_step, at, count);
        lanes_load(ctx, y, rows);
        lanes_mul(ctx, x, x, y);
        gather_out(outs, out, ctx->stride, at);
        lanes_store(ctx, outs, x, count - at);
    }
    lanes_free(ctx, x, 2);
    return 0;
}

static TARGET int batch_square(const mont_ctx *ctx, uint64_t *out, const uint64_t *a, size_t times, size_t count) {
    uint64_t *x = lanes_new(ctx, 1);
    if (!x) {
        return -1;
    }
    for (size_t at = 0; at < count; at += LANES) {
        const uint64_t *rows[LANES];
        uint64_t *outs[LANES];
        spread(rows, a, ctx->stride, at, count);
        lanes_load(ctx, x, rows);
        for (size_t i = 0; i < times; i++) {
            lanes_sqr(ctx, x, x);
        }
        gather_out(outs, out, ctx->stride, at);
        lanes_store(ctx, outs, x, count - at);
    }
    lanes_free(ctx, x, 1);
    return 0;
}

static TARGET int batch_import(const mont_ctx *ctx, uint64_t *out, const uint8_t *bytes, size_t size,
                               const uint64_t *factors, size_t chunks, size_t count) {
    /* A chunk must start on a byte: DIGIT_BITS * digits is a multiple of 8 in every core. */
    size_t chunk_size = DIGIT_BITS * RADIX_DIGITS(ctx) / 8;
    uint64_t *x = lanes_new(ctx, 3), *f = x + LANE_WORDS(ctx), *sum = f + LANE_WORDS(ctx);
    uint64_t *row = calloc(ctx->stride, sizeof *row);
    if (!x || !row) {
        free(row);
        free(x);
        return -1;
    }
    for (size_t at = 0; at < count; at += LANES) {
        for (size_t k = 0; k < chunks; k++) {
            const uint64_t *rows[LANES];
            for (size_t l = 0; l < LANES; l++) {
                size_t which = at + l < count ? at + l : count - 1, from = k * chunk_size;
                size_t left = from < size ? size - from : 0;
                row_unpack(ctx, row, bytes + which * size + (left ? from : 0), left < chunk_size ? left : chunk_size);
                lane_put(ctx, x, l, row);
            }
            spread(rows, factors + k * ctx->stride, 0, 0, 1);
            lanes_load(ctx, f, rows);
            lanes_mul(ctx, k ? x : sum, x, f);
            if (k) {
                lanes_add(ctx, sum, x);
            }
        }
        uint64_t *outs[LANES];
        gather_out(outs, out, ctx->stride, at);
        lanes_store(ctx, outs, sum, count - at);
    }
    wipe(row, ctx->stride * sizeof *row);
    free(row);
    lanes_free(ctx, x, 3);
    return 0;
}

static TARGET int batch_export(const mont_ctx *ctx, uint8_t *bytes, size_t size, const uint64_t *a, size_t count) {
    uint64_t *x = lanes_new(ctx, 2), *unit = x + LANE_WORDS(ctx);
    uint64_t *row = calloc(ctx->stride, sizeof *row);
    if (!x || !row) {
        free(row);
        free(x);
        return -1;
    }
    row[0] = 1;
    for (size_t l = 0; l < LANES; l++) {
        lane_put(ctx, unit, l, row);
    }
    for (size_t at = 0; at < count; at += LANES) {
        const uint64_t *rows[LANES];
        spread(rows, a, ctx->stride, at, count);
        lanes_load(ctx, x, rows);
        lanes_mul(ctx, x, x, unit);
        lanes_canonical(ctx, x);
        for (size_t l = 0; l < LANES && at + l < count; l++) {
            lane_get(ctx, row, x, l);
            row_pack(ctx, bytes + (at + l) * size, size, row);
        }
    }
    wipe(row, ctx->stride * sizeof *row);
    free(row);
    lanes_free(ctx, x, 2);
    return 0;
}

static TARGET int batch_affine(const mont_ctx *ctx, uint64_t *out, const uint64_t *a, size_t a_step, const uint8_t *m,
                               size_t size, const uint64_t *slope, size_t count) {
    uint64_t *x = lanes_new(ctx, 4), *s = x + LANE_WORDS(ctx), *one = s + LANE_WORDS(ctx), *c = one + LANE_WORDS(ctx);
    uint64_t *row = calloc(ctx->stride, sizeof *row);
    if (!x || !row) {
        free(row);
        free(x);
        return -1;
    }
    for (size_t l = 0; l < LANES; l++) {
        lane_put(ctx, s, l, slope);
        lane_put(ctx, one, l, ctx->one);
    }
    for (size_t at = 0; at < count; at += LANES) {
        const uint64_t *rows[LANES];
        uint64_t *outs[LANES];
        for (size_t l = 0; l < LANES; l++) {
            row_unpack(ctx, row, m + (at + l < count ? at + l : count - 1) * size, size);
            lane_put(ctx, x, l, row);
        }
        lanes_mul(ctx, x, x, s);
        lanes_add(ctx, x, one);
        spread(rows, a, a_step, at, count);
        lanes_load(ctx, c, rows);
        lanes_mul(ctx, x, x, c);
        gather_out(outs, out, ctx->stride, at);
        lanes_store(ctx, outs, x, count - at);
    }
    wipe(row, ctx->stride * sizeof *row);
    free(row);
    lanes_free(ctx, x, 4);
    return 0;
}

/* acc = first^e for the exponents of LANES numbers from `at` on, in windows of fixed length from the top, the first of
 * which is the start. table[0] is one, table[1] the base. The whole table is read at every step. */
static TARGET void power_scanned(const mont_ctx *ctx, uint64_t *acc, uint64_t *y, uint64_t *table, const uint8_t *exps,
                                 size_t exp_step, size_t exp_bits, unsigned window, size_t at, size_t count) {
    const size_t words = LANE_WORDS(ctx), entries = (size_t)1 << window, exp_size = (exp_bits + 7) / 8;
    const size_t windows = (exp_bits + window - 1) / window;
    for (size_t e = 2; e < entries; e++) {
        uint64_t *entry = table + e * words;
        if (e & 1) {
            lanes_mul(ctx, entry, entry - words, table + words);
        } else {
            lanes_sqr(ctx, entry, table + e / 2 * words);
        }
    }
    uint64_t idx[LANES];
    memcpy(acc, table, words * sizeof *acc);
    for (size_t k = windows; k-- > 0;) {
        const int top = k + 1 == windows;
        for (size_t l = 0; l < LANES; l++) {
            size_t which = at + l < count ? at + l : count - 1;
            idx[l] = take_bits(exps + which * exp_step, exp_size, k * window, window);
        }
        lanes_climb(ctx, acc, top ? 0 : window, top ? acc : y, table, entries, idx);
        if (!top) {
            lanes_mul(ctx, acc, acc, y);
        }
    }
    wipe(idx, sizeof idx);
}

/* acc = table[1]^e for one public exponent: windows that begin and end with a one, so that only odd powers are needed and
 * zeros between windows cost squares alone. table[0] is one; table[1 + i] becomes the power 2 i + 1. */
static TARGET void power_sliding(const mont_ctx *ctx, uint64_t *acc, uint64_t *table, const uint8_t *exp, size_t exp_bits,
                                 unsigned window) {
    const size_t words = LANE_WORDS(ctx), exp_size = (exp_bits + 7) / 8;
    uint64_t *odd = table + words;
    if (window > 1) {
        lanes_sqr(ctx, acc, odd);
    }
    for (size_t i = 1; i < (size_t)1 << (window - 1); i++) {
        lanes_mul(ctx, odd + i * words, odd + (i - 1) * words, acc);
    }
    int begun = 0;
    memcpy(acc, table, words * sizeof *acc);
    for (size_t high = exp_bits; high > 0;) {
        size_t low = high > window ? high - window : 0; /* of a window of the bits low .. high - 1 */
        if (take_bits(exp, exp_size, high - 1, 1)) {
            while (!take_bits(exp, exp_size, low, 1)) {
                low++;
            }
        } else {
            low = high - 1;
        }
        const uint64_t digit = take_bits(exp, exp_size, low, (unsigned)(high - low));
        for (; high > low; high--) {
            if (begun) {
                lanes_sqr(ctx, acc, acc);
            }
        }
        if (digit && begun) {
            lanes_mul(ctx, acc, acc, odd + digit / 2 * words);
        } else if (digit) {
            memcpy(acc, odd + digit / 2 * words, words * sizeof *acc);
            begun = 1;
        }
    }
}

static TARGET int batch_power(const mont_ctx *ctx, uint64_t *out, const uint64_t *a, const uint8_t *exps,
                              size_t exp_step, size_t exp_bits, int scan, size_t count) {
    /* Measured; of a scan, 16 entries of lanes of up to 40 digits still fit the first cache. */
    static const size_t longest[2][6] = {{16, 48, 120, 320, 700, 1800}, {8, 40, 160, 600, SIZE_MAX, SIZE_MAX}};
    unsigned window = 1;
    while (window < 7 && exp_bits > longest[scan != 0][window - 1]) {
        window++;
    }
    if (LANES > 1 && scan && ctx->digits <= 40 && window > 4) {
        window = 4;
    }
    const size_t entries = scan ? (size_t)1 << window : 1 + ((size_t)1 << (window - 1));
    uint64_t *table = lanes_new(ctx, entries + 2), *acc = table + entries * LANE_WORDS(ctx), *y = acc + LANE_WORDS(ctx);
    if (!table) {
        return -1;
    }
    for (size_t l = 0; l < LANES; l++) {
        lane_put(ctx, table, l, ctx->one);
    }
    for (size_t at = 0; at < count; at += LANES) {
        const uint64_t *rows[LANES];
        uint64_t *outs[LANES];
        spread(rows, a, ctx->stride, at, count);
        lanes_load(ctx, table + LANE_WORDS(ctx), rows);
        if (scan) {
            power_scanned(ctx, acc, y, table, exps, exp_step, exp_bits, window, at, count);
        } else {
            power_sliding(ctx, acc, table, exps, exp_bits, window);
        }
        gather_out(outs, out, ctx->stride, at);
        lanes_store(ctx, outs, acc, count - at);
    }
    if (scan) {
        stack_wipe();
    }
    lanes_free(ctx, table, entries + 2);
    return 0;
}

static TARGET int fixed_table(const mont_ctx *ctx, uint64_t *table, const uint64_t *base, unsigned window,
                              size_t windows, int scan) {
    size_t entries = (size_t)1 << window, row = ctx->stride;
    uint64_t *power = calloc(row, sizeof *power), *scratch = calloc(entries * row, sizeof *scratch);
    if (!power || !scratch) {
        free(power);
        free(scratch);
        return -1;
    }
    memcpy(power, base, row * sizeof *power);
    int failed = 0;
    for (size_t k = 0; k < windows && !failed; k++) {
        uint64_t *part = table + (k << window) * row;
        memcpy(part, ctx->one, row * sizeof *part);
        memcpy(part + row, power, row * sizeof *part);
        for (size_t known = 1; 2 * known <= entries / 2 && !failed; known *= 2) {
            /* entries known+1 .. 2*known from 1 .. known */
            failed = batch_mul(ctx, part + (known + 1) * row, part + row, row, part + known * row, 0, known);
        }
        size_t half = entries / 2;
        if (window > 1 && !failed) {
            failed = batch_mul(ctx, part + (half + 1) * row, part + row, row, part + half * row, 0, half - 1);
        }
        if (!failed) {
            failed = batch_mul(ctx, power, part + half * row, 0, part + half * row, 0, 1);
        }
        if (scan && !failed) {
            fixed_arrange(ctx, part, window, scratch);
        }
    }
    wipe(power, row * sizeof *power);
    wipe(scratch, entries * row * sizeof *scratch);
    free(power);
    free(scratch);
    return failed;
}

#define TOGETHER 16 /* groups of lanes that go through one window of the table, while the cache holds it */

static TARGET int fixed_power(const mont_ctx *ctx, uint64_t *out, const uint64_t *a, size_t a_step,
                              const uint64_t *table, unsigned window, size_t windows, const uint8_t *exps,
                              size_t exp_size, int scan, size_t count) {
    uint64_t *acc = lanes_new(ctx, TOGETHER + 1), *y = acc + TOGETHER * LANE_WORDS(ctx);
    if (!acc) {
        return -1;
    }
    uint64_t idx[LANES];
    for (size_t start = 0; start < count; start += TOGETHER * LANES) {
        size_t end = count - start < TOGETHER * LANES ? count : start + TOGETHER * LANES;
        const uint64_t *rows[LANES];
        uint64_t *x = acc;
        for (size_t at = start; at < end; at += LANES, x += LANE_WORDS(ctx)) {
            spread(rows, a, a_step, at, count);
            lanes_load(ctx, x, rows);
        }
        for (size_t k = 0; k < windows; k++) {
            const uint64_t *part = table + (k << window) * ctx->stride;
            x = acc;
            for (size_t at = start; at < end; at += LANES, x += LANE_WORDS(ctx)) {
                for (size_t l = 0; l < LANES; l++) {
                    size_t which = at + l < count ? at + l : count - 1;
                    idx[l] = take_bits(exps + which * exp_size, exp_size, k * window, window);
                }
                if (scan) {
                    lanes_select_fixed(ctx, y, part, window, idx);
                } else {
                    for (size_t l = 0; l < LANES; l++) {
                        rows[l] = part + idx[l] * ctx->stride;
                        /* the entry that comes after this multiplication: the table is larger than the caches */
                        const int more = at + LANES < end, next = k + 1 < windows;
                        size_t soon = more ? at + LANES + l : start + l;
                        soon = soon < count ? soon : count - 1;
                        size_t window_at = more ? k : k + next;
                        const uint64_t *entry = table + ((window_at << window) +
                                                         take_bits(exps + soon * exp_size, exp_size, window_at * window,
                                                                   window)) * ctx->stride;
                        for (size_t j = 0; j < ctx->stride; j += 8) {
                            __builtin_prefetch(entry + j);
                        }
                    }
                    lanes_load(ctx, y, rows);
                }
                lanes_mul(ctx, x, x, y);
            }
        }
        x = acc;
        for (size_t at = start; at < end; at += LANES, x += LANE_WORDS(ctx)) {
            uint64_t *outs[LANES];
            gather_out(outs, out, ctx->stride, at);
            lanes_store(ctx, outs, x, count - at);
        }
    }
    wipe(idx, sizeof idx);
    stack_wipe();
    lanes_free(ctx, acc, TOGETHER + 1);
    return 0;
}

static TARGET int batch_segments(const mont_ctx *ctx, uint64_t *out, const uint64_t *src, const int64_t *idx,
                                 const int64_t *starts, size_t count) {
    uint64_t *acc = lanes_new(ctx, 2), *y = acc + LANE_WORDS(ctx);
    if (!acc) {
        return -1;
    }
    size_t row = ctx->stride, next = 0;
    int64_t segment[LANES], at[LANES], end[LANES];
    for (size_t l = 0; l < LANES; l++) {
        segment[l] = -1;
        at[l] = end[l] = 0;
        lane_put(ctx, acc, l, ctx->one);
    }
    for (;;) {
        const uint64_t *rows[LANES];
        int busy = 0;
        for (size_t l = 0; l < LANES; l++) {
            rows[l] = ctx->one;
            /* A lane that is free takes the next segment; short ones need no multiplication. */
            while (segment[l] < 0 && next < count) {
                int64_t from = starts[next], to = starts[next + 1];
                if (to - from < 2) {
                    memcpy(out + next * row, to == from ? ctx->one : src + idx[from] * row, row * sizeof *out);
                } else {
                    segment[l] = (int64_t)next;
                    at[l] = from + 1;
                    end[l] = to;
                    lane_put(ctx, acc, l, src + idx[from] * row);
                }
                next++;
            }
            if (segment[l] >= 0) {
                busy = 1;
                rows[l] = src + idx[at[l]++] * row;
                if (at[l] < end[l]) {
                    const uint64_t *soon = src + idx[at[l]] * row;
                    for (size_t j = 0; j < row; j += 8) {
                        __builtin_prefetch(soon + j);
                    }
                }
            }
        }
        if (!busy) {
            break;
        }
        lanes_load(ctx, y, rows);
        lanes_mul(ctx, acc, acc, y);
        for (size_t l = 0; l < LANES; l++) {
            if (segment[l] >= 0 && at[l] == end[l]) {
                lane_get(ctx, out + segment[l] * row, acc, l);
                segment[l] = -1;
            }
        }
    }
    lanes_free(ctx, acc, 2);
    return 0;
}
