/* X25519 ladders in AVX-512 lanes, two groups of eight in turns; see accel/notes/x25519.md for the bounds. */
#include "mont.h"
#include "x25519.h"

#ifdef HAVE_IFMA
#include "f25519_ifma.h"

static TARGET __attribute__((noinline)) field square_times(field a, int times) {
    while (times--) {
        a = square(settle(a), 0);
    }
    return a;
}

static TARGET __attribute__((noinline)) field multiply(field a, field b) {
    return product(settle(a), settle(b), 0);
}

/* a^(p - 2) */
static TARGET field invert(field z) {
    field z2 = square_times(z, 1), z9 = multiply(square_times(z2, 2), z), z11 = multiply(z9, z2);
    field t5 = multiply(square_times(z11, 1), z9), t10 = multiply(square_times(t5, 5), t5);
    field t20 = multiply(square_times(t10, 10), t10), t40 = multiply(square_times(t20, 20), t20);
    field t50 = multiply(square_times(t40, 10), t10), t100 = multiply(square_times(t50, 50), t50);
    field t200 = multiply(square_times(t100, 100), t100), t250 = multiply(square_times(t200, 50), t50);
    return multiply(square_times(t250, 5), z11);
}

/* The two points of a ladder, x2 and x3 biased, and u 2^(52 i) for every i: a product by u then has six columns. */
typedef struct {
    field u[5], x2, z2, x3, z3;
} point;

INLINE field times_u(operand a, const field u[5]) {
    lane z[6];
#pragma GCC unroll 6
    for (int i = 0; i < 6; i++) {
        z[i] = _mm512_setzero_si512();
    }
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) {
#pragma GCC unroll 5
        for (int j = 0; j < 5; j++) {
            LO(z[j], a.f.d[i], u[i].d[j]);
        }
#pragma GCC unroll 5
        for (int j = 0; j < 5; j++) {
            HI(z[j + 1], a.f.d[i], u[i].d[j]);
        }
    }
    LO(z[0], z[5], ALL_LANES(608));
    HI(z[1], z[5], ALL_LANES(608));
    return (field){{z[0], z[1], z[2], z[3], z[4]}};
}

/* a + 121665 b */
INLINE field add_scaled(field a, operand b) {
    const lane factor = ALL_LANES(121665);
    lane top = _mm512_setzero_si512();
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) {
        LO(a.d[i], b.f.d[i], factor);
        if (i < 4) {
            HI(a.d[i + 1], b.f.d[i], factor);
        } else {
            HI(top, b.f.d[i], factor);
        }
    }
    LO(a.d[0], top, ALL_LANES(608));
    return a;
}

INLINE operand choose(__mmask8 which, operand yes, operand no) {
    return (operand){pick(which, yes.f, no.f)};
}

/* One step, of which `which` says whether the second point is doubled instead of the first. The sum does not depend on
 * that but in the sign of the difference, which is squared. The order is the fastest of those tried: independent products
 * near each other, so that their latencies overlap. */
static TARGET __attribute__((noinline)) void step_once(point *p, __mmask8 which) {
    operand d = settle(sub(p->x3, p->z3)), b = settle(sub(p->x2, p->z2)), a = settle(add(p->x2, p->z2));
    field da = product(d, a, 1);
    operand c = settle(add(p->x3, p->z3));
    field bb = square(choose(which, d, b), 0), aa = square(choose(which, c, a), 1);
    operand e = settle(sub(aa, bb));
    field cb = product(c, b, 0);
    p->x2 = product(settle(aa), settle(bb), 1);
    operand difference = settle(sub(da, cb)), f = settle(add_scaled(aa, e)), sum = settle(add(da, cb));
    operand squared = settle(square(difference, 0));
    p->z2 = product(e, f, 0);
    p->z3 = times_u(squared, p->u);
    p->x3 = square(sum, 1);
}

/* The doubling alone */
static TARGET __attribute__((noinline)) void double_once(point *p, __mmask8 which) {
    field x = pick(which, p->x3, p->x2), z = pick(which, p->z3, p->z2);
    field aa = square(settle(add(x, z)), 1), bb = square(settle(sub(x, z)), 0);
    operand e = settle(sub(aa, bb));
    p->x2 = product(settle(aa), settle(bb), 1);
    p->z2 = product(e, settle(add_scaled(aa, e)), 0);
}

/* `groups` (one or two) times eight ladders, step by step in turns: one's tail overlaps the other's head. A clamped
 * scalar begins with a one (so that the points are u and twice u) and ends in three zeros. */
