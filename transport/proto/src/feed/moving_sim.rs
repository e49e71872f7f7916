//! Slots that change their group under a feed, while leaders fall and connections break: all from one seed.
//!
//! The groups are those of [`super::split_sim`]. Here somebody moves slots, one at a time: the old group's leader asks for the feed to stop, writes that the
//! slot left once it has, and the new group's leader writes that it arrived once that is committed. Whoever leads next goes on from what the logs say.

use super::split_sim::{Entry, Feed, Group, Link, NODES, Random, Script, address, frames, node_at, options};
use super::*;
use crate::access::Grant;
use crate::close::{Close, CloseCode};
use crate::frame::FrameWriter;
use crate::groups::{GroupLead, GroupMap};
use crate::time::{MILLISECOND_NS, MonoTime};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use tidegate_engine::{SLOT_COUNT, name_hash, slot_of};

/// Rules that can be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Without {
    Nothing,
    /// The slot leaves although the feed has not stopped.
    Stop,
    /// The slot arrives before it is committed that it left.
    Order,
    /// A feed is not told, when it comes back, that a slot has left.
    Word,
}

/// A move under way.
struct Move {
    goes: SlotGoes,
    from: u16,
    since_ms: u64,
    /// The epoch of the leader that wrote the last step, for each group.
    written: [Option<u32>; 2],
}

fn slot(name: &str) -> u16 {
    slot_of(name_hash(name.as_bytes()))
}

