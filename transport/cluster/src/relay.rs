//! Results of groups that a node does not hold: it reads them at a node that does, over the link that stands between the two, and gives them
//! to its own hub ([`tidegate_proto::relay`]). And the other side: a holder hands its results to nodes that relay them.
//!
//! Behind the stream's opening the relaying node sends a length (u32, little endian) and so many bytes: what its engine depends on in short
//! (16 bytes), whether it wants the past (one byte), and EDGE frames with the numbers that it wants. The holder answers with the lineage of
//! its log (u64) and frames, and never has more than [`WINDOW`] bytes on their way: the relaying node says how many it has dealt with, a u32
//! each time. So a node whose hub has enough to do holds up nobody's consensus or replicas.

use crate::links::{Kind, Links};
use crate::node::{Ended, ReplicaStatus};
use quinn::{RecvStream, SendStream};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tidegate_live::{Delivery, HubHandle, Origin, RelayPort, SnapshotSettings};
use tidegate_proto::relay::{Relay, RelayError, past_records};
use tidegate_proto::subscription::{Start, Subscription};
use tidegate_proto::{Close, CloseCode, Frame, FrameBuffer, FrameWriter};
use tidegate_replica::{GroupId, Meta, NodeId};
use tokio::sync::watch;
use tokio::time::timeout;

/// Bytes on their way to one relay of one group.
const WINDOW: u64 = 512 << 10;
/// A question: 16 bytes for each slot of each stream, at most.
const QUESTION_BYTES_MAX: usize = 8 << 20;
/// How long the first words of either side may take.
const OPENING: Duration = Duration::from_secs(5);
/// Between two attempts to find a holder.
const AGAIN: Duration = Duration::from_millis(100);
/// Records of the past copied from the hub in one go: some tens of microseconds.
const PIECE_RECORDS: usize = 512;
/// Frames that a relay reads at a time.
const BUFFER_FRAMES: usize = 4;

/// How the relay of a group stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayStatus {
    /// The node that it reads at; none while it has found none.
    pub from: Option<NodeId>,
    /// Results that it handed on since its start.
    pub records: u64,
    /// Results that no holder had any more.
    pub skipped: u64,
    /// Times that it lost its holder.
    pub lost: u64,
    /// Whether readers of this node have everything that the holder had when it was found; a node of an earlier version does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caught_up: Option<bool>,
}

/// What a node needs to relay the groups that it does not hold, and to be read by others.
pub struct Relaying {
    /// Results, those of this node and what is relayed.
    pub hub: HubHandle,
    /// The streams of the shards, by number.
    pub streams: Vec<String>,
    /// What the engine depends on beside the log, in short and in words.
    pub settings: (SnapshotSettings, String),
    /// The ways in for results of groups that it does not hold.
    pub ports: Vec<RelayPort>,
}

/// What holders and relays of a node have in common.
pub(crate) struct Shared {
    pub(crate) me: NodeId,
    pub(crate) hub: HubHandle,
    pub(crate) streams: Vec<String>,
    pub(crate) settings: (SnapshotSettings, String),
    pub(crate) slots: Arc<[GroupId]>,
    pub(crate) held: Vec<bool>,
}

/// What a relay asks for.
struct Question {
    settings: [u8; 16],
    past: bool,
    next: Vec<(u16, u16, u64)>,
}

impl Question {
    async fn read(receive: &mut RecvStream) -> Option<Self> {
        let mut length = [0; 4];
        receive.read_exact(&mut length).await.ok()?;
        let length = usize::try_from(u32::from_le_bytes(length)).ok()?;
        if !(17..=QUESTION_BYTES_MAX).contains(&length) {
            return None;
        }
        let mut bytes = vec![0; length];
        receive.read_exact(&mut bytes).await.ok()?;
        Self::parse(&bytes)
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let (settings, rest) = bytes.split_first_chunk::<16>()?;
        let (past, mut rest) = rest.split_first()?;
        let (mut buffer, mut next) = (FrameBuffer::new(1), Vec::new());
        while !rest.is_empty() {
            rest = &rest[buffer.push(rest)..];
            while let Some((offset, head, body)) = buffer.next_frame().ok()? {
                let Frame::Edge(edge) = Frame::read(offset, &head, body).ok()? else { return None };
                next.extend(edge.iter().map(|(slot, next)| (edge.stream, slot, next)));
            }
        }
        buffer.finish().ok()?;
        Some(Self { settings: *settings, past: *past == 1, next })
    }
}

