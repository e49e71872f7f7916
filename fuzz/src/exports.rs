//! Flow exports of several exporters, whose clocks and templates are as they like.

use tidegate_flow::{Collector, CollectorOptions, Detectors, EndCause, FlowRecord, Ip, Stored};

/// The input as datagrams: length (two bytes), exporter, seconds since the one before, bytes.
fn datagrams(mut bytes: &[u8]) -> impl Iterator<Item = (u8, u8, &[u8])> {
    std::iter::from_fn(move || {
        let (&[low, high, exporter, later], rest) = bytes.split_first_chunk::<4>()?;
        let length = usize::from(u16::from_le_bytes([low, high])).min(rest.len());
        let (datagram, rest) = rest.split_at(length);
        bytes = rest;
        Some((exporter, later, datagram))
    })
}

/// Whatever comes: each record is told once, in a flow of one or two of them, counts say what became of each datagram, and flows that are
/// written down are read as they were.
///
/// # Panics
/// When that does not hold.
pub fn run(bytes: &[u8]) {
    let mut collector = Collector::new(CollectorOptions { sampling: None });
    let mut detectors = Detectors::default();
    let (mut given, mut number, mut refused) = (0u64, 0u64, 0u64);
    let mut now = 1_700_000_000_000_000_000u64;
    let (mut writer, mut reader, mut written) = (Stored::default(), Stored::default(), Vec::new());
    let mut check = |flow: &FlowRecord| {
        given += 1;
        assert_eq!(flow.id, given);
        assert!(flow.start_ns <= flow.last_ns, "{flow:?}");
        assert!(matches!(flow.cause, EndCause::Logged | EndCause::Interim | EndCause::OneWay), "{flow:?}");
        assert!(flow.packets.0 <= flow.packets.1, "{flow:?}");
        detectors.logged(flow);
        written.clear();
        writer.write(flow, &mut written);
        assert_eq!(reader.read(&written), Ok((*flow, written.len())));
    };
    for (exporter, later, datagram) in datagrams(bytes) {
        number += 1;
        // A clock that steps back now and then.
        now = if later == 255 { now - 3_600_000_000_000 } else { now + u64::from(later) * 1_000_000_000 };
        let from = Ip::v4([192, 0, 2, exporter]);
        refused += u64::from(collector.datagram(from, number, now, datagram, &mut check).is_err());
    }
    collector.finish(&mut check);
    let counts = collector.counts();
    assert_eq!((counts.datagrams, counts.flows), (number, given), "{counts:?}");
    assert!(counts.flows <= counts.records && refused <= counts.malformed, "{counts:?}");
    // What is no such writing ends in an error.
    let (mut reader, mut at) = (Stored::default(), 0);
    while let Ok((_, length)) = reader.read(&bytes[at..]) {
        at += length;
    }
    for alert in detectors.alerts() {
        assert!(
            (0.0..=1.0).contains(&alert.probability) && alert.range.first_ns <= alert.range.last_ns,
            "{alert:?}"
        );
    }
}

fn framed(exporter: u8, later: u8, datagram: &[u8]) -> Vec<u8> {
    let length = (datagram.len() as u16).to_le_bytes();
    [&[length[0], length[1], exporter, later], datagram].concat()
}

/// One datagram of each dialect.
pub fn seeds() -> Vec<Vec<u8>> {
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<u8>>();
    let shorts = |shorts: &[u16]| shorts.iter().flat_map(|short| short.to_be_bytes()).collect::<Vec<u8>>();
    let (written, uptime) = (1_700_000_000, 90_000_000);
    let (from, to) = (0x0a00_0001, 0x0a00_0002);
    let five = [
        shorts(&[5, 1]),
        words(&[uptime, written, 0, 1, 0, from, to, 0, 0, 3, 300, uptime - 2_000, uptime - 900]),
        shorts(&[40_000, 443]),
        vec![0, 0x1b, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ]
    .concat();
    let fields = shorts(&[300, 7, 8, 4, 12, 4, 7, 2, 11, 2, 4, 1, 1, 4, 2, 4]);
    let record = [words(&[from, to]), shorts(&[40_000, 53]), vec![17], words(&[300, 3])].concat();
    let sets = |template: u16| {
        [
            shorts(&[template, fields.len() as u16 + 4]),
            fields.clone(),
            shorts(&[300, record.len() as u16 + 4]),
            record.clone(),
        ]
        .concat()
    };
    let nine = [shorts(&[9, 2]), words(&[uptime, written, 1, 7]), sets(0)].concat();
    let ten = [shorts(&[10, 16 + sets(2).len() as u16]), words(&[written, 1, 7]), sets(2)].concat();
    let addresses = words(&[3, 32, 100, 17, from, to, 40_000, 53, 0, 0]);
    let sample = [words(&[9, 3, 500, 1_000, 0, 1, 2, 1]), addresses].concat();
    let sflow = [words(&[5, 1, from, 0, 1, 1_000, 1, 1, sample.len() as u32]), sample].concat();
    let all = [five, nine, ten, sflow];
    let together = all.iter().flat_map(|datagram| framed(1, 20, datagram)).collect();
    all.iter().map(|datagram| framed(1, 0, datagram)).chain([together]).collect()
}
