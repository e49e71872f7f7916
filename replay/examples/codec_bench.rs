//! Compares ways to store blocks of events, on W1: bytes per event, and events per second on one core.
//!
//! `cargo run --release -p tidegate-replay --example codec_bench [events] [block_events] [rounds]`
//! Files are in memory, so this is the codec without the disk; each figure is the best of the rounds, in time on the
//! processor where Linux tells it, so that other work on the machine disturbs less.

use std::hint::black_box;
use std::io::Cursor;
use std::time::Instant;
use tidegate_engine::Event;
use tidegate_replay::Source;
use tidegate_replay::capture::{CaptureOptions, CaptureReader, CaptureWriter, Codec};
use tidegate_replay::generate::{W1, W1Options};
use zerocopy::IntoBytes;

/// Columns as arrays, the time as differences.
fn columns(events: &[Event], out: &mut Vec<u8>) {
    out.clear();
    let mut last = 0;
    for event in events {
        out.extend_from_slice(&event.ts_event.wrapping_sub(last).to_le_bytes());
        last = event.ts_event;
    }
    for event in events {
        out.extend_from_slice(&event.key.to_le_bytes());
    }
    for event in events {
        out.extend_from_slice(&event.as_bytes()[12..16]);
    }
    for part in 0..2 {
        for event in events {
            out.extend_from_slice(&event.payload[part].to_le_bytes());
        }
    }
}

fn from_columns(bytes: &[u8], count: usize, events: &mut Vec<Event>) {
    let (ts, rest) = bytes.split_at(count * 8);
    let (key, rest) = rest.split_at(count * 4);
    let (meta, rest) = rest.split_at(count * 4);
    let (p0, p1) = rest.split_at(count * 8);
    let mut last = 0u64;
    let words = |bytes| <[u8]>::as_chunks::<8>(bytes).0.iter().map(|word| u64::from_le_bytes(*word));
    let halves = |bytes| <[u8]>::as_chunks::<4>(bytes).0.iter();
    let rows = words(ts).zip(halves(key)).zip(halves(meta)).zip(words(p0).zip(words(p1)));
    events.extend(rows.map(|(((ts, key), meta), (p0, p1))| {
        last = last.wrapping_add(ts);
        let source = u16::from_le_bytes([meta[0], meta[1]]);
        let [.., kind, flags] = *meta;
        Event { ts_event: last, key: u32::from_le_bytes(*key), source, kind, flags, payload: [p0, p1] }
    }));
}

/// Seconds this thread has been on a processor, if the system says.
fn cpu_seconds() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(text.split(' ').next()?.parse::<u64>().ok()? as f64 / 1e9)
}

fn seconds(work: impl FnOnce()) -> f64 {
    let (start, cpu) = (Instant::now(), cpu_seconds());
    work();
    cpu.zip(cpu_seconds()).map_or(start.elapsed().as_secs_f64(), |(start, end)| end - start)
}

struct Row {
    name: String,
    bytes: usize,
    encode: f64,
    decode: f64,
}

/// One codec over blocks: `encode(block, out)`, `decode(stored, count, out)`.
fn blocks(
    name: &str,
    events: &[Event],
    block: usize,
    rounds: usize,
    mut encode: impl FnMut(&[Event]) -> Vec<u8>,
    mut decode: impl FnMut(&[u8], usize, &mut Vec<Event>),
) -> Row {
    let mut stored = Vec::new();
    let encode = seconds(|| stored = events.chunks(block).map(&mut encode).collect());
    let mut best = f64::MAX;
    let mut out = Vec::with_capacity(block);
    for round in 0..=rounds {
        let mut at = 0;
        best = best.min(seconds(|| {
            for (stored, events) in stored.iter().zip(events.chunks(block)) {
                out.clear();
                decode(stored, events.len(), &mut out);
                if round == 0 {
                    assert!(out == events, "{name} at block {at}");
                }
                at += 1;
                black_box(&out);
            }
        }));
    }
    Row { name: name.to_owned(), bytes: stored.iter().map(Vec::len).sum(), encode, decode: best }
}

