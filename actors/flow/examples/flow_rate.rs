//! How fast packets become flows and alerts on one core, and what a host costs.
//!
//! `cargo run --release -p tidegate-flow --example flow_rate [-- PACKETS [PART]]`, or with a capture in place of PACKETS, to go through that.

use std::time::Instant;
use tidegate_flow::packet::{protocol, tcp_flag};
use tidegate_flow::{
    ConnState, Detectors, EndCause, FlowRecord, FlowTable, Frame, Ip, Packet, Side, TableOptions, Watch,
    parse,
};

struct Nobody;
impl Watch for Nobody {}

/// Xorshift.
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state >> 11
}

/// An office as frames of Ethernet: connections of a dozen packets and DNS questions, 20,000 flows at once.
fn frames(count: usize) -> Frames {
    let mut out = Vec::with_capacity(count);
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut live: Vec<(u32, u16, u32, u8)> = Vec::new();
    let mut ts = 1_700_000_000_000_000_000u64;
    while out.len() < count {
        ts += 2_000 + next(&mut state) % 4_000;
        if live.len() < 20_000 {
            let client = 0x0a00_0000 + (next(&mut state) % 5_000) as u32;
            let server = 0x2000_0000 + (next(&mut state) % 50_000) as u32;
            live.push((client, 20_000 + (next(&mut state) % 40_000) as u16, server, 0));
        }
        let at = (next(&mut state) % live.len() as u64) as usize;
        let (client, port, server, step) = live[at];
        let (out_bound, flags, payload): (bool, u8, usize) = match step {
            0 => (true, tcp_flag::SYN, 0),
            1 => (false, tcp_flag::SYN | tcp_flag::ACK, 0),
            2 => (true, tcp_flag::ACK, 0),
            3 => (true, tcp_flag::ACK | tcp_flag::PSH, 300 + usize::from(port % 200)),
            10 => (true, tcp_flag::FIN | tcp_flag::ACK, 0),
            11 => (false, tcp_flag::FIN | tcp_flag::ACK, 0),
            step => (step % 3 == 0, tcp_flag::ACK, if step % 3 == 0 { 0 } else { 600 }),
        };
        let (from, to, from_port, to_port) =
            if out_bound { (client, server, port, 443) } else { (server, client, 443, port) };
        out.push((ts, frame(from, to, from_port, to_port, flags, u32::from(step) * 700, payload)));
        if step == 11 {
            live.swap_remove(at);
        } else {
            live[at].3 += 1;
        }
    }
    out
}

fn frame(from: u32, to: u32, from_port: u16, to_port: u16, flags: u8, seq: u32, payload: usize) -> Vec<u8> {
    let mut bytes = vec![2; 12];
    bytes.extend([8, 0, 0x45, 0]);
    bytes.extend((40 + payload as u16).to_be_bytes());
    bytes.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
    bytes.extend(from.to_be_bytes());
    bytes.extend(to.to_be_bytes());
    bytes.extend(from_port.to_be_bytes());
    bytes.extend(to_port.to_be_bytes());
    bytes.extend(seq.to_be_bytes());
    bytes.extend([0, 0, 0, 1, 0x50, flags, 1, 0, 0, 0, 0, 0]);
    bytes.extend(std::iter::repeat_n(0x17, payload));
    bytes
}

/// Frames with the time they were seen at.
type Frames = Vec<(u64, Vec<u8>)>;

/// The frames of a capture of classic libpcap, its link type, and their bytes on the wire; what is cut short is left out.
fn captured(bytes: &[u8]) -> Result<(Frames, u32, u64), String> {
    let word =
        |at: usize| bytes.get(at..at + 4).and_then(|word| word.try_into().ok()).map(u32::from_le_bytes);
    let unit_ns = match word(0) {
        Some(0xa1b2_c3d4) => 1_000,
        Some(0xa1b2_3c4d) => 1,
        _ => return Err("no libpcap capture in the byte order of this machine, or compressed".to_owned()),
    };
    let (mut frames, mut wire, mut at) = (Vec::new(), 0, 24);
    while let (Some(seconds), Some(parts), Some(kept), Some(length)) =
        (word(at), word(at + 4), word(at + 8), word(at + 12))
    {
        let Some(frame) = bytes.get(at + 16..at + 16 + kept as usize) else { break };
        frames.push((u64::from(seconds) * 1_000_000_000 + u64::from(parts) * unit_ns, frame.to_vec()));
        (wire, at) = (wire + u64::from(length), at + 16 + kept as usize);
    }
    Ok((frames, word(20).unwrap_or_default(), wire))
}

