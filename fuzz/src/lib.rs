//! Fuzz targets: whatever bytes come, decoders answer with events, counts or a typed error.
//!
//! **Invariant:** a target checks what the product promises of any input (nothing panics, accounts balance, what was
//! written reads back), never what one input means.
#![forbid(unsafe_code)]

pub mod config;
pub mod exports;
pub mod gateway;
pub mod journal;
pub mod replica;
pub mod rules;
pub mod seeds;
pub mod snapshots;
pub mod token;
pub mod traffic;
pub mod transport;

use std::cell::RefCell;
use std::io::Cursor;
use std::sync::OnceLock;
use tidegate_actors::WindowSpec;
use tidegate_actors::bars::{BarOptions, BarSpec};
use tidegate_actors::hosts::{HostOptions, HostWindows};
use tidegate_actors::indicators::{IndicatorAnalyzer, IndicatorSpec};
use tidegate_actors::registry::{Params, Registry};
use tidegate_engine::{
    AnalyzerStage, Digest, Event, EventTime, KeyMeta, Output, Price, Sequencer, SequencerOptions, Shard,
    Size, Stage, WindowWidth, kind, snapshot,
};
use tidegate_replay::Source;
use tidegate_replay::capture::CaptureReader;
pub use tidegate_replay::decode::Format;
use tidegate_replay::decode::{ColumnMap, ReadOptions, open_bytes};

/// Reads everything a source has and checks its account.
fn drain(source: &mut dyn Source, keys_known: bool) {
    let (mut events, mut total) = (Vec::new(), 0);
    for max in (0..).map(|turn| 1 + turn * 61 % 997) {
        events.clear();
        let read = source.read(&mut events, max);
        total += events.len() as u64;
        for event in &events {
            assert!(!keys_known || source.names().name(event.key).is_some(), "an event without a name");
            assert!(!keys_known || event.kind >= kind::CONTROL || event.ts_event <= EventTime::MAX.0);
        }
        match read {
            Ok(0) => assert!(events.is_empty(), "events, but the end"),
            Ok(count) => assert_eq!(count, events.len()),
            Err(_) => {}
        }
        if !matches!(read, Ok(1..)) {
            break;
        }
    }
    let account = source.account();
    assert_eq!(account.imbalance(), 0, "{account:?}");
    assert_eq!(account.events, total, "{account:?}");
}

/// A foreign file.
pub fn decode(format: Format, bytes: &[u8]) {
    let options = ReadOptions {
        names_max: 20,
        line_bytes_max: 2_000,
        decompressed_bytes_max: 4 << 20,
        // On this thread: a finding must point at its cause.
        decode_threads: 0,
        ..ReadOptions::default()
    };
    if let Ok(mut source) = open_bytes(format, bytes.to_vec(), &options) {
        drain(source.as_mut(), true);
        assert!(source.names().len() <= options.names_max + 1);
    }
}

/// A capture as it is, and with the checksums of its blocks made good, so that what lies behind them is reached.
pub fn capture(bytes: &[u8]) {
    read_capture(bytes.to_vec());
    let mut repaired = bytes.to_vec();
    repair(&mut repaired);
    read_capture(repaired);
}

fn read_capture(bytes: Vec<u8>) {
    let Ok(mut reader) = CaptureReader::from_stream(Cursor::new(bytes), "memory") else { return };
    // Keys of a capture may be those of a source that named nobody.
    drain(&mut reader, false);
    let (mut events, blocks) = (Vec::new(), reader.blocks().len());
    for index in 0..blocks.min(64) {
        events.clear();
        let _ = reader.read_block(index, &mut events);
    }
}

/// Puts right the checksums of header and blocks, see `docs/capture-format.md`.
fn repair(bytes: &mut [u8]) {
    const HEADER: usize = 32;
    const BLOCK: usize = 112;
    if bytes.len() < HEADER {
        return;
    }
    let crc = crc32fast::hash(&bytes[..28]);
    bytes[28..32].copy_from_slice(&crc.to_le_bytes());
    let mut at = HEADER;
    while let Some(block) = bytes.get_mut(at..).filter(|block| block.len() >= BLOCK && block[..4] == *b"TGB1")
    {
        let body = u32::from_le_bytes([block[8], block[9], block[10], block[11]]) as usize;
        let Some(end) = BLOCK.checked_add(body).filter(|end| *end <= block.len()) else { return };
        let crc = crc32fast::hash(&block[BLOCK..end]);
        block[28..32].copy_from_slice(&crc.to_le_bytes());
        let crc = crc32fast::hash(&block[..108]);
        block[108..112].copy_from_slice(&crc.to_le_bytes());
        at += end;
    }
}

