/* SHA-256, SM3 and SHA-512 one text at a time (FIPS 180-4, GB/T 32905-2016), and RFC 9380's expansion. */
#include "digest.h"
#include "mont.h"

#ifndef __clang__
#pragma GCC optimize("O3")
#endif
#define TARGET
#define WORD uint32_t
#define PLUS(a, b) ((a) + (b))
#define XOR(a, b) ((a) ^ (b))
#define XOR3(a, b, c) ((a) ^ (b) ^ (c))
#define ROTL(a, n) ((a) << (n) | (a) >> (32 - (n)))
#define SHR(a, n) ((a) >> (n))
#define CH(e, f, g) (((e) & (f)) ^ (~(e) & (g)))
#define MAJ(a, b, c) (((a) & (b)) | ((c) & ((a) | (b))))
#define ALL(k) (k)
#define ROUNDS_FN(name) one_##name
#include "digest_rounds.h"

static const uint64_t K512[80] = {
    UINT64_C(0x428a2f98d728ae22), UINT64_C(0x7137449123ef65cd), UINT64_C(0xb5c0fbcfec4d3b2f), UINT64_C(0xe9b5dba58189dbbc),
    UINT64_C(0x3956c25bf348b538), UINT64_C(0x59f111f1b605d019), UINT64_C(0x923f82a4af194f9b), UINT64_C(0xab1c5ed5da6d8118),
    UINT64_C(0xd807aa98a3030242), UINT64_C(0x12835b0145706fbe), UINT64_C(0x243185be4ee4b28c), UINT64_C(0x550c7dc3d5ffb4e2),
    UINT64_C(0x72be5d74f27b896f), UINT64_C(0x80deb1fe3b1696b1), UINT64_C(0x9bdc06a725c71235), UINT64_C(0xc19bf174cf692694),
    UINT64_C(0xe49b69c19ef14ad2), UINT64_C(0xefbe4786384f25e3), UINT64_C(0x0fc19dc68b8cd5b5), UINT64_C(0x240ca1cc77ac9c65),
    UINT64_C(0x2de92c6f592b0275), UINT64_C(0x4a7484aa6ea6e483), UINT64_C(0x5cb0a9dcbd41fbd4), UINT64_C(0x76f988da831153b5),
    UINT64_C(0x983e5152ee66dfab), UINT64_C(0xa831c66d2db43210), UINT64_C(0xb00327c898fb213f), UINT64_C(0xbf597fc7beef0ee4),
    UINT64_C(0xc6e00bf33da88fc2), UINT64_C(0xd5a79147930aa725), UINT64_C(0x06ca6351e003826f), UINT64_C(0x142929670a0e6e70),
    UINT64_C(0x27b70a8546d22ffc), UINT64_C(0x2e1b21385c26c926), UINT64_C(0x4d2c6dfc5ac42aed), UINT64_C(0x53380d139d95b3df),
    UINT64_C(0x650a73548baf63de), UINT64_C(0x766a0abb3c77b2a8), UINT64_C(0x81c2c92e47edaee6), UINT64_C(0x92722c851482353b),
    UINT64_C(0xa2bfe8a14cf10364), UINT64_C(0xa81a664bbc423001), UINT64_C(0xc24b8b70d0f89791), UINT64_C(0xc76c51a30654be30),
    UINT64_C(0xd192e819d6ef5218), UINT64_C(0xd69906245565a910), UINT64_C(0xf40e35855771202a), UINT64_C(0x106aa07032bbd1b8),
    UINT64_C(0x19a4c116b8d2d0c8), UINT64_C(0x1e376c085141ab53), UINT64_C(0x2748774cdf8eeb99), UINT64_C(0x34b0bcb5e19b48a8),
    UINT64_C(0x391c0cb3c5c95a63), UINT64_C(0x4ed8aa4ae3418acb), UINT64_C(0x5b9cca4f7763e373), UINT64_C(0x682e6ff3d6b2b8a3),
    UINT64_C(0x748f82ee5defb2fc), UINT64_C(0x78a5636f43172f60), UINT64_C(0x84c87814a1f0ab72), UINT64_C(0x8cc702081a6439ec),
    UINT64_C(0x90befffa23631e28), UINT64_C(0xa4506cebde82bde9), UINT64_C(0xbef9a3f7b2c67915), UINT64_C(0xc67178f2e372532b),
    UINT64_C(0xca273eceea26619c), UINT64_C(0xd186b8c721c0c207), UINT64_C(0xeada7dd6cde0eb1e), UINT64_C(0xf57d4f7fee6ed178),
    UINT64_C(0x06f067aa72176fba), UINT64_C(0x0a637dc5a2c898a6), UINT64_C(0x113f9804bef90dae), UINT64_C(0x1b710b35131c471b),
    UINT64_C(0x28db77f523047d84), UINT64_C(0x32caab7b40c72493), UINT64_C(0x3c9ebe0a15c9bebc), UINT64_C(0x431d67c49c100d4c),
    UINT64_C(0x4cc5d4becb3e42b6), UINT64_C(0x597f299cfc657e2a), UINT64_C(0x5fcb6fab3ad6faec), UINT64_C(0x6c44198c4a475817),
};

