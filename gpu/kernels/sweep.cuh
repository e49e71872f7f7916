// Indicators one bar after the other, as in `gpu/src/sweep/`: each is a state, a step, and what the state says at the last bar.
//
// All have one shape, so that the kernels which go through a symbol's bars from one end to the other (`sweep.cu`) and those
// which go through many stretches of them at once (`scan.cu`) share every operation:
//
//   guess(at)          some state to stand before bar `at`, where none is known; `at` is behind the bars it fills up on
//   resume(at, words)  the state before bar `at` that `save` wrote; before bar 0, where all words are 0
//   step(at)           takes bar `at`: 1 for a long signal, -1 for a short one, else 0
//   save(words)        the state, in STATE words
//   values(bars, out)  three values after the last of so many bars, NaN while undefined
//
// What comes after `resume` follows from the words and the bars alone: equal words go on equally.
#pragma once
#include "common.cuh"

#define STATE 3
#define NOT_A_NUMBER __longlong_as_double(0x7ff8000000000000ll)

// What the indicators read: bars of one symbol, those a kind needs; the others are null.
struct Bars {
    const double *price, *up, *down, *range, *change;
    const i64* close;
};

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

__device__ static inline u64 word_of(double value) {
    return (u64)__double_as_longlong(value);
}

__device__ static inline double of_word(u64 word) {
    return __longlong_as_double((i64)word);
}

struct Ema {
    const double* price;
    double window, k, held, above;

    __device__ inline Ema(const Bars& bars, const u32* windows, const double*, u32 spec) {
        price = bars.price;
        window = (double)windows[spec];
        k = 2.0 / (window + 1.0);
    }
    __device__ inline void guess(u64 at) {
        held = price[at - 1];
        above = 0.0;
    }
    __device__ inline void resume(u64 at, const u64* words) {
        held = of_word(words[0]);
        above = at > 0 ? flag(price[at - 1] > held) : 0.0;
    }
    __device__ inline double step(u64 at) {
        double index = (double)at, close = price[at];
        held = exponential(held, close, index, window, k);
        double now = flag(close > held), event = index >= window ? now - above : 0.0;
        above = now;
        return event;
    }
    __device__ inline void save(u64* words) const {
        words[0] = word_of(held);
        words[1] = words[2] = 0;
    }
    __device__ inline void values(u64 bars, double* out) const {
        out[0] = (double)bars >= window ? held : NOT_A_NUMBER;
        out[1] = out[2] = NOT_A_NUMBER;
    }
};

struct Rsi {
    const double *up, *down;
    double window, less, share, gain, loss, low, high;

    __device__ inline Rsi(const Bars& bars, const u32* windows, const double*, u32 spec) {
        up = bars.up;
        down = bars.down;
        window = (double)windows[spec];
        less = window - 1.0;
        share = 1.0 / window;
    }
    __device__ inline double value() const {
        double total = gain + loss;
        return total < 1e-14 * 1e9 ? 0.0 : 100.0 * (gain / total);
    }
    __device__ inline void stand() {
        double at = value();
        low = flag(at <= 30.0);
        high = flag(at >= 70.0);
    }
    __device__ inline void guess(u64 at) {
        gain = up[at - 1];
        loss = down[at - 1];
        stand();
    }
    // Where it stood before it was defined no signal asks.
    __device__ inline void resume(u64, const u64* words) {
        gain = of_word(words[0]);
        loss = of_word(words[1]);
        stand();
    }
    __device__ inline double step(u64 at) {
        if (at == 0) return 0.0;
        double index = (double)at, was_low = low, was_high = high;
        gain = wilder(gain, up[at], index - 1.0, window, less, share);
        loss = wilder(loss, down[at], index - 1.0, window, less, share);
        stand();
        return index > window ? was_low * (1.0 - low) - was_high * (1.0 - high) : 0.0;
    }
    __device__ inline void save(u64* words) const {
        words[0] = word_of(gain);
        words[1] = word_of(loss);
        words[2] = 0;
    }
    __device__ inline void values(u64 bars, double* out) const {
        out[0] = (double)bars > window ? value() : NOT_A_NUMBER;
        out[1] = out[2] = NOT_A_NUMBER;
    }
};

// Windows: fast, slow, signal of each parameter.
struct Macd {
    const double* price;
    double fast, slow, signal, kf, ks, kl, held_fast, held_slow, mean, above;

    __device__ inline Macd(const Bars& bars, const u32* windows, const double*, u32 spec) {
        price = bars.price;
        fast = (double)windows[3 * spec];
        slow = (double)windows[3 * spec + 1];
        signal = (double)windows[3 * spec + 2];
        kf = 2.0 / (fast + 1.0);
        ks = 2.0 / (slow + 1.0);
        kl = 2.0 / (signal + 1.0);
    }
    __device__ inline void guess(u64 at) {
        held_fast = held_slow = price[at - 1];
        mean = above = 0.0;
    }
    __device__ inline void resume(u64, const u64* words) {
        held_fast = of_word(words[0]);
        held_slow = of_word(words[1]);
        mean = of_word(words[2]);
        above = flag(held_fast - held_slow - mean > 0.0);
    }
    __device__ inline double step(u64 at) {
        double index = (double)at, close = price[at];
        held_slow = exponential(held_slow, close, index, slow, ks);
        double late = index - (slow - fast);
        held_fast = late < 0.0 ? 0.0 : exponential(held_fast, close, late, fast, kf);
        double line = held_fast - held_slow;
        double since = index - (slow - 1.0);
        mean = since < 0.0 ? 0.0 : settle(exponential(mean, line, since, signal, kl));
        double now = flag(line - mean > 0.0), event = since >= signal ? now - above : 0.0;
        above = now;
        return event;
    }
    __device__ inline void save(u64* words) const {
        words[0] = word_of(held_fast);
        words[1] = word_of(held_slow);
        words[2] = word_of(mean);
    }
    __device__ inline void values(u64 bars, double* out) const {
        bool defined = (double)bars > slow + signal - 2.0;
        double line = held_fast - held_slow;
        out[0] = defined ? line : NOT_A_NUMBER;
        out[1] = defined ? mean : NOT_A_NUMBER;
        out[2] = defined ? line - mean : NOT_A_NUMBER;
    }
};