/// What a relay has dealt with, as it says itself.
#[derive(Default)]
struct Credit {
    sent: u64,
    taken: u64,
    part: ([u8; 4], usize),
}

impl Credit {
    /// Reads on. `None` once the relay is gone. Nothing is lost when it is given up halfway.
    async fn more(&mut self, receive: &mut RecvStream) -> Option<()> {
        let (bytes, have) = &mut self.part;
        *have += receive.read(&mut bytes[*have..]).await.ok()??;
        if *have == bytes.len() {
            self.taken += u64::from(u32::from_le_bytes(*bytes));
            *have = 0;
        }
        Some(())
    }

    async fn send(&mut self, send: &mut SendStream, receive: &mut RecvStream, bytes: &[u8]) -> Option<()> {
        for part in bytes.chunks(WINDOW as usize / 4) {
            while self.sent.saturating_sub(self.taken) + part.len() as u64 > WINDOW {
                self.more(receive).await?;
            }
            send.write_all(part).await.ok()?;
            self.sent += part.len() as u64;
        }
        Some(())
    }
}

impl Shared {
    /// Sends a node the results of a group, whose log is of this lineage here, until either is gone.
    pub(crate) async fn serve(
        &self,
        (node, group, lineage): (NodeId, GroupId, u64),
        mut send: SendStream,
        mut receive: RecvStream,
    ) {
        let Ok(Some(question)) = timeout(OPENING, Question::read(&mut receive)).await else { return };
        let mut credit = Credit::default();
        let refused = if !self.settings.0.fit(question.settings) {
            Some(Close::new(CloseCode::SUBSCRIPTION, self.settings.1.clone()))
        } else if lineage == 0 || !self.held.get(usize::from(group)).is_some_and(|held| *held) {
            Some(Close::new(CloseCode::GROUP, "the group is not held here"))
        } else {
            None
        };
        if send.write_all(&lineage.to_le_bytes()).await.is_err() {
            return;
        }
        let ended = match refused {
            Some(close) => Some(close),
            None => self.hand_over(question, (node, group), &mut credit, (&mut send, &mut receive)).await,
        };
        if let Some(close) = ended {
            let mut out = Vec::new();
            FrameWriter::new(&mut out).close(close.code, &close.reason);
            let _ = send.write_all(&out).await;
        }
        let _ = send.finish();
    }

    /// Until one of the two is gone, or there is something to be said about the end.
    async fn hand_over(
        &self,
        question: Question,
        (node, group): (NodeId, GroupId),
        credit: &mut Credit,
        (send, receive): (&mut SendStream, &mut RecvStream),
    ) -> Option<Close> {
        if question.past {
            self.past(group, credit, (send, receive)).await?;
        }
        let mut out = Vec::new();
        FrameWriter::new(&mut out).subscribed(0, self.streams.len() as u32);
        credit.send(send, receive, &out).await?;
        let subscription = Subscription {
            streams: self.streams.clone(),
            start: Start::Sequence { default: 1, slots: question.next },
            ..Subscription::default()
        };
        let origin = Origin { kind: "relay", peer: format!("node {node}, group {group}").into() };
        let reader = self.hub.relay(subscription, origin, (group, Arc::clone(&self.slots))).await;
        let mut reader = match reader {
            Ok(reader) => reader,
            Err(error) => return Some(Close::new(CloseCode::BUSY, error.to_string())),
        };
        loop {
            tokio::select! {
                delivery = reader.next() => match delivery? {
                    Delivery::Frames(frames) => {
                        for frame in frames {
                            credit.send(send, receive, &frame).await?;
                        }
                    }
                    Delivery::Closed(close) => return Some(close),
                },
                more = credit.more(receive) => more?,
            }
        }
    }