static void one_sha512(uint64_t s[8], const uint8_t *block) {
    uint64_t w[16], v[8];
    memcpy(v, s, sizeof v);
    for (int i = 0; i < 16; i++) {
        w[i] = 0;
        for (int j = 0; j < 8; j++) {
            w[i] = w[i] << 8 | block[8 * i + j];
        }
    }
#define R64(a, n) ((a) >> (n) | (a) << (64 - (n)))
    for (int i = 0; i < 80; i++) {
        if (i >= 16) {
            uint64_t x = w[(i + 1) & 15], y = w[(i + 14) & 15];
            w[i & 15] += (R64(x, 1) ^ R64(x, 8) ^ x >> 7) + w[(i + 9) & 15] + (R64(y, 19) ^ R64(y, 61) ^ y >> 6);
        }
        uint64_t t = v[7] + (R64(v[4], 14) ^ R64(v[4], 18) ^ R64(v[4], 41)) + CH(v[4], v[5], v[6]) + K512[i] + w[i & 15];
        uint64_t u = (R64(v[0], 28) ^ R64(v[0], 34) ^ R64(v[0], 39)) + MAJ(v[0], v[1], v[2]);
        memmove(v + 1, v, 7 * sizeof *v);
        v[4] += t;
        v[0] = t + u;
    }
    for (int i = 0; i < 8; i++) {
        s[i] += v[i];
    }
}

static const uint32_t IV[2][8] = {
    {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19},
    {0x7380166f, 0x4914b2b9, 0x172442d7, 0xda8a0600, 0xa96f30bc, 0x163138aa, 0xe38dee4d, 0xb0fb0e4e},
};
static const uint64_t IV512[8] = {
    UINT64_C(0x6a09e667f3bcc908), UINT64_C(0xbb67ae8584caa73b), UINT64_C(0x3c6ef372fe94f82b), UINT64_C(0xa54ff53a5f1d36f1),
    UINT64_C(0x510e527fade682d1), UINT64_C(0x9b05688c2b3e6c1f), UINT64_C(0x1f83d9abfb41bd6b), UINT64_C(0x5be0cd19137e2179),
};

typedef struct {
    int algorithm;
    size_t block, used;
    uint64_t total, wide[8];
    uint32_t state[8];
    uint8_t buffer[128];
} stream;

static void stream_start(stream *s, int algorithm) {
    s->algorithm = algorithm;
    s->block = algorithm == DIGEST_SHA512 ? 128 : 64;
    s->used = 0;
    s->total = 0;
    memcpy(s->wide, IV512, sizeof IV512);
    memcpy(s->state, IV[algorithm == DIGEST_SM3], sizeof IV[0]);
}

