//! A feed through a network that loses, doubles, delays and damages packets, and breaks: the digest must be that of a quiet run.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tidegate_actors::BarSpec;
use tidegate_actors::bars::BarOptions;
use tidegate_engine::{Digest, Event, Price, Size, Stage};
use tidegate_live::{LiveOptions, LiveReport, Network, Threads};
use tidegate_proto::StreamKind;
use tidegate_proto::hub::StreamMeta;
use tidegate_quic::tls::Identity;
use tidegate_quic::{ClientOptions, Limits, Publisher, PublisherOptions, QuicServer, Trust};
use tokio::net::UdpSocket;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// What happened to packets.
#[derive(Default)]
struct Fates {
    lost: AtomicU64,
    doubled: AtomicU64,
    delayed: AtomicU64,
    damaged: AtomicU64,
}

/// Hands a packet on, or not.
async fn pass(
    packet: &[u8],
    random: &mut Random,
    fates: &Fates,
    to: Arc<UdpSocket>,
    peer: Option<SocketAddr>,
) {
    let mut packet = packet.to_vec();
    let send = move |packet: Vec<u8>, to: Arc<UdpSocket>| async move {
        let _ = match peer {
            Some(peer) => to.send_to(&packet, peer).await,
            None => to.send(&packet).await,
        };
    };
    match random.below(100) {
        0..4 => drop(fates.lost.fetch_add(1, Relaxed)),
        4..8 => {
            fates.doubled.fetch_add(1, Relaxed);
            send(packet.clone(), Arc::clone(&to)).await;
            send(packet, to).await;
        }
        8..12 => {
            fates.delayed.fetch_add(1, Relaxed);
            let wait = Duration::from_micros(200 + random.below(3_000));
            tokio::spawn(async move {
                tokio::time::sleep(wait).await;
                send(packet, to).await;
            });
        }
        12..14 => {
            fates.damaged.fetch_add(1, Relaxed);
            let at = random.below(packet.len() as u64) as usize;
            packet[at] ^= 1 << random.below(8);
            send(packet, to).await;
        }
        _ => send(packet, to).await,
    }
}

/// A proxy before `server`; while `dark` is set nothing passes.
async fn proxy(server: SocketAddr, seed: u64, fates: Arc<Fates>, dark: Arc<AtomicBool>) -> SocketAddr {
    let front = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let address = front.local_addr().unwrap();
    tokio::spawn(async move {
        let mut links: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
        let (mut packet, mut random) = ([0; 2_048], Random(seed));
        while let Ok((count, client)) = front.recv_from(&mut packet).await {
            if dark.load(Relaxed) {
                continue;
            }
            let number = links.len() as u64;
            if let Entry::Vacant(link) = links.entry(client) {
                let back = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
                back.connect(server).await.unwrap();
                link.insert(Arc::clone(&back));
                let (front, fates, dark) = (Arc::clone(&front), Arc::clone(&fates), Arc::clone(&dark));
                let mut random = Random(seed + 1 + number);
                tokio::spawn(async move {
                    let mut packet = [0; 2_048];
                    while let Ok(count) = back.recv(&mut packet).await {
                        if !dark.load(Relaxed) {
                            let front = Arc::clone(&front);
                            pass(&packet[..count], &mut random, &fates, front, Some(client)).await;
                        }
                    }
                });
            }
            pass(&packet[..count], &mut random, &fates, Arc::clone(&links[&client]), None).await;
        }
    });
    address
}

const EVENTS: u64 = 120_000;

/// Publishes everything, through a bad network if there is a seed; what the server computed.
async fn run(threads: Threads, seed: Option<u64>) -> Digest {
    let report = publish(threads, seed, false).await;
    assert_eq!(report.ingest.stats.sources[0].ledger.accepted, EVENTS, "exactly once");
    report.runtime.digest
}

