/* Whether what the kernels execute depends on their secrets, and whether the cores agree: `make ct-check`, `make ct-trace`.
 *
 *   check poison [TEXT...]    under valgrind's memcheck, with the secrets marked as undefined: memcheck complains of every
 *                             branch and every address that depends on them. valgrind knows neither AVX-512 nor the SHA
 *                             instructions, so this takes a build with bench/ct/emulated, where they are plain C.
 *   check answers [TEXT...]   the same build without valgrind: the first 32 bytes that every core computes.
 *   check trace [TEXT...]     the kernels as they are, instruction by instruction (the CPU's trap flag), hashing the
 *                             instructions' addresses. Three secrets must give the same sequence. Sees every branch of
 *                             the machine code; does not see which data addresses are touched. x86-64 Linux only. A
 *                             step is a signal, which costs a microsecond or, on some virtual machines, fifty: then pick.
 *
 * A TEXT picks the kernels whose line contains it. The first two also compare every core with the portable one. None of them
 * measures time: an instruction whose own duration depends on its operands would not be seen (on the CPUs that these kernels
 * are for, integer multiplication, vpmadd52 and shuffles have none). The kernels that leak by their contract must be
 * caught, or the check itself fails. What depends on a secret on purpose stands in by_design.supp, with the reason. */
#define _GNU_SOURCE
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include "cpu.h"
#include "digest.h"
#include "group25519.h"
#include "masks.h"
#include "mont.h"
#include "rings.h"
#include "wcurve.h"
#include "x25519.h"

#ifdef HAVE_IFMA
#include <immintrin.h> /* the emulated one says so */
#endif
#ifdef EMULATED_LANES
#define LANES_NEED(ability) 0
#else
#define LANES_NEED(ability) (ability)
#endif

#if __has_include(<valgrind/memcheck.h>)
#include <valgrind/memcheck.h>
#else
#define RUNNING_ON_VALGRIND 0
#define VALGRIND_MAKE_MEM_UNDEFINED(at, size) ((void)(at), (void)(size))
#define VALGRIND_MAKE_MEM_DEFINED(at, size) ((void)(at), (void)(size))
#define VALGRIND_COUNT_ERRORS 0
#endif

#define COUNT 9 /* two groups of lanes, one of them not full: both ways through the kernels' loops */
#define SECRET 4096
#define OUT 8192

/* `secret` holds a kernel's secret, `known` the rest of its inputs. */
static uint8_t secret[SECRET], known[SECRET], out[OUT], expected[OUT], points[2][64 * COUNT], elements[32 * COUNT];
static uint8_t base_table[64 * WCURVE_WINDOWS * WCURVE_ENTRIES];

/* One core: what it has of each kernel */
typedef struct {
    const char *name;
    void (*x25519)(uint8_t *out, const uint8_t *scalars, size_t step, const uint8_t *points, size_t count);
    const wcurve *curves;
    const group25519 *group;
    const mont_core *residues, *squares; /* modulo any number, modulo a square */
    const mask_core *masks;
    digest_batch *sha256, *sm3;
    int (*rings)(const ring_shape *s, uint64_t *out, const uint64_t *a, const uint64_t *b);
    int needs; /* what the CPU must have */
} kernels;

static void leaky(const kernels *k) {
    uint64_t product = 1;
    (void)k;
    for (int i = 0; i < 64; i++) {
        product *= 3;
        if (secret[i] & 1) {
            __asm__ volatile("" : "+r"(product));
            product *= 5;
        }
    }
    memcpy(out, &product, 8);
}

static void x25519_one(const kernels *k) {
    k->x25519(out, secret, 0, known, COUNT);
}

static void x25519_each(const kernels *k) {
    k->x25519(out, secret, 32, known, COUNT);
}

/* --- curves --- */

