/* One residue at a time on 64-bit limbs, for any machine with a 128-bit product. Values stay in [0, n) between calls.
 * No branch and no address depends on a value; see accel/notes/montgomery.md. */
#include "mont.h"

#define TARGET
#define LANES 1
#define DIGIT_BITS 64
#define MAX_LIMBS 260
#define STACK_WORDS (4 * MAX_LIMBS) /* three numbers in lanes_sqr and redc, and room for the rest */
#define LANE_WORDS(ctx) ((ctx)->digits)
#define RADIX_DIGITS(ctx) ((ctx)->digits)

typedef unsigned __int128 wide;

#if defined(__x86_64__) && defined(__GNUC__)
/* As add_product, with one carry chain for the products' halves (CF) and one for the sums (OF), eight limbs a round. */
static inline uint64_t add_product_adx(uint64_t *t, const uint64_t *a, size_t count, uint64_t x) {
    uint64_t carry, low, high, rounds = count / 8, rest = count % 8;
#define LIMB(at, into, from)                    \
    "mulx " #at "(%[a]), %[low], %[" #into "]\n\t" \
    "adcx %[" #from "], %[low]\n\t"             \
    "adox " #at "(%[t]), %[low]\n\t"            \
    "movq %[low], " #at "(%[t])\n\t"
    __asm__ volatile("xorl %k[carry], %k[carry]\n\t" /* clears both flags; lea and jrcxz leave them */
                     "movq %[rest], %%rcx\n"
                     "1:\n\t"
                     "jrcxz 2f\n\t"
                     "mulx (%[a]), %[low], %[high]\n\t"
                     "adcx %[carry], %[low]\n\t"
                     "adox (%[t]), %[low]\n\t"
                     "movq %[low], (%[t])\n\t"
                     "movq %[high], %[carry]\n\t"
                     "leaq 8(%[a]), %[a]\n\t"
                     "leaq 8(%[t]), %[t]\n\t"
                     "leaq -1(%%rcx), %%rcx\n\t"
                     "jmp 1b\n"
                     "2:\n\t"
                     "movq %[rounds], %%rcx\n\t"
                     "jrcxz 5f\n\t" /* reaches 127 bytes, less than the loop */
                     "jmp 3f\n"
                     "5:\n\t"
                     "jmp 4f\n\t"
                     ".p2align 4\n"
                     "3:\n\t" LIMB(0, high, carry) LIMB(8, carry, high) LIMB(16, high, carry) LIMB(24, carry, high)
                         LIMB(32, high, carry) LIMB(40, carry, high) LIMB(48, high, carry) LIMB(56, carry, high)
                     "leaq 64(%[a]), %[a]\n\t"
                     "leaq 64(%[t]), %[t]\n\t"
                     "leaq -1(%%rcx), %%rcx\n\t"
                     "jrcxz 4f\n\t"
                     "jmp 3b\n"
                     "4:\n\t"
                     "movl $0, %k[low]\n\t"
                     "adcx %[low], %[carry]\n\t"
                     "adox %[low], %[carry]\n\t"
                     : [a] "+&r"(a), [t] "+&r"(t), [carry] "=&r"(carry), [low] "=&r"(low), [high] "=&r"(high)
                     : "d"(x), [rounds] "r"(rounds), [rest] "r"(rest)
                     : "rcx", "cc", "memory");
#undef LIMB
    return carry;
}
#endif

/* t[0..count) += a * x; returns the carry limb */
static inline uint64_t add_product(const mont_ctx *ctx, uint64_t *t, const uint64_t *a, size_t count, uint64_t x) {
#if defined(__x86_64__) && defined(__GNUC__)
    if (ctx->adx) {
        return add_product_adx(t, a, count, x);
    }
#endif
    (void)ctx;
    uint64_t carry = 0;
    size_t j = 0;
    for (; j + 4 <= count; j += 4) {
#pragma GCC unroll 4
        for (size_t k = 0; k < 4; k++) {
            wide sum = (wide)a[j + k] * x + t[j + k] + carry;
            t[j + k] = (uint64_t)sum;
            carry = (uint64_t)(sum >> 64);
        }
    }
    for (; j < count; j++) {
        wide sum = (wide)a[j] * x + t[j] + carry;
        t[j] = (uint64_t)sum;
        carry = (uint64_t)(sum >> 64);
    }
    return carry;
}

