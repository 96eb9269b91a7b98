/* The algorithms of group25519.h, written once. Whoever includes this has defined
 *   LANES, TARGET, INLINE, number, mask     elements computed with at once
 *   f_mul, f_sqr                            of sums of at most three products and one difference, or one and two
 *   f_mul_here, f_sqr_here                  the same inlined, for what is done often
 *   f_add, f_sub                            not carried; what f_sub takes away is a sum of three products at most
 *   squares_of(a, n)                        a = a^(2^n)
 *   f_limbs, f_load (little-endian, `bits` of 255 or 256), f_load_big, f_store, f_canon, f_odd, f_zero, f_select, m_* */

#define STEP static TARGET __attribute__((noinline))
#define F(c) f_limbs(C_##c)

INLINE number f_neg(number a) {
    return f_sub(F(ZERO), a);
}

INLINE mask f_same(number a, number b) {
    return f_zero(f_canon(f_sub(a, b)));
}

INLINE mask f_opposite(number a, number b) {
    return f_zero(f_canon(f_add(a, b)));
}

INLINE mask f_negative(number a) {
    return f_odd(f_canon(a));
}

/* a residue */
INLINE number f_abs(number a) {
    a = f_canon(a);
    return f_canon(f_select(f_odd(a), f_neg(a), a));
}

/* a^(2^250 - 1), and a^11 */
static TARGET void power_250(number *out, number *a11, const number *z) {
    static const uint8_t steps[7] = {5, 10, 20, 10, 50, 100, 50};
    number a = *z, b, c;
    squares_of(&a, 1); /* 2 */
    b = a;
    squares_of(&b, 2);
    b = f_mul(b, *z); /* 9 */
    a = f_mul(a, b); /* 11 */
    *a11 = a;
    squares_of(&a, 1);
    a = f_mul(a, b); /* 2^5 - 1 */
    number five, ten, fifty;
    five = a;
    squares_of(&a, steps[0]);
    a = f_mul(a, five);
    ten = a;
    squares_of(&a, steps[1]);
    a = f_mul(a, ten); /* 2^20 - 1 */
    c = a;
    squares_of(&a, steps[2]);
    a = f_mul(a, c); /* 2^40 - 1 */
    squares_of(&a, steps[3]);
    a = f_mul(a, ten);
    fifty = a;
    squares_of(&a, steps[4]);
    a = f_mul(a, fifty); /* 2^100 - 1 */
    c = a;
    squares_of(&a, steps[5]);
    a = f_mul(a, c);
    squares_of(&a, steps[6]);
    a = f_mul(a, fifty);
    *out = a;
}

/* a^((p - 5) / 8) = a^(2^252 - 3) */
static TARGET number power_58(number z) {
    number a, unused;
    power_250(&a, &unused, &z);
    squares_of(&a, 2);
    return f_mul(a, z);
}

/* a^(p - 2) = a^(2^255 - 21) */
static TARGET number inverse_of(number z) {
    number a, a11;
    power_250(&a, &a11, &z);
    squares_of(&a, 5);
    return f_mul(a, a11);
}

#define CHUNK 8 /* groups of LANES that share an inversion */

/* z[i] = 1 / z[i] and 0 for 0, by one inversion for at most CHUNK of them */
static TARGET void invert_all(number *z, size_t groups) {
    number before[CHUNK], product = F(ONE), inverse;
    mask zero[CHUNK];
    for (size_t i = 0; i < groups; i++) {
        zero[i] = f_zero(f_canon(z[i]));
        z[i] = f_select(zero[i], F(ONE), z[i]);
        before[i] = product;
        product = f_mul(product, z[i]);
    }
    inverse = inverse_of(product);
    for (size_t i = groups; i-- > 0;) {
        before[i] = f_mul(before[i], inverse);
        inverse = f_mul(inverse, z[i]);
        z[i] = f_select(zero[i], F(ZERO), before[i]);
    }
    wipe(before, sizeof before);
    wipe(&product, sizeof product);
    wipe(&inverse, sizeof inverse);
}

/* Extended coordinates on -x^2 + y^2 = 1 + d x^2 y^2 (Hisil, Wong, Carter, Dawson, ASIACRYPT 2008) */
typedef struct {
    number x, y, z, t;
} edwards;

/* An addend: y + x, y - x, 2 z, 2 d t */
typedef struct {
    number plus, minus, z2, t2d;
} addend;

