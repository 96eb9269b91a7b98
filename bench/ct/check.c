/* Whether what the kernels execute depends on their secrets: `make ct-check`.
 *
 *   check trace [TEXT]
 *                   steps through a kernel instruction by instruction (the CPU's trap flag) and hashes their addresses.
 *                   Three secrets must give the same sequence. Sees every branch, on every core; does not see which
 *                   data addresses are touched. x86-64 Linux only; TEXT picks the kernels whose name
 *                   contains it. A step is a signal, which costs a microsecond or, on some virtual machines,
 *                   fifty: then pick.
 *   check poison    under valgrind's memcheck, with the secrets marked as undefined: memcheck complains of every branch
 *                   and every address that depends on them. Portable core only: valgrind knows no AVX-512.
 *
 * Neither measures time: an instruction whose own duration depends on its operands would not be seen (on the CPUs that
 * these kernels are for, integer multiplication, vpmadd52 and shuffles have none). A control that leaks on purpose must
 * be caught, or the check itself fails. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include "digest.h"
#include "group25519.h"
#include "mont.h"
#include "wcurve.h"
#include "x25519.h"

#ifdef HAVE_MEMCHECK
#include <valgrind/memcheck.h>
#else
#define RUNNING_ON_VALGRIND 0
#define VALGRIND_MAKE_MEM_UNDEFINED(at, size) ((void)(at), (void)(size))
#define VALGRIND_MAKE_MEM_DEFINED(at, size) ((void)(at), (void)(size))
#define VALGRIND_COUNT_ERRORS 0
#endif

#define POINTS 8
#define SECRET 1024
/* Points are worked on one by one, or eight at a time: */
#define COUNT_portable 1
#define COUNT_ifma 8

static uint8_t secret[SECRET], out[64 * 512], points[64 * POINTS], base_table[64 * 512], elements[32 * POINTS];
static uint8_t ring_memory[16384], ring_out[16384];

/* What a case is made of: `secret` holds its secret, everything else is the same each time. */
typedef struct {
    const char *name;
    int portable;
    void (*run)(void);
} kernel_case;

static void leaky(void) {
    uint64_t product = 1;
    for (int i = 0; i < 64; i++) {
        product *= 3;
        if (secret[i] & 1) {
            __asm__ volatile("" : "+r"(product));
            product *= 5;
        }
    }
    memcpy(out, &product, 8);
}

#define CURVES(core, c, curve)                                                                                         \
    static void core##_##curve##_one(void) {                                                                           \
        wcurve_##core[c].multiply(out, secret, 0, points, COUNT_##core);                                                     \
    }                                                                                                                  \
    static void core##_##curve##_each(void) {                                                                          \
        wcurve_##core[c].multiply(out, secret, 32, points, COUNT_##core);                                                    \
    }                                                                                                                  \
    static void core##_##curve##_base(void) {                                                                          \
        wcurve_##core[c].multiply_base(out, secret, base_table, COUNT_##core);                                               \
    }                                                                                                                  \
    static void core##_##curve##_map(void) {                                                                           \
        wcurve_##core[c].map(out, secret, 1, COUNT_##core);                                                                  \
    }                                                                                                                  \
    static void core##_##curve##_lift(void) {                                                                          \
        uint8_t flags[COUNT_##core];                                                                                         \
        wcurve_##core[c].lift(out, flags, secret, secret + 512, COUNT_##core);                                               \
    }

#define CORE(core)                                                                                                     \
    static void core##_x25519(void) {                                                                                  \
        x25519_##core(out, secret, 32, elements, COUNT_##core);                                                              \
    }                                                                                                                  \
    CURVES(core, 0, p256)                                                                                              \
    CURVES(core, 1, sm2)                                                                                               \
    static void core##_elligator(void) {                                                                               \
        group25519_##core.hash(out, secret, 1, 0, COUNT_##core);                                                             \
    }                                                                                                                  \
    static void core##_derive(void) {                                                                                  \
        group25519_##core.derive(out, secret, COUNT_##core);                                                                 \
    }                                                                                                                  \
    static void core##_ristretto(void) {                                                                               \
        group25519_##core.multiply(out, secret, 32, elements, COUNT_##core);                                                 \
    }                                                                                                                  \
    /* half of what a key's owner does by CRT: modulus (its Montgomery constants) and exponents are secret */          \
    static void core##_crt(void) {                                                                                     \
        secret_power(&mont_##core);                                                                                    \
    }

