// Many long-only portfolios at once (`gpu/src/qp.rs`): the alternating direction method, one product of matrices per step. Matrices of
// weights are asset by asset, a column per portfolio.
#include "product.cuh"

// What the first product is of: `tilt + rho (z - u)`, with `u` taken to another `rho`. A thread per entry.
KERNEL admm_start(const float* tilt, u64 entries, float rho, float rescale, const float* z, float* u, float* v) {
    u64 at = thread_index();
    if (at >= entries) return;
    float own = u[at] * rescale;
    u[at] = own;
    v[at] = fmaf(rho, z[at] - own, tilt[at]);
}

// A step of all portfolios: `x = inverse v + base + slope wanted` is the best portfolio that pays its budget, `z` the nearest one
// without short sales, `u` what is between them, added up. Where asked, `residuals` become the largest distances of each portfolio,
// of `x` from `z` and then of `z` from what it was, as the bits of numbers of at least 0. A block per tile.
KERNEL __launch_bounds__(PRODUCT_THREADS, 4)
    admm(const float* inverse, u32 assets, u32 portfolios, const float* tilt, const float* base, const float* slope,
         const float* wanted, float rho, float relaxed, const float* v, float* v_next, float* z, float* u, u32 asked, u32* residuals) {
    float total[TALL][WIDE];
    u32 first_asset = blockIdx.y * TILE, first_portfolio = blockIdx.x * TILE;
    tile_product(inverse, assets, first_asset, v, portfolios, first_portfolio, assets, total);
    for (int j = 0; j < WIDE; j++) {
        u32 portfolio = first_portfolio + TILE_COLUMN + j;
        if (portfolio >= portfolios) continue;
        float primal = 0.0f, dual = 0.0f;
        for (int i = 0; i < TALL; i++) {
            u32 asset = first_asset + TILE_ROW + i;
            if (asset >= assets) continue;
            u64 at = (u64)asset * portfolios + portfolio;
            float x = total[i][j] + fmaf(slope[asset], wanted[portfolio], base[asset]);
            float old = z[at];
            float raised = fmaf(relaxed, x - old, old) + u[at];
            float now = raised > 0.0f ? raised : 0.0f;
            float left = raised - now;
            z[at] = now;
            u[at] = left;
            v_next[at] = fmaf(rho, now - left, tilt[at]);
            float away = fabsf(x - now), moved = fabsf(now - old);
            primal = away > primal ? away : primal;
            dual = moved > dual ? moved : dual;
        }
        if (asked != 0) {
            atomicMax(residuals + portfolio, __float_as_uint(primal));
            atomicMax(residuals + portfolios + portfolio, __float_as_uint(dual));
        }
    }
}
