// Geometric Brownian paths and what is paid on them (`gpu/src/options.rs`).
#include "common.cuh"

// Philox of one counter and key per thread: counters of four words, keys of two. The known-answer test of a device.
KERNEL known_answer(const u32* counters, const u32* keys, u32 count, u32* words) {
    u64 at = thread_index();
    if (at >= count) return;
    const u32* c = counters + 4 * at;
    Words found = philox(c[0], c[1], c[2], c[3], keys[2 * at], keys[2 * at + 1]);
    for (int word = 0; word < 4; word++) words[4 * at + word] = found.at[word];
}

// The sum of each path's normal numbers, and the trapezoid sum of its partial sums. A thread per path.
KERNEL brownian(u64 first, u64 count, u32 steps, u32 k0, u32 k1, float* ends, float* areas) {
    u64 at = thread_index();
    if (at >= count) return;
    float end = 0.0f, area = 0.0f, z[4];
    u32 whole = steps / 4, rest = steps % 4;
    for (u32 block = 0; block < whole; block++) {
        normals(first + at, block, 0, k0, k1, z);
        for (int row = 0; row < 4; row++) {
            end += z[row];
            area += end;
        }
    }
    if (rest != 0) {
        normals(first + at, whole, 0, k0, k1, z);
        for (int row = 0; row < 3; row++) {
            if ((u32)row < rest) {
                end += z[row];
                area += end;
            }
        }
    }
    ends[at] = end;
    areas[at] = area - end / 2.0f;
}

// Numbers per plan, and their order: whether it is of the mean, variance, spot, drift, volatility, strike, sign, shift, discount.
#define PLAN 9

// Sums and sums of squares of discounted payoffs, by chunk, plan and lane: `chunks x plans x 2 x LANES` of them. A thread per
// chunk, plan and lane adds up its paths in their order.
KERNEL payoffs(const float* ends, const float* areas, u64 count, u32 chunk, const double* plans, u32 plan_count, double to_end,
               double to_mean, double* sums) {
    u64 at = thread_index();
    u64 chunks = (count + chunk - 1) / chunk;
    if (at >= chunks * plan_count * LANES) return;
    u32 lane = (u32)(at % LANES);
    u64 cell = at / LANES;
    const double* plan = plans + PLAN * (cell % plan_count);
    u64 from = cell / plan_count * chunk;
    u64 to = from + chunk < count ? from + chunk : count;
    bool mean = plan[0] != 0.0;
    double variance = plan[1], spot = plan[2], drift = plan[3], volatility = plan[4];
    double strike = plan[5], sign = plan[6], shift = plan[7], discount = plan[8];
    double sum = 0.0, squares = 0.0;
    for (u64 path = from + lane; path < to; path += LANES) {
        double x = mean ? (double)areas[path] * to_mean : (double)ends[path] * to_end;
        double price = spot * exp_f64(fma(volatility, x + shift, drift));
        double paid = sign * (price - strike);
        paid = paid > 0.0 ? paid : 0.0;
        double weight = exp_f64(-shift * (x + shift / 2.0) / variance);
        double value = discount * paid * weight;
        sum += value;
        squares = fma(value, value, squares);
    }
    sums[cell * 2 * LANES + lane] = sum;
    sums[cell * 2 * LANES + LANES + lane] = squares;
}