/// The capture format itself, whole: header, checksums, index, through [`Source::read`].
fn capture(name: &str, events: &[Event], block: usize, rounds: usize, codec: Codec, batch: usize) -> Row {
    let mut file = Vec::new();
    let encode = seconds(|| {
        let options = CaptureOptions::default().with_block_events(block).with_codec(codec);
        let mut writer = CaptureWriter::to_stream(Vec::new(), "memory", options).expect("memory");
        writer.push(events).expect("memory");
        file = writer.finish_stream().expect("memory").0;
    });
    let mut best = f64::MAX;
    let mut out = Vec::with_capacity(batch + 256);
    for round in 0..=rounds {
        best = best.min(seconds(|| {
            let mut reader = CaptureReader::from_stream(Cursor::new(&file[..]), "memory").expect("whole");
            let mut at = 0;
            loop {
                out.clear();
                let count = reader.read(&mut out, batch).expect("whole");
                if count == 0 {
                    break;
                }
                if round == 0 {
                    assert!(out == events[at..at + count], "{name} at {at}");
                }
                at += count;
                black_box(&out);
            }
            assert_eq!(at, events.len());
        }));
    }
    Row { name: name.to_owned(), bytes: file.len(), encode, decode: best }
}

fn main() {
    let argument =
        |at, default| std::env::args().nth(at).and_then(|text| text.parse().ok()).unwrap_or(default);
    let (count, block, rounds) = (argument(1, 4_000_000), argument(2, 32_768), argument(3, 3));
    let mut events = Vec::with_capacity(count);
    let mut w1 = W1::new(W1Options { events: count as u64, ..W1Options::default() });
    let made = seconds(|| while w1.read(&mut events, 65_536).expect("never fails") > 0 {});
    println!("W1: {count} events made at {:.0} M/s; blocks of {block}\n", count as f64 / made / 1e6);

    let mut scratch = Vec::new();
    let mut unpacked = vec![0u8; block * 32];
    let mut rows = vec![
        blocks(
            "raw (copy)",
            &events,
            block,
            rounds,
            |events| events.as_bytes().to_vec(),
            |stored, count, out| {
                out.resize(count, Event::default());
                out.as_mut_slice().as_mut_bytes().copy_from_slice(stored);
            },
        ),
        blocks(
            "raw + lz4_flex",
            &events,
            block,
            rounds,
            |events| lz4_flex::block::compress(events.as_bytes()),
            |stored, count, out| {
                out.resize(count, Event::default());
                lz4_flex::block::decompress_into(stored, out.as_mut_slice().as_mut_bytes())
                    .expect("own block");
            },
        ),
        blocks(
            "columns + lz4_flex",
            &events,
            block,
            rounds,
            |events| {
                columns(events, &mut scratch);
                lz4_flex::block::compress(&scratch)
            },
            |stored, count, out| {
                lz4_flex::block::decompress_into(stored, &mut unpacked).expect("own block");
                from_columns(&unpacked[..count * 32], count, out);
            },
        ),
    ];
    let mut zstd = zstd::bulk::Decompressor::new().expect("memory");
    rows.push(blocks(
        "columns + zstd(1)",
        &events,
        block,
        rounds,
        |events| {
            columns(events, &mut scratch);
            zstd::bulk::compress(&scratch, 1).expect("memory")
        },
        |stored, count, out| {
            zstd.decompress_to_buffer(stored, &mut unpacked[..]).expect("own block");
            from_columns(&unpacked[..count * 32], count, out);
        },
    ));
    for (name, codec, batch) in [
        ("capture: raw", Codec::Raw, 4096),
        ("capture: planes + zstd(1)", Codec::Planes, 4096),
        ("capture: packed", Codec::Packed, 4096),
        ("capture: packed, whole blocks", Codec::Packed, block),
        ("capture: auto", Codec::Auto, 4096),
    ] {
        rows.push(capture(name, &events, block, rounds, codec, batch));
    }
    // What a general compressor would still find in the packed bodies.
    let options = CaptureOptions::default().with_block_events(block).with_codec(Codec::Packed);
    let mut writer = CaptureWriter::to_stream(Vec::new(), "memory", options).expect("memory");
    writer.push(&events).expect("memory");
    let file = writer.finish_stream().expect("memory").0;
    let squeezed: Vec<_> = file.chunks(block * 4).map(lz4_flex::block::compress).collect();
    let mut out = vec![0; block * 4];
    let extra = seconds(|| {
        for stored in &squeezed {
            black_box(lz4_flex::block::decompress_into(stored, &mut out).expect("own block"));
        }
    });
    let packed = &rows[rows.len() - 3];
    rows.push(Row {
        name: "capture: packed, then lz4_flex".to_owned(),
        bytes: squeezed.iter().map(Vec::len).sum(),
        encode: packed.encode,
        decode: packed.decode + extra,
    });

    println!("| codec | bytes/event | encode M/s | decode M/s |\n|---|---:|---:|---:|");
    for Row { name, bytes, encode, decode } in rows {
        let rate = |seconds: f64| count as f64 / seconds / 1e6;
        let size = bytes as f64 / count as f64;
        println!("| {name} | {size:.2} | {:.0} | {:.0} |", rate(encode), rate(decode));
    }
}
