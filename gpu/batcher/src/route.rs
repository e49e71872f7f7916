//! Where the next batch is computed: learnt from what batches took so far.

use crate::Routing;
use std::time::Duration;

/// What a batch weighs against the one before it.
const KEEP: f64 = 0.9;
/// The other side must be expected to take less than this share before work moves there.
const MOVE_BELOW: f64 = 0.8;
/// One batch in so many goes to the other side, to see.
const PROBE: u64 = 100;
/// Batches on the device before what they took is believed: the first pays for what is made once.
const BELIEVED: u64 = 3;
/// Windows worth a batch while nothing better is known: what handing a batch over costs, beside what a window does.
pub(crate) const WORTHWHILE: usize = 64;

/// Where a batch is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Cpu,
    Device,
}

/// What batches of a class took.
#[derive(Debug, Clone)]
pub(crate) struct Route {
    routing: Routing,
    /// Side that work is on.
    side: Place,
    batches: u64,
    /// Weighted sums of units and seconds.
    cpu: (f64, f64),
    device: Line,
}

/// Seconds by units, a line through weighted points.
#[derive(Debug, Clone, Copy, Default)]
struct Line {
    points: u64,
    weight: f64,
    x: f64,
    y: f64,
    xx: f64,
    xy: f64,
}

impl Line {
    fn add(&mut self, x: f64, y: f64) {
        self.points += 1;
        let more = [1.0, x, y, x * x, x * y];
        let sums = [&mut self.weight, &mut self.x, &mut self.y, &mut self.xx, &mut self.xy];
        for (sum, more) in sums.into_iter().zip(more) {
            *sum = KEEP * *sum + more;
        }
    }

    /// What a batch takes before its first unit, and each unit then; neither below 0.
    fn fit(&self) -> Option<(f64, f64)> {
        if self.points == 0 {
            return None;
        }
        let (x, y) = (self.x / self.weight, self.y / self.weight);
        let spread = self.xx / self.weight - x * x;
        let slope = if spread > 1e-9 * x * x { (self.xy / self.weight - x * y) / spread } else { 0.0 };
        // A line through the origin where it would begin below it.
        let slope = slope.clamp(0.0, y / x);
        Some((y - slope * x, slope))
    }
}

impl Route {
    pub(crate) fn new(routing: Routing) -> Self {
        Self { routing, side: Place::Cpu, batches: 0, cpu: (0.0, 0.0), device: Line::default() }
    }

    /// Where a batch of so many units goes. `device` says whether there is one that can take it.
    pub(crate) fn choose(&mut self, units: usize, device: bool) -> Place {
        self.batches += 1;
        if !device || units == 0 {
            return Place::Cpu;
        }
        if self.routing == Routing::Device {
            return Place::Device;
        }
        let (Some(cpu), Some(on_device)) = (self.on_cpu(units), self.on_device(units)) else {
            // Nothing is known of one of them; both are looked at.
            return if self.cpu.0 == 0.0 { Place::Cpu } else { Place::Device };
        };
        if self.device.points < BELIEVED {
            return Place::Device;
        }
        let (own, other) = match self.side {
            Place::Cpu => (cpu, on_device),
            Place::Device => (on_device, cpu),
        };
        if other < MOVE_BELOW * own {
            self.side = self.other();
        }
        if self.batches.is_multiple_of(PROBE) { self.other() } else { self.side }
    }

    /// What a batch took.
    pub(crate) fn took(&mut self, place: Place, units: usize, took: Duration) {
        let (units, seconds) = (units as f64, took.as_secs_f64());
        if units == 0.0 {
            return;
        }
        match place {
            Place::Cpu => self.cpu = (KEEP * self.cpu.0 + units, KEEP * self.cpu.1 + seconds),
            Place::Device => self.device.add(units, seconds),
        }
    }

    /// What a batch on the device is expected to take, in seconds.
    pub(crate) fn on_device(&self, units: usize) -> Option<f64> {
        self.device.fit().map(|(first, each)| first + each * units as f64)
    }

    fn on_cpu(&self, units: usize) -> Option<f64> {
        (self.cpu.0 > 0.0).then(|| self.cpu.1 / self.cpu.0 * units as f64)
    }

    /// Fewest units worth a batch of their own: those from which the device takes less, while it is used.
    pub(crate) fn worthwhile(&self) -> usize {
        let (Place::Device, Some((first, each))) = (self.side, self.device.fit()) else { return WORTHWHILE };
        let cpu = if self.cpu.0 > 0.0 { self.cpu.1 / self.cpu.0 } else { f64::INFINITY };
        if cpu > each { ((first / (cpu - each)).ceil() as usize).clamp(1, 1 << 20) } else { 1 << 20 }
    }

    fn other(&self) -> Place {
        match self.side {
            Place::Cpu => Place::Device,
            Place::Device => Place::Cpu,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs batches of `units` on a machine where the CPU takes `cpu` ns a unit and the device `first + each` ns.
    fn run(route: &mut Route, units: usize, batches: usize, cpu: u64, first: u64, each: u64) -> usize {
        let mut on_device = 0;
        for _ in 0..batches {
            let place = route.choose(units, true);
            let took = match place {
                Place::Cpu => cpu * units as u64,
                Place::Device => first + each * units as u64,
            };
            on_device += usize::from(place == Place::Device);
            route.took(place, units, Duration::from_nanos(took));
        }
        on_device
    }

    #[test]
    fn work_goes_where_it_takes_less_and_one_in_a_hundred_looks_at_the_other_side() {
        let mut route = Route::new(Routing::Cheapest);
        // 10 units: 10 us against 21 us; 1,000 units: 1 ms against 120 us.
        let small = run(&mut route, 10, 1_000, 1_000, 20_000, 100);
        assert!((10..=13).contains(&small), "{small}");
        run(&mut route, 1_000, 100, 1_000, 20_000, 100);
        assert!(run(&mut route, 1_000, 1_000, 1_000, 20_000, 100) >= 985);
        // The device takes less from 23 units on, which batches of two sizes show.
        for _ in 0..20 {
            run(&mut route, 1_000, 1, 1_000, 20_000, 100);
            run(&mut route, 300, 1, 1_000, 20_000, 100);
        }
        assert!((20..27).contains(&route.worthwhile()), "{}", route.worthwhile());
        // It grew slow: work moves back.
        run(&mut route, 1_000, 100, 1_000, 5_000_000, 100);
        assert!(run(&mut route, 1_000, 1_000, 1_000, 5_000_000, 100) <= 15);
        assert_eq!(route.worthwhile(), WORTHWHILE);
    }

    #[test]
    fn a_small_gain_moves_nothing() {
        let mut route = Route::new(Routing::Cheapest);
        let found = run(&mut route, 100, 1_000, 1_000, 0, 850);
        assert!(found <= 13, "{found}");
        let found = run(&mut route, 100, 1_000, 1_000, 0, 700);
        assert!((400..=995).contains(&found), "{found}");
    }

    #[test]
    fn without_a_device_all_goes_to_the_cpu_and_where_it_is_wanted_all_to_the_device() {
        let mut route = Route::new(Routing::Cheapest);
        assert!((0..300).all(|_| route.choose(5, false) == Place::Cpu));
        let mut route = Route::new(Routing::Device);
        assert!((0..300).all(|_| route.choose(5, true) == Place::Device));
        assert_eq!(route.choose(0, true), Place::Cpu);
        assert_eq!(route.choose(5, false), Place::Cpu);
    }
}