/// Batches as a ring of received frames holds them: parsed, warmed, then taken one after the other.
fn through(frames: &[(u64, Vec<u8>)], link: u32, mut take: impl FnMut(&[Packet<'_>])) -> f64 {
    let start = Instant::now();
    let mut packets = Vec::with_capacity(16);
    for (batch, frames) in frames.chunks(16).enumerate() {
        for (at, (ts, bytes)) in frames.iter().enumerate() {
            if let Ok(Frame::Ip(packet)) = parse((batch * 16 + at) as u64 + 1, *ts, link, bytes) {
                packets.push(packet);
            }
        }
        take(&packets);
        packets.clear();
    }
    frames.len() as f64 / start.elapsed().as_secs_f64() / 1e6
}

/// Records of the same office. `loyal`: nine of ten go to the client's ten usual servers; else each to any of 50,000.
fn records(count: usize, loyal: bool) -> Vec<FlowRecord> {
    let mut state = 7u64;
    (0..count as u64)
        .map(|id| {
            let start_ns = 1_700_000_000_000_000_000 + id * 100_000;
            let failed = next(&mut state).is_multiple_of(30);
            let client = next(&mut state) % 5_000;
            let server = match next(&mut state) % 10 {
                n if loyal && n < 9 => (client * 7 + next(&mut state) % 10 * 5_003) % 50_000,
                _ => next(&mut state) % 50_000,
            };
            FlowRecord {
                id,
                start_ns,
                last_ns: start_ns + 1_000_000,
                originator: Ip::v4((0x0a00_0000 + client as u32).to_be_bytes()),
                originator_port: 20_000 + (next(&mut state) % 40_000) as u16,
                responder: Ip::v4((0x2000_0000 + server as u32).to_be_bytes()),
                responder_port: 443,
                protocol: protocol::TCP,
                state: if failed { ConnState::S0 } else { ConnState::Sf },
                history: if failed { "S".into() } else { "ShADadFf".into() },
                sent: Side { bytes: 100 + next(&mut state) % 2_000, packets: 9, ip_bytes: 2_000 },
                received: Side { bytes: if failed { 0 } else { 9_000 }, packets: 9, ip_bytes: 9_400 },
                packets: (id, id),
                vlan: 0,
                tunnels: 0,
                cause: EndCause::Logged,
                sampling: 1,
            }
        })
        .collect()
}

/// Resident memory of this process, bytes; 0 where the system does not say.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4_096
}

fn median(mut runs: Vec<f64>) -> f64 {
    runs.sort_by(f64::total_cmp);
    runs[runs.len() / 2]
}

/// Bytes of detectors for each of 100,000 hosts that ask four services each, of which one does not answer.
fn bytes_per_host() -> f64 {
    const HOSTS: u32 = 100_000;
    let mut record = records(1, false)[0];
    let before = resident();
    let mut detectors = Detectors::default();
    for host in 0..HOSTS {
        for n in 0..4u32 {
            record.originator = Ip::v4((0x0a00_0000 + host).to_be_bytes());
            record.responder = Ip::v4((0x2000_0000 + host % 5_000 * 4 + n).to_be_bytes());
            (record.state, record.history) =
                if n == 0 { (ConnState::S0, "S".into()) } else { (ConnState::Sf, "ShADadFf".into()) };
            record.start_ns += 1_000_000;
            record.last_ns = record.start_ns + 1_000_000;
            detectors.logged(&record);
        }
    }
    assert!(detectors.alerts().is_empty(), "{:?}", detectors.alerts());
    resident().saturating_sub(before) as f64 / f64::from(HOSTS)
}

/// Median of five.
fn runs(mut run: impl FnMut() -> f64) -> f64 {
    median((0..5).map(|_| run()).collect())
}

/// What can be measured alone.
const PARTS: [&str; 6] = ["host", "parse", "table", "judged", "usual", "any"];

fn main() {
    let first = std::env::args().nth(1).unwrap_or_else(|| "2000000".to_owned());
    let Ok(count) = first.parse() else { return capture(&first) };
    let only = std::env::args().nth(2);
    if let Some(part) = only.as_deref().filter(|part| !PARTS.contains(part)) {
        eprintln!("there is no part {part}; there are {}", PARTS.join(", "));
        std::process::exit(2);
    }
    let wanted = |part: &str| only.as_deref().is_none_or(|only| only == part);
    // First, while no freed memory stands by.
    let per_host = if wanted("host") { bytes_per_host() } else { 0.0 };
    if ["parse", "table", "judged"].into_iter().any(wanted) {
        packets(&frames(count), 1, wanted);
    }
    for (part, what) in [("usual", "to usual servers"), ("any", "each to any server")] {
        if wanted(part) {
            let all = records(count, part == "usual");
            let rate = runs(|| {
                let mut detectors = Detectors::default();
                let start = Instant::now();
                detectors.logged_all(&all);
                let rate = all.len() as f64 / start.elapsed().as_secs_f64() / 1e6;
                assert!(detectors.alerts().is_empty(), "{:?}", detectors.alerts());
                rate
            });
            println!("detectors on flows       {rate:.2} M flows/s, {what}");
        }
    }
    if wanted("host") {
        println!("a host in the detectors  {per_host:.0} bytes, of 100,000 hosts");
        println!("a flow in the table      {} bytes", FlowTable::FLOW_BYTES);
    }
}

/// Goes through a capture.
fn capture(path: &str) {
    let (frames, link, wire) =
        match std::fs::read(path).map_err(|error| error.to_string()).and_then(|bytes| captured(&bytes)) {
            Ok(read) => read,
            Err(error) => {
                eprintln!("{path} is neither a number nor a capture: {error}");
                std::process::exit(2);
            }
        };
    if frames.is_empty() {
        eprintln!("{path} holds no frame");
        std::process::exit(2);
    }
    let kept: usize = frames.iter().map(|(_, bytes)| bytes.len()).sum();
    let each = |bytes: f64| bytes / frames.len() as f64 * 8.0 / 1e3;
    println!(
        "{} frames; a M packets/s are {:.2} Gbit/s of captured bytes, {:.2} of frames on the wire, {:.2} with the gaps of Ethernet",
        frames.len(),
        each(kept as f64),
        each(wire as f64),
        each(wire as f64 + 24.0 * frames.len() as f64)
    );
    packets(&frames, link, |_| true);
}

fn packets(frames: &[(u64, Vec<u8>)], link: u32, wanted: impl Fn(&str) -> bool) {
    if wanted("parse") {
        let rate = runs(|| {
            let mut sum = 0u64;
            let rate = through(frames, link, |packets| {
                sum += packets.iter().map(|packet| u64::from(packet.payload_bytes)).sum::<u64>();
            });
            assert!(sum > 0);
            rate
        });
        println!("parse                    {rate:.2} M packets/s");
    }
    if wanted("table") {
        let rate = runs(|| {
            let mut table = FlowTable::new(TableOptions::default());
            through(frames, link, |packets| table.packets(packets, &mut Nobody))
        });
        println!("parse, table             {rate:.2} M packets/s");
    }
    if wanted("judged") {
        let rate = runs(|| {
            let mut table = FlowTable::new(TableOptions::default());
            let mut detectors = Detectors::default();
            let rate = through(frames, link, |packets| table.packets(packets, &mut detectors));
            assert!(detectors.alerts().is_empty(), "{:?}", detectors.alerts());
            rate
        });
        println!("parse, table, detectors  {rate:.2} M packets/s");
    }
}
