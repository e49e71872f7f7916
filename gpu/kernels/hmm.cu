// Banks of hidden Markov models with Gaussian observations (`gpu/src/hmm.rs`): a thread per model.
//
// Values are row by row, one per series. Everything of a model stands model by model within each of its numbers: number `n` of
// model `m` at `n * models + m`, so that neighbouring threads read neighbouring places.
#include "common.cuh"

#define LN_SQRT_TWO_PI 0.91893853320467274178

template <int K> struct Model {
    double initial[K], transition[K][K], mean[K], inverse[K], constant[K];
};

// What a likelihood is kept as: a sum of logarithms, a product in [1, 2), and powers of two taken out of it.
struct Likelihood {
    double best, product;
    i64 exponent;
};

__device__ static inline void scale_by(Likelihood* kept, double s) {
    double product = kept->product * s;
    i64 bits = __double_as_longlong(product);
    kept->exponent += (bits >> 52) - 1023;
    kept->product = __longlong_as_double((bits & 0x000fffffffffffffll) | 0x3ff0000000000000ll);
}

__device__ static inline double likelihood(const Likelihood* kept) {
    return fma((double)kept->exponent, 6.931471805599453e-1, ln_f64(kept->product)) + kept->best;
}

template <int K>
__device__ static inline void load(Model<K>* model, const double* initial, const double* transition, const double* means,
                                   const double* deviations, u64 models, u64 at) {
    for (int k = 0; k < K; k++) {
        double deviation = deviations[k * models + at];
        model->initial[k] = initial[k * models + at];
        model->mean[k] = means[k * models + at];
        model->inverse[k] = 0.70710678118654752440 / deviation;
        model->constant[k] = -ln_f64(deviation) - LN_SQRT_TWO_PI;
        for (int to = 0; to < K; to++) model->transition[k][to] = transition[(k * K + to) * models + at];
    }
}

// Densities of `x` relative to the largest, whose logarithm is returned.
template <int K> __device__ static inline double densities(const Model<K>* model, double x, double* weights) {
    double best = 0.0;
    for (int k = 0; k < K; k++) {
        double z = (x - model->mean[k]) * model->inverse[k];
        weights[k] = fma(-z, z, model->constant[k]);
        best = k == 0 || weights[k] > best ? weights[k] : best;
    }
    for (int k = 0; k < K; k++) {
        double less = weights[k] - best;
        weights[k] = exp_weight(less > -700.0 ? less : -700.0);
    }
    return best;
}

// Takes `x`: filtered probabilities `now` of what was predicted. Returns one over the scale.
template <int K>
__device__ static inline double forward(const Model<K>* model, double x, bool first, double* now, double* weights, Likelihood* kept) {
    double next[K], sum = 0.0;
    kept->best += densities<K>(model, x, weights);
    for (int to = 0; to < K; to++) {
        double predicted = model->initial[to];
        if (!first) {
            predicted = now[0] * model->transition[0][to];
            for (int from = 1; from < K; from++) predicted = fma(now[from], model->transition[from][to], predicted);
        }
        next[to] = predicted * weights[to];
        sum = to == 0 ? next[to] : sum + next[to];
    }
    double share = 1.0 / sum;
    for (int k = 0; k < K; k++) now[k] = next[k] * share;
    scale_by(kept, sum);
    return share;
}

// Takes `rows` rows of values. `now`, `best`, `product`, `exponent` are the bank's state; `seen` is how many rows it took before.
template <int K>
__device__ static inline void filter(const double* values, u64 rows, u64 seen, u64 models, const double* initial,
                                     const double* transition, const double* means, const double* deviations, double* now,
                                     double* best, double* product, i64* exponent) {
    u64 at = thread_index();
    if (at >= models) return;
    Model<K> model;
    load<K>(&model, initial, transition, means, deviations, models, at);
    Likelihood kept = {best[at], product[at], exponent[at]};
    double own[K], weights[K];
    for (int k = 0; k < K; k++) own[k] = now[k * models + at];
    for (u64 row = 0; row < rows; row++) forward<K>(&model, values[row * models + at], seen + row == 0, own, weights, &kept);
    for (int k = 0; k < K; k++) now[k * models + at] = own[k];
    best[at] = kept.best;
    product[at] = kept.product;
    exponent[at] = kept.exponent;
}

