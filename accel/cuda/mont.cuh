/* Residues modulo one odd number in Montgomery form, one number a thread; see accel/notes/cuda.md.
 *
 * LIMBS words of 64 bits, R = 2^(64 LIMBS), every value in [0, n) between calls. `ring` holds n, R mod n (LIMBS words
 * each) and -1/n mod 2^64. Rows are LIMBS words. No branch and no address depends on a residue; exponents as said with
 * each kernel. */
#include "prelude.cuh"

#ifndef LIMBS
#define LIMBS 32
#endif
#define WINDOW 4
#define ENTRIES (1 << WINDOW)

/* Up to 32 words b and t stay in registers; longer ones would be spilled and reloaded at random, so they stay in local
 * memory, a few words of them in registers at a time. */
static constexpr int at_once = LIMBS <= 32 ? LIMBS : 8;

/* All ones where the small numbers are equal, else 0; no branch */
DEVICE static inline uint64_t equal_mask(uint64_t a, uint64_t b) {
    return 0 - (((a ^ b) - 1) >> 63);
}

/* out = a b / R mod n; out may be a or b. One pass adds a_i b and m n and shifts by a word; the sum stays below 2 n. */
DEVICE static NOINLINE void multiply(uint64_t *out, const uint64_t *a, const uint64_t *b, const uint64_t *ring) {
    const uint64_t *n = ring, inverse = ring[2 * LIMBS];
    uint64_t t[LIMBS], top = 0;
#pragma unroll at_once
    for (int j = 0; j < LIMBS; j++) {
        t[j] = 0;
    }
    for (int i = 0; i < LIMBS; i++) {
        const uint64_t x = a[i];
        wide product = (wide)x * b[0] + t[0];
        const uint64_t m = (uint64_t)product * inverse;
        wide sum = (wide)m * n[0] + (uint64_t)product;
#pragma unroll at_once
        for (int j = 1; j < LIMBS; j++) {
            product = (wide)x * b[j] + t[j] + (uint64_t)(product >> 64);
            sum = (wide)m * n[j] + (uint64_t)product + (uint64_t)(sum >> 64);
            t[j - 1] = (uint64_t)sum;
        }
        sum = (wide)top + (uint64_t)(product >> 64) + (uint64_t)(sum >> 64);
        t[LIMBS - 1] = (uint64_t)sum;
        top = (uint64_t)(sum >> 64);
    }
    uint64_t borrow = 0;
#pragma unroll at_once
    for (int j = 0; j < LIMBS; j++) {
        borrow = (uint64_t)(((wide)t[j] - n[j] - borrow) >> 64) & 1;
    }
    const uint64_t take = 0 - (top | (borrow ^ 1));
    borrow = 0;
#pragma unroll at_once
    for (int j = 0; j < LIMBS; j++) {
        const wide rest = (wide)t[j] - (n[j] & take) - borrow;
        out[j] = (uint64_t)rest;
        borrow = (uint64_t)(rest >> 64) & 1;
    }
}

DEVICE static inline void copy(uint64_t *out, const uint64_t *a) {
#pragma unroll at_once
    for (int j = 0; j < LIMBS; j++) {
        out[j] = a[j];
    }
}

/* The 4 bits of digit `at` */
DEVICE static inline uint32_t digit_of(const uint64_t *exponent, uint32_t at) {
    return (uint32_t)(exponent[at / 16] >> (WINDOW * (at % 16))) & (ENTRIES - 1);
}

/* out[i] = a[i] b[i] / R. A step of 0 instead of LIMBS takes the first row for all. With R^2 for b this brings plain
 * numbers into the form, with 1 out of it. */
KERNEL(mont_multiply, uint64_t *out, const uint64_t *a, uint64_t a_step, const uint64_t *b, uint64_t b_step,
       const uint64_t *ring, uint64_t count) {
    const uint64_t i = place();
    if (i >= count) {
        return;
    }
    uint64_t x[LIMBS], y[LIMBS];
    copy(x, a + i * a_step);
    copy(y, b + i * b_step);
    multiply(x, x, y, ring);
    copy(out + i * LIMBS, x);
}
EXPORT(mont_multiply)

/* out[i] = a[i]^(2^times) */
KERNEL(mont_square, uint64_t *out, const uint64_t *a, uint32_t times, const uint64_t *ring, uint64_t count) {
    const uint64_t i = place();
    if (i >= count) {
        return;
    }
    uint64_t x[LIMBS];
    copy(x, a + i * LIMBS);
    for (uint32_t k = 0; k < times; k++) {
        multiply(x, x, x, ring);
    }
    copy(out + i * LIMBS, x);
}
EXPORT(mont_square)