#define CURVE_CASES(c, name)                                                                                           \
    static void name##_one(const kernels *k) {                                                                         \
        k->curves[c].multiply(out, secret, 0, points[c], COUNT);                                                       \
    }                                                                                                                  \
    static void name##_each(const kernels *k) {                                                                        \
        k->curves[c].multiply(out, secret, 32, points[c], COUNT);                                                      \
    }                                                                                                                  \
    static void name##_base(const kernels *k) {                                                                        \
        k->curves[c].multiply_base(out, secret, base_table, COUNT);                                                    \
    }                                                                                                                  \
    static void name##_map(const kernels *k) {                                                                         \
        k->curves[c].map(out, secret, 1, COUNT);                                                                       \
        k->curves[c].map(out + 64 * COUNT, secret, 2, COUNT);                                                          \
    }                                                                                                                  \
    static void name##_lift(const kernels *k) {                                                                        \
        uint8_t parities[COUNT];                                                                                       \
        for (int i = 0; i < COUNT; i++) {                                                                              \
            parities[i] = secret[512 + i] & 1;                                                                         \
        }                                                                                                              \
        k->curves[c].lift(out, out + 64 * COUNT, secret, parities, COUNT);                                             \
    }                                                                                                                  \
    static void name##_check(const kernels *k) {                                                                       \
        out[0] = (uint8_t)k->curves[c].check(points[c], COUNT);                                                        \
        out[1] = (uint8_t)k->curves[c].check(secret, COUNT);                                                           \
    }
CURVE_CASES(0, p256)
CURVE_CASES(1, sm2)

static void elligator_2(const kernels *k) {
    for (unsigned each = 1; each <= 2; each++) {
        for (int edwards = 0; edwards <= 1; edwards++) {
            k->group->hash(out + 32 * COUNT * (2 * (each - 1) + (unsigned)edwards), secret, each, edwards, COUNT);
        }
    }
}

static void ristretto_derive(const kernels *k) {
    k->group->derive(out, secret, COUNT);
}

static void ristretto_valid(const kernels *k) {
    out[0] = (uint8_t)k->group->valid(secret, COUNT);
}

static void ristretto_one(const kernels *k) {
    out[32 * COUNT] = (uint8_t)k->group->multiply(out, secret, 0, elements, COUNT);
}

static void ristretto_each(const kernels *k) {
    out[32 * COUNT] = (uint8_t)k->group->multiply(out, secret, 32, elements, COUNT);
}

/* --- residues --- */

#define WORDS 64  /* of a modulus */
#define STRIDE 64 /* of a row */
#define CHUNKS 2

typedef struct {
    mont_ctx ctx;
    uint64_t n[STRIDE], one[STRIDE], lift[STRIDE], near[STRIDE + 8], factors[2 * (CHUNKS + 1) * STRIDE];
} ring;

/* x = 2 x + more modulo n, without a branch; back comes what was subtracted of n */
static uint64_t twice(uint64_t *x, const uint64_t *n, size_t words, uint64_t more) {
    uint64_t rest[WORDS], borrow = 0;
    for (size_t i = 0; i < words; i++) {
        uint64_t top = x[i] >> 63;
        x[i] = x[i] << 1 | more;
        more = top;
        unsigned __int128 d = (unsigned __int128)x[i] - n[i] - borrow;
        rest[i] = (uint64_t)d;
        borrow = (uint64_t)(d >> 64) & 1;
    }
    uint64_t over = more | (borrow ^ 1);
    for (size_t i = 0; i < words; i++) {
        x[i] = (rest[i] & (0 - over)) | (x[i] & (over - 1));
    }
    return over;
}

/* 2^bits as a row: modulo n, or with `part` modulo n^2 as x0 + x1 n, where x0 takes `part` words of the row */
static void power_of_two(const mont_core *core, const ring *r, uint64_t *row, size_t bits, const uint64_t *n, size_t words,
                         size_t part) {
    uint64_t x0[WORDS] = {1}, x1[WORDS] = {0}, high[STRIDE];
    for (size_t i = 0; i < bits; i++) {
        twice(x1, n, words, twice(x0, n, words, 0));
    }
    core->unpack(&r->ctx, row, (const uint8_t *)x0, 8 * words);
    if (part) {
        core->unpack(&r->ctx, high, (const uint8_t *)x1, 8 * words);
        memcpy(row + part, high, part * sizeof *row);
    }
}

