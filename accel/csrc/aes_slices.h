/* AES-128 bit-sliced: no table, no branch and no address depends on a secret. The S-box is the circuit of Boyar and Peralta
 * (A depth-16 circuit for the AES S-box, eprint 2011/332). For inclusion by one source file each: plain C, or accel/cuda.
 * The includer defines `slice`, words of 64 bits, HALVES of them, and HALF(x, i), word i. Each word holds four blocks: bit
 * 16 row + 4 column + block of slice b is bit b of a byte. */
#ifndef INTERCONN_AES_SLICES_H
#define INTERCONN_AES_SLICES_H

#ifndef DEVICE
#define DEVICE
#endif

DEVICE static inline void substitute(slice q[8]) {
    slice x0 = q[7], x1 = q[6], x2 = q[5], x3 = q[4], x4 = q[3], x5 = q[2], x6 = q[1], x7 = q[0];
    slice y14 = x3 ^ x5, y13 = x0 ^ x6, y9 = x0 ^ x3, y8 = x0 ^ x5, t0 = x1 ^ x2, y1 = t0 ^ x7, y4 = y1 ^ x3;
    slice y12 = y13 ^ y14, y2 = y1 ^ x0, y5 = y1 ^ x6, y3 = y5 ^ y8, t1 = x4 ^ y12, y15 = t1 ^ x5, y20 = t1 ^ x1;
    slice y6 = y15 ^ x7, y10 = y15 ^ t0, y11 = y20 ^ y9, y7 = x7 ^ y11, y17 = y10 ^ y11, y19 = y10 ^ y8;
    slice y16 = t0 ^ y11, y21 = y13 ^ y16, y18 = x0 ^ y16;

    slice t2 = y12 & y15, t4 = (y3 & y6) ^ t2, t6 = (y4 & x7) ^ t2, t7 = y13 & y16, t9 = (y5 & y1) ^ t7;
    slice t11 = (y2 & y7) ^ t7, t12 = y9 & y11, t14 = (y14 & y17) ^ t12, t16 = (y8 & y10) ^ t12;
    slice t21 = t4 ^ t14 ^ y20, t22 = t6 ^ t16 ^ y19, t23 = t9 ^ t14 ^ y21, t24 = t11 ^ t16 ^ y18;
    slice t25 = t21 ^ t22, t26 = t21 & t23, t27 = t24 ^ t26, t29 = (t25 & t27) ^ t22, t30 = t23 ^ t24;
    slice t33 = ((t22 ^ t26) & t30) ^ t24, t34 = t23 ^ t33, t35 = t27 ^ t33, t36 = t24 & t35, t37 = t36 ^ t34;
    slice t38 = t27 ^ t36, t40 = t25 ^ (t29 & t38), t41 = t40 ^ t37, t42 = t29 ^ t33, t43 = t29 ^ t40;
    slice t44 = t33 ^ t37, t45 = t42 ^ t41;
    slice z0 = t44 & y15, z1 = t37 & y6, z2 = t33 & x7, z3 = t43 & y16, z4 = t40 & y1, z5 = t29 & y7, z6 = t42 & y11;
    slice z7 = t45 & y17, z8 = t41 & y10, z9 = t44 & y12, z10 = t37 & y3, z11 = t33 & y4, z12 = t43 & y13;
    slice z13 = t40 & y5, z14 = t29 & y2, z15 = t42 & y9, z16 = t45 & y14, z17 = t41 & y8;

    slice t46 = z15 ^ z16, t47 = z10 ^ z11, t48 = z5 ^ z13, t49 = z9 ^ z10, t50 = z2 ^ z12, t51 = z2 ^ z5;
    slice t52 = z7 ^ z8, t53 = z0 ^ z3, t54 = z6 ^ z7, t55 = z16 ^ z17, t56 = z12 ^ t48, t57 = t50 ^ t53;
    slice t58 = z4 ^ t46, t59 = z3 ^ t54, t60 = t46 ^ t57, t61 = z14 ^ t57, t62 = t52 ^ t58, t63 = t49 ^ t58;
    slice t64 = z4 ^ t59, t65 = t61 ^ t62, t66 = z1 ^ t63, t67 = t64 ^ t65, s3 = t53 ^ t66;
    q[7] = t59 ^ t63;
    q[6] = t64 ^ ~s3;
    q[5] = t55 ^ ~t67;
    q[4] = s3;
    q[3] = t51 ^ t66;
    q[2] = t47 ^ t65;
    q[1] = t56 ^ ~t62;
    q[0] = t48 ^ ~t60;
}

DEVICE static inline void swap_bits(slice *x, slice *y, uint64_t low, int shift) {
    slice a = *x, b = *y;
    *x = (a & low) | (b & low) << shift;
    *y = (a & ~low) >> shift | (b & ~low);
}

