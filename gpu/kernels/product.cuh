// Products of matrices in single precision with one order of sums, as in `gpu/src/product.rs`.
#pragma once
#include "common.cuh"

#define TILE 64
#define RUN 32
#define PRODUCT_THREADS 128
// Of a tile, a thread has so many rows and columns, from these on.
#define TALL 8
#define WIDE 4
#define TILE_ROW (TALL * (threadIdx.x / (TILE / WIDE)))
#define TILE_COLUMN (WIDE * (threadIdx.x % (TILE / WIDE)))

// This thread's part of the sums over `k < depth` of `a[k][a_first + row] * b[k][b_first + column]`; beyond its last column a matrix
// is 0. Called by all threads of a block of PRODUCT_THREADS.
__device__ static inline void tile_product(const float* a, u32 a_columns, u32 a_first, const float* b, u32 b_columns, u32 b_first,
                                           u32 depth, float (*total)[WIDE]) {
    __shared__ __align__(16) float left[RUN][TILE];
    __shared__ __align__(16) float right[RUN][TILE];
    u32 row = TILE_ROW, column = TILE_COLUMN;
    for (int i = 0; i < TALL; i++) {
        for (int j = 0; j < WIDE; j++) total[i][j] = 0.0f;
    }
    for (u32 from = 0; from < depth; from += RUN) {
        for (u32 at = threadIdx.x; at < RUN * TILE; at += PRODUCT_THREADS) {
            u32 k = at / TILE, place = at % TILE;
            u64 line = (u64)from + k;
            bool in = line < depth;
            left[k][place] = in && a_first + place < a_columns ? a[line * a_columns + a_first + place] : 0.0f;
            right[k][place] = in && b_first + place < b_columns ? b[line * b_columns + b_first + place] : 0.0f;
        }
        __syncthreads();
        float run[TALL][WIDE];
        for (int i = 0; i < TALL; i++) {
            for (int j = 0; j < WIDE; j++) run[i][j] = 0.0f;
        }
#pragma unroll 8
        for (u32 k = 0; k < RUN; k++) {
            for (int i = 0; i < TALL; i++) {
                for (int j = 0; j < WIDE; j++) run[i][j] = fmaf(left[k][row + i], right[k][column + j], run[i][j]);
            }
        }
        for (int i = 0; i < TALL; i++) {
            for (int j = 0; j < WIDE; j++) total[i][j] += run[i][j];
        }
        __syncthreads();
    }
}
