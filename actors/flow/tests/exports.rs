//! Exports as routers write them: every dialect, both directions, loss, floods of templates and of exporters; and the same fields as
//! another decoder reads.

use proptest::prelude::*;
use std::net::IpAddr;
use tidegate_flow::export::{EXPORTERS_MAX, HOLD_NS, PAIRS_MAX, TEMPLATES_MAX};
use tidegate_flow::packet::tcp_flag::{ACK, FIN, PSH, RST, SYN};
use tidegate_flow::{
    Collector, CollectorOptions, ConnState, Detectors, EndCause, ExportError, FlowRecord, Ip, Kind,
};

const SECOND: u64 = 1_000_000_000;
/// When the exporter wrote: seconds since 1970, and ms since it started.
const WRITTEN: u32 = 1_700_000_000;
const UPTIME: u32 = 90_000_000;

fn ip(text: &str) -> Ip {
    text.parse::<IpAddr>().unwrap().into()
}

fn router() -> Ip {
    ip("192.0.2.1")
}

/// One direction: addresses as numbers, so that encoders are short.
#[derive(Debug, Clone, Copy)]
struct Way {
    from: u32,
    to: u32,
    from_port: u16,
    to_port: u16,
    protocol: u8,
    flags: u8,
    bytes: u32,
    packets: u32,
    /// ms before the datagram was written.
    began: u32,
    ended: u32,
}

impl Way {
    fn tcp(from_port: u16, to_port: u16, flags: u8, bytes: u32, began: u32) -> Self {
        let (from, to) =
            if from_port > to_port { (0x0a00_0001, 0x0a00_0002) } else { (0x0a00_0002, 0x0a00_0001) };
        Self { from, to, from_port, to_port, protocol: 6, flags, bytes, packets: 4, began, ended: 100 }
    }
}

fn v5(sequence: u32, sampling: u16, ways: &[Way]) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend(5u16.to_be_bytes());
    out.extend((ways.len() as u16).to_be_bytes());
    for word in [UPTIME, WRITTEN, 0, sequence] {
        out.extend(word.to_be_bytes());
    }
    out.extend([0, 0]);
    out.extend(sampling.to_be_bytes());
    for way in ways {
        for word in [way.from, way.to, 0, 0, way.packets, way.bytes, UPTIME - way.began, UPTIME - way.ended] {
            out.extend(word.to_be_bytes());
        }
        out.extend(way.from_port.to_be_bytes());
        out.extend(way.to_port.to_be_bytes());
        out.extend([0, way.flags, way.protocol, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
    out
}

/// The fields of a template and a way in that order.
const FIELDS: [(u16, u16); 10] =
    [(8, 4), (12, 4), (7, 2), (11, 2), (4, 1), (6, 1), (1, 4), (2, 4), (22, 4), (21, 4)];

fn data(way: &Way) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend(way.from.to_be_bytes());
    out.extend(way.to.to_be_bytes());
    out.extend(way.from_port.to_be_bytes());
    out.extend(way.to_port.to_be_bytes());
    out.extend([way.protocol, way.flags]);
    for word in [way.bytes, way.packets, UPTIME - way.began, UPTIME - way.ended] {
        out.extend(word.to_be_bytes());
    }
    out
}

fn set(id: u16, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend(id.to_be_bytes());
    out.extend((body.len() as u16 + 4).to_be_bytes());
    out.extend(body);
    out
}

fn template(id: u16, fields: &[(u16, u16)]) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend(id.to_be_bytes());
    out.extend((fields.len() as u16).to_be_bytes());
    for (number, bytes) in fields {
        out.extend(number.to_be_bytes());
        out.extend(bytes.to_be_bytes());
    }
    out
}

fn v9(sequence: u32, sets: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend(9u16.to_be_bytes());
    out.extend((sets.len() as u16).to_be_bytes());
    for word in [UPTIME, WRITTEN, sequence, 7] {
        out.extend(word.to_be_bytes());
    }
    sets.iter().for_each(|set| out.extend(set));
    out
}