/* A 512-bit modulus, odd and with its top bit set, and a 256-bit exponent, both from `secret`. */
static void secret_power(const mont_core *core) {
    uint8_t n[64], one[64], reduced[POINTS * 64];
    memcpy(n, secret, 64);
    n[0] |= 1;
    n[63] |= 128;
    memset(one, 0, sizeof one);
    one[0] = 1;
    mont_ctx c = {.bits = 512, .digits = core->digits(512)};
    c.stride = core->stride(c.digits);
    uint64_t *rows = (uint64_t *)ring_memory;
    c.n = rows, c.one = rows + c.stride, c.lift = rows + 2 * c.stride;
    core->unpack(&c, c.n, n, 64);
    core->unpack(&c, c.one, one, 64); /* any residues do: their values are not what is asked */
    core->unpack(&c, c.lift, one, 64);
    c.near = rows + 3 * c.stride;
    mont_prepare(&c, core->digit_bits, core->parts);
    uint64_t *a = (uint64_t *)ring_out;
    if (core->import(&c, a, secret + 128, 64, c.lift, 1, 3) || core->power(&c, a, a, secret + 64, 0, 256, 1, 3) ||
        core->mul(&c, a, a, c.stride, a, c.stride, 3)) {
        abort();
    }
    /* a scanned table of the result, as for the noise that the key's owner makes: table and exponents are secret */
    uint64_t *table = malloc(((size_t)2 << 5) * c.stride * sizeof *table);
    if (!table || core->fixed_table(&c, table, a, 5, 2, 1) ||
        core->fixed_power(&c, a, a, c.stride, table, 5, 2, secret + 96, 2, 1, 3) || core->export(&c, reduced, 64, a, 3)) {
        abort();
    }
    free(table);
    memcpy(out, reduced, sizeof reduced);
}

CORE(portable)
#ifdef HAVE_IFMA
CORE(ifma)
#endif

static void digest_both(void) {
    static const int64_t offsets[4] = {0, 3, 70, 200};
    digest_portable(DIGEST_SHA256, out, secret, offsets, 3);
    digest_portable(DIGEST_SM3, out, secret, offsets, 3);
    digest_expand(DIGEST_SHA512, out, 96, 96, (const uint8_t *)"tag", 3, secret, offsets, 3);
}

