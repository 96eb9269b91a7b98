/* SHA-256 and SM3 of many short texts, and expand_message_xmd of RFC 9380. */
#ifndef INTERCONN_DIGEST_H
#define INTERCONN_DIGEST_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { DIGEST_SHA256, DIGEST_SM3, DIGEST_SHA512 };

/* out[i] = 32 bytes, the digest of data[offsets[i] .. offsets[i + 1]); not for SHA-512. Time and addresses depend on the
 * lengths, never on the bytes. */
typedef void digest_batch(int algorithm, uint8_t *out, const uint8_t *data, const int64_t *offsets, size_t count);
digest_batch digest_portable;
#if defined(__x86_64__)
digest_batch digest_avx512; /* sixteen texts in the lanes */
digest_batch digest_shani;  /* SHA-256 only */
#endif

/* RFC 9380 section 5.3.1: `length` bytes an item (at most 255 digests), into out at `step` bytes from each other; the
 * tag has 1 to 255 bytes */
void digest_expand(int algorithm, uint8_t *out, size_t step, size_t length, const uint8_t *tag, size_t tag_length,
                   const uint8_t *data, const int64_t *offsets, size_t count);

/* One text, whatever its digest's length */
void digest_one(int algorithm, uint8_t *out, const uint8_t *data, size_t length);

#endif