static TARGET addend addend_of(const edwards *p) {
    return (addend){f_add(p->y, p->x), f_sub(p->y, p->x), f_add(p->z, p->z), f_mul(p->t, F(2D))};
}

/* p + q, or p - q where `negative`; t only if it is asked for, as a doubling does not need it. Complete, because d is no
 * square. */
STEP void edwards_add(edwards *p, const addend *q, mask negative, int with_t) {
    number a = f_mul_here(f_sub(p->y, p->x), f_select(negative, q->plus, q->minus));
    number b = f_mul_here(f_add(p->y, p->x), f_select(negative, q->minus, q->plus));
    number c = f_mul_here(p->t, q->t2d), d = f_mul_here(p->z, q->z2), less = f_sub(d, c), more = f_add(d, c);
    number e = f_sub(b, a), f = f_select(negative, more, less), g = f_select(negative, less, more), h = f_add(b, a);
    p->x = f_mul_here(e, f);
    p->y = f_mul_here(g, h);
    p->z = f_mul_here(f, g);
    if (with_t) {
        p->t = f_mul_here(e, h);
    }
}

/* f and h, and with them x, y and z, have the other sign than in the paper. */
STEP void edwards_dbl(edwards *p, int with_t) {
    number a = f_sqr_here(p->x), b = f_sqr_here(p->y), c = f_sqr_here(p->z), h = f_add(a, b);
    number e = f_sub(f_sqr_here(f_add(p->x, p->y)), h), g = f_sub(b, a), f = f_sub(f_add(f_add(c, c), a), b);
    p->x = f_mul_here(e, f);
    p->y = f_mul_here(g, h);
    p->z = f_mul_here(f, g);
    if (with_t) {
        p->t = f_mul_here(e, h);
    }
}

/* RFC 9380 appendix G.2.1, then G.2.2 */
STEP void elligator(edwards *out, const number *element) {
    number u = *element, one = F(ONE);
    number tv1 = f_sqr(u);
    tv1 = f_add(tv1, tv1);
    number xd = f_add(tv1, one), x1n = f_neg(F(A)), tv2 = f_sqr(xd), gxd = f_mul(tv2, xd);
    number gx1 = f_mul(F(A), tv1);
    gx1 = f_mul(gx1, x1n);
    gx1 = f_add(gx1, tv2);
    gx1 = f_mul(gx1, x1n);
    number tv3 = f_sqr(gxd);
    tv2 = f_sqr(tv3);
    tv3 = f_mul(f_mul(tv3, gxd), gx1);
    tv2 = f_mul(tv2, tv3);
    number y11 = f_mul(power_58(tv2), tv3), y12 = f_mul(y11, F(I));
    number y1 = f_select(f_same(f_mul(f_sqr(y11), gxd), gx1), y11, y12);
    number x2n = f_mul(x1n, tv1), y21 = f_mul(f_mul(y11, u), F(2ROOT)), y22 = f_mul(y21, F(I));
    number gx2 = f_mul(gx1, tv1);
    number y2 = f_select(f_same(f_mul(f_sqr(y21), gxd), gx2), y21, y22);
    mask e3 = f_same(f_mul(f_sqr(y1), gxd), gx1);
    number xn = f_select(e3, x1n, x2n), y = f_select(e3, y1, y2);
    y = f_select(m_xor(e3, f_negative(y)), f_neg(y), y);
    /* Montgomery (xn / xd, y) to Edwards (en / ed, hn / hd) */
    number en = f_mul(xn, F(ROOT)), ed = f_mul(xd, y), hn = f_sub(xn, xd), hd = f_add(xn, xd);
    mask exceptional = f_zero(f_canon(f_mul(ed, hd)));
    en = f_select(exceptional, F(ZERO), en);
    ed = f_select(exceptional, one, ed);
    hn = f_select(exceptional, one, hn);
    hd = f_select(exceptional, one, hd);
    out->x = f_mul(en, hd);
    out->y = f_mul(hn, ed);
    out->z = f_mul(ed, hd);
    out->t = f_mul(en, hn);
}