    /// What is kept of each key, and up to which numbers it has everything.
    async fn past(
        &self,
        group: GroupId,
        credit: &mut Credit,
        (send, receive): (&mut SendStream, &mut RecvStream),
    ) -> Option<()> {
        let mut from = Some(0);
        while let Some(key) = from {
            let slots = Arc::clone(&self.slots);
            let copied = self.hub.ask(move |hub, _| {
                let mut out = Vec::new();
                (hub.copy_names(key, &|slot| slots[usize::from(slot)] == group, &mut out), out)
            });
            let (next, out) = copied.await.ok()?;
            credit.send(send, receive, &out).await?;
            from = next;
        }
        let streams = self.streams.len() as u16;
        let slots = Arc::clone(&self.slots);
        let numbers = self.hub.ask(move |hub, _| {
            let mine = |slot: u16| slots[usize::from(slot)] == group;
            let mut out = Vec::new();
            for stream in 0..streams {
                FrameWriter::new(&mut out).edge(stream, hub.next_numbers(stream, &mine).into_iter());
            }
            out
        });
        let numbers = numbers.await.ok()?;
        credit.send(send, receive, &numbers).await?;
        for stream in 0..streams {
            let mut from = Some(0);
            while let Some(key) = from {
                let slots = Arc::clone(&self.slots);
                let copied = self.hub.ask(move |hub, _| {
                    let mut records = Vec::with_capacity(PIECE_RECORDS * 64);
                    let mine = |slot: u16| slots[usize::from(slot)] == group;
                    let next = hub.copy_histories(stream, key, PIECE_RECORDS, &mine, &mut records);
                    (next, records)
                });
                let (next, records) = copied.await.ok()?;
                let mut out = Vec::with_capacity(records.len() + 64);
                past_records(&records, &mut out);
                credit.send(send, receive, &out).await?;
                from = next;
            }
        }
        Some(())
    }
}

/// Why a relay reads no more at a holder.
enum Over {
    /// The node ends.
    Ended(Ended),
    /// Another holder, or the same once more.
    Again,
}

/// Relays one group.
pub(crate) struct RelayDriver {
    shared: Arc<Shared>,
    links: Arc<Links>,
    state: watch::Receiver<Arc<Meta>>,
    port: RelayPort,
    relay: Relay,
    /// History of the log whose results it has.
    lineage: Option<u64>,
    /// Who was read at last, and in vain: others come first.
    avoid: Option<NodeId>,
    status: Arc<Mutex<ReplicaStatus>>,
}

impl RelayDriver {
    pub(crate) fn new(
        shared: Arc<Shared>,
        links: Arc<Links>,
        state: watch::Receiver<Arc<Meta>>,
        port: RelayPort,
        status: Arc<Mutex<ReplicaStatus>>,
    ) -> Self {
        let (group, slots) = (port.group(), Arc::clone(&shared.slots));
        let relay = Relay::new(shared.streams.len() as u16, |slot| slots[usize::from(slot)] == group);
        let driver = Self { shared, links, state, port, relay, lineage: None, avoid: None, status };
        driver.tell(|relay| relay.caught_up = Some(false));
        driver
    }

