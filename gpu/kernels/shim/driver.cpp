// A CUDA driver without a device: what this project calls of libcuda, with the kernels run through the shim. Built by the
// tests as libcuda.so. How it misbehaves is chosen by the environment variable FAKE_CUDA:
//
//   no_device       cuInit finds none                   old_driver     a version before 12.0
//   old_ptx         refuses every module                no_code        refuses machine code, but not PTX
//   wrong_answers  kernels run, but what they write is spoiled
//   small           memory of 1 MiB                     fail:N         everything from the Nth call on fails
//   fail:N:M        as fail:N, for M calls              hang           cuInit never returns
//   wrong_numbers   spoils what is longer than the words of the known-answer test
//   wrong_late      spoils what is brought back after the tests of a start
//   hang:N          the Nth call never returns, others do
//   slow:N          the Nth call takes two seconds
//
// Memory is filled with NaN when it is given out and ends before a page that cannot be touched, so that a kernel which reads
// or writes behind it faults. Every copy must lie within one allocation, or the process ends.
#include "cuda_shim.h"

#include "../changes.cu"
#include "../correlation.cu"
#include "../hmm.cu"
#include "../paths.cu"
#include "../qp.cu"
#include "../risk.cu"
#include "../scan.cu"
#include "../spectrum.cu"
#include "../sweep.cu"

#include <map>
#include <mutex>
#include <string>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include <utility>

namespace {

enum Code { OK = 0, INVALID = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, NO_BINARY = 209, UNSUPPORTED_PTX = 222, NOT_FOUND = 500, LAUNCH_FAILED = 719 };

std::mutex lock; // one block at a time: the shim's state is global
std::map<uintptr_t, size_t> memory;
constexpr size_t PAGE = 4096;
size_t in_use = 0;
long calls = 0;

const std::string& mode() {
    static const std::string text = std::getenv("FAKE_CUDA") ? std::getenv("FAKE_CUDA") : "";
    return text;
}

size_t capacity() { return mode() == "small" ? size_t(1) << 20 : size_t(4) << 30; }

// Counts the call; whether it is one that fails.
bool fails() {
    static const std::pair<long, long> span = [] {
        long first = -1, count = 1L << 60;
        if (mode().rfind("fail:", 0) == 0) {
            char* end = nullptr;
            first = std::strtol(mode().c_str() + 5, &end, 10);
            if (*end == ':') count = std::strtol(end + 1, nullptr, 10);
        }
        return std::pair<long, long>(first, count);
    }();
    long call = calls++;
    return span.first >= 0 && call >= span.first && call - span.first < span.second;
}

// Whether this is the call that does not come back, or not soon. Asked without the lock being held, so that others go on.
void stall() {
    static const bool hang = mode().rfind("hang:", 0) == 0, slow = mode().rfind("slow:", 0) == 0;
    static const long place = hang || slow ? std::strtol(mode().c_str() + 5, nullptr, 10) : -1;
    if (place < 0) return;
    {
        std::lock_guard<std::mutex> guard(lock);
        static bool over = false;
        if (over || calls < place) return;
        over = true;
    }
    if (hang) for (;;) pause();
    sleep(10);
}

#define ENTER                                \
    stall();                                 \
    std::lock_guard<std::mutex> guard(lock); \
    if (fails()) return LAUNCH_FAILED;

// Whether `bytes` from `at` lie within one allocation.
void within(uintptr_t at, size_t bytes) {
    auto next = memory.upper_bound(at);
    if (next != memory.begin()) {
        --next;
        if (at >= next->first && at + bytes <= next->first + next->second) return;
    }
    std::fprintf(stderr, "fake driver: %zu bytes at %p are not within an allocation\n", bytes, (void*)at);
    std::abort();
}

using Kernel = void (*)(dim3, dim3, void**);

template <auto function, class... Arguments, size_t... at>
void call(void (*)(Arguments...), std::index_sequence<at...>, dim3 grid, dim3 block, void** arguments) {
    shim::run_grid(grid, block, [&] { function(*static_cast<std::remove_reference_t<Arguments>*>(arguments[at])...); });
}

template <class T> struct Count;
template <class... Arguments> struct Count<void (*)(Arguments...)> {
    static constexpr size_t value = sizeof...(Arguments);
};

template <auto function> void bound(dim3 grid, dim3 block, void** arguments) {
    call<function>(function, std::make_index_sequence<Count<decltype(function)>::value>{}, grid, block, arguments);
}

#define NAMED(name) {#name, bound<name>}
const std::map<std::string, Kernel> kernels = {
    NAMED(known_answer), NAMED(brownian),   NAMED(payoffs),    NAMED(losses),        NAMED(rank1),         NAMED(sweep_ema),
    NAMED(sweep_rsi),    NAMED(sweep_macd), NAMED(sweep_atr),  NAMED(sweep_bollinger), NAMED(change_points), NAMED(hmm_filter_2),
    NAMED(hmm_filter_3), NAMED(hmm_filter_4), NAMED(hmm_fit_2), NAMED(hmm_fit_3),     NAMED(hmm_fit_4),     NAMED(roll),
    NAMED(centre),       NAMED(window_products), NAMED(tile_products), NAMED(fold_tiles), NAMED(shares_along), NAMED(take_out),
    NAMED(unit_length),  NAMED(admm_start), NAMED(admm),
    NAMED(scan_ema),     NAMED(scan_rsi),   NAMED(scan_macd),  NAMED(scan_atr),      NAMED(scan_bollinger), NAMED(scan_fold),
    NAMED(join_ema),     NAMED(join_rsi),   NAMED(join_macd),  NAMED(join_atr),      NAMED(join_bollinger),
};

} // namespace

