//! What a feed may do and how much of it, frame by frame.

use super::*;
use crate::access::{Policy, PrincipalRule, Quotas, Verb};
use crate::frame::{AckMode, Frame, FrameWriter, Hello, Plane};
use crate::groups::{GroupLead, GroupMap};
use crate::{Close, CloseCode, FrameBuffer, FrameType, Grant, MonoTime};
use tidegate_engine::{Event, kind, name_hash, slot_of};

fn rules() -> Policy {
    let owned = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
    let rule = |who: &str, symbols: &[&str]| PrincipalRule {
        streams: owned(&["cme"]),
        symbols: owned(symbols),
        ..PrincipalRule::new(who, &[Verb::Publish])
    };
    Policy::new(&[rule("wide", &["*"]), rule("narrow", &["ES*"]), rule("other", &["*"])]).unwrap()
}

fn grant(who: &str) -> Grant {
    rules().grant(who, None, Quotas::default())
}

/// Hands one frame over; what was asked of the driver, in short, and the frames answered.
fn say(
    server: &mut FeedServer,
    connection: ConnectionId,
    now_ms: u64,
    write: impl FnOnce(&mut FrameWriter<'_>),
) -> Result<(String, Vec<String>), Close> {
    let mut bytes = Vec::new();
    write(&mut FrameWriter::new(&mut bytes));
    let mut buffer = FrameBuffer::new(1);
    buffer.push(&bytes);
    let (offset, head, body) = buffer.next_frame().unwrap().unwrap();
    let frame = Frame::read(offset, &head, body).unwrap();
    let mut out = Vec::new();
    let taken = server.handle(connection, MonoTime(now_ms * 1_000_000), 0, &frame, &mut out)?;
    let taken = match taken {
        Taken::Registered { new_session, .. } => format!("registered, empty {new_session}"),
        Taken::Names { first, names, overflowed, .. } => {
            format!("names from {first}: {}, over {overflowed}", names.len())
        }
        Taken::Events { events, named, .. } => format!("{} events, {named} named", events.len()),
        other => format!("{other:?}"),
    };
    Ok((taken, answers(&out)))
}

fn answers(bytes: &[u8]) -> Vec<String> {
    let mut buffer = FrameBuffer::new(4);
    buffer.push(bytes);
    let mut all = Vec::new();
    while let Some((offset, head, body)) = buffer.next_frame().unwrap() {
        all.push(match Frame::read(offset, &head, body).unwrap() {
            Frame::HelloAck(ack) => {
                format!("last {} credit {} names {}/{}", ack.last, ack.credit, ack.names, ack.names_max)
            }
            Frame::Credit { limit } => format!("credit {limit}"),
            other => format!("{:?}", other.kind()),
        });
    }
    all
}

fn hello(source_id: u64, name: &str) -> impl FnOnce(&mut FrameWriter<'_>) {
    move |w| {
        w.hello(&Hello {
            version_min: 1,
            version_max: 2,
            plane: Plane::Feed,
            group: None,
            ack_mode: AckMode::None,
            source_id,
            session: 1,
            name,
            credential: None,
        });
    }
}

#[test]
fn names_of_another_group_are_refused_and_nothing_is_taken() {
    let slots: std::sync::Arc<[u16]> = (0..4_096u16).map(|slot| slot / 2_048).collect();
    let of = |name: &String| {
        slots[usize::from(tidegate_engine::slot_of(tidegate_engine::name_hash(name.as_bytes())))]
    };
    let named = |group| (0..).map(|at| format!("K{at}")).find(|name| of(name) == group).unwrap();
    let (here, there) = (named(1), named(0));
    let group = Some(FeedGroup { group: 1, slots: slots.clone() });
    let mut server = FeedServer::new(FeedServerOptions { group, ..FeedServerOptions::default() });
    let connection = server.open(MonoTime(0), Grant::default());
    say(&mut server, connection, 0, hello(1, "cme")).unwrap();
    let mixed = [here.as_str(), there.as_str()];
    let close = say(&mut server, connection, 0, |w| {
        w.define(0, mixed.into_iter());
    })
    .unwrap_err();
    let reason = format!("`{there}` belongs to group 0, this session is of group 1");
    assert_eq!(close, Close::new(CloseCode::GROUP, reason));
    assert_eq!(server.sources().next().unwrap().names, 0);
    let (taken, _) = say(&mut server, connection, 0, |w| {
        w.define(0, [here.as_str()].into_iter());
    })
    .unwrap();
    assert_eq!(taken, "names from 0: 1, over 0");
}

fn samples(count: usize) -> Vec<Event> {
    vec![Event { kind: kind::SAMPLE, ..Event::default() }; count]
}

#[test]
fn what_a_feed_may_not_do_is_refused_by_name() {
    let mut server = FeedServer::new(FeedServerOptions::default());
    let stranger = server.open(MonoTime(0), grant("stranger"));
    let close = say(&mut server, stranger, 0, hello(1, "cme")).unwrap_err();
    assert_eq!(close, Close::new(CloseCode::UNAUTHORIZED, "`stranger` may not publish `cme`"));
    let narrow = server.open(MonoTime(0), grant("narrow"));
    let close = say(&mut server, narrow, 0, hello(1, "ice")).unwrap_err();
    assert_eq!(close.reason, "`narrow` may not publish `ice`");
    assert_eq!(server.sources().count(), 0, "nobody took a place");

    say(&mut server, narrow, 0, hello(1, "cme")).unwrap();
    let define = |names: &'static [&'static str]| {
        move |w: &mut FrameWriter<'_>| assert_eq!(w.define(0, names.iter().copied()), names.len() as u32)
    };
    let close = say(&mut server, narrow, 0, define(&["ESZ6", "NQZ6"])).unwrap_err();
    assert_eq!(close.code, CloseCode::UNAUTHORIZED);
    assert_eq!(close.reason, "`narrow` may not publish `NQZ6` of `cme`, allowed are ES*");
    assert_eq!(server.sources().next().unwrap().names, 0, "nothing of the frame was taken");
    let taken = say(&mut server, narrow, 0, define(&["ESZ6", "ESH7"])).unwrap();
    assert_eq!(taken.0, "names from 0: 2, over 0");
}

