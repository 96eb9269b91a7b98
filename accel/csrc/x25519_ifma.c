/* Eight X25519 ladders in AVX-512 lanes; see accel/notes/x25519.md for the bounds. */
#include "mont.h"
#include "x25519.h"

#ifdef HAVE_IFMA
#include "f25519_ifma.h"

/* a^(p - 2) */
static TARGET void invert(field *out, const field *z) {
    field a, b, c;
    field t = *z;
    square_times(&t, 1); /* 2 */
    a = t;
    square_times(&t, 2); /* 8 */
    multiply(&b, &t, z); /* 9 */
    multiply(&a, &a, &b); /* 11 */
    t = a;
    square_times(&t, 1);
    multiply(&b, &t, &b); /* 2^5 - 1 */
    t = b;
    square_times(&t, 5);
    multiply(&b, &t, &b); /* 2^10 - 1 */
    t = b;
    square_times(&t, 10);
    multiply(&c, &t, &b); /* 2^20 - 1 */
    t = c;
    square_times(&t, 20);
    multiply(&t, &t, &c); /* 2^40 - 1 */
    square_times(&t, 10);
    multiply(&b, &t, &b); /* 2^50 - 1 */
    t = b;
    square_times(&t, 50);
    multiply(&c, &t, &b); /* 2^100 - 1 */
    t = c;
    square_times(&t, 100);
    multiply(&t, &t, &c); /* 2^200 - 1 */
    square_times(&t, 50);
    multiply(&t, &t, &b); /* 2^250 - 1 */
    square_times(&t, 5);
    multiply(out, &t, &a); /* 2^255 - 21 */
}

INLINE void swap(field *a, field *b, __mmask8 which) {
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) {
        lane x = _mm512_mask_mov_epi64(a->d[i], which, b->d[i]);
        b->d[i] = _mm512_mask_mov_epi64(b->d[i], which, a->d[i]);
        a->d[i] = x;
    }
}

typedef struct {
    field u, x2, z2, x3, z3;
} point;

/* One step; independent products stand next to each other, so that their latencies overlap. */
static TARGET __attribute__((noinline)) void step_once(point *p, __mmask8 which) {
    field x2 = p->x2, z2 = p->z2, x3 = p->x3, z3 = p->z3;
    swap(&x2, &x3, which);
    swap(&z2, &z3, which);
    field a = add(x2, z2), b = sub(x2, z2), c = add(x3, z3), d = sub(x3, z3);
    field da = mul_inline(d, a), cb = mul_inline(c, b), aa = sqr_inline(a), bb = sqr_inline(b);
    field sum = add(da, cb), difference = sub(da, cb), e = sub(aa, bb);
    difference = sqr_inline(difference);
    p->x3 = sqr_inline(sum);
    p->x2 = mul_inline(aa, bb);
    p->z3 = mul_inline(p->u, difference);
    p->z2 = mul_inline(e, add_scaled(aa, e));
}

/* `groups` (one or two) times eight ladders, step by step in turns: one's tail overlaps the other's head. */
static TARGET void ladder(point p[2], const uint8_t bits[2][256], int groups) {
    for (int g = 0; g < groups; g++) {
        for (int i = 0; i < 5; i++) {
            p[g].x2.d[i] = p[g].z3.d[i] = ALL_LANES(i == 0);
            p[g].z2.d[i] = _mm512_setzero_si512();
        }
        p[g].x3 = p[g].u;
    }
    for (int t = 254; t >= 0; t--) {
        for (int g = 0; g < groups; g++) {
            step_once(p + g, bits[g][t + 1] ^ bits[g][t]);
        }
    }
    for (int g = 0; g < groups; g++) {
        swap(&p[g].x2, &p[g].x3, bits[g][0]);
        swap(&p[g].z2, &p[g].z3, bits[g][0]);
    }
}

/* The residue in [0, p) as bytes; a product's digits. No branch. */
static void pack(uint8_t out[32], const uint64_t d[5]) {
    uint64_t a[5], carry, r[5];
    memcpy(a, d, sizeof a);
    for (int round = 0; round < 2; round++) {
        carry = a[4] >> 47;
        a[4] &= MASK47;
        a[0] += 19 * carry;
        for (int i = 0; i < 4; i++) {
            a[i + 1] += a[i] >> 52;
            a[i] &= MASK52;
        }
    }
    /* below 2^255 now; a >= p exactly if a + 19 reaches 2^255 */
    carry = 19;
    for (int i = 0; i < 4; i++) {
        r[i] = a[i] + carry;
        carry = r[i] >> 52;
        r[i] &= MASK52;
    }
    r[4] = a[4] + carry;
    uint64_t over = 0 - (r[4] >> 47);
    r[4] &= MASK47;
    for (int i = 0; i < 5; i++) {
        a[i] = (r[i] & over) | (a[i] & ~over);
    }
    uint64_t w[4] = {a[0] | a[1] << 52, a[1] >> 12 | a[2] << 40, a[2] >> 24 | a[3] << 28, a[3] >> 36 | a[4] << 16};
    memcpy(out, w, 32);
}

