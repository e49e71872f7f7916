//! Loops over lanes that the compiler turns into vector code of the machine's width, and functions written out for them.
//!
//! Every operation is an IEEE one in a fixed order (a fused product is asked for by name), so the bits do not depend on
//! the width.

/// Numbers side by side: two of the widest registers of doubles.
pub(crate) const LANES: usize = 16;

/// Runs `work` compiled for the widest vectors this machine has.
#[inline(always)]
pub(crate) fn widest<R>(work: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(work)
}

/// Natural logarithm of a normal number above 0, within 1.5 ulp near 1 and 2 ulp elsewhere (polynomial of Cephes `logf`).
#[inline(always)]
pub(crate) fn ln_f32(x: f32) -> f32 {
    let bits = x.to_bits();
    // Mantissa into [sqrt(1/2), sqrt(2)).
    let shifted = bits.wrapping_sub(0x3f35_04f3);
    let exponent = (shifted as i32 >> 23) as f32;
    let m = f32::from_bits((shifted & 0x007f_ffff).wrapping_add(0x3f35_04f3)) - 1.0;
    let z = m * m;
    let mut p = 7.037_683_6e-2_f32;
    p = p.mul_add(m, -1.151_461e-1);
    p = p.mul_add(m, 1.167_699_9e-1);
    p = p.mul_add(m, -1.242_014_1e-1);
    p = p.mul_add(m, 1.424_932_3e-1);
    p = p.mul_add(m, -1.666_805_7e-1);
    p = p.mul_add(m, 2.000_071_5e-1);
    p = p.mul_add(m, -2.499_999_4e-1);
    p = p.mul_add(m, 3.333_333e-1);
    let mut y = p * m * z;
    y = exponent.mul_add(-2.121_944_4e-4, y);
    y = (-0.5_f32).mul_add(z, y);
    exponent.mul_add(0.693_359_4, m + y)
}

/// Sine and cosine of `u` turns, `0 <= u <= 1`, within 1e-7 (polynomials of Cephes `sinf`, `cosf`).
#[inline(always)]
pub(crate) fn sin_cos_turns_f32(u: f32) -> (f32, f32) {
    let quarters = u * 4.0;
    let nearest = (quarters + 0.5).floor();
    let quadrant = nearest as i32;
    let x = (quarters - nearest) * std::f32::consts::FRAC_PI_2;
    let z = x * x;
    let sine = (-1.951_529_6e-4_f32).mul_add(z, 8.332_161e-3).mul_add(z, -1.666_665_5e-1) * z;
    let sine = sine.mul_add(x, x);
    let cosine = 2.443_315_7e-5_f32.mul_add(z, -1.388_731_6e-3).mul_add(z, 4.166_664_6e-2) * z;
    let cosine = cosine.mul_add(z, (-0.5_f32).mul_add(z, 1.0));
    let swap = quadrant & 1 != 0;
    let (s, c) = if swap { (cosine, sine) } else { (sine, cosine) };
    let flip_s = ((quadrant & 2) as u32) << 30;
    let flip_c = ((quadrant.wrapping_add(1) & 2) as u32) << 30;
    (f32::from_bits(s.to_bits() ^ flip_s), f32::from_bits(c.to_bits() ^ flip_c))
}

/// `e^x` for `|x| <= 700`, within 2 ulp: `2^k` times the Taylor polynomial of degree 12.
#[inline(always)]
pub(crate) fn exp_f64(x: f64) -> f64 {
    const ROUND: f64 = 6_755_399_441_055_744.0; // 1.5 * 2^52: adding it rounds to a whole number
    let shifted = x.mul_add(std::f64::consts::LOG2_E, ROUND);
    let k = shifted - ROUND;
    let r = k.mul_add(-1.908_214_929_270_587_7e-10, k.mul_add(-6.931_471_803_691_238e-1, x));
    let mut p = 1.0 / 479_001_600.0;
    for c in [
        1.0 / 39_916_800.0,
        1.0 / 3_628_800.0,
        1.0 / 362_880.0,
        1.0 / 40_320.0,
        1.0 / 5_040.0,
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ] {
        p = f64::mul_add(p, r, c);
    }
    let power = f64::from_bits((shifted.to_bits() << 52).wrapping_add(0x3ff0_0000_0000_0000));
    p * power
}

