//! Logarithms and small matrices. Everything transcendental goes through here.

pub(crate) use libm::{exp, lgamma as ln_gamma, log as ln};

pub(crate) const LN_TWO_PI: f64 = 1.837_877_066_409_345_3;

/// Cholesky factor of a symmetric positive definite `size` by `size` matrix, row-major; false when it is not one.
pub(crate) fn cholesky(matrix: &[f64], size: usize, factor: &mut [f64]) -> bool {
    factor[..size * size].fill(0.0);
    for row in 0..size {
        for column in 0..=row {
            let mut sum = matrix[row * size + column];
            for k in 0..column {
                sum -= factor[row * size + k] * factor[column * size + k];
            }
            if row == column {
                // Relative to the entry it came from: what is left after cancellation is noise, not variance.
                if !(sum > 1e-12 * matrix[row * size + row].abs()) {
                    return false;
                }
                factor[row * size + row] = sum.sqrt();
            } else {
                factor[row * size + column] = sum / factor[column * size + column];
            }
        }
    }
    true
}

/// Solves `a x = b` for symmetric positive definite `a` of `size`; `b` becomes `x`. False when `a` is singular.
pub(crate) fn solve(a: &[f64], size: usize, b: &mut [f64], factor: &mut [f64]) -> bool {
    if !cholesky(a, size, factor) {
        return false;
    }
    for row in 0..size {
        for k in 0..row {
            b[row] -= factor[row * size + k] * b[k];
        }
        b[row] /= factor[row * size + row];
    }
    for row in (0..size).rev() {
        for k in row + 1..size {
            b[row] -= factor[k * size + row] * b[k];
        }
        b[row] /= factor[row * size + row];
    }
    true
}

/// Makes `weights` add up to one and returns what they added up to; an all-zero row becomes uniform.
pub(crate) fn normalise(weights: &mut [f64]) -> f64 {
    let sum: f64 = weights.iter().sum();
    let share = 1.0 / weights.len() as f64;
    for weight in weights.iter_mut() {
        *weight = if sum > 0.0 { *weight / sum } else { share };
    }
    sum
}

/// The probabilities that a chain with these transitions (`from` by `to`) forgets its start into.
pub(crate) fn stationary(transition: &[f64], states: usize) -> Vec<f64> {
    // Damped powers reach it for every chain with one recurrent class, periodic ones included.
    let mut now = vec![1.0 / states as f64; states];
    let mut next = vec![0.0; states];
    for _ in 0..20_000 {
        for to in 0..states {
            let arriving: f64 = (0..states).map(|from| now[from] * transition[from * states + to]).sum();
            next[to] = 0.5 * (now[to] + arriving);
        }
        let moved: f64 = now.iter().zip(&next).map(|(a, b)| (a - b).abs()).sum();
        std::mem::swap(&mut now, &mut next);
        if moved < 1e-16 {
            break;
        }
    }
    normalise(&mut now);
    now
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systems_are_solved_and_singular_ones_refused() {
        let a = [4.0, 2.0, 0.4, 2.0, 3.0, 0.5, 0.4, 0.5, 2.0];
        let x = [1.0, -2.0, 3.0];
        let mut b: Vec<f64> = (0..3).map(|row| (0..3).map(|k| a[row * 3 + k] * x[k]).sum()).collect();
        assert!(solve(&a, 3, &mut b, &mut [0.0; 9]));
        for (found, wanted) in b.iter().zip(x) {
            assert!((found - wanted).abs() < 1e-12, "{b:?}");
        }
        assert!(!cholesky(&[1.0, 1.0, 1.0, 1.0], 2, &mut [0.0; 4]));
        assert!(!cholesky(&[1.0, 2.0, 2.0, 1.0], 2, &mut [0.0; 4]));
        assert!(!cholesky(&[f64::NAN], 1, &mut [0.0]));
    }

    #[test]
    fn stationary_probabilities_stay() {
        let transition = [0.9, 0.1, 0.3, 0.7];
        let found = stationary(&transition, 2);
        assert!((found[0] - 0.75).abs() < 1e-12, "{found:?}");
        // A chain that only alternates has no limit, but it has this.
        assert!((stationary(&[0.0, 1.0, 1.0, 0.0], 2)[0] - 0.5).abs() < 1e-12);
    }
}