fn ipfix(sequence: u32, sets: &[Vec<u8>]) -> Vec<u8> {
    let body = sets.concat();
    let mut out = Vec::new();
    out.extend(10u16.to_be_bytes());
    out.extend((body.len() as u16 + 16).to_be_bytes());
    for word in [WRITTEN, sequence, 7] {
        out.extend(word.to_be_bytes());
    }
    out.extend(body);
    out
}

/// Gives datagrams to a collector, a second apart, and everything that comes out.
fn collect(collector: &mut Collector, datagrams: &[Vec<u8>]) -> Vec<FlowRecord> {
    let mut flows = Vec::new();
    for (at, datagram) in datagrams.iter().enumerate() {
        let now = u64::from(WRITTEN) * SECOND + at as u64 * SECOND;
        let done = collector.datagram(router(), at as u64 + 1, now, datagram, |flow| flows.push(*flow));
        assert_eq!(done, Ok(()), "datagram {at}");
    }
    collector.finish(|flow| flows.push(*flow));
    flows
}

fn told(flow: &FlowRecord) -> (String, u16, String, u16, ConnState, String, u64, u64) {
    (
        flow.originator.to_string(),
        flow.originator_port,
        flow.responder.to_string(),
        flow.responder_port,
        flow.state,
        flow.history.as_str().to_owned(),
        flow.sent.ip_bytes,
        flow.received.ip_bytes,
    )
}

/// The two directions of a connection, the server's told first.
fn conversation() -> [Way; 2] {
    [
        Way::tcp(443, 50_000, SYN | ACK | PSH | FIN, 9_000, 1_900),
        Way::tcp(50_000, 443, SYN | ACK | PSH | FIN, 700, 2_000),
    ]
}

#[test]
fn every_dialect_tells_the_same_connection() {
    let ways = conversation();
    let both = || data(&ways[0]).into_iter().chain(data(&ways[1])).collect::<Vec<_>>();
    let millis = |before: u32| (u64::from(WRITTEN) * 1_000 - u64::from(before)).to_be_bytes();
    // IPFIX with its own times, and a field that says its own length between the others.
    let fields =
        [(8, 4), (12, 4), (7, 2), (11, 2), (4, 1), (6, 2), (82, 0xffff), (1, 8), (2, 3), (152, 8), (153, 8)];
    let mut records = Vec::new();
    for way in &ways {
        records.extend(way.from.to_be_bytes());
        records.extend(way.to.to_be_bytes());
        records.extend(way.from_port.to_be_bytes());
        records.extend(way.to_port.to_be_bytes());
        records.extend([way.protocol, 0, way.flags, 4]);
        records.extend(b"eth0");
        records.extend(u64::from(way.bytes).to_be_bytes());
        records.extend(&way.packets.to_be_bytes()[1..]);
        records.extend(millis(way.began));
        records.extend(millis(way.ended));
    }
    let dialects = [
        ("v5", vec![v5(1, 0, &ways)]),
        ("v5, apart", vec![v5(1, 0, &ways[..1]), v5(2, 0, &ways[1..])]),
        ("v9", vec![v9(1, &[set(0, &template(300, &FIELDS)), set(300, &both())])]),
        ("v9, template first", vec![v9(1, &[set(0, &template(300, &FIELDS))]), v9(2, &[set(300, &both())])]),
        ("ipfix", vec![ipfix(0, &[set(2, &template(300, &fields)), set(300, &records)])]),
    ];
    for (name, datagrams) in dialects {
        let mut collector = Collector::default();
        let flows = collect(&mut collector, &datagrams);
        assert_eq!(flows.len(), 1, "{name}: {flows:?}");
        let expected =
            ("10.0.0.1".into(), 50_000, "10.0.0.2".into(), 443, ConnState::Sf, "ShADadFf".into(), 700, 9_000);
        assert_eq!(told(&flows[0]), expected, "{name}");
        assert_eq!(flows[0].start_ns, (u64::from(WRITTEN) * 1_000 - 2_000) * 1_000_000, "{name}");
        assert_eq!(flows[0].duration_ns(), Some(1_900_000_000), "{name}");
        let counts = collector.counts();
        assert_eq!((counts.records, counts.flows, counts.lost, counts.malformed), (2, 1, 0, 0), "{name}");
    }
}

