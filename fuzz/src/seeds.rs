//! Small valid inputs of every format, made here: a fuzzer that starts from nothing spends its days on magic numbers.

use crate::{sections, shard};
use arrow::array::{
    ArrayRef, Decimal128Array, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use dbn::encode::{DbnEncodable, DbnEncoder, EncodeRecord};
use dbn::{
    BboMsg, MboMsg, Mbp1Msg, Mbp10Msg, MetadataBuilder, OhlcvMsg, RecordHeader, SType, Schema, TradeMsg,
    rtype,
};
use etherparse::PacketBuilder;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use std::io::Write;
use std::sync::Arc;
use tidegate_engine::{
    Event, FlowPayload, Output, Price, Sequencer, SequencerOptions, Shard, Size, flag, kind,
};
use tidegate_replay::Source;
use tidegate_replay::capture::{CaptureOptions, CaptureWriter, Codec};
use tidegate_replay::generate::{Market, MarketOptions, Network, NetworkOptions};

const NS: u64 = 1_700_000_000_000_000_000;

/// Seeds by target.
#[must_use]
pub fn all() -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let (frames, sessions) = crate::transport::seeds();
    vec![
        ("frames", frames),
        ("sessions", sessions),
        ("ops", crate::gateway::seeds()),
        ("config", crate::config::seeds()),
        ("token", crate::token::seeds()),
        ("sigma", crate::rules::sigma_seeds()),
        ("pattern", crate::rules::pattern_seeds()),
        ("alerts", crate::rules::alerts_seeds()),
        ("journal", crate::journal::seeds()),
        ("snapshot_file", crate::snapshots::seeds()),
        ("replica", crate::replica::seeds()),
        ("csv", csv()),
        ("parquet", parquet()),
        ("dbn", dbn()),
        ("json", json()),
        ("pcap", pcap()),
        ("traffic", [pcap(), zeek(), eve()].concat()),
        ("exports", crate::exports::seeds()),
        ("zeek", zeek()),
        ("eve", eve()),
        ("capture", capture()),
        ("pipeline", pipeline()),
        ("snapshot", snapshot()),
        ("units", texts(&["167.4100", "-0.5", "1.5e3", "9223372036.854775807", "1e-9", "NaN", "-inf"])),
        (
            "specs",
            texts(&[
                "1s",
                "250ms",
                "1000t",
                "50000v",
                "1000000$",
                "366d",
                "session:30s",
                "sliding:1m/10s",
                "1h@1m@1s",
                "rsi:14",
                "macd:12:26:9",
                "bb:20:2.5",
                "width=10s open_max=4",
                "gap=1m late=drop",
                "ts=a,symbol=b,price=c,size=d",
                "parquet",
            ]),
        ),
    ]
}

fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

fn csv() -> Vec<Vec<u8>> {
    let mut all = texts(&[
        "ts_ns,symbol,price,size,side\n1381132800464000000,SPY,167.41,100,b\n1381132800465000000,SPY,1e2,0.5,s\n",
        "time;px;qty\n2024-08-08T23:54:13.937Z;61800,1;3\n2024-08-08 23:54:14;61800;\"2\"\n",
        "date\ttime\tprice\tvolume\n2024-08-08\t09:30:00.5\t10\t7\n",
        "timestamp,ticker,price,size,conditions\n1723161253937,\"A \"\"B\"\"\",-5,1,\n1723161253,C,NaN,inf,\n",
    ]);
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    if gz.write_all(&all[0]).is_ok() {
        all.extend(gz.finish());
    }
    all.extend(zstd::encode_all(&all[0][..], 1));
    all
}