/* A multiple of n whose digits lie between 2^53 and twice that: those digits alone, and what is missing to a multiple */
static void make_lift(const mont_core *core, const ring *r, uint64_t *row, const uint64_t *n, size_t words, size_t digits) {
    uint64_t x[WORDS] = {1}, borrow = 0;
    for (size_t i = 1; i < 52 * digits; i++) {
        twice(x, n, words, i % 52 == 0);
    }
    twice(x, n, words, 0);
    twice(x, n, words, 0);
    for (size_t i = 0; i < words; i++) {
        unsigned __int128 d = (unsigned __int128)n[i] - x[i] - borrow;
        x[i] = (uint64_t)d;
        borrow = (uint64_t)(d >> 64) & 1;
    }
    core->unpack(&r->ctx, row, (const uint8_t *)x, 8 * words);
    for (size_t j = 0; j < digits; j++) {
        row[j] += UINT64_C(1) << 53;
    }
}

/* The ring modulo `root` or with `square` its square, laid out for a modulus of `bits` */
static void make_ring(const mont_core *core, ring *r, const uint64_t *root, size_t words, int square, size_t bits) {
    uint64_t n[WORDS] = {0};
    memset(r, 0, sizeof *r);
    if (square && core->parts == 1) {
        for (size_t i = 0; i < words; i++) {
            uint64_t carry = 0;
            for (size_t j = 0; j < words; j++) {
                unsigned __int128 sum = (unsigned __int128)root[i] * root[j] + n[i + j] + carry;
                n[i + j] = (uint64_t)sum;
                carry = (uint64_t)(sum >> 64);
            }
            n[i + words] = carry;
        }
        words *= 2;
    } else {
        memcpy(n, root, 8 * words);
    }
    mont_ctx *c = &r->ctx;
    c->bits = bits;
    c->digits = core->digits(bits);
    c->stride = core->stride(c->digits);
    c->n = r->n, c->one = r->one, c->lift = r->lift, c->near = r->near;
    if (c->stride > STRIDE || (core->parts == 2 && !square)) {
        abort();
    }
    const size_t digits = c->digits / core->parts, radix = core->digit_bits * digits, part = core->parts == 2 ? digits : 0;
    core->unpack(c, r->n, (const uint8_t *)n, 8 * words);
    mont_prepare(c, core->digit_bits, core->parts);
    power_of_two(core, r, r->one, radix, n, words, part);
    for (size_t i = 0; i < CHUNKS; i++) {
        power_of_two(core, r, r->factors + i * c->stride, radix * (i + 2), n, words, part);
    }
    if (part) {
        make_lift(core, r, r->lift, n, words, digits);
    }
}

/* An odd number with its top bit set */
static void make_odd(uint64_t *n, const uint8_t *from, size_t bits) {
    memcpy(n, from, bits / 8);
    n[0] |= 1;
    n[bits / 64 - 1] |= UINT64_C(1) << 63;
}

static void must(int failed) {
    if (failed) {
        abort();
    }
}

/* that a number of so many bytes takes */
static size_t chunks_of(const mont_core *core, const ring *r, size_t size) {
    const size_t chunk = core->digit_bits * r->ctx.digits / core->parts / 8;
    if (size > CHUNKS * chunk) {
        abort();
    }
    return (size + chunk - 1) / chunk;
}

static uint64_t a[COUNT * STRIDE], b[COUNT * STRIDE];