/* out = t / R mod n for t < n R of 2 * limbs limbs; destroys t */
static void redc(const mont_ctx *ctx, uint64_t *out, uint64_t *t) {
    const size_t limbs = ctx->digits;
    uint64_t top = 0;
    for (size_t i = 0; i < limbs; i++) {
        uint64_t carry = add_product(ctx, t + i, ctx->n, limbs, t[i] * ctx->n0);
        wide sum = (wide)t[i + limbs] + carry + top;
        t[i + limbs] = (uint64_t)sum;
        top = (uint64_t)(sum >> 64);
    }
    uint64_t borrow = 0, rest[MAX_LIMBS];
    for (size_t j = 0; j < limbs; j++) {
        wide d = (wide)t[limbs + j] - ctx->n[j] - borrow;
        rest[j] = (uint64_t)d;
        borrow = (uint64_t)(d >> 64) & 1;
    }
    uint64_t keep = 0 - (borrow & ~top & 1);
    for (size_t j = 0; j < limbs; j++) {
        out[j] = (t[limbs + j] & keep) | (rest[j] & ~keep);
    }
}

static void lanes_mul(const mont_ctx *ctx, uint64_t *out, const uint64_t *a, const uint64_t *b) {
    const size_t limbs = ctx->digits;
    uint64_t t[2 * MAX_LIMBS];
    for (size_t j = 0; j < limbs; j++) {
        t[j] = 0;
    }
    for (size_t i = 0; i < limbs; i++) {
        t[i + limbs] = add_product(ctx, t + i, b, limbs, a[i]);
    }
    redc(ctx, out, t);
}

static void lanes_sqr(const mont_ctx *ctx, uint64_t *out, const uint64_t *a) {
    const size_t limbs = ctx->digits;
    uint64_t t[2 * MAX_LIMBS];
    for (size_t j = 0; j < 2 * limbs; j++) {
        t[j] = 0;
    }
    for (size_t i = 0; i + 1 < limbs; i++) {
        t[i + limbs] = add_product(ctx, t + 2 * i + 1, a + i + 1, limbs - i - 1, a[i]);
    }
    uint64_t carry = 0, shifted = 0;
    for (size_t i = 0; i < limbs; i++) {
        wide square = (wide)a[i] * a[i];
        uint64_t low = t[2 * i] << 1 | shifted, high = t[2 * i + 1] << 1 | t[2 * i] >> 63;
        shifted = t[2 * i + 1] >> 63;
        wide sum = (wide)low + (uint64_t)square + carry;
        t[2 * i] = (uint64_t)sum;
        sum = (wide)high + (uint64_t)(square >> 64) + (uint64_t)(sum >> 64);
        t[2 * i + 1] = (uint64_t)sum;
        carry = (uint64_t)(sum >> 64);
    }
    redc(ctx, out, t);
}

static void lanes_add(const mont_ctx *ctx, uint64_t *x, const uint64_t *y) {
    const size_t limbs = ctx->digits;
    uint64_t carry = 0, borrow = 0, rest[MAX_LIMBS];
    for (size_t j = 0; j < limbs; j++) {
        wide sum = (wide)x[j] + y[j] + carry;
        x[j] = (uint64_t)sum;
        carry = (uint64_t)(sum >> 64);
        wide d = (wide)x[j] - ctx->n[j] - borrow;
        rest[j] = (uint64_t)d;
        borrow = (uint64_t)(d >> 64) & 1;
    }
    uint64_t keep = 0 - (borrow & ~carry & 1);
    for (size_t j = 0; j < limbs; j++) {
        x[j] = (x[j] & keep) | (rest[j] & ~keep);
    }
}

