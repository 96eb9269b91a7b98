/* The algorithms of wcurve.h, written once. Whoever includes this file has defined
 *   CURVE                 the constants; CURVE_FN(name) a name of this curve's own
 *   LANES, PAIR, TARGET   points computed with at once, groups of them computed in turns, the functions' target
 *   field, mask           LANES numbers; a yes or no for each
 *   f_mul, f_sqr          Montgomery products, R = 2^260
 *   raw_add, raw_sub      without carries;              ripple (carries), weak (carries and below 1.01 p),
 *   over(a)               a + 2 p, so that a difference stays positive
 *   f_limbs, f_load, f_store, f_canon, f_odd, f_zero, f_select, m_*   see the cores
 * Bounds of every value stand in accel/notes/wcurve.md. */

#define ADD(a, b) ripple(raw_add(a, b))
#define SUB(a, b) ripple(over(raw_sub(a, b)))
/* Results below 1.01 p whatever came before. */
#define WADD(a, b) weak(raw_add(a, b))
#define WSUB(a, b) weak(raw_sub(a, b))
#define STEP static TARGET __attribute__((noinline))
#define CHUNK 32 /* groups that share an inversion */
#define TABLES (LANES == 1 ? 32 : 8) /* whose tables do: what fits the stack of a thread */

typedef struct {
    field x, y, z;
} CURVE_FN(point);
#define point CURVE_FN(point)

/* Jacobian, Z = 0 excluded: 5 M + 3 S for a = -3 */
STEP void CURVE_FN(dbl)(point *p) {
    field x = p->x, y = p->y, z = p->z;
    field twice = ADD(y, y), delta = f_sqr(z);
    field g = f_mul(y, twice); /* 2 Y^2 */
    p->z = f_mul(twice, z);
    field t = f_mul(SUB(x, delta), ADD(x, delta));
    field beta = f_mul(x, g); /* 2 X Y^2 */
    field alpha = ripple(raw_add(raw_add(t, t), t));
    field b2 = raw_add(beta, beta);
    field aa = f_sqr(alpha), gg = f_sqr(g);
    x = weak(raw_sub(aa, raw_add(b2, b2)));
    p->x = x;
    field v = f_mul(alpha, ripple(over(raw_sub(b2, x))));
    p->y = weak(raw_sub(v, raw_add(gg, gg)));
}

/* Jacobian p + q for q with Z = 1; p not infinity, p != q, p != -q: 8 M + 3 S */
STEP void CURVE_FN(add_affine)(point *p, const point *q) {
    field zz1 = f_sqr(p->z), s2 = f_mul(q->y, p->z), u1 = p->x, s1 = p->y;
    field u2 = f_mul(q->x, zz1);
    s2 = f_mul(s2, zz1);
    field h = SUB(u2, u1), r = SUB(s2, s1);
    field hh = f_sqr(h), rr = f_sqr(r);
    p->z = f_mul(p->z, h);
    field hhh = f_mul(h, hh), v = f_mul(u1, hh);
    field x = weak(raw_sub(rr, raw_add(hhh, raw_add(v, v))));
    p->x = x;
    p->y = weak(raw_sub(f_mul(r, SUB(v, x)), f_mul(s1, hhh)));
}

/* Homogeneous p + q, complete: Renes, Costello, Batina (EUROCRYPT 2016), algorithm 4 */
STEP void CURVE_FN(add_complete)(point *p, const point *q, const field *b) {
    field t0 = f_mul(p->x, q->x), t1 = f_mul(p->y, q->y), t2 = f_mul(p->z, q->z);
    field t3 = f_mul(WADD(p->x, p->y), WADD(q->x, q->y));
    t3 = WSUB(t3, raw_add(t0, t1));
    field t4 = f_mul(WADD(p->y, p->z), WADD(q->y, q->z));
    t4 = WSUB(t4, raw_add(t1, t2));
    field y3 = f_mul(WADD(p->x, p->z), WADD(q->x, q->z));
    y3 = WSUB(y3, raw_add(t0, t2));
    field x3 = WSUB(y3, f_mul(*b, t2));
    x3 = weak(raw_add(raw_add(x3, x3), x3));
    field z3 = WSUB(t1, x3);
    x3 = WADD(t1, x3);
    t2 = weak(raw_add(raw_add(t2, t2), t2));
    y3 = WSUB(WSUB(f_mul(*b, y3), t2), t0);
    y3 = weak(raw_add(raw_add(y3, y3), y3));
    t0 = weak(raw_sub(raw_add(raw_add(t0, t0), t0), t2));
    t1 = f_mul(t4, y3);
    t2 = f_mul(t0, y3);
    p->y = WADD(f_mul(x3, z3), t2);
    p->x = WSUB(f_mul(t3, x3), t1);
    p->z = WADD(f_mul(t4, z3), f_mul(t3, t0));
}