/// A shard with one of everything that keeps state.
///
/// # Panics
/// When its constant configuration is refused.
#[must_use]
pub fn shard() -> Shard {
    let options = BarOptions { history: true, history_events_max: 1_000, ..BarOptions::default() };
    let spec = |text: &str| text.parse::<BarSpec>().expect("a constant");
    let indicators: Vec<IndicatorSpec> =
        ["sma:3", "ema:3", "rsi:3", "macd:2:4:2", "bb:3:2", "atr:3", "vwap:3"]
            .iter()
            .map(|text| text.parse().expect("a constant"))
            .collect();
    let analyzer = IndicatorAnalyzer::new(0, &indicators).expect("at most 16 columns");
    let regime =
        Registry::new().analyzer("regime", 0, &Params::new().with("model", "hmm:3")).expect("a constant");
    let anomaly =
        Registry::new().analyzer("anomaly", 0, &Params::new().with("of", "volume")).expect("a constant");
    let sessions = Registry::new().build("sessions", &Params::new().with("gap", "10s")).expect("a constant");
    let hosts = HostWindows::new(HostOptions { width: WindowWidth::SECOND, open_max: 4 });
    Shard::new(vec![
        Stage::new("bars.1s", 0, spec("1s").operator(options))
            .with(AnalyzerStage::new("indicators", 1, Box::new(analyzer)))
            .with(AnalyzerStage::new("regime", 6, regime))
            .with(AnalyzerStage::new("anomaly", 7, anomaly)),
        Stage::new("bars.7t", 2, spec("7t").operator(options)),
        Stage::new("bars.100v", 3, spec("100v").operator(options)),
        Stage::new("sessions", 4, sessions),
        Stage::new("hosts", 5, Box::new(hosts)),
    ])
}

/// Events as a capture or a wire could carry them, whatever they say, through sequencer and shard: 32 bytes each. Cut in
/// two ways they give the same digest, and every account balances.
pub fn pipeline(bytes: &[u8]) {
    let mut events: Vec<Event> = Vec::with_capacity(bytes.len() / size_of::<Event>());
    for chunk in bytes.chunks_exact(size_of::<Event>()) {
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&chunk[at..at + 8]);
            u64::from_le_bytes(word)
        };
        let (head, payload) = (word(8), [word(16), word(24)]);
        let kind = (head >> 48) as u8;
        // What only the product itself writes into a log is not an input.
        if !matches!(kind, kind::CONTROL.. if kind != kind::GAP && kind != kind::BARRIER) {
            let key = head as u32 % 5;
            events.push(Event {
                ts_event: word(0),
                key,
                source: 0,
                kind,
                flags: (head >> 56) as u8,
                payload,
            });
        }
    }
    assert_eq!(run_pipeline(&events, events.len().max(1)), run_pipeline(&events, 7));
}

fn run_pipeline(events: &[Event], batch: usize) -> String {
    let mut shard = shard();
    let mut sink = |_: &[Output]| {};
    for key in 0..4u32 {
        let payload = [u64::from(key) * 0x9e37_79b9, u64::from(key)];
        shard.process(&[Event::control(kind::DEFINE, 0, key, 0, payload)], &mut sink);
    }
    let mut emit = |frame: &[Event]| {
        let mut rest = frame;
        while !rest.is_empty() {
            rest = &rest[shard.process(rest, &mut sink).consumed..];
        }
    };
    let options = SequencerOptions { disorder_ns: 1_000_000_000, ..SequencerOptions::default() };
    let mut sequencer = Sequencer::new(options);
    for batch in events.chunks(batch) {
        sequencer.push(batch, &mut emit);
    }
    sequencer.finish(&mut emit);
    shard.flush(&mut sink);
    for stage in shard.stages() {
        assert_eq!(stage.ledger().imbalance(), 0, "{}: {}", stage.name(), stage.ledger());
    }
    let mut digest = Digest::default();
    digest.add_shard(&shard);
    digest.short()
}

/// Numbers and payloads of a snapshot's sections.
#[must_use]
pub fn sections(bytes: &[u8]) -> Vec<(u32, &[u8])> {
    let (mut found, mut rest) = (Vec::new(), bytes.get(16..bytes.len() - 32).unwrap_or_default());
    while let Some((head, after)) = rest.split_at_checked(12) {
        let id = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        let length =
            u64::from_le_bytes([head[4], head[5], head[6], head[7], head[8], head[9], head[10], head[11]]);
        let Some((payload, after)) = after.split_at_checked(length as usize) else { break };
        found.push((id, payload));
        rest = after;
    }
    found
}

