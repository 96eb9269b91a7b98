/* Lets the sources of accel/cuda run on a CPU. A kernel without barriers runs thread by thread in a loop; with BARRIERS
 * each CUDA thread of a block is a thread here, all of them going from block to block together. This shows arithmetic,
 * indices and barriers; it shows nothing of memory order between blocks, of registers or of speed. */
#include <barrier>
#include <cstdint>
#include <thread>
#include <utility>
#include <vector>

struct shim_dim {
    unsigned x, y, z;
};
static thread_local shim_dim threadIdx, blockIdx;
static shim_dim blockDim, gridDim;
static std::barrier<> *shim_barrier;

#define DEVICE
#define SHARED static
#define NOINLINE
#define KERNEL(name, ...) extern "C" void name(__VA_ARGS__)
#define EXPORT(name)                                                     \
    extern "C" void launch_##name(const unsigned *dims, void **args) {   \
        shim_launch(name, dims, args);                                   \
    }

static inline void __syncthreads() {
    shim_barrier->arrive_and_wait();
}

template <typename... A, std::size_t... I>
static void shim_call(void (*kernel)(A...), void **args, std::index_sequence<I...>) {
    kernel(*static_cast<A *>(args[I])...);
}

template <typename Run> static void shim_blocks(Run run) {
    for (blockIdx.z = 0; blockIdx.z < gridDim.z; blockIdx.z++) {
        for (blockIdx.y = 0; blockIdx.y < gridDim.y; blockIdx.y++) {
            for (blockIdx.x = 0; blockIdx.x < gridDim.x; blockIdx.x++) {
                run();
            }
        }
    }
}

/* dims: grid x, y, z, block x, y, z; args: the address of each argument, as for cuLaunchKernel */
template <typename... A> static void shim_launch(void (*kernel)(A...), const unsigned *dims, void **args) {
    gridDim = {dims[0], dims[1], dims[2]};
    blockDim = {dims[3], dims[4], dims[5]};
    const unsigned count = blockDim.x * blockDim.y * blockDim.z;
    auto one = [=](unsigned t) {
        threadIdx = {t % blockDim.x, t / blockDim.x % blockDim.y, t / (blockDim.x * blockDim.y)};
        shim_call(kernel, args, std::index_sequence_for<A...>{});
    };
#ifdef BARRIERS
    std::barrier<> barrier(count);
    shim_barrier = &barrier;
    std::vector<std::thread> threads;
    for (unsigned t = 0; t < count; t++) {
        threads.emplace_back([&, t] {
            shim_blocks([&] {
                one(t);
                barrier.arrive_and_wait();
            });
        });
    }
    for (std::thread &thread : threads) {
        thread.join();
    }
#else
    shim_blocks([&] {
        for (unsigned t = 0; t < count; t++) {
            one(t);
        }
    });
#endif
}
