//! The ways in to ingest, for connection tasks and whoever asks how it stands.

use super::{ANSWERS_MAX, BUFFER_FRAMES, Shared};
use super::{FeedAnswer, IngestGone, IngestStats, Input, Legacy, SlotAsk, SlotStatus};
use crate::clock::Clock;
use crate::groups::merged;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use tidegate_actors::runtime::{StageFactory, ThreadTimes};
use tidegate_proto::feed::ConnectionId;
use tidegate_proto::wire::FRAME_BYTES_MAX;
use tidegate_proto::{FrameBuffer, Grant};
use tokio::sync::{mpsc, oneshot, watch};

/// The way in, for connection tasks: to one group's feeds, or to those of all groups.
#[derive(Clone)]
pub struct IngestHandle {
    /// Of each group that is held here.
    pub(super) ways: Arc<[Way]>,
    /// By group, which of them that is.
    pub(super) of: Arc<[Option<u16>]>,
}

/// The way to the thread of one group.
#[derive(Clone)]
pub(super) struct Way {
    pub(super) inputs: flume::Sender<Input>,
    pub(super) spare: flume::Receiver<FrameBuffer>,
    pub(super) shared: Arc<Shared>,
    pub(super) clock: Clock,
}

impl Way {
    fn buffer(&self) -> FrameBuffer {
        self.spare.try_recv().unwrap_or_else(|_| FrameBuffer::new(BUFFER_FRAMES))
    }

    /// As it stood at most a quarter of a second ago; `logged` is of now.
    fn stats(&self) -> IngestStats {
        let mut stats = self.shared.stats().clone();
        stats.logged = self.shared.logged.load(Relaxed);
        stats
    }
}

/// One connection's way in. Dropping it is the connection's end.
pub struct Feed {
    connection: ConnectionId,
    way: Way,
    buffer: FrameBuffer,
}

impl IngestHandle {
    /// The ways of several groups as one, in their order; `held` says by number which groups these are.
    pub(crate) fn joined(parts: &[Self], held: &[bool]) -> Self {
        let mut next = 0..;
        let of = held.iter().map(|held| if *held { next.next() } else { None }).collect();
        Self { ways: parts.iter().flat_map(|part| part.ways.iter().cloned()).collect(), of }
    }

    /// How many groups there are.
    #[must_use]
    pub fn groups(&self) -> u16 {
        self.of.len() as u16
    }

    /// Whether feeds of a group may come here at all: other nodes have the rest.
    #[must_use]
    pub fn holds(&self, group: u16) -> bool {
        self.of.get(usize::from(group)).is_some_and(Option::is_some)
    }

    /// A connection came to the first group, or the only one. See [`IngestHandle::open_in`].
    ///
    /// # Errors
    /// [`IngestGone`] while shutting down.
    pub async fn open(
        &self,
        grant: Grant,
        buffer: FrameBuffer,
        peer: Option<Box<str>>,
    ) -> Result<(Feed, mpsc::Receiver<FeedAnswer>), IngestGone> {
        self.open_in(0, grant, buffer, peer).await
    }

    /// A connection came to a group, whose peer may do what `grant` says; `buffer` is what was read of it so far, to be handed on with
    /// [`Feed::filled`]. What is to be said to it comes out of the receiver.
    ///
    /// # Errors
    /// [`IngestGone`] while shutting down, and where there is no such group.
    pub async fn open_in(
        &self,
        group: u16,
        grant: Grant,
        buffer: FrameBuffer,
        peer: Option<Box<str>>,
    ) -> Result<(Feed, mpsc::Receiver<FeedAnswer>), IngestGone> {
        let of = self.of.get(usize::from(group)).copied().flatten();
        let way = of.and_then(|at| self.ways.get(usize::from(at))).ok_or(IngestGone)?;
        let (answers, receiver) = mpsc::channel(ANSWERS_MAX);
        let (reply, id) = oneshot::channel();
        way.inputs.send_async(Input::Open { grant, peer, answers, reply }).await.map_err(|_| IngestGone)?;
        let connection = id.await.map_err(|_| IngestGone)?;
        Ok((Feed { connection, way: way.clone(), buffer }, receiver))
    }

    /// A buffer for a connection that is not open yet.
    #[must_use]
    pub fn buffer(&self) -> FrameBuffer {
        self.ways.first().map_or_else(|| FrameBuffer::new(BUFFER_FRAMES), Way::buffer)
    }

    /// How ingest stands, at most a quarter of a second ago, over all groups; `logged` is of now. A source that feeds several is one.
    #[must_use]
    pub fn stats(&self) -> IngestStats {
        match &*self.ways {
            [only] => only.stats(),
            ways => merged(ways.iter().map(Way::stats)),
        }
    }