/* Everything that half of a decryption by CRT does: modulus, exponents and numbers are secret. */
static void power(const kernels *k, size_t bits, size_t step, size_t exp_bits, int scan) {
    static ring r;
    uint64_t n[WORDS];
    const mont_core *core = k->residues;
    const size_t size = bits / 8;
    make_odd(n, secret, bits);
    make_ring(core, &r, n, bits / 64, 0, bits);
    r.ctx.adx = k->needs == CPU_ADX;
    must(core->import(&r.ctx, a, secret + 64, 2 * size, r.factors, chunks_of(core, &r, 2 * size), COUNT));
    must(core->power(&r.ctx, b, a, secret + 16, step, exp_bits, scan, COUNT));
    must(core->mul(&r.ctx, b, b, r.ctx.stride, a, r.ctx.stride, COUNT));
    must(core->square(&r.ctx, b, b, 3, COUNT));
    must(core->affine(&r.ctx, b, b, r.ctx.stride, secret + 32, size, r.factors, COUNT));
    must(core->export(&r.ctx, out, size, b, COUNT));
    VALGRIND_MAKE_MEM_DEFINED(&r, sizeof r);
}

static void power_512_one(const kernels *k) {
    power(k, 512, 0, 256, 1);
}

static void power_512_each(const kernels *k) {
    power(k, 512, 5, 40, 1);
}

static void power_1024(const kernels *k) {
    power(k, 1024, 0, 24, 1);
}

static void power_1536(const kernels *k) {
    power(k, 1536, 0, 16, 1);
}

static void power_public(const kernels *k) {
    power(k, 512, 0, 40, 0);
}

/* Modulo p^2 for a secret prime p: c^(p - 1), which logs gives as its one interesting part. Laid out for a p of `bits`, but
 * the p is short, or its exponent would take a minute under valgrind. */
static void decrypt(const kernels *k, size_t bits) {
    static ring r;
    uint64_t p = (UINT64_C(1) << 61) - 1, e = p - 1;
    const mont_core *core = k->residues;
    const size_t size = 2 * bits / 8;
    VALGRIND_MAKE_MEM_UNDEFINED(&p, sizeof p);
    VALGRIND_MAKE_MEM_UNDEFINED(&e, sizeof e);
    if (core->logs) {
        uint64_t found[COUNT];
        make_ring(core, &r, &p, 1, 0, bits);
        const mont_ctx *c = &r.ctx;
        const size_t chunks = chunks_of(core, &r, size), radix = core->digit_bits * c->digits;
        uint64_t row[2 * STRIDE];
        for (size_t i = 0; i <= chunks; i++) {
            power_of_two(core, &r, row, i < chunks ? radix * (i + 2) : radix, &p, 1, c->stride);
            memcpy(r.factors + 2 * i * c->stride, row, 2 * c->stride * sizeof *row);
        }
        make_lift(core, &r, r.lift, &p, 1, c->digits);
        must(core->logs(c, (uint8_t *)found, 8, known, size, r.factors, chunks, r.lift, (const uint8_t *)&e, 61, COUNT));
        for (size_t i = 0; i < COUNT; i++) {
            unsigned __int128 whole = (unsigned __int128)found[i] * p + 1;
            memcpy(out + 16 * i, &whole, 16);
        }
    } else {
        make_ring(core, &r, &p, 1, 1, 2 * bits);
        r.ctx.adx = k->needs == CPU_ADX;
        must(core->import(&r.ctx, a, known, size, r.factors, chunks_of(core, &r, size), COUNT));
        must(core->power(&r.ctx, a, a, (const uint8_t *)&e, 0, 61, 1, COUNT));
        must(core->export(&r.ctx, out, 16, a, COUNT));
    }
    VALGRIND_MAKE_MEM_DEFINED(&r, sizeof r);
}

static void decrypt_1024(const kernels *k) {
    decrypt(k, 512);
}

static void decrypt_2048(const kernels *k) {
    decrypt(k, 1024);
}

static void decrypt_3072(const kernels *k) {
    decrypt(k, 1536);
}

