use super::*;
use crate::source::Source;
use std::collections::HashSet;
use tidegate_engine::{flag, kind};
use xxhash_rust::xxh3::Xxh3;
use zerocopy::IntoBytes;

fn take(source: &mut dyn Source, count: usize, batch: usize) -> Vec<Event> {
    let mut events = Vec::new();
    while events.len() < count {
        let left = count - events.len();
        if source.read(&mut events, batch.min(left)).unwrap() == 0 {
            break;
        }
    }
    assert_eq!(source.account().imbalance(), 0);
    events
}

fn hash(source: &mut dyn Source) -> u64 {
    let events = take(source, 100_000, 1_000);
    assert_eq!(events.len(), 100_000);
    let mut hasher = Xxh3::new();
    hasher.update(events.as_bytes());
    for name in source.names().iter() {
        hasher.update(name.as_bytes());
    }
    hasher.digest()
}

/// The promise to whoever publishes a figure made with these: the input never changes. A new number here is a new
/// workload, and needs a new name.
#[test]
fn the_first_hundred_thousand_events_never_change() {
    let found = [
        hash(&mut W1::new(W1Options::default())),
        hash(&mut reversed(W1::new(W1Options::default()), 100)),
        hash(&mut Market::new(MarketOptions { events: 100_000, ..MarketOptions::default() })),
        hash(&mut Network::new(NetworkOptions::default())),
    ];
    assert_eq!(found, GOLDEN, "{found:#018x?}");
}

const GOLDEN: [u64; 4] =
    [0x0dcd_d307_0683_eb5b, 0x3ae5_54ad_9c80_0ee2, 0xbd0a_80d3_0b1b_e247, 0x7b98_aa21_573c_3a73];

#[test]
fn batches_do_not_show() {
    let sources: [fn() -> Box<dyn Source>; 4] = [
        || Box::new(W1::new(W1Options::default())),
        || Box::new(reversed(W1::new(W1Options { events: 20_050, ..W1Options::default() }), 100)),
        || Box::new(Market::new(MarketOptions { events: 20_000, ..MarketOptions::default() })),
        || Box::new(Network::new(NetworkOptions::default())),
    ];
    for source in sources {
        assert_eq!(take(&mut *source(), 20_000, 1), take(&mut *source(), 20_000, 777));
    }
}

#[test]
fn w1_is_as_described() {
    let mut w1 = W1::new(W1Options { events: 300_000, ..W1Options::default() });
    let events = take(&mut w1, usize::MAX, 65_536);
    assert_eq!(events.len(), 300_000);
    assert_eq!(w1.names().len(), 2_000);
    assert!(events.windows(2).all(|pair| pair[1].ts_event - pair[0].ts_event == 10_000));
    assert!(events.iter().all(|event| event.price() > 0 && event.price() % 10_000_000 == 0));
    assert!(events.iter().all(|event| (1..=1_000).contains(&(event.size() / 100_000_000))));
    // H(2000) = 8.178: the first symbol has 12.2 % of the trades.
    let first = events.iter().filter(|event| event.key == 0).count();
    assert!((35_500..38_000).contains(&first), "{first}");

    let mut plain = events[..250].to_vec();
    let mut late = reversed(W1::new(W1Options { events: 250, ..W1Options::default() }), 100);
    plain.chunks_mut(100).for_each(<[Event]>::reverse);
    assert_eq!(take(&mut late, usize::MAX, 33), plain);
}

/// Rounding down once took half a unit off every trade, and the busiest prices with it.
#[test]
fn prices_walk_without_drift_and_stay_in_bounds() {
    let options = MarketOptions {
        events: 4_000_000,
        shock: false,
        gap: false,
        cancel_one_in: 0,
        ..MarketOptions::default()
    };
    let mut market = Market::new(options);
    let (mut first, mut last) = (vec![0i64; 200], vec![0i64; 200]);
    let mut batch = Vec::new();
    while market.read(&mut batch, 65_536).unwrap() > 0 {
        for event in batch.drain(..) {
            let (key, price) = (event.key as usize, event.price());
            if first[key] == 0 {
                first[key] = price;
            }
            // The clamp at one tick is 800 times below the lowest opening.
            assert!((first[key] / 2..first[key] * 2).contains(&price), "{price} from {}", first[key]);
            last[key] = price;
        }
    }
    let returns: Vec<f64> = first.iter().zip(&last).map(|(&a, &b)| (b as f64 / a as f64).ln()).collect();
    let count = returns.len() as f64;
    let mean = returns.iter().sum::<f64>() / count;
    let variance = returns.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / (count - 1.0);
    let error = (variance / count).sqrt();
    assert!(mean.abs() < 4.0 * error, "mean log return {mean:.5}, standard error {error:.5}");
    assert!(error > 1e-4, "prices move");
}