static void lanes_canonical(const mont_ctx *ctx, uint64_t *x) {
    (void)ctx;
    (void)x;
}

static inline void lane_put(const mont_ctx *ctx, uint64_t *x, size_t l, const uint64_t *row) {
    for (size_t j = 0; j < ctx->digits; j++) {
        x[j + l] = row[j];
    }
}

static inline void lane_get(const mont_ctx *ctx, uint64_t *row, const uint64_t *x, size_t l) {
    lane_put(ctx, row, 0, x + l);
}

static void lanes_load(const mont_ctx *ctx, uint64_t *x, const uint64_t *const rows[LANES]) {
    lane_put(ctx, x, 0, rows[0]);
}

static void lanes_merge(const mont_ctx *ctx, uint64_t *x, const uint64_t *y, unsigned which) {
    if (which & 1) {
        lane_put(ctx, x, 0, y);
    }
}

static void lanes_store(const mont_ctx *ctx, uint64_t *const rows[LANES], const uint64_t *x, size_t count) {
    (void)count;
    lane_put(ctx, rows[0], 0, x);
}

static void lanes_select(const mont_ctx *ctx, uint64_t *out, const uint64_t *rows, size_t entries,
                         const uint64_t idx[LANES]) {
    typedef uint64_t pair __attribute__((vector_size(16)));
    const size_t digits = ctx->digits;
    size_t j = 0;
    for (; j + 8 <= digits; j += 8) {
        pair acc[4] = {{0}};
        for (size_t e = 0; e < entries; e++) {
            uint64_t other = e ^ idx[0], mask = ((other | (0 - other)) >> 63) - 1;
            pair part[4];
            memcpy(part, rows + e * digits + j, sizeof part);
#pragma GCC unroll 4
            for (int k = 0; k < 4; k++) {
                acc[k] |= part[k] & mask;
            }
        }
        memcpy(out + j, acc, sizeof acc);
    }
    for (; j < digits; j++) {
        uint64_t found = 0;
        for (size_t e = 0; e < entries; e++) {
            uint64_t other = e ^ idx[0], mask = ((other | (0 - other)) >> 63) - 1;
            found |= rows[e * digits + j] & mask;
        }
        out[j] = found;
    }
}

static void lanes_climb(const mont_ctx *ctx, uint64_t *x, unsigned times, uint64_t *out, const uint64_t *table,
                        size_t entries, const uint64_t idx[LANES]) {
    for (unsigned i = 0; i < times; i++) {
        lanes_sqr(ctx, x, x);
    }
    lanes_select(ctx, out, table, entries, idx);
}

static void fixed_arrange(const mont_ctx *ctx, uint64_t *part, unsigned window, uint64_t *scratch) {
    (void)ctx, (void)part, (void)window, (void)scratch;
}

static void lanes_select_fixed(const mont_ctx *ctx, uint64_t *out, const uint64_t *part, unsigned window,
                               const uint64_t idx[LANES]) {
    lanes_select(ctx, out, part, (size_t)1 << window, idx);
}

static void row_unpack(const mont_ctx *ctx, uint64_t *row, const uint8_t *bytes, size_t size) {
    for (size_t j = 0; j < ctx->digits; j++) {
        row[j] = take_bits(bytes, size, 64 * j, 32) | take_bits(bytes, size, 64 * j + 32, 32) << 32;
    }
}

static void row_pack(const mont_ctx *ctx, uint8_t *bytes, size_t size, const uint64_t *row) {
    for (size_t i = 0; i < size; i++) {
        bytes[i] = i / 8 < ctx->digits ? (uint8_t)(row[i / 8] >> (8 * (i % 8))) : 0;
    }
}

#include "mont_algos.h"
#include "mont_buckets.h"

static size_t digits_for(size_t bits) {
    return (bits + DIGIT_BITS - 1) / DIGIT_BITS;
}

static size_t stride_for(size_t digits) {
    return digits;
}

const mont_core mont_portable = {
    .name = "portable",
    .digit_bits = DIGIT_BITS,
    .parts = 1,
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
};
