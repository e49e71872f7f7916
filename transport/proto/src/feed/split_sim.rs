//! A feed of several groups, whose leaders come and go, over connections that break: all from one seed.
//!
//! Each group is a log that entries are committed to some time after its leader took them. Who begins to lead knows what is committed
//! and nothing else, as in a cluster; whoever is asked and does not lead says who does, as far as it has heard.

use super::*;
use crate::access::Grant;
use crate::close::{Close, CloseCode};
use crate::frame::{AckMode, Frame, FrameWriter};
use crate::groups::{GroupLead, GroupMap, wrong_group};
use crate::time::{MILLISECOND_NS, MonoTime};
use crate::wire::FrameBuffer;
use std::collections::VecDeque;
use std::net::SocketAddr;
use tidegate_engine::{Event, kind, name_hash, slot_of};

/// SplitMix64: small, and the same everywhere.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    pub(super) fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

pub(super) const NODES: u16 = 3;

pub(super) fn address(node: u16) -> SocketAddr {
    ([10, 0, 0, node as u8], 7_443).into()
}

pub(super) fn node_at(address: SocketAddr) -> u16 {
    (1..=NODES).find(|node| self::address(*node) == address).expect("a node of the cluster")
}

/// What a leader has taken and nobody has committed.
pub(super) enum Entry {
    Source {
        session: u64,
        empty: bool,
    },
    Names(Vec<String>),
    Events {
        sequence: u64,
        events: Vec<Event>,
    },
    /// A slot leaves, or comes, and the numberings that it divides.
    Moved {
        goes: SlotGoes,
        numberings: Vec<(u64, u64)>,
    },
}

/// A group: its committed log, and its leader.
pub(super) struct Group {
    pub(super) log: FeedServer,
    /// Numbers and times of the events that are committed, where 0 tells the time, and the names behind keys.
    pub(super) committed: Vec<(u64, u64)>,
    pub(super) named: Vec<String>,
    pub(super) leader: u16,
    pub(super) epoch: u32,
    pub(super) server: FeedServer,
    /// Names as the leader has them.
    pub(super) names: Vec<String>,
    pub(super) pending: VecDeque<Entry>,
    /// Moves that are committed here.
    pub(super) moved: Vec<SlotGoes>,
}

pub(super) fn options() -> FeedServerOptions {
    FeedServerOptions {
        credit_events: 64,
        committed: true,
        silence_ns: 3_000 * MILLISECOND_NS,
        heartbeat_ms: 500,
        ..FeedServerOptions::default()
    }
}

impl Group {
    pub(super) fn new(leader: u16) -> Self {
        Self {
            log: FeedServer::new(options()),
            committed: Vec::new(),
            named: Vec::new(),
            leader,
            epoch: 1,
            server: FeedServer::new(options()),
            names: Vec::new(),
            pending: VecDeque::new(),
            moved: Vec::new(),
        }
    }

    /// Another node leads, with what is committed.
    pub(super) fn fail_over(&mut self, leader: u16) {
        (self.leader, self.epoch) = (leader, self.epoch + 1);
        self.server.go_on_from(&self.log);
        self.names.clone_from(&self.named);
        self.pending.clear();
    }

    pub(super) fn commit(&mut self) {
        let Some(entry) = self.pending.pop_front() else { return };
        match entry {
            Entry::Source { session, empty } => {
                assert_eq!(self.log.recover_source(7, session, empty, "sim", "anonymous"), Some(0));
                if empty {
                    self.named.clear();
                }
            }
            Entry::Names(names) => {
                self.log.recover_names(0, names.iter().map(String::as_str), 0);
                self.named.extend(names);
            }
            Entry::Events { sequence, events } => {
                self.log.recover_events(0, sequence, events.len() as u64);
                self.committed.extend(events.iter().map(|event| (event.payload[0], event.ts_event)));
                let last = sequence + events.len() as u64 - 1;
                self.log.committed(0, 42, last);
                self.server.committed(0, 42, last);
            }
            Entry::Moved { goes, numberings } => {
                self.log.slot_moved(goes, &numberings);
                self.server.slot_moved(goes, &numberings);
                self.moved.push(goes);
            }
        }
    }

