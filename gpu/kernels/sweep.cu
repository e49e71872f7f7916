// Indicators over symbols x parameters x bars (`gpu/src/sweep/`): a thread per symbol and parameter goes through the bars.
#include "sweep.cuh"

// Bars of all symbols one after the other; symbol `s` has those from `starts[s]` to `starts[s + 1]`. A signal on one of a
// symbol's last `horizon` bars is not judged. Cells are symbol by symbol, `places` says where a parameter's cell stands.
#define SWEEP const u64 *starts, const u32 *places, u64 symbols, u64 horizon, u32 specs, u32 cells, const u32 *windows

// Four numbers per cell (values and gain) and five counts (longs, shorts, judged, hits, bar of the last signal or -1).
#define CELLS const double *ahead, double *numbers, i64 *counts

template <class Kind>
__device__ static inline void sweep(SWEEP, const double* deviations, Bars all, CELLS) {
    u64 thread = thread_index();
    if (thread >= symbols * specs) return;
    u64 symbol = thread / specs;
    u32 spec = (u32)(thread % specs);
    u64 from = starts[symbol], bars = starts[symbol + 1] - from;
    u64 judging = bars > horizon ? bars - horizon : 0;
    u64 cell = symbol * cells + places[spec];
    Kind kind(bars_from(all, from), windows, deviations, spec);
    ahead += from;
    const u64 nothing[STATE] = {0, 0, 0};
    kind.resume(0, nothing);
    u64 longs = 0, shorts = 0, judged = 0, hits = 0;
    i64 last = -1;
    double sum = 0.0;
    for (u64 at = 0; at < bars; at++) {
        double event = kind.step(at);
        if (event == 0.0) continue;
        if (event > 0.0) longs++;
        else shorts++;
        last = (i64)at;
        if (at < judging) {
            double gain = event * ahead[at];
            judged++;
            hits += gain > 0.0 ? 1 : 0;
            sum += gain;
        }
    }
    kind.values(bars, numbers + 4 * cell);
    numbers[4 * cell + 3] = sum;
    counts[5 * cell] = (i64)longs;
    counts[5 * cell + 1] = (i64)shorts;
    counts[5 * cell + 2] = (i64)judged;
    counts[5 * cell + 3] = (i64)hits;
    counts[5 * cell + 4] = last;
}

#define SWEEP_OF(kind, deviations, ...) \
    sweep<kind>(starts, places, symbols, horizon, specs, cells, windows, deviations, Bars __VA_ARGS__, ahead, numbers, counts)

KERNEL sweep_ema(SWEEP, EMA_INPUT, CELLS) {
    SWEEP_OF(Ema, 0, EMA_BARS);
}

KERNEL sweep_rsi(SWEEP, RSI_INPUT, CELLS) {
    SWEEP_OF(Rsi, 0, RSI_BARS);
}

KERNEL sweep_macd(SWEEP, EMA_INPUT, CELLS) {
    SWEEP_OF(Macd, 0, EMA_BARS);
}

KERNEL sweep_atr(SWEEP, ATR_INPUT, CELLS) {
    SWEEP_OF(Atr, 0, ATR_BARS);
}

KERNEL sweep_bollinger(SWEEP, BOLLINGER_INPUT, CELLS) {
    SWEEP_OF(Bollinger, deviations, BOLLINGER_BARS);
}