// Baum-Welch of models `0..models`, model `m` over series `(first + m) % series`. Parameters are read and written; scratch holds
// `rows x (2 K + 1)` numbers per model. `floors` is each series' least deviation.
template <int K>
__device__ static inline void fit(const double* values, u64 rows, u64 series, u64 first, u64 models, u32 iterations,
                                  const double* floors, double* initial, double* transition, double* means, double* deviations,
                                  double* scratch, double* likelihoods) {
    u64 at = thread_index();
    if (at >= models) return;
    u64 column = (first + at) % series;
    double floor_variance = floors[column] * floors[column];
    double* alphas = scratch;
    double* emissions = scratch + rows * K * models;
    double* shares = scratch + 2 * rows * K * models;
    for (u32 iteration = 0;; iteration++) {
        Model<K> model;
        load<K>(&model, initial, transition, means, deviations, models, at);
        Likelihood kept = {0.0, 1.0, 0};
        double now[K], weights[K];
        for (u64 row = 0; row < rows; row++) {
            shares[row * models + at] = forward<K>(&model, values[row * series + column], row == 0, now, weights, &kept);
            for (int k = 0; k < K; k++) {
                alphas[(row * K + k) * models + at] = now[k];
                emissions[(row * K + k) * models + at] = weights[k];
            }
        }
        likelihoods[at] = likelihood(&kept);
        if (iteration == iterations) return;
        double beta[K], spent[K], along[K], square[K], moves[K][K], gamma[K];
        for (int k = 0; k < K; k++) {
            beta[k] = 1.0;
            spent[k] = along[k] = square[k] = 0.0;
            for (int to = 0; to < K; to++) moves[k][to] = 0.0;
        }
        for (u64 row = rows; row-- > 0;) {
            double x = values[row * series + column];
            for (int k = 0; k < K; k++) {
                gamma[k] = alphas[(row * K + k) * models + at] * beta[k];
                double z = x - model.mean[k], part = gamma[k] * z;
                spent[k] += gamma[k];
                along[k] += part;
                square[k] = fma(part, z, square[k]);
            }
            if (row == 0) break;
            double share = shares[row * models + at];
            for (int to = 0; to < K; to++) weights[to] = emissions[(row * K + to) * models + at] * beta[to] * share;
            for (int from = 0; from < K; from++) {
                double before = alphas[((row - 1) * K + from) * models + at];
                double sum = model.transition[from][0] * weights[0];
                for (int to = 0; to < K; to++) {
                    moves[from][to] = fma(before, weights[to], moves[from][to]);
                    if (to > 0) sum = fma(model.transition[from][to], weights[to], sum);
                }
                beta[from] = sum;
            }
        }
        double total = gamma[0];
        for (int k = 1; k < K; k++) total += gamma[k];
        for (int k = 0; k < K; k++) {
            initial[k * models + at] = gamma[k] / total;
            double leaving = moves[k][0] * model.transition[k][0];
            for (int to = 1; to < K; to++) leaving = fma(moves[k][to], model.transition[k][to], leaving);
            if (leaving > 1e-12) {
                for (int to = 0; to < K; to++) {
                    transition[(k * K + to) * models + at] = moves[k][to] * model.transition[k][to] / leaving;
                }
            }
            if (spent[k] > 1e-12) {
                double shift = along[k] / spent[k];
                double variance = fma(-shift, shift, square[k] / spent[k]);
                variance = variance > floor_variance ? variance : floor_variance;
                means[k * models + at] = model.mean[k] + shift;
                deviations[k * models + at] = sqrt(variance);
            }
        }
    }
}

#define OF(K)                                                                                                                 \
    KERNEL hmm_filter_##K(const double* values, u64 rows, u64 seen, u64 models, const double* initial, const double* transition, \
                          const double* means, const double* deviations, double* now, double* best, double* product,        \
                          i64* exponent) {                                                                                   \
        filter<K>(values, rows, seen, models, initial, transition, means, deviations, now, best, product, exponent);         \
    }                                                                                                                        \
    KERNEL hmm_fit_##K(const double* values, u64 rows, u64 series, u64 first, u64 models, u32 iterations,                    \
                       const double* floors, double* initial, double* transition, double* means, double* deviations,        \
                       double* scratch, double* likelihoods) {                                                               \
        fit<K>(values, rows, series, first, models, iterations, floors, initial, transition, means, deviations, scratch,     \
               likelihoods);                                                                                                 \
    }

OF(2)
OF(3)
OF(4)
