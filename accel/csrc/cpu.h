/* What this CPU can run, with an operating system that keeps the registers it needs. */
#ifndef INTERCONN_CPU_H
#define INTERCONN_CPU_H

enum cpu_ability {
    CPU_ADX = 1,      /* bmi2 and adx */
    CPU_AVX2_AES = 2, /* avx2 and aes */
    CPU_SHA = 4,      /* sha, sse4.1 and ssse3 */
    CPU_AVX512 = 8,   /* avx512 f, dq, vl and bw */
    CPU_IFMA = 16,    /* those, avx512ifma and bmi2 */
    CPU_VAES = 32,    /* avx512 as above, vaes, avx2 and aes */
};

/* 1 where it has this; always 0 on what is not x86-64 */
int cpu_can(enum cpu_ability ability);

#endif
