/* Residues modulo one number, eight at a time in AVX-512 lanes; see mont_lanes_ifma.h. */
#include "mont.h"

#ifdef HAVE_IFMA
#define PARTS 1
#include "mont_lanes_ifma.h"

static TARGET void lanes_mul(const mont_ctx *ctx, uint64_t *out, const uint64_t *a, const uint64_t *b) {
    lane m[MAX_BLOCKS * BLOCK];
    mul_keep(ctx, out, a, b, m);
}

static TARGET void lanes_sqr_beside(const mont_ctx *ctx, uint64_t *out, const uint64_t *a, selection *side) {
    lane m[MAX_BLOCKS * BLOCK];
    sqr_keep(ctx, out, a, m, side);
}

#include "mont_algos.h"
#include "mont_buckets.h"

/* Powers modulo p^2 as pairs modulo the prime p of ctx */
static TARGET int pair_logs(const mont_ctx *ctx, uint8_t *out, size_t out_size, const uint8_t *in, size_t in_size,
                            const uint64_t *factors, size_t chunks, const uint64_t *lift, const uint8_t *exp,
                            size_t exp_bits, size_t count) {
    const unsigned window = 4;
    const size_t entries = 16, windows = (exp_bits + window - 1) / window, exp_size = (exp_bits + 7) / 8;
    const size_t half = LANE_WORDS(ctx), full = 2 * half, chunk_size = DIGIT_BITS * ctx->digits / 8;
    const size_t total = 2 * (entries + 3 + chunks + 1);
    uint64_t *table = lanes_new(ctx, total), *acc = table + entries * full, *y = acc + full, *unit = y + full;
    uint64_t *lanes = unit + full;
    uint64_t *row = calloc(ctx->stride, sizeof *row);
    if (!table || !row) {
        free(table);
        free(row);
        return -1;
    }
    for (size_t l = 0; l < LANES; l++) {
        for (size_t k = 0; k < 2 * (chunks + 1); k++) {
            lane_put(ctx, lanes + k * half, l, factors + k * ctx->stride);
        }
        unit[l] = 1;
    }
    memcpy(table, lanes + chunks * full, full * sizeof *table);
    uint64_t idx[LANES];
    selection side;
    for (size_t at = 0; at < count; at += LANES) {
        uint64_t *first = table + full;
        for (size_t k = 0; k < chunks; k++) {
            memset(acc, 0, full * sizeof *acc);
            for (size_t l = 0; l < LANES; l++) {
                size_t which = at + l < count ? at + l : count - 1, from = k * chunk_size;
                size_t left = from < in_size ? in_size - from : 0;
                row_unpack(ctx, row, in + which * in_size + (left ? from : 0), left < chunk_size ? left : chunk_size);
                lane_put(ctx, acc, l, row);
            }
            pair_mul(ctx, k ? acc : first, acc, lanes + k * full, lift);
            if (k) {
                lanes_add(ctx, first, acc);
                lanes_add(ctx, first + half, acc + half);
            }
        }
        for (size_t e = 2; e < entries; e++) {
            pair_mul(ctx, table + e * full, table + (e - 1) * full, first, lift);
        }
        for (size_t k = windows; k-- > 0;) {
            for (size_t l = 0; l < LANES; l++) {
                idx[l] = take_bits(exp, exp_size, k * window, window);
            }
            const int top = k + 1 == windows;
            side = select_begin(2 * ctx->digits, top ? acc : y, table, entries, idx);
            for (unsigned i = 0; i < window && !top; i++) {
                pair_sqr(ctx, acc, acc, lift, &side);
            }
            while (select_piece(&side)) {
            }
            if (!top) {
                pair_mul(ctx, acc, acc, y, lift);
            }
        }
        /* out of Montgomery form, where x0 is 1 */
        pair_mul(ctx, acc, acc, unit, lift);
        pair_canonical(ctx, acc);
        for (size_t l = 0; l < LANES && at + l < count; l++) {
            lane_get(ctx, row, acc + half, l);
            row_pack(ctx, out + (at + l) * out_size, out_size, row);
        }
    }
    wipe(idx, sizeof idx);
    wipe(&side, sizeof side);
    stack_wipe();
    wipe(row, ctx->stride * sizeof *row);
    free(row);
    lanes_free(ctx, table, total);
    return 0;
}

const mont_core mont_ifma = {
    .name = "avx512ifma",
    .digit_bits = DIGIT_BITS,
    .parts = PARTS,
    .digits = digits_for,
    .stride = stride_for,
    .unpack = row_unpack,
    .mul = batch_mul,
    .square = batch_square,
    .import = batch_import,
    .export = batch_export,
    .affine = batch_affine,
    .power = batch_power,
    .fixed_table = fixed_table,
    .fixed_power = fixed_power,
    .segments = batch_segments,
    .buckets = batch_buckets,
    .logs = pair_logs,
};
#else
typedef int mont_ifma_is_not_built_here;
#endif