/* One or two field elements each to a point of the prime-order group */
static TARGET void hash_to_point(edwards *p, const uint8_t *elements, unsigned each, size_t left) {
    edwards q;
    for (unsigned k = 0; k < each; k++) {
        const uint8_t *bytes = elements + 64 * k;
        const uint64_t weight[4] = {38}; /* 2^256 */
        number u = f_mul(f_load_big(bytes, 64 * each, left), f_limbs(weight));
        u = f_add(u, f_load_big(bytes + 32, 64 * each, left));
        elligator(k ? &q : p, &u);
    }
    if (each == 2) {
        addend other = addend_of(&q);
        edwards_add(p, &other, m_never(), 0);
        wipe(&other, sizeof other);
    }
    for (int i = 0; i < 3; i++) {
        edwards_dbl(p, 0);
    }
    wipe(&q, sizeof q);
}

static TARGET void hash(uint8_t *out, const uint8_t *elements, unsigned each, int to_edwards, size_t count) {
    edwards p[CHUNK];
    number z[CHUNK];
    for (size_t start = 0; start < count; start += CHUNK * LANES) {
        size_t groups = 0;
        for (size_t at = start; groups < CHUNK && at < count; at += LANES, groups++) {
            hash_to_point(p + groups, elements + 64 * each * at, each, count - at);
            z[groups] = to_edwards ? p[groups].z : f_sub(p[groups].z, p[groups].y);
        }
        invert_all(z, groups);
        for (size_t i = 0; i < groups; i++) {
            size_t at = start + LANES * i, left = count - at < LANES ? count - at : LANES;
            number y = f_canon(f_mul(to_edwards ? p[i].y : f_add(p[i].z, p[i].y), z[i]));
            f_store(out + 32 * at, left, y, to_edwards ? f_negative(f_mul(p[i].x, z[i])) : m_never());
        }
    }
    wipe(p, sizeof p);
    wipe(z, sizeof z);
}

/* RFC 9496 section 4.2 */
static TARGET mask sqrt_ratio(number *out, number u, number v) {
    number v3 = f_mul(f_sqr(v), v), v7 = f_mul(f_sqr(v3), v);
    number r = f_mul(f_mul(u, v3), power_58(f_mul(u, v7)));
    number check = f_mul(v, f_sqr(r));
    mask correct = f_same(check, u), flipped = f_opposite(check, u), flipped_i = f_opposite(check, f_mul(u, F(I)));
    r = f_select(m_or(flipped, flipped_i), f_mul(r, F(I)), r);
    *out = f_abs(r);
    return m_or(correct, flipped);
}

/* Section 4.3.1; back comes where it is an encoding */
static TARGET mask ristretto_decode(edwards *p, const uint8_t *bytes, size_t left) {
    number s = f_load(bytes, left, 256), one = F(ONE);
    /* below p, and even */
    mask good = m_and(f_below_p(s), m_not(f_odd(s)));
    number ss = f_sqr(s), u1 = f_sub(one, ss), u2 = f_add(one, ss), u2s = f_sqr(u2), root;
    number v = f_sub(f_neg(f_mul(F(D), f_sqr(u1))), u2s);
    good = m_and(good, sqrt_ratio(&root, one, f_mul(v, u2s)));
    number den_x = f_mul(root, u2), den_y = f_mul(f_mul(root, den_x), v);
    p->x = f_mul(s, den_x);
    p->x = f_abs(f_add(p->x, p->x));
    p->y = f_mul(u1, den_y);
    p->z = one;
    p->t = f_mul(p->x, p->y);
    return m_and(good, m_not(m_or(f_negative(p->t), f_zero(f_canon(p->y)))));
}

/* Section 4.3.2 */
static TARGET void ristretto_encode(uint8_t *out, size_t left, const edwards *p) {
    number u1 = f_mul(f_add(p->z, p->y), f_sub(p->z, p->y)), u2 = f_mul(p->x, p->y), root;
    sqrt_ratio(&root, F(ONE), f_mul(u1, f_sqr(u2)));
    number den1 = f_mul(root, u1), den2 = f_mul(root, u2), z_inv = f_mul(f_mul(den1, den2), p->t);
    mask rotate = f_negative(f_mul(p->t, z_inv));
    number x = f_select(rotate, f_mul(p->y, F(I)), p->x), y = f_select(rotate, f_mul(p->x, F(I)), p->y);
    number den = f_select(rotate, f_mul(den1, F(INVSQRT_A_MINUS_D)), den2);
    number rest = f_select(f_negative(f_mul(x, z_inv)), f_add(p->z, y), f_sub(p->z, y));
    f_store(out, left, f_abs(f_mul(den, rest)), m_never());
}