#[test]
fn a_source_is_its_principals_own() {
    let mut server = FeedServer::new(FeedServerOptions::default());
    let nobody = server.open(MonoTime(0), Grant::default());
    say(&mut server, nobody, 0, hello(1, "cme")).unwrap();
    // What was nobody's goes to the first who says who it is; then nobody else gets it.
    let wide = server.open(MonoTime(0), grant("wide"));
    say(&mut server, wide, 0, hello(1, "cme")).unwrap();
    for who in [grant("other"), Grant::default()] {
        let thief = server.open(MonoTime(0), who.clone());
        let close = say(&mut server, thief, 0, hello(1, "cme")).unwrap_err();
        let reason = format!("the source `cme` with id 1 is not `{}`'s", who.principal());
        assert_eq!(close, Close::new(CloseCode::UNAUTHORIZED, reason));
    }
    let source = server.sources().next().unwrap();
    assert_eq!((&*source.principal, source.connections, source.connected), ("wide", 2, true));
}

#[test]
fn under_other_rights_names_are_defined_again() {
    let mut server = FeedServer::new(FeedServerOptions::default());
    let define = |w: &mut FrameWriter<'_>| assert_eq!(w.define(0, ["NQZ6"].into_iter()), 1);
    let first = server.open(MonoTime(0), grant("wide"));
    say(&mut server, first, 0, hello(1, "cme")).unwrap();
    say(&mut server, first, 0, define).unwrap();
    let events = samples(5);
    say(&mut server, first, 0, |w| w.events(1, 1, [&events, &[]])).unwrap();
    // The same rights: the dictionary stays.
    let again = server.open(MonoTime(0), grant("wide"));
    let (taken, answer) = say(&mut server, again, 0, hello(1, "cme")).unwrap();
    assert_eq!(taken, "registered, empty false");
    assert_eq!(answer, ["last 5 credit 262149 names 1/1000000"]);
    // Its token now says less: what it defined before is not good any more, and events of it are not taken.
    let scope = crate::access::Scope::new(&[Verb::Publish], &["*".into()], &["ES*".into()]).unwrap();
    let less = rules().grant("wide", Some(scope), Quotas::default());
    let third = server.open(MonoTime(0), less);
    let (taken, answer) = say(&mut server, third, 0, hello(1, "cme")).unwrap();
    assert_eq!(taken, "registered, empty true");
    assert_eq!(answer, ["last 5 credit 262149 names 0/1000000"]);
    let (taken, answer) = say(&mut server, third, 0, |w| w.events(6, 1, [&events, &[]])).unwrap();
    assert_eq!((taken.as_str(), &*answer), ("Nothing", &["Position".to_owned()][..]));
    let close = say(&mut server, third, 0, |w| w.events(6, 0, [&events, &[]])).unwrap_err();
    assert_eq!(close.code, CloseCode::UNDEFINED_KEY);
    assert_eq!(say(&mut server, third, 0, define).unwrap_err().code, CloseCode::UNAUTHORIZED);
    let ledger = server.sources().next().unwrap().ledger;
    assert_eq!((ledger.accepted, ledger.ahead, ledger.refused, ledger.imbalance()), (5, 5, 5, 0));
}

