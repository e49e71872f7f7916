//! Splits a log among shards: data events go to the shard that owns their slot, control records to all.

use crate::event::{Event, kind};
use crate::ring::Sender;
use crate::slot::{SLOT_COUNT, slot_of};

#[derive(Clone, Copy)]
struct Route {
    shard: u32,
    local: u32,
}

const UNROUTED: Route = Route { shard: u32::MAX, local: u32::MAX };

/// Where each slot lives. Any map gives the same outputs; a good one spreads the load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    shard_of_slot: Vec<u32>,
    shards: u32,
}

/// A map of slots that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlacementError {
    /// Not every slot has a place.
    #[error("a placement of {found} slots, expected {SLOT_COUNT}")]
    Slots {
        /// Slots given.
        found: usize,
    },
    /// A slot is given to a shard that is not there.
    #[error("slot {slot} is placed on shard {shard}, and there are {shards}")]
    Shard {
        /// The slot.
        slot: u16,
        /// The shard.
        shard: u32,
        /// How many there are.
        shards: u32,
    },
}

impl Placement {
    /// Each slot where this map says.
    ///
    /// # Errors
    /// [`PlacementError`] unless each slot has a place on one of the shards.
    pub fn new(shard_of_slot: Vec<u32>, shards: u32) -> Result<Self, PlacementError> {
        if shard_of_slot.len() != SLOT_COUNT {
            return Err(PlacementError::Slots { found: shard_of_slot.len() });
        }
        match (0..).zip(&shard_of_slot).find(|(_, shard)| **shard >= shards) {
            Some((slot, &shard)) => Err(PlacementError::Shard { slot, shard, shards }),
            None => Ok(Self { shard_of_slot, shards }),
        }
    }

    /// The shard of a slot.
    #[must_use]
    pub fn shard_of(&self, slot: u16) -> u32 {
        self.shard_of_slot[usize::from(slot) % SLOT_COUNT]
    }

    /// Slots dealt out in turn, so that neighbours in the hash space do not share a shard by accident of count.
    ///
    /// # Panics
    /// For zero shards.
    #[must_use]
    pub fn round_robin(shards: u32) -> Self {
        assert!(shards > 0, "a pipeline has at least one shard");
        Self { shard_of_slot: (0..SLOT_COUNT as u32).map(|slot| slot % shards).collect(), shards }
    }

    /// Number of shards.
    #[must_use]
    pub fn shards(&self) -> u32 {
        self.shards
    }
}

/// Writes the number of data records behind the last staged MARK into it, unless another control record came between.
fn note_run(staged: &mut [Event]) {
    let Some(last) = staged.iter().rposition(Event::is_control) else { return };
    if staged[last].kind == kind::MARK {
        staged[last].key = (staged.len() - 1 - last) as u32;
    }
}

/// One reader's side of the rings to every shard.
pub struct Router {
    placement: Placement,
    routes: Vec<Route>,
    local_count: Vec<u32>,
    staging: Vec<Vec<Event>>,
    outlets: Vec<Sender<Event>>,
    stalls: u64,
    /// Whether keys are called by shards what the log calls them: with one shard, until a slot leaves.
    alike: bool,
}

impl Router {
    /// A router over one ring per shard.
    ///
    /// # Panics
    /// When the number of rings differs from the number of shards.
    #[must_use]
    pub fn new(placement: Placement, outlets: Vec<Sender<Event>>) -> Self {
        assert_eq!(placement.shards() as usize, outlets.len(), "one ring per shard");
        Self {
            routes: Vec::new(),
            local_count: vec![0; outlets.len()],
            staging: outlets.iter().map(|_| Vec::with_capacity(4 * crate::sequencer::FRAME_EVENTS)).collect(),
            alike: outlets.len() == 1,
            placement,
            outlets,
            stalls: 0,
        }
    }

    /// Introduces the next key of the log: its name's hash decides slot and shard, and the shard is told with a DEFINE.
    /// Keys must be defined in order, before their first event.
    pub fn define(&mut self, name: u64, source: u16) {
        let (slot, Route { shard, local }) = self.place(name);
        self.staging[shard as usize].push(Event::control(
            kind::DEFINE,
            0,
            local,
            source,
            [name, u64::from(slot)],
        ));
    }

    /// As [`Router::define`], of a key that the shards know already: they were restored from a snapshot that has it.
    pub fn known(&mut self, name: u64) {
        self.place(name);
    }

    fn place(&mut self, name: u64) -> (u16, Route) {
        let slot = slot_of(name);
        let shard = self.placement.shard_of_slot[usize::from(slot)];
        let local = &mut self.local_count[shard as usize];
        let route = Route { shard, local: *local };
        self.routes.push(route);
        *local += 1;
        (slot, route)
    }