    /// A frame of a connection to the leader.
    pub(super) fn take(
        &mut self,
        id: ConnectionId,
        now: MonoTime,
        frame: &Frame<'_>,
        own: impl Fn(&str) -> Result<(), Close>,
        expect: impl Fn(u64) -> Option<String>,
        out: &mut Vec<u8>,
    ) -> Result<bool, Close> {
        if let Frame::Define(define) = frame {
            define.names.iter().try_for_each(own)?;
        }
        let before = self.server.stands(0).1;
        match self.server.handle(id, now, 0, frame, out)? {
            Taken::Registered { new_session: empty, superseded, .. } => {
                if let Some((older, _)) = superseded {
                    self.server.closed(older);
                }
                if empty {
                    self.names.clear();
                }
                let session = self.server.stands(0).0;
                self.pending.push_back(Entry::Source { session, empty });
            }
            Taken::Names { names, overflowed, first, .. } => {
                assert_eq!((first as usize, overflowed), (self.names.len(), 0));
                let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
                self.names.extend(names.iter().cloned());
                self.pending.push_back(Entry::Names(names));
            }
            Taken::Events { events, named, .. } => {
                for event in events.iter().filter(|event| !event.is_control()) {
                    assert!(event.key < named);
                    assert_eq!(Some(&self.names[event.key as usize]), expect(event.payload[0]).as_ref());
                }
                let sequence = before + 1;
                self.pending.push_back(Entry::Events { sequence, events: events.to_vec() });
            }
            Taken::Lost { .. } => panic!("nothing that was committed is ever gone"),
            Taken::Finished { .. } => return Ok(true),
            Taken::Nothing => {}
        }
        Ok(false)
    }
}

/// A connection of a group's session.
pub(super) struct Link {
    /// `None` to a node that does not lead.
    pub(super) id: Option<ConnectionId>,
    /// When the leader that it is to was another one, it is to nobody.
    pub(super) epoch: u32,
    pub(super) up: Vec<u8>,
    pub(super) down: Vec<u8>,
}

/// What the feed has to say; known to the test and to nobody else.
pub(super) struct Script {
    pub(super) total: u64,
    pub(super) names: u64,
    pub(super) controls: u64,
    /// Between two events, in ns; now and then time goes back a little.
    pub(super) step: u64,
}

impl Script {
    pub(super) fn name(&self, number: u64) -> Option<String> {
        let control = self.controls > 0 && number.is_multiple_of(self.controls);
        (!control).then(|| format!("key-{}", (number * number / 3) % self.names.min(1 + number / 4)))
    }

    pub(super) fn event(&self, number: u64, key: u32) -> Event {
        let kind = if self.name(number).is_some() { kind::SAMPLE } else { kind::GAP };
        Event { ts_event: self.time(number), kind, key, payload: [number, 0], ..Event::default() }
    }

    pub(super) fn time(&self, number: u64) -> u64 {
        let back = if number.is_multiple_of(37) { 5 } else { 0 };
        (number + 5 - back) * self.step
    }

    /// What each group is to get, in order: events by their numbers, and in between, as 0, the time where it knows none that is less than 0.1 s old.
    fn parts(&self, map: &GroupMap) -> Vec<Vec<(u64, u64)>> {
        const BEHIND: u64 = 100_000_000;
        let count = map.len();
        let mut parts = vec![Vec::new(); count];
        let mut last: Vec<Option<u64>> = vec![None; count];
        let (mut due, mut enough) = (0, 0);
        for number in 1..=self.total {
            let time = self.time(number);
            let Some(name) = self.name(number) else {
                parts.iter_mut().for_each(|part| part.push((number, time)));
                continue;
            };
            let group = usize::from(map.group_of(slot_of(name_hash(name.as_bytes()))));
            parts[group].push((number, time));
            last[group] = Some(time);
            if number < enough || (time < due && due - time <= 2 * BEHIND) {
                continue;
            }
            (due, enough) = (time + BEHIND, number + count as u64);
            for (part, last) in parts.iter_mut().zip(&mut last) {
                if last.is_none_or(|last| last + BEHIND <= time) {
                    *last = Some(time);
                    part.push((0, time));
                }
            }
        }
        parts
    }
}

/// The feed's process.
pub(super) struct Feed {
    pub(super) split: SplitFeed,
    pub(super) names: Vec<String>,
    pub(super) read: u64,
    /// Where each group's session goes next.
    pub(super) targets: Vec<u16>,
    pub(super) links: Vec<Option<Link>>,
    pub(super) ended: Vec<bool>,
}