async fn publish(threads: Threads, seed: Option<u64>, datagrams: bool) -> LiveReport {
    let data = tempfile::tempdir().unwrap();
    let (identity, _) = Identity::of_data(data.path()).unwrap();
    let spec: BarSpec = "1s".parse().unwrap();
    let stages = Arc::new(move || vec![Stage::new("bars.1s", 0, spec.operator(BarOptions::default()))]);
    let streams = vec![StreamMeta { name: "bars.1s".into(), kind: StreamKind::Bars, columns: vec![] }];
    let options = LiveOptions::default();
    let network = Network::start(threads, &options.runtime).unwrap();
    let live = network.live(stages, streams, options).unwrap();
    let any = "127.0.0.1:0".parse().unwrap();
    let quic = {
        let _on = network.handle().enter();
        QuicServer::start(any, identity, Limits::default(), live.ingest(), live.hub()).unwrap()
    };
    let (fates, dark) = (Arc::new(Fates::default()), Arc::new(AtomicBool::new(false)));
    let address = match seed {
        Some(seed) => proxy(quic.address(), seed, Arc::clone(&fates), Arc::clone(&dark)).await,
        None => quic.address(),
    };
    // Connections die soon, so that a blackout costs one.
    let limits = Limits {
        idle_timeout: Duration::from_millis(400),
        keep_alive: Some(Duration::from_millis(100)),
        ..Limits::default()
    };
    let client = ClientOptions {
        limits,
        give_up_after: Duration::from_secs(60),
        ..ClientOptions::new(address, Trust::of_data(data.path()).unwrap())
    };
    let options = PublisherOptions { datagrams, ..PublisherOptions::default() };
    let publisher = Publisher::connect(client, options).await.unwrap();
    for name in ["A", "B", "C", "D"] {
        publisher.define(name).unwrap();
    }
    for part in 0..4 {
        let events: Vec<Event> = (part * EVENTS / 4..(part + 1) * EVENTS / 4)
            .map(|at| {
                Event::trade(at * 3_000_000, (at % 4) as u32, 0, Price(900 + (at % 77) as i64), Size(at), 0)
            })
            .collect();
        publisher.send(&events).await.unwrap();
        if seed.is_some() && part == 1 && !datagrams {
            // Until the connection has died of it and another one is being tried.
            dark.store(true, Relaxed);
            let before = publisher.stats().connections;
            while publisher.stats().connected {
                tokio::task::yield_now().await;
            }
            dark.store(false, Relaxed);
            while publisher.stats().connections == before {
                tokio::task::yield_now().await;
            }
        }
    }
    let stats = publisher.finish().await.unwrap();
    if !datagrams {
        assert_eq!((stats.acked, stats.lost_by_server), (EVENTS, 0));
        assert_eq!(stats.connections > 1, seed.is_some(), "{stats:?}");
    }
    quic.refuse_new();
    let report = tokio::task::spawn_blocking(|| live.finish()).await.unwrap().unwrap();
    quic.close().await;
    assert_eq!(report.imbalance(), 0);
    if seed.is_some() {
        for fate in [&fates.lost, &fates.doubled, &fates.delayed, &fates.damaged] {
            assert!(fate.load(Relaxed) > 0, "a proxy that does nothing proves nothing");
        }
    }
    report
}

/// What comes is logged once and in order, and what does not is counted, in the account and in the log.
#[tokio::test(flavor = "multi_thread")]
async fn datagrams_lose_what_is_counted_and_wait_for_nothing() {
    for (seed, threads) in [(None, Threads::Fused), (Some(3), Threads::Separate), (Some(4), Threads::Fused)] {
        let report = publish(threads, seed, true).await;
        let ledger = report.ingest.stats.sources[0].ledger;
        assert_eq!(ledger.accepted + ledger.declared_lost, EVENTS, "{ledger:?}");
        assert_eq!(ledger.held, 0);
        assert_eq!(report.runtime.events, ledger.accepted);
        // On a busy machine sockets overflow too, which is loss like any other.
        assert!(ledger.accepted > EVENTS / 10, "{ledger:?}");
        if seed.is_some() {
            assert!(ledger.declared_lost > 0 && report.ingest.controls > 0, "{ledger:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_network_changes_nothing() {
    let quiet = run(Threads::Separate, None).await;
    assert_eq!(run(Threads::Fused, None).await, quiet, "threads show nowhere");
    for (seed, threads) in [(1, Threads::Separate), (2, Threads::Fused)] {
        assert_eq!(run(threads, Some(seed)).await, quiet, "seed {seed}, {threads}");
    }
}
