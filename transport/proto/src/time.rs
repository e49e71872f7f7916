//! Time as an argument: the machines of this crate never ask what time it is.

/// Nanoseconds of a monotonic clock with an arbitrary start, given by the driver. For timeouts only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MonoTime(pub u64);

impl MonoTime {
    /// This instant and `ns` nanoseconds; stops at the end of time instead of wrapping.
    #[must_use]
    pub const fn after(self, ns: u64) -> Self {
        Self(self.0.saturating_add(ns))
    }

    /// Nanoseconds since `earlier`, 0 if that is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Nanoseconds of a millisecond.
pub const MILLISECOND_NS: u64 = 1_000_000;