#[test]
fn over_its_quota_a_principal_waits_for_credit() {
    let quotas = Quotas { events_per_second: Some(100), ..Quotas::default() };
    let who = Policy::default().grant("fast", None, quotas);
    let mut server = FeedServer::new(FeedServerOptions::default());
    let define = |w: &mut FrameWriter<'_>| assert_eq!(w.define(0, ["A"].into_iter()), 1);
    let one = server.open(MonoTime(0), who.clone());
    let (_, answer) = say(&mut server, one, 0, hello(1, "one")).unwrap();
    assert_eq!(answer, ["last 0 credit 100 names 0/1000000"]);
    say(&mut server, one, 0, define).unwrap();
    let events = samples(100);
    say(&mut server, one, 0, |w| w.events(1, 1, [&events, &[]])).unwrap();
    let sweep = |server: &mut FeedServer, now_ms: u64| {
        let mut out = Vec::new();
        server.sweep(MonoTime(now_ms * 1_000_000), |_, bytes| out.extend_from_slice(bytes), |_, _| {});
        answers(&out)
    };
    assert!(sweep(&mut server, 0).is_empty());
    assert_eq!(sweep(&mut server, 250), ["credit 125"]);
    // A second source of the same principal shares what comes; sources of others notice nothing.
    let two = server.open(MonoTime(0), who);
    let (_, answer) = say(&mut server, two, 500, hello(2, "two")).unwrap();
    assert_eq!(answer, ["last 0 credit 25 names 0/1000000"]);
    let free = server.open(MonoTime(0), Grant::default());
    let (_, answer) = say(&mut server, free, 500, hello(3, "free")).unwrap();
    assert_eq!(answer, ["last 0 credit 262144 names 0/1000000"]);
    // Beyond its credit it is refused, as anybody.
    let close = say(&mut server, one, 500, |w| w.events(101, 1, [&samples(26), &[]])).unwrap_err();
    assert_eq!(close.code, CloseCode::OVER_CREDIT);
    let sources: Vec<_> = server.sources().collect();
    assert_eq!((sources[0].throttled, sources[1].throttled, sources[2].throttled), (1, 0, 0));
    assert_eq!(sources[0].ledger.imbalance(), 0);
}

