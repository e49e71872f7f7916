//! Which slots make which group of a cluster, and who leads each: what a node tells its clients where there are several groups.
//!
//! A cluster of one group never says so, and neither does a server that stands alone: its clients know of no groups.

use crate::close::{Close, CloseCode};
use crate::frame::Groups;
use std::net::SocketAddr;
use tidegate_engine::SLOT_COUNT;

/// Most groups: one for each slot.
pub const GROUPS_MAX: usize = SLOT_COUNT;
/// Most nodes of which an address is told.
pub const LEADERS_MAX: usize = 512;

/// Who leads a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupLead {
    /// The node; nobody while no copy is at hand. At most 65,534.
    pub node: Option<u16>,
    /// Where its clients find it, as far as that is known. Not without a node.
    pub address: Option<SocketAddr>,
    /// Counts changes of leadership.
    pub epoch: u32,
    /// Whether the node that says so holds a copy: it serves the group's results, leading or not.
    pub held: bool,
}

/// Groups that cannot be: what is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GroupMapError {
    /// Too many or none.
    #[error("{0} groups, allowed are 1 to {GROUPS_MAX}")]
    Count(usize),
    /// Runs of slots that do not begin at slot 0 and go up from there.
    #[error(
        "run {at} of the slots begins at {first}: the first begins at 0, each further one behind the one before, the last before {SLOT_COUNT}"
    )]
    Run {
        /// Which.
        at: usize,
        /// The slot where it begins.
        first: u16,
    },
    /// Slots of a group that there is not.
    #[error("slots from {first} on are of group {group}, of {groups}")]
    Group {
        /// Where they begin.
        first: u16,
        /// Whose they are said to be.
        group: u16,
        /// How many groups there are.
        groups: usize,
    },
    /// A node with the number that says that nobody leads.
    #[error("node 65535 leads group {0}, allowed are nodes 0 to 65534")]
    Node(usize),
    /// More leaders than have a place.
    #[error("{0} nodes lead, allowed are {LEADERS_MAX}")]
    Leaders(usize),
}

/// The groups of a cluster, as one of its nodes knows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMap {
    revision: u64,
    runs: Vec<(u16, u16)>,
    leads: Vec<GroupLead>,
    /// Places of leaders, by node.
    places: Vec<(u16, SocketAddr)>,
}

impl GroupMap {
    /// Groups of which each owns the slots from where a run of it begins to the next run: `(first slot, group)`. `revision` counts changes
    /// of the cluster's metadata.
    ///
    /// # Errors
    /// [`GroupMapError`] for the first thing that cannot be.
    pub fn new(revision: u64, runs: Vec<(u16, u16)>, leads: Vec<GroupLead>) -> Result<Self, GroupMapError> {
        if !(1..=GROUPS_MAX).contains(&leads.len()) {
            return Err(GroupMapError::Count(leads.len()));
        }
        if runs.is_empty() {
            return Err(GroupMapError::Run { at: 0, first: u16::MAX });
        }
        for (at, &(first, group)) in runs.iter().enumerate() {
            let before = at.checked_sub(1).map(|at| runs[at].0);
            if before.map_or(first != 0, |before| first <= before) || usize::from(first) >= SLOT_COUNT {
                return Err(GroupMapError::Run { at, first });
            }
            if usize::from(group) >= leads.len() {
                return Err(GroupMapError::Group { first, group, groups: leads.len() });
            }
        }
        if let Some(group) = leads.iter().position(|lead| lead.node == Some(u16::MAX)) {
            return Err(GroupMapError::Node(group));
        }
        let known = leads.iter().filter_map(|lead| Some((lead.node?, lead.address?)));
        let mut places: Vec<(u16, SocketAddr)> = known.collect();
        places.sort_unstable();
        places.dedup_by_key(|place| place.0);
        if places.len() > LEADERS_MAX {
            return Err(GroupMapError::Leaders(places.len()));
        }
        Ok(Self { revision, runs, leads, places })
    }