fn json() -> Vec<Vec<u8>> {
    texts(&[
        concat!(
            r#"1723161253937085768 {"stream":"x@depth","data":{"e":"depthUpdate","E":1723161255208,"s":"X","U":1,"u":2,"b":[["61737.63","0.0"]],"a":[["61837.64","1.5"]]}}"#,
            "\n",
            r#"{"stream":"x@trade","data":{"e":"trade","E":1723161255308,"s":"X","t":3,"p":"61800.10","q":"0.0031","T":1723161255307,"m":true}}"#,
            "\n",
            r#"1723161254100000000 {"stream":"x@bookTicker","data":{"u":5,"s":"X","b":"61800.00","B":"3.1","a":"61800.01","A":"2"}}"#,
            "\n",
            r#"{"result":null,"id":1}"#,
            "\n"
        ),
        "{\"t\":1723161254,\"s\":\"X\",\"p\":1.25,\"q\":\"3\"}\n{\"t\":2,\"s\":\"Y\",\"p\":1e2,\"q\":3}\n",
        "{\"timestamp\":\"2024-08-08T23:54:13Z\",\"symbol\":\"\\u0041\",\"price\":\"1\",\"size\":1,\"side\":\"buy\"}\n",
    ])
}

fn zeek() -> Vec<Vec<u8>> {
    texts(&[
        "#separator \\x09\n#unset_field\t-\n#fields\tts\tuid\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\tproto\tduration\torig_bytes\tresp_bytes\torig_pkts\tresp_pkts\thistory\n1677024003.714845\tC1\t192.168.1.107\t65164\t66.63.168.35\t5888\ttcp\t0.5\t10\t99999999999\t70000\t1\tShR\n1677024003.5\tC1\tfe80::1\t5353\tff02::fb\t5353\tudp\t-\t-\t-\t1\t0\t-\n#close\n",
        r#"{"ts":1677024003.714845,"id.orig_h":"10.0.0.1","id.orig_p":1,"id.resp_h":"10.0.0.2","id.resp_p":80,"proto":"tcp","duration":0.5,"orig_ip_bytes":60,"orig_bytes":1}"#,
    ])
}

fn eve() -> Vec<Vec<u8>> {
    texts(&[
        concat!(
            r#"{"timestamp":"2017-04-07T22:24:38.251547+0100","flow_id":4,"event_type":"flow","src_ip":"10.0.0.1","src_port":4,"dest_ip":"10.0.0.2","dest_port":443,"proto":"TCP","flow":{"pkts_toserver":3,"pkts_toclient":2,"bytes_toserver":300,"bytes_toclient":200,"start":"2017-04-07T22:24:37.251547+0100","end":"2017-04-07T22:24:38.251547+0100"},"tcp":{"tcp_flags":"1b","tcp_flags_ts":"1a","tcp_flags_tc":"1b"}}"#,
            "\n"
        ),
        concat!(
            r#"{"timestamp":"2017-04-07T22:24:38.251547+0100","event_type":"dns","src_ip":"fe80::1","dest_ip":"fe80::2","proto":"UDP","dns":{"type":"query","id":1,"rrname":"example.com","rrtype":"TXT"}}"#,
            "\n",
            r#"{"timestamp":"2017-04-07T22:24:38.251547+0100","event_type":"netflow","src_ip":"10.0.0.1","dest_ip":"10.0.0.2","dest_port":443,"proto":"UDP","netflow":{"pkts":1,"bytes":70}}"#,
            "\n"
        ),
    ])
}