#[test]
fn a_flood_of_names_ends_at_the_quota() {
    let quotas = Quotas { symbols: Some(3), ..Quotas::default() };
    let who = Policy::default().grant("flood", None, quotas);
    let mut server = FeedServer::new(FeedServerOptions::default());
    let define = |names: &'static [&'static str]| {
        move |w: &mut FrameWriter<'_>| assert_eq!(w.define(0, names.iter().copied()), names.len() as u32)
    };
    let one = server.open(MonoTime(0), who.clone());
    let (_, answer) = say(&mut server, one, 0, hello(1, "one")).unwrap();
    assert_eq!(answer, ["last 0 credit 262144 names 0/3"]);
    assert_eq!(say(&mut server, one, 0, define(&["A", "B"])).unwrap().0, "names from 0: 2, over 0");
    // Another source of the same principal has what is left, and known names do not count again. Behind the first that has
    // no place none has, for events know them by number.
    let two = server.open(MonoTime(0), who);
    say(&mut server, two, 0, hello(2, "two")).unwrap();
    let (taken, _) = say(&mut server, two, 0, define(&["B", "C", "D", "A"])).unwrap();
    assert_eq!(taken, "names from 0: 2, over 2");
    let events: Vec<Event> = (0..4).map(|key| Event { key, ..samples(1)[0] }).collect();
    let (taken, _) = say(&mut server, two, 0, |w| w.events(1, 4, [&events, &[]])).unwrap();
    assert_eq!(taken, "4 events, 2 named");
    let ledger = server.sources().nth(1).unwrap().ledger;
    assert_eq!((ledger.accepted, ledger.overflowed, ledger.imbalance()), (4, 2, 0));
}

#[test]
fn a_quota_of_names_holds_over_a_restart() {
    let define = |names: &'static [&'static str]| {
        move |w: &mut FrameWriter<'_>| assert_eq!(w.define(0, names.iter().copied()), names.len() as u32)
    };
    let quotas = Quotas { symbols: Some(3), ..Quotas::default() };
    let who = Policy::default().grant("flood", None, quotas);
    let mut first = FeedServer::new(FeedServerOptions::default());
    let one = first.open(MonoTime(0), who.clone());
    say(&mut first, one, 0, hello(1, "one")).unwrap();
    say(&mut first, one, 0, define(&["A", "B"])).unwrap();
    say(&mut first, one, 0, |w| w.events(1, 2, [&samples(5), &[]])).unwrap();

    // As a journal has it, and as a snapshot has it.
    let mut read = FeedServer::new(FeedServerOptions::default());
    let session = first.stands(0).0;
    assert_eq!(read.recover_source(1, session, true, "one", "flood"), Some(0));
    read.recover_names(0, ["A", "B"].into_iter(), 0);
    read.recover_events(0, 1, 5);
    let mut restored = FeedServer::new(FeedServerOptions::default());
    restored.restore(&first.state()).unwrap();
    assert_eq!(restored.state(), read.state());
    for mut server in [read, restored] {
        let stats = server.sources().next().unwrap();
        assert_eq!((stats.last, stats.names, stats.ledger.accepted, stats.connected), (5, 2, 5, false));
        let two = server.open(MonoTime(0), who.clone());
        say(&mut server, two, 0, hello(2, "two")).unwrap();
        let (taken, _) = say(&mut server, two, 0, define(&["C", "A", "D"])).unwrap();
        assert_eq!(taken, "names from 0: 2, over 1", "two of three were used before");
        // Whoever has no quota now is not held to what was counted.
        let free = Policy::default().grant("flood", None, Quotas::default());
        let three = server.open(MonoTime(0), free);
        say(&mut server, three, 0, hello(3, "three")).unwrap();
        let (taken, _) = say(&mut server, three, 0, define(&["E", "F", "G", "H"])).unwrap();
        assert_eq!(taken, "names from 0: 4, over 0");
    }
}