/* (X : Y : Z) with x = X / Z^2, y = Y / Z^3 to x = X / Z, y = Y / Z */
STEP void CURVE_FN(homogeneous)(point *p) {
    field zz = f_sqr(p->z);
    p->x = f_mul(p->x, p->z);
    p->z = f_mul(p->z, zz);
}

STEP void CURVE_FN(square_times)(field *a, int times) {
    field x = *a;
    while (times--) {
        x = f_sqr(x);
    }
    *a = x;
}

STEP void CURVE_FN(times)(field *a, const field *b) {
    *a = f_mul(*a, *b);
}

/* a^e for a public e of 256 bits */
STEP void CURVE_FN(power)(field *a, const uint64_t e[4]) {
    field table[16], x;
    table[0] = f_mul(f_limbs(CURVE.r2), f_limbs((const uint64_t[4]){1}));
    for (int i = 1; i < 16; i++) {
        table[i] = table[i - 1];
        CURVE_FN(times)(table + i, a);
    }
    x = table[e[3] >> 60];
    for (int i = 62; i >= 0; i--) {
        CURVE_FN(square_times)(&x, 4);
        CURVE_FN(times)(&x, table + (e[i / 16] >> (4 * (i % 16)) & 15));
    }
    *a = x;
    wipe(table, sizeof table);
    wipe(&x, sizeof x);
}

/* 1 / a; 0 for 0 */
static TARGET void CURVE_FN(invert)(field *a) {
    uint64_t e[4];
    wcurve_sub(e, CURVE.p, (const uint64_t[4]){2});
    CURVE_FN(power)(a, e);
}

/* Whether x and y are below p and on the curve (m_all(0) if not); they come back in Montgomery form. */
static TARGET mask CURVE_FN(enter)(field *x, field *y) {
    field r2 = f_limbs(CURVE.r2);
    mask good = m_and(f_below_p(*x), f_below_p(*y));
    *x = f_mul(*x, r2);
    *y = f_mul(*y, r2);
    field b = f_mul(f_limbs(CURVE.b), r2);
    field rhs = f_mul(f_sqr(*x), *x);
    rhs = WADD(WSUB(rhs, raw_add(raw_add(*x, *x), *x)), b);
    return m_and(good, f_zero(f_canon(WSUB(rhs, f_sqr(*y)))));
}

/* Out of Montgomery form, below p */
static TARGET field CURVE_FN(leave)(field a) {
    return f_canon(f_mul(a, f_limbs((const uint64_t[4]){1})));
}

static TARGET int CURVE_FN(check)(const uint8_t *points, size_t count) {
    unsigned bad = 0;
    for (size_t at = 0; at < count; at += LANES) {
        size_t left = count - at < LANES ? count - at : LANES;
        field x = f_load(points + 64 * at, 64, left), y = f_load(points + 64 * at + 32, 64, left);
        bad |= m_any(m_not(CURVE_FN(enter)(&x, &y)));
    }
    return !bad;
}

/* 1 / Z of every group by one inversion for all: no Z is zero here */
static TARGET void CURVE_FN(invert_all)(field *z, field *products, size_t groups) {
    products[0] = z[0];
    for (size_t i = 1; i < groups; i++) {
        products[i] = products[i - 1];
        CURVE_FN(times)(products + i, z + i);
    }
    field inverse = products[groups - 1], next;
    CURVE_FN(invert)(&inverse);
    for (size_t i = groups - 1; i > 0; i--) {
        next = inverse;
        CURVE_FN(times)(&next, z + i);
        z[i] = inverse;
        CURVE_FN(times)(z + i, products + i - 1);
        inverse = next;
    }
    z[0] = inverse;
    wipe(&inverse, sizeof inverse);
    wipe(&next, sizeof next);
}