    /// Relays until the node is to end.
    pub(crate) async fn run(mut self, mut stop: watch::Receiver<bool>) -> Ended {
        loop {
            let follows = async {
                match self.holder() {
                    Some(node) => {
                        let over = self.follow(node).await;
                        self.tell(|relay| {
                            relay.lost += u64::from(relay.from.is_some());
                            (relay.from, relay.caught_up) = (None, Some(false));
                        });
                        self.avoid = Some(node);
                        over
                    }
                    None => Over::Again,
                }
            };
            let over = tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return Ended::Asked,
                over = follows => over,
            };
            match over {
                Over::Ended(ended) => return ended,
                Over::Again => {
                    tokio::select! {
                        _ = stop.wait_for(|stop| *stop) => return Ended::Asked,
                        () = tokio::time::sleep(AGAIN) => {}
                    }
                }
            }
        }
    }

    /// Where to read: at a node in sync, best one in the same zone, then the leader; else at any that holds the group.
    fn holder(&self) -> Option<NodeId> {
        let meta = self.state.borrow();
        let ranked = rank(&meta, self.port.group(), self.shared.me, &self.links.connected());
        let other = ranked.iter().find(|node| Some(**node) != self.avoid);
        other.or(ranked.first()).copied()
    }

    /// Whether somebody in sync can be read at, and this node is not.
    fn is_outdone(&self, node: NodeId) -> bool {
        let meta = self.state.borrow();
        let Some(group) = meta.group(self.port.group()) else { return true };
        let connected = self.links.connected();
        let in_sync = |node: NodeId| group.isr.iter().any(|member| member.node == node);
        !in_sync(node) && connected.iter().any(|node| in_sync(*node))
    }

    /// Reads at a holder until that is of no more use.
    async fn follow(&mut self, node: NodeId) -> Over {
        let group = self.port.group();
        let Ok((mut send, mut receive)) = self.links.open(node, Kind::Relay, group).await else {
            return Over::Again;
        };
        let mut edges = Vec::new();
        let past = self.relay.connected(&mut edges);
        let mut question = self.shared.settings.0.own().to_vec();
        question.push(u8::from(past));
        question.extend_from_slice(&edges);
        let mut head = [0; 8];
        let opened = timeout(OPENING, async {
            send.write_all(&(question.len() as u32).to_le_bytes()).await.ok()?;
            send.write_all(&question).await.ok()?;
            receive.read_exact(&mut head).await.ok()
        });
        let Ok(Some(())) = opened.await else { return Over::Again };
        match (u64::from_le_bytes(head), self.lineage) {
            // Whose log is of an older history does not know yet.
            (found, Some(known)) if found < known => return Over::Again,
            // What was relayed is of a history that is over.
            (found, Some(known)) if found > known && self.relay.has_begun() => {
                return Over::Ended(Ended::Relayed(group));
            }
            (0, _) => {}
            (found, _) => self.lineage = Some(found),
        }
        self.tell(|relay| relay.from = Some(node));
        let mut buffer = FrameBuffer::new(BUFFER_FRAMES);
        let mut state = self.state.clone();
        let mut caught_up = false;
        loop {
            let count = tokio::select! {
                count = receive.read(buffer.space()) => match count {
                    Ok(Some(count)) => count,
                    Ok(None) | Err(_) => return Over::Again,
                },
                changed = state.changed() => {
                    if changed.is_err() {
                        return Over::Ended(Ended::Metadata);
                    }
                    if self.is_outdone(node) {
                        return Over::Again;
                    }
                    continue;
                }
            };
            buffer.filled(count);
            let (mut batch, mut ended) = (Vec::new(), None);
            while ended.is_none() {
                match buffer.next_frame() {
                    Ok(Some((offset, head, body))) => match Frame::read(offset, &head, body) {
                        Ok(frame) => ended = self.relay.handle(&frame, &mut batch).err(),
                        Err(_) => return Over::Again,
                    },
                    Ok(None) => break,
                    Err(_) => return Over::Again,
                }
            }
            // The hub's end goes with the server, and this task before it.
            if !batch.is_empty() && !self.port.send(batch).await {
                return Over::Ended(Ended::Asked);
            }
            if !caught_up && ended.is_none() && self.relay.has_caught_up() {
                // It is said of what readers can see: behind the last batch the hub answers once it has dealt with it.
                let settled = self.port.settle().await && self.shared.hub.ask(|_, _| ()).await.is_ok();
                if !settled {
                    return Over::Ended(Ended::Asked);
                }
                caught_up = true;
            }
            let stats = self.relay.stats();
            self.tell(|relay| {
                (relay.records, relay.skipped) = (stats.records, stats.skipped);
                relay.caught_up = Some(caught_up);
            });
            match ended {
                Some(RelayError::Closed(close)) if close.code == CloseCode::SUBSCRIPTION => {
                    return Over::Ended(Ended::Settings(close.reason));
                }
                Some(_) => return Over::Again,
                None => {}
            }
            if send.write_all(&(count as u32).to_le_bytes()).await.is_err() {
                return Over::Again;
            }
        }
    }

    fn tell(&self, change: impl FnOnce(&mut RelayStatus)) {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        "relay".clone_into(&mut status.role);
        change(status.relay.get_or_insert_default());
    }
}

