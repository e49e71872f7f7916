// The same indicators where symbols are few and bars many: stretches of a symbol's bars side by side.
//
// A stretch does not know the state that it begins with. It runs up from a guess some bars before: means forget, so that what
// it comes to is, nearly always, the very bits that the stretch before ends with. `scan_join` compares them from the first
// stretch on, whose state is known, and does a stretch again where they differ: so every state has the bits of `sweep.cu`,
// whatever was guessed. Stretches only mark where signals are; `scan_fold` counts them, and adds up gains in order of bars.
#include "sweep.cuh"

// Stretches are of `length` bars, a multiple of 256; those of symbol `s` are `firsts[s]` to `firsts[s + 1]`, `owners` names the
// symbol of each. A state is STATE words, of stretch x parameter; so are marks, a word per 32 bars: long signals above, short
// ones below.
#define SCAN const u64 *starts, const u64 *firsts, u64 symbols, u64 length, u32 specs, const u32 *windows
// A stretch runs up over `warm` bars; from the first one where it would begin within the first `filled`.
#define STRETCH_OUT u64 stretches, const u32 *owners, u64 warm, u64 filled, u64 *begins, u64 *ends, u64 *marks
#define JOIN_OUT const u32 *places, u32 cells, u64 *begins, u64 *ends, u64 *marks, double *numbers, i64 *repaired

#define GROUP 8

struct Stretch {
    u64 begin, end, place;
};

// The stretch `at`, and where its words are.
__device__ static inline Stretch stretch_of(const u64* firsts, u64 symbol, u64 bars, u64 at, u64 length, u32 specs, u32 spec) {
    Stretch found;
    found.begin = (at - firsts[symbol]) * length;
    found.end = found.begin + length < bars ? found.begin + length : bars;
    found.place = at * specs + spec;
    return found;
}

template <class Kind> __device__ static inline void mark(Kind& kind, Stretch stretch, u64 length, u64* marks) {
    marks += stretch.place * (length / 32);
    for (u64 at = stretch.begin; at < stretch.end;) {
        u64 longs = 0, shorts = 0;
        u64 end = at + 32 < stretch.end ? at + 32 : stretch.end;
        for (u32 bit = 0; at < end; at++, bit++) {
            double event = kind.step(at);
            longs |= (u64)(event > 0.0) << bit;
            shorts |= (u64)(event < 0.0) << bit;
        }
        *marks++ = longs << 32 | shorts;
    }
}

template <class Kind>
__device__ static inline void stretch_work(SCAN, const double* deviations, Bars all, STRETCH_OUT) {
    u64 thread = thread_index();
    if (thread >= stretches * specs) return;
    u64 at = thread / specs;
    u32 spec = (u32)(thread % specs), symbol = owners[at];
    if (symbol >= symbols) return;
    u64 from = starts[symbol];
    Stretch stretch = stretch_of(firsts, symbol, starts[symbol + 1] - from, at, length, specs, spec);
    Kind kind(bars_from(all, from), windows, deviations, spec);
    u64 words[STATE] = {0, 0, 0};
    u64 run = 0;
    if (stretch.begin > warm + filled) {
        run = stretch.begin - warm;
        kind.guess(run);
    } else {
        kind.resume(0, words);
    }
    for (; run < stretch.begin; run++) kind.step(run);
    kind.save(words);
    for (u32 word = 0; word < STATE; word++) begins[STATE * stretch.place + word] = words[word];
    kind.resume(stretch.begin, words);
    mark(kind, stretch, length, marks);
    kind.save(words);
    for (u32 word = 0; word < STATE; word++) ends[STATE * stretch.place + word] = words[word];
}

// A warp per symbol and parameter: its lanes compare 32 stretches at a time, and the first does again what has to be.
template <class Kind>
__device__ static inline void join_work(SCAN, const double* deviations, Bars all, JOIN_OUT) {
    u64 warp = thread_index() / 32;
    u32 lane = threadIdx.x % 32;
    if (warp >= symbols * specs) return;
    u64 symbol = warp / specs;
    u32 spec = (u32)(warp % specs);
    u64 from = starts[symbol], bars = starts[symbol + 1] - from;
    u64 first = firsts[symbol], behind = firsts[symbol + 1];
    Kind kind(bars_from(all, from), windows, deviations, spec);
    u64 words[STATE];
    i64 again = 0;
    for (u64 base = first + 1; base < behind;) {
        u64 at = base + lane;
        u32 wrong = 32;
        if (at < behind) {
            u64 place = STATE * (at * specs + spec), before = STATE * ((at - 1) * specs + spec);
            for (u32 word = 0; word < STATE; word++)
                if (ends[before + word] != begins[place + word]) wrong = lane;
        }
        for (u32 bits = 1; bits < 32; bits *= 2) {
            u32 other = __shfl_xor_sync(0xffffffffu, wrong, bits);
            wrong = other < wrong ? other : wrong;
        }
        if (wrong == 32) {
            base += 32;
            continue;
        }
        at = base + wrong;
        if (lane == 0) {
            Stretch stretch = stretch_of(firsts, symbol, bars, at, length, specs, spec);
            u64 before = STATE * ((at - 1) * specs + spec);
            for (u32 word = 0; word < STATE; word++) {
                words[word] = ends[before + word];
                begins[STATE * stretch.place + word] = words[word];
            }
            kind.resume(stretch.begin, words);
            mark(kind, stretch, length, marks);
            kind.save(words);
            for (u32 word = 0; word < STATE; word++) ends[STATE * stretch.place + word] = words[word];
        }
        __syncwarp();
        again++;
        base = at + 1;
    }
    if (lane != 0) return;
    u64 cell = symbol * cells + places[spec];
    for (u32 word = 0; word < STATE; word++)
        words[word] = behind > first ? ends[STATE * ((behind - 1) * specs + spec) + word] : 0;
    kind.resume(bars, words);
    kind.values(bars, numbers + 4 * cell);
    repaired[cell] = again;
}