/* (1 + m n) h^r modulo n^2: the numbers m and r are secret, h public, and n too unless the key's owner works modulo p^2 */
static void encrypt(const kernels *k, size_t bits, unsigned window, int scan, const uint8_t *modulus) {
    static ring r;
    static uint64_t table[2 * 128 * STRIDE];
    uint64_t n[WORDS];
    const mont_core *core = k->squares;
    const size_t size = 2 * bits / 8, windows = 2, exp_size = (2 * window + 7) / 8;
    make_odd(n, modulus, bits);
    make_ring(core, &r, n, bits / 64, 1, 2 * bits);
    r.ctx.adx = k->needs == CPU_ADX;
    must(core->import(&r.ctx, a, known + 8, size, r.factors, chunks_of(core, &r, size), COUNT));
    must(core->fixed_table(&r.ctx, table, a, window, windows, scan));
    must(core->affine(&r.ctx, b, a, r.ctx.stride, secret + 1, bits / 8, r.factors, COUNT));
    must(core->fixed_power(&r.ctx, b, b, r.ctx.stride, table, window, windows, secret, exp_size, scan, COUNT));
    must(core->export(&r.ctx, out, size, b, COUNT));
    VALGRIND_MAKE_MEM_DEFINED(&r, sizeof r);
    VALGRIND_MAKE_MEM_DEFINED(table, sizeof table);
}

static void encrypt_4(const kernels *k) {
    encrypt(k, 512, 4, 1, known);
}

static void encrypt_5(const kernels *k) {
    encrypt(k, 512, 5, 1, known);
}

static void encrypt_6(const kernels *k) {
    encrypt(k, 1024, 6, 1, known);
}

static void encrypt_7(const kernels *k) {
    encrypt(k, 512, 7, 1, known);
}

static void encrypt_owner(const kernels *k) {
    encrypt(k, 512, 6, 1, secret + 300);
}

static void encrypt_leaking(const kernels *k) {
    encrypt(k, 512, 6, 0, known);
}

/* --- masks, digests, rings --- */

static void masks(const kernels *k, enum mask_cipher cipher) {
    static const struct {
        enum mask_op op;
        unsigned width;
    } ways[8] = {{MASK_SET, 4}, {MASK_XOR, 4}, {MASK_ADD, 4}, {MASK_ADD, 8}, {MASK_ADD, 16}, {MASK_SUB, 4}, {MASK_SUB, 8},
                 {MASK_SUB, 16}};
    const size_t size = 1024 - 16; /* parts of blocks at both ends, and of what a core computes together */
    mask_key key;
    mask_key_init(&key, cipher, secret, known);
    for (size_t i = 0; i < 8; i++) {
        mask_run(k->masks, &key, 16 * 7, ways[i].op, ways[i].width, out + size * i, secret + 32, size);
    }
    VALGRIND_MAKE_MEM_DEFINED(&key, sizeof key);
}

static void masks_aes(const kernels *k) {
    masks(k, MASK_AES128_CTR);
}

static void masks_chacha(const kernels *k) {
    masks(k, MASK_CHACHA20);
}

#define TEXTS 18 /* more than the lanes */
static const int64_t offsets[TEXTS + 1] = {0,   0,   3,   58,   113,  177,  300,  300,  400, 500,
                                           501, 565, 685, 1000, 1100, 1200, 1255, 1311, 1375};

static void digest_sha256(const kernels *k) {
    k->sha256(DIGEST_SHA256, out, secret, offsets, TEXTS);
}

static void digest_sm3(const kernels *k) {
    k->sm3(DIGEST_SM3, out, secret, offsets, TEXTS);
}

static void digest_wide(const kernels *k) {
    (void)k;
    digest_expand(DIGEST_SHA512, out, 96, 96, (const uint8_t *)"tag", 3, secret, offsets, TEXTS);
}

