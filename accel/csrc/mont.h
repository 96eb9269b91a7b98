/* Batches of residues modulo one odd number, in Montgomery form. See accel/notes/montgomery.md for the representation
 * and its bounds. Nothing here knows Python, allocates for the caller, or checks a caller's length: module.c does. */
#ifndef INTERCONN_MONT_H
#define INTERCONN_MONT_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct {
    size_t bits;    /* of the modulus */
    size_t digits;  /* of an element: those of R for each of its parts */
    size_t stride;  /* words of one element in memory, >= digits; the rest is zero */
    uint64_t n0;    /* -1 / n modulo one digit */
    int adx;        /* portable: whether mulx, adcx and adox may be used */
    uint64_t *n;    /* stride words each; of pairs the number whose square is the modulus */
    uint64_t *one;  /* R modulo the modulus */
    uint64_t *lift; /* of pairs: a multiple of n whose digits lie between 2^(digit_bits + 1) and twice that */
    uint64_t *near; /* digits of n0 n + 1, whose lowest is 0: one more than n has; made by mont_prepare */
} mont_ctx;

/* One implementation. Elements are rows of ctx->stride words; `count` of them make a batch; a step of 0 repeats one row.
 * Results may overwrite their operands row by row. Every function returns 0, or -1 where there was no memory. */
typedef struct {
    const char *name;
    unsigned digit_bits;
    unsigned parts; /* numbers that an element consists of: 2 for pairs x0 + x1 n modulo n^2 */
    size_t (*digits)(size_t bits);
    size_t (*stride)(size_t digits);

    /* Little-endian bytes of any size up to all digits to one row, no arithmetic; for bench/ct, which has no Python. */
    void (*unpack)(const mont_ctx *ctx, uint64_t *row, const uint8_t *bytes, size_t size);

    /* out = a * b */
    int (*mul)(const mont_ctx *ctx, uint64_t *out, const uint64_t *a, size_t a_step, const uint64_t *b, size_t b_step,
               size_t count);
    /* out = a^(2^times), times >= 1 */
    int (*square)(const mont_ctx *ctx, uint64_t *out, const uint64_t *a, size_t times, size_t count);
    /* out = sum over k of chunk_k(bytes) * factors[k]; chunks of as many bits as R, so that factors R^(k+2) bring
     * a long number into Montgomery form */
    int (*import)(const mont_ctx *ctx, uint64_t *out, const uint8_t *bytes, size_t size, const uint64_t *factors,
                  size_t chunks, size_t count);
    /* canonical residues out of Montgomery form */
    int (*export)(const mont_ctx *ctx, uint8_t *bytes, size_t size, const uint64_t *a, size_t count);
    /* out = a * (m * slope + 1), m plain (no longer than R), slope = s * R^2 */
    int (*affine)(const mont_ctx *ctx, uint64_t *out, const uint64_t *a, size_t a_step, const uint8_t *m, size_t size,
                  const uint64_t *slope, size_t count);
    /* out = a^e; exponents of exp_bits bits at exp_step bytes from each other (0: one for all). scan: the table of
     * powers is read whole at every step, so that time and addresses do not depend on the exponents; else exp_step
     * must be 0 */
    int (*power)(const mont_ctx *ctx, uint64_t *out, const uint64_t *a, const uint8_t *exps, size_t exp_step,
                 size_t exp_bits, int scan, size_t count);
    /* table[(k << window) + d] = base^(d << (window * k)); with scan each window in an order of the core's own */
    int (*fixed_table)(const mont_ctx *ctx, uint64_t *table, const uint64_t *base, unsigned window, size_t windows,
                       int scan);
    /* out = a * base^e with a table made for the same scan, which means the same as above */
    int (*fixed_power)(const mont_ctx *ctx, uint64_t *out, const uint64_t *a, size_t a_step, const uint64_t *table,
                       unsigned window, size_t windows, const uint8_t *exps, size_t exp_size, int scan, size_t count);
    /* out[s] = product of src[idx[j]], starts[s] <= j < starts[s + 1]; times and addresses depend on idx and starts */
    int (*segments)(const mont_ctx *ctx, uint64_t *out, const uint64_t *src, const int64_t *idx, const int64_t *starts,
                    size_t count);
    /* out[2 t] = product of bucket (t, s)^s, out[2 t + 1] = product of bucket (t, s) over sizes s from 1 to `sizes`, for the
     * tasks t that `next` still gives; bucket (t, s) is segment t * sizes + s - 1 of src, idx and starts as above */
    int (*buckets)(const mont_ctx *ctx, uint64_t *out, const uint64_t *src, const int64_t *idx, const int64_t *starts,
                   size_t sizes, size_t tasks, atomic_size_t *next);
    /* Of ctx with a prime p: out = (c^e mod p^2 - 1) / p, canonical, for e a multiple of p - 1 and c prime to p, in bytes
     * of any size up to chunks * digits. factors: chunks + 1 pairs of rows, R^(k+2) mod p^2 for chunk k and R last, as
     * remainder and quotient by p; lift: a multiple of p whose digits lie between 2^(digit_bits + 1) and twice that.
     * Constant in time. Missing where it would gain nothing. */
    int (*logs)(const mont_ctx *ctx, uint8_t *out, size_t out_size, const uint8_t *in, size_t in_size,
                const uint64_t *factors, size_t chunks, const uint64_t *lift, const uint8_t *exp, size_t exp_bits,
                size_t count);
} mont_core;

extern const mont_core mont_portable;
#if defined(__x86_64__) && defined(__GNUC__)
#define HAVE_IFMA 1
extern const mont_core mont_ifma, mont_pairs_ifma;
#endif

/* `width` <= 57 bits of a little-endian byte string from bit `at`; zero beyond its end. */
static inline uint64_t take_bits(const uint8_t *bytes, size_t size, size_t at, unsigned width) {
    uint64_t value = 0;
    size_t byte = at >> 3;
    if (byte + 8 <= size) {
        memcpy(&value, bytes + byte, 8);
    } else {
        for (unsigned i = 0; byte + i < size; i++) {
            value |= (uint64_t)bytes[byte + i] << (8 * i);
        }
    }
    return value >> (at & 7) & ((UINT64_C(1) << width) - 1);
}

#define MONT_ROWS(stride) (4 * (stride) + 8) /* words of n, one, lift and near */

/* The constants that follow from n. */
static inline void mont_prepare(mont_ctx *ctx, unsigned digit_bits, unsigned parts) {
    uint64_t inverse = 1; /* Newton: each round doubles the correct bits */
    for (int i = 0; i < 6; i++) {
        inverse *= 2 - ctx->n[0] * inverse;
    }
    ctx->n0 = 0 - inverse;
    if (digit_bits < 64) {
        /* the low digit decides the low bits of the inverse, so cutting is enough */
        const uint64_t mask = (UINT64_C(1) << digit_bits) - 1;
        const size_t digits = ctx->digits / parts;
        unsigned __int128 sum = 1;
        ctx->n0 &= mask;
        for (size_t j = 0; j < digits; j++) {
            sum += (unsigned __int128)ctx->n0 * ctx->n[j];
            ctx->near[j] = (uint64_t)sum & mask;
            sum >>= digit_bits;
        }
        ctx->near[digits] = (uint64_t)sum;
    }
}

/* Clears memory that held secrets; the compiler may not leave it out. */
static inline void wipe(void *memory, size_t size) {
    memset(memory, 0, size);
    __asm__ volatile("" : : "r"(memory) : "memory");
}

#endif
