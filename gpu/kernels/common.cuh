// What every kernel shares: types, and functions written out as in `gpu/src/lanes.rs` and `gpu/src/philox.rs`.
//
// The same bits as on the CPU: nothing is fused but where fma stands (compiled with --fmad=false), divisions and roots are
// IEEE ones, subnormal numbers are kept, and no function of the device's own mathematics library is called.
#pragma once

typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

#define KERNEL extern "C" __global__ void
#define LANES 16

__device__ static inline float ln_f32(float x) {
    u32 shifted = __float_as_uint(x) - 0x3f3504f3u;
    float exponent = (float)((int)shifted >> 23);
    float m = __uint_as_float((shifted & 0x007fffffu) + 0x3f3504f3u) - 1.0f;
    float z = m * m;
    float p = 7.0376836e-2f;
    p = fmaf(p, m, -1.151461e-1f);
    p = fmaf(p, m, 1.1676999e-1f);
    p = fmaf(p, m, -1.2420141e-1f);
    p = fmaf(p, m, 1.4249323e-1f);
    p = fmaf(p, m, -1.6668057e-1f);
    p = fmaf(p, m, 2.0000715e-1f);
    p = fmaf(p, m, -2.4999994e-1f);
    p = fmaf(p, m, 3.333333e-1f);
    float y = p * m * z;
    y = fmaf(exponent, -2.1219444e-4f, y);
    y = fmaf(-0.5f, z, y);
    return fmaf(exponent, 0.6933594f, m + y);
}

// Sine and cosine of `u` turns, 0 to 1.
__device__ static inline void sin_cos_turns(float u, float* sine_out, float* cosine_out) {
    float quarters = u * 4.0f;
    float nearest = floorf(quarters + 0.5f);
    int quadrant = (int)nearest;
    float x = (quarters - nearest) * 1.57079632679489661923f;
    float z = x * x;
    float sine = fmaf(fmaf(-1.9515296e-4f, z, 8.332161e-3f), z, -1.6666655e-1f) * z;
    sine = fmaf(sine, x, x);
    float cosine = fmaf(fmaf(2.4433157e-5f, z, -1.3887316e-3f), z, 4.1666646e-2f) * z;
    cosine = fmaf(cosine, z, fmaf(-0.5f, z, 1.0f));
    bool swap = (quadrant & 1) != 0;
    float s = swap ? cosine : sine, c = swap ? sine : cosine;
    *sine_out = __uint_as_float(__float_as_uint(s) ^ ((u32)(quadrant & 2) << 30));
    *cosine_out = __uint_as_float(__float_as_uint(c) ^ ((u32)((quadrant + 1) & 2) << 30));
}

// e^x for |x| <= 700.
__device__ static inline double exp_f64(double x) {
    const double round = 6755399441055744.0;
    double shifted = fma(x, 1.4426950408889634, round);
    double k = shifted - round;
    double r = fma(k, -1.9082149292705877e-10, fma(k, -6.931471803691238e-1, x));
    double p = 1.0 / 479001600.0;
    p = fma(p, r, 1.0 / 39916800.0);
    p = fma(p, r, 1.0 / 3628800.0);
    p = fma(p, r, 1.0 / 362880.0);
    p = fma(p, r, 1.0 / 40320.0);
    p = fma(p, r, 1.0 / 5040.0);
    p = fma(p, r, 1.0 / 720.0);
    p = fma(p, r, 1.0 / 120.0);
    p = fma(p, r, 1.0 / 24.0);
    p = fma(p, r, 1.0 / 6.0);
    p = fma(p, r, 0.5);
    p = fma(p, r, 1.0);
    p = fma(p, r, 1.0);
    u64 power = ((u64)__double_as_longlong(shifted) << 52) + 0x3ff0000000000000ull;
    return p * __longlong_as_double((i64)power);
}