static void stream_block(stream *s, const uint8_t *block) {
    if (s->algorithm == DIGEST_SHA512) {
        one_sha512(s->wide, block);
        return;
    }
    uint32_t w[16];
    for (int i = 0; i < 16; i++) {
        w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 | (uint32_t)block[4 * i + 2] << 8 |
               block[4 * i + 3];
    }
    (s->algorithm == DIGEST_SM3 ? one_sm3 : one_sha256)(s->state, w);
}

static void stream_add(stream *s, const uint8_t *data, size_t length) {
    s->total += length;
    while (length) {
        size_t part = s->block - s->used < length ? s->block - s->used : length;
        memcpy(s->buffer + s->used, data, part);
        s->used += part;
        data += part;
        length -= part;
        if (s->used == s->block) {
            stream_block(s, s->buffer);
            s->used = 0;
        }
    }
}

static void stream_end(stream *s, uint8_t *out) {
    size_t tail = s->block / 8; /* the length's field */
    s->buffer[s->used++] = 0x80;
    if (s->used > s->block - tail) {
        memset(s->buffer + s->used, 0, s->block - s->used);
        stream_block(s, s->buffer);
        s->used = 0;
    }
    memset(s->buffer + s->used, 0, s->block - s->used);
    for (int i = 0; i < 8; i++) {
        s->buffer[s->block - 1 - (size_t)i] = (uint8_t)(s->total << 3 >> (8 * i));
    }
    stream_block(s, s->buffer);
    if (s->algorithm == DIGEST_SHA512) {
        for (int i = 0; i < 64; i++) {
            out[i] = (uint8_t)(s->wide[i / 8] >> (56 - 8 * (i % 8)));
        }
    } else {
        for (int i = 0; i < 32; i++) {
            out[i] = (uint8_t)(s->state[i / 4] >> (24 - 8 * (i % 4)));
        }
    }
    wipe(s, sizeof *s);
}

void digest_one(int algorithm, uint8_t *out, const uint8_t *data, size_t length) {
    stream s;
    stream_start(&s, algorithm);
    stream_add(&s, data, length);
    stream_end(&s, out);
}

void digest_portable(int algorithm, uint8_t *out, const uint8_t *data, const int64_t *offsets, size_t count) {
    for (size_t i = 0; i < count; i++) {
        digest_one(algorithm, out + 32 * i, data + offsets[i], (size_t)(offsets[i + 1] - offsets[i]));
    }
}

void digest_expand(int algorithm, uint8_t *out, size_t step, size_t length, const uint8_t *tag, size_t tag_length,
                   const uint8_t *data, const int64_t *offsets, size_t count) {
    size_t size = algorithm == DIGEST_SHA512 ? 64 : 32;
    uint8_t first[64], last[64], ending = (uint8_t)tag_length;
    stream empty, s;
    stream_start(&empty, algorithm);
    memset(last, 0, sizeof last);
    for (size_t i = 0; i < empty.block; i += 64) {
        stream_add(&empty, last, 64);
    }
    for (size_t i = 0; i < count; i++) {
        uint8_t sizes[3] = {(uint8_t)(length >> 8), (uint8_t)length, 0};
        s = empty;
        stream_add(&s, data + offsets[i], (size_t)(offsets[i + 1] - offsets[i]));
        stream_add(&s, sizes, 3);
        stream_add(&s, tag, tag_length);
        stream_add(&s, &ending, 1);
        stream_end(&s, first);
        memset(last, 0, sizeof last);
        for (size_t at = 0; at < length; at += size) {
            uint8_t number = (uint8_t)(at / size + 1);
            for (size_t j = 0; j < size; j++) {
                last[j] ^= first[j];
            }
            stream_start(&s, algorithm);
            stream_add(&s, last, size);
            stream_add(&s, &number, 1);
            stream_add(&s, tag, tag_length);
            stream_add(&s, &ending, 1);
            stream_end(&s, last);
            memcpy(out + step * i + at, last, length - at < size ? length - at : size);
        }
    }
    wipe(first, sizeof first);
    wipe(last, sizeof last);
}
