/* The algorithms of group25519.h, written once. Whoever includes this has defined
 *   LANES, TARGET, INLINE, field, mask      elements computed with at once
 *   f_mul, f_sqr, f_add, f_sub              any results may be operands of any
 *   f_sum, f_diff                           where a core has these with less work: of products and sums of two products, for
 *                                           f_mul, f_sqr, and a difference for one f_sum more
 *   squares_of(a, n), product_into(a, b)    a = a^(2^n), a = a b, not inlined
 *   f_limbs, f_load (little-endian, `bits` of 255 or 256), f_load_big, f_store, f_canon, f_odd, f_zero, f_select, m_* */

#define STEP static TARGET __attribute__((noinline))
#define F(c) f_limbs(C_##c)
#ifndef f_sum
#define f_sum f_add
#define f_diff f_sub
#endif

INLINE field f_neg(field a) {
    return f_sub(f_sub(a, a), a);
}

INLINE mask f_same(field a, field b) {
    return f_zero(f_canon(f_sub(a, b)));
}

INLINE mask f_negative(field a) {
    return f_odd(f_canon(a));
}

INLINE field f_abs(field a) {
    return f_select(f_negative(a), f_neg(a), a);
}

/* a^(2^250 - 1), and a^11 */
static TARGET void power_250(field *out, field *a11, const field *z) {
    static const uint8_t steps[7] = {5, 10, 20, 10, 50, 100, 50};
    field a = *z, b, c;
    squares_of(&a, 1); /* 2 */
    b = a;
    squares_of(&b, 2);
    product_into(&b, z); /* 9 */
    product_into(&a, &b); /* 11 */
    *a11 = a;
    squares_of(&a, 1);
    product_into(&a, &b); /* 2^5 - 1 */
    field five, ten, fifty;
    five = a;
    squares_of(&a, steps[0]);
    product_into(&a, &five);
    ten = a;
    squares_of(&a, steps[1]);
    product_into(&a, &ten); /* 2^20 - 1 */
    c = a;
    squares_of(&a, steps[2]);
    product_into(&a, &c); /* 2^40 - 1 */
    squares_of(&a, steps[3]);
    product_into(&a, &ten);
    fifty = a;
    squares_of(&a, steps[4]);
    product_into(&a, &fifty); /* 2^100 - 1 */
    c = a;
    squares_of(&a, steps[5]);
    product_into(&a, &c);
    squares_of(&a, steps[6]);
    product_into(&a, &fifty);
    *out = a;
}

/* a^((p - 5) / 8) = a^(2^252 - 3) */
static TARGET field power_58(field z) {
    field a, unused;
    power_250(&a, &unused, &z);
    squares_of(&a, 2);
    return f_mul(a, z);
}

/* a^(p - 2) = a^(2^255 - 21) */
static TARGET field inverse_of(field z) {
    field a, a11;
    power_250(&a, &a11, &z);
    squares_of(&a, 5);
    return f_mul(a, a11);
}

/* Extended coordinates on -x^2 + y^2 = 1 + d x^2 y^2 (Hisil, Wong, Carter, Dawson, ASIACRYPT 2008) */
typedef struct {
    field x, y, z, t;
} edwards;

/* The same as what is added to another: Y + X, Y - X, 2 d T, 2 Z */
typedef struct {
    field plus, minus, t, z;
} cached;

STEP void cache(cached *out, const edwards *p) {
    out->plus = f_add(p->y, p->x);
    out->minus = f_sub(p->y, p->x);
    out->t = f_mul(p->t, F(2D));
    out->z = f_add(p->z, p->z);
}

/* Complete, because d is no square: 7 M, and 1 M for T where it is wanted, as before an addition */
STEP void add_cached(edwards *p, const cached *q, int with_t) {
    field a = f_mul(f_diff(p->y, p->x), q->minus), b = f_mul(f_sum(p->y, p->x), q->plus);
    field c = f_mul(p->t, q->t), d = f_mul(p->z, q->z);
    field e = f_diff(b, a), f = f_diff(d, c), g = f_sum(d, c), h = f_sum(b, a);
    p->x = f_mul(e, f);
    p->y = f_mul(g, h);
    p->z = f_mul(f, g);
    if (with_t) {
        p->t = f_mul(e, h);
    }
}