#[test]
fn states_follow_from_the_flags_of_both_directions() {
    for (asks, answers, state, history) in [
        (SYN, None, ConnState::S0, "S"),
        (SYN | FIN, None, ConnState::Sh, "SF"),
        (SYN, Some(RST | ACK), ConnState::Rej, "Sr"),
        (SYN | RST, Some(SYN | ACK), ConnState::RstO, "ShR"),
        (SYN | ACK, None, ConnState::Oth, "SA"),
        (SYN | ACK | FIN, Some(SYN | ACK), ConnState::S2, "ShAF"),
        (SYN | ACK, Some(SYN | ACK | RST), ConnState::RstR, "ShAr"),
        (ACK, Some(ACK), ConnState::Oth, "A"),
    ] {
        let mut ways = vec![Way { packets: 1, ..Way::tcp(50_000, 80, asks, 40, 900) }];
        ways.extend(answers.map(|flags| Way { packets: 1, ..Way::tcp(80, 50_000, flags, 40, 800) }));
        let flows = collect(&mut Collector::default(), &[v5(1, 0, &ways)]);
        assert_eq!(flows.len(), 1);
        assert_eq!((flows[0].state, flows[0].history.as_str()), (state, history));
        // The middle of a connection, cut off by an active time-out, is no new one.
        let cause = match (asks & SYN, answers, state) {
            (0, ..) => EndCause::Interim,
            // The other direction went another way.
            (_, None, ConnState::Oth) => EndCause::OneWay,
            _ => EndCause::Logged,
        };
        assert_eq!(flows[0].cause, cause, "{history}");
    }
}

/// RFC 5103: both directions in one record.
#[test]
fn biflows_need_no_partner() {
    let mut fields =
        template(300, &[(8, 4), (12, 4), (7, 2), (11, 2), (4, 1), (6, 1), (1, 4), (2, 4), (158, 4)]);
    fields[2..4].copy_from_slice(&12u16.to_be_bytes());
    for number in [1u16, 2, 6] {
        fields.extend((0x8000 | number).to_be_bytes());
        fields.extend((if number == 6 { 1u16 } else { 4 }).to_be_bytes());
        fields.extend(29_305u32.to_be_bytes());
    }
    let mut record = data(&Way::tcp(50_000, 80, SYN | ACK | FIN, 500, 0));
    record.truncate(22);
    record.extend(2_000_000u32.to_be_bytes());
    record.extend(8_000u32.to_be_bytes());
    record.extend(6u32.to_be_bytes());
    record.push(SYN | ACK | FIN);
    let mut flows = Vec::new();
    let mut collector = Collector::default();
    let now = u64::from(WRITTEN) * SECOND;
    let datagram = ipfix(0, &[set(2, &fields), set(300, &record)]);
    collector.datagram(router(), 1, now, &datagram, |flow| flows.push(*flow)).unwrap();
    assert_eq!(flows.len(), 1, "{:?}", collector.counts());
    assert_eq!(
        (flows[0].state, flows[0].received.ip_bytes, flows[0].received.packets),
        (ConnState::Sf, 8_000, 6)
    );
    assert_eq!(flows[0].start_ns, now - 2 * SECOND);
}

