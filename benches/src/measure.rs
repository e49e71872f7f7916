//! Measurements: a name, a unit and every run, and contestants that take turns.
//!
//! On a shared machine only ratios within one sitting mean anything, so [`interleave`] runs A B C A B C … and not
//! A A B B C C: a slow minute then hits everybody.

use std::time::Instant;

/// One quantity, measured several times.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Measurement {
    /// What was measured, such as `hand_loop.a`.
    pub name: String,
    /// Unit of every run, such as `events/s`.
    pub unit: String,
    /// The runs, oldest first; warm-ups are not among them.
    pub runs: Vec<f64>,
}

impl Measurement {
    /// A measurement without runs yet.
    #[must_use]
    pub fn new(name: impl Into<String>, unit: impl Into<String>) -> Self {
        Self { name: name.into(), unit: unit.into(), runs: Vec::new() }
    }

    /// Middle run; the mean of the middle two of an even count; NaN without runs.
    #[must_use]
    pub fn median(&self) -> f64 {
        let mut sorted = self.runs.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        match sorted.len() {
            0 => f64::NAN,
            count if count % 2 == 1 => sorted[count / 2],
            count => (sorted[count / 2 - 1] + sorted[count / 2]) / 2.0,
        }
    }

    /// Smallest run; NaN without runs.
    #[must_use]
    pub fn min(&self) -> f64 {
        self.runs.iter().copied().fold(f64::NAN, f64::min)
    }

    /// Largest run; NaN without runs.
    #[must_use]
    pub fn max(&self) -> f64 {
        self.runs.iter().copied().fold(f64::NAN, f64::max)
    }

    /// One line of JSON: `name`, `value` (the median), `unit`, `runs`, `min`, `max`.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::json!({
            "name": self.name,
            "value": self.median(),
            "unit": self.unit,
            "runs": self.runs,
            "min": self.min(),
            "max": self.max(),
        })
        .to_string()
    }
}

/// Something that can be measured again and again.
pub struct Contestant<'a> {
    name: String,
    unit: String,
    run: Box<dyn FnMut() -> f64 + 'a>,
}

impl<'a> Contestant<'a> {
    /// A contestant whose `run` returns one value in `unit`.
    pub fn new(name: impl Into<String>, unit: impl Into<String>, run: impl FnMut() -> f64 + 'a) -> Self {
        Self { name: name.into(), unit: unit.into(), run: Box::new(run) }
    }

    /// A contestant measured in events a second of wall time: `work` deals with `events` events a call.
    pub fn rate<R>(name: impl Into<String>, events: usize, mut work: impl FnMut() -> R + 'a) -> Self {
        Self::new(name, "events/s", move || {
            let start = Instant::now();
            std::hint::black_box(work());
            events as f64 / start.elapsed().as_secs_f64()
        })
    }

    /// Like [`Contestant::rate`], by time on a core instead of wall time: on a shared machine the steadier figure for
    /// work that stays on the calling thread, and the wrong one for anything else.
    pub fn cpu_rate<R>(name: impl Into<String>, events: usize, mut work: impl FnMut() -> R + 'a) -> Self {
        Self::new(name, "events/cpu-s", move || {
            let start = thread_cpu_ns();
            std::hint::black_box(work());
            match (start, thread_cpu_ns()) {
                (Some(start), Some(end)) if end > start => events as f64 * 1e9 / (end - start) as f64,
                _ => f64::NAN,
            }
        })
    }
}

/// Nanoseconds the calling thread has been on a core, where the kernel tells (Linux).
#[must_use]
pub fn thread_cpu_ns() -> Option<u64> {
    // The kernel brings the figure up to date at its tick, every 4 ms, or when the thread is scheduled: now.
    std::thread::yield_now();
    let statistics = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    statistics.split_whitespace().next()?.parse().ok()
}

/// Runs the contestants in turn: `warmups` rounds that do not count, then `rounds` that do. The measurements come
/// back in the order of the contestants.
pub fn interleave(warmups: usize, rounds: usize, contestants: &mut [Contestant<'_>]) -> Vec<Measurement> {
    let mut measurements: Vec<Measurement> =
        contestants.iter().map(|c| Measurement::new(c.name.as_str(), c.unit.as_str())).collect();
    for round in 0..warmups + rounds {
        for (contestant, measurement) in contestants.iter_mut().zip(&mut measurements) {
            let value = (contestant.run)();
            if round >= warmups {
                measurement.runs.push(value);
            }
        }
    }
    measurements
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_min_and_max() {
        let of = |runs: &[f64]| Measurement { runs: runs.to_vec(), ..Measurement::new("m", "s") };
        assert_eq!(of(&[3.0, 1.0, 2.0]).median(), 2.0);
        assert_eq!(of(&[4.0, 1.0, 2.0, 3.0]).median(), 2.5);
        assert!(of(&[]).median().is_nan() && of(&[]).min().is_nan());
        assert_eq!((of(&[3.0, 1.0]).min(), of(&[3.0, 1.0]).max()), (1.0, 3.0));
    }

    #[test]
    fn json_has_the_fields_that_scripts_read() {
        let line = Measurement { runs: vec![1.0, 3.0], ..Measurement::new("a", "events/s") }.to_json();
        let json: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!((json["value"].as_f64(), json["max"].as_f64()), (Some(2.0), Some(3.0)));
        assert_eq!((json["name"].as_str(), json["unit"].as_str()), (Some("a"), Some("events/s")));
    }

    #[test]
    fn contestants_take_turns_and_warmups_do_not_count() {
        let order = std::cell::RefCell::new(Vec::new());
        let contestant = |name: &'static str| {
            let order = &order;
            Contestant::new(name, "s", move || {
                order.borrow_mut().push(name);
                order.borrow().len() as f64
            })
        };
        let measured = interleave(1, 2, &mut [contestant("a"), contestant("b")]);
        assert_eq!(*order.borrow(), ["a", "b", "a", "b", "a", "b"]);
        assert_eq!((&measured[0].runs, &measured[1].runs), (&vec![3.0, 5.0], &vec![4.0, 6.0]));
    }
}
