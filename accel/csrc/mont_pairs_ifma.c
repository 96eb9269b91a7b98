/* Residues modulo the square of one number n as pairs x0 + x1 n, eight at a time in AVX-512 lanes; see
 * accel/notes/montgomery.md. An element is the digits of x0, then those of x1; ctx->digits counts both, ctx->n is n. */
#include "mont.h"

#ifdef HAVE_IFMA
#define PARTS 2
#include "mont_lanes_ifma.h"

INLINE mont_ctx half_of(const mont_ctx *ctx) {
    mont_ctx half = *ctx;
    half.digits = ctx->digits / 2;
    return half;
}

static TARGET void lanes_mul(const mont_ctx *ctx, uint64_t *out, const uint64_t *a, const uint64_t *b) {
    const mont_ctx half = half_of(ctx);
    pair_mul(&half, out, a, b, ctx->lift);
}

static TARGET void lanes_sqr(const mont_ctx *ctx, uint64_t *out, const uint64_t *a) {
    const mont_ctx half = half_of(ctx);
    pair_sqr(&half, out, a, ctx->lift);
}

/* From a product with one, x0 <= n and x1 <= n + 1, to the number x0 + x1 n in [0, n^2). */
static TARGET void pair_join(const mont_ctx *ctx, uint64_t *x_words) {
    const mont_ctx half = half_of(ctx);
    const int blocks = (int)(half.digits / BLOCK);
    lane *x = (lane *)x_words, second[MAX_BLOCKS * BLOCK], acc[20];
    const lane mask = ALL_LANES(MASK52);
    /* x0 = n gives its n to x1: both are n - x0 short of it, and the carry of x0 + 2^52D - n tells which */
    lane carry = ALL_LANES(1);
    for (size_t j = 0; j < half.digits; j++) {
        lane sum = _mm512_add_epi64(_mm512_add_epi64(x[j], ALL_LANES(MASK52 - ctx->n[j])), carry);
        carry = _mm512_srli_epi64(sum, 52);
    }
    for (size_t j = 0; j < half.digits; j++) {
        lane sum = _mm512_add_epi64(x[half.digits + j], carry);
        second[j] = _mm512_and_si512(sum, mask);
        carry = _mm512_srli_epi64(sum, 52);
    }
    lanes_canonical(&half, x_words);
    lanes_canonical(&half, (uint64_t *)second);
#pragma GCC unroll 20
    for (int i = 0; i < 20; i++) {
        acc[i] = _mm512_setzero_si512();
    }
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