/* Eight bytes across eight words to eight bits of eight slices; its own inverse. */
DEVICE static void turn(slice q[8]) {
    for (int i = 0; i < 8; i += 2) {
        swap_bits(q + i, q + i + 1, UINT64_C(0x5555555555555555), 1);
    }
    for (int i = 0; i < 4; i++) {
        slice *pair = q + i + (i & 2);
        swap_bits(pair, pair + 2, UINT64_C(0x3333333333333333), 2);
    }
    for (int i = 0; i < 4; i++) {
        swap_bits(q + i, q + i + 4, UINT64_C(0x0f0f0f0f0f0f0f0f), 4);
    }
}

DEVICE static inline uint64_t widen(uint32_t x) {
    uint64_t v = x;
    v = (v | v << 16) & UINT64_C(0x0000ffff0000ffff);
    return (v | v << 8) & UINT64_C(0x00ff00ff00ff00ff);
}

DEVICE static inline uint32_t narrow(uint64_t v) {
    v &= UINT64_C(0x00ff00ff00ff00ff);
    v = (v | v >> 8) & UINT64_C(0x0000ffff0000ffff);
    return (uint32_t)(v | v >> 16);
}

/* 4 * HALVES blocks of four little-endian columns to slices, and back */
DEVICE static void slice_in(slice q[8], uint32_t (*block)[4]) {
    for (int i = 0; i < 8; i++) {
        for (int half = 0; half < HALVES; half++) {
            const uint32_t *w = block[4 * half + (i & 3)];
            HALF(q[i], half) = widen(w[i >> 2]) | widen(w[2 + (i >> 2)]) << 8;
        }
    }
    turn(q);
}

DEVICE static void slice_out(slice q[8], uint32_t (*block)[4]) {
    turn(q);
    for (int i = 0; i < 8; i++) {
        for (int half = 0; half < HALVES; half++) {
            uint32_t *w = block[4 * half + (i & 3)];
            w[i >> 2] = narrow(HALF(q[i], half));
            w[2 + (i >> 2)] = narrow(HALF(q[i], half) >> 8);
        }
    }
}

DEVICE static inline slice shift_row(slice q) {
    return (q & UINT64_C(0x000000000000ffff)) | (q & UINT64_C(0x00000000fff00000)) >> 4 |
           (q & UINT64_C(0x00000000000f0000)) << 12 | (q & UINT64_C(0x0000ff0000000000)) >> 8 |
           (q & UINT64_C(0x000000ff00000000)) << 8 | (q & UINT64_C(0xf000000000000000)) >> 12 |
           (q & UINT64_C(0x0fff000000000000)) << 4;
}

DEVICE static void mix_columns(slice q[8]) {
    slice next[8], both[8];
    for (int b = 0; b < 8; b++) {
        next[b] = q[b] >> 16 | q[b] << 48;
        both[b] = q[b] ^ next[b];
    }
    for (int b = 0; b < 8; b++) {
        slice twice = both[(b + 7) & 7];
        if (b == 1 || b == 3 || b == 4) {
            twice ^= both[7];
        }
        q[b] = twice ^ next[b] ^ (both[b] >> 32 | both[b] << 32);
    }
}

DEVICE static uint32_t substitute_word(uint32_t word) {
    slice q[8];
    for (int b = 0; b < 8; b++) {
        uint64_t bits = 0;
        for (int i = 0; i < 4; i++) {
            bits |= (uint64_t)(word >> (8 * i + b) & 1) << i;
        }
        slice none = {0};
        q[b] = none;
        HALF(q[b], 0) = bits;
    }
    substitute(q);
    uint32_t out = 0;
    for (int b = 0; b < 8; b++) {
        for (int i = 0; i < 4; i++) {
            out |= (uint32_t)(HALF(q[b], 0) >> i & 1) << (8 * i + b);
        }
    }
    return out;
}

DEVICE static inline uint32_t load32(const uint8_t *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

DEVICE static void expand_key(uint8_t rounds[11 * 16], const uint8_t secret[16]) {
    uint32_t w[44], constant = 1;
    for (int i = 0; i < 4; i++) {
        w[i] = load32(secret + 4 * i);
    }
    for (int i = 4; i < 44; i++) {
        uint32_t t = w[i - 1];
        if (i % 4 == 0) {
            t = substitute_word(t >> 8 | t << 24) ^ constant;
            constant = (constant << 1 ^ (constant >> 7) * 0x11b) & 0xff;
        }
        w[i] = w[i - 4] ^ t;
    }
    for (int i = 0; i < 44; i++) {
        for (int b = 0; b < 4; b++) {
            rounds[4 * i + b] = (uint8_t)(w[i] >> (8 * b));
        }
    }
    volatile uint32_t *gone = w;
    for (int i = 0; i < 44; i++) {
        gone[i] = 0;
    }
}

/* The ten rounds on blocks that already met round key 0 */
DEVICE static inline void encrypt(slice q[8], slice (*rounds)[8]) {
    for (int r = 1; r <= 10; r++) {
        substitute(q);
        for (int b = 0; b < 8; b++) {
            q[b] = shift_row(q[b]);
        }
        if (r < 10) {
            mix_columns(q);
        }
        for (int b = 0; b < 8; b++) {
            q[b] ^= rounds[r][b];
        }
    }
}

#endif