#[test]
fn a_state_that_cannot_be_is_refused() {
    let mut server = FeedServer::new(FeedServerOptions::default());
    assert_eq!(server.recover_source(7, 1, true, "a", "x"), Some(0));
    assert_eq!(server.recover_source(8, 1, true, "b", "x"), Some(1));
    let good = server.state();
    let fresh = || FeedServer::new(FeedServerOptions::default());
    fresh().restore(&good).unwrap();
    let twice = FeedServerState::of(vec![good.source(0), good.source(0)]);
    assert_eq!(fresh().restore(&twice), Err(StateError::Twice(7)));
    server.recover_names(0, ["A"].into_iter(), 0);
    let mut named = server.state().source(0);
    named.set_keys(0);
    let error = fresh().restore(&FeedServerState::of(vec![named])).unwrap_err();
    assert_eq!(error, StateError::Names { rank: 0, names: 1, keys: 0 });
}

/// What a server of this version says first.
fn welcome(version: u8) -> Frame<'static> {
    Frame::HelloAck(crate::frame::HelloAck {
        version,
        ack_mode: AckMode::Leader,
        incarnation: 1,
        last: 0,
        credit: 9,
        names: 0,
        names_max: 9,
        heartbeat_ms: 1_000,
        streams: 0,
        server: "",
    })
}

#[test]
fn who_shows_a_token_speaks_to_those_who_can_read_it() {
    let offered = |credential: Option<crate::Credential<'_>>, group: Option<u16>| {
        let mut client = FeedClient::new(FeedClientOptions { group, ..FeedClientOptions::default() });
        client.present(credential);
        client.connected(MonoTime(0));
        let mut out = Vec::new();
        client.transmit(MonoTime(0), 1_000, &mut out).unwrap();
        let mut buffer = FrameBuffer::new(1);
        buffer.push(&out);
        let (offset, head, body) = buffer.next_frame().unwrap().unwrap();
        let Frame::Hello(hello) = Frame::read(offset, &head, body).unwrap() else { panic!("no hello") };
        assert_eq!((hello.credential, hello.group), (credential, group));
        let versions = (hello.version_min, hello.version_max);
        let mut answer =
            |version| client.handle(MonoTime(0), 0, &welcome(version)).map(drop).map_err(|close| close.code);
        (versions, answer(6), answer(3), answer(1))
    };
    let no = Err(CloseCode::VERSION);
    // Whoever answered once has the session's version; what comes behind is a late double.
    assert_eq!(offered(None, None), ((1, 5), no, Ok(()), Ok(())));
    let shown = crate::Credential { proof: &[7; 64], token: b"a.b.c" };
    assert_eq!(offered(Some(shown), None), ((2, 5), no, Ok(()), Ok(())));
    // Nor is a group's session taken up by a server that knows of no groups.
    assert_eq!(offered(None, Some(0)), ((4, 5), no, no, no));
    assert_eq!(offered(Some(shown), Some(9)), ((4, 5), no, no, no));
}

#[test]
fn what_groups_know_from_an_earlier_run_is_counted_up_to_what_one_does_not() {
    let map = GroupMap::new(1, vec![(0, 0), (2_048, 1)], vec![GroupLead::default(); 2]).unwrap();
    let mut split = SplitFeed::new(FeedClientOptions::default(), map.clone());
    let group = |name: &str| usize::from(map.group_of(slot_of(name_hash(name.as_bytes()))));
    let mut names = [None, None];
    for name in (0..).map(|at| format!("key-{at}")) {
        names[group(&name)].get_or_insert(name);
        if names.iter().all(Option::is_some) {
            break;
        }
    }
    let [a, b] = names.map(|name| split.define(&name.unwrap()).unwrap());
    for (group, last) in [(0, 3), (1, 2)] {
        split.connected(group, MonoTime(0));
        split.handle(group, MonoTime(0), 0, &welcome(4)).unwrap();
        let ack = Frame::Ack(crate::Ack { mode: AckMode::Leader, sequence: last, position: 0 });
        split.handle(group, MonoTime(0), 0, &ack).unwrap();
    }
    let of = |key| Event { kind: kind::SAMPLE, key, ..Event::default() };
    let gap = Event { kind: kind::GAP, ..Event::default() };
    assert_eq!(split.known(&[a, a, b, b, b, a].map(of)), 4);
    assert_eq!(split.known(&[of(a), gap, gap, of(b)]), 3);
    assert_eq!(split.known(&[a, a, a, a].map(of)), 3);
    assert_eq!(split.offer(&[a, b].map(of)), 2);
    // The first also told the other group the time, which is one of the two that it knows.
    assert_eq!((split.unacked(), split.known(&[a, a, b].map(of)), split.known(&[b].map(of))), (0, 2, 0));
}