#define CASES(core, plain)                                                                                             \
    {#core " x25519", plain, core##_x25519}, {#core " p256, one scalar", plain, core##_p256_one},                      \
        {#core " p256, one each", plain, core##_p256_each}, {#core " p256, generator", plain, core##_p256_base},       \
        {#core " p256, SSWU", plain, core##_p256_map}, {#core " p256, lift", plain, core##_p256_lift},                 \
        {#core " sm2, one scalar", plain, core##_sm2_one}, {#core " sm2, one each", plain, core##_sm2_each},           \
        {#core " sm2, generator", plain, core##_sm2_base}, {#core " sm2, SSWU", plain, core##_sm2_map},                \
        {#core " sm2, lift", plain, core##_sm2_lift},                                                                  \
        {#core " elligator 2", plain, core##_elligator}, {#core " ristretto255 derivation", plain, core##_derive},     \
        {#core " ristretto255, one each", plain, core##_ristretto}, {#core " powers, CRT", plain, core##_crt}

static const kernel_case cases[] = {
    CASES(portable, 1),
    {"portable sha256, sm3, expand", 1, digest_both},
#ifdef HAVE_IFMA
    CASES(ifma, 0),
#endif
};

/* Secrets that a leak would tell apart: nearly nothing, nearly everything, something. */
static void fill(int which) {
    uint32_t x = 2463534242u;
    for (int i = 0; i < SECRET; i++) {
        x ^= x << 13, x ^= x >> 17, x ^= x << 5;
        secret[i] = which == 0 ? (uint8_t)(i % 32 == 31) : which == 1 ? (i % 32 == 0 ? 0x7f : 0xff) : (uint8_t)x;
    }
}

static volatile uint64_t trace;
static volatile unsigned long steps_taken;

static void on_step(int number, siginfo_t *info, void *context) {
    ucontext_t *c = context;
    (void)number;
    (void)info;
    trace = (trace ^ (uint64_t)c->uc_mcontext.gregs[REG_RIP]) * UINT64_C(0x100000001b3);
    steps_taken++;
}

/* The sequence of instruction addresses as one number, and its length */
static uint64_t traced(const kernel_case *k, int which, unsigned long *steps) {
    fill(which);
    trace = UINT64_C(0xcbf29ce484222325);
    steps_taken = 0;
    __asm__ volatile("pushfq; orq $0x100, (%%rsp); popfq" ::: "memory", "cc");
    k->run();
    __asm__ volatile("pushfq; andq $~0x100, (%%rsp); popfq" ::: "memory", "cc");
    *steps = steps_taken;
    return trace;
}

static int same_trace(const kernel_case *k) {
    unsigned long steps[3];
    uint64_t hash[3];
    int same = 1;
    for (int i = 0; i < 3; i++) {
        hash[i] = traced(k, i, steps + i);
        same = same && hash[i] == hash[0] && steps[i] == steps[0];
    }
    printf("%-34s %10lu instructions  %s\n", k->name, steps[0], same ? "the same for three secrets" : "VARY WITH THE SECRET");
    fflush(stdout);
    return same;
}

static int quiet_under_memcheck(const kernel_case *k) {
    unsigned before = VALGRIND_COUNT_ERRORS;
    fill(2);
    VALGRIND_MAKE_MEM_UNDEFINED(secret, sizeof secret);
    k->run();
    VALGRIND_MAKE_MEM_DEFINED(secret, sizeof secret);
    VALGRIND_MAKE_MEM_DEFINED(out, sizeof out);
    VALGRIND_MAKE_MEM_DEFINED(ring_memory, sizeof ring_memory);
    VALGRIND_MAKE_MEM_DEFINED(ring_out, sizeof ring_out);
    int quiet = VALGRIND_COUNT_ERRORS == before;
    printf("%-34s %s\n", k->name, quiet ? "no branch or address depends on the secret" : "DEPENDS ON THE SECRET");
    fflush(stdout);
    return quiet;
}

int main(int argc, char **argv) {
    int poison = argc > 1 && !strcmp(argv[1], "poison");
    const kernel_case control = {"(control, leaks on purpose)", 1, leaky};
    if (argc < 2 || argc > 3 || (!poison && strcmp(argv[1], "trace")) || (poison && !RUNNING_ON_VALGRIND)) {
        fprintf(stderr, "usage: check trace [TEXT] | valgrind check poison [TEXT]\n");
        return 2;
    }
    /* public inputs: multiples of the generators, made here */
    static const char g[2][129] = {
        "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c2964fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececb"
        "b6406837bf51f5",
    };
    for (int i = 0; i < 64; i++) {
        unsigned byte;
        sscanf(g[0] + 2 * i, "%2x", &byte);
        points[i] = (uint8_t)byte;
    }
    for (size_t i = 1; i < POINTS; i++) {
        memcpy(points + 64 * i, points, 64);
    }
    for (size_t i = 0; i < sizeof base_table; i += 64) {
        memcpy(base_table + i, points, 64); /* any points do: nothing is compared with an answer */
    }
    fill(2);
    group25519_portable.derive(elements, secret, POINTS);
    struct sigaction action = {.sa_sigaction = on_step, .sa_flags = SA_SIGINFO};
    sigaction(SIGTRAP, &action, NULL);
    int good = poison ? !quiet_under_memcheck(&control) : !same_trace(&control);
    if (!good) {
        printf("the control was not caught: this check is worth nothing here\n");
    }
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if ((!poison || cases[i].portable) && (argc < 3 || strstr(cases[i].name, argv[2]))) {
            good = (poison ? quiet_under_memcheck(cases + i) : same_trace(cases + i)) && good;
        }
    }
    return !good;
}
