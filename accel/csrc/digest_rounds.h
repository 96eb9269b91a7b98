/* One block of SHA-256 and of SM3, written once over words or lanes of words. Whoever includes this has defined WORD,
 * PLUS, XOR, XOR3, ROTL, CH (choose), MAJ, ALL (a constant), TARGET, ROUNDS_FN(name). w: sixteen words of the block. */
static const uint32_t ROUNDS_FN(k)[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static TARGET void ROUNDS_FN(sha256)(WORD s[8], WORD w[16]) {
    WORD a = s[0], b = s[1], c = s[2], d = s[3], e = s[4], f = s[5], g = s[6], h = s[7];
    for (int from = 0; from < 64; from += 16) {
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) {
            WORD t = XOR3(ROTL(e, 26), ROTL(e, 21), ROTL(e, 7));
            t = PLUS(PLUS(t, CH(e, f, g)), PLUS(PLUS(h, w[i]), ALL(ROUNDS_FN(k)[from + i])));
            WORD u = PLUS(XOR3(ROTL(a, 30), ROTL(a, 19), ROTL(a, 10)), MAJ(a, b, c));
            h = g, g = f, f = e, e = PLUS(d, t), d = c, c = b, b = a, a = PLUS(t, u);
        }
        if (from < 48) {
#pragma GCC unroll 16
            for (int i = 0; i < 16; i++) {
                WORD x = w[(i + 1) & 15], y = w[(i + 14) & 15];
                WORD x3 = XOR3(ROTL(x, 25), ROTL(x, 14), SHR(x, 3)), y3 = XOR3(ROTL(y, 15), ROTL(y, 13), SHR(y, 10));
                w[i] = PLUS(PLUS(w[i], x3), PLUS(w[(i + 9) & 15], y3));
            }
        }
    }
    s[0] = PLUS(s[0], a), s[1] = PLUS(s[1], b), s[2] = PLUS(s[2], c), s[3] = PLUS(s[3], d);
    s[4] = PLUS(s[4], e), s[5] = PLUS(s[5], f), s[6] = PLUS(s[6], g), s[7] = PLUS(s[7], h);
}

static TARGET void ROUNDS_FN(sm3)(WORD s[8], WORD w[16]) {
    WORD a = s[0], b = s[1], c = s[2], d = s[3], e = s[4], f = s[5], g = s[6], h = s[7];
    WORD v[20];
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) {
        v[i] = w[i];
    }
    for (int from = 0; from < 64; from += 16) {
        /* four words ahead, for W' = W[j] ^ W[j + 4] */
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            WORD t = XOR3(v[i], v[i + 7], ROTL(v[i + 13], 15));
            v[16 + i] = XOR3(XOR3(t, ROTL(t, 15), ROTL(t, 23)), ROTL(v[i + 3], 7), v[i + 10]);
        }
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) {
            int j = from + i;
            uint32_t k = j < 16 ? 0x79cc4519 : 0x7a879d8a;
            k = k << (j & 31) | k >> ((32 - (j & 31)) & 31);
            WORD a12 = ROTL(a, 12), ss1 = ROTL(PLUS(PLUS(a12, e), ALL(k)), 7);
            WORD ff = j < 16 ? XOR3(a, b, c) : MAJ(a, b, c), gg = j < 16 ? XOR3(e, f, g) : CH(e, f, g);
            WORD t1 = PLUS(PLUS(ff, d), PLUS(XOR(ss1, a12), XOR(v[i], v[i + 4])));
            WORD t2 = PLUS(PLUS(gg, h), PLUS(ss1, v[i]));
            d = c, c = ROTL(b, 9), b = a, a = t1, h = g, g = ROTL(f, 19), f = e;
            e = XOR3(t2, ROTL(t2, 9), ROTL(t2, 17));
        }
        if (from < 48) {
            WORD n[20];
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) {
                n[i] = v[16 + i];
            }
#define AT(i) ((i) < 20 ? v[(i)] : n[(i) - 16])
#pragma GCC unroll 12
            for (int i = 4; i < 16; i++) {
                WORD t = XOR3(v[i], AT(i + 7), ROTL(AT(i + 13), 15));
                n[i] = XOR3(XOR3(t, ROTL(t, 15), ROTL(t, 23)), ROTL(AT(i + 3), 7), AT(i + 10));
            }
#undef AT
#pragma GCC unroll 16
            for (int i = 0; i < 16; i++) {
                v[i] = n[i];
            }
        }
    }
    s[0] = XOR(s[0], a), s[1] = XOR(s[1], b), s[2] = XOR(s[2], c), s[3] = XOR(s[3], d);
    s[4] = XOR(s[4], e), s[5] = XOR(s[5], f), s[6] = XOR(s[6], g), s[7] = XOR(s[7], h);
}