static TARGET void edwards_add(edwards *p, const edwards *q) {
    cached c;
    cache(&c, q);
    add_cached(p, &c, 1);
    wipe(&c, sizeof c);
}

/* 3 M + 4 S, T as above */
STEP void edwards_dbl(edwards *p, int with_t) {
    field a = f_sqr(p->x), b = f_sqr(p->y), c = f_sqr(p->z), s = f_sqr(f_sum(p->x, p->y));
    /* E, F, G, H of the paper, all negated */
    field h = f_sum(a, b), e = f_diff(h, s), g = f_diff(a, b), f = f_sum(f_sum(c, c), g);
    p->x = f_mul(e, f);
    p->y = f_mul(g, h);
    p->z = f_mul(f, g);
    if (with_t) {
        p->t = f_mul(e, h);
    }
}

/* RFC 9380 appendix G.2.1, then G.2.2 */
STEP void elligator(edwards *out, const field *element) {
    field u = *element, one = F(ONE);
    field tv1 = f_sqr(u);
    tv1 = f_add(tv1, tv1);
    field xd = f_add(tv1, one), x1n = f_neg(F(A)), tv2 = f_sqr(xd), gxd = f_mul(tv2, xd);
    field gx1 = f_mul(F(A), tv1);
    gx1 = f_mul(gx1, x1n);
    gx1 = f_add(gx1, tv2);
    gx1 = f_mul(gx1, x1n);
    field tv3 = f_sqr(gxd);
    tv2 = f_sqr(tv3);
    tv3 = f_mul(f_mul(tv3, gxd), gx1);
    tv2 = f_mul(tv2, tv3);
    field y11 = f_mul(power_58(tv2), tv3), y12 = f_mul(y11, F(I));
    field y1 = f_select(f_same(f_mul(f_sqr(y11), gxd), gx1), y11, y12);
    field x2n = f_mul(x1n, tv1), y21 = f_mul(f_mul(y11, u), F(2ROOT)), y22 = f_mul(y21, F(I));
    field gx2 = f_mul(gx1, tv1);
    field y2 = f_select(f_same(f_mul(f_sqr(y21), gxd), gx2), y21, y22);
    mask e3 = f_same(f_mul(f_sqr(y1), gxd), gx1);
    field xn = f_select(e3, x1n, x2n), y = f_select(e3, y1, y2);
    y = f_select(m_xor(e3, f_negative(y)), f_neg(y), y);
    /* Montgomery (xn / xd, y) to Edwards (en / ed, hn / hd) */
    field en = f_mul(xn, F(ROOT)), ed = f_mul(xd, y), hn = f_sub(xn, xd), hd = f_add(xn, xd);
    mask exceptional = f_zero(f_canon(f_mul(ed, hd)));
    en = f_select(exceptional, f_sub(one, one), en);
    ed = f_select(exceptional, one, ed);
    hn = f_select(exceptional, one, hn);
    hd = f_select(exceptional, one, hd);
    out->x = f_mul(en, hd);
    out->y = f_mul(hn, ed);
    out->z = f_mul(ed, hd);
    out->t = f_mul(en, hn);
}

static TARGET void hash(uint8_t *out, const uint8_t *elements, unsigned each, int to_edwards, size_t count) {
    edwards p, q;
    for (size_t at = 0; at < count; at += LANES) {
        size_t left = count - at < LANES ? count - at : LANES;
        for (unsigned k = 0; k < each; k++) {
            const uint8_t *bytes = elements + 64 * (each * at + k);
            const uint64_t weight[4] = {38}; /* 2^256 */
            field u = f_mul(f_load_big(bytes, 64 * each, left), f_limbs(weight));
            u = f_add(u, f_load_big(bytes + 32, 64 * each, left));
            elligator(k ? &q : &p, &u);
        }
        if (each == 2) {
            edwards_add(&p, &q);
        }
        for (int i = 0; i < 3; i++) {
            edwards_dbl(&p, 0);
        }
        if (to_edwards) {
            field z = inverse_of(p.z), y = f_canon(f_mul(p.y, z));
            f_store(out + 32 * at, left, y, f_negative(f_mul(p.x, z)));
        } else {
            field u = f_mul(f_add(p.z, p.y), inverse_of(f_sub(p.z, p.y)));
            f_store(out + 32 * at, left, f_canon(u), m_never());
        }
    }
    wipe(&p, sizeof p);
    wipe(&q, sizeof q);
}