/// `e^x` for `-700 <= x <= 0`, within 1e-11: enough where it is a weight beside others.
#[inline(always)]
pub(crate) fn exp_weight(x: f64) -> f64 {
    const ROUND: f64 = 6_755_399_441_055_744.0;
    let shifted = x.mul_add(std::f64::consts::LOG2_E, ROUND);
    let k = shifted - ROUND;
    let r = k.mul_add(-std::f64::consts::LN_2, x);
    let mut p = 1.0 / 362_880.0;
    for c in [1.0 / 40_320.0, 1.0 / 5_040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = f64::mul_add(p, r, c);
    }
    p * f64::from_bits((shifted.to_bits() << 52).wrapping_add(0x3ff0_0000_0000_0000))
}

/// Natural logarithm of a normal number above 0, within 2 ulp, or 1e-16 near 1: the series of the inverse hyperbolic tangent.
#[inline(always)]
pub(crate) fn ln_f64(x: f64) -> f64 {
    const ROOT: u64 = 0x3fe6_a09e_667f_3bcd; // of one half: the mantissa goes into [sqrt(1/2), sqrt(2))
    let shifted = x.to_bits().wrapping_sub(ROOT);
    let exponent = (shifted as i64 >> 52) as f64;
    let m = f64::from_bits((shifted & 0x000f_ffff_ffff_ffff).wrapping_add(ROOT));
    let s = (m - 1.0) / (m + 1.0);
    let z = s * s;
    let mut p = 2.0 / 21.0;
    for c in [
        2.0 / 19.0,
        2.0 / 17.0,
        2.0 / 15.0,
        2.0 / 13.0,
        2.0 / 11.0,
        2.0 / 9.0,
        2.0 / 7.0,
        2.0 / 5.0,
        2.0 / 3.0,
    ] {
        p = f64::mul_add(p, z, c);
    }
    let low = exponent.mul_add(1.908_214_929_270_587_7e-10, z * s * p);
    exponent.mul_add(6.931_471_803_691_238e-1, 2.0f64.mul_add(s, low))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_as_near_as_they_say() {
        for step in 1..200_000u32 {
            let u = step as f32 / 200_000.0;
            let exact = f64::from(u).ln();
            assert!((f64::from(ln_f32(u)) - exact).abs() <= 2.5e-7 * exact.abs().max(0.1), "ln {u}");
            let (s, c) = sin_cos_turns_f32(u);
            let (es, ec) = (f64::from(u) * std::f64::consts::TAU).sin_cos();
            assert!((f64::from(s) - es).abs() < 1.5e-7 && (f64::from(c) - ec).abs() < 1.5e-7, "turns {u}");
            let x = (f64::from(step) - 100_000.0) * 0.007;
            let exact = libm::exp(x);
            assert!((exp_f64(x) - exact).abs() <= 5e-16 * exact, "exp {x}: {} {exact}", exp_f64(x));
            let weight = exp_weight(-x.abs());
            let exact = libm::exp(-x.abs());
            assert!((weight - exact).abs() <= 1e-11 * exact, "weight {x}: {weight} {exact}");
            for y in [f64::from(u), libm::exp(x)] {
                let exact = libm::log(y);
                assert!((ln_f64(y) - exact).abs() <= 4e-16 * exact.abs().max(0.25), "ln {y}: {}", ln_f64(y));
            }
        }
        for tiny in [2.0f32.powi(-32), f32::MIN_POSITIVE] {
            assert!((f64::from(ln_f32(tiny)) - f64::from(tiny).ln()).abs() < 1e-5);
        }
        assert_eq!(ln_f32(1.0), 0.0);
        assert_eq!(exp_f64(0.0), 1.0);
        assert_eq!((exp_weight(0.0), ln_f64(1.0)), (1.0, 0.0));
        assert!((ln_f64(f64::MIN_POSITIVE) - f64::MIN_POSITIVE.ln()).abs() < 1e-12);
        assert_eq!(sin_cos_turns_f32(0.0), (0.0, 1.0));
    }
}