/* Homogeneous to bytes; Z = 0 gives zeros, by masks and not by a branch. */
static TARGET void CURVE_FN(finish)(uint8_t *out, point *p, size_t groups, size_t left) {
    field z[CHUNK], products[CHUNK];
    mask infinite[CHUNK];
    field one = f_mul(f_limbs(CURVE.r2), f_limbs((const uint64_t[4]){1}));
    for (size_t i = 0; i < groups; i++) {
        infinite[i] = f_zero(f_canon(p[i].z));
        z[i] = f_select(infinite[i], one, p[i].z);
    }
    CURVE_FN(invert_all)(z, products, groups);
    for (size_t i = 0; i < groups; i++, left -= LANES) {
        field nothing = raw_sub(one, one);
        field x = f_select(infinite[i], nothing, CURVE_FN(leave)(f_mul(p[i].x, z[i])));
        field y = f_select(infinite[i], nothing, CURVE_FN(leave)(f_mul(p[i].y, z[i])));
        f_store(out + 64 * LANES * i, 64, left < LANES ? left : LANES, x);
        f_store(out + 64 * LANES * i + 32, 64, left < LANES ? left : LANES, y);
        if (left <= LANES) {
            break;
        }
    }
    wipe(z, sizeof z);
    wipe(products, sizeof products);
}

typedef struct {
    uint8_t at[WCURVE_WINDOWS][LANES], minus[WCURVE_WINDOWS][LANES], flip[LANES];
} CURVE_FN(digits);
#define digits CURVE_FN(digits)

/* k mod n, made odd by taking n - k (then `flip`), as sum of d_i 16^i with d_i = +-1, +-3 ... +-15, the last one positive
 * (Joye and Tunstall, AFRICACRYPT 2009); at = (|d| - 1) / 2 */
static void CURVE_FN(recode)(digits *d, size_t lane, const uint8_t scalar[32]) {
    uint64_t k[4], t[4];
    for (int i = 0; i < 4; i++) {
        k[i] = wcurve_be64(scalar + 24 - 8 * i);
    }
    uint64_t keep = 0 - wcurve_sub(t, k, CURVE.n);
    for (int i = 0; i < 4; i++) {
        k[i] = (k[i] & keep) | (t[i] & ~keep);
    }
    uint64_t even = (k[0] & 1) - 1;
    wcurve_sub(t, CURVE.n, k);
    for (int i = 0; i < 4; i++) {
        k[i] = (t[i] & even) | (k[i] & ~even);
    }
    d->flip[lane] = (uint8_t)(even & 1);
    for (int i = 0; i < WCURVE_WINDOWS; i++) {
        int bit = 4 * i + 1, word = bit / 64, shift = bit % 64;
        uint64_t w = k[word] >> shift;
        if (shift == 61 && word < 3) {
            w |= k[word + 1] << 3;
        }
        w = i < WCURVE_WINDOWS - 1 ? w & 15 : 8 | (w & 7);
        uint64_t minus = 1 - (w >> 3);
        d->minus[i][lane] = (uint8_t)minus;
        d->at[i][lane] = (uint8_t)((w ^ (0 - minus)) & 7);
    }
    wipe(k, sizeof k);
    wipe(t, sizeof t);
}

static void CURVE_FN(recode_all)(digits *d, const uint8_t *scalars, size_t step, size_t left) {
    for (size_t l = 0; l < LANES; l++) {
        CURVE_FN(recode)(d, l, scalars + (l < left ? l : left - 1) * step);
    }
}

INLINE field CURVE_FN(negate_if)(mask which, field y) {
    return f_select(which, WSUB(raw_sub(y, y), y), y);
}

/* P, 3 P ... 15 P from P with Z = 1, by adding 2 P with the same Z to each in turn (Meloni, WAIFI 2007): 5 M + 2 S. Entry j
 * has for z what its Z is times that of the entry before (2 y for the first such); last: the Z of 15 P. */