/* RFC 9496 section 4.2 */
static TARGET mask sqrt_ratio(field *out, field u, field v) {
    field v3 = f_mul(f_sqr(v), v), v7 = f_mul(f_sqr(v3), v);
    field r = f_mul(f_mul(u, v3), power_58(f_mul(u, v7)));
    field check = f_mul(v, f_sqr(r)), minus = f_neg(u);
    mask correct = f_same(check, u), flipped = f_same(check, minus), flipped_i = f_same(check, f_mul(minus, F(I)));
    r = f_select(m_or(flipped, flipped_i), f_mul(r, F(I)), r);
    *out = f_abs(r);
    return m_or(correct, flipped);
}

/* Section 4.3.1; back comes where it is an encoding */
static TARGET mask ristretto_decode(edwards *p, const uint8_t *bytes, size_t left) {
    field s = f_load(bytes, left, 256), one = F(ONE);
    /* below p, and even */
    mask good = m_and(f_below_p(s), m_not(f_odd(s)));
    s = f_add(s, f_sub(one, one));
    field ss = f_sqr(s), u1 = f_sub(one, ss), u2 = f_add(one, ss), u2s = f_sqr(u2), root;
    field v = f_sub(f_neg(f_mul(F(D), f_sqr(u1))), u2s);
    good = m_and(good, sqrt_ratio(&root, one, f_mul(v, u2s)));
    field den_x = f_mul(root, u2), den_y = f_mul(f_mul(root, den_x), v);
    p->x = f_mul(s, den_x);
    p->x = f_abs(f_add(p->x, p->x));
    p->y = f_mul(u1, den_y);
    p->z = one;
    p->t = f_mul(p->x, p->y);
    return m_and(good, m_not(m_or(f_negative(p->t), f_zero(f_canon(p->y)))));
}

/* Section 4.3.2 */
static TARGET void ristretto_encode(uint8_t *out, size_t left, const edwards *p) {
    field u1 = f_mul(f_add(p->z, p->y), f_sub(p->z, p->y)), u2 = f_mul(p->x, p->y), root;
    sqrt_ratio(&root, F(ONE), f_mul(u1, f_sqr(u2)));
    field den1 = f_mul(root, u1), den2 = f_mul(root, u2), z_inv = f_mul(f_mul(den1, den2), p->t);
    mask rotate = f_negative(f_mul(p->t, z_inv));
    field x = f_select(rotate, f_mul(p->y, F(I)), p->x), y = f_select(rotate, f_mul(p->x, F(I)), p->y);
    field den = f_select(rotate, f_mul(den1, F(INVSQRT_A_MINUS_D)), den2);
    y = f_select(f_negative(f_mul(x, z_inv)), f_neg(y), y);
    f_store(out, left, f_canon(f_abs(f_mul(den, f_sub(p->z, y)))), m_never());
}

/* Section 4.3.4, MAP */
STEP void ristretto_map(edwards *p, const field *t) {
    field one = F(ONE), r = f_mul(F(I), f_sqr(*t));
    field u = f_mul(f_add(r, one), F(ONE_MINUS_D_SQ));
    field v = f_mul(f_sub(f_neg(one), f_mul(r, F(D))), f_add(r, F(D))), s;
    mask square = sqrt_ratio(&s, u, v);
    s = f_select(square, s, f_neg(f_abs(f_mul(s, *t))));
    field c = f_select(square, f_neg(one), r);
    field n = f_sub(f_mul(f_mul(c, f_sub(r, one)), F(D_MINUS_ONE_SQ)), v);
    field w0 = f_mul(f_add(s, s), v), w1 = f_mul(n, F(SQRT_AD_MINUS_ONE)), ss = f_sqr(s);
    field w2 = f_sub(one, ss), w3 = f_add(one, ss);
    p->x = f_mul(w0, w3);
    p->y = f_mul(w2, w1);
    p->z = f_mul(w1, w3);
    p->t = f_mul(w0, w2);
}

