// Losses of a portfolio in scenarios of a factor model (`gpu/src/risk.rs`).
#include "common.cuh"

#define FACTORS_MAX 64

// The loss of each scenario `first..first + count`. `loadings` is asset by factor; `freedom` 0 is the normal tail. A thread per
// scenario.
KERNEL losses(u64 first, u64 count, u32 assets, u32 factors, u32 freedom, const double* loadings, const double* own,
              const double* weights, u32 k0, u32 k1, double* out) {
    u64 at = thread_index();
    if (at >= count) return;
    u64 address = first + at;
    float z[4];
    double scale = 1.0;
    if (freedom != 0) {
        double square = 0.0;
        for (u32 block = 0; block < (freedom + 3) / 4; block++) {
            normals(address, block, 3, k0, k1, z);
            for (int row = 0; row < 4; row++) {
                if (4 * block + row < freedom) square = fma((double)z[row], (double)z[row], square);
            }
        }
        scale = sqrt(((double)freedom - 2.0) / square);
    }
    double factor[FACTORS_MAX];
    for (u32 block = 0; 4 * block < factors; block++) {
        normals(address, block, 1, k0, k1, z);
        for (int row = 0; row < 4; row++) {
            if (4 * block + row < factors) factor[4 * block + row] = (double)z[row];
        }
    }
    double loss = 0.0;
    for (u32 block = 0; 4 * block < assets; block++) {
        normals(address, block, 2, k0, k1, z);
        for (int row = 0; row < 4; row++) {
            u32 asset = 4 * block + row;
            if (asset >= assets) break;
            double sum = own[asset] * (double)z[row];
            const double* loads = loadings + (u64)asset * factors;
            for (u32 f = 0; f < factors; f++) sum = fma(loads[f], factor[f], sum);
            double moved = sum * scale;
            moved = moved < -50.0 ? -50.0 : moved;
            moved = moved > 50.0 ? 50.0 : moved;
            loss += -weights[asset] * (exp_f64(moved) - 1.0);
        }
    }
    out[at] = loss;
}