/* Section 4.3.4, MAP */
STEP void ristretto_map(edwards *p, const number *t) {
    number one = F(ONE), r = f_mul(F(I), f_sqr(*t));
    number u = f_mul(f_add(r, one), F(ONE_MINUS_D_SQ));
    number v = f_mul(f_sub(f_neg(one), f_mul(r, F(D))), f_add(r, F(D))), s;
    mask square = sqrt_ratio(&s, u, v);
    s = f_select(square, s, f_neg(f_abs(f_mul(s, *t))));
    number c = f_select(square, f_neg(one), r);
    number n = f_sub(f_mul(f_mul(c, f_sub(r, one)), F(D_MINUS_ONE_SQ)), v);
    number w0 = f_mul(f_add(s, s), v), w1 = f_mul(n, F(SQRT_AD_MINUS_ONE)), ss = f_sqr(s);
    number w2 = f_sub(one, ss), w3 = f_add(one, ss);
    p->x = f_mul(w0, w3);
    p->y = f_mul(w2, w1);
    p->z = f_mul(w1, w3);
    p->t = f_mul(w0, w2);
}

static TARGET void derive(uint8_t *out, const uint8_t *uniform, size_t count) {
    edwards p, q;
    addend other;
    for (size_t at = 0; at < count; at += LANES) {
        size_t left = count - at < LANES ? count - at : LANES;
        number t = f_load_step(uniform + 64 * at, 64, left, 255);
        ristretto_map(&p, &t);
        t = f_load_step(uniform + 64 * at + 32, 64, left, 255);
        ristretto_map(&q, &t);
        other = addend_of(&q);
        edwards_add(&p, &other, m_never(), 1);
        ristretto_encode(out + 32 * at, left, &p);
    }
    wipe(&p, sizeof p);
    wipe(&q, sizeof q);
    wipe(&other, sizeof other);
}

static TARGET int valid(const uint8_t *elements, size_t count) {
    edwards p;
    unsigned bad = 0;
    for (size_t at = 0; at < count; at += LANES) {
        bad |= m_any(m_not(ristretto_decode(&p, elements + 32 * at, count - at < LANES ? count - at : LANES)));
    }
    return !bad;
}

typedef struct {
    number e, f, g, h;
} doubled;

/* 2 p needs no root to be encoded, but an inverse (of `product`), as its coordinates come from those of p: Hamburg, "Decaf",
 * CRYPTO 2015, section 6; curve25519-dalek's double_and_compress_batch has the same formulae. */
STEP void double_halfway(doubled *d, number *product, const edwards *p) {
    number zz = f_sqr(p->z), dtt = f_mul(f_sqr(p->t), F(D));
    d->e = f_mul(p->x, f_add(p->y, p->y));
    d->f = f_add(zz, dtt);
    d->g = f_add(f_sqr(p->y), f_sqr(p->x));
    d->h = f_sub(zz, dtt);
    *product = f_mul(f_mul(d->e, d->g), f_mul(d->f, d->h));
}

/* Zero as the inverse stands for the neutral element, whose encoding is zero. */
STEP void encode_doubled(uint8_t *out, size_t left, const doubled *d, const number *inverse) {
    number eg = f_mul(d->e, d->g), z_inv = f_mul(eg, *inverse), t_inv = f_mul(f_mul(d->f, d->h), *inverse);
    mask rotate = f_negative(f_mul(eg, z_inv));
    number e = f_select(rotate, d->g, d->e), h = f_select(rotate, f_mul(d->f, F(I)), d->h);
    number g = f_select(rotate, d->e, d->g), magic = f_select(rotate, F(I), F(INVSQRT_A_MINUS_D));
    /* turned by a quarter, g stands for -e */
    mask plus = m_xor(rotate, f_negative(f_mul(f_mul(h, e), z_inv)));
    number rest = f_select(plus, f_add(h, g), f_sub(h, g));
    f_store(out, left, f_abs(f_mul(rest, f_mul(magic, f_mul(g, t_inv)))), m_never());
}

/* k + (row times factor), words; back comes what carries, or borrows */
static int64_t add_words(uint64_t k[4], const uint64_t row[4], int64_t factor) {
    __int128 sum = 0;
    for (int i = 0; i < 4; i++) {
        sum += (__int128)row[i] * factor + k[i];
        k[i] = (uint64_t)sum;
        sum >>= 64;
    }
    return (int64_t)sum;
}