    /// What a frame says.
    ///
    /// # Errors
    /// As [`GroupMap::new`].
    pub fn of(frame: &Groups<'_>) -> Result<Self, GroupMapError> {
        let lead = |(node, held, epoch): (Option<u16>, bool, u32)| {
            let address = frame.places().find(|(at, _)| Some(*at) == node).map(|(_, address)| address);
            GroupLead { node, address, epoch, held }
        };
        Self::new(frame.revision, frame.runs().collect(), frame.leads().map(lead).collect())
    }

    /// Counts changes of the cluster's metadata.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// How many groups there are; one at least.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "there is one at least")]
    pub fn len(&self) -> usize {
        self.leads.len()
    }

    /// The group of a slot.
    #[must_use]
    pub fn group_of(&self, slot: u16) -> u16 {
        let at = self.runs.partition_point(|(first, _)| *first <= slot);
        self.runs[at.saturating_sub(1)].1
    }

    /// A slot is another group's from here on; of one that there is not nothing changes.
    pub fn give(&mut self, slot: u16, to: u16) {
        if usize::from(to) >= self.leads.len() || usize::from(slot) >= SLOT_COUNT {
            return;
        }
        let behind = slot + 1;
        let next = (usize::from(behind) < SLOT_COUNT).then(|| (behind, self.group_of(behind)));
        self.runs.retain(|(first, _)| *first != slot && *first != behind);
        self.runs.extend([(slot, to)].into_iter().chain(next));
        self.runs.sort_unstable();
        self.runs.dedup_by_key(|(_, group)| *group);
    }

    /// Who leads each, by group.
    #[must_use]
    pub fn leads(&self) -> &[GroupLead] {
        &self.leads
    }

    /// Where runs of slots of one group begin, and of which.
    pub(crate) fn runs(&self) -> &[(u16, u16)] {
        &self.runs
    }

    /// Leaders and where they are.
    pub(crate) fn places(&self) -> &[(u16, SocketAddr)] {
        &self.places
    }
}

/// A client did not say which group its session is of, or named one that there is not.
#[must_use]
pub fn which_group(named: Option<u16>, groups: usize) -> Close {
    let reason = match named {
        None => format!("this cluster has {groups} groups: a feed names the one that a session is of"),
        Some(group) => format!("there is no group {group}, this cluster has {groups}"),
    };
    Close::new(CloseCode::GROUP, reason)
}

/// A client speaks a version of the protocol that knows of no groups, and there are several.
#[must_use]
pub fn too_old(version_min: u8, version_max: u8, groups: usize) -> Close {
    let needed = crate::wire::PROTOCOL_GROUPS;
    let reason = format!(
        "this cluster has {groups} groups, which need version {needed} of the protocol; {version_min} to {version_max} were offered"
    );
    Close::new(CloseCode::VERSION, reason)
}