// e^x for -700 <= x <= 0, within 1e-11: enough where it is a weight beside others.
__device__ static inline double exp_weight(double x) {
    const double round = 6755399441055744.0;
    double shifted = fma(x, 1.4426950408889634, round);
    double k = shifted - round;
    double r = fma(k, -6.931471805599453e-1, x);
    double p = 1.0 / 362880.0;
    p = fma(p, r, 1.0 / 40320.0);
    p = fma(p, r, 1.0 / 5040.0);
    p = fma(p, r, 1.0 / 720.0);
    p = fma(p, r, 1.0 / 120.0);
    p = fma(p, r, 1.0 / 24.0);
    p = fma(p, r, 1.0 / 6.0);
    p = fma(p, r, 0.5);
    p = fma(p, r, 1.0);
    p = fma(p, r, 1.0);
    u64 power = ((u64)__double_as_longlong(shifted) << 52) + 0x3ff0000000000000ull;
    return p * __longlong_as_double((i64)power);
}

// Natural logarithm of a normal number above 0.
__device__ static inline double ln_f64(double x) {
    u64 bits = (u64)__double_as_longlong(x);
    u64 shifted = bits - 0x3fe6a09e667f3bcdull; // mantissa into [sqrt(1/2), sqrt(2))
    double exponent = (double)((i64)shifted >> 52);
    double m = __longlong_as_double((i64)((shifted & 0x000fffffffffffffull) + 0x3fe6a09e667f3bcdull));
    double s = (m - 1.0) / (m + 1.0), z = s * s;
    double p = 2.0 / 21.0;
    p = fma(p, z, 2.0 / 19.0);
    p = fma(p, z, 2.0 / 17.0);
    p = fma(p, z, 2.0 / 15.0);
    p = fma(p, z, 2.0 / 13.0);
    p = fma(p, z, 2.0 / 11.0);
    p = fma(p, z, 2.0 / 9.0);
    p = fma(p, z, 2.0 / 7.0);
    p = fma(p, z, 2.0 / 5.0);
    p = fma(p, z, 2.0 / 3.0);
    double low = fma(exponent, 1.9082149292705877e-10, z * s * p);
    return fma(exponent, 6.931471803691238e-1, fma(2.0, s, low));
}

struct Words {
    u32 at[4];
};

// Philox4x32-10 (Salmon et al. 2011).
__device__ static inline Words philox(u32 c0, u32 c1, u32 c2, u32 c3, u32 k0, u32 k1) {
    for (int round = 0; round < 10; round++) {
        u32 low_a = c0 * 0xd2511f53u, high_a = __umulhi(c0, 0xd2511f53u);
        u32 low_c = c2 * 0xcd9e8d57u, high_c = __umulhi(c2, 0xcd9e8d57u);
        u32 n0 = high_c ^ c1 ^ k0, n2 = high_a ^ c3 ^ k1;
        c0 = n0;
        c1 = low_c;
        c2 = n2;
        c3 = low_a;
        k0 += 0x9e3779b9u;
        k1 += 0xbb67ae85u;
    }
    Words words = {{c0, c1, c2, c3}};
    return words;
}

// A word as a number in (0, 1].
__device__ static inline float unit_of(u32 word) {
    return fmaf((float)(int)(word >> 1), 4.656613e-10f, 2.3283064e-10f);
}

// Four standard normal numbers of an address, at place `block` of `stream`: two Box-Muller pairs.
__device__ static inline void normals(u64 address, u32 block, u32 stream, u32 k0, u32 k1, float* out) {
    Words words = philox(block, (u32)address, (u32)(address >> 32), stream, k0, k1);
    for (int pair = 0; pair < 2; pair++) {
        float r = sqrtf(-2.0f * ln_f32(unit_of(words.at[2 * pair])));
        float s, c;
        sin_cos_turns(unit_of(words.at[2 * pair + 1]), &s, &c);
        out[2 * pair] = r * c;
        out[2 * pair + 1] = r * s;
    }
}

__device__ static inline u64 thread_index() {
    return (u64)blockIdx.x * blockDim.x + threadIdx.x;
}
