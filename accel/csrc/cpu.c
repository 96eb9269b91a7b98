/* See cpu.h. Asks cpuid itself: compilers differ in the names that __builtin_cpu_supports knows (clang 14 no adx and no
 * vaes, GCC 12 no sha), and a name that one does not know is an error. */
#include "cpu.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <cpuid.h>
#include <stdatomic.h>

#define LOOKED 0x100
#define HAS(word, bit) ((word) >> (bit) & 1)

static int look(void) {
    unsigned a, b, c, d, one, state, rest;
    if (!__get_cpuid(1, &a, &b, &one, &d) || !HAS(one, 27) || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) {
        return LOOKED;
    }
    __asm__ volatile("xgetbv" : "=a"(state), "=d"(rest) : "c"(0)); /* what is saved: bits 1, 2 ymm; 5 to 7 zmm */
    int ymm = (state & 0x06) == 0x06, zmm = (state & 0xe6) == 0xe6;
    int avx2_aes = ymm && HAS(b, 5) && HAS(one, 25), bmi2 = HAS(b, 8);
    int avx512 = zmm && HAS(b, 16) && HAS(b, 17) && HAS(b, 31) && HAS(b, 30);
    int found = LOOKED;
    found |= bmi2 && HAS(b, 19) ? CPU_ADX : 0;
    found |= avx2_aes ? CPU_AVX2_AES : 0;
    found |= HAS(b, 29) && HAS(one, 19) && HAS(one, 9) ? CPU_SHA : 0;
    found |= avx512 ? CPU_AVX512 : 0;
    found |= avx512 && HAS(b, 21) && bmi2 ? CPU_IFMA : 0;
    found |= avx512 && HAS(c, 9) && avx2_aes ? CPU_VAES : 0;
    return found;
}

int cpu_can(enum cpu_ability ability) {
    static atomic_int known; /* cpuid is slow on a virtual machine; two threads that look find the same */
    int found = atomic_load_explicit(&known, memory_order_relaxed);
    if (!found) {
        found = look();
        atomic_store_explicit(&known, found, memory_order_relaxed);
    }
    return (found & ability) != 0;
}

#else

int cpu_can(enum cpu_ability ability) {
    (void)ability;
    return 0;
}

#endif
