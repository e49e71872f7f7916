//! Feeds and a server over links that lose, double, delay, overtake and break, all from one seed.

use super::*;
use crate::access::{Grant, Policy, Quotas};
use crate::frame::{AckMode, Frame};
use crate::time::{MILLISECOND_NS, MonoTime};
use crate::wire::FrameBuffer;
use tidegate_engine::{Event, kind};

/// SplitMix64: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// What goes wrong in one run; each seed draws its own mixture.
#[derive(Debug)]
struct Faults {
    loss: u64,
    double: u64,
    delay_ms: u64,
    cut: u64,
    kill_feed: u64,
    kill_server: u64,
    unnoticed: u64,
}

impl Faults {
    fn swarm(random: &mut Random) -> Self {
        let mut some = |most: u64| if random.percent(50) { 0 } else { 1 + random.below(most) };
        Self {
            loss: some(30),
            double: some(20),
            delay_ms: some(80),
            cut: some(3),
            kill_feed: some(2),
            kill_server: some(1),
            unnoticed: some(80),
        }
    }

    const NONE: Self =
        Self { loss: 0, double: 0, delay_ms: 0, cut: 0, kill_feed: 0, kill_server: 0, unnoticed: 0 };
}

/// One direction of a connection: frames and when they arrive.
#[derive(Default)]
struct Wire(Vec<(u64, u64, Vec<u8>)>);

impl Wire {
    fn send(&mut self, bytes: &[u8], now: u64, number: &mut u64, faults: &Faults, random: &mut Random) {
        let mut at = 0;
        while at < bytes.len() {
            let head = crate::FrameHead::read(&bytes[at..], 0).unwrap().unwrap();
            let frame = &bytes[at..at + head.frame_bytes()];
            at += frame.len();
            for _ in 0..1 + u64::from(random.percent(faults.double)) {
                if !random.percent(faults.loss) {
                    *number += 1;
                    let arrives = now + 1 + random.below(faults.delay_ms + 1);
                    self.0.push((arrives, *number, frame.to_vec()));
                }
            }
        }
    }

    /// Frames that have arrived, in order of arrival.
    fn receive(&mut self, now: u64) -> Vec<Vec<u8>> {
        self.0.sort();
        let due = self.0.iter().position(|(at, ..)| *at > now).unwrap_or(self.0.len());
        self.0.drain(..due).map(|(_, _, frame)| frame).collect()
    }
}

const NAMES: u32 = 7;

fn event(sequence: u64) -> Event {
    let mut event = Event { ts_event: sequence, kind: kind::SAMPLE, ..Event::default() };
    // New names keep coming while events flow.
    event.key = (sequence % u64::from(NAMES).min(1 + sequence / 20)) as u32;
    event.payload = [sequence, 0];
    event
}

/// The feed's process: what it has read so far is lost when it dies.
struct Feed {
    client: FeedClient,
    read: u64,
    closing: bool,
}

impl Feed {
    fn new(mode: AckMode, unacked_max: usize, datagrams: bool) -> Self {
        let client = FeedClient::new(FeedClientOptions {
            source_id: 7,
            session: 42,
            group: None,
            ack_mode: mode,
            name: "sim".into(),
            unacked_max,
            retry_ns: 150 * MILLISECOND_NS,
            silence_ns: 3_000 * MILLISECOND_NS,
            packed: unacked_max.is_multiple_of(2),
            datagrams,
        });
        Self { client, read: 0, closing: false }
    }

    fn read_on(&mut self, total: u64, most: usize) {
        let count = (total - self.read).min(most as u64);
        let events: Vec<Event> = (self.read + 1..=self.read + count).map(event).collect();
        for event in &events {
            while event.key >= self.client.defined() {
                let name = format!("key-{}", self.client.defined());
                assert!(self.client.define(&name).is_some());
            }
        }
        self.read += self.client.offer(&events) as u64;
    }
}

struct Outcome {
    log: Vec<u64>,
    lost: u64,
    last: u64,
    trace: u64,
}

fn run(seed: u64, faults: Option<Faults>, mode: AckMode) -> Outcome {
    run_by(seed, faults, mode, false)
}

