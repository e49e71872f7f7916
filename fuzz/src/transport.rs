//! The wire: bytes of a peer, on every state machine that reads them.

use std::collections::BTreeSet;
use std::sync::Arc;
use tidegate_engine::{Event, Output, kind, name_hash, output_kind, slot_of};
use tidegate_proto::feed::{FeedClient, FeedClientOptions, FeedServer, FeedServerOptions, SplitFeed, Taken};
use tidegate_proto::frame::{Hello, HelloAck};
use tidegate_proto::hub::{Hub, HubOptions, Polled, StreamMeta};
use tidegate_proto::subscriber::{Catalogue, Request, SubscriberClient, SubscriberSession};
use tidegate_proto::subscription::{Conflation, Keys, LagPolicy, Start, Subscription};
use tidegate_proto::{
    Ack, AckMode, Close, CloseCode, Credential, Frame, FrameBuffer, FrameError, FrameWriter, Grant, GroupLead,
    GroupMap, MonoTime, Plane, StreamKind,
};

/// Hands every frame of a stream to `each`, until an error.
fn stream(
    bytes: &[u8],
    mut each: impl FnMut(u64, &Frame<'_>) -> Result<(), Close>,
) -> Result<(), FrameError> {
    let (mut buffer, mut rest) = (FrameBuffer::new(1), bytes);
    loop {
        let taken = buffer.push(rest);
        rest = &rest[taken..];
        while let Some((offset, head, body)) = buffer.next_frame()? {
            let (frame, mut events) = (Frame::read(offset, &head, body)?, Vec::new());
            if each(offset, &frame.unpacked(&mut events)?).is_err() {
                return Ok(());
            }
        }
        if rest.is_empty() {
            return buffer.finish();
        }
    }
}

/// A stream of frames: the same however it is cut, and everything in a frame can be gone through.
pub fn frames(bytes: &[u8]) {
    let mut seen = Vec::new();
    let whole = stream(bytes, |offset, frame| {
        seen.push((offset, frame.kind()));
        match frame {
            Frame::Define(define) => assert_eq!(define.names.iter().count(), define.names.len() as usize),
            Frame::Events { events, .. } => assert!(!events.is_empty()),
            Frame::Groups(groups) => {
                // What is taken up is told on as it is, as far as addresses are those of leaders.
                if let Ok(map) = GroupMap::of(groups) {
                    assert!((0..4_096).all(|slot| usize::from(map.group_of(slot)) < map.len()));
                    let mut out = Vec::new();
                    FrameWriter::new(&mut out).groups(&map);
                    let _ = stream(&out, |_, frame| {
                        let Frame::Groups(again) = frame else { panic!("another frame") };
                        assert_eq!(GroupMap::of(again), Ok(map.clone()));
                        Ok(())
                    });
                }
            }
            Frame::Names(names) => assert!(names.iter().all(|(_, name)| !name.is_empty())),
            Frame::Records(records) => assert_eq!(records.iter().count(), records.count as usize),
            Frame::Edge(edge) => assert!(edge.iter().all(|(slot, next)| slot < 4_096 && next > 0)),
            Frame::Stream(stream) => assert!(stream.texts.iter().count() > 0),
            _ => {}
        }
        Ok(())
    });
    // Byte by byte through two buffers, as a driver hands them on.
    let (mut buffer, mut other, mut again) = (FrameBuffer::new(1), FrameBuffer::new(1), Vec::new());
    let step = 1 + bytes.len() / 64;
    let (mut error, mut events) = (None, Vec::new());
    for part in bytes.chunks(step) {
        let mut part = part;
        while !part.is_empty() && error.is_none() {
            part = &part[buffer.push(part)..];
            if buffer.has_frame() {
                buffer.split_rest(&mut other);
                loop {
                    match buffer.next_frame() {
                        Ok(Some((offset, head, body))) => {
                            let frame = Frame::read(offset, &head, body);
                            match frame.as_ref().map(|frame| frame.unpacked(&mut events)) {
                                Ok(Ok(frame)) => again.push((offset, frame.kind())),
                                Ok(Err(found)) => error = Some(found),
                                Err(found) => error = Some(found.clone()),
                            }
                        }
                        Ok(None) => break,
                        Err(found) => error = Some(found),
                    }
                    if error.is_some() {
                        break;
                    }
                }
                std::mem::swap(&mut buffer, &mut other);
            }
        }
    }
    assert_eq!(seen, again);
    match (whole, error) {
        (Err(FrameError::Truncated { .. }) | Ok(()), None) => {}
        (Err(whole), Some(error)) => assert_eq!(whole, error),
        (whole, error) => panic!("{whole:?} and {error:?}"),
    }
}

fn catalogue() -> Arc<Catalogue> {
    let streams = vec![
        StreamMeta { name: "bars.1s".into(), kind: StreamKind::Bars, columns: vec![] },
        StreamMeta { name: "ind.1s".into(), kind: StreamKind::Values, columns: vec!["rsi".into()] },
    ];
    Arc::new(Catalogue {
        streams,
        ended: BTreeSet::new(),
        server: "fuzz".into(),
        incarnation: 1,
        heartbeat_ms: 1_000,
        silence_ns: 10_000_000_000,
        hello_ns: 2_000_000_000,
    })
}

/// The first byte chooses who is spoken to; the rest is what the peer says.
pub fn sessions(bytes: &[u8]) {
    let Some((&who, bytes)) = bytes.split_first() else { return };
    match who % 4 {
        0 => feed_server(bytes, who & 4 != 0),
        1 if who & 8 != 0 => feed_split(bytes),
        1 => feed_client(bytes, who & 4 != 0),
        2 => subscriber_session(bytes),
        _ => subscriber_client(bytes),
    }
}

/// With `datagrams`, events come by those.
fn feed_server(bytes: &[u8], datagrams: bool) {
    let options = FeedServerOptions {
        names_max: 8,
        credit_events: 4_096,
        reorder_frames: 3,
        ..FeedServerOptions::default()
    };
    let mut server = FeedServer::new(options);
    let connection = server.open(MonoTime(0), Grant::default());
    let (mut logged, mut names, mut now) = (0, 0, 0);
    let _ = stream(bytes, |offset, frame| {
        let mut out = Vec::new();
        now += 1_000_000;
        let taken = if datagrams && matches!(frame, Frame::Events { .. }) {
            server.handle_datagram(connection, MonoTime(now), frame, &mut out)
        } else {
            server.handle(connection, MonoTime(now), offset, frame, &mut out)
        };
        frames(&out);
        match taken? {
            Taken::Events { events, named, .. } => {
                assert!(u64::from(named) <= names);
                logged += events.len() as u64;
            }
            Taken::Names { names: fresh, .. } => names += fresh.len() as u64,
            Taken::Registered { new_session: true, .. } => names = 0,
            _ => {}
        }
        while let Some(released) = server.release(connection, MonoTime(now), false)? {
            assert!(datagrams && !released.events.is_empty() && u64::from(released.named) <= names);
            logged += released.events.len() as u64;
        }
        out.clear();
        server.acknowledge(connection, MonoTime(now), logged, true, &mut out);
        frames(&out);
        Ok(())
    });
    for source in server.sources() {
        assert_eq!(source.ledger.imbalance(), 0);
        assert_eq!(source.ledger.accepted, logged);
        assert!(names <= 8);
    }
    server.closed(connection);
    assert_eq!(server.connections(), 0);
}

fn feed_client(bytes: &[u8], datagrams: bool) {
    let ack_mode = if datagrams { AckMode::None } else { AckMode::Leader };
    let options =
        FeedClientOptions { unacked_max: 5_000, datagrams, ack_mode, ..FeedClientOptions::default() };
    let mut client = FeedClient::new(options);
    client.define("one");
    client.connected(MonoTime(0));
    let events = [Event { kind: kind::SAMPLE, ..Event::default() }; 700];
    let mut now = 0;
    let _ = stream(bytes, |offset, frame| {
        now += 1_000_000;
        client.offer(&events);
        assert!(client.unacked() <= 5_000);
        client.handle(MonoTime(now), offset, frame)?;
        let mut out = Vec::new();
        client.transmit(MonoTime(now), 100_000, &mut out)?;
        assert!(out.len() <= 300_000, "{} bytes at once", out.len());
        frames(&out);
        let mut datagram = Vec::new();
        while client.transmit_datagram(MonoTime(now), 1_200, &mut datagram) {
            assert!(datagram.len() <= 1_200);
            frames(&datagram);
            datagram.clear();
        }
        Ok(())
    });
}

/// The servers of two groups, whose words come by turns.
fn feed_split(bytes: &[u8]) {
    let Ok(map) = GroupMap::new(1, vec![(0, 0), (2_048, 1)], vec![GroupLead::default(); 2]) else { return };
    let options = FeedClientOptions { unacked_max: 3_000, ..FeedClientOptions::default() };
    let mut feed = SplitFeed::new(options, map);
    for at in 0..9 {
        feed.define(&format!("K{at}"));
    }
    (0..2).for_each(|group| feed.connected(group, MonoTime(0)));
    let events: Vec<Event> = (0..500)
        .map(|at| {
            let kind = if at % 50 == 0 { kind::GAP } else { kind::SAMPLE };
            Event { kind, key: at % 9, ..Event::default() }
        })
        .collect();
    let (mut now, mut settled) = (0, 0);
    let _ = stream(bytes, |offset, frame| {
        now += 1_000_000;
        let group = (now / 1_000_000 % 2) as u16;
        feed.offer(&events);
        feed.handle(group, MonoTime(now), offset, frame)?;
        assert!(feed.unacked() <= 3_000 && feed.settled() >= settled && feed.settled() <= feed.offered());
        settled = feed.settled();
        let mut out = Vec::new();
        feed.transmit(group, MonoTime(now), 100_000, &mut out)?;
        frames(&out);
        Ok(())
    });
}

fn subscriber_session(bytes: &[u8]) {
    let catalogue = catalogue();
    let options = HubOptions { ring_records: 64, keys_max: 16, ..HubOptions::default() };
    let mut hub = Hub::new(catalogue.streams.clone(), options).expect("these options are in range");
    let mut session = SubscriberSession::new(catalogue, MonoTime(0));
    let (mut readers, mut now) = (Vec::new(), 0);
    let _ = stream(bytes, |offset, frame| {
        now += 1_000_000;
        let mut out = Vec::new();
        let request = session.handle(MonoTime(now), offset, frame, &mut out)?;
        if let Request::Subscribe(spec) = request {
            publish(&mut hub, 40);
            let outcome = hub.subscribe(&spec, MonoTime(now));
            readers.extend(outcome.clone());
            let budget = outcome.map(|id| hub.lag_budget(id).unwrap_or(0));
            session.subscribed(MonoTime(now), budget, &mut out)?;
        }
        frames(&out);
        publish(&mut hub, 90);
        for &id in &readers {
            let mut polled = Polled::More;
            for _ in 0..1_000 {
                let mut out = Vec::new();
                polled = hub.poll_frames(id, MonoTime(now), 5_000, &mut out);
                out.iter().for_each(|bytes| frames(bytes));
                if polled != Polled::More {
                    break;
                }
            }
            assert_ne!(polled, Polled::More, "it never has enough");
            if let Some(stats) = hub.subscriber(id) {
                assert_eq!(stats.imbalance(), 0);
            }
        }
        Ok(())
    });
}

fn publish(hub: &mut Hub, count: u64) {
    let records = (0..count).map(|at| {
        let name = format!("K{}", at % 7);
        hub.define(&name);
        let hash = name_hash(name.as_bytes());
        let stream = (at % 2) as u16;
        let sequence = 1 + hub.stream_stats(stream).map_or(0, |stats| stats.published) + at;
        Output {
            name: hash,
            slot: slot_of(hash),
            sequence,
            stream,
            kind: output_kind::BAR,
            count: 16,
            ..Output::default()
        }
    });
    let records: Vec<Output> = records.collect();
    hub.publish(&records);
}

fn subscriber_client(bytes: &[u8]) {
    let spec = Subscription { start: Start::Snapshot, ..Subscription::to(["bars.1s", "ind.1s"]) };
    let Ok(mut client) = SubscriberClient::new("fuzz", spec) else { return };
    for _ in 0..2 {
        let mut out = Vec::new();
        client.connected(MonoTime(0), &mut out);
        let _ =
            stream(bytes, |offset, frame| client.handle(MonoTime(1), offset, frame, &mut out, &mut |_| {}));
        frames(&out);
    }
}

/// Sessions as they should be.
pub(crate) fn seeds() -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    fn write(act: impl FnOnce(&mut FrameWriter<'_>)) -> Vec<u8> {
        let mut out = Vec::new();
        act(&mut FrameWriter::new(&mut out));
        out
    }
    let hello = |plane| {
        write(|w| {
            w.hello(&Hello {
                version_min: 1,
                version_max: 1,
                plane,
                group: None,
                ack_mode: AckMode::Leader,
                source_id: 1,
                session: 2,
                name: "seed",
                credential: None,
            });
        })
    };
    let welcome_of = |version, streams| {
        write(|w| {
            w.hello_ack(&HelloAck {
                version,
                ack_mode: if streams == 0 { AckMode::Leader } else { AckMode::None },
                incarnation: 1,
                last: 0,
                credit: 900,
                names: 0,
                names_max: 9,
                heartbeat_ms: 1_000,
                streams,
                server: "seed",
            });
        })
    };
    let welcome = |streams| welcome_of(1, streams);
    let shown = write(|w| {
        w.hello(&Hello {
            version_min: 2,
            version_max: 2,
            plane: Plane::Feed,
            group: None,
            ack_mode: AckMode::None,
            source_id: 1,
            session: 2,
            name: "seed",
            credential: Some(Credential { proof: &[7; 64], token: b"e30.e30.AAAA" }),
        });
    });
    let events = [Event { kind: kind::SAMPLE, key: 1, ..Event::default() }; 3];
    let feed = [
        hello(Plane::Feed),
        write(|w| assert_eq!(w.define(0, ["one", "two"].into_iter()), 2)),
        write(|w| w.events(1, 2, [&events, &[]])),
        write(|w| w.gap(4, 5)),
        write(|w| w.events(6, 2, [&events, &events])),
        write(|w| w.resume(1)),
        write(|w| w.heartbeat(1, 1)),
        write(|w| w.close(CloseCode::FINISHED, "")),
    ]
    .concat();
    let lead = |node: u16| GroupLead {
        node: Some(node),
        address: Some(([10, 0, 0, node as u8], 7_443).into()),
        epoch: 3,
        held: true,
    };
    let map = GroupMap::new(9, vec![(0, 0), (2_048, 1), (4_000, 0)], vec![lead(1), lead(2)]);
    let groups = write(|w| w.groups(&map.expect("the seed is in range")));
    let of_group = write(|w| {
        w.hello(&Hello {
            version_min: 4,
            version_max: 4,
            plane: Plane::Feed,
            group: Some(1),
            ack_mode: AckMode::Committed,
            source_id: 1,
            session: 2,
            name: "seed",
            credential: None,
        });
    });
    let to_split = [
        groups.clone(),
        welcome_of(4, 0),
        welcome_of(4, 0),
        write(|w| w.ack(Ack { mode: AckMode::Leader, sequence: 200, position: 200 })),
        write(|w| w.credit(3_000)),
        write(|w| w.ack(Ack { mode: AckMode::Leader, sequence: 300, position: 300 })),
        write(|w| w.close(CloseCode::NOT_LEADER, "10.0.0.2:7443 (node 2) leads group 1 in epoch 7")),
    ]
    .concat();
    let to_feed = [
        welcome(0),
        write(|w| w.ack(Ack { mode: AckMode::Leader, sequence: 700, position: 700 })),
        write(|w| w.credit(3_000)),
        write(|w| w.position(600, 1)),
        write(|w| w.close(CloseCode::SUPERSEDED, "newer")),
    ]
    .concat();
    let mut ask = hello(Plane::Subscribe);
    let spec = Subscription {
        keys: Keys::of_patterns(["K1*", "K2"]),
        start: Start::Sequence { default: 3, slots: vec![(0, 5, 6)] },
        conflation: Conflation::Every(5),
        policy: LagPolicy::Conflate,
        ..Subscription::to(["bars.1s", "ind.1s"])
    };
    let id = |name: &str| Some(u16::from(name == "ind.1s"));
    spec.encode(id, &mut ask).expect("the seed is in range");
    let mut simple = hello(Plane::Subscribe);
    let spec = Subscription { start: Start::Snapshot, ..Subscription::to(["bars.1s"]) };
    spec.encode(id, &mut simple).expect("the seed is in range");
    let catalogue = catalogue();
    let mut hub = Hub::new(catalogue.streams.clone(), HubOptions::default()).expect("defaults are in range");
    publish(&mut hub, 20);
    let mut answer = [groups, welcome(2)].concat();
    for (at, stream) in (0u16..).zip(&catalogue.streams) {
        answer.extend(write(|w| w.stream(at, stream.kind, &stream.name, &stream.columns)));
    }
    answer.extend(write(|w| w.subscribed(9, 2)));
    if let Ok(reader) = hub.subscribe(&spec, MonoTime(0)) {
        publish(&mut hub, 9);
        let mut out = Vec::new();
        while hub.poll_frames(reader, MonoTime(0), 1_000, &mut out) == Polled::More {}
        out.iter().for_each(|bytes| answer.extend_from_slice(bytes));
    }
    let all = [feed, to_feed, ask, answer, simple, shown, of_group, to_split];
    let who = [0u8, 1, 2, 3, 2, 0, 0, 9];
    let sessions = std::iter::zip(who, &all).map(|(who, bytes)| [&[who], &bytes[..]].concat()).collect();
    (all.to_vec(), sessions)
}