STEP void CURVE_FN(odd_multiples)(point table[8], field *last, const field *one) {
    field x = table[0].x, y = table[0].y, two_y = ADD(y, y), yy4 = f_sqr(two_y);
    point two, p;
    p.x = f_mul(x, yy4);
    p.y = f_mul(f_mul(y, two_y), yy4);
    field t = f_mul(SUB(x, *one), ADD(x, *one)), alpha = ripple(raw_add(raw_add(t, t), t));
    two.x = weak(raw_sub(f_sqr(alpha), raw_add(p.x, p.x)));
    two.y = weak(raw_sub(f_mul(alpha, SUB(p.x, two.x)), p.y));
    *last = two_y;
    for (int j = 1; j < 8; j++) {
        field h = SUB(p.x, two.x), r = SUB(p.y, two.y), hh = f_sqr(h), v = f_mul(p.x, hh);
        two.x = f_mul(two.x, hh);
        p.x = weak(raw_sub(f_sqr(r), raw_add(two.x, v)));
        two.y = f_mul(two.y, SUB(v, two.x));
        p.y = weak(raw_sub(f_mul(r, SUB(two.x, p.x)), two.y));
        p.z = h;
        table[j] = p;
        *last = f_mul(*last, h);
    }
    wipe(&two, sizeof two);
    wipe(&p, sizeof p);
}

/* Every entry to Z = 1, from the inverse of the last one's Z */
STEP void CURVE_FN(to_affine)(point table[8], const field *inverse) {
    field i = *inverse;
    for (int j = 7; j > 0; j--) {
        field ii = f_sqr(i);
        table[j].x = f_mul(table[j].x, ii);
        table[j].y = f_mul(table[j].y, f_mul(ii, i));
        i = f_mul(i, table[j].z);
    }
}

/* table[at], every entry read, y negated by mask */
STEP void CURVE_FN(pick)(point *out, const point table[8], const uint8_t at[LANES], const uint8_t minus[LANES]) {
    field x = table[0].x, y = table[0].y;
#pragma GCC unroll 7
    for (int j = 1; j < 8; j++) {
        mask here = m_equal(at, j);
        x = f_select(here, table[j].x, x);
        y = f_select(here, table[j].y, y);
    }
    out->x = x;
    out->y = CURVE_FN(negate_if)(m_equal(minus, 1), y);
}

/* Homogeneous results of at most TABLES groups; of one scalar for all d holds the digits already. */
static TARGET void CURVE_FN(multiply_some)(point *result, const uint8_t *scalars, size_t step, const uint8_t *points,
                                           size_t count, digits *d, point (*table)[8]) {
    size_t groups = (count + LANES - 1) / LANES;
    field r2 = f_limbs(CURVE.r2), one = f_mul(r2, f_limbs((const uint64_t[4]){1}));
    field b = f_mul(r2, f_limbs(CURVE.b)), z[TABLES], products[TABLES];
    point q;
    for (size_t g = 0; g < groups; g++) {
        size_t from = LANES * g, here = count - from < LANES ? count - from : LANES;
        if (step) {
            CURVE_FN(recode_all)(d + g, scalars + step * from, step, here);
        }
        table[g][0].x = f_mul(f_load(points + 64 * from, 64, here), r2);
        table[g][0].y = f_mul(f_load(points + 64 * from + 32, 64, here), r2);
        CURVE_FN(odd_multiples)(table[g], z + g, &one);
    }
    CURVE_FN(invert_all)(z, products, groups);
    for (size_t g = 0; g < groups; g++) {
        CURVE_FN(to_affine)(table[g], z + g);
    }
    q.z = one;
    for (size_t group = 0; group < groups; group += PAIR) {
        size_t end = groups - group < PAIR ? groups : group + PAIR;
        for (int i = WCURVE_WINDOWS - 1; i >= 0; i--) {
            for (int t = 0; t < 4 && i < WCURVE_WINDOWS - 1; t++) {
                for (size_t g = group; g < end; g++) {
                    CURVE_FN(dbl)(result + g);
                }
            }
            for (size_t g = group; g < end; g++) {
                const digits *k = d + (step ? g : 0);
                CURVE_FN(pick)(&q, table[g], k->at[i], k->minus[i]);
                if (i == WCURVE_WINDOWS - 1) {
                    result[g] = q;
                } else if (i) {
                    CURVE_FN(add_affine)(result + g, &q);
                } else {
                    /* only here may the operands be equal or opposite: 16 k' = +-d modulo n */
                    CURVE_FN(homogeneous)(result + g);
                    CURVE_FN(add_complete)(result + g, &q, &b);
                    result[g].y = CURVE_FN(negate_if)(m_equal(k->flip, 1), result[g].y);
                }
            }
        }
    }
    wipe(z, sizeof z);
    wipe(products, sizeof products);
    wipe(&q, sizeof q);
}