/// With `datagrams` the faults are theirs, and the stream beside them keeps its word.
fn run_by(seed: u64, faults: Option<Faults>, mode: AckMode, datagrams: bool) -> Outcome {
    let random = &mut Random(seed);
    let mut faults = faults.unwrap_or_else(|| Faults::swarm(random));
    if mode == AckMode::None {
        faults.kill_server = 0; // what it had is gone then, and nothing was promised
    }
    let total = 50 + random.below(250);
    let unacked_max = 1 + random.below(60) as usize;
    let credit_events = 1 + random.below(100);
    let options = |incarnation| FeedServerOptions {
        credit_events,
        incarnation,
        silence_ns: 3_000 * MILLISECOND_NS,
        hello_ns: 1_000 * MILLISECOND_NS,
        heartbeat_ms: 500,
        ..FeedServerOptions::default()
    };
    // Drawn apart, so that seeds found before still mean the same. The slowest needs some 20 s for everything.
    let mut quota = Random(seed ^ 0x71_07a5);
    let events_per_second = quota.percent(30).then(|| 20 + quota.below(2_000));
    let quotas = Quotas { events_per_second, ..Quotas::default() };
    let grant = Policy::default().grant("sim", None, quotas);
    let mut begun_ms = 0;
    let mut server = FeedServer::new(options(1));
    let mut incarnation = 1;
    let mut feed = Feed::new(mode, unacked_max, datagrams);
    let (mut log, mut keys, mut lost): (Vec<u64>, Vec<String>, u64) = (Vec::new(), Vec::new(), 0);
    let mut link: Option<(ConnectionId, Wire, Wire)> = None;
    let (mut air, mut ended) = (Wire::default(), false);
    let (mut number, mut trace) = (0, 0u64);
    let mut acked = 0;
    let mut now_ms = 0;
    loop {
        now_ms += 10;
        // In the end the faults stop, and then it must also come to its end.
        if now_ms > 4_000 {
            faults = Faults::NONE;
        }
        assert!(now_ms < 60_000, "seed {seed}: no end in sight: {:?} {faults:?}", feed.client);
        let now = MonoTime(now_ms * MILLISECOND_NS);
        if random.percent(faults.kill_server) {
            incarnation += 1;
            server = FeedServer::new(options(incarnation));
            (log, keys, lost, link, acked) = (Vec::new(), Vec::new(), 0, None, 0);
            begun_ms = now_ms;
            feed.client.disconnected();
        }
        if random.percent(faults.kill_feed) {
            feed = Feed::new(mode, unacked_max, datagrams);
            if let Some((id, ..)) = link.take() {
                server.closed(id);
            }
        }
        if random.percent(faults.cut)
            && let Some((id, ..)) = link.take()
        {
            feed.client.disconnected();
            if !random.percent(faults.unnoticed) {
                server.closed(id);
            }
        }
        let (id, up, down) = link.get_or_insert_with(|| {
            feed.client.connected(now);
            (server.open(now, grant.clone()), Wire::default(), Wire::default())
        });
        feed.read_on(total, 1 + random.below(40) as usize);
        if feed.read == total && !feed.closing {
            feed.closing = true;
            feed.client.finish();
        }
        let mut out = Vec::new();
        let sent = feed.client.transmit(now, 4_096, &mut out);
        let calm = Faults::NONE;
        let steady = if datagrams { &calm } else { &faults };
        up.send(&out, now_ms, &mut number, steady, random);
        ended |= sent == Ok(true);
        let mut datagram = Vec::new();
        while feed.client.transmit_datagram(now, 40 + random.below(300) as usize, &mut datagram) {
            air.send(&datagram, now_ms, &mut number, &faults, random);
            datagram.clear();
        }
        let mut broken = sent.is_err();
        let mut answer = Vec::new();
        let mut closing = None;
        let arrived = up.receive(now_ms).into_iter().map(|bytes| (false, bytes));
        for (by_datagram, bytes) in arrived.chain(air.receive(now_ms).into_iter().map(|bytes| (true, bytes)))
        {
            trace = trace.wrapping_mul(31).wrapping_add(bytes.len() as u64 + now_ms);
            let mut buffer = FrameBuffer::new(1);
            buffer.push(&bytes);
            let (offset, head, body) = buffer.next_frame().unwrap().unwrap();
            let frame = Frame::read(offset, &head, body).unwrap();
            let mut unpacked = Vec::new();
            let frame = frame.unpacked(&mut unpacked).unwrap();
            let mut released = Vec::new();
            let taken = if by_datagram {
                server.handle_datagram(*id, now, &frame, &mut answer)
            } else {
                if matches!(frame, Frame::Gap { .. } | Frame::Close { .. }) {
                    released.extend(std::iter::from_fn(|| server.release(*id, now, true).unwrap()));
                }
                take_released(&mut released, &keys, &mut log, &mut lost);
                server.handle(*id, now, 0, &frame, &mut answer)
            };
            match taken {
                Ok(Taken::Events { events, named, .. }) => {
                    for event in events {
                        assert!(event.key < named);
                        assert_eq!(keys[event.key as usize], format!("key-{}", event.key), "seed {seed}");
                        log.push(event.payload[0]);
                    }
                }
                Ok(Taken::Names { first, names, .. }) => {
                    assert_eq!(first as usize, keys.len(), "seed {seed}");
                    keys.extend(names.into_iter().map(str::to_owned));
                }
                Ok(Taken::Lost { count, .. }) => lost += count,
                Ok(Taken::Registered { new_session, superseded, .. }) => {
                    assert!(!new_session || (keys.is_empty() && log.is_empty() && lost == 0), "seed {seed}");
                    if let Some((older, _)) = superseded {
                        server.closed(older);
                    }
                }
                Ok(Taken::Nothing) => {}
                Ok(Taken::Finished { .. }) => closing = Some(()),
                // Datagrams of the connection before, that a driver never sees.
                Err(close) if by_datagram => {
                    assert!(close.reason.contains("before HELLO"), "seed {seed}: {close}")
                }
                Err(close) => panic!("seed {seed}: {close}"),
            }
            released.extend(std::iter::from_fn(|| server.release(*id, now, false).unwrap()));
            take_released(&mut released, &keys, &mut log, &mut lost);
        }
        server.acknowledge(*id, now, log.len() as u64, true, &mut answer);
        let mut beats = Vec::new();
        let mut silent = false;
        server.sweep(now, |to, bytes| beats.push((to, bytes.to_vec())), |gone, _| silent |= gone == *id);
        beats.iter().filter(|(to, _)| to == id).for_each(|(_, bytes)| answer.extend_from_slice(bytes));
        down.send(&answer, now_ms, &mut number, &faults, random);
        for bytes in down.receive(now_ms) {
            trace = trace.wrapping_mul(37).wrapping_add(bytes.len() as u64 + now_ms);
            let mut buffer = FrameBuffer::new(1);
            buffer.push(&bytes);
            let (offset, head, body) = buffer.next_frame().unwrap().unwrap();
            let frame = Frame::read(offset, &head, body).unwrap();
            match feed.client.handle(now, 0, &frame) {
                Ok(Some(FeedEvent::Acked { sequence, .. })) => acked = acked.max(sequence),
                Ok(Some(FeedEvent::Closed(_))) => broken = true,
                Ok(_) => {}
                Err(close) => panic!("seed {seed}: {close}"),
            }
        }
        // What was promised is there.
        let source = server.sources().next();
        if let Some(source) = &source {
            assert_eq!(source.ledger.imbalance(), 0, "seed {seed}: {:?}", source.ledger);
            if let Some(rate) = events_per_second {
                // What the rate brought, and a second's worth saved up.
                let most = rate + rate * (now_ms - begun_ms) / 1_000;
                assert!(source.ledger.accepted <= most, "seed {seed}: {} of {most}", source.ledger.accepted);
            }
            assert_eq!(source.ledger.accepted, log.len() as u64);
            assert!(acked <= source.last, "seed {seed}: {acked} acknowledged, {} there", source.last);
        }
        let _ = closing;
        if broken || silent {
            let (id, ..) = link.take().unwrap();
            server.closed(id);
            feed.client.disconnected();
        }
        let told_all = feed.read == total && feed.client.is_settled() && feed.client.unacked() == 0;
        let told_all = told_all && (ended || !datagrams);
        if told_all && now_ms > 4_000 && link.as_ref().is_none_or(|(_, up, _)| up.0.is_empty()) {
            let last = source.map_or(0, |source| source.last);
            // A declaration or the last frames may have been lost when nothing was promised for them.
            if (mode != AckMode::None || datagrams) && incarnation == 1 {
                assert_eq!(last, total, "seed {seed}");
            }
            return Outcome { log, lost, last, trace };
        }
    }
}