fn parquet() -> Vec<Vec<u8>> {
    let n = || 0..40i64;
    let names: ArrayRef = Arc::new(StringArray::from_iter_values(n().map(|n| format!("S{}", n % 3))));
    let whole: ArrayRef = Arc::new(Int64Array::from_iter_values(n().map(|n| NS as i64 + n)));
    let prices: ArrayRef = Arc::new(Float64Array::from_iter_values(n().map(|n| 100.0 + n as f64 / 100.0)));
    let sizes: ArrayRef = Arc::new(Int64Array::from_iter_values(n().map(|n| n % 5)));
    let micros: ArrayRef =
        Arc::new(TimestampMicrosecondArray::from_iter_values(n().map(|n| NS as i64 / 1_000 + n)));
    let decimals = Decimal128Array::from_iter_values(n().map(|n| 10_000 + i128::from(n)));
    let decimals: ArrayRef =
        decimals.with_precision_and_scale(12, 2).map_or(Arc::clone(&prices), |a| Arc::new(a));
    let file = |columns: Vec<(&str, &ArrayRef)>, compression| -> Option<Vec<u8>> {
        let columns = columns.into_iter().map(|(name, array)| (name, Arc::clone(array), true));
        let batch = RecordBatch::try_from_iter_with_nullable(columns).ok()?;
        let properties = WriterProperties::builder()
            .set_max_row_group_row_count(Some(25))
            .set_compression(compression)
            .build();
        let mut out = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut out, batch.schema(), Some(properties)).ok()?;
        writer.write(&batch).ok()?;
        writer.close().ok()?;
        Some(out)
    };
    let zstd = Compression::ZSTD(ZstdLevel::default());
    [
        file(
            vec![("ts", &whole), ("symbol", &names), ("price", &prices), ("size", &sizes)],
            Compression::SNAPPY,
        ),
        file(vec![("time", &micros), ("price", &decimals), ("qty", &prices)], zstd),
        file(vec![("ts", &whole), ("price", &sizes), ("size", &sizes)], Compression::UNCOMPRESSED),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn dbn() -> Vec<Vec<u8>> {
    fn file<R: DbnEncodable>(schema: Schema, records: &[R]) -> Option<Vec<u8>> {
        let metadata = MetadataBuilder::new()
            .dataset("GLBX.MDP3".to_owned())
            .schema(Some(schema))
            .start(0)
            .stype_in(Some(SType::RawSymbol))
            .stype_out(SType::InstrumentId)
            .build();
        let mut out = Vec::new();
        let mut encoder = DbnEncoder::new(&mut out, &metadata).ok()?;
        for record in records {
            encoder.encode_record(record).ok()?;
        }
        Some(out)
    }
    const PRICE: i64 = 4_800_250_000_000;
    let order = |action: u8, id: u64, size: u32| MboMsg {
        hd: RecordHeader::new::<MboMsg>(rtype::MBO, 1, 42, NS),
        order_id: id,
        price: PRICE,
        size,
        action: action as std::ffi::c_char,
        side: b'B' as std::ffi::c_char,
        ts_recv: NS,
        ..MboMsg::default()
    };
    let trade = TradeMsg {
        hd: RecordHeader::new::<TradeMsg>(rtype::MBP_0, 1, 42, NS),
        price: PRICE,
        size: 3,
        action: b'T' as std::ffi::c_char,
        side: b'A' as std::ffi::c_char,
        ts_recv: NS,
        ..TradeMsg::default()
    };
    let best = Mbp1Msg {
        hd: RecordHeader::new::<Mbp1Msg>(rtype::MBP_1, 1, 42, NS),
        price: PRICE,
        size: 3,
        action: b'T' as std::ffi::c_char,
        ..Mbp1Msg::default()
    };
    let ten = Mbp10Msg { hd: RecordHeader::new::<Mbp10Msg>(rtype::MBP_10, 1, 42, NS), ..Mbp10Msg::default() };
    let bar = OhlcvMsg {
        hd: RecordHeader::new::<OhlcvMsg>(rtype::OHLCV_1S, 1, 42, NS),
        open: PRICE,
        high: PRICE,
        low: PRICE,
        close: PRICE,
        volume: 5,
    };
    let quote = BboMsg {
        hd: RecordHeader::new::<BboMsg>(rtype::BBO_1S, 1, 42, NS),
        ts_recv: NS,
        ..BboMsg::default_for_schema(Schema::Bbo1S)
    };
    let orders: Vec<MboMsg> =
        [(b'R', 0, 0), (b'A', 1, 10), (b'T', 0, 4), (b'F', 1, 4), (b'C', 1, 4), (b'M', 1, 6)]
            .map(|(action, id, size)| order(action, id, size))
            .into();
    let mut all: Vec<Vec<u8>> = [
        file(Schema::Mbo, &orders),
        file(Schema::Trades, &[trade.clone(), trade]),
        file(Schema::Mbp1, std::slice::from_ref(&best)),
        file(Schema::Tbbo, &[best]),
        file(Schema::Mbp10, &[ten]),
        file(Schema::Ohlcv1S, &[bar]),
        file(Schema::Bbo1S, &[quote]),
    ]
    .into_iter()
    .flatten()
    .collect();
    all.extend(zstd::encode_all(&all[0][..], 1));
    all
}

fn pcap() -> Vec<Vec<u8>> {
    let ethernet = || PacketBuilder::ethernet2([1; 6], [2; 6]);
    let mut packets: Vec<Vec<u8>> = Vec::new();
    let mut keep = |written: Vec<u8>| packets.push(written);
    let mut syn = Vec::new();
    let tcp = ethernet().ipv4([10, 0, 0, 1], [10, 0, 0, 2], 9).tcp(40_000, 443, 1, 1_000).syn();
    if tcp.write(&mut syn, &[]).is_ok() {
        keep(syn);
    }
    let mut query = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    query.extend_from_slice(b"\x03WWW\x07example\x03com\x00\x00\x10\x00\x01");
    let mut dns = Vec::new();
    if ethernet().ipv6([1; 16], [2; 16], 9).udp(5_000, 53).write(&mut dns, &query).is_ok() {
        keep(dns);
    }
    let mut ping = Vec::new();
    let vlan = ethernet().single_vlan(etherparse::VlanId::ZERO).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 9);
    if vlan.icmpv4_echo_request(1, 2).write(&mut ping, b"abc").is_ok() {
        keep(ping);
    }
    let legacy = |magic: u32| {
        let mut out: Vec<u8> =
            [magic, 0x0004_0002, 0, 0, 65_535, 1].iter().flat_map(|word: &u32| word.to_le_bytes()).collect();
        for (at, packet) in packets.iter().enumerate() {
            for word in [1_700_000_000 + at as u32, 5, packet.len() as u32, packet.len() as u32 + 9] {
                out.extend_from_slice(&word.to_le_bytes());
            }
            out.extend_from_slice(packet);
        }
        out
    };
    let mut ng = Vec::new();
    let mut block = |kind: u32, body: &[u8]| {
        let length = (12 + body.len().next_multiple_of(4)) as u32;
        ng.extend_from_slice(&kind.to_le_bytes());
        ng.extend_from_slice(&length.to_le_bytes());
        ng.extend_from_slice(body);
        ng.resize(ng.len().next_multiple_of(4), 0);
        ng.extend_from_slice(&length.to_le_bytes());
    };
    block(0x0a0d_0d0a, &[0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255]);
    block(1, &[1, 0, 0, 0, 0, 0, 1, 0, 9, 0, 1, 0, 9, 0, 0, 0, 0, 0, 0, 0]);
    for packet in &packets {
        let (high, low) = ((NS >> 32) as u32, NS as u32);
        let mut body: Vec<u8> = [0, high, low, packet.len() as u32, packet.len() as u32]
            .iter()
            .flat_map(|word: &u32| word.to_le_bytes())
            .collect();
        body.extend_from_slice(packet);
        block(6, &body);
    }
    vec![legacy(0xa1b2_c3d4), legacy(0xa1b2_3c4d), ng]
}

