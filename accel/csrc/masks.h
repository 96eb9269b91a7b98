/* Pseudorandom masks: the key stream of a cipher in counter mode, combined with an array as it is made. See
 * accel/notes/masks.md. Nothing here knows Python or checks a caller's length: bind_masks.c does. */
#ifndef INTERCONN_MASKS_H
#define INTERCONN_MASKS_H

#include <stddef.h>
#include <stdint.h>

enum mask_op { MASK_SET, MASK_ADD, MASK_SUB, MASK_XOR };
enum mask_cipher { MASK_AES128_CTR, MASK_CHACHA20 };

typedef struct {
    enum mask_cipher cipher;
    uint8_t rounds[11 * 16]; /* AES: the round keys */
    uint32_t words[8];       /* ChaCha20: the key */
    uint64_t high, low;      /* AES: the first counter block, as a number of 128 bits */
    uint32_t nonce[3];       /* ChaCha20 */
} mask_key;

/* One implementation. `size` is a multiple of the cipher's block; out may be in; `width` is 4, 8 or 16 bytes an element.
 * aes: the counter's low word does not run over within the call. */
typedef struct {
    const char *name;
    void (*aes)(const mask_key *key, uint64_t high, uint64_t low, enum mask_op op, unsigned width, uint8_t *out,
                const uint8_t *in, size_t size);
    void (*chacha)(const mask_key *key, uint32_t counter, enum mask_op op, unsigned width, uint8_t *out,
                   const uint8_t *in, size_t size);
} mask_core;

extern const mask_core mask_portable;
#if defined(__x86_64__) && defined(__GNUC__)
#define HAVE_X86_MASKS 1
extern const mask_core mask_avx2, mask_avx512;
#endif

/* The core of this name if it may run here, else NULL. */
const mask_core *mask_core_of(const char *name);

/* nonce: 16 bytes, the first counter block of AES (SP 800-38A), or 12 bytes of ChaCha20 (RFC 8439). */
void mask_key_init(mask_key *key, enum mask_cipher cipher, const uint8_t *secret, const uint8_t *nonce);

/* out = in op stream[start .. start + size) bytes; start and size are multiples of width. */
void mask_run(const mask_core *core, const mask_key *key, uint64_t start, enum mask_op op, unsigned width, uint8_t *out,
              const uint8_t *in, size_t size);

#endif