fn check(seed: u64) {
    let outcome = run(seed, None, AckMode::Leader);
    let Outcome { log, lost, last, .. } = &outcome;
    // Exactly once and in order; what the server lost by dying is declared.
    assert!(log.windows(2).all(|pair| pair[0] < pair[1]), "seed {seed}: {log:?}");
    assert_eq!(log.len() as u64 + lost, *last, "seed {seed}");
}

#[test]
fn ten_thousand_seeds_lose_and_double_nothing() {
    if let Ok(seed) = std::env::var("SIM_SEED") {
        return check(seed.parse().unwrap());
    }
    std::thread::scope(|scope| {
        for half in 0..2 {
            scope.spawn(move || (0..5_000).for_each(|seed| check(2 * seed + half)));
        }
    });
}

#[test]
fn without_acks_losses_are_declared() {
    for seed in 0..1_000 {
        let Outcome { log, lost, last, .. } = run(seed, None, AckMode::None);
        assert!(log.windows(2).all(|pair| pair[0] < pair[1]), "seed {seed}: {log:?}");
        assert_eq!(log.len() as u64 + lost, last, "seed {seed}");
    }
}

fn take_released(released: &mut Vec<Released>, keys: &[String], log: &mut Vec<u64>, lost: &mut u64) {
    for Released { lost: missing, named, events, .. } in released.drain(..) {
        *lost += missing;
        for event in events {
            assert!(event.key < named);
            assert_eq!(keys[event.key as usize], format!("key-{}", event.key));
            log.push(event.payload[0]);
        }
    }
}