static TARGET void ladder(point p[2], const __mmask8 swaps[2][255], int groups) {
    for (int g = 0; g < groups; g++) {
        const field one = {{ALL_LANES(1)}};
        p[g].x2 = p[g].x3 = biased(p[g].u[0]);
        p[g].z2 = p[g].z3 = one;
        for (int i = 0; i < 4; i++) {
            field u = {{_mm512_setzero_si512(), p[g].u[i].d[0], p[g].u[i].d[1], p[g].u[i].d[2], p[g].u[i].d[3]}};
            LO(u.d[0], p[g].u[i].d[4], ALL_LANES(608));
            HI(u.d[1], p[g].u[i].d[4], ALL_LANES(608));
            p[g].u[i + 1] = low(settle(u).f);
        }
        double_once(p + g, 0);
    }
    for (int t = 253; t > 2; t--) {
        for (int g = 0; g < groups; g++) {
            step_once(p + g, swaps[g][t]);
        }
    }
    for (int t = 2; t >= 0; t--) {
        for (int g = 0; g < groups; g++) {
            double_once(p + g, swaps[g][t]);
        }
    }
}

/* Eight clamped scalars' bits, each against the next higher one: where they differ, the two points change places. */
static TARGET void spread_scalars(__mmask8 swaps[255], const uint8_t *scalars, size_t step, size_t left) {
    uint64_t words[4][8];
    load_words(words, scalars, step, left);
    lane k[4];
    for (int i = 0; i < 4; i++) {
        k[i] = _mm512_loadu_si512(words[i]);
    }
    k[0] = _mm512_and_si512(k[0], ALL_LANES(~UINT64_C(7)));
    k[3] = _mm512_and_si512(k[3], ALL_LANES(UINT64_MAX >> 1));
    k[3] = _mm512_or_si512(k[3], ALL_LANES(UINT64_C(1) << 62));
    for (int t = 0; t < 255; t++) {
        int next = t + 1;
        __mmask8 bit = _mm512_test_epi64_mask(k[t / 64], ALL_LANES(UINT64_C(1) << t % 64));
        swaps[t] = bit ^ _mm512_test_epi64_mask(k[next / 64], ALL_LANES(UINT64_C(1) << next % 64));
    }
    wipe(k, sizeof k);
    wipe(words, sizeof words);
}

/* z[i] = 1 / z[i] by one inversion for all; back comes whether no lane's product was zero. Only a point of low order
 * gives zero, whatever the scalar, so telling it apart tells nothing of the scalar. */
static TARGET int invert_all(field *z, field *products, size_t groups) {
    products[0] = z[0];
    for (size_t i = 1; i < groups; i++) {
        products[i] = multiply(products[i - 1], z[i]);
    }
    field inverse = invert(products[groups - 1]);
    if (is_zero(canon(inverse))) {
        return 0;
    }
    for (size_t i = groups - 1; i > 0; i--) {
        field next = multiply(inverse, z[i]);
        z[i] = multiply(inverse, products[i - 1]);
        inverse = next;
    }
    z[0] = inverse;
    return 1;
}

#define CHUNK 32 /* groups of eight that share an inversion */

TARGET void x25519_ifma(uint8_t *out, const uint8_t *scalars, size_t step, const uint8_t *points, size_t count) {
    __mmask8 swaps[2][255];
    uint64_t words[4][8];
    point p[2];
    field x[CHUNK], z[CHUNK], products[CHUNK];
    for (size_t start = 0; start < count; start += 8 * CHUNK) {
        size_t left = count - start < 8 * CHUNK ? count - start : 8 * CHUNK, groups = (left + 7) / 8;
        for (size_t group = 0; group < groups; group += 2) {
            int both = group + 1 < groups ? 2 : 1;
            for (int g = 0; g < both; g++) {
                size_t from = start + 8 * (group + (size_t)g);
                if (step || (!start && !group)) {
                    spread_scalars(swaps[g], scalars + from * step, step, count - from);
                }
                load_words(words, points + 32 * from, 32, count - from);
                p[g].u[0] = digits_of((const uint64_t(*)[8])words);
                p[g].u[0].d[4] = _mm512_and_si512(p[g].u[0].d[4], ALL_LANES(MASK47));
            }
            ladder(p, (const __mmask8(*)[255])swaps, both);
            for (int g = 0; g < both; g++) {
                x[group + (size_t)g] = p[g].x2;
                z[group + (size_t)g] = p[g].z2;
            }
        }
        if (!invert_all(z, products, groups)) {
            for (size_t i = 0; i < groups; i++) {
                z[i] = invert(z[i]);
            }
        }
        for (size_t i = 0; i < groups; i++) {
            store_residues(out + 32 * (start + 8 * i), left - 8 * i < 8 ? left - 8 * i : 8, canon(multiply(x[i], z[i])), 0);
        }
    }
    wipe(swaps, sizeof swaps);
    wipe(p, sizeof p);
    wipe(x, sizeof x);
    wipe(z, sizeof z);
    wipe(products, sizeof products);
}
#else
typedef int x25519_ifma_is_not_built_here;
#endif