static int rings_portable(const ring_shape *s, uint64_t *to, const uint64_t *x, const uint64_t *y) {
    ring64_product_portable(s, to, x, y);
    return 0;
}

static void products(const kernels *k) {
    static const ring_shape shapes[4] = {{9, 11, 1, 0, 0}, {9, 11, 10, 0, 0}, {9, 11, 1, 1, 0}, {9, 11, 3, 1, 0}};
    uint64_t x[9 * 11], y[11 * 11], product[11 * 11];
    memcpy(x, secret, sizeof x);
    memcpy(y, secret + sizeof x, sizeof y);
    for (size_t i = 0; i < 4; i++) {
        must(k->rings(shapes + i, product, x, y));
        memcpy(out + 1024 * i, product, (shapes[i].transposed ? 11 : 9) * shapes[i].m * 8);
    }
}

static void products_wide(const kernels *k) {
    static const ring_shape plain = {5, 4, 3, 0, 0}, transposed = {5, 4, 3, 1, 0};
    uint64_t x[5 * 4 * 2], y[5 * 3 * 2], product[5 * 3 * 2];
    (void)k;
    memcpy(x, secret, sizeof x);
    memcpy(y, secret + sizeof x, sizeof y);
    ring128_product(&plain, product, x, y);
    memcpy(out, product, 5 * 3 * 16);
    ring128_product(&transposed, product, x, y);
    memcpy(out + 512, product, 4 * 3 * 16);
}

/* --- what runs on what --- */

#define HAS(member) offsetof(kernels, member)
#define ONCE HAS(name) /* there is but one such kernel */
static const struct {
    const char *name;
    size_t needs; /* the member without which a core has no such kernel */
    void (*run)(const kernels *k);
    int leaks; /* by its contract */
} cases[] = {
    {"branches on a secret, to be caught", ONCE, leaky, 1},
    {"x25519, one scalar", HAS(x25519), x25519_one, 0},
    {"x25519, one each", HAS(x25519), x25519_each, 0},
    {"p256, one scalar", HAS(curves), p256_one, 0},
    {"p256, one each", HAS(curves), p256_each, 0},
    {"p256, generator", HAS(curves), p256_base, 0},
    {"p256, SSWU", HAS(curves), p256_map, 0},
    {"p256, lift", HAS(curves), p256_lift, 0},
    {"p256, check", HAS(curves), p256_check, 0},
    {"sm2, one scalar", HAS(curves), sm2_one, 0},
    {"sm2, one each", HAS(curves), sm2_each, 0},
    {"sm2, generator", HAS(curves), sm2_base, 0},
    {"sm2, SSWU", HAS(curves), sm2_map, 0},
    {"sm2, lift", HAS(curves), sm2_lift, 0},
    {"sm2, check", HAS(curves), sm2_check, 0},
    {"elligator 2", HAS(group), elligator_2, 0},
    {"ristretto255, derivation", HAS(group), ristretto_derive, 0},
    {"ristretto255, decoding", HAS(group), ristretto_valid, 0},
    {"ristretto255, one scalar", HAS(group), ristretto_one, 0},
    {"ristretto255, one each", HAS(group), ristretto_each, 0},
    {"power 512, one exponent", HAS(residues), power_512_one, 0},
    {"power 512, one each", HAS(residues), power_512_each, 0},
    {"power 1024", HAS(residues), power_1024, 0},
    {"power 1536", HAS(residues), power_1536, 0},
    {"power, public exponent, to be caught", HAS(residues), power_public, 1},
    {"decrypt, key of 1024", HAS(residues), decrypt_1024, 0},
    {"decrypt, key of 2048", HAS(residues), decrypt_2048, 0},
    {"decrypt, key of 3072", HAS(residues), decrypt_3072, 0},
    {"encrypt, windows of 4", HAS(squares), encrypt_4, 0},
    {"encrypt, windows of 5", HAS(squares), encrypt_5, 0},
    {"encrypt, windows of 6", HAS(squares), encrypt_6, 0},
    {"encrypt, windows of 7", HAS(squares), encrypt_7, 0},
    {"encrypt, by the key's owner", HAS(squares), encrypt_owner, 0},
    {"encrypt, leaking tables, to be caught", HAS(squares), encrypt_leaking, 1},
    {"aes-128-ctr", HAS(masks), masks_aes, 0},
    {"chacha20", HAS(masks), masks_chacha, 0},
    {"sha256", HAS(sha256), digest_sha256, 0},
    {"sm3", HAS(sm3), digest_sm3, 0},
    {"expand by sha512", ONCE, digest_wide, 0},
    {"products modulo 2^64", HAS(rings), products, 0},
    {"products modulo 2^128", ONCE, products_wide, 0},
};