/// Loss, doubles and overtaking between datagrams: what comes is logged once and in order, and what does not is counted to the
/// last event, whatever was lost at the end.
#[test]
fn datagrams_lose_only_what_is_counted() {
    let (mut losses, mut clean) = (0, 0);
    for seed in 0..3_000 {
        let Outcome { log, lost, last, .. } = run_by(seed, None, AckMode::None, true);
        assert!(log.windows(2).all(|pair| pair[0] < pair[1]), "seed {seed}: {log:?}");
        assert_eq!(log.len() as u64 + lost, last, "seed {seed}");
        losses += u64::from(lost > 0);
        clean += u64::from(lost == 0);
    }
    assert!(losses > 500 && clean > 100, "{losses} runs with losses, {clean} without");
}

/// Within the time that is waited, overtaking costs nothing.
#[test]
fn datagrams_that_only_overtake_each_other_all_arrive() {
    for seed in 0..500 {
        let faults = Faults { delay_ms: 8, double: 20, ..Faults::NONE };
        let Outcome { log, lost, last, .. } = run_by(seed, Some(faults), AckMode::None, true);
        assert_eq!((lost, log), (0, (1..=last).collect::<Vec<_>>()), "seed {seed}");
    }
}

#[test]
fn an_undisturbed_feed_repeats_nothing() {
    for seed in 0..100 {
        let outcome = run(seed, Some(Faults::NONE), AckMode::Leader);
        assert_eq!(outcome.log, (1..=outcome.last).collect::<Vec<_>>(), "seed {seed}");
        assert_eq!(outcome.lost, 0);
    }
}

#[test]
fn a_seed_is_a_run() {
    for seed in 0..50 {
        let [a, b] = [(); 2].map(|()| run(seed, None, AckMode::Leader));
        assert_eq!((a.trace, a.log), (b.trace, b.log), "seed {seed}");
    }
}

/// Found by the fuzz target `sessions`.
#[test]
fn a_connection_speaks_for_one_source() {
    use crate::frame::{Hello, Plane};
    let mut server = FeedServer::new(FeedServerOptions::default());
    let connection = server.open(MonoTime(0), Grant::default());
    let mut hello = |source_id, session| {
        let hello = Hello {
            version_min: 1,
            version_max: 1,
            plane: Plane::Feed,
            group: None,
            ack_mode: AckMode::None,
            source_id,
            session,
            name: "",
            credential: None,
        };
        server.handle(connection, MonoTime(0), 0, &Frame::Hello(hello), &mut Vec::new()).map(drop)
    };
    assert_eq!(hello(1, 1), Ok(()));
    assert_eq!(hello(1, 1), Ok(()), "doubled");
    assert_eq!(hello(2, 1).unwrap_err().code, crate::CloseCode::PROTOCOL);
    assert_eq!(hello(1, 2).unwrap_err().code, crate::CloseCode::PROTOCOL);
    assert_eq!(server.sources().count(), 1);
}
