// Indicators over symbols x parameters x bars (`gpu/src/sweep/`): a thread per symbol and parameter goes through the bars.
#include "common.cuh"

// Bars of all symbols one after the other; symbol `s` has those from `starts[s]` to `starts[s + 1]`. A signal on one of a
// symbol's last `horizon` bars is not judged. Cells are symbol by symbol, `places` says where a parameter's cell stands.
#define SWEEP const u64 *starts, const u32 *places, u64 symbols, u64 horizon, u32 specs, u32 cells

// Signals so far.
struct Tally {
    u64 longs, shorts, judged, hits;
    i64 last;
    double gain;
};

__device__ static inline void tally_signal(Tally* tally, const double* ahead, u64 at, u64 judged, double event) {
    if (event == 0.0) return;
    if (event > 0.0) tally->longs++;
    else tally->shorts++;
    tally->last = (i64)at;
    if (at < judged) {
        double gain = event * ahead[at];
        tally->judged++;
        tally->hits += gain > 0.0 ? 1 : 0;
        tally->gain += gain;
    }
}

// Four numbers per cell (values and gain) and five counts (longs, shorts, judged, hits, bar of the last signal or -1).
__device__ static inline void tally_cell(const Tally* tally, u64 cell, double a, double b, double c, double* numbers, i64* counts) {
    numbers[4 * cell] = a;
    numbers[4 * cell + 1] = b;
    numbers[4 * cell + 2] = c;
    numbers[4 * cell + 3] = tally->gain;
    counts[5 * cell] = (i64)tally->longs;
    counts[5 * cell + 1] = (i64)tally->shorts;
    counts[5 * cell + 2] = (i64)tally->judged;
    counts[5 * cell + 3] = (i64)tally->hits;
    counts[5 * cell + 4] = tally->last;
}

#define NOT_A_NUMBER __longlong_as_double(0x7ff8000000000000ll)

// This thread's symbol, parameter and bars; leaves the kernel when it has none.
#define PLACE                                                              \
    u64 thread = thread_index();                                           \
    if (thread >= symbols * specs) return;                     \
    u64 symbol = thread / specs;                                     \
    u32 spec = (u32)(thread % specs);                                \
    u64 from = starts[symbol], bars = starts[symbol + 1] - from; \
    u64 judged = bars > horizon ? bars - horizon : 0;          \
    u64 cell = symbol * cells + places[spec];                  \
    Tally tally = {0, 0, 0, 0, -1, 0.0};

__device__ static inline double exponential(double held, double value, double index, double window, double k) {
    if (index >= window) return (value - held) * k + held;
    if (index + 1.0 == window) return (held + value) / window;
    return held + value;
}

__device__ static inline double settle(double average) {
    return fabs(average) < 1e-100 ? 0.0 : average;
}

__device__ static inline double wilder(double held, double value, double index, double window, double less, double share) {
    if (index >= window) return settle((held * less + value) * share);
    if (index + 1.0 == window) return (held + value) / window;
    return held + value;
}

__device__ static inline double flag(bool set) {
    return set ? 1.0 : 0.0;
}

KERNEL sweep_ema(SWEEP, const u32* windows, const double* price, const double* ahead, double* numbers, i64* counts) {
    PLACE
    price += from;
    ahead += from;
    double window = (double)windows[spec], k = 2.0 / (window + 1.0), held = 0.0, above = 0.0;
    for (u64 at = 0; at < bars; at++) {
        double index = (double)at, close = price[at];
        held = exponential(held, close, index, window, k);
        double now = flag(close > held);
        if (index >= window) tally_signal(&tally, ahead, at, judged, now - above);
        above = now;
    }
    bool defined = bars >= windows[spec];
    tally_cell(&tally, cell, defined ? held : NOT_A_NUMBER, NOT_A_NUMBER, NOT_A_NUMBER, numbers, counts);
}

KERNEL sweep_rsi(SWEEP, const u32* windows, const double* up, const double* down, const double* ahead, double* numbers,
                 i64* counts) {
    PLACE
    up += from;
    down += from;
    ahead += from;
    double window = (double)windows[spec], less = window - 1.0, share = 1.0 / window;
    double gain = 0.0, loss = 0.0, low = 0.0, high = 0.0, value = 0.0;
    for (u64 at = 1; at < bars; at++) {
        double index = (double)at;
        gain = wilder(gain, up[at], index - 1.0, window, less, share);
        loss = wilder(loss, down[at], index - 1.0, window, less, share);
        double total = gain + loss;
        value = total < 1e-14 * 1e9 ? 0.0 : 100.0 * (gain / total);
        double now_low = flag(value <= 30.0), now_high = flag(value >= 70.0);
        double event = low * (1.0 - now_low) - high * (1.0 - now_high);
        low = now_low;
        high = now_high;
        if (index > window) tally_signal(&tally, ahead, at, judged, event);
    }
    bool defined = bars > windows[spec];
    tally_cell(&tally, cell, defined ? value : NOT_A_NUMBER, NOT_A_NUMBER, NOT_A_NUMBER, numbers, counts);
}

