/* Residues modulo the square of one number n as pairs x0 + x1 n, eight at a time in AVX-512 lanes; see
 * accel/notes/montgomery.md. An element is the digits of x0, then those of x1; ctx->digits counts both, ctx->n is n. */
#include "mont.h"

#ifdef HAVE_IFMA
#define PARTS 2
#include "mont_lanes_ifma.h"

INLINE mont_ctx half_of(const mont_ctx *ctx) {
    mont_ctx half = *ctx;
    half.digits = ctx->digits / 2;
    half.bits = (ctx->bits + 1) / 2;
    return half;
}

static TARGET void lanes_mul(const mont_ctx *ctx, uint64_t *out, const uint64_t *a, const uint64_t *b) {
    const mont_ctx half = half_of(ctx);
    pair_mul(&half, out, a, b, ctx->lift);
}

static TARGET void lanes_sqr_beside(const mont_ctx *ctx, uint64_t *out, const uint64_t *a, selection *side) {
    const mont_ctx half = half_of(ctx);
    pair_sqr(&half, out, a, ctx->lift, side);
}

/* From a product with one to the number x0 + x1 n in [0, n^2). */
static TARGET void pair_join(const mont_ctx *ctx, uint64_t *x_words) {
    const mont_ctx half = half_of(ctx);
    const int blocks = (int)(half.digits / BLOCK);
    lane *x = (lane *)x_words, second[MAX_BLOCKS * BLOCK], acc[20];
    pair_canonical(&half, x_words);
    memcpy(second, x + half.digits, half.digits * sizeof *x);
    clear_columns(acc);
    for (int k = 0; k < 2 * blocks - 1; k++) {
        if (k < blocks) {
#pragma GCC unroll 10
            for (int j = 0; j < BLOCK; j++) {
                acc[j] = _mm512_add_epi64(acc[j], x[BLOCK * k + j]);
            }
        }
        for (int i = k < blocks ? 0 : k - blocks + 1; i <= (k < blocks ? k : blocks - 1); i++) {
            tile_shared(acc, second + BLOCK * i, ctx->n + BLOCK * (k - i));
        }
        emit(acc, x + BLOCK * k);
    }
    emit(acc, x + BLOCK * (2 * blocks - 1));
}

#define lanes_canonical pair_join
#include "mont_algos.h"
#include "mont_buckets.h"

static size_t pair_digits(size_t bits) {
    return 2 * digits_for((bits + 1) / 2);
}

const mont_core mont_pairs_ifma = {
    .name = "avx512ifma-pairs",
    .digit_bits = DIGIT_BITS,
    .parts = PARTS,
    .digits = pair_digits,
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
};
#else
typedef int mont_pairs_ifma_is_not_built_here;
#endif