static TARGET void derive(uint8_t *out, const uint8_t *uniform, size_t count) {
    edwards p, q;
    for (size_t at = 0; at < count; at += LANES) {
        size_t left = count - at < LANES ? count - at : LANES;
        field t = f_load_step(uniform + 64 * at, 64, left, 255);
        ristretto_map(&p, &t);
        t = f_load_step(uniform + 64 * at + 32, 64, left, 255);
        ristretto_map(&q, &t);
        edwards_add(&p, &q);
        ristretto_encode(out + 32 * at, left, &p);
    }
    wipe(&p, sizeof p);
    wipe(&q, sizeof q);
}

static TARGET int valid(const uint8_t *elements, size_t count) {
    edwards p;
    unsigned bad = 0;
    for (size_t at = 0; at < count; at += LANES) {
        bad |= m_any(m_not(ristretto_decode(&p, elements + 32 * at, count - at < LANES ? count - at : LANES)));
    }
    return !bad;
}

/* Digits of radix 16 from -8 to 7, the last one 0 or 1 */
#define WINDOWS 65
typedef struct {
    uint8_t size[WINDOWS][LANES], minus[WINDOWS][LANES];
} digits;

static void recode(digits *d, size_t lane, const uint8_t k[32]) {
    int carry = 0;
    for (int i = 0; i < WINDOWS; i++) {
        int digit = (i < WINDOWS - 1 ? k[i / 2] >> (4 * (i & 1)) & 15 : 0) + carry;
        carry = (digit + 8) >> 4;
        digit -= carry << 4;
        unsigned minus = (unsigned)digit >> 31;
        d->minus[i][lane] = (uint8_t)minus;
        d->size[i][lane] = (uint8_t)(((unsigned)digit ^ (0 - minus)) + minus);
    }
}

/* `size` times the element whose multiples from 1 to 8 the table holds, or its negative: every entry is read */
STEP void pick_cached(cached *out, const cached table[8], const uint8_t size[LANES], const uint8_t minus[LANES]) {
    field zero = f_limbs((const uint64_t[4]){0}), one = F(ONE);
    cached r = {one, one, zero, f_add(one, one)};
    for (int j = 0; j < 8; j++) {
        mask here = m_equal(size, j + 1);
        r.plus = f_select(here, table[j].plus, r.plus);
        r.minus = f_select(here, table[j].minus, r.minus);
        r.t = f_select(here, table[j].t, r.t);
        r.z = f_select(here, table[j].z, r.z);
    }
    mask negative = m_equal(minus, 1);
    out->plus = f_select(negative, r.minus, r.plus);
    out->minus = f_select(negative, r.plus, r.minus);
    out->t = f_select(negative, f_sub(zero, r.t), r.t);
    out->z = r.z;
}

static TARGET int multiply_elements(uint8_t *out, const uint8_t *scalars, size_t step, const uint8_t *elements,
                                    size_t count) {
    cached table[8], q;
    edwards acc;
    digits d;
    unsigned bad = 0;
    for (size_t at = 0; at < count; at += LANES) {
        size_t left = count - at < LANES ? count - at : LANES;
        if (step || !at) {
            for (size_t l = 0; l < LANES; l++) {
                recode(&d, l, scalars + (at + (l < left ? l : left - 1)) * step);
            }
        }
        bad |= m_any(m_not(ristretto_decode(&acc, elements + 32 * at, left)));
        for (int j = 0; j < 8; j++) {
            if (j == 1) {
                edwards_dbl(&acc, 1);
            } else if (j > 1) {
                add_cached(&acc, table, 1);
            }
            cache(table + j, &acc);
        }
        acc.y = acc.z = F(ONE);
        acc.x = acc.t = f_limbs((const uint64_t[4]){0});
        for (int i = WINDOWS - 1; i >= 0; i--) {
            for (int t = 0; t < 4 && i < WINDOWS - 1; t++) {
                edwards_dbl(&acc, t == 3);
            }
            pick_cached(&q, table, d.size[i], d.minus[i]);
            add_cached(&acc, &q, !i);
        }
        ristretto_encode(out + 32 * at, left, &acc);
    }
    wipe(table, sizeof table);
    wipe(&acc, sizeof acc);
    wipe(&q, sizeof q);
    wipe(&d, sizeof d);
    return !bad;
}