/* out[i] = a[i]^e[i], e of `words` words each, or one for all (step 0). `table` is scratch for count * ENTRIES rows: word j
 * of entry k of number i is table[(k * LIMBS + j) * count + i], so that neighbouring threads read neighbouring words.
 * With `scan` every entry is read at every window and the time depends on `words` only; without, the exponent is an
 * address: for public ones. */
KERNEL(mont_power, uint64_t *out, const uint64_t *a, const uint64_t *exponents, uint64_t step, uint32_t words,
       uint64_t *table, uint32_t scan, const uint64_t *ring, uint64_t count) {
    const uint64_t i = place();
    if (i >= count) {
        return;
    }
    uint64_t x[LIMBS], y[LIMBS];
    uint64_t *mine = table + i;
    copy(x, a + i * LIMBS);
    copy(y, ring + LIMBS);
    for (int k = 0; k < ENTRIES; k++) {
#pragma unroll at_once
        for (int j = 0; j < LIMBS; j++) {
            mine[(uint64_t)(k * LIMBS + j) * count] = y[j];
        }
        multiply(y, y, x, ring);
    }
    const uint64_t *exponent = exponents + i * step;
    copy(y, ring + LIMBS);
    for (uint32_t at = words * (64 / WINDOW); at-- > 0;) {
        for (int k = 0; k < WINDOW; k++) {
            multiply(y, y, y, ring);
        }
        const uint32_t digit = digit_of(exponent, at);
        if (scan) {
#pragma unroll at_once
            for (int j = 0; j < LIMBS; j++) {
                x[j] = 0;
            }
            for (int k = 0; k < ENTRIES; k++) {
                const uint64_t mask = equal_mask(digit, (uint64_t)k);
#pragma unroll at_once
                for (int j = 0; j < LIMBS; j++) {
                    x[j] |= mine[(uint64_t)(k * LIMBS + j) * count] & mask;
                }
            }
        } else {
#pragma unroll at_once
            for (int j = 0; j < LIMBS; j++) {
                x[j] = mine[(uint64_t)(digit * LIMBS + j) * count];
            }
        }
        multiply(y, y, x, ring);
    }
    copy(out + i * LIMBS, y);
}
EXPORT(mont_power)

/* out[s] = the product of a[index[starts[s]]] to a[index[starts[s + 1] - 1]]; an empty one is 1 */
KERNEL(mont_products, uint64_t *out, const uint64_t *a, const int64_t *index, const int64_t *starts,
       const uint64_t *ring, uint64_t count) {
    const uint64_t s = place();
    if (s >= count) {
        return;
    }
    uint64_t x[LIMBS], y[LIMBS];
    copy(x, ring + LIMBS);
    for (int64_t at = starts[s]; at < starts[s + 1]; at++) {
        copy(y, a + index[at] * LIMBS);
        multiply(x, x, y, ring);
    }
    copy(out + s * LIMBS, x);
}
EXPORT(mont_products)

/* Row (ENTRIES - 1) i + k - 1 of the table is a[i]^k, k from 1 */
KERNEL(mont_multiples, uint64_t *table, const uint64_t *a, const uint64_t *ring, uint64_t count) {
    const uint64_t i = place();
    if (i >= count) {
        return;
    }
    uint64_t x[LIMBS], y[LIMBS];
    copy(x, a + i * LIMBS);
    copy(y, x);
    for (uint64_t k = 0; k < ENTRIES - 1; k++) {
        copy(table + (i * (ENTRIES - 1) + k) * LIMBS, y);
        multiply(y, y, x, ring);
    }
}
EXPORT(mont_multiples)

/* out[s] = the product of base[index[t]]^value[t], t from starts[s] to starts[s + 1] - 1, from the bases' multiples
 * (Straus): all terms share the squarings. Values have `digits` digits of 4 bits. Time and addresses depend on index,
 * starts and values, which belong to whoever computes; not on the bases. */
KERNEL(mont_multiexp, uint64_t *out, const uint64_t *table, const int64_t *index, const uint64_t *values,
       const int64_t *starts, uint32_t digits, const uint64_t *ring, uint64_t count) {
    const uint64_t s = place();
    if (s >= count) {
        return;
    }
    uint64_t x[LIMBS], y[LIMBS];
    copy(x, ring + LIMBS);
    for (uint32_t at = digits; at-- > 0;) {
        for (int k = 0; k < WINDOW; k++) {
            multiply(x, x, x, ring);
        }
        for (int64_t t = starts[s]; t < starts[s + 1]; t++) {
            const uint32_t digit = digit_of(values + t, at);
            if (digit) {
                copy(y, table + ((uint64_t)index[t] * (ENTRIES - 1) + digit - 1) * LIMBS);
                multiply(x, x, y, ring);
            }
        }
    }
    copy(out + s * LIMBS, x);
}
EXPORT(mont_multiexp)
