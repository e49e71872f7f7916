//! The monotonic clock that drivers hand to the state machines.

use std::time::Instant;
use tidegate_proto::MonoTime;

/// Nanoseconds since this clock was made. Copies agree with each other.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Default for Clock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock {
    /// Now. Wraps after 584 years.
    #[must_use]
    pub fn now(&self) -> MonoTime {
        MonoTime(self.0.elapsed().as_nanos() as u64)
    }

    /// The instant of a time that this clock gave, for timers of a runtime.
    #[must_use]
    pub fn instant(&self, time: MonoTime) -> Instant {
        self.0 + std::time::Duration::from_nanos(time.0)
    }
}