/// A name was given to a session of a group that does not own the name's slot.
#[must_use]
pub fn wrong_group(name: &str, owner: u16, session: u16) -> Close {
    let reason = format!("`{name}` belongs to group {owner}, this session is of group {session}");
    Close::new(CloseCode::GROUP, reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Frame, FrameWriter};
    use crate::wire::FrameBuffer;
    use proptest::prelude::*;

    fn at(node: u16) -> SocketAddr {
        match node % 2 {
            0 => ([10, 0, (node >> 8) as u8, node as u8], 7_443).into(),
            _ => (std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, node), 7_444).into(),
        }
    }

    fn there_and_back(map: &GroupMap) -> GroupMap {
        let mut out = Vec::new();
        FrameWriter::new(&mut out).groups(map);
        let mut buffer = FrameBuffer::new(1);
        assert_eq!(buffer.push(&out), out.len());
        let (offset, head, body) = buffer.next_frame().unwrap().unwrap();
        let Frame::Groups(groups) = Frame::read(offset, &head, body).unwrap() else {
            panic!("another frame")
        };
        GroupMap::of(&groups).unwrap()
    }

    proptest! {
        #[test]
        fn a_map_is_told_as_it_is(
            revision: u64,
            groups in 1usize..40,
            firsts in proptest::collection::btree_set(1u16..4_096, 0..60),
            leads in proptest::collection::vec((proptest::option::of(1u16..20), any::<u32>(), any::<bool>()), 40),
            owners in proptest::collection::vec(0u16..40, 61),
        ) {
            let lead = |&(node, epoch, held): &(Option<u16>, u32, bool)| {
                GroupLead { node, address: node.map(at), epoch, held }
            };
            let leads: Vec<GroupLead> = leads[..groups].iter().map(lead).collect();
            let owner = |at: usize| owners[at] % groups as u16;
            let runs: Vec<(u16, u16)> =
                std::iter::once(0).chain(firsts).enumerate().map(|(at, first)| (first, owner(at))).collect();
            let map = GroupMap::new(revision, runs.clone(), leads).unwrap();
            let mut of = 0;
            for slot in 0..SLOT_COUNT as u16 {
                of = runs.iter().find(|(first, _)| *first == slot).map_or(of, |run| run.1);
                prop_assert_eq!(map.group_of(slot), of);
            }
            prop_assert_eq!(there_and_back(&map), map);
        }
    }

    #[test]
    fn the_largest_map_fits_into_a_frame() {
        let lead = |group: u16| GroupLead {
            node: Some(group % LEADERS_MAX as u16),
            address: Some(at(group % LEADERS_MAX as u16)),
            epoch: u32::MAX,
            held: true,
        };
        let runs = (0..GROUPS_MAX as u16).map(|slot| (slot, slot)).collect();
        let map = GroupMap::new(u64::MAX, runs, (0..GROUPS_MAX as u16).map(lead).collect()).unwrap();
        assert_eq!(there_and_back(&map), map);
    }

    #[test]
    fn what_cannot_be_is_named() {
        let new = |runs: &[(u16, u16)], groups: usize| {
            GroupMap::new(1, runs.to_vec(), vec![GroupLead::default(); groups]).map(drop)
        };
        assert_eq!(new(&[(0, 0)], 0), Err(GroupMapError::Count(0)));
        assert_eq!(new(&[(0, 0)], GROUPS_MAX + 1), Err(GroupMapError::Count(GROUPS_MAX + 1)));
        assert_eq!(new(&[(1, 0)], 1), Err(GroupMapError::Run { at: 0, first: 1 }));
        assert_eq!(new(&[(0, 0), (9, 0), (9, 0)], 1), Err(GroupMapError::Run { at: 2, first: 9 }));
        assert_eq!(new(&[(0, 0), (4_096, 0)], 1), Err(GroupMapError::Run { at: 1, first: 4_096 }));
        assert_eq!(new(&[(0, 2)], 2), Err(GroupMapError::Group { first: 0, group: 2, groups: 2 }));
        assert!(new(&[], 1).is_err());
        let strange = GroupLead { node: Some(u16::MAX), ..GroupLead::default() };
        assert_eq!(GroupMap::new(1, vec![(0, 0)], vec![strange]).map(drop), Err(GroupMapError::Node(0)));
        let lead = |node| GroupLead { node: Some(node), address: Some(at(node)), ..GroupLead::default() };
        let leads = (0..=LEADERS_MAX as u16).map(lead).collect();
        assert_eq!(
            GroupMap::new(1, vec![(0, 0)], leads).map(drop),
            Err(GroupMapError::Leaders(LEADERS_MAX + 1))
        );
    }

    #[test]
    fn clients_are_told_what_they_lack() {
        assert_eq!(
            which_group(None, 4).to_string(),
            "group: this cluster has 4 groups: a feed names the one that a session is of"
        );
        assert_eq!(which_group(Some(9), 4).reason, "there is no group 9, this cluster has 4");
        assert_eq!(
            too_old(1, 3, 4).to_string(),
            "version: this cluster has 4 groups, which need version 4 of the protocol; 1 to 3 were offered"
        );
        let wrong = wrong_group("ESZ6", 2, 0);
        assert_eq!(wrong.reason, "`ESZ6` belongs to group 2, this session is of group 0");
        assert!(!wrong.code.may_retry());
    }
}