impl Feed {
    pub(super) fn new(map: &GroupMap, unacked_max: usize) -> Self {
        let split = SplitFeed::new(
            FeedClientOptions {
                source_id: 7,
                session: 42,
                ack_mode: AckMode::Committed,
                name: "sim".into(),
                unacked_max,
                retry_ns: 150 * MILLISECOND_NS,
                silence_ns: 3_000 * MILLISECOND_NS,
                packed: unacked_max.is_multiple_of(2),
                ..FeedClientOptions::default()
            },
            map.clone(),
        );
        let leads = map.leads().iter().map(|lead| lead.node.unwrap_or(1)).collect();
        let count = map.len();
        Self {
            split,
            names: Vec::new(),
            read: 0,
            targets: leads,
            links: (0..count).map(|_| None).collect(),
            ended: vec![false; count],
        }
    }

    pub(super) fn read_on(&mut self, script: &Script, most: u64, random: &mut Random) {
        let count = (script.total - self.read).min(most);
        // Names come with what they are first needed for, or some time before: that makes no difference.
        let ahead = self.read + count + random.below(20);
        for number in 1..=ahead.min(script.total) {
            if let Some(name) = script.name(number)
                && !self.names.contains(&name)
            {
                assert_eq!(self.split.define(&name), Some(self.names.len() as u32));
                self.names.push(name);
            }
        }
        let key = |number| {
            let name = script.name(number);
            name.map_or(0, |name| self.names.iter().position(|known| *known == name).unwrap() as u32)
        };
        let events: Vec<Event> =
            (self.read + 1..=self.read + count).map(|number| script.event(number, key(number))).collect();
        self.read += self.split.offer(&events) as u64;
    }
}

