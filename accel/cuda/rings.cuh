/* Dense products over Z_{2^64} and Z_{2^128}, tiles of TILE x TILE through shared memory; see accel/notes/cuda.md. */
#include "prelude.cuh"

#define TILE 16

template <typename T> DEVICE static inline T element(const uint64_t *a, uint64_t at);
template <> DEVICE inline uint64_t element<uint64_t>(const uint64_t *a, uint64_t at) {
    return a[at];
}
template <> DEVICE inline wide element<wide>(const uint64_t *a, uint64_t at) {
    return (wide)a[2 * at + 1] << 64 | a[2 * at];
}
DEVICE static inline void put(uint64_t *a, uint64_t at, uint64_t x) {
    a[at] = x;
}
DEVICE static inline void put(uint64_t *a, uint64_t at, wide x) {
    a[2 * at] = (uint64_t)x;
    a[2 * at + 1] = (uint64_t)(x >> 64);
}

/* Part z of out = a b (a: rows x inner, or inner x rows if transposed; b: inner x cols) sums the inner places
 * [z cut, (z + 1) cut); out holds a whole result for each part. Every thread of a block takes part in every tile. */
template <typename T>
DEVICE static inline void tiles(uint64_t *out, const uint64_t *a, const uint64_t *b, uint64_t rows, uint64_t inner,
                                uint64_t cols, uint64_t cut, uint32_t transposed) {
    SHARED uint64_t left[TILE][2 * TILE + 2], right[TILE][2 * TILE + 2];
    const uint64_t across = (cols + TILE - 1) / TILE;
    const uint64_t row0 = blockIdx.x / across * TILE, col0 = blockIdx.x % across * TILE;
    const uint64_t begin = blockIdx.z * cut, end = begin + cut < inner ? begin + cut : inner;
    const uint32_t x = threadIdx.x, y = threadIdx.y;
    T sum = 0;
    for (uint64_t at = begin; at < end; at += TILE) {
        /* left[r][k]: threads next to each other read next to each other in either order of a */
        const uint32_t r = transposed ? x : y, k = transposed ? y : x;
        const bool there = row0 + r < rows && at + k < end;
        put(left[r], k, there ? element<T>(a, transposed ? (at + k) * rows + row0 + r : (row0 + r) * inner + at + k)
                              : (T)0);
        put(right[y], x, at + y < end && col0 + x < cols ? element<T>(b, (at + y) * cols + col0 + x) : (T)0);
        __syncthreads();
        for (int step = 0; step < TILE; step++) {
            sum += element<T>(left[y], step) * element<T>(right[step], x);
        }
        __syncthreads();
    }
    if (row0 + y < rows && col0 + x < cols) {
        put(out, (blockIdx.z * rows + row0 + y) * cols + col0 + x, sum);
    }
}

KERNEL(ring64_tiles, uint64_t *out, const uint64_t *a, const uint64_t *b, uint64_t rows, uint64_t inner, uint64_t cols,
       uint64_t cut, uint32_t transposed) {
    tiles<uint64_t>(out, a, b, rows, inner, cols, cut, transposed);
}
EXPORT(ring64_tiles)

KERNEL(ring128_tiles, uint64_t *out, const uint64_t *a, const uint64_t *b, uint64_t rows, uint64_t inner, uint64_t cols,
       uint64_t cut, uint32_t transposed) {
    tiles<wide>(out, a, b, rows, inner, cols, cut, transposed);
}
EXPORT(ring128_tiles)

template <typename T>
DEVICE static inline void parts(uint64_t *onto, const uint64_t *a, uint64_t count, uint64_t elements) {
    const uint64_t i = place();
    if (i >= elements) {
        return;
    }
    T sum = element<T>(onto, i);
    for (uint64_t z = 0; z < count; z++) {
        sum += element<T>(a, z * elements + i);
    }
    put(onto, i, sum);
}

/* onto += the `count` parts of a product */
KERNEL(ring64_parts, uint64_t *onto, const uint64_t *a, uint64_t count, uint64_t elements) {
    parts<uint64_t>(onto, a, count, elements);
}
EXPORT(ring64_parts)

KERNEL(ring128_parts, uint64_t *onto, const uint64_t *a, uint64_t count, uint64_t elements) {
    parts<wide>(onto, a, count, elements);
}
EXPORT(ring128_parts)
