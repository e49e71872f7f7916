// Exponentially weighted covariances (`gpu/src/correlation.rs`).
#include "common.cuh"

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