static void spread_scalars(uint8_t bits[256], const uint8_t *scalars, size_t step, size_t at, size_t count) {
    memset(bits, 0, 256);
    for (size_t l = 0; l < 8; l++) {
        uint8_t k[32];
        memcpy(k, scalars + (at + l < count ? at + l : count - 1) * step, 32);
        k[0] &= 248;
        k[31] = (uint8_t)((k[31] & 127) | 64);
        for (int t = 0; t < 255; t++) {
            bits[t] |= (uint8_t)((k[t >> 3] >> (t & 7) & 1) << l);
        }
        wipe(k, sizeof k);
    }
}

/* z[i] = 1 / z[i] by one inversion for all; back comes whether no lane's product was zero. Only a point of low order
 * gives zero, whatever the scalar, so telling it apart tells nothing of the scalar. */
static TARGET int invert_all(field *z, field *products, size_t groups) {
    products[0] = z[0];
    for (size_t i = 1; i < groups; i++) {
        multiply(products + i, products + i - 1, z + i);
    }
    field inverse, next;
    invert(&inverse, products + groups - 1);
    uint64_t words[5][8];
    for (int i = 0; i < 5; i++) {
        _mm512_storeu_si512(words[i], inverse.d[i]);
    }
    for (int l = 0; l < 8; l++) {
        uint64_t d[5] = {words[0][l], words[1][l], words[2][l], words[3][l], words[4][l]}, w[4];
        pack((uint8_t *)w, d);
        if (!(w[0] | w[1] | w[2] | w[3])) {
            return 0;
        }
    }
    for (size_t i = groups - 1; i > 0; i--) {
        multiply(&next, &inverse, z + i);
        multiply(z + i, &inverse, products + i - 1);
        inverse = next;
    }
    z[0] = inverse;
    return 1;
}

#define CHUNK 32 /* groups of eight that share an inversion */

TARGET void x25519_ifma(uint8_t *out, const uint8_t *scalars, size_t step, const uint8_t *points, size_t count) {
    uint8_t bits[2][256];
    uint64_t words[5][8];
    point p[2];
    field x[CHUNK], z[CHUNK], products[CHUNK];
    for (size_t start = 0; start < count; start += 8 * CHUNK) {
        size_t left = count - start < 8 * CHUNK ? count - start : 8 * CHUNK, groups = (left + 7) / 8;
        for (size_t group = 0; group < groups; group += 2) {
            int both = group + 1 < groups ? 2 : 1;
            for (int g = 0; g < both; g++) {
                size_t from = start + 8 * (group + (size_t)g);
                if (step || (!start && !group)) {
                    spread_scalars(bits[g], scalars, step, from, count);
                }
                for (size_t l = 0; l < 8; l++) {
                    const uint8_t *u = points + (from + l < count ? from + l : count - 1) * 32;
                    for (unsigned i = 0; i < 5; i++) {
                        words[i][l] = take_bits(u, 32, 52 * i, i < 4 ? 52 : 47);
                    }
                }
                for (int i = 0; i < 5; i++) {
                    p[g].u.d[i] = _mm512_loadu_si512(words[i]);
                }
            }
            ladder(p, (const uint8_t(*)[256])bits, both);
            for (int g = 0; g < both; g++) {
                x[group + (size_t)g] = p[g].x2;
                z[group + (size_t)g] = p[g].z2;
            }
        }
        if (!invert_all(z, products, groups)) {
            for (size_t i = 0; i < groups; i++) {
                invert(z + i, z + i);
            }
        }
        for (size_t i = 0; i < groups; i++) {
            multiply(x + i, x + i, z + i);
            for (int j = 0; j < 5; j++) {
                _mm512_storeu_si512(words[j], x[i].d[j]);
            }
            for (size_t l = 0; l < 8 && 8 * i + l < left; l++) {
                uint64_t d[5] = {words[0][l], words[1][l], words[2][l], words[3][l], words[4][l]};
                pack(out + 32 * (start + 8 * i + l), d);
            }
        }
    }
    wipe(bits, sizeof bits);
    wipe(p, sizeof p);
    wipe(x, sizeof x);
    wipe(z, sizeof z);
    wipe(products, sizeof products);
}
#else
typedef int x25519_ifma_is_not_built_here;
#endif
