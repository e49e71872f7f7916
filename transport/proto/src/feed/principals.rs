//! What principals have used of their quotas, over all their sources.

use super::server::{FeedServerOptions, Source};
use crate::access::Grant;
use crate::meter::Meter;
use crate::time::MonoTime;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// One principal with a quota.
#[derive(Default)]
struct Use {
    /// Sources connected now.
    connected: u64,
    events: Option<Meter>,
    /// Hashes of the names it ever defined; kept only under a quota, which bounds them.
    names: HashSet<u64>,
}

/// Everybody who ever published: no more than there are sources.
#[derive(Default)]
pub(super) struct Principals(HashMap<Arc<str>, Use>);

impl Principals {
    /// A source of this principal connected; its quotas are those of now.
    pub(super) fn came(&mut self, grant: &Grant, now: MonoTime) {
        let usage = self.0.entry(Arc::clone(grant.principal())).or_default();
        usage.connected += 1;
        if grant.quotas().symbols.is_none() {
            usage.names = HashSet::new(); // of an earlier start, which did not know whether there is a quota
        }
        usage.events = match (usage.events.take(), grant.quotas().events_per_second) {
            (_, None) => None,
            (None, Some(rate)) => Some(Meter::new(rate, now)),
            (Some(mut meter), Some(rate)) => {
                meter.set_rate(rate, now);
                Some(meter)
            }
        };
    }

    /// One of its sources is without a connection.
    pub(super) fn left(&mut self, principal: &str) {
        if let Some(usage) = self.0.get_mut(principal) {
            usage.connected = usage.connected.saturating_sub(1);
        }
    }

    /// Events of it were taken.
    pub(super) fn used(&mut self, principal: &str, events: u64, now: MonoTime) {
        if let Some(meter) = self.0.get_mut(principal).and_then(|usage| usage.events.as_mut()) {
            meter.spend(events, now);
        }
    }

    /// Up to where a source may send: the window, or its share of what its principal has left.
    pub(super) fn credit(&mut self, source: &Source, options: &FeedServerOptions, now: MonoTime) -> u64 {
        let mut events = options.credit_events;
        if let Some(usage) = self.0.get_mut(source.grant.principal())
            && let Some(meter) = &mut usage.events
        {
            // Shared, so that together they cannot overdraw it by much; at least one, or nobody would get anything.
            let left = meter.available(now);
            events = events.min((left / usage.connected.max(1)).max(left.min(1)));
        }
        source.last + events
    }

    /// A name that a principal defined before an earlier start of the server ended. Kept until it is known whether it has a quota.
    pub(super) fn named(&mut self, principal: &Arc<str>, hashes: impl Iterator<Item = u64>) {
        self.0.entry(Arc::clone(principal)).or_default().names.extend(hashes);
    }

    /// Names that count against quotas, by principal, both in order.
    pub(super) fn names(&self) -> Vec<(String, Vec<u64>)> {
        let used = self.0.iter().filter(|(_, usage)| !usage.names.is_empty());
        let mut all: Vec<(String, Vec<u64>)> = used
            .map(|(principal, usage)| (principal.to_string(), usage.names.iter().copied().collect()))
            .collect();
        all.iter_mut().for_each(|(_, names)| names.sort_unstable());
        all.sort_unstable();
        all
    }

    /// Whether a principal may have a key for this name.
    pub(super) fn may_name(&mut self, grant: &Grant, hash: u64) -> bool {
        let Some(most) = grant.quotas().symbols else { return true };
        let names = &mut self.0.entry(Arc::clone(grant.principal())).or_default().names;
        if names.contains(&hash) {
            return true;
        }
        names.len() < most as usize && names.insert(hash)
    }
}