/// Moves that took place, moves that were given up, and how often a leader fell within one.
fn run(seed: u64, without: Without) -> (u64, u64, u64) {
    let random = &mut Random(seed);
    let (mut cuts, mut falls) = (random.below(6), random.below(4));
    let commits = 1 + random.below(6);
    let script = Script {
        total: 100 + random.below(300),
        names: 1 + random.below(12),
        controls: if random.percent(50) { 0 } else { 5 + random.below(20) },
        step: [1, 30_000_000, 400_000_000][random.below(3) as usize],
    };
    let count = 2 + random.below(3) as u16;
    let runs: Vec<(u16, u16)> = (0..count).map(|group| (4_096 / count * group, group)).collect();
    let owner = |at: u16| (at / (4_096 / count)).min(count - 1);
    let slots: Arc<[u16]> = (0..SLOT_COUNT as u16).map(owner).collect();
    let group = |number: u16| {
        let of = FeedGroup { group: number, slots: Arc::clone(&slots) };
        let options = FeedServerOptions { group: Some(of), ..options() };
        let of = Group::new(1 + number % NODES);
        Group { log: FeedServer::new(options.clone()), server: FeedServer::new(options), ..of }
    };
    let mut groups: Vec<Group> = (0..count).map(group).collect();
    let lead = |group: &Group| GroupLead {
        node: Some(group.leader),
        address: Some(address(group.leader)),
        epoch: group.epoch,
        held: true,
    };
    let mut map = GroupMap::new(1, runs, groups.iter().map(lead).collect()).unwrap();
    let unacked_max = 1 + random.below(60) as usize;
    let mut feed = Feed::new(&map, unacked_max);
    let (mut now_ms, mut settled, mut number) = (0u64, 0u64, 0u64);
    let mut moving: Option<Move> = None;
    let (mut moved, mut given_up, mut fell_within) = (0, 0, 0);
    // By event, the group that committed it; by name, its last event; how much of each group was looked at.
    let mut at: HashMap<u64, u16> = HashMap::new();
    let mut last: HashMap<String, u64> = HashMap::new();
    let mut seen = vec![0; usize::from(count)];
    loop {
        now_ms += 10;
        if now_ms > 4_000 {
            (cuts, falls) = (0, 0);
        }
        assert!(now_ms < 60_000, "seed {seed}: no end in sight: {:?}", feed.split);
        let now = MonoTime(now_ms * MILLISECOND_NS);
        feed.read_on(&script, 1 + random.below(12), random);
        if feed.read == script.total {
            feed.split.finish();
        }
        // Somebody wants a slot moved that the feed has something for.
        if moving.is_none() && random.percent(12) && now_ms < 3_000 {
            let name = script.name(1 + random.below(script.total)).unwrap_or_else(|| "key-0".into());
            let from = map.group_of(slot(&name));
            let to = random.below(u64::from(count)) as u16;
            if to != from && groups[usize::from(from)].log.sources().next().is_some() {
                number += 1;
                let goes = SlotGoes { number, slot: slot(&name), to };
                moving = Some(Move { goes, from, since_ms: now_ms, written: [None; 2] });
            }
        }
        if let Some(Move { goes, from, since_ms, written }) = &mut moving {
            let [left, arrived] = [*from, goes.to].map(|of| groups[usize::from(of)].moved.contains(goes));
            let of = &mut groups[usize::from(*from)];
            let mut words: Vec<(ConnectionId, Vec<u8>)> = Vec::new();
            let mut over = false;
            if arrived {
                map.give(goes.slot, goes.to);
                moved += 1;
                over = true;
            } else if !left && written[0] != Some(of.epoch) {
                of.server.ask_to_stop(Some(*goes), |id, bytes| words.push((id, bytes.to_vec())));
                let ended = feed.ended[usize::from(*from)];
                if of.server.unstopped().is_empty() || ended || without == Without::Stop {
                    let numberings = of.server.numberings();
                    of.server.slot_moved(*goes, &numberings);
                    of.pending.push_back(Entry::Moved { goes: *goes, numberings });
                    written[0] = Some(of.epoch);
                } else if now_ms > *since_ms + 20 + 10 * random.below(400) {
                    // The feed is away for too long.
                    of.server.ask_to_stop(None, |id, bytes| words.push((id, bytes.to_vec())));
                    given_up += 1;
                    over = true;
                }
            }
            for (id, bytes) in words {
                if let Some(link) = feed.links[usize::from(*from)].as_mut().filter(|link| link.id == Some(id))
                {
                    link.down.extend(bytes);
                }
            }
            let numberings = groups[usize::from(*from)].log.numberings();
            let to = &mut groups[usize::from(goes.to)];
            let may = left || without == Without::Order;
            if may && !arrived && !over && written[1] != Some(to.epoch) {
                // Nobody is told before it is committed.
                to.pending.push_back(Entry::Moved { goes: *goes, numberings });
                written[1] = Some(to.epoch);
            }
            if over {
                moving = None;
            }
        }
        for group in 0..count {
            let place = usize::from(group);
            let of = &mut groups[place];
            if random.percent(falls) {
                of.fail_over(1 + random.below(u64::from(NODES)) as u16);
                fell_within +=
                    u64::from(moving.as_ref().is_some_and(|of| of.from == group || of.goes.to == group));
                if without == Without::Word {
                    of.server.restore_divided(std::iter::empty());
                }
            }
            for _ in 0..commits {
                let before = of.moved.len();
                let is_move = matches!(of.pending.front(), Some(Entry::Moved { .. }));
                of.commit();
                // Each event is committed by the group that has its slot then, once, and behind those of its name before it.
                for &(event, _) in &of.committed[seen[place]..] {
                    let Some(name) = script.name(event).filter(|_| event > 0) else { continue };
                    assert_eq!(at.insert(event, group), None, "seed {seed}: event {event} is there twice");
                    let before = last.insert(name.clone(), event).unwrap_or(0);
                    assert!(before < event, "seed {seed}: {name}: {event} behind {before}");
                    let mine = of.log.owns(slot(&name));
                    assert!(mine, "seed {seed}: event {event} of {name} in group {group}");
                }
                seen[place] = of.committed.len();
                if is_move && of.moved.len() > before {
                    let goes = of.moved[before];
                    let mut words = Vec::new();
                    of.server.tell_moved(goes, |id, bytes| words.push((id, bytes.to_vec())));
                    for (id, bytes) in words {
                        if let Some(link) = feed.links[place].as_mut().filter(|link| link.id == Some(id)) {
                            link.down.extend(bytes);
                        }
                    }
                }
            }
            if feed.split.session(group).is_none() || feed.ended[place] {
                continue;
            }
            if random.percent(cuts) && feed.links[place].take().is_some() {
                feed.split.disconnected(group);
            }
            if feed.links[place].as_ref().is_some_and(|link| link.id.is_some() && link.epoch != of.epoch) {
                feed.links[place] = None;
                feed.split.disconnected(group);
                feed.targets[place] = 1 + random.below(u64::from(NODES)) as u16;
            }
            if feed.links[place].is_none() {
                let leads = feed.targets[place] == of.leader;
                let id = leads.then(|| of.server.open(now, Grant::default()));
                feed.split.connected(group, now);
                feed.links[place] = Some(Link { id, epoch: of.epoch, up: Vec::new(), down: Vec::new() });
            }
            let Some(link) = &mut feed.links[place] else { continue };
            let sent = feed.split.transmit(group, now, 2_000, &mut link.up);
            let mut broken = sent.is_err();
            feed.ended[place] = sent == Ok(true);
            let (down, id) = (&mut link.down, link.id);
            frames(&mut link.up, 1 + random.below(6) as usize, |frame| {
                let Some(id) = id else {
                    let close =
                        Close::not_leader_of(group, Some(of.leader), Some(address(of.leader)), of.epoch);
                    FrameWriter::new(down).close(close.code, &close.reason);
                    return false;
                };
                let taken = of.take(id, now, frame, |_| Ok(()), |number| script.name(number), down);
                !taken.unwrap_or_else(|close| panic!("seed {seed}: group {group}: {close}"))
            });
            if let Some(id) = id {
                of.server.acknowledge(id, now, 0, true, &mut link.down);
            }
            let split = &mut feed.split;
            let target = &mut feed.targets[place];
            frames(&mut link.down, 1 + random.below(9) as usize, |frame| {
                match split.handle(group, now, 0, frame) {
                    Ok(Some(FeedEvent::Closed(close))) => {
                        assert_eq!(close.code, CloseCode::NOT_LEADER, "{close}");
                        *target = close.leader().map_or(1 + *target % NODES, node_at);
                        broken = true;
                    }
                    Ok(Some(FeedEvent::ServerLost { .. })) => {
                        panic!("seed {seed}: group {group} lost something")
                    }
                    Ok(_) => {}
                    Err(close) => panic!("seed {seed}: group {group}: {close}"),
                }
                true
            });
            if broken && !feed.ended[place] {
                feed.links[place] = None;
                feed.split.disconnected(group);
            }
        }
        assert!(feed.split.settled() >= settled, "seed {seed}");
        settled = feed.split.settled();
        for event in 1..=settled {
            let there = script.name(event).is_none() || at.contains_key(&event);
            assert!(there, "seed {seed}: {event} is acknowledged and not there");
        }
        let sessions = || feed.split.groups().map(usize::from);
        if feed.read == script.total && feed.split.is_settled() && sessions().all(|at| feed.ended[at]) {
            assert_eq!(feed.split.settled(), script.total, "seed {seed}");
            return (moved, given_up, fell_within);
        }
    }
}

#[test]
fn two_thousand_seeds_of_slots_that_move_lose_and_double_nothing() {
    if let Ok(seed) = std::env::var("SIM_SEED") {
        run(seed.parse().expect("a number"), Without::Nothing);
        return;
    }
    let (mut moved, mut given_up, mut fell) = (0, 0, 0);
    for seed in 0..2_000 {
        let (of, up, within) = run(seed, Without::Nothing);
        (moved, given_up, fell) = (moved + of, given_up + up, fell + within);
    }
    assert!(
        moved > 2_000 && given_up > 10 && fell > 500,
        "{moved} moved, {given_up} given up, {fell} fell within"
    );
}

/// Each rule is needed: without it some seed shows what it is for.
#[test]
fn no_rule_of_a_move_can_be_left_out() {
    std::panic::set_hook(Box::new(|_| {}));
    for without in [Without::Stop, Without::Order, Without::Word] {
        let caught = (0..500).find(|seed| catch_unwind(AssertUnwindSafe(|| run(*seed, without))).is_err());
        assert!(caught.is_some(), "{without:?} shows in no seed");
    }
    let _ = std::panic::take_hook();
}