/// A few hundred events of a market and of a network, with keys of one dictionary each.
fn generated() -> [(Vec<String>, Vec<Event>); 2] {
    fn take(source: &mut dyn Source) -> (Vec<String>, Vec<Event>) {
        let mut events = Vec::new();
        let _ = source.read(&mut events, 300);
        events.truncate(300);
        (source.names().iter().map(|name| name.to_string()).collect(), events)
    }
    [take(&mut Market::new(MarketOptions::default())), take(&mut Network::new(NetworkOptions::default()))]
}

fn capture() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for (names, events) in generated() {
        for codec in [Codec::Auto, Codec::Planes, Codec::Raw] {
            let options = CaptureOptions::default().with_block_events(130).with_codec(codec);
            let Ok(mut writer) = CaptureWriter::to_stream(Vec::new(), "memory", options) else { continue };
            if names.iter().all(|name| writer.define(name).is_ok()) && writer.push(&events).is_ok() {
                all.extend(writer.finish_stream().map(|(bytes, _)| bytes));
            }
        }
    }
    all
}

/// A shard that has seen trades, flows, lateness, a loss and a cancel.
#[must_use]
pub fn used_shard() -> Shard {
    let mut shard = shard();
    let mut sink = |_: &[Output]| {};
    let define = |key: u32| Event::control(kind::DEFINE, 0, key, 0, [u64::from(key) * 7, u64::from(key)]);
    shard.process(&[define(0), define(1), define(2)], &mut sink);
    let options = SequencerOptions { disorder_ns: 100_000_000, ..SequencerOptions::default() };
    let mut sequencer = Sequencer::new(options);
    sequencer.push(&used_events(), &mut |frame| {
        shard.process(frame, &mut sink);
    });
    sequencer.flush(&mut |frame| {
        shard.process(frame, &mut sink);
    });
    shard.flush(&mut sink);
    shard
}

