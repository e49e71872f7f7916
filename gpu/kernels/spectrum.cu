// The steps of Lanczos' method (`gpu/src/spectrum.rs`): a symmetric matrix, kept as its triangle, times a vector, and what stands
// along other vectors taken out.
#include "common.cuh"

#define TILE 64
#define PARTS 256

// What each tile of the triangle adds to the product: a block of TILE threads per tile. `partial` is `tiles x symbols`: of tile
// (I, J) the part along its rows stands in line J, the part down its columns, of its mirror, in line I.
KERNEL __launch_bounds__(TILE) tile_products(const double* triangle, u32 symbols, const double* x, double* partial) {
    __shared__ double tile[TILE][TILE + 1];
    __shared__ double beside[TILE], along[TILE];
    if (blockIdx.x > blockIdx.y) return;
    bool corner = blockIdx.x == blockIdx.y;
    u32 own = threadIdx.x, first_row = blockIdx.y * TILE, first_column = blockIdx.x * TILE;
    for (u32 row = 0; row < TILE; row++) {
        u64 line = first_row + row;
        u32 column = first_column + own;
        tile[row][own] = line < symbols && column <= line ? triangle[line * (line + 1) / 2 + column] : 0.0;
    }
    beside[own] = first_row + own < symbols ? x[first_row + own] : 0.0;
    along[own] = first_column + own < symbols ? x[first_column + own] : 0.0;
    __syncthreads();
    if (corner) {
        for (u32 row = 0; row < own; row++) tile[row][own] = tile[own][row];
        __syncthreads();
    }
    double sums[LANES];
    for (int lane = 0; lane < LANES; lane++) sums[lane] = 0.0;
    for (int at = 0; at < TILE / LANES; at++) {
        for (int lane = 0; lane < LANES; lane++) {
            int column = at * LANES + lane;
            sums[lane] = fma(tile[own][column], along[column], sums[lane]);
        }
    }
    for (int half = LANES / 2; half > 0; half /= 2) {
        for (int lane = 0; lane < half; lane++) sums[lane] += sums[lane + half];
    }
    if (first_row + own < symbols) partial[(u64)blockIdx.x * symbols + first_row + own] = sums[0];
    if (corner) return;
    double down = 0.0;
    for (u32 row = 0; row < TILE; row++) down = fma(tile[row][own], beside[row], down);
    partial[(u64)blockIdx.y * symbols + first_column + own] = down;
}

// The parts of each entry, tile by tile. A thread per entry.
KERNEL fold_tiles(const double* partial, u32 symbols, u32 tiles, double* y) {
    u64 at = thread_index();
    if (at >= symbols) return;
    double sum = 0.0;
    for (u32 tile = 0; tile < tiles; tile++) sum += partial[(u64)tile * symbols + at];
    y[at] = sum;
}

// The product of `x` with each vector of the basis: a block of PARTS threads per vector.
KERNEL __launch_bounds__(PARTS) shares_along(const double* basis, const double* x, u32 symbols, double* shares) {
    __shared__ double parts[PARTS];
    const double* vector = basis + (u64)blockIdx.x * symbols;
    double sum = 0.0;
    for (u32 at = threadIdx.x; at < symbols; at += PARTS) sum = fma(vector[at], x[at], sum);
    parts[threadIdx.x] = sum;
    __syncthreads();
    for (u32 half = PARTS / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) parts[threadIdx.x] += parts[threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x == 0) shares[blockIdx.x] = parts[0];
}

// `x` less its shares of the basis, vector by vector. A thread per entry.
KERNEL take_out(const double* basis, const double* shares, u32 vectors, u32 symbols, double* x) {
    u64 at = thread_index();
    if (at >= symbols) return;
    double left = x[at];
    for (u32 vector = 0; vector < vectors; vector++) left = fma(-shares[vector], basis[(u64)vector * symbols + at], left);
    x[at] = left;
}

// `x` over its length, whose square is given. A thread per entry.
KERNEL unit_length(const double* x, const double* square, u32 symbols, double* out) {
    u64 at = thread_index();
    if (at >= symbols) return;
    out[at] = x[at] / sqrt(*square);
}