static const kernels cores[] = {
    {"portable", x25519_portable, wcurve_portable, &group25519_portable, &mont_portable, &mont_portable, &mask_portable,
     digest_portable, digest_portable, rings_portable, 0},
#ifdef HAVE_IFMA
    {"portable, adx", .residues = &mont_portable, .squares = &mont_portable, .needs = CPU_ADX},
    {"avx2", .masks = &mask_avx2, .needs = LANES_NEED(CPU_AVX2_AES)},
    {"sha-ni", .sha256 = digest_shani, .needs = LANES_NEED(CPU_SHA)},
    {"vaes", .masks = &mask_avx512, .needs = LANES_NEED(CPU_VAES)},
    {"avx512ifma", x25519_ifma, wcurve_ifma, &group25519_ifma, &mont_ifma, &mont_ifma, NULL, digest_avx512, digest_avx512,
     ring64_product_avx512, LANES_NEED(CPU_IFMA)},
    {"avx512ifma, pairs", .squares = &mont_pairs_ifma, .needs = LANES_NEED(CPU_IFMA)},
#endif
};

static int has(const kernels *k, size_t member) {
    return *(void *const *)((const uint8_t *)k + member) != NULL;
}

/* Secrets that a leak would tell apart: nearly nothing, nearly everything, something. */
static void fill(uint8_t *memory, int which, uint32_t x) {
    for (int i = 0; i < SECRET; i++) {
        x ^= x << 13, x ^= x >> 17, x ^= x << 5;
        memory[i] = which == 0 ? (uint8_t)(i % 32 == 31) : which == 1 ? (i % 32 == 0 ? 0x7f : 0xff) : (uint8_t)x;
    }
}

static void fill_secret(int which) {
    fill(secret, which, 2463534242u);
    memset(out, 0, sizeof out);
}

#ifdef __x86_64__
static volatile uint64_t trace;
static volatile unsigned long steps_taken;

static void on_step(int number, siginfo_t *info, void *context) {
    ucontext_t *c = context;
    (void)number;
    (void)info;
    trace = (trace ^ (uint64_t)c->uc_mcontext.gregs[REG_RIP]) * UINT64_C(0x100000001b3);
    steps_taken++;
}

/* Whether the sequence of instruction addresses is the same for three secrets */
static int same_trace(size_t i, const kernels *k) {
    unsigned long steps[3];
    uint64_t hash[3];
    int same = 1;
    for (int which = 0; which < 3; which++) {
        fill_secret(which);
        trace = UINT64_C(0xcbf29ce484222325);
        steps_taken = 0;
        __asm__ volatile("pushfq; orq $0x100, (%%rsp); popfq" ::: "memory", "cc");
        cases[i].run(k);
        __asm__ volatile("pushfq; andq $~0x100, (%%rsp); popfq" ::: "memory", "cc");
        hash[which] = trace, steps[which] = steps_taken;
        same = same && hash[which] == hash[0] && steps[which] == steps[0];
    }
    printf("%10lu instructions  %s", steps[0], same ? "the same for three secrets" : "VARY WITH THE SECRET");
    return same;
}