/// A feed that died sent more than was committed by then; the one that goes on has offered less when that happens.
#[test]
fn what_an_earlier_run_sent_may_be_acknowledged_before_it_is_offered_again() {
    let mut client = FeedClient::new(FeedClientOptions { unacked_max: 50, ..FeedClientOptions::default() });
    client.define("one");
    client.connected(MonoTime(0));
    client.handle(MonoTime(0), 0, &welcome(1)).unwrap();
    assert_eq!(client.offer(&samples(20)), 20);
    let ack = |sequence| Frame::Ack(crate::Ack { mode: AckMode::Leader, sequence, position: 0 });
    client.handle(MonoTime(0), 0, &ack(90)).unwrap();
    client.handle(MonoTime(0), 0, &Frame::Credit { limit: 500 }).unwrap();
    assert_eq!((client.acked(), client.settled(), client.unacked()), (90, 90, 0));
    assert_eq!((client.known(&samples(100)), client.known(&samples(10))), (70, 10));
    assert_eq!((client.offer(&samples(100)), client.offered()), (100, 120));
    assert_eq!(client.known(&samples(100)), 0);
    assert_eq!((client.skipped(), client.unacked()), (70, 30));
    let mut out = Vec::new();
    client.transmit(MonoTime(0), 1 << 20, &mut out).unwrap();
    let mut buffer = FrameBuffer::new(4);
    buffer.push(&out);
    let mut sent = Vec::new();
    while let Some((offset, head, body)) = buffer.next_frame().unwrap() {
        let (frame, mut events) = (Frame::read(offset, &head, body).unwrap(), Vec::new());
        if let Frame::Events { sequence, events, .. } = frame.unpacked(&mut events).unwrap() {
            sent.push((sequence, events.len()));
        }
    }
    assert_eq!(sent, [(91, 30)]);
}