/// A whole snapshot with one section replaced, checksum made good: the first byte says which. 255: the bytes alone.
pub fn snapshot(bytes: &[u8]) {
    static WHOLE: OnceLock<Vec<u8>> = OnceLock::new();
    let Some((&which, payload)) = bytes.split_first() else { return };
    if which == u8::MAX {
        let _ = shard().restore(payload);
        let mut sealed = payload.to_vec();
        sealed.extend_from_slice(blake3::hash(payload).as_bytes());
        let _ = shard().restore(&sealed);
        return;
    }
    let whole = WHOLE.get_or_init(|| seeds::used_shard().snapshot());
    let mut writer = snapshot::Writer::new();
    let parts = sections(whole);
    for (at, (id, old)) in parts.iter().enumerate() {
        let replaced = at == usize::from(which) % parts.len();
        writer.section(*id, |out| out.extend_from_slice(if replaced { payload } else { old }));
    }
    let _ = shard().restore(&writer.finish());
    let _ = snapshot::read::<Vec<KeyMeta>>(payload, "keys");
}

/// Text that is read is written the same way back.
pub fn units(bytes: &[u8]) {
    if let Ok(price) = Price::parse(bytes) {
        assert_eq!(Price::parse(price.to_string().as_bytes()), Ok(price));
    }
    if let Ok(size) = Size::parse(bytes) {
        assert_eq!(Size::parse(size.to_string().as_bytes()), Ok(size));
    }
    if let Some(word) = bytes.first_chunk() {
        let word = u64::from_le_bytes(*word);
        assert_eq!(Price::parse(Price(word as i64).to_string().as_bytes()), Ok(Price(word as i64)));
        assert_eq!(Size::parse(Size(word).to_string().as_bytes()), Ok(Size(word)));
        let float = f64::from_bits(word);
        if let Ok(price) = Price::from_f64(float) {
            assert!((price.to_f64() - float).abs() <= 1e-9 + float.abs() * 1e-15, "{float} became {price}");
        }
        let _ = (Size::from_f64(float), Size::from_whole(word));
        let _ = (EventTime::from_signed(word as i64), EventTime::from_unsigned(word));
    }
}

/// A text that is understood says the same when it is written back.
pub fn specs(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(bar) = text.parse::<BarSpec>() {
        assert_eq!(bar.to_string().parse(), Ok(bar));
        drop(bar.operator(BarOptions::default()));
    }
    if let Ok(windows) = text.parse::<WindowSpec>() {
        assert_eq!(windows.to_string().parse(), Ok(windows.clone()));
        drop((windows.operator(BarOptions::default()), windows.roll_up(0, BarOptions::default())));
    }
    if let Ok(indicator) = text.parse::<IndicatorSpec>() {
        assert_eq!(indicator.to_string().parse(), Ok(indicator));
        assert_eq!(indicator.columns().len(), indicator.column_count());
    }
    if let Ok(params) = text.parse::<Params>() {
        let registry = Registry::new();
        for name in ["bars", "hosts", "sessions"] {
            drop(registry.build(name, &params));
        }
    }
    drop(Registry::new().build(text, &Params::new()));
    let _ = text.parse::<ColumnMap>();
    let _ = text.parse::<Format>();
}

thread_local! {
    static LAST_PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Replaces the panic hook by one that only takes note: for decoders that catch a library's panics.
pub fn keep_panics_quiet() {
    std::panic::set_hook(Box::new(|panic| {
        let backtrace = std::backtrace::Backtrace::force_capture;
        let words = panic.to_string();
        // A backtrace for each caught panic would cost most of the time; one is asked for when reproducing.
        let trace = if std::env::var_os("RUST_BACKTRACE").is_some() {
            backtrace().to_string()
        } else {
            String::new()
        };
        LAST_PANIC.with(|last| *last.borrow_mut() = format!("thread {words}\n{trace}"));
    }));
}

/// Runs `work` and, if a panic gets out of it, tells what the hook kept to itself and aborts.
pub fn loudly(work: impl FnOnce() + std::panic::UnwindSafe) {
    if std::panic::catch_unwind(work).is_err() {
        LAST_PANIC.with(|last| eprintln!("{}", last.borrow()));
        std::process::abort();
    }
}