pub(super) fn frames(bytes: &mut Vec<u8>, most: usize, mut each: impl FnMut(&Frame<'_>) -> bool) {
    let mut buffer = FrameBuffer::new(2);
    for _ in 0..most {
        let Ok(Some(head)) = crate::FrameHead::read(bytes, 0) else { return };
        let frame: Vec<u8> = bytes.drain(..head.frame_bytes()).collect();
        buffer.reset();
        buffer.push(&frame);
        let (offset, head, body) = buffer.next_frame().unwrap().unwrap();
        let frame = Frame::read(offset, &head, body).unwrap();
        let mut events = Vec::new();
        if !each(&frame.unpacked(&mut events).unwrap()) {
            return;
        }
    }
}

fn run(seed: u64) -> (u64, u64, u64) {
    let random = &mut Random(seed);
    let some = |random: &mut Random, most: u64| if random.percent(40) { 0 } else { 1 + random.below(most) };
    let (mut cuts, mut falls, mut dies, stale) =
        (some(random, 8), some(random, 4), some(random, 2), some(random, 60));
    let commits = 1 + random.below(6);
    let script = Script {
        total: 30 + random.below(200),
        names: 1 + random.below(12),
        controls: if random.percent(50) { 0 } else { 5 + random.below(20) },
        step: [1, 30_000_000, 400_000_000][random.below(3) as usize],
    };
    let count = 2 + random.below(4) as u16;
    let mut groups: Vec<Group> = (0..count).map(|_| Group::new(1 + random.below(3) as u16)).collect();
    // Slots lie as they will: some groups have one run, some several.
    let mut runs: Vec<(u16, u16)> = (0..count).map(|group| (4_096 / count * group, group)).collect();
    (0..random.below(9))
        .for_each(|_| runs.push((1 + random.below(4_095) as u16, random.below(u64::from(count)) as u16)));
    runs.sort_unstable();
    runs.dedup_by_key(|run| run.0);
    let lead = |group: &Group| GroupLead {
        node: Some(group.leader),
        address: Some(address(group.leader)),
        epoch: group.epoch,
        held: true,
    };
    let map = GroupMap::new(1, runs, groups.iter().map(lead).collect()).unwrap();
    let unacked_max = 1 + random.below(60) as usize;
    let mut feed = Feed::new(&map, unacked_max);
    let wanted = script.parts(&map);
    let (mut now_ms, mut settled, mut redirects, mut fallen) = (0u64, 0u64, 0u64, 0u64);
    loop {
        now_ms += 10;
        if now_ms > 3_000 {
            (cuts, falls, dies) = (0, 0, 0);
        }
        assert!(now_ms < 60_000, "seed {seed}: no end in sight: {:?}", feed.split);
        let now = MonoTime(now_ms * MILLISECOND_NS);
        if random.percent(dies) {
            feed = Feed::new(&map, unacked_max);
            settled = 0;
        }
        feed.read_on(&script, 1 + random.below(40), random);
        if feed.read == script.total {
            feed.split.finish();
        }
        for group in 0..count {
            let at = usize::from(group);
            let of = &mut groups[at];
            if random.percent(falls) {
                of.fail_over(1 + random.below(u64::from(NODES)) as u16);
                fallen += 1;
            }
            (0..commits).for_each(|_| of.commit());
            if feed.split.session(group).is_none() || feed.ended[at] {
                continue;
            }
            if random.percent(cuts) && feed.links[at].take().is_some() {
                feed.split.disconnected(group);
            }
            // A leader that fell is silent, or somebody else now.
            if feed.links[at].as_ref().is_some_and(|link| link.id.is_some() && link.epoch != of.epoch) {
                feed.links[at] = None;
                feed.split.disconnected(group);
                feed.targets[at] = 1 + random.below(u64::from(NODES)) as u16;
            }
            if feed.links[at].is_none() {
                let leads = feed.targets[at] == of.leader;
                let id = leads.then(|| of.server.open(now, Grant::default()));
                feed.split.connected(group, now);
                feed.links[at] = Some(Link { id, epoch: of.epoch, up: Vec::new(), down: Vec::new() });
            }
            let Some(link) = &mut feed.links[at] else { continue };
            let sent = feed.split.transmit(group, now, 2_000, &mut link.up);
            let mut broken = sent.is_err();
            feed.ended[at] = sent == Ok(true);
            let (down, id) = (&mut link.down, link.id);
            frames(&mut link.up, 1 + random.below(6) as usize, |frame| {
                let Some(id) = id else {
                    // Not here. Where then, it may have heard or not, or some time ago.
                    let heard = !random.percent(stale);
                    let leader = if heard { Some(of.leader) } else { None };
                    let close = Close::not_leader_of(group, leader, leader.map(address), of.epoch);
                    FrameWriter::new(down).close(close.code, &close.reason);
                    return false;
                };
                if let Frame::Hello(hello) = frame {
                    assert_eq!((hello.group, hello.version_min), (Some(group), crate::wire::PROTOCOL_GROUPS));
                }
                let own = |name: &str| {
                    let owner = map.group_of(slot_of(name_hash(name.as_bytes())));
                    if owner == group { Ok(()) } else { Err(wrong_group(name, owner, group)) }
                };
                let taken = of.take(id, now, frame, own, |number| script.name(number), down);
                let ended = taken.unwrap_or_else(|close| panic!("seed {seed}: group {group}: {close}"));
                !ended
            });
            if let Some(id) = id {
                of.server.acknowledge(id, now, 0, true, &mut link.down);
            }
            let split = &mut feed.split;
            let target = &mut feed.targets[at];
            frames(&mut link.down, 1 + random.below(9) as usize, |frame| {
                match split.handle(group, now, 0, frame) {
                    Ok(Some(FeedEvent::Closed(close))) => {
                        assert_eq!(
                            (close.code, close.group()),
                            (CloseCode::NOT_LEADER, Some(group)),
                            "{close}"
                        );
                        redirects += 1;
                        *target = close.leader().map_or(1 + *target % NODES, node_at);
                        broken = true;
                    }
                    Ok(Some(FeedEvent::ServerLost { .. })) => {
                        panic!("seed {seed}: group {group} lost what it had acknowledged")
                    }
                    Ok(_) => {}
                    Err(close) => panic!("seed {seed}: group {group}: {close}"),
                }
                true
            });
            if broken && !feed.ended[at] {
                feed.links[at] = None;
                feed.split.disconnected(group);
            }
        }
        // What is acknowledged only grows, and all of it is committed, in its group, once and in order.
        assert!(feed.split.settled() >= settled, "seed {seed}");
        settled = feed.split.settled();
        assert!(feed.split.unacked() <= unacked_max, "seed {seed}");
        for (of, wanted) in groups.iter().zip(&wanted) {
            assert_eq!(of.committed, wanted[..of.committed.len()], "seed {seed}");
            let promised =
                wanted.iter().rposition(|(number, _)| (1..=settled).contains(number)).map_or(0, |at| at + 1);
            assert!(
                of.committed.len() >= promised,
                "seed {seed}: {settled} acknowledged, {:?}",
                of.committed
            );
        }
        let sessions = || feed.split.groups().map(usize::from);
        if feed.read == script.total && feed.split.is_settled() && sessions().all(|at| feed.ended[at]) {
            assert_eq!((feed.split.settled(), feed.split.unacked()), (script.total, 0), "seed {seed}");
            for (of, wanted) in groups.iter().zip(&wanted) {
                assert_eq!(&of.committed, wanted, "seed {seed}");
            }
            let told = wanted.iter().flatten().filter(|(number, _)| *number == 0).count() as u64;
            return (redirects, fallen, told);
        }
    }
}

/// Leaders fall, connections break, the feed dies and begins again: each group gets its part once and in order, and nothing is
/// acknowledged that is not committed.
#[test]
fn three_thousand_seeds_of_groups_lose_and_double_nothing() {
    if let Ok(seed) = std::env::var("SIM_SEED") {
        let seed = seed.parse().expect("a number");
        run(seed);
        return;
    }
    let (mut redirects, mut fallen, mut told) = (0, 0, 0);
    for seed in 0..3_000 {
        let (sent, fell, heard) = run(seed);
        redirects += sent;
        fallen += fell;
        told += heard;
    }
    assert!(
        redirects > 1_000 && fallen > 1_000 && told > 10_000,
        "{redirects} redirects, {fallen} falls, groups told the time {told} times"
    );
}

#[test]
fn an_event_without_a_name_is_left_to_the_server_to_refuse() {
    let map = GroupMap::new(1, vec![(0, 0), (2_048, 1)], vec![GroupLead::default(); 2]).unwrap();
    let mut split = SplitFeed::new(FeedClientOptions::default(), map);
    assert_eq!(split.define(""), None);
    assert_eq!(split.offer(&[Event { key: 5, kind: kind::SAMPLE, ..Event::default() }]), 1);
    assert_eq!(split.take_touched(), [0, 1], "the other group hears of the time");
    let mut server = FeedServer::new(FeedServerOptions::default());
    let id = server.open(MonoTime(0), Grant::default());
    split.connected(0, MonoTime(0));
    let mut closed = None;
    for _ in 0..2 {
        let (mut up, mut down) = (Vec::new(), Vec::new());
        split.transmit(0, MonoTime(0), 4_096, &mut up).unwrap();
        frames(&mut up, 9, |frame| {
            closed = server.handle(id, MonoTime(0), 0, frame, &mut down).err();
            closed.is_none()
        });
        frames(&mut down, 9, |frame| split.handle(0, MonoTime(0), 0, frame).is_ok());
    }
    assert_eq!(closed.map(|close| close.code), Some(CloseCode::UNDEFINED_KEY));
}

/// Groups that a feed has nothing for hear its time all the same, and nobody waits for their word.
#[test]
fn what_tells_the_time_holds_nobody_up() {
    let map = GroupMap::new(1, vec![(0, 0), (2_048, 1)], vec![GroupLead::default(); 2]).unwrap();
    let name =
        (0..).map(|at| format!("S{at}")).find(|name| map.group_of(slot_of(name_hash(name.as_bytes()))) == 0);
    let options = FeedClientOptions { unacked_max: 40, ..FeedClientOptions::default() };
    let mut split = SplitFeed::new(options, map);
    assert_eq!(split.define(&name.unwrap()), Some(0));
    let events: Vec<Event> = (0..40)
        .map(|at| Event { ts_event: at * 1_000_000_000, kind: kind::SAMPLE, ..Event::default() })
        .collect();
    assert_eq!(split.offer(&events), 40);
    let mut server = FeedServer::new(FeedServerOptions::default());
    let id = server.open(MonoTime(0), Grant::default());
    split.connected(0, MonoTime(0));
    for _ in 0..9 {
        let (mut up, mut down) = (Vec::new(), Vec::new());
        split.transmit(0, MonoTime(0), 4_096, &mut up).unwrap();
        frames(&mut up, 99, |frame| server.handle(id, MonoTime(0), 0, frame, &mut down).is_ok());
        server.acknowledge(id, MonoTime(0), 0, true, &mut down);
        frames(&mut down, 99, |frame| split.handle(0, MonoTime(0), 0, frame).is_ok());
    }
    assert_eq!((split.settled(), split.unacked(), split.is_settled()), (40, 0, false));
    // The other group has heard of every second event: as many are sent again at most, and its session keeps no more than it may.
    let told = split.session(1).unwrap().offered();
    assert_eq!((told, split.room()), (20, 20));
    assert_eq!(split.offer(&events), 20);
}