static TARGET void CURVE_FN(multiply)(uint8_t *out, const uint8_t *scalars, size_t step, const uint8_t *points,
                                      size_t count) {
    point result[CHUNK], table[TABLES][8];
    digits d[TABLES];
    if (!step && count) {
        CURVE_FN(recode_all)(d, scalars, 0, 1);
    }
    for (size_t start = 0; start < count; start += LANES * CHUNK) {
        size_t left = count - start < LANES * CHUNK ? count - start : LANES * CHUNK;
        for (size_t at = 0; at < left; at += LANES * TABLES) {
            size_t from = start + at, here = left - at < LANES * TABLES ? left - at : LANES * TABLES;
            CURVE_FN(multiply_some)(result + at / LANES, scalars + step * from, step, points + 64 * from, here, d, table);
        }
        CURVE_FN(finish)(out + 64 * start, result, (left + LANES - 1) / LANES, left);
    }
    wipe(result, sizeof result);
    wipe(table, sizeof table);
    wipe(d, sizeof d);
}

static TARGET void CURVE_FN(multiply_base)(uint8_t *out, const uint8_t *scalars, const uint8_t *base, size_t count) {
    /* a window's eight entries lie in the lanes of one field where there are eight */
    field table[WCURVE_WINDOWS][2][8 / LANES];
    point result[CHUNK], q;
    digits d;
    field r2 = f_limbs(CURVE.r2), one = f_mul(r2, f_limbs((const uint64_t[4]){1}));
    field b = f_mul(r2, f_limbs(CURVE.b));
    for (size_t e = 0; e < WCURVE_WINDOWS * 8; e += LANES) {
        for (int c = 0; c < 2; c++) {
            table[e / 8][c][e % 8 / LANES] = f_mul(f_load(base + 64 * e + 32 * c, 64, LANES), r2);
        }
    }
    q.z = one;
    for (size_t start = 0; start < count; start += LANES * CHUNK) {
        size_t left = count - start < LANES * CHUNK ? count - start : LANES * CHUNK;
        size_t groups = (left + LANES - 1) / LANES;
        for (size_t group = 0; group < groups; group++) {
            size_t from = start + LANES * group;
            point *acc = result + group;
            CURVE_FN(recode_all)(&d, scalars + 32 * from, 32, count - from < LANES ? count - from : LANES);
            for (int i = 0; i < WCURVE_WINDOWS; i++) {
                q.x = f_lookup(table[i][0], d.at[i]);
                q.y = CURVE_FN(negate_if)(m_equal(d.minus[i], 1), f_lookup(table[i][1], d.at[i]));
                if (!i) {
                    *acc = q;
                } else if (i < WCURVE_WINDOWS - 1) {
                    CURVE_FN(add_affine)(acc, &q);
                } else {
                    CURVE_FN(homogeneous)(acc);
                    CURVE_FN(add_complete)(acc, &q, &b);
                    acc->y = CURVE_FN(negate_if)(m_equal(d.flip, 1), acc->y);
                }
            }
        }
        CURVE_FN(finish)(out + 64 * start, result, groups, left);
    }
    wipe(result, sizeof result);
    wipe(&q, sizeof q);
    wipe(&d, sizeof d);
}

static TARGET void CURVE_FN(lift)(uint8_t *out, uint8_t *flags, const uint8_t *xs, const uint8_t *parities,
                                  size_t count) {
    field r2 = f_limbs(CURVE.r2), b = f_mul(r2, f_limbs(CURVE.b));
    uint64_t e[4]; /* (p + 1) / 4: p ends in ones */
    for (int i = 0; i < 4; i++) {
        e[i] = CURVE.p[i] >> 2 | (i < 3 ? CURVE.p[i + 1] << 62 : 0);
    }
    e[0]++;
    for (int i = 1; i < 4; i++) {
        e[i] += !e[i - 1];
    }
    for (size_t at = 0; at < count; at += LANES) {
        size_t left = count - at < LANES ? count - at : LANES;
        uint8_t odd[LANES] = {0};
        memcpy(odd, parities + at, left);
        field x = f_load(xs + 32 * at, 32, left);
        mask in_range = f_below_p(x);
        x = f_mul(x, r2);
        field rhs = f_mul(f_sqr(x), x);
        rhs = WADD(WSUB(rhs, raw_add(raw_add(x, x), x)), b);
        field root = rhs;
        CURVE_FN(power)(&root, e);
        mask square = f_zero(f_canon(WSUB(f_sqr(root), rhs)));
        field y = CURVE_FN(leave)(root);
        y = f_select(m_xor(f_odd(y), m_equal(odd, 1)), CURVE_FN(leave)(WSUB(raw_sub(root, root), root)), y);
        f_store(out + 64 * at, 64, left, CURVE_FN(leave)(x));
        f_store(out + 64 * at + 32, 64, left, y);
        m_store(flags + at, left, square, in_range);
    }
}

