/* What the kernels need of whoever compiles them: NVRTC (through CuPy), nvcc, or a C++ compiler on a CPU, for which the
 * tests bring threadIdx and the rest (tests/backends/cuda_shim.h). Nothing else of CUDA is used, and no host call. */
#ifndef INTERCONN_PRELUDE_CUH
#define INTERCONN_PRELUDE_CUH

#ifdef __CUDACC_RTC__
typedef unsigned char uint8_t;
typedef unsigned int uint32_t;
typedef unsigned long long uint64_t;
typedef long long int64_t;
#define UINT64_C(x) x##ULL
#else
#include <stddef.h>
#include <stdint.h>
#endif

#ifdef __CUDACC__
#define DEVICE __device__
#define SHARED __shared__
#define NOINLINE __noinline__
#define KERNEL(name, ...) extern "C" __global__ void name(__VA_ARGS__)
#define EXPORT(name)
#endif

typedef unsigned __int128 wide;

/* Which element this thread has, one thread each along x */
DEVICE static inline uint64_t place() {
    return (uint64_t)blockIdx.x * blockDim.x + threadIdx.x;
}

#endif
