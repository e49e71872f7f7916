//! How well scores of events agree with labels: area under the ROC curve, and recall at a rate of false alarms.

use std::collections::BTreeMap;

/// What the events of a stream were.
#[derive(Default)]
pub(crate) struct Labels {
    /// By event; 0 is ordinary.
    kinds: Vec<u32>,
    names: BTreeMap<String, u32>,
}

/// Figures of one detector.
pub(crate) struct Found {
    /// Ties count half.
    pub(crate) roc_auc: f64,
    /// Share of attacks from the score on that has the rate of false alarms.
    pub(crate) recall: f64,
    /// The mean of the same over types of attack.
    pub(crate) recall_by_type: f64,
}

impl Labels {
    pub(crate) fn push(&mut self, label: &str) {
        let label = label.trim().trim_end_matches('.');
        let ordinary = ["", "-", "0", "0.0", "normal", "benign", "BENIGN"].contains(&label);
        let next = self.names.len() as u32 + 1;
        let kind = match self.names.get(label) {
            _ if ordinary => 0,
            Some(kind) => *kind,
            None => *self.names.entry(label.to_owned()).or_insert(next),
        };
        self.kinds.push(kind);
    }

    pub(crate) fn count(&self) -> usize {
        self.kinds.len()
    }

    pub(crate) fn attacks(&self) -> usize {
        self.kinds.iter().filter(|kind| **kind > 0).count()
    }

    pub(crate) fn types(&self) -> usize {
        self.names.len()
    }

    /// `None` where there are no attacks or nothing else. The threshold is the lowest score with at most `rate` of the ordinary events at
    /// it or above.
    pub(crate) fn judge(&self, scores: &[f64], rate: f64) -> Option<Found> {
        let attacks = self.attacks() as f64;
        let ordinary = self.kinds.len() as f64 - attacks;
        if attacks == 0.0 || ordinary == 0.0 || scores.len() != self.kinds.len() {
            return None;
        }
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
        let (mut hits, mut alarms, mut area, mut level) = (0.0, 0.0, 0.0, f64::INFINITY);
        for tied in order.chunk_by(|&a, &b| scores[a] == scores[b]) {
            let found = tied.iter().filter(|&&at| self.kinds[at] > 0).count() as f64;
            let wrong = tied.len() as f64 - found;
            area += wrong * (hits + found / 2.0);
            (hits, alarms) = (hits + found, alarms + wrong);
            if alarms <= rate * ordinary {
                level = scores[tied[0]];
            }
        }
        let mut by_type = vec![(0.0, 0.0); self.names.len() + 1];
        for (&kind, &score) in self.kinds.iter().zip(scores) {
            let (seen, told) = &mut by_type[kind as usize];
            (*seen, *told) = (*seen + 1.0, *told + f64::from(u8::from(score >= level)));
        }
        let types = &by_type[1..];
        Some(Found {
            roc_auc: area / (attacks * ordinary),
            recall: types.iter().map(|(_, told)| told).sum::<f64>() / attacks,
            recall_by_type: types.iter().map(|(seen, told)| told / seen).sum::<f64>() / types.len() as f64,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_and_recalls_are_those_worked_out_by_hand() {
        let mut labels = Labels::default();
        for label in ["-", "scan", "normal.", "flood", "scan", "0"] {
            labels.push(label);
        }
        assert_eq!((labels.count(), labels.attacks(), labels.types()), (6, 3, 2));
        // Of nine pairs seven are right and one is a tie.
        let scores = [1.0, 3.0, 2.0, 2.0, 1.5, 0.0];
        let found = labels.judge(&scores, 0.4).unwrap();
        assert!((found.roc_auc - (3.0 + 2.5 + 2.0) / 9.0).abs() < 1e-12, "{}", found.roc_auc);
        // One of three may be wrong: all from 1.5 up.
        assert_eq!((found.recall, found.recall_by_type), (1.0, 1.0));
        let found = labels.judge(&scores, 0.0).unwrap();
        assert_eq!((found.recall, found.recall_by_type), (1.0 / 3.0, 0.25));
        assert!(Labels::default().judge(&[], 0.1).is_none() && labels.judge(&[1.0], 0.1).is_none());
    }
}