/// Nodes that a group's results can be read at, the best first.
fn rank(meta: &Meta, group: GroupId, me: NodeId, connected: &[NodeId]) -> Vec<NodeId> {
    let Some(of) = meta.group(group) else { return Vec::new() };
    let mut nodes: Vec<NodeId> =
        connected.iter().copied().filter(|node| meta.is_held(group, *node)).collect();
    let zone = meta.zone(me);
    nodes.sort_by_key(|&node| {
        let in_sync = of.isr.iter().any(|member| member.node == node);
        let near = !zone.is_empty() && meta.zone(node) == zone;
        let leads = of.leader.is_some_and(|leader| leader.node == node);
        (!in_sync, !near, !leads, node)
    });
    nodes
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use tidegate_replica::{Command, Layout, Member, Place, Rules};

    #[test]
    fn it_is_read_near_by_at_who_has_everything() {
        let zones: BTreeMap<NodeId, String> = (1..=4).map(|node| (node, format!("z{}", node % 2))).collect();
        let layout =
            Layout { groups: 4, copies: 3, min_isr: 1, zones: zones.clone(), ..Layout::of(&[1, 2, 3, 4]) };
        let place = |(&node, zone): (&NodeId, &String)| {
            let at = |port| ([10, 0, 0, node as u8], port).into();
            (node, Place { peers: at(1), clients: at(2), zone: Some(zone.clone()) })
        };
        let meta = Meta::laid_out(&layout, Rules::default()).founded(&zones.iter().map(place).collect());
        for (group, of) in meta.numbered() {
            let me = (1..=4).find(|node| !meta.is_held(group, *node)).unwrap();
            let all: Vec<NodeId> = (1..=4).filter(|node| *node != me).collect();
            let leader = of.leader.unwrap().node;
            let ranked = rank(&meta, group, me, &all);
            let near = |node: NodeId| node % 2 == me % 2;
            assert_eq!(ranked.len(), 3);
            assert!(near(ranked[0]), "{me}: {ranked:?}");
            assert!(near(leader) || ranked[1] == leader, "{me}: {ranked:?}, led by {leader}");
            // Who is not in sync comes last, and who is not connected not at all.
            let gone = Command::Fence { member: Member { node: ranked[0], incarnation: 1 } };
            let mut later = meta.clone();
            later.apply(&gone).unwrap();
            assert_eq!(rank(&later, group, me, &all).last(), Some(&ranked[0]));
            assert_eq!(rank(&later, group, me, &[ranked[0], me]), [ranked[0]]);
        }
    }

    #[test]
    fn a_question_is_read_as_it_was_asked() {
        let mut bytes = vec![7; 16];
        bytes.push(1);
        FrameWriter::new(&mut bytes).edge(0, [(5, 9), (6, 1)].into_iter());
        FrameWriter::new(&mut bytes).edge(3, std::iter::empty());
        let question = Question::parse(&bytes).unwrap();
        assert_eq!(
            (question.settings, question.past, question.next),
            ([7; 16], true, vec![(0, 5, 9), (0, 6, 1)])
        );
        for end in 0..bytes.len() {
            let cut = Question::parse(&bytes[..end]);
            assert!(cut.is_none_or(|cut| cut.next.len() < 3), "{end}");
        }
        let mut other = bytes[..17].to_vec();
        FrameWriter::new(&mut other).heartbeat(1, 1);
        assert!(Question::parse(&other).is_none());
    }
}