struct Atr {
    const double *range, *change;
    double window, less, share, held;

    __device__ inline Atr(const Bars& bars, const u32* windows, const double*, u32 spec) {
        range = bars.range;
        change = bars.change;
        window = (double)windows[spec];
        less = window - 1.0;
        share = 1.0 / window;
    }
    __device__ inline void guess(u64 at) {
        held = range[at - 1];
    }
    __device__ inline void resume(u64, const u64* words) {
        held = of_word(words[0]);
    }
    __device__ inline double step(u64 at) {
        if (at == 0) return 0.0;
        double index = (double)at, moved = change[at];
        held = wilder(held, range[at], index - 1.0, window, less, share);
        return index >= window ? flag(moved > held) - flag(moved < -held) : 0.0;
    }
    __device__ inline void save(u64* words) const {
        words[0] = word_of(held);
        words[1] = words[2] = 0;
    }
    __device__ inline void values(u64 bars, double* out) const {
        out[0] = (double)bars > window ? held : NOT_A_NUMBER;
        out[1] = out[2] = NOT_A_NUMBER;
    }
};

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

struct Bollinger {
    const i64* close;
    const double* price;
    u64 width, first, sum; // the window times the largest price was checked to fit
    Wide squares;
    double scale, reach, mid, upper, lower;
    bool stood, below, above;

    __device__ inline Bollinger(const Bars& bars, const u32* windows, const double* deviations, u32 spec) {
        close = bars.close;
        price = bars.price;
        width = windows[spec];
        scale = (double)windows[spec] * 1e9;
        reach = deviations[spec] / scale;
    }
    __device__ inline void empty(u64 at) {
        first = at;
        sum = squares.low = squares.high = 0;
        stood = below = above = false;
        mid = upper = lower = NOT_A_NUMBER;
    }
    // Sums are exact: after `width` bars from nowhere they are those of all bars.
    __device__ inline void guess(u64 at) {
        empty(at);
    }
    __device__ inline void stand(u64 at) {
        // n times the squares: both parts of the product fit, as n times the price does.
        Wide scaled = wide_product(squares.low, width), total = {sum, 0};
        scaled.high += squares.high * width;
        double spread = sqrt(wide_to_f64(wide_difference(scaled, wide_product(sum, sum)))) * reach;
        mid = wide_to_f64(total) / scale;
        upper = mid + spread;
        lower = mid - spread;
        double now = price[at];
        below = now <= lower;
        above = now >= upper;
        stood = true;
    }
    __device__ inline void resume(u64 at, const u64* words) {
        empty(0);
        sum = words[0];
        squares.low = words[1];
        squares.high = words[2];
        if (at >= width) stand(at - 1);
    }
    __device__ inline double step(u64 at) {
        u64 entering = (u64)close[at];
        u64 leaving = at >= first + width ? (u64)close[at - width] : 0;
        sum += entering - leaving;
        squares = wide_difference(wide_sum(squares, wide_product(entering, entering)), wide_product(leaving, leaving));
        if (at + 1 < first + width) return 0.0;
        bool had = stood, was_below = below, was_above = above;
        stand(at);
        double now = price[at];
        return had ? flag(was_below && now > lower) - flag(was_above && now < upper) : 0.0;
    }
    __device__ inline void save(u64* words) const {
        words[0] = sum;
        words[1] = squares.low;
        words[2] = squares.high;
    }
    __device__ inline void values(u64, double* out) const {
        out[0] = mid;
        out[1] = upper;
        out[2] = lower;
    }
};

// Bars of a symbol, from where its own begin; of what a kind does not read there is none.
__device__ static inline Bars bars_from(Bars all, u64 from) {
    if (all.price) all.price += from;
    if (all.up) all.up += from;
    if (all.down) all.down += from;
    if (all.range) all.range += from;
    if (all.change) all.change += from;
    if (all.close) all.close += from;
    return all;
}

// What each kind is called with beside the windows, and the bars in it.
#define EMA_INPUT const double* price
#define EMA_BARS {price, 0, 0, 0, 0, 0}
#define RSI_INPUT const double *up, const double* down
#define RSI_BARS {0, up, down, 0, 0, 0}
#define ATR_INPUT const double *range, const double* change
#define ATR_BARS {0, 0, 0, range, change, 0}
#define BOLLINGER_INPUT const double *deviations, const i64 *close, const double* price
#define BOLLINGER_BARS {price, 0, 0, 0, 0, close}