/// A frame's first bytes, sampled one in 500, in both directions.
#[test]
fn samples_of_sflow_are_added_up() {
    let frame = |from: [u8; 4], to: [u8; 4]| {
        let mut frame = Vec::new();
        etherparse::PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4(from, to, 60)
            .udp(if from[3] == 1 { 5_000 } else { 53 }, if from[3] == 1 { 53 } else { 5_000 })
            .write(&mut frame, &[7; 100])
            .unwrap();
        frame
    };
    let sample = |frame: &[u8], expanded: bool| {
        let mut body = Vec::new();
        let words: &[u32] =
            if expanded { &[9, 0, 3, 500, 1_000, 0, 0, 1, 0, 2, 1] } else { &[9, 3, 500, 1_000, 0, 1, 2, 1] };
        words.iter().for_each(|word| body.extend(word.to_be_bytes()));
        let mut padded = frame.to_vec();
        padded.resize(frame.len().next_multiple_of(4), 0);
        for word in [1, padded.len() as u32 + 16, 1, frame.len() as u32, 4, frame.len() as u32] {
            body.extend(word.to_be_bytes());
        }
        body.extend(padded);
        let mut out = Vec::new();
        for word in [if expanded { 3 } else { 1 }, body.len() as u32] {
            out.extend(word.to_be_bytes());
        }
        out.extend(body);
        out
    };
    let (out, back) = (frame([10, 0, 0, 1], [10, 0, 0, 2]), frame([10, 0, 0, 2], [10, 0, 0, 1]));
    let datagram = |sequence: u32, samples: &[Vec<u8>]| {
        let mut bytes = Vec::new();
        for word in [5, 1, 0x0a00_00fe, 0, sequence, 1_000, samples.len() as u32] {
            bytes.extend(u32::to_be_bytes(word));
        }
        bytes.extend(samples.concat());
        bytes
    };
    let mut collector = Collector::default();
    let datagrams =
        [datagram(1, &[sample(&out, false), sample(&back, true)]), datagram(4, &[sample(&out, true)])];
    let flows = collect(&mut collector, &datagrams);
    assert_eq!(flows.len(), 1, "{flows:?}");
    let flow = flows[0];
    assert_eq!((flow.originator_port, flow.responder_port, flow.sampling), (5_000, 53, 500));
    assert_eq!((flow.sent.packets, flow.sent.ip_bytes, flow.received.packets), (1_000, 128_000, 500));
    assert_eq!(collector.counts().lost, 2, "two datagrams are missing");
    for cut in 0..datagrams[0].len() {
        let _ = collector.datagram(router(), 9, 1, &datagrams[0][..cut], |_| {});
    }
}

#[test]
fn sampling_is_applied_where_told_and_flagged_where_not() {
    // An options template of v9: scope "system", then sampler's rate.
    let mut options = Vec::new();
    for word in [400u16, 4, 4, 1, 4, 34, 4] {
        options.extend(word.to_be_bytes());
    }
    let told = v9(1, &[set(1, &options), set(400, &[0, 0, 0, 1, 0, 0, 3, 232])]);
    let flow = v9(2, &[set(0, &template(300, &FIELDS)), set(300, &data(&conversation()[1]))]);
    let flows = collect(&mut Collector::default(), &[told, flow.clone()]);
    assert_eq!((flows[0].sampling, flows[0].state), (1_000, ConnState::Oth));
    let sent = (flows[0].sent.ip_bytes, flows[0].sent.packets);
    assert_eq!(sent, (700_000, 4_000), "sizes are those of the traffic");
    let mut collector = Collector::default();
    assert_eq!(collect(&mut collector, std::slice::from_ref(&flow))[0].sampling, 0);
    assert_eq!(collector.counts().sampling_unknown, 1);
    let mut collector = Collector::new(CollectorOptions { sampling: Some(1) });
    assert_eq!(collect(&mut collector, &[flow])[0].sampling, 1);
    // The header of v5.
    assert_eq!(collect(&mut Collector::default(), &[v5(1, 0x4000 | 100, &conversation())])[0].sampling, 100);
}

