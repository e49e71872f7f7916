//! A small model of the next value: normalised least mean squares over the values before and the season.

use crate::AnomalyError;
use crate::state::Walk;

/// Values before that it looks at.
pub(super) const LAGS: usize = 5;
const INPUTS: usize = LAGS + 1;
/// Step of the weights (Widrow & Hoff 1960, normalised); small, so that an anomaly does not become the model.
const STEP: f64 = 0.01;
/// Inputs and errors are limited to so many deviations.
const INPUT_MAX: f64 = 6.0;
const ERROR_MAX: f64 = 3.0;
const VALUE_MAX: f64 = 20.0;

/// Weights of the inputs; the level and the deviation they are measured in belong to the caller.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Predictor {
    weights: [f64; INPUTS],
}

/// What was predicted, and what it was predicted from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Prediction {
    inputs: [f64; INPUTS],
    /// In deviations from the level.
    pub(super) score: f64,
}

impl Predictor {
    /// Predicts from inputs in deviations from the level: the latest value first, the season's last.
    pub(super) fn predict(&self, inputs: [f64; INPUTS]) -> Prediction {
        let inputs = inputs.map(|input| input.clamp(-INPUT_MAX, INPUT_MAX));
        let score = self.weights.iter().zip(&inputs).map(|(weight, input)| weight * input).sum();
        Prediction { inputs, score }
    }

    /// Learns from what came, in deviations from the level.
    pub(super) fn learn(&mut self, prediction: &Prediction, value: f64) {
        let error = (value.clamp(-VALUE_MAX, VALUE_MAX) - prediction.score).clamp(-ERROR_MAX, ERROR_MAX);
        let power = 1e-3 + prediction.inputs.iter().map(|input| input * input).sum::<f64>();
        for (weight, input) in self.weights.iter_mut().zip(&prediction.inputs) {
            *weight += STEP * error * input / power;
        }
    }

    pub(super) fn walk(&mut self, walk: &mut impl Walk) -> Result<(), AnomalyError> {
        walk.floats(&mut self.weights)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_learns_an_autoregression() {
        // x = 0.9 x' + noise, from a fixed congruential sequence.
        let (mut predictor, mut before, mut word) = (Predictor::default(), [0.0; LAGS], 1u64);
        let (mut model, mut naive) = (0.0, 0.0);
        for at in 0..20_000 {
            word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let noise = (word >> 40) as f64 / (1u64 << 23) as f64 - 1.0;
            let value = 0.9 * before[0] + noise;
            let inputs = [before[0], before[1], before[2], before[3], before[4], 0.0];
            let prediction = predictor.predict(inputs);
            if at > 10_000 {
                model += (value - prediction.score).powi(2);
                naive += value * value;
            }
            predictor.learn(&prediction, value);
            before.rotate_right(1);
            before[0] = value;
        }
        assert!(model < 0.3 * naive, "{model} {naive}");
    }
}
