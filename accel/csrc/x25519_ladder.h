/* The Montgomery ladder of RFC 7748 section 5 on one point; see accel/notes/x25519.md. For inclusion as f25519_portable.h. */
#ifndef INTERCONN_X25519_LADDER_H
#define INTERCONN_X25519_LADDER_H

#include "f25519_portable.h"

DEVICE static NOINLINE field invert(field z) {
    field z2 = sqr(z), z9 = mul(square_times(z2, 2), z), z11 = mul(z9, z2);
    field t5 = mul(sqr(z11), z9), t10 = mul(square_times(t5, 5), t5), t20 = mul(square_times(t10, 10), t10);
    field t40 = mul(square_times(t20, 20), t20), t50 = mul(square_times(t40, 10), t10);
    field t100 = mul(square_times(t50, 50), t50), t200 = mul(square_times(t100, 100), t100);
    return mul(square_times(mul(square_times(t200, 50), t50), 5), z11);
}

DEVICE static inline void swap(field *a, field *b, uint64_t which) {
    for (int i = 0; i < 5; i++) {
        uint64_t x = (a->d[i] ^ b->d[i]) & (0 - which);
        a->d[i] ^= x;
        b->d[i] ^= x;
    }
}

/* The u coordinate of the clamped scalar k times the point with coordinate u */
DEVICE static field ladder(const uint8_t k[32], field u) {
    field x2 = {{1}}, z2 = {{0}}, x3 = u, z3 = {{1}};
    uint64_t last = 0;
    for (int t = 254; t >= 0; t--) {
        uint64_t bit = k[t >> 3] >> (t & 7) & 1;
        swap(&x2, &x3, bit ^ last);
        swap(&z2, &z3, bit ^ last);
        last = bit;
        field a = add(x2, z2), b = sub(x2, z2), c = add(x3, z3), d = sub(x3, z3);
        field da = mul(d, a), cb = mul(c, b), aa = sqr(a), bb = sqr(b), e = sub(aa, bb);
        x3 = sqr(add(da, cb));
        z3 = mul(u, sqr(sub(da, cb)));
        x2 = mul(aa, bb);
        z2 = mul(e, add_scaled(aa, e));
    }
    swap(&x2, &x3, last);
    swap(&z2, &z3, last);
    return mul(x2, invert(z2));
}

#endif
