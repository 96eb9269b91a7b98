/* Signed digits of a plaintext matrix, sorted for a multi-exponentiation. Not constant in time: the matrix belongs to
 * whoever computes here. */
#ifndef INTERCONN_DIGITS_H
#define INTERCONN_DIGITS_H

#include <stddef.h>
#include <stdint.h>

/* Digits of base 2^window, at most 2^(window-1) in absolute value (1 at window 1), of values below 2^40 in absolute value:
 * `visit` is an expression that sees k (which digit), size (1 .. 2^(window-1)) and minus (0 or 1). */
#define FOR_DIGITS(value, window, visit)                                            \
    do {                                                                            \
        int64_t given = (value), full = (int64_t)1 << (window), half = full >> 1;   \
        int64_t rest = given < 0 ? -given : given;                                  \
        for (size_t k = 0; rest; k++) {                                             \
            int64_t digit = rest & (full - 1);                                      \
            digit -= digit > half ? full : 0;                                       \
            rest = (rest - digit) >> (window); /* never negative */                 \
            if (digit) {                                                            \
                int minus = (digit < 0) != (given < 0);                             \
                size_t size = (size_t)(digit < 0 ? -digit : digit);                 \
                visit;                                                              \
            }                                                                       \
        }                                                                           \
    } while (0)

#endif
