//! The sessions behind a publisher: one, or in a cluster of several groups one for each that there is something for.

use tidegate_engine::Event;
use tidegate_proto::feed::{FeedClient, FeedClientOptions, FeedEvent, SplitFeed};
use tidegate_proto::{Close, Credential, Frame, GroupMap, MonoTime};

/// Which session: the only one, or a group's.
pub(super) type Lane = Option<u16>;

/// See the module.
pub(super) enum Sessions {
    /// No groups are known of.
    One(Box<FeedClient>),
    /// One for each group.
    Several(Box<SplitFeed>),
}

macro_rules! of_lane {
    ($self:ident, $lane:ident, $act:ident ( $($with:expr),* )) => {
        match ($self, $lane) {
            (Self::Several(split), Some(group)) => split.$act(group $(, $with)*),
            (Self::One(client), _) => client.$act($($with),*),
            // There is none of no group.
            (Self::Several(split), None) => split.$act(u16::MAX $(, $with)*),
        }
    };
}

macro_rules! of_all {
    ($self:ident . $act:ident ( $($with:expr),* )) => {
        match $self {
            Self::One(client) => client.$act($($with),*),
            Self::Several(split) => split.$act($($with),*),
        }
    };
}

impl Sessions {
    pub(super) fn one(options: FeedClientOptions) -> Self {
        Self::One(Box::new(FeedClient::new(options)))
    }

    pub(super) fn several(options: FeedClientOptions, map: GroupMap) -> Self {
        Self::Several(Box::new(SplitFeed::new(options, map)))
    }

    pub(super) fn define(&mut self, name: &str) -> Option<u32> {
        of_all!(self.define(name))
    }

    pub(super) fn offer(&mut self, events: &[Event]) -> usize {
        of_all!(self.offer(events))
    }

    pub(super) fn known(&self, events: &[Event]) -> usize {
        of_all!(self.known(events))
    }

    pub(super) fn finish(&mut self) {
        of_all!(self.finish());
    }

    pub(super) fn is_settled(&self) -> bool {
        of_all!(self.is_settled())
    }

    pub(super) fn is_up(&self) -> bool {
        of_all!(self.is_up())
    }

    pub(super) fn offered(&self) -> u64 {
        of_all!(self.offered())
    }

    pub(super) fn skipped(&self) -> u64 {
        of_all!(self.skipped())
    }

    pub(super) fn unacked(&self) -> usize {
        of_all!(self.unacked())
    }

    /// The last event that is acknowledged with all before it.
    pub(super) fn acked(&self) -> u64 {
        match self {
            Self::One(client) => client.acked(),
            Self::Several(split) => split.settled(),
        }
    }

    /// Sessions of groups with something to send since this was last asked.
    pub(super) fn take_touched(&mut self) -> Vec<Lane> {
        match self {
            Self::One(_) => Vec::new(),
            Self::Several(split) => split.take_touched().into_iter().map(Some).collect(),
        }
    }

    /// Where the leader of a session's group was when the groups were told.
    pub(super) fn leader(&self, lane: Lane) -> Option<std::net::SocketAddr> {
        let Self::Several(split) = self else { return None };
        split.map().leads().get(usize::from(lane?))?.address
    }

    /// A session, as far as there is one.
    pub(super) fn session(&self, lane: Lane) -> Option<&FeedClient> {
        match (self, lane) {
            (Self::One(client), _) => Some(client),
            (Self::Several(split), Some(group)) => split.session(group),
            (Self::Several(_), None) => None,
        }
    }

    pub(super) fn present(&mut self, lane: Lane, credential: Option<Credential<'_>>) {
        of_lane!(self, lane, present(credential));
    }

    pub(super) fn connected(&mut self, lane: Lane, now: MonoTime) {
        of_lane!(self, lane, connected(now));
    }

    pub(super) fn disconnected(&mut self, lane: Lane) {
        of_lane!(self, lane, disconnected());
    }

    pub(super) fn handle(
        &mut self,
        lane: Lane,
        now: MonoTime,
        offset: u64,
        frame: &Frame<'_>,
    ) -> Result<Option<FeedEvent>, Close> {
        of_lane!(self, lane, handle(now, offset, frame))
    }

    pub(super) fn transmit(
        &mut self,
        lane: Lane,
        now: MonoTime,
        bytes_max: usize,
        out: &mut Vec<u8>,
    ) -> Result<bool, Close> {
        of_lane!(self, lane, transmit(now, bytes_max, out))
    }

    pub(super) fn transmit_datagram(
        &mut self,
        lane: Lane,
        now: MonoTime,
        bytes_max: usize,
        out: &mut Vec<u8>,
    ) -> bool {
        of_lane!(self, lane, transmit_datagram(now, bytes_max, out))
    }
}