fn used_events() -> Vec<Event> {
    let mut events = Vec::new();
    for at in 0..60u64 {
        let ts = NS + at * 300_000_000 - if at % 9 == 8 { 2_000_000_000 } else { 0 };
        let price = Price(100_000_000_000 + at as i64 * 10_000_000);
        let flags = if at % 2 == 0 { flag::BUY } else { flag::SELL };
        events.push(Event::trade(ts, (at % 2) as u32, 0, price, Size(1_700_000_000), flags));
        if at % 20 == 19 {
            let mut taken = events[events.len() - 1];
            taken.flags |= flag::CANCEL;
            events.push(taken);
        }
        let flow =
            FlowPayload { peer: at as u32, bytes: 60, packets: 1, port: 443, ..FlowPayload::default() };
        events.push(Event::flow(ts, 2, 0, flag::FLOW_OUTBOUND, flow));
    }
    events.push(Event::control(kind::GAP, NS + 20_000_000_000, 0, 0, [3, NS]));
    events
}

fn pipeline() -> Vec<Vec<u8>> {
    let bytes = |events: &[Event]| {
        let mut out = Vec::new();
        for event in events {
            let head = u64::from(event.key)
                | u64::from(event.source) << 32
                | u64::from(event.kind) << 48
                | u64::from(event.flags) << 56;
            for word in [event.ts_event, head, event.payload[0], event.payload[1]] {
                out.extend_from_slice(&word.to_le_bytes());
            }
        }
        out
    };
    let mut all: Vec<Vec<u8>> = generated().iter().map(|(_, events)| bytes(events)).collect();
    all.push(bytes(&used_events()));
    all
}

fn snapshot() -> Vec<Vec<u8>> {
    let whole = used_shard().snapshot();
    let part = |(at, (_, payload)): (usize, &(u32, &[u8]))| {
        let mut seed = vec![at as u8];
        seed.extend_from_slice(payload);
        seed
    };
    let mut all: Vec<Vec<u8>> = sections(&whole).iter().enumerate().map(part).collect();
    // A lane has an entry per slot: more than an input may be long.
    all.retain(|seed| seed.len() <= 1 << 16);
    let mut head = vec![u8::MAX];
    head.extend_from_slice(&whole[..200]);
    all.push(head);
    all
}
