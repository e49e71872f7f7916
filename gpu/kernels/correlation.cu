// Correlations of many symbols (`gpu/src/correlation.rs`, `gpu/src/window.rs`).
#include "product.cuh"

// One row's rank-1 update of a triangle kept row by row up to the diagonal: `entry = own * add * other + keep * entry`. A row of
// blocks per row of the triangle, a thread per column.
KERNEL rank1(const float* offsets, u32 symbols, float keep, float add, float* triangle) {
    u32 row = blockIdx.y;
    u32 column = blockIdx.x * blockDim.x + threadIdx.x;
    if (row >= symbols || column > row) return;
    u64 at = (u64)row * (row + 1) / 2 + column;
    float own = offsets[row] * add;
    triangle[at] = fmaf(own, offsets[column], keep * triangle[at]);
}

// Sums of products over a window that rolls on by `count` rows. `history` has the `before` rows of the window, oldest first, and
// then the new ones; `seen` is how many rows there were in all before. `next` has the sums since the last multiple of the window, at
// each of which it takes the place of `sums`. Rows of blocks and threads as in rank1.
KERNEL roll(const double* history, u32 symbols, u32 window, u64 seen, u32 before, u32 count, double* sums, double* next) {
    u32 row = blockIdx.y;
    u32 column = blockIdx.x * blockDim.x + threadIdx.x;
    if (row >= symbols || column > row) return;
    u64 at = (u64)row * (row + 1) / 2 + column;
    double sum = sums[at], fresh = next[at];
    for (u32 step = 0; step < count; step++) {
        if (seen + step >= window) {
            const double* leaves = history + (u64)(before + step - window) * symbols;
            sum = fma(-leaves[row], leaves[column], sum);
        }
        const double* enters = history + (u64)(before + step) * symbols;
        double own = enters[row], other = enters[column];
        sum = fma(own, other, sum);
        fresh = fma(own, other, fresh);
        if ((seen + step + 1) % window == 0) {
            sum = fresh;
            fresh = 0.0;
        }
    }
    sums[at] = sum;
    next[at] = fresh;
}

#define CENTRE_SYMBOLS 32

// Rows of values less their symbol's mean, over the root of its squares' sum; and one over that root, 0 for a symbol that did not
// move. A block per CENTRE_SYMBOLS symbols, LANES threads for each.
KERNEL __launch_bounds__(LANES* CENTRE_SYMBOLS)
    centre(const double* values, u32 rows, u32 symbols, float* centred, double* scales) {
    __shared__ double partial[LANES][CENTRE_SYMBOLS];
    u32 place = threadIdx.x % CENTRE_SYMBOLS, lane = threadIdx.x / CENTRE_SYMBOLS;
    u32 symbol = blockIdx.x * CENTRE_SYMBOLS + place;
    bool in = symbol < symbols;
    double mean = 0.0, squares = 0.0;
    for (int pass = 0; pass < 2; pass++) {
        double sum = 0.0;
        for (u32 row = lane; in && row < rows; row += LANES) {
            double value = values[(u64)row * symbols + symbol];
            double away = value - mean;
            sum = pass == 0 ? sum + value : fma(away, away, sum);
        }
        partial[lane][place] = sum;
        __syncthreads();
        for (u32 half = LANES / 2; half > 0; half /= 2) {
            if (lane < half) partial[lane][place] += partial[lane + half][place];
            __syncthreads();
        }
        if (pass == 0) mean = partial[0][place] / (double)rows;
        else squares = partial[0][place];
        __syncthreads();
    }
    if (!in) return;
    bool moved = squares > (1e-14 * 1e-14) * (double)rows * (mean * mean) && squares > 1e-290;
    double scale = moved ? 1.0 / sqrt(squares) : 0.0;
    for (u32 row = lane; row < rows; row += LANES) {
        u64 at = (u64)row * symbols + symbol;
        centred[at] = (float)((values[at] - mean) * scale);
    }
    if (lane == 0) scales[symbol] = scale;
}

// The triangle of products of the columns of `centred`, bounded by 1, with ones on its diagonal. A block per tile; those above the
// diagonal have nothing to do.
KERNEL __launch_bounds__(PRODUCT_THREADS, 4) window_products(const float* centred, u32 rows, u32 symbols, double* triangle) {
    if (blockIdx.x > blockIdx.y) return;
    float total[TALL][WIDE];
    tile_product(centred, symbols, blockIdx.y * TILE, centred, symbols, blockIdx.x * TILE, rows, total);
    for (int i = 0; i < TALL; i++) {
        u32 row = blockIdx.y * TILE + TILE_ROW + i;
        for (int j = 0; j < WIDE; j++) {
            u32 column = blockIdx.x * TILE + TILE_COLUMN + j;
            if (row >= symbols || column > row) continue;
            float entry = total[i][j];
            entry = entry < -1.0f ? -1.0f : entry;
            entry = entry > 1.0f ? 1.0f : entry;
            triangle[(u64)row * (row + 1) / 2 + column] = column == row ? 1.0 : (double)entry;
        }
    }
}