/* Signed digits of radix 16, lowest first, of half the scalars modulo the group's order. No branch. */
static void signed_digits(uint8_t size[64][LANES], uint8_t negative[64][LANES], const uint8_t *scalars, size_t step,
                          size_t left) {
    /* 2^252 + c */
    static const uint64_t order[4] = {UINT64_C(0x5812631a5cf5d3ed), UINT64_C(0x14def9dea2f79cd6), 0, UINT64_C(1) << 60};
    for (size_t l = 0; l < LANES; l++) {
        const uint8_t *at = scalars + (l < left ? l : left - 1) * step;
        uint64_t k[4];
        for (unsigned i = 0; i < 4; i++) {
            k[i] = take_bits(at, 32, 64 * i, 32) | take_bits(at, 32, 64 * i + 32, 32) << 32;
        }
        /* Less than one order is missing afterwards; half of an odd number is half of the sum with the odd order. */
        int64_t borrow = add_words(k, order, -(int64_t)(k[3] >> 60));
        add_words(k, order, borrow & 1);
        add_words(k, order, (int64_t)(k[0] & 1));
        for (int i = 0; i < 4; i++) {
            k[i] = k[i] >> 1 | (i < 3 ? k[i + 1] << 63 : 0);
        }
        unsigned carry = 0;
        for (int i = 0; i < 64; i++) {
            unsigned digit = (unsigned)(k[i / 16] >> 4 * (i % 16) & 15) + carry;
            carry = (digit + 8) >> 4;
            size[i][l] = (uint8_t)(((digit - 16 * carry) ^ (0 - carry)) + carry);
            negative[i][l] = (uint8_t)carry;
        }
        wipe(k, sizeof k);
    }
}

STEP void pick_addend(addend *out, const addend table[8], const uint8_t size[LANES]) {
    number one = F(ONE);
    addend r = {one, one, f_add(one, one), F(ZERO)};
    for (int j = 1; j <= 8; j++) {
        mask here = m_equal(size, j);
        r.plus = f_select(here, table[j - 1].plus, r.plus);
        r.minus = f_select(here, table[j - 1].minus, r.minus);
        r.z2 = f_select(here, table[j - 1].z2, r.z2);
        r.t2d = f_select(here, table[j - 1].t2d, r.t2d);
    }
    *out = r;
}

static TARGET int multiply_elements(uint8_t *out, const uint8_t *scalars, size_t step, const uint8_t *elements,
                                    size_t count) {
    addend table[8], picked;
    edwards p;
    doubled half[CHUNK];
    number inverses[CHUNK];
    uint8_t size[64][LANES], negative[64][LANES];
    unsigned bad = 0;
    for (size_t start = 0; start < count; start += CHUNK * LANES) {
        size_t groups = 0;
        for (size_t at = start; groups < CHUNK && at < count; at += LANES, groups++) {
            size_t left = count - at < LANES ? count - at : LANES;
            if (step || !at) {
                signed_digits(size, negative, scalars + at * step, step, left);
            }
            bad |= m_any(m_not(ristretto_decode(&p, elements + 32 * at, left)));
            table[0] = addend_of(&p);
            for (int j = 1; j < 8; j++) {
                edwards_add(&p, table, m_never(), 1);
                table[j] = addend_of(&p);
            }
            p = (edwards){F(ZERO), F(ONE), F(ONE), F(ZERO)};
            for (int i = 63; i >= 0; i--) {
                for (int t = 0; i < 63 && t < 4; t++) {
                    edwards_dbl(&p, t == 3);
                }
                pick_addend(&picked, table, size[i]);
                edwards_add(&p, &picked, m_equal(negative[i], 1), i == 0);
            }
            double_halfway(half + groups, inverses + groups, &p);
        }
        invert_all(inverses, groups);
        for (size_t i = 0; i < groups; i++) {
            size_t at = start + LANES * i;
            encode_doubled(out + 32 * at, count - at < LANES ? count - at : LANES, half + i, inverses + i);
        }
    }
    wipe(table, sizeof table);
    wipe(&picked, sizeof picked);
    wipe(&p, sizeof p);
    wipe(half, sizeof half);
    wipe(inverses, sizeof inverses);
    wipe(size, sizeof size);
    wipe(negative, sizeof negative);
    return !bad;
}