// A warp per symbol and parameter, a lane per bar: what signals were worth, gains added up in order of bars by all lanes alike.
KERNEL scan_fold(const u64* starts, const u64* firsts, u64 symbols, u64 length, u32 specs, u64 horizon, const u32* places,
                 u32 cells, const u64* marks, const double* ahead, double* numbers, i64* counts) {
    u64 warp = thread_index() / 32;
    u32 lane = threadIdx.x % 32;
    if (warp >= symbols * specs) return;
    u64 symbol = warp / specs;
    u32 spec = (u32)(warp % specs);
    u64 from = starts[symbol], bars = starts[symbol + 1] - from;
    u64 judging = bars > horizon ? bars - horizon : 0;
    ahead += from;
    i64 longs = 0, shorts = 0, judged = 0, hits = 0, last = -1;
    double sum = 0.0;
    for (u64 at = firsts[symbol]; at < firsts[symbol + 1]; at++) {
        Stretch stretch = stretch_of(firsts, symbol, bars, at, length, specs, spec);
        const u64* word = marks + stretch.place * (length / 32);
        for (u64 base = stretch.begin; base < stretch.end; base += 32 * GROUP, word += GROUP) {
            // All of a group first, so that they come from memory together.
            u64 marked[GROUP];
            double gains[GROUP];
            #pragma unroll
            for (u32 of = 0; of < GROUP; of++) {
                u64 bar = base + 32 * of + lane;
                marked[of] = base + 32 * of < stretch.end ? word[of] : 0;
                gains[of] = bar < judging ? ahead[bar] : 0.0;
            }
            #pragma unroll
            for (u32 of = 0; of < GROUP; of++) {
                u64 head = base + 32 * of, bar = head + lane;
                u32 up = (u32)(marked[of] >> 32), down = (u32)marked[of];
                bool is_long = (up >> lane & 1) != 0, is_short = (down >> lane & 1) != 0;
                double gain = is_long ? gains[of] : -gains[of];
                if (is_long || is_short) {
                    longs += is_long ? 1 : 0;
                    shorts += is_short ? 1 : 0;
                    last = (i64)bar;
                    judged += bar < judging ? 1 : 0;
                    hits += bar < judging && gain > 0.0 ? 1 : 0;
                }
                u64 open = judging > head ? judging - head : 0;
                u32 left = (up | down) & (open >= 32 ? 0xffffffffu : (1u << (u32)open) - 1);
                while (left != 0) {
                    sum += __shfl_sync(0xffffffffu, gain, (u32)__ffs((int)left) - 1);
                    left &= left - 1;
                }
            }
        }
    }
    for (u32 bits = 1; bits < 32; bits *= 2) {
        longs += __shfl_xor_sync(0xffffffffu, longs, bits);
        shorts += __shfl_xor_sync(0xffffffffu, shorts, bits);
        judged += __shfl_xor_sync(0xffffffffu, judged, bits);
        hits += __shfl_xor_sync(0xffffffffu, hits, bits);
        i64 other = __shfl_xor_sync(0xffffffffu, last, bits);
        last = other > last ? other : last;
    }
    if (lane != 0) return;
    u64 cell = symbol * cells + places[spec];
    numbers[4 * cell + 3] = sum;
    counts[5 * cell] = longs;
    counts[5 * cell + 1] = shorts;
    counts[5 * cell + 2] = judged;
    counts[5 * cell + 3] = hits;
    counts[5 * cell + 4] = last;
}

#define STRETCHES(kind, deviations, ...)                                                                                   \
    stretch_work<kind>(starts, firsts, symbols, length, specs, windows, deviations, Bars __VA_ARGS__, stretches, owners, \
                       warm, filled, begins, ends, marks)
#define JOIN(kind, deviations, ...)                                                                                       \
    join_work<kind>(starts, firsts, symbols, length, specs, windows, deviations, Bars __VA_ARGS__, places, cells, begins, \
                    ends, marks, numbers, repaired)

KERNEL scan_ema(SCAN, EMA_INPUT, STRETCH_OUT) {
    STRETCHES(Ema, 0, EMA_BARS);
}

KERNEL scan_rsi(SCAN, RSI_INPUT, STRETCH_OUT) {
    STRETCHES(Rsi, 0, RSI_BARS);
}

KERNEL scan_macd(SCAN, EMA_INPUT, STRETCH_OUT) {
    STRETCHES(Macd, 0, EMA_BARS);
}

KERNEL scan_atr(SCAN, ATR_INPUT, STRETCH_OUT) {
    STRETCHES(Atr, 0, ATR_BARS);
}

KERNEL scan_bollinger(SCAN, BOLLINGER_INPUT, STRETCH_OUT) {
    STRETCHES(Bollinger, deviations, BOLLINGER_BARS);
}

KERNEL join_ema(SCAN, EMA_INPUT, JOIN_OUT) {
    JOIN(Ema, 0, EMA_BARS);
}

KERNEL join_rsi(SCAN, RSI_INPUT, JOIN_OUT) {
    JOIN(Rsi, 0, RSI_BARS);
}

KERNEL join_macd(SCAN, EMA_INPUT, JOIN_OUT) {
    JOIN(Macd, 0, EMA_BARS);
}

KERNEL join_atr(SCAN, ATR_INPUT, JOIN_OUT) {
    JOIN(Atr, 0, ATR_BARS);
}

KERNEL join_bollinger(SCAN, BOLLINGER_INPUT, JOIN_OUT) {
    JOIN(Bollinger, deviations, BOLLINGER_BARS);
}
