//! What principals use right now of the quotas that hold over all their connections.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tidegate_proto::{Grant, Meter, MonoTime};

/// One principal, while it uses something or pays back.
#[derive(Default)]
struct Principal {
    subscriptions: AtomicU32,
    bytes: Mutex<Option<Meter>>,
}

impl Principal {
    fn with_meter<T>(&self, act: impl FnOnce(&mut Option<Meter>) -> T) -> T {
        act(&mut self.bytes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Everybody who is connected.
#[derive(Default)]
pub(crate) struct Usage(Mutex<HashMap<Arc<str>, Arc<Principal>>>);

/// How many may be kept before those are looked for that are gone.
const KEPT_MIN: usize = 256;

impl Usage {
    fn principal(&self, grant: &Grant, now: MonoTime) -> Arc<Principal> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= KEPT_MIN && all.len().is_power_of_two() {
            // Who left and owes nothing is as good as new.
            all.retain(|_, one| {
                let owes =
                    |meter: &mut Option<Meter>| meter.as_mut().is_some_and(|m| m.available(now) < m.rate());
                Arc::strong_count(one) > 1 || one.with_meter(owes)
            });
        }
        Arc::clone(all.entry(Arc::clone(grant.principal())).or_default())
    }

    /// A feed of this principal begins to send.
    pub(crate) fn pace(&self, grant: &Grant, now: MonoTime) -> Pace {
        let Some(rate) = grant.quotas().bytes_per_second else { return Pace(None) };
        let principal = self.principal(grant, now);
        principal.with_meter(|meter| match meter {
            Some(meter) => meter.set_rate(rate, now),
            None => *meter = Some(Meter::new(rate, now)),
        });
        Pace(Some(principal))
    }

    /// A place for one more subscription, until it is dropped; the limit when there is none.
    pub(crate) fn seat(&self, grant: &Grant, now: MonoTime) -> Result<Seat, u32> {
        let Some(most) = grant.quotas().subscriptions else { return Ok(Seat(None)) };
        let principal = self.principal(grant, now);
        let taken = principal
            .subscriptions
            .fetch_update(Relaxed, Relaxed, |taken| (taken < most).then_some(taken + 1));
        taken.map(|_| Seat(Some(principal))).map_err(|_| most)
    }
}

/// How fast one feed may be read.
pub(crate) struct Pace(Option<Arc<Principal>>);

/// Bytes read at least, so that reading goes on by more than crumbs.
const READ_MIN: usize = 4_096;

impl Pace {
    /// Bytes to read at most now.
    pub(crate) fn most(&self, now: MonoTime) -> usize {
        let Some(principal) = &self.0 else { return usize::MAX };
        let left =
            principal.with_meter(|meter| meter.as_mut().map_or(u64::MAX, |meter| meter.available(now)));
        usize::try_from(left).unwrap_or(usize::MAX).max(READ_MIN)
    }

    /// So many were read: how long to wait before more are.
    pub(crate) fn spent(&self, bytes: usize, now: MonoTime) -> Option<Duration> {
        let principal = self.0.as_ref()?;
        let debt = principal.with_meter(|meter| {
            let meter = meter.as_mut()?;
            meter.spend(bytes as u64, now);
            Some(meter.debt_ns(now))
        })?;
        (debt > 0).then(|| Duration::from_nanos(debt))
    }
}

/// A subscription's place among those of its principal.
pub(crate) struct Seat(Option<Arc<Principal>>);

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(principal) = &self.0 {
            principal.subscriptions.fetch_sub(1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_proto::Quotas;
    use tidegate_proto::access::Policy;

    fn grant(who: &str) -> Grant {
        let quotas = Quotas { bytes_per_second: Some(100_000), subscriptions: Some(2), ..Quotas::default() };
        Policy::default().grant(who, None, quotas)
    }

    #[test]
    fn connections_of_one_principal_share_and_others_do_not_notice() {
        let usage = Usage::default();
        let (one, two) = (usage.pace(&grant("a"), MonoTime(0)), usage.pace(&grant("a"), MonoTime(0)));
        let other = usage.pace(&grant("b"), MonoTime(0));
        assert_eq!(one.spent(60_000, MonoTime(0)), None);
        assert_eq!(two.most(MonoTime(0)), 40_000);
        assert_eq!(two.spent(90_000, MonoTime(0)), Some(Duration::from_millis(500)));
        assert_eq!((one.most(MonoTime(0)), other.most(MonoTime(0))), (READ_MIN, 100_000));
        // Leaving pays no debt.
        drop((one, two));
        assert_eq!(
            usage.pace(&grant("a"), MonoTime(0)).spent(1, MonoTime(0)),
            Some(Duration::from_micros(500_010))
        );
    }

    #[test]
    fn seats_come_back() {
        let usage = Usage::default();
        let first = usage.seat(&grant("a"), MonoTime(0)).map_err(drop).unwrap();
        let _second = usage.seat(&grant("a"), MonoTime(0)).map_err(drop).unwrap();
        assert_eq!(usage.seat(&grant("a"), MonoTime(0)).err(), Some(2));
        assert!(usage.seat(&grant("b"), MonoTime(0)).is_ok());
        drop(first);
        assert!(usage.seat(&grant("a"), MonoTime(0)).is_ok());
    }

    #[test]
    fn those_who_left_are_forgotten() {
        let usage = Usage::default();
        for at in 0..10_000u64 {
            // Everybody has paid when the next one comes.
            usage
                .pace(&grant(&format!("p{at}")), MonoTime(at * 1_000_000_000))
                .spent(90_000, MonoTime(at * 1_000_000_000));
        }
        assert!(usage.0.lock().unwrap().len() <= KEPT_MIN);
    }
}
