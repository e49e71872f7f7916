// Runs CUDA C on a CPU, so that the kernels' own text is tested where there is no device.
//
// A block's threads are fibers on one thread of the system. They take turns only at barriers and shuffles, and in an order
// that `CUDA_SHIM_ORDER` chooses (0 upwards, 1 downwards, else seeded), so that a result which depends on the order of
// threads shows. Shared memory is filled with NaN before each block. A barrier or shuffle that not all threads reach ends
// the process with a message.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <setjmp.h>
#include <ucontext.h>
#include <vector>

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};

inline dim3 gridDim, blockDim, blockIdx, threadIdx;

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __restrict__ __restrict
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))
// One block runs at a time, so what a block shares is static; its section can be filled as a whole.
#define __shared__ static __attribute__((section("cuda_shared")))

extern char __start_cuda_shared[] __attribute__((weak));
extern char __stop_cuda_shared[] __attribute__((weak));

namespace shim {

enum class Wait { none, barrier, warp, done };

struct Fiber {
    ucontext_t context; // of its first turn
    jmp_buf left;       // of the later ones
    bool begun;
    std::unique_ptr<char[]> stack;
    dim3 index;
    unsigned lane, warp;
    Wait wait;
    int line;
    uint64_t slot;
};

constexpr size_t STACK = 64 * 1024;
inline std::vector<Fiber> fibers;
inline Fiber* now;
inline jmp_buf scheduler;
inline const std::function<void()>* body;

[[noreturn]] inline void die(const char* what, int line) {
    std::fprintf(stderr, "kernel shim: %s (block %u,%u, thread %u, line %d)\n", what, blockIdx.x, blockIdx.y, threadIdx.x, line);
    std::abort();
}

inline void enter() {
    (*body)();
    now->wait = Wait::done;
    _longjmp(scheduler, 1);
}

// Gives fiber `to` a turn. Jumps leave the mask of signals alone, which contexts ask the system for each time.
__attribute__((noinline)) inline void turn_of(Fiber& to) {
    now = &to;
    threadIdx = to.index;
    if (_setjmp(scheduler) != 0) return;
    if (to.begun) _longjmp(to.left, 1);
    to.begun = true;
    setcontext(&to.context);
}

__attribute__((noinline)) inline void pause(Wait wait, int line) {
    now->wait = wait;
    now->line = line;
    if (_setjmp(now->left) == 0) _longjmp(scheduler, 1);
    threadIdx = now->index;
}

// The value of another lane of this warp: each says its own, then all look.
template <class T> T exchange(T value, unsigned from, int line) {
    static_assert(sizeof(T) <= 8);
    Fiber* self = now;
    std::memcpy(&self->slot, &value, sizeof(T));
    pause(Wait::warp, line);
    size_t place = (size_t)self->warp * 32 + (from & 31);
    if (place >= fibers.size() || fibers[place].wait == Wait::done) die("a shuffle reads a lane that is not there", line);
    T found;
    std::memcpy(&found, &fibers[place].slot, sizeof(T));
    pause(Wait::warp, line);
    return found;
}

inline void run_block(unsigned threads) {
    if (__start_cuda_shared) std::memset(__start_cuda_shared, 0xff, __stop_cuda_shared - __start_cuda_shared);
    if (fibers.size() != threads) fibers = std::vector<Fiber>(threads);
    static const uint64_t chosen = [] {
        const char* text = std::getenv("CUDA_SHIM_ORDER");
        return text ? std::strtoull(text, nullptr, 10) : 0;
    }();
    for (unsigned at = 0; at < threads; at++) {
        Fiber& fiber = fibers[at];
        if (!fiber.stack) fiber.stack.reset(new char[STACK]);
        fiber.index = dim3{at, 0, 0};
        fiber.lane = at % 32;
        fiber.warp = at / 32;
        fiber.wait = Wait::none;
        fiber.begun = false;
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.get();
        fiber.context.uc_stack.ss_size = STACK;
        fiber.context.uc_link = nullptr;
        makecontext(&fiber.context, enter, 0);
    }
    uint64_t state = chosen;
    unsigned left = threads;
    while (left > 0) {
        unsigned offset = 0;
        if (chosen > 1) {
            state = state * 6364136223846793005ull + 1442695040888963407ull;
            offset = (unsigned)(state >> 33) % threads;
        }
        for (unsigned turn = 0; turn < threads; turn++) {
            unsigned at = (turn + offset) % threads;
            if (chosen % 2 == 1) at = threads - 1 - at;
            Fiber& fiber = fibers[at];
            if (fiber.wait != Wait::none) continue;
            turn_of(fiber);
            if (fiber.wait == Wait::done) left--;
        }
        // Nobody can go on: a warp whose threads all wait at one shuffle does, or all threads of the block at one barrier.
        bool moved = false;
        for (unsigned first = 0; first < threads; first += 32) {
            unsigned end = first + 32 < threads ? first + 32 : threads, waiting = 0, alive = 0;
            for (unsigned at = first; at < end; at++) {
                alive += fibers[at].wait != Wait::done;
                waiting += fibers[at].wait == Wait::warp && fibers[at].line == fibers[first].line;
            }
            if (waiting == 0) continue;
            if (waiting != end - first) continue;
            for (unsigned at = first; at < end; at++) fibers[at].wait = Wait::none;
            moved = true;
        }
        if (moved || left == 0) continue;
        int line = 0;
        unsigned waiting = 0;
        for (Fiber& fiber : fibers) {
            if (fiber.wait != Wait::barrier) continue;
            if (waiting > 0 && fiber.line != line) die("threads wait at different barriers", fiber.line);
            line = fiber.line;
            waiting++;
        }
        if (waiting != threads) die("a barrier or shuffle is not reached by all threads", line);
        for (Fiber& fiber : fibers) fiber.wait = Wait::none;
    }
}

inline void run_grid(dim3 grid, dim3 block, const std::function<void()>& kernel) {
    if (block.y != 1 || block.z != 1 || block.x == 0 || block.x > 1024) die("a block of this shape is not known", 0);
    gridDim = grid;
    blockDim = block;
    const std::function<void()> own = kernel;
    body = &own;
    for (unsigned z = 0; z < grid.z; z++)
        for (unsigned y = 0; y < grid.y; y++)
            for (unsigned x = 0; x < grid.x; x++) {
                blockIdx = dim3{x, y, z};
                run_block(block.x);
            }
    body = nullptr;
}

} // namespace shim

#define __syncwarp() shim::pause(shim::Wait::warp, __LINE__)
#define __syncthreads() shim::pause(shim::Wait::barrier, __LINE__)
#define __shfl_sync(mask, value, from) shim::exchange(value, from, __LINE__)
#define __shfl_xor_sync(mask, value, bits) shim::exchange(value, shim::now->lane ^ (bits), __LINE__)

template <class To, class From> inline To shim_bits(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    std::memcpy(&to, &from, sizeof(To));
    return to;
}

// Fibers take turns at barriers alone, so an operation is never cut in two.
inline unsigned atomicMax(unsigned* at, unsigned value) {
    unsigned before = *at;
    if (value > before) *at = value;
    return before;
}
inline unsigned __float_as_uint(float x) { return shim_bits<unsigned>(x); }
inline float __uint_as_float(unsigned x) { return shim_bits<float>(x); }
inline long long __double_as_longlong(double x) { return shim_bits<long long>(x); }
inline double __longlong_as_double(long long x) { return shim_bits<double>(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)(((uint64_t)a * b) >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)(((unsigned __int128)a * b) >> 64);
}