    /// Events in the log now, over all groups: what sources sent about keys, without words about losses and the time.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.ways.iter().map(|way| way.shared.events.load(Relaxed)).sum()
    }

    /// Has every shard run other stages from one place of the log on; returns the number of the BARRIER there.
    ///
    /// # Errors
    /// [`IngestGone`] while shutting down.
    pub(crate) async fn restage(&self, make: StageFactory, legacy: Legacy) -> Result<u64, IngestGone> {
        let (reply, barrier) = oneshot::channel();
        // Where there are several groups streams cannot change.
        let restage = Input::Restage { make, legacy, reply };
        let way = self.ways.first().ok_or(IngestGone)?;
        way.inputs.send_async(restage).await.map_err(|_| IngestGone)?;
        barrier.await.map_err(|_| IngestGone)
    }

    /// There are orders for a node of a cluster.
    pub fn replicated(&self) {
        for way in &*self.ways {
            // When the queue is full, ingest is awake anyway.
            let _ = way.inputs.try_send(Input::Replicated);
        }
    }

    /// Asks something about slots that change their group of this one. `false` when it has too much to do, and when it has ended.
    #[must_use]
    pub fn ask_slots(&self, ask: SlotAsk) -> bool {
        self.ways.first().is_some_and(|way| way.inputs.try_send(Input::Slot(ask)).is_ok())
    }

    /// How this group stands with slots that change theirs.
    #[must_use]
    pub fn slots(&self) -> Option<watch::Receiver<SlotStatus>> {
        self.ways.first().map(|way| way.shared.slots.subscribe())
    }

    /// What the threads do with their time, by group.
    pub(crate) fn times(&self) -> impl Iterator<Item = ThreadTimes> + '_ {
        self.ways.iter().map(|way| way.shared.times.times())
    }

    /// Where this group's journal says that it went on.
    pub(super) fn inputs_of_first(&self) -> flume::Sender<Input> {
        self.ways[0].inputs.clone()
    }
}

impl Feed {
    /// Where to read to; never empty.
    pub fn space(&mut self) -> &mut [u8] {
        self.buffer.space()
    }

    /// `count` bytes were read into the front of [`Feed::space`]: hands whole frames to the thread, and waits while it has
    /// enough to do.
    ///
    /// # Errors
    /// [`IngestGone`] while shutting down.
    pub async fn filled(&mut self, count: usize) -> Result<(), IngestGone> {
        self.buffer.filled(count);
        if !self.buffer.has_frame() {
            return Ok(());
        }
        let mut rest = self.way.buffer();
        self.buffer.split_rest(&mut rest);
        let buffer = std::mem::replace(&mut self.buffer, rest);
        // What waits for the thread from here on has arrived.
        let (connection, received) = (self.connection, self.way.clock.now());
        let input = Input::Frames { connection, received, buffer, datagrams: false };
        self.way.inputs.send_async(input).await.map_err(|_| IngestGone)
    }

    /// The way in for this connection's datagrams.
    #[must_use]
    pub fn datagrams(&self) -> Datagrams {
        Datagrams { connection: self.connection, way: self.way.clone(), buffer: self.way.buffer() }
    }

    /// The peer's stream ended: whether that was between two frames.
    ///
    /// # Errors
    /// What is wrong with the last bytes.
    pub fn finish(&self) -> Result<(), tidegate_proto::FrameError> {
        self.buffer.finish()
    }
}

/// One connection's way in for datagrams, each of them a whole frame. The connection ends with its [`Feed`].
pub struct Datagrams {
    connection: ConnectionId,
    way: Way,
    buffer: FrameBuffer,
}

impl Datagrams {
    /// Takes one; returns whether there is room for another before [`Datagrams::flush`].
    pub fn push(&mut self, datagram: &[u8]) -> bool {
        // What is not whole is found out by whoever reads the frames: nothing behind it counts.
        self.buffer.push(datagram);
        self.buffer.space().len() >= FRAME_BYTES_MAX
    }

    /// Hands what was taken to the thread, and waits while it has enough to do.
    ///
    /// # Errors
    /// [`IngestGone`] while shutting down.
    pub async fn flush(&mut self) -> Result<(), IngestGone> {
        let buffer = std::mem::replace(&mut self.buffer, self.way.buffer());
        let (connection, received) = (self.connection, self.way.clock.now());
        let input = Input::Frames { connection, received, buffer, datagrams: true };
        self.way.inputs.send_async(input).await.map_err(|_| IngestGone)
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        let closed = Input::Closed { connection: self.connection };
        // Never lost: a full queue is waited for by a thread of its own, which ends with the ingest thread at the latest.
        if let Err(flume::TrySendError::Full(closed)) = self.way.inputs.try_send(closed) {
            let inputs = self.way.inputs.clone();
            match tokio::runtime::Handle::try_current() {
                Ok(runtime) => drop(runtime.spawn(async move { inputs.send_async(closed).await })),
                Err(_) => drop(inputs.send(closed)),
            }
        }
    }
}