    /// The shard of a slot.
    #[must_use]
    pub fn shard_of(&self, slot: u16) -> u32 {
        self.placement.shard_of(slot)
    }

    /// These keys of the log leave their shards, whose other keys are numbered anew ([`crate::Shard::take_slot`]). What comes of them from now
    /// on is nobody's.
    pub fn leave(&mut self, keys: &[u32]) {
        self.alike = false;
        let mut gone = vec![Vec::new(); self.local_count.len()];
        for key in keys {
            let Some(route) = self.routes.get_mut(*key as usize) else { continue };
            if let Some(gone) = gone.get_mut(route.shard as usize) {
                gone.push(route.local);
            }
            *route = UNROUTED;
        }
        for (gone, count) in gone.iter_mut().zip(&mut self.local_count) {
            gone.sort_unstable();
            *count -= gone.len() as u32;
        }
        for route in &mut self.routes {
            if let Some(gone) = gone.get(route.shard as usize) {
                route.local -= gone.partition_point(|local| *local < route.local) as u32;
            }
        }
    }

    /// A key comes to the shard of its name's slot, behind the keys there, and the shard knows it already ([`crate::Shard::join_slot`]): one that
    /// left, or the next one of the log.
    ///
    /// # Panics
    /// For a key behind the next one.
    pub fn arrive(&mut self, key: u32, name: u64) {
        self.alike = false;
        let slot = slot_of(name);
        self.settle(key, self.placement.shard_of(slot));
    }

    /// As [`Router::arrive`], to a shard of the caller's choice: a start takes over the order in which shards know their keys.
    ///
    /// # Panics
    /// For a key behind the next one, and a shard that there is not.
    pub fn settle(&mut self, key: u32, shard: u32) {
        let local = &mut self.local_count[shard as usize];
        let route = Route { shard, local: *local };
        *local += 1;
        match self.routes.get_mut(key as usize) {
            Some(known) => *known = route,
            None => {
                assert_eq!(key as usize, self.routes.len(), "keys come in the order of the log");
                self.routes.push(route);
            }
        }
        self.alike &= route.local == key;
    }

    /// The next key of the log is on no shard: its slot has left.
    pub fn absent(&mut self) {
        self.alike = false;
        self.routes.push(UNROUTED);
    }

    /// Whether a key of the log is on a shard.
    #[must_use]
    pub fn is_here(&self, key: u32) -> bool {
        self.routes.get(key as usize).is_some_and(|route| route.shard != u32::MAX)
    }

    /// Keys defined.
    #[must_use]
    pub fn defined(&self) -> usize {
        self.routes.len()
    }

    /// Sends a run of the log. `idle` is called while a ring is full (that is back-pressure). Returns `false` when a
    /// shard is gone.
    pub fn route(&mut self, log: &[Event], mut idle: impl FnMut()) -> bool {
        let mut open = true;
        // Frame by frame, as the sequencer hands them over; a longer run of the log is cut, which only costs counts.
        for events in log.chunks(crate::sequencer::FRAME_EVENTS + 2) {
            if self.alike {
                // One shard: local and log keys are the same numbers, so events go straight into the ring.
                open &= self.flush_one(0, &mut idle);
                let outlet = &mut self.outlets[0];
                open &= outlet.send_all(events, &mut idle);
                continue;
            }
            for event in events {
                if event.kind >= kind::CONTROL {
                    for staged in &mut self.staging {
                        note_run(staged);
                        // A frame's head counts anew for each shard; the count is known at the next control record.
                        let key = if event.kind == kind::MARK { 0 } else { event.key };
                        staged.push(Event { key, ..*event });
                    }
                    continue;
                }
                // An undefined key is our own bug upstream; it goes to shard 0, which counts it.
                let route = self.routes.get(event.key as usize).copied().unwrap_or(UNROUTED);
                let shard = if route.shard == u32::MAX { 0 } else { route.shard as usize };
                self.staging[shard].push(Event { key: route.local, ..*event });
            }
            for shard in 0..self.staging.len() {
                note_run(&mut self.staging[shard]);
                open &= self.flush_one(shard, &mut idle);
            }
        }
        open
    }

    fn flush_one(&mut self, shard: usize, idle: &mut impl FnMut()) -> bool {
        let staged = &mut self.staging[shard];
        if staged.is_empty() {
            return true;
        }
        let stalls = &mut self.stalls;
        let open = self.outlets[shard].send_all(staged, || {
            *stalls += 1;
            idle();
        });
        staged.clear();
        open
    }

    /// Times a ring was found full.
    #[must_use]
    pub fn stalls(&self) -> u64 {
        self.stalls
    }

    /// The rings' sending ends, for counters.
    #[must_use]
    pub fn outlets(&self) -> &[Sender<Event>] {
        &self.outlets
    }
}
