/* Dense matrix products modulo 2^64 and 2^128. Time depends on shapes only. See accel/notes/masks.md. */
#ifndef INTERCONN_RINGS_H
#define INTERCONN_RINGS_H

#include <stddef.h>
#include <stdint.h>

/* Row-major; an element of 2^128 is two words, low first. a has n rows of k.
 *   plain:      b has k rows of m, out n rows of m:   out = a b
 *   transposed: b has n rows of m, out k rows of m:   out = a^T b
 * With `onto` the product is added to what out holds. out overlaps neither. */
typedef struct {
    size_t n, k, m;
    int transposed, onto;
} ring_shape;

void ring64_product_portable(const ring_shape *s, uint64_t *out, const uint64_t *a, const uint64_t *b);
void ring128_product(const ring_shape *s, uint64_t *out, const uint64_t *a, const uint64_t *b);
/* out += x, of `size` words with 1 or 2 an element */
void ring_add(uint64_t *out, const uint64_t *x, size_t size, size_t words);
#if defined(__x86_64__) && defined(__GNUC__)
#define HAVE_RINGS_AVX512 1
int ring64_avx512_usable(void);
/* 0, or -1 where there was no memory */
int ring64_product_avx512(const ring_shape *s, uint64_t *out, const uint64_t *a, const uint64_t *b);
#endif

#endif