// Windows: fast, slow, signal of each parameter.
KERNEL sweep_macd(SWEEP, const u32* windows, const double* price, const double* ahead, double* numbers, i64* counts) {
    PLACE
    price += from;
    ahead += from;
    double fast = (double)windows[3 * spec], slow = (double)windows[3 * spec + 1], signal = (double)windows[3 * spec + 2];
    double kf = 2.0 / (fast + 1.0), ks = 2.0 / (slow + 1.0), kl = 2.0 / (signal + 1.0);
    double held_fast = 0.0, held_slow = 0.0, mean = 0.0, line = 0.0, above = 0.0;
    for (u64 at = 0; at < bars; at++) {
        double index = (double)at, close = price[at];
        held_slow = exponential(held_slow, close, index, slow, ks);
        double late = index - (slow - fast);
        held_fast = late < 0.0 ? 0.0 : exponential(held_fast, close, late, fast, kf);
        line = held_fast - held_slow;
        double since = index - (slow - 1.0);
        mean = since < 0.0 ? 0.0 : settle(exponential(mean, line, since, signal, kl));
        double now = flag(line - mean > 0.0);
        if (since >= signal) tally_signal(&tally, ahead, at, judged, now - above);
        above = now;
    }
    bool defined = bars > (u64)windows[3 * spec + 1] + windows[3 * spec + 2] - 2;
    double none = NOT_A_NUMBER;
    tally_cell(&tally, cell, defined ? line : none, defined ? mean : none, defined ? line - mean : none, numbers, counts);
}

KERNEL sweep_atr(SWEEP, const u32* windows, const double* range, const double* change, const double* ahead, double* numbers,
                 i64* counts) {
    PLACE
    range += from;
    change += from;
    ahead += from;
    double window = (double)windows[spec], less = window - 1.0, share = 1.0 / window, held = 0.0;
    for (u64 at = 1; at < bars; at++) {
        double index = (double)at, moved = change[at];
        held = wilder(held, range[at], index - 1.0, window, less, share);
        double event = flag(moved > held) - flag(moved < -held);
        if (index >= window) tally_signal(&tally, ahead, at, judged, event);
    }
    bool defined = bars > windows[spec];
    tally_cell(&tally, cell, defined ? held : NOT_A_NUMBER, NOT_A_NUMBER, NOT_A_NUMBER, numbers, counts);
}

// An unsigned number of 128 bits.
struct Wide {
    u64 low, high;
};

__device__ static inline Wide wide_product(u64 a, u64 b) {
    Wide product = {a * b, __umul64hi(a, b)};
    return product;
}

__device__ static inline Wide wide_sum(Wide a, Wide b) {
    Wide sum = {a.low + b.low, a.high + b.high};
    sum.high += sum.low < a.low ? 1 : 0;
    return sum;
}

__device__ static inline Wide wide_difference(Wide a, Wide b) {
    Wide difference = {a.low - b.low, a.high - b.high};
    difference.high -= a.low < b.low ? 1 : 0;
    return difference;
}

__device__ static inline double wide_to_f64(Wide value) {
    if (value.high == 0 && (value.low >> 63) == 0) return (double)(i64)value.low;
    return (double)value.high * 18446744073709551616.0 + (double)value.low;
}

KERNEL sweep_bollinger(SWEEP, const u32* windows, const double* deviations, const i64* close, const double* price,
                       const double* ahead, double* numbers, i64* counts) {
    PLACE
    close += from;
    price += from;
    ahead += from;
    u64 width = windows[spec];
    double scale = (double)windows[spec] * 1e9, reach = deviations[spec] / scale;
    u64 sum = 0; // the window times the largest price was checked to fit
    Wide squares = {0, 0};
    double mid = NOT_A_NUMBER, upper = NOT_A_NUMBER, lower = NOT_A_NUMBER;
    bool stood = false, below = false, above = false;
    for (u64 at = 0; at < bars; at++) {
        u64 entering = (u64)close[at];
        u64 leaving = at >= width ? (u64)close[at - width] : 0;
        sum += entering - leaving;
        squares = wide_difference(wide_sum(squares, wide_product(entering, entering)), wide_product(leaving, leaving));
        if (at + 1 < width) continue;
        // n times the squares: both parts of the product fit, as n times the price does.
        Wide scaled = wide_product(squares.low, width);
        scaled.high += squares.high * width;
        double spread = sqrt(wide_to_f64(wide_difference(scaled, wide_product(sum, sum)))) * reach;
        Wide total = {sum, 0};
        mid = wide_to_f64(total) / scale;
        upper = mid + spread;
        lower = mid - spread;
        double now = price[at];
        if (stood) {
            double event = flag(below && now > lower) - flag(above && now < upper);
            tally_signal(&tally, ahead, at, judged, event);
        }
        below = now <= lower;
        above = now >= upper;
        stood = true;
    }
    tally_cell(&tally, cell, mid, upper, lower, numbers, counts);
}
