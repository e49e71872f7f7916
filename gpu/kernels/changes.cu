// Banks of Bayesian change-point detectors (`gpu/src/changes.rs`): a block per series, a thread per run length.
#include "common.cuh"

#define RUNS_MAX 1024

// The sum of `of[0..count]` in the order of the CPU: 16 partial sums, then halves onto halves. Called by all threads; `count` is a
// multiple of 32, and `of` may be written again when it returns.
__device__ static inline double ordered_sum(const double* of, u32 count, double* result) {
    __syncthreads();
    if (threadIdx.x < 32) {
        double sum = 0.0;
        for (u32 at = threadIdx.x % LANES; at < count; at += LANES) sum += of[at];
        for (u32 bits = LANES / 2; bits > 0; bits /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, bits);
        if (threadIdx.x == 0) *result = sum;
    }
    __syncthreads();
    return *result;
}

// The largest of `of[0..count]` and the last place where it stands.
__device__ static inline double largest(const double* of, u32 count, double* result, u32* place) {
    __syncthreads();
    if (threadIdx.x < 32) {
        double best = of[threadIdx.x];
        u32 where = threadIdx.x;
        for (u32 at = threadIdx.x + 32; at < count; at += 32) {
            if (of[at] >= best) {
                best = of[at];
                where = at;
            }
        }
        for (u32 bits = 16; bits > 0; bits /= 2) {
            double other = __shfl_xor_sync(0xffffffffu, best, bits);
            u32 there = __shfl_xor_sync(0xffffffffu, where, bits);
            if (other > best || (other == best && there > where)) {
                best = other;
                where = there;
            }
        }
        if (threadIdx.x == 0) {
            *result = best;
            *place = where;
        }
    }
    __syncthreads();
    return *result;
}

// Takes `rows` rows of values, one per series. `tables` holds five numbers per run length, each `runs` long: the constant, the
// exponent, the share of the square, the share of the mean, and 1 where the run is recent. State is series by series, `runs` long.
// Results are row by row: the likeliest run length, and the chance that the present run is recent.
KERNEL __launch_bounds__(RUNS_MAX) change_points(const double* values, u64 rows, u32 series, u32 runs, double hazard, double prior_mean, double prior_beta,
                     double prior_ln_beta, const double* tables, double* chances, double* means, double* betas, double* ln_betas,
                     double* evidences, u32* likeliest, double* recent) {
    __shared__ double scratch[RUNS_MAX];
    __shared__ double shift[3][RUNS_MAX];
    __shared__ double result;
    __shared__ u32 place;
    u32 run = threadIdx.x;
    u64 at = (u64)blockIdx.x * runs + run;
    double constant = tables[run], exponent = tables[runs + run];
    double of_square = tables[2 * runs + run], of_mean = tables[3 * runs + run], young = tables[4 * runs + run];
    double chance = chances[at], mean = means[at], beta = betas[at], ln_beta = ln_betas[at];
    double evidence = evidences[blockIdx.x];
    for (u64 row = 0; row < rows; row++) {
        double away = values[row * series + blockIdx.x] - mean;
        double grown = fma(away * away, of_square, beta), ln_grown = ln_f64(grown);
        double log_density = fma(-(exponent + 0.5), ln_grown, fma(exponent, ln_beta, constant));
        scratch[run] = log_density;
        double best = largest(scratch, runs, &result, &place);
        double less = log_density - best;
        double weight = chance * exp_weight(less > -700.0 ? less : -700.0);
        scratch[run] = weight;
        double sum = ordered_sum(scratch, runs, &result);
        evidence += best + ln_f64(sum);
        // Every run is one longer, and a new one begins; the longest two become one, with the statistics of the younger.
        scratch[run] = weight * ((1.0 - hazard) / sum);
        shift[0][run] = fma(away, of_mean, mean);
        shift[1][run] = grown;
        shift[2][run] = ln_grown;
        __syncthreads();
        if (run == 0) {
            chance = hazard;
            mean = prior_mean;
            beta = prior_beta;
            ln_beta = prior_ln_beta;
        } else {
            chance = scratch[run - 1];
            if (run == runs - 1) chance += scratch[run];
            chance = chance < 1e-200 ? 0.0 : chance;
            mean = shift[0][run - 1];
            beta = shift[1][run - 1];
            ln_beta = shift[2][run - 1];
        }
        __syncthreads();
        scratch[run] = chance;
        largest(scratch, runs, &result, &place);
        if (run == 0) likeliest[row * series + blockIdx.x] = place;
        __syncthreads();
        scratch[run] = chance * young;
        double share = ordered_sum(scratch, runs, &result);
        if (run == 0) recent[row * series + blockIdx.x] = share;
        __syncthreads();
    }
    chances[at] = chance;
    means[at] = mean;
    betas[at] = beta;
    ln_betas[at] = ln_beta;
    if (run == 0) evidences[blockIdx.x] = evidence;
}