extern "C" {

int cuInit(unsigned) {
    if (mode() == "hang") for (;;) pause();
    ENTER
    return mode() == "no_device" ? NO_DEVICE : OK;
}
int cuDriverGetVersion(int* version) {
    ENTER
    *version = mode() == "old_driver" ? 11040 : 12040;
    return OK;
}
int cuDeviceGet(int* device, int) {
    ENTER
    *device = 0;
    return OK;
}
int cuDeviceGetName(char* name, int room, int) {
    ENTER
    std::snprintf(name, room, "shim");
    return OK;
}
int cuDeviceGetAttribute(int* value, int attribute, int) {
    ENTER
    *value = attribute == 75 ? 9 : 0; // compute capability 9.0, no memory pools
    return OK;
}
int cuDevicePrimaryCtxRetain(void** context, int) {
    ENTER
    *context = (void*)1;
    return OK;
}
int cuDevicePrimaryCtxRelease_v2(int) { ENTER return OK; }
int cuCtxGetCurrent(void** context) {
    ENTER
    *context = nullptr;
    return OK;
}
int cuCtxSetCurrent(void*) { ENTER return OK; }
int cuModuleLoadData(void** module, const void* image) {
    ENTER
    if (mode() == "old_ptx") return UNSUPPORTED_PTX;
    bool code = std::memcmp(image, "\x7f" "ELF", 4) == 0;
    if (code && mode() == "no_code") return NO_BINARY;
    if (!code && !std::strstr((const char*)image, ".entry")) return INVALID;
    *module = const_cast<void*>(image);
    return OK;
}
int cuModuleUnload(void*) { ENTER return OK; }
int cuModuleGetFunction(void** function, void*, const char* name) {
    ENTER
    auto found = kernels.find(name);
    if (found == kernels.end()) return NOT_FOUND;
    *function = (void*)found->second;
    return OK;
}
int cuMemGetInfo_v2(size_t* free, size_t* total) {
    ENTER
    *total = capacity();
    *free = *total - in_use;
    return OK;
}
int cuMemAlloc_v2(uintptr_t* at, size_t bytes) {
    ENTER
    if (bytes == 0) return INVALID;
    if (in_use + bytes > capacity()) return OUT_OF_MEMORY;
    size_t spread = (bytes + 8 + PAGE - 1) / PAGE * PAGE;
    void* mapped = mmap(nullptr, spread + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) return OUT_OF_MEMORY;
    mprotect((char*)mapped + spread, PAGE, PROT_NONE);
    std::memset(mapped, 0xff, spread);
    uintptr_t found = (uintptr_t)mapped + spread - (bytes + 7) / 8 * 8;
    memory[found] = bytes;
    in_use += bytes;
    *at = found;
    return OK;
}
int cuMemFree_v2(uintptr_t at) {
    // Freed even when the call fails, so that a drill with failures leaks nothing.
    std::lock_guard<std::mutex> guard(lock);
    auto found = memory.find(at);
    if (found == memory.end()) return INVALID;
    in_use -= found->second;
    size_t spread = (found->second + 8 + PAGE - 1) / PAGE * PAGE;
    munmap((void*)(at + (found->second + 7) / 8 * 8 - spread), spread + PAGE);
    memory.erase(found);
    return fails() ? LAUNCH_FAILED : OK;
}
int cuMemcpyHtoDAsync_v2(uintptr_t to, const void* from, size_t bytes, void*) {
    ENTER
    within(to, bytes);
    std::memcpy((void*)to, from, bytes);
    return OK;
}
int cuMemcpyDtoHAsync_v2(void* to, uintptr_t from, size_t bytes, void*) {
    ENTER
    within(from, bytes);
    std::memcpy(to, (const void*)from, bytes);
    if (mode() == "wrong_answers") ((unsigned char*)to)[0] ^= 1;
    static int brought = 0;
    if (mode() == "wrong_late" && ++brought > 20) ((unsigned char*)to)[0] ^= 1;
    if (mode() == "wrong_numbers" && bytes > 48) ((unsigned char*)to)[6] ^= 1;
    return OK;
}
int cuStreamSynchronize(void*) { ENTER return OK; }
int cuLaunchKernel(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned, void*,
                   void** arguments, void**) {
    ENTER
    if (gx == 0 || gy == 0 || gz == 0 || gy > 65535 || gz > 65535 || bx * by * bz > 1024) return INVALID;
    ((Kernel)function)(dim3{gx, gy, gz}, dim3{bx, by, bz}, arguments);
    return OK;
}
int cuMemsetD8Async(uintptr_t at, unsigned char value, size_t bytes, void*) {
    ENTER
    within(at, bytes);
    std::memset((void*)at, value, bytes);
    return OK;
}
int cuEventCreate(void** event, unsigned) {
    ENTER
    *event = new double(0.0);
    return OK;
}
int cuEventRecord(void* event, void*) {
    ENTER
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    *(double*)event = now.tv_sec * 1e3 + now.tv_nsec * 1e-6;
    return OK;
}
int cuEventSynchronize(void*) { ENTER return OK; }
int cuEventElapsedTime(float* milliseconds, void* begin, void* end) {
    ENTER
    *milliseconds = (float)(*(double*)end - *(double*)begin);
    return OK;
}
int cuEventDestroy_v2(void* event) {
    // As for memory: nothing is leaked when the call fails.
    delete (double*)event;
    ENTER
    return OK;
}
int cuGetErrorName(int code, const char** text) {
    *text = code == NO_DEVICE ? "CUDA_ERROR_NO_DEVICE" : code == LAUNCH_FAILED ? "CUDA_ERROR_LAUNCH_FAILED" : code == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : code == UNSUPPORTED_PTX ? "CUDA_ERROR_UNSUPPORTED_PTX_VERSION" : "CUDA_ERROR";
    return OK;
}
int cuGetErrorString(int code, const char** text) {
    return cuGetErrorName(code, text);
}

// With FAKE_CUDA_COUNT set it says at the end how many calls there were: for drills that fail at each of them in turn.
__attribute__((destructor)) static void count() {
    if (std::getenv("FAKE_CUDA_COUNT")) std::fprintf(stderr, "fake driver: %ld calls\n", calls);
}

} // extern "C"