#[test]
fn events_are_packed_for_those_who_can_unpack_them() {
    let sent = |packed, version| {
        let mut client = FeedClient::new(FeedClientOptions { packed, ..FeedClientOptions::default() });
        client.connected(MonoTime(0));
        client.transmit(MonoTime(0), 1_000, &mut Vec::new()).unwrap();
        client.handle(MonoTime(0), 0, &welcome(version)).unwrap();
        let event = |kind| Event { ts_event: 7, kind, payload: [5, 6], ..Event::default() };
        let events = [event(1), event(1), event(2)].repeat(2);
        assert_eq!(client.offer(&events[..2]), 2);
        let (mut out, mut kinds, mut found) = (Vec::new(), Vec::new(), Vec::new());
        client.transmit(MonoTime(0), 1_000, &mut out).unwrap();
        assert_eq!(client.offer(&events[2..]), 4);
        client.transmit(MonoTime(0), 1_000, &mut out).unwrap();
        let (mut buffer, mut unpacked) = (FrameBuffer::new(1), Vec::new());
        buffer.push(&out);
        while let Some((offset, head, body)) = buffer.next_frame().unwrap() {
            kinds.push(head.kind);
            match Frame::read(offset, &head, body).unwrap().unpacked(&mut unpacked).unwrap() {
                Frame::Events { sequence, events, .. } => {
                    assert_eq!(sequence, found.len() as u64 + 1);
                    found.extend_from_slice(events);
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(found, events);
        kinds
    };
    // The second run begins with another kind than it goes on with, and is too short to be cut in two.
    assert_eq!(sent(true, 3), [FrameType::Packed, FrameType::Events]);
    assert_eq!(sent(true, 2), [FrameType::Events, FrameType::Events]);
    assert_eq!(sent(false, 3), [FrameType::Events, FrameType::Events]);
}

/// Hands a datagram with one frame over, and takes what is released; events released, and lost in front of them.
fn datagram(
    server: &mut FeedServer,
    connection: ConnectionId,
    now_ms: u64,
    write: impl FnOnce(&mut FrameWriter<'_>),
) -> Result<(u64, u64), Close> {
    let mut bytes = Vec::new();
    write(&mut FrameWriter::new(&mut bytes));
    let mut buffer = FrameBuffer::new(1);
    buffer.push(&bytes);
    let (offset, head, body) = buffer.next_frame().unwrap().unwrap();
    let frame = Frame::read(offset, &head, body).unwrap();
    let now = MonoTime(now_ms * 1_000_000);
    let taken = server.handle_datagram(connection, now, &frame, &mut Vec::new())?;
    let mut sums = match taken {
        Taken::Events { events, .. } => (events.len() as u64, 0),
        Taken::Nothing => (0, 0),
        other => panic!("{other:?}"),
    };
    while let Some(released) = server.release(connection, now, false)? {
        sums = (sums.0 + released.events.len() as u64, sums.1 + released.lost);
    }
    Ok(sums)
}

#[test]
fn datagrams_wait_for_their_turn_up_to_a_bound_and_a_time() {
    let options = FeedServerOptions { reorder_frames: 3, ..FeedServerOptions::default() };
    let mut server = FeedServer::new(options);
    let connection = server.open(MonoTime(0), grant("wide"));
    let early = datagram(&mut server, connection, 0, |w| w.events(1, 0, [&samples(1), &[]]));
    assert!(early.unwrap_err().reason.contains("before HELLO"));
    say(&mut server, connection, 0, hello(1, "cme")).unwrap();
    say(&mut server, connection, 0, |w| assert_eq!(w.define(0, ["ES"].into_iter()), 1)).unwrap();
    let mut two =
        |at: u64, now| datagram(&mut server, connection, now, |w| w.events(at, 1, [&samples(2), &[]]));
    assert_eq!(two(1, 0), Ok((2, 0)));
    // 3 and 4 are missing; what follows waits, a double is one.
    assert_eq!((two(5, 1), two(9, 1), two(5, 1)), (Ok((0, 0)), Ok((0, 0)), Ok((0, 0))));
    assert_eq!(two(3, 2), Ok((4, 0)), "and then comes up to the next that is missing");
    // One more than may wait: what is missing before the first of them is lost.
    assert_eq!((two(13, 3), two(17, 3)), (Ok((0, 0)), Ok((0, 0))));
    assert_eq!(two(21, 3), Ok((2, 2)));
    // 11, 12, 15, 16, 19 and 20 after as long as is waited, told by the next that comes, which follows at once.
    assert_eq!(two(23, 23), Ok((8, 6)));
    // Late after all: known as lost.
    assert_eq!(two(7, 24), Ok((0, 0)));
    let ledger = server.sources().next().unwrap().ledger;
    assert_eq!((ledger.accepted, ledger.declared_lost, ledger.duplicate, ledger.held), (16, 8, 4, 0));
    assert_eq!(ledger.imbalance(), 0);
    // Left waiting at the end, and anything but events.
    assert_eq!(datagram(&mut server, connection, 30, |w| w.events(99, 1, [&samples(1), &[]])), Ok((0, 0)));
    let other = datagram(&mut server, connection, 30, |w| w.gap(25, 26)).unwrap_err();
    assert!(other.reason.contains("in a datagram"), "{other}");
    server.closed(connection);
    let ledger = server.sources().next().unwrap().ledger;
    assert_eq!((ledger.ahead, ledger.held, ledger.imbalance()), (1, 0, 0));
}