static int start_tracing(void) {
    struct sigaction action = {.sa_sigaction = on_step, .sa_flags = SA_SIGINFO};
    return sigaction(SIGTRAP, &action, NULL);
}
#else
static int same_trace(size_t i, const kernels *k) {
    (void)i, (void)k;
    return 0;
}

static int start_tracing(void) {
    return -1;
}
#endif

static int quiet_under_memcheck(size_t i, const kernels *k) {
    unsigned before = VALGRIND_COUNT_ERRORS;
    fill_secret(2);
    VALGRIND_MAKE_MEM_UNDEFINED(secret, sizeof secret);
    cases[i].run(k);
    unsigned complaints = VALGRIND_COUNT_ERRORS - before;
    VALGRIND_MAKE_MEM_DEFINED(secret, sizeof secret);
    VALGRIND_MAKE_MEM_DEFINED(out, sizeof out);
    VALGRIND_MAKE_MEM_DEFINED(a, sizeof a);
    VALGRIND_MAKE_MEM_DEFINED(b, sizeof b);
    printf("%s", complaints ? "DEPENDS ON THE SECRET" : "no branch or address depends on the secret");
    return !complaints;
}

/* Valid public inputs. The table of a base need not be one: any coordinates below the prime do. */
static void open_inputs(void) {
    fill(known, 2, 521288629u);
    for (size_t i = 0; i < sizeof base_table; i++) {
        base_table[i] = i % 32 ? known[i % 4093] : 0;
    }
    for (size_t c = 0; c < 2; c++) {
        wcurve_portable[c].map(points[c], known, 1, COUNT);
    }
    group25519_portable.derive(elements, known, COUNT);
}

static int picked(const char *line, char **texts) {
    int found = !*texts;
    for (; *texts; texts++) {
        found = found || strstr(line, *texts);
    }
    return found;
}

int main(int argc, char **argv) {
    const char *mode = argc > 1 ? argv[1] : "";
    const int poison = !strcmp(mode, "poison"), tracing = !strcmp(mode, "trace"), answers = !strcmp(mode, "answers");
    if (!(poison || tracing || answers) || (poison && !RUNNING_ON_VALGRIND) || (tracing && start_tracing())) {
        fprintf(stderr, "usage: check trace|answers [TEXT...], or valgrind check poison [TEXT...]\n");
        return 2;
    }
    open_inputs();
    int good = 1;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int have_expected = 0;
        for (size_t c = 0; c < sizeof cores / sizeof *cores; c++) {
            const kernels *k = cores + c;
            char line[80];
            snprintf(line, sizeof line, "%s: %s", k->name, cases[i].name);
            if (!(cases[i].needs == ONCE ? !c : has(k, cases[i].needs)) || !picked(line, argv + 2)) {
                continue;
            }
            if (k->needs && !RUNNING_ON_VALGRIND && !cpu_can(k->needs)) { /* valgrind knows adx, but its cpuid denies it */
                printf("%-62snot run: this CPU has no such instructions\n", line);
                continue;
            }
            printf("%-62s", line);
            if (answers) {
                fill_secret(2);
                cases[i].run(k);
                for (size_t j = 0; j < 32; j++) {
                    printf("%02x", out[j]);
                }
            } else {
                const int quiet = tracing ? same_trace(i, k) : quiet_under_memcheck(i, k), wanted = !cases[i].leaks;
                printf("%s", quiet == wanted ? "" : quiet ? ", BUT SHOULD: THIS CHECK IS WORTH NOTHING" : " (see the log)");
                good = good && quiet == wanted;
            }
            if (!tracing && have_expected && memcmp(out, expected, sizeof out)) {
                printf(", NOT WHAT THE PORTABLE CORE COMPUTES");
                good = 0;
            }
            if (!have_expected) { /* the portable core is the first */
                memcpy(expected, out, sizeof out);
                have_expected = 1;
            }
            printf("\n");
            fflush(stdout);
        }
    }
    return !good;
}
