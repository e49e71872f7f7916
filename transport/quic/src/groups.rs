//! Feeds of a cluster with several groups: which group a feed's session is of, and what it is told of them.

use std::sync::{Arc, OnceLock};
use tidegate_proto::frame::Hello;
use tidegate_proto::groups::{too_old, which_group};
use tidegate_proto::wire::PROTOCOL_GROUPS;
use tidegate_proto::{Close, FrameWriter, GroupMap, Plane};

/// Where the groups are now, as far as that is known.
pub type GroupSource = Arc<dyn Fn() -> Option<GroupMap> + Send + Sync>;

/// What a server knows of its groups.
#[derive(Clone, Default)]
pub(crate) struct Groups {
    /// How many; a server that stands alone has one.
    pub(crate) count: u16,
    /// Those whose feeds other nodes take.
    pub(crate) elsewhere: Arc<[u16]>,
    /// Once the node runs.
    pub(crate) source: Arc<OnceLock<GroupSource>>,
}

impl Groups {
    /// Looks at a greeting: the group of a feed's session, 0 for subscribers. What is to be said first goes into `out`, also in front of the
    /// last words.
    pub(crate) fn of(&self, hello: &Hello<'_>, out: &mut Vec<u8>) -> Result<u16, Close> {
        if self.count <= 1 && self.elsewhere.is_empty() {
            return match hello.group {
                None | Some(0) => Ok(0),
                Some(_) => Err(which_group(hello.group, 1)),
            };
        }
        let feed = hello.plane == Plane::Feed;
        if hello.version_max < PROTOCOL_GROUPS {
            // Readers need not know: results are numbered by slot, and a slot is of one group.
            return if feed {
                Err(too_old(hello.version_min, hello.version_max, self.count.into()))
            } else {
                Ok(0)
            };
        }
        let known = self.source.get().and_then(|source| source());
        let Some(known) = known else {
            return if feed { Err(Close::not_leader(None, 0)) } else { Ok(0) };
        };
        FrameWriter::new(out).groups(&known);
        match hello.group {
            _ if !feed => Ok(0),
            Some(group) if self.elsewhere.contains(&group) => {
                let lead = known.leads().get(usize::from(group)).copied().unwrap_or_default();
                Err(Close::not_leader(lead.address, lead.epoch))
            }
            Some(group) if group < self.count => Ok(group),
            named => Err(which_group(named, self.count.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_proto::{AckMode, CloseCode, Frame, FrameBuffer, GroupLead};

    fn hello(plane: Plane, version_max: u8, group: Option<u16>) -> Hello<'static> {
        let ack_mode = AckMode::Leader;
        let (source_id, session, name, credential) = (1, 1, "feed", None);
        Hello { version_min: 1, version_max, plane, group, ack_mode, source_id, session, name, credential }
    }

    fn two() -> Groups {
        let source: GroupSource = Arc::new(|| {
            let leads = vec![GroupLead { node: Some(1), ..GroupLead::default() }, GroupLead::default()];
            GroupMap::new(9, vec![(0, 0), (2_048, 1)], leads).ok()
        });
        let groups = Groups { count: 2, ..Groups::default() };
        let _ = groups.source.set(source);
        groups
    }

    #[test]
    fn a_feed_names_its_group_and_is_told_of_them_first() {
        let groups = two();
        let asked = |hello: Hello<'_>| {
            let mut out = Vec::new();
            let group = groups.of(&hello, &mut out).map_err(|close| (close.code, close.reason));
            let mut buffer = FrameBuffer::new(1);
            buffer.push(&out);
            let told = buffer.next_frame().unwrap().map(|(offset, head, body)| {
                let Frame::Groups(told) = Frame::read(offset, &head, body).unwrap() else {
                    panic!("another frame")
                };
                GroupMap::of(&told).unwrap().len()
            });
            (group, told)
        };
        let feed = |group| hello(Plane::Feed, PROTOCOL_GROUPS, group);
        assert_eq!(asked(feed(Some(1))), (Ok(1), Some(2)));
        let (unnamed, told) = asked(feed(None));
        let (code, reason) = unnamed.unwrap_err();
        assert!(code == CloseCode::GROUP && told == Some(2) && reason.contains("2 groups"), "{reason}");
        assert_eq!(asked(feed(Some(2))).0.unwrap_err().1, "there is no group 2, this cluster has 2");
        let (old, told) = asked(hello(Plane::Feed, PROTOCOL_GROUPS - 1, None));
        assert_eq!((old.unwrap_err().0, told), (CloseCode::VERSION, None), "it would not know the frame");
        assert_eq!(asked(hello(Plane::Subscribe, 1, None)), (Ok(0), None));
        assert_eq!(asked(hello(Plane::Subscribe, PROTOCOL_GROUPS, None)), (Ok(0), Some(2)));
    }

    #[test]
    fn a_feed_of_a_group_that_is_elsewhere_is_led_there() {
        let source: GroupSource = Arc::new(|| {
            let address = Some(([10, 0, 0, 2], 7_443).into());
            let leads =
                vec![GroupLead { node: Some(2), address, epoch: 7, held: true }, GroupLead::default()];
            GroupMap::new(9, vec![(0, 0), (2_048, 1)], leads).ok()
        });
        let groups = Groups { count: 2, elsewhere: [0, 1].into(), ..Groups::default() };
        let _ = groups.source.set(source);
        let asked = |plane, group| groups.of(&hello(plane, PROTOCOL_GROUPS, group), &mut Vec::new());
        let led = Close::not_leader(Some(([10, 0, 0, 2], 7_443).into()), 7);
        assert_eq!(asked(Plane::Feed, Some(0)), Err(led));
        assert_eq!(asked(Plane::Feed, Some(1)), Err(Close::not_leader(None, 0)), "nobody leads it now");
        assert_eq!(asked(Plane::Subscribe, None), Ok(0), "readers read it here");
    }

    #[test]
    fn where_there_is_one_group_nothing_is_said_of_it() {
        let one = Groups { count: 1, ..Groups::default() };
        let mut out = Vec::new();
        for group in [None, Some(0)] {
            assert_eq!(one.of(&hello(Plane::Feed, PROTOCOL_GROUPS, group), &mut out), Ok(0));
        }
        let other = one.of(&hello(Plane::Feed, PROTOCOL_GROUPS, Some(1)), &mut out).unwrap_err();
        assert!(other.code == CloseCode::GROUP && out.is_empty(), "{other}");
        // Before the node knows where its groups are, whoever asks is to come again.
        let early = Groups { count: 2, ..Groups::default() };
        let close = early.of(&hello(Plane::Feed, PROTOCOL_GROUPS, Some(1)), &mut out).unwrap_err();
        assert!(close.code.may_retry() && out.is_empty(), "{close}");
        assert_eq!(early.of(&hello(Plane::Subscribe, PROTOCOL_GROUPS, None), &mut out), Ok(0));
    }
}