#[test]
fn loss_is_counted_by_sequence() {
    let way = conversation();
    let records = set(300, &data(&way[0]));
    let begin = || set(2, &template(300, &FIELDS));
    for (datagrams, lost, restarts, late) in [
        (vec![v5(10, 0, &way), v5(12, 0, &way), v5(20, 0, &way)], 6, 0, 0),
        (vec![v5(10, 0, &way), v5(16, 0, &way), v5(12, 0, &way), v5(18, 0, &way)], 2, 0, 1),
        (vec![v5(u32::MAX, 0, &way), v5(1, 0, &way)], 0, 0, 0),
        (vec![v5(900_000_000, 0, &way), v5(0, 0, &way)], 0, 1, 0),
        (
            vec![
                ipfix(5, &[begin(), records.clone()]),
                ipfix(6, std::slice::from_ref(&records)),
                ipfix(17, &[]),
            ],
            10,
            0,
            0,
        ),
        // What has no template was not counted, so nothing is said until the sequence is known again.
        (vec![ipfix(5, &[set(301, &[0; 8])]), ipfix(50, &[]), ipfix(53, &[])], 3, 0, 0),
        (vec![v9(1, &[]), v9(2, &[]), v9(9, &[])], 6, 0, 0),
    ] {
        let mut collector = Collector::default();
        collect(&mut collector, &datagrams);
        let counts = collector.counts();
        assert_eq!((counts.lost, counts.restarts, counts.late), (lost, restarts, late), "{counts:?}");
    }
}