#[test]
fn the_market_has_what_it_promises() {
    let mut market = Market::new(MarketOptions { events: 400_000, ..MarketOptions::default() });
    let events = take(&mut market, usize::MAX, 5_000);
    assert_eq!((events.len(), market.names().len()), (400_000, 200));
    let gaps: Vec<_> = events.iter().filter(|event| event.kind == kind::GAP).collect();
    assert!(matches!(gaps[..], [gap] if gap.payload[0] > 10), "{gaps:?}");
    let trades: Vec<_> = events.iter().filter(|event| event.kind == kind::TRADE).collect();
    let cancels: Vec<_> = trades.iter().filter(|event| event.flags & flag::CANCEL != 0).collect();
    let corrections = trades.iter().filter(|event| event.flags & flag::CORRECTION != 0).count();
    assert!(cancels.len() > 100 && corrections * 3 > cancels.len() && corrections < cancels.len());
    // A cancel names a trade that came before it, unless the gap swallowed that.
    let mut seen = HashSet::new();
    let mut unknown = 0;
    for event in &trades {
        let identity = (event.ts_event, event.key, event.payload);
        if event.flags & flag::CANCEL != 0 {
            unknown += u32::from(!seen.contains(&identity));
        } else {
            seen.insert(identity);
        }
    }
    assert!(unknown <= 3, "{unknown}");
    let mut latest = 0;
    let late = trades
        .iter()
        .filter(|event| event.flags & flag::CANCEL == 0 && event.flags & flag::CORRECTION == 0)
        .filter(|event| {
            latest = latest.max(event.ts_event);
            event.ts_event < latest
        })
        .count();
    assert!((500..1_500).contains(&late), "{late}");
    assert!(trades.iter().any(|event| event.flags & flag::ODD_LOT != 0));
    // The shocked sector falls by several per cent and comes back most of the way.
    let mean = |sector: usize, from: u64, to: u64| {
        let start = MarketOptions::default().ts_start;
        let span = MarketOptions::default().session_ns / 1_000;
        let range = start + from * span..start + to * span;
        let mut relative = Vec::new();
        for key in (sector as u32..200).step_by(8) {
            let prices = |range: &std::ops::Range<u64>| {
                let of_key: Vec<_> = trades
                    .iter()
                    .filter(|event| event.key == key && range.contains(&event.ts_event))
                    .map(|event| event.price() as f64)
                    .collect();
                of_key.iter().sum::<f64>() / of_key.len() as f64
            };
            relative.push(prices(&range) / prices(&(start + 500 * span..start + 549 * span)));
        }
        relative.retain(|share| share.is_finite());
        relative.iter().sum::<f64>() / relative.len() as f64
    };
    let (low, back) = (mean(2, 556, 575), mean(2, 750, 800));
    assert!(low < 0.96 && back > low + 0.02, "{low} {back}");
    let session = events.last().unwrap().ts_event - events[0].ts_event;
    let planned = MarketOptions::default().session_ns;
    assert!((planned / 2..planned * 2).contains(&session), "{session}");
}

#[test]
fn the_network_has_what_it_promises() {
    let mut network = Network::new(NetworkOptions::default());
    let events = take(&mut network, 1_000_000, 5_000);
    assert!(events.windows(2).all(|pair| pair[0].ts_event <= pair[1].ts_event));
    let key = |name: &str| network.names().get(name).unwrap();
    let sent = |event: &&Event| event.flags & flag::FLOW_OUTBOUND != 0;
    let of = |name: &str| {
        let key = key(name);
        events.iter().filter(move |event| event.kind == kind::FLOW && event.key == key)
    };
    let ports: HashSet<_> = of("10.0.1.13").filter(sent).map(|event| event.as_flow().port).collect();
    assert!(ports.len() >= 1_000, "{}", ports.len());
    let flood = of("10.0.0.80").filter(|event| event.as_flow().tcp_flags == 2).count();
    assert_eq!(flood, 20_000);
    let stolen: u64 = of("10.0.1.12").filter(sent).map(|event| u64::from(event.as_flow().bytes)).sum();
    assert!(stolen > 50_000_000, "{stolen}");
    let beacon: Vec<_> = of("203.0.113.99")
        .filter(|event| event.flags & flag::FLOW_START != 0)
        .map(|event| event.ts_event)
        .collect();
    assert!(
        beacon.len() > 30
            && beacon.windows(2).all(|pair| (57..=63).contains(&((pair[1] - pair[0]) / 1_000_000_000)))
    );
    assert!(events.iter().any(|event| event.kind == kind::NAME));
    // Flow events come in pairs: one sent, one received, of the same bytes.
    let flows: Vec<_> = events.iter().filter(|event| event.kind == kind::FLOW).collect();
    for pair in flows.chunks_exact(2) {
        assert!(sent(&pair[0]) && !sent(&pair[1]) && pair[0].ts_event == pair[1].ts_event);
        assert_eq!(pair[0].as_flow().bytes, pair[1].as_flow().bytes);
        assert_ne!(pair[0].flags & flag::FLOW_ORIGINATOR, pair[1].flags & flag::FLOW_ORIGINATOR);
    }
}