/* One element by RFC 9380 appendix F.2, with the square root of F.2.1.2, to a homogeneous point */
STEP void CURVE_FN(sswu)(point *p, const field *element) {
    field r2 = f_limbs(CURVE.r2), b = f_mul(r2, f_limbs(CURVE.b)), z = f_mul(r2, f_limbs(CURVE.z));
    field one = f_mul(r2, f_limbs((const uint64_t[4]){1})), u = *element;
    uint64_t e[4]; /* (p - 3) / 4 */
    for (int i = 0; i < 4; i++) {
        e[i] = CURVE.p[i] >> 2 | (i < 3 ? CURVE.p[i + 1] << 62 : 0);
    }
    field tv1 = f_mul(z, f_sqr(u));
    field tv2 = WADD(f_sqr(tv1), tv1);
    field tv3 = f_mul(b, WADD(tv2, one));
    field tv4 = f_select(f_zero(f_canon(tv2)), z, WSUB(raw_sub(tv2, tv2), tv2));
    tv4 = WSUB(raw_sub(tv4, tv4), raw_add(raw_add(tv4, tv4), tv4)); /* times A */
    field tv6 = f_sqr(tv4);
    tv2 = f_mul(WSUB(f_sqr(tv3), raw_add(raw_add(tv6, tv6), tv6)), tv3);
    tv6 = f_mul(tv6, tv4);
    tv2 = WADD(tv2, f_mul(b, tv6)); /* g(x) = tv2 / tv6 */
    field x = f_mul(tv1, tv3);
    field t = f_mul(tv2, tv6), y1 = f_mul(f_sqr(tv6), t);
    CURVE_FN(power)(&y1, e);
    y1 = f_mul(y1, t);
    field y2 = f_mul(y1, f_mul(r2, f_limbs(CURVE.c2)));
    mask square = f_zero(f_canon(WSUB(f_mul(f_sqr(y1), tv6), tv2)));
    y1 = f_select(square, y1, y2);
    field y = f_mul(f_mul(tv1, u), y1);
    x = f_select(square, tv3, x);
    y = f_select(square, y1, y);
    mask differ = m_xor(f_odd(CURVE_FN(leave)(u)), f_odd(CURVE_FN(leave)(y)));
    y = CURVE_FN(negate_if)(differ, y);
    p->x = x;
    p->y = f_mul(y, tv4);
    p->z = tv4;
}

static TARGET void CURVE_FN(map)(uint8_t *out, const uint8_t *elements, unsigned each, size_t count) {
    point result[CHUNK], q;
    field r2 = f_limbs(CURVE.r2), r2hi = f_limbs(CURVE.r2hi), b = f_mul(r2, f_limbs(CURVE.b));
    for (size_t start = 0; start < count; start += LANES * CHUNK) {
        size_t left = count - start < LANES * CHUNK ? count - start : LANES * CHUNK;
        size_t groups = (left + LANES - 1) / LANES;
        for (size_t group = 0; group < groups; group++) {
            size_t from = start + LANES * group, here = count - from < LANES ? count - from : LANES;
            for (unsigned k = 0; k < each; k++) {
                const uint8_t *bytes = elements + 64 * (each * from + k);
                field high = f_load(bytes, 64 * each, here), low = f_load(bytes + 32, 64 * each, here);
                field u = WADD(f_mul(high, r2hi), f_mul(low, r2));
                CURVE_FN(sswu)(k ? &q : result + group, &u);
            }
            if (each == 2) {
                CURVE_FN(add_complete)(result + group, &q, &b);
            }
        }
        CURVE_FN(finish)(out + 64 * start, result, groups, left);
    }
    wipe(result, sizeof result);
    wipe(&q, sizeof q);
}

#undef point
#undef digits
#undef ADD
#undef SUB
#undef WADD
#undef WSUB
#undef STEP
#undef CHUNK
#undef TABLES