#[test]
fn what_is_no_export_is_refused() {
    let mut collector = Collector::default();
    let mut refused =
        |bytes: &[u8]| collector.datagram(router(), 1, 1, bytes, |_| panic!("a flow")).unwrap_err();
    assert_eq!(refused(b""), ExportError::Malformed);
    assert_eq!(refused(&[0, 5, 0, 31, 0, 0]), ExportError::Malformed);
    assert_eq!(refused(&[0, 7, 0, 0]), ExportError::Version(7));
    assert_eq!(refused(&[0, 10, 0, 15, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), ExportError::Malformed);
    assert!(refused(b"GET / HTTP/1.1").to_string().contains("version 18245"));
    assert_eq!(collector.counts().malformed, 5);
    // A set that is longer than its message; a template of nothing; one of more than a record can hold.
    let mut long = set(300, &[0; 8]);
    long[3] = 200;
    let wide: Vec<(u16, u16)> = (0..40).map(|_| (1, 2_000)).collect();
    let none: Vec<(u16, u16)> = vec![(1, 0)];
    let many: Vec<(u16, u16)> = (0..200).map(|n| (n, 4)).collect();
    let mut collector = Collector::default();
    collect(&mut collector, &[v9(1, &[long])]);
    assert_eq!(collector.counts().malformed, 1);
    let sets = [&wide, &none, &many].map(|fields| set(0, &template(300, fields)));
    collect(&mut collector, &[v9(2, &sets)]);
    assert_eq!(collector.counts().templates_refused, 3);
}

/// A clock that is years off moves nothing but its own records, to when they came in.
#[test]
fn clocks_that_are_off_do_not_move_time() {
    let mut flows = Vec::new();
    let mut collector = Collector::default();
    for (at, now) in [1_600_000_000u64, 1_600_000_001, 1_599_999_000].into_iter().enumerate() {
        let datagram = v5(at as u32, 0, &conversation());
        collector.datagram(router(), 1, now * SECOND, &datagram, |flow| flows.push(*flow)).unwrap();
    }
    assert_eq!(collector.counts().skewed, 3);
    let seconds: Vec<u64> = flows.iter().map(|flow| flow.start_ns / SECOND).collect();
    assert_eq!(seconds, [1_599_999_998, 1_599_999_999, 1_599_998_998]);
}

#[test]
fn floods_of_templates_and_of_exporters_are_bounded() {
    let mut collector = Collector::default();
    let now = u64::from(WRITTEN) * SECOND;
    let real = [v9(1, &[set(0, &template(300, &FIELDS))]), v9(2, &[set(300, &data(&conversation()[0]))])];
    collector.datagram(router(), 1, now, &real[0], |_| {}).unwrap();
    let flood = TEMPLATES_MAX as u32 * 20;
    for n in 0..flood {
        let datagram = v9(n, &[set(0, &template(256 + (n % 60_000) as u16, &FIELDS))]);
        // One exporter with ever new templates, and ever new exporters; the real one speaks now and then.
        let liar = ip("203.0.113.9");
        collector.datagram(liar, 1, now, &datagram, |_| {}).unwrap();
        let spoofed = Ip::v4((0x3000_0000 + n).to_be_bytes());
        collector.datagram(spoofed, 1, now, &datagram, |_| {}).unwrap();
        if n.is_multiple_of(100) {
            collector.datagram(router(), 1, now, &real[1], |_| {}).unwrap();
        }
    }
    let counts = collector.counts();
    assert_eq!(counts.without_template, 0, "the real exporter was forgotten: {counts:?}");
    let expected = (flood - TEMPLATES_MAX as u32) + (flood + 2 - EXPORTERS_MAX as u32);
    assert_eq!(counts.forgotten, u64::from(expected));
}

/// Templates and samplers belong to an address and a domain: what another address claims under the same numbers, or the same address in
/// another domain, changes nothing. (Who sends from the exporter's own address cannot be told from it: NetFlow has no signature.)
#[test]
fn what_others_claim_does_not_change_how_an_exporter_is_read() {
    /// The fields with both ends exchanged: the same bytes read with it say something else.
    fn exchanged() -> Vec<(u16, u16)> {
        FIELDS
            .iter()
            .map(|&(number, bytes)| {
                let other = match number {
                    8 => 12,
                    12 => 8,
                    7 => 11,
                    11 => 7,
                    number => number,
                };
                (other, bytes)
            })
            .collect()
    }
    let way = Way::tcp(50_000, 443, SYN | ACK | PSH | FIN, 700, 2_000);
    let domain = |mut datagram: Vec<u8>, number: u8| {
        let at = if datagram[1] == 9 { 19 } else { 15 };
        datagram[at] = number;
        datagram
    };
    for dialect in [9, 10] {
        let write = |sequence: u32, sets: &[Vec<u8>]| match dialect {
            9 => v9(sequence, sets),
            _ => ipfix(sequence, sets),
        };
        // A template of options: scope, then the sampler's rate.
        let (id, words): (u16, &[u16]) =
            if dialect == 9 { (0, &[400, 4, 4, 1, 4, 34, 4]) } else { (2, &[400, 2, 1, 149, 4, 34, 4]) };
        let sampler: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        let liar = ip("203.0.113.9");
        let mut collector = Collector::new(CollectorOptions { sampling: Some(1) });
        let mut flows: Vec<FlowRecord> = Vec::new();
        let mut sequence = 0;
        let mut send = |from: Ip, datagram: &[u8]| {
            sequence += 1;
            let now = u64::from(WRITTEN) * SECOND;
            collector.datagram(from, sequence, now, datagram, |flow| flows.push(*flow)).unwrap();
        };
        send(router(), &write(1, &[set(id, &template(300, &FIELDS))]));
        // Other layouts, withdrawals, templates that are none, rates of sampling, far numbers, domains in masses: all by somebody else.
        let claims = [
            write(9_000, &[set(id, &template(300, &exchanged()))]),
            write(9_001, &[set(id, &template(300, &[]))]),
            write(9_002, &[set(id, &template(300, &[(1, 2_000); 40]))]),
            write(9_003, &[set(id + 1, &sampler), set(400, &[0, 0, 0, 1, 0, 0, 3, 232])]),
            write(9_004, &[set(id, &template(300, &exchanged()))]),
        ];
        for number in 0..=200u8 {
            for claim in &claims {
                send(liar, &domain(claim.clone(), number));
                if number != 7 {
                    send(router(), &domain(claim.clone(), number));
                }
            }
        }
        send(router(), &write(if dialect == 9 { 2 } else { 1 }, &[set(300, &data(&way))]));
        // What the other says is read as the other says it, with the ends exchanged.
        send(liar, &write(9_005, &[set(300, &data(&way))]));
        collector.finish(|flow| flows.push(*flow));
        let counts = collector.counts();
        assert_eq!((counts.records, counts.without_template), (2, 0), "{dialect}: {counts:?}");
        // Two flows: what one exporter tells is no other half of what another tells.
        let read = |sampling: u32| {
            let mut all = flows.iter().filter(|flow| flow.sampling == sampling);
            let flow = all.next().unwrap_or_else(|| panic!("{dialect}: none of {sampling} in {flows:?}"));
            (flow.originator.to_string(), flow.originator_port, flow.sent.ip_bytes + flow.received.ip_bytes)
        };
        assert_eq!(flows.len(), 2, "{dialect}: {flows:?}");
        assert_eq!(read(1), ("10.0.0.1".to_owned(), 50_000, 700), "{dialect}");
        assert_eq!(read(1_000), ("10.0.0.2".to_owned(), 443, 700_000), "{dialect}");
        assert!(counts.forgotten == 0 && counts.templates_refused >= 201, "{counts:?}");
    }
}

/// Halves that never meet their other half wait in a bounded place.
#[test]
fn halves_that_wait_are_bounded() {
    let mut collector = Collector::default();
    let (mut flows, mut sequence) = (0u64, 0);
    let now = u64::from(WRITTEN) * SECOND;
    let count = PAIRS_MAX as u32 + 3_000;
    for n in (0..count).step_by(30) {
        let ways: Vec<Way> = (n..n + 30)
            .map(|n| Way { from: 0x3000_0000 + n, ..Way::tcp(50_000, 80, SYN, 40, 500) })
            .collect();
        collector.datagram(router(), 1, now, &v5(sequence, 0, &ways), |_| flows += 1).unwrap();
        sequence += 30;
    }
    let counts = collector.counts();
    assert_eq!(counts.hurried, flows);
    assert!(flows > 2_900, "{flows}");
    collector.datagram(router(), 1, now + HOLD_NS, &v5(sequence, 0, &[]), |_| flows += 1).unwrap();
    assert_eq!(flows, u64::from(sequence));
}

/// A scan, told by a router: what detectors say of a log they say of an export.
#[test]
fn a_scan_is_found_in_an_export() {
    let mut detectors = Detectors::default();
    let mut collector = Collector::new(CollectorOptions { sampling: Some(1) });
    for n in 0..60u16 {
        let ways = [
            Way { packets: 1, ..Way::tcp(50_000, 1 + n, SYN, 40, 500) },
            Way { packets: 1, ..Way::tcp(1 + n, 50_000, RST | ACK, 40, 499) },
        ];
        let now = u64::from(WRITTEN) * SECOND + u64::from(n) * SECOND / 10;
        let datagram = v5(u32::from(n) * 2, 0, &ways);
        collector
            .datagram(router(), 1 + u64::from(n), now, &datagram, |flow| detectors.logged(flow))
            .unwrap();
    }
    let told: Vec<_> = detectors.alerts().iter().map(|alert| (alert.kind, alert.source)).collect();
    assert_eq!(told, [(Kind::VerticalScan, ip("10.0.0.1"))]);
}

/// A call that lasts, told once a minute, is not a minute's beacon.
#[test]
fn parts_of_a_long_flow_are_no_calls() {
    let mut detectors = Detectors::default();
    let mut collector = Collector::new(CollectorOptions { sampling: Some(1) });
    let mut parts = 0;
    for n in 0..40u32 {
        let way =
            Way { to: 0x0808_0808, protocol: 17, began: 59_000, ..Way::tcp(50_000, 4_500, 0, 9_000, 0) };
        let mut datagram = v5(n, 0, &[way]);
        datagram[8..12].copy_from_slice(&(WRITTEN + n * 60).to_be_bytes());
        let now = (u64::from(WRITTEN) + u64::from(n) * 60) * SECOND;
        let take = |flow: &FlowRecord| {
            parts += u32::from(flow.cause == EndCause::Interim);
            detectors.logged(flow);
        };
        collector.datagram(router(), u64::from(n), now, &datagram, take).unwrap();
    }
    assert_eq!(parts, 38);
    assert!(detectors.alerts().is_empty(), "{:?}", detectors.alerts());
}

fn any_way() -> impl Strategy<Value = Way> {
    let ports = (any::<u16>(), any::<u16>(), any::<u8>());
    let sizes = (1u32..1_000_000, 1u32..1_000, 0u32..60_000, 0u32..60_000);
    (1u32..u32::MAX, 1u32..u32::MAX, ports, any::<bool>(), sizes).prop_map(|(from, to, ports, tcp, sizes)| {
        Way {
            // Outside of what has no other half.
            from: (from & 0x7fff_ffff) | 1,
            to: (to & 0x7fff_fffe) | 0x0100_0000,
            from_port: ports.0,
            to_port: ports.1,
            protocol: if tcp { 6 } else { 17 },
            flags: ports.2,
            bytes: sizes.0,
            packets: sizes.1,
            began: sizes.2.max(sizes.3),
            ended: sizes.2.min(sizes.3),
        }
    })
}

proptest! {
    /// The crate `netflow_parser` reads the same addresses, ports and protocols.
    #[test]
    fn another_decoder_reads_the_same(ways in prop::collection::vec(any_way(), 1..8), dialect in 0..3) {
        let records = set(300, &ways.iter().flat_map(data).collect::<Vec<_>>());
        let datagram = match dialect {
            0 => v5(1, 0, &ways),
            1 => v9(1, &[set(0, &template(300, &FIELDS)), records]),
            _ => ipfix(1, &[set(2, &template(300, &FIELDS)), records]),
        };
        let parsed = netflow_parser::NetflowParser::default().parse_bytes(&datagram);
        let theirs = parsed.packets.iter().flat_map(|packet| packet.as_netflow_common().unwrap().flowsets);
        let mut theirs: Vec<_> = theirs
            .map(|flow| (flow.src_addr, flow.src_port, flow.dst_addr, flow.dst_port, flow.protocol_number))
            .collect();
        let mut collector = Collector::default();
        let mut ours = Vec::new();
        let now = u64::from(WRITTEN) * SECOND;
        collector.datagram(router(), 1, now, &datagram, |flow| ours.push(*flow)).unwrap();
        collector.finish(|flow| ours.push(*flow));
        // Each of our flows is one or two of theirs.
        let mut halves: Vec<_> = ours
            .iter()
            .flat_map(|flow| {
                let ends = [(flow.originator, flow.originator_port), (flow.responder, flow.responder_port)];
                let way = |from: usize, to: usize| {
                    let ip = |end: usize| Some(IpAddr::from(ends[end].0));
                    (ip(from), Some(ends[from].1), ip(to), Some(ends[to].1), Some(flow.protocol))
                };
                let back = (flow.received.packets > 0).then(|| way(1, 0));
                [Some(way(0, 1)), back].into_iter().flatten()
            })
            .collect();
        theirs.sort();
        halves.sort();
        prop_assert_eq!(halves, theirs);
    }

    #[test]
    fn any_bytes_are_read_or_refused(
        version in prop::sample::select(vec![[0u8, 5], [0, 9], [0, 10], [0, 0]]),
        bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..6),
        times in prop::collection::vec(any::<u64>(), 6),
    ) {
        let mut collector = Collector::default();
        for (body, now) in bodies.iter().zip(times) {
            let datagram = [&version[..], body].concat();
            let _ = collector.datagram(router(), 1, now, &datagram, |flow| assert!(flow.start_ns <= flow.last_ns));
        }
        collector.finish(|flow| assert!(flow.start_ns <= flow.last_ns));
    }

    /// Sound exports with a byte changed, or cut short.
    #[test]
    fn damage_is_read_or_refused(at in 0usize..300, value: u8, cut in 0usize..300, dialect in 0..3) {
        let records = set(300, &conversation().iter().flat_map(data).collect::<Vec<_>>());
        let mut datagram = match dialect {
            0 => v5(1, 0, &conversation()),
            1 => v9(1, &[set(0, &template(300, &FIELDS)), records]),
            _ => ipfix(1, &[set(2, &template(300, &FIELDS)), records]),
        };
        if let Some(byte) = datagram.get_mut(at) {
            *byte = value;
        }
        datagram.truncate(cut);
        let mut collector = Collector::default();
        for now in [0, u64::MAX] {
            let _ = collector.datagram(router(), 1, now, &datagram, |_| {});
        }
        collector.finish(|_| {});
    }
}
